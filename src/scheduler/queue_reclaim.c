/* Whom to displace so that those first in line get what is theirs. Only sets that suffice are
 * taken, and of them only what is needed. */
#include "scheduler/queue_priv.h"

#include "scheduler/disruption.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct taken {
    struct queue_rec **recs;
    size_t n, cap;
};

/* Least worth first: lowest priority, then the newest; a gang stands together. */
static int by_worth(const void *a, const void *b)
{
    const struct queue_rec *x = *(struct queue_rec *const *)a;
    const struct queue_rec *y = *(struct queue_rec *const *)b;
    if (x->priority != y->priority) {
        return x->priority < y->priority ? -1 : 1;
    }
    if (x->start_wall_ns != y->start_wall_ns) {
        return x->start_wall_ns > y->start_wall_ns ? -1 : 1;
    }
    int c = strcmp(x->ns, y->ns);
    return c != 0 ? c : strcmp(x->name, y->name);
}

static bool sort_node(struct queue_pass *p, struct queue_node *node)
{
    if (node->by_worth != NULL) {
        return true;
    }
    node->by_worth = at_arena_alloc(p->arena, (node->n_recs + 1) * sizeof(*node->by_worth));
    if (node->by_worth == NULL) {
        p->exhausted = true;
        return false;
    }
    for (struct queue_rec *r = node->recs; r != NULL; r = r->next) {
        r->victim = false;
        if (!r->leaving) {
            node->by_worth[node->n_by_worth++] = r;
        }
    }
    qsort(node->by_worth, node->n_by_worth, sizeof(*node->by_worth), by_worth);
    return true;
}

static int64_t *budget_of(struct queue_pass *p, const struct queue_rec *rec)
{
    if (rec->owner_uid[0] == '\0') {
        return NULL;
    }
    int64_t *left = at_map_get(p->budgets, rec->owner_uid);
    if (left == NULL) {
        const struct at_instance *i = at_snapshot_instance(p->snap, rec->ns, rec->name);
        left = AT_NEW(int64_t);
        *left = i != NULL ? at_disruption_left(p->snap, i) : 0;
        (void)at_map_put(p->budgets, rec->owner_uid, left);
    }
    return left;
}

/* One that is not ready takes nothing from its owner's budget. */
static bool costs_budget(const struct queue_pass *p, const struct queue_rec *rec)
{
    const struct at_instance *i = at_snapshot_instance(p->snap, rec->ns, rec->name);
    return i != NULL && at_disruption_is_available(i);
}

static bool budget_allows(struct queue_pass *p, const struct queue_rec *rec, int64_t n)
{
    const int64_t *left = costs_budget(p, rec) ? budget_of(p, rec) : NULL;
    return left == NULL || *left >= n;
}

static void budget_spend(struct queue_pass *p, const struct queue_rec *rec, int64_t n)
{
    int64_t *left = costs_budget(p, rec) ? budget_of(p, rec) : NULL;
    if (left != NULL && *left != AT_DISRUPTION_UNLIMITED) {
        *left -= n;
    }
}

static void take(struct queue_pass *p, struct taken *t, struct queue_rec *rec)
{
    if (t->n == t->cap) {
        t->cap = t->cap > 0 ? 2 * t->cap : 16;
        t->recs = at_realloc(t->recs, t->cap * sizeof(*t->recs));
    }
    t->recs[t->n++] = rec;
    rec->victim = true;
    queue_rec_count(rec, -1, QUEUE_FUTURE);
    budget_spend(p, rec, +1);
}

static void put_back(struct queue_pass *p, struct queue_rec *rec)
{
    rec->victim = false;
    queue_rec_count(rec, +1, QUEUE_FUTURE);
    budget_spend(p, rec, -1);
}

static bool same_gang(const struct queue_rec *a, const struct queue_rec *b)
{
    return a == b || (a->gang != NULL && at_streq(a->gang, b->gang) && at_streq(a->ns, b->ns));
}

