#include "sys/process.h"

#include "core/mem.h"
#include "sys/file.h"
#include "sys/process_priv.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATH_DEFAULT "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static const char *const ENV_DEFAULT[] = {"PATH=" PATH_DEFAULT, NULL};

static const char *path_of(const char *const *envp)
{
    for (; *envp != NULL; envp++) {
        if (strncmp(*envp, "PATH=", 5) == 0) {
            return *envp + 5;
        }
    }
    return PATH_DEFAULT;
}

/* The file that argv[0] names; own: caller at_free. */
static enum at_rc look_up(const char *name, const char *const *envp, char **ret, struct at_err *err)
{
    if (strchr(name, '/') != NULL) {
        *ret = at_strdup(name);
        return AT_OK;
    }
    const char *rest = path_of(envp);
    while (*rest != '\0' && *name != '\0') {
        size_t len = strcspn(rest, ":");
        char *path = at_asprintf("%.*s/%s", (int)len, rest, name);
        if (len != 0 && at_file_executable(path)) {
            *ret = path;
            return AT_OK;
        }
        at_free(path);
        rest += len + (rest[len] == ':');
    }
    return at_err_set(err, AT_NOT_FOUND, "program \"%s\" is not on PATH", name);
}

/* fork with namespaces and a pidfd. Raw, because glibc's fork takes no flags. */
static pid_t clone_child(unsigned flags, int *ret_pidfd)
{
    return (pid_t)syscall(SYS_clone, (unsigned long)flags | CLONE_PIDFD | SIGCHLD, NULL, ret_pidfd,
                          NULL, NULL);
}

static const char *step_text(int step)
{
    switch (step) {
    case CHILD_STEP_STDIO:
        return "set standard streams of";
    case CHILD_STEP_CGROUP:
        return "join the control group of";
    case CHILD_STEP_NAMESPACES:
        return "make namespaces for";
    case CHILD_STEP_USER:
        return "change the user of";
    case CHILD_STEP_CWD:
        return "enter the working folder of";
    case CHILD_STEP_SECCOMP:
        return "filter system calls of";
    default:
        return "run";
    }
}

/* Read the child's reports until exec (or its end) closes the pipe. */
static enum at_rc read_reports(int fd, const char *program, unsigned *lack, struct at_err *err)
{
    struct child_report report;
    for (;;) {
        ssize_t n = read(fd, &report, sizeof report);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n != (ssize_t)sizeof report) {
            return AT_OK;
        }
        if (report.failed_step != CHILD_STEP_NONE) {
            return at_err_set_errno(err, report.errno_value, "cannot %s %s",
                                    step_text(report.failed_step), program);
        }
        *lack |= report.lack;
    }
}

static enum at_rc spawn(struct child_plan *plan, struct at_process *ret, unsigned *ret_lack,
                        struct at_err *err)
{
    int pipe_fds[2];
    if (pipe2(pipe_fds, O_CLOEXEC) != 0) {
        return at_err_set_errno(err, errno, "cannot make a pipe");
    }
    /* Above the standard streams, which the child overwrites. */
    plan->report_fd = fcntl(pipe_fds[1], F_DUPFD_CLOEXEC, 3);
    close(pipe_fds[1]);
    if (plan->report_fd < 0) {
        close(pipe_fds[0]);
        return at_err_set_errno(err, errno, "cannot make a pipe");
    }
    unsigned lack = 0;
    int pidfd = -1;
    /* No handler of ours may run in the child before it has reset them. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pid_t pid = clone_child(plan->clone_flags, &pidfd);
    if (pid < 0 && plan->clone_flags != 0 && !plan->strict) {
        plan->clone_flags = 0;
        lack |= AT_PROCESS_LACK_NAMESPACES;
        pid = clone_child(0, &pidfd);
    }
    if (pid == 0) {
        at_process_child(plan);
    }
    int why = errno;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    close(plan->report_fd);
    if (pid < 0) {
        close(pipe_fds[0]);
        return at_err_set_errno(err, why, "cannot start a process");
    }
    enum at_rc rc = read_reports(pipe_fds[0], plan->path, &lack, err);
    close(pipe_fds[0]);
    if (rc != AT_OK) {
        waitpid(pid, NULL, 0);
        close(pidfd);
        return rc;
    }
    *ret = (struct at_process){.pid = pid, .pidfd = pidfd};
    if (ret_lack != NULL) {
        *ret_lack = lack;
    }
    return AT_OK;
}

enum at_rc at_process_start(const struct at_process_options *options, bool strict,
                            struct at_process *ret, unsigned *ret_lack, struct at_err *err)
{
    assert(options->argv != NULL);
    if (options->argv[0] == NULL) {
        return at_err_set(err, AT_INVALID, "no program is named");
    }
    struct child_plan plan = {
        .options = options,
        .envp = options->envp != NULL ? options->envp : ENV_DEFAULT,
        .strict = strict,
        .clone_flags = options->new_pid_ns ? CLONE_NEWPID : 0,
    };
    AT_CLEANUP(at_cleanup_free) char *path = NULL;
    enum at_rc rc = look_up(options->argv[0], plan.envp, &path, err);
    if (rc != AT_OK) {
        return rc;
    }
    plan.path = path;
    if (options->seccomp) {
        rc = at_seccomp_program(&plan.seccomp, err);
        if (rc != AT_OK && strict) {
            return rc;
        }
    }
    rc = spawn(&plan, ret, ret_lack, err);
    at_free(plan.seccomp.filter);
    return rc;
}

enum at_rc at_process_adopt(pid_t pid, uint64_t start_ticks, struct at_process *ret,
                            struct at_err *err)
{
    int fd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    if (fd < 0) {
        return at_err_set(err, AT_NOT_FOUND, "process %d is gone", (int)pid);
    }
    if (at_process_start_ticks(pid) != start_ticks || start_ticks == 0) {
        close(fd);
        return at_err_set(err, AT_NOT_FOUND, "process %d is another one now", (int)pid);
    }
    *ret = (struct at_process){.pid = pid, .pidfd = fd};
    return AT_OK;
}

enum at_rc at_process_reap(struct at_process *p, int *ret_exit_code, int *ret_signal)
{
    int status;
    pid_t got;
    do {
        got = waitpid(p->pid, &status, WNOHANG);
    } while (got < 0 && errno == EINTR);
    if (got == 0) {
        return AT_AGAIN;
    }
    if (got < 0) {
        return AT_NOT_FOUND;
    }
    *ret_exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    *ret_signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    return AT_OK;
}

bool at_process_has_ended(const struct at_process *p)
{
    struct pollfd end = {.fd = p->pidfd, .events = POLLIN};
    return poll(&end, 1, 0) > 0;
}

void at_process_signal(const struct at_process *p, int signal_number)
{
    syscall(SYS_pidfd_send_signal, p->pidfd, signal_number, NULL, 0);
}

void at_process_signal_group(const struct at_process *p, int signal_number)
{
    assert(p->pid > 1);
    kill(-p->pid, signal_number);
}

void at_process_close(struct at_process *p)
{
    if (p->pidfd >= 0) {
        close(p->pidfd);
    }
    p->pidfd = -1;
}
