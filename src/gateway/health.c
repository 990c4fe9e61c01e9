#include "gateway/health.h"

#include "gateway/gateway_priv.h"

#include <assert.h>

bool gw_status_is_error(int status)
{
    return status == 500 || (status >= 502 && status <= 504);
}

static bool is_sick(const struct gw_replica *replica)
{
    const struct gw_standing *s = replica->standing;
    return replica->sick || (s != NULL && atomic_load_explicit(&s->sick, memory_order_relaxed));
}

/* Ejected, by any loop. */
static bool is_out(const struct gw_replica *replica)
{
    const struct gw_standing *s = replica->standing;
    return replica->circuit.state != GW_CLOSED || is_sick(replica) ||
           (s != NULL && atomic_load_explicit(&s->until_ns, memory_order_relaxed) != 0);
}

bool gw_replica_avoided(const struct gw_replica *replica, int64_t now_ns)
{
    const struct gw_circuit *c = &replica->circuit;
    const struct gw_standing *s = replica->standing;
    if (s != NULL) { /* what any loop has found out */
        int64_t until_ns = atomic_load_explicit(&s->until_ns, memory_order_relaxed);
        return is_sick(replica) ||
               (until_ns != 0 &&
                (now_ns < until_ns || atomic_load_explicit(&s->trial, memory_order_relaxed)));
    }
    return is_sick(replica) || (c->state == GW_HALF_OPEN && c->trial) ||
           (c->state == GW_OPEN && now_ns < c->until_ns);
}

static const char *name_of(enum gw_circuit_state state)
{
    return state == GW_OPEN ? "open" : state == GW_HALF_OPEN ? "half-open" : "closed";
}

static void count_state(struct gw_moment at, const struct gw_model *model,
                        const struct gw_circuit *c, int64_t sign)
{
    const char *const labels[] = {model->name, name_of(c->state), NULL};
    if (at.metrics != NULL && c->state != GW_CLOSED) { /* a closed one is nothing to look at */
        bool own = c == &model->circuit;
        at_metric_add(
            at_metric_with(own ? at.metrics->model_circuits : at.metrics->circuits, labels), sign);
    }
}

static void set_state(struct gw_moment at, const struct gw_model *model, struct gw_circuit *c,
                      enum gw_circuit_state state)
{
    static const bool LEGAL[3][3] = {[GW_CLOSED] = {[GW_OPEN] = true},
                                     [GW_OPEN] = {[GW_HALF_OPEN] = true, [GW_CLOSED] = true},
                                     [GW_HALF_OPEN] = {[GW_OPEN] = true, [GW_CLOSED] = true}};
    assert(LEGAL[c->state][state]);
    count_state(at, model, c, -1);
    c->state = state;
    c->trial = false;
    count_state(at, model, c, 1);
}

static void open_for(struct gw_moment at, struct gw_model *model, struct gw_circuit *c,
                     int64_t first_ns, int64_t max_ns)
{
    if (c->opened > 0 && c->state == GW_CLOSED && at.now_ns - c->closed_ns > max_ns) {
        c->opened = 0; /* it was well for long enough */
    }
    unsigned shift = c->opened < AT_GW_EJECT_SHIFT_MAX ? c->opened : AT_GW_EJECT_SHIFT_MAX;
    int64_t wait = first_ns > max_ns >> shift ? max_ns : first_ns << shift;
    c->until_ns = at.now_ns + wait;
    c->opened++;
    set_state(at, model, c, GW_OPEN);
}

static void close_circuit(struct gw_moment at, const struct gw_model *model, struct gw_circuit *c)
{
    c->errors = 0;
    if (c->state != GW_CLOSED) {
        c->closed_ns = at.now_ns;
        set_state(at, model, c, GW_CLOSED);
    }
}

/* One more error in a row, of all that the loops have met. */
static unsigned count_error(struct gw_circuit *c, struct gw_standing *s)
{
    c->errors++;
    if (s != NULL) {
        c->errors = atomic_fetch_add_explicit(&s->errors, 1, memory_order_relaxed) + 1;
    }
    return c->errors;
}

/* Tell the other loops of a circuit that opened here. */
static void publish(const struct gw_circuit *c, struct gw_standing *s)
{
    if (s != NULL) {
        atomic_store_explicit(&s->opened, c->opened, memory_order_relaxed);
        atomic_store_explicit(&s->trial, false, memory_order_relaxed);
        atomic_store_explicit(&s->until_ns, c->until_ns, memory_order_relaxed);
    }
}

