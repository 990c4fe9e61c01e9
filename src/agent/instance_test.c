/* The agent's care for instances, over hours of simulated time, with a driver that does what the
 * test says and an API server that only listens. */
#include "agent/agent_priv.h"

#include "net/http_server.h"
#include "sys/file.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include <cmocka.h>

#define UID "u1"
#define STARTS_MAX 1000

/* --- a clock that jumps to the next deadline when nothing is ready, as in src/sim, which tests
 * down here do not see --- */

struct clock {
    struct at_sys sys;
    int64_t now_ns;
};

static int64_t clock_mono_ns(void *ctx)
{
    return ((struct clock *)ctx)->now_ns;
}

static int64_t clock_wall_ns(void *ctx)
{
    return INT64_C(1767225600) * AT_NS_PER_S + clock_mono_ns(ctx);
}

static void clock_random(void *ctx, void *out, size_t len)
{
    (void)ctx;
    memset(out, 7, len);
}

static int clock_poll(void *ctx, int epfd, void *events, int n_max, int64_t deadline_ns)
{
    struct clock *clock = ctx;
    assert_int_not_equal(deadline_ns, INT64_MAX);
    int n = epoll_wait(epfd, events, n_max, 0);
    if (n == 0 && deadline_ns > clock->now_ns) {
        clock->now_ns = deadline_ns;
    }
    return n > 0 ? n : 0;
}

/* --- a driver whose tasks end when the test wants --- */

struct at_runtime {
    struct at_loop *loop;
    struct at_runtime_task *task; /* the one at a time */
    bool refuse;
    bool ignore_term;
    int64_t run_ns; /* until it ends by itself; -1: never */
    int exit_code;
    int64_t starts_ns[STARTS_MAX];
    size_t n_starts;
    int terms, kills, sweeps;
    int64_t term_ns, kill_ns;
};

struct at_runtime_task {
    struct at_runtime *rt;
    at_runtime_started_fn *started;
    at_runtime_exit_fn *on_exit;
    void *ctx;
    at_timer_id timer;
    int code, signal_number;
};

static void fake_end(void *ctx)
{
    struct at_runtime_task *t = ctx;
    t->timer = 0;
    t->on_exit(t->ctx, t->code, t->signal_number);
}

static void end_soon(struct at_runtime_task *t, int64_t delay_ns, int code, int signal_number)
{
    at_loop_timer_cancel(t->rt->loop, t->timer);
    t->code = code;
    t->signal_number = signal_number;
    t->timer = at_loop_timer(t->rt->loop, delay_ns, fake_end, t);
}

static void fake_started(void *ctx)
{
    struct at_runtime_task *t = ctx;
    struct at_runtime *rt = t->rt;
    t->timer = 0;
    if (rt->refuse) {
        struct at_err err = {0};
        at_runtime_started_fn *started = t->started;
        void *owner = t->ctx;
        enum at_rc rc = at_err_set(&err, AT_NOT_FOUND, "cannot run it: told to refuse");
        rt->task = NULL;
        at_free(t);
        started(owner, rc, NULL, 0, NULL, &err);
        return;
    }
    if (rt->run_ns >= 0) {
        end_soon(t, rt->run_ns, rt->exit_code, 0);
    }
    t->started(t->ctx, AT_OK, t, 4711, "pretended", NULL);
}

static struct at_runtime_task *fake_new(struct at_runtime *rt, at_runtime_exit_fn *on_exit,
                                        void *ctx)
{
    assert_null(rt->task); /* never two at once */
    struct at_runtime_task *t = AT_NEW(struct at_runtime_task);
    t->rt = rt;
    t->on_exit = on_exit;
    t->ctx = ctx;
    rt->task = t;
    return t;
}

static void fake_start(struct at_runtime *rt, const struct at_runtime_spec *spec,
                       at_runtime_started_fn *started, at_runtime_exit_fn *on_exit, void *ctx)
{
    assert_string_equal(spec->id, UID);
    assert_true(rt->n_starts < STARTS_MAX);
    rt->starts_ns[rt->n_starts++] = at_sys_mono_ns(at_loop_sys(rt->loop));
    struct at_runtime_task *t = fake_new(rt, on_exit, ctx);
    t->started = started;
    t->timer = at_loop_timer(rt->loop, 0, fake_started, t);
}

