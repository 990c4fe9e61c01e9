/* HTTP/2 over real loopback, by a client made of nghttp2. */
#include "net/h2_int.h"
#include "net/kit_test.h"

struct answer {
    int32_t id;
    int status;
    char x_a[64], trailer[64], type[64];
    struct at_buf body;
    bool closed;
    uint32_t error;
};

struct client {
    struct at_loop *loop;
    struct at_stream *stream;
    nghttp2_session *session;
    bool open, closed, goaway;
    struct answer answers[8000];
    size_t n;
    const char *send;
    size_t send_len, send_at;
};

struct fixture {
    struct at_loop *loop;
    struct at_http_server *server;
    struct at_http_exchange *pending[8];
    size_t n_pending;
    size_t gone, requests, writables;
    char cookie[64], host[64];
};

static void on_gone(void *ctx)
{
    ((struct fixture *)ctx)->gone++;
}

static void on_writable(void *ctx)
{
    ((struct fixture *)ctx)->writables++;
}

static void copy(char *to, size_t size, struct at_str from)
{
    snprintf(to, size, "%.*s", (int)from.len, from.ptr != NULL ? from.ptr : "");
}

static void handle(void *ctx, struct at_http_exchange *ex)
{
    struct fixture *f = ctx;
    const struct at_http_head *head = at_http_request(ex);
    struct at_str path = head->path, body = at_http_request_body(ex);
    f->requests++;
    copy(f->cookie, sizeof f->cookie, at_http_header_get(head, "cookie"));
    copy(f->host, sizeof f->host, at_http_header_get(head, "host"));
    assert_true(at_http_is_h2(ex));
    assert_non_null(at_http_peer_addr(ex));
    if (at_str_eq(path, "/later")) {
        f->pending[f->n_pending++ % 8] = ex;
        at_http_on_gone(ex, on_gone, f);
        at_http_on_writable(ex, on_writable, f);
    } else if (at_str_eq(path, "/trailers")) {
        at_http_stream_begin(ex, 200, "application/grpc", "X-A: b\r\nConnection: close\r\n");
        assert_int_equal(at_http_stream_write(ex, "one,", 4), AT_OK);
        assert_int_equal(at_http_stream_write(ex, "two", 3), AT_OK);
        at_http_stream_end_trailers(ex, "Grpc-Status: 5\r\n");
    } else if (at_str_eq(path, "/short")) {
        at_http_stream_begin(ex, 200, NULL, "content-length: 10\r\n");
        assert_int_equal(at_http_stream_write(ex, "12345", 5), AT_OK);
        at_http_stream_end(ex);
    } else if (at_str_eq(path, "/empty")) {
        at_http_respond(ex, 204, NULL, NULL, NULL, 0);
    } else if (at_str_eq(path, "/abort")) {
        at_http_abort(ex);
    } else {
        char *text = at_asprintf("[%.*s %.*s]", (int)path.len, path.ptr, (int)body.len,
                                 body.len > 0 && body.len < 100 ? body.ptr : "");
        at_http_respond(ex, 200, "text/plain", "X-A: b\r\n", text, strlen(text));
        at_free(text);
    }
}

static void start(struct fixture *f, struct at_http_server_options o)
{
    *f = (struct fixture){.loop = at_loop_new(at_sys_real())};
    o.listen = "127.0.0.1:0";
    o.handler = handle;
    o.ctx = f;
    o.http2 = true;
    struct at_err err;
    assert_int_equal(at_http_server_new(f->loop, &o, &f->server, &err), AT_OK);
}

static void stop(struct fixture *f)
{
    at_http_server_free(f->server);
    at_loop_free(f->loop);
}

/* --- the client --- */

static struct answer *answer_of(struct client *c, int32_t id)
{
    for (size_t i = 0; i < c->n; i++) {
        if (c->answers[i].id == id) {
            return &c->answers[i];
        }
    }
    return NULL;
}

