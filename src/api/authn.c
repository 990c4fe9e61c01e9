/* Who asks, and may they. */
#include "api/api_priv.h"
#include "api/entry.h"
#include "api/service_token.h"
#include "core/digest.h"
#include "core/mem.h"
#include "core/str.h"

#include <stdio.h>

#define NODE_USER_PREFIX "system:node:"
#define SITE_GROUP_PREFIX "atoll:site:"

static void identity_of_peer(const struct at_api *api, const struct at_tls_peer *peer,
                             struct at_identity *ret)
{
    snprintf(ret->user, sizeof ret->user, "%s", peer->common_name);
    for (size_t i = 0; i < peer->n_organizations && ret->n_groups < AT_IDENTITY_GROUPS_MAX; i++) {
        if (api_entry_group_counts(api, peer, peer->organizations[i])) {
            snprintf(ret->groups[ret->n_groups++], sizeof ret->groups[0], "%s",
                     peer->organizations[i]);
        }
    }
}

static enum at_rc by_certificate(struct api_req *req, const struct at_tls_peer *peer,
                                 struct at_err *err)
{
    const char *why = api_entry_refuses(req->api, peer);
    if (why != NULL) {
        req->refusal = at_arena_printf(req->arena, "%s: \"%s\", serial %s", why, peer->common_name,
                                       peer->serial_hex);
        return at_err_set(err, AT_UNAUTHENTICATED, "Unauthorized: %s", why);
    }
    identity_of_peer(req->api, peer, &req->who);
    req->by_certificate = true;
    req->auth_how = API_BY_CERTIFICATE;
    req->expires_ns = peer->not_after_wall_ns;
    return AT_OK;
}

static bool token_known(const struct at_api *api, struct at_str token)
{
    char digest[AT_SHA256_HEX_BYTES];
    at_sha256_hex(token.ptr, token.len, digest);
    bool known = false;
    const char *const *list = api->options.admin_token_sha256_hex;
    for (size_t i = 0; list != NULL && list[i] != NULL; i++) {
        if (strlen(list[i]) == AT_SHA256_HEX_BYTES - 1 &&
            at_equal_const_time(list[i], digest, AT_SHA256_HEX_BYTES - 1)) {
            known = true;
        }
    }
    return known;
}

/* One of those that were given at the start. */
static bool admin_token(const struct at_api *api, struct at_str token, struct at_identity *ret)
{
    if (token.len == 0 || !token_known(api, token)) {
        return false;
    }
    snprintf(ret->user, sizeof ret->user, "admin");
    snprintf(ret->groups[0], sizeof ret->groups[0], "%s", AT_GROUP_MASTERS);
    ret->n_groups = 1;
    return true;
}

bool api_token_identity(const struct at_api *api, struct at_str token, struct at_identity *ret)
{
    char id[API_TOKEN_ID_BYTES];
    int64_t expires_ns = 0;
    return api_entry_token(api, token, ret, id, &expires_ns) || admin_token(api, token, ret);
}

/* A token that this server gave out itself. */
static bool own_token_take(struct api_req *req, struct at_str token)
{
    char id[API_TOKEN_ID_BYTES];
    req->claims = api_service_claims(req->api, token, NULL);
    if (req->claims != NULL) {
        api_service_identity(req->claims, &req->who);
        req->expires_ns = at_json_int_at(req->claims, "exp", 0) * AT_NS_PER_S;
        return true;
    }
    if (api_entry_token(req->api, token, &req->who, id, &req->expires_ns)) {
        req->token_id = at_arena_strdup(req->arena, id);
        return req->token_id != NULL;
    }
    return admin_token(req->api, token, &req->who);
}

