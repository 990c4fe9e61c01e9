/* What every driver must do alike; run against each. */
#include "runtime/driver.h"

#include "core/buf.h"
#include "core/mem.h"
#include "core/units.h"
#include "runtime/test_image.h"
#include "sys/fd.h"
#include "sys/file.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
    const struct at_runtime_ops *ops;
    struct at_loop *loop;
    struct at_pool *pool;
    struct at_runtime *rt;
    char *dir, *node, *image, *state, *log, *private_dir, *model;
    const char *lack; /* why the driver cannot run here */
    struct at_err open_err;
};

static struct fixture fx;

struct outcome {
    bool started, ended;
    enum at_rc rc;
    struct at_runtime_task *task;
    int pid, code, signal_number;
    char isolation[512];
    char message[AT_ERR_MSG_BYTES_MAX];
};

static void on_started(void *ctx, enum at_rc rc, struct at_runtime_task *task, int pid,
                       const char *isolation, const struct at_err *err)
{
    struct outcome *o = ctx;
    assert_false(o->started);
    assert_false(o->ended);
    o->started = true;
    o->rc = rc;
    o->task = task;
    o->pid = pid;
    snprintf(o->isolation, sizeof o->isolation, "%s", isolation != NULL ? isolation : "");
    snprintf(o->message, sizeof o->message, "%s", err != NULL ? err->msg : "");
}

static void on_exit_told(void *ctx, int code, int signal_number)
{
    struct outcome *o = ctx;
    assert_false(o->ended);
    o->ended = true;
    o->code = code;
    o->signal_number = signal_number;
}

static void turn_until(const bool *flag)
{
    int64_t end = at_sys_mono_ns(at_sys_real()) + 60 * AT_NS_PER_S;
    while (!*flag) {
        assert_true(at_sys_mono_ns(at_sys_real()) < end);
        at_loop_turn(fx.loop, end);
    }
}

static void tick(void *ctx)
{
    *(bool *)ctx = true;
}

/* Turn the loop until the log holds text. */
static void turn_until_logged(const char *text)
{
    int64_t end = at_sys_mono_ns(at_sys_real()) + 30 * AT_NS_PER_S;
    struct at_buf log = {0};
    for (;;) {
        at_buf_clear(&log);
        assert_int_equal(at_file_read(fx.log, 1 << 20, &log, NULL), AT_OK);
        if (log.data != NULL && strstr(log.data, text) != NULL) {
            break;
        }
        assert_true(at_sys_mono_ns(at_sys_real()) < end);
        bool over = false;
        at_loop_timer(fx.loop, 5 * AT_NS_PER_MS, tick, &over);
        turn_until(&over);
    }
    at_buf_done(&log);
}

static char *log_text(void)
{
    struct at_buf log = {0};
    assert_int_equal(at_file_read(fx.log, 1 << 20, &log, NULL), AT_OK);
    return log.data != NULL ? at_buf_steal(&log, NULL) : at_strdup("");
}

static int open_fixture(const struct at_runtime_ops *ops)
{
    memset(&fx, 0, sizeof fx);
    const char *base = getenv("TMPDIR");
    char *template = at_asprintf("%s/atoll-driver-XXXXXX", base != NULL ? base : "/tmp");
    fx.ops = ops;
    fx.dir = mkdtemp(template);
    assert_non_null(fx.dir);
    assert_int_equal(at_file_chmod(fx.dir, 0711, NULL), AT_OK);
    fx.node = at_asprintf("test-%s-%d", ops->name, (int)getpid());
    fx.state = at_asprintf("%s/state", fx.dir);
    fx.log = at_asprintf("%s/log", fx.dir);
    fx.private_dir = at_asprintf("%s/private", fx.dir);
    fx.model = at_asprintf("%s/model", fx.dir);
    fx.loop = at_loop_new(at_sys_real());
    fx.pool = at_pool_new(2, 16);
    assert_int_equal(at_file_append(fx.model, "weights", 7, 0644, NULL), AT_OK);
    if (ops->open(fx.loop, fx.pool, fx.state, &fx.rt, &fx.open_err) != AT_OK) {
        fx.rt = NULL;
        fx.lack = fx.open_err.msg;
        return 0;
    }
    if (strcmp(ops->name, "oci") == 0) {
        if (!at_file_executable(AT_TEST_BUSYBOX)) {
            fx.lack = "busybox-static is not installed";
        } else if (!at_test_image(fx.dir)) {
            fx.lack = "umoci cannot make the image";
        }
        fx.image = at_asprintf("oci:%s/layout:latest", fx.dir);
    }
    return 0;
}

