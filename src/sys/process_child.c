#include "sys/process_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

_Noreturn static void fail(const struct child_plan *plan, enum child_step step)
{
    struct child_report report = {.failed_step = step, .errno_value = errno};
    if (write(plan->report_fd, &report, sizeof report) != (ssize_t)sizeof report) {
        _exit(126);
    }
    _exit(127);
}

/* The machine refused a part: end under strict, else note the bit. */
static void lacks(const struct child_plan *plan, enum child_step step, unsigned bit, unsigned *lack)
{
    if (plan->strict) {
        fail(plan, step);
    }
    *lack |= bit;
}

static void reset_signals(void)
{
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    for (int i = 1; i < 65; i++) {
        sigaction(i, &dfl, NULL);
    }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void set_stdio(const struct child_plan *plan)
{
    int want[3] = {plan->options->stdin_fd, plan->options->stdout_fd, plan->options->stderr_fd};
    int fds[3];
    /* First all above 2, so that no target overwrites a source. */
    for (int i = 0; i < 3; i++) {
        int from = want[i] >= 0 ? want[i] : open("/dev/null", O_RDWR | O_CLOEXEC);
        fds[i] = from < 0 ? -1 : fcntl(from, F_DUPFD_CLOEXEC, 3);
        if (fds[i] < 0) {
            fail(plan, CHILD_STEP_STDIO);
        }
    }
    for (int i = 0; i < 3; i++) {
        if (dup2(fds[i], i) < 0) {
            fail(plan, CHILD_STEP_STDIO);
        }
    }
    close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
}

static void join_cgroups(const struct child_plan *plan, unsigned *lack)
{
    const char *const *files = plan->options->cgroup_procs;
    for (; files != NULL && *files != NULL; files++) {
        int fd = open(*files, O_WRONLY | O_CLOEXEC);
        if (fd < 0 || write(fd, "0\n", 2) != 2) {
            lacks(plan, CHILD_STEP_CGROUP, AT_PROCESS_LACK_CGROUP, lack);
        }
        if (fd >= 0) {
            close(fd);
        }
    }
}

static bool loopback_up(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq lo = {.ifr_name = "lo"};
    bool ok = fd >= 0 && ioctl(fd, SIOCGIFFLAGS, &lo) == 0;
    lo.ifr_flags |= IFF_UP;
    ok = ok && ioctl(fd, SIOCSIFFLAGS, &lo) == 0;
    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

static void enter_network(const struct child_plan *plan, unsigned *lack)
{
    if (plan->options->new_net_ns && (unshare(CLONE_NEWNET) != 0 || !loopback_up())) {
        lacks(plan, CHILD_STEP_NAMESPACES, AT_PROCESS_LACK_NETWORK, lack);
    }
}

static void enter_namespaces(const struct child_plan *plan, unsigned *lack)
{
    const struct at_process_options *o = plan->options;
    int flags = (o->new_mount_ns ? CLONE_NEWNS : 0) | (o->new_ipc_ns ? CLONE_NEWIPC : 0) |
                (o->new_uts_ns ? CLONE_NEWUTS : 0);
    if (o->join != NULL &&
        setns(o->join->pidfd, CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET) != 0) {
        lacks(plan, CHILD_STEP_NAMESPACES, AT_PROCESS_LACK_NAMESPACES, lack);
    }
    if (flags != 0 && unshare(flags) != 0) {
        lacks(plan, CHILD_STEP_NAMESPACES, AT_PROCESS_LACK_NAMESPACES, lack);
        return;
    }
    if (!o->new_mount_ns) {
        return;
    }
    bool ok = mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
    if (ok && (plan->clone_flags & CLONE_NEWPID) != 0) {
        ok = mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) == 0;
    }
    if (!ok) {
        lacks(plan, CHILD_STEP_NAMESPACES, AT_PROCESS_LACK_NAMESPACES, lack);
        return;
    }
    const struct at_process_bind *b = o->binds;
    for (; b != NULL && b->source != NULL; b++) {
        unsigned long how = MS_BIND | MS_REMOUNT | MS_NOSUID | (b->writable ? 0 : MS_RDONLY);
        if (mount(b->source, b->target, NULL, MS_BIND, NULL) != 0 ||
            mount(NULL, b->target, NULL, how, NULL) != 0) {
            lacks(plan, CHILD_STEP_NAMESPACES, AT_PROCESS_LACK_BINDS, lack);
        }
    }
}

static void set_user(const struct child_plan *plan, unsigned *lack)
{
    const struct at_process_options *o = plan->options;
    if (o->uid < 0 && o->gid < 0) {
        return;
    }
    gid_t gid = o->gid >= 0 ? (gid_t)o->gid : (gid_t)-1;
    uid_t uid = o->uid >= 0 ? (uid_t)o->uid : (uid_t)-1;
    bool same = (o->uid < 0 || geteuid() == uid) && (o->gid < 0 || getegid() == gid);
    if (same && geteuid() != 0) {
        return;
    }
    /* The raw calls: glibc's wrappers would signal threads that this child does not have. */
    if (syscall(SYS_setgroups, 0, NULL) != 0 || syscall(SYS_setresgid, gid, gid, gid) != 0 ||
        syscall(SYS_setresuid, uid, uid, uid) != 0) {
        lacks(plan, CHILD_STEP_USER, AT_PROCESS_LACK_USER, lack);
    }
}

/* Out of the bounding set before the user changes, which may need one of them; out of the rest
 * after. */
static void drop_bounding(const struct child_plan *plan)
{
    for (int cap = 0; plan->options->no_capabilities && cap < 64; cap++) {
        prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
    }
}

static void drop_capabilities(const struct child_plan *plan)
{
    if (plan->options->no_capabilities) {
        struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
        struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        syscall(SYS_capset, &header, none);
    }
}

static void set_limits(const struct child_plan *plan)
{
    struct rlimit limit;
    if (plan->options->nofile_max <= 0 || getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return;
    }
    rlim_t want = (rlim_t)plan->options->nofile_max;
    struct rlimit both = {want, want};
    if (setrlimit(RLIMIT_NOFILE, &both) != 0 && limit.rlim_max < want) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void set_seccomp(const struct child_plan *plan, unsigned *lack)
{
    if (plan->options->no_new_privs || plan->options->seccomp) {
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    }
    if (!plan->options->seccomp) {
        return;
    }
    if (plan->seccomp.len == 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &plan->seccomp, 0, 0) != 0) {
        lacks(plan, CHILD_STEP_SECCOMP, AT_PROCESS_LACK_SECCOMP, lack);
    }
}

_Noreturn void at_process_child(const struct child_plan *plan)
{
    const struct at_process_options *o = plan->options;
    unsigned lack = 0;
    reset_signals();
    set_stdio(plan);
    if (o->new_session) {
        setsid();
        if (o->controlling_terminal) {
            ioctl(STDIN_FILENO, TIOCSCTTY, 0);
        }
    }
    join_cgroups(plan, &lack);
    enter_network(plan, &lack);
    enter_namespaces(plan, &lack);
    set_limits(plan);
    drop_bounding(plan);
    set_user(plan, &lack);
    drop_capabilities(plan);
    if (o->die_with_parent) {
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    }
    if (o->cwd != NULL && chdir(o->cwd) != 0) {
        fail(plan, CHILD_STEP_CWD);
    }
    set_seccomp(plan, &lack);
    if (lack != 0) {
        struct child_report report = {.lack = lack};
        if (write(plan->report_fd, &report, sizeof report) != (ssize_t)sizeof report) {
            _exit(126);
        }
    }
    execve(plan->path, (char *const *)o->argv, (char *const *)plan->envp);
    fail(plan, CHILD_STEP_EXEC);
}
