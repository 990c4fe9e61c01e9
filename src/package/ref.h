/* What names a package: "oci://host[:port]/repository[:tag][@sha256:...]" in a registry,
 * "oci-layout:FOLDER[:name|@sha256:...]" in an OCI image layout, "oci-archive:FILE.tar[:name]" in
 * such a layout as a tar. Pure. */
#ifndef AT_PACKAGE_REF_H
#define AT_PACKAGE_REF_H

#include "core/err.h"
#include "package/limits.h"

enum at_pkg_place {
    AT_PKG_REGISTRY,
    AT_PKG_LAYOUT,
    AT_PKG_ARCHIVE,
};

#define AT_PKG_DIGEST_BYTES 72 /* "sha256:", 64 hex digits, NUL */

struct at_pkg_ref {
    enum at_pkg_place place;
    char host[256];                   /* of a registry, with its port */
    char path[PKG_REF_BYTES_MAX];     /* repository, folder or file */
    char tag[256];                    /* or name within a layout; empty: none */
    char digest[AT_PKG_DIGEST_BYTES]; /* empty: none */
};

/* Without "oci://" too, where host is told from a folder of a name by a dot, a port or "localhost".
 * err: AT_INVALID says what is wrong. */
enum at_rc at_pkg_ref_parse(const char *text, struct at_pkg_ref *ret,
                            struct at_err *err) AT_WARN_UNUSED;
/* "sha256:" and 64 lower-case hex digits, nothing else. */
bool at_pkg_digest_is(const char *text, size_t len);
/* host/path:tag@digest, as people write it; into out. */
void at_pkg_ref_format(const struct at_pkg_ref *ref, char *out, size_t size);
/* "latest" where neither tag nor digest is given. */
const char *at_pkg_ref_wanted(const struct at_pkg_ref *ref);
bool at_pkg_tag_is(const char *tag, size_t len);

#endif
