/* The server over real loopback, by raw bytes. */
#include "net/kit_test.h"

struct fixture {
    struct at_loop *loop;
    struct at_http_server *server;
    struct at_http_exchange *pending; /* /later: answered by the test */
    bool gone;
    size_t requests;
    size_t writables;
};

static void on_gone(void *ctx)
{
    struct fixture *f = ctx;
    f->gone = true;
    f->pending = NULL;
}

static void on_writable(void *ctx)
{
    ((struct fixture *)ctx)->writables++;
}

static void handle(void *ctx, struct at_http_exchange *ex)
{
    struct fixture *f = ctx;
    struct at_str path = at_http_request(ex)->path;
    struct at_str body = at_http_request_body(ex);
    f->requests++;
    if (at_str_eq(path, "/later")) {
        f->pending = ex;
        at_http_on_gone(ex, on_gone, f);
        at_http_on_writable(ex, on_writable, f);
    } else if (at_str_eq(path, "/stream")) {
        at_http_stream_begin(ex, 200, "text/plain", "X-A: b\r\n");
        assert_int_equal(at_http_stream_write(ex, "one,", 4), AT_OK);
        assert_int_equal(at_http_stream_write(ex, "two", 3), AT_OK);
        at_http_stream_end(ex);
    } else if (at_str_eq(path, "/short")) {
        at_http_stream_begin(ex, 200, NULL, "X-A: b\r\ncontent-length: 10\r\n");
        assert_int_equal(at_http_stream_write(ex, "12345", 5), AT_OK);
        at_http_stream_end(ex);
    } else if (at_str_eq(path, "/empty")) {
        at_http_respond(ex, 204, NULL, NULL, NULL, 0);
    } else if (at_str_eq(path, "/abort")) {
        at_http_abort(ex);
    } else {
        char *text = at_asprintf("[%.*s %.*s]", (int)path.len, path.ptr, (int)body.len,
                                 body.len > 0 ? body.ptr : "");
        at_http_respond(ex, 200, "text/plain", "X-A: b\r\n", text, strlen(text));
        at_free(text);
    }
}

static void start(struct fixture *f, struct at_http_server_options o)
{
    *f = (struct fixture){.loop = kit_loop()};
    o.listen = "127.0.0.1:0";
    o.handler = handle;
    o.ctx = f;
    struct at_err err;
    assert_int_equal(at_http_server_new(f->loop, &o, &f->server, &err), AT_OK);
}

static void stop(struct fixture *f)
{
    at_http_server_free(f->server);
    at_loop_free(f->loop);
}

/* Send text, wait for the server to close, and give what came. */
static char *exchange(struct fixture *f, const char *text)
{
    struct raw raw;
    raw_connect(&raw, f->loop, at_http_server_addr(f->server), NULL);
    raw_send(&raw, text);
    TURN_UNTIL(f->loop, raw.closed);
    char *got = at_strdup(raw.got.data != NULL ? raw.got.data : "");
    raw_done(&raw);
    return got;
}

#define H "Host: h\r\n"
#define CLOSE "Connection: close\r\n\r\n"

static void answers_in_order_on_one_connection(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (struct at_http_server_options){0});
    AT_CLEANUP(at_cleanup_free)
    char *got = exchange(&f, "GET /1 HTTP/1.1\r\n" H "\r\n"
                             "POST /2 HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nabc"
                             "PUT /3 HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"
                             "2\r\nde\r\n1\r\nf\r\n0\r\n\r\n"
                             "HEAD /4 HTTP/1.1\r\n" H "\r\n"
                             "GET /stream HTTP/1.1\r\n" H "\r\n"
                             "GET /empty HTTP/1.1\r\n" H "\r\n"
                             "GET /5 HTTP/1.1\r\n" H CLOSE);
    char *at = got;
    static const char *const WANT[] = {"HTTP/1.1 200 OK\r\nDate: ",
                                       "[/1 ]",
                                       "[/2 abc]",
                                       "[/3 def]",
                                       "Content-Length: 5\r\n",
                                       "Transfer-Encoding: chunked\r\n",
                                       "\r\n\r\n4\r\none,\r\n3\r\ntwo\r\n0\r\n\r\n",
                                       "HTTP/1.1 204 No Content\r\n",
                                       "Connection: close\r\n",
                                       "[/5 ]"};
    for (size_t i = 0; i < AT_ARRAY_LEN(WANT); i++) {
        at = strstr(at, WANT[i]);
        if (at == NULL) {
            print_error("no %s in %s\n", WANT[i], got);
        }
        assert_non_null(at);
    }
    assert_null(strstr(got, "[/4"));
    assert_int_equal(f.requests, 7);
    stop(&f);
}

