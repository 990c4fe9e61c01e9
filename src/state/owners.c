#include "state/owners.h"

#include "core/mem.h"
#include "core/str.h"

#include <assert.h>
#include <string.h>

#define LAST_APPLIED "kubectl.kubernetes.io/last-applied-configuration"
#define ANNOTATIONS "metadata.annotations"
#define KUBECTL "kubectl"

static const char *text(const json_t *entry, const char *key)
{
    const char *value = json_string_value(json_object_get(entry, key));
    return value != NULL ? value : "";
}

static bool entry_is(const json_t *entry, const struct at_owner *who)
{
    return at_streq(text(entry, "manager"), who->manager) &&
           at_streq(text(entry, "operation"), who->apply ? "Apply" : "Update") &&
           at_streq(text(entry, "subresource"), who->subresource);
}

static json_t *entry_new(const struct at_model_kind *kind, const struct at_owner *who,
                         json_t *fields_take)
{
    char when[AT_UNITS_TEXT_BYTES_MAX];
    at_time_format(who->now_wall_ns - who->now_wall_ns % AT_NS_PER_S, when);
    json_t *entry =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:o}", "manager", who->manager, "operation",
                  who->apply ? "Apply" : "Update", "apiVersion", at_model_api_version(kind), "time",
                  when, "fieldsType", "FieldsV1", "fieldsV1", fields_take);
    assert(entry != NULL); /* managers are UTF-8: the API sees to it */
    if (who->subresource[0] != '\0') {
        json_object_set_new(entry, "subresource", json_string(who->subresource));
    }
    return entry;
}

/* A copy of the entry with other fields. */
static json_t *entry_with(const json_t *entry, json_t *fields_take)
{
    json_t *copy = json_copy((json_t *)entry);
    json_object_set_new(copy, "fieldsV1", fields_take);
    return copy;
}

/* The part that the writer's endpoint writes. */
static json_t *of_part(const struct at_model_kind *kind, json_t *set_take, enum at_object_part part)
{
    if (set_take == NULL || part == AT_OBJECT_ALL || !kind->has_status) {
        return set_take;
    }
    json_t *out = json_object();
    const char *name;
    json_t *sub;
    json_object_foreach(set_take, name, sub)
    {
        if ((strcmp(name, "f:status") == 0) == (part == AT_OBJECT_STATUS)) {
            json_object_set(out, name, sub);
        }
    }
    json_decref(set_take);
    if (json_object_size(out) == 0) {
        json_decref(out);
        return NULL;
    }
    return out;
}

static bool entry_is_sound(const json_t *entry)
{
    const char *operation = text(entry, "operation");
    size_t manager = strlen(text(entry, "manager"));
    return manager > 0 && manager <= AT_OWNERS_MANAGER_BYTES_MAX &&
           (at_streq(operation, "Apply") || at_streq(operation, "Update")) &&
           at_streq(text(entry, "fieldsType"), "FieldsV1") &&
           json_is_object(json_object_get(entry, "fieldsV1"));
}

const json_t *at_owners_sent(const json_t *object, bool *ret_reset)
{
    const json_t *list = at_json_at(object, "metadata.managedFields");
    size_t n = json_array_size(list);
    *ret_reset = n == 1 && json_is_object(json_array_get(list, 0)) &&
                 json_object_size(json_array_get(list, 0)) == 0;
    for (size_t i = 0; i < n; i++) {
        if (!entry_is_sound(json_array_get(list, i))) {
            return NULL;
        }
    }
    return n > 0 ? list : NULL;
}

