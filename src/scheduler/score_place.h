/* Objectives that look at where data, demand and liked nodes are; for score.c. Pure. */
#ifndef AT_SCHEDULER_SCORE_PLACE_H
#define AT_SCHEDULER_SCORE_PLACE_H

#include "scheduler/scheduler_priv.h"

int64_t sched_score_latency(const struct sched *s, const struct at_placement *p, size_t site);
int64_t sched_score_data(const struct sched *s, const struct at_workload *spec,
                         const struct sched_node *n);
int64_t sched_score_balance(const struct sched_node *n, const struct sched_demand *d);
int64_t sched_score_preference(const struct sched_request *r, const struct sched_node *n);
bool sched_has_demand(const struct at_placement *p);
bool sched_has_data(const struct at_workload *spec);
bool sched_has_preference(const struct at_workload *spec, const struct sched_demand *d);
bool sched_is_soft_tainted(const struct at_node *node);

#endif
