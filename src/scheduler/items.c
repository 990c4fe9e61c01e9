/* Instances as the engine knows them: what they ask for, what they hold, whether they wait. */
#include "scheduler/disruption.h"
#include "scheduler/engine.h"

#include <assert.h>
#include <string.h>

static const char *or_empty(const char *s)
{
    return s != NULL ? s : "";
}

void sched_item_set_gpus(struct sched_item *item, const struct at_sched_gpu *gpus, size_t n)
{
    if (n > 0) { /* most have none */
        item->gpus = at_realloc(item->gpus, sizeof(*gpus) * n);
        memcpy(item->gpus, gpus, sizeof(*gpus) * n);
    }
    item->n_gpus = n;
}

/* --- instances --- */

size_t sched_key(const char *ns, const char *name, char out[SCHED_KEY_MAX])
{
    size_t n_ns = strlen(or_empty(ns)), n_name = strlen(name);
    if (n_ns + n_name + 2 > SCHED_KEY_MAX) {
        return 0;
    }
    memcpy(out, or_empty(ns), n_ns);
    out[n_ns] = '/';
    memcpy(out + n_ns + 1, name, n_name + 1);
    return n_ns + 1 + n_name;
}

struct sched_item *sched_item_find(const struct sched *s, const char *ns, const char *name)
{
    char key[SCHED_KEY_MAX];
    size_t len = sched_key(ns, name, key);
    return len > 0 ? at_map_get_n(s->item_by_key, key, len) : NULL;
}

static struct sched_item *item_new(struct sched *s, const char *key)
{
    struct sched_item *item = AT_NEW(struct sched_item);
    item->key = at_strdup(key);
    (void)at_map_put(s->item_by_key, key, item);
    return item;
}

static void note_queue(struct sched *s, struct sched_item *item)
{
    bool queued = item->pending && or_empty(item->instance->spec.queue)[0] != '\0';
    s->n_queued += queued;
    s->n_queued -= item->queued;
    item->queued = queued;
}

void sched_pending_set(struct sched *s, struct sched_item *item, bool pending)
{
    if (item->pending == pending) {
        return;
    }
    item->pending = pending;
    note_queue(s, item);
    item->tried = 0;
    if (pending) {
        if (s->n_pending == s->cap_pending) {
            s->cap_pending = s->cap_pending != 0 ? 2 * s->cap_pending : 64;
            s->pending = at_realloc(s->pending, sizeof(struct sched_item *) * s->cap_pending);
        }
        item->pending_at = s->n_pending;
        s->pending[s->n_pending++] = item;
    } else {
        s->pending[item->pending_at] = s->pending[--s->n_pending];
        s->pending[item->pending_at]->pending_at = item->pending_at;
    }
}

static bool counts(const struct sched_item *item)
{
    return item->instance != NULL && item->instance->meta.deletion_wall_ns == 0;
}

void sched_available_set(struct sched *s, struct sched_item *item)
{
    const struct at_owner_ref *owner =
        item->instance != NULL ? at_meta_controller(&item->instance->meta) : NULL;
    bool now = owner != NULL && owner->uid != NULL && item->node != NULL && !item->victim &&
               item->held_now && at_disruption_is_available(item->instance);
    if (now == item->available) {
        return;
    }
    intptr_t n = (intptr_t)at_map_get(s->available, owner->uid) + (now ? 1 : -1);
    if (n > 0) {
        (void)at_map_put(s->available, owner->uid, (void *)n);
    } else {
        (void)at_map_remove(s->available, owner->uid);
    }
    item->available = now;
}

static void tell_holder(struct sched *s, struct sched_item *item, int sign)
{
    s->holders++;
    item->held_now = sign > 0;
    if (sign > 0 && item->instance != NULL && item->instance->meta.deletion_wall_ns != 0) {
        item->victim = false; /* the snapshot shows it now */
    }
    sched_available_set(s, item);
    if (sign > 0 && item->instance != NULL && item->instance->spec.priority < s->lowest_priority) {
        s->lowest_priority = item->instance->spec.priority;
    }
    if (item->counted != (sign > 0) && (sign < 0 || counts(item))) {
        sched_group_count(s, item->group, item->node, sign);
        sched_holder_changed(s, item->instance, item->node, sign);
        item->counted = sign > 0;
    }
}

void sched_holders_tell(struct sched *s)
{
    void *value;
    for (size_t it = 0; at_map_next(s->item_by_key, &it, NULL, &value);) {
        const struct sched_item *item = value;
        if (item->counted) {
            sched_holder_changed(s, item->instance, item->node, 1);
        }
    }
}

