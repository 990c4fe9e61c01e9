#include "rig_look_test.h"

static json_t *work(struct rig *r)
{
    return rig_get(r, &AT_KIND_JOB, "default", "work");
}
static int64_t status(struct rig *r, const char *field)
{
    char path[64];
    snprintf(path, sizeof(path), "status.%s", field);
    json_t *job = work(r);
    int64_t value = at_json_int_at(job, path, -1);
    json_decref(job);
    return value;
}
static bool complete(struct rig *r)
{
    return rig_condition(r, &AT_KIND_JOB, "default", "work", "Complete", NULL);
}

static void runs_as_often_as_wanted_and_no_more_at_a_time(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 1);
    rig_three_sites(&r);
    r.job_hangs = true;
    rig_job(&r, "work", "\"completions\":5,\"parallelism\":2,");
    rig_run(&r, AT_NS_PER_S);
    assert_int_equal(rig_count(&r, "Running", false), 2);
    assert_int_equal(status(&r, "active"), 2);
    r.job_hangs = false;
    const struct at_snapshot *snap = at_state_snapshot(r.state);
    for (size_t k = 0; k < snap->n_instances; k++) {
        assert_string_equal(snap->instances[k]->spec.restart_policy, "Never");
        rig_patch(&r, &AT_KIND_INSTANCE, "default", snap->instances[k]->meta.name,
                  "{\"status\":{\"phase\":\"Succeeded\"}}");
    }
    at_snapshot_unref(snap);
    RIG_UNTIL(&r, 3, complete(&r));
    assert_int_equal(rig_all(&r), 5);
    assert_int_equal(status(&r, "succeeded"), 5);
    assert_int_equal(status(&r, "active"), 0);
    rig_run(&r, AT_NS_PER_S);
    int64_t rev = at_store_rev(r.store);
    rig_run(&r, 10 * AT_NS_PER_S);
    assert_int_equal(at_store_rev(r.store), rev);
    rig_delete(&r, &AT_KIND_JOB, "default", "work");
    RIG_UNTIL(&r, 2, rig_all(&r) == 0);
    rig_done(&r);
}

static void tries_again_with_growing_delays(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 2);
    rig_three_sites(&r);
    r.job_failures_left = 3;
    rig_job(&r, "work", "");
    int64_t start = at_sim_now_ns(r.sim);
    RIG_UNTIL(&r, 20, complete(&r));
    int64_t took = at_sim_now_ns(r.sim) - start;
    assert_in_range(took, 5 * AT_NS_PER_S, 9 * AT_NS_PER_S); /* 1 + 2 + 4 s; times cut to seconds */
    assert_int_equal(status(&r, "failed"), 3);
    assert_int_equal(rig_all(&r), 4);
    rig_done(&r);
}

static void fails_past_the_backoff_limit(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 3);
    rig_three_sites(&r);
    r.job_failures_left = 100;
    rig_job(&r, "work", "\"backoffLimit\":1,");
    RIG_UNTIL(&r, 20,
              rig_condition(&r, &AT_KIND_JOB, "default", "work", "Failed", "BackoffLimitExceeded"));
    rig_run(&r, 20 * AT_NS_PER_S);
    assert_int_equal(rig_all(&r), 2);
    rig_done(&r);
}

static void fails_past_its_deadline_and_stops_what_runs(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 4);
    rig_three_sites(&r);
    r.job_hangs = true;
    rig_job(&r, "work", "\"activeDeadline\":\"5s\",");
    rig_run(&r, 3 * AT_NS_PER_S);
    assert_int_equal(rig_count(&r, "Running", false), 1);
    RIG_UNTIL(&r, 4,
              rig_condition(&r, &AT_KIND_JOB, "default", "work", "Failed", "DeadlineExceeded"));
    RIG_UNTIL(&r, 1, rig_all(&r) == 0 && status(&r, "active") == 0);
    rig_done(&r);
}