static int c_header(nghttp2_session *s, const nghttp2_frame *frame, const uint8_t *name,
                    size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                    void *ctx)
{
    struct answer *a = answer_of(ctx, frame->hd.stream_id);
    struct at_str n = {(const char *)name, name_len}, v = {(const char *)value, value_len};
    (void)s, (void)flags;
    if (at_str_eq(n, ":status")) {
        a->status = atoi((const char *)value);
    } else if (at_str_eq(n, "x-a")) {
        copy(a->x_a, sizeof a->x_a, v);
    } else if (at_str_eq(n, "content-type")) {
        copy(a->type, sizeof a->type, v);
    } else if (at_str_eq(n, "grpc-status")) {
        copy(a->trailer, sizeof a->trailer, v);
    }
    assert_false(at_str_eq(n, "connection"));
    assert_true(nghttp2_check_header_name(name, name_len) || name[0] == ':');
    assert_true(nghttp2_check_header_value(value, value_len));
    return 0;
}

static int c_data(nghttp2_session *s, uint8_t flags, int32_t id, const uint8_t *data, size_t len,
                  void *ctx)
{
    (void)s, (void)flags;
    assert_int_equal(at_buf_append(&answer_of(ctx, id)->body, data, len), AT_OK);
    return 0;
}

static int c_close(nghttp2_session *s, int32_t id, uint32_t error, void *ctx)
{
    struct answer *a = answer_of(ctx, id);
    (void)s;
    a->closed = true;
    a->error = error;
    return 0;
}

static int c_frame(nghttp2_session *s, const nghttp2_frame *frame, void *ctx)
{
    (void)s;
    ((struct client *)ctx)->goaway |= frame->hd.type == NGHTTP2_GOAWAY;
    return 0;
}

static void c_flush(struct client *c)
{
    const uint8_t *data;
    for (ssize_t n; c->stream != NULL && (n = nghttp2_session_mem_send(c->session, &data)) > 0;) {
        if (at_stream_write(c->stream, data, (size_t)n) != AT_OK) {
            return;
        }
    }
}

static void c_open(void *ctx)
{
    ((struct client *)ctx)->open = true;
}

static size_t c_bytes(void *ctx, const char *data, size_t len)
{
    struct client *c = ctx;
    assert_true(nghttp2_session_mem_recv(c->session, (const uint8_t *)data, len) >= 0);
    c_flush(c);
    return len;
}

static void c_closed(void *ctx, enum at_rc rc, const struct at_err *err)
{
    struct client *c = ctx;
    (void)rc, (void)err;
    c->closed = true;
    c->stream = NULL;
}

static void c_connect(struct client *c, struct fixture *f, struct at_tls_config *tls, bool manual)
{
    memset(c, 0, sizeof *c);
    c->loop = f->loop;
    nghttp2_session_callbacks *cb;
    nghttp2_option *option;
    nghttp2_session_callbacks_new(&cb);
    nghttp2_option_new(&option);
    nghttp2_option_set_no_auto_window_update(option, manual);
    nghttp2_option_set_no_http_messaging(option, 1); /* this client may send what is wrong */
    nghttp2_session_callbacks_set_on_header_callback(cb, c_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, c_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, c_close);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, c_frame);
    assert_int_equal(nghttp2_session_client_new2(&c->session, cb, c, option), 0);
    nghttp2_session_callbacks_del(cb);
    nghttp2_option_del(option);
    nghttp2_submit_settings(c->session, 0, NULL, 0);
    struct at_stream_events ev = {
        .ctx = c, .on_open = c_open, .on_data = c_bytes, .on_close = c_closed};
    c->stream = at_stream_connect(f->loop, at_http_server_addr(f->server), tls, "localhost",
                                  KIT_WAIT_NS, &ev);
    TURN_UNTIL(f->loop, c->open || c->closed);
}

static ssize_t c_read(nghttp2_session *s, int32_t id, uint8_t *to, size_t max, uint32_t *flags,
                      nghttp2_data_source *source, void *ctx)
{
    struct client *c = ctx;
    (void)s, (void)id, (void)source;
    size_t n = c->send_len - c->send_at;
    n = n < max ? n : max;
    memset(to, 'x', n);
    if (c->send != NULL) {
        memcpy(to, c->send + c->send_at, n);
    }
    c->send_at += n;
    if (c->send_at == c->send_len) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    }
    return (ssize_t)n;
}

#define NV(n, v)                                                                                   \
    (nghttp2_nv)                                                                                   \
    {                                                                                              \
        (uint8_t *)(uintptr_t)(n), (uint8_t *)(uintptr_t)(v), strlen(n), strlen(v), 0              \
    }

