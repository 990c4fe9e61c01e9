/* Entries of a tar archive that is written to a file. */
#ifndef AT_PACKAGE_TAR_FILE_H
#define AT_PACKAGE_TAR_FILE_H

#include "package/tar.h"
#include "sys/file.h"

enum at_rc at_tar_file_text(struct at_file_writer *w, const char *path, const void *data,
                            size_t len, struct at_err *err) AT_WARN_UNUSED;
/* bytes of fd, from its beginning; from names the file in errors.
 * err: AT_CORRUPT it has become shorter. own: fd stays the caller's. */
enum at_rc at_tar_file_copy(struct at_file_writer *w, const char *path, int fd, int64_t bytes,
                            unsigned mode, const char *from, struct at_err *err) AT_WARN_UNUSED;

#endif
