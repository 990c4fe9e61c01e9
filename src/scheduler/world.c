/* What is known: nodes, sites and instances, brought up to date by what changed. */
#include "scheduler/engine.h"
#include "scheduler/score_place.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static const char *or_empty(const char *s)
{
    return s != NULL ? s : "";
}

/* --- nodes --- */

struct sched_node *sched_node_find(const struct sched *s, const char *name)
{
    return at_map_get(s->node_by_name, name);
}

void sched_node_changed(struct sched *s, struct sched_node *n)
{
    sched_mix_node(s, n);
    n->changed = s->log_end;
    s->log[s->log_end++ & s->log_mask] = n->pos;
}

static int by_schedule_order(const void *a, const void *b)
{
    const struct sched_item *x = *(struct sched_item *const *)a;
    const struct sched_item *y = *(struct sched_item *const *)b;
    int64_t xt = x->instance != NULL ? x->instance->status.scheduled_at_wall_ns : INT64_MAX;
    int64_t yt = y->instance != NULL ? y->instance->status.scheduled_at_wall_ns : INT64_MAX;
    if (xt != yt) {
        return xt < yt ? -1 : 1;
    }
    return strcmp(x->key, y->key);
}

/* GPUs that nobody recorded: chosen again, in the order in which they were given. When that does
 * not work out, the node takes no further GPU work until something leaves. */
static void replay(struct sched_node *n, struct sched_item **items, size_t count)
{
    struct at_sched_gpu gpus[AT_SCHED_GPUS_PER_NODE];
    uint32_t index[AT_SCHED_GPUS_PER_NODE];
    qsort(items, count, sizeof(*items), by_schedule_order);
    for (size_t i = 0; i < count; i++) {
        const struct sched_demand *d = &items[i]->request->demand;
        size_t chosen = sched_gpus_near(n, d, index);
        for (size_t k = 0; k < chosen; k++) {
            gpus[k] = (struct at_sched_gpu){
                .index = index[k], .milli = d->gpu_milli, .memory_bytes = d->gpu_memory_bytes};
        }
        sched_item_set_gpus(items[i], gpus, chosen);
        n->gpus_unknown = n->gpus_unknown || chosen == 0;
        sched_give_back(n, d, NULL, 0); /* taken before without GPUs, now with them */
        sched_take(n, d, gpus, items[i]->n_gpus);
    }
}

/* What is free: all, less what those on it hold. */
void sched_node_recount(struct sched *s, struct sched_node *n)
{
    size_t count = 0, unrecorded = 0;
    sched_node_fill(n, n->node);
    for (struct sched_item *item = n->first; item != NULL; item = item->next) {
        bool known = item->recorded || item->request->demand.gpu_count == 0;
        sched_take(n, &item->request->demand, item->gpus, known ? item->n_gpus : 0);
        unrecorded += !known;
    }
    if (unrecorded > 0) {
        AT_CLEANUP(at_cleanup_free)
        struct sched_item **items = at_alloc(sizeof(*items) * unrecorded);
        for (struct sched_item *item = n->first; item != NULL; item = item->next) {
            if (!item->recorded && item->request->demand.gpu_count > 0) {
                items[count++] = item;
            }
        }
        replay(n, items, count);
    }
    sched_node_changed(s, n);
}

static uint64_t labels_digest(const struct at_meta *meta, uint64_t h)
{
    for (size_t i = 0; i < meta->labels.n; i++) {
        for (const char *c = meta->labels.items[i].key; *c != '\0'; c++) {
            h = (h ^ (unsigned char)*c) * 1099511628211u;
        }
        for (const char *c = meta->labels.items[i].value; *c != '\0'; c++) {
            h = (h ^ (unsigned char)*c) * 1099511628211u;
        }
        h = h * 31 + 7;
    }
    return h;
}

/* Of all that rules look at: a node's status changes for other reasons too. */
static uint64_t digest_of(const struct at_node *node)
{
    static const char *const STATUS[] = {"capacity", "allocatable", "gpus",
                                         "gpuModes", "numaNodes",   "drivers",
                                         "arch",     "models",      NULL};
    uint64_t h = at_model_part_hash(&AT_KIND_NODE, "spec", node, NULL);
    h = h * 31 + at_model_part_hash(&AT_KIND_NODE, "status", node, STATUS);
    h = h * 31 + (node->meta.deletion_wall_ns != 0);
    for (size_t i = 0; i < node->status.conditions.n; i++) {
        const struct at_condition *c = &node->status.conditions.items[i];
        if (at_streq(c->type, "Ready")) {
            h = h * 31 + at_streq(c->status, "True");
        }
    }
    return labels_digest(&node->meta, h);
}

