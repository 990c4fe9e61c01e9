/* Before placement: queues decide which of the pending may be placed, what is said to those that
 * wait, and who must end so that owners get back what they lent. The book of what runs is kept from
 * pass to pass and told of each instance that changes; it is made anew when queues do. */
#include "controllers/controllers_priv.h"
#include "scheduler/queue.h"
#include "scheduler/reserve.h"
#include "scheduler/scheduler.h"

#include <assert.h>
#include <string.h>

#define ARENA_BYTES_MAX ((size_t)512 << 20)   /* of one pass */
#define REFRESH_RESERVED_NS (2 * AT_NS_PER_S) /* counts in their status; it looks at everything */
#define AIM_NS (30 * AT_NS_PER_S)
#define REFRESH_NS (5 * AT_NS_PER_S) /* figures in messages of those that wait may lag so much */

static uint64_t mix(uint64_t hash, const char *text)
{
    for (const char *s = ctl_text(text); *s != '\0'; s++) {
        hash = (hash ^ (unsigned char)*s) * 1099511628211u; /* FNV-1a */
    }
    return (hash ^ 0xff) * 1099511628211u;
}

/* What the book was made of; never 0. */
static uint64_t signature(const struct at_snapshot *snap)
{
    uint64_t hash = 1469598103934665603u;
    for (size_t k = 0; k < snap->n_queues; k++) {
        const struct at_meta *meta = &snap->queues[k]->meta;
        hash = mix(hash, meta->uid) ^ (uint64_t)meta->generation;
        hash = mix(hash, meta->deletion_wall_ns != 0 ? "-" : "+");
    }
    for (size_t k = 0; k < snap->n_namespaces; k++) {
        const struct at_meta *meta = &snap->namespaces[k]->meta;
        const char *queue = at_model_map_get(&meta->labels, AT_QUEUE_LABEL);
        hash = queue != NULL ? mix(mix(hash, meta->name), queue) : hash;
    }
    for (size_t k = 0; k < snap->n_sites; k++) {
        hash = mix(mix(hash, snap->sites[k]->meta.name), snap->sites[k]->spec.class);
    }
    return hash | 1;
}

void ctl_admission_note(struct at_controllers *c, const struct at_snapshot *snap, const char *ns,
                        const char *name)
{
    if (c->queues != NULL) {
        at_queue_book_note(c->queues, snap, ns, name);
    }
    if (snap->n_queues > 0) {
        ctl_enqueue_after(c, CTL_QUEUES, NULL, "all", CTL_COUNT_DELAY_NS);
    }
    if (snap->n_reservations > 0) {
        ctl_enqueue_after(c, CTL_RESERVATIONS, NULL, "all", REFRESH_RESERVED_NS);
    }
}

void ctl_admission_route(struct at_controllers *c, const struct at_snapshot *snap)
{
    if (signature(snap) != c->queues_signature) { /* their status changes more often */
        ctl_enqueue(c, CTL_PLACEMENT, NULL, "all");
    }
}

void ctl_admission_free(struct at_controllers *c)
{
    at_queue_book_free(c->queues);
    at_arena_free(c->admission);
    c->queues = NULL;
    c->admission = NULL;
}

static void renew_book(struct ctl_pass *p)
{
    uint64_t now = signature(p->snap);
    if (now != p->c->queues_signature) {
        ctl_admission_free(p->c);
        p->c->queues_signature = now;
        p->c->queues = at_queue_book_new(p->snap);
    }
}

/* --- those that wait --- */

struct held {
    const char *reason, *message;
    json_t *decision; /* one reference */
};

static bool tell_held(void *ctx, json_t *object)
{
    const struct held *h = ctx;
    if (at_object_deleting(object) || at_json_str_at(object, "spec.nodeName", "")[0] != '\0') {
        return false;
    }
    at_json_set_at(object, "status.reason", json_string(h->reason));
    at_json_set_at(object, "status.message", json_string(h->message));
    at_json_set_at(object, "status.decision", json_incref(h->decision));
    return true;
}

