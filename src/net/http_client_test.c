/* The client against our own server and against scripted peers, plain and over TLS. */
#include "core/digest.h"
#include "net/kit_test.h"
#include "net/limits.h"
#include "sys/socket.h"

#include <unistd.h>

struct fixture {
    struct at_loop *loop;
    struct at_http_server *server;
    struct at_http_client *client;
    struct at_http_exchange *pending;
    size_t requests, gone;
    char peer_name[256], peer_org[128];
};

struct answer {
    struct at_buf body;
    int status;
    bool done, sent, head_seen;
    enum at_rc rc;
    struct at_err err;
    struct fixture *f;
    at_http_call_id id;
    bool pause_on_head, cancel_on_body, free_client;
};

static void on_gone(void *ctx)
{
    struct fixture *f = ctx;
    f->gone++;
    f->pending = NULL;
}

static void handle(void *ctx, struct at_http_exchange *ex)
{
    struct fixture *f = ctx;
    struct at_str path = at_http_request(ex)->path;
    struct at_str body = at_http_request_body(ex);
    const struct at_tls_peer *peer = at_http_peer(ex);
    f->requests++;
    if (peer != NULL) {
        snprintf(f->peer_name, sizeof f->peer_name, "%s", peer->common_name);
        snprintf(f->peer_org, sizeof f->peer_org, "%s",
                 peer->n_organizations > 0 ? peer->organizations[0] : "");
        assert_int_equal(peer->verified, peer->common_name[0] != '\0');
    }
    if (at_str_eq(path, "/later")) {
        f->pending = ex;
        at_http_on_gone(ex, on_gone, f);
    } else if (at_str_eq(path, "/stream")) {
        at_http_stream_begin(ex, 200, "text/plain", NULL);
        for (int i = 0; i < 100; i++) {
            assert_int_equal(at_http_stream_write(ex, "0123456789", 10), AT_OK);
        }
        at_http_stream_end(ex);
    } else if (at_str_eq(path, "/close")) {
        at_http_respond(ex, 200, NULL, NULL, "bye", 3);
    } else {
        at_http_respond(ex, 200, "text/plain", NULL, body.ptr, body.len);
    }
}

static void start(struct fixture *f, struct at_tls_config *tls,
                  const struct at_http_client_options *options)
{
    *f = (struct fixture){.loop = kit_loop()};
    struct at_http_server_options o = {.listen = "127.0.0.1:0",
                                       .tls = tls,
                                       .body_bytes_max = (size_t)32 << 20,
                                       .handler = handle,
                                       .ctx = f};
    struct at_err err;
    assert_int_equal(at_http_server_new(f->loop, &o, &f->server, &err), AT_OK);
    f->client = at_http_client_new(f->loop, options);
}

static void stop(struct fixture *f)
{
    at_http_client_free(f->client);
    at_http_server_free(f->server);
    at_loop_free(f->loop);
}

static void on_head(void *ctx, const struct at_http_head *head)
{
    struct answer *a = ctx;
    assert_false(a->head_seen);
    a->head_seen = true;
    a->status = head->status;
    if (a->pause_on_head) {
        at_http_call_pause(a->f->client, a->id, true);
    }
}

static void on_body(void *ctx, const char *data, size_t len)
{
    struct answer *a = ctx;
    assert_true(a->head_seen);
    assert_false(a->done);
    assert_int_equal(at_buf_append(&a->body, data, len), AT_OK);
    if (a->cancel_on_body) {
        at_http_call_cancel(a->f->client, a->id);
        assert_true(a->done);
    }
}

static void on_done(void *ctx, enum at_rc rc, bool bytes_sent, const struct at_err *err)
{
    struct answer *a = ctx;
    assert_false(a->done);
    a->done = true;
    a->rc = rc;
    a->sent = bytes_sent;
    if (err != NULL) {
        a->err = *err;
    }
    if (a->free_client) {
        at_http_client_free(a->f->client);
        a->f->client = NULL;
    }
}

static void call(struct fixture *f, struct answer *a, struct at_http_call c)
{
    a->f = f;
    c.ctx = a;
    c.on_head = on_head;
    c.on_body = on_body;
    c.on_done = on_done;
    if (c.addr == NULL) {
        c.addr = at_http_server_addr(f->server);
    }
    a->id = at_http_call(f->client, &c);
    assert_false(a->done);
}

