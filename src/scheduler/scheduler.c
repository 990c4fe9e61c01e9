/* The plan: for each pending instance in turn, filter, score, choose, take. */
#include "scheduler/scheduler_priv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static const char *const RULE_NAMES[AT_SCHED_RULE_COUNT] = {
    [AT_SCHED_NODE_NOT_READY] = "NodeNotReady",
    [AT_SCHED_CORDONED] = "Cordoned",
    [AT_SCHED_TAINT] = "Taint",
    [AT_SCHED_SELECTOR] = "NodeSelector",
    [AT_SCHED_SITE] = "Site",
    [AT_SCHED_SITE_CLASS] = "SiteClass",
    [AT_SCHED_JURISDICTION] = "Jurisdiction",
    [AT_SCHED_RESIDENCY] = "Residency",
    [AT_SCHED_DRIVER] = "DriverNotReady",
    [AT_SCHED_CPU] = "NotEnoughCPU",
    [AT_SCHED_MEMORY] = "NotEnoughMemory",
    [AT_SCHED_DISK] = "NotEnoughDisk",
    [AT_SCHED_GPU] = "NotEnoughGPU",
    [AT_SCHED_GPU_MEMORY] = "NotEnoughGPUMemory",
    [AT_SCHED_GPU_MODEL] = "GPUModel",
    [AT_SCHED_SPREAD] = "MaxSkew",
};
static const char *const OBJECTIVE_NAMES[AT_SCHED_OBJ_COUNT] = {
    [AT_SCHED_OBJ_SPREAD] = "spread",   [AT_SCHED_OBJ_FIT] = "fit",
    [AT_SCHED_OBJ_PRICE] = "price",     [AT_SCHED_OBJ_CARBON] = "carbon",
    [AT_SCHED_OBJ_LATENCY] = "latency", [AT_SCHED_OBJ_FRAGMENTATION] = "fragmentation",
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

static int by_node_name(const void *a, const void *b)
{
    return strcmp((*(const struct at_node *const *)a)->meta.name,
                  (*(const struct at_node *const *)b)->meta.name);
}

static int by_turn(const void *a, const void *b)
{
    const struct at_instance *x = *(const struct at_instance *const *)a;
    const struct at_instance *y = *(const struct at_instance *const *)b;
    if (x->spec.priority != y->spec.priority) {
        return x->spec.priority > y->spec.priority ? -1 : 1;
    }
    if (x->meta.creation_wall_ns != y->meta.creation_wall_ns) {
        return x->meta.creation_wall_ns < y->meta.creation_wall_ns ? -1 : 1;
    }
    int c = strcmp(or_empty(x->meta.ns), or_empty(y->meta.ns));
    return c != 0 ? c : strcmp(x->meta.name, y->meta.name);
}

static struct sched_site *site_add(struct sched *s, const char *name)
{
    struct sched_site *place = at_map_get(s->site_by_name, name);
    if (place == NULL) {
        place = at_arena_alloc(s->arena, sizeof(*place));
        if (place != NULL) {
            place->index = s->n_sites++;
            (void)at_map_put(s->site_by_name, name, place);
        }
    }
    return place;
}

static enum at_rc load_sites(struct sched *s)
{
    for (size_t i = 0; i < s->snap->n_sites; i++) {
        struct sched_site *place = site_add(s, s->snap->sites[i]->meta.name);
        if (place == NULL) {
            return AT_NOMEM;
        }
        place->site = s->snap->sites[i];
    }
    return AT_OK;
}

static enum at_rc load_nodes(struct sched *s)
{
    size_t n = s->snap->n_nodes;
    const struct at_node **sorted = at_arena_alloc(s->arena, sizeof(*sorted) * (n + 1));
    s->nodes = at_arena_alloc(s->arena, sizeof(*s->nodes) * (n + 1));
    s->eligible = at_arena_alloc(s->arena, sizeof(*s->eligible) * (n + 1));
    if (sorted == NULL || s->nodes == NULL || s->eligible == NULL) {
        return AT_NOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        sorted[i] = s->snap->nodes[i];
    }
    qsort(sorted, n, sizeof(*sorted), by_node_name);
    s->n_nodes = n;
    for (size_t i = 0; i < n; i++) {
        struct sched_site *place = site_add(s, or_empty(sorted[i]->spec.site));
        if (place == NULL || sched_node_init(&s->nodes[i], sorted[i], s->arena) != AT_OK) {
            return AT_NOMEM;
        }
        s->nodes[i].site = place->site;
        s->nodes[i].site_index = place->index;
        (void)at_map_put(s->node_by_name, sorted[i]->meta.name, &s->nodes[i]);
    }
    s->site_scratch = at_arena_alloc(s->arena, sizeof(*s->site_scratch) * (s->n_sites + 1));
    return s->site_scratch != NULL ? AT_OK : AT_NOMEM;
}

/* Copies are even over places per owner and template, so that a rolling update ends even too. An
 * instance without an owner is a group of its own. NULL: out of arena. */
static const char *group_name(struct sched *s, const struct at_instance *instance)
{
    const struct at_owner_ref *owner = at_meta_controller(&instance->meta);
    if (owner == NULL) {
        return at_arena_printf(s->arena, "-/%s/%s", or_empty(instance->meta.ns),
                               instance->meta.name);
    }
    const char *hash = at_model_map_get(&instance->meta.labels, "atoll.dev/template-hash");
    return at_arena_printf(s->arena, "%s/%s/%s/%s/%s", or_empty(owner->kind),
                           or_empty(instance->meta.ns), or_empty(owner->name), or_empty(owner->uid),
                           or_empty(hash));
}

static void group_count(struct sched *s, struct sched_group *group, const struct sched_node *n)
{
    group->by_node[n - s->nodes]++;
    group->by_site[n->site_index]++;
}

static enum at_rc load_groups(struct sched *s, const struct at_instance *const *pending, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const char *name = group_name(s, pending[i]);
        if (name == NULL || at_map_get(s->group_by_name, name) != NULL) {
            if (name == NULL) {
                return AT_NOMEM;
            }
            continue;
        }
        struct sched_group *group = at_arena_alloc(s->arena, sizeof(*group));
        if (group == NULL) {
            return AT_NOMEM;
        }
        group->by_node = at_arena_alloc(s->arena, sizeof(int32_t) * (s->n_nodes + 1));
        group->by_site = at_arena_alloc(s->arena, sizeof(int32_t) * (s->n_sites + 1));
        if (group->by_node == NULL || group->by_site == NULL) {
            return AT_NOMEM;
        }
        (void)at_map_put(s->group_by_name, name, group);
    }
    for (size_t i = 0; n > 0 && i < s->snap->n_instances; i++) {
        const struct at_instance *instance = s->snap->instances[i];
        if (!sched_instance_holds(instance) || instance->meta.deletion_wall_ns != 0) {
            continue;
        }
        const char *name = group_name(s, instance);
        if (name == NULL) {
            return AT_NOMEM;
        }
        struct sched_group *group = at_map_get(s->group_by_name, name);
        const struct sched_node *node = at_map_get(s->node_by_name, instance->spec.node_name);
        if (group != NULL && node != NULL) {
            group_count(s, group, node);
        }
    }
    return AT_OK;
}

