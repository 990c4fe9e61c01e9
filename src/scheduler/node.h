/* Nodes as rules and the engine see them, and what an instance asks of one. */
#ifndef AT_SCHEDULER_NODE_H
#define AT_SCHEDULER_NODE_H

#include "scheduler/pack_priv.h"
#include "scheduler/scheduler.h"
#include "scheduler/topology.h"

#define AT_SCHED_GPU_MILLI 1000                /* one whole GPU */
#define AT_SCHED_GPUS_PER_NODE 1024            /* more are not looked at */
#define AT_SCHED_AMOUNT_MAX (INT64_C(1) << 50) /* of anything; more is cut, so that sums hold */
#define AT_SCHED_EXTENDED_MAX 16 /* named resources of one node or request; more are ignored */

struct sched_item; /* engine.h */

/* An amount of another named resource. */
struct sched_extended {
    const char *name;    /* in the node's object */
    int64_t cap, amount; /* amount: free */
};

/* What one instance asks for. gpu_count GPUs of gpu_milli each. */
struct sched_demand {
    int64_t cpu_milli, memory_bytes, disk_bytes;
    int64_t gpu_count, gpu_milli, gpu_memory_bytes;
    const struct at_model_strings *gpu_models; /* NULL: any */
    const struct at_model_map *extended;       /* NULL: none */
    enum sched_topology topology;
};

struct sched_gpu {
    int64_t cap_milli, free_milli;
    int64_t memory_bytes, free_memory_bytes;
    const char *model;
    uint8_t numa; /* place in the node's numa; SCHED_NUMA_MAX: none */
};

struct sched_node {
    const struct at_node *node;
    const struct at_site *site; /* NULL: the Site object is missing */
    size_t site_index;
    uint32_t pos, rank; /* in sched.nodes; by name */
    /* What each decision of each request looks at lies together. */
    uint64_t changed; /* place in the log of its last change, and of one of the object */
    uint64_t changed_static;
    int64_t cpu_milli, memory_bytes, disk_bytes; /* free; below 0: over-committed by hand */
    int64_t cap_cpu_milli, cap_memory_bytes, cap_disk_bytes, cap_gpu_milli;
    const char *not_ready; /* NULL: ready; else why not */
    struct sched_gpu *gpus;
    struct sched_extended *extended;
    size_t n_gpus, n_extended;
    uint64_t apart; /* turn in which it is apart, and where there */
    size_t apart_at;
    int64_t own;       /* what of left is fragmented, by the mix */
    bool packs;        /* left is kept: GPUs of one model, not too many */
    bool gpus_unknown; /* a replay did not fit: nothing more is put on its GPUs */
    bool unsettled;    /* the object changed; what is free is counted soon */
    uint8_t model;
    struct pack_left left;
    struct sched_item *first; /* what holds something of it */
    size_t n_unrecorded;      /* of those, how many hold GPUs that nobody recorded */
    uint64_t digest;          /* of what rules look at in the object */
    struct sched_topology_held numa[SCHED_NUMA_MAX]; /* by place in status.numaNodes */
};

/* A place that nodes name; site is NULL when no such Site object exists. */
struct sched_site {
    char *name;
    const struct at_site *site;
    size_t index;
    size_t first, n_nodes; /* in sched.nodes */
    size_t first_block;    /* in a request's best */
    uint64_t digest;       /* of what rules look at in the object */
};

#endif
