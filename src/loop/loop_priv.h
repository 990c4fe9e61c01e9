/* The inside of a loop: seen by this folder and its tests only. */
#ifndef AT_LOOP_LOOP_PRIV_H
#define AT_LOOP_LOOP_PRIV_H

#include "loop/limits.h"
#include "loop/loop.h"

#include <pthread.h>

/* Ids are (generation << 32 | slot + 1): a slot's generation grows when it is given up, so an old
 * id no longer matches. */
#define AT_SLOT_NONE UINT32_MAX
#define AT_SIGNALS 65

struct timer {
    int64_t deadline_ns;
    uint64_t order; /* among equal deadlines, first set fires first */
    at_timer_fn *fn;
    void *ctx;
    uint32_t slot;
};

struct timer_slot {
    uint32_t generation;
    uint32_t position; /* in the heap; AT_SLOT_NONE: free */
    uint32_t next_free;
};

/* Binary min-heap by (deadline, order), with slots that know where each timer is. */
struct timer_heap {
    struct timer *items;
    size_t n, room;
    struct timer_slot *slots;
    size_t n_slots;
    uint32_t free_slot;
    uint64_t next_order;
};

struct watch {
    uint32_t generation;
    uint32_t next_free;
    int fd; /* -1: free */
    unsigned events;
    bool internal; /* the loop's own: does not keep at_loop_turn waiting */
    at_fd_fn *fn;
    void *ctx;
};

struct post {
    at_post_fn *fn;
    void *ctx;
};

struct child {
    struct at_loop *loop;
    struct child *next;
    struct at_process process;
    at_watch_id watch;
    at_child_fn *fn;
    void *ctx;
};

struct uring;

struct at_loop {
    const struct at_sys *sys;
    int epfd;
    struct uring *uring; /* NULL: by epoll */
    struct at_loop_task *first_task, *last_task;
    int wake_fd; /* eventfd: posts and stop from other threads */
    int64_t now_ns;
    int64_t spin_ns;       /* how long it asks again and again before it sleeps; 0: not at all */
    int64_t spin_until_ns; /* by what came last */
    bool in_turn;

    struct watch *watches;
    size_t n_watches;
    uint32_t free_watch;
    size_t n_watches_live; /* not internal */

    struct timer_heap timers;
    struct child *children;

    int signal_fd; /* -1 until the first at_loop_signal */
    struct {
        at_signal_fn *fn;
        void *ctx;
    } signals[AT_SIGNALS];

    pthread_mutex_t lock; /* guards posts, n_held */
    struct post *posts;
    size_t n_posts, posts_room;
    size_t n_held; /* work elsewhere that will post its end */
    bool stop;     /* atomic */
};

/* timer.c */
void at_timer_heap_done(struct timer_heap *heap);
at_timer_id at_timer_heap_add(struct timer_heap *heap, int64_t deadline_ns, at_timer_fn *fn,
                              void *ctx);
void at_timer_heap_cancel(struct timer_heap *heap, at_timer_id id);
/* Take the first timer whose deadline is not after now and whose order is below order_end. */
bool at_timer_heap_take_due(struct timer_heap *heap, int64_t now_ns, uint64_t order_end,
                            struct timer *ret);
int64_t at_timer_heap_next_ns(const struct timer_heap *heap); /* INT64_MAX when empty */

/* watch.c */
at_watch_id at_loop_watch_add(struct at_loop *loop, int fd, unsigned events, bool internal,
                              at_fd_fn *fn, void *ctx);
void at_loop_watch_dispatch(struct at_loop *loop, at_watch_id id, uint32_t epoll_events);

/* uring.c */
enum at_rc at_uring_new(struct uring **ret, struct at_err *err) AT_WARN_UNUSED;
void at_uring_free(struct uring *uring);
/* Before each of the two below. */
void at_uring_prepare(struct at_loop *loop);
/* Submit, and look again and again whether something has come. False: not until then. */
bool at_uring_spin(struct at_loop *loop, int64_t until_mono_ns);
/* Submit, wait until something completes, epfd is readable or the deadline; then call back. */
void at_uring_wait(struct at_loop *loop, int64_t deadline_mono_ns);
/* What has come. True: epfd is readable. ret_some: set to true when there was anything. */
bool at_uring_dispatch(struct at_loop *loop, bool *ret_some);
void at_uring_submit(struct at_loop *loop);

/* For the pool: the end of held work is posted past AT_LOOP_POSTS_MAX, bounded by the pool's own
 * queue. */
void at_loop_hold(struct at_loop *loop);
void at_loop_post_release(struct at_loop *loop, at_post_fn *fn, void *ctx);

#endif
