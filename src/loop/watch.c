/* What a loop watches: descriptors, signals, children. */
#include "loop/loop_priv.h"

#include "core/mem.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

static struct watch *find(const struct at_loop *loop, at_watch_id id)
{
    uint32_t slot = (uint32_t)id - 1;
    if ((uint32_t)id == 0 || slot >= loop->n_watches) {
        return NULL;
    }
    struct watch *w = &loop->watches[slot];
    return w->fd >= 0 && w->generation == id >> 32 ? w : NULL;
}

/* A descriptor without interest is taken out of epoll: hang-ups are reported whatever one asks for,
 * and would spin. */
static bool set_interest(struct at_loop *loop, const struct watch *w, unsigned before, uint64_t id)
{
    struct epoll_event event = {
        .events =
            (w->events & AT_LOOP_READ ? EPOLLIN : 0) | (w->events & AT_LOOP_WRITE ? EPOLLOUT : 0),
        .data.u64 = id,
    };
    if (before == w->events) {
        return true;
    }
    int op = before == 0 ? EPOLL_CTL_ADD : w->events == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;
    return epoll_ctl(loop->epfd, op, w->fd, &event) == 0;
}

static uint32_t take_slot(struct at_loop *loop)
{
    if (loop->free_watch != AT_SLOT_NONE) {
        uint32_t slot = loop->free_watch;
        loop->free_watch = loop->watches[slot].next_free;
        return slot;
    }
    assert(loop->n_watches < AT_LOOP_SLOTS_MAX);
    if ((loop->n_watches & (loop->n_watches - 1)) == 0) {
        size_t room = loop->n_watches != 0 ? loop->n_watches * 2 : 1;
        loop->watches = at_realloc(loop->watches, room * sizeof *loop->watches);
    }
    loop->watches[loop->n_watches] = (struct watch){.fd = -1};
    return (uint32_t)loop->n_watches++;
}

static void give_slot(struct at_loop *loop, struct watch *w)
{
    w->fd = -1;
    w->generation++;
    w->next_free = loop->free_watch;
    loop->free_watch = (uint32_t)(w - loop->watches);
}

at_watch_id at_loop_watch_add(struct at_loop *loop, int fd, unsigned events, bool internal,
                              at_fd_fn *fn, void *ctx)
{
    assert(fd >= 0);
    uint32_t slot = take_slot(loop);
    struct watch *w = &loop->watches[slot];
    uint64_t id = (uint64_t)w->generation << 32 | (slot + 1);
    w->fd = fd;
    w->events = events;
    w->internal = internal;
    w->fn = fn;
    w->ctx = ctx;
    if (!set_interest(loop, w, 0, id)) {
        give_slot(loop, w);
        return 0;
    }
    loop->n_watches_live += !internal;
    return id;
}

at_watch_id at_loop_watch(struct at_loop *loop, int fd, unsigned events, at_fd_fn *fn, void *ctx)
{
    return at_loop_watch_add(loop, fd, events, false, fn, ctx);
}

void at_loop_watch_change(struct at_loop *loop, at_watch_id id, unsigned events)
{
    struct watch *w = find(loop, id);
    if (w != NULL) {
        unsigned before = w->events;
        w->events = events;
        bool ok = set_interest(loop, w, before, id);
        assert(ok);
    }
}

void at_loop_unwatch(struct at_loop *loop, at_watch_id id)
{
    struct watch *w = find(loop, id);
    if (w == NULL) {
        return;
    }
    unsigned before = w->events;
    w->events = 0;
    set_interest(loop, w, before, id);
    loop->n_watches_live -= !w->internal;
    give_slot(loop, w);
}

void at_loop_watch_dispatch(struct at_loop *loop, at_watch_id id, uint32_t epoll_events)
{
    const struct watch *w = find(loop, id);
    if (w == NULL) {
        return; /* removed by a callback of this turn */
    }
    unsigned events =
        (epoll_events & EPOLLIN ? AT_LOOP_READ : 0) | (epoll_events & EPOLLOUT ? AT_LOOP_WRITE : 0);
    if ((epoll_events & (EPOLLERR | EPOLLHUP)) != 0) {
        events = AT_LOOP_READ | AT_LOOP_WRITE;
    }
    w->fn(w->ctx, w->fd, events);
}

static void on_signal_fd(void *ctx, int fd, unsigned events)
{
    struct at_loop *loop = ctx;
    (void)events;
    struct signalfd_siginfo info;
    while (read(fd, &info, sizeof info) == (ssize_t)sizeof info) {
        assert(info.ssi_signo < AT_SIGNALS);
        if (loop->signals[info.ssi_signo].fn != NULL) {
            loop->signals[info.ssi_signo].fn(loop->signals[info.ssi_signo].ctx,
                                             (int)info.ssi_signo);
        }
    }
}

enum at_rc at_loop_signal(struct at_loop *loop, int signal_number, at_signal_fn *fn, void *ctx,
                          struct at_err *err)
{
    assert(signal_number > 0 && signal_number < AT_SIGNALS);
    sigset_t set;
    sigemptyset(&set);
    for (int i = 1; i < AT_SIGNALS; i++) {
        if (i == signal_number || loop->signals[i].fn != NULL) {
            sigaddset(&set, i);
        }
    }
    int fd = signalfd(loop->signal_fd, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (fd < 0) {
        return at_err_set_errno(err, errno, "cannot take signal %d", signal_number);
    }
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (loop->signal_fd < 0) {
        loop->signal_fd = fd;
        at_watch_id id = at_loop_watch_add(loop, fd, AT_LOOP_READ, true, on_signal_fd, loop);
        assert(id != 0);
    }
    loop->signals[signal_number].fn = fn;
    loop->signals[signal_number].ctx = ctx;
    return AT_OK;
}

static void on_pidfd(void *ctx, int fd, unsigned events)
{
    struct child *child = ctx;
    struct at_loop *loop = child->loop;
    (void)fd;
    (void)events;
    int exit_code = -1;
    int signal_number = -1;
    if (at_process_reap(&child->process, &exit_code, &signal_number) == AT_AGAIN) {
        return;
    }
    struct child **at = &loop->children;
    while (*at != child) {
        at = &(*at)->next;
    }
    *at = child->next;
    at_loop_unwatch(loop, child->watch);
    at_process_close(&child->process);
    child->fn(child->ctx, child->process.pid, exit_code, signal_number);
    at_free(child);
}

enum at_rc at_loop_child(struct at_loop *loop, const struct at_process *p, at_child_fn *fn,
                         void *ctx)
{
    struct child *child = AT_NEW(struct child);
    *child =
        (struct child){.loop = loop, .next = loop->children, .process = *p, .fn = fn, .ctx = ctx};
    child->watch = at_loop_watch(loop, p->pidfd, AT_LOOP_READ, on_pidfd, child);
    if (child->watch == 0) {
        at_free(child);
        return AT_IO;
    }
    loop->children = child;
    return AT_OK;
}
