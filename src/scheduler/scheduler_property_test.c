/* Random worlds from printed seeds: what must hold for each of them. */
#include "world_test.h"

#define SEEDS 300

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
static int64_t rng_upto(struct rng *r, int64_t n) /* 0..n-1 */
{
    return (int64_t)(rng_next(r) % (uint64_t)n);
}
static const char *const CLASSES[] = {"onprem", "edge", "public"};
static const char *const LAWS[] = {"EU", "US"};

static struct at_node *add_node(struct world *w, struct rng *r, const char *name)
{
    static struct at_condition not_ready = {.type = "Ready", .status = "False", .reason = "Lost"};
    static struct at_taint taint = {.key = "k", .effect = "NoSchedule"};
    char site[24];
    snprintf(site, sizeof(site), "s%d", (int)rng_upto(r, (int64_t)w->n_sites));
    struct at_node *n =
        world_node(w, name, site, 1000 * (1 + rng_upto(r, 8)), GIB * (1 + rng_upto(r, 16)));
    if (rng_upto(r, 8) == 0) {
        n->status.conditions.items = &not_ready;
    }
    n->spec.unschedulable = rng_upto(r, 10) == 0;
    if (rng_upto(r, 6) == 0) {
        n->spec.taints.items = &taint;
        n->spec.taints.n = 1;
    }
    if (rng_upto(r, 2) == 0) {
        world_gpus(w, n, (size_t)(1 + rng_upto(r, 3)), rng_upto(r, 2) ? "T4" : "A10", 16 * GIB);
    }
    return n;
}

static void add_instance(struct world *w, struct rng *r, int k, bool skew)
{
    static struct at_toleration all = {.operator= "Exists" };
    char name[16];
    char owner[24];
    snprintf(name, sizeof(name), "i%02d", (int)(k * 7 % 31));
    snprintf(owner, sizeof(owner), "o%d", (int)rng_upto(r, 3));
    struct at_instance *i = world_instance(w, name, owner, 250 * rng_upto(r, 12));
    wants(i)->memory_bytes = GIB * rng_upto(r, 4);
    switch (rng_upto(r, 4)) {
    case 0:
        wants(i)->gpu_milli = 1000 * (1 + rng_upto(r, 2));
        break;
    case 1:
        wants(i)->gpu_milli = 100 * (1 + rng_upto(r, 9));
        wants(i)->gpu_memory_bytes = GIB * rng_upto(r, 17);
        break;
    default:
        break;
    }
    i->spec.priority = rng_upto(r, 3);
    i->meta.creation_wall_ns = rng_upto(r, 5);
    i->spec.data_class = rng_upto(r, 3) == 0 ? "restricted" : NULL;
    if (rng_upto(r, 4) == 0) {
        places(i)->tolerations.items = &all;
        places(i)->tolerations.n = 1;
    }
    if (rng_upto(r, 4) == 0) {
        places(i)->site_classes = strings_of(w, CLASSES[rng_upto(r, 3)]);
    }
    places(i)->spread_by = rng_upto(r, 2) ? "node" : "site";
    places(i)->max_skew = skew ? rng_upto(r, 3) : 0;
}

static void world_random(struct world *w, uint64_t seed, bool skew)
{
    static struct at_residency_rule rule;
    static struct at_policy policy;
    static const char *eu[] = {"EU"};
    struct rng r = {seed};
    world_init(w);
    rule = (struct at_residency_rule){.data_class = "restricted", .jurisdictions = {eu, 1}};
    policy = (struct at_policy){.spec = {.residency = {&rule, 1}}};
    w->policies[w->n_policies++] = &policy;
    int64_t n_sites = 1 + rng_upto(&r, 4);
    for (int k = 0; k < n_sites; k++) {
        char name[24];
        snprintf(name, sizeof(name), "s%d", k);
        struct at_site *s = world_site(w, name, CLASSES[rng_upto(&r, 3)], LAWS[rng_upto(&r, 2)]);
        world_price(w, s, rng_upto(&r, 1000));
        s->spec.carbon_intensity = rng_upto(&r, 1200);
    }
    int64_t n_nodes = 1 + rng_upto(&r, 6);
    for (int k = 0; k < n_nodes; k++) {
        char name[24];
        snprintf(name, sizeof(name), "n%d", k);
        (void)add_node(w, &r, name);
    }
    int64_t n_instances = 1 + rng_upto(&r, 20);
    for (int k = 0; k < n_instances; k++) {
        add_instance(w, &r, k, skew);
    }
}

