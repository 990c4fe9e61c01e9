/* What the scheduler's files share.
 *
 * HOW RULES AND OBJECTIVES PLUG IN. All instances that ask for the same (spec members named in
 * request.c) share one struct sched_request, and what was found out about
 * (request, node) is kept until that node changes. So each rule and each objective belongs to one
 * of these kinds, by what it may look at:
 *
 *   sched_refuse_static (filter.c)  request, node object, its site, policies. Never looks at
 *                                   instances or room. Asked again when the node or its site's
 *                                   object changes; any policy's change asks everything again.
 *   sched_refuse_room (room.h)      also what the node has free: when something comes or leaves.
 *   sched_score_node (score.c)      parts by (request, node, its room), likewise.
 *   sched_score_site (score.c)      parts by (request, site object).
 *   sched_turn_places (domain.c)    what depends on where other instances are, or on other nodes:
 *                                   spread, affinity, the cheapest price. Asked for each decision;
 *                                   it must not walk all nodes or all instances, but may walk sites
 *                                   (provider, region and jurisdiction are attributes of sites) and
 *                                   the nodes that are apart: those that hold copies of the group
 *                                   (while they are few: a large group's copies are told by place,
 *                                   turn.copies), or that it marks by sched_turn_apart. It writes
 *                                   refusals and parts for whole sites, for nodes apart, and for
 * all the rest.
 *
 * A part is 0..1000, belongs to exactly one kind, and is 0 where another kind writes it. A rule
 * that needs counts of instances by label keeps them itself in sched_holder_changed (domain.c),
 * which is told of each instance that comes to or leaves a node.
 *
 * ROOM FOR OTHERS. Reservations, nominations and waiting gangs hold room by sched_hold (hold.c) for
 * the instance of a key; that instance sees through what is held for it. */
#ifndef AT_SCHEDULER_SCHEDULER_PRIV_H
#define AT_SCHEDULER_SCHEDULER_PRIV_H

#include "core/map.h"
#include "core/mem.h"
#include "core/str.h"
#include "model/members.h"
#include "scheduler/match.h"
#include "scheduler/node.h"
#include "scheduler/pack_priv.h"
#include "scheduler/paths.h"
#include "scheduler/scheduler.h"
#include "scheduler/tally.h"
#include "scheduler/topology.h"

#define AT_SCHED_REQUESTS_MAX 1024 /* kept though nobody asks for them any more */
#define SCHED_TOLD_KINDS 5         /* of which changes are told: world.c */
#define SCHED_BLOCK 64             /* nodes whose best score is kept together */
#define SCHED_LARGE_GROUP 32       /* nodes with copies: more than this, and they are not apart */
#define SCHED_AHEAD 6 /* so many copies ahead of the emptiest place, or more, all is one */
#define SCHED_FITS 64 /* a kept score of this or more: fits; less: refused by that rule */

/* Copies of one owner and template that are placed and not ended. */
struct sched_group {
    char *name; /* NULL: of one instance without an owner */
    size_t refs, n_by_site;
    int32_t *by_site;
    uint64_t version; /* grows with each change */
    struct sched_group_node {
        struct sched_node *node;
        int32_t copies;
    } * nodes; /* where there are any */
    size_t n_nodes, cap_nodes;
    int32_t *by_pos;    /* of a large group: copies by place in sched.nodes */
    uint64_t pos_order; /* as long as this is sched's order_number */
};

struct sched_item;         /* engine.h */
struct sched_request_site; /* engine.h */
struct sched_request_place;

/* All that ask for the same. */
struct sched_request {
    const struct at_workload *spec; /* a copy of the members that it is made of */
    struct sched_demand demand;
    int64_t weights[AT_SCHED_OBJ_COUNT];
    /* Of the engine: */
    struct at_arena *arena;
    struct at_instance *copy;
    struct sched_request *next; /* with the same hash */
    uint64_t hash;
    size_t refs; /* items that ask for it */
    bool scored;
    uint64_t seen;    /* the log up to here is in the scores */
    uint64_t epoch;   /* of sched: site and policy objects, order of nodes, mix */
    uint64_t order;   /* of nodes, of sched */
    uint64_t version; /* grows when a node begins or ceases to fit, or is refused otherwise */
    uint32_t *scores; /* per node: a rule, or SCHED_FITS + weighted parts of the node */
    uint32_t *best;   /* per block, or more when loose; 0: no node of it fits */
    uint8_t *loose;   /* bits per block: sched_block_best finds its best anew */
    struct sched_request_site *sites;
    struct sched_request_place *places;  /* of the sites, too */
    size_t refused[AT_SCHED_RULE_COUNT]; /* nodes that this rule refuses, as far as it is kept */
    /* Nodes before it by name are not refused by this rule, as far as it is kept. */
    uint32_t first_refused[AT_SCHED_RULE_COUNT];
    uint64_t no_victims[2];      /* where log and holders stood when preemption found nobody */
    int64_t no_victims_for;      /* of this priority */
    bool no_victims_by_budget;   /* a disruption budget took part in that */
    struct at_pack_request pack; /* gpus 0: not in the mix */
    size_t live;                 /* items not ended that ask for it: the mix */
};

