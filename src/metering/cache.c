#include "metering/cache.h"

#include "core/mem.h"

#include <string.h>

#define SLOTS 4096 /* chains */

struct at_meter_cached {
    struct at_meter_cached *next; /* in its chain */
    struct at_meter_cached *newer, *older;
    uint64_t hash, tag, prompt, completion;
    int64_t until_ns;
    size_t bytes;
    size_t n_scope, n_model, n_target, n_body, n_head, n_reply;
    bool is_stream;
    char text[]; /* one behind the other */
};

struct at_meter_cache {
    size_t bytes, bytes_max;
    struct at_meter_cached *newest, *oldest;
    struct at_meter_cached *slots[SLOTS];
};

struct at_meter_cache *at_meter_cache_new(size_t bytes_max)
{
    struct at_meter_cache *cache = AT_NEW(struct at_meter_cache);
    cache->bytes_max = bytes_max;
    return cache;
}

static uint64_t mix(uint64_t hash, struct at_str text)
{
    /* Wang Yi, wyhash's final step over words; a collision costs a comparison and no more. */
    static const uint64_t SECRET = 0xa0761d6478bd642full;
    const char *p = text.ptr;
    size_t left = text.len;
    hash ^= text.len;
    while (left > 0) {
        uint64_t word = 0;
        size_t n = left < 8 ? left : 8;
        memcpy(&word, p, n);
        unsigned __int128 product =
            (unsigned __int128)(hash ^ word ^ SECRET) * 0xe7037ed1a0b428dbull;
        hash = (uint64_t)product ^ (uint64_t)(product >> 64);
        p += n;
        left -= n;
    }
    return hash;
}

uint64_t at_meter_ask_hash(const struct at_meter_cache *cache, const struct at_meter_ask *ask)
{
    (void)cache;
    return mix(mix(mix(mix(1, ask->scope), ask->model), ask->target), ask->body);
}

static bool same(struct at_str a, struct at_str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

bool at_meter_ask_same(const struct at_meter_ask *a, const struct at_meter_ask *b)
{
    return same(a->scope, b->scope) && same(a->model, b->model) && same(a->target, b->target) &&
           same(a->body, b->body);
}

static struct at_meter_ask ask_of(const struct at_meter_cached *c)
{
    const char *p = c->text;
    return (struct at_meter_ask){.scope = {p, c->n_scope},
                                 .model = {p + c->n_scope, c->n_model},
                                 .target = {p + c->n_scope + c->n_model, c->n_target},
                                 .body = {p + c->n_scope + c->n_model + c->n_target, c->n_body}};
}

static struct at_meter_cached **find(struct at_meter_cache *cache, uint64_t hash,
                                     const struct at_meter_ask *ask)
{
    struct at_meter_cached **at = &cache->slots[hash % SLOTS];
    for (; *at != NULL; at = &(*at)->next) {
        struct at_meter_ask kept = ask_of(*at);
        if ((*at)->hash == hash && at_meter_ask_same(&kept, ask)) {
            return at;
        }
    }
    return NULL;
}

static void unlink_age(struct at_meter_cache *cache, struct at_meter_cached *c)
{
    *(c->newer != NULL ? &c->newer->older : &cache->newest) = c->older;
    *(c->older != NULL ? &c->older->newer : &cache->oldest) = c->newer;
}

static void link_newest(struct at_meter_cache *cache, struct at_meter_cached *c)
{
    c->newer = NULL;
    c->older = cache->newest;
    *(cache->newest != NULL ? &cache->newest->newer : &cache->oldest) = c;
    cache->newest = c;
}

static void drop(struct at_meter_cache *cache, struct at_meter_cached **at)
{
    struct at_meter_cached *c = *at;
    *at = c->next;
    unlink_age(cache, c);
    cache->bytes -= c->bytes;
    at_free(c);
}

static void drop_one(struct at_meter_cache *cache, struct at_meter_cached *c)
{
    struct at_meter_cached **at = &cache->slots[c->hash % SLOTS];
    while (*at != c) {
        at = &(*at)->next;
    }
    drop(cache, at);
}

bool at_meter_cache_find(struct at_meter_cache *cache, const struct at_meter_ask *ask,
                         int64_t now_ns, struct at_meter_reply *ret)
{
    struct at_meter_cached **at = find(cache, at_meter_ask_hash(cache, ask), ask);
    if (at == NULL) {
        return false;
    }
    struct at_meter_cached *c = *at;
    if (c->until_ns <= now_ns) {
        drop(cache, at);
        return false;
    }
    unlink_age(cache, c);
    link_newest(cache, c);
    const char *head = c->text + c->n_scope + c->n_model + c->n_target + c->n_body;
    *ret = (struct at_meter_reply){.head = {head, c->n_head},
                                   .body = {head + c->n_head + 1, c->n_reply},
                                   .is_stream = c->is_stream,
                                   .tag = c->tag,
                                   .prompt = c->prompt,
                                   .completion = c->completion};
    return true;
}

void at_meter_cache_forget(struct at_meter_cache *cache, const struct at_meter_ask *ask)
{
    struct at_meter_cached **at = find(cache, at_meter_ask_hash(cache, ask), ask);
    if (at != NULL) {
        drop(cache, at);
    }
}

static char *put(char *to, struct at_str text)
{
    if (text.len > 0) {
        memcpy(to, text.ptr, text.len);
    }
    return to + text.len;
}

void at_meter_cache_put(struct at_meter_cache *cache, const struct at_meter_ask *ask,
                        const struct at_meter_reply *reply, int64_t until_ns)
{
    size_t bytes = sizeof(struct at_meter_cached) + ask->scope.len + ask->model.len +
                   ask->target.len + ask->body.len + reply->head.len + 1 + reply->body.len + 1;
    at_meter_cache_forget(cache, ask);
    if (bytes > cache->bytes_max / 8) {
        return;
    }
    while (cache->bytes + bytes > cache->bytes_max) {
        drop_one(cache, cache->oldest);
    }
    struct at_meter_cached *c = at_alloc(bytes);
    *c = (struct at_meter_cached){.hash = at_meter_ask_hash(cache, ask),
                                  .tag = reply->tag,
                                  .prompt = reply->prompt,
                                  .completion = reply->completion,
                                  .until_ns = until_ns,
                                  .bytes = bytes,
                                  .n_scope = ask->scope.len,
                                  .n_model = ask->model.len,
                                  .n_target = ask->target.len,
                                  .n_body = ask->body.len,
                                  .n_head = reply->head.len,
                                  .n_reply = reply->body.len,
                                  .is_stream = reply->is_stream};
    char *p = put(put(put(put(c->text, ask->scope), ask->model), ask->target), ask->body);
    p = put(p, reply->head); /* the NUL behind it, and behind the body, are at_alloc's zeros */
    put(p + 1, reply->body);
    c->next = cache->slots[c->hash % SLOTS];
    cache->slots[c->hash % SLOTS] = c;
    link_newest(cache, c);
    cache->bytes += bytes;
}

size_t at_meter_cache_bytes(const struct at_meter_cache *cache)
{
    return cache->bytes;
}

void at_meter_cache_free(struct at_meter_cache *cache)
{
    while (cache != NULL && cache->newest != NULL) {
        drop_one(cache, cache->newest);
    }
    at_free(cache);
}
