/* Event streams in pieces of any size: what is found whole is the same whether the beginning is
 * looked at again or not, ends where an event does or is comments, and nothing is lost or said
 * twice. First byte: how large the pieces are. */
#include "core/mem.h"
#include "gateway/sse_end.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Lines end with LF, CRLF or CR: an event ends where two of them meet. */
static bool is_end(const char *text, size_t len)
{
    size_t lines = 0;
    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r')) {
        len -= len > 1 && text[len - 1] == '\n' && text[len - 2] == '\r' ? 2 : 1;
        lines++;
    }
    return lines >= 2;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return 0;
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf hold = {0};
    size_t step = (size_t)data[0] % 64 + 1, passed = 0;
    for (size_t at = 1; at < size; at += step) {
        size_t n = size - at < step ? size - at : step, seen = hold.len;
        if (at_buf_append(&hold, data + at, n) != AT_OK) {
            return 0;
        }
        struct at_str text = {hold.data, hold.len};
        size_t whole = gw_sse_whole(text, seen);
        assert(whole == gw_sse_whole(text, 0));
        assert(whole <= text.len);
        assert(whole == 0 || is_end(text.ptr, whole) ||
               (whole == text.len && text.ptr[whole - 1] == '\n'));
        passed += whole;
        at_buf_consume(&hold, whole);
    }
    assert(passed + hold.len == size - 1);
    return 0;
}
