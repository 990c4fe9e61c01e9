/* The files of a package into a new folder. It is filled under another name, so that it is there
 * whole or not at all; nothing in it is a link to elsewhere, so no path can lead out of it. */
#include "core/mem.h"
#include "core/str.h"
#include "package/model.h"
#include "package/tar.h"
#include "sys/entry.h"
#include "sys/fd.h"
#include "sys/file.h"
#include "sys/sys.h"

#include <stdio.h>
#include <string.h>
#include <zlib.h>

#define GZIP_MAGIC 0x1f /* the first byte of a member */

struct unpacking {
    const struct at_pkg_store *store;
    const char *folder; /* under its other name */
    bool links;
    int fd;
    size_t files;
};

static enum at_rc parents(const char *path, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *copy = at_strdup(path);
    char *slash = strrchr(copy, '/');
    if (slash == NULL || slash == copy) {
        return AT_OK;
    }
    *slash = '\0';
    return at_dir_make(copy, 0755, err);
}

/* A place in the folder for one file. own: caller at_free. */
static enum at_rc place(struct unpacking *u, const char *path, char **ret, struct at_err *err)
{
    char why[64];
    struct at_entry e;
    if (path == NULL || !at_pkg_path_is_safe(path, why, sizeof why)) {
        return at_err_set(err, AT_FORBIDDEN, "the package has the path %.200s: %s",
                          path != NULL ? path : "(none)", path != NULL ? why : "it has no name");
    }
    if (++u->files > PKG_TAR_ENTRIES_MAX) {
        return at_err_set(err, AT_TOO_LARGE, "the package has too many files");
    }
    char *whole = at_asprintf("%s/%s", u->folder, path);
    enum at_rc rc = parents(whole, err);
    rc = rc != AT_OK ? rc : at_entry_look(whole, &e, err);
    if (rc == AT_OK && e.kind != AT_ENTRY_ABSENT) {
        rc = at_err_set(err, AT_CORRUPT, "the package has the path %s twice", path);
    }
    if (rc != AT_OK) {
        at_free(whole);
        return rc;
    }
    *ret = whole;
    return AT_OK;
}

static enum at_rc raw(struct unpacking *u, const struct at_pkg_descriptor *layer,
                      struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *from = at_pkg_store_path(u->store, layer->digest);
    AT_CLEANUP(at_cleanup_free) char *to = NULL;
    enum at_rc rc = place(u, at_pkg_layer_path(layer), &to, err);
    if (rc != AT_OK) {
        return rc;
    }
    if (!at_pkg_store_has(u->store, layer->digest, layer->bytes)) {
        return at_err_set(err, AT_NOT_FOUND, "%s is not there, or not whole", from);
    }
    rc = u->links ? at_entry_link(from, to, err) : AT_UNSUPPORTED;
    return rc == AT_UNSUPPORTED ? at_file_copy(from, to, 0644, err) : rc;
}

/* --- archives --- */

static enum at_rc on_entry(void *ctx, const struct at_tar_entry *e, struct at_err *err)
{
    struct unpacking *u = ctx;
    AT_CLEANUP(at_cleanup_free) char *to = NULL;
    if (e->is_folder) {
        AT_CLEANUP(at_cleanup_free) char *dir = at_asprintf("%s/%s", u->folder, e->path);
        return at_dir_make(dir, 0755, err);
    }
    enum at_rc rc = place(u, e->path, &to, err);
    return rc != AT_OK ? rc : at_file_open_append(to, e->executable ? 0755 : 0644, &u->fd, err);
}

static enum at_rc on_data(void *ctx, const char *data, size_t len, struct at_err *err)
{
    struct unpacking *u = ctx;
    return at_entry_write(u->fd, data, len, err);
}

static enum at_rc on_entry_end(void *ctx, struct at_err *err)
{
    struct unpacking *u = ctx;
    (void)err;
    at_fd_close(u->fd);
    u->fd = -1;
    return AT_OK;
}

/* Feeds all of the file, unpacked where it is gzip, to most bytes: headers, padding and what stands
 * behind the end count too. */
