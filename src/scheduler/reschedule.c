#include "scheduler/reschedule.h"

#include "scheduler/disruption.h"
#include "scheduler/engine.h"
#include "scheduler/queue.h"
#include "scheduler/reserve.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define HOUR_NS (3600 * AT_NS_PER_S)
#define GIB (INT64_C(1) << 30)
#define ROUNDS 4 /* a move may make another one worth while */

static const char *const REASONS[AT_RESCHEDULE_REASON_COUNT] = {
    [AT_RESCHEDULE_VIOLATION] = "EndsViolation", [AT_RESCHEDULE_DEFRAGMENT] = "FreesGPU",
    [AT_RESCHEDULE_EMPTY] = "EmptiesNode",       [AT_RESCHEDULE_PRICE] = "Cheaper",
    [AT_RESCHEDULE_CARBON] = "LessCarbon",
};
static const char *const WHY[AT_RESCHEDULE_REASON_COUNT] = {
    [AT_RESCHEDULE_VIOLATION] = "it may not run where it is",
    [AT_RESCHEDULE_DEFRAGMENT] = "pieces of GPUs become whole",
    [AT_RESCHEDULE_EMPTY] = "its node becomes empty",
    [AT_RESCHEDULE_PRICE] = "it is cheaper there",
    [AT_RESCHEDULE_CARBON] = "power is cleaner there",
};

const char *at_reschedule_reason_name(enum at_reschedule_reason reason)
{
    assert(reason < AT_RESCHEDULE_REASON_COUNT);
    return REASONS[reason];
}

static const struct at_rescheduling DEFAULTS = {
    .mode = "Propose",
    .interval_ns = 300 * AT_NS_PER_S,
    .horizon_ns = 24 * HOUR_NS,
    .cool_down_ns = 600 * AT_NS_PER_S,
    .max_moves_per_pass = 5,
    .max_moves_per_hour = 20,
    .min_gain_microusd = 10000,
    .move_cost_microusd = 1000,
    .empty_node_hour_microusd = 50000,
    .free_gpu_hour_microusd = 500000,
    .carbon_per_kg_microusd = 100000,
    .violation_microusd = 100000000,
};

const struct at_rescheduling *at_reschedule_policy(const struct at_snapshot *snap)
{
    for (size_t i = 0; i < snap->n_policies; i++) {
        if (snap->policies[i]->spec.rescheduling != NULL) {
            return snap->policies[i]->spec.rescheduling;
        }
    }
    return &DEFAULTS;
}

struct pass {
    struct sched *s;
    const struct at_snapshot *snap;
    const struct at_rescheduling *policy;
    struct at_arena *arena;
    int64_t now;
    struct at_reserve *reserve; /* what is held for others is no target */
    struct at_queue_book *book; /* NULL: there are no queues */
    struct at_map *on_node;     /* node -> int64_t * instances */
    struct at_map *owners_used; /* owner uid: has a move already */
    struct at_map *by_key;      /* item's key -> struct candidate * */
    struct at_reschedule_plan plan;
    size_t max;
    bool exhausted;
};

/* --- money --- */

static int64_t over(const struct pass *p, int64_t microusd_hour)
{
    __int128 sum = (__int128)microusd_hour * p->policy->horizon_ns / HOUR_NS;
    return sum < INT64_MAX / 8 ? (int64_t)sum : INT64_MAX / 8;
}

static int64_t carbon_hour(const struct pass *p, const struct at_site *site,
                           const struct sched_demand *d)
{
    if (site == NULL) {
        return 0;
    }
    __int128 milliwatts = (__int128)d->cpu_milli * AT_RESCHEDULE_CPU_WATTS +
                          (__int128)d->gpu_count * d->gpu_milli * AT_RESCHEDULE_GPU_WATTS;
    /* mW * g/kWh * microusd/kg / (10^6 mW/kW * 10^3 g/kg) */
    return (int64_t)(milliwatts * site->spec.carbon_intensity * p->policy->carbon_per_kg_microusd /
                     1000000000);
}

