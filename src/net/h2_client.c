/* HTTP/2 to servers that speak it: framing and HPACK are nghttp2's; the answer's head is written
 * out as HTTP/1.1 text and read by the one strict parser. Callbacks of calls run inside nghttp2's,
 * where sessions may be told more, but not ended: connections are freed when its caller returns. */
#include "net/h2_client.h"

#include "core/mem.h"

#include <assert.h>
#include <string.h>

static void conn_release(struct h2_conn *c)
{
    nghttp2_session_del(c->session);
    at_free(c);
}

static void close_conn(struct h2_conn *c)
{
    struct client_pool *pool = c->pool;
    assert(c->n_calls == 0);
    *(c->prev != NULL ? &c->prev->next : &pool->h2_conns) = c->next;
    if (c->next != NULL) {
        c->next->prev = c->prev;
    }
    pool->n_h2_conns--;
    at_loop_at_end_cancel(pool->client->loop, &c->send_task);
    at_stream_free(c->stream);
    c->stream = NULL;
    c->state = H2_CLOSED;
    if (!c->in_data) {
        conn_release(c);
    } /* else: by whoever set it */
    pool->n_holds--;
    at_client_start_waiting(pool);
}

static void end_all(struct h2_conn *c, enum at_rc why_rc, const char *why);

static void release_if_closed(struct h2_conn *c, bool was_in_data)
{
    c->in_data = was_in_data;
    if (!was_in_data && c->state == H2_CLOSED) {
        conn_release(c);
    } else if (!was_in_data && c->state == H2_LEAVING && c->n_calls == 0) {
        close_conn(c);
    }
}

/* --- sending --- */

static void pump(struct h2_conn *c)
{
    if (c->state == H2_CLOSED || c->session == NULL) {
        return;
    }
    at_stream_cork(c->stream);
    while (at_stream_queued_bytes(c->stream) < AT_H2_FLUSH_BYTES_MAX) {
        const uint8_t *data;
        ssize_t n = nghttp2_session_mem_send(c->session, &data);
        if (n <= 0 || at_stream_write(c->stream, data, (size_t)n) != AT_OK) {
            break; /* a broken connection tells by on_close */
        }
    }
    at_stream_uncork(c->stream);
}

static void on_turn_end(void *ctx)
{
    struct h2_conn *c = ctx;
    bool was = c->in_data;
    c->in_data = true;
    pump(c);
    if (c->state != H2_CLOSED && c->session != NULL && nghttp2_session_want_read(c->session) == 0 &&
        nghttp2_session_want_write(c->session) == 0) {
        end_all(c, AT_UPSTREAM, "it does not keep to HTTP/2");
    }
    release_if_closed(c, was);
}

/* All frames of a turn go out together. */
static void send_soon(struct h2_conn *c)
{
    if (c->state != H2_CLOSED && c->session != NULL) {
        at_loop_at_end(c->pool->client->loop, &c->send_task);
    }
}

static void on_body_writable(void *ctx)
{
    struct client_call *call = ctx;
    struct h2_conn *c = call->h2;
    bool was = c->in_data;
    c->in_data = true;
    at_client_body_writable(call);
    release_if_closed(c, was);
}

static void body_writable_soon(struct client_call *call)
{
    call->later.task.fn = on_body_writable;
    call->later.task.ctx = call;
    at_loop_at_end(call->client->loop, &call->later.task);
}

static ssize_t read_later(struct client_call *call, uint8_t *buf, size_t len, uint32_t *flags)
{
    struct client_later *l = &call->later;
    size_t left = l->out.len - l->out_at;
    size_t n = left < len ? left : len;
    if (n == 0 && !l->ended) {
        l->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    if (n > 0) {
        memcpy(buf, l->out.data + l->out_at, n);
        l->out_at += n;
    }
    if (n == left) {
        at_buf_clear(&l->out);
        l->out_at = 0;
    } else if (l->out_at >= AT_STREAM_LOW_MARK_BYTES) {
        at_buf_consume(&l->out, l->out_at);
        l->out_at = 0;
    }
    if (n == left && l->ended) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    } else if (left - n <= AT_STREAM_LOW_MARK_BYTES) {
        body_writable_soon(call);
    }
    return (ssize_t)n;
}

