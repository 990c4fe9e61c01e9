#include "runners/batcher.h"

#include "core/mem.h"

#include <assert.h>

/* Lists 1..LEVELS_MAX are the levels; behind them wait those that are past a timeout that delays.
 */
#define DELAYED (AT_BATCH_LEVELS_MAX + 1)
#define LISTS (DELAYED + 1)

struct list {
    struct at_batch_item *first, *last;
    size_t n;
};

struct at_batcher {
    struct at_batching_options options;
    struct list lists[LISTS];
    size_t waiting;
    size_t with_deadline; /* waiting ones that have one */
};

struct at_batcher *at_batcher_new(const struct at_batching_options *options)
{
    assert(options->batch_max >= 1);
    assert(options->batch_max <= AT_BATCH_ROWS_MAX);
    struct at_batcher *b = AT_NEW(struct at_batcher);
    b->options = *options;
    return b;
}

void at_batcher_free(struct at_batcher *b)
{
    at_free(b);
}

static void append(struct at_batcher *b, struct at_batch_item *item, size_t list)
{
    struct list *l = &b->lists[list];
    item->list = list;
    item->next = NULL;
    item->prev = l->last;
    *(l->last != NULL ? &l->last->next : &l->first) = item;
    l->last = item;
    l->n++;
    b->waiting++;
    b->with_deadline += item->deadline_ns != INT64_MAX;
}

void at_batcher_remove(struct at_batcher *b, struct at_batch_item *item)
{
    if (item->list == 0) {
        return;
    }
    struct list *l = &b->lists[item->list];
    *(item->prev != NULL ? &item->prev->next : &l->first) = item->next;
    *(item->next != NULL ? &item->next->prev : &l->last) = item->prev;
    item->prev = item->next = NULL;
    item->list = 0;
    assert(l->n > 0);
    l->n--;
    b->waiting--;
    b->with_deadline -= item->deadline_ns != INT64_MAX;
}

enum at_rc at_batcher_push(struct at_batcher *b, struct at_batch_item *item, int64_t timeout_ns,
                           int64_t now_ns, struct at_err *err)
{
    const struct at_batching_options *o = &b->options;
    size_t level = item->level;
    if (o->levels == 0) {
        level = 1; /* where there are no levels, nobody minds which one is named */
    } else if (level == 0) {
        level = o->default_level;
    } else if (level > o->levels) {
        return at_err_set(err, AT_BAD_REQUEST, "priority %zu: this model has levels 1 to %zu",
                          level, o->levels);
    }
    const struct at_batching_bounds *bounds = &o->bounds[level - 1];
    if (b->lists[level].n >= bounds->queue_max) {
        return at_err_set(err, AT_EXHAUSTED, "%zu requests are waiting; try again",
                          b->lists[level].n);
    }
    int64_t timeout = bounds->timeout_ns;
    if (timeout_ns > 0 && bounds->allow_override && (timeout == 0 || timeout_ns < timeout)) {
        timeout = timeout_ns;
    }
    item->level = level;
    item->arrived_ns = now_ns;
    item->deadline_ns = timeout > 0 ? now_ns + timeout : INT64_MAX;
    append(b, item, level);
    return AT_OK;
}

struct at_batch_item *at_batcher_expired(struct at_batcher *b, int64_t now_ns)
{
    for (size_t k = 1; k < DELAYED && b->with_deadline != 0; k++) {
        for (struct at_batch_item *item = b->lists[k].first, *next; item != NULL; item = next) {
            next = item->next;
            if (item->deadline_ns > now_ns) {
                continue;
            }
            at_batcher_remove(b, item);
            if (b->options.bounds[item->level - 1].action == AT_BATCHING_REJECT) {
                return item;
            }
            item->deadline_ns = INT64_MAX;
            append(b, item, DELAYED);
        }
    }
    return NULL;
}

static struct at_batch_item *first_of(const struct at_batcher *b, size_t list)
{
    for (; list < LISTS; list++) {
        if (b->lists[list].first != NULL) {
            return b->lists[list].first;
        }
    }
    return NULL;
}

