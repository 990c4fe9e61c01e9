/* Taints with effect NoExecute also end what runs: at once, or after the time for which it bears
 * them. The time counts from when the taint was put on, which is noted in the taint itself, so that
 * a restart does not begin anew. */
#include "controllers/controllers_priv.h"
#include "scheduler/scheduler.h"

static bool ends(const struct at_taint *taint)
{
    return at_streq(taint->effect, "NoExecute");
}

/* When instance i has to go because of the taint; INT64_MAX: never. */
static int64_t end_wall_ns(const struct at_instance *i, const struct at_taint *taint,
                           int64_t now_wall_ns)
{
    int64_t borne_ns = at_sched_tolerates_ns(i->spec.placement, taint);
    if (borne_ns == INT64_MAX || borne_ns <= 0) {
        return borne_ns <= 0 ? now_wall_ns : INT64_MAX;
    }
    int64_t from = taint->time_added_wall_ns != 0 ? taint->time_added_wall_ns : now_wall_ns;
    if (i->status.scheduled_at_wall_ns > from) {
        from = i->status.scheduled_at_wall_ns; /* it came later, and bears it from then */
    }
    return borne_ns > INT64_MAX - from ? INT64_MAX : from + borne_ns;
}

static bool note_time(void *ctx, json_t *object)
{
    const char *time = ctx;
    bool changed = false;
    size_t k;
    json_t *taint;
    json_array_foreach(at_json_at(object, "spec.taints"), k, taint)
    {
        if (at_streq(at_json_str_at(taint, "effect", ""), "NoExecute") &&
            json_object_get(taint, "timeAdded") == NULL) {
            json_object_set_new(taint, "timeAdded", json_string(time));
            changed = true;
        }
    }
    return changed;
}

static void evict(struct ctl_pass *p, const struct at_instance *i, const struct at_node *node,
                  const struct at_taint *taint)
{
    ctl_delete(p, &AT_KIND_INSTANCE, &i->meta);
    if (p->c->writes_left == 0) {
        return;
    }
    bool for_a_time = at_sched_tolerates(i->spec.placement, taint);
    at_state_event(p->c->state, &AT_KIND_INSTANCE, &i->meta, true, "TaintEviction",
                   "ended, because node %s has the taint %s, which it tolerates %s",
                   node->meta.name, taint->key, for_a_time ? "for a time only" : "not");
}

void ctl_evict_by_taints(struct ctl_pass *p, const struct at_node *node)
{
    const struct at_instance **on = NULL;
    size_t n = 0;
    bool untimed = false, timed = false;
    int64_t next = INT64_MAX;
    for (size_t t = 0; t < node->spec.taints.n; t++) {
        if (on == NULL && ends(&node->spec.taints.items[t])) {
            on =
                ctl_index_list(ctl_index_node(p->c->index, node->meta.name), p->snap, p->arena, &n);
        }
    }
    for (size_t k = 0; k < n; k++) {
        const struct at_taint *first = NULL;
        int64_t end = INT64_MAX;
        for (size_t t = 0; t < node->spec.taints.n; t++) {
            const struct at_taint *taint = &node->spec.taints.items[t];
            int64_t at = ends(taint) ? end_wall_ns(on[k], taint, p->wall_ns) : INT64_MAX;
            untimed = untimed || (ends(taint) && taint->time_added_wall_ns == 0);
            first = at < end ? taint : first;
            end = at < end ? at : end;
        }
        if (first == NULL || on[k]->meta.deletion_wall_ns != 0 || ctl_ended(on[k])) {
            continue;
        }
        if (end <= p->wall_ns) {
            evict(p, on[k], node, first);
        } else {
            timed = true;
            next = end < next ? end : next;
        }
    }
    if (timed) {
        ctl_after(p, next - p->wall_ns);
    }
    if (timed && untimed) {
        char time[AT_UNITS_TEXT_BYTES_MAX];
        at_time_format(p->wall_ns, time);
        ctl_update(p, &AT_KIND_NODE, NULL, node->meta.name, note_time, time);
    }
}
