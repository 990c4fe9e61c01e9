/* What store.c and index.c share. */
#ifndef AT_PACKAGE_STORE_PRIV_H
#define AT_PACKAGE_STORE_PRIV_H

#include "core/digest.h"
#include "package/store.h"

struct at_pkg_store {
    char *root, *blobs, *parts;
};

/* bytes [from, bytes) of fd into sha. err: AT_CORRUPT it ends before. */
enum at_rc at_pkg_hash_fd(int fd, int64_t from, int64_t bytes, struct at_sha256_stream *sha,
                          struct at_err *err) AT_WARN_UNUSED;

#endif
