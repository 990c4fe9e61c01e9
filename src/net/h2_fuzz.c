/* HTTP/2 connections fed with anything after the preface: nothing breaks, each handed request is
 * answered or its handler told, and nothing stays behind. First byte: how the handler behaves. */
#include "net/http_server.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct world {
    struct at_http_exchange *open[300];
    size_t n_open;
    uint8_t mode;
    bool closed;
    struct at_stream *client;
    const uint8_t *data;
    size_t size;
};

struct held {
    struct world *w;
    size_t at;
};
static struct held held[300];

static void on_gone(void *ctx)
{
    struct held *h = ctx;
    assert(h->w->open[h->at] != NULL);
    h->w->open[h->at] = NULL;
}

static bool early(void *ctx, const struct at_http_exchange *ex)
{
    const struct world *w = ctx;
    (void)ex;
    return (w->mode & 4) != 0 && w->n_open < 300;
}

static void on_piece(void *ctx, const char *data, size_t len)
{
    const struct held *h = ctx;
    (void)data;
    assert(len > 0);
    at_http_body_pause(h->w->open[h->at], len % 2 != 0);
}

static void on_body_end(void *ctx, enum at_rc rc, const char *message)
{
    const struct held *h = ctx;
    struct at_http_exchange *ex = h->w->open[h->at];
    (void)message;
    h->w->open[h->at] = NULL;
    at_http_respond(ex, rc == AT_OK ? 200 : 400, NULL, NULL, "y", 1);
}

static void handle(void *ctx, struct at_http_exchange *ex)
{
    struct world *w = ctx;
    if (at_http_body_is_coming(ex)) {
        struct held *h = &held[w->n_open];
        *h = (struct held){w, w->n_open};
        w->open[w->n_open++] = ex;
        at_http_on_gone(ex, on_gone, h);
        at_http_body_take(ex, &(struct at_http_body_events){h, on_piece, on_body_end});
        return;
    }
    const struct at_http_head *head = at_http_request(ex);
    assert(head->path.len > 0 && head->path.ptr[0] == '/');
    if ((w->mode & 1) != 0 && w->n_open < 300) {
        held[w->n_open] = (struct held){w, w->n_open};
        w->open[w->n_open] = ex;
        at_http_on_gone(ex, on_gone, &held[w->n_open++]);
    } else if ((w->mode & 2) != 0) {
        at_http_stream_begin(ex, 200, "text/plain", "X-Y: z\r\n");
        (void)!at_http_stream_write(ex, "abc", 3);
        at_http_stream_end_trailers(ex, "t: u\r\n");
    } else {
        struct at_str body = at_http_request_body(ex);
        at_http_respond(ex, 200, NULL, NULL, body.ptr, body.len);
    }
}

static void on_open(void *ctx)
{
    static const char PREFACE[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    struct world *w = ctx;
    if ((w->mode & 8) == 0) { /* else HTTP/1.1 */
        (void)!at_stream_write(w->client, PREFACE, sizeof PREFACE - 1);
    }
    (void)!at_stream_write(w->client, w->data, w->size);
}

static void on_close(void *ctx, enum at_rc rc, const struct at_err *err)
{
    (void)rc, (void)err;
    ((struct world *)ctx)->closed = true;
}

static size_t on_data(void *ctx, const char *data, size_t len)
{
    (void)ctx, (void)data;
    return len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return 0;
    }
    struct at_loop *loop = at_loop_new(at_sys_real());
    struct world w = {.mode = data[0], .data = data + 1, .size = size - 1};
    struct at_http_server_options o = {.listen = "127.0.0.1:0",
                                       .http2 = true,
                                       .body_bytes_max = 1000,
                                       .handler = handle,
                                       .early = early,
                                       .ctx = &w};
    struct at_http_server *server;
    struct at_err err;
    enum at_rc rc = at_http_server_new(loop, &o, &server, &err);
    assert(rc == AT_OK);
    struct at_stream_events ev = {
        .ctx = &w, .on_open = on_open, .on_data = on_data, .on_close = on_close};
    w.client = at_stream_connect(loop, at_http_server_addr(server), NULL, NULL, 1000000000, &ev);
    for (int i = 0; i < 12 && !w.closed; i++) { /* the first turns connect and accept */
        at_loop_turn(loop, at_sys_mono_ns(at_sys_real()) + 100000);
        if (i == 8) { /* what is held gets its answer now */
            for (size_t k = 0; k < w.n_open; k++) {
                if (w.open[k] != NULL) {
                    at_http_respond(w.open[k], 200, NULL, NULL, "x", 1);
                    w.open[k] = NULL;
                }
            }
            w.n_open = 0;
        }
    }
    if (!w.closed) {
        at_stream_free(w.client);
    }
    at_http_server_free(server);
    for (size_t k = 0; k < w.n_open; k++) {
        assert(w.open[k] == NULL);
    }
    at_loop_free(loop);
    return 0;
}
