/* Tar archives (POSIX.1-2001: ustar and pax; GNU's long names are read). The reader is a machine
 * without I/O and takes folders and regular files only: what is a link, a device or a pipe, or
 * whose path leaves the folder, ends it with an error before anything of it is shown. */
#ifndef AT_PACKAGE_TAR_H
#define AT_PACKAGE_TAR_H

#include "core/buf.h"

struct at_tar_entry {
    const char *path; /* safe: at_pkg_path_is_safe; "." never comes */
    int64_t bytes;
    bool is_folder;
    bool executable;
};

struct at_tar_events {
    void *ctx;
    /* An entry begins. An error ends the reading. */
    enum at_rc (*on_entry)(void *ctx, const struct at_tar_entry *entry, struct at_err *err);
    enum at_rc (*on_data)(void *ctx, const char *data, size_t len, struct at_err *err);
    enum at_rc (*on_entry_end)(void *ctx, struct at_err *err);
};

struct at_tar_reader;
/* bytes_max: of all files together. own: at_tar_reader_free. */
struct at_tar_reader *at_tar_reader_new(const struct at_tar_events *events, int64_t bytes_max);
void at_tar_reader_free(struct at_tar_reader *reader);
/* err: AT_CORRUPT no tar; AT_FORBIDDEN an entry that is not allowed; AT_TOO_LARGE; those of the
 * events. After an error it takes nothing more. */
enum at_rc at_tar_reader_feed(struct at_tar_reader *reader, const char *data, size_t len,
                              struct at_err *err) AT_WARN_UNUSED;
/* All was fed. err: AT_CORRUPT it is cut off. */
enum at_rc at_tar_reader_end(struct at_tar_reader *reader, struct at_err *err) AT_WARN_UNUSED;

/* What stands before the bytes of a file (or instead, of a folder), appended to out: owner 0, time
 * 0, so that equal folders make equal archives. Long names and sizes by a pax header. */
enum at_rc at_tar_head(const char *path, int64_t bytes, bool is_folder, unsigned mode,
                       struct at_buf *out) AT_WARN_UNUSED;
size_t at_tar_padding(int64_t bytes); /* zeros after a file's bytes */
#define AT_TAR_BLOCK 512
#define AT_TAR_END_BYTES 1024 /* zeros at the end */

#endif