static int64_t gpu_piece_hour(const struct pass *p, const struct sched_node *n)
{
    bool priced = n->site != NULL && n->site->spec.prices != NULL &&
                  n->site->spec.prices->gpu_hour_microusd > 0;
    return priced ? n->site->spec.prices->gpu_hour_microusd : p->policy->free_gpu_hour_microusd;
}

static int64_t piece(int64_t free_milli, const struct sched_gpu *g)
{
    return free_milli > 0 && free_milli < g->cap_milli ? free_milli : 0;
}

bool at_reschedule_is_moving(const struct at_instance *i)
{
    const struct at_instance_move *m = i->status.move;
    return m != NULL && (m->replaces == NULL || m->replaces[0] == '\0');
}

bool at_reschedule_was_called_off(const struct at_instance *i)
{
    return i->status.move != NULL && at_streq(i->status.move->replaces, i->meta.name);
}

static int64_t *count_on(const struct pass *p, const struct sched_node *n)
{
    int64_t *count = at_map_get(p->on_node, n->node->meta.name);
    assert(count != NULL);
    return count;
}

static bool is_violation(enum at_sched_rule rule)
{
    switch (rule) {
    case AT_SCHED_TAINT:
    case AT_SCHED_SELECTOR:
    case AT_SCHED_NODE_AFFINITY:
    case AT_SCHED_SITE:
    case AT_SCHED_SITE_CLASS:
    case AT_SCHED_JURISDICTION:
    case AT_SCHED_REGION:
    case AT_SCHED_PROVIDER:
    case AT_SCHED_POLICY:
    case AT_SCHED_RESIDENCY:
        return true;
    default:
        return false;
    }
}

static bool breaks_rule(const struct pass *p, const struct sched_item *item)
{
    return is_violation(sched_refuse_static(p->s, item->request, item->node));
}

static int64_t copies_on(const struct sched_group *group, const struct sched_node *n)
{
    for (size_t k = 0; k < group->n_nodes; k++) {
        if (group->nodes[k].node == n) {
            return group->nodes[k].copies;
        }
    }
    return 0;
}

/* Is its place further ahead of where it would go (NULL: an empty place) than it allows? */
static bool is_skewed(const struct sched_item *item, const struct sched_node *to)
{
    const struct at_placement *place = item->instance->spec.placement;
    if (place == NULL || place->max_skew <= 0) {
        return false;
    }
    bool by_node = sched_spread_by_node(place);
    int64_t here = by_node ? copies_on(item->group, item->node)
                           : sched_copies_at(item->group, item->node->site_index);
    int64_t there = to == NULL ? 0
                    : by_node  ? copies_on(item->group, to)
                               : sched_copies_at(item->group, to->site_index);
    return here - there > place->max_skew;
}

/* What an instance costs where it is, over the horizon. */
static int64_t cost_there(const struct pass *p, const struct sched_item *item,
                          const struct sched_node *n)
{
    const struct sched_demand *d = &item->request->demand;
    return over(p, sched_hourly_price(n->site, d) + carbon_hour(p, n->site, d));
}

static int64_t objective(const struct pass *p)
{
    __int128 sum = 0;
    for (size_t k = 0; k < p->s->n_nodes; k++) {
        const struct sched_node *n = p->s->nodes[k];
        for (const struct sched_item *i = n->first; i != NULL; i = i->next) {
            if (i->instance != NULL) {
                sum += cost_there(p, i, n);
                sum += breaks_rule(p, i) ? p->policy->violation_microusd : 0;
            }
        }
        sum += *count_on(p, n) > 0 ? over(p, p->policy->empty_node_hour_microusd) : 0;
        for (size_t g = 0; g < n->n_gpus; g++) {
            sum += over(p, gpu_piece_hour(p, n)) *
                   (__int128)piece(n->gpus[g].free_milli, &n->gpus[g]) / AT_SCHED_GPU_MILLI;
        }
    }
    return sum < INT64_MAX ? (int64_t)sum : INT64_MAX;
}

/* --- what may move --- */

static const struct at_deployment *deployment_of(const struct at_snapshot *snap,
                                                 const struct at_instance *i)
{
    const struct at_owner_ref *owner = at_meta_controller(&i->meta);
    if (owner == NULL || !at_streq(owner->kind, "Deployment")) {
        return NULL;
    }
    const struct at_deployment *d = at_snapshot_deployment(snap, i->meta.ns, owner->name);
    return d != NULL && at_streq(d->meta.uid, owner->uid) ? d : NULL;
}

