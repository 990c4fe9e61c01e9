/* JSON to C structs, driven by the field tables. */
#include "model/model_priv.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

struct decoder {
    struct at_arena *arena;
    struct at_err *err;
};

static enum at_rc decode_struct(struct decoder *d, const struct at_model_struct *s,
                                const json_t *json, const struct at_model_path *path, void *out);

static enum at_rc fail(struct decoder *d, const struct at_model_path *path, const char *why)
{
    const char *text = at_model_path_text(path, NULL, d->arena);
    return at_err_set_field(d->err, AT_INVALID, text, "%s: %s", text, why);
}

static enum at_rc out_of_room(struct decoder *d)
{
    return at_err_set(d->err, AT_TOO_LARGE, "object is too large");
}

static enum at_rc decode_string(struct decoder *d, const json_t *v,
                                const struct at_model_path *path, const char **out)
{
    if (!json_is_string(v)) {
        return fail(d, path, "must be a string");
    }
    *out = at_arena_strndup(d->arena, json_string_value(v), json_string_length(v));
    return *out != NULL ? AT_OK : out_of_room(d);
}

static enum at_rc decode_text(struct decoder *d, const struct at_model_field *f, const json_t *v,
                              const struct at_model_path *path, const char **out)
{
    if (json_is_integer(v) && (f->flags & AT_MODEL_F_INT_OR_STRING) != 0) {
        *out = at_arena_printf(d->arena, "%" PRId64, (int64_t)json_integer_value(v));
        return *out != NULL ? AT_OK : out_of_room(d);
    }
    return decode_string(d, v, path, out);
}

static enum at_rc decode_list(struct decoder *d, const struct at_model_struct *sub, const json_t *v,
                              const struct at_model_path *path, struct at_model_list *out)
{
    if (!json_is_array(v)) {
        return fail(d, path, "must be a list");
    }
    size_t n = json_array_size(v);
    char *items = at_arena_alloc(d->arena, n * sub->size);
    if (items == NULL) {
        return out_of_room(d);
    }
    for (size_t i = 0; i < n; i++) {
        struct at_model_path at = {.up = path, .index = i};
        enum at_rc rc = decode_struct(d, sub, json_array_get(v, i), &at, items + i * sub->size);
        if (rc != AT_OK) {
            return rc;
        }
    }
    *out = (struct at_model_list){items, n};
    return AT_OK;
}

static enum at_rc decode_strings(struct decoder *d, const json_t *v,
                                 const struct at_model_path *path, struct at_model_strings *out)
{
    if (!json_is_array(v)) {
        return fail(d, path, "must be a list");
    }
    size_t n = json_array_size(v);
    const char **items = at_arena_alloc(d->arena, n * sizeof *items);
    if (items == NULL) {
        return out_of_room(d);
    }
    for (size_t i = 0; i < n; i++) {
        struct at_model_path at = {.up = path, .index = i};
        enum at_rc rc = decode_string(d, json_array_get(v, i), &at, &items[i]);
        if (rc != AT_OK) {
            return rc;
        }
    }
    *out = (struct at_model_strings){items, n};
    return AT_OK;
}

static enum at_rc decode_map(struct decoder *d, const struct at_model_field *f, const json_t *v,
                             const struct at_model_path *path, struct at_model_map *out)
{
    if (!json_is_object(v)) {
        return fail(d, path, "must be a map");
    }
    struct at_model_kv *items = at_arena_alloc(d->arena, json_object_size(v) * sizeof *items);
    if (items == NULL) {
        return out_of_room(d);
    }
    size_t n = 0;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)v, key, value)
    {
        struct at_model_path at = {.up = path, .name = key, .is_key = true};
        items[n].key = at_arena_strdup(d->arena, key);
        if (items[n].key == NULL) {
            return out_of_room(d);
        }
        enum at_rc rc = decode_text(d, f, value, &at, &items[n].value);
        if (rc != AT_OK) {
            return rc;
        }
        n++;
    }
    *out = (struct at_model_map){items, n};
    return AT_OK;
}

static enum at_rc decode_object(struct decoder *d, const struct at_model_struct *sub,
                                const json_t *v, const struct at_model_path *path, const void **out)
{
    void *value = at_arena_alloc(d->arena, sub->size);
    if (value == NULL) {
        return out_of_room(d);
    }
    *out = value;
    return decode_struct(d, sub, v, path, value);
}

