/* The gateway's certificate: stored, or got by joining with a token; renewed before it ends. */
#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/str.h"
#include "gateway/gateway_priv.h"
#include "security/security.h"
#include "sys/file.h"

#include <string.h>

static void renew_later(struct at_gateway *g);
static void join_send(void *ctx);

static void replace(char **text, const char *with)
{
    char *copy = at_strdup(with);
    at_free(*text);
    *text = copy;
}

/* One file holds everything, so that a crash cannot leave a key without its certificate. */
static enum at_rc save(struct at_gateway *g, struct at_err *err)
{
    const struct gw_identity *id = &g->identity;
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/identity.json", g->state_dir);
    AT_CLEANUP(at_cleanup_json)
    json_t *all =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "name", g->name, "site",
                  id->site != NULL ? id->site : "", "pin", g->ca_pin != NULL ? g->ca_pin : "",
                  "certificate", id->cert_pem, "key", id->key_pem, "ca", id->ca_pem);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = at_json_dump_pretty(all, &text);
    return rc == AT_OK ? at_file_write_atomic(path, text.data, text.len, 0600, err)
                       : at_err_set(err, rc, "identity.json");
}

/* True when a usable identity is stored for this name and, if a pin is given, for that CA. */
static bool load(struct at_gateway *g)
{
    struct gw_identity *id = &g->identity;
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/identity.json", g->state_dir);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    AT_CLEANUP(at_cleanup_json) json_t *all = NULL;
    if (at_file_read(path, AT_GW_FILE_BYTES_MAX, &text, NULL) != AT_OK ||
        at_json_parse(text.data, text.len, &all, NULL) != AT_OK) {
        return false;
    }
    const char *cert = at_json_str_at(all, "certificate", "");
    int64_t expiry = 0;
    if (!at_streq(at_json_str_at(all, "name", ""), g->name) ||
        (g->ca_pin != NULL && !at_streq(at_json_str_at(all, "pin", ""), g->ca_pin)) ||
        at_cert_expiry(cert, &expiry, NULL) != AT_OK ||
        expiry <= at_sys_wall_ns(at_loop_sys(g->loop))) {
        return false;
    }
    replace(&id->cert_pem, cert);
    replace(&id->key_pem, at_json_str_at(all, "key", ""));
    replace(&id->ca_pem, at_json_str_at(all, "ca", ""));
    replace(&id->site, at_json_str_at(all, "site", ""));
    return true;
}

/* The server's answer to a join or a renewal: a certificate for pending_key_pem. */
static enum at_rc take(struct at_gateway *g, const json_t *body, struct at_err *err)
{
    struct gw_identity *id = &g->identity;
    const char *cert = at_json_str_at(body, "certificate", NULL);
    if (cert == NULL) {
        return at_err_set(err, AT_UPSTREAM, "the server's answer has no certificate");
    }
    replace(&id->cert_pem, cert);
    at_free(id->key_pem);
    id->key_pem = id->pending_key_pem;
    id->pending_key_pem = NULL;
    const char *ca = at_json_str_at(body, "ca", NULL), *site = at_json_str_at(body, "site", NULL);
    if (ca != NULL) {
        replace(&id->ca_pem, ca);
    }
    if (site != NULL) {
        replace(&id->site, site);
    }
    return save(g, err);
}

/* The certificate is there: watch the routes with it. */
static void begin(struct at_gateway *g)
{
    struct gw_identity *id = &g->identity;
    struct at_err err = {0};
    enum at_rc rc =
        at_client_new(g->loop,
                      &(struct at_client_options){.server = g->server,
                                                  .ca_pem = id->ca_pem,
                                                  .cert_pem = id->cert_pem,
                                                  .key_pem = id->key_pem,
                                                  .user_agent = "atoll-gateway/" AT_VERSION},
                      &g->client, &err);
    if (rc != AT_OK) {
        gw_tell(g, rc, &err);
        return;
    }
    if (g->site == NULL && id->site != NULL) {
        g->site = at_strdup(id->site);
    }
    renew_later(g);
    gw_feed_start(g);
}

static void on_joined(void *ctx, enum at_rc rc, int status, json_t *body, const struct at_err *err)
{
    struct at_gateway *g = ctx;
    struct at_err own = {0};
    (void)status;
    bool unreachable = rc == AT_UNAVAILABLE || rc == AT_TIMEOUT;
    if (unreachable && ++g->identity.tries < AT_GW_JOIN_TRIES_MAX) {
        at_log(AT_LOG_WARN, "join.retry", "%s", err->msg);
        g->identity.timer = at_loop_timer(g->loop, AT_GW_JOIN_RETRY_NS, join_send, g);
        return;
    }
    if (rc == AT_OK) {
        rc = take(g, body, &own);
    } else {
        own = *err;
    }
    if (rc != AT_OK) {
        at_err_wrap(&own, rc, "join %s", g->server);
        gw_tell(g, rc, &own);
        return;
    }
    at_log(AT_LOG_INFO, "join.done", "joined %s as %s", g->server, g->name);
    begin(g);
}

