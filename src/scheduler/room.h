/* Rules about room, asked of every changed node for every request that is decided: hence inline. */
#ifndef AT_SCHEDULER_ROOM_H
#define AT_SCHEDULER_ROOM_H

#include "scheduler/scheduler_priv.h"

/* What is not asked for is never short, also on a node that was over-committed by hand. */
static inline bool sched_is_short(int64_t free_now, int64_t wanted)
{
    return wanted > 0 && free_now < wanted;
}

/* Rules about room, of which one may be kept as a node's score. */
#define SCHED_RULE_BIT(rule) (UINT64_C(1) << (rule))
#define SCHED_ROOM_RULES                                                                           \
    (SCHED_RULE_BIT(AT_SCHED_CPU) | SCHED_RULE_BIT(AT_SCHED_MEMORY) |                              \
     SCHED_RULE_BIT(AT_SCHED_DISK) | SCHED_RULE_BIT(AT_SCHED_GPU) |                                \
     SCHED_RULE_BIT(AT_SCHED_GPU_MEMORY) | SCHED_RULE_BIT(AT_SCHED_GPU_MODEL) |                    \
     SCHED_RULE_BIT(AT_SCHED_TOPOLOGY) | SCHED_RULE_BIT(AT_SCHED_EXTENDED))
_Static_assert(AT_SCHED_RULE_COUNT <= SCHED_FITS, "each rule has a bit and a score");

/* No static rule refuses the node: by what is kept of it. */
static inline bool sched_is_eligible(const struct sched_request *r, size_t pos)
{
    uint32_t score = r->scores[pos];
    return score >= SCHED_FITS || (SCHED_ROOM_RULES >> score & 1) != 0;
}

static inline enum at_sched_rule sched_refuse_room(const struct sched_request *r,
                                                   const struct sched_node *n)
{
    const struct sched_demand *d = &r->demand;
    if (sched_is_short(n->cpu_milli, d->cpu_milli)) {
        return AT_SCHED_CPU;
    }
    if (sched_is_short(n->memory_bytes, d->memory_bytes)) {
        return AT_SCHED_MEMORY;
    }
    if (d->disk_bytes > 0 && n->disk_bytes < d->disk_bytes) {
        return AT_SCHED_DISK;
    }
    if (d->gpu_count > 0) {
        enum at_sched_rule gpu = sched_gpu_check(n, d);
        if (gpu != AT_SCHED_RULE_COUNT) {
            return gpu;
        }
    }
    bool rare = d->topology != SCHED_TOPOLOGY_ANY || d->extended != NULL;
    return rare ? sched_refuse_rare(r, n) : AT_SCHED_RULE_COUNT;
}

#endif
