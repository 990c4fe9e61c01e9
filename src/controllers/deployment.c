/* Deployment: as many copies as wanted, of the newest template; a change of it rolls over the old
 * ones within maxSurge and maxUnavailable. */
#include "controllers/package.h"
#include "controllers/resize.h"
#include "scheduler/reschedule.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define REPLACE_MIN_NS                                                                             \
    AT_NS_PER_S /* a copy that ended by itself is replaced after this, doubling */
#define REPLACE_MAX_NS (60 * AT_NS_PER_S)

struct rollout {
    struct ctl_pass *p;
    const struct at_deployment *d;
    const json_t *template_json;
    const char *hash;
    int64_t replicas, surge, unavailable;
    /* Copies that count: not being deleted, not lost. Each list in the order in which they would
     * be given up: not ready first, then without a node, then the newest. */
    const struct at_instance **fresh, **old;
    int64_t n_fresh, n_old, ready_fresh, ready_old;
    int64_t ended, parked, resized;
    bool grown;                        /* a copy was given more of its GPU in this pass */
    const struct at_instance *unready; /* an example */
    struct ctl_package package;
    const char *held; /* what the rollout waits for before it begins; NULL: nothing */
};

static int by_least_loved(const void *a, const void *b)
{
    const struct at_instance *x = *(const struct at_instance *const *)a;
    const struct at_instance *y = *(const struct at_instance *const *)b;
    if (x->status.ready != y->status.ready) {
        return x->status.ready ? 1 : -1;
    }
    return ctl_by_least_done(x, y);
}

/* Of the newest template, or made so by a change of its share of a GPU. */
static bool is_fresh(struct rollout *r, const struct at_instance *i)
{
    return at_streq(at_model_map_get(&i->meta.labels, CTL_LABEL_HASH), r->hash) ||
           ctl_resize(r->p, i, r->d, r->template_json, r->hash, &r->grown) != CTL_RESIZE_NOT;
}

static void sort_copies(struct rollout *r)
{
    struct ctl_owned owned = ctl_owned_by(r->p, r->d->meta.uid);
    r->fresh = at_arena_alloc(r->p->arena, sizeof(*r->fresh) * (owned.n + 1));
    r->old = at_arena_alloc(r->p->arena, sizeof(*r->old) * (owned.n + 1));
    assert(r->fresh != NULL);
    assert(r->old != NULL);
    for (size_t k = 0; k < owned.n; k++) {
        const struct at_instance *i = owned.items[k];
        if (i->meta.deletion_wall_ns != 0 || ctl_lost(i)) {
            continue;
        }
        bool parked = ctl_is_parked(i);
        bool ready = (i->status.ready || parked) && !ctl_ended(i);
        r->parked += parked;
        r->ended += ctl_ended(i);
        if (!ready && (r->unready == NULL || i->status.message != NULL)) {
            r->unready = i;
        }
        /* One that is to be moved is as good as old: its place is taken by a new copy first. */
        if (!at_reschedule_is_moving(i) && is_fresh(r, i)) {
            const struct at_instance_resize *resize = i->status.resize;
            r->resized += resize != NULL && at_streq(resize->state, "Done");
            r->fresh[r->n_fresh++] = i;
            r->ready_fresh += ready;
        } else {
            r->old[r->n_old++] = i;
            r->ready_old += ready;
        }
    }
    qsort(r->fresh, (size_t)r->n_fresh, sizeof(*r->fresh), by_least_loved);
    qsort(r->old, (size_t)r->n_old, sizeof(*r->old), by_least_loved);
}

