/* The scheduler that is kept decides as one that looks at everything anew, whatever happened
 * before; and nothing is given away twice. Random histories from printed seeds. */
#include "world_test.h"

#include "scheduler/engine.h"

#define HISTORIES 25
#define STEPS 60

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

struct history {
    struct world w;
    struct rng r;
    struct at_scheduler *kept;
    int next_name;
    size_t placed, refused;
};

static int by_key(const void *a, const void *b)
{
    const struct at_meta *x = *(struct at_meta *const *)a;
    const struct at_meta *y = *(struct at_meta *const *)b;
    return strcmp(x->name, y->name);
}

/* Snapshots are ordered by name. */
static struct at_snapshot snapshot(struct history *h)
{
    struct world *w = &h->w;
    qsort(w->nodes, w->n_nodes, sizeof w->nodes[0], by_key);
    qsort(w->instances, w->n_instances, sizeof w->instances[0], by_key);
    qsort(w->sites, w->n_sites, sizeof w->sites[0], by_key);
    return world_snapshot(w);
}

static void add_site(struct history *h)
{
    char name[16];
    static const char *const laws[] = {"EU", "US"};
    snprintf(name, sizeof name, "s%d", h->next_name++);
    struct at_site *s = world_site(&h->w, name, "edge", laws[upto(&h->r, 2)]);
    world_price(&h->w, s, upto(&h->r, 1000));
    at_scheduler_changed(h->kept, &AT_KIND_SITE, NULL, name);
}

static void add_node(struct history *h)
{
    char name[16];
    snprintf(name, sizeof name, "n%d", h->next_name++);
    const char *site = h->w.sites[upto(&h->r, (int64_t)h->w.n_sites)]->meta.name;
    struct at_node *n =
        world_node(&h->w, name, site, 1000 * upto(&h->r, 9), GIB * (1 + upto(&h->r, 16)));
    if (upto(&h->r, 2) == 0) {
        world_gpus(&h->w, n, (size_t)(1 + upto(&h->r, 4)), upto(&h->r, 2) ? "T4" : "A10", 16 * GIB);
    }
    if (upto(&h->r, 3) == 0) {
        struct at_model_kv *kv = world_alloc(&h->w, sizeof *kv);
        *kv = (struct at_model_kv){"example.com/fpga", "2"};
        ((struct at_resources *)n->status.allocatable)->extended = (struct at_model_map){kv, 1};
    }
    at_scheduler_changed(h->kept, &AT_KIND_NODE, NULL, name);
}

static void add_instance(struct history *h)
{
    char name[16], owner[16];
    snprintf(name, sizeof name, "i%d", h->next_name++);
    snprintf(owner, sizeof owner, "o%d", (int)upto(&h->r, 3));
    struct at_instance *i =
        world_instance(&h->w, name, upto(&h->r, 3) ? owner : NULL, 250 * upto(&h->r, 8));
    wants(i)->memory_bytes = GIB * upto(&h->r, 3);
    if (upto(&h->r, 2) == 0) {
        wants(i)->gpu_milli =
            upto(&h->r, 2) ? 100 * (1 + upto(&h->r, 9)) : 1000 * (1 + upto(&h->r, 2));
        wants(i)->gpu_memory_bytes = GIB * upto(&h->r, 9);
    }
    if (upto(&h->r, 6) == 0) {
        struct at_model_kv *kv = world_alloc(&h->w, sizeof *kv);
        *kv = (struct at_model_kv){"example.com/fpga", "1"};
        wants(i)->extended = (struct at_model_map){kv, 1};
    }
    i->spec.priority = upto(&h->r, 3);
    i->spec.preemption_policy = "Never";
    i->meta.creation_wall_ns = h->next_name;
    places(i)->spread_by = upto(&h->r, 2) ? "node" : "site";
    places(i)->max_skew = upto(&h->r, 3);
    at_scheduler_changed(h->kept, &AT_KIND_INSTANCE, "default", name);
}

#define COPY_OF(h, type, old)                                                                      \
    ((struct type *)memcpy(WORLD_NEW(&(h)->w, struct type), old, sizeof(struct type)))