/* Of the decision being made, by site. */
struct sched_turn_site {
    size_t eligible, fits; /* nodes not apart that no static rule, and that no room rule refuses */
    enum at_sched_rule refusal; /* of all its nodes not apart; AT_SCHED_RULE_COUNT: none */
    int64_t price;              /* microdollars an hour */
    int64_t parts[AT_SCHED_OBJ_COUNT];
    int64_t base; /* turn.c: parts weighed, for nodes not apart */
    /* Of a large group, by copies ahead of least: a node's part for spread, in place of the one in
     * parts, which is that of none ahead. */
    int64_t least, ahead[SCHED_AHEAD];
};
/* Of the decision being made, for a node unlike the others of its site. */
struct sched_turn_node {
    const struct sched_node *node;
    bool eligible, fits; /* as above */
    enum at_sched_rule refusal;
    int64_t copies;                    /* of the group */
    int64_t parts[AT_SCHED_OBJ_COUNT]; /* in place of its site's */
};
struct sched_turn {
    const struct at_instance *instance;
    struct sched_request *request;
    const struct sched_group *group;
    struct sched_turn_site *sites;
    struct sched_turn_node *apart;
    size_t n_apart, cap_apart;
    const int32_t *copies; /* of a large group, by place; NULL: all nodes with copies are apart */
    enum at_sched_rule others_refused; /* all nodes not apart; AT_SCHED_RULE_COUNT: not */
    struct sched_near *near;           /* near.c: rules about where other instances are */
    size_t n_near;
};

struct sched {
    const struct at_snapshot *snap;
    struct at_arena *arena;      /* of the plan being made */
    struct sched_node **nodes;   /* by (site, name) */
    struct sched_node **by_rank; /* by name */
    size_t n_nodes, cap_nodes, n_sites, cap_sites;
    struct sched_site **sites;
    struct sched_mix *mix;        /* mix.c: of GPU requests */
    struct at_map *node_by_name;  /* struct sched_node * */
    struct at_map *site_by_name;  /* struct sched_site * */
    struct at_map *group_by_name; /* struct sched_group * */
    struct sched_tally *tally;    /* told of each instance that comes to or leaves a node */
    struct sched_net *net;        /* of the sites; made anew when a Site changes */
    const struct at_site **net_sites;
    bool soft_taints;                 /* some node has a taint with PreferNoSchedule */
    struct at_map *gangs;             /* struct sched_gang * */
    struct at_map *available, *keeps; /* by uid of owner: copies available; engine.h */
    int64_t lowest_priority;          /* of what is held; or lower */
    int64_t now_wall_ns;              /* of the plan being made */
    uint64_t plan_number;
    const struct at_instance **released; /* by the plan being made */
    size_t n_released;
    struct at_map *item_by_key;            /* struct sched_item * */
    struct at_map *told[SCHED_TOLD_KINDS]; /* "ns/name" changed since the last update */
    struct sched_item **pending;
    size_t n_pending, cap_pending, n_homeless, n_queued;
    struct at_model_members members; /* of a spec, that make a request */
    struct sched_request **requests; /* hash table of lists */
    size_t n_requests, n_request_slots, n_unused;
    uint32_t *log; /* ring of nodes changed */
    uint64_t log_end, log_mask, changed_static;
    uint64_t epoch, order_number, turn_number, budgets;
    uint64_t kept;          /* grows when a disruption budget keeps somebody */
    uint64_t holders;       /* grows when anything comes to or leaves a node */
    struct sched_turn turn; /* its arrays are kept */
    size_t cap_turn_sites;
    size_t n_blocks;
    size_t large_group; /* SCHED_LARGE_GROUP; tests set others */
    bool loaded, order_stale, unsettled, net_stale;
    /* message.c: the decision before this one in the plan, when it stays pending; its group. NULL
     * when a plan begins. */
    const struct at_sched_decision *last_pending;
    const struct sched_group *last_group;
};
/* free.c */
struct sched_demand sched_demand_of(const struct at_workload *spec);
bool sched_instance_holds(const struct at_instance *instance); /* its node's resources */
bool sched_instance_ended(const struct at_instance *instance);
int64_t sched_gpu_free(const struct sched_node *n);
int64_t sched_extended_cap(const struct sched_node *n, const char *name); /* when empty */
int64_t sched_extended_free(const struct sched_node *n, const char *name);
int64_t sched_amount(const char *text); /* of an extended resource */
/* AT_SCHED_RULE_COUNT: the GPUs asked for are there. */
enum at_sched_rule sched_gpu_check(const struct sched_node *n, const struct sched_demand *d);

