#include "core/buf.h"

#include "core/mem.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void at_buf_init(struct at_buf *buf, size_t max_bytes)
{
    *buf = (struct at_buf){.max = max_bytes};
}

void at_buf_done(struct at_buf *buf)
{
    if (buf != NULL) {
        free(buf->data);
        *buf = (struct at_buf){.max = buf->max};
    }
}

static enum at_rc grow(struct at_buf *buf, size_t len)
{
    size_t max = buf->max != 0 ? buf->max : AT_BUF_BYTES_MAX_DEFAULT;
    assert(buf->cap == 0 || buf->len < buf->cap);
    if (buf->len > max || len > max - buf->len) {
        return AT_TOO_LARGE;
    }
    size_t need = buf->len + len + 1;
    if (need <= buf->cap) {
        return AT_OK;
    }
    size_t cap = buf->cap != 0 ? buf->cap : 64;
    while (cap < need) {
        cap *= 2;
    }
    char *data = realloc(buf->data, cap);
    if (data == NULL) {
        return AT_NOMEM;
    }
    buf->data = data;
    buf->cap = cap;
    buf->data[buf->len] = '\0';
    return AT_OK;
}

enum at_rc at_buf_append(struct at_buf *buf, const void *data, size_t len)
{
    enum at_rc rc = grow(buf, len);
    if (rc != AT_OK) {
        return rc;
    }
    if (len != 0) {
        memcpy(buf->data + buf->len, data, len);
    }
    buf->len += len;
    buf->data[buf->len] = '\0';
    return AT_OK;
}

enum at_rc at_buf_append_str(struct at_buf *buf, const char *s)
{
    return at_buf_append(buf, s, strlen(s));
}

enum at_rc at_buf_printf(struct at_buf *buf, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    va_list again;
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    enum at_rc rc = len >= 0 ? grow(buf, (size_t)len) : AT_INVALID;
    if (rc == AT_OK) {
        vsnprintf(buf->data + buf->len, (size_t)len + 1, fmt, again);
        buf->len += (size_t)len;
    }
    va_end(again);
    return rc;
}

enum at_rc at_buf_reserve(struct at_buf *buf, size_t len, char **ret_place)
{
    enum at_rc rc = grow(buf, len);
    if (rc == AT_OK) {
        *ret_place = buf->data + buf->len;
    }
    return rc;
}

void at_buf_commit(struct at_buf *buf, size_t len)
{
    assert(buf->len + len < buf->cap || (len == 0 && buf->cap == 0));
    if (buf->data != NULL) {
        buf->len += len;
        buf->data[buf->len] = '\0';
    }
}

void at_buf_consume(struct at_buf *buf, size_t len)
{
    assert(len <= buf->len);
    if (len != 0) {
        memmove(buf->data, buf->data + len, buf->len - len + 1);
        buf->len -= len;
    }
}

void at_buf_clear(struct at_buf *buf)
{
    if (buf->len != 0) { /* else it is there, and its memory need not be touched */
        buf->len = 0;
        buf->data[0] = '\0';
    }
}

char *at_buf_steal(struct at_buf *buf, size_t *ret_len)
{
    char *data = buf->data != NULL ? buf->data : at_strdup("");
    if (ret_len != NULL) {
        *ret_len = buf->len;
    }
    *buf = (struct at_buf){.max = buf->max};
    return data;
}
