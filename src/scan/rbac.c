/* Roles that grant more than they list, and bindings that grant it to too many. */
#include "core/mem.h"
#include "scan/scan_priv.h"

#include <stdio.h>
#include <string.h>

static bool lists(const json_t *rule, const char *key, const char *word)
{
    size_t i;
    json_t *value;
    json_array_foreach(json_object_get(rule, key), i, value)
    {
        if (at_streq(json_string_value(value), word)) {
            return true;
        }
    }
    return false;
}

/* A star within a name is a star too: every subresource of pods, one of everything, every path. */
static const char *star_in(const json_t *rule, const char *key)
{
    size_t i;
    json_t *value;
    json_array_foreach(json_object_get(rule, key), i, value)
    {
        const char *text = json_string_value(value);
        if (text != NULL && strchr(text, '*') != NULL && !at_streq(text, "*")) {
            return text;
        }
    }
    return NULL;
}

static bool gives(const json_t *rule, const char *verb, const char *resource)
{
    return (lists(rule, "verbs", verb) || lists(rule, "verbs", "*")) &&
           (lists(rule, "resources", resource) || lists(rule, "resources", "*"));
}

static bool is_bounded(const json_t *rule)
{
    return json_array_size(json_object_get(rule, "resourceNames")) > 0;
}

static void stars(struct scan_look *look, const json_t *rule, size_t i, bool cluster)
{
    static const char *const PARTS[] = {"verbs", "resources", "apiGroups", "nonResourceURLs"};
    char which[80] = "";
    const char *first = NULL;
    for (size_t k = 0; k < AT_ARRAY_LEN(PARTS); k++) {
        /* A group alone spelled out with listed resources is no wildcard, but * for groups is. */
        if (lists(rule, PARTS[k], "*")) {
            size_t len = strlen(which);
            snprintf(which + len, sizeof which - len, "%s%s", len > 0 ? ", " : "", PARTS[k]);
            first = first != NULL ? first : PARTS[k];
        }
    }
    static const char *const PARTLY[] = {"resources", "nonResourceURLs"};
    for (size_t k = 0; k < AT_ARRAY_LEN(PARTLY); k++) {
        const char *star = star_in(rule, PARTLY[k]);
        if (star != NULL) {
            scan_found_as(look, SCAN_RBAC_WILDCARD, AT_SCAN_MEDIUM,
                          scan_path(look, "rules[%zu].%s", i, PARTLY[k]), "%.64s", star);
        }
    }
    if (first == NULL) {
        return;
    }
    bool all = lists(rule, "verbs", "*") && lists(rule, "resources", "*");
    enum at_scan_severity severity = all && cluster                 ? AT_SCAN_CRITICAL
                                     : at_streq(first, "apiGroups") ? AT_SCAN_MEDIUM
                                                                    : AT_SCAN_HIGH;
    scan_found_as(look, SCAN_RBAC_WILDCARD, severity, scan_path(look, "rules[%zu].%s", i, first),
                  "* in %s", which);
}

static void escalates(struct scan_look *look, const json_t *rule, size_t i)
{
    static const char *const VERBS[] = {"bind", "escalate", "impersonate"};
    for (size_t k = 0; k < AT_ARRAY_LEN(VERBS); k++) {
        if (lists(rule, "verbs", VERBS[k]) && !is_bounded(rule)) {
            scan_found(look, SCAN_RBAC_ESCALATES, scan_path(look, "rules[%zu].verbs", i),
                       "the verb %s, not bounded by resourceNames", VERBS[k]);
        }
    }
    if (lists(rule, "verbs", "*")) {
        return; /* the star is told of */
    }
    if (gives(rule, "create", "serviceaccounts/token") && !is_bounded(rule)) {
        scan_found(look, SCAN_RBAC_ESCALATES, scan_path(look, "rules[%zu].resources", i),
                   "makes tokens of every account");
    }
    static const char *const RIGHTS[] = {"roles", "clusterroles", "rolebindings",
                                         "clusterrolebindings"};
    for (size_t k = 0; k < AT_ARRAY_LEN(RIGHTS); k++) {
        if (lists(rule, "resources", RIGHTS[k]) &&
            (lists(rule, "verbs", "create") || lists(rule, "verbs", "update") ||
             lists(rule, "verbs", "patch"))) {
            scan_found_as(look, SCAN_RBAC_ESCALATES, AT_SCAN_MEDIUM,
                          scan_path(look, "rules[%zu].resources", i), "writes %s", RIGHTS[k]);
        }
    }
}

