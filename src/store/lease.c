/* Keys that end by themselves. Each has one entry here, found by its key, and is deleted by an
 * ordinary compare-and-swap write when its time has come, so that a put that comes first wins. With
 * etcd the entries only tell how much is left and which lease a key has: etcd itself deletes. */
#include "core/mem.h"
#include "core/units.h"
#include "store/store_priv.h"

#include <assert.h>

static void heap_swap(struct at_store_leases *l, size_t i, size_t j)
{
    struct at_store_lease *was = l->heap[i];
    l->heap[i] = l->heap[j];
    l->heap[j] = was;
}

static void heap_push(struct at_store_leases *l, struct at_store_lease *lease)
{
    if (l->n == l->cap) {
        l->cap = l->cap != 0 ? l->cap * 2 : 64;
        l->heap = at_realloc(l->heap, l->cap * sizeof(l->heap[0]));
    }
    size_t i = l->n++;
    lease->due_ns = lease->deadline_ns;
    l->heap[i] = lease;
    for (; i != 0 && l->heap[(i - 1) / 2]->due_ns > lease->due_ns; i = (i - 1) / 2) {
        heap_swap(l, i, (i - 1) / 2);
    }
}

static struct at_store_lease *heap_pop(struct at_store_leases *l)
{
    assert(l->n != 0);
    struct at_store_lease *top = l->heap[0];
    l->heap[0] = l->heap[--l->n];
    for (size_t i = 0, child; (child = 2 * i + 1) < l->n; i = child) {
        bool right = child + 1 < l->n && l->heap[child + 1]->due_ns < l->heap[child]->due_ns;
        child += right;
        if (l->heap[i]->due_ns <= l->heap[child]->due_ns) {
            break;
        }
        heap_swap(l, i, child);
    }
    return top;
}

static void lease_free(struct at_store_lease *lease)
{
    at_free(lease->key);
    at_free(lease);
}

static int64_t now_ns(const struct at_store *store)
{
    return at_sys_mono_ns(at_loop_sys(store->loop));
}

void at_store_lease_set(struct at_store *store, const struct at_store_version *v, uint64_t id,
                        int64_t left_ns)
{
    struct at_store_leases *l = &store->leases;
    const char *key = at_store_version_key(v);
    struct at_store_lease *lease = at_map_get(l->keys, key);
    int64_t left = left_ns >= 0 ? left_ns : v->ttl_s * AT_NS_PER_S;
    bool fresh = lease == NULL;
    if (fresh) {
        lease = AT_NEW(struct at_store_lease);
        lease->key = at_strdup(key);
        at_map_put(l->keys, key, lease);
    }
    lease->id = id;
    lease->deadline_ns = now_ns(store) + left;
    if (store->kind->commit == NULL) {
        return;
    }
    if (!fresh && lease->deadline_ns < lease->due_ns) { /* sooner than the heap would look at it */
        at_free(lease->key);
        lease->key = NULL;
        struct at_store_lease *again = AT_NEW(struct at_store_lease);
        *again = (struct at_store_lease){.deadline_ns = lease->deadline_ns, .key = at_strdup(key)};
        at_map_put(l->keys, key, again);
        lease = again;
        fresh = true;
    }
    if (fresh) {
        heap_push(l, lease);
    }
}

void at_store_lease_drop(struct at_store *store, const char *key)
{
    struct at_store_leases *l = &store->leases;
    struct at_store_lease *lease = at_map_count(l->keys) != 0 ? at_map_remove(l->keys, key) : NULL;
    if (lease == NULL) {
        return;
    }
    at_free(lease->key);
    lease->key = NULL;
    if (store->kind->commit == NULL) {
        lease_free(lease);
    }
}

void at_store_lease_note(struct at_store *store, const struct at_store_change *change,
                         int64_t left_ns)
{
    if (change->cur != NULL && change->cur->ttl_s != 0) {
        at_store_lease_set(store, change->cur, 0, left_ns);
    } else {
        at_store_lease_drop(store, at_store_change_key(change));
    }
}

uint64_t at_store_lease_id(const struct at_store *store, const char *key)
{
    const struct at_store_lease *lease = at_map_get(store->leases.keys, key);
    return lease != NULL ? lease->id : 0;
}

int64_t at_store_ttl_left_ns(const struct at_store *store, const char *key)
{
    const struct at_store_lease *lease = at_map_get(store->leases.keys, key);
    if (lease == NULL) {
        return INT64_MAX;
    }
    int64_t left = lease->deadline_ns - now_ns(store);
    return left > 0 ? left : 0;
}

static void end_due(void *ctx)
{
    struct at_store *store = ctx;
    struct at_store_leases *l = &store->leases;
    int64_t now = now_ns(store);
    l->timer = 0;
    for (int i = 0; i < AT_STORE_LEASE_ENDS_MAX && l->n != 0 && l->heap[0]->due_ns <= now; i++) {
        struct at_store_lease *lease = heap_pop(l);
        if (lease->key == NULL) {
            lease_free(lease);
            continue;
        }
        if (lease->deadline_ns <= now) {
            const struct at_store_version *v = at_store_index_get(store->index, lease->key);
            assert(v != NULL);
            at_store_delete(store, lease->key, v->mod_rev, NULL, NULL);
            lease->deadline_ns = now + AT_STORE_LEASE_RETRY_NS; /* the deletion may fail */
        }
        heap_push(l, lease);
    }
    at_store_lease_arm(store);
}

void at_store_lease_arm(struct at_store *store)
{
    struct at_store_leases *l = &store->leases;
    at_loop_timer_cancel(store->loop, l->timer);
    l->timer = 0;
    if (l->n != 0 && !store->closing) {
        int64_t delay = l->heap[0]->due_ns - now_ns(store);
        l->timer = at_loop_timer(store->loop, delay > 0 ? delay : 0, end_due, store);
    }
}

void at_store_leases_clear(struct at_store *store)
{
    struct at_store_leases *l = &store->leases;
    void *value;
    assert(store->kind->commit == NULL); /* else the heap holds them too */
    for (size_t it = 0; at_map_next(l->keys, &it, NULL, &value);) {
        lease_free(value);
    }
    at_map_clear(l->keys);
}

void at_store_leases_done(struct at_store *store)
{
    struct at_store_leases *l = &store->leases;
    at_loop_timer_cancel(store->loop, l->timer);
    if (store->kind->commit == NULL) {
        at_store_leases_clear(store);
    }
    for (size_t i = 0; i < l->n; i++) {
        lease_free(l->heap[i]);
    }
    at_free(l->heap);
    at_map_free(l->keys);
}
