/* What the first loop knows of keys and money. */
#ifndef AT_GATEWAY_METER_PRIV_H
#define AT_GATEWAY_METER_PRIV_H

#include "gateway/gateway_priv.h"
#include "loop/pool.h"

/* One budget: of a key, or a Budget. Its money is on the account, which has as much as ceiling. */
struct gw_purse {
    struct at_meter_account *account;
    enum at_meter_window window;
    int64_t limit_nanousd;
    bool has_limit;
    char period[AT_METER_PERIOD_BYTES]; /* that the account is in; "": none yet */
    /* As it was last seen in the object. */
    int64_t others_granted, others_spent, others_wanted, mine_granted, mine_ceiling, mine_spent,
        mine_wanted;
    int64_t abandoned; /* of others_granted: what nobody can spend any more */
    char seen_period[AT_METER_PERIOD_BYTES];
    bool is_mine;                /* a slice of ours is there */
    int64_t taken;               /* what was unspent when some was last taken */
    int64_t missing, missing_ns; /* what requests wanted, and when one last did */
};

/* As it is to be written. */
struct gw_slice {
    int64_t granted, ceiling, wanted;
};

/* Its part of the limits. */
struct gw_rate_share {
    int32_t milli, saved;
    bool wanted;
};

/* An APIKey that is in use, or a Budget. */
struct gw_holder {
    const struct at_model_kind *kind;
    char *ns, *name, *uid;
    int64_t rv;   /* 0: the object is yet to be asked for */
    char *status; /* its text; NULL: none */
    struct gw_purse *purses;
    size_t n_purses;
    struct at_meter_account *rates;  /* NULL: none */
    char *team, *for_ns;             /* of a Budget; "": any */
    struct gw_names models;          /* the same */
    struct gw_rate_share mine, next; /* as seen, and as it is being written */
    bool has_share;                  /* we are in the list */
    int32_t others_milli, least_saved, least_wanting;
    bool others_want, gives; /* the call gives a part away */
    int64_t shared_ns, opened_ns, hungry_ns;
    at_client_call_id call;
    int64_t not_before_ns, told_ns;
    struct gw_metering *of;
    struct gw_holder *next_busy, *next_open, **prev_open; /* to be looked at; all that are open */
    struct gw_holder *next_tell, **prev_tell; /* in line to tell what was spent; NULL: not */
    bool is_busy, closing, telling;
    bool is_telling; /* the call does, not only asks */
    bool has_news;   /* its object has changed since it was looked at */
    int64_t generation;
    uint32_t gateways_seen; /* when status was read */
};

/* A key; all that the gateway has of one that is not in use. */
struct gw_key_object {
    struct gw_key *made;
    struct gw_key *closing;   /* that made has replaced, while requests may have it */
    struct gw_holder *holder; /* NULL: not in use, or nothing to count on */
    int64_t rv, generation;
    bool has_status;
};

#define GW_GONE "-"           /* instead of a meter: its report has expired */
#define GW_KEY_OTHERS "other" /* keys past AT_GW_KEY_SERIES_MAX, in metrics */

struct gw_metering {
    struct at_gateway *gateway;
    char *folder;
    struct at_informer *key_informer, *budget_informer, *report_informer;
    struct at_map *keys;     /* "namespace/name" → gw_key_object */
    struct at_map *budgets;  /* name → gw_holder */
    struct at_map *texts;    /* namespaces and teams, once each */
    struct at_map *series;   /* names of keys in metrics */
    struct at_map *gateways; /* that report: name → meter */
    uint32_t gateways_seen;  /* changes of that */
    int64_t gateways_since_ns;
    uint32_t n_ids;
    bool keys_synced, budgets_synced, gateways_synced, is_open, is_broken; /* that was told */
    at_timer_id publish_timer, ledger_timer, time_timer, round_timer, idle_timer, book_timer;
    at_client_call_id time_call;
    struct gw_holder *open, *busy;             /* all; those that are to be looked at */
    struct gw_holder *tell_first, **tell_last; /* what was spent is to be told of these, in turn */
    unsigned tells;                            /* that may be begun now */
    char *own_name;                            /* of slices; NULL: not known yet */
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
    size_t tell_next, told_rows; /* in this round */
    int64_t tell_after_ns;
    struct at_map *usage_metrics;
    struct at_metric_family *m_requests, *m_tokens, *m_cost;
    struct at_metric *m_keys, *m_behind;
};

