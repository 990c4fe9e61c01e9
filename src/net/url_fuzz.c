/* URLs and query strings. */
#include "net/http1.h"
#include "net/url.h"

#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    char *text = malloc(size + 1);
    assert(text != NULL);
    memcpy(text, input, size);
    text[size] = '\0';
    struct at_url url;
    struct at_err err;
    if (at_url_parse(text, &url, &err) == AT_OK) {
        assert(url.target[0] == '/');
        assert(url.port >= 0 && url.port <= 65535);
        assert(strlen(url.addr) < sizeof url.addr);
    }
    char value[64];
    (void)!at_query_get((struct at_str){text, size}, "key", value, sizeof value);
    (void)!at_percent_decode((struct at_str){text, size}, size & 1, value, sizeof value);
    free(text);
    return 0;
}
