/* What the engine's own files share: what is known of nodes and instances, what is kept of
 * requests, and the packing engine's view of them. Rules and objectives have no business here. */
#ifndef AT_SCHEDULER_ENGINE_H
#define AT_SCHEDULER_ENGINE_H

#include "scheduler/scheduler_priv.h"

/* Public under this name. */
struct at_scheduler {
    struct sched s;
};

/* Instances that are placed together or not at all. */
struct sched_gang {
    char *key; /* "namespace/name" */
    int64_t size;
    struct sched_item **items; /* those that have not ended */
    size_t n, cap;
    uint64_t plan; /* in which worth was found out */
    bool worth;
};

/* An instance that is known and has not ended, or room held for one (phantom). */
struct sched_item {
    char *key;                          /* "namespace/name" */
    const struct at_instance *instance; /* NULL: phantom */
    const struct at_instance *asked;    /* in its stead, while a plan is made; NULL: itself */
    struct sched_request *request;
    struct sched_group *group;      /* NULL: phantom */
    struct sched_node *node;        /* NULL: holds nothing */
    struct sched_item *next, *prev; /* on the node */
    struct at_sched_gpu *gpus;
    size_t n_gpus;
    bool recorded; /* gpus is what it holds; else it was found by choosing again */
    bool planned;  /* decided here; the snapshot does not show it bound yet */
    bool counted;  /* in its group */
    bool queued;   /* pending, and names a queue */
    bool homeless; /* bound to a node that is not there */
    bool pending;
    size_t pending_at;      /* in sched.pending */
    uint64_t tried;         /* request's version + 1 when it was last refused; 0: try it */
    bool waits_for_others;  /* not for room */
    bool waits_for_mates;   /* those that could make room are those that it asks for */
    uint64_t tried_holders; /* and sched's holders then */
    uint64_t tried_epoch;
    uint64_t tried_budgets;  /* its preemption may have failed by a budget: sched's budgets then */
    uint64_t tried_near;     /* and what its rules about others looked at */
    struct sched_item *held; /* phantom that holds room for it */
    struct sched_gang *gang; /* NULL: none */
    uint64_t plan;           /* the last one that it was given to */
    bool victim;             /* ends to make room, by a decision that the snapshot does not show */
    bool available;          /* counted in sched.available */
    bool held_now;           /* between coming to a node and leaving it */
};

/* What is kept of (request, site). */
struct sched_request_site {
    uint32_t eligible, fits; /* nodes that no static rule, and that no rule refuses */
};
/* And of what does not change with room. */
struct sched_request_place {
    int64_t price; /* microdollars an hour */
    int64_t parts[AT_SCHED_OBJ_COUNT];
};

/* free.c */
/* Capacity from the object; everything is free then. */
void sched_node_fill(struct sched_node *n, const struct at_node *node);
struct sched_node *sched_node_new(void);
void sched_node_free(struct sched_node *n);
/* The object was replaced by an equal one. */
void sched_node_repoint(struct sched_node *n, const struct at_node *node);
void sched_take(struct sched_node *n, const struct sched_demand *d, const struct at_sched_gpu *gpus,
                size_t n_taken);
void sched_give_back(struct sched_node *n, const struct sched_demand *d,
                     const struct at_sched_gpu *gpus, size_t n_taken);

/* preempt.c */
bool sched_is_leaving(const struct sched_item *item);
/* How many of its owner's copies may go, besides those given up already. */
int64_t sched_budget_left(const struct sched *s, const struct at_instance *i);
/* When a budget that kept somebody may allow more, sched.budgets grows. */
void sched_budget_grew(struct sched *s, const char *uid, int64_t generation); /* -1: copies came */
void sched_budgets_grew(struct sched *s); /* of some owner, if it keeps anybody */
void sched_victim_set(struct sched *s, struct sched_item *item, bool victim);
/* Nothing fits (the turn is the item's): find victims, hold the room for it, tell in d. */
enum at_rc sched_preempt(struct sched *s, struct sched_item *item, int64_t now_wall_ns,
                         struct at_sched_decision *d) AT_WARN_UNUSED;
/* Is enough leaving n for the item? The turn is the item's. */
bool sched_still_leaving(struct sched *s, struct sched_item *item, struct sched_node *n);

/* gang.c */
#define AT_SCHED_GANG_AGE_NS (30 * AT_NS_PER_S)   /* waited so long, a gang holds room */
#define AT_SCHED_GANG_GRACE_NS (10 * AT_NS_PER_S) /* a part of one may run alone so long */
void sched_gang_join(struct sched *s, struct sched_item *item); /* as its object says */
void sched_gang_leave(struct sched *s, struct sched_item *item);
bool sched_gang_is_old(const struct sched_item *item, int64_t now_wall_ns);
/* All pending members of one gang that are in the plan; a decision each. */
enum at_rc sched_gang_decide(struct sched *s, struct sched_item **members, size_t n,
                             int64_t now_wall_ns, struct at_sched_decision *d) AT_WARN_UNUSED;

int64_t sched_gang_placed(const struct sched_gang *gang); /* hold a place, and do not leave it */

/* scheduler.c: filter, score, choose, take. */
enum at_rc sched_decide_alone(struct sched *s, struct sched_item *item,
                              struct at_sched_decision *d) AT_WARN_UNUSED;

