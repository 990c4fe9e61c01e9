/* The server's side of atoll-mux/1. Each stream is an exchange like any other to the handler. What
 * is answered in one turn goes out together; what the client's window does not take waits here. */
#include "net/mux_server.h"

#include "core/mem.h"
#include "net/http_put.h"

#include <assert.h>
#include <sys/uio.h>

#define HEAD_FIXED_BYTES 128

enum stream_state {
    STREAM_BODY,    /* the request's body gathers */
    STREAM_BUSY,    /* the handler has it */
    STREAM_FLUSHES, /* answered; the client's window has not taken all of it yet */
};

struct mux_stream {
    struct at_http_exchange ex; /* first: stream_of */
    struct mux_server *m;
    struct mux_stream *next_free;
    uint32_t id;
    enum stream_state state;
    uint32_t window; /* of answer that may be sent */
    uint32_t credit; /* of body that may come */
    bool begun;      /* the answer's head is sent */
    bool bodyless, has_length;
    uint64_t length_left;
    struct at_buf in;   /* the head, and the body when it came with it */
    struct at_buf body; /* when it did not */
    struct at_buf head; /* of the answer, until its first frame */
    struct at_buf out;  /* that the window has not taken */
    size_t out_pos;
    void (*on_gone)(void *ctx);
    void *gone_ctx;
    void (*on_writable)(void *ctx);
    void *writable_ctx;
};

struct mux_server {
    struct at_http_conn *c;
    struct at_loop_task send_task;
    uint32_t last_id;
    bool draining;
    struct mux_stream *slots[AT_MUX_SLOTS];
    struct mux_stream *free_streams;
    size_t n_streams;
};

static struct mux_stream *stream_of(const struct at_http_exchange *ex)
{
    assert(ex->mux != NULL);
    return ex->mux;
}

struct at_stream *at_mux_server_stream(const struct at_http_exchange *ex)
{
    return stream_of(ex)->m->c->stream;
}

static void trim(struct at_buf *buf)
{
    if (buf->cap > AT_HTTP_KEEP_BYTES_MAX) {
        at_buf_done(buf);
    } else {
        at_buf_clear(buf);
    }
}

static struct mux_stream *stream_new(struct mux_server *m, uint32_t id)
{
    struct mux_stream *s = m->free_streams;
    if (s != NULL) {
        m->free_streams = s->next_free;
    } else {
        s = AT_NEW(struct mux_stream);
    }
    s->m = m;
    s->ex.mux = s;
    s->id = id;
    s->state = STREAM_BODY;
    s->window = s->credit = AT_MUX_WINDOW_BYTES;
    s->begun = s->bodyless = s->has_length = false;
    s->out_pos = 0;
    s->on_gone = s->on_writable = NULL;
    m->slots[id % AT_MUX_SLOTS] = s;
    m->n_streams++;
    return s;
}

static void stream_free(struct mux_stream *s)
{
    struct mux_server *m = s->m;
    m->slots[s->id % AT_MUX_SLOTS] = NULL;
    m->n_streams--;
    trim(&s->in);
    trim(&s->body);
    trim(&s->head);
    trim(&s->out);
    s->next_free = m->free_streams;
    m->free_streams = s;
}

/* --- sending --- */

static void on_turn_end(void *ctx)
{
    at_stream_uncork(((struct mux_server *)ctx)->c->stream);
}

static void put_frames(struct mux_server *m, const struct iovec *iov, int n)
{
    if (m->c->stream == NULL) {
        return; /* gone: the streams are being told */
    }
    if (!m->send_task.queued) {
        at_stream_cork(m->c->stream);
        at_loop_at_end(m->c->server->loop, &m->send_task);
    }
    if (at_stream_writev(m->c->stream, iov, n) == AT_EXHAUSTED) {
        at_stream_close(m->c->stream); /* frames must not be left out */
    }
}

static void put_number_frame(struct mux_server *m, enum at_mux_type type, uint32_t id,
                             uint32_t number)
{
    char frame[AT_MUX_HEAD_BYTES + 4];
    at_mux_put_number(frame, type, id, number);
    put_frames(m, &(struct iovec){frame, sizeof frame}, 1);
}

static void put_message(struct mux_stream *s, const char *data, size_t len, bool end)
{
    char frame[AT_MUX_HEAD_BYTES];
    size_t head = s->begun ? 0 : s->head.len;
    at_mux_put_head(frame, s->begun ? AT_MUX_DATA : AT_MUX_HEAD, end, s->id, head + len);
    struct iovec iov[3] = {
        {frame, sizeof frame}, {s->head.data, head}, {(void *)(uintptr_t)data, len}};
    put_frames(s->m, iov, 3);
    s->begun = true;
    s->window -= (uint32_t)len;
}

