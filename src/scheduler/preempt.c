/* Preemption: when nothing fits, whose end would make room at the least cost? Victims have a lower
 * priority, and their owners' disruption budgets allow it. Of all nodes looked at, the one is taken
 * whose victims' highest priority is lowest, then which has the fewest, then which loses the least
 * running time. One or two victims are found exactly, more by sparing one after the other. A gang
 * is worth nothing without one of its members: it is one victim, of all nodes' members together. */
#include "core/units.h"
#include "scheduler/disruption.h"
#include "scheduler/engine.h"
#include "scheduler/near.h"
#include "scheduler/room.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define NODES_MAX 512   /* looked into, of those where it could work; by name */
#define VICTIMS_MAX 256 /* candidates of one node; more are not looked at */
#define PAIRS_OF_MAX 64 /* candidates, of which all pairs are tried */

struct candidate {
    struct sched_item *item;   /* of a gang one that is on the node, for all */
    int64_t priority, lost_ns; /* highest of all members, and their sum */
    int64_t n;                 /* that go */
    bool leaving;              /* goes anyway */
    bool taken;
};

struct cost {
    int64_t priority; /* highest of the victims */
    int64_t n, lost_ns;
};

struct search {
    struct sched *s;
    const struct sched_turn *turn;
    struct sched_request *r;
    int64_t priority, now_ns;
    struct sched_node trial; /* a copy with arrays of its own */
    const struct sched_node *of;
    struct candidate list[VICTIMS_MAX];
    size_t n;
    bool missed; /* somebody was spared because who comes asks for them */
    struct sched_node *best;
    struct cost best_cost;
    struct candidate chosen[VICTIMS_MAX];
    size_t n_chosen;
};

bool sched_is_leaving(const struct sched_item *item)
{
    return item->victim || (item->instance != NULL && item->instance->meta.deletion_wall_ns != 0);
}

static void trial_begin(struct search *f, const struct sched_node *n)
{
    struct sched_gpu *gpus = f->trial.gpus;
    struct sched_extended *extended = f->trial.extended;
    f->of = n;
    f->trial = *n;
    f->trial.gpus = at_realloc(gpus, sizeof(*gpus) * (n->n_gpus + 1));
    f->trial.extended = at_realloc(extended, sizeof(*extended) * (n->n_extended + 1));
    if (n->n_gpus > 0) {
        memcpy(f->trial.gpus, n->gpus, sizeof(*gpus) * n->n_gpus);
    }
    if (n->n_extended > 0) {
        memcpy(f->trial.extended, n->extended, sizeof(*extended) * n->n_extended);
    }
}

/* The k-th that goes with c; NULL: no more. Members that hold nothing, or leave anyway, are not
 * among them: *k moves past those. */
static struct sched_item *next_of(const struct candidate *c, size_t *k)
{
    const struct sched_gang *gang = c->item->gang;
    if (gang == NULL) {
        return (*k)++ == 0 ? c->item : NULL;
    }
    while (*k < gang->n) {
        struct sched_item *x = gang->items[(*k)++];
        if (x->node != NULL && !sched_is_leaving(x)) {
            return x;
        }
    }
    return NULL;
}

static void trial_give(struct search *f, const struct candidate *c)
{
    struct sched_item *x;
    for (size_t k = 0; (x = next_of(c, &k)) != NULL;) {
        if (x->node == f->of) {
            sched_give_back(&f->trial, &x->request->demand, x->gpus, x->n_gpus);
        }
    }
}

static void trial_take(struct search *f, const struct candidate *c)
{
    struct sched_item *x;
    for (size_t k = 0; (x = next_of(c, &k)) != NULL;) {
        if (x->node == f->of) {
            sched_take(&f->trial, &x->request->demand, x->gpus, x->n_gpus);
        }
    }
}

static bool trial_has_room(const struct search *f)
{
    return sched_refuse_room(f->r, &f->trial) == AT_SCHED_RULE_COUNT;
}

