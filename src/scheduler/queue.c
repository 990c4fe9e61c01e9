/* The tree of queues and cohorts, and what runs in it.
 *
 * Quota in a tree: a node's subtree quota is its own and what its members lend; it keeps what its
 * lending limit holds back and stores the rest with its parent. Usage fills what is kept first and
 * goes up from there, so that each addition costs the depth of the tree. The same arithmetic as in
 * Kueue's hierarchical cohorts (KEP-79). */
#include "scheduler/queue_priv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define AMOUNT_CEILING (INT64_C(1) << 61) /* sums stay below it */

static int64_t plus(int64_t a, int64_t b)
{
    int64_t sum = a + b; /* each below 2^61 */
    return sum < AMOUNT_CEILING ? sum : AMOUNT_CEILING;
}

static int64_t above_zero(int64_t a)
{
    return a > 0 ? a : 0;
}

int64_t queue_cell_available(const struct queue_cell *cell, enum queue_column column)
{
    if (cell->up == NULL) {
        return cell->subtree - cell->used[column];
    }
    int64_t own = above_zero(cell->kept - cell->used[column]);
    int64_t others = queue_cell_available(cell->up, column);
    if (cell->borrow >= 0) {
        int64_t stored = cell->subtree - cell->kept;
        int64_t used_there = above_zero(cell->used[column] - cell->kept);
        int64_t most = plus(stored, cell->borrow) - used_there;
        others = others < most ? others : most;
    }
    return own + others;
}

void queue_cell_add(struct queue_cell *cell, int64_t amount, enum queue_column column)
{
    int64_t own = above_zero(cell->kept - cell->used[column]);
    cell->used[column] += amount;
    if (cell->up != NULL && amount > own) {
        queue_cell_add(cell->up, amount - own, column);
    }
}

void queue_cell_remove(struct queue_cell *cell, int64_t amount, enum queue_column column)
{
    int64_t there = above_zero(cell->used[column] - cell->kept);
    cell->used[column] -= amount;
    assert(cell->used[column] >= 0);
    if (cell->up != NULL && there > 0) {
        queue_cell_remove(cell->up, amount < there ? amount : there, column);
    }
}

int64_t queue_share(const struct queue_node *node, enum queue_column column)
{
    int64_t share = 0;
    for (size_t i = 0; i < node->n_cells; i++) {
        const struct queue_cell *c = node->cells[i];
        int64_t borrowed = c->up != NULL ? c->used[column] - c->subtree : 0;
        if (borrowed <= 0) {
            continue;
        }
        __int128 of = c->up->subtree > 0 ? c->up->subtree : 1;
        __int128 s = (__int128)borrowed * AT_QUEUE_SHARE_ONE / (of * node->weight);
        s = s < AT_QUEUE_SHARE_MAX ? s : AT_QUEUE_SHARE_MAX;
        share = s > share ? (int64_t)s : share;
    }
    return share;
}

int64_t queue_amount(const struct sched_demand *d, const char *resource)
{
    if (at_streq(resource, "cpu")) {
        return d->cpu_milli;
    }
    if (at_streq(resource, "memory")) {
        return d->memory_bytes;
    }
    if (at_streq(resource, "disk")) {
        return d->disk_bytes;
    }
    if (at_streq(resource, "gpu")) {
        return d->gpu_count * d->gpu_milli;
    }
    const char *text = d->extended != NULL ? at_model_map_get(d->extended, resource) : NULL;
    return text != NULL ? sched_amount(text) : 0;
}

/* --- the tree --- */

static const char *copy(struct at_queue_book *b, const char *s)
{
    if (s == NULL || s[0] == '\0') {
        return NULL;
    }
    const char *c = at_arena_strdup(b->arena, s);
    assert(c != NULL);
    return c;
}

static void *make(struct at_queue_book *b, size_t bytes)
{
    void *p = at_arena_alloc(b->arena, bytes);
    assert(p != NULL); /* queues are few and their sizes are limited by the schema */
    return p;
}

static struct queue_node *node_get(struct at_queue_book *b, const char *name)
{
    struct queue_node *node = at_map_get(b->by_name, name);
    if (node == NULL) {
        node = make(b, sizeof(*node));
        node->name = copy(b, name);
        node->weight = 1;
        node->reclaim = node->fair_share = "Any";
        node->within_queue = true;
        node->index = b->n_nodes;
        b->nodes[b->n_nodes++] = node;
        (void)at_map_put(b->by_name, name, node);
    }
    return node;
}