enum at_rc api_authenticate(struct api_req *req, struct at_err *err)
{
    const struct at_tls_peer *peer = at_http_peer(req->ex);
    if (peer != NULL && peer->verified && peer->common_name[0] != '\0') {
        return by_certificate(req, peer, err);
    }
    struct at_str header = at_http_header_get(at_http_request(req->ex), "Authorization");
    if (header.ptr == NULL) {
        snprintf(req->who.user, sizeof req->who.user, "%s", AT_USER_ANONYMOUS);
        return AT_OK;
    }
    struct at_str token = header;
    struct at_str scheme = at_str_cut(&token, ' ');
    token = at_str_trim(token);
    if (!api_guess_admits(req)) {
        return AT_AGAIN;
    }
    bool bearer = at_str_eq_nocase(scheme, "bearer");
    if (bearer && own_token_take(req, token)) {
        req->auth_how = "token";
        return AT_OK;
    }
    struct at_err why = {0};
    enum at_rc rc = bearer ? api_oidc_check(req->api, token, &req->who, &req->expires_ns, &why)
                           : AT_UNAUTHENTICATED;
    if (rc == AT_OK) {
        req->auth_how = "oidc";
        return AT_OK;
    }
    if (rc == AT_NOT_FOUND && api_oidc_wait(req)) {
        return AT_AGAIN;
    }
    req->refusal = why.msg[0] != '\0' ? at_arena_strdup(req->arena, why.msg) : NULL;
    api_guess_failed(req);
    return at_err_set(err, AT_UNAUTHENTICATED, "Unauthorized");
}

bool api_is_agent(const struct api_req *req, const char **ret_node)
{
    for (size_t i = 0; i < req->who.n_groups; i++) {
        if (at_streq(req->who.groups[i], AT_GROUP_NODES) &&
            at_str_starts(at_str_of(req->who.user), NODE_USER_PREFIX)) {
            *ret_node = req->who.user + strlen(NODE_USER_PREFIX);
            return true;
        }
    }
    return false;
}

/* Does an instance of this namespace that is bound to node name the secret? */
static bool secret_used_on(struct api_req *req, const char *ns, const char *secret,
                           const char *node)
{
    const struct at_snapshot *snap = at_state_snapshot(req->api->options.state);
    bool used = false;
    for (size_t i = 0; !used && i < snap->n_instances; i++) {
        const struct at_instance *in = snap->instances[i];
        if (!at_streq(in->meta.ns, ns) || !at_streq(in->spec.node_name, node)) {
            continue;
        }
        for (size_t e = 0; e < in->spec.env.n; e++) {
            const struct at_env_var *var = &in->spec.env.items[e];
            used = used ||
                   (var->secret_key_ref != NULL && at_streq(var->secret_key_ref->name, secret));
        }
        const struct at_instance_prefetch *next = in->status.prefetch;
        used = used || (in->spec.model != NULL && at_streq(in->spec.model->pull_secret, secret)) ||
               (next != NULL && at_streq(next->pull_secret, secret));
    }
    at_snapshot_unref(snap);
    return used;
}

const char *api_node_of(struct api_req *req, const struct api_route *route, bool use_selector)
{
    const char *node = NULL;
    if (route->kind == NULL || !api_is_agent(req, &node)) {
        return NULL; /* only agents' rights depend on it */
    }
    if (at_streq(route->resource, "secrets")) {
        return secret_used_on(req, route->ns, route->name, node) ? node : NULL;
    }
    if (!at_streq(route->resource, "instances")) {
        return NULL;
    }
    if (route->name[0] == '\0') {
        struct api_filter filter;
        if (!use_selector || api_filter_parse(req, &filter, NULL) != AT_OK) {
            return NULL;
        }
        return api_filter_demands(&filter, "spec.nodeName");
    }
    json_t *object = at_state_object(req->api->options.state, route->kind, route->ns, route->name);
    const char *bound = at_json_str_at(object, "spec.nodeName", NULL);
    bound = bound != NULL ? at_arena_strdup(req->arena, bound) : NULL;
    json_decref(object);
    return bound;
}

void api_access_map(struct at_access *what)
{
    if (at_streq(what->group, "") && at_streq(what->resource, "pods")) {
        what->group = "atoll.dev";
        what->resource = "instances";
    }
}

/* A list, watch or deletion of what has one name is of that name, as in Kubernetes. */
static const char *name_asked(struct api_req *req)
{
    struct api_filter filter;
    if (req->route.name[0] != '\0' || req->route.kind == NULL ||
        api_query(req, "fieldSelector") == NULL || api_filter_parse(req, &filter, NULL) != AT_OK) {
        return req->route.name;
    }
    const char *name = api_filter_demands(&filter, "metadata.name");
    return name != NULL ? name : "";
}

