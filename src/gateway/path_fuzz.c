/* Request paths: whatever comes, the model's name is bounded and no dot segment gets through. */
#include "gateway/path.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    struct gw_path path;
    struct at_str text = {(const char *)input, size};
    gw_path_parse(text, &path);
    assert(path.model_len < sizeof path.model);
    assert(strlen(path.model) == path.model_len);
    if (path.kind == GW_PATH_MODEL) {
        assert(at_str_starts(text, "/v2/models/"));
        assert(path.model_len > 0);
        assert(strcmp(path.model, ".") != 0);
        assert(strcmp(path.model, "..") != 0);
        assert(text.ptr[text.len - 1] != '/');
    } else if (path.kind == GW_PATH_MODEL_CARD) {
        assert(at_str_starts(text, "/v1/models/"));
        assert(path.model_len > 0);
        assert(text.ptr[text.len - 1] != '/');
        assert(!path.infer);
    } else {
        assert(path.model_len == 0 || path.kind == GW_PATH_NONE);
        assert(path.infer == at_str_eq(text, "/v1/embeddings"));
    }
    return 0;
}
