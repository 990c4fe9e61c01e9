/* atoll-mux/1 between the HTTP client and server, and against peers that keep to nothing. */
#include "net/kit_test.h"
#include "net/mux_client.h"

#include <stdlib.h>
#include <unistd.h>

#define MANY 300

struct answer {
    struct fixture *f;
    at_http_call_id id;
    struct at_buf body;
    int status;
    bool done, sent, pause_on_head, cancel_on_head;
    enum at_rc rc;
};

struct fixture {
    struct at_loop *loop;
    struct at_http_server *server;
    struct at_http_client *client;
    char addr[128];
    struct at_http_exchange *later[MANY];
    size_t n_later;
    int requests, gone, writable;
    struct at_http_exchange *stream;
    size_t put; /* of the endless stream */
};

static void on_gone(void *ctx)
{
    ((struct fixture *)ctx)->gone++;
}

static void feed(void *ctx)
{
    struct fixture *f = ctx;
    static const char PIECE[10000] = {'x'};
    f->writable++;
    while (at_http_stream_queued_bytes(f->stream) < 100000) {
        assert_int_equal(at_http_stream_write(f->stream, PIECE, sizeof PIECE), AT_OK);
        f->put += sizeof PIECE;
    }
}

static void handle(void *ctx, struct at_http_exchange *ex)
{
    struct fixture *f = ctx;
    struct at_str path = at_http_request(ex)->path, body = at_http_request_body(ex);
    f->requests++;
    if (at_str_eq(path, "/later")) {
        assert_true(f->n_later < MANY);
        f->later[f->n_later++] = ex;
        at_http_on_gone(ex, on_gone, f);
    } else if (at_str_eq(path, "/endless")) {
        f->stream = ex;
        at_http_on_gone(ex, on_gone, f);
        at_http_on_writable(ex, feed, f);
        at_http_stream_begin(ex, 200, "text/plain", NULL);
        feed(f);
    } else if (at_str_eq(path, "/short")) {
        at_http_stream_begin(ex, 200, NULL, "Content-Length: 10\r\n");
        assert_int_equal(at_http_stream_write(ex, "12345", 5), AT_OK);
        at_http_stream_end(ex);
    } else if (at_str_eq(path, "/abort")) {
        at_http_abort(ex);
    } else if (at_str_eq(path, "/none")) {
        at_http_respond(ex, 204, NULL, NULL, NULL, 0);
    } else {
        at_http_respond(ex, 200, "text/plain", "X-Own: yes\r\n", body.ptr, body.len);
    }
}

static void on_head(void *ctx, const struct at_http_head *head)
{
    struct answer *a = ctx;
    a->status = head->status;
    if (a->pause_on_head) {
        at_http_call_pause(a->f->client, a->id, true);
    }
    if (a->cancel_on_head) {
        at_http_call_cancel(a->f->client, a->id);
    }
}

static void on_body(void *ctx, const char *data, size_t len)
{
    struct answer *a = ctx;
    assert_false(a->done);
    assert_int_equal(at_buf_append(&a->body, data, len), AT_OK);
}

static void on_done(void *ctx, enum at_rc rc, bool sent, const struct at_err *err)
{
    struct answer *a = ctx;
    (void)err;
    assert_false(a->done);
    a->done = true;
    a->rc = rc;
    a->sent = sent;
}

static void ask(struct fixture *f, struct answer *a, enum at_http_method method, const char *target,
                const char *body, size_t len)
{
    struct at_http_call c = {.addr = f->addr,
                             .method = method,
                             .target = target,
                             .body = body,
                             .body_len = len,
                             .ctx = a,
                             .on_head = on_head,
                             .on_body = on_body,
                             .on_done = on_done};
    a->f = f;
    a->id = at_http_call(f->client, &c);
}

static void answer_done(struct answer *a)
{
    at_buf_done(&a->body);
    *a = (struct answer){0};
}

static bool is_open(const struct fixture *f)
{
    return f->client->mux_conns != NULL && f->client->mux_conns->state == MUX_OPEN;
}

static void start_on(struct fixture *f, const char *listen, bool server_mux)
{
    *f = (struct fixture){.loop = kit_loop()};
    struct at_http_server_options o = {.listen = listen,
                                       .mux = server_mux,
                                       .body_bytes_max = (size_t)4 << 20,
                                       .handler = handle,
                                       .ctx = f};
    struct at_err err;
    assert_int_equal(at_http_server_new(f->loop, &o, &f->server, &err), AT_OK);
    snprintf(f->addr, sizeof f->addr, "%s", at_http_server_addr(f->server));
    f->client = at_http_client_new(f->loop, &(struct at_http_client_options){.mux = true});
}

