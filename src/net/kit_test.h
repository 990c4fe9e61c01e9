/* What the folder's tests share: turning a loop until something holds, a raw connection, and
 * certificates made on the spot. */
#ifndef AT_NET_KIT_TEST_H
#define AT_NET_KIT_TEST_H

#include "core/mem.h"
#include "loop/kit_test.h"
#include "net/http_client.h"
#include "net/http_server.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define KIT_WAIT_NS ((int64_t)20000000000)

/* Turn the loop until cond holds; fails the test when it does not in time. */
#define TURN_UNTIL(loop, cond)                                                                     \
    do {                                                                                           \
        int64_t kit_end_ = at_sys_mono_ns(at_loop_sys(loop)) + KIT_WAIT_NS;                        \
        while (!(cond)) {                                                                          \
            assert_true(at_sys_mono_ns(at_loop_sys(loop)) < kit_end_);                             \
            at_loop_turn(loop, at_sys_mono_ns(at_loop_sys(loop)) + 50000000);                      \
        }                                                                                          \
    } while (0)

struct raw {
    struct at_stream *stream;
    struct at_buf got;
    bool open, closed, hold; /* hold: take nothing */
    enum at_rc rc;
};

static inline void raw_on_open(void *ctx)
{
    ((struct raw *)ctx)->open = true;
}

static inline size_t raw_on_data(void *ctx, const char *data, size_t len)
{
    struct raw *raw = ctx;
    assert_int_equal(at_buf_append(&raw->got, data, len), AT_OK);
    return len;
}

static inline void raw_on_close(void *ctx, enum at_rc rc, const struct at_err *err)
{
    struct raw *raw = ctx;
    (void)err;
    raw->closed = true;
    raw->rc = rc;
    raw->stream = NULL;
}

static inline void raw_connect(struct raw *raw, struct at_loop *loop, const char *addr,
                               struct at_tls_config *tls)
{
    *raw = (struct raw){0};
    struct at_stream_events ev = {
        .ctx = raw, .on_open = raw_on_open, .on_data = raw_on_data, .on_close = raw_on_close};
    raw->stream = at_stream_connect(loop, addr, tls, "localhost", KIT_WAIT_NS, &ev);
    TURN_UNTIL(loop, raw->open || raw->closed);
}

static inline void raw_send(struct raw *raw, const char *text)
{
    assert_non_null(raw->stream);
    assert_int_equal(at_stream_write(raw->stream, text, strlen(text)), AT_OK);
}

static inline void raw_done(struct raw *raw)
{
    at_stream_free(raw->stream);
    at_buf_done(&raw->got);
}

static inline size_t count_of(const struct at_buf *b, const char *needle)
{
    size_t n = 0;
    for (const char *p = b->data; p != NULL && (p = strstr(p, needle)) != NULL; p++) {
        n++;
    }
    return n;
}

/* --- certificates --- */

struct kit_cert {
    EVP_PKEY *key;
    X509 *cert;
    char *cert_pem, *key_pem;
};

static inline char *kit_pem(int (*write)(BIO *, const void *), const void *what)
{
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(write(bio, what), 1);
    char *data;
    long len = BIO_get_mem_data(bio, &data);
    char *text = at_strndup(data, (size_t)len);
    BIO_free(bio);
    return text;
}

static inline int kit_write_cert(BIO *bio, const void *cert)
{
    return PEM_write_bio_X509(bio, (X509 *)(uintptr_t)cert);
}

static inline int kit_write_key(BIO *bio, const void *key)
{
    return PEM_write_bio_PrivateKey(bio, (EVP_PKEY *)(uintptr_t)key, NULL, NULL, 0, NULL, NULL);
}

static inline void kit_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    assert_non_null(ext);
    X509_add_ext(cert, ext, -1);
    X509_EXTENSION_free(ext);
}

/* ca NULL: a CA of its own; else issued by ca, with SAN localhost and 127.0.0.1. */
static inline struct kit_cert kit_cert_new(const struct kit_cert *ca, const char *name,
                                           const char *organization)
{
    static long serial = 1;
    struct kit_cert c = {.key = EVP_EC_gen("P-256"), .cert = X509_new()};
    X509_set_version(c.cert, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(c.cert), serial++);
    X509_gmtime_adj(X509_getm_notBefore(c.cert), -60);
    X509_gmtime_adj(X509_getm_notAfter(c.cert), 3600);
    X509_set_pubkey(c.cert, c.key);
    X509_NAME *subject = X509_get_subject_name(c.cert);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    if (organization != NULL) {
        X509_NAME_add_entry_by_txt(subject, "O", MBSTRING_ASC, (const unsigned char *)organization,
                                   -1, -1, 0);
    }
    X509_set_issuer_name(c.cert, ca != NULL ? X509_get_subject_name(ca->cert) : subject);
    if (ca == NULL) {
        kit_extension(c.cert, c.cert, NID_basic_constraints, "critical,CA:TRUE");
        kit_extension(c.cert, c.cert, NID_key_usage, "critical,keyCertSign,cRLSign");
    } else {
        kit_extension(c.cert, ca->cert, NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1");
    }
    assert_true(X509_sign(c.cert, ca != NULL ? ca->key : c.key, EVP_sha256()) > 0);
    c.cert_pem = kit_pem(kit_write_cert, c.cert);
    c.key_pem = kit_pem(kit_write_key, c.key);
    return c;
}

static inline void kit_cert_done(struct kit_cert *c)
{
    EVP_PKEY_free(c->key);
    X509_free(c->cert);
    at_free(c->cert_pem);
    at_free(c->key_pem);
}

#endif
