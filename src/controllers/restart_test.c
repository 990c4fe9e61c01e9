/* The control plane dies between any two of its writes; a new one finishes the job: for every
 * number of writes that the first one may have got through. */
#include "rig_look_test.h"

#define WRITES_MAX 200

struct scenario {
    void (*before)(struct rig *r); /* with controllers that live */
    void (*act)(struct rig *r);    /* from here on they have n writes left */
    bool (*done)(struct rig *r);
    void (*after)(struct rig *r); /* the final state is right */
};

/* false: it got through with writes to spare, so every point has been tried. */
static bool try_after(const struct scenario *s, int64_t n)
{
    struct rig r;
    rig_init(&r, 100 + (uint64_t)n);
    rig_three_sites(&r);
    if (s->before != NULL) {
        s->before(&r);
    }
    rig_run(&r, AT_NS_PER_S);
    r.c->writes_left = n;
    s->act(&r);
    int64_t end = at_sim_now_ns(r.sim) + 20 * AT_NS_PER_S;
    while (r.c->writes_left > 0 && at_sim_now_ns(r.sim) < end) {
        rig_turn(&r);
    }
    bool died = r.c->writes_left == 0;
    rig_run(&r, 500 * AT_NS_PER_MS); /* a while without a control plane */
    at_controllers_free(r.c);
    rig_start_controllers(&r);
    RIG_UNTIL(&r, 30, s->done(&r));
    rig_run(&r, 2 * AT_NS_PER_S);
    assert_true(s->done(&r));
    s->after(&r);
    rig_done(&r);
    return died;
}

static void try_all(const struct scenario *s)
{
    int64_t n = 0;
    while (try_after(s, n)) {
        n++;
        assert_true(n < WRITES_MAX);
    }
    assert_true(n > 3); /* it did die in the middle of something */
}

static void expect_three_of_one_image(struct rig *r)
{
    const struct at_snapshot *snap = at_state_snapshot(r->state);
    assert_int_equal(snap->n_instances, 3);
    for (size_t k = 0; k < 3; k++) {
        assert_true(snap->instances[k]->status.ready);
        assert_string_equal(snap->instances[k]->spec.image, snap->instances[0]->spec.image);
    }
    at_snapshot_unref(snap);
}
static bool web_ready(struct rig *r)
{
    return rig_ready(r, "web") && rig_all(r) == 3;
}

static void apply_web(struct rig *r)
{
    rig_deployment(r, "web", 3, "oci:/x:1");
}
static void started_three_and_no_more(struct rig *r)
{
    expect_three_of_one_image(r);
    assert_int_equal(at_map_count(r->started), 3);
}
static void deployment_survives_death_at_any_write(void **state)
{
    (void)state;
    try_all(&(struct scenario){NULL, apply_web, web_ready, started_three_and_no_more});
}

static void web_is_there(struct rig *r)
{
    apply_web(r);
    RIG_UNTIL(r, 3, web_ready(r));
}
static void update_web(struct rig *r)
{
    r->min_ready = 3;
    r->check = rig_watch_bounds;
    rig_patch(r, &AT_KIND_DEPLOYMENT, "default", "web",
              "{\"spec\":{\"template\":{\"spec\":{\"image\":\"oci:/x:2\"}}}}");
}
static void updated_within_bounds(struct rig *r)
{
    expect_three_of_one_image(r);
    assert_int_equal(r->min_ready, 3);
    assert_true(r->max_alive <= 4);
    assert_int_equal(at_map_count(r->started), 6);
}
static void rolling_update_survives_death_at_any_write(void **state)
{
    (void)state;
    try_all(&(struct scenario){web_is_there, update_web, web_ready, updated_within_bounds});
}

static void lose_edge(struct rig *r)
{
    rig_kill_node(r, "edge-1");
}
static bool edge_replaced(struct rig *r)
{
    return web_ready(r) && rig_count(r, "Running", true) == 3 && at_map_count(r->started) == 4;
}
static void lost_node_survives_death_at_any_write(void **state)
{
    (void)state;
    try_all(&(struct scenario){web_is_there, lose_edge, edge_replaced, expect_three_of_one_image});
}

static void apply_job(struct rig *r)
{
    r->job_failures_left = 1;
    rig_job(r, "work", "\"completions\":3,\"parallelism\":2,");
}
static bool job_complete(struct rig *r)
{
    return rig_condition(r, &AT_KIND_JOB, "default", "work", "Complete", NULL);
}
static void ran_once_for_each_completion(struct rig *r)
{
    assert_int_equal(at_map_count(r->started), 4); /* three, and the one that failed */
    assert_int_equal(rig_count(r, "Succeeded", false), 3);
    json_t *job = rig_get(r, &AT_KIND_JOB, "default", "work");
    assert_int_equal(at_json_int_at(job, "status.succeeded", -1), 3);
    assert_int_equal(at_json_int_at(job, "status.failed", -1), 1);
    json_decref(job);
}
static void job_survives_death_at_any_write(void **state)
{
    (void)state;
    try_all(&(struct scenario){NULL, apply_job, job_complete, ran_once_for_each_completion});
}

static void delete_web(struct rig *r)
{
    rig_delete(r, &AT_KIND_DEPLOYMENT, "default", "web");
}
static bool nothing_left(struct rig *r)
{
    return rig_all(r) == 0;
}
static void check_nothing(struct rig *r)
{
    assert_int_equal(rig_all(r), 0);
}
static void deletion_survives_death_at_any_write(void **state)
{
    (void)state;
    try_all(&(struct scenario){web_is_there, delete_web, nothing_left, check_nothing});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deployment_survives_death_at_any_write),
        cmocka_unit_test(rolling_update_survives_death_at_any_write),
        cmocka_unit_test(lost_node_survives_death_at_any_write),
        cmocka_unit_test(job_survives_death_at_any_write),
        cmocka_unit_test(deletion_survives_death_at_any_write),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