/* The oldest entries of operation Update become one when there are too many. */
static void merge_ancient(const struct at_model_kind *kind, json_t *entries)
{
    for (;;) {
        size_t n = 0;
        size_t oldest = 0;
        size_t ancient = json_array_size(entries);
        for (size_t i = 0; i < json_array_size(entries); i++) {
            const json_t *entry = json_array_get(entries, i);
            if (!at_streq(text(entry, "operation"), "Update") ||
                text(entry, "subresource")[0] != '\0') {
                continue;
            }
            if (at_streq(text(entry, "manager"), AT_OWNERS_ANCIENT)) {
                ancient = i;
                continue;
            }
            if (n == 0 ||
                strcmp(text(entry, "time"), text(json_array_get(entries, oldest), "time")) < 0) {
                oldest = i;
            }
            n++;
        }
        if (n <= AT_OWNERS_UPDATES_MAX) {
            return;
        }
        const json_t *entry = json_array_get(entries, oldest);
        const json_t *before = json_object_get(json_array_get(entries, ancient), "fieldsV1");
        struct at_owner who = {.manager = AT_OWNERS_ANCIENT, .subresource = ""};
        json_t *merged =
            entry_new(kind, &who, at_fields_union(before, json_object_get(entry, "fieldsV1")));
        json_object_set(merged, "time", json_object_get(entry, "time"));
        json_array_set_new(entries, oldest, merged);
        if (before != NULL) {
            json_array_remove(entries, ancient);
        }
    }
}

json_t *at_owners_of_write(const struct at_model_kind *kind, const json_t *base, const json_t *old,
                           const json_t *object, const struct at_owner *who)
{
    assert(!who->apply);
    if (old != NULL && json_array_size(base) == 0) {
        return NULL;
    }
    json_t *entries = json_array();
    json_t *mine = of_part(kind, at_fields_changed(kind, old, object), who->part);
    bool changes = mine != NULL;
    bool stood = false;
    size_t i;
    json_t *entry;
    json_array_foreach((json_t *)base, i, entry)
    {
        bool own = entry_is(entry, who);
        json_t *kept =
            at_fields_kept(kind, json_object_get(entry, "fieldsV1"), own ? NULL : old, object);
        if (own && mine != NULL) {
            json_t *both = at_fields_union(kept, mine);
            json_decref(kept);
            json_decref(mine);
            mine = NULL;
            kept = both;
        }
        stood = stood || own;
        if (kept != NULL && own && changes) {
            json_array_append_new(entries, entry_new(kind, who, kept));
        } else if (kept != NULL) {
            json_array_append_new(entries, entry_with(entry, kept));
        }
    }
    assert(!stood || mine == NULL);
    if (mine != NULL) {
        json_array_append_new(entries, entry_new(kind, who, mine));
        merge_ancient(kind, entries);
    }
    return entries;
}

json_t *at_owners_entry(const struct at_model_kind *kind, const json_t *old, const json_t *object,
                        const struct at_owner *who)
{
    json_t *fields = of_part(kind, at_fields_changed(kind, old, object), who->part);
    return fields != NULL ? entry_new(kind, who, fields) : NULL;
}

/* --- apply --- */

static json_t *without_nulls(const json_t *value)
{
    if (json_is_array(value)) {
        json_t *out = json_array();
        size_t i;
        json_t *item;
        json_array_foreach((json_t *)value, i, item)
        {
            json_array_append_new(out, without_nulls(item));
        }
        return out;
    }
    if (!json_is_object(value)) {
        return json_incref((json_t *)value);
    }
    json_t *out = json_object();
    const char *key;
    json_t *sub;
    json_object_foreach((json_t *)value, key, sub)
    {
        if (!json_is_null(sub)) {
            json_object_set_new(out, key, without_nulls(sub));
        }
    }
    return out;
}

/* Entries of all others, with what they still own; what nobody is said to own belongs to those who
 * wrote before the first apply. *ret_own: what the applier owned, owned by the caller; its entry
 * stood at *ret_at. */
