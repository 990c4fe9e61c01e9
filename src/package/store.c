#include "package/store.h"

#include "core/digest.h"
#include "core/mem.h"
#include "core/str.h"
#include "package/store_priv.h"
#include "sys/entry.h"
#include "sys/fd.h"
#include "sys/file.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define LAYOUT_TEXT "{\"imageLayoutVersion\":\"1.0.0\"}"
#define INDEX_EMPTY "{\"schemaVersion\":2,\"mediaType\":\"" AT_PKG_TYPE_INDEX "\",\"manifests\":[]}"

static void cleanup_fd(int *fd)
{
    at_fd_close(*fd);
}

static struct at_pkg_store *store_new(const char *root, char *blobs_take, char *parts_take)
{
    struct at_pkg_store *s = AT_NEW(struct at_pkg_store);
    s->root = at_strdup(root);
    s->blobs = blobs_take;
    s->parts = parts_take;
    return s;
}

void at_pkg_store_free(struct at_pkg_store *store)
{
    if (store != NULL) {
        at_free(store->root);
        at_free(store->blobs);
        at_free(store->parts);
        at_free(store);
    }
}

const char *at_pkg_store_root(const struct at_pkg_store *store)
{
    return store->root;
}

static enum at_rc folders(const struct at_pkg_store *s, struct at_err *err)
{
    enum at_rc rc = at_dir_make(s->blobs, 0755, err);
    return rc != AT_OK ? rc : at_dir_make(s->parts, 0700, err);
}

static enum at_rc layout_make(const struct at_pkg_store *s, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *marker = at_asprintf("%s/oci-layout", s->root);
    AT_CLEANUP(at_cleanup_free) char *index = at_asprintf("%s/index.json", s->root);
    enum at_rc rc = folders(s, err);
    if (rc == AT_OK && !at_file_exists(index)) {
        rc = at_file_write_atomic(index, INDEX_EMPTY, strlen(INDEX_EMPTY), 0644, err);
    }
    if (rc == AT_OK && !at_file_exists(marker)) {
        rc = at_file_write_atomic(marker, LAYOUT_TEXT, strlen(LAYOUT_TEXT), 0644, err);
    }
    return rc;
}

static enum at_rc layout_check(const struct at_pkg_store *s, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *marker = at_asprintf("%s/oci-layout", s->root);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    AT_CLEANUP(at_cleanup_json) json_t *json = NULL;
    enum at_rc rc = at_file_read(marker, 4096, &text, err);
    if (rc == AT_NOT_FOUND) {
        return at_err_set(err, rc, "%s is no OCI image layout: it has no file oci-layout", s->root);
    }
    if (rc == AT_OK && at_json_parse(text.data, text.len, &json, err) != AT_OK) {
        json = NULL;
    }
    const char *version = json_string_value(json_object_get(json, "imageLayoutVersion"));
    if (rc == AT_OK && (version == NULL || strncmp(version, "1.", 2) != 0)) {
        rc = at_err_set(err, AT_CORRUPT, "%s is no OCI image layout of version 1", s->root);
    }
    return rc;
}

enum at_rc at_pkg_store_open(const char *root, bool create, struct at_pkg_store **ret,
                             struct at_err *err)
{
    struct at_pkg_store *s =
        store_new(root, at_asprintf("%s/blobs/sha256", root), at_asprintf("%s/.parts", root));
    AT_CLEANUP(at_cleanup_free) char *marker = at_asprintf("%s/oci-layout", root);
    enum at_rc rc = create && !at_file_exists(marker) ? layout_make(s, err) : layout_check(s, err);
    if (rc != AT_OK) {
        at_pkg_store_free(s);
        return rc;
    }
    *ret = s;
    return AT_OK;
}

enum at_rc at_pkg_store_open_blobs(const char *blobs, const char *parts, struct at_pkg_store **ret,
                                   struct at_err *err)
{
    struct at_pkg_store *s = store_new(blobs, at_strdup(blobs), at_strdup(parts));
    enum at_rc rc = folders(s, err);
    if (rc != AT_OK) {
        at_pkg_store_free(s);
        return rc;
    }
    *ret = s;
    return AT_OK;
}

char *at_pkg_store_path(const struct at_pkg_store *store, const char *digest)
{
    assert(at_pkg_digest_is(digest, strlen(digest)));
    return at_asprintf("%s/%s", store->blobs, digest + strlen("sha256:"));
}

