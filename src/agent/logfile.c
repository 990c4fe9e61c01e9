#include "agent/agent_priv.h"

#include "core/log.h"
#include "sys/file.h"

#include <string.h>

/* JSON carries only UTF-8: any byte that is not part of a valid sequence becomes '?'. */
static void utf8_clean(char *text, size_t len)
{
    for (size_t i = 0; i < len;) {
        unsigned char c = (unsigned char)text[i];
        size_t need = c < 0x80                ? 1
                      : c >= 0xc2 && c < 0xe0 ? 2
                      : c >= 0xe0 && c < 0xf0 ? 3
                      : c >= 0xf0 && c < 0xf5 ? 4
                                              : 0;
        bool good = need != 0 && i + need <= len && c != 0;
        for (size_t k = 1; good && k < need; k++) {
            good = ((unsigned char)text[i + k] & 0xc0) == 0x80;
        }
        unsigned char second = good && need > 1 ? (unsigned char)text[i + 1] : 0x80;
        /* Overlong forms, surrogates, and code points over U+10FFFF. */
        if ((c == 0xe0 && second < 0xa0) || (c == 0xed && second > 0x9f) ||
            (c == 0xf0 && second < 0x90) || (c == 0xf4 && second > 0x8f)) {
            good = false;
        }
        if (!good) {
            text[i] = '?';
            need = 1;
        }
        i += need;
    }
}

/* Where the last n lines of text begin. */
static size_t tail_start(const char *text, size_t len, int64_t lines)
{
    size_t at = len;
    if (lines < 0) {
        return 0;
    }
    if (at > 0 && text[at - 1] == '\n') {
        at--;
    }
    for (int64_t seen = 0; at > 0; at--) {
        if (text[at - 1] == '\n' && ++seen == lines) {
            break;
        }
    }
    return lines == 0 ? len : at;
}

enum at_rc agent_log_tail(const char *path, int64_t lines, struct at_buf *out, int64_t *ret_offset)
{
    int64_t size = at_file_size(path);
    if (size < 0) {
        *ret_offset = 0;
        return AT_OK;
    }
    int64_t from = size > (int64_t)AGENT_LOG_TAIL_BYTES ? size - (int64_t)AGENT_LOG_TAIL_BYTES : 0;
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    size_t got = 0;
    enum at_rc rc = at_file_read_at(path, from, (size_t)(size - from), &text, &got, NULL);
    if (rc != AT_OK || got == 0) {
        *ret_offset = from;
        return rc;
    }
    size_t start = tail_start(text.data, text.len, lines);
    utf8_clean(text.data, text.len);
    *ret_offset = from + (int64_t)got;
    return at_buf_append(out, text.data + start, text.len - start);
}

enum at_rc agent_log_since(const char *path, int64_t *offset, struct at_buf *out)
{
    int64_t size = at_file_size(path);
    if (size < *offset) {
        *offset = 0;
    }
    if (size <= *offset) {
        return AT_OK;
    }
    size_t got = 0;
    size_t before = out->len;
    enum at_rc rc = at_file_read_at(path, *offset, AGENT_LOG_TAIL_BYTES, out, &got, NULL);
    if (rc == AT_OK) {
        utf8_clean(out->data + before, out->len - before);
        *offset += (int64_t)got;
    }
    return rc;
}

void agent_log_last_line(const char *path, char *out, size_t out_size)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    int64_t offset = 0;
    out[0] = '\0';
    if (agent_log_tail(path, 1, &text, &offset) != AT_OK || text.len == 0) {
        return;
    }
    size_t len = text.data[text.len - 1] == '\n' ? text.len - 1 : text.len;
    len = len < out_size - 1 ? len : out_size - 1;
    memcpy(out, text.data, len);
    out[len] = '\0';
    utf8_clean(out, len); /* the cut may have parted a character */
}

/* The file stays the same, as the instance holds it open for appending. */
void agent_log_rotate(const char *path)
{
    if (at_file_size(path) <= AGENT_LOG_BYTES_MAX) {
        return;
    }
    struct at_err err = {0};
    AT_CLEANUP(at_cleanup_free) char *old = at_asprintf("%s.1", path);
    enum at_rc rc = at_file_copy(path, old, 0600, &err);
    if (rc == AT_OK) {
        rc = at_file_truncate(path, 0, &err);
    }
    if (rc != AT_OK) {
        at_log(AT_LOG_WARN, "log.rotate", "%s", err.msg);
    }
}

static void rotate_work(void *path)
{
    agent_log_rotate(path);
}

static void rotate_done(void *path)
{
    at_free(path);
}

void agent_logs_check(void *agent)
{
    struct at_agent *a = agent;
    const char *uid;
    void *value;
    for (size_t it = 0; at_map_next(a->instances, &it, &uid, &value);) {
        struct agent_instance *i = value;
        agent_log_time_note(i->log_path, at_sys_wall_ns(at_loop_sys(a->loop)), &i->log_noted_bytes);
        if (at_file_size(i->log_path) <= AGENT_LOG_BYTES_MAX) {
            continue;
        }
        char *path = at_strdup(i->log_path);
        if (at_pool_submit(a->pool, a->loop, rotate_work, rotate_done, path) != AT_OK) {
            at_free(path);
        }
    }
    a->log_timer = at_loop_timer(a->loop, AGENT_LOG_CHECK_NS, agent_logs_check, a);
}
