/* JSONPath templates and custom columns, as far as kubectl's users need them. */
#include "cli/cli_priv.h"
#include "core/str.h"

#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 32

static enum at_rc malformed(const char *at, struct at_err *err)
{
    return at_err_set(err, AT_INVALID,
                      "malformed path at \"%.80s\"; write for example {.status.phase}, "
                      "{.items[*].metadata.name}, {.metadata.labels['a.b/c']} or "
                      "{range .items[*]}{.metadata.name}{\"\\n\"}{end}",
                      at);
}

static enum at_rc walk(const char *path, const char *end, const json_t *value, json_t *out,
                       struct at_err *err);

static enum at_rc walk_all(const char *path, const char *end, const json_t *value, json_t *out,
                           struct at_err *err)
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

/* --- filters: [?(@.a=="b")] --- */

/* <0, 0, >0; *ret_ordered false: the two cannot be compared. */
static int compare(const json_t *a, const json_t *b, bool *ret_ordered)
{
    *ret_ordered = true;
    if (json_is_number(a) && json_is_number(b)) {
        double x = json_number_value(a);
        double y = json_number_value(b);
        return x < y ? -1 : x > y ? 1 : 0;
    }
    if (json_is_string(a) && json_is_string(b)) {
        return strcmp(json_string_value(a), json_string_value(b));
    }
    *ret_ordered = false;
    return json_equal(a, b) ? 0 : 1;
}

static json_t *literal(struct at_str text)
{
    json_t *value = NULL;
    text = at_str_trim(text);
    if (text.len >= 2 && (text.ptr[0] == '\'' || text.ptr[0] == '"') &&
        text.ptr[text.len - 1] == text.ptr[0]) {
        return json_stringn(text.ptr + 1, text.len - 2);
    }
    return at_json_parse(text.ptr, text.len, &value, NULL) == AT_OK ? value : NULL;
}

struct filter {
    struct at_str path;
    char op[3];    /* "": is it there? */
    json_t *value; /* own */
};

static enum at_rc filter_parse(const char *text, const char *end, struct filter *ret,
                               struct at_err *err)
{
    const char *op = text;
    char quote = 0;
    if (text == end || *text != '@') {
        return malformed(text, err);
    }
    while (op < end && (quote != 0 || strchr("=!<>", *op) == NULL)) {
        quote = quote == 0 && (*op == '\'' || *op == '"') ? *op : quote == *op ? 0 : quote;
        op++;
    }
    ret->path = at_str_trim((struct at_str){text + 1, (size_t)(op - text - 1)});
    ret->op[0] = '\0';
    if (op == end) {
        return AT_OK;
    }
    size_t len = op + 1 < end && op[1] == '=' ? 2 : 1;
    snprintf(ret->op, sizeof ret->op, "%.*s", (int)len, op);
    ret->value = literal((struct at_str){op + len, (size_t)(end - op) - len});
    bool known = len == 2 || ret->op[0] == '<' || ret->op[0] == '>';
    return known && ret->value != NULL ? AT_OK : malformed(op, err);
}

static enum at_rc filter_holds(const struct filter *f, const json_t *item, bool *ret,
                               struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *found = json_array();
    bool ordered = false;
    enum at_rc rc = walk(f->path.ptr, f->path.ptr + f->path.len, item, found, err);
    *ret = false;
    if (rc != AT_OK || json_array_size(found) == 0) {
        return rc;
    }
    int order = f->value != NULL ? compare(json_array_get(found, 0), f->value, &ordered) : 0;
    if (f->op[0] == '\0') {
        *ret = true;
    } else if (strcmp(f->op, "==") == 0) {
        *ret = order == 0;
    } else if (strcmp(f->op, "!=") == 0) {
        *ret = order != 0;
    } else if (ordered) {
        *ret = (f->op[0] == '<' && order < 0) || (f->op[0] == '>' && order > 0) ||
               (f->op[1] == '=' && order == 0);
    }
    return AT_OK;
}

static enum at_rc walk_filter(const char *path, const char *end, const json_t *value, json_t *out,
                              struct at_err *err)
{
    struct filter f = {0};
    const char *close = path;
    while (close + 1 < end && !(close[0] == ')' && close[1] == ']')) {
        close++;
    }
    if (close + 1 >= end || path[0] != '(') {
        return malformed(path, err);
    }
    const char *key;
    json_t *member;
    enum at_rc rc = filter_parse(path + 1, close, &f, err);
    for (size_t i = 0; i < json_array_size(value) && rc == AT_OK; i++) {
        bool holds = false;
        rc = filter_holds(&f, json_array_get(value, i), &holds, err);
        rc = rc == AT_OK && holds ? walk(close + 2, end, json_array_get(value, i), out, err) : rc;
    }
    json_object_foreach((json_t *)value, key, member)
    {
        bool holds = false;
        rc = rc == AT_OK ? filter_holds(&f, member, &holds, err) : rc;
        rc = rc == AT_OK && holds ? walk(close + 2, end, member, out, err) : rc;
    }
    json_decref(f.value);
    return rc;
}

