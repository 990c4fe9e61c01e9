/* The server's own scheduler in a what-if replay: snapshots of the replayed world. */
#include "core/mem.h"
#include "core/units.h"
#include "scheduler/scheduler.h"
#include "sim/whatif_priv.h"

#include <stdio.h>
#include <string.h>

#define ALL_PENDING_MAX 256 /* so many are decided on all together, as the server does */
#define HEADS_MAX 64        /* else so many of each class */
#define COPY_BYTES_MAX 16   /* "-x99" behind a name */
#define DECISION_BYTES_MAX ((size_t)2 << 30)

struct live_object {
    struct at_instance instance; /* first: the job of a decision's instance is found by it */
    struct at_placement placement;
    uint32_t job;
    char name[];
};

static int cmp_names(const char *ns_a, const char *name_a, const char *ns_b, const char *name_b)
{
    int c = strcmp(ns_a != NULL ? ns_a : "", ns_b != NULL ? ns_b : "");
    return c != 0 ? c : strcmp(name_a, name_b);
}

static size_t position(const struct wi_list *list, const char *ns, const char *name)
{
    size_t low = 0, high = list->n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (cmp_names(list->items[middle]->ns, list->items[middle]->name, ns, name) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static bool is_at(const struct wi_list *list, size_t at, const char *ns, const char *name)
{
    return at < list->n && cmp_names(list->items[at]->ns, list->items[at]->name, ns, name) == 0;
}

void wi_list_put(struct wi_list *list, const struct at_meta *meta)
{
    size_t at = position(list, meta->ns, meta->name);
    if (is_at(list, at, meta->ns, meta->name)) {
        list->items[at] = meta;
        return;
    }
    if (list->n == list->cap) {
        list->cap = list->cap == 0 ? 256 : 2 * list->cap;
        list->items = at_realloc(list->items, list->cap * sizeof *list->items);
    }
    memmove(&list->items[at + 1], &list->items[at], (list->n - at) * sizeof *list->items);
    list->items[at] = meta;
    list->n++;
}

void wi_list_remove(struct wi_list *list, const char *ns, const char *name)
{
    size_t at = position(list, ns, name);
    if (is_at(list, at, ns, name)) {
        memmove(&list->items[at], &list->items[at + 1], (--list->n - at) * sizeof *list->items);
    }
}

void wi_live_begin(struct wi *w)
{
    w->arena = at_arena_new(DECISION_BYTES_MAX);
    w->scheduled_ns = w->fleet->start_wall_ns;
}

/* An instance as it was asked for; its own name and times. */
void wi_live_arrive(struct wi *w, struct wi_job *j)
{
    const struct at_fleet_request *q = wi_request(w, j);
    if (!w->what->live) {
        return;
    }
    if (j->object == NULL) {
        size_t size = strlen(q->name) + COPY_BYTES_MAX;
        struct live_object *made = at_alloc(sizeof *made + size);
        snprintf(made->name, size, j->copy > 0 ? "%s-x%u" : "%s", q->name, j->copy);
        made->job = (uint32_t)(j - w->jobs);
        j->object = &made->instance;
    }
    struct at_instance *o = j->object;
    struct live_object *own = (struct live_object *)o;
    struct at_placement *placement = &own->placement;
    *o = *wi_class(w, j)->like;
    o->meta.ns = q->ns;
    o->meta.name = own->name;
    o->meta.uid = o->meta.name;
    o->meta.creation_wall_ns = q->created_wall_ns;
    o->status.phase = "Pending";
    if (w->what->weights_given) {
        *placement = o->spec.placement != NULL ? *o->spec.placement
                                               : (struct at_placement){.spread_by = "site"};
        placement->weights = &w->what->weights;
        o->spec.placement = placement;
    }
    wi_list_put(&w->lists[WI_INSTANCES], &o->meta);
}

void wi_live_leave(struct wi *w, struct wi_job *j)
{
    if (j->object != NULL) {
        wi_list_remove(&w->lists[WI_INSTANCES], j->object->meta.ns, j->object->meta.name);
    }
}

/* A snapshot's lists are lists of pointers to objects, which begin with their metadata. */
static struct at_snapshot snapshot_of(const struct wi *w)
{
    const struct wi_list *l = w->lists;
    return (struct at_snapshot){
        .sites = (const struct at_site *const *)(const void *)l[WI_SITES].items,
        .n_sites = l[WI_SITES].n,
        .nodes = (const struct at_node *const *)(const void *)l[WI_NODES].items,
        .n_nodes = l[WI_NODES].n,
        .deployments = (const struct at_deployment *const *)(const void *)l[WI_DEPLOYMENTS].items,
        .n_deployments = l[WI_DEPLOYMENTS].n,
        .instances = (const struct at_instance *const *)(const void *)l[WI_INSTANCES].items,
        .n_instances = l[WI_INSTANCES].n,
        .jobs = (const struct at_job *const *)(const void *)l[WI_JOBS].items,
        .n_jobs = l[WI_JOBS].n,
        .policies = (const struct at_policy *const *)(const void *)l[WI_POLICIES].items,
        .n_policies = l[WI_POLICIES].n,
        .namespaces = (const struct at_namespace *const *)(const void *)l[WI_NAMESPACES].items,
        .n_namespaces = l[WI_NAMESPACES].n,
    };
}

struct round {
    const struct at_instance **pending;
    size_t n, cap;
};

static void collect(const struct wi *w, struct round *r)
{
    size_t most = w->n_pending <= ALL_PENDING_MAX ? ALL_PENDING_MAX : HEADS_MAX;
    r->n = 0;
    for (size_t c = 0; c < w->fleet->n_classes; c++) {
        uint32_t job = w->queues[c].blocked ? NOBODY : w->queues[c].first;
        for (size_t k = 0; k < most && job != NOBODY; k++, job = w->jobs[job].next) {
            if (r->n == r->cap) {
                r->cap = r->cap == 0 ? ALL_PENDING_MAX : 2 * r->cap;
                r->pending = at_realloc(r->pending, r->cap * sizeof(*r->pending));
            }
            r->pending[r->n++] = w->jobs[job].object;
        }
    }
}

static uint32_t job_of(const struct at_instance *instance)
{
    return ((const struct live_object *)instance)->job;
}

/* Taken out of the middle of its queue: others of its class may have a turn before it. */
static void unqueue(struct wi *w, uint32_t job)
{
    struct wi_queue *q = &w->queues[w->jobs[job].class_id];
    uint32_t before = NOBODY;
    for (uint32_t at = q->first; at != job; at = w->jobs[at].next) {
        before = at;
    }
    if (before == NOBODY) {
        (void)wi_queue_take(w, w->jobs[job].class_id);
        return;
    }
    w->jobs[before].next = w->jobs[job].next;
    q->last = q->last == job ? before : q->last;
    w->n_pending--;
}

/* False: nobody was placed, or nobody is left to ask about. */
static bool apply(struct wi *w, const struct at_sched_plan *plan)
{
    size_t placed = 0;
    for (size_t i = 0; i < plan->n; i++) {
        const struct at_sched_decision *d = &plan->decisions[i];
        uint32_t job = job_of(d->instance);
        struct wi_job *j = &w->jobs[job];
        w->out->decisions++;
        if (d->node == NULL) {
            w->queues[j->class_id].blocked = true;
            continue;
        }
        placed++;
        unqueue(w, job);
        w->scheduled_ns += AT_NS_PER_US;
        j->object->spec.node_name = d->node->meta.name;
        j->object->status.scheduled_at_wall_ns = w->scheduled_ns;
        j->object->status.phase = "Running";
        j->node = at_fleet_node(w->fleet, d->node->meta.name);
        wi_pack_taken(w, j);
        wi_bind(w, job, j->node);
    }
    return placed > 0 && w->n_pending > 0;
}

void wi_live_decide(struct wi *w)
{
    struct round r = {0};
    bool more = true;
    int64_t now_ns = w->fleet->start_wall_ns + w->now_ms * AT_NS_PER_MS;
    w->scheduled_ns = w->scheduled_ns > now_ns ? w->scheduled_ns : now_ns;
    while (more && w->rc == AT_OK) {
        struct at_sched_plan plan = {0};
        struct at_snapshot snap = snapshot_of(w);
        collect(w, &r);
        if (r.n == 0) {
            break;
        }
        at_arena_reset(w->arena);
        wi_meter_sites(w);
        w->rc = at_schedule(&snap, r.pending, r.n, now_ns, w->arena, &plan);
        if (w->rc != AT_OK) {
            w->rc = at_err_set(w->err, AT_TOO_LARGE, "a plan for %zu instances is too large", r.n);
            break;
        }
        more = apply(w, &plan);
    }
    at_free(r.pending);
}
