#include "rig_look_test.h"

#include "sys/file.h"

#include <stdlib.h>

static void makes_copies_spread_over_the_sites_and_reports_ready(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 1);
    rig_three_sites(&r);
    rig_deployment(&r, "web", 3, "oci:/x:1");
    RIG_UNTIL(&r, 3, rig_ready(&r, "web"));
    assert_int_equal(rig_count(&r, "Running", true), 3);
    json_t *d = rig_get(&r, &AT_KIND_DEPLOYMENT, "default", "web");
    assert_int_equal(at_json_int_at(d, "status.readyReplicas", -1), 3);
    assert_int_equal(at_json_int_at(d, "status.updatedReplicas", -1), 3);
    assert_string_equal(at_json_str_at(d, "status.selector", ""), "atoll.dev/deployment=web");
    const char *hash = at_json_str_at(d, "status.templateHash", "");
    const struct at_snapshot *snap = at_state_snapshot(r.state);
    for (size_t k = 0; k < 3; k++) { /* by name they are in no order of sites: look for each */
        const struct at_instance *i = snap->instances[k];
        assert_memory_equal(i->meta.name, "web-", 4);
        assert_memory_equal(i->meta.name + 4, hash, 5);
        assert_int_equal(strlen(i->meta.name), strlen("web-") + 5 + 1 + 5);
        assert_string_equal(at_model_map_get(&i->meta.labels, CTL_LABEL_HASH), hash);
        assert_true(at_meta_has_finalizer(&i->meta, CTL_FINALIZER_AGENT));
        json_t *stored = rig_get(&r, &AT_KIND_INSTANCE, i->meta.ns, i->meta.name);
        assert_non_null(
            strstr(at_json_str_at(stored, "status.decision.message", ""), "placed on "));
        json_decref(stored);
        for (size_t m = 0; m < k; m++) {
            assert_string_not_equal(i->status.site, snap->instances[m]->status.site);
            assert_true(i->status.scheduled_at_wall_ns !=
                        snap->instances[m]->status.scheduled_at_wall_ns);
        }
    }
    at_snapshot_unref(snap);
    json_decref(d);
    rig_run(&r, AT_NS_PER_S);
    d = rig_get(&r, &AT_KIND_SITE, NULL, "edge");
    assert_int_equal(at_json_int_at(d, "status.readyNodes", -1), 1);
    assert_int_equal(at_json_int_at(d, "status.instances", -1), 1);
    json_decref(d);
    d = rig_get(&r, &AT_KIND_NODE, NULL, "edge-1");
    assert_string_equal(at_json_str_at(d, "status.allocated.cpu", ""), "1");
    json_decref(d);
    rig_done(&r);
}

static void rests_when_everything_is_as_wanted(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 2);
    rig_three_sites(&r);
    rig_deployment(&r, "web", 3, "oci:/x:1");
    RIG_UNTIL(&r, 3, rig_ready(&r, "web"));
    rig_run(&r, 2 * AT_NS_PER_S);
    int64_t rev = at_store_rev(r.store);
    int64_t passes = at_metric_value(r.c->m_reconciles[CTL_DEPLOYMENT]);
    rig_run(&r, 30 * AT_NS_PER_S);
    assert_int_equal(at_store_rev(r.store), rev);
    assert_int_equal(at_metric_value(r.c->m_reconciles[CTL_DEPLOYMENT]), passes);
    rig_done(&r);
}

static void scales_up_and_down(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 3);
    rig_three_sites(&r);
    rig_deployment(&r, "web", 2, "oci:/x:1");
    RIG_UNTIL(&r, 3, rig_ready(&r, "web"));
    rig_patch(&r, &AT_KIND_DEPLOYMENT, "default", "web", "{\"spec\":{\"replicas\":7}}");
    RIG_UNTIL(&r, 3, rig_ready(&r, "web") && rig_all(&r) == 7);
    rig_patch(&r, &AT_KIND_DEPLOYMENT, "default", "web", "{\"spec\":{\"replicas\":0}}");
    RIG_UNTIL(&r, 3, rig_ready(&r, "web") && rig_all(&r) == 0);
    rig_done(&r);
}