/* --- paths --- */

/* [2], [-1], [1:3], [:2] */
static enum at_rc walk_index(const char *path, const char *close, const char *end,
                             const json_t *value, json_t *out, struct at_err *err)
{
    struct at_str rest = {path, (size_t)(close - path)};
    bool slice = memchr(path, ':', rest.len) != NULL;
    struct at_str first = at_str_cut(&rest, ':');
    int64_t size = (int64_t)json_array_size(value);
    int64_t from = 0;
    int64_t to = size;
    bool good = (slice && first.len == 0) || at_str_to_i64(first, &from) == AT_OK;
    good = good && (!slice || rest.len == 0 || at_str_to_i64(rest, &to) == AT_OK);
    if (!good) {
        return malformed(path, err);
    }
    from += from < 0 ? size : 0;
    to = slice ? to + (to < 0 ? size : 0) : from + 1;
    to = to > size ? size : to;
    enum at_rc rc = AT_OK;
    for (int64_t i = from < 0 && slice ? 0 : from; i >= 0 && i < to && rc == AT_OK; i++) {
        rc = walk(close + 1, end, json_array_get(value, (size_t)i), out, err);
    }
    return rc;
}

/* After '[': an index, a slice, *, a filter, or a quoted key. */
static enum at_rc walk_bracket(const char *path, const char *end, const json_t *value, json_t *out,
                               struct at_err *err)
{
    if (path < end && path[0] == '?') {
        return walk_filter(path + 1, end, value, out, err);
    }
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
        char key[256];
        size_t len = 0;
        for (const char *c = path + 1; c < quote && len < sizeof key; c++) {
            c += *c == '\\' && c + 1 < quote ? 1 : 0;
            key[len++] = *c;
        }
        const json_t *child = json_object_getn(value, key, len);
        return child != NULL ? walk(quote + 2, end, child, out, err) : AT_OK;
    }
    return walk_index(path, close, end, value, out, err);
}

static enum at_rc walk(const char *path, const char *end, const json_t *value, json_t *out,
                       struct at_err *err)
{
    if (path == end) {
        json_array_append(out, (json_t *)value);
        return AT_OK;
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
        return walk(path, end, value, out, err);
    }
    if (strcmp(key, "*") == 0) {
        return walk_all(path, end, value, out, err);
    }
    const json_t *child = json_object_get(value, key);
    return child != NULL ? walk(path, end, child, out, err) : AT_OK;
}

/* "$.a", "@.a", ".a" and, as kubectl takes it too, "a". */
static enum at_rc find(const char *path, const char *end, const json_t *value, json_t *out,
                       struct at_err *err)
{
    while (path < end && *path == ' ') {
        path++;
    }
    while (end > path && end[-1] == ' ') {
        end--;
    }
    if (path < end && (*path == '$' || *path == '@')) {
        path++;
    }
    return walk(path, end, value, out, err);
}

enum at_rc cli_jsonpath_find(const char *path, const json_t *value, json_t **ret,
                             struct at_err *err)
{
    size_t len = strlen(path);
    json_t *out = json_array();
    if (len >= 2 && path[0] == '{' && path[len - 1] == '}') {
        path++;
        len -= 2;
    }
    enum at_rc rc = find(path, path + len, value, out, err);
    if (rc != AT_OK) {
        json_decref(out);
        return rc;
    }
    *ret = out;
    return AT_OK;
}

/* --- templates --- */

