/* The io_uring back end. One ring per loop, used by the loop's thread alone (single issuer, task
 * work deferred until the loop enters the kernel). Sockets have one multishot receive each, which
 * takes its buffers from a ring shared by all of them, so that an idle connection holds none. What
 * is watched by descriptor stays in epoll; the ring polls the epoll descriptor. */
#include "core/mem.h"
#include "loop/io.h"
#include "loop/loop_priv.h"

#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

_Static_assert((AT_LOOP_BUFFERS & (AT_LOOP_BUFFERS - 1)) == 0, "the kernel masks buffer indexes");

#define BUFFER_GROUP 0
#define BATCH 256
#define NS_PER_S 1000000000

/* In the low bits of user_data, above them the io. */
enum tag { TAG_RECEIVE = 0, TAG_SEND = 1, TAG_POLL = 2, TAG_CANCEL = 3, TAG_MASK = 3 };

struct uring {
    struct io_uring ring;
    struct io_uring_buf_ring *buffers;
    char *memory;
    bool enabled;
    bool polls; /* the epoll descriptor */
    uint64_t turn;
    struct at_io *ios;
};

struct at_io {
    struct at_loop *loop;
    struct at_io *prev, *next;
    struct at_io_events ev;
    int fd;
    bool receives; /* a receive is under way in the kernel */
    bool wants;    /* it should be */
    bool ended;
    bool sends;
    bool closed; /* freed when nothing is under way */
    /* Not submitted yet, while the turn is still that one. */
    struct io_uring_sqe *receive_sqe, *send_sqe;
    uint64_t receive_turn, send_turn;
    struct at_buf out;
    size_t out_pos;
};

static void give_buffer(struct uring *u, unsigned i)
{
    io_uring_buf_ring_add(u->buffers, u->memory + (size_t)i * AT_LOOP_BUFFER_BYTES,
                          AT_LOOP_BUFFER_BYTES, (unsigned short)i,
                          io_uring_buf_ring_mask(AT_LOOP_BUFFERS), 0);
    io_uring_buf_ring_advance(u->buffers, 1);
}

static enum at_rc register_buffers(struct uring *u)
{
    size_t ring_bytes = AT_LOOP_BUFFERS * sizeof(struct io_uring_buf);
    u->buffers = aligned_alloc(4096, (ring_bytes + 4095) & ~(size_t)4095);
    u->memory = aligned_alloc(4096, (size_t)AT_LOOP_BUFFERS * AT_LOOP_BUFFER_BYTES);
    if (u->buffers == NULL || u->memory == NULL) {
        return AT_NOMEM;
    }
    memset(u->buffers, 0, ring_bytes);
    struct io_uring_buf_reg reg = {.ring_addr = (uint64_t)(uintptr_t)u->buffers,
                                   .ring_entries = AT_LOOP_BUFFERS,
                                   .bgid = BUFFER_GROUP};
    if (io_uring_register_buf_ring(&u->ring, &reg, 0) != 0) {
        return AT_UNAVAILABLE;
    }
    io_uring_buf_ring_init(u->buffers);
    for (unsigned i = 0; i < AT_LOOP_BUFFERS; i++) {
        give_buffer(u, i);
    }
    return AT_OK;
}

/* Deferred task run came with Linux 6.1, after multishot receive and buffer rings: whoever has it
 * has them. Disabled until the loop's thread turns it, which becomes the single issuer. */
enum at_rc at_uring_new(struct uring **ret, struct at_err *err)
{
    struct uring *u = AT_NEW(struct uring);
    struct io_uring_params p = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                         IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE |
                                         IORING_SETUP_SUBMIT_ALL | IORING_SETUP_TASKRUN_FLAG,
                                .cq_entries = AT_LOOP_COMPLETIONS_MAX};
    int why = io_uring_queue_init_params(AT_LOOP_SUBMISSIONS_MAX, &u->ring, &p);
    if (why != 0) {
        at_free(u);
        const char *text = why == -EINVAL ? "the kernel is older than Linux 6.1"
                           : why == -ENOSYS || why == -EPERM || why == -EACCES
                               ? "the kernel, a setting or a sandbox does not allow it"
                               : strerror(-why);
        return at_err_set(err, AT_UNAVAILABLE, "io_uring: %s", text);
    }
    if (register_buffers(u) != AT_OK) {
        at_uring_free(u);
        return at_err_set(err, AT_UNAVAILABLE, "io_uring: the kernel takes no ring of buffers");
    }
    *ret = u;
    return AT_OK;
}

static void io_free(struct uring *u, struct at_io *io)
{
    *(io->prev != NULL ? &io->prev->next : &u->ios) = io->next;
    if (io->next != NULL) {
        io->next->prev = io->prev;
    }
    at_buf_done(&io->out);
    at_free(io);
}

void at_uring_free(struct uring *uring)
{
    if (uring == NULL) {
        return;
    }
    /* Without its issuer nothing under way runs on, so no buffer is touched any more. */
    io_uring_queue_exit(&uring->ring);
    while (uring->ios != NULL) {
        io_free(uring, uring->ios);
    }
    free(uring->buffers);
    free(uring->memory);
    at_free(uring);
}

