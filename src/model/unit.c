/* Values with a unit: text or a bare number in JSON, int64_t in C. */
#include "model/model_priv.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#define NUMBER_BYTES_MAX 400 /* "%.6f" of the largest double */

static const char *number_text(enum at_model_unit unit, const json_t *value,
                               char out[NUMBER_BYTES_MAX])
{
    if (json_is_integer(value)) {
        snprintf(out, NUMBER_BYTES_MAX, "%" PRId64, (int64_t)json_integer_value(value));
    } else if (unit == AT_MODEL_UNIT_MONEY) {
        snprintf(out, NUMBER_BYTES_MAX, "%.6f", json_real_value(value));
    } else {
        /* 15 digits: what people write comes back as written, 0.1 as 0.1. */
        snprintf(out, NUMBER_BYTES_MAX, "%.15g", json_real_value(value));
    }
    return out;
}

static enum at_rc parse_text(enum at_model_unit unit, const char *text, int64_t *ret,
                             struct at_err *err)
{
    switch (unit) {
    case AT_MODEL_UNIT_CPU:
    case AT_MODEL_UNIT_GPU:
        return at_quantity_milli(text, ret, err);
    case AT_MODEL_UNIT_BYTES:
        return at_quantity_units(text, ret, err);
    case AT_MODEL_UNIT_DURATION:
        return at_duration_ns(text, ret, err);
    case AT_MODEL_UNIT_TIME:
        return at_time_parse(text, ret, err);
    case AT_MODEL_UNIT_MONEY:
        return at_money_microusd(text, ret, err);
    case AT_MODEL_UNIT_NONE:
        break;
    }
    assert(!"a unit field without a unit");
    return AT_INTERNAL;
}

enum at_rc at_model_unit_parse(enum at_model_unit unit, const json_t *value, int64_t *ret,
                               struct at_err *err)
{
    char number[NUMBER_BYTES_MAX];
    const char *text = json_string_value(value);
    if (json_is_number(value) && unit != AT_MODEL_UNIT_TIME) {
        text = number_text(unit, value, number);
    }
    if (text == NULL) {
        return at_err_set(err, AT_INVALID, "must be text");
    }
    int64_t parsed = 0;
    enum at_rc rc = parse_text(unit, text, &parsed, err);
    if (rc != AT_OK) {
        return rc;
    }
    if (parsed < 0) {
        return at_err_set(err, AT_INVALID, "must not be negative");
    }
    *ret = parsed;
    return AT_OK;
}

json_t *at_model_unit_json(enum at_model_unit unit, int64_t value)
{
    char out[AT_UNITS_TEXT_BYTES_MAX];
    switch (unit) {
    case AT_MODEL_UNIT_CPU:
    case AT_MODEL_UNIT_GPU:
        return json_string(at_quantity_format_milli(value, out));
    case AT_MODEL_UNIT_BYTES:
        return json_string(at_quantity_format_bytes(value, out));
    case AT_MODEL_UNIT_DURATION:
        return json_string(at_duration_format(value, out));
    case AT_MODEL_UNIT_TIME:
        return json_string(value % AT_NS_PER_S == 0 ? at_time_format(value, out)
                                                    : at_time_format_micro(value, out));
    case AT_MODEL_UNIT_MONEY:
        return json_string(at_money_format(value, out));
    case AT_MODEL_UNIT_NONE:
        break;
    }
    assert(!"a unit field without a unit");
    return NULL;
}