/* Nodes are in name order, so that among equals the first stays. */
static bool is_better(const struct sched *s, const struct sched_group *group,
                      const struct sched_node *a, const struct sched_node *b)
{
    if (b == NULL || a->weighted != b->weighted) {
        return b == NULL || a->weighted > b->weighted;
    }
    return group->by_node[a - s->nodes] < group->by_node[b - s->nodes];
}

static enum at_rc decide(struct sched *s, struct at_sched_decision *decision)
{
    const struct at_instance *instance = decision->instance;
    struct sched_demand d = sched_demand_of(&instance->spec);
    const char *name = group_name(s, instance);
    struct sched_group *group = name != NULL ? at_map_get(s->group_by_name, name) : NULL;
    if (group == NULL) {
        return AT_NOMEM;
    }
    sched_weights(instance->spec.placement, decision->weights);
    decision->weights[AT_SCHED_OBJ_FRAGMENTATION] =
        d.gpu_count > 0 ? decision->weights[AT_SCHED_OBJ_FIT] : 0;
    sched_filter(s, instance, &d, group);
    if (sched_score_fragmentation(s, &d) != AT_OK) {
        return AT_NOMEM;
    }
    sched_score(s, instance, &d, group, decision->weights);
    struct sched_node *best = NULL;
    const struct sched_node *second = NULL;
    for (size_t i = 0; i < s->n_nodes; i++) {
        struct sched_node *n = &s->nodes[i];
        if (!n->feasible) {
            continue;
        }
        if (is_better(s, group, n, best)) {
            second = best;
            best = n;
        } else if (is_better(s, group, n, second)) {
            second = n;
        }
    }
    int64_t weight_sum = 0;
    for (int k = 0; k < AT_SCHED_OBJ_COUNT; k++) {
        weight_sum += decision->weights[k];
    }
    weight_sum = weight_sum > 0 ? weight_sum : 1;
    if (best != NULL) {
        decision->node = best->node;
        decision->score = best->weighted / weight_sum;
        memcpy(decision->parts, best->parts, sizeof(decision->parts));
    }
    if (second != NULL) {
        decision->runner_up = second->node;
        decision->runner_up_score = second->weighted / weight_sum;
        memcpy(decision->runner_up_parts, second->parts, sizeof(decision->runner_up_parts));
    }
    enum at_rc rc = sched_explain(s, &d, decision);
    if (best != NULL) {
        sched_take(best, &d);
        assert(!best->gpus_unknown || d.gpu_count == 0);
        group_count(s, group, best);
    }
    return rc;
}

