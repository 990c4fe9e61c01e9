/* Gangs: members are placed together or not at all. Those bound already count, so that a crash
 * between two binds is made good by the next plan. A gang that has waited long holds room: what
 * becomes free on the nodes that it chose is given to nobody else, until it fits. */
#include "scheduler/engine.h"
#include "scheduler/room.h"

#include <stdio.h>
#include <string.h>

static const char *or_empty(const char *s)
{
    return s != NULL ? s : "";
}

/* --- who belongs together --- */

void sched_gang_join(struct sched *s, struct sched_item *item)
{
    const struct at_gang *spec = item->instance->spec.gang;
    char key[1024];
    if (spec == NULL || spec->size <= 1) {
        sched_gang_leave(s, item);
        return;
    }
    snprintf(key, sizeof(key), "%s/%s", or_empty(item->instance->meta.ns), or_empty(spec->name));
    if (item->gang != NULL && at_streq(item->gang->key, key)) {
        return;
    }
    sched_gang_leave(s, item);
    struct sched_gang *gang = at_map_get(s->gangs, key);
    if (gang == NULL) {
        gang = AT_NEW(struct sched_gang);
        gang->key = at_strdup(key);
        (void)at_map_put(s->gangs, key, gang);
    }
    gang->size = gang->n == 0 || spec->size < gang->size ? spec->size : gang->size;
    if (gang->n == gang->cap) {
        gang->cap = gang->cap != 0 ? 2 * gang->cap : 8;
        gang->items = at_realloc(gang->items, sizeof(struct sched_item *) * gang->cap);
    }
    gang->items[gang->n++] = item;
    item->gang = gang;
}

void sched_gang_leave(struct sched *s, struct sched_item *item)
{
    struct sched_gang *gang = item->gang;
    if (gang == NULL) {
        return;
    }
    item->gang = NULL;
    size_t at = 0;
    while (gang->items[at] != item) {
        at++;
    }
    memmove(&gang->items[at], &gang->items[at + 1],
            sizeof(struct sched_item *) * (gang->n - at - 1));
    if (--gang->n == 0) {
        (void)at_map_remove(s->gangs, gang->key);
        at_free(gang->items);
        at_free(gang->key);
        at_free(gang);
    }
}

/* Members that hold a place and are going to keep it. */
int64_t sched_gang_placed(const struct sched_gang *gang)
{
    int64_t n = 0;
    for (size_t i = 0; i < gang->n; i++) {
        n += gang->items[i]->node != NULL && !sched_is_leaving(gang->items[i]);
    }
    return n;
}

/* --- the attempt --- */

static int64_t times(int64_t cap, int64_t wanted, int64_t at_most)
{
    return wanted > 0 && cap / wanted < at_most ? cap / wanted : at_most;
}

/* Copies that the node could hold if it were empty; at_most or more: at_most. */
static int64_t copies_when_empty(const struct sched_node *n, const struct sched_demand *d,
                                 int64_t at_most)
{
    int64_t copies = times(n->cap_cpu_milli, d->cpu_milli, at_most);
    copies = times(n->cap_memory_bytes, d->memory_bytes, copies);
    copies = times(n->cap_disk_bytes, d->disk_bytes, copies);
    for (size_t i = 0; d->extended != NULL && i < d->extended->n; i++) {
        const struct at_model_kv *e = &d->extended->items[i];
        copies = times(sched_extended_cap(n, e->key), sched_amount(e->value), copies);
    }
    if (d->gpu_count == 0) {
        return copies;
    }
    int64_t shares = 0;
    for (size_t i = 0; i < n->n_gpus; i++) {
        struct sched_gpu empty = n->gpus[i];
        empty.free_milli = empty.cap_milli;
        empty.free_memory_bytes = empty.memory_bytes;
        if (sched_gpu_fits(&empty, d)) {
            int64_t here = times(empty.cap_milli, d->gpu_milli, INT32_MAX);
            shares += times(empty.memory_bytes, d->gpu_memory_bytes, here);
        }
    }
    return times(shares, d->gpu_count, copies);
}

/* Members that are alike and more than all nodes could hold, empty: that is told at once. */
static enum at_rc tell_if_never(struct sched *s, struct sched_item *const *members, size_t n,
                                int64_t size, struct at_sched_decision *d)
{
    int64_t hold = 0;
    for (size_t i = 1; i < n; i++) {
        if (members[i]->request != members[0]->request) {
            return AT_OK;
        }
    }
    for (size_t i = 0; i < s->n_nodes && hold < size; i++) {
        hold += copies_when_empty(s->by_rank[i], &members[0]->request->demand, size);
    }
    if (hold >= size || s->n_nodes == 0 || (int64_t)n < size) {
        return AT_OK;
    }
    const char *text = at_arena_printf(s->arena, "all nodes together hold %lld of %lld, even empty",
                                       (long long)hold, (long long)size);
    for (size_t i = 0; i < n; i++) {
        d[i].never = true;
        d[i].nearest = text;
    }
    return text != NULL ? AT_OK : AT_NOMEM;
}