static void call_and_wait(struct fixture *f, struct answer *a, struct at_http_call c)
{
    call(f, a, c);
    TURN_UNTIL(f->loop, a->done);
    at_buf_done(&a->body);
}

static void wait_ns(struct fixture *f, int64_t ns)
{
    int64_t end = at_sys_mono_ns(at_loop_sys(f->loop)) + ns;
    TURN_UNTIL(f->loop, at_sys_mono_ns(at_loop_sys(f->loop)) >= end);
}

static void gets_and_posts_on_one_connection(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, NULL, NULL);
    for (int i = 0; i < 20; i++) {
        struct answer a = {0};
        call(&f, &a,
             (struct at_http_call){.method = AT_HTTP_POST,
                                   .target = "/echo",
                                   .body = "hey",
                                   .body_len = 3,
                                   .headers = "X-A: b\r\n"});
        TURN_UNTIL(f.loop, a.done);
        assert_int_equal(a.rc, AT_OK);
        assert_int_equal(a.status, 200);
        assert_string_equal(a.body.data, "hey");
        at_buf_done(&a.body);
        struct answer b = {0};
        call(&f, &b, (struct at_http_call){.target = "/stream"});
        TURN_UNTIL(f.loop, b.done);
        assert_int_equal(b.body.len, 1000);
        at_buf_done(&b.body);
        if (i == 0) {
            wait_ns(&f, AT_HTTP_REST_NS + 50 * AT_MS); /* the answer came in chunks */
        }
        struct answer h = {0};
        call_and_wait(&f, &h, (struct at_http_call){.method = AT_HTTP_HEAD, .target = "/stream"});
        assert_int_equal(h.rc, AT_OK);
    }
    assert_int_equal(at_http_server_connections(f.server), 1);
    stop(&f);
}

static void queues_calls_past_the_maximum_of_connections(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, NULL,
          &(struct at_http_client_options){.connections_per_address_max = 2, .waiting_max = 6});
    struct answer a[10] = {0};
    for (size_t i = 0; i < 10; i++) {
        call(&f, &a[i], (struct at_http_call){.target = "/x"});
    }
    for (size_t i = 0; i < 10; i++) {
        TURN_UNTIL(f.loop, a[i].done);
        assert_int_equal(a[i].rc, i < 8 ? AT_OK : AT_EXHAUSTED);
        assert_int_equal(a[i].sent, i < 8);
    }
    assert_true(at_http_server_connections(f.server) <= 2);
    stop(&f);
}

static void says_that_nothing_was_sent_when_connecting_fails(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, NULL, NULL);
    char *addr = at_strdup(at_http_server_addr(f.server));
    at_http_server_free(f.server);
    f.server = NULL;
    struct answer a = {0};
    call_and_wait(&f, &a,
                  (struct at_http_call){.addr = addr, .method = AT_HTTP_POST, .target = "/"});
    assert_int_equal(a.rc, AT_UNAVAILABLE);
    assert_false(a.sent);
    assert_non_null(strstr(a.err.msg, addr));
    at_free(addr);
    stop(&f);
}

static void times_out_and_closes_the_connection(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, NULL, NULL);
    struct answer a = {0};
    call_and_wait(&f, &a, (struct at_http_call){.target = "/later", .timeout_ns = 30000000});
    assert_int_equal(a.rc, AT_TIMEOUT);
    assert_true(a.sent);
    TURN_UNTIL(f.loop, f.gone == 1);
    struct answer b = {0};
    call_and_wait(&f, &b,
                  (struct at_http_call){.target = "/later", .first_byte_timeout_ns = 30000000});
    assert_int_equal(b.rc, AT_TIMEOUT);
    TURN_UNTIL(f.loop, f.gone == 2);
    stop(&f);
}

