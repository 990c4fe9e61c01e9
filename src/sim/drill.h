/* A site is lost: the real controllers, state, store (in memory) and scheduler on a simulated
 * clock, with nodes that only beat. How long until everything that has a place left is bound again?
 * Waiting is counted by the simulated clock, computing by the real one. */
#ifndef AT_SIM_DRILL_H
#define AT_SIM_DRILL_H

#include "sys/sys.h"

#define AT_DRILL_NODES_MAX 100000

struct at_drill_options {
    const struct at_sys *real; /* the clock of computing */
    uint64_t seed;
    uint32_t nodes;       /* over 5 sites, the last of which is lost */
    uint32_t deployments; /* one in ten may only run at the site that is lost */
    uint32_t replicas;    /* of each */
};

struct at_drill_result {
    size_t instances, lost, bound_again, stuck; /* stuck: no place is left for them */
    double wait_s;         /* simulated: from the loss until all are bound again */
    double compute_s;      /* real, in that time */
    double set_up_s;       /* real, until everything was bound the first time */
    size_t over_committed; /* nodes on which more is reserved than they have */
};

/* err: AT_INVALID too few or too many | AT_TIMEOUT they are not bound in ten simulated minutes. */
enum at_rc at_drill_run(const struct at_drill_options *options, struct at_drill_result *ret,
                        struct at_err *err) AT_WARN_UNUSED;

#endif
