/* Sockets driven by completions, on io_uring; skipped where the kernel does not allow it. */
#include "core/mem.h"
#include "loop/io.h"
#include "loop/limits.h"

#include <errno.h>
#include <seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define WAIT_NS ((int64_t)10000000000)

struct end {
    struct at_loop *loop;
    struct at_io *io;
    int fd;
    struct at_buf got;
    enum at_rc ended;
    unsigned sent, failed, calls;
    bool close_on_data;
};

static void on_received(void *ctx, enum at_rc rc, const char *data, size_t len)
{
    struct end *e = ctx;
    e->calls++;
    if (rc != AT_OK) {
        e->ended = rc;
        return;
    }
    assert_int_equal(at_buf_append(&e->got, data, len), AT_OK);
    if (e->close_on_data) {
        at_io_close(e->io);
        close(e->fd);
        e->io = NULL;
    }
}

static void on_sent(void *ctx, enum at_rc rc)
{
    struct end *e = ctx;
    *(rc == AT_OK ? &e->sent : &e->failed) += 1;
}

static void turn_until(struct at_loop *loop, const size_t *value, size_t wanted)
{
    int64_t end = at_sys_mono_ns(at_sys_real()) + WAIT_NS;
    while (*value < wanted) {
        assert_true(at_sys_mono_ns(at_sys_real()) < end);
        at_loop_turn(loop, at_sys_mono_ns(at_sys_real()) + 20000000);
    }
}

static void turns(struct at_loop *loop, int n)
{
    for (int i = 0; i < n; i++) {
        at_loop_turn(loop, at_sys_mono_ns(at_sys_real()) + 2000000);
    }
}

static void turn_until_ended(struct end *e)
{
    int64_t end = at_sys_mono_ns(at_sys_real()) + WAIT_NS;
    while (e->ended == AT_OK) {
        assert_true(at_sys_mono_ns(at_sys_real()) < end);
        at_loop_turn(e->loop, at_sys_mono_ns(at_sys_real()) + 20000000);
    }
}

/* e's other end; e->io receives. */
static int open_end(struct end *e, struct at_loop *loop)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    struct at_io_events events = {.ctx = e, .on_received = on_received, .on_sent = on_sent};
    *e = (struct end){.loop = loop, .fd = fds[0]};
    e->io = at_io_open(loop, fds[0], &events);
    return fds[1];
}

static void close_end(struct end *e)
{
    if (e->io != NULL) {
        at_io_close(e->io);
        close(e->fd);
    }
    at_buf_done(&e->got);
}

static struct at_loop *loop_or_skip(void)
{
    struct at_loop *loop;
    struct at_err err;
    if (at_loop_new_on(at_sys_real(), AT_LOOP_IO_URING, &loop, &err) != AT_OK) {
        print_message("%s\n", err.msg);
        skip();
    }
    assert_int_equal(at_loop_backend(loop), AT_LOOP_IO_URING);
    return loop;
}

static void brings_bytes_and_the_end(void **state)
{
    (void)state;
    struct at_loop *loop = loop_or_skip();
    struct end e;
    int peer = open_end(&e, loop);
    assert_int_equal(write(peer, "one", 3), 3);
    turn_until(loop, &e.got.len, 3);
    assert_int_equal(write(peer, "two", 3), 3);
    turn_until(loop, &e.got.len, 6);
    assert_string_equal(e.got.data, "onetwo");
    close(peer);
    turn_until_ended(&e);
    assert_int_equal(e.ended, AT_EOF);
    close_end(&e);
    at_loop_free(loop);
}

