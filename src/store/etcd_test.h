/* A real etcd for tests: on free loopback ports, without fsync, ended with the test. */
#ifndef AT_STORE_ETCD_TEST_H
#define AT_STORE_ETCD_TEST_H

#include "core/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct etcd_server {
    pid_t pid; /* 0: not running */
    int port, peer_port;
    char dir[300];
    char url[64];
    const char *quota_bytes; /* NULL: etcd's own */
    const char *max_txn_ops; /* NULL: 128 */
};

static inline bool etcd_is_installed(void)
{
    return system("command -v etcd > /dev/null 2>&1") == 0;
}

static inline int etcd_free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    close(fd);
    return ntohs(a.sin_port);
}

static inline bool etcd_accepts(int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = connect(fd, (struct sockaddr *)&a, sizeof a) == 0;
    close(fd);
    return ok;
}

/* From within the child. */
static inline void etcd_exec(const struct etcd_server *s)
{
    char peer[64];
    char cluster[80];
    char log[330];
    snprintf(peer, sizeof peer, "http://127.0.0.1:%d", s->peer_port);
    snprintf(cluster, sizeof cluster, "e0=%s", peer);
    snprintf(log, sizeof log, "%s.log", s->dir);
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(fd, 1);
    dup2(fd, 2);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execlp("etcd", "etcd", "--name", "e0", "--data-dir", s->dir, "--listen-client-urls", s->url,
           "--advertise-client-urls", s->url, "--listen-peer-urls", peer,
           "--initial-advertise-peer-urls", peer, "--initial-cluster", cluster, "--unsafe-no-fsync",
           "--heartbeat-interval=20", "--election-timeout=200", "--logger=zap", "--log-level=error",
           "--max-txn-ops", s->max_txn_ops != NULL ? s->max_txn_ops : "128",
           "--quota-backend-bytes", s->quota_bytes != NULL ? s->quota_bytes : "0", (char *)NULL);
    _exit(127);
}

static inline void etcd_start(struct etcd_server *s, const char *dir)
{
    if (s->port == 0) {
        s->port = etcd_free_port();
        s->peer_port = etcd_free_port();
        snprintf(s->dir, sizeof s->dir, "%s/etcd", dir);
        snprintf(s->url, sizeof s->url, "http://127.0.0.1:%d", s->port);
    }
    s->pid = fork();
    assert_true(s->pid >= 0);
    if (s->pid == 0) {
        etcd_exec(s);
    }
    for (int i = 0; !etcd_accepts(s->port); i++) { /* it has no other way to tell */
        int status;
        if (i == 3000 || waitpid(s->pid, &status, WNOHANG) == s->pid) {
            fail_msg("etcd does not start, see %s.log", s->dir);
        }
        poll(NULL, 0, 10);
    }
}

static inline void etcd_stop(struct etcd_server *s)
{
    if (s->pid != 0) {
        kill(s->pid, SIGKILL);
        while (waitpid(s->pid, NULL, 0) < 0 && errno == EINTR) {
        }
        s->pid = 0;
    }
}

#endif
