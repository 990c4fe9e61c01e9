/* Scenarios of a what-if run: settings by name, and all combinations of those to compare. */
#ifndef AT_SIM_SCENARIO_H
#define AT_SIM_SCENARIO_H

#include "sim/whatif.h"

#define AT_SCENARIOS_MAX 32
#define AT_SCENARIO_COMPARES_MAX 8

struct at_scenario {
    struct at_whatif what;
    const char *nodes, *prices, *carbon; /* files; NULL: the trace's own. Borrowed. */
    double load;                         /* of openb traces; 0: not given */
};

/* key: policy, demand, unplaced, lose-site, add-nodes, weights, nodes, prices, carbon, load, until;
 * "none" and "" take back. value is borrowed. err: AT_BAD_REQUEST says what is wanted. */
enum at_rc at_scenario_set(struct at_scenario *scenario, const char *key, const char *value,
                           struct at_err *err) AT_WARN_UNUSED;
/* compares: "key=value,value" (by ';' when there is one), ends with NULL. All combinations on top
 * of base, named by what differs. *ret_text: what the values are borrowed from. own: at_free of
 * both. err: AT_BAD_REQUEST */
enum at_rc at_scenarios_make(const struct at_scenario *base, const char *const *compares,
                             struct at_scenario **ret, size_t *ret_n, char **ret_text,
                             struct at_err *err) AT_WARN_UNUSED;

#endif
