/* Rows of comma-separated values, with errors that name file and line. */
#include "sim/csv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum at_rc sim_csv_bad(const struct sim_csv *r, const char *what, struct at_str value)
{
    int len = value.len > 60 ? 60 : (int)at_str_utf8_prefix(value);
    return at_err_set(r->err, AT_INVALID, "%s:%zu: %s '%.*s'", r->file, r->line, what, len,
                      value.ptr != NULL ? value.ptr : "");
}

/* A doubled quote inside stays doubled: no field that matters has one. */
static const char *closing_quote(struct at_str line)
{
    for (size_t i = 1; i < line.len; i++) {
        if (line.ptr[i] != '"') {
            continue;
        }
        if (i + 1 == line.len || line.ptr[i + 1] != '"') {
            return line.ptr + i;
        }
        i++;
    }
    return NULL;
}

/* Empty lines at the end are no rows. */
static bool is_blank(struct at_str text)
{
    size_t i = 0;
    while (i < text.len && (text.ptr[i] == '\n' || text.ptr[i] == '\r')) {
        i++;
    }
    return i == text.len;
}

/* The next line's fields. err: AT_EOF no more lines. */
static enum at_rc read_row(struct sim_csv *r)
{
    if (r->rest.len == 0) {
        return AT_EOF;
    }
    struct at_str line = at_str_cut(&r->rest, '\n');
    r->line++;
    if (line.len > 0 && line.ptr[line.len - 1] == '\r') {
        line.len--;
    }
    if (line.len == 0) {
        return is_blank(r->rest) ? AT_EOF : sim_csv_bad(r, "an empty line", line);
    }
    bool quoted = memchr(line.ptr, '"', line.len) != NULL;
    if (memchr(line.ptr, '\0', line.len) != NULL) {
        return sim_csv_bad(r, "NUL bytes are not taken:", line);
    }
    r->n_fields = 0;
    for (bool more = true; more;) {
        if (r->n_fields == SIM_CSV_COLUMNS_MAX) {
            return sim_csv_bad(r, "too many columns", line);
        }
        if (quoted && line.len > 0 && line.ptr[0] == '"') {
            const char *end = closing_quote(line);
            if (end == NULL) {
                return sim_csv_bad(r, "a quote that is not closed:", line);
            }
            r->fields[r->n_fields++] = (struct at_str){line.ptr + 1, (size_t)(end - line.ptr - 1)};
            line.len -= (size_t)(end + 1 - line.ptr);
            line.ptr = end + 1;
            if (line.len > 0 && line.ptr[0] != ',') {
                return sim_csv_bad(r, "text behind a closing quote:", line);
            }
            more = line.len > 0;
            (void)at_str_cut(&line, ',');
            continue;
        }
        more = memchr(line.ptr, ',', line.len) != NULL;
        r->fields[r->n_fields++] = at_str_cut(&line, ',');
    }
    return AT_OK;
}

enum at_rc sim_csv_begin(struct sim_csv *r, const char *file, struct at_str text,
                         struct at_err *err)
{
    *r = (struct sim_csv){.file = file, .rest = text, .err = err};
    if (text.len >= 3 && memcmp(text.ptr, "\xef\xbb\xbf", 3) == 0) { /* spreadsheets put it there */
        r->rest = (struct at_str){text.ptr + 3, text.len - 3};
    }
    enum at_rc rc = read_row(r);
    if (rc == AT_EOF) {
        return at_err_set(err, AT_INVALID, "%s:1: the file is empty", file);
    }
    r->n_columns = r->n_fields;
    memcpy(r->columns, r->fields, sizeof r->columns);
    return rc;
}

enum at_rc sim_csv_next(struct sim_csv *r)
{
    enum at_rc rc = read_row(r);
    if (rc == AT_OK && r->n_fields != r->n_columns) {
        return at_err_set(r->err, AT_INVALID, "%s:%zu: %zu fields, the header has %zu", r->file,
                          r->line, r->n_fields, r->n_columns);
    }
    return rc;
}

/* Columns by name into at[]; wanted names end with NULL, the first n_must have to be there. */
enum at_rc sim_csv_columns(struct sim_csv *r, const char *const *names, size_t n_must, size_t *at)
{
    for (size_t i = 0; names[i] != NULL; i++) {
        at[i] = SIM_CSV_NONE;
        for (size_t c = 0; c < r->n_columns; c++) {
            if (!at_str_eq(r->columns[c], names[i])) {
                continue;
            }
            if (at[i] != SIM_CSV_NONE) {
                return sim_csv_bad(r, "a column twice:", r->columns[c]);
            }
            at[i] = c;
        }
        if (i < n_must && at[i] == SIM_CSV_NONE) {
            return sim_csv_bad(r, "no column", at_str_of(names[i]));
        }
    }
    return AT_OK;
}

enum at_rc sim_csv_number(const struct sim_csv *r, size_t column, int64_t max, int64_t *ret)
{
    uint64_t v;
    struct at_str field = r->fields[column];
    if (at_str_to_u64(field, &v) != AT_OK || v > (uint64_t)max) {
        char what[120];
        snprintf(what, sizeof what, "%.*s has to be a whole number from 0 to %lld, not",
                 (int)(r->columns[column].len > 30 ? 30 : r->columns[column].len),
                 r->columns[column].ptr, (long long)max);
        return sim_csv_bad(r, what, field);
    }
    *ret = (int64_t)v;
    return AT_OK;
}

enum at_rc sim_csv_decimal(const struct sim_csv *r, size_t column, double max, double *ret)
{
    char text[64];
    char *end = text;
    struct at_str field = at_str_trim(r->fields[column]);
    if (field.len == 0 || field.len >= sizeof text) {
        return sim_csv_bad(r, "not a number:", field);
    }
    memcpy(text, field.ptr, field.len);
    text[field.len] = '\0';
    bool plain = strspn(text, "0123456789.eE+-") == field.len;
    double v = plain ? strtod(text, &end) : 0;
    if (end != text + field.len || !(v >= 0 && v <= max)) {
        return sim_csv_bad(r, "not a number in range:", field);
    }
    *ret = v;
    return AT_OK;
}
