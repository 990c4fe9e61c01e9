/* Child processes: start one inside limits, watch it by pidfd, end it. */
#ifndef AT_SYS_PROCESS_H
#define AT_SYS_PROCESS_H

#include "core/err.h"

#include <sys/types.h>

/* Shown at target in the process's own mount namespace; target must be there. */
struct at_process_bind {
    const char *source, *target;
    bool writable;
};

struct at_process_options {
    const char *const
        *argv; /* NULL-terminated; argv[0] is looked up on PATH of envp unless it has a slash */
    const char *const *envp; /* NULL-terminated; NULL: empty environment with PATH only */
    const char *cwd;         /* NULL: inherit */
    int stdin_fd, stdout_fd, stderr_fd; /* -1: /dev/null */
    int64_t uid, gid;                   /* -1: keep */
    bool new_session;                   /* setsid: own process group, killed as a whole */
    bool die_with_parent;               /* PR_SET_PDEATHSIG SIGKILL */
    bool no_new_privs;
    bool no_capabilities; /* none, and none to be gained, also for user 0 */
    bool seccomp; /* the default deny list (mount, kexec, bpf, ptrace of others, ...) by libseccomp
                   */
    bool new_mount_ns, new_pid_ns, new_ipc_ns, new_uts_ns;
    bool new_net_ns;                     /* with nothing in it but loopback */
    const struct at_process_bind *binds; /* with new_mount_ns; in order; source NULL ends them */
    const struct at_process *join; /* enter the mount, IPC, UTS and network namespaces of this one;
                                      NULL: none */
    bool controlling_terminal;     /* with new_session: stdin_fd is a terminal, make it ours */
    const char *const *cgroup_procs; /* NULL-terminated list of cgroup.procs files to join before
                                        exec; may be NULL */
    int64_t nofile_max;              /* 0: inherit */
    const bool *cancelled; /* at_process_run only, may be NULL: looked at ten times a second; set by
                              another thread it ends the program, err AT_CANCELLED */
};

struct at_process {
    pid_t pid;
    int pidfd; /* readable when the process has ended */
};

/* Which of the asked-for isolations this machine refused (bit set), so that the caller can say so.
 */
enum at_process_lack {
    AT_PROCESS_LACK_NAMESPACES = 1,
    AT_PROCESS_LACK_SECCOMP = 2,
    AT_PROCESS_LACK_USER = 4,
    AT_PROCESS_LACK_CGROUP = 8,
    AT_PROCESS_LACK_BINDS = 16,
    AT_PROCESS_LACK_NETWORK = 32,
};

/* Start. With strict false, isolations that the machine forbids are left out and reported in
 * *ret_lack. err: AT_NOT_FOUND program missing; AT_FORBIDDEN not executable or isolation refused
 * under strict. exec failures are reported here, synchronously. own: at_process_close after it was
 * reaped. */
enum at_rc at_process_start(const struct at_process_options *options, bool strict,
                            struct at_process *ret, unsigned *ret_lack,
                            struct at_err *err) AT_WARN_UNUSED;
/* Start, wait, and collect stdout and stderr (the last *out->max bytes at most are kept; out may be
 * NULL). Blocking: for the worker pool. err: those of at_process_start; AT_TIMEOUT killed after
 * timeout_ns. */
struct at_buf;
enum at_rc at_process_run(const struct at_process_options *options, int64_t timeout_ns,
                          struct at_buf *out, int *ret_exit_code,
                          struct at_err *err) AT_WARN_UNUSED;
/* Names of the system calls that `seccomp` refuses, NULL-terminated, static. */
const char *const *at_process_seccomp_denied(void);
/* A process that this program did not start itself (it outlived a restart): only its pidfd. err:
 * AT_NOT_FOUND. The start time guards against a reused pid: pass what at_process_start_ticks gave
 * when it was started. */
enum at_rc at_process_adopt(pid_t pid, uint64_t start_ticks, struct at_process *ret,
                            struct at_err *err) AT_WARN_UNUSED;
/* Is word the name of a control group that the process is in? */
bool at_process_in_cgroup(pid_t pid, const char *word);
uint64_t at_process_start_ticks(pid_t pid); /* field 22 of /proc/PID/stat; 0 when gone */
/* Reap without blocking. err: AT_AGAIN still running; AT_NOT_FOUND no child of ours (adopted): exit
 * status unknown. */
enum at_rc at_process_reap(struct at_process *p, int *ret_exit_code,
                           int *ret_signal) AT_WARN_UNUSED;
/* Has it, whether or not somebody took its exit status? */
bool at_process_has_ended(const struct at_process *p);
void at_process_signal(const struct at_process *p, int signal_number); /* by pidfd */
void at_process_signal_group(const struct at_process *p,
                             int signal_number); /* the session's process group */
void at_process_close(struct at_process *p);
/* SIGKILL to every process that was started with this environment entry ("NAME=value", exact), as
 * far as /proc lets us see: for machines without control groups. Repeated until none is left or
 * 1 s. Returns how many there were. */
int at_process_kill_marked(const char *entry);
/* Who a process is, to start another beside it: what /proc says now. own: at_process_look_done. */
struct at_process_look {
    int64_t uid, gid;
    char *cwd;
    char *env_text;    /* entries one after another */
    const char **envp; /* into env_text, NULL-terminated */
};
/* err: AT_NOT_FOUND it is gone; AT_FORBIDDEN it is not ours to look at. */
enum at_rc at_process_look(pid_t pid, struct at_process_look *ret,
                           struct at_err *err) AT_WARN_UNUSED;
void at_process_look_done(struct at_process_look *look);
/* Resident bytes and CPU time of a process, from /proc. err: AT_NOT_FOUND. */
enum at_rc at_process_usage(pid_t pid, int64_t *ret_rss_bytes, int64_t *ret_cpu_ns) AT_WARN_UNUSED;

#endif
