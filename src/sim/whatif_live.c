/* The server's own scheduler in a what-if replay: the one that is kept, told of what changed, with
 * snapshots of the replayed world. */
#include "core/mem.h"
#include "core/units.h"
#include "scheduler/queue.h"
#include "scheduler/reserve.h"
#include "scheduler/scheduler.h"
#include "sim/whatif_priv.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define PLAN_MAX 256      /* decided at a time, as in the placement controller */
#define ROUNDS_MAX 10000  /* of plans at one moment */
#define COPY_BYTES_MAX 16 /* "-x99" behind a name */
#define DECISION_BYTES_MAX ((size_t)2 << 30)

/* An instance as it is now. Whoever changes makes a new one: the scheduler still looks at the old
 * one until it is told. */
struct live_object {
    struct at_instance instance; /* first: the job of a decision's instance is found by it */
    struct at_placement placement;
    uint32_t job;
    struct live_object *next; /* of those nobody will look at after the next update */
    struct at_instance_gpu *gpus;
    char name[];
};

struct wi_live {
    struct at_scheduler *sched;
    struct at_arena *arena; /* of a plan */
    struct at_snapshot snap;
    struct wi_list lists[WI_KINDS];            /* as they are now */
    const struct at_meta **shown[2][WI_KINDS]; /* as the scheduler sees them, and saw them */
    unsigned turn;
    struct live_object *old;
    int64_t scheduled_ns;
};

