#include "api/api_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *value = NULL;
    if (api_protobuf_decode(data, size, &value, NULL) == AT_OK) {
        struct at_buf text = {0};
        enum at_rc rc = at_json_dump(value, &text);
        (void)rc;
        at_buf_done(&text);
    }
    json_decref(value);
    return 0;
}
