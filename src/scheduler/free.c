/* What nodes have left. */
#include "scheduler/scheduler_priv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* What a node reports is not to be trusted: below nothing is nothing, and there is an end. */
static int64_t sane(int64_t amount)
{
    return amount < 0 ? 0 : amount < AT_SCHED_AMOUNT_MAX ? amount : AT_SCHED_AMOUNT_MAX;
}

struct sched_demand sched_demand_of(const struct at_workload *spec)
{
    struct sched_demand d = {0};
    const struct at_resources *r = spec->resources;
    if (r == NULL) {
        return d;
    }
    d.cpu_milli = sane(r->cpu_milli);
    d.memory_bytes = sane(r->memory_bytes);
    d.disk_bytes = sane(r->disk_bytes);
    d.topology = sched_topology_of(r);
    if (r->gpu_milli > 0) {
        /* A fraction shares one GPU; more than one is rounded up to whole ones. */
        bool share = r->gpu_milli < AT_SCHED_GPU_MILLI;
        d.gpu_count = share ? 1 : (r->gpu_milli - 1) / AT_SCHED_GPU_MILLI + 1;
        d.gpu_milli = share ? r->gpu_milli : AT_SCHED_GPU_MILLI;
        d.gpu_memory_bytes = sane(r->gpu_memory_bytes);
        d.gpu_models = r->gpu_models.n > 0 ? &r->gpu_models : NULL;
    }
    d.extended = r->extended.n > 0 ? &r->extended : NULL;
    return d;
}

/* Validation has checked the form: up to 15 digits. */
int64_t sched_amount(const char *text)
{
    int64_t n = 0;
    for (; text != NULL && *text >= '0' && *text <= '9' && n <= AT_SCHED_AMOUNT_MAX; text++) {
        n = n * 10 + (*text - '0');
    }
    return n < AT_SCHED_AMOUNT_MAX ? n : AT_SCHED_AMOUNT_MAX;
}

static enum at_rc extended_init(struct sched_node *n, const struct at_model_map *map,
                                struct at_arena *arena)
{
    size_t count = map->n < AT_SCHED_EXTENDED_MAX ? map->n : AT_SCHED_EXTENDED_MAX;
    n->extended = at_arena_alloc(arena, sizeof(*n->extended) * (count + 1));
    n->cap_extended = at_arena_alloc(arena, sizeof(*n->cap_extended) * (count + 1));
    if (n->extended == NULL || n->cap_extended == NULL) {
        return AT_NOMEM;
    }
    n->n_extended = count;
    for (size_t i = 0; i < count; i++) {
        n->cap_extended[i] = sched_amount(map->items[i].value);
        n->extended[i] = (struct sched_extended){map->items[i].key, n->cap_extended[i]};
    }
    return AT_OK;
}

int64_t sched_extended_free(const struct sched_node *n, const char *name)
{
    for (size_t i = 0; i < n->n_extended; i++) {
        if (at_streq(n->extended[i].name, name)) {
            return n->extended[i].amount;
        }
    }
    return 0;
}

static const char *not_ready_reason(const struct at_node *node)
{
    if (node->meta.deletion_wall_ns != 0) {
        return "being deleted";
    }
    for (size_t i = 0; i < node->status.conditions.n; i++) {
        const struct at_condition *c = &node->status.conditions.items[i];
        if (at_streq(c->type, "Ready")) {
            if (at_streq(c->status, "True")) {
                return NULL;
            }
            return c->reason != NULL ? c->reason : "not ready";
        }
    }
    return "no heartbeat yet";
}

enum at_rc sched_node_init(struct sched_node *n, const struct at_node *node, struct at_arena *arena)
{
    memset(n, 0, sizeof(*n));
    n->node = node;
    n->not_ready = not_ready_reason(node);
    const struct at_resources *r =
        node->status.allocatable != NULL ? node->status.allocatable : node->status.capacity;
    if (r == NULL) {
        return AT_OK;
    }
    n->cpu_milli = n->cap_cpu_milli = sane(r->cpu_milli);
    n->memory_bytes = n->cap_memory_bytes = sane(r->memory_bytes);
    n->disk_bytes = n->cap_disk_bytes = sane(r->disk_bytes);
    if (extended_init(n, &r->extended, arena) != AT_OK) {
        return AT_NOMEM;
    }
    int64_t left = r->gpu_milli > 0 ? r->gpu_milli : 0;
    int64_t count = (left + AT_SCHED_GPU_MILLI - 1) / AT_SCHED_GPU_MILLI;
    if (node->status.gpus.n > 0 && count > (int64_t)node->status.gpus.n) {
        count = (int64_t)node->status.gpus.n;
    }
    if (count > AT_SCHED_GPUS_PER_NODE) {
        count = AT_SCHED_GPUS_PER_NODE;
    }
    n->gpus = at_arena_alloc(arena, sizeof(*n->gpus) * (size_t)(count + 1));
    if (n->gpus == NULL) {
        return AT_NOMEM;
    }
    n->n_gpus = (size_t)count;
    for (size_t i = 0; i < n->n_gpus; i++) {
        struct sched_gpu *g = &n->gpus[i];
        g->cap_milli = g->free_milli = left < AT_SCHED_GPU_MILLI ? left : AT_SCHED_GPU_MILLI;
        left -= g->cap_milli;
        n->cap_gpu_milli += g->cap_milli;
        if (i < node->status.gpus.n) {
            g->model = node->status.gpus.items[i].model;
            g->memory_bytes = g->free_memory_bytes = node->status.gpus.items[i].memory_bytes;
        }
    }
    return AT_OK;
}

