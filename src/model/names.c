/* Names, labels, annotations: Kubernetes' rules for metadata. */
#include "model/model_priv.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define NAME_BYTES_MAX 253
#define LABEL_BYTES_MAX 63
#define ANNOTATIONS_BYTES_MAX ((size_t)256 << 10)
#define FINALIZERS_MAX 64
#define OWNERS_MAX 64

static bool is_low_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_alnum(char c)
{
    return is_low_alnum(c) || (c >= 'A' && c <= 'Z');
}

/* One label of a DNS name: text[0..len). */
static bool is_dns_label(const char *text, size_t len)
{
    if (len == 0 || !is_low_alnum(text[0]) || !is_low_alnum(text[len - 1])) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if (!is_low_alnum(text[i]) && text[i] != '-') {
            return false;
        }
    }
    return true;
}

static const char *subdomain_problem(const char *text, size_t len)
{
    if (len > NAME_BYTES_MAX) {
        return "must be no more than 253 characters";
    }
    size_t start = 0;
    for (size_t i = 0; i <= len; i++) {
        if (i < len && text[i] != '.') {
            continue;
        }
        if (!is_dns_label(text + start, i - start)) {
            return "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric "
                   "characters, '-' or '.', and must start and end with an alphanumeric character "
                   "(e.g. 'example.com')";
        }
        start = i + 1;
    }
    return NULL;
}

const char *at_model_name_problem(const char *name)
{
    return subdomain_problem(name, strlen(name));
}

const char *at_model_dns_label_problem(const char *name)
{
    size_t len = strlen(name);
    if (len > LABEL_BYTES_MAX) {
        return "must be no more than 63 characters";
    }
    return is_dns_label(name, len)
               ? NULL
               : "a lowercase RFC 1123 label must consist of lower case alphanumeric characters "
                 "or '-', and must start and end with an alphanumeric character (e.g. 'my-name')";
}

/* The part after the slash of a label's key, and a label's value. */
static bool is_label_text(const char *text, size_t len)
{
    if (len == 0 || !is_alnum(text[0]) || !is_alnum(text[len - 1])) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if (!is_alnum(text[i]) && strchr("-_.", text[i]) == NULL) {
            return false;
        }
    }
    return true;
}

const char *at_model_qualified_name_problem(const char *name)
{
    const char *slash = strchr(name, '/');
    const char *last = slash != NULL ? slash + 1 : name;
    if (slash != NULL && subdomain_problem(name, (size_t)(slash - name)) != NULL) {
        return "prefix part must be a lowercase RFC 1123 subdomain of at most 253 characters";
    }
    if (strlen(last) > LABEL_BYTES_MAX) {
        return "name part must be no more than 63 characters";
    }
    return is_label_text(last, strlen(last))
               ? NULL
               : "name part must consist of alphanumeric characters, '-', '_' or '.', and must "
                 "start and end with an alphanumeric character (e.g. 'MyName' or "
                 "'example.com/MyName')";
}

const char *at_model_label_value_problem(const char *value)
{
    size_t len = strlen(value);
    if (len > LABEL_BYTES_MAX) {
        return "must be no more than 63 characters";
    }
    return len == 0 || is_label_text(value, len)
               ? NULL
               : "a valid label must be an empty string or consist of alphanumeric characters, "
                 "'-', '_' or '.', and must start and end with an alphanumeric character";
}

static void type_error(struct at_model_check *check, const struct at_model_path *path,
                       const char *leaf, const char *wanted)
{
    at_model_cause_add(check, path, leaf, "FieldValueTypeInvalid", "Invalid value: must be %s",
                       wanted);
}

static bool absent(const json_t *value)
{
    return value == NULL || json_is_null(value);
}

void at_model_labels_check(struct at_model_check *check, const struct at_model_path *path,
                           const char *leaf, const json_t *labels)
{
    if (absent(labels)) {
        return;
    }
    if (!json_is_object(labels)) {
        type_error(check, path, leaf, "a map of strings");
        return;
    }
    struct at_model_path at = {.up = path, .name = leaf};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)labels, key, value)
    {
        struct at_model_path item = {.up = &at, .name = key, .is_key = true};
        const char *problem = at_model_qualified_name_problem(key);
        if (problem != NULL) {
            at_model_cause_add(check, path, leaf, "FieldValueInvalid", "Invalid value: \"%s\": %s",
                               key, problem);
        }
        if (!json_is_string(value)) {
            type_error(check, &item, NULL, "a string");
            continue;
        }
        problem = at_model_label_value_problem(json_string_value(value));
        if (problem != NULL) {
            at_model_invalid_add(check, &item, NULL, value, "%s", problem);
        }
    }
}