static enum at_rc schedule(struct sched *s, const struct at_instance *const *pending, size_t n,
                           struct at_sched_plan *ret_plan)
{
    const struct at_instance **turns = at_arena_alloc(s->arena, sizeof(*turns) * (n + 1));
    struct at_sched_plan plan = {.n = n};
    plan.decisions = at_arena_alloc(s->arena, sizeof(*plan.decisions) * (n + 1));
    if (turns == NULL || plan.decisions == NULL) {
        return AT_NOMEM;
    }
    enum at_rc rc = load_sites(s);
    rc = rc == AT_OK ? load_nodes(s) : rc;
    rc = rc == AT_OK ? sched_take_bound(s) : rc;
    rc = rc == AT_OK ? load_groups(s, pending, n) : rc;
    if (rc != AT_OK) {
        return rc;
    }
    for (size_t i = 0; i < n; i++) {
        turns[i] = pending[i];
    }
    qsort(turns, n, sizeof(*turns), by_turn);
    for (size_t i = 0; i < n; i++) {
        plan.decisions[i].instance = turns[i];
        rc = decide(s, &plan.decisions[i]);
        if (rc != AT_OK) {
            return rc;
        }
    }
    *ret_plan = plan;
    return AT_OK;
}

enum at_rc at_schedule(const struct at_snapshot *snap, const struct at_instance *const *pending,
                       size_t n, int64_t now_wall_ns, struct at_arena *arena,
                       struct at_sched_plan *ret_plan)
{
    (void)now_wall_ns; /* no rule depends on the time yet */
    struct sched s = {
        .snap = snap,
        .arena = arena,
        .node_by_name = at_map_new(),
        .site_by_name = at_map_new(),
        .group_by_name = at_map_new(),
    };
    enum at_rc rc = schedule(&s, pending, n, ret_plan);
    at_map_free(s.node_by_name);
    at_map_free(s.site_by_name);
    at_map_free(s.group_by_name);
    return rc;
}
