/* Trimming a stored value never reads past it, and leaves what parsing it and deleting the two
 * fields would leave. */
#include "state/object.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct at_buf out = {0};
    json_t *whole = NULL;
    if (at_object_trim((const char *)data, size, &out) == AT_OK &&
        at_json_parse((const char *)data, size, &whole, NULL) == AT_OK) {
        json_t *left = NULL;
        json_t *meta = json_object_get(whole, "metadata");
        json_object_del(meta, "annotations");
        json_object_del(meta, "managedFields");
        assert(at_json_parse(out.data, out.len, &left, NULL) == AT_OK);
        assert(json_equal(left, whole));
        json_decref(left);
    }
    json_decref(whole);
    at_buf_done(&out);
    return 0;
}
