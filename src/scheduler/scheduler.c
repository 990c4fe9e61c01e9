/* The plan: for each pending instance in turn, filter, score, choose, take. */
#include "scheduler/engine.h"
#include "scheduler/near.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static const char *const RULE_NAMES[AT_SCHED_RULE_COUNT] = {
    [AT_SCHED_NODE_NOT_READY] = "NodeNotReady",
    [AT_SCHED_CORDONED] = "Cordoned",
    [AT_SCHED_TAINT] = "Taint",
    [AT_SCHED_SELECTOR] = "NodeSelector",
    [AT_SCHED_NODE_AFFINITY] = "NodeAffinity",
    [AT_SCHED_RESERVED] = "Reserved",
    [AT_SCHED_SITE] = "Site",
    [AT_SCHED_SITE_CLASS] = "SiteClass",
    [AT_SCHED_JURISDICTION] = "Jurisdiction",
    [AT_SCHED_REGION] = "Region",
    [AT_SCHED_PROVIDER] = "Provider",
    [AT_SCHED_POLICY] = "Policy",
    [AT_SCHED_RESIDENCY] = "Residency",
    [AT_SCHED_DRIVER] = "DriverNotReady",
    [AT_SCHED_CPU] = "NotEnoughCPU",
    [AT_SCHED_MEMORY] = "NotEnoughMemory",
    [AT_SCHED_DISK] = "NotEnoughDisk",
    [AT_SCHED_GPU] = "NotEnoughGPU",
    [AT_SCHED_GPU_MEMORY] = "NotEnoughGPUMemory",
    [AT_SCHED_GPU_MODEL] = "GPUModel",
    [AT_SCHED_GPU_SHARING] = "GPUSharing",
    [AT_SCHED_TOPOLOGY] = "GPUTopology",
    [AT_SCHED_EXTENDED] = "NotEnoughExtended",
    [AT_SCHED_SPREAD] = "MaxSkew",
    [AT_SCHED_SPREAD_RULE] = "Spread",
    [AT_SCHED_AFFINITY] = "Affinity",
    [AT_SCHED_ANTI_AFFINITY] = "AntiAffinity",
    [AT_SCHED_SITE_LIMIT] = "SiteLimit",
    [AT_SCHED_GANG] = "GangDoesNotFit",
};
static const char *const OBJECTIVE_NAMES[AT_SCHED_OBJ_COUNT] = {
    [AT_SCHED_OBJ_SPREAD] = "spread",         [AT_SCHED_OBJ_FIT] = "fit",
    [AT_SCHED_OBJ_PRICE] = "price",           [AT_SCHED_OBJ_CARBON] = "carbon",
    [AT_SCHED_OBJ_LATENCY] = "latency",       [AT_SCHED_OBJ_FRAGMENTATION] = "fragmentation",
    [AT_SCHED_OBJ_BALANCE] = "balance",       [AT_SCHED_OBJ_DATA] = "data",
    [AT_SCHED_OBJ_PREFERENCE] = "preference", [AT_SCHED_OBJ_AFFINITY] = "affinity",
};

const char *at_sched_rule_name(enum at_sched_rule rule)
{
    assert(rule < AT_SCHED_RULE_COUNT);
    return RULE_NAMES[rule];
}

const char *at_sched_objective_name(enum at_sched_objective objective)
{
    assert(objective < AT_SCHED_OBJ_COUNT);
    return OBJECTIVE_NAMES[objective];
}

static const char *or_empty(const char *s)
{
    return s != NULL ? s : "";
}

static int by_turn(const void *a, const void *b)
{
    const struct at_instance *x = (*(struct sched_item *const *)a)->instance;
    const struct at_instance *y = (*(struct sched_item *const *)b)->instance;
    if (x->spec.priority != y->spec.priority) {
        return x->spec.priority > y->spec.priority ? -1 : 1;
    }
    if (x->meta.creation_wall_ns != y->meta.creation_wall_ns) {
        return x->meta.creation_wall_ns < y->meta.creation_wall_ns ? -1 : 1;
    }
    int c = strcmp(or_empty(x->meta.ns), or_empty(y->meta.ns));
    return c != 0 ? c : strcmp(x->meta.name, y->meta.name);
}

