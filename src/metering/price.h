/* What requests cost, in thousand-millionths of a dollar: a token may cost less than a millionth.
 * Pure. */
#ifndef AT_METERING_PRICE_H
#define AT_METERING_PRICE_H

#include <stdint.h>

struct at_meter_price {
    int64_t input_microusd, output_microusd; /* for a million tokens */
    int64_t request_microusd;
};

#define AT_METER_COST_MAX (INT64_MAX / 4)

/* Rounded up, never above AT_METER_COST_MAX, for counts and prices of 0 or more. */
int64_t at_meter_cost_nanousd(const struct at_meter_price *price, uint64_t prompt_tokens,
                              uint64_t completion_tokens);
/* How many tokens of an answer left_nanousd pays for beside the rest; at most max. */
uint64_t at_meter_affordable(const struct at_meter_price *price, uint64_t prompt_tokens,
                             int64_t left_nanousd, uint64_t max);

enum at_meter_window {
    AT_METER_DAY,
    AT_METER_WEEK,
    AT_METER_MONTH,
    AT_METER_TOTAL,
    AT_METER_WINDOWS
};
#define AT_METER_PERIOD_BYTES 16

enum at_meter_window
at_meter_window_of(const char *text); /* AT_METER_WINDOWS: there is none such */
const char *at_meter_window_name(enum at_meter_window window);
/* The period that a day (days since 1970 in UTC) is in: "2026-11-24", "2026-W48", "2026-11",
 * "total". */
void at_meter_period(enum at_meter_window window, int64_t day, char out[AT_METER_PERIOD_BYTES]);
int64_t at_meter_day_of(int64_t wall_ns);
/* The first day of the next period; INT64_MAX: there is none. */
int64_t at_meter_period_end(enum at_meter_window window, int64_t day);

#endif
