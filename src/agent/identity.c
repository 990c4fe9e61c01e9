#include "agent/agent_priv.h"

#include "core/log.h"
#include "security/security.h"
#include "sys/file.h"

#include <stdio.h>
#include <string.h>

#define IDENTITY_FILE_BYTES_MAX ((size_t)256 << 10)

static void renew_later(struct at_agent *a);

static char *file_text(const struct at_agent *a, const char *name)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/%s", a->state_dir, name);
    struct at_buf text = {0};
    if (at_file_read(path, IDENTITY_FILE_BYTES_MAX, &text, NULL) != AT_OK) {
        at_buf_done(&text);
        return NULL;
    }
    return at_buf_steal(&text, NULL);
}

static enum at_rc file_put(const struct at_agent *a, const char *name, const char *text,
                           struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/%s", a->state_dir, name);
    return at_file_write_atomic(path, text, strlen(text), 0600, err);
}

/* One file holds everything, so that a crash cannot leave a key without its certificate. */
static enum at_rc identity_save(const struct at_agent *a, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json)
    json_t *all = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "name", a->name, "site", a->site,
                            "pin", a->ca_pin != NULL ? a->ca_pin : "", "certificate", a->cert_pem,
                            "key", a->key_pem, "ca", a->ca_pem);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = at_json_dump_pretty(all, &text);
    return rc == AT_OK ? file_put(a, "identity.json", text.data, err)
                       : at_err_set(err, rc, "identity.json");
}

/* True when a usable identity was stored for this name and, if a pin is given, for that CA. */
static bool identity_load(struct at_agent *a)
{
    AT_CLEANUP(at_cleanup_free) char *text = file_text(a, "identity.json");
    AT_CLEANUP(at_cleanup_json) json_t *all = NULL;
    if (text == NULL || at_json_parse(text, strlen(text), &all, NULL) != AT_OK) {
        return false;
    }
    const char *pin = at_json_str_at(all, "pin", "");
    if (!at_streq(at_json_str_at(all, "name", ""), a->name) ||
        (a->ca_pin != NULL && !at_streq(pin, a->ca_pin))) {
        return false;
    }
    int64_t expiry = 0;
    const char *cert = at_json_str_at(all, "certificate", "");
    if (at_cert_expiry(cert, &expiry, NULL) != AT_OK ||
        expiry <= at_sys_wall_ns(at_loop_sys(a->loop))) {
        return false;
    }
    a->cert_pem = at_strdup(cert);
    a->key_pem = at_strdup(at_json_str_at(all, "key", ""));
    a->ca_pem = at_strdup(at_json_str_at(all, "ca", ""));
    a->site = at_strdup(at_json_str_at(all, "site", ""));
    return true;
}

static void replace(char **text, const char *with)
{
    at_free(*text);
    *text = at_strdup(with);
}

/* The server's answer to a join or a renewal: a certificate for pending_key_pem. */
static enum at_rc identity_take(struct at_agent *a, const json_t *body, struct at_err *err)
{
    const char *cert = at_json_str_at(body, "certificate", NULL);
    if (cert == NULL) {
        return at_err_set(err, AT_UPSTREAM, "the server's answer has no certificate");
    }
    replace(&a->cert_pem, cert);
    at_free(a->key_pem);
    a->key_pem = a->pending_key_pem;
    a->pending_key_pem = NULL;
    const char *ca = at_json_str_at(body, "ca", NULL);
    if (ca != NULL) {
        replace(&a->ca_pem, ca);
    }
    const char *site = at_json_str_at(body, "site", NULL);
    if (site != NULL) {
        replace(&a->site, site);
    }
    return identity_save(a, err);
}

static void join_again(void *ctx);

static void on_joined(void *ctx, enum at_rc rc, int status, json_t *body, const struct at_err *err)
{
    (void)status;
    struct at_agent *a = ctx;
    struct at_err own = {0};
    bool unreachable = rc == AT_UNAVAILABLE || rc == AT_TIMEOUT || rc == AT_EOF;
    if (unreachable && ++a->join_tries < AGENT_JOIN_TRIES_MAX) {
        at_log(AT_LOG_WARN, "join.retry", "%s", err->msg);
        a->identity_timer = at_loop_timer(a->loop, AGENT_RETRY_NS, join_again, a);
        return;
    }
    if (rc == AT_OK) {
        rc = identity_take(a, body, &own);
        err = &own;
    }
    if (rc != AT_OK) {
        own = *err;
        agent_failed(a, at_err_wrap(&own, rc, "join %s", a->server), &own);
        return;
    }
    at_log(AT_LOG_INFO, "join.done", "joined %s as %s, site %s", a->server, a->name, a->site);
    renew_later(a);
    agent_identity_ready(a);
}

