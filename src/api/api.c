/* From a request to its handler: who asks, for what, may they, who does it. */
#include "api/api_priv.h"
#include "api/entry.h"
#include "api/options.h"
#include "api/service_token.h"
#include "core/digest.h"
#include "core/mem.h"
#include "core/str.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum shape { SHAPE_ANY, SHAPE_COLLECTION, SHAPE_ITEM, SHAPE_SUB, SHAPE_SUB_TAIL };

struct endpoint {
    enum api_target target;
    enum shape shape;
    const char *plural;      /* NULL: every kind */
    const char *subresource; /* with SHAPE_SUB */
    enum at_http_method method;
    const char *verb; /* for RBAC */
    api_handler_fn *fn;
};

static const struct endpoint ENDPOINTS[] = {
    {API_HEALTH, SHAPE_ANY, NULL, NULL, AT_HTTP_GET, "get", api_health},
    {API_VERSION, SHAPE_ANY, NULL, NULL, AT_HTTP_GET, "get", api_version},
    {API_METRICS, SHAPE_ANY, NULL, NULL, AT_HTTP_GET, "get", api_metrics_show},
    {API_DISCOVERY, SHAPE_ANY, NULL, NULL, AT_HTTP_GET, "get", api_discovery},
    {API_OPENAPI, SHAPE_ANY, NULL, NULL, AT_HTTP_GET, "get", api_openapi},
    {API_JOIN, SHAPE_ANY, NULL, NULL, AT_HTTP_POST, "create", api_join},
    {API_JOIN_TOKENS, SHAPE_ANY, NULL, NULL, AT_HTTP_POST, "create", api_join_tokens},
    {API_JOIN_RENEW, SHAPE_ANY, NULL, NULL, AT_HTTP_POST, "create", api_join_renew},
    {API_JOIN_SERVERS, SHAPE_ANY, NULL, NULL, AT_HTTP_GET, "get", api_join_servers},
    {API_REVIEW, SHAPE_ANY, NULL, NULL, AT_HTTP_POST, "create", api_review},
    /* Verb create: it gives the authority's key away, so it is audited. */
    {API_BACKUP, SHAPE_ANY, NULL, NULL, AT_HTTP_GET, "create", api_backup},
    {API_SECRETS, SHAPE_ANY, NULL, NULL, AT_HTTP_GET, "get", api_secrets_show},
    {API_SECRETS_ROTATE, SHAPE_ANY, NULL, NULL, AT_HTTP_POST, "create", api_secrets_rotate},
    {API_ACCESS_TOKENS, SHAPE_ANY, NULL, NULL, AT_HTTP_POST, "create", api_access_token_make},

    {API_RESOURCE, SHAPE_COLLECTION, NULL, NULL, AT_HTTP_GET, "list", api_list},
    {API_RESOURCE, SHAPE_COLLECTION, NULL, NULL, AT_HTTP_POST, "create", api_create},
    {API_RESOURCE, SHAPE_COLLECTION, NULL, NULL, AT_HTTP_DELETE, "deletecollection",
     api_delete_collection},
    {API_RESOURCE, SHAPE_ITEM, NULL, NULL, AT_HTTP_GET, "get", api_get},
    {API_RESOURCE, SHAPE_ITEM, NULL, NULL, AT_HTTP_PUT, "update", api_update},
    {API_RESOURCE, SHAPE_ITEM, NULL, NULL, AT_HTTP_PATCH, "patch", api_patch},
    {API_RESOURCE, SHAPE_ITEM, NULL, NULL, AT_HTTP_DELETE, "delete", api_delete},
    {API_RESOURCE, SHAPE_SUB, NULL, "status", AT_HTTP_GET, "get", api_get},
    {API_RESOURCE, SHAPE_SUB, NULL, "status", AT_HTTP_PUT, "update", api_update},
    {API_RESOURCE, SHAPE_SUB, NULL, "status", AT_HTTP_PATCH, "patch", api_patch},
    {API_RESOURCE, SHAPE_SUB, NULL, "scale", AT_HTTP_GET, "get", api_scale_get},
    {API_RESOURCE, SHAPE_SUB, NULL, "scale", AT_HTTP_PUT, "update", api_update},
    {API_RESOURCE, SHAPE_SUB, NULL, "scale", AT_HTTP_PATCH, "patch", api_patch},
    /* Verb create whatever the method: a role that may read everything may not take a tunnel. */
    {API_RESOURCE, SHAPE_SUB, "nodes", "heartbeat", AT_HTTP_POST, "create", api_heartbeat},
    {API_RESOURCE, SHAPE_SUB, "nodes", "tunnel", AT_HTTP_GET, "create", api_tunnel_open},
    {API_RESOURCE, SHAPE_SUB_TAIL, "nodes", "tunnel", AT_HTTP_POST, "create", api_tunnel_answer},
    {API_RESOURCE, SHAPE_SUB, "serviceaccounts", "token", AT_HTTP_POST, "create",
     api_token_request},
    {API_RESOURCE, SHAPE_SUB, "instances", "log", AT_HTTP_GET, "get", api_instance_log},

    {API_RESOURCE, SHAPE_COLLECTION, "pods", NULL, AT_HTTP_GET, "list", api_list},
    {API_RESOURCE, SHAPE_ITEM, "pods", NULL, AT_HTTP_GET, "get", api_get},
    {API_RESOURCE, SHAPE_ITEM, "pods", NULL, AT_HTTP_DELETE, "delete", api_delete},
    {API_RESOURCE, SHAPE_SUB, "pods", "log", AT_HTTP_GET, "get", api_instance_log},
    /* Verb create: who may only read must not run commands. */
    {API_RESOURCE, SHAPE_SUB, "pods", "exec", AT_HTTP_GET, "create", api_instance_exec},
    {API_RESOURCE, SHAPE_SUB, "instances", "exec", AT_HTTP_GET, "create", api_instance_exec},
    {API_RESOURCE, SHAPE_SUB, "pods", "exec", AT_HTTP_POST, "create", api_instance_exec},
    {API_RESOURCE, SHAPE_SUB, "instances", "exec", AT_HTTP_POST, "create", api_instance_exec},
    {API_RESOURCE, SHAPE_SUB, "pods", "attach", AT_HTTP_GET, "create", api_instance_attach},
    {API_RESOURCE, SHAPE_SUB, "pods", "attach", AT_HTTP_POST, "create", api_instance_attach},
    {API_RESOURCE, SHAPE_SUB, "instances", "attach", AT_HTTP_GET, "create", api_instance_attach},
    {API_RESOURCE, SHAPE_SUB, "instances", "attach", AT_HTTP_POST, "create", api_instance_attach},
    {API_RESOURCE, SHAPE_SUB, "pods", "portforward", AT_HTTP_GET, "create", api_instance_forward},
    {API_RESOURCE, SHAPE_SUB, "pods", "portforward", AT_HTTP_POST, "create", api_instance_forward},
    {API_RESOURCE, SHAPE_SUB, "instances", "portforward", AT_HTTP_GET, "create",
     api_instance_forward},
    {API_RESOURCE, SHAPE_SUB, "instances", "portforward", AT_HTTP_POST, "create",
     api_instance_forward},
};

