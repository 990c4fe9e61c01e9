/* Placement's rules that a schema cannot say: expressions, affinities, tolerations, spreading. */
#include "model/model_priv.h"

#include "core/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PATH(up_, name_) (&(struct at_model_path){.up = (up_), .name = (name_)})
#define ITEM(up_, i_) (&(struct at_model_path){.up = (up_), .index = (i_)})

static const char *text_at(const json_t *json, const char *key)
{
    const char *text = json_string_value(json_object_get(json, key));
    return text != NULL ? text : "";
}

static bool is_whole(const char *text)
{
    char *end;
    errno = 0;
    (void)strtoll(text, &end, 10);
    return errno == 0 && end != text && *end == '\0' && strchr(" \t\n+", text[0]) == NULL;
}

static void refuse(struct at_model_check *check, const struct at_model_path *path, const char *leaf,
                   const char *why)
{
    at_model_cause_add(check, path, leaf, "FieldValueInvalid", "Invalid value: %s", why);
}

static void expression_check(struct at_model_check *check, const struct at_model_path *path,
                             const json_t *expression, bool numbers)
{
    const char *op = text_at(expression, "operator");
    const json_t *values = json_object_get(expression, "values");
    size_t n = json_array_size(values);
    const char *problem = at_model_qualified_name_problem(text_at(expression, "key"));
    if (problem != NULL) {
        at_model_invalid_add(check, path, "key", json_object_get(expression, "key"), "%s", problem);
    }
    bool compares = strcmp(op, "Gt") == 0 || strcmp(op, "Lt") == 0;
    if (compares && !numbers) {
        refuse(check, path, "operator", "Gt and Lt are for labels of nodes only");
    } else if (compares && (n != 1 || !is_whole(json_string_value(json_array_get(values, 0))))) {
        refuse(check, path, "values", "Gt and Lt need exactly one whole number");
    } else if ((strcmp(op, "In") == 0 || strcmp(op, "NotIn") == 0) && n == 0) {
        at_model_cause_add(check, path, "values", "FieldValueRequired",
                           "Required value: In and NotIn need at least one value");
    } else if ((strcmp(op, "Exists") == 0 || strcmp(op, "DoesNotExist") == 0) && n != 0) {
        at_model_cause_add(check, path, "values", "FieldValueForbidden",
                           "Forbidden: Exists and DoesNotExist take no values");
    }
}

static void expressions_check(struct at_model_check *check, const struct at_model_path *path,
                              const json_t *holder, bool numbers)
{
    const struct at_model_path *list = PATH(path, "matchExpressions");
    size_t i;
    json_t *expression;
    json_array_foreach(json_object_get(holder, "matchExpressions"), i, expression)
    {
        expression_check(check, ITEM(list, i), expression, numbers);
    }
}

void at_model_selector_check(struct at_model_check *check, const struct at_model_path *path,
                             const json_t *selector)
{
    at_model_labels_check(check, path, "matchLabels", json_object_get(selector, "matchLabels"));
    expressions_check(check, path, selector, false);
}

static void weight_check(struct at_model_check *check, const struct at_model_path *path,
                         const json_t *term, bool preferred)
{
    const json_t *weight = json_object_get(term, "weight");
    if (preferred && json_integer_value(weight) < 1) {
        at_model_cause_add(check, path, "weight", "FieldValueRequired",
                           "Required value: a preference needs a weight from 1 to 100");
    } else if (!preferred && weight != NULL) {
        at_model_cause_add(check, path, "weight", "FieldValueForbidden",
                           "Forbidden: what is required has no weight");
    }
}

typedef void terms_check_fn(struct at_model_check *check, const struct at_model_path *path,
                            const json_t *term);

static void node_term_check(struct at_model_check *check, const struct at_model_path *path,
                            const json_t *term)
{
    if (json_array_size(json_object_get(term, "matchExpressions")) == 0) {
        at_model_cause_add(check, path, "matchExpressions", "FieldValueRequired",
                           "Required value: a term needs at least one requirement");
    }
    expressions_check(check, path, term, true);
}

static void affinity_term_check(struct at_model_check *check, const struct at_model_path *path,
                                const json_t *term)
{
    const json_t *selector = json_object_get(term, "labelSelector");
    if (json_object_size(json_object_get(selector, "matchLabels")) == 0 &&
        json_array_size(json_object_get(selector, "matchExpressions")) == 0) {
        at_model_cause_add(check, path, "labelSelector", "FieldValueRequired",
                           "Required value: a selector must say which instances are meant");
    }
    at_model_selector_check(check, PATH(path, "labelSelector"), selector);
}

