/* Inside of the store, for this folder and its tests. Every back end shares the same front: an
 * ordered index of the current values and a ring of recent changes, both in memory, both showing
 * only what is durable. A back end (struct at_store_backend) only makes batches of already decided
 * changes durable, and gives them back when it is opened. */
#ifndef AT_STORE_PRIV_H
#define AT_STORE_PRIV_H

#include "core/map.h"
#include "store/journal.h"
#include "store/limits.h"
#include "store/seal.h"
#include "store/store.h"

/* One value of one key: immutable once its batch is made, counted by reference on the loop thread.
 */
struct at_store_version {
    unsigned refs;
    uint32_t ttl_s; /* 0: none */
    int64_t create_rev;
    int64_t mod_rev;
    uint32_t key_len;
    uint32_t value_len;
    char bytes[]; /* key, NUL, value, NUL */
};

struct at_store_version *at_store_version_new(const char *key, const void *value, size_t len);
struct at_store_version *at_store_version_ref(struct at_store_version *v); /* NULL stays NULL */
void at_store_version_unref(struct at_store_version *v);                   /* accepts NULL */
static inline const char *at_store_version_key(const struct at_store_version *v)
{
    return v->bytes;
}
static inline const char *at_store_version_value(const struct at_store_version *v)
{
    return v->bytes + v->key_len + 1;
}
struct at_store_kv at_store_version_kv(const struct at_store_version *v);

/* One revision. cur NULL: the key was deleted; prev NULL: it was not there before. */
struct at_store_change {
    int64_t rev;
    struct at_store_version *cur;
    struct at_store_version *prev;
};
const char *at_store_change_key(const struct at_store_change *change);
size_t at_store_change_bytes(const struct at_store_change *change);

/* Ordered index of versions by key (bytewise): chunks of sorted pointers. Holds a reference to
 * each. */
struct at_store_index;
struct at_store_cursor {
    size_t chunk, pos;
};
struct at_store_index *at_store_index_new(void);
void at_store_index_free(struct at_store_index *index);
size_t at_store_index_count(const struct at_store_index *index);
struct at_store_version *at_store_index_get(const struct at_store_index *index, const char *key);
void at_store_index_put(struct at_store_index *index, struct at_store_version *v);
void at_store_index_remove(struct at_store_index *index, const char *key); /* ok if absent */
/* The first key >= from; then each next one. NULL at the end. No change meanwhile. */
struct at_store_cursor at_store_index_seek(const struct at_store_index *index, const char *from);
struct at_store_version *at_store_index_next(const struct at_store_index *index,
                                             struct at_store_cursor *cursor);

/* All changes of (compact_rev, rev], as a growing ring. Holds references. */
struct at_store_history {
    struct at_store_change *ring;
    size_t cap, head, n; /* ring[(head + i) % cap]: by revision, which may leave some out */
    int64_t compact_rev;
    size_t bytes;
    uint64_t pushed; /* ever */
};
void at_store_history_done(struct at_store_history *h);
void at_store_history_push(struct at_store_history *h, const struct at_store_change *change);
const struct at_store_change *at_store_history_nth(const struct at_store_history *h, size_t i);
/* The number of the first change after rev; n: none. */
size_t at_store_history_after(const struct at_store_history *h, int64_t rev);
/* NULL: no change has this revision, or it is forgotten. */
const struct at_store_change *at_store_history_at(const struct at_store_history *h, int64_t rev);
/* Up to which revision all but the newest keep changes can be forgotten. */
int64_t at_store_history_before_newest(const struct at_store_history *h, size_t keep);
void at_store_history_trim(struct at_store_history *h, int64_t compact_rev);

/* What of a journal goes with a batch. */
struct at_store_rider {
    const struct at_store_journal *journal;
    uint64_t mark; /* 0: nothing */
    bool kept;
};

/* What a back end makes durable in one step: all of it or nothing. */
struct at_store_batch {
    struct at_store_change *changes; /* in revision order, following the newest durable one */
    size_t n_changes;
    int64_t compact_rev; /* forget history up to here, which may lie ahead; 0: no compaction */
    int64_t *dead;       /* revisions whose record is not needed after it */
    size_t n_dead;
    int64_t wall_ms; /* when it was made: TTLs are counted from it across restarts */
    const struct at_store_seal *seal;
    struct at_store_rider *rider; /* NULL: none */
};

struct at_store_record {
    int64_t rev, create_rev;
    const char *key;
    const void *value; /* NULL: deleted */
    size_t len;
    int64_t ttl_s, wall_ms; /* 0: none; when its batch was made */
};
/* Called by open for the compaction mark first, then for each record in revision order. What the
 * record points at is copied. err: AT_CORRUPT out of order, or a gap after the compaction mark. */
struct at_store_load {
    void (*compacted)(void *ctx, int64_t compact_rev);
    enum at_rc (*record)(void *ctx, const struct at_store_record *record, struct at_err *err);
    void *ctx;
};

struct at_store_backend {
    const char *kind;
    bool blocking; /* commit waits for a disk: it gets a thread of its own */
    enum at_rc (*open)(const char *path, const struct at_store_load *load, void **ret,
                       struct at_err *err);
    /* One call at a time, from the writer thread when blocking. On failure nothing is stored. */
    enum at_rc (*commit)(void *backend, const struct at_store_batch *batch, struct at_err *err);
    /* As at_store_journal_open; batches may have riders afterwards. NULL: there is none. */
    enum at_rc (*journal_open)(void *backend, at_store_journal_fn *each, void *ctx,
                               struct at_err *err);
    void (*tidy)(void *backend); /* after the batch was acknowledged; may be NULL */
    void (*close)(void *backend);
};
extern const struct at_store_backend AT_STORE_MEMORY;
extern const struct at_store_backend AT_STORE_SQLITE;
#define AT_STORE_SQLITE_SCHEMA_VERSION 2          /* 2: TTLs */
#define AT_STORE_SQLITE_APPLICATION_ID 0x41744f6c /* "AtOl" */
/* A server of its own, so not driven by batches: see etcd_priv.h. */
extern const struct at_store_backend AT_STORE_ETCD;
struct at_etcd;

