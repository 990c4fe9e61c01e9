/* Streams by themselves: pausing, hanging up, ending, limits. */
#include "net/kit_test.h"
#include "sys/socket.h"

#include <string.h>
#include <unistd.h>

struct end {
    struct at_stream *stream;
    struct at_buf got;
    size_t take_max; /* bytes taken per call; 0: all */
    size_t shown;    /* calls of on_data */
    bool pause_on_data, free_on_data, closed;
    size_t ended; /* calls of on_end */
    enum at_rc rc;
};

struct fixture {
    struct at_loop *loop;
    int listen_fd;
    at_watch_id watch;
    char addr[AT_ADDR_TEXT_BYTES_MAX];
    struct end a, b; /* a has connected, b was accepted */
};

static size_t on_data(void *ctx, const char *data, size_t len)
{
    struct end *e = ctx;
    size_t n = e->take_max != 0 && e->take_max < len ? e->take_max : len;
    e->shown++;
    assert_int_equal(at_buf_append(&e->got, data, n), AT_OK);
    if (e->pause_on_data) {
        at_stream_pause(e->stream);
    }
    if (e->free_on_data) {
        at_stream_free(e->stream);
        e->stream = NULL;
    }
    return n;
}

static void on_close(void *ctx, enum at_rc rc, const struct at_err *err)
{
    struct end *e = ctx;
    (void)err;
    e->closed = true;
    e->rc = rc;
    e->stream = NULL;
}

static void on_end(void *ctx)
{
    ((struct end *)ctx)->ended++;
}

static void on_accept(void *ctx, int fd, unsigned events)
{
    struct fixture *f = ctx;
    char peer[AT_ADDR_TEXT_BYTES_MAX];
    int client;
    (void)events;
    struct at_stream_events ev = {.ctx = &f->b, .on_data = on_data, .on_close = on_close};
    if (at_sock_accept(fd, &client, peer) == AT_OK) {
        f->b.stream = at_stream_accept_take(f->loop, client, NULL, &ev);
    }
}

static void start(struct fixture *f, const char *listen)
{
    *f = (struct fixture){.loop = kit_loop()};
    assert_int_equal(at_sock_listen(listen, 16, false, &f->listen_fd, f->addr, NULL), AT_OK);
    f->watch = at_loop_watch(f->loop, f->listen_fd, AT_LOOP_READ, on_accept, f);
    struct at_stream_events ev = {.ctx = &f->a, .on_data = on_data, .on_close = on_close};
    f->a.stream = at_stream_connect(f->loop, f->addr, NULL, NULL, KIT_WAIT_NS, &ev);
    TURN_UNTIL(f->loop, f->b.stream != NULL);
    while (at_stream_write(f->a.stream, "", 0) != AT_OK) {
        at_loop_turn(f->loop, at_sys_mono_ns(at_loop_sys(f->loop)) + 1000000);
    }
}

static void stop(struct fixture *f)
{
    at_stream_free(f->a.stream);
    at_stream_free(f->b.stream);
    at_buf_done(&f->a.got);
    at_buf_done(&f->b.got);
    at_loop_unwatch(f->loop, f->watch);
    at_sock_close(f->listen_fd);
    at_loop_free(f->loop);
}

static void turn_some(struct fixture *f)
{
    for (int i = 0; i < 5; i++) {
        at_loop_turn(f->loop, at_sys_mono_ns(at_loop_sys(f->loop)) + 1000000);
    }
}

static void shows_again_what_was_not_taken(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, "127.0.0.1:0");
    f.b.take_max = 2;
    assert_int_equal(at_stream_write(f.a.stream, "abcdef", 6), AT_OK);
    TURN_UNTIL(f.loop, f.b.got.len == 2);
    assert_int_equal(at_stream_write(f.a.stream, "gh", 2), AT_OK);
    TURN_UNTIL(f.loop, f.b.got.len == 4);
    at_stream_pause(f.b.stream);
    f.b.take_max = 0;
    at_stream_resume(f.b.stream);
    assert_int_equal(f.b.got.len, 4); /* from the loop, not from within */
    TURN_UNTIL(f.loop, f.b.got.len == 8);
    assert_string_equal(f.b.got.data, "abcdefgh");
    stop(&f);
}

