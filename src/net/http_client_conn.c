/* HTTP client: bytes of requests and answers. */
#include "net/http_client_int.h"

#include "core/mem.h"

#include <assert.h>
#include <stdio.h>

/* "host:port" -> "host", "[::1]:80" -> "::1". */
void at_client_host_of(const char *addr, char *out, size_t out_size)
{
    const char *colon = strrchr(addr, ':');
    size_t len = colon != NULL ? (size_t)(colon - addr) : strlen(addr);
    if (strncmp(addr, "unix:", 5) == 0) {
        addr = "localhost";
        len = 9;
    } else if (len >= 2 && addr[0] == '[' && addr[len - 1] == ']') {
        addr++;
        len -= 2;
    }
    snprintf(out, out_size, "%.*s", (int)len, addr);
}

enum at_rc at_client_put_request(const struct at_http_call *c, struct at_buf *out)
{
    bool has_body = c->body_len > 0 || c->method == AT_HTTP_POST || c->method == AT_HTTP_PUT ||
                    c->method == AT_HTTP_PATCH;
    const char *host = c->host != NULL                     ? c->host
                       : strncmp(c->addr, "unix:", 5) == 0 ? "localhost"
                                                           : c->addr;
    char length[64] = "\r\n";
    if (c->body_later && c->has_body_length) {
        snprintf(length, sizeof length, "\r\nContent-Length: %llu\r\n",
                 (unsigned long long)c->body_length);
    } else if (c->body_later) {
        snprintf(length, sizeof length, "\r\nTransfer-Encoding: chunked\r\n");
    } else if (has_body) {
        snprintf(length, sizeof length, "\r\nContent-Length: %zu\r\n", c->body_len);
    }
    const char *const parts[] = {
        at_http_method_name(c->method),       " ",   c->target, " HTTP/1.1\r\nHost: ", host, length,
        c->headers != NULL ? c->headers : "", "\r\n"};
    enum at_rc rc = AT_OK;
    at_buf_clear(out);
    for (size_t i = 0; rc == AT_OK && i < sizeof parts / sizeof parts[0]; i++) {
        rc = at_buf_append_str(out, parts[i]);
    }
    if (rc == AT_OK && c->body_len > 0) {
        rc = at_buf_append(out, c->body, c->body_len);
    }
    return rc;
}

static void on_open(void *ctx)
{
    struct client_conn *conn = ctx;
    assert(conn->call != NULL);
    at_client_send(conn);
}

/* The answer cannot be understood; the call gets rc, the connection goes. */
static void fail(struct client_conn *conn, const struct at_err *why)
{
    struct at_err err;
    at_err_set(&err, AT_UPSTREAM, "%s: %s", conn->pool->addr, why->msg);
    at_client_complete(conn->call, AT_UPSTREAM, &err);
}

/* "Keep-Alive: timeout=5": a request that is sent as the peer's time ends would meet a closed
 * connection, so ours ends a fifth sooner. */
static int64_t kept_ns(const struct at_http_head *head)
{
    static const char NAME[] = "timeout=";
    struct at_str value = at_http_header_get(head, "keep-alive");
    for (size_t i = 0; i + sizeof NAME - 1 < value.len; i++) {
        if (strncasecmp(value.ptr + i, NAME, sizeof NAME - 1) != 0) {
            continue;
        }
        int64_t seconds = 0;
        for (i += sizeof NAME - 1; i < value.len && value.ptr[i] >= '0' && value.ptr[i] <= '9';
             i++) {
            seconds = seconds > 86400 ? seconds : seconds * 10 + (value.ptr[i] - '0');
        }
        return seconds > 0 ? seconds * (AT_S / 5) * 4 : 1;
    }
    return 0;
}

/* False: the head is incomplete, or the call is over. */
static bool take_head(struct client_conn *conn, const char *data, size_t len, size_t *ret_used)
{
    struct client_call *call = conn->call;
    struct at_http_head head;
    struct at_err err;
    enum at_rc rc = at_http1_parse_response(data, len, &head, &err);
    if (rc == AT_AGAIN) {
        return false;
    }
    if (rc == AT_OK && head.status == 101) {
        rc = at_err_set(&err, AT_UPSTREAM, "switched protocols unasked");
    }
    if (rc != AT_OK) {
        fail(conn, &err);
        return false;
    }
    *ret_used = head.head_bytes;
    if (head.status < 200) {
        return true; /* interim: the answer comes later */
    }
    if (conn->pool->client->mux && !conn->pool->speaks_mux && !conn->reused) {
        conn->pool->speaks_mux = at_str_eq(at_http_header_get(&head, "atoll-mux"), "1");
    }
    if (!conn->reused) {
        conn->idle_ns = kept_ns(&head);
    }
    conn->head_done = true;
    conn->keep_alive = head.keep_alive;
    call->head_seen = true;
    at_client_piece(call);
    at_http1_body_begin(&conn->body, &head, call->method);
    conn->chunked = head.chunked && !conn->body.done;
    if (call->on_head != NULL) {
        call->on_head(call->ctx, &head);
    }
    return !conn->dead && conn->call == call;
}

