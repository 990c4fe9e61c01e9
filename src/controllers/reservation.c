/* Reservations: which nodes are held, by the clock; at the start, who is in the way ends. */
#include "controllers/controllers_priv.h"
#include "scheduler/reserve.h"

#include <string.h>

#define WAIT_MAX_NS (3600 * AT_NS_PER_S) /* one timer's length; wall clocks are set */
#define AGAIN_NS (2 * AT_NS_PER_S)       /* budgets kept some in the way, or nodes are missing */

struct shown {
    const struct at_reservation *r;
    const struct at_reserve_plan *plan;
};

static bool set_status(void *ctx, json_t *object)
{
    const struct shown *s = ctx;
    json_t *nodes = json_array();
    for (size_t k = 0; k < s->plan->n_nodes; k++) {
        json_array_append_new(nodes, json_string(s->plan->nodes[k]));
    }
    at_json_set_at(object, "status.phase", json_string(at_reserve_phase_name(s->plan->phase)));
    at_json_set_at(object, "status.nodes", nodes);
    at_json_set_at(object, "status.nodeCount", json_integer((json_int_t)s->plan->n_nodes));
    at_json_set_at(object, "status.instances", json_integer((json_int_t)s->plan->instances));
    at_json_set_at(object, "status.message", json_string(s->plan->message));
    return true;
}

static bool as_shown(const struct at_reservation *r, const struct at_reserve_plan *plan)
{
    if (!at_streq(r->status.phase, at_reserve_phase_name(plan->phase)) ||
        !at_streq(r->status.message, plan->message) || r->status.nodes.n != plan->n_nodes ||
        r->status.instances != (int64_t)plan->instances) {
        return false;
    }
    for (size_t k = 0; k < plan->n_nodes; k++) {
        if (!at_streq(r->status.nodes.items[k], plan->nodes[k])) {
            return false;
        }
    }
    return true;
}

static void end_those_in_the_way(struct ctl_pass *p, const struct at_reservation *r,
                                 const struct at_reserve_plan *plan)
{
    for (size_t k = 0; k < plan->n_victims; k++) {
        const struct at_instance *i = plan->victims[k];
        ctl_delete(p, &AT_KIND_INSTANCE, &i->meta);
        if (p->c->writes_left != 0) {
            at_state_event(p->c->state, &AT_KIND_INSTANCE, &i->meta, true, "Reserved",
                           "node %s is held by reservation %s", i->spec.node_name, r->meta.name);
        }
    }
}

static void reconcile(struct ctl_pass *p, const struct at_reservation *r)
{
    struct at_reserve_plan plan;
    if (at_reserve_look(p->snap, r, p->wall_ns, p->arena, &plan) != AT_OK) {
        ctl_after(p, AT_NS_PER_S);
        return;
    }
    if (!as_shown(r, &plan)) {
        struct shown s = {r, &plan};
        ctl_update(p, &AT_KIND_RESERVATION, NULL, r->meta.name, set_status, &s);
        if (!at_streq(r->status.phase, at_reserve_phase_name(plan.phase)) &&
            p->c->writes_left != 0) {
            at_state_event(p->c->state, &AT_KIND_RESERVATION, &r->meta,
                           plan.phase == AT_RESERVE_PENDING, at_reserve_phase_name(plan.phase),
                           "%s", plan.message);
        }
    }
    end_those_in_the_way(p, r, &plan);
    if (plan.next_wall_ns != 0) {
        int64_t left = plan.next_wall_ns - p->wall_ns;
        left = left < WAIT_MAX_NS ? left : WAIT_MAX_NS;
        bool soon = plan.n_victims > 0 || plan.phase == AT_RESERVE_PENDING;
        ctl_after(p, soon && left > AGAIN_NS ? AGAIN_NS : left + AT_NS_PER_MS);
    }
}

void ctl_reservations(struct ctl_pass *p)
{
    for (size_t k = 0; k < p->snap->n_reservations; k++) {
        if (p->snap->reservations[k]->meta.deletion_wall_ns == 0) {
            reconcile(p, p->snap->reservations[k]);
        }
    }
    ctl_enqueue(p->c, CTL_PLACEMENT, NULL, "all"); /* the time may have come for somebody */
    p->item->keep = true;
}
