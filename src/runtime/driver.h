/* What runs an instance. One table of functions per driver (process, oci); callers never see which.
 * All calls on the loop thread; slow parts go to the pool. */
#ifndef AT_RUNTIME_DRIVER_H
#define AT_RUNTIME_DRIVER_H

#include "core/json.h"
#include "loop/pool.h"
#include "sys/cgroup.h"
#include "sys/process.h"

struct at_runtime;      /* one driver, opened */
struct at_runtime_task; /* one running instance */

struct at_runtime_spec {
    const char *id;          /* instance uid: unique, safe in file names */
    const char *node;        /* node name: part of the cgroup's path */
    const char *dir;         /* private writable folder of the instance, made by the caller */
    const char *log_path;    /* stdout and stderr are appended here */
    const char *image;       /* oci: "oci:/layout:tag" or "docker://..."; NULL for process */
    const char *const *argv; /* NULL-terminated; for oci empty means the image's own, and an
                                argv[0] of "" stands for the image's entrypoint */
    const char *const *envp;
    const char *working_dir;
    int64_t uid; /* -1: driver's default (process: private unprivileged user; oci: image's) */
    const char *user_of; /* process: whose private user, when not that of id; NULL: id's */
    bool own_network; /* nothing but a loopback of its own; where this machine cannot make it, the
                         isolation line lacks AT_RUNTIME_OWN_NETWORK */
    struct at_cgroup_limits limits;
    const struct at_process_bind *binds; /* may be NULL; source NULL ends them. Where the driver
                                            cannot show them the isolation line says so */
    const char *const *readable_paths;   /* NULL-terminated: files it must be able to read (model
                                            file): oci mounts them read-only at the same path */
};

#define AT_RUNTIME_OWN_NETWORK "a network of its own"

/* A command beside a running task. */
struct at_runtime_exec {
    const char *const *argv;            /* NULL-terminated */
    int stdin_fd, stdout_fd, stderr_fd; /* -1: /dev/null; borrowed */
    bool terminal;                      /* all three are one terminal, to be its controlling one */
};

/* The task ended: exit code, or signal > 0. -1/-1: unknown (adopted after a restart). */
typedef void at_runtime_exit_fn(void *ctx, int exit_code, int signal_number);
/* rc AT_OK: task is running, pid its first process; isolation: one line for people, what is in
 * force and what lacks. */
typedef void at_runtime_started_fn(void *ctx, enum at_rc rc, struct at_runtime_task *task, int pid,
                                   const char *isolation, const struct at_err *err);

struct at_runtime_ops {
    const char *name;
    /* err: AT_UNSUPPORTED this machine lacks something, with the reason. */
    enum at_rc (*open)(struct at_loop *loop, struct at_pool *pool, const char *state_dir,
                       struct at_runtime **ret, struct at_err *err);
    void (*close)(struct at_runtime *rt); /* tasks keep running */
    /* started is called once, later. on_exit once after a successful start, unless the driver is
     * closed before. */
    void (*start)(struct at_runtime *rt, const struct at_runtime_spec *spec,
                  at_runtime_started_fn *started, at_runtime_exit_fn *on_exit, void *ctx);
    /* A task that outlived the agent: from the record that `describe` gave. err: AT_NOT_FOUND it is
     * gone. */
    enum at_rc (*adopt)(struct at_runtime *rt, const json_t *record, at_runtime_exit_fn *on_exit,
                        void *ctx, struct at_runtime_task **ret, int *ret_pid, struct at_err *err);
    json_t *(*describe)(const struct at_runtime_task *task); /* what adopt needs; own: caller */
    void (*signal)(struct at_runtime_task *task,
                   int signal_number); /* SIGTERM: polite; SIGKILL: everything in its cgroup */
    /* May be NULL. Start a command as the task's user, in its namespaces and control group, with
     * its environment and folder. err: AT_NOT_FOUND no such program, or the task is gone. own: *ret
     * is the caller's to watch, to signal as a group, to reap. */
    enum at_rc (*exec)(struct at_runtime_task *task, const struct at_runtime_exec *what,
                       struct at_process *ret, struct at_err *err);
    enum at_rc (*usage)(struct at_runtime_task *task, struct at_cgroup_usage *ret);
    void (*release)(
        struct at_runtime_task *task); /* after on_exit: removes cgroup, container; frees task */
    /* Remove what a crashed run left under id (cgroup, container). */
    void (*sweep)(struct at_runtime *rt, const char *node, const char *id);
};

const struct at_runtime_ops *at_runtime_process(void);
const struct at_runtime_ops *at_runtime_oci(void);

#endif
