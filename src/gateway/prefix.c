#include "gateway/prefix.h"

#include "core/mem.h"
#include "gateway/gateway_priv.h"

#include <assert.h>
#include <string.h>

#define NONE UINT32_MAX
#define PER AT_GW_PREFIX_BLOCKS_PER_REPLICA

/* A block that a replica has. Those of slot s are nodes[s * PER] and on. */
struct node {
    uint64_t hash;
    uint32_t next;         /* in its bucket */
    uint32_t newer, older; /* of the same replica */
};

struct slot {
    struct gw_replica *owner; /* NULL: free */
    uint32_t newest, oldest, n;
};

struct gw_prefix {
    struct slot *slots;
    size_t n_slots;
    struct node *nodes;
    uint32_t *buckets;
    uint64_t mask;
};

size_t gw_prefix_chain(struct at_str text, uint64_t seed, uint64_t out[AT_GW_PREFIX_BLOCKS_MAX])
{
    size_t n = text.len / AT_GW_PREFIX_BLOCK_BYTES;
    n = n < AT_GW_PREFIX_BLOCKS_MAX ? n : AT_GW_PREFIX_BLOCKS_MAX;
    uint64_t hash = gw_hash_mix(seed, 0x9e3779b97f4a7c15u);
    const char *at = text.ptr;
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < AT_GW_PREFIX_BLOCK_BYTES; k += 16, at += 16) {
            uint64_t a, b;
            memcpy(&a, at, sizeof a);
            memcpy(&b, at + 8, sizeof b);
            unsigned __int128 product = (unsigned __int128)(a ^ hash) * (b ^ 0xe7037ed1a0b428dbu);
            hash = (uint64_t)product ^ (uint64_t)(product >> 64) ^ (hash << 23 | hash >> 41);
        }
        hash = gw_hash_mix(hash, i);
        out[i] = hash;
    }
    return n;
}

static uint32_t find(const struct gw_prefix *p, uint64_t hash, size_t slot)
{
    for (uint32_t i = p->buckets[hash & p->mask]; i != NONE; i = p->nodes[i].next) {
        if (p->nodes[i].hash == hash && i / PER == slot) {
            return i;
        }
    }
    return NONE;
}

static bool has_any(const struct gw_prefix *p, uint64_t hash)
{
    for (uint32_t i = p->buckets[hash & p->mask]; i != NONE; i = p->nodes[i].next) {
        if (p->nodes[i].hash == hash) {
            return true;
        }
    }
    return false;
}

static void put_in_bucket(struct gw_prefix *p, uint32_t i)
{
    uint32_t *bucket = &p->buckets[p->nodes[i].hash & p->mask];
    p->nodes[i].next = *bucket;
    *bucket = i;
}

static void take_from_bucket(struct gw_prefix *p, uint32_t i)
{
    uint32_t *at = &p->buckets[p->nodes[i].hash & p->mask];
    while (*at != i) {
        assert(*at != NONE);
        at = &p->nodes[*at].next;
    }
    *at = p->nodes[i].next;
}

static void unlink_node(struct gw_prefix *p, struct slot *s, uint32_t i)
{
    struct node *n = &p->nodes[i];
    *(n->newer != NONE ? &p->nodes[n->newer].older : &s->newest) = n->older;
    *(n->older != NONE ? &p->nodes[n->older].newer : &s->oldest) = n->newer;
}

static void link_newest(struct gw_prefix *p, struct slot *s, uint32_t i)
{
    p->nodes[i].newer = NONE;
    p->nodes[i].older = s->newest;
    *(s->newest != NONE ? &p->nodes[s->newest].newer : &s->oldest) = i;
    s->newest = i;
}

static void grow(struct gw_prefix *p)
{
    size_t n = p->n_slots > 0 ? 2 * p->n_slots : 4;
    p->slots = at_realloc(p->slots, n * sizeof *p->slots);
    p->nodes = at_realloc(p->nodes, n * PER * sizeof *p->nodes);
    memset(p->slots + p->n_slots, 0, (n - p->n_slots) * sizeof *p->slots);
    p->mask = n * PER - 1;
    p->buckets = at_realloc(p->buckets, n * PER * sizeof *p->buckets);
    memset(p->buckets, 0xff, n * PER * sizeof *p->buckets);
    for (size_t s = 0; s < p->n_slots; s++) {
        for (uint32_t k = 0; k < p->slots[s].n; k++) {
            put_in_bucket(p, (uint32_t)(s * PER) + k);
        }
    }
    p->n_slots = n;
}