static enum at_rc put_values(const json_t *values, struct at_buf *out)
{
    enum at_rc rc = AT_OK;
    for (size_t i = 0; i < json_array_size(values) && rc == AT_OK; i++) {
        const json_t *value = json_array_get(values, i);
        rc = i != 0 ? at_buf_append(out, " ", 1) : AT_OK;
        if (rc == AT_OK) {
            rc = json_is_string(value)
                     ? at_buf_append(out, json_string_value(value), json_string_length(value))
                     : at_json_dump(value, out);
        }
    }
    return rc;
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

/* The brace that ends what begins at open; NULL: none. Quotes hide braces. */
static const char *close_of(const char *open, const char *end)
{
    char quote = 0;
    for (const char *at = open + 1; at < end; at++) {
        if (quote != 0 && *at == '\\') {
            at++;
        } else if (quote != 0) {
            quote = *at == quote ? 0 : quote;
        } else if (*at == '"' || *at == '\'') {
            quote = *at;
        } else if (*at == '}') {
            return at;
        }
    }
    return NULL;
}

static bool begins(const char *inner, const char *close, const char *word)
{
    size_t len = strlen(word);
    return (size_t)(close - inner) >= len && memcmp(inner, word, len) == 0;
}

/* The {end} of the range whose body begins at text; its brace. NULL: none. */
static const char *end_of_range(const char *text, const char *end)
{
    int depth = 1;
    while (text < end) {
        const char *open = memchr(text, '{', (size_t)(end - text));
        const char *close = open != NULL ? close_of(open, end) : NULL;
        if (close == NULL) {
            return NULL;
        }
        depth += begins(open + 1, close, "range ") ? 1 : 0;
        depth -= begins(open + 1, close, "end") ? 1 : 0;
        if (depth == 0) {
            return open;
        }
        text = close + 1;
    }
    return NULL;
}

static enum at_rc template(const char *text, const char *end, const json_t *value, int depth,
                           struct at_buf *out, struct at_err *err);

/* *text: behind {range ...}; becomes what stands behind its {end}. */
static enum at_rc range(const char *inner, const char *close, const char **text, const char *end,
                        const json_t *value, int depth, struct at_buf *out, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *items = json_array();
    const char *stop = end_of_range(*text, end);
    if (stop == NULL || depth == DEPTH_MAX) {
        return at_err_set(err, AT_INVALID, "a {range ...} has no {end}");
    }
    enum at_rc rc = find(inner + strlen("range "), close, value, items, err);
    for (size_t i = 0; i < json_array_size(items) && rc == AT_OK; i++) {
        rc = template(*text, stop, json_array_get(items, i), depth + 1, out, err);
    }
    *text = close_of(stop, end) + 1;
    return rc;
}

static enum at_rc template(const char *text, const char *end, const json_t *value, int depth,
                           struct at_buf *out, struct at_err *err) {
    enum at_rc rc = AT_OK; while (text < end && rc == AT_OK){
        const char *open = memchr(text, '{', (size_t)(end - text));
        rc = at_buf_append(out, text, (size_t)((open != NULL ? open : end) - text));
        if (open == NULL || rc != AT_OK){break;}
const char *close = close_of(open, end);
const char *inner = open + 1;
if (close == NULL) {
    return malformed(open, err);
}
text = close + 1;
if (begins(inner, close, "range ")) {
    rc = range(inner, close, &text, end, value, depth, out, err);
} else if ((*inner == '"' || *inner == '\'') && close - inner >= 2) {
    rc = put_literal(inner + 1, close - 1, out);
} else {
    AT_CLEANUP(at_cleanup_json) json_t *found = json_array();
    rc = find(inner, close, value, found, err);
    rc = rc == AT_OK ? put_values(found, out) : rc;
}
}
return rc;
}

enum at_rc cli_jsonpath(const char *path, const json_t *value, struct at_buf *out,
                        struct at_err *err)
{
    if (strchr(path, '{') != NULL) {
        return template(path, path + strlen(path), value, 0, out, err);
    }
    AT_CLEANUP(at_cleanup_json) json_t *found = json_array();
    enum at_rc rc = find(path, path + strlen(path), value, found, err);
    return rc == AT_OK ? put_values(found, out) : rc;
}

/* --- custom columns --- */

static enum at_rc add_cells(const struct cli *cli, struct cli_table *table, const char *spec,
                            const json_t *item, struct at_err *err)
{
    struct at_str rest = at_str_of(spec);
    enum at_rc rc = AT_OK;
    while (rest.len != 0 && rc == AT_OK) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
        AT_CLEANUP(at_cleanup_json) json_t *found = NULL;
        struct at_str path = at_str_cut(&rest, ',');
        (void)at_str_cut(&path, ':');
        rc = cli_jsonpath_find(at_arena_strndup(cli->arena, path.ptr, path.len), item, &found, err);
        if (rc != AT_OK) {
            found = NULL;
            return rc;
        }
        rc = put_values(found, &text);
        cli_table_add(table, text.len != 0 ? text.data : "<none>");
    }
    return rc;
}

enum at_rc cli_print_columns(const struct cli *cli, const char *spec, const json_t *value,
                             struct at_err *err)
{
    struct cli_table table;
    size_t n = 0;
    struct at_str rest = at_str_of(spec);
    bool header = !cli_flag(cli, OPT_NO_HEADERS);
    const char *names[64];
    while (rest.len != 0) {
        struct at_str column = at_str_cut(&rest, ',');
        struct at_str path = column;
        struct at_str name = at_str_cut(&path, ':');
        if (name.len == 0 || path.len == 0 || n == AT_ARRAY_LEN(names)) {
            return at_err_set(err, AT_BAD_REQUEST,
                              "custom-columns are NAME:.path,NAME:.path, such as "
                              "NAME:.metadata.name,SITE:.status.site");
        }
        names[n++] = at_arena_strndup(cli->arena, name.ptr, name.len);
    }
    if (n == 0) {
        return at_err_set(err, AT_BAD_REQUEST, "custom-columns names no column");
    }
    cli_table_init(&table, cli->arena, n);
    for (size_t i = 0; i < n && header; i++) {
        cli_table_add(&table, names[i]);
    }
    const json_t *items = json_object_get(value, "items");
    enum at_rc rc = json_is_array(items) ? AT_OK : add_cells(cli, &table, spec, value, err);
    for (size_t i = 0; i < json_array_size(items) && rc == AT_OK; i++) {
        rc = add_cells(cli, &table, spec, json_array_get(items, i), err);
    }
    if (rc == AT_OK) {
        cli_table_print(cli, &table, header);
    }
    return rc;
}
