#include "sys/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

enum at_rc at_fd_pipe(int ret_fds[2], struct at_err *err)
{
    return pipe2(ret_fds, O_CLOEXEC) == 0 ? AT_OK : at_err_set_errno(err, errno, "pipe");
}

enum at_rc at_fd_read(int fd, void *buf, size_t len, size_t *ret)
{
    ssize_t n;
    do {
        n = read(fd, buf, len);
    } while (n < 0 && errno == EINTR);
    if (n > 0) {
        *ret = (size_t)n;
        return AT_OK;
    }
    if (n == 0) {
        return AT_EOF;
    }
    return errno == EAGAIN ? AT_AGAIN : AT_IO;
}

void at_fd_close(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

bool at_fd_is_terminal(int fd)
{
    return isatty(fd) == 1;
}

void at_fd_ignore_sigpipe(void)
{
    signal(SIGPIPE, SIG_IGN);
}
