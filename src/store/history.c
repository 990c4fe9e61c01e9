#include "core/mem.h"
#include "store/store_priv.h"

#include <assert.h>

#define RING_MIN 64

const char *at_store_change_key(const struct at_store_change *change)
{
    const struct at_store_version *v = change->cur != NULL ? change->cur : change->prev;
    assert(v != NULL);
    return at_store_version_key(v);
}

/* The current value is counted; prev is some earlier change's current one, or a value that is only
 * kept because of this change. */
size_t at_store_change_bytes(const struct at_store_change *change)
{
    const struct at_store_version *v = change->cur != NULL ? change->cur : change->prev;
    return sizeof *change + sizeof *v + v->key_len + v->value_len + 2;
}

static struct at_store_change *slot(const struct at_store_history *h, size_t i)
{
    assert(i < h->cap);
    return &h->ring[(h->head + i) % h->cap];
}

static void drop_first(struct at_store_history *h)
{
    struct at_store_change *first = slot(h, 0);
    h->bytes -= at_store_change_bytes(first);
    at_store_version_unref(first->cur);
    at_store_version_unref(first->prev);
    h->head = (h->head + 1) % h->cap;
    h->n--;
}

static void resize(struct at_store_history *h, size_t cap)
{
    assert(cap >= h->n);
    struct at_store_change *ring = at_alloc(cap * sizeof *ring);
    for (size_t i = 0; i < h->n; i++) {
        ring[i] = *slot(h, i);
    }
    at_free(h->ring);
    h->ring = ring;
    h->cap = cap;
    h->head = 0;
}

void at_store_history_done(struct at_store_history *h)
{
    while (h->n != 0) {
        drop_first(h);
    }
    at_free(h->ring);
    h->ring = NULL;
    h->cap = 0;
}

void at_store_history_push(struct at_store_history *h, const struct at_store_change *change)
{
    assert(change->rev > h->compact_rev);
    assert(h->n == 0 || change->rev > slot(h, h->n - 1)->rev);
    if (h->n == h->cap) {
        resize(h, h->cap != 0 ? h->cap * 2 : RING_MIN);
    }
    struct at_store_change *place = slot(h, h->n);
    h->n++;
    h->pushed++;
    *place = *change;
    at_store_version_ref(place->cur);
    at_store_version_ref(place->prev);
    h->bytes += at_store_change_bytes(place);
}

const struct at_store_change *at_store_history_nth(const struct at_store_history *h, size_t i)
{
    assert(i < h->n);
    return slot(h, i);
}

size_t at_store_history_after(const struct at_store_history *h, int64_t rev)
{
    size_t low = 0;
    size_t high = h->n;
    if (h->n != 0 && slot(h, h->n - 1)->rev <= rev) {
        return h->n;
    }
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (slot(h, mid)->rev <= rev) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

const struct at_store_change *at_store_history_at(const struct at_store_history *h, int64_t rev)
{
    size_t i = at_store_history_after(h, rev - 1);
    const struct at_store_change *change = i < h->n ? slot(h, i) : NULL;
    return change != NULL && change->rev == rev ? change : NULL;
}

int64_t at_store_history_before_newest(const struct at_store_history *h, size_t keep)
{
    return h->n > keep ? slot(h, h->n - keep - 1)->rev : h->compact_rev;
}

void at_store_history_trim(struct at_store_history *h, int64_t compact_rev)
{
    while (h->n != 0 && slot(h, 0)->rev <= compact_rev) {
        drop_first(h);
    }
    h->compact_rev = h->compact_rev > compact_rev ? h->compact_rev : compact_rev;
    if (h->cap > RING_MIN && h->n < h->cap / 4) {
        resize(h, h->cap / 2);
    }
}
