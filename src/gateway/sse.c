#include "gateway/sse.h"

#include <string.h>

static void end_line(struct gw_sse *s, size_t *events)
{
    if (s->line_len > 0 && s->line_len <= sizeof s->head && s->head[s->line_len - 1] == '\r') {
        s->line_len--;
    }
    struct at_str head = {s->head, s->line_len < s->head_len ? s->line_len : s->head_len};
    if (s->line_len == 0) {
        *events += s->has_data;
        s->has_data = false;
    } else if (at_str_starts(head, "data:")) {
        size_t skip = head.len > 5 && head.ptr[5] == ' ' ? 6 : 5;
        struct at_str value = {head.ptr + skip, head.len - skip};
        bool done = s->line_len <= sizeof s->head && at_str_eq(value, "[DONE]");
        s->has_data |= !done;
    }
    s->head_len = s->line_len = 0;
}

size_t gw_sse_events(struct gw_sse *sse, const char *data, size_t len)
{
    size_t events = 0;
    while (len > 0) {
        const char *end = memchr(data, '\n', len);
        size_t piece = end != NULL ? (size_t)(end - data) : len;
        size_t room = sizeof sse->head - sse->head_len;
        size_t n = piece < room ? piece : room;
        memcpy(sse->head + sse->head_len, data, n);
        sse->head_len += n;
        sse->line_len += piece;
        if (end != NULL) {
            end_line(sse, &events);
            piece++;
        }
        data += piece;
        len -= piece;
    }
    return events;
}

static size_t skip_space(struct at_str text, size_t i)
{
    while (i < text.len && (text.ptr[i] == ' ' || text.ptr[i] == '\t' || text.ptr[i] == '\n' ||
                            text.ptr[i] == '\r')) {
        i++;
    }
    return i;
}

/* "name": 12 at *i, into ret when name is it; *i behind the number. */
static bool take_count(struct at_str text, size_t *i, const char *name, uint64_t *ret)
{
    size_t len = strlen(name);
    if (text.len - *i < len || memcmp(text.ptr + *i, name, len) != 0) {
        return false;
    }
    size_t at = skip_space(text, *i + len);
    if (at >= text.len || text.ptr[at] != ':') {
        return false;
    }
    size_t from = at = skip_space(text, at + 1);
    while (at < text.len && text.ptr[at] >= '0' && text.ptr[at] <= '9') {
        at++;
    }
    *i = at;
    return at_str_to_u64((struct at_str){text.ptr + from, at - from}, ret) == AT_OK;
}

/* The object that begins behind "usage": members at its own depth only. False: it is not whole. */
static bool take_usage(struct at_str text, size_t i, struct gw_usage *ret)
{
    int depth = 0;
    struct gw_usage usage = {0};
    while (i < text.len) {
        char c = text.ptr[i];
        if (c == '"' && depth == 1 &&
            (take_count(text, &i, "\"prompt_tokens\"", &usage.prompt) ||
             take_count(text, &i, "\"completion_tokens\"", &usage.completion))) {
            continue;
        }
        depth += (c == '{') - (c == '}');
        if (depth == 0) {
            *ret = usage;
            return c == '}';
        }
        i++;
    }
    return false;
}

bool gw_usage_find(struct at_str text, struct gw_usage *ret)
{
    static const char NAME[] = "\"usage\"";
    bool found = false;
    for (const char *at = text.ptr; at != NULL && text.len > 0;) {
        size_t left = text.len - (size_t)(at - text.ptr);
        at = memmem(at, left, NAME, sizeof NAME - 1);
        if (at == NULL) {
            break;
        }
        at += sizeof NAME - 1;
        size_t i = skip_space(text, (size_t)(at - text.ptr));
        if (i < text.len && text.ptr[i] == ':') {
            i = skip_space(text, i + 1);
            if (i < text.len && text.ptr[i] == '{') {
                found |= take_usage(text, i, ret);
            }
        }
    }
    return found;
}
