#include "core/units.h"

#include "core/str.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

__extension__ typedef unsigned __int128 u128;

/* Decimal digits with an optional fraction: value = mantissa / 10^fraction (sticky: something
 * non-zero was cut off behind it). */
struct decimal {
    u128 mantissa;
    int fraction;
    bool sticky;
};

/* Beyond this, fraction digits are only remembered as "more than nothing", so that the mantissa
 * times 1000 times 2^60 stays below 2^128. */
#define MANTISSA_KEEP_MAX ((u128)1000000000000000)
#define MANTISSA_MAX ((u128)1 << 64)

/* Reads at *at and moves it on; false: no digits, or too many. */
static bool decimal_read(const char **at, struct decimal *ret)
{
    struct decimal d = {0};
    const char *s = *at;
    bool any = false;
    for (; isdigit((unsigned char)*s); s++) {
        any = true;
        d.mantissa = d.mantissa * 10 + (unsigned)(*s - '0');
        if (d.mantissa > MANTISSA_MAX) {
            return false;
        }
    }
    if (*s == '.') {
        for (s++; isdigit((unsigned char)*s); s++) {
            any = true;
            if (d.mantissa < MANTISSA_KEEP_MAX) {
                d.mantissa = d.mantissa * 10 + (unsigned)(*s - '0');
                d.fraction++;
            } else {
                d.sticky = d.sticky || *s != '0';
            }
        }
    }
    *at = s;
    *ret = d;
    return any;
}

/* d * scale * 10^exp10, rounded up, when it fits. */
static bool decimal_scale(struct decimal d, u128 scale, int exp10, int64_t *ret)
{
    u128 value = d.mantissa;
    if (__builtin_mul_overflow(value, scale, &value)) {
        return false;
    }
    int ten = exp10 - d.fraction;
    for (; ten > 0 && value != 0; ten--) {
        if (__builtin_mul_overflow(value, (u128)10, &value)) {
            return false;
        }
    }
    bool rest = d.sticky;
    for (; ten < 0 && value != 0; ten++) {
        rest = rest || value % 10 != 0;
        value /= 10;
    }
    value += rest ? 1 : 0;
    if (value > INT64_MAX) {
        return false;
    }
    *ret = (int64_t)value;
    return true;
}

struct suffix {
    const char *text;
    int exp10;
    int exp2;
};

static const struct suffix SUFFIXES[] = {
    {"", 0, 0},    {"n", -9, 0},  {"u", -6, 0},  {"m", -3, 0},  {"k", 3, 0},   {"M", 6, 0},
    {"G", 9, 0},   {"T", 12, 0},  {"P", 15, 0},  {"E", 18, 0},  {"Ki", 0, 10}, {"Mi", 0, 20},
    {"Gi", 0, 30}, {"Ti", 0, 40}, {"Pi", 0, 50}, {"Ei", 0, 60},
};

static bool exponent_read(const char *s, int *ret)
{
    if (*s != 'e' && *s != 'E') {
        return false;
    }
    int64_t value;
    const char *digits = s[1] == '+' ? s + 2 : s + 1;
    if (s[1] == '+' && s[2] == '-') {
        return false;
    }
    if (at_str_to_i64(at_str_of(digits), &value) != AT_OK || value < -100 || value > 100) {
        return false;
    }
    *ret = (int)value;
    return true;
}

static bool suffix_read(const char *s, struct suffix *ret)
{
    for (size_t i = 0; i < sizeof SUFFIXES / sizeof SUFFIXES[0]; i++) {
        if (strcmp(s, SUFFIXES[i].text) == 0) {
            *ret = SUFFIXES[i];
            return true;
        }
    }
    *ret = (struct suffix){"", 0, 0};
    return exponent_read(s, &ret->exp10);
}

