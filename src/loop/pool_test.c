#include "loop/pool.h"

#include "core/mem.h"
#include "core/units.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define JOBS 1000

struct tally {
    struct at_loop *loop;
    pthread_t loop_thread;
    size_t done, wanted;
};

struct job {
    struct tally *tally;
    int value;
};

static void square(void *ctx)
{
    struct job *job = ctx;
    assert_false(pthread_equal(pthread_self(), job->tally->loop_thread));
    job->value *= job->value;
}

static void count(void *ctx)
{
    struct job *job = ctx;
    assert_true(pthread_equal(pthread_self(), job->tally->loop_thread));
    if (++job->tally->done == job->tally->wanted) {
        at_loop_stop(job->tally->loop);
    }
}

static void work_is_done_elsewhere_and_reported_here(void **state)
{
    (void)state;
    struct tally tally = {.loop = at_loop_new(at_sys_real()), .wanted = JOBS};
    tally.loop_thread = pthread_self();
    struct at_pool *pool = at_pool_new(4, JOBS);
    static struct job jobs[JOBS];
    for (int i = 0; i < JOBS; i++) {
        jobs[i] = (struct job){&tally, i};
        assert_int_equal(at_pool_submit(pool, tally.loop, square, count, &jobs[i]), AT_OK);
    }
    at_loop_run(tally.loop);
    for (int i = 0; i < JOBS; i++) {
        assert_int_equal(jobs[i].value, i * i);
    }
    assert_false(at_loop_turn(tally.loop, 0));
    at_pool_free(pool);
    at_loop_free(tally.loop);
}

struct gate {
    struct at_loop *loop;
    struct at_pool *pool;
    sem_t started, go;
    int ran;
};

static void wait_at_gate(void *ctx)
{
    struct gate *gate = ctx;
    sem_post(&gate->started);
    sem_wait(&gate->go);
    gate->ran++;
}

static void never(void *ctx)
{
    (void)ctx;
    abort();
}

/* Only after at_pool_free has begun, or what waits would be run. */
static void *open_gate(void *ctx)
{
    struct gate *gate = ctx;
    while (at_pool_submit(gate->pool, gate->loop, never, never, NULL) != AT_CANCELLED) {
        sched_yield();
    }
    sem_post(&((struct gate *)ctx)->go);
    return NULL;
}

static void a_full_queue_refuses_and_free_drops_what_waits(void **state)
{
    (void)state;
    struct at_loop *loop = at_loop_new(at_sys_real());
    struct at_pool *pool = at_pool_new(1, 2);
    struct gate gate = {.loop = loop, .pool = pool};
    sem_init(&gate.started, 0, 0);
    sem_init(&gate.go, 0, 0);
    assert_int_equal(at_pool_submit(pool, loop, wait_at_gate, NULL, &gate), AT_OK);
    sem_wait(&gate.started);
    assert_int_equal(at_pool_submit(pool, loop, never, never, NULL), AT_OK);
    assert_int_equal(at_pool_submit(pool, loop, never, never, NULL), AT_OK);
    assert_int_equal(at_pool_submit(pool, loop, never, never, NULL), AT_EXHAUSTED);
    pthread_t opener;
    assert_int_equal(pthread_create(&opener, NULL, open_gate, &gate), 0);
    at_pool_free(pool);
    pthread_join(opener, NULL);
    assert_int_equal(gate.ran, 1);
    at_loop_free(loop);
    sem_destroy(&gate.started);
    sem_destroy(&gate.go);
}

static void finishing_does_what_waits(void **state)
{
    (void)state;
    struct tally tally = {.loop = at_loop_new(at_sys_real()), .wanted = JOBS};
    tally.loop_thread = pthread_self();
    struct at_pool *pool = at_pool_new(2, JOBS);
    static struct job jobs[JOBS];
    for (int i = 0; i < JOBS; i++) {
        jobs[i] = (struct job){&tally, i};
        assert_int_equal(at_pool_submit(pool, tally.loop, square, count, &jobs[i]), AT_OK);
    }
    at_pool_finish(pool);
    assert_int_equal(tally.done, 0);
    assert_true(at_loop_turn(tally.loop, 0));
    assert_int_equal(tally.done, JOBS);
    assert_int_equal(jobs[JOBS - 1].value, (JOBS - 1) * (JOBS - 1));
    at_loop_free(tally.loop);
}

#define POSTERS 4
#define POSTS 2000

static void count_post(void *ctx)
{
    struct tally *tally = ctx;
    if (++tally->done == tally->wanted) {
        at_loop_stop(tally->loop);
    }
}

static void *post_many(void *ctx)
{
    struct tally *tally = ctx;
    for (int i = 0; i < POSTS; i++) {
        while (at_loop_post(tally->loop, count_post, tally) == AT_EXHAUSTED) {
        }
    }
    return NULL;
}

static void posts_of_many_threads_all_arrive(void **state)
{
    (void)state;
    struct tally tally = {.loop = at_loop_new(at_sys_real()), .wanted = POSTERS * POSTS};
    pthread_t threads[POSTERS];
    for (int i = 0; i < POSTERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, post_many, &tally), 0);
    }
    at_loop_run(tally.loop);
    for (int i = 0; i < POSTERS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(tally.done, POSTERS * POSTS);
    at_loop_free(tally.loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(work_is_done_elsewhere_and_reported_here),
        cmocka_unit_test(a_full_queue_refuses_and_free_drops_what_waits),
        cmocka_unit_test(finishing_does_what_waits),
        cmocka_unit_test(posts_of_many_threads_all_arrive),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
