/* The etcd back end, for this folder and its tests.
 *
 * The store's index and history are a mirror of all of etcd, fed by one watch; so reads are as fast
 * as with the other back ends and parse nothing. Writes are compare-and-swap transactions of one
 * key; those that wait at the same time go to etcd as the branches of one, so that they pay for one
 * commit. They are answered when the mirror shows them. Everything runs on the store's thread, on a
 * loop of its own inside the store's, so that opening and draining can wait for etcd without
 * running anybody else's callbacks. */
#ifndef AT_STORE_ETCD_PRIV_H
#define AT_STORE_ETCD_PRIV_H

#include "net/http_client.h"
#include "store/etcd_wire.h"

enum at_etcd_op_state {
    AT_ETCD_OP_WAITING, /* behind another write to its key, or in order behind all */
    AT_ETCD_OP_READY,
    AT_ETCD_OP_SENT,
    AT_ETCD_OP_RECHECK, /* refused, but an earlier attempt may have been ours: the mirror will tell
                         */
    AT_ETCD_OP_DECIDED, /* answered once the mirror shows need_rev */
};

struct at_etcd_key { /* the writes to one key that are not answered yet, in order */
    struct at_etcd_op *first, *last;
    bool known; /* what the newest decided one left behind: */
    int64_t known_rev;
    int64_t known_at;
};

struct at_etcd_op {
    struct at_etcd *e;
    struct at_etcd_op *prev, *next;           /* all, in the order of asking */
    struct at_etcd_op *side_prev, *side_next; /* ready, or settling */
    struct at_etcd_op *key_next;
    struct at_etcd_key *key;
    enum at_etcd_op_state state;
    enum at_store_op_type type;
    struct at_store_version *version;
    int64_t expect;
    at_store_write_fn *fn;
    void *ctx;
    int64_t asked_ns;
    int64_t base;    /* the mod_rev that an attempt compares with; 0: absent */
    int64_t since;   /* the write cannot have happened at or before this revision */
    char *guard_key; /* NULL: none */
    int64_t guard_rev, guard_seen;
    uint64_t lease, lease_asked; /* of a put with a TTL; 0: to be asked for */
    bool lease_new;              /* made for this write, or to be */
    bool tried;
    bool unsure;                 /* an attempt with this base had no answer */
    bool alone, apart;           /* not in a group any more; compared by itself in its group */
    at_http_call_id call;        /* about its lease; of a compaction */
    struct at_etcd_group *group; /* sent with it; NULL: none */
    enum at_rc rc;
    int64_t rev, need_rev;
    struct at_store_version *shown;
    struct at_err err;
};

struct at_etcd_list {
    struct at_etcd_op *first, *last;
};

struct at_etcd_reader { /* wants to read what is now */
    struct at_etcd_reader *next;
    at_store_write_fn *fn;
    void *ctx;
    int64_t asked_ns;
    bool asked;       /* etcd is being asked for its revision */
    int64_t need_rev; /* 0: not known yet */
};

struct at_etcd {
    struct at_store *store;
    struct at_loop *outer, *loop;
    at_watch_id fd_watch;
    at_timer_id outer_timer, tick_timer, kick_timer;
    bool turning;
    struct at_http_client *http;
    char *addrs[AT_STORE_ETCD_ENDPOINTS_MAX];
    size_t n_addrs, addr;                                        /* addr: the one in use */
    bool secure;                                                 /* all are https */
    char *ca_file, *cert_file, *key_file, *user, *password_file; /* each may be NULL */
    struct at_tls_config *tls;
    int64_t tls_loaded_ns;
    char *headers; /* NULL: etcd wants to know who this is, and has not been told */
    bool authenticating;
    uint64_t auth_count; /* of the headers */
    int64_t last_ok_ns, pause_until_ns;
    /* What is added to revisions wherever they come in, and taken off where they go out: an import
     * wrote it, so that revisions go on above those of the store it came from. */
    int64_t rev_offset;
    bool scheme_told, scheme_asked; /* AT_ETCD_SCHEME_KEY is there; is being put */
    int64_t heard_ns;               /* the newest byte of any answer */
    bool closing;

    /* mirror */
    bool loaded;         /* once */
    bool loading;        /* now */
    bool load_idle;      /* the next step waits for the tick */
    int64_t load_rev;    /* etcd's, of the snapshot; 0: the newest has to be asked for */
    int64_t load_newest; /* the newest when it was asked for */
    bool load_scheme;    /* AT_ETCD_SCHEME_KEY was among it */
    struct at_store_index *load_index;
    struct at_buf page_from;
    size_t page_limit;
    struct at_err load_err;
    at_http_call_id watch_call; /* 0: none */
    size_t watch_addr;
    struct at_buf line;
    int64_t probe_at_ns, lag_rev;
    int64_t probe_rev; /* the mirror's, when etcd was asked */
    bool probing;
    struct at_etcd_reader *readers, **readers_tail;
    int64_t compacted_rev; /* etcd was last asked to forget up to here */

    /* writes */
    struct at_etcd_op *first, *last;
    struct at_etcd_list ready, settling;
    struct at_map *keys;                /* -> struct at_etcd_key * */
    size_t n_calls, n_txns, sent_bytes; /* about leases; groups under way, and their values */
};

