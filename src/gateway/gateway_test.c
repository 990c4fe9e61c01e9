/* The gateway with static routes in front of real servers on loopback. */
#include "core/digest.h"
#include "core/mem.h"
#include "gateway/gateway_priv.h"
#include "loop/kit_test.h"
#include "sys/file.h"

#include <stdio.h>
#include <unistd.h>

#define WAIT_NS ((int64_t)20000000000)
#define BACKS 3

#define TURN_UNTIL(loop, cond)                                                                     \
    do {                                                                                           \
        int64_t end_ = at_sys_mono_ns(at_sys_real()) + WAIT_NS;                                    \
        while (!(cond)) {                                                                          \
            assert_true(at_sys_mono_ns(at_sys_real()) < end_);                                     \
            at_loop_turn(loop, at_sys_mono_ns(at_sys_real()) + 20000000);                          \
        }                                                                                          \
    } while (0)

struct fixture;

struct back {
    struct fixture *f;
    char *name;
    struct at_http_server *server;
    size_t requests;
    int status; /* 0: 200 */
    bool hold;  /* keep requests unanswered */
    struct at_http_exchange *held[64];
    size_t n_held;
    char seen[4096]; /* the last request's header lines */
};

struct fixture {
    struct at_loop *loop;
    struct at_gateway *gateway;
    struct at_http_client *client;
    struct back backs[BACKS];
    char *dir;
    bool ready, stopped;
};

static void back_handle(void *ctx, struct at_http_exchange *ex)
{
    struct back *b = ctx;
    const struct at_http_head *head = at_http_request(ex);
    struct at_str body = at_http_request_body(ex);
    size_t n = 0;
    b->requests++;
    for (size_t i = 0; i < head->n_headers; i++) {
        n += (size_t)snprintf(b->seen + n, sizeof b->seen - n, "%.*s: %.*s\n",
                              (int)head->headers[i].name.len, head->headers[i].name.ptr,
                              (int)head->headers[i].value.len, head->headers[i].value.ptr);
    }
    if (b->hold) {
        assert_true(b->n_held < 64);
        b->held[b->n_held++] = ex;
    } else if (at_str_eq(head->path, "/v2/models/m/big")) {
        static char block[300000];
        memset(block, 'x', sizeof block);
        at_http_respond(ex, 200, "text/plain", NULL, block, sizeof block);
    } else if (at_str_eq(head->path, "/v2/models/m/chunks")) {
        at_http_stream_begin(ex, 200, "text/event-stream", NULL);
        assert_int_equal(at_http_stream_write(ex, "data: 1\n\n", 9), AT_OK);
        assert_int_equal(at_http_stream_write(ex, "data: 2\n\n", 9), AT_OK);
        at_http_stream_end(ex);
    } else if (b->status != 0) {
        at_http_respond(ex, b->status, "application/json", NULL, "{}", 2);
    } else {
        char *text = at_asprintf("%s %.*s %.*s", b->name, (int)head->target.len, head->target.ptr,
                                 (int)body.len, body.len > 0 ? body.ptr : "");
        at_http_respond(ex, 200, "application/json", "X-Back: yes\r\nKeep-Alive: timeout=5\r\n",
                        text, strlen(text));
        at_free(text);
    }
}

static void back_start(struct fixture *f, size_t i)
{
    struct back *b = &f->backs[i];
    b->f = f;
    b->name = at_asprintf("back%zu", i);
    struct at_http_server_options o = {
        .listen = "127.0.0.1:0", .handler = back_handle, .ctx = b, .body_bytes_max = 1 << 20};
    assert_int_equal(at_http_server_new(f->loop, &o, &b->server, NULL), AT_OK);
}

/* As kill -9: every connection is cut, the port is closed. */
static void back_kill(struct back *b)
{
    at_http_server_free(b->server);
    b->server = NULL;
    b->n_held = 0;
}

static void on_ready(void *ctx, enum at_rc rc, const struct at_err *err)
{
    struct fixture *f = ctx;
    (void)err;
    assert_int_equal(rc, AT_OK);
    f->ready = true;
}

