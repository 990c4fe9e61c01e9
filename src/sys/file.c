#include "sys/file.h"

#include "core/digest.h"
#include "core/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_STEP_BYTES 65536

static void cleanup_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
    }
}

static enum at_rc write_all(int fd, const void *data, size_t len, const char *path,
                            struct at_err *err)
{
    const char *p = data;
    while (len > 0) {
        ssize_t n = write(fd, p, len);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            return at_err_set_errno(err, errno, "cannot write %s", path);
        }
        p += n;
        len -= (size_t)n;
    }
    return AT_OK;
}

static enum at_rc open_path(const char *path, int flags, mode_t mode, int *ret_fd,
                            struct at_err *err)
{
    int fd = open(path, flags | O_CLOEXEC, mode);
    if (fd < 0) {
        return at_err_set_errno(err, errno, "cannot open %s", path);
    }
    *ret_fd = fd;
    return AT_OK;
}

/* Append what fd still holds, up to max_bytes. */
static enum at_rc read_all(int fd, const char *path, size_t max_bytes, struct at_buf *out,
                           struct at_err *err)
{
    size_t total = 0;
    for (;;) {
        char *place;
        enum at_rc rc = at_buf_reserve(out, READ_STEP_BYTES, &place);
        if (rc != AT_OK) {
            return at_err_set(err, rc, "%s is too large", path);
        }
        ssize_t n = read(fd, place, READ_STEP_BYTES);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            return at_err_set_errno(err, errno, "cannot read %s", path);
        }
        if (n == 0) {
            return AT_OK;
        }
        total += (size_t)n;
        if (total > max_bytes) {
            return at_err_set(err, AT_TOO_LARGE, "%s is larger than %zu bytes", path, max_bytes);
        }
        at_buf_commit(out, (size_t)n);
    }
}

enum at_rc at_file_read(const char *path, size_t max_bytes, struct at_buf *out, struct at_err *err)
{
    AT_CLEANUP(cleanup_fd) int fd = -1;
    enum at_rc rc = open_path(path, O_RDONLY, 0, &fd, err);
    return rc != AT_OK ? rc : read_all(fd, path, max_bytes, out, err);
}

enum at_rc at_file_read_at(const char *path, int64_t offset, size_t max_bytes, struct at_buf *out,
                           size_t *ret_len, struct at_err *err)
{
    AT_CLEANUP(cleanup_fd) int fd = -1;
    enum at_rc rc = open_path(path, O_RDONLY, 0, &fd, err);
    if (rc != AT_OK) {
        return rc;
    }
    char *place;
    rc = at_buf_reserve(out, max_bytes, &place);
    if (rc != AT_OK) {
        return at_err_set(err, rc, "no room for a piece of %s", path);
    }
    ssize_t n;
    do {
        n = pread(fd, place, max_bytes, offset);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return at_err_set_errno(err, errno, "cannot read %s", path);
    }
    at_buf_commit(out, (size_t)n);
    *ret_len = (size_t)n;
    return AT_OK;
}

enum at_rc at_file_write_at(const char *path, int64_t offset, const void *data, size_t len,
                            struct at_err *err)
{
    AT_CLEANUP(cleanup_fd) int fd = -1;
    enum at_rc rc = open_path(path, O_WRONLY, 0, &fd, err);
    if (rc != AT_OK) {
        return rc;
    }
    ssize_t n;
    do {
        n = pwrite(fd, data, len, offset);
    } while (n < 0 && errno == EINTR);
    return n == (ssize_t)len ? AT_OK
                             : at_err_set_errno(err, n < 0 ? errno : EIO, "cannot write %s", path);
}

static enum at_rc sync_parent(const char *path, struct at_err *err)
{
    const char *slash = strrchr(path, '/');
    AT_CLEANUP(at_cleanup_free)
    char *dir = slash == NULL   ? at_strdup(".")
                : slash == path ? at_strdup("/")
                                : at_strndup(path, (size_t)(slash - path));
    AT_CLEANUP(cleanup_fd) int fd = -1;
    enum at_rc rc = open_path(dir, O_RDONLY | O_DIRECTORY, 0, &fd, err);
    if (rc != AT_OK) {
        return rc;
    }
    if (fsync(fd) != 0 && errno != EINVAL) {
        return at_err_set_errno(err, errno, "cannot sync %s", dir);
    }
    return AT_OK;
}

static enum at_rc write_temporary(int fd, const char *path, const void *data, size_t len,
                                  mode_t mode, struct at_err *err)
{
    enum at_rc rc = write_all(fd, data, len, path, err);
    if (rc != AT_OK) {
        return rc;
    }
    if (fchmod(fd, mode) != 0 || fsync(fd) != 0) {
        return at_err_set_errno(err, errno, "cannot write %s", path);
    }
    return AT_OK;
}

