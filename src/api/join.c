/* Joining: a token used once buys a short-lived certificate for the key of a CSR. */
#include "api/api_priv.h"
#include "core/digest.h"
#include "core/mem.h"
#include "core/str.h"

#include <assert.h>
#include <stdio.h>

#define TOKEN_KIND "join"
#define TOKEN_PREFIX "/atoll-internal/join/"
#define SITE_GROUP_PREFIX "atoll:site:"

/* A name that somebody joined under and has no Node yet: kept until the Node is made, or until the
 * certificate has ended. */
#define CLAIM_PREFIX "/atoll-internal/joined/"
#define ANY_REV (-1)

struct join_op {
    const char *name, *csr;
    int64_t token_rev;
    char id[32];
    char digest[AT_SHA256_HEX_BYTES];
    char key[128];
    json_t *record;
    char *certificate;
};

static void op_done(struct join_op *op)
{
    json_decref(op->record);
    op->record = NULL;
    at_free(op->certificate);
    op->certificate = NULL;
}

static bool role_known(const char *role)
{
    return at_streq(role, "agent") || at_streq(role, "gateway");
}

/* RFC 1123 label or subdomain: what may stand in a common name and in a Node's name. */
static bool name_ok(const char *name)
{
    size_t len = name != NULL ? strlen(name) : 0;
    if (len == 0 || len > 200) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        char c = name[i];
        bool alnum = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        bool inner = (c == '-' || c == '.') && i > 0 && i + 1 < len;
        if (!alnum && !inner) {
            return false;
        }
    }
    return true;
}

static enum at_rc sign(struct at_api *api, const char *csr, const char *role, const char *name,
                       const char *site, char **ret, struct at_err *err)
{
    bool agent = at_streq(role, "agent");
    char common_name[256];
    char site_group[128];
    snprintf(common_name, sizeof common_name, "%s%s",
             agent ? "system:node:" : "system:gateway:", name);
    snprintf(site_group, sizeof site_group, SITE_GROUP_PREFIX "%s", site);
    const char *const organizations[] = {agent ? AT_GROUP_NODES : AT_GROUP_GATEWAYS,
                                         site[0] != '\0' ? site_group : NULL, NULL};
    struct at_cert_request request = {.common_name = common_name,
                                      .organizations = organizations,
                                      .client = true,
                                      .server = agent, /* to gateways, for its instances */
                                      .lifetime_s = AT_API_CERT_LIFETIME_S};
    return at_ca_sign_csr(api->options.ca, csr, &request, ret, err);
}

/* --- tokens --- */

static void token_stored(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *current,
                         const struct at_err *err)
{
    (void)rev;
    (void)current;
    struct api_req *req = ctx;
    if (rc != AT_OK) {
        api_respond_error(req, rc, "%s", err != NULL ? err->msg : "the token cannot be stored");
        return;
    }
    json_t *answer = req->object;
    req->object = NULL;
    api_respond_json(req, 201, answer);
}

static enum at_rc tokens_read(struct api_req *req, const char **ret_role, const char **ret_site,
                              int64_t *ret_ttl_ns, struct at_err *err)
{
    enum at_rc rc = api_body_read(req, err);
    if (rc != AT_OK) {
        return rc;
    }
    *ret_role = at_json_str_at(req->body, "role", "");
    *ret_site = at_json_str_at(req->body, "site", "");
    const char *ttl = at_json_str_at(req->body, "ttl", "");
    *ret_ttl_ns = AT_API_JOIN_TTL_NS_DEFAULT;
    if (!role_known(*ret_role)) {
        return at_err_set_field(err, AT_BAD_REQUEST, "role", "must be agent or gateway");
    }
    if ((*ret_site)[0] != '\0' && (!name_ok(*ret_site) || strlen(*ret_site) > 100)) {
        return at_err_set_field(err, AT_BAD_REQUEST, "site", "not the name of a Site");
    }
    const char *node = at_json_str_at(req->body, "node", "");
    if (node[0] != '\0' && (!name_ok(node) || !at_streq(*ret_role, "agent"))) {
        return at_err_set_field(err, AT_BAD_REQUEST, "node",
                                "must be the name of the one node that may join, of an agent");
    }
    if ((*ret_site)[0] == '\0' && at_streq(*ret_role, "agent")) {
        return at_err_set_field(err, AT_BAD_REQUEST, "site", "an agent's token needs a site");
    }
    if (ttl[0] != '\0' && at_duration_ns(ttl, ret_ttl_ns, err) != AT_OK) {
        return at_err_set_field(err, AT_BAD_REQUEST, "ttl", "not a duration such as 1h");
    }
    if (*ret_ttl_ns <= 0 || *ret_ttl_ns > AT_API_JOIN_TTL_NS_MAX) {
        return at_err_set_field(err, AT_BAD_REQUEST, "ttl", "must be more than 0 and at most 720h");
    }
    return AT_OK;
}

