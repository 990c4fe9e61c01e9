#include "client/channels.h"

#include "client/client_priv.h"
#include "client/limits.h"
#include "core/digest.h"
#include "core/mem.h"
#include "net/ws.h"

#include <assert.h>
#include <string.h>

#define END_CHANNEL 255 /* v5: its payload names the channel that has ended */

enum phase { PHASE_ASKED, PHASE_REFUSED, PHASE_OPEN, PHASE_OVER };

struct at_channels {
    struct at_client *client;
    struct at_channels_events events;
    struct at_stream *stream;
    enum phase phase;
    bool ends;   /* v5 */
    bool closed; /* on_close was called */
    unsigned depth;
    bool free_later;
    char accept[AT_WS_ACCEPT_BYTES];
    struct at_buf request;
    struct at_ws ws;
    int channel; /* of the message that is being read; -1: its first byte has not come */
    /* What it answered instead of agreeing. */
    int status;
    struct at_http1_body body;
    struct at_buf text;
    at_timer_id timer;
    int64_t heard_ns;
};

static void dispose(struct at_channels *c)
{
    at_loop_timer_cancel(c->client->loop, c->timer);
    at_stream_free(c->stream);
    at_buf_done(&c->request);
    at_buf_done(&c->text);
    at_free(c);
}

void at_channels_free(struct at_channels *c)
{
    if (c == NULL) {
        return;
    }
    c->phase = PHASE_OVER;
    c->closed = true;
    if (c->depth != 0) {
        c->free_later = true;
    } else {
        dispose(c);
    }
}

static void enter(struct at_channels *c)
{
    c->depth++;
}

static void leave(struct at_channels *c)
{
    if (--c->depth == 0 && c->free_later) {
        dispose(c);
    }
}

static void over(struct at_channels *c, enum at_rc rc, const struct at_err *err)
{
    c->phase = PHASE_OVER;
    at_loop_timer_cancel(c->client->loop, c->timer);
    c->timer = 0;
    if (!c->closed) {
        c->closed = true;
        c->events.on_close(c->events.ctx, rc, err);
    }
}

/* --- out --- */