/* turn.c */
/* As sched_turn_refusal, for a node that some rule about room refuses: by other rules. */
enum at_sched_rule sched_turn_refusal_but_room(const struct sched *s, const struct sched_turn *turn,
                                               const struct sched_node *node);
enum at_rc sched_turn_begin(struct sched *s, struct sched_item *item) AT_WARN_UNUSED; /* s->turn */
/* The best node and the next best into d; none: d->node stays NULL. */
void sched_turn_choose(struct sched *s, const struct sched_turn *turn, struct at_sched_decision *d);

/* mix.c: GPU requests as the packing engine sees them. */
struct sched_mix *sched_mix_new(void);
void sched_mix_free(struct sched_mix *mix);
/* Look at the requests there are; true when what was learned from them has changed, and with it
 * every node's measure. force: also when little has changed. */
bool sched_mix_update(struct sched *s, bool force);
void sched_mix_changed(struct sched *s, const struct sched_request *r); /* its live */
void sched_mix_request(struct sched *s, struct sched_request *r);       /* fills in r->pack */
void sched_mix_node(const struct sched *s, struct sched_node *n);       /* its GPUs changed */
/* Which GPUs of a node where they fit; ret_gpus has room for demand.gpu_count. */
void sched_gpus_pick(const struct sched *s, const struct sched_node *n,
                     const struct sched_request *r, struct at_sched_gpu *ret_gpus);
/* Weighted points within which nodes of a site count as equally good, the first by name winning. */
uint32_t sched_slack(const struct sched *s, const struct sched_request *r);

/* request.c */
void sched_requests_init(struct sched *s);
struct sched_request *sched_request_ref(struct sched *s, const struct at_instance *instance);
bool sched_request_is(const struct sched *s, const struct sched_request *r,
                      const struct at_instance *instance);
void sched_request_unref(struct sched *s, struct sched_request *r);
void sched_requests_free(struct sched *s);
void sched_requests_weigh(struct sched *s); /* weights depend on more than the request */
/* Bring what is kept of every node up to date. cost: O(nodes changed since the last time) */
void sched_request_refresh(struct sched *s, struct sched_request *r);
/* Of the site's block. cost: O(1), or O(SCHED_BLOCK) when its best node got worse. */
uint32_t sched_block_best(struct sched_request *r, const struct sched_site *site, size_t block);
struct sched_group *sched_group_ref(struct sched *s, const struct at_instance *instance);
void sched_group_unref(struct sched *s, struct sched_group *group);
/* Copies by place, when the group is large; NULL: it is not. cost: O(1), O(nodes) when they came
 * into another order. */
const int32_t *sched_group_by_pos(const struct sched *s, struct sched_group *group);
void sched_group_count(struct sched *s, struct sched_group *group, struct sched_node *n, int sign);

/* world.c */
void sched_node_recount(struct sched *s, struct sched_node *n); /* all, less what is held */
void sched_settle(struct sched *s); /* after nodes changed: their order, what each has free */

/* items.c */
#define SCHED_KEY_MAX 1024
/* "namespace/name"; its length, 0 when it is too long. */
size_t sched_key(const char *ns, const char *name, char out[SCHED_KEY_MAX]);
void sched_item_set_gpus(struct sched_item *item, const struct at_sched_gpu *gpus, size_t n);
void sched_item_set_homeless(struct sched *s, struct sched_item *item, bool homeless);
void sched_item_remove(struct sched *s, struct sched_item *item);
/* The instance as it is now; what a plan gave it stays until the snapshot says otherwise. */
void sched_item_put(struct sched *s, const struct at_instance *i);
/* The same for whom knows its item; NULL: there is none yet. */
void sched_item_put_known(struct sched *s, const struct at_instance *i, struct sched_item *item);
void sched_available_set(struct sched *s, struct sched_item *item); /* count it as it is now */
void sched_item_ask(struct sched *s, struct sched_item *item, const struct at_instance *i);
void sched_node_changed(struct sched *s, struct sched_node *n); /* its room */
/* The item takes node's room; without GPUs given they are found by choosing again. */
void sched_item_take(struct sched *s, struct sched_item *item, struct sched_node *n,
                     const struct at_sched_gpu *gpus, size_t n_gpus);
void sched_item_release(struct sched *s, struct sched_item *item);

/* The item of a pending instance, also of one that the snapshot does not show. */
struct sched_item *sched_item_of(struct sched *s, const struct at_instance *instance);
void sched_pending_set(struct sched *s, struct sched_item *item, bool pending);
/* Hold on n what the item asks for, in place of what was held for it before; also more than is
 * free. It is let go when the item is bound or goes. */
void sched_hold(struct sched *s, struct sched_item *item, struct sched_node *n);
void sched_unhold(struct sched *s, struct sched_item *item);

/* How many nodes each rule refuses, and the first of them by name. cost: O(sites + apart), and a
 * walk over nodes that ends when each rule's first is found. */
void sched_turn_refused(const struct sched *s, const struct sched_turn *turn,
                        size_t ret_refused[AT_SCHED_RULE_COUNT],
                        const struct sched_node *ret_first[AT_SCHED_RULE_COUNT]);

#endif