/* One that could be placed waits for the others; the rest says what it lacks itself. */
static enum at_rc explain_gang(struct sched *s, const struct sched_gang *gang, int64_t have,
                               struct at_sched_decision *d)
{
    const char *own = "";
    if (d->node != NULL) {
        size_t refused = 0;
        for (int k = 0; k < AT_SCHED_RULE_COUNT; k++) {
            refused += d->refused[k];
        }
        d->refused[AT_SCHED_GANG] += s->n_nodes - refused;
        d->example[AT_SCHED_GANG] =
            at_arena_printf(s->arena, "%s: not all of the gang fit", d->node->meta.name);
        d->node = d->runner_up = NULL;
        d->gpus = NULL;
        d->n_gpus = 0;
        d->score = d->runner_up_score = 0;
    } else {
        own = d->message;
    }
    d->waits_for |= AT_SCHED_CHANGE_ROOM | AT_SCHED_CHANGE_NODE;
    d->message = at_arena_printf(s->arena, "gang %s: room for %lld of %lld at the same time%s%s",
                                 strchr(gang->key, '/') + 1, (long long)have, (long long)gang->size,
                                 own[0] != '\0' ? "; " : "", own);
    return d->message != NULL ? AT_OK : AT_NOMEM;
}

static enum at_rc explain_missing(struct sched *s, struct sched_item *item,
                                  struct at_sched_decision *d)
{
    const struct sched_gang *gang = item->gang;
    size_t there = 0;
    for (size_t i = 0; i < gang->n; i++) {
        there += gang->items[i]->node != NULL || gang->items[i]->plan == s->plan_number;
    }
    *d = (struct at_sched_decision){.instance = item->instance};
    d->refused[AT_SCHED_GANG] = s->n_nodes;
    d->example[AT_SCHED_GANG] = "members are missing";
    d->waits_for = AT_SCHED_CHANGE_PLACED;
    d->message = at_arena_printf(s->arena, "gang %s: %zu of %lld members are there",
                                 strchr(gang->key, '/') + 1, there, (long long)gang->size);
    return d->message != NULL ? AT_OK : AT_NOMEM;
}

bool sched_gang_is_old(const struct sched_item *item, int64_t now_wall_ns)
{
    return item->instance->meta.creation_wall_ns > 0 &&
           now_wall_ns - item->instance->meta.creation_wall_ns >= AT_SCHED_GANG_AGE_NS;
}

/* How much of what it wants is missing there, in parts of 1000; -1: it could never be enough. */
static int64_t lack(const struct sched_node *n, const struct sched_demand *d)
{
    int64_t cpu = d->cpu_milli > n->cpu_milli ? d->cpu_milli - n->cpu_milli : 0;
    int64_t memory = d->memory_bytes > n->memory_bytes ? d->memory_bytes - n->memory_bytes : 0;
    int64_t gpu_free = sched_gpu_free(n), gpu = d->gpu_count * d->gpu_milli;
    if (d->cpu_milli > n->cap_cpu_milli || d->memory_bytes > n->cap_memory_bytes ||
        d->disk_bytes > n->cap_disk_bytes || gpu > n->cap_gpu_milli) {
        return -1;
    }
    gpu = gpu > gpu_free ? gpu - gpu_free : 0;
    return (int64_t)(((__int128)cpu * 1000) / (n->cap_cpu_milli + 1) +
                     ((__int128)memory * 1000) / (n->cap_memory_bytes + 1) +
                     ((__int128)gpu * 1000) / (n->cap_gpu_milli + 1));
}

/* Nobody else may fill what becomes free where the least is missing: so it waits only for those who
 * are there already. */
static void hold_room(struct sched *s, struct sched_item *item)
{
    struct sched_request *r = item->request;
    struct sched_node *best = NULL;
    int64_t least = INT64_MAX;
    for (size_t i = 0; i < s->n_nodes; i++) {
        struct sched_node *n = s->by_rank[i];
        if (!sched_is_eligible(r, n->pos)) {
            continue;
        }
        int64_t missing = lack(n, &r->demand);
        if (missing >= 0 && missing < least) {
            least = missing;
            best = n;
        }
    }
    if (best != NULL) {
        sched_hold(s, item, best);
    }
}

/* Some members were placed (a crash, or a node went) and the rest finds no room: after a while they
 * are given up, and the gang waits as a whole. */
