/* Any bytes as the body of an infer request: parsed or refused with a message, never more. What is
 * parsed must encode again when the inputs are given back as outputs. */
#include "core/mem.h"
#include "runners/oip.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct at_oip_spec SPEC = {
    .model = "m",
    .version = "1",
    .platform = "test",
    .inputs = {{"image", AT_OIP_FP32, {-1, 4}, 2},
               {"words", AT_OIP_BYTES, {-1}, 1},
               {"flags", AT_OIP_BOOL, {2}, 1},
               {"small", AT_OIP_INT8, {-1, -1, 2}, 3}},
    .n_inputs = 4,
    .outputs = {{"image", AT_OIP_FP32, {-1, 4}, 2},
                {"words", AT_OIP_BYTES, {-1}, 1},
                {"flags", AT_OIP_BOOL, {2}, 1},
                {"small", AT_OIP_INT8, {-1, -1, 2}, 3}},
    .n_outputs = 4,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return -1;
    }
    size_t json_len = (size_t)data[0] | (size_t)data[1] << 8;
    const char *body = (const char *)data + 2;
    json_len = json_len == 0 ? size - 2 : json_len;
    struct at_arena *arena = at_arena_new(1 << 20);
    struct at_oip_request request;
    struct at_err err = {0};
    enum at_rc rc = at_oip_parse_infer(&SPEC, body, size - 2, json_len, arena, &request, &err);
    assert(rc == AT_OK || err.msg[0] != '\0');
    if (rc == AT_OK) {
        struct at_oip_tensor outputs[AT_OIP_TENSORS_MAX];
        for (size_t i = 0; i < request.n_outputs; i++) {
            outputs[i] = request.inputs[request.outputs[i]];
        }
        AT_CLEANUP(at_cleanup_buf) struct at_buf buf = {0};
        size_t answer_json_len;
        rc = at_oip_encode_infer(&SPEC, &request, outputs, &buf, &answer_json_len, &err);
        assert(rc == AT_OK || rc == AT_INVALID);
        assert(rc != AT_OK || answer_json_len <= buf.len);
    }
    at_arena_free(arena);
    return 0;
}
