/* Which replica has seen the beginning of a prompt: hashes of its blocks, each over all that stands
 * before, and for each replica those that it had last (least recently used go first). Learned from
 * where requests were sent; replicas are not asked. One loop's own; lesson.h tells the others. */
#ifndef AT_GATEWAY_PREFIX_H
#define AT_GATEWAY_PREFIX_H

#include "core/str.h"
#include "gateway/limits.h"

struct gw_prefix; /* NULL: nothing is known yet */
struct gw_replica;

/* Hashes of the whole blocks of text; how many. cost: a nanosecond for some bytes. */
size_t gw_prefix_chain(struct at_str text, uint64_t seed, uint64_t out[AT_GW_PREFIX_BLOCKS_MAX]);
/* The replica has all these blocks now; *prefix is made when it is needed. Allocates only for a
 * replica's first. */
void gw_prefix_learn(struct gw_prefix **prefix, struct gw_replica *replica, const uint64_t *chain,
                     size_t n);
/* How many blocks at the beginning any replica has; and who they are. *ret_n <= max of them. */
size_t gw_prefix_find(const struct gw_prefix *prefix, const uint64_t *chain, size_t n,
                      struct gw_replica **ret, size_t max, size_t *ret_n);
size_t gw_prefix_depth(const struct gw_prefix *prefix, const uint64_t *chain, size_t n,
                       const struct gw_replica *replica);
void gw_prefix_forget(struct gw_prefix *prefix, struct gw_replica *replica);
void gw_prefix_free(struct gw_prefix *prefix);

#endif
