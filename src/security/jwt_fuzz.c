/* Key sets and tokens of any bytes: nothing but a signature by a key of the set lets one in. */
#include "security/jwt.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    const char *text = (const char *)data;
    const char *nul = memchr(text, '\0', size);
    size_t cut = nul != NULL ? (size_t)(nul - text) : size;
    struct at_jwks *keys = NULL;
    struct at_identity who = {0};
    int64_t expires = 0;
    const struct at_jwt_policy policy = {.issuer = "https://i",
                                         .audience = "a",
                                         .username_claim = "sub",
                                         .groups_claim = "groups",
                                         .skew_s = 60};
    (void)at_jwks_parse(text, cut, &keys, NULL);
    struct at_str token = {nul != NULL ? nul + 1 : text, nul != NULL ? size - cut - 1 : size};
    if (at_jwt_check(keys, &policy, token, 0, &who, &expires, NULL) == AT_OK) {
        assert(keys != NULL);
        assert(strncmp(who.user, "system:", 7) != 0);
    }
    at_jwks_free(keys);
    return 0;
}
