#include "core/str.h"

bool at_str_eq(struct at_str a, const char *b)
{
    size_t len = strlen(b);
    return a.len == len && (len == 0 || memcmp(a.ptr, b, len) == 0);
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

bool at_str_eq_nocase(struct at_str a, const char *b)
{
    if (a.len != strlen(b)) {
        return false;
    }
    for (size_t i = 0; i < a.len; i++) {
        if (lower(a.ptr[i]) != lower(b[i])) {
            return false;
        }
    }
    return true;
}

bool at_str_starts(struct at_str a, const char *prefix)
{
    size_t len = strlen(prefix);
    return a.len >= len && (len == 0 || memcmp(a.ptr, prefix, len) == 0);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

struct at_str at_str_trim(struct at_str a)
{
    while (a.len != 0 && is_blank(a.ptr[0])) {
        a.ptr++;
        a.len--;
    }
    while (a.len != 0 && is_blank(a.ptr[a.len - 1])) {
        a.len--;
    }
    return a;
}

struct at_str at_str_cut(struct at_str *rest, char sep)
{
    struct at_str all = *rest;
    const char *at = all.len != 0 ? memchr(all.ptr, sep, all.len) : NULL;
    if (at == NULL) {
        *rest = (struct at_str){all.len != 0 ? all.ptr + all.len : all.ptr, 0};
        return all;
    }
    size_t before = (size_t)(at - all.ptr);
    *rest = (struct at_str){at + 1, all.len - before - 1};
    return (struct at_str){all.ptr, before};
}

enum at_rc at_str_to_u64(struct at_str a, uint64_t *ret)
{
    uint64_t value = 0;
    if (a.len == 0) {
        return AT_INVALID;
    }
    for (size_t i = 0; i < a.len; i++) {
        if (a.ptr[i] < '0' || a.ptr[i] > '9' || __builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(a.ptr[i] - '0'), &value)) {
            return AT_INVALID;
        }
    }
    *ret = value;
    return AT_OK;
}

enum at_rc at_str_to_i64(struct at_str a, int64_t *ret)
{
    bool negative = a.len != 0 && a.ptr[0] == '-';
    if (negative) {
        a.ptr++;
        a.len--;
    }
    uint64_t value = 0;
    if (at_str_to_u64(a, &value) != AT_OK || value > (uint64_t)INT64_MAX + (negative ? 1 : 0)) {
        return AT_INVALID;
    }
    *ret = negative ? (int64_t)(0 - value) : (int64_t)value;
    return AT_OK;
}

bool at_streq(const char *a, const char *b)
{
    if (a == NULL || b == NULL) {
        return a == b;
    }
    return strcmp(a, b) == 0;
}

/* Length of the character at s, 0 when it is not valid. */
static size_t utf8_char(const unsigned char *s, size_t len)
{
    size_t need = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    if (need == 0 || s[0] > 0xf4 || need > len) {
        return 0;
    }
    for (size_t i = 1; i < need; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    bool too_short = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    bool surrogate = s[0] == 0xed && s[1] >= 0xa0;
    bool too_high = s[0] == 0xf4 && s[1] >= 0x90;
    return too_short || surrogate || too_high ? 0 : need;
}

size_t at_str_utf8_prefix(struct at_str a)
{
    size_t at = 0;
    while (at < a.len) {
        size_t step = utf8_char((const unsigned char *)a.ptr + at, a.len - at);
        if (step == 0) {
            break;
        }
        at += step;
    }
    return at;
}
