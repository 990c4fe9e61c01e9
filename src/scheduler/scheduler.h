/* Placement: (snapshot, pending instances, now) -> plan, with a reason for each decision. Pure and
 * deterministic. Filters: node ready, cordoned, taints, selector, sites, site class, jurisdictions,
 * residency policy, resources (cpu, memory, disk, GPUs as count or fraction, GPU memory, GPU
 * model, extended), runtime driver, spread (hard skew). Scores 0..1000 each: spread, fit, price,
 * carbon, latency, fragmentation; total = weighted mean. Equal scores: fewer copies of the same
 * owner, then the name.
 *
 * Two ways in: at_schedule looks at one snapshot and keeps nothing; struct at_scheduler is kept
 * between passes and told what changed, so that a decision does not look at the whole cluster.
 * Both decide alike.
 *
 * GPUs: a fraction shares one GPU, more than one is rounded up to whole free ones. A decision names
 * the GPUs; they are recorded in status.gpus together with the binding. For a bound instance
 * without that record (bound by hand, or by an older version) it is found by choosing (tightest
 * that fits) after the recorded ones, in (scheduledAt, name) order. */
#ifndef AT_SCHEDULER_SCHEDULER_H
#define AT_SCHEDULER_SCHEDULER_H

#include "state/snapshot.h"

enum at_sched_rule {
    AT_SCHED_NODE_NOT_READY,
    AT_SCHED_CORDONED,
    AT_SCHED_TAINT,
    AT_SCHED_SELECTOR,
    AT_SCHED_NODE_AFFINITY,
    AT_SCHED_RESERVED, /* held by a reservation for others */
    AT_SCHED_SITE,
    AT_SCHED_SITE_CLASS,
    AT_SCHED_JURISDICTION,
    AT_SCHED_REGION,
    AT_SCHED_PROVIDER,
    AT_SCHED_POLICY,
    AT_SCHED_RESIDENCY,
    AT_SCHED_DRIVER,
    AT_SCHED_CPU,
    AT_SCHED_MEMORY,
    AT_SCHED_DISK,
    AT_SCHED_GPU,
    AT_SCHED_GPU_MEMORY,
    AT_SCHED_GPU_MODEL,
    AT_SCHED_GPU_SHARING, /* the node shares its GPUs in another way */
    AT_SCHED_TOPOLOGY,
    AT_SCHED_EXTENDED, /* another named resource */
    AT_SCHED_SPREAD,
    AT_SCHED_SPREAD_RULE, /* placement.spread */
    AT_SCHED_AFFINITY,
    AT_SCHED_ANTI_AFFINITY, /* its own, or of instances that are there */
    AT_SCHED_SITE_LIMIT,
    AT_SCHED_GANG, /* there is room, but not for the whole gang */
    AT_SCHED_RULE_COUNT
};
const char *
at_sched_rule_name(enum at_sched_rule rule); /* "NotEnoughCPU", "Residency", ... stable */

enum at_sched_objective {
    AT_SCHED_OBJ_SPREAD,
    AT_SCHED_OBJ_FIT,
    AT_SCHED_OBJ_PRICE,
    AT_SCHED_OBJ_CARBON,
    AT_SCHED_OBJ_LATENCY,
    AT_SCHED_OBJ_FRAGMENTATION, /* of GPUs, when GPUs are asked for */
    AT_SCHED_OBJ_BALANCE,
    AT_SCHED_OBJ_DATA,
    AT_SCHED_OBJ_PREFERENCE, /* nodes that are liked, taints that are not */
    AT_SCHED_OBJ_AFFINITY,   /* instances that are liked near or far, soft spread rules */
    AT_SCHED_OBJ_COUNT
};
const char *at_sched_objective_name(enum at_sched_objective objective);

/* What would let a pending instance run. */
struct at_sched_remedy {
    const char *kind; /* as schema/common.json's Remedy says */
    const char *message, *node;
    size_t nodes;                               /* that would then fit */
    const struct at_instance *const *instances; /* that would have to go */
    size_t n_instances;
};
/* Kinds of change that could help a pending instance; bits. */
enum at_sched_change {
    AT_SCHED_CHANGE_NODE = 1,      /* one joined, or its object changed */
    AT_SCHED_CHANGE_ROOM = 2,      /* something left a node */
    AT_SCHED_CHANGE_PLACED = 4,    /* something came to a node */
    AT_SCHED_CHANGE_SITE = 8,      /* a Site object */
    AT_SCHED_CHANGE_POLICY = 16,   /* a Policy object */
    AT_SCHED_CHANGE_CAPACITY = 32, /* a Queue or Reservation, or what its queue uses */
    AT_SCHED_CHANGE_BUDGET = 64,   /* a disruption budget of who could make room allows more */
};
#define AT_SCHED_CHANGES 7
/* "NodeChange", "RoomFreed", ... of one bit. */
const char *at_sched_change_name(enum at_sched_change change);
/* What could lift a refusal by this rule. */
unsigned at_sched_rule_waits_for(enum at_sched_rule rule);

/* One GPU of the node, or a part of it. */
struct at_sched_gpu {
    uint32_t index; /* in the node's status.gpus */
    bool parked;    /* what it holds lies in host memory: others that park may use the room */
    int64_t milli, memory_bytes;
};