bool at_pkg_store_has(const struct at_pkg_store *store, const char *digest, int64_t bytes)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_pkg_store_path(store, digest);
    struct at_entry e;
    return at_entry_look(path, &e, NULL) == AT_OK && e.kind == AT_ENTRY_FILE &&
           (bytes < 0 || e.bytes == bytes);
}

enum at_rc at_pkg_store_read(const struct at_pkg_store *store, const char *digest, size_t max_bytes,
                             struct at_buf *out, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_pkg_store_path(store, digest);
    AT_CLEANUP(cleanup_fd) int fd = -1;
    int64_t bytes = 0;
    char hex[AT_SHA256_HEX_BYTES];
    enum at_rc rc = at_entry_open(path, &fd, &bytes, err);
    if (rc == AT_NOT_FOUND) {
        return at_err_set(err, rc, "%s is not in %s", digest, store->root);
    }
    if (rc == AT_OK && bytes > (int64_t)max_bytes) {
        rc = at_err_set(err, AT_TOO_LARGE, "%s is larger than %zu bytes", digest, max_bytes);
    }
    size_t before = out->len;
    rc = rc != AT_OK ? rc : at_file_read(path, max_bytes, out, err);
    if (rc == AT_OK) {
        at_sha256_hex(out->data != NULL ? out->data + before : "", out->len - before, hex);
        if (strcmp(hex, digest + strlen("sha256:")) != 0) {
            rc = at_err_set(err, AT_CORRUPT, "%s has the digest sha256:%s: it is damaged", path,
                            hex);
        }
    }
    return rc;
}

enum at_rc at_pkg_store_put(const struct at_pkg_store *store, const void *data, size_t len,
                            char ret_digest[AT_PKG_DIGEST_BYTES], struct at_err *err)
{
    char hex[AT_SHA256_HEX_BYTES];
    at_sha256_hex(data, len, hex);
    snprintf(ret_digest, AT_PKG_DIGEST_BYTES, "sha256:%s", hex);
    if (at_pkg_store_has(store, ret_digest, (int64_t)len)) {
        return AT_OK;
    }
    AT_CLEANUP(at_cleanup_free) char *path = at_pkg_store_path(store, ret_digest);
    return at_file_write_atomic(path, data, len, 0644, err);
}

enum at_rc at_pkg_hash_fd(int fd, int64_t from, int64_t bytes, struct at_sha256_stream *sha,
                          struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *buf = at_alloc(PKG_COPY_BYTES);
    int64_t at = from;
    while (at < bytes) {
        size_t n = 0;
        int64_t left = bytes - at;
        size_t want = left < PKG_COPY_BYTES ? (size_t)left : PKG_COPY_BYTES;
        enum at_rc rc = at_entry_read_at(fd, at, buf, want, &n, err);
        if (rc == AT_OK && n == 0) {
            rc = at_err_set(err, AT_CORRUPT, "a file became shorter while it was read");
        }
        if (rc != AT_OK) {
            return rc;
        }
        at_sha256_stream_update(sha, buf, n);
        at += (int64_t)n;
    }
    return AT_OK;
}

/* Hash what is copied: the file may change meanwhile, and the digest must be of the copy. */
static enum at_rc copy_hashed(int from, int64_t bytes, int to, char hex[AT_SHA256_HEX_BYTES],
                              struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *buf = at_alloc(PKG_COPY_BYTES);
    struct at_sha256_stream *sha = at_sha256_stream_new();
    enum at_rc rc = AT_OK;
    int64_t at = 0;
    while (rc == AT_OK && at < bytes) {
        size_t n = 0;
        int64_t left = bytes - at;
        rc = at_entry_read_at(from, at, buf, left < PKG_COPY_BYTES ? (size_t)left : PKG_COPY_BYTES,
                              &n, err);
        if (rc == AT_OK && n == 0) {
            rc = at_err_set(err, AT_CONFLICT, "it became shorter while it was read");
        }
        rc = rc != AT_OK ? rc : at_entry_write(to, buf, n, err);
        at_sha256_stream_update(sha, buf, n);
        at += (int64_t)n;
    }
    at_sha256_stream_hex(sha, hex);
    at_sha256_stream_free(sha);
    return rc;
}

