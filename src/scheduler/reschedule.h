/* The descheduler: moves of running instances that pay for themselves. Pure and deterministic.
 *
 * What is made smaller is a sum of money over the horizon: what instances cost where they run, the
 * carbon of it, a fixed worth for each node in use and for each GPU left in pieces, and a high one
 * for each broken rule (taint, selector, affinity, policy, residency, skew). A move is made when
 * what it gains is more than what it costs (restart, lost work, egress, a fixed part) by at least
 * minGain. So each pass makes the sum smaller, and moves cannot go round in circles. */
#ifndef AT_SCHEDULER_RESCHEDULE_H
#define AT_SCHEDULER_RESCHEDULE_H

#include "state/snapshot.h"

#define AT_RESCHEDULE_CANDIDATES_MAX 2000           /* instances looked at in one pass */
#define AT_RESCHEDULE_EMPTY_MAX 8                   /* a node with more is not emptied */
#define AT_RESCHEDULE_RESTART_NS (60 * AT_NS_PER_S) /* both copies run for about so long */
#define AT_RESCHEDULE_CPU_WATTS 10
#define AT_RESCHEDULE_GPU_WATTS 300

enum at_reschedule_reason {
    AT_RESCHEDULE_VIOLATION,
    AT_RESCHEDULE_DEFRAGMENT,
    AT_RESCHEDULE_EMPTY,
    AT_RESCHEDULE_PRICE,
    AT_RESCHEDULE_CARBON,
    AT_RESCHEDULE_REASON_COUNT
};
const char *at_reschedule_reason_name(enum at_reschedule_reason reason); /* "FreesGPU" */

struct at_reschedule_move {
    const struct at_instance *instance;
    const struct at_node *from, *to;
    enum at_reschedule_reason reason; /* the largest part of the gain */
    int64_t gain_microusd, cost_microusd;
    const char *message; /* one sentence, in arena */
};
struct at_reschedule_plan {
    struct at_reschedule_move *moves;
    size_t n;
    size_t considered;                       /* instances that might have been moved */
    int64_t before_microusd, after_microusd; /* the sum, skew left out */
};

/* The first policy with rules for rescheduling, or the defaults. */
const struct at_rescheduling *at_reschedule_policy(const struct at_snapshot *snap);
/* max: moves allowed now, by whoever counts them over time; the policy's maxMovesPerPass holds
 * too. err: AT_NOMEM the arena's cap. cost: O(instances + candidates * nodes) */
enum at_rc at_reschedule(const struct at_snapshot *snap, const struct at_rescheduling *policy,
                         size_t max, int64_t now_wall_ns, struct at_arena *arena,
                         struct at_reschedule_plan *ret_plan) AT_WARN_UNUSED;
/* Is it being moved (status.move)? Not the new copy that is made for it. */
bool at_reschedule_is_moving(const struct at_instance *instance);
/* A move of it was called off: its status.move names itself as replaced, and when that was. */
bool at_reschedule_was_called_off(const struct at_instance *instance);
#define AT_RESCHEDULE_AGAIN_NS (3600 * AT_NS_PER_S) /* after which it may be tried again */

#endif
