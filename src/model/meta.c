/* metadata, both ways, and the small questions that every reader of objects asks. */
#include "model/model_priv.h"

#include "core/str.h"

#include <string.h>

static enum at_rc bad(struct at_err *err, const char *field, const char *why)
{
    return at_err_set_field(err, AT_INVALID, field, "%s: %s", field, why);
}

static enum at_rc take_string(const json_t *json, const char *key, const char *field,
                              struct at_arena *arena, const char **out, struct at_err *err)
{
    const json_t *v = json_object_get(json, key);
    if (v == NULL || json_is_null(v)) {
        return AT_OK;
    }
    if (!json_is_string(v)) {
        return bad(err, field, "must be a string");
    }
    *out = at_arena_strdup(arena, json_string_value(v));
    return *out != NULL ? AT_OK : at_err_set(err, AT_TOO_LARGE, "object is too large");
}

static enum at_rc take_time(const json_t *json, const char *key, const char *field, int64_t *out,
                            struct at_err *err)
{
    const json_t *v = json_object_get(json, key);
    if (v == NULL || json_is_null(v)) {
        return AT_OK;
    }
    struct at_err why = {0};
    return at_model_unit_parse(AT_MODEL_UNIT_TIME, v, out, &why) == AT_OK
               ? AT_OK
               : bad(err, field, why.msg);
}

static enum at_rc take_int(const json_t *json, const char *key, const char *field, int64_t *out,
                           struct at_err *err)
{
    const json_t *v = json_object_get(json, key);
    if (v == NULL || json_is_null(v)) {
        return AT_OK;
    }
    if (!json_is_integer(v)) {
        return bad(err, field, "must be an integer");
    }
    *out = json_integer_value(v);
    return AT_OK;
}

static enum at_rc take_map(const json_t *json, const char *key, const char *field,
                           struct at_arena *arena, struct at_model_map *out, struct at_err *err)
{
    json_t *v = json_object_get(json, key);
    if (v == NULL || json_is_null(v)) {
        return AT_OK;
    }
    if (!json_is_object(v)) {
        return bad(err, field, "must be a map of strings");
    }
    out->items = at_arena_alloc(arena, json_object_size(v) * sizeof *out->items);
    const char *name;
    json_t *value;
    json_object_foreach(v, name, value)
    {
        if (!json_is_string(value)) {
            return bad(err, field, "must be a map of strings");
        }
        struct at_model_kv kv = {at_arena_strdup(arena, name),
                                 at_arena_strdup(arena, json_string_value(value))};
        if (out->items == NULL || kv.key == NULL || kv.value == NULL) {
            return at_err_set(err, AT_TOO_LARGE, "object is too large");
        }
        out->items[out->n++] = kv;
    }
    return AT_OK;
}

static enum at_rc take_finalizers(const json_t *json, struct at_arena *arena,
                                  struct at_model_strings *out, struct at_err *err)
{
    const json_t *v = json_object_get(json, "finalizers");
    if (v == NULL || json_is_null(v)) {
        return AT_OK;
    }
    size_t n = json_array_size(v);
    out->items = at_arena_alloc(arena, n * sizeof *out->items);
    for (size_t i = 0; i < n; i++) {
        const char *text = json_string_value(json_array_get(v, i));
        if (text == NULL) {
            return bad(err, "metadata.finalizers", "must be a list of strings");
        }
        const char *copy = at_arena_strdup(arena, text);
        if (out->items == NULL || copy == NULL) {
            return at_err_set(err, AT_TOO_LARGE, "object is too large");
        }
        out->items[out->n++] = copy;
    }
    return json_is_array(v) ? AT_OK : bad(err, "metadata.finalizers", "must be a list of strings");
}

static enum at_rc take_owners(const json_t *json, struct at_arena *arena, struct at_meta *out,
                              struct at_err *err)
{
    static const char field[] = "metadata.ownerReferences";
    const json_t *v = json_object_get(json, "ownerReferences");
    if (v == NULL || json_is_null(v)) {
        return AT_OK;
    }
    if (!json_is_array(v)) {
        return bad(err, field, "must be a list");
    }
    size_t n = json_array_size(v);
    struct at_owner_ref *items = at_arena_alloc(arena, n * sizeof *items);
    if (items == NULL) {
        return at_err_set(err, AT_TOO_LARGE, "object is too large");
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *o = json_array_get(v, i);
        struct at_owner_ref *r = &items[i];
        enum at_rc rc = take_string(o, "apiVersion", field, arena, &r->api_version, err);
        rc = rc == AT_OK ? take_string(o, "kind", field, arena, &r->kind, err) : rc;
        rc = rc == AT_OK ? take_string(o, "name", field, arena, &r->name, err) : rc;
        rc = rc == AT_OK ? take_string(o, "uid", field, arena, &r->uid, err) : rc;
        if (rc != AT_OK) {
            return rc;
        }
        r->controller = json_is_true(json_object_get(o, "controller"));
        r->block_owner_deletion = json_is_true(json_object_get(o, "blockOwnerDeletion"));
    }
    out->owners.items = items;
    out->owners.n = n;
    return AT_OK;
}

