/* HTTP server: one exchange at a time per connection. A request that came whole in one read is
 * copied once (head and body together) into the connection's own buffer, where its slices stay put
 * until it is answered; pipelined requests behind it wait in the stream. */
#include "net/http_server.h"

#include "core/mem.h"
#include "net/h2_int.h"
#include "net/http_upload.h"
#include "net/mux_server.h"
#include "sys/socket.h"

#include <assert.h>
#include <stdio.h>

static void on_sweep(void *ctx);

static void conn_release(struct at_http_conn *c)
{
    at_h2_free(c->h2);
    at_buf_done(&c->in);
    at_buf_done(&c->body);
    at_buf_done(&c->out);
    at_mux_server_free(c->mux);
    at_free(c);
}

void at_http_conn_release_if_gone(struct at_http_conn *c)
{
    if (c->release_later && !c->in_data) {
        conn_release(c);
    }
}

/* Throw the connection away; whoever was answering on it is told. */
void at_http_conn_free(struct at_http_conn *c)
{
    struct at_http_server *server = c->server;
    void (*gone)(void *) = c->state == CONN_BUSY ? c->on_gone : NULL;
    assert(server->n_conns > 0);
    *(c->prev != NULL ? &c->prev->next : &server->conns) = c->next;
    if (c->next != NULL) {
        c->next->prev = c->prev;
    }
    server->n_conns--;
    at_http_count(server->metrics.connections, -1);
    at_loop_timer_cancel(server->loop, c->head_timer);
    at_stream_free(c->stream);
    c->stream = NULL;
    (void)at_http_body_count(c, 0);
    at_http_queue_count(c);
    bool was_mux = c->state == CONN_MUX;
    c->state = CONN_CLOSED;
    if (was_mux) {
        at_mux_server_gone(c->mux);
    }
    if (gone != NULL) {
        gone(c->gone_ctx);
    }
    if (c->h2 != NULL) {
        at_h2_gone(c);
    }
    if (c->in_data) {
        c->release_later = true;
    } else {
        conn_release(c);
    }
}

/* Deadlines are looked at by one timer per server, set to the earliest that was known when it was
 * set: no timer is touched per request. */
void at_http_conn_deadline(struct at_http_conn *c, int64_t delay_ns)
{
    struct at_http_server *server = c->server;
    c->deadline_ns = delay_ns > 0 ? at_loop_now_ns(server->loop) + delay_ns : INT64_MAX;
    if (c->deadline_ns < server->sweep_at_ns) {
        at_loop_timer_cancel(server->loop, server->sweep_timer);
        server->sweep_at_ns = c->deadline_ns;
        server->sweep_timer = at_loop_timer(server->loop, delay_ns, on_sweep, server);
    }
}

void at_http_conn_end(struct at_http_conn *c)
{
    c->state = CONN_ENDING;
    c->deadline_ns = INT64_MAX; /* the stream has its own limit for ending */
    at_stream_end(c->stream);
}

static void trim(struct at_buf *buf)
{
    if (buf->cap > AT_HTTP_KEEP_BYTES_MAX) {
        at_buf_done(buf);
    } else {
        at_buf_clear(buf);
    }
}

void at_http_conn_answered(struct at_http_conn *c)
{
    assert(c->state == CONN_BUSY);
    c->on_gone = NULL;
    c->on_writable = NULL;
    c->on_raw = NULL;
    trim(&c->in);
    trim(&c->body);
    (void)at_http_body_count(c, 0);
    if (!c->ex.head.keep_alive || c->ex.upload.coming) {
        c->ex.upload.coming = false;
        at_http_conn_end(c);
        return;
    }
    c->state = CONN_IDLE;
    at_http_conn_deadline(c, c->server->idle_timeout_ns);
    if (c->paused && !c->in_data) {
        c->paused = false;
        at_stream_resume(c->stream);
    }
}