static void takes_pipelined_requests_cut_at_every_byte(void **state)
{
    (void)state;
    static const char TEXT[] = "POST /a HTTP/1.1\r\n" H "Content-Length: 2\r\n\r\nxy"
                               "PUT /b HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"
                               "1\r\nz\r\n0\r\n\r\n"
                               "GET /c HTTP/1.1\r\n" H CLOSE;
    struct fixture f;
    start(&f, (struct at_http_server_options){0});
    for (size_t cut = 1; cut < sizeof TEXT - 1; cut++) {
        struct raw raw;
        raw_connect(&raw, f.loop, at_http_server_addr(f.server), NULL);
        assert_int_equal(at_stream_write(raw.stream, TEXT, cut), AT_OK);
        at_loop_turn(f.loop, at_sys_mono_ns(at_loop_sys(f.loop)) + 1000000);
        at_loop_turn(f.loop, at_sys_mono_ns(at_loop_sys(f.loop)));
        assert_int_equal(at_stream_write(raw.stream, TEXT + cut, sizeof TEXT - 1 - cut), AT_OK);
        TURN_UNTIL(f.loop, raw.closed);
        assert_int_equal(count_of(&raw.got, "HTTP/1.1 200 OK"), 3);
        assert_int_equal(count_of(&raw.got, "[/a xy]"), 1);
        assert_int_equal(count_of(&raw.got, "[/b z]"), 1);
        assert_int_equal(count_of(&raw.got, "[/c ]"), 1);
        raw_done(&raw);
    }
    stop(&f);
}

static void holds_pipelined_requests_while_one_is_answered(void **state)
{
    (void)state;
    struct fixture f;
    struct raw raw;
    start(&f, (struct at_http_server_options){0});
    raw_connect(&raw, f.loop, at_http_server_addr(f.server), NULL);
    raw_send(&raw, "GET /later HTTP/1.1\r\n" H "\r\nGET /next HTTP/1.1\r\n" H "\r\n");
    TURN_UNTIL(f.loop, f.pending != NULL);
    raw_send(&raw, "GET /last HTTP/1.1\r\n" H CLOSE);
    for (int i = 0; i < 5; i++) {
        at_loop_turn(f.loop, at_sys_mono_ns(at_loop_sys(f.loop)) + 1000000);
    }
    assert_int_equal(f.requests, 1);
    assert_true(at_str_eq(at_http_request(f.pending)->path, "/later"));
    at_http_respond(f.pending, 200, NULL, NULL, "first", 5);
    TURN_UNTIL(f.loop, raw.closed);
    assert_true(strstr(raw.got.data, "first") < strstr(raw.got.data, "[/next ]"));
    assert_true(strstr(raw.got.data, "[/next ]") < strstr(raw.got.data, "[/last ]"));
    raw_done(&raw);
    stop(&f);
}

