/* Who leaves a GPU when, and for whom: one GPU, models that each need most of it, agents and
 * gateways that are played. */
#include "rig_look_test.h"
#include "rig_test.h"

#define GPU_BYTES (INT64_C(16) << 30)

static const char *text_of(const struct at_instance_parking *p)
{
    return p != NULL && p->state != NULL ? p->state : "Resident";
}

static bool holds(const struct at_instance *i)
{
    return i->status.gpus.n > 0 && !at_streq(text_of(i->status.parking), "Parked") &&
           !at_streq(text_of(i->status.parking), "Waiting");
}

/* As an agent would: what it says depends on what is wanted and on who else is there. */
static const char *next_state(const struct at_snapshot *snap, const struct at_instance *i)
{
    const char *want = i->status.park != NULL ? i->status.park->want : "Resident";
    const char *now = text_of(i->status.parking);
    int64_t others = 0;
    for (size_t k = 0; k < snap->n_instances; k++) {
        const struct at_instance *x = snap->instances[k];
        others += x != i && holds(x) ? x->status.gpus.items[0].memory_bytes : 0;
    }
    if (at_streq(now, "Resident")) {
        return at_streq(want, "Resident") || !i->status.ready ? now : "Drained";
    }
    if (at_streq(now, "Drained")) {
        return at_streq(want, "Drained") ? now : want;
    }
    if (at_streq(want, "Parked")) {
        return "Parked";
    }
    return others + i->status.gpus.items[0].memory_bytes > GPU_BYTES ? "Waiting" : "Resident";
}

static void play_agent(struct rig *r)
{
    const struct at_snapshot *snap = at_state_snapshot(r->state);
    int64_t held = 0;
    for (size_t k = 0; k < snap->n_instances; k++) {
        const struct at_instance *i = snap->instances[k];
        held += holds(i) ? i->status.gpus.items[0].memory_bytes : 0;
    }
    assert_true(held <= GPU_BYTES);
    for (size_t k = 0; k < snap->n_instances; k++) {
        const struct at_instance *i = snap->instances[k];
        if (i->meta.deletion_wall_ns != 0 || !at_streq(i->status.phase, "Running")) {
            continue;
        }
        const char *now = text_of(i->status.parking), *next = next_state(snap, i);
        if (at_streq(now, next)) {
            continue;
        }
        char text[256];
        const struct at_instance_parking *p = i->status.parking;
        snprintf(text, sizeof text,
                 "{\"status\":{\"ready\":%s,\"parking\":{\"state\":\"%s\",\"parks\":%d,"
                 "\"resumes\":%d,\"parkMilliseconds\":5,\"resumeMilliseconds\":7}}}",
                 at_streq(next, "Resident") ? "true" : "false", next,
                 (p != NULL ? (int)p->parks : 0) + at_streq(next, "Parked"),
                 (p != NULL ? (int)p->resumes : 0) + at_streq(next, "Resident"));
        json_t *patch = rig_json(text);
        at_state_update(r->state, &AT_KIND_INSTANCE, i->meta.ns, i->meta.name, rig_apply_patch,
                        patch, NULL, NULL);
        json_decref(patch);
        break; /* one a turn, so that two do not come back at once */
    }
    at_snapshot_unref(snap);
}

static void begin(struct rig *r, uint64_t seed)
{
    rig_init(r, seed);
    rig_gpu_node(r);
    rig_create(r, &AT_KIND_GATEWAY_REPORT, "{\"metadata\":{\"name\":\"g1\"}}");
    r->check = play_agent;
}

static void model(struct rig *r, const char *name, int priority)
{
    char text[512];
    snprintf(
        text, sizeof text,
        "{\"metadata\":{\"name\":\"%s\",\"namespace\":\"default\"},\"spec\":{\"replicas\":1,"
        "\"template\":{\"spec\":{\"image\":\"oci:/x:1\",\"priority\":%d,\"resources\":{\"gpu\":"
        "\"0.5\",\"gpuMemory\":\"12Gi\"},\"gpuSharing\":{\"parkAfter\":\"20s\"}}}}}",
        name, priority);
    rig_create(r, &AT_KIND_DEPLOYMENT, text);
}

/* Of each name n requests wait or run; the report is told anew every two seconds. */
static void report(struct rig *r, const char *name, int n)
{
    static int second;
    char text[512];
    snprintf(text, sizeof text,
             "{\"status\":{\"time\":\"2026-01-01T00:%02d:%02dZ\",\"deployments\":[{\"namespace\":"
             "\"default\",\"name\":\"%s\",\"waiting\":%d,\"running\":0,\"arrived\":%d}]}}",
             second / 60 % 60, second % 60, name, n, n);
    second++;
    rig_patch(r, &AT_KIND_GATEWAY_REPORT, NULL, "g1", text);
}

static const char *state_of(struct rig *r, const char *deployment)
{
    static char text[32];
    const struct at_snapshot *snap = at_state_snapshot(r->state);
    snprintf(text, sizeof text, "none");
    for (size_t k = 0; k < snap->n_instances; k++) {
        const struct at_instance *i = snap->instances[k];
        const char *of = at_model_map_get(&i->meta.labels, CTL_LABEL_DEPLOYMENT);
        if (at_streq(of, deployment)) {
            snprintf(text, sizeof text, "%s",
                     i->status.gpus.n == 0 ? "Pending" : text_of(i->status.parking));
        }
    }
    at_snapshot_unref(snap);
    return text;
}

