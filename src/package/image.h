/* A runnable container image from a model package: what the model server needs of this machine
 * (the program and the libraries it has mapped), the model, and what starts it. Blocking. */
#ifndef AT_PACKAGE_IMAGE_H
#define AT_PACKAGE_IMAGE_H

#include "package/store.h"

struct at_pkg_image_file {
    char *from, *to; /* to: a path of the image */
};

struct at_pkg_image {
    const char *model_digest;              /* a model package of the store */
    const char *base_digest;               /* an image of the store to build on; NULL: none */
    const char *program;                   /* absolute; it becomes /usr/bin/atoll */
    const struct at_pkg_image_file *files; /* of this machine; may be NULL */
    size_t n_files;
    const char *architecture; /* as Go writes it: "amd64", "arm64" */
};

/* out: *ret_digest of the image's manifest, which is as long as its parts the same.
 * err: AT_UNSUPPORTED the model has no runner; those of store.h. */
enum at_rc at_pkg_image_make(const struct at_pkg_store *store, const struct at_pkg_image *image,
                             char ret_digest[AT_PKG_DIGEST_BYTES],
                             struct at_err *err) AT_WARN_UNUSED;
/* Shared libraries that this process has loaded now, and its loader, each with the name by which
 * the loader looks for it. own: caller frees each text and the list. */
void at_pkg_loaded_libraries(struct at_pkg_image_file **ret, size_t *ret_n);

#endif
