/* Answers of the HTTP server. A whole answer is one write: head and body in one system call. */
#include "core/mem.h"
#include "net/h2_int.h"
#include "net/http_put.h"
#include "net/mux_server.h"

#include <assert.h>
#include <stdio.h>
#include <strings.h>
#include <sys/uio.h>
#include <time.h>

/* Room for everything in a head but content_type and headers. */
#define HEAD_FIXED_BYTES 256

const struct at_http_head *at_http_request(const struct at_http_exchange *ex)
{
    return &ex->head;
}

struct at_str at_http_request_body(const struct at_http_exchange *ex)
{
    return ex->body;
}

static const struct at_http_conn *conn_under(const struct at_http_exchange *ex)
{
    return ex->h2 != NULL ? ex->h2->conn : at_http_conn_of(ex);
}

bool at_http_is_h2(const struct at_http_exchange *ex)
{
    return ex->h2 != NULL;
}

const struct at_tls_peer *at_http_peer(const struct at_http_exchange *ex)
{
    if (ex->mux != NULL) {
        return at_stream_peer(at_mux_server_stream(ex));
    }
    return at_stream_peer(conn_under(ex)->stream);
}

const char *at_http_peer_addr(const struct at_http_exchange *ex)
{
    if (ex->mux != NULL) {
        return at_stream_peer_addr(at_mux_server_stream(ex));
    }
    return at_stream_peer_addr(conn_under(ex)->stream);
}