static enum at_rc send_frame(struct at_channels *c, enum at_ws_opcode opcode, int channel,
                             const void *data, size_t len)
{
    uint8_t mask[AT_WS_MASK_BYTES];
    char head[AT_WS_HEAD_BYTES_MAX + AT_WS_MASK_BYTES + 1];
    size_t with = channel >= 0 ? 1 : 0;
    if (c->phase != PHASE_OPEN || c->stream == NULL) {
        return AT_UNAVAILABLE;
    }
    if (at_stream_queued_bytes(c->stream) > AT_CLIENT_CHANNELS_QUEUE_BYTES_MAX) {
        return AT_EXHAUSTED;
    }
    at_sys_random(at_loop_sys(c->client->loop), mask, sizeof mask);
    size_t n = at_ws_head_masked(head, opcode, len + with, mask);
    if (with != 0) {
        head[n] = (char)channel;
        at_ws_mask(head + n, 1, 0, mask);
        n++;
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf frame = {0};
    enum at_rc rc = at_buf_append(&frame, head, n);
    if (rc == AT_OK && len != 0) {
        rc = at_buf_append(&frame, data, len);
    }
    if (rc != AT_OK) {
        return rc;
    }
    at_ws_mask(frame.data + n, len, with, mask);
    return at_stream_write(c->stream, frame.data, frame.len);
}

enum at_rc at_channels_send(struct at_channels *c, unsigned channel, const void *data, size_t len)
{
    assert(channel < END_CHANNEL);
    return send_frame(c, AT_WS_BINARY, (int)channel, data, len);
}

enum at_rc at_channels_send_end(struct at_channels *c, unsigned channel)
{
    char which = (char)channel;
    assert(channel < END_CHANNEL);
    return c->ends ? send_frame(c, AT_WS_BINARY, END_CHANNEL, &which, 1) : AT_OK;
}

size_t at_channels_queued_bytes(const struct at_channels *c)
{
    return c->stream != NULL ? at_stream_queued_bytes(c->stream) : 0;
}

void at_channels_pause(struct at_channels *c)
{
    if (c->stream != NULL) {
        at_stream_pause(c->stream);
    }
}

void at_channels_resume(struct at_channels *c)
{
    if (c->stream != NULL) {
        at_stream_resume(c->stream);
    }
}

/* A connection on which nothing is said is asked whether it lives. */
static void on_timer(void *ctx)
{
    struct at_channels *c = ctx;
    struct at_err err = {0};
    int64_t silent = at_loop_now_ns(c->client->loop) - c->heard_ns;
    c->timer = 0;
    if (silent > AT_CLIENT_CHANNELS_SILENCE_NS) {
        enter(c);
        at_err_set(&err, AT_UNAVAILABLE, "the server does not answer any more");
        over(c, AT_UNAVAILABLE, &err);
        leave(c);
        return;
    }
    if (c->phase == PHASE_OPEN) {
        (void)!send_frame(c, AT_WS_PING, -1, "", 0);
    }
    c->timer = at_loop_timer(c->client->loop, AT_CLIENT_CHANNELS_PING_NS, on_timer, c);
}

/* --- in --- */

static void take_piece(struct at_channels *c, const struct at_ws_event *e)
{
    const char *data = e->data;
    size_t len = e->len;
    if (e->first) {
        c->channel = -1;
    }
    if (c->channel < 0 && len != 0) {
        c->channel = (unsigned char)data[0];
        data++;
        len--;
    }
    if (len != 0 && c->channel >= 0 && c->channel != END_CHANNEL) {
        c->events.on_data(c->events.ctx, (unsigned)c->channel, data, len);
    }
}

static void take_control(struct at_channels *c, const struct at_ws_event *e)
{
    if (e->opcode == AT_WS_PING) {
        (void)!send_frame(c, AT_WS_PONG, -1, e->data, e->len);
    } else if (e->opcode == AT_WS_CLOSE) {
        struct at_err err = {0};
        (void)!send_frame(c, AT_WS_CLOSE, -1, e->data, e->len < 2 ? e->len : 2);
        at_err_set(&err, AT_EOF, "the server closed the connection");
        over(c, AT_EOF, &err);
    }
}

static size_t take_frames(struct at_channels *c, const char *data, size_t len)
{
    size_t all = 0;
    struct at_ws_event e;
    do {
        struct at_err err = {0};
        size_t used = 0;
        enum at_rc rc = at_ws_take(&c->ws, data + all, len - all, &used, &e, &err);
        all += used;
        if (rc != AT_OK) {
            over(c, AT_UPSTREAM, &err);
            return len;
        }
        if (e.type == AT_WS_EVENT_DATA) {
            take_piece(c, &e);
        } else if (e.type == AT_WS_EVENT_CONTROL) {
            take_control(c, &e);
        }
    } while (c->phase == PHASE_OPEN && e.type != AT_WS_EVENT_NONE);
    return c->phase == PHASE_OPEN ? all : len;
}

static void refused(struct at_channels *c)
{
    struct at_err err = {0};
    AT_CLEANUP(at_cleanup_json) json_t *body = NULL;
    bool is_json =
        c->text.len != 0 && at_json_parse(c->text.data, c->text.len, &body, NULL) == AT_OK;
    enum at_rc rc = at_client_status_err(is_json ? body : NULL, c->status, &err);
    if (!is_json) {
        body = NULL;
    }
    over(c, rc, &err);
}

static size_t take_refusal(struct at_channels *c, const char *data, size_t len)
{
    size_t all = 0;
    size_t used = 1;
    while (!c->body.done && used != 0 && all < len) {
        struct at_str chunk = {0};
        if (at_http1_body_take(&c->body, data + all, len - all, &used, &chunk, NULL) != AT_OK) {
            break;
        }
        all += used;
        if (chunk.len != 0 && at_buf_append(&c->text, chunk.ptr, chunk.len) != AT_OK) {
            break;
        }
    }
    if (c->body.done) {
        refused(c);
    }
    return len;
}

static size_t take_head(struct at_channels *c, const char *data, size_t len)
{
    struct at_http_head head;
    struct at_err err = {0};
    enum at_rc rc = at_http1_parse_response(data, len, &head, &err);
    if (rc == AT_AGAIN) {
        return 0;
    }
    if (rc != AT_OK) {
        over(c, AT_UPSTREAM, &err);
        return len;
    }
    c->status = head.status;
    if (head.status != 101) {
        c->phase = PHASE_REFUSED;
        c->text.max = AT_CLIENT_CHANNELS_REFUSAL_BYTES_MAX;
        at_http1_body_begin(&c->body, &head, AT_HTTP_GET);
        return head.head_bytes + take_refusal(c, data + head.head_bytes, len - head.head_bytes);
    }
    if (!at_str_eq(at_http_header_get(&head, "Sec-WebSocket-Accept"), c->accept)) {
        at_err_set(&err, AT_UPSTREAM, "the server's answer to the upgrade is not of WebSocket");
        over(c, AT_UPSTREAM, &err);
        return len;
    }
    c->ends = at_str_eq(at_http_header_get(&head, "Sec-WebSocket-Protocol"), AT_CHANNELS_V5);
    c->phase = PHASE_OPEN;
    if (c->events.on_open != NULL) {
        c->events.on_open(c->events.ctx);
    }
    return head.head_bytes;
}

static size_t on_data(void *ctx, const char *data, size_t len)
{
    struct at_channels *c = ctx;
    size_t used = 0;
    enter(c);
    c->heard_ns = at_loop_now_ns(c->client->loop);
    if (c->phase == PHASE_ASKED) {
        used = take_head(c, data, len);
    }
    if (c->phase == PHASE_REFUSED && used < len) {
        used += take_refusal(c, data + used, len - used);
    } else if (c->phase == PHASE_OPEN) {
        used += take_frames(c, data + used, len - used);
    }
    used = c->phase == PHASE_OVER ? len : used;
    leave(c);
    return used;
}

static void on_open(void *ctx)
{
    struct at_channels *c = ctx;
    if (at_stream_write(c->stream, c->request.data, c->request.len) == AT_OK) {
        at_buf_done(&c->request);
    }
}

static void on_writable(void *ctx)
{
    struct at_channels *c = ctx;
    enter(c);
    if (c->phase == PHASE_OPEN && c->events.on_writable != NULL) {
        c->events.on_writable(c->events.ctx);
    }
    leave(c);
}

static void on_close(void *ctx, enum at_rc rc, const struct at_err *err)
{
    struct at_channels *c = ctx;
    struct at_err own = {0};
    enter(c);
    c->stream = NULL;
    if (c->phase == PHASE_REFUSED) {
        refused(c);
    } else if (rc == AT_OK || rc == AT_EOF || err == NULL) {
        at_err_set(&own, AT_UNAVAILABLE, "the connection to the server broke");
        over(c, AT_UNAVAILABLE, &own);
    } else {
        over(c, rc, err);
    }
    leave(c);
}

static enum at_rc request_make(struct at_channels *c, const char *path, const char *protocols)
{
    uint8_t raw[16];
    AT_CLEANUP(at_cleanup_buf) struct at_buf key = {0};
    at_sys_random(at_loop_sys(c->client->loop), raw, sizeof raw);
    enum at_rc rc = at_base64_encode(raw, sizeof raw, &key);
    if (rc == AT_OK) {
        rc = at_ws_accept(key.data, key.len, c->accept, NULL);
    }
    if (rc != AT_OK) {
        return rc;
    }
    return at_buf_printf(&c->request,
                         "GET %s HTTP/1.1\r\nHost: %s\r\n%sConnection: Upgrade\r\n"
                         "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                         "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Protocol: %s\r\n\r\n",
                         path, c->client->current->url.addr, c->client->headers, key.data,
                         protocols);
}

struct at_channels *at_channels_open(struct at_client *client, const char *path,
                                     const char *protocols, const struct at_channels_events *events)
{
    struct at_channels *c = AT_NEW(struct at_channels);
    const struct at_url *url = &client->current->url;
    c->client = client;
    c->events = *events;
    c->channel = -1;
    c->heard_ns = at_loop_now_ns(client->loop);
    at_ws_init_client(&c->ws);
    enum at_rc rc = request_make(c, path, protocols);
    assert(rc == AT_OK); /* bounded by the limits of paths and headers */
    struct at_stream_events on = {.ctx = c,
                                  .on_open = on_open,
                                  .on_data = on_data,
                                  .on_writable = on_writable,
                                  .on_close = on_close};
    const char *name = client->tls_name != NULL ? client->tls_name : url->host;
    c->stream = at_stream_connect(client->loop, url->addr, client->tls, name,
                                  AT_CLIENT_CONNECT_TIMEOUT_NS, &on);
    c->timer = at_loop_timer(client->loop, AT_CLIENT_CHANNELS_PING_NS, on_timer, c);
    return c;
}