static void gives_up_those_that_are_not_ready_first_then_the_newest(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 4);
    rig_three_sites(&r);
    rig_deployment(&r, "web", 1, "oci:/x:1");
    RIG_UNTIL(&r, 3, rig_ready(&r, "web"));
    const struct at_snapshot *snap = at_state_snapshot(r.state);
    char *oldest = at_strdup(snap->instances[0]->meta.name);
    at_snapshot_unref(snap);
    rig_run(&r, 2 * AT_NS_PER_S); /* creation times are whole seconds */
    rig_patch(&r, &AT_KIND_DEPLOYMENT, "default", "web", "{\"spec\":{\"replicas\":2}}");
    RIG_UNTIL(&r, 3, rig_ready(&r, "web"));
    rig_run(&r, 2 * AT_NS_PER_S);
    r.never_ready = true;
    rig_patch(&r, &AT_KIND_DEPLOYMENT, "default", "web", "{\"spec\":{\"replicas\":4}}");
    RIG_UNTIL(&r, 3, rig_count(&r, "Running", false) == 4);
    rig_patch(&r, &AT_KIND_DEPLOYMENT, "default", "web", "{\"spec\":{\"replicas\":2}}");
    RIG_UNTIL(&r, 3, rig_all(&r) == 2);
    assert_int_equal(rig_count(&r, "Running", true), 2);
    rig_patch(&r, &AT_KIND_DEPLOYMENT, "default", "web", "{\"spec\":{\"replicas\":1}}");
    RIG_UNTIL(&r, 3, rig_all(&r) == 1);
    json_decref(rig_get(&r, &AT_KIND_INSTANCE, "default", oldest));
    at_free(oldest);
    rig_done(&r);
}

static void rolling_update_stays_within_surge_and_unavailable(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 5);
    rig_three_sites(&r);
    rig_deployment(&r, "web", 4, "oci:/x:1");
    RIG_UNTIL(&r, 3, rig_ready(&r, "web"));
    r.min_ready = 4;
    r.check = rig_watch_bounds;
    rig_patch(&r, &AT_KIND_DEPLOYMENT, "default", "web",
              "{\"spec\":{\"template\":{\"spec\":{\"image\":\"oci:/x:2\"}}}}");
    RIG_UNTIL(&r, 10, rig_ready(&r, "web"));
    assert_int_equal(r.min_ready, 4);
    assert_int_equal(r.max_alive, 5);
    const struct at_snapshot *snap = at_state_snapshot(r.state);
    for (size_t k = 0; k < snap->n_instances; k++) {
        assert_string_equal(snap->instances[k]->spec.image, "oci:/x:2");
    }
    at_snapshot_unref(snap);
    r.max_alive = 0;
    rig_patch(
        &r, &AT_KIND_DEPLOYMENT, "default", "web",
        "{\"spec\":{\"strategy\":{\"maxSurge\":0,\"maxUnavailable\":2},\"template\":{\"spec\":{"
        "\"image\":\"oci:/x:3\"}}}}");
    RIG_UNTIL(&r, 10, rig_ready(&r, "web"));
    assert_int_equal(r.min_ready, 2);
    assert_int_equal(r.max_alive, 4);
    rig_done(&r);
}

static void stuck_update_leaves_the_old_ones_serving(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 6);
    rig_three_sites(&r);
    rig_deployment(&r, "web", 3, "oci:/x:1");
    RIG_UNTIL(&r, 3, rig_ready(&r, "web"));
    r.min_ready = 3;
    r.check = rig_watch_bounds;
    r.never_ready_image = "oci:/x:bad";
    rig_patch(&r, &AT_KIND_DEPLOYMENT, "default", "web",
              "{\"spec\":{\"template\":{\"spec\":{\"image\":\"oci:/x:bad\"}}}}");
    rig_run(&r, 20 * AT_NS_PER_S);
    assert_int_equal(r.min_ready, 3);
    assert_int_equal(r.max_alive, 4);
    rig_patch(&r, &AT_KIND_DEPLOYMENT, "default", "web", /* back: the old ones are the new ones */
              "{\"spec\":{\"template\":{\"spec\":{\"image\":\"oci:/x:1\"}}}}");
    RIG_UNTIL(&r, 3, rig_ready(&r, "web") && rig_all(&r) == 3);
    assert_int_equal(r.min_ready, 3);
    rig_done(&r);
}