static bool worth_telling(const struct ctl_pass *p, const struct at_queue_verdict *v)
{
    const struct at_instance *i = v->instance;
    const struct at_decision *d = i->status.decision;
    if (d == NULL || !at_streq(i->status.reason, at_queue_reason_name(v->reason))) {
        return true;
    }
    return !at_streq(d->message, v->message) && p->wall_ns - d->time_wall_ns >= REFRESH_NS;
}

static void write_held(struct ctl_pass *p, const struct at_queue_verdict *v)
{
    const struct at_instance *i = v->instance;
    const char *reason = at_queue_reason_name(v->reason);
    bool news = !at_streq(i->status.reason, reason);
    char time[AT_UNITS_TEXT_BYTES_MAX];
    at_time_format_micro(p->wall_ns, time);
    struct held h = {
        .reason = reason,
        .message = v->message,
        .decision = json_pack("{s:s,s:s,s:s,s:[{s:s,s:s}],s:[s]}", "message", v->message, "time",
                              time, "state", v->reason == AT_QUEUE_NEVER ? "NeverFits" : "Waiting",
                              "remedies", "kind", "Quota", "message", v->message, "waitsFor",
                              at_sched_change_name(AT_SCHED_CHANGE_CAPACITY))};
    ctl_update(p, &AT_KIND_INSTANCE, i->meta.ns, i->meta.name, tell_held, &h);
    json_decref(h.decision);
    if (news && p->c->writes_left != 0) {
        at_state_event(p->c->state, &AT_KIND_INSTANCE, &i->meta, v->reason == AT_QUEUE_NEVER,
                       reason, "%s", v->message);
    }
}

/* At most so many writes of a pass tell those that wait; the rest follows. */
static void tell_waiting(struct ctl_pass *p, const struct at_queue_plan *plan)
{
    size_t told = 0;
    for (size_t k = plan->n_placeable; k < plan->n; k++) {
        const struct at_queue_verdict *v = &plan->verdicts[k];
        if (at_streq(v->instance->status.decision != NULL ? v->instance->status.decision->message
                                                          : NULL,
                     v->message) &&
            at_streq(v->instance->status.reason, at_queue_reason_name(v->reason))) {
            continue;
        }
        if (!worth_telling(p, v)) {
            ctl_after(p, REFRESH_NS);
        } else if (told++ < CTL_TOLD_PER_PASS) {
            write_held(p, v);
        } else {
            ctl_after(p, CTL_BACKOFF_MIN_NS);
            return;
        }
    }
}

/* --- those that end --- */

static void end_victims(struct ctl_pass *p, const struct at_queue_plan *plan)
{
    for (size_t k = 0; k < plan->n_victims; k++) {
        const struct at_queue_victim *v = &plan->victims[k];
        const struct at_instance *i = at_snapshot_instance(p->snap, v->ns, v->name);
        if (i == NULL || i->meta.deletion_wall_ns != 0) {
            continue;
        }
        ctl_delete(p, &AT_KIND_INSTANCE, &i->meta);
        if (p->c->writes_left != 0) {
            at_metric_add(p->c->m_reclaimed, 1);
            at_state_event(p->c->state, &AT_KIND_INSTANCE, &i->meta, true, "Reclaimed", "%s",
                           v->message);
        }
    }
}

/* The new copy of one that moves goes where it is meant to, at first; later anywhere. */
static const struct at_instance *aim(struct ctl_pass *p, const struct at_instance *i)
{
    const struct at_instance_move *move = i->status.move;
    int64_t left = i->meta.creation_wall_ns + AIM_NS - p->wall_ns;
    if (move == NULL || left <= 0 || at_snapshot_node(p->snap, move->to) == NULL) {
        return i;
    }
    ctl_after(p, left);
    return at_reserve_pin(i, move->to, p->c->admission);
}

