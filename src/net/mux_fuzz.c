/* Frames of atoll-mux/1: whatever is taken is within the input, and is put as it was read. */
#include "net/mux.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *at = (const char *)data;
    while (size > 0) {
        struct at_mux_frame f;
        struct at_err err;
        size_t used = 0;
        char head[AT_MUX_HEAD_BYTES];
        if (at_mux_parse(at, size, &f, &used, &err) != AT_OK) {
            return 0;
        }
        if (used > size || f.payload.ptr + f.payload.len != at + used) {
            abort();
        }
        at_mux_put_head(head, f.type, f.end, f.id, f.payload.len);
        if (memcmp(head, at, sizeof head) != 0) {
            abort();
        }
        at += used;
        size -= used;
    }
    return 0;
}
