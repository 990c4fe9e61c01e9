#include "store/seal.h"

#include "core/str.h"

#include <string.h>

bool at_store_is_sealed(const void *value, size_t len)
{
    return len > AT_STORE_SEALED_MAGIC_BYTES &&
           memcmp(value, AT_STORE_SEALED_MAGIC, AT_STORE_SEALED_MAGIC_BYTES) == 0;
}

enum at_rc at_store_seal_value(const struct at_store_seal *seal, const char *key,
                               struct at_str value, struct at_buf *out, struct at_str *ret,
                               struct at_err *err)
{
    *ret = value;
    if (seal == NULL || !seal->wants(seal->ctx, key) || at_store_is_sealed(value.ptr, value.len)) {
        return AT_OK;
    }
    at_buf_clear(out);
    enum at_rc rc = seal->seal(seal->ctx, key, value.ptr, value.len, out, err);
    *ret = (struct at_str){out->data, out->len};
    return rc;
}

enum at_rc at_store_unseal_value(const struct at_store_seal *seal, const char *key,
                                 struct at_str value, struct at_buf *out, struct at_str *ret,
                                 struct at_err *err)
{
    *ret = value;
    if (seal == NULL) {
        return AT_OK;
    }
    if (!at_store_is_sealed(value.ptr, value.len)) {
        if (seal->found_plain != NULL && seal->wants(seal->ctx, key)) {
            seal->found_plain(seal->ctx, key);
        }
        return AT_OK;
    }
    at_buf_clear(out);
    enum at_rc rc = seal->open(seal->ctx, key, value.ptr, value.len, out, err);
    *ret = (struct at_str){out->data != NULL ? out->data : "", out->len};
    return rc;
}