/* --- one decision --- */

static enum at_rc take_choice(struct sched *s, struct sched_item *item, struct at_sched_decision *d)
{
    struct at_sched_gpu gpus[AT_SCHED_GPUS_PER_NODE];
    size_t n = (size_t)item->request->demand.gpu_count;
    struct sched_node *node = sched_node_find(s, d->node->meta.name);
    sched_gpus_pick(s, node, item->request, gpus);
    struct at_sched_gpu *shown = at_arena_alloc(s->arena, sizeof(*shown) * (n + 1));
    if (shown == NULL) {
        return AT_NOMEM;
    }
    memcpy(shown, gpus, sizeof(*shown) * n);
    d->gpus = shown;
    d->n_gpus = n;
    sched_item_take(s, item, node, gpus, n);
    item->planned = true;
    sched_pending_set(s, item, false);
    return AT_OK;
}

enum at_rc sched_decide_alone(struct sched *s, struct sched_item *item, struct at_sched_decision *d)
{
    *d = (struct at_sched_decision){.instance = item->instance};
    enum at_rc rc = sched_turn_begin(s, item);
    if (rc == AT_OK) {
        sched_turn_choose(s, &s->turn, d);
        rc = sched_explain(s, &s->turn, d);
    }
    if (rc == AT_OK && d->node != NULL) {
        rc = take_choice(s, item, d);
    }
    return rc;
}

/* What is said while room is being made. */
static enum at_rc say_nominated(struct sched *s, struct at_sched_decision *d)
{
    d->waits_for |= AT_SCHED_CHANGE_ROOM;
    if (d->n_victims == 0) { /* they were told to go before */
        d->message = at_arena_printf(s->arena, "waits for room on %s, which is being made; %s",
                                     d->nominated->meta.name, d->message);
    } else {
        d->message = at_arena_printf(
            s->arena, "waits for room on %s, where %zu instance%s of lower priority %s now; %s",
            d->nominated->meta.name, d->n_victims, d->n_victims == 1 ? "" : "s",
            d->n_victims == 1 ? "ends" : "end", d->message);
    }
    return d->message != NULL ? AT_OK : AT_NOMEM;
}

/* With the room that is held for it, and if need be, that others can be made to give up. */
static enum at_rc decide(struct sched *s, struct sched_item *item, struct at_sched_decision *d)
{
    struct sched_node *was_held = item->held != NULL ? item->held->node : NULL;
    sched_unhold(s, item);
    enum at_rc rc = sched_decide_alone(s, item, d);
    if (rc != AT_OK || d->node != NULL) {
        return rc;
    }
    if (was_held != NULL && sched_still_leaving(s, item, was_held)) {
        sched_hold(s, item, was_held);
        d->nominated = was_held->node;
    } else {
        rc = sched_preempt(s, item, s->now_wall_ns, d);
    }
    return rc == AT_OK && d->nominated != NULL ? say_nominated(s, d) : rc;
}

/* --- the plan --- */

static void note_try(struct sched *s, struct sched_item *item)
{
    item->tried = item->request->version + 1;
    item->tried_holders = s->holders;
    item->tried_epoch = s->epoch;
    item->tried_budgets = s->budgets;
    item->tried_near = sched_near_stamp(s, item->instance, item->group);
    item->waits_for_others = item->waits_for_mates;
    for (size_t i = 0; i < s->n_sites && item->request->scored; i++) {
        item->waits_for_others |= item->request->sites[i].fits > 0; /* room, but not the place */
    }
}

