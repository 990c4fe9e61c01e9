/* Between a store and etcd: passes bytes on, and on demand cuts a connection just when the answer
 * to a transaction comes back, so that the write is done and nobody is told. */
#ifndef AT_STORE_ETCD_PROXY_TEST_H
#define AT_STORE_ETCD_PROXY_TEST_H

#include "store/etcd_test.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

#define PROXY_PAIRS_MAX 64

struct proxy {
    int listener, port, etcd_port;
    pthread_t thread;
    atomic_bool stop;
    atomic_int to_drop, dropped;
    struct {
        int client, etcd; /* -1: free */
        bool txn;         /* the request under way */
    } pairs[PROXY_PAIRS_MAX];
};

static inline int proxy_dial(int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static inline void proxy_close(struct proxy *p, size_t i)
{
    close(p->pairs[i].client);
    close(p->pairs[i].etcd);
    p->pairs[i].client = p->pairs[i].etcd = -1;
}

static inline void proxy_accept(struct proxy *p)
{
    int client = accept(p->listener, NULL, NULL);
    int etcd = proxy_dial(p->etcd_port);
    for (size_t i = 0; client >= 0 && etcd >= 0 && i < PROXY_PAIRS_MAX; i++) {
        if (p->pairs[i].client < 0) {
            p->pairs[i].client = client;
            p->pairs[i].etcd = etcd;
            p->pairs[i].txn = false;
            return;
        }
    }
    close(client);
    close(etcd);
}

static inline void proxy_pass(struct proxy *p, size_t i, bool from_client)
{
    char bytes[65536];
    ssize_t n = read(from_client ? p->pairs[i].client : p->pairs[i].etcd, bytes, sizeof bytes);
    if (n <= 0) {
        proxy_close(p, i);
        return;
    }
    if (from_client && n > 13 && memcmp(bytes, "POST ", 5) == 0) {
        p->pairs[i].txn = memcmp(bytes, "POST /v3/kv/txn", 15) == 0;
    }
    if (!from_client && p->pairs[i].txn && atomic_load(&p->to_drop) > 0) {
        proxy_close(p, i);
        atomic_fetch_sub(&p->to_drop, 1);
        atomic_fetch_add(&p->dropped, 1);
        return;
    }
    int to = from_client ? p->pairs[i].etcd : p->pairs[i].client;
    for (ssize_t done = 0; done < n;) {
        ssize_t w = send(to, bytes + done, (size_t)(n - done), MSG_NOSIGNAL);
        if (w <= 0) {
            proxy_close(p, i);
            return;
        }
        done += w;
    }
}

static inline void *proxy_run(void *ctx)
{
    struct proxy *p = ctx;
    while (!atomic_load(&p->stop)) {
        struct pollfd fds[1 + 2 * PROXY_PAIRS_MAX] = {{p->listener, POLLIN, 0}};
        for (size_t i = 0; i < PROXY_PAIRS_MAX; i++) {
            fds[1 + 2 * i] = (struct pollfd){p->pairs[i].client, POLLIN, 0};
            fds[2 + 2 * i] = (struct pollfd){p->pairs[i].etcd, POLLIN, 0};
        }
        poll(fds, 1 + 2 * PROXY_PAIRS_MAX, 20);
        for (size_t i = 0; i < PROXY_PAIRS_MAX; i++) {
            if (fds[1 + 2 * i].revents != 0 && p->pairs[i].client >= 0) {
                proxy_pass(p, i, true);
            }
            if (fds[2 + 2 * i].revents != 0 && p->pairs[i].client >= 0) {
                proxy_pass(p, i, false);
            }
        }
        if (fds[0].revents != 0) {
            proxy_accept(p);
        }
    }
    return NULL;
}

static inline void proxy_start(struct proxy *p, int etcd_port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    memset(p, 0, sizeof *p);
    for (size_t i = 0; i < PROXY_PAIRS_MAX; i++) {
        p->pairs[i].client = p->pairs[i].etcd = -1;
    }
    p->etcd_port = etcd_port;
    p->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(p->listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(p->listener, 64), 0);
    assert_int_equal(getsockname(p->listener, (struct sockaddr *)&a, &len), 0);
    p->port = ntohs(a.sin_port);
    assert_int_equal(pthread_create(&p->thread, NULL, proxy_run, p), 0);
}

static inline void proxy_stop(struct proxy *p)
{
    atomic_store(&p->stop, true);
    pthread_join(p->thread, NULL);
    for (size_t i = 0; i < PROXY_PAIRS_MAX; i++) {
        if (p->pairs[i].client >= 0) {
            proxy_close(p, i);
        }
    }
    close(p->listener);
}

#endif
