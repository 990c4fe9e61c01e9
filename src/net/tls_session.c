/* TLS sessions over a BIO that reads from a borrowed span and writes into a buffer. */
#include "core/mem.h"
#include "net/tls_int.h"

#include <assert.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

/* The stream's own queue limit comes first; this one is never met in practice. */
#define OUTPUT_BYTES_MAX ((size_t)80 << 20)

struct at_tls_session {
    struct at_tls_config *config;
    SSL *ssl;
    const char *in;
    size_t in_len;
    struct at_buf out;
    char subject[256]; /* that the peer must have; empty: any */
    struct at_tls_peer peer;
};

static int span_read(BIO *bio, char *out, size_t len, size_t *ret)
{
    struct at_tls_session *s = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (s->in_len == 0) {
        BIO_set_retry_read(bio);
        return 0;
    }
    size_t n = len < s->in_len ? len : s->in_len;
    memcpy(out, s->in, n);
    s->in += n;
    s->in_len -= n;
    *ret = n;
    return 1;
}

static int span_write(BIO *bio, const char *data, size_t len, size_t *ret)
{
    struct at_tls_session *s = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (at_buf_append(&s->out, data, len) != AT_OK) {
        return 0;
    }
    *ret = len;
    return 1;
}

static long span_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
    (void)bio, (void)num, (void)ptr;
    return cmd == BIO_CTRL_FLUSH ? 1 : 0;
}

BIO_METHOD *at_tls_bio_method_new(void)
{
    BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "atoll span");
    if (method != NULL) {
        BIO_meth_set_read_ex(method, span_read);
        BIO_meth_set_write_ex(method, span_write);
        BIO_meth_set_ctrl(method, span_ctrl);
    }
    return method;
}

/* SNI and, when peers are verified, the name (or IP address) that the certificate must carry. */
static bool set_name(SSL *ssl, const struct at_tls_config *config, const char *name)
{
    char host[256];
    size_t len = strcspn(name, "%"); /* an IPv6 zone is no part of the name */
    if (len == 0 || len >= sizeof host) {
        return true;
    }
    memcpy(host, name, len);
    host[len] = '\0';
    ASN1_OCTET_STRING *ip = a2i_IPADDRESS(host);
    ERR_clear_error();
    bool ok = true;
    if (ip == NULL) {
        ok = SSL_set_tlsext_host_name(ssl, host) == 1;
    }
    if (config->check_name) {
        X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
        ok = ok && (ip != NULL ? X509_VERIFY_PARAM_set1_ip_asc(param, host)
                               : SSL_set1_host(ssl, host)) == 1;
    }
    ASN1_OCTET_STRING_free(ip);
    return ok;
}

/* "<SNI> <common name>", where the configuration looks at subjects. */
static bool set_names(struct at_tls_session *s, const char *text)
{
    const char *space = s->config->by_subject ? strchr(text, ' ') : NULL;
    if (space == NULL) {
        return !s->config->by_subject && set_name(s->ssl, s->config, text);
    }
    char sni[256];
    if (space[1] == '\0' || (size_t)(space - text) >= sizeof sni ||
        strlen(space + 1) >= sizeof s->subject) {
        return false;
    }
    snprintf(sni, sizeof sni, "%.*s", (int)(space - text), text);
    snprintf(s->subject, sizeof s->subject, "%s", space + 1);
    return set_name(s->ssl, s->config, sni);
}

enum at_rc at_tls_session_new(struct at_tls_config *config, const char *server_name,
                              struct at_tls_session **ret, struct at_err *err)
{
    ERR_clear_error();
    struct at_tls_session *s = AT_NEW(struct at_tls_session);
    s->config = at_tls_config_ref(config);
    at_buf_init(&s->out, OUTPUT_BYTES_MAX);
    s->ssl = SSL_new(config->ctx);
    BIO *bio = BIO_new(config->bio);
    if (s->ssl == NULL || bio == NULL) {
        BIO_free(bio);
        at_tls_session_free(s);
        return at_tls_fail(err, AT_INTERNAL, "cannot set a TLS session up");
    }
    BIO_set_data(bio, s);
    BIO_set_init(bio, 1);
    SSL_set_bio(s->ssl, bio, bio);
    if (config->is_server) {
        SSL_set_accept_state(s->ssl);
    } else {
        SSL_set_connect_state(s->ssl);
        const char *name = config->server_name != NULL ? config->server_name : server_name;
        bool fits = name != NULL ? set_names(s, name) : !config->by_subject;
        if (!fits) {
            at_tls_session_free(s);
            return at_tls_fail(err, AT_INVALID, "the server's name");
        }
    }
    *ret = s;
    return AT_OK;
}

void at_tls_session_free(struct at_tls_session *session)
{
    if (session != NULL) {
        SSL_free(session->ssl);
        at_buf_done(&session->out);
        at_tls_config_unref(session->config);
        at_free(session);
    }
}

void at_tls_session_input(struct at_tls_session *session, const char *data, size_t len)
{
    session->in = data;
    session->in_len = len;
}

size_t at_tls_session_input_left(const struct at_tls_session *session)
{
    return session->in_len;
}

