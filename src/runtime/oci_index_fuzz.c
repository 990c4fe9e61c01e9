#include "runtime/oci_priv.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The index.json of a layout that somebody else made: a digest that is taken is hex, as it becomes
 * part of paths. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *index = NULL;
    struct at_err err;
    char digest[80];
    bool nested;
    if (at_json_parse((const char *)data, size, &index, &err) != AT_OK) {
        return 0;
    }
    if (at_oci_index_find(index, "latest", digest, &nested, &err) == AT_OK &&
        (strlen(digest) != 71 || strspn(digest + 7, "0123456789abcdef") != 64)) {
        abort();
    }
    json_decref(index);
    return 0;
}