static enum at_rc join_send(struct at_agent *a, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *csr = NULL;
    char cn[256];
    snprintf(cn, sizeof cn, "system:node:%s", a->name);
    at_free(a->pending_key_pem);
    a->pending_key_pem = NULL;
    enum at_rc rc = at_csr_new(cn, &csr, &a->pending_key_pem, err);
    if (rc != AT_OK) {
        return rc;
    }
    json_t *body = json_pack("{s:s, s:s, s:s}", "token", a->token, "csr", csr, "name", a->name);
    at_client_request(a->join_client, AT_HTTP_POST, "/join/v1", "application/json", body, on_joined,
                      a);
    json_decref(body);
    return AT_OK;
}

static void join_again(void *ctx)
{
    struct at_agent *a = ctx;
    struct at_err err = {0};
    a->identity_timer = 0;
    enum at_rc rc = join_send(a, &err);
    if (rc != AT_OK) {
        agent_failed(a, rc, &err);
    }
}

static void identity_stored(void *ctx)
{
    struct at_agent *a = ctx;
    a->identity_timer = 0;
    renew_later(a);
    agent_identity_ready(a);
}

enum at_rc agent_identity_start(struct at_agent *a, struct at_err *err)
{
    if (identity_load(a)) {
        a->identity_timer = at_loop_timer(a->loop, 0, identity_stored, a);
        return AT_OK;
    }
    if (a->token == NULL || a->ca_pin == NULL) {
        return at_err_set(err, AT_INVALID,
                          "no certificate in %s: give --token and --ca-pin (make them by: atoll "
                          "token create --site SITE)",
                          a->state_dir);
    }
    if (strncmp(a->ca_pin, "sha256:", 7) != 0 || strlen(a->ca_pin) != 7 + 64) {
        return at_err_set_field(err, AT_INVALID, "ca-pin", "must be sha256: and 64 hex digits");
    }
    struct at_client_options options = {.server = a->server,
                                        .ca_pin_sha256_hex = a->ca_pin + 7,
                                        .user_agent = "atoll-agent/" AT_VERSION};
    enum at_rc rc = at_client_new(a->loop, &options, &a->join_client, err);
    return rc == AT_OK ? join_send(a, err) : rc;
}

/* --- renewal --- */

static void renew_now(void *ctx);

static void on_renewed(void *ctx, enum at_rc rc, int status, json_t *body, const struct at_err *err)
{
    (void)status;
    struct at_agent *a = ctx;
    struct at_err own = {0};
    if (rc == AT_OK) {
        rc = identity_take(a, body, &own);
        err = &own;
    }
    if (rc != AT_OK) {
        at_log(AT_LOG_WARN, "identity.renew_failed", "%s", err->msg);
        a->identity_timer = at_loop_timer(a->loop, AGENT_CERT_RENEW_MIN_NS, renew_now, a);
        return;
    }
    at_log(AT_LOG_INFO, "identity.renewed", "certificate renewed");
    renew_later(a);
    agent_identity_ready(a);
}

static void renew_now(void *ctx)
{
    struct at_agent *a = ctx;
    a->identity_timer = 0;
    AT_CLEANUP(at_cleanup_free) char *csr = NULL;
    char cn[256];
    snprintf(cn, sizeof cn, "system:node:%s", a->name);
    struct at_err err = {0};
    at_free(a->pending_key_pem);
    a->pending_key_pem = NULL;
    if (a->client == NULL || at_csr_new(cn, &csr, &a->pending_key_pem, &err) != AT_OK) {
        a->identity_timer = at_loop_timer(a->loop, AGENT_CERT_RENEW_MIN_NS, renew_now, a);
        return;
    }
    json_t *body = json_pack("{s:s}", "csr", csr);
    at_client_request(a->client, AT_HTTP_POST, "/join/v1/renew", "application/json", body,
                      on_renewed, a);
    json_decref(body);
}

/* At two thirds of what is left of the certificate's life. */
static void renew_later(struct at_agent *a)
{
    int64_t expiry = 0;
    struct at_err err = {0};
    if (at_cert_expiry(a->cert_pem, &expiry, &err) != AT_OK) {
        at_log(AT_LOG_ERROR, "identity.expiry", "%s", err.msg);
        return;
    }
    int64_t wait = (expiry - at_sys_wall_ns(at_loop_sys(a->loop))) / 3 * 2;
    wait = wait > AGENT_CERT_RENEW_MIN_NS ? wait : AGENT_CERT_RENEW_MIN_NS;
    at_loop_timer_cancel(a->loop, a->identity_timer);
    a->identity_timer = at_loop_timer(a->loop, wait, renew_now, a);
}

void agent_identity_done(struct at_agent *a)
{
    at_loop_timer_cancel(a->loop, a->identity_timer);
    at_client_free(a->join_client);
}
