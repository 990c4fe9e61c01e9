/* Checks an object against its kind's field table. Collects all causes instead of stopping at the
 * first: people mend a manifest in one go. */
#include "model/model_priv.h"

#include "core/mem.h"

#include <assert.h>
#include <inttypes.h>
#include <regex.h>
#include <stdio.h>
#include <string.h>

static void check_struct(struct at_model_check *check, const struct at_model_struct *s,
                         json_t *json, const json_t *old, const struct at_model_path *path);

static bool absent(const json_t *value)
{
    return value == NULL || json_is_null(value);
}

static void type_error(struct at_model_check *check, const struct at_model_path *path,
                       const json_t *value, const char *wanted)
{
    static const char *const names[] = {"object", "array",   "string",  "integer",
                                        "number", "boolean", "boolean", "null"};
    at_model_cause_add(check, path, NULL, "FieldValueTypeInvalid",
                       "Invalid value: \"%s\": must be of type %s", names[json_typeof(value)],
                       wanted);
}

static void enum_check(struct at_model_check *check, const struct at_model_field *f,
                       const json_t *value, const struct at_model_path *path)
{
    const char *text = json_string_value(value);
    char list[256] = "";
    size_t used = 0;
    for (const char *const *e = f->enums; *e != NULL; e++) {
        if (strcmp(*e, text) == 0) {
            return;
        }
        int n = snprintf(list + used, sizeof list - used, "%s\"%s\"", used != 0 ? ", " : "", *e);
        used += n > 0 && used + (size_t)n < sizeof list ? (size_t)n : 0;
    }
    at_model_cause_add(check, path, NULL, "FieldValueNotSupported",
                       "Unsupported value: \"%.100s\": supported values: %s", text, list);
}

static size_t characters(const char *text)
{
    size_t n = 0;
    for (; *text != '\0'; text++) {
        n += ((unsigned char)*text & 0xc0) != 0x80;
    }
    return n;
}

static void pattern_check(struct at_model_check *check, const struct at_model_field *f,
                          const json_t *value, const struct at_model_path *path)
{
    regex_t re;
    int failed = regcomp(&re, f->pattern, REG_EXTENDED | REG_NOSUB);
    assert(failed == 0); /* the model's tests compile every pattern */
    (void)failed;
    bool matches = regexec(&re, json_string_value(value), 0, NULL, 0) == 0;
    regfree(&re);
    if (!matches) {
        at_model_invalid_add(check, path, NULL, value, "must match '%s'", f->pattern);
    }
}

/* One string: a field's value, a list's item or a map's value. */
static void string_check(struct at_model_check *check, const struct at_model_field *f,
                         const json_t *value, const struct at_model_path *path)
{
    if (!json_is_string(value)) {
        type_error(check, path, value, "string");
        return;
    }
    if (f->enums != NULL) {
        enum_check(check, f, value, path);
    }
    size_t len = characters(json_string_value(value));
    if (len < f->min_len) {
        if (len == 0) {
            at_model_invalid_add(check, path, NULL, value, "must not be empty");
        } else {
            at_model_invalid_add(check, path, NULL, value, "must have at least %zu characters",
                                 f->min_len);
        }
    } else if (len > f->max_len) {
        at_model_cause_add(check, path, NULL, "FieldValueInvalid",
                           "Too long: may not be more than %zu characters", f->max_len);
    } else if (f->pattern != NULL) {
        pattern_check(check, f, value, path);
    }
}

static void int_check(struct at_model_check *check, const struct at_model_field *f,
                      const json_t *value, const struct at_model_path *path)
{
    if (!json_is_integer(value)) {
        type_error(check, path, value, "integer");
        return;
    }
    int64_t v = json_integer_value(value);
    if (v < f->min) {
        at_model_invalid_add(check, path, NULL, value, "must be greater than or equal to %" PRId64,
                             f->min);
    } else if (v > f->max) {
        at_model_invalid_add(check, path, NULL, value, "must be less than or equal to %" PRId64,
                             f->max);
    }
}

