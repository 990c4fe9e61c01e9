#include "loop/loop.h"

#include "core/mem.h"
#include "core/units.h"
#include "loop/kit_test.h"
#include "loop/limits.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <cmocka.h>

static int make_loop(void **state)
{
    *state = kit_loop();
    return 0;
}

static int free_loop(void **state)
{
    at_loop_free(*state);
    return 0;
}

/* Letters, in the order in which callbacks ran. */
struct trace {
    struct at_loop *loop;
    char text[64];
    size_t n;
    at_timer_id victim;
    at_watch_id watch, other;
    int last_code, last_signal;
    unsigned last_events;
};

static void note(struct trace *t, char c)
{
    assert_true(t->n + 1 < sizeof t->text);
    t->text[t->n++] = c;
}

static void note_a(void *ctx)
{
    note(ctx, 'a');
}
static void note_b(void *ctx)
{
    note(ctx, 'b');
}
static void note_c(void *ctx)
{
    note(ctx, 'c');
}
static void stop(void *ctx)
{
    at_loop_stop(((struct trace *)ctx)->loop);
}

static void timers_fire_in_order_of_deadline_then_of_setting(void **state)
{
    struct trace t = {.loop = *state};
    at_loop_timer(t.loop, 3 * AT_NS_PER_MS, stop, &t);
    at_loop_timer(t.loop, 2 * AT_NS_PER_MS, note_c, &t);
    at_loop_timer(t.loop, 0, note_a, &t);
    at_loop_timer(t.loop, 0, note_b, &t);
    at_loop_run(t.loop);
    assert_string_equal(t.text, "abc");
}

static void cancel_victim(void *ctx)
{
    struct trace *t = ctx;
    at_loop_timer_cancel(t->loop, t->victim);
}

static void cancelled_timers_do_not_fire_and_old_ids_are_harmless(void **state)
{
    struct trace t = {.loop = *state};
    at_timer_id old = at_loop_timer(t.loop, 0, note_a, &t);
    at_loop_timer_cancel(t.loop, old);
    at_loop_timer(t.loop, 0, note_b, &t); /* takes the slot of the one cancelled */
    at_loop_timer_cancel(t.loop, old);
    at_loop_timer_cancel(t.loop, 0);
    at_loop_timer_cancel(t.loop, UINT64_MAX);
    at_loop_timer(t.loop, AT_NS_PER_MS, cancel_victim, &t);
    t.victim = at_loop_timer(t.loop, AT_NS_PER_MS, note_c, &t);
    at_loop_timer(t.loop, 3 * AT_NS_PER_MS, stop, &t);
    at_loop_run(t.loop);
    assert_string_equal(t.text, "b");
}

static void many_timers_come_out_sorted(void **state)
{
    struct at_loop *loop = *state;
    struct trace t = {.loop = loop};
    enum { N = 3000 };
    static at_timer_id ids[N];
    uint32_t r = 1;
    for (int i = 0; i < N; i++) {
        r = r * 1664525 + 1013904223;
        ids[i] = at_loop_timer(loop, r % (20 * AT_NS_PER_MS), i == 0 ? note_a : cancel_victim, &t);
    }
    for (int i = 1; i < N; i += 2) {
        at_loop_timer_cancel(loop, ids[i]);
    }
    at_loop_timer(loop, 30 * AT_NS_PER_MS, stop, &t);
    at_loop_run(loop);
    assert_string_equal(t.text, "a");
    assert_false(at_loop_turn(loop, 0)); /* nothing is left to wait for */
}

static void set_again(void *ctx)
{
    struct trace *t = ctx;
    note(t, 'r');
    if (t->n < 3) {
        at_loop_timer(t->loop, 0, set_again, t);
    } else {
        at_loop_stop(t->loop);
    }
}

static void a_timer_may_set_itself_anew(void **state)
{
    struct trace t = {.loop = *state};
    at_loop_timer(t.loop, 0, set_again, &t);
    at_loop_run(t.loop);
    assert_string_equal(t.text, "rrr");
}

static void on_readable(void *ctx, int fd, unsigned events)
{
    struct trace *t = ctx;
    char c;
    t->last_events = events;
    if (read(fd, &c, 1) == 1) {
        note(t, c);
    } else {
        note(t, '.');
        at_loop_unwatch(t->loop, t->watch);
        at_loop_stop(t->loop);
    }
}

