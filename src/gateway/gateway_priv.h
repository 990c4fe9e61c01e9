/* Inside of the gateway; seen by this folder and its tests only. */
#ifndef AT_GATEWAY_GATEWAY_PRIV_H
#define AT_GATEWAY_GATEWAY_PRIV_H

#include "client/join.h"
#include "core/digest.h"
#include "core/metrics.h"
#include "gateway/certs.h"
#include "gateway/choose.h"
#include "gateway/gateway.h"
#include "gateway/health.h"
#include "gateway/hedge.h"
#include "gateway/meter.h"
#include "gateway/observe.h"
#include "gateway/own.h"
#include "gateway/path.h"
#include "gateway/prefix.h"
#include "gateway/route.h"
#include "gateway/services.h"
#include "gateway/wait.h"
#include "net/http_client.h"
#include "net/http_server.h"

#include <pthread.h>

struct gw_metrics {
    struct at_metrics *registry;
    struct at_metric_family *requests, *duration, *retries, *upstream_errors, *first_byte,
        *client_retries, *shed, *checks, *hedges, *queued, *queue_wait, *circuits, *model_circuits,
        *ejections, *sick, *retries_shed, *choices, *prefix_blocks, *shadows, *kept;
    struct at_metric *outstanding, *route_models, *route_replicas, *route_age, *connected,
        *queued_bytes, *tunnels;
};

/* One replica as one loop sees it. Freed when no view and no request holds it. */
struct gw_replica {
    struct gw_replica_meters *meters; /* made by the first answer */
    struct gw_model *model;           /* not followed once it has left the view */
    char *instance, *site, *addr;
    char *peer;                /* TLS to its agent: see gw_target; NULL: none */
    struct at_tls_config *tls; /* TLS to another server; NULL: none */
    bool http2;
    int64_t latency_ns;
    struct at_metric *answered; /* requests_total with code 200 */
    char *version, *served_as, *jurisdiction;
    uint64_t version_hash, id_hash, served_hash;
    size_t tier_to;                         /* in its model: the first behind it that is farther */
    size_t share;                           /* in its model, which one */
    unsigned requests_max;                  /* with a gauge */
    struct gw_gauge *gauge;                 /* NULL: takes any number of requests */
    struct at_metric *chosen[GW_WHY_COUNT]; /* made when first needed */
    size_t prefix_slot;                     /* in its model's index, and one; 0: none */
    int64_t load_milli;                     /* what is outstanding, by its cost */
    unsigned outstanding;
    struct gw_circuit circuit;
    struct gw_standing *standing;     /* what all loops know; NULL: this is the only one */
    unsigned checks_bad, checks_good; /* in a row */
    int64_t check_at_ns;              /* the next one; 0: not planned */
    bool sick;                        /* by the gateway's own questions */
    bool in_view;
};

/* Deployments that name a weight have a share each, the others one together. */
struct gw_share_view {
    size_t from, to; /* in the model's replicas; nearest first */
    int64_t weight;
    int64_t shadow_percent;
};

struct gw_model {
    struct at_metric *depth, *batch; /* made when first needed */
    char *name;                      /* that it is listed under */
    char *qualified;                 /* "namespace/name"; may be NULL */
    struct gw_replica **replicas;    /* share by share; those that get copies only come last */
    size_t n_replicas;               /* that take requests */
    size_t n_all;                    /* and copies */
    struct gw_share_view *shares;
    size_t n_shares;
    const struct gw_share_view *pool_rest; /* asked when no share has anybody; may be NULL */
    char *session_header, *session_cookie; /* may be NULL */
    enum gw_affinity affinity;
    struct at_metric *prefix_counts[2]; /* missed, hit; made when first needed */
    struct gw_prefix *prefix;           /* NULL: no prompt has come yet */
    char **versions;                    /* known, with replicas or without */
    size_t n_versions;
    size_t next; /* where picking begins, so that equals take turns */
    struct at_metric *duration;
    struct at_metric *first_byte; /* of streams; made by the first one */
    unsigned refs;                /* requests */
    bool in_view;
    struct gw_policy policy;
    struct gw_load *load; /* NULL: nobody asks about it */
    struct gw_queue queue;
    struct gw_circuit circuit;
    struct gw_standing *standing;
    struct gw_budget retries, hedges;
    struct gw_latency latency;
    unsigned running; /* requests that a replica has */
    struct at_meter_what what;
};

struct gw_request;
struct gw_parked;

