/* Keys, limits and budgets of requests, and the log of what they used. What happens per request
 * asks nobody and allocates nothing; everything else is the first loop's. docs/howto/keys.md. */
#ifndef AT_GATEWAY_METER_H
#define AT_GATEWAY_METER_H

#include "gateway/policy.h"
#include "metering/account.h"
#include "metering/book.h"
#include "metering/cache.h"
#include "metering/price.h"
#include "metering/secret.h"

#include "core/json.h"

struct at_gateway;
struct at_http_head;
struct at_http_exchange;
struct gw_model;
struct gw_path;
struct gw_request;
struct gw_worker;

/* Models are named, or named with stars. */
struct gw_names {
    char **items;
    size_t n;
};
bool gw_names_match(const struct gw_names *names, const char *qualified);

struct gw_key_account {
    struct at_meter_account *account;
    struct gw_names models; /* of a Budget; none: all */
};

/* What a key that is in use is counted on. Lives as long as the key, and is never changed. */
struct gw_open {
    const char *series; /* its name in metrics; lives as long as the gateway */
    bool has_budget;
    size_t n;
    struct gw_key_account accounts[];
};

/* What few keys have. */
struct gw_key_more {
    atomic_int refs;
    unsigned char previous_hash[32];
    bool has_previous, all_namespaces, cache;
    int64_t previous_until_ns; /* by the server's clock */
    struct gw_names models, namespaces;
    struct gw_cache_policy cache_policy;
};

struct gw_key_budget {
    int64_t limit_nanousd;
    enum at_meter_window window;
};

/* A key as requests see it: made anew when it changes, but for what is atomic here. One block, so
 * that 100,000 of them are small. */
struct gw_key {
    atomic_int refs;
    atomic_bool revoked; /* at once, before a new table comes */
    atomic_bool asked;   /* somebody wants it to be opened */
    bool disabled;
    unsigned char priority; /* enum gw_priority; GW_PRIORITIES: none is named */
    unsigned char n_budgets;
    _Atomic uint32_t used_s; /* when it was last used, in seconds of the loops' clock */
    unsigned char hash[32];
    _Atomic(struct gw_open *) open; /* NULL: it was not used yet; then set once */
    struct gw_key_more *more;       /* NULL: nothing of it */
    int64_t expires_ns;             /* by the server's clock; 0: never */
    int64_t created_ns;
    struct at_meter_who who; /* its id is there when it is open */
    const char *label;       /* "namespace/name" */
    struct gw_key *next_asked;
    int64_t requests_per_minute, tokens_per_minute; /* 0: no limit */
    struct gw_key_budget budgets[];                 /* and the texts */
};
struct gw_key *gw_key_ref(struct gw_key *key);
void gw_key_unref(struct gw_key *key); /* accepts NULL */

/* All keys, by digest. Shared by the loops, never changed. */
struct gw_keys;
struct gw_keys *gw_keys_ref(struct gw_keys *keys);
void gw_keys_unref(struct gw_keys *keys); /* accepts NULL */

/* Of a request under way. */
struct gw_meter {
    struct gw_key *key;         /* NULL: nothing is metered */
    const struct gw_open *open; /* of the key */
    bool has_rates;             /* they are taken */
    uint32_t slot;
    uint32_t held; /* accounts on which held_nanousd is held, by bit */
    uint32_t used; /* accounts that it counts on, by bit */
    bool is_open;  /* the slot is */
    bool capped;   /* completion_max was not the client's own */
    bool cut;      /* its money was used up */
    bool cached;   /* the answer was kept */
    int64_t held_nanousd;
    int64_t tokens_taken;    /* of rates */
    uint64_t prompt_tokens;  /* estimated */
    uint64_t completion_max; /* that held_nanousd pays for */
    uint64_t sent;           /* tokens of the answer that went by */
    struct at_meter_price price;
    struct at_buf body; /* with what was put into it; empty: the client's own */
    bool strip_usage;   /* the client did not ask for the event with it */
};

/* Of a request whose answer may be kept; reply_cache.c. */
struct gw_kept {
    struct gw_cache_policy policy;
    struct at_buf scope, head, body; /* whose it is; the answer, as far as it has come */
    uint64_t hash, tag;
    bool is_making, is_waiting, is_ready, fits, is_stream;
    struct gw_request *next, *waiters, *maker;
};

/* --- per request --- */

/* What a bearer token says: a key of ours, or no. *ret_problem: why not; NULL: it is none of ours.
 */
bool gw_meter_bearer(struct gw_worker *worker, struct at_str token, const char **ret_problem);
/* The name of the bearer's key in metrics; lives as long as the gateway. */
const char *gw_key_series(const struct gw_worker *worker);
/* May whoever asks know of this model? */
bool gw_meter_may_ask(const struct gw_worker *worker, const struct gw_model *model);
enum gw_admission {
    GW_ADMITTED,
    GW_REFUSED, /* answered, and freed */
    GW_LATER,   /* it waits, no longer than AT_GW_MONEY_WAIT_NS, and then goes on by itself */
};
/* It is about to be passed on. */
enum gw_admission gw_meter_begin(struct gw_request *r, const struct gw_path *path);
bool gw_meter_leave(struct gw_request *r);   /* its client has gone. True: it was waiting here */
void gw_meter_release(struct gw_request *r); /* after gw_meter_end: the key is not looked at more */
void gw_meter_head(struct gw_request *r);    /* lines for the client, into r->down */
/* Part of an answer of n events goes to the client. */
void gw_meter_data(struct gw_request *r, const char *data, size_t len, size_t n_events);
void gw_meter_cut(struct gw_request *r);             /* when its money is used up; may free it */
void gw_meter_end(struct gw_request *r, int status); /* counted, once */
/* Take the event that tells of usage out of data[0..len), which is whole events. Returns how much
 * of it comes before that, *ret_skip how much to leave out. */
size_t gw_meter_strip(struct gw_request *r, const char *data, size_t len, size_t *ret_skip);
/* amend.c: the body that replicas get, with a cap on tokens (0: as it is) and a wish for usage. */
enum at_rc gw_amend(struct gw_request *r, const struct gw_path *path, uint64_t completion_max,
                    bool usage) AT_WARN_UNUSED;

/* It goes on when true: answered with what was kept, or waiting for who makes the answer. Else a
 * replica is to be asked. */
bool gw_cache_begin(struct gw_request *r, const struct gw_path *path);
bool gw_cache_look(struct gw_request *r, struct gw_worker *w); /* the same, once more */
void gw_cache_head(struct gw_request *r, const struct at_http_head *head);
void gw_cache_data(struct gw_request *r, const char *data, size_t len); /* on its way out */
void gw_cache_end(struct gw_request *r, bool whole);
bool gw_cache_leave(struct gw_request *r); /* its client has gone. True: it was waiting */
void gw_cache_serve(void *worker);         /* those that need wait no more */

/* --- the first loop --- */

struct gw_metering;
void gw_metering_start(struct at_gateway *gateway, const char *state_dir);
void gw_metering_stop(struct at_gateway *gateway); /* give back what is not spent, tell the rest */
bool gw_metering_busy(const struct at_gateway *gateway);
void gw_metering_close(struct at_gateway *gateway); /* before the client goes */
void gw_metering_done(struct at_gateway *gateway);
void gw_worker_take_keys(void *worker);
const char *gw_metering_meter(const struct at_gateway *gateway); /* names its folder; NULL: none */
void gw_publish_keys(struct at_gateway *gateway, struct gw_keys *keys_take); /* gateway.c */

#endif
