#include "loop/loop_priv.h"

#include "core/mem.h"

#include <assert.h>
#include <sched.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void on_wake(void *ctx, int fd, unsigned events)
{
    (void)ctx;
    (void)events;
    uint64_t count;
    ssize_t n = read(fd, &count, sizeof count);
    assert(n == (ssize_t)sizeof count);
}

/* Only the first of many wake-ups needs to get through: a full counter is no error. */
static void wake(const struct at_loop *loop)
{
    uint64_t one = 1;
    ssize_t n = write(loop->wake_fd, &one, sizeof one);
    (void)n;
}

static struct at_loop *loop_new(const struct at_sys *sys)
{
    assert(sys != NULL);
    struct at_loop *loop = AT_NEW(struct at_loop);
    loop->sys = sys;
    loop->signal_fd = -1;
    loop->free_watch = AT_SLOT_NONE;
    loop->timers.free_slot = AT_SLOT_NONE;
    pthread_mutex_init(&loop->lock, NULL);
    loop->epfd = epoll_create1(EPOLL_CLOEXEC);
    loop->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    assert(loop->epfd >= 0);
    assert(loop->wake_fd >= 0);
    at_watch_id id = at_loop_watch_add(loop, loop->wake_fd, AT_LOOP_READ, true, on_wake, loop);
    assert(id != 0);
    loop->now_ns = at_sys_mono_ns(sys);
    return loop;
}

struct at_loop *at_loop_new(const struct at_sys *sys)
{
    return loop_new(sys);
}

enum at_rc at_loop_new_on(const struct at_sys *sys, enum at_loop_backend backend,
                          struct at_loop **ret, struct at_err *err)
{
    struct uring *uring = NULL;
    enum at_rc rc = AT_OK;
    if (backend != AT_LOOP_EPOLL) {
        rc = sys == at_sys_real()
                 ? at_uring_new(&uring, err)
                 : at_err_set(err, AT_UNAVAILABLE, "io_uring: the system is simulated");
    }
    if (rc != AT_OK && backend == AT_LOOP_IO_URING) {
        return rc;
    }
    *ret = loop_new(sys);
    (*ret)->uring = uring;
    return AT_OK;
}

enum at_loop_backend at_loop_backend(const struct at_loop *loop)
{
    return loop->uring != NULL ? AT_LOOP_IO_URING : AT_LOOP_EPOLL;
}

void at_loop_set_spin(struct at_loop *loop, int64_t spin_ns)
{
    assert(spin_ns >= 0);
    loop->spin_ns = loop->sys == at_sys_real() ? spin_ns : 0;
}

int64_t at_loop_spin_ns(const struct at_loop *loop)
{
    return loop->spin_ns;
}

static const char *const BACKENDS[] = {"auto", "epoll", "io_uring"};

const char *at_loop_backend_name(enum at_loop_backend backend)
{
    return BACKENDS[backend];
}

enum at_rc at_loop_backend_parse(const char *text, enum at_loop_backend *ret, struct at_err *err)
{
    for (int i = AT_LOOP_AUTO; i <= AT_LOOP_IO_URING; i++) {
        if (strcmp(text, BACKENDS[i]) == 0) {
            *ret = (enum at_loop_backend)i;
            return AT_OK;
        }
    }
    return at_err_set(err, AT_INVALID, "%s: must be auto, epoll or io_uring", text);
}

void at_loop_free(struct at_loop *loop)
{
    if (loop == NULL) {
        return;
    }
    assert(!loop->in_turn);
    at_uring_free(loop->uring);
    while (loop->children != NULL) {
        struct child *child = loop->children;
        loop->children = child->next;
        at_process_close(&child->process);
        at_free(child);
    }
    at_timer_heap_done(&loop->timers);
    at_free(loop->watches);
    at_free(loop->posts);
    pthread_mutex_destroy(&loop->lock);
    if (loop->signal_fd >= 0) {
        close(loop->signal_fd);
    }
    close(loop->wake_fd);
    close(loop->epfd);
    at_free(loop);
}

