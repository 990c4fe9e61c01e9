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
    bool gpu_parts; /* only those that MIG made */
    bool parks;     /* may use the room of what is parked, since it gives it back */
};

struct sched_gpu {
    int64_t cap_milli, free_milli;
    int64_t memory_bytes, free_memory_bytes;
    int64_t parked_milli, parked_memory_bytes; /* of what is not free, held by what is parked */
    const char *model;
    uint8_t numa; /* place in the node's numa; SCHED_NUMA_MAX: none */
    bool part;    /* MIG made it of another */
};

/* What each decision of each request looks at lies together, in two lines of the CPU's cache. */
struct sched_node {
    uint64_t changed; /* place in the log of its last change */
    int64_t cap_cpu_milli, cap_memory_bytes;
    int32_t cap_gpu_milli;
    int32_t gpu_free_milli; /* of all its GPUs; 0 when nobody knows */
    struct pack_sums own;   /* what of left is fragmented, by the mix */
    uint32_t pos;           /* in sched.nodes */
    uint32_t site_index;
    uint32_t block;        /* in a request's best */
    bool packs : 1;        /* left is kept: GPUs of one model, not too many */
    bool plain : 1;        /* and left is of now, and nothing of them is over-committed */
    bool gpus_unknown : 1; /* a replay did not fit: nothing more is put on its GPUs */
    uint8_t model;
    uint16_t most_milli;             /* plain: free of the GPU with the most */
    int64_t cpu_milli, memory_bytes; /* free; below 0: over-committed by hand */
    struct pack_left left;
    /* The rest. */
    struct sched_gpu *gpus;
    size_t n_gpus, n_extended;
    uint32_t rank;           /* by name */
    uint64_t changed_static; /* place in the log of the last change of its object */
    uint64_t apart;          /* turn in which it is apart, and where there */
    size_t apart_at;
    const struct at_node *node;
    const struct at_site *site; /* NULL: the Site object is missing */
    const char *not_ready;      /* NULL: ready; else why not */
    struct sched_extended *extended;
    int64_t cap_disk_bytes, disk_bytes; /* disk_bytes: free */
    bool unsettled;                     /* the object changed; what is free is counted soon */
    struct sched_item *first;           /* what holds something of it */
    size_t n_unrecorded;                /* of those, how many hold GPUs that nobody recorded */
    uint64_t digest;                    /* of what rules look at in the object */
    struct sched_topology_held numa[SCHED_NUMA_MAX]; /* by place in status.numaNodes */
    void *memory;                                    /* that it lies in */
};

_Static_assert(offsetof(struct sched_node, gpus) == 128, "two lines");

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
