/* The certificate that the server shows, and whose certificates it takes: its own authority's, made
 * anew before it ends, or files, read again when they change. */
#ifndef AT_APPS_SERVER_TLS_H
#define AT_APPS_SERVER_TLS_H

#include "core/metrics.h"
#include "loop/loop.h"
#include "net/tls.h"
#include "security/crl.h"
#include "security/security.h"

struct at_app_tls_files {
    const char *cert, *key; /* PEM, of the server; NULL: one of its own authority */
    const char *ca;         /* who made cert: handed to those who join; with cert */
    const char *client_ca;  /* whose client certificates are taken too; NULL: nobody else's */
    const char *client_crl; /* which of them are revoked; NULL: none */
    int64_t lifetime_ns;    /* of the own certificate; 0: the default */
};

struct at_app_tls_options {
    struct at_loop *loop;
    struct at_ca *ca;
    const struct at_app_tls_files *files; /* kept by pointer, as all below */
    const char *const *names, *const *addresses;
    struct at_metrics *metrics;
    /* Something is another one from now on: config for new connections, crl for all. Not called
     * for the first ones. */
    void (*on_change)(void *ctx, struct at_tls_config *config, const struct at_crl *crl);
    bool (*may_resume)(void *ctx, const struct at_tls_peer *peer); /* as at_tls_options */
    void *ctx;
};

struct at_app_tls;

/* err: AT_INVALID a file, which one and why | those of files. own: at_app_tls_free. */
enum at_rc at_app_tls_new(const struct at_app_tls_options *options, struct at_app_tls **ret,
                          struct at_err *err) AT_WARN_UNUSED;
void at_app_tls_free(struct at_app_tls *tls);                          /* accepts NULL */
struct at_tls_config *at_app_tls_config(const struct at_app_tls *tls); /* borrowed */
const struct at_crl *at_app_tls_crl(const struct at_app_tls *tls);     /* borrowed; may be NULL */
/* What a client must trust to come here, PEM, and the pin that a joiner is given. */
const char *at_app_tls_trust_pem(const struct at_app_tls *tls);
const char *at_app_tls_pin(const struct at_app_tls *tls);

#endif
