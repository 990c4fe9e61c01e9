/* Driver `oci`: a container by runc. The image is unpacked once and shared; each container has an
 * overlay (or, where overlays do not work, a copy) on it. runc stays as the container's parent, so
 * that the exit code is known and the container outlives the agent. */
#include "core/map.h"
#include "core/mem.h"
#include "core/str.h"
#include "runtime/oci_priv.h"
#include "sys/file.h"
#include "sys/machine.h"
#include "sys/mount.h"
#include "sys/sys.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

#define POLL_NS (INT64_C(5) * 1000000)
#define KILL_RUNC_NS (INT64_C(2) * 1000000000)

struct at_runtime {
    struct at_loop *loop;
    struct at_pool *pool;
    struct shared *shared;
    struct at_runtime_task *tasks;
    struct at_map *removing; /* ids whose container is being removed: a new start waits */
};

/* What jobs in the pool may touch while the driver closes. */
struct shared {
    int refs;              /* atomic */
    bool closed;           /* atomic: nobody waits for images any more */
    struct at_runtime *rt; /* loop thread only; NULL once closed */
    char *state_dir;
    pthread_mutex_t image_lock; /* one fetch or unpack at a time */
};

/* What must be done off the loop to make a container, and what came of it. Owned by the pool until
 * `done`; task is NULL once nobody wants it any more (loop thread only). */
struct job {
    struct shared *shared;
    struct at_runtime_task *task;
    struct at_runtime_spec spec; /* deep copy */
    struct at_cgroup_limits limits;
    char *bundle;
    bool copied; /* no overlay */
    bool submitted;
    enum at_rc rc;
    struct at_err err;
};

enum task_state { TASK_PREPARING, TASK_STARTING, TASK_RUNNING, TASK_ENDED };

struct at_runtime_task {
    struct at_runtime *rt;
    struct at_runtime_task *next;
    enum task_state state;
    char *id, *node, *bundle, *log_path;
    struct job *job;
    struct at_supervised run; /* runc, and the container's group */
    pid_t pid;                /* the container's first process */
    struct at_err refusal;
    at_timer_id timer;
    int64_t start_deadline_ns;
    struct at_buf isolation, lacks;
    struct at_cgroup_limits limits;
    at_runtime_started_fn *started;
    at_runtime_exit_fn *on_exit;
    void *ctx;
};

/* --- copies of what the caller lent --- */

static const char *const *copy_strings(const char *const *items)
{
    size_t n = 0;
    while (items != NULL && items[n] != NULL) {
        n++;
    }
    const char **copy = at_alloc((n + 1) * sizeof *copy);
    for (size_t i = 0; i < n; i++) {
        copy[i] = at_strdup(items[i]);
    }
    return copy;
}

static void free_strings(const char *const *items)
{
    for (const char *const *s = items; s != NULL && *s != NULL; s++) {
        at_free((void *)*s);
    }
    at_free((void *)items);
}

static const struct at_process_bind *copy_binds(const struct at_process_bind *from)
{
    size_t n = 0;
    while (from != NULL && from[n].source != NULL) {
        n++;
    }
    struct at_process_bind *to = at_alloc((n + 1) * sizeof *to);
    for (size_t i = 0; i < n; i++) {
        to[i] = (struct at_process_bind){.source = at_strdup(from[i].source),
                                         .target = at_strdup(from[i].target),
                                         .writable = from[i].writable};
    }
    to[n] = (struct at_process_bind){0};
    return to;
}

static void free_binds(const struct at_process_bind *binds)
{
    for (size_t i = 0; binds != NULL && binds[i].source != NULL; i++) {
        at_free((void *)binds[i].source);
        at_free((void *)binds[i].target);
    }
    at_free((void *)binds);
}