/* May the instance be moved at all? NULL: yes; else why not. */
static const char *obstacle(const struct at_snapshot *snap, const struct at_rescheduling *policy,
                            const struct at_instance *i, int64_t now)
{
    const struct at_deployment *d = deployment_of(snap, i);
    if (d == NULL) {
        return "no Deployment would make it again";
    }
    if (!at_disruption_is_available(i)) {
        return "it is not ready";
    }
    if (i->spec.gang != NULL) {
        return "it belongs to a gang";
    }
    if (at_reschedule_is_moving(i)) {
        return "it is being moved";
    }
    if (at_reschedule_was_called_off(i) &&
        now - i->status.move->since_wall_ns < AT_RESCHEDULE_AGAIN_NS) {
        return "a move of it did not come about within the last hour";
    }
    if (now - i->status.scheduled_at_wall_ns < policy->cool_down_ns) {
        return "it was placed a short time ago";
    }
    if (d->meta.deletion_wall_ns != 0 || d->status.ready_replicas != d->spec.replicas ||
        d->status.updated_replicas != d->spec.replicas || d->status.replicas != d->spec.replicas) {
        return "its Deployment is changing";
    }
    bool surges = d->spec.strategy == NULL || d->spec.strategy->max_surge > 0;
    if (!surges && at_disruption_left(snap, i) < 1) {
        return "its disruption budget is spent, and it has no surge";
    }
    return NULL;
}

static const char *owner_key(const struct at_instance *i)
{
    const struct at_owner_ref *owner = at_meta_controller(&i->meta);
    return owner != NULL && owner->uid != NULL ? owner->uid : "";
}

/* --- one move --- */

struct gain {
    int64_t parts[AT_RESCHEDULE_REASON_COUNT];
    int64_t sum, cost;
    struct at_sched_gpu gpus[AT_PACK_GPUS_MAX];
    size_t n_gpus;
};

static int64_t egress(const struct pass *p, const struct sched_item *item,
                      const struct sched_node *to)
{
    const char *from_site = item->node->node->spec.site;
    const struct at_workload *spec = &item->instance->spec;
    if (at_streq(from_site, to->node->spec.site) || spec->data.n == 0) {
        return 0;
    }
    const struct sched_path *paths = sched_net_from(p->s->net, from_site);
    __int128 sum = 0;
    for (size_t k = 0; k < spec->data.n && paths != NULL; k++) {
        const struct at_data_item *d = &spec->data.items[k];
        if (!sched_strings_have(&d->sites, to->node->spec.site)) {
            sum += (__int128)d->size_bytes * paths[to->site_index].egress_microusd_gib / GIB;
        }
    }
    return sum < INT64_MAX / 8 ? (int64_t)sum : INT64_MAX / 8;
}

static int64_t pieces_after(const struct pass *p, const struct sched_node *n,
                            const struct at_sched_gpu *gpus, size_t n_gpus, int64_t sign)
{
    __int128 change = 0;
    for (size_t k = 0; k < n_gpus; k++) {
        const struct sched_gpu *g = &n->gpus[gpus[k].index];
        change += piece(g->free_milli + sign * gpus[k].milli, g) - piece(g->free_milli, g);
    }
    return (int64_t)(over(p, gpu_piece_hour(p, n)) * change / AT_SCHED_GPU_MILLI);
}

