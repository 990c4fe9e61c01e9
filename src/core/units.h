/* Quantities, durations, times, money: text to integers and back. All pure. */
#ifndef AT_CORE_UNITS_H
#define AT_CORE_UNITS_H

#include "core/err.h"

#define AT_NS_PER_US INT64_C(1000)
#define AT_NS_PER_MS INT64_C(1000000)
#define AT_NS_PER_S INT64_C(1000000000)

/* Kubernetes quantity ("500m", "2", "0.25", "8Gi", "1e3", "12k") in thousandths: "2" is 2000.
 * Rounds up like Kubernetes. err: AT_INVALID not a quantity, or out of range. */
enum at_rc at_quantity_milli(const char *text, int64_t *ret_milli,
                             struct at_err *err) AT_WARN_UNUSED;
/* The same in whole units: "8Gi" is 8589934592. err: as above. */
enum at_rc at_quantity_units(const char *text, int64_t *ret_units,
                             struct at_err *err) AT_WARN_UNUSED;
/* "1h30m", "250ms", "2s", "10us"; a bare number is seconds. Never negative. err: AT_INVALID. */
enum at_rc at_duration_ns(const char *text, int64_t *ret_ns, struct at_err *err) AT_WARN_UNUSED;
/* Decimal dollars ("0.0125") in millionths. err: AT_INVALID. */
enum at_rc at_money_microusd(const char *text, int64_t *ret_microusd,
                             struct at_err *err) AT_WARN_UNUSED;
/* RFC 3339 with optional fraction and zone, in ns since 1970 UTC. err: AT_INVALID. */
enum at_rc at_time_parse(const char *text, int64_t *ret_wall_ns, struct at_err *err) AT_WARN_UNUSED;

#define AT_UNITS_TEXT_BYTES_MAX 40
/* Canonical text into out[AT_UNITS_TEXT_BYTES_MAX]; each returns out. */
char *at_quantity_format_milli(int64_t milli, char *out); /* 250 -> "250m", 2000 -> "2" */
char *at_quantity_format_bytes(int64_t bytes, char *out); /* 8589934592 -> "8Gi" */
char *at_duration_format(int64_t ns, char *out);          /* "1h30m", "250ms", "0s" */
char *at_duration_format_age(int64_t ns, char *out); /* as kubectl's AGE: "3d4h", "5m12s", "42s" */
char *at_money_format(int64_t microusd, char *out);  /* "0.0125" */
char *at_time_format(int64_t wall_ns, char *out);    /* "2026-01-02T03:04:05Z" */
char *at_time_format_micro(int64_t wall_ns, char *out); /* "2026-01-02T03:04:05.000001Z" */

#endif