static void cancels_at_any_time(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, NULL, &(struct at_http_client_options){.connections_per_address_max = 1});
    struct answer at_once = {0}, waiting = {0}, later = {0}, inside = {.cancel_on_body = true};
    call(&f, &at_once, (struct at_http_call){.target = "/x"});
    call(&f, &waiting, (struct at_http_call){.target = "/x"});
    at_http_call_cancel(f.client, waiting.id);
    assert_int_equal(waiting.rc, AT_CANCELLED);
    at_http_call_cancel(f.client, at_once.id);
    assert_int_equal(at_once.rc, AT_CANCELLED);
    at_http_call_cancel(f.client, at_once.id); /* stale */
    call(&f, &later, (struct at_http_call){.target = "/later"});
    TURN_UNTIL(f.loop, f.pending != NULL);
    at_http_call_cancel(f.client, later.id);
    assert_int_equal(later.rc, AT_CANCELLED);
    TURN_UNTIL(f.loop, f.gone == 1);
    call(&f, &inside, (struct at_http_call){.target = "/stream"});
    TURN_UNTIL(f.loop, inside.done);
    assert_int_equal(inside.rc, AT_CANCELLED);
    at_buf_done(&inside.body);
    struct answer open = {0};
    call(&f, &open, (struct at_http_call){.target = "/later"});
    TURN_UNTIL(f.loop, f.pending != NULL);
    at_http_client_free(f.client);
    assert_int_equal(open.rc, AT_CANCELLED);
    f.client = NULL;
    stop(&f);
}

static void may_be_freed_within_a_callback(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, NULL, NULL);
    struct answer a = {.free_client = true}, other = {0};
    call(&f, &other, (struct at_http_call){.target = "/later"});
    call(&f, &a, (struct at_http_call){.target = "/stream"});
    TURN_UNTIL(f.loop, a.done);
    assert_int_equal(a.rc, AT_OK);
    assert_int_equal(other.rc, AT_CANCELLED);
    at_buf_done(&a.body);
    stop(&f);
}

static void pauses_an_answer(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, NULL, NULL);
    struct answer a = {.pause_on_head = true};
    call(&f, &a, (struct at_http_call){.target = "/stream"});
    TURN_UNTIL(f.loop, a.head_seen);
    for (int i = 0; i < 5; i++) {
        at_loop_turn(f.loop, at_sys_mono_ns(at_loop_sys(f.loop)) + 1000000);
    }
    assert_int_equal(a.body.len, 0);
    assert_false(a.done);
    at_http_call_pause(f.client, a.id, false);
    TURN_UNTIL(f.loop, a.done);
    assert_int_equal(a.rc, AT_OK);
    assert_int_equal(a.body.len, 1000);
    at_buf_done(&a.body);
    stop(&f);
}

/* --- a peer that follows a script: each connection gets its text once a request came --- */

struct script {
    struct at_loop *loop;
    int fd;
    char addr[128];
    const char *const *texts; /* per request; NULL: close without a byte */
    size_t at;
    struct script_conn {
        struct script *script;
        struct at_stream *stream;
    } conns[8];
    size_t n_requests;
};

static size_t script_on_data(void *ctx, const char *data, size_t len)
{
    struct script_conn *c = ctx;
    (void)data;
    const char *text = c->script->texts[c->script->n_requests++];
    if (text == NULL) {
        at_stream_free(c->stream);
        c->stream = NULL;
        return len;
    }
    assert_int_equal(at_stream_write(c->stream, text, strlen(text)), AT_OK);
    if (strstr(text, "EOF") != NULL) {
        at_stream_end(c->stream);
    }
    return len;
}

static void script_on_close(void *ctx, enum at_rc rc, const struct at_err *err)
{
    struct script_conn *c = ctx;
    (void)rc, (void)err;
    c->stream = NULL;
}

static void script_on_accept(void *ctx, int fd, unsigned events)
{
    struct script *s = ctx;
    char peer[128];
    int client;
    (void)events;
    if (at_sock_accept(fd, &client, peer) == AT_OK) {
        struct script_conn *c = &s->conns[s->at++];
        struct at_stream_events ev = {
            .ctx = c, .on_data = script_on_data, .on_close = script_on_close};
        c->script = s;
        c->stream = at_stream_accept_take(s->loop, client, NULL, &ev);
    }
}

static void script_start(struct script *s, struct at_loop *loop, const char *const *texts)
{
    *s = (struct script){.loop = loop, .texts = texts};
    assert_int_equal(at_sock_listen("127.0.0.1:0", 16, false, &s->fd, s->addr, NULL), AT_OK);
    at_loop_watch(loop, s->fd, AT_LOOP_READ, script_on_accept, s);
}