static void shows_all_after_a_pause_although_the_peer_hung_up(void **state)
{
    (void)state;
    char unix_addr[64];
    snprintf(unix_addr, sizeof unix_addr, "unix:/tmp/at-stream-%d.sock", (int)getpid());
    const char *const addrs[] = {"127.0.0.1:0", unix_addr};
    for (size_t i = 0; i < AT_ARRAY_LEN(addrs); i++) {
        struct fixture f;
        start(&f, addrs[i]);
        f.b.take_max = 1;
        f.b.pause_on_data = true;
        assert_int_equal(at_stream_write(f.a.stream, "abcdef", 6), AT_OK);
        TURN_UNTIL(f.loop, f.b.got.len == 1);
        assert_int_equal(at_stream_write(f.a.stream, "ghi", 3), AT_OK);
        turn_some(&f);
        at_stream_free(f.a.stream);
        f.a.stream = NULL;
        turn_some(&f);
        assert_int_equal(f.b.shown, 1);
        assert_false(f.b.closed);
        f.b.take_max = 0;
        f.b.pause_on_data = false;
        at_stream_resume(f.b.stream);
        TURN_UNTIL(f.loop, f.b.closed);
        assert_string_equal(f.b.got.data, "abcdefghi");
        assert_int_equal(f.b.rc, AT_EOF);
        stop(&f);
    }
    unlink(unix_addr + strlen("unix:"));
}

static void sends_everything_before_it_ends(void **state)
{
    (void)state;
    struct fixture f;
    size_t len = (size_t)8 << 20;
    char *big = at_alloc(len);
    memset(big, 'z', len);
    start(&f, "127.0.0.1:0");
    at_stream_pause(f.b.stream);
    assert_int_equal(at_stream_write(f.a.stream, big, len), AT_OK);
    assert_true(at_stream_queued_bytes(f.a.stream) > 0);
    at_stream_end(f.a.stream);
    assert_int_equal(at_stream_write(f.a.stream, "x", 1), AT_UNAVAILABLE);
    turn_some(&f);
    at_stream_resume(f.b.stream);
    TURN_UNTIL(f.loop, f.b.closed);
    assert_int_equal(f.b.got.len, len);
    TURN_UNTIL(f.loop, f.a.closed);
    assert_int_equal(f.a.rc, AT_OK);
    at_free(big);
    stop(&f);
}

static void sends_on_when_the_peer_has_said_its_last(void **state)
{
    (void)state;
    struct fixture f;
    size_t len = (size_t)8 << 20;
    char *big = at_alloc(len);
    start(&f, "127.0.0.1:0");
    at_stream_pause(f.b.stream);
    assert_int_equal(at_stream_write(f.a.stream, big, len), AT_OK);
    at_stream_end(f.a.stream);
    at_sock_shutdown_write(at_stream_fd(f.b.stream));
    turn_some(&f);
    assert_false(f.a.closed);
    at_stream_resume(f.b.stream);
    TURN_UNTIL(f.loop, f.a.closed && f.b.closed);
    assert_int_equal(f.b.got.len, len);
    assert_int_equal(f.a.rc, AT_OK);
    at_free(big);
    stop(&f);
}

static void queues_no_more_than_its_limit(void **state)
{
    (void)state;
    struct fixture f;
    size_t len = (size_t)16 << 20;
    char *big = at_alloc(len);
    start(&f, "127.0.0.1:0");
    at_stream_pause(f.b.stream);
    enum at_rc rc = AT_OK;
    for (int i = 0; rc == AT_OK && i < 100; i++) {
        rc = at_stream_write(f.a.stream, big, len);
    }
    assert_int_equal(rc, AT_EXHAUSTED);
    assert_true(at_stream_queued_bytes(f.a.stream) <= AT_STREAM_QUEUE_BYTES_MAX);
    at_free(big);
    stop(&f);
}

static void may_be_freed_in_its_own_callback(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, "127.0.0.1:0");
    f.b.free_on_data = true;
    assert_int_equal(at_stream_write(f.a.stream, "x", 1), AT_OK);
    TURN_UNTIL(f.loop, f.a.closed);
    assert_false(f.b.closed);
    assert_null(f.b.stream);
    stop(&f);
}

static void tells_the_close_that_was_asked_for_from_the_loop(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, "127.0.0.1:0");
    at_stream_close(f.a.stream);
    assert_false(f.a.closed);
    assert_int_equal(at_stream_write(f.a.stream, "x", 1), AT_UNAVAILABLE);
    TURN_UNTIL(f.loop, f.a.closed && f.b.closed);
    assert_int_equal(f.a.rc, AT_CANCELLED);
    stop(&f);
}