/* As much as the window takes; the rest waits in out. end: the answer is complete with it. */
static void send_body(struct mux_stream *s, const char *data, size_t len, bool end)
{
    if (s->out.len == 0) {
        size_t n = len < s->window ? len : s->window;
        bool last = end && n == len;
        if (n > 0 || last || !s->begun) {
            put_message(s, data, n, last);
        }
        if (last) {
            stream_free(s);
            return;
        }
        data += n;
        len -= n;
    }
    if (end) {
        s->state = STREAM_FLUSHES;
    }
    if (len > 0 && at_buf_append(&s->out, data, len) != AT_OK) {
        put_number_frame(s->m, AT_MUX_RESET, s->id, AT_MUX_BROKEN);
        stream_free(s);
    }
}

/* The window has grown. */
static void send_waiting(struct mux_stream *s)
{
    size_t left = s->out.len - s->out_pos;
    size_t n = left < s->window ? left : s->window;
    bool last = n == left && s->state == STREAM_FLUSHES;
    if (n == 0) {
        return;
    }
    put_message(s, s->out.data + s->out_pos, n, last);
    s->out_pos += n;
    if (last) {
        stream_free(s);
    } else if (n == left) {
        trim(&s->out);
        s->out_pos = 0;
        if (s->on_writable != NULL) {
            s->on_writable(s->writable_ctx);
        }
    }
}

static enum at_rc put_head(struct mux_stream *s, int status, const char *type, const char *headers,
                           const uint64_t *length)
{
    size_t type_len = type != NULL ? strlen(type) : 0;
    size_t headers_len = headers != NULL ? strlen(headers) : 0;
    char *start;
    at_buf_clear(&s->head);
    if (headers_len + type_len > AT_HTTP_HEAD_BYTES_MAX - HEAD_FIXED_BYTES) {
        return AT_TOO_LARGE;
    }
    enum at_rc rc = at_buf_reserve(&s->head, HEAD_FIXED_BYTES + type_len + headers_len, &start);
    if (rc != AT_OK) {
        return rc;
    }
    const char *text = at_http_status_text(status);
    char *p = PUT_LITERAL(start, "HTTP/1.1 ");
    p = put_number(p, (uint64_t)status);
    *p++ = ' ';
    p = put(p, text, strlen(text));
    p = PUT_LITERAL(p, "\r\n");
    if (type_len > 0) {
        p = PUT_LITERAL(p, "Content-Type: ");
        p = put(p, type, type_len);
        p = PUT_LITERAL(p, "\r\n");
    }
    if (length != NULL) {
        p = PUT_LITERAL(p, "Content-Length: ");
        p = put_number(p, *length);
        p = PUT_LITERAL(p, "\r\n");
    }
    p = put(p, headers != NULL ? headers : "", headers_len);
    p = PUT_LITERAL(p, "\r\n");
    at_buf_commit(&s->head, (size_t)(p - start));
    return AT_OK;
}

void at_mux_respond(struct at_http_exchange *ex, int status, const char *content_type,
                    const char *headers, const void *body, size_t len)
{
    struct mux_stream *s = stream_of(ex);
    bool head_only = ex->head.method == AT_HTTP_HEAD;
    uint64_t length = len;
    bool tell = len > AT_MUX_WINDOW_BYTES || head_only; /* else it shows at once */
    bool bodyless = head_only || at_http_never_has_body(status);
    assert(s->state == STREAM_BUSY);
    assert(!s->begun);
    s->on_gone = NULL;
    s->on_writable = NULL;
    if (put_head(s, status, content_type, headers,
                 tell && !at_http_never_has_body(status) ? &length : NULL) != AT_OK) {
        at_mux_abort(ex);
        return;
    }
    send_body(s, body, bodyless ? 0 : len, true);
}

void at_mux_stream_begin(struct at_http_exchange *ex, int status, const char *content_type,
                         const char *headers)
{
    struct mux_stream *s = stream_of(ex);
    assert(s->state == STREAM_BUSY);
    s->bodyless = ex->head.method == AT_HTTP_HEAD || at_http_never_has_body(status);
    s->has_length = at_http_given_length(headers, &s->length_left);
    if (put_head(s, status, content_type, headers, NULL) != AT_OK) {
        at_buf_clear(&s->head);
    }
    send_body(s, NULL, 0, false);
}

