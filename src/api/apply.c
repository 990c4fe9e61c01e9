/* Server-side apply: each manager owns the fields that it applied last (metadata.managedFields).
 * Objects merge field by field, lists are atomic. Only appliers own fields: a plain update changes
 * a value without taking it over, so that the next apply sets it again. */
#include "api/api_priv.h"
#include "core/mem.h"
#include "core/str.h"

#include <assert.h>
#include <stdio.h>

/* A set of fields is a tree as in fieldsV1: {"f:spec":{"f:replicas":{}}}; an empty object is a
 * leaf, of which the whole value is owned. */

static bool is_leaf_value(const json_t *value)
{
    return !json_is_object(value) || json_object_size(value) == 0;
}

static const char *key_of(const char *field)
{
    return strncmp(field, "f:", 2) == 0 ? field + 2 : NULL;
}

static void tree_set(json_t *tree, const char *key, json_t *sub_take)
{
    char *field = at_asprintf("f:%s", key);
    json_object_set_new(tree, field, sub_take);
    at_free(field);
}

static json_t *tree_get(const json_t *tree, const char *key)
{
    char *field = at_asprintf("f:%s", key);
    json_t *sub = json_object_get(tree, field);
    at_free(field);
    return sub;
}

static json_t *tree_of(const json_t *value)
{
    json_t *tree = json_object();
    const char *key;
    const json_t *sub;
    if (!is_leaf_value(value)) {
        json_object_foreach((json_t *)value, key, sub)
        {
            tree_set(tree, key, tree_of(sub));
        }
    }
    return tree;
}

/* What of the applied object can be owned: not its identity, and only the part that this endpoint
 * writes. */
static json_t *ownable(const struct api_req *req, const json_t *applied)
{
    static const char *const IDENTITY[] = {
        "name",       "namespace",         "uid",           "resourceVersion",
        "generation", "creationTimestamp", "managedFields", "generateName"};
    bool status = at_streq(req->route.subresource, "status");
    json_t *out = json_object();
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)applied, key, value)
    {
        bool is_status = req->route.kind->has_status && at_streq(key, "status");
        if (!at_streq(key, "apiVersion") && !at_streq(key, "kind") && is_status == status) {
            json_object_set_new(out, key, json_deep_copy(value));
        }
    }
    json_t *meta = json_object_get(out, "metadata");
    for (size_t i = 0; i < AT_ARRAY_LEN(IDENTITY); i++) {
        json_object_del(meta, IDENTITY[i]);
    }
    if (meta != NULL && json_object_size(meta) == 0) {
        json_object_del(out, "metadata");
    }
    return out;
}

struct walk {
    json_t *causes;      /* conflicts found */
    const char *manager; /* whose tree is being compared */
    bool force;
};

static void conflict(struct walk *walk, const char *path)
{
    char message[256];
    snprintf(message, sizeof message, "conflict with \"%.128s\"", walk->manager);
    json_array_append_new(walk->causes,
                          json_pack("{s:s, s:s, s:s}", "reason", "FieldManagerConflict", "message",
                                    message, "field", path));
}

/* Compare what is applied with what another manager owns; with force, take it from them. */
static void contest(struct walk *walk, const json_t *applied, const json_t *live, json_t *theirs,
                    const char *path)
{
    const char *key;
    const json_t *value;
    json_object_foreach((json_t *)applied, key, value)
    {
        json_t *sub = tree_get(theirs, key);
        if (sub == NULL) {
            continue;
        }
        const json_t *now = json_object_get(live, key);
        char *here = at_asprintf("%s.%s", path, key);
        bool taken = false;
        if (!is_leaf_value(value) && json_object_size(sub) > 0 && json_is_object(now)) {
            contest(walk, value, now, sub, here);
            taken = json_object_size(sub) == 0; /* an empty tree would mean the whole value */
        } else if (now == NULL || json_equal(now, value) != 1) {
            conflict(walk, here);
            taken = true;
        }
        if (walk->force && taken) {
            char *field = at_asprintf("f:%s", key);
            json_object_del(theirs, field);
            at_free(field);
        }
        at_free(here);
    }
}

static void merge(json_t *target, const json_t *applied)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)applied, key, value)
    {
        json_t *have = json_object_get(target, key);
        if (json_is_object(value) && json_is_object(have)) {
            merge(have, value);
        } else if (json_is_null(value)) {
            json_object_del(target, key);
        } else {
            json_object_set_new(target, key, json_deep_copy(value));
        }
    }
}

/* Does any of the other entries own (part of) the field at the end of the path? */
static bool owned_by_others(const json_t *others, const char *const *path, size_t n)
{
    size_t i;
    const json_t *entry;
    json_array_foreach(others, i, entry)
    {
        const json_t *tree = json_object_get(entry, "fieldsV1");
        size_t depth = 0;
        while (tree != NULL && depth < n && (depth == 0 || json_object_size(tree) > 0)) {
            tree = tree_get(tree, path[depth]);
            depth++;
        }
        if (tree != NULL) {
            return true;
        }
    }
    return false;
}

/* Delete from target what the manager owned before and applies no more. */
static void drop_left(json_t *target, const json_t *before, const json_t *now, const json_t *others,
                      const char **path, size_t depth)
{
    const char *field;
    json_t *sub;
    json_object_foreach((json_t *)before, field, sub)
    {
        const char *key = key_of(field);
        json_t *still = json_object_get(now, field);
        json_t *value = key != NULL ? json_object_get(target, key) : NULL;
        if (value == NULL || depth + 1 >= AT_JSON_DEPTH_MAX) {
            continue;
        }
        path[depth] = key;
        if (json_object_size(sub) > 0 && json_is_object(value)) {
            drop_left(value, sub, still, others, path, depth + 1);
            if (still == NULL && json_object_size(value) == 0) {
                json_object_del(target, key);
            }
        } else if (still == NULL && !owned_by_others(others, path, depth + 1)) {
            json_object_del(target, key);
        }
    }
}

