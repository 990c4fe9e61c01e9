/* Random worlds with every rule at once, against an oracle that asks each rule of each node in the
 * plainest way: what is placed breaks none, what stays pending fits nowhere. */
#include "world_test.h"

#define SEEDS 400
#define GPUS 4

struct rng {
    uint64_t x;
};
static uint64_t rng_next(struct rng *r) /* splitmix64 */
{
    uint64_t z = (r->x += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
static int64_t upto(struct rng *r, int64_t n) /* 0..n-1 */
{
    return (int64_t)(rng_next(r) % (uint64_t)n);
}
static bool one_in(struct rng *r, int64_t n)
{
    return upto(r, n) == 0;
}

static const char *const APPS[] = {"a", "b", "c"};
static const char *const LEVELS[] = {"node", "site", "provider", "region", "jurisdiction"};
static const char *const TOPOLOGIES[] = {"", "SameLink", "SameNuma", "Preferred"};

/* --- worlds --- */

static struct at_model_map label(struct world *w, const char *key, const char *value)
{
    struct at_model_kv *kv = WORLD_NEW(w, struct at_model_kv);
    *kv = (struct at_model_kv){key, value};
    return (struct at_model_map){kv, 1};
}

static struct at_label_selector *some_selector(struct world *w, struct rng *r)
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

static struct at_affinity *some_affinity(struct world *w, struct rng *r)
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

static void add_site(struct world *w, struct rng *r, int k)
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

static void add_node(struct world *w, struct rng *r, int k)
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

static void add_spread(struct world *w, struct rng *r, struct at_instance *x)
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

static void add_instance(struct world *w, struct rng *r, int k)
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

static void world_random(struct world *w, struct rng *r)
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

/* --- the oracle --- */

static const struct at_site *site_of(const struct world *w, const struct at_node *n)
{
    for (size_t i = 0; i < w->n_sites; i++) {
        if (strcmp(w->sites[i]->meta.name, n->spec.site) == 0) {
            return w->sites[i];
        }
    }
    return NULL;
}
static const struct at_node *node_of(const struct world *w, const struct at_instance *x)
{
    for (size_t i = 0; i < w->n_nodes; i++) {
        if (at_streq(w->nodes[i]->meta.name, x->spec.node_name)) {
            return w->nodes[i];
        }
    }
    return NULL;
}

static const char *place(const struct world *w, const char *level, const struct at_node *n)
{
    const struct at_site *s = site_of(w, n);
    return level[0] == 'n'   ? n->meta.name
           : level[0] == 's' ? n->spec.site
           : level[0] == 'p' ? s->spec.provider
           : level[0] == 'r' ? s->spec.region
                             : s->spec.jurisdiction;
}

static bool selected(const struct at_label_selector *s, const struct at_instance *x)
{
    const char *app = x->meta.labels.items[0].value;
    if (s->match_labels.n > 0) {
        return strcmp(s->match_labels.items[0].value, app) == 0;
    }
    const struct at_expression *e = &s->match_expressions.items[0];
    return (strcmp(e->values.items[0], app) == 0) == (strcmp(e->operator, "In") == 0);
}

static bool meant(const struct at_affinity_term *t, const char *ns, const struct at_instance *x)
{
    const char *of = t->namespaces.n > 0 ? t->namespaces.items[0] : ns;
    return (strcmp(of, "*") == 0 || strcmp(of, x->meta.ns) == 0) && selected(t->label_selector, x);
}

/* How many instances that fn means are in the same place as n; n NULL: anywhere. */
static int64_t near_count(const struct world *w, const struct at_affinity_term *t, const char *ns,
                          const struct at_node *n)
{
    int64_t count = 0;
    for (size_t i = 0; i < w->n_instances; i++) {
        const struct at_node *on = node_of(w, w->instances[i]);
        if (on != NULL && meant(t, ns, w->instances[i])) {
            const char *here = n != NULL ? place(w, t->topology, n) : NULL;
            count += n == NULL || (here != NULL && at_streq(here, place(w, t->topology, on)));
        }
    }
    return count;
}

static bool affinities_hold(const struct world *w, const struct at_instance *x,
                            const struct at_node *n)
{
    const struct at_affinity *near = x->spec.placement->affinity;
    const struct at_affinity *away = x->spec.placement->anti_affinity;
    if (near != NULL) {
        const struct at_affinity_term *t = &near->required.items[0];
        bool first = near_count(w, t, x->meta.ns, NULL) == 0 && meant(t, x->meta.ns, x);
        if (place(w, t->topology, n) == NULL || (!first && near_count(w, t, x->meta.ns, n) == 0)) {
            return false;
        }
    }
    if (away != NULL && near_count(w, &away->required.items[0], x->meta.ns, n) > 0) {
        return false;
    }
    for (size_t i = 0; i < w->n_instances; i++) { /* those that are there and want to be alone */
        const struct at_instance *y = w->instances[i];
        const struct at_node *on = node_of(w, y);
        const struct at_affinity *theirs = y->spec.placement->anti_affinity;
        if (on == NULL || theirs == NULL || !meant(&theirs->required.items[0], y->meta.ns, x)) {
            continue;
        }
        const char *here = place(w, theirs->required.items[0].topology, n);
        if (here != NULL && at_streq(here, place(w, theirs->required.items[0].topology, on))) {
            return false;
        }
    }
    return true;
}

static bool static_holds(const struct world *w, const struct at_instance *x,
                         const struct at_node *n)
{
    const struct at_placement *p = x->spec.placement;
    const struct at_site *s = site_of(w, n);
    if (n->spec.unschedulable) {
        return false;
    }
    if (n->spec.taints.n > 0 && strcmp(n->spec.taints.items[0].effect, "NoSchedule") == 0 &&
        p->tolerations.n == 0) {
        return false;
    }
    if (p->regions.n > 0 && !at_streq(s->spec.region, "r0")) {
        return false;
    }
    if (p->node_affinity != NULL) {
        bool large = strcmp(n->meta.labels.items[0].value, "50") == 0;
        const char *op = p->node_affinity->required.items[0].match_expressions.items[0].operator;
        if (large != (strcmp(op, "Gt") == 0)) {
            return false;
        }
    }
    return w->n_policies == 0 || strcmp(x->meta.ns, "other") != 0 ||
           strcmp(s->spec.jurisdiction, "EU") == 0;
}

static bool spread_counts(const struct at_spread_rule *rule, const struct at_instance *x,
                          const struct at_instance *y)
{
    if (rule->label_selector != NULL) {
        return strcmp(x->meta.ns, y->meta.ns) == 0 && selected(rule->label_selector, y);
    }
    return strcmp(x->meta.ns, y->meta.ns) == 0 &&
           strcmp(x->meta.owners.items[0].name, y->meta.owners.items[0].name) == 0;
}

static int64_t spread_at(const struct world *w, const struct at_instance *x, const char *where)
{
    const struct at_spread_rule *rule = &x->spec.placement->spread.items[0];
    int64_t count = 0;
    for (size_t i = 0; i < w->n_instances; i++) {
        const struct at_node *on = node_of(w, w->instances[i]);
        count += on != NULL && at_streq(place(w, rule->topology, on), where) &&
                 spread_counts(rule, x, w->instances[i]);
    }
    return count;
}

struct domains {
    const char *names[WORLD_MAX];
    size_t n;
};
static bool domain_new(struct domains *d, const char *name)
{
    for (size_t i = 0; i < d->n; i++) {
        if (strcmp(d->names[i], name) == 0) {
            return false;
        }
    }
    d->names[d->n++] = name;
    return true;
}

static bool spread_holds(const struct world *w, const struct at_instance *x,
                         const struct at_node *n)
{
    if (x->spec.placement->spread.n == 0 ||
        strcmp(x->spec.placement->spread.items[0].when_unsatisfiable, "ScheduleAnyway") == 0) {
        return true;
    }
    const struct at_spread_rule *rule = &x->spec.placement->spread.items[0];
    const char *where = place(w, rule->topology, n);
    struct domains eligible = {.n = 0}, used = {.n = 0};
    int64_t least = INT64_MAX;
    if (where == NULL) {
        return false;
    }
    for (size_t i = 0; i < w->n_nodes; i++) {
        const char *other = place(w, rule->topology, w->nodes[i]);
        int64_t count = other != NULL ? spread_at(w, x, other) : 0;
        if (other != NULL && static_holds(w, x, w->nodes[i]) && domain_new(&eligible, other)) {
            least = count < least ? count : least;
        }
        if (count > 0) {
            (void)domain_new(&used, other);
        }
    }
    least = (int64_t)eligible.n < rule->min_domains || least == INT64_MAX ? 0 : least;
    int64_t here = spread_at(w, x, where);
    int64_t after = here + (spread_counts(rule, x, x) ? 1 : 0);
    return (rule->max_skew == 0 || after - least <= rule->max_skew) &&
           (rule->max_per_domain == 0 || after <= rule->max_per_domain) &&
           (rule->max_domains == 0 || here > 0 || (int64_t)used.n < rule->max_domains);
}

static bool limits_hold(const struct world *w, const struct at_instance *x, const struct at_node *n)
{
    const struct at_site_limits *l = site_of(w, n)->spec.limits;
    int64_t instances = 0, cpu = 0;
    for (size_t i = 0; i < w->n_instances; i++) {
        const struct at_node *on = node_of(w, w->instances[i]);
        if (on != NULL && strcmp(on->spec.site, n->spec.site) == 0) {
            instances++;
            cpu += w->instances[i]->spec.resources->cpu_milli;
        }
    }
    int64_t asked = x->spec.resources->cpu_milli;
    return l == NULL || ((l->instances == 0 || instances + 1 <= l->instances) &&
                         (l->cpu_milli == 0 || asked == 0 || cpu + asked <= l->cpu_milli));
}

static void gpus_held(const struct world *w, const struct at_node *n, bool held[GPUS])
{
    memset(held, 0, sizeof(bool) * GPUS);
    for (size_t i = 0; i < w->n_instances; i++) {
        const struct at_instance *y = w->instances[i];
        for (size_t k = 0; node_of(w, y) == n && k < y->status.gpus.n; k++) {
            assert_false(held[y->status.gpus.items[k].index]); /* nobody else has it */
            held[y->status.gpus.items[k].index] = true;
        }
    }
}

static bool together(const struct at_node *n, const char *topology, int a, int b)
{
    const struct at_node_gpu *g = n->status.gpus.items;
    return strcmp(topology, "SameLink") == 0   ? strcmp(g[a].link_group, g[b].link_group) == 0
           : strcmp(topology, "SameNuma") == 0 ? g[a].numa_node == g[b].numa_node
                                               : true;
}

/* GPUs of NUMA nodes whose CPUs others that asked for SameNuma have. */
static void hide_full_numa_nodes(const struct world *w, const struct at_node *n,
                                 const struct at_resources *want, bool held[GPUS])
{
    for (int a = 0; a < GPUS && at_streq(want->topology, "SameNuma"); a++) {
        int64_t cpu = 0, numa = n->status.gpus.items[a].numa_node;
        for (size_t i = 0; i < w->n_instances; i++) {
            const struct at_instance *y = w->instances[i];
            bool tied = node_of(w, y) == n && y->status.gpus.n > 0 &&
                        at_streq(y->spec.resources->topology, "SameNuma");
            cpu += tied && n->status.gpus.items[y->status.gpus.items[0].index].numa_node == numa
                       ? y->spec.resources->cpu_milli
                       : 0;
        }
        held[a] = held[a] || cpu + want->cpu_milli > 1000;
    }
}

static bool gpus_hold(const struct world *w, const struct at_instance *x, const struct at_node *n)
{
    const struct at_resources *want = x->spec.resources;
    bool held[GPUS];
    if (want->gpu_milli == 0) {
        return true;
    }
    if (n->status.gpus.n == 0) {
        return false;
    }
    gpus_held(w, n, held);
    hide_full_numa_nodes(w, n, want, held);
    for (int a = 0; a < GPUS; a++) {
        for (int b = a + 1; b < GPUS; b++) {
            if (!held[a] && !held[b] && together(n, want->topology, a, b)) {
                return true;
            }
        }
        if (!held[a] && want->gpu_milli == 1000) {
            return true;
        }
    }
    return false;
}

static bool room_holds(const struct world *w, const struct at_instance *x, const struct at_node *n)
{
    int64_t cpu = x->spec.resources->cpu_milli;
    for (size_t i = 0; cpu > 0 && i < w->n_instances; i++) {
        cpu += node_of(w, w->instances[i]) == n ? w->instances[i]->spec.resources->cpu_milli : 0;
    }
    return cpu <= n->status.allocatable->cpu_milli && gpus_hold(w, x, n);
}

/* The first rule that is broken, for people; NULL: it may go there. */
static const char *broken(const struct world *w, const struct at_instance *x,
                          const struct at_node *n)
{
    return !static_holds(w, x, n)      ? "a static rule"
           : !room_holds(w, x, n)      ? "room"
           : !affinities_hold(w, x, n) ? "affinity"
           : !spread_holds(w, x, n)    ? "spread"
           : !limits_hold(w, x, n)     ? "a site's limit"
                                       : NULL;
}

/* --- the comparison --- */

static void bind(struct world *w, const struct at_sched_decision *d, int64_t at)
{
    struct at_instance *x = (struct at_instance *)d->instance;
    x->status.gpus.items = world_alloc(w, sizeof(struct at_instance_gpu) * (d->n_gpus + 1));
    x->status.gpus.n = d->n_gpus;
    for (size_t k = 0; k < d->n_gpus; k++) {
        x->status.gpus.items[k] =
            (struct at_instance_gpu){.index = d->gpus[k].index, .milli = d->gpus[k].milli};
        assert_true(together(d->node,
                             x->spec.resources->topology != NULL ? x->spec.resources->topology : "",
                             (int)d->gpus[0].index, (int)d->gpus[k].index));
    }
    world_bind(x, d->node->meta.name, at);
}

static void check_plan(struct world *w, uint64_t seed, int round)
{
    for (size_t i = 0; i < w->plan.n; i++) {
        const struct at_sched_decision *d = &w->plan.decisions[i];
        const struct at_instance *x = d->instance;
        if (d->node != NULL) {
            const char *rule = broken(w, x, d->node);
            if (rule != NULL) {
                fail_msg("seed %llu, round %d: %s went to %s against %s", (unsigned long long)seed,
                         round, x->meta.name, d->node->meta.name, rule);
            }
            bind(w, d, 100 * round + (int64_t)i);
            continue;
        }
        assert_non_null(d->nearest);
        for (size_t k = 0; k < w->n_nodes; k++) {
            if (broken(w, x, w->nodes[k]) == NULL) {
                fail_msg("seed %llu, round %d: %s stays pending, but %s would do: %s",
                         (unsigned long long)seed, round, x->meta.name, w->nodes[k]->meta.name,
                         d->message);
            }
        }
    }
}

static void what_is_placed_breaks_no_rule_and_what_waits_fits_nowhere(void **state)
{
    (void)state;
    size_t placed = 0, waiting = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct world w;
        struct rng r = {seed};
        world_random(&w, &r);
        for (int round = 0; round < 3; round++) { /* schedule, let some end, schedule again */
            world_schedule(&w);
            check_plan(&w, seed, round);
            for (size_t k = 0; k < w.plan.n; k++) {
                placed += w.plan.decisions[k].node != NULL;
                waiting += w.plan.decisions[k].node == NULL;
            }
            for (size_t k = 0; k < w.n_instances; k++) {
                if (w.instances[k]->spec.node_name != NULL && one_in(&r, 3)) {
                    w.instances[k] = w.instances[--w.n_instances];
                }
            }
        }
        world_done(&w);
    }
    assert_true(placed > SEEDS); /* the worlds are neither empty nor always full */
    assert_true(waiting > SEEDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_placed_breaks_no_rule_and_what_waits_fits_nowhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
