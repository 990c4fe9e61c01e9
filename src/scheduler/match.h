/* Labels and the expressions over them; the levels of places. Pure. */
#ifndef AT_SCHEDULER_MATCH_H
#define AT_SCHEDULER_MATCH_H

#include "model/model.h"

/* What counts as the same place. */
enum sched_level {
    SCHED_LEVEL_NODE,
    SCHED_LEVEL_SITE,
    SCHED_LEVEL_PROVIDER,
    SCHED_LEVEL_REGION,
    SCHED_LEVEL_JURISDICTION,
    SCHED_LEVEL_COUNT
};
/* Unknown or NULL: otherwise. */
enum sched_level sched_level_of(const char *name, enum sched_level otherwise);
const char *sched_level_name(enum sched_level level);
/* The place at a level where node (NULL: any of the site's) stands; NULL when nobody told. */
const char *sched_level_value(enum sched_level level, const struct at_node *node,
                              const struct at_site *site, const char *site_name);

/* Kubernetes' operators. value NULL: the label is absent; then NotIn and DoesNotExist hold, and Gt
 * and Lt do not. Gt and Lt hold of whole numbers only. */
bool sched_expression_holds(const struct at_expression *expression, const char *value);
/* All of a selector's parts hold; one without parts holds of everything. */
bool sched_labels_match(const struct at_label_selector *selector,
                        const struct at_model_map *labels);
/* A label of the node. What every node is known by, when it has no label of its own:
 * atoll.dev/site, site-class, region, provider, jurisdiction, kubernetes.io/arch. */
const char *sched_node_label(const struct at_node *node, const struct at_site *site,
                             const char *key);
/* The first expression of the term that does not hold; NULL: all do. */
const struct at_expression *sched_term_refusing(const struct at_node_term *term,
                                                const struct at_node *node,
                                                const struct at_site *site);
/* What reservations keep from an instance stands last in each term, by this key, as names of nodes;
 * so whatever else a term asks for comes first. */
#define SCHED_KEY_HELD "atoll.dev/held-for-others"
/* Of a node whose affinity does not hold: only a reservation stands in the way of some term. */
bool sched_node_is_held(const struct at_node_affinity *affinity, const struct at_node *node,
                        const struct at_site *site);
/* One of the terms holds, or there are none. */
bool sched_node_affinity_holds(const struct at_node_affinity *affinity, const struct at_node *node,
                               const struct at_site *site);
/* The policy's rule that keeps the instance away from the site; NULL: none. deny wins over allow.
 * Where the site's object is missing, every rule that concerns the instance refuses. */
const struct at_placement_rule *sched_policy_refusing(const struct at_policy *policy,
                                                      const struct at_instance *instance,
                                                      const struct at_site *site,
                                                      const char *site_name);

#endif