/* keys.c */
void gw_names_of(const struct at_model_strings *list, struct gw_names *ret);
void gw_names_copy(const struct gw_names *from, struct gw_names *ret);
void gw_names_done(struct gw_names *names);
struct gw_key *gw_key_of(struct gw_metering *m, const struct at_api_key *object);
struct gw_key *gw_key_again(const struct gw_key *from); /* not open */
struct gw_keys *gw_keys_new(struct at_map *objects);
void gw_key_ask(struct gw_worker *worker, struct gw_key *key); /* it is to be opened */
/* admit.c */
void gw_meter_give_up(struct gw_request *r); /* what was taken and held for it goes back */
/* All accounts or none. *ret_of: that has not enough. */
enum at_meter_hold gw_meter_hold(struct gw_meter *m, int64_t amount_nanousd,
                                 struct at_meter_account **ret_of);
/* meter.c */
void gw_meter_limits(struct gw_request *r, struct at_buf *out); /* lines for the client */
/* key_feed.c */
void gw_keys_asked(struct gw_metering *m);
/* ledger.c */
void gw_ledger_start(struct gw_metering *m);
void gw_ledger_done(struct gw_metering *m);
void gw_ledger_busy_with(
    struct gw_holder *holder); /* look at it soon, again and again until done */
void gw_ledger_tell_later(struct gw_holder *holder); /* in its turn */
void gw_ledger_tell_never(struct gw_holder *holder); /* it goes */
/* It has changed: ask for money, or give some back. */
void gw_ledger_look(struct gw_holder *holder);
void gw_ledger_see(struct gw_holder *holder, const json_t *object);
void gw_ledger_note(struct gw_worker *worker, struct at_meter_account *account); /* from any loop */
void gw_ledger_poke(struct gw_worker *worker);
void gw_ledger_return(struct gw_metering *m); /* everything that is not spent */
bool gw_ledger_has_own(const struct gw_metering *m, const json_t *status); /* something unspent */
bool gw_ledger_at_rest(const struct gw_holder *holder); /* closing, and nothing of it is left */
/* holder.c */
void gw_holder_add(struct gw_metering *m, struct gw_holder *holder,
                   const struct at_model_kind *kind, const char *ns, const char *name,
                   const char *uid);
void gw_holder_done(struct gw_holder *holder);
struct gw_purse *gw_holder_purse(struct gw_holder *h, enum at_meter_window window);
void gw_holder_limit(struct gw_purse *purse, bool has, int64_t limit_nanousd);
void gw_holder_rates(struct gw_holder *h, int64_t requests, int64_t tokens);
const char *gw_own_name(struct gw_metering *m); /* "name:meter"; NULL: not known yet */
/* Of a slice or a share, by the name in it: will nothing more come of that gateway? */
bool gw_is_gone(const struct gw_metering *m, const char *slice_name);
/* shares.c */
void gw_share_see(struct gw_holder *h, const json_t *status, bool apply);
bool gw_share_plan(struct gw_holder *h); /* into h->next. True: it is to be written */
json_t *gw_share_json(struct gw_holder *h, const json_t *status);
void gw_share_fall_back(struct gw_holder *h); /* nobody gives any */
/* usage.c */
bool gw_usage_open(struct gw_metering *m);  /* the book and each loop's log; false: it failed */
void gw_usage_close(struct gw_metering *m); /* no callback comes any more */
void gw_usage_done(struct gw_metering *m);
bool gw_usage_busy(const struct gw_metering *m);

#endif
