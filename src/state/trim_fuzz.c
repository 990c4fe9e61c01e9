/* Trimming and editing a stored value never reads past it, and leaves what parsing it, changing it
 * and writing it again would leave. */
#include "state/object.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void same(const struct at_buf *got, const json_t *want)
{
    json_t *left = NULL;
    assert(at_json_parse(got->data, got->len, &left, NULL) == AT_OK);
    assert(json_equal(left, want));
    json_decref(left);
}

static void trimmed(const char *value, size_t size, json_t *whole)
{
    struct at_buf out = {0};
    if (at_object_trim(value, size, &out) == AT_OK) {
        json_t *meta = json_object_get(whole, "metadata");
        const char *node =
            json_string_value(json_object_get(json_object_get(whole, "spec"), "nodeName"));
        json_object_del(meta, "annotations");
        json_object_del(meta, "managedFields");
        if (node != NULL && node[0] != '\0') {
            json_object_del(json_object_get(whole, "status"), "decision");
        }
        same(&out, whole);
    }
    at_buf_done(&out);
}

static void edited(const char *value, size_t size, json_t *whole)
{
    static const struct at_object_edit EDITS[] = {{"metadata", "generation", {"12", 2}},
                                                  {"spec", "nodeName", {"\"n\"", 3}},
                                                  {"status", "reason", {NULL, 0}},
                                                  {"status", "site", {"\"s\"", 3}}};
    struct at_buf out = {0};
    if (at_object_edit(value, size, EDITS, sizeof EDITS / sizeof EDITS[0], &out) == AT_OK) {
        json_object_del(json_object_get(whole, "status"), "reason");
        at_json_set_at(whole, "metadata.generation", json_integer(12));
        at_json_set_at(whole, "spec.nodeName", json_string("n"));
        at_json_set_at(whole, "status.site", json_string("s"));
        same(&out, whole);
    }
    at_buf_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *value = (const char *)data;
    json_t *whole = NULL, *other = NULL;
    (void)at_object_member(value, size, "spec", "nodeName");
    if (at_json_parse(value, size, &whole, NULL) == AT_OK) {
        other = json_deep_copy(whole);
        trimmed(value, size, whole);
        edited(value, size, other);
    } else {
        struct at_buf out = {0};
        (void)at_object_trim(value, size, &out);
        at_buf_done(&out);
    }
    json_decref(whole);
    json_decref(other);
    return 0;
}