static void on_stopped(void *ctx)
{
    ((struct fixture *)ctx)->stopped = true;
}

static void start(struct fixture *f, size_t n_backs, struct at_gateway_options o)
{
    struct at_buf routes = {0};
    char dir[] = "/tmp/at-gateway-XXXXXX";
    struct at_err err = {0};
    *f = (struct fixture){.loop = kit_loop()};
    assert_non_null(mkdtemp(dir));
    f->dir = at_strdup(dir);
    assert_int_equal(at_buf_append_str(&routes, "{\"models\": {\"none\": [], \"m\": ["), AT_OK);
    for (size_t i = 0; i < n_backs; i++) {
        back_start(f, i);
        assert_int_equal(
            at_buf_printf(&routes,
                          "%s{\"endpoint\":\"%s\",\"instance\":\"back%zu\",\"site\":\"s%zu\"}",
                          i > 0 ? "," : "", at_http_server_addr(f->backs[i].server), i, i),
            AT_OK);
    }
    assert_int_equal(at_buf_append_str(&routes, "]}}"), AT_OK);
    char *file = at_asprintf("%s/routes.json", dir);
    assert_int_equal(at_file_write_atomic(file, routes.data, routes.len, 0600, &err), AT_OK);
    o.loop = f->loop;
    o.listen = "127.0.0.1:0";
    o.static_routes = file;
    o.on_ready = on_ready;
    o.ctx = f;
    enum at_rc rc = at_gateway_new(&o, &f->gateway, &err);
    if (rc != AT_OK) {
        print_error("%s\n", err.msg);
    }
    assert_int_equal(rc, AT_OK);
    f->client = at_http_client_new(f->loop, NULL);
    TURN_UNTIL(f->loop, f->ready);
    at_free(file);
    at_buf_done(&routes);
}

static void stop(struct fixture *f)
{
    at_http_client_free(f->client);
    at_gateway_free(f->gateway);
    for (size_t i = 0; i < BACKS; i++) {
        at_http_server_free(f->backs[i].server);
        at_free(f->backs[i].name);
    }
    at_loop_free(f->loop);
    assert_int_equal(at_tree_remove(f->dir, NULL), AT_OK);
    at_free(f->dir);
}

struct answer {
    int status;
    struct at_buf body;
    char headers[2048];
    bool done;
    enum at_rc rc;
};

static void on_head(void *ctx, const struct at_http_head *head)
{
    struct answer *a = ctx;
    size_t n = 0;
    a->status = head->status;
    for (size_t i = 0; i < head->n_headers; i++) {
        n += (size_t)snprintf(a->headers + n, sizeof a->headers - n, "%.*s: %.*s\n",
                              (int)head->headers[i].name.len, head->headers[i].name.ptr,
                              (int)head->headers[i].value.len, head->headers[i].value.ptr);
    }
}

static void on_body(void *ctx, const char *data, size_t len)
{
    assert_int_equal(at_buf_append(&((struct answer *)ctx)->body, data, len), AT_OK);
}

static void on_done(void *ctx, enum at_rc rc, bool sent, const struct at_err *err)
{
    struct answer *a = ctx;
    (void)sent, (void)err;
    a->done = true;
    a->rc = rc;
}

static at_http_call_id send_with(struct fixture *f, struct answer *a, enum at_http_method method,
                                 const char *target, const char *headers)
{
    const char *url = at_gateway_url(f->gateway);
    *a = (struct answer){0};
    struct at_http_call c = {.addr = url + strlen("http://"),
                             .method = method,
                             .target = target,
                             .headers = headers,
                             .body = "tensor",
                             .body_len = method == AT_HTTP_POST ? 6 : 0,
                             .ctx = a,
                             .on_head = on_head,
                             .on_body = on_body,
                             .on_done = on_done};
    return at_http_call(f->client, &c);
}

static void ask(struct fixture *f, struct answer *a, enum at_http_method method, const char *target,
                const char *headers)
{
    send_with(f, a, method, target, headers);
    TURN_UNTIL(f->loop, a->done);
    assert_int_equal(a->rc, AT_OK);
}