static struct sched_site *site_get(struct sched *s, const char *name)
{
    struct sched_site *place = at_map_get(s->site_by_name, name);
    if (place != NULL) {
        return place;
    }
    if (s->n_sites == s->cap_sites) {
        s->cap_sites = s->cap_sites != 0 ? 2 * s->cap_sites : 16;
        s->sites = at_realloc(s->sites, sizeof(*s->sites) * s->cap_sites);
    }
    place = AT_NEW(struct sched_site);
    place->name = at_strdup(name);
    place->index = s->n_sites;
    s->sites[s->n_sites++] = place;
    s->net_stale = true;
    s->order_stale = true;
    (void)at_map_put(s->site_by_name, name, place);
    return place;
}

static void node_put(struct sched *s, const struct at_node *node)
{
    struct sched_node *n = sched_node_find(s, node->meta.name);
    uint64_t digest = digest_of(node);
    if (n != NULL && n->digest == digest) {
        sched_node_repoint(n, node);
        return;
    }
    if (n == NULL) {
        if (s->n_nodes == s->cap_nodes) {
            s->cap_nodes = s->cap_nodes != 0 ? 2 * s->cap_nodes : 64;
            s->nodes = at_realloc(s->nodes, sizeof(*s->nodes) * s->cap_nodes);
            s->by_rank = at_realloc(s->by_rank, sizeof(*s->by_rank) * s->cap_nodes);
        }
        n = sched_node_new();
        n->pos = (uint32_t)s->n_nodes;
        s->nodes[s->n_nodes++] = n;
        (void)at_map_put(s->node_by_name, node->meta.name, n);
        s->order_stale = true;
    }
    struct sched_site *site = site_get(s, or_empty(node->spec.site));
    n->site_index = site->index;
    n->site = site->site;
    n->digest = digest;
    n->node = node;
    n->unsettled = true;
    s->unsettled = true;
}

/* Whoever was on it holds nothing that matters. */
static void node_remove(struct sched *s, const char *name)
{
    struct sched_node *n = at_map_remove(s->node_by_name, name);
    if (n == NULL) {
        return;
    }
    while (n->first != NULL) {
        struct sched_item *item = n->first;
        sched_item_release(s, item);
        sched_item_set_homeless(s, item, item->instance != NULL);
    }
    n->node = NULL; /* freed when the order is made anew */
    s->order_stale = true;
}

static int by_site_and_name(const void *a, const void *b)
{
    const struct sched_node *x = *(struct sched_node *const *)a;
    const struct sched_node *y = *(struct sched_node *const *)b;
    if (x->site_index != y->site_index) {
        return x->site_index < y->site_index ? -1 : 1;
    }
    return strcmp(x->node->meta.name, y->node->meta.name);
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(struct sched_node *const *)a)->node->meta.name,
                  (*(struct sched_node *const *)b)->node->meta.name);
}

/* Nodes by (site, name), which every kept score is ordered by: all of them are void. */
static void order(struct sched *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_nodes; i++) {
        if (s->nodes[i]->node == NULL) {
            sched_node_free(s->nodes[i]);
        } else {
            s->nodes[n++] = s->nodes[i];
        }
    }
    s->n_nodes = n;
    if (n > 0) {
        qsort(s->nodes, n, sizeof(*s->nodes), by_site_and_name);
        memcpy(s->by_rank, s->nodes, sizeof(*s->nodes) * n);
        qsort(s->by_rank, n, sizeof(*s->by_rank), by_name);
    }
    for (size_t i = 0; i < s->n_sites; i++) {
        s->sites[i]->n_nodes = 0;
    }
    for (size_t i = 0; i < n; i++) {
        struct sched_site *site = s->sites[s->nodes[i]->site_index];
        s->nodes[i]->pos = (uint32_t)i;
        site->first = site->n_nodes++ == 0 ? i : site->first;
        s->by_rank[i]->rank = (uint32_t)i;
    }
    s->n_blocks = 0;
    for (size_t i = 0; i < s->n_sites; i++) {
        struct sched_site *site = s->sites[i];
        site->first_block = s->n_blocks;
        s->n_blocks += (site->n_nodes + SCHED_BLOCK - 1) / SCHED_BLOCK;
        for (size_t k = 0; k < site->n_nodes; k++) {
            s->nodes[site->first + k]->block = (uint32_t)(site->first_block + k / SCHED_BLOCK);
        }
    }
    uint64_t ring = 64;
    while (ring < 2 * n) {
        ring *= 2;
    }
    if (ring != s->log_mask + 1 || s->log == NULL) {
        at_free(s->log);
        s->log = at_alloc(sizeof(*s->log) * ring);
        s->log_mask = ring - 1;
    }
    s->epoch++;
    s->order_number++;
    s->order_stale = false;
}

