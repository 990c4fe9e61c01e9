/* What nodes have left. */
#include "scheduler/engine.h"

#define CACHE_LINE 64

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
        d.gpu_parts = spec->gpu_sharing != NULL && at_streq(spec->gpu_sharing->mode, "MIG");
        d.parks = spec->gpu_sharing != NULL && spec->gpu_sharing->park_after_ns > 0;
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

int64_t sched_extended_cap(const struct sched_node *n, const char *name)
{
    for (size_t i = 0; i < n->n_extended; i++) {
        if (at_streq(n->extended[i].name, name)) {
            return n->extended[i].cap;
        }
    }
    return 0;
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

/* Pointers into the object. */
void sched_node_repoint(struct sched_node *n, const struct at_node *node)
{
    const struct at_resources *r =
        node->status.allocatable != NULL ? node->status.allocatable : node->status.capacity;
    n->node = node;
    n->not_ready = not_ready_reason(node);
    for (size_t i = 0; i < n->n_gpus; i++) {
        n->gpus[i].model = i < node->status.gpus.n ? node->status.gpus.items[i].model : NULL;
    }
    for (size_t i = 0; i < n->n_extended; i++) {
        n->extended[i].name = r->extended.items[i].key;
    }
}

/* Where in the node's NUMA nodes GPU i hangs. */
static uint8_t numa_of(const struct at_node *node, size_t i)
{
    for (size_t k = 0; i < node->status.gpus.n && k < node->status.numa_nodes.n; k++) {
        if (k < SCHED_NUMA_MAX &&
            node->status.numa_nodes.items[k].id == node->status.gpus.items[i].numa_node) {
            return (uint8_t)k;
        }
    }
    return SCHED_NUMA_MAX;
}

static void fill_gpus(struct sched_node *n, const struct at_node *node, int64_t gpu_milli)
{
    int64_t left = gpu_milli > 0 ? gpu_milli : 0;
    int64_t most = AT_SCHED_GPUS_PER_NODE * AT_SCHED_GPU_MILLI;
    left = left < most ? left : most;
    size_t count = (size_t)((left + AT_SCHED_GPU_MILLI - 1) / AT_SCHED_GPU_MILLI);
    if (node->status.gpus.n > 0 && count > node->status.gpus.n) {
        count = node->status.gpus.n;
    }
    n->gpus = at_realloc(n->gpus, sizeof(*n->gpus) * (count + 1));
    n->n_gpus = count;
    n->cap_gpu_milli = 0;
    for (size_t i = 0; i < n->n_gpus; i++) {
        struct sched_gpu *g = &n->gpus[i];
        *g = (struct sched_gpu){0};
        g->numa = numa_of(node, i);
        int64_t has = left < AT_SCHED_GPU_MILLI ? left : AT_SCHED_GPU_MILLI;
        left -= has;
        const struct at_node_gpu *told =
            i < node->status.gpus.n ? &node->status.gpus.items[i] : NULL;
        g->part = told != NULL && told->parent != NULL && told->parent[0] != '\0';
        if (told != NULL && told->fault != NULL && told->fault[0] != '\0') {
            continue; /* it is there, and has nothing to give */
        }
        g->cap_milli = g->free_milli = has;
        n->cap_gpu_milli += (int32_t)has;
        if (told != NULL) {
            g->memory_bytes = g->free_memory_bytes = sane(told->memory_bytes);
        }
    }
}

void sched_node_fill(struct sched_node *n, const struct at_node *node)
{
    static const struct at_resources NOTHING;
    const struct at_resources *r =
        node->status.allocatable != NULL ? node->status.allocatable : node->status.capacity;
    r = r != NULL ? r : &NOTHING;
    n->cpu_milli = n->cap_cpu_milli = sane(r->cpu_milli);
    n->memory_bytes = n->cap_memory_bytes = sane(r->memory_bytes);
    n->disk_bytes = n->cap_disk_bytes = sane(r->disk_bytes);
    size_t count = r->extended.n < AT_SCHED_EXTENDED_MAX ? r->extended.n : AT_SCHED_EXTENDED_MAX;
    n->extended = at_realloc(n->extended, sizeof(*n->extended) * (count + 1));
    n->n_extended = count;
    for (size_t i = 0; i < count; i++) {
        n->extended[i].cap = n->extended[i].amount = sched_amount(r->extended.items[i].value);
    }
    fill_gpus(n, node, r->gpu_milli);
    memset(n->numa, 0, sizeof(n->numa));
    n->gpus_unknown = n->plain = false;
    sched_node_repoint(n, node);
}

struct sched_node *sched_node_new(void)
{
    void *block = at_alloc(sizeof(struct sched_node) + CACHE_LINE);
    uintptr_t at = ((uintptr_t)block + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    struct sched_node *n = (struct sched_node *)at;
    n->memory = block;
    return n;
}

void sched_node_free(struct sched_node *n)
{
    at_free(n->gpus);
    at_free(n->extended);
    at_free(n->memory);
}

bool sched_instance_ended(const struct at_instance *instance)
{
    return at_streq(instance->status.phase, "Succeeded") ||
           at_streq(instance->status.phase, "Failed");
}

bool sched_instance_holds(const struct at_instance *instance)
{
    return instance->spec.node_name != NULL && instance->spec.node_name[0] != '\0' &&
           !sched_instance_ended(instance);
}

enum at_sched_rule sched_gpu_check(const struct sched_node *n, const struct sched_demand *d)
{
    if (d->gpu_count == 0) {
        return AT_SCHED_RULE_COUNT;
    }
    if (n->gpus_unknown) {
        return AT_SCHED_GPU;
    }
    if (n->plain && d->gpu_memory_bytes <= 0 && !d->parks) {
        return sched_gpu_check_plain(n, d);
    }
    int64_t of_model = 0;
    int64_t with_room = 0;
    int64_t fitting = 0;
    for (size_t i = 0; i < n->n_gpus; i++) {
        const struct sched_gpu *g = &n->gpus[i];
        bool model = sched_gpu_fits_model(g, d);
        of_model += model;
        with_room += model && sched_gpu_room(g, d).milli >= d->gpu_milli;
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

static void move(struct sched_node *n, const struct sched_demand *d,
                 const struct at_sched_gpu *gpus, size_t n_taken, int64_t sign)
{
    n->cpu_milli += sign * d->cpu_milli;
    n->memory_bytes += sign * d->memory_bytes;
    n->disk_bytes += sign * d->disk_bytes;
    for (size_t i = 0; d->extended != NULL && i < n->n_extended; i++) {
        n->extended[i].amount +=
            sign * sched_amount(at_model_map_get(d->extended, n->extended[i].name));
    }
    uint8_t numa =
        d->topology == SCHED_TOPOLOGY_SAME_NUMA && n_taken > 0 && gpus[0].index < n->n_gpus
            ? n->gpus[gpus[0].index].numa
            : SCHED_NUMA_MAX;
    if (numa < SCHED_NUMA_MAX) { /* recorded GPUs say which; CPUs alone are not told of */
        n->numa[numa].cpu_milli -= sign * d->cpu_milli;
        n->numa[numa].memory_bytes -= sign * d->memory_bytes;
    }
    n->plain = n->plain && n_taken == 0; /* until sched_mix_node has seen it */
    for (size_t i = 0; i < n_taken; i++) {
        if (gpus[i].index < n->n_gpus) { /* else it is not there any more */
            struct sched_gpu *g = &n->gpus[gpus[i].index];
            g->free_milli += sign * gpus[i].milli;
            g->free_memory_bytes += sign * gpus[i].memory_bytes;
            g->parked_milli -= gpus[i].parked ? sign * gpus[i].milli : 0;
            g->parked_memory_bytes -= gpus[i].parked ? sign * gpus[i].memory_bytes : 0;
        }
    }
}

void sched_take(struct sched_node *n, const struct sched_demand *d, const struct at_sched_gpu *gpus,
                size_t n_taken)
{
    move(n, d, gpus, n_taken, -1);
}

void sched_give_back(struct sched_node *n, const struct sched_demand *d,
                     const struct at_sched_gpu *gpus, size_t n_taken)
{
    move(n, d, gpus, n_taken, 1);
}

int64_t sched_gpu_free(const struct sched_node *n)
{
    int64_t sum = 0;
    for (size_t i = 0; i < n->n_gpus && !n->gpus_unknown; i++) {
        sum += n->gpus[i].free_milli;
    }
    return sum;
}

struct at_sched_free at_sched_node_free(const struct at_snapshot *snap, const struct at_node *node)
{
    struct at_sched_free free_now = {0};
    struct at_scheduler *sched = at_scheduler_new();
    at_scheduler_update(sched, snap);
    const struct sched_node *n = sched_node_find(&sched->s, node->meta.name);
    if (n != NULL) {
        free_now =
            (struct at_sched_free){n->cpu_milli, n->memory_bytes, n->disk_bytes, sched_gpu_free(n)};
    }
    at_scheduler_free(sched);
    return free_now;
}