static size_t slot_of(struct gw_prefix *p, struct gw_replica *replica)
{
    if (replica->prefix_slot > 0) {
        return replica->prefix_slot - 1;
    }
    size_t s = 0;
    while (s < p->n_slots && p->slots[s].owner != NULL) {
        s++;
    }
    if (s == p->n_slots) {
        grow(p);
    }
    p->slots[s] = (struct slot){.owner = replica, .newest = NONE, .oldest = NONE};
    replica->prefix_slot = s + 1;
    return s;
}

void gw_prefix_learn(struct gw_prefix **prefix, struct gw_replica *replica, const uint64_t *chain,
                     size_t n)
{
    static_assert((PER & (PER - 1)) == 0, "a power of two");
    static_assert(PER >= AT_GW_PREFIX_BLOCKS_MAX, "a whole prompt fits");
    if (*prefix == NULL) {
        *prefix = AT_NEW(struct gw_prefix);
    }
    struct gw_prefix *p = *prefix;
    size_t slot = slot_of(p, replica);
    struct slot *s = &p->slots[slot];
    for (size_t k = n; k > 0; k--) { /* the deepest first: it is the first to be forgotten */
        uint32_t i = find(p, chain[k - 1], slot);
        if (i != NONE) {
            unlink_node(p, s, i);
        } else {
            if (s->n < PER) {
                i = (uint32_t)(slot * PER) + s->n++;
            } else {
                i = s->oldest;
                unlink_node(p, s, i);
                take_from_bucket(p, i);
            }
            p->nodes[i].hash = chain[k - 1];
            put_in_bucket(p, i);
        }
        link_newest(p, s, i);
    }
}

/* Blocks stand for all before them, so that what is there is the beginning. */
size_t gw_prefix_find(const struct gw_prefix *prefix, const uint64_t *chain, size_t n,
                      struct gw_replica **ret, size_t max, size_t *ret_n)
{
    size_t low = 0, high = n;
    *ret_n = 0;
    while (prefix != NULL && low < high) {
        size_t middle = low + (high - low + 1) / 2;
        if (has_any(prefix, chain[middle - 1])) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    if (low == 0 || prefix == NULL) {
        return 0;
    }
    uint64_t hash = chain[low - 1];
    for (uint32_t i = prefix->buckets[hash & prefix->mask]; i != NONE && *ret_n < max;
         i = prefix->nodes[i].next) {
        if (prefix->nodes[i].hash == hash) {
            ret[(*ret_n)++] = prefix->slots[i / PER].owner;
        }
    }
    return low;
}

size_t gw_prefix_depth(const struct gw_prefix *prefix, const uint64_t *chain, size_t n,
                       const struct gw_replica *replica)
{
    size_t low = 0, high = n;
    if (prefix == NULL || replica->prefix_slot == 0) {
        return 0;
    }
    while (low < high) {
        size_t middle = low + (high - low + 1) / 2;
        if (find(prefix, chain[middle - 1], replica->prefix_slot - 1) != NONE) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

void gw_prefix_forget(struct gw_prefix *prefix, struct gw_replica *replica)
{
    if (prefix == NULL || replica->prefix_slot == 0) {
        return;
    }
    struct slot *s = &prefix->slots[replica->prefix_slot - 1];
    assert(s->owner == replica);
    for (uint32_t k = 0; k < s->n; k++) {
        take_from_bucket(prefix, (uint32_t)((replica->prefix_slot - 1) * PER) + k);
    }
    *s = (struct slot){.newest = NONE, .oldest = NONE};
    replica->prefix_slot = 0;
}

void gw_prefix_free(struct gw_prefix *prefix)
{
    if (prefix != NULL) {
        at_free(prefix->slots);
        at_free(prefix->nodes);
        at_free(prefix->buckets);
        at_free(prefix);
    }
}