/* An old copy that stumbles while the update is stuck may recover: it is not given up. */
static void stuck_update_does_not_eat_old_ones_that_stumble(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 18);
    rig_three_sites(&r);
    rig_deployment(&r, "web", 3, "oci:/x:1");
    RIG_UNTIL(&r, 3, rig_ready(&r, "web"));
    const struct at_snapshot *snap = at_state_snapshot(r.state);
    char *name = at_strdup(snap->instances[0]->meta.name);
    at_snapshot_unref(snap);
    r.never_ready_image = "oci:/x:bad";
    rig_patch(&r, &AT_KIND_DEPLOYMENT, "default", "web",
              "{\"spec\":{\"template\":{\"spec\":{\"image\":\"oci:/x:bad\"}}}}");
    RIG_UNTIL(&r, 3, rig_count(&r, "Running", false) == 4);
    rig_patch(&r, &AT_KIND_INSTANCE, "default", name, "{\"status\":{\"ready\":false}}");
    rig_run(&r, 5 * AT_NS_PER_S);
    assert_false(rig_absent(&r, &AT_KIND_INSTANCE, "default", name));
    assert_int_equal(rig_count(&r, "Running", false), 4);
    at_free(name);
    rig_done(&r);
}

/* Triggers come at every moment, also while writes are on their way to a disk. */
static void poke(struct rig *r)
{
    if (at_sim_polls(r->sim) % 3 == 0) { /* not always: time must be able to pass */
        ctl_enqueue(r->c, CTL_DEPLOYMENT, "default", "web");
        ctl_enqueue(r->c, CTL_PLACEMENT, NULL, "all");
    }
    rig_watch_bounds(r);
}

static void makes_nothing_twice_while_writes_are_in_flight(void **state)
{
    (void)state;
    char dir[] = "/tmp/atoll-controllers-XXXXXX";
    char path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/db", dir);
    struct rig r;
    rig_init_on(&r, 19, "sqlite", path);
    rig_three_sites(&r);
    r.check = poke;
    rig_deployment(&r, "web", 4, "oci:/x:1");
    RIG_UNTIL(&r, 600, rig_ready(&r, "web") && rig_all(&r) == 4);
    assert_int_equal(r.max_alive, 4);
    assert_int_equal(at_map_count(r.started), 4);
    r.min_ready = 4;
    rig_patch(&r, &AT_KIND_DEPLOYMENT, "default", "web",
              "{\"spec\":{\"template\":{\"spec\":{\"image\":\"oci:/x:2\"}}}}");
    RIG_UNTIL(&r, 600, rig_ready(&r, "web") && rig_all(&r) == 4);
    assert_int_equal(r.min_ready, 4);
    assert_int_equal(r.max_alive, 5);
    assert_int_equal(at_map_count(r.started), 8);
    rig_done(&r);
    struct at_err err;
    assert_int_equal(at_tree_remove(dir, &err), AT_OK);
}