void at_model_annotations_check(struct at_model_check *check, const struct at_model_path *path,
                                const char *leaf, const json_t *annotations)
{
    if (absent(annotations)) {
        return;
    }
    if (!json_is_object(annotations)) {
        type_error(check, path, leaf, "a map of strings");
        return;
    }
    struct at_model_path at = {.up = path, .name = leaf};
    size_t bytes = 0;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)annotations, key, value)
    {
        struct at_model_path item = {.up = &at, .name = key, .is_key = true};
        bytes += strlen(key) + json_string_length(value);
        const char *problem = at_model_qualified_name_problem(key);
        if (problem != NULL) {
            at_model_cause_add(check, path, leaf, "FieldValueInvalid", "Invalid value: \"%s\": %s",
                               key, problem);
        }
        if (!json_is_string(value)) {
            type_error(check, &item, NULL, "a string");
        }
    }
    if (bytes > ANNOTATIONS_BYTES_MAX) {
        at_model_cause_add(check, path, leaf, "FieldValueInvalid",
                           "Too long: may not be more than %zu bytes", ANNOTATIONS_BYTES_MAX);
    }
}

static void finalizers_check(struct at_model_check *check, const struct at_model_path *meta,
                             const json_t *list)
{
    if (absent(list)) {
        return;
    }
    struct at_model_path at = {.up = meta, .name = "finalizers"};
    if (!json_is_array(list) || json_array_size(list) > FINALIZERS_MAX) {
        type_error(check, &at, NULL, "a list of at most 64 strings");
        return;
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct at_model_path item = {.up = &at, .index = i};
        const json_t *v = json_array_get(list, i);
        if (!json_is_string(v)) {
            type_error(check, &item, NULL, "a string");
            continue;
        }
        const char *problem = at_model_qualified_name_problem(json_string_value(v));
        if (problem != NULL) {
            at_model_invalid_add(check, &item, NULL, v, "%s", problem);
        }
    }
}

static bool one_of(const char *const *names, const char *name)
{
    for (; *names != NULL; names++) {
        if (strcmp(*names, name) == 0) {
            return true;
        }
    }
    return false;
}

static void unknown_check(struct at_model_check *check, const struct at_model_path *path,
                          json_t *object, const char *const *known)
{
    const char *key;
    json_t *value;
    void *next;
    json_object_foreach_safe(object, next, key, value)
    {
        if (one_of(known, key)) {
            continue;
        }
        if (!json_is_null(value)) {
            at_model_unknown_add(check, path, key);
        }
        if (check->drop_unknown) {
            json_object_del(object, key);
        }
    }
}

static void owners_check(struct at_model_check *check, const struct at_model_path *meta,
                         const json_t *list)
{
    static const char *const known[] = {"apiVersion",         "kind", "name", "uid", "controller",
                                        "blockOwnerDeletion", NULL};
    if (absent(list)) {
        return;
    }
    struct at_model_path at = {.up = meta, .name = "ownerReferences"};
    if (!json_is_array(list) || json_array_size(list) > OWNERS_MAX) {
        type_error(check, &at, NULL, "a list of at most 64 objects");
        return;
    }
    size_t controllers = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *owner = json_array_get(list, i);
        struct at_model_path item = {.up = &at, .index = i};
        if (!json_is_object(owner)) {
            type_error(check, &item, NULL, "an object");
            continue;
        }
        for (size_t k = 0; k < 4; k++) {
            const json_t *v = json_object_get(owner, known[k]);
            if (!absent(v) && !json_is_string(v)) {
                type_error(check, &item, known[k], "a string");
            } else if (json_string_length(v) == 0) {
                at_model_cause_add(check, &item, known[k], "FieldValueRequired", "Required value");
            }
        }
        for (size_t k = 4; k < 6; k++) {
            const json_t *v = json_object_get(owner, known[k]);
            if (!absent(v) && !json_is_boolean(v)) {
                type_error(check, &item, known[k], "true or false");
            }
        }
        controllers += json_is_true(json_object_get(owner, "controller"));
        unknown_check(check, &item, owner, known);
    }
    if (controllers > 1) {
        at_model_cause_add(check, &at, NULL, "FieldValueInvalid",
                           "Invalid value: only one reference can have controller set to true");
    }
}