static void script_stop(struct script *s)
{
    for (size_t i = 0; i < s->at; i++) {
        at_stream_free(s->conns[i].stream);
    }
    at_sock_close(s->fd);
}

#define ONE "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1"

static void retries_once_on_a_stale_connection(void **state)
{
    (void)state;
    static const char *const GET[] = {ONE, NULL, ONE};
    static const char *const POST[] = {ONE, NULL, ONE};
    static const char *const TWICE[] = {ONE, NULL, NULL, ONE};
    static const struct {
        const char *const *texts;
        enum at_http_method method;
        enum at_rc rc;
        size_t requests;
    } CASES[] = {{GET, AT_HTTP_GET, AT_OK, 3},
                 {POST, AT_HTTP_POST, AT_UNAVAILABLE, 2},
                 {TWICE, AT_HTTP_GET, AT_UNAVAILABLE, 3}};
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        struct fixture f;
        struct script s;
        start(&f, NULL, NULL);
        script_start(&s, f.loop, CASES[i].texts);
        struct answer a = {0}, b = {0};
        call_and_wait(&f, &a, (struct at_http_call){.addr = s.addr, .target = "/"});
        assert_int_equal(a.rc, AT_OK);
        call_and_wait(
            &f, &b,
            (struct at_http_call){.addr = s.addr, .target = "/", .method = CASES[i].method});
        assert_int_equal(b.rc, CASES[i].rc);
        assert_true(b.sent);
        assert_int_equal(s.n_requests, CASES[i].requests);
        script_stop(&s);
        stop(&f);
    }
}

struct chain {
    struct fixture *f;
    struct script *s;
    struct answer second;
};

static void ask_again(void *ctx, enum at_rc rc, bool bytes_sent, const struct at_err *err)
{
    struct chain *c = ctx;
    (void)bytes_sent, (void)err;
    assert_int_equal(rc, AT_OK);
    struct at_http_call call = {.addr = c->s->addr,
                                .method = AT_HTTP_POST,
                                .target = "/",
                                .body = "once",
                                .body_len = 4,
                                .ctx = &c->second,
                                .on_head = on_head,
                                .on_body = on_body,
                                .on_done = on_done};
    c->second.f = c->f;
    c->second.id = at_http_call(c->f->client, &call);
}

/* The peer closes behind its answer without saying so, and the next request is on its way before
 * that is seen: the peer cannot have read it, so that even a POST is sent again, and comes once. */