static const char *place_text(struct at_queue_book *b, const struct at_queue_quota *q)
{
    const char *text = at_arena_printf(
        b->arena, "%s%s%s%s%s%s", queue_text(q->site)[0] ? ", site " : "", queue_text(q->site),
        queue_text(q->site_class)[0] ? ", class " : "", queue_text(q->site_class),
        queue_text(q->gpu_model)[0] ? ", model " : "", queue_text(q->gpu_model));
    assert(text != NULL);
    return text[0] != '\0' ? text + 2 : text;
}

static struct queue_cell *cell_add(struct at_queue_book *b, struct queue_node *node,
                                   const char *place, const char *resource)
{
    if (node->n_cells == node->cap_cells) {
        struct queue_cell **old = node->cells;
        node->cap_cells = node->cap_cells > 0 ? 2 * node->cap_cells : 8;
        node->cells = make(b, node->cap_cells * sizeof(*node->cells));
        for (size_t i = 0; i < node->n_cells; i++) {
            node->cells[i] = old[i];
        }
    }
    struct queue_cell *cell = make(b, sizeof(*cell));
    *cell = (struct queue_cell){
        .node = node, .place = place, .resource = resource, .borrow = -1, .lend = -1};
    node->cells[node->n_cells++] = cell;
    return cell;
}

static int64_t limit(const char *resource, const char *text, int64_t absent)
{
    int64_t amount;
    return text != NULL && at_model_amount_parse(resource, text, &amount, NULL) == AT_OK ? amount
                                                                                         : absent;
}

static void load_quotas(struct at_queue_book *b, struct queue_node *node,
                        const struct at_queue_spec *spec)
{
    node->n_quotas = spec->quotas.n;
    node->quotas = make(b, (node->n_quotas + 1) * sizeof(*node->quotas));
    for (size_t i = 0; i < node->n_quotas; i++) {
        const struct at_queue_quota *from = &spec->quotas.items[i];
        struct queue_quota *q = &node->quotas[i];
        const char *place = place_text(b, from);
        q->site = copy(b, from->site);
        q->site_class = copy(b, from->site_class);
        q->gpu_model = copy(b, from->gpu_model);
        for (size_t k = 0; k < from->resources.n && q->n < QUEUE_CELLS_MAX; k++) {
            const struct at_queue_resource *r = &from->resources.items[k];
            struct queue_cell *cell = cell_add(b, node, place, copy(b, r->name));
            cell->nominal = limit(r->name, r->nominal, 0);
            cell->borrow = limit(r->name, r->borrowing_limit, -1);
            cell->lend = limit(r->name, r->lending_limit, -1);
            q->cells[q->n++] = cell;
        }
        node->widest = q->n > node->widest ? q->n : node->widest;
    }
}

static void load_queue(struct at_queue_book *b, const struct at_queue *queue)
{
    const struct at_queue_spec *spec = &queue->spec;
    struct queue_node *node = node_get(b, queue->meta.name);
    node->is_queue = true;
    node->weight = spec->weight > 0 ? spec->weight : 1;
    node->strict = at_streq(spec->ordering, "StrictFIFO");
    node->drains = at_streq(spec->stop_policy, "HoldAndDrain");
    node->stopped = node->drains || at_streq(spec->stop_policy, "Hold");
    if (spec->preemption != NULL) {
        const struct at_queue_preemption *p = spec->preemption;
        node->within_queue = !at_streq(p->within_queue, "Never");
        node->reclaim = p->reclaim != NULL ? copy(b, p->reclaim) : "Any";
        node->fair_share = p->fair_share != NULL ? copy(b, p->fair_share) : "Any";
    }
    node->n_namespaces = spec->namespaces.n;
    node->namespaces = make(b, (spec->namespaces.n + 1) * sizeof(*node->namespaces));
    for (size_t i = 0; i < spec->namespaces.n; i++) {
        node->namespaces[i] = queue_text(copy(b, spec->namespaces.items[i]));
    }
    load_quotas(b, node, spec);
    if (queue_text(spec->cohort)[0] != '\0') {
        node->parent = node_get(b, spec->cohort);
    }
}

static int by_depth(const void *a, const void *b)
{
    const struct queue_node *x = *(const struct queue_node *const *)a;
    const struct queue_node *y = *(const struct queue_node *const *)b;
    if (x->depth != y->depth) {
        return x->depth > y->depth ? -1 : 1;
    }
    return x->index < y->index ? -1 : x->index > y->index;
}

/* A queue whose cohorts name each other in a circle, or that is too deep, stands alone and admits
 * nothing. */