enum at_rc at_pkg_store_put_file(const struct at_pkg_store *store, const char *path,
                                 char ret_digest[AT_PKG_DIGEST_BYTES], int64_t *ret_bytes,
                                 struct at_err *err)
{
    AT_CLEANUP(cleanup_fd) int from = -1;
    AT_CLEANUP(cleanup_fd) int to = -1;
    char hex[AT_SHA256_HEX_BYTES];
    int64_t bytes = 0, have = 0;
    at_sha256_hex(path, strlen(path), hex);
    /* One name per source: a second packing of it waits. */
    AT_CLEANUP(at_cleanup_free) char *part = at_asprintf("%s/in-%s", store->parts, hex);
    enum at_rc rc = at_entry_open(path, &from, &bytes, err);
    rc = rc != AT_OK ? rc : at_dir_make(store->parts, 0700, err);
    rc = rc != AT_OK ? rc : at_entry_open_locked(part, 0644, NULL, &to, &have, err);
    rc = rc != AT_OK ? rc : at_entry_cut(to, 0, err);
    rc = rc != AT_OK ? rc : copy_hashed(from, bytes, to, hex, err);
    if (rc == AT_OK) {
        snprintf(ret_digest, AT_PKG_DIGEST_BYTES, "sha256:%s", hex);
        *ret_bytes = bytes;
        AT_CLEANUP(at_cleanup_free) char *target = at_pkg_store_path(store, ret_digest);
        rc = at_file_replace(part, target, err);
    }
    if (rc != AT_OK) {
        enum at_rc ignored = at_file_remove(part, NULL);
        (void)ignored;
        return at_err_wrap(err, rc, "%s", path);
    }
    return AT_OK;
}

/* --- parts --- */

static char *part_path(const struct at_pkg_store *store, const char *digest)
{
    return at_asprintf("%s/%s", store->parts, digest + strlen("sha256:"));
}

enum at_rc at_pkg_store_part(const struct at_pkg_store *store, const char *digest, int64_t bytes,
                             const atomic_bool *stop, int *ret_fd, int64_t *ret_have,
                             struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *part = part_path(store, digest);
    int fd = -1;
    *ret_fd = -1;
    *ret_have = bytes;
    if (at_pkg_store_has(store, digest, bytes)) {
        return AT_OK;
    }
    enum at_rc rc = at_dir_make(store->parts, 0700, err);
    rc = rc != AT_OK ? rc : at_entry_open_locked(part, 0644, stop, &fd, ret_have, err);
    if (rc != AT_OK) {
        return rc;
    }
    if (at_pkg_store_has(store, digest, bytes)) { /* somebody else was at it */
        enum at_rc ignored = at_file_remove(part, NULL);
        (void)ignored;
        at_fd_close(fd);
        *ret_have = bytes;
        return AT_OK;
    }
    if (bytes >= 0 && *ret_have > bytes) {
        rc = at_entry_cut(fd, 0, err);
        *ret_have = 0;
    }
    if (rc != AT_OK) {
        at_fd_close(fd);
        return rc;
    }
    *ret_fd = fd;
    return AT_OK;
}

enum at_rc at_pkg_store_part_keep(const struct at_pkg_store *store, const char *digest,
                                  int64_t bytes, int fd, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *part = part_path(store, digest);
    AT_CLEANUP(at_cleanup_free) char *target = at_pkg_store_path(store, digest);
    char hex[AT_SHA256_HEX_BYTES];
    struct at_sha256_stream *sha = at_sha256_stream_new();
    enum at_rc rc = at_pkg_hash_fd(fd, 0, bytes, sha, err);
    at_sha256_stream_hex(sha, hex);
    at_sha256_stream_free(sha);
    if (rc == AT_OK && strcmp(hex, digest + strlen("sha256:")) != 0) {
        rc = at_err_set(err, AT_CORRUPT, "what came has the digest sha256:%s, %s is wanted", hex,
                        digest);
    }
    if (rc == AT_CORRUPT) {
        enum at_rc ignored = at_entry_cut(fd, 0, NULL);
        (void)ignored;
        return rc;
    }
    return rc != AT_OK ? rc : at_file_replace(part, target, err);
}

void at_pkg_store_part_done(int fd)
{
    at_fd_close(fd);
}

void at_pkg_store_sweep(const struct at_pkg_store *store, int64_t older_than_wall_ns)
{
    char **names = NULL;
    size_t n = 0;
    if (at_dir_list(store->parts, &names, &n, NULL) != AT_OK) {
        return;
    }
    for (size_t i = 0; i < n; i++) {
        AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/%s", store->parts, names[i]);
        struct at_entry e;
        if (strstr(names[i], ".lock") == NULL && at_entry_look(path, &e, NULL) == AT_OK &&
            e.kind == AT_ENTRY_FILE && e.changed_wall_ns < older_than_wall_ns) {
            enum at_rc ignored = at_file_remove(path, NULL);
            (void)ignored;
        }
        at_free(names[i]);
    }
    at_free(names);
}