static void reaches(struct scan_look *look, const json_t *rule, size_t i, bool cluster)
{
    static const char *const READ[] = {"get", "list", "watch"};
    static const char *const INSIDE[] = {"pods/exec",        "pods/attach", "instances/exec",
                                         "instances/attach", "pods/*",      "instances/*",
                                         "*/exec",           "*/attach"};
    if (lists(rule, "verbs", "*") && lists(rule, "resources", "*")) {
        return;
    }
    for (size_t k = 0; k < AT_ARRAY_LEN(READ); k++) {
        bool listed = k > 0; /* resourceNames bounds no list */
        if (gives(rule, READ[k], "secrets") && (listed || !is_bounded(rule))) {
            scan_found_as(look, SCAN_RBAC_SECRETS, cluster ? AT_SCAN_HIGH : AT_SCAN_MEDIUM,
                          scan_path(look, "rules[%zu].resources", i), "%s of secrets%s", READ[k],
                          cluster ? " in all namespaces that it is bound to" : "");
            break;
        }
    }
    for (size_t k = 0; k < AT_ARRAY_LEN(INSIDE); k++) {
        if (lists(rule, "resources", INSIDE[k]) &&
            (lists(rule, "verbs", "create") || lists(rule, "verbs", "get") ||
             lists(rule, "verbs", "*"))) {
            scan_found(look, SCAN_RBAC_EXEC, scan_path(look, "rules[%zu].resources", i), "%s",
                       INSIDE[k]);
            break;
        }
    }
}

/* Made by the server at its start; they say what they are for. */
static bool is_bootstrap(const json_t *object)
{
    const json_t *labels = at_json_at(object, "metadata.labels");
    return at_streq(scan_text(labels, "kubernetes.io/bootstrapping"), "rbac-defaults");
}

void scan_rbac_rules(struct scan_look *look, bool cluster)
{
    if (is_bootstrap(look->object) && !look->input->from_file) {
        return;
    }
    size_t i;
    json_t *rule;
    json_array_foreach(json_object_get(look->object, "rules"), i, rule)
    {
        stars(look, rule, i, cluster);
        escalates(look, rule, i);
        reaches(look, rule, i, cluster);
    }
}

void scan_rbac_binding(struct scan_look *look)
{
    const char *role = at_json_str_at(look->object, "roleRef.name", "");
    if (is_bootstrap(look->object) && !look->input->from_file) {
        return;
    }
    if (at_streq(role, "cluster-admin")) {
        bool cluster = at_streq(scan_text(look->object, "kind"), "ClusterRoleBinding");
        scan_found_as(look, SCAN_RBAC_ADMIN, cluster ? AT_SCAN_HIGH : AT_SCAN_MEDIUM,
                      "roleRef.name", "cluster-admin%s", cluster ? ", everywhere" : "");
    }
    size_t i;
    json_t *subject;
    json_array_foreach(json_object_get(look->object, "subjects"), i, subject)
    {
        const char *name = scan_text(subject, "name");
        const char *field = scan_path(look, "subjects[%zu].name", i);
        bool whole = at_streq(name, "system:unauthenticated") || at_streq(name, "system:anonymous");
        if (whole || at_streq(name, "system:authenticated") ||
            at_streq(name, "system:serviceaccounts") || at_streq(name, "*")) {
            scan_found_as(look, SCAN_RBAC_EVERYBODY, whole ? AT_SCAN_CRITICAL : AT_SCAN_HIGH, field,
                          "%.64s gets %.64s", name, role);
        } else if (at_streq(scan_text(subject, "kind"), "ServiceAccount") &&
                   at_streq(name, "default")) {
            scan_found(look, SCAN_RBAC_DEFAULT_ACCOUNT, field, "the account default gets %.64s",
                       role);
        }
    }
}