/* With the shared connection open. */
static void start(struct fixture *f)
{
    struct answer a = {0};
    start_on(f, "127.0.0.1:0", true);
    ask(f, &a, AT_HTTP_GET, "/", NULL, 0);
    TURN_UNTIL(f->loop, a.done);
    answer_done(&a);
    ask(f, &a, AT_HTTP_GET, "/", NULL, 0);
    TURN_UNTIL(f->loop, a.done && is_open(f));
    answer_done(&a);
    f->requests = 0;
}

static void stop(struct fixture *f)
{
    at_http_client_free(f->client);
    at_http_server_free(f->server);
    at_loop_free(f->loop);
}

static void many_requests_share_one_connection_and_end_in_any_order(void **state)
{
    (void)state;
    static struct answer answers[MANY];
    struct fixture f;
    start(&f);
    size_t before = at_http_server_connections(f.server);
    for (size_t i = 0; i < MANY; i++) {
        ask(&f, &answers[i], AT_HTTP_POST, "/later", "body", 4);
    }
    TURN_UNTIL(f.loop, f.n_later == MANY);
    assert_int_equal(at_http_server_connections(f.server), before);
    for (size_t i = MANY; i-- > 0;) {
        char text[16];
        int n = snprintf(text, sizeof text, "%zu", i);
        at_http_respond(f.later[i], 200, NULL, NULL, text, (size_t)n);
    }
    for (size_t i = 0; i < MANY; i++) {
        char text[16];
        snprintf(text, sizeof text, "%zu", i);
        TURN_UNTIL(f.loop, answers[i].done);
        assert_int_equal(answers[i].rc, AT_OK);
        assert_int_equal(answers[i].status, 200);
        assert_string_equal(answers[i].body.data, text);
        answer_done(&answers[i]);
    }
    stop(&f);
}

static void bodies_larger_than_the_window_arrive_whole(void **state)
{
    (void)state;
    enum { LEN = 3 << 20 };
    struct fixture f;
    struct answer a = {0}, small = {0};
    char *body = at_alloc(LEN);
    for (size_t i = 0; i < LEN; i++) {
        body[i] = (char)(i * 7 + i / 1009);
    }
    start(&f);
    ask(&f, &a, AT_HTTP_POST, "/echo", body, LEN);
    ask(&f, &small, AT_HTTP_POST, "/echo", "small", 5);
    TURN_UNTIL(f.loop, a.done && small.done);
    assert_int_equal(f.client->mux_conns->last_id, 2);
    assert_int_equal(a.rc, AT_OK);
    assert_int_equal(a.body.len, LEN);
    assert_memory_equal(a.body.data, body, LEN);
    assert_string_equal(small.body.data, "small");
    answer_done(&a);
    answer_done(&small);
    char *huge = at_alloc((size_t)5 << 20);
    ask(&f, &a, AT_HTTP_POST, "/echo", huge, (size_t)5 << 20);
    TURN_UNTIL(f.loop, a.done);
    assert_int_equal(a.status, 413);
    answer_done(&a);
    at_free(huge);
    at_free(body);
    stop(&f);
}

static void a_reader_that_pauses_holds_the_writer_back_and_nobody_else(void **state)
{
    (void)state;
    struct fixture f;
    struct answer slow = {.pause_on_head = true}, quick = {0};
    start(&f);
    ask(&f, &slow, AT_HTTP_GET, "/endless", NULL, 0);
    for (int i = 0; i < 20; i++) {
        ask(&f, &quick, AT_HTTP_GET, "/", NULL, 0);
        TURN_UNTIL(f.loop, quick.done);
        assert_int_equal(quick.rc, AT_OK);
        answer_done(&quick);
    }
    assert_int_equal(slow.body.len, 0);
    assert_true(f.put < 400000); /* a window under way, the queue here */
    size_t stood_at = f.put;
    slow.pause_on_head = false;
    at_http_call_pause(f.client, slow.id, false);
    TURN_UNTIL(f.loop, slow.body.len > 1000000);
    assert_true(f.put > stood_at);
    at_http_call_cancel(f.client, slow.id);
    assert_int_equal(slow.rc, AT_CANCELLED);
    TURN_UNTIL(f.loop, f.gone == 1);
    answer_done(&slow);
    stop(&f);
}

