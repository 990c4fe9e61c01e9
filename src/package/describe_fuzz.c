/* Model files: ONNX and GGUF heads, and model.yaml. */
#include "core/mem.h"
#include "package/describe.h"
#include "package/model.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct at_pkg_source source = {.data = size > 0 ? (const char *)data : "",
                                   .bytes = (int64_t)size};
    struct at_pkg_model model = {0};
    json_t *json = NULL;
    if (at_pkg_describe_onnx(&source, &json, NULL) == AT_OK) {
        if (!json_is_array(json_object_get(json, "inputs"))) {
            abort();
        }
        json_decref(json);
    }
    if (at_pkg_describe_gguf(&source, &json, NULL) == AT_OK) {
        json_decref(json);
    }
    if (at_pkg_model_parse((const char *)data, size, &model, NULL) == AT_OK) {
        at_pkg_model_done(&model);
    }
    return 0;
}
