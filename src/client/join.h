/* How a machine becomes known to the control plane and stays so: a key and a certificate for it,
 * got once with a token over TLS pinned to the CA, kept in a folder, renewed before it ends. Agents
 * and gateways join alike. */
#ifndef AT_CLIENT_JOIN_H
#define AT_CLIENT_JOIN_H

#include "client/client.h"

struct at_join;

struct at_join_options {
    struct at_loop *loop;
    const char *server;    /* https://host:port, several with commas; more are learned */
    const char *role;      /* "agent" or "gateway" */
    const char *name;      /* of the machine; the certificate's name is made of role and it */
    const char *token;     /* NULL: a stored certificate is needed */
    const char *ca_pin;    /* sha256:<64 hex digits>; NULL as token */
    const char *state_dir; /* exists; holds identity.json (0600) */
    /* The list of servers is asked for so often when there are several, and the server in use is
     * taken for dead when it does not answer; 0: AT_JOIN_SERVERS_NS. Who beats anyway needs it
     * seldom. */
    int64_t servers_ns;
    int64_t renew_min_ns; /* least time between renewals; 0: AT_JOIN_RENEW_MIN_NS */
    /* Once, later: rc AT_OK, a client that carries the certificate and always will, and the site
     * that the server named (may be NULL). Both are the join's. Otherwise err says why it came to
     * nothing; nothing is tried any more. */
    void (*on_ready)(void *ctx, enum at_rc rc, struct at_client *client, const char *site,
                     const struct at_err *err);
    /* The machine's certificate, its key and the CA, PEM, for what else it proves itself with: just
     * before on_ready, and after each renewal. May be NULL. */
    void (*on_identity)(void *ctx, const char *cert_pem, const char *key_pem, const char *ca_pem);
    void *ctx;
};

/* Begin: with the stored certificate when it fits name and pin and still holds, else by the token.
 * in:   options and its texts borrowed until return
 * out:  *ret, to be freed when the client is no longer used
 * err:  AT_INVALID no certificate and no token, or a malformed pin (field "ca-pin")
 * own:  caller at_join_free.  thread: loop thread.  cost: reads one file; makes a key when joining.
 */
enum at_rc at_join_start(const struct at_join_options *options, struct at_join **ret,
                         struct at_err *err) AT_WARN_UNUSED;

/* End: no callback comes any more, and the client is gone. NULL is nothing. */
void at_join_free(struct at_join *join);

#endif
