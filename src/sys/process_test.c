#include "core/buf.h"
#include "core/mem.h"
#include "core/units.h"
#include "sys/cgroup.h"
#include "sys/file.h"
#include "sys/process.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const struct at_process_options PLAIN = {
    .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1, .uid = -1, .gid = -1};

static void finish(struct at_process *p, int *code, int *sig)
{
    struct pollfd fd = {.fd = p->pidfd, .events = POLLIN};
    assert_int_equal(poll(&fd, 1, 20000), 1);
    assert_int_equal(at_process_reap(p, code, sig), AT_OK);
    at_process_close(p);
}

/* Run a shell script with options; its output goes to out. */
static int run_shell(struct at_process_options options, const char *script, unsigned *lack,
                     char out[4096])
{
    const char *argv[] = {"sh", "-c", script, NULL};
    char path[] = "/tmp/atoll-process-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    options.argv = argv;
    options.stdout_fd = options.stderr_fd = fd;
    struct at_process p;
    struct at_err err = {0};
    if (at_process_start(&options, false, &p, lack, &err) != AT_OK) {
        fail_msg("start: %s", err.msg);
    }
    int code, sig;
    finish(&p, &code, &sig);
    ssize_t n = pread(fd, out, 4095, 0);
    out[n > 0 ? n : 0] = '\0';
    close(fd);
    unlink(path);
    return code;
}

static void exit_codes_and_signals_are_reported(void **state)
{
    (void)state;
    unsigned lack = 0;
    char out[4096];
    assert_int_equal(run_shell(PLAIN, "echo hi; exit 7", &lack, out), 7);
    assert_string_equal(out, "hi\n");
    const char *argv[] = {"sleep", "100", NULL};
    struct at_process_options options = PLAIN;
    options.argv = argv;
    options.new_session = true;
    struct at_process p;
    int code, sig;
    assert_int_equal(at_process_start(&options, true, &p, &lack, NULL), AT_OK);
    assert_int_equal(at_process_reap(&p, &code, &sig), AT_AGAIN);
    int64_t rss, cpu;
    assert_int_equal(at_process_usage(getpid(), &rss, &cpu), AT_OK);
    assert_true(rss > 0);
    at_process_signal(&p, SIGTERM);
    finish(&p, &code, &sig);
    assert_int_equal(sig, SIGTERM);
    assert_int_equal(code, 128 + SIGTERM);
}

static void the_signal_mask_of_the_parent_is_not_inherited(void **state)
{
    (void)state;
    sigset_t block, old;
    sigemptyset(&block);
    sigaddset(&block, SIGTERM);
    sigprocmask(SIG_BLOCK, &block, &old);
    unsigned lack = 0;
    char out[4096];
    int code = run_shell(PLAIN, "kill -TERM $$; exit 3", &lack, out);
    sigprocmask(SIG_SETMASK, &old, NULL);
    assert_int_equal(code, 128 + SIGTERM);
}

static void exec_failures_are_synchronous(void **state)
{
    (void)state;
    struct at_process p;
    struct at_err err;
    struct at_process_options options = PLAIN;
    options.argv = (const char *[]){"no-such-program-here", NULL};
    assert_int_equal(at_process_start(&options, false, &p, NULL, &err), AT_NOT_FOUND);
    options.argv = (const char *[]){"/no/such/file", NULL};
    assert_int_equal(at_process_start(&options, false, &p, NULL, &err), AT_NOT_FOUND);
    assert_non_null(strstr(err.msg, "/no/such/file"));
    options.argv = (const char *[]){"/etc/passwd", NULL};
    assert_int_equal(at_process_start(&options, false, &p, NULL, &err), AT_FORBIDDEN);
    options.argv = (const char *[]){"true", NULL};
    options.cwd = "/no/such/dir";
    assert_int_equal(at_process_start(&options, false, &p, NULL, &err), AT_NOT_FOUND);
}

