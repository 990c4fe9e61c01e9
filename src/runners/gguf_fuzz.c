/* Any bytes as the head of a model file: judged with a sentence, never more. */
#include "runners/gguf.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct at_err err = {0};
    enum at_rc whole = at_gguf_check(data, size, (int64_t)size, &err);
    assert(whole == AT_OK || (whole == AT_CORRUPT && err.msg[0] != '\0'));
    enum at_rc part = at_gguf_check(data, size, INT64_C(1) << 40, &err);
    assert(part == AT_OK || part == AT_CORRUPT || part == AT_TOO_LARGE);
    assert(whole != AT_OK || part == AT_OK); /* a longer file holds what a shorter one does */
    return 0;
}
