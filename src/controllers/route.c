/* What a change concerns: from "this object changed" to the keys that must be looked at. */
#include "controllers/controllers_priv.h"
#include "scheduler/scheduler.h"

#include <string.h>

/* The owner's key is remembered: when an instance has gone, nobody else can tell whose it was. */
static void enqueue_owner_key(struct at_controllers *c, const char *key)
{
    const char *ns = strchr(key, '/') + 1;
    const char *slash = strchr(ns, '/');
    AT_CLEANUP(at_cleanup_free) char *ns_text = at_strndup(ns, (size_t)(slash - ns));
    ctl_enqueue(c, key[0] == 'd' ? CTL_DEPLOYMENT : CTL_JOB, ns_text, slash + 1);
}

static char *owner_item(const struct at_instance *i)
{
    const struct at_owner_ref *owner = at_meta_controller(&i->meta);
    if (owner == NULL || (!at_streq(owner->kind, "Deployment") && !at_streq(owner->kind, "Job"))) {
        return NULL;
    }
    return at_asprintf("%c/%s/%s", at_streq(owner->kind, "Job") ? 'j' : 'd', ctl_text(i->meta.ns),
                       ctl_text(owner->name));
}

/* old: what the index knew of the instance before this change. */
static void route_owner(struct at_controllers *c, char *old_take, struct ctl_seen *seen,
                        const struct at_instance *i)
{
    char *now = i != NULL ? owner_item(i) : NULL;
    if (now != NULL) {
        enqueue_owner_key(c, now);
    }
    if (old_take != NULL && !at_streq(old_take, now)) {
        enqueue_owner_key(c, old_take);
    }
    at_free(old_take);
    if (seen != NULL) {
        seen->owner_item = now;
    }
}

/* Does this change give the scheduler anything new to think about? */
static bool concerns_placement(const struct at_instance *i)
{
    if (i == NULL || ctl_ended(i) || i->meta.deletion_wall_ns != 0) {
        return true; /* it held something, perhaps */
    }
    if (ctl_text(i->spec.node_name)[0] != '\0') {
        return i->status.scheduled_at_wall_ns == 0; /* bound by hand */
    }
    return i->status.decision == NULL || i->meta.generation > 1;
}

/* What the node and its site tell of it has changed. */
static void route_counts(struct at_controllers *c, const struct at_snapshot *snap,
                         const char *node_name)
{
    const struct at_node *node = at_snapshot_node(snap, node_name);
    if (node != NULL) {
        ctl_enqueue_after(c, CTL_NODE_COUNTS, NULL, node->meta.name, CTL_COUNT_DELAY_NS);
        ctl_enqueue_after(c, CTL_SITE_COUNTS, NULL, ctl_text(node->spec.site), CTL_COUNT_DELAY_NS);
    }
}

static void route_gone(struct at_controllers *c, const struct at_snapshot *snap, const char *key)
{
    struct ctl_seen *seen = ctl_index_get(c->index, key);
    if (seen == NULL) {
        return;
    }
    char *owner = seen->owner_item;
    seen->owner_item = NULL;
    if (seen->node != NULL) {
        route_counts(c, snap, seen->node->name);
    }
    if (seen->site != NULL) {
        ctl_enqueue_after(c, CTL_SITE_COUNTS, NULL, seen->site->name, CTL_COUNT_DELAY_NS);
    }
    ctl_index_put(c->index, key, NULL);
    route_owner(c, owner, NULL, NULL);
}

/* May somebody have to give it up (gc.c)? */
static bool concerns_collection(const struct at_snapshot *snap, const struct at_instance *i)
{
    const char *node = ctl_text(i->spec.node_name);
    return i->meta.owners.n > 0 || ctl_lost(i) ||
           (node[0] != '\0' && at_snapshot_node(snap, node) == NULL);
}

