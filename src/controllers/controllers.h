/* Level-triggered reconcilers on one state: deployment, job, placement, node health, garbage
 * collection, namespaces, site status. Each compares a snapshot with what is wanted and writes the
 * difference. */
#ifndef AT_CONTROLLERS_CONTROLLERS_H
#define AT_CONTROLLERS_CONTROLLERS_H

#include "core/metrics.h"
#include "state/state.h"

/* A server that tells nothing of its nodes' beats for so long is gone. */
#define AT_CONTROLLERS_RELAY_LOST_NS (5 * AT_NS_PER_S)

struct at_controllers;
struct at_controllers_options {
    int64_t node_timeout_ns;  /* 0: 2 s without a heartbeat makes a node not ready */
    int64_t start_grace_ns;   /* 0: 5 s after our own start in which silence is forgiven */
    bool (*leads)(void *ctx); /* asked before each write; false: nothing is written. NULL: always */
    void *leads_ctx;
    /* The guard that every write carries (see at_store_write); NULL: none. Borrowed. */
    const char *guard_key;
    int64_t guard_rev;
    /* Whether a write has happened is not known: what is decided from now on might be done twice,
     * unless a new guard settles it. May be NULL. */
    void (*doubt)(void *leads_ctx);
};
struct at_controllers *at_controllers_new(struct at_loop *loop, struct at_state *state,
                                          struct at_metrics *metrics,
                                          const struct at_controllers_options *options);
void at_controllers_free(struct at_controllers *controllers);

#endif
