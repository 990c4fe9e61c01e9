/* Values are replaced all the time, each a block of its own size: what they leave is used again,
 * but after a burst much of it only takes up memory (as much as what is stored, with 100,000
 * objects). Giving it back takes some tens of milliseconds then, in which the loop stands still: so
 * it is done once after a burst, when hardly anything is written any more. */
#include "apps/tidy.h"

#include "core/mem.h"
#include "core/units.h"

#define LOOK_NS (1 * AT_NS_PER_S)
/* Quiet: so few changes since the last look. */
#define QUIET_CHANGES_MAX 20
/* Worth it: so many changes since the last time; the start counts as many. */
#define BURST_CHANGES_MIN 2000

struct at_tidy {
    struct at_loop *loop;
    const struct at_store *store;
    at_timer_id timer;
    uint64_t seen;  /* changes at the last look */
    uint64_t clean; /* changes when it was tidied last */
    bool started;
};

static void look(void *ctx)
{
    struct at_tidy *t = ctx;
    uint64_t changes = at_store_stats(t->store).changes;
    bool quiet = changes - t->seen <= QUIET_CHANGES_MAX;
    bool worth = !t->started || changes - t->clean >= BURST_CHANGES_MIN;
    if (quiet && worth) {
        at_mem_give_back();
        t->clean = changes;
        t->started = true;
    }
    t->seen = changes;
    t->timer = at_loop_timer(t->loop, LOOK_NS, look, t);
}

struct at_tidy *at_tidy_new(struct at_loop *loop, const struct at_store *store)
{
    struct at_tidy *t = AT_NEW(struct at_tidy);
    t->loop = loop;
    t->store = store;
    t->seen = t->clean = at_store_stats(store).changes;
    t->timer = at_loop_timer(loop, LOOK_NS, look, t);
    return t;
}

void at_tidy_free(struct at_tidy *tidy)
{
    if (tidy != NULL) {
        at_loop_timer_cancel(tidy->loop, tidy->timer);
        at_free(tidy);
    }
}
