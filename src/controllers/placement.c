/* Placement: the scheduler is kept between passes and told what changed; what it decides is written
 * by compare-and-swap, many decisions in one group commit. What it gave away stays taken until the
 * snapshot shows it bound, or the write is refused. */
#include "controllers/controllers_priv.h"
#include "scheduler/queue.h"
#include "scheduler/scheduler.h"

#include <assert.h>
#include <string.h>

struct binding {
    const char *node, *site, *reason, *message, *scheduled_at, *nominated;
    json_t *decision; /* one reference */
    json_t *gpus;     /* one reference; NULL: none */
    json_t *network;  /* the same: what policies say; NULL: nothing */
    struct at_arena *arena;
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
        if (b->network != NULL) {
            json_object_set(status, "network", b->network);
        }
        if (b->gpus != NULL) {
            json_object_set(status, "gpus", b->gpus);
        } else {
            json_object_del(status, "gpus");
        }
    } else {
        json_object_set_new(status, "reason", json_string(b->reason));
        json_object_set_new(status, "message", json_string(b->message));
    }
    if (b->nominated != NULL) {
        json_object_set_new(status, "nominatedNode", json_string(b->nominated));
    } else {
        json_object_del(status, "nominatedNode");
    }
    json_object_set(status, "decision", b->decision);
    return true;
}

static struct at_str quoted(struct at_arena *arena, const char *text)
{
    return at_str_of(at_arena_printf(arena, "\"%s\"", text));
}

static struct at_str json_text(struct at_arena *arena, const json_t *value)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    return value != NULL && at_json_dump(value, &text) == AT_OK
               ? at_str_of(at_arena_strndup(arena, text.data, text.len))
               : (struct at_str){NULL, 0};
}

/* The same as bind_instance for what is bound most often: an instance that nobody has touched since
 * it was made. Names of nodes and sites need no escapes; the phase is a default of status. */
static bool bind_text(void *ctx, const char *stored, size_t len,
                      struct at_object_edit edits[AT_STATE_EDITS_OWN_MAX], size_t *ret_n)
{
    const struct binding *b = ctx;
    static const char *const PLAIN[][2] = {
        {"metadata", "deletionTimestamp"}, {"metadata", "finalizers"}, {"spec", "nodeName"}};
    for (size_t k = 0; k < AT_ARRAY_LEN(PLAIN); k++) {
        if (at_object_member(stored, len, PLAIN[k][0], PLAIN[k][1]).ptr != NULL) {
            return false;
        }
    }
    if (b->node == NULL) {
        return false;
    }
    const struct at_str none = {NULL, 0};
    const struct at_object_edit all[] = {
        {"metadata", "finalizers", AT_STR("[\"" CTL_FINALIZER_AGENT "\"]")},
        {"spec", "nodeName", quoted(b->arena, b->node)},
        {"status", "site", quoted(b->arena, b->site)},
        {"status", "scheduledAt", quoted(b->arena, b->scheduled_at)},
        {"status", "reason", none},
        {"status", "message", none},
        {"status", "gpus", json_text(b->arena, b->gpus)},
        {"status", "nominatedNode", b->nominated != NULL ? quoted(b->arena, b->nominated) : none},
        {"status", "decision", json_text(b->arena, b->decision)}};
    struct at_str network = json_text(b->arena, b->network);
    *ret_n = AT_ARRAY_LEN(all);
    for (size_t k = 0; k < *ret_n; k++) {
        edits[k] = all[k];
    }
    if (network.ptr != NULL) { /* with the node, so that its agent never starts it without */
        edits[(*ret_n)++] = (struct at_object_edit){"status", "network", network};
    }
    if (at_object_member(stored, len, "status", "phase").ptr == NULL) {
        edits[(*ret_n)++] = (struct at_object_edit){"status", "phase", AT_STR("\"Pending\"")};
    }
    return edits[1].text.ptr != NULL && edits[2].text.ptr != NULL && edits[3].text.ptr != NULL &&
           edits[AT_ARRAY_LEN(all) - 1].text.ptr != NULL; /* else memory is gone */
}

static void write_binding(struct ctl_pass *p, const struct at_instance *i, struct binding *b)
{
    b->arena = p->arena;
    b->network = b->node != NULL ? ctl_network_of(p->snap, i) : NULL;
    ctl_edit(p, &AT_KIND_INSTANCE, i->meta.ns, i->meta.name, bind_text, bind_instance, b);
    json_decref(b->decision);
    json_decref(b->gpus);
    json_decref(b->network);
}