static enum at_rc release_part(struct sched *s, const struct sched_gang *gang)
{
    int64_t newest = 0;
    for (size_t i = 0; i < gang->n; i++) {
        const struct sched_item *x = gang->items[i];
        int64_t at = x->node != NULL ? x->instance->status.scheduled_at_wall_ns : 0;
        newest = at > newest ? at : newest;
    }
    if (newest == 0 || s->now_wall_ns - newest < AT_SCHED_GANG_GRACE_NS) {
        return AT_OK;
    }
    size_t room = s->n_released + gang->n;
    const struct at_instance **list = at_arena_alloc(s->arena, sizeof(*list) * room);
    if (list == NULL) {
        return AT_NOMEM;
    }
    if (s->n_released > 0) {
        memcpy(list, s->released, sizeof(*list) * s->n_released);
    }
    for (size_t i = 0; i < gang->n; i++) {
        struct sched_item *x = gang->items[i];
        if (x->node != NULL && !x->planned && !sched_is_leaving(x)) {
            list[s->n_released++] = x->instance;
            sched_victim_set(s, x, true);
        }
    }
    s->released = list;
    return AT_OK;
}

static enum at_rc wait_together(struct sched *s, struct sched_item **members, size_t n,
                                int64_t now_wall_ns, struct at_sched_decision *d,
                                struct sched_node **was_held)
{
    bool preempts = true;
    enum at_rc rc = AT_OK;
    for (size_t i = 0; i < n && rc == AT_OK; i++) { /* where it was, as long as that may work */
        if (was_held[i] != NULL) {
            sched_hold(s, members[i], was_held[i]);
            d[i].nominated = was_held[i]->node;
        }
        preempts = preempts && was_held[i] == NULL;
    }
    for (size_t i = 0; i < n && rc == AT_OK && preempts; i++) {
        rc = sched_turn_begin(s, members[i]);
        struct at_sched_decision trial = {.instance = members[i]->instance};
        if (rc == AT_OK) {
            sched_turn_choose(s, &s->turn, &trial);
            if (trial.node != NULL) {
                sched_hold(s, members[i], sched_node_find(s, trial.node->meta.name));
                d[i].nominated = trial.node;
            } else {
                rc = sched_preempt(s, members[i], now_wall_ns, &d[i]);
            }
            preempts = d[i].nominated != NULL;
        }
    }
    if (preempts || rc != AT_OK) {
        return rc;
    }
    for (size_t i = 0; i < n; i++) {
        if (was_held[i] != NULL) {
            continue;
        }
        for (size_t v = 0; v < d[i].n_victims; v++) { /* not enough for all: nobody has to go */
            const struct at_meta *meta = &d[i].victims[v]->meta;
            sched_victim_set(s, sched_item_find(s, meta->ns, meta->name), false);
        }
        d[i].victims = NULL;
        d[i].n_victims = 0;
        d[i].nominated = NULL;
        sched_unhold(s, members[i]);
        if (sched_gang_is_old(members[i], now_wall_ns)) {
            hold_room(s, members[i]);
        }
    }
    return AT_OK;
}

enum at_rc sched_gang_decide(struct sched *s, struct sched_item **members, size_t n,
                             int64_t now_wall_ns, struct at_sched_decision *d)
{
    const struct sched_gang *gang = members[0]->gang;
    int64_t have = sched_gang_placed(gang);
    if (have + (int64_t)n < gang->size) {
        enum at_rc rc = AT_OK;
        for (size_t i = 0; i < n && rc == AT_OK; i++) {
            sched_unhold(s, members[i]);
            rc = explain_missing(s, members[i], &d[i]);
        }
        return rc;
    }
    struct sched_node **was_held = at_arena_alloc(s->arena, sizeof(struct sched_node *) * n);
    if (was_held == NULL) {
        return AT_NOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        was_held[i] = members[i]->held != NULL ? members[i]->held->node : NULL;
        sched_unhold(s, members[i]);
    }
    for (size_t i = 0; i < n; i++) {
        enum at_rc rc = sched_decide_alone(s, members[i], &d[i]);
        if (rc != AT_OK) {
            return rc;
        }
        have += d[i].node != NULL;
    }
    if (have >= gang->size) {
        return AT_OK;
    }
    for (size_t i = 0; i < n; i++) {
        if (d[i].node != NULL) {
            sched_item_release(s, members[i]);
            sched_pending_set(s, members[i], true);
        }
        enum at_rc rc = explain_gang(s, gang, have, &d[i]);
        if (rc != AT_OK) {
            return rc;
        }
    }
    enum at_rc rc = wait_together(s, members, n, now_wall_ns, d, was_held);
    rc = rc == AT_OK ? tell_if_never(s, members, n, gang->size, d) : rc;
    return rc == AT_OK ? release_part(s, gang) : rc;
}