/* The body of a refusal: a Kubernetes Status that inference clients can read too. */
int at_http_refusal(char *out, size_t size, int status, enum at_rc rc, const char *message)
{
    int n = snprintf(out, size,
                     "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},"
                     "\"status\":\"Failure\",\"message\":\"%s\",\"reason\":\"%s\",\"code\":%d,"
                     "\"error\":\"%s\"}\n",
                     message, at_rc_name(rc), status, message);
    assert(n > 0 && (size_t)n < size);
    return n;
}

/* Refuse what was read of a request: the connection cannot be used after it. */
static void refuse(struct at_http_conn *c, int status, enum at_rc rc, const char *message)
{
    char body[2 * AT_ERR_MSG_BYTES_MAX + 256];
    int n = at_http_refusal(body, sizeof body, status, rc, message);
    c->ex.head.keep_alive = false;
    c->ex.head.method = AT_HTTP_POST; /* what was read of the head may be wrong */
    c->ex.head.minor = 1;
    c->state = CONN_BUSY;
    const char *retry = status == 429 || status == 503 ? "Retry-After: 1\r\n" : NULL;
    at_http_respond(&c->ex, status, "application/json", retry, body, (size_t)n);
}

static void on_sweep(void *ctx)
{
    struct at_http_server *server = ctx;
    int64_t now = at_loop_now_ns(server->loop);
    int64_t first = INT64_MAX;
    server->sweep_timer = 0;
    server->sweep_at_ns = 0; /* no timer is set while this runs */
    for (struct at_http_conn *c = server->conns, *next; c != NULL; c = next) {
        next = c->next;
        if (c->deadline_ns <= now && c->state == CONN_H2) {
            c->deadline_ns = at_h2_sweep(c, now);
        } else if (c->deadline_ns <= now && c->state == CONN_IDLE) {
            at_http_conn_end(c);
        } else if (c->deadline_ns <= now && c->state == CONN_BUSY) {
            c->in_data = true; /* its memory outlives what the handler does */
            at_http_upload_late(&c->ex);
            c->in_data = false;
        } else if (c->deadline_ns <= now) {
            assert(c->state == CONN_HEAD || c->state == CONN_BODY);
            at_http_count(server->metrics.timeouts, 1);
            refuse(c, 408, AT_TIMEOUT, "the request was not complete in time");
        }
        first = c->deadline_ns < first ? c->deadline_ns : first;
        at_http_conn_release_if_gone(c);
    }
    server->sweep_at_ns = first;
    if (first != INT64_MAX) {
        server->sweep_timer =
            at_loop_timer(server->loop, first > now ? first - now : 1, on_sweep, server);
    }
}

/* The whole request is there; more says that bytes of a next one are too. */
static void dispatch(struct at_http_conn *c, bool more)
{
    c->state = CONN_BUSY;
    c->deadline_ns = INT64_MAX;
    c->ex.head.keep_alive &= !c->server->draining;
    if (more && !c->corked) {
        c->corked = true;
        at_stream_cork(c->stream);
    }
    if (c->server->mux && c->ex.head.upgrade && !c->server->draining && c->ex.body.len == 0 &&
        !c->ex.upload.coming &&
        at_str_eq_nocase(at_http_header_get(&c->ex.head, "upgrade"), AT_MUX_PROTOCOL)) {
        at_mux_server_begin(c);
        return;
    }
    c->server->handler(c->server->ctx, &c->ex);
}

/* Slices that point into from[0..len) shall point to the same bytes at to. */
static void rebase(struct at_http_head *h, const char *from, size_t len, const char *to)
{
    struct at_str *own[] = {&h->method_text, &h->target, &h->path, &h->query};
    for (size_t i = 0; i < AT_ARRAY_LEN(own); i++) {
        if (own[i]->ptr >= from && own[i]->ptr <= from + len) { /* else a literal "/" */
            own[i]->ptr = to + (own[i]->ptr - from);
        }
    }
    for (size_t i = 0; i < h->n_headers; i++) {
        h->headers[i].name.ptr = to + (h->headers[i].name.ptr - from);
        h->headers[i].value.ptr = to + (h->headers[i].value.ptr - from);
    }
}