/* It is well: written only where it was not, so that loops do not take the line from each other. */
static void clear(struct gw_standing *s)
{
    if (s != NULL && atomic_load_explicit(&s->errors, memory_order_relaxed) != 0) {
        atomic_store_explicit(&s->errors, 0, memory_order_relaxed);
    }
    if (s != NULL && atomic_load_explicit(&s->until_ns, memory_order_relaxed) != 0) {
        atomic_store_explicit(&s->until_ns, 0, memory_order_relaxed);
        atomic_store_explicit(&s->trial, false, memory_order_relaxed);
    }
}

/* A circuit that another loop has opened, or closed, is this loop's too. */
static void adopt(struct gw_moment at, const struct gw_model *model, struct gw_circuit *c,
                  const struct gw_standing *s)
{
    if (s == NULL) {
        return;
    }
    int64_t until_ns = atomic_load_explicit(&s->until_ns, memory_order_relaxed);
    if (until_ns == 0 && c->state != GW_CLOSED) {
        close_circuit(at, model, c);
    } else if (until_ns != 0) {
        c->opened = atomic_load_explicit(&s->opened, memory_order_relaxed);
        c->until_ns = until_ns;
        if (c->state == GW_CLOSED) {
            set_state(at, model, c, GW_OPEN);
        }
    }
}

static void set_trial(struct gw_standing *s, bool trial)
{
    if (s != NULL) {
        atomic_store_explicit(&s->trial, trial, memory_order_relaxed);
    }
}

/* May one more of the model's replicas be ejected? Never the last one; and for what answers say, no
 * more than a share: when all are bad, it is the requests. */
static bool may_eject(const struct gw_model *model, const struct gw_replica *replica,
                      enum gw_outcome outcome)
{
    size_t others = 0;
    for (size_t i = 0; i < model->n_replicas; i++) {
        const struct gw_replica *r = model->replicas[i];
        others += r != replica && is_out(r);
    }
    bool last = others + 1 >= model->n_replicas;
    bool in_share =
        (others + 1) * 1000 <= (size_t)model->policy.eject_share_milli * model->n_replicas;
    return !last && (outcome == GW_UNREACHED || in_share);
}

static void count_ejection(struct gw_moment at, const struct gw_model *model,
                           enum gw_outcome outcome)
{
    const char *const labels[] = {model->name, outcome == GW_UNREACHED ? "connect" : "errors",
                                  NULL};
    if (at.metrics != NULL) {
        at_metric_add(at_metric_with(at.metrics->ejections, labels), 1);
    }
}

static void failed(struct gw_moment at, struct gw_model *model, struct gw_replica *replica,
                   enum gw_outcome outcome)
{
    struct gw_circuit *c = &replica->circuit;
    const struct gw_policy *p = &model->policy;
    count_error(c, replica->standing);
    if (c->state == GW_OPEN && at.now_ns < c->until_ns) {
        return; /* requests that fail together count once */
    }
    bool due = outcome == GW_UNREACHED || c->state != GW_CLOSED ||
               (p->eject_errors > 0 && c->errors >= p->eject_errors);
    if (!due || !replica->in_view || !may_eject(model, replica, outcome)) {
        if (c->trial) {
            set_trial(replica->standing, false);
        }
        c->trial = false;
        return;
    }
    if (c->state == GW_OPEN) {
        set_state(at, model, c, GW_HALF_OPEN); /* asked in need */
    }
    open_for(at, model, c, p->eject_ns, p->eject_max_ns);
    publish(c, replica->standing);
    count_ejection(at, model, outcome);
}

void gw_replica_enter(struct gw_moment at, struct gw_model *model, struct gw_replica *replica,
                      unsigned cost_milli)
{
    struct gw_circuit *c = &replica->circuit;
    replica->outstanding++;
    replica->load_milli += cost_milli;
    adopt(at, model, c, replica->standing);
    if (c->state == GW_OPEN && at.now_ns >= c->until_ns) {
        set_state(at, model, c, GW_HALF_OPEN);
    }
    c->trial = c->state == GW_HALF_OPEN;
    if (c->trial) {
        set_trial(replica->standing, true);
    }
}

void gw_replica_leave(struct gw_moment at, struct gw_model *model, struct gw_replica *replica,
                      unsigned cost_milli, enum gw_outcome outcome)
{
    assert(replica->outstanding > 0);
    assert(replica->load_milli >= cost_milli);
    replica->outstanding--;
    replica->load_milli -= cost_milli;
    gw_replica_give_place(replica);
    if (outcome == GW_FINE) {
        close_circuit(at, model, &replica->circuit);
        clear(replica->standing);
    } else if (outcome == GW_NOTHING) {
        if (replica->circuit.trial) {
            set_trial(replica->standing, false);
        }
        replica->circuit.trial = false;
    } else {
        failed(at, model, replica, outcome);
    }
    gw_replica_drop(replica);
}

