/* What may I do, and who am I: kubectl auth can-i, auth can-i --list, auth whoami. */
#include "api/api_priv.h"
#include "api/service_token.h"
#include "core/str.h"

#include <stdio.h>
#include <string.h>

static const char *text_at(const json_t *root, const char *path)
{
    return at_json_str_at(root, path, "");
}

/* Kubernetes' verbs for paths are HTTP methods. */
static const char *verb_of(const char *verb)
{
    static const char *const OTHER[][2] = {{"post", "create"}, {"put", "update"}, {"head", "get"}};
    for (size_t i = 0; i < sizeof OTHER / sizeof OTHER[0]; i++) {
        if (at_streq(verb, OTHER[i][0])) {
            return OTHER[i][1];
        }
    }
    return verb;
}

static void copy(char *out, size_t size, const char *text)
{
    snprintf(out, size, "%s", text);
}

static bool resource_allowed(struct api_req *req, const json_t *a, char *reason, size_t size)
{
    struct api_route route = {.target = API_RESOURCE};
    copy(route.group, sizeof route.group, text_at(a, "group"));
    copy(route.resource, sizeof route.resource, text_at(a, "resource"));
    copy(route.subresource, sizeof route.subresource, text_at(a, "subresource"));
    copy(route.ns, sizeof route.ns, text_at(a, "namespace"));
    copy(route.name, sizeof route.name, text_at(a, "name"));
    route.kind = at_model_kind_by_plural(route.group, "v1", route.resource);
    struct at_access what = {.verb = verb_of(text_at(a, "verb")),
                             .group = route.group,
                             .resource = route.resource,
                             .subresource = route.subresource,
                             .ns = route.ns,
                             .name = route.name,
                             .node_name = api_node_of(req, &route, false)};
    return api_may(req->api, &req->who, &what, reason, size);
}

/* The person that a SubjectAccessReview asks about. */
static void subject_of(const json_t *spec, struct at_identity *ret)
{
    memset(ret, 0, sizeof *ret);
    copy(ret->user, sizeof ret->user, text_at(spec, "user"));
    size_t i;
    json_t *group;
    json_array_foreach(json_object_get(spec, "groups"), i, group)
    {
        if (ret->n_groups < AT_IDENTITY_GROUPS_MAX && json_is_string(group)) {
            copy(ret->groups[ret->n_groups], sizeof ret->groups[0], json_string_value(group));
            ret->n_groups++;
        }
    }
}

/* 422, as of an object of the review's kind. */
static void respond_cause(struct api_req *req, const char *kind, const char *field,
                          const char *message)
{
    json_t *details =
        json_pack("{s:s, s:s, s:[{s:s, s:s, s:s}]}", "group", req->route.group, "kind", kind,
                  "causes", "reason", "FieldValueInvalid", "message", message, "field", field);
    const char *text = at_arena_printf(req->arena, "%s.%s \"\" is invalid: %s: %s", kind,
                                       req->route.group, field, message);
    api_respond_json(req, 422, api_status(false, "Invalid", 422, text, details));
}

static void access_review(struct api_req *req, const char *kind)
{
    const json_t *resource = at_json_at(req->body, "spec.resourceAttributes");
    const json_t *path = at_json_at(req->body, "spec.nonResourceAttributes");
    if (json_is_object(resource) && json_is_object(path)) {
        respond_cause(req, kind, "spec.nonResourceAttributes",
                      "Invalid value: cannot be specified in combination with resourceAttributes");
        return;
    }
    char reason[512] = "";
    bool allowed = false;
    if (json_is_object(resource)) {
        allowed = resource_allowed(req, resource, reason, sizeof reason);
    } else if (json_is_object(path)) {
        struct at_access what = {.verb = verb_of(text_at(path, "verb")),
                                 .group = "",
                                 .resource = "",
                                 .subresource = "",
                                 .ns = "",
                                 .name = "",
                                 .path = text_at(path, "path")};
        allowed = api_may(req->api, &req->who, &what, reason, sizeof reason);
    } else {
        respond_cause(req, kind, "spec.resourceAttributes",
                      "Invalid value: \"null\": exactly one of nonResourceAttributes or "
                      "resourceAttributes must be specified");
        return;
    }
    json_t *status = json_pack("{s:b}", "allowed", (int)allowed);
    if (reason[0] != '\0') {
        json_object_set_new(status, "reason", json_string(reason));
    }
    api_respond_json(req, 201,
                     json_pack("{s:s, s:s, s:{}, s:O, s:o}", "kind", kind, "apiVersion",
                               "authorization.k8s.io/v1", "metadata", "spec",
                               json_object_get(req->body, "spec"), "status", status));
}

static void others_review(struct api_req *req, const char *kind)
{
    const json_t *spec = json_object_get(req->body, "spec");
    if (text_at(spec, "user")[0] == '\0' && json_array_size(json_object_get(spec, "groups")) == 0) {
        respond_cause(req, kind, "spec.user",
                      "Invalid value: \"\": at least one of user or group must be specified");
        return;
    }
    subject_of(spec, &req->who);
    access_review(req, kind);
}

