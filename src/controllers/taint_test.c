/* NoExecute taints end what runs, after the time for which it bears them. */
#include "rig_look_test.h"
#include "rig_test.h"

static void deploy_bearing(struct rig *r, const char *tolerations)
{
    char text[512];
    snprintf(text, sizeof(text),
             "{\"metadata\":{\"name\":\"web\",\"namespace\":\"default\"},\"spec\":{\"replicas\":1,"
             "\"template\":{\"spec\":{\"image\":\"oci:/x:1\",\"placement\":{\"sites\":[\"edge\"],"
             "\"tolerations\":%s}}}}}",
             tolerations);
    rig_create(r, &AT_KIND_DEPLOYMENT, text);
    RIG_UNTIL(r, 3, rig_ready(r, "web"));
}

#define RIG_STAYS(r, seconds, expr)                                                                \
    do {                                                                                           \
        int64_t until_ = at_sim_now_ns((r)->sim) + (seconds)*AT_NS_PER_S;                          \
        while (at_sim_now_ns((r)->sim) < until_) {                                                 \
            assert_true(expr);                                                                     \
            rig_turn(r);                                                                           \
        }                                                                                          \
    } while (0)

static bool has_time(struct rig *r)
{
    json_t *node = rig_get(r, &AT_KIND_NODE, NULL, "edge-1");
    const json_t *taint = json_array_get(at_json_at(node, "spec.taints"), 0);
    bool has = json_object_get(taint, "timeAdded") != NULL;
    json_decref(node);
    return has;
}

static void taint_edge(struct rig *r)
{
    rig_patch(r, &AT_KIND_NODE, NULL, "edge-1",
              "{\"spec\":{\"taints\":[{\"key\":\"out\",\"effect\":\"NoExecute\"}]}}");
}

static void stays_for_the_time_that_it_bears_the_taint(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 31);
    rig_three_sites(&r);
    deploy_bearing(&r, "[{\"key\":\"out\",\"operator\":\"Exists\",\"tolerationSeconds\":10},"
                       "{\"operator\":\"Exists\",\"tolerationSeconds\":\"60\"}]");
    int64_t began = at_sim_now_ns(r.sim);
    taint_edge(&r);
    RIG_UNTIL(&r, 2, has_time(&r));
    RIG_STAYS(&r, 7, rig_ready(&r, "web"));
    RIG_UNTIL(&r, 5, !rig_ready(&r, "web")); /* the shorter of the two */
    int64_t took = at_sim_now_ns(r.sim) - began;
    assert_true(took >= 9 * AT_NS_PER_S);
    assert_true(took <= 12 * AT_NS_PER_S);
    rig_done(&r);
}

static void a_restart_does_not_begin_the_time_anew(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 32);
    rig_three_sites(&r);
    deploy_bearing(&r, "[{\"operator\":\"Exists\",\"tolerationSeconds\":10}]");
    int64_t began = at_sim_now_ns(r.sim);
    taint_edge(&r);
    RIG_STAYS(&r, 6, rig_ready(&r, "web"));
    at_controllers_free(r.c);
    rig_start_controllers(&r);
    RIG_UNTIL(&r, 8, !rig_ready(&r, "web"));
    assert_true(at_sim_now_ns(r.sim) - began <= 12 * AT_NS_PER_S);
    rig_done(&r);
}

static void bears_for_ever_or_not_at_all(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 33);
    rig_three_sites(&r);
    deploy_bearing(&r, "[{\"key\":\"out\",\"operator\":\"Exists\",\"effect\":\"NoExecute\"}]");
    taint_edge(&r);
    RIG_STAYS(&r, 30, rig_ready(&r, "web"));
    rig_delete(&r, &AT_KIND_DEPLOYMENT, "default", "web");
    RIG_UNTIL(&r, 3, rig_all(&r) == 0);
    rig_patch(&r, &AT_KIND_NODE, NULL, "edge-1", "{\"spec\":{\"taints\":[]}}");
    deploy_bearing(&r, "[{\"key\":\"out\",\"operator\":\"Exists\",\"tolerationSeconds\":0}]");
    taint_edge(&r);
    RIG_UNTIL(&r, 1, !rig_ready(&r, "web"));
    rig_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stays_for_the_time_that_it_bears_the_taint),
        cmocka_unit_test(a_restart_does_not_begin_the_time_anew),
        cmocka_unit_test(bears_for_ever_or_not_at_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
