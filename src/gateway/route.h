/* Route tables: made by the first loop, immutable from then on, reference counted across threads.
 */
#ifndef AT_GATEWAY_ROUTE_H
#define AT_GATEWAY_ROUTE_H

#include "core/map.h"
#include "gateway/policy.h"

#include <stdatomic.h>

struct gw_target {
    char *instance, *site, *addr;
    int64_t latency_ns; /* from the gateway's own site */
};

struct gw_route {
    char *model;
    struct gw_target *targets;
    size_t n_targets; /* 0: the model is known, but nobody serves it now */
    struct gw_policy policy;
    struct gw_load *load; /* NULL: nobody asks about it */
};

struct gw_table {
    atomic_int refs;
    struct gw_route *routes;
    size_t n_routes, n_targets;
    struct at_map *by_model; /* while it is being made: index + 1 */
};

struct gw_table *gw_table_new(void);
struct gw_table *gw_table_ref(struct gw_table *table);
void gw_table_unref(struct gw_table *table); /* accepts NULL */
/* Make the model known; its index. */
size_t gw_table_add_model(struct gw_table *table, const char *model);
void gw_table_add_target(struct gw_table *table, const char *model, const char *instance,
                         const char *site, const char *addr, int64_t latency_ns);
/* How the model's requests are treated; load gets a reference, may be NULL. */
void gw_table_set_policy(struct gw_table *table, const char *model, const struct gw_policy *policy,
                         struct gw_load *load);
/* {"models": {"m": [{"endpoint", "instance", "site"}]}, "policies": {"m": what a Deployment's spec
 * says of waiting, health, limits, retries and hedging}}. err: AT_INVALID, AT_BAD_REQUEST. */
enum at_rc gw_table_parse(const char *text, size_t len, struct gw_table **ret,
                          struct at_err *err) AT_WARN_UNUSED;

#endif
