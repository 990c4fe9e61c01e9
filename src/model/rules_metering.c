/* Rules of keys and budgets that a schema cannot say. */
#include "model/model_priv.h"

#include "core/mem.h"
#include "core/str.h"

#include <string.h>

#define PATH(up_, name_) (&(struct at_model_path){.up = (up_), .name = (name_)})
#define ITEM(up_, i_) (&(struct at_model_path){.up = (up_), .index = (i_)})

static void money_check(struct at_model_check *check, const struct at_model_path *path,
                        const json_t *holder, const char *leaf)
{
    int64_t microusd;
    const json_t *value = json_object_get(holder, leaf);
    if (value != NULL &&
        at_model_unit_parse(AT_MODEL_UNIT_MONEY, value, &microusd, NULL) == AT_OK && microusd < 0) {
        at_model_invalid_add(check, path, leaf, value, "must not be less than 0");
    }
}

/* A star stands for any text, a slash parts namespace and name. */
static void patterns_check(struct at_model_check *check, const struct at_model_path *path,
                           const json_t *list)
{
    size_t i;
    json_t *pattern;
    json_array_foreach(list, i, pattern)
    {
        const char *text = json_string_value(pattern);
        const char *slash = text != NULL ? strchr(text, '/') : NULL;
        if (slash != NULL && (slash == text || slash[1] == '\0')) {
            at_model_invalid_add(check, ITEM(path, i), NULL, pattern,
                                 "must be a model's name or namespace/name");
        }
    }
}

void at_model_api_key_check(struct at_model_check *check, const json_t *object, const json_t *old)
{
    (void)old;
    const json_t *spec = json_object_get(object, "spec");
    const struct at_model_path *path = PATH(NULL, "spec");
    const json_t *budgets = json_object_get(spec, "budgets");
    size_t i;
    json_t *budget, *ns;
    json_array_foreach(budgets, i, budget)
    {
        money_check(check, ITEM(PATH(path, "budgets"), i), budget, "amount");
    }
    json_array_foreach(json_object_get(spec, "namespaces"), i, ns)
    {
        const char *text = json_string_value(ns);
        const char *problem =
            text == NULL || at_streq(text, "*") ? NULL : at_model_dns_label_problem(text);
        if (problem != NULL) {
            at_model_invalid_add(check, ITEM(PATH(path, "namespaces"), i), NULL, ns, "%s", problem);
        }
    }
    patterns_check(check, PATH(path, "models"), json_object_get(spec, "models"));
    const json_t *previous = json_object_get(spec, "previousHash");
    if (previous != NULL && json_string_length(previous) > 0 &&
        json_object_get(spec, "previousUntil") == NULL) {
        at_model_cause_add(check, path, "previousUntil", "FieldValueRequired",
                           "Required value: a previous secret must end");
    }
    if (previous != NULL && json_equal(previous, json_object_get(spec, "hash"))) {
        at_model_invalid_add(check, path, "previousHash", previous,
                             "is the same as hash: a rotation needs a new secret");
    }
}

void at_model_budget_check(struct at_model_check *check, const json_t *object, const json_t *old)
{
    (void)old;
    const json_t *spec = json_object_get(object, "spec");
    const struct at_model_path *path = PATH(NULL, "spec");
    money_check(check, path, spec, "amount");
    patterns_check(check, PATH(path, "models"), json_object_get(spec, "models"));
    const json_t *limits = json_object_get(spec, "limits");
    if (json_object_get(spec, "amount") == NULL && json_object_size(limits) == 0) {
        at_model_cause_add(check, path, "amount", "FieldValueRequired",
                           "Required value: a budget needs an amount, or limits");
    }
}

void at_model_price_check(struct at_model_check *check, const json_t *object)
{
    static const char *const LEAVES[] = {"inputTokens", "outputTokens", "request"};
    const struct at_model_path *path = PATH(PATH(PATH(NULL, "spec"), "traffic"), "price");
    for (size_t i = 0; i < AT_ARRAY_LEN(LEAVES); i++) {
        money_check(check, path, at_json_at(object, "spec.traffic.price"), LEAVES[i]);
    }
}
