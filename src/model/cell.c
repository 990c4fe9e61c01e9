/* Table cells: the value at a column's path, as people read it. */
#include "model/model_priv.h"

#include "core/mem.h"
#include "core/str.h"

#include <inttypes.h>
#include <string.h>

#define CELL_BYTES_MAX 4096

/* Is this the member of a list that a path wants: conditions[Ready] by its type or name,
 * subjects[kind=User] by a field. */
static bool is_member(const json_t *item, struct at_str wanted)
{
    struct at_str value = wanted;
    struct at_str key = at_str_cut(&value, '=');
    if (value.ptr != NULL && key.len != wanted.len) {
        const char *text = json_string_value(json_object_getn(item, key.ptr, key.len));
        return text != NULL && at_str_eq(value, text);
    }
    const char *type = json_string_value(json_object_get(item, "type"));
    const char *name = json_string_value(json_object_get(item, "name"));
    return (type != NULL && at_str_eq(wanted, type)) || (name != NULL && at_str_eq(wanted, name));
}

/* Where the nth match of a path is; NULL when there are fewer. */
static const json_t *walk(struct at_str path, const json_t *value, size_t nth)
{
    struct at_str rest = path;
    at_str_cut(&rest, '.'); /* the leading dot */
    bool many = false;
    while (rest.len != 0 && value != NULL) {
        struct at_str inner = at_str_cut(&rest, '.');
        struct at_str name = at_str_cut(&inner, '[');
        value = json_object_getn(value, name.ptr, name.len);
        if (inner.len == 0) {
            continue;
        }
        inner.len--; /* the closing bracket */
        many = true;
        const json_t *list = value;
        value = NULL;
        size_t left = nth;
        for (size_t i = 0; value == NULL && i < json_array_size(list); i++) {
            const json_t *item = json_array_get(list, i);
            if (is_member(item, inner) && left-- == 0) {
                value = item;
            }
        }
    }
    return many || nth == 0 ? value : NULL;
}

static const char *age(const json_t *value, int64_t now_wall_ns, struct at_arena *arena)
{
    int64_t since_wall_ns;
    if (at_model_unit_parse(AT_MODEL_UNIT_TIME, value, &since_wall_ns, NULL) != AT_OK) {
        return "<unknown>";
    }
    char text[AT_UNITS_TEXT_BYTES_MAX];
    int64_t ns = now_wall_ns - since_wall_ns;
    return at_arena_strdup(arena, at_duration_format_age(ns > 0 ? ns : 0, text));
}

static const char *compact(const json_t *value, struct at_arena *arena)
{
    struct at_buf text = {0};
    const char *out =
        at_json_dump(value, &text) == AT_OK ? at_arena_strndup(arena, text.data, text.len) : NULL;
    at_buf_done(&text);
    return out;
}

static const char *cell(const struct at_model_column *column, const json_t *value,
                        int64_t now_wall_ns, struct at_arena *arena)
{
    if (value == NULL || json_is_null(value)) {
        return "";
    }
    if (strcmp(column->type, "date") == 0) {
        return age(value, now_wall_ns, arena);
    }
    if (json_is_string(value)) {
        return at_arena_strdup(arena, json_string_value(value));
    }
    if (json_is_boolean(value)) {
        return json_is_true(value) ? "true" : "false";
    }
    if (json_is_integer(value)) {
        return at_arena_printf(arena, "%" PRId64, (int64_t)json_integer_value(value));
    }
    return compact(value, arena);
}

static const json_t *first(const struct at_model_column *column, const json_t *object)
{
    struct at_str rest = at_str_of(column->path);
    const json_t *value = NULL;
    while (rest.len != 0 && (value == NULL || json_is_null(value))) {
        value = walk(at_str_cut(&rest, ','), object, 0);
    }
    return value;
}

static const char *count(const char *paths, const json_t *object, struct at_arena *arena)
{
    struct at_str rest = at_str_of(paths);
    size_t n = 0;
    while (rest.len != 0) {
        const json_t *value = walk(at_str_cut(&rest, ','), object, 0);
        n += json_is_array(value) ? json_array_size(value) : json_object_size(value);
    }
    return at_arena_printf(arena, "%zu", n);
}

/* Texts at the paths: in_turn, the nth ones of all paths with slashes, commas between; else those
 * of one path after the other. */
static const char *joined(const char *paths, const json_t *object, bool in_turn,
                          struct at_arena *arena)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {.max = CELL_BYTES_MAX};
    enum at_rc rc = AT_OK;
    bool more = true;
    for (size_t nth = 0; rc == AT_OK && more; nth++) {
        struct at_str rest = at_str_of(paths);
        more = false;
        while (rc == AT_OK && rest.len != 0) {
            const char *value = json_string_value(walk(at_str_cut(&rest, ','), object, nth));
            if (value == NULL || value[0] == '\0') {
                continue;
            }
            rc = at_buf_printf(&text, "%s%s",
                               text.len == 0     ? ""
                               : in_turn && more ? "/"
                                                 : ", ",
                               value);
            more = true;
        }
    }
    return text.len != 0 ? at_arena_strndup(arena, text.data, text.len) : "";
}

static const char *object_words(const char *paths, const json_t *object, struct at_arena *arena)
{
    const char *text = joined(paths, object, true, arena);
    char *copy = text != NULL ? at_arena_strdup(arena, text) : NULL;
    for (char *p = copy; p != NULL && *p != '\0' && *p != '/'; p++) {
        *p = *p >= 'A' && *p <= 'Z' ? (char)(*p - 'A' + 'a') : *p;
    }
    return copy;
}

static const char *shown(const struct at_model_column *column, const json_t *object,
                         int64_t now_wall_ns, struct at_arena *arena)
{
    switch (column->show) {
    case AT_MODEL_SHOW_COUNT:
        return count(column->path, object, arena);
    case AT_MODEL_SHOW_LIST:
        return joined(column->path, object, false, arena);
    case AT_MODEL_SHOW_SLASH:
        return joined(column->path, object, true, arena);
    case AT_MODEL_SHOW_OBJECT:
        return object_words(column->path, object, arena);
    case AT_MODEL_SHOW_TIME:
        return json_string_value(first(column, object));
    case AT_MODEL_SHOW_FIRST:
        break;
    }
    return cell(column, first(column, object), now_wall_ns, arena);
}

const char *at_model_cell(const struct at_model_column *column, const json_t *object,
                          int64_t now_wall_ns, struct at_arena *arena)
{
    const char *text = shown(column, object, now_wall_ns, arena);
    return text != NULL ? text : "";
}
