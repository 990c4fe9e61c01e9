/* The floor of bench/gateway: a forwarder that parses nothing. Each client connection has a
 * back-end connection of its own, and bytes go from one to the other as they come. No proxy that
 * sends each request by itself can cost less. By epoll, or by io_uring (multishot receive,
 * provided buffers, sends of a turn submitted together, deferred task run).
 * Usage: bench-gateway-floor epoll|io_uring PORT BACKEND_PORT */
#include "gateway_net.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>

#define BUFFERS 4096 /* a power of two */
#define BUFFER_BYTES 4096

struct side {
    int fd;
    bool ended;
    struct side *other;
};

static struct side *pair(int client, const char *backend)
{
    struct side *s = calloc(2, sizeof *s);
    no_delay(client);
    s[0] = (struct side){.fd = client, .other = &s[1]};
    s[1] = (struct side){.fd = connect_to(backend), .other = &s[0]};
    return s;
}

/* --- epoll --- */

static void forward(struct side *s)
{
    char buf[32768];
    ssize_t n = recv(s->fd, buf, sizeof buf, 0);
    if (n < 0 && errno == EAGAIN) {
        return;
    }
    if (n > 0 && send(s->other->fd, buf, (size_t)n, MSG_NOSIGNAL) == n) {
        return;
    }
    close(s->fd); /* the memory stays: the other side may be in this turn's events */
    close(s->other->fd);
    s->fd = s->other->fd = -1;
}

static void run_epoll(int listener, const char *backend)
{
    int ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ev = {.events = EPOLLIN};
    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &ev);
    for (;;) {
        struct epoll_event events[256];
        int n = epoll_wait(ep, events, 256, -1);
        for (int i = 0; i < n; i++) {
            struct side *s = events[i].data.ptr;
            if (s != NULL && s->fd >= 0) {
                forward(s);
            }
            int fd;
            while (s == NULL && (fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
                struct side *two = pair(fd, backend);
                for (int j = 0; j < 2; j++) {
                    fcntl(two[j].fd, F_SETFL, O_NONBLOCK);
                    ev = (struct epoll_event){.events = EPOLLIN, .data.ptr = &two[j]};
                    epoll_ctl(ep, EPOLL_CTL_ADD, two[j].fd, &ev);
                }
            }
        }
    }
}

/* --- io_uring --- */

struct ring {
    struct io_uring uring;
    struct io_uring_buf_ring *buffers;
    char *memory;
};

#define OF_SEND ((uint64_t)1 << 63) /* | buffer << 48 */

static struct io_uring_sqe *take_sqe(struct ring *r)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&r->uring);
    if (sqe == NULL) {
        io_uring_submit(&r->uring);
        sqe = io_uring_get_sqe(&r->uring);
    }
    return sqe;
}

static void receive(struct ring *r, struct side *s)
{
    struct io_uring_sqe *sqe = take_sqe(r);
    io_uring_prep_recv_multishot(sqe, s->fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = 0;
    sqe->user_data = (uint64_t)(uintptr_t)s;
}

static void give_back(struct ring *r, unsigned buffer)
{
    io_uring_buf_ring_add(r->buffers, r->memory + (size_t)buffer * BUFFER_BYTES, BUFFER_BYTES,
                          (unsigned short)buffer, io_uring_buf_ring_mask(BUFFERS), 0);
    io_uring_buf_ring_advance(r->buffers, 1);
}

static void on_received(struct ring *r, const struct io_uring_cqe *cqe)
{
    struct side *s = (struct side *)(uintptr_t)cqe->user_data;
    if (cqe->res <= 0) {
        if (cqe->res == -ENOBUFS) {
            receive(r, s);
        } else if (!s->ended) {
            s->ended = s->other->ended = true;
            shutdown(s->fd, SHUT_RDWR);
            shutdown(s->other->fd, SHUT_RDWR);
        }
        return;
    }
    unsigned buffer = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
    struct io_uring_sqe *sqe = take_sqe(r);
    io_uring_prep_send(sqe, s->other->fd, r->memory + (size_t)buffer * BUFFER_BYTES,
                       (size_t)cqe->res, MSG_NOSIGNAL | MSG_WAITALL);
    sqe->user_data = OF_SEND | (uint64_t)buffer << 48;
    if ((cqe->flags & IORING_CQE_F_MORE) == 0) {
        receive(r, s);
    }
}

static bool ring_open(struct ring *r)
{
    struct io_uring_params p = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                         IORING_SETUP_CQSIZE,
                                .cq_entries = 16384};
    if (io_uring_queue_init_params(4096, &r->uring, &p) != 0) {
        return false;
    }
    size_t ring_bytes = BUFFERS * sizeof(struct io_uring_buf);
    r->buffers = aligned_alloc(4096, ring_bytes);
    r->memory = aligned_alloc(4096, (size_t)BUFFERS * BUFFER_BYTES);
    memset(r->buffers, 0, ring_bytes);
    struct io_uring_buf_reg reg = {.ring_addr = (uint64_t)(uintptr_t)r->buffers,
                                   .ring_entries = BUFFERS};
    if (io_uring_register_buf_ring(&r->uring, &reg, 0) != 0) {
        return false;
    }
    io_uring_buf_ring_init(r->buffers);
    for (unsigned i = 0; i < BUFFERS; i++) {
        give_back(r, i);
    }
    return true;
}

static void run_io_uring(int listener, const char *backend)
{
    struct ring r;
    if (!ring_open(&r)) {
        fprintf(stderr, "io_uring cannot be used here\n");
        exit(3);
    }
    struct io_uring_sqe *sqe = take_sqe(&r);
    io_uring_prep_multishot_accept(sqe, listener, NULL, NULL, SOCK_CLOEXEC);
    sqe->user_data = 0;
    for (;;) {
        io_uring_submit_and_wait(&r.uring, 1);
        struct io_uring_cqe *cqe;
        unsigned head, n = 0;
        io_uring_for_each_cqe(&r.uring, head, cqe)
        {
            n++;
            if (cqe->user_data & OF_SEND) {
                give_back(&r, (unsigned)(cqe->user_data >> 48 & 0x7fff));
            } else if (cqe->user_data == 0 && cqe->res >= 0) {
                struct side *two = pair(cqe->res, backend);
                receive(&r, &two[0]);
                receive(&r, &two[1]);
            } else if (cqe->user_data != 0) {
                on_received(&r, cqe);
            }
        }
        io_uring_cq_advance(&r.uring, n);
    }
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: %s epoll|io_uring PORT BACKEND_PORT\n", argv[0]);
        return 2;
    }
    int listener = listen_on(argv[2]);
    (strcmp(argv[1], "io_uring") == 0 ? run_io_uring : run_epoll)(listener, argv[3]);
    return 0;
}