/* Has anything changed that it waits for? */
static bool is_worth_alone(struct sched *s, struct sched_item *item)
{
    if (item->tried == 0) {
        return true;
    }
    sched_request_refresh(s, item->request);
    bool preempts = !at_streq(item->instance->spec.preemption_policy, "Never") &&
                    item->instance->spec.priority > s->lowest_priority;
    if (item->tried != item->request->version + 1 ||
        (preempts && item->tried_budgets != s->budgets) ||
        (item->held != NULL && item->tried_holders != s->holders) ||
        (item->gang != NULL && item->held == NULL && sched_gang_is_old(item, s->now_wall_ns))) {
        return true;
    }
    if (!item->waits_for_others ||
        (item->tried_holders == s->holders && item->tried_epoch == s->epoch)) {
        return false;
    }
    item->tried_holders = s->holders; /* others came or went: those that it waits for? */
    item->tried_epoch = s->epoch;
    return item->tried_near != sched_near_stamp(s, item->instance, item->group);
}

/* A gang is tried as a whole, when that is worth it for any member. */
static bool is_worth_a_try(struct sched *s, struct sched_item *item)
{
    struct sched_gang *gang = item->gang;
    if (gang == NULL) {
        return is_worth_alone(s, item);
    }
    if (gang->plan != s->plan_number) {
        gang->plan = s->plan_number;
        gang->worth = sched_gang_placed(gang) > 0;
        for (size_t i = 0; i < gang->n && !gang->worth; i++) {
            gang->worth = gang->items[i]->pending && is_worth_alone(s, gang->items[i]);
        }
    }
    return gang->worth;
}

/* The members of the item's gang that are in the plan, it first. */
static size_t members_of(struct sched *s, struct sched_item *item, struct sched_item **out)
{
    size_t n = 0;
    out[n++] = item;
    for (size_t i = 0; i < item->gang->n; i++) {
        struct sched_item *mate = item->gang->items[i];
        if (mate != item && mate->pending && mate->plan == s->plan_number) {
            out[n++] = mate;
        }
    }
    return n;
}

static enum at_rc decide_all(struct sched *s, struct sched_item **turns, size_t n, size_t max,
                             struct at_sched_plan *ret_plan)
{
    struct at_sched_plan made = {0};
    struct sched_item **members = at_arena_alloc(s->arena, sizeof(struct sched_item *) * (n + 1));
    made.decisions = at_arena_alloc(s->arena, sizeof(*made.decisions) * (n + 1));
    if (made.decisions == NULL || members == NULL) {
        return AT_NOMEM;
    }
    s->last_pending = NULL;
    s->n_released = 0;
    for (size_t i = 0; i < n && made.n < max; i++) {
        if (turns[i]->plan != s->plan_number) {
            continue; /* with its gang, already */
        }
        size_t count = 1;
        struct at_sched_decision *d = &made.decisions[made.n];
        members[0] = turns[i];
        enum at_rc rc;
        if (turns[i]->gang != NULL) {
            count = members_of(s, turns[i], members);
            rc = sched_gang_decide(s, members, count, s->now_wall_ns, d);
        } else {
            rc = decide(s, turns[i], d);
        }
        if (rc != AT_OK) {
            return rc;
        }
        for (size_t k = 0; k < count; k++) {
            members[k]->plan = 0;
            if (d[k].node == NULL) {
                note_try(s, members[k]);
            }
        }
        made.n += count;
    }
    made.released = s->released;
    made.n_released = s->n_released;
    *ret_plan = made;
    return AT_OK;
}

/* In turns, those that something new could help. */
static enum at_rc plan(struct sched *s, struct sched_item **turns, size_t n, size_t max,
                       struct at_sched_plan *ret_plan)
{
    size_t kept = 0;
    s->plan_number++;
    for (size_t i = 0; i < n; i++) {
        turns[i]->plan = s->plan_number;
    }
    for (size_t i = 0; i < n; i++) {
        if (is_worth_a_try(s, turns[i])) {
            turns[kept++] = turns[i];
        }
    }
    if (kept > 0) {
        qsort(turns, kept, sizeof(*turns), by_turn);
    }
    return decide_all(s, turns, kept, max, ret_plan);
}