static bool is_unrecorded(const struct sched_item *item)
{
    return !item->recorded && item->request->demand.gpu_count > 0;
}

/* Whether some item of the node must be replayed when anything changes on it. */
static bool has_unrecorded(const struct sched_node *n)
{
    return n->n_unrecorded > 0 || n->gpus_unknown;
}

/* False: what is free is counted later, when nodes have their order. */
static bool is_settled(struct sched *s, struct sched_node *n)
{
    n->unsettled = n->unsettled || s->order_stale;
    s->unsettled = s->unsettled || n->unsettled;
    return !n->unsettled;
}

void sched_item_take(struct sched *s, struct sched_item *item, struct sched_node *n,
                     const struct at_sched_gpu *gpus, size_t n_gpus)
{
    assert(item->node == NULL);
    item->node = n;
    item->next = n->first;
    item->prev = NULL;
    if (n->first != NULL) {
        n->first->prev = item;
    }
    n->first = item;
    item->recorded = gpus != NULL && n_gpus > 0;
    sched_item_set_gpus(item, gpus, item->recorded ? n_gpus : 0);
    n->n_unrecorded += is_unrecorded(item);
    if (is_settled(s, n)) {
        if (has_unrecorded(n)) {
            sched_node_recount(s, n);
        } else {
            sched_take(n, &item->request->demand, item->gpus, item->n_gpus);
            sched_node_changed(s, n);
        }
    }
    tell_holder(s, item, 1);
}

void sched_item_release(struct sched *s, struct sched_item *item)
{
    struct sched_node *n = item->node;
    if (n == NULL) {
        return;
    }
    tell_holder(s, item, -1);
    bool replayed = has_unrecorded(n);
    n->n_unrecorded -= is_unrecorded(item);
    if (item->prev != NULL) {
        item->prev->next = item->next;
    } else {
        n->first = item->next;
    }
    if (item->next != NULL) {
        item->next->prev = item->prev;
    }
    item->node = NULL;
    item->next = item->prev = NULL;
    item->planned = false;
    if (is_settled(s, n)) {
        if (replayed) {
            sched_node_recount(s, n);
        } else {
            sched_give_back(n, &item->request->demand, item->gpus, item->n_gpus);
            sched_node_changed(s, n);
        }
    }
}

static void live(struct sched *s, struct sched_request *r, int by)
{
    r->live += (size_t)by;
    sched_mix_changed(s, r);
}

/* Bound to a node that is not there: looked for when one joins. */
void sched_item_set_homeless(struct sched *s, struct sched_item *item, bool homeless)
{
    s->n_homeless += homeless;
    s->n_homeless -= item->homeless;
    item->homeless = homeless;
}

void sched_item_remove(struct sched *s, struct sched_item *item)
{
    sched_item_set_homeless(s, item, false);
    sched_gang_leave(s, item);
    sched_unhold(s, item);
    sched_item_release(s, item);
    sched_pending_set(s, item, false);
    if (item->request != NULL) {
        live(s, item->request, -1);
        sched_request_unref(s, item->request);
    }
    sched_group_unref(s, item->group);
    (void)at_map_remove(s->item_by_key, item->key);
    at_free(item->key);
    at_free(item->gpus);
    at_free(item);
}

static bool same_gpus(const struct sched_item *item, const struct at_sched_gpu *gpus, size_t n)
{
    return item->recorded == (n > 0) &&
           (n == 0 || (item->n_gpus == n && memcmp(item->gpus, gpus, sizeof(*gpus) * n) == 0));
}

/* By identity when it is known, for the order of GPUs may change; else by index. */
static size_t record_of(const struct at_instance *i, const struct sched_node *n,
                        struct at_sched_gpu *out)
{
    const struct at_instance_parking *p = i->status.parking;
    bool parked = p != NULL && (at_streq(p->state, "Parked") || at_streq(p->state, "Waiting"));
    size_t count = 0;
    for (size_t k = 0; k < i->status.gpus.n && count < AT_SCHED_GPUS_PER_NODE; k++) {
        const struct at_instance_gpu *g = &i->status.gpus.items[k];
        int64_t index = g->index;
        for (size_t j = 0; g->id != NULL && n != NULL && j < n->node->status.gpus.n; j++) {
            if (at_streq(n->node->status.gpus.items[j].id, g->id)) {
                index = (int64_t)j;
                break;
            }
        }
        if (index >= 0 && index < AT_SCHED_GPUS_PER_NODE) {
            memset(&out[count], 0, sizeof(out[count]));
            out[count].index = (uint32_t)index;
            out[count].parked = parked;
            out[count].milli = g->milli;
            out[count++].memory_bytes = g->memory_bytes > 0 ? g->memory_bytes : 0;
        }
    }
    return count;
}

