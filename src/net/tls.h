/* TLS 1.3 on OpenSSL through memory BIOs: no I/O here, bytes in and bytes out. */
#ifndef AT_NET_TLS_H
#define AT_NET_TLS_H

#include "core/buf.h"

struct at_tls_config; /* immutable after creation, reference counted, shared by sessions of all
                         threads */

/* Who is at the other end, after the handshake. Empty strings when it has no certificate. */
struct at_tls_peer {
    char common_name[256];
    char organizations[8][128]; /* O= values: Kubernetes groups */
    size_t n_organizations;
    char issuer_spki_sha256_hex[65]; /* of who signed it: the next of the chain */
    char
        issuer_name_sha256_hex[65]; /* of the issuer's name (DER): whose revocation list it is in */
    char serial_hex[65];            /* upper case, no leading zeros; empty: too long */
    char fingerprint_sha256_hex[65]; /* of the certificate (DER) */
    int64_t issued_wall_ns; /* when its key may first be used, where it says; else its beginning */
    int64_t not_after_wall_ns;
    char server_name[256]; /* for servers: the name that the client asked for; empty: none */
    bool verified;
    bool http2; /* both have agreed on it */
};

struct at_tls_options {
    bool is_server;
    bool http2; /* server: choose h2 when the client offers it, else http/1.1; client: offer it */
    const char *cert_pem; /* own chain; NULL for a client without certificate */
    const char *key_pem;
    const char *ca_pem; /* trust anchors; for a server: asks for client certificates */
    bool verify_peer;   /* client: always set except when pinning at join; server: require a client
                           certificate */
    /* Server that asks for client certificates: may who showed this one before go on with a session
     * of then, without showing it again? Asked on the thread of the handshake. NULL: nobody with a
     * certificate may; without ca_pem everybody may, for nobody has one. */
    bool (*may_resume)(void *ctx, const struct at_tls_peer *peer);
    void *resume_ctx;
    const char *server_name; /* client: SNI and name check; NULL: host part of the address is used
                                by callers */
    /* Client: names given for connections are "<name for SNI> <common name>", and the certificate's
     * subject must have the latter; its own names are not looked at. */
    bool by_subject;
    const char *ca_pin_sha256_hex; /* client at join: accept exactly the chain whose root's SPKI has
                                      this digest */
};

/* err: AT_INVALID a certificate or key that cannot be read, or that do not belong together; the
 * message says which | AT_INTERNAL of OpenSSL. own: at_tls_config_unref; connections hold their own
 * references. */
enum at_rc at_tls_config_new(const struct at_tls_options *options, struct at_tls_config **ret,
                             struct at_err *err) AT_WARN_UNUSED;
struct at_tls_config *at_tls_config_ref(struct at_tls_config *config);
void at_tls_config_unref(struct at_tls_config *config);

#endif