static void descriptors_are_level_triggered_and_hangups_show(void **state)
{
    struct trace t = {.loop = *state};
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    t.watch = at_loop_watch(t.loop, pair[0], AT_LOOP_READ, on_readable, &t);
    assert_int_equal(write(pair[1], "xyz", 3), 3);
    close(pair[1]);
    at_loop_run(t.loop);
    assert_string_equal(t.text, "xyz.");
    assert_int_equal(t.last_events, AT_LOOP_READ | AT_LOOP_WRITE);
    at_loop_unwatch(t.loop, t.watch);
    assert_false(at_loop_turn(t.loop, 0));
    close(pair[0]);
}

static void drop_both(void *ctx, int fd, unsigned events)
{
    struct trace *t = ctx;
    (void)fd;
    (void)events;
    note(t, 'd');
    at_loop_unwatch(t->loop, t->watch);
    at_loop_unwatch(t->loop, t->other);
}

static void a_watch_removed_in_the_same_turn_is_not_called(void **state)
{
    struct trace t = {.loop = *state};
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    t.watch = at_loop_watch(t.loop, pair[0], AT_LOOP_WRITE, drop_both, &t);
    t.other = at_loop_watch(t.loop, pair[1], AT_LOOP_WRITE, drop_both, &t);
    assert_true(at_loop_turn(t.loop, 0));
    assert_string_equal(t.text, "d");
    close(pair[0]);
    close(pair[1]);
}

static void a_watch_without_interest_does_not_spin(void **state)
{
    struct trace t = {.loop = *state};
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    t.watch = at_loop_watch(t.loop, pair[0], AT_LOOP_READ, on_readable, &t);
    at_loop_watch_change(t.loop, t.watch, 0);
    close(pair[1]);
    at_loop_turn(t.loop, 0);
    assert_string_equal(t.text, "");
    at_loop_watch_change(t.loop, t.watch, AT_LOOP_READ);
    at_loop_turn(t.loop, at_sys_mono_ns(at_sys_real()) + 5 * AT_NS_PER_S);
    assert_string_equal(t.text, ".");
    close(pair[0]);
}

static void on_signal(void *ctx, int signal_number)
{
    struct trace *t = ctx;
    note(t, signal_number == SIGUSR1 ? '1' : '2');
    if (t->n == 2) {
        at_loop_stop(t->loop);
    }
}

static void signals_arrive_on_the_loop(void **state)
{
    struct trace t = {.loop = *state};
    struct at_err err;
    assert_int_equal(at_loop_signal(t.loop, SIGUSR1, on_signal, &t, &err), AT_OK);
    assert_int_equal(at_loop_signal(t.loop, SIGUSR2, on_signal, &t, &err), AT_OK);
    kill(getpid(), SIGUSR1);
    kill(getpid(), SIGUSR2);
    at_loop_run(t.loop);
    assert_string_equal(t.text, "12");
}

static void on_child(void *ctx, pid_t pid, int exit_code, int signal_number)
{
    struct trace *t = ctx;
    assert_true(pid > 0);
    t->last_code = exit_code;
    t->last_signal = signal_number;
    at_loop_stop(t->loop);
}

static struct at_process start_child(const char *script)
{
    struct at_process p;
    struct at_process_options options = {.argv = (const char *[]){"sh", "-c", script, NULL},
                                         .stdin_fd = -1,
                                         .stdout_fd = -1,
                                         .stderr_fd = -1,
                                         .uid = -1,
                                         .gid = -1};
    assert_int_equal(at_process_start(&options, true, &p, NULL, NULL), AT_OK);
    return p;
}

static void the_end_of_children_is_told_with_code_and_signal(void **state)
{
    struct trace t = {.loop = *state};
    struct at_process p = start_child("exit 5");
    assert_int_equal(at_loop_child(t.loop, &p, on_child, &t), AT_OK);
    at_loop_run(t.loop);
    assert_int_equal(t.last_code, 5);
    assert_int_equal(t.last_signal, 0);
    p = start_child("kill -KILL $$");
    assert_int_equal(at_loop_child(t.loop, &p, on_child, &t), AT_OK);
    at_loop_run(t.loop);
    assert_int_equal(t.last_signal, SIGKILL);
}

