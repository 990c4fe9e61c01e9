#include "sys/process_priv.h"

#include "core/mem.h"

#include <errno.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* What a served model or job has no business doing: changing the kernel, the mounts, the clock,
 * other processes or its own namespaces. Each answers EPERM. */
static const char *const DENIED[] = {
    "acct",
    "add_key",
    "bpf",
    "clock_adjtime",
    "clock_settime",
    "create_module",
    "delete_module",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "get_kernel_syms",
    "init_module",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mount",
    "mount_setattr",
    "move_mount",
    "move_pages",
    "name_to_handle_at",
    "nfsservctl",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pivot_root",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "query_module",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "setdomainname",
    "sethostname",
    "setns",
    "settimeofday",
    "stime",
    "swapoff",
    "swapon",
    "syslog",
    "umount",
    "umount2",
    "unshare",
    "userfaultfd",
    "vhangup",
    "vmsplice",
    NULL,
};

const char *const *at_process_seccomp_denied(void)
{
    return DENIED;
}

static int add_rules(scmp_filter_ctx ctx)
{
    for (size_t i = 0; DENIED[i] != NULL; i++) {
        int number = seccomp_syscall_resolve_name(DENIED[i]);
        if (number == __NR_SCMP_ERROR) {
            continue; /* newer than this libseccomp */
        }
        int code = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), number, 0);
        if (code != 0 && code != -EDOM && code != -EINVAL) {
            return code;
        }
    }
    int code = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
                                SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_NEWUSER, CLONE_NEWUSER));
    if (code != 0) {
        return code;
    }
    /* clone3's flags lie in memory where a filter cannot look: ENOSYS makes C libraries use clone.
     */
    return seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
}

static enum at_rc export_program(scmp_filter_ctx ctx, struct sock_fprog *ret, struct at_err *err)
{
    int fd = memfd_create("seccomp", MFD_CLOEXEC);
    if (fd < 0) {
        return at_err_set_errno(err, errno, "cannot export the seccomp filter");
    }
    enum at_rc rc = AT_OK;
    struct stat st;
    int code = seccomp_export_bpf(ctx, fd);
    if (code != 0 || fstat(fd, &st) != 0) {
        rc = at_err_set(err, AT_UNSUPPORTED, "cannot export the seccomp filter");
    } else {
        ret->filter = at_alloc((size_t)st.st_size);
        ret->len = (unsigned short)((size_t)st.st_size / sizeof(struct sock_filter));
        if (pread(fd, ret->filter, (size_t)st.st_size, 0) != st.st_size) {
            at_free(ret->filter);
            *ret = (struct sock_fprog){0};
            rc = at_err_set(err, AT_UNSUPPORTED, "cannot read the seccomp filter back");
        }
    }
    close(fd);
    return rc;
}

enum at_rc at_seccomp_program(struct sock_fprog *ret, struct at_err *err)
{
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
    if (ctx == NULL) {
        return at_err_set(err, AT_UNSUPPORTED, "libseccomp does not know this machine");
    }
#if defined(__x86_64__)
    if (seccomp_arch_add(ctx, SCMP_ARCH_X86) != 0) {
        seccomp_release(ctx);
        return at_err_set(err, AT_UNSUPPORTED, "libseccomp refuses the 32-bit rules");
    }
#endif
    enum at_rc rc = add_rules(ctx) == 0
                        ? export_program(ctx, ret, err)
                        : at_err_set(err, AT_UNSUPPORTED, "libseccomp refuses the deny list");
    seccomp_release(ctx);
    return rc;
}
