/* What tests look at in a rig. */
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

#endif
