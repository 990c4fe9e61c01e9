#include "state/snapshot.h"

#include "core/mem.h"
#include "state/state_priv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

const struct at_model_kind *at_state_slot_kind(enum at_state_slot slot)
{
    static const struct at_model_kind *const KINDS[AT_STATE_SLOTS] = {
        [AT_STATE_SITES] = &AT_KIND_SITE,
        [AT_STATE_NODES] = &AT_KIND_NODE,
        [AT_STATE_DEPLOYMENTS] = &AT_KIND_DEPLOYMENT,
        [AT_STATE_INSTANCES] = &AT_KIND_INSTANCE,
        [AT_STATE_JOBS] = &AT_KIND_JOB,
        [AT_STATE_POLICIES] = &AT_KIND_POLICY,
        [AT_STATE_NAMESPACES] = &AT_KIND_NAMESPACE,
        [AT_STATE_QUEUES] = &AT_KIND_QUEUE,
        [AT_STATE_RESERVATIONS] = &AT_KIND_RESERVATION,
        [AT_STATE_QUOTAS] = &AT_KIND_RESOURCE_QUOTA,
        [AT_STATE_LIMIT_RANGES] = &AT_KIND_LIMIT_RANGE,
        [AT_STATE_NETWORK_POLICIES] = &AT_KIND_NETWORK_POLICY,
    };
    return KINDS[slot];
}

enum at_state_slot at_state_slot_of(const struct at_model_kind *kind)
{
    enum at_state_slot slot = AT_STATE_SITES;
    while (slot < AT_STATE_SLOTS && at_state_slot_kind(slot) != kind) {
        slot++;
    }
    return slot;
}

struct at_snapshot_box *at_snapshot_box_new(struct at_state_kind kinds[AT_STATE_SLOTS], int64_t rev)
{
    struct at_snapshot_box *box = AT_NEW(struct at_snapshot_box);
    box->refs = 1;
    for (size_t i = 0; i < AT_STATE_SLOTS; i++) {
        box->lists[i] = at_state_list_ref(at_state_kind_list(&kinds[i]));
    }
#define SHOW(field, slot)                                                                          \
    .field = (void *)box->lists[slot]->objects, .n_##field = box->lists[slot]->n
    box->shown = (struct at_snapshot){.rev = rev,
                                      SHOW(sites, AT_STATE_SITES),
                                      SHOW(nodes, AT_STATE_NODES),
                                      SHOW(deployments, AT_STATE_DEPLOYMENTS),
                                      SHOW(instances, AT_STATE_INSTANCES),
                                      SHOW(jobs, AT_STATE_JOBS),
                                      SHOW(policies, AT_STATE_POLICIES),
                                      SHOW(namespaces, AT_STATE_NAMESPACES),
                                      SHOW(queues, AT_STATE_QUEUES),
                                      SHOW(reservations, AT_STATE_RESERVATIONS),
                                      SHOW(quotas, AT_STATE_QUOTAS),
                                      SHOW(limit_ranges, AT_STATE_LIMIT_RANGES),
                                      SHOW(network_policies, AT_STATE_NETWORK_POLICIES)};
#undef SHOW
    return box;
}

void at_snapshot_unref(const struct at_snapshot *snap)
{
    if (snap == NULL) {
        return;
    }
    struct at_snapshot_box *box = (struct at_snapshot_box *)(uintptr_t)snap;
    assert(box->refs > 0);
    if (--box->refs != 0) {
        return;
    }
    for (size_t i = 0; i < AT_STATE_SLOTS; i++) {
        at_state_list_unref(box->lists[i]);
    }
    at_free(box);
}

/* Every typed object begins with its metadata. */
static const void *find(const void *const *objects, size_t n, const char *ns, const char *name)
{
    size_t low = 0;
    size_t high = n;
    if (name == NULL) {
        return NULL;
    }
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int order = at_state_compare(objects[mid], ns, name);
        if (order == 0) {
            return objects[mid];
        }
        if (order < 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return NULL;
}

const struct at_site *at_snapshot_site(const struct at_snapshot *snap, const char *name)
{
    return find((const void *const *)snap->sites, snap->n_sites, NULL, name);
}

const struct at_node *at_snapshot_node(const struct at_snapshot *snap, const char *name)
{
    return find((const void *const *)snap->nodes, snap->n_nodes, NULL, name);
}

const struct at_deployment *at_snapshot_deployment(const struct at_snapshot *snap, const char *ns,
                                                   const char *name)
{
    return find((const void *const *)snap->deployments, snap->n_deployments, ns, name);
}

const struct at_instance *at_snapshot_instance(const struct at_snapshot *snap, const char *ns,
                                               const char *name)
{
    return find((const void *const *)snap->instances, snap->n_instances, ns, name);
}

/* Binary searches side by side: what each looks at next is fetched while the others compare. */
void at_snapshot_instances(const struct at_snapshot *snap, const struct at_snapshot_key *keys,
                           size_t n, const struct at_instance *ret[AT_SNAPSHOT_FIND_MAX])
{
    size_t low[AT_SNAPSHOT_FIND_MAX], high[AT_SNAPSHOT_FIND_MAX];
    assert(n <= AT_SNAPSHOT_FIND_MAX);
    for (size_t k = 0; k < n; k++) {
        low[k] = 0;
        high[k] = snap->n_instances;
        ret[k] = NULL;
    }
    for (bool more = true; more;) {
        more = false;
        for (size_t k = 0; k < n; k++) {
            if (low[k] < high[k]) {
                __builtin_prefetch(snap->instances[low[k] + (high[k] - low[k]) / 2]);
            }
        }
        for (size_t k = 0; k < n; k++) {
            if (low[k] < high[k]) {
                const struct at_meta *at = &snap->instances[low[k] + (high[k] - low[k]) / 2]->meta;
                __builtin_prefetch(at->ns);
                __builtin_prefetch(at->name);
            }
        }
        for (size_t k = 0; k < n; k++) {
            if (low[k] < high[k]) {
                size_t mid = low[k] + (high[k] - low[k]) / 2;
                int order = at_state_compare(&snap->instances[mid]->meta, keys[k].ns, keys[k].name);
                ret[k] = order == 0 ? snap->instances[mid] : NULL;
                low[k] = order <= 0 ? mid + 1 : low[k];
                high[k] = order == 0 ? low[k] : order > 0 ? mid : high[k];
                more = more || low[k] < high[k];
            }
        }
    }
}

const struct at_job *at_snapshot_job(const struct at_snapshot *snap, const char *ns,
                                     const char *name)
{
    return find((const void *const *)snap->jobs, snap->n_jobs, ns, name);
}

const struct at_namespace *at_snapshot_namespace(const struct at_snapshot *snap, const char *name)
{
    return find((const void *const *)snap->namespaces, snap->n_namespaces, NULL, name);
}
