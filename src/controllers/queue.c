/* The work queue: one item per key of a reconciler, coalesced. An item is not reconciled while
 * writes of its last pass are in flight, nor before the snapshot shows them: so nothing is made
 * twice. Writes that fail are tried again with back-off. */
#include "controllers/controllers_priv.h"
#include "scheduler/scheduler.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

struct reconciler {
    const char *name;
    void (*fn)(struct ctl_pass *p);
};
static const struct reconciler RECONCILERS[CTL_KIND_COUNT] = {
    [CTL_DEPLOYMENT] = {"deployment", ctl_deployment},
    [CTL_JOB] = {"job", ctl_job},
    [CTL_PLACEMENT] = {"placement", ctl_placement},
    [CTL_NODE] = {"node", ctl_node},
    [CTL_NODE_COUNTS] = {"node-counts", ctl_node_counts},
    [CTL_SITE_COUNTS] = {"site-counts", ctl_site_counts},
    [CTL_INSTANCE] = {"instance", ctl_instance},
    [CTL_NAMESPACE] = {"namespace", ctl_namespace},
    [CTL_COLLECT] = {"collect", ctl_collect},
    [CTL_QUEUES] = {"queues", ctl_queues},
    [CTL_RESERVATIONS] = {"reservations", ctl_reservations},
    [CTL_RESCHEDULE] = {"reschedule", ctl_reschedule},
    [CTL_SCALE] = {"scale", ctl_scale},
    [CTL_PARKING] = {"parking", ctl_parking},
    [CTL_QUOTA] = {"quota", ctl_quota},
    [CTL_NETWORK] = {"network", ctl_network},
    [CTL_AGGREGATE] = {"aggregate", ctl_aggregate},
};

static void drain(void *ctx);

/* --- items --- */

static void plan_drain(struct at_controllers *c, int64_t delay_ns)
{
    int64_t at = at_loop_now_ns(c->loop) + delay_ns;
    if (c->closed || (c->drain_timer != 0 && c->drain_at_ns <= at)) {
        return;
    }
    at_loop_timer_cancel(c->loop, c->drain_timer);
    c->drain_timer = at_loop_timer(c->loop, delay_ns, drain, c);
    c->drain_at_ns = at;
}

static struct ctl_item *item_get(struct at_controllers *c, enum ctl_kind kind, const char *ns,
                                 const char *name)
{
    AT_CLEANUP(at_cleanup_free) char *key = at_asprintf("%d/%s/%s", (int)kind, ctl_text(ns), name);
    struct ctl_item *item = at_map_get(c->items, key);
    if (item == NULL) {
        item = AT_NEW(struct ctl_item);
        item->c = c;
        item->kind = kind;
        item->key = at_strdup(key);
        item->ns = at_strdup(ns);
        item->name = at_strdup(name);
        (void)at_map_put(c->items, key, item);
    }
    return item;
}

static void item_free(struct ctl_item *item)
{
    assert(item->writes == 0);
    if (item->timer != 0) {
        at_loop_timer_cancel(item->c->loop, item->timer);
    }
    at_free(item->key);
    at_free(item->ns);
    at_free(item->name);
    at_free(item->refusal);
    at_free(item);
}

static void item_queue(struct ctl_item *item)
{
    struct at_controllers *c = item->c;
    if (item->queued || c->closed) {
        return;
    }
    if (c->n_queue == c->cap_queue) {
        c->cap_queue = c->cap_queue > 0 ? 2 * c->cap_queue : 64;
        c->queue = at_realloc(c->queue, c->cap_queue * sizeof(*c->queue));
    }
    c->queue[c->n_queue++] = item;
    item->queued = true;
    at_metric_set(c->m_depth, (int64_t)c->n_queue);
    plan_drain(c, 0);
}

static void item_timer_fired(void *ctx)
{
    struct ctl_item *item = ctx;
    item->timer = 0;
    item_queue(item);
}

static void item_after(struct ctl_item *item, int64_t delay_ns)
{
    delay_ns = delay_ns > 0 ? delay_ns : 0;
    int64_t at = at_loop_now_ns(item->c->loop) + delay_ns;
    if (item->c->closed || (item->timer != 0 && item->timer_at_ns <= at)) {
        return;
    }
    at_loop_timer_cancel(item->c->loop, item->timer);
    item->timer = at_loop_timer(item->c->loop, delay_ns, item_timer_fired, item);
    item->timer_at_ns = at;
}