/* After nodes changed: their order, then what each has free. */
void sched_settle(struct sched *s)
{
    if (s->order_stale || s->log == NULL) {
        order(s);
    }
    bool soft_taints = false;
    for (size_t i = 0; s->unsettled && i < s->n_nodes; i++) {
        soft_taints = soft_taints || sched_is_soft_tainted(s->nodes[i]->node);
        if (s->nodes[i]->unsettled) {
            sched_node_recount(s, s->nodes[i]);
            s->nodes[i]->changed_static = s->changed_static = s->nodes[i]->changed;
            s->nodes[i]->unsettled = false;
        }
    }
    if (s->unsettled && soft_taints != s->soft_taints) {
        s->soft_taints = soft_taints;
        sched_requests_weigh(s);
        s->epoch++;
    }
    s->unsettled = false;
    if (s->net_stale) {
        sched_net_load(s);
        s->net_stale = false;
    }
}

/* What is counted of a site is told in its status, several times a second, which no rule looks at.
 */
static void site_put(struct sched *s, const char *name)
{
    struct sched_site *place = site_get(s, name);
    const struct at_site *site = at_snapshot_site(s->snap, name);
    bool same = site != NULL && place->site != NULL && !s->net_stale;
    uint64_t digest = 0;
    if (site != NULL) {
        digest = at_model_part_hash(&AT_KIND_SITE, "spec", site, NULL);
        digest = labels_digest(&site->meta, digest);
    }
    same = same && digest == place->digest;
    place->site = site;
    place->digest = digest;
    size_t from = s->order_stale ? 0 : place->first;
    size_t to = s->order_stale ? s->n_nodes : place->first + place->n_nodes;
    for (size_t i = from; i < to; i++) {
        if (s->nodes[i]->site_index == place->index) {
            s->nodes[i]->site = site;
        }
    }
    if (same) {
        s->net_sites[place->index] = site;
    } else {
        s->net_stale = true;
        s->epoch++;
    }
}

/* --- the whole --- */

/* Of several told instances: what is known of them lies all over memory, so it is fetched for all
 * of them before the first is looked at. Putting one leaves the items of others where they are. */
static void instances_told(struct sched *s, const struct at_snapshot_key *keys, size_t n)
{
    const struct at_instance *found[AT_SNAPSHOT_FIND_MAX];
    struct sched_item *items[AT_SNAPSHOT_FIND_MAX];
    at_snapshot_instances(s->snap, keys, n, found);
    for (size_t k = 0; k < n; k++) {
        items[k] = sched_item_find(s, keys[k].ns, keys[k].name);
        for (size_t at = 0; items[k] != NULL && at < sizeof(*items[k]); at += 64) {
            __builtin_prefetch((const char *)items[k] + at);
        }
    }
    for (size_t k = 0; k < n; k++) {
        if (items[k] != NULL && items[k]->node != NULL) {
            __builtin_prefetch(items[k]->node);
            __builtin_prefetch(&items[k]->node->cpu_milli);
            __builtin_prefetch(&items[k]->node->gpus);
            __builtin_prefetch(items[k]->group);
            __builtin_prefetch(items[k]->request);
        }
    }
    for (size_t k = 0; k < n; k++) {
        if (found[k] != NULL) {
            sched_item_put_known(s, found[k], items[k]);
        } else if (items[k] != NULL) {
            sched_item_remove(s, items[k]);
        }
    }
}

