#include "sys/socket.h"

#include "core/str.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

struct address {
    struct sockaddr_storage ss;
    socklen_t len;
};

static enum at_rc unix_address(const char *path, struct address *ret, struct at_err *err)
{
    struct sockaddr_un *un = (struct sockaddr_un *)&ret->ss;
    size_t len = strlen(path);
    if (len == 0 || len >= sizeof un->sun_path) {
        return at_err_set(err, AT_INVALID, "unix socket path must have 1 to %zu bytes",
                          sizeof un->sun_path - 1);
    }
    memset(&ret->ss, 0, sizeof ret->ss);
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, path, len + 1);
    ret->len = sizeof *un;
    return AT_OK;
}

/* "host:port" or "[v6]:port" into host (without brackets) and port. */
static enum at_rc split(const char *addr, char *host, size_t host_size, uint16_t *ret_port,
                        struct at_err *err)
{
    const char *colon = strrchr(addr, ':');
    uint64_t port;
    if (colon == NULL || at_str_to_u64(at_str_of(colon + 1), &port) != AT_OK || port > 65535) {
        return at_err_set(err, AT_INVALID, "address \"%s\" is not host:port", addr);
    }
    size_t len = (size_t)(colon - addr);
    if (len >= 2 && addr[0] == '[' && colon[-1] == ']') {
        addr++;
        len -= 2;
    }
    if (len >= host_size) {
        return at_err_set(err, AT_INVALID, "host name is too long");
    }
    memcpy(host, addr, len);
    host[len] = '\0';
    *ret_port = (uint16_t)port;
    return AT_OK;
}

static enum at_rc look_up(const char *host, uint16_t port, struct address *ret, struct at_err *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    struct addrinfo *found = NULL;
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    int code = getaddrinfo(host, service, &hints, &found);
    if (code != 0) {
        return at_err_set(err, code == EAI_AGAIN ? AT_UNAVAILABLE : AT_NOT_FOUND,
                          "cannot resolve %s: %s", host, gai_strerror(code));
    }
    memcpy(&ret->ss, found->ai_addr, found->ai_addrlen);
    ret->len = found->ai_addrlen;
    freeaddrinfo(found);
    return AT_OK;
}

static enum at_rc resolve(const char *addr, struct address *ret, struct at_err *err)
{
    if (strncmp(addr, "unix:", 5) == 0) {
        return unix_address(addr + 5, ret, err);
    }
    char host[256];
    uint16_t port;
    enum at_rc rc = split(addr, host, sizeof host, &port, err);
    if (rc != AT_OK) {
        return rc;
    }
    memset(&ret->ss, 0, sizeof ret->ss);
    struct sockaddr_in *in = (struct sockaddr_in *)&ret->ss;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&ret->ss;
    const char *numeric = strcmp(host, "localhost") == 0 ? "127.0.0.1"
                          : host[0] == '\0'              ? "0.0.0.0"
                                                         : host;
    if (inet_pton(AF_INET, numeric, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        in->sin_port = htons(port);
        ret->len = sizeof *in;
        return AT_OK;
    }
    if (inet_pton(AF_INET6, numeric, &in6->sin6_addr) == 1) {
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(port);
        ret->len = sizeof *in6;
        return AT_OK;
    }
    return look_up(host, port, ret, err);
}

static void address_text(const struct address *a, char out[AT_ADDR_TEXT_BYTES_MAX])
{
    char host[INET6_ADDRSTRLEN] = "";
    if (a->ss.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&a->ss;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
        snprintf(out, AT_ADDR_TEXT_BYTES_MAX, "%s:%u", host, ntohs(in->sin_port));
    } else if (a->ss.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&a->ss;
        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof host);
        snprintf(out, AT_ADDR_TEXT_BYTES_MAX, "[%s]:%u", host, ntohs(in6->sin6_port));
    } else {
        const struct sockaddr_un *un = (const struct sockaddr_un *)&a->ss;
        bool named = a->len > sizeof(sa_family_t);
        snprintf(out, AT_ADDR_TEXT_BYTES_MAX, "unix:%s", named ? un->sun_path : "");
    }
}

static void set_nodelay(int fd, int family)
{
    if (family != AF_UNIX) {
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
}

/* A socket file that nobody listens on is left over from a crash: take its place. */
static void unlink_stale(const struct address *a)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)&a->ss;
    struct stat st;
    if (lstat(un->sun_path, &st) != 0 || !S_ISSOCK(st.st_mode)) {
        return;
    }
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe < 0) {
        return;
    }
    if (connect(probe, (const struct sockaddr *)&a->ss, a->len) != 0 && errno == ECONNREFUSED) {
        unlink(un->sun_path);
    }
    close(probe);
}

static enum at_rc listen_error(struct at_err *err, int why, const char *addr)
{
    if (why == EADDRINUSE) {
        return at_err_set(err, AT_CONFLICT, "address %s is taken", addr);
    }
    return at_err_set_errno(err, why, "cannot listen on %s", addr);
}