static void sends_corked_pieces_together(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, "127.0.0.1:0");
    at_stream_cork(f.a.stream);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(at_stream_write(f.a.stream, "0123456789", 10), AT_OK);
    }
    turn_some(&f);
    assert_int_equal(f.b.shown, 0);
    at_stream_uncork(f.a.stream);
    TURN_UNTIL(f.loop, at_stream_queued_bytes(f.a.stream) == 0);
    TURN_UNTIL(f.loop, f.b.got.len == 100);
    assert_int_equal(f.b.shown, 1);
    stop(&f);
}

static void says_why_it_could_not_connect(void **state)
{
    (void)state;
    struct fixture f = {.loop = kit_loop()};
    struct at_stream_events ev = {.ctx = &f.a, .on_close = on_close};
    at_stream_connect(f.loop, "unix:/nonexistent/socket", NULL, NULL, KIT_WAIT_NS, &ev);
    assert_false(f.a.closed);
    TURN_UNTIL(f.loop, f.a.closed);
    assert_int_not_equal(f.a.rc, AT_OK);
    at_loop_free(f.loop);
}

static void want_end(struct end *e)
{
    struct at_stream_events ev = {
        .ctx = e, .on_data = on_data, .on_end = on_end, .on_close = on_close};
    at_stream_set_events(e->stream, &ev);
}

static void one_side_ends_and_the_other_goes_on(void **state)
{
    (void)state;
    static char block[3 << 20];
    struct fixture f;
    start(&f, "127.0.0.1:0");
    want_end(&f.a);
    want_end(&f.b);
    at_stream_pause(f.b.stream);
    memset(block, 'x', sizeof block);
    assert_int_equal(at_stream_write(f.a.stream, block, sizeof block), AT_OK);
    at_stream_end_half(f.a.stream); /* while most of it is still queued */
    assert_int_equal(at_stream_write(f.a.stream, "y", 1), AT_UNAVAILABLE);
    turn_some(&f);
    assert_int_equal(f.b.ended, 0);
    at_stream_resume(f.b.stream);
    TURN_UNTIL(f.loop, f.b.ended == 1);
    assert_int_equal(f.b.got.len, sizeof block);
    assert_false(f.a.closed || f.b.closed);
    for (int i = 0; i < 3; i++) { /* and back, long after the other side has ended */
        assert_int_equal(at_stream_write(f.b.stream, "answer", 6), AT_OK);
        TURN_UNTIL(f.loop, f.a.got.len == 6 * (size_t)(i + 1));
    }
    at_stream_end(f.b.stream);
    TURN_UNTIL(f.loop, f.b.closed && f.a.ended == 1);
    assert_int_equal(f.b.rc, AT_OK);
    assert_false(f.a.closed);
    at_stream_end(f.a.stream);
    TURN_UNTIL(f.loop, f.a.closed);
    assert_int_equal(f.a.rc, AT_OK);
    assert_int_equal(f.a.ended, 1);
    assert_int_equal(f.b.ended, 1);
    stop(&f);
}

static void a_peer_that_breaks_after_its_end_is_noticed(void **state)
{
    (void)state;
    static char block[1 << 20];
    struct fixture f;
    start(&f, "127.0.0.1:0");
    want_end(&f.b);
    at_stream_end_half(f.a.stream);
    TURN_UNTIL(f.loop, f.b.ended == 1);
    at_stream_pause(f.a.stream);
    assert_int_equal(at_stream_write(f.b.stream, block, sizeof block), AT_OK);
    turn_some(&f);
    at_stream_free(f.a.stream); /* with bytes unread: a reset */
    f.a.stream = NULL;
    while (!f.b.closed) {
        at_loop_turn(f.loop, at_sys_mono_ns(at_loop_sys(f.loop)) + 1000000);
        if (!f.b.closed) {
            (void)!at_stream_write(f.b.stream, "more", 4);
        }
    }
    assert_int_equal(f.b.rc, AT_UNAVAILABLE);
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shows_again_what_was_not_taken),
        cmocka_unit_test(one_side_ends_and_the_other_goes_on),
        cmocka_unit_test(a_peer_that_breaks_after_its_end_is_noticed),
        cmocka_unit_test(shows_all_after_a_pause_although_the_peer_hung_up),
        cmocka_unit_test(sends_everything_before_it_ends),
        cmocka_unit_test(sends_on_when_the_peer_has_said_its_last),
        cmocka_unit_test(queues_no_more_than_its_limit),
        cmocka_unit_test(may_be_freed_in_its_own_callback),
        cmocka_unit_test(tells_the_close_that_was_asked_for_from_the_loop),
        cmocka_unit_test(sends_corked_pieces_together),
        cmocka_unit_test(says_why_it_could_not_connect),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