static void lost_node_is_noticed_and_its_instances_replaced(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 7);
    rig_three_sites(&r);
    rig_deployment(&r, "web", 3, "oci:/x:1");
    RIG_UNTIL(&r, 3, rig_ready(&r, "web"));
    rig_run(&r, 10 * AT_NS_PER_S);
    rig_kill_node(&r, "onprem-1");
    int64_t killed = at_sim_now_ns(r.sim);
    RIG_UNTIL(&r, 5, !rig_ready(&r, "web"));
    int64_t noticed = at_sim_now_ns(r.sim);
    assert_in_range(noticed - killed, 2 * AT_NS_PER_S, 2200 * AT_NS_PER_MS);
    RIG_UNTIL(&r, 5, rig_ready(&r, "web"));
    assert_true(at_sim_now_ns(r.sim) - noticed < 200 * AT_NS_PER_MS);
    assert_int_equal(rig_all(&r), 3);
    json_t *node = rig_get(&r, &AT_KIND_NODE, NULL, "onprem-1");
    json_t *ready = json_array_get(at_json_at(node, "status.conditions"), 0);
    assert_string_equal(at_json_str_at(ready, "status", ""), "False");
    assert_string_equal(at_json_str_at(ready, "reason", ""), "HeartbeatLost");
    json_decref(node);
    snprintf(r.nodes[r.n_nodes++], sizeof(r.nodes[0]), "onprem-1"); /* it comes back */
    RIG_UNTIL(&r, 1, rig_condition(&r, &AT_KIND_NODE, NULL, "onprem-1", "Ready", NULL));
    rig_patch(&r, &AT_KIND_DEPLOYMENT, "default", "web", "{\"spec\":{\"replicas\":5}}");
    RIG_UNTIL(&r, 3, rig_ready(&r, "web"));
    rig_done(&r);
}

static void assert_never_heard(struct rig *r, const char *name, bool judged)
{
    json_t *node = rig_get(r, &AT_KIND_NODE, NULL, name);
    const json_t *ready = json_array_get(at_json_at(node, "status.conditions"), 0);
    assert_string_equal(at_json_str_at(ready, "reason", ""), judged ? "HeartbeatNever" : "");
    json_decref(node);
}

/* Its creation is by a clock that somebody may step right after it, either way. */
static void node_that_never_beats_is_judged_in_its_time_whatever_the_clock_shows(void **state)
{
    (void)state;
    static const int64_t steps_s[] = {5 * 3600, -7 * 3600};
    for (size_t k = 0; k < AT_ARRAY_LEN(steps_s); k++) {
        struct rig r;
        rig_init(&r, 31);
        rig_three_sites(&r);
        rig_node(&r, "mute", "edge", "4");
        r.n_nodes--; /* its agent never comes */
        at_sim_step_wall(r.sim, steps_s[k] * AT_NS_PER_S);
        rig_run(&r, 9 * AT_NS_PER_S);
        assert_never_heard(&r, "mute", false);
        rig_delete(&r, &AT_KIND_NODE, NULL, "mute"); /* another one of that name begins anew */
        rig_node(&r, "mute", "edge", "4");
        r.n_nodes--;
        rig_run(&r, 9 * AT_NS_PER_S);
        assert_never_heard(&r, "mute", false);
        rig_run(&r, 2 * AT_NS_PER_S);
        assert_never_heard(&r, "mute", true);
        rig_done(&r);
    }
}

static void deleted_node_takes_its_instances_along(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 8);
    rig_three_sites(&r);
    rig_deployment(&r, "web", 3, "oci:/x:1");
    RIG_UNTIL(&r, 3, rig_ready(&r, "web"));
    rig_kill_node(&r, "edge-1");
    rig_delete(&r, &AT_KIND_NODE, NULL, "edge-1");
    RIG_UNTIL(&r, 1, !rig_ready(&r, "web"));
    RIG_UNTIL(&r, 1, rig_ready(&r, "web") && rig_all(&r) == 3);
    rig_done(&r);
}

static void own_restart_forgives_silence_for_a_while(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 9);
    rig_three_sites(&r);
    rig_deployment(&r, "web", 3, "oci:/x:1");
    RIG_UNTIL(&r, 3, rig_ready(&r, "web"));
    at_controllers_free(r.c);
    at_state_free(r.state); /* heartbeats are forgotten with it */
    struct at_err err;
    assert_int_equal(at_state_new(r.loop, r.store, NULL, NULL, &r.state, &err), AT_OK);
    rig_start_controllers(&r);
    size_t n = r.n_nodes;
    r.n_nodes = 0; /* agents need a moment to come back */
    rig_run(&r, 4 * AT_NS_PER_S);
    assert_int_equal(rig_count(&r, "Running", true), 3);
    r.n_nodes = n - 1; /* one never does */
    RIG_UNTIL(&r, 3, rig_count(&r, "Failed", false) > 0 || !rig_ready(&r, "web"));
    RIG_UNTIL(&r, 3, rig_ready(&r, "web"));
    rig_done(&r);
}

