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
static const int DENIED[] = {
    SCMP_SYS(acct),
    SCMP_SYS(add_key),
    SCMP_SYS(bpf),
    SCMP_SYS(clock_adjtime),
    SCMP_SYS(clock_settime),
    SCMP_SYS(create_module),
    SCMP_SYS(delete_module),
    SCMP_SYS(finit_module),
    SCMP_SYS(fsconfig),
    SCMP_SYS(fsmount),
    SCMP_SYS(fsopen),
    SCMP_SYS(fspick),
    SCMP_SYS(get_kernel_syms),
    SCMP_SYS(init_module),
    SCMP_SYS(io_uring_setup),
    SCMP_SYS(ioperm),
    SCMP_SYS(iopl),
    SCMP_SYS(kcmp),
    SCMP_SYS(kexec_file_load),
    SCMP_SYS(kexec_load),
    SCMP_SYS(keyctl),
    SCMP_SYS(lookup_dcookie),
    SCMP_SYS(mount),
    SCMP_SYS(mount_setattr),
    SCMP_SYS(move_mount),
    SCMP_SYS(move_pages),
    SCMP_SYS(name_to_handle_at),
    SCMP_SYS(nfsservctl),
    SCMP_SYS(open_by_handle_at),
    SCMP_SYS(open_tree),
    SCMP_SYS(perf_event_open),
    SCMP_SYS(pivot_root),
    SCMP_SYS(process_vm_readv),
    SCMP_SYS(process_vm_writev),
    SCMP_SYS(ptrace),
    SCMP_SYS(query_module),
    SCMP_SYS(quotactl),
    SCMP_SYS(quotactl_fd),
    SCMP_SYS(reboot),
    SCMP_SYS(request_key),
    SCMP_SYS(setdomainname),
    SCMP_SYS(sethostname),
    SCMP_SYS(setns),
    SCMP_SYS(settimeofday),
    SCMP_SYS(stime),
    SCMP_SYS(swapoff),
    SCMP_SYS(swapon),
    SCMP_SYS(syslog),
    SCMP_SYS(umount),
    SCMP_SYS(umount2),
    SCMP_SYS(unshare),
    SCMP_SYS(userfaultfd),
    SCMP_SYS(vhangup),
    SCMP_SYS(vmsplice),
};

static int add_rules(scmp_filter_ctx ctx)
{
    for (size_t i = 0; i < AT_ARRAY_LEN(DENIED); i++) {
        int code = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), DENIED[i], 0);
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