static void says_continue_when_asked(void **state)
{
    (void)state;
    struct fixture f;
    struct raw raw;
    start(&f, (struct at_http_server_options){0});
    raw_connect(&raw, f.loop, at_http_server_addr(f.server), NULL);
    raw_send(&raw, "POST /x HTTP/1.1\r\n" H "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    TURN_UNTIL(f.loop, count_of(&raw.got, "HTTP/1.1 100 Continue\r\n\r\n") == 1);
    raw_send(&raw, "ok");
    TURN_UNTIL(f.loop, count_of(&raw.got, "[/x ok]") == 1);
    raw_done(&raw);
    stop(&f);
}

static void refuses_with_the_right_status(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } CASES[] = {
        {"nonsense\r\n\r\n", "HTTP/1.1 400 "},
        {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
        {"POST / HTTP/1.1\r\n" H "Content-Length: 101\r\n\r\n", "HTTP/1.1 413 "},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\nff\r\n"
         "0123456789012345678901234567890123456789012345678901234567890123456789"
         "0123456789012345678901234567890123456789012345678901234567890123456789",
         "HTTP/1.1 413 "},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\nz\r\n", "HTTP/1.1 400 "},
        {"GET /slow HTTP/1.1\r\nHost:", "HTTP/1.1 408 "},
        {"POST /slow HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nab", "HTTP/1.1 408 "},
    };
    struct fixture f;
    start(&f, (struct at_http_server_options){.body_bytes_max = 100, .head_timeout_ns = 50000000});
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        char *got = exchange(&f, CASES[i].text);
        if (strstr(got, CASES[i].want) != got) {
            print_error("%s\n-> %s\n", CASES[i].text, got);
        }
        assert_ptr_equal(strstr(got, CASES[i].want), got);
        assert_non_null(strstr(got, "\"status\":\"Failure\""));
        assert_non_null(strstr(got, "Connection: close\r\n"));
        at_free(got);
    }
    assert_int_equal(f.requests, 0);
    stop(&f);
}

static void refuses_a_head_that_is_too_large(void **state)
{
    (void)state;
    struct fixture f;
    struct at_buf text = {0};
    start(&f, (struct at_http_server_options){0});
    assert_int_equal(at_buf_append_str(&text, "GET / HTTP/1.1\r\n" H "X: "), AT_OK);
    while (text.len < 100000) {
        assert_int_equal(at_buf_append_str(&text, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), AT_OK);
    }
    char *got = exchange(&f, text.data);
    assert_ptr_equal(strstr(got, "HTTP/1.1 431 "), got);
    at_free(got);
    at_buf_done(&text);
    stop(&f);
}

static void closes_idle_connections_quietly(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (struct at_http_server_options){.idle_timeout_ns = 30000000});
    char *got = exchange(&f, "");
    assert_string_equal(got, "");
    at_free(got);
    got = exchange(&f, "GET /x HTTP/1.1\r\n" H "\r\n");
    assert_non_null(strstr(got, "[/x ]"));
    at_free(got);
    stop(&f);
}

static void tells_connections_over_the_maximum(void **state)
{
    (void)state;
    struct fixture f;
    struct raw one;
    start(&f, (struct at_http_server_options){.connections_max = 1});
    raw_connect(&one, f.loop, at_http_server_addr(f.server), NULL);
    raw_send(&one, "GET /1 HTTP/1.1\r\n" H "\r\n");
    TURN_UNTIL(f.loop, count_of(&one.got, "[/1 ]") == 1);
    char *got = exchange(&f, "GET /2 HTTP/1.1\r\n" H "\r\n");
    assert_ptr_equal(strstr(got, "HTTP/1.1 503 "), got);
    at_free(got);
    raw_send(&one, "GET /3 HTTP/1.1\r\n" H "\r\n"); /* the first one is served on */
    TURN_UNTIL(f.loop, count_of(&one.got, "[/3 ]") == 1);
    raw_done(&one);
    TURN_UNTIL(f.loop, at_http_server_connections(f.server) == 0);
    got = exchange(&f, "GET /4 HTTP/1.1\r\n" H CLOSE);
    assert_non_null(strstr(got, "[/4 ]"));
    at_free(got);
    stop(&f);
}

static void tells_the_handler_that_the_client_went(void **state)
{
    (void)state;
    struct fixture f;
    struct raw raw;
    start(&f, (struct at_http_server_options){0});
    raw_connect(&raw, f.loop, at_http_server_addr(f.server), NULL);
    raw_send(&raw, "GET /later HTTP/1.1\r\n" H "\r\n");
    TURN_UNTIL(f.loop, f.pending != NULL);
    raw_done(&raw);
    TURN_UNTIL(f.loop, f.gone);
    assert_int_equal(at_http_server_connections(f.server), 0);
    stop(&f);
}

static void cuts_answers_that_are_shorter_than_said(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (struct at_http_server_options){0});
    char *got = exchange(&f, "GET /short HTTP/1.1\r\n" H "\r\n");
    assert_non_null(strstr(got, "content-length: 10\r\n"));
    assert_null(strstr(got, "Transfer-Encoding"));
    at_free(got);
    got = exchange(&f, "GET /abort HTTP/1.1\r\n" H "\r\n");
    assert_string_equal(got, "");
    at_free(got);
    stop(&f);
}

