/* What http_client.c (calls and pools) and http_client_conn.c (bytes) share. */
#ifndef AT_NET_HTTP_CLIENT_INT_H
#define AT_NET_HTTP_CLIENT_INT_H

#include "core/map.h"
#include "net/http_client.h"
#include "net/limits.h"

struct client_conn {
    struct client_pool *pool;
    struct client_conn *prev, *next;           /* of the pool */
    struct client_conn *idle_prev, *idle_next; /* of the pool's idle or resting ones, last first */
    struct at_stream *stream;
    struct client_call *call; /* the one being answered; NULL: idle */
    bool is_idle;
    bool rests;     /* not to be used yet: will the peer close it? */
    bool chunked;   /* the last answer */
    bool reused;    /* has answered a call before: its end before an answer may be old news */
    bool got_bytes; /* of the answer */
    bool head_done;
    bool keep_alive;
    uint64_t written, asked_at; /* bytes, in all and before the request under way */
    bool in_data;               /* on_data is running: memory stays until it returns */
    bool dead;                  /* to be released then */
    struct at_http1_body body;
    int64_t idle_ns; /* how long the peer keeps it, less some; 0: it does not say */
    int64_t done_ns; /* when the last answer was complete */
    int64_t idle_until_ns;
};

/* A body that comes after the call (http_client_body.c). */
struct client_later {
    void (*on_writable)(void *ctx);
    bool is, chunked;
    bool open;  /* on_writable was called */
    bool begun; /* a piece was taken: it is never sent again */
    bool ended;
    bool deferred;     /* HTTP/2: nghttp2 waits for more of it */
    uint64_t left;     /* of a known length */
    struct at_buf out; /* HTTP/2: from out_at on still to go */
    size_t out_at;
    struct at_loop_task task; /* HTTP/2: on_writable */
};

struct client_call {
    struct at_http_client *client;
    uint64_t id;
    bool in_use;
    struct client_call *prev, *next; /* all in use; or free ones, by next */
    struct client_pool *pool;
    struct client_conn *conn;
    struct client_call *wait_prev, *wait_next;
    bool waiting;
    bool sent;
    bool head_seen;
    bool retried;
    bool paused;
    enum at_http_method method;
    int64_t deadline_ns, first_byte_at_ns, first_byte_ns;
    struct client_later later;
    int64_t piece_ns, piece_at_ns; /* time allowed between pieces; when the last one came */
    struct at_buf request;
    size_t head_bytes; /* of the request */
    /* On a shared connection (mux_client.c). */
    struct mux_conn *mux;
    uint32_t mux_id;
    uint32_t mux_window; /* of body that may be sent */
    uint32_t mux_credit; /* of body that may come */
    uint32_t mux_owed;   /* taken, not granted anew yet */
    size_t mux_sent;     /* of request */
    uint64_t mux_left;   /* of a body of known length; else UINT64_MAX */
    bool mux_ended;
    struct at_buf held; /* came while paused */
    /* On a connection of HTTP/2 (h2_client.c); the body sent and what is held are the above. */
    struct h2_conn *h2;
    struct client_call *h2_prev, *h2_next;
    int32_t h2_id; /* 0: waits for the connection */
    bool h2_ended; /* the answer is complete */
    unsigned h2_refusals;
    struct at_buf h2_head;
    struct at_loop_task resume_task;
    struct at_err *err; /* set: to be completed with it from the loop */
    void *ctx;
    void (*on_head)(void *ctx, const struct at_http_head *head);
    void (*on_body)(void *ctx, const char *data, size_t len);
    void (*on_done)(void *ctx, enum at_rc rc, bool bytes_sent, const struct at_err *err);
};

struct client_pool {
    struct at_http_client *client;
    char *key, *addr, *server_name;
    struct at_tls_config *tls;
    struct client_conn *conns, *idle, *resting;
    size_t n_resting;
    bool keeps; /* connections outlive answers in chunks here */
    size_t n_conns;
    struct client_call *first_waiting, *last_waiting;
    size_t n_waiting;
    struct mux_conn *mux; /* trying or open */
    bool speaks_mux;      /* it may: a Unix socket, or it has said so */
    int64_t mux_again_ns; /* not to be tried before */
    enum at_http2_use h2;
    struct h2_conn *h2_conns;
    size_t n_h2_conns;
    uint32_t h2_streams; /* at once, as the server said last; 0: not yet */
    size_t n_holds;      /* calls, and functions that work on it, keep it from being dropped */
};

struct at_http_client {
    struct at_loop *loop;
    struct at_map *pools;
    size_t connections_max, waiting_max;
    int64_t idle_timeout_ns, connect_timeout_ns;
    struct client_call **slots;
    size_t n_slots, slots_cap;
    bool mux;
    struct mux_conn *mux_conns;
    struct client_call *calls, *free_calls;
    at_timer_id sweep_timer, task_timer;
    int64_t sweep_at_ns; /* INT64_MAX: no timer */
    int depth;           /* loop events and at_http_client_free running */
    bool closing;
};

/* http_client.c */
struct client_call *at_client_find(const struct at_http_client *client, at_http_call_id id);
void at_client_complete(struct client_call *call, enum at_rc rc, const struct at_err *err);
void at_client_fail_later(struct client_call *call, enum at_rc rc, const struct at_err *err);
void at_client_conn_done(struct client_conn *conn, bool reuse);
void at_client_conn_closed(struct client_conn *conn); /* by the peer, while idle */
void at_client_send(struct client_conn *conn);
/* unread: the peer has got nothing of it. false: it must not be sent again. */
bool at_client_retry(struct client_call *call, bool unread);
void at_client_bind(struct client_call *call);
void at_client_start_waiting(struct client_pool *pool);
/* The call goes by HTTP/1.1 on a connection that is open already. */
void at_client_adopt(struct client_call *call, struct at_stream *stream_take);
void at_client_release(struct at_http_client *client);
void at_client_conn_free(struct client_conn *conn);
void at_client_pool_drop_if_empty(struct client_pool *pool);
void at_client_want_sweep(struct at_http_client *client, int64_t at_ns);
/* Handshakes cost both sides something, and may come in crowds. */
static inline int64_t at_client_connect_ns(const struct client_pool *pool)
{
    return pool->client->connect_timeout_ns * (pool->tls != NULL ? AT_HTTP_TLS_CONNECT_TIMES : 1);
}
/* A piece of the answer has come. */
static inline void at_client_piece(struct client_call *call)
{
    if (call->piece_ns > 0) {
        call->piece_at_ns = at_loop_now_ns(call->client->loop);
        at_client_want_sweep(call->client, call->piece_at_ns + call->piece_ns);
    }
}
/* http_client_body.c */
void at_client_body_begin(struct client_call *call, const struct at_http_call *c);
void at_client_body_writable(struct client_call *call); /* may end it */
void at_client_body_done(struct client_call *call);
/* http_client_conn.c */
struct at_stream_events at_client_conn_events(struct client_conn *conn);
void at_client_host_of(const char *addr, char *out, size_t out_size);
enum at_rc at_client_put_request(const struct at_http_call *c, struct at_buf *out) AT_WARN_UNUSED;

#endif