/* Of the move of item to the node: what it gains and costs. copy: the new one, pending. */
static struct gain gain_of(const struct pass *p, const struct sched_item *item,
                           const struct sched_item *copy, const struct sched_node *to)
{
    struct gain g = {0};
    const struct sched_node *from = item->node;
    const struct sched_demand *d = &item->request->demand;
    g.n_gpus = (size_t)d->gpu_count;
    if (g.n_gpus > 0) {
        sched_gpus_pick(p->s, to, copy->request, g.gpus);
        g.parts[AT_RESCHEDULE_DEFRAGMENT] = -pieces_after(p, from, item->gpus, item->n_gpus, +1) -
                                            pieces_after(p, to, g.gpus, g.n_gpus, -1);
    }
    int64_t node_worth = over(p, p->policy->empty_node_hour_microusd);
    g.parts[AT_RESCHEDULE_EMPTY] =
        (*count_on(p, from) == 1 ? node_worth : 0) - (*count_on(p, to) == 0 ? node_worth : 0);
    g.parts[AT_RESCHEDULE_PRICE] =
        over(p, sched_hourly_price(from->site, d)) - over(p, sched_hourly_price(to->site, d));
    g.parts[AT_RESCHEDULE_CARBON] =
        over(p, carbon_hour(p, from->site, d)) - over(p, carbon_hour(p, to->site, d));
    bool broken = breaks_rule(p, item) || is_skewed(item, to);
    g.parts[AT_RESCHEDULE_VIOLATION] = broken ? p->policy->violation_microusd : 0;
    for (int k = 0; k < AT_RESCHEDULE_REASON_COUNT; k++) {
        g.sum += g.parts[k];
    }
    __int128 restart =
        (__int128)sched_hourly_price(to->site, d) * AT_RESCHEDULE_RESTART_NS / HOUR_NS;
    g.cost = p->policy->move_cost_microusd + (int64_t)restart + egress(p, item, to);
    return g;
}

/* Copies must not stand closer together than they do. */
static bool crowds(const struct sched_item *item, const struct sched_node *to)
{
    const struct sched_group *group = item->group;
    const struct sched_node *from = item->node;
    if (from->site_index != to->site_index &&
        sched_copies_at(group, to->site_index) + 1 > sched_copies_at(group, from->site_index)) {
        return true;
    }
    return copies_on(group, to) + 1 > copies_on(group, from);
}

/* For a while there are two of it: its queue must have quota for that, and nobody may have to go.
 * Where the quota is, when it has; NULL: it has not. */
static const struct at_instance *with_quota(struct pass *p, const struct at_instance *copy)
{
    struct at_queue_plan plan;
    if (p->book == NULL) {
        return copy;
    }
    if (at_queue_admit(p->book, p->snap, &copy, 1, p->now, p->arena, &plan) != AT_OK) {
        p->exhausted = true;
        return NULL;
    }
    const struct at_instance *seen =
        plan.n_placeable == 1 ? at_queue_narrow(&plan.verdicts[0], p->arena) : NULL;
    return seen;
}

/* The instance as if it were new: asked where it could go while the old one stays. */
static struct sched_item *copy_of(struct pass *p, const struct sched_item *item)
{
    struct at_instance *copy = at_arena_alloc(p->arena, sizeof(*copy));
    const char *name = at_arena_printf(p->arena, "%s~moved", item->instance->meta.name);
    if (copy == NULL || name == NULL) {
        p->exhausted = true;
        return NULL;
    }
    *copy = *item->instance;
    copy->meta.name = name;
    copy->spec.node_name = NULL;
    copy->status.scheduled_at_wall_ns = 0;
    copy->status.gpus.n = 0;
    size_t kept;
    const struct at_reservation *example;
    const struct at_instance *seen = with_quota(p, copy);
    if (seen == NULL) {
        return NULL;
    }
    seen = at_reserve_narrow(p->reserve, seen, &kept, &example);
    p->exhausted = p->exhausted || seen == NULL;
    return seen != NULL ? sched_item_of(p->s, seen) : NULL;
}

struct choice {
    struct sched_node *to;
    struct gain gain;
};

static bool best_among(struct pass *p, struct sched_item *item, struct sched_item *copy,
                       bool to_used_only, bool may_crowd, struct choice *ret)
{
    struct choice best = {0};
    for (size_t k = 0; k < p->s->n_nodes; k++) {
        struct sched_node *n = p->s->by_rank[k];
        if (n == item->node || (to_used_only && *count_on(p, n) == 0) ||
            (!may_crowd && crowds(item, n)) ||
            sched_turn_refusal(p->s, &p->s->turn, n) != AT_SCHED_RULE_COUNT) {
            continue;
        }
        struct gain g = gain_of(p, item, copy, n);
        if (best.to == NULL || g.sum - g.cost > best.gain.sum - best.gain.cost) {
            best = (struct choice){n, g};
        }
    }
    *ret = best;
    return best.to != NULL;
}

