/* Random worlds with every rule at once. */
#ifndef AT_SCHEDULER_RULES_KIT_TEST_H
#define AT_SCHEDULER_RULES_KIT_TEST_H

#include "world_test.h"

#define GPUS 4

struct rng {
    uint64_t x;
};
static inline uint64_t rng_next(struct rng *r) /* splitmix64 */
{
    uint64_t z = (r->x += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
static inline int64_t upto(struct rng *r, int64_t n) /* 0..n-1 */
{
    return (int64_t)(rng_next(r) % (uint64_t)n);
}
static inline bool one_in(struct rng *r, int64_t n)
{
    return upto(r, n) == 0;
}

static const char *const APPS[] = {"a", "b", "c"};
static const char *const LEVELS[] = {"node", "site", "provider", "region", "jurisdiction"};
static const char *const TOPOLOGIES[] = {"", "SameLink", "SameNuma", "Preferred"};

/* --- worlds --- */

static inline struct at_model_map label(struct world *w, const char *key, const char *value)
{
    struct at_model_kv *kv = WORLD_NEW(w, struct at_model_kv);
    *kv = (struct at_model_kv){key, value};
    return (struct at_model_map){kv, 1};
}

static inline struct at_label_selector *some_selector(struct world *w, struct rng *r)
{
    struct at_label_selector *s = WORLD_NEW(w, struct at_label_selector);
    if (one_in(r, 2)) {
        s->match_labels = label(w, "app", APPS[upto(r, 3)]);
        return s;
    }
    s->match_expressions.items = WORLD_NEW(w, struct at_expression);
    s->match_expressions.n = 1;
    s->match_expressions.items[0] =
        (struct at_expression){.key = "app",
                               .operator= one_in(r, 2) ? "In" : "NotIn",
                               .values = strings_of(w, APPS[upto(r, 3)])};
    return s;
}

static inline struct at_affinity *some_affinity(struct world *w, struct rng *r)
{
    struct at_affinity *a = WORLD_NEW(w, struct at_affinity);
    a->required.items = WORLD_NEW(w, struct at_affinity_term);
    a->required.n = 1;
    a->required.items[0] = (struct at_affinity_term){.label_selector = some_selector(w, r),
                                                     .topology = LEVELS[upto(r, 5)]};
    if (one_in(r, 3)) {
        a->required.items[0].namespaces = strings_of(w, one_in(r, 2) ? "*" : "other");
    }
    a->preferred.items = a->required.items;
    a->preferred.n = one_in(r, 3);
    return a;
}

static inline void add_site(struct world *w, struct rng *r, int k)
{
    static const char *const REGIONS[] = {"r0", "r1", NULL};
    static const char *const PROVIDERS[] = {"p0", "p1"};
    char name[24];
    snprintf(name, sizeof name, "s%d", k);
    struct at_site *s = world_site(w, name, one_in(r, 2) ? "edge" : "public", k % 2 ? "EU" : "US");
    s->spec.region = REGIONS[upto(r, 3)];
    s->spec.provider = PROVIDERS[upto(r, 2)];
    if (one_in(r, 3)) {
        struct at_site_limits *l = WORLD_NEW(w, struct at_site_limits);
        l->instances = 1 + upto(r, 5);
        l->cpu_milli = one_in(r, 2) ? 2000 : 0;
        s->spec.limits = l;
    }
}

static inline void add_node(struct world *w, struct rng *r, int k)
{
    static const char *const LINKS[] = {"x", "y", "y", "x"};
    static struct at_taint taints[] = {{.key = "t", .effect = "NoSchedule"},
                                       {.key = "t", .effect = "PreferNoSchedule"}};
    char name[24], site[24];
    snprintf(name, sizeof name, "n%d", k);
    snprintf(site, sizeof site, "s%d", (int)upto(r, (int64_t)w->n_sites));
    struct at_node *n = world_node(w, name, site, 1000 * (1 + upto(r, 4)), 64 * GIB);
    n->meta.labels = label(w, "size", one_in(r, 2) ? "5" : "50");
    n->spec.unschedulable = one_in(r, 10);
    if (one_in(r, 4)) {
        n->spec.taints.items = &taints[upto(r, 2)];
        n->spec.taints.n = 1;
    }
    if (one_in(r, 2)) {
        world_gpus(w, n, GPUS, "T4", 16 * GIB);
        n->status.numa_nodes.items = world_alloc(w, 2 * sizeof(struct at_numa_node));
        n->status.numa_nodes.n = 2;
        for (int i = 0; i < 2; i++) {
            n->status.numa_nodes.items[i] =
                (struct at_numa_node){.id = i, .cpu_milli = 1000, .memory_bytes = 32 * GIB};
        }
        for (int i = 0; i < GPUS; i++) {
            n->status.gpus.items[i].link_group = LINKS[i];
            n->status.gpus.items[i].numa_node = i / 2;
        }
    }
}

static inline void add_spread(struct world *w, struct rng *r, struct at_instance *x)
{
    struct at_spread_rule *rule = WORLD_NEW(w, struct at_spread_rule);
    rule->topology = LEVELS[upto(r, 5)];
    rule->max_skew = one_in(r, 2) ? 1 + upto(r, 2) : 0;
    rule->min_domains = rule->max_skew > 0 ? upto(r, 4) : 0;
    rule->max_per_domain = one_in(r, 2) ? 1 + upto(r, 3) : 0;
    rule->max_domains = one_in(r, 3) ? 1 + upto(r, 2) : 0;
    rule->when_unsatisfiable = one_in(r, 5) ? "ScheduleAnyway" : "DoNotSchedule";
    rule->label_selector = one_in(r, 3) ? some_selector(w, r) : NULL;
    places(x)->spread.items = rule;
    places(x)->spread.n = 1;
}

static inline void add_instance(struct world *w, struct rng *r, int k)
{
    static struct at_toleration all = {.operator= "Exists" };
    static const char *const OWNERS[] = {"o0", "o1", "o2"};
    char name[16];
    snprintf(name, sizeof name, "i%02d", k);
    struct at_instance *x = world_instance(w, name, OWNERS[upto(r, 3)], 250 * upto(r, 5));
    x->meta.labels = label(w, "app", APPS[upto(r, 3)]);
    x->meta.ns = one_in(r, 4) ? "other" : "default";
    x->spec.priority = upto(r, 3);
    x->spec.preemption_policy = "Never"; /* no room is held for anybody */
    if (one_in(r, 4)) {
        places(x)->affinity = some_affinity(w, r);
    }
    if (one_in(r, 4)) {
        places(x)->anti_affinity = some_affinity(w, r);
    }
    if (one_in(r, 3)) {
        add_spread(w, r, x);
    }
    if (one_in(r, 6)) {
        places(x)->max_skew = 1 + upto(r, 2);
        places(x)->spread_by = one_in(r, 2) ? "node" : "site";
    }
    if (one_in(r, 3)) {
        wants(x)->gpu_milli = 1000 * (1 + upto(r, 2));
        wants(x)->topology = TOPOLOGIES[upto(r, 4)];
    }
    if (one_in(r, 6)) {
        places(x)->regions = strings_of(w, "r0");
    }
    if (one_in(r, 6)) {
        struct at_node_affinity *a = WORLD_NEW(w, struct at_node_affinity);
        a->required.items = WORLD_NEW(w, struct at_node_term);
        a->required.n = 1;
        a->required.items[0].match_expressions.items = WORLD_NEW(w, struct at_expression);
        a->required.items[0].match_expressions.n = 1;
        a->required.items[0].match_expressions.items[0] = (struct at_expression){
            .key = "size", .operator= one_in(r, 2) ? "Gt" : "Lt", .values = strings_of(w, "10")};
        places(x)->node_affinity = a;
    }
    if (one_in(r, 3)) {
        places(x)->tolerations.items = &all;
        places(x)->tolerations.n = 1;
    }
}

static inline void world_random(struct world *w, struct rng *r)
{
    static struct at_placement_rule rule;
    static struct at_site_pattern pattern;
    static struct at_policy policy;
    world_init(w);
    for (int k = 0, n = 1 + (int)upto(r, 4); k < n; k++) {
        add_site(w, r, k);
    }
    for (int k = 0, n = 1 + (int)upto(r, 8); k < n; k++) {
        add_node(w, r, k);
    }
    for (int k = 0, n = 1 + (int)upto(r, 24); k < n; k++) {
        add_instance(w, r, k);
    }
    if (one_in(r, 3)) {
        pattern = (struct at_site_pattern){.jurisdictions = strings_of(w, "EU")};
        rule = (struct at_placement_rule){.name = "eu", .namespaces = strings_of(w, "other")};
        rule.allow.items = &pattern;
        rule.allow.n = 1;
        policy = (struct at_policy){.spec = {.placement = {&rule, 1}}};
        w->policies[w->n_policies++] = &policy;
    }
}

#endif