/* Without those taken, would it miss somebody that its affinity asks for? */
static bool trial_misses(struct search *f)
{
    const struct at_instance *gone[VICTIMS_MAX];
    size_t n = 0;
    for (size_t i = 0; f->turn->n_near > 0 && i < f->n; i++) {
        struct sched_item *x;
        for (size_t k = 0; f->list[i].taken && (x = next_of(&f->list[i], &k)) != NULL;) {
            if (n == VICTIMS_MAX) {
                return true;
            }
            gone[n++] = x->instance;
        }
    }
    bool misses = n > 0 && sched_near_misses(f->s, f->turn, f->of, gone, n);
    f->missed = f->missed || misses;
    return misses;
}

static bool trial_fits(struct search *f)
{
    return trial_has_room(f) && !trial_misses(f);
}

int64_t sched_budget_left(const struct sched *s, const struct at_instance *i)
{
    int64_t wanted = 0;
    const struct at_disruption *budget = at_disruption_of(s->snap, i, &wanted);
    if (budget == NULL || !at_disruption_is_available(i)) {
        return AT_DISRUPTION_UNLIMITED;
    }
    const char *uid = at_meta_controller(&i->meta)->uid;
    return at_disruption_allowed(budget, wanted, (int64_t)(intptr_t)at_map_get(s->available, uid));
}

/* Of those that c takes with it, how many count in the budget of this owner? */
static int64_t costs_owner(const struct candidate *c, const char *uid)
{
    int64_t n = 0;
    const struct sched_item *x;
    for (size_t k = 0; (x = next_of(c, &k)) != NULL;) {
        const struct at_owner_ref *owner = at_meta_controller(&x->instance->meta);
        n += owner != NULL && at_streq(owner->uid, uid) && at_disruption_is_available(x->instance);
    }
    return n;
}

/* A budget kept somebody: sched.keeps has its owner, with its generation. */
static void budget_keeps(struct sched *s, const struct at_instance *victim)
{
    const struct at_owner_ref *owner = at_meta_controller(&victim->meta);
    const struct at_deployment *d =
        at_streq(owner->kind, "Deployment")
            ? at_snapshot_deployment(s->snap, victim->meta.ns, owner->name)
            : NULL;
    int64_t generation = d != NULL ? d->meta.generation : 0;
    (void)at_map_put(s->keeps, owner->uid, (void *)(intptr_t)(generation + 1));
    s->kept++;
}

void sched_budgets_grew(struct sched *s)
{
    if (at_map_count(s->keeps) > 0) {
        at_map_clear(s->keeps); /* who tries again tells again */
        s->budgets++;
        s->holders++;
    }
}

void sched_budget_grew(struct sched *s, const char *uid, int64_t generation)
{
    void *kept = uid != NULL ? at_map_get(s->keeps, uid) : NULL;
    if (kept != NULL && kept != (void *)(intptr_t)(generation + 1)) {
        sched_budgets_grew(s);
    }
}

/* Would every budget hold if c went too? Mostly a gang has one owner, who is asked once. */
static bool budgets_allow(const struct search *f, const struct candidate *c)
{
    const char *asked = NULL;
    const struct sched_item *x;
    for (size_t k = 0; (x = next_of(c, &k)) != NULL;) {
        const struct at_owner_ref *owner = at_meta_controller(&x->instance->meta);
        int64_t left = owner != NULL && !at_streq(owner->uid, asked)
                           ? sched_budget_left(f->s, x->instance)
                           : AT_DISRUPTION_UNLIMITED;
        if (left == AT_DISRUPTION_UNLIMITED) {
            continue; /* also one that is not available: it costs nothing */
        }
        asked = owner->uid;
        left -= costs_owner(c, asked);
        for (size_t i = 0; i < f->n; i++) {
            left -= f->list[i].taken && &f->list[i] != c ? costs_owner(&f->list[i], asked) : 0;
        }
        if (left < 0) {
            budget_keeps(f->s, x->instance);
            return false;
        }
    }
    return true;
}

