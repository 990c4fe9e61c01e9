/* What stands at a path, looked at without following links; hard links; files that several
 * processes write one after the other. Errors as in file.h. Any thread; blocking. */
#ifndef AT_SYS_ENTRY_H
#define AT_SYS_ENTRY_H

#include "core/err.h"

#include <stdatomic.h>

enum at_entry_kind {
    AT_ENTRY_ABSENT,
    AT_ENTRY_FILE,
    AT_ENTRY_FOLDER,
    AT_ENTRY_SYMLINK,
    AT_ENTRY_OTHER, /* devices, sockets, pipes */
};

struct at_entry {
    enum at_entry_kind kind;
    int64_t bytes;
    int64_t changed_wall_ns; /* of the contents, or when it was last touched */
    uint64_t links;
    unsigned mode; /* permission bits */
};

/* Absent is no error. */
enum at_rc at_entry_look(const char *path, struct at_entry *ret, struct at_err *err) AT_WARN_UNUSED;
/* A second name of a file. err: AT_EXISTS there is something; AT_UNSUPPORTED they are on different
 * file systems, or these have no links. */
enum at_rc at_entry_link(const char *from, const char *to, struct at_err *err) AT_WARN_UNUSED;
/* Change times become now; whatever happens. */
void at_entry_touch(const char *path);
/* A regular file for reading, no link followed in its last part. err: AT_INVALID it is none.
 * own: at_fd_close. */
enum at_rc at_entry_open(const char *path, int *ret_fd, int64_t *ret_bytes,
                         struct at_err *err) AT_WARN_UNUSED;
/* The same, links followed. */
enum at_rc at_entry_open_real(const char *path, int *ret_fd, int64_t *ret_bytes,
                              struct at_err *err) AT_WARN_UNUSED;
/* The path without links, "." and ".."; NULL: nothing is there. own: caller at_free. */
char *at_entry_real(const char *path);
bool at_entry_is_symlink(const char *path);
/* Bytes at an offset; *ret_len 0 at the end. */
enum at_rc at_entry_read_at(int fd, int64_t offset, void *buf, size_t len, size_t *ret_len,
                            struct at_err *err) AT_WARN_UNUSED;
/* For appending, made when absent, and locked against all others who open it so, in this process or
 * another: waits for them until *stop (may be NULL) is set. Whoever renamed it meanwhile has
 * another file: then this makes a new one. *ret_bytes: what is in it.
 * err besides: AT_CANCELLED. own: at_fd_close, which unlocks. */
enum at_rc at_entry_open_locked(const char *path, unsigned mode, const atomic_bool *stop,
                                int *ret_fd, int64_t *ret_bytes, struct at_err *err) AT_WARN_UNUSED;
/* A lock that many may hold when shared, else one alone. err: AT_AGAIN it is held and wait is not
 * set. own: at_fd_close. */
enum at_rc at_entry_lock(const char *path, bool shared, bool wait, int *ret_fd,
                         struct at_err *err) AT_WARN_UNUSED;
/* All of it. err: AT_IO the disk is full, or fails. */
enum at_rc at_entry_write(int fd, const void *data, size_t len, struct at_err *err) AT_WARN_UNUSED;
enum at_rc at_entry_cut(int fd, int64_t bytes, struct at_err *err) AT_WARN_UNUSED;
void at_sleep_ns(int64_t ns);

#endif
