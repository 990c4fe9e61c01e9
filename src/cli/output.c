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
    if (strncmp(text, "jsonpath=", 9) == 0) {
        *ret = CLI_JSONPATH;
        return AT_OK;
    }
    return at_err_set(err, AT_BAD_REQUEST,
                      "unknown output \"%s\": choose json, yaml, wide, name or jsonpath={...}",
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

/* JSONPath, as far as kubectl's users need it. */

struct finds {
    struct at_buf *out;
    bool any; /* of this expression */
};

static enum at_rc put_found(const json_t *value, struct finds *finds)
{
    struct at_buf *out = finds->out;
    enum at_rc rc = finds->any ? at_buf_append(out, " ", 1) : AT_OK;
    finds->any = true;
    if (rc != AT_OK) {
        return rc;
    }
    return json_is_string(value)
               ? at_buf_append(out, json_string_value(value), json_string_length(value))
               : at_json_dump(value, out);
}

static enum at_rc walk(const char *path, const char *end, const json_t *value, struct finds *out,
                       struct at_err *err);

static enum at_rc walk_all(const char *path, const char *end, const json_t *value,
                           struct finds *out, struct at_err *err)
{
    enum at_rc rc = AT_OK;
    for (size_t i = 0; i < json_array_size(value) && rc == AT_OK; i++) {
        rc = walk(path, end, json_array_get(value, i), out, err);
    }
    const char *key;
    json_t *item;
    json_object_foreach((json_t *)value, key, item)
    {
        rc = rc == AT_OK ? walk(path, end, item, out, err) : rc;
    }
    return rc;
}

static enum at_rc malformed(const char *at, struct at_err *err)
{
    return at_err_set(err, AT_INVALID,
                      "malformed path at \"%s\"; write for example {.status.phase}, "
                      "{.items[*].metadata.name} or {.metadata.labels['a.b/c']}",
                      at);
}

/* After '[': an index, *, or a quoted key. */
static enum at_rc walk_bracket(const char *path, const char *end, const json_t *value,
                               struct finds *out, struct at_err *err)
{
    const char *close = memchr(path, ']', (size_t)(end - path));
    if (close == NULL || close == path) {
        return malformed(path, err);
    }
    if (path[0] == '*' && close == path + 1) {
        return walk_all(close + 1, end, value, out, err);
    }
    if (path[0] == '\'' || path[0] == '"') {
        const char *quote = memchr(path + 1, path[0], (size_t)(end - path) - 1);
        if (quote == NULL || quote + 1 >= end || quote[1] != ']') {
            return malformed(path, err);
        }
        const json_t *child = json_object_getn(value, path + 1, (size_t)(quote - path) - 1);
        return child != NULL ? walk(quote + 2, end, child, out, err) : AT_OK;
    }
    int64_t index;
    if (at_str_to_i64((struct at_str){path, (size_t)(close - path)}, &index) != AT_OK) {
        return malformed(path, err);
    }
    int64_t size = (int64_t)json_array_size(value);
    index += index < 0 ? size : 0;
    if (index < 0 || index >= size) {
        return AT_OK;
    }
    return walk(close + 1, end, json_array_get(value, (size_t)index), out, err);
}

static enum at_rc walk(const char *path, const char *end, const json_t *value, struct finds *out,
                       struct at_err *err)
{
    if (path == end) {
        return put_found(value, out);
    }
    if (*path == '[') {
        return walk_bracket(path + 1, end, value, out, err);
    }
    if (*path != '.') {
        return malformed(path, err);
    }
    char key[256];
    size_t len = 0;
    for (path++; path < end && *path != '.' && *path != '['; path++) {
        if (*path == '\\' && path + 1 < end) {
            path++; /* a dot within a key */
        }
        if (len + 1 == sizeof key) {
            return malformed(path, err);
        }
        key[len++] = *path;
    }
    key[len] = '\0';
    if (len == 0) {
        return path == end ? put_found(value, out) : walk(path, end, value, out, err);
    }
    if (strcmp(key, "*") == 0) {
        return walk_all(path, end, value, out, err);
    }
    const json_t *child = json_object_get(value, key);
    return child != NULL ? walk(path, end, child, out, err) : AT_OK;
}

static enum at_rc put_literal(const char *text, const char *end, struct at_buf *out)
{
    enum at_rc rc = AT_OK;
    for (; text < end && rc == AT_OK; text++) {
        char c = *text;
        if (c == '\\' && text + 1 < end) {
            text++;
            c = *text == 'n' ? '\n' : *text == 't' ? '\t' : *text;
        }
        rc = at_buf_append(out, &c, 1);
    }
    return rc;
}

enum at_rc cli_jsonpath(const char *path, const json_t *value, struct at_buf *out,
                        struct at_err *err)
{
    if (strchr(path, '{') == NULL) {
        struct finds finds = {.out = out};
        return walk(path, path + strlen(path), value, &finds, err);
    }
    enum at_rc rc = AT_OK;
    while (*path != '\0' && rc == AT_OK) {
        const char *open = path + strcspn(path, "{");
        rc = at_buf_append(out, path, (size_t)(open - path));
        if (rc != AT_OK || *open == '\0') {
            break;
        }
        const char *close = strchr(open, '}');
        if (close == NULL) {
            return malformed(open, err);
        }
        const char *inner = open + 1;
        struct finds finds = {.out = out};
        rc = inner[0] == '"' && close - inner >= 2 ? put_literal(inner + 1, close - 1, out)
                                                   : walk(inner, close, value, &finds, err);
        path = close + 1;
    }
    return rc;
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