static void string_check(struct at_model_check *check, const struct at_model_path *meta,
                         const json_t *json, const char *leaf)
{
    const json_t *v = json_object_get(json, leaf);
    if (!absent(v) && !json_is_string(v)) {
        type_error(check, meta, leaf, "a string");
    }
}

static void time_check(struct at_model_check *check, const struct at_model_path *meta,
                       const json_t *json, const char *leaf)
{
    const json_t *v = json_object_get(json, leaf);
    int64_t ignored;
    struct at_err why = {0};
    if (!absent(v) && at_model_unit_parse(AT_MODEL_UNIT_TIME, v, &ignored, &why) != AT_OK) {
        at_model_invalid_add(check, meta, leaf, v, "%s", why.msg);
    }
}

/* Names that become label values (atoll.dev/deployment, atoll.dev/site ...) must fit in one. */
static const char *name_problem(const struct at_model_kind *kind, const char *name)
{
    if (kind == &AT_KIND_NAMESPACE) {
        return at_model_dns_label_problem(name);
    }
    if (kind == &AT_KIND_ROLE || kind == &AT_KIND_CLUSTER_ROLE || kind == &AT_KIND_ROLE_BINDING ||
        kind == &AT_KIND_CLUSTER_ROLE_BINDING) {
        return at_model_rbac_name_problem(name);
    }
    bool is_label = kind == &AT_KIND_DEPLOYMENT || kind == &AT_KIND_JOB || kind == &AT_KIND_SITE;
    if (is_label && strlen(name) > LABEL_BYTES_MAX) {
        return "must be no more than 63 characters";
    }
    return at_model_name_problem(name);
}

static void name_check(struct at_model_check *check, const struct at_model_kind *kind,
                       const struct at_model_path *meta, const json_t *json)
{
    const json_t *name = json_object_get(json, "name");
    const json_t *generate = json_object_get(json, "generateName");
    if (json_string_length(name) != 0) {
        const char *problem = name_problem(kind, json_string_value(name));
        if (problem != NULL) {
            at_model_invalid_add(check, meta, "name", name, "%s", problem);
        }
        return;
    }
    if (!absent(name) && !json_is_string(name)) {
        return; /* reported as a wrong type already */
    }
    if (json_string_length(generate) == 0) {
        at_model_cause_add(check, meta, "name", "FieldValueRequired",
                           "Required value: name or generateName is required");
        return;
    }
    char whole[NAME_BYTES_MAX * 2];
    snprintf(whole, sizeof whole, "%.*sx", NAME_BYTES_MAX, json_string_value(generate));
    const char *problem = name_problem(kind, whole);
    if (problem != NULL) {
        at_model_invalid_add(check, meta, "generateName", generate, "%s", problem);
    }
}

void at_model_meta_check(struct at_model_check *check, const struct at_model_kind *kind,
                         json_t *object)
{
    static const char *const known[] = {
        "name",
        "generateName",
        "namespace",
        "uid",
        "labels",
        "annotations",
        "resourceVersion",
        "generation",
        "finalizers",
        "creationTimestamp",
        "ownerReferences",
        "deletionTimestamp",
        "managedFields",
        "selfLink",
        "deletionGracePeriodSeconds",
        NULL,
    };
    static const char *const texts[] = {"name", "generateName", "namespace", "uid",
                                        "resourceVersion"};
    struct at_model_path meta = {.name = "metadata"};
    json_t *json = json_object_get(object, "metadata");
    if (absent(json)) {
        at_model_cause_add(check, &meta, NULL, "FieldValueRequired", "Required value");
        return;
    }
    if (!json_is_object(json)) {
        type_error(check, &meta, NULL, "an object");
        return;
    }
    unknown_check(check, &meta, json, known);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        string_check(check, &meta, json, texts[i]);
    }
    time_check(check, &meta, json, "creationTimestamp");
    time_check(check, &meta, json, "deletionTimestamp");
    name_check(check, kind, &meta, json);
    const json_t *ns = json_object_get(json, "namespace");
    if (json_string_length(ns) != 0) {
        const char *problem = at_model_dns_label_problem(json_string_value(ns));
        if (problem != NULL) {
            at_model_invalid_add(check, &meta, "namespace", ns, "%s", problem);
        }
    }
    at_model_labels_check(check, &meta, "labels", json_object_get(json, "labels"));
    at_model_annotations_check(check, &meta, "annotations", json_object_get(json, "annotations"));
    finalizers_check(check, &meta, json_object_get(json, "finalizers"));
    owners_check(check, &meta, json_object_get(json, "ownerReferences"));
}
