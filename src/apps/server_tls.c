#include "apps/server_tls.h"

#include "core/digest.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/units.h"
#include "security/x509.h"
#include "sys/file.h"

#include <string.h>

#define LIFETIME_NS_DEFAULT (INT64_C(397) * 86400 * AT_NS_PER_S)
#define LOOK_NS (2 * AT_NS_PER_S)
#define FILE_BYTES_MAX ((size_t)16 << 20)

enum which { CERT, KEY, CA, CLIENT_CA, CLIENT_CRL, N_FILES };

struct texts {
    struct at_buf of[N_FILES];
};

struct at_app_tls {
    struct at_app_tls_options o;
    const char *paths[N_FILES];
    struct at_tls_config *config;
    struct at_crl *crl, *crl_before; /* the one before lives until the next: it may be in use */
    char *trust_pem;
    char pin[AT_SHA256_HEX_BYTES];
    char *own_cert, *own_key; /* of the own authority */
    int64_t renew_mono_ns, renew_wall_ns;
    unsigned char used[AT_SHA256_BYTES], seen[AT_SHA256_BYTES]; /* digests of the files */
    bool told;
    at_timer_id timer;
    struct at_metric *expires, *reloads, *failures;
};

static void texts_done(struct texts *t)
{
    for (size_t i = 0; i < N_FILES; i++) {
        if (i == KEY && t->of[i].data != NULL) {
            explicit_bzero(t->of[i].data, t->of[i].len);
        }
        at_buf_done(&t->of[i]);
    }
}

/* All files as they are now, and a digest of them; what cannot be read has the digest of why. */
static enum at_rc texts_read(const struct at_app_tls *tls, struct texts *t,
                             unsigned char digest[AT_SHA256_BYTES], struct at_err *err)
{
    unsigned char parts[N_FILES + 1][AT_SHA256_BYTES] = {0};
    enum at_rc rc = AT_OK;
    for (size_t i = 0; rc == AT_OK && i < N_FILES; i++) {
        if (tls->paths[i] == NULL) {
            continue;
        }
        rc = at_file_read(tls->paths[i], FILE_BYTES_MAX, &t->of[i], err);
        if (rc == AT_OK && t->of[i].len == 0) {
            rc = at_err_set(err, AT_INVALID, "%s is empty", tls->paths[i]);
        }
        if (rc == AT_OK) {
            at_sha256(t->of[i].data, t->of[i].len, parts[i]);
        }
    }
    if (rc != AT_OK) {
        at_sha256(err->msg, strlen(err->msg), parts[N_FILES]);
    }
    at_sha256(parts, sizeof parts, digest);
    return rc;
}

/* --- the own certificate --- */

static enum at_rc own_make(struct at_app_tls *tls, struct at_err *err)
{
    const struct at_sys *sys = at_loop_sys(tls->o.loop);
    int64_t lifetime_ns =
        tls->o.files->lifetime_ns > 0 ? tls->o.files->lifetime_ns : LIFETIME_NS_DEFAULT;
    struct at_cert_request request = {
        .common_name = "atoll-server",
        .dns_names = tls->o.names,
        .ip_addresses = tls->o.addresses,
        .server = true,
        .lifetime_s = lifetime_ns / AT_NS_PER_S,
    };
    char *cert = NULL;
    char *key = NULL;
    enum at_rc rc = at_ca_issue(tls->o.ca, &request, &cert, &key, err);
    if (rc != AT_OK) {
        return rc;
    }
    at_free(tls->own_cert);
    at_free(tls->own_key);
    tls->own_cert = cert;
    tls->own_key = key;
    tls->renew_mono_ns = at_sys_mono_ns(sys) + lifetime_ns / 3 * 2;
    tls->renew_wall_ns = at_sys_wall_ns(sys) + lifetime_ns / 3 * 2;
    return AT_OK;
}

/* By whichever clock comes first, for the wall clock may be stepped. */
static bool own_is_due(const struct at_app_tls *tls)
{
    const struct at_sys *sys = at_loop_sys(tls->o.loop);
    return tls->paths[CERT] == NULL &&
           (at_sys_mono_ns(sys) >= tls->renew_mono_ns || at_sys_wall_ns(sys) >= tls->renew_wall_ns);
}

/* --- all of it --- */

static enum at_rc named(struct at_err *err, enum at_rc rc, const char *path)
{
    return rc == AT_OK ? rc : at_err_wrap(err, rc, "%s", path);
}