struct at_buf *at_tls_session_output(struct at_tls_session *session)
{
    return &session->out;
}

static void note_protocol(struct at_tls_session *s)
{
    const unsigned char *alpn = NULL;
    unsigned len = 0;
    SSL_get0_alpn_selected(s->ssl, &alpn, &len);
    s->peer.http2 = len == 2 && memcmp(alpn, "h2", 2) == 0;
    const char *name =
        s->config->is_server ? SSL_get_servername(s->ssl, TLSEXT_NAMETYPE_host_name) : NULL;
    if (name != NULL && strlen(name) < sizeof s->peer.server_name) {
        snprintf(s->peer.server_name, sizeof s->peer.server_name, "%s", name);
    }
}

static void note_peer(struct at_tls_session *s)
{
    X509 *cert = SSL_get0_peer_certificate(s->ssl);
    if (cert == NULL) {
        return;
    }
    at_tls_peer_of(cert, &s->peer);
    STACK_OF(X509) *chain = SSL_get0_verified_chain(s->ssl);
    if (sk_X509_num(chain) > 1) {
        at_tls_spki_sha256_hex(sk_X509_value(chain, 1), s->peer.issuer_spki_sha256_hex);
    } else if (s->config->may_resume != NULL && SSL_session_reused(s->ssl)) {
        at_tls_resume_issuer(s->ssl, s->peer.issuer_spki_sha256_hex);
    }
    s->peer.verified = SSL_get_verify_mode(s->ssl) != SSL_VERIFY_NONE &&
                       SSL_get_verify_result(s->ssl) == X509_V_OK;
}

/* An SSL_* call returned ret <= 0: what it means. */
static enum at_rc outcome(struct at_tls_session *s, int ret, const char *what, struct at_err *err)
{
    switch (SSL_get_error(s->ssl, ret)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        ERR_clear_error();
        return AT_AGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return AT_EOF;
    default:
        break;
    }
    long verify = SSL_get_verify_result(s->ssl);
    if (verify != X509_V_OK && SSL_get_verify_mode(s->ssl) != SSL_VERIFY_NONE) {
        ERR_clear_error();
        const char *why = verify == X509_V_ERR_APPLICATION_VERIFICATION /* by verify_pinned only */
                              ? "its chain has no key with the CA pin"
                              : X509_verify_cert_error_string(verify);
        return at_err_set(err, AT_UNAUTHENTICATED, "%s: the peer's certificate: %s", what, why);
    }
    int reason = ERR_GET_REASON(ERR_peek_error());
    bool certificate = reason == SSL_R_TLSV1_ALERT_UNKNOWN_CA ||
                       reason == SSL_R_SSLV3_ALERT_BAD_CERTIFICATE ||
                       reason == SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED ||
                       reason == SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN ||
                       reason == SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED ||
                       reason == SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED ||
                       reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE;
    return at_tls_fail(err, certificate ? AT_UNAUTHENTICATED : AT_UNAVAILABLE, what);
}

enum at_rc at_tls_session_handshake(struct at_tls_session *session, struct at_err *err)
{
    ERR_clear_error();
    int ret = SSL_do_handshake(session->ssl);
    if (ret == 1) {
        note_peer(session);
        note_protocol(session);
        if (session->subject[0] != '\0' &&
            strcmp(session->peer.common_name, session->subject) != 0) {
            return at_err_set(err, AT_UNAUTHENTICATED, "TLS handshake: the peer is %.100s, not %s",
                              session->peer.common_name, session->subject);
        }
        return AT_OK;
    }
    enum at_rc rc = outcome(session, ret, "TLS handshake", err);
    return rc == AT_EOF ? at_err_set(err, AT_UNAVAILABLE, "TLS handshake: closed by the peer") : rc;
}

enum at_rc at_tls_session_read(struct at_tls_session *session, void *buf, size_t len, size_t *ret,
                               struct at_err *err)
{
    ERR_clear_error();
    int n = SSL_read_ex(session->ssl, buf, len, ret);
    return n == 1 ? AT_OK : outcome(session, n, "TLS", err);
}

enum at_rc at_tls_session_write(struct at_tls_session *session, const void *data, size_t len,
                                struct at_err *err)
{
    ERR_clear_error();
    const char *p = data;
    while (len > 0) {
        size_t n = 0;
        int ok = SSL_write_ex(session->ssl, p, len, &n);
        if (ok != 1) {
            enum at_rc rc = outcome(session, ok, "TLS", err);
            return rc == AT_AGAIN || rc == AT_EOF
                       ? at_err_set(err, AT_UNAVAILABLE, "TLS: cannot write")
                       : rc;
        }
        p += n;
        len -= n;
    }
    return AT_OK;
}

void at_tls_session_shutdown(struct at_tls_session *session)
{
    ERR_clear_error();
    if (SSL_is_init_finished(session->ssl)) {
        (void)SSL_shutdown(session->ssl);
    }
    ERR_clear_error();
}

const struct at_tls_peer *at_tls_session_peer(const struct at_tls_session *session)
{
    return &session->peer;
}
