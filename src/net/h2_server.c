/* HTTP/2 connections: frames in, whole requests to the handler. The handler is only called when
 * nghttp2 has returned; frames are sent at the end of a read, or once per loop turn. */
#include "net/h2_int.h"

#include "core/mem.h"
#include "net/http_upload.h"

#include <assert.h>

static const char PREFACE[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

int at_h2_preface(const char *data, size_t len)
{
    size_t n = len < sizeof PREFACE - 1 ? len : sizeof PREFACE - 1;
    if (memcmp(data, PREFACE, n) != 0) {
        return -1;
    }
    return n == sizeof PREFACE - 1;
}

static void stream_release(struct at_h2_stream *st)
{
    struct at_buf *bufs[] = {&st->method, &st->path, &st->authority, &st->fields,  &st->cookie,
                             &st->in,     &st->body, &st->out,       &st->trailers};
    for (size_t i = 0; i < AT_ARRAY_LEN(bufs); i++) {
        at_buf_done(bufs[i]);
    }
    at_free(st);
}

static void make_ready(struct at_h2 *h2, struct at_h2_stream *st)
{
    if (!st->is_ready && !st->handed) {
        st->is_ready = true;
        st->ready_next = NULL;
        *h2->ready_end = st;
        h2->ready_end = &st->ready_next;
    }
}

void at_h2_body_drop(struct at_h2 *h2, struct at_buf *body)
{
    size_t give = h2->held_back < body->len ? h2->held_back : body->len;
    h2->body_bytes -= body->len;
    h2->held_back -= give;
    at_buf_done(body);
    if (!h2->dead) {
        (void)!nghttp2_session_consume_connection(h2->session, give);
        (void)!at_http_body_count(h2->conn, h2->body_bytes); /* less is always possible */
    }
}

static void refuse_later(struct at_h2 *h2, struct at_h2_stream *st, int status)
{
    if (st->refusal == 0) {
        st->refusal = status;
        at_h2_body_drop(h2, &st->body);
    }
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *ctx)
{
    struct at_h2 *h2 = ctx;
    struct at_http_conn *c = h2->conn;
    if (h2->dead) {
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) {
        return 0;
    }
    struct at_h2_stream *st = AT_NEW(struct at_h2_stream);
    st->ex.h2 = h2;
    st->id = frame->hd.stream_id;
    st->fields.max = st->in.max = 2 * (size_t)AT_HTTP_HEAD_BYTES_MAX;
    st->body.max = c->server->body_bytes_max;
    st->next = h2->streams;
    if (st->next != NULL) {
        st->next->prev = st;
    }
    h2->streams = st;
    h2->n_streams++;
    int64_t limit = c->server->head_timeout_ns;
    st->deadline_ns = limit > 0 ? at_loop_now_ns(c->server->loop) + limit : INT64_MAX;
    if (h2->n_streams == 1 || st->deadline_ns < c->deadline_ns) {
        at_http_conn_deadline(c, limit);
    }
    return nghttp2_session_set_stream_user_data(session, st->id, st);
}

static enum at_rc add_field(struct at_h2_stream *st, struct at_str name, struct at_str value)
{
    if (at_str_eq(name, "cookie")) { /* RFC 9113 §8.2.3: crumbs become one line again */
        enum at_rc rc = st->cookie.len > 0 ? at_buf_append(&st->cookie, "; ", 2) : AT_OK;
        return rc == AT_OK ? at_buf_append(&st->cookie, value.ptr, value.len) : rc;
    }
    if (at_str_eq(name, "host")) {
        if (st->authority.len > 0 && (st->authority.len != value.len ||
                                      memcmp(st->authority.data, value.ptr, value.len) != 0)) {
            return AT_BAD_REQUEST; /* two readers could take different ones */
        }
        return st->authority.len > 0 ? AT_OK : at_buf_append(&st->authority, value.ptr, value.len);
    }
    char *place;
    enum at_rc rc = at_buf_reserve(&st->fields, name.len + value.len + 4, &place);
    if (rc != AT_OK) {
        return rc;
    }
    memcpy(place, name.ptr, name.len);
    memcpy(place + name.len, ": ", 2);
    memcpy(place + name.len + 2, value.ptr, value.len);
    memcpy(place + name.len + 2 + value.len, "\r\n", 2);
    at_buf_commit(&st->fields, name.len + value.len + 4);
    st->n_fields++;
    return AT_OK;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                     void *ctx)
{
    struct at_h2 *h2 = ctx;
    struct at_h2_stream *st = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    (void)flags;
    if (st == NULL || frame->headers.cat != NGHTTP2_HCAT_REQUEST || st->refusal != 0) {
        return 0; /* trailers of a request are of no use to anybody here */
    }
    struct at_str n = {(const char *)name, name_len}, v = {(const char *)value, value_len};
    st->head_bytes += n.len + v.len + 4;
    if (st->head_bytes > AT_HTTP_HEAD_BYTES_MAX - 64 || st->n_fields >= AT_HTTP_HEADERS_MAX - 2) {
        refuse_later(h2, st, 431);
        return 0;
    }
    enum at_rc rc = AT_OK;
    if (at_str_eq(n, ":method")) {
        rc = at_buf_append(&st->method, v.ptr, v.len);
    } else if (at_str_eq(n, ":path")) {
        rc = at_buf_append(&st->path, v.ptr, v.len);
    } else if (at_str_eq(n, ":authority")) {
        rc = at_buf_append(&st->authority, v.ptr, v.len);
    } else if (n.len > 0 && n.ptr[0] != ':') {
        rc = add_field(st, n, v);
    }
    if (rc != AT_OK) {
        refuse_later(h2, st, rc == AT_BAD_REQUEST ? 400 : 503);
    }
    return 0;
}

static enum at_rc put(struct at_buf *out, const char *before, const struct at_buf *text,
                      const char *after)
{
    enum at_rc rc = at_buf_append_str(out, before);
    if (rc == AT_OK && text->len > 0) {
        rc = at_buf_append(out, text->data, text->len);
    }
    return rc == AT_OK ? at_buf_append_str(out, after) : rc;
}

/* The head as HTTP/1.1 text, through the parser that all requests go through. */
static enum at_rc parse_head(struct at_h2_stream *st, struct at_err *err)
{
    if (st->method.len == 0 || st->path.len == 0 || st->authority.len == 0) {
        return at_err_set(err, AT_BAD_REQUEST, "the request names no method, path or authority");
    }
    enum at_rc rc = put(&st->in, "", &st->method, " ");
    rc = rc == AT_OK ? put(&st->in, "", &st->path, " HTTP/1.1\r\n") : rc;
    rc = rc == AT_OK ? put(&st->in, "host: ", &st->authority, "\r\n") : rc;
    rc = rc == AT_OK ? put(&st->in, "", &st->fields, "") : rc;
    if (rc == AT_OK && st->cookie.len > 0) {
        rc = put(&st->in, "cookie: ", &st->cookie, "\r\n");
    }
    rc = rc == AT_OK ? at_buf_append(&st->in, "\r\n", 2) : rc;
    if (rc != AT_OK) {
        return at_err_set(err, AT_TOO_LARGE, "the header is too large");
    }
    rc = at_http1_parse_request(st->in.data, st->in.len, &st->ex.head, err);
    if (rc == AT_OK && (st->ex.head.head_bytes != st->in.len || st->ex.head.chunked ||
                        st->ex.head.upgrade || !st->ex.head.keep_alive)) {
        rc = at_err_set(err, AT_BAD_REQUEST, "a header has no place in HTTP/2");
    }
    return rc;
}

static void take_head(struct at_h2 *h2, struct at_h2_stream *st, bool ended)
{
    struct at_err err;
    struct at_http_head *h = &st->ex.head;
    if (st->refusal == 0) {
        enum at_rc rc = parse_head(st, &err);
        if (rc != AT_OK) {
            refuse_later(h2, st, rc == AT_TOO_LARGE ? 431 : 400);
        } else if (!ended && at_http_upload_wanted(h2->conn->server, &st->ex)) {
            st->ex.upload.says_continue = h->expect_continue;
            st->body.max = SIZE_MAX / 2; /* the window bounds it */
            st->deadline_ns = INT64_MAX;
            make_ready(h2, st);
        } else if (h->has_length && h->content_length > h2->conn->server->body_bytes_max) {
            refuse_later(h2, st, 413);
        } else if (h->expect_continue && !ended) {
            const nghttp2_nv nv = {(uint8_t *)(uintptr_t) ":status", (uint8_t *)(uintptr_t) "100",
                                   7, 3, 0};
            (void)!nghttp2_submit_headers(h2->session, 0, st->id, NULL, &nv, 1, NULL);
        }
    }
    if (st->refusal != 0) {
        make_ready(h2, st);
    }
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *ctx)
{
    struct at_h2 *h2 = ctx;
    struct at_h2_stream *st = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (h2->dead) {
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    if (st == NULL || (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)) {
        return 0;
    }
    bool ended = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        take_head(h2, st, ended);
    }
    if (ended) {
        st->whole = true;
        st->deadline_ns = st->answered ? st->deadline_ns : INT64_MAX;
        h2->uploads_flow |= st->ex.upload.coming;
        make_ready(h2, st);
    }
    return 0;
}

/* What came of a body that its handler takes as it comes. */
static void upload_data(struct at_h2 *h2, struct at_h2_stream *st, const uint8_t *data, size_t len)
{
    if (h2->body_bytes + len > AT_H2_UPLOAD_BYTES_MAX) {
        h2->held_back += len; /* until some of it is taken */
    } else {
        (void)!nghttp2_session_consume_connection(h2->session, len);
    }
    h2->uploads_flow = true;
    h2->body_bytes += len;
    if (!at_http_body_count(h2->conn, h2->body_bytes) ||
        at_buf_append(&st->body, data, len) != AT_OK) {
        h2->body_bytes -= len; /* its handler is told that it is gone */
        (void)!nghttp2_submit_rst_stream(h2->session, 0, st->id, NGHTTP2_ENHANCE_YOUR_CALM);
    }
}

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
                         size_t len, void *ctx)
{
    struct at_h2 *h2 = ctx;
    struct at_h2_stream *st = nghttp2_session_get_stream_user_data(session, id);
    (void)flags;
    if (h2->dead) {
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    if (st != NULL && st->ex.upload.coming && !st->answered) {
        upload_data(h2, st, data, len);
        return 0;
    }
    (void)!nghttp2_session_consume(session, id, len);
    if (st == NULL || st->refusal != 0 || st->answered) {
        return 0;
    }
    size_t max = h2->conn->server->body_bytes_max;
    if (h2->body_bytes + len > AT_H2_BODIES_MAX * max ||
        !at_http_body_count(h2->conn, h2->body_bytes + len)) {
        refuse_later(h2, st, 429);
    } else {
        enum at_rc rc = at_buf_append(&st->body, data, len);
        if (rc == AT_OK) {
            h2->body_bytes += len;
            return 0;
        }
        refuse_later(h2, st, rc == AT_TOO_LARGE ? 413 : 503);
    }
    make_ready(h2, st);
    return 0;
}

static void unlink_ready(struct at_h2 *h2, const struct at_h2_stream *st)
{
    for (struct at_h2_stream **at = &h2->ready; *at != NULL; at = &(*at)->ready_next) {
        if (*at == st) {
            *at = st->ready_next;
            break;
        }
    }
    h2->ready_end = &h2->ready;
    while (*h2->ready_end != NULL) {
        h2->ready_end = &(*h2->ready_end)->ready_next;
    }
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *ctx)
{
    struct at_h2 *h2 = ctx;
    struct at_h2_stream *st = nghttp2_session_get_stream_user_data(session, id);
    (void)code;
    if (st == NULL) {
        return 0;
    }
    *(st->prev != NULL ? &st->prev->next : &h2->streams) = st->next;
    if (st->next != NULL) {
        st->next->prev = st->prev;
    }
    h2->n_streams--;
    at_h2_body_drop(h2, &st->body);
    if (st->is_ready) {
        unlink_ready(h2, st);
    }
    if (st->handed && !st->answered && st->on_gone != NULL) {
        st->on_gone(st->gone_ctx);
    }
    stream_release(st);
    if (h2->n_streams == 0 && !h2->dead) {
        at_http_conn_deadline(h2->conn, h2->conn->server->idle_timeout_ns);
    }
    return 0;
}

static void hand_over(struct at_h2 *h2)
{
    struct at_http_server *server = h2->conn->server;
    while (h2->ready != NULL && !h2->dead) {
        struct at_h2_stream *st = h2->ready;
        h2->ready = st->ready_next;
        h2->ready_end = h2->ready != NULL ? h2->ready_end : &h2->ready;
        st->is_ready = false;
        st->handed = true;
        if (st->refusal != 0) {
            at_h2_refuse(st, st->refusal,
                         st->refusal == 400   ? AT_BAD_REQUEST
                         : st->refusal == 503 ? AT_UNAVAILABLE
                         : st->refusal == 429 ? AT_EXHAUSTED
                                              : AT_TOO_LARGE,
                         st->refusal == 400   ? "the request's header is malformed"
                         : st->refusal == 431 ? "the header is too large"
                         : st->refusal == 503 ? "out of memory"
                         : st->refusal == 429
                             ? "too many request bytes wait here: send fewer at once"
                             : "the request body is larger than this server takes");
            continue;
        }
        if (st->ex.upload.coming) {
            server->handler(server->ctx, &st->ex);
            continue;
        }
        st->ex.body = (struct at_str){st->body.data != NULL ? st->body.data : "", st->body.len};
        st->ex.head.has_length = st->ex.head.has_length || st->body.len > 0;
        st->ex.head.content_length = st->body.len;
        server->handler(server->ctx, &st->ex);
    }
}

static void tell_writable(struct at_h2 *h2)
{
    for (struct at_h2_stream *st = h2->streams, *next; st != NULL && !h2->dead; st = next) {
        next = st->next;
        if (st->begun && !st->answered && st->on_writable != NULL &&
            st->out.len - st->out_at <= AT_H2_STREAM_QUEUE_LOW_BYTES) {
            st->on_writable(st->writable_ctx); /* may end st, but frees none: frames do that */
        }
    }
}

/* Frames to the socket while it takes them; false: there was none, or no room. */
static bool pump(struct at_h2 *h2)
{
    bool moved = false;
    while (!h2->dead && at_stream_queued_bytes(h2->conn->stream) < AT_H2_FLUSH_BYTES_MAX) {
        const uint8_t *data;
        ssize_t n = nghttp2_session_mem_send(h2->session, &data);
        if (n <= 0 || h2->dead || at_stream_write(h2->conn->stream, data, (size_t)n) != AT_OK) {
            break;
        }
        moved = true;
    }
    return moved;
}

/* What the socket does not take now waits for at_h2_writable. */
static void flush(struct at_h2 *h2)
{
    struct at_http_conn *c = h2->conn;
    if (h2->in_flush || h2->dead || c->state != CONN_H2) {
        return;
    }
    h2->in_flush = true;
    at_stream_cork(c->stream);
    while (pump(h2) && !h2->dead) {
        tell_writable(h2);
    }
    h2->in_flush = false;
    if (h2->dead) {
        return;
    }
    at_stream_uncork(c->stream);
    if (nghttp2_session_want_read(h2->session) == 0 &&
        nghttp2_session_want_write(h2->session) == 0) {
        at_http_conn_end(c);
    }
}

/* Run flush so that the connection's memory outlives its callbacks. */
static void flush_kept(struct at_h2 *h2)
{
    struct at_http_conn *c = h2->conn;
    bool was = c->in_data;
    c->in_data = true;
    at_h2_uploads(h2);
    flush(h2);
    c->in_data = was;
    if (!was) {
        at_http_conn_release_if_gone(c);
    }
}

static void on_flush_timer(void *ctx)
{
    struct at_h2 *h2 = ctx;
    h2->flush_timer = 0;
    flush_kept(h2);
}

void at_h2_flush_soon(struct at_h2 *h2)
{
    if (h2->flush_timer == 0 && !h2->dead && !h2->conn->in_data) {
        h2->flush_timer = at_loop_timer(h2->conn->server->loop, 0, on_flush_timer, h2);
    }
}

void at_h2_take(struct at_http_conn *c, const char *data, size_t len)
{
    struct at_h2 *h2 = c->h2;
    assert(c->in_data);
    ssize_t n = nghttp2_session_mem_recv(h2->session, (const uint8_t *)data, len);
    if (n < 0 && !h2->dead) {
        (void)!nghttp2_session_terminate_session(h2->session, NGHTTP2_PROTOCOL_ERROR);
    }
    hand_over(h2);
    at_h2_uploads(h2);
    flush(h2);
    if (n < 0 && !h2->dead && c->state == CONN_H2) {
        at_http_conn_end(c);
    }
}

void at_h2_writable(struct at_http_conn *c)
{
    flush_kept(c->h2);
}

bool at_h2_start(struct at_http_conn *c)
{
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, AT_H2_STREAMS_MAX},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, AT_H2_WINDOW_BYTES},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, AT_HTTP_HEAD_BYTES_MAX},
        {NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 0},
    };
    struct at_h2 *h2 = AT_NEW(struct at_h2);
    nghttp2_session_callbacks *cb = NULL;
    nghttp2_option *option = NULL;
    bool ok = nghttp2_session_callbacks_new(&cb) == 0 && nghttp2_option_new(&option) == 0;
    if (ok) {
        nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
        nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
        nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data_chunk);
        nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
        nghttp2_option_set_stream_reset_rate_limit(option, AT_H2_RESETS_BURST,
                                                   AT_H2_RESETS_PER_SECOND_MAX);
        nghttp2_option_set_no_closed_streams(option, 1);
        nghttp2_option_set_no_auto_window_update(option, 1);
        ok = nghttp2_session_server_new2(&h2->session, cb, h2, option) == 0;
    }
    nghttp2_session_callbacks_del(cb);
    nghttp2_option_del(option);
    ok = ok && nghttp2_submit_settings(h2->session, 0, settings, AT_ARRAY_LEN(settings)) == 0 &&
         nghttp2_session_set_local_window_size(h2->session, 0, 0, AT_H2_CONN_WINDOW_BYTES) == 0;
    h2->conn = c;
    h2->ready_end = &h2->ready;
    c->h2 = h2;
    c->state = CONN_H2;
    return ok;
}

