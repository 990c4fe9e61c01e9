/* Queues in the running controllers: borrowed, taken back, told. */
#include "rig_look_test.h"

static void queue(struct rig *r, const char *name, const char *cpu)
{
    char text[512];
    snprintf(text, sizeof(text),
             "{\"metadata\":{\"name\":\"%s\"},\"spec\":{\"cohort\":\"research\",\"quotas\":[{"
             "\"resources\":[{\"name\":\"cpu\",\"nominal\":\"%s\"}]}]}}",
             name, cpu);
    rig_create(r, &AT_KIND_QUEUE, text);
}

static void deployment(struct rig *r, const char *name, const char *queue_name, int replicas)
{
    char text[512];
    snprintf(text, sizeof(text),
             "{\"metadata\":{\"name\":\"%s\",\"namespace\":\"default\"},\"spec\":{\"replicas\":%d,"
             "\"template\":{\"spec\":{\"image\":\"oci:/x:y\",\"queue\":\"%s\","
             "\"resources\":{\"cpu\":\"1\"}}}}}",
             name, replicas, queue_name);
    rig_create(r, &AT_KIND_DEPLOYMENT, text);
}

static int64_t bound(struct rig *r, const char *owner)
{
    const struct at_snapshot *snap = at_state_snapshot(r->state);
    int64_t n = 0;
    for (size_t k = 0; k < snap->n_instances; k++) {
        const struct at_instance *i = snap->instances[k];
        n += at_streq(at_model_map_get(&i->meta.labels, CTL_LABEL_DEPLOYMENT), owner) &&
             ctl_text(i->spec.node_name)[0] != '\0' && i->meta.deletion_wall_ns == 0;
    }
    at_snapshot_unref(snap);
    return n;
}

static bool says(struct rig *r, const char *reason, const char *message)
{
    const struct at_snapshot *snap = at_state_snapshot(r->state);
    bool found = false;
    for (size_t k = 0; k < snap->n_instances; k++) {
        const struct at_instance *i = snap->instances[k];
        found = found || (at_streq(i->status.reason, reason) && i->status.decision != NULL &&
                          at_streq(i->status.decision->message, message));
    }
    at_snapshot_unref(snap);
    return found;
}

static bool told(struct rig *r, const char *part)
{
    const struct at_snapshot *snap = at_state_snapshot(r->state);
    bool found = false;
    for (size_t k = 0; k < snap->n_instances; k++) {
        const struct at_decision *d = snap->instances[k]->status.decision;
        found = found || (d != NULL && strstr(ctl_text(d->message), part) != NULL);
    }
    at_snapshot_unref(snap);
    return found;
}

static bool queue_shows(struct rig *r, const char *name, const char *path, const char *want)
{
    json_t *q = rig_get(r, &AT_KIND_QUEUE, NULL, name);
    bool same = at_streq(at_json_str_at(q, path, ""), want);
    json_decref(q);
    return same;
}

/* However the world turns, both together never use more than both own. */
static void within_cohort(struct rig *r)
{
    assert_true(bound(r, "a") + bound(r, "b") <= 6);
}