void at_h2_client_body(struct client_call *call)
{
    if (call->later.deferred) {
        call->later.deferred = false;
        (void)!nghttp2_session_resume_data(call->h2->session, call->h2_id);
    }
    send_soon(call->h2);
}

static ssize_t read_body(nghttp2_session *session, int32_t id, uint8_t *buf, size_t len,
                         uint32_t *flags, nghttp2_data_source *source, void *ctx)
{
    struct client_call *call = nghttp2_session_get_stream_user_data(session, id);
    (void)source, (void)ctx;
    if (call == NULL) {
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* nobody wants it any more */
    }
    if (call->later.is) {
        return read_later(call, buf, len, flags);
    }
    size_t left = call->request.len - call->mux_sent;
    size_t n = left < len ? left : len;
    memcpy(buf, call->request.data + call->mux_sent, n);
    call->mux_sent += n;
    if (n == left) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    }
    return (ssize_t)n;
}

static nghttp2_nv nv_of(struct at_str name, struct at_str value)
{
    return (nghttp2_nv){(uint8_t *)(uintptr_t)name.ptr, (uint8_t *)(uintptr_t)value.ptr, name.len,
                        value.len, NGHTTP2_NV_FLAG_NONE};
}

/* Lines that are of one connection only, and have no place in HTTP/2 (RFC 9113 §8.2.2). */
static bool is_hop(struct at_str name, struct at_str value)
{
    static const char *const HOPS[] = {"connection",        "keep-alive", "proxy-connection",
                                       "transfer-encoding", "upgrade",    "host"};
    for (size_t i = 0; i < AT_ARRAY_LEN(HOPS); i++) {
        if (at_str_eq(name, HOPS[i])) {
            return true;
        }
    }
    return at_str_eq(name, "te") && !at_str_eq_nocase(value, "trailers");
}

static void lower(struct at_str text)
{
    char *p = (char *)(uintptr_t)text.ptr; /* of the call's own request */
    for (size_t i = 0; i < text.len; i++) {
        p[i] = p[i] >= 'A' && p[i] <= 'Z' ? (char)(p[i] | 0x20) : p[i];
    }
}

/* The request's head as fields; how many. 0: it is none that can be sent. */
static size_t fields_of(const struct client_call *call, nghttp2_nv *out)
{
    struct at_http_head head;
    struct at_err err;
    if (at_http1_parse_request(call->request.data, call->head_bytes, &head, &err) != AT_OK) {
        return 0;
    }
    size_t n = 0;
    out[n++] = nv_of(at_str_of(":method"), head.method_text);
    out[n++] = nv_of(at_str_of(":scheme"), at_str_of(call->pool->tls != NULL ? "https" : "http"));
    out[n++] = nv_of(at_str_of(":authority"), at_http_header_get(&head, "host"));
    out[n++] = nv_of(at_str_of(":path"), head.target);
    for (size_t i = 0; i < head.n_headers; i++) {
        lower(head.headers[i].name);
        if (!is_hop(head.headers[i].name, head.headers[i].value)) {
            out[n++] = nv_of(head.headers[i].name, head.headers[i].value);
        }
    }
    return n;
}

/* The call leaves its connection with this outcome; its end is told from the loop. */
static void fail_later(struct client_call *call, enum at_rc rc, const char *what)
{
    struct at_err err;
    at_err_set(&err, rc, "%s: %s", call->pool->addr, what);
    at_h2_client_leave(call, false);
    at_client_fail_later(call, rc, &err);
}

static void submit(struct h2_conn *c, struct client_call *call)
{
    nghttp2_nv nv[AT_HTTP_HEADERS_MAX + 4];
    nghttp2_data_provider body = {.read_callback = read_body};
    size_t n = fields_of(call, nv);
    call->mux_sent = call->head_bytes;
    bool has_body = call->later.is || call->request.len > call->head_bytes;
    int32_t id =
        n == 0 ? -1
               : nghttp2_submit_request(c->session, NULL, nv, n, has_body ? &body : NULL, call);
    if (id < 0) {
        fail_later(call, AT_UNAVAILABLE, "the request cannot be sent by HTTP/2");
        return;
    }
    call->h2_id = id;
    call->sent = true;
    if (call->later.is) {
        body_writable_soon(call);
    }
    send_soon(c);
}

