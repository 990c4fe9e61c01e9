/* What http_server.c (connections in) and http_answer.c (answers out) share. */
#ifndef AT_NET_HTTP_SERVER_INT_H
#define AT_NET_HTTP_SERVER_INT_H

#include "net/http_server.h"
#include "net/limits.h"

enum at_http_conn_state {
    CONN_IDLE,   /* nothing of a next request has come */
    CONN_HEAD,   /* some of its head has; gathered in body */
    CONN_BODY,   /* its head is in `in`, its body gathers in body */
    CONN_BUSY,   /* the handler has it */
    CONN_H2,     /* HTTP/2: h2 has the bytes, its streams are the exchanges */
    CONN_MUX,    /* shared: c->mux has the requests */
    CONN_ENDING, /* the last answer is given; the stream ends by itself */
    CONN_CLOSED,
};

struct at_h2;

/* A body that its handler takes as it comes (http_upload.c). */
struct at_http_upload {
    bool coming;
    bool paused;
    bool says_continue; /* once it is taken */
    struct at_http_body_events ev;
    int64_t since_ns; /* of what is counted in bytes: the last resumption */
    uint64_t bytes;
};

struct at_http_exchange {
    struct mux_stream *mux; /* that it is, on a shared connection (mux_server.c) */
    struct at_http_head head;
    struct at_str body;
    struct at_http_upload upload;
    struct at_h2 *h2; /* the session this is a stream of; NULL: the connection is HTTP/1.1 */
};

struct at_http_conn {
    struct at_http_exchange ex; /* first: at_http_conn_of */
    struct at_http_server *server;
    struct at_http_conn *prev, *next;
    struct at_stream *stream;
    struct mux_server *mux;
    enum at_http_conn_state state;
    struct at_h2 *h2;
    bool in_data;       /* on_data is running: memory stays until it returns */
    bool release_later; /* to be released then */
    bool paused;        /* pipelined bytes wait in the stream */
    bool corked;
    /* The answer being given. */
    bool streaming;
    bool chunked;
    bool bodyless;
    bool has_length;
    uint64_t length_left;
    at_timer_id head_timer; /* sends a streamed answer's head that no body followed at once */
    void (*on_gone)(void *ctx);
    void *gone_ctx;
    void (*on_writable)(void *ctx);
    void *writable_ctx;
    /* An upgraded connection: who reads what comes. */
    size_t (*on_raw)(void *ctx, const char *data, size_t len);
    void *raw_ctx;
    void (*on_raw_end)(void *ctx);
    void *raw_end_ctx;
    int64_t deadline_ns;
    size_t body_counted;  /* in server->bodies_bytes */
    size_t queue_counted; /* in server->answers_bytes */
    int64_t queued_since_ns;
    size_t parsed_bytes; /* of an incomplete head: size at the last attempt */
    struct at_http1_body body_reader;
    struct at_buf in;   /* head, and the body when it came with it */
    struct at_buf body; /* body that came later; before that, an incomplete head */
    struct at_buf out;  /* head of the answer */
};

/* What shows use of the limits; all NULL without a registry. */
struct at_http_server_metrics {
    struct at_metric *connections, *connections_refused, *bodies_bytes, *bodies_refused,
        *answers_bytes, *answers_refused, *slow_cut, *timeouts;
};

struct at_http_server {
    struct at_loop *loop;
    struct at_tls_config *tls;
    bool http2;
    int fd;
    at_watch_id watch;
    at_timer_id accept_timer; /* out of file descriptors: try again later */
    at_timer_id sweep_timer;
    int64_t sweep_at_ns; /* INT64_MAX: no timer */
    char addr[128];
    bool draining;
    bool mux; /* offers atoll-mux/1 */
    size_t body_bytes_max;
    size_t connections_max;
    size_t bodies_bytes_max, bodies_bytes;
    size_t answers_bytes_max, answers_bytes; /* as last seen, each connection at its last write */
    struct at_http_server_metrics metrics;
    int64_t idle_timeout_ns;
    int64_t head_timeout_ns;
    at_http_handler_fn *handler;
    bool (*early)(void *ctx, const struct at_http_exchange *ex);
    void *ctx;
    struct at_http_conn *conns;
    size_t n_conns;
    int64_t date_until_ns; /* when the text below is to be made anew */
    char date[48];         /* "Date: ...\r\n" */
};

static inline struct at_http_conn *at_http_conn_of(const struct at_http_exchange *ex)
{
    return (struct at_http_conn *)(uintptr_t)ex;
}

/* http_server.c */
void at_http_conn_answered(struct at_http_conn *c); /* on to the next request, or end */
void at_http_conn_free(struct at_http_conn *c);
void at_http_conn_release_if_gone(struct at_http_conn *c);
void at_http_conn_want_end(struct at_http_conn *c); /* c->on_raw_end is to be called */
/* http_limits.c */
void at_http_limits_init(struct at_http_server *server,
                         const struct at_http_server_options *options);
void at_http_count(struct at_metric *metric, int64_t by); /* NULL-safe */
/* The body that comes in on c holds so many bytes. False: all of them together are too many. */
bool at_http_body_count(struct at_http_conn *c, size_t bytes);
/* Look at what c's client has not read. */
void at_http_queue_count(struct at_http_conn *c);
/* Is there room for len more bytes that are not read at once? Cuts off the slow to make some. */
bool at_http_queue_room(struct at_http_conn *c, size_t len);
/* http_answer.c */
void at_http_answer_writable(struct at_http_conn *c);
bool at_http_never_has_body(int status);
/* Value of a Content-Length line among the handler's headers. */
bool at_http_given_length(const char *headers, uint64_t *ret);

#endif