struct gw_token {
    const char *key; /* its name, the gateway's */
    char *text;
    size_t len;
};
/* One loop and all that belongs to it. */
struct gw_worker {
    struct at_gateway *gateway;
    struct at_loop *loop;
    struct at_http_server *server;
    struct at_http_client *client;
    pthread_t thread;
    bool has_thread; /* not the first: the loop is ours */
    bool running;
    bool stopping;
    atomic_bool drained;
    at_timer_id drain_timer;
    int64_t drain_until_ns;
    _Atomic(struct gw_table *) next_table; /* handed over by the first loop */
    _Atomic(struct at_tls_config *) next_tls;
    _Atomic(struct at_tls_config *) next_peer_tls;
    struct at_tls_config *peer_tls; /* to agents */
    _Atomic(struct gw_rules *) next_rules;
    struct gw_rules *rules; /* of plain services; NULL: none */
    struct gw_meters meters;
    struct gw_usage_cache *usage_cache;
    struct gw_spans *spans;   /* NULL: nobody wants them */
    struct gw_access *access; /* NULL: no log */
    struct at_buf scratch;    /* a line that is being made */
    const char *key;          /* of the token that was allowed last; NULL: none */
    struct gw_key *bearer;    /* the same, when it is a key that is metered */
    const char *problem;      /* why a token was not allowed; NULL: it is unknown */
    _Atomic(struct gw_keys *) next_keys;
    struct gw_keys *keys;               /* NULL: none yet */
    _Atomic(struct at_meter_log *) log; /* NULL: nothing can be written down yet */
    struct at_meter_cache *replies;     /* NULL: nothing was kept yet */
    struct gw_request *makers;          /* whose answers will be kept */
    struct gw_request *ready;           /* who waited for one */
    at_timer_id ready_timer;
    struct gw_parked *parked; /* requests that wait for money; the newest first */
    size_t n_parked, n_cache_waiters;
    at_timer_id parked_timer;
    struct at_http_exchange *handling;       /* by gw_handle, until it is passed on */
    struct at_map *models;                   /* name → gw_model */
    uint64_t chain[AT_GW_PREFIX_BLOCKS_MAX]; /* of the prompt that was chosen for last */
    size_t n_chain;
    _Atomic(struct gw_lesson *) lessons; /* of other loops */
    atomic_uint n_lessons;
    size_t n_shadows, shadow_bytes; /* copies under way */
    struct at_map *aliases;         /* qualified name → gw_model, where that is another */
    struct gw_table *table;         /* that the models were made of */
    bool has_table;
    struct gw_request *free_requests;
    size_t n_waiting, waiting_bytes; /* of all models */
    at_timer_id wait_timer, check_timer;
    unsigned checks; /* under way */
    uint64_t prng[2];
    struct gw_token tokens[AT_GW_TOKEN_CACHE]; /* accepted lately, by a hash of the text */
};

struct gw_feed {
    struct at_informer *instances, *deployments, *sites, *nodes, *policy_informer;
    struct at_map *facts;    /* "namespace/name" → gw_fact */
    struct at_map *offers;   /* "namespace/name" of a Deployment → gw_offer */
    struct at_map *loads;    /* "namespace/model" → gw_load */
    struct at_map *places;   /* site → gw_place */
    struct at_map *policies; /* name → json_t array of residency rules */
    struct at_map *nodes_down;
    bool instances_synced, deployments_synced, sites_synced, nodes_synced, policies_synced;
    at_timer_id rebuild_timer;
};

/* What is told of what is asked. */
struct gw_report {
    at_timer_id timer;
    int64_t due_ns, told_ns;
    at_client_call_id call;
    json_t *status; /* that is being told */
    bool creating, again, some, failing;
    bool met; /* it was told which meter is ours */
    atomic_bool poked;
};

