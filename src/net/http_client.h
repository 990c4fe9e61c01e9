/* HTTP/1.1 client with a connection pool per (address, TLS config). All on the loop's thread. */
#ifndef AT_NET_HTTP_CLIENT_H
#define AT_NET_HTTP_CLIENT_H

#include "net/http1.h"
#include "net/stream.h"

struct at_http_client;
typedef uint64_t at_http_call_id; /* 0 is never valid */

struct at_http_client_options {
    size_t connections_per_address_max; /* 0: 64; further calls wait in order */
    size_t waiting_max;                 /* 0: 1024; past it AT_EXHAUSTED */
    int64_t idle_timeout_ns;            /* 0: 30 s */
    int64_t connect_timeout_ns;         /* 0: 5 s */
    /* Ask servers on Unix sockets, and those whose answers say `Atoll-Mux: 1`, for atoll-mux/1
     * (mux.h). Nothing changes for the calls. */
    bool mux;
};

enum at_http2_use {
    AT_HTTP2_NEVER,
    AT_HTTP2_IF_OFFERED, /* by ALPN, where tls asks for it; else HTTP/1.1 */
    AT_HTTP2_ALWAYS,     /* from the first byte: it is known to speak it */
};

struct at_http_call {
    const char *addr;          /* "host:port" or "unix:/path" */
    struct at_tls_config *tls; /* NULL: plain */
    const char *server_name;   /* NULL: host part of addr */
    enum at_http2_use http2;   /* many calls on one connection; nothing changes for them */
    const char *host;          /* of the Host line; NULL: addr */
    enum at_http_method method;
    const char *target; /* "/path?query", already encoded */
    const char
        *headers;     /* "Name: value\r\n" lines, may be NULL; Host and Content-Length are added */
    const void *body; /* copied */
    size_t body_len;
    /* The body comes piece by piece, by at_http_call_write; body is NULL then. Once on_writable was
     * called: the head is on its way, to a connection that no other request was sent on. No piece
     * is ever sent twice: from the first one on the call is tried no more by itself. */
    bool body_later;
    bool has_body_length; /* of such a body; else it is sent in chunks */
    uint64_t body_length;
    void (*on_writable)(void *ctx); /* also when what was queued has drained */
    int64_t timeout_ns;             /* to the end of the answer; 0: none (watches) */
    int64_t first_byte_timeout_ns;  /* 0: none */
    int64_t
        piece_timeout_ns; /* from one piece of the answer to the next; 0: none. Pausing counts */
    /* Called with the head, once. body pieces follow. All optional but on_done. */
    void *ctx;
    void (*on_head)(void *ctx, const struct at_http_head *head);
    void (*on_body)(void *ctx, const char *data, size_t len);
    /* Once, last, never before at_http_call returns. rc AT_OK: the answer is complete, whatever its
     * status. bytes_sent false: the request did not reach the peer, so that any method may be
     * retried. */
    void (*on_done)(void *ctx, enum at_rc rc, bool bytes_sent, const struct at_err *err);
};

struct at_http_client *at_http_client_new(struct at_loop *loop,
                                          const struct at_http_client_options *options);
void at_http_client_free(
    struct at_http_client *client); /* cancels everything: on_done(AT_CANCELLED) before return */
at_http_call_id at_http_call(struct at_http_client *client, const struct at_http_call *call);
/* on_done(AT_CANCELLED) is called before return; its connection is closed. A stale id does nothing.
 */
void at_http_call_cancel(struct at_http_client *client, at_http_call_id id);
/* A piece of a body that comes later; queued as far as need be: stop at some
 * at_http_call_queued_bytes and go on in on_writable. first_byte_timeout_ns counts from it.
 * err: AT_UNAVAILABLE it is not wanted (any more): on_done tells; AT_INVALID it is longer than was
 * said; AT_EXHAUSTED over AT_STREAM_QUEUE_BYTES_MAX. */
enum at_rc at_http_call_write(struct at_http_client *client, at_http_call_id id, const void *data,
                              size_t len) AT_WARN_UNUSED;
/* That was all of it. One of known length has been written whole. */
void at_http_call_end(struct at_http_client *client, at_http_call_id id);
size_t at_http_call_queued_bytes(struct at_http_client *client, at_http_call_id id);
/* Back-pressure for on_body: stop or go on reading this answer. */
void at_http_call_pause(struct at_http_client *client, at_http_call_id id, bool paused);

#endif
