/* Plain descriptors: pipes between a parent and its children, append-only files for their output,
 * terminals. */
#ifndef AT_SYS_FD_H
#define AT_SYS_FD_H

#include "core/err.h"

/* Both ends close-on-exec and blocking; [0] reads, [1] writes. */
enum at_rc at_fd_pipe(int ret_fds[2], struct at_err *err) AT_WARN_UNUSED;
/* err: AT_EOF the end; AT_AGAIN nothing now (non-blocking fd); AT_IO. */
enum at_rc at_fd_read(int fd, void *buf, size_t len, size_t *ret) AT_WARN_UNUSED;
/* err: AT_AGAIN it takes nothing now; AT_UNAVAILABLE nobody reads any more; AT_IO. */
enum at_rc at_fd_write(int fd, const void *buf, size_t len, size_t *ret) AT_WARN_UNUSED;
/* What was written is on the disk, as far as the disk says. err: AT_IO. */
enum at_rc at_fd_sync(int fd, struct at_err *err) AT_WARN_UNUSED;
void at_fd_set_nonblocking(int fd);
/* A pseudo terminal: what a program on *ret_terminal writes is read from *ret_master. */
enum at_rc at_fd_terminal(int *ret_master, int *ret_terminal, struct at_err *err) AT_WARN_UNUSED;
int at_fd_dup(int fd); /* close-on-exec; -1: there are no more descriptors */
void at_fd_terminal_resize(int master, unsigned columns, unsigned rows);
/* Our own terminal: every key as it comes, nothing echoed, no signals made of keys. own: give it to
 * at_fd_terminal_restore. NULL: fd is no terminal. */
struct at_fd_terminal_mode;
struct at_fd_terminal_mode *at_fd_terminal_raw(int fd);
void at_fd_terminal_restore(int fd, struct at_fd_terminal_mode *mode); /* accepts NULL */
bool at_fd_terminal_size(int fd, unsigned *ret_columns, unsigned *ret_rows);
void at_fd_close(int fd); /* accepts -1 */
bool at_fd_is_terminal(int fd);
/* Let this process have as many descriptors as it may (its hard limit); how many that are. */
size_t at_fd_raise_limit(void);
/* A write to a closed pipe gives an error instead of ending the process. Once, at start. */
void at_fd_ignore_sigpipe(void);

#endif