/* Nodes first, for instances are put on them; a node's instances may have been told of earlier. */
static void nodes_told(struct sched *s, const char *name)
{
    const struct at_node *node = at_snapshot_node(s->snap, name);
    const struct sched_node *old = sched_node_find(s, name);
    if (node == NULL ||
        (old != NULL && !at_streq(s->sites[old->site_index]->name, or_empty(node->spec.site)))) {
        node_remove(s, name); /* or made anew elsewhere */
        old = NULL;
    }
    if (node == NULL) {
        return;
    }
    bool is_new = old == NULL;
    node_put(s, node);
    if (!is_new) {
        return;
    }
    const char *key;
    void *value; /* rare: an instance that waits for its node to be there again */
    for (size_t it = 0; s->n_homeless > 0 && at_map_next(s->item_by_key, &it, &key, &value);) {
        struct sched_item *item = value;
        if (item->homeless && at_streq(item->instance->spec.node_name, name)) {
            sched_item_put(s, item->instance);
        }
    }
}

/* Its disruption budget may have changed. */
static void owner_told(struct sched *s, const char *ns, const char *name)
{
    const struct at_deployment *d = at_snapshot_deployment(s->snap, ns, name);
    const struct at_job *j = at_snapshot_job(s->snap, ns, name);
    if (d != NULL) {
        sched_budget_grew(s, d->meta.uid, d->meta.generation);
    }
    if (j != NULL) {
        sched_budget_grew(s, j->meta.uid, -1);
    }
    if (d == NULL && j == NULL) { /* it has gone, and its budget with it */
        sched_budgets_grew(s);
    }
}

/* In the order in which they are taken in: nodes before the instances that are put on them. */
enum told { TOLD_SITE, TOLD_POLICY, TOLD_NODE, TOLD_INSTANCE, TOLD_OWNER };
_Static_assert(TOLD_OWNER + 1 == SCHED_TOLD_KINDS, "a map for each");

static void take_in(struct sched *s, enum told kind, const char *ns, const char *name)
{
    switch (kind) {
    case TOLD_SITE:
        site_put(s, name);
        break;
    case TOLD_POLICY:
        s->epoch++;
        break;
    case TOLD_NODE:
        nodes_told(s, name);
        break;
    case TOLD_INSTANCE: /* many: take_in_instances */
        break;
    case TOLD_OWNER:
        owner_told(s, ns, name);
        break;
    }
}

/* Of "ns/name". */
static struct at_snapshot_key split(const char *key, char ns[SCHED_KEY_MAX])
{
    const char *slash = strchr(key, '/');
    memcpy(ns, key, (size_t)(slash - key));
    ns[slash - key] = '\0';
    return (struct at_snapshot_key){ns, slash + 1};
}

static void take_in_instances(struct sched *s)
{
    char ns[AT_SNAPSHOT_FIND_MAX][SCHED_KEY_MAX];
    struct at_snapshot_key keys[AT_SNAPSHOT_FIND_MAX];
    size_t n = 0, left = at_map_count(s->told[TOLD_INSTANCE]);
    const char *key;
    for (size_t it = 0; at_map_next(s->told[TOLD_INSTANCE], &it, &key, NULL);) {
        keys[n] = split(key, ns[n]);
        n++;
        left--;
        if (n < AT_SNAPSHOT_FIND_MAX && left > 0) {
            continue;
        }
        instances_told(s, keys, n);
        n = 0;
    }
    assert(n == 0);
}

static void take_in_told(struct sched *s)
{
    char ns[SCHED_KEY_MAX];
    const char *key;
    for (int kind = 0; kind < SCHED_TOLD_KINDS; kind++) {
        if (kind == TOLD_INSTANCE) {
            take_in_instances(s);
        }
        for (size_t it = 0; kind != TOLD_INSTANCE && at_map_next(s->told[kind], &it, &key, NULL);) {
            struct at_snapshot_key k = split(key, ns);
            take_in(s, (enum told)kind, k.ns, k.name);
        }
        at_map_clear(s->told[kind]);
    }
}

static void load(struct sched *s)
{
    for (size_t i = 0; i < s->snap->n_sites; i++) {
        site_put(s, s->snap->sites[i]->meta.name);
    }
    for (size_t i = 0; i < s->snap->n_nodes; i++) {
        node_put(s, s->snap->nodes[i]);
    }
    if (s->order_stale) {
        order(s);
    }
    for (size_t i = 0; i < s->snap->n_instances; i++) {
        sched_item_put(s, s->snap->instances[i]);
    }
}