static void what_is_cut_never_looks_complete(void **state)
{
    (void)state;
    struct fixture f;
    struct answer a = {0};
    start(&f);
    static const char *const PATHS[] = {"/short", "/abort"};
    for (size_t i = 0; i < AT_ARRAY_LEN(PATHS); i++) {
        ask(&f, &a, AT_HTTP_POST, PATHS[i], NULL, 0);
        TURN_UNTIL(f.loop, a.done);
        assert_int_equal(a.rc, AT_UPSTREAM);
        assert_true(a.sent);
        answer_done(&a);
    }
    ask(&f, &a, AT_HTTP_GET, "/none", NULL, 0);
    TURN_UNTIL(f.loop, a.done);
    assert_int_equal(a.status, 204);
    answer_done(&a);
    ask(&f, &a, AT_HTTP_HEAD, "/", NULL, 0);
    TURN_UNTIL(f.loop, a.done);
    assert_int_equal(a.rc, AT_OK);
    answer_done(&a);
    a.cancel_on_head = true;
    ask(&f, &a, AT_HTTP_GET, "/endless", NULL, 0);
    TURN_UNTIL(f.loop, a.done && f.gone == 1);
    assert_true(is_open(&f));
    answer_done(&a);
    stop(&f);
}

static void draining_lets_what_is_under_way_end_and_refuses_the_rest(void **state)
{
    (void)state;
    struct fixture f;
    struct answer early = {0}, late = {0};
    start(&f);
    ask(&f, &early, AT_HTTP_POST, "/later", NULL, 0);
    TURN_UNTIL(f.loop, f.n_later == 1);
    at_http_server_drain(f.server);
    ask(&f, &late, AT_HTTP_POST, "/later", NULL, 0); /* before the client has heard of it */
    TURN_UNTIL(f.loop, late.done);
    assert_int_equal(late.rc, AT_UNAVAILABLE);
    assert_false(late.sent);
    assert_int_equal(f.n_later, 1);
    at_http_respond(f.later[0], 200, NULL, NULL, "ok", 2);
    TURN_UNTIL(f.loop, early.done);
    assert_int_equal(early.rc, AT_OK);
    TURN_UNTIL(f.loop, at_http_server_connections(f.server) == 0);
    assert_null(f.client->mux_conns);
    answer_done(&early);
    answer_done(&late);
    stop(&f);
}

static void a_lost_connection_ends_what_may_not_be_repeated(void **state)
{
    (void)state;
    struct fixture f;
    struct answer post = {0};
    start(&f);
    ask(&f, &post, AT_HTTP_POST, "/later", NULL, 0);
    TURN_UNTIL(f.loop, f.n_later == 1);
    at_http_server_free(f.server);
    f.server = NULL;
    TURN_UNTIL(f.loop, post.done);
    assert_int_equal(f.gone, 1);
    assert_int_equal(post.rc, AT_UNAVAILABLE);
    assert_true(post.sent);
    assert_null(f.client->mux_conns);
    answer_done(&post);
    stop(&f);
}

static void a_plain_server_is_asked_once_on_a_unix_socket_and_never_over_tcp(void **state)
{
    (void)state;
    char path[] = "/tmp/at-mux-XXXXXX", listen[64];
    int fd = mkstemp(path);
    close(fd);
    unlink(path);
    snprintf(listen, sizeof listen, "unix:%s", path);
    const char *const ADDRS[] = {listen, "127.0.0.1:0"};
    for (size_t i = 0; i < 2; i++) {
        struct fixture f;
        start_on(&f, ADDRS[i], false);
        for (int n = 0; n < 5; n++) {
            struct answer a = {0};
            ask(&f, &a, AT_HTTP_POST, "/echo", "abc", 3);
            TURN_UNTIL(f.loop, a.done);
            assert_int_equal(a.rc, AT_OK);
            assert_string_equal(a.body.data, "abc");
            answer_done(&a);
        }
        TURN_UNTIL(f.loop, f.client->mux_conns == NULL);
        assert_int_equal(f.requests, i == 0 ? 6 : 5); /* OPTIONS among them */
        stop(&f);
    }
    unlink(path);
}

/* --- peers that keep to nothing --- */