static enum at_rc feed(struct at_tar_reader *tar, int fd, int64_t bytes, bool gzip, int64_t most,
                       struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *in = at_alloc(PKG_COPY_BYTES);
    AT_CLEANUP(at_cleanup_free) char *out = at_alloc(PKG_COPY_BYTES);
    z_stream z = {0};
    enum at_rc rc = AT_OK;
    bool ended = false;
    if (gzip && inflateInit2(&z, 16 + MAX_WBITS) != Z_OK) {
        return at_err_set(err, AT_NOMEM, "no memory for unpacking");
    }
    for (int64_t at = 0; at < bytes && rc == AT_OK;) {
        size_t n = 0;
        rc = at_entry_read_at(fd, at, in, PKG_COPY_BYTES, &n, err);
        at += (int64_t)n;
        if (rc != AT_OK || n == 0) {
            break;
        }
        if (!gzip) {
            rc = at_tar_reader_feed(tar, in, n, err);
            continue;
        }
        z.next_in = (unsigned char *)in;
        z.avail_in = (unsigned)n;
        int state = Z_OK;
        do {
            z.next_out = (unsigned char *)out;
            z.avail_out = PKG_COPY_BYTES;
            /* One member after another, as gzip files may be joined; zeros may follow. */
            if (ended &&
                (z.avail_in == 0 || *z.next_in != GZIP_MAGIC || inflateReset(&z) != Z_OK)) {
                break;
            }
            ended = false;
            state = inflate(&z, Z_NO_FLUSH);
            if (state != Z_OK && state != Z_STREAM_END && state != Z_BUF_ERROR) {
                rc = at_err_set(err, AT_CORRUPT, "the archive is no gzip, or damaged");
                break;
            }
            most -= PKG_COPY_BYTES - (int64_t)z.avail_out;
            rc = most < 0 ? at_err_set(err, AT_TOO_LARGE, "the archive unpacks to too much")
                          : at_tar_reader_feed(tar, out, PKG_COPY_BYTES - z.avail_out, err);
            ended = state == Z_STREAM_END;
        } while (rc == AT_OK && (z.avail_out == 0 || (ended && z.avail_in > 0)));
    }
    if (gzip) {
        inflateEnd(&z);
        if (rc == AT_OK && !ended) {
            rc = at_err_set(err, AT_CORRUPT, "the archive is cut off");
        }
    }
    return rc;
}

static enum at_rc archive(struct unpacking *u, const struct at_pkg_descriptor *layer, bool gzip,
                          struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *from = at_pkg_store_path(u->store, layer->digest);
    const struct at_tar_events events = {
        .ctx = u, .on_entry = on_entry, .on_data = on_data, .on_entry_end = on_entry_end};
    int64_t most =
        gzip ? layer->bytes * PKG_UNPACKED_RATIO_MAX + PKG_UNPACKED_BYTES_FREE : layer->bytes;
    struct at_tar_reader *tar = at_tar_reader_new(&events, most);
    int fd = -1;
    int64_t bytes = 0;
    enum at_rc rc = at_entry_open(from, &fd, &bytes, err);
    rc = rc != AT_OK ? rc : feed(tar, fd, bytes, gzip, 2 * most, err);
    rc = rc != AT_OK ? rc : at_tar_reader_end(tar, err);
    at_fd_close(u->fd);
    u->fd = -1;
    at_fd_close(fd);
    at_tar_reader_free(tar);
    return rc != AT_OK ? at_err_wrap(err, rc, "layer %s", layer->digest) : AT_OK;
}

static enum at_rc layers(struct unpacking *u, const struct at_pkg_manifest *m, struct at_err *err)
{
    enum at_rc rc = AT_OK;
    for (size_t i = 0; i < m->n_layers && rc == AT_OK; i++) {
        const struct at_pkg_descriptor *layer = &m->layers[i];
        switch (at_pkg_layer_kind(layer)) {
        case AT_PKG_LAYER_RAW:
            rc = raw(u, layer, err);
            break;
        case AT_PKG_LAYER_TAR:
        case AT_PKG_LAYER_TAR_GZIP:
            rc = archive(u, layer, at_pkg_layer_kind(layer) == AT_PKG_LAYER_TAR_GZIP, err);
            break;
        default:
            rc = at_err_set(err, AT_UNSUPPORTED,
                            "the package has a layer of type %.120s, which cannot be unpacked",
                            layer->media_type);
        }
    }
    return rc;
}

enum at_rc at_pkg_unpack(const struct at_pkg_store *store, const char *digest, const char *folder,
                         bool links, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {.max = PKG_DOCUMENT_BYTES_MAX};
    struct at_pkg_manifest m = {0};
    struct at_entry e = {0};
    uint64_t noise = 0;
    at_sys_random(at_sys_real(), &noise, sizeof noise);
    AT_CLEANUP(at_cleanup_free)
    char *temporary = at_asprintf("%s.%016llx.tmp", folder, (unsigned long long)noise);
    enum at_rc rc = at_entry_look(folder, &e, err);
    if (rc == AT_OK && e.kind != AT_ENTRY_ABSENT) {
        return at_err_set(err, AT_EXISTS, "%s is there already", folder);
    }
    rc = rc != AT_OK ? rc : at_pkg_store_read(store, digest, PKG_DOCUMENT_BYTES_MAX, &text, err);
    rc = rc != AT_OK ? rc : at_pkg_manifest_parse(text.data, text.len, arena, &m, err);
    if (rc != AT_OK) {
        return rc;
    }
    struct unpacking u = {.store = store, .folder = temporary, .links = links, .fd = -1};
    rc = at_dir_make(temporary, 0755, err);
    rc = rc != AT_OK ? rc : layers(&u, &m, err);
    rc = rc != AT_OK ? rc : at_file_rename(temporary, folder, err);
    if (rc != AT_OK) {
        enum at_rc ignored = at_tree_remove(temporary, NULL);
        (void)ignored;
    }
    at_pkg_manifest_done(&m);
    return rc;
}
