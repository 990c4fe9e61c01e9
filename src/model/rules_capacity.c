/* Rules of Queue and Reservation that look at several fields at once. */
#include "model/model_priv.h"

#include "core/mem.h"
#include "core/str.h"

#include <string.h>

#define PATH(up_, name_) (&(struct at_model_path){.up = (up_), .name = (name_)})
#define ITEM(up_, i_) (&(struct at_model_path){.up = (up_), .index = (i_)})

enum at_rc at_model_amount_parse(const char *resource, const char *text, int64_t *ret,
                                 struct at_err *err)
{
    bool milli = at_streq(resource, "cpu") || at_streq(resource, "gpu");
    int64_t value = 0;
    enum at_rc rc =
        milli ? at_quantity_milli(text, &value, err) : at_quantity_units(text, &value, err);
    if (rc != AT_OK) {
        return rc;
    }
    if (value < 0 || value > AT_MODEL_AMOUNT_MAX) {
        return at_err_set(err, AT_INVALID, "must be between 0 and 2^57");
    }
    *ret = value;
    return AT_OK;
}

char *at_model_amount_format(const char *resource, int64_t amount, char *out)
{
    if (at_streq(resource, "memory") || at_streq(resource, "disk")) {
        return at_quantity_format_bytes(amount, out);
    }
    bool milli = at_streq(resource, "cpu") || at_streq(resource, "gpu");
    return at_quantity_format_milli(milli ? amount : amount * 1000, out);
}

static void amount_check(struct at_model_check *check, const struct at_model_path *path,
                         const json_t *resource, const char *leaf)
{
    const json_t *value = json_object_get(resource, leaf);
    if (value == NULL || json_is_null(value)) {
        return;
    }
    const char *name = json_string_value(json_object_get(resource, "name"));
    char digits[AT_UNITS_TEXT_BYTES_MAX];
    const char *text = json_string_value(value);
    if (json_is_integer(value)) {
        snprintf(digits, sizeof(digits), "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        text = digits;
    }
    int64_t amount;
    if (text == NULL || at_model_amount_parse(name, text, &amount, NULL) != AT_OK) {
        at_model_invalid_add(check, path, leaf, value,
                             "must be an amount of %.100s: not negative, such as 4, 500m or 64Gi",
                             name);
    }
}

static void quota_check(struct at_model_check *check, const struct at_model_path *path,
                        const json_t *quota)
{
    const struct at_model_path *list = PATH(path, "resources");
    const json_t *resources = json_object_get(quota, "resources");
    for (size_t i = 0; i < json_array_size(resources); i++) {
        const json_t *r = json_array_get(resources, i);
        static const char *const AMOUNTS[] = {"nominal", "borrowingLimit", "lendingLimit"};
        for (size_t k = 0; k < AT_ARRAY_LEN(AMOUNTS); k++) {
            amount_check(check, ITEM(list, i), r, AMOUNTS[k]);
        }
        for (size_t k = 0; k < i; k++) {
            const json_t *name = json_object_get(r, "name");
            if (json_equal(name, json_object_get(json_array_get(resources, k), "name"))) {
                at_model_cause_add(check, ITEM(list, i), "name", "FieldValueDuplicate",
                                   "Duplicate value: \"%.100s\"", json_string_value(name));
                break;
            }
        }
    }
}

static bool same_place(const json_t *a, const json_t *b)
{
    static const char *const KEYS[] = {"site", "siteClass", "gpuModel"};
    for (size_t i = 0; i < AT_ARRAY_LEN(KEYS); i++) {
        if (strcmp(at_json_str_at(a, KEYS[i], ""), at_json_str_at(b, KEYS[i], "")) != 0) {
            return false;
        }
    }
    return true;
}

void at_model_queue_check(struct at_model_check *check, const json_t *object, const json_t *old)
{
    (void)old;
    const struct at_model_path *spec = PATH(NULL, "spec");
    const struct at_model_path *path = PATH(spec, "quotas");
    const json_t *cohort = at_json_at(object, "spec.cohort");
    if (cohort != NULL &&
        at_streq(json_string_value(cohort), at_json_str_at(object, "metadata.name", ""))) {
        at_model_invalid_add(check, spec, "cohort", cohort, "a queue is not its own cohort");
    }
    const json_t *quotas = at_json_at(object, "spec.quotas");
    for (size_t i = 0; i < json_array_size(quotas); i++) {
        quota_check(check, ITEM(path, i), json_array_get(quotas, i));
        for (size_t k = 0; k < i; k++) {
            if (same_place(json_array_get(quotas, i), json_array_get(quotas, k))) {
                at_model_cause_add(check, ITEM(path, i), NULL, "FieldValueDuplicate",
                                   "Duplicate value: a quota for the same site, class and model "
                                   "stands above");
                break;
            }
        }
    }
}

void at_model_reservation_check(struct at_model_check *check, const json_t *object,
                                const json_t *old)
{
    (void)old;
    const struct at_model_path *spec = PATH(NULL, "spec");
    const json_t *from = at_json_at(object, "spec.from");
    const json_t *to = at_json_at(object, "spec.to");
    int64_t from_ns = 0;
    int64_t to_ns = 0;
    if (from != NULL && at_model_unit_parse(AT_MODEL_UNIT_TIME, from, &from_ns, NULL) == AT_OK &&
        at_model_unit_parse(AT_MODEL_UNIT_TIME, to, &to_ns, NULL) == AT_OK && to_ns <= from_ns) {
        at_model_invalid_add(check, spec, "to", to, "must be later than from");
    }
    if (json_array_size(at_json_at(object, "spec.queues")) == 0 &&
        json_array_size(at_json_at(object, "spec.namespaces")) == 0) {
        at_model_cause_add(check, spec, "namespaces", "FieldValueRequired",
                           "Required value: queues or namespaces must say whom it is for");
    }
    at_model_labels_check(check, spec, "nodeSelector", at_json_at(object, "spec.nodeSelector"));
}