#define UPGRADE                                                                                    \
    "OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: atoll-mux/1\r\n\r\n"

static void put(struct at_buf *b, enum at_mux_type type, bool end, uint32_t id, const char *payload,
                size_t len)
{
    char head[AT_MUX_HEAD_BYTES];
    at_mux_put_head(head, type, end, id, len);
    assert_int_equal(at_buf_append(b, head, sizeof head), AT_OK);
    assert_int_equal(at_buf_append(b, payload, len), AT_OK);
}

/* Send frames to the server; what it answers, as far as it comes before it closes or settles. */
static void against_server(const struct at_buf *frames, bool expect_close, int expect_requests,
                           const char *expect_text)
{
    struct fixture f;
    struct raw raw;
    start_on(&f, "127.0.0.1:0", true);
    raw_connect(&raw, f.loop, f.addr, NULL);
    raw_send(&raw, UPGRADE);
    TURN_UNTIL(f.loop, raw.got.len > 0 && strstr(raw.got.data, "\r\n\r\n") != NULL);
    at_buf_clear(&raw.got);
    assert_int_equal(at_stream_write(raw.stream, frames->data, frames->len), AT_OK);
    if (expect_close) {
        TURN_UNTIL(f.loop, raw.closed);
    } else {
        TURN_UNTIL(f.loop, raw.got.len > 0);
    }
    assert_int_equal(f.requests, expect_requests);
    if (expect_text != NULL) {
        assert_non_null(memmem(raw.got.data, raw.got.len, expect_text, strlen(expect_text)));
    }
    raw_done(&raw);
    stop(&f);
}

#define GET "GET / HTTP/1.1\r\nHost: x\r\n\r\n"

static void the_server_refuses_what_two_could_frame_differently(void **state)
{
    (void)state;
    static const char *const HEADS[] = {
        "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabc",
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        "GET / HTTP/1.1\nHost: x\n\n",
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: atoll-mux/1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x",
        "",
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(HEADS); i++) {
        struct at_buf b = {0};
        put(&b, AT_MUX_HEAD, true, 1, HEADS[i], strlen(HEADS[i]));
        against_server(&b, false, 0, "HTTP/1.1 400 ");
        at_buf_done(&b);
    }
}

static void the_server_ends_connections_that_break_the_protocol(void **state)
{
    (void)state;
    struct at_buf b = {0};
    put(&b, AT_MUX_HEAD, true, 5, GET, sizeof GET - 1);
    put(&b, AT_MUX_HEAD, true, 5, GET, sizeof GET - 1); /* ids grow */
    against_server(&b, true, 1, NULL);
    at_buf_clear(&b);
    put(&b, AT_MUX_DATA, true, 3, "x", 1); /* never opened */
    against_server(&b, true, 0, NULL);
    at_buf_clear(&b);
    assert_int_equal(at_buf_append(&b, "\xff\xff\xff\xff\1\0\0\0\1\0\0\0", 12), AT_OK);
    against_server(&b, true, 0, NULL);
    at_buf_clear(&b);
    put(&b, AT_MUX_HEAD, false, 1, GET, sizeof GET - 1);
    put(&b, AT_MUX_WINDOW, false, 1, "\0\0\1\0", 4); /* more than a full one */
    against_server(&b, true, 0, NULL);
    at_buf_done(&b);
}

static void the_server_takes_no_more_body_than_its_window(void **state)
{
    (void)state;
    struct fixture f;
    struct raw raw;
    struct at_buf b = {0};
    struct at_mux_frame got;
    struct at_err err;
    size_t used;
    char *block = at_alloc(AT_MUX_WINDOW_BYTES + 1);
    start_on(&f, "127.0.0.1:0", true);
    raw_connect(&raw, f.loop, f.addr, NULL);
    raw_send(&raw, UPGRADE);
    TURN_UNTIL(f.loop, raw.got.len > 0 && strstr(raw.got.data, "\r\n\r\n") != NULL);
    at_buf_clear(&raw.got);
    put(&b, AT_MUX_HEAD, false, 1, GET, sizeof GET - 1);
    put(&b, AT_MUX_DATA, false, 1, block, AT_MUX_WINDOW_BYTES + 1);
    assert_int_equal(at_stream_write(raw.stream, b.data, b.len), AT_OK);
    TURN_UNTIL(f.loop, raw.got.len > 0);
    assert_int_equal(at_mux_parse(raw.got.data, raw.got.len, &got, &used, &err), AT_OK);
    assert_int_equal(got.type, AT_MUX_RESET);
    assert_int_equal(got.id, 1);
    assert_int_equal(f.requests, 0);
    raw_done(&raw);
    stop(&f);
    at_buf_done(&b);
    at_free(block);
}

