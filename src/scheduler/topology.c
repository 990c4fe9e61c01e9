#include "scheduler/topology.h"

#include "core/str.h"

#include <assert.h>

#define GPUS_MAX 1024 /* of a node; more are not looked at */

enum sched_topology sched_topology_of(const struct at_resources *wanted)
{
    const char *name = wanted != NULL ? wanted->topology : NULL;
    return at_streq(name, "SameLink")    ? SCHED_TOPOLOGY_SAME_LINK
           : at_streq(name, "SameNuma")  ? SCHED_TOPOLOGY_SAME_NUMA
           : at_streq(name, "Preferred") ? SCHED_TOPOLOGY_PREFERRED
                                         : SCHED_TOPOLOGY_ANY;
}

static const struct at_node_gpu *gpu_at(const struct at_node *node, size_t i)
{
    return i < node->status.gpus.n ? &node->status.gpus.items[i] : NULL;
}

/* Are GPUs i and k in one group? A GPU of which nothing is told is alone. */
static bool together(const struct at_node *node, enum sched_topology topology, size_t i, size_t k)
{
    const struct at_node_gpu *a = gpu_at(node, i);
    const struct at_node_gpu *b = gpu_at(node, k);
    if (topology == SCHED_TOPOLOGY_ANY || i == k) {
        return true;
    }
    if (a == NULL || b == NULL) {
        return false;
    }
    if (topology == SCHED_TOPOLOGY_SAME_NUMA) {
        return node->status.numa_nodes.n > 0 && a->numa_node == b->numa_node;
    }
    return a->link_group != NULL && a->link_group[0] != '\0' &&
           at_streq(a->link_group, b->link_group);
}

/* The NUMA node with this number has enough left. */
static bool numa_holds(const struct at_node *node, int64_t id,
                       const struct sched_topology_want *want)
{
    for (size_t i = 0; i < node->status.numa_nodes.n; i++) {
        const struct at_numa_node *numa = &node->status.numa_nodes.items[i];
        if (numa->id == id) {
            static const struct sched_topology_held NOTHING;
            const struct sched_topology_held *held =
                want->held != NULL && i < SCHED_NUMA_MAX ? &want->held[i] : &NOTHING;
            return numa->cpu_milli - held->cpu_milli >= want->cpu_milli &&
                   numa->memory_bytes - held->memory_bytes >= want->memory_bytes;
        }
    }
    return false;
}

static bool group_allowed(const struct at_node *node, enum sched_topology topology, size_t first,
                          const struct sched_topology_want *want)
{
    if (topology != SCHED_TOPOLOGY_SAME_NUMA) {
        return true;
    }
    const struct at_node_gpu *gpu = gpu_at(node, first);
    return gpu != NULL && numa_holds(node, gpu->numa_node, want);
}

/* GPUs that fit in the group of first; 0 when first does not fit itself or is not its group's
 * first, so that each group is looked at once. */
static size_t group_size(const struct at_node *node, enum sched_topology topology, const bool *fits,
                         size_t n, size_t first)
{
    size_t size = 0;
    for (size_t k = 0; k < n; k++) {
        if (fits[k] && together(node, topology, first, k)) {
            if (k < first) {
                return 0;
            }
            size++;
        }
    }
    return fits[first] ? size : 0;
}

/* The tightest of the group that is not taken yet; n: none. */
static size_t tightest(const struct at_node *node, enum sched_topology topology, const bool *fits,
                       const int64_t *free_milli, size_t n, size_t first, const bool *taken)
{
    size_t best = n;
    for (size_t k = 0; k < n; k++) {
        if (fits[k] && !taken[k] && together(node, topology, first, k) &&
            (best == n || free_milli[k] < free_milli[best])) {
            best = k;
        }
    }
    return best;
}

static bool choose(const struct at_node *node, enum sched_topology topology,
                   const struct sched_topology_want *want, const bool *fits,
                   const int64_t *free_milli, size_t n, uint32_t *ret_index)
{
    size_t best = n;
    size_t best_size = 0;
    bool taken[GPUS_MAX] = {false};
    for (size_t i = 0; i < n; i++) {
        size_t size = group_size(node, topology, fits, n, i);
        if (size >= want->count && size > 0 && (best == n || size < best_size) &&
            group_allowed(node, topology, i, want)) {
            best = i;
            best_size = size;
        }
    }
    if (best == n) {
        return false;
    }
    for (size_t t = 0; t < want->count; t++) {
        size_t k = tightest(node, topology, fits, free_milli, n, best, taken);
        assert(k < n);
        taken[k] = true;
    }
    for (size_t k = 0, t = 0; k < n; k++) {
        if (taken[k]) {
            ret_index[t++] = (uint32_t)k;
        }
    }
    return true;
}

bool sched_topology_choose(const struct at_node *node, const struct sched_topology_want *want,
                           const bool *fits, const int64_t *free_milli, size_t n,
                           uint32_t *ret_index)
{
    assert(n <= GPUS_MAX);
    if (want->count == 0) {
        bool any = want->topology != SCHED_TOPOLOGY_SAME_NUMA;
        for (size_t i = 0; i < node->status.numa_nodes.n && !any; i++) {
            any = numa_holds(node, node->status.numa_nodes.items[i].id, want);
        }
        return any;
    }
    if (want->topology == SCHED_TOPOLOGY_PREFERRED) {
        return choose(node, SCHED_TOPOLOGY_SAME_LINK, want, fits, free_milli, n, ret_index) ||
               choose(node, SCHED_TOPOLOGY_SAME_NUMA, want, fits, free_milli, n, ret_index) ||
               choose(node, SCHED_TOPOLOGY_ANY, want, fits, free_milli, n, ret_index);
    }
    return choose(node, want->topology, want, fits, free_milli, n, ret_index);
}

int64_t sched_topology_score(const struct at_node *node, const uint32_t *index, size_t count)
{
    bool link = true;
    bool numa = true;
    for (size_t i = 1; i < count; i++) {
        link = link && together(node, SCHED_TOPOLOGY_SAME_LINK, index[0], index[i]);
        numa = numa && together(node, SCHED_TOPOLOGY_SAME_NUMA, index[0], index[i]);
    }
    return link ? 1000 : numa ? 700 : 0;
}

size_t sched_topology_most(const struct at_node *node, enum sched_topology topology,
                           const bool *fits, size_t n)
{
    size_t most = 0;
    for (size_t i = 0; i < n; i++) {
        size_t size = group_size(node, topology, fits, n, i);
        most = size > most ? size : most;
    }
    return most;
}