static void route_instance(struct at_controllers *c, const struct at_snapshot *snap, const char *ns,
                           const char *name)
{
    const struct at_instance *i = at_snapshot_instance(snap, ns, name);
    AT_CLEANUP(at_cleanup_free) char *key = at_asprintf("%s/%s", ctl_text(ns), name);
    ctl_admission_note(c, snap, ns, name);
    if (concerns_placement(i)) {
        ctl_enqueue(c, CTL_PLACEMENT, NULL, "all");
    }
    if (i == NULL) {
        route_gone(c, snap, key);
        return;
    }
    ctl_index_put(c->index, key, i);
    struct ctl_seen *seen = ctl_index_get(c->index, key);
    route_owner(c, seen->owner_item, seen, i);
    ctl_tell_instance(c, seen, i);
    ctl_park_route(c, i);
    if (concerns_collection(snap, i)) {
        ctl_enqueue(c, CTL_INSTANCE, ns, name);
    }
    if (ctl_text(i->spec.node_name)[0] == '\0') {
        return;
    }
    route_counts(c, snap, i->spec.node_name);
    const struct at_node *node = at_snapshot_node(snap, i->spec.node_name);
    if (node != NULL && ctl_node_lost(node)) {
        ctl_enqueue(c, CTL_NODE, NULL, node->meta.name);
    }
}

/* The owner's copies, when it has gone or is being deleted. */
static void route_orphans(struct at_controllers *c, const char *kind, const char *ns,
                          const char *name)
{
    const struct ctl_group *owned = ctl_index_owner(c->index, kind, ns, name);
    for (const struct ctl_link *l = owned != NULL ? owned->first : NULL; l != NULL; l = l->next) {
        ctl_enqueue(c, CTL_INSTANCE, ns, l->seen->key + l->seen->name_at);
    }
}

/* What placement looks at, as text: a node's status also changes for other reasons. */
static bool node_changed(struct at_controllers *c, const struct at_node *node)
{
    const struct at_resources *r =
        node->status.allocatable != NULL ? node->status.allocatable : node->status.capacity;
    unsigned drivers = 0;
    for (size_t k = 0; k < node->status.drivers.n; k++) {
        drivers = drivers * 2 + node->status.drivers.items[k].ready;
    }
    uint64_t labels = 1469598103934665603u; /* FNV-1a */
    for (size_t k = 0; k < node->meta.labels.n; k++) {
        for (const char *s = node->meta.labels.items[k].key; *s != '\0'; s++) {
            labels = (labels ^ (unsigned char)*s) * 1099511628211u;
        }
        for (const char *s = node->meta.labels.items[k].value; *s != '\0'; s++) {
            labels = (labels ^ (unsigned char)*s) * 1099511628211u;
        }
    }
    uint64_t failed = 0;
    for (size_t k = 0; k < node->status.gpus.n; k++) {
        const struct at_node_gpu *gpu = &node->status.gpus.items[k];
        failed = failed * 31 + (ctl_text(gpu->fault)[0] != '\0');
        for (const char *s = gpu->id; *s != '\0'; s++) { /* parts that MIG made have others */
            failed = (failed ^ (unsigned char)*s) * 1099511628211u;
        }
    }
    for (size_t k = 0; k < node->status.gpu_modes.n; k++) {
        failed = failed * 31 + node->status.gpu_modes.items[k].ready;
    }
    char *now = at_asprintf(
        "%llu %s %lld %d %d %u %llx %lld %lld %lld %lld %zu", (unsigned long long)failed,
        ctl_text(node->meta.uid), (long long)node->meta.generation, ctl_node_ready(node),
        node->meta.deletion_wall_ns != 0, drivers, (unsigned long long)labels,
        (long long)(r != NULL ? r->cpu_milli : 0), (long long)(r != NULL ? r->memory_bytes : 0),
        (long long)(r != NULL ? r->disk_bytes : 0), (long long)(r != NULL ? r->gpu_milli : 0),
        node->status.gpus.n);
    char *old = at_map_put(c->node_seen, node->meta.name, now);
    bool differs = !at_streq(old, now);
    at_free(old);
    return differs;
}