void ctl_enqueue(struct at_controllers *c, enum ctl_kind kind, const char *ns, const char *name)
{
    if (!c->closed) {
        item_queue(item_get(c, kind, ns, name));
    }
}

void ctl_enqueue_after(struct at_controllers *c, enum ctl_kind kind, const char *ns,
                       const char *name, int64_t delay_ns)
{
    if (!c->closed) {
        item_after(item_get(c, kind, ns, name), delay_ns);
    }
}

void ctl_after(struct ctl_pass *p, int64_t delay_ns)
{
    item_after(p->item, delay_ns);
}

/* --- writes --- */

struct ctl_write {
    struct ctl_item *item;
    json_t *patch;
    char *ns, *name; /* of the instance whose decision this is; NULL: of none */
};

static void controllers_done(struct at_controllers *c);

/* A quota said no: its owner is told once for each reason, not for each copy. */
static void refused(struct ctl_item *item, const char *why)
{
    item->refused = true;
    if (at_streq(item->refusal, why)) {
        return;
    }
    at_free(item->refusal);
    item->refusal = at_strdup(why);
    const struct at_snapshot *snap = at_state_snapshot(item->c->state);
    const struct at_deployment *d =
        item->kind == CTL_DEPLOYMENT ? at_snapshot_deployment(snap, item->ns, item->name) : NULL;
    const struct at_job *job =
        item->kind == CTL_JOB ? at_snapshot_job(snap, item->ns, item->name) : NULL;
    if (d != NULL) {
        at_state_event(item->c->state, &AT_KIND_DEPLOYMENT, &d->meta, true, "FailedCreate", "%s",
                       why);
    } else if (job != NULL) {
        at_state_event(item->c->state, &AT_KIND_JOB, &job->meta, true, "FailedCreate", "%s", why);
    }
    at_snapshot_unref(snap);
}

/* A pass went by in which nothing was refused any more. */
static bool refusal_over(struct ctl_item *item)
{
    if (item->refused || item->refusal == NULL) {
        return false;
    }
    at_free(item->refusal);
    item->refusal = NULL;
    return true;
}

void ctl_retry_refused(struct at_controllers *c, const char *ns)
{
    const char *key;
    void *value;
    for (size_t it = 0; at_map_next(c->items, &it, &key, &value);) {
        struct ctl_item *item = value;
        if (item->refusal != NULL && at_streq(item->ns, ns)) {
            item_queue(item);
        }
    }
}

static void written(void *ctx, enum at_rc rc, int64_t rev, const struct at_err *err)
{
    struct ctl_write *w = ctx;
    struct ctl_item *item = w->item;
    struct at_controllers *c = item->c;
    if (w->name != NULL && rc != AT_OK) {
        at_scheduler_forget(c->sched, w->ns, w->name);
    }
    json_decref(w->patch);
    at_free(w->ns);
    at_free(w->name);
    at_free(w);
    assert(item->writes > 0);
    item->writes--;
    c->writes--;
    if (rc == AT_OK) {
        item->again = item->again || rev > item->seen_rev; /* else nothing was to be changed */
        item->rev_wait = rev > item->rev_wait ? rev : item->rev_wait;
    } else if (rc != AT_NOT_FOUND) { /* gone meanwhile: the next pass sees it */
        item->failed = true;
        at_metric_add(c->m_errors[item->kind], 1);
        if (rc == AT_FORBIDDEN && err != NULL) {
            refused(item, err->msg);
        } else if (rc != AT_CONFLICT && rc != AT_EXISTS) {
            at_log_kv(AT_LOG_WARN, "controller.write",
                      (struct at_log_kv[]){{"controller", RECONCILERS[item->kind].name},
                                           {"namespace", ctl_text(item->ns)},
                                           {"name", item->name},
                                           {0}},
                      "%s", err != NULL ? err->msg : at_rc_name(rc));
        }
    }
    if (rc == AT_UNAVAILABLE && c->doubt != NULL && !c->closed) {
        c->doubt(c->leads_ctx); /* later: c lives on until it returns */
    }
    if (c->closed) {
        if (c->writes == 0) {
            controllers_done(c);
        }
        return;
    }
    if (item->writes > 0) {
        return;
    }
    if (item->failed) {
        int64_t delay = CTL_BACKOFF_MIN_NS << (item->failures < 12 ? item->failures : 12);
        item->failed = false;
        item->failures++;
        item_after(item, delay < CTL_BACKOFF_MAX_NS ? delay : CTL_BACKOFF_MAX_NS);
    } else {
        item->failures = 0;
        item->again = refusal_over(item) || item->again;
        if (item->again) {
            item->again = false;
            item_queue(item);
        }
    }
}