static void idle_quota_is_lent_and_taken_back(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 1);
    rig_three_sites(&r); /* 12 cpu */
    queue(&r, "team-a", "4");
    queue(&r, "team-b", "2");
    r.check = within_cohort;
    deployment(&r, "b", "team-b", 8);
    RIG_UNTIL(&r, 5, bound(&r, "b") == 6);
    RIG_UNTIL(&r, 5,
              says(&r, "QuotaExhausted",
                   "queue team-b: 6 of 2 cpu used, 1 wanted, nothing to borrow in cohort "
                   "research"));
    RIG_UNTIL(&r, 5, queue_shows(&r, "team-b", "status.used", "cpu 6/2"));
    RIG_UNTIL(&r, 5, queue_shows(&r, "team-b", "status.borrowed", "cpu 4"));
    deployment(&r, "a", "team-a", 3);
    RIG_UNTIL(&r, 10, bound(&r, "a") == 3 && bound(&r, "b") == 3);
    RIG_UNTIL(&r, 5, queue_shows(&r, "team-b", "status.borrowed", "cpu 1"));
    RIG_UNTIL(&r, 5, queue_shows(&r, "team-a", "status.used", "cpu 3/4"));
    rig_run(&r, 5 * AT_NS_PER_S); /* and there it stays */
    assert_int_equal(bound(&r, "a"), 3);
    assert_int_equal(bound(&r, "b"), 3);
    json_t *q = rig_get(&r, &AT_KIND_QUEUE, NULL, "team-b");
    assert_int_equal(at_json_int_at(q, "status.pending", -1), 5);
    assert_int_equal(at_json_int_at(q, "status.admitted", -1), 3);
    json_decref(q);
    rig_delete(&r, &AT_KIND_DEPLOYMENT, "default", "a");
    RIG_UNTIL(&r, 10, bound(&r, "b") == 6);
    rig_done(&r);
}

static void a_queue_that_grows_or_goes_is_noticed(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 2);
    rig_three_sites(&r);
    deployment(&r, "a", "late", 2);
    RIG_UNTIL(&r, 5, says(&r, "QueueNotFound", "queue late does not exist"));
    queue(&r, "late", "1");
    RIG_UNTIL(&r, 5, bound(&r, "a") == 1);
    rig_patch(&r, &AT_KIND_QUEUE, NULL, "late",
              "{\"spec\":{\"quotas\":[{\"resources\":[{\"name\":\"cpu\",\"nominal\":\"2\"}]}]}}");
    RIG_UNTIL(&r, 5, bound(&r, "a") == 2);
    rig_done(&r);
}

static int64_t on_node(struct rig *r, const char *owner, const char *node)
{
    const struct at_snapshot *snap = at_state_snapshot(r->state);
    int64_t n = 0;
    for (size_t k = 0; k < snap->n_instances; k++) {
        const struct at_instance *i = snap->instances[k];
        n += at_streq(at_model_map_get(&i->meta.labels, CTL_LABEL_DEPLOYMENT), owner) &&
             at_streq(i->spec.node_name, node) && i->meta.deletion_wall_ns == 0;
    }
    at_snapshot_unref(snap);
    return n;
}

static bool reservation_is(struct rig *r, const char *phase)
{
    json_t *v = rig_get(r, &AT_KIND_RESERVATION, NULL, "night");
    bool same = at_streq(at_json_str_at(v, "status.phase", ""), phase);
    json_decref(v);
    return same;
}