static size_t streams_max(const struct h2_conn *c)
{
    uint32_t theirs = c->pool->h2_streams; /* what the server said last, on any connection */
    if (theirs == 0) {
        return AT_H2_CLIENT_STREAMS_FIRST;
    }
    return theirs < AT_H2_CLIENT_STREAMS_MAX ? theirs : AT_H2_CLIENT_STREAMS_MAX;
}

static void enter(struct h2_conn *c, struct client_call *call)
{
    call->h2 = c;
    call->h2_id = 0;
    call->h2_ended = false;
    call->h2_prev = c->last;
    call->h2_next = NULL;
    *(c->last != NULL ? &c->last->h2_next : &c->first) = call;
    c->last = call;
    c->n_calls++;
    if (c->state == H2_OPEN) {
        submit(c, call);
    }
}

static struct h2_conn *conn_with_room(const struct client_pool *pool)
{
    for (struct h2_conn *c = pool->h2_conns; c != NULL; c = c->next) {
        if ((c->state == H2_OPEN || c->state == H2_TRYING) && c->n_calls < streams_max(c)) {
            return c;
        }
    }
    return NULL;
}

bool at_h2_client_has_room(const struct client_pool *pool)
{
    return pool->n_h2_conns < AT_H2_CLIENT_CONNS_MAX || conn_with_room(pool) != NULL;
}

static void want_idle_end(struct h2_conn *c)
{
    struct at_http_client *client = c->pool->client;
    c->idle_until_ns = at_loop_now_ns(client->loop) + client->idle_timeout_ns;
    at_client_want_sweep(client, c->idle_until_ns);
}

void at_h2_client_leave(struct client_call *call, bool tell)
{
    struct h2_conn *c = call->h2;
    *(call->h2_prev != NULL ? &call->h2_prev->h2_next : &c->first) = call->h2_next;
    *(call->h2_next != NULL ? &call->h2_next->h2_prev : &c->last) = call->h2_prev;
    c->n_calls--;
    call->h2 = NULL;
    at_loop_at_end_cancel(c->pool->client->loop, &call->resume_task);
    at_loop_at_end_cancel(c->pool->client->loop, &call->later.task);
    call->later.deferred = false;
    at_buf_done(&call->h2_head);
    if (call->held.len > 0 || call->held.cap > AT_HTTP_KEEP_BYTES_MAX) {
        at_buf_done(&call->held);
    }
    if (call->h2_id > 0 && c->state != H2_CLOSED) {
        nghttp2_session_set_stream_user_data(c->session, call->h2_id, NULL);
        if (tell) {
            (void)!nghttp2_submit_rst_stream(c->session, 0, call->h2_id, NGHTTP2_CANCEL);
            send_soon(c);
        }
    }
    if (call->pool->first_waiting != NULL) {
        at_client_start_waiting(call->pool); /* the call holds it */
    }
    if (c->n_calls > 0) {
        return;
    }
    want_idle_end(c);
    if (c->state == H2_LEAVING && !c->in_data) {
        close_conn(c);
    }
}

/* --- receiving --- */

static void fail(struct client_call *call, enum at_rc rc, const char *what, bool tell)
{
    struct at_err err;
    at_err_set(&err, rc, "%s: %s", call->pool->addr, what);
    at_h2_client_leave(call, tell);
    at_client_complete(call, rc, &err);
}

static void complete(struct client_call *call)
{
    /* An answer before all of the request was taken: the rest is not wanted. */
    const struct client_later *l = &call->later;
    at_h2_client_leave(call,
                       l->is ? !l->ended || l->out.len > 0 : call->mux_sent < call->request.len);
    at_client_complete(call, AT_OK, NULL);
}

