/* One repository of a registry, by the OCI distribution specification 1.1. The repository is shared
 * by threads; each thread has a session of its own. Blocking. */
#ifndef AT_PACKAGE_REGISTRY_H
#define AT_PACKAGE_REGISTRY_H

#include "package/auth.h"
#include "package/http.h"
#include "package/oci.h"
#include "package/store.h"

struct at_pkg_registry;
struct at_pkg_session;

struct at_pkg_registry_options {
    const char *host, *repository;
    const struct at_pkg_credentials *credentials; /* borrowed; NULL: none */
    /* Without TLS. Loopback addresses are asked so too when they do not speak TLS. */
    bool plain_http;
    bool push; /* ask for the right to write */
    struct at_pkg_http_options http;
    int64_t chunk_bytes; /* uploads above this go in pieces; 0: PKG_CHUNK_BYTES */
    void *ctx;
    void (*on_bytes)(void *ctx, int64_t more); /* of blobs, both ways; any session's thread.
                                                  Negative: what was told did not count */
};

/* Asks for /v2/, so that what is wrong shows early.
 * err: AT_UNAVAILABLE it cannot be reached; AT_TIMEOUT; AT_UNAUTHENTICATED; AT_UPSTREAM no
 * registry. own: at_pkg_registry_free, after its sessions. */
enum at_rc at_pkg_registry_open(struct at_pkg_curl *curl,
                                const struct at_pkg_registry_options *options,
                                struct at_pkg_registry **ret, struct at_err *err) AT_WARN_UNUSED;
void at_pkg_registry_free(struct at_pkg_registry *registry); /* accepts NULL */
struct at_pkg_session *at_pkg_session_new(struct at_pkg_registry *registry);
void at_pkg_session_free(struct at_pkg_session *session); /* accepts NULL */

/* A manifest or index by tag or digest, its digest checked.
 * err: AT_NOT_FOUND; AT_CORRUPT it is not what was asked for; AT_FORBIDDEN, AT_UNAUTHENTICATED. */
enum at_rc at_pkg_manifest_get(struct at_pkg_session *session, const char *tag_or_digest,
                               struct at_buf *out, char ret_digest[AT_PKG_DIGEST_BYTES],
                               struct at_err *err) AT_WARN_UNUSED;
enum at_rc at_pkg_manifest_put(struct at_pkg_session *session, const char *tag_or_digest,
                               const char *media_type, const void *text, size_t len,
                               struct at_err *err) AT_WARN_UNUSED;
/* Into the store, going on where an earlier attempt of whoever ended. err besides: AT_CORRUPT the
 * registry sends something else, or of another length. */
enum at_rc at_pkg_blob_get(struct at_pkg_session *session, const struct at_pkg_descriptor *blob,
                           const struct at_pkg_store *store, struct at_err *err) AT_WARN_UNUSED;
/* From the store, if it is not there. mount_from: another repository of the registry that has it;
 * may be NULL. *ret_sent false: it was there, or was mounted. */
enum at_rc at_pkg_blob_put(struct at_pkg_session *session, const struct at_pkg_descriptor *blob,
                           const struct at_pkg_store *store, const char *mount_from, bool *ret_sent,
                           struct at_err *err) AT_WARN_UNUSED;

#endif
