#include "sys/mapped.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

enum at_rc at_mapped_new(const char *path, size_t len, struct at_mapped *ret, struct at_err *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return at_err_set_errno(err, errno, "%s", path);
    }
    /* Room now: storing to a page without any would end the process. */
    int problem = posix_fallocate(fd, 0, (off_t)len);
    void *data = problem == 0 ? mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : NULL;
    if (data == MAP_FAILED) {
        problem = errno;
    }
    if (problem != 0) {
        (void)unlink(path);
        (void)close(fd);
        return at_err_set_errno(err, problem, "%s", path);
    }
    *ret = (struct at_mapped){.data = data, .len = len, .fd = fd};
    return AT_OK;
}

enum at_rc at_mapped_sync(const struct at_mapped *mapped, size_t from, size_t to,
                          struct at_err *err)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    from -= from % page;
    if (from < to && msync(mapped->data + from, to - from, MS_SYNC) != 0) {
        return at_err_set_errno(err, errno, "a mapped file cannot be written");
    }
    return AT_OK;
}

void at_mapped_close(struct at_mapped *mapped)
{
    if (mapped->data != NULL) {
        (void)munmap(mapped->data, mapped->len);
        (void)close(mapped->fd);
    }
    *mapped = (struct at_mapped){.fd = -1};
}