/* The whole gang of rec, if budgets let it. */
static bool take_whole(struct queue_pass *p, struct taken *t, struct queue_rec *rec)
{
    size_t first = t->n;
    if (!budget_allows(p, rec, 1)) {
        return false;
    }
    if (rec->gang == NULL) {
        take(p, t, rec);
        return true;
    }
    struct queue_node *node = rec->node;
    for (size_t i = 0; i < node->n_by_worth; i++) {
        struct queue_rec *r = node->by_worth[i];
        if (r->victim || !same_gang(rec, r)) {
            continue;
        }
        if (!budget_allows(p, r, 1)) {
            while (t->n > first) {
                put_back(p, t->recs[--t->n]);
            }
            return false;
        }
        take(p, t, r);
    }
    return true;
}

/* How far the claim is from its room; its amounts are counted when it is reserved. */
static bool is_short(const struct queue_item *item, size_t cell)
{
    int64_t want = item->reserved ? 0 : item->amounts[cell];
    return item->amounts[cell] > 0 &&
           queue_cell_available(item->quota->cells[cell], QUEUE_FUTURE) < want;
}

static bool any_short(const struct queue_item *item)
{
    for (size_t i = 0; i < item->quota->n; i++) {
        if (is_short(item, i)) {
            return true;
        }
    }
    return false;
}

/* Does rec use something that the claim is short of? */
static bool helps(const struct queue_item *item, const struct queue_rec *rec)
{
    for (size_t i = 0; rec->quota != NULL && i < item->quota->n; i++) {
        if (!is_short(item, i)) {
            continue;
        }
        const struct queue_cell *c = item->quota->cells[i];
        for (size_t k = 0; k < rec->quota->n; k++) {
            const struct queue_cell *r = rec->quota->cells[k];
            if (rec->amounts[k] > 0 && at_streq(r->resource, c->resource) &&
                at_streq(r->place, c->place)) {
                return true;
            }
        }
    }
    return false;
}

static bool is_above(const struct queue_node *node, const struct queue_node *below)
{
    for (; below != NULL; below = below->parent) {
        if (below == node) {
            return true;
        }
    }
    return false;
}

static const struct queue_cell *cell_like(const struct queue_node *node,
                                          const struct queue_cell *like)
{
    for (size_t i = 0; i < node->n_cells; i++) {
        if (at_streq(node->cells[i]->resource, like->resource) &&
            at_streq(node->cells[i]->place, like->place)) {
            return node->cells[i];
        }
    }
    return NULL;
}

/* Does node, and the branch of the cohort that it shares with the claim, borrow what is short? */
static bool borrows(const struct queue_node *node, const struct queue_item *item)
{
    for (size_t i = 0; i < item->quota->n; i++) {
        const struct queue_cell *c =
            is_short(item, i) ? cell_like(node, item->quota->cells[i]) : NULL;
        if (c == NULL || c->used[QUEUE_FUTURE] <= c->subtree) {
            continue;
        }
        while (c->up != NULL && !is_above(c->up->node, item->node)) {
            c = c->up;
        }
        if (c->up != NULL && c->used[QUEUE_FUTURE] > c->subtree) {
            return true;
        }
    }
    return false;
}

static const struct queue_node *root_of(const struct queue_node *node)
{
    while (node->parent != NULL) {
        node = node->parent;
    }
    return node;
}

enum mode { MODE_RECLAIM, MODE_WITHIN, MODE_FAIR };

static struct queue_rec *least_worth(struct queue_pass *p, struct queue_node *node,
                                     const struct queue_item *item, bool lower_only)
{
    if (!sort_node(p, node)) {
        return NULL;
    }
    for (size_t i = 0; i < node->n_by_worth; i++) {
        struct queue_rec *r = node->by_worth[i];
        if (lower_only && r->priority >= item->priority) {
            return NULL; /* they are in this order */
        }
        if (!r->victim && helps(item, r) && budget_allows(p, r, 1)) {
            return r;
        }
    }
    return NULL;
}