/* In the order of service. */
static struct at_batch_item *after(const struct at_batcher *b, const struct at_batch_item *item)
{
    return item->next != NULL ? item->next : first_of(b, item->list + 1);
}

static bool same_key(const struct at_batch_item *a, const struct at_batch_item *b)
{
    return a->key.len == b->key.len &&
           (a->key.ptr == b->key.ptr || memcmp(a->key.ptr, b->key.ptr, a->key.len) == 0);
}

/* What could go with head: how many items make how many rows, and the oldest of them. */
struct gathering {
    size_t n, rows;
    size_t preferred_n; /* as many make the largest preferred size that can be had; 0: none can */
    int64_t oldest_ns;
};

static void gather(const struct at_batcher *b, struct at_batch_item *head,
                   struct at_batch_item **items, struct gathering *g)
{
    const struct at_batching_options *o = &b->options;
    size_t next_preferred = 0;
    *g = (struct gathering){.oldest_ns = INT64_MAX};
    for (struct at_batch_item *item = head; item != NULL; item = after(b, item)) {
        if (item->rows == 0 || g->rows + item->rows > o->batch_max || !same_key(head, item)) {
            continue;
        }
        items[g->n++] = item;
        g->rows += item->rows;
        g->oldest_ns = item->arrived_ns < g->oldest_ns ? item->arrived_ns : g->oldest_ns;
        while (next_preferred < o->n_preferred && o->preferred[next_preferred] < g->rows) {
            next_preferred++;
        }
        if (next_preferred < o->n_preferred && o->preferred[next_preferred] == g->rows) {
            g->preferred_n = g->n;
        }
        if (g->rows == o->batch_max) {
            break;
        }
    }
}

/* How many of what was gathered go now. */
static size_t ripe(const struct at_batcher *b, const struct gathering *g, int64_t now_ns)
{
    if (g->rows == b->options.batch_max) {
        return b->options.n_preferred != 0 && g->preferred_n != 0 ? g->preferred_n : g->n;
    }
    if (g->preferred_n != 0) {
        return g->preferred_n;
    }
    return now_ns >= g->oldest_ns + b->options.delay_ns ? g->n : 0;
}

/* The next one after item that could lead a batch of its own: another key, or goes alone. */
static struct at_batch_item *next_head(const struct at_batcher *b, const struct at_batch_item *head,
                                       struct at_batch_item *item)
{
    do {
        item = after(b, item);
    } while (item != NULL && item->rows != 0 && same_key(head, item));
    return item;
}

static bool goes_alone(const struct at_batcher *b, const struct at_batch_item *item)
{
    return item->rows == 0 || item->rows >= b->options.batch_max;
}

size_t at_batcher_take(struct at_batcher *b, int64_t now_ns, struct at_batch_item **items)
{
    struct at_batch_item *head = first_of(b, 1);
    for (size_t tries = 0; head != NULL && tries < AT_BATCH_HEADS_MAX; tries++) {
        size_t n = 1;
        if (goes_alone(b, head)) {
            items[0] = head;
        } else {
            struct gathering g;
            gather(b, head, items, &g);
            n = ripe(b, &g, now_ns);
        }
        for (size_t i = 0; i < n; i++) {
            at_batcher_remove(b, items[i]);
        }
        if (n != 0) {
            return n;
        }
        head = next_head(b, head, head);
    }
    return 0;
}

int64_t at_batcher_next_ns(const struct at_batcher *b, bool taking)
{
    int64_t next = INT64_MAX;
    if (!taking && b->with_deadline == 0) {
        return next;
    }
    for (const struct at_batch_item *item = first_of(b, 1); item != NULL; item = after(b, item)) {
        int64_t ripe_ns = taking ? item->arrived_ns + b->options.delay_ns : INT64_MAX;
        next = ripe_ns < next ? ripe_ns : next;
        next = item->deadline_ns < next ? item->deadline_ns : next;
        if (b->with_deadline == 0 && b->options.levels <= 1) {
            break; /* the oldest comes first */
        }
    }
    return next;
}

size_t at_batcher_waiting(const struct at_batcher *b)
{
    return b->waiting;
}