static void check_depth(struct at_queue_book *b)
{
    for (size_t i = 0; i < b->n_nodes; i++) {
        struct queue_node *node = b->nodes[i];
        const struct queue_node *up = node;
        while (up != NULL && node->depth <= AT_QUEUE_DEPTH_MAX) {
            node->depth++;
            up = up->parent;
        }
        if (up != NULL) {
            node->problem = "its cohorts form a circle, or a tree that is too deep";
        }
    }
    for (size_t i = 0; i < b->n_nodes; i++) {
        if (b->nodes[i]->problem != NULL) {
            b->nodes[i]->parent = NULL;
            b->nodes[i]->depth = 1;
        }
    }
}

static struct queue_cell *cell_find(struct queue_node *node, const char *place,
                                    const char *resource)
{
    for (size_t i = 0; i < node->n_cells; i++) {
        if (at_streq(node->cells[i]->place, place) &&
            at_streq(node->cells[i]->resource, resource)) {
            return node->cells[i];
        }
    }
    return NULL;
}

/* Deepest first, so that a node's cells are complete before its parent takes them up. */
static void link_tree(struct at_queue_book *b)
{
    struct queue_node **order = make(b, (b->n_nodes + 1) * sizeof(*order));
    for (size_t i = 0; i < b->n_nodes; i++) {
        order[i] = b->nodes[i];
        if (b->nodes[i]->parent != NULL) {
            b->nodes[i]->parent->n_children++;
        }
    }
    for (size_t i = 0; i < b->n_nodes; i++) {
        struct queue_node *node = b->nodes[i];
        node->children = make(b, (node->n_children + 1) * sizeof(*node->children));
        node->heap = make(b, (node->n_children + 1) * sizeof(*node->heap));
        node->n_children = 0;
    }
    qsort(order, b->n_nodes, sizeof(struct queue_node *), by_depth);
    for (size_t i = 0; i < b->n_nodes; i++) {
        struct queue_node *node = order[i];
        struct queue_node *parent = node->parent;
        if (parent != NULL) {
            parent->children[parent->n_children++] = node;
        }
        for (size_t k = 0; k < node->n_cells; k++) {
            struct queue_cell *c = node->cells[k];
            c->subtree = plus(c->subtree, c->nominal); /* members have added theirs */
            c->kept = c->lend >= 0 && parent != NULL ? above_zero(c->subtree - c->lend) : 0;
            if (parent != NULL) {
                c->up = cell_find(parent, c->place, c->resource);
                c->up = c->up != NULL ? c->up : cell_add(b, parent, c->place, c->resource);
                c->up->subtree = plus(c->up->subtree, c->subtree - c->kept);
            }
        }
    }
    for (size_t i = b->n_nodes; i-- > 0;) { /* from the roots */
        for (size_t k = 0; k < order[i]->n_cells; k++) {
            struct queue_cell *c = order[i]->cells[k];
            int64_t others = c->up != NULL ? c->up->most : c->subtree;
            int64_t own_most = plus(c->subtree - c->kept, above_zero(c->borrow));
            others = c->up != NULL && c->borrow >= 0 && own_most < others ? own_most : others;
            c->most = plus(c->kept, others);
        }
    }
}

/* --- what runs --- */

const char *at_queue_name_of(const struct at_snapshot *snap, const struct at_instance *instance)
{
    if (queue_text(instance->spec.queue)[0] != '\0') {
        return instance->spec.queue;
    }
    const struct at_namespace *ns = at_snapshot_namespace(snap, instance->meta.ns);
    const char *name = ns != NULL ? at_model_map_get(&ns->meta.labels, AT_QUEUE_LABEL) : NULL;
    return queue_text(name)[0] != '\0' ? name : NULL;
}

static bool one_of(const struct at_model_strings *list, const char *s)
{
    return list->n == 0 || sched_strings_have(list, queue_text(s));
}

static bool class_reachable(const struct at_snapshot *snap, const struct at_placement *p,
                            const char *class)
{
    if (!one_of(&p->site_classes, class)) {
        return false;
    }
    for (size_t i = 0; i < p->sites.n; i++) {
        const struct at_site *site = at_snapshot_site(snap, p->sites.items[i]);
        if (site != NULL && at_streq(site->spec.class, class)) {
            return true;
        }
    }
    return p->sites.n == 0;
}

