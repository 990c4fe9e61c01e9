/* What a pending decision advises is true: in random worlds with every rule at once, each remedy is
 * done as its sentence says, and then the instance finds a place. */
#include "rules_kit_test.h"

#define SEEDS 200

/* What a remedy may change, to be put back. */
struct before {
    struct at_node nodes[WORLD_MAX];
    struct at_site sites[WORLD_MAX];
    struct at_instance *instances[WORLD_MAX];
    struct at_placement placement;
    size_t n_nodes, n_instances, n_policies;
};

static void keep(const struct world *w, const struct at_instance *x, struct before *b)
{
    for (size_t i = 0; i < w->n_nodes; i++) {
        b->nodes[i] = *w->nodes[i];
    }
    for (size_t i = 0; i < w->n_sites; i++) {
        b->sites[i] = *w->sites[i];
    }
    memcpy(b->instances, w->instances, sizeof b->instances);
    b->placement = *x->spec.placement;
    b->n_nodes = w->n_nodes;
    b->n_instances = w->n_instances;
    b->n_policies = w->n_policies;
}

static void put_back(struct world *w, struct at_instance *x, const struct before *b)
{
    w->n_nodes = b->n_nodes;
    w->n_instances = b->n_instances;
    w->n_policies = b->n_policies;
    for (size_t i = 0; i < w->n_nodes; i++) {
        *w->nodes[i] = b->nodes[i];
    }
    for (size_t i = 0; i < w->n_sites; i++) {
        *w->sites[i] = b->sites[i];
    }
    memcpy(w->instances, b->instances, sizeof b->instances);
    *places(x) = b->placement;
}

static struct at_sched_decision decide(struct world *w, const struct at_instance *x)
{
    struct at_snapshot snap = world_snapshot(w);
    struct at_sched_plan plan;
    assert_int_equal(at_schedule(&snap, &x, 1, 0, w->arena, &plan), AT_OK);
    assert_int_equal(plan.n, 1);
    return plan.decisions[0];
}

static struct at_node *named(struct world *w, const char *name)
{
    for (size_t i = 0; i < w->n_nodes; i++) {
        if (at_streq(w->nodes[i]->meta.name, name)) {
            return w->nodes[i];
        }
    }
    fail_msg("no node %s", name);
    return NULL;
}

static void end(struct world *w, const struct at_instance *gone)
{
    for (size_t i = 0; i < w->n_instances; i++) {
        if (w->instances[i] == gone) {
            memmove(&w->instances[i], &w->instances[i + 1],
                    sizeof w->instances[0] * (--w->n_instances - i));
            return;
        }
    }
    fail_msg("%s is not there", gone->meta.name);
}

/* "1 node more with 1 cpu and 2 GPUs of one NUMA node that its nodeAffinity means at site s1 would
 * do": such a node, and nothing beyond. */
static void join(struct world *w, struct at_instance *x, const char *told, size_t site)
{
    const char *at = strstr(told, " at site ");
    char name[24];
    snprintf(name, sizeof name, "%.*s", at != NULL ? (int)strcspn(at + 9, " ") : 0,
             at != NULL ? at + 9 : "");
    struct at_node *n = world_node(w, "new", at != NULL ? name : w->sites[site]->meta.name,
                                   wants(x)->cpu_milli, wants(x)->memory_bytes);
    n->meta.labels = label(w, "size", "5");
    if (strstr(told, "nodeAffinity") != NULL) {
        const struct at_node_term *t = &places(x)->node_affinity->required.items[0];
        bool more = strcmp(t->match_expressions.items[0].operator, "Gt") == 0;
        n->meta.labels = label(w, "size", more ? "50" : "5");
    }
    size_t gpus = (size_t)(wants(x)->gpu_milli + 999) / 1000;
    assert_true((gpus > 0) == (strstr(told, "GPU") != NULL));
    world_gpus(w, n, gpus, "T4", 0);
    n->status.numa_nodes.items = WORLD_NEW(w, struct at_numa_node);
    n->status.numa_nodes.items[0] = (struct at_numa_node){.cpu_milli = wants(x)->cpu_milli,
                                                          .memory_bytes = wants(x)->memory_bytes};
    n->status.numa_nodes.n = 1;
    for (size_t i = 0; i < gpus; i++) {
        n->status.gpus.items[i].link_group = "one";
    }
}