static bool is(struct rig *r, const char *deployment, const char *state)
{
    return strcmp(state_of(r, deployment), state) == 0;
}

static void both_loaded_and_parked(struct rig *r, int second_priority)
{
    model(r, "first", 0);
    RIG_UNTIL(r, 5, rig_ready(r, "first"));
    model(r, "second", second_priority);
    RIG_UNTIL(r, 40, is(r, "first", "Parked"));
    RIG_UNTIL(r, 40, is(r, "second", "Parked"));
}

static void idle_models_are_parked_and_come_back_when_asked(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, 61);
    model(&r, "first", 0);
    RIG_UNTIL(&r, 5, rig_ready(&r, "first"));
    for (int n = 0; n < 15; n++) { /* while somebody asks it stays */
        report(&r, "first", 1);
        rig_run(&r, 2 * AT_NS_PER_S);
        assert_true(is(&r, "first", "Resident"));
    }
    report(&r, "first", 0);
    RIG_UNTIL(&r, 40, is(&r, "first", "Parked"));
    assert_true(rig_condition(&r, &AT_KIND_DEPLOYMENT, "default", "first", "Available", NULL));
    rig_run(&r, 60 * AT_NS_PER_S);
    assert_true(is(&r, "first", "Parked"));
    report(&r, "first", 1);
    RIG_UNTIL(&r, 2, is(&r, "first", "Resident"));
    rig_done(&r);
}

static void one_that_nobody_asks_for_makes_way_at_once(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, 62);
    both_loaded_and_parked(&r, 5);
    report(&r, "second", 1);
    RIG_UNTIL(&r, 2, is(&r, "second", "Resident"));
    report(&r, "second", 0);
    rig_run(&r, 4 * AT_NS_PER_S);
    report(&r, "first", 1); /* of a lower priority, but the other is idle */
    RIG_UNTIL(&r, 5, is(&r, "first", "Resident"));
    assert_true(is(&r, "second", "Parked"));
    rig_done(&r);
}

static void both_asked(struct rig *r)
{
    static int second;
    char text[512];
    snprintf(text, sizeof text,
             "{\"status\":{\"time\":\"2026-01-01T01:%02d:%02dZ\",\"deployments\":[{\"namespace\":"
             "\"default\",\"name\":\"first\",\"waiting\":1},{\"namespace\":\"default\",\"name\":"
             "\"second\",\"waiting\":1}]}}",
             second / 60 % 60, second % 60);
    second++;
    rig_patch(r, &AT_KIND_GATEWAY_REPORT, NULL, "g1", text);
    rig_run(r, AT_NS_PER_S);
}

static void those_that_are_asked_have_it_in_turns(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, 63);
    both_loaded_and_parked(&r, 0);
    int first = 0, second = 0, changes = 0;
    bool was_first = false;
    for (int n = 0; n < 240; n++) {
        both_asked(&r);
        bool a = is(&r, "first", "Resident"), b = is(&r, "second", "Resident");
        assert_false(a && b);
        first += a;
        second += b;
        changes += (a && !was_first && first > 1) || (b && was_first);
        was_first = a || (was_first && !b);
    }
    /* Turns of ten seconds, and some three until what is there has gone. */
    assert_in_range(changes, 12, 20);
    assert_true(first > 60 && second > 60);
    rig_done(&r);
}

static void one_in_use_does_not_make_way_for_lower_priority(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, 64);
    both_loaded_and_parked(&r, 5);
    report(&r, "second", 1);
    RIG_UNTIL(&r, 2, is(&r, "second", "Resident"));
    for (int n = 0; n < 60; n++) {
        both_asked(&r);
        assert_true(is(&r, "second", "Resident"));
        assert_false(is(&r, "first", "Resident"));
    }
    rig_done(&r);
}

static void a_server_that_begins_anew_brings_nothing_back(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, 65);
    both_loaded_and_parked(&r, 0);
    report(&r, "first", 0);
    at_controllers_free(r.c);
    rig_start_controllers(&r);
    for (int n = 0; n < 30; n++) {
        rig_run(&r, AT_NS_PER_S);
        assert_true(is(&r, "first", "Parked"));
        assert_true(is(&r, "second", "Parked"));
    }
    at_controllers_free(r.c); /* and one that dies before it can act forgets no request */
    rig_start_controllers(&r);
    r.c->writes_left = 0;
    report(&r, "first", 1);
    rig_run(&r, AT_NS_PER_S);
    at_controllers_free(r.c);
    rig_start_controllers(&r);
    RIG_UNTIL(&r, 3, is(&r, "first", "Resident"));
    rig_done(&r);
}

static void what_parks_no_more_comes_back(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, 66);
    both_loaded_and_parked(&r, 0);
    rig_patch(&r, &AT_KIND_DEPLOYMENT, "default", "first",
              "{\"spec\":{\"template\":{\"spec\":{\"gpuSharing\":{\"parkAfter\":null}}}}}");
    RIG_UNTIL(&r, 5, is(&r, "first", "Resident"));
    assert_int_equal(rig_all(&r), 2); /* the same copies */
    rig_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(idle_models_are_parked_and_come_back_when_asked),
        cmocka_unit_test(one_that_nobody_asks_for_makes_way_at_once),
        cmocka_unit_test(those_that_are_asked_have_it_in_turns),
        cmocka_unit_test(one_in_use_does_not_make_way_for_lower_priority),
        cmocka_unit_test(a_server_that_begins_anew_brings_nothing_back),
        cmocka_unit_test(what_parks_no_more_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