static bool is_on(const struct h2_conn *c, int32_t id, const struct client_call *call)
{
    return c->state != H2_CLOSED && call->in_use && call->h2 == c && call->h2_id == id;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                     void *ctx)
{
    struct client_call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    (void)flags, (void)ctx;
    if (call == NULL || call->head_seen || frame->hd.type != NGHTTP2_HEADERS) {
        return 0; /* trailers tell nobody here anything */
    }
    struct at_str n = {(const char *)name, name_len}, v = {(const char *)value, value_len};
    const bool is_status = at_str_eq(n, ":status");
    if (call->h2_head.len + n.len + v.len + 32 > AT_HTTP_HEAD_BYTES_MAX) {
        fail(call, AT_UPSTREAM, "the answer's head is too large", true);
        return 0;
    }
    enum at_rc rc = at_buf_append_str(&call->h2_head, is_status ? "HTTP/1.1 " : "");
    rc = rc == AT_OK && !is_status ? at_buf_append(&call->h2_head, n.ptr, n.len) : rc;
    rc = rc == AT_OK && !is_status ? at_buf_append(&call->h2_head, ": ", 2) : rc;
    rc = rc == AT_OK ? at_buf_append(&call->h2_head, v.ptr, v.len) : rc;
    rc = rc == AT_OK ? at_buf_append_str(&call->h2_head, is_status ? " -\r\n" : "\r\n") : rc;
    if (rc != AT_OK) {
        fail(call, AT_UPSTREAM, "out of memory", true);
    }
    return 0;
}

/* The head is complete. False: the call is over. */
static bool take_head(struct h2_conn *c, struct client_call *call)
{
    struct at_http_head head;
    struct at_err err;
    int32_t id = call->h2_id;
    enum at_rc rc = at_buf_append_str(&call->h2_head, "\r\n");
    rc = rc == AT_OK ? at_http1_parse_response(call->h2_head.data, call->h2_head.len, &head, &err)
                     : rc;
    if (rc != AT_OK || head.head_bytes != call->h2_head.len || head.chunked || head.status == 101) {
        fail(call, AT_UPSTREAM, "the answer's head is malformed", true);
        return false;
    }
    if (head.status < 200) {
        at_buf_clear(&call->h2_head); /* interim: the answer comes later */
        return true;
    }
    call->head_seen = true;
    at_client_piece(call);
    if (call->on_head != NULL) {
        call->on_head(call->ctx, &head);
    }
    return is_on(c, id, call);
}

static void take_end(struct client_call *call)
{
    if (!call->head_seen) {
        fail(call, AT_UPSTREAM, "an answer without a head", true);
        return;
    }
    call->h2_ended = true;
    if (!call->paused && call->held.len == 0) {
        complete(call);
    } /* else: on resume */
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *ctx)
{
    struct h2_conn *c = ctx;
    if (c->state == H2_CLOSED) {
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    if (frame->hd.type == NGHTTP2_SETTINGS && (frame->hd.flags & NGHTTP2_FLAG_ACK) == 0) {
        uint32_t n =
            nghttp2_session_get_remote_settings(session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
        c->pool->h2_streams = n > 0 ? n : 1;
    }
    if (frame->hd.type == NGHTTP2_GOAWAY) {
        c->state = H2_LEAVING; /* nghttp2 closes what will not be answered */
        return 0;
    }
    struct client_call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (call == NULL || (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)) {
        return 0;
    }
    if (frame->hd.type == NGHTTP2_HEADERS && !call->head_seen && !take_head(c, call)) {
        return 0;
    }
    if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) {
        take_end(call);
    }
    return 0;
}

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
                         size_t len, void *ctx)
{
    struct h2_conn *c = ctx;
    (void)flags;
    if (c->state == H2_CLOSED) {
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    (void)!nghttp2_session_consume_connection(session, len); /* a slow call stops no other one */
    struct client_call *call = nghttp2_session_get_stream_user_data(session, id);
    if (call == NULL) {
        return 0;
    }
    if (call->paused || call->held.len > 0) {
        if (at_buf_append(&call->held, data, len) != AT_OK) {
            fail(call, AT_UPSTREAM, "out of memory", true);
        }
        return 0;
    }
    at_client_piece(call);
    if (call->on_body != NULL) {
        call->on_body(call->ctx, (const char *)data, len);
    }
    if (is_on(c, id, call)) {
        (void)!nghttp2_session_consume_stream(session, id, len);
    }
    return 0;
}

/* Before its answer was complete, or nobody would be found any more. */
static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *ctx)
{
    struct client_call *call = nghttp2_session_get_stream_user_data(session, id);
    struct h2_conn *c = ctx;
    if (call == NULL || call->h2_ended || c->state == H2_CLOSED) {
        return 0;
    }
    if (code == NGHTTP2_REFUSED_STREAM && !call->head_seen) {
        call->sent = false; /* RFC 9113 §8.7: nothing of it was looked at */
        at_h2_client_leave(call, false);
        if (!call->paused && !call->later.begun &&
            call->h2_refusals++ < AT_H2_CLIENT_REFUSALS_MAX) {
            at_client_bind(call);
        } else {
            struct at_err err;
            at_err_set(&err, AT_UNAVAILABLE, "%s: it takes no more requests", call->pool->addr);
            at_client_complete(call, AT_UNAVAILABLE, &err);
        }
    } else {
        fail(call, AT_UPSTREAM, "the answer was broken off", false);
    }
    return 0;
}