/* NULL: this server leads no more, or is "dead" (tests). */
static struct ctl_write *write_begin(struct ctl_pass *p)
{
    if (p->c->writes_left == 0 || (p->c->leads != NULL && !p->c->leads(p->c->leads_ctx))) {
        if (p->placing != NULL) {
            at_scheduler_forget(p->c->sched, p->placing->ns, p->placing->name);
        }
        return NULL;
    }
    p->c->writes_left -= p->c->writes_left > 0;
    struct ctl_write *w = AT_NEW(struct ctl_write);
    w->item = p->item;
    w->ns = p->placing != NULL ? at_strdup(p->placing->ns) : NULL;
    w->name = p->placing != NULL ? at_strdup(p->placing->name) : NULL;
    p->item->writes++;
    p->c->writes++;
    at_state_guard(p->c->state, p->c->guard_key, p->c->guard_rev);
    return w;
}

static void write_end(struct ctl_pass *p)
{
    at_state_guard(p->c->state, NULL, 0);
}

void ctl_create(struct ctl_pass *p, const struct at_model_kind *kind, json_t *object_take)
{
    /* Where one was refused, the others would be too. */
    struct ctl_write *w = p->item->refused ? NULL : write_begin(p);
    if (w == NULL) {
        json_decref(object_take);
        return;
    }
    at_state_create(p->c->state, kind, object_take, written, w);
    write_end(p);
}

void ctl_update(struct ctl_pass *p, const struct at_model_kind *kind, const char *ns,
                const char *name, at_state_change_fn *change, void *change_ctx)
{
    struct ctl_write *w = write_begin(p);
    if (w != NULL) {
        at_state_update(p->c->state, kind, ns, name, change, change_ctx, written, w);
        write_end(p);
    }
}

void ctl_edit(struct ctl_pass *p, const struct at_model_kind *kind, const char *ns,
              const char *name, at_state_edit_fn *edit, at_state_change_fn *change,
              void *change_ctx)
{
    struct ctl_write *w = write_begin(p);
    if (w != NULL) {
        at_state_edit(p->c->state, kind, ns, name, edit, change, change_ctx, written, w);
        write_end(p);
    }
}

static bool apply_patch(void *ctx, json_t *object)
{
    json_t *result = at_json_merge_patch(json_incref(object), ctx);
    assert(result == object);
    json_decref(result);
    return true;
}

void ctl_patch(struct ctl_pass *p, const struct at_model_kind *kind, const char *ns,
               const char *name, json_t *patch_take)
{
    struct ctl_write *w = write_begin(p);
    if (w == NULL) {
        json_decref(patch_take);
        return;
    }
    w->patch = patch_take;
    at_state_update(p->c->state, kind, ns, name, apply_patch, patch_take, written, w);
    write_end(p);
}

void ctl_delete(struct ctl_pass *p, const struct at_model_kind *kind, const struct at_meta *meta)
{
    struct ctl_write *w = write_begin(p);
    if (w != NULL) {
        at_state_delete(p->c->state, kind, meta->ns, meta->name, meta->uid, written, w);
        write_end(p);
    }
}

/* --- passes --- */

static void run(struct ctl_item *item, const struct at_snapshot *snap)
{
    struct at_controllers *c = item->c;
    struct ctl_pass p = {
        .c = c,
        .item = item,
        .snap = snap,
        .arena = at_arena_new(0),
        .now_ns = at_loop_now_ns(c->loop),
        .wall_ns = at_sys_wall_ns(c->sys),
        .ns = item->ns,
        .name = item->name,
    };
    item->keep = false;
    item->refused = false;
    item->seen_rev = snap->rev;
    at_metric_add(c->m_reconciles[item->kind], 1);
    RECONCILERS[item->kind].fn(&p);
    at_arena_free(p.arena);
    if (item->writes == 0 && refusal_over(item)) {
        item_queue(item); /* its status may speak of it still */
    }
    if (!item->keep && item->writes == 0 && item->timer == 0 && !item->queued &&
        item->failures == 0) {
        (void)at_map_remove(c->items, item->key);
        item_free(item);
    }
}