/* Objects are never changed in place: a snapshot shows new ones. */
static void change_node(struct history *h)
{
    static struct at_condition lost = {.type = "Ready", .status = "False", .reason = "Lost"};
    static struct at_condition ready = {.type = "Ready", .status = "True"};
    size_t at = (size_t)upto(&h->r, (int64_t)h->w.n_nodes);
    struct at_node *n = COPY_OF(h, at_node, h->w.nodes[at]);
    struct at_resources *r = COPY_OF(h, at_resources, n->status.allocatable);
    h->w.nodes[at] = n;
    n->status.allocatable = r;
    switch (upto(&h->r, 6)) {
    case 0:
        n->status.conditions.items = &lost;
        break;
    case 1:
        n->status.conditions.items = &ready;
        break;
    case 2:
        n->spec.unschedulable = !n->spec.unschedulable;
        break;
    case 3: /* shrinks or grows; also to nonsense */
        r->cpu_milli = upto(&h->r, 8) == 0 ? -5 : upto(&h->r, 9) * 1000;
        break;
    case 4:
        r->gpu_milli = upto(&h->r, 5) == 0 ? INT64_MAX : upto(&h->r, 5) * 1000;
        break;
    default: /* nothing that matters */
        n->status.instances = upto(&h->r, 100);
    }
    at_scheduler_changed(h->kept, &AT_KIND_NODE, NULL, n->meta.name);
}

static void remove_node(struct history *h)
{
    size_t at = (size_t)upto(&h->r, (int64_t)h->w.n_nodes);
    at_scheduler_changed(h->kept, &AT_KIND_NODE, NULL, h->w.nodes[at]->meta.name);
    h->w.nodes[at] = h->w.nodes[--h->w.n_nodes];
}

static void change_instance(struct history *h)
{
    size_t at = (size_t)upto(&h->r, (int64_t)h->w.n_instances);
    struct at_instance *i = COPY_OF(h, at_instance, h->w.instances[at]);
    h->w.instances[at] = i;
    at_scheduler_changed(h->kept, &AT_KIND_INSTANCE, "default", i->meta.name);
    switch (upto(&h->r, 4)) {
    case 0:
        i->status.phase = "Failed";
        break;
    case 1:
        i->meta.deletion_wall_ns = 5;
        break;
    case 2:
        i->status.ready = !i->status.ready;
        break;
    default:
        h->w.instances[at] = h->w.instances[--h->w.n_instances];
    }
}

static void change_site(struct history *h)
{
    static const char *const laws[] = {"EU", "US"};
    size_t at = (size_t)upto(&h->r, (int64_t)h->w.n_sites);
    struct at_site *site = COPY_OF(h, at_site, h->w.sites[at]);
    h->w.sites[at] = site;
    switch (upto(&h->r, 3)) {
    case 0:
        site->spec.jurisdiction = laws[upto(&h->r, 2)];
        break;
    case 1:
        world_price(&h->w, site, upto(&h->r, 1000));
        break;
    default: /* nothing that matters */
        site->status.nodes = upto(&h->r, 100);
    }
    at_scheduler_changed(h->kept, &AT_KIND_SITE, NULL, site->meta.name);
}

static void happen(struct history *h)
{
    if (upto(&h->r, 12) == 0) {
        change_site(h);
    }
    int64_t what = upto(&h->r, 10);
    if (what < 5 && h->w.n_instances < WORLD_MAX - 1) {
        add_instance(h);
    } else if (what == 5 && h->w.n_nodes < 16) {
        add_node(h);
    } else if (what == 6 && h->w.n_nodes > 1) {
        (upto(&h->r, 4) == 0 ? remove_node : change_node)(h);
    } else if (what == 7 && h->w.n_sites < 6 && upto(&h->r, 4) == 0) {
        add_site(h);
    } else if (h->w.n_instances > 0) {
        change_instance(h);
    }
}

static const struct at_sched_decision *find(const struct at_sched_plan *plan, const char *name)
{
    for (size_t i = 0; i < plan->n; i++) {
        if (at_streq(plan->decisions[i].instance->meta.name, name)) {
            return &plan->decisions[i];
        }
    }
    return NULL;
}

static void same_decision(const struct at_sched_decision *a, const struct at_sched_decision *b)
{
    assert_string_equal(a->message, b->message);
    assert_ptr_equal(a->node, b->node);
    assert_int_equal(a->score, b->score);
    assert_ptr_equal(a->runner_up, b->runner_up);
    assert_int_equal(a->n_gpus, b->n_gpus);
    for (size_t k = 0; k < a->n_gpus; k++) {
        assert_int_equal(a->gpus[k].index, b->gpus[k].index);
        assert_int_equal(a->gpus[k].milli, b->gpus[k].milli);
    }
    assert_memory_equal(a->refused, b->refused, sizeof a->refused);
    for (size_t k = 0; k < AT_SCHED_RULE_COUNT; k++) {
        assert_int_equal(a->refused[k] > 0, a->example[k] != NULL);
        assert_true(at_streq(a->example[k], b->example[k]) || a->refused[k] == 0);
    }
}