/* Like a SubjectAccessReview, but only of the namespace in whose path it is asked. */
static void local_review(struct api_req *req)
{
    const json_t *attributes = at_json_at(req->body, "spec.resourceAttributes");
    if (json_is_object(attributes) && !at_streq(text_at(attributes, "namespace"), req->route.ns)) {
        respond_cause(req, "LocalSubjectAccessReview", "spec.resourceAttributes.namespace",
                      "Invalid value: must match metadata.namespace");
        return;
    }
    if (at_json_at(req->body, "spec.nonResourceAttributes") != NULL) {
        respond_cause(req, "LocalSubjectAccessReview", "spec.nonResourceAttributes",
                      "Invalid value: disallowed on this kind of request");
        return;
    }
    others_review(req, "LocalSubjectAccessReview");
}

static void rules_review(struct api_req *req)
{
    json_t *resources = json_array();
    json_t *paths = json_array();
    json_t *rules = at_book_rules(req->api->book, &req->who, text_at(req->body, "spec.namespace"));
    size_t i;
    json_t *rule;
    json_array_foreach(rules, i, rule)
    {
        bool is_path = json_object_get(rule, "nonResourceURLs") != NULL;
        json_array_append(is_path ? paths : resources, rule);
    }
    json_decref(rules);
    json_t *spec = json_object_get(req->body, "spec");
    spec = spec != NULL ? json_incref(spec) : json_object();
    api_respond_json(req, 201,
                     json_pack("{s:s, s:s, s:{}, s:o, s:{s:o, s:o, s:b}}", "kind",
                               "SelfSubjectRulesReview", "apiVersion", "authorization.k8s.io/v1",
                               "metadata", "spec", spec, "status", "resourceRules", resources,
                               "nonResourceRules", paths, "incomplete", 0));
}

static json_t *groups_of(const struct at_identity *who)
{
    json_t *groups = json_array();
    for (size_t i = 0; i < who->n_groups; i++) {
        json_array_append_new(groups, json_string(who->groups[i]));
    }
    bool named = !at_streq(who->user, AT_USER_ANONYMOUS);
    json_array_append_new(groups,
                          json_string(named ? "system:authenticated" : "system:unauthenticated"));
    return groups;
}

/* Those of the audiences asked about that a token is for; none asked: all of its own. */
static json_t *audiences_meant(const json_t *claims, const json_t *asked)
{
    json_t *own = json_object_get(claims, "aud");
    if (json_array_size(asked) == 0) {
        return json_incref(own);
    }
    json_t *both = json_array();
    size_t i;
    json_t *item;
    json_array_foreach((json_t *)asked, i, item)
    {
        size_t k;
        json_t *mine;
        json_array_foreach(own, k, mine)
        {
            if (json_equal(item, mine)) {
                json_array_append(both, item);
            }
        }
    }
    return both;
}

static void token_review(struct api_req *req)
{
    struct at_identity who = {0};
    const char *token = text_at(req->body, "spec.token");
    if (token[0] == '\0') {
        api_respond_error(req, AT_BAD_REQUEST,
                          "token is required for TokenReview in authentication");
        return;
    }
    const json_t *audiences = at_json_at(req->body, "spec.audiences");
    json_t *claims = api_service_claims(req->api, at_str_of(token), audiences);
    if (claims != NULL) {
        api_service_identity(claims, &who);
    }
    int64_t expires_ns = 0;
    bool known = claims != NULL || api_token_identity(req->api, at_str_of(token), &who) ||
                 api_oidc_check(req->api, at_str_of(token), &who, &expires_ns, NULL) == AT_OK;
    json_t *status = json_pack("{s:b}", "authenticated", (int)known);
    if (known) {
        json_object_set_new(
            status, "user",
            json_pack("{s:s, s:o}", "username", who.user, "groups", groups_of(&who)));
    }
    if (claims != NULL) {
        const json_t *uid =
            at_json_at(json_object_get(claims, "kubernetes.io"), "serviceaccount.uid");
        json_object_set(json_object_get(status, "user"), "uid", (json_t *)uid);
        json_object_set_new(status, "audiences", audiences_meant(claims, audiences));
        json_decref(claims);
    } else if (!known) {
        json_object_set_new(status, "error", json_string("the token is not known"));
    }
    /* The token is not said again. */
    api_respond_json(req, 201,
                     json_pack("{s:s, s:s, s:{}, s:{}, s:o}", "kind", "TokenReview", "apiVersion",
                               "authentication.k8s.io/v1", "metadata", "spec", "status", status));
}

static void subject_review(struct api_req *req)
{
    json_t *user =
        json_pack("{s:s, s:o}", "username", req->who.user, "groups", groups_of(&req->who));
    if (req->as != NULL) {
        json_object_update(user, req->as); /* uid, extra */
    }
    api_respond_json(req, 201,
                     json_pack("{s:s, s:s, s:{}, s:{s:o}}", "kind", "SelfSubjectReview",
                               "apiVersion", "authentication.k8s.io/v1", "metadata", "status",
                               "userInfo", user));
}

void api_review(struct api_req *req)
{
    struct at_err err = {0};
    if (api_body_read(req, &err) != AT_OK) {
        api_respond_err(req, &err);
        return;
    }
    if (at_streq(req->route.resource, "selfsubjectaccessreviews")) {
        access_review(req, "SelfSubjectAccessReview");
    } else if (at_streq(req->route.resource, "subjectaccessreviews")) {
        others_review(req, "SubjectAccessReview");
    } else if (at_streq(req->route.resource, "localsubjectaccessreviews")) {
        local_review(req);
    } else if (at_streq(req->route.resource, "tokenreviews")) {
        token_review(req);
    } else if (at_streq(req->route.resource, "selfsubjectrulesreviews")) {
        rules_review(req);
    } else {
        subject_review(req);
    }
}
