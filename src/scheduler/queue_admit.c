/* Admission: whose turn it is, and whether quota is there. */
#include "scheduler/queue_priv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static const char *const REASONS[AT_QUEUE_REASON_COUNT] = {
    [AT_QUEUE_ADMITTED] = "Admitted",          [AT_QUEUE_NONE] = "NoQueue",
    [AT_QUEUE_MISSING] = "QueueNotFound",      [AT_QUEUE_FORBIDDEN] = "QueueForbidden",
    [AT_QUEUE_STOPPED] = "QueueStopped",       [AT_QUEUE_LOOP] = "QueueCohortLoop",
    [AT_QUEUE_NO_QUOTA] = "QuotaMissing",      [AT_QUEUE_NEVER] = "QuotaTooSmall",
    [AT_QUEUE_EXHAUSTED] = "QuotaExhausted",   [AT_QUEUE_BEHIND] = "QueuedBehind",
    [AT_QUEUE_RECLAIMING] = "QuotaReclaiming",
};

const char *at_queue_reason_name(enum at_queue_reason reason)
{
    assert(reason < AT_QUEUE_REASON_COUNT);
    return REASONS[reason];
}

static bool may_be_placed(enum at_queue_reason reason)
{
    return reason == AT_QUEUE_ADMITTED || reason == AT_QUEUE_NONE;
}

void queue_verdict(struct queue_pass *p, const struct queue_item *item, enum at_queue_reason reason,
                   const char *message, const struct at_queue_lack *lack)
{
    p->exhausted = p->exhausted || (message == NULL && !may_be_placed(reason));
    for (size_t i = 0; i < item->n; i++) {
        struct at_queue_verdict *v = &p->verdicts[item->at[i]];
        v->reason = reason;
        v->message = message;
        v->lack = lack != NULL ? *lack : (struct at_queue_lack){0};
        if (reason == AT_QUEUE_ADMITTED) {
            v->site = item->quota != NULL ? item->quota->site : NULL;
            v->site_class = item->quota != NULL ? item->quota->site_class : NULL;
            v->gpu_model = item->quota != NULL ? item->quota->gpu_model : NULL;
            p->admitted[p->n_admitted++] = item->at[i];
        }
    }
}

/* --- items --- */

static bool item_amounts(struct queue_item *item, const struct queue_quota *quota)
{
    item->quota = quota;
    memset(item->amounts, 0, quota->n * sizeof(*item->amounts));
    for (size_t m = 0; m < item->n; m++) {
        struct sched_demand d = sched_demand_of(&item->members[m]->spec);
        for (size_t i = 0; i < quota->n; i++) {
            item->amounts[i] += queue_amount(&d, quota->cells[i]->resource);
        }
    }
    for (size_t i = 0; i < quota->n; i++) {
        if (item->amounts[i] > quota->cells[i]->most) {
            return false; /* it could never have that */
        }
    }
    return true;
}

void queue_item_count(struct queue_item *item, int sign, enum queue_column column)
{
    for (size_t i = 0; item->quota != NULL && i < item->quota->n; i++) {
        if (sign > 0) {
            queue_cell_add(item->quota->cells[i], item->amounts[i], column);
        } else {
            queue_cell_remove(item->quota->cells[i], item->amounts[i], column);
        }
    }
}

static bool item_applies(const struct queue_pass *p, const struct queue_item *item,
                         const struct queue_quota *quota, bool *ret_no_gpu)
{
    *ret_no_gpu = false;
    for (size_t m = 0; m < item->n; m++) {
        if (!queue_applies(quota, p->snap, &item->members[m]->spec, ret_no_gpu)) {
            return false;
        }
    }
    return true;
}

static bool room_for(const struct queue_item *item, enum queue_column column)
{
    for (size_t i = 0; i < item->quota->n; i++) {
        if (item->amounts[i] > 0 &&
            queue_cell_available(item->quota->cells[i], column) < item->amounts[i]) {
            return false;
        }
    }
    return true;
}

