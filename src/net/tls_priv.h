/* One TLS connection without I/O; seen by this folder and its tests only. Ciphertext comes in as a
 * borrowed span and goes out into a buffer; stream.c moves it. */
#ifndef AT_NET_TLS_PRIV_H
#define AT_NET_TLS_PRIV_H

#include "net/tls.h"

struct at_tls_session;

/* server_name: for clients; NULL: the config's. own: at_tls_session_free. err: AT_INTERNAL. */
enum at_rc at_tls_session_new(struct at_tls_config *config, const char *server_name,
                              struct at_tls_session **ret, struct at_err *err) AT_WARN_UNUSED;
void at_tls_session_free(struct at_tls_session *session);

/* Ciphertext for the next calls, borrowed until at_tls_session_input_left is 0 or it is set anew.
 */
void at_tls_session_input(struct at_tls_session *session, const char *data, size_t len);
size_t at_tls_session_input_left(const struct at_tls_session *session);
/* Ciphertext to be sent; the caller consumes it. */
struct at_buf *at_tls_session_output(struct at_tls_session *session);

/* err: AT_AGAIN needs more input (after sending the output); AT_UNAUTHENTICATED the peer's
 * certificate, or ours, was refused; AT_UNAVAILABLE anything else. */
enum at_rc at_tls_session_handshake(struct at_tls_session *session,
                                    struct at_err *err) AT_WARN_UNUSED;
/* err: AT_AGAIN needs more input; AT_EOF the peer said close_notify; AT_UNAVAILABLE broken. */
enum at_rc at_tls_session_read(struct at_tls_session *session, void *buf, size_t len, size_t *ret,
                               struct at_err *err) AT_WARN_UNUSED;
/* Encrypts all of data into the output. err: AT_UNAVAILABLE broken. */
enum at_rc at_tls_session_write(struct at_tls_session *session, const void *data, size_t len,
                                struct at_err *err) AT_WARN_UNUSED;
void at_tls_session_shutdown(struct at_tls_session *session); /* queues close_notify */
const struct at_tls_peer *at_tls_session_peer(const struct at_tls_session *session);

#endif