static int open_process(void **state)
{
    (void)state;
    return open_fixture(at_runtime_process());
}

static int open_oci(void **state)
{
    (void)state;
    return open_fixture(at_runtime_oci());
}

static int close_fixture(void **state)
{
    (void)state;
    /* Removals go through the pool: let them end. */
    while (at_loop_turn(fx.loop, INT64_MAX)) {
    }
    if (fx.rt != NULL) {
        fx.ops->close(fx.rt);
    }
    at_pool_free(fx.pool);
    at_loop_free(fx.loop);
    struct at_err err = {0};
    if (at_tree_remove(fx.dir, &err) != AT_OK) {
        print_error("%s\n", err.msg);
        return -1;
    }
    char *all[] = {fx.dir, fx.node, fx.image, fx.state, fx.log, fx.private_dir, fx.model};
    for (size_t i = 0; i < AT_ARRAY_LEN(all); i++) {
        at_free(all[i]);
    }
    return 0;
}

static int fresh_files(void **state)
{
    (void)state;
    unlink(fx.log);
    return at_file_append(fx.log, "", 0, 0640, NULL) == AT_OK &&
                   at_dir_make(fx.private_dir, 0755, NULL) == AT_OK
               ? 0
               : -1;
}

#define NEED_DRIVER()                                                                              \
    do {                                                                                           \
        if (fx.lack != NULL) {                                                                     \
            print_message("skipped: driver %s: %s\n", fx.ops->name, fx.lack);                      \
            skip();                                                                                \
        }                                                                                          \
    } while (0)

static struct at_runtime_spec spec_of(const char *id, const char *const *argv)
{
    static const char *const ENV[] = {"PATH=/usr/bin:/bin", "GREETING=hello there", NULL};
    static const char *readable[2];
    readable[0] = fx.model;
    return (struct at_runtime_spec){.id = id,
                                    .node = fx.node,
                                    .dir = fx.private_dir,
                                    .log_path = fx.log,
                                    .image = fx.image,
                                    .argv = argv,
                                    .envp = ENV,
                                    .uid = -1,
                                    .readable_paths = readable};
}

static void start_spec(const struct at_runtime_spec *spec, struct outcome *o)
{
    memset(o, 0, sizeof *o);
    fx.ops->start(fx.rt, spec, on_started, on_exit_told, o);
    assert_false(o->started); /* never within the call */
    turn_until(&o->started);
}

static void start_script(const char *id, const char *script, struct outcome *o)
{
    const char *const argv[] = {"/bin/sh", "-c", script, NULL};
    struct at_runtime_spec spec = spec_of(id, argv);
    start_spec(&spec, o);
    if (o->rc != AT_OK) {
        fail_msg("start: %s", o->message);
    }
    assert_non_null(o->task);
    assert_true(o->pid > 0);
}

static void finish(struct outcome *o)
{
    turn_until(&o->ended);
    fx.ops->release(o->task);
}

static void exit_code_and_output_are_kept(void **state)
{
    (void)state;
    NEED_DRIVER();
    struct outcome o;
    start_script("exit", "echo out; echo err >&2; exit 7", &o);
    assert_true(strlen(o.isolation) > 10);
    finish(&o);
    assert_int_equal(o.code, 7);
    assert_int_equal(o.signal_number, 0);
    AT_CLEANUP(at_cleanup_free) char *log = log_text();
    assert_int_equal(strlen(log), strlen("out\nerr\n")); /* in either order */
    assert_non_null(strstr(log, "out\n"));
    assert_non_null(strstr(log, "err\n"));
}

static void expect_environment_folder_and_model(void)
{
    AT_CLEANUP(at_cleanup_free)
    char *script =
        at_asprintf("echo \"$GREETING\"; cat %s; echo; echo mine > %s/file && echo wrote", fx.model,
                    fx.private_dir);
    struct outcome o;
    start_script("env", script, &o);
    finish(&o);
    assert_int_equal(o.code, 0);
    AT_CLEANUP(at_cleanup_free) char *log = log_text();
    assert_string_equal(log, "hello there\nweights\nwrote\n");
    AT_CLEANUP(at_cleanup_free) char *file = at_asprintf("%s/file", fx.private_dir);
    assert_int_equal(at_file_size(file), 5);
    assert_int_equal(at_file_remove(file, NULL), AT_OK);
}

static void environment_folder_and_model_are_there(void **state)
{
    (void)state;
    NEED_DRIVER();
    expect_environment_folder_and_model();
}