static bool decide(struct api_req *req, const char *name, char *reason, size_t size)
{
    const struct api_route *r = &req->route;
    bool resource = r->target == API_RESOURCE || r->target == API_REVIEW;
    struct at_access what = {
        .verb = req->verb,
        .group = r->group,
        .resource = resource ? r->resource : "",
        .subresource = r->subresource,
        .ns = r->ns,
        .name = name,
        .path = r->path,
        .node_name = api_node_of(req, r, true),
    };
    return api_may(req->api, &req->who, &what, reason, size);
}

bool api_still_may(struct api_req *req)
{
    return api_still_in(req) && api_still_acts(req) && decide(req, name_asked(req), NULL, 0);
}

bool api_authorize(struct api_req *req)
{
    const struct api_route *r = &req->route;
    const char *name = name_asked(req);
    bool named_by_who = at_streq(r->resource, "nodes") || at_streq(r->resource, "gatewayreports");
    if (named_by_who && r->name[0] == '\0' && at_streq(req->verb, "create")) {
        /* The name of what a machine makes for itself stands in the body. */
        struct at_err err = {0};
        if (api_body_read(req, &err) == AT_OK) {
            name = at_json_str_at(req->body, "metadata.name", "");
        }
    }
    char reason[512];
    if (decide(req, name, reason, sizeof reason)) {
        return true;
    }
    req->refusal = at_arena_strdup(req->arena, reason);
    api_respond_forbidden(req, reason);
    return false;
}

bool api_same_member(const json_t *a, const json_t *b, const char *key)
{
    const json_t *x = json_object_get(a, key);
    const json_t *y = json_object_get(b, key);
    return (x == NULL && y == NULL) || (x != NULL && y != NULL && json_equal(x, y) == 1);
}

/* The finalizers but the agent's own. own: caller decrefs. */
static json_t *finalizers_of_others(const json_t *object)
{
    json_t *rest = json_array();
    size_t i;
    json_t *item;
    json_array_foreach(at_json_at(object, "metadata.finalizers"), i, item)
    {
        if (!at_streq(json_string_value(item), "atoll.dev/agent")) {
            json_array_append(rest, item);
        }
    }
    return rest;
}

/* An agent reports status and takes its finalizer off. One that could edit more could move work to
 * other nodes, reach other Secrets, or draw the requests of another model by a label. */
static enum at_rc agent_changes(const json_t *old, const json_t *object, struct at_err *err)
{
    static const char *const KEPT[] = {"labels", "annotations", "ownerReferences"};
    if (!api_same_member(old, object, "spec")) {
        return at_err_set(err, AT_FORBIDDEN, "an agent may not change spec");
    }
    const json_t *meta_old = json_object_get(old, "metadata");
    const json_t *meta = json_object_get(object, "metadata");
    for (size_t i = 0; i < AT_ARRAY_LEN(KEPT); i++) {
        if (!api_same_member(meta_old, meta, KEPT[i])) {
            return at_err_set(err, AT_FORBIDDEN, "an agent may not change metadata.%s", KEPT[i]);
        }
    }
    AT_CLEANUP(at_cleanup_json) json_t *others_old = finalizers_of_others(old);
    AT_CLEANUP(at_cleanup_json) json_t *others = finalizers_of_others(object);
    return json_equal(others_old, others) == 1
               ? AT_OK
               : at_err_set(err, AT_FORBIDDEN, "an agent may change no finalizer but its own");
}

enum at_rc api_agent_admits(struct api_req *req, const json_t *old, const json_t *object,
                            struct at_err *err)
{
    const char *node = NULL;
    if (!api_is_agent(req, &node)) {
        return AT_OK;
    }
    bool owned =
        at_streq(req->route.resource, "instances") || at_streq(req->route.resource, "nodes");
    if (old != NULL) {
        return owned ? agent_changes(old, object, err) : AT_OK;
    }
    if (!at_streq(req->route.resource, "nodes")) {
        return AT_OK;
    }
    for (size_t i = 0; i < req->who.n_groups; i++) {
        struct at_str group = at_str_of(req->who.groups[i]);
        if (at_str_starts(group, SITE_GROUP_PREFIX) &&
            !at_streq(group.ptr + strlen(SITE_GROUP_PREFIX),
                      at_json_str_at(object, "spec.site", ""))) {
            return at_err_set_field(err, AT_FORBIDDEN, "spec.site",
                                    "this agent joined for another site");
        }
    }
    return AT_OK;
}
