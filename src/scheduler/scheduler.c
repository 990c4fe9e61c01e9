/* The plan: for each pending instance in turn, filter, score, choose, take. */
#include "scheduler/engine.h"

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
    return item->tried != item->request->version + 1 ||
           (item->waits_for_others && item->tried_holders != s->holders);
}

static void note_try(struct sched *s, struct sched_item *item)
{
    item->tried = item->request->version + 1;
    item->tried_holders = s->holders;
    item->waits_for_others = false;
    for (size_t i = 0; i < s->n_sites;
         i++) { /* there is room, but not beside those who are there */
        item->waits_for_others |= item->request->sites[i].fits > 0;
    }
}

static enum at_rc plan(struct sched *s, size_t max, struct at_sched_plan *ret_plan)
{
    size_t n = 0;
    struct sched_item **turns = at_arena_alloc(s->arena, sizeof(*turns) * (s->n_pending + 1));
    if (turns == NULL) {
        return AT_NOMEM;
    }
    for (size_t i = 0; i < s->n_pending; i++) {
        if (is_worth_a_try(s, s->pending[i])) {
            turns[n++] = s->pending[i];
        }
    }
    if (n > 0) {
        qsort(turns, n, sizeof(*turns), by_turn);
    }
    n = n < max ? n : max;
    struct at_sched_plan made = {.n = n};
    made.decisions = at_arena_alloc(s->arena, sizeof(*made.decisions) * (n + 1));
    if (made.decisions == NULL) {
        return AT_NOMEM;
    }
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

enum at_rc at_scheduler_plan(struct at_scheduler *sched, size_t max, int64_t now_wall_ns,
                             struct at_arena *arena, struct at_sched_plan *ret_plan)
{
    (void)now_wall_ns; /* no rule depends on the time yet */
    sched->s.arena = arena;
    sched->s.last_pending = NULL;
    return plan(&sched->s, max, ret_plan);
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
    struct at_sched_plan made = {.n = n};
    made.decisions = at_arena_alloc(arena, sizeof(*made.decisions) * (n + 1));
    enum at_rc rc = turns != NULL && made.decisions != NULL ? AT_OK : AT_NOMEM;
    for (size_t i = 0; i < n && rc == AT_OK; i++) {
        turns[i] = sched_item_of(s, pending[i]);
    }
    if (rc == AT_OK && n > 0) {
        qsort(turns, n, sizeof(*turns), by_turn);
    }
    for (size_t i = 0; i < n && rc == AT_OK; i++) {
        rc = decide(s, turns[i], &made.decisions[i]);
    }
    if (rc == AT_OK) {
        *ret_plan = made;
    }
    at_scheduler_free(sched);
    return rc;
}