static void descriptors_do_not_leak_into_the_child(void **state)
{
    (void)state;
    int fd = dup(0); /* not close-on-exec */
    unsigned lack = 0;
    char out[4096];
    assert_int_equal(run_shell(PLAIN, "ls /proc/self/fd | tr '\\n' ' '", &lack, out), 0);
    close(fd);
    assert_string_equal(out, "0 1 2 3 "); /* 3 is the folder that ls reads */
}

static void isolation_holds_or_is_reported(void **state)
{
    (void)state;
    struct at_process_options options = PLAIN;
    options.new_mount_ns = options.new_ipc_ns = options.new_uts_ns = options.new_pid_ns = true;
    options.no_new_privs = options.seccomp = options.new_session = true;
    options.uid = options.gid = 234567;
    options.cwd = "/";
    unsigned lack = 0;
    char out[4096];
    int code = run_shell(options,
                         "echo uid=$(id -u) gid=$(id -g) pid=$$;"
                         "grep -E '^(Seccomp|NoNewPrivs|Groups):' /proc/self/status | tr -d '\\t ';"
                         "unshare -m true 2>/dev/null && echo unshared;"
                         "hostname x 2>/dev/null && echo renamed; true",
                         &lack, out);
    assert_int_equal(code, 0);
    if (geteuid() != 0) {
        assert_true((lack & AT_PROCESS_LACK_USER) != 0);
        return;
    }
    assert_int_equal(lack, 0);
    assert_non_null(strstr(out, "uid=234567 gid=234567 pid=1\n"));
    assert_non_null(strstr(out, "NoNewPrivs:1"));
    assert_non_null(strstr(out, "Seccomp:2"));
    assert_non_null(strstr(out, "Groups:\n"));
    assert_null(strstr(out, "unshared"));
    assert_null(strstr(out, "renamed"));
}

static void seccomp_denies_even_root(void **state)
{
    (void)state;
    if (geteuid() != 0) {
        skip();
    }
    struct at_process_options options = PLAIN;
    options.seccomp = true;
    unsigned lack = 0;
    char out[4096];
    assert_int_equal(run_shell(options, "mount -t tmpfs x /mnt 2>/dev/null; echo $?", &lack, out),
                     0);
    assert_int_equal(lack, 0);
    assert_string_not_equal(out, "0\n");
}

static void capabilities_are_gone_even_for_root(void **state)
{
    (void)state;
    if (geteuid() != 0) {
        skip();
    }
    struct at_process_options options = PLAIN;
    options.no_capabilities = options.no_new_privs = true;
    unsigned lack = 0;
    char out[4096];
    int code = run_shell(options, "grep -E '^Cap(Prm|Eff|Bnd):' /proc/self/status | tr -d '\\t'",
                         &lack, out);
    assert_int_equal(code, 0);
    assert_string_equal(out, "CapPrm:0000000000000000\nCapEff:0000000000000000\n"
                             "CapBnd:0000000000000000\n");
}

static void a_run_collects_output_and_ends_in_time_or_when_cancelled(void **state)
{
    (void)state;
    struct at_process_options options = PLAIN;
    struct at_err err;
    struct at_buf out = {0};
    int code = -1;
    options.argv = (const char *[]){"sh", "-c", "echo one; echo two >&2; exit 4", NULL};
    assert_int_equal(at_process_run(&options, 20 * AT_NS_PER_S, &out, &code, &err), AT_OK);
    assert_int_equal(code, 4);
    assert_string_equal(out.data, "one\ntwo\n");
    /* Only the end of much output is kept, and the pipe never fills up. */
    at_buf_done(&out);
    at_buf_init(&out, 100);
    options.argv = (const char *[]){"sh", "-c", "yes | head -n 100000; echo end", NULL};
    assert_int_equal(at_process_run(&options, 20 * AT_NS_PER_S, &out, &code, &err), AT_OK);
    assert_true(out.len <= 100);
    assert_string_equal(out.data + out.len - 6, "y\nend\n");
    at_buf_done(&out);
    options.argv = (const char *[]){"sleep", "100", NULL};
    assert_int_equal(at_process_run(&options, 50 * AT_NS_PER_MS, NULL, &code, &err), AT_TIMEOUT);
    bool cancelled = true;
    options.cancelled = &cancelled;
    assert_int_equal(at_process_run(&options, 90 * AT_NS_PER_S, NULL, &code, &err), AT_CANCELLED);
}

