#include "metering/price.h"

#include "core/mem.h"
#include "core/str.h"

#include <stdio.h>
#include <string.h>

typedef unsigned __int128 wide;

/* price is for a million: a millionth of a dollar for a million tokens is 10^-12 for one. */
static wide pico_of(int64_t price_microusd, uint64_t tokens)
{
    return price_microusd > 0 ? (wide)(uint64_t)price_microusd * tokens : 0;
}

int64_t at_meter_cost_nanousd(const struct at_meter_price *price, uint64_t prompt_tokens,
                              uint64_t completion_tokens)
{
    wide pico = pico_of(price->input_microusd, prompt_tokens) +
                pico_of(price->output_microusd, completion_tokens) +
                pico_of(price->request_microusd, 1000000);
    wide nano = (pico + 999) / 1000;
    return nano < (wide)AT_METER_COST_MAX ? (int64_t)nano : AT_METER_COST_MAX;
}

uint64_t at_meter_affordable(const struct at_meter_price *price, uint64_t prompt_tokens,
                             int64_t left_nanousd, uint64_t max)
{
    int64_t fixed = at_meter_cost_nanousd(price, prompt_tokens, 0);
    if (left_nanousd < fixed) {
        return 0;
    }
    if (price->output_microusd <= 0) {
        return max;
    }
    wide tokens = (wide)(uint64_t)(left_nanousd - fixed) * 1000 / (uint64_t)price->output_microusd;
    return tokens < max ? (uint64_t)tokens : max;
}

static const char *const WINDOWS[] = {"Day", "Week", "Month", "Total"};

enum at_meter_window at_meter_window_of(const char *text)
{
    int i = 0;
    while (i < AT_METER_WINDOWS && !at_streq(WINDOWS[i], text)) {
        i++;
    }
    return (enum at_meter_window)i;
}

const char *at_meter_window_name(enum at_meter_window window)
{
    return WINDOWS[window];
}

struct date {
    int64_t year;
    unsigned month, day;
};

/* Days since 1970-01-01 to a date of the proleptic Gregorian calendar, and back: H. Hinnant,
 * "chrono-Compatible Low-Level Date Algorithms", civil_from_days and days_from_civil. */
static struct date date_of(int64_t days)
{
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    unsigned of_era = (unsigned)(days - era * 146097);
    unsigned year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    unsigned of_year = of_era - (365 * year + year / 4 - year / 100);
    unsigned month = (5 * of_year + 2) / 153;
    struct date d = {.year = (int64_t)year + era * 400,
                     .month = month < 10 ? month + 3 : month - 9,
                     .day = of_year - (153 * month + 2) / 5 + 1};
    d.year += d.month <= 2;
    return d;
}

static int64_t days_of(int64_t year, unsigned month, unsigned day)
{
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    unsigned of_era = (unsigned)(year - era * 400);
    unsigned of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    return era * 146097 + (int64_t)(of_era * 365 + of_era / 4 - of_era / 100 + of_year) - 719468;
}

static int64_t monday_of(int64_t day)
{
    int64_t weekday = (day + 3) % 7; /* 1970-01-01 was a Thursday */
    return day - (weekday < 0 ? weekday + 7 : weekday);
}

void at_meter_period(enum at_meter_window window, int64_t day, char out[AT_METER_PERIOD_BYTES])
{
    struct date d = date_of(window == AT_METER_WEEK ? monday_of(day) + 3 : day);
    int year = (int)(d.year < 0 ? 0 : d.year > 9999 ? 9999 : d.year);
    switch (window) {
    case AT_METER_DAY:
        snprintf(out, AT_METER_PERIOD_BYTES, "%04d-%02u-%02u", year, d.month % 100, d.day % 100);
        return;
    case AT_METER_WEEK: { /* ISO 8601: the year and number of the week are those of its Thursday */
        int64_t week = (monday_of(day) + 3 - days_of(d.year, 1, 1)) / 7 + 1;
        snprintf(out, AT_METER_PERIOD_BYTES, "%04d-W%02u", year, (unsigned)week % 100);
        return;
    }
    case AT_METER_MONTH:
        snprintf(out, AT_METER_PERIOD_BYTES, "%04d-%02u", year, d.month % 100);
        return;
    case AT_METER_TOTAL:
    case AT_METER_WINDOWS:
        break;
    }
    snprintf(out, AT_METER_PERIOD_BYTES, "total");
}

int64_t at_meter_period_end(enum at_meter_window window, int64_t day)
{
    struct date d = date_of(day);
    switch (window) {
    case AT_METER_DAY:
        return day + 1;
    case AT_METER_WEEK:
        return monday_of(day) + 7;
    case AT_METER_MONTH:
        return d.month == 12 ? days_of(d.year + 1, 1, 1) : days_of(d.year, d.month + 1, 1);
    case AT_METER_TOTAL:
    case AT_METER_WINDOWS:
        break;
    }
    return INT64_MAX;
}

int64_t at_meter_day_of(int64_t wall_ns)
{
    static const int64_t DAY_NS = (int64_t)86400 * 1000000000;
    return wall_ns >= 0 ? wall_ns / DAY_NS : -((-wall_ns + DAY_NS - 1) / DAY_NS);
}
