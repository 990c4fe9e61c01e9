/* Is a file a GGUF model that is all there? Looked at before libllama sees it, so that what is cut
 * off, damaged or something else ends with one sentence. Pure, but for the last function. */
#ifndef AT_RUNNERS_GGUF_H
#define AT_RUNNERS_GGUF_H

#include "core/err.h"

/* head: the file's first bytes, as many as len; file_bytes: its size.
 * err:  AT_CORRUPT says what is wrong | AT_TOO_LARGE the description of the model goes on past
 * head. */
enum at_rc at_gguf_check(const void *head, size_t len, int64_t file_bytes,
                         struct at_err *err) AT_WARN_UNUSED;
/* err besides: those of at_file_read_at. A description over AT_GGUF_HEAD_BYTES_MAX passes
 * unchecked. */
enum at_rc at_gguf_check_file(const char *path, struct at_err *err) AT_WARN_UNUSED;

#endif