enum at_rc at_mux_stream_write(struct at_http_exchange *ex, const void *data, size_t len)
{
    struct mux_stream *s = stream_of(ex);
    if (s->bodyless || len == 0) {
        return AT_OK;
    }
    if (s->out.len - s->out_pos + len > AT_HTTP_STREAM_QUEUE_BYTES_MAX) {
        return AT_EXHAUSTED;
    }
    if (s->has_length) {
        assert(len <= s->length_left);
        s->length_left -= len;
    }
    send_body(s, data, len, false);
    return AT_OK;
}

void at_mux_stream_end(struct at_http_exchange *ex)
{
    struct mux_stream *s = stream_of(ex);
    if (s->has_length && s->length_left > 0 && !s->bodyless) {
        at_mux_abort(ex); /* shorter than was said: the client must see that */
        return;
    }
    s->on_gone = NULL;
    s->on_writable = NULL;
    send_body(s, NULL, 0, true);
}

void at_mux_abort(struct at_http_exchange *ex)
{
    struct mux_stream *s = stream_of(ex);
    put_number_frame(s->m, AT_MUX_RESET, s->id, AT_MUX_BROKEN);
    stream_free(s);
}

size_t at_mux_stream_queued_bytes(const struct at_http_exchange *ex)
{
    const struct mux_stream *s = stream_of(ex);
    return s->out.len - s->out_pos;
}

void at_mux_on_gone(struct at_http_exchange *ex, void (*fn)(void *ctx), void *ctx)
{
    stream_of(ex)->on_gone = fn;
    stream_of(ex)->gone_ctx = ctx;
}

void at_mux_on_writable(struct at_http_exchange *ex, void (*fn)(void *ctx), void *ctx)
{
    stream_of(ex)->on_writable = fn;
    stream_of(ex)->writable_ctx = ctx;
}

/* --- receiving --- */

static void refuse(struct mux_stream *s, int status, const char *message)
{
    s->ex.head.method = AT_HTTP_POST; /* what was read of the head may be wrong */
    s->state = STREAM_BUSY;
    at_mux_respond(&s->ex, status, "text/plain", NULL, message, strlen(message));
}

static void dispatch(struct mux_stream *s)
{
    struct at_http_server *server = s->m->c->server;
    const struct at_http_head *h = &s->ex.head;
    if (h->has_length && h->content_length != s->ex.body.len) {
        refuse(s, 400, "the body has another length than was said\n");
        return;
    }
    s->state = STREAM_BUSY;
    server->handler(server->ctx, &s->ex);
}

static void take_body(struct mux_stream *s, struct at_str data, bool end)
{
    if (data.len > s->credit) {
        put_number_frame(s->m, AT_MUX_RESET, s->id, AT_MUX_BROKEN);
        stream_free(s);
        return;
    }
    s->credit -= (uint32_t)data.len;
    if (at_buf_append(&s->body, data.ptr, data.len) != AT_OK) {
        refuse(s, 413, "the request body is larger than this server takes\n");
        return;
    }
    if (end) {
        s->ex.body = (struct at_str){s->body.data, s->body.len};
        dispatch(s);
    } else if (s->credit < AT_MUX_WINDOW_BYTES / 2) {
        put_number_frame(s->m, AT_MUX_WINDOW, s->id, AT_MUX_WINDOW_BYTES - s->credit);
        s->credit = AT_MUX_WINDOW_BYTES;
    }
}

static void take_request(struct mux_server *m, const struct at_mux_frame *f)
{
    struct at_err err;
    size_t body_max = m->c->server->body_bytes_max;
    struct mux_stream *s = stream_new(m, f->id);
    s->in.max = AT_MUX_PAYLOAD_BYTES_MAX;
    s->body.max = body_max;
    at_buf_clear(&s->in);
    if (at_buf_append(&s->in, f->payload.ptr, f->payload.len) != AT_OK) {
        refuse(s, 503, "out of memory\n");
        return;
    }
    enum at_rc rc = at_http1_parse_request(s->in.data, s->in.len, &s->ex.head, &err);
    if (rc != AT_OK || s->ex.head.chunked || s->ex.head.upgrade) {
        refuse(s, rc == AT_TOO_LARGE ? 431 : 400, "malformed request\n");
        return;
    }
    size_t head_bytes = s->ex.head.head_bytes;
    struct at_str rest = {s->in.data + head_bytes, s->in.len - head_bytes};
    if (rest.len > body_max || (s->ex.head.has_length && s->ex.head.content_length > body_max)) {
        refuse(s, 413, "the request body is larger than this server takes\n");
    } else if (f->end) {
        s->ex.body = rest;
        dispatch(s);
    } else {
        take_body(s, rest, false);
    }
}

