/* Arena: many small allocations, one release. One per request or reconcile, with a cap. Not thread
 * safe. */
#ifndef AT_CORE_ARENA_H
#define AT_CORE_ARENA_H

#include "core/err.h"

struct at_arena;

#define AT_ARENA_BYTES_MAX_DEFAULT ((size_t)64 << 20)

/* cap_bytes 0 means AT_ARENA_BYTES_MAX_DEFAULT. own: at_arena_free. */
struct at_arena *at_arena_new(size_t cap_bytes);
/* The same with room for first_bytes already in it, for what is kept for long: when nothing more is
 * asked of it, it is one allocation of hardly more than that. */
struct at_arena *at_arena_new_sized(size_t cap_bytes, size_t first_bytes);
/* An arena that allocates from what it is lent, and nothing beyond: what is made there then belongs
 * to the lender. place: at a multiple of 16. */
struct at_arena *at_arena_new_lent(void);
void at_arena_lend(struct at_arena *arena, void *place, size_t bytes);
void at_arena_free(struct at_arena *arena);  /* accepts NULL */
void at_arena_reset(struct at_arena *arena); /* keeps the first chunk for reuse */

/* Zeroed, 16-byte aligned (texts are not). NULL only when the cap would be passed. cost: O(bytes),
 * rarely a malloc.
 */
void *at_arena_alloc(struct at_arena *arena, size_t bytes) AT_WARN_UNUSED;
char *at_arena_strdup(struct at_arena *arena, const char *s);
char *at_arena_strndup(struct at_arena *arena, const char *s, size_t len);
char *at_arena_printf(struct at_arena *arena, const char *fmt, ...) AT_PRINTF(2, 3);
size_t at_arena_used(const struct at_arena *arena);

static inline void at_cleanup_arena(struct at_arena **arena)
{
    at_arena_free(*arena);
}

#endif