/* Fair: the other must stay at least as well off as this one gets. */
static bool stays_ahead(struct queue_pass *p, const struct queue_rec *rec, struct queue_item *item)
{
    (void)p;
    struct queue_node *mine = item->node;
    struct queue_node *other = rec->node;
    while (mine->depth > other->depth) {
        mine = mine->parent;
    }
    while (other->depth > mine->depth) {
        other = other->parent;
    }
    while (mine->parent != other->parent) {
        mine = mine->parent;
        other = other->parent;
    }
    queue_rec_count((struct queue_rec *)rec, -1, QUEUE_FUTURE);
    int64_t theirs = queue_share(other, QUEUE_FUTURE);
    if (!item->reserved) {
        queue_item_count(item, +1, QUEUE_FUTURE);
    }
    int64_t ours = queue_share(mine, QUEUE_FUTURE);
    if (!item->reserved) {
        queue_item_count(item, -1, QUEUE_FUTURE);
    }
    queue_rec_count((struct queue_rec *)rec, +1, QUEUE_FUTURE);
    return theirs >= ours;
}

/* The next one to go: of the queue that borrows most for its weight. */
static struct queue_rec *next_victim(struct queue_pass *p, struct queue_item *item, enum mode mode)
{
    struct queue_node *q = item->node;
    if (mode == MODE_WITHIN) {
        return q->within_queue ? least_worth(p, q, item, true) : NULL;
    }
    const char *policy = mode == MODE_RECLAIM ? q->reclaim : q->fair_share;
    const struct queue_node *root = root_of(q);
    struct queue_rec *best = NULL;
    int64_t best_share = -1;
    for (size_t i = 0; i < p->book->n_nodes && !at_streq(policy, "Never"); i++) {
        struct queue_node *node = p->book->nodes[i];
        if (node == q || node->n_recs == 0 || root_of(node) != root || !borrows(node, item)) {
            continue;
        }
        int64_t share = queue_share(node, QUEUE_FUTURE);
        if (share <= best_share) {
            continue;
        }
        struct queue_rec *r = least_worth(p, node, item, at_streq(policy, "LowerPriority"));
        if (r != NULL && (mode == MODE_RECLAIM || stays_ahead(p, r, item))) {
            best = r;
            best_share = share;
        }
    }
    return best;
}

static bool gather(struct queue_pass *p, struct queue_item *item, enum mode mode, struct taken *t)
{
    while (any_short(item)) {
        struct queue_rec *rec = next_victim(p, item, mode);
        if (rec == NULL || !take_whole(p, t, rec)) {
            return false;
        }
    }
    return true;
}

/* Take out of the list what is not needed after all; the first to go is kept for longest. */
static void spare(struct queue_pass *p, struct queue_item *item, struct taken *t)
{
    for (size_t i = t->n; i-- > 0;) {
        struct queue_rec *rec = t->recs[i];
        if (rec->gang != NULL) {
            continue;
        }
        put_back(p, rec);
        if (any_short(item)) {
            rec->victim = true;
            queue_rec_count(rec, -1, QUEUE_FUTURE);
            budget_spend(p, rec, +1);
        } else {
            memmove(&t->recs[i], &t->recs[i + 1], (t->n - i - 1) * sizeof(struct queue_rec *));
            t->n--;
        }
    }
}

static const char *victim_message(struct queue_pass *p, const struct queue_item *item,
                                  const struct queue_rec *rec, enum mode mode)
{
    const struct at_instance *first = item->members[0];
    const char *for_whom =
        at_streq(first->meta.ns, rec->ns)
            ? at_arena_printf(p->arena, "%s/%s", queue_text(first->meta.ns), first->meta.name)
            : "an instance of another namespace";
    const char *queue = item->node->name;
    if (rec->node == item->node) {
        return at_arena_printf(p->arena, "queue %s: %s has a higher priority (%lld over %lld)",
                               queue, for_whom, (long long)item->priority,
                               (long long)rec->priority);
    }
    return mode == MODE_FAIR
               ? at_arena_printf(p->arena,
                                 "queue %s borrows more than its share: queue %s gets its own for "
                                 "%s",
                                 rec->node->name, queue, for_whom)
               : at_arena_printf(p->arena, "queue %s takes back for %s what it lent to queue %s",
                                 queue, for_whom, rec->node->name);
}

