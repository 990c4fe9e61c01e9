/* An immutable, typed picture of the world at one revision: what schedulers, autoscalers and
 * controllers decide on. */
#ifndef AT_STATE_SNAPSHOT_H
#define AT_STATE_SNAPSHOT_H

#include "model/model.h"

/* Per node, what this process knows from heartbeats: not stored, so absent after a restart until
 * the next beat. */
struct at_snapshot {
    int64_t rev;
    const struct at_site *const *sites;
    size_t n_sites;
    const struct at_node *const *nodes;
    size_t n_nodes;
    const struct at_deployment *const *deployments;
    size_t n_deployments;
    const struct at_instance *const *instances;
    size_t n_instances;
    const struct at_job *const *jobs;
    size_t n_jobs;
    const struct at_policy *const *policies;
    size_t n_policies;
    const struct at_namespace *const *namespaces;
    size_t n_namespaces;
    const struct at_queue *const *queues;
    size_t n_queues;
    const struct at_reservation *const *reservations;
    size_t n_reservations;
    const struct at_resource_quota *const *quotas;
    size_t n_quotas;
    const struct at_limit_range *const *limit_ranges;
    size_t n_limit_ranges;
    const struct at_network_policy *const *network_policies;
    size_t n_network_policies;
};
/* Each list is ordered by (namespace, name). Objects stay valid as long as the snapshot is held.
 * Instances have no meta.annotations here, and no status.decision once they are on a node: nothing
 * is decided by them, and they may be large. */

const struct at_site *at_snapshot_site(const struct at_snapshot *snap, const char *name);
const struct at_node *at_snapshot_node(const struct at_snapshot *snap, const char *name);
const struct at_deployment *at_snapshot_deployment(const struct at_snapshot *snap, const char *ns,
                                                   const char *name);
const struct at_instance *at_snapshot_instance(const struct at_snapshot *snap, const char *ns,
                                               const char *name);
/* The same of several at once, which waits less for memory than one after the other. NULL: there is
 * none. */
#define AT_SNAPSHOT_FIND_MAX 16
struct at_snapshot_key {
    const char *ns, *name;
};
void at_snapshot_instances(const struct at_snapshot *snap, const struct at_snapshot_key *keys,
                           size_t n, const struct at_instance *ret[AT_SNAPSHOT_FIND_MAX]);
const struct at_job *at_snapshot_job(const struct at_snapshot *snap, const char *ns,
                                     const char *name);
const struct at_namespace *at_snapshot_namespace(const struct at_snapshot *snap, const char *name);

#endif