/* RFC 9110 §5.6.7, made once a second. */
const char *at_http_date_line(struct at_http_server *server)
{
    static const char DAYS[] = "SunMonTueWedThuFriSat";
    static const char MONTHS[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    int64_t now = at_loop_now_ns(server->loop);
    if (now >= server->date_until_ns) {
        int64_t wall = at_sys_wall_ns(at_loop_sys(server->loop));
        time_t seconds = (time_t)(wall / AT_S);
        struct tm tm;
        gmtime_r(&seconds, &tm);
        snprintf(server->date, sizeof server->date,
                 "Date: %.3s, %02d %.3s %04d %02d:%02d:%02d GMT\r\n", DAYS + 3 * tm.tm_wday,
                 tm.tm_mday, MONTHS + 3 * tm.tm_mon, (tm.tm_year + 1900) % 10000, tm.tm_hour,
                 tm.tm_min, tm.tm_sec);
        server->date_until_ns = now + AT_S - wall % AT_S;
    }
    return server->date;
}

static struct iovec piece(const void *data, size_t len)
{
    return (struct iovec){(void *)(uintptr_t)data, len};
}

struct answer {
    int status;
    const char *content_type, *headers;
    bool has_length; /* put Content-Length: length */
    uint64_t length;
};

/* The answer's head into c->out. err: AT_TOO_LARGE, AT_NOMEM. */
static enum at_rc put_head(struct at_http_conn *c, const struct answer *a)
{
    size_t type_len = a->content_type != NULL ? strlen(a->content_type) : 0;
    size_t headers_len = a->headers != NULL ? strlen(a->headers) : 0;
    char *start;
    at_buf_clear(&c->out);
    enum at_rc rc = at_buf_reserve(&c->out, HEAD_FIXED_BYTES + type_len + headers_len, &start);
    if (rc != AT_OK) {
        return rc;
    }
    const char *text = at_http_status_text(a->status);
    char *p = PUT_LITERAL(start, "HTTP/1.1 ");
    p = put_number(p, (uint64_t)a->status);
    *p++ = ' ';
    p = put(p, text, strlen(text));
    p = PUT_LITERAL(p, "\r\n");
    const char *date = at_http_date_line(c->server);
    p = put(p, date, strlen(date));
    if (type_len > 0) {
        p = PUT_LITERAL(p, "Content-Type: ");
        p = put(p, a->content_type, type_len);
        p = PUT_LITERAL(p, "\r\n");
    }
    if (a->has_length) {
        p = PUT_LITERAL(p, "Content-Length: ");
        p = put_number(p, a->length);
        p = PUT_LITERAL(p, "\r\n");
    } else if (c->chunked) {
        p = PUT_LITERAL(p, "Transfer-Encoding: chunked\r\n");
    }
    if (!c->ex.head.keep_alive) {
        p = PUT_LITERAL(p, "Connection: close\r\n");
    } else if (c->ex.head.minor == 0) {
        p = PUT_LITERAL(p, "Connection: keep-alive\r\n");
    }
    if (c->server->mux) {
        p = PUT_LITERAL(p, "Atoll-Mux: 1\r\n");
    }
    p = put(p, a->headers != NULL ? a->headers : "", headers_len);
    p = PUT_LITERAL(p, "\r\n");
    at_buf_commit(&c->out, (size_t)(p - start));
    return AT_OK;
}

bool at_http_never_has_body(int status)
{
    return status < 200 || status == 204 || status == 304;
}

static void respond_busy(struct at_http_conn *c)
{
    static const char BODY[] =
        "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\","
        "\"message\":\"too much waits for slow clients, try again later\","
        "\"reason\":\"TooManyRequests\",\"details\":{\"retryAfterSeconds\":1},\"code\":429}\n";
    at_http_count(c->server->metrics.answers_refused, 1);
    at_http_respond(&c->ex, 429, "application/json", "Retry-After: 1\r\n", BODY, sizeof BODY - 1);
}

void at_http_respond(struct at_http_exchange *ex, int status, const char *content_type,
                     const char *headers, const void *body, size_t len)
{
    if (ex->mux != NULL) {
        at_mux_respond(ex, status, content_type, headers, body, len);
        return;
    }
    if (ex->h2 != NULL) {
        at_h2_respond(at_h2_stream_of(ex), status, content_type, headers, body, len);
        return;
    }
    struct at_http_conn *c = at_http_conn_of(ex);
    assert(c->state == CONN_BUSY);
    assert(!c->streaming);
    assert(status >= 100 && status <= 999);
    if (!at_http_queue_room(c, len)) {
        respond_busy(c);
        return;
    }
    c->chunked = false;
    ex->head.keep_alive &= !c->server->draining && !ex->upload.coming;
    struct answer a = {.status = status,
                       .content_type = content_type,
                       .headers = headers,
                       .has_length = !at_http_never_has_body(status),
                       .length = len};
    bool bodyless = ex->head.method == AT_HTTP_HEAD || at_http_never_has_body(status);
    if (put_head(c, &a) != AT_OK) {
        at_http_abort(ex);
        return;
    }
    struct iovec iov[2] = {{c->out.data, c->out.len}, piece(body, bodyless ? 0 : len)};
    enum at_rc rc = at_stream_writev(c->stream, iov, 2);
    if (rc == AT_EXHAUSTED || rc == AT_TOO_LARGE || rc == AT_NOMEM) {
        at_http_abort(ex); /* an answer cut in the middle must not look complete */
        return;
    }
    at_http_queue_count(c);
    at_http_conn_answered(c); /* a broken stream ends by itself */
}

bool at_http_given_length(const char *headers, uint64_t *ret)
{
    static const char NAME[] = "content-length:";
    for (const char *line = headers; line != NULL && *line != '\0';) {
        const char *end = strstr(line, "\r\n");
        size_t len = end != NULL ? (size_t)(end - line) : strlen(line);
        if (len >= sizeof NAME - 1 && strncasecmp(line, NAME, sizeof NAME - 1) == 0) {
            struct at_str value = {line + sizeof NAME - 1, len - (sizeof NAME - 1)};
            return at_str_to_u64(at_str_trim(value), ret) == AT_OK;
        }
        line = end != NULL ? end + 2 : NULL;
    }
    return false;
}

/* Send what is pending of the head together with up to three pieces. */
static enum at_rc send(struct at_http_conn *c, const struct iovec *pieces, int n)
{
    struct iovec iov[4];
    assert(n <= 3);
    iov[0] = (struct iovec){c->out.data, c->out.len};
    if (n > 0) {
        memcpy(iov + 1, pieces, sizeof *iov * (size_t)n);
    }
    int skip = c->out.len == 0;
    enum at_rc rc = at_stream_writev(c->stream, iov + skip, n + 1 - skip);
    at_buf_clear(&c->out);
    at_loop_timer_cancel(c->server->loop, c->head_timer);
    c->head_timer = 0;
    at_http_queue_count(c);
    return rc;
}

static void on_head_timer(void *ctx)
{
    struct at_http_conn *c = ctx;
    c->head_timer = 0;
    (void)!send(c, NULL, 0);
}

void at_http_stream_begin(struct at_http_exchange *ex, int status, const char *content_type,
                          const char *headers)
{
    if (ex->mux != NULL) {
        at_mux_stream_begin(ex, status, content_type, headers);
        return;
    }
    if (ex->h2 != NULL) {
        at_h2_stream_begin(at_h2_stream_of(ex), status, content_type, headers);
        return;
    }
    struct at_http_conn *c = at_http_conn_of(ex);
    assert(c->state == CONN_BUSY);
    assert(!c->streaming);
    c->streaming = true;
    c->bodyless = ex->head.method == AT_HTTP_HEAD || at_http_never_has_body(status);
    c->has_length = at_http_given_length(headers, &c->length_left);
    c->chunked = !c->has_length && ex->head.minor == 1 && !at_http_never_has_body(status);
    ex->head.keep_alive &= !c->server->draining && !ex->upload.coming;
    if (!c->has_length && ex->head.minor == 0) {
        ex->head.keep_alive = false; /* the end of the connection is the end of the body */
    }
    struct answer a = {.status = status, .content_type = content_type, .headers = headers};
    if (put_head(c, &a) != AT_OK) {
        at_buf_clear(&c->out);
        at_stream_close(c->stream);
        return;
    }
    c->head_timer = at_loop_timer(c->server->loop, 0, on_head_timer, c);
}

void at_http_upgrade(struct at_http_exchange *ex, const char *headers,
                     size_t (*fn)(void *ctx, const char *data, size_t len), void *ctx)
{
    assert(ex->h2 == NULL); /* their heads never ask for it */
    if (ex->mux != NULL) {
        at_mux_abort(ex);
        return;
    }
    struct at_http_conn *c = at_http_conn_of(ex);
    assert(c->state == CONN_BUSY);
    assert(!c->streaming);
    c->streaming = true;
    c->bodyless = false;
    c->has_length = false;
    c->chunked = false;
    ex->head.keep_alive = false;
    c->on_raw = fn;
    c->raw_ctx = ctx;
    at_buf_clear(&c->out);
    enum at_rc rc = at_buf_append_str(&c->out, "HTTP/1.1 101 Switching Protocols\r\n");
    if (rc == AT_OK) {
        rc = at_buf_append_str(&c->out, headers);
    }
    if (rc == AT_OK) {
        rc = at_buf_append_str(&c->out, "\r\n");
    }
    if (rc != AT_OK || send(c, NULL, 0) != AT_OK) {
        at_buf_clear(&c->out);
        at_stream_close(c->stream);
        return;
    }
    at_http_upgraded_resume(ex);
}

void at_http_upgraded_on_end(struct at_http_exchange *ex, void (*fn)(void *ctx), void *ctx)
{
    struct at_http_conn *c = at_http_conn_of(ex);
    assert(c->on_raw != NULL);
    c->on_raw_end = fn;
    c->raw_end_ctx = ctx;
    at_http_conn_want_end(c);
}

void at_http_upgraded_end_half(struct at_http_exchange *ex)
{
    at_stream_end_half(at_http_conn_of(ex)->stream);
}

void at_http_upgraded_resume(struct at_http_exchange *ex)
{
    struct at_http_conn *c = at_http_conn_of(ex);
    if (c->paused && !c->in_data) {
        c->paused = false;
        at_stream_resume(c->stream);
    }
}

enum at_rc at_http_stream_write(struct at_http_exchange *ex, const void *data, size_t len)
{
    if (ex->mux != NULL) {
        return at_mux_stream_write(ex, data, len);
    }
    if (ex->h2 != NULL) {
        return at_h2_stream_write(at_h2_stream_of(ex), data, len);
    }
    struct at_http_conn *c = at_http_conn_of(ex);
    assert(c->streaming);
    if (c->bodyless || len == 0) {
        return AT_OK;
    }
    if (at_stream_queued_bytes(c->stream) + len > AT_HTTP_STREAM_QUEUE_BYTES_MAX) {
        return AT_EXHAUSTED;
    }
    if (!at_http_queue_room(c, len)) {
        return AT_EXHAUSTED;
    }
    struct iovec payload = piece(data, len);
    if (!c->chunked) {
        if (c->has_length) {
            assert(len <= c->length_left);
            c->length_left -= len;
        }
        return send(c, &payload, 1);
    }
    char size[24];
    int n = snprintf(size, sizeof size, "%zx\r\n", len);
    struct iovec iov[3] = {{size, (size_t)n}, payload, piece("\r\n", 2)};
    return send(c, iov, 3);
}

void at_http_stream_end_trailers(struct at_http_exchange *ex, const char *trailers)
{
    if (ex->mux != NULL) {
        at_mux_stream_end(ex);
        return;
    }
    if (ex->h2 != NULL) {
        at_h2_stream_end(at_h2_stream_of(ex), trailers);
        return;
    }
    struct at_http_conn *c = at_http_conn_of(ex);
    assert(c->streaming);
    if (c->has_length && c->length_left > 0 && !c->bodyless) {
        at_http_abort(ex); /* shorter than was said: the client must see that */
        return;
    }
    struct iovec last[3] = {piece("0\r\n", 3),
                            piece(trailers, trailers != NULL ? strlen(trailers) : 0),
                            piece("\r\n", 2)};
    (void)!send(c, last, c->chunked && !c->bodyless ? 3 : 0);
    c->streaming = false;
    at_http_conn_answered(c);
}

void at_http_stream_end(struct at_http_exchange *ex)
{
    at_http_stream_end_trailers(ex, NULL);
}

void at_http_abort(struct at_http_exchange *ex)
{
    if (ex->mux != NULL) {
        at_mux_abort(ex);
        return;
    }
    if (ex->h2 != NULL) {
        at_h2_abort(at_h2_stream_of(ex));
        return;
    }
    struct at_http_conn *c = at_http_conn_of(ex);
    c->on_gone = NULL;
    at_http_conn_free(c);
}

size_t at_http_stream_queued_bytes(const struct at_http_exchange *ex)
{
    if (ex->mux != NULL) {
        return at_mux_stream_queued_bytes(ex);
    }
    if (ex->h2 != NULL) {
        const struct at_h2_stream *st = at_h2_stream_of(ex);
        return st->out.len - st->out_at;
    }
    return at_stream_queued_bytes(at_http_conn_of(ex)->stream);
}

void at_http_on_gone(struct at_http_exchange *ex, void (*fn)(void *ctx), void *ctx)
{
    if (ex->mux != NULL) {
        at_mux_on_gone(ex, fn, ctx);
        return;
    }
    if (ex->h2 != NULL) {
        at_h2_stream_of(ex)->on_gone = fn;
        at_h2_stream_of(ex)->gone_ctx = ctx;
        return;
    }
    struct at_http_conn *c = at_http_conn_of(ex);
    c->on_gone = fn;
    c->gone_ctx = ctx;
}

void at_http_on_writable(struct at_http_exchange *ex, void (*fn)(void *ctx), void *ctx)
{
    if (ex->mux != NULL) {
        at_mux_on_writable(ex, fn, ctx);
        return;
    }
    if (ex->h2 != NULL) {
        at_h2_stream_of(ex)->on_writable = fn;
        at_h2_stream_of(ex)->writable_ctx = ctx;
        return;
    }
    struct at_http_conn *c = at_http_conn_of(ex);
    c->on_writable = fn;
    c->writable_ctx = ctx;
}

void at_http_answer_writable(struct at_http_conn *c)
{
    at_http_queue_count(c);
    if (c->state == CONN_BUSY && c->streaming && c->on_writable != NULL) {
        c->on_writable(c->writable_ctx);
    }
}