static void ask_status(struct fixture *f, const char *target, int status)
{
    struct answer a;
    ask(f, &a, AT_HTTP_GET, target, NULL);
    if (a.status != status) {
        print_error("%s -> %d %s\n", target, a.status, a.body.data);
    }
    assert_int_equal(a.status, status);
    at_buf_done(&a.body);
}

static void passes_requests_and_answers_through(void **state)
{
    (void)state;
    struct fixture f;
    struct answer a;
    start(&f, 1, (struct at_gateway_options){0});
    ask(&f, &a, AT_HTTP_POST, "/v2/models/m/versions/1/infer?x=%20",
        "X-A: b\r\nConnection: close, x-secret\r\nX-Secret: 1\r\nAuthorization: Bearer t\r\n"
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
        "tracestate: v=1\r\nX-Request-Id: mine\r\nInference-Header-Content-Length: 3\r\n");
    assert_int_equal(a.status, 200);
    assert_string_equal(a.body.data, "back0 /v2/models/m/versions/1/infer?x=%20 tensor");
    assert_non_null(strstr(a.headers, "x-atoll-instance: back0\n"));
    assert_non_null(strstr(a.headers, "x-atoll-site: s0\n"));
    assert_non_null(strstr(a.headers, "X-Request-Id: mine\n"));
    assert_non_null(strstr(a.headers, "X-Back: yes\n"));
    assert_non_null(strstr(a.headers, "Content-Type: application/json\n"));
    assert_null(strstr(a.headers, "Keep-Alive"));
    const char *seen = f.backs[0].seen;
    assert_non_null(strstr(seen, "X-A: b\n"));
    assert_non_null(strstr(seen, "traceparent: 00-0af7651916cd43dd8448eb211c80319c-"));
    assert_null(strstr(seen, "b7ad6b7169203331")); /* the gateway's own span is the parent now */
    assert_non_null(strstr(seen, "tracestate: v=1\n"));
    assert_non_null(strstr(seen, "X-Request-Id: mine\n"));
    assert_non_null(strstr(seen, "Inference-Header-Content-Length: 3\n"));
    assert_non_null(strstr(seen, "Content-Length: 6\n"));
    assert_null(strstr(seen, "Secret"));
    assert_null(strstr(seen, "Authorization"));
    assert_null(strstr(seen, "Connection"));
    at_buf_done(&a.body);
    ask(&f, &a, AT_HTTP_GET, "/v2/models/m/ready", NULL);
    assert_non_null(strstr(f.backs[0].seen, "traceparent: 00-"));
    assert_non_null(strstr(f.backs[0].seen, "X-Request-Id: "));
    at_buf_done(&a.body);
    ask(&f, &a, AT_HTTP_GET, "/v2/models/m/big", NULL);
    assert_int_equal(a.body.len, 300000);
    assert_non_null(strstr(a.headers, "Content-Length: 300000\n"));
    at_buf_done(&a.body);
    ask(&f, &a, AT_HTTP_POST, "/v2/models/m/chunks", NULL);
    assert_string_equal(a.body.data, "data: 1\n\ndata: 2\n\n");
    at_buf_done(&a.body);
    ask(&f, &a, AT_HTTP_HEAD, "/v2/models/m/big", NULL);
    assert_int_equal(a.status, 200);
    assert_int_equal(a.body.len, 0);
    assert_non_null(strstr(a.headers, "Content-Length: 300000\n"));
    at_buf_done(&a.body);
    stop(&f);
}

