/* TLS configurations: certificates, trust, ALPN, pinning. Sessions are in tls_session.c. */
#include "core/digest.h"
#include "core/mem.h"
#include "net/tls_int.h"

#include <assert.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

static const unsigned char ALPN_HTTP11[] = "\x08http/1.1";
#define ALPN_HTTP11_BYTES (sizeof ALPN_HTTP11 - 1)
static const unsigned char ALPN_H2[] = "\x02h2\x08http/1.1"; /* the first is liked best */
#define ALPN_H2_BYTES (sizeof ALPN_H2 - 1)

enum at_rc at_tls_fail(struct at_err *err, enum at_rc rc, const char *what)
{
    char text[200] = "unknown reason";
    unsigned long code = ERR_get_error();
    if (code != 0) {
        ERR_error_string_n(code, text, sizeof text);
        const char *reason = ERR_reason_error_string(code);
        if (reason != NULL) {
            ERR_clear_error();
            return at_err_set(err, rc, "%s: %s", what, reason);
        }
    }
    ERR_clear_error();
    return at_err_set(err, rc, "%s: %s", what, text);
}

static int no_passphrase(char *buf, int size, int rwflag, void *ctx)
{
    (void)buf, (void)size, (void)rwflag, (void)ctx;
    return -1; /* OpenSSL would otherwise ask on the terminal */
}

/* All certificates of a PEM text. own: caller frees with sk_X509_pop_free. NULL: none, or broken.
 */
static STACK_OF(X509) * read_certs(const char *pem)
{
    STACK_OF(X509) *certs = sk_X509_new_null();
    BIO *bio = BIO_new_mem_buf(pem, -1);
    assert(certs != NULL && bio != NULL);
    X509 *cert;
    while ((cert = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL)) != NULL) {
        sk_X509_push(certs, cert);
    }
    bool clean = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    ERR_clear_error();
    BIO_free(bio);
    if (!clean || sk_X509_num(certs) == 0) {
        sk_X509_pop_free(certs, X509_free);
        return NULL;
    }
    return certs;
}

void at_tls_spki_sha256_hex(X509 *cert, char out[65])
{
    unsigned char *der = NULL;
    int len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der);
    out[0] = '\0';
    if (len > 0) {
        at_sha256_hex(der, (size_t)len, out);
    }
    OPENSSL_free(der);
}

/* Trust anchors; servers also name them to clients. ret_root (may be NULL) is the first one. */
static enum at_rc load_trust(SSL_CTX *ctx, const struct at_tls_options *o, struct at_err *err)
{
    STACK_OF(X509) *certs = read_certs(o->ca_pem);
    if (certs == NULL) {
        return at_err_set(err, AT_INVALID, "the CA is no PEM certificate");
    }
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    for (int i = 0; i < sk_X509_num(certs); i++) {
        X509_STORE_add_cert(store, sk_X509_value(certs, i));
        if (o->is_server) {
            SSL_CTX_add_client_CA(ctx, sk_X509_value(certs, i));
        }
    }
    /* A joining client knows only the digest of the CA's key: the chain must hold the CA itself. */
    STACK_OF(X509) *chain = NULL;
    X509 *leaf = SSL_CTX_get0_certificate(ctx);
    SSL_CTX_get0_chain_certs(ctx, &chain);
    if (o->is_server && leaf != NULL && sk_X509_num(chain) <= 0) {
        for (int i = 0; i < sk_X509_num(certs); i++) {
            X509 *ca = sk_X509_value(certs, i);
            if (X509_check_issued(ca, leaf) == X509_V_OK && X509_cmp(ca, leaf) != 0) {
                SSL_CTX_add1_chain_cert(ctx, ca);
                break;
            }
        }
    }
    sk_X509_pop_free(certs, X509_free);
    ERR_clear_error();
    return AT_OK;
}

static enum at_rc load_identity(SSL_CTX *ctx, const struct at_tls_options *o, struct at_err *err)
{
    if (o->key_pem == NULL) {
        return at_err_set(err, AT_INVALID, "a certificate without its key");
    }
    STACK_OF(X509) *certs = read_certs(o->cert_pem);
    if (certs == NULL) {
        return at_err_set(err, AT_INVALID, "the certificate is no PEM certificate");
    }
    BIO *bio = BIO_new_mem_buf(o->key_pem, -1);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
    BIO_free(bio);
    enum at_rc rc = AT_OK;
    if (key == NULL || SSL_CTX_use_certificate(ctx, sk_X509_value(certs, 0)) != 1 ||
        SSL_CTX_use_PrivateKey(ctx, key) != 1 || SSL_CTX_check_private_key(ctx) != 1) {
        rc = at_tls_fail(err, AT_INVALID, "the certificate and its key");
    }
    for (int i = 1; rc == AT_OK && i < sk_X509_num(certs); i++) {
        SSL_CTX_add1_chain_cert(ctx, sk_X509_value(certs, i));
    }
    EVP_PKEY_free(key);
    sk_X509_pop_free(certs, X509_free);
    return rc;
}

/* Servers: of what the client offers, h2 when this server has it, else http/1.1. A client without
 * ALPN is served too. */