void at_scheduler_changed(struct at_scheduler *sched, const struct at_model_kind *kind,
                          const char *ns, const char *name)
{
    char key[SCHED_KEY_MAX];
    int told = kind == &AT_KIND_INSTANCE                             ? TOLD_INSTANCE
               : kind == &AT_KIND_NODE                               ? TOLD_NODE
               : kind == &AT_KIND_SITE                               ? TOLD_SITE
               : kind == &AT_KIND_POLICY                             ? TOLD_POLICY
               : kind == &AT_KIND_DEPLOYMENT || kind == &AT_KIND_JOB ? TOLD_OWNER
                                                                     : SCHED_TOLD_KINDS;
    if (told < SCHED_TOLD_KINDS && sched->s.loaded && sched_key(ns, name, key) > 0) {
        (void)at_map_put(sched->s.told[told], key, sched);
    }
}

void at_scheduler_update(struct at_scheduler *sched, const struct at_snapshot *snap)
{
    struct sched *s = &sched->s;
    s->snap = snap;
    if (!s->loaded) {
        load(s);
        s->loaded = true;
    } else {
        take_in_told(s);
    }
    sched_settle(s);
    if (sched_mix_update(s, false)) {
        s->epoch++;
    }
}

struct at_scheduler *at_scheduler_new(void)
{
    struct at_scheduler *sched = AT_NEW(struct at_scheduler);
    struct sched *s = &sched->s;
    s->node_by_name = at_map_new();
    s->site_by_name = at_map_new();
    s->group_by_name = at_map_new();
    s->item_by_key = at_map_new();
    for (int kind = 0; kind < SCHED_TOLD_KINDS; kind++) {
        s->told[kind] = at_map_new();
    }
    s->gangs = at_map_new();
    s->available = at_map_new();
    s->keeps = at_map_new();
    s->lowest_priority = INT64_MAX;
    s->large_group = SCHED_LARGE_GROUP;
    sched_requests_init(s);
    s->mix = sched_mix_new();
    s->tally = sched_tally_new();
    return sched;
}

void at_scheduler_free(struct at_scheduler *sched)
{
    if (sched == NULL) {
        return;
    }
    struct sched *s = &sched->s;
    const char *key;
    void *value;
    s->order_stale = true; /* nothing is counted any more */
    size_t n = 0;
    struct sched_item **items = at_alloc(sizeof(*items) * (at_map_count(s->item_by_key) + 1));
    for (size_t it = 0; at_map_next(s->item_by_key, &it, &key, &value);) {
        items[n] = value;
        n += items[n]->instance != NULL; /* room held goes with those it is held for */
    }
    for (size_t i = 0; i < n; i++) {
        sched_item_remove(s, items[i]);
    }
    at_free(items);
    for (size_t i = 0; i < s->n_nodes; i++) {
        sched_node_free(s->nodes[i]);
    }
    for (size_t i = 0; i < s->n_sites; i++) {
        at_free(s->sites[i]->name);
        at_free(s->sites[i]);
    }
    sched_requests_free(s);
    sched_mix_free(s->mix);
    sched_tally_free(s->tally);
    sched_net_free(s->net);
    at_free(s->net_sites);
    at_map_free(s->node_by_name);
    at_map_free(s->site_by_name);
    at_map_free(s->group_by_name);
    at_map_free(s->item_by_key);
    for (int kind = 0; kind < SCHED_TOLD_KINDS; kind++) {
        at_map_free(s->told[kind]);
    }
    at_map_free(s->gangs);
    at_map_free(s->available);
    at_map_free(s->keeps);
    at_free(s->nodes);
    at_free(s->by_rank);
    at_free(s->sites);
    at_free(s->pending);
    at_free(s->log);
    at_free(s->turn.sites);
    at_free(s->turn.apart);
    at_free(sched);
}

size_t at_scheduler_pending(const struct at_scheduler *sched)
{
    return sched->s.n_pending;
}

bool at_scheduler_gangs_wait(const struct at_scheduler *sched)
{
    return sched->s.n_pending > 0 && at_map_count(sched->s.gangs) > 0;
}

bool at_scheduler_budgets_wait(const struct at_scheduler *sched)
{
    return sched->s.n_pending > 0 && at_map_count(sched->s.keeps) > 0;
}

bool at_scheduler_names_queues(const struct at_scheduler *sched)
{
    return sched->s.n_queued > 0;
}

void at_scheduler_forget(struct at_scheduler *sched, const char *ns, const char *name)
{
    struct sched_item *item = sched_item_find(&sched->s, ns, name);
    if (item != NULL) {
        sched_victim_set(&sched->s, item, false);
    }
    if (item != NULL && item->planned) {
        sched_item_release(&sched->s, item);
        sched_pending_set(&sched->s, item, item->instance->meta.deletion_wall_ns == 0);
    }
}