static void instance_that_fails_for_good_is_replaced_after_a_delay(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 10);
    rig_three_sites(&r);
    rig_deployment(&r, "web", 1, "oci:/x:1");
    RIG_UNTIL(&r, 3, rig_ready(&r, "web"));
    const struct at_snapshot *snap = at_state_snapshot(r.state);
    char *name = at_strdup(snap->instances[0]->meta.name);
    at_snapshot_unref(snap);
    char time[AT_UNITS_TEXT_BYTES_MAX];
    char text[256];
    snprintf(text, sizeof(text),
             "{\"status\":{\"phase\":\"Failed\",\"ready\":false,\"reason\":\"ModelDigestMismatch\","
             "\"message\":\"digest differs\",\"finishedAt\":\"%s\"}}",
             at_time_format(at_sys_wall_ns(at_sim_sys(r.sim)) + AT_NS_PER_S, time));
    rig_patch(&r, &AT_KIND_INSTANCE, "default", name, text);
    RIG_UNTIL(&r, 1, !rig_ready(&r, "web"));
    json_decref(rig_get(&r, &AT_KIND_INSTANCE, "default", name)); /* its reason can be read */
    json_t *d = rig_get(&r, &AT_KIND_DEPLOYMENT, "default", "web");
    char *dump = json_dumps(d, 0);
    assert_non_null(strstr(dump, "0 of 1 ready: "));
    assert_non_null(strstr(dump, "digest differs"));
    free(dump);
    json_decref(d);
    RIG_UNTIL(&r, 5, rig_ready(&r, "web"));
    assert_int_equal(rig_all(&r), 1);
    at_free(name);
    rig_done(&r);
}

static int64_t events_named(struct rig *r, const char *reason);

static void pending_instance_says_why_once_and_goes_when_there_is_room(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 11);
    rig_deployment(&r, "web", 1, "oci:/x:1");
    rig_run(&r, AT_NS_PER_S);
    const struct at_snapshot *snap = at_state_snapshot(r.state);
    assert_string_equal(snap->instances[0]->status.message,
                        "0 of 0 nodes fit: no node has joined yet");
    assert_string_equal(snap->instances[0]->status.reason, "Unschedulable");
    at_snapshot_unref(snap);
    int64_t rev = at_store_rev(r.store);
    rig_run(&r, 5 * AT_NS_PER_S);
    assert_int_equal(at_store_rev(r.store), rev);
    assert_int_equal(events_named(&r, "FailedScheduling"), 1);
    rig_three_sites(&r);
    RIG_UNTIL(&r, 3, rig_ready(&r, "web"));
    snap = at_state_snapshot(r.state);
    assert_null(snap->instances[0]->status.reason);
    at_snapshot_unref(snap);
    assert_int_equal(events_named(&r, "Scheduled"), 1);
    rig_done(&r);
}

struct event_count {
    const char *reason;
    int64_t n;
};
static void count_event(void *ctx, const char *ns, const char *name, const json_t *object)
{
    struct event_count *e = ctx;
    (void)ns;
    (void)name;
    e->n += at_streq(at_json_str_at(object, "reason", ""), e->reason)
                ? at_json_int_at(object, "count", 1)
                : 0;
}
static int64_t events_named(struct rig *r, const char *reason)
{
    struct event_count e = {reason, 0};
    at_state_each(r->state, &AT_KIND_EVENT, NULL, count_event, &e);
    return e.n;
}

