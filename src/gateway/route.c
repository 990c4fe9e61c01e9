#include "gateway/route.h"

#include "core/json.h"
#include "core/mem.h"
#include "core/str.h"
#include "core/units.h"
#include "sys/file.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

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

struct gw_gauge *gw_gauge_new(void)
{
    struct gw_gauge *gauge = AT_NEW(struct gw_gauge);
    gauge->refs = 1;
    return gauge;
}

struct gw_gauge *gw_gauge_ref(struct gw_gauge *gauge)
{
    if (gauge != NULL) {
        atomic_fetch_add_explicit(&gauge->refs, 1, memory_order_relaxed);
    }
    return gauge;
}

void gw_gauge_unref(struct gw_gauge *gauge)
{
    if (gauge != NULL && atomic_fetch_sub_explicit(&gauge->refs, 1, memory_order_acq_rel) == 1) {
        at_free(gauge);
    }
}

static void target_done(struct gw_target *t)
{
    at_free((char *)t->instance);
    at_free((char *)t->site);
    at_free((char *)t->addr);
    at_free((char *)t->version);
    at_free((char *)t->served_as);
    at_free((char *)t->jurisdiction);
    at_free((char *)t->peer);
    at_tls_config_unref(t->tls);
    gw_gauge_unref(t->gauge);
    gw_standing_unref(t->standing);
}

static void route_done(struct gw_route *route)
{
    for (size_t i = 0; i < route->n_targets; i++) {
        target_done(&route->targets[i]);
    }
    for (size_t i = 0; i < route->n_shares; i++) {
        at_free(route->shares[i].deployment);
        at_free(route->shares[i].version);
    }
    gw_load_unref(route->load);
    gw_standing_unref(route->standing);
    at_free(route->targets);
    at_free(route->shares);
    at_free(route->session_header);
    at_free(route->session_cookie);
    at_free(route->qualified);
    at_free(route->model);
}