/* Copy the head (and the body behind it) from data[0..len) to where it stays. */
static bool keep(struct at_http_conn *c, const char *data, size_t len)
{
    at_buf_clear(&c->in);
    if (at_buf_append(&c->in, data, len) != AT_OK) {
        refuse(c, 503, AT_UNAVAILABLE, "out of memory");
        return false;
    }
    rebase(&c->ex.head, data, c->ex.head.head_bytes, c->in.data);
    return true;
}

static void begin_body(struct at_http_conn *c, bool nothing_behind)
{
    static const char CONTINUE[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct at_http_head *h = &c->ex.head;
    at_http1_body_begin(&c->body_reader, h, h->method);
    at_buf_clear(&c->body);
    c->body.max = c->server->body_bytes_max;
    c->state = CONN_BODY;
    if (h->has_length) {
        char *place; /* one allocation for the usual sizes; a failure shows when bytes come */
        size_t guess = h->content_length < ((size_t)1 << 20) ? h->content_length : (size_t)1 << 20;
        (void)!at_buf_reserve(&c->body, guess, &place);
    }
    if (h->expect_continue && nothing_behind) {
        (void)!at_stream_write(c->stream, CONTINUE, sizeof CONTINUE - 1);
    }
}

static void refuse_busy(struct at_http_conn *c)
{
    refuse(c, 429, AT_EXHAUSTED, "the server takes no more of such requests now, try again later");
}

/* What came of a chunked body with its head: is it all of it, or malformed? Then it is taken whole,
 * or refused, and nobody hears of it before. */
static bool is_settled(const struct at_http_conn *c, const char *data, size_t len)
{
    struct at_http1_body reader;
    struct at_str piece;
    struct at_err err;
    at_http1_body_begin(&reader, &c->ex.head, c->ex.head.method);
    for (size_t used = 0, n; used < len && !reader.done; used += n) {
        if (at_http1_body_take(&reader, data + used, len - used, &n, &piece, &err) != AT_OK) {
            return true;
        }
    }
    return reader.done;
}

/* c->ex.head was parsed from data[0..len). Returns the bytes of data that the request took. */
static size_t take_head(struct at_http_conn *c, const char *data, size_t len)
{
    struct at_http_head *h = &c->ex.head;
    bool is_large = h->has_length && h->content_length > c->server->body_bytes_max;
    bool is_partial = h->chunked || is_large || h->head_bytes + h->content_length > len;
    bool settled = h->chunked && c->server->early != NULL &&
                   is_settled(c, data + h->head_bytes, len - h->head_bytes);
    if (is_partial && !settled && at_http_upload_wanted(c->server, &c->ex)) {
        if (keep(c, data, h->head_bytes)) {
            at_http1_body_begin(&c->body_reader, h, h->method);
            c->ex.upload.says_continue = h->expect_continue && len == h->head_bytes;
            dispatch(c, len > h->head_bytes);
        }
        return h->head_bytes;
    }
    if (is_large) {
        refuse(c, 413, AT_TOO_LARGE, "the request body is larger than this server takes");
        return len;
    }
    size_t whole = h->head_bytes + (size_t)h->content_length;
    if (!h->chunked && whole <= len) {
        if (keep(c, data, whole)) {
            c->ex.body = (struct at_str){c->in.data + h->head_bytes, whole - h->head_bytes};
            dispatch(c, whole < len);
        }
        return whole;
    }
    if (!at_http_body_count(c, h->has_length ? (size_t)h->content_length : 0)) {
        refuse_busy(c);
        return len;
    }
    if (keep(c, data, h->head_bytes)) {
        begin_body(c, len == h->head_bytes);
    }
    return h->head_bytes;
}

static size_t refuse_head(struct at_http_conn *c, enum at_rc rc, const struct at_err *err,
                          size_t len)
{
    refuse(c, rc == AT_TOO_LARGE ? 431 : 400, rc, err->msg);
    return len;
}

/* A head that does not come in one piece gathers in c->body. It is parsed again only when the empty
 * line has come or its size has doubled, so that drops of a head do not cost a parse each. */
static size_t gather_head(struct at_http_conn *c, const char *data, size_t len)
{
    size_t had = c->body.len;
    size_t room = AT_HTTP_HEAD_BYTES_MAX + 1 - had;
    size_t n = len < room ? len : room;
    c->body.max = AT_HTTP_HEAD_BYTES_MAX + 1;
    struct at_err err;
    if (at_buf_append(&c->body, data, n) != AT_OK) {
        at_err_set(&err, AT_TOO_LARGE, "the header is too large");
        return refuse_head(c, AT_TOO_LARGE, &err, len);
    }
    struct at_buf *b = &c->body;
    size_t from = had > 3 ? had - 3 : 0;
    bool ended = memmem(b->data + from, b->len - from, "\r\n\r\n", 4) != NULL;
    if (!ended && b->len < 2 * c->parsed_bytes && b->len <= AT_HTTP_HEAD_BYTES_MAX) {
        return n;
    }
    c->parsed_bytes = b->len;
    enum at_rc rc = at_http1_parse_request(b->data, b->len, &c->ex.head, &err);
    if (rc == AT_AGAIN) {
        return n;
    }
    if (rc != AT_OK) {
        return refuse_head(c, rc, &err, len);
    }
    size_t used = take_head(c, b->data, b->len);
    assert(used > had);
    return used - had;
}

static size_t head_data(struct at_http_conn *c, const char *data, size_t len)
{
    if (c->state == CONN_IDLE) {
        c->state = CONN_HEAD;
        c->parsed_bytes = 0;
        at_buf_clear(&c->body);
        at_http_conn_deadline(c, c->server->head_timeout_ns);
    }
    if (c->body.len > 0) {
        return gather_head(c, data, len);
    }
    struct at_err err;
    enum at_rc rc = at_http1_parse_request(data, len, &c->ex.head, &err);
    if (rc == AT_OK) {
        return take_head(c, data, len);
    }
    if (rc != AT_AGAIN) {
        return refuse_head(c, rc, &err, len);
    }
    c->parsed_bytes = len; /* gather without parsing the same bytes again */
    return gather_head(c, data, len);
}

static size_t body_data(struct at_http_conn *c, const char *data, size_t len)
{
    size_t used = 0;
    while (used < len && !c->body_reader.done) {
        struct at_str chunk;
        struct at_err err;
        size_t n;
        enum at_rc rc =
            at_http1_body_take(&c->body_reader, data + used, len - used, &n, &chunk, &err);
        if (rc != AT_OK) {
            refuse(c, 400, rc, err.msg);
            return len;
        }
        rc = at_buf_append(&c->body, chunk.ptr, chunk.len);
        if (rc != AT_OK) {
            refuse(c, rc == AT_TOO_LARGE ? 413 : 503, rc,
                   "the request body is larger than this server takes");
            return len;
        }
        if (c->body.len > c->body_counted && !at_http_body_count(c, c->body.len)) {
            refuse_busy(c);
            return len;
        }
        used += n;
    }
    if (c->body_reader.done) {
        c->ex.body = (struct at_str){c->body.data, c->body.len};
        dispatch(c, used < len);
    }
    return used;
}

static size_t on_data(void *ctx, const char *data, size_t len)
{
    struct at_http_conn *c = ctx;
    size_t used = 0;
    if (c->state == CONN_IDLE && c->server->http2 && c->ex.head.head_bytes == 0) {
        int is = at_h2_preface(data, len);
        if (is == 0) {
            at_http_conn_deadline(c, c->server->head_timeout_ns);
            return 0;
        }
        if (is == 1 && !at_h2_start(c)) {
            at_stream_close(c->stream);
            return len;
        }
    }
    c->in_data = true;
    if (c->state == CONN_H2) {
        at_h2_take(c, data, len);
        used = len;
    }
    for (size_t before = len; used < len && used != before;) {
        before = used;
        used += c->state == CONN_BODY   ? body_data(c, data + used, len - used)
                : c->state < CONN_BUSY  ? head_data(c, data + used, len - used)
                : c->state == CONN_BUSY ? at_http_upload_data(c, data + used, len - used)
                                        : 0;
    }
    if (c->state == CONN_MUX) {
        used += at_mux_server_data(c->mux, data + used, len - used);
    }
    while (used < len && c->state == CONN_BUSY && c->on_raw != NULL) {
        size_t n = c->on_raw(c->raw_ctx, data + used, len - used);
        used += n;
        if (n == 0) {
            break;
        }
    }
    c->in_data = false;
    if (c->release_later) {
        conn_release(c);
        return len;
    }
    if (c->state == CONN_BUSY && used < len) {
        c->paused = true;
        at_stream_pause(c->stream);
    }
    if (c->corked) {
        c->corked = false;
        at_stream_uncork(c->stream);
    }
    return c->state == CONN_ENDING ? len : used;
}

static void on_writable(void *ctx)
{
    struct at_http_conn *c = ctx;
    if (c->state == CONN_H2) {
        at_h2_writable(c);
        return;
    }
    if (c->state == CONN_MUX) {
        return; /* windows tell */
    }
    at_http_answer_writable(ctx);
}

static void on_close(void *ctx, enum at_rc rc, const struct at_err *err)
{
    (void)rc, (void)err;
    at_http_conn_free(ctx);
}

static void on_end(void *ctx)
{
    struct at_http_conn *c = ctx;
    if (c->state == CONN_BUSY && c->on_raw_end != NULL) {
        c->on_raw_end(c->raw_end_ctx);
    } else {
        at_http_conn_free(c);
    }
}

void at_http_conn_want_end(struct at_http_conn *c)
{
    struct at_stream_events events = {.ctx = c,
                                      .on_data = on_data,
                                      .on_writable = on_writable,
                                      .on_end = on_end,
                                      .on_close = on_close};
    at_stream_set_events(c->stream, &events);
}

static struct at_http_conn *conn_new(struct at_http_server *server, int fd, const char *peer)
{
    struct at_http_conn *c = AT_NEW(struct at_http_conn);
    c->server = server;
    c->in.max = AT_HTTP_HEAD_BYTES_MAX + server->body_bytes_max;
    c->next = server->conns;
    if (c->next != NULL) {
        c->next->prev = c;
    }
    server->conns = c;
    server->n_conns++;
    at_http_count(server->metrics.connections, 1);
    struct at_stream_events events = {
        .ctx = c, .on_data = on_data, .on_writable = on_writable, .on_close = on_close};
    c->stream = at_stream_accept_take(server->loop, fd, server->tls, &events);
    at_stream_set_peer_addr(c->stream, peer);
    at_http_conn_deadline(c, server->idle_timeout_ns);
    return c;
}

static void on_accept(void *ctx, int fd, unsigned events);

static void on_accept_again(void *ctx)
{
    struct at_http_server *server = ctx;
    server->accept_timer = 0;
    if (server->fd >= 0) {
        server->watch = at_loop_watch(server->loop, server->fd, AT_LOOP_READ, on_accept, server);
    }
}

static void on_accept(void *ctx, int fd, unsigned events)
{
    struct at_http_server *server = ctx;
    (void)events;
    for (int i = 0; i < AT_HTTP_ACCEPTS_PER_TURN_MAX; i++) {
        char peer[AT_ADDR_TEXT_BYTES_MAX];
        int client;
        enum at_rc rc = at_sock_accept(fd, &client, peer);
        if (rc == AT_AGAIN) {
            return;
        }
        if (rc != AT_OK) { /* out of descriptors, most likely: the queue keeps them meanwhile */
            at_loop_unwatch(server->loop, server->watch);
            server->watch = 0;
            server->accept_timer =
                at_loop_timer(server->loop, AT_HTTP_ACCEPT_AGAIN_NS, on_accept_again, server);
            return;
        }
        size_t over = server->n_conns < server->connections_max
                          ? 0
                          : server->n_conns - server->connections_max + 1;
        at_http_count(server->metrics.connections_refused, over > 0);
        if (over > AT_HTTP_REFUSALS_MAX || (over > 0 && server->tls != NULL)) {
            at_sock_close(client);
            continue;
        }
        struct at_http_conn *c = conn_new(server, client, peer);
        if (over > 0) {
            refuse(c, 503, AT_UNAVAILABLE, "too many connections");
        }
    }
}

enum at_rc at_http_server_new(struct at_loop *loop, const struct at_http_server_options *options,
                              struct at_http_server **ret, struct at_err *err)
{
    assert(options->handler != NULL);
    struct at_http_server *server = AT_NEW(struct at_http_server);
    enum at_rc rc = at_sock_listen(options->listen, AT_HTTP_BACKLOG, options->reuse_port,
                                   &server->fd, server->addr, err);
    if (rc != AT_OK) {
        at_free(server);
        return rc;
    }
    server->loop = loop;
    server->tls = at_tls_config_ref(options->tls);
    server->http2 = options->http2;
    server->body_bytes_max =
        options->body_bytes_max != 0 ? options->body_bytes_max : AT_HTTP_BODY_BYTES_MAX_DEFAULT;
    server->connections_max =
        options->connections_max != 0 ? options->connections_max : AT_HTTP_CONNECTIONS_MAX_DEFAULT;
    at_http_limits_init(server, options);
    server->idle_timeout_ns = options->idle_timeout_ns;
    server->head_timeout_ns = options->head_timeout_ns;
    server->mux = options->mux;
    server->handler = options->handler;
    server->early = options->early;
    server->ctx = options->ctx;
    server->sweep_at_ns = INT64_MAX;
    server->watch = at_loop_watch(loop, server->fd, AT_LOOP_READ, on_accept, server);
    *ret = server;
    return AT_OK;
}

const char *at_http_server_addr(const struct at_http_server *server)
{
    return server->addr;
}

static void stop_accepting(struct at_http_server *server)
{
    if (server->watch != 0) {
        at_loop_unwatch(server->loop, server->watch);
        server->watch = 0;
    }
    at_loop_timer_cancel(server->loop, server->accept_timer);
    server->accept_timer = 0;
    at_sock_close(server->fd);
    server->fd = -1;
}

void at_http_server_drain(struct at_http_server *server)
{
    server->draining = true;
    stop_accepting(server);
    for (struct at_http_conn *c = server->conns; c != NULL; c = c->next) {
        c->ex.head.keep_alive = false;
        if (c->state == CONN_H2) {
            at_h2_drain(c);
        } else if (c->state == CONN_MUX) {
            at_mux_server_drain(c->mux);
        } else if (c->state == CONN_IDLE && !c->in_data) {
            at_http_conn_end(c);
        }
    }
}

void at_http_server_set_tls(struct at_http_server *server, struct at_tls_config *config)
{
    assert(server->tls != NULL);
    assert(config != NULL);
    struct at_tls_config *before = server->tls;
    server->tls = at_tls_config_ref(config);
    at_tls_config_unref(before);
}

size_t at_http_server_connections(const struct at_http_server *server)
{
    return server->n_conns;
}

void at_http_server_free(struct at_http_server *server)
{
    if (server == NULL) {
        return;
    }
    stop_accepting(server);
    while (server->conns != NULL) {
        at_http_conn_free(server->conns);
    }
    at_loop_timer_cancel(server->loop, server->sweep_timer);
    at_tls_config_unref(server->tls);
    at_free(server);
}
