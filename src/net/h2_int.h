/* HTTP/2 (RFC 9113) under the HTTP server: a connection whose first bytes are the preface carries
 * many exchanges at once. Framing and HPACK are nghttp2's; a stream's head is written out as
 * HTTP/1.1 text and parsed by the one strict parser, so nothing passes here that does not there. */
#ifndef AT_NET_H2_INT_H
#define AT_NET_H2_INT_H

#include "net/http_server_int.h"

#include <nghttp2/nghttp2.h>

struct at_h2_stream {
    struct at_http_exchange ex; /* first: at_h2_stream_of */
    struct at_h2_stream *prev, *next;
    struct at_h2_stream *ready_next; /* whole requests that wait for the handler */
    int32_t id;
    bool is_ready; /* in that list */
    bool whole;    /* the request is complete */
    bool handed;   /* the handler has it */
    bool answered; /* the handler is through with it; only bytes are left to send */
    bool begun;    /* the answer's head was given */
    bool bodyless;
    bool deferred;   /* nghttp2 waits for more of the answer */
    bool has_length; /* of the answer, by the handler's own Content-Length */
    uint64_t length_left;
    int refusal; /* status of a request that cannot be taken; 0: none */
    int64_t deadline_ns;
    void (*on_gone)(void *ctx);
    void *gone_ctx;
    void (*on_writable)(void *ctx);
    void *writable_ctx;
    size_t head_bytes; /* of names and values so far */
    size_t n_fields;
    struct at_buf method, path, authority, fields, cookie;
    struct at_buf in;       /* head as text; slices of ex.head point here */
    struct at_buf body;     /* of the request */
    struct at_buf out;      /* of the answer: bytes from out_at on are still to go */
    struct at_buf trailers; /* "name: value\r\n" lines after the answer */
    size_t out_at;
};

struct at_h2 {
    struct at_http_conn *conn;
    nghttp2_session *session;
    struct at_h2_stream *streams;
    struct at_h2_stream *ready, **ready_end;
    size_t n_streams;
    size_t body_bytes; /* of requests, together */
    size_t held_back;  /* of them, for which the connection's window is not opened yet */
    bool uploads_flow; /* some may be given to their handlers */
    at_timer_id flush_timer;
    bool in_flush;
    bool dead; /* the connection is gone; memory goes when its callbacks have returned */
    bool going;
};

static inline struct at_h2_stream *at_h2_stream_of(const struct at_http_exchange *ex)
{
    return (struct at_h2_stream *)(uintptr_t)ex;
}

/* h2_server.c: connections and requests in. */
/* 1 the bytes begin with the whole preface, 0 too few to tell, -1 this is no HTTP/2. */
int at_h2_preface(const char *data, size_t len);
bool at_h2_start(struct at_http_conn *c); /* false: out of memory */
/* All of data is taken. The connection may be gone on return (c->state CONN_CLOSED). */
void at_h2_take(struct at_http_conn *c, const char *data, size_t len);
void at_h2_writable(struct at_http_conn *c);
void at_h2_drain(struct at_http_conn *c);
/* What is overdue at now is refused or ended; the next deadline. */
int64_t at_h2_sweep(struct at_http_conn *c, int64_t now_ns);
void at_h2_gone(
    struct at_http_conn *c);       /* the connection is being thrown away: tell the handlers */
void at_h2_free(struct at_h2 *h2); /* accepts NULL */
void at_h2_flush_soon(struct at_h2 *h2);
void at_h2_body_drop(struct at_h2 *h2, struct at_buf *body); /* of a request */

/* h2_answer.c: what at_http_respond and its kin do for a stream. */
void at_h2_respond(struct at_h2_stream *st, int status, const char *content_type,
                   const char *headers, const void *body, size_t len);
void at_h2_stream_begin(struct at_h2_stream *st, int status, const char *content_type,
                        const char *headers);
enum at_rc at_h2_stream_write(struct at_h2_stream *st, const void *data, size_t len) AT_WARN_UNUSED;
void at_h2_stream_end(struct at_h2_stream *st, const char *trailers);
void at_h2_abort(struct at_h2_stream *st);
void at_h2_refuse(struct at_h2_stream *st, int status, enum at_rc rc, const char *message);

/* http_server.c and http_answer.c, for the two above. */
void at_http_conn_deadline(struct at_http_conn *c, int64_t delay_ns);
void at_http_conn_end(struct at_http_conn *c);
const char *at_http_date_line(struct at_http_server *server);
int at_http_refusal(char *out, size_t size, int status, enum at_rc rc, const char *message);

#endif