/* Records stay for a while after they expire, so that a late joiner is told why it is refused. The
 * store deletes them, and counts by a clock that nobody steps: a token lives no longer than it was
 * given, whatever the wall clock shows. */
static void token_put(struct api_req *req, const char *key, int64_t ttl_ns, int64_t expect,
                      at_store_write_fn *fn)
{
    at_store_write(
        req->api->options.store,
        &(struct at_store_write){.key = key,
                                 .value = req->text.data,
                                 .len = req->text.len,
                                 .expect = expect,
                                 .ttl_s = (uint32_t)((ttl_ns + AT_API_JOIN_KEEP_NS) / AT_NS_PER_S),
                                 .fn = fn,
                                 .ctx = req});
}

static bool token_expired(struct api_req *req, const struct join_op *op)
{
    return at_json_int_at(op->record, "expiresWallNs", 0) <= at_sys_wall_ns(req->api->sys) ||
           at_store_ttl_left_ns(req->api->options.store, op->key) <= AT_API_JOIN_KEEP_NS;
}

void api_join_tokens(struct api_req *req)
{
    struct at_err err = {0};
    const char *role = NULL;
    const char *site = NULL;
    int64_t ttl_ns = 0;
    if (tokens_read(req, &role, &site, &ttl_ns, &err) != AT_OK) {
        api_respond_err(req, &err);
        return;
    }
    struct at_api *api = req->api;
    struct at_token token;
    at_token_new(api->sys, TOKEN_KIND, &token);
    int64_t expires_ns = at_sys_wall_ns(api->sys) + ttl_ns;
    char expires[AT_UNITS_TEXT_BYTES_MAX];
    at_time_format(expires_ns, expires);
    AT_CLEANUP(at_cleanup_json)
    json_t *record =
        json_pack("{s:s, s:s, s:s, s:s, s:I, s:b}", "digest", token.secret_sha256_hex, "role", role,
                  "site", site, "node", at_json_str_at(req->body, "node", ""), "expiresWallNs",
                  (json_int_t)expires_ns, "used", 0);
    req->object = json_pack("{s:s, s:s+, s:s}", "token", token.text, "caPin", "sha256:", api->pin,
                            "expires", expires);
    explicit_bzero(&token.text, sizeof token.text);
    char key[128];
    snprintf(key, sizeof key, TOKEN_PREFIX "%s", token.id);
    if (at_json_dump(record, &req->text) != AT_OK) {
        api_respond_error(req, AT_INTERNAL, "the token cannot be written");
        return;
    }
    token_put(req, key, ttl_ns, 0, token_stored);
}

/* --- join --- */

static void refuse(struct api_req *req, const char *sentence)
{
    api_guess_failed(req);
    op_done(req->op);
    api_respond_error(req, AT_UNAUTHENTICATED, "%s", sentence);
}

static void join_fail(struct api_req *req, const struct at_err *err)
{
    op_done(req->op);
    api_respond_err(req, err);
}

static void join_answer(struct api_req *req)
{
    struct join_op *op = req->op;
    json_t *answer =
        json_pack("{s:s, s:s, s:s, s:s, s:o}", "certificate", op->certificate, "ca",
                  req->api->trust_pem, "name", op->name, "site",
                  at_json_str_at(op->record, "site", ""), "servers", api_servers_json(req->api));
    op_done(op);
    api_respond_json(req, 200, answer);
}

static bool is_agent(const struct join_op *op)
{
    return at_streq(at_json_str_at(op->record, "role", ""), "agent");
}

static void claim_key(const char *name, char out[AT_STORE_KEY_BYTES_MAX])
{
    snprintf(out, AT_STORE_KEY_BYTES_MAX, CLAIM_PREFIX "%s", name);
}

static void claimed(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *current,
                    const struct at_err *err)
{
    (void)rev;
    (void)current;
    struct api_req *req = ctx;
    if (rc == AT_OK) {
        join_answer(req);
        return;
    }
    op_done(req->op);
    if (rc == AT_CONFLICT || rc == AT_EXISTS) {
        api_respond_error(req, AT_CONFLICT, "another machine joined under this name just now");
    } else {
        api_respond_error(req, rc, "%s", err != NULL ? err->msg : "the name cannot be stored");
    }
}