static void reset(struct mux_stream *s)
{
    void (*gone)(void *) = s->state == STREAM_BUSY ? s->on_gone : NULL;
    void *ctx = s->gone_ctx;
    bool held = s->state == STREAM_BUSY && gone == NULL;
    if (held) {
        return; /* whoever answers without asking to be told will find nobody listening */
    }
    stream_free(s);
    if (gone != NULL) {
        gone(ctx);
    }
}

/* False: not of this protocol; the connection ends. */
static bool take_frame(struct mux_server *m, const struct at_mux_frame *f)
{
    struct mux_stream *s = m->slots[f->id % AT_MUX_SLOTS];
    bool known = s != NULL && s->id == f->id;
    if (f->type == AT_MUX_HEAD) {
        if (f->id <= m->last_id) {
            return false;
        }
        m->last_id = f->id;
        if (m->draining || s != NULL || m->n_streams >= AT_MUX_STREAMS_MAX) {
            put_number_frame(m, AT_MUX_RESET, f->id, AT_MUX_REFUSED);
        } else {
            take_request(m, f);
        }
        return true;
    }
    if (f->type == AT_MUX_GOAWAY || f->id > m->last_id) {
        return false;
    }
    if (!known) {
        return true; /* over meanwhile */
    }
    switch (f->type) {
    case AT_MUX_DATA:
        if (s->state == STREAM_BODY) {
            take_body(s, f->payload, f->end);
        }
        break;
    case AT_MUX_WINDOW:
        if (f->number > AT_MUX_WINDOW_BYTES - s->window) {
            return false;
        }
        s->window += f->number;
        send_waiting(s);
        break;
    case AT_MUX_RESET:
        reset(s);
        break;
    case AT_MUX_HEAD:
    case AT_MUX_GOAWAY:
        break;
    }
    return true;
}

size_t at_mux_server_data(struct mux_server *m, const char *data, size_t len)
{
    size_t used = 0;
    while (used < len && m->c->state == CONN_MUX) {
        struct at_mux_frame f;
        struct at_err err;
        size_t n = 0;
        enum at_rc rc = at_mux_parse(data + used, len - used, &f, &n, &err);
        if (rc == AT_AGAIN) {
            break;
        }
        used += n;
        if (rc != AT_OK || !take_frame(m, &f)) {
            if (m->c->state == CONN_MUX) {
                at_stream_close(m->c->stream);
            }
            return len;
        }
    }
    return used;
}

void at_mux_server_begin(struct at_http_conn *c)
{
    static const char ANSWER[] = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                                 "Upgrade: " AT_MUX_PROTOCOL "\r\n\r\n";
    struct mux_server *m = AT_NEW(struct mux_server);
    m->c = c;
    m->send_task = (struct at_loop_task){.fn = on_turn_end, .ctx = m};
    c->mux = m;
    c->state = CONN_MUX;
    c->deadline_ns = INT64_MAX;
    (void)!at_stream_write(c->stream, ANSWER, sizeof ANSWER - 1);
}

void at_mux_server_drain(struct mux_server *m)
{
    if (!m->draining) {
        m->draining = true;
        put_number_frame(m, AT_MUX_GOAWAY, 0, m->last_id);
    }
}

void at_mux_server_gone(struct mux_server *m)
{
    at_loop_at_end_cancel(m->c->server->loop, &m->send_task);
    for (size_t i = 0; i < AT_MUX_SLOTS; i++) {
        struct mux_stream *s = m->slots[i];
        if (s != NULL) {
            void (*gone)(void *) = s->state == STREAM_BUSY ? s->on_gone : NULL;
            void *ctx = s->gone_ctx;
            stream_free(s);
            if (gone != NULL) {
                gone(ctx);
            }
        }
    }
}

void at_mux_server_free(struct mux_server *m)
{
    while (m != NULL && m->free_streams != NULL) {
        struct mux_stream *s = m->free_streams;
        m->free_streams = s->next_free;
        at_buf_done(&s->in);
        at_buf_done(&s->body);
        at_buf_done(&s->head);
        at_buf_done(&s->out);
        at_free(s);
    }
    at_free(m);
}
