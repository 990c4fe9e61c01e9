/* Tokens of service accounts: given out by TokenRequest, good while the account, and what a token
 * is bound to, are there. */
#include "api/service_token.h"
#include "api/api_priv.h"
#include "core/mem.h"
#include "core/str.h"
#include "security/jwt.h"

#include <assert.h>
#include <stdio.h>

#define PRIVATE_CLAIMS "kubernetes.io"

static const struct at_model_kind *account_kind(void)
{
    const struct at_model_kind *kind = at_model_kind_find("", "v1", "ServiceAccount");
    assert(kind != NULL);
    return kind;
}

/* What a token may be bound to; Pods are Instances. NULL: nothing of that kind. */
static const struct at_model_kind *bound_kind(const char *kind)
{
    if (at_streq(kind, "Pod")) {
        return at_model_kind_find("atoll.dev", "v1", "Instance");
    }
    return at_streq(kind, "Secret") ? at_model_kind_find("", "v1", "Secret") : NULL;
}

static bool is_there(const struct at_api *api, const struct at_model_kind *kind, const char *ns,
                     const json_t *ref)
{
    const char *name = at_json_str_at(ref, "name", "");
    json_t *object = at_state_object(api->options.state, kind, ns, name);
    bool same = object != NULL && !at_object_deleting(object) &&
                at_streq(at_object_uid_of(object), at_json_str_at(ref, "uid", ""));
    json_decref(object);
    return same;
}

/* --- who sends it --- */

bool api_service_still(const struct at_api *api, const json_t *claims)
{
    const json_t *own = json_object_get(claims, PRIVATE_CLAIMS);
    const char *ns = at_json_str_at(own, "namespace", "");
    if (ns[0] == '\0' ||
        !is_there(api, account_kind(), ns, json_object_get(own, "serviceaccount"))) {
        return false;
    }
    static const char *const KINDS[][2] = {{"pod", "Pod"}, {"secret", "Secret"}};
    for (size_t i = 0; i < AT_ARRAY_LEN(KINDS); i++) {
        const json_t *ref = json_object_get(own, KINDS[i][0]);
        if (ref != NULL && !is_there(api, bound_kind(KINDS[i][1]), ns, ref)) {
            return false;
        }
    }
    return true;
}

json_t *api_service_claims(const struct at_api *api, struct at_str token, const json_t *audiences)
{
    json_t *claims = NULL;
    if (api->service_key == NULL ||
        at_service_token_open(api->service_key, token, at_sys_wall_ns(api->sys), &claims, NULL) !=
            AT_OK) {
        return NULL;
    }
    bool meant = json_array_size(audiences) == 0
                     ? at_jwt_meant_for(claims, at_service_key_issuer(api->service_key))
                     : false;
    size_t i;
    json_t *audience;
    json_array_foreach((json_t *)audiences, i, audience)
    {
        meant = meant ||
                (json_is_string(audience) && at_jwt_meant_for(claims, json_string_value(audience)));
    }
    if (!meant || !api_service_still(api, claims)) {
        json_decref(claims);
        return NULL;
    }
    return claims;
}

void api_service_identity(const json_t *claims, struct at_identity *ret)
{
    const json_t *own = json_object_get(claims, PRIVATE_CLAIMS);
    const char *ns = at_json_str_at(own, "namespace", "");
    const char *name = at_json_str_at(own, "serviceaccount.name", "");
    int n = snprintf(ret->user, sizeof ret->user, "system:serviceaccount:%s:%s", ns, name);
    assert(n > 0);
    assert((size_t)n < sizeof ret->user); /* as long as names of both can be */
    snprintf(ret->groups[0], sizeof ret->groups[0], "system:serviceaccounts");
    snprintf(ret->groups[1], sizeof ret->groups[1], "system:serviceaccounts:%s", ns);
    ret->n_groups = 2;
}

/* --- TokenRequest --- */

/* False: answered. */
static bool shape_read(struct api_req *req)
{
    struct at_err err = {0};
    if (api_body_read(req, &err) != AT_OK) {
        api_respond_err(req, &err);
        return false;
    }
    if (!json_is_object(req->body) ||
        !at_streq(at_json_str_at(req->body, "kind", "TokenRequest"), "TokenRequest") ||
        !at_streq(at_json_str_at(req->body, "apiVersion", "authentication.k8s.io/v1"),
                  "authentication.k8s.io/v1")) {
        api_respond_error(req, AT_BAD_REQUEST,
                          "the body must be a TokenRequest of authentication.k8s.io/v1");
        return false;
    }
    const char *name = at_json_str_at(req->body, "metadata.name", "");
    if (name[0] != '\0' && !at_streq(name, req->route.name)) {
        api_respond_error(req, AT_BAD_REQUEST,
                          "the name of the object (%.253s) does not match the name on the URL (%s)",
                          name, req->route.name);
        return false;
    }
    return true;
}

static void respond_cause(struct api_req *req, const char *reason, const char *field,
                          const char *message)
{
    struct at_model_cause cause = {.reason = reason, .field = field, .message = message};
    api_respond_invalid(req, req->route.name, &cause, 1);
}

/* False: answered. */
static bool seconds_read(struct api_req *req, int64_t *ret)
{
    static const char FIELD[] = "spec.expirationSeconds";
    const json_t *value = at_json_at(req->body, FIELD);
    *ret = AT_API_SERVICE_TOKEN_S_DEFAULT;
    if (value == NULL || json_is_null(value)) {
        return true;
    }
    *ret = json_integer_value(value);
    const char *why = NULL;
    if (!json_is_integer(value)) {
        why = "Invalid value: must be an integer";
    } else if (*ret < AT_API_SERVICE_TOKEN_S_MIN) {
        why = "Invalid value: may not specify a duration less than 10 minutes";
    } else if (*ret > AT_API_SERVICE_TOKEN_S_MAX) {
        why = "Invalid value: may not specify a duration larger than 2^32 seconds";
    }
    if (why != NULL) {
        respond_cause(req, "FieldValueInvalid", FIELD, why);
    }
    return why == NULL;
}