void sched_item_ask(struct sched *s, struct sched_item *item, const struct at_instance *i)
{
    struct sched_request *request = sched_request_ref(s, i);
    struct sched_group *group = sched_group_ref(s, i);
    live(s, request, 1);
    if (item->request != NULL) {
        live(s, item->request, -1);
        sched_request_unref(s, item->request);
    }
    sched_group_unref(s, item->group);
    item->request = request;
    item->group = group;
}

/* Room was being made for it before this scheduler began. */
static void restore_nomination(struct sched *s, struct sched_item *item)
{
    const char *name = or_empty(item->instance->status.nominated_node);
    struct sched_node *n = name[0] != '\0' ? sched_node_find(s, name) : NULL;
    if (n != NULL && item->pending && item->held == NULL) {
        sched_hold(s, item, n);
    }
}

static void tell_budget(struct sched *s, const struct sched_item *item, bool was_available)
{
    if (item->available && !was_available) {
        sched_budget_grew(s, at_meta_controller(&item->instance->meta)->uid, -1);
    }
}

static struct sched_item *item_new_of(struct sched *s, const struct at_instance *i)
{
    char key[SCHED_KEY_MAX];
    size_t len = sched_key(i->meta.ns, i->meta.name, key);
    assert(len > 0); /* names have an end: 253 each */
    return item_new(s, key);
}

void sched_item_put(struct sched *s, const struct at_instance *i)
{
    sched_item_put_known(s, i, sched_item_find(s, i->meta.ns, i->meta.name));
}

void sched_item_put_known(struct sched *s, const struct at_instance *i, struct sched_item *item)
{
    struct at_sched_gpu gpus[AT_SCHED_GPUS_PER_NODE];
    if (sched_instance_ended(i)) {
        if (item != NULL) {
            sched_item_remove(s, item);
        }
        return;
    }
    item = item != NULL ? item : item_new_of(s, i);
    bool was_available = item->available;
    struct sched_node *node =
        sched_instance_holds(i) ? sched_node_find(s, i->spec.node_name) : NULL;
    size_t n_gpus = record_of(i, node, gpus);
    bool bound = sched_instance_holds(i);
    bool goes = i->meta.deletion_wall_ns != 0; /* one that was never bound is not going to be */
    bool stays = item->node != NULL && (item->node == node || (!bound && item->planned && !goes));
    bool asks_same = item->request != NULL && sched_request_is(s, item->request, i);
    if (stays && asks_same && (!bound || same_gpus(item, gpus, n_gpus))) {
        tell_holder(s, item, -1);
        item->instance = i;
        item->planned = !bound;
        tell_holder(s, item, 1);
        tell_budget(s, item, was_available);
        return;
    }
    sched_item_release(s, item);
    if (!asks_same) {
        sched_item_ask(s, item, i);
    }
    item->instance = i;
    sched_gang_join(s, item);
    sched_item_set_homeless(s, item, bound && node == NULL);
    if (node != NULL) {
        sched_item_take(s, item, node, gpus, n_gpus);
    }
    if (bound) {
        sched_unhold(s, item);
    }
    sched_pending_set(s, item, !bound && i->meta.deletion_wall_ns == 0);
    note_queue(s, item);
    item->tried = 0;
    restore_nomination(s, item);
    tell_budget(s, item, was_available);
}

struct sched_item *sched_item_of(struct sched *s, const struct at_instance *i)
{
    struct sched_item *item = sched_item_find(s, i->meta.ns, i->meta.name);
    if (item == NULL || item->instance != i) {
        sched_item_put(s, i);
        sched_settle(s);
        item = sched_item_find(s, i->meta.ns, i->meta.name);
    }
    return item;
}

/* --- room held --- */

void sched_hold(struct sched *s, struct sched_item *item, struct sched_node *n)
{
    sched_unhold(s, item);
    AT_CLEANUP(at_cleanup_free) char *key = at_asprintf("held %s", item->key);
    struct sched_item *held = item_new(s, key);
    held->request = sched_request_ref(s, item->instance);
    live(s, held->request, 1);
    item->held = held;
    sched_item_take(s, held, n, NULL, 0);
}

void sched_unhold(struct sched *s, struct sched_item *item)
{
    struct sched_item *held = item->held;
    item->held = NULL;
    if (held != NULL) {
        sched_item_remove(s, held);
    }
}
