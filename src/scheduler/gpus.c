/* Which GPUs of its node a request gets. */
#include "scheduler/scheduler_priv.h"

#include <assert.h>

bool sched_gpu_fits_model(const struct sched_gpu *g, const struct sched_demand *d)
{
    return (d->gpu_models == NULL ||
            (g->model != NULL && sched_strings_have(d->gpu_models, g->model))) &&
           (!d->gpu_parts || g->part);
}

struct sched_gpu_room sched_gpu_room(const struct sched_gpu *g, const struct sched_demand *d)
{
    return (struct sched_gpu_room){g->free_milli + (d->parks ? g->parked_milli : 0),
                                   g->free_memory_bytes + (d->parks ? g->parked_memory_bytes : 0)};
}

bool sched_gpu_fits(const struct sched_gpu *g, const struct sched_demand *d)
{
    struct sched_gpu_room room = sched_gpu_room(g, d);
    return sched_gpu_fits_model(g, d) && room.milli >= d->gpu_milli &&
           room.memory_bytes >= d->gpu_memory_bytes;
}

enum at_sched_rule sched_gpu_check_plain(const struct sched_node *n, const struct sched_demand *d)
{
    if ((d->gpu_models != NULL || d->gpu_parts) && !sched_gpu_fits_model(&n->gpus[0], d)) {
        return (int64_t)n->n_gpus >= d->gpu_count ? AT_SCHED_GPU_MODEL : AT_SCHED_GPU;
    }
    bool fits = d->gpu_milli == AT_SCHED_GPU_MILLI ? n->left.free_gpus >= d->gpu_count
                                                   : n->most_milli >= d->gpu_milli;
    return fits ? AT_SCHED_RULE_COUNT : AT_SCHED_GPU;
}

/* Without a topology the tightest that fit, the lowest index among equals. Whole GPUs are all
 * equally tight, so the first free ones are taken. */
size_t sched_gpus_near(const struct sched_node *n, const struct sched_demand *d,
                       uint32_t *ret_index)
{
    bool fits[AT_SCHED_GPUS_PER_NODE];
    int64_t free_milli[AT_SCHED_GPUS_PER_NODE];
    assert(n->n_gpus <= AT_SCHED_GPUS_PER_NODE);
    if (d->gpu_count == 0 || n->gpus_unknown || d->gpu_count > (int64_t)n->n_gpus) {
        return 0;
    }
    for (size_t i = 0; i < n->n_gpus; i++) {
        fits[i] = sched_gpu_fits(&n->gpus[i], d);
        free_milli[i] = sched_gpu_room(&n->gpus[i], d).milli;
    }
    struct sched_topology_want want = {d->topology, (size_t)d->gpu_count, d->cpu_milli,
                                       d->memory_bytes, n->numa};
    bool found = sched_topology_choose(n->node, &want, fits, free_milli, n->n_gpus, ret_index);
    return found ? want.count : 0;
}

/* The GPUs are there, but not near to each other; or no NUMA node has the CPUs and memory. */
bool sched_topology_refuses(const struct sched_node *n, const struct sched_demand *d)
{
    uint32_t index[AT_SCHED_GPUS_PER_NODE];
    if (d->topology == SCHED_TOPOLOGY_ANY || d->topology == SCHED_TOPOLOGY_PREFERRED) {
        return false;
    }
    if (d->gpu_count > 0) {
        return sched_gpus_near(n, d, index) == 0;
    }
    struct sched_topology_want want = {d->topology, 0, d->cpu_milli, d->memory_bytes, n->numa};
    return !sched_topology_choose(n->node, &want, NULL, NULL, 0, NULL);
}
