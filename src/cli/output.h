/* Objects and rows as text. */
#ifndef AT_CLI_OUTPUT_H
#define AT_CLI_OUTPUT_H

#include "core/arena.h"
#include "core/json.h"
#include "model/model.h"

#include <stdio.h>

struct cli;

/* --- table.c --- */
struct cli_table {
    struct at_arena *arena;
    size_t columns;
    const char **cells; /* row by row */
    size_t n, room;
    size_t *widths; /* of all columns, kept from print to print by the caller; NULL: of this one */
};
void cli_table_init(struct cli_table *table, struct at_arena *arena, size_t columns);
void cli_table_add(struct cli_table *table, const char *cell); /* copied, made printable */
/* Columns three blanks apart; the first row is the header when header is set. */
void cli_table_print(const struct cli *cli, const struct cli_table *table, bool header);
bool cli_colour_wanted(const struct cli *cli);    /* a terminal, and nobody said no */
void cli_print_text(FILE *out, const char *text); /* without control characters but \n and \t */

/* --- output.c --- */
enum cli_format { CLI_TABLE, CLI_WIDE, CLI_JSON, CLI_YAML, CLI_NAME, CLI_JSONPATH, CLI_COLUMNS };
enum at_rc cli_format_of(const struct cli *cli, enum cli_format *ret,
                         struct at_err *err) AT_WARN_UNUSED;
/* JSON, YAML, NAME and JSONPATH of one value. */
enum at_rc cli_print_value(const struct cli *cli, enum cli_format format, const json_t *value,
                           struct at_err *err) AT_WARN_UNUSED;
/* A template as kubectl's: {.a.b[0].c}, [*], ['k'], [1:3], [?(@.a=="b")], {range
 * .items[*]}...{end},
 * {"\n"}; a bare path too. Appends what it finds, separated by blanks. err: AT_INVALID malformed.
 */
enum at_rc cli_jsonpath(const char *path, const json_t *value, struct at_buf *out,
                        struct at_err *err) AT_WARN_UNUSED;
/* What a path finds. own: caller decrefs. err: AT_INVALID malformed. */
enum at_rc cli_jsonpath_find(const char *path, const json_t *value, json_t **ret,
                             struct at_err *err) AT_WARN_UNUSED;
/* NAME:.path,NAME:.path: a row for each item of a list, or for the one object. */
enum at_rc cli_print_columns(const struct cli *cli, const char *spec, const json_t *value,
                             struct at_err *err) AT_WARN_UNUSED;
/* One row for an object by the kind's columns; header row when header is set. */
void cli_kind_header(const struct cli *cli, const struct at_model_kind *kind, bool wide,
                     struct cli_table *table);
size_t cli_kind_columns(const struct cli *cli, const struct at_model_kind *kind, bool wide);
void cli_kind_row(const struct cli *cli, const struct at_model_kind *kind, bool wide,
                  const json_t *object, struct cli_table *table);
const char *cli_age(const struct cli *cli, const char *timestamp); /* own: arena */

#endif
