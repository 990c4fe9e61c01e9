/* A request in steady state allocates nothing, whichever way the replica is reached and the loop
 * waits. Counted by the sanitizer's hooks, for everything in the process: client, gateway, replica;
 * without a sanitizer there is nothing to count with. */
#include "core/mem.h"
#include "gateway/gateway_priv.h"
#include "loop/kit_test.h"
#include "sys/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define WAIT_NS ((int64_t)20000000000)
#define WARM_UP 300
#define COUNTED 1000
#define TURN_UNTIL(loop, cond)                                                                     \
    do {                                                                                           \
        int64_t end_ = at_sys_mono_ns(at_sys_real()) + WAIT_NS;                                    \
        while (!(cond)) {                                                                          \
            assert_true(at_sys_mono_ns(at_sys_real()) < end_);                                     \
            at_loop_turn(loop, at_sys_mono_ns(at_sys_real()) + 20000000);                          \
        }                                                                                          \
    } while (0)

/* sanitizer/allocator_interface.h, if this is built with one. */
extern int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void *,
                                                                       size_t),
                                                     void (*on_free)(const volatile void *))
    __attribute__((weak));

static size_t n_allocated;
static bool counting;

static void on_malloc(const volatile void *p, size_t bytes)
{
    (void)p, (void)bytes;
    n_allocated += counting;
}

static void on_free(const volatile void *p)
{
    (void)p;
}

struct fixture {
    struct at_loop *loop;
    struct at_http_server *back;
    struct at_gateway *gateway;
    struct at_stream *client;
    char routes[64];
    bool ready, open;
    size_t got; /* bytes of answers */
};

static void answer(void *ctx, struct at_http_exchange *ex)
{
    (void)ctx;
    at_http_respond(ex, 200, "application/json", NULL, "{\"ok\": true}", 12);
}

static void on_ready(void *ctx, enum at_rc rc, const struct at_err *err)
{
    (void)err;
    assert_int_equal(rc, AT_OK);
    ((struct fixture *)ctx)->ready = true;
}

static void on_open(void *ctx)
{
    ((struct fixture *)ctx)->open = true;
}

static size_t on_data(void *ctx, const char *data, size_t len)
{
    (void)data;
    ((struct fixture *)ctx)->got += len;
    return len;
}

static void on_close(void *ctx, enum at_rc rc, const struct at_err *err)
{
    (void)ctx, (void)rc, (void)err;
    fail();
}

static void start(struct fixture *f, bool mux)
{
    struct at_err err;
    char routes[512];
    *f = (struct fixture){.loop = kit_loop(), .routes = "/tmp/at-steady-XXXXXX"};
    struct at_http_server_options back = {.listen = "127.0.0.1:0", .mux = mux, .handler = answer};
    assert_int_equal(at_http_server_new(f->loop, &back, &f->back, &err), AT_OK);
    int n = snprintf(routes, sizeof routes,
                     "{\"models\": {\"m\": [{\"endpoint\": \"%s\", \"instance\": \"m-1\", "
                     "\"site\": \"here\"}, {\"endpoint\": \"%s\", \"instance\": \"m-2\", \"site\": "
                     "\"here\", \"servedAs\": \"other\"}]}}",
                     at_http_server_addr(f->back), at_http_server_addr(f->back));
    int fd = mkstemp(f->routes);
    assert_int_equal(write(fd, routes, (size_t)n), n);
    close(fd);
    struct at_gateway_options o = {.loop = f->loop,
                                   .listen = "127.0.0.1:0",
                                   .static_routes = f->routes,
                                   .on_ready = on_ready,
                                   .ctx = f};
    assert_int_equal(at_gateway_new(&o, &f->gateway, &err), AT_OK);
    TURN_UNTIL(f->loop, f->ready);
    struct at_stream_events ev = {
        .ctx = f, .on_open = on_open, .on_data = on_data, .on_close = on_close};
    f->client = at_stream_connect(f->loop, at_gateway_url(f->gateway) + strlen("http://"), NULL,
                                  NULL, WAIT_NS, &ev);
    TURN_UNTIL(f->loop, f->open);
}

static void stop(struct fixture *f)
{
    at_stream_free(f->client);
    at_gateway_free(f->gateway);
    at_http_server_free(f->back);
    at_loop_free(f->loop);
    unlink(f->routes);
}

static void ask(struct fixture *f, const char *text)
{
    f->got = 0;
    assert_int_equal(at_stream_write(f->client, text, strlen(text)), AT_OK);
    TURN_UNTIL(f->loop, f->got > 0);
}

#define B64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void count(bool mux)
{
    static const char *const REQUESTS[] = {
        "GET /v2/models/m HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        "Content-Length: 12\r\n\r\n{\"inputs\":[]",
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        "Content-Length: 19\r\n\r\n{\"model\":\"m\",\"n\":1}",
        /* A prompt of two blocks, which has its place; a session and a user; another's name. */
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        "Content-Length: 289\r\n\r\n{\"model\":\"m\",\"prompt\":\"" B64 B64 B64 B64 "0123\"}    ",
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-Atoll-Session: s\r\nX-Atoll-User: u\r\n"
        "Content-Length: 13\r\n\r\n{\"model\":\"m\"}",
    };
    struct fixture f;
    if (__sanitizer_install_malloc_and_free_hooks == NULL) {
        print_message("not built with a sanitizer, whose hooks count allocations\n");
        skip();
    }
    start(&f, mux);
    for (size_t i = 0; i < AT_ARRAY_LEN(REQUESTS); i++) {
        counting = true;
        n_allocated = 0;
        for (int n = 0; n < WARM_UP; n++) {
            ask(&f, REQUESTS[i]);
        }
        assert_true(i > 0 || n_allocated > 0); /* it does count */
        assert_int_equal(at_http_server_connections(f.back), mux ? 2 : 1);
        n_allocated = 0;
        for (int n = 0; n < COUNTED; n++) {
            ask(&f, REQUESTS[i]);
        }
        counting = false;
        assert_int_equal(n_allocated, 0);
    }
    stop(&f);
}

static void a_request_by_http_1_1_allocates_nothing(void **state)
{
    (void)state;
    count(false);
}

static void a_request_on_a_shared_connection_allocates_nothing(void **state)
{
    (void)state;
    count(true);
}

int main(void)
{
    if (__sanitizer_install_malloc_and_free_hooks != NULL) {
        __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_by_http_1_1_allocates_nothing),
        cmocka_unit_test(a_request_on_a_shared_connection_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