static void answers_its_own_paths(void **state)
{
    (void)state;
    struct fixture f;
    struct answer a;
    start(&f, 1, (struct at_gateway_options){0});
    ask_status(&f, "/healthz", 200);
    ask_status(&f, "/v2", 200);
    ask_status(&f, "/v2/health/live", 200);
    ask_status(&f, "/v2/health/ready", 200);
    ask_status(&f, "/v2/models/unknown/ready", 404);
    ask_status(&f, "/v2/models/none/infer", 503);
    ask_status(&f, "/v2/models/m/../x", 404);
    ask_status(&f, "/nothing", 404);
    ask_status(&f, "/v2/models/m/ready", 200);
    ask(&f, &a, AT_HTTP_GET, "/v1/models", NULL);
    assert_non_null(strstr(a.body.data, "\"id\":\"m\""));
    at_buf_done(&a.body);
    ask(&f, &a, AT_HTTP_GET, "/v2/models/unknown", NULL);
    assert_string_equal(a.body.data, "{\"error\":\"no model is called unknown\"}");
    at_buf_done(&a.body);
    ask(&f, &a, AT_HTTP_GET, "/v2/models/none", NULL);
    assert_non_null(strstr(a.headers, "Retry-After: 1\n"));
    at_buf_done(&a.body);
    ask(&f, &a, AT_HTTP_POST, "/healthz", NULL);
    assert_int_equal(a.status, 405);
    at_buf_done(&a.body);
    ask(&f, &a, AT_HTTP_GET, "/metrics", NULL);
    assert_non_null(strstr(
        a.body.data, "atoll_gateway_requests_total{model=\"m\",site=\"s0\",code=\"200\"} 1\n"));
    assert_non_null(strstr(a.body.data, "atoll_gateway_route_replicas 1\n"));
    assert_non_null(strstr(a.body.data, "atoll_gateway_outstanding_requests 0\n"));
    at_buf_done(&a.body);
    stop(&f);
}

static void spreads_by_outstanding_requests(void **state)
{
    (void)state;
    struct fixture f;
    struct answer a[9];
    start(&f, 3, (struct at_gateway_options){0});
    for (size_t i = 0; i < BACKS; i++) {
        f.backs[i].hold = true;
    }
    for (size_t i = 0; i < 9; i++) {
        send_with(&f, &a[i], AT_HTTP_POST, "/v2/models/m/infer", NULL);
    }
    TURN_UNTIL(f.loop, f.backs[0].n_held + f.backs[1].n_held + f.backs[2].n_held == 9);
    for (size_t b = 0; b < BACKS; b++) {
        assert_int_equal(f.backs[b].n_held, 3);
        for (size_t i = 0; i < 3; i++) {
            at_http_respond(f.backs[b].held[i], 200, NULL, NULL, "", 0);
        }
    }
    for (size_t i = 0; i < 9; i++) {
        TURN_UNTIL(f.loop, a[i].done);
        assert_int_equal(a[i].status, 200);
    }
    stop(&f);
}

static void a_killed_replica_fails_no_request(void **state)
{
    (void)state;
    struct fixture f;
    struct answer a[30];
    start(&f, 3, (struct at_gateway_options){0});
    f.backs[1].hold = true;
    for (size_t i = 0; i < 15; i++) {
        send_with(&f, &a[i], AT_HTTP_POST, "/v2/models/m/infer", NULL);
    }
    TURN_UNTIL(f.loop, f.backs[1].n_held >= 4); /* it has requests and answers none */
    /* One of them has begun to answer. */
    at_http_stream_begin(f.backs[1].held[0], 200, NULL, "Content-Length: 10\r\n");
    assert_int_equal(at_http_stream_write(f.backs[1].held[0], "half", 4), AT_OK);
    for (int i = 0; i < 3; i++) {
        at_loop_turn(f.loop, at_sys_mono_ns(at_sys_real()) + 1000000);
    }
    back_kill(&f.backs[1]);
    for (size_t i = 15; i < 30; i++) {
        send_with(&f, &a[i], AT_HTTP_POST, "/v2/models/m/infer", NULL);
    }
    for (size_t i = 0; i < 30; i++) {
        TURN_UNTIL(f.loop, a[i].done);
        assert_int_equal(a[i].rc, AT_OK);
        assert_int_equal(a[i].status, 200);
        assert_ptr_equal(strstr(a[i].body.data, "back1"), NULL);
        at_buf_done(&a[i].body);
    }
    struct answer m;
    ask(&f, &m, AT_HTTP_GET, "/metrics", NULL);
    assert_non_null(
        strstr(m.body.data, "atoll_gateway_retries_total{model=\"m\",reason=\"lost\"}"));
    at_buf_done(&m.body);
    stop(&f);
}