static enum at_rc fake_adopt(struct at_runtime *rt, const json_t *record,
                             at_runtime_exit_fn *on_exit, void *ctx, struct at_runtime_task **ret,
                             int *ret_pid, struct at_err *err)
{
    if (at_json_int_at(record, "fake", 0) != 1) {
        return at_err_set(err, AT_NOT_FOUND, "gone");
    }
    *ret = fake_new(rt, on_exit, ctx);
    *ret_pid = 4711;
    return AT_OK;
}

static json_t *fake_describe(const struct at_runtime_task *task)
{
    (void)task;
    return json_pack("{s:i}", "fake", 1);
}

static void fake_signal(struct at_runtime_task *t, int signal_number)
{
    struct at_runtime *rt = t->rt;
    int64_t now = at_sys_mono_ns(at_loop_sys(rt->loop));
    if (signal_number == SIGKILL) {
        rt->kills++;
        rt->kill_ns = now;
    } else {
        rt->terms++;
        rt->term_ns = now;
    }
    if (signal_number == SIGKILL || !rt->ignore_term) {
        end_soon(t, 0, 128 + signal_number, signal_number);
    }
}

static enum at_rc fake_usage(struct at_runtime_task *task, struct at_cgroup_usage *ret)
{
    (void)task;
    *ret = (struct at_cgroup_usage){0};
    return AT_OK;
}

static void fake_release(struct at_runtime_task *t)
{
    assert_ptr_equal(t->rt->task, t);
    t->rt->task = NULL;
    at_loop_timer_cancel(t->rt->loop, t->timer);
    at_free(t);
}

static void fake_sweep(struct at_runtime *rt, const char *node, const char *id)
{
    (void)node;
    assert_string_equal(id, UID);
    rt->sweeps++;
}

static const struct at_runtime_ops FAKE = {.name = "process",
                                           .start = fake_start,
                                           .adopt = fake_adopt,
                                           .describe = fake_describe,
                                           .signal = fake_signal,
                                           .usage = fake_usage,
                                           .release = fake_release,
                                           .sweep = fake_sweep};

/* --- the agent's parts that instances need, without identity, node and watch --- */

struct fixture {
    struct clock clock;
    struct at_loop *loop;
    struct at_pool *pool;
    struct at_http_server *server;
    struct at_agent agent;
    struct at_runtime driver;
    char *dir, *url;
    json_t *status; /* last one reported */
    int finalized;
};

static void serve(void *ctx, struct at_http_exchange *ex)
{
    struct fixture *f = ctx;
    struct at_str body = at_http_request_body(ex);
    struct at_str path = at_http_request(ex)->path;
    json_t *patch = NULL;
    assert_int_equal(at_json_parse(body.ptr, body.len, &patch, NULL), AT_OK);
    if (path.len > 7 && memcmp(path.ptr + path.len - 7, "/status", 7) == 0) {
        json_decref(f->status);
        f->status = json_incref(json_object_get(patch, "status"));
    } else {
        assert_int_equal(json_array_size(at_json_at(patch, "metadata.finalizers")), 0);
        f->finalized++;
    }
    json_decref(patch);
    at_http_respond(ex, 200, "application/json", NULL, "{}", 2);
}

static void agent_open(struct fixture *f)
{
    struct at_agent *a = &f->agent;
    memset(a, 0, sizeof *a);
    a->loop = f->loop;
    a->pool = f->pool;
    a->name = (char *)"n1";
    a->site = (char *)"here";
    a->state_dir = f->dir;
    a->listen_host = (char *)"127.0.0.1";
    a->instances = at_map_new();
    a->fetches = agent_fetches_new(a);
    a->drivers[0] = (struct agent_driver){.ops = &FAKE, .rt = &f->driver};
    a->n_drivers = 1;
    struct at_client_options options = {.server = f->url};
    assert_int_equal(at_client_new(f->loop, &options, &a->client, NULL), AT_OK);
}