static json_t *others_of(const struct at_model_kind *kind, const struct at_apply *a,
                         json_t **ret_own, size_t *ret_at)
{
    json_t *others = json_array();
    const json_t *base = at_json_at(a->old, "metadata.managedFields");
    size_t i;
    json_t *entry;
    json_array_foreach((json_t *)base, i, entry)
    {
        json_t *kept = at_fields_kept(kind, json_object_get(entry, "fieldsV1"), NULL, a->old);
        if (entry_is(entry, &a->who)) {
            *ret_own = kept;
            *ret_at = json_array_size(others);
        } else if (kept != NULL) {
            json_array_append_new(others, entry_with(entry, kept));
        }
    }
    if (a->old != NULL && json_array_size(base) == 0) {
        struct at_owner before = {.manager = AT_OWNERS_BEFORE_APPLY,
                                  .subresource = "",
                                  .now_wall_ns = a->who.now_wall_ns};
        json_t *all = of_part(kind, at_fields_of(kind, a->old), AT_OBJECT_MAIN);
        if (all != NULL) {
            json_array_append_new(others, entry_new(kind, &before, all));
        }
    }
    return others;
}

static json_t *union_of(const json_t *entries)
{
    json_t *all = NULL;
    size_t i;
    json_t *entry;
    json_array_foreach((json_t *)entries, i, entry)
    {
        json_t *more = at_fields_union(all, json_object_get(entry, "fieldsV1"));
        json_decref(all);
        all = more;
    }
    return all;
}

/* What the endpoint takes of what is applied, without nulls. own: caller decrefs. */
static json_t *accepted(const struct at_model_kind *kind, const struct at_apply *a)
{
    json_t *out = without_nulls(a->applied);
    if (a->who.part != AT_OBJECT_STATUS) {
        if (kind->has_status && a->who.part == AT_OBJECT_MAIN) {
            json_object_del(out, "status");
        }
        return out;
    }
    static const char *const KEPT[] = {"name", "namespace", "uid", "resourceVersion"};
    json_t *meta = json_object();
    for (size_t i = 0; i < AT_ARRAY_LEN(KEPT); i++) {
        json_t *value = json_object_get(json_object_get(out, "metadata"), KEPT[i]);
        if (value != NULL) {
            json_object_set(meta, KEPT[i], value);
        }
    }
    json_t *status = json_object_get(out, "status");
    json_t *only = json_pack("{s:o}", "metadata", meta);
    if (status != NULL) {
        json_object_set(only, "status", status);
    }
    json_decref(out);
    return only;
}

struct cause {
    json_t *list;
    const json_t *entry;
};

static void conflict(void *ctx, const char *path)
{
    struct cause *c = ctx;
    const char *subresource = text(c->entry, "subresource");
    bool update = at_streq(text(c->entry, "operation"), "Update");
    AT_CLEANUP(at_cleanup_free)
    char *manager = at_asprintf("\"%s\"%s%s%s%s%s%s%s", text(c->entry, "manager"),
                                subresource[0] != '\0' ? " with subresource \"" : "", subresource,
                                subresource[0] != '\0' ? "\"" : "", update ? " using " : "",
                                update ? text(c->entry, "apiVersion") : "", update ? " at " : "",
                                update ? text(c->entry, "time") : "");
    json_array_append_new(c->list, json_pack("{s:s, s:s}", "manager", manager, "field", path));
}

/* Fields that client-side apply set, and that still have the value it set: kubectl, which now
 * applies them through the server, may take them over. own: caller decrefs. */
static json_t *taken_over(const struct at_model_kind *kind, const struct at_apply *a)
{
    const char *last =
        json_string_value(json_object_get(at_json_at(a->old, ANNOTATIONS), LAST_APPLIED));
    AT_CLEANUP(at_cleanup_json) json_t *object = NULL;
    if (!at_streq(a->who.manager, KUBECTL) || last == NULL ||
        at_json_parse(last, strlen(last), &object, NULL) != AT_OK || !json_is_object(object)) {
        return NULL;
    }
    AT_CLEANUP(at_cleanup_json) json_t *set = at_fields_of(kind, object);
    return set != NULL ? at_fields_kept(kind, set, object, a->old) : NULL;
}

