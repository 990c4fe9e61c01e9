/* Dynamic batching: what waits, and which of it goes together when. Follows Triton's dynamic
 * batcher: priority levels, preferred sizes, a delay that is borne for them, bounds of the queue.
 * Pure: knows neither models nor clocks. */
#ifndef AT_RUNNERS_BATCHER_H
#define AT_RUNNERS_BATCHER_H

#include "core/str.h"
#include "runners/batching.h"

/* One request that waits, part of its owner's memory. */
struct at_batch_item {
    struct at_str key; /* only equal keys go together; borrowed */
    size_t rows;       /* 0: goes alone */
    size_t level;      /* 1 is served first */
    int64_t arrived_ns;
    int64_t deadline_ns;               /* INT64_MAX: waits for ever */
    struct at_batch_item *prev, *next; /* the batcher's */
    size_t list;                       /* the batcher's; 0: does not wait */
};

struct at_batcher;

/* options are copied. own: at_batcher_free; items that still wait are the caller's. */
struct at_batcher *at_batcher_new(const struct at_batching_options *options);
void at_batcher_free(struct at_batcher *b);

/* item->level 0 takes the default, timeout_ns 0 the level's own timeout.
 * in:   key, rows, level set
 * err:  AT_EXHAUSTED the level's queue is full | AT_BAD_REQUEST there is no such level. */
enum at_rc at_batcher_push(struct at_batcher *b, struct at_batch_item *item, int64_t timeout_ns,
                           int64_t now_ns, struct at_err *err) AT_WARN_UNUSED;
void at_batcher_remove(struct at_batcher *b,
                       struct at_batch_item *item); /* whether or not it waits */

/* One that has waited past its deadline and is to be refused, taken out; NULL: none. */
struct at_batch_item *at_batcher_expired(struct at_batcher *b, int64_t now_ns);
/* What should run now, taken out, in the order of service; 0: nothing yet. items has room for
 * AT_BATCH_ROWS_MAX. cost: O(waiting) at worst. */
size_t at_batcher_take(struct at_batcher *b, int64_t now_ns, struct at_batch_item **items);
/* When expired, or take (when taking: somebody could run what it gives), may answer otherwise
 * although nothing came; INT64_MAX: never. */
int64_t at_batcher_next_ns(const struct at_batcher *b, bool taking);
size_t at_batcher_waiting(const struct at_batcher *b);

#endif
