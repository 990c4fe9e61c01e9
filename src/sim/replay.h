/* Replay of a trace against a packing policy. */
#ifndef AT_SIM_REPLAY_H
#define AT_SIM_REPLAY_H

#include "sim/trace.h"
#include "sys/sys.h"

struct at_replay_options {
    enum at_pack_policy policy;
    /* Pods leave when their life (deletion - creation time) is over. They arrive evenly, at the
     * rate by which the GPUs asked for by those alive come to 130 % of the cluster in the end. */
    bool churn;
    bool wait; /* what does not fit waits for room instead of being dropped; first come, first
                  served within what fits; its life begins when it is placed */
};

/* One state of the cluster, after an arrival; shares of all its GPUs in percent. */
struct at_replay_point {
    double demand; /* published protocol: all that arrived; churn: of those whose life goes on */
    double allocated, fragmented;
    bool placed;       /* then, or later on if it waited */
    uint32_t node_row; /* if placed */
    uint32_t waiting;  /* pods, after this arrival */
};

struct at_replay {
    struct at_replay_point *points; /* one per arrival */
    size_t n;
    double alloc100, alloc130, frag100; /* means over the points with demand of 100, 130 % */
    double alloc_mean;                  /* over the second half of the arrivals, weighted by time */
    double accepted;                    /* percent of the GPU share asked for in that half */
    size_t unscheduled;
    double seconds, worst_us; /* of deciding only */
};

/* err: AT_INVALID churn without times; what at_pack_new says. own: at_replay_done. */
enum at_rc at_replay_run(const struct at_trace *trace, const struct at_trace_order *order,
                         const struct at_replay_options *options, const struct at_sys *sys,
                         struct at_replay *ret, struct at_err *err) AT_WARN_UNUSED;
/* The largest gap between n arrivals (the order gone through again and again) by which those alive
 * at the last of them ask for demand (1: all) of the GPUs; 1 if there is none. */
int64_t at_replay_gap_us(const struct at_trace *trace, const struct at_trace_order *order, size_t n,
                         double demand);
void at_replay_done(struct at_replay *replay);

#endif
