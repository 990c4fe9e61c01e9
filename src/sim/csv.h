/* Rows of comma-separated values (RFC 4180, one line a row); columns are found by their names. */
#ifndef AT_SIM_CSV_H
#define AT_SIM_CSV_H

#include "core/str.h"

#define SIM_CSV_COLUMNS_MAX 64
#define SIM_CSV_NONE SIZE_MAX

struct sim_csv {
    const char *file;
    struct at_str rest;
    size_t line; /* of the row in fields */
    size_t n_columns, n_fields;
    struct at_str columns[SIM_CSV_COLUMNS_MAX], fields[SIM_CSV_COLUMNS_MAX];
    struct at_err *err;
};

/* Reads the header; text and file are borrowed. err: AT_INVALID with file and line, as all here. */
enum at_rc sim_csv_begin(struct sim_csv *r, const char *file, struct at_str text,
                         struct at_err *err) AT_WARN_UNUSED;
/* The next row into fields. err: AT_EOF no more. */
enum at_rc sim_csv_next(struct sim_csv *r) AT_WARN_UNUSED;
/* Columns by name into at[]; names end with NULL, the first n_must have to be there; an absent one
 * is SIM_CSV_NONE. */
enum at_rc sim_csv_columns(struct sim_csv *r, const char *const *names, size_t n_must,
                           size_t *at) AT_WARN_UNUSED;
enum at_rc sim_csv_number(const struct sim_csv *r, size_t column, int64_t max,
                          int64_t *ret) AT_WARN_UNUSED;
enum at_rc sim_csv_decimal(const struct sim_csv *r, size_t column, double max,
                           double *ret) AT_WARN_UNUSED; /* 0 to max */
/* "file:line: what 'value'" */
enum at_rc sim_csv_bad(const struct sim_csv *r, const char *what, struct at_str value);

#endif