void gw_table_unref(struct gw_table *table)
{
    if (table == NULL || atomic_fetch_sub_explicit(&table->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    for (size_t i = 0; i < table->n_routes; i++) {
        route_done(&table->routes[i]);
    }
    for (size_t i = 0; i < table->n_rules; i++) {
        for (size_t j = 0; j < table->rules[i].n_jurisdictions; j++) {
            at_free(table->rules[i].jurisdictions[j]);
        }
        at_free(table->rules[i].jurisdictions);
        at_free(table->rules[i].data_class);
    }
    at_free(table->rules);
    at_free(table->routes);
    at_map_free(table->by_model);
    at_free(table);
}

struct gw_route *gw_table_route(struct gw_table *table, const char *model)
{
    assert(atomic_load(&table->refs) == 1); /* not given away yet */
    size_t index = (size_t)(uintptr_t)at_map_get(table->by_model, model);
    if (index == 0) {
        table->routes = at_realloc(table->routes, (table->n_routes + 1) * sizeof *table->routes);
        table->routes[table->n_routes] = (struct gw_route){.model = at_strdup(model)};
        gw_policy_default(&table->routes[table->n_routes].policy);
        index = ++table->n_routes;
        at_map_put(table->by_model, model, (void *)(uintptr_t)index);
    }
    return &table->routes[index - 1];
}

size_t gw_route_share(struct gw_route *route, const char *deployment)
{
    for (size_t i = 0; i < route->n_shares; i++) {
        if (strcmp(route->shares[i].deployment, deployment) == 0) {
            return i;
        }
    }
    route->shares = at_realloc(route->shares, (route->n_shares + 1) * sizeof *route->shares);
    route->shares[route->n_shares] =
        (struct gw_share){.deployment = at_strdup(deployment), .weight = -1};
    return route->n_shares++;
}

void gw_share_version(struct gw_share *share, const char *version)
{
    at_free(share->version);
    share->version = at_strdup(version);
}

void gw_route_policy(struct gw_route *route, const struct gw_policy *policy, struct gw_load *load)
{
    route->policy = *policy;
    struct gw_standing *old = route->standing;
    route->standing = load != NULL ? gw_standing_ref(load->standing) : gw_standing_new();
    gw_standing_unref(old);
    gw_load_unref(route->load);
    route->load = load != NULL ? gw_load_ref(load) : NULL;
}

static char *text_or(const char *text, const char *otherwise)
{
    return at_strdup(text != NULL && text[0] != '\0' ? text : otherwise);
}

void gw_table_add_target(struct gw_table *table, struct gw_route *route,
                         const struct gw_target *target)
{
    assert(target->share < route->n_shares);
    route->targets = at_realloc(route->targets, (route->n_targets + 1) * sizeof *route->targets);
    route->targets[route->n_targets++] =
        (struct gw_target){.instance = text_or(target->instance, ""),
                           .site = text_or(target->site, ""),
                           .addr = text_or(target->addr, ""),
                           .version = text_or(target->version, "1"),
                           .served_as = text_or(target->served_as, route->model),
                           .jurisdiction = text_or(target->jurisdiction, ""),
                           .peer = at_strdup(target->peer),
                           .tls = at_tls_config_ref(target->tls),
                           .http2 = target->http2,
                           .latency_ns = target->latency_ns,
                           .share = target->share,
                           .requests_max = target->requests_max,
                           .gauge = gw_gauge_ref(target->gauge),
                           .standing = target->standing != NULL ? gw_standing_ref(target->standing)
                                                                : gw_standing_new()};
    table->n_targets++;
}

struct gw_residency *gw_table_add_rule(struct gw_table *table, const char *data_class)
{
    table->rules = at_realloc(table->rules, (table->n_rules + 1) * sizeof *table->rules);
    table->rules[table->n_rules] = (struct gw_residency){.data_class = at_strdup(data_class)};
    return &table->rules[table->n_rules++];
}

void gw_residency_allow(struct gw_residency *rule, const char *jurisdiction)
{
    rule->jurisdictions =
        at_realloc(rule->jurisdictions, (rule->n_jurisdictions + 1) * sizeof *rule->jurisdictions);
    rule->jurisdictions[rule->n_jurisdictions++] = at_strdup(jurisdiction);
}

enum gw_affinity gw_affinity_of(const char *text)
{
    return at_streq(text, "Session")  ? GW_AFFINITY_SESSION
           : at_streq(text, "Prefix") ? GW_AFFINITY_PREFIX
           : at_streq(text, "None")   ? GW_AFFINITY_NONE
                                      : GW_AFFINITY_AUTO;
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
        struct gw_route *route = gw_table_route(table, model);
        gw_route_policy(route, &policy, NULL);
        route->affinity = gw_affinity_of(at_json_str_at(spec, "traffic.affinity", ""));
        const char *cookie = at_json_str_at(spec, "traffic.session.cookie", "");
        route->session_cookie = cookie[0] != '\0' ? at_strdup(cookie) : NULL;
    }
    return AT_OK;
}

/* Of a server that is no instance: by the CA in a file, else those of the system. */
static enum at_rc static_tls(const json_t *json, const char *addr, struct at_tls_config **ret,
                             struct at_err *err)
{
    const json_t *tls = at_json_at(json, "tls");
    const char *file = at_json_str_at(tls, "ca", "");
    AT_CLEANUP(at_cleanup_buf) struct at_buf ca = {0};
    char host[AT_GW_HOST_BYTES_MAX];
    if (tls == NULL) {
        return AT_OK;
    }
    if (!json_is_object(tls)) {
        return at_err_set_field(err, AT_INVALID, "tls", "must be an object");
    }
    size_t len = strcspn(addr, addr[0] == '[' ? "]" : ":");
    snprintf(host, sizeof host, "%.*s", (int)(len - (addr[0] == '[')), addr + (addr[0] == '['));
    enum at_rc rc = file[0] != '\0' ? at_file_read(file, AT_GW_PEM_BYTES_MAX, &ca, err) : AT_OK;
    struct at_tls_options options = {.http2 = true,
                                     .ca_pem = ca.data,
                                     .verify_peer = true,
                                     .server_name = at_json_str_at(tls, "name", host)};
    return rc == AT_OK ? at_tls_config_new(&options, ret, err) : rc;
}

static enum at_rc add_replica(struct gw_table *table, struct gw_route *route, const json_t *json,
                              size_t at, struct at_err *err)
{
    const char *addr = at_json_str_at(json, "endpoint", "");
    if (addr[0] == '\0') {
        return at_err_set_field(err, AT_INVALID, route->model, "replica %zu has no endpoint", at);
    }
    int64_t latency_ns = 0;
    const char *latency = at_json_str_at(json, "latency", "0s");
    if (at_duration_ns(latency, &latency_ns, NULL) != AT_OK || latency_ns < 0) {
        return at_err_set_field(err, AT_INVALID, route->model, "replica %zu: latency %.40s is none",
                                at, latency);
    }
    size_t share = gw_route_share(route, at_json_str_at(json, "deployment", ""));
    int64_t weight = at_json_int_at(json, "weight", route->shares[share].weight);
    int64_t shadow = at_json_int_at(json, "shadow", route->shares[share].shadow_percent);
    int64_t most = at_json_int_at(json, "requestsPerReplica", 0);
    if (weight < -1 || weight > INT32_MAX || shadow < 0 || shadow > 100 || most < 0 ||
        most > INT32_MAX) {
        return at_err_set_field(err, AT_INVALID, route->model,
                                "replica %zu: weight, shadow or requestsPerReplica is out of range",
                                at);
    }
    route->shares[share].weight = weight;
    route->shares[share].shadow_percent = shadow;
    const char *protocol = at_json_str_at(json, "protocol", "http");
    if (!at_streq(protocol, "http") && !at_streq(protocol, "h2c")) {
        return at_err_set_field(err, AT_INVALID, route->model,
                                "replica %zu: protocol must be http or h2c", at);
    }
    struct at_tls_config *tls = NULL;
    enum at_rc rc = static_tls(json, addr, &tls, err);
    if (rc != AT_OK) {
        return at_err_wrap(err, rc, "%s: replica %zu", route->model, at);
    }
    struct gw_gauge *gauge = most > 0 ? gw_gauge_new() : NULL;
    gw_table_add_target(
        table, route,
        &(struct gw_target){.instance = at_json_str_at(json, "instance", addr),
                            .site = at_json_str_at(json, "site", ""),
                            .addr = addr,
                            .version = at_json_str_at(json, "version", ""),
                            .served_as = at_json_str_at(json, "servedAs", ""),
                            .jurisdiction = at_json_str_at(json, "jurisdiction", ""),
                            .tls = tls,
                            .http2 = at_streq(protocol, "h2c"),
                            .latency_ns = latency_ns,
                            .share = share,
                            .requests_max = (unsigned)most,
                            .gauge = gauge});
    gw_gauge_unref(gauge);
    at_tls_config_unref(tls);
    return AT_OK;
}

static enum at_rc add_static(struct gw_table *table, const char *model, const json_t *replicas,
                             struct at_err *err)
{
    if (!json_is_array(replicas)) {
        return at_err_set_field(err, AT_INVALID, model, "must be a list of replicas");
    }
    struct gw_route *route = gw_table_route(table, model);
    size_t i;
    json_t *replica;
    json_array_foreach(replicas, i, replica)
    {
        enum at_rc rc = add_replica(table, route, replica, i, err);
        if (rc != AT_OK) {
            return rc;
        }
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
    json_t *replicas;
    json_object_foreach(models, model, replicas)
    {
        rc = add_static(table, model, replicas, err);
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