static enum shape shape_of(const struct api_route *route)
{
    if (route->tail[0] != '\0') {
        return SHAPE_SUB_TAIL;
    }
    if (route->subresource[0] != '\0') {
        return SHAPE_SUB;
    }
    return route->name[0] != '\0' ? SHAPE_ITEM : SHAPE_COLLECTION;
}

static bool fits(const struct endpoint *e, const struct api_route *route)
{
    if (e->target != route->target) {
        return false;
    }
    if (e->shape == SHAPE_ANY) {
        return true;
    }
    const struct at_model_kind *kind = route->kind;
    if (e->shape != shape_of(route) || (e->plural == NULL && route->pod) ||
        (e->plural != NULL && !at_streq(e->plural, route->resource))) {
        return false;
    }
    if (e->subresource == NULL) {
        return true;
    }
    if (!at_streq(e->subresource, route->subresource)) {
        return false;
    }
    return e->plural != NULL || (at_streq(e->subresource, "status") && kind->has_status) ||
           (at_streq(e->subresource, "scale") && kind->has_scale);
}

static const struct endpoint *endpoint_find(const struct api_route *route,
                                            enum at_http_method method, bool *ret_other_method)
{
    *ret_other_method = false;
    for (size_t i = 0; i < AT_ARRAY_LEN(ENDPOINTS); i++) {
        if (fits(&ENDPOINTS[i], route)) {
            if (ENDPOINTS[i].method == method) {
                return &ENDPOINTS[i];
            }
            *ret_other_method = true;
        }
    }
    return NULL;
}

static void client_gone(void *ctx)
{
    struct api_req *req = ctx;
    req->ex = NULL;
}

