#include "client/join.h"

#include "client/limits.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/str.h"
#include "security/security.h"
#include "sys/file.h"

#include <stdio.h>
#include <string.h>

#define PIN_HEX_DIGITS 64

struct at_join {
    struct at_loop *loop;
    char *server, *role, *name, *token, *ca_pin, *path, *user_agent;
    int64_t renew_min_ns;
    void (*on_ready)(void *ctx, enum at_rc rc, struct at_client *client, const char *site,
                     const struct at_err *err);
    void (*on_identity)(void *ctx, const char *cert_pem, const char *key_pem, const char *ca_pem);
    void *ctx;

    char *cert_pem, *key_pem, *ca_pem, *site;
    char *pending_key_pem;     /* of a join or a renewal under way */
    struct at_client *joining; /* pinned, without a certificate */
    struct at_client *client;  /* with it */
    unsigned tries;
    at_timer_id timer;
    int64_t renew_mono_ns, renew_wall_ns; /* whichever comes first */
    json_t *servers;                      /* URLs that were learned; NULL: none yet */
    int64_t servers_ns;
    at_timer_id servers_timer;
    at_client_call_id servers_call;
};

static void renew_later(struct at_join *j);

static void replace(char **text, const char *with)
{
    char *copy = at_strdup(with);
    at_free(*text);
    *text = copy;
}

/* Returns true when the list is another. */
static bool servers_take(struct at_join *j, const json_t *body)
{
    json_t *urls = json_object_get(body, "servers");
    if (!json_is_array(urls) || (j->servers != NULL && json_equal(urls, j->servers))) {
        return false;
    }
    json_decref(j->servers);
    j->servers = json_incref(urls);
    if (j->client != NULL) {
        at_client_learn_servers(j->client, urls);
    }
    return true;
}

/* --- the file --- */

/* One file holds everything, so that a crash cannot leave a key without its certificate. */
static enum at_rc identity_save(const struct at_join *j, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json)
    json_t *all = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:O?}", "name", j->name, "site",
                            j->site != NULL ? j->site : "", "pin",
                            j->ca_pin != NULL ? j->ca_pin : "", "certificate", j->cert_pem, "key",
                            j->key_pem, "ca", j->ca_pem, "servers", j->servers);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = at_json_dump_pretty(all, &text);
    return rc == AT_OK ? at_file_write_atomic(j->path, text.data, text.len, 0600, err)
                       : at_err_set(err, rc, "%s", j->path);
}

/* True when a usable identity was stored for this name and, if a pin is given, for that CA. */
static bool identity_load(struct at_join *j)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    AT_CLEANUP(at_cleanup_json) json_t *all = NULL;
    if (at_file_read(j->path, AT_JOIN_FILE_BYTES_MAX, &text, NULL) != AT_OK ||
        at_json_parse(text.data, text.len, &all, NULL) != AT_OK) {
        return false;
    }
    const char *cert = at_json_str_at(all, "certificate", "");
    int64_t expiry = 0;
    if (!at_streq(at_json_str_at(all, "name", ""), j->name) ||
        (j->ca_pin != NULL && !at_streq(at_json_str_at(all, "pin", ""), j->ca_pin)) ||
        at_cert_expiry(cert, &expiry, NULL) != AT_OK ||
        expiry <= at_sys_wall_ns(at_loop_sys(j->loop))) {
        return false;
    }
    replace(&j->cert_pem, cert);
    replace(&j->key_pem, at_json_str_at(all, "key", ""));
    replace(&j->ca_pem, at_json_str_at(all, "ca", ""));
    replace(&j->site, at_json_str_at(all, "site", ""));
    servers_take(j, all);
    return true;
}

/* The server's answer to a join or a renewal: a certificate for pending_key_pem. */
static enum at_rc identity_take(struct at_join *j, const json_t *body, struct at_err *err)
{
    const char *cert = at_json_str_at(body, "certificate", NULL);
    const char *ca = at_json_str_at(body, "ca", j->ca_pem);
    if (cert == NULL || ca == NULL) {
        return at_err_set(err, AT_UPSTREAM, "the server's answer has no certificate");
    }
    replace(&j->cert_pem, cert);
    at_free(j->key_pem);
    j->key_pem = j->pending_key_pem;
    j->pending_key_pem = NULL;
    if (ca != j->ca_pem) {
        replace(&j->ca_pem, ca);
    }
    const char *site = at_json_str_at(body, "site", NULL);
    if (site != NULL) {
        replace(&j->site, site);
    }
    (void)servers_take(j, body);
    return identity_save(j, err);
}

/* --- joining --- */

static void failed(struct at_join *j, enum at_rc rc, const struct at_err *err)
{
    j->on_ready(j->ctx, rc, NULL, NULL, err);
}

/* --- which servers there are --- */

static void servers_ask(void *ctx);

static void servers_later(struct at_join *j)
{
    bool several = at_client_server_count(j->client) > 1;
    j->servers_timer =
        at_loop_timer(j->loop, several ? j->servers_ns : AT_JOIN_SERVERS_ALONE_NS, servers_ask, j);
}

