/* Rules of the RBAC kinds that look at several fields at once, as in Kubernetes. */
#include "model/model_priv.h"

#include "core/mem.h"
#include "core/str.h"

#include <string.h>

#define PATH(up_, name_) (&(struct at_model_path){.up = (up_), .name = (name_)})
#define ITEM(up_, i_) (&(struct at_model_path){.up = (up_), .index = (i_)})

#define RBAC_GROUP "rbac.authorization.k8s.io"
#define RBAC_NAME_BYTES_MAX 253

static const char *text_at(const json_t *json, const char *key)
{
    const char *text = json_string_value(json_object_get(json, key));
    return text != NULL ? text : "";
}

static bool is_empty(const json_t *json, const char *key)
{
    return json_array_size(json_object_get(json, key)) == 0;
}

static void required(struct at_model_check *check, const struct at_model_path *path,
                     const char *leaf, const char *why)
{
    at_model_cause_add(check, path, leaf, "FieldValueRequired", "Required value: %s", why);
}

static void unsupported(struct at_model_check *check, const struct at_model_path *path,
                        const char *leaf, const char *value, const char *supported)
{
    at_model_cause_add(check, path, leaf, "FieldValueNotSupported",
                       "Unsupported value: \"%.128s\": supported values: %s", value, supported);
}

static void rule_check(struct at_model_check *check, const struct at_model_path *path,
                       const json_t *rule, bool namespaced)
{
    static const char URLS[] = "nonResourceURLs";
    if (is_empty(rule, "verbs")) {
        required(check, path, "verbs", "verbs must contain at least one value");
    }
    if (!is_empty(rule, URLS)) {
        const json_t *urls = json_object_get(rule, URLS);
        if (namespaced) {
            at_model_invalid_add(check, path, URLS, urls,
                                 "namespaced rules cannot apply to non-resource URLs");
        }
        if (!is_empty(rule, "apiGroups") || !is_empty(rule, "resources") ||
            !is_empty(rule, "resourceNames")) {
            at_model_invalid_add(
                check, path, URLS, urls,
                "rules cannot apply to both regular resources and non-resource URLs");
        }
        return;
    }
    if (is_empty(rule, "apiGroups")) {
        required(check, path, "apiGroups", "resource rules must supply at least one api group");
    }
    if (is_empty(rule, "resources")) {
        required(check, path, "resources", "resource rules must supply at least one resource");
    }
}

static void rules_check(struct at_model_check *check, const json_t *object, bool namespaced)
{
    const struct at_model_path *path = PATH(NULL, "rules");
    size_t i;
    json_t *rule;
    json_array_foreach(json_object_get(object, "rules"), i, rule)
    {
        rule_check(check, ITEM(path, i), rule, namespaced);
    }
}

void at_model_role_check(struct at_model_check *check, const json_t *object, const json_t *old)
{
    (void)old;
    rules_check(check, object, true);
}

void at_model_cluster_role_check(struct at_model_check *check, const json_t *object,
                                 const json_t *old)
{
    (void)old;
    rules_check(check, object, false);
    const json_t *aggregation = json_object_get(object, "aggregationRule");
    if (!json_is_object(aggregation)) {
        return;
    }
    const struct at_model_path *path = PATH(NULL, "aggregationRule");
    if (is_empty(aggregation, "clusterRoleSelectors")) {
        required(check, path, "clusterRoleSelectors",
                 "at least one clusterRoleSelector required if aggregationRule is non-nil");
    }
    size_t i;
    json_t *selector;
    json_array_foreach(json_object_get(aggregation, "clusterRoleSelectors"), i, selector)
    {
        at_model_selector_check(check, ITEM(PATH(path, "clusterRoleSelectors"), i), selector);
    }
}

