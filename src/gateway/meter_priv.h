/* What the first loop knows of keys and money. */
#ifndef AT_GATEWAY_METER_PRIV_H
#define AT_GATEWAY_METER_PRIV_H

#include "gateway/gateway_priv.h"
#include "loop/pool.h"

/* One budget: of a key, or a Budget. Its money is on the account. */
struct gw_purse {
    struct at_meter_account *account;
    enum at_meter_window window;
    int64_t limit_nanousd;
    bool has_limit;
    char period[AT_METER_PERIOD_BYTES]; /* that the account is in; "": none yet */
    /* As it was last seen in the object. */
    int64_t others_granted, others_spent, others_wanted, mine_granted, mine_spent, mine_wanted;
    char seen_period[AT_METER_PERIOD_BYTES];
    bool is_mine; /* a slice of ours is there */
    /* As it is being written. */
    int64_t next_granted, next_spent;
};

/* An APIKey or a Budget. */
struct gw_holder {
    const struct at_model_kind *kind;
    char *ns, *name, *uid, *map_key;
    int64_t rv;
    json_t *status;
    struct gw_purse *purses;
    size_t n_purses;
    struct at_meter_account *rates; /* NULL: none */
    char *team, *for_ns;            /* of a Budget; "": any */
    struct gw_names models;         /* the same */
    at_client_call_id call;
    json_t *telling;
    int64_t not_before_ns, told_ns;
    struct gw_metering *of;
    int64_t generation;
};

/* A key and what it is made of. */
struct gw_key_object {
    struct gw_holder holder; /* first */
    struct gw_key *made;
    bool stale; /* its accounts are to be looked for anew */
};

struct gw_told; /* usage.c */

struct gw_metering {
    struct at_gateway *gateway;
    char *folder;
    struct at_informer *key_informer, *budget_informer;
    struct at_map *keys;    /* "namespace/name" → gw_key_object */
    struct at_map *budgets; /* name → gw_holder */
    struct at_map *ids;     /* "uid team" → id, and one */
    struct at_map *labels;  /* interned */
    uint32_t n_ids;
    bool keys_synced, budgets_synced, is_open, is_broken;
    at_timer_id publish_timer, ledger_timer, time_timer, round_timer;
    at_client_call_id time_call;
    int64_t asked_ns;
    size_t n_calls;
    bool stopping;
    /* Usage. */
    struct at_meter_book *book; /* NULL: not opened yet */
    struct at_pool *pool;
    bool syncing, told_error;
    enum at_rc sync_rc;
    struct at_err sync_err;
    at_client_call_id tell_call;
    struct at_meter_part *telling;
    json_t *tell_object;
    char tell_name[400], tell_ns[80];
    size_t tell_next;
    int64_t tell_after_ns;
    struct at_map *usage_metrics;
    struct at_metric_family *m_requests, *m_tokens, *m_cost;
    struct at_metric *m_keys, *m_behind;
};

/* keys.c */
void gw_keys_later(struct gw_metering *m); /* publish them anew, soon */
void gw_names_of(const struct at_model_strings *list, struct gw_names *ret);
void gw_names_done(struct gw_names *names);
/* ledger.c */
void gw_ledger_start(struct gw_metering *m);
void gw_ledger_done(struct gw_metering *m);
void gw_ledger_look(
    struct gw_holder *holder); /* it has changed: ask for money, or give some back */
void gw_ledger_see(struct gw_holder *holder, const json_t *object);
void gw_ledger_poke(struct gw_worker *worker);
void gw_holder_done(struct gw_holder *holder);
void gw_ledger_return(struct gw_metering *m); /* everything that is not spent */
bool gw_ledger_busy(const struct gw_metering *m);
/* usage.c */
bool gw_usage_open(struct gw_metering *m);  /* the book and each loop's log; false: it failed */
void gw_usage_close(struct gw_metering *m); /* no callback comes any more */
void gw_usage_done(struct gw_metering *m);
bool gw_usage_busy(const struct gw_metering *m);

#endif
