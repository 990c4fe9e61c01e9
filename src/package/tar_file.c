#include "package/tar_file.h"

#include "core/mem.h"
#include "package/limits.h"
#include "sys/entry.h"

static enum at_rc head(struct at_file_writer *w, const char *path, int64_t bytes, unsigned mode,
                       struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf buf = {0};
    enum at_rc rc = at_tar_head(path, bytes, false, mode, &buf);
    return rc != AT_OK ? rc : at_file_writer_write(w, buf.data, buf.len, err);
}

static enum at_rc padding(struct at_file_writer *w, int64_t bytes, struct at_err *err)
{
    static const char ZEROS[AT_TAR_BLOCK];
    return at_file_writer_write(w, ZEROS, at_tar_padding(bytes), err);
}

enum at_rc at_tar_file_text(struct at_file_writer *w, const char *path, const void *data,
                            size_t len, struct at_err *err)
{
    enum at_rc rc = head(w, path, (int64_t)len, 0644, err);
    rc = rc != AT_OK ? rc : at_file_writer_write(w, data, len, err);
    return rc != AT_OK ? rc : padding(w, (int64_t)len, err);
}

enum at_rc at_tar_file_copy(struct at_file_writer *w, const char *path, int fd, int64_t bytes,
                            unsigned mode, const char *from, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *buf = at_alloc(PKG_COPY_BYTES);
    int64_t at = 0;
    enum at_rc rc = head(w, path, bytes, mode, err);
    while (rc == AT_OK && at < bytes) {
        size_t n = 0;
        int64_t left = bytes - at;
        size_t want = left < PKG_COPY_BYTES ? (size_t)left : PKG_COPY_BYTES;
        rc = at_entry_read_at(fd, at, buf, want, &n, err);
        if (rc == AT_OK && n == 0) {
            rc = at_err_set(err, AT_CORRUPT, "%s became shorter while it was read", from);
        }
        rc = rc != AT_OK ? rc : at_file_writer_write(w, buf, n, err);
        at += (int64_t)n;
    }
    return rc != AT_OK ? rc : padding(w, bytes, err);
}
