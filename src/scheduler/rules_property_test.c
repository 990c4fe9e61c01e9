/* Random worlds with every rule at once, against an oracle that asks each rule of each node in the
 * plainest way: what is placed breaks none, what stays pending fits nowhere. */
#include "rules_kit_test.h"

#define SEEDS 400

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

static int64_t copies_at(const struct world *w, const struct at_instance *x,
                         const struct at_node *n, bool by_node)
{
    int64_t count = 0;
    for (size_t i = 0; i < w->n_instances; i++) {
        const struct at_instance *y = w->instances[i];
        const struct at_node *on = node_of(w, y);
        count += on != NULL && strcmp(x->meta.ns, y->meta.ns) == 0 &&
                 strcmp(x->meta.owners.items[0].name, y->meta.owners.items[0].name) == 0 &&
                 (by_node ? on == n : strcmp(on->spec.site, n->spec.site) == 0);
    }
    return count;
}

static bool skew_holds(const struct world *w, const struct at_instance *x, const struct at_node *n)
{
    const struct at_placement *p = x->spec.placement;
    bool by_node = at_streq(p->spread_by, "node");
    int64_t least = INT64_MAX;
    for (size_t i = 0; p->max_skew > 0 && i < w->n_nodes; i++) {
        int64_t there = copies_at(w, x, w->nodes[i], by_node);
        least = static_holds(w, x, w->nodes[i]) && there < least ? there : least;
    }
    return least == INT64_MAX || copies_at(w, x, n, by_node) + 1 - least <= p->max_skew;
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
           : !skew_holds(w, x, n)      ? "maxSkew"
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