static void spec_copy(struct at_runtime_spec *to, const struct at_runtime_spec *from)
{
    *to = *from;
    to->user_of = NULL; /* an image has a user of its own */
    to->id = at_strdup(from->id);
    to->node = at_strdup(from->node);
    to->dir = at_strdup(from->dir);
    to->log_path = at_strdup(from->log_path);
    to->image = at_strdup(from->image);
    to->working_dir = at_strdup(from->working_dir);
    to->argv = copy_strings(from->argv);
    to->envp = copy_strings(from->envp);
    to->readable_paths = copy_strings(from->readable_paths);
    to->binds = copy_binds(from->binds);
}

static void spec_done(struct at_runtime_spec *spec)
{
    const char *const texts[] = {spec->id,       spec->node,  spec->dir,
                                 spec->log_path, spec->image, spec->working_dir};
    for (size_t i = 0; i < AT_ARRAY_LEN(texts); i++) {
        at_free((void *)texts[i]);
    }
    free_strings(spec->argv);
    free_strings(spec->envp);
    free_strings(spec->readable_paths);
    free_binds(spec->binds);
}

static struct shared *shared_ref(struct shared *s)
{
    __atomic_add_fetch(&s->refs, 1, __ATOMIC_RELAXED);
    return s;
}

static void shared_unref(struct shared *s)
{
    if (__atomic_sub_fetch(&s->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        pthread_mutex_destroy(&s->image_lock);
        at_free(s->state_dir);
        at_free(s);
    }
}

static void job_free(struct job *job)
{
    spec_done(&job->spec);
    shared_unref(job->shared);
    at_free(job->bundle);
    at_free(job);
}

static char *bundle_path(const struct shared *shared, const char *id)
{
    return at_asprintf("%s/containers/%s", shared->state_dir, id);
}

static char *container_name(const char *id)
{
    return at_asprintf("atoll-%s", id);
}

/* --- removal: in the pool --- */

static void remove_container(const struct shared *shared, const char *id)
{
    AT_CLEANUP(at_cleanup_free) char *bundle = bundle_path(shared, id);
    AT_CLEANUP(at_cleanup_free) char *name = container_name(id);
    AT_CLEANUP(at_cleanup_free) char *root = at_asprintf("%s/runc", shared->state_dir);
    AT_CLEANUP(at_cleanup_free) char *runc_state = at_asprintf("%s/%s", root, name);
    AT_CLEANUP(at_cleanup_free) char *merged = at_asprintf("%s/rootfs", bundle);
    /* Each step may find its part gone already; what stays is found again by the next sweep. */
    enum at_rc rc = AT_OK;
    if (at_file_exists(runc_state)) {
        const char *argv[] = {"runc", "--root", root, "delete", "--force", name, NULL};
        rc = at_oci_command(argv, AT_RUNTIME_COMMAND_TIMEOUT_NS, NULL, NULL);
    }
    if (at_file_exists(bundle)) {
        rc = at_unmount(merged, NULL);
        rc = rc == AT_OK ? at_tree_remove(bundle, NULL) : rc;
    }
    (void)rc;
}

/* --- preparation: in the pool --- */

static enum at_rc make_rootfs(struct job *job, const struct at_oci_image *image, char **ret,
                              struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *upper = at_asprintf("%s/upper", job->bundle);
    AT_CLEANUP(at_cleanup_free) char *work = at_asprintf("%s/work", job->bundle);
    char *merged = at_asprintf("%s/rootfs", job->bundle);
    *ret = merged;
    enum at_rc rc = at_dir_make(upper, 0755, err);
    rc = rc == AT_OK ? at_dir_make(work, 0700, err) : rc;
    rc = rc == AT_OK ? at_dir_make(merged, 0755, err) : rc;
    if (rc != AT_OK || at_mount_overlay(image->rootfs, upper, work, merged, NULL) == AT_OK) {
        return rc;
    }
    job->copied = true;
    AT_CLEANUP(at_cleanup_free) char *from = at_asprintf("%s/.", image->rootfs);
    const char *argv[] = {"cp", "-a", "--reflink=auto", from, merged, NULL};
    return at_oci_command(argv, AT_RUNTIME_IMAGE_TIMEOUT_NS, &job->shared->closed, err);
}

static enum at_rc write_config(struct job *job, const struct at_oci_image *image,
                               const char *rootfs, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *config = NULL;
    enum at_rc rc = at_oci_config(&job->spec, image, &job->limits, rootfs, &config, err);
    if (rc != AT_OK) {
        return rc;
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/config.json", job->bundle);
    rc = at_json_dump(config, &text);
    return rc == AT_OK ? at_file_write_atomic(path, text.data, text.len, 0600, err) : rc;
}

/* The container's user must be able to write into its folder. */
static enum at_rc give_dir(const struct job *job, const struct at_oci_image *image,
                           struct at_err *err)
{
    int64_t uid = job->spec.uid;
    int64_t gid = uid;
    if (uid < 0) {
        uid = at_json_int_at(image->process, "user.uid", 0);
        gid = at_json_int_at(image->process, "user.gid", 0);
    }
    return at_file_chown(job->spec.dir, uid, gid, err);
}

static void prepare(void *ctx)
{
    struct job *job = ctx;
    struct at_oci_image image = {0};
    remove_container(job->shared, job->spec.id); /* of an earlier run */
    pthread_mutex_lock(&job->shared->image_lock);
    job->rc = at_oci_image_get(job->shared->state_dir, job->spec.image, &job->shared->closed,
                               &image, &job->err);
    pthread_mutex_unlock(&job->shared->image_lock);
    if (job->rc == AT_OK) {
        AT_CLEANUP(at_cleanup_free) char *rootfs = NULL;
        job->rc = make_rootfs(job, &image, &rootfs, &job->err);
        if (job->rc == AT_OK) {
            job->rc = write_config(job, &image, rootfs, &job->err);
        }
        if (job->rc == AT_OK) {
            job->rc = give_dir(job, &image, &job->err);
        }
    }
    at_oci_image_done(&image);
    if (job->rc != AT_OK) {
        remove_container(job->shared, job->spec.id);
    }
}

static void remove_work(void *ctx)
{
    struct job *job = ctx;
    remove_container(job->shared, job->spec.id);
}

static void submit_prepare(struct at_runtime_task *task);

static void remove_done(void *ctx)
{
    struct job *job = ctx;
    struct at_runtime *rt = job->shared->rt;
    if (rt != NULL) {
        at_map_remove(rt->removing, job->spec.id);
        for (struct at_runtime_task *t = rt->tasks; t != NULL; t = t->next) {
            if (strcmp(t->id, job->spec.id) == 0 && t->job != NULL && !t->job->submitted) {
                submit_prepare(t);
                break;
            }
        }
    }
    job_free(job);
}

/* In the pool, or here and now when its queue is full. */
static void remove_later(struct at_runtime *rt, const char *id)
{
    if (at_map_get(rt->removing, id) != NULL) {
        return;
    }
    struct job *job = AT_NEW(struct job);
    job->shared = shared_ref(rt->shared);
    job->spec.id = at_strdup(id);
    if (at_pool_submit(rt->pool, rt->loop, remove_work, remove_done, job) == AT_OK) {
        at_map_put(rt->removing, id, job);
        return;
    }
    remove_work(job);
    job_free(job);
}

/* --- tasks: on the loop --- */

static struct at_runtime_task *task_new(struct at_runtime *rt, const char *node, const char *id,
                                        at_runtime_exit_fn *on_exit, void *ctx)
{
    struct at_runtime_task *task = AT_NEW(struct at_runtime_task);
    task->rt = rt;
    task->id = at_strdup(id);
    task->node = at_strdup(node);
    task->bundle = bundle_path(rt->shared, id);
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
    if (task->job != NULL && task->job->submitted) {
        task->job->task = NULL;
    } else if (task->job != NULL) {
        job_free(task->job);
    }
    at_loop_timer_cancel(task->rt->loop, task->timer);
    at_supervise_forget(&task->run);
    at_cgroup_free(task->run.cgroup);
    at_free(task->run.mark);
    at_buf_done(&task->isolation);
    at_buf_done(&task->lacks);
    at_free(task->id);
    at_free(task->node);
    at_free(task->bundle);
    at_free(task->log_path);
    at_free(task);
}

static void fail_start(struct at_runtime_task *task, enum at_rc rc, const struct at_err *err)
{
    at_runtime_started_fn *started = task->started;
    void *ctx = task->ctx;
    struct at_err copy = *err;
    at_supervise_kill(&task->run);
    at_supervise_remove(&task->run);
    remove_later(task->rt, task->id);
    task_free(task);
    started(ctx, rc, NULL, 0, NULL, &copy);
}

/* "msg" of the last line in runc's own log. */
static void runc_message(const struct at_runtime_task *task, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/runc.log", task->bundle);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    AT_CLEANUP(at_cleanup_json) json_t *line = NULL;
    if (at_file_read(path, AT_RUNTIME_CONFIG_BYTES_MAX, &text, NULL) == AT_OK && text.len > 1) {
        text.data[text.len - 1] = '\0'; /* the last newline */
        const char *newline = strrchr(text.data, '\n');
        const char *last = newline != NULL ? newline + 1 : text.data;
        if (at_json_parse(last, strlen(last), &line, NULL) != AT_OK) {
            line = NULL;
        }
    }
    at_err_set(err, AT_UPSTREAM, "runc could not start the container: %s",
               at_json_str_at(line, "msg", "no reason given"));
}

static bool read_pid(struct at_runtime_task *task)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/pid", task->bundle);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    int64_t pid = 0;
    if (at_file_read(path, 64, &text, NULL) != AT_OK || text.len == 0 ||
        at_str_to_i64((struct at_str){text.data, text.len}, &pid) != AT_OK) {
        return false;
    }
    task->pid = (pid_t)pid;
    return pid > 0;
}

static void describe_isolation(struct at_runtime_task *task, bool copied, bool own_network)
{
    struct at_buf *text = &task->isolation;
    at_supervise_note(text, "oci: own pid, mount, ipc and uts namespaces, no capabilities, "
                            "no_new_privs, seccomp");
    if (own_network) {
        at_supervise_note(text, ", " AT_RUNTIME_OWN_NETWORK);
    }
    at_supervise_note_limits(text, &task->limits);
    if (copied) {
        at_supervise_note(&task->lacks, ", overlay mounts (the image was copied)");
    }
    if (task->lacks.len > 0) {
        at_supervise_note(text, "; this machine lacks: %s", task->lacks.data + 2);
    }
}

static void tell_started(struct at_runtime_task *task)
{
    task->state = TASK_RUNNING;
    at_loop_timer_cancel(task->rt->loop, task->timer);
    task->timer = 0;
    task->started(task->ctx, AT_OK, task, task->pid, task->isolation.data, NULL);
}

static void poll_pid(void *ctx)
{
    struct at_runtime_task *task = ctx;
    task->timer = 0;
    if (read_pid(task)) {
        tell_started(task);
    } else if (at_loop_now_ns(task->rt->loop) > task->start_deadline_ns) {
        struct at_err err;
        at_err_set(&err, AT_TIMEOUT, "runc did not start the container in time");
        fail_start(task, AT_TIMEOUT, &err);
    } else {
        task->timer = at_loop_timer(task->rt->loop, POLL_NS, poll_pid, task);
    }
}

/* runc has ended, so the container has too. */
static void on_runc_end(void *owner, int exit_code, int signal_number)
{
    struct at_runtime_task *task = owner;
    if (task->state == TASK_STARTING) {
        if (!read_pid(task)) {
            struct at_err err;
            runc_message(task, &err);
            fail_start(task, err.rc, &err);
            return;
        }
        tell_started(task);
    }
    task->state = TASK_ENDED;
    at_loop_timer_cancel(task->rt->loop, task->timer);
    task->timer = 0;
    at_supervise_kill(&task->run);
    /* runc answers 128+N when signal N ended the container. */
    if (signal_number == 0 && exit_code > 128 && exit_code <= 128 + 64) {
        signal_number = exit_code - 128;
    }
    task->on_exit(task->ctx, exit_code, signal_number);
}

static enum at_rc spawn_runc(struct at_runtime_task *task, struct at_err *err)
{
    int log_fd;
    enum at_rc rc = at_file_open_append(task->log_path, 0640, &log_fd, err);
    if (rc != AT_OK) {
        return rc;
    }
    AT_CLEANUP(at_cleanup_free) char *root = at_asprintf("%s/runc", task->rt->shared->state_dir);
    AT_CLEANUP(at_cleanup_free) char *log = at_asprintf("%s/runc.log", task->bundle);
    AT_CLEANUP(at_cleanup_free) char *pid_file = at_asprintf("%s/pid", task->bundle);
    AT_CLEANUP(at_cleanup_free) char *name = container_name(task->id);
    const char *argv[] = {"runc",
                          "--root",
                          root,
                          "--log",
                          log,
                          "--log-format",
                          "json",
                          "run",
                          "--bundle",
                          task->bundle,
                          "--pid-file",
                          pid_file,
                          "--no-new-keyring",
                          "--keep", /* until release: its group still tells what it used */
                          name,
                          NULL};
    char **envp = at_oci_environment();
    struct at_process_options options = {.argv = argv,
                                         .envp = (const char *const *)envp,
                                         .cwd = task->bundle,
                                         .stdin_fd = -1,
                                         .stdout_fd = log_fd,
                                         .stderr_fd = log_fd,
                                         .uid = -1,
                                         .gid = -1,
                                         .new_session = true};
    rc = at_process_start(&options, false, &task->run.process, NULL, err);
    at_oci_environment_free(envp);
    at_file_close(log_fd);
    return rc;
}

static void on_prepared(void *ctx)
{
    struct job *job = ctx;
    struct at_runtime_task *task = job->task;
    if (task == NULL) {
        job_free(job); /* the driver was closed; the next start or sweep clears the folder */
        return;
    }
    task->job = NULL;
    enum at_rc rc = job->rc;
    struct at_err err = job->err;
    bool copied = job->copied, own_network = job->spec.own_network;
    job_free(job);
    if (rc == AT_OK) {
        describe_isolation(task, copied, own_network);
        rc = spawn_runc(task, &err);
    }
    if (rc != AT_OK) {
        fail_start(task, rc, &err);
        return;
    }
    task->state = TASK_STARTING;
    task->run.start_ticks = at_process_start_ticks(task->run.process.pid);
    at_supervise_watch(&task->run, task->rt->loop, on_runc_end, task);
    task->start_deadline_ns = at_loop_now_ns(task->rt->loop) + AT_RUNTIME_START_TIMEOUT_NS;
    task->timer = at_loop_timer(task->rt->loop, POLL_NS, poll_pid, task);
}

static void refuse(void *ctx)
{
    struct at_runtime_task *task = ctx;
    task->timer = 0;
    fail_start(task, task->refusal.rc, &task->refusal);
}

static void submit_prepare(struct at_runtime_task *task)
{
    struct at_runtime *rt = task->rt;
    /* First the group: the container's configuration may ask only for limits that are kept here. */
    at_supervise_cgroup(&task->run, task->node, task->id, &task->limits, &task->lacks);
    task->limits = at_supervise_kept(&task->run, &task->limits);
    task->job->limits = task->limits;
    task->job->submitted = true;
    if (at_pool_submit(rt->pool, rt->loop, prepare, on_prepared, task->job) != AT_OK) {
        job_free(task->job);
        task->job = NULL;
        at_err_set(&task->refusal, AT_EXHAUSTED, "too many containers are being started");
        task->timer = at_loop_timer(rt->loop, 0, refuse, task);
    }
}

/* --- the table --- */

static enum at_rc require(const char *program, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_strdup(at_sys_getenv("PATH"));
    struct at_str rest = at_str_of(path);
    while (rest.len > 0) {
        struct at_str dir = at_str_cut(&rest, ':');
        AT_CLEANUP(at_cleanup_free)
        char *file = at_asprintf("%.*s/%s", (int)dir.len, dir.ptr, program);
        if (at_file_executable(file)) {
            return AT_OK;
        }
    }
    return at_err_set(err, AT_UNSUPPORTED, "%s is not installed", program);
}

/* runc does not start without control groups. */
static enum at_rc require_cgroups(struct at_err *err)
{
    struct at_cgroup *cg = NULL;
    enum at_rc rc = at_cgroup_open("atoll/oci-check", &(struct at_cgroup_limits){0}, &cg, err);
    if (rc == AT_OK) {
        rc = at_cgroup_remove(cg, err);
        at_cgroup_free(cg);
    }
    return rc;
}

static enum at_rc oci_open(struct at_loop *loop, struct at_pool *pool, const char *state_dir,
                           struct at_runtime **ret, struct at_err *err)
{
    struct at_machine machine;
    at_machine_read(&machine);
    if (!machine.root) {
        return at_err_set(err, AT_UNSUPPORTED, "containers need an agent that runs as root");
    }
    const char *const programs[] = {"runc", "umoci", "skopeo"};
    for (size_t i = 0; i < AT_ARRAY_LEN(programs); i++) {
        enum at_rc rc = require(programs[i], err);
        if (rc != AT_OK) {
            return rc;
        }
    }
    AT_CLEANUP(at_cleanup_free) char *containers = at_asprintf("%s/containers", state_dir);
    enum at_rc rc = require_cgroups(err);
    rc = rc == AT_OK ? at_dir_make(containers, 0711, err) : rc;
    if (rc != AT_OK) {
        return rc;
    }
    struct at_runtime *rt = AT_NEW(struct at_runtime);
    rt->loop = loop;
    rt->pool = pool;
    rt->shared = AT_NEW(struct shared);
    rt->shared->refs = 1;
    rt->shared->rt = rt;
    rt->removing = at_map_new();
    rt->shared->state_dir = at_strdup(state_dir);
    pthread_mutex_init(&rt->shared->image_lock, NULL);
    *ret = rt;
    return AT_OK;
}

static void oci_close(struct at_runtime *rt)
{
    if (rt == NULL) {
        return;
    }
    while (rt->tasks != NULL) {
        task_free(rt->tasks);
    }
    rt->shared->rt = NULL;
    __atomic_store_n(&rt->shared->closed, true, __ATOMIC_RELEASE);
    shared_unref(rt->shared);
    at_map_free(rt->removing);
    at_free(rt);
}

static void oci_start(struct at_runtime *rt, const struct at_runtime_spec *spec,
                      at_runtime_started_fn *started, at_runtime_exit_fn *on_exit, void *ctx)
{
    struct at_runtime_task *task = task_new(rt, spec->node, spec->id, on_exit, ctx);
    task->started = started;
    task->log_path = at_strdup(spec->log_path);
    task->limits = at_supervise_limits(spec);
    if (at_oci_image_check(spec->image, &task->refusal) != AT_OK) {
        task->timer = at_loop_timer(rt->loop, 0, refuse, task);
        return;
    }
    struct job *job = AT_NEW(struct job);
    job->shared = shared_ref(rt->shared);
    job->task = task;
    spec_copy(&job->spec, spec);
    job->bundle = at_strdup(task->bundle);
    task->job = job;
    if (at_map_get(rt->removing, task->id) == NULL) {
        submit_prepare(task);
    }
}

static enum at_rc oci_adopt(struct at_runtime *rt, const json_t *record,
                            at_runtime_exit_fn *on_exit, void *ctx, struct at_runtime_task **ret,
                            int *ret_pid, struct at_err *err)
{
    struct at_supervised run = {0};
    enum at_rc rc = at_supervise_adopt(&run, record, err);
    if (rc != AT_OK) {
        return rc;
    }
    struct at_runtime_task *task = task_new(rt, at_json_str_at(record, "node", ""),
                                            at_json_str_at(record, "id", ""), on_exit, ctx);
    task->run = run;
    task->state = TASK_RUNNING;
    task->pid = (pid_t)at_json_int_at(record, "containerPid", 0);
    at_supervise_watch(&task->run, rt->loop, on_runc_end, task);
    *ret = task;
    *ret_pid = task->pid;
    return AT_OK;
}

static json_t *oci_describe(const struct at_runtime_task *task)
{
    json_t *record = at_supervise_describe(&task->run, "oci", task->node, task->id);
    json_object_set_new(record, "containerPid", json_integer(task->pid));
    return record;
}

/* The container is dead but runc stays: a fault of runc. End it too. */
static void kill_runc(void *ctx)
{
    struct at_runtime_task *task = ctx;
    task->timer = 0;
    at_supervise_kill(&task->run);
}

static void oci_signal(struct at_runtime_task *task, int signal_number)
{
    if (task->run.process.pid <= 0) {
        return;
    }
    if (signal_number != SIGKILL) {
        at_process_signal(&task->run.process, signal_number); /* runc passes it on */
        return;
    }
    if (task->run.cgroup != NULL) {
        at_cgroup_kill(task->run.cgroup);
    }
    if (task->timer == 0) {
        task->timer = at_loop_timer(task->rt->loop, KILL_RUNC_NS, kill_runc, task);
    }
}

#define EXEC_ARGS_MAX 512

static enum at_rc oci_exec(struct at_runtime_task *task, const struct at_runtime_exec *what,
                           struct at_process *ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *root = at_asprintf("%s/runc", task->rt->shared->state_dir);
    AT_CLEANUP(at_cleanup_free) char *log = at_asprintf("%s/exec.log", task->bundle);
    AT_CLEANUP(at_cleanup_free) char *name = container_name(task->id);
    const char *argv[EXEC_ARGS_MAX + 1] = {"runc", "--root", root, "--log", log, "exec", name};
    size_t n = 7;
    for (const char *const *arg = what->argv; *arg != NULL; arg++) {
        if (n == EXEC_ARGS_MAX) {
            return at_err_set(err, AT_TOO_LARGE, "the command has too many arguments");
        }
        argv[n++] = *arg;
    }
    char **envp = at_oci_environment();
    struct at_process_options options = {.argv = argv,
                                         .envp = (const char *const *)envp,
                                         .stdin_fd = what->stdin_fd,
                                         .stdout_fd = what->stdout_fd,
                                         .stderr_fd = what->stderr_fd,
                                         .uid = -1,
                                         .gid = -1,
                                         .new_session = true,
                                         .controlling_terminal = what->terminal};
    enum at_rc rc = at_process_start(&options, false, ret, NULL, err);
    at_oci_environment_free(envp);
    return rc;
}

static enum at_rc oci_usage(struct at_runtime_task *task, struct at_cgroup_usage *ret)
{
    return at_supervise_usage(&task->run, ret);
}

static void oci_release(struct at_runtime_task *task)
{
    at_supervise_kill(&task->run);
    at_supervise_remove(&task->run);
    remove_later(task->rt, task->id);
    task_free(task);
}

static void oci_sweep(struct at_runtime *rt, const char *node, const char *id)
{
    at_supervise_sweep(node, id);
    remove_later(rt, id);
}

static const struct at_runtime_ops OCI = {
    .name = "oci",
    .open = oci_open,
    .close = oci_close,
    .start = oci_start,
    .adopt = oci_adopt,
    .describe = oci_describe,
    .signal = oci_signal,
    .exec = oci_exec,
    .usage = oci_usage,
    .release = oci_release,
    .sweep = oci_sweep,
};

const struct at_runtime_ops *at_runtime_oci(void)
{
    return &OCI;
}