/* What is said of it beside placement's own words, when it stays pending. */
static void note_kept(struct ctl_pass *p, const struct at_instance *i, size_t kept,
                      const struct at_reservation *example)
{
    char until[AT_UNITS_TEXT_BYTES_MAX];
    const char *key = at_arena_printf(p->arena, "%s/%s", ctl_text(i->meta.ns), i->meta.name);
    const char *note =
        at_arena_printf(p->c->admission, "%zu node%s held by reservation %s until %s", kept,
                        kept == 1 ? " is" : "s are", example->meta.name,
                        at_time_format(example->spec.to_wall_ns, until));
    if (key != NULL && note != NULL) {
        (void)at_map_put(p->c->kept_off, key, (void *)(uintptr_t)note);
    }
}

void ctl_admission_say(struct ctl_pass *p, struct at_sched_decision *d)
{
    if (d->node != NULL || at_map_count(p->c->kept_off) == 0) {
        return;
    }
    const struct at_meta *meta = &d->instance->meta;
    const char *key = at_arena_printf(p->arena, "%s/%s", ctl_text(meta->ns), meta->name);
    const char *note = key != NULL ? at_map_get(p->c->kept_off, key) : NULL;
    const char *both = note != NULL ? at_arena_printf(p->arena, "%s; %s", d->message, note) : NULL;
    d->message = both != NULL ? both : d->message;
}

/* Kept from what is held for others, drawn to what is held for them. False: out of arena. */
static bool keep_off_reserved(struct ctl_pass *p, const struct at_instance **pending, size_t n)
{
    bool ok = true;
    for (size_t k = 0; k < n && ok; k++) {
        pending[k] = aim(p, pending[k]);
        ok = pending[k] != NULL;
    }
    if (p->snap->n_reservations == 0 || !ok) {
        return ok;
    }
    struct at_reserve *reserve = at_reserve_new(p->snap, p->wall_ns, p->c->admission);
    ok = reserve != NULL;
    for (size_t k = 0; k < n && ok; k++) {
        size_t kept;
        const struct at_reservation *example;
        pending[k] = at_reserve_narrow(reserve, pending[k], &kept, &example);
        ok = pending[k] != NULL;
        if (ok && kept > 0) {
            note_kept(p, pending[k], kept, example);
        }
    }
    at_reserve_done(reserve);
    return ok;
}

size_t ctl_admission(struct ctl_pass *p, const struct at_instance **pending, size_t n)
{
    struct at_queue_plan plan;
    renew_book(p);
    at_map_clear(p->c->kept_off);
    at_arena_free(p->c->admission);
    p->c->admission = at_arena_new(ARENA_BYTES_MAX);
    if (at_queue_admit(p->c->queues, p->snap, pending, n, p->wall_ns, p->c->admission, &plan) !=
        AT_OK) {
        at_log(AT_LOG_ERROR, "admission.memory", "the plan for %zu instances is too large", n);
        ctl_after(p, AT_NS_PER_S);
        return 0;
    }
    assert(plan.n == n);
    for (size_t k = 0; k < plan.n_placeable; k++) {
        pending[k] = at_queue_narrow(&plan.verdicts[k], p->c->admission);
        if (pending[k] == NULL) {
            ctl_after(p, AT_NS_PER_S);
            return 0;
        }
    }
    if (!keep_off_reserved(p, pending, plan.n_placeable)) {
        ctl_after(p, AT_NS_PER_S);
        return 0;
    }
    tell_waiting(p, &plan);
    end_victims(p, &plan);
    if (p->snap->n_queues > 0) {
        ctl_enqueue_after(p->c, CTL_QUEUES, NULL, "all", CTL_COUNT_DELAY_NS);
    }
    return plan.n_placeable;
}

/* --- status --- */

struct shown {
    const struct at_queue_use *use;
    const char *used, *borrowed;
    int64_t wall_ns;
};

static json_t *usage_json(const struct at_queue_use *use)
{
    json_t *list = json_array();
    for (size_t k = 0; k < use->n_cells; k++) {
        const struct at_queue_cell *c = &use->cells[k];
        char a[AT_UNITS_TEXT_BYTES_MAX];
        char b[AT_UNITS_TEXT_BYTES_MAX];
        char d[AT_UNITS_TEXT_BYTES_MAX];
        char e[AT_UNITS_TEXT_BYTES_MAX];
        json_array_append_new(
            list, json_pack("{s:s,s:s,s:s,s:s,s:s,s:s}", "quota", c->place, "name", c->resource,
                            "nominal", at_model_amount_format(c->resource, c->nominal, a), "used",
                            at_model_amount_format(c->resource, c->used, b), "borrowed",
                            at_model_amount_format(c->resource, c->borrowed, d), "available",
                            at_model_amount_format(c->resource, c->available, e)));
    }
    return list;
}

