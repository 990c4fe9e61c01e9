/* Reservations: capacity that is held for somebody from one time to another. Others may use it
 * until the start when they end before it: they say so by expectedDuration, or their Job's
 * activeDeadline does. Pure. */
#ifndef AT_SCHEDULER_RESERVE_H
#define AT_SCHEDULER_RESERVE_H

#include "state/snapshot.h"

#define AT_RESERVE_NODES_MAX 100000 /* of one reservation; the schema's limit */

enum at_reserve_phase {
    AT_RESERVE_PENDING,   /* nodes are missing */
    AT_RESERVE_SCHEDULED, /* held from later on */
    AT_RESERVE_ACTIVE,
    AT_RESERVE_EXPIRED,
};
const char *at_reserve_phase_name(enum at_reserve_phase phase); /* "Scheduled" */

struct at_reserve_plan {
    enum at_reserve_phase phase;
    const char **nodes; /* by name; what was chosen before stays as long as it matches */
    size_t n_nodes;
    size_t instances;                         /* that use it */
    const struct at_instance *const *victims; /* in the way now, within disruption budgets */
    size_t n_victims;
    int64_t next_wall_ns; /* when to look again; 0: never */
    const char *message;
};
/* The choice of nodes, and what follows from the time. Nodes of other reservations whose time
 * overlaps are left to them. cost: O(nodes + instances). err: AT_NOMEM the arena's cap */
enum at_rc at_reserve_look(const struct at_snapshot *snap, const struct at_reservation *reservation,
                           int64_t now_wall_ns, struct at_arena *arena,
                           struct at_reserve_plan *ret_plan) AT_WARN_UNUSED;

/* What is held now, by status.nodes of all reservations. In arena. NULL: out of arena.
 * cost: O(reserved nodes), and O(instances) when parts of nodes are held */
struct at_reserve;
struct at_reserve *at_reserve_new(const struct at_snapshot *snap, int64_t now_wall_ns,
                                  struct at_arena *arena);
void at_reserve_done(struct at_reserve *reserve); /* accepts NULL */
/* A pending instance as placement shall see it: kept from what is held for others, drawn to what is
 * held for it. The instance itself when no reservation concerns it; NULL: out of arena. What it
 * might take of nodes that are held in part counts as taken until done. *ret_kept: nodes that it is
 * kept from, and *ret_example the reservation of one of them.
 * cost: O(reserved nodes) once for each set of rights, O(nodes held in part) each */
const struct at_instance *at_reserve_narrow(struct at_reserve *reserve,
                                            const struct at_instance *instance, size_t *ret_kept,
                                            const struct at_reservation **ret_example);
/* As if it could run on that node only. NULL: out of arena. */
const struct at_instance *at_reserve_pin(const struct at_instance *instance, const char *node,
                                         struct at_arena *arena);

#endif
