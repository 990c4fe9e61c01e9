/* Disruption budgets: how many copies of an owner (Deployment or Job: spec.disruption) may be taken
 * away on purpose. Preemption, draining and the descheduler ask here; loss of a node does not.
 * Pure.
 */
#ifndef AT_SCHEDULER_DISRUPTION_H
#define AT_SCHEDULER_DISRUPTION_H

#include "state/snapshot.h"

#define AT_DISRUPTION_UNLIMITED INT64_MAX

/* How many of the available copies may go. wanted: copies that there should be; available: those
 * that are ready and not being deleted. Shares are of wanted and rounded up, as in Kubernetes'
 * PodDisruptionBudget. budget NULL or empty: AT_DISRUPTION_UNLIMITED. Never negative. */
int64_t at_disruption_allowed(const struct at_disruption *budget, int64_t wanted,
                              int64_t available);

/* The budget of an instance's owner, and how many copies that owner wants. *ret_wanted is 0 and
 * NULL is returned when there is no owner with a budget. */
const struct at_disruption *at_disruption_of(const struct at_snapshot *snap,
                                             const struct at_instance *instance,
                                             int64_t *ret_wanted);

/* Does the instance count as available? Bound, ready, not ended, not being deleted. */
bool at_disruption_is_available(const struct at_instance *instance);

/* May instance be taken away now? For those who ask rarely; at_scheduler keeps counts.
 * cost: O(instances of its namespace) when its owner has a budget. */
int64_t at_disruption_left(const struct at_snapshot *snap, const struct at_instance *instance);

#endif
