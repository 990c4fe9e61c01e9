/* What the parent hands to the child between clone and exec. The child allocates nothing and calls
 * only what is safe after fork in a program with threads. */
#ifndef AT_SYS_PROCESS_PRIV_H
#define AT_SYS_PROCESS_PRIV_H

#include "sys/process.h"

#include <linux/filter.h>

struct child_plan {
    const struct at_process_options *options;
    const char *path; /* program, already looked up */
    const char *const *envp;
    bool strict;
    unsigned clone_flags; /* namespaces that clone has made already */
    struct sock_fprog seccomp;
    int report_fd;
};

/* Sent over report_fd: lack bits, or the step that failed. The pipe closes on a good exec. */
struct child_report {
    unsigned lack;
    int failed_step; /* 0: none */
    int errno_value;
};

enum child_step {
    CHILD_STEP_NONE,
    CHILD_STEP_STDIO,
    CHILD_STEP_CGROUP,
    CHILD_STEP_NAMESPACES,
    CHILD_STEP_USER,
    CHILD_STEP_CWD,
    CHILD_STEP_SECCOMP,
    CHILD_STEP_EXEC,
};

_Noreturn void at_process_child(const struct child_plan *plan);

/* The deny list as a BPF program for this machine. own: caller at_free(ret->filter). err:
 * AT_UNSUPPORTED. */
enum at_rc at_seccomp_program(struct sock_fprog *ret, struct at_err *err) AT_WARN_UNUSED;

#endif