static bool best_target(struct pass *p, struct sched_item *item, struct sched_item *copy,
                        bool to_used_only, struct choice *ret)
{
    if (sched_turn_begin(p->s, copy) != AT_OK) {
        p->exhausted = true;
        return false;
    }
    return best_among(p, item, copy, to_used_only, false, ret) ||
           (breaks_rule(p, item) && /* then anywhere is better */
            best_among(p, item, copy, to_used_only, true, ret));
}

static void carry_out(struct pass *p, struct sched_item *item, struct sched_item *copy,
                      const struct choice *c)
{
    *count_on(p, item->node) -= 1;
    *count_on(p, c->to) += 1;
    sched_item_release(p->s, item);
    sched_item_take(p->s, copy, c->to, c->gain.gpus, c->gain.n_gpus);
    sched_pending_set(p->s, copy, false);
}

static void record(struct pass *p, const struct sched_item *item, const struct sched_node *from,
                   const struct choice *c, const struct gain *shown)
{
    struct at_reschedule_move *m = &p->plan.moves[p->plan.n++];
    int reason = 0;
    for (int k = 1; k < AT_RESCHEDULE_REASON_COUNT; k++) {
        reason = shown->parts[k] > shown->parts[reason] ? k : reason;
    }
    char gain[AT_UNITS_TEXT_BYTES_MAX];
    char cost[AT_UNITS_TEXT_BYTES_MAX];
    *m = (struct at_reschedule_move){.instance = item->instance,
                                     .from = from->node,
                                     .to = c->to->node,
                                     .reason = (enum at_reschedule_reason)reason,
                                     .gain_microusd = shown->sum,
                                     .cost_microusd = c->gain.cost};
    m->message = at_arena_printf(p->arena, "from %s to %s: %s; gains %s, costs %s",
                                 from->node->meta.name, c->to->node->meta.name, WHY[reason],
                                 at_money_format(shown->sum / 1000 * 1000, gain),
                                 at_money_format(c->gain.cost / 1000 * 1000, cost));
    p->exhausted = p->exhausted || m->message == NULL;
    (void)at_map_put(p->owners_used, owner_key(item->instance), p);
}

/* --- single moves --- */

struct candidate {
    struct sched_item *item, *copy;
    int64_t hope; /* at most so much to be gained */
    bool done;
};

static int by_hope(const void *a, const void *b)
{
    const struct candidate *x = a;
    const struct candidate *y = b;
    if (x->hope != y->hope) {
        return x->hope > y->hope ? -1 : 1;
    }
    return strcmp(x->item->key, y->item->key);
}

static int64_t hope_of(const struct pass *p, const struct sched_item *item)
{
    int64_t hope = cost_there(p, item, item->node);
    int64_t least = hope;
    for (size_t k = 0; k < p->s->n_sites; k++) { /* if it cost what it costs at the cheapest site */
        const struct at_site *site = p->s->sites[k]->site;
        const struct sched_demand *d = &item->request->demand;
        int64_t there = over(p, sched_hourly_price(site, d) + carbon_hour(p, site, d));
        least = site != NULL && there < least ? there : least;
    }
    hope -= least;
    hope += breaks_rule(p, item) || is_skewed(item, NULL) ? p->policy->violation_microusd : 0;
    for (size_t k = 0; k < item->n_gpus; k++) {
        hope +=
            item->gpus[k].milli < AT_SCHED_GPU_MILLI ? over(p, gpu_piece_hour(p, item->node)) : 0;
    }
    return hope +
           (*count_on(p, item->node) == 1 ? over(p, p->policy->empty_node_hour_microusd) : 0);
}