static void agent_close(struct fixture *f)
{
    struct at_agent *a = &f->agent;
    const char *uid;
    void *value;
    for (size_t it = 0; at_map_next(a->instances, &it, &uid, &value);) {
        agent_instance_free(value);
    }
    at_map_free(a->instances);
    agent_fetches_free(a->fetches);
    at_client_free(a->client);
    if (f->driver.task != NULL) { /* outlives the agent */
        at_loop_timer_cancel(f->loop, f->driver.task->timer);
        at_free(f->driver.task);
        f->driver.task = NULL;
    }
}

static int open_fixture(void **state)
{
    struct fixture *f = AT_NEW(struct fixture);
    const char *base = getenv("TMPDIR");
    f->dir = mkdtemp(at_asprintf("%s/atoll-agent-sim-XXXXXX", base != NULL ? base : "/tmp"));
    assert_non_null(f->dir);
    const char *const folders[] = {"records", "logs", "instances"};
    for (size_t i = 0; i < AT_ARRAY_LEN(folders); i++) {
        AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/%s", f->dir, folders[i]);
        assert_int_equal(at_dir_make(path, 0755, NULL), AT_OK);
    }
    f->clock.sys = (struct at_sys){.ctx = &f->clock,
                                   .mono_ns = clock_mono_ns,
                                   .wall_ns = clock_wall_ns,
                                   .random = clock_random,
                                   .poll = clock_poll};
    f->loop = at_loop_new(&f->clock.sys);
    f->pool = at_pool_new(1, 16);
    struct at_http_server_options options = {.listen = "127.0.0.1:0",
                                             .body_bytes_max = 100000,
                                             .connections_max = 100,
                                             .idle_timeout_ns = 3600 * AT_NS_PER_S,
                                             .head_timeout_ns = 3600 * AT_NS_PER_S,
                                             .handler = serve,
                                             .ctx = f};
    assert_int_equal(at_http_server_new(f->loop, &options, &f->server, NULL), AT_OK);
    f->url = at_asprintf("http://%s", at_http_server_addr(f->server));
    f->driver = (struct at_runtime){.loop = f->loop, .run_ns = -1};
    agent_open(f);
    *state = f;
    return 0;
}

static int close_fixture(void **state)
{
    struct fixture *f = *state;
    agent_close(f);
    at_http_server_free(f->server);
    at_pool_free(f->pool);
    at_loop_free(f->loop);
    json_decref(f->status);
    int failed = at_tree_remove(f->dir, NULL) == AT_OK ? 0 : -1;
    at_free(f->dir);
    at_free(f->url);
    at_free(f);
    return failed;
}

static void pass(struct fixture *f, int64_t ns)
{
    int64_t end = f->clock.now_ns + ns;
    while (f->clock.now_ns < end) {
        at_loop_turn(f->loop, end);
    }
    /* Answers that are under way arrive without time. */
    for (int i = 0; i < 20; i++) {
        at_loop_turn(f->loop, f->clock.now_ns);
    }
}

static void put(struct fixture *f, const char *restart_policy, bool deleting)
{
    json_t *object = json_pack(
        "{s:s, s:s, s:{s:s, s:s, s:s, s:[s]}, s:{s:[s], s:s, s:i, s:s, s:s}}", "apiVersion",
        "atoll.dev/v1", "kind", "Instance", "metadata", "name", "i1", "namespace", "default", "uid",
        UID, "finalizers", "atoll.dev/agent", "spec", "command", "run", "restartPolicy",
        restart_policy, "port", -1, "nodeName", "n1", "terminationGracePeriod", "10s");
    assert_non_null(object);
    if (deleting) {
        at_json_set_at(object, "metadata.deletionTimestamp", json_string("2026-01-01T00:00:00Z"));
    }
    agent_instance_apply(&f->agent, object, false);
    json_decref(object);
}

static void assert_status(const struct fixture *f, const char *phase, const char *reason)
{
    assert_non_null(f->status);
    assert_string_equal(at_json_str_at(f->status, "phase", ""), phase);
    assert_string_equal(at_json_str_at(f->status, "reason", ""), reason);
}

