/* The text of an API key: sk-atoll-, 40 characters that nobody can guess (238 bits), and 6 that
 * follow from them, so that a slip of the pen and what only looks like a key are told apart without
 * asking anybody. Pure. */
#ifndef AT_METERING_SECRET_H
#define AT_METERING_SECRET_H

#include "core/str.h"
#include "metering/limits.h"

#define AT_METER_SECRET_PREFIX "sk-atoll-"
#define AT_METER_SECRET_RANDOM_BYTES 32
#define AT_METER_HINT_BYTES 14 /* of a secret, that may be shown */

enum at_meter_secret_form {
    AT_METER_SECRET_FOREIGN, /* no key of ours */
    AT_METER_SECRET_BROKEN,  /* it begins as one, but is none */
    AT_METER_SECRET_FORMED,
};

/* out: AT_METER_SECRET_BYTES characters and a NUL. */
void at_meter_secret_make(const unsigned char random[AT_METER_SECRET_RANDOM_BYTES],
                          char out[AT_METER_SECRET_BYTES + 1]);
enum at_meter_secret_form at_meter_secret_form(struct at_str text);

#endif
