/* Driver `process`: an ordinary child of the agent, in its own session, user, namespaces and
 * control group, without ways to gain rights. */
#include "core/mem.h"
#include "core/units.h"
#include "runtime/supervise.h"
#include "sys/file.h"
#include "sys/machine.h"

#include <assert.h>
#include <signal.h>
#include <string.h>

struct at_runtime {
    struct at_loop *loop;
    struct at_runtime_task *tasks;
    bool root;
};

struct at_runtime_task {
    struct at_runtime *rt;
    struct at_runtime_task *next;
    char *id, *node;
    struct at_supervised run;
    at_runtime_exit_fn *on_exit;
    void *ctx;
    /* Until `started` has been called. */
    at_runtime_started_fn *started;
    at_timer_id start_timer;
    enum at_rc start_rc;
    struct at_err start_err;
    struct at_buf isolation;
};

static enum at_rc process_open(struct at_loop *loop, struct at_pool *pool, const char *state_dir,
                               struct at_runtime **ret, struct at_err *err)
{
    (void)pool;
    (void)state_dir;
    (void)err;
    struct at_machine machine;
    at_machine_read(&machine);
    struct at_runtime *rt = AT_NEW(struct at_runtime);
    rt->loop = loop;
    rt->root = machine.root;
    *ret = rt;
    return AT_OK;
}

static struct at_runtime_task *task_new(struct at_runtime *rt, const char *node, const char *id,
                                        at_runtime_exit_fn *on_exit, void *ctx)
{
    struct at_runtime_task *task = AT_NEW(struct at_runtime_task);
    task->rt = rt;
    task->id = at_strdup(id);
    task->node = at_strdup(node);
    task->on_exit = on_exit;
    task->ctx = ctx;
    task->next = rt->tasks;
    rt->tasks = task;
    return task;
}

static void task_free(struct at_runtime_task *task)
{
    struct at_runtime_task **at = &task->rt->tasks;
    while (*at != task) {
        assert(*at != NULL);
        at = &(*at)->next;
    }
    *at = task->next;
    at_loop_timer_cancel(task->rt->loop, task->start_timer);
    at_supervise_forget(&task->run);
    at_cgroup_free(task->run.cgroup);
    at_free(task->run.mark);
    at_buf_done(&task->isolation);
    at_free(task->id);
    at_free(task->node);
    at_free(task);
}

static void process_close(struct at_runtime *rt)
{
    if (rt == NULL) {
        return;
    }
    while (rt->tasks != NULL) {
        task_free(rt->tasks);
    }
    at_free(rt);
}

static void on_end(void *owner, int exit_code, int signal_number)
{
    struct at_runtime_task *task = owner;
    /* Whatever the first process left behind must not outlive it. */
    at_supervise_kill(&task->run);
    task->on_exit(task->ctx, exit_code, signal_number);
}

/* The user to run as: the one asked for, or a private one where the files allow it. */
static int64_t choose_user(const struct at_runtime *rt, const struct at_runtime_spec *spec,
                           struct at_buf *lacks)
{
    if (!rt->root) {
        at_supervise_note(lacks, ", own user (the agent is not root)");
        return -1;
    }
    const char *whose = spec->user_of != NULL ? spec->user_of : spec->id;
    int64_t uid = spec->uid >= 0 ? spec->uid : at_supervise_uid(whose);
    if (at_file_chown(spec->dir, uid, uid, NULL) != AT_OK ||
        at_file_chown(spec->log_path, uid, uid, NULL) != AT_OK) {
        at_supervise_note(lacks, ", own user (files cannot be given to it)");
        return -1;
    }
    if (spec->uid >= 0) {
        return uid; /* as asked, whatever it can read */
    }
    const char *blocked = !at_file_readable_by(spec->dir, uid, uid) ? spec->dir : NULL;
    if (strchr(spec->argv[0], '/') != NULL && at_file_exists(spec->argv[0]) &&
        !at_file_readable_by(spec->argv[0], uid, uid)) {
        blocked = spec->argv[0];
    }
    const char *const *path = spec->readable_paths;
    for (; path != NULL && *path != NULL; path++) {
        blocked = at_file_readable_by(*path, uid, uid) ? blocked : *path;
    }
    if (blocked != NULL) {
        at_supervise_note(lacks, ", own user (%s is closed to other users)", blocked);
        /* It runs as us, without the capability to pass over owners: its files are ours again. */
        if (at_file_chown(spec->dir, 0, 0, NULL) != AT_OK ||
            at_file_chown(spec->log_path, 0, 0, NULL) != AT_OK) {
            at_supervise_note(lacks, ", own folder (it cannot be given back)");
        }
        return -1;
    }
    return uid;
}