static void a_reservation_holds_its_node_from_its_start_to_its_end(void **state)
{
    (void)state;
    struct rig r;
    char from[AT_UNITS_TEXT_BYTES_MAX];
    char to[AT_UNITS_TEXT_BYTES_MAX];
    char text[512];
    rig_init(&r, 3);
    rig_three_sites(&r);
    deployment(&r, "other", "", 3); /* one on each node */
    RIG_UNTIL(&r, 5, rig_ready(&r, "other"));
    int64_t now = at_sys_wall_ns(at_sim_sys(r.sim));
    snprintf(text, sizeof(text),
             "{\"metadata\":{\"name\":\"night\"},\"spec\":{\"from\":\"%s\",\"to\":\"%s\","
             "\"nodes\":[\"edge-1\"],\"namespaces\":[\"vip\"]}}",
             at_time_format(now + 5 * AT_NS_PER_S, from),
             at_time_format(now + 15 * AT_NS_PER_S, to));
    rig_create(&r, &AT_KIND_RESERVATION, text);
    RIG_UNTIL(&r, 2, reservation_is(&r, "Scheduled"));
    assert_int_equal(on_node(&r, "other", "edge-1"), 1);
    RIG_UNTIL(&r, 6, reservation_is(&r, "Active") && on_node(&r, "other", "edge-1") == 0);
    RIG_UNTIL(&r, 5, rig_ready(&r, "other")); /* elsewhere */
    rig_create(&r, &AT_KIND_INSTANCE,
               "{\"metadata\":{\"name\":\"v\",\"namespace\":\"vip\",\"labels\":{"
               "\"atoll.dev/deployment\":\"vip\"}},\"spec\":{\"image\":\"oci:/x:y\","
               "\"resources\":{\"cpu\":\"1\"}}}");
    RIG_UNTIL(&r, 3, on_node(&r, "vip", "edge-1") == 1);
    assert_int_equal(on_node(&r, "other", "edge-1"), 0);
    deployment(&r, "late", "", 9); /* 4 cpu a node: 8 of 12 are not held, 3 are in use */
    RIG_UNTIL(&r, 3, bound(&r, "late") == 5);
    rig_run(&r, AT_NS_PER_S);
    assert_int_equal(on_node(&r, "late", "edge-1"), 0);
    assert_true(told(&r, "1 Reserved (edge-1: held by a reservation for others)"));
    assert_true(told(&r, "1 node is held by reservation night until 20"));
    RIG_UNTIL(&r, 20, reservation_is(&r, "Expired"));
    RIG_UNTIL(&r, 3, bound(&r, "late") == 8 && on_node(&r, "late", "edge-1") == 3);
    rig_done(&r);
}

static size_t count_where(struct rig *r, bool placed)
{
    const struct at_snapshot *snap = at_state_snapshot(r->state);
    size_t n = 0;
    for (size_t k = 0; k < snap->n_instances; k++) {
        n += (ctl_text(snap->instances[k]->spec.node_name)[0] != '\0') == placed;
    }
    at_snapshot_unref(snap);
    return n;
}

static void a_job_that_starts_together_waits_for_quota_for_all_of_it(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 6);
    rig_three_sites(&r);
    queue(&r, "q", "2");
    r.job_hangs = true;
    rig_create(&r, &AT_KIND_JOB,
               "{\"metadata\":{\"name\":\"work\",\"namespace\":\"default\"},\"spec\":{"
               "\"completions\":3,\"parallelism\":3,\"gangSize\":3,\"template\":{\"spec\":{"
               "\"command\":[\"true\"],\"queue\":\"q\",\"resources\":{\"cpu\":\"1\"}}}}}");
    RIG_UNTIL(&r, 5, count_where(&r, false) == 3 && told(&r, "3 cpu wanted"));
    rig_run(&r, 2 * AT_NS_PER_S);
    assert_int_equal(count_where(&r, true), 0); /* not two of them */
    rig_patch(&r, &AT_KIND_QUEUE, NULL, "q",
              "{\"spec\":{\"quotas\":[{\"resources\":[{\"name\":\"cpu\",\"nominal\":\"3\"}]}]}}");
    RIG_UNTIL(&r, 5, count_where(&r, true) == 3);
    rig_done(&r);
}

/* A deployment's copies, watched at each turn: as many as wanted serve at any time. */
static void all_serve(struct rig *r)
{
    rig_watch_bounds(r);
}

static void policy(struct rig *r, const char *mode)
{
    char text[512];
    snprintf(text, sizeof(text),
             "{\"metadata\":{\"name\":\"moves\"},\"spec\":{\"rescheduling\":{\"mode\":\"%s\","
             "\"interval\":\"2s\",\"coolDown\":\"1s\"}}}",
             mode);
    rig_create(r, &AT_KIND_POLICY, text);
}

static void taint(struct rig *r, const char *node)
{
    rig_patch(r, &AT_KIND_NODE, NULL, node,
              "{\"spec\":{\"taints\":[{\"key\":\"old\",\"effect\":\"NoSchedule\"}]}}");
}

