#include "sys/entry.h"

#include "core/mem.h"
#include "core/units.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOCK_LOOK_NS (20 * AT_NS_PER_MS)

static void fill(const struct stat *st, struct at_entry *ret)
{
    *ret = (struct at_entry){
        .kind = S_ISREG(st->st_mode)   ? AT_ENTRY_FILE
                : S_ISDIR(st->st_mode) ? AT_ENTRY_FOLDER
                : S_ISLNK(st->st_mode) ? AT_ENTRY_SYMLINK
                                       : AT_ENTRY_OTHER,
        .bytes = st->st_size,
        .changed_wall_ns = st->st_mtim.tv_sec * AT_NS_PER_S + st->st_mtim.tv_nsec,
        .links = st->st_nlink,
        .mode = st->st_mode & 07777,
    };
}

enum at_rc at_entry_look(const char *path, struct at_entry *ret, struct at_err *err)
{
    struct stat st;
    if (lstat(path, &st) != 0) {
        if (errno != ENOENT && errno != ENOTDIR) {
            return at_err_set_errno(err, errno, "cannot look at %s", path);
        }
        *ret = (struct at_entry){.kind = AT_ENTRY_ABSENT};
        return AT_OK;
    }
    fill(&st, ret);
    return AT_OK;
}

enum at_rc at_entry_link(const char *from, const char *to, struct at_err *err)
{
    if (link(from, to) == 0) {
        return AT_OK;
    }
    switch (errno) {
    case EEXIST:
        return at_err_set(err, AT_EXISTS, "%s is there already", to);
    case EXDEV:
    case EPERM:
    case EMLINK:
    case ENOSYS:
    case EOPNOTSUPP:
        return at_err_set(err, AT_UNSUPPORTED, "%s cannot be a second name of %s", to, from);
    default:
        return at_err_set_errno(err, errno, "cannot link %s to %s", to, from);
    }
}

void at_entry_touch(const char *path)
{
    if (utimensat(AT_FDCWD, path, NULL, 0) != 0) {
        return;
    }
}

static enum at_rc open_file(const char *path, int flags, int *ret_fd, int64_t *ret_bytes,
                            struct at_err *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | flags);
    if (fd < 0 && errno == ELOOP) {
        return at_err_set(err, AT_INVALID, "%s is a symbolic link", path);
    }
    if (fd < 0) {
        return at_err_set_errno(err, errno, "cannot open %s", path);
    }
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return at_err_set(err, AT_INVALID, "%s is no regular file", path);
    }
    *ret_fd = fd;
    *ret_bytes = st.st_size;
    return AT_OK;
}

enum at_rc at_entry_open(const char *path, int *ret_fd, int64_t *ret_bytes, struct at_err *err)
{
    return open_file(path, O_NOFOLLOW, ret_fd, ret_bytes, err);
}

enum at_rc at_entry_open_real(const char *path, int *ret_fd, int64_t *ret_bytes, struct at_err *err)
{
    return open_file(path, 0, ret_fd, ret_bytes, err);
}

char *at_entry_real(const char *path)
{
    char *real = realpath(path, NULL);
    char *copy = at_strdup(real);
    free(real);
    return copy;
}

bool at_entry_is_symlink(const char *path)
{
    struct at_entry e;
    return at_entry_look(path, &e, NULL) == AT_OK && e.kind == AT_ENTRY_SYMLINK;
}

enum at_rc at_entry_read_at(int fd, int64_t offset, void *buf, size_t len, size_t *ret_len,
                            struct at_err *err)
{
    ssize_t n;
    do {
        n = pread(fd, buf, len, offset);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return at_err_set_errno(err, errno, "cannot read");
    }
    *ret_len = (size_t)n;
    return AT_OK;
}

/* The lock belongs to the file, the name may be another's by now. */
static bool still_named(int fd, const char *path, int64_t *ret_bytes)
{
    struct stat mine, named;
    if (fstat(fd, &mine) != 0 || lstat(path, &named) != 0) {
        return false;
    }
    *ret_bytes = mine.st_size;
    return mine.st_ino == named.st_ino && mine.st_dev == named.st_dev;
}

enum at_rc at_entry_open_locked(const char *path, unsigned mode, const atomic_bool *stop,
                                int *ret_fd, int64_t *ret_bytes, struct at_err *err)
{
    for (;;) {
        int fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, mode);
        if (fd < 0) {
            return at_err_set_errno(err, errno, "cannot open %s", path);
        }
        while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
            if (errno != EWOULDBLOCK && errno != EINTR) {
                int why = errno;
                close(fd);
                return at_err_set_errno(err, why, "cannot lock %s", path);
            }
            if (stop != NULL && atomic_load(stop)) {
                close(fd);
                return at_err_set(err, AT_CANCELLED, "stopped");
            }
            at_sleep_ns(LOCK_LOOK_NS);
        }
        if (still_named(fd, path, ret_bytes)) {
            *ret_fd = fd;
            return AT_OK;
        }
        close(fd);
    }
}

enum at_rc at_entry_lock(const char *path, bool shared, bool wait, int *ret_fd, struct at_err *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) {
        return at_err_set_errno(err, errno, "cannot open %s", path);
    }
    int how = (shared ? LOCK_SH : LOCK_EX) | (wait ? 0 : LOCK_NB);
    int failed;
    do {
        failed = flock(fd, how);
    } while (failed != 0 && errno == EINTR);
    if (failed != 0) {
        int why = errno;
        close(fd);
        return why == EWOULDBLOCK ? at_err_set(err, AT_AGAIN, "%s is in use", path)
                                  : at_err_set_errno(err, why, "cannot lock %s", path);
    }
    *ret_fd = fd;
    return AT_OK;
}

enum at_rc at_entry_write(int fd, const void *data, size_t len, struct at_err *err)
{
    const char *p = data;
    while (len > 0) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return at_err_set_errno(err, errno, "cannot write");
        }
        p += n;
        len -= (size_t)n;
    }
    return AT_OK;
}

enum at_rc at_entry_cut(int fd, int64_t bytes, struct at_err *err)
{
    return ftruncate(fd, bytes) == 0 ? AT_OK : at_err_set_errno(err, errno, "cannot cut");
}

void at_sleep_ns(int64_t ns)
{
    struct timespec left = {.tv_sec = ns / AT_NS_PER_S, .tv_nsec = ns % AT_NS_PER_S};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}
