/* Sessions that go on where one with a client certificate ended. The ticket carries the
 * certificate, but not its chain: so who signed it goes with it. Whether that certificate still
 * counts is asked anew; a ticket lives no longer than the configuration it was made with, for its
 * key does not. */
#include "net/tls_int.h"

#include <stdio.h>
#include <string.h>

static void issuer_of(SSL_SESSION *session, char out[65])
{
    void *data = NULL;
    size_t len = 0;
    out[0] = '\0';
    if (SSL_SESSION_get0_ticket_appdata(session, &data, &len) == 1 && len == 64) {
        memcpy(out, data, len);
        out[len] = '\0';
    }
}

void at_tls_resume_issuer(SSL *ssl, char out[65])
{
    issuer_of(SSL_get0_session(ssl), out);
}

static int ticket_make(SSL *ssl, void *ctx)
{
    (void)ctx;
    char issuer[65] = "";
    STACK_OF(X509) *chain = SSL_get0_verified_chain(ssl);
    if (SSL_session_reused(ssl)) { /* again, from the ticket before it */
        at_tls_resume_issuer(ssl, issuer);
    } else if (sk_X509_num(chain) > 1) {
        at_tls_spki_sha256_hex(sk_X509_value(chain, 1), issuer);
    }
    return SSL_SESSION_set1_ticket_appdata(SSL_get0_session(ssl), issuer, strlen(issuer));
}

static bool may_go_on(const struct at_tls_config *config, SSL_SESSION *session)
{
    X509 *cert = SSL_SESSION_get0_peer(session);
    struct at_tls_peer peer;
    if (cert == NULL) {
        return true; /* who shows a token does so with every request */
    }
    at_tls_peer_of(cert, &peer);
    peer.verified = true; /* else there had been no session */
    issuer_of(session, peer.issuer_spki_sha256_hex);
    return config->may_resume(config->resume_ctx, &peer);
}

static SSL_TICKET_RETURN ticket_read(SSL *ssl, SSL_SESSION *session, const unsigned char *key_name,
                                     size_t key_name_len, SSL_TICKET_STATUS status, void *ctx)
{
    (void)ssl;
    (void)key_name;
    (void)key_name_len;
    if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW) {
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    }
    return may_go_on(ctx, session) ? SSL_TICKET_RETURN_USE_RENEW : SSL_TICKET_RETURN_IGNORE_RENEW;
}

void at_tls_resume_set_up(struct at_tls_config *config)
{
    SSL_CTX_set_num_tickets(config->ctx, 1);
    SSL_CTX_set_session_ticket_cb(config->ctx, ticket_make, ticket_read, config);
}