/* body NULL and len > 0: so many 'x'. more: up to 4 more fields. */
static struct answer *c_request(struct client *c, const char *path, const char *body, size_t len,
                                const nghttp2_nv *more, size_t n_more)
{
    nghttp2_nv nv[110] = {NV(":method", len > 0 ? "POST" : "GET"), NV(":scheme", "http"),
                          NV(":authority", "localhost"), NV(":path", path)};
    for (size_t i = 0; i < n_more; i++) {
        nv[4 + i] = more[i];
    }
    c->send = body;
    c->send_len = len;
    c->send_at = 0;
    nghttp2_data_provider provider = {.read_callback = c_read};
    struct answer *a = &c->answers[c->n++];
    a->id =
        nghttp2_submit_request(c->session, NULL, nv, 4 + n_more, len > 0 ? &provider : NULL, NULL);
    assert_true(a->id > 0);
    c_flush(c);
    return a;
}

static void c_done(struct client *c)
{
    at_stream_free(c->stream);
    nghttp2_session_del(c->session);
    for (size_t i = 0; i < c->n; i++) {
        at_buf_done(&c->answers[i].body);
    }
}

/* --- tests --- */

static struct client client; /* large */

static void requests_of_one_connection_are_answered_in_any_order(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (struct at_http_server_options){0});
    c_connect(&client, &f, NULL, false);
    struct answer *slow = c_request(&client, "/later", NULL, 0, NULL, 0);
    struct answer *fast = c_request(&client, "/a", "hello", 5, NULL, 0);
    TURN_UNTIL(f.loop, fast->closed);
    assert_int_equal(fast->status, 200);
    assert_string_equal(fast->body.data, "[/a hello]");
    assert_string_equal(fast->x_a, "b");
    assert_string_equal(fast->type, "text/plain");
    assert_false(slow->closed);
    at_http_respond(f.pending[0], 201, NULL, NULL, "done", 4);
    TURN_UNTIL(f.loop, slow->closed);
    assert_int_equal(slow->status, 201);
    assert_string_equal(slow->body.data, "done");
    c_done(&client);
    stop(&f);
}

static void cookies_become_one_line_and_the_authority_the_host(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (struct at_http_server_options){0});
    c_connect(&client, &f, NULL, false);
    nghttp2_nv more[] = {NV("cookie", "a=1"), NV("cookie", "b=2")};
    struct answer *a = c_request(&client, "/", NULL, 0, more, 2);
    TURN_UNTIL(f.loop, a->closed);
    assert_string_equal(f.cookie, "a=1; b=2");
    assert_string_equal(f.host, "localhost");
    nghttp2_nv other[] = {NV("host", "elsewhere")};
    a = c_request(&client, "/", NULL, 0, other, 1);
    TURN_UNTIL(f.loop, a->closed);
    assert_int_equal(a->status, 400);
    assert_int_equal(f.requests, 1);
    c_done(&client);
    stop(&f);
}

static void what_the_one_parser_refuses_is_refused_here(void **state)
{
    (void)state;
    static const char *const PATHS[] = {"/a b", "/a\r\nx: y", "relative", ""};
    struct fixture f;
    start(&f, (struct at_http_server_options){0});
    for (size_t i = 0; i < AT_ARRAY_LEN(PATHS); i++) {
        c_connect(&client, &f, NULL, false);
        struct answer *a = c_request(&client, PATHS[i], NULL, 0, NULL, 0);
        TURN_UNTIL(f.loop, a->closed || client.closed);
        assert_true(a->status == 400 || (a->status == 0 && a->error != 0) || client.closed);
        c_done(&client);
    }
    nghttp2_nv bad[] = {NV("transfer-encoding", "chunked")};
    c_connect(&client, &f, NULL, false);
    struct answer *a = c_request(&client, "/", "x", 1, bad, 1);
    TURN_UNTIL(f.loop, a->closed || client.closed);
    assert_int_not_equal(a->status, 200);
    c_done(&client);
    nghttp2_nv lie[] = {NV("content-length", "5")};
    c_connect(&client, &f, NULL, false);
    a = c_request(&client, "/", "0123456789", 10, lie, 1);
    TURN_UNTIL(f.loop, a->closed || client.closed);
    assert_int_not_equal(a->status, 200);
    c_done(&client);
    assert_int_equal(f.requests, 0);
    stop(&f);
}