static void streams_to_http_1_0_until_the_end(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (struct at_http_server_options){0});
    char *got = exchange(&f, "GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_non_null(strstr(got, "Connection: close\r\n"));
    assert_non_null(strstr(got, "\r\n\r\none,two"));
    assert_null(strstr(got, "chunked"));
    at_free(got);
    stop(&f);
}

static void tells_a_writer_when_the_reader_is_slow(void **state)
{
    (void)state;
    static char block[65536];
    struct fixture f;
    struct raw raw;
    memset(block, 'x', sizeof block);
    start(&f, (struct at_http_server_options){0});
    raw_connect(&raw, f.loop, at_http_server_addr(f.server), NULL);
    raw_send(&raw, "GET /later HTTP/1.1\r\n" H CLOSE);
    TURN_UNTIL(f.loop, f.pending != NULL);
    at_stream_pause(raw.stream);
    at_http_stream_begin(f.pending, 200, NULL, NULL);
    size_t sent = 0;
    enum at_rc rc;
    while ((rc = at_http_stream_write(f.pending, block, sizeof block)) == AT_OK) {
        sent += sizeof block;
        assert_true(sent < ((size_t)256 << 20));
    }
    assert_int_equal(rc, AT_EXHAUSTED);
    assert_true(at_http_stream_queued_bytes(f.pending) > 0);
    assert_int_equal(f.writables, 0);
    at_stream_resume(raw.stream);
    TURN_UNTIL(f.loop, f.writables > 0 && at_http_stream_queued_bytes(f.pending) == 0);
    at_http_stream_end(f.pending);
    TURN_UNTIL(f.loop, raw.closed);
    assert_true(raw.got.len > sent);
    assert_string_equal(raw.got.data + raw.got.len - 8, "x\r\n0\r\n\r\n");
    raw_done(&raw);
    stop(&f);
}

static void drains_without_cutting_anyone(void **state)
{
    (void)state;
    struct fixture f;
    struct raw idle, busy;
    start(&f, (struct at_http_server_options){0});
    raw_connect(&idle, f.loop, at_http_server_addr(f.server), NULL);
    raw_send(&idle, "GET /1 HTTP/1.1\r\n" H "\r\n");
    raw_connect(&busy, f.loop, at_http_server_addr(f.server), NULL);
    raw_send(&busy, "GET /later HTTP/1.1\r\n" H "\r\n");
    TURN_UNTIL(f.loop, f.pending != NULL && count_of(&idle.got, "[/1 ]") == 1);
    at_http_server_drain(f.server);
    TURN_UNTIL(f.loop, idle.closed);
    assert_false(busy.closed);
    at_http_respond(f.pending, 200, NULL, NULL, "done", 4);
    TURN_UNTIL(f.loop, busy.closed && at_http_server_connections(f.server) == 0);
    assert_int_equal(count_of(&busy.got, "Connection: close\r\n"), 1);
    assert_int_equal(count_of(&busy.got, "done"), 1);
    struct raw late;
    raw_connect(&late, f.loop, at_http_server_addr(f.server), NULL);
    assert_true(late.closed);
    raw_done(&late);
    raw_done(&idle);
    raw_done(&busy);
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_in_order_on_one_connection),
        cmocka_unit_test(takes_pipelined_requests_cut_at_every_byte),
        cmocka_unit_test(holds_pipelined_requests_while_one_is_answered),
        cmocka_unit_test(says_continue_when_asked),
        cmocka_unit_test(refuses_with_the_right_status),
        cmocka_unit_test(refuses_a_head_that_is_too_large),
        cmocka_unit_test(closes_idle_connections_quietly),
        cmocka_unit_test(tells_connections_over_the_maximum),
        cmocka_unit_test(tells_the_handler_that_the_client_went),
        cmocka_unit_test(cuts_answers_that_are_shorter_than_said),
        cmocka_unit_test(streams_to_http_1_0_until_the_end),
        cmocka_unit_test(tells_a_writer_when_the_reader_is_slow),
        cmocka_unit_test(drains_without_cutting_anyone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