static enum at_rc quantity(const char *text, int more_exp10, int64_t *ret, struct at_err *err)
{
    const char *at = text;
    bool negative = *at == '-';
    if (*at == '-' || *at == '+') {
        at++;
    }
    struct decimal d;
    struct suffix suffix;
    if (!decimal_read(&at, &d) || !suffix_read(at, &suffix)) {
        return at_err_set(err, AT_INVALID,
                          "\"%.80s\" is not a quantity; write for example 500m, 2 or 8Gi", text);
    }
    int64_t value;
    if (!decimal_scale(d, (u128)1 << suffix.exp2, suffix.exp10 + more_exp10, &value)) {
        return at_err_set(err, AT_INVALID, "\"%.80s\" is out of range", text);
    }
    *ret = negative ? -value : value;
    return AT_OK;
}

enum at_rc at_quantity_milli(const char *text, int64_t *ret_milli, struct at_err *err)
{
    return quantity(text, 3, ret_milli, err);
}

enum at_rc at_quantity_units(const char *text, int64_t *ret_units, struct at_err *err)
{
    return quantity(text, 0, ret_units, err);
}

struct duration_unit {
    const char *text;
    int64_t ns;
};

/* Longest first where one begins another. */
static const struct duration_unit DURATION_UNITS[] = {
    {"ns", 1},
    {"us", AT_NS_PER_US},
    {"\xc2\xb5s", AT_NS_PER_US},
    {"\xce\xbcs", AT_NS_PER_US},
    {"ms", AT_NS_PER_MS},
    {"s", AT_NS_PER_S},
    {"m", 60 * AT_NS_PER_S},
    {"h", 3600 * AT_NS_PER_S},
    {"d", 86400 * AT_NS_PER_S},
};

static int64_t duration_unit_read(const char **at)
{
    for (size_t i = 0; i < sizeof DURATION_UNITS / sizeof DURATION_UNITS[0]; i++) {
        size_t len = strlen(DURATION_UNITS[i].text);
        if (strncmp(*at, DURATION_UNITS[i].text, len) == 0) {
            *at += len;
            return DURATION_UNITS[i].ns;
        }
    }
    return 0;
}

enum at_rc at_duration_ns(const char *text, int64_t *ret_ns, struct at_err *err)
{
    int64_t total = 0;
    const char *at = text;
    do {
        struct decimal d;
        const char *number = at;
        if (!decimal_read(&at, &d)) {
            goto bad;
        }
        int64_t unit = number == text && *at == '\0' ? AT_NS_PER_S : duration_unit_read(&at);
        int64_t part;
        if (unit == 0) {
            goto bad;
        }
        if (!decimal_scale(d, (u128)unit, 0, &part) ||
            __builtin_add_overflow(total, part, &total)) {
            return at_err_set(err, AT_INVALID, "\"%.80s\" is too long a duration", text);
        }
    } while (*at != '\0');
    *ret_ns = total;
    return AT_OK;
bad:
    return at_err_set(err, AT_INVALID,
                      "\"%.80s\" is not a duration; write for example 250ms, 30s or 1h30m", text);
}

enum at_rc at_money_microusd(const char *text, int64_t *ret_microusd, struct at_err *err)
{
    const char *at = text;
    struct decimal d;
    if (!decimal_read(&at, &d) || *at != '\0') {
        return at_err_set(err, AT_INVALID,
                          "\"%.80s\" is not an amount in dollars; write for example 0.0125", text);
    }
    /* Zeros behind the sixth decimal are only a way of writing. */
    while (d.fraction > 6 && d.mantissa % 10 == 0) {
        d.mantissa /= 10;
        d.fraction--;
    }
    if (d.fraction > 6 || d.sticky) {
        return at_err_set(err, AT_INVALID, "\"%.80s\" has more than six decimals", text);
    }
    return decimal_scale(d, 1, 6, ret_microusd)
               ? AT_OK
               : at_err_set(err, AT_INVALID, "\"%.80s\" is out of range", text);
}

/* By hand, for schedulers say quantities a hundred thousand times a second. */
static char *format_with_suffix(int64_t number, const char *suffix, char *out)
{
    char digits[20]; /* from the last */
    size_t n = 0, at = 0;
    uint64_t left = number < 0 ? -(uint64_t)number : (uint64_t)number;
    do {
        digits[n++] = (char)('0' + left % 10);
        left /= 10;
    } while (left > 0);
    if (number < 0) {
        out[at++] = '-';
    }
    while (n > 0) {
        out[at++] = digits[--n];
    }
    assert(at + strlen(suffix) < AT_UNITS_TEXT_BYTES_MAX);
    memcpy(out + at, suffix, strlen(suffix) + 1);
    return out;
}