/* The connection is gone: every call ends, or tries once more. */
static void end_all(struct h2_conn *c, enum at_rc why_rc, const char *why)
{
    bool was = c->in_data, opened = c->session != NULL;
    c->state = H2_LEAVING;
    c->in_data = true;
    while (c->state != H2_CLOSED && c->first != NULL) {
        struct client_call *call = c->first;
        bool begun = call->head_seen;
        at_h2_client_leave(call, false);
        if (opened && !begun && at_client_retry(call, false)) {
            continue;
        }
        struct at_err err;
        enum at_rc rc = begun ? AT_UPSTREAM : opened ? AT_UNAVAILABLE : why_rc;
        at_err_set(&err, rc, "%s: %s", call->pool->addr, why);
        at_client_complete(call, rc, &err);
    }
    release_if_closed(c, was);
}

static size_t on_data(void *ctx, const char *data, size_t len)
{
    struct h2_conn *c = ctx;
    bool was = c->in_data;
    c->in_data = true;
    ssize_t n = nghttp2_session_mem_recv(c->session, (const uint8_t *)data, len);
    if (n < 0 && c->state != H2_CLOSED) {
        end_all(c, AT_UPSTREAM, nghttp2_strerror((int)n));
    }
    send_soon(c);
    release_if_closed(c, was);
    return len;
}

static void on_writable(void *ctx)
{
    on_turn_end(ctx);
}

static void on_close(void *ctx, enum at_rc rc, const struct at_err *err)
{
    struct h2_conn *c = ctx;
    bool was = c->in_data;
    c->in_data = true;
    end_all(c, rc == AT_EOF ? AT_UNAVAILABLE : rc,
            err != NULL ? err->msg : "the connection ended before the answer");
    release_if_closed(c, was);
}

/* --- opening --- */

static bool session_new(struct h2_conn *c)
{
    static const nghttp2_settings_entry SETTINGS[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, AT_H2_CLIENT_WINDOW_BYTES},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, AT_HTTP_HEAD_BYTES_MAX},
    };
    nghttp2_session_callbacks *cb = NULL;
    nghttp2_option *option = NULL;
    bool ok = nghttp2_session_callbacks_new(&cb) == 0 && nghttp2_option_new(&option) == 0;
    if (ok) {
        nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
        nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data_chunk);
        nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
        nghttp2_option_set_no_auto_window_update(option, 1);
        nghttp2_option_set_no_closed_streams(option, 1);
        ok = nghttp2_session_client_new2(&c->session, cb, c, option) == 0;
    }
    nghttp2_session_callbacks_del(cb);
    nghttp2_option_del(option);
    return ok && nghttp2_submit_settings(c->session, 0, SETTINGS, AT_ARRAY_LEN(SETTINGS)) == 0 &&
           nghttp2_session_set_local_window_size(c->session, 0, 0, AT_H2_CONN_WINDOW_BYTES) == 0;
}

/* The server has chosen HTTP/1.1: the connection is for one of those that wait, the others get
 * their own. */
static void give_to_http1(struct h2_conn *c)
{
    struct client_pool *pool = c->pool;
    struct at_stream *stream = c->stream;
    struct client_call *first = c->first;
    pool->h2 = AT_HTTP2_NEVER;
    pool->n_holds++;
    c->state = H2_LEAVING;
    c->in_data = true;
    if (first != NULL) {
        at_h2_client_leave(first, false);
        c->stream = NULL;
        at_client_adopt(first, stream);
    }
    while (c->first != NULL) {
        struct client_call *call = c->first;
        at_h2_client_leave(call, false);
        at_client_bind(call);
    }
    c->in_data = false;
    close_conn(c);
    pool->n_holds--;
    at_client_pool_drop_if_empty(pool);
}

