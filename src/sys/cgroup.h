/* Control groups, version 1 (cpu, memory, pids hierarchies) or 2, whichever the machine has
 * writable. */
#ifndef AT_SYS_CGROUP_H
#define AT_SYS_CGROUP_H

#include "core/err.h"

struct at_cgroup;

struct at_cgroup_limits {
    int64_t cpu_milli;    /* 0: none */
    int64_t memory_bytes; /* 0: none */
    int64_t pids;         /* 0: none */
};

struct at_cgroup_usage {
    int64_t cpu_ns;
    int64_t memory_bytes;
    int64_t oom_kills;
};

/* Make (or open, when it is there) the group `name` ("atoll/<node>/<instance uid>") and set its
 * limits. err: AT_UNSUPPORTED no writable hierarchy, with the reason. own: at_cgroup_free (does not
 * remove the group). */
enum at_rc at_cgroup_open(const char *name, const struct at_cgroup_limits *limits,
                          struct at_cgroup **ret, struct at_err *err) AT_WARN_UNUSED;
void at_cgroup_free(struct at_cgroup *cg);
/* Limits that were asked for and that this machine does not keep ("memory, pids"), or NULL. */
const char *at_cgroup_lack(const struct at_cgroup *cg);
/* NULL-terminated list of cgroup.procs paths, borrowed. */
const char *const *at_cgroup_procs_files(const struct at_cgroup *cg);
enum at_rc at_cgroup_read(const struct at_cgroup *cg, struct at_cgroup_usage *ret) AT_WARN_UNUSED;
void at_cgroup_kill(
    const struct at_cgroup *cg); /* SIGKILL to every member, repeated until none is left or 1 s */
enum at_rc at_cgroup_remove(const struct at_cgroup *cg, struct at_err *err) AT_WARN_UNUSED;

/* Bytes that the group this process is in may take; 0: nothing limits it, or it cannot be told. */
int64_t at_cgroup_self_memory(void);

/* Remove the empty groups below `parent` ("atoll/<node>") that nobody has touched for some seconds:
 * left behind by an agent that was killed together with what it ran. Members are never killed. */
void at_cgroup_sweep(const char *parent);

#endif