static void describe_isolation(struct at_runtime_task *task, const struct at_cgroup_limits *limits,
                               int64_t uid, unsigned lack, bool own_network, struct at_buf *lacks)
{
    struct at_buf *text = &task->isolation;
    at_supervise_note(text, "process: no capabilities, no_new_privs");
    if ((lack & AT_PROCESS_LACK_USER) != 0) {
        at_supervise_note(lacks, ", own user (refused)");
    } else if (uid >= 0) {
        at_supervise_note(text, ", user %lld", (long long)uid);
    }
    if ((lack & AT_PROCESS_LACK_NAMESPACES) != 0) {
        at_supervise_note(lacks, ", namespaces");
    } else {
        at_supervise_note(text, ", own mount, ipc and uts namespaces");
    }
    if (own_network && (lack & AT_PROCESS_LACK_NETWORK) != 0) {
        at_supervise_note(lacks, ", networks apart from its own");
    } else if (own_network) {
        at_supervise_note(text, ", " AT_RUNTIME_OWN_NETWORK);
    }
    if ((lack & AT_PROCESS_LACK_BINDS) != 0) {
        at_supervise_note(lacks, ", files shown in its mount namespace");
    }
    if ((lack & AT_PROCESS_LACK_SECCOMP) != 0) {
        at_supervise_note(lacks, ", seccomp");
    } else {
        at_supervise_note(text, ", seccomp");
    }
    if ((lack & AT_PROCESS_LACK_CGROUP) != 0) {
        at_supervise_note(lacks, ", control groups (cannot join)");
    } else {
        struct at_cgroup_limits kept = at_supervise_kept(&task->run, limits);
        at_supervise_note_limits(text, &kept);
    }
    if (lacks->len > 0) {
        at_supervise_note(text, "; this machine lacks: %s", lacks->data + 2);
    }
}

/* The environment and the mark, borrowing both. own: caller at_free of the list. */
static const char **with_mark(const char *const *envp, const char *mark)
{
    size_t n = 0;
    while (envp != NULL && envp[n] != NULL) {
        n++;
    }
    const char **list = at_alloc((n + 2) * sizeof *list);
    for (size_t i = 0; i < n; i++) {
        list[i] = envp[i];
    }
    list[n] = mark;
    return list;
}

static enum at_rc run(struct at_runtime_task *task, const struct at_runtime_spec *spec,
                      struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf lacks = {0};
    struct at_cgroup_limits limits = at_supervise_limits(spec);
    int log_fd;
    enum at_rc rc = at_file_open_append(spec->log_path, 0640, &log_fd, err);
    if (rc != AT_OK) {
        return rc;
    }
    at_supervise_cgroup(&task->run, spec->node, spec->id, &limits, &lacks);
    int64_t uid = choose_user(task->rt, spec, &lacks);
    task->run.mark = at_supervise_mark(spec->id);
    AT_CLEANUP(at_cleanup_free) const char **envp = with_mark(spec->envp, task->run.mark);
    struct at_process_options options = {
        .argv = spec->argv,
        .envp = envp,
        .cwd =
            spec->working_dir != NULL && *spec->working_dir != '\0' ? spec->working_dir : spec->dir,
        .stdin_fd = -1,
        .stdout_fd = log_fd,
        .stderr_fd = log_fd,
        .uid = uid,
        .gid = uid,
        .new_session = true,
        .no_new_privs = true,
        .no_capabilities = true,
        .seccomp = true,
        .new_mount_ns = true,
        .binds = spec->binds,
        .new_ipc_ns = true,
        .new_uts_ns = true,
        .new_net_ns = spec->own_network,
        .cgroup_procs = task->run.cgroup != NULL ? at_cgroup_procs_files(task->run.cgroup) : NULL,
    };
    unsigned lack = 0;
    rc = at_process_start(&options, false, &task->run.process, &lack, err);
    at_file_close(log_fd);
    if (rc == AT_OK) {
        task->run.start_ticks = at_process_start_ticks(task->run.process.pid);
        describe_isolation(task, &limits, uid, lack, spec->own_network, &lacks);
    }
    return rc;
}

