#include "package/describe.h"

#include "core/str.h"
#include "sys/entry.h"

#include <string.h>

static enum at_rc cut_off(struct at_err *err)
{
    return at_err_set(err, AT_CORRUPT, "the model file is cut off");
}

enum at_rc at_pkg_source_read(struct at_pkg_source *s, int64_t offset, void *out, size_t len,
                              struct at_err *err)
{
    if (offset < 0 || (int64_t)len > s->bytes || offset > s->bytes - (int64_t)len) {
        return cut_off(err);
    }
    if (s->data != NULL) {
        memcpy(out, s->data + offset, len);
        return AT_OK;
    }
    char *to = out;
    while (len > 0) {
        if (offset < s->window_at || offset >= s->window_at + (int64_t)s->window_len) {
            enum at_rc rc =
                at_entry_read_at(s->fd, offset, s->window, sizeof s->window, &s->window_len, err);
            if (rc != AT_OK) {
                s->window_len = 0;
                return rc;
            }
            s->window_at = offset;
            if (s->window_len == 0) {
                return cut_off(err);
            }
        }
        size_t from = (size_t)(offset - s->window_at);
        size_t n = s->window_len - from < len ? s->window_len - from : len;
        memcpy(to, s->window + from, n);
        to += n;
        offset += (int64_t)n;
        len -= n;
    }
    return AT_OK;
}

const char *at_pkg_format_of(const char *path, struct at_pkg_source *source)
{
    char magic[4];
    size_t n = strlen(path);
    if (at_pkg_source_read(source, 0, magic, sizeof magic, NULL) == AT_OK &&
        memcmp(magic, "GGUF", 4) == 0) {
        return "gguf";
    }
    if (n > 5 && strcmp(path + n - 5, ".gguf") == 0) {
        return "gguf";
    }
    return n > 5 && strcmp(path + n - 5, ".onnx") == 0 ? "onnx" : "other";
}