static void set_sick(struct gw_moment at, const struct gw_model *model, struct gw_replica *replica,
                     bool sick)
{
    const char *const labels[] = {model->name, NULL};
    replica->sick = sick;
    if (replica->standing != NULL) {
        atomic_store_explicit(&replica->standing->sick, sick, memory_order_relaxed);
    }
    if (at.metrics != NULL) {
        at_metric_add(at_metric_with(at.metrics->sick, labels), sick ? 1 : -1);
    }
}

void gw_replica_checked(struct gw_moment at, struct gw_model *model, struct gw_replica *replica,
                        bool well)
{
    const struct gw_policy *p = &model->policy;
    replica->checks_bad = well ? 0 : replica->checks_bad + 1;
    replica->checks_good = well ? replica->checks_good + 1 : 0;
    bool sick = replica->sick ? replica->checks_good < p->check_successes
                              : replica->checks_bad >= p->check_failures;
    if (sick != replica->sick) {
        set_sick(at, model, replica, sick);
    }
    if (well && is_out(replica) && !is_sick(replica)) { /* a request may try it */
        adopt(at, model, &replica->circuit, replica->standing);
        if (replica->circuit.state == GW_OPEN) {
            replica->circuit.until_ns = at.now_ns;
            publish(&replica->circuit, replica->standing);
        }
    }
}

void gw_replica_forget(struct gw_moment at, struct gw_model *model, struct gw_replica *replica)
{
    close_circuit(at, model, &replica->circuit);
    if (replica->sick) {
        set_sick(at, model, replica, false);
    }
}

bool gw_model_allows(struct gw_moment at, struct gw_model *model)
{
    struct gw_circuit *c = &model->circuit;
    adopt(at, model, c, model->standing);
    if (c->state == GW_CLOSED) {
        return true;
    }
    if (at.now_ns < c->until_ns) {
        return false;
    }
    if (c->state == GW_OPEN) {
        set_state(at, model, c, GW_HALF_OPEN);
    }
    c->until_ns = at.now_ns + model->policy.circuit_ns; /* one at a time; it may get lost */
    publish(c, model->standing);
    return true;
}

void gw_model_hope(struct gw_moment at, struct gw_model *model)
{
    model->circuit.until_ns = at.now_ns;
    if (model->circuit.state == GW_OPEN) {
        publish(&model->circuit, model->standing);
    }
}

void gw_model_forget(struct gw_moment at, struct gw_model *model)
{
    close_circuit(at, model, &model->circuit);
}

void gw_model_note(struct gw_moment at, struct gw_model *model, bool answered)
{
    struct gw_circuit *c = &model->circuit;
    const struct gw_policy *p = &model->policy;
    if (answered) {
        if (c->errors > 0 || c->state != GW_CLOSED) {
            close_circuit(at, model, c);
        }
        clear(model->standing);
        return;
    }
    count_error(c, model->standing);
    if (c->state == GW_HALF_OPEN || (c->state == GW_CLOSED && p->circuit_errors > 0 &&
                                     c->errors >= p->circuit_errors && model->in_view)) {
        open_for(at, model, c, p->circuit_ns, AT_GW_AVOID_MAX_NS);
        publish(c, model->standing);
    }
}

void gw_retry_start(struct gw_budget *budget, int64_t now_ns)
{
    budget->milli = AT_GW_RETRY_SAVED_MAX * 1000 / 2;
    budget->at_ns = now_ns;
}

static void cap(struct gw_budget *b)
{
    if (b->milli > AT_GW_RETRY_SAVED_MAX * 1000) {
        b->milli = AT_GW_RETRY_SAVED_MAX * 1000;
    }
}

void gw_retry_earn(struct gw_budget *budget, const struct gw_policy *policy)
{
    budget->milli += policy->retry_milli;
    cap(budget);
}

bool gw_retry_take(struct gw_budget *budget, int64_t now_ns)
{
    int64_t passed = now_ns - budget->at_ns;
    if (passed > 0) {
        passed = passed < 100 * AT_GW_S ? passed : 100 * AT_GW_S;
        budget->milli += passed / AT_GW_MS * AT_GW_RETRY_FLOOR_PER_S;
        budget->at_ns = now_ns;
        cap(budget);
    }
    if (budget->milli < 1000) {
        return false;
    }
    budget->milli -= 1000;
    return true;
}