/* A server that answers the Upgrade and then whatever it likes. */
struct liar {
    struct at_buf frames;
    struct at_http_exchange *ex;
};

static size_t liar_takes(void *ctx, const char *data, size_t len)
{
    struct liar *liar = ctx;
    (void)data;
    (void)!at_http_stream_write(liar->ex, liar->frames.data, liar->frames.len);
    return len;
}

static void liar_handles(void *ctx, struct at_http_exchange *ex)
{
    struct liar *liar = ctx;
    if (at_http_request(ex)->method != AT_HTTP_OPTIONS) {
        at_http_respond(ex, 200, NULL, "Atoll-Mux: 1\r\n", NULL, 0);
        return;
    }
    liar->ex = ex;
    at_http_upgrade(ex, "Connection: upgrade\r\nUpgrade: atoll-mux/1\r\n", liar_takes, liar);
}

static void the_client_sees_through_answers_that_lie(void **state)
{
    (void)state;
    static const struct {
        enum at_mux_type type;
        bool end;
        const char *payload;
    } CASES[] = {
        {AT_MUX_HEAD, true, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc"},
        {AT_MUX_HEAD, true, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc"},
        {AT_MUX_HEAD, true, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
        {AT_MUX_HEAD, true, "HTTP/1.1 101 Switching Protocols\r\n\r\n"},
        {AT_MUX_HEAD, true, "garbage"},
        {AT_MUX_DATA, true, "no head"},
        {AT_MUX_GOAWAY, false, "\0\0\0\0"},
        {(enum at_mux_type)9, false, "\0\0\0\0"},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        struct fixture f = {.loop = kit_loop()};
        struct liar liar = {0};
        struct answer a = {0};
        struct at_err err;
        bool four = CASES[i].type == AT_MUX_GOAWAY || CASES[i].type > AT_MUX_GOAWAY;
        put(&liar.frames, CASES[i].type, CASES[i].end, CASES[i].type == AT_MUX_GOAWAY ? 0 : 1,
            CASES[i].payload, four ? 4 : strlen(CASES[i].payload));
        struct at_http_server_options o = {
            .listen = "127.0.0.1:0", .handler = liar_handles, .ctx = &liar};
        assert_int_equal(at_http_server_new(f.loop, &o, &f.server, &err), AT_OK);
        snprintf(f.addr, sizeof f.addr, "%s", at_http_server_addr(f.server));
        f.client = at_http_client_new(f.loop, &(struct at_http_client_options){.mux = true});
        for (int n = 0; n < 2; n++) {
            ask(&f, &a, AT_HTTP_GET, "/", NULL, 0);
            TURN_UNTIL(f.loop, a.done);
            answer_done(&a);
        }
        TURN_UNTIL(f.loop, is_open(&f));
        ask(&f, &a, AT_HTTP_POST, "/", "x", 1);
        TURN_UNTIL(f.loop, a.done);
        assert_true(a.rc == AT_UPSTREAM || a.rc == AT_UNAVAILABLE);
        assert_int_equal(a.sent, CASES[i].type != AT_MUX_GOAWAY);
        answer_done(&a);
        at_buf_done(&liar.frames);
        stop(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_requests_share_one_connection_and_end_in_any_order),
        cmocka_unit_test(bodies_larger_than_the_window_arrive_whole),
        cmocka_unit_test(a_reader_that_pauses_holds_the_writer_back_and_nobody_else),
        cmocka_unit_test(what_is_cut_never_looks_complete),
        cmocka_unit_test(draining_lets_what_is_under_way_end_and_refuses_the_rest),
        cmocka_unit_test(a_lost_connection_ends_what_may_not_be_repeated),
        cmocka_unit_test(a_plain_server_is_asked_once_on_a_unix_socket_and_never_over_tcp),
        cmocka_unit_test(the_server_refuses_what_two_could_frame_differently),
        cmocka_unit_test(the_server_ends_connections_that_break_the_protocol),
        cmocka_unit_test(the_server_takes_no_more_body_than_its_window),
        cmocka_unit_test(the_client_sees_through_answers_that_lie),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
