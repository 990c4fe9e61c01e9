/* What tls.c and tls_session.c share: OpenSSL's types stay behind this header. */
#ifndef AT_NET_TLS_INT_H
#define AT_NET_TLS_INT_H

#include "net/tls_priv.h"

#include <openssl/ssl.h>
#include <stdatomic.h>

struct at_tls_config {
    atomic_int refs;
    SSL_CTX *ctx;
    BIO_METHOD *bio;
    bool is_server;
    bool http2;
    bool check_name;
    bool by_subject;
    char *server_name; /* may be NULL */
    char pin[65];      /* lower-case hex, or empty */
    bool (*may_resume)(void *ctx, const struct at_tls_peer *peer);
    void *resume_ctx;
};

/* Fill err from OpenSSL's error queue and empty the queue. */
enum at_rc at_tls_fail(struct at_err *err, enum at_rc rc, const char *what);
void at_tls_spki_sha256_hex(X509 *cert, char out[65]);
/* What a certificate says of its holder; nothing of it is checked. */
void at_tls_peer_of(X509 *cert, struct at_tls_peer *ret);
BIO_METHOD *at_tls_bio_method_new(void);
/* tls_resume.c: tickets for whoever may show a certificate. */
void at_tls_resume_set_up(struct at_tls_config *config);
/* Of a resumed session, which has no chain: who signed the peer's certificate. */
void at_tls_resume_issuer(SSL *ssl, char out[65]);

#endif
