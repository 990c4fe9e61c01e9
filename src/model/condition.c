#include "model/model_priv.h"

#include "core/str.h"

#include <string.h>

static json_t *conditions_of(json_t *object)
{
    json_t *list = at_json_at(object, "status.conditions");
    if (!json_is_array(list)) {
        list = json_array();
        at_json_set_at(object, "status.conditions", list);
    }
    return list;
}

static json_t *condition_of(json_t *list, const char *type)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *item = json_array_get(list, i);
        if (at_streq(json_string_value(json_object_get(item, "type")), type)) {
            return item;
        }
    }
    json_t *made = json_object();
    json_object_set_new(made, "type", json_string(type));
    json_array_append_new(list, made);
    return made;
}

static void set_text(json_t *condition, const char *key, const char *text)
{
    if (text == NULL || text[0] == '\0') {
        json_object_del(condition, key);
    } else {
        json_object_set_new(condition, key, json_string(text));
    }
}

/* observedGeneration is left out: kubectl's wait would hold a condition that is true for any
 * generation against a newer one for ever. */
void at_condition_set(json_t *object, const char *type, bool status, const char *reason,
                      const char *message, int64_t now_wall_ns)
{
    json_t *condition = condition_of(conditions_of(object), type);
    const char *wanted = status ? "True" : "False";
    const char *before = json_string_value(json_object_get(condition, "status"));
    if (!at_streq(before, wanted)) {
        json_object_set_new(condition, "status", json_string(wanted));
        json_object_set_new(condition, "lastTransitionTime",
                            at_model_unit_json(AT_MODEL_UNIT_TIME, now_wall_ns));
    }
    set_text(condition, "reason", reason);
    set_text(condition, "message", message);
}
