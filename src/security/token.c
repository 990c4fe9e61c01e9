#include "core/digest.h"
#include "core/str.h"
#include "security/security.h"

#include <assert.h>
#include <stdio.h>

#define ID_BYTES 8
#define SECRET_BYTES 32

void at_token_new(const struct at_sys *sys, const char *kind, struct at_token *ret)
{
    unsigned char random[ID_BYTES + SECRET_BYTES];
    char secret[2 * SECRET_BYTES + 1];
    at_sys_random(sys, random, sizeof random);
    at_hex_encode(random, ID_BYTES, ret->id);
    at_hex_encode(random + ID_BYTES, SECRET_BYTES, secret);
    at_sha256_hex(secret, strlen(secret), ret->secret_sha256_hex);
    int len = snprintf(ret->text, sizeof ret->text, "%s.%s.%s", kind, ret->id, secret);
    assert(len > 0 && (size_t)len < sizeof ret->text);
    explicit_bzero(random, sizeof random);
    explicit_bzero(secret, sizeof secret);
}

static bool is_hex(struct at_str s, size_t len)
{
    if (s.len != len) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        char c = s.ptr[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) {
            return false;
        }
    }
    return true;
}

enum at_rc at_token_parse(const char *text, const char *kind, char out_id[32],
                          char out_secret_sha256_hex[65], struct at_err *err)
{
    struct at_str rest = at_str_of(text);
    struct at_str have_kind = at_str_cut(&rest, '.');
    struct at_str id = at_str_cut(&rest, '.');
    if (!at_str_eq(have_kind, kind) || !is_hex(id, (size_t)2 * ID_BYTES) ||
        !is_hex(rest, (size_t)2 * SECRET_BYTES)) {
        return at_err_set(err, AT_UNAUTHENTICATED, "malformed %s token", kind);
    }
    memcpy(out_id, id.ptr, id.len);
    out_id[id.len] = '\0';
    at_sha256_hex(rest.ptr, rest.len, out_secret_sha256_hex);
    return AT_OK;
}