enum at_rc at_meta_decode(const json_t *json, struct at_arena *arena, struct at_meta *ret,
                          struct at_err *err)
{
    if (!json_is_object(json)) {
        return bad(err, "metadata", "must be an object");
    }
    const struct {
        const char *key, *field;
        const char **out;
    } texts[] = {
        {"name", "metadata.name", &ret->name},
        {"generateName", "metadata.generateName", &ret->generate_name},
        {"namespace", "metadata.namespace", &ret->ns},
        {"uid", "metadata.uid", &ret->uid},
        {"resourceVersion", "metadata.resourceVersion", &ret->resource_version},
    };
    enum at_rc rc = AT_OK;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0] && rc == AT_OK; i++) {
        rc = take_string(json, texts[i].key, texts[i].field, arena, texts[i].out, err);
    }
    if (rc == AT_OK) {
        rc = take_int(json, "generation", "metadata.generation", &ret->generation, err);
    }
    if (rc == AT_OK) {
        rc = take_time(json, "creationTimestamp", "metadata.creationTimestamp",
                       &ret->creation_wall_ns, err);
    }
    if (rc == AT_OK) {
        rc = take_time(json, "deletionTimestamp", "metadata.deletionTimestamp",
                       &ret->deletion_wall_ns, err);
    }
    if (rc == AT_OK) {
        rc = take_int(json, "deletionGracePeriodSeconds", "metadata.deletionGracePeriodSeconds",
                      &ret->deletion_grace_s, err);
    }
    if (rc == AT_OK) {
        rc = take_map(json, "labels", "metadata.labels", arena, &ret->labels, err);
    }
    if (rc == AT_OK) {
        rc = take_map(json, "annotations", "metadata.annotations", arena, &ret->annotations, err);
    }
    if (rc == AT_OK) {
        rc = take_finalizers(json, arena, &ret->finalizers, err);
    }
    return rc == AT_OK ? take_owners(json, arena, ret, err) : rc;
}

static void put_string(json_t *out, const char *key, const char *value)
{
    if (value != NULL) {
        json_object_set_new(out, key, json_string(value));
    }
}

static void put_map(json_t *out, const char *key, const struct at_model_map *map)
{
    if (map->n == 0) {
        return;
    }
    json_t *items = json_object();
    for (size_t i = 0; i < map->n; i++) {
        json_object_set_new(items, map->items[i].key, json_string(map->items[i].value));
    }
    json_object_set_new(out, key, items);
}

static void put_owners(json_t *out, const struct at_meta *meta)
{
    if (meta->owners.n == 0) {
        return;
    }
    json_t *list = json_array();
    for (size_t i = 0; i < meta->owners.n; i++) {
        const struct at_owner_ref *r = &meta->owners.items[i];
        json_t *o = json_object();
        put_string(o, "apiVersion", r->api_version);
        put_string(o, "kind", r->kind);
        put_string(o, "name", r->name);
        put_string(o, "uid", r->uid);
        if (r->controller) {
            json_object_set_new(o, "controller", json_true());
        }
        if (r->block_owner_deletion) {
            json_object_set_new(o, "blockOwnerDeletion", json_true());
        }
        json_array_append_new(list, o);
    }
    json_object_set_new(out, "ownerReferences", list);
}

json_t *at_meta_encode(const struct at_meta *meta)
{
    json_t *out = json_object();
    put_string(out, "name", meta->name);
    put_string(out, "generateName", meta->generate_name);
    put_string(out, "namespace", meta->ns);
    put_string(out, "uid", meta->uid);
    put_string(out, "resourceVersion", meta->resource_version);
    if (meta->generation != 0) {
        json_object_set_new(out, "generation", json_integer(meta->generation));
    }
    if (meta->creation_wall_ns != 0) {
        json_object_set_new(out, "creationTimestamp",
                            at_model_unit_json(AT_MODEL_UNIT_TIME, meta->creation_wall_ns));
    }
    if (meta->deletion_wall_ns != 0) {
        json_object_set_new(out, "deletionTimestamp",
                            at_model_unit_json(AT_MODEL_UNIT_TIME, meta->deletion_wall_ns));
        json_object_set_new(out, "deletionGracePeriodSeconds",
                            json_integer(meta->deletion_grace_s));
    }
    put_map(out, "labels", &meta->labels);
    put_map(out, "annotations", &meta->annotations);
    if (meta->finalizers.n != 0) {
        json_t *list = json_array();
        for (size_t i = 0; i < meta->finalizers.n; i++) {
            json_array_append_new(list, json_string(meta->finalizers.items[i]));
        }
        json_object_set_new(out, "finalizers", list);
    }
    put_owners(out, meta);
    return out;
}

const char *at_model_map_get(const struct at_model_map *map, const char *key)
{
    for (size_t i = 0; i < map->n; i++) {
        if (strcmp(map->items[i].key, key) == 0) {
            return map->items[i].value;
        }
    }
    return NULL;
}

bool at_meta_has_finalizer(const struct at_meta *meta, const char *finalizer)
{
    for (size_t i = 0; i < meta->finalizers.n; i++) {
        if (at_streq(meta->finalizers.items[i], finalizer)) {
            return true;
        }
    }
    return false;
}

const struct at_owner_ref *at_meta_controller(const struct at_meta *meta)
{
    for (size_t i = 0; i < meta->owners.n; i++) {
        if (meta->owners.items[i].controller) {
            return &meta->owners.items[i];
        }
    }
    return NULL;
}