static void retries_only_what_is_safe(void **state)
{
    (void)state;
    struct fixture f;
    struct answer a;
    start(&f, 1, (struct at_gateway_options){0});
    f.backs[0].hold = true;
    send_with(&f, &a, AT_HTTP_POST, "/v2/models/m/generate", NULL);
    TURN_UNTIL(f.loop, f.backs[0].n_held == 1);
    back_kill(&f.backs[0]);
    TURN_UNTIL(f.loop, a.done);
    assert_int_equal(a.status, 502); /* it may have had an effect */
    at_buf_done(&a.body);
    ask(&f, &a, AT_HTTP_POST, "/v2/models/m/infer", NULL);
    assert_int_equal(a.status, 503); /* nobody can be reached */
    assert_non_null(strstr(a.headers, "Retry-After: 1\n"));
    at_buf_done(&a.body);
    stop(&f);
}

static void asks_another_when_a_replica_says_503(void **state)
{
    (void)state;
    struct fixture f;
    struct answer a;
    start(&f, 2, (struct at_gateway_options){0});
    f.backs[0].status = 503;
    for (int i = 0; i < 6; i++) {
        ask(&f, &a, AT_HTTP_POST, "/v2/models/m/infer", NULL);
        assert_int_equal(a.status, 200);
        assert_non_null(strstr(a.body.data, "back1"));
        at_buf_done(&a.body);
    }
    assert_true(f.backs[0].requests > 0);
    f.backs[1].status = 503;
    ask(&f, &a, AT_HTTP_POST, "/v2/models/m/infer", NULL);
    assert_int_equal(a.status, 503); /* the last answer is passed on */
    assert_non_null(strstr(a.headers, "x-atoll-instance: "));
    at_buf_done(&a.body);
    stop(&f);
}

static void frees_the_replica_when_the_client_goes(void **state)
{
    (void)state;
    struct fixture f;
    struct answer a;
    start(&f, 1, (struct at_gateway_options){0});
    f.backs[0].hold = true;
    at_http_call_id id = send_with(&f, &a, AT_HTTP_POST, "/v2/models/m/infer", NULL);
    TURN_UNTIL(f.loop, f.backs[0].n_held == 1);
    at_http_call_cancel(f.client, id);
    TURN_UNTIL(f.loop, at_http_server_connections(f.backs[0].server) == 0);
    f.backs[0].hold = false;
    ask_status(&f, "/v2/models/m/ready", 200);
    ask(&f, &a, AT_HTTP_GET, "/metrics", NULL);
    assert_non_null(strstr(a.body.data, "code=\"499\"} 1\n"));
    assert_non_null(strstr(a.body.data, "atoll_gateway_outstanding_requests 0\n"));
    at_buf_done(&a.body);
    stop(&f);
}

static void gives_up_on_a_replica_that_does_not_answer(void **state)
{
    (void)state;
    struct fixture f;
    struct answer a;
    start(&f, 2, (struct at_gateway_options){.first_byte_timeout_ns = 30000000});
    f.backs[0].hold = f.backs[1].hold = true;
    ask(&f, &a, AT_HTTP_POST, "/v2/models/m/infer", NULL);
    assert_int_equal(a.status, 504);
    assert_int_equal(f.backs[0].requests + f.backs[1].requests, 1); /* slow is not lost */
    at_buf_done(&a.body);
    stop(&f);
}