/* A state folder of mode 0700, which a user of the instance's own cannot pass. */
static void they_are_there_in_a_folder_closed_to_others(void **state)
{
    (void)state;
    NEED_DRIVER();
    assert_int_equal(at_file_chmod(fx.dir, 0700, NULL), AT_OK);
    expect_environment_folder_and_model();
}

static void the_polite_signal_can_be_handled(void **state)
{
    (void)state;
    NEED_DRIVER();
    struct outcome o;
    start_script("polite", "trap 'echo bye; exit 3' TERM; echo armed; while :; do sleep 0.05; done",
                 &o);
    turn_until_logged("armed");
    fx.ops->signal(o.task, SIGTERM);
    finish(&o);
    assert_int_equal(o.code, 3);
}

static void the_forced_stop_takes_everything(void **state)
{
    (void)state;
    NEED_DRIVER();
    struct outcome o;
    start_script("forced",
                 "trap '' TERM; setsid sleep 1000 & setsid sleep 1000 & echo armed; wait; wait",
                 &o);
    turn_until_logged("armed");
    struct at_cgroup_usage usage;
    assert_int_equal(fx.ops->usage(o.task, &usage), AT_OK);
    fx.ops->signal(o.task, SIGTERM);
    fx.ops->signal(o.task, SIGKILL);
    turn_until(&o.ended);
    assert_int_equal(o.signal_number, SIGKILL);
    fx.ops->release(o.task);
    AT_CLEANUP(at_cleanup_free)
    char *group = at_asprintf("/sys/fs/cgroup/pids/atoll/%s", fx.node);
    assert_false(at_file_exists(group));
}

static void more_memory_than_allowed_ends_it(void **state)
{
    (void)state;
    NEED_DRIVER();
    const char *const argv[] = {"/bin/sh", "-c", "x=a; while :; do x=$x$x; done", NULL};
    struct at_runtime_spec spec = spec_of("memory", argv);
    spec.limits.memory_bytes = 32 << 20;
    spec.limits.cpu_milli = 1000;
    struct outcome o;
    start_spec(&spec, &o);
    if (o.rc != AT_OK) {
        fail_msg("start: %s", o.message);
    }
    if (strstr(o.isolation, "memory 32Mi") == NULL) {
        assert_non_null(strstr(o.isolation, "lacks"));
        print_message("skipped: %s\n", o.isolation);
        fx.ops->signal(o.task, SIGKILL);
        finish(&o);
        skip();
    }
    turn_until(&o.ended);
    assert_int_equal(o.signal_number, SIGKILL);
    struct at_cgroup_usage usage;
    assert_int_equal(fx.ops->usage(o.task, &usage), AT_OK);
    assert_true(usage.oom_kills >= 1);
    fx.ops->release(o.task);
}

static void a_missing_program_fails_the_start_by_name(void **state)
{
    (void)state;
    NEED_DRIVER();
    const char *const argv[] = {"/bin/no-such-program", NULL};
    struct at_runtime_spec spec = spec_of("missing", argv);
    struct outcome o;
    start_spec(&spec, &o);
    assert_int_not_equal(o.rc, AT_OK);
    assert_null(o.task);
    assert_non_null(strstr(o.message, "no-such-program"));
    assert_false(o.ended);
}

static void a_task_outlives_the_driver_and_is_adopted(void **state)
{
    (void)state;
    NEED_DRIVER();
    struct outcome o, again = {0};
    start_script("adopt", "echo armed; while :; do sleep 0.05; done", &o);
    turn_until_logged("armed");
    json_t *record = fx.ops->describe(o.task);
    fx.ops->close(fx.rt);
    assert_int_equal(fx.ops->open(fx.loop, fx.pool, fx.state, &fx.rt, NULL), AT_OK);
    int pid = 0;
    struct at_err err = {0};
    if (fx.ops->adopt(fx.rt, record, on_exit_told, &again, &again.task, &pid, &err) != AT_OK) {
        fail_msg("%s", err.msg);
    }
    assert_int_equal(pid, o.pid);
    assert_false(again.ended);
    fx.ops->signal(again.task, SIGKILL);
    finish(&again);
    struct outcome third = {0};
    assert_int_equal(fx.ops->adopt(fx.rt, record, on_exit_told, &third, &third.task, &pid, NULL),
                     AT_NOT_FOUND);
    json_decref(record);
}

