/* What the scheduler's files share. */
#ifndef AT_SCHEDULER_SCHEDULER_PRIV_H
#define AT_SCHEDULER_SCHEDULER_PRIV_H

#include "core/map.h"
#include "core/str.h"
#include "scheduler/scheduler.h"

#define AT_SCHED_GPU_MILLI 1000     /* one whole GPU */
#define AT_SCHED_GPUS_PER_NODE 1024 /* more are not looked at */

/* What one instance asks for. gpu_count GPUs of gpu_milli each. */
struct sched_demand {
    int64_t cpu_milli, memory_bytes, disk_bytes;
    int64_t gpu_count, gpu_milli, gpu_memory_bytes;
    const struct at_model_strings *gpu_models; /* NULL: any */
};

struct sched_gpu {
    int64_t cap_milli, free_milli;
    int64_t memory_bytes, free_memory_bytes;
    const char *model;
};

struct sched_node {
    const struct at_node *node;
    const struct at_site *site; /* NULL: the Site object is missing */
    size_t site_index;
    const char *not_ready; /* NULL: ready; else why not */
    int64_t cap_cpu_milli, cap_memory_bytes, cap_disk_bytes, cap_gpu_milli;
    int64_t cpu_milli, memory_bytes, disk_bytes; /* free */
    struct sched_gpu *gpus;
    size_t n_gpus;
    bool gpus_unknown; /* a replay did not fit: nothing more is put on its GPUs */
    /* Of the decision being made: */
    bool feasible;
    enum at_sched_rule refusal; /* when not feasible */
    int64_t parts[AT_SCHED_OBJ_COUNT];
    int64_t weighted; /* sum of weight * part */
};

/* A place that nodes name; site is NULL when no such Site object exists. */
struct sched_site {
    const struct at_site *site;
    size_t index;
};

/* Copies of one owner and template that are placed and not ended. */
struct sched_group {
    int32_t *by_node, *by_site;
};

struct sched {
    const struct at_snapshot *snap;
    struct at_arena *arena;
    struct sched_node *nodes; /* by name */
    size_t n_nodes, n_sites;
    bool *eligible;               /* per node: scratch of sched_filter */
    int64_t *site_scratch;        /* per site: scratch of sched_score */
    struct sched_mix *mix;        /* fragment.c: of GPU requests; NULL: not needed yet */
    struct at_map *node_by_name;  /* struct sched_node * */
    struct at_map *site_by_name;  /* struct sched_site * */
    struct at_map *group_by_name; /* struct sched_group * */
};

/* free.c */
struct sched_demand sched_demand_of(const struct at_workload *spec);
enum at_rc sched_node_init(struct sched_node *n, const struct at_node *node,
                           struct at_arena *arena) AT_WARN_UNUSED;
bool sched_instance_holds(const struct at_instance *instance); /* its node's resources */
void sched_take(struct sched_node *n, const struct sched_demand *d);
/* Take what every instance bound to a node holds; GPUs in (scheduledAt, name) order. */
enum at_rc sched_take_bound(struct sched *s) AT_WARN_UNUSED;
int64_t sched_gpu_free(const struct sched_node *n);
/* AT_SCHED_RULE_COUNT: the GPUs asked for are there. */
enum at_sched_rule sched_gpu_check(const struct sched_node *n, const struct sched_demand *d);

/* filter.c: the first rule that refuses each node goes into refusal, else feasible. */
void sched_filter(struct sched *s, const struct at_instance *instance, const struct sched_demand *d,
                  const struct sched_group *group);
const char *sched_driver_wanted(const struct at_workload *spec);
bool sched_strings_have(const struct at_model_strings *list, const char *s);
const struct at_taint *sched_taint_refusing(const struct at_node *node,
                                            const struct at_placement *placement);
/* The rule of a residency policy that keeps data_class out of jurisdiction; NULL: none. */
const struct at_residency_rule *sched_residency_refusing(const struct at_snapshot *snap,
                                                         const char *data_class,
                                                         const char *jurisdiction);

/* score.c */
void sched_weights(const struct at_placement *placement, int64_t out[AT_SCHED_OBJ_COUNT]);
void sched_score(struct sched *s, const struct at_instance *instance, const struct sched_demand *d,
                 const struct sched_group *group, const int64_t weights[AT_SCHED_OBJ_COUNT]);
/* fragment.c, before sched_score: the part of a request for GPUs. err: AT_NOMEM */
enum at_rc sched_score_fragmentation(struct sched *s, const struct sched_demand *d) AT_WARN_UNUSED;
bool sched_spread_by_node(const struct at_placement *placement);

/* message.c: refused, example and message of a decision. */
enum at_rc sched_explain(struct sched *s, const struct sched_demand *d,
                         struct at_sched_decision *decision) AT_WARN_UNUSED;

#endif