static struct api_req *req_new(struct at_api *api, struct at_http_exchange *ex)
{
    const struct at_http_head *head = at_http_request(ex);
    struct api_req *req = AT_NEW(struct api_req);
    req->api = api;
    req->ex = ex;
    req->arena = at_arena_new(AT_API_ARENA_BYTES_MAX);
    req->method = head->method;
    req->begin_ns = at_sys_mono_ns(api->sys);
    req->unknown = AT_MODEL_UNKNOWN_WARN;
    char *query = at_arena_strndup(req->arena, head->query.ptr, head->query.len);
    assert(query != NULL);
    req->query = (struct at_str){query, head->query.len};
    struct at_str agent = at_http_header_get(head, "User-Agent");
    req->from = at_arena_strdup(req->arena, at_http_peer_addr(ex));
    req->user_agent =
        agent.len > 0 ? at_arena_strndup(req->arena, agent.ptr, agent.len < 256 ? agent.len : 256)
                      : NULL;
    snprintf(req->id, sizeof req->id, "%s-%llx", api->id_prefix,
             (unsigned long long)api->next_id++);
    at_http_on_gone(ex, client_gone, req);
    return req;
}

/* Not texts and streams of other sorts. */
static bool answers_objects(const struct api_req *req)
{
    const char *sub = req->route.subresource;
    return req->route.target == API_REVIEW || req->route.target == API_DISCOVERY ||
           (req->route.target == API_RESOURCE &&
            (sub[0] == '\0' || at_streq(sub, "status") || at_streq(sub, "scale")));
}

/* Parameters that many handlers share. False: answered. */
static bool parameters_read(struct api_req *req)
{
    if (!api_options_read(req)) {
        return false;
    }
    struct at_str accept = at_http_header_get(at_http_request(req->ex), "Accept");
    if (answers_objects(req) && !api_acceptable(accept)) {
        api_respond_json(req, 406,
                         api_status(false, "NotAcceptable", 406,
                                    "only the following media types are accepted: application/json",
                                    NULL));
        return false;
    }
    api_table_wanted(req, accept);
    return true;
}

static bool is_public(const struct api_route *route, bool found)
{
    return found && (route->target == API_JOIN || at_streq(route->path, "/healthz") ||
                     at_streq(route->path, "/livez") || at_streq(route->path, "/readyz"));
}

static void refuse_path(struct api_req *req, bool other_method, const struct at_err *err)
{
    if (err->rc != AT_OK) {
        api_respond_err(req, err);
    } else if (other_method) {
        api_respond_error(req, AT_NOT_ALLOWED,
                          "the server does not allow this method on the requested resource");
    } else {
        api_respond_error(req, AT_NOT_FOUND, "the server could not find the requested resource");
    }
}

/* What the request reads must be as new as anything that any server has told anyone. */
static bool needs_now(struct api_req *req)
{
    struct at_store *store = req->api->options.store;
    const char *sub = req->route.subresource;
    if (!at_store_is_shared(store) || at_streq(sub, "heartbeat") || at_streq(sub, "tunnel")) {
        return false;
    }
    if (req->route.target != API_RESOURCE) {
        return req->route.target == API_JOIN || req->route.target == API_BACKUP;
    }
    int64_t rev = -1;
    if (req->method != AT_HTTP_GET ||
        api_query_int(req, "resourceVersion", -1, &rev, NULL) != AT_OK) {
        return true;
    }
    return rev < 0 || rev > at_store_rev(store);
}

static void serve(struct api_req *req)
{
    if ((req->route.target != API_JOIN && !api_authorize(req)) || !parameters_read(req)) {
        return;
    }
    if (at_streq(req->verb, "watch")) {
        api_watch(req);
        return;
    }
    req->handler(req);
}

static void caught_up(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *current,
                      const struct at_err *err)
{
    (void)rev;
    (void)current;
    struct api_req *req = ctx;
    if (req->ex == NULL) {
        api_req_free(req);
    } else if (rc != AT_OK) {
        api_respond_err(req, err);
    } else {
        serve(req);
    }
}

void api_serve(struct api_req *req)
{
    if (needs_now(req)) {
        at_store_catch_up(req->api->options.store, caught_up, req);
    } else {
        serve(req);
    }
}

