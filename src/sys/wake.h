/* A file descriptor that one thread rings and another one's loop waits for. */
#ifndef AT_SYS_WAKE_H
#define AT_SYS_WAKE_H

#include "core/err.h"

enum at_rc at_wake_open(int *ret_fd, struct at_err *err) AT_WARN_UNUSED;
void at_wake_ring(int fd);  /* any thread; makes fd readable */
void at_wake_drain(int fd); /* makes it unreadable until the next ring */
void at_wake_close(int fd);

#endif