static void route_node(struct at_controllers *c, const struct at_snapshot *snap, const char *name)
{
    const struct at_node *node = at_snapshot_node(snap, name);
    ctl_enqueue(c, CTL_NODE, NULL, name);
    if (node != NULL) {
        ctl_enqueue_after(c, CTL_SITE_COUNTS, NULL, ctl_text(node->spec.site), CTL_COUNT_DELAY_NS);
        ctl_tell_node(c, node);
        if (node_changed(c, node)) {
            ctl_enqueue(c, CTL_PLACEMENT, NULL, "all");
            ctl_enqueue(c, CTL_RESERVATIONS, NULL, "all");
            ctl_enqueue_after(c, CTL_NODE_COUNTS, NULL, name, CTL_COUNT_DELAY_NS);
        }
        return;
    }
    at_free(at_map_remove(c->node_seen, name));
    at_free(at_map_remove(c->node_faults, name));
    for (size_t k = 0; k < snap->n_sites; k++) {
        ctl_enqueue_after(c, CTL_SITE_COUNTS, NULL, snap->sites[k]->meta.name, CTL_COUNT_DELAY_NS);
    }
    const struct ctl_group *on = ctl_index_node(c->index, name);
    for (const struct ctl_link *l = on != NULL ? on->first : NULL; l != NULL; l = l->next) {
        const struct at_instance *i = ctl_index_instance(snap, l->seen);
        if (i != NULL) {
            ctl_enqueue(c, CTL_INSTANCE, i->meta.ns, i->meta.name);
        }
    }
}

/* Those that scale, and those that did when they were last looked at. */
static void route_scale(struct at_controllers *c, const struct at_snapshot *snap, const char *ns,
                        const char *name)
{
    const struct at_deployment *d = at_snapshot_deployment(snap, ns, name);
    AT_CLEANUP(at_cleanup_free) char *key = at_asprintf("%s/%s", ns, name);
    if ((d != NULL && d->spec.autoscaling != NULL) || at_map_get(c->demands, key) != NULL) {
        ctl_enqueue(c, CTL_SCALE, ns, name);
    }
}

static void route_by_kind(struct at_controllers *c, const struct at_snapshot *snap,
                          const struct at_model_kind *kind, const char *ns, const char *name)
{
    if ((kind == &AT_KIND_DEPLOYMENT || kind == &AT_KIND_JOB || kind == &AT_KIND_INSTANCE) &&
        at_scheduler_budgets_wait(c->sched)) {
        ctl_enqueue(c, CTL_PLACEMENT, NULL, "all");
    }
    if (kind == &AT_KIND_INSTANCE) {
        route_instance(c, snap, ns, name);
    } else if (kind == &AT_KIND_DEPLOYMENT) {
        ctl_enqueue(c, CTL_DEPLOYMENT, ns, name);
        ctl_names_route(c, snap, ns, name);
        route_scale(c, snap, ns, name);
        if (at_snapshot_deployment(snap, ns, name) == NULL) {
            route_orphans(c, kind->kind, ns, name);
        }
    } else if (kind == &AT_KIND_NODE) {
        route_node(c, snap, name);
    } else if (kind == &AT_KIND_SITE) {
        ctl_enqueue(c, CTL_PLACEMENT, NULL, "all");
        ctl_enqueue_after(c, CTL_SITE_COUNTS, NULL, name, CTL_COUNT_DELAY_NS);
    } else if (kind == &AT_KIND_POLICY) {
        ctl_enqueue(c, CTL_PLACEMENT, NULL, "all");
        ctl_enqueue(c, CTL_RESCHEDULE, NULL, "all");
    } else if (kind == &AT_KIND_NAMESPACE) {
        ctl_enqueue(c, CTL_NAMESPACE, NULL, name);
        ctl_admission_route(c, snap);
    } else if (kind == &AT_KIND_RESERVATION) {
        ctl_enqueue(c, CTL_RESERVATIONS, NULL, "all");
    } else if (kind == &AT_KIND_GATEWAY_REPORT) {
        ctl_scale_report(c, snap, name);
        ctl_park_report(c, name);
    } else if (kind == &AT_KIND_QUEUE) {
        ctl_admission_route(c, snap);
    } else {
        if (kind == &AT_KIND_JOB) {
            ctl_enqueue(c, CTL_JOB, ns, name);
        }
        route_orphans(c, kind->kind, ns, name); /* cheap when it owns nothing */
    }
}

