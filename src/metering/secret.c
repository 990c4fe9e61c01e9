#include "metering/secret.h"

#include "metering/checksum.h"

#include <string.h>

#define PREFIX_BYTES (sizeof AT_METER_SECRET_PREFIX - 1)
#define BODY_BYTES 40
#define CHECK_BYTES 6

static const char DIGITS[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

static void put_digits(uint64_t value, size_t n, char *out)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = DIGITS[value % 62];
        value /= 62;
    }
}

void at_meter_secret_make(const unsigned char random[AT_METER_SECRET_RANDOM_BYTES],
                          char out[AT_METER_SECRET_BYTES + 1])
{
    memcpy(out, AT_METER_SECRET_PREFIX, PREFIX_BYTES);
    char *body = out + PREFIX_BYTES;
    for (size_t i = 0; i < 4; i++) {
        uint64_t part;
        memcpy(&part, random + 8 * i, sizeof part);
        put_digits(part, BODY_BYTES / 4, body + i * (BODY_BYTES / 4));
    }
    put_digits(at_meter_crc(out, PREFIX_BYTES + BODY_BYTES), CHECK_BYTES, body + BODY_BYTES);
    out[AT_METER_SECRET_BYTES] = '\0';
}

enum at_meter_secret_form at_meter_secret_form(struct at_str text)
{
    char check[CHECK_BYTES];
    if (!at_str_starts(text, AT_METER_SECRET_PREFIX)) {
        return AT_METER_SECRET_FOREIGN;
    }
    if (text.len != AT_METER_SECRET_BYTES) {
        return AT_METER_SECRET_BROKEN;
    }
    put_digits(at_meter_crc(text.ptr, PREFIX_BYTES + BODY_BYTES), CHECK_BYTES, check);
    return memcmp(check, text.ptr + PREFIX_BYTES + BODY_BYTES, CHECK_BYTES) == 0
               ? AT_METER_SECRET_FORMED
               : AT_METER_SECRET_BROKEN;
}
