#include "security/builtin_roles.h"

#include "core/buf.h"
#include "core/str.h"
#include "model/model.h"

#include <assert.h>
#include <stdio.h>

#define RBAC "rbac.authorization.k8s.io"
#define READ "[\"get\",\"list\",\"watch\"]"
#define WRITE                                                                                      \
    "[\"create\",\"delete\",\"deletecollection\",\"get\",\"list\",\"patch\",\"update\",\"watch\"]"

static json_t *parsed(const char *text)
{
    json_t *value = json_loads(text, 0, NULL);
    assert(value != NULL);
    return value;
}

static json_t *rule(json_t *verbs_take, const char *group, json_t *resources_take)
{
    return json_pack("{s:o, s:[s], s:o}", "verbs", verbs_take, "apiGroups", group, "resources",
                     resources_take);
}

bool at_bounds_tenants(const struct at_model_kind *kind)
{
    return kind == &AT_KIND_RESOURCE_QUOTA || kind == &AT_KIND_LIMIT_RANGE ||
           kind == &AT_KIND_USAGE_RECORD; /* bills are made of it */
}

/* Kinds of a group that live in namespaces, themselves and (writing) their scale. */
static json_t *namespaced(const char *group, bool writes, bool scale)
{
    json_t *list = json_array();
    size_t n = 0;
    const struct at_model_kind *const *kinds = at_model_kinds(&n);
    for (size_t i = 0; i < n; i++) {
        if (!kinds[i]->namespaced || !at_streq(kinds[i]->group, group) ||
            (writes ? at_bounds_tenants(kinds[i]) : at_streq(kinds[i]->plural, "secrets"))) {
            continue;
        }
        json_array_append_new(list, json_string(kinds[i]->plural));
        if (scale && kinds[i]->has_scale) {
            json_array_append_new(list, json_sprintf("%s/scale", kinds[i]->plural));
        }
    }
    return list;
}

static json_t *groups(void)
{
    json_t *set = json_object();
    size_t n = 0;
    const struct at_model_kind *const *kinds = at_model_kinds(&n);
    for (size_t i = 0; i < n; i++) {
        if (kinds[i]->namespaced && !at_streq(kinds[i]->group, RBAC)) {
            json_object_set_new(set, kinds[i]->group, json_true());
        }
    }
    return set;
}

/* labelled: for the aggregated role of this name; NULL: for none. */
static json_t *role(const char *name, json_t *rules_take, const char *labelled)
{
    json_t *object =
        json_pack("{s:s, s:s, s:{s:s, s:{s:s}, s:{s:s}}, s:o}", "apiVersion", RBAC "/v1", "kind",
                  "ClusterRole", "metadata", "name", name, "labels", "kubernetes.io/bootstrapping",
                  "rbac-defaults", "annotations", RBAC "/autoupdate", "true", "rules", rules_take);
    if (labelled != NULL) {
        char label[64];
        snprintf(label, sizeof label, RBAC "/aggregate-to-%s", labelled);
        json_object_set_new(at_json_at(object, "metadata.labels"), label, json_string("true"));
    }
    return object;
}

/* The sum of what is labelled for any of parts. */
static json_t *aggregated(const char *name, const char *const *parts, size_t n)
{
    json_t *object = role(name, json_array(), NULL);
    json_t *selectors = json_array();
    for (size_t i = 0; i < n; i++) {
        char label[64];
        snprintf(label, sizeof label, RBAC "/aggregate-to-%s", parts[i]);
        json_array_append_new(selectors, json_pack("{s:{s:s}}", "matchLabels", label, "true"));
    }
    json_object_set_new(object, "aggregationRule",
                        json_pack("{s:o}", "clusterRoleSelectors", selectors));
    return object;
}

static json_t *view_rules(void)
{
    json_t *rules = json_array();
    json_t *set = groups();
    const char *group;
    json_t *value;
    json_object_foreach(set, group, value)
    {
        json_array_append_new(rules, rule(parsed(READ), group, namespaced(group, false, true)));
    }
    json_array_append_new(rules,
                          rule(parsed(READ), "", parsed("[\"pods\",\"pods/log\",\"namespaces\"]")));
    json_array_append_new(rules, rule(parsed(READ), "atoll.dev", parsed("[\"instances/log\"]")));
    json_decref(set);
    return rules;
}

static json_t *edit_rules(void)
{
    json_t *rules = json_array();
    json_t *set = groups();
    const char *group;
    json_t *value;
    json_object_foreach(set, group, value)
    {
        json_array_append_new(rules, rule(parsed(WRITE), group, namespaced(group, true, true)));
    }
    json_array_append_new(rules, rule(parsed("[\"create\"]"), "atoll.dev",
                                      parsed("[\"instances/exec\",\"instances/attach\","
                                             "\"instances/portforward\"]")));
    json_array_append_new(rules, rule(parsed("[\"delete\",\"create\"]"), "",
                                      parsed("[\"pods\",\"pods/exec\",\"pods/attach\","
                                             "\"pods/portforward\",\"serviceaccounts/token\"]")));
    json_decref(set);
    return rules;
}

static json_t *admin_rules(void)
{
    json_t *rules = json_array();
    json_array_append_new(rules, rule(parsed(WRITE), RBAC, parsed("[\"roles\",\"rolebindings\"]")));
    json_array_append_new(rules, rule(parsed("[\"create\"]"), "authorization.k8s.io",
                                      parsed("[\"localsubjectaccessreviews\"]")));
    return rules;
}

json_t *at_builtin_roles(void)
{
    json_t *list = json_array();
    json_t *all = parsed("[{\"verbs\":[\"*\"],\"apiGroups\":[\"*\"],\"resources\":[\"*\"]},"
                         "{\"verbs\":[\"*\"],\"nonResourceURLs\":[\"*\"]}]");
    static const char *const PARTS[] = {"view", "edit", "admin"};
    json_array_append_new(list, role("cluster-admin", all, NULL));
    json_array_append_new(list, role("system:aggregate-to-admin", admin_rules(), "admin"));
    json_array_append_new(list, role("system:aggregate-to-edit", edit_rules(), "edit"));
    json_array_append_new(list, role("system:aggregate-to-view", view_rules(), "view"));
    json_array_append_new(list, aggregated("admin", PARTS, 3));
    json_array_append_new(list, aggregated("edit", PARTS, 2));
    json_array_append_new(list, aggregated("view", PARTS, 1));
    return list;
}
