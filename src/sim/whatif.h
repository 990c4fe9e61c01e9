/* What would have happened: a fleet replayed against a policy, with what-if changes; the same input
 * gives the same output. Policies: the packing engine's, which see CPU, memory and GPUs; and
 * "live", the scheduler of the server itself with all its rules (but queues). */
#ifndef AT_SIM_WHATIF_H
#define AT_SIM_WHATIF_H

#include "sim/meter.h"
#include "sys/sys.h"

#define AT_WHATIF_LOSSES_MAX 16
#define AT_WHATIF_ADDS_MAX 16
#define AT_WHATIF_DEMAND_MAX 100.0
#define AT_WHATIF_POINTS 400 /* samples over the replay */

struct at_whatif_loss {
    char site[64];
    int64_t at_ms;
};
struct at_whatif_add {
    char model[64], site[64]; /* site "": where most nodes are */
    uint32_t count, gpus;     /* gpus of the model per node; 0 and model "cpu": none */
};

struct at_whatif {
    char name[128]; /* of the scenario */
    bool live;
    enum at_pack_policy policy;
    double demand;     /* 2: everything is asked for twice */
    bool drop;         /* what does not fit at once is dropped instead of waiting */
    int64_t until_ms;  /* 0: to the end */
    int64_t settle_ms; /* decide so long after a change, or when the recording did (0: at once) */
    struct at_whatif_loss losses[AT_WHATIF_LOSSES_MAX];
    size_t n_losses;
    struct at_whatif_add adds[AT_WHATIF_ADDS_MAX];
    size_t n_adds;
    bool weights_given;
    struct at_weights weights;
    const struct at_prices *prices;           /* NULL: those of the sites */
    const struct at_carbon *carbon;           /* NULL: that of the sites */
    void (*progress)(void *ctx, double part); /* NULL: none */
    void *progress_ctx;
};

struct at_whatif_point {
    int64_t at_ms;
    double capacity_gpus, allocated_gpus, fragmented_gpus, capacity_cores, allocated_cores;
    uint32_t pending, running, nodes_used;
    double usd_hour, usd;    /* of the nodes in use: now, and until now */
    double watts, grams_co2; /* now, and until now */
};

struct at_whatif_placement {
    uint32_t request; /* its row in the fleet */
    uint32_t copy;    /* of demand over 1 */
    int64_t at_ms;
    uint32_t node; /* in the result's node_names */
};

struct at_whatif_result {
    struct at_whatif_point points[AT_WHATIF_POINTS + 1];
    size_t n_points;
    struct at_whatif_placement *placements; /* in the order made */
    size_t n_placements, placements_cap;
    const char **node_names; /* of the fleet, and added ones; borrowed from it */
    size_t n_nodes;
    size_t requests, placed, unplaced;      /* unplaced: never */
    size_t evicted, rebound;                /* of those who lost their node; again elsewhere */
    size_t preempted;                       /* live: sent back to wait for one of more priority */
    int64_t rebound_ms;                     /* until the last of them was; -1: some are not */
    double gpu_hours_asked, gpu_hours_got;  /* of those that end, or until the end */
    double allocated_mean, fragmented_mean; /* percent of the GPUs (cores, without GPUs), by time */
    double wait_mean_s, wait_p99_s, wait_max_s; /* of those placed, until first placed */
    double usd, kwh, kg_co2;
    uint32_t pending_max, nodes_used_max;
    double seconds; /* of deciding, by the real clock */
    uint64_t decisions;
};

/* fleet is changed: nodes are added to it; a fresh one per replay.
 * err: AT_INVALID no nodes, no such site, ... own: at_whatif_done. */
enum at_rc at_whatif_run(struct at_fleet *fleet, const struct at_whatif *what,
                         const struct at_sys *sys, struct at_whatif_result *ret,
                         struct at_err *err) AT_WARN_UNUSED;
void at_whatif_done(struct at_whatif_result *result);

#endif