static void on_servers(void *ctx, enum at_rc rc, int status, json_t *body, const struct at_err *err)
{
    (void)status;
    (void)err; /* the next question goes to another server */
    struct at_join *j = ctx;
    struct at_err own = {0};
    j->servers_call = 0;
    if (rc == AT_OK && servers_take(j, body) && identity_save(j, &own) != AT_OK) {
        at_log(AT_LOG_WARN, "identity.save", "%s", own.msg);
    }
    servers_later(j);
}

static void servers_ask(void *ctx)
{
    struct at_join *j = ctx;
    j->servers_timer = 0;
    j->servers_call = at_client_request_within(j->client, AT_JOIN_SERVERS_ANSWER_NS, AT_HTTP_GET,
                                               "/join/v1/servers", NULL, on_servers, j);
}

static void tell_identity(const struct at_join *j)
{
    if (j->on_identity != NULL) {
        j->on_identity(j->ctx, j->cert_pem, j->key_pem, j->ca_pem);
    }
}

/* The certificate is there: a client that carries it, for good. */
static void begin(struct at_join *j)
{
    struct at_err err = {0};
    struct at_client_options options = {.server = j->server,
                                        .ca_pem = j->ca_pem,
                                        .cert_pem = j->cert_pem,
                                        .key_pem = j->key_pem,
                                        .user_agent = j->user_agent};
    enum at_rc rc = at_client_new(j->loop, &options, &j->client, &err);
    if (rc != AT_OK) {
        failed(j, rc, &err);
        return;
    }
    at_client_learn_servers(j->client, j->servers);
    renew_later(j);
    servers_later(j);
    tell_identity(j);
    j->on_ready(j->ctx, AT_OK, j->client, j->site, NULL);
}

static void begin_stored(void *ctx)
{
    struct at_join *j = ctx;
    j->timer = 0;
    begin(j);
}

static void join_send(void *ctx);

static void on_joined(void *ctx, enum at_rc rc, int status, json_t *body, const struct at_err *err)
{
    (void)status;
    struct at_join *j = ctx;
    struct at_err own = {0};
    bool unreachable = rc == AT_UNAVAILABLE || rc == AT_TIMEOUT || rc == AT_EOF;
    if (unreachable && ++j->tries < AT_JOIN_TRIES_MAX) {
        at_log(AT_LOG_WARN, "join.retry", "%s", err->msg);
        j->timer = at_loop_timer(j->loop, AT_JOIN_RETRY_NS, join_send, j);
        return;
    }
    if (rc == AT_OK) {
        rc = identity_take(j, body, &own);
    } else {
        own = *err;
    }
    if (rc != AT_OK) {
        failed(j, at_err_wrap(&own, rc, "join %s", j->server), &own);
        return;
    }
    at_log(AT_LOG_INFO, "join.done", "joined %s as %s%s%s", j->server, j->name,
           j->site != NULL ? ", site " : "", j->site != NULL ? j->site : "");
    begin(j);
}

/* A new key, kept until its certificate comes. own: *ret_csr_pem is the caller's. */
static enum at_rc csr_new(struct at_join *j, char **ret_csr_pem, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free)
    char *cn = at_asprintf("system:%s:%s", at_streq(j->role, "agent") ? "node" : j->role, j->name);
    at_free(j->pending_key_pem);
    j->pending_key_pem = NULL;
    return at_csr_new(cn, ret_csr_pem, &j->pending_key_pem, err);
}

static void join_send(void *ctx)
{
    struct at_join *j = ctx;
    struct at_err err = {0};
    AT_CLEANUP(at_cleanup_free) char *csr = NULL;
    j->timer = 0;
    enum at_rc rc = csr_new(j, &csr, &err);
    if (rc != AT_OK) {
        failed(j, rc, &err);
        return;
    }
    AT_CLEANUP(at_cleanup_json)
    json_t *body = json_pack("{s:s, s:s, s:s}", "token", j->token, "csr", csr, "name", j->name);
    at_client_request(j->joining, AT_HTTP_POST, "/join/v1", "application/json", body, on_joined, j);
}

static enum at_rc join_begin(struct at_join *j, struct at_err *err)
{
    if (j->token == NULL || j->ca_pin == NULL) {
        return at_err_set(err, AT_INVALID,
                          "no certificate in %s that fits: give --token-file and --ca-pin (make "
                          "them by: atoll token create --role %s --site SITE)",
                          j->path, j->role);
    }
    if (strncmp(j->ca_pin, "sha256:", 7) != 0 || strlen(j->ca_pin) != 7 + PIN_HEX_DIGITS) {
        return at_err_set_field(err, AT_INVALID, "ca-pin", "must be sha256: and %d hex digits",
                                PIN_HEX_DIGITS);
    }
    struct at_client_options options = {
        .server = j->server, .ca_pin_sha256_hex = j->ca_pin + 7, .user_agent = j->user_agent};
    enum at_rc rc = at_client_new(j->loop, &options, &j->joining, err);
    if (rc == AT_OK) {
        j->timer = at_loop_timer(j->loop, 0, join_send, j);
    }
    return rc;
}

