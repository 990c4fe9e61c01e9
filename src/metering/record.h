/* The log of usage and the book that it is summed up in have one form: records with a length and a
 * checksum, one behind the other. A name stands in a record of its own and is meant by a number
 * from then on. Pure. */
#ifndef AT_METERING_RECORD_H
#define AT_METERING_RECORD_H

#include "core/buf.h"
#include "core/str.h"
#include "metering/limits.h"

enum at_meter_type {
    AT_METER_END,   /* zeros: nothing has been written here yet */
    AT_METER_START, /* of a book: whose, and from when */
    AT_METER_MARK,  /* of a book: up to where a loop's log is in it */
    AT_METER_KEY,
    AT_METER_MODEL,
    AT_METER_USE, /* one request */
    AT_METER_SUM, /* of a book: all requests of a key for a model on a day */
    AT_METER_TYPES
};

struct at_meter_head {
    uint32_t len; /* of the record with this head; a multiple of 8 */
    uint32_t crc; /* of everything behind crc */
    uint32_t type, reserved;
};

struct at_meter_use {
    uint64_t id; /* of the request: no two have the same */
    uint32_t key, model;
    int32_t day;
    uint16_t status, flags;
    uint64_t prompt, completion;
    int64_t cost_nanousd;
};
#define AT_METER_FLAG_CACHED 1u
#define AT_METER_FLAG_CUT 2u       /* the gateway ended before the request did */
#define AT_METER_FLAG_ESTIMATED 4u /* nobody told how many tokens it were */

struct at_meter_sum {
    uint32_t key, model;
    int32_t day;
    uint32_t part;
    uint64_t requests, errors, cached, prompt, completion;
    int64_t cost_nanousd;
};

struct at_meter_mark {
    uint32_t run, loop, segment, offset;
};

struct at_meter_start {
    uint32_t run, version;
    char meter[16]; /* NUL-terminated */
};

/* Of a key, all texts not NULL. */
struct at_meter_who {
    uint32_t id;
    const char *uid, *ns, *name, *team;
};

struct at_meter_record {
    enum at_meter_type type;
    union {
        struct at_meter_start start;
        struct at_meter_mark mark;
        struct at_meter_use use;
        struct at_meter_sum sum;
    };
    uint32_t id;                       /* of a key or model */
    struct at_str uid, ns, name, team; /* of a model: name */
};

/* The record at data[*at..len), into *ret, *at behind it. Texts are borrowed from data.
 * err: AT_NOT_FOUND the end, or zeros | AT_CORRUPT no whole record is here. */
enum at_rc at_meter_record_read(const unsigned char *data, size_t len, size_t *at,
                                struct at_meter_record *ret) AT_WARN_UNUSED;

/* How long the records of these would be, and into out[0..that): the head comes last, so that a
 * reader in the middle of it finds zeros. */
size_t at_meter_key_bytes(const struct at_meter_who *who);
void at_meter_key_write(const struct at_meter_who *who, unsigned char *out);
size_t at_meter_model_bytes(const char *model);
void at_meter_model_write(uint32_t id, const char *model, unsigned char *out);
/* START, MARK, USE, SUM: of one size each. */
size_t at_meter_fixed_bytes(enum at_meter_type type);
void at_meter_fixed_write(enum at_meter_type type, const void *body, unsigned char *out);

#endif
