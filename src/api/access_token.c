/* Bearer tokens of people and programs: made here and shown once; what is kept is an object with a
 * digest, which is deleted to end the token. */
#include "api/entry.h"
#include "core/mem.h"
#include "core/str.h"

#include <assert.h>
#include <stdio.h>

#define TOKEN_KIND "access"

struct token_op {
    const char *user, *description;
    const json_t *groups; /* of the body */
    int64_t ttl_ns;
    json_t *answer;
};

static bool refuse(struct api_req *req, const char *field, const char *message)
{
    struct at_err err = {0};
    at_err_set_field(&err, AT_BAD_REQUEST, field, "%s", message);
    api_respond_err(req, &err);
    return false;
}

/* False: answered. */
static bool groups_read(struct api_req *req, const json_t *groups)
{
    size_t i;
    const json_t *group;
    if (groups != NULL && !json_is_array(groups)) {
        return refuse(req, "groups", "must be a list of names");
    }
    json_array_foreach(groups, i, group)
    {
        size_t len = json_string_length(group);
        if (!json_is_string(group) || len == 0 || len > AT_API_TOKEN_GROUP_BYTES_MAX ||
            i >= AT_API_TOKEN_GROUPS_MAX) {
            return refuse(req, "groups", "must be at most 15 names of 1 to 127 bytes");
        }
    }
    return true;
}

/* False: answered. */
static bool body_take(struct api_req *req, struct token_op *op)
{
    struct at_err err = {0};
    if (api_body_read(req, &err) != AT_OK) {
        api_respond_err(req, &err);
        return false;
    }
    const char *ttl = at_json_str_at(req->body, "ttl", "");
    op->user = at_json_str_at(req->body, "user", "");
    op->description = at_json_str_at(req->body, "description", "");
    op->groups = json_object_get(req->body, "groups");
    op->ttl_ns = AT_API_TOKEN_TTL_NS_DEFAULT;
    if (op->user[0] == '\0' || strlen(op->user) > AT_API_TOKEN_USER_BYTES_MAX ||
        at_str_starts(at_str_of(op->user), "system:")) {
        return refuse(req, "user",
                      "must be a name of at most 253 bytes that does not begin with system:");
    }
    if (ttl[0] != '\0' && at_duration_ns(ttl, &op->ttl_ns, &err) != AT_OK) {
        return refuse(req, "ttl", "not a duration such as 720h");
    }
    if (op->ttl_ns <= 0 || op->ttl_ns > AT_API_TOKEN_TTL_NS_MAX) {
        return refuse(req, "ttl", "must be more than 0 and at most 8760h");
    }
    if (strlen(op->description) > AT_API_TOKEN_DESCRIPTION_BYTES_MAX) {
        return refuse(req, "description", "must be at most 1000 bytes");
    }
    return groups_read(req, op->groups);
}

static bool may_impersonate(struct api_req *req, const char *resource, const char *name)
{
    struct at_access what = {
        .verb = "impersonate", .group = "", .resource = resource, .ns = "", .name = name};
    char reason[512];
    if (api_may(req->api, &req->who, &what, reason, sizeof reason)) {
        return true;
    }
    const char *text = at_arena_printf(
        req->arena, "a token acts as its user: %s (the right to impersonate is needed)", reason);
    req->refusal = text;
    api_respond_forbidden(req, text != NULL ? text : reason);
    return false;
}

/* Nobody makes a token for who he may not be. False: answered. */
static bool may_give(struct api_req *req, const struct token_op *op)
{
    size_t i;
    const json_t *group;
    if (!may_impersonate(req, "users", op->user)) {
        return false;
    }
    json_array_foreach(op->groups, i, group)
    {
        if (!may_impersonate(req, "groups", json_string_value(group))) {
            return false;
        }
    }
    return true;
}

static void stored(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *current,
                   const struct at_err *err)
{
    (void)rev;
    (void)current;
    struct api_req *req = ctx;
    struct token_op *op = req->op;
    json_t *answer = op->answer;
    if (rc != AT_OK) {
        json_decref(answer);
        api_respond_error(req, rc, "%s", err != NULL ? err->msg : "the token cannot be stored");
        return;
    }
    api_respond_json(req, 201, answer);
}

static enum at_rc object_make(struct api_req *req, const struct token_op *op,
                              const struct at_token *token, const char *expires, struct at_err *err)
{
    char uid[AT_OBJECT_UID_BYTES];
    const struct at_sys *sys = req->api->sys;
    req->object = json_pack("{s:{s:s}, s:{s:s, s:s, s:s, s:s}}", "metadata", "name", token->id,
                            "spec", "user", op->user, "expires", expires, "secretSha256",
                            token->secret_sha256_hex, "madeBy", req->who.user);
    if (req->object == NULL) {
        return at_err_set(err, AT_BAD_REQUEST, "a name is no UTF-8");
    }
    json_t *spec = json_object_get(req->object, "spec");
    if (json_array_size(op->groups) > 0) {
        json_object_set_new(spec, "groups", json_copy((json_t *)op->groups));
    }
    if (op->description[0] != '\0') {
        json_object_set_new(spec, "description", json_string(op->description));
    }
    at_object_uid(sys, uid);
    at_object_stamp_create(&AT_KIND_ACCESS_TOKEN, req->object, NULL, uid, at_sys_wall_ns(sys),
                           AT_OBJECT_MAIN);
    return at_object_encode(req->object, &req->text, err);
}

void api_access_token_make(struct api_req *req)
{
    struct at_err err = {0};
    struct token_op *op = at_arena_alloc(req->arena, sizeof *op);
    assert(op != NULL);
    req->op = op;
    if (!body_take(req, op) || !may_give(req, op)) {
        return;
    }
    struct at_token token;
    char expires[AT_UNITS_TEXT_BYTES_MAX];
    char key[AT_STORE_KEY_BYTES_MAX];
    at_token_new(req->api->sys, TOKEN_KIND, &token);
    at_time_format(at_sys_wall_ns(req->api->sys) + op->ttl_ns, expires);
    enum at_rc rc = object_make(req, op, &token, expires, &err);
    if (rc != AT_OK) {
        explicit_bzero(&token.text, sizeof token.text);
        api_respond_err(req, &err);
        return;
    }
    op->answer = json_pack("{s:s, s:s, s:s, s:s}", "token", token.text, "name", token.id, "user",
                           op->user, "expires", expires);
    explicit_bzero(&token.text, sizeof token.text);
    at_state_key(&AT_KIND_ACCESS_TOKEN, NULL, token.id, key, sizeof key);
    /* It goes by itself a while after it has ended. */
    at_store_write(req->api->options.store,
                   &(struct at_store_write){
                       .key = key,
                       .value = req->text.data,
                       .len = req->text.len,
                       .ttl_s = (uint32_t)((op->ttl_ns + AT_API_JOIN_KEEP_NS) / AT_NS_PER_S),
                       .fn = stored,
                       .ctx = req});
}

/* Whoever could write one could be anybody. False: answered. */
bool api_access_token_admits(struct api_req *req)
{
    if (req->route.kind != &AT_KIND_ACCESS_TOKEN) {
        return true;
    }
    req->refusal = "access tokens are made by POST /admin/v1/tokens (atoll token create --user "
                   "NAME) and never changed: delete one, and make another";
    api_respond_forbidden(req, req->refusal);
    return false;
}
