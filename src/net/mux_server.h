/* The server's side of atoll-mux/1; for http_server.c and http_answer.c. */
#ifndef AT_NET_MUX_SERVER_H
#define AT_NET_MUX_SERVER_H

#include "net/http_server_int.h"
#include "net/mux.h"

struct mux_server;

/* The connection's request asked for it: answer 101 and go on in frames. */
void at_mux_server_begin(struct at_http_conn *c);
size_t at_mux_server_data(struct mux_server *m, const char *data, size_t len); /* bytes taken */
void at_mux_server_drain(struct mux_server *m); /* take no more; the client closes */
void at_mux_server_gone(struct mux_server *m);  /* the connection is: whoever answers is told */
void at_mux_server_free(struct mux_server *m);  /* accepts NULL */

/* What the functions of http_server.h do for an exchange of a shared connection. */
struct at_stream *at_mux_server_stream(const struct at_http_exchange *ex);
void at_mux_respond(struct at_http_exchange *ex, int status, const char *content_type,
                    const char *headers, const void *body, size_t len);
void at_mux_stream_begin(struct at_http_exchange *ex, int status, const char *content_type,
                         const char *headers);
enum at_rc at_mux_stream_write(struct at_http_exchange *ex, const void *data,
                               size_t len) AT_WARN_UNUSED;
void at_mux_stream_end(struct at_http_exchange *ex);
void at_mux_abort(struct at_http_exchange *ex);
size_t at_mux_stream_queued_bytes(const struct at_http_exchange *ex);
void at_mux_on_gone(struct at_http_exchange *ex, void (*fn)(void *ctx), void *ctx);
void at_mux_on_writable(struct at_http_exchange *ex, void (*fn)(void *ctx), void *ctx);

#endif