static void route_dirty(struct at_controllers *c, const struct at_snapshot *snap)
{
    struct at_map *dirty = c->dirty;
    c->dirty = at_map_new();
    const char *key;
    void *value;
    for (size_t it = 0; at_map_next(dirty, &it, &key, &value);) {
        const char *ns = strchr(key, '/') + 1;
        const char *slash = strchr(ns, '/');
        AT_CLEANUP(at_cleanup_free) char *ns_text = at_strndup(ns, (size_t)(slash - ns));
        ctl_route(c, snap, value, ns_text[0] != '\0' ? ns_text : NULL, slash + 1);
    }
    at_map_free(dirty);
}

static void drain(void *ctx)
{
    struct at_controllers *c = ctx;
    c->drain_timer = 0;
    if (c->writes_left == 0 || (c->leads != NULL && !c->leads(c->leads_ctx))) {
        return;
    }
    const struct at_snapshot *snap = at_state_snapshot(c->state);
    route_dirty(c, snap);
    struct ctl_item **queue = c->queue;
    size_t n = c->n_queue;
    c->queue = NULL;
    c->n_queue = c->cap_queue = 0;
    size_t parked = 0;
    for (size_t i = 0; i < n; i++) {
        struct ctl_item *item = queue[i];
        item->queued = false;
        if (item->writes > 0) {
            item->again = true; /* when they are answered */
            continue;
        }
        if (snap->rev < item->rev_wait) {
            queue[parked++] = item;
            continue;
        }
        run(item, snap);
    }
    for (size_t i = 0; i < parked; i++) {
        bool was_planned = c->drain_timer != 0;
        item_queue(queue[i]);
        if (!was_planned) { /* only parked ones: wait for the change that shows the write */
            at_loop_timer_cancel(c->loop, c->drain_timer);
            c->drain_timer = 0;
            plan_drain(c, CTL_PARK_NS);
        }
    }
    at_free(queue);
    at_snapshot_unref(snap);
    at_metric_set(c->m_depth, (int64_t)c->n_queue);
}

static void changed(void *ctx, const struct at_model_kind *kind, const char *ns, const char *name)
{
    struct at_controllers *c = ctx;
    if (c->closed) {
        return;
    }
    at_scheduler_changed(c->sched, kind, ns, name);
    AT_CLEANUP(at_cleanup_free)
    char *key = at_asprintf("%s/%s/%s", kind->plural, ctl_text(ns), name);
    (void)at_map_put(c->dirty, key, (void *)(uintptr_t)kind);
    plan_drain(c, 0);
}

/* --- life --- */

static void make_metrics(struct at_controllers *c, struct at_metrics *metrics)
{
    static const char *const by_controller[] = {"controller", NULL};
    static const char *const by_result[] = {"result", NULL};
    struct at_metric_family *reconciles =
        at_metrics_family(metrics, AT_METRIC_COUNTER, "atoll_controller_reconciles_total",
                          "Passes of each reconciler.", by_controller);
    struct at_metric_family *errors =
        at_metrics_family(metrics, AT_METRIC_COUNTER, "atoll_controller_write_errors_total",
                          "Planned writes that were refused, conflicts included.", by_controller);
    for (int i = 0; i < CTL_KIND_COUNT; i++) {
        const char *labels[] = {RECONCILERS[i].name, NULL};
        c->m_reconciles[i] = at_metric_with(reconciles, labels);
        c->m_errors[i] = at_metric_with(errors, labels);
    }
    c->m_depth = at_metric_plain(metrics, AT_METRIC_GAUGE, "atoll_controller_queue_depth",
                                 "Keys waiting for their reconciler.");
    c->m_latency = at_metric_plain(metrics, AT_METRIC_HISTOGRAM, "atoll_scheduling_seconds",
                                   "From first seen pending to bound.");
    struct at_metric_family *decisions =
        at_metrics_family(metrics, AT_METRIC_COUNTER, "atoll_scheduler_decisions_total",
                          "Decisions of the scheduler.", by_result);
    c->m_placed = at_metric_with(decisions, (const char *[]){"placed", NULL});
    c->m_refused = at_metric_with(decisions, (const char *[]){"pending", NULL});
    c->m_reclaimed = at_metric_plain(metrics, AT_METRIC_COUNTER, "atoll_queue_reclaimed_total",
                                     "Instances ended so that a queue gets its quota.");
    c->m_moved = at_metric_plain(metrics, AT_METRIC_COUNTER, "atoll_moves_total",
                                 "Instances that were moved because it pays.");
    struct at_metric_family *scalings =
        at_metrics_family(metrics, AT_METRIC_COUNTER, "atoll_scalings_total",
                          "Times that a Deployment's replicas were set by what is asked of it.",
                          (const char *[]){"direction", NULL});
    c->m_scaled_up = at_metric_with(scalings, (const char *[]){"up", NULL});
    c->m_scaled_down = at_metric_with(scalings, (const char *[]){"down", NULL});
    struct at_metric_family *parking =
        at_metrics_family(metrics, AT_METRIC_HISTOGRAM, "atoll_gpu_parking_seconds",
                          "Time to put what an instance holds of GPUs into its machine's memory, "
                          "and to bring it back, as agents tell.",
                          (const char *[]){"step", NULL});
    c->m_park = at_metric_with(parking, (const char *[]){"park", NULL});
    c->m_resume = at_metric_with(parking, (const char *[]){"resume", NULL});
    c->m_pending = at_metric_plain(metrics, AT_METRIC_GAUGE, "atoll_instances_pending",
                                   "Instances that no node takes.");
}

