/* Chunked bodies: read whole and byte by byte, the payload, the outcome and the place of the end
 * are the same. */
#include "core/buf.h"
#include "net/http1.h"

#include <assert.h>

static enum at_rc read_all(const char *data, size_t len, size_t step, struct at_buf *out,
                           size_t *ret_at, bool *ret_done)
{
    struct at_http_head head = {.is_request = true, .chunked = true};
    struct at_http1_body body;
    enum at_rc rc = AT_OK;
    size_t at = 0;
    at_http1_body_begin(&body, &head, AT_HTTP_POST);
    while (rc == AT_OK && at < len && !body.done) {
        size_t n = len - at < step ? len - at : step;
        size_t used = 0;
        struct at_str chunk;
        rc = at_http1_body_take(&body, data + at, n, &used, &chunk, NULL);
        if (rc == AT_OK) {
            assert(used > 0);
            assert(used <= n);
            assert(chunk.len <= used);
            assert(at_buf_append(out, chunk.ptr, chunk.len) == AT_OK);
            at += used;
        }
    }
    *ret_at = at;
    *ret_done = body.done;
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    struct at_buf whole = {0}, pieces = {0};
    size_t end_a, end_b;
    bool done_a, done_b;
    enum at_rc a = read_all((const char *)input, size, size, &whole, &end_a, &done_a);
    enum at_rc b = read_all((const char *)input, size, 1, &pieces, &end_b, &done_b);
    assert(a == b);
    assert(done_a == done_b);
    if (a == AT_OK) {
        assert(end_a == end_b);
        assert(whole.len == pieces.len);
        assert(whole.len == 0 || memcmp(whole.data, pieces.data, whole.len) == 0);
    }
    at_buf_done(&whole);
    at_buf_done(&pieces);
    return 0;
}
