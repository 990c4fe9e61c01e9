/* Placement: everything that is pending goes to the scheduler in one plan; what it decides is
 * written by compare-and-swap. While those writes are in flight no new plan is made, so that
 * nothing is given away twice. */
#include "controllers/controllers_priv.h"
#include "scheduler/scheduler.h"

#include <assert.h>
#include <string.h>

struct binding {
    const char *node, *site, *reason, *message, *scheduled_at;
    json_t *decision; /* one reference */
};

static json_t *status_of(json_t *object)
{
    json_t *status = json_object_get(object, "status");
    if (!json_is_object(status)) {
        status = json_object();
        json_object_set_new(object, "status", status);
    }
    return status;
}

/* False: somebody was faster, or it is going away. */
static bool bind_instance(void *ctx, json_t *object)
{
    const struct binding *b = ctx;
    const char *node = at_json_str_at(object, "spec.nodeName", "");
    if (at_object_deleting(object) || (node[0] != '\0' && !at_streq(node, b->node))) {
        return false;
    }
    json_t *status = status_of(object);
    if (b->node != NULL) {
        at_json_set_at(object, "spec.nodeName", json_string(b->node));
        at_object_add_finalizer(object, CTL_FINALIZER_AGENT);
        json_object_set_new(status, "site", json_string(b->site));
        json_object_set_new(status, "scheduledAt", json_string(b->scheduled_at));
        json_object_del(status, "reason");
        json_object_del(status, "message");
    } else {
        json_object_set_new(status, "reason", json_string(b->reason));
        json_object_set_new(status, "message", json_string(b->message));
    }
    json_object_set(status, "decision", b->decision);
    return true;
}

static void write_binding(struct ctl_pass *p, const struct at_instance *i, struct binding *b)
{
    ctl_update(p, &AT_KIND_INSTANCE, i->meta.ns, i->meta.name, bind_instance, b);
    json_decref(b->decision);
}

/* Latency counts from the first time that we saw it pending. */
static void note_pending(struct ctl_pass *p, const struct at_instance *i, bool placed)
{
    const char *key = at_arena_printf(p->arena, "%s/%s", ctl_text(i->meta.ns), i->meta.name);
    struct ctl_seen *seen = ctl_index_get(p->c->index, key);
    int64_t since = seen != NULL ? seen->pending_since_ns : 0;
    if (placed) {
        at_metric_observe_ns(p->c->m_latency, since != 0 ? p->now_ns - since : 0);
        since = 0;
    } else if (since == 0) {
        since = p->now_ns;
    }
    if (seen != NULL) {
        seen->pending_since_ns = since;
    }
}

static void write_decision(struct ctl_pass *p, const struct at_sched_decision *d,
                           int64_t scheduled_at_wall_ns)
{
    char time[AT_UNITS_TEXT_BYTES_MAX];
    const struct at_instance *i = d->instance;
    at_time_format_micro(scheduled_at_wall_ns, time);
    note_pending(p, i, d->node != NULL);
    at_metric_add(d->node != NULL ? p->c->m_placed : p->c->m_refused, 1);
    const char *before = i->status.decision != NULL ? i->status.decision->message : NULL;
    if (d->node == NULL && at_streq(before, d->message)) {
        return; /* nothing new to say */
    }
    struct binding b = {.reason = d->never ? "NeverFits" : "Unschedulable",
                        .message = d->message,
                        .scheduled_at = time,
                        .decision = ctl_decision_json(d, p->snap->n_nodes, time)};
    if (d->node != NULL) {
        b.node = d->node->meta.name;
        b.site = ctl_text(d->node->spec.site);
    }
    bool news = d->node != NULL || ctl_reason_changed(i, d);
    write_binding(p, i, &b);
    if (news && p->c->writes_left != 0) {
        at_state_event(p->c->state, &AT_KIND_INSTANCE, &i->meta, d->node == NULL,
                       d->node != NULL ? "Scheduled" : "FailedScheduling", "%s",
                       ctl_decision_sentence(d, p->arena));
    }
}

/* An instance that was bound by hand still gets what the agent's agreement asks for. */
static void adopt(struct ctl_pass *p, const struct at_instance *i, int64_t scheduled_at_wall_ns)
{
    const struct at_node *node = at_snapshot_node(p->snap, i->spec.node_name);
    if (node == NULL) {
        return;
    }
    char time[AT_UNITS_TEXT_BYTES_MAX];
    at_time_format_micro(scheduled_at_wall_ns, time);
    const char *message = at_arena_printf(p->arena, "bound to %s by hand", node->meta.name);
    struct binding b = {.node = node->meta.name,
                        .site = ctl_text(node->spec.site),
                        .scheduled_at = time,
                        .decision = json_pack("{s:s,s:s}", "message", message, "time", time)};
    write_binding(p, i, &b);
}

/* scheduledAt grows in the order of decisions: the scheduler finds out by it which GPU is whose. */
static int64_t next_schedule_time(struct ctl_pass *p)
{
    int64_t at = p->wall_ns > p->item->last_sched_ns ? p->wall_ns : p->item->last_sched_ns;
    int64_t given = ctl_index_newest_schedule(p->c->index);
    return given > at ? given : at;
}

/* Everything unbound; what was bound by hand is adopted on the way. */
static const struct at_instance **collect(struct ctl_pass *p, int64_t *at, size_t *ret_n)
{
    size_t n;
    const struct at_instance **by_hand =
        ctl_index_waiting(p->c->index, true, p->snap, p->arena, &n);
    for (size_t k = 0; k < n; k++) {
        adopt(p, by_hand[k], *at += AT_NS_PER_US);
    }
    return ctl_index_waiting(p->c->index, false, p->snap, p->arena, ret_n);
}

void ctl_placement(struct ctl_pass *p)
{
    int64_t at = next_schedule_time(p);
    size_t n;
    const struct at_instance **pending = collect(p, &at, &n);
    n = ctl_admission(p, pending, n);
    size_t first = 0;
    if (n > CTL_PENDING_PER_PASS) { /* the window moves, so that those in front hide nobody */
        first = p->item->cursor < n ? p->item->cursor : 0;
        n = n - first < CTL_PENDING_PER_PASS ? n - first : CTL_PENDING_PER_PASS;
        p->item->cursor = first + n;
        ctl_after(p, CTL_BACKOFF_MIN_NS);
    }
    struct at_sched_plan plan = {0};
    if (n > 0 && at_schedule(p->snap, pending + first, n, p->wall_ns, p->arena, &plan) != AT_OK) {
        at_log(AT_LOG_ERROR, "placement.memory", "the plan for %zu instances is too large", n);
        ctl_after(p, AT_NS_PER_S);
        return;
    }
    int64_t waiting = 0;
    for (size_t k = 0; k < plan.n; k++) {
        waiting += plan.decisions[k].node == NULL;
        write_decision(p, &plan.decisions[k], at += AT_NS_PER_US);
    }
    at_metric_set(p->c->m_pending, waiting);
    p->item->last_sched_ns = at;
    p->item->keep = true;
}
