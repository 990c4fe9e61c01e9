/* Counts that rules about other instances need, kept as instances come to nodes and leave them, so
 * that no decision walks instances: how many of those that a selector means are on each node and at
 * each site, how many there keep others away, and what a site's instances reserve. Pure. */
#ifndef AT_SCHEDULER_TALLY_H
#define AT_SCHEDULER_TALLY_H

#include "core/map.h"
#include "scheduler/match.h"

struct sched_tally;

/* Instances that a selector means in some namespaces, or the copies of one owner and template. */
struct sched_matcher {
    const char *key;
    const char *group;                        /* NULL: by selector */
    const struct at_label_selector *selector; /* copies, as long as the tally lives */
    struct at_model_strings namespaces;
    bool counted;                     /* the counts below are kept */
    struct at_map *by_node, *by_site; /* name -> count, see sched_tally_count */
    int64_t total;
    uint64_t version;                                /* grows with each change of the counts */
    struct sched_matcher *next;                      /* with the same label, or in the same list */
    struct sched_keeper *keepers[SCHED_LEVEL_COUNT]; /* NULL: none yet */
};
/* Instances that keep away those that a matcher means, by their required anti-affinity. */
struct sched_keeper {
    const struct sched_matcher *matcher;
    enum sched_level level;
    struct at_map *by_place; /* node names, or site names for the other levels */
    int64_t total;
    uint64_t version;
};
struct sched_site_use {
    int64_t instances, cpu_milli, memory_bytes, gpu_milli;
    uint64_t version;
};

struct sched_tally *sched_tally_new(void); /* own: sched_tally_free */
void sched_tally_free(struct sched_tally *tally);
/* Count from now on what the rules of this instance look at. True: something was not counted
 * before, so all that is held must be told again after sched_tally_reset. */
bool sched_tally_learn(struct sched_tally *tally, const struct at_instance *instance);
void sched_tally_reset(struct sched_tally *tally);
/* The instance came to (sign 1) or left (-1) a node of a site.
 * cost: O(its labels + its terms + matchers without a fixed label) */
void sched_tally_changed(struct sched_tally *tally, const struct at_instance *instance,
                         const char *node_name, const char *site_name, int sign);

/* NULL: not learnt. */
const struct sched_matcher *sched_tally_of_term(const struct sched_tally *tally,
                                                const struct at_affinity_term *term,
                                                const char *ns);
const struct sched_matcher *sched_tally_of_spread(const struct sched_tally *tally,
                                                  const struct at_spread_rule *rule,
                                                  const struct at_instance *instance);
bool sched_matcher_means(const struct sched_matcher *matcher, const struct at_instance *instance);
/* Of a map of counts. */
int64_t sched_tally_count(const struct at_map *counts, const char *name);
/* fn for each kind of instances that keep this one away from where they are. */
typedef void sched_keeper_fn(void *ctx, const struct sched_keeper *keeper);
void sched_tally_keepers(const struct sched_tally *tally, const struct at_instance *instance,
                         sched_keeper_fn *fn, void *ctx);
struct sched_site_use sched_tally_site_use(const struct sched_tally *tally, const char *site_name);
/* "app=web", "app in (a, b), !tier" */
const char *sched_selector_text(const struct at_label_selector *selector, struct at_arena *arena);

#endif
