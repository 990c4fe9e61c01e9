/* The three-way merge of kubectl apply, for merge patches (RFC 7386). */
#include "cli/cli_priv.h"

#include <stdlib.h>
#include <string.h>

/* Sets what wanted has and live has not or has differently. */
static void add_changes(const json_t *wanted, const json_t *live, json_t *patch)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)wanted, key, value)
    {
        json_t *now = json_object_get(live, key);
        if (json_is_object(value) && json_is_object(now)) {
            json_t *inner = json_object();
            add_changes(value, now, inner);
            if (json_object_size(inner) != 0) {
                json_object_set_new(patch, key, inner);
            } else {
                json_decref(inner);
            }
        } else if (now == NULL || !json_equal(value, now)) {
            json_object_set_new(patch, key, json_deep_copy(value));
        }
    }
}

/* Takes out what was applied before and is not wanted any more, where it is still there. */
static void add_removals(const json_t *last, const json_t *wanted, const json_t *live,
                         json_t *patch)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)last, key, value)
    {
        const json_t *want = json_object_get(wanted, key);
        const json_t *now = json_object_get(live, key);
        if (now == NULL) {
            continue;
        }
        if (want == NULL) {
            json_object_set_new(patch, key, json_null());
        } else if (json_is_object(value) && json_is_object(want) && json_is_object(now)) {
            json_t *inner = json_object_get(patch, key);
            json_t *fresh = inner == NULL ? json_object() : json_incref(inner);
            add_removals(value, want, now, fresh);
            if (inner == NULL && json_object_size(fresh) != 0) {
                json_object_set(patch, key, fresh);
            }
            json_decref(fresh);
        }
    }
}

json_t *cli_merge3(const json_t *last, const json_t *wanted, const json_t *live)
{
    json_t *patch = json_object();
    add_changes(wanted, live, patch);
    if (last != NULL) {
        add_removals(last, wanted, live, patch);
    }
    return patch;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Keys in order, as Go's encoder writes them, so that kubectl sees no difference. */
json_t *cli_sorted(const json_t *value)
{
    if (json_is_array(value)) {
        json_t *copy = json_array();
        for (size_t i = 0; i < json_array_size(value); i++) {
            json_array_append_new(copy, cli_sorted(json_array_get(value, i)));
        }
        return copy;
    }
    if (!json_is_object(value)) {
        return json_incref((json_t *)value);
    }
    size_t count = json_object_size(value);
    const char **keys = at_alloc(count * sizeof *keys);
    size_t n = 0;
    const char *key;
    json_t *item;
    json_object_foreach((json_t *)value, key, item)
    {
        keys[n++] = key;
    }
    qsort(keys, n, sizeof *keys, by_name);
    json_t *copy = json_object();
    for (size_t i = 0; i < n; i++) {
        json_object_set_new(copy, keys[i], cli_sorted(json_object_get(value, keys[i])));
    }
    at_free(keys);
    return copy;
}

static json_t *annotations_of(json_t *object)
{
    json_t *metadata = json_object_get(object, "metadata");
    json_t *annotations = json_object_get(metadata, "annotations");
    if (!json_is_object(annotations)) {
        annotations = json_object();
        json_object_set_new(metadata, "annotations", annotations);
    }
    return annotations;
}

json_t *cli_with_last_applied(const json_t *wanted)
{
    json_t *copy = cli_sorted(wanted);
    json_object_del(annotations_of(copy), CLI_LAST_APPLIED);
    AT_CLEANUP(at_cleanup_json) json_t *ordered = cli_sorted(copy);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (at_json_dump(ordered, &text) == AT_OK && at_buf_append(&text, "\n", 1) == AT_OK) {
        json_object_set_new(annotations_of(copy), CLI_LAST_APPLIED,
                            json_stringn(text.data, text.len));
    }
    return copy;
}

json_t *cli_last_applied(const json_t *live)
{
    const json_t *metadata = json_object_get(live, "metadata");
    const json_t *annotations = json_object_get(metadata, "annotations");
    const char *text = json_string_value(json_object_get(annotations, CLI_LAST_APPLIED));
    json_t *last = NULL;
    if (text == NULL || at_json_parse(text, strlen(text), &last, NULL) != AT_OK) {
        return NULL;
    }
    return last;
}
