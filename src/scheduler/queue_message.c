/* The sentences about quota that people read. */
#include "scheduler/queue_priv.h"

#include <assert.h>

/* "2 GPUs", "500m cpu", in arena */
static const char *amount_text(struct at_arena *arena, const char *resource, int64_t amount)
{
    char text[AT_UNITS_TEXT_BYTES_MAX];
    (void)at_model_amount_format(resource, amount, text);
    if (at_streq(resource, "gpu")) {
        return at_arena_printf(arena, "%s GPU%s", text, amount == AT_SCHED_GPU_MILLI ? "" : "s");
    }
    return at_arena_printf(arena, "%s %s", text, resource);
}

static const char *number(struct at_arena *arena, const char *resource, int64_t amount)
{
    char text[AT_UNITS_TEXT_BYTES_MAX];
    return at_arena_strdup(arena, at_model_amount_format(resource, amount, text));
}

/* What its own borrowing limit leaves it. */
static int64_t limit_left(const struct queue_cell *c)
{
    if (c->up == NULL || c->borrow < 0) {
        return INT64_MAX;
    }
    return c->subtree + c->borrow - c->used[QUEUE_PRESENT];
}

/* Of the cells of its quota, the first with less than it wants; NULL: none. */
static const struct queue_cell *short_of(const struct queue_item *item, size_t *ret_at)
{
    const struct queue_quota *q = item->quota;
    for (size_t i = 0; q != NULL && i < q->n; i++) {
        if (item->amounts[i] > q->cells[i]->most ||
            (item->amounts[i] > 0 &&
             item->amounts[i] > queue_cell_available(q->cells[i], QUEUE_PRESENT))) {
            *ret_at = i;
            return q->cells[i];
        }
    }
    return NULL;
}

static const char *why_not_more(struct queue_pass *p, const struct queue_cell *c,
                                const struct at_queue_lack *lack)
{
    const char *r = c->resource;
    if (c->up == NULL) {
        return lack->cohort == NULL ? "it has no cohort to borrow from"
                                    : "its cohort owns none to lend";
    }
    if (lack->at_limit) {
        return at_arena_printf(p->arena, "its borrowing limit is %s",
                               amount_text(p->arena, r, c->borrow));
    }
    int64_t free_own = c->subtree - c->used[QUEUE_PRESENT];
    free_own = free_own > 0 ? free_own : 0;
    if (lack->available >= free_own && lack->available > 0 && lack->wanted > free_own) {
        int64_t more = lack->available - free_own;
        return more > 0 ? at_arena_printf(p->arena, "only %s to borrow in cohort %s",
                                          amount_text(p->arena, r, more), lack->cohort)
                        : at_arena_printf(p->arena, "nothing to borrow in cohort %s", lack->cohort);
    }
    return lack->wanted <= free_own
               ? at_arena_printf(p->arena, "the rest is lent in cohort %s", lack->cohort)
               : at_arena_printf(p->arena, "nothing to borrow in cohort %s", lack->cohort);
}

const char *queue_lack_message(struct queue_pass *p, const struct queue_item *item,
                               struct at_queue_lack *ret_lack)
{
    size_t at = 0;
    const struct queue_cell *c = short_of(item, &at);
    const char *queue = item->node->name;
    if (c == NULL) {
        return at_arena_printf(p->arena, "queue %s: no quota left", queue);
    }
    int64_t available = queue_cell_available(c, QUEUE_PRESENT);
    *ret_lack = (struct at_queue_lack){
        .resource = c->resource,
        .used = c->used[QUEUE_PRESENT],
        .nominal = c->subtree,
        .wanted = item->amounts[at],
        .available = available > 0 ? available : 0,
        .cohort = item->node->parent != NULL ? item->node->parent->name : NULL,
        .at_limit = limit_left(c) < item->amounts[at],
    };
    const char *where = c->place[0] != '\0' ? at_arena_printf(p->arena, " (%s)", c->place) : "";
    if (item->amounts[at] > c->most) {
        return at_arena_printf(p->arena, "queue %s: %s wanted%s, it can never have more than %s",
                               queue, amount_text(p->arena, c->resource, item->amounts[at]), where,
                               number(p->arena, c->resource, c->most));
    }
    return at_arena_printf(p->arena, "queue %s: %s of %s used%s, %s wanted, %s", queue,
                           number(p->arena, c->resource, c->used[QUEUE_PRESENT]),
                           amount_text(p->arena, c->resource, c->subtree), where,
                           number(p->arena, c->resource, item->amounts[at]),
                           why_not_more(p, c, ret_lack));
}
