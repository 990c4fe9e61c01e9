/* C structs to JSON, driven by the field tables. Fields appear in the order of the schema. */
#include "model/model_priv.h"

#include <string.h>

static json_t *encode_struct(const struct at_model_struct *s, const void *value);

/* What is written although it is zero: in a status everything that a merge patch must be able to
 * reset; elsewhere what would otherwise be refused as missing or be defaulted to something else. */
static bool zero_counts(const struct at_model_struct *s, const struct at_model_field *f)
{
    return s->is_status || (f->flags & (AT_MODEL_F_REQUIRED | AT_MODEL_F_DEFAULT)) != 0;
}

static json_t *encode_list(const struct at_model_struct *sub, const struct at_model_list *list)
{
    if (list->n == 0) {
        return NULL;
    }
    json_t *out = json_array();
    for (size_t i = 0; i < list->n; i++) {
        json_array_append_new(out, encode_struct(sub, (const char *)list->items + i * sub->size));
    }
    return out;
}

static json_t *encode_strings(const struct at_model_strings *list)
{
    if (list->n == 0) {
        return NULL;
    }
    json_t *out = json_array();
    for (size_t i = 0; i < list->n; i++) {
        json_array_append_new(out, json_string(list->items[i]));
    }
    return out;
}

static json_t *encode_map(const struct at_model_map *map)
{
    if (map->n == 0) {
        return NULL;
    }
    json_t *out = json_object();
    for (size_t i = 0; i < map->n; i++) {
        json_object_set_new(out, map->items[i].key, json_string(map->items[i].value));
    }
    return out;
}

static json_t *encode_unit(const struct at_model_struct *s, const struct at_model_field *f,
                           int64_t v)
{
    bool zero_is_absent = f->unit == AT_MODEL_UNIT_TIME || !zero_counts(s, f);
    return v == 0 && zero_is_absent ? NULL : at_model_unit_json(f->unit, v);
}

static bool all_zero(const void *value, size_t size)
{
    const char *bytes = value;
    return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}

/* NULL: absent. */
static json_t *encode_value(const struct at_model_struct *s, const struct at_model_field *f,
                            const void *value)
{
    switch (f->type) {
    case AT_MODEL_T_STRING: {
        const char *text = *(const char *const *)value;
        return text != NULL ? json_string(text) : NULL;
    }
    case AT_MODEL_T_INT: {
        int64_t v = *(const int64_t *)value;
        return v != 0 || zero_counts(s, f) ? json_integer(v) : NULL;
    }
    case AT_MODEL_T_BOOL: {
        bool v = *(const bool *)value;
        return v || zero_counts(s, f) ? json_boolean(v) : NULL;
    }
    case AT_MODEL_T_NUMBER: {
        double v = *(const double *)value;
        return v != 0 || zero_counts(s, f) ? json_real(v) : NULL;
    }
    case AT_MODEL_T_UNIT:
        return encode_unit(s, f, *(const int64_t *)value);
    case AT_MODEL_T_OBJECT: {
        const void *sub = *(const void *const *)value;
        return sub != NULL ? encode_struct(f->sub, sub) : NULL;
    }
    case AT_MODEL_T_EMBEDDED:
        if (all_zero(value, f->sub->size) && (f->flags & AT_MODEL_F_REQUIRED) == 0) {
            return NULL;
        }
        return encode_struct(f->sub, value);
    case AT_MODEL_T_LIST:
        return encode_list(f->sub, value);
    case AT_MODEL_T_STRINGS:
        return encode_strings(value);
    case AT_MODEL_T_MAP:
        return encode_map(value);
    case AT_MODEL_T_FREE:
        return json_incref(*(json_t *const *)value);
    }
    return NULL;
}

static void encode_fields(const struct at_model_struct *s, const void *value, json_t *out)
{
    for (size_t i = 0; i < s->n_fields; i++) {
        const struct at_model_field *f = &s->fields[i];
        json_t *v = encode_value(s, f, (const char *)value + f->offset);
        if (v != NULL) {
            json_object_set_new(out, f->name, v);
        }
    }
}

static json_t *encode_struct(const struct at_model_struct *s, const void *value)
{
    json_t *out = json_object();
    encode_fields(s, value, out);
    return out;
}

enum at_rc at_model_encode(const struct at_model_kind *kind, const void *object, json_t **ret,
                           struct at_err *err)
{
    json_t *out = json_object();
    if (out == NULL) {
        return at_err_set(err, AT_NOMEM, "out of memory");
    }
    json_object_set_new(out, "apiVersion", json_string(kind->api_version));
    json_object_set_new(out, "kind", json_string(kind->kind));
    json_object_set_new(out, "metadata", at_meta_encode(object));
    encode_fields(kind->fields, object, out);
    *ret = out;
    return AT_OK;
}

enum at_rc at_model_encode_struct(const struct at_model_struct *fields, const void *value,
                                  json_t **ret, struct at_err *err)
{
    json_t *out = encode_struct(fields, value);
    if (out == NULL) {
        return at_err_set(err, AT_NOMEM, "out of memory");
    }
    *ret = out;
    return AT_OK;
}