static void terms_check(struct at_model_check *check, const struct at_model_path *path,
                        const json_t *holder, terms_check_fn *one)
{
    static const char *const LISTS[] = {"required", "preferred"};
    for (size_t k = 0; k < 2; k++) {
        size_t i;
        json_t *term;
        json_array_foreach(json_object_get(holder, LISTS[k]), i, term)
        {
            const struct at_model_path *at = ITEM(PATH(path, LISTS[k]), i);
            weight_check(check, at, term, k == 1);
            one(check, at, term);
        }
    }
}

static void toleration_check(struct at_model_check *check, const struct at_model_path *path,
                             const json_t *toleration)
{
    bool exists = strcmp(text_at(toleration, "operator"), "Exists") == 0;
    if (!exists && text_at(toleration, "key")[0] == '\0') {
        at_model_cause_add(check, path, "key", "FieldValueRequired",
                           "Required value: only operator Exists goes without a key");
    }
    if (exists && text_at(toleration, "value")[0] != '\0') {
        at_model_cause_add(check, path, "value", "FieldValueForbidden",
                           "Forbidden: operator Exists takes no value");
    }
    const json_t *seconds = json_object_get(toleration, "tolerationSeconds");
    if (seconds == NULL) {
        return;
    }
    if (json_is_string(seconds) && !is_whole(json_string_value(seconds))) {
        at_model_invalid_add(check, path, "tolerationSeconds", seconds, "must be a whole number");
    }
    const char *effect = text_at(toleration, "effect");
    if (effect[0] != '\0' && strcmp(effect, "NoExecute") != 0) {
        at_model_cause_add(check, path, "tolerationSeconds", "FieldValueForbidden",
                           "Forbidden: only effect NoExecute is borne for a time");
    }
}

static void spread_check(struct at_model_check *check, const struct at_model_path *path,
                         const json_t *rule)
{
    static const char *const LIMITS[] = {"maxSkew", "maxDomains", "maxPerDomain"};
    bool any = false;
    for (size_t i = 0; i < AT_ARRAY_LEN(LIMITS); i++) {
        any = any || json_integer_value(json_object_get(rule, LIMITS[i])) > 0;
    }
    if (!any) {
        at_model_cause_add(check, path, NULL, "FieldValueRequired",
                           "Required value: maxSkew, maxDomains or maxPerDomain must be set");
    }
    if (json_integer_value(json_object_get(rule, "minDomains")) > 0 &&
        json_integer_value(json_object_get(rule, "maxSkew")) == 0) {
        at_model_cause_add(check, path, "minDomains", "FieldValueForbidden",
                           "Forbidden: minDomains works by maxSkew, which is not set");
    }
    const json_t *selector = json_object_get(rule, "labelSelector");
    if (selector != NULL) {
        at_model_selector_check(check, PATH(path, "labelSelector"), selector);
    }
}

static void demand_check(struct at_model_check *check, const struct at_model_path *path,
                         const json_t *placement)
{
    const json_t *demand = json_object_get(placement, "demand");
    if (json_array_size(demand) > 0 && text_at(placement, "latencyFrom")[0] != '\0') {
        at_model_cause_add(check, path, "latencyFrom", "FieldValueForbidden",
                           "Forbidden: may not be set together with demand");
    }
    for (size_t i = 0; i < json_array_size(demand); i++) {
        for (size_t k = 0; k < i; k++) {
            const char *site = text_at(json_array_get(demand, i), "site");
            if (strcmp(site, text_at(json_array_get(demand, k), "site")) == 0) {
                at_model_cause_add(check, ITEM(PATH(path, "demand"), i), "site",
                                   "FieldValueInvalid", "Duplicate value: \"%.100s\"", site);
                break;
            }
        }
    }
}

/* Whoever weighs cost means it in place of price, whose default would count beside it. */
void at_model_placement_default(json_t *spec)
{
    json_t *weights = at_json_at(spec, "placement.weights");
    if (json_is_object(weights) && json_object_get(weights, "cost") != NULL &&
        json_object_get(weights, "price") == NULL) {
        json_object_set_new(weights, "price", json_integer(0));
    }
}

void at_model_placement_check(struct at_model_check *check, const struct at_model_path *path,
                              const json_t *placement)
{
    size_t i;
    json_t *item;
    at_model_labels_check(check, path, "nodeSelector", json_object_get(placement, "nodeSelector"));
    terms_check(check, PATH(path, "nodeAffinity"), json_object_get(placement, "nodeAffinity"),
                node_term_check);
    terms_check(check, PATH(path, "affinity"), json_object_get(placement, "affinity"),
                affinity_term_check);
    terms_check(check, PATH(path, "antiAffinity"), json_object_get(placement, "antiAffinity"),
                affinity_term_check);
    json_array_foreach(json_object_get(placement, "tolerations"), i, item)
    {
        toleration_check(check, ITEM(PATH(path, "tolerations"), i), item);
    }
    json_array_foreach(json_object_get(placement, "spread"), i, item)
    {
        spread_check(check, ITEM(PATH(path, "spread"), i), item);
    }
    demand_check(check, path, placement);
}
