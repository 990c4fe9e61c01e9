/* Objects as text: formats and the kinds' columns. */
#include "cli/cli_priv.h"
#include "core/str.h"

#include <ctype.h>
#include <string.h>

enum at_rc cli_format_of(const struct cli *cli, enum cli_format *ret, struct at_err *err)
{
    static const struct {
        const char *name;
        enum cli_format format;
    } FORMATS[] = {{"", CLI_TABLE},
                   {"wide", CLI_WIDE},
                   {"json", CLI_JSON},
                   {"yaml", CLI_YAML},
                   {"name", CLI_NAME}};
    const char *text = cli_value(cli, OPT_OUTPUT, "");
    for (size_t i = 0; i < AT_ARRAY_LEN(FORMATS); i++) {
        if (strcmp(text, FORMATS[i].name) == 0) {
            *ret = FORMATS[i].format;
            return AT_OK;
        }
    }
    if (strncmp(text, "jsonpath=", 9) == 0 || strncmp(text, "custom-columns=", 15) == 0) {
        *ret = text[0] == 'j' ? CLI_JSONPATH : CLI_COLUMNS;
        return AT_OK;
    }
    return at_err_set(err, AT_BAD_REQUEST,
                      "unknown output \"%s\": choose json, yaml, wide, name, jsonpath={...} or "
                      "custom-columns=NAME:.path,...",
                      text);
}

static void print_names(const struct cli *cli, const json_t *value)
{
    const json_t *items = json_object_get(value, "items");
    size_t at;
    json_t *item;
    if (items != NULL) {
        json_array_foreach(items, at, item)
        {
            print_names(cli, item);
        }
        return;
    }
    const char *kind_name = at_json_str_at(value, "kind", "");
    const struct at_model_kind *kind = at_model_kind_by_any_name(kind_name);
    const char *name = at_json_str_at(value, "metadata.name", "");
    const char *text = kind != NULL ? cli_ref(cli, kind, name)
                                    : at_arena_printf(cli->arena, "%s/%s", kind_name, name);
    cli_print_text(cli->env->out, text);
    fputc('\n', cli->env->out);
}

enum at_rc cli_print_value(const struct cli *cli, enum cli_format format, const json_t *value,
                           struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = AT_OK;
    if (format == CLI_NAME) {
        print_names(cli, value);
        return AT_OK;
    }
    if (format == CLI_COLUMNS) {
        return cli_print_columns(cli, cli_value(cli, OPT_OUTPUT, "") + 15, value, err);
    }
    if (format == CLI_YAML) {
        rc = at_yaml_dump(value, &text);
    } else if (format == CLI_JSONPATH) {
        rc = cli_jsonpath(cli_value(cli, OPT_OUTPUT, "") + 9, value, &text, err);
    } else {
        rc = at_json_dump_pretty(value, &text);
    }
    if (rc != AT_OK) {
        return err != NULL && err->msg[0] != '\0' ? rc
                                                  : at_err_set(err, rc, "too large to be printed");
    }
    if (text.data != NULL) {
        /* Control characters are escaped in JSON and YAML; a path may give raw text. */
        cli_print_text(cli->env->out, text.data);
    }
    if (format != CLI_YAML) {
        fputc('\n', cli->env->out);
    }
    return AT_OK;
}

/* Rows by the kind's own columns: for watches, and for servers that make no Tables. */

static bool shows_namespace(const struct cli *cli, const struct at_model_kind *kind)
{
    return cli->ns == NULL && kind->namespaced;
}

size_t cli_kind_columns(const struct cli *cli, const struct at_model_kind *kind, bool wide)
{
    size_t n = shows_namespace(cli, kind) ? 2 : 1;
    for (size_t i = 0; i < kind->n_columns; i++) {
        n += wide || kind->columns[i].priority == 0 ? 1 : 0;
    }
    return n;
}

static void add_upper(struct cli_table *table, const char *text)
{
    char upper[64];
    snprintf(upper, sizeof upper, "%s", text);
    for (char *c = upper; *c != '\0'; c++) {
        *c = (char)toupper((unsigned char)*c);
    }
    cli_table_add(table, upper);
}

void cli_kind_header(const struct cli *cli, const struct at_model_kind *kind, bool wide,
                     struct cli_table *table)
{
    if (shows_namespace(cli, kind)) {
        cli_table_add(table, "NAMESPACE");
    }
    cli_table_add(table, "NAME");
    for (size_t i = 0; i < kind->n_columns; i++) {
        if (wide || kind->columns[i].priority == 0) {
            add_upper(table, kind->columns[i].name);
        }
    }
}

void cli_kind_row(const struct cli *cli, const struct at_model_kind *kind, bool wide,
                  const json_t *object, struct cli_table *table)
{
    int64_t now = at_sys_wall_ns(cli->env->sys);
    const char *name = at_json_str_at(object, "metadata.name", "");
    if (shows_namespace(cli, kind)) {
        cli_table_add(table, at_json_str_at(object, "metadata.namespace", ""));
    }
    cli_table_add(table, cli->many_kinds ? cli_ref(cli, kind, name) : name);
    for (size_t i = 0; i < kind->n_columns; i++) {
        if (wide || kind->columns[i].priority == 0) {
            cli_table_add(table, at_model_cell(&kind->columns[i], object, now, cli->arena));
        }
    }
}

const char *cli_age(const struct cli *cli, const char *timestamp)
{
    int64_t wall;
    char text[AT_UNITS_TEXT_BYTES_MAX];
    if (timestamp == NULL || at_time_parse(timestamp, &wall, NULL) != AT_OK) {
        return "<unknown>";
    }
    at_duration_format_age(at_sys_wall_ns(cli->env->sys) - wall, text);
    return at_arena_strdup(cli->arena, text);
}
