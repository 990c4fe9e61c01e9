/* Whole packages between registries, layouts, archives and a store: several blobs at a time, every
 * one verified, the manifest last, so that what has a manifest is complete. Blocking. */
#ifndef AT_PACKAGE_TRANSFER_H
#define AT_PACKAGE_TRANSFER_H

#include "package/registry.h"

struct at_pkg_transfer {
    size_t parallel;     /* 0: PKG_PARALLEL */
    atomic_bool *cancel; /* what the registry was opened with; set here when one blob fails, so that
                            the others end too */
    void *ctx;
    /* Once, before the first byte: what all of it comes to, and how much of that the store lacks.
     * An error ends it. May be NULL. */
    enum at_rc (*on_total)(void *ctx, int64_t bytes, int64_t lacking, struct at_err *err);
};

/* A package by tag or digest into the store. Of an index the one model in it, else its only
 * manifest.
 * out:  *ret_digest of the manifest
 * err:  those of registry.h and store.h; AT_UNSUPPORTED an index of several that are no models */
enum at_rc at_pkg_pull(struct at_pkg_registry *registry, const char *tag_or_digest,
                       const struct at_pkg_store *store, const struct at_pkg_transfer *transfer,
                       char ret_digest[AT_PKG_DIGEST_BYTES], struct at_err *err) AT_WARN_UNUSED;
/* The manifest alone: what does a tag stand for? Into the store. */
enum at_rc at_pkg_resolve(struct at_pkg_registry *registry, const char *tag_or_digest,
                          struct at_buf *ret_text, char ret_digest[AT_PKG_DIGEST_BYTES],
                          struct at_err *err) AT_WARN_UNUSED;
/* mount_from may be NULL. *ret_sent: blobs that were not there yet. */
enum at_rc at_pkg_push(struct at_pkg_registry *registry, const struct at_pkg_store *store,
                       const char *digest, const char *tag, const char *mount_from,
                       const struct at_pkg_transfer *transfer, size_t *ret_sent,
                       struct at_err *err) AT_WARN_UNUSED;
/* From one store to another; every byte verified. */
enum at_rc at_pkg_copy(const struct at_pkg_store *from, const struct at_pkg_store *to,
                       const char *digest, const atomic_bool *cancel,
                       struct at_err *err) AT_WARN_UNUSED;
/* The descriptor of a manifest of the store, for an index. own: caller decrefs. */
enum at_rc at_pkg_descriptor_of(const struct at_pkg_store *store, const char *digest, json_t **ret,
                                struct at_err *err) AT_WARN_UNUSED;

/* A layout in a tar file. Loading puts its blobs into the store and gives its index; saving writes
 * the packages of these digests, with their names. */
enum at_rc at_pkg_archive_load(const char *path, const struct at_pkg_store *store,
                               const atomic_bool *cancel, struct at_buf *ret_index,
                               struct at_err *err) AT_WARN_UNUSED;
enum at_rc at_pkg_archive_save(const struct at_pkg_store *store, const char *digest,
                               const char *name, const char *path,
                               struct at_err *err) AT_WARN_UNUSED;

/* The blobs of a manifest, config first, each once. own: arena. */
enum at_rc at_pkg_blobs_of(const struct at_pkg_manifest *manifest, struct at_arena *arena,
                           const struct at_pkg_descriptor ***ret, size_t *ret_n,
                           struct at_err *err) AT_WARN_UNUSED;

#endif