struct at_controllers *at_controllers_new(struct at_loop *loop, struct at_state *state,
                                          struct at_metrics *metrics,
                                          const struct at_controllers_options *options)
{
    struct at_controllers *c = AT_NEW(struct at_controllers);
    c->loop = loop;
    c->state = state;
    c->sys = at_loop_sys(loop);
    c->node_timeout_ns = options->node_timeout_ns > 0 ? options->node_timeout_ns : 2 * AT_NS_PER_S;
    c->start_grace_ns = options->start_grace_ns > 0 ? options->start_grace_ns : 5 * AT_NS_PER_S;
    c->started_ns = at_loop_now_ns(loop);
    c->writes_left = -1;
    c->leads = options->leads;
    c->leads_ctx = options->leads_ctx;
    c->guard_key = options->guard_key;
    c->guard_rev = options->guard_rev;
    c->doubt = options->doubt;
    c->items = at_map_new();
    c->dirty = at_map_new();
    c->index = ctl_index_new();
    c->sched = at_scheduler_new();
    c->unheard = at_map_new();
    c->node_seen = at_map_new();
    c->node_faults = at_map_new();
    c->owned = at_map_new();
    c->finishing = at_map_new();
    c->demands = at_map_new();
    c->asked = at_map_new();
    c->kept_off = at_map_new();
    c->names = at_map_new();
    c->name_of = at_map_new();
    make_metrics(c, metrics);
    at_state_listen(state, changed, c);
    const struct at_snapshot *snap = at_state_snapshot(state);
    ctl_route_all(c, snap);
    at_snapshot_unref(snap);
    ctl_health_start(c);
    return c;
}

static void free_values(struct at_map *map)
{
    const char *key;
    void *value;
    for (size_t it = 0; at_map_next(map, &it, &key, &value);) {
        at_free(value);
    }
    at_map_free(map);
}

static void controllers_done(struct at_controllers *c)
{
    const char *key;
    void *value;
    for (size_t it = 0; at_map_next(c->items, &it, &key, &value);) {
        item_free(value);
    }
    ctl_names_done(c);
    at_map_free(c->items);
    at_map_free(c->dirty);
    ctl_index_free(c->index);
    ctl_health_done(c);
    free_values(c->node_seen);
    free_values(c->node_faults);
    free_values(c->demands);
    free_values(c->asked);
    at_map_free(c->owned);
    at_map_free(c->finishing);
    ctl_admission_free(c);
    at_map_free(c->kept_off);
    at_scheduler_free(c->sched);
    at_snapshot_unref(c->sched_snap);
    at_free(c->queue);
    at_free(c);
}

void at_controllers_free(struct at_controllers *c)
{
    if (c == NULL) {
        return;
    }
    c->closed = true;
    at_state_unlisten(c->state, changed, c);
    at_loop_timer_cancel(c->loop, c->drain_timer);
    at_loop_timer_cancel(c->loop, c->health_timer);
    const char *key;
    void *value;
    for (size_t it = 0; at_map_next(c->items, &it, &key, &value);) {
        struct ctl_item *item = value;
        at_loop_timer_cancel(c->loop, item->timer);
        item->timer = 0;
    }
    if (c->writes == 0) { /* else the last answer frees it: the store answers before it closes */
        controllers_done(c);
    }
}
