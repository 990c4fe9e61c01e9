/* Values that lie encrypted wherever they are kept: in the back ends, and in dumps. Memory holds
 * them open. The store knows which keys, and calls; how is its owner's (security/ring.h). */
#ifndef AT_STORE_SEAL_H
#define AT_STORE_SEAL_H

#include "core/buf.h"
#include "core/str.h"
#include "store/store.h"

/* A sealed value begins with this; no object does. */
#define AT_STORE_SEALED_MAGIC "\001sealed1"
#define AT_STORE_SEALED_MAGIC_BYTES (sizeof AT_STORE_SEALED_MAGIC - 1)

struct at_store_seal {
    void *ctx;
    bool (*wants)(void *ctx, const char *key);
    /* Appends the sealed form. thread: any. */
    enum at_rc (*seal)(void *ctx, const char *key, const void *value, size_t len,
                       struct at_buf *out, struct at_err *err);
    /* Appends what was sealed. value begins with the magic. thread: any. */
    enum at_rc (*open)(void *ctx, const char *key, const void *value, size_t len,
                       struct at_buf *out, struct at_err *err);
    /* May be NULL: a value that should be sealed was found as it is. */
    void (*found_plain)(void *ctx, const char *key);
};

/* As at_store_open; seal is kept by pointer. NULL: values are kept as they come, so that whoever
 * has no key can move a store and look at the rest of it. */
enum at_rc at_store_open_sealed(const char *kind, const char *path, struct at_loop *loop,
                                const struct at_store_seal *seal, struct at_store **ret,
                                struct at_err *err) AT_WARN_UNUSED;
bool at_store_is_sealed(const void *value, size_t len);

/* What is to be written for a value: out is used, and *ret points at it, or at value itself. */
enum at_rc at_store_seal_value(const struct at_store_seal *seal, const char *key,
                               struct at_str value, struct at_buf *out, struct at_str *ret,
                               struct at_err *err) AT_WARN_UNUSED;
/* The other way round. */
enum at_rc at_store_unseal_value(const struct at_store_seal *seal, const char *key,
                                 struct at_str value, struct at_buf *out, struct at_str *ret,
                                 struct at_err *err) AT_WARN_UNUSED;

#endif