static void the_end_of_a_stranger_is_told_as_unknown(void **state)
{
    struct trace t = {.loop = *state};
    /* A grandchild: its parent prints its pid and goes. */
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    struct at_process p;
    struct at_process_options options = {
        .argv = (const char *[]){"sh", "-c", "sleep 0.2 2>/dev/null >/dev/null & echo $!", NULL},
        .stdin_fd = -1,
        .stdout_fd = fds[1],
        .stderr_fd = -1,
        .uid = -1,
        .gid = -1};
    assert_int_equal(at_process_start(&options, true, &p, NULL, NULL), AT_OK);
    close(fds[1]);
    char text[32] = "";
    assert_true(read(fds[0], text, sizeof text - 1) > 0);
    close(fds[0]);
    pid_t pid = atoi(text);
    struct at_process other;
    assert_int_equal(at_process_adopt(pid, at_process_start_ticks(pid), &other, NULL), AT_OK);
    assert_int_equal(at_loop_child(t.loop, &p, on_child, &t), AT_OK);
    at_loop_run(t.loop);
    assert_int_equal(at_loop_child(t.loop, &other, on_child, &t), AT_OK);
    at_loop_run(t.loop);
    assert_int_equal(t.last_code, -1);
    assert_int_equal(t.last_signal, -1);
}

static void posts_keep_their_order_and_are_bounded(void **state)
{
    struct trace t = {.loop = *state};
    assert_int_equal(at_loop_post(t.loop, note_a, &t), AT_OK);
    assert_int_equal(at_loop_post(t.loop, note_b, &t), AT_OK);
    assert_int_equal(at_loop_post(t.loop, stop, &t), AT_OK);
    at_loop_run(t.loop);
    assert_string_equal(t.text, "ab");
    for (int i = 0; i < AT_LOOP_POSTS_MAX; i++) {
        assert_int_equal(at_loop_post(t.loop, stop, &t), AT_OK);
    }
    assert_int_equal(at_loop_post(t.loop, stop, &t), AT_EXHAUSTED);
}

static void take_one(void *ctx, int fd, unsigned events)
{
    uint64_t expired;
    (void)events;
    assert_int_equal(read(fd, &expired, sizeof expired), sizeof expired);
    ++*(int *)ctx;
}

/* How often this thread has gone to sleep. */
static long sleeps(void)
{
    struct rusage use;
    assert_int_equal(getrusage(RUSAGE_THREAD, &use), 0);
    return use.ru_nvcsw;
}

static void a_spinning_loop_finds_what_comes_without_sleeping(void **state)
{
    (void)state;
    struct at_loop *loop = kit_loop();
    struct itimerspec each = {{0, 20 * AT_NS_PER_MS}, {0, 1}};
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), n = 0;
    at_watch_id id = at_loop_watch(loop, fd, AT_LOOP_READ, take_one, &n);
    at_loop_set_spin(loop, 10 * AT_NS_PER_S);
    assert_int_equal(timerfd_settime(fd, 0, &each, NULL), 0);
    while (n == 0) {
        at_loop_turn(loop, INT64_MAX);
    }
    long before = sleeps();
    while (n == 1) {
        at_loop_turn(loop, INT64_MAX);
    }
    assert_int_equal(sleeps(), before);
    /* A deadline bounds it, and a loop to which nothing came goes to sleep. */
    assert_int_equal(timerfd_settime(fd, 0, &(struct itimerspec){0}, NULL), 0);
    int64_t deadline = at_sys_mono_ns(at_sys_real()) + 5 * AT_NS_PER_MS;
    at_loop_turn(loop, deadline);
    assert_true(at_sys_mono_ns(at_sys_real()) >= deadline);
    before = sleeps();
    at_loop_turn(loop, at_sys_mono_ns(at_sys_real()) + 5 * AT_NS_PER_MS);
    assert_true(sleeps() > before);
    at_loop_unwatch(loop, id);
    close(fd);
    at_loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_spinning_loop_finds_what_comes_without_sleeping),
#define WITH_LOOP(t) cmocka_unit_test_setup_teardown(t, make_loop, free_loop)
        WITH_LOOP(timers_fire_in_order_of_deadline_then_of_setting),
        WITH_LOOP(cancelled_timers_do_not_fire_and_old_ids_are_harmless),
        WITH_LOOP(many_timers_come_out_sorted),
        WITH_LOOP(a_timer_may_set_itself_anew),
        WITH_LOOP(descriptors_are_level_triggered_and_hangups_show),
        WITH_LOOP(a_watch_removed_in_the_same_turn_is_not_called),
        WITH_LOOP(a_watch_without_interest_does_not_spin),
        WITH_LOOP(signals_arrive_on_the_loop),
        WITH_LOOP(the_end_of_children_is_told_with_code_and_signal),
        WITH_LOOP(the_end_of_a_stranger_is_told_as_unknown),
        WITH_LOOP(posts_keep_their_order_and_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