static void number_check(struct at_model_check *check, const struct at_model_field *f,
                         const json_t *value, const struct at_model_path *path)
{
    double v = json_number_value(value);
    if (!json_is_number(value)) {
        type_error(check, path, value, "number");
    } else if ((f->min != INT64_MIN && v < (double)f->min) ||
               (f->max != INT64_MAX && v > (double)f->max)) {
        at_model_invalid_add(check, path, NULL, value, "is out of range");
    }
}

static void unit_check(struct at_model_check *check, const struct at_model_field *f,
                       const json_t *value, const struct at_model_path *path)
{
    static const char *const names[] = {"",         "quantity", "quantity",       "quantity",
                                        "duration", "time",     "amount of money"};
    if (!json_is_string(value) && !json_is_number(value)) {
        type_error(check, path, value, "string");
        return;
    }
    int64_t ignored;
    struct at_err why = {0};
    if (at_model_unit_parse(f->unit, value, &ignored, &why) != AT_OK) {
        at_model_invalid_add(check, path, NULL, value, "%s %s", names[f->unit], why.msg);
    }
}

static void count_check(struct at_model_check *check, const struct at_model_field *f, size_t n,
                        const struct at_model_path *path)
{
    if (n < f->min_items) {
        at_model_cause_add(check, path, NULL, "FieldValueInvalid",
                           "Invalid value: %zu: must have at least %zu items", n, f->min_items);
    } else if (n > f->max_items) {
        at_model_cause_add(check, path, NULL, "FieldValueInvalid",
                           "Too many: %zu: must have at most %zu items", n, f->max_items);
    }
}

/* At the key when there is one, else at the item. */
static void duplicate_add(struct at_model_check *check, const struct at_model_field *f,
                          const json_t *item, const char *name, const struct at_model_path *path)
{
    bool one = f->list == AT_MODEL_LIST_MAP && f->list_keys[1] == NULL;
    const char *value = one ? json_string_value(json_object_get(item, f->list_keys[0])) : NULL;
    if (value != NULL) {
        at_model_cause_add(check, path, f->list_keys[0], "FieldValueDuplicate",
                           "Duplicate value: \"%.200s\"", value);
    } else {
        at_model_cause_add(check, path, NULL, "FieldValueDuplicate", "Duplicate value: %.200s",
                           name);
    }
}

/* Two items of one key would be one field with two values. */
static void duplicates_check(struct at_model_check *check, const struct at_model_field *f,
                             const json_t *value, const struct at_model_path *path)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf name = {0};
    AT_CLEANUP(at_cleanup_json) json_t *seen = json_object();
    size_t n = json_array_size(value);
    for (size_t i = 0; f->list != AT_MODEL_LIST_ATOMIC && i < n && i <= f->max_items; i++) {
        if (!at_model_item_name(f, json_array_get(value, i), &name)) {
            continue;
        }
        if (json_object_get(seen, name.data) != NULL) {
            duplicate_add(check, f, json_array_get(value, i), name.data + 2,
                          &(struct at_model_path){.up = path, .index = i});
        }
        json_object_set_new(seen, name.data, json_null());
    }
}

static void list_check(struct at_model_check *check, const struct at_model_field *f,
                       const json_t *value, const struct at_model_path *path)
{
    if (!json_is_array(value)) {
        type_error(check, path, value, "array");
        return;
    }
    count_check(check, f, json_array_size(value), path);
    for (size_t i = 0; i < json_array_size(value) && i <= f->max_items; i++) {
        struct at_model_path item = {.up = path, .index = i};
        json_t *v = json_array_get(value, i);
        if (f->type == AT_MODEL_T_LIST) {
            check_struct(check, f->sub, v, NULL, &item);
        } else {
            string_check(check, f, v, &item);
        }
    }
    duplicates_check(check, f, value, path);
}

