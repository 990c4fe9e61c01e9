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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(idle_quota_is_lent_and_taken_back),
        cmocka_unit_test(a_queue_that_grows_or_goes_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
