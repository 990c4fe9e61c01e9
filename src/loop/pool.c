#include "loop/pool.h"

#include "core/mem.h"
#include "loop/loop_priv.h"

#include <assert.h>
#include <signal.h>

struct job {
    struct at_loop *loop;
    at_post_fn *work, *done;
    void *ctx;
};

struct at_pool {
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t wanted;
    struct job *queue; /* ring of queue_max */
    size_t queue_max, first, n;
    bool stopping;  /* nothing new is taken */
    bool finishing; /* but what waits is done */
    pthread_t *threads;
    size_t n_threads;
};

static bool take_job(struct at_pool *pool, struct job *ret)
{
    pthread_mutex_lock(&pool->lock);
    while (pool->n == 0 && !pool->stopping) {
        pthread_cond_wait(&pool->wanted, &pool->lock);
    }
    bool got = pool->n > 0 && (!pool->stopping || pool->finishing);
    if (got) {
        *ret = pool->queue[pool->first];
        pool->first = (pool->first + 1) % pool->queue_max;
        pool->n--;
    }
    pthread_mutex_unlock(&pool->lock);
    return got;
}

static void *worker(void *arg)
{
    struct at_pool *pool = arg;
    struct job job;
    while (take_job(pool, &job)) {
        job.work(job.ctx);
        at_loop_post_release(job.loop, job.done, job.ctx);
    }
    return NULL;
}

struct at_pool *at_pool_new(size_t n_threads, size_t queue_max)
{
    assert(n_threads > 0 && n_threads <= AT_POOL_THREADS_MAX);
    assert(queue_max > 0);
    struct at_pool *pool = AT_NEW(struct at_pool);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wanted, NULL);
    pool->queue_max = queue_max;
    pool->queue = at_alloc(queue_max * sizeof *pool->queue);
    pool->threads = at_alloc(n_threads * sizeof *pool->threads);
    /* Signals belong to the loops' threads. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (pool->n_threads < n_threads &&
           pthread_create(&pool->threads[pool->n_threads], NULL, worker, pool) == 0) {
        pool->n_threads++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    assert(pool->n_threads > 0);
    return pool;
}

static void end(struct at_pool *pool, bool finishing)
{
    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    pool->finishing = finishing;
    pthread_cond_broadcast(&pool->wanted);
    pthread_mutex_unlock(&pool->lock);
    for (size_t i = 0; i < pool->n_threads; i++) {
        pthread_join(pool->threads[i], NULL);
    }
    for (; pool->n > 0; pool->n--) {
        at_loop_post_release(pool->queue[pool->first].loop, NULL, NULL);
        pool->first = (pool->first + 1) % pool->queue_max;
    }
    pthread_cond_destroy(&pool->wanted);
    pthread_mutex_destroy(&pool->lock);
    at_free(pool->threads);
    at_free(pool->queue);
    at_free(pool);
}

void at_pool_free(struct at_pool *pool)
{
    if (pool != NULL) {
        end(pool, false);
    }
}

void at_pool_finish(struct at_pool *pool)
{
    if (pool != NULL) {
        end(pool, true);
    }
}

enum at_rc at_pool_submit(struct at_pool *pool, struct at_loop *loop, at_post_fn *work,
                          at_post_fn *done, void *ctx)
{
    pthread_mutex_lock(&pool->lock);
    bool full = pool->n == pool->queue_max;
    bool stopping = pool->stopping;
    if (!full && !stopping) {
        at_loop_hold(loop);
        pool->queue[(pool->first + pool->n++) % pool->queue_max] =
            (struct job){loop, work, done, ctx};
        pthread_cond_signal(&pool->wanted);
    }
    pthread_mutex_unlock(&pool->lock);
    return stopping ? AT_CANCELLED : full ? AT_EXHAUSTED : AT_OK;
}
