/* Answers of an HTTP/2 server that says anything: each call ends once, nothing breaks, and nothing
 * stays behind. First byte: what the caller does meanwhile. */
#include "net/http_client.h"
#include "sys/socket.h"

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CALLS = 3, TURNS = 14 };

struct world {
    struct at_http_client *client;
    at_http_call_id ids[CALLS];
    int done[CALLS];
    uint8_t mode;
};

struct one {
    struct world *w;
    int at;
};

static void on_head(void *ctx, const struct at_http_head *head)
{
    const struct one *o = ctx;
    assert(o->w->done[o->at] == 0);
    assert(head->status >= 200 && !head->chunked);
    if ((o->w->mode & 1) != 0 && o->at == 0) {
        at_http_call_pause(o->w->client, o->w->ids[0], true);
    } else if ((o->w->mode & 2) != 0 && o->at == 1) {
        at_http_call_cancel(o->w->client, o->w->ids[1]);
    }
}

static void on_body(void *ctx, const char *data, size_t len)
{
    const struct one *o = ctx;
    assert(o->w->done[o->at] == 0);
    assert(data != NULL && len > 0);
}

static void on_done(void *ctx, enum at_rc rc, bool sent, const struct at_err *err)
{
    const struct one *o = ctx;
    (void)rc, (void)sent, (void)err;
    o->w->done[o->at]++;
}

static size_t take(void *ctx, const char *data, size_t len)
{
    (void)ctx, (void)data;
    return len;
}

static void on_close(void *ctx, enum at_rc rc, const struct at_err *err)
{
    (void)rc, (void)err;
    *(struct at_stream **)ctx = NULL;
}

static void ask(struct world *w, struct one *ones, const char *addr)
{
    for (int i = 0; i < CALLS; i++) {
        ones[i] = (struct one){w, i};
        struct at_http_call call = {.addr = addr,
                                    .http2 = AT_HTTP2_ALWAYS,
                                    .method = i == 0 ? AT_HTTP_GET : AT_HTTP_POST,
                                    .target = "/",
                                    .headers = "X-A: b\r\nTE: trailers\r\n",
                                    .body = "body",
                                    .body_len = i == 0 ? 0 : 4,
                                    .ctx = &ones[i],
                                    .on_head = on_head,
                                    .on_body = on_body,
                                    .on_done = on_done};
        w->ids[i] = at_http_call(w->client, &call);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return 0;
    }
    struct at_loop *loop = at_loop_new(at_sys_real());
    struct world w = {.mode = data[0], .client = at_http_client_new(loop, NULL)};
    struct one ones[CALLS];
    struct at_stream *peer = NULL;
    struct at_err err;
    char addr[AT_ADDR_TEXT_BYTES_MAX];
    int fd, client;
    enum at_rc rc = at_sock_listen("127.0.0.1:0", 4, false, &fd, addr, &err);
    assert(rc == AT_OK);
    ask(&w, ones, addr);
    bool said = false;
    for (int i = 0; i < TURNS; i++) {
        if (peer == NULL && at_sock_accept(fd, &client, NULL) == AT_OK) {
            struct at_stream_events ev = {.ctx = &peer, .on_data = take, .on_close = on_close};
            peer = at_stream_accept_take(loop, client, NULL, &ev);
            said = false;
        }
        if (peer != NULL && !said) {
            said = true;
            (void)!at_stream_write(peer, data + 1, size - 1);
        }
        if (i == TURNS / 2) {
            at_http_call_pause(w.client, w.ids[0], false);
        }
        at_loop_turn(loop, at_sys_mono_ns(at_sys_real()) + 100000);
    }
    at_http_client_free(w.client);
    for (int i = 0; i < CALLS; i++) {
        assert(w.done[i] == 1);
    }
    at_stream_free(peer);
    at_sock_close(fd);
    at_loop_free(loop);
    return 0;
}
