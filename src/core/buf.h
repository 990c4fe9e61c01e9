/* Growable byte buffer with a cap; data[0..len) is always followed by a NUL when data is not NULL.
 */
#ifndef AT_CORE_BUF_H
#define AT_CORE_BUF_H

#include "core/err.h"

struct at_buf {
    char *data;
    size_t len;
    size_t cap;
    size_t max; /* 0: AT_BUF_BYTES_MAX_DEFAULT */
};

#define AT_BUF_BYTES_MAX_DEFAULT ((size_t)64 << 20)

void at_buf_init(struct at_buf *buf, size_t max_bytes); /* or zero-initialise */
void at_buf_done(struct at_buf *buf);
/* err: AT_TOO_LARGE the cap would be passed; nothing is appended then. */
enum at_rc at_buf_append(struct at_buf *buf, const void *data, size_t len) AT_WARN_UNUSED;
enum at_rc at_buf_append_str(struct at_buf *buf, const char *s) AT_WARN_UNUSED;
enum at_rc at_buf_printf(struct at_buf *buf, const char *fmt, ...) AT_PRINTF(2, 3) AT_WARN_UNUSED;
/* Make room for len more bytes and give the place; at_buf_commit tells how many were written there.
 */
enum at_rc at_buf_reserve(struct at_buf *buf, size_t len, char **ret_place) AT_WARN_UNUSED;
void at_buf_commit(struct at_buf *buf, size_t len);
void at_buf_consume(struct at_buf *buf, size_t len);     /* drop the first len bytes; memmove */
void at_buf_clear(struct at_buf *buf);                   /* len = 0, memory kept */
char *at_buf_steal(struct at_buf *buf, size_t *ret_len); /* own: caller frees with at_free */

static inline void at_cleanup_buf(struct at_buf *buf)
{
    at_buf_done(buf);
}

#endif