static void sends_all_of_what_does_not_fit_at_once(void **state)
{
    (void)state;
    enum { LEN = 4 << 20 };
    struct at_loop *loop = loop_or_skip();
    struct end e;
    int peer = open_end(&e, loop);
    struct at_buf out = {0};
    char *place;
    assert_int_equal(at_buf_reserve(&out, LEN, &place), AT_OK);
    for (size_t i = 0; i < LEN; i++) {
        place[i] = (char)(i * 31 + i / 977);
    }
    at_buf_commit(&out, LEN);
    at_io_send_take(e.io, &out);
    assert_int_equal(out.len, 0);
    assert_int_equal(at_io_sending_bytes(e.io), LEN);
    size_t got = 0;
    while (got < LEN) {
        char buf[65536];
        turns(loop, 1);
        ssize_t n = read(peer, buf, sizeof buf);
        for (ssize_t i = 0; i < n; i++, got++) {
            assert_int_equal(buf[i], (char)(got * 31 + got / 977));
        }
    }
    turns(loop, 3);
    assert_int_equal(e.sent, 1);
    assert_int_equal(at_io_sending_bytes(e.io), 0);
    close(peer);
    close_end(&e);
    at_buf_done(&out);
    at_loop_free(loop);
}

static void stops_and_goes_on_receiving(void **state)
{
    (void)state;
    struct at_loop *loop = loop_or_skip();
    struct end e;
    int peer = open_end(&e, loop);
    turns(loop, 2);
    at_io_receive(e.io, false);
    turns(loop, 3);
    assert_int_equal(write(peer, "later", 5), 5);
    turns(loop, 5);
    assert_int_equal(e.calls, 0);
    at_io_receive(e.io, true);
    at_io_receive(e.io, false);
    at_io_receive(e.io, true);
    turn_until(loop, &e.got.len, 5);
    close(peer);
    close_end(&e);
    at_loop_free(loop);
}

/* More sockets with bytes in one turn than the loop has buffers. */
static void serves_more_sockets_than_it_has_buffers(void **state)
{
    (void)state;
    enum { N = AT_LOOP_BUFFERS + 100 };
    struct at_loop *loop = loop_or_skip();
    struct end *ends = at_alloc(N * sizeof *ends);
    int *peers = at_alloc(N * sizeof *peers);
    for (int i = 0; i < N; i++) {
        peers[i] = open_end(&ends[i], loop);
    }
    turns(loop, 5);
    for (int round = 1; round <= 3; round++) {
        for (int i = 0; i < N; i++) {
            assert_int_equal(write(peers[i], "x", 1), 1);
        }
        for (int i = 0; i < N; i++) {
            turn_until(loop, &ends[i].got.len, (size_t)round);
        }
    }
    for (int i = 0; i < N; i++) {
        assert_int_equal(ends[i].got.len, 3);
        assert_int_equal(ends[i].ended, AT_OK);
        close_end(&ends[i]);
        close(peers[i]);
    }
    turns(loop, 5);
    at_free(ends);
    at_free(peers);
    at_loop_free(loop);
}

static void nothing_comes_after_close_whenever_it_is(void **state)
{
    (void)state;
    struct at_loop *loop = loop_or_skip();
    struct end within, unsubmitted, busy;
    struct at_buf out = {0};
    int peers[3] = {open_end(&within, loop), open_end(&busy, loop)};
    within.close_on_data = true;
    turns(loop, 2);
    assert_int_equal(write(peers[0], "bye", 3), 3);
    turn_until(loop, &within.got.len, 3);
    /* A send that cannot end, since nobody reads. */
    char *place;
    assert_int_equal(at_buf_reserve(&out, 8 << 20, &place), AT_OK);
    memset(place, 'x', 8 << 20);
    at_buf_commit(&out, 8 << 20);
    at_io_send_take(busy.io, &out);
    turns(loop, 2);
    close_end(&busy);
    /* Its number is another's before the turn in which it was opened ends. */
    peers[2] = open_end(&unsubmitted, loop);
    close_end(&unsubmitted);
    struct end next;
    int next_peer = open_end(&next, loop);
    assert_int_equal(next.fd, unsubmitted.fd);
    assert_int_equal(write(next_peer, "mine", 4), 4);
    turn_until(loop, &next.got.len, 4);
    turns(loop, 5);
    assert_int_equal(within.calls, 1);
    assert_int_equal(busy.sent + busy.failed + busy.calls, 0);
    assert_int_equal(unsubmitted.calls, 0);
    char byte;
    assert_int_equal(read(peers[0], &byte, 1), 0); /* the kernel has let go of it */
    assert_int_equal(read(peers[2], &byte, 1), 0);
    for (size_t i = 0; i < 3; i++) {
        close(peers[i]);
    }
    close(next_peer);
    close_end(&within);
    close_end(&next);
    at_buf_done(&out);
    at_loop_free(loop);
}