const struct at_sys *at_loop_sys(const struct at_loop *loop)
{
    return loop->sys;
}

int64_t at_loop_now_ns(const struct at_loop *loop)
{
    return loop->now_ns;
}

at_timer_id at_loop_timer(struct at_loop *loop, int64_t delay_ns, at_timer_fn *fn, void *ctx)
{
    int64_t now = at_sys_mono_ns(loop->sys);
    int64_t delay = delay_ns > 0 ? delay_ns : 0;
    int64_t deadline = delay < INT64_MAX - now ? now + delay : INT64_MAX - 1;
    return at_timer_heap_add(&loop->timers, deadline, fn, ctx);
}

void at_loop_timer_cancel(struct at_loop *loop, at_timer_id id)
{
    at_timer_heap_cancel(&loop->timers, id);
}

/* Those that are due now; one set by a callback waits for the next turn, so that none can starve
 * the descriptors. */
static void run_timers(struct at_loop *loop)
{
    uint64_t order_end = loop->timers.next_order;
    struct timer t;
    while (at_timer_heap_take_due(&loop->timers, loop->now_ns, order_end, &t)) {
        t.fn(t.ctx);
    }
}

static void push_post(struct at_loop *loop, at_post_fn *fn, void *ctx)
{
    if (loop->n_posts == loop->posts_room) {
        loop->posts_room = loop->posts_room != 0 ? loop->posts_room * 2 : 16;
        loop->posts = at_realloc(loop->posts, loop->posts_room * sizeof *loop->posts);
    }
    loop->posts[loop->n_posts++] = (struct post){fn, ctx};
}

enum at_rc at_loop_post(struct at_loop *loop, at_post_fn *fn, void *ctx)
{
    pthread_mutex_lock(&loop->lock);
    bool full = loop->n_posts >= AT_LOOP_POSTS_MAX;
    bool first = loop->n_posts == 0;
    if (!full) {
        push_post(loop, fn, ctx);
    }
    /* Under the lock: once the post is seen, the loop's owner may free the loop. */
    if (first && !full) {
        wake(loop);
    }
    pthread_mutex_unlock(&loop->lock);
    return full ? AT_EXHAUSTED : AT_OK;
}

void at_loop_hold(struct at_loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    loop->n_held++;
    pthread_mutex_unlock(&loop->lock);
}

void at_loop_post_release(struct at_loop *loop, at_post_fn *fn, void *ctx)
{
    pthread_mutex_lock(&loop->lock);
    assert(loop->n_held > 0);
    loop->n_held--;
    if (fn != NULL) {
        push_post(loop, fn, ctx);
    }
    wake(loop);
    pthread_mutex_unlock(&loop->lock);
}

static void run_posts(struct at_loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    struct post *batch = loop->posts;
    size_t n = loop->n_posts;
    size_t room = loop->posts_room;
    loop->posts = NULL;
    loop->n_posts = loop->posts_room = 0;
    pthread_mutex_unlock(&loop->lock);
    for (size_t i = 0; i < n; i++) {
        batch[i].fn(batch[i].ctx);
    }
    /* Keep the memory for the next batch when nothing was posted meanwhile. */
    pthread_mutex_lock(&loop->lock);
    if (loop->posts == NULL && room <= AT_LOOP_POSTS_MAX) {
        loop->posts = batch;
        loop->posts_room = room;
        batch = NULL;
    }
    pthread_mutex_unlock(&loop->lock);
    at_free(batch);
}

void at_loop_at_end(struct at_loop *loop, struct at_loop_task *task)
{
    if (task->queued) {
        return;
    }
    task->queued = true;
    task->next = NULL;
    task->prev = loop->last_task;
    *(loop->last_task != NULL ? &loop->last_task->next : &loop->first_task) = task;
    loop->last_task = task;
}

void at_loop_at_end_cancel(struct at_loop *loop, struct at_loop_task *task)
{
    if (task->queued) {
        task->queued = false;
        *(task->prev != NULL ? &task->prev->next : &loop->first_task) = task->next;
        *(task->next != NULL ? &task->next->prev : &loop->last_task) = task->prev;
    }
}