static void a_request_that_met_a_closed_connection_is_sent_again(void **state)
{
    (void)state;
    static const char *const TEXTS[] = {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nEOF", ONE};
    struct fixture f;
    struct script s;
    start(&f, NULL, NULL);
    script_start(&s, f.loop, TEXTS);
    struct chain c = {.f = &f, .s = &s};
    struct at_http_call first = {.addr = s.addr, .target = "/", .ctx = &c, .on_done = ask_again};
    at_http_call(f.client, &first);
    TURN_UNTIL(f.loop, c.second.done);
    assert_int_equal(c.second.rc, AT_OK);
    assert_int_equal(s.n_requests, 2);
    at_buf_done(&c.second.body);
    script_stop(&s);
    stop(&f);
}

#define CHUNKED "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n"
#define BRIEF "HTTP/1.1 200 OK\r\nKeep-Alive: max=9, timeout=1\r\nContent-Length: 1\r\n\r\n1"

static void ask_once(struct fixture *f, const struct script *s, size_t n_connections)
{
    struct answer a = {0};
    call_and_wait(f, &a,
                  (struct at_http_call){.addr = s->addr, .target = "/", .method = AT_HTTP_POST});
    assert_int_equal(a.rc, AT_OK);
    assert_int_equal(s->at, n_connections);
    at_buf_done(&a.body);
}

/* Behind an answer in chunks a connection is used again once it has shown that it stays, and then
 * at once; where one is closed soon after, it has to be shown again. */
static void connections_behind_chunks_rest_until_they_are_seen_to_stay(void **state)
{
    (void)state;
    static const char *const TEXTS[] = {CHUNKED, CHUNKED, CHUNKED, CHUNKED, CHUNKED, CHUNKED};
    struct fixture f;
    struct script s;
    start(&f, NULL, NULL);
    script_start(&s, f.loop, TEXTS);
    ask_once(&f, &s, 1);
    ask_once(&f, &s, 2);
    wait_ns(&f, AT_HTTP_REST_NS + 100 * AT_MS);
    ask_once(&f, &s, 2);
    ask_once(&f, &s, 2);
    at_stream_free(s.conns[1].stream); /* the one that was used last, right behind its answer */
    s.conns[1].stream = NULL;
    wait_ns(&f, 50 * AT_MS);
    at_stream_free(s.conns[0].stream);
    s.conns[0].stream = NULL;
    wait_ns(&f, 50 * AT_MS);
    ask_once(&f, &s, 3);
    ask_once(&f, &s, 4);
    script_stop(&s);
    stop(&f);
}

static void a_full_pool_gives_up_a_connection_that_rests(void **state)
{
    (void)state;
    static const char *const TEXTS[] = {CHUNKED, CHUNKED};
    struct at_http_client_options options = {.connections_per_address_max = 1};
    struct fixture f;
    struct script s;
    start(&f, NULL, &options);
    script_start(&s, f.loop, TEXTS);
    ask_once(&f, &s, 1);
    ask_once(&f, &s, 2);
    script_stop(&s);
    stop(&f);
}

/* The peer has said how long it keeps an idle connection: it is not used near that time's end. */
static void a_connection_is_left_before_the_peer_leaves_it(void **state)
{
    (void)state;
    static const char *const TEXTS[] = {BRIEF, BRIEF, BRIEF};
    struct fixture f;
    struct script s;
    start(&f, NULL, NULL);
    script_start(&s, f.loop, TEXTS);
    ask_once(&f, &s, 1);
    ask_once(&f, &s, 1);
    wait_ns(&f, 900 * AT_MS);
    ask_once(&f, &s, 2);
    script_stop(&s);
    stop(&f);
}

static void reads_answers_as_they_are_meant(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum at_rc rc;
        const char *body;
    } CASES[] = {
        {"HTTP/1.1 200 OK\r\n\r\nto the EOF", AT_OK, "to the EOF"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort EOF", AT_UPSTREAM, "short EOF"},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nEOF\r\n", AT_UPSTREAM, "EOF"},
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nX: y\r\n\r\n" ONE, AT_OK, "1"},
        {"HTTP/1.1 101 Switching Protocols\r\n\r\n", AT_UPSTREAM, NULL},
        {"SSH-2.0-OpenSSH_9\r\n", AT_UPSTREAM, NULL},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n11", AT_UPSTREAM, NULL},
        {"HTTP/1.1 200 EOF in the head", AT_UPSTREAM, NULL},
        {ONE "surplus", AT_OK, "1"},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        struct fixture f;
        struct script s;
        const char *const texts[] = {CASES[i].text};
        start(&f, NULL, NULL);
        script_start(&s, f.loop, texts);
        struct answer a = {0};
        call(&f, &a, (struct at_http_call){.addr = s.addr, .target = "/", .method = AT_HTTP_POST});
        TURN_UNTIL(f.loop, a.done);
        if (a.rc != CASES[i].rc) {
            print_error("%s -> %s: %s\n", CASES[i].text, at_rc_name(a.rc), a.err.msg);
        }
        assert_int_equal(a.rc, CASES[i].rc);
        if (CASES[i].body != NULL) {
            assert_string_equal(a.body.data, CASES[i].body);
        }
        at_buf_done(&a.body);
        script_stop(&s);
        stop(&f);
    }
}

/* --- TLS --- */

struct certs {
    struct kit_cert ca, other_ca, server, client, stranger;
    char pin[65];
};

static int make_certs(void **state)
{
    struct certs *c = AT_NEW(struct certs);
    c->ca = kit_cert_new(NULL, "test CA", NULL);
    c->other_ca = kit_cert_new(NULL, "other CA", NULL);
    c->server = kit_cert_new(&c->ca, "server", NULL);
    c->client = kit_cert_new(&c->ca, "alice", "team");
    c->stranger = kit_cert_new(&c->other_ca, "mallory", "system:masters");
    unsigned char *der = NULL;
    int len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(c->ca.cert), &der);
    at_sha256_hex(der, (size_t)len, c->pin);
    OPENSSL_free(der);
    *state = c;
    return 0;
}