static void too_large_heads_and_bodies_are_refused_and_the_connection_goes_on(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (struct at_http_server_options){.body_bytes_max = 100000});
    c_connect(&client, &f, NULL, false);
    struct answer *a = c_request(&client, "/a", NULL, 3000000, NULL, 0);
    TURN_UNTIL(f.loop, a->closed);
    assert_int_equal(a->status, 413);
    nghttp2_nv many[101];
    for (size_t i = 0; i < AT_ARRAY_LEN(many); i++) {
        many[i] = NV("x-many", "1");
    }
    a = c_request(&client, "/a", NULL, 0, many, AT_ARRAY_LEN(many));
    TURN_UNTIL(f.loop, a->closed);
    assert_int_equal(a->status, 431);
    a = c_request(&client, "/a", NULL, 100000, NULL, 0);
    TURN_UNTIL(f.loop, a->closed);
    assert_int_equal(a->status, 200);
    assert_int_equal(f.requests, 1);
    c_done(&client);
    stop(&f);
}

static void trailers_and_short_answers_show(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (struct at_http_server_options){0});
    c_connect(&client, &f, NULL, false);
    struct answer *a = c_request(&client, "/trailers", NULL, 0, NULL, 0);
    struct answer *b = c_request(&client, "/short", NULL, 0, NULL, 0);
    struct answer *d = c_request(&client, "/abort", NULL, 0, NULL, 0);
    struct answer *e = c_request(&client, "/empty", NULL, 0, NULL, 0);
    TURN_UNTIL(f.loop, a->closed && b->closed && d->closed && e->closed);
    assert_string_equal(a->body.data, "one,two");
    assert_string_equal(a->trailer, "5");
    assert_int_equal(a->error, 0);
    assert_int_equal(b->error, NGHTTP2_INTERNAL_ERROR);
    assert_int_equal(d->error, NGHTTP2_INTERNAL_ERROR);
    assert_int_equal(e->status, 204);
    c_done(&client);
    stop(&f);
}

static void a_client_that_cancels_or_goes_is_told_to_the_handler(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (struct at_http_server_options){0});
    c_connect(&client, &f, NULL, false);
    struct answer *a = c_request(&client, "/later", NULL, 0, NULL, 0);
    c_request(&client, "/later", NULL, 0, NULL, 0);
    TURN_UNTIL(f.loop, f.n_pending == 2);
    nghttp2_submit_rst_stream(client.session, 0, a->id, NGHTTP2_CANCEL);
    c_flush(&client);
    TURN_UNTIL(f.loop, f.gone == 1);
    at_stream_close(client.stream);
    TURN_UNTIL(f.loop, f.gone == 2);
    assert_int_equal(at_http_server_connections(f.server), 0);
    c_done(&client);
    c_connect(&client, &f, NULL, false);
    c_request(&client, "/later", NULL, 0, NULL, 0);
    TURN_UNTIL(f.loop, f.n_pending == 3);
    at_http_server_free(f.server); /* under an open exchange */
    assert_int_equal(f.gone, 3);
    c_done(&client);
    at_loop_free(f.loop);
}

static void a_streamed_answer_waits_for_a_slow_reader(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (struct at_http_server_options){0});
    c_connect(&client, &f, NULL, true);
    struct answer *a = c_request(&client, "/later", NULL, 0, NULL, 0);
    TURN_UNTIL(f.loop, f.n_pending == 1);
    static char chunk[100000];
    at_http_stream_begin(f.pending[0], 200, NULL, NULL);
    size_t sent = 0;
    while (at_http_stream_write(f.pending[0], chunk, sizeof chunk) == AT_OK) {
        sent += sizeof chunk;
    }
    assert_true(sent <= AT_HTTP_STREAM_QUEUE_BYTES_MAX);
    TURN_UNTIL(f.loop, a->body.len == 65535); /* the client's window */
    assert_int_equal(f.writables, 0);
    while (a->body.len < sent) {
        size_t had = a->body.len;
        nghttp2_session_consume(client.session, a->id, had < 65535 ? had : 65535);
        c_flush(&client);
        TURN_UNTIL(f.loop, a->body.len > had);
    }
    TURN_UNTIL(f.loop, f.writables > 0);
    at_http_stream_end(f.pending[0]);
    TURN_UNTIL(f.loop, a->closed);
    assert_int_equal(a->body.len, sent);
    c_done(&client);
    stop(&f);
}