/* A new key, kept until its certificate comes. own: the CSR is the caller's. */
static char *csr_new(struct at_gateway *g, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *cn = at_asprintf("system:gateway:%s", g->name);
    char *csr = NULL;
    at_free(g->identity.pending_key_pem);
    g->identity.pending_key_pem = NULL;
    return at_csr_new(cn, &csr, &g->identity.pending_key_pem, err) == AT_OK ? csr : NULL;
}

static void join_send(void *ctx)
{
    struct at_gateway *g = ctx;
    struct at_err err = {0};
    g->identity.timer = 0;
    AT_CLEANUP(at_cleanup_free) char *csr = csr_new(g, &err);
    if (csr == NULL) {
        gw_tell(g, err.rc, &err);
        return;
    }
    AT_CLEANUP(at_cleanup_json)
    json_t *body = json_pack("{s:s, s:s, s:s}", "token", g->token, "csr", csr, "name", g->name);
    at_client_request(g->identity.join_client, AT_HTTP_POST, "/join/v1", "application/json", body,
                      on_joined, g);
}

static void begin_stored(void *ctx)
{
    struct at_gateway *g = ctx;
    g->identity.timer = 0;
    begin(g);
}

enum at_rc gw_identity_start(struct at_gateway *gateway, struct at_err *err)
{
    struct at_gateway *g = gateway;
    enum at_rc rc = at_dir_make(g->state_dir, 0700, err);
    if (rc != AT_OK) {
        return rc;
    }
    if (load(g)) {
        g->identity.timer = at_loop_timer(g->loop, 0, begin_stored, g);
        return AT_OK;
    }
    if (g->token == NULL || g->ca_pin == NULL) {
        return at_err_set(err, AT_INVALID,
                          "no certificate in %s: give --token and --ca-pin (make them by: atoll "
                          "token create --role gateway)",
                          g->state_dir);
    }
    if (strncmp(g->ca_pin, "sha256:", 7) != 0 || strlen(g->ca_pin) != 7 + 64) {
        return at_err_set_field(err, AT_INVALID, "ca-pin", "must be sha256: and 64 hex digits");
    }
    rc = at_client_new(g->loop,
                       &(struct at_client_options){.server = g->server,
                                                   .ca_pin_sha256_hex = g->ca_pin + 7,
                                                   .user_agent = "atoll-gateway/" AT_VERSION},
                       &g->identity.join_client, err);
    if (rc == AT_OK) {
        g->identity.timer = at_loop_timer(g->loop, 0, join_send, g);
    }
    return rc;
}

/* --- renewal --- */

static void renew_now(void *ctx);

static void on_renewed(void *ctx, enum at_rc rc, int status, json_t *body, const struct at_err *err)
{
    struct at_gateway *g = ctx;
    struct at_err own = {0};
    (void)status;
    if (rc != AT_OK) {
        own = *err;
    } else {
        rc = take(g, body, &own);
    }
    if (rc == AT_OK) {
        rc = at_client_set_identity(g->client, g->identity.cert_pem, g->identity.key_pem, &own);
    }
    if (rc != AT_OK) {
        at_log(AT_LOG_WARN, "identity.renew_failed", "%s", own.msg);
        g->identity.timer = at_loop_timer(g->loop, AT_GW_RENEW_MIN_NS, renew_now, g);
        return;
    }
    at_log(AT_LOG_INFO, "identity.renewed", "certificate renewed");
    renew_later(g);
}

static void renew_now(void *ctx)
{
    struct at_gateway *g = ctx;
    struct at_err err = {0};
    g->identity.timer = 0;
    AT_CLEANUP(at_cleanup_free) char *csr = csr_new(g, &err);
    if (csr == NULL) {
        at_log(AT_LOG_WARN, "identity.renew_failed", "%s", err.msg);
        g->identity.timer = at_loop_timer(g->loop, AT_GW_RENEW_MIN_NS, renew_now, g);
        return;
    }
    AT_CLEANUP(at_cleanup_json) json_t *body = json_pack("{s:s}", "csr", csr);
    at_client_request(g->client, AT_HTTP_POST, "/join/v1/renew", "application/json", body,
                      on_renewed, g);
}

/* At two thirds of what is left of the certificate's life. */
static void renew_later(struct at_gateway *g)
{
    int64_t expiry = 0;
    struct at_err err = {0};
    if (at_cert_expiry(g->identity.cert_pem, &expiry, &err) != AT_OK) {
        at_log(AT_LOG_ERROR, "identity.expiry", "%s", err.msg);
        return;
    }
    int64_t wait = (expiry - at_sys_wall_ns(at_loop_sys(g->loop))) / 3 * 2;
    wait = wait > AT_GW_RENEW_MIN_NS ? wait : AT_GW_RENEW_MIN_NS;
    g->identity.timer = at_loop_timer(g->loop, wait, renew_now, g);
}

void gw_identity_done(struct at_gateway *gateway)
{
    struct gw_identity *id = &gateway->identity;
    at_loop_timer_cancel(gateway->loop, id->timer);
    at_client_free(id->join_client);
    at_free(id->cert_pem);
    at_free(id->key_pem);
    at_free(id->ca_pem);
    at_free(id->site);
    at_free(id->pending_key_pem);
}
