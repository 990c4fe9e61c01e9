/* HTTP/2 between the HTTP client and server, and against peers that keep to nothing. */
#include "net/h2_client.h"
#include "net/kit_test.h"
#include "sys/socket.h"

#include <stdlib.h>

#define MANY 600

struct answer {
    struct fixture *f;
    at_http_call_id id;
    struct at_buf body;
    int status, pieces;
    bool done, sent, pause_on_head, cancel_on_head;
    char own[32];
    enum at_rc rc;
};

struct fixture {
    struct at_loop *loop;
    struct at_http_server *server;
    struct at_http_client *client;
    struct at_tls_config *tls, *server_tls;
    enum at_http2_use use;
    char addr[128];
    struct at_http_exchange *later[MANY];
    size_t n_later;
    int requests, gone;
    char seen[512]; /* the last request's head, as far as it is of interest */
    struct at_http_exchange *stream;
    size_t put;
};

static void on_gone(void *ctx)
{
    ((struct fixture *)ctx)->gone++;
}

static void feed(void *ctx)
{
    struct fixture *f = ctx;
    static const char PIECE[10000] = {'x'};
    while (at_http_stream_queued_bytes(f->stream) < 100000) {
        assert_int_equal(at_http_stream_write(f->stream, PIECE, sizeof PIECE), AT_OK);
        f->put += sizeof PIECE;
    }
}

static void note(struct fixture *f, const struct at_http_head *head)
{
    static const char *const NAMES[] = {"host", "te", "connection", "upgrade", "x-own"};
    size_t n = 0;
    f->seen[0] = '\0';
    for (size_t i = 0; i < AT_ARRAY_LEN(NAMES); i++) {
        struct at_str v = at_http_header_get(head, NAMES[i]);
        if (v.ptr != NULL) {
            n += (size_t)snprintf(f->seen + n, sizeof f->seen - n, "%s=%.*s ", NAMES[i], (int)v.len,
                                  v.ptr);
        }
    }
}