enum at_rc at_sock_listen(const char *addr, int backlog, bool reuse_port, int *ret_fd,
                          char out_addr[AT_ADDR_TEXT_BYTES_MAX], struct at_err *err)
{
    struct address a;
    enum at_rc rc = resolve(addr, &a, err);
    if (rc != AT_OK) {
        return rc;
    }
    int fd = socket(a.ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return at_err_set_errno(err, errno, "cannot make a socket");
    }
    int one = 1;
    if (a.ss.ss_family == AF_UNIX) {
        unlink_stale(&a);
    } else {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (reuse_port) {
            setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
        }
    }
    if (bind(fd, (struct sockaddr *)&a.ss, a.len) != 0 || listen(fd, backlog) != 0) {
        rc = listen_error(err, errno, addr);
        close(fd);
        return rc;
    }
    a.len = sizeof a.ss;
    getsockname(fd, (struct sockaddr *)&a.ss, &a.len);
    if (out_addr != NULL) {
        address_text(&a, out_addr);
    }
    *ret_fd = fd;
    return AT_OK;
}

/* What this machine has no more of says nothing about who would be reached. */
static enum at_rc connect_error(struct at_err *err, int why, const char *addr)
{
    if (why == EMFILE || why == ENFILE || why == EADDRNOTAVAIL) {
        return at_err_set(err, AT_EXHAUSTED, "cannot connect to %s: %s", addr, strerror(why));
    }
    return at_err_set_errno(err, why, "cannot connect to %s", addr);
}

enum at_rc at_sock_connect(const char *addr, int *ret_fd, struct at_err *err)
{
    struct address a;
    enum at_rc rc = resolve(addr, &a, err);
    if (rc != AT_OK) {
        return rc;
    }
    int fd = socket(a.ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return connect_error(err, errno, addr);
    }
    set_nodelay(fd, a.ss.ss_family);
    if (connect(fd, (struct sockaddr *)&a.ss, a.len) != 0 && errno != EINPROGRESS) {
        int why = errno == EAGAIN || errno == ENOENT ? ECONNREFUSED : errno;
        close(fd);
        return connect_error(err, why, addr);
    }
    *ret_fd = fd;
    return AT_OK;
}

enum at_rc at_sock_connect_result(int fd, struct at_err *err)
{
    int why = 0;
    socklen_t len = sizeof why;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &why, &len) != 0) {
        why = errno;
    }
    if (why == 0) {
        return AT_OK;
    }
    return at_err_set_errno(err, why, "cannot connect");
}

enum at_rc at_sock_accept(int listen_fd, int *ret_fd, char out_peer[AT_ADDR_TEXT_BYTES_MAX])
{
    struct address a = {.len = sizeof a.ss};
    int fd;
    do {
        a.len = sizeof a.ss;
        fd = accept4(listen_fd, (struct sockaddr *)&a.ss, &a.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    } while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
    if (fd < 0) {
        return errno == EAGAIN                      ? AT_AGAIN
               : errno == EMFILE || errno == ENFILE ? AT_EXHAUSTED
                                                    : AT_IO;
    }
    set_nodelay(fd, a.ss.ss_family);
    if (out_peer != NULL) {
        address_text(&a, out_peer);
    }
    *ret_fd = fd;
    return AT_OK;
}

static enum at_rc io_error(int why)
{
    return why == EAGAIN ? AT_AGAIN : AT_UNAVAILABLE;
}

enum at_rc at_sock_read(int fd, void *buf, size_t len, size_t *ret)
{
    ssize_t n;
    do {
        n = recv(fd, buf, len, 0);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return io_error(errno);
    }
    if (n == 0) {
        return AT_EOF;
    }
    *ret = (size_t)n;
    return AT_OK;
}

enum at_rc at_sock_write(int fd, const void *buf, size_t len, size_t *ret)
{
    ssize_t n;
    do {
        n = send(fd, buf, len, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return io_error(errno);
    }
    *ret = (size_t)n;
    return AT_OK;
}

enum at_rc at_sock_writev(int fd, const struct iovec *iov, int n, size_t *ret)
{
    struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n};
    ssize_t sent;
    do {
        sent = sendmsg(fd, &msg, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) {
        return io_error(errno);
    }
    *ret = (size_t)sent;
    return AT_OK;
}

bool at_sock_acked(int fd, uint64_t *ret)
{
    struct tcp_info info = {0}; /* of the kernel's header: libc's ends before this member */
    socklen_t len = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0 ||
        len < offsetof(struct tcp_info, tcpi_bytes_acked) + sizeof info.tcpi_bytes_acked) {
        return false;
    }
    *ret = info.tcpi_bytes_acked > 0 ? info.tcpi_bytes_acked - 1 : 0; /* SYN is counted as one */
    return true;
}

long at_sock_unsent(int fd)
{
    int n = 0;
    return ioctl(fd, SIOCOUTQ, &n) == 0 ? n : 0;
}

void at_sock_shutdown_write(int fd)
{
    shutdown(fd, SHUT_WR);
}

void at_sock_close(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}
