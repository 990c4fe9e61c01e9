/* Pieces of heads, put where there is room for them. */
#ifndef AT_NET_HTTP_PUT_H
#define AT_NET_HTTP_PUT_H

#include <stdint.h>
#include <string.h>

static inline char *put(char *to, const char *text, size_t len)
{
    memcpy(to, text, len);
    return to + len;
}

#define PUT_LITERAL(to, literal) put(to, literal, sizeof(literal) - 1)

static inline char *put_number(char *to, uint64_t value)
{
    char digits[20];
    size_t n = 0;
    do {
        digits[n++] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    while (n > 0) {
        *to++ = digits[--n];
    }
    return to;
}

#endif