/* From authentication on. */
static void handle(struct api_req *req)
{
    struct at_api *api = req->api;
    struct at_http_exchange *ex = req->ex;
    const struct at_http_head *head = at_http_request(ex);
    struct at_err err = {0};
    struct at_err route_err = {0};
    bool found = api_route_parse(head->path, &req->route, &route_err) == AT_OK;
    enum at_rc rc = api_authenticate(req, &err);
    if (rc == AT_AGAIN) {
        return; /* answered, or it goes on once keys have come */
    }
    if (rc != AT_OK) {
        api_respond_err(req, &err);
        return;
    }
    bool anonymous = at_streq(req->who.user, AT_USER_ANONYMOUS);
    if (anonymous && !is_public(&req->route, found)) {
        api_respond_error(req, AT_UNAUTHENTICATED, "Unauthorized");
        return;
    }
    if (!api_impersonate(req)) {
        return;
    }
    bool other_method = false;
    const struct endpoint *e =
        found ? endpoint_find(&req->route, head->method, &other_method) : NULL;
    if (e == NULL) {
        refuse_path(req, other_method, &route_err);
        return;
    }
    req->verb = e->verb;
    req->handler = e->fn;
    if (e->fn == api_list && api_query_bool(req, "watch")) {
        req->verb = "watch";
    }
    if (!api_audit_admits(req)) {
        return;
    }
    if (at_http_request_body(ex).len > api->options.body_bytes_max) {
        api_respond_error(req, AT_TOO_LARGE, "the body is larger than %zu bytes",
                          api->options.body_bytes_max);
        return;
    }
    if (req->route.target == API_HEALTH) {
        serve(req); /* however busy it is */
    } else {
        api_fair_take(req);
    }
}

void api_handle_again(struct api_req *req)
{
    handle(req);
}

void at_api_handle(void *ctx, struct at_http_exchange *ex)
{
    handle(req_new(ctx, ex));
}

const char *api_asker(const struct api_req *req)
{
    return req->real_user != NULL ? req->real_user : req->who.user;
}

/* --- query --- */

const char *api_query(struct api_req *req, const char *key)
{
    char value[AT_API_QUERY_VALUE_BYTES_MAX];
    if (at_query_get(req->query, key, value, sizeof value) != AT_OK) {
        return NULL;
    }
    return at_arena_strdup(req->arena, value);
}

bool api_query_bool(struct api_req *req, const char *key)
{
    const char *value = api_query(req, key);
    return at_streq(value, "true") || at_streq(value, "1") || at_streq(value, "True");
}

enum at_rc api_query_int(struct api_req *req, const char *key, int64_t otherwise, int64_t *ret,
                         struct at_err *err)
{
    const char *value = api_query(req, key);
    if (value == NULL || value[0] == '\0') {
        *ret = otherwise;
        return AT_OK;
    }
    if (at_str_to_i64(at_str_of(value), ret) != AT_OK) {
        return at_err_set(err, AT_BAD_REQUEST, "%s: \"%.64s\" is not an integer", key, value);
    }
    return AT_OK;
}

/* --- life --- */

static void namespace_made(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *current,
                           const struct at_err *err)
{
    (void)ctx;
    (void)rc; /* it is there already, or the store is in trouble that the next write will tell */
    (void)rev;
    (void)current;
    (void)err;
}

static enum at_rc namespace_make(struct at_api *api, const char *name, struct at_err *err)
{
    const struct at_model_kind *kind = at_model_kind_find("", "v1", "Namespace");
    assert(kind != NULL);
    char uid[AT_OBJECT_UID_BYTES];
    char key[AT_STORE_KEY_BYTES_MAX];
    json_t *object = json_pack("{s:{s:s}}", "metadata", "name", name);
    at_object_uid(api->sys, uid);
    at_object_stamp_create(kind, object, NULL, uid, at_sys_wall_ns(api->sys), AT_OBJECT_MAIN);
    at_object_add_finalizer(object, AT_API_NAMESPACE_FINALIZER);
    at_json_set_at(object, "status.phase", json_string("Active"));
    struct at_buf text = {0};
    enum at_rc rc = at_object_encode(object, &text, err);
    if (rc == AT_OK) {
        at_state_key(kind, NULL, name, key, sizeof key);
        at_store_put(api->options.store, key, text.data, text.len, 0, namespace_made, NULL);
    }
    at_buf_done(&text);
    json_decref(object);
    return rc;
}

