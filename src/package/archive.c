/* OCI image layouts in tar files, read and written in one pass. */
#include "core/mem.h"
#include "package/tar_file.h"
#include "package/transfer.h"
#include "sys/entry.h"
#include "sys/fd.h"
#include "sys/file.h"

#include <stdio.h>
#include <string.h>

#define BLOBS "blobs/sha256/"

/* --- loading --- */

struct loading {
    const struct at_pkg_store *store;
    const atomic_bool *cancel;
    struct at_buf *index;
    enum { SKIPPING, INTO_INDEX, INTO_BLOB } into;
    char digest[AT_PKG_DIGEST_BYTES];
    int64_t bytes, have; /* of the blob; have: by an earlier attempt, passed over */
    int fd;
};

static enum at_rc on_entry(void *ctx, const struct at_tar_entry *e, struct at_err *err)
{
    struct loading *l = ctx;
    l->into = SKIPPING;
    if (e->is_folder) {
        return AT_OK;
    }
    if (strcmp(e->path, "index.json") == 0) {
        at_buf_clear(l->index);
        l->into = INTO_INDEX;
        return AT_OK;
    }
    snprintf(l->digest, sizeof l->digest, "sha256:%.64s",
             strncmp(e->path, BLOBS, strlen(BLOBS)) == 0 ? e->path + strlen(BLOBS) : "");
    if (strlen(e->path) != strlen(BLOBS) + 64 || !at_pkg_digest_is(l->digest, strlen(l->digest))) {
        return AT_OK;
    }
    l->bytes = e->bytes;
    enum at_rc rc =
        at_pkg_store_part(l->store, l->digest, e->bytes, l->cancel, &l->fd, &l->have, err);
    if (rc == AT_OK && l->fd >= 0) {
        rc = at_entry_cut(l->fd, 0, err);
        l->into = INTO_BLOB;
    }
    return rc;
}

static enum at_rc on_data(void *ctx, const char *data, size_t len, struct at_err *err)
{
    struct loading *l = ctx;
    if (l->cancel != NULL && atomic_load(l->cancel)) {
        return at_err_set(err, AT_CANCELLED, "stopped");
    }
    if (l->into == INTO_INDEX && at_buf_append(l->index, data, len) != AT_OK) {
        return at_err_set(err, AT_TOO_LARGE, "its index is too large");
    }
    return l->into == INTO_BLOB ? at_entry_write(l->fd, data, len, err) : AT_OK;
}

static enum at_rc on_entry_end(void *ctx, struct at_err *err)
{
    struct loading *l = ctx;
    enum at_rc rc = AT_OK;
    if (l->into == INTO_BLOB) {
        rc = at_pkg_store_part_keep(l->store, l->digest, l->bytes, l->fd, err);
        at_pkg_store_part_done(l->fd);
        l->fd = -1;
    }
    l->into = SKIPPING;
    return rc;
}

enum at_rc at_pkg_archive_load(const char *path, const struct at_pkg_store *store,
                               const atomic_bool *cancel, struct at_buf *ret_index,
                               struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *buf = at_alloc(PKG_COPY_BYTES);
    struct loading l = {.store = store, .cancel = cancel, .index = ret_index, .fd = -1};
    const struct at_tar_events events = {
        .ctx = &l, .on_entry = on_entry, .on_data = on_data, .on_entry_end = on_entry_end};
    struct at_tar_reader *tar = at_tar_reader_new(&events, PKG_UNPACKED_BYTES_MAX);
    int fd = -1;
    int64_t bytes = 0, at = 0;
    enum at_rc rc = at_entry_open(path, &fd, &bytes, err);
    while (rc == AT_OK && at < bytes) {
        size_t n = 0;
        rc = at_entry_read_at(fd, at, buf, PKG_COPY_BYTES, &n, err);
        if (n == 0) {
            break;
        }
        rc = rc != AT_OK ? rc : at_tar_reader_feed(tar, buf, n, err);
        at += (int64_t)n;
    }
    rc = rc != AT_OK ? rc : at_tar_reader_end(tar, err);
    if (rc == AT_OK && ret_index->len == 0) {
        rc = at_err_set(err, AT_CORRUPT, "it has no index.json: it is no OCI image layout");
    }
    at_pkg_store_part_done(l.fd);
    at_tar_reader_free(tar);
    at_fd_close(fd);
    return rc != AT_OK ? at_err_wrap(err, rc, "%s", path) : AT_OK;
}

