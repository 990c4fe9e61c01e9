/* HTTP server on a loop: HTTP/1.1 with keep-alive and pipelining in order, HTTP/2 with many
 * requests at once; bodies up to a limit, streamed answers. One handler gets every request when its
 * body is complete, and cannot tell the two apart. */
#ifndef AT_NET_HTTP_SERVER_H
#define AT_NET_HTTP_SERVER_H

#include "core/metrics.h"
#include "net/http1.h"
#include "net/stream.h"

struct at_http_server;
struct at_http_exchange; /* one request and its answer; lives until answered and on_gone was called
                          */

typedef void at_http_handler_fn(void *ctx, struct at_http_exchange *ex);

struct at_http_server_options {
    const char *listen; /* address text; port 0 takes a free one */
    bool reuse_port;
    struct at_tls_config *tls; /* NULL: plain */
    bool http2;              /* take HTTP/2 too, told by its preface; with TLS, tls must offer it */
    size_t body_bytes_max;   /* 413 past it */
    size_t connections_max;  /* past it, new connections get 503 and are closed */
    size_t bodies_bytes_max; /* of all bodies that still come in; past it 429. 0: no limit */
    size_t answers_bytes_max; /* of all answers that clients have not read yet: past it the slow are
                                 cut off, then new answers become 429. 0: no limit */
    struct at_metrics *metrics; /* shows use of the limits; NULL: nobody asks */
    int64_t idle_timeout_ns;    /* keep-alive connection without a request */
    int64_t head_timeout_ns;    /* from first byte to the whole request */
    bool mux; /* offer atoll-mux/1 (mux.h): many requests at once on one connection, to whoever asks
                 by Upgrade; every other answer says `Atoll-Mux: 1` */
    at_http_handler_fn *handler;
    /* Asked about each request whose body is not there yet, or too large; may be NULL. True: the
     * handler gets it at once, and its body piece by piece (at_http_body_take), however large. */
    bool (*early)(void *ctx, const struct at_http_exchange *ex);
    void *ctx;
};

/* Listens from the next turn of the loop on. err: AT_CONFLICT the address is taken | AT_INVALID it
 * is no address | AT_FORBIDDEN. own: at_http_server_free. thread: the loop's, all handlers too. */
enum at_rc at_http_server_new(struct at_loop *loop, const struct at_http_server_options *options,
                              struct at_http_server **ret, struct at_err *err) AT_WARN_UNUSED;
const char *
at_http_server_addr(const struct at_http_server *server); /* bound address, "127.0.0.1:34567" */
void at_http_server_drain(
    struct at_http_server *server); /* stop accepting; close idle; Connection: close on the rest */
/* For the connections that are accepted from now on; those that are open keep theirs. The server
 * was made with TLS. config: borrowed. */
void at_http_server_set_tls(struct at_http_server *server, struct at_tls_config *config);
size_t at_http_server_connections(const struct at_http_server *server);
void at_http_server_free(struct at_http_server *server); /* closes everything at once */

/* The request; valid until the exchange ends. */
const struct at_http_head *at_http_request(const struct at_http_exchange *ex);
struct at_str at_http_request_body(const struct at_http_exchange *ex);
/* A body that `early` wanted. Nothing of it is read before at_http_body_take; what comes then is
 * the handler's as it comes. Answers may begin and end before it has: what is left of it is not
 * read. */
struct at_http_body_events {
    void *ctx;
    void (*on_data)(void *ctx, const char *data, size_t len);
    /* Once, last: AT_OK it is complete; AT_BAD_REQUEST it is malformed, AT_TIMEOUT it came too
     * slowly: the handler answers that, or aborts. */
    void (*on_end)(void *ctx, enum at_rc rc, const char *message);
};
bool at_http_body_is_coming(const struct at_http_exchange *ex); /* until on_end with AT_OK */
/* From now on it comes, never before this returns; clients that expect `100 Continue` are told. */
void at_http_body_take(struct at_http_exchange *ex, const struct at_http_body_events *events);
void at_http_body_pause(struct at_http_exchange *ex, bool paused);
const struct at_tls_peer *
at_http_peer(const struct at_http_exchange *ex); /* NULL on plain connections */
const char *at_http_peer_addr(const struct at_http_exchange *ex);

/* Answers. headers: "Name: value\r\n" lines, may be NULL; Content-Length, Date, Connection are
 * added. Exactly one of: respond, or begin + write* + end, or abort. After respond/end/abort the
 * exchange must not be touched. */
void at_http_respond(struct at_http_exchange *ex, int status, const char *content_type,
                     const char *headers, const void *body, size_t len);
void at_http_stream_begin(struct at_http_exchange *ex, int status, const char *content_type,
                          const char *headers);
/* One chunk. err: AT_EXHAUSTED the client reads too slowly; AT_UNAVAILABLE it is gone. */
enum at_rc at_http_stream_write(struct at_http_exchange *ex, const void *data,
                                size_t len) AT_WARN_UNUSED;
void at_http_stream_end(struct at_http_exchange *ex);
/* End with trailers, "name: value\r\n" lines. HTTP/1.1: sent when the answer is chunked. */
void at_http_stream_end_trailers(struct at_http_exchange *ex, const char *trailers);
bool at_http_is_h2(const struct at_http_exchange *ex);
void at_http_abort(struct at_http_exchange *ex); /* cut the connection */
size_t at_http_stream_queued_bytes(const struct at_http_exchange *ex);

/* Answer 101 and take the connection over: fn gets what the client sends from now on and returns
 * how many bytes it took; the rest is kept back until at_http_upgraded_resume. at_http_stream_write
 * sends bytes as they are, at_http_stream_end closes once they are sent. headers: lines with \r\n,
 * Upgrade and Connection among them. */
void at_http_upgrade(struct at_http_exchange *ex, const char *headers,
                     size_t (*fn)(void *ctx, const char *data, size_t len), void *ctx);
void at_http_upgraded_resume(struct at_http_exchange *ex);
/* fn once when the client has sent its last byte but may read on: without it the exchange is gone
 * then. */
void at_http_upgraded_on_end(struct at_http_exchange *ex, void (*fn)(void *ctx), void *ctx);
/* Send what is queued, then end our side of the connection; what the client sends still comes. */
void at_http_upgraded_end_half(struct at_http_exchange *ex);

/* fn when the client goes away before the answer is complete; after it the exchange must not be
 * touched. */
void at_http_on_gone(struct at_http_exchange *ex, void (*fn)(void *ctx), void *ctx);
/* fn when the write queue of a streamed answer has drained. */
void at_http_on_writable(struct at_http_exchange *ex, void (*fn)(void *ctx), void *ctx);

#endif
