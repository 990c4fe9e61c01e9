#include "cli/fields.h"

#include <string.h>

#define DEPTH_MAX 64

json_t *cli_comparable(const json_t *object)
{
    static const char *const KEPT_BY_SERVER[] = {
        "managedFields", "uid", "resourceVersion", "generation", "creationTimestamp", "selfLink"};
    if (object == NULL) {
        return NULL;
    }
    json_t *copy = json_deep_copy(object);
    json_t *metadata = json_object_get(copy, "metadata");
    json_t *notes = json_object_get(metadata, "annotations");
    for (size_t i = 0; i < AT_ARRAY_LEN(KEPT_BY_SERVER); i++) {
        json_object_del(metadata, KEPT_BY_SERVER[i]);
    }
    json_object_del(notes, CLI_LAST_APPLIED);
    if (json_is_object(notes) && json_object_size(notes) == 0) {
        json_object_del(metadata, "annotations");
    }
    json_object_del(copy, "status");
    return copy;
}

static void mask_map(json_t *before, json_t *after)
{
    const char *key;
    json_t *value;
    void *next;
    json_object_foreach_safe(before, next, key, value)
    {
        json_t *other = json_object_get(after, key);
        bool same = other != NULL && json_equal(value, other);
        json_object_set_new(before, key, json_string(same ? "***" : "*** (before)"));
        if (other != NULL) {
            json_object_set_new(after, key, json_string(same ? "***" : "*** (after)"));
        }
    }
    json_object_foreach_safe(after, next, key, value)
    {
        if (json_object_get(before, key) == NULL) {
            json_object_set_new(after, key, json_string("*** (after)"));
        }
    }
}

void cli_mask_secrets(const struct at_model_kind *kind, json_t *before, json_t *after)
{
    if (strcmp(kind->kind, "Secret") == 0) {
        mask_map(json_object_get(before, "data"), json_object_get(after, "data"));
        mask_map(json_object_get(before, "stringData"), json_object_get(after, "stringData"));
    }
}

struct differ {
    struct cli *cli;
    json_t *out;
};

static void found(struct differ *d, const char *path, const json_t *before, const json_t *after)
{
    json_t *row = json_pack("{s:s}", "path", path);
    if (before != NULL) {
        json_object_set(row, "before", (json_t *)before);
    }
    if (after != NULL) {
        json_object_set(row, "after", (json_t *)after);
    }
    json_array_append_new(d->out, row);
}

static bool is_plain_key(const char *key)
{
    return key[0] != '\0' && strpbrk(key, "./\"[] ") == NULL;
}

static const char *member(const struct differ *d, const char *path, const char *key)
{
    if (!is_plain_key(key)) {
        return at_arena_printf(d->cli->arena, "%s[\"%s\"]", path, key);
    }
    return at_arena_printf(d->cli->arena, path[0] != '\0' ? "%s.%s" : "%s%s", path, key);
}

static void compare(struct differ *d, const char *path, const json_t *a, const json_t *b,
                    int depth);

static void compare_objects(struct differ *d, const char *path, const json_t *a, const json_t *b,
                            int depth)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)a, key, value)
    {
        compare(d, member(d, path, key), value, json_object_get(b, key), depth);
    }
    json_object_foreach((json_t *)b, key, value)
    {
        if (json_object_get(a, key) == NULL) {
            compare(d, member(d, path, key), NULL, value, depth);
        }
    }
}

/* The member that names a list's things, if all have one and no two the same. */
static const char *naming_key(const json_t *list)
{
    static const char *const KEYS[] = {"name", "key", "type", "id"};
    for (size_t k = 0; k < AT_ARRAY_LEN(KEYS) && json_array_size(list) != 0; k++) {
        bool good = true;
        for (size_t i = 0; i < json_array_size(list) && good; i++) {
            const char *name = json_string_value(json_object_get(json_array_get(list, i), KEYS[k]));
            good = name != NULL;
            for (size_t j = 0; j < i && good; j++) {
                good = strcmp(name, at_json_str_at(json_array_get(list, j), KEYS[k], "")) != 0;
            }
        }
        if (good) {
            return KEYS[k];
        }
    }
    return NULL;
}

static const json_t *with_name(const json_t *list, const char *key, const char *name)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        if (strcmp(at_json_str_at(item, key, ""), name) == 0) {
            return item;
        }
    }
    return NULL;
}

static void compare_named(struct differ *d, const char *path, const char *key, const json_t *a,
                          const json_t *b, int depth)
{
    for (size_t i = 0; i < json_array_size(a); i++) {
        const json_t *item = json_array_get(a, i);
        const char *name = at_json_str_at(item, key, "");
        compare(d, at_arena_printf(d->cli->arena, "%s[%s=%s]", path, key, name), item,
                with_name(b, key, name), depth);
    }
    for (size_t i = 0; i < json_array_size(b); i++) {
        const json_t *item = json_array_get(b, i);
        const char *name = at_json_str_at(item, key, "");
        if (with_name(a, key, name) == NULL) {
            compare(d, at_arena_printf(d->cli->arena, "%s[%s=%s]", path, key, name), NULL, item,
                    depth);
        }
    }
}

static void compare_lists(struct differ *d, const char *path, const json_t *a, const json_t *b,
                          int depth)
{
    size_t before = json_array_size(d->out);
    const char *key = naming_key(json_array_size(a) != 0 ? a : b);
    const char *other = naming_key(json_array_size(b) != 0 ? b : a);
    if (key != NULL && other != NULL && strcmp(key, other) == 0) {
        compare_named(d, path, key, a, b, depth);
        if (json_array_size(d->out) == before && !json_equal(a, b)) {
            found(d, path, a, b); /* only the order is another */
        }
        return;
    }
    size_t n = json_array_size(a) > json_array_size(b) ? json_array_size(a) : json_array_size(b);
    for (size_t i = 0; i < n; i++) {
        compare(d, at_arena_printf(d->cli->arena, "%s[%zu]", path, i), json_array_get(a, i),
                json_array_get(b, i), depth);
    }
}

static bool is_empty(const json_t *value)
{
    return json_object_size(value) == 0 && json_array_size(value) == 0;
}

static void compare(struct differ *d, const char *path, const json_t *a, const json_t *b, int depth)
{
    const json_t *one = a != NULL ? a : b;
    const json_t *two = b != NULL ? b : a;
    bool alike = json_typeof(one) == json_typeof(two);
    if (a != NULL && b != NULL && json_equal(a, b)) {
        return;
    }
    bool inside = alike && depth < DEPTH_MAX && !(is_empty(one) && is_empty(two));
    if (inside && json_is_object(one)) {
        compare_objects(d, path, a, b, depth + 1);
    } else if (inside && json_is_array(one)) {
        compare_lists(d, path, a, b, depth + 1);
    } else {
        found(d, path, a, b);
    }
}

json_t *cli_fields_diff(struct cli *cli, const json_t *before, const json_t *after)
{
    struct differ d = {.cli = cli, .out = json_array()};
    compare_objects(&d, "", before, after, 0);
    return d.out;
}
