/* Heads of requests (first byte even) and answers (odd). A head that parses must say the same when
 * it is cut off right behind itself, and want more at one byte less. */
#include "net/http1.h"

#include <assert.h>
#include <stdlib.h>

typedef enum at_rc parse_fn(const char *, size_t, struct at_http_head *, struct at_err *);

static void check_slice(struct at_str s, const char *data, size_t len)
{
    assert(s.ptr >= data);
    assert(s.ptr + s.len <= data + len);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    if (size == 0) {
        return 0;
    }
    parse_fn *parse = input[0] & 1 ? at_http1_parse_response : at_http1_parse_request;
    const char *data = (const char *)input + 1;
    static struct at_http_head head, again;
    struct at_err err;
    if (parse(data, size - 1, &head, &err) != AT_OK) {
        return 0;
    }
    assert(head.head_bytes <= size - 1);
    assert(!(head.chunked && head.has_length));
    for (size_t i = 0; i < head.n_headers; i++) {
        check_slice(head.headers[i].name, data, head.head_bytes);
        check_slice(head.headers[i].value, data, head.head_bytes);
        assert(memchr(head.headers[i].value.ptr, '\n', head.headers[i].value.len) == NULL);
    }
    char *exact = malloc(head.head_bytes);
    assert(exact != NULL);
    memcpy(exact, data, head.head_bytes);
    assert(parse(exact, head.head_bytes, &again, NULL) == AT_OK);
    assert(again.head_bytes == head.head_bytes);
    assert(again.content_length == head.content_length);
    assert(parse(exact, head.head_bytes - 1, &again, NULL) == AT_AGAIN);
    free(exact);
    return 0;
}