static bool site_reachable(const struct at_snapshot *snap, const struct at_placement *p,
                           const char *name)
{
    const struct at_site *site = at_snapshot_site(snap, name);
    return one_of(&p->sites, name) &&
           (site == NULL || (one_of(&p->site_classes, site->spec.class) &&
                             one_of(&p->jurisdictions, site->spec.jurisdiction)));
}

bool queue_applies(const struct queue_quota *quota, const struct at_snapshot *snap,
                   const struct at_workload *spec, bool *ret_no_gpu)
{
    const struct at_placement *p = spec->placement;
    *ret_no_gpu = false;
    if (p != NULL && quota->site != NULL && !site_reachable(snap, p, quota->site)) {
        return false;
    }
    if (p != NULL && quota->site_class != NULL && !class_reachable(snap, p, quota->site_class)) {
        return false;
    }
    if (quota->gpu_model == NULL) {
        return true;
    }
    if (spec->resources == NULL || spec->resources->gpu_milli <= 0) {
        *ret_no_gpu = true;
        return false;
    }
    return one_of(&spec->resources->gpu_models, quota->gpu_model);
}

static bool has_model(const struct at_node *node, const char *model)
{
    for (size_t i = 0; i < node->status.gpus.n; i++) {
        if (at_streq(node->status.gpus.items[i].model, model)) {
            return true;
        }
    }
    return false;
}

/* The quota that a bound instance uses: by where it is. */
static const struct queue_quota *quota_of_bound(const struct queue_node *queue,
                                                const struct at_snapshot *snap,
                                                const struct at_instance *i)
{
    const struct at_node *node = at_snapshot_node(snap, i->spec.node_name);
    const char *site_name = node != NULL ? node->spec.site : i->status.site;
    const struct at_site *site = at_snapshot_site(snap, site_name);
    bool with_gpu = i->spec.resources != NULL && i->spec.resources->gpu_milli > 0;
    for (size_t k = 0; k < queue->n_quotas; k++) {
        const struct queue_quota *q = &queue->quotas[k];
        if ((q->site == NULL || at_streq(q->site, site_name)) &&
            (q->site_class == NULL ||
             (site != NULL && at_streq(q->site_class, site->spec.class))) &&
            (q->gpu_model == NULL || (with_gpu && node != NULL && has_model(node, q->gpu_model)))) {
            return q;
        }
    }
    return NULL;
}

void queue_rec_count(struct queue_rec *rec, int sign, enum queue_column column)
{
    for (size_t i = 0; rec->quota != NULL && i < rec->quota->n; i++) {
        if (sign > 0) {
            queue_cell_add(rec->quota->cells[i], rec->amounts[i], column);
        } else {
            queue_cell_remove(rec->quota->cells[i], rec->amounts[i], column);
        }
    }
}

static void rec_drop(struct at_queue_book *b, const char *key)
{
    struct queue_rec *rec = at_map_remove(b->recs, key);
    if (rec == NULL) {
        return;
    }
    queue_rec_count(rec, -1, QUEUE_RUNS);
    *(rec->prev != NULL ? &rec->prev->next : &rec->node->recs) = rec->next;
    if (rec->next != NULL) {
        rec->next->prev = rec->prev;
    }
    if (rec->leaving) {
        *(rec->prev_leaving != NULL ? &rec->prev_leaving->next_leaving : &b->leaving) =
            rec->next_leaving;
        if (rec->next_leaving != NULL) {
            rec->next_leaving->prev_leaving = rec->prev_leaving;
        }
    }
    assert(rec->node->n_recs > 0);
    rec->node->n_recs--;
    at_free(rec);
}

static struct queue_rec *rec_new(const struct at_instance *i, size_t n_amounts)
{
    const struct at_owner_ref *owner = at_meta_controller(&i->meta);
    const char *parts[] = {queue_text(i->meta.ns), i->meta.name,
                           owner != NULL ? queue_text(owner->uid) : "",
                           i->spec.gang != NULL ? queue_text(i->spec.gang->name) : ""};
    size_t len[4];
    size_t bytes = sizeof(struct queue_rec) + n_amounts * sizeof(int64_t);
    for (size_t k = 0; k < 4; k++) {
        len[k] = strlen(parts[k]) + 1;
        bytes += len[k];
    }
    struct queue_rec *rec = at_alloc(bytes);
    const char *texts[4];
    rec->amounts = (int64_t *)(rec + 1);
    char *at = (char *)(rec->amounts + n_amounts);
    for (size_t k = 0; k < 4; k++) {
        texts[k] = memcpy(at, parts[k], len[k]);
        at += len[k];
    }
    rec->ns = texts[0];
    rec->name = texts[1];
    rec->owner_uid = texts[2];
    rec->gang = texts[3][0] != '\0' ? texts[3] : NULL;
    return rec;
}