/* Whose node's room is short gets more than any could want; GPUs that are near to each other. */
static void enlarge(struct world *w, struct at_instance *x, struct at_node *n)
{
    struct at_resources *r = WORLD_NEW(w, struct at_resources);
    const struct at_node_gpu *old = n->status.gpus.items;
    size_t had = n->status.gpus.n, more = (size_t)(wants(x)->gpu_milli + 999) / 1000;
    *r = *n->status.allocatable;
    r->cpu_milli += wants(x)->cpu_milli + 8000;
    n->status.allocatable = r;
    world_gpus(w, n, had + more, "T4", 0);
    if (had > 0) {
        memcpy(n->status.gpus.items, old, sizeof *old * had);
    }
    for (size_t i = had; i < had + more; i++) {
        n->status.gpus.items[i].link_group = "more";
        n->status.gpus.items[i].numa_node = 7;
    }
    struct at_numa_node *numa = world_alloc(w, sizeof *numa * (n->status.numa_nodes.n + 1));
    if (n->status.numa_nodes.n > 0) {
        memcpy(numa, n->status.numa_nodes.items, sizeof *numa * n->status.numa_nodes.n);
    }
    numa[n->status.numa_nodes.n] = (struct at_numa_node){
        .id = 7, .cpu_milli = wants(x)->cpu_milli, .memory_bytes = wants(x)->memory_bytes};
    n->status.numa_nodes.items = numa;
    n->status.numa_nodes.n++;
}

/* Of all nodes; or, where that opens a place that is emptier than all others may be, of the one on
 * which it would fit. */
static void untaint(struct world *w, const struct at_instance *x)
{
    size_t had[WORLD_MAX];
    for (size_t i = 0; i < w->n_nodes; i++) {
        had[i] = w->nodes[i]->spec.taints.n;
        w->nodes[i]->spec.taints.n = 0;
    }
    for (size_t i = 0; i < w->n_nodes && decide(w, x).node == NULL; i++) {
        for (size_t k = 0; k < w->n_nodes; k++) {
            w->nodes[k]->spec.taints.n = k == i ? 0 : had[k];
        }
    }
}

/* Either the instance may go to the site's region too, or the site is of another region: each may
 * bring other rules into play. */
static void move_into_region(struct world *w, struct at_instance *x, const struct at_node *n)
{
    const struct at_model_strings before = places(x)->regions;
    for (size_t i = 0; i < w->n_sites; i++) {
        struct at_site *site = w->sites[i];
        if (!at_streq(site->meta.name, n->spec.site)) {
            continue;
        }
        places(x)->regions.items = world_alloc(w, 2 * sizeof before.items[0]);
        places(x)->regions.items[0] = before.items[0];
        places(x)->regions.items[1] = site->spec.region;
        places(x)->regions.n = 2;
        if (decide(w, x).node == NULL) {
            places(x)->regions = before;
            site->spec.region = before.items[0];
        }
    }
}

/* What is in the way on one node goes: the rule itself, wherever it stands. */
static void lift(struct world *w, struct at_instance *x, const struct at_sched_remedy *r)
{
    struct at_node *n = r->node != NULL ? named(w, r->node) : NULL;
    const char *kind = r->kind;
    if (at_streq(kind, "Taint")) {
        untaint(w, x);
    } else if (at_streq(kind, "Node")) {
        assert_non_null(strstr(r->message, "cordoned"));
        n->spec.unschedulable = false;
    } else if (at_streq(kind, "Label")) {
        n->meta.labels = label(w, "size", strstr(r->message, "size > ") != NULL ? "50" : "5");
    } else if (at_streq(kind, "Site")) {
        move_into_region(w, x, n);
    } else if (at_streq(kind, "Policy")) {
        w->n_policies = 0;
    } else if (at_streq(kind, "Spread")) {
        places(x)->spread.n = strstr(r->message, "already ") != NULL ? places(x)->spread.n : 0;
        places(x)->max_skew = strstr(r->message, "already ") != NULL ? 0 : places(x)->max_skew;
    } else if (at_streq(kind, "SiteLimit")) {
        for (size_t i = 0; i < w->n_sites; i++) {
            w->sites[i]->spec.limits = NULL;
        }
    } else if (at_streq(kind, "Capacity")) {
        enlarge(w, x, n);
    } else {
        fail_msg("kind %s is not known: %s", kind, r->message);
    }
}

