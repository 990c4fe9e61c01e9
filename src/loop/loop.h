/* Event loop: one per thread, nothing shared. Callbacks run on the loop's thread, one at a time.
 * Handles are generational ids, never pointers: a stale id is refused quietly. */
#ifndef AT_LOOP_LOOP_H
#define AT_LOOP_LOOP_H

#include "sys/process.h"
#include "sys/sys.h"

struct at_loop;
typedef uint64_t at_watch_id; /* 0 is never valid */
typedef uint64_t at_timer_id;

#define AT_LOOP_READ 1u
#define AT_LOOP_WRITE 2u

typedef void at_fd_fn(void *ctx, int fd,
                      unsigned events); /* errors and hang-ups show as READ|WRITE */
typedef void at_timer_fn(void *ctx);
typedef void at_signal_fn(void *ctx, int signal_number);
typedef void at_child_fn(void *ctx, pid_t pid, int exit_code,
                         int signal_number); /* -1,-1: adopted, unknown */
typedef void at_post_fn(void *ctx);

struct at_loop *at_loop_new(const struct at_sys *sys); /* by epoll */
/* How a loop waits. AUTO: io_uring where the kernel allows it (Linux 6.1, no sandbox or setting
 * against it) and the system table is the real one, else epoll. */
enum at_loop_backend { AT_LOOP_AUTO, AT_LOOP_EPOLL, AT_LOOP_IO_URING };
/* err: AT_UNAVAILABLE io_uring was demanded and cannot be had; the message says why. With AUTO the
 * same is told in err (may be NULL) although the loop is made. own: at_loop_free. */
enum at_rc at_loop_new_on(const struct at_sys *sys, enum at_loop_backend backend,
                          struct at_loop **ret, struct at_err *err) AT_WARN_UNUSED;
enum at_loop_backend at_loop_backend(const struct at_loop *loop); /* never AUTO */
/* "auto", "epoll", "io_uring". err: AT_INVALID. */
enum at_rc at_loop_backend_parse(const char *text, enum at_loop_backend *ret,
                                 struct at_err *err) AT_WARN_UNUSED;
const char *at_loop_backend_name(enum at_loop_backend backend);
/* After anything came, look for more for so long without sleeping: the next one finds the loop
 * awake, at the cost of the CPU's time (it yields to whoever else wants that). 0, as it is made:
 * sleep at once. In simulated systems it sleeps. */
void at_loop_set_spin(struct at_loop *loop, int64_t spin_ns);
int64_t at_loop_spin_ns(const struct at_loop *loop);
void at_loop_free(struct at_loop *loop); /* after run has returned; pending callbacks are dropped */
const struct at_sys *at_loop_sys(const struct at_loop *loop);
int64_t at_loop_now_ns(const struct at_loop *loop); /* monotonic, read once per turn */

void at_loop_run(struct at_loop *loop); /* until at_loop_stop */
bool at_loop_turn(struct at_loop *loop,
                  int64_t deadline_mono_ns); /* one turn, for tests; false: nothing to wait for */
void at_loop_stop(struct at_loop *loop);     /* any thread */
/* A loop inside another one: the outer loop watches this descriptor for READ and sets a timer for
 * the deadline (INT64_MAX: none), and then calls at_loop_turn of the inner one, which does not wait
 * when its deadline is past. */
int at_loop_fd(const struct at_loop *loop); /* by epoll only */
int64_t at_loop_next_ns(const struct at_loop *loop);

/* fd stays the caller's; remove the watch before closing it. Level-triggered. */
at_watch_id at_loop_watch(struct at_loop *loop, int fd, unsigned events, at_fd_fn *fn, void *ctx);
void at_loop_watch_change(struct at_loop *loop, at_watch_id id, unsigned events);
void at_loop_unwatch(struct at_loop *loop, at_watch_id id);

/* One shot after delay_ns; from within fn it may be set anew. */
at_timer_id at_loop_timer(struct at_loop *loop, int64_t delay_ns, at_timer_fn *fn, void *ctx);
void at_loop_timer_cancel(struct at_loop *loop,
                          at_timer_id id); /* accepts 0 and ids that have fired */

/* A task of its owner's memory that runs once at the end of the turn, before the loop waits: for
 * what gathers in a turn and goes out together. Queueing it again while it waits does nothing. */
struct at_loop_task {
    at_post_fn *fn;
    void *ctx;
    struct at_loop_task *prev, *next; /* the loop's */
    bool queued;
};
void at_loop_at_end(struct at_loop *loop, struct at_loop_task *task);
void at_loop_at_end_cancel(struct at_loop *loop, struct at_loop_task *task);

/* Signals arrive by signalfd; the signal is blocked in this thread (start the loop before other
 * threads). err: AT_IO no descriptor. */
enum at_rc at_loop_signal(struct at_loop *loop, int signal_number, at_signal_fn *fn, void *ctx,
                          struct at_err *err) AT_WARN_UNUSED;
/* fn once when p ends; the loop reaps and closes p->pidfd. err: AT_IO it cannot be watched. */
enum at_rc at_loop_child(struct at_loop *loop, const struct at_process *p, at_child_fn *fn,
                         void *ctx) AT_WARN_UNUSED;

/* Run fn(ctx) on the loop's thread soon, in order. Any thread. Bounded by AT_LOOP_POSTS_MAX: err
 * AT_EXHAUSTED. */
enum at_rc at_loop_post(struct at_loop *loop, at_post_fn *fn, void *ctx) AT_WARN_UNUSED;

#endif