static int by_worth(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->priority != y->priority) {
        return x->priority < y->priority ? -1 : 1;
    }
    if (x->n != y->n) {
        return x->n < y->n ? -1 : 1;
    }
    if (x->lost_ns != y->lost_ns) {
        return x->lost_ns < y->lost_ns ? -1 : 1;
    }
    return strcmp(x->item->key, y->item->key);
}

/* A gang stands for all its members once: by the first of them on the node. */
static bool is_first_here(const struct sched_item *x)
{
    struct candidate c = {.item = (struct sched_item *)x};
    const struct sched_item *mate;
    for (size_t k = 0; x->gang != NULL && (mate = next_of(&c, &k)) != NULL && mate != x;) {
        if (mate->node == x->node) {
            return false;
        }
    }
    return true;
}

/* May x go, with all that go with it, and at what price? */
static bool weigh(const struct search *f, struct sched_item *item, struct candidate *ret)
{
    *ret = (struct candidate){.item = item, .priority = INT64_MIN};
    const struct sched_item *x;
    for (size_t k = 0; (x = next_of(ret, &k)) != NULL;) {
        if (x->instance == NULL || x->planned || x->instance->spec.priority >= f->priority) {
            return false;
        }
        int64_t since = x->instance->status.started_at_wall_ns;
        int64_t priority = x->instance->spec.priority;
        ret->priority = priority > ret->priority ? priority : ret->priority;
        ret->lost_ns += since > 0 && since < f->now_ns ? f->now_ns - since : 0;
        ret->n++;
    }
    return true;
}

/* It is the only one there that the affinity of who comes asks for. */
static bool is_missed(struct search *f, const struct sched_item *x)
{
    bool misses = f->turn->n_near > 0 && sched_near_misses(f->s, f->turn, f->of, &x->instance, 1);
    f->missed = f->missed || misses;
    return misses;
}

/* Those that may go, the cheapest first; what leaves anyway is given back to the trial. */
static void collect(struct search *f, const struct sched_node *n)
{
    f->n = 0;
    for (struct sched_item *x = n->first; x != NULL; x = x->next) {
        struct candidate c;
        if (sched_is_leaving(x)) {
            sched_give_back(&f->trial, &x->request->demand, x->gpus, x->n_gpus);
        } else if (f->n < VICTIMS_MAX && x->instance != NULL &&
                   x->instance->spec.priority < f->priority && is_first_here(x) &&
                   weigh(f, x, &c) && budgets_allow(f, &c) && !is_missed(f, x)) {
            f->list[f->n++] = c;
        }
    }
    if (f->n > 0) {
        qsort(f->list, f->n, sizeof(f->list[0]), by_worth);
    }
}

static bool take(struct search *f, size_t k)
{
    if (!budgets_allow(f, &f->list[k])) {
        return false;
    }
    f->list[k].taken = true;
    trial_give(f, &f->list[k]);
    return true;
}

static void spare(struct search *f, size_t k)
{
    f->list[k].taken = false;
    trial_take(f, &f->list[k]);
}

/* The first pair of the first n that is enough and loses less than one gang of most_n would. */
static bool find_pair(struct search *f, size_t n, int64_t most_n)
{
    for (size_t k = 1; k < n && n <= PAIRS_OF_MAX; k++) {
        if (!take(f, k)) {
            continue;
        }
        for (size_t j = 0; j < k; j++) {
            if (f->list[j].n + f->list[k].n < most_n && take(f, j)) {
                if (trial_fits(f)) {
                    return true;
                }
                spare(f, j);
            }
        }
        spare(f, k);
    }
    return false;
}

/* One or two of the first n that are enough. They come cheapest first, so the first pair found in
 * order of the dearer one costs the least priority. */