void ctl_route(struct at_controllers *c, const struct at_snapshot *snap,
               const struct at_model_kind *kind, const char *ns, const char *name)
{
    if (kind != &AT_KIND_EVENT) {
        route_by_kind(c, snap, kind, ns, name);
        ctl_collect_route(c, snap, kind, ns, name);
        ctl_quota_route(c, snap, kind, ns, name);
        ctl_network_route(c, snap, kind, ns, name);
        ctl_aggregate_route(c, kind);
    }
    const struct at_namespace *room = ns != NULL ? at_snapshot_namespace(snap, ns) : NULL;
    if (room != NULL && room->meta.deletion_wall_ns != 0) {
        ctl_enqueue(c, CTL_NAMESPACE, NULL, ns);
    }
}

static void each_report(void *ctx, const char *ns, const char *name, const json_t *object)
{
    struct at_controllers *c = ctx;
    (void)ns, (void)object;
    AT_CLEANUP(at_cleanup_free)
    char *key = at_asprintf("%s//%s", AT_KIND_GATEWAY_REPORT.plural, name);
    (void)at_map_put(c->dirty, key, (void *)(uintptr_t)&AT_KIND_GATEWAY_REPORT);
}

void ctl_route_all(struct at_controllers *c, const struct at_snapshot *snap)
{
    /* What stays lies together in memory, before what the queue needs for a moment. */
    for (size_t k = 0; k < snap->n_instances; k++) {
        const struct at_meta *meta = &snap->instances[k]->meta;
        AT_CLEANUP(at_cleanup_free)
        char *key = at_asprintf("%s/%s", ctl_text(meta->ns), meta->name);
        ctl_index_put(c->index, key, snap->instances[k]);
    }
    for (size_t k = 0; k < snap->n_deployments; k++) {
        ctl_enqueue(c, CTL_DEPLOYMENT, snap->deployments[k]->meta.ns,
                    snap->deployments[k]->meta.name);
        ctl_names_route(c, snap, snap->deployments[k]->meta.ns, snap->deployments[k]->meta.name);
        route_scale(c, snap, snap->deployments[k]->meta.ns, snap->deployments[k]->meta.name);
    }
    for (size_t k = 0; k < snap->n_jobs; k++) {
        ctl_enqueue(c, CTL_JOB, snap->jobs[k]->meta.ns, snap->jobs[k]->meta.name);
    }
    for (size_t k = 0; k < snap->n_nodes; k++) {
        route_node(c, snap, snap->nodes[k]->meta.name);
    }
    for (size_t k = 0; k < snap->n_instances; k++) {
        route_instance(c, snap, snap->instances[k]->meta.ns, snap->instances[k]->meta.name);
    }
    for (size_t k = 0; k < snap->n_namespaces; k++) {
        ctl_enqueue(c, CTL_NAMESPACE, NULL, snap->namespaces[k]->meta.name);
    }
    for (size_t k = 0; k < snap->n_sites; k++) {
        ctl_enqueue_after(c, CTL_SITE_COUNTS, NULL, snap->sites[k]->meta.name, CTL_COUNT_DELAY_NS);
    }
    at_state_each(c->state, &AT_KIND_GATEWAY_REPORT, NULL, each_report, c);
    for (size_t k = 0; k < snap->n_network_policies; k++) {
        ctl_enqueue(c, CTL_NETWORK, snap->network_policies[k]->meta.ns,
                    snap->network_policies[k]->meta.name);
    }
    for (size_t k = 0; k < snap->n_quotas; k++) {
        ctl_enqueue(c, CTL_QUOTA, snap->quotas[k]->meta.ns, snap->quotas[k]->meta.name);
    }
    ctl_enqueue(c, CTL_RESERVATIONS, NULL, "all");
    ctl_enqueue(c, CTL_RESCHEDULE, NULL, "all");
    ctl_enqueue(c, CTL_AGGREGATE, NULL, "all");
    ctl_collect_route_all(c, snap);
    ctl_enqueue(c, CTL_PLACEMENT, NULL, "all");
}