static enum at_rc crl_make(const struct at_app_tls *tls, const struct texts *t, struct at_crl **ret,
                           struct at_err *err)
{
    if (tls->paths[CLIENT_CRL] == NULL) {
        return AT_OK;
    }
    const struct at_buf *text = &t->of[CLIENT_CRL];
    enum at_rc rc = at_crl_parse(text->data, text->len, t->of[CLIENT_CA].data, ret, err);
    if (rc == AT_OK && at_crl_next_update_ns(*ret) < at_sys_wall_ns(at_loop_sys(tls->o.loop))) {
        at_log(AT_LOG_WARN, "tls.crl_old",
               "%s should have been replaced by now; what it revokes stays revoked",
               tls->paths[CLIENT_CRL]);
    }
    return named(err, rc, tls->paths[CLIENT_CRL]);
}

/* Whoever joins knows a pin only, so the chain must hold the authority. */
static char *chain_of(const struct at_app_tls *tls, const struct texts *t)
{
    if (tls->paths[CERT] == NULL) {
        return at_strdup(tls->own_cert);
    }
    const char *ca = t->of[CA].data;
    const char *cert = t->of[CERT].data;
    return strstr(cert, ca) != NULL ? at_strdup(cert) : at_asprintf("%s\n%s", cert, ca);
}

static enum at_rc config_make(struct at_app_tls *tls, const struct texts *t,
                              struct at_tls_config **ret, struct at_err *err)
{
    bool by_files = tls->paths[CERT] != NULL;
    AT_CLEANUP(at_cleanup_free) char *chain = chain_of(tls, t);
    AT_CLEANUP(at_cleanup_free)
    char *clients = tls->paths[CLIENT_CA] != NULL
                        ? at_asprintf("%s\n%s", at_ca_cert_pem(tls->o.ca), t->of[CLIENT_CA].data)
                        : at_strdup(at_ca_cert_pem(tls->o.ca));
    struct at_tls_options options = {.is_server = true,
                                     .cert_pem = chain,
                                     .key_pem = by_files ? t->of[KEY].data : tls->own_key,
                                     .ca_pem = clients,
                                     .may_resume = tls->o.may_resume,
                                     .resume_ctx = tls->o.ctx};
    enum at_rc rc = by_files ? at_cert_chain_check(t->of[CERT].data, t->of[CA].data, err) : AT_OK;
    rc = rc == AT_OK ? at_tls_config_new(&options, ret, err) : rc;
    return by_files ? named(err, rc, tls->paths[CERT]) : rc;
}

static void trust_take(struct at_app_tls *tls, const struct texts *t)
{
    at_free(tls->trust_pem);
    tls->trust_pem = tls->paths[CERT] != NULL
                         ? at_asprintf("%s\n%s", at_ca_cert_pem(tls->o.ca), t->of[CA].data)
                         : at_strdup(at_ca_cert_pem(tls->o.ca));
    memcpy(tls->pin, at_ca_pin_sha256_hex(tls->o.ca), sizeof tls->pin);
    if (tls->paths[CERT] != NULL) { /* it was checked that there is one */
        (void)!at_cert_pin_sha256_hex(t->of[CA].data, tls->pin, NULL);
    }
}

/* Everything anew from the texts, or nothing. */
static enum at_rc take(struct at_app_tls *tls, const struct texts *t, struct at_err *err)
{
    struct at_tls_config *config = NULL;
    struct at_crl *crl = NULL;
    int64_t expires_ns = 0;
    enum at_rc rc = crl_make(tls, t, &crl, err);
    rc = rc == AT_OK ? config_make(tls, t, &config, err) : rc;
    if (rc != AT_OK) {
        at_crl_free(crl);
        return rc;
    }
    at_tls_config_unref(tls->config);
    at_crl_free(tls->crl_before);
    tls->config = config;
    tls->crl_before = tls->crl;
    tls->crl = crl;
    trust_take(tls, t);
    const char *cert = tls->paths[CERT] != NULL ? t->of[CERT].data : tls->own_cert;
    if (at_cert_expiry(cert, &expires_ns, NULL) == AT_OK) {
        at_metric_set(tls->expires, expires_ns / AT_NS_PER_S);
    }
    return AT_OK;
}

static void failed(struct at_app_tls *tls, bool same, const struct at_err *err)
{
    if (same && !tls->told) { /* not just between the writing of two files */
        tls->told = true;
        at_metric_add(tls->failures, 1);
        at_log(AT_LOG_ERROR, "tls.reload_failed", "%s; what was loaded before stays in use",
               err->msg);
    }
}