static void what_agents_report_becomes_events(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 23);
    rig_three_sites(&r);
    rig_deployment(&r, "web", 1, "v1");
    RIG_UNTIL(&r, 5, rig_ready(&r, "web"));
    assert_int_equal(events_named(&r, "ScalingUp"), 1);
    char name[128];
    const struct at_snapshot *snap = at_state_snapshot(r.state);
    snprintf(name, sizeof(name), "%s", snap->instances[0]->meta.name);
    at_snapshot_unref(snap);
    static const char UNHEALTHY[] =
        "{\"status\":{\"reason\":\"Unhealthy\",\"message\":\"the liveness probe failed\"}}";
    rig_patch(&r, &AT_KIND_INSTANCE, "default", name, UNHEALTHY);
    RIG_UNTIL(&r, 5, events_named(&r, "Unhealthy") == 1);

    /* The same again is no news; after a life without it, it is, and is counted up. */
    rig_patch(&r, &AT_KIND_INSTANCE, "default", name, "{\"status\":{\"pid\":7}}");
    rig_run(&r, AT_NS_PER_S);
    assert_int_equal(events_named(&r, "Unhealthy"), 1);
    rig_patch(&r, &AT_KIND_INSTANCE, "default", name,
              "{\"status\":{\"reason\":null,\"message\":null}}");
    rig_run(&r, AT_NS_PER_S);
    rig_patch(&r, &AT_KIND_INSTANCE, "default", name, UNHEALTHY);
    RIG_UNTIL(&r, 5, events_named(&r, "Unhealthy") == 2);

    /* Controllers that start tell nothing that was told before. */
    at_controllers_free(r.c);
    rig_start_controllers(&r);
    rig_run(&r, AT_NS_PER_S);
    assert_int_equal(events_named(&r, "Unhealthy"), 2);
    rig_done(&r);
}

static void instance_bound_by_hand_is_adopted(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 12);
    rig_three_sites(&r);
    rig_create(&r, &AT_KIND_INSTANCE,
               "{\"metadata\":{\"name\":\"mine\",\"namespace\":\"default\"},\"spec\":{\"nodeName\":"
               "\"edge-1\",\"command\":[\"true\"]}}");
    rig_run(&r, AT_NS_PER_S);
    const struct at_snapshot *snap = at_state_snapshot(r.state);
    assert_true(at_meta_has_finalizer(&snap->instances[0]->meta, CTL_FINALIZER_AGENT));
    assert_string_equal(snap->instances[0]->status.site, "edge");
    assert_null(snap->instances[0]->status.decision); /* carried out: nobody decides by it */
    json_t *stored = rig_get(&r, &AT_KIND_INSTANCE, "default", "mine");
    assert_string_equal(at_json_str_at(stored, "status.decision.message", ""),
                        "bound to edge-1 by hand");
    json_decref(stored);
    at_snapshot_unref(snap);
    rig_done(&r);
}

static void no_execute_taint_ends_what_runs(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 13);
    rig_three_sites(&r);
    rig_deployment(&r, "web", 3, "oci:/x:1");
    RIG_UNTIL(&r, 3, rig_ready(&r, "web"));
    rig_patch(&r, &AT_KIND_NODE, NULL, "edge-1",
              "{\"spec\":{\"taints\":[{\"key\":\"out\",\"effect\":\"NoExecute\"}]}}");
    RIG_UNTIL(&r, 1, !rig_ready(&r, "web"));
    RIG_UNTIL(&r, 3, rig_ready(&r, "web"));
    const struct at_snapshot *snap = at_state_snapshot(r.state);
    for (size_t k = 0; k < snap->n_instances; k++) {
        assert_string_not_equal(snap->instances[k]->spec.node_name, "edge-1");
    }
    at_snapshot_unref(snap);
    rig_done(&r);
}

static void deleting_the_owner_deletes_its_instances(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 14);
    rig_three_sites(&r);
    rig_deployment(&r, "web", 3, "oci:/x:1");
    rig_deployment(&r, "other", 1, "oci:/x:1");
    RIG_UNTIL(&r, 3, rig_ready(&r, "web") && rig_ready(&r, "other"));
    rig_delete(&r, &AT_KIND_DEPLOYMENT, "default", "web");
    RIG_UNTIL(&r, 2, rig_all(&r) == 1);
    rig_patch(&r, &AT_KIND_DEPLOYMENT, "default", "other",
              "{\"metadata\":{\"finalizers\":[\"foregroundDeletion\"]}}");
    rig_delete(&r, &AT_KIND_DEPLOYMENT, "default", "other");
    json_decref(rig_get(&r, &AT_KIND_DEPLOYMENT, "default", "other")); /* it waits for its copy */
    RIG_UNTIL(&r, 2, rig_absent(&r, &AT_KIND_DEPLOYMENT, "default", "other") && rig_all(&r) == 0);
    rig_done(&r);
}