static void a_crash_loop_is_slowed_to_one_start_in_thirty_seconds(void **state)
{
    struct fixture *f = *state;
    f->driver.run_ns = 0;
    f->driver.exit_code = 1;
    put(f, "Always", false);
    pass(f, 3600 * AT_NS_PER_S);
    assert_status(f, "Starting", "CrashLoopBackOff");
    /* Eight quick ones in the first minute, then one in 30 s. */
    assert_in_range(f->driver.n_starts, 120, 135);
    int64_t first = f->driver.starts_ns[1] - f->driver.starts_ns[0];
    assert_in_range(first, 200 * AT_NS_PER_MS, 201 * AT_NS_PER_MS);
    for (size_t i = 20; i + 1 < f->driver.n_starts; i++) {
        int64_t gap = f->driver.starts_ns[i + 1] - f->driver.starts_ns[i];
        assert_in_range(gap, 30 * AT_NS_PER_S, 31 * AT_NS_PER_S);
    }
    assert_int_equal(at_json_int_at(f->status, "restarts", 0), f->driver.n_starts);
}

static void a_minute_of_health_forgets_earlier_failures(void **state)
{
    struct fixture *f = *state;
    f->driver.run_ns = 61 * AT_NS_PER_S;
    f->driver.exit_code = 1;
    put(f, "Always", false);
    pass(f, 3600 * AT_NS_PER_S);
    assert_in_range(f->driver.n_starts, 57, 60);
}

static void what_ends_for_good_is_not_started_again(void **state)
{
    struct fixture *f = *state;
    f->driver.run_ns = AT_NS_PER_S;
    put(f, "OnFailure", false);
    pass(f, 3600 * AT_NS_PER_S);
    assert_status(f, "Succeeded", "Completed");
    assert_int_equal(f->driver.n_starts, 1);
    /* Nor when the agent sees its object again. */
    put(f, "OnFailure", false);
    pass(f, 60 * AT_NS_PER_S);
    assert_int_equal(f->driver.n_starts, 1);
}

static void never_means_one_run(void **state)
{
    struct fixture *f = *state;
    f->driver.run_ns = AT_NS_PER_S;
    f->driver.exit_code = 3;
    put(f, "Never", false);
    pass(f, 3600 * AT_NS_PER_S);
    assert_status(f, "Failed", "Error");
    assert_int_equal(at_json_int_at(f->status, "exitCode", 0), 3);
    assert_int_equal(f->driver.n_starts, 1);
}

static void a_start_that_is_refused_is_told_and_tried_again(void **state)
{
    struct fixture *f = *state;
    f->driver.refuse = true;
    put(f, "Always", false);
    pass(f, 5 * AT_NS_PER_S);
    assert_status(f, "Starting", "StartFailed");
    assert_non_null(strstr(at_json_str_at(f->status, "message", ""), "told to refuse"));
    assert_in_range(f->driver.n_starts, 4, 6);
    f->driver.refuse = false;
    pass(f, 10 * AT_NS_PER_S);
    assert_status(f, "Running", "");
    assert_true(at_json_bool_at(f->status, "ready", false));
}

static void deletion_is_polite_then_forced_then_takes_the_finalizer_off(void **state)
{
    struct fixture *f = *state;
    f->driver.ignore_term = true;
    put(f, "Always", false);
    pass(f, AT_NS_PER_S);
    assert_status(f, "Running", "");
    put(f, "Always", true);
    pass(f, 5 * AT_NS_PER_S);
    assert_int_equal(f->driver.terms, 1);
    assert_int_equal(f->driver.kills, 0);
    assert_int_equal(f->finalized, 0); /* it still runs */
    pass(f, 60 * AT_NS_PER_S);
    assert_int_equal(f->driver.kills, 1);
    int64_t grace = f->driver.kill_ns - f->driver.term_ns;
    assert_in_range(grace, 10 * AT_NS_PER_S, 10 * AT_NS_PER_S + AT_NS_PER_MS);
    assert_int_equal(f->finalized, 1);
    json_t *last = json_pack("{s:{s:s}}", "metadata", "uid", UID);
    agent_instance_apply(&f->agent, last, true);
    json_decref(last);
    assert_int_equal(at_map_count(f->agent.instances), 0);
    assert_int_equal(f->driver.n_starts, 1);
}

