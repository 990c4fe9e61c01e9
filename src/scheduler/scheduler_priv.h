/* What the scheduler's files share.
 *
 * HOW RULES AND OBJECTIVES PLUG IN. All instances that ask for the same (spec members named in
 * SCHED_REQUEST_MEMBERS, request.c) share one struct sched_request, and what was found out about
 * (request, node) is kept until that node changes. So each rule and each objective belongs to one
 * of these kinds, by what it may look at:
 *
 *   sched_refuse_static (filter.c)  request, node object, its site, policies. Never looks at
 *                                   instances or room. Asked again when the node or its site's
 *                                   object changes; any policy's change asks everything again.
 *   sched_refuse_room (filter.c)    also what the node has free. Asked again when something comes
 * to or leaves the node. sched_score_node (score.c)      parts of objectives by (request, node, its
 * room), likewise. sched_score_site (score.c)      parts by (request, site object).
 *   sched_turn_places (domain.c)    what depends on where other instances are, or on other nodes:
 *                                   spread, affinity, the cheapest price. Asked for each decision;
 *                                   it must not walk all nodes or all instances, but may walk sites
 *                                   (provider, region and jurisdiction are attributes of sites) and
 *                                   the nodes that are apart: those that hold copies of the group,
 *                                   or that it marks by sched_turn_apart. It writes refusals and
 *                                   parts for whole sites, for nodes apart, and for all the rest.
 *
 * A part is 0..1000, belongs to exactly one kind, and is 0 where another kind writes it. A rule
 * that needs counts of instances by label keeps them itself in sched_holder_changed (domain.c),
 * which is told of each instance that comes to or leaves a node.
 *
 * ROOM FOR OTHERS. Reservations, nominations and waiting gangs hold room by sched_hold with an
 * owner's key; a request with that key sees through what is held for it. */
#ifndef AT_SCHEDULER_SCHEDULER_PRIV_H
#define AT_SCHEDULER_SCHEDULER_PRIV_H

#include "core/map.h"
#include "core/str.h"
#include "scheduler/match.h"
#include "scheduler/paths.h"
#include "scheduler/scheduler.h"
#include "scheduler/tally.h"
#include "scheduler/topology.h"

#define AT_SCHED_GPU_MILLI 1000                /* one whole GPU */
#define AT_SCHED_GPUS_PER_NODE 1024            /* more are not looked at */
#define AT_SCHED_AMOUNT_MAX (INT64_C(1) << 50) /* of anything; more is cut, so that sums hold */
#define AT_SCHED_EXTENDED_MAX 16 /* named resources of one node or request; more are ignored */

/* An amount of another named resource. */
struct sched_extended {
    const char *name;
    int64_t amount;
};

/* What one instance asks for. gpu_count GPUs of gpu_milli each. */
struct sched_demand {
    int64_t cpu_milli, memory_bytes, disk_bytes;
    int64_t gpu_count, gpu_milli, gpu_memory_bytes;
    const struct at_model_strings *gpu_models; /* NULL: any */
    const struct at_model_map *extended;       /* NULL: none */
    enum sched_topology topology;
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
    struct sched_extended *extended; /* free; cap is cap_extended[same index] */
    int64_t *cap_extended;
    size_t n_extended;
    bool gpus_unknown; /* a replay did not fit: nothing more is put on its GPUs */
};

/* A place that nodes name; site is NULL when no such Site object exists. */
struct sched_site {
    const char *name;
    const struct at_site *site;
    size_t index;
};

/* Copies of one owner and template that are placed and not ended. */
struct sched_group {
    int32_t *by_node, *by_site;
};

/* All that ask for the same. */
struct sched_request {
    const struct at_workload *spec; /* of any of them: only members that the request is made of */
    struct sched_demand demand;
    int64_t weights[AT_SCHED_OBJ_COUNT];
};

/* Of the decision being made, by site. */
struct sched_turn_site {
    size_t eligible, fits; /* nodes not apart that no static rule, and that no room rule refuses */
    enum at_sched_rule refusal; /* of all its nodes not apart; AT_SCHED_RULE_COUNT: none */
    int64_t parts[AT_SCHED_OBJ_COUNT];
};
/* Of the decision being made, for a node unlike the others of its site. */
struct sched_turn_node {
    const struct sched_node *node;
    bool eligible, fits; /* as above */
    enum at_sched_rule refusal;
    int64_t parts[AT_SCHED_OBJ_COUNT]; /* in place of its site's */
};
struct sched_turn {
    const struct at_instance *instance;
    const struct sched_request *request;
    const struct sched_group *group;
    struct sched_turn_site *sites;
    struct sched_turn_node *apart;
    size_t n_apart;
    enum at_sched_rule others_refused; /* all nodes not apart; AT_SCHED_RULE_COUNT: not */
    struct sched_near *near;           /* near.c: rules about where other instances are */
    size_t n_near;
};