struct at_sched_decision {
    const struct at_instance *instance;
    const struct at_node *node; /* NULL: stays pending */
    const struct at_sched_gpu *gpus;
    size_t n_gpus;
    bool never; /* no node, were it empty, could ever take it: reason NeverFits */
    /* Not placed, but room can be made on nominated: once victims (in this order) have ended. */
    const struct at_node *nominated;
    const struct at_instance *const *victims;
    size_t n_victims;
    int64_t score;                     /* 0..1000 */
    int64_t parts[AT_SCHED_OBJ_COUNT]; /* unweighted, of the node chosen */
    int64_t weights[AT_SCHED_OBJ_COUNT];
    const struct at_node *runner_up; /* NULL: none */
    int64_t runner_up_score;
    int64_t runner_up_parts[AT_SCHED_OBJ_COUNT];
    size_t refused[AT_SCHED_RULE_COUNT];      /* nodes refused, by the first rule that did */
    const char *example[AT_SCHED_RULE_COUNT]; /* "edge-1: 500m cpu free, 2 wanted", in arena */
    const char *message;                      /* one sentence, in arena */
    /* Of a pending one: */
    const char *nearest; /* what is missing least, one sentence; NULL: nothing is near */
    const struct at_sched_remedy *remedies; /* what would make room, the least first */
    size_t n_remedies;
    unsigned waits_for; /* at_sched_change bits */
};
struct at_sched_plan {
    struct at_sched_decision *decisions; /* one per pending instance, in the order decided */
    size_t n;
    /* Placed members of gangs that did not become whole in time: to be ended too. */
    const struct at_instance **released;
    size_t n_released;
};

/* pending: instances without nodeName, any order; decided by priority, then age, then name. What is
 * decided earlier in the plan takes its resources from those later. err: AT_NOMEM the arena's cap.
 */
enum at_rc at_schedule(const struct at_snapshot *snap, const struct at_instance *const *pending,
                       size_t n, int64_t now_wall_ns, struct at_arena *arena,
                       struct at_sched_plan *ret_plan) AT_WARN_UNUSED;

/* The scheduler that is kept between passes. Not thread safe; one snapshot at a time. */
struct at_scheduler;
struct at_scheduler *at_scheduler_new(void);
void at_scheduler_free(struct at_scheduler *sched); /* accepts NULL */
/* The object was put or deleted since the last update: remembered until the next one. */
void at_scheduler_changed(struct at_scheduler *sched, const struct at_model_kind *kind,
                          const char *ns, const char *name);
/* Bring it to snap: the first time everything is looked at, later what was told of only. What a
 * plan gave away stays taken until the snapshot shows it bound, or it is forgotten. own:  snap must
 * stay held until the next update has returned, or free. cost: O(told); a node that joins or leaves
 * costs O(nodes) once per update. Now and then some 10 ms more, to learn from the mix of GPU
 * requests. */
void at_scheduler_update(struct at_scheduler *sched, const struct at_snapshot *snap);
size_t at_scheduler_pending(const struct at_scheduler *sched);
/* Some are members of gangs: plan again now and then, for they may have waited long enough. */
bool at_scheduler_gangs_wait(const struct at_scheduler *sched);
/* Disruption budgets keep some of them out: plan again when owners or their copies change. */
bool at_scheduler_budgets_wait(const struct at_scheduler *sched);
bool at_scheduler_names_queues(const struct at_scheduler *sched); /* some of them do */
/* Decide those that are pending and for which something they wait for has changed, at most max, by
 * priority, age and name. err: AT_NOMEM the arena's cap */
enum at_rc at_scheduler_plan(struct at_scheduler *sched, size_t max, int64_t now_wall_ns,
                             struct at_arena *arena, struct at_sched_plan *ret_plan) AT_WARN_UNUSED;
/* The same, of these pending instances only; each as it is in the snapshot, or a copy with another
 * spec that is to be placed in its stead (kept by the caller until this returns; decisions name the
 * snapshot's). Those that are not pending are left out. */
enum at_rc at_scheduler_plan_these(struct at_scheduler *sched,
                                   const struct at_instance *const *these, size_t n, size_t max,
                                   int64_t now_wall_ns, struct at_arena *arena,
                                   struct at_sched_plan *ret_plan) AT_WARN_UNUSED;
/* All that are pending, by namespace and name. err: AT_NOMEM */
enum at_rc at_scheduler_waiting(const struct at_scheduler *sched, struct at_arena *arena,
                                const struct at_instance ***ret, size_t *ret_n) AT_WARN_UNUSED;
/* A decision of a plan was not written (or its victim not ended): take it back, and decide the
 * instance again. */
void at_scheduler_forget(struct at_scheduler *sched, const char *ns, const char *name);

/* For how long placement (may be NULL) bears a NoExecute taint: the shortest of the tolerations
 * that match it; INT64_MAX for ever, -1 not at all. */
int64_t at_sched_tolerates_ns(const struct at_placement *placement, const struct at_taint *taint);
/* Whether placement (may be NULL) accepts taint. */
bool at_sched_tolerates(const struct at_placement *placement, const struct at_taint *taint);
/* What a node has left, by the instances bound to it that have not ended. gpu: see at_sched_free.
 */
struct at_sched_free {
    int64_t cpu_milli, memory_bytes, disk_bytes, gpu_milli;
};
struct at_sched_free at_sched_node_free(const struct at_snapshot *snap, const struct at_node *node);

#endif
