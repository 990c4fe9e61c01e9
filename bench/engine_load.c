/* Decisions of the live scheduler (all rules, all objectives, names and reasons) on a made-up
 * cluster, on one core.
 * Usage: bench-engine-load NODES RUNNING DECISIONS [cpu|gpu|drift|copies] [BATCH]
 * RUNNING instances are placed first; then one after the other ends and a new one is decided, in
 * batches of BATCH (64). drift: GPUs, and what is asked for changes all the time, so that the mix
 * is learned again and again. copies: all are copies of one Deployment. Prints decisions/s, median,
 * p99.9 and worst ns per decision in a batch, the worst single plan, the share placed, the peak of
 * memory in KiB (CPU time), and a digest: the same decisions for the same reasons have the same. */
#include "core/arena.h"
#include "core/mem.h"
#include "scheduler/scheduler.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define GIB (INT64_C(1) << 30)
#define CLASSES 96
#define SITES 20
#define DRIFT_EACH 200 /* instances, then the kinds move on by one */

static uint64_t random_state = 42;
static uint64_t draw(uint64_t below)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (random_state >> 33) % below;
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

struct cluster {
    struct at_arena *arena;
    const struct at_site *sites[SITES];
    const struct at_node **nodes;
    size_t n_nodes;
    const struct at_instance **instances; /* by name, which grows */
    size_t n_instances;
    struct at_resources classes[CLASSES];
    bool gpu, drift, copies;
    uint64_t next;
    uint32_t digest; /* of what was decided, and why */
};

static void *make(struct cluster *c, size_t bytes)
{
    void *p = at_arena_alloc(c->arena, bytes);
    assert(p != NULL);
    return p;
}

static void make_nodes(struct cluster *c)
{
    static struct at_condition ready = {.type = "Ready", .status = "True"};
    static struct at_node_driver process = {.name = "process", .ready = true};
    static const char *const MODELS[] = {"A100", "T4", "V100", "L4"};
    for (int k = 0; k < SITES; k++) {
        struct at_site *s = make(c, sizeof *s);
        s->meta.name = at_arena_printf(c->arena, "s%02d", k);
        s->spec.class = "onprem";
        c->sites[k] = s;
    }
    for (size_t k = 0; k < c->n_nodes; k++) {
        struct at_node *n = make(c, sizeof *n);
        struct at_resources *r = make(c, sizeof *r);
        n->meta.name = at_arena_printf(c->arena, "n%06zu", k);
        n->spec.site = c->sites[draw(SITES)]->meta.name;
        n->status.conditions.items = &ready;
        n->status.drivers.items = &process;
        n->status.conditions.n = n->status.drivers.n = 1;
        r->cpu_milli = 32000 * (1 + (int64_t)draw(4));
        r->memory_bytes = 4 * GIB * r->cpu_milli / 1000;
        r->disk_bytes = 1000 * GIB;
        size_t gpus = c->gpu ? 2u << draw(3) : 0;
        r->gpu_milli = (int64_t)gpus * 1000;
        n->status.gpus.items = make(c, sizeof(struct at_node_gpu) * (gpus + 1));
        n->status.gpus.n = gpus;
        const char *model = MODELS[draw(4)];
        for (size_t g = 0; g < gpus; g++) {
            n->status.gpus.items[g] =
                (struct at_node_gpu){.id = "gpu", .model = model, .memory_bytes = 40 * GIB};
        }
        n->status.allocatable = r;
        c->nodes[k] = n;
    }
    for (int k = 0; k < CLASSES; k++) {
        struct at_resources *r = &c->classes[k];
        r->cpu_milli = 250 * (1 + (int64_t)draw(12));
        r->memory_bytes = GIB * (1 + (int64_t)draw(8));
        if (c->gpu && k % 8 != 0) {
            r->gpu_milli = k % 8 == 1 ? 1000 : 50 + 10 * (int64_t)draw(40);
        }
    }
}

static const struct at_instance *make_instance(struct cluster *c)
{
    struct at_instance *i = make(c, sizeof *i);
    i->meta.name = at_arena_printf(c->arena, "i%09llu", (unsigned long long)c->next++);
    i->meta.ns = "default";
    i->meta.creation_wall_ns = (int64_t)c->next;
    i->spec.resources = c->drift ? &c->classes[(draw(CLASSES / 8) + c->next / DRIFT_EACH) % CLASSES]
                                 : &c->classes[draw(CLASSES)];
    if (c->copies) {
        static struct at_owner_ref owner = {
            .kind = "Deployment", .name = "web", .uid = "1", .controller = true};
        i->meta.owners.items = &owner;
        i->meta.owners.n = 1;
        i->spec.resources = &c->classes[0];
    }
    i->spec.preemption_policy = "Never";
    i->status.phase = "Pending";
    return i;
}

static struct at_snapshot snapshot(const struct cluster *c)
{
    return (struct at_snapshot){.sites = (const struct at_site *const *)c->sites,
                                .n_sites = SITES,
                                .nodes = (const struct at_node *const *)c->nodes,
                                .n_nodes = c->n_nodes,
                                .instances = (const struct at_instance *const *)c->instances,
                                .n_instances = c->n_instances};
}

