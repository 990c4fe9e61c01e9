/* Any text as a key: what is made is accepted, and no text that differs from it in one place is. */
#include "metering/secret.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct at_str text = {(const char *)data, size};
    enum at_meter_secret_form form = at_meter_secret_form(text);
    assert(form != AT_METER_SECRET_FORMED || size == AT_METER_SECRET_BYTES);
    if (size >= AT_METER_SECRET_RANDOM_BYTES + 2) {
        char made[AT_METER_SECRET_BYTES + 1];
        at_meter_secret_make(data, made);
        struct at_str whole = {made, AT_METER_SECRET_BYTES};
        assert(at_meter_secret_form(whole) == AT_METER_SECRET_FORMED);
        size_t at = data[AT_METER_SECRET_RANDOM_BYTES] % AT_METER_SECRET_BYTES;
        char other = (char)data[AT_METER_SECRET_RANDOM_BYTES + 1];
        bool differs = made[at] != other;
        made[at] = other;
        assert(!differs || at_meter_secret_form(whole) != AT_METER_SECRET_FORMED);
    }
    return 0;
}
