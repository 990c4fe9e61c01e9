#include "sim/sim.h"

#include "core/mem.h"
#include "core/units.h"
#include "loop/loop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void stop_loop(void *ctx)
{
    at_loop_stop(ctx);
}

static void a_timer_of_one_hour_is_over_at_once(void **state)
{
    (void)state;
    int64_t real_start = at_sys_mono_ns(at_sys_real());
    struct at_sim *sim = at_sim_new(1);
    struct at_loop *loop = at_loop_new(at_sim_sys(sim));
    at_loop_timer(loop, 3600 * AT_NS_PER_S, stop_loop, loop);
    at_loop_run(loop);
    assert_int_equal(at_sim_now_ns(sim), 3600 * AT_NS_PER_S);
    assert_int_equal(at_sys_wall_ns(at_sim_sys(sim)), AT_SIM_WALL_START_NS + 3600 * AT_NS_PER_S);
    assert_true(at_sys_mono_ns(at_sys_real()) - real_start < 10 * AT_NS_PER_S);
    at_loop_free(loop);
    at_sim_free(sim);
}

#define STEPS 2000

/* A walk of timers, each set after a random time, that writes down what happened when. */
struct walk {
    struct at_loop *loop;
    char *journal;
    size_t len, room;
    int steps;
};

static void step(void *ctx)
{
    struct walk *walk = ctx;
    uint32_t r;
    at_sys_random(at_loop_sys(walk->loop), &r, sizeof r);
    int n = snprintf(walk->journal + walk->len, walk->room - walk->len, "%lld %u\n",
                     (long long)at_loop_now_ns(walk->loop), r);
    walk->len += (size_t)n;
    if (++walk->steps >= STEPS) {
        at_loop_stop(walk->loop);
        return;
    }
    at_loop_timer(walk->loop, r, step, walk);
    if (r % 3 == 0) {
        at_loop_timer_cancel(walk->loop, at_loop_timer(walk->loop, r / 2, step, walk));
    }
}

static char *run_walk(uint64_t seed)
{
    struct at_sim *sim = at_sim_new(seed);
    struct walk walk = {.loop = at_loop_new(at_sim_sys(sim)), .room = STEPS * 40};
    walk.journal = at_alloc(walk.room);
    for (int i = 0; i < 5; i++) {
        at_loop_timer(walk.loop, 0, step, &walk);
    }
    at_loop_run(walk.loop);
    at_loop_free(walk.loop);
    at_sim_free(sim);
    return walk.journal;
}

static void the_same_seed_gives_the_same_run(void **state)
{
    (void)state;
    AT_CLEANUP(at_cleanup_free) char *a = run_walk(42);
    AT_CLEANUP(at_cleanup_free) char *b = run_walk(42);
    AT_CLEANUP(at_cleanup_free) char *c = run_walk(43);
    assert_true(strlen(a) > STEPS);
    assert_string_equal(a, b);
    assert_string_not_equal(a, c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_timer_of_one_hour_is_over_at_once),
        cmocka_unit_test(the_same_seed_gives_the_same_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