static size_t find_candidates(struct pass *p, struct candidate **ret)
{
    size_t n = 0;
    struct candidate *list = at_arena_alloc(p->arena, (p->snap->n_instances + 1) * sizeof(*list));
    for (size_t k = 0; list != NULL && k < p->snap->n_instances; k++) {
        const struct at_instance *i = p->snap->instances[k];
        struct sched_item *item = sched_item_find(p->s, i->meta.ns, i->meta.name);
        if (item != NULL && item->node != NULL &&
            item->request->demand.gpu_count <= AT_PACK_GPUS_MAX &&
            obstacle(p->snap, p->policy, i, p->now) == NULL) {
            list[n++] = (struct candidate){.item = item, .hope = hope_of(p, item)};
        }
    }
    p->exhausted = p->exhausted || list == NULL;
    if (n > 0) {
        qsort(list, n, sizeof(*list), by_hope);
    }
    for (size_t k = 0; k < n; k++) {
        (void)at_map_put(p->by_key, list[k].item->key, &list[k]);
    }
    *ret = list;
    return n;
}

static bool room_left(const struct pass *p)
{
    return p->plan.n < p->max && !p->exhausted;
}

static bool try_single(struct pass *p, struct candidate *c)
{
    struct choice choice;
    c->copy = c->copy != NULL ? c->copy : copy_of(p, c->item);
    const struct sched_node *from = c->item->node;
    if (c->copy == NULL || !best_target(p, c->item, c->copy, false, &choice) ||
        choice.gain.sum - choice.gain.cost < p->policy->min_gain_microusd) {
        return false;
    }
    record(p, c->item, from, &choice, &choice.gain);
    carry_out(p, c->item, c->copy, &choice);
    c->done = true;
    return true;
}

static bool single_moves(struct pass *p, struct candidate *list, size_t n)
{
    bool any = false;
    size_t end = n < AT_RESCHEDULE_CANDIDATES_MAX ? n : AT_RESCHEDULE_CANDIDATES_MAX;
    for (size_t k = 0; k < end && room_left(p); k++) {
        struct candidate *c = &list[k];
        if (!c->done && c->hope > p->policy->min_gain_microusd &&
            at_map_get(p->owners_used, owner_key(c->item->instance)) == NULL) {
            any = try_single(p, c) || any;
        }
    }
    return any;
}

/* --- emptying nodes: many moves that pay only together --- */

struct emptied {
    struct candidate *c[AT_RESCHEDULE_EMPTY_MAX];
    struct choice choice[AT_RESCHEDULE_EMPTY_MAX];
    struct at_sched_gpu gpus[AT_RESCHEDULE_EMPTY_MAX][AT_PACK_GPUS_MAX]; /* held before */
    size_t n_gpus[AT_RESCHEDULE_EMPTY_MAX];
    size_t n, done;
};

static bool collect(const struct pass *p, const struct sched_node *node, struct emptied *e)
{
    *e = (struct emptied){0};
    for (const struct sched_item *i = node->first; i != NULL; i = i->next) {
        struct candidate *found = at_map_get(p->by_key, i->key);
        if (found == NULL || found->done || e->n == AT_RESCHEDULE_EMPTY_MAX ||
            at_map_get(p->owners_used, owner_key(found->item->instance)) != NULL) {
            return false;
        }
        for (size_t k = 0; k < e->n; k++) { /* one of an owner at a time */
            if (at_streq(owner_key(e->c[k]->item->instance), owner_key(found->item->instance))) {
                return false;
            }
        }
        e->c[e->n++] = found;
    }
    return e->n > 0;
}

static void undo(struct pass *p, struct sched_node *node, struct emptied *e)
{
    while (e->done > 0) {
        size_t k = --e->done;
        struct sched_item *item = e->c[k]->item;
        *count_on(p, e->choice[k].to) -= 1;
        *count_on(p, node) += 1;
        sched_item_release(p->s, e->c[k]->copy);
        sched_item_take(p->s, item, node, e->gpus[k], e->n_gpus[k]);
    }
}

