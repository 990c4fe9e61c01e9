/* Server-side apply of any JSON on any object with any owners: three lines, the object that is
 * there, what is applied, and what a plain write makes of it then. The first byte picks the kind.
 */
#include "core/str.h"
#include "state/owners.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const struct at_owner APPLIER = {.manager = "kubectl", .apply = true, .subresource = ""};
static const struct at_owner WRITER = {.manager = "w", .subresource = ""};

static json_t *line_of(struct at_str *rest)
{
    struct at_str line = at_str_cut(rest, '\n');
    json_t *value = NULL;
    if (line.ptr == NULL || at_json_parse(line.ptr, line.len, &value, NULL) != AT_OK ||
        !json_is_object(value)) {
        json_decref(value);
        value = json_object();
    }
    if (!json_is_object(json_object_get(value, "metadata"))) {
        json_object_set_new(value, "metadata", json_object());
    }
    return value;
}

/* A set holds of an object only what is in it, and all that it was made from. */
static void check_sets(const struct at_model_kind *kind, const json_t *object)
{
    json_t *all = at_fields_of(kind, object);
    json_t *kept = all != NULL ? at_fields_kept(kind, all, NULL, object) : NULL;
    json_t *none = at_fields_minus(all, all);
    if (!at_fields_equal(all, kept) || none != NULL) {
        abort();
    }
    json_decref(all);
    json_decref(kept);
}

static void write_over(const struct at_model_kind *kind, const json_t *old, json_t *object)
{
    const json_t *base = at_json_at(old, "metadata.managedFields");
    json_t *entries = at_owners_of_write(kind, base, old, object, &WRITER);
    at_owners_put(object, entries);
    json_t *again = at_owners_of_write(kind, entries, object, object, &WRITER);
    if (entries != NULL && !at_owners_same(entries, again)) {
        abort(); /* a write that changes nothing changes no owner */
    }
    json_decref(entries);
    json_decref(again);
}

static void apply_on(const struct at_model_kind *kind, json_t *old, const json_t *applied,
                     bool force, json_t *then_take)
{
    struct at_apply a = {.who = APPLIER, .force = force, .old = old, .applied = applied};
    at_apply_make(kind, &a);
    if (force && json_array_size(a.conflicts) > 0) {
        abort();
    }
    if (json_is_object(json_object_get(a.object, "metadata"))) {
        json_t *entries = at_owners_of_apply(kind, a.entries, a.object, &APPLIER);
        at_owners_put(a.object, entries);
        json_decref(entries);
        check_sets(kind, a.object);
        write_over(kind, a.object, then_take);
    }
    json_decref(a.object);
    json_decref(a.entries);
    json_decref(a.conflicts);
    json_decref(then_take);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    size_t n;
    const struct at_model_kind *const *kinds = at_model_kinds(&n);
    if (len == 0) {
        return 0;
    }
    const struct at_model_kind *kind = kinds[data[0] % n];
    struct at_str rest = {(const char *)data + 1, len - 1};
    json_t *old = line_of(&rest);
    json_t *applied = line_of(&rest);
    json_t *then = line_of(&rest);
    bool reset;
    (void)at_owners_sent(old, &reset);
    check_sets(kind, old);
    apply_on(kind, old, applied, false, json_deep_copy(then));
    apply_on(kind, old, applied, true, then);
    apply_on(kind, NULL, applied, false, json_deep_copy(old));
    json_decref(old);
    json_decref(applied);
    return 0;
}