static void on_open(void *ctx)
{
    struct h2_conn *c = ctx;
    const struct at_tls_peer *peer = at_stream_peer(c->stream);
    if (c->pool->h2 == AT_HTTP2_IF_OFFERED && (peer == NULL || !peer->http2)) {
        give_to_http1(c);
        return;
    }
    bool was = c->in_data;
    c->in_data = true;
    if (session_new(c)) {
        c->state = H2_OPEN;
        want_idle_end(c);
        send_soon(c);
        for (struct client_call *call = c->first, *next; call != NULL; call = next) {
            next = call->h2_next; /* submit only takes its own out */
            submit(c, call);
        }
    } else {
        end_all(c, AT_UNAVAILABLE, "out of memory");
    }
    release_if_closed(c, was);
}

static struct h2_conn *conn_new(struct client_pool *pool)
{
    struct at_http_client *client = pool->client;
    struct h2_conn *c = AT_NEW(struct h2_conn);
    c->pool = pool;
    c->send_task = (struct at_loop_task){.fn = on_turn_end, .ctx = c};
    c->next = pool->h2_conns;
    if (c->next != NULL) {
        c->next->prev = c;
    }
    pool->h2_conns = c;
    pool->n_h2_conns++;
    pool->n_holds++;
    struct at_stream_events events = {.ctx = c,
                                      .on_open = on_open,
                                      .on_data = on_data,
                                      .on_writable = on_writable,
                                      .on_close = on_close};
    char host[300];
    const char *name = pool->server_name;
    if (name == NULL && pool->tls != NULL) {
        at_client_host_of(pool->addr, host, sizeof host);
        name = host;
    }
    c->idle_until_ns = INT64_MAX;
    c->stream = at_stream_connect(client->loop, pool->addr, pool->tls, name,
                                  at_client_connect_ns(pool), &events);
    return c;
}

bool at_h2_client_take(struct client_call *call)
{
    struct client_pool *pool = call->pool;
    struct h2_conn *c = conn_with_room(pool);
    if (c == NULL && pool->n_h2_conns < AT_H2_CLIENT_CONNS_MAX) {
        c = conn_new(pool);
    }
    if (c != NULL) {
        enter(c, call);
    }
    return c != NULL;
}

/* --- time, pausing, the end --- */

void at_h2_client_sweep(struct client_pool *pool, int64_t now_ns, int64_t *first_ns)
{
    for (struct h2_conn *c = pool->h2_conns, *next; c != NULL; c = next) {
        next = c->next;
        if (c->n_calls > 0 || c->in_data) {
            continue;
        }
        if (c->idle_until_ns <= now_ns) {
            close_conn(c);
        } else if (c->idle_until_ns < *first_ns) {
            *first_ns = c->idle_until_ns;
        }
    }
}

static void on_resume(void *ctx)
{
    struct client_call *call = ctx;
    struct h2_conn *c = call->h2;
    int32_t id = call->h2_id;
    if (call->paused) {
        return;
    }
    struct at_buf held = call->held;
    bool was = c->in_data;
    call->held = (struct at_buf){0};
    c->in_data = true;
    at_client_piece(call);
    if (held.len > 0 && call->on_body != NULL) {
        call->on_body(call->ctx, held.data, held.len);
    }
    if (is_on(c, id, call)) {
        (void)!nghttp2_session_consume_stream(c->session, id, held.len);
        send_soon(c);
        if (call->h2_ended && !call->paused) {
            complete(call);
        }
    }
    at_buf_done(&held);
    release_if_closed(c, was);
}

void at_h2_client_resume(struct client_call *call)
{
    if (call->held.len > 0 || call->h2_ended) {
        call->resume_task.fn = on_resume;
        call->resume_task.ctx = call;
        at_loop_at_end(call->client->loop, &call->resume_task);
    }
}

void at_h2_client_close(struct client_pool *pool)
{
    while (pool->h2_conns != NULL) {
        close_conn(pool->h2_conns);
    }
}