static void subject_check(struct at_model_check *check, const struct at_model_path *path,
                          const json_t *subject, bool namespaced)
{
    const char *kind = text_at(subject, "kind");
    const char *group = text_at(subject, "apiGroup");
    const char *name = text_at(subject, "name");
    if (name[0] == '\0') {
        at_model_cause_add(check, path, "name", "FieldValueRequired", "Required value");
    }
    if (at_streq(kind, "ServiceAccount")) {
        const char *problem = name[0] != '\0' ? at_model_name_problem(name) : NULL;
        if (problem != NULL) {
            at_model_invalid_add(check, path, "name", json_object_get(subject, "name"), "%s",
                                 problem);
        }
        if (group[0] != '\0') {
            unsupported(check, path, "apiGroup", group, "\"\"");
        }
        if (!namespaced && text_at(subject, "namespace")[0] == '\0') {
            at_model_cause_add(check, path, "namespace", "FieldValueRequired", "Required value");
        }
    } else if (at_streq(kind, "User") || at_streq(kind, "Group")) {
        if (!at_streq(group, RBAC_GROUP)) {
            unsupported(check, path, "apiGroup", group, "\"" RBAC_GROUP "\"");
        }
    } else {
        unsupported(check, path, "kind", kind, "\"ServiceAccount\", \"User\", \"Group\"");
    }
}

static const char *segment_problem(const char *name)
{
    if (at_streq(name, ".") || at_streq(name, "..")) {
        return "may not be '.' or '..'";
    }
    return strpbrk(name, "/%") != NULL ? "may not contain '/' or '%'" : NULL;
}

static void role_ref_check(struct at_model_check *check, const json_t *ref, bool namespaced)
{
    const struct at_model_path *path = PATH(NULL, "roleRef");
    const char *kind = text_at(ref, "kind");
    const char *name = text_at(ref, "name");
    if (!at_streq(text_at(ref, "apiGroup"), RBAC_GROUP)) {
        unsupported(check, path, "apiGroup", text_at(ref, "apiGroup"), "\"" RBAC_GROUP "\"");
    }
    if (!at_streq(kind, "ClusterRole") && !(namespaced && at_streq(kind, "Role"))) {
        unsupported(check, path, "kind", kind,
                    namespaced ? "\"Role\", \"ClusterRole\"" : "\"ClusterRole\"");
    }
    const char *problem = segment_problem(name);
    if (name[0] == '\0') {
        at_model_cause_add(check, path, "name", "FieldValueRequired", "Required value");
    } else if (problem != NULL) {
        at_model_invalid_add(check, path, "name", json_object_get(ref, "name"), "%s", problem);
    }
}

static void binding_check(struct at_model_check *check, const json_t *object, const json_t *old,
                          bool namespaced)
{
    const json_t *ref = json_object_get(object, "roleRef");
    role_ref_check(check, ref, namespaced);
    const json_t *before = json_object_get(old, "roleRef");
    if (before != NULL && !json_equal(before, ref)) {
        at_model_invalid_add(check, NULL, "roleRef", ref, "cannot change roleRef");
    }
    const struct at_model_path *path = PATH(NULL, "subjects");
    size_t i;
    json_t *subject;
    json_array_foreach(json_object_get(object, "subjects"), i, subject)
    {
        subject_check(check, ITEM(path, i), subject, namespaced);
    }
}

void at_model_role_binding_check(struct at_model_check *check, const json_t *object,
                                 const json_t *old)
{
    binding_check(check, object, old, true);
}

void at_model_cluster_role_binding_check(struct at_model_check *check, const json_t *object,
                                         const json_t *old)
{
    binding_check(check, object, old, false);
}

void at_model_binding_default(json_t *object)
{
    json_t *ref = json_object_get(object, "roleRef");
    if (json_is_object(ref) && text_at(ref, "apiGroup")[0] == '\0') {
        json_object_set_new(ref, "apiGroup", json_string(RBAC_GROUP));
    }
    size_t i;
    json_t *subject;
    json_array_foreach(json_object_get(object, "subjects"), i, subject)
    {
        const char *kind = text_at(subject, "kind");
        if (json_is_object(subject) && text_at(subject, "apiGroup")[0] == '\0' &&
            (at_streq(kind, "User") || at_streq(kind, "Group"))) {
            json_object_set_new(subject, "apiGroup", json_string(RBAC_GROUP));
        }
    }
}

/* RBAC's names are nearly any that fit into a path: system:node, admin:my-team. */
const char *at_model_rbac_name_problem(const char *name)
{
    if (strlen(name) > RBAC_NAME_BYTES_MAX) {
        return "must be no more than 253 characters";
    }
    for (const char *c = name; *c != '\0'; c++) {
        if ((unsigned char)*c <= ' ' || (unsigned char)*c >= 0x7f || *c == '"' || *c == '\\') {
            return "may not contain spaces, quotes, backslashes, or characters beyond ASCII";
        }
    }
    return segment_problem(name);
}