/* As the placement controller does; now and then a write is refused, or comes later. */
static void bind(struct history *h, const struct at_sched_decision *d)
{
    for (size_t k = 0; k < h->w.n_instances && d->node != NULL; k++) {
        if (!at_streq(h->w.instances[k]->meta.name, d->instance->meta.name)) {
            continue;
        }
        if (upto(&h->r, 8) == 0) {
            at_scheduler_forget(h->kept, "default", d->instance->meta.name);
            return;
        }
        struct at_instance *i = COPY_OF(h, at_instance, h->w.instances[k]);
        i->spec.node_name = d->node->meta.name;
        i->status.scheduled_at_wall_ns = h->next_name++;
        i->status.gpus.items = world_alloc(&h->w, sizeof(struct at_instance_gpu) * (d->n_gpus + 1));
        i->status.gpus.n = d->n_gpus;
        for (size_t g = 0; g < d->n_gpus; g++) {
            i->status.gpus.items[g] =
                (struct at_instance_gpu){.index = d->gpus[g].index,
                                         .milli = d->gpus[g].milli,
                                         .memory_bytes = d->gpus[g].memory_bytes};
        }
        h->w.instances[k] = i;
        at_scheduler_changed(h->kept, &AT_KIND_INSTANCE, "default", i->meta.name);
    }
}

/* No GPU is given to more than it has, by the records alone. Nodes that shrank may be over. */
static void check_gpus(const struct history *h, const struct at_sched_decision *d)
{
    for (size_t k = 0; d->node != NULL && k < d->n_gpus; k++) {
        int64_t sum = 0;
        for (size_t i = 0; i < h->w.n_instances; i++) {
            const struct at_instance *x = h->w.instances[i];
            bool on = at_streq(x->spec.node_name, d->node->meta.name) &&
                      !at_streq(x->status.phase, "Failed");
            for (size_t g = 0; on && g < x->status.gpus.n; g++) {
                sum += x->status.gpus.items[g].index == d->gpus[k].index
                           ? x->status.gpus.items[g].milli
                           : 0;
            }
        }
        assert_true(sum <= 1000);
    }
}

/* What each node has free, counted as things came and went, is what it has when counted anew. */
static void same_room(struct history *h, const struct at_snapshot *snap)
{
    struct at_scheduler *anew = at_scheduler_new();
    at_scheduler_update(anew, snap);
    assert_int_equal(anew->s.n_nodes, h->kept->s.n_nodes);
    for (size_t i = 0; i < anew->s.n_nodes; i++) {
        const struct sched_node *x = h->kept->s.by_rank[i], *y = anew->s.by_rank[i];
        assert_string_equal(x->node->meta.name, y->node->meta.name);
        assert_ptr_equal(x->site, y->site);
        assert_int_equal(x->cpu_milli, y->cpu_milli);
        assert_int_equal(x->memory_bytes, y->memory_bytes);
        assert_int_equal(x->n_gpus, y->n_gpus);
        assert_int_equal(x->gpus_unknown, y->gpus_unknown);
        for (size_t g = 0; g < x->n_gpus; g++) {
            assert_int_equal(x->gpus[g].free_milli, y->gpus[g].free_milli);
            assert_int_equal(x->gpus[g].free_memory_bytes, y->gpus[g].free_memory_bytes);
        }
    }
    at_scheduler_free(anew);
}

