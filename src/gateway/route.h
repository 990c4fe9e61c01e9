/* Route tables: made by the first loop, immutable from then on, reference counted across threads.
 */
#ifndef AT_GATEWAY_ROUTE_H
#define AT_GATEWAY_ROUTE_H

#include "core/map.h"
#include "gateway/policy.h"
#include "net/tls.h"

#include <stdatomic.h>

enum gw_affinity {
    GW_AFFINITY_AUTO, /* by session where a request names one, else by prefix */
    GW_AFFINITY_SESSION,
    GW_AFFINITY_PREFIX,
    GW_AFFINITY_NONE,
};

enum gw_affinity gw_affinity_of(const char *text); /* as in a Deployment's spec.traffic */

/* Requests under way at one replica, counted over all loops. Only replicas with a limit have one.
 */
struct gw_gauge {
    atomic_int refs;
    atomic_uint n;
};

/* What one Deployment gets of its model's requests. */
struct gw_share {
    char *deployment;       /* "": instances of none, and those of a static file */
    char *version;          /* that its template names; NULL: not known */
    int64_t weight;         /* -1: not said; it shares what the others leave */
    int64_t shadow_percent; /* > 0: copies of so many requests, and no others */
};

struct gw_target {
    const char *instance, *site, *addr;
    const char *version;      /* "1" when nothing else is said */
    const char *served_as;    /* the model's name as the replica knows it */
    const char *jurisdiction; /* of its site; "": not known */
    /* TLS to it; all three may be absent. peer: "<name> <common name>" of an instance behind its
     * agent, with the gateway's own certificate. tls: another server's. */
    const char *peer;
    struct at_tls_config *tls;
    bool http2;         /* it speaks HTTP/2: many requests on one connection */
    int64_t latency_ns; /* from the gateway's own site */
    size_t share;
    unsigned requests_max;  /* at a time; 0: no limit */
    struct gw_gauge *gauge; /* NULL without a limit */
    struct gw_standing *standing;
};

struct gw_route {
    char *model;     /* the name that it is listed and counted under */
    char *qualified; /* "namespace/name", by which it can always be asked for; NULL: none */
    enum gw_affinity affinity;
    char *session_header, *session_cookie; /* NULL: none but the gateway's own */
    struct gw_share *shares;
    size_t n_shares;
    struct gw_target *targets;
    size_t n_targets; /* 0: the model is known, but nobody serves it now */
    struct gw_policy policy;
    struct gw_load *load;         /* NULL: nobody asks about it */
    struct gw_standing *standing; /* NULL: each loop's own */
};

/* Data of the class is handled in one of these jurisdictions only. */
struct gw_residency {
    char *data_class;
    char **jurisdictions;
    size_t n_jurisdictions;
};

struct gw_table {
    atomic_int refs;
    struct gw_route *routes;
    size_t n_routes, n_targets;
    struct gw_residency *rules;
    size_t n_rules;
    struct at_map *by_model; /* while it is being made: index + 1 */
};

struct gw_table *gw_table_new(void);
struct gw_table *gw_table_ref(struct gw_table *table);
void gw_table_unref(struct gw_table *table); /* accepts NULL */
/* Make the model known. The pointer is good until the next one is added. */
struct gw_route *gw_table_route(struct gw_table *table, const char *model);
/* The route's share of this Deployment, made when it is new; its index. */
size_t gw_route_share(struct gw_route *route, const char *deployment);
/* How its requests are treated; load gets a reference, may be NULL. */
void gw_route_policy(struct gw_route *route, const struct gw_policy *policy, struct gw_load *load);
void gw_share_version(struct gw_share *share, const char *version);
/* Texts are copied; NULL: "" (version: "1", served_as: the route's model). gauge and
 * standing get a reference; standing NULL: a new one. */
void gw_table_add_target(struct gw_table *table, struct gw_route *route,
                         const struct gw_target *target);
struct gw_residency *gw_table_add_rule(struct gw_table *table, const char *data_class);
void gw_residency_allow(struct gw_residency *rule, const char *jurisdiction);

struct gw_gauge *gw_gauge_new(void);
struct gw_gauge *gw_gauge_ref(struct gw_gauge *gauge); /* accepts NULL */
void gw_gauge_unref(struct gw_gauge *gauge);           /* accepts NULL */

/* {"models": {"m": [{"endpoint", "instance", "site", "deployment", "version", "weight", "shadow",
 * "servedAs", "jurisdiction", "latency", "requestsPerReplica", "protocol": "h2c",
 * "tls": {"ca": FILE, "name"}}]}, "policies": {"m": what a
 * Deployment's spec says of waiting, health, limits, retries, hedging and affinity}}; of a replica
 * all but endpoint may be absent. err: AT_INVALID, AT_BAD_REQUEST. */
enum at_rc gw_table_parse(const char *text, size_t len, struct gw_table **ret,
                          struct at_err *err) AT_WARN_UNUSED;

#endif