static bool try_empty(struct pass *p, struct sched_node *node, struct emptied *e)
{
    int64_t net = 0;
    for (size_t k = 0; k < e->n; k++) {
        struct candidate *c = e->c[k];
        c->copy = c->copy != NULL ? c->copy : copy_of(p, c->item);
        if (c->copy == NULL || !best_target(p, c->item, c->copy, true, &e->choice[k])) {
            undo(p, node, e);
            return false;
        }
        net += e->choice[k].gain.sum - e->choice[k].gain.cost;
        e->n_gpus[k] = c->item->n_gpus;
        if (c->item->n_gpus > 0) {
            memcpy(e->gpus[k], c->item->gpus, c->item->n_gpus * sizeof(e->gpus[k][0]));
        }
        carry_out(p, c->item, c->copy, &e->choice[k]);
        e->done++;
    }
    if (net < p->policy->min_gain_microusd) {
        undo(p, node, e);
        return false;
    }
    int64_t worth = over(p, p->policy->empty_node_hour_microusd);
    for (size_t k = 0; k < e->n; k++) { /* each has its part in what they gain together */
        struct gain shown = e->choice[k].gain;
        int64_t had = k + 1 == e->n ? worth : 0;
        shown.parts[AT_RESCHEDULE_EMPTY] += worth / (int64_t)e->n - had;
        shown.sum += worth / (int64_t)e->n - had;
        e->c[k]->done = true;
        record(p, e->c[k]->item, node, &e->choice[k], &shown);
    }
    return true;
}

static void empty_nodes(struct pass *p)
{
    for (int64_t size = 1; size <= AT_RESCHEDULE_EMPTY_MAX; size++) {
        for (size_t k = 0; k < p->s->n_nodes && room_left(p); k++) {
            struct sched_node *node = p->s->by_rank[k];
            struct emptied e;
            if (*count_on(p, node) == size && p->plan.n + (size_t)size <= p->max &&
                collect(p, node, &e)) {
                (void)try_empty(p, node, &e);
            }
        }
    }
}

/* --- the pass --- */

static bool load(struct pass *p)
{
    int64_t *counts = at_arena_alloc(p->arena, (p->s->n_nodes + 1) * sizeof(*counts));
    for (size_t k = 0; counts != NULL && k < p->s->n_nodes; k++) {
        const struct sched_node *n = p->s->nodes[k];
        for (const struct sched_item *i = n->first; i != NULL; i = i->next) {
            counts[k] += i->instance != NULL;
        }
        (void)at_map_put(p->on_node, n->node->meta.name, &counts[k]);
    }
    p->plan.moves = at_arena_alloc(p->arena, (p->max + 1) * sizeof(*p->plan.moves));
    p->reserve = at_reserve_new(p->snap, p->now, p->arena);
    return counts != NULL && p->plan.moves != NULL && p->reserve != NULL;
}

static void improve(struct pass *p)
{
    struct candidate *list;
    size_t n = find_candidates(p, &list);
    p->plan.considered = n;
    p->plan.before_microusd = objective(p);
    for (int round = 0; round < ROUNDS && room_left(p) && single_moves(p, list, n); round++) {
        continue;
    }
    empty_nodes(p);
    p->plan.after_microusd = objective(p);
}

enum at_rc at_reschedule(const struct at_snapshot *snap, const struct at_rescheduling *policy,
                         size_t max, int64_t now, struct at_arena *arena,
                         struct at_reschedule_plan *ret_plan)
{
    struct at_scheduler *sched = at_scheduler_new();
    size_t per_pass = policy->max_moves_per_pass > 0 ? (size_t)policy->max_moves_per_pass : 0;
    struct pass p = {.s = &sched->s,
                     .snap = snap,
                     .policy = policy,
                     .arena = arena,
                     .now = now,
                     .on_node = at_map_new(),
                     .owners_used = at_map_new(),
                     .by_key = at_map_new(),
                     .max = max < per_pass ? max : per_pass};
    p.book = snap->n_queues > 0 ? at_queue_book_new(snap) : NULL;
    at_scheduler_update(sched, snap);
    sched->s.arena = arena;
    if (load(&p)) {
        improve(&p);
    } else {
        p.exhausted = true;
    }
    at_reserve_done(p.reserve);
    at_queue_book_free(p.book);
    at_map_free(p.on_node);
    at_map_free(p.owners_used);
    at_map_free(p.by_key);
    at_scheduler_free(sched);
    if (!p.exhausted) {
        *ret_plan = p.plan;
    }
    return p.exhausted ? AT_NOMEM : AT_OK;
}