static void note(struct cluster *c, const struct at_sched_decision *d)
{
    const char *texts[] = {d->node != NULL ? d->node->meta.name : "none", d->message};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        for (const char *at = texts[i]; *at != '\0'; at++) {
            c->digest = (c->digest ^ (unsigned char)*at) * 16777619u;
        }
    }
    for (int k = 0; k < AT_SCHED_RULE_COUNT; k++) {
        c->digest = (c->digest ^ (uint32_t)d->refused[k]) * 16777619u;
    }
}

static void bind(struct cluster *c, struct at_scheduler *s, const struct at_sched_decision *d)
{
    if (d->node == NULL) {
        return;
    }
    struct at_instance *i = (struct at_instance *)(uintptr_t)d->instance;
    i->spec.node_name = d->node->meta.name;
    i->status.phase = "Running";
    i->status.scheduled_at_wall_ns = (int64_t)c->next;
    i->status.gpus.items = make(c, sizeof(struct at_instance_gpu) * (d->n_gpus + 1));
    i->status.gpus.n = d->n_gpus;
    for (size_t g = 0; g < d->n_gpus; g++) {
        i->status.gpus.items[g] = (struct at_instance_gpu){.index = d->gpus[g].index,
                                                           .milli = d->gpus[g].milli,
                                                           .memory_bytes = d->gpus[g].memory_bytes};
    }
    at_scheduler_changed(s, &AT_KIND_INSTANCE, "default", i->meta.name);
}

static int cmp_i64(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* One batch: as many end as come (over what shall run), then a plan. Returns its CPU time. */
static int64_t batch(struct cluster *c, struct at_scheduler *s, size_t running, size_t n,
                     size_t *ret_decided, size_t *ret_placed)
{
    struct at_arena *arena = at_arena_new((size_t)256 << 20);
    struct at_sched_plan plan = {0};
    for (size_t k = 0; k < n && c->n_instances >= running; k++) {
        size_t at = draw(c->n_instances);
        at_scheduler_changed(s, &AT_KIND_INSTANCE, "default", c->instances[at]->meta.name);
        memmove(&c->instances[at], &c->instances[at + 1],
                sizeof c->instances[0] * (--c->n_instances - at));
    }
    for (size_t k = 0; k < n; k++) {
        c->instances[c->n_instances++] = make_instance(c);
        at_scheduler_changed(s, &AT_KIND_INSTANCE, "default",
                             c->instances[c->n_instances - 1]->meta.name);
    }
    struct at_snapshot snap = snapshot(c);
    int64_t begin = now_ns();
    at_scheduler_update(s, &snap);
    enum at_rc rc = at_scheduler_plan(s, n, 1, arena, &plan);
    int64_t took = now_ns() - begin;
    assert(rc == AT_OK);
    (void)rc;
    for (size_t k = 0; k < plan.n; k++) {
        *ret_placed += plan.decisions[k].node != NULL;
        note(c, &plan.decisions[k]);
        bind(c, s, &plan.decisions[k]);
    }
    *ret_decided += plan.n;
    at_arena_free(arena);
    return took;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(
            stderr,
            "usage: bench-engine-load NODES RUNNING DECISIONS [cpu|gpu|drift|copies] [BATCH]\n");
        return 2;
    }
    struct cluster c = {.arena = at_arena_new((size_t)8 << 30),
                        .n_nodes = strtoul(argv[1], NULL, 10),
                        .gpu = argc > 4 && (argv[4][0] == 'g' || argv[4][0] == 'd'),
                        .copies = argc > 4 && strcmp(argv[4], "copies") == 0,
                        .drift = argc > 4 && strcmp(argv[4], "drift") == 0};
    size_t size = argc > 5 ? strtoul(argv[5], NULL, 10) : 64;
    size_t running = strtoul(argv[2], NULL, 10), wanted = strtoul(argv[3], NULL, 10);
    size_t decided = 0, placed = 0, n = 0;
    c.nodes = at_alloc(sizeof(c.nodes[0]) * (c.n_nodes + 1));
    c.instances = at_alloc(sizeof(c.instances[0]) * (running + wanted + 2000));
    make_nodes(&c);
    struct at_scheduler *s = at_scheduler_new();
    while (c.n_instances < running) {
        (void)batch(&c, s, running + 64, 64, &decided, &placed);
    }
    int64_t *times = at_alloc(sizeof(int64_t) * (wanted + 1)), sum = 0, worst_plan = 0;
    decided = placed = 0;
    while (decided < wanted) {
        size_t before = decided;
        int64_t took = batch(&c, s, running, size, &decided, &placed);
        sum += took;
        worst_plan = took > worst_plan ? took : worst_plan;
        for (size_t k = before; k < decided && n < wanted; k++) {
            times[n++] = took / (int64_t)(decided - before);
        }
        if (decided == before) {
            break;
        }
    }
    qsort(times, n, sizeof *times, cmp_i64);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("decisions_per_s=%.0f median_ns=%lld p999_ns=%lld worst_ns=%lld worst_plan_ns=%lld "
           "placed=%.3f running=%zu peak_kib=%ld digest=%u\n",
           (double)decided * 1e9 / (double)sum, (long long)times[n / 2],
           (long long)times[n - 1 - n / 1000], (long long)times[n - 1], (long long)worst_plan,
           (double)placed / (double)decided, c.n_instances, usage.ru_maxrss, c.digest);
    at_scheduler_free(s);
    return 0;
}