/* The name is this machine's from now on. */
static void token_consumed(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *current,
                           const struct at_err *err)
{
    (void)rev;
    (void)current;
    struct api_req *req = ctx;
    struct join_op *op = req->op;
    if (rc == AT_CONFLICT || rc == AT_NOT_FOUND) {
        refuse(req, "this join token was used already");
        return;
    }
    if (rc != AT_OK) {
        op_done(op);
        api_respond_error(req, rc, "%s", err != NULL ? err->msg : "the token cannot be stored");
        return;
    }
    if (!is_agent(op)) {
        join_answer(req);
        return;
    }
    char key[AT_STORE_KEY_BYTES_MAX];
    bool approved = at_json_str_at(op->record, "node", "")[0] != '\0';
    claim_key(op->name, key);
    at_store_write(req->api->options.store,
                   &(struct at_store_write){.key = key,
                                            .value = op->id,
                                            .len = strlen(op->id),
                                            .expect = approved ? ANY_REV : 0,
                                            .ttl_s = AT_API_CERT_LIFETIME_S,
                                            .fn = claimed,
                                            .ctx = req});
}

static void nothing(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *current,
                    const struct at_err *err)
{
    (void)ctx;
    (void)rc; /* it is not there, or ends by itself */
    (void)rev;
    (void)current;
    (void)err;
}

void api_join_node_made(struct at_api *api, const char *name)
{
    char key[AT_STORE_KEY_BYTES_MAX];
    claim_key(name, key);
    at_store_delete(api->options.store, key, ANY_REV, nothing, NULL);
}

/* The token is spent last: what is wrong before costs none. */
static void consume(struct api_req *req)
{
    struct join_op *op = req->op;
    struct at_err err = {0};
    const char *role = at_json_str_at(op->record, "role", "");
    const char *site = at_json_str_at(op->record, "site", "");
    if (sign(req->api, op->csr, role, op->name, site, &op->certificate, &err) != AT_OK) {
        join_fail(req, &err);
        return;
    }
    json_object_set_new(op->record, "used", json_true());
    json_object_set_new(op->record, "usedBy", json_string(op->name));
    if (at_json_dump(op->record, &req->text) != AT_OK) {
        at_err_set(&err, AT_INTERNAL, "the token cannot be written");
        join_fail(req, &err);
        return;
    }
    token_put(req, op->key, 0, op->token_rev, token_consumed);
}

/* A name that is there is given again only by who says so: by a token for it, or by deleting the
 * Node. A token of another site has no say in it at all. */
static bool name_free(struct api_req *req, bool is_claimed)
{
    struct join_op *op = req->op;
    struct at_err err = {0};
    AT_CLEANUP(at_cleanup_json)
    json_t *node = req->api->options.state != NULL
                       ? at_state_object(req->api->options.state, &AT_KIND_NODE, NULL, op->name)
                       : NULL;
    bool other_site = node != NULL && !at_streq(at_json_str_at(node, "spec.site", ""),
                                                at_json_str_at(op->record, "site", ""));
    bool approved = at_streq(at_json_str_at(op->record, "node", ""), op->name);
    if (other_site) {
        at_err_set(&err, AT_CONFLICT, "a node named \"%s\" belongs to another site", op->name);
    } else if ((node != NULL || is_claimed) && !approved) {
        at_err_set(&err, AT_CONFLICT,
                   "a machine named \"%s\" has joined already: to let another one take its place, "
                   "delete the node (atoll delete node %s), or make a token for this name (atoll "
                   "token create --node %s)",
                   op->name, op->name, op->name);
    } else {
        return true;
    }
    join_fail(req, &err);
    return false;
}

static void claim_looked_up(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *kvs,
                            size_t n, bool more, const struct at_err *store_err)
{
    (void)rev;
    (void)kvs;
    (void)more;
    struct api_req *req = ctx;
    if (rc != AT_OK) {
        op_done(req->op);
        api_respond_error(req, rc, "%s",
                          store_err != NULL ? store_err->msg : "the store cannot be read");
        return;
    }
    if (name_free(req, n > 0)) {
        consume(req);
    }
}