static bool within_nominal(const struct queue_item *item)
{
    for (size_t i = 0; i < item->quota->n; i++) {
        const struct queue_cell *c = item->quota->cells[i];
        if (item->amounts[i] > 0 && c->used[QUEUE_FUTURE] + item->amounts[i] > c->subtree) {
            return false;
        }
    }
    return true;
}

enum fit {
    FIT_NOW,
    FIT_SOON,  /* once what is ending has ended */
    FIT_OWNED, /* what it wants belongs to its queue, and is lent out */
    FIT_WAITS, /* for others to end */
    FIT_NEVER,
    FIT_NOWHERE /* no quota applies */
};

/* The best of its quotas, the first among equals, is left chosen. */
static enum fit choose_quota(const struct queue_pass *p, struct queue_item *item)
{
    const struct queue_node *node = item->node;
    enum fit best = FIT_NOWHERE;
    const struct queue_quota *chosen = NULL;
    bool only_gpus = node->n_quotas > 0;
    for (size_t i = 0; i < node->n_quotas && best != FIT_NOW; i++) {
        bool no_gpu;
        if (!item_applies(p, item, &node->quotas[i], &no_gpu)) {
            only_gpus = only_gpus && no_gpu;
            continue;
        }
        only_gpus = false;
        enum fit fit = !item_amounts(item, &node->quotas[i]) ? FIT_NEVER
                       : room_for(item, QUEUE_PRESENT)       ? FIT_NOW
                       : room_for(item, QUEUE_FUTURE)        ? FIT_SOON
                       : within_nominal(item)                ? FIT_OWNED
                                                             : FIT_WAITS;
        if (fit < best) {
            best = fit;
            chosen = &node->quotas[i];
        }
    }
    item->quota = NULL;
    if (chosen != NULL) {
        (void)item_amounts(item, chosen);
    } else if (only_gpus) {
        return FIT_NOW; /* nothing that it wants is limited */
    }
    return best;
}

static int by_turn(const void *a, const void *b)
{
    const struct queue_item *x = a;
    const struct queue_item *y = b;
    if (x->node != y->node) {
        return x->node->index < y->node->index ? -1 : 1;
    }
    if (x->priority != y->priority) {
        return x->priority > y->priority ? -1 : 1;
    }
    if (x->created_wall_ns != y->created_wall_ns) {
        return x->created_wall_ns < y->created_wall_ns ? -1 : 1;
    }
    int c = strcmp(queue_text(x->members[0]->meta.ns), queue_text(y->members[0]->meta.ns));
    return c != 0 ? c : strcmp(x->members[0]->meta.name, y->members[0]->meta.name);
}

/* --- whose turn: a heap at each cohort, by the share that its members would have --- */

static bool goes_first(const struct queue_node *a, const struct queue_node *b)
{
    if (a->best_share != b->best_share) {
        return a->best_share < b->best_share;
    }
    const struct queue_item *x = a->best;
    const struct queue_item *y = b->best;
    if (x->priority != y->priority) {
        return x->priority > y->priority;
    }
    if (x->created_wall_ns != y->created_wall_ns) {
        return x->created_wall_ns < y->created_wall_ns;
    }
    return strcmp(a->name, b->name) < 0;
}

static void heap_put(struct queue_node *parent, size_t at, struct queue_node *child)
{
    parent->heap[at] = child;
    child->heap_at = at + 1;
}

