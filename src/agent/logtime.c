/* When lines of a log were written. Instances write to the file themselves, so the agent only sees
 * it grow: once a second it notes the time and the size beside it, "NANOSECONDS SIZE" a line. A
 * line's time is that of the first note which covers it: late by a second at most. */
#include "agent/agent_priv.h"

#include "core/log.h"
#include "sys/file.h"

#include <stdio.h>
#include <string.h>

static char *notes_path(const char *log_path)
{
    return at_asprintf("%s.times", log_path);
}

void agent_log_time_note(const char *log_path, int64_t wall_ns, int64_t *noted_bytes)
{
    int64_t size = at_file_size(log_path);
    if (size <= 0 || size == *noted_bytes) {
        return;
    }
    AT_CLEANUP(at_cleanup_free) char *path = notes_path(log_path);
    struct at_err err = {0};
    enum at_rc rc = AT_OK;
    if (size < *noted_bytes || at_file_size(path) > AGENT_LOG_TIMES_BYTES_MAX) {
        rc = at_file_remove(path, &err); /* the log was cut: what was noted is of another text */
    }
    char line[64];
    int n = snprintf(line, sizeof line, "%lld %lld\n", (long long)wall_ns, (long long)size);
    if (rc == AT_OK) {
        rc = at_file_append(path, line, (size_t)n, 0600, &err);
    }
    if (rc != AT_OK) {
        at_log(AT_LOG_WARN, "log.times", "%s", err.msg);
    }
    *noted_bytes = size;
}

void agent_log_time_remove(const char *log_path)
{
    AT_CLEANUP(at_cleanup_free) char *path = notes_path(log_path);
    (void)!at_file_remove(path, NULL);
}

static bool note_take(struct at_str *rest, struct agent_log_note *ret)
{
    while (rest->len > 0) {
        struct at_str size = at_str_cut(rest, '\n');
        struct at_str wall = at_str_cut(&size, ' ');
        if (at_str_to_i64(wall, &ret->wall_ns) == AT_OK &&
            at_str_to_i64(size, &ret->end_bytes) == AT_OK) {
            return true;
        }
    }
    return false;
}

void agent_log_times_load(const char *log_path, int64_t now_wall_ns, struct agent_log_times *ret)
{
    AT_CLEANUP(at_cleanup_free) char *path = notes_path(log_path);
    *ret = (struct agent_log_times){.now_wall_ns = now_wall_ns};
    if (at_file_read(path, 2 * AGENT_LOG_TIMES_BYTES_MAX, &ret->text, NULL) != AT_OK) {
        at_buf_clear(&ret->text);
    }
}

void agent_log_times_done(struct agent_log_times *times)
{
    at_buf_done(&times->text);
}

int64_t agent_log_since_offset(const struct agent_log_times *times, int64_t since_wall_ns)
{
    struct at_str rest = {times->text.data, times->text.len};
    struct agent_log_note note;
    int64_t offset = 0;
    while (note_take(&rest, &note) && note.wall_ns < since_wall_ns) {
        offset = note.end_bytes;
    }
    return offset;
}

enum at_rc agent_log_stamp(const struct agent_log_times *times, int64_t offset, const char *text,
                           size_t len, bool *mid_line, struct at_buf *out)
{
    struct at_str rest = {times->text.data, times->text.len};
    struct agent_log_note note = {.wall_ns = times->now_wall_ns, .end_bytes = -1};
    char when[AT_UNITS_TEXT_BYTES_MAX];
    enum at_rc rc = AT_OK;
    for (size_t at = 0; at < len && rc == AT_OK;) {
        while (note.end_bytes <= offset + (int64_t)at && note.end_bytes != INT64_MAX) {
            if (!note_take(&rest, &note)) { /* newer than the newest note */
                note = (struct agent_log_note){times->now_wall_ns, INT64_MAX};
            }
        }
        const char *end = memchr(text + at, '\n', len - at);
        size_t n = end != NULL ? (size_t)(end - text) + 1 - at : len - at;
        if (!*mid_line) {
            rc = at_buf_printf(out, "%s ", at_time_format_micro(note.wall_ns, when));
        }
        rc = rc == AT_OK ? at_buf_append(out, text + at, n) : rc;
        *mid_line = end == NULL;
        at += n;
    }
    return rc;
}