static void metrics_make(struct at_api *api)
{
    struct at_metrics *m = api->options.metrics;
    if (m == NULL) {
        return;
    }
    api->store_metrics = api_store_metrics_new(m);
    api->requests_total =
        at_metrics_family(m, AT_METRIC_COUNTER, "atoll_api_requests_total", "Requests answered.",
                          (const char *const[]){"verb", "resource", "code", NULL});
    api->request_seconds = at_metrics_family(m, AT_METRIC_HISTOGRAM, "atoll_api_request_seconds",
                                             "Time to answer a request; streams are left out.",
                                             (const char *const[]){"verb", NULL});
    api->streams_now =
        at_metric_plain(m, AT_METRIC_GAUGE, "atoll_api_watches", "Open watch streams.");
    api->streams_cut_total =
        at_metric_plain(m, AT_METRIC_COUNTER, "atoll_api_watches_cut_total",
                        "Watch streams cut because their client read too slowly.");
    api->streams_refused_total =
        at_metric_plain(m, AT_METRIC_COUNTER, "atoll_api_watches_refused_total",
                        "Watches refused with 429: their user, or all, had too many.");
    api->sessions_now = at_metric_plain(m, AT_METRIC_GAUGE, "atoll_api_sessions",
                                        "Logs, commands and forwarded ports being carried.");
    api->tunnels_now =
        at_metric_plain(m, AT_METRIC_GAUGE, "atoll_api_tunnels", "Agents that are connected.");
    api->streams_queue_bytes_now =
        at_metric_with(at_metrics_family(m, AT_METRIC_GAUGE, "atoll_api_watches_queue_bytes",
                                         "Bytes that wait for slow clients of watches.", NULL),
                       NULL);
    api->guesses_total = at_metric_plain(
        m, AT_METRIC_COUNTER, "atoll_api_guesses_refused_total",
        "Requests with a token that was not looked at, because too many came that were none.");
    api->watch_events_total = at_metric_plain(m, AT_METRIC_COUNTER, "atoll_api_watch_events_total",
                                              "Events written to watch streams.");
}

static void otherwise(size_t *limit, size_t value)
{
    *limit = *limit != 0 ? *limit : value;
}

static void limits_default(struct at_api_options *o)
{
    if (o->watch_timeout_ns == 0) {
        o->watch_timeout_ns = AT_API_WATCH_TIMEOUT_NS;
    }
    if (o->bookmark_period_ns == 0) {
        o->bookmark_period_ns = AT_API_BOOKMARK_PERIOD_NS;
    }
    otherwise(&o->watch_queue_bytes_max, AT_API_STREAMS_QUEUE_BYTES_MAX);
    otherwise(&o->watch_queue_one_bytes_max, AT_API_STREAM_QUEUE_BYTES_MAX);
    otherwise(&o->watches_max, AT_API_STREAMS_MAX);
    otherwise(&o->watches_per_user_max, AT_API_STREAMS_PER_USER_MAX);
    otherwise(&o->tunnels_max, AT_API_TUNNELS_MAX);
    otherwise(&o->sessions_max, AT_API_LOG_SESSIONS_MAX);
    otherwise(&o->body_bytes_max, AT_API_BODY_BYTES_MAX);
    otherwise(&o->list_bytes_max, AT_API_LIST_BYTES_MAX);
}

enum at_rc at_api_new(const struct at_api_options *options, struct at_api **ret, struct at_err *err)
{
    struct at_api *api = AT_NEW(struct at_api);
    api->options = *options;
    limits_default(&api->options);
    api->sys = at_loop_sys(options->loop);
    unsigned char prefix[8];
    at_sys_random(api->sys, prefix, sizeof prefix);
    at_hex_encode(prefix, sizeof prefix, api->id_prefix);
    api->watchers = at_map_new();
    api->tunnels = api_tunnels_new();
    api->fair = api_fair_new(&api->options);
    metrics_make(api);
    api_discovery_build(api);
    api_openapi_build(api);
    api_rights_begin(api);
    api_entry_begin(api);
    api->guesses = api_guesses_new();
    enum at_rc rc = namespace_make(api, "default", err);
    if (rc == AT_OK) {
        rc = namespace_make(api, "atoll-system", err);
    }
    if (rc == AT_OK) {
        rc = api_oidc_new(api, err);
    }
    if (rc == AT_OK && options->ca != NULL) {
        rc = at_service_key_new(options->ca, &api->service_key, err);
    }
    if (rc != AT_OK) {
        at_api_free(api);
        return rc;
    }
    *ret = api;
    return AT_OK;
}

void at_api_free(struct at_api *api)
{
    if (api == NULL) {
        return;
    }
    api_held_drop(api);
    api_oidc_free(api);
    api_guesses_free(api->guesses);
    api_secrets_done(api);
    api_rights_done(api);
    api_entry_done(api);
    at_buf_done(&api->audit_text);
    api_servers_done(api);
    api_streams_close(api);
    api_links_close(api);
    api_backup_cut(api);
    api_tunnels_free(api->tunnels);
    api_fair_free(api->fair);
    at_map_free(api->watchers);
    for (size_t i = 0; i < AT_API_DECODED_MAX; i++) {
        json_decref(api->decoded[i].object);
    }
    api_lines_done(api);
    api_docs_free(api->discovery, api->n_discovery);
    api_docs_free(api->openapi, api->n_openapi);
    at_free(api->openapi_v2[0].text);
    at_free(api->openapi_v2[1].text);
    at_service_key_free(api->service_key);
    at_free(api->store_metrics);
    at_free(api);
}