static void heap_sift(struct queue_node *parent, size_t at)
{
    struct queue_node *child = parent->heap[at];
    while (at > 0 && goes_first(child, parent->heap[(at - 1) / 2])) {
        heap_put(parent, at, parent->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (;;) {
        size_t down = 2 * at + 1;
        if (down + 1 < parent->n_heap && goes_first(parent->heap[down + 1], parent->heap[down])) {
            down++;
        }
        if (down >= parent->n_heap || !goes_first(parent->heap[down], child)) {
            break;
        }
        heap_put(parent, at, parent->heap[down]);
        at = down;
    }
    heap_put(parent, at, child);
}

static void heap_update(struct queue_node *parent, struct queue_node *child)
{
    if (child->best == NULL && child->heap_at > 0) {
        size_t at = child->heap_at - 1;
        struct queue_node *last = parent->heap[--parent->n_heap];
        child->heap_at = 0;
        if (last != child) {
            heap_put(parent, at, last);
            heap_sift(parent, at);
        }
    } else if (child->best != NULL) {
        if (child->heap_at == 0) {
            heap_put(parent, parent->n_heap++, child);
        }
        heap_sift(parent, child->heap_at - 1);
    }
}

/* What it waits for is held for it: nobody else gets it meanwhile. */
static void reserve(struct queue_item *item)
{
    queue_item_count(item, +1, QUEUE_PRESENT);
    queue_item_count(item, +1, QUEUE_FUTURE);
    item->reserved = true;
}

static void hold(struct queue_pass *p, struct queue_item *item, enum fit fit)
{
    struct queue_node *node = item->node;
    struct at_queue_lack lack = {0};
    const char *queue = node->name;
    if (fit == FIT_NOWHERE) {
        queue_verdict(p, item, AT_QUEUE_NO_QUOTA,
                      at_arena_printf(p->arena, "queue %s: no quota for where it may run", queue),
                      NULL);
        return;
    }
    const char *message = queue_lack_message(p, item, &lack);
    if (fit == FIT_NEVER) {
        queue_verdict(p, item, AT_QUEUE_NEVER, message, &lack);
        return;
    }
    bool first = node->claim == NULL;
    if (first) {
        node->claim = item;
    }
    if (first && (fit == FIT_SOON || fit == FIT_OWNED)) {
        reserve(item);
    }
    if (fit == FIT_SOON && first) {
        message = message == NULL
                      ? NULL
                      : at_arena_printf(p->arena, "%s; waiting for others to end", message);
        queue_verdict(p, item, AT_QUEUE_RECLAIMING, message, &lack);
    } else {
        queue_verdict(p, item, AT_QUEUE_EXHAUSTED, message, &lack);
    }
    int64_t waited = p->now_wall_ns - item->created_wall_ns;
    node->blocked = node->blocked || node->strict || waited >= AT_QUEUE_PATIENCE_NS;
}

/* The first of its own that fits; those that do not are held on the way. */
static void find_head(struct queue_pass *p, struct queue_node *node)
{
    node->head = NULL;
    while (node->next < node->n_items && !node->blocked && node->head == NULL) {
        struct queue_item *item = &node->items[node->next];
        enum fit fit = choose_quota(p, item);
        if (fit == FIT_NOW) {
            node->head = item;
        } else {
            node->next++;
            hold(p, item, fit);
        }
    }
}

/* Its best: its own first in line, which owns before members borrow, or that of its members. */
static void choose_best(struct queue_node *node)
{
    node->best = node->head;
    if (node->best == NULL && node->n_heap > 0) {
        node->best = node->heap[0]->best;
    }
    if (node->best != NULL) {
        queue_item_count(node->best, +1, QUEUE_FUTURE);
        node->best_share = queue_share(node, QUEUE_FUTURE);
        queue_item_count(node->best, -1, QUEUE_FUTURE);
    }
}

static void refresh(struct queue_node *node)
{
    for (; node != NULL; node = node->parent) {
        choose_best(node);
        if (node->parent != NULL) {
            heap_update(node->parent, node);
        }
    }
}

static void admit_tree(struct queue_pass *p, struct queue_node *root)
{
    while (root->best != NULL) {
        struct queue_item *item = root->best;
        const struct queue_quota *quota = item->quota;
        struct queue_node *node = item->node;
        find_head(p, node); /* others may have taken what it was to get */
        if (node->head == item && item->quota == quota) {
            queue_item_count(item, +1, QUEUE_PRESENT);
            queue_item_count(item, +1, QUEUE_FUTURE);
            queue_verdict(p, item, AT_QUEUE_ADMITTED, NULL, NULL);
            node->next++;
            find_head(p, node);
        }
        refresh(node);
    }
}

/* Whoever stands behind one that must not be overtaken. */
static void hold_rest(struct queue_pass *p, struct queue_node *node)
{
    if (node->next >= node->n_items) {
        return;
    }
    const struct at_instance *first = node->claim->members[0];
    const char *why = node->strict ? " (StrictFIFO)" : ", which has waited long";
    const char *own = at_arena_printf(p->arena, "queue %s: waits behind %s/%s%s", node->name,
                                      queue_text(first->meta.ns), first->meta.name, why);
    const char *others = at_arena_printf(
        p->arena, "queue %s: waits behind an instance of another namespace%s", node->name, why);
    for (; node->next < node->n_items; node->next++) {
        const struct queue_item *item = &node->items[node->next];
        bool same = at_streq(item->members[0]->meta.ns, first->meta.ns);
        queue_verdict(p, item, AT_QUEUE_BEHIND, same ? own : others, NULL);
    }
}

/* --- the pass --- */

static void begin_columns(struct at_queue_book *b)
{
    for (size_t i = 0; i < b->n_nodes; i++) {
        struct queue_node *node = b->nodes[i];
        for (size_t k = 0; k < node->n_cells; k++) {
            struct queue_cell *c = node->cells[k];
            c->used[QUEUE_PRESENT] = c->used[QUEUE_FUTURE] = c->used[QUEUE_RUNS];
        }
        node->items = NULL;
        node->waiting = 0;
        node->n_items = node->next = node->n_heap = node->heap_at = 0;
        node->head = node->claim = node->best = NULL;
        node->blocked = false;
        node->by_worth = NULL;
        node->n_by_worth = 0;
    }
    for (struct queue_rec *rec = b->leaving; rec != NULL; rec = rec->next_leaving) {
        queue_rec_count(rec, -1, QUEUE_FUTURE);
    }
}

static bool namespace_allowed(const struct queue_node *node, const char *ns)
{
    bool allowed = node->n_namespaces == 0;
    for (size_t i = 0; i < node->n_namespaces && !allowed; i++) {
        allowed = at_streq(node->namespaces[i], queue_text(ns));
    }
    return allowed;
}

/* Why instances of this queue are not even looked at. NULL: they are. */
static const char *refused(struct queue_pass *p, const char *queue, const struct queue_node *node,
                           const char *ns, enum at_queue_reason *ret_reason)
{
    if (node == NULL || !node->is_queue) {
        *ret_reason = AT_QUEUE_MISSING;
        return at_arena_printf(p->arena, "queue %s does not exist", queue);
    }
    if (node->problem != NULL) {
        *ret_reason = AT_QUEUE_LOOP;
        return at_arena_printf(p->arena, "queue %s admits nothing: %s", queue, node->problem);
    }
    if (!namespace_allowed(node, ns)) {
        *ret_reason = AT_QUEUE_FORBIDDEN;
        return at_arena_printf(p->arena, "namespace %s may not use queue %s", queue_text(ns),
                               queue);
    }
    if (node->stopped) {
        *ret_reason = AT_QUEUE_STOPPED;
        return at_arena_printf(p->arena, "queue %s is stopped (stopPolicy)", queue);
    }
    return NULL;
}

static bool item_init(struct queue_pass *p, struct queue_item *item, struct queue_node *node,
                      size_t room)
{
    item->node = node;
    item->members = at_arena_alloc(p->arena, room * sizeof(*item->members));
    item->at = at_arena_alloc(p->arena, room * sizeof(*item->at));
    item->amounts = at_arena_alloc(p->arena, (node->widest + 1) * sizeof(*item->amounts));
    return item->members != NULL && item->at != NULL && item->amounts != NULL;
}

static void item_join(struct queue_item *item, const struct at_instance *i, size_t at)
{
    bool first = item->n == 0;
    if (first || i->spec.priority > item->priority) {
        item->priority = i->spec.priority;
    }
    if (first || i->meta.creation_wall_ns < item->created_wall_ns) {
        item->created_wall_ns = i->meta.creation_wall_ns;
    }
    item->members[item->n] = i;
    item->at[item->n++] = at;
}

struct pending {
    const struct at_instance *instance;
    struct queue_node *node;
    size_t at;
};

static int by_gang(const void *a, const void *b)
{
    const struct pending *x = a;
    const struct pending *y = b;
    int c = strcmp(queue_text(x->instance->meta.ns), queue_text(y->instance->meta.ns));
    c = c != 0 ? c : strcmp(x->instance->spec.gang->name, y->instance->spec.gang->name);
    if (c == 0 && x->node != y->node) {
        c = x->node->index < y->node->index ? -1 : 1;
    }
    return c != 0 ? c : strcmp(x->instance->meta.name, y->instance->meta.name);
}

static bool same_gang(const struct pending *x, const struct pending *y)
{
    return x->node == y->node && at_streq(x->instance->meta.ns, y->instance->meta.ns) &&
           at_streq(x->instance->spec.gang->name, y->instance->spec.gang->name);
}

/* Singles one by one, gangs whole. list: gangs are moved to its front. */
static bool make_items(struct queue_pass *p, struct pending *list, size_t n)
{
    size_t n_gang = 0;
    p->items = at_arena_alloc(p->arena, (n + 1) * sizeof(*p->items));
    bool ok = p->items != NULL;
    for (size_t i = 0; i < n && ok; i++) {
        if (list[i].instance->spec.gang != NULL) {
            struct pending gang = list[i];
            list[i] = list[n_gang];
            list[n_gang++] = gang;
        }
    }
    qsort(list, n_gang, sizeof(*list), by_gang);
    for (size_t i = 0; i < n && ok;) {
        size_t end = i + 1;
        while (i < n_gang && end < n_gang && same_gang(&list[i], &list[end])) {
            end++;
        }
        struct queue_item *item = &p->items[p->n_items++];
        ok = item_init(p, item, list[i].node, end - i);
        for (; i < end && ok; i++) {
            item_join(item, list[i].instance, list[i].at);
        }
    }
    if (ok) {
        qsort(p->items, p->n_items, sizeof(*p->items), by_turn);
    }
    for (size_t i = 0; i < p->n_items && ok; i++) {
        struct queue_node *node = p->items[i].node;
        node->items = node->n_items == 0 ? &p->items[i] : node->items;
        node->n_items++;
    }
    return ok;
}

static bool sort_out(struct queue_pass *p, const struct at_instance *const *pending, size_t n)
{
    struct pending *list = at_arena_alloc(p->arena, (n + 1) * sizeof(*list));
    size_t n_list = 0;
    if (list == NULL) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        struct at_queue_verdict *v = &p->verdicts[i];
        v->instance = pending[i];
        v->reason = AT_QUEUE_NONE;
        const char *queue = at_queue_name_of(p->snap, pending[i]);
        if (queue == NULL) {
            p->admitted[p->n_admitted++] = i;
            continue;
        }
        struct queue_node *node = at_map_get(p->book->by_name, queue);
        v->queue = queue;
        v->message = refused(p, queue, node, pending[i]->meta.ns, &v->reason);
        if (v->reason == AT_QUEUE_NONE) {
            list[n_list++] = (struct pending){pending[i], node, i};
        } else if (v->message == NULL) {
            return false;
        }
    }
    return make_items(p, list, n_list);
}

static void admit(struct queue_pass *p)
{
    struct at_queue_book *b = p->book;
    for (size_t i = 0; i < b->n_nodes; i++) {
        find_head(p, b->nodes[i]);
    }
    for (size_t i = 0; i < b->n_nodes; i++) {
        if (b->nodes[i]->head != NULL) {
            refresh(b->nodes[i]);
        }
    }
    for (size_t i = 0; i < b->n_nodes; i++) {
        if (b->nodes[i]->parent == NULL) {
            admit_tree(p, b->nodes[i]);
        }
    }
    for (size_t i = 0; i < b->n_nodes; i++) {
        hold_rest(p, b->nodes[i]);
    }
}

static enum at_rc order_verdicts(struct queue_pass *p, size_t n, struct at_queue_plan *ret_plan)
{
    struct at_queue_plan plan = {.n = n, .n_placeable = p->n_admitted};
    plan.verdicts = at_arena_alloc(p->arena, (n + 1) * sizeof(*plan.verdicts));
    if (plan.verdicts == NULL) {
        return AT_NOMEM;
    }
    for (size_t i = 0; i < p->n_admitted; i++) {
        plan.verdicts[i] = p->verdicts[p->admitted[i]];
    }
    size_t at = p->n_admitted;
    for (size_t i = 0; i < n; i++) {
        if (!may_be_placed(p->verdicts[i].reason)) {
            const char *queue = p->verdicts[i].queue;
            struct queue_node *node = at_map_get(p->book->by_name, queue);
            if (node != NULL) {
                node->waiting++;
            }
            plan.verdicts[at++] = p->verdicts[i];
        }
    }
    assert(at == n);
    plan.victims = p->victims;
    plan.n_victims = p->n_victims;
    *ret_plan = plan;
    return AT_OK;
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

enum at_rc at_queue_admit(struct at_queue_book *book, const struct at_snapshot *snap,
                          const struct at_instance *const *pending, size_t n, int64_t now_wall_ns,
                          struct at_arena *arena, struct at_queue_plan *ret_plan)
{
    struct queue_pass p = {.book = book, .snap = snap, .arena = arena, .now_wall_ns = now_wall_ns};
    p.verdicts = at_arena_alloc(arena, (n + 1) * sizeof(*p.verdicts));
    p.admitted = at_arena_alloc(arena, (n + 1) * sizeof(*p.admitted));
    if (p.verdicts == NULL || p.admitted == NULL) {
        return AT_NOMEM;
    }
    begin_columns(book);
    if (!sort_out(&p, pending, n)) {
        return AT_NOMEM;
    }
    p.budgets = at_map_new();
    admit(&p);
    queue_displace(&p);
    free_values(p.budgets);
    return p.exhausted ? AT_NOMEM : order_verdicts(&p, n, ret_plan);
}

const struct at_instance *at_queue_narrow(const struct at_queue_verdict *v, struct at_arena *arena)
{
    if (v->site == NULL && v->site_class == NULL && v->gpu_model == NULL) {
        return v->instance;
    }
    struct at_instance *i = at_arena_alloc(arena, sizeof(*i));
    struct at_placement *place = at_arena_alloc(arena, sizeof(*place));
    struct at_resources *resources = at_arena_alloc(arena, sizeof(*resources));
    const char **names = at_arena_alloc(arena, 3 * sizeof(*names));
    if (i == NULL || place == NULL || resources == NULL || names == NULL) {
        return NULL;
    }
    *i = *v->instance;
    if (i->spec.placement != NULL) {
        *place = *i->spec.placement;
    }
    if (v->site != NULL) {
        names[0] = v->site;
        place->sites = (struct at_model_strings){&names[0], 1};
    }
    if (v->site_class != NULL) {
        names[1] = v->site_class;
        place->site_classes = (struct at_model_strings){&names[1], 1};
    }
    i->spec.placement = place;
    if (v->gpu_model != NULL && i->spec.resources != NULL) {
        *resources = *i->spec.resources;
        names[2] = v->gpu_model;
        resources->gpu_models = (struct at_model_strings){&names[2], 1};
        i->spec.resources = resources;
    }
    return i;
}
