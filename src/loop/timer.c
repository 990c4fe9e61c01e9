#include "loop/loop_priv.h"

#include "core/mem.h"

#include <assert.h>

static bool before(const struct timer *a, const struct timer *b)
{
    return a->deadline_ns != b->deadline_ns ? a->deadline_ns < b->deadline_ns : a->order < b->order;
}

static void place(struct timer_heap *heap, size_t i, struct timer t)
{
    heap->items[i] = t;
    heap->slots[t.slot].position = (uint32_t)i;
}

static void sift_up(struct timer_heap *heap, size_t i)
{
    struct timer t = heap->items[i];
    while (i > 0 && before(&t, &heap->items[(i - 1) / 2])) {
        place(heap, i, heap->items[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    place(heap, i, t);
}

static void sift_down(struct timer_heap *heap, size_t i)
{
    struct timer t = heap->items[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= heap->n) {
            break;
        }
        if (child + 1 < heap->n && before(&heap->items[child + 1], &heap->items[child])) {
            child++;
        }
        if (!before(&heap->items[child], &t)) {
            break;
        }
        place(heap, i, heap->items[child]);
        i = child;
    }
    place(heap, i, t);
}

static uint32_t take_slot(struct timer_heap *heap)
{
    if (heap->n_slots > 0 && heap->free_slot != AT_SLOT_NONE) {
        uint32_t slot = heap->free_slot;
        heap->free_slot = heap->slots[slot].next_free;
        return slot;
    }
    assert(heap->n_slots < AT_LOOP_SLOTS_MAX);
    if ((heap->n_slots & (heap->n_slots - 1)) == 0) {
        size_t room = heap->n_slots != 0 ? heap->n_slots * 2 : 1;
        heap->slots = at_realloc(heap->slots, room * sizeof *heap->slots);
    }
    uint32_t slot = (uint32_t)heap->n_slots++;
    heap->slots[slot] = (struct timer_slot){.position = AT_SLOT_NONE, .next_free = AT_SLOT_NONE};
    heap->free_slot = AT_SLOT_NONE;
    return slot;
}

static void remove_at(struct timer_heap *heap, size_t i)
{
    struct timer_slot *slot = &heap->slots[heap->items[i].slot];
    uint32_t number = heap->items[i].slot;
    slot->position = AT_SLOT_NONE;
    slot->generation++;
    slot->next_free = heap->free_slot;
    heap->free_slot = number;
    heap->n--;
    if (i == heap->n) {
        return;
    }
    struct timer last = heap->items[heap->n];
    place(heap, i, last);
    sift_up(heap, i);
    sift_down(heap, heap->slots[last.slot].position);
}

void at_timer_heap_done(struct timer_heap *heap)
{
    at_free(heap->items);
    at_free(heap->slots);
    *heap = (struct timer_heap){0};
}

at_timer_id at_timer_heap_add(struct timer_heap *heap, int64_t deadline_ns, at_timer_fn *fn,
                              void *ctx)
{
    if (heap->n == heap->room) {
        heap->room = heap->room != 0 ? heap->room * 2 : 16;
        heap->items = at_realloc(heap->items, heap->room * sizeof *heap->items);
    }
    uint32_t slot = take_slot(heap);
    heap->items[heap->n] = (struct timer){deadline_ns, heap->next_order++, fn, ctx, slot};
    sift_up(heap, heap->n++);
    return (uint64_t)heap->slots[slot].generation << 32 | (slot + 1);
}

void at_timer_heap_cancel(struct timer_heap *heap, at_timer_id id)
{
    uint32_t slot = (uint32_t)id - 1;
    if ((uint32_t)id == 0 || slot >= heap->n_slots) {
        return;
    }
    if (heap->slots[slot].generation == id >> 32 && heap->slots[slot].position != AT_SLOT_NONE) {
        remove_at(heap, heap->slots[slot].position);
    }
}

bool at_timer_heap_take_due(struct timer_heap *heap, int64_t now_ns, uint64_t order_end,
                            struct timer *ret)
{
    if (heap->n == 0 || heap->items[0].deadline_ns > now_ns || heap->items[0].order >= order_end) {
        return false;
    }
    *ret = heap->items[0];
    remove_at(heap, 0);
    return true;
}

int64_t at_timer_heap_next_ns(const struct timer_heap *heap)
{
    return heap->n != 0 ? heap->items[0].deadline_ns : INT64_MAX;
}
