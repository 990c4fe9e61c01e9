#include "sys/fd.h"

#include "core/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <termios.h>
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

enum at_rc at_fd_write(int fd, const void *buf, size_t len, size_t *ret)
{
    ssize_t n;
    do {
        n = write(fd, buf, len);
    } while (n < 0 && errno == EINTR);
    if (n >= 0) {
        *ret = (size_t)n;
        return AT_OK;
    }
    return errno == EAGAIN ? AT_AGAIN : errno == EPIPE ? AT_UNAVAILABLE : AT_IO;
}

enum at_rc at_fd_sync(int fd, struct at_err *err)
{
    if (fdatasync(fd) != 0 && errno != EINVAL) { /* EINVAL: a pipe, or /dev/null */
        return at_err_set_errno(err, errno, "cannot sync");
    }
    return AT_OK;
}

void at_fd_set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags >= 0) {
        fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    }
}

enum at_rc at_fd_terminal(int *ret_master, int *ret_terminal, struct at_err *err)
{
    char name[64];
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (master < 0) {
        return at_err_set_errno(err, errno, "cannot make a terminal");
    }
    int terminal = -1;
    if (grantpt(master) == 0 && unlockpt(master) == 0 &&
        ptsname_r(master, name, sizeof name) == 0) {
        terminal = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    }
    if (terminal < 0) {
        enum at_rc rc = at_err_set_errno(err, errno, "cannot open a terminal");
        close(master);
        return rc;
    }
    *ret_master = master;
    *ret_terminal = terminal;
    return AT_OK;
}

int at_fd_dup(int fd)
{
    return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

void at_fd_terminal_resize(int master, unsigned columns, unsigned rows)
{
    struct winsize size = {.ws_col = (unsigned short)columns, .ws_row = (unsigned short)rows};
    ioctl(master, TIOCSWINSZ, &size);
}

struct at_fd_terminal_mode {
    struct termios kept;
};

struct at_fd_terminal_mode *at_fd_terminal_raw(int fd)
{
    struct termios mode;
    if (tcgetattr(fd, &mode) != 0) {
        return NULL;
    }
    struct at_fd_terminal_mode *kept = AT_NEW(struct at_fd_terminal_mode);
    kept->kept = mode;
    cfmakeraw(&mode);
    tcsetattr(fd, TCSADRAIN, &mode);
    return kept;
}

void at_fd_terminal_restore(int fd, struct at_fd_terminal_mode *mode)
{
    if (mode != NULL) {
        tcsetattr(fd, TCSADRAIN, &mode->kept);
        at_free(mode);
    }
}

bool at_fd_terminal_size(int fd, unsigned *ret_columns, unsigned *ret_rows)
{
    struct winsize size = {0};
    if (ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) {
        return false;
    }
    *ret_columns = size.ws_col;
    *ret_rows = size.ws_row;
    return true;
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

size_t at_fd_raise_limit(void)
{
    struct rlimit limit = {1024, 1024};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return 1024;
    }
    struct rlimit raised = {limit.rlim_max, limit.rlim_max};
    limit =
        limit.rlim_cur < limit.rlim_max && setrlimit(RLIMIT_NOFILE, &raised) == 0 ? raised : limit;
    return limit.rlim_cur > SIZE_MAX ? SIZE_MAX : (size_t)limit.rlim_cur;
}
