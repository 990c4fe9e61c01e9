/* Rights that are stored: the book of roles and bindings kept up to date, decisions by it, and what
 * nobody may give who has not got it. */
#include "api/api_priv.h"
#include "core/mem.h"
#include "core/str.h"
#include "security/builtin_roles.h"

#include <assert.h>
#include <stdio.h>

#define RBAC "rbac.authorization.k8s.io"
static const char *const KINDS[] = {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"};

static bool is_rbac(const struct at_model_kind *kind)
{
    return at_streq(kind->group, RBAC);
}

static void changed(void *ctx, const struct at_model_kind *kind, const char *ns, const char *name)
{
    struct at_api *api = ctx;
    if (!is_rbac(kind)) {
        return;
    }
    AT_CLEANUP(at_cleanup_json)
    json_t *object = at_state_object(api->options.state, kind, ns, name);
    at_book_put(api->book, kind->kind, ns, name, object);
    api_recheck_soon(api);
}

struct filling {
    struct at_api *api;
    const struct at_model_kind *kind;
};

static void fill(void *ctx, const char *ns, const char *name, const json_t *object)
{
    struct filling *f = ctx;
    at_book_put(f->api->book, f->kind->kind, ns, name, object);
}

/* --- built-in roles --- */

static bool put_back(void *ctx, json_t *object)
{
    const json_t *wanted = ctx;
    static const char *const PARTS[] = {"aggregationRule", "rules"};
    /* Rules of an aggregated one are written by a controller. */
    size_t n = json_object_get(wanted, PARTS[0]) != NULL ? 1 : AT_ARRAY_LEN(PARTS);
    for (size_t i = 0; i < n; i++) {
        json_t *part = json_object_get(wanted, PARTS[i]);
        if (part != NULL) {
            json_object_set_new(object, PARTS[i], json_deep_copy(part));
        } else {
            json_object_del(object, PARTS[i]);
        }
    }
    return true;
}

static void builtin_make(struct at_api *api, json_t *wanted)
{
    const struct at_model_kind *kind = at_model_kind_find(RBAC, "v1", "ClusterRole");
    const char *name = at_object_name(wanted);
    AT_CLEANUP(at_cleanup_json)
    json_t *have = at_state_object(api->options.state, kind, NULL, name);
    assert(kind != NULL);
    if (have == NULL) {
        at_state_create(api->options.state, kind, json_deep_copy(wanted), NULL, NULL);
        return;
    }
    /* Whoever wants a built-in role to stay as it is says so, as in Kubernetes. */
    if (at_streq(json_string_value(
                     json_object_get(at_json_at(have, "metadata.annotations"), RBAC "/autoupdate")),
                 "false")) {
        return;
    }
    at_state_update(api->options.state, kind, NULL, name, put_back, wanted, NULL, NULL);
}

void api_rights_begin(struct at_api *api)
{
    api->book = at_book_new();
    if (api->options.state == NULL) {
        return;
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(KINDS); i++) {
        struct filling f = {api, at_model_kind_find(RBAC, "v1", KINDS[i])};
        assert(f.kind != NULL);
        at_state_each(api->options.state, f.kind, NULL, fill, &f);
    }
    at_state_listen(api->options.state, changed, api);
    AT_CLEANUP(at_cleanup_json) json_t *roles = at_builtin_roles();
    size_t i;
    json_t *role;
    json_array_foreach(roles, i, role)
    {
        builtin_make(api, role);
    }
}

void api_rights_done(struct at_api *api)
{
    if (api->options.state != NULL) {
        at_state_unlisten(api->options.state, changed, api);
    }
    at_book_free(api->book);
    api->book = NULL;
}

/* --- decisions --- */

bool api_may(const struct at_api *api, const struct at_identity *who, const struct at_access *what,
             char *reason, size_t size)
{
    struct at_access mapped = *what;
    api_access_map(&mapped);
    if (at_book_allowed(api->book, who, &mapped, reason, size)) {
        return true;
    }
    /* A role may name Pods, as those of Kubernetes do, or Instances. */
    bool pods = what->group[0] == '\0' && at_streq(what->resource, "pods");
    return pods && at_book_allowed(api->book, who, what, NULL, 0);
}

static bool refuse(struct api_req *req, const char *fmt, ...)
{
    char text[700];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    req->refusal = at_arena_strdup(req->arena, text);
    api_respond_forbidden(req, text);
    return false;
}

static bool has_verb(struct api_req *req, const char *verb, const char *resource, const char *ns,
                     const char *name)
{
    struct at_access what = {
        .verb = verb, .group = RBAC, .resource = resource, .ns = ns, .name = name};
    return at_book_allowed(req->api->book, &req->who, &what, NULL, 0);
}

/* What picks a role into another one is as good as its rules. */
static bool role_admits(struct api_req *req, const json_t *old, const json_t *object)
{
    static const char ALL[] = "[{\"verbs\":[\"*\"],\"apiGroups\":[\"*\"],\"resources\":[\"*\"]},"
                              "{\"verbs\":[\"*\"],\"nonResourceURLs\":[\"*\"]}]";
    const struct api_route *r = &req->route;
    const char *name = at_object_name(object);
    char missing[512] = "";
    bool labels = at_streq(r->resource, "clusterroles") &&
                  !api_same_member(json_object_get(old, "metadata"),
                                   json_object_get(object, "metadata"), "labels");
    if (old != NULL && !labels && api_same_member(old, object, "rules") &&
        api_same_member(old, object, "aggregationRule")) {
        return true;
    }
    if (has_verb(req, "escalate", r->resource, r->ns, name)) {
        return true;
    }
    if (!at_book_covers(req->api->book, &req->who, r->ns, json_object_get(object, "rules"), missing,
                        sizeof missing)) {
        return refuse(req,
                      "user \"%s\" is attempting to grant RBAC permissions not currently held: "
                      "%s",
                      req->who.user, missing);
    }
    if (json_object_get(object, "aggregationRule") == NULL ||
        (old != NULL && api_same_member(old, object, "aggregationRule"))) {
        return true;
    }
    AT_CLEANUP(at_cleanup_json) json_t *all = json_loads(ALL, 0, NULL);
    return at_book_covers(req->api->book, &req->who, "", all, missing, sizeof missing) ||
           refuse(req, "must have cluster-admin privileges to use an aggregationRule: %s", missing);
}

static bool binding_admits(struct api_req *req, const json_t *old, const json_t *object)
{
    const struct api_route *r = &req->route;
    const char *kind = at_json_str_at(object, "roleRef.kind", "");
    const char *name = at_json_str_at(object, "roleRef.name", "");
    char missing[512] = "";
    if (old != NULL && api_same_member(old, object, "roleRef") &&
        api_same_member(old, object, "subjects")) {
        return true;
    }
    const char *resource = at_streq(kind, "ClusterRole") ? "clusterroles" : "roles";
    if (has_verb(req, "bind", resource, r->ns, name)) {
        return true;
    }
    AT_CLEANUP(at_cleanup_json)
    json_t *rules = at_book_role_rules(req->api->book, kind, r->ns, name);
    if (rules == NULL) {
        return refuse(req,
                      "%s \"%s\" is not there, so that nobody can tell what it would give: "
                      "make it first, or have the right to bind it",
                      resource, name);
    }
    return at_book_covers(req->api->book, &req->who, r->ns, rules, missing, sizeof missing) ||
           refuse(req, "user \"%s\" is attempting to grant RBAC permissions not currently held: %s",
                  req->who.user, missing);
}

static bool names(const json_t *list, const json_t *text)
{
    size_t i;
    json_t *one;
    json_array_foreach(list, i, one)
    {
        if (json_equal(one, text)) {
            return true;
        }
    }
    return false;
}

/* A key opens the models of its namespace; others only by who could make a key there as well. */
static bool key_admits(struct api_req *req, const json_t *old, const json_t *object)
{
    const json_t *before = at_json_at(old, "spec.namespaces");
    size_t i;
    json_t *ns;
    json_array_foreach(at_json_at(object, "spec.namespaces"), i, ns)
    {
        const char *text = json_string_value(ns);
        if (text == NULL || names(before, ns) || at_streq(text, req->route.ns)) {
            continue;
        }
        struct at_access what = {.verb = "create",
                                 .group = req->route.group,
                                 .resource = req->route.resource,
                                 .ns = at_streq(text, "*") ? "" : text};
        if (!api_may(req->api, &req->who, &what, NULL, 0)) {
            return refuse(req,
                          "spec.namespaces: user \"%s\" may not make keys in namespace \"%s\", "
                          "so neither a key that opens its models",
                          req->who.user, text);
        }
    }
    return true;
}

/* --- owners: who names one has the server delete, and may hold up a deletion --- */

static bool may_here(struct api_req *req, const char *verb)
{
    const struct api_route *r = &req->route;
    struct at_access what = {
        .verb = verb, .group = r->group, .resource = r->resource, .ns = r->ns, .name = r->name};
    return api_may(req->api, &req->who, &what, NULL, 0);
}

/* What holds up the deletion of an owner changes the owner, as a finalizer there would. */
static bool may_hold(struct api_req *req, const json_t *owner)
{
    const char *version = at_json_str_at(owner, "apiVersion", "");
    const char *slash = strchr(version, '/');
    const char *group =
        slash == NULL ? "" : at_arena_strndup(req->arena, version, (size_t)(slash - version));
    const struct at_model_kind *kind = at_model_kind_find(
        group, slash != NULL ? slash + 1 : version, at_json_str_at(owner, "kind", ""));
    if (kind == NULL) {
        return true; /* of no kind that could be held up */
    }
    const char *finalizers = at_arena_printf(req->arena, "%s/finalizers", kind->plural);
    struct at_access what = {.verb = "update",
                             .group = kind->group,
                             .resource = kind->plural,
                             .ns = kind->namespaced ? req->route.ns : "",
                             .name = at_json_str_at(owner, "name", "")};
    if (api_may(req->api, &req->who, &what, NULL, 0)) {
        return true;
    }
    what.resource = finalizers;
    return finalizers != NULL && api_may(req->api, &req->who, &what, NULL, 0);
}

/* As Kubernetes' OwnerReferencesPermissionEnforcement. */
static bool owners_admit(struct api_req *req, const json_t *old, const json_t *object)
{
    const json_t *before = at_json_at(old, "metadata.ownerReferences");
    const json_t *owners = at_json_at(object, "metadata.ownerReferences");
    size_t i;
    json_t *owner;
    if (old != NULL &&
        !api_same_member(json_object_get(old, "metadata"), json_object_get(object, "metadata"),
                         "ownerReferences") &&
        !may_here(req, "delete")) {
        return refuse(req,
                      "cannot set metadata.ownerReferences without the right to delete it: whoever "
                      "names its owners decides when it is deleted");
    }
    json_array_foreach(owners, i, owner)
    {
        if (json_is_true(json_object_get(owner, "blockOwnerDeletion")) && !names(before, owner) &&
            !may_hold(req, owner)) {
            return refuse(req,
                          "cannot set blockOwnerDeletion: user \"%s\" may not update the owner, "
                          "%.64s %.253s, so neither hold up its deletion",
                          req->who.user, at_json_str_at(owner, "kind", ""),
                          at_json_str_at(owner, "name", ""));
        }
    }
    return true;
}

bool api_rights_admit(struct api_req *req, const json_t *old, const json_t *object)
{
    if (!owners_admit(req, old, object)) {
        return false;
    }
    if (req->route.kind == &AT_KIND_API_KEY) {
        return key_admits(req, old, object);
    }
    if (!is_rbac(req->route.kind)) {
        return true;
    }
    bool role =
        at_streq(req->route.resource, "roles") || at_streq(req->route.resource, "clusterroles");
    return role ? role_admits(req, old, object) : binding_admits(req, old, object);
}