static void deletion_while_waiting_to_restart_is_immediate(void **state)
{
    struct fixture *f = *state;
    f->driver.run_ns = 0;
    f->driver.exit_code = 1;
    put(f, "Always", false);
    pass(f, 300 * AT_NS_PER_S);
    size_t starts = f->driver.n_starts;
    put(f, "Always", true);
    pass(f, 60 * AT_NS_PER_S);
    assert_int_equal(f->finalized, 1);
    assert_int_equal(f->driver.n_starts, starts);
}

static void an_instance_outlives_the_agent(void **state)
{
    struct fixture *f = *state;
    put(f, "Always", false);
    pass(f, AT_NS_PER_S);
    agent_close(f);
    agent_open(f);
    agent_instances_load(&f->agent);
    assert_non_null(f->driver.task);
    put(f, "Always", false);
    agent_instances_synced(&f->agent);
    pass(f, 60 * AT_NS_PER_S);
    assert_status(f, "Running", "");
    assert_true(at_json_bool_at(f->status, "ready", false));
    assert_int_equal(f->driver.n_starts, 1);
    assert_int_equal(f->driver.terms + f->driver.kills, 0);
}

static void what_nobody_asks_for_after_a_restart_ends(void **state)
{
    struct fixture *f = *state;
    put(f, "Always", false);
    pass(f, AT_NS_PER_S);
    agent_close(f);
    agent_open(f);
    agent_instances_load(&f->agent);
    agent_instances_synced(&f->agent);
    pass(f, 60 * AT_NS_PER_S);
    assert_null(f->driver.task);
    assert_int_equal(at_map_count(f->agent.instances), 0);
    /* And a third life knows nothing of it. */
    agent_close(f);
    agent_open(f);
    agent_instances_load(&f->agent);
    assert_int_equal(at_map_count(f->agent.instances), 0);
}

static void an_end_before_the_first_list_is_survived(void **state)
{
    struct fixture *f = *state;
    put(f, "Always", false);
    pass(f, AT_NS_PER_S);
    agent_close(f);
    agent_open(f);
    agent_instances_load(&f->agent);
    end_soon(f->driver.task, 0, -1, -1);
    pass(f, AT_NS_PER_S);
    assert_null(f->driver.task);
    put(f, "Always", false);
    pass(f, AT_NS_PER_S);
    assert_int_equal(f->driver.n_starts, 2);
    assert_status(f, "Running", "");
}

static void a_start_cut_by_a_crash_is_swept(void **state)
{
    struct fixture *f = *state;
    put(f, "Always", false);
    assert_int_equal(f->driver.n_starts, 1);
    agent_close(f); /* before the driver has answered: the record names no task */
    agent_open(f);
    agent_instances_load(&f->agent);
    assert_int_equal(f->driver.sweeps, 1);
    put(f, "Always", false);
    pass(f, AT_NS_PER_S);
    assert_int_equal(f->driver.n_starts, 2);
}

/* The server need not have heard that it ran. */
static void never_means_one_run_also_where_a_crash_cut_its_start(void **state)
{
    struct fixture *f = *state;
    put(f, "Never", false);
    assert_int_equal(f->driver.n_starts, 1);
    agent_close(f);
    agent_open(f);
    agent_instances_load(&f->agent);
    put(f, "Never", false);
    agent_instances_synced(&f->agent);
    pass(f, AT_NS_PER_S);
    assert_status(f, "Failed", "Lost");
    assert_int_equal(f->driver.n_starts, 1);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, open_fixture, close_fixture)
    const struct CMUnitTest tests[] = {
        T(a_crash_loop_is_slowed_to_one_start_in_thirty_seconds),
        T(a_minute_of_health_forgets_earlier_failures),
        T(what_ends_for_good_is_not_started_again),
        T(never_means_one_run),
        T(a_start_that_is_refused_is_told_and_tried_again),
        T(deletion_is_polite_then_forced_then_takes_the_finalizer_off),
        T(deletion_while_waiting_to_restart_is_immediate),
        T(an_instance_outlives_the_agent),
        T(what_nobody_asks_for_after_a_restart_ends),
        T(an_end_before_the_first_list_is_survived),
        T(a_start_cut_by_a_crash_is_swept),
        T(never_means_one_run_also_where_a_crash_cut_its_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
