/* Any bytes as a log: what is read is whole, in order and inside; written again it is the same. */
#include "metering/record.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct at_meter_record r;
    size_t at = 0, before = 0;
    while (at_meter_record_read(data, size, &at, &r) == AT_OK) {
        assert(at > before);
        assert(at <= size);
        assert(r.type > AT_METER_END);
        assert(r.type < AT_METER_TYPES);
        if (r.type == AT_METER_USE) {
            unsigned char again[256];
            at_meter_fixed_write(AT_METER_USE, &r.use, again);
            assert(memcmp(again + 16, data + before + 16, sizeof r.use) == 0);
        } else if (r.type == AT_METER_KEY || r.type == AT_METER_MODEL) {
            const char *end = (const char *)data + at;
            assert(r.name.ptr + r.name.len <= end);
            assert(r.type == AT_METER_MODEL || r.team.ptr + r.team.len <= end);
        }
        before = at;
    }
    return 0;
}