/* The answer to start, from the loop. */
static void tell_started(void *ctx)
{
    struct at_runtime_task *task = ctx;
    at_runtime_started_fn *started = task->started;
    task->start_timer = 0;
    task->started = NULL;
    if (task->start_rc != AT_OK) {
        at_supervise_remove(&task->run);
        struct at_err err = task->start_err;
        enum at_rc rc = task->start_rc;
        void *owner = task->ctx;
        task_free(task);
        started(owner, rc, NULL, 0, NULL, &err);
        return;
    }
    /* Watched only from now on, so that the end is never told before the start. */
    at_supervise_watch(&task->run, task->rt->loop, on_end, task);
    started(task->ctx, AT_OK, task, task->run.process.pid, task->isolation.data, NULL);
}

static void process_start(struct at_runtime *rt, const struct at_runtime_spec *spec,
                          at_runtime_started_fn *started, at_runtime_exit_fn *on_exit, void *ctx)
{
    struct at_runtime_task *task = task_new(rt, spec->node, spec->id, on_exit, ctx);
    task->started = started;
    if (spec->argv == NULL || spec->argv[0] == NULL) {
        task->start_rc = at_err_set(&task->start_err, AT_INVALID, "no command is given");
    } else {
        task->start_rc = run(task, spec, &task->start_err);
    }
    task->start_timer = at_loop_timer(rt->loop, 0, tell_started, task);
}

static enum at_rc process_adopt(struct at_runtime *rt, const json_t *record,
                                at_runtime_exit_fn *on_exit, void *ctx,
                                struct at_runtime_task **ret, int *ret_pid, struct at_err *err)
{
    struct at_supervised run = {0};
    enum at_rc rc = at_supervise_adopt(&run, record, err);
    if (rc != AT_OK) {
        return rc;
    }
    struct at_runtime_task *task = task_new(rt, at_json_str_at(record, "node", ""),
                                            at_json_str_at(record, "id", ""), on_exit, ctx);
    task->run = run;
    at_supervise_watch(&task->run, rt->loop, on_end, task);
    *ret = task;
    *ret_pid = run.process.pid;
    return AT_OK;
}

static json_t *process_describe(const struct at_runtime_task *task)
{
    return at_supervise_describe(&task->run, "process", task->node, task->id);
}

static void process_signal(struct at_runtime_task *task, int signal_number)
{
    if (signal_number == SIGKILL) {
        at_supervise_kill(&task->run);
    } else if (task->run.process.pid > 0) {
        at_process_signal_group(&task->run.process, signal_number);
    }
}

/* From /proc, not from memory: the same for tasks that an earlier agent started. */
static enum at_rc process_exec(struct at_runtime_task *task, const struct at_runtime_exec *what,
                               struct at_process *ret, struct at_err *err)
{
    struct at_process_look look;
    enum at_rc rc = at_process_look(task->run.process.pid, &look, err);
    if (rc != AT_OK) {
        return rc;
    }
    struct at_process_options options = {
        .argv = what->argv,
        .envp = look.envp,
        .cwd = look.cwd,
        .stdin_fd = what->stdin_fd,
        .stdout_fd = what->stdout_fd,
        .stderr_fd = what->stderr_fd,
        .uid = task->rt->root ? look.uid : -1,
        .gid = task->rt->root ? look.gid : -1,
        .new_session = true,
        .controlling_terminal = what->terminal,
        .no_new_privs = true,
        .no_capabilities = true,
        .seccomp = true,
        .join = task->rt->root ? &task->run.process : NULL,
        .cgroup_procs = task->run.cgroup != NULL ? at_cgroup_procs_files(task->run.cgroup) : NULL,
    };
    rc = at_process_start(&options, false, ret, NULL, err);
    at_process_look_done(&look);
    return rc;
}

static enum at_rc process_usage(struct at_runtime_task *task, struct at_cgroup_usage *ret)
{
    return at_supervise_usage(&task->run, ret);
}

static void process_release(struct at_runtime_task *task)
{
    at_supervise_kill(&task->run);
    at_supervise_remove(&task->run);
    task_free(task);
}

static void process_sweep(struct at_runtime *rt, const char *node, const char *id)
{
    (void)rt;
    at_supervise_sweep(node, id);
}

static const struct at_runtime_ops PROCESS = {
    .name = "process",
    .open = process_open,
    .close = process_close,
    .start = process_start,
    .adopt = process_adopt,
    .describe = process_describe,
    .signal = process_signal,
    .exec = process_exec,
    .usage = process_usage,
    .release = process_release,
    .sweep = process_sweep,
};

const struct at_runtime_ops *at_runtime_process(void)
{
    return &PROCESS;
}