static bool set_queue_status(void *ctx, json_t *object)
{
    const struct shown *s = ctx;
    const struct at_queue_use *use = s->use;
    at_json_set_at(object, "status.pending", json_integer((json_int_t)use->waiting));
    at_json_set_at(object, "status.admitted", json_integer((json_int_t)use->running));
    at_json_set_at(object, "status.used", json_string(s->used));
    at_json_set_at(object, "status.borrowed", json_string(s->borrowed));
    at_json_set_at(object, "status.fairShare",
                   json_integer(use->share / (AT_QUEUE_SHARE_ONE / 1000)));
    at_json_set_at(object, "status.usage", usage_json(use));
    const char *stop = at_json_str_at(object, "spec.stopPolicy", "None");
    bool stopped = !at_streq(stop, "None");
    at_condition_set(object, "Active", use->problem == NULL && !stopped,
                     use->problem != NULL ? "CohortLoop"
                     : stopped            ? "Stopped"
                                          : "Ready",
                     use->problem != NULL ? use->problem
                     : stopped            ? "stopPolicy admits nothing"
                                          : "it admits instances",
                     s->wall_ns);
    return true;
}

/* "gpu 3/4, cpu 12/40"; borrowed: "gpu 1". Places in parentheses. */
static const char *short_text(struct ctl_pass *p, const struct at_queue_use *use, bool borrowed)
{
    const char *text = "";
    for (size_t k = 0; k < use->n_cells; k++) {
        const struct at_queue_cell *c = &use->cells[k];
        char a[AT_UNITS_TEXT_BYTES_MAX];
        char b[AT_UNITS_TEXT_BYTES_MAX];
        if (borrowed && c->borrowed == 0) {
            continue;
        }
        (void)at_model_amount_format(c->resource, borrowed ? c->borrowed : c->used, a);
        (void)at_model_amount_format(c->resource, c->nominal, b);
        text = at_arena_printf(p->arena, "%s%s%s%s%s%s %s%s%s", text, text[0] != '\0' ? ", " : "",
                               c->resource, c->place[0] != '\0' ? " (" : "", c->place,
                               c->place[0] != '\0' ? ")" : "", a, borrowed ? "" : "/",
                               borrowed ? "" : b);
        if (text == NULL) {
            return "";
        }
    }
    return text;
}

void ctl_queues(struct ctl_pass *p)
{
    for (size_t k = 0; k < p->snap->n_queues && p->c->queues != NULL; k++) {
        const struct at_queue *q = p->snap->queues[k];
        struct at_queue_use use;
        if (!at_queue_book_use(p->c->queues, q->meta.name, p->arena, &use)) {
            continue;
        }
        struct shown s = {.use = &use,
                          .used = short_text(p, &use, false),
                          .borrowed = short_text(p, &use, true),
                          .wall_ns = p->wall_ns};
        bool same = q->status.pending == (int64_t)use.waiting &&
                    q->status.admitted == (int64_t)use.running &&
                    at_streq(ctl_text(q->status.used), s.used) &&
                    at_streq(ctl_text(q->status.borrowed), s.borrowed) &&
                    q->status.fair_share == use.share / (AT_QUEUE_SHARE_ONE / 1000) &&
                    q->status.conditions.n > 0 && q->status.usage.n == use.n_cells &&
                    p->item->last_sched_ns == (int64_t)p->c->queues_signature;
        if (!same) {
            ctl_update(p, &AT_KIND_QUEUE, NULL, q->meta.name, set_queue_status, &s);
        }
    }
    p->item->last_sched_ns = (int64_t)p->c->queues_signature;
    p->item->keep = true;
}
