/* Reads: of now from the index, of an earlier revision from the index with the later changes
 * undone. */
#include "core/mem.h"
#include "store/store_priv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static bool before_end(const char *key, const char *from, const char *to)
{
    return to != NULL ? strcmp(key, to) < 0 : strcmp(key, from) == 0;
}

struct result {
    struct at_store_kv *kvs;
    size_t n, cap, limit;
    bool more;
};

/* false: the limit is reached. */
static bool result_add(struct result *r, const struct at_store_version *v)
{
    if (r->limit != 0 && r->n == r->limit) {
        r->more = true;
        return false;
    }
    if (r->n == r->cap) {
        r->cap = r->cap != 0 ? r->cap * 2 : 64;
        r->kvs = at_realloc(r->kvs, r->cap * sizeof(r->kvs[0]));
    }
    r->kvs[r->n++] = at_store_version_kv(v);
    return true;
}

/* What a key that changed after the revision asked for had at it. */
struct undo {
    const char *key;
    int64_t rev; /* of the first change after it */
    const struct at_store_version *was;
};

static int undo_compare(const void *a, const void *b)
{
    const struct undo *x = a;
    const struct undo *y = b;
    int order = strcmp(x->key, y->key);
    if (order != 0) {
        return order;
    }
    return x->rev < y->rev ? -1 : x->rev > y->rev;
}

/* Undo records for [from, to), one per key, in key order. own: caller frees. */
static struct undo *undo_list(const struct at_store *store, const char *from, const char *to,
                              int64_t at_rev, size_t *ret_n)
{
    size_t n = 0;
    size_t cap = 64;
    struct undo *list = at_alloc(cap * sizeof *list);
    const struct at_store_history *h = &store->history;
    for (size_t i = at_store_history_after(h, at_rev); i < h->n; i++) {
        const struct at_store_change *change = at_store_history_nth(h, i);
        const char *key = at_store_change_key(change);
        if (strcmp(key, from) < 0 || !before_end(key, from, to)) {
            continue;
        }
        if (n == cap) {
            cap *= 2;
            list = at_realloc(list, cap * sizeof *list);
        }
        list[n++] = (struct undo){key, change->rev, change->prev};
    }
    qsort(list, n, sizeof *list, undo_compare);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (kept == 0 || strcmp(list[kept - 1].key, list[i].key) != 0) {
            list[kept++] = list[i];
        }
    }
    *ret_n = kept;
    return list;
}

/* Merge of the index and the undo records, both in key order; the latter win. */
static void collect(const struct at_store *store, const char *from, const char *to,
                    const struct undo *undo, size_t n_undo, struct result *r)
{
    struct at_store_cursor cursor = at_store_index_seek(store->index, from);
    const struct at_store_version *v = at_store_index_next(store->index, &cursor);
    size_t u = 0;
    for (;;) {
        bool have = v != NULL && before_end(at_store_version_key(v), from, to);
        if (!have && u == n_undo) {
            return;
        }
        int order = !have ? 1 : u == n_undo ? -1 : strcmp(at_store_version_key(v), undo[u].key);
        const struct at_store_version *take = order < 0 ? v : undo[u].was;
        if (take != NULL && !result_add(r, take)) {
            return;
        }
        if (order <= 0) {
            v = at_store_index_next(store->index, &cursor);
        }
        if (order >= 0) {
            u++;
        }
    }
}

void at_store_range(struct at_store *store, const char *from, const char *to, size_t limit,
                    int64_t at_rev, at_store_range_fn *fn, void *ctx)
{
    assert(from != NULL);
    struct at_err err = {0};
    store->stats.reads++;
    if (at_rev < 0 || at_rev > store->rev) {
        at_err_set(&err, AT_TIMEOUT, "revision %lld lies in the future, the newest is %lld",
                   (long long)at_rev, (long long)store->rev);
    } else if (at_rev != 0 && at_rev < store->history.compact_rev) {
        at_err_set(&err, AT_COMPACTED, "revision %lld is forgotten, the oldest kept is %lld",
                   (long long)at_rev, (long long)store->history.compact_rev);
    }
    if (err.rc != AT_OK) {
        fn(ctx, err.rc, store->rev, NULL, 0, false, &err);
        return;
    }
    int64_t rev = at_rev != 0 ? at_rev : store->rev;
    struct result r = {.limit = limit};
    size_t n_undo = 0;
    struct undo *undo = NULL;
    if (rev < store->rev) {
        undo = undo_list(store, from, to, rev, &n_undo);
    }
    collect(store, from, to, undo, n_undo, &r);
    at_free(undo);
    fn(ctx, AT_OK, rev, r.kvs, r.n, r.more, NULL);
    at_free(r.kvs);
}

void at_store_prefix_end(const char *prefix, char *out, size_t out_size)
{
    size_t len = strlen(prefix);
    assert(len > 0);
    assert(out_size > len);
    memcpy(out, prefix, len + 1);
    assert((unsigned char)out[len - 1] < 0xff);
    out[len - 1]++;
}
