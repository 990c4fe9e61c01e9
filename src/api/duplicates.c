/* Fields that a JSON text names twice, by their paths: "spec.replicas", "spec.links[1].site". The
 * text has been parsed before, so its grammar holds and its depth is bounded. */
#include "api/api_priv.h"
#include "core/mem.h"

#include <stdio.h>
#include <string.h>

struct scan {
    const char *at, *end;
    struct at_buf path;
    json_t *found; /* array of paths */
};

static void value_skip(struct scan *s);

static void blanks(struct scan *s)
{
    while (s->at < s->end && strchr(" \t\r\n,:", *s->at) != NULL && *s->at != '\0') {
        s->at++;
    }
}

/* The text between the quotes, escapes as they stand. */
static struct at_str text_take(struct scan *s)
{
    const char *begin = s->at + 1;
    const char *p = begin;
    while (p < s->end && *p != '"') {
        p += *p == '\\' ? 2 : 1;
    }
    p = p < s->end ? p : s->end;
    s->at = p < s->end ? p + 1 : s->end;
    return (struct at_str){begin, (size_t)(p - begin)};
}

static void path_cut(struct scan *s, size_t len)
{
    s->path.len = len;
    if (s->path.data != NULL) {
        s->path.data[len] = '\0';
    }
}

static void object_skip(struct scan *s)
{
    AT_CLEANUP(at_cleanup_json) json_t *keys = json_object();
    size_t len = s->path.len;
    for (s->at++, blanks(s); s->at < s->end && *s->at == '"'; blanks(s)) {
        struct at_str key = text_take(s);
        enum at_rc rc =
            at_buf_printf(&s->path, "%s%.*s", len > 0 ? "." : "", (int)key.len, key.ptr);
        char *name = at_strndup(key.ptr, key.len);
        if (json_object_get(keys, name) != NULL && rc == AT_OK &&
            json_array_size(s->found) < AT_API_WARNINGS_MAX) {
            json_array_append_new(s->found, json_string(s->path.data));
        }
        json_object_set_new_nocheck(keys, name, json_null());
        at_free(name);
        blanks(s);
        value_skip(s);
        path_cut(s, len);
    }
    s->at += s->at < s->end;
}

static void array_skip(struct scan *s)
{
    size_t len = s->path.len;
    size_t i = 0;
    for (s->at++, blanks(s); s->at < s->end && *s->at != ']'; blanks(s)) {
        (void)!at_buf_printf(&s->path, "[%zu]", i++);
        value_skip(s);
        path_cut(s, len);
    }
    s->at += s->at < s->end;
}

static void value_skip(struct scan *s)
{
    if (s->at >= s->end) {
        return;
    }
    if (*s->at == '{') {
        object_skip(s);
    } else if (*s->at == '[') {
        array_skip(s);
    } else if (*s->at == '"') {
        (void)text_take(s);
    } else {
        const char *begin = s->at;
        while (s->at < s->end && strchr(",]} \t\r\n", *s->at) == NULL) {
            s->at++;
        }
        s->at += s->at == begin; /* never stand still */
    }
}

json_t *api_duplicates(const char *text, size_t len)
{
    struct scan s = {.at = text, .end = text + len, .path = {.max = 65536}, .found = json_array()};
    blanks(&s);
    value_skip(&s);
    at_buf_done(&s.path);
    return s.found;
}