void at_h2_drain(struct at_http_conn *c)
{
    struct at_h2 *h2 = c->h2;
    if (!h2->going) {
        h2->going = true;
        (void)!nghttp2_submit_goaway(h2->session, 0,
                                     nghttp2_session_get_last_proc_stream_id(h2->session),
                                     NGHTTP2_NO_ERROR, NULL, 0);
        at_h2_flush_soon(h2); /* and it ends when its streams have */
    }
}

int64_t at_h2_sweep(struct at_http_conn *c, int64_t now_ns)
{
    struct at_h2 *h2 = c->h2;
    if (h2->n_streams == 0) {
        (void)!nghttp2_session_terminate_session(h2->session, NGHTTP2_NO_ERROR);
        at_h2_flush_soon(h2);
        return INT64_MAX;
    }
    int64_t first = INT64_MAX;
    for (struct at_h2_stream *st = h2->streams, *next; st != NULL; st = next) {
        next = st->next;
        if (st->deadline_ns > now_ns) {
            first = st->deadline_ns < first ? st->deadline_ns : first;
            continue;
        }
        st->deadline_ns = INT64_MAX;
        if (!st->handed) {
            st->handed = true;
            at_h2_refuse(st, 408, AT_TIMEOUT, "the request was not complete in time");
        } else if (!st->answered) {
            at_http_upload_late(&st->ex);
        } else { /* answered, but not read */
            (void)!nghttp2_submit_rst_stream(h2->session, 0, st->id, NGHTTP2_CANCEL);
        }
    }
    at_h2_flush_soon(h2);
    return first;
}

void at_h2_gone(struct at_http_conn *c)
{
    struct at_h2 *h2 = c->h2;
    h2->dead = true;
    at_loop_timer_cancel(c->server->loop, h2->flush_timer);
    h2->flush_timer = 0;
    for (struct at_h2_stream *st = h2->streams; st != NULL; st = st->next) {
        if (st->handed && !st->answered && st->on_gone != NULL) {
            st->answered = true;
            st->on_gone(st->gone_ctx);
        }
    }
}

void at_h2_free(struct at_h2 *h2)
{
    if (h2 == NULL) {
        return;
    }
    assert(h2->dead);
    nghttp2_session_del(h2->session); /* calls no on_stream_close */
    while (h2->streams != NULL) {
        struct at_h2_stream *st = h2->streams;
        h2->streams = st->next;
        stream_release(st);
    }
    at_free(h2);
}
