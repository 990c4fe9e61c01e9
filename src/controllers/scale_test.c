/* From none to one and back, by what gateways report. */
#include "rig_look_test.h"
#include "rig_test.h"

static void deploy(struct rig *r, int replicas, const char *autoscaling)
{
    char text[512];
    snprintf(text, sizeof(text),
             "{\"metadata\":{\"name\":\"web\",\"namespace\":\"default\"},\"spec\":{\"replicas\":%d,"
             "\"autoscaling\":%s,\"template\":{\"spec\":{\"image\":\"oci:/x:1\"}}}}",
             replicas, autoscaling);
    rig_create(r, &AT_KIND_DEPLOYMENT, text);
}

static void report(struct rig *r, int n, int waiting, int running, int arrived)
{
    char text[512];
    snprintf(text, sizeof(text),
             "{\"status\":{\"time\":\"2026-01-01T00:00:%02dZ\",\"deployments\":[{\"namespace\":"
             "\"default\",\"name\":\"web\",\"waiting\":%d,\"running\":%d,\"arrived\":%d},"
             "{\"namespace\":\"default\",\"name\":\"unknown\",\"waiting\":1}]}}",
             n, waiting, running, arrived);
    rig_patch(r, &AT_KIND_GATEWAY_REPORT, NULL, "g1", text);
}

static int64_t replicas(struct rig *r)
{
    json_t *d = rig_get(r, &AT_KIND_DEPLOYMENT, "default", "web");
    int64_t n = at_json_int_at(d, "spec.replicas", -1);
    json_decref(d);
    return n;
}

static void begin(struct rig *r, uint64_t seed)
{
    rig_init(r, seed);
    rig_three_sites(r);
    rig_create(r, &AT_KIND_GATEWAY_REPORT, "{\"metadata\":{\"name\":\"g1\"}}");
}

#define RIG_STAYS(r, seconds, expr)                                                                \
    do {                                                                                           \
        int64_t until_ = at_sim_now_ns((r)->sim) + (seconds)*AT_NS_PER_S;                          \
        while (at_sim_now_ns((r)->sim) < until_) {                                                 \
            assert_true(expr);                                                                     \
            rig_turn(r);                                                                           \
        }                                                                                          \
    } while (0)

static void goes_after_idle_time_and_comes_when_a_request_waits(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, 41);
    deploy(&r, 1, "{\"min\":0,\"idle\":\"10s\"}");
    RIG_UNTIL(&r, 3, rig_ready(&r, "web"));
    RIG_STAYS(&r, 5, replicas(&r) == 1);
    report(&r, 1, 0, 0, 3); /* begins the time anew */
    RIG_STAYS(&r, 8, replicas(&r) == 1);
    RIG_UNTIL(&r, 4, replicas(&r) == 0);
    RIG_STAYS(&r, 20, replicas(&r) == 0);
    report(&r, 2, 1, 0, 1);
    RIG_UNTIL(&r, 1, replicas(&r) == 1);
    RIG_UNTIL(&r, 3, rig_ready(&r, "web"));
    for (int n = 3; n < 10; n++) { /* one long answer keeps it */
        report(&r, n, 0, 1, 0);
        RIG_STAYS(&r, 2, replicas(&r) == 1);
    }
    RIG_UNTIL(&r, 12, replicas(&r) == 0);
    rig_done(&r);
}

static void what_only_drains_wakes_nobody(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, 42);
    deploy(&r, 0, "{\"min\":0,\"idle\":\"10s\"}");
    report(&r, 1, 0, 1, 0);
    RIG_STAYS(&r, 5, replicas(&r) == 0);
    report(&r, 2, 0, 0, 1); /* came, and had gone before the report */
    RIG_UNTIL(&r, 1, replicas(&r) == 1);
    rig_done(&r);
}

static void keeps_to_the_bounds(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, 43);
    deploy(&r, 0, "{\"min\":2,\"max\":3}");
    RIG_UNTIL(&r, 2, replicas(&r) == 2);
    rig_patch(&r, &AT_KIND_DEPLOYMENT, "default", "web", "{\"spec\":{\"replicas\":9}}");
    RIG_UNTIL(&r, 2, replicas(&r) == 3);
    rig_patch(&r, &AT_KIND_DEPLOYMENT, "default", "web",
              "{\"spec\":{\"autoscaling\":null,\"replicas\":5}}");
    RIG_STAYS(&r, 3, replicas(&r) == 5);
    rig_done(&r);
}

static void a_restart_forgets_no_request_that_waits(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, 44);
    deploy(&r, 0, "{\"min\":0,\"idle\":\"10s\"}");
    r.c->writes_left = 0; /* it dies before it can act */
    report(&r, 1, 1, 0, 1);
    RIG_STAYS(&r, 1, replicas(&r) == 0);
    at_controllers_free(r.c);
    rig_start_controllers(&r);
    RIG_UNTIL(&r, 1, replicas(&r) == 1);
    RIG_UNTIL(&r, 14, replicas(&r) == 0); /* nobody asks any more */
    rig_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goes_after_idle_time_and_comes_when_a_request_waits),
        cmocka_unit_test(what_only_drains_wakes_nobody),
        cmocka_unit_test(keeps_to_the_bounds),
        cmocka_unit_test(a_restart_forgets_no_request_that_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
