/* Which GPUs of a node are near to each other: NUMA nodes and groups that share a link. Pure. */
#ifndef AT_SCHEDULER_TOPOLOGY_H
#define AT_SCHEDULER_TOPOLOGY_H

#include "model/model.h"

enum sched_topology {
    SCHED_TOPOLOGY_ANY,
    SCHED_TOPOLOGY_PREFERRED, /* near when there is room, else anyhow */
    SCHED_TOPOLOGY_SAME_NUMA, /* GPUs of one NUMA node, which has the CPUs and memory too */
    SCHED_TOPOLOGY_SAME_LINK, /* GPUs of one link group */
};
enum sched_topology sched_topology_of(const struct at_resources *wanted);

#define SCHED_NUMA_MAX 16 /* NUMA nodes of which is counted what they have given away */

/* What SameNuma instances with GPUs of one NUMA node hold of its CPUs and memory. */
struct sched_topology_held {
    int64_t cpu_milli, memory_bytes;
};

struct sched_topology_want {
    enum sched_topology topology;
    size_t count; /* of GPUs; 0: CPUs and memory only */
    int64_t cpu_milli, memory_bytes;
    const struct sched_topology_held *held; /* SCHED_NUMA_MAX, by place; NULL: nothing is held */
};

/* Choose want->count of the node's n GPUs, all with fits[i] (free enough, of the right model),
 * under the topology. The group that has the fewest fitting ones beside is taken, so that large
 * groups stay whole; inside it the GPUs with least free_milli; then the lowest index.
 * ret_index[0..count): ascending. False: there are none. A node that tells no NUMA nodes (no link
 * groups) has none. Of a NUMA node's CPUs and memory counts what want->held leaves: what the
 * recorded GPUs of others that asked for SameNuma tie to it. Those that asked for no NUMA node may
 * run on any, and are not counted. */
bool sched_topology_choose(const struct at_node *node, const struct sched_topology_want *want,
                           const bool *fits, const int64_t *free_milli, size_t n,
                           uint32_t *ret_index);
/* How near the GPUs are: 1000 one link group, 700 one NUMA node, 0 otherwise; 1000 of fewer than
 * two. */
int64_t sched_topology_score(const struct at_node *node, const uint32_t *index, size_t count);
/* The most GPUs of one group that fit; for sentences. */
size_t sched_topology_most(const struct at_node *node, enum sched_topology topology,
                           const bool *fits, size_t n);

#endif
