/* Table cells: the value at a column's path, as people read it. */
#include "model/model_priv.h"

#include "core/str.h"

#include <inttypes.h>
#include <string.h>

/* The member of a list whose type (or name) is wanted, as in conditions[Ready]. */
static const json_t *member(const json_t *list, struct at_str wanted)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        const char *type = json_string_value(json_object_get(item, "type"));
        const char *name = json_string_value(json_object_get(item, "name"));
        if ((type != NULL && at_str_eq(wanted, type)) ||
            (name != NULL && at_str_eq(wanted, name))) {
            return item;
        }
    }
    return NULL;
}

static const json_t *walk(const char *path, const json_t *value)
{
    struct at_str rest = at_str_of(path);
    at_str_cut(&rest, '.'); /* the leading dot */
    while (rest.len != 0 && value != NULL) {
        struct at_str inner = at_str_cut(&rest, '.');
        struct at_str name = at_str_cut(&inner, '[');
        value = json_object_getn(value, name.ptr, name.len);
        if (inner.len != 0) {
            inner.len--; /* the closing bracket */
            value = member(value, inner);
        }
    }
    return value;
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

const char *at_model_cell(const struct at_model_column *column, const json_t *object,
                          int64_t now_wall_ns, struct at_arena *arena)
{
    const char *text = cell(column, walk(column->path, object), now_wall_ns, arena);
    return text != NULL ? text : "";
}