static void look(void *ctx)
{
    struct at_app_tls *tls = ctx;
    struct texts t = {0};
    unsigned char digest[AT_SHA256_BYTES];
    struct at_err err = {0};
    bool due = own_is_due(tls);
    tls->timer = at_loop_timer(tls->o.loop, LOOK_NS, look, tls);
    enum at_rc rc = texts_read(tls, &t, digest, &err);
    bool changed = memcmp(digest, tls->used, sizeof digest) != 0;
    bool same = memcmp(digest, tls->seen, sizeof digest) == 0;
    memcpy(tls->seen, digest, sizeof digest);
    tls->told = tls->told && same && changed;
    if (changed || due) {
        rc = rc == AT_OK && due ? own_make(tls, &err) : rc;
        rc = rc == AT_OK ? take(tls, &t, &err) : rc;
        if (rc == AT_OK) {
            memcpy(tls->used, digest, sizeof digest);
            at_metric_add(tls->reloads, 1);
            at_log(AT_LOG_INFO, "tls.reloaded", "new connections are met with %s from now on",
                   due ? "a new certificate" : "what the files hold");
            tls->o.on_change(tls->o.ctx, tls->config, tls->crl);
        } else {
            failed(tls, same || due, &err);
        }
    }
    texts_done(&t);
}

static enum at_rc files_fit(const struct at_app_tls_files *f, struct at_err *err)
{
    bool some = f->cert != NULL || f->key != NULL || f->ca != NULL;
    if (some && (f->cert == NULL || f->key == NULL || f->ca == NULL)) {
        return at_err_set(err, AT_INVALID, "--tls-cert, --tls-key and --tls-ca go together");
    }
    if (f->client_crl != NULL && f->client_ca == NULL) {
        return at_err_set(err, AT_INVALID, "--client-crl needs --client-ca");
    }
    return f->lifetime_ns == 0 || f->lifetime_ns >= 3 * AT_NS_PER_S
               ? AT_OK
               : at_err_set(err, AT_INVALID, "--tls-lifetime must be at least 3s");
}

static void metrics_make(struct at_app_tls *tls)
{
    static const char *const RESULT[] = {"result", NULL};
    static const char *const OK[] = {"ok", NULL}, *const FAILED[] = {"failed", NULL};
    struct at_metric_family *reloads = at_metrics_family(
        tls->o.metrics, AT_METRIC_COUNTER, "atoll_server_tls_reloads_total",
        "Times that the certificate was renewed, or changed files were read, by result.", RESULT);
    tls->reloads = at_metric_with(reloads, OK);
    tls->failures = at_metric_with(reloads, FAILED);
    tls->expires = at_metric_plain(tls->o.metrics, AT_METRIC_GAUGE,
                                   "atoll_server_tls_certificate_expires_timestamp_seconds",
                                   "When the certificate in use ends, in seconds since 1970.");
}

enum at_rc at_app_tls_new(const struct at_app_tls_options *options, struct at_app_tls **ret,
                          struct at_err *err)
{
    struct at_app_tls *tls = AT_NEW(struct at_app_tls);
    struct texts t = {0};
    const struct at_app_tls_files *f = options->files;
    tls->o = *options;
    tls->paths[CERT] = f->cert;
    tls->paths[KEY] = f->key;
    tls->paths[CA] = f->ca;
    tls->paths[CLIENT_CA] = f->client_ca;
    tls->paths[CLIENT_CRL] = f->client_crl;
    metrics_make(tls);
    enum at_rc rc = files_fit(f, err);
    rc = rc == AT_OK ? texts_read(tls, &t, tls->used, err) : rc;
    if (rc == AT_OK && tls->paths[CERT] == NULL) {
        rc = own_make(tls, err);
    }
    rc = rc == AT_OK ? take(tls, &t, err) : rc;
    texts_done(&t);
    if (rc != AT_OK) {
        at_app_tls_free(tls);
        return rc;
    }
    tls->timer = at_loop_timer(tls->o.loop, LOOK_NS, look, tls);
    *ret = tls;
    return AT_OK;
}

void at_app_tls_free(struct at_app_tls *tls)
{
    if (tls == NULL) {
        return;
    }
    at_loop_timer_cancel(tls->o.loop, tls->timer);
    at_tls_config_unref(tls->config);
    at_crl_free(tls->crl);
    at_crl_free(tls->crl_before);
    at_free(tls->trust_pem);
    at_free(tls->own_cert);
    if (tls->own_key != NULL) {
        explicit_bzero(tls->own_key, strlen(tls->own_key));
    }
    at_free(tls->own_key);
    at_free(tls);
}

struct at_tls_config *at_app_tls_config(const struct at_app_tls *tls)
{
    return tls->config;
}

const struct at_crl *at_app_tls_crl(const struct at_app_tls *tls)
{
    return tls->crl;
}

const char *at_app_tls_trust_pem(const struct at_app_tls *tls)
{
    return tls->trust_pem;
}

const char *at_app_tls_pin(const struct at_app_tls *tls)
{
    return tls->pin;
}