/* Of a key's change in etcd's revision raw. 0 stays 0. */
static inline int64_t at_etcd_rev_in(const struct at_etcd *e, int64_t raw, const char *key)
{
    return raw != 0 ? raw * AT_ETCD_PLACES + at_etcd_place(key) + e->rev_offset : 0;
}
/* Of the store as it is after raw. */
static inline int64_t at_etcd_end_in(const struct at_etcd *e, int64_t raw)
{
    return raw != 0 ? raw * AT_ETCD_PLACES + AT_ETCD_PLACES - 1 + e->rev_offset : 0;
}
/* etcd's revision to which rev belongs; 0: it lies before etcd's first. */
static inline int64_t at_etcd_raw(const struct at_etcd *e, int64_t rev)
{
    return rev > e->rev_offset ? (rev - e->rev_offset) / AT_ETCD_PLACES : 0;
}
/* 0 stays 0; what cannot be this key's becomes what no key has. */
static inline int64_t at_etcd_rev_out(const struct at_etcd *e, int64_t rev, const char *key)
{
    int64_t raw = at_etcd_raw(e, rev);
    return rev == 0 ? 0 : raw > 0 && at_etcd_rev_in(e, raw, key) == rev ? raw : -1;
}
static inline void at_etcd_version_in(const struct at_etcd *e, struct at_store_version *v)
{
    if (v != NULL) {
        v->mod_rev = at_etcd_rev_in(e, v->mod_rev, at_store_version_key(v));
        v->create_rev = at_etcd_rev_in(e, v->create_rev, at_store_version_key(v));
    }
}

/* Replace what came from etcd by what was sealed in it. err: that of the seal; *v stays. */
enum at_rc at_etcd_unseal(const struct at_etcd *e, struct at_store_version **v,
                          struct at_err *err); /* etcd_mirror.c */

/* etcd_options.c */
enum at_rc at_etcd_options_parse(struct at_etcd *e, const char *text,
                                 struct at_err *err) AT_WARN_UNUSED;
enum at_rc at_etcd_tls_load(struct at_etcd *e, struct at_err *err) AT_WARN_UNUSED;
enum at_rc at_etcd_password_text(struct at_etcd *e, struct at_buf *out,
                                 struct at_err *err) AT_WARN_UNUSED;
void at_etcd_options_done(struct at_etcd *e);

/* etcd.c */
enum at_rc at_etcd_open(struct at_store *store, const char *endpoints, struct at_etcd **ret,
                        struct at_err *err) AT_WARN_UNUSED;
void at_etcd_drain(struct at_etcd *e);
void at_etcd_close(struct at_etcd *e);
int64_t at_etcd_now(const struct at_etcd *e);
/* false: not before etcd knows who this is, which is being told. The tick goes on. */
bool at_etcd_may_call(struct at_etcd *e);
/* The parts of a call that are the same for all: to the endpoint in use. */
struct at_http_call at_etcd_call_base(const struct at_etcd *e, const char *target,
                                      const struct at_buf *body);
/* answer is NULL unless rc is AT_OK. unsure: it may have had its effect all the same. */
typedef void at_etcd_done_fn(void *ctx, enum at_rc rc, bool unsure, const json_t *answer,
                             const struct at_err *err);
at_http_call_id at_etcd_call(struct at_etcd *e, const char *target, const struct at_buf *body,
                             at_etcd_done_fn *done, void *ctx);
/* The endpoint did not do: use the next one, soon. */
void at_etcd_failed(struct at_etcd *e, size_t addr);
void at_etcd_kick(struct at_etcd *e); /* at_etcd_send and at_etcd_settle, soon */

/* etcd_mirror.c */
void at_etcd_load(struct at_etcd *e); /* read all, then follow */
void at_etcd_mirror_tick(struct at_etcd *e, int64_t now);
void at_etcd_readers_settle(struct at_etcd *e, int64_t now);
void at_etcd_readers_ask(struct at_etcd *e, bool paused);
void at_etcd_catch_up(struct at_etcd *e, at_store_write_fn *fn, void *ctx);
void at_etcd_forget(struct at_etcd *e, int64_t rev); /* here, not in etcd */
/* etcd's newest revision of which nothing is after rev. */
int64_t at_etcd_whole_raw(const struct at_etcd *e, int64_t rev);
void at_etcd_age(struct at_etcd *e, int64_t goal);
void at_etcd_mirror_done(struct at_etcd *e);

/* etcd_write.c */
void at_etcd_write(struct at_etcd *e, enum at_store_op_type type,
                   struct at_store_version *version_take, const struct at_store_write *write);
void at_etcd_settle(struct at_etcd *e); /* answer what the mirror shows by now */
void at_etcd_expire(struct at_etcd *e, int64_t now, bool all);
void at_etcd_op_sent(struct at_etcd_op *op);  /* READY -> SENT, knowing what to compare with */
void at_etcd_op_ready(struct at_etcd_op *op); /* SENT -> READY: another step */
void at_etcd_decide_failed(struct at_etcd_op *op, enum at_rc rc, const struct at_err *err);
/* What became of a sent transaction; got is taken over, and its revisions are etcd's. */
void at_etcd_op_answered(struct at_etcd_op *op, enum at_rc rc, bool unsure,
                         struct at_etcd_txn_answer *got, const struct at_err *err);

/* etcd_group.c */
void at_etcd_send(struct at_etcd *e);
void at_etcd_group_leave(struct at_etcd_op *op); /* given up: its group's answer is not for it */

/* etcd_lease.c */
void at_etcd_lease_ask(struct at_etcd_op *op); /* op is SENT; READY with a lease, or decided */
void at_etcd_lease_revoke(struct at_etcd *e, uint64_t lease);

#endif