/* --- saving --- */

static enum at_rc save_blob(struct at_file_writer *w, const struct at_pkg_store *store,
                            const struct at_pkg_descriptor *blob, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_pkg_store_path(store, blob->digest);
    AT_CLEANUP(at_cleanup_free) char *name = at_asprintf(BLOBS "%s", blob->digest + 7);
    int fd = -1;
    int64_t bytes = 0;
    enum at_rc rc = at_entry_open(path, &fd, &bytes, err);
    if (rc == AT_OK && bytes != blob->bytes) {
        rc = at_err_set(err, AT_CORRUPT, "%s is damaged", path);
    }
    rc = rc != AT_OK ? rc : at_tar_file_copy(w, name, fd, bytes, 0644, path, err);
    at_fd_close(fd);
    return rc;
}

static enum at_rc save_index(struct at_file_writer *w, const struct at_pkg_store *store,
                             const char *digest, const char *name, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *index = NULL;
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    json_t *entry = NULL;
    enum at_rc rc = at_pkg_descriptor_of(store, digest, &entry, err);
    if (rc != AT_OK) {
        return rc;
    }
    json_object_set_new(entry, "annotations", json_pack("{s:s}", AT_PKG_NOTE_NAME, name));
    index = json_pack("{s:i,s:s,s:[o]}", "schemaVersion", 2, "mediaType", AT_PKG_TYPE_INDEX,
                      "manifests", entry);
    rc = at_json_dump(index, &text);
    return rc != AT_OK ? at_err_set(err, rc, "the index is too large")
                       : at_tar_file_text(w, "index.json", text.data, text.len, err);
}

enum at_rc at_pkg_archive_save(const struct at_pkg_store *store, const char *digest,
                               const char *name, const char *path, struct at_err *err)
{
    static const char LAYOUT[] = "{\"imageLayoutVersion\":\"1.0.0\"}";
    static const char END[AT_TAR_END_BYTES];
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {.max = PKG_DOCUMENT_BYTES_MAX};
    struct at_pkg_manifest m = {0};
    const struct at_pkg_descriptor **blobs = NULL;
    size_t n = 0;
    struct at_file_writer *w = NULL;
    enum at_rc rc = at_pkg_store_read(store, digest, PKG_DOCUMENT_BYTES_MAX, &text, err);
    rc = rc != AT_OK ? rc : at_pkg_manifest_parse(text.data, text.len, arena, &m, err);
    rc = rc != AT_OK ? rc : at_pkg_blobs_of(&m, arena, &blobs, &n, err);
    rc = rc != AT_OK ? rc : at_file_writer_new(path, 0644, &w, err);
    rc = rc != AT_OK ? rc : at_tar_file_text(w, "oci-layout", LAYOUT, strlen(LAYOUT), err);
    rc = rc != AT_OK ? rc : save_index(w, store, digest, name, err);
    if (rc == AT_OK) {
        AT_CLEANUP(at_cleanup_free) char *own = at_asprintf(BLOBS "%s", digest + 7);
        rc = at_tar_file_text(w, own, text.data, text.len, err);
    }
    for (size_t i = 0; i < n && rc == AT_OK; i++) {
        rc = save_blob(w, store, blobs[i], err);
    }
    rc = rc != AT_OK ? rc : at_file_writer_write(w, END, sizeof END, err);
    rc = rc != AT_OK ? rc : at_file_writer_commit(w, err);
    at_file_writer_free(w);
    at_pkg_manifest_done(&m);
    return rc;
}