static int drop_certs(void **state)
{
    struct certs *c = *state;
    kit_cert_done(&c->ca);
    kit_cert_done(&c->other_ca);
    kit_cert_done(&c->server);
    kit_cert_done(&c->client);
    kit_cert_done(&c->stranger);
    at_free(c);
    return 0;
}

static struct at_tls_config *config(struct at_tls_options o)
{
    struct at_tls_config *tls = NULL;
    struct at_err err = {0};
    enum at_rc rc = at_tls_config_new(&o, &tls, &err);
    if (rc != AT_OK) {
        print_error("%s\n", err.msg);
    }
    assert_int_equal(rc, AT_OK);
    return tls;
}

static struct at_tls_config *server_config(const struct certs *c, bool with_ca)
{
    return config((struct at_tls_options){.is_server = true,
                                          .cert_pem = c->server.cert_pem,
                                          .key_pem = c->server.key_pem,
                                          .ca_pem = with_ca ? c->ca.cert_pem : NULL});
}

static void talks_tls_and_keeps_the_connection(void **state)
{
    struct certs *c = *state;
    struct fixture f;
    struct at_tls_config *server = server_config(c, false);
    struct at_tls_config *client =
        config((struct at_tls_options){.ca_pem = c->ca.cert_pem, .verify_peer = true});
    start(&f, server, NULL);
    size_t len = (size_t)3 << 20;
    char *big = at_alloc(len);
    memset(big, 'b', len);
    for (int i = 0; i < 3; i++) {
        struct answer a = {0};
        call(&f, &a,
             (struct at_http_call){.tls = client,
                                   .target = "/echo",
                                   .method = AT_HTTP_POST,
                                   .body = big,
                                   .body_len = i == 1 ? len : 3});
        TURN_UNTIL(f.loop, a.done);
        assert_int_equal(a.rc, AT_OK);
        assert_int_equal(a.body.len, i == 1 ? len : 3);
        at_buf_done(&a.body);
    }
    assert_int_equal(at_http_server_connections(f.server), 1);
    assert_string_equal(f.peer_name, "");
    at_free(big);
    stop(&f);
    at_tls_config_unref(server);
    at_tls_config_unref(client);
}

static void knows_who_shows_a_certificate(void **state)
{
    struct certs *c = *state;
    struct fixture f;
    struct at_tls_config *server = server_config(c, true);
    struct at_tls_config *client = config((struct at_tls_options){.ca_pem = c->ca.cert_pem,
                                                                  .cert_pem = c->client.cert_pem,
                                                                  .key_pem = c->client.key_pem,
                                                                  .verify_peer = true});
    struct at_tls_config *nobody =
        config((struct at_tls_options){.ca_pem = c->ca.cert_pem, .verify_peer = true});
    start(&f, server, NULL);
    struct answer a = {0}, b = {0};
    call_and_wait(&f, &a, (struct at_http_call){.tls = client, .target = "/"});
    assert_int_equal(a.rc, AT_OK);
    assert_string_equal(f.peer_name, "alice");
    assert_string_equal(f.peer_org, "team");
    call_and_wait(&f, &b, (struct at_http_call){.tls = nobody, .target = "/"});
    assert_int_equal(b.rc, AT_OK);
    assert_string_equal(f.peer_name, "");
    stop(&f);
    at_tls_config_unref(server);
    at_tls_config_unref(client);
    at_tls_config_unref(nobody);
}

static void refuses_strangers_on_both_sides(void **state)
{
    struct certs *c = *state;
    struct at_tls_config *server = server_config(c, true);
    struct at_tls_options clients[] = {
        {.ca_pem = c->other_ca.cert_pem, .verify_peer = true}, /* distrusts the server */
        {.ca_pem = c->ca.cert_pem, .verify_peer = true, .server_name = "wrong.example"},
        {.ca_pem = c->ca.cert_pem,
         .verify_peer = true,
         .cert_pem = c->stranger.cert_pem, /* is distrusted by it */
         .key_pem = c->stranger.key_pem},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(clients); i++) {
        struct fixture f;
        struct at_tls_config *client = config(clients[i]);
        start(&f, server, NULL);
        struct answer a = {0};
        call_and_wait(&f, &a, (struct at_http_call){.tls = client, .target = "/"});
        assert_int_not_equal(a.rc, AT_OK);
        assert_int_equal(f.requests, 0);
        if (i < 2) {
            assert_int_equal(a.rc, AT_UNAUTHENTICATED);
            assert_false(a.sent);
        }
        stop(&f);
        at_tls_config_unref(client);
    }
    at_tls_config_unref(server);
}

