/* JSON with fields named twice: it is found exactly where strict parsing refuses what parsing that
 * takes the last one does not. */
#include "api/api_priv.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const char *text = (const char *)data;
    json_t *last = NULL;
    json_t *strict = NULL;
    if (at_json_parse_last(text, len, &last, NULL) != AT_OK) {
        return 0;
    }
    bool unique = at_json_parse(text, len, &strict, NULL) == AT_OK;
    json_t *found = api_duplicates(text, len);
    if (unique && json_array_size(found) > 0) {
        abort();
    }
    /* One name may be escaped in two ways; that is told without its path. */
    if (!unique && json_array_size(found) == 0 && memchr(text, '\\', len) == NULL) {
        abort();
    }
    json_decref(found);
    json_decref(strict);
    json_decref(last);
    return 0;
}
