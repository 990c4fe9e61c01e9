/* Rules about where other instances are: affinity, anti-affinity, spread rules, policies about
 * places and limits of sites, by the tally's counts. Part of a turn; see scheduler_priv.h. */
#ifndef AT_SCHEDULER_NEAR_H
#define AT_SCHEDULER_NEAR_H

#include "scheduler/scheduler_priv.h"

enum sched_near_kind { SCHED_NEAR, SCHED_AWAY, SCHED_KEPT_AWAY, SCHED_SPREAD_RULE };

/* One rule of the instance whose turn it is (or of instances that keep it away). */
struct sched_near {
    enum sched_near_kind kind;
    enum sched_level level;
    int64_t weight;                      /* 0: required */
    const struct sched_matcher *matcher; /* what is counted */
    const struct sched_keeper *keeper;   /* SCHED_KEPT_AWAY */
    const struct at_spread_rule *spread; /* SCHED_SPREAD_RULE */
    int64_t *by_site; /* count of the place to which each site belongs; -1: nobody told which */
    int64_t least, places; /* of a spread rule: in the emptiest place; places that have any */
    bool self;             /* the instance is one of those that are counted */
    bool first;            /* SCHED_NEAR: there are none yet, and the instance is one of them */
};

/* Count from now on what the instance's rules look at. cost: O(1), O(all that is held) when it is
 * something new. */
void sched_near_learn(struct sched *s, const struct at_instance *instance);
/* The turn's rules: refusals of sites, of nodes apart and of the others. First in a turn. */
enum at_rc sched_near_refuse(struct sched *s, struct sched_turn *turn) AT_WARN_UNUSED;
/* Grows when anything changes that these rules, or maxSkew, look at for the instance. */
uint64_t sched_near_stamp(const struct sched *s, const struct at_instance *instance,
                          const struct sched_group *group);
/* What of the affinity objective belongs to sites; then, when the nodes apart have their sites'
 * parts, theirs. */
void sched_near_score_sites(const struct sched *s, struct sched_turn *turn);
void sched_near_score_apart(const struct sched *s, struct sched_turn *turn);
bool sched_has_near_preference(const struct at_placement *placement);
/* Bits of all these rules that refuse the node. ret_more: of several terms of one rule, those
 * beyond the first. */
uint64_t sched_near_rules_at(const struct sched *s, const struct sched_turn *turn,
                             const struct sched_node *node, int *ret_more);
/* Would the turn's instance, on the node, miss those that its affinity asks for, or whose place a
 * rule about the number of places lets it into, were these gone? */
bool sched_near_misses(const struct sched *s, const struct sched_turn *turn,
                       const struct sched_node *node, const struct at_instance *const *gone,
                       size_t n_gone);
/* Why a rule of the turn refuses the node; the sentence's second half. NULL: out of arena. */
const char *sched_near_why(struct sched *s, const struct sched_turn *turn,
                           const struct sched_node *node, enum at_sched_rule rule);

/* nearest.c: nearest, remedies and never of a pending decision. cost: O(nodes * rules) */
enum at_rc sched_find_nearest(struct sched *s, const struct sched_turn *turn,
                              struct at_sched_decision *decision) AT_WARN_UNUSED;

/* makers.c: whose end on the node would make room, and what keeps them. ret->message stays NULL
 * when nobody's would. cost: O(instances there * log) */
enum at_rc sched_find_makers(struct sched *s, const struct sched_turn *turn,
                             const struct sched_node *node,
                             struct at_sched_remedy *ret) AT_WARN_UNUSED;

#endif