static void a_slow_client_stops_the_replica(void **state)
{
    (void)state;
    static char block[65536];
    enum { TOTAL = 128 << 20 };
    struct fixture f;
    struct answer a;
    start(&f, 1, (struct at_gateway_options){0});
    f.backs[0].hold = true;
    at_http_call_id id = send_with(&f, &a, AT_HTTP_GET, "/v2/models/m/download", NULL);
    TURN_UNTIL(f.loop, f.backs[0].n_held == 1);
    char length[64];
    snprintf(length, sizeof length, "Content-Length: %d\r\n", TOTAL);
    struct at_http_exchange *ex = f.backs[0].held[0];
    at_http_stream_begin(ex, 200, NULL, length);
    at_http_call_pause(f.client, id, true);
    size_t sent = 0;
    while (at_http_stream_write(ex, block, sizeof block) == AT_OK) {
        sent += sizeof block;
        at_loop_turn(f.loop, at_sys_mono_ns(at_sys_real()));
        assert_true(sent < TOTAL); /* else the gateway has swallowed it all */
    }
    at_http_call_pause(f.client, id, false);
    while (sent < TOTAL) {
        if (at_http_stream_write(ex, block, sizeof block) == AT_OK) {
            sent += sizeof block;
        }
        at_loop_turn(f.loop, at_sys_mono_ns(at_sys_real()) + 1000000);
        at_buf_clear(&a.body);
    }
    at_http_stream_end(ex);
    TURN_UNTIL(f.loop, a.done);
    assert_int_equal(a.rc, AT_OK);
    at_buf_done(&a.body);
    stop(&f);
}

static void lets_in_who_has_a_token(void **state)
{
    (void)state;
    struct fixture f;
    struct answer a;
    char file[] = "/tmp/at-gateway-tokens-XXXXXX";
    char digest[AT_SHA256_HEX_BYTES], lines[200];
    assert_true(mkstemp(file) >= 0);
    at_sha256_hex("second", 6, digest);
    snprintf(lines, sizeof lines, "# tokens\nfirst\nsha256:%s\n", digest);
    assert_int_equal(at_file_write_atomic(file, lines, strlen(lines), 0600, NULL), AT_OK);
    start(&f, 1, (struct at_gateway_options){.auth_token_file = file});
    static const struct {
        const char *headers;
        int status;
    } CASES[] = {
        {NULL, 401},
        {"Authorization: Bearer nope\r\n", 401},
        {"Authorization: Basic first\r\n", 401},
        {"Authorization: Bearer \r\n", 401},
        {"Authorization: Bearer firs\r\n", 401},
        {"Authorization: Bearer first\r\n", 200},
        {"Authorization: bearer first\r\n", 200},
        {"Authorization: Bearer second\r\n", 200},
        {"Authorization: Bearer first2\r\n", 401},
    };
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
            ask(&f, &a, AT_HTTP_GET, "/v2/models/m/ready", CASES[i].headers);
            assert_int_equal(a.status, CASES[i].status);
            at_buf_done(&a.body);
        }
    }
    ask_status(&f, "/healthz", 200);
    ask_status(&f, "/v2/health/live", 200);
    ask_status(&f, "/v1/models", 401);
    ask_status(&f, "/nothing", 401);
    stop(&f);
    unlink(file);
}

static void finishes_what_is_under_way_when_it_stops(void **state)
{
    (void)state;
    struct fixture f;
    struct answer a;
    start(&f, 1, (struct at_gateway_options){.n_threads = 2});
    f.backs[0].hold = true;
    send_with(&f, &a, AT_HTTP_POST, "/v2/models/m/infer", NULL);
    TURN_UNTIL(f.loop, f.backs[0].n_held == 1);
    at_gateway_stop(f.gateway, on_stopped, &f);
    for (int i = 0; i < 5; i++) {
        at_loop_turn(f.loop, at_sys_mono_ns(at_sys_real()) + 1000000);
    }
    assert_false(f.stopped);
    at_http_respond(f.backs[0].held[0], 200, NULL, NULL, "late", 4);
    TURN_UNTIL(f.loop, a.done && f.stopped);
    assert_int_equal(a.status, 200);
    at_buf_done(&a.body);
    stop(&f);
}

static void cuts_what_does_not_end_in_time(void **state)
{
    (void)state;
    struct fixture f;
    struct answer a;
    start(&f, 1, (struct at_gateway_options){.drain_timeout_ns = 30000000});
    f.backs[0].hold = true;
    send_with(&f, &a, AT_HTTP_POST, "/v2/models/m/infer", NULL);
    TURN_UNTIL(f.loop, f.backs[0].n_held == 1);
    at_gateway_stop(f.gateway, on_stopped, &f);
    TURN_UNTIL(f.loop, f.stopped && a.done);
    assert_int_not_equal(a.rc, AT_OK);
    stop(&f);
}

