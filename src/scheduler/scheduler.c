/* The plan: for each pending instance in turn, filter, score, choose, take. */
#include "scheduler/near.h"
#include "scheduler/scheduler_priv.h"

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
            place->name = name;
            place->index = s->n_sites++;
            s->sites[place->index] = place;
            (void)at_map_put(s->site_by_name, name, place);
        }
    }
    return place;
}

static enum at_rc load_sites(struct sched *s)
{
    s->sites =
        at_arena_alloc(s->arena, sizeof(*s->sites) * (s->snap->n_sites + s->snap->n_nodes + 1));
    if (s->sites == NULL) {
        return AT_NOMEM;
    }
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
    if (sorted == NULL || s->nodes == NULL) {
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
        s->soft_taints = s->soft_taints || sched_is_soft_tainted(sorted[i]);
        (void)at_map_put(s->node_by_name, sorted[i]->meta.name, &s->nodes[i]);
    }
    return AT_OK;
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

int64_t sched_copies_on(const struct sched *s, const struct sched_group *group,
                        const struct sched_node *node)
{
    return group->by_node[node - s->nodes];
}

static enum at_sched_rule refuse_alone(const struct sched *s, const struct sched_request *r,
                                       const struct sched_node *n, bool *ret_eligible)
{
    enum at_sched_rule rule = sched_refuse_static(s, r, n);
    *ret_eligible = rule == AT_SCHED_RULE_COUNT;
    return *ret_eligible ? sched_refuse_room(s, r, n) : rule;
}

static struct sched_turn_node *apart_find(const struct sched_turn *turn,
                                          const struct sched_node *node)
{
    for (size_t i = 0; i < turn->n_apart; i++) {
        if (turn->apart[i].node == node) {
            return &turn->apart[i];
        }
    }
    return NULL;
}

struct sched_turn_node *sched_turn_apart(struct sched *s, struct sched_turn *turn,
                                         const struct sched_node *node)
{
    struct sched_turn_node *a = apart_find(turn, node);
    if (a != NULL) {
        return a;
    }
    struct sched_turn_node *more = at_arena_alloc(s->arena, sizeof(*more) * (turn->n_apart + 1));
    if (more == NULL) {
        return NULL;
    }
    if (turn->n_apart > 0) {
        memcpy(more, turn->apart, sizeof(*more) * turn->n_apart);
    }
    turn->apart = more;
    a = &more[turn->n_apart++];
    *a = (struct sched_turn_node){.node = node, .refusal = AT_SCHED_RULE_COUNT};
    a->fits = refuse_alone(s, turn->request, node, &a->eligible) == AT_SCHED_RULE_COUNT;
    turn->sites[node->site_index].eligible -= a->eligible;
    turn->sites[node->site_index].fits -= a->fits;
    return a;
}

enum at_sched_rule sched_turn_refusal(const struct sched *s, const struct sched_turn *turn,
                                      const struct sched_node *node)
{
    bool eligible;
    enum at_sched_rule rule = refuse_alone(s, turn->request, node, &eligible);
    if (rule != AT_SCHED_RULE_COUNT) {
        return rule;
    }
    const struct sched_turn_node *a = apart_find(turn, node);
    if (a != NULL) {
        return a->refusal;
    }
    return turn->others_refused != AT_SCHED_RULE_COUNT ? turn->others_refused
                                                       : turn->sites[node->site_index].refusal;
}

static enum at_rc turn_begin(struct sched *s, struct sched_turn *turn)
{
    const struct sched_request *r = turn->request;
    turn->others_refused = AT_SCHED_RULE_COUNT;
    turn->sites = at_arena_alloc(s->arena, sizeof(*turn->sites) * (s->n_sites + 1));
    if (turn->sites == NULL) {
        return AT_NOMEM;
    }
    for (size_t i = 0; i < s->n_sites; i++) {
        turn->sites[i].refusal = AT_SCHED_RULE_COUNT;
        sched_score_site(s, r, i, turn->sites[i].parts);
    }
    for (size_t i = 0; i < s->n_nodes; i++) {
        bool eligible;
        enum at_sched_rule rule = refuse_alone(s, r, &s->nodes[i], &eligible);
        turn->sites[s->nodes[i].site_index].eligible += eligible;
        turn->sites[s->nodes[i].site_index].fits += rule == AT_SCHED_RULE_COUNT;
    }
    for (size_t i = 0; i < s->n_nodes; i++) {
        if (turn->group->by_node[i] > 0 && sched_turn_apart(s, turn, &s->nodes[i]) == NULL) {
            return AT_NOMEM;
        }
    }
    return sched_turn_places(s, turn);
}

struct choice {
    const struct sched_node *node;
    int64_t parts[AT_SCHED_OBJ_COUNT];
    int64_t weighted, copies;
};

static void choice_of(const struct sched *s, const struct sched_turn *turn,
                      const struct sched_node *n, struct choice *out)
{
    const struct sched_turn_node *a = apart_find(turn, n);
    const int64_t *place = a != NULL ? a->parts : turn->sites[n->site_index].parts;
    *out = (struct choice){.node = n, .copies = sched_copies_on(s, turn->group, n)};
    sched_score_node(s, turn->request, n, out->parts);
    for (int k = 0; k < AT_SCHED_OBJ_COUNT; k++) {
        out->parts[k] += place[k];
        assert(out->parts[k] >= 0);
        assert(out->parts[k] <= 1000);
        out->weighted += turn->request->weights[k] * out->parts[k];
    }
}

/* Nodes are in name order, so that among equals the first stays. */
static bool is_better(const struct choice *a, const struct choice *b)
{
    if (b->node == NULL || a->weighted != b->weighted) {
        return b->node == NULL || a->weighted > b->weighted;
    }
    return a->copies < b->copies;
}

static void choose(const struct sched *s, const struct sched_turn *turn,
                   struct at_sched_decision *d)
{
    struct choice best = {0}, second = {0};
    int64_t weight = 0;
    for (size_t i = 0; i < s->n_nodes; i++) {
        struct choice c;
        if (sched_turn_refusal(s, turn, &s->nodes[i]) != AT_SCHED_RULE_COUNT) {
            continue;
        }
        choice_of(s, turn, &s->nodes[i], &c);
        if (is_better(&c, &best)) {
            second = best;
            best = c;
        } else if (is_better(&c, &second)) {
            second = c;
        }
    }
    for (int k = 0; k < AT_SCHED_OBJ_COUNT; k++) {
        weight += turn->request->weights[k];
    }
    weight = weight > 0 ? weight : 1;
    memcpy(d->weights, turn->request->weights, sizeof(d->weights));
    if (best.node != NULL) {
        d->node = best.node->node;
        d->score = best.weighted / weight;
        memcpy(d->parts, best.parts, sizeof(d->parts));
    }
    if (second.node != NULL) {
        d->runner_up = second.node->node;
        d->runner_up_score = second.weighted / weight;
        memcpy(d->runner_up_parts, second.parts, sizeof(d->runner_up_parts));
    }
}

static enum at_rc decide(struct sched *s, struct at_sched_decision *decision)
{
    const struct at_instance *instance = decision->instance;
    struct sched_request request = {.spec = &instance->spec,
                                    .demand = sched_demand_of(&instance->spec)};
    const char *name = group_name(s, instance);
    struct sched_group *group = name != NULL ? at_map_get(s->group_by_name, name) : NULL;
    struct sched_turn turn = {.instance = instance, .request = &request, .group = group};
    sched_weights(s, &instance->spec, &request.demand, request.weights);
    if (group == NULL || sched_mix_load(s) != AT_OK || turn_begin(s, &turn) != AT_OK) {
        return AT_NOMEM;
    }
    choose(s, &turn, decision);
    enum at_rc rc = sched_explain(s, &turn, decision);
    if (decision->node != NULL) {
        struct sched_node *node = at_map_get(s->node_by_name, decision->node->meta.name);
        sched_take(node, &request.demand);
        assert(!node->gpus_unknown || request.demand.gpu_count == 0);
        group_count(s, group, node);
        sched_tally_changed(s->tally, instance, node->node->meta.name, node->node->spec.site, 1);
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
    rc = rc == AT_OK ? sched_near_load(s, pending, n) : rc;
    rc = rc == AT_OK ? sched_net_load(s) : rc;
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
        .tally = sched_tally_new(),
    };
    enum at_rc rc = schedule(&s, pending, n, ret_plan);
    at_map_free(s.node_by_name);
    at_map_free(s.site_by_name);
    at_map_free(s.group_by_name);
    sched_tally_free(s.tally);
    sched_net_free(s.net);
    return rc;
}