static enum at_rc decode_unit(struct decoder *d, const struct at_model_field *f, const json_t *v,
                              const struct at_model_path *path, int64_t *out)
{
    struct at_err why = {0};
    return at_model_unit_parse(f->unit, v, out, &why) == AT_OK ? AT_OK : fail(d, path, why.msg);
}

static enum at_rc decode_value(struct decoder *d, const struct at_model_field *f, json_t *v,
                               const struct at_model_path *path, void *out)
{
    switch (f->type) {
    case AT_MODEL_T_STRING:
        return decode_text(d, f, v, path, out);
    case AT_MODEL_T_INT:
        if (!json_is_integer(v)) {
            return fail(d, path, "must be an integer");
        }
        *(int64_t *)out = json_integer_value(v);
        return AT_OK;
    case AT_MODEL_T_BOOL:
        if (!json_is_boolean(v)) {
            return fail(d, path, "must be true or false");
        }
        *(bool *)out = json_is_true(v);
        return AT_OK;
    case AT_MODEL_T_NUMBER:
        if (!json_is_number(v)) {
            return fail(d, path, "must be a number");
        }
        *(double *)out = json_number_value(v);
        return AT_OK;
    case AT_MODEL_T_UNIT:
        return decode_unit(d, f, v, path, out);
    case AT_MODEL_T_OBJECT:
        return decode_object(d, f->sub, v, path, out);
    case AT_MODEL_T_EMBEDDED:
        return decode_struct(d, f->sub, v, path, out);
    case AT_MODEL_T_LIST:
        return decode_list(d, f->sub, v, path, out);
    case AT_MODEL_T_STRINGS:
        return decode_strings(d, v, path, out);
    case AT_MODEL_T_MAP:
        return decode_map(d, f, v, path, out);
    case AT_MODEL_T_FREE:
        *(json_t **)out = v;
        return AT_OK;
    }
    return AT_INTERNAL;
}

/* An object that was stored before a field with a default came to the schema reads as if it had
 * been defaulted. */
static void fill_default(const struct at_model_field *f, void *out)
{
    if ((f->flags & AT_MODEL_F_DEFAULT) == 0) {
        return;
    }
    if (f->type == AT_MODEL_T_STRING) {
        *(const char **)out = f->default_text;
    } else if (f->type == AT_MODEL_T_INT) {
        *(int64_t *)out = f->default_int;
    } else if (f->type == AT_MODEL_T_BOOL) {
        *(bool *)out = f->default_int != 0;
    } else if (f->type == AT_MODEL_T_UNIT) {
        json_t *text = json_string(f->default_text);
        enum at_rc rc = at_model_unit_parse(f->unit, text, out, NULL);
        json_decref(text);
        assert(rc == AT_OK); /* the model's tests decode every default */
    }
}

static enum at_rc decode_struct(struct decoder *d, const struct at_model_struct *s,
                                const json_t *json, const struct at_model_path *path, void *out)
{
    if (!json_is_object(json)) {
        return fail(d, path, "must be an object");
    }
    for (size_t i = 0; i < s->n_fields; i++) {
        const struct at_model_field *f = &s->fields[i];
        json_t *v = json_object_get(json, f->name);
        void *place = (char *)out + f->offset;
        if (v == NULL || json_is_null(v)) {
            fill_default(f, place);
            continue;
        }
        struct at_model_path at = {.up = path, .name = f->name};
        enum at_rc rc = decode_value(d, f, v, &at, place);
        if (rc != AT_OK) {
            return rc;
        }
    }
    return AT_OK;
}

enum at_rc at_model_decode(const struct at_model_kind *kind, const json_t *json,
                           struct at_arena *arena, void *ret, struct at_err *err)
{
    memset(ret, 0, kind->struct_size);
    struct decoder d = {arena, err};
    enum at_rc rc = decode_struct(&d, kind->fields, json, NULL, ret);
    if (rc != AT_OK) {
        return rc;
    }
    /* metadata is the first member of each kind's struct. */
    const json_t *meta = json_object_get(json, "metadata");
    return meta != NULL ? at_meta_decode(meta, arena, ret, err) : AT_OK;
}