/* gpus.c */
/* What d may have of it. */
struct sched_gpu_room {
    int64_t milli, memory_bytes;
};
struct sched_gpu_room sched_gpu_room(const struct sched_gpu *g, const struct sched_demand *d);
bool sched_gpu_fits(const struct sched_gpu *g, const struct sched_demand *d);
bool sched_gpu_fits_model(const struct sched_gpu *g, const struct sched_demand *d);
/* sched_gpu_check of a plain node when GPU memory is not asked for, without a look at each. */
enum at_sched_rule sched_gpu_check_plain(const struct sched_node *n, const struct sched_demand *d);
/* The GPUs that d gets, by its topology: how many, ascending; 0: there are none. */
size_t sched_gpus_near(const struct sched_node *n, const struct sched_demand *d,
                       uint32_t *ret_index);
bool sched_topology_refuses(const struct sched_node *n, const struct sched_demand *d);

/* filter.c: AT_SCHED_RULE_COUNT: no rule refuses. */
enum at_sched_rule sched_refuse_static(const struct sched *s, const struct sched_request *r,
                                       const struct sched_node *n);
/* room.h has the rules about room; these of them are rare. */
enum at_sched_rule sched_refuse_rare(const struct sched_request *r, const struct sched_node *n);

/* One rule each, for those that look at all of them. */
bool sched_selector_refuses(const struct at_placement *p, const struct at_node *node);
uint64_t sched_places_refusing(const struct at_placement *p, const struct sched_node *n); /* bits */
enum at_sched_rule sched_refuse_place(const struct at_placement *p, const struct sched_node *n);
bool sched_driver_is_ready(const struct at_node *node, const char *driver);
/* The node shares its GPUs in another way than the request asks for. */
bool sched_sharing_refuses(const struct at_node *node, const struct at_workload *spec);
/* What the way that the node shares its GPUs lacks for it; NULL: nothing. Of the node. */
const char *sched_sharing_lacks(const struct at_node *node, const struct at_workload *spec);
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
void sched_net_load(struct sched *s); /* sites have changed */

/* Microdollars an hour of the request there. */
int64_t sched_hourly_price(const struct at_site *site, const struct sched_demand *d);
int64_t sched_score_fragmentation(const struct sched *s, const struct sched_node *n,
                                  const struct sched_request *r); /* mix.c */
bool sched_spread_by_node(const struct at_placement *placement);  /* domain.c */

/* domain.c: the turn's sites (refusal, parts), nodes apart (refusal, all parts but those of
 * sched_score_node) and others_refused. Filled in before: eligible, fits, refusal (none) and
 * sched_score_site's parts of sites; apart holds the nodes with copies of the group. err: AT_NOMEM
 */
enum at_rc sched_turn_places(struct sched *s, struct sched_turn *turn) AT_WARN_UNUSED;
/* instance came to (sign 1) or left (-1) node; also when its object changed while it was there. One
 * that is being deleted has left, for this purpose. */
void sched_holder_changed(struct sched *s, const struct at_instance *instance,
                          const struct sched_node *node, int sign);

/* Of a node not apart, in a turn with copies: its place in ahead of its site. */
static inline size_t sched_ahead(const struct sched_turn *turn, const struct sched_node *n)
{
    int64_t ahead = turn->copies[n->pos] - turn->sites[n->site_index].least;
    return ahead <= 0 ? 0 : ahead < SCHED_AHEAD ? (size_t)ahead : SCHED_AHEAD - 1;
}

/* By maxSkew, whatever else refuses the node. */
bool sched_skew_refuses(const struct sched *s, const struct sched_turn *turn,
                        const struct sched_node *node);

/* turn.c */
/* The entry of node among those apart, made (and taken out of its site's counts) when it is not
 * there; pointers to other entries are void then. Never NULL. */
struct sched_turn_node *sched_turn_apart(struct sched *s, struct sched_turn *turn,
                                         const struct sched_node *node);
int64_t sched_copies_at(const struct sched_group *group, size_t site_index);
/* Why node is refused in this turn; AT_SCHED_RULE_COUNT: it is not. cost: O(1) */
enum at_sched_rule sched_turn_refusal(const struct sched *s, const struct sched_turn *turn,
                                      const struct sched_node *node);
/* world.c */
struct sched_node *sched_node_find(const struct sched *s, const char *name); /* NULL: none */
struct sched_item *sched_item_find(const struct sched *s, const char *ns, const char *name);
/* Tell sched_holder_changed of all that is held, as if it came. */
void sched_holders_tell(struct sched *s);

/* message.c: refused, example and message of a decision. */
enum at_rc sched_explain(struct sched *s, const struct sched_turn *turn,
                         struct at_sched_decision *decision) AT_WARN_UNUSED;
/* The second half of the sentence "node: why"; rule refuses it. NULL: out of arena. */
const char *sched_why_refused(struct sched *s, const struct sched_turn *turn,
                              const struct sched_node *n, enum at_sched_rule rule);

#endif