/* A whole number where one is taken for its digits: the same rules hold for it. */
static void text_check(struct at_model_check *check, const struct at_model_field *f, json_t *value,
                       const struct at_model_path *path)
{
    if (json_is_integer(value) && (f->flags & AT_MODEL_F_INT_OR_STRING) != 0) {
        AT_CLEANUP(at_cleanup_json)
        json_t *text = json_sprintf("%" JSON_INTEGER_FORMAT, json_integer_value(value));
        string_check(check, f, text, path);
        return;
    }
    string_check(check, f, value, path);
}

static void map_check(struct at_model_check *check, const struct at_model_field *f,
                      const json_t *value, const struct at_model_path *path)
{
    if (!json_is_object(value)) {
        type_error(check, path, value, "object");
        return;
    }
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)value, key, v)
    {
        struct at_model_path item = {.up = path, .name = key, .is_key = true};
        text_check(check, f, v, &item);
    }
}

static void value_check(struct at_model_check *check, const struct at_model_field *f, json_t *value,
                        const json_t *old, const struct at_model_path *path)
{
    switch (f->type) {
    case AT_MODEL_T_STRING:
        text_check(check, f, value, path);
        return;
    case AT_MODEL_T_INT:
        int_check(check, f, value, path);
        return;
    case AT_MODEL_T_BOOL:
        if (!json_is_boolean(value)) {
            type_error(check, path, value, "boolean");
        }
        return;
    case AT_MODEL_T_NUMBER:
        number_check(check, f, value, path);
        return;
    case AT_MODEL_T_UNIT:
        unit_check(check, f, value, path);
        return;
    case AT_MODEL_T_OBJECT:
    case AT_MODEL_T_EMBEDDED:
        check_struct(check, f->sub, value, old, path);
        return;
    case AT_MODEL_T_LIST:
    case AT_MODEL_T_STRINGS:
        list_check(check, f, value, path);
        return;
    case AT_MODEL_T_MAP:
        map_check(check, f, value, path);
        return;
    case AT_MODEL_T_FREE:
        return;
    }
}

static const struct at_model_field *field_find(const struct at_model_struct *s, const char *name)
{
    for (size_t i = 0; i < s->n_fields; i++) {
        if (strcmp(s->fields[i].name, name) == 0) {
            return &s->fields[i];
        }
    }
    return NULL;
}

static void unknown_check(struct at_model_check *check, const struct at_model_struct *s,
                          json_t *json, const struct at_model_path *path)
{
    const char *key;
    json_t *value;
    void *next;
    json_object_foreach_safe(json, next, key, value)
    {
        bool implied = path == NULL && (strcmp(key, "apiVersion") == 0 ||
                                        strcmp(key, "kind") == 0 || strcmp(key, "metadata") == 0);
        if (implied || field_find(s, key) != NULL) {
            continue;
        }
        if (!json_is_null(value)) {
            at_model_unknown_add(check, path, key);
        }
        if (check->drop_unknown) {
            json_object_del(json, key);
        }
    }
}

static void check_struct(struct at_model_check *check, const struct at_model_struct *s,
                         json_t *json, const json_t *old, const struct at_model_path *path)
{
    if (!json_is_object(json)) {
        type_error(check, path, json, "object");
        return;
    }
    unknown_check(check, s, json, path);
    for (size_t i = 0; i < s->n_fields; i++) {
        const struct at_model_field *f = &s->fields[i];
        struct at_model_path at = {.up = path, .name = f->name};
        json_t *v = json_object_get(json, f->name);
        const json_t *before = json_object_get(old, f->name);
        if ((f->flags & AT_MODEL_F_IMMUTABLE) != 0 && !absent(before) &&
            (absent(v) || !json_equal(v, before))) {
            at_model_invalid_add(check, &at, NULL, v, "field is immutable");
        }
        if (!absent(v)) {
            value_check(check, f, v, before, &at);
        } else if ((f->flags & AT_MODEL_F_REQUIRED) != 0) {
            at_model_cause_add(check, &at, NULL, "FieldValueRequired", "Required value");
        }
    }
}

