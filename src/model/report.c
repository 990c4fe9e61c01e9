/* What validation found: causes, unknown fields, and the texts of both. */
#include "model/model_priv.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define PATH_BYTES_MAX 1024
#define CAUSE_BYTES_MAX 512
#define SHOWN_BYTES_MAX 100 /* of a value that is quoted in a message */

static size_t path_write(const struct at_model_path *path, char *out, size_t used)
{
    if (path == NULL) {
        return used;
    }
    used = path_write(path->up, out, used);
    if (used >= PATH_BYTES_MAX) {
        return used;
    }
    size_t room = PATH_BYTES_MAX - used;
    int n;
    if (path->name == NULL) {
        n = snprintf(out + used, room, "[%zu]", path->index);
    } else if (path->is_key) {
        n = snprintf(out + used, room, "[%s]", path->name);
    } else {
        n = snprintf(out + used, room, "%s%s", used != 0 ? "." : "", path->name);
    }
    return used + (n > 0 ? (size_t)n : 0);
}

const char *at_model_path_text(const struct at_model_path *path, const char *leaf,
                               struct at_arena *arena)
{
    char text[PATH_BYTES_MAX] = "";
    struct at_model_path end = {.up = path, .name = leaf};
    path_write(leaf != NULL ? &end : path, text, 0);
    const char *copy = at_arena_strdup(arena, text);
    return copy != NULL ? copy : "";
}

void at_model_cause_add(struct at_model_check *check, const struct at_model_path *path,
                        const char *leaf, const char *reason, const char *fmt, ...)
{
    struct at_model_report *report = check->report;
    if (report->n_causes == AT_MODEL_CAUSES_MAX) {
        check->overflow++;
        return;
    }
    char text[CAUSE_BYTES_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (report->causes == NULL) {
        report->causes = at_arena_alloc(check->arena, AT_MODEL_CAUSES_MAX * sizeof *report->causes);
    }
    const char *message = at_arena_strdup(check->arena, text);
    if (report->causes == NULL || message == NULL) {
        check->exhausted = true;
        return;
    }
    report->causes[report->n_causes++] = (struct at_model_cause){
        .reason = reason,
        .field = at_model_path_text(path, leaf, check->arena),
        .message = message,
    };
}

void at_model_unknown_add(struct at_model_check *check, const struct at_model_path *path,
                          const char *leaf)
{
    struct at_model_report *report = check->report;
    if (report->n_unknown == AT_MODEL_CAUSES_MAX) {
        return;
    }
    if (report->unknown == NULL) {
        report->unknown =
            at_arena_alloc(check->arena, AT_MODEL_CAUSES_MAX * sizeof *report->unknown);
    }
    if (report->unknown == NULL) {
        check->exhausted = true;
        return;
    }
    report->unknown[report->n_unknown++] = at_model_path_text(path, leaf, check->arena);
}

/* The value as JSON, cut so that a message stays readable. Never cuts inside a character. */
static void value_show(const json_t *value, char *out, size_t size)
{
    assert(size > SHOWN_BYTES_MAX + 4);
    struct at_buf text = {0};
    if (value == NULL || at_json_dump(value, &text) != AT_OK) {
        snprintf(out, size, "null");
    } else if (text.len <= SHOWN_BYTES_MAX) {
        snprintf(out, size, "%s", text.data);
    } else {
        size_t len = SHOWN_BYTES_MAX;
        while (len > 0 && ((unsigned char)text.data[len] & 0xc0) == 0x80) {
            len--;
        }
        snprintf(out, size, "%.*s...", (int)len, text.data);
    }
    at_buf_done(&text);
}

void at_model_invalid_add(struct at_model_check *check, const struct at_model_path *path,
                          const char *leaf, const json_t *value, const char *fmt, ...)
{
    char shown[SHOWN_BYTES_MAX + 8];
    char why[CAUSE_BYTES_MAX];
    value_show(value, shown, sizeof shown);
    va_list args;
    va_start(args, fmt);
    vsnprintf(why, sizeof why, fmt, args);
    va_end(args);
    at_model_cause_add(check, path, leaf, "FieldValueInvalid", "Invalid value: %s: %s", shown, why);
}