static void rec_add(struct at_queue_book *b, const struct at_snapshot *snap, const char *key,
                    const struct at_instance *i, struct queue_node *node)
{
    const struct queue_quota *quota = quota_of_bound(node, snap, i);
    struct queue_rec *rec = rec_new(i, quota != NULL ? quota->n : 0);
    struct sched_demand d = sched_demand_of(&i->spec);
    rec->node = node;
    rec->quota = quota;
    rec->priority = i->spec.priority;
    rec->start_wall_ns = i->status.scheduled_at_wall_ns;
    rec->leaving = i->meta.deletion_wall_ns != 0;
    for (size_t k = 0; rec->quota != NULL && k < rec->quota->n; k++) {
        rec->amounts[k] = queue_amount(&d, rec->quota->cells[k]->resource);
    }
    rec->next = node->recs;
    if (rec->next != NULL) {
        rec->next->prev = rec;
    }
    node->recs = rec;
    node->n_recs++;
    if (rec->leaving) {
        rec->next_leaving = b->leaving;
        if (b->leaving != NULL) {
            b->leaving->prev_leaving = rec;
        }
        b->leaving = rec;
    }
    queue_rec_count(rec, +1, QUEUE_RUNS);
    (void)at_map_put(b->recs, key, rec);
}

void at_queue_book_note(struct at_queue_book *b, const struct at_snapshot *snap, const char *ns,
                        const char *name)
{
    AT_CLEANUP(at_cleanup_free) char *key = at_asprintf("%s/%s", queue_text(ns), name);
    const struct at_instance *i = at_snapshot_instance(snap, ns, name);
    rec_drop(b, key);
    if (i == NULL || !sched_instance_holds(i)) {
        return;
    }
    const char *queue = at_queue_name_of(snap, i);
    struct queue_node *node = queue != NULL ? at_map_get(b->by_name, queue) : NULL;
    if (node != NULL && node->is_queue) {
        rec_add(b, snap, key, i, node);
    }
}

struct at_queue_book *at_queue_book_new(const struct at_snapshot *snap)
{
    struct at_queue_book *b = AT_NEW(struct at_queue_book);
    b->arena = at_arena_new(SIZE_MAX);
    b->by_name = at_map_new();
    b->recs = at_map_new();
    b->nodes = make(b, (2 * snap->n_queues + 1) * sizeof(*b->nodes));
    for (size_t i = 0; i < snap->n_queues; i++) {
        if (snap->queues[i]->meta.deletion_wall_ns == 0) {
            load_queue(b, snap->queues[i]);
        }
    }
    check_depth(b);
    link_tree(b);
    for (size_t i = 0; i < snap->n_instances; i++) {
        at_queue_book_note(b, snap, snap->instances[i]->meta.ns, snap->instances[i]->meta.name);
    }
    return b;
}

void at_queue_book_free(struct at_queue_book *b)
{
    if (b == NULL) {
        return;
    }
    const char *key;
    void *rec;
    for (size_t it = 0; at_map_next(b->recs, &it, &key, &rec);) {
        at_free(rec);
    }
    at_map_free(b->recs);
    at_map_free(b->by_name);
    at_arena_free(b->arena);
    at_free(b);
}

bool at_queue_book_use(const struct at_queue_book *b, const char *queue, struct at_arena *arena,
                       struct at_queue_use *ret_use)
{
    const struct queue_node *node = at_map_get(b->by_name, queue);
    if (node == NULL || !node->is_queue) {
        return false;
    }
    struct at_queue_use use = {.problem = node->problem,
                               .share = queue_share(node, QUEUE_RUNS),
                               .running = node->n_recs,
                               .waiting = node->waiting,
                               .n_cells = node->n_cells};
    use.cells = at_arena_alloc(arena, (node->n_cells + 1) * sizeof(*use.cells));
    if (use.cells == NULL) {
        return false;
    }
    for (size_t i = 0; i < node->n_cells; i++) {
        const struct queue_cell *c = node->cells[i];
        use.cells[i] = (struct at_queue_cell){
            .place = c->place,
            .resource = c->resource,
            .nominal = c->subtree,
            .used = c->used[QUEUE_RUNS],
            .borrowed = above_zero(c->used[QUEUE_RUNS] - c->subtree),
            .available = above_zero(queue_cell_available(c, QUEUE_RUNS)),
        };
    }
    *ret_use = use;
    return true;
}
