/* Rescheduling: what the policy's pass proposes is told in Events, or carried out: the instance is
 * marked, its Deployment makes a copy on the node meant, and gives up the old one when that serves.
 * Nothing is remembered here: how many moves there were lately shows in the copies. */
#include "scheduler/reschedule.h"
#include "controllers/controllers_priv.h"

#define HOUR_NS (3600 * AT_NS_PER_S)
#define STALLED_NS (600 * AT_NS_PER_S) /* a move that is not done by then is called off */

static bool has_policy(const struct at_snapshot *snap)
{
    for (size_t k = 0; k < snap->n_policies; k++) {
        if (snap->policies[k]->spec.rescheduling != NULL) {
            return true;
        }
    }
    return false;
}

struct moves {
    int64_t under_way, lately;
};

static void call_off(struct ctl_pass *p, const struct at_instance *i)
{
    char now[AT_UNITS_TEXT_BYTES_MAX];
    ctl_patch(p, &AT_KIND_INSTANCE, i->meta.ns, i->meta.name,
              json_pack("{s:{s:{s:s,s:s}}}", "status", "move", "since",
                        at_time_format(p->wall_ns, now), "replaces", i->meta.name));
    if (p->c->writes_left != 0) {
        at_state_event(p->c->state, &AT_KIND_INSTANCE, &i->meta, true, "MoveCalledOff",
                       "the new copy did not serve within %lld s",
                       (long long)(STALLED_NS / AT_NS_PER_S));
    }
}

/* Moves there are and were, by what is written on the instances; those that stall end. */
static struct moves count_moves(struct ctl_pass *p)
{
    struct moves m = {0};
    for (size_t k = 0; k < p->snap->n_instances; k++) {
        const struct at_instance *i = p->snap->instances[k];
        const struct at_instance_move *move = i->status.move;
        if (move == NULL || i->meta.deletion_wall_ns != 0) {
            continue;
        }
        if (!at_reschedule_is_moving(i)) {
            int64_t when =
                at_reschedule_was_called_off(i) ? move->since_wall_ns : i->meta.creation_wall_ns;
            m.lately += p->wall_ns - when < HOUR_NS;
            continue;
        }
        m.under_way++;
        int64_t left = move->since_wall_ns + STALLED_NS - p->wall_ns;
        if (left <= 0) {
            call_off(p, i);
        } else {
            ctl_after(p, left + AT_NS_PER_S);
        }
    }
    return m;
}

static void carry_out(struct ctl_pass *p, const struct at_reschedule_move *move)
{
    const struct at_meta *meta = &move->instance->meta;
    char now[AT_UNITS_TEXT_BYTES_MAX];
    p->c->moving = true;
    ctl_patch(p, &AT_KIND_INSTANCE, meta->ns, meta->name,
              json_pack("{s:{s:{s:s,s:s}}}", "status", "move", "to", move->to->meta.name, "since",
                        at_time_format(p->wall_ns, now)));
    ctl_after(p, STALLED_NS + AT_NS_PER_S);
}

static void look(struct ctl_pass *p, const struct at_rescheduling *policy, size_t max)
{
    struct at_reschedule_plan plan;
    bool automatic = at_streq(policy->mode, "Automatic");
    if (at_reschedule(p->snap, policy, max, p->wall_ns, p->arena, &plan) != AT_OK) {
        at_log(AT_LOG_ERROR, "reschedule.memory", "the plan of moves is too large");
        return;
    }
    for (size_t k = 0; k < plan.n && p->c->writes_left != 0; k++) {
        const struct at_reschedule_move *move = &plan.moves[k];
        at_state_event(p->c->state, &AT_KIND_INSTANCE, &move->instance->meta, false,
                       automatic ? "Moving" : "MoveProposed", "%s (%s)", move->message,
                       at_reschedule_reason_name(move->reason));
        if (automatic) {
            at_metric_add(p->c->m_moved, 1);
            carry_out(p, move);
        }
    }
}

void ctl_reschedule(struct ctl_pass *p)
{
    const struct at_rescheduling *policy = at_reschedule_policy(p->snap);
    struct moves moves = count_moves(p);
    p->c->moving = moves.under_way > 0;
    p->item->keep = true;
    if (!has_policy(p->snap) || at_streq(policy->mode, "Off")) {
        return;
    }
    int64_t interval = policy->interval_ns > AT_NS_PER_S ? policy->interval_ns : AT_NS_PER_S;
    int64_t due = p->item->last_sched_ns + interval; /* on the loop's clock */
    if (p->item->last_sched_ns != 0 && p->now_ns < due) {
        ctl_after(p, due - p->now_ns);
        return;
    }
    p->item->last_sched_ns = p->now_ns;
    ctl_after(p, interval);
    int64_t left = policy->max_moves_per_hour - moves.lately - moves.under_way;
    int64_t together = policy->max_moves_per_pass - moves.under_way;
    left = left < together ? left : together;
    if (left > 0) {
        look(p, policy, (size_t)left);
    }
}