static void add_victim(struct queue_pass *p, const struct queue_rec *rec, const char *message)
{
    if (p->n_victims == p->cap_victims) {
        size_t cap = p->cap_victims > 0 ? 2 * p->cap_victims : 16;
        struct at_queue_victim *more = at_arena_alloc(p->arena, cap * sizeof(*more));
        if (more == NULL) {
            p->exhausted = true;
            return;
        }
        if (p->n_victims > 0) {
            memcpy(more, p->victims, p->n_victims * sizeof(*more));
        }
        p->victims = more;
        p->cap_victims = cap;
    }
    p->exhausted = p->exhausted || message == NULL;
    p->victims[p->n_victims++] = (struct at_queue_victim){
        .ns = rec->ns, .name = rec->name, .queue = rec->node->name, .message = message};
}

static void tell_waiting(struct queue_pass *p, const struct queue_item *item, size_t n)
{
    const struct at_queue_verdict *v = &p->verdicts[item->at[0]];
    struct at_queue_lack lack = v->lack;
    queue_verdict(p, item, AT_QUEUE_RECLAIMING,
                  at_arena_printf(p->arena, "%s; making room by ending %zu instance%s",
                                  queue_text(v->message), n, n == 1 ? "" : "s"),
                  &lack);
}

static bool displace_for(struct queue_pass *p, struct queue_item *item, enum mode first)
{
    struct taken t = {0};
    enum mode mode = first;
    bool enough = gather(p, item, mode, &t);
    if (!enough && first == MODE_RECLAIM) { /* what borrowers hold and its own lower priorities */
        mode = MODE_WITHIN;
        enough = gather(p, item, mode, &t);
    }
    if (enough && t.n > 0) {
        spare(p, item, &t);
        if (!item->reserved) {
            queue_item_count(item, +1, QUEUE_FUTURE);
            item->reserved = true;
        }
        for (size_t i = 0; i < t.n; i++) {
            add_victim(p, t.recs[i], victim_message(p, item, t.recs[i], first));
        }
        tell_waiting(p, item, t.n);
    }
    for (size_t i = t.n; i-- > 0 && !enough;) {
        put_back(p, t.recs[i]);
    }
    at_free(t.recs);
    return enough;
}

/* HoldAndDrain: what runs ends, as far as budgets let it. */
static void drain(struct queue_pass *p, struct queue_node *node)
{
    struct taken t = {0};
    if (!sort_node(p, node)) {
        return;
    }
    for (size_t i = 0; i < node->n_by_worth; i++) {
        if (!node->by_worth[i]->victim) {
            (void)take_whole(p, &t, node->by_worth[i]);
        }
    }
    for (size_t i = 0; i < t.n; i++) {
        add_victim(p, t.recs[i],
                   at_arena_printf(p->arena, "queue %s is drained (stopPolicy)", node->name));
    }
    at_free(t.recs);
}

void queue_displace(struct queue_pass *p)
{
    for (size_t i = 0; i < p->book->n_nodes; i++) {
        struct queue_node *node = p->book->nodes[i];
        if (node->drains && node->n_recs > 0) {
            drain(p, node);
        }
    }
    for (size_t i = 0; i < p->book->n_nodes; i++) { /* owners before borrowers */
        struct queue_item *item = p->book->nodes[i]->claim;
        if (item != NULL && item->reserved && any_short(item)) {
            (void)displace_for(p, item, MODE_RECLAIM);
        }
    }
    for (size_t i = 0; i < p->book->n_nodes; i++) {
        struct queue_item *item = p->book->nodes[i]->claim;
        if (item == NULL || item->reserved || !any_short(item)) {
            continue;
        }
        if (!displace_for(p, item, MODE_WITHIN)) {
            (void)displace_for(p, item, MODE_FAIR);
        }
    }
}