/* Can these GPU demands be laid on the node's GPUs at all? Exhaustive, so independent of how the
 * scheduler chooses. */
static bool gpus_can_hold(const struct at_instance **on, size_t n, int64_t *free_milli,
                          int64_t *free_memory, size_t n_gpus)
{
    if (n == 0) {
        return true;
    }
    const struct at_resources *want = on[0]->spec.resources;
    if (want->gpu_milli == 0) {
        return gpus_can_hold(on + 1, n - 1, free_milli, free_memory, n_gpus);
    }
    int64_t count = want->gpu_milli < 1000 ? 1 : want->gpu_milli / 1000;
    int64_t each = want->gpu_milli < 1000 ? want->gpu_milli : 1000;
    for (unsigned set = 1; set < 1u << n_gpus; set++) {
        if (__builtin_popcount(set) != (int)count) {
            continue;
        }
        bool ok = true;
        for (size_t g = 0; g < n_gpus; g++) {
            free_milli[g] -= set >> g & 1 ? each : 0;
            free_memory[g] -= set >> g & 1 ? want->gpu_memory_bytes : 0;
            ok = ok && free_milli[g] >= 0 && free_memory[g] >= 0;
        }
        ok = ok && gpus_can_hold(on + 1, n - 1, free_milli, free_memory, n_gpus);
        for (size_t g = 0; g < n_gpus; g++) {
            free_milli[g] += set >> g & 1 ? each : 0;
            free_memory[g] += set >> g & 1 ? want->gpu_memory_bytes : 0;
        }
        if (ok) {
            return true;
        }
    }
    return false;
}

static void check_node_holds(const struct world *w, const struct at_node *node)
{
    const struct at_instance *on[WORLD_MAX];
    size_t n = 0;
    int64_t cpu = 0;
    int64_t memory = 0;
    for (size_t i = 0; i < w->n_instances; i++) {
        const struct at_instance *x = w->instances[i];
        if (at_streq(x->spec.node_name, node->meta.name)) {
            on[n++] = x;
            cpu += x->spec.resources->cpu_milli;
            memory += x->spec.resources->memory_bytes;
        }
    }
    assert_true(cpu <= node->status.allocatable->cpu_milli);
    assert_true(memory <= node->status.allocatable->memory_bytes);
    int64_t free_milli[4] = {1000, 1000, 1000, 1000};
    int64_t free_memory[4] = {16 * GIB, 16 * GIB, 16 * GIB, 16 * GIB};
    assert_true(gpus_can_hold(on, n, free_milli, free_memory, node->status.gpus.n));
}

static void check_hard_rules(const struct world *w, const struct at_sched_decision *d)
{
    const struct at_instance *x = d->instance;
    const struct at_node *n = d->node;
    const struct at_site *site = NULL;
    for (size_t i = 0; i < w->n_sites; i++) {
        site = at_streq(w->sites[i]->meta.name, n->spec.site) ? w->sites[i] : site;
    }
    assert_string_equal(n->status.conditions.items[0].status, "True");
    assert_false(n->spec.unschedulable);
    assert_true(n->spec.taints.n == 0 || x->spec.placement->tolerations.n > 0);
    if (x->spec.data_class != NULL) {
        assert_string_equal(site->spec.jurisdiction, "EU");
    }
    if (x->spec.placement->site_classes.n > 0) {
        assert_string_equal(x->spec.placement->site_classes.items[0], site->spec.class);
    }
}

