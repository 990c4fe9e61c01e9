/* Named limits of the folder. */
#ifndef AT_METERING_LIMITS_H
#define AT_METERING_LIMITS_H

#include <stddef.h>
#include <stdint.h>

#define AT_METER_SECRET_BYTES 55 /* sk-atoll-, 40 random characters, 6 of checksum */
#define AT_METER_ACCOUNTS_MAX 24 /* that one key's requests are counted on */
#define AT_METER_KEYS_MAX 1000000
#define AT_METER_TEXT_BYTES_MAX 400 /* of a name in a record */
#define AT_METER_RECORD_BYTES_MAX 4096
#define AT_METER_SEGMENT_BYTES ((size_t)8 << 20) /* of a loop's log, until the next file */
#define AT_METER_SLOTS 32768                     /* requests under way, per loop */
#define AT_METER_FILE_BYTES_MAX ((size_t)2 << 30)
#define AT_METER_NANO_PER_MICRO 1000
#define AT_METER_PART_ROWS 500 /* of sums, in one record that is told */

#endif
