/* Any bytes as a revocation list: parsed or refused, never more. The authority is one that signs
 * nothing of it, so the entries of a list that happens to be well formed are never taken. */
#include "security/crl.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct at_crl *crl = NULL;
    struct at_err err = {0};
    if (at_crl_parse((const char *)data, size, "", &crl, &err) == AT_OK) {
        abort();
    }
    return 0;
}