static void orphaning_keeps_the_instances(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 15);
    rig_three_sites(&r);
    rig_deployment(&r, "web", 2, "oci:/x:1");
    RIG_UNTIL(&r, 3, rig_ready(&r, "web"));
    rig_patch(&r, &AT_KIND_DEPLOYMENT, "default", "web",
              "{\"metadata\":{\"finalizers\":[\"orphan\"]}}");
    rig_delete(&r, &AT_KIND_DEPLOYMENT, "default", "web");
    rig_run(&r, 3 * AT_NS_PER_S);
    assert_true(rig_absent(&r, &AT_KIND_DEPLOYMENT, "default", "web"));
    assert_int_equal(rig_count(&r, "Running", true), 2);
    rig_done(&r);
}

static void deleting_a_namespace_empties_it_first(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 16);
    rig_three_sites(&r);
    rig_create(&r, &AT_KIND_NAMESPACE,
               "{\"metadata\":{\"name\":\"default\",\"finalizers\":[\"atoll.dev/namespace\"]}}");
    rig_create(&r, &AT_KIND_CONFIG_MAP,
               "{\"metadata\":{\"name\":\"c\",\"namespace\":\"default\"},\"data\":{\"a\":\"b\"}}");
    rig_create(&r, &AT_KIND_CONFIG_MAP,
               "{\"metadata\":{\"name\":\"c\",\"namespace\":\"else\"},\"data\":{\"a\":\"b\"}}");
    rig_deployment(&r, "web", 3, "oci:/x:1");
    rig_job(&r, "work", "");
    RIG_UNTIL(&r, 3, rig_ready(&r, "web"));
    rig_delete(&r, &AT_KIND_NAMESPACE, NULL, "default");
    RIG_UNTIL(&r, 5, rig_absent(&r, &AT_KIND_NAMESPACE, NULL, "default"));
    assert_int_equal(rig_all(&r), 0);
    assert_true(rig_absent(&r, &AT_KIND_CONFIG_MAP, "default", "c"));
    json_decref(rig_get(&r, &AT_KIND_CONFIG_MAP, "else", "c"));
    rig_done(&r);
}

static void counts_its_work_in_metrics(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 17);
    rig_three_sites(&r);
    rig_deployment(&r, "web", 3, "oci:/x:1");
    RIG_UNTIL(&r, 3, rig_ready(&r, "web"));
    assert_int_equal(at_metric_value(r.c->m_latency), 3);
    assert_int_equal(at_metric_value(r.c->m_placed), 3);
    assert_true(at_metric_value(r.c->m_reconciles[CTL_DEPLOYMENT]) > 0);
    assert_int_equal(at_metric_value(r.c->m_errors[CTL_DEPLOYMENT]), 0);
    rig_done(&r);
}

static bool rig_absent_condition(struct rig *r, const char *ns, const char *name, const char *type)
{
    json_t *d = rig_get(r, &AT_KIND_DEPLOYMENT, ns, name);
    bool absent = true;
    size_t i;
    json_t *c;
    json_array_foreach(at_json_at(d, "status.conditions"), i, c)
    {
        absent = absent && !at_streq(at_json_str_at(c, "type", ""), type);
    }
    json_decref(d);
    return absent;
}

