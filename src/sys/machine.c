#include "sys/machine.h"

#include "sys/file.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

static int64_t memory_total(void)
{
    int64_t pages = sysconf(_SC_PHYS_PAGES);
    return pages > 0 ? pages * sysconf(_SC_PAGESIZE) : 0;
}

void at_machine_read(struct at_machine *ret)
{
    memset(ret, 0, sizeof *ret);
    cpu_set_t set;
    ret->cpus = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    ret->memory_bytes = memory_total();
    struct utsname name;
    if (uname(&name) == 0) {
        snprintf(ret->arch, sizeof ret->arch, "%.31s", name.machine);
        snprintf(ret->kernel, sizeof ret->kernel, "%.95s", name.release);
    }
    ret->root = geteuid() == 0;
}

enum at_rc at_machine_disk(const char *path, int64_t *ret_total_bytes, int64_t *ret_free_bytes,
                           struct at_err *err)
{
    struct statvfs st;
    if (statvfs(path, &st) != 0) {
        return at_err_set_errno(err, errno, "cannot size the file system of %s", path);
    }
    *ret_total_bytes = (int64_t)(st.f_blocks * st.f_frsize);
    *ret_free_bytes = (int64_t)(st.f_bavail * st.f_frsize);
    return AT_OK;
}

enum at_rc at_machine_loopback(struct at_buf *ret)
{
    char ns[64];
    ssize_t n = readlink("/proc/self/ns/net", ns, sizeof ns);
    if (n <= 0) {
        return AT_UNSUPPORTED;
    }
    enum at_rc rc = at_file_read("/proc/sys/kernel/random/boot_id", 128, ret, NULL);
    return rc == AT_OK ? at_buf_append(ret, ns, (size_t)n) : rc;
}