/* False: the call is over. */
static bool take_body(struct client_conn *conn, const char *data, size_t len, size_t *ret_used)
{
    struct client_call *call = conn->call;
    struct at_str chunk;
    struct at_err err;
    if (at_http1_body_take(&conn->body, data, len, ret_used, &chunk, &err) != AT_OK) {
        fail(conn, &err);
        return false;
    }
    at_client_piece(call);
    if (chunk.len > 0 && call->on_body != NULL) {
        call->on_body(call->ctx, chunk.ptr, chunk.len);
    }
    return !conn->dead && conn->call == call;
}

static size_t take_answer(struct client_conn *conn, const char *data, size_t len)
{
    struct client_call *call = conn->call;
    size_t used = 0;
    conn->got_bytes = true;
    for (;;) {
        size_t n = 0;
        if (conn->head_done && conn->body.done) {
            /* More bytes than the answer: nobody asked for them, so trust the connection no more.
             */
            bool asked = !call->later.is || call->later.ended;
            at_client_conn_done(conn, conn->keep_alive && used == len && asked);
            at_client_complete(call, AT_OK, NULL);
            return len;
        }
        if (used == len || call->paused) {
            return used;
        }
        if (!conn->head_done) {
            if (!take_head(conn, data + used, len - used, &n)) {
                return conn->dead || conn->call != call ? len : used;
            }
        } else if (!take_body(conn, data + used, len - used, &n)) {
            return len;
        }
        used += n;
    }
}

static size_t on_data(void *ctx, const char *data, size_t len)
{
    struct client_conn *conn = ctx;
    size_t used = len;
    conn->in_data = true;
    if (conn->call != NULL) {
        used = take_answer(conn, data, len);
    } else {
        at_client_conn_free(conn); /* talks without being asked */
    }
    conn->in_data = false;
    if (conn->dead) {
        at_free(conn);
        return len;
    }
    return used;
}

/* Had the peer ended the connection before the request came to it? Some servers do so behind an
 * answer that does not say it (cpp-httplib, behind streams): the request is then as good as not
 * sent, whatever it is. A peer's end carries what it has taken, so this is no guess. */
static bool is_unread(const struct client_conn *conn)
{
    uint64_t acked;
    return at_stream_acked(conn->stream, &acked) && acked <= conn->asked_at;
}

static void on_close(void *ctx, enum at_rc rc, const struct at_err *err)
{
    struct client_conn *conn = ctx;
    struct client_call *call = conn->call;
    struct at_err own;
    bool untouched = call != NULL && !conn->got_bytes;
    bool retry = untouched && conn->reused;
    if (call != NULL) {
        if (conn->head_done && rc == AT_EOF) {
            rc = at_http1_body_eof(&conn->body, &own);
        } else if (untouched && rc != AT_EOF && err != NULL) {
            own = *err;
        } else {
            rc = untouched ? AT_UNAVAILABLE : AT_UPSTREAM;
            at_err_set(&own, rc, "the connection ended before the answer");
        }
        if (rc != AT_OK) {
            at_err_wrap(&own, rc, "%s", conn->pool->addr);
        }
        call->conn = NULL;
        conn->call = NULL;
    } else {
        at_client_conn_closed(conn);
    }
    retry = retry && at_client_retry(call, is_unread(conn));
    at_client_conn_free(conn);
    if (call != NULL && !retry) {
        at_client_complete(call, rc, rc == AT_OK ? NULL : &own);
    }
}

static void on_writable(void *ctx)
{
    struct client_conn *conn = ctx;
    if (conn->call != NULL) {
        at_client_body_writable(conn->call);
    }
}

struct at_stream_events at_client_conn_events(struct client_conn *conn)
{
    return (struct at_stream_events){.ctx = conn,
                                     .on_open = on_open,
                                     .on_data = on_data,
                                     .on_writable = on_writable,
                                     .on_close = on_close};
}