static void compare(struct history *h)
{
    struct at_snapshot snap = snapshot(h);
    struct at_sched_plan kept, anew;
    const struct at_instance *pending[WORLD_MAX];
    size_t n = 0;
    for (size_t i = 0; i < h->w.n_instances; i++) {
        const struct at_instance *x = h->w.instances[i];
        if (x->spec.node_name == NULL && x->meta.deletion_wall_ns == 0 &&
            !at_streq(x->status.phase, "Failed")) {
            pending[n++] = x;
        }
    }
    at_scheduler_update(h->kept, &snap);
    same_room(h, &snap);
    h->kept->s.epoch += sched_mix_update(&h->kept->s, true);
    assert_int_equal(at_scheduler_pending(h->kept), n);
    assert_int_equal(at_scheduler_plan(h->kept, SIZE_MAX, 0, h->w.arena, &kept), AT_OK);
    assert_int_equal(at_schedule(&snap, pending, n, 0, h->w.arena, &anew), AT_OK);
    for (size_t i = 0; i < anew.n; i++) {
        const struct at_sched_decision *mine = find(&kept, anew.decisions[i].instance->meta.name);
        if (mine != NULL) {
            same_decision(mine, &anew.decisions[i]);
        } else {
            assert_null(anew.decisions[i].node); /* nothing new could help it */
        }
        h->placed += anew.decisions[i].node != NULL;
        h->refused += anew.decisions[i].node == NULL;
    }
    for (size_t i = 0; i < kept.n; i++) {
        bind(h, &kept.decisions[i]);
    }
    for (size_t i = 0; i < kept.n; i++) {
        check_gpus(h, &kept.decisions[i]);
    }
}

static void decides_as_one_that_looks_at_everything(void **state)
{
    (void)state;
    size_t placed = 0, refused = 0;
    for (uint64_t seed = 1; seed <= HISTORIES; seed++) {
        struct history h = {.r = {seed}, .kept = at_scheduler_new()};
        h.kept->s.large_group = seed % 2 == 0 ? 0 : SCHED_LARGE_GROUP; /* as if all were large */
        world_init(&h.w);
        add_site(&h);
        add_node(&h);
        for (int step = 0; step < STEPS; step++) {
            for (int64_t k = upto(&h.r, 4); k >= 0; k--) {
                happen(&h);
            }
            compare(&h);
        }
        placed += h.placed;
        refused += h.refused;
        at_scheduler_free(h.kept);
        world_done(&h.w);
    }
    assert_true(placed > HISTORIES * 10); /* the property is not empty */
    assert_true(refused > HISTORIES * 10);
}

static void nonsense_in_weights_and_capacity_is_cut(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    world_site(&w, "s", "edge", "EU");
    const int64_t odd[] = {INT64_MIN, -1, 0, INT64_MAX};
    for (size_t k = 0; k < AT_ARRAY_LEN(odd); k++) {
        char name[8];
        snprintf(name, sizeof name, "n%zu", k);
        struct at_node *n = world_node(&w, name, "s", odd[k], odd[k]);
        world_gpus(&w, n, 1, "T4", odd[k]);
        ((struct at_resources *)n->status.allocatable)->gpu_milli = odd[k];
        ((struct at_resources *)n->status.allocatable)->disk_bytes = odd[k];
    }
    for (size_t k = 0; k < AT_ARRAY_LEN(odd); k++) {
        char name[8];
        snprintf(name, sizeof name, "i%zu", k);
        struct at_instance *i = world_instance(&w, name, NULL, 1000);
        struct at_weights *weights = WORLD_NEW(&w, struct at_weights);
        *weights = (struct at_weights){odd[k], odd[k], odd[k], odd[k], odd[k]};
        weights->fragmentation = weights->balance = odd[k];
        places(i)->weights = weights;
        wants(i)->gpu_milli = 100;
    }
    world_schedule(&w);
    for (size_t k = 0; k < w.plan.n; k++) { /* the only one that has anything */
        assert_string_equal(w.plan.decisions[k].node->meta.name, "n3");
        assert_true(w.plan.decisions[k].score >= 0);
        assert_true(w.plan.decisions[k].score <= 1000);
    }
    world_done(&w);
}

static void what_no_node_could_ever_take_is_told_at_once(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    world_site(&w, "s", "edge", "EU");
    world_node(&w, "n", "s", 4000, 8 * GIB);
    world_instance(&w, "huge", NULL, 5000);
    world_instance(&w, "now", NULL, 4000);
    world_instance(&w, "later", NULL, 4000);
    world_schedule(&w);
    assert_true(world_decision(&w, "huge")->never);
    assert_false(world_decision(&w, "now")->never);
    assert_null(world_where(&w, world_where(&w, "now") != NULL ? "later" : "now"));
    assert_false(world_decision(&w, "later")->never);
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nonsense_in_weights_and_capacity_is_cut),
        cmocka_unit_test(what_no_node_could_ever_take_is_told_at_once),
        cmocka_unit_test(decides_as_one_that_looks_at_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
