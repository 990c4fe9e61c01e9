/* HTTP client: bodies of requests that come after the call, piece by piece. By HTTP/1.1 each has a
 * fresh connection, so that no piece goes to a server that has just closed an idle one; by HTTP/2
 * pieces gather in the call and leave as the server's windows allow. */
#include "net/h2_client.h"

#include "core/mem.h"

#include <assert.h>
#include <stdio.h>
#include <sys/uio.h>

void at_client_body_begin(struct client_call *call, const struct at_http_call *c)
{
    call->later = (struct client_later){.on_writable = c->on_writable,
                                        .is = true,
                                        .chunked = !c->has_body_length,
                                        .left = c->has_body_length ? c->body_length : UINT64_MAX};
}

void at_client_body_writable(struct client_call *call)
{
    struct client_later *l = &call->later;
    if (l->is && !l->ended && call->sent && l->on_writable != NULL) {
        l->open = true;
        l->on_writable(call->ctx);
    }
}

void at_client_body_done(struct client_call *call)
{
    at_loop_at_end_cancel(call->client->loop, &call->later.task);
    at_buf_done(&call->later.out);
    call->later.is = false;
}

static struct client_call *open_call(struct at_http_client *client, at_http_call_id id)
{
    struct client_call *call = at_client_find(client, id);
    bool open = call != NULL && call->err == NULL && call->later.is && call->later.open &&
                !call->later.ended && (call->conn != NULL || call->h2 != NULL);
    return open ? call : NULL;
}

size_t at_http_call_queued_bytes(struct at_http_client *client, at_http_call_id id)
{
    struct client_call *call = open_call(client, id);
    return call == NULL         ? 0
           : call->conn != NULL ? at_stream_queued_bytes(call->conn->stream)
                                : call->later.out.len - call->later.out_at;
}

static enum at_rc write_http1(struct client_call *call, const void *data, size_t len)
{
    char size[24];
    struct iovec piece = {(void *)(uintptr_t)data, len};
    if (!call->later.chunked) {
        return at_stream_writev(call->conn->stream, &piece, 1);
    }
    int n = snprintf(size, sizeof size, "%zx\r\n", len);
    struct iovec iov[3] = {{size, (size_t)n}, piece, {(void *)(uintptr_t) "\r\n", 2}};
    return at_stream_writev(call->conn->stream, iov, 3);
}

enum at_rc at_http_call_write(struct at_http_client *client, at_http_call_id id, const void *data,
                              size_t len)
{
    struct client_call *call = open_call(client, id);
    if (call == NULL) {
        return AT_UNAVAILABLE;
    }
    struct client_later *l = &call->later;
    if (len == 0) {
        return AT_OK;
    }
    if (len > l->left || at_http_call_queued_bytes(client, id) + len > AT_STREAM_QUEUE_BYTES_MAX) {
        return len > l->left ? AT_INVALID : AT_EXHAUSTED;
    }
    l->begun = true;
    l->left -= l->chunked ? 0 : len;
    if (call->first_byte_ns > 0) { /* counts from the last piece */
        call->first_byte_at_ns = at_loop_now_ns(client->loop) + call->first_byte_ns;
        at_client_want_sweep(client, call->first_byte_at_ns);
    }
    if (call->conn != NULL) {
        return write_http1(call, data, len);
    }
    enum at_rc rc = at_buf_append(&l->out, data, len);
    at_h2_client_body(call);
    return rc;
}

void at_http_call_end(struct at_http_client *client, at_http_call_id id)
{
    struct client_call *call = open_call(client, id);
    if (call == NULL) {
        return;
    }
    assert(call->later.chunked || call->later.left == 0);
    call->later.ended = true;
    if (call->conn != NULL && call->later.chunked) {
        (void)!at_stream_write(call->conn->stream, "0\r\n\r\n", 5); /* on_close tells */
    } else if (call->h2 != NULL) {
        at_h2_client_body(call);
    }
}