struct sched {
    const struct at_snapshot *snap;
    struct at_arena *arena;
    struct sched_node *nodes; /* by name */
    size_t n_nodes, n_sites;
    struct sched_site **sites;
    struct sched_mix *mix;        /* fragment.c: of GPU requests; NULL: not needed yet */
    struct at_map *node_by_name;  /* struct sched_node * */
    struct at_map *site_by_name;  /* struct sched_site * */
    struct at_map *group_by_name; /* struct sched_group * */
    struct sched_tally *tally;    /* told of each instance that comes to or leaves a node */
    struct sched_net *net;        /* of the sites; made anew when a Site changes */
    const struct at_site **net_sites;
    bool soft_taints; /* some node has a taint with PreferNoSchedule */
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
int64_t sched_extended_free(const struct sched_node *n, const char *name);
int64_t sched_amount(const char *text); /* of an extended resource */
/* gpus.c */
bool sched_gpu_fits(const struct sched_gpu *g, const struct sched_demand *d);
/* The GPUs that d gets, by its topology: how many, ascending; 0: there are none. */
size_t sched_gpus_near(const struct sched_node *n, const struct sched_demand *d,
                       uint32_t *ret_index);
bool sched_topology_refuses(const struct sched_node *n, const struct sched_demand *d);

/* AT_SCHED_RULE_COUNT: the GPUs asked for are there. */
enum at_sched_rule sched_gpu_check(const struct sched_node *n, const struct sched_demand *d);

/* filter.c: AT_SCHED_RULE_COUNT: no rule refuses. */
enum at_sched_rule sched_refuse_static(const struct sched *s, const struct sched_request *r,
                                       const struct sched_node *n);
enum at_sched_rule sched_refuse_room(const struct sched *s, const struct sched_request *r,
                                     const struct sched_node *n);
const char *sched_driver_wanted(const struct at_workload *spec);
bool sched_strings_have(const struct at_model_strings *list, const char *s);
const struct at_taint *sched_taint_refusing(const struct at_node *node,
                                            const struct at_placement *placement);
/* The rule of a residency policy that keeps data_class out of jurisdiction; NULL: none. */
const struct at_residency_rule *sched_residency_refusing(const struct at_snapshot *snap,
                                                         const char *data_class,
                                                         const char *jurisdiction);

/* score.c: parts[] come in as zeroes. */
void sched_weights(const struct sched *s, const struct at_workload *spec,
                   const struct sched_demand *d, int64_t out[AT_SCHED_OBJ_COUNT]);
void sched_score_node(const struct sched *s, const struct sched_request *r,
                      const struct sched_node *n, int64_t parts[AT_SCHED_OBJ_COUNT]);
void sched_score_site(const struct sched *s, const struct sched_request *r, size_t site,
                      int64_t parts[AT_SCHED_OBJ_COUNT]);
enum at_rc sched_net_load(struct sched *s) AT_WARN_UNUSED;

/* score_place.c, for score.c */
int64_t sched_score_latency(const struct sched *s, const struct at_placement *p, size_t site);
int64_t sched_score_data(const struct sched *s, const struct at_workload *spec,
                         const struct sched_node *n);
int64_t sched_score_balance(const struct sched_node *n, const struct sched_demand *d);
int64_t sched_score_preference(const struct sched_request *r, const struct sched_node *n);
bool sched_has_demand(const struct at_placement *p);
bool sched_has_data(const struct at_workload *spec);
bool sched_has_preference(const struct at_workload *spec, const struct sched_demand *d);
bool sched_is_soft_tainted(const struct at_node *node);
/* Microdollars an hour of the request there. */
int64_t sched_hourly_price(const struct at_site *site, const struct sched_demand *d);
bool sched_spread_by_node(const struct at_placement *placement); /* domain.c */

/* fragment.c: the part of a request for GPUs; the mix is looked at first. err: AT_NOMEM */
enum at_rc sched_mix_load(struct sched *s) AT_WARN_UNUSED;
int64_t sched_score_fragmentation(const struct sched *s, const struct sched_node *n,
                                  const struct sched_demand *d);

/* domain.c: the turn's sites (refusal, parts), nodes apart (refusal, all parts but those of
 * sched_score_node) and others_refused. Filled in before: eligible, fits, refusal (none) and
 * sched_score_site's parts of sites; apart holds the nodes with copies of the group. err: AT_NOMEM
 */
enum at_rc sched_turn_places(struct sched *s, struct sched_turn *turn) AT_WARN_UNUSED;

/* scheduler.c */
/* The entry of node among those apart, made (and taken out of its site's counts) when it is not
 * there; pointers to other entries are void then. NULL: out of arena. cost: O(apart) */
struct sched_turn_node *sched_turn_apart(struct sched *s, struct sched_turn *turn,
                                         const struct sched_node *node);
int64_t sched_copies_on(const struct sched *s, const struct sched_group *group,
                        const struct sched_node *node);

/* Why node is refused in this turn; AT_SCHED_RULE_COUNT: it is not. */
enum at_sched_rule sched_turn_refusal(const struct sched *s, const struct sched_turn *turn,
                                      const struct sched_node *node);

/* message.c: refused, example and message of a decision. */
enum at_rc sched_explain(struct sched *s, const struct sched_turn *turn,
                         struct at_sched_decision *decision) AT_WARN_UNUSED;

#endif