static void tells_of_a_broken_peer(void **state)
{
    (void)state;
    struct at_loop *loop = loop_or_skip();
    struct end e;
    struct at_buf out = {0};
    int peer = open_end(&e, loop);
    close(peer);
    assert_int_equal(at_buf_append(&out, "x", 1), AT_OK);
    at_io_send_take(e.io, &out);
    turn_until_ended(&e);
    turns(loop, 2);
    assert_int_equal(e.failed, 1);
    close_end(&e);
    at_buf_done(&out);
    at_loop_free(loop);
}

static void note(void *ctx)
{
    (*(int *)ctx)++;
}

static void end_tasks_run_once_at_the_end_of_the_turn(void **state)
{
    (void)state;
    struct at_loop *loop = at_loop_new(at_sys_real());
    int ran = 0, other = 0;
    struct at_loop_task a = {.fn = note, .ctx = &ran}, b = {.fn = note, .ctx = &other};
    at_loop_at_end(loop, &a);
    at_loop_at_end(loop, &b);
    at_loop_at_end(loop, &a);
    at_loop_at_end_cancel(loop, &b);
    turns(loop, 2);
    assert_int_equal(ran, 1);
    assert_int_equal(other, 0);
    at_loop_free(loop);
}

static void backends_have_names_and_wrong_ones_are_refused(void **state)
{
    (void)state;
    enum at_loop_backend b;
    struct at_err err;
    assert_int_equal(at_loop_backend_parse("epoll", &b, &err), AT_OK);
    assert_int_equal(b, AT_LOOP_EPOLL);
    assert_string_equal(at_loop_backend_name(AT_LOOP_IO_URING), "io_uring");
    assert_int_equal(at_loop_backend_parse("kqueue", &b, &err), AT_INVALID);
    struct at_sys simulated = *at_sys_real();
    struct at_loop *loop;
    assert_int_equal(at_loop_new_on(&simulated, AT_LOOP_IO_URING, &loop, &err), AT_UNAVAILABLE);
    assert_int_equal(at_loop_new_on(&simulated, AT_LOOP_AUTO, &loop, &err), AT_OK);
    assert_int_equal(at_loop_backend(loop), AT_LOOP_EPOLL);
    at_loop_free(loop);
}

/* In a child, whose exit status says whether all was as it should be. */
static int in_a_sandbox(void)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    struct at_loop *loop = NULL;
    struct at_err err = {0};
    if (filter == NULL ||
        seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(io_uring_setup), 0) != 0 ||
        seccomp_load(filter) != 0) {
        return 1;
    }
    if (at_loop_new_on(at_sys_real(), AT_LOOP_IO_URING, &loop, &err) != AT_UNAVAILABLE ||
        strstr(err.msg, "sandbox") == NULL) {
        return 2;
    }
    if (at_loop_new_on(at_sys_real(), AT_LOOP_AUTO, &loop, &err) != AT_OK) {
        return 3;
    }
    return at_loop_backend(loop) == AT_LOOP_EPOLL ? 0 : 4;
}

static void falls_back_to_epoll_where_a_sandbox_forbids_io_uring(void **state)
{
    (void)state;
    int status = -1;
    pid_t pid = fork();
    if (pid == 0) {
        _exit(in_a_sandbox());
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(brings_bytes_and_the_end),
        cmocka_unit_test(sends_all_of_what_does_not_fit_at_once),
        cmocka_unit_test(stops_and_goes_on_receiving),
        cmocka_unit_test(serves_more_sockets_than_it_has_buffers),
        cmocka_unit_test(nothing_comes_after_close_whenever_it_is),
        cmocka_unit_test(tells_of_a_broken_peer),
        cmocka_unit_test(end_tasks_run_once_at_the_end_of_the_turn),
        cmocka_unit_test(falls_back_to_epoll_where_a_sandbox_forbids_io_uring),
        cmocka_unit_test(backends_have_names_and_wrong_ones_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
