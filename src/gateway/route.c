#include "gateway/route.h"

#include "core/json.h"
#include "core/mem.h"

#include <assert.h>

struct gw_table *gw_table_new(void)
{
    struct gw_table *table = AT_NEW(struct gw_table);
    table->refs = 1;
    table->by_model = at_map_new();
    return table;
}

struct gw_table *gw_table_ref(struct gw_table *table)
{
    atomic_fetch_add_explicit(&table->refs, 1, memory_order_relaxed);
    return table;
}

void gw_table_unref(struct gw_table *table)
{
    if (table == NULL || atomic_fetch_sub_explicit(&table->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    for (size_t i = 0; i < table->n_routes; i++) {
        struct gw_route *route = &table->routes[i];
        for (size_t j = 0; j < route->n_targets; j++) {
            at_free(route->targets[j].instance);
            at_free(route->targets[j].site);
            at_free(route->targets[j].addr);
        }
        gw_load_unref(route->load);
        at_free(route->targets);
        at_free(route->model);
    }
    at_free(table->routes);
    at_map_free(table->by_model);
    at_free(table);
}

size_t gw_table_add_model(struct gw_table *table, const char *model)
{
    size_t index = (size_t)(uintptr_t)at_map_get(table->by_model, model);
    if (index == 0) {
        table->routes = at_realloc(table->routes, (table->n_routes + 1) * sizeof *table->routes);
        table->routes[table->n_routes] = (struct gw_route){.model = at_strdup(model)};
        gw_policy_default(&table->routes[table->n_routes].policy);
        index = ++table->n_routes;
        at_map_put(table->by_model, model, (void *)(uintptr_t)index);
    }
    return index - 1;
}

void gw_table_add_target(struct gw_table *table, const char *model, const char *instance,
                         const char *site, const char *addr, int64_t latency_ns)
{
    assert(atomic_load(&table->refs) == 1); /* not given away yet */
    struct gw_route *route = &table->routes[gw_table_add_model(table, model)];
    route->targets = at_realloc(route->targets, (route->n_targets + 1) * sizeof *route->targets);
    route->targets[route->n_targets++] = (struct gw_target){.instance = at_strdup(instance),
                                                            .site = at_strdup(site),
                                                            .addr = at_strdup(addr),
                                                            .latency_ns = latency_ns};
    table->n_targets++;
}

void gw_table_set_policy(struct gw_table *table, const char *model, const struct gw_policy *policy,
                         struct gw_load *load)
{
    size_t index = gw_table_add_model(table, model);
    struct gw_route *route = &table->routes[index];
    route->policy = *policy;
    gw_load_unref(route->load);
    route->load = load != NULL ? gw_load_ref(load) : NULL;
}

static enum at_rc add_policies(struct gw_table *table, const json_t *policies, struct at_err *err)
{
    const char *model;
    json_t *spec;
    json_object_foreach((json_t *)(uintptr_t)policies, model, spec)
    {
        struct gw_policy policy;
        enum at_rc rc = json_is_object(spec)
                            ? gw_policy_parse(spec, &policy, err)
                            : at_err_set_field(err, AT_INVALID, "policies", "must be objects");
        if (rc != AT_OK) {
            return at_err_wrap(err, rc, "policies: %s", model);
        }
        gw_table_set_policy(table, model, &policy, NULL);
    }
    return AT_OK;
}

static enum at_rc add_static(struct gw_table *table, const char *model, const json_t *targets,
                             struct at_err *err)
{
    if (!json_is_array(targets)) {
        return at_err_set_field(err, AT_INVALID, model, "must be a list of replicas");
    }
    gw_table_add_model(table, model);
    size_t i;
    json_t *target;
    json_array_foreach(targets, i, target)
    {
        const char *addr = at_json_str_at(target, "endpoint", "");
        if (addr[0] == '\0') {
            return at_err_set_field(err, AT_INVALID, model, "replica %zu has no endpoint", i);
        }
        gw_table_add_target(table, model, at_json_str_at(target, "instance", addr),
                            at_json_str_at(target, "site", ""), addr, 0);
    }
    return AT_OK;
}

enum at_rc gw_table_parse(const char *text, size_t len, struct gw_table **ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *root = NULL;
    enum at_rc rc = at_json_parse(text, len, &root, err);
    if (rc != AT_OK) {
        return rc;
    }
    json_t *models = at_json_at(root, "models");
    if (!json_is_object(models)) {
        return at_err_set_field(err, AT_INVALID, "models", "must be an object of models");
    }
    struct gw_table *table = gw_table_new();
    const char *model;
    json_t *targets;
    json_object_foreach(models, model, targets)
    {
        rc = add_static(table, model, targets, err);
        if (rc != AT_OK) {
            gw_table_unref(table);
            return rc;
        }
    }
    rc = add_policies(table, at_json_at(root, "policies"), err);
    if (rc != AT_OK) {
        gw_table_unref(table);
        return rc;
    }
    *ret = table;
    return AT_OK;
}