enum at_rc at_file_write_atomic(const char *path, const void *data, size_t len, mode_t mode,
                                struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *temporary = at_asprintf("%s.XXXXXX", path);
    AT_CLEANUP(cleanup_fd) int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0) {
        return at_err_set_errno(err, errno, "cannot write %s", path);
    }
    enum at_rc rc = write_temporary(fd, path, data, len, mode, err);
    if (rc == AT_OK && rename(temporary, path) != 0) {
        rc = at_err_set_errno(err, errno, "cannot write %s", path);
    }
    if (rc != AT_OK) {
        unlink(temporary);
        return rc;
    }
    return sync_parent(path, err);
}

enum at_rc at_file_make_new(const char *path, mode_t mode, struct at_err *err)
{
    AT_CLEANUP(cleanup_fd) int fd = -1;
    return open_path(path, O_WRONLY | O_CREAT | O_EXCL, mode, &fd, err);
}

char *at_file_resolve(const char *path)
{
    char *real = realpath(path, NULL);
    char *copy = at_strdup(real);
    free(real);
    return copy;
}

enum at_rc at_file_append(const char *path, const void *data, size_t len, mode_t mode,
                          struct at_err *err)
{
    AT_CLEANUP(cleanup_fd) int fd = -1;
    enum at_rc rc = open_path(path, O_WRONLY | O_APPEND | O_CREAT, mode, &fd, err);
    return rc != AT_OK ? rc : write_all(fd, data, len, path, err);
}

enum at_rc at_file_open_append(const char *path, mode_t mode, int *ret_fd, struct at_err *err)
{
    return open_path(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW, mode, ret_fd, err);
}

void at_file_close(int fd)
{
    cleanup_fd(&fd);
}

enum at_rc at_file_truncate(const char *path, int64_t size, struct at_err *err)
{
    if (truncate(path, size) != 0) {
        return at_err_set_errno(err, errno, "cannot truncate %s", path);
    }
    return AT_OK;
}

bool at_file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

bool at_file_writable(const char *path)
{
    return access(path, W_OK) == 0;
}

int at_file_mode(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (int)(st.st_mode & 07777) : -1;
}

bool at_file_executable(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

int64_t at_file_size(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (int64_t)st.st_size : -1;
}

enum at_rc at_file_lock(const char *path, int *ret_fd, struct at_err *err)
{
    int fd = -1;
    enum at_rc rc = open_path(path, O_RDWR | O_CREAT, 0600, &fd, err);
    if (rc != AT_OK) {
        return rc;
    }
    char text[32] = "";
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        int why = errno;
        ssize_t n = pread(fd, text, sizeof text - 1, 0);
        close(fd);
        if (why != EWOULDBLOCK) {
            return at_err_set_errno(err, why, "cannot lock %s", path);
        }
        text[n > 0 ? n : 0] = '\0';
        text[strcspn(text, "\n")] = '\0';
        return at_err_set(err, AT_CONFLICT, "%s is locked by another process%s%s", path,
                          n > 0 ? ", pid " : "", text);
    }
    int len = snprintf(text, sizeof text, "%d\n", (int)getpid());
    /* The pid is for people only: a disk too full for it must not stop the lock. */
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)len, 0) != len) {
        errno = 0;
    }
    *ret_fd = fd;
    return AT_OK;
}

void at_file_unlock(int fd)
{
    cleanup_fd(&fd);
}

enum at_rc at_file_sha256(const char *path, char out_hex[65], struct at_err *err)
{
    AT_CLEANUP(cleanup_fd) int fd = -1;
    enum at_rc rc = open_path(path, O_RDONLY, 0, &fd, err);
    if (rc != AT_OK) {
        return rc;
    }
    AT_CLEANUP(at_cleanup_free) char *piece = at_alloc(READ_STEP_BYTES);
    struct at_sha256_stream *sha = at_sha256_stream_new();
    ssize_t n;
    while ((n = read(fd, piece, READ_STEP_BYTES)) != 0) {
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            at_sha256_stream_free(sha);
            return at_err_set_errno(err, errno, "cannot read %s", path);
        }
        at_sha256_stream_update(sha, piece, (size_t)n);
    }
    at_sha256_stream_hex(sha, out_hex);
    at_sha256_stream_free(sha);
    return AT_OK;
}

enum at_rc at_file_rename(const char *from, const char *to, struct at_err *err)
{
    if (rename(from, to) != 0) {
        return at_err_set_errno(err, errno, "cannot rename %s to %s", from, to);
    }
    return AT_OK;
}

enum at_rc at_file_replace(const char *from, const char *to, struct at_err *err)
{
    AT_CLEANUP(cleanup_fd) int fd = -1;
    enum at_rc rc = open_path(from, O_RDONLY, 0, &fd, err);
    if (rc != AT_OK) {
        return rc;
    }
    if (fsync(fd) != 0) {
        return at_err_set_errno(err, errno, "cannot sync %s", from);
    }
    rc = at_file_rename(from, to, err);
    return rc == AT_OK ? sync_parent(to, err) : rc;
}