static void token_found(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *kvs,
                        size_t n, bool more, const struct at_err *store_err)
{
    (void)rev;
    (void)more;
    struct api_req *req = ctx;
    struct join_op *op = req->op;
    struct at_err err = {0};
    if (rc != AT_OK) {
        op_done(op);
        api_respond_error(req, rc, "%s",
                          store_err != NULL ? store_err->msg : "the store cannot be read");
        return;
    }
    if (n == 0 || at_json_parse(kvs[0].value, kvs[0].value_len, &op->record, NULL) != AT_OK) {
        refuse(req, "this join token is unknown");
        return;
    }
    const char *digest = at_json_str_at(op->record, "digest", "");
    if (strlen(digest) != AT_SHA256_HEX_BYTES - 1 ||
        !at_equal_const_time(digest, op->digest, AT_SHA256_HEX_BYTES - 1)) {
        refuse(req, "this join token is unknown");
        return;
    }
    if (at_json_bool_at(op->record, "used", true)) {
        refuse(req, "this join token was used already");
        return;
    }
    if (token_expired(req, op)) {
        refuse(req, "this join token has expired");
        return;
    }
    const char *node = at_json_str_at(op->record, "node", "");
    op->token_rev = kvs[0].mod_rev;
    if (node[0] != '\0' && !at_streq(node, op->name)) {
        at_err_set(&err, AT_FORBIDDEN, "this join token is for a node of another name");
        join_fail(req, &err);
        return;
    }
    if (!is_agent(op)) {
        consume(req);
        return;
    }
    char key[AT_STORE_KEY_BYTES_MAX];
    claim_key(op->name, key);
    at_store_range(req->api->options.store, key, NULL, 1, 0, claim_looked_up, req);
}

void api_join(struct api_req *req)
{
    struct at_err err = {0};
    struct join_op *op = at_arena_alloc(req->arena, sizeof *op);
    assert(op != NULL);
    req->op = op;
    if (!api_guess_admits(req)) {
        return;
    }
    if (api_body_read(req, &err) != AT_OK) {
        api_respond_err(req, &err);
        return;
    }
    const char *token = at_json_str_at(req->body, "token", NULL);
    op->csr = at_json_str_at(req->body, "csr", NULL);
    op->name = at_json_str_at(req->body, "name", NULL);
    if (token == NULL || op->csr == NULL) {
        api_respond_error(req, AT_BAD_REQUEST, "the body needs token, csr and name");
        return;
    }
    if (!name_ok(op->name)) {
        api_respond_error(req, AT_BAD_REQUEST,
                          "name: lower-case letters, digits, '-' and '.' only, at most 200");
        return;
    }
    if (at_token_parse(token, TOKEN_KIND, op->id, op->digest, &err) != AT_OK) {
        refuse(req, "this join token is unknown");
        return;
    }
    snprintf(op->key, sizeof op->key, TOKEN_PREFIX "%s", op->id);
    at_store_range(req->api->options.store, op->key, NULL, 1, 0, token_found, req);
}

/* --- renew --- */

void api_join_renew(struct api_req *req)
{
    static const char NODE[] = "system:node:";
    static const char GATEWAY[] = "system:gateway:";
    struct at_err err = {0};
    const char *user = req->who.user;
    bool node = strncmp(user, NODE, sizeof NODE - 1) == 0;
    if (!req->by_certificate || (!node && strncmp(user, GATEWAY, sizeof GATEWAY - 1) != 0)) {
        api_respond_forbidden(req, "only the holder of an agent's or gateway's certificate renews");
        return;
    }
    if (api_body_read(req, &err) != AT_OK) {
        api_respond_err(req, &err);
        return;
    }
    const char *csr = at_json_str_at(req->body, "csr", NULL);
    if (csr == NULL) {
        api_respond_error(req, AT_BAD_REQUEST, "the body needs csr");
        return;
    }
    const char *site = "";
    for (size_t i = 0; i < req->who.n_groups; i++) {
        if (strncmp(req->who.groups[i], SITE_GROUP_PREFIX, sizeof SITE_GROUP_PREFIX - 1) == 0) {
            site = req->who.groups[i] + sizeof SITE_GROUP_PREFIX - 1;
        }
    }
    char *certificate = NULL;
    const char *name = user + (node ? sizeof NODE : sizeof GATEWAY) - 1;
    if (sign(req->api, csr, node ? "agent" : "gateway", name, site, &certificate, &err) != AT_OK) {
        api_respond_err(req, &err);
        return;
    }
    json_t *answer = json_pack("{s:s, s:s, s:o}", "certificate", certificate, "ca",
                               req->api->trust_pem, "servers", api_servers_json(req->api));
    at_free(certificate);
    api_respond_json(req, 200, answer);
}