/* A thread that commits one batch at a time and rings the loop when it is done. */
struct at_store_writer;
enum at_rc at_store_writer_new(const struct at_store_backend *kind, void *backend,
                               struct at_loop *loop, void (*done)(void *ctx), void *ctx,
                               struct at_store_writer **ret, struct at_err *err) AT_WARN_UNUSED;
void at_store_writer_submit(struct at_store_writer *w, const struct at_store_batch *batch);
/* The result of the batch submitted, once it is there; false: still under way. */
bool at_store_writer_take(struct at_store_writer *w, enum at_rc *ret_rc, struct at_err *ret_err);
/* Waits for the batch under way (take its result afterwards); done is not called any more. */
void at_store_writer_stop(struct at_store_writer *w);
void at_store_writer_free(struct at_store_writer *w);

#define AT_STORE_GUARD_TEXT "key %s was not written: its guard %s has changed"

enum at_store_op_type {
    AT_STORE_OP_PUT,
    AT_STORE_OP_DELETE,
    AT_STORE_OP_COMPACT,
    AT_STORE_OP_ADVANCE
};
struct at_store_op {
    struct at_store_op *next;
    enum at_store_op_type type;
    struct at_store_version *version; /* the new value; for a delete only its key matters */
    int64_t expect;                   /* for a compaction or an advance: the revision */
    char *guard_key;                  /* NULL: none */
    int64_t guard_rev;
    at_store_write_fn *fn;
    void *ctx;
    /* Decided when its batch is made. */
    enum at_rc rc;
    int64_t rev;
    struct at_store_version *shown; /* for the callback */
    bool on_batch;                  /* decided on a value of the same batch */
    bool guarded_off;               /* the guard did not hold */
};

struct at_store_watcher {
    at_store_watch_id id; /* 0: free slot */
    char *from, *to;
    int64_t sent_rev;
    at_store_watch_fn *fn;
    void *ctx;
};

/* One key that has a TTL. */
struct at_store_lease {
    int64_t deadline_ns; /* monotonic */
    int64_t due_ns;      /* in the heap: the same or, after it was put again, earlier */
    uint64_t id;         /* etcd's */
    char *key;           /* NULL: the key ended or was put without; the heap frees it */
};
struct at_store_leases {
    struct at_map *keys;          /* -> struct at_store_lease * */
    struct at_store_lease **heap; /* by due_ns; not used with etcd, which deletes by itself */
    size_t n, cap;
    at_timer_id timer;
};

/* Those of limits.h that a test makes smaller. */
struct at_store_bounds {
    size_t queue_writes, history_revs, history_bytes;
};

struct at_store {
    struct at_store_bounds bounds;
    const struct at_store_backend *kind;
    void *backend;
    const struct at_store_seal *seal;       /* NULL: values are kept as they come */
    const struct at_store_journal *journal; /* NULL: none */
    struct at_etcd *etcd;                   /* NULL with other back ends */
    struct at_loop *loop;
    struct at_store_writer *writer; /* NULL: commits are made in place */
    struct at_store_index *index;
    struct at_store_history history;
    struct at_store_leases leases;
    int64_t rev;

    struct at_store_op *queue, **queue_tail;
    size_t queue_n, queue_bytes;
    at_timer_id kick_timer;
    bool closing;

    struct at_store_op *batch_ops; /* of the batch under way */
    struct at_store_batch batch;
    struct at_store_rider rider; /* its */
    struct at_map *batch_last;   /* key -> change number + 1 within the batch being made */
    bool in_flight;
    bool in_callbacks;

    struct at_store_watcher *watchers;
    size_t n_watchers; /* slots */
    uint32_t watch_generation;
    at_timer_id pump_timer;
    bool pumping;

    at_timer_id age_timer;
    int64_t age_revs[AT_STORE_HISTORY_AGE_NS / AT_STORE_HISTORY_CHECK_NS]; /* newest last */
    int64_t age_goal; /* compact up to here when there is time */

    struct at_store_stats stats;
};

/* write.c */
void at_store_enqueue(struct at_store *store, enum at_store_op_type type,
                      const struct at_store_write *write);
void at_store_batch_landed(void *ctx); /* the writer has a result; ctx: struct at_store * */
void at_store_age_arm(struct at_store *store);
/* How far history should be forgotten by itself, in bounded steps. 0: not now. */
int64_t at_store_compaction_due(const struct at_store *store);
/* lease.c */
/* A change became visible: its key has a TTL from now on, left_ns (< 0: all of it) of which is
 * left, or has none any more. */
void at_store_lease_note(struct at_store *store, const struct at_store_change *change,
                         int64_t left_ns);
/* The same, without a change; id: etcd's lease. */
void at_store_lease_set(struct at_store *store, const struct at_store_version *v, uint64_t id,
                        int64_t left_ns);
void at_store_lease_drop(struct at_store *store, const char *key);
uint64_t at_store_lease_id(const struct at_store *store, const char *key); /* 0: none */
void at_store_lease_arm(struct at_store *store); /* the next end is waited for */
void at_store_leases_clear(struct at_store *store);
void at_store_leases_done(struct at_store *store);
/* watch.c */
void at_store_pump(struct at_store *store); /* bring every watcher up to store->rev */
void at_store_watchers_end(struct at_store *store, enum at_rc rc); /* they are told, and gone */
void at_store_watchers_done(struct at_store *store);

#endif