static void a_sweep_ends_what_nobody_holds(void **state)
{
    (void)state;
    NEED_DRIVER();
    struct outcome o;
    start_script("sweep", "echo armed; while :; do sleep 0.05; done", &o);
    turn_until_logged("armed");
    json_t *record = fx.ops->describe(o.task);
    fx.ops->close(fx.rt);
    assert_int_equal(fx.ops->open(fx.loop, fx.pool, fx.state, &fx.rt, NULL), AT_OK);
    fx.ops->sweep(fx.rt, fx.node, "sweep");
    fx.ops->sweep(fx.rt, fx.node, "never-was");
    while (at_loop_turn(fx.loop, INT64_MAX)) {
    }
    struct at_process gone = {.pid = (pid_t)at_json_int_at(record, "pid", 0)};
    int code, signal_number;
    int64_t end = at_sys_mono_ns(at_sys_real()) + 10 * AT_NS_PER_S;
    while (at_process_reap(&gone, &code, &signal_number) == AT_AGAIN) {
        assert_true(at_sys_mono_ns(at_sys_real()) < end);
    }
    json_decref(record);
}

static void the_same_id_can_start_again_at_once(void **state)
{
    (void)state;
    NEED_DRIVER();
    for (int i = 0; i < 4; i++) {
        struct outcome o;
        char script[32];
        snprintf(script, sizeof script, "exit %d", i);
        start_script("again", script, &o);
        finish(&o);
        assert_int_equal(o.code, i);
    }
}

static void on_command_end(void *ctx, pid_t pid, int code, int signal_number)
{
    (void)pid;
    (void)signal_number;
    struct outcome *o = ctx;
    o->ended = true;
    o->code = code;
}

/* Run a script beside the task; its output goes to out. */
static void run_beside(struct at_runtime_task *task, const char *script, char *out, size_t size,
                       int *ret_code)
{
    const char *const argv[] = {"/bin/sh", "-c", script, NULL};
    int fds[2];
    struct at_process process;
    struct at_err err = {0};
    assert_int_equal(at_fd_pipe(fds, NULL), AT_OK);
    struct at_runtime_exec what = {argv, -1, fds[1], fds[1], false};
    if (fx.ops->exec(task, &what, &process, &err) != AT_OK) {
        fail_msg("exec: %s", err.msg);
    }
    at_fd_close(fds[1]);
    struct outcome o = {0};
    assert_int_equal(at_loop_child(fx.loop, &process, on_command_end, &o), AT_OK);
    turn_until(&o.ended);
    size_t used = 0;
    size_t n = 0;
    while (used + 1 < size && at_fd_read(fds[0], out + used, size - 1 - used, &n) == AT_OK) {
        used += n;
    }
    out[used] = '\0';
    at_fd_close(fds[0]);
    *ret_code = o.code;
}

static void a_command_runs_beside_a_task_as_the_task_does(void **state)
{
    (void)state;
    NEED_DRIVER();
    struct outcome o;
    char out[4096];
    int code = -1;
    start_script("beside",
                 "cat /proc/self/status | grep -E '^(Uid|Gid|CapEff)'; echo armed; "
                 "exec sleep 1000",
                 &o);
    turn_until_logged("armed");
    run_beside(o.task, "cat /proc/self/status | grep -E '^(Uid|Gid|CapEff)'; exit 5", out,
               sizeof out, &code);
    assert_int_equal(code, 5);
    AT_CLEANUP(at_cleanup_free) char *log = log_text();
    assert_int_equal(strncmp(log, out, strlen(out)), 0);
    run_beside(o.task, "echo \"$GREETING\"; readlink /proc/self/ns/uts", out, sizeof out, &code);
    assert_int_equal(code, 0);
    assert_int_equal(strncmp(out, "hello there\n", 12), 0);
    fx.ops->signal(o.task, SIGKILL);
    finish(&o);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup(t, fresh_files)
    const struct CMUnitTest conformance[] = {
        T(exit_code_and_output_are_kept),
        T(environment_folder_and_model_are_there),
        T(they_are_there_in_a_folder_closed_to_others),
        T(the_polite_signal_can_be_handled),
        T(the_forced_stop_takes_everything),
        T(more_memory_than_allowed_ends_it),
        T(a_missing_program_fails_the_start_by_name),
        T(a_task_outlives_the_driver_and_is_adopted),
        T(a_sweep_ends_what_nobody_holds),
        T(the_same_id_can_start_again_at_once),
        T(a_command_runs_beside_a_task_as_the_task_does),
    };
    int failed =
        cmocka_run_group_tests_name("driver process", conformance, open_process, close_fixture);
    failed += cmocka_run_group_tests_name("driver oci", conformance, open_oci, close_fixture);
    return failed;
}