/* Whoever owns a field that changes: a conflict, or with force its loss. */
static void contest(const struct at_model_kind *kind, struct at_apply *a, json_t *others)
{
    AT_CLEANUP(at_cleanup_json) json_t *changes = at_fields_changed(kind, a->old, a->object);
    AT_CLEANUP(at_cleanup_json) json_t *allowed = taken_over(kind, a);
    for (size_t i = json_array_size(others); i > 0; i--) {
        const json_t *entry = json_array_get(others, i - 1);
        const json_t *theirs = json_object_get(entry, "fieldsV1");
        AT_CLEANUP(at_cleanup_json) json_t *contested = at_fields_common(theirs, changes);
        AT_CLEANUP(at_cleanup_json) json_t *refused = at_fields_minus(contested, allowed);
        if (contested == NULL) {
            continue;
        }
        struct cause c = {.list = a->conflicts, .entry = entry};
        if (refused != NULL && !a->force) {
            at_fields_each(refused, conflict, &c);
        }
        json_t *left = at_fields_minus(theirs, contested);
        if (left != NULL) {
            json_array_set_new(others, i - 1, entry_with(entry, left));
        } else {
            json_array_remove(others, i - 1);
        }
    }
}

/* As long as the object carries the annotation of client-side apply, kubectl's applies through the
 * server keep it true, so that both ways go together. */
static void last_applied_keep(struct at_apply *a)
{
    json_t *notes = at_json_at(a->object, ANNOTATIONS);
    if (!at_streq(a->who.manager, KUBECTL) || a->who.subresource[0] != '\0' ||
        json_object_get(at_json_at(a->old, ANNOTATIONS), LAST_APPLIED) == NULL || notes == NULL) {
        return;
    }
    AT_CLEANUP(at_cleanup_json) json_t *applied = json_deep_copy(a->applied);
    AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
    json_object_del(at_json_at(applied, "metadata"), "managedFields");
    json_object_del(at_json_at(applied, ANNOTATIONS), LAST_APPLIED);
    if (at_json_dump(applied, &out) == AT_OK && at_buf_append_str(&out, "\n") == AT_OK) {
        json_object_set_new(notes, LAST_APPLIED, json_string(out.data));
    }
}

void at_apply_make(const struct at_model_kind *kind, struct at_apply *a)
{
    assert(a->who.apply);
    AT_CLEANUP(at_cleanup_json) json_t *applied = accepted(kind, a);
    AT_CLEANUP(at_cleanup_json)
    json_t *fields = of_part(kind, at_fields_of(kind, applied), a->who.part);
    AT_CLEANUP(at_cleanup_json) json_t *own = NULL;
    size_t at = SIZE_MAX;
    json_t *others = others_of(kind, a, &own, &at);
    AT_CLEANUP(at_cleanup_json) json_t *theirs = union_of(others);
    a->conflicts = json_array();
    a->object = a->old != NULL ? json_deep_copy(a->old) : json_object();
    at_fields_drop(kind, a->object, own, fields, theirs);
    at_fields_merge(kind, a->object, applied);
    if (a->old != NULL) {
        contest(kind, a, others);
        last_applied_keep(a);
    }
    a->entries = others;
    if (fields != NULL) {
        at = at < json_array_size(others) ? at : json_array_size(others);
        json_array_insert_new(others, at, entry_new(kind, &a->who, json_incref(fields)));
    }
}

json_t *at_owners_of_apply(const struct at_model_kind *kind, const json_t *entries,
                           const json_t *object, const struct at_owner *who)
{
    json_t *out = json_array();
    size_t i;
    json_t *entry;
    json_array_foreach((json_t *)entries, i, entry)
    {
        if (!entry_is(entry, who)) {
            json_array_append(out, entry);
            continue;
        }
        json_t *kept = at_fields_kept(kind, json_object_get(entry, "fieldsV1"), NULL, object);
        if (kept != NULL) {
            json_array_append_new(out, entry_with(entry, kept));
        }
    }
    return out;
}

bool at_owners_same(const json_t *a, const json_t *b)
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

void at_owners_put(json_t *object, const json_t *entries)
{
    json_t *meta = json_object_get(object, "metadata");
    assert(meta != NULL);
    if (json_array_size(entries) > 0) {
        json_object_set(meta, "managedFields", (json_t *)entries);
    } else {
        json_object_del(meta, "managedFields");
    }
}