static void give_up(struct rollout *r, const struct at_instance *const *copies, int64_t n)
{
    for (int64_t k = 0; k < n; k++) {
        ctl_delete(r->p, &AT_KIND_INSTANCE, &copies[k]->meta);
    }
    if (n > 0) {
        at_state_event(r->p->c->state, &AT_KIND_DEPLOYMENT, &r->d->meta, false, "ScalingDown",
                       "%lld fewer, %lld wanted", (long long)n, (long long)r->replicas);
    }
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* The next of those that move for which no new copy is there yet; NULL: none. */
static const struct at_instance *next_moving(const struct rollout *r, size_t *at)
{
    while (*at < (size_t)r->n_old) {
        const struct at_instance *i = r->old[(*at)++];
        bool replaced = !at_reschedule_is_moving(i);
        for (int64_t k = 0; k < r->n_fresh && !replaced; k++) {
            const struct at_instance_move *m = r->fresh[k]->status.move;
            replaced = m != NULL && at_streq(m->replaces, i->meta.name);
        }
        if (!replaced) {
            return i;
        }
    }
    return NULL;
}

static json_t *new_copy(struct rollout *r, const struct at_instance *in_place_of)
{
    json_t *copy = ctl_make_instance(r->p, &AT_KIND_DEPLOYMENT, &r->d->meta, r->template_json,
                                     CTL_LABEL_DEPLOYMENT, r->hash);
    if (r->package.by_tag && r->package.digest != NULL) {
        at_json_set_at(copy, "spec.model.digest", json_string(r->package.digest));
    }
    if (in_place_of != NULL) {
        char since[AT_UNITS_TEXT_BYTES_MAX];
        const struct at_instance_move *m = in_place_of->status.move;
        json_object_set_new(copy, "status",
                            json_pack("{s:{s:s,s:s,s:s}}", "move", "to", m->to, "since",
                                      at_time_format(m->since_wall_ns, since), "replaces",
                                      in_place_of->meta.name));
    }
    return copy;
}

/* Missing copies of the newest template, within what the surge leaves. */
static void scale_up(struct rollout *r)
{
    size_t at = 0;
    int64_t missing =
        least(r->replicas - r->n_fresh, r->replicas + r->surge - r->n_fresh - r->n_old);
    missing = least(missing, CTL_CREATES_PER_PASS);
    if (r->held != NULL) {
        return;
    }
    if (r->package.uri != NULL && r->package.digest == NULL) {
        missing = least(missing, 1 - r->n_fresh); /* the first one looks the tag up for all */
    }
    for (int64_t k = 0; k < missing; k++) {
        ctl_create(r->p, &AT_KIND_INSTANCE, new_copy(r, next_moving(r, &at)));
    }
    if (missing > 0) {
        at_state_event(r->p->c->state, &AT_KIND_DEPLOYMENT, &r->d->meta, false, "ScalingUp",
                       "%lld more of template %.5s, %lld wanted", (long long)missing, r->hash,
                       (long long)r->replicas);
    }
}

/* Old copies that may go without falling below replicas - maxUnavailable that are ready. Those that
 * serve nothing go first, but no more than keeps a stuck update from eating what may recover. */
static void scale_down_old(struct rollout *r)
{
    int64_t must_serve = r->replicas - r->unavailable;
    must_serve = must_serve > 0 ? must_serve : 0;
    int64_t total = r->n_fresh + r->n_old;
    int64_t may_go = total - must_serve - (r->n_fresh - r->ready_fresh);
    int64_t idle = least(r->n_old - r->ready_old, may_go);
    idle = idle > 0 ? idle : 0;
    int64_t serving = least(r->ready_old, r->ready_fresh + r->ready_old - must_serve);
    serving = least(serving, may_go - idle); /* the list has the idle ones in front */
    give_up(r, r->old, idle + (serving > 0 ? serving : 0));
}

/* Copies that ended by themselves keep their place, so that their reason can be read, until a delay
 * that doubles from failure to failure has passed. */
static void replace_ended(struct rollout *r, const struct at_instance *const *copies, int64_t n)
{
    unsigned shift = r->p->item->replaced < 6 ? r->p->item->replaced : 6;
    int64_t delay = least(REPLACE_MIN_NS << shift, REPLACE_MAX_NS);
    bool any = false;
    for (int64_t k = 0; k < n; k++) {
        if (!ctl_ended(copies[k])) {
            continue;
        }
        int64_t wait = copies[k]->status.finished_at_wall_ns + delay - r->p->wall_ns;
        if (wait > 0) {
            ctl_after(r->p, least(wait, REPLACE_MAX_NS));
        } else {
            ctl_delete(r->p, &AT_KIND_INSTANCE, &copies[k]->meta);
            any = true;
        }
    }
    r->p->item->replaced += any;
}

static const json_t *condition_of(const json_t *object, const char *type)
{
    size_t i;
    json_t *condition;
    json_array_foreach(at_json_at(object, "status.conditions"), i, condition)
    {
        if (at_streq(at_json_str_at(condition, "type", ""), type)) {
            return condition;
        }
    }
    return NULL;
}

/* Another Deployment has the name that it would be asked for by. */
static void set_name(struct rollout *r, json_t *object)
{
    const char *taken = ctl_name_taken(r->p, r->d);
    const json_t *was = condition_of(object, "ModelName");
    bool was_taken = was != NULL && at_streq(at_json_str_at(was, "status", ""), "False");
    if (taken != NULL && !was_taken) {
        at_state_event(r->p->c->state, &AT_KIND_DEPLOYMENT, &r->d->meta, true, "ModelNameTaken",
                       "%s", taken);
    }
    if (taken != NULL || was != NULL) {
        at_condition_set(object, "ModelName", taken == NULL, taken != NULL ? "NameTaken" : "Own",
                         taken != NULL ? taken : "requests by its model's name come here",
                         r->p->wall_ns);
    }
}

static void set_refusal(struct rollout *r, json_t *object)
{
    const char *refusal = r->p->item->refusal;
    if (refusal != NULL || condition_of(object, "ReplicaFailure") != NULL) {
        at_condition_set(object, "ReplicaFailure", refusal != NULL,
                         refusal != NULL ? "FailedCreate" : "Created",
                         refusal != NULL ? refusal : "copies can be made", r->p->wall_ns);
    }
}

static void set_conditions(struct rollout *r, json_t *object)
{
    int64_t ready = r->ready_fresh + r->ready_old;
    int64_t must_serve = r->replicas - r->unavailable;
    bool done = r->ready_fresh == r->replicas && r->n_fresh == r->replicas && r->n_old == 0;
    const char *why = "";
    if (r->unready != NULL) {
        const struct at_instance *i = r->unready;
        const char *text = i->status.message;
        if (text == NULL && i->status.decision != NULL && ctl_text(i->spec.node_name)[0] == '\0') {
            text = i->status.decision->message;
        }
        if (text != NULL) {
            why = at_arena_printf(r->p->arena, ": %s: %s", i->meta.name, text);
        }
    }
    const char *refusal = r->p->item->refusal;
    if (refusal != NULL) {
        why = at_arena_printf(r->p->arena, ": %s", refusal);
    }
    const char *count = at_arena_printf(r->p->arena, "%lld of %lld ready%s", (long long)ready,
                                        (long long)r->replicas, done ? "" : why);
    bool available = ready >= must_serve;
    at_condition_set(object, "Available", available,
                     available ? "MinimumReplicasAvailable" : "MinimumReplicasUnavailable", count,
                     r->p->wall_ns);
    const char *step = at_arena_printf(r->p->arena, "%lld of %lld updated%s%s",
                                       (long long)r->n_fresh, (long long)r->replicas,
                                       r->held != NULL ? "; " : "", r->held != NULL ? r->held : "");
    at_condition_set(object, "Progressing", true,
                     done              ? "RolloutComplete"
                     : r->held != NULL ? "FetchingModel"
                                       : "RollingUpdate",
                     step, r->p->wall_ns);
    at_condition_set(object, "Ready", done, done ? "AllReplicasReady" : "NotAllReplicasReady",
                     count, r->p->wall_ns);
}

static bool set_status(void *ctx, json_t *object)
{
    struct rollout *r = ctx;
    int64_t ready = r->ready_fresh + r->ready_old;
    int64_t missing = r->replicas - ready;
    json_t *status = json_object_get(object, "status");
    if (!json_is_object(status)) {
        status = json_object();
        json_object_set_new(object, "status", status);
    }
    json_object_set_new(status, "observedGeneration", json_integer(r->d->meta.generation));
    json_object_set_new(status, "replicas", json_integer(r->n_fresh + r->n_old));
    json_object_set_new(status, "readyReplicas", json_integer(ready));
    json_object_set_new(status, "updatedReplicas", json_integer(r->n_fresh));
    if (r->parked > 0 || json_object_get(status, "parkedReplicas") != NULL) {
        json_object_set_new(status, "parkedReplicas", json_integer(r->parked));
    }
    if (r->resized > 0 || json_object_get(status, "resizedReplicas") != NULL) {
        json_object_set_new(status, "resizedReplicas", json_integer(r->resized));
    }
    json_object_set_new(status, "unavailableReplicas", json_integer(missing > 0 ? missing : 0));
    json_object_set_new(
        status, "selector",
        json_string(at_arena_printf(r->p->arena, "%s=%s", CTL_LABEL_DEPLOYMENT, r->d->meta.name)));
    json_object_set_new(status, "templateHash", json_string(r->hash));
    if (r->package.by_tag && r->package.digest != NULL) {
        json_object_set_new(status, "model",
                            json_pack("{s:s,s:s,s:s}", "uri", r->package.uri, "digest",
                                      r->package.digest, "templateHash", r->hash));
    } else {
        json_object_del(status, "model");
    }
    set_conditions(r, object);
    set_refusal(r, object);
    set_name(r, object);
    return true;
}

/* What the tag stands for, and whether the nodes have the model already. */
static void look_at_package(struct rollout *r)
{
    struct ctl_package *p = &r->package;
    *p = ctl_package_of(r->d, r->hash);
    if (p->uri == NULL) {
        return;
    }
    if (p->digest == NULL) {
        p->digest = ctl_package_found(p, r->fresh, r->n_fresh);
    }
    if (r->n_fresh == 0 && r->n_old > 0 && r->replicas > 0) {
        r->held = ctl_package_prefetch(r->p, p, r->old, r->n_old);
    }
    if (p->digest == NULL && r->n_fresh == 0 && r->n_old > 0) {
        p->digest = ctl_package_prefetched(p, r->old, r->n_old);
        r->held = p->digest != NULL ? "the other nodes fetch the model" : r->held;
    }
}

static void reconcile(struct rollout *r)
{
    sort_copies(r);
    look_at_package(r);
    if (r->n_fresh > r->replicas) {
        give_up(r, r->fresh, r->n_fresh - r->replicas);
    } else {
        scale_up(r);
    }
    if (r->n_old > 0 && r->held == NULL) {
        scale_down_old(r);
    }
    if (r->ended > 0 && r->n_fresh <= r->replicas) {
        replace_ended(r, r->fresh, r->n_fresh);
    } else if (r->ready_fresh >= r->replicas) {
        r->p->item->replaced = 0;
    }
    ctl_update(r->p, &AT_KIND_DEPLOYMENT, r->d->meta.ns, r->d->meta.name, set_status, r);
    r->p->item->keep = r->p->item->replaced > 0;
}

void ctl_deployment(struct ctl_pass *p)
{
    const struct at_deployment *d = at_snapshot_deployment(p->snap, p->ns, p->name);
    if (d == NULL) {
        return;
    }
    if (d->meta.deletion_wall_ns != 0) {
        ctl_finish_owner(p, &AT_KIND_DEPLOYMENT, &d->meta);
        return;
    }
    json_t *object = at_state_object(p->c->state, &AT_KIND_DEPLOYMENT, p->ns, p->name);
    const json_t *template_json = at_json_at(object, "spec.template");
    if (template_json != NULL) {
        const struct at_rollout_strategy *s = d->spec.strategy;
        struct rollout r = {
            .p = p,
            .d = d,
            .template_json = template_json,
            .hash = ctl_template_hash(p, template_json),
            .replicas = d->spec.replicas,
            .surge = s != NULL ? s->max_surge : 1,
            .unavailable = s != NULL ? s->max_unavailable : 0,
        };
        r.surge = r.surge == 0 && r.unavailable == 0 ? 1 : r.surge; /* else it could never move */
        reconcile(&r);
    }
    json_decref(object);
}