/* Those that the tasks themselves queue too. */
static void run_end_tasks(struct at_loop *loop)
{
    struct at_loop_task *task;
    while ((task = loop->first_task) != NULL) {
        at_loop_at_end_cancel(loop, task);
        task->fn(task->ctx);
    }
}

static bool something_to_wait_for(struct at_loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    bool pending = loop->n_posts > 0 || loop->n_held > 0;
    pthread_mutex_unlock(&loop->lock);
    return pending || loop->n_watches_live > 0 || loop->timers.n > 0 || loop->first_task != NULL;
}

static int poll_watches(struct at_loop *loop, struct epoll_event *events, int64_t deadline_mono_ns)
{
    return loop->sys->poll(loop->sys->ctx, loop->epfd, events, AT_LOOP_EVENTS_MAX,
                           deadline_mono_ns);
}

static bool looks_at(struct at_loop *loop, struct epoll_event *events, int *n, int64_t until_ns)
{
    if (loop->uring != NULL) {
        return at_uring_spin(loop, until_ns);
    }
    while ((*n = poll_watches(loop, events, 0)) == 0) {
        if (at_sys_mono_ns(loop->sys) >= until_ns) {
            return false;
        }
        sched_yield();
    }
    return true;
}

/* Until something comes; how many events. */
static int wait_for(struct at_loop *loop, struct epoll_event *events, int64_t deadline_mono_ns)
{
    int n = 0;
    if (loop->uring != NULL) {
        at_uring_prepare(loop);
    }
    int64_t until = deadline_mono_ns < loop->spin_until_ns ? deadline_mono_ns : loop->spin_until_ns;
    if (until > 0 && looks_at(loop, events, &n, until)) {
        return n;
    }
    if (loop->uring != NULL) {
        at_uring_wait(loop, deadline_mono_ns);
        return 0;
    }
    return poll_watches(loop, events, deadline_mono_ns);
}

static void turn(struct at_loop *loop, int64_t deadline_mono_ns)
{
    assert(!loop->in_turn);
    loop->in_turn = true;
    run_end_tasks(loop); /* of calls between turns */
    int64_t next = at_timer_heap_next_ns(&loop->timers);
    if (next < deadline_mono_ns) {
        deadline_mono_ns = next;
    }
    struct epoll_event events[AT_LOOP_EVENTS_MAX];
    int n = wait_for(loop, events, deadline_mono_ns);
    loop->now_ns = at_sys_mono_ns(loop->sys);
    run_timers(loop);
    bool some = n > 0;
    if (loop->uring != NULL && at_uring_dispatch(loop, &some)) {
        n = poll_watches(loop, events, 0);
    }
    loop->spin_until_ns = some && loop->spin_ns > 0 ? loop->now_ns + loop->spin_ns : 0;
    for (int i = 0; i < n; i++) {
        at_loop_watch_dispatch(loop, events[i].data.u64, events[i].events);
    }
    run_posts(loop);
    run_end_tasks(loop);
    loop->in_turn = false;
}

bool at_loop_turn(struct at_loop *loop, int64_t deadline_mono_ns)
{
    if (!something_to_wait_for(loop)) {
        return false;
    }
    turn(loop, deadline_mono_ns);
    return true;
}

int at_loop_fd(const struct at_loop *loop)
{
    assert(loop->uring == NULL);
    return loop->epfd;
}

int64_t at_loop_next_ns(const struct at_loop *loop)
{
    return at_timer_heap_next_ns(&loop->timers);
}

void at_loop_run(struct at_loop *loop)
{
    while (!__atomic_exchange_n(&loop->stop, false, __ATOMIC_ACQ_REL)) {
        turn(loop, INT64_MAX);
    }
    at_uring_submit(loop); /* what the last turn sends */
}

void at_loop_stop(struct at_loop *loop)
{
    __atomic_store_n(&loop->stop, true, __ATOMIC_RELEASE);
    wake(loop);
}
