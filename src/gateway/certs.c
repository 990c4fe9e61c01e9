#include "gateway/certs.h"

#include "core/digest.h"
#include "core/log.h"
#include "core/mem.h"
#include "gateway/limits.h"
#include "security/security.h"
#include "sys/file.h"

#include <string.h>

struct gw_certs {
    struct at_loop *loop;
    char *cert_file, *key_file;
    struct at_metric *reloads, *failures, *expires;
    void (*on_change)(void *ctx, struct at_tls_config *config);
    void *ctx;
    struct at_tls_config *config;
    at_timer_id timer;
    unsigned char used[AT_SHA256_BYTES]; /* digest of the two texts in use */
    unsigned char seen[AT_SHA256_BYTES]; /* and of what was seen last */
    bool told;                           /* that what was seen last is no good */
};

/* Both texts as they are now, and a digest of them; what cannot be read has the digest of its
 * error, so that it is told once too. */
static enum at_rc read_both(const struct gw_certs *c, struct at_buf *cert, struct at_buf *key,
                            unsigned char digest[AT_SHA256_BYTES], struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf both = {0};
    enum at_rc rc = at_file_read(c->cert_file, AT_GW_PEM_BYTES_MAX, cert, err);
    if (rc == AT_OK) {
        rc = at_file_read(c->key_file, AT_GW_PEM_BYTES_MAX, key, err);
    }
    enum at_rc put = rc == AT_OK ? at_buf_append(&both, cert->data, cert->len)
                                 : at_buf_append_str(&both, err->msg);
    if (put == AT_OK && rc == AT_OK) {
        put = at_buf_append(&both, key->data, key->len);
    }
    at_sha256(both.data, both.len, digest);
    return rc == AT_OK ? put : rc;
}

static enum at_rc make(const struct at_buf *cert, const struct at_buf *key,
                       struct at_tls_config **ret, int64_t *ret_expires_ns, struct at_err *err)
{
    if (cert->len == 0 || key->len == 0) {
        return at_err_set(err, AT_INVALID, "%s is empty",
                          cert->len == 0 ? "the certificate" : "its key");
    }
    struct at_tls_options o = {
        .is_server = true, .http2 = true, .cert_pem = cert->data, .key_pem = key->data};
    enum at_rc rc = at_tls_config_new(&o, ret, err);
    *ret_expires_ns = 0;
    if (rc == AT_OK && at_cert_expiry(cert->data, ret_expires_ns, NULL) != AT_OK) {
        *ret_expires_ns = 0;
    }
    return rc;
}

static void take(struct gw_certs *c, struct at_tls_config *config_take, int64_t expires_ns)
{
    at_tls_config_unref(c->config);
    c->config = config_take;
    at_metric_set(c->expires, expires_ns / AT_GW_S);
}

/* asked: somebody says that the files are as they shall be. */
static void look(struct gw_certs *c, bool asked)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf cert = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf key = {0};
    unsigned char digest[AT_SHA256_BYTES];
    struct at_err err = {0};
    struct at_tls_config *config = NULL;
    int64_t expires_ns = 0;
    enum at_rc rc = read_both(c, &cert, &key, digest, &err);
    if (memcmp(digest, c->used, sizeof digest) == 0) {
        c->told = false;
        return;
    }
    rc = rc == AT_OK ? make(&cert, &key, &config, &expires_ns, &err) : rc;
    bool same = memcmp(digest, c->seen, sizeof digest) == 0;
    c->told &= same;
    memcpy(c->seen, digest, sizeof digest);
    if (rc == AT_OK) {
        memcpy(c->used, digest, sizeof digest);
        c->told = false;
        take(c, config, expires_ns);
        at_metric_add(c->reloads, 1);
        at_log(AT_LOG_INFO, "tls.reloaded", "new connections get the certificate of %s from now on",
               c->cert_file);
        c->on_change(c->ctx, config);
    } else if ((same || asked) &&
               !c->told) { /* not just between the writing of the one and the other */
        c->told = true;
        at_metric_add(c->failures, 1);
        at_log(AT_LOG_ERROR, "tls.reload.failed",
               "%s and %s: %s; the certificate that was loaded before stays in use", c->cert_file,
               c->key_file, err.msg);
    }
}

void gw_certs_look(struct gw_certs *c)
{
    if (c != NULL) {
        look(c, true);
    }
}

static void on_look(void *ctx)
{
    struct gw_certs *c = ctx;
    look(c, false);
    c->timer = at_loop_timer(c->loop, AT_GW_CERT_LOOK_NS, on_look, c);
}

enum at_rc gw_certs_new(const struct gw_certs_options *options, struct gw_certs **ret,
                        struct at_err *err)
{
    static const char *const RESULT[] = {"result", NULL};
    static const char *const OK[] = {"ok", NULL}, *const FAILED[] = {"failed", NULL};
    AT_CLEANUP(at_cleanup_buf) struct at_buf cert = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf key = {0};
    struct at_tls_config *config = NULL;
    int64_t expires_ns = 0;
    struct gw_certs *c = AT_NEW(struct gw_certs);
    c->loop = options->loop;
    c->cert_file = at_strdup(options->cert_file);
    c->key_file = at_strdup(options->key_file);
    c->on_change = options->on_change;
    c->ctx = options->ctx;
    struct at_metric_family *reloads = at_metrics_family(
        options->metrics, AT_METRIC_COUNTER, "atoll_gateway_tls_reloads_total",
        "Times that a changed certificate or key was read while running, by result.", RESULT);
    c->reloads = at_metric_with(reloads, OK);
    c->failures = at_metric_with(reloads, FAILED);
    c->expires = at_metric_plain(options->metrics, AT_METRIC_GAUGE,
                                 "atoll_gateway_tls_certificate_expires_timestamp_seconds",
                                 "When the certificate in use ends, in seconds since 1970.");
    enum at_rc rc = read_both(c, &cert, &key, c->used, err);
    rc = rc == AT_OK ? make(&cert, &key, &config, &expires_ns, err) : rc;
    if (rc != AT_OK) {
        gw_certs_free(c);
        return rc;
    }
    take(c, config, expires_ns);
    c->timer = at_loop_timer(c->loop, AT_GW_CERT_LOOK_NS, on_look, c);
    *ret = c;
    return AT_OK;
}

void gw_certs_free(struct gw_certs *c)
{
    if (c == NULL) {
        return;
    }
    at_loop_timer_cancel(c->loop, c->timer);
    at_tls_config_unref(c->config);
    at_free(c->cert_file);
    at_free(c->key_file);
    at_free(c);
}

struct at_tls_config *gw_certs_config(const struct gw_certs *c)
{
    return c->config;
}
