/* Level-triggered reconcilers on one state: deployment, job, placement, node health, garbage
 * collection, namespaces, site status. Each compares a snapshot with what is wanted and writes the
 * difference. */
#ifndef AT_CONTROLLERS_CONTROLLERS_H
#define AT_CONTROLLERS_CONTROLLERS_H

#include "core/metrics.h"
#include "state/state.h"

struct at_controllers;
struct at_controllers_options {
    int64_t node_timeout_ns; /* 0: 2 s without a heartbeat makes a node not ready */
    int64_t start_grace_ns;  /* 0: 5 s after our own start in which silence is forgiven */
};
struct at_controllers *at_controllers_new(struct at_loop *loop, struct at_state *state,
                                          struct at_metrics *metrics,
                                          const struct at_controllers_options *options);
void at_controllers_free(struct at_controllers *controllers);

#endif