static void serves_on_several_loops(void **state)
{
    (void)state;
    struct fixture f;
    struct answer a[64];
    start(&f, 3, (struct at_gateway_options){.n_threads = 3});
    for (size_t i = 0; i < 64; i++) {
        send_with(&f, &a[i], AT_HTTP_POST, "/v2/models/m/infer", NULL);
    }
    for (size_t i = 0; i < 64; i++) {
        TURN_UNTIL(f.loop, a[i].done);
        assert_int_equal(a[i].status, 200);
        at_buf_done(&a[i].body);
    }
    stop(&f);
}

static void refuses_bad_options(void **state)
{
    (void)state;
    struct at_loop *loop = kit_loop();
    struct at_gateway *g = NULL;
    static const struct at_gateway_options CASES[] = {
        {.static_routes = "x"},
        {.listen = "127.0.0.1:0"},
        {.listen = "0.0.0.0:0", .static_routes = "x"},
        {.listen = "127.0.0.1:0", .static_routes = "/nonexistent"},
        {.listen = "127.0.0.1:0", .static_routes = "x", .auth_token_file = "/nonexistent"},
        {.listen = "127.0.0.1:0", .static_routes = "x", .n_threads = 100000},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        struct at_gateway_options o = CASES[i];
        struct at_err err = {0};
        o.loop = loop;
        assert_int_not_equal(at_gateway_new(&o, &g, &err), AT_OK);
        assert_true(err.msg[0] != '\0');
    }
    at_loop_free(loop);
}

/* A name is looked up: it may lead anywhere, whatever it begins with. */
static void only_loopback_goes_without_tls_and_tokens(void **state)
{
    (void)state;
    struct at_loop *loop = kit_loop();
    static const char *const OPEN[] = {"0.0.0.0:0", "127.example.org:0", "127.0.0.1.nip.io:0",
                                       "[::1].example.org:0", "10.0.0.1:0"};
    for (size_t i = 0; i < AT_ARRAY_LEN(OPEN); i++) {
        struct at_gateway_options o = {.loop = loop, .listen = OPEN[i], .static_routes = "x"};
        struct at_gateway *g = NULL;
        struct at_err err = {0};
        assert_int_equal(at_gateway_new(&o, &g, &err), AT_FORBIDDEN);
        assert_string_equal(err.field, "listen");
    }
    at_loop_free(loop);
}

static void bounds_retries(void **state)
{
    (void)state;
    struct gw_budget w = {0};
    struct gw_policy policy;
    gw_policy_default(&policy);
    assert_false(gw_retry_take(&w, 0));
    for (int i = 0; i < 5; i++) {
        gw_retry_earn(&w, &policy); /* one in five */
    }
    assert_true(gw_retry_take(&w, 0));
    assert_false(gw_retry_take(&w, 0));
    size_t n = 0;
    while (gw_retry_take(&w, AT_GW_S)) {
        n++;
    }
    assert_int_equal(n, AT_GW_RETRY_FLOOR_PER_S);
    for (int i = 0; i < 100000; i++) {
        gw_retry_earn(&w, &policy);
    }
    n = 0;
    while (gw_retry_take(&w, AT_GW_S)) {
        n++;
    }
    assert_int_equal(n, AT_GW_RETRY_SAVED_MAX);
}

