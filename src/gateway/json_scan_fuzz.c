/* Bodies that name a model: what jansson takes is taken and means the same; what is taken here,
 * jansson refuses only for what a gateway does not judge. */
#include "core/json.h"
#include "core/mem.h"
#include "gateway/json_scan.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

static void check_same(const json_t *root, enum at_rc rc, const struct gw_scan *scan,
                       const struct at_err *err)
{
    if (!json_is_object(root) || json_object_size(root) > AT_GW_JSON_MEMBERS_MAX) {
        assert(rc == AT_BAD_REQUEST);
        return;
    }
    const json_t *model = json_object_get(root, "model");
    const json_t *stream = json_object_get(root, "stream");
    size_t len = json_string_length(model);
    if (len == 0 || len >= AT_GW_MODEL_BYTES_MAX) {
        assert(rc == AT_INVALID);
        assert(strcmp(err->field, "model") == 0);
    } else if (stream != NULL && !json_is_boolean(stream) && !json_is_null(stream)) {
        assert(rc == AT_INVALID);
        assert(strcmp(err->field, "stream") == 0);
    } else {
        assert(rc == AT_OK);
        assert(scan->model_len == len);
        assert(memcmp(scan->model, json_string_value(model), len) == 0);
        assert(scan->stream == json_is_true(stream));
    }
}

static bool is_not_judged(const char *why)
{
    return strstr(why, "\\u0000") != NULL || strstr(why, "NUL byte") != NULL ||
           strstr(why, "invalid Unicode") != NULL || strstr(why, "too big") != NULL ||
           strstr(why, "overflow") != NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    if (size == 0) {
        return 0;
    }
    struct gw_scan scan;
    struct at_err err = {0}, why = {0};
    AT_CLEANUP(at_cleanup_json) json_t *root = NULL;
    AT_CLEANUP(at_cleanup_json) json_t *last = NULL;
    enum at_rc rc = gw_json_scan((struct at_str){(const char *)input, size}, &scan, &err);
    if (memchr(input, '\0', size) != NULL) { /* no JSON, but jansson overlooks it between tokens */
        assert(rc == AT_BAD_REQUEST);
        return 0;
    }
    if (at_json_parse((const char *)input, size, &root, &why) == AT_OK) {
        check_same(root, rc, &scan, &err);
        return 0;
    }
    if (rc == AT_BAD_REQUEST) {
        assert(strncmp(err.msg, "line ", 5) == 0);
        return 0;
    }
    /* Named twice further down is the replica's affair as well. */
    assert(at_json_parse_last((const char *)input, size, &last, &why) == AT_OK ||
           is_not_judged(why.msg));
    return 0;
}