static void a_client_that_opens_and_cancels_without_end_is_cut_off(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (struct at_http_server_options){0});
    c_connect(&client, &f, NULL, false);
    for (size_t i = 0; i < 7990 && !client.closed && !client.goaway; i++) {
        struct answer *a = c_request(&client, "/later", NULL, 0, NULL, 0);
        nghttp2_submit_rst_stream(client.session, 0, a->id, NGHTTP2_CANCEL);
        c_flush(&client);
        at_loop_turn(f.loop, 0);
    }
    TURN_UNTIL(f.loop, client.goaway || client.closed);
    c_done(&client);
    stop(&f);
}

static void draining_lets_open_requests_end(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (struct at_http_server_options){0});
    c_connect(&client, &f, NULL, false);
    struct answer *a = c_request(&client, "/later", NULL, 0, NULL, 0);
    TURN_UNTIL(f.loop, f.n_pending == 1);
    at_http_server_drain(f.server);
    TURN_UNTIL(f.loop, client.goaway);
    assert_false(client.closed);
    at_http_respond(f.pending[0], 200, NULL, NULL, "x", 1);
    TURN_UNTIL(f.loop, a->closed && client.closed);
    assert_int_equal(a->status, 200);
    TURN_UNTIL(f.loop, at_http_server_connections(f.server) == 0);
    c_done(&client);
    stop(&f);
}

static void idle_and_slow_connections_end_in_time(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (struct at_http_server_options){.idle_timeout_ns = 50 * AT_MS,
                                              .head_timeout_ns = 50 * AT_MS});
    c_connect(&client, &f, NULL, false);
    struct answer *a = c_request(&client, "/", NULL, 0, NULL, 0);
    TURN_UNTIL(f.loop, a->closed && client.closed);
    assert_true(client.goaway);
    c_done(&client);
    struct raw raw; /* half a preface */
    raw_connect(&raw, f.loop, at_http_server_addr(f.server), NULL);
    raw_send(&raw, "PRI * HT");
    TURN_UNTIL(f.loop, raw.closed);
    raw_done(&raw);
    raw_connect(&raw, f.loop, at_http_server_addr(f.server), NULL);
    raw_send(&raw, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nno frames at all, but text\r\n\r\n");
    TURN_UNTIL(f.loop, raw.closed);
    raw_done(&raw);
    stop(&f);
}

static void tls_clients_choose_by_alpn_and_http1_goes_on(void **state)
{
    (void)state;
    struct kit_cert ca = kit_cert_new(NULL, "ca", NULL), cert = kit_cert_new(&ca, "s", NULL);
    struct at_tls_config *stls, *ctls;
    struct at_err err;
    struct at_tls_options so = {
        .is_server = true, .http2 = true, .cert_pem = cert.cert_pem, .key_pem = cert.key_pem};
    struct at_tls_options co = {.ca_pem = ca.cert_pem, .verify_peer = true};
    assert_int_equal(at_tls_config_new(&so, &stls, &err), AT_OK);
    assert_int_equal(at_tls_config_new(&co, &ctls, &err), AT_OK);
    struct fixture f;
    start(&f, (struct at_http_server_options){.tls = stls});
    c_connect(&client, &f, ctls, false); /* offers http/1.1 only: the preface counts */
    struct answer *a = c_request(&client, "/over-tls", NULL, 0, NULL, 0);
    TURN_UNTIL(f.loop, a->closed);
    assert_string_equal(a->body.data, "[/over-tls ]");
    c_done(&client);
    at_tls_config_unref(stls);
    at_tls_config_unref(ctls);
    stop(&f);
    kit_cert_done(&ca);
    kit_cert_done(&cert);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_of_one_connection_are_answered_in_any_order),
        cmocka_unit_test(cookies_become_one_line_and_the_authority_the_host),
        cmocka_unit_test(what_the_one_parser_refuses_is_refused_here),
        cmocka_unit_test(too_large_heads_and_bodies_are_refused_and_the_connection_goes_on),
        cmocka_unit_test(trailers_and_short_answers_show),
        cmocka_unit_test(a_client_that_cancels_or_goes_is_told_to_the_handler),
        cmocka_unit_test(a_streamed_answer_waits_for_a_slow_reader),
        cmocka_unit_test(a_client_that_opens_and_cancels_without_end_is_cut_off),
        cmocka_unit_test(draining_lets_open_requests_end),
        cmocka_unit_test(idle_and_slow_connections_end_in_time),
        cmocka_unit_test(tls_clients_choose_by_alpn_and_http1_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