static void trusts_exactly_the_pinned_ca(void **state)
{
    struct certs *c = *state;
    struct at_tls_config *server = server_config(c, true);
    char wrong[65];
    memcpy(wrong, c->pin, sizeof wrong);
    wrong[0] = wrong[0] == '0' ? '1' : '0';
    char *prefixed = at_asprintf("sha256:%s", c->pin);
    const char *const pins[] = {c->pin, prefixed, wrong};
    for (size_t i = 0; i < AT_ARRAY_LEN(pins); i++) {
        struct fixture f;
        struct at_tls_config *client =
            config((struct at_tls_options){.ca_pin_sha256_hex = pins[i]});
        start(&f, server, NULL);
        struct answer a = {0};
        call_and_wait(&f, &a, (struct at_http_call){.tls = client, .target = "/"});
        assert_int_equal(a.rc, i < 2 ? AT_OK : AT_UNAUTHENTICATED);
        stop(&f);
        at_tls_config_unref(client);
    }
    struct at_tls_config *none = NULL;
    assert_int_equal(
        at_tls_config_new(&(struct at_tls_options){.ca_pin_sha256_hex = "abc"}, &none, NULL),
        AT_INVALID);
    at_free(prefixed);
    at_tls_config_unref(server);
}

static void survives_plain_bytes_on_a_tls_port(void **state)
{
    struct certs *c = *state;
    struct fixture f;
    struct raw raw;
    struct at_tls_config *server = server_config(c, false);
    start(&f, server, NULL);
    raw_connect(&raw, f.loop, at_http_server_addr(f.server), NULL);
    raw_send(&raw, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    TURN_UNTIL(f.loop, raw.closed && at_http_server_connections(f.server) == 0);
    raw_done(&raw);
    stop(&f);
    at_tls_config_unref(server);
}

static void calls_unix_sockets(void **state)
{
    (void)state;
    char *path = at_asprintf("/tmp/at-net-%d.sock", (int)getpid());
    char *addr = at_asprintf("unix:%s", path);
    struct fixture f = {.loop = kit_loop()};
    struct at_http_server_options o = {.listen = addr, .handler = handle, .ctx = &f};
    unlink(path);
    assert_int_equal(at_http_server_new(f.loop, &o, &f.server, NULL), AT_OK);
    f.client = at_http_client_new(f.loop, NULL);
    struct answer a = {0};
    call_and_wait(&f, &a, (struct at_http_call){.addr = addr, .target = "/stream"});
    assert_int_equal(a.rc, AT_OK);
    stop(&f);
    unlink(path);
    at_free(addr);
    at_free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gets_and_posts_on_one_connection),
        cmocka_unit_test(queues_calls_past_the_maximum_of_connections),
        cmocka_unit_test(says_that_nothing_was_sent_when_connecting_fails),
        cmocka_unit_test(times_out_and_closes_the_connection),
        cmocka_unit_test(cancels_at_any_time),
        cmocka_unit_test(may_be_freed_within_a_callback),
        cmocka_unit_test(pauses_an_answer),
        cmocka_unit_test(retries_once_on_a_stale_connection),
        cmocka_unit_test(a_request_that_met_a_closed_connection_is_sent_again),
        cmocka_unit_test(connections_behind_chunks_rest_until_they_are_seen_to_stay),
        cmocka_unit_test(a_full_pool_gives_up_a_connection_that_rests),
        cmocka_unit_test(a_connection_is_left_before_the_peer_leaves_it),
        cmocka_unit_test(reads_answers_as_they_are_meant),
        cmocka_unit_test(talks_tls_and_keeps_the_connection),
        cmocka_unit_test(knows_who_shows_a_certificate),
        cmocka_unit_test(refuses_strangers_on_both_sides),
        cmocka_unit_test(trusts_exactly_the_pinned_ca),
        cmocka_unit_test(survives_plain_bytes_on_a_tls_port),
        cmocka_unit_test(calls_unix_sockets),
    };
    return cmocka_run_group_tests(tests, make_certs, drop_certs);
}