struct at_file_writer {
    char *path;
    char *temporary; /* NULL: standard output, or nothing to take back */
    int fd;
};

enum at_rc at_file_writer_new(const char *path, mode_t mode, struct at_file_writer **ret,
                              struct at_err *err)
{
    struct at_file_writer *w = AT_NEW(struct at_file_writer);
    w->path = at_strdup(path);
    w->fd = STDOUT_FILENO;
    if (strcmp(path, "-") != 0) {
        w->temporary = at_asprintf("%s.XXXXXX", path);
        w->fd = mkostemp(w->temporary, O_CLOEXEC);
        if (w->fd < 0 || fchmod(w->fd, mode) != 0) {
            enum at_rc rc = at_err_set_errno(err, errno, "cannot write %s", path);
            at_file_writer_free(w);
            return rc;
        }
    }
    *ret = w;
    return AT_OK;
}

enum at_rc at_file_writer_write(struct at_file_writer *w, const void *data, size_t len,
                                struct at_err *err)
{
    return write_all(w->fd, data, len, w->path, err);
}

enum at_rc at_file_writer_commit(struct at_file_writer *w, struct at_err *err)
{
    if (w->temporary == NULL) {
        return AT_OK;
    }
    enum at_rc rc = at_file_replace(w->temporary, w->path, err);
    if (rc == AT_OK) {
        at_free(w->temporary);
        w->temporary = NULL;
    }
    return rc;
}

void at_file_writer_free(struct at_file_writer *w)
{
    if (w == NULL) {
        return;
    }
    if (w->fd != STDOUT_FILENO) {
        cleanup_fd(&w->fd);
    }
    if (w->temporary != NULL) {
        unlink(w->temporary);
    }
    at_free(w->temporary);
    at_free(w->path);
    at_free(w);
}

enum at_rc at_file_remove(const char *path, struct at_err *err)
{
    if (unlink(path) != 0 && errno != ENOENT) {
        return at_err_set_errno(err, errno, "cannot remove %s", path);
    }
    return AT_OK;
}

enum at_rc at_file_chown(const char *path, int64_t uid, int64_t gid, struct at_err *err)
{
    if (lchown(path, (uid_t)uid, (gid_t)gid) != 0) {
        return at_err_set_errno(err, errno, "cannot change the owner of %s", path);
    }
    return AT_OK;
}

enum at_rc at_file_chmod(const char *path, mode_t mode, struct at_err *err)
{
    if (chmod(path, mode) != 0) {
        return at_err_set_errno(err, errno, "cannot change the mode of %s", path);
    }
    return AT_OK;
}

static bool mode_allows(const char *path, int64_t uid, int64_t gid, unsigned bits)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        return false;
    }
    unsigned shift = st.st_uid == uid ? 6 : st.st_gid == gid ? 3 : 0;
    return (st.st_mode >> shift & bits) == bits;
}

bool at_file_readable_by(const char *path, int64_t uid, int64_t gid)
{
    AT_CLEANUP(at_cleanup_free) char *copy = at_strdup(path);
    for (char *p = strchr(copy + (copy[0] == '/'), '/'); p != NULL; p = strchr(p + 1, '/')) {
        *p = '\0';
        bool passes = mode_allows(copy, uid, gid, 1);
        *p = '/';
        if (!passes) {
            return false;
        }
    }
    return mode_allows(path, uid, gid, 4);
}

static enum at_rc copy_bytes(int in, int out, const char *from, const char *to, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *piece = at_alloc(READ_STEP_BYTES);
    ssize_t n;
    while ((n = read(in, piece, READ_STEP_BYTES)) != 0) {
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return at_err_set_errno(err, errno, "cannot read %s", from);
        }
        enum at_rc rc = write_all(out, piece, (size_t)n, to, err);
        if (rc != AT_OK) {
            return rc;
        }
    }
    if (fsync(out) != 0 && errno != EINVAL) {
        return at_err_set_errno(err, errno, "cannot write %s", to);
    }
    return AT_OK;
}

enum at_rc at_file_copy(const char *from, const char *to, mode_t mode, struct at_err *err)
{
    AT_CLEANUP(cleanup_fd) int in = -1;
    AT_CLEANUP(cleanup_fd) int out = -1;
    enum at_rc rc = open_path(from, O_RDONLY, 0, &in, err);
    if (rc != AT_OK) {
        return rc;
    }
    rc = open_path(to, O_WRONLY | O_CREAT | O_TRUNC, mode, &out, err);
    return rc != AT_OK ? rc : copy_bytes(in, out, from, to, err);
}
