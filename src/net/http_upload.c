/* Bodies of requests that their handler takes piece by piece. What it does not take stays with the
 * client: nothing is read meanwhile (HTTP/1.1), or the stream's window is not opened (HTTP/2). */
#include "net/http_upload.h"

#include <assert.h>

bool at_http_upload_wanted(struct at_http_server *server, struct at_http_exchange *ex)
{
    if (server->early == NULL || !server->early(server->ctx, ex)) {
        return false;
    }
    ex->upload = (struct at_http_upload){.coming = true, .paused = true};
    ex->body = (struct at_str){"", 0};
    return true;
}

static struct at_http_server *server_of(const struct at_http_exchange *ex)
{
    return ex->h2 != NULL ? ex->h2->conn->server : at_http_conn_of(ex)->server;
}

/* A pause between pieces, and a rate below which nobody is sending a body. */
static int64_t due_ns(const struct at_http_upload *u, int64_t now_ns, int64_t timeout_ns)
{
    int64_t seconds = (int64_t)(u->bytes / AT_HTTP_UPLOAD_BYTES_PER_S_MIN);
    int64_t by_rate = seconds < INT32_MAX ? u->since_ns + timeout_ns + seconds * AT_S : INT64_MAX;
    return by_rate < now_ns + timeout_ns ? by_rate : now_ns + timeout_ns;
}

static void set_deadline(struct at_http_exchange *ex)
{
    const struct at_http_upload *u = &ex->upload;
    struct at_http_server *server = server_of(ex);
    int64_t now = at_loop_now_ns(server->loop), timeout = server->head_timeout_ns;
    int64_t due = u->coming && !u->paused && timeout > 0 ? due_ns(u, now, timeout) : INT64_MAX;
    int64_t delay = due == INT64_MAX ? 0 : due > now ? due - now : 1;
    if (ex->h2 == NULL) {
        at_http_conn_deadline(at_http_conn_of(ex), delay);
        return;
    }
    at_h2_stream_of(ex)->deadline_ns = due;
    if (due < ex->h2->conn->deadline_ns) {
        at_http_conn_deadline(ex->h2->conn, delay);
    }
}

bool at_http_body_is_coming(const struct at_http_exchange *ex)
{
    return ex->upload.coming;
}

static void say_continue(struct at_http_exchange *ex)
{
    static const char CONTINUE[] = "HTTP/1.1 100 Continue\r\n\r\n";
    if (ex->h2 != NULL) {
        const nghttp2_nv nv = {(uint8_t *)(uintptr_t) ":status", (uint8_t *)(uintptr_t) "100", 7, 3,
                               0};
        (void)!nghttp2_submit_headers(ex->h2->session, 0, at_h2_stream_of(ex)->id, NULL, &nv, 1,
                                      NULL);
        at_h2_flush_soon(ex->h2);
    } else {
        (void)!at_stream_write(at_http_conn_of(ex)->stream, CONTINUE, sizeof CONTINUE - 1);
    }
}

void at_http_body_take(struct at_http_exchange *ex, const struct at_http_body_events *events)
{
    struct at_http_upload *u = &ex->upload;
    assert(u->coming);
    assert(events->on_data != NULL);
    assert(events->on_end != NULL);
    u->ev = *events;
    if (u->says_continue) {
        u->says_continue = false;
        say_continue(ex);
    }
    at_http_body_pause(ex, false);
}

void at_http_body_pause(struct at_http_exchange *ex, bool paused)
{
    struct at_http_upload *u = &ex->upload;
    if (!u->coming || u->paused == paused || u->ev.on_data == NULL) {
        return;
    }
    u->paused = paused;
    u->since_ns = at_loop_now_ns(server_of(ex)->loop);
    u->bytes = 0;
    set_deadline(ex);
    if (paused) {
        return;
    }
    if (ex->h2 != NULL) {
        ex->h2->uploads_flow = true;
        at_h2_flush_soon(ex->h2);
    } else {
        at_http_upgraded_resume(ex);
    }
}

/* No more of it comes; its handler answers, or has. */
static void end(struct at_http_exchange *ex, enum at_rc rc, const char *message)
{
    struct at_http_body_events ev = ex->upload.ev;
    ex->upload.ev.on_data = NULL;
    ex->upload.coming = rc != AT_OK; /* else the connection can be used on */
    ex->upload.paused = true;
    set_deadline(ex);
    if (ev.on_end != NULL) {
        ev.on_end(ev.ctx, rc, message);
    }
}

void at_http_upload_late(struct at_http_exchange *ex)
{
    at_http_count(server_of(ex)->metrics.timeouts, 1);
    end(ex, AT_TIMEOUT, "the request was not complete in time");
}

static void give(struct at_http_exchange *ex, const char *data, size_t len)
{
    struct at_http_upload *u = &ex->upload;
    u->bytes += len;
    set_deadline(ex);
    u->ev.on_data(u->ev.ctx, data, len);
}

size_t at_http_upload_data(struct at_http_conn *c, const char *data, size_t len)
{
    struct at_http_upload *u = &c->ex.upload;
    size_t used = 0;
    while (used < len && c->state == CONN_BUSY && u->coming && !u->paused && !c->body_reader.done) {
        struct at_str piece;
        struct at_err err;
        size_t n;
        enum at_rc rc =
            at_http1_body_take(&c->body_reader, data + used, len - used, &n, &piece, &err);
        if (rc != AT_OK) {
            end(&c->ex, rc, err.msg);
            return len;
        }
        used += n;
        if (piece.len > 0) {
            give(&c->ex, piece.ptr, piece.len);
        }
    }
    /* Whoever paused it with its last piece is told too: nothing is left to be held back. */
    if (c->state == CONN_BUSY && u->coming && c->body_reader.done && u->ev.on_data != NULL) {
        end(&c->ex, AT_OK, NULL);
    }
    return used;
}

/* What has come for streams whose handlers take it now. */
void at_h2_uploads(struct at_h2 *h2)
{
    while (h2->uploads_flow && !h2->dead) {
        h2->uploads_flow = false;
        for (struct at_h2_stream *st = h2->streams, *next; st != NULL && !h2->dead; st = next) {
            struct at_http_upload *u = &st->ex.upload;
            next = st->next; /* frames free streams, handlers do not */
            if (!u->coming || u->paused || !st->handed || st->answered) {
                continue;
            }
            if (st->body.len > 0) {
                struct at_buf piece = st->body;
                (void)!nghttp2_session_consume_stream(h2->session, st->id, piece.len);
                st->body = (struct at_buf){.max = piece.max};
                give(&st->ex, piece.data, piece.len);
                at_h2_body_drop(h2, &piece);
            }
            if (!h2->dead && st->whole && u->coming && !st->answered && st->body.len == 0 &&
                u->ev.on_data != NULL) {
                end(&st->ex, AT_OK, NULL);
            }
        }
    }
}
