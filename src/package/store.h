/* Blobs by digest in a folder, and, where it is an OCI image layout, the index of what they make.
 * Any thread, several processes at once; blocking. */
#ifndef AT_PACKAGE_STORE_H
#define AT_PACKAGE_STORE_H

#include "core/buf.h"
#include "package/oci.h"

#include <stdatomic.h>

struct at_pkg_store;

/* An OCI image layout at root; made when create is set.
 * err: AT_NOT_FOUND none is there; AT_CORRUPT it is none. own: at_pkg_store_free. */
enum at_rc at_pkg_store_open(const char *root, bool create, struct at_pkg_store **ret,
                             struct at_err *err) AT_WARN_UNUSED;
/* Blobs only: files named by 64 hex digits in the folder blobs; what is not complete yet in parts,
 * on the same file system. Both are made. */
enum at_rc at_pkg_store_open_blobs(const char *blobs, const char *parts, struct at_pkg_store **ret,
                                   struct at_err *err) AT_WARN_UNUSED;
void at_pkg_store_free(struct at_pkg_store *store); /* accepts NULL */
const char *at_pkg_store_root(const struct at_pkg_store *store);

/* own: caller at_free. */
char *at_pkg_store_path(const struct at_pkg_store *store, const char *digest);
bool at_pkg_store_has(const struct at_pkg_store *store, const char *digest, int64_t bytes);
/* A document: read whole, its digest checked, appended to out. err: AT_NOT_FOUND; AT_CORRUPT. */
enum at_rc at_pkg_store_read(const struct at_pkg_store *store, const char *digest, size_t max_bytes,
                             struct at_buf *out, struct at_err *err) AT_WARN_UNUSED;
enum at_rc at_pkg_store_put(const struct at_pkg_store *store, const void *data, size_t len,
                            char ret_digest[AT_PKG_DIGEST_BYTES],
                            struct at_err *err) AT_WARN_UNUSED;
/* A copy of a regular file. */
enum at_rc at_pkg_store_put_file(const struct at_pkg_store *store, const char *path,
                                 char ret_digest[AT_PKG_DIGEST_BYTES], int64_t *ret_bytes,
                                 struct at_err *err) AT_WARN_UNUSED;
/* A blob that comes in pieces, perhaps over several runs: locked against everyone else who fetches
 * it, so that a second one waits and then finds it. *ret_fd -1: it is there.
 * err: AT_CANCELLED *stop was set. own: at_pkg_store_part_done. */
enum at_rc at_pkg_store_part(const struct at_pkg_store *store, const char *digest, int64_t bytes,
                             const atomic_bool *stop, int *ret_fd, int64_t *ret_have,
                             struct at_err *err) AT_WARN_UNUSED;
/* Complete: check digest and size of all of it, then it takes its name. What differs is thrown
 * away. err: AT_CORRUPT; AT_IO. */
enum at_rc at_pkg_store_part_keep(const struct at_pkg_store *store, const char *digest,
                                  int64_t bytes, int fd, struct at_err *err) AT_WARN_UNUSED;
void at_pkg_store_part_done(int fd);
/* Parts that nobody has touched for so long go. */
void at_pkg_store_sweep(const struct at_pkg_store *store, int64_t older_than_wall_ns);

/* --- the index of a layout --- */

/* name NULL or empty: the only one there is. own: at_pkg_index_done for *ret_index, which *ret
 * points into (arena too). err: AT_NOT_FOUND, with the names that there are. */
enum at_rc at_pkg_store_index(const struct at_pkg_store *store, struct at_arena *arena,
                              struct at_pkg_index *ret, struct at_err *err) AT_WARN_UNUSED;
enum at_rc at_pkg_store_find(const struct at_pkg_store *store, const char *name_or_digest,
                             char ret_digest[AT_PKG_DIGEST_BYTES],
                             struct at_err *err) AT_WARN_UNUSED;
/* name stands for the descriptor from now on. */
enum at_rc at_pkg_store_name(const struct at_pkg_store *store, const char *name,
                             const json_t *descriptor, struct at_err *err) AT_WARN_UNUSED;
/* err: AT_NOT_FOUND. */
enum at_rc at_pkg_store_unname(const struct at_pkg_store *store, const char *name,
                               struct at_err *err) AT_WARN_UNUSED;
/* Who adds blobs and names them later holds this, so that they are not collected meanwhile.
 * own: at_pkg_store_part_done. */
enum at_rc at_pkg_store_use(const struct at_pkg_store *store, int *ret_fd,
                            struct at_err *err) AT_WARN_UNUSED;
/* Blobs that nothing in the index needs go. *ret_bytes: so much. err: AT_AGAIN somebody adds some:
 * nothing was done. */
enum at_rc at_pkg_store_collect(const struct at_pkg_store *store, int64_t *ret_bytes,
                                struct at_err *err) AT_WARN_UNUSED;

#endif
