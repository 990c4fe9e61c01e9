/* A decision of the scheduler as people and programs read it: status.decision, and the sentence of
 * an Event. */
#include "controllers/controllers_priv.h"
#include "scheduler/scheduler.h"

#include <string.h>

static json_t *parts_json(const struct at_sched_decision *d)
{
    json_t *parts = json_array();
    for (int k = 0; k < AT_SCHED_OBJ_COUNT; k++) {
        if (d->weights[k] == 0) {
            continue;
        }
        json_t *part =
            json_pack("{s:s,s:I,s:I}", "name", at_sched_objective_name((enum at_sched_objective)k),
                      "score", (json_int_t)d->parts[k], "weight", (json_int_t)d->weights[k]);
        if (d->runner_up != NULL) {
            json_object_set_new(part, "runnerUp", json_integer(d->runner_up_parts[k]));
        }
        json_array_append_new(parts, part);
    }
    return parts;
}

static json_t *refusals_json(const struct at_sched_decision *d)
{
    json_t *refusals = json_array();
    for (int k = 0; k < AT_SCHED_RULE_COUNT; k++) {
        if (d->refused[k] > 0) {
            json_array_append_new(refusals,
                                  json_pack("{s:s,s:I,s:s}", "rule",
                                            at_sched_rule_name((enum at_sched_rule)k), "nodes",
                                            (json_int_t)d->refused[k], "example", d->example[k]));
        }
    }
    return refusals;
}

/* Instances as namespace/name, those of the asker's own namespace only: nobody learns the names of
 * another tenant's. Messages tell how many there are in all. */
static json_t *names_json(const struct at_instance *asker, const struct at_instance *const *list,
                          size_t n)
{
    json_t *names = json_array();
    for (size_t i = 0; i < n; i++) {
        const struct at_meta *meta = &list[i]->meta;
        if (at_streq(meta->ns, asker->meta.ns)) {
            json_array_append_new(names, json_sprintf("%s/%s", ctl_text(meta->ns), meta->name));
        }
    }
    return names;
}

/* Room that is being made already: no longer only what would help. */
static json_t *nominated_json(const struct at_sched_decision *d)
{
    json_t *names = names_json(d->instance, d->victims, d->n_victims);
    json_t *one = json_pack("{s:s,s:o,s:s}", "kind", "Preempt", "message",
                            json_sprintf("room is being made on %s", d->nominated->meta.name),
                            "node", d->nominated->meta.name);
    if (json_array_size(names) > 0) {
        json_object_set(one, "instances", names);
    }
    json_decref(names);
    return one;
}

static json_t *remedies_json(const struct at_sched_decision *d)
{
    json_t *list = json_array();
    if (d->nominated != NULL) {
        json_array_append_new(list, nominated_json(d));
    }
    for (size_t k = 0; k < d->n_remedies; k++) {
        const struct at_sched_remedy *r = &d->remedies[k];
        json_t *one = json_pack("{s:s,s:s}", "kind", r->kind, "message", r->message);
        if (r->node != NULL) {
            json_object_set_new(one, "node", json_string(r->node));
        }
        if (r->nodes > 0) {
            json_object_set_new(one, "nodes", json_integer((json_int_t)r->nodes));
        }
        json_t *names = names_json(d->instance, r->instances, r->n_instances);
        if (json_array_size(names) > 0) {
            json_object_set(one, "instances", names);
        }
        json_decref(names);
        json_array_append_new(list, one);
    }
    return list;
}

static json_t *waits_json(unsigned waits_for)
{
    json_t *list = json_array();
    for (unsigned k = 0; k < AT_SCHED_CHANGES; k++) {
        if ((waits_for >> k & 1) != 0) {
            json_array_append_new(
                list, json_string(at_sched_change_name((enum at_sched_change)(1u << k))));
        }
    }
    return list;
}

json_t *ctl_decision_json(const struct at_sched_decision *d, size_t nodes, const char *time)
{
    json_t *decision =
        json_pack("{s:s,s:s,s:s,s:I,s:o}", "message", d->message, "time", time, "state",
                  d->node != NULL ? "Placed"
                  : d->never      ? "NeverFits"
                                  : "Waiting",
                  "nodes", (json_int_t)nodes, "refusals", refusals_json(d));
    if (d->node != NULL) {
        json_object_set_new(decision, "score", json_integer(d->score));
        json_object_set_new(decision, "parts", parts_json(d));
    } else {
        json_object_set_new(decision, "remedies", remedies_json(d));
        json_object_set_new(decision, "waitsFor", waits_json(d->waits_for));
    }
    if (d->nearest != NULL) {
        json_object_set_new(decision, "nearest", json_string(d->nearest));
    }
    if (d->runner_up != NULL) {
        json_object_set_new(decision, "runnerUp", json_string(d->runner_up->meta.name));
        json_object_set_new(decision, "runnerUpScore", json_integer(d->runner_up_score));
    }
    return decision;
}

bool ctl_decision_is_new(const struct at_instance *i, const struct at_sched_decision *d)
{
    const struct at_decision *before = i->status.decision;
    const char *nominated = d->nominated != NULL ? d->nominated->meta.name : "";
    return d->node != NULL || before == NULL || !at_streq(before->message, d->message) ||
           !at_streq(ctl_text(before->nearest), ctl_text(d->nearest)) ||
           !at_streq(ctl_text(i->status.nominated_node), nominated);
}

bool ctl_reason_changed(const struct at_instance *i, const struct at_sched_decision *d)
{
    const struct at_decision *before = i->status.decision;
    if (before == NULL || at_streq(before->state, "NeverFits") != d->never) {
        return true;
    }
    size_t at = 0;
    for (int k = 0; k < AT_SCHED_RULE_COUNT; k++) {
        if (d->refused[k] == 0) {
            continue;
        }
        if (at == before->refusals.n ||
            !at_streq(before->refusals.items[at].rule, at_sched_rule_name((enum at_sched_rule)k))) {
            return true;
        }
        at++;
    }
    return at != before->refusals.n;
}

const char *ctl_decision_sentence(const struct at_sched_decision *d, struct at_arena *arena)
{
    const char *text =
        d->nearest != NULL ? at_arena_printf(arena, "%s; %s", d->message, d->nearest) : d->message;
    return text != NULL ? text : d->message;
}