static bool entry_is(const json_t *entry, const char *manager, const char *subresource)
{
    return at_streq(at_json_str_at(entry, "manager", ""), manager) &&
           at_streq(at_json_str_at(entry, "operation", ""), "Apply") &&
           at_streq(at_json_str_at(entry, "subresource", ""), subresource);
}

/* All entries but the manager's own, copied. *ret_own: its fields, borrowed from old, or NULL. */
static json_t *others_of(const json_t *old, const char *manager, const char *subresource,
                         const json_t **ret_own)
{
    json_t *others = json_array();
    size_t i;
    json_t *entry;
    *ret_own = NULL;
    json_array_foreach(at_json_at(old, "metadata.managedFields"), i, entry)
    {
        if (entry_is(entry, manager, subresource)) {
            *ret_own = json_object_get(entry, "fieldsV1");
        } else {
            json_array_append_new(others, json_deep_copy(entry));
        }
    }
    return others;
}

static void respond_conflicts(struct api_req *req, json_t *causes_take)
{
    size_t n = json_array_size(causes_take);
    const json_t *first = json_array_get(causes_take, 0);
    const char *message =
        at_arena_printf(req->arena, "Apply failed with %zu conflict%s: %s: %s%s", n,
                        n == 1 ? "" : "s", at_json_str_at(first, "message", ""),
                        at_json_str_at(first, "field", ""), n == 1 ? "" : ", and others");
    json_t *details = api_details(req, req->route.name);
    json_object_set_new(details, "causes", causes_take);
    api_respond_json(req, 409, api_status(false, "Conflict", 409, message, details));
}

/* Entries whose tree has become empty own nothing. */
static void drop_empty_entries(json_t *entries)
{
    for (size_t i = json_array_size(entries); i > 0; i--) {
        const json_t *tree = json_object_get(json_array_get(entries, i - 1), "fieldsV1");
        if (json_object_size(tree) == 0) {
            json_array_remove(entries, i - 1);
        }
    }
}

static json_t *entry_new(struct api_req *req, const char *manager, json_t *tree_take)
{
    char when[AT_UNITS_TEXT_BYTES_MAX];
    int64_t now = at_sys_wall_ns(req->api->sys);
    at_time_format(now - now % AT_NS_PER_S, when);
    json_t *entry = json_pack("{s:s, s:s, s:s, s:s, s:s, s:o}", "manager", manager, "operation",
                              "Apply", "apiVersion", at_model_api_version(req->route.kind), "time",
                              when, "fieldsType", "FieldsV1", "fieldsV1", tree_take);
    if (req->route.subresource[0] != '\0') {
        json_object_set_new(entry, "subresource", json_string(req->route.subresource));
    }
    return entry;
}

bool api_apply_make(struct api_req *req)
{
    const char *manager = api_query(req, "fieldManager");
    const json_t *own = NULL;
    AT_CLEANUP(at_cleanup_json) json_t *applied = ownable(req, req->body);
    AT_CLEANUP(at_cleanup_json) json_t *fields = tree_of(applied);
    json_t *others = others_of(req->old, manager, req->route.subresource, &own);
    struct walk walk = {.causes = json_array(), .force = api_query_bool(req, "force")};
    size_t i;
    json_t *entry;
    json_array_foreach(others, i, entry)
    {
        walk.manager = at_json_str_at(entry, "manager", "");
        contest(&walk, applied, req->old, json_object_get(entry, "fieldsV1"), "");
    }
    if (json_array_size(walk.causes) > 0 && !walk.force) {
        json_decref(others);
        respond_conflicts(req, walk.causes);
        return false;
    }
    json_decref(walk.causes);
    drop_empty_entries(others);
    json_decref(req->object);
    req->object = req->old != NULL ? json_deep_copy(req->old) : json_object();
    const char *path[AT_JSON_DEPTH_MAX];
    drop_left(req->object, own, fields, others, path, 0);
    merge(req->object, req->body);
    if (req->old != NULL && at_json_at(req->body, "metadata.resourceVersion") == NULL) {
        const json_t *rv = at_json_at(req->old, "metadata.resourceVersion");
        at_json_set_at(req->object, "metadata.resourceVersion", json_deep_copy(rv));
    }
    json_array_append_new(others, entry_new(req, manager, json_incref(fields)));
    json_decref(req->managed);
    req->managed = others;
    return true;
}

/* Equal but for the times. */
static bool same_entries(const json_t *a, const json_t *b)
{
    if (json_array_size(a) != json_array_size(b)) {
        return false;
    }
    for (size_t i = 0; i < json_array_size(a); i++) {
        AT_CLEANUP(at_cleanup_json) json_t *x = json_copy(json_array_get(a, i));
        AT_CLEANUP(at_cleanup_json) json_t *y = json_copy(json_array_get(b, i));
        json_object_del(x, "time");
        json_object_del(y, "time");
        if (json_equal(x, y) != 1) {
            return false;
        }
    }
    return true;
}

bool api_apply_stamp(struct api_req *req)
{
    if (req->managed == NULL ||
        same_entries(at_json_at(req->object, "metadata.managedFields"), req->managed)) {
        return false;
    }
    at_json_set_at(req->object, "metadata.managedFields", json_incref(req->managed));
    return true;
}