static void type_meta_check(struct at_model_check *check, const struct at_model_kind *kind,
                            const json_t *json)
{
    const struct {
        const char *name, *wanted;
    } rows[] = {{"apiVersion", kind->api_version}, {"kind", kind->kind}};
    for (size_t i = 0; i < AT_ARRAY_LEN(rows); i++) {
        const json_t *v = json_object_get(json, rows[i].name);
        if (!absent(v) &&
            (!json_is_string(v) || strcmp(json_string_value(v), rows[i].wanted) != 0)) {
            at_model_invalid_add(check, NULL, rows[i].name, v, "must be %s", rows[i].wanted);
        }
    }
}

static enum at_rc strict_error(const struct at_model_report *report, struct at_err *err)
{
    char list[AT_ERR_MSG_BYTES_MAX] = "";
    size_t used = 0;
    for (size_t i = 0; i < report->n_unknown; i++) {
        int n = snprintf(list + used, sizeof list - used, "%sunknown field \"%s\"",
                         i != 0 ? ", " : "", report->unknown[i]);
        if (n < 0 || used + (size_t)n >= sizeof list) {
            list[used] = '\0';
            break;
        }
        used += (size_t)n;
    }
    return at_err_set_field(err, AT_BAD_REQUEST, report->unknown[0], "strict decoding error: %s",
                            list);
}

/* As Kubernetes says it: Deployment.atoll.dev "x" is invalid: spec.replicas: Invalid value: ... */
static enum at_rc invalid_error(const struct at_model_check *check,
                                const struct at_model_kind *kind, const json_t *json,
                                struct at_err *err)
{
    const struct at_model_report *report = check->report;
    const char *name = at_json_str_at(json, "metadata.name", "");
    char list[AT_ERR_MSG_BYTES_MAX] = "";
    size_t used = 0;
    bool many = report->n_causes > 1;
    for (size_t i = 0; i < report->n_causes; i++) {
        int n = snprintf(list + used, sizeof list - used, "%s%s: %s", i != 0 ? ", " : "",
                         report->causes[i].field, report->causes[i].message);
        if (n < 0 || used + (size_t)n >= sizeof list) {
            snprintf(list + (used < sizeof list - 5 ? used : sizeof list - 5), 5, " ...");
            break;
        }
        used += (size_t)n;
    }
    return at_err_set_field(err, AT_INVALID, report->causes[0].field,
                            "%s%s%s \"%.63s\" is invalid: %s%s%s", kind->kind,
                            kind->group[0] != '\0' ? "." : "", kind->group, name, many ? "[" : "",
                            list, many ? "]" : "");
}

enum at_rc at_model_validate(const struct at_model_kind *kind, json_t *json, const json_t *old,
                             enum at_model_unknown unknown, struct at_arena *arena,
                             struct at_model_report *ret_report, struct at_err *err)
{
    *ret_report = (struct at_model_report){0};
    struct at_model_check check = {
        .arena = arena,
        .report = ret_report,
        .drop_unknown = unknown != AT_MODEL_UNKNOWN_REFUSE,
    };
    if (!json_is_object(json)) {
        return at_err_set(err, AT_BAD_REQUEST, "a %s must be an object", kind->kind);
    }
    type_meta_check(&check, kind, json);
    at_model_meta_check(&check, kind, json);
    check_struct(&check, kind->fields, json, old, NULL);
    if (ret_report->n_causes == 0) {
        at_model_rules_check(&check, kind, json, old);
    }
    if (check.exhausted) {
        return at_err_set(err, AT_TOO_LARGE, "object is too large to be checked");
    }
    if (unknown == AT_MODEL_UNKNOWN_REFUSE && ret_report->n_unknown != 0) {
        return strict_error(ret_report, err);
    }
    return ret_report->n_causes == 0 ? AT_OK : invalid_error(&check, kind, json, err);
}
