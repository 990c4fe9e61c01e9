/* Route tables: made by the first loop, immutable from then on, reference counted across threads.
 */
#ifndef AT_GATEWAY_ROUTE_H
#define AT_GATEWAY_ROUTE_H

#include "core/map.h"

#include <stdatomic.h>

struct gw_target {
    char *instance, *site, *addr;
    int64_t latency_ns; /* from the gateway's own site */
};

struct gw_route {
    char *model;
    struct gw_target *targets;
    size_t n_targets; /* 0: the model is known, but nobody serves it now */
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
/* {"models": {"m": [{"endpoint", "instance", "site"}]}}. err: AT_INVALID, AT_BAD_REQUEST. */
enum at_rc gw_table_parse(const char *text, size_t len, struct gw_table **ret,
                          struct at_err *err) AT_WARN_UNUSED;

#endif
