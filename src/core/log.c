#include "core/log.h"

#include "core/json.h"
#include "core/mem.h"
#include "core/units.h"

#include <stdio.h>
#include <string.h>

#define LINE_BYTES_MAX ((size_t)16 << 10)
#define MSG_BYTES_MAX 2048

/* The one global of the house: set once before threads start, read-only afterwards. */
static struct at_log_options options;

static const char *const LEVELS[] = {"debug", "info", "warn", "error"};
static const char *const LEVELS_TEXT[] = {"DEBUG", "INFO ", "WARN ", "ERROR"};

void at_log_start(const struct at_log_options *given)
{
    options = *given;
}

static void add_raw(struct at_buf *line, const char *s)
{
    (void)!at_buf_append_str(line, s); /* a line at its limit is cut short */
}

static void add_json(struct at_buf *line, const char *key, const char *value)
{
    if (value != NULL) {
        add_raw(line, ",");
        (void)!at_json_dump_text(key, strlen(key), line);
        add_raw(line, ":");
        (void)!at_json_dump_text(value, strlen(value), line);
    }
}

static bool is_plain(const char *value)
{
    for (const char *c = value; *c != '\0'; c++) {
        if ((unsigned char)*c <= ' ' || *c == '"' || *c == '=' || *c == 0x7f) {
            return false;
        }
    }
    return value[0] != '\0';
}

static void line_json(struct at_buf *line, enum at_log_level level, const char *now,
                      const char *event, const struct at_log_kv *kv, const char *msg)
{
    add_raw(line, "{\"time\":\"");
    add_raw(line, now);
    add_raw(line, "\"");
    add_json(line, "level", LEVELS[level]);
    add_json(line, "component", options.component);
    add_json(line, "event", event);
    for (; kv != NULL && kv->key != NULL; kv++) {
        add_json(line, kv->key, kv->value);
    }
    add_json(line, "msg", msg);
    add_raw(line, "}\n");
}

static void line_text(struct at_buf *line, enum at_log_level level, const char *now,
                      const char *event, const struct at_log_kv *kv, const char *msg)
{
    const char *clock = strchr(now, 'T');
    (void)!at_buf_printf(line, "%.12s %s %s ", clock != NULL ? clock + 1 : now, LEVELS_TEXT[level],
                         options.component != NULL ? options.component : "-");
    add_raw(line, event);
    /* Line breaks from outside would look like further records. */
    add_raw(line, ": ");
    for (const char *c = msg; *c != '\0'; c++) {
        (void)!at_buf_append(line, (unsigned char)*c < ' ' ? " " : c, 1);
    }
    for (; kv != NULL && kv->key != NULL; kv++) {
        add_raw(line, " ");
        add_raw(line, kv->key);
        add_raw(line, "=");
        const char *value = kv->value != NULL ? kv->value : "";
        if (is_plain(value)) {
            add_raw(line, value);
        } else {
            (void)!at_json_dump_text(value, strlen(value), line);
        }
    }
    add_raw(line, "\n");
}

static void emit(enum at_log_level level, const char *event, const struct at_log_kv *kv,
                 const char *fmt, va_list args)
{
    if (options.sink == NULL || level < options.level) {
        return;
    }
    char msg[MSG_BYTES_MAX];
    char now[AT_UNITS_TEXT_BYTES_MAX];
    vsnprintf(msg, sizeof msg, fmt, args);
    at_time_format_micro(options.wall_ns != NULL ? options.wall_ns(options.wall_ctx) : 0, now);
    AT_CLEANUP(at_cleanup_buf) struct at_buf line = {.max = LINE_BYTES_MAX};
    if (options.text) {
        line_text(&line, level, now, event, kv, msg);
    } else {
        line_json(&line, level, now, event, kv, msg);
    }
    if (line.len != 0 && line.data[line.len - 1] != '\n') {
        line.data[line.len - 1] = '\n';
    }
    options.sink(options.sink_ctx, line.data, line.len);
}

void at_log(enum at_log_level level, const char *event, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    emit(level, event, NULL, fmt, args);
    va_end(args);
}

void at_log_kv(enum at_log_level level, const char *event, const struct at_log_kv *kv,
               const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    emit(level, event, kv, fmt, args);
    va_end(args);
}
