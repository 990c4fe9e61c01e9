/* The whole store at one revision: references to its versions, which never change. */
#include "core/mem.h"
#include "store/store_priv.h"

#include <assert.h>

struct at_store_snapshot {
    int64_t rev;
    size_t n;
    struct at_store_version *versions[];
};

struct at_store_snapshot *at_store_snapshot_new(struct at_store *store)
{
    size_t n = at_store_index_count(store->index);
    struct at_store_snapshot *s = at_alloc(sizeof *s + n * sizeof(s->versions[0]));
    struct at_store_cursor cursor = at_store_index_seek(store->index, "");
    s->rev = store->rev;
    while (s->n < n) {
        struct at_store_version *v = at_store_index_next(store->index, &cursor);
        assert(v != NULL);
        s->versions[s->n++] = at_store_version_ref(v);
    }
    return s;
}

int64_t at_store_snapshot_rev(const struct at_store_snapshot *snapshot)
{
    return snapshot->rev;
}

size_t at_store_snapshot_count(const struct at_store_snapshot *snapshot)
{
    return snapshot->n;
}

struct at_store_kv at_store_snapshot_at(const struct at_store_snapshot *snapshot, size_t i)
{
    assert(i < snapshot->n);
    return at_store_version_kv(snapshot->versions[i]);
}

void at_store_snapshot_free(struct at_store_snapshot *snapshot)
{
    for (size_t i = 0; snapshot != NULL && i < snapshot->n; i++) {
        at_store_version_unref(snapshot->versions[i]);
    }
    at_free(snapshot);
}