enum at_rc at_scheduler_plan(struct at_scheduler *sched, size_t max, int64_t now_wall_ns,
                             struct at_arena *arena, struct at_sched_plan *ret_plan)
{
    struct sched *s = &sched->s;
    s->now_wall_ns = now_wall_ns;
    s->arena = arena;
    struct sched_item **turns = at_arena_alloc(arena, sizeof(*turns) * (s->n_pending + 1));
    if (turns == NULL) {
        return AT_NOMEM;
    }
    for (size_t i = 0; i < s->n_pending; i++) {
        turns[i] = s->pending[i];
    }
    return plan(s, turns, s->n_pending, max, ret_plan);
}

enum at_rc at_scheduler_plan_these(struct at_scheduler *sched,
                                   const struct at_instance *const *these, size_t n, size_t max,
                                   int64_t now_wall_ns, struct at_arena *arena,
                                   struct at_sched_plan *ret_plan)
{
    struct sched *s = &sched->s;
    s->now_wall_ns = now_wall_ns;
    s->arena = arena;
    struct sched_item **turns = at_arena_alloc(arena, sizeof(*turns) * (n + 1));
    struct sched_item **all = at_arena_alloc(arena, sizeof(*all) * (n + 1));
    if (turns == NULL || all == NULL) {
        return AT_NOMEM;
    }
    size_t found = 0;
    for (size_t i = 0; i < n; i++) {
        struct sched_item *item = sched_item_find(s, these[i]->meta.ns, these[i]->meta.name);
        if (item != NULL && item->pending) {
            item->asked = these[i] != item->instance ? these[i] : NULL;
            if (!sched_request_is(s, item->request, these[i])) {
                sched_item_ask(s, item, these[i]);
                item->tried = 0;
            }
            all[found] = turns[found] = item;
            found++;
        }
    }
    enum at_rc rc = plan(s, turns, found, max, ret_plan);
    for (size_t i = 0; i < found; i++) {
        all[i]->asked = NULL;
    }
    return rc;
}

static int by_key(const void *a, const void *b)
{
    const struct at_meta *x = &(*(const struct at_instance *const *)a)->meta;
    const struct at_meta *y = &(*(const struct at_instance *const *)b)->meta;
    int c = strcmp(or_empty(x->ns), or_empty(y->ns));
    return c != 0 ? c : strcmp(x->name, y->name);
}

enum at_rc at_scheduler_waiting(const struct at_scheduler *sched, struct at_arena *arena,
                                const struct at_instance ***ret, size_t *ret_n)
{
    const struct sched *s = &sched->s;
    const struct at_instance **list = at_arena_alloc(arena, sizeof(*list) * (s->n_pending + 1));
    if (list == NULL) {
        return AT_NOMEM;
    }
    for (size_t i = 0; i < s->n_pending; i++) {
        list[i] = s->pending[i]->instance;
    }
    if (s->n_pending > 0) {
        qsort(list, s->n_pending, sizeof(*list), by_key);
    }
    *ret = list;
    *ret_n = s->n_pending;
    return AT_OK;
}

enum at_rc at_schedule(const struct at_snapshot *snap, const struct at_instance *const *pending,
                       size_t n, int64_t now_wall_ns, struct at_arena *arena,
                       struct at_sched_plan *ret_plan)
{
    struct at_scheduler *sched = at_scheduler_new();
    struct sched *s = &sched->s;
    at_scheduler_update(sched, snap);
    s->now_wall_ns = now_wall_ns;
    s->plan_number = 1;
    s->arena = arena;
    struct sched_item **turns = at_arena_alloc(arena, sizeof(*turns) * (n + 1));
    enum at_rc rc = turns != NULL ? AT_OK : AT_NOMEM;
    for (size_t i = 0; i < n && rc == AT_OK; i++) {
        turns[i] = sched_item_of(s, pending[i]);
        turns[i]->plan = s->plan_number;
    }
    if (rc == AT_OK && n > 0) {
        qsort(turns, n, sizeof(*turns), by_turn);
    }
    rc = rc == AT_OK ? decide_all(s, turns, n, n, ret_plan) : rc;
    at_scheduler_free(sched);
    return rc;
}
