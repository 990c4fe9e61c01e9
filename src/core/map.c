/* Entries lie in an array in insertion order; an open-addressed table of entry numbers finds them.
 * Removed entries leave a hole that the next growth closes, so removal never moves an entry. Short
 * keys lie in their entry: with 100,000 objects the allocations of some maps' keys add up. */
#include "core/map.h"

#include "core/mem.h"

#include <assert.h>
#include <string.h>

#define SLOT_EMPTY 0u /* else entry number + 1 */
#define SLOTS_FIRST 16u

#define NEAR_BYTES 24u /* with the NUL */
#define HOLE UINT32_MAX

struct entry {
    union {
        char near[NEAR_BYTES];
        char *far;
    } key;
    uint32_t len; /* HOLE */
    uint32_t hash;
    void *value;
};

static const char *key_of(const struct entry *entry)
{
    return entry->len < NEAR_BYTES ? entry->key.near : entry->key.far;
}

static void key_set(struct entry *entry, const char *key, size_t len)
{
    assert(len < HOLE);
    entry->len = (uint32_t)len;
    if (len < NEAR_BYTES) {
        memcpy(entry->key.near, key, len);
        entry->key.near[len] = '\0';
    } else {
        entry->key.far = at_strndup(key, len);
    }
}

static void key_free(struct entry *entry)
{
    if (entry->len != HOLE && entry->len >= NEAR_BYTES) {
        at_free(entry->key.far);
    }
}

struct at_map {
    struct entry *entries;
    size_t used; /* entries in use and holes */
    size_t live;
    size_t entries_cap;
    uint32_t *slots;
    size_t slot_count; /* power of two, or 0 */
    uint64_t seed;
};

struct at_map *at_map_new(void)
{
    struct at_map *map = AT_NEW(struct at_map);
    /* Not a secret, but unlike from run to run: enough against keys chosen to collide, and no order
     * depends on it. */
    map->seed = (uint64_t)(uintptr_t)map * UINT64_C(0x9e3779b97f4a7c15);
    return map;
}

static uint64_t fold(uint64_t a, uint64_t b)
{
    __extension__ typedef unsigned __int128 u128;
    u128 product = (u128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint32_t hash_of(const struct at_map *map, const char *key, size_t len)
{
    uint64_t h = map->seed ^ (len * UINT64_C(0xa0761d6478bd642f));
    while (len != 0) {
        uint64_t word = 0;
        size_t n = len < sizeof word ? len : sizeof word;
        memcpy(&word, key, n);
        h = fold(h ^ UINT64_C(0xe7037ed1a0b428db), word ^ UINT64_C(0x8ebc6af09c88c6e3) ^ map->seed);
        key += n;
        len -= n;
    }
    return (uint32_t)fold(h ^ UINT64_C(0x589965cc75374cc3), UINT64_C(0x1d8e4e27c47d124f));
}

void at_map_clear(struct at_map *map)
{
    for (size_t i = 0; i < map->used; i++) {
        key_free(&map->entries[i]);
    }
    map->used = 0;
    map->live = 0;
    if (map->slot_count != 0) {
        memset(map->slots, 0, map->slot_count * sizeof *map->slots);
    }
}

void at_map_free(struct at_map *map)
{
    if (map != NULL) {
        at_map_clear(map);
        at_free(map->entries);
        at_free(map->slots);
        at_free(map);
    }
}

size_t at_map_count(const struct at_map *map)
{
    return map->live;
}

/* A hole keeps its slot (the chain must not break) until the next rebuild. */
static struct entry *find(const struct at_map *map, const char *key, size_t len, uint32_t hash)
{
    if (map->slot_count == 0) {
        return NULL;
    }
    size_t mask = map->slot_count - 1;
    for (size_t at = hash & mask; map->slots[at] != SLOT_EMPTY; at = (at + 1) & mask) {
        struct entry *entry = &map->entries[map->slots[at] - 1];
        if (entry->hash == hash && entry->len == len && memcmp(key_of(entry), key, len) == 0) {
            return entry;
        }
    }
    return NULL;
}

static void slot_put(struct at_map *map, uint32_t hash, size_t number)
{
    size_t mask = map->slot_count - 1;
    size_t at = hash & mask;
    while (map->slots[at] != SLOT_EMPTY) {
        at = (at + 1) & mask;
    }
    map->slots[at] = (uint32_t)(number + 1);
}

/* Close the holes and make room for at least one more entry. */
static void rebuild(struct at_map *map)
{
    size_t kept = 0;
    for (size_t i = 0; i < map->used; i++) {
        if (map->entries[i].len != HOLE) {
            map->entries[kept++] = map->entries[i];
        }
    }
    assert(kept == map->live);
    map->used = kept;
    size_t slot_count = SLOTS_FIRST;
    while (slot_count / 2 <= kept) {
        slot_count *= 2;
    }
    assert(slot_count <= UINT32_MAX);
    map->entries_cap = slot_count / 4 * 3;
    map->entries = at_realloc(map->entries, map->entries_cap * sizeof *map->entries);
    at_free(map->slots);
    map->slots = at_alloc(slot_count * sizeof *map->slots);
    map->slot_count = slot_count;
    for (size_t i = 0; i < kept; i++) {
        slot_put(map, map->entries[i].hash, i);
    }
}

void *at_map_get_n(const struct at_map *map, const char *key, size_t len)
{
    const struct entry *entry = find(map, key, len, hash_of(map, key, len));
    return entry != NULL ? entry->value : NULL;
}

void *at_map_get(const struct at_map *map, const char *key)
{
    return at_map_get_n(map, key, strlen(key));
}

void *at_map_put(struct at_map *map, const char *key, void *value)
{
    size_t len = strlen(key);
    uint32_t hash = hash_of(map, key, len);
    struct entry *entry = find(map, key, len, hash);
    if (entry != NULL) {
        void *old = entry->value;
        entry->value = value;
        return old;
    }
    if (map->used == map->entries_cap) {
        rebuild(map);
    }
    size_t number = map->used++;
    map->entries[number].hash = hash;
    map->entries[number].value = value;
    key_set(&map->entries[number], key, len);
    map->live++;
    slot_put(map, hash, number);
    return NULL;
}

void *at_map_remove(struct at_map *map, const char *key)
{
    size_t len = strlen(key);
    struct entry *entry = find(map, key, len, hash_of(map, key, len));
    if (entry == NULL) {
        return NULL;
    }
    void *value = entry->value;
    key_free(entry);
    entry->len = HOLE;
    map->live--;
    return value;
}

bool at_map_next(const struct at_map *map, size_t *it, const char **ret_key, void **ret_value)
{
    while (*it < map->used) {
        const struct entry *entry = &map->entries[(*it)++];
        if (entry->len == HOLE) {
            continue;
        }
        if (ret_key != NULL) {
            *ret_key = key_of(entry);
        }
        if (ret_value != NULL) {
            *ret_value = entry->value;
        }
        return true;
    }
    return false;
}