/* Bind what the plan placed, as the placement controller does: times grow in the plan's order. */
static void bind_plan(struct world *w, int64_t at)
{
    for (size_t i = 0; i < w->plan.n; i++) {
        const struct at_sched_decision *d = &w->plan.decisions[i];
        if (d->node != NULL) {
            check_hard_rules(w, d);
            world_bind((struct at_instance *)d->instance, d->node->meta.name, at + (int64_t)i);
        }
    }
}

static void never_over_commits_nor_breaks_a_hard_rule(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct world w;
        world_random(&w, seed, seed % 2 == 0);
        struct rng r = {seed * 77};
        for (int round = 0; round < 3; round++) { /* schedule, let some end, schedule again */
            world_schedule(&w);
            bind_plan(&w, 100 * round);
            for (size_t k = 0; k < w.n_nodes; k++) {
                check_node_holds(&w, w.nodes[k]);
            }
            for (size_t k = 0; k < w.n_instances; k++) {
                if (w.instances[k]->spec.node_name != NULL && rng_upto(&r, 3) == 0) {
                    w.instances[k] = w.instances[--w.n_instances];
                }
            }
        }
        world_done(&w);
    }
}

static void order_of_input_does_not_matter(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct world w;
        struct world v;
        world_random(&w, seed, true);
        world_random(&v, seed, true);
        struct rng r = {seed};
        for (size_t k = v.n_nodes; k > 1; k--) {
            size_t j = (size_t)rng_upto(&r, (int64_t)k);
            struct at_node *t = v.nodes[k - 1];
            v.nodes[k - 1] = v.nodes[j];
            v.nodes[j] = t;
        }
        for (size_t k = v.n_instances; k > 1; k--) {
            size_t j = (size_t)rng_upto(&r, (int64_t)k);
            struct at_instance *t = v.instances[k - 1];
            v.instances[k - 1] = v.instances[j];
            v.instances[j] = t;
        }
        world_schedule(&w);
        world_schedule(&v);
        for (size_t i = 0; i < w.plan.n; i++) {
            assert_string_equal(w.plan.decisions[i].instance->meta.name,
                                v.plan.decisions[i].instance->meta.name);
            assert_string_equal(w.plan.decisions[i].message, v.plan.decisions[i].message);
            assert_int_equal(w.plan.decisions[i].score, v.plan.decisions[i].score);
        }
        world_done(&w);
        world_done(&v);
    }
}

/* One instance alone: with several, one more node may well change who goes where. */
static void a_new_node_takes_no_place_away(void **state)
{
    (void)state;
    size_t placed = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct world w;
        world_random(&w, seed, false);
        w.n_instances = 1;
        world_schedule(&w);
        bool before = w.plan.decisions[0].node != NULL;
        placed += before;
        struct rng r = {seed * 3};
        (void)add_node(&w, &r, "new");
        world_schedule(&w);
        if (before) {
            assert_non_null(w.plan.decisions[0].node);
        }
        world_done(&w);
    }
    assert_true(placed > SEEDS / 4); /* the property is not empty */
    assert_true(placed < SEEDS);
}

static void counts_every_node_once(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct world w;
        world_random(&w, seed, true);
        world_schedule(&w);
        for (size_t i = 0; i < w.plan.n; i++) {
            const struct at_sched_decision *d = &w.plan.decisions[i];
            size_t refused = 0;
            for (int k = 0; k < AT_SCHED_RULE_COUNT; k++) {
                refused += d->refused[k];
                assert_true((d->refused[k] > 0) == (d->example[k] != NULL));
            }
            assert_true(d->node != NULL ? refused < w.n_nodes : refused == w.n_nodes);
            assert_non_null(d->message);
        }
        world_done(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(never_over_commits_nor_breaks_a_hard_rule),
        cmocka_unit_test(order_of_input_does_not_matter),
        cmocka_unit_test(a_new_node_takes_no_place_away),
        cmocka_unit_test(counts_every_node_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
