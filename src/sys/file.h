/* Files and directories. Paths are NUL-terminated; errors name the path. Any thread; blocking: call
 * from the worker pool where a disk may be slow.
 * err, unless a function says more: what at_err_set_errno makes of the system's own error, such as
 * AT_NOT_FOUND no such file, AT_FORBIDDEN it may not be touched, AT_IO the disk fails or is full.
 */
#ifndef AT_SYS_FILE_H
#define AT_SYS_FILE_H

#include "core/buf.h"

#include <sys/types.h>

/* The whole file, appended to out. err: AT_TOO_LARGE over max_bytes. */
enum at_rc at_file_read(const char *path, size_t max_bytes, struct at_buf *out,
                        struct at_err *err) AT_WARN_UNUSED;
/* Temporary name in the same folder, fsync, rename, fsync of the folder. mode e.g. 0600. */
enum at_rc at_file_write_atomic(const char *path, const void *data, size_t len, mode_t mode,
                                struct at_err *err) AT_WARN_UNUSED;
/* An empty file that was not there before. err: AT_EXISTS it is there. */
enum at_rc at_file_make_new(const char *path, mode_t mode, struct at_err *err) AT_WARN_UNUSED;
/* The path without links on the way; NULL: there is no such file. own: caller at_free. */
char *at_file_resolve(const char *path);
enum at_rc at_file_append(const char *path, const void *data, size_t len, mode_t mode,
                          struct at_err *err) AT_WARN_UNUSED;
enum at_rc at_dir_make(const char *path, mode_t mode,
                       struct at_err *err) AT_WARN_UNUSED; /* with parents; ok if there */
/* A new folder of ours alone (0700) in $TMPDIR or /tmp. own: caller at_free. */
enum at_rc at_dir_make_temp(const char *prefix, char **ret, struct at_err *err) AT_WARN_UNUSED;
enum at_rc at_tree_remove(const char *path, struct at_err *err)
    AT_WARN_UNUSED; /* ok if absent; no symlink followed */
bool at_file_exists(const char *path);
bool at_file_writable(const char *path); /* by this process; sockets: it may connect */
int64_t at_file_size(const char *path);  /* -1 when absent */
/* Exclusive lock held until at_file_unlock or the end of the process. err: AT_CONFLICT another
 * process holds it, with its pid in the message (the pid is written into the file). */
enum at_rc at_file_lock(const char *path, int *ret_fd, struct at_err *err) AT_WARN_UNUSED;
void at_file_unlock(int fd);
/* Names in a folder, sorted, "." and ".." left out. own: caller frees each and the list with
 * at_free. */
enum at_rc at_dir_list(const char *path, char ***ret_names, size_t *ret_count,
                       struct at_err *err) AT_WARN_UNUSED;
/* In lower-case hex. cost: reads the whole file. */
enum at_rc at_file_sha256(const char *path, char out_hex[65], struct at_err *err) AT_WARN_UNUSED;
enum at_rc at_file_rename(const char *from, const char *to, struct at_err *err) AT_WARN_UNUSED;
enum at_rc at_file_copy(const char *from, const char *to, mode_t mode,
                        struct at_err *err) AT_WARN_UNUSED;

/* Rename that lasts: syncs from, then the folder of to. */
enum at_rc at_file_replace(const char *from, const char *to, struct at_err *err) AT_WARN_UNUSED;

/* A file written in pieces: it takes its place, whole and durable, at commit, or never. Path "-" is
 * standard output, where nothing can be taken back. own: at_file_writer_free. */
struct at_file_writer;
enum at_rc at_file_writer_new(const char *path, mode_t mode, struct at_file_writer **ret,
                              struct at_err *err) AT_WARN_UNUSED;
enum at_rc at_file_writer_write(struct at_file_writer *w, const void *data, size_t len,
                                struct at_err *err) AT_WARN_UNUSED;
enum at_rc at_file_writer_commit(struct at_file_writer *w, struct at_err *err) AT_WARN_UNUSED;
void at_file_writer_free(
    struct at_file_writer *w); /* without commit: takes it back; accepts NULL */

/* Up to max_bytes at offset, appended to out; *ret_len 0 at or past the end. */
enum at_rc at_file_read_at(const char *path, int64_t offset, size_t max_bytes, struct at_buf *out,
                           size_t *ret_len, struct at_err *err) AT_WARN_UNUSED;
/* In place, at offset, in a file that is there: what is mapped elsewhere sees it. Not durable. */
enum at_rc at_file_write_at(const char *path, int64_t offset, const void *data, size_t len,
                            struct at_err *err) AT_WARN_UNUSED;
/* A descriptor for a child's output: appends, made when absent. own: at_file_close. */
enum at_rc at_file_open_append(const char *path, mode_t mode, int *ret_fd,
                               struct at_err *err) AT_WARN_UNUSED;
void at_file_close(int fd); /* accepts -1 */
enum at_rc at_file_truncate(const char *path, int64_t size, struct at_err *err) AT_WARN_UNUSED;
bool at_file_executable(const char *path); /* a regular file that this user may execute */
enum at_rc at_file_remove(const char *path, struct at_err *err) AT_WARN_UNUSED; /* ok if absent */
enum at_rc at_file_chown(const char *path, int64_t uid, int64_t gid,
                         struct at_err *err) AT_WARN_UNUSED; /* no symlink followed */
int at_file_mode(const char *path);                          /* permission bits; -1 when absent */
/* May that user (without supplementary groups) pass every folder above path, and read it? By mode
 * bits: no guard against change, only a way to tell early. */
bool at_file_readable_by(const char *path, int64_t uid, int64_t gid);
enum at_rc at_file_chmod(const char *path, mode_t mode, struct at_err *err) AT_WARN_UNUSED;

#endif