static void marked_processes_are_found_and_killed(void **state)
{
    (void)state;
    char mark[64];
    snprintf(mark, sizeof mark, "ATOLL_TASK=test-%d", (int)getpid());
    struct at_process_options options = PLAIN;
    options.argv = (const char *[]){"sh", "-c", "setsid sleep 100 & exec sleep 100", NULL};
    options.envp = (const char *[]){"PATH=/usr/bin:/bin", mark, NULL};
    struct at_process p;
    assert_int_equal(at_process_start(&options, true, &p, NULL, NULL), AT_OK);
    assert_int_equal(at_process_kill_marked("ATOLL_TASK=test-"), 0);
    assert_in_range(at_process_kill_marked(mark), 1, 3);
    int code, sig;
    finish(&p, &code, &sig);
    assert_int_equal(sig, SIGKILL);
    assert_int_equal(at_process_kill_marked(mark), 0);
}

/* Between exec and the moment at which the new environment can be read, /proc shows an empty one:
 * this one is there most of the time. */
static void a_marked_process_is_found_while_it_execs(void **state)
{
    (void)state;
    struct at_process_options options = PLAIN;
    options.argv = (const char *[]){"sh", "-c", "exec sh -c \"$AGAIN\"", NULL};
    for (int i = 0; i < 100; i++) {
        char mark[64];
        snprintf(mark, sizeof mark, "ATOLL_TASK=exec-%d-%d", (int)getpid(), i);
        options.envp =
            (const char *[]){"PATH=/usr/bin:/bin", "AGAIN=exec sh -c \"$AGAIN\"", mark, NULL};
        struct at_process p;
        assert_int_equal(at_process_start(&options, true, &p, NULL, NULL), AT_OK);
        int killed = at_process_kill_marked(mark);
        at_process_signal(&p, SIGKILL); /* it would go on for ever */
        int code, sig;
        finish(&p, &code, &sig);
        assert_int_equal(killed, 1);
        assert_int_equal(sig, SIGKILL);
    }
}

static void an_outliving_process_is_adopted_by_pid_and_start(void **state)
{
    (void)state;
    struct at_process_options options = PLAIN;
    options.argv = (const char *[]){"sleep", "100", NULL};
    struct at_process p, again;
    assert_int_equal(at_process_start(&options, false, &p, NULL, NULL), AT_OK);
    uint64_t ticks = at_process_start_ticks(p.pid);
    assert_true(ticks > 0);
    assert_int_equal(at_process_adopt(p.pid, ticks + 1, &again, NULL), AT_NOT_FOUND);
    assert_int_equal(at_process_adopt(p.pid, ticks, &again, NULL), AT_OK);
    at_process_signal(&again, SIGKILL);
    at_process_close(&again);
    int code, sig;
    finish(&p, &code, &sig);
    assert_int_equal(sig, SIGKILL);
    assert_int_equal(at_process_adopt(p.pid, ticks, &again, NULL), AT_NOT_FOUND);
    int unused;
    assert_int_equal(at_process_reap(&p, &unused, &unused), AT_NOT_FOUND);
}

static struct at_cgroup *open_group(const char *suffix, const struct at_cgroup_limits *limits)
{
    struct at_cgroup *cg = NULL;
    struct at_err err = {0};
    char name[64];
    snprintf(name, sizeof name, "atoll/sys-test-%d/%s", (int)getpid(), suffix);
    if (at_cgroup_open(name, limits, &cg, &err) != AT_OK) {
        print_message("no control groups here: %s\n", err.msg);
        skip();
    }
    return cg;
}

