#include "sys/wake.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum at_rc at_wake_open(int *ret_fd, struct at_err *err)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd < 0) {
        return at_err_set_errno(err, errno, "eventfd");
    }
    *ret_fd = fd;
    return AT_OK;
}

void at_wake_ring(int fd)
{
    /* It fails only when the counter is full, and then fd is readable anyway. */
    if (eventfd_write(fd, 1) != 0) {
        return;
    }
}

void at_wake_drain(int fd)
{
    eventfd_t n;
    if (eventfd_read(fd, &n) != 0) {
        return;
    }
}

void at_wake_close(int fd)
{
    close(fd);
}