/* Gateways give a model's plain name to the oldest Deployment that has it. */
static void who_does_not_get_a_models_plain_name_is_told(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, 71);
    rig_three_sites(&r);
    rig_create(&r, &AT_KIND_NAMESPACE, "{\"metadata\":{\"name\":\"team\"}}");
    static const char *const DEPLOYMENTS[] = {
        "{\"metadata\":{\"name\":\"first\",\"namespace\":\"default\"},\"spec\":{\"replicas\":0,"
        "\"template\":{\"spec\":{\"image\":\"x\",\"model\":{\"uri\":\"file:x\",\"name\":\"m\"}}}}}",
        "{\"metadata\":{\"name\":\"m\",\"namespace\":\"team\"},\"spec\":{\"replicas\":0,"
        "\"template\":{\"spec\":{\"image\":\"x\",\"model\":{\"uri\":\"file:x\"}}}}}",
        "{\"metadata\":{\"name\":\"also\",\"namespace\":\"default\"},\"spec\":{\"replicas\":0,"
        "\"traffic\":{\"model\":\"m\"},\"template\":{\"spec\":{\"image\":\"x\"}}}}"};
    for (size_t i = 0; i < AT_ARRAY_LEN(DEPLOYMENTS); i++) {
        rig_create(&r, &AT_KIND_DEPLOYMENT, DEPLOYMENTS[i]);
        rig_run(&r, 2 * AT_NS_PER_S);
    }
    json_t *d = rig_get(&r, &AT_KIND_DEPLOYMENT, "team", "m");
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    assert_int_equal(at_json_dump(at_json_at(d, "status.conditions"), &text), AT_OK);
    assert_non_null(strstr(text.data, "\"NameTaken\""));
    assert_non_null(strstr(text.data, "go to an older Deployment of another namespace"));
    assert_null(strstr(text.data, "default/first"));
    assert_non_null(strstr(text.data, "ask for team/m"));
    json_decref(d);
    assert_true(rig_absent_condition(&r, "default", "first", "ModelName"));
    assert_true(rig_absent_condition(&r, "default", "also", "ModelName")); /* of one route */
    /* Its owner goes: both of that namespace must. */
    rig_delete(&r, &AT_KIND_DEPLOYMENT, "default", "first");
    rig_run(&r, 2 * AT_NS_PER_S);
    assert_true(rig_condition(&r, &AT_KIND_DEPLOYMENT, "team", "m", "ModelName", NULL));
    assert_false(rig_condition(&r, &AT_KIND_DEPLOYMENT, "default", "also", "ModelName", NULL));
    rig_patch(&r, &AT_KIND_DEPLOYMENT, "default", "also",
              "{\"spec\":{\"traffic\":{\"model\":\"n\"}}}");
    rig_run(&r, 2 * AT_NS_PER_S);
    assert_true(rig_condition(&r, &AT_KIND_DEPLOYMENT, "default", "also", "ModelName", NULL));
    rig_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(makes_copies_spread_over_the_sites_and_reports_ready),
        cmocka_unit_test(rests_when_everything_is_as_wanted),
        cmocka_unit_test(scales_up_and_down),
        cmocka_unit_test(gives_up_those_that_are_not_ready_first_then_the_newest),
        cmocka_unit_test(rolling_update_stays_within_surge_and_unavailable),
        cmocka_unit_test(stuck_update_leaves_the_old_ones_serving),
        cmocka_unit_test(stuck_update_does_not_eat_old_ones_that_stumble),
        cmocka_unit_test(makes_nothing_twice_while_writes_are_in_flight),
        cmocka_unit_test(lost_node_is_noticed_and_its_instances_replaced),
        cmocka_unit_test(node_that_never_beats_is_judged_in_its_time_whatever_the_clock_shows),
        cmocka_unit_test(deleted_node_takes_its_instances_along),
        cmocka_unit_test(own_restart_forgives_silence_for_a_while),
        cmocka_unit_test(instance_that_fails_for_good_is_replaced_after_a_delay),
        cmocka_unit_test(pending_instance_says_why_once_and_goes_when_there_is_room),
        cmocka_unit_test(what_agents_report_becomes_events),
        cmocka_unit_test(instance_bound_by_hand_is_adopted),
        cmocka_unit_test(no_execute_taint_ends_what_runs),
        cmocka_unit_test(deleting_the_owner_deletes_its_instances),
        cmocka_unit_test(orphaning_keeps_the_instances),
        cmocka_unit_test(deleting_a_namespace_empties_it_first),
        cmocka_unit_test(counts_its_work_in_metrics),
        cmocka_unit_test(who_does_not_get_a_models_plain_name_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