static void must_fit(struct world *w, struct at_instance *x, uint64_t seed,
                     const struct at_sched_remedy *r)
{
    struct at_sched_decision d = decide(w, x);
    if (d.node == NULL) {
        fail_msg("seed %llu: for %s '%s' (%s) was done, and now: %s", (unsigned long long)seed,
                 x->meta.name, r->message, r->kind, d.message);
    }
}

/* How many were done. */
static size_t do_as_told(struct world *w, struct at_instance *x, uint64_t seed, size_t *ret_kinds)
{
    struct before b;
    struct at_sched_decision d = decide(w, x);
    size_t done = 0;
    keep(w, x, &b);
    if (d.nominated != NULL) {
        struct at_sched_remedy r = {.kind = "victims", .message = d.message};
        for (size_t i = 0; i < d.n_victims; i++) {
            end(w, d.victims[i]);
        }
        must_fit(w, x, seed, &r);
        put_back(w, x, &b);
    }
    for (size_t k = 0; d.node == NULL && k < d.n_remedies; k++) {
        const struct at_sched_remedy *r = &d.remedies[k];
        bool more = strncmp(r->message, "1 node more", 11) == 0;
        if (at_streq(r->kind, "Affinity") ||
            (at_streq(r->kind, "Preempt") && r->n_instances == 0)) {
            continue; /* the other way round; who keeps those that would have to go */
        }
        if (strstr(r->message, "region unknown") != NULL ||
            (at_streq(r->kind, "Site") && places(x)->max_skew > 0)) {
            continue; /* it would come under other rules; emptier places would be open */
        }
        for (size_t site = 0; more && site < w->n_sites; site++) {
            bool anywhere = strstr(r->message, " at site ") == NULL;
            bool meant = places(x)->regions.n == 0 ||
                         at_streq(w->sites[site]->spec.region, places(x)->regions.items[0]);
            if (anywhere && meant) {
                join(w, x, r->message, site);
                must_fit(w, x, seed, r);
                put_back(w, x, &b);
            }
        }
        if (more) {
            join(w, x, r->message, 0);
        } else if (at_streq(r->kind, "Preempt")) {
            for (size_t i = 0; i < r->n_instances; i++) {
                end(w, r->instances[i]);
            }
        } else {
            lift(w, x, r);
        }
        if (!more || strstr(r->message, " at site ") != NULL) {
            must_fit(w, x, seed, r);
        }
        put_back(w, x, &b);
        *ret_kinds |= (size_t)1 << (r->kind[0] - 'A') | (size_t)more << 32;
        done++;
    }
    return done;
}

static void bind_all(struct world *w)
{
    for (size_t i = 0; i < w->plan.n; i++) {
        const struct at_sched_decision *d = &w->plan.decisions[i];
        struct at_instance *x = (struct at_instance *)d->instance;
        if (d->node == NULL) {
            continue;
        }
        x->status.gpus.items = world_alloc(w, sizeof(struct at_instance_gpu) * (d->n_gpus + 1));
        x->status.gpus.n = d->n_gpus;
        for (size_t k = 0; k < d->n_gpus; k++) {
            x->status.gpus.items[k] =
                (struct at_instance_gpu){.index = d->gpus[k].index, .milli = d->gpus[k].milli};
        }
        world_bind(x, d->node->meta.name, (int64_t)i);
    }
}

static void each_remedy_done_as_told_finds_a_place(void **state)
{
    (void)state;
    size_t done = 0, kinds = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct world w;
        struct rng r = {seed};
        world_random(&w, &r);
        world_schedule(&w);
        bind_all(&w);
        for (size_t k = 0; k < w.n_instances; k++) {
            struct at_instance *x = w.instances[k];
            if (x->spec.node_name == NULL) {
                x->spec.preemption_policy = one_in(&r, 2) ? "Never" : NULL;
                done += do_as_told(&w, x, seed, &kinds);
            }
        }
        world_done(&w);
    }
    assert_true(done > SEEDS);
    assert_true(kinds >> 32 != 0); /* nodes more */
    assert_true((kinds >> ('P' - 'A') & 1) != 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_remedy_done_as_told_finds_a_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