struct at_gateway {
    struct at_loop *loop;
    char *name;
    char *site, *url, *state_dir;
    int64_t told_until_ns; /* stopping: so long usage is told; 0: not yet */
    bool is_tls, is_loopback;
    char loopback[AT_SHA256_HEX_BYTES]; /* identity of the one that we see; "": not known */
    struct gw_certs *certs;
    struct at_map *services;      /* "namespace/name" → json_t: Deployments with a service */
    unsigned char (*digests)[32]; /* of accepted tokens */
    size_t n_digests;
    enum gw_priority *classes;         /* of the tokens; GW_PRIORITIES: none */
    char (*keys)[AT_GW_KEY_BYTES_MAX]; /* names of the tokens, digest by digest */
    uint64_t trace_share, access_rates[6];
    char *access_file;
    struct at_pool *access_pool;
    struct {
        char addr[272], target[2100]; /* addr "": spans go nowhere */
        char *headers;
        struct at_tls_config *tls;
    } otlp;
    bool open;                    /* no tokens: all may come */
    struct gw_metering *metering; /* NULL: no keys */
    int64_t key_idle_ns;
    _Atomic int64_t server_offset_ns;    /* of the server's clock to the monotonic one */
    _Atomic int32_t today;               /* day by the server's clock; 0: not known */
    atomic_bool budget_poked;            /* there is something on one of these lists */
    _Atomic(struct gw_key *) asked_keys; /* to be opened */
    _Atomic(struct at_meter_account *) noted_accounts; /* that want something, or were spent */
    bool has_playground;
    int64_t first_byte_timeout_ns, drain_timeout_ns, tunnel_idle_ns;
    size_t wait_requests_max, wait_bytes_max; /* of all models, per loop */
    size_t clients_max;                       /* connections, per loop */
    struct gw_metrics metrics;
    struct gw_worker *workers;
    unsigned n_workers;
    struct at_client *client; /* to the control plane; the join's */
    struct at_join *join;
    struct gw_feed feed;
    struct gw_report report;
    _Atomic int64_t table_at_ns; /* when the newest table was made; 0: none yet */
    at_timer_id ready_timer;
    bool told;
    void (*on_ready)(void *ctx, enum at_rc rc, const struct at_err *err);
    void *ctx;
    bool stopping;
    at_timer_id stop_timer;
    void (*stopped)(void *ctx);
    void *stopped_ctx;
};

static inline struct gw_moment gw_now(const struct gw_worker *worker)
{
    return (struct gw_moment){&worker->gateway->metrics, at_loop_now_ns(worker->loop)};
}

/* gateway.c */
void gw_tell(struct at_gateway *gateway, enum at_rc rc,
             const struct at_err *err); /* on_ready, once */
void gw_publish(struct at_gateway *gateway, struct gw_table *table_take);
void gw_publish_rules(struct at_gateway *gateway, struct gw_rules *rules_take);
/* feed.c */
void gw_feed_start(struct at_gateway *gateway);
void gw_feed_done(struct at_gateway *gateway);
void gw_feed_changed(struct at_gateway *gateway); /* a new table is due */
void gw_feed_synced(struct at_gateway *gateway);  /* one of the lists is complete */
/* services_feed.c */
void gw_services_start(struct at_gateway *gateway);
void gw_services_note(struct at_gateway *gateway, const json_t *deployment, bool deleted);
void gw_services_done(struct at_gateway *gateway);
/* check.c */
void gw_check_start(struct gw_worker *worker);
void gw_check_done(struct gw_worker *worker);
/* report.c */
void gw_report_start(struct at_gateway *gateway);
void gw_report_poke(struct gw_worker *worker, const struct gw_model *model); /* somebody waits */
void gw_report_done(struct at_gateway *gateway);
/* worker.c */
enum at_rc gw_worker_start(struct gw_worker *worker, const struct at_http_server_options *options,
                           struct at_err *err) AT_WARN_UNUSED;
void gw_worker_stop(struct gw_worker *worker); /* from its own loop; sets drained */
void gw_worker_done(struct gw_worker *worker);
void gw_worker_take_tls(void *worker);
void gw_worker_take_rules(void *worker);
void gw_worker_take_peer_tls(void *worker);
/* view.c */
void gw_worker_take_table(void *worker);
void gw_view_done(struct gw_worker *worker);
struct gw_model *gw_model_find(const struct gw_worker *worker, const char *name, size_t len);
/* proxy.c: the handler of each loop's server */
void gw_handle(void *worker, struct at_http_exchange *ex);
void gw_requests_free(struct gw_worker *worker); /* the spare ones */
uint64_t gw_random(struct gw_worker *worker);    /* for ids: differs, is no secret */
/* balance.c */
/* A request is at the replica from now on; and then it has ended there: its place, and the model's,
 * are for those that wait. The caller holds the model. */
void gw_model_enter(struct gw_worker *worker, struct gw_model *model, struct gw_replica *replica,
                    unsigned cost_milli);
void gw_model_leave(struct gw_worker *worker, struct gw_model *model, struct gw_replica *replica,
                    unsigned cost_milli, enum gw_outcome outcome);
void gw_replica_drop(struct gw_replica *replica);
void gw_model_drop(struct gw_model *model);
void gw_model_forget_versions(struct gw_model *model);
/* auth.c */
enum at_rc gw_auth_load(struct at_gateway *gateway, const char *file,
                        struct at_err *err) AT_WARN_UNUSED;
bool gw_auth_allows(struct gw_worker *worker, const struct at_http_head *head);
/* The class of a request whose header says text; never above that of its token. false: there is no
 * such class. */
bool gw_auth_priority(const struct gw_worker *worker, struct at_str text, enum gw_priority *ret);
void gw_auth_done(struct gw_worker *worker);

#endif
