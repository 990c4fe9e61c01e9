/* What is read must be written and read to the same value again. */
#include "core/mem.h"
#include "core/units.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool same)
{
    if (!same) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AT_CLEANUP(at_cleanup_free) char *text = at_strndup((const char *)data, size);
    char out[AT_UNITS_TEXT_BYTES_MAX];
    int64_t value;
    int64_t again;
    if (at_quantity_milli(text, &value, NULL) == AT_OK) {
        check(at_quantity_milli(at_quantity_format_milli(value, out), &again, NULL) == AT_OK);
        check(value == again);
    }
    if (at_quantity_units(text, &value, NULL) == AT_OK) {
        check(at_quantity_units(at_quantity_format_bytes(value, out), &again, NULL) == AT_OK);
        check(value == again);
    }
    if (at_duration_ns(text, &value, NULL) == AT_OK) {
        check(at_duration_ns(at_duration_format(value, out), &again, NULL) == AT_OK);
        check(value == again);
        at_duration_format_age(value, out);
    }
    if (at_money_microusd(text, &value, NULL) == AT_OK) {
        check(at_money_microusd(at_money_format(value, out), &again, NULL) == AT_OK);
        check(value == again);
    }
    if (at_time_parse(text, &value, NULL) == AT_OK) {
        check(at_time_parse(at_time_format_micro(value, out), &again, NULL) == AT_OK);
        check(value - again >= 0);
        check(value - again < AT_NS_PER_US);
    }
    return 0;
}
