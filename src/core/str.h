/* String slices: borrowed bytes with a length, not NUL-terminated. */
#ifndef AT_CORE_STR_H
#define AT_CORE_STR_H

#include "core/err.h"

#include <string.h>

struct at_str {
    const char *ptr;
    size_t len;
};

#define AT_STR(literal) ((struct at_str){(literal), sizeof(literal) - 1})

static inline struct at_str at_str_of(const char *s)
{
    return (struct at_str){s, s != NULL ? strlen(s) : 0};
}
bool at_str_eq(struct at_str a, const char *b);
bool at_str_eq_nocase(struct at_str a, const char *b); /* ASCII */
bool at_str_starts(struct at_str a, const char *prefix);
struct at_str at_str_trim(struct at_str a); /* spaces and tabs at both ends */
/* Cut *rest at the first sep: returns what stands before, *rest becomes what stands after (empty at
 * the end). */
struct at_str at_str_cut(struct at_str *rest, char sep);
/* Decimal only, whole slice, no sign for u64. err: AT_INVALID not a number or out of range. */
enum at_rc at_str_to_u64(struct at_str a, uint64_t *ret) AT_WARN_UNUSED;
enum at_rc at_str_to_i64(struct at_str a, int64_t *ret) AT_WARN_UNUSED;
/* How many bytes at the front are whole, valid UTF-8 characters (RFC 3629); a.len when all are. */
size_t at_str_utf8_prefix(struct at_str a);
/* strcmp that accepts NULL on both sides (NULL equals NULL only). */
bool at_streq(const char *a, const char *b);

#endif