/* NULL: from another thread, once the loop has ended; nothing runs on then. */
static struct io_uring_sqe *take_sqe(struct uring *u)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
    if (sqe == NULL && io_uring_submit(&u->ring) > 0) {
        u->turn++;
        sqe = io_uring_get_sqe(&u->ring);
    }
    return sqe;
}

static uint64_t user_data(const struct at_io *io, enum tag tag)
{
    assert(((uintptr_t)io & TAG_MASK) == 0);
    return (uint64_t)(uintptr_t)io | tag;
}

bool at_io_is_possible(const struct at_loop *loop)
{
    return loop->uring != NULL;
}

static void start_receiving(struct at_io *io)
{
    struct uring *u = io->loop->uring;
    struct io_uring_sqe *sqe = take_sqe(u);
    if (sqe == NULL) {
        return;
    }
    io_uring_prep_recv_multishot(sqe, io->fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUFFER_GROUP;
    sqe->user_data = user_data(io, TAG_RECEIVE);
    io->receives = true;
    io->receive_sqe = sqe;
    io->receive_turn = u->turn;
}

static void cancel(struct at_io *io, enum tag tag)
{
    struct io_uring_sqe *sqe = take_sqe(io->loop->uring);
    if (sqe != NULL) {
        io_uring_prep_cancel64(sqe, user_data(io, tag), 0);
        sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
        sqe->user_data = TAG_CANCEL;
    }
}

struct at_io *at_io_open(struct at_loop *loop, int fd, const struct at_io_events *events)
{
    struct uring *u = loop->uring;
    struct at_io *io = AT_NEW(struct at_io);
    io->loop = loop;
    io->fd = fd;
    io->ev = *events;
    io->next = u->ios;
    if (io->next != NULL) {
        io->next->prev = io;
    }
    u->ios = io;
    io->out.max = SIZE_MAX / 2; /* whoever fills the buffers bounds them */
    loop->n_watches_live++;
    io->wants = true;
    start_receiving(io);
    return io;
}

void at_io_receive(struct at_io *io, bool on)
{
    assert(!io->closed);
    if (io->wants == on || io->ended) {
        return;
    }
    io->wants = on;
    if (on && !io->receives) {
        start_receiving(io);
    } else if (!on && io->receives) {
        cancel(io, TAG_RECEIVE);
    } /* else: a cancelled receive that still has to end begins anew then */
}

static void submit_send(struct at_io *io)
{
    struct uring *u = io->loop->uring;
    struct io_uring_sqe *sqe = take_sqe(u);
    if (sqe == NULL) {
        return;
    }
    io_uring_prep_send(sqe, io->fd, io->out.data + io->out_pos, io->out.len - io->out_pos,
                       MSG_NOSIGNAL | MSG_WAITALL);
    sqe->user_data = user_data(io, TAG_SEND);
    io->sends = true;
    io->send_sqe = sqe;
    io->send_turn = u->turn;
}

void at_io_send_take(struct at_io *io, struct at_buf *out)
{
    assert(!io->sends);
    assert(out->len > 0);
    struct at_buf empty = io->out;
    io->out.data = out->data;
    io->out.len = out->len;
    io->out.cap = out->cap;
    io->out_pos = 0;
    out->data = empty.data;
    out->len = empty.len;
    out->cap = empty.cap;
    submit_send(io);
}

size_t at_io_sending_bytes(const struct at_io *io)
{
    return io->sends ? io->out.len - io->out_pos : 0;
}

static void drop(struct io_uring_sqe *sqe)
{
    io_uring_prep_nop(sqe);
    sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
    sqe->user_data = TAG_CANCEL;
}

void at_io_close(struct at_io *io)
{
    if (io == NULL) {
        return;
    }
    assert(!io->closed);
    struct uring *u = io->loop->uring;
    io->closed = true;
    io->loop->n_watches_live--;
    /* The caller closes the descriptor now, and its number may be another socket's by the time
     * that the turn ends: what is not submitted yet must not be. */
    if (io->receives && io->receive_turn == u->turn) {
        drop(io->receive_sqe);
        io->receives = false;
    }
    if (io->sends && io->send_turn == u->turn) {
        drop(io->send_sqe);
        io->sends = false;
    }
    if (io->receives) {
        cancel(io, TAG_RECEIVE);
    }
    if (io->sends) {
        cancel(io, TAG_SEND);
    }
    if (!io->receives && !io->sends) {
        io_free(u, io);
    }
}

static void on_receive(struct uring *u, struct at_io *io, int result, unsigned flags)
{
    io->receives = (flags & IORING_CQE_F_MORE) != 0;
    if (result > 0) {
        unsigned i = flags >> IORING_CQE_BUFFER_SHIFT;
        assert((flags & IORING_CQE_F_BUFFER) != 0);
        if (!io->closed) {
            const char *data = u->memory + (size_t)i * AT_LOOP_BUFFER_BYTES;
            bool last = !io->receives; /* else: io lives at least until the last one */
            io->receives = true;
            io->ev.on_received(io->ev.ctx, AT_OK, data, (size_t)result);
            io->receives = !last;
        }
        give_buffer(u, i);
    } else if (!io->closed && !io->receives &&
               (result == 0 || (result != -ENOBUFS && result != -ECANCELED && result != -EINTR &&
                                result != -EAGAIN))) {
        io->ended = true;
        io->wants = false;
        io->receives = true; /* at_io_close from within leaves the memory to us */
        io->ev.on_received(io->ev.ctx, result == 0 ? AT_EOF : AT_UNAVAILABLE, NULL, 0);
        io->receives = false;
    }
    if (io->closed && !io->receives && !io->sends) {
        io_free(u, io);
    } else if (!io->closed && io->wants && !io->receives) {
        start_receiving(io);
    }
}

static void on_send(struct uring *u, struct at_io *io, int result)
{
    io->sends = false;
    if (io->closed) {
        if (!io->receives) {
            io_free(u, io);
        }
        return;
    }
    if (result > 0) {
        io->out_pos += (size_t)result;
    }
    if (result == -EINTR || result == -EAGAIN || (result > 0 && io->out_pos < io->out.len)) {
        submit_send(io);
        return;
    }
    if (io->out.cap > AT_LOOP_SEND_KEEP_BYTES_MAX) {
        at_buf_done(&io->out);
    } else {
        at_buf_clear(&io->out);
    }
    io->out_pos = 0;
    io->ev.on_sent(io->ev.ctx, result > 0 ? AT_OK : AT_UNAVAILABLE);
}

void at_uring_submit(struct at_loop *loop)
{
    if (loop->uring != NULL && loop->uring->enabled) {
        (void)io_uring_submit(&loop->uring->ring);
        loop->uring->turn++;
    }
}

static void poll_epoll(struct at_loop *loop)
{
    struct io_uring_sqe *sqe = take_sqe(loop->uring);
    assert(sqe != NULL);
    io_uring_prep_poll_add(sqe, loop->epfd, POLLIN);
    sqe->user_data = TAG_POLL;
    loop->uring->polls = true;
}

/* Has something come? No system call while nothing has. */
static bool peek(struct uring *u)
{
    if (io_uring_cq_ready(&u->ring) == 0 &&
        (__atomic_load_n(u->ring.sq.kflags, __ATOMIC_RELAXED) & IORING_SQ_TASKRUN) != 0) {
        (void)io_uring_get_events(&u->ring);
    }
    return io_uring_cq_ready(&u->ring) > 0;
}

bool at_uring_spin(struct at_loop *loop, int64_t until_mono_ns)
{
    struct uring *u = loop->uring;
    u->turn++;
    (void)io_uring_submit(&u->ring);
    while (!peek(u)) {
        if (at_sys_mono_ns(loop->sys) >= until_mono_ns) {
            return false;
        }
        sched_yield();
    }
    return true;
}

void at_uring_prepare(struct at_loop *loop)
{
    struct uring *u = loop->uring;
    if (!u->enabled) {
        int why = io_uring_enable_rings(&u->ring);
        assert(why == 0);
        u->enabled = true;
    }
    if (!u->polls) {
        poll_epoll(loop);
    }
}

void at_uring_wait(struct at_loop *loop, int64_t deadline_mono_ns)
{
    struct uring *u = loop->uring;
    int64_t wait_ns = INT64_MAX;
    if (deadline_mono_ns != INT64_MAX) {
        wait_ns = deadline_mono_ns - at_sys_mono_ns(loop->sys);
        wait_ns = wait_ns > 0 ? wait_ns : 0;
    }
    struct __kernel_timespec ts = {.tv_sec = wait_ns / NS_PER_S, .tv_nsec = wait_ns % NS_PER_S};
    struct io_uring_cqe *cqe;
    u->turn++;
    int rc = io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1, wait_ns == INT64_MAX ? NULL : &ts,
                                              NULL);
    assert(rc >= 0 || rc == -ETIME || rc == -EINTR || rc == -EBUSY || rc == -EAGAIN);
}

bool at_uring_dispatch(struct at_loop *loop, bool *ret_some)
{
    struct uring *u = loop->uring;
    struct io_uring_cqe *cqes[BATCH];
    bool epoll_ready = false;
    unsigned n = io_uring_peek_batch_cqe(&u->ring, cqes, BATCH);
    *ret_some |= n > 0;
    for (unsigned i = 0; i < n; i++) {
        uint64_t data = cqes[i]->user_data;
        int result = cqes[i]->res;
        unsigned flags = cqes[i]->flags;
        io_uring_cq_advance(&u->ring, 1);
        struct at_io *io = (struct at_io *)(uintptr_t)(data & ~(uint64_t)TAG_MASK);
        switch ((enum tag)(data & TAG_MASK)) {
        case TAG_RECEIVE:
            on_receive(u, io, result, flags);
            break;
        case TAG_SEND:
            on_send(u, io, result);
            break;
        case TAG_POLL:
            u->polls = false;
            epoll_ready = true;
            break;
        case TAG_CANCEL: /* it had just ended */
            break;
        }
    }
    return epoll_ready;
}
