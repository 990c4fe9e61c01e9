/* Letting a rig run, and what tests look at in it. */
#ifndef AT_CONTROLLERS_RIG_LOOK_TEST_H
#define AT_CONTROLLERS_RIG_LOOK_TEST_H

#include "rig_test.h"

static inline int64_t rig_count(struct rig *r, const char *phase, bool ready_only)
{
    const struct at_snapshot *snap = at_state_snapshot(r->state);
    int64_t n = 0;
    for (size_t k = 0; k < snap->n_instances; k++) {
        const struct at_instance *i = snap->instances[k];
        n += (phase == NULL || at_streq(i->status.phase, phase)) &&
             (!ready_only || i->status.ready) && i->meta.deletion_wall_ns == 0;
    }
    at_snapshot_unref(snap);
    return n;
}
static inline int64_t rig_all(struct rig *r) /* those being deleted too */
{
    const struct at_snapshot *snap = at_state_snapshot(r->state);
    int64_t n = (int64_t)snap->n_instances;
    at_snapshot_unref(snap);
    return n;
}
static inline json_t *rig_get(struct rig *r, const struct at_model_kind *kind, const char *ns,
                              const char *name)
{
    json_t *object = at_state_object(r->state, kind, ns, name);
    if (object == NULL) {
        fail_msg("no %s %s", kind->kind, name);
    }
    return object;
}
static inline bool rig_absent(struct rig *r, const struct at_model_kind *kind, const char *ns,
                              const char *name)
{
    json_t *object = at_state_object(r->state, kind, ns, name);
    json_decref(object);
    return object == NULL;
}
static inline bool rig_condition(struct rig *r, const struct at_model_kind *kind, const char *ns,
                                 const char *name, const char *type, const char *want_reason)
{
    json_t *object = at_state_object(r->state, kind, ns, name);
    json_t *list = at_json_at(object, "status.conditions");
    bool found = false;
    for (size_t k = 0; k < json_array_size(list); k++) {
        json_t *c = json_array_get(list, k);
        found = found ||
                (at_streq(at_json_str_at(c, "type", ""), type) &&
                 at_streq(at_json_str_at(c, "status", ""), "True") &&
                 (want_reason == NULL || at_streq(at_json_str_at(c, "reason", ""), want_reason)));
    }
    json_decref(object);
    return found;
}
static inline bool rig_ready(struct rig *r, const char *deployment)
{
    json_t *object = at_state_object(r->state, &AT_KIND_DEPLOYMENT, "default", deployment);
    bool current = at_json_int_at(object, "status.observedGeneration", 0) ==
                   at_json_int_at(object, "metadata.generation", -1);
    json_decref(object);
    return current && rig_condition(r, &AT_KIND_DEPLOYMENT, "default", deployment, "Ready", NULL);
}

static inline void rig_watch_bounds(struct rig *r)
{
    int64_t ready = rig_count(r, NULL, true);
    int64_t alive = rig_count(r, NULL, false);
    r->min_ready = ready < r->min_ready ? ready : r->min_ready;
    r->max_alive = alive > r->max_alive ? alive : r->max_alive;
}

/* Nothing is ever over-committed, whatever else happens. */
static inline void rig_check_commitment(struct rig *r)
{
    const struct at_snapshot *snap = at_state_snapshot(r->state);
    for (size_t n = 0; n < snap->n_nodes; n++) {
        int64_t cpu = 0;
        for (size_t k = 0; k < snap->n_instances; k++) {
            const struct at_instance *i = snap->instances[k];
            if (at_streq(i->spec.node_name, snap->nodes[n]->meta.name) && !ctl_ended(i)) {
                cpu += i->spec.resources != NULL ? i->spec.resources->cpu_milli : 0;
            }
        }
        assert_true(cpu <= snap->nodes[n]->status.allocatable->cpu_milli);
    }
    at_snapshot_unref(snap);
}

static inline void rig_turn(struct rig *r)
{
    rig_agents(r);
    (void)at_loop_turn(r->loop, at_sim_now_ns(r->sim) + 10 * AT_NS_PER_MS);
    rig_check_commitment(r);
    if (r->check != NULL) {
        r->check(r);
    }
}
static inline void rig_run(struct rig *r, int64_t ns)
{
    int64_t end = at_sim_now_ns(r->sim) + ns;
    while (at_sim_now_ns(r->sim) < end) {
        rig_turn(r);
    }
}
/* Run until expr holds; fails after limit_s simulated seconds. */
#define RIG_UNTIL(r, limit_s, expr)                                                                \
    do {                                                                                           \
        int64_t end_ = at_sim_now_ns((r)->sim) + (limit_s)*AT_NS_PER_S;                            \
        while (!(expr)) {                                                                          \
            if (at_sim_now_ns((r)->sim) >= end_) {                                                 \
                fail_msg("%d s passed without: %s", (int)(limit_s), #expr);                        \
            }                                                                                      \
            rig_turn(r);                                                                           \
        }                                                                                          \
    } while (0)

#endif
