#include "gateway/sse_end.h"

#include "core/json.h"

#include <string.h>

/* Does a blank line end at end? Lines end with LF, CRLF or CR. */
static bool ends_event(const char *data, size_t end)
{
    char last = data[end - 1];
    if (last != '\n' && last != '\r') {
        return false;
    }
    size_t line = end - 1; /* where the blank line's own end begins */
    if (last == '\n' && line > 0 && data[line - 1] == '\r') {
        line--;
    }
    return line > 0 && (data[line - 1] == '\n' || (data[line - 1] == '\r' && last != '\n') ||
                        (data[line - 1] == '\r' && line < end - 1));
}

static bool is_comments(const char *data, size_t len)
{
    const char *at = data, *end = data + len;
    while (at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        if (*at != ':' || newline == NULL) {
            return false;
        }
        at = newline + 1;
    }
    return true;
}

size_t gw_sse_whole(struct at_str data, size_t seen)
{
    size_t end = data.len;
    while (end > seen && !ends_event(data.ptr, end)) {
        end--;
    }
    end = end > seen ? end : 0;
    bool line_ends =
        end < data.len && data.ptr[data.len - 1] == '\n'; /* else not looked at again */
    return line_ends && is_comments(data.ptr + end, data.len - end) ? data.len : end;
}

enum at_rc gw_sse_error(const char *message, struct at_buf *out)
{
    static const char BEFORE[] = "event: error\ndata: {\"error\":{\"message\":";
    static const char AFTER[] =
        ",\"type\":\"server_error\",\"param\":null,\"code\":\"replica_lost\"}}\n\n";
    enum at_rc rc = at_buf_append_str(out, BEFORE);
    rc = rc == AT_OK ? at_json_dump_text(message, strlen(message), out) : rc;
    return rc == AT_OK ? at_buf_append_str(out, AFTER) : rc;
}
