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

static enum at_rc decide(struct sched *s, struct sched_item *item, struct at_sched_decision *d)
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

/* --- the plan --- */

/* Has anything changed that it waits for? */
static bool is_worth_a_try(struct sched *s, struct sched_item *item)
{
    sched_request_refresh(s, item->request);
    if (item->tried != item->request->version + 1) {
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

static void note_try(struct sched *s, struct sched_item *item)
{
    item->tried = item->request->version + 1;
    item->tried_holders = s->holders;
    item->tried_epoch = s->epoch;
    item->tried_near = sched_near_stamp(s, item->instance, item->group);
    item->waits_for_others = false;
    for (size_t i = 0; i < s->n_sites;
         i++) { /* there is room, but not beside those who are there */
        item->waits_for_others |= item->request->sites[i].fits > 0;
    }
}

static enum at_rc decide_all(struct sched *s, struct sched_item **turns, size_t n,
                             struct at_sched_plan *ret_plan)
{
    struct at_sched_plan made = {.n = n};
    made.decisions = at_arena_alloc(s->arena, sizeof(*made.decisions) * (n + 1));
    if (made.decisions == NULL) {
        return AT_NOMEM;
    }
    s->last_pending = NULL;
    for (size_t i = 0; i < n; i++) {
        enum at_rc rc = decide(s, turns[i], &made.decisions[i]);
        if (rc != AT_OK) {
            return rc;
        }
        if (made.decisions[i].node == NULL) {
            note_try(s, turns[i]);
        }
    }
    *ret_plan = made;
    return AT_OK;
}

/* In turns, those that something new could help. */
static enum at_rc plan(struct sched *s, struct sched_item **turns, size_t n, size_t max,
                       struct at_sched_plan *ret_plan)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (is_worth_a_try(s, turns[i])) {
            turns[kept++] = turns[i];
        }
    }
    if (kept > 0) {
        qsort(turns, kept, sizeof(*turns), by_turn);
    }
    return decide_all(s, turns, kept < max ? kept : max, ret_plan);
}

enum at_rc at_scheduler_plan(struct at_scheduler *sched, size_t max, int64_t now_wall_ns,
                             struct at_arena *arena, struct at_sched_plan *ret_plan)
{
    struct sched *s = &sched->s;
    (void)now_wall_ns; /* no rule depends on the time yet */
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
    (void)now_wall_ns;
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
            if (!sched_request_is(item->request, these[i])) {
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
    (void)now_wall_ns;
    struct at_scheduler *sched = at_scheduler_new();
    struct sched *s = &sched->s;
    at_scheduler_update(sched, snap);
    s->arena = arena;
    struct sched_item **turns = at_arena_alloc(arena, sizeof(*turns) * (n + 1));
    enum at_rc rc = turns != NULL ? AT_OK : AT_NOMEM;
    for (size_t i = 0; i < n && rc == AT_OK; i++) {
        turns[i] = sched_item_of(s, pending[i]);
    }
    if (rc == AT_OK && n > 0) {
        qsort(turns, n, sizeof(*turns), by_turn);
    }
    rc = rc == AT_OK ? decide_all(s, turns, n, ret_plan) : rc;
    at_scheduler_free(sched);
    return rc;
}
