#include "core/mem.h"
#include "store/store_priv.h"

#include <assert.h>
#include <string.h>

#define CHUNK_MAX 256

/* A sorted run of keys. Runs follow each other in key order and are never empty. */
struct chunk {
    size_t n;
    struct at_store_version *items[CHUNK_MAX];
};

struct at_store_index {
    struct chunk **chunks;
    size_t n_chunks, cap_chunks;
    size_t count;
};

struct at_store_version *at_store_version_new(const char *key, const void *value, size_t len)
{
    size_t key_len = strlen(key);
    assert(key_len < UINT32_MAX);
    assert(len < UINT32_MAX);
    struct at_store_version *v = at_alloc(sizeof *v + key_len + len + 2);
    v->refs = 1;
    v->key_len = (uint32_t)key_len;
    v->value_len = (uint32_t)len;
    memcpy(v->bytes, key, key_len);
    if (len != 0) {
        memcpy(v->bytes + key_len + 1, value, len);
    }
    return v;
}

struct at_store_version *at_store_version_ref(struct at_store_version *v)
{
    if (v != NULL) {
        assert(v->refs > 0);
        v->refs++;
    }
    return v;
}

void at_store_version_unref(struct at_store_version *v)
{
    if (v == NULL) {
        return;
    }
    assert(v->refs > 0);
    if (--v->refs == 0) {
        at_free(v);
    }
}

struct at_store_kv at_store_version_kv(const struct at_store_version *v)
{
    return (struct at_store_kv){.key = at_store_version_key(v),
                                .value = at_store_version_value(v),
                                .value_len = v->value_len,
                                .create_rev = v->create_rev,
                                .mod_rev = v->mod_rev,
                                .ttl_s = v->ttl_s};
}

struct at_store_index *at_store_index_new(void)
{
    return AT_NEW(struct at_store_index);
}

void at_store_index_free(struct at_store_index *index)
{
    if (index == NULL) {
        return;
    }
    for (size_t i = 0; i < index->n_chunks; i++) {
        for (size_t j = 0; j < index->chunks[i]->n; j++) {
            at_store_version_unref(index->chunks[i]->items[j]);
        }
        at_free(index->chunks[i]);
    }
    at_free(index->chunks);
    at_free(index);
}

size_t at_store_index_count(const struct at_store_index *index)
{
    return index->count;
}

/* The last chunk whose first key is <= key, or 0. */
static size_t chunk_for(const struct at_store_index *index, const char *key)
{
    size_t low = 0;
    size_t high = index->n_chunks;
    while (high - low > 1) {
        size_t mid = low + (high - low) / 2;
        if (strcmp(at_store_version_key(index->chunks[mid]->items[0]), key) <= 0) {
            low = mid;
        } else {
            high = mid;
        }
    }
    return low;
}

/* The first position in chunk whose key is >= key. */
static size_t lower_bound(const struct chunk *chunk, const char *key, bool *ret_equal)
{
    size_t low = 0;
    size_t high = chunk->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (strcmp(at_store_version_key(chunk->items[mid]), key) < 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    *ret_equal = low < chunk->n && strcmp(at_store_version_key(chunk->items[low]), key) == 0;
    return low;
}

struct at_store_version *at_store_index_get(const struct at_store_index *index, const char *key)
{
    if (index->n_chunks == 0) {
        return NULL;
    }
    const struct chunk *chunk = index->chunks[chunk_for(index, key)];
    bool equal;
    size_t at = lower_bound(chunk, key, &equal);
    return equal ? chunk->items[at] : NULL;
}

static void chunk_insert(struct at_store_index *index, size_t at, struct chunk *chunk)
{
    if (index->n_chunks == index->cap_chunks) {
        index->cap_chunks = index->cap_chunks != 0 ? index->cap_chunks * 2 : 8;
        index->chunks = at_realloc(index->chunks, index->cap_chunks * sizeof(index->chunks[0]));
    }
    memmove(index->chunks + at + 1, index->chunks + at,
            (index->n_chunks - at) * sizeof(index->chunks[0]));
    index->chunks[at] = chunk;
    index->n_chunks++;
}

/* Keys mostly come in rising order (generated names apart), so a full last chunk is left full. */
static void chunk_split(struct at_store_index *index, size_t at, size_t keep)
{
    struct chunk *left = index->chunks[at];
    struct chunk *right = AT_NEW(struct chunk);
    right->n = left->n - keep;
    memcpy(right->items, left->items + keep, right->n * sizeof(left->items[0]));
    left->n = keep;
    chunk_insert(index, at + 1, right);
}

void at_store_index_put(struct at_store_index *index, struct at_store_version *v)
{
    const char *key = at_store_version_key(v);
    at_store_version_ref(v);
    if (index->n_chunks == 0) {
        chunk_insert(index, 0, AT_NEW(struct chunk));
    }
    size_t c = chunk_for(index, key);
    bool equal;
    size_t at = lower_bound(index->chunks[c], key, &equal);
    if (equal) {
        at_store_version_unref(index->chunks[c]->items[at]);
        index->chunks[c]->items[at] = v;
        return;
    }
    if (index->chunks[c]->n == CHUNK_MAX) {
        bool append = c + 1 == index->n_chunks && at == CHUNK_MAX;
        chunk_split(index, c, append ? CHUNK_MAX - 1 : CHUNK_MAX / 2);
        size_t keep = index->chunks[c]->n;
        if (at > keep) {
            c++;
            at -= keep;
        }
    }
    struct chunk *chunk = index->chunks[c];
    assert(chunk->n < CHUNK_MAX);
    memmove(chunk->items + at + 1, chunk->items + at, (chunk->n - at) * sizeof(chunk->items[0]));
    chunk->items[at] = v;
    chunk->n++;
    index->count++;
}

void at_store_index_remove(struct at_store_index *index, const char *key)
{
    if (index->n_chunks == 0) {
        return;
    }
    size_t c = chunk_for(index, key);
    struct chunk *chunk = index->chunks[c];
    bool equal;
    size_t at = lower_bound(chunk, key, &equal);
    if (!equal) {
        return;
    }
    at_store_version_unref(chunk->items[at]);
    memmove(chunk->items + at, chunk->items + at + 1,
            (chunk->n - at - 1) * sizeof(chunk->items[0]));
    chunk->n--;
    index->count--;
    if (chunk->n == 0) {
        at_free(chunk);
        memmove(index->chunks + c, index->chunks + c + 1,
                (index->n_chunks - c - 1) * sizeof(index->chunks[0]));
        index->n_chunks--;
    }
}

struct at_store_cursor at_store_index_seek(const struct at_store_index *index, const char *from)
{
    struct at_store_cursor cursor = {0, 0};
    if (index->n_chunks != 0) {
        bool equal;
        cursor.chunk = chunk_for(index, from);
        cursor.pos = lower_bound(index->chunks[cursor.chunk], from, &equal);
    }
    return cursor;
}

struct at_store_version *at_store_index_next(const struct at_store_index *index,
                                             struct at_store_cursor *cursor)
{
    while (cursor->chunk < index->n_chunks) {
        const struct chunk *chunk = index->chunks[cursor->chunk];
        if (cursor->pos < chunk->n) {
            return chunk->items[cursor->pos++];
        }
        cursor->chunk++;
        cursor->pos = 0;
    }
    return NULL;
}