/* Which of the node's GPUs, so that nobody has to find out again. */
static json_t *gpus_json(const struct at_sched_decision *d)
{
    json_t *list = d->n_gpus > 0 ? json_array() : NULL;
    char text[AT_UNITS_TEXT_BYTES_MAX];
    for (size_t k = 0; k < d->n_gpus; k++) {
        const struct at_sched_gpu *g = &d->gpus[k];
        json_t *one =
            json_pack("{s:I,s:I}", "index", (json_int_t)g->index, "milli", (json_int_t)g->milli);
        if (g->memory_bytes > 0) {
            json_object_set_new(one, "memory",
                                json_string(at_quantity_format_bytes(g->memory_bytes, text)));
        }
        if (g->index < d->node->status.gpus.n) {
            json_object_set_new(one, "id", json_string(d->node->status.gpus.items[g->index].id));
        }
        json_array_append_new(list, one);
    }
    return list;
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

/* An end like any other: the agent is told, and the instance has its grace. */
static void end_one(struct ctl_pass *p, const struct at_instance *i, const char *reason,
                    const char *why)
{
    p->placing = &i->meta;
    ctl_delete(p, &AT_KIND_INSTANCE, &i->meta);
    p->placing = NULL;
    if (p->c->writes_left != 0) {
        at_state_event(p->c->state, &AT_KIND_INSTANCE, &i->meta, true, reason, "%s", why);
    }
}

static void end_victims(struct ctl_pass *p, const struct at_sched_decision *d)
{
    const struct at_meta *for_whom = &d->instance->meta;
    const char *own = at_arena_printf(p->arena, "%s/%s", ctl_text(for_whom->ns), for_whom->name);
    for (size_t k = 0; k < d->n_victims; k++) {
        bool same = at_streq(d->victims[k]->meta.ns, for_whom->ns);
        end_one(p, d->victims[k], "Preempted",
                at_arena_printf(p->arena, "ends to make room on %s for %s of priority %lld",
                                d->nominated->meta.name,
                                same ? own : "an instance of another namespace",
                                (long long)d->instance->spec.priority));
    }
    if (d->n_victims > 0 && p->c->writes_left != 0) {
        at_state_event(p->c->state, &AT_KIND_INSTANCE, for_whom, false, "Preempting",
                       "%zu instance%s of lower priority end on %s to make room", d->n_victims,
                       d->n_victims == 1 ? "" : "s", d->nominated->meta.name);
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
    const char *nominated = d->nominated != NULL ? d->nominated->meta.name : NULL;
    end_victims(p, d);
    if (!ctl_decision_is_new(i, d)) {
        return;
    }
    struct binding b = {.reason = d->never ? "NeverFits" : "Unschedulable",
                        .message = d->message,
                        .scheduled_at = time,
                        .nominated = nominated,
                        .decision = ctl_decision_json(d, p->snap->n_nodes, time)};
    if (d->node != NULL) {
        b.node = d->node->meta.name;
        b.site = ctl_text(d->node->spec.site);
        b.gpus = gpus_json(d);
        p->placing = &i->meta;
    }
    bool news = d->node != NULL || ctl_reason_changed(i, d);
    write_binding(p, i, &b);
    p->placing = NULL;
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

/* scheduledAt grows in the order of decisions: it tells whose GPUs are whose where that was not
 * recorded, and who came first. */
static int64_t next_schedule_time(struct ctl_pass *p)
{
    int64_t at = p->wall_ns > p->item->last_sched_ns ? p->wall_ns : p->item->last_sched_ns;
    int64_t given = ctl_index_newest_schedule(p->c->index);
    return given > at ? given : at;
}

static int64_t adopt_all(struct ctl_pass *p, int64_t at)
{
    size_t n;
    const struct at_instance **by_hand =
        ctl_index_waiting(p->c->index, true, p->snap, p->arena, &n);
    for (size_t k = 0; k < n; k++) {
        adopt(p, by_hand[k], at += AT_NS_PER_US);
    }
    return at;
}

/* The scheduler as of this pass. It borrows objects of the snapshot, which is held until the next
 * one has taken its place. */
static void bring_up_to_date(struct ctl_pass *p)
{
    const struct at_snapshot *snap = at_state_snapshot(p->c->state);
    at_scheduler_update(p->c->sched, snap);
    at_snapshot_unref(p->c->sched_snap);
    p->c->sched_snap = snap;
}

/* With queues, only what has quota, perhaps narrowed to places where it has it; with reservations
 * and moves, narrowed likewise. */
static enum at_rc plan(struct ctl_pass *p, struct at_sched_plan *ret_plan)
{
    bool queues = p->snap->n_queues > 0 || p->snap->n_reservations > 0 || p->c->moving ||
                  at_scheduler_names_queues(p->c->sched);
    for (size_t k = 0; k < p->snap->n_namespaces && !queues; k++) {
        queues = at_model_map_get(&p->snap->namespaces[k]->meta.labels, AT_QUEUE_LABEL) != NULL;
    }
    if (!queues && p->c->queues == NULL) {
        return at_scheduler_plan(p->c->sched, CTL_PENDING_PER_PASS, p->wall_ns, p->arena, ret_plan);
    }
    const struct at_instance **pending;
    size_t n = 0;
    enum at_rc rc = at_scheduler_waiting(p->c->sched, p->arena, &pending, &n);
    if (rc != AT_OK) {
        return rc;
    }
    n = ctl_admission(p, pending, n);
    return at_scheduler_plan_these(p->c->sched, pending, n, CTL_PENDING_PER_PASS, p->wall_ns,
                                   p->arena, ret_plan);
}

void ctl_placement(struct ctl_pass *p)
{
    struct at_sched_plan made = {0};
    int64_t at = adopt_all(p, next_schedule_time(p));
    bring_up_to_date(p);
    if (plan(p, &made) != AT_OK) {
        at_log(AT_LOG_ERROR, "placement.memory", "the plan is too large");
        ctl_after(p, AT_NS_PER_S);
        return;
    }
    for (size_t k = 0; k < made.n; k++) {
        ctl_admission_say(p, &made.decisions[k]);
        write_decision(p, &made.decisions[k], at += AT_NS_PER_US);
    }
    for (size_t k = 0; k < made.n_released; k++) {
        end_one(p, made.released[k], "GangIncomplete",
                "ends because the rest of its gang found no room in time");
    }
    if (at_scheduler_gangs_wait(p->c->sched)) {
        ctl_after(p, CTL_GANG_LOOK_NS);
    }
    if (made.n >= CTL_PENDING_PER_PASS) { /* the rest */
        ctl_after(p, 0);
    }
    at_metric_set(p->c->m_pending, (int64_t)at_scheduler_pending(p->c->sched));
    p->item->last_sched_ns = at;
    p->item->keep = true;
}