static void reads_paths(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        enum gw_path_kind kind;
        const char *model;
        bool infer;
    } CASES[] = {
        {"/v2/models/a/infer", GW_PATH_MODEL, "a", true},
        {"/v2/models/a%2Fb/versions/3/infer", GW_PATH_MODEL, "a/b", true},
        {"/v2/models/a/x/y/z/infer", GW_PATH_MODEL, "a", false},
        {"/v2/models/a/ready", GW_PATH_MODEL, "a", false},
        {"/v2/models/a", GW_PATH_MODEL, "a", false},
        {"/v2/models/a/", GW_PATH_NONE, "", false},
        {"/v2/models/", GW_PATH_NONE, "", false},
        {"/v2/models//infer", GW_PATH_NONE, "", false},
        {"/v2/models/a//infer", GW_PATH_NONE, "", false},
        {"/v2/models/../infer", GW_PATH_NONE, "", false},
        {"/v2/models/a/%2e%2E/infer", GW_PATH_NONE, "", false},
        {"/v2/models/a/./infer", GW_PATH_NONE, "", false},
        {"/v2/models/%00/infer", GW_PATH_NONE, "", false},
        {"/v2/models/.../infer", GW_PATH_MODEL, "...", true},
        {"/v2", GW_PATH_SERVER, "", false},
        {"/healthz", GW_PATH_HEALTHZ, "", false},
        {"/v1/models/a", GW_PATH_MODEL_CARD, "a", false},
        {"/v1/models/a%2Fb", GW_PATH_MODEL_CARD, "a/b", false},
        {"/v1/models/a/b", GW_PATH_MODEL_CARD, "a/b", false},
        {"/v1/models/", GW_PATH_NONE, "", false},
        {"/v1/models/a/../b", GW_PATH_NONE, "", false},
        {"/v1/chat/completions", GW_PATH_OPENAI, "", false},
        {"/v1/embeddings", GW_PATH_OPENAI, "", true},
        {"/v1/chat/completions/", GW_PATH_NONE, "", false},
        {"/v2/repository/index", GW_PATH_INDEX, "", false},
        {"/playground", GW_PATH_PLAYGROUND, "", false},
        {"/playground/app.js", GW_PATH_PLAYGROUND, "", false},
        {"/playgrounds", GW_PATH_NONE, "", false},
        {"/", GW_PATH_NONE, "", false},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        struct gw_path p;
        gw_path_parse(at_str_of(CASES[i].path), &p);
        if (p.kind != CASES[i].kind) {
            print_error("%s\n", CASES[i].path);
        }
        assert_int_equal(p.kind, CASES[i].kind);
        assert_int_equal(p.infer, CASES[i].infer);
        if (p.kind == GW_PATH_MODEL) {
            assert_string_equal(p.model, CASES[i].model);
            assert_int_equal(p.model_len, strlen(CASES[i].model));
        }
    }
}

static void refuses_bad_route_files(void **state)
{
    (void)state;
    static const char *const CASES[] = {"", "{}", "{\"models\": []}", "{\"models\": {\"m\": {}}}",
                                        "{\"models\": {\"m\": [{\"site\": \"s\"}]}}"};
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        struct gw_table *table = NULL;
        struct at_err err = {0};
        assert_int_not_equal(gw_table_parse(CASES[i], strlen(CASES[i]), &table, &err), AT_OK);
        assert_null(table);
        assert_true(err.msg[0] != '\0');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(passes_requests_and_answers_through),
        cmocka_unit_test(answers_its_own_paths),
        cmocka_unit_test(spreads_by_outstanding_requests),
        cmocka_unit_test(a_killed_replica_fails_no_request),
        cmocka_unit_test(retries_only_what_is_safe),
        cmocka_unit_test(asks_another_when_a_replica_says_503),
        cmocka_unit_test(frees_the_replica_when_the_client_goes),
        cmocka_unit_test(gives_up_on_a_replica_that_does_not_answer),
        cmocka_unit_test(a_slow_client_stops_the_replica),
        cmocka_unit_test(lets_in_who_has_a_token),
        cmocka_unit_test(finishes_what_is_under_way_when_it_stops),
        cmocka_unit_test(cuts_what_does_not_end_in_time),
        cmocka_unit_test(serves_on_several_loops),
        cmocka_unit_test(refuses_bad_options),
        cmocka_unit_test(only_loopback_goes_without_tls_and_tokens),
        cmocka_unit_test(bounds_retries),
        cmocka_unit_test(reads_paths),
        cmocka_unit_test(refuses_bad_route_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
