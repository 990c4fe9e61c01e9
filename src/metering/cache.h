/* Answers kept for requests that are the same byte for byte, in bounded memory, the least used
 * going first. One loop's own; nothing is shared. */
#ifndef AT_METERING_CACHE_H
#define AT_METERING_CACHE_H

#include "core/buf.h"
#include "core/str.h"

struct at_meter_cache;
struct at_meter_cached;

/* bytes_max: of requests, answers and what is kept beside them. own: at_meter_cache_free. */
struct at_meter_cache *at_meter_cache_new(size_t bytes_max);
void at_meter_cache_free(struct at_meter_cache *cache); /* accepts NULL */

/* Whose answers, of which model, to what: all bytes count. */
struct at_meter_ask {
    struct at_str scope, model, target, body;
};

struct at_meter_reply {
    struct at_str head; /* lines of a head */
    struct at_str body;
    bool is_stream;
    uint64_t tag;                /* the giver's: told by it whether the answer still holds */
    uint64_t prompt, completion; /* tokens */
};

/* What is kept, borrowed until the cache is next changed. false: nothing is. */
bool at_meter_cache_find(struct at_meter_cache *cache, const struct at_meter_ask *ask,
                         int64_t now_ns, struct at_meter_reply *ret);
/* Copies all of it. What is larger than an eighth of the cache is not kept. */
void at_meter_cache_put(struct at_meter_cache *cache, const struct at_meter_ask *ask,
                        const struct at_meter_reply *reply, int64_t until_ns);
void at_meter_cache_forget(struct at_meter_cache *cache, const struct at_meter_ask *ask);
size_t at_meter_cache_bytes(const struct at_meter_cache *cache);
/* The same for the same request, and seldom for others: to find who asks for it just now. */
uint64_t at_meter_ask_hash(const struct at_meter_cache *cache, const struct at_meter_ask *ask);
bool at_meter_ask_same(const struct at_meter_ask *a, const struct at_meter_ask *b);

#endif