static bool find_few(struct search *f, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        if (!take(f, k)) {
            continue;
        }
        bool enough = trial_fits(f);
        if (enough && f->list[k].n <= 2) {
            return true;
        }
        spare(f, k);
        if (enough) { /* a gang; two that stand alone are fewer */
            return find_pair(f, k, f->list[k].n) || take(f, k);
        }
    }
    return find_pair(f, n, INT64_MAX);
}

/* As few priorities as possible, then as few victims as can be found. */
static bool choose_victims(struct search *f)
{
    size_t n = 0;
    bool enough = trial_has_room(f);
    while (n < f->n && !enough) {
        int64_t level = f->list[n].priority;
        for (; n < f->n && f->list[n].priority == level; n++) {
            (void)take(f, n);
        }
        enough = trial_has_room(f);
    }
    if (!enough || n == 0) {
        return enough;
    }
    for (size_t k = 0; k < n; k++) {
        if (f->list[k].taken) {
            spare(f, k);
        }
    }
    if (find_few(f, n)) {
        return true;
    }
    for (size_t k = 0; k < n; k++) {
        (void)take(f, k);
    }
    for (size_t k = n; k-- > 0;) { /* the dearest first */
        if (f->list[k].taken) {
            spare(f, k);
            if (!trial_fits(f)) {
                (void)take(f, k);
            }
        }
    }
    return trial_fits(f);
}

static bool is_cheaper(const struct cost *a, const struct cost *b)
{
    if (a->n == 0 || b->n == 0 || a->priority != b->priority) {
        return a->n == 0 ? b->n > 0 : b->n > 0 && a->priority < b->priority;
    }
    return a->n != b->n ? a->n < b->n : a->lost_ns < b->lost_ns;
}

static void look_at(struct search *f, struct sched_node *n)
{
    struct cost cost = {.priority = INT64_MIN};
    trial_begin(f, n);
    collect(f, n);
    if (!choose_victims(f)) {
        return;
    }
    for (size_t k = 0; k < f->n; k++) {
        if (f->list[k].taken) {
            cost.n += f->list[k].n;
            cost.lost_ns += f->list[k].lost_ns;
            cost.priority =
                f->list[k].priority > cost.priority ? f->list[k].priority : cost.priority;
        }
    }
    if (f->best != NULL && !is_cheaper(&cost, &f->best_cost)) {
        return;
    }
    f->best = n;
    f->best_cost = cost;
    f->n_chosen = 0;
    for (size_t k = 0; k < f->n; k++) {
        if (f->list[k].taken) {
            f->chosen[f->n_chosen++] = f->list[k];
        }
    }
}

/* Only room is in the way, and somebody there may have to give it up. */
static bool could_work(const struct search *f, const struct sched_node *n)
{
    if (!sched_is_eligible(f->r, n->pos) || n->gpus_unknown ||
        sched_turn_refusal_but_room(f->s, f->turn, n) != AT_SCHED_RULE_COUNT) {
        return false;
    }
    for (const struct sched_item *x = n->first; x != NULL; x = x->next) {
        if (sched_is_leaving(x) ||
            (x->instance != NULL && x->instance->spec.priority < f->priority)) {
            return true;
        }
    }
    return false;
}

void sched_victim_set(struct sched *s, struct sched_item *item, bool victim)
{
    if (item->victim != victim) {
        item->victim = victim;
        s->holders++; /* what could be given up has changed */
        sched_available_set(s, item);
    }
}

static enum at_rc show(struct search *f, struct at_sched_decision *d)
{
    struct sched *s = f->s;
    size_t room = 0, n = 0;
    for (size_t i = 0; i < f->n_chosen; i++) {
        room += (size_t)f->chosen[i].n;
    }
    const struct at_instance **victims = at_arena_alloc(s->arena, sizeof(*victims) * (room + 1));
    if (victims == NULL) {
        return AT_NOMEM;
    }
    for (size_t i = 0; i < f->n_chosen; i++) {
        struct sched_item *x;
        for (size_t k = 0; (x = next_of(&f->chosen[i], &k)) != NULL;) {
            assert(n < room);
            victims[n++] = x->instance;
            sched_victim_set(s, x, true); /* next_of does not give it again */
        }
    }
    d->nominated = f->best->node;
    d->victims = victims;
    d->n_victims = n;
    return AT_OK;
}