struct search {
    const char *reason;
    bool found;
};
static void look_at_event(void *ctx, const char *ns, const char *name, const json_t *object)
{
    struct search *s = ctx;
    (void)ns;
    (void)name;
    s->found = s->found || at_streq(at_json_str_at(object, "reason", ""), s->reason);
}
static bool has_event(struct rig *r, const char *reason)
{
    struct search s = {reason, false};
    at_state_each(r->state, &AT_KIND_EVENT, NULL, look_at_event, &s);
    return s.found;
}

static void moves_are_proposed_or_made_without_anybody_missing(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 4);
    rig_three_sites(&r);
    deployment(&r, "d", "", 3);
    RIG_UNTIL(&r, 5, rig_ready(&r, "d"));
    policy(&r, "Propose");
    rig_run(&r, 3 * AT_NS_PER_S);
    taint(&r, "edge-1");
    RIG_UNTIL(&r, 6, has_event(&r, "MoveProposed"));
    rig_run(&r, 3 * AT_NS_PER_S);
    assert_int_equal(on_node(&r, "d", "edge-1"), 1); /* only proposed */
    r.min_ready = 99;
    r.check = all_serve;
    rig_patch(&r, &AT_KIND_POLICY, NULL, "moves",
              "{\"spec\":{\"rescheduling\":{\"mode\":\"Automatic\"}}}");
    RIG_UNTIL(&r, 10, on_node(&r, "d", "edge-1") == 0 && rig_ready(&r, "d"));
    assert_int_equal(r.min_ready, 3);
    assert_true(r.max_alive <= 4);
    r.max_alive = 0;
    rig_run(&r, 20 * AT_NS_PER_S); /* and there it stays */
    assert_int_equal(r.max_alive, 3);
    rig_done(&r);
}

static void begun_long_ago(struct rig *r)
{
    const struct at_snapshot *snap = at_state_snapshot(r->state);
    for (size_t k = 0; k < snap->n_instances; k++) {
        if (snap->instances[k]->status.move != NULL &&
            snap->instances[k]->status.move->replaces == NULL) {
            rig_patch(r, &AT_KIND_INSTANCE, "default", snap->instances[k]->meta.name,
                      "{\"status\":{\"move\":{\"since\":\"2025-12-31T23:00:00Z\"}}}");
        }
    }
    at_snapshot_unref(snap);
}

static void a_move_that_stalls_is_called_off(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 5);
    rig_three_sites(&r);
    deployment(&r, "d", "", 2);
    RIG_UNTIL(&r, 5, rig_ready(&r, "d"));
    policy(&r, "Automatic");
    rig_run(&r, 3 * AT_NS_PER_S);
    r.never_ready = true;
    const char *from = on_node(&r, "d", "cloud-1") > 0 ? "cloud-1" : "edge-1";
    taint(&r, from);
    RIG_UNTIL(&r, 6, has_event(&r, "Moving"));
    r.check = all_serve;
    r.min_ready = 99;
    rig_run(&r, 2 * AT_NS_PER_S);
    assert_false(has_event(&r, "MoveCalledOff"));
    begun_long_ago(&r);
    RIG_UNTIL(&r, 5, has_event(&r, "MoveCalledOff"));
    assert_int_equal(r.min_ready, 2);
    rig_run(&r, 3 * AT_NS_PER_S); /* the new copy goes */
    r.max_alive = 0;
    rig_run(&r, 12 * AT_NS_PER_S); /* and is not made again at once */
    assert_int_equal(r.max_alive, 2);
    rig_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(idle_quota_is_lent_and_taken_back),
        cmocka_unit_test(a_queue_that_grows_or_goes_is_noticed),
        cmocka_unit_test(a_reservation_holds_its_node_from_its_start_to_its_end),
        cmocka_unit_test(a_job_that_starts_together_waits_for_quota_for_all_of_it),
        cmocka_unit_test(moves_are_proposed_or_made_without_anybody_missing),
        cmocka_unit_test(a_move_that_stalls_is_called_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
