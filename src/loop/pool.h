/* Worker threads for blocking work. work runs on a worker; done (may be NULL) runs on the loop that
 * submitted, which must outlive the pool. */
#ifndef AT_LOOP_POOL_H
#define AT_LOOP_POOL_H

#include "loop/loop.h"

struct at_pool;

struct at_pool *at_pool_new(size_t n_threads, size_t queue_max);
void at_pool_free(struct at_pool *pool); /* waits for running work; queued work is dropped, its done
                                            is not called */
/* As at_pool_free, but what waits is done first, and each `done` is posted to its loop. */
void at_pool_finish(struct at_pool *pool);
/* err: AT_EXHAUSTED the queue is full; AT_CANCELLED at_pool_free or at_pool_finish has begun. */
enum at_rc at_pool_submit(struct at_pool *pool, struct at_loop *loop, at_post_fn *work,
                          at_post_fn *done, void *ctx) AT_WARN_UNUSED;

#endif