/* Many that wait alike find nobody alike: one of them looks, as long as nothing changes. */
static bool is_known_hopeless(const struct sched *s, const struct sched_item *item, bool free_turn)
{
    const struct sched_request *r = item->request;
    return free_turn && r->no_victims[0] == s->log_end + 1 && r->no_victims[1] == s->holders &&
           item->instance->spec.priority <= r->no_victims_for;
}

/* No rule about other instances takes part. */
static bool is_free_turn(const struct sched *s)
{
    bool is_free = s->turn.n_apart == 0 && s->turn.others_refused == AT_SCHED_RULE_COUNT;
    for (size_t i = 0; i < s->n_sites && is_free; i++) {
        is_free = s->turn.sites[i].refusal == AT_SCHED_RULE_COUNT;
    }
    return is_free;
}

enum at_rc sched_preempt(struct sched *s, struct sched_item *item, int64_t now_wall_ns,
                         struct at_sched_decision *d)
{
    const struct at_instance *i = item->instance;
    item->waits_for_mates = false;
    if (at_streq(i->spec.preemption_policy, "Never") || i->spec.priority <= s->lowest_priority) {
        return AT_OK;
    }
    bool free_turn = is_free_turn(s);
    if (is_known_hopeless(s, item, free_turn)) {
        d->waits_for |= item->request->no_victims_by_budget ? AT_SCHED_CHANGE_BUDGET : 0;
        return AT_OK;
    }
    AT_CLEANUP(at_cleanup_free) struct search *f = AT_NEW(struct search);
    f->s = s;
    f->turn = &s->turn;
    f->r = item->request;
    f->priority = i->spec.priority;
    f->now_ns = now_wall_ns;
    size_t looked_at = 0;
    uint64_t kept = s->kept;
    for (size_t k = 0; k < s->n_nodes && looked_at < NODES_MAX; k++) {
        if (could_work(f, s->by_rank[k])) {
            look_at(f, s->by_rank[k]);
            looked_at++;
        }
    }
    enum at_rc rc = AT_OK;
    if (f->best != NULL) {
        struct sched_node *node = f->best;
        rc = show(f, d);
        if (rc == AT_OK) {
            sched_hold(s, item, node);
        }
    }
    if (f->best == NULL) {
        d->waits_for |= (s->kept != kept ? AT_SCHED_CHANGE_BUDGET : 0u) |
                        (f->missed ? AT_SCHED_CHANGE_PLACED : 0u);
        item->waits_for_mates = f->missed;
    }
    if (f->best == NULL && free_turn) {
        f->r->no_victims_by_budget = s->kept != kept;
        f->r->no_victims[0] = s->log_end + 1;
        f->r->no_victims[1] = s->holders;
        f->r->no_victims_for = f->priority;
    }
    at_free(f->trial.gpus);
    at_free(f->trial.extended);
    return rc;
}

/* Room is being made for it: will it be enough? */
bool sched_still_leaving(struct sched *s, struct sched_item *item, struct sched_node *n)
{
    AT_CLEANUP(at_cleanup_free) struct search *f = AT_NEW(struct search);
    f->s = s;
    f->r = item->request;
    f->turn = &s->turn;
    f->priority = INT64_MIN;
    bool fits = false;
    if (could_work(f, n)) {
        trial_begin(f, n);
        collect(f, n); /* gives back what leaves */
        fits = trial_fits(f);
    }
    at_free(f->trial.gpus);
    at_free(f->trial.extended);
    return fits;
}