bool sched_instance_holds(const struct at_instance *instance)
{
    return instance->spec.node_name != NULL && instance->spec.node_name[0] != '\0' &&
           !at_streq(instance->status.phase, "Succeeded") &&
           !at_streq(instance->status.phase, "Failed");
}

static bool gpu_model_ok(const struct sched_gpu *g, const struct sched_demand *d)
{
    return d->gpu_models == NULL ||
           (g->model != NULL && sched_strings_have(d->gpu_models, g->model));
}

enum at_sched_rule sched_gpu_check(const struct sched_node *n, const struct sched_demand *d)
{
    if (d->gpu_count == 0) {
        return AT_SCHED_RULE_COUNT;
    }
    if (n->gpus_unknown) {
        return AT_SCHED_GPU;
    }
    int64_t of_model = 0;
    int64_t with_room = 0;
    int64_t fitting = 0;
    for (size_t i = 0; i < n->n_gpus; i++) {
        const struct sched_gpu *g = &n->gpus[i];
        bool model = gpu_model_ok(g, d);
        of_model += model;
        with_room += model && g->free_milli >= d->gpu_milli;
        fitting += sched_gpu_fits(g, d);
    }
    if (fitting >= d->gpu_count) {
        return AT_SCHED_RULE_COUNT;
    }
    if (of_model < d->gpu_count && (int64_t)n->n_gpus >= d->gpu_count) {
        return AT_SCHED_GPU_MODEL;
    }
    return with_room < d->gpu_count ? AT_SCHED_GPU : AT_SCHED_GPU_MEMORY;
}

void sched_take(struct sched_node *n, const struct sched_demand *d)
{
    n->cpu_milli -= d->cpu_milli;
    n->memory_bytes -= d->memory_bytes;
    n->disk_bytes -= d->disk_bytes;
    for (size_t i = 0; d->extended != NULL && i < n->n_extended; i++) {
        n->extended[i].amount -= sched_amount(at_model_map_get(d->extended, n->extended[i].name));
    }
    if (d->gpu_count == 0 || n->gpus_unknown) {
        return;
    }
    uint32_t index[AT_SCHED_GPUS_PER_NODE];
    size_t count = sched_gpus_near(n, d, index);
    n->gpus_unknown = count == 0;
    for (size_t k = 0; k < count; k++) {
        struct sched_gpu *g = &n->gpus[index[k]];
        g->free_milli -= d->gpu_milli;
        g->free_memory_bytes -= d->gpu_memory_bytes;
        assert(g->free_milli >= 0);
    }
}

int64_t sched_gpu_free(const struct sched_node *n)
{
    int64_t sum = 0;
    for (size_t i = 0; i < n->n_gpus && !n->gpus_unknown; i++) {
        sum += n->gpus[i].free_milli;
    }
    return sum;
}

static int by_schedule_order(const void *a, const void *b)
{
    const struct at_instance *x = *(const struct at_instance *const *)a;
    const struct at_instance *y = *(const struct at_instance *const *)b;
    if (x->status.scheduled_at_wall_ns != y->status.scheduled_at_wall_ns) {
        return x->status.scheduled_at_wall_ns < y->status.scheduled_at_wall_ns ? -1 : 1;
    }
    int c = strcmp(x->meta.name, y->meta.name);
    return c != 0
               ? c
               : strcmp(x->meta.ns != NULL ? x->meta.ns : "", y->meta.ns != NULL ? y->meta.ns : "");
}

/* The GPUs that bound instances hold are not recorded yet: which ones they are is found by doing
 * the choices again in the order in which they were made. When that no longer works out (an
 * instance in the middle has gone), the node takes no further GPU work until something leaves. */
enum at_rc sched_take_bound(struct sched *s)
{
    const struct at_instance **with_gpu =
        at_arena_alloc(s->arena, sizeof(*with_gpu) * (s->snap->n_instances + 1));
    if (with_gpu == NULL) {
        return AT_NOMEM;
    }
    size_t n = 0;
    for (size_t i = 0; i < s->snap->n_instances; i++) {
        const struct at_instance *instance = s->snap->instances[i];
        if (!sched_instance_holds(instance)) {
            continue;
        }
        struct sched_node *node = at_map_get(s->node_by_name, instance->spec.node_name);
        if (node == NULL) {
            continue;
        }
        struct sched_demand d = sched_demand_of(&instance->spec);
        if (d.gpu_count > 0) {
            with_gpu[n++] = instance;
        } else {
            sched_take(node, &d);
        }
    }
    qsort(with_gpu, n, sizeof(*with_gpu), by_schedule_order);
    for (size_t i = 0; i < n; i++) {
        struct sched_demand d = sched_demand_of(&with_gpu[i]->spec);
        sched_take(at_map_get(s->node_by_name, with_gpu[i]->spec.node_name), &d);
    }
    return AT_OK;
}

struct at_sched_free at_sched_node_free(const struct at_snapshot *snap, const struct at_node *node)
{
    struct at_sched_free free_now = {0};
    struct sched_node n;
    struct at_arena *arena = at_arena_new(0);
    struct sched s = {.snap = snap, .arena = arena, .node_by_name = at_map_new()};
    if (sched_node_init(&n, node, arena) == AT_OK) {
        (void)at_map_put(s.node_by_name, node->meta.name, &n);
        if (sched_take_bound(&s) == AT_OK) {
            free_now = (struct at_sched_free){n.cpu_milli, n.memory_bytes, n.disk_bytes,
                                              sched_gpu_free(&n)};
        }
    }
    at_map_free(s.node_by_name);
    at_arena_free(arena);
    return free_now;
}