static int choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                       const unsigned char *in, unsigned in_len, void *ctx)
{
    const struct at_tls_config *config = ctx;
    (void)ssl;
    unsigned char *chosen = NULL;
    const unsigned char *ours = config->http2 ? ALPN_H2 : ALPN_HTTP11;
    unsigned len = config->http2 ? ALPN_H2_BYTES : ALPN_HTTP11_BYTES;
    if (SSL_select_next_proto(&chosen, out_len, ours, len, in, in_len) != OPENSSL_NPN_NEGOTIATED) {
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

/* Servers: whatever name is asked for is kept, for those who look at it afterwards. */
static int keep_name(SSL *ssl, int *alert, void *ctx)
{
    (void)ssl, (void)alert, (void)ctx;
    return SSL_TLSEXT_ERR_OK;
}

/* Pinned clients: trust exactly the certificate of the chain whose key has the digest, then verify
 * as ever (signatures, validity, purpose, names). */
static int verify_pinned(X509_STORE_CTX *store, void *arg)
{
    const struct at_tls_config *config = arg;
    STACK_OF(X509) *sent = X509_STORE_CTX_get0_untrusted(store);
    for (int i = 0; i < sk_X509_num(sent); i++) {
        char digest[65];
        at_tls_spki_sha256_hex(sk_X509_value(sent, i), digest);
        if (strcmp(digest, config->pin) == 0) {
            STACK_OF(X509) *anchors = sk_X509_new_null();
            assert(anchors != NULL);
            sk_X509_push(anchors, sk_X509_value(sent, i));
            X509_STORE_CTX_set0_trusted_stack(store, anchors);
            int ok = X509_verify_cert(store);
            sk_X509_free(anchors);
            return ok;
        }
    }
    X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION);
    return 0;
}

static enum at_rc set_pin(struct at_tls_config *config, const char *pin, struct at_err *err)
{
    if (strncmp(pin, "sha256:", 7) == 0) {
        pin += 7;
    }
    if (strlen(pin) != 64 || strspn(pin, "0123456789abcdefABCDEF") != 64) {
        return at_err_set(err, AT_INVALID, "the CA pin is not a SHA-256 digest in hexadecimal");
    }
    for (size_t i = 0; i < 64; i++) {
        config->pin[i] = pin[i] >= 'A' && pin[i] <= 'F' ? (char)(pin[i] | 0x20) : pin[i];
    }
    SSL_CTX_set_cert_verify_callback(config->ctx, verify_pinned, config);
    return AT_OK;
}

static enum at_rc set_up(struct at_tls_config *config, const struct at_tls_options *o,
                         struct at_err *err)
{
    SSL_CTX *ctx = config->ctx;
    SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                              SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_default_passwd_cb(ctx, no_passphrase);
    /* What is trusted is trusted as it is: an authority whose own issuer is not known too. */
    X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(ctx), X509_V_FLAG_PARTIAL_CHAIN);
    enum at_rc rc = o->cert_pem != NULL ? load_identity(ctx, o, err) : AT_OK;
    if (rc == AT_OK && o->ca_pem != NULL) {
        rc = load_trust(ctx, o, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    if (o->is_server) {
        if (o->cert_pem == NULL) {
            return at_err_set(err, AT_INVALID, "a TLS server needs a certificate");
        }
        SSL_CTX_set_alpn_select_cb(ctx, choose_alpn, config);
        SSL_CTX_set_tlsext_servername_callback(ctx, keep_name);
        SSL_CTX_set_num_tickets(ctx, o->ca_pem != NULL ? 0 : 1);
        if (o->ca_pem != NULL && o->may_resume != NULL) {
            at_tls_resume_set_up(config);
        }
        SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
        SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"atoll", 5);
        int ask = o->ca_pem != NULL ? SSL_VERIFY_PEER : SSL_VERIFY_NONE;
        int must = o->verify_peer ? SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0;
        SSL_CTX_set_verify(ctx, ask | must, NULL);
        return AT_OK;
    }
    if (o->http2) {
        SSL_CTX_set_alpn_protos(ctx, ALPN_H2, ALPN_H2_BYTES);
    } else {
        SSL_CTX_set_alpn_protos(ctx, ALPN_HTTP11, ALPN_HTTP11_BYTES);
    }
    bool verify = o->verify_peer || o->ca_pin_sha256_hex != NULL;
    SSL_CTX_set_verify(ctx, verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    if (o->ca_pin_sha256_hex != NULL) {
        return set_pin(config, o->ca_pin_sha256_hex, err);
    }
    if (o->ca_pem == NULL && verify) {
        SSL_CTX_set_default_verify_paths(ctx);
    }
    return AT_OK;
}

enum at_rc at_tls_config_new(const struct at_tls_options *options, struct at_tls_config **ret,
                             struct at_err *err)
{
    ERR_clear_error();
    struct at_tls_config *config = AT_NEW(struct at_tls_config);
    config->refs = 1;
    config->is_server = options->is_server;
    config->http2 = options->http2;
    config->check_name = options->verify_peer && !options->by_subject;
    config->by_subject = options->by_subject;
    config->may_resume = options->may_resume;
    config->resume_ctx = options->resume_ctx;
    config->server_name = at_strdup(options->server_name);
    config->bio = at_tls_bio_method_new();
    config->ctx = SSL_CTX_new(options->is_server ? TLS_server_method() : TLS_client_method());
    enum at_rc rc;
    if (config->ctx == NULL || config->bio == NULL) {
        rc = at_tls_fail(err, AT_INTERNAL, "cannot set TLS up");
    } else {
        rc = set_up(config, options, err);
    }
    if (rc != AT_OK) {
        at_tls_config_unref(config);
        return rc;
    }
    *ret = config;
    return AT_OK;
}

struct at_tls_config *at_tls_config_ref(struct at_tls_config *config)
{
    if (config != NULL) {
        atomic_fetch_add_explicit(&config->refs, 1, memory_order_relaxed);
    }
    return config;
}

void at_tls_config_unref(struct at_tls_config *config)
{
    if (config == NULL || atomic_fetch_sub_explicit(&config->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    SSL_CTX_free(config->ctx);
    BIO_meth_free(config->bio);
    at_free(config->server_name);
    at_free(config);
}