static void a_group_kills_all_members_and_goes(void **state)
{
    (void)state;
    struct at_cgroup_limits limits = {.cpu_milli = 500, .memory_bytes = 64 << 20, .pids = 20};
    struct at_cgroup *cg = open_group("kill", &limits);
    struct at_process_options options = PLAIN;
    /* The grandchild leaves the session: only the group holds it. */
    options.argv = (const char *[]){"sh", "-c", "setsid sleep 100 & setsid sleep 100 & wait", NULL};
    options.cgroup_procs = at_cgroup_procs_files(cg);
    struct at_process p;
    unsigned lack = 0;
    assert_int_equal(at_process_start(&options, true, &p, &lack, NULL), AT_OK);
    struct at_cgroup_usage usage;
    assert_int_equal(at_cgroup_read(cg, &usage), AT_OK);
    at_cgroup_kill(cg);
    int code, sig;
    finish(&p, &code, &sig);
    assert_int_equal(sig, SIGKILL);
    struct at_err err = {0};
    if (at_cgroup_remove(cg, &err) != AT_OK) {
        fail_msg("%s", err.msg);
    }
    assert_false(at_file_exists(at_cgroup_procs_files(cg)[0]));
    at_cgroup_free(cg);
}

static void a_sweep_spares_groups_that_are_young(void **state)
{
    (void)state;
    struct at_cgroup *cg = open_group("young", &(struct at_cgroup_limits){0});
    AT_CLEANUP(at_cleanup_free) char *parent = at_asprintf("atoll/sys-test-%d", (int)getpid());
    at_cgroup_sweep(parent);
    assert_true(at_file_exists(at_cgroup_procs_files(cg)[0]));
    assert_int_equal(at_cgroup_remove(cg, NULL), AT_OK);
    at_cgroup_free(cg);
}

static void the_memory_limit_bites_and_is_counted(void **state)
{
    (void)state;
    struct at_cgroup_limits limits = {.memory_bytes = 16 << 20};
    struct at_cgroup *cg = open_group("memory", &limits);
    struct at_process_options options = PLAIN;
    options.argv = (const char *[]){"sh", "-c", "x=a; while :; do x=$x$x; done", NULL};
    options.cgroup_procs = at_cgroup_procs_files(cg);
    struct at_process p;
    bool limited = at_cgroup_lack(cg) == NULL;
    int code = 0, sig = 0;
    struct at_cgroup_usage usage = {0};
    if (limited) {
        assert_int_equal(at_process_start(&options, true, &p, NULL, NULL), AT_OK);
        finish(&p, &code, &sig);
        assert_int_equal(at_cgroup_read(cg, &usage), AT_OK);
    }
    assert_int_equal(at_cgroup_remove(cg, NULL), AT_OK);
    at_cgroup_free(cg);
    if (!limited) {
        skip();
    }
    assert_int_equal(sig, SIGKILL);
    assert_true(usage.oom_kills >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exit_codes_and_signals_are_reported),
        cmocka_unit_test(the_signal_mask_of_the_parent_is_not_inherited),
        cmocka_unit_test(exec_failures_are_synchronous),
        cmocka_unit_test(descriptors_do_not_leak_into_the_child),
        cmocka_unit_test(isolation_holds_or_is_reported),
        cmocka_unit_test(seccomp_denies_even_root),
        cmocka_unit_test(capabilities_are_gone_even_for_root),
        cmocka_unit_test(a_run_collects_output_and_ends_in_time_or_when_cancelled),
        cmocka_unit_test(marked_processes_are_found_and_killed),
        cmocka_unit_test(a_marked_process_is_found_while_it_execs),
        cmocka_unit_test(an_outliving_process_is_adopted_by_pid_and_start),
        cmocka_unit_test(a_group_kills_all_members_and_goes),
        cmocka_unit_test(a_sweep_spares_groups_that_are_young),
        cmocka_unit_test(the_memory_limit_bites_and_is_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
