/* The body that replicas get, where it is not the client's own: with a cap on tokens, and asking
 * for usage at the end of a stream. What is put in stands first; what was there is written over. */
#include "core/mem.h"
#include "gateway/meter.h"
#include "gateway/proxy_priv.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

struct edit {
    struct at_str old; /* of the body; empty: put in behind the brace */
    char text[96];
};

static int by_place(const struct edit *a, const struct edit *b)
{
    return a->old.ptr < b->old.ptr ? -1 : a->old.ptr > b->old.ptr;
}

static void add(struct edit *edits, size_t *n, struct at_str old, const char *text)
{
    size_t i = (*n)++;
    struct edit e = {.old = old};
    snprintf(e.text, sizeof e.text, "%s", text);
    for (; i > 0 && by_place(&e, &edits[i - 1]) < 0; i--) {
        edits[i] = edits[i - 1];
    }
    edits[i] = e;
}

/* Does the client ask for usage itself? */
static bool asks_usage(struct at_str options)
{
    static const char NAME[] = "\"include_usage\"";
    const char *end = options.ptr + options.len;
    const char *at =
        options.len > 0 ? memmem(options.ptr, options.len, NAME, sizeof NAME - 1) : NULL;
    at = at != NULL ? at + sizeof NAME - 1 : NULL;
    while (at != NULL && at < end && strchr(" \t\r\n:", *at) != NULL) {
        at++;
    }
    return at != NULL && at < end && *at == 't';
}

static size_t edits_of(struct gw_request *r, const struct gw_path *path, struct at_str start,
                       uint64_t completion_max, bool usage, struct edit *edits)
{
    const struct gw_scan_more *more = &path->more;
    char cap[32], first[96];
    size_t n = 0, used = 0;
    snprintf(cap, sizeof cap, "%llu", (unsigned long long)completion_max);
    first[0] = '\0';
    if (completion_max > 0 && more->max_tokens.len > 0) {
        add(edits, &n, more->max_tokens, cap);
    }
    if (completion_max > 0 && more->max_completion_tokens.len > 0) {
        add(edits, &n, more->max_completion_tokens, cap);
    }
    if (completion_max > 0 && n == 0) {
        used = (size_t)snprintf(first, sizeof first, "\"max_tokens\":%s,", cap);
    }
    if (usage && !asks_usage(more->stream_options)) {
        static const char USAGE[] = "{\"include_usage\":true}";
        r->meter.strip_usage = true;
        if (more->stream_options.len > 0) {
            add(edits, &n, more->stream_options, USAGE);
        } else {
            snprintf(first + used, sizeof first - used, "\"stream_options\":%s,", USAGE);
        }
    }
    if (first[0] != '\0') {
        add(edits, &n, start, first);
    }
    return n;
}

enum at_rc gw_amend(struct gw_request *r, const struct gw_path *path, uint64_t completion_max,
                    bool usage)
{
    struct gw_meter *m = &r->meter;
    struct at_str body = at_http_request_body(r->ex);
    const char *brace = body.len > 0 ? memchr(body.ptr, '{', body.len) : NULL;
    struct edit edits[4];
    assert(brace != NULL); /* it was read as an object */
    size_t n = edits_of(r, path, (struct at_str){brace + 1, 0}, completion_max, usage, edits);
    if (n == 0) {
        return AT_OK;
    }
    at_buf_clear(&m->body);
    m->body.max = body.len + 4 * sizeof edits[0].text;
    const char *at = body.ptr;
    size_t model_at = 0;
    enum at_rc rc = AT_OK;
    for (size_t i = 0; i <= n && rc == AT_OK; i++) {
        const char *to = i < n ? edits[i].old.ptr : body.ptr + body.len;
        if (r->raw_model.ptr >= at && r->raw_model.ptr < to) {
            model_at = m->body.len + (size_t)(r->raw_model.ptr - at);
        }
        rc = at_buf_append(&m->body, at, (size_t)(to - at));
        if (rc == AT_OK && i < n) {
            rc = at_buf_append_str(&m->body, edits[i].text);
            at = to + edits[i].old.len;
        }
    }
    if (rc == AT_OK) {
        r->raw_model.ptr = m->body.data + model_at; /* renamed there, if at all */
    }
    return rc;
}

/* The last event with usage and without choices, as servers send it that were asked to. */
static bool is_usage(struct at_str event)
{
    static const char CHOICES[] = "\"choices\":[]", SPACED[] = "\"choices\": []";
    struct gw_usage usage;
    return (memmem(event.ptr, event.len, CHOICES, sizeof CHOICES - 1) != NULL ||
            memmem(event.ptr, event.len, SPACED, sizeof SPACED - 1) != NULL) &&
           gw_usage_find(event, &usage);
}

/* Where the event that begins at data ends. */
static size_t event_end(const char *data, size_t len)
{
    size_t end = len;
    static const char *const BLANK[] = {"\n\n", "\r\n\r\n", "\r\r"};
    for (size_t i = 0; i < AT_ARRAY_LEN(BLANK); i++) {
        size_t n = strlen(BLANK[i]);
        const char *at = memmem(data, end, BLANK[i], n);
        end = at != NULL ? (size_t)(at - data) + n : end;
    }
    return end;
}

size_t gw_meter_strip(struct gw_request *r, const char *data, size_t len, size_t *ret_skip)
{
    *ret_skip = 0;
    size_t from = 0;
    while (r->meter.strip_usage && from < len) {
        size_t to = from + event_end(data + from, len - from);
        if (is_usage((struct at_str){data + from, to - from})) {
            *ret_skip = to - from;
            return from;
        }
        from = to;
    }
    return len;
}