static void handle(void *ctx, struct at_http_exchange *ex)
{
    struct fixture *f = ctx;
    struct at_str path = at_http_request(ex)->path, body = at_http_request_body(ex);
    f->requests++;
    note(f, at_http_request(ex));
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
    } else if (at_str_eq(path, "/abort")) {
        at_http_stream_begin(ex, 200, NULL, "Content-Length: 10\r\n");
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
    struct at_str own = at_http_header_get(head, "x-own");
    a->status = head->status;
    snprintf(a->own, sizeof a->own, "%.*s", (int)own.len, own.len > 0 ? own.ptr : "");
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
    a->pieces++;
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
                             .tls = f->tls,
                             .server_name = f->tls != NULL ? "localhost" : NULL,
                             .http2 = f->use,
                             .host = "example.org",
                             .headers = "X-Own: Me\r\nConnection: close, X-Gone\r\nTE: gzip\r\n",
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

static void start(struct fixture *f, struct at_tls_config *server_tls, bool http2)
{
    *f = (struct fixture){.loop = kit_loop(), .use = AT_HTTP2_ALWAYS, .server_tls = server_tls};
    struct at_http_server_options o = {.listen = "127.0.0.1:0",
                                       .tls = server_tls,
                                       .http2 = http2,
                                       .body_bytes_max = (size_t)4 << 20,
                                       .handler = handle,
                                       .ctx = f};
    struct at_err err;
    assert_int_equal(at_http_server_new(f->loop, &o, &f->server, &err), AT_OK);
    snprintf(f->addr, sizeof f->addr, "%s", at_http_server_addr(f->server));
    f->client = at_http_client_new(f->loop, &(struct at_http_client_options){.waiting_max = MANY});
}

static void stop(struct fixture *f)
{
    at_http_client_free(f->client);
    at_http_server_free(f->server);
    at_loop_free(f->loop);
}

static void many_requests_share_connections_and_end_in_any_order(void **state)
{
    (void)state;
    static struct answer answers[MANY];
    struct fixture f;
    start(&f, NULL, true);
    for (size_t i = 0; i < MANY; i++) {
        ask(&f, &answers[i], AT_HTTP_POST, "/later", "body", 4);
    }
    TURN_UNTIL(f.loop, f.n_later == MANY);
    assert_true(at_http_server_connections(f.server) <= 6); /* 100 each, until it said 250 */
    for (size_t i = MANY; i-- > 0;) {
        char text[16];
        int n = snprintf(text, sizeof text, "%zu", i);
        at_http_respond(f.later[i], 200, NULL, NULL, text, (size_t)n);
    }
    bool seen[MANY] = {false};
    for (size_t i = 0; i < MANY; i++) {
        TURN_UNTIL(f.loop, answers[i].done);
        assert_int_equal(answers[i].rc, AT_OK);
        assert_int_equal(answers[i].status, 200);
        long which = strtol(answers[i].body.data, NULL, 10);
        assert_false(seen[which]);
        seen[which] = true;
        answer_done(&answers[i]);
    }
    struct answer a = {0};
    int before = (int)at_http_server_connections(f.server);
    ask(&f, &a, AT_HTTP_GET, "/", NULL, 0);
    TURN_UNTIL(f.loop, a.done);
    assert_int_equal((int)at_http_server_connections(f.server), before);
    answer_done(&a);
    stop(&f);
}

static void lines_of_one_connection_only_are_left_out(void **state)
{
    (void)state;
    struct fixture f;
    struct answer a = {0};
    start(&f, NULL, true);
    ask(&f, &a, AT_HTTP_GET, "/a?b=c", NULL, 0);
    TURN_UNTIL(f.loop, a.done);
    assert_int_equal(a.status, 200);
    assert_string_equal(a.own, "yes");
    assert_string_equal(f.seen, "host=example.org x-own=Me ");
    answer_done(&a);
    stop(&f);
}

static void bodies_larger_than_the_window_arrive_whole(void **state)
{
    (void)state;
    enum { LEN = 3 << 20 };
    struct fixture f;
    struct answer a = {0}, small = {0};
    char *body = at_alloc((size_t)5 << 20);
    for (size_t i = 0; i < LEN; i++) {
        body[i] = (char)(i * 7 + i / 1009);
    }
    start(&f, NULL, true);
    ask(&f, &a, AT_HTTP_POST, "/echo", body, LEN);
    ask(&f, &small, AT_HTTP_POST, "/echo", "small", 5);
    TURN_UNTIL(f.loop, a.done && small.done);
    assert_int_equal(at_http_server_connections(f.server), 1);
    assert_int_equal(a.rc, AT_OK);
    assert_int_equal(a.body.len, LEN);
    assert_memory_equal(a.body.data, body, LEN);
    assert_string_equal(small.body.data, "small");
    answer_done(&a);
    answer_done(&small);
    ask(&f, &a, AT_HTTP_POST, "/echo", body, (size_t)5 << 20); /* more than it takes */
    TURN_UNTIL(f.loop, a.done);
    assert_int_equal(a.status, 413);
    answer_done(&a);
    ask(&f, &a, AT_HTTP_HEAD, "/", NULL, 0);
    ask(&f, &small, AT_HTTP_GET, "/none", NULL, 0);
    TURN_UNTIL(f.loop, a.done && small.done);
    assert_int_equal(a.rc, AT_OK);
    assert_int_equal(small.status, 204);
    answer_done(&a);
    answer_done(&small);
    at_free(body);
    stop(&f);
}

static void a_reader_that_pauses_holds_the_writer_back_and_nobody_else(void **state)
{
    (void)state;
    struct fixture f;
    struct answer slow = {.pause_on_head = true}, quick = {0};
    start(&f, NULL, true);
    ask(&f, &slow, AT_HTTP_GET, "/endless", NULL, 0);
    for (int i = 0; i < 20; i++) {
        ask(&f, &quick, AT_HTTP_GET, "/", NULL, 0);
        TURN_UNTIL(f.loop, quick.done);
        assert_int_equal(quick.rc, AT_OK);
        answer_done(&quick);
    }
    assert_int_equal(slow.body.len, 0);
    assert_true(f.put < 1000000);
    size_t stood_at = f.put;
    slow.pause_on_head = false;
    at_http_call_pause(f.client, slow.id, false);
    TURN_UNTIL(f.loop, slow.body.len > 3000000);
    assert_true(f.put > stood_at);
    at_http_call_cancel(f.client, slow.id);
    assert_int_equal(slow.rc, AT_CANCELLED);
    TURN_UNTIL(f.loop, f.gone == 1);
    assert_int_equal(at_http_server_connections(f.server), 1);
    answer_done(&slow);
    stop(&f);
}

static void what_is_cut_never_looks_complete(void **state)
{
    (void)state;
    struct fixture f;
    struct answer a = {0}, b = {0};
    start(&f, NULL, true);
    ask(&f, &a, AT_HTTP_POST, "/abort", "x", 1);
    TURN_UNTIL(f.loop, a.done);
    assert_int_equal(a.rc, AT_UPSTREAM);
    answer_done(&a);
    a.cancel_on_head = true;
    ask(&f, &a, AT_HTTP_GET, "/endless", NULL, 0);
    ask(&f, &b, AT_HTTP_POST, "/later", "x", 1);
    TURN_UNTIL(f.loop, a.done && f.n_later == 1);
    assert_int_equal(a.rc, AT_CANCELLED);
    at_http_server_free(f.server); /* with one under way that may not be sent twice */
    f.server = NULL;
    TURN_UNTIL(f.loop, b.done);
    assert_true(b.rc == AT_UNAVAILABLE || b.rc == AT_UPSTREAM);
    assert_true(b.sent);
    answer_done(&a);
    answer_done(&b);
    stop(&f);
}

static void a_server_that_leaves_is_asked_nothing_more_and_finishes(void **state)
{
    (void)state;
    struct fixture f;
    struct answer a = {0}, b = {0};
    start(&f, NULL, true);
    ask(&f, &a, AT_HTTP_GET, "/later", NULL, 0);
    TURN_UNTIL(f.loop, f.n_later == 1);
    at_http_server_drain(f.server);
    ask(&f, &b, AT_HTTP_POST, "/", "x", 1);
    at_http_respond(f.later[0], 200, NULL, NULL, "done", 4);
    TURN_UNTIL(f.loop, a.done && b.done);
    assert_int_equal(a.rc, AT_OK);
    assert_true(b.rc == AT_OK || (b.rc == AT_UNAVAILABLE && !b.sent));
    answer_done(&a);
    answer_done(&b);
    stop(&f);
}

static void what_tls_agrees_on_is_spoken(void **state)
{
    (void)state;
    struct kit_cert ca = kit_cert_new(NULL, "ca", NULL), leaf = kit_cert_new(&ca, "s", NULL);
    struct at_err err;
    for (int http2 = 0; http2 < 2; http2++) {
        struct at_tls_config *stls, *ctls;
        struct at_tls_options so = {.is_server = true,
                                    .http2 = http2 == 1,
                                    .cert_pem = leaf.cert_pem,
                                    .key_pem = leaf.key_pem};
        struct at_tls_options co = {.ca_pem = ca.cert_pem, .verify_peer = true, .http2 = true};
        assert_int_equal(at_tls_config_new(&so, &stls, &err), AT_OK);
        assert_int_equal(at_tls_config_new(&co, &ctls, &err), AT_OK);
        struct fixture f;
        struct answer a[20] = {{0}};
        start(&f, stls, http2 == 1);
        f.tls = ctls;
        f.use = AT_HTTP2_IF_OFFERED;
        for (int i = 0; i < 20; i++) {
            ask(&f, &a[i], AT_HTTP_GET, "/later", NULL, 0);
        }
        at_http_call_cancel(f.client, a[7].id);
        assert_true(a[7].done);
        TURN_UNTIL(f.loop, f.n_later == 19);
        assert_int_equal(at_http_server_connections(f.server), http2 == 1 ? 1 : 19);
        for (int i = 0; i < 19; i++) {
            at_http_respond(f.later[i], 200, NULL, NULL, "x", 1);
        }
        for (int i = 0; i < 20; i++) {
            TURN_UNTIL(f.loop, a[i].done);
            assert_int_equal(a[i].rc, i == 7 ? AT_CANCELLED : AT_OK);
            answer_done(&a[i]);
        }
        stop(&f);
        at_tls_config_unref(stls);
        at_tls_config_unref(ctls);
    }
    kit_cert_done(&ca);
    kit_cert_done(&leaf);
}

/* --- peers that keep to nothing --- */

struct bad {
    const char *bytes;
    size_t len;
};

static size_t bad_data(void *ctx, const char *data, size_t len)
{
    (void)ctx, (void)data;
    return len;
}

static void bad_close(void *ctx, enum at_rc rc, const struct at_err *err)
{
    (void)rc, (void)err;
    *(struct at_stream **)ctx = NULL;
}

#define BYTES(text)                                                                                \
    {                                                                                              \
        text, sizeof(text) - 1                                                                     \
    }
#define SETTINGS "\0\0\0\4\0\0\0\0\0"

static void peers_that_are_none_end_in_an_error(void **state)
{
    (void)state;
    static const struct bad CASES[] = {
        BYTES("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        BYTES("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        BYTES(SETTINGS "\0\0\1\0\1\0\0\0\1x"), /* data, no head */
        BYTES(SETTINGS "\0\0\5\1\4\0\0\0\1\x88\x0f\x0d\1"
                       "9"
                       "\0\0\1\0\1\0\0\0\1x"),                 /* short */
        BYTES(SETTINGS "\0\0\1\1\5\0\0\0\1\x80"),              /* HPACK: index 0 */
        BYTES(SETTINGS "\0\0\4\x5\4\0\0\0\1\0\0\0\2"),         /* PUSH_PROMISE */
        BYTES(SETTINGS "\0\0\4\3\0\0\0\0\1\0\0\0\1"),          /* RST, protocol */
        BYTES(SETTINGS "\0\0\4\3\0\0\0\0\1\0\0\0\0"),          /* RST, no error */
        BYTES(SETTINGS "\0\0\x8\7\0\0\0\0\0\0\0\0\0\0\0\0\2"), /* GOAWAY, internal */
        BYTES(SETTINGS "\0\0\1\1\5\0\0\0\3\x88"),              /* a stream not asked */
        BYTES(SETTINGS "\0\0\4\x8\0\0\0\0\1\0\0\0\0"),         /* window of 0 */
        BYTES(SETTINGS "\0\0\5\1\5\0\0\0\1\x08\3"
                       "101"), /* status 101 */
        BYTES(SETTINGS "\0\0\xb\1\5\0\0\0\1\x88\0\1x\6"
                       "a\r\nb:c"), /* CR LF in a value */
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        struct at_loop *loop = kit_loop();
        struct at_err err;
        int fd, client;
        char addr[128];
        assert_int_equal(at_sock_listen("127.0.0.1:0", 8, false, &fd, addr, &err), AT_OK);
        struct fixture f = {.loop = loop, .use = AT_HTTP2_ALWAYS};
        snprintf(f.addr, sizeof f.addr, "%s", addr);
        f.client = at_http_client_new(loop, NULL);
        struct answer a = {0};
        ask(&f, &a, AT_HTTP_POST, "/", "x", 1);
        struct at_stream *peers[4] = {NULL};
        for (int n = 0; n < 4 && !a.done; n++) {
            TURN_UNTIL(loop, a.done || at_sock_accept(fd, &client, NULL) == AT_OK);
            if (a.done) {
                break;
            }
            struct at_stream_events ev = {
                .ctx = &peers[n], .on_data = bad_data, .on_close = bad_close};
            peers[n] = at_stream_accept_take(loop, client, NULL, &ev);
            assert_int_equal(at_stream_write(peers[n], CASES[i].bytes, CASES[i].len), AT_OK);
            at_stream_end_half(peers[n]);
        }
        TURN_UNTIL(loop, a.done);
        assert_int_not_equal(a.rc, AT_OK);
        answer_done(&a);
        at_http_client_free(f.client);
        for (int n = 0; n < 4; n++) {
            at_stream_free(peers[n]);
        }
        at_sock_close(fd);
        at_loop_free(loop);
    }
}

static void free_in_cancel(void *ctx, enum at_rc rc, bool sent, const struct at_err *err)
{
    struct fixture *f = ctx;
    (void)rc, (void)sent, (void)err;
    struct at_http_client *client = f->client;
    f->client = NULL;
    at_http_client_free(client);
}

static void the_client_may_go_within_any_callback(void **state)
{
    (void)state;
    struct fixture f;
    struct answer other = {0};
    start(&f, NULL, true);
    ask(&f, &other, AT_HTTP_GET, "/later", NULL, 0);
    struct at_http_call c = {.addr = f.addr,
                             .http2 = AT_HTTP2_ALWAYS,
                             .method = AT_HTTP_GET,
                             .target = "/",
                             .ctx = &f,
                             .on_done = free_in_cancel};
    assert_int_not_equal(at_http_call(f.client, &c), 0);
    TURN_UNTIL(f.loop, f.client == NULL);
    assert_int_equal(other.rc, AT_CANCELLED);
    answer_done(&other);
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_requests_share_connections_and_end_in_any_order),
        cmocka_unit_test(lines_of_one_connection_only_are_left_out),
        cmocka_unit_test(bodies_larger_than_the_window_arrive_whole),
        cmocka_unit_test(a_reader_that_pauses_holds_the_writer_back_and_nobody_else),
        cmocka_unit_test(what_is_cut_never_looks_complete),
        cmocka_unit_test(a_server_that_leaves_is_asked_nothing_more_and_finishes),
        cmocka_unit_test(what_tls_agrees_on_is_spoken),
        cmocka_unit_test(peers_that_are_none_end_in_an_error),
        cmocka_unit_test(the_client_may_go_within_any_callback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