/* The audiences asked for, else the server itself. own: caller; NULL: answered. */
static json_t *audiences_read(struct api_req *req)
{
    json_t *list = at_json_at(req->body, "spec.audiences");
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        if (!json_is_string(item) || i >= AT_API_SERVICE_TOKEN_AUDIENCES_MAX) {
            respond_cause(req, "FieldValueInvalid", "spec.audiences",
                          "Invalid value: must be a short list of strings");
            return NULL;
        }
    }
    return json_array_size(list) > 0
               ? json_deep_copy(list)
               : json_pack("[s]", at_service_key_issuer(req->api->service_key));
}

/* Into the claims, what the token ends with. False: answered. */
static bool bound_read(struct api_req *req, json_t *own)
{
    json_t *ref = at_json_at(req->body, "spec.boundObjectRef");
    if (ref == NULL || json_is_null(ref)) {
        return true;
    }
    const char *word = at_json_str_at(ref, "kind", "");
    const char *name = at_json_str_at(ref, "name", "");
    const char *uid = at_json_str_at(ref, "uid", "");
    const struct at_model_kind *kind = bound_kind(word);
    if (kind == NULL) {
        respond_cause(req, "FieldValueNotSupported", "spec.boundObjectRef.kind",
                      "Unsupported value: supported values: \"Pod\", \"Secret\"");
        return false;
    }
    json_t *object = at_state_object(req->api->options.state, kind, req->route.ns, name);
    const char *have = object != NULL ? at_object_uid_of(object) : NULL;
    json_t *mine = have != NULL ? json_pack("{s:s, s:s}", "name", name, "uid", have) : NULL;
    bool other = have != NULL && uid[0] != '\0' && !at_streq(uid, have);
    json_decref(object);
    if (mine == NULL || other) {
        json_decref(mine);
        const char *why = at_arena_printf(
            req->arena,
            other ? "the UID in the bound object reference (%s) does not match that of the object"
                  : "the bound object \"%s\" does not exist",
            other ? uid : name);
        if (other) {
            api_respond_conflict(req, why);
        } else {
            api_respond_error(req, AT_NOT_FOUND, "%s", why);
        }
        return false;
    }
    json_object_set_new(own, at_streq(word, "Pod") ? "pod" : "secret", mine);
    return true;
}

static void respond_token(struct api_req *req, const json_t *claims, int64_t seconds)
{
    char *token = NULL;
    char until[AT_UNITS_TEXT_BYTES_MAX];
    struct at_err err = {0};
    if (at_service_token_sign(req->api->service_key, (json_t *)claims, &token, &err) != AT_OK) {
        api_respond_err(req, &err);
        return;
    }
    at_time_format(json_integer_value(json_object_get(claims, "exp")) * AT_NS_PER_S, until);
    json_t *spec = json_pack("{s:O, s:I}", "audiences", json_object_get(claims, "aud"),
                             "expirationSeconds", (json_int_t)seconds);
    json_t *ref = at_json_at(req->body, "spec.boundObjectRef");
    if (json_is_object(ref)) {
        json_object_set(spec, "boundObjectRef", ref);
    }
    json_t *answer = json_pack("{s:s, s:s, s:{s:s, s:s}, s:o, s:{s:s, s:s}}", "kind",
                               "TokenRequest", "apiVersion", "authentication.k8s.io/v1", "metadata",
                               "name", req->route.name, "namespace", req->route.ns, "spec", spec,
                               "status", "token", token, "expirationTimestamp", until);
    at_free(token);
    api_respond_json(req, 201, answer);
}

static void give(struct api_req *req, const char *account_uid)
{
    int64_t seconds = 0;
    if (!seconds_read(req, &seconds)) {
        return;
    }
    AT_CLEANUP(at_cleanup_json)
    json_t *own = json_pack("{s:s, s:{s:s, s:s}}", "namespace", req->route.ns, "serviceaccount",
                            "name", req->route.name, "uid", account_uid);
    AT_CLEANUP(at_cleanup_json) json_t *audiences = audiences_read(req);
    if (audiences == NULL || !bound_read(req, own)) {
        return;
    }
    char id[AT_OBJECT_UID_BYTES];
    at_object_uid(req->api->sys, id);
    int64_t now_s = at_sys_wall_ns(req->api->sys) / AT_NS_PER_S;
    const char *sub =
        at_arena_printf(req->arena, "system:serviceaccount:%s:%s", req->route.ns, req->route.name);
    AT_CLEANUP(at_cleanup_json)
    json_t *claims = json_pack("{s:s, s:O, s:I, s:I, s:I, s:s, s:O}", "sub", sub, "aud", audiences,
                               "iat", (json_int_t)now_s, "nbf", (json_int_t)now_s, "exp",
                               (json_int_t)(now_s + seconds), "jti", id, PRIVATE_CLAIMS, own);
    respond_token(req, claims, seconds);
}

void api_token_request(struct api_req *req)
{
    if (!shape_read(req)) {
        return;
    }
    json_t *account =
        at_state_object(req->api->options.state, req->route.kind, req->route.ns, req->route.name);
    if (account == NULL) {
        api_respond_not_found(req);
        return;
    }
    const char *uid = at_arena_strdup(req->arena, at_object_uid_of(account));
    json_decref(account);
    if (req->api->service_key == NULL) {
        api_respond_error(req, AT_NOT_FOUND, "this server gives out no tokens");
        return;
    }
    give(req, uid);
}