static void goes_away_after_its_time(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 5);
    rig_three_sites(&r);
    rig_job(&r, "work", "\"ttlAfterFinished\":\"4s\",");
    RIG_UNTIL(&r, 3, complete(&r));
    rig_run(&r, 2 * AT_NS_PER_S);
    json_decref(work(&r));
    RIG_UNTIL(&r, 4, rig_absent(&r, &AT_KIND_JOB, "default", "work") && rig_all(&r) == 0);
    rig_done(&r);
}

static void suspended_job_starts_nothing_until_it_is_resumed(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 6);
    rig_three_sites(&r);
    rig_job(&r, "work", "\"suspend\":true,");
    rig_run(&r, 2 * AT_NS_PER_S);
    assert_int_equal(rig_all(&r), 0);
    rig_patch(&r, &AT_KIND_JOB, "default", "work", "{\"spec\":{\"suspend\":false}}");
    RIG_UNTIL(&r, 2, complete(&r));
    rig_done(&r);
}

static void lost_node_is_not_held_against_the_job(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 7);
    rig_three_sites(&r);
    r.job_hangs = true;
    rig_job(&r, "work", "\"backoffLimit\":0,");
    RIG_UNTIL(&r, 2, rig_count(&r, "Running", false) == 1);
    const struct at_snapshot *snap = at_state_snapshot(r.state);
    rig_kill_node(&r, snap->instances[0]->spec.node_name);
    at_snapshot_unref(snap);
    r.job_hangs = false;
    RIG_UNTIL(&r, 4, complete(&r));
    assert_int_equal(status(&r, "failed"), 0);
    rig_done(&r);
}

#define HOUR_NS (3600 * AT_NS_PER_S)

static void a_stepped_clock_neither_ends_a_job_nor_holds_it_up(void **state)
{
    (void)state;
    for (int sign = -1; sign <= 1; sign += 2) {
        struct rig r;
        rig_init(&r, 40);
        rig_three_sites(&r);
        r.job_hangs = true;
        rig_job(&r, "work", "\"activeDeadline\":\"60s\",");
        rig_run(&r, 5 * AT_NS_PER_S);
        at_sim_step_wall(r.sim, sign * 5 * HOUR_NS);
        ctl_enqueue(r.c, CTL_JOB, "default", "work"); /* it looks at the clock again */
        rig_run(&r, 40 * AT_NS_PER_S);
        assert_int_equal(rig_count(&r, "Running", false), 1);
        assert_false(
            rig_condition(&r, &AT_KIND_JOB, "default", "work", "Failed", "DeadlineExceeded"));
        RIG_UNTIL(&r, 30,
                  rig_condition(&r, &AT_KIND_JOB, "default", "work", "Failed", "DeadlineExceeded"));
        rig_done(&r);
    }
}

static void a_retry_comes_in_time_though_the_clock_was_stepped_back(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 41);
    rig_three_sites(&r);
    r.job_failures_left = 2;
    rig_job(&r, "work", "");
    RIG_UNTIL(&r, 10, r.job_failures_left < 2);
    at_sim_step_wall(r.sim, -5 * HOUR_NS);
    RIG_UNTIL(&r, 120, rig_condition(&r, &AT_KIND_JOB, "default", "work", "Complete", "Completed"));
    rig_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_as_often_as_wanted_and_no_more_at_a_time),
        cmocka_unit_test(tries_again_with_growing_delays),
        cmocka_unit_test(fails_past_the_backoff_limit),
        cmocka_unit_test(fails_past_its_deadline_and_stops_what_runs),
        cmocka_unit_test(a_stepped_clock_neither_ends_a_job_nor_holds_it_up),
        cmocka_unit_test(a_retry_comes_in_time_though_the_clock_was_stepped_back),
        cmocka_unit_test(goes_away_after_its_time),
        cmocka_unit_test(suspended_job_starts_nothing_until_it_is_resumed),
        cmocka_unit_test(lost_node_is_not_held_against_the_job),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