char *at_quantity_format_milli(int64_t milli, char *out)
{
    return milli % 1000 == 0 ? format_with_suffix(milli / 1000, "", out)
                             : format_with_suffix(milli, "m", out);
}

char *at_quantity_format_bytes(int64_t bytes, char *out)
{
    static const char *const NAMES[] = {"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"};
    size_t power = 0;
    while (bytes != 0 && bytes % 1024 == 0 && power + 1 < sizeof NAMES / sizeof NAMES[0]) {
        bytes /= 1024;
        power++;
    }
    return format_with_suffix(bytes, NAMES[power], out);
}

char *at_duration_format(int64_t ns, char *out)
{
    static const struct duration_unit PARTS[] = {
        {"h", 3600 * AT_NS_PER_S}, {"m", 60 * AT_NS_PER_S}, {"s", AT_NS_PER_S},
        {"ms", AT_NS_PER_MS},      {"us", AT_NS_PER_US},    {"ns", 1},
    };
    uint64_t left = ns < 0 ? 0 - (uint64_t)ns : (uint64_t)ns;
    size_t used = 0;
    if (left == 0) {
        snprintf(out, AT_UNITS_TEXT_BYTES_MAX, "0s");
        return out;
    }
    if (ns < 0) {
        out[used++] = '-';
    }
    for (size_t i = 0; i < sizeof PARTS / sizeof PARTS[0]; i++) {
        uint64_t count = left / (uint64_t)PARTS[i].ns;
        left %= (uint64_t)PARTS[i].ns;
        if (count != 0) {
            used += (size_t)snprintf(out + used, AT_UNITS_TEXT_BYTES_MAX - used, "%llu%s",
                                     (unsigned long long)count, PARTS[i].text);
        }
    }
    return out;
}

static char *two_parts(char *out, int64_t first, const char *first_unit, int64_t second,
                       const char *second_unit)
{
    if (second == 0) {
        snprintf(out, AT_UNITS_TEXT_BYTES_MAX, "%lld%s", (long long)first, first_unit);
    } else {
        snprintf(out, AT_UNITS_TEXT_BYTES_MAX, "%lld%s%lld%s", (long long)first, first_unit,
                 (long long)second, second_unit);
    }
    return out;
}

char *at_duration_format_age(int64_t ns, char *out)
{
    int64_t seconds = ns < 0 ? 0 : ns / AT_NS_PER_S;
    int64_t minutes = seconds / 60;
    int64_t hours = minutes / 60;
    int64_t days = hours / 24;
    if (seconds < 120) {
        return two_parts(out, seconds, "s", 0, "");
    }
    if (minutes < 180) {
        return two_parts(out, minutes, "m", minutes < 10 ? seconds % 60 : 0, "s");
    }
    if (hours < 48) {
        return two_parts(out, hours, "h", hours < 8 ? minutes % 60 : 0, "m");
    }
    if (days < 2 * 365) {
        return two_parts(out, days, "d", days < 8 ? hours % 24 : 0, "h");
    }
    return two_parts(out, days / 365, "y", days < 8 * 365 ? days % 365 : 0, "d");
}

char *at_money_format(int64_t microusd, char *out)
{
    uint64_t left = microusd < 0 ? 0 - (uint64_t)microusd : (uint64_t)microusd;
    int used = snprintf(out, AT_UNITS_TEXT_BYTES_MAX, "%s%llu.%06llu", microusd < 0 ? "-" : "",
                        (unsigned long long)(left / 1000000), (unsigned long long)(left % 1000000));
    while (out[used - 1] == '0') {
        out[--used] = '\0';
    }
    if (out[used - 1] == '.') {
        out[used - 1] = '\0';
    }
    return out;
}