enum at_rc at_join_start(const struct at_join_options *o, struct at_join **ret, struct at_err *err)
{
    struct at_join *j = AT_NEW(struct at_join);
    j->loop = o->loop;
    j->server = at_strdup(o->server);
    j->role = at_strdup(o->role);
    j->name = at_strdup(o->name);
    j->token = at_strdup(o->token);
    j->ca_pin = at_strdup(o->ca_pin);
    j->path = at_asprintf("%s/identity.json", o->state_dir);
    j->user_agent = at_asprintf("atoll-%s/%s", o->role, AT_VERSION);
    j->servers_ns = o->servers_ns > 0 ? o->servers_ns : AT_JOIN_SERVERS_NS;
    j->renew_min_ns = o->renew_min_ns > 0 ? o->renew_min_ns : AT_JOIN_RENEW_MIN_NS;
    j->on_ready = o->on_ready;
    j->on_identity = o->on_identity;
    j->ctx = o->ctx;
    if (identity_load(j)) {
        j->timer = at_loop_timer(j->loop, 0, begin_stored, j);
    } else {
        enum at_rc rc = join_begin(j, err);
        if (rc != AT_OK) {
            at_join_free(j);
            return rc;
        }
    }
    *ret = j;
    return AT_OK;
}

void at_join_free(struct at_join *j)
{
    if (j == NULL) {
        return;
    }
    at_loop_timer_cancel(j->loop, j->timer);
    at_loop_timer_cancel(j->loop, j->servers_timer);
    json_decref(j->servers);
    at_client_free(j->joining);
    at_client_free(j->client);
    char *texts[] = {j->server,  j->role,   j->name,       j->token,
                     j->ca_pin,  j->path,   j->user_agent, j->cert_pem,
                     j->key_pem, j->ca_pem, j->site,       j->pending_key_pem};
    for (size_t i = 0; i < AT_ARRAY_LEN(texts); i++) {
        at_free(texts[i]);
    }
    at_free(j);
}

/* --- renewal --- */

static void renew_now(void *ctx);

static void renew_again(struct at_join *j, const struct at_err *err)
{
    at_log(AT_LOG_WARN, "identity.renew_failed", "%s", err->msg);
    j->timer = at_loop_timer(j->loop, j->renew_min_ns, renew_now, j);
}

static void on_renewed(void *ctx, enum at_rc rc, int status, json_t *body, const struct at_err *err)
{
    (void)status;
    struct at_join *j = ctx;
    struct at_err own = {0};
    if (rc == AT_OK) {
        rc = identity_take(j, body, &own);
    } else {
        own = *err;
    }
    if (rc == AT_OK) {
        rc = at_client_set_identity(j->client, j->cert_pem, j->key_pem, &own);
    }
    if (rc != AT_OK) {
        renew_again(j, &own);
        return;
    }
    at_log(AT_LOG_INFO, "identity.renewed", "certificate renewed");
    tell_identity(j);
    renew_later(j);
}

static void renew_now(void *ctx)
{
    struct at_join *j = ctx;
    struct at_err err = {0};
    AT_CLEANUP(at_cleanup_free) char *csr = NULL;
    j->timer = 0;
    if (csr_new(j, &csr, &err) != AT_OK) {
        renew_again(j, &err);
        return;
    }
    AT_CLEANUP(at_cleanup_json) json_t *body = json_pack("{s:s}", "csr", csr);
    at_client_request(j->client, AT_HTTP_POST, "/join/v1/renew", "application/json", body,
                      on_renewed, j);
}

/* Looked at again and again: the wall clock by which the certificate ends may be stepped. */
static void renew_look(void *ctx)
{
    struct at_join *j = ctx;
    const struct at_sys *sys = at_loop_sys(j->loop);
    int64_t left = j->renew_mono_ns - at_sys_mono_ns(sys);
    int64_t wall_left = j->renew_wall_ns - at_sys_wall_ns(sys);
    left = wall_left < left ? wall_left : left;
    j->timer = 0;
    if (left <= 0) {
        renew_now(j);
        return;
    }
    left = left < AT_JOIN_RENEW_LOOK_NS ? left : AT_JOIN_RENEW_LOOK_NS;
    j->timer = at_loop_timer(j->loop, left, renew_look, j);
}

/* At two thirds of what is left of the certificate's life. */
static void renew_later(struct at_join *j)
{
    int64_t expiry = 0;
    struct at_err err = {0};
    const struct at_sys *sys = at_loop_sys(j->loop);
    if (at_cert_expiry(j->cert_pem, &expiry, &err) != AT_OK) {
        at_log(AT_LOG_ERROR, "identity.expiry", "%s", err.msg);
        return;
    }
    int64_t wait = (expiry - at_sys_wall_ns(sys)) / 3 * 2;
    wait = wait > j->renew_min_ns ? wait : j->renew_min_ns;
    j->renew_mono_ns = at_sys_mono_ns(sys) + wait;
    j->renew_wall_ns = at_sys_wall_ns(sys) + wait;
    renew_look(j);
}
