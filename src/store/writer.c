#include "core/mem.h"
#include "store/store_priv.h"
#include "sys/wake.h"

#include <assert.h>
#include <pthread.h>

enum writer_state { WRITER_IDLE, WRITER_BUSY, WRITER_DONE };

struct at_store_writer {
    const struct at_store_backend *kind;
    void *backend;
    struct at_loop *loop;
    int wake_fd;
    at_watch_id wake_watch;
    void (*done)(void *ctx);
    void *ctx;

    pthread_t thread;
    bool joined;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* Under lock. */
    enum writer_state state;
    bool stop;
    const struct at_store_batch *batch;
    enum at_rc rc;
    struct at_err err;
};

static const struct at_store_batch *next_batch(struct at_store_writer *w)
{
    pthread_mutex_lock(&w->lock);
    while (w->state != WRITER_BUSY && !w->stop) {
        pthread_cond_wait(&w->changed, &w->lock);
    }
    const struct at_store_batch *batch = w->state == WRITER_BUSY ? w->batch : NULL;
    pthread_mutex_unlock(&w->lock);
    return batch;
}

static void *thread_main(void *arg)
{
    struct at_store_writer *w = arg;
    const struct at_store_batch *batch;
    while ((batch = next_batch(w)) != NULL) {
        struct at_err err = {0};
        enum at_rc rc = w->kind->commit(w->backend, batch, &err);
        pthread_mutex_lock(&w->lock);
        w->rc = rc;
        w->err = err;
        w->state = WRITER_DONE;
        pthread_mutex_unlock(&w->lock);
        at_wake_ring(w->wake_fd);
        if (w->kind->tidy != NULL) {
            w->kind->tidy(w->backend);
        }
    }
    return NULL;
}

static void on_wake(void *ctx, int fd, unsigned events)
{
    (void)events;
    struct at_store_writer *w = ctx;
    at_wake_drain(fd);
    w->done(w->ctx);
}

enum at_rc at_store_writer_new(const struct at_store_backend *kind, void *backend,
                               struct at_loop *loop, void (*done)(void *ctx), void *ctx,
                               struct at_store_writer **ret, struct at_err *err)
{
    struct at_store_writer *w = AT_NEW(struct at_store_writer);
    *w = (struct at_store_writer){
        .kind = kind, .backend = backend, .loop = loop, .done = done, .ctx = ctx};
    enum at_rc rc = at_wake_open(&w->wake_fd, err);
    if (rc != AT_OK) {
        at_free(w);
        return rc;
    }
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    int failed = pthread_create(&w->thread, NULL, thread_main, w);
    if (failed != 0) {
        w->joined = true;
        at_store_writer_free(w);
        return at_err_set_errno(err, failed, "store: start the writer thread");
    }
    w->wake_watch = at_loop_watch(loop, w->wake_fd, AT_LOOP_READ, on_wake, w);
    *ret = w;
    return AT_OK;
}

void at_store_writer_submit(struct at_store_writer *w, const struct at_store_batch *batch)
{
    pthread_mutex_lock(&w->lock);
    assert(w->state == WRITER_IDLE);
    assert(!w->stop);
    w->batch = batch;
    w->state = WRITER_BUSY;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

bool at_store_writer_take(struct at_store_writer *w, enum at_rc *ret_rc, struct at_err *ret_err)
{
    pthread_mutex_lock(&w->lock);
    bool have = w->state == WRITER_DONE;
    if (have) {
        *ret_rc = w->rc;
        *ret_err = w->err;
        w->state = WRITER_IDLE;
    }
    pthread_mutex_unlock(&w->lock);
    return have;
}

void at_store_writer_stop(struct at_store_writer *w)
{
    if (w->joined) {
        return;
    }
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    w->joined = true;
    at_loop_unwatch(w->loop, w->wake_watch);
}

void at_store_writer_free(struct at_store_writer *w)
{
    if (w == NULL) {
        return;
    }
    at_store_writer_stop(w);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    at_wake_close(w->wake_fd);
    at_free(w);
}