static const struct at_model_kind *const KINDS[WI_KINDS] = {
    [WI_SITES] = &AT_KIND_SITE,
    [WI_NODES] = &AT_KIND_NODE,
    [WI_DEPLOYMENTS] = &AT_KIND_DEPLOYMENT,
    [WI_JOBS] = &AT_KIND_JOB,
    [WI_POLICIES] = &AT_KIND_POLICY,
    [WI_NAMESPACES] = &AT_KIND_NAMESPACE,
    [WI_QUEUES] = &AT_KIND_QUEUE,
    [WI_RESERVATIONS] = &AT_KIND_RESERVATION,
    [WI_INSTANCES] = &AT_KIND_INSTANCE,
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

static void list_put(struct wi_list *list, const struct at_meta *meta)
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

static void list_remove(struct wi_list *list, const char *ns, const char *name)
{
    size_t at = position(list, ns, name);
    if (is_at(list, at, ns, name)) {
        memmove(&list->items[at], &list->items[at + 1], (--list->n - at) * sizeof *list->items);
    }
}

void wi_live_put(struct wi *w, const struct at_model_kind *kind, const struct at_meta *meta)
{
    for (int k = 0; w->live != NULL && k < WI_KINDS; k++) {
        if (KINDS[k] == kind) {
            list_put(&w->live->lists[k], meta);
            at_scheduler_changed(w->live->sched, kind, meta->ns, meta->name);
        }
    }
}

void wi_live_remove(struct wi *w, const struct at_model_kind *kind, const char *ns,
                    const char *name)
{
    for (int k = 0; w->live != NULL && k < WI_KINDS; k++) {
        if (KINDS[k] == kind) {
            list_remove(&w->live->lists[k], ns, name);
            at_scheduler_changed(w->live->sched, kind, ns, name);
        }
    }
}

void wi_live_begin(struct wi *w)
{
    w->live = AT_NEW(struct wi_live);
    w->live->sched = at_scheduler_new();
    w->live->arena = at_arena_new(DECISION_BYTES_MAX);
    w->live->scheduled_ns = w->fleet->start_wall_ns;
}

static void object_free(struct live_object *o)
{
    if (o != NULL) {
        at_free(o->gpus);
        at_free(o);
    }
}

static void old_free(struct wi_live *l)
{
    while (l->old != NULL) {
        struct live_object *next = l->old->next;
        object_free(l->old);
        l->old = next;
    }
}

void wi_live_done(struct wi *w)
{
    struct wi_live *l = w->live;
    if (l == NULL) {
        return;
    }
    at_scheduler_free(l->sched);
    at_arena_free(l->arena);
    old_free(l);
    for (size_t i = 0; i < w->n_jobs; i++) {
        object_free((struct live_object *)w->jobs[i].object);
    }
    for (int k = 0; k < WI_KINDS; k++) {
        at_free(l->lists[k].items);
        at_free(l->shown[0][k]);
        at_free(l->shown[1][k]);
    }
    at_free(l);
}

static void retire(struct wi *w, struct wi_job *j)
{
    struct live_object *o = (struct live_object *)j->object;
    if (o != NULL) {
        o->next = w->live->old;
        w->live->old = o;
        j->object = NULL;
    }
}

/* As it was asked for; its own name and times. */
static struct live_object *make(const struct wi *w, const struct wi_job *j)
{
    const struct at_fleet_request *q = wi_request(w, j);
    size_t size = strlen(q->name) + COPY_BYTES_MAX;
    struct live_object *made = at_alloc(sizeof *made + size);
    struct at_instance *o = &made->instance;
    snprintf(made->name, size, j->copy > 0 ? "%s-x%u" : "%s", q->name, j->copy);
    made->job = (uint32_t)(j - w->jobs);
    *o = *wi_class(w, j)->like;
    o->meta.ns = q->ns;
    o->meta.name = made->name;
    o->meta.uid = made->name;
    o->meta.creation_wall_ns = q->created_wall_ns;
    o->status.phase = "Pending";
    if (w->what->weights_given) {
        made->placement = o->spec.placement != NULL ? *o->spec.placement
                                                    : (struct at_placement){.spread_by = "site"};
        made->placement.weights = &w->what->weights;
        o->spec.placement = &made->placement;
    }
    return made;
}

void wi_live_arrive(struct wi *w, struct wi_job *j)
{
    if (w->live != NULL) {
        retire(w, j);
        j->object = &make(w, j)->instance;
        wi_live_put(w, &AT_KIND_INSTANCE, &j->object->meta);
    }
}

void wi_live_leave(struct wi *w, struct wi_job *j)
{
    if (j->object != NULL) {
        wi_live_remove(w, &AT_KIND_INSTANCE, j->object->meta.ns, j->object->meta.name);
        retire(w, j);
    }
}

void wi_live_deleted(struct wi *w, struct wi_job *j)
{
    if (w->live == NULL) {
        return;
    }
    struct live_object *old = (struct live_object *)j->object, *o = make(w, j);
    size_t n = old->instance.status.gpus.n;
    o->gpus = at_alloc((n + 1) * sizeof *o->gpus);
    if (n > 0) {
        memcpy(o->gpus, old->gpus, n * sizeof *o->gpus);
    }
    o->instance.spec.node_name = old->instance.spec.node_name;
    o->instance.status = old->instance.status;
    o->instance.status.gpus.items = o->gpus;
    o->instance.meta.deletion_wall_ns = w->fleet->start_wall_ns + w->now_ms * AT_NS_PER_MS + 1;
    retire(w, j);
    j->object = &o->instance;
    wi_live_put(w, &AT_KIND_INSTANCE, &o->instance.meta);
}

/* Lists of pointers to objects, which begin with their metadata. Those that have changed are
 * copied: the scheduler goes on looking at the snapshot before until it has seen this one. */
static void show(struct wi_live *l)
{
    const struct at_meta **items[WI_KINDS];
    l->turn ^= 1;
    for (int k = 0; k < WI_KINDS; k++) {
        size_t n = l->lists[k].n;
        const struct at_meta ***mine = &l->shown[l->turn][k];
        *mine = at_realloc(*mine, (n + 1) * sizeof **mine);
        if (n > 0) {
            memcpy(*mine, l->lists[k].items, n * sizeof **mine);
        }
        items[k] = *mine;
    }
    l->snap = (struct at_snapshot){
        .rev = l->snap.rev + 1,
        .sites = (const void *)items[WI_SITES],
        .n_sites = l->lists[WI_SITES].n,
        .nodes = (const void *)items[WI_NODES],
        .n_nodes = l->lists[WI_NODES].n,
        .deployments = (const void *)items[WI_DEPLOYMENTS],
        .n_deployments = l->lists[WI_DEPLOYMENTS].n,
        .instances = (const void *)items[WI_INSTANCES],
        .n_instances = l->lists[WI_INSTANCES].n,
        .jobs = (const void *)items[WI_JOBS],
        .n_jobs = l->lists[WI_JOBS].n,
        .policies = (const void *)items[WI_POLICIES],
        .n_policies = l->lists[WI_POLICIES].n,
        .namespaces = (const void *)items[WI_NAMESPACES],
        .n_namespaces = l->lists[WI_NAMESPACES].n,
        .queues = (const void *)items[WI_QUEUES],
        .n_queues = l->lists[WI_QUEUES].n,
        .reservations = (const void *)items[WI_RESERVATIONS],
        .n_reservations = l->lists[WI_RESERVATIONS].n,
    };
}

static void update(struct wi_live *l)
{
    show(l);
    at_scheduler_update(l->sched, &l->snap);
    old_free(l);
}

static uint32_t job_of(const struct at_instance *instance)
{
    return ((const struct live_object *)instance)->job;
}

static void bind_to(struct wi *w, const struct at_sched_decision *d)
{
    uint32_t job = job_of(d->instance);
    struct wi_job *j = &w->jobs[job];
    retire(w, j);
    struct live_object *o = make(w, j);
    o->gpus = at_alloc((d->n_gpus + 1) * sizeof *o->gpus);
    for (size_t i = 0; i < d->n_gpus; i++) {
        o->gpus[i] = (struct at_instance_gpu){.index = d->gpus[i].index,
                                              .milli = d->gpus[i].milli,
                                              .memory_bytes = d->gpus[i].memory_bytes};
    }
    o->instance.spec.node_name = d->node->meta.name;
    o->instance.status.scheduled_at_wall_ns = w->live->scheduled_ns += AT_NS_PER_US;
    o->instance.status.phase = "Running";
    o->instance.status.gpus.items = o->gpus;
    o->instance.status.gpus.n = d->n_gpus;
    j->object = &o->instance;
    j->node = at_fleet_node(w->fleet, d->node->meta.name);
    wi_live_put(w, &AT_KIND_INSTANCE, &o->instance.meta);
    wi_pack_taken(w, j, d->gpus, d->n_gpus);
    wi_bind(w, job, j->node);
}

/* Those that have to go wait for room elsewhere. How many gave up their room at once. */
static size_t tell_to_go(struct wi *w, const struct at_instance *victim)
{
    uint32_t job = job_of(victim);
    if (w->jobs[job].state != WI_RUNNING || w->jobs[job].leaving) {
        return 0;
    }
    wi_tell_to_go(w, job);
    return w->jobs[job].state == WI_WAITING;
}

static size_t preempt(struct wi *w, const struct at_sched_decision *d)
{
    size_t gone = 0;
    for (size_t i = 0; i < d->n_victims; i++) {
        gone += tell_to_go(w, d->victims[i]);
    }
    return gone;
}

/* Those that quotas admit, first and as placement shall see them; who lent takes back. */
static enum at_rc admit(struct wi *w, const struct at_instance **waiting, size_t *n, int64_t now_ns,
                        size_t *ret_gone)
{
    struct wi_live *l = w->live;
    struct at_queue_plan plan;
    struct at_queue_book *book = at_queue_book_new(&l->snap);
    enum at_rc rc = at_queue_admit(book, &l->snap, waiting, *n, now_ns, l->arena, &plan);
    for (size_t i = 0; rc == AT_OK && i < plan.n_placeable; i++) {
        waiting[i] = at_queue_narrow(&plan.verdicts[i], l->arena);
        rc = waiting[i] != NULL ? AT_OK : AT_NOMEM;
    }
    for (size_t i = 0; rc == AT_OK && i < plan.n_victims; i++) {
        const struct at_instance *victim =
            at_snapshot_instance(&l->snap, plan.victims[i].ns, plan.victims[i].name);
        *ret_gone += victim != NULL ? tell_to_go(w, victim) : 0;
    }
    *n = rc == AT_OK ? plan.n_placeable : 0;
    at_queue_book_free(book);
    return rc;
}

/* Kept from what is reserved for others, as the server does. */
static enum at_rc keep_off_reserved(struct wi *w, const struct at_instance **waiting, size_t n,
                                    int64_t now_ns)
{
    struct wi_live *l = w->live;
    struct at_reserve *reserve = at_reserve_new(&l->snap, now_ns, l->arena);
    enum at_rc rc = reserve != NULL ? AT_OK : AT_NOMEM;
    for (size_t i = 0; rc == AT_OK && i < n; i++) {
        size_t kept;
        const struct at_reservation *example;
        waiting[i] = at_reserve_narrow(reserve, waiting[i], &kept, &example);
        rc = waiting[i] != NULL ? AT_OK : AT_NOMEM;
    }
    at_reserve_done(reserve);
    return rc;
}

static enum at_rc make_plan(struct wi *w, int64_t now_ns, struct at_sched_plan *ret_plan,
                            size_t *ret_gone)
{
    struct wi_live *l = w->live;
    const struct at_instance **waiting;
    size_t n;
    if (l->snap.n_queues == 0 && l->snap.n_reservations == 0) {
        return at_scheduler_plan(l->sched, PLAN_MAX, now_ns, l->arena, ret_plan);
    }
    enum at_rc rc = at_scheduler_waiting(l->sched, l->arena, &waiting, &n);
    rc = rc == AT_OK ? admit(w, waiting, &n, now_ns, ret_gone) : rc;
    rc = rc == AT_OK ? keep_off_reserved(w, waiting, n, now_ns) : rc;
    return rc != AT_OK ? rc
                       : at_scheduler_plan_these(l->sched, waiting, n, PLAN_MAX, now_ns, l->arena,
                                                 ret_plan);
}

void wi_live_decide(struct wi *w)
{
    struct wi_live *l = w->live;
    int64_t now_ns = w->fleet->start_wall_ns + w->now_ms * AT_NS_PER_MS;
    l->scheduled_ns = l->scheduled_ns > now_ns ? l->scheduled_ns : now_ns;
    wi_meter_sites(w);
    for (int round = 0; round < ROUNDS_MAX && w->rc == AT_OK; round++) {
        struct at_sched_plan plan = {0};
        size_t moved = 0;
        at_arena_reset(l->arena);
        update(l);
        if (make_plan(w, now_ns, &plan, &moved) != AT_OK) {
            w->rc = at_err_set(w->err, AT_TOO_LARGE, "a plan is too large");
            return;
        }
        w->out->decisions += plan.n;
        for (size_t i = 0; i < plan.n; i++) {
            if (plan.decisions[i].node != NULL) {
                bind_to(w, &plan.decisions[i]);
                moved++;
            }
        }
        for (size_t i = 0; i < plan.n; i++) {
            moved += plan.decisions[i].node == NULL ? preempt(w, &plan.decisions[i]) : 0;
        }
        if (plan.n < PLAN_MAX && moved == 0) {
            return;
        }
    }
}
