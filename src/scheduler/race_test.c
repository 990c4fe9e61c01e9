/* Two schedulers on one store, each with a picture that may be old: compare-and-swap decides who
 * binds an instance, and the machine's own admission (src/agent/admit.c, modelled here) keeps two
 * bindings of different instances from taking the same room. Whatever happens, no CPU, memory or
 * GPU is held by more than it has. Usage: race_test [OPERATIONS], 45,000 without. */
#include "world_test.h"

#include "scheduler/engine.h"

#define EPOCH 1500 /* operations in one world, from one seed */
#define NODES 6
#define GPUS 2

static size_t operations = 45000;

struct rng {
    uint64_t x;
};
static int64_t upto(struct rng *r, int64_t n) /* splitmix64 */
{
    uint64_t z = (r->x += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (int64_t)((z ^ (z >> 31)) % (uint64_t)n);
}

/* A scheduler and the picture it has. */
struct planner {
    struct at_scheduler *sched;
    struct world seen;
    struct at_snapshot snap;
};

struct race {
    struct world w; /* the store: what is true */
    struct rng r;
    struct planner planners[2];
    int next_name;
    size_t bound, conflicts, refused;
};

static int by_name(const void *a, const void *b)
{
    return strcmp((*(struct at_meta *const *)a)->name, (*(struct at_meta *const *)b)->name);
}

static void tell(struct race *x, const struct at_model_kind *kind, const char *name)
{
    for (int k = 0; k < 2; k++) {
        at_scheduler_changed(x->planners[k].sched, kind,
                             kind == &AT_KIND_INSTANCE ? "default" : NULL, name);
    }
}

static void look(struct race *x, struct planner *p)
{
    qsort(x->w.nodes, x->w.n_nodes, sizeof x->w.nodes[0], by_name);
    qsort(x->w.instances, x->w.n_instances, sizeof x->w.instances[0], by_name);
    p->seen = x->w;
    p->snap = world_snapshot(&p->seen);
    at_scheduler_update(p->sched, &p->snap);
}

static void add_node(struct race *x)
{
    char name[16];
    snprintf(name, sizeof name, "n%d", x->next_name++);
    struct at_node *n = world_node(&x->w, name, "s", 1000 * (4 + upto(&x->r, 5)), 16 * GIB);
    world_gpus(&x->w, n, GPUS, "T4", 16 * GIB);
    tell(x, &AT_KIND_NODE, name);
}

static void add_instance(struct race *x)
{
    char name[16];
    snprintf(name, sizeof name, "i%06d", x->next_name++);
    struct at_instance *i = world_instance(&x->w, name, NULL, 250 * (1 + upto(&x->r, 8)));
    wants(i)->memory_bytes = GIB * upto(&x->r, 6);
    if (upto(&x->r, 2) == 0) {
        wants(i)->gpu_milli =
            upto(&x->r, 3) == 0 ? 1000 * (1 + upto(&x->r, 2)) : 100 * (1 + upto(&x->r, 9));
    }
    i->spec.priority = upto(&x->r, 2);
    tell(x, &AT_KIND_INSTANCE, name);
}

/* Everything that the agent of node took on. Above what it has: a failure. */
static bool fits(const struct world *w, const struct at_node *node, const struct at_instance *more)
{
    int64_t cpu = 0, memory = 0, gpu[GPUS] = {0};
    for (size_t k = 0; k <= w->n_instances; k++) {
        const struct at_instance *i = k < w->n_instances ? w->instances[k] : more;
        if (i == NULL || (i != more && (!at_streq(i->status.phase, "Running") ||
                                        !at_streq(i->spec.node_name, node->meta.name)))) {
            continue;
        }
        cpu += i->spec.resources->cpu_milli;
        memory += i->spec.resources->memory_bytes;
        for (size_t g = 0; g < i->status.gpus.n; g++) {
            gpu[i->status.gpus.items[g].index] += i->status.gpus.items[g].milli;
        }
    }
    return cpu <= node->status.allocatable->cpu_milli &&
           memory <= node->status.allocatable->memory_bytes && gpu[0] <= 1000 && gpu[1] <= 1000;
}

static const struct at_node *node_of(const struct world *w, const char *name)
{
    for (size_t k = 0; k < w->n_nodes; k++) {
        if (at_streq(w->nodes[k]->meta.name, name)) {
            return w->nodes[k];
        }
    }
    return NULL;
}

/* The write names the version it builds on; the agent that then sees it has the last word. */
static void bind(struct race *x, struct planner *p, const struct at_sched_decision *d)
{
    for (size_t k = 0; k < x->w.n_instances; k++) {
        if (x->w.instances[k] != d->instance) {
            continue;
        }
        struct at_instance *i = WORLD_NEW(&x->w, struct at_instance);
        *i = *d->instance;
        i->spec.node_name = d->node->meta.name;
        i->status.scheduled_at_wall_ns = x->next_name++;
        i->status.gpus.items = world_alloc(&x->w, sizeof(struct at_instance_gpu) * (GPUS + 1));
        i->status.gpus.n = d->n_gpus;
        for (size_t g = 0; g < d->n_gpus; g++) {
            i->status.gpus.items[g] =
                (struct at_instance_gpu){.index = d->gpus[g].index, .milli = d->gpus[g].milli};
        }
        const struct at_node *node = node_of(&x->w, i->spec.node_name);
        bool ok = node != NULL && fits(&x->w, node, i);
        i->status.phase = ok ? "Running" : "Failed";
        x->w.instances[k] = i;
        x->bound++;
        x->refused += !ok;
        tell(x, &AT_KIND_INSTANCE, i->meta.name);
        return;
    }
    x->conflicts++;
    at_scheduler_forget(p->sched, "default", d->instance->meta.name);
}

static void plan(struct race *x)
{
    struct planner *p = &x->planners[upto(&x->r, 2)];
    struct at_sched_plan made;
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    if (upto(&x->r, 3) == 0) {
        look(x, p);
    }
    assert_int_equal(at_scheduler_plan(p->sched, 4, 0, arena, &made), AT_OK);
    for (size_t k = 0; k < made.n; k++) {
        for (size_t v = 0; v < made.decisions[k].n_victims; v++) {
            at_scheduler_forget(p->sched, "default", made.decisions[k].victims[v]->meta.name);
        }
        if (made.decisions[k].node != NULL) {
            bind(x, p, &made.decisions[k]);
        }
    }
}

static void end_one(struct race *x)
{
    size_t at = (size_t)upto(&x->r, (int64_t)x->w.n_instances);
    tell(x, &AT_KIND_INSTANCE, x->w.instances[at]->meta.name);
    x->w.instances[at] = x->w.instances[--x->w.n_instances];
}

/* A machine tells less than before, but not less than it runs. */
static void shrink(struct race *x)
{
    size_t at = (size_t)upto(&x->r, (int64_t)x->w.n_nodes);
    struct at_node *n = WORLD_NEW(&x->w, struct at_node);
    struct at_resources *r = WORLD_NEW(&x->w, struct at_resources);
    *n = *x->w.nodes[at];
    *r = *n->status.allocatable;
    n->status.allocatable = r;
    r->cpu_milli += upto(&x->r, 2) ? -1000 : 1000;
    if (r->cpu_milli < 1000 || !fits(&x->w, n, NULL)) {
        return;
    }
    x->w.nodes[at] = n;
    tell(x, &AT_KIND_NODE, n->meta.name);
}

/* A machine goes, and all that ran there; another one comes. */
static void lose_node(struct race *x)
{
    size_t at = (size_t)upto(&x->r, (int64_t)x->w.n_nodes);
    const char *name = x->w.nodes[at]->meta.name;
    for (size_t k = x->w.n_instances; k-- > 0;) {
        if (at_streq(x->w.instances[k]->spec.node_name, name)) {
            tell(x, &AT_KIND_INSTANCE, x->w.instances[k]->meta.name);
            x->w.instances[k] = x->w.instances[--x->w.n_instances];
        }
    }
    tell(x, &AT_KIND_NODE, name);
    x->w.nodes[at] = x->w.nodes[--x->w.n_nodes];
    add_node(x);
}

static void operate(struct race *x)
{
    int64_t what = upto(&x->r, 16);
    if (what < 5 && x->w.n_instances < WORLD_MAX - 1) {
        add_instance(x);
    } else if (what < 10) {
        plan(x);
    } else if (what < 14 && x->w.n_instances > 0) {
        end_one(x);
    } else if (what == 14) {
        shrink(x);
    } else if (upto(&x->r, 10) == 0) {
        lose_node(x);
    }
}

static void nothing_is_over_committed_by_two(void **state)
{
    (void)state;
    size_t bound = 0, conflicts = 0, refused = 0;
    for (uint64_t seed = 1; seed * EPOCH <= operations; seed++) {
        struct race x = {.r = {seed}};
        world_init(&x.w);
        world_site(&x.w, "s", "edge", "EU");
        for (int k = 0; k < 2; k++) {
            x.planners[k].sched = at_scheduler_new();
        }
        for (int k = 0; k < NODES; k++) {
            add_node(&x);
        }
        look(&x, &x.planners[0]);
        look(&x, &x.planners[1]);
        for (size_t step = 0; step < EPOCH; step++) {
            operate(&x);
            for (size_t k = 0; k < x.w.n_nodes; k++) {
                if (!fits(&x.w, x.w.nodes[k], NULL)) {
                    fail_msg("seed %llu, step %zu: node %s", (unsigned long long)seed, step,
                             x.w.nodes[k]->meta.name);
                }
            }
        }
        bound += x.bound;
        conflicts += x.conflicts;
        refused += x.refused;
        at_scheduler_free(x.planners[0].sched);
        at_scheduler_free(x.planners[1].sched);
        world_done(&x.w);
    }
    print_message(
        "%zu operations: %zu bound, %zu lost to a faster one, %zu refused by the machine\n",
        operations, bound, conflicts, refused);
    assert_true(bound > operations / 20); /* the property is not empty */
    assert_true(conflicts > operations / 200);
    assert_true(refused > operations / 1000);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        operations = strtoul(argv[1], NULL, 10);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_over_committed_by_two),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
