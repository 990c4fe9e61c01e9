/* RFC 3339 times. Days and dates by counting from 1 March, so that the leap day ends a year. */
#include "core/str.h"
#include "core/units.h"

#include <stdio.h>
#include <string.h>

#define DAYS_PER_ERA 146097 /* 400 years */
#define DAYS_TO_1970 719468 /* from 0000-03-01 */

struct civil {
    int64_t year;
    int month, day, hour, minute, second;
};

static int64_t days_of(int64_t year, int month, int day)
{
    year -= month <= 2 ? 1 : 0;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t year_of_era = year - era * 400;
    int month_from_march = month > 2 ? month - 3 : month + 9;
    int64_t day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * DAYS_PER_ERA + day_of_era - DAYS_TO_1970;
}

static struct civil civil_of(int64_t seconds)
{
    int64_t days = seconds / 86400 - (seconds % 86400 < 0 ? 1 : 0);
    int64_t rest = seconds - days * 86400;
    days += DAYS_TO_1970;
    int64_t era = (days >= 0 ? days : days - (DAYS_PER_ERA - 1)) / DAYS_PER_ERA;
    int64_t doe = days - era * DAYS_PER_ERA;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int month_from_march = (int)((5 * doy + 2) / 153);
    struct civil c = {.day = (int)(doy - (153 * month_from_march + 2) / 5 + 1)};
    c.month = month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;
    c.year = yoe + era * 400 + (c.month <= 2 ? 1 : 0);
    c.hour = (int)(rest / 3600);
    c.minute = (int)(rest / 60 % 60);
    c.second = (int)(rest % 60);
    return c;
}

static bool leap(int64_t year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static int days_in(int64_t year, int month)
{
    static const int DAYS[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return month == 2 && leap(year) ? 29 : DAYS[month - 1];
}

/* Exactly `digits` digits, then one of the characters of `then` ("" for none). */
static bool number_read(const char **at, int digits, const char *then, int *ret)
{
    int value = 0;
    for (int i = 0; i < digits; i++, (*at)++) {
        if (**at < '0' || **at > '9') {
            return false;
        }
        value = value * 10 + (**at - '0');
    }
    if (then[0] != '\0') {
        if (**at == '\0' || strchr(then, **at) == NULL) {
            return false;
        }
        (*at)++;
    }
    *ret = value;
    return true;
}

static bool civil_read(const char **at, struct civil *c)
{
    int year;
    if (!number_read(at, 4, "-", &year) || !number_read(at, 2, "-", &c->month) ||
        !number_read(at, 2, "Tt ", &c->day) || !number_read(at, 2, ":", &c->hour) ||
        !number_read(at, 2, ":", &c->minute) || !number_read(at, 2, "", &c->second)) {
        return false;
    }
    c->year = year;
    return c->month >= 1 && c->month <= 12 && c->day >= 1 && c->day <= days_in(year, c->month) &&
           c->hour <= 23 && c->minute <= 59 && c->second <= 60;
}

static bool fraction_read(const char **at, int64_t *ret_ns)
{
    int64_t ns = 0;
    int64_t unit = AT_NS_PER_S / 10;
    if (**at == '.') {
        const char *first = ++*at;
        for (; **at >= '0' && **at <= '9'; (*at)++) {
            ns += (**at - '0') * unit;
            unit /= 10;
        }
        if (*at == first) {
            return false;
        }
    }
    *ret_ns = ns;
    return true;
}

static bool zone_read(const char *at, int64_t *ret_seconds)
{
    if ((*at == 'Z' || *at == 'z') && at[1] == '\0') {
        *ret_seconds = 0;
        return true;
    }
    int sign = *at == '-' ? -1 : 1;
    int hours;
    int minutes;
    if (*at != '-' && *at != '+') {
        return false;
    }
    at++;
    if (!number_read(&at, 2, ":", &hours) || !number_read(&at, 2, "", &minutes) || *at != '\0' ||
        hours > 23 || minutes > 59) {
        return false;
    }
    *ret_seconds = sign * (hours * 3600 + minutes * 60);
    return true;
}

enum at_rc at_time_parse(const char *text, int64_t *ret_wall_ns, struct at_err *err)
{
    struct civil c;
    int64_t ns;
    int64_t zone;
    const char *at = text;
    if (!civil_read(&at, &c) || !fraction_read(&at, &ns) || !zone_read(at, &zone)) {
        return at_err_set(err, AT_INVALID,
                          "\"%.80s\" is not a time; write for example 2026-01-02T03:04:05Z", text);
    }
    int64_t seconds =
        days_of(c.year, c.month, c.day) * 86400 + c.hour * 3600 + c.minute * 60 + c.second - zone;
    int64_t wall;
    if (__builtin_mul_overflow(seconds, AT_NS_PER_S, &wall) ||
        __builtin_add_overflow(wall, ns, &wall)) {
        return at_err_set(err, AT_INVALID, "\"%.80s\" is out of range (1678 to 2261)", text);
    }
    *ret_wall_ns = wall;
    return AT_OK;
}

static int64_t seconds_of(int64_t wall_ns)
{
    return wall_ns / AT_NS_PER_S - (wall_ns % AT_NS_PER_S < 0 ? 1 : 0);
}

char *at_time_format(int64_t wall_ns, char *out)
{
    struct civil c = civil_of(seconds_of(wall_ns));
    snprintf(out, AT_UNITS_TEXT_BYTES_MAX, "%04d-%02d-%02dT%02d:%02d:%02dZ", (int)c.year, c.month,
             c.day, c.hour, c.minute, c.second);
    return out;
}

char *at_time_format_micro(int64_t wall_ns, char *out)
{
    int64_t seconds = seconds_of(wall_ns);
    struct civil c = civil_of(seconds);
    int64_t micros = (wall_ns - seconds * AT_NS_PER_S) / AT_NS_PER_US;
    snprintf(out, AT_UNITS_TEXT_BYTES_MAX, "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ", (int)c.year,
             c.month, c.day, c.hour, c.minute, c.second, (int)micros);
    return out;
}
