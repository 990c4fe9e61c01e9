/* Watch streams: one watch of the store each, events as lines of JSON. A stream keeps its request.
 */
#include "api/api_priv.h"
#include "core/mem.h"
#include "core/str.h"

#include <assert.h>
#include <stdio.h>

struct api_stream {
    struct api_req *req;
    struct api_stream *next, **link; /* in api->streams */
    struct api_filter filter;
    struct api_span span;
    int64_t after_rev;
    int64_t timeout_ns;
    bool bookmarks;
    bool initial_events, initial_mark;
    at_store_watch_id watch;
    at_timer_id timeout_timer, bookmark_timer;
    struct at_buf out; /* lines not yet handed to the connection */
    struct at_arena *cells;
    bool columns_sent;
    bool begun;
    bool busy; /* within a callback: do not free */
    bool over;
};

static void stream_free(struct api_stream *s)
{
    struct at_api *api = s->req->api;
    at_store_unwatch(api->options.store, s->watch);
    at_loop_timer_cancel(api->options.loop, s->timeout_timer);
    at_loop_timer_cancel(api->options.loop, s->bookmark_timer);
    if (s->link != NULL) {
        *s->link = s->next;
        if (s->next != NULL) {
            s->next->link = s->link;
        }
        api->n_streams--;
        if (api->streams_now != NULL) {
            at_metric_add(api->streams_now, -1);
        }
    }
    at_buf_done(&s->out);
    at_arena_free(s->cells);
    api_req_free(s->req);
    at_free(s);
}

static void stream_gone(void *ctx)
{
    struct api_stream *s = ctx;
    s->req->ex = NULL;
    s->over = true;
    if (!s->busy) {
        stream_free(s);
    }
}

/* Hand the lines over; a client that does not read is cut off and resumes by itself. */
static void flush(struct api_stream *s)
{
    struct at_http_exchange *ex = s->req->ex;
    if (ex == NULL || s->out.len == 0) {
        return;
    }
    enum at_rc rc = at_http_stream_write(ex, s->out.data, s->out.len);
    at_buf_clear(&s->out);
    if (s->req->ex == NULL) {
        return;
    }
    if (rc != AT_OK || at_http_stream_queued_bytes(ex) > AT_API_STREAM_QUEUE_BYTES_MAX) {
        if (s->req->api->streams_cut_total != NULL) {
            at_metric_add(s->req->api->streams_cut_total, 1);
        }
        s->req->ex = NULL;
        s->over = true;
        at_http_abort(ex);
    }
}

static void stream_end(struct api_stream *s)
{
    flush(s);
    struct at_http_exchange *ex = s->req->ex;
    s->req->ex = NULL;
    s->over = true;
    if (ex != NULL) {
        at_http_stream_end(ex);
    }
}

static void line_failed(struct api_stream *s, size_t before)
{
    s->out.len = before;
    stream_end(s);
}

static enum at_rc table_line(struct api_stream *s, const char *value, size_t len, int64_t rev)
{
    AT_CLEANUP(at_cleanup_json) json_t *object = NULL;
    enum at_rc rc = at_object_decode(value, len, rev, &object, NULL);
    if (rc != AT_OK) {
        return rc;
    }
    object = api_view_object(s->req, object);
    AT_CLEANUP(at_cleanup_json)
    json_t *table = api_table_new(api_view_kind(s->req), !s->columns_sent);
    s->columns_sent = true;
    at_arena_reset(s->cells);
    json_object_set_new(table, "metadata",
                        json_pack("{s:s}", "resourceVersion",
                                  at_json_str_at(object, "metadata.resourceVersion", "")));
    api_table_add(table, s->req, object, s->req->table, s->cells);
    return at_json_dump(table, &s->out);
}

static void line_add(struct api_stream *s, const char *type, const struct at_store_kv *kv,
                     int64_t rev)
{
    size_t before = s->out.len;
    enum at_rc rc = at_buf_printf(&s->out, "{\"type\":\"%s\",\"object\":", type);
    if (rc == AT_OK) {
        rc = s->req->table != API_TABLE_NONE
                 ? table_line(s, kv->value, kv->value_len, rev)
                 : api_view_append(s->req, kv->value, kv->value_len, rev, &s->out);
    }
    if (rc == AT_OK) {
        rc = at_buf_append(&s->out, "}\n", 2);
    }
    if (rc != AT_OK) {
        line_failed(s, before);
        return;
    }
    if (s->req->api->watch_events_total != NULL) {
        at_metric_add(s->req->api->watch_events_total, 1);
    }
    if (s->out.len >= AT_API_STREAM_PIECE_BYTES) {
        flush(s);
    }
}

static bool matches(struct api_stream *s, const struct at_store_kv *kv)
{
    return api_view_matches(s->req, &s->filter, kv);
}

/* An object that comes to match is ADDED for this client, one that ceases to is DELETED. */
static void event_add(struct api_stream *s, const struct at_store_event *event)
{
    bool before = event->prev != NULL && matches(s, event->prev);
    bool now = !event->deleted && matches(s, &event->cur);
    if (now) {
        line_add(s, before ? "MODIFIED" : "ADDED", &event->cur, event->rev);
    } else if (before) {
        line_add(s, "DELETED", event->prev, event->rev);
    }
}

static void error_line(struct api_stream *s, enum at_rc rc, const char *message)
{
    AT_CLEANUP(at_cleanup_json)
    json_t *line = json_pack("{s:s, s:o}", "type", "ERROR", "object", api_status_of(rc, message));
    size_t before = s->out.len;
    if (at_json_dump(line, &s->out) != AT_OK || at_buf_append(&s->out, "\n", 1) != AT_OK) {
        s->out.len = before;
    }
}

static void watch_events(void *ctx, enum at_rc rc, const struct at_store_event *events, size_t n)
{
    struct api_stream *s = ctx;
    s->busy = true;
    for (size_t i = 0; rc == AT_OK && i < n && !s->over; i++) {
        event_add(s, &events[i]);
    }
    if (rc != AT_OK && !s->over) {
        error_line(s, AT_COMPACTED, "too old resource version");
        stream_end(s);
    }
    if (!s->over) {
        flush(s);
    }
    s->busy = false;
    if (s->over) {
        stream_free(s);
    }
}

static void bookmark_add(struct api_stream *s, int64_t rev, bool initial_end)
{
    const struct at_model_kind *kind = api_view_kind(s->req);
    size_t before = s->out.len;
    bool table = s->req->table != API_TABLE_NONE;
    enum at_rc rc = at_buf_printf(
        &s->out,
        "{\"type\":\"BOOKMARK\",\"object\":{\"kind\":\"%s\",\"apiVersion\":\"%s\",%s"
        "\"metadata\":{\"resourceVersion\":\"%lld\",\"creationTimestamp\":null%s}}}\n",
        table ? "Table" : kind->kind, table ? "meta.k8s.io/v1" : at_model_api_version(kind),
        table ? "\"columnDefinitions\":[],\"rows\":[]," : "", (long long)rev,
        initial_end ? ",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}" : "");
    if (rc != AT_OK) {
        s->out.len = before;
    }
}

static void bookmark_due(void *ctx)
{
    struct api_stream *s = ctx;
    struct at_api *api = s->req->api;
    s->busy = true;
    s->bookmark_timer =
        at_loop_timer(api->options.loop, api->options.bookmark_period_ns, bookmark_due, s);
    bookmark_add(s, at_store_watch_rev(api->options.store, s->watch), false);
    flush(s);
    s->busy = false;
    if (s->over) {
        stream_free(s);
    }
}

static void timeout_due(void *ctx)
{
    struct api_stream *s = ctx;
    s->timeout_timer = 0;
    s->busy = true;
    stream_end(s);
    stream_free(s);
}

static void too_old(struct api_stream *s)
{
    struct at_store *store = s->req->api->options.store;
    struct api_req *req = s->req;
    int64_t after = s->after_rev;
    at_buf_done(&s->out);
    at_arena_free(s->cells);
    at_free(s);
    api_respond_error(req, AT_COMPACTED, "too old resource version: %lld (%lld)", (long long)after,
                      (long long)at_store_compact_rev(store));
}

static void list_in(struct api_stream *s)
{
    struct at_api *api = s->req->api;
    s->next = api->streams;
    s->link = &api->streams;
    if (s->next != NULL) {
        s->next->link = &s->next;
    }
    api->streams = s;
    api->n_streams++;
    if (api->streams_now != NULL) {
        at_metric_add(api->streams_now, 1);
    }
}

/* False: answered with an error, s is gone. */
static bool stream_begin(struct api_stream *s)
{
    struct at_api *api = s->req->api;
    struct at_err err = {0};
    enum at_rc rc =
        at_store_watch(api->options.store, s->span.from, s->span.single ? NULL : s->span.to,
                       s->after_rev, watch_events, s, &s->watch, &err);
    if (rc == AT_COMPACTED) {
        too_old(s);
        return false;
    }
    if (rc != AT_OK) {
        struct api_req *req = s->req;
        at_buf_done(&s->out);
        at_arena_free(s->cells);
        at_free(s);
        api_respond_err(req, &err);
        return false;
    }
    list_in(s);
    api_req_measure(s->req, 200);
    s->begun = true;
    at_http_on_gone(s->req->ex, stream_gone, s);
    at_http_stream_begin(s->req->ex, 200, "application/json", NULL);
    s->timeout_timer = at_loop_timer(api->options.loop, s->timeout_ns, timeout_due, s);
    if (s->bookmarks) {
        s->bookmark_timer =
            at_loop_timer(api->options.loop, api->options.bookmark_period_ns, bookmark_due, s);
    }
    return true;
}

static void stream_drop(struct api_stream *s)
{
    s->over = true;
    stream_free(s);
}

static void initial_done(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *kvs,
                         size_t n, bool more, const struct at_err *err)
{
    (void)more;
    struct api_stream *s = ctx;
    if (s->req->ex == NULL) {
        stream_drop(s);
        return;
    }
    if (rc != AT_OK) {
        struct api_req *req = s->req;
        at_buf_done(&s->out);
        at_arena_free(s->cells);
        at_free(s);
        api_respond_error(req, rc, "%s", err != NULL ? err->msg : "the store cannot be read");
        return;
    }
    s->after_rev = rev;
    s->busy = true;
    if (!stream_begin(s)) {
        return;
    }
    for (size_t i = 0; i < n && !s->over; i++) {
        if (matches(s, &kvs[i])) {
            line_add(s, "ADDED", &kvs[i], kvs[i].mod_rev);
        }
    }
    if (!s->over && s->initial_mark) {
        bookmark_add(s, rev, true);
    }
    if (!s->over) {
        flush(s);
    }
    s->busy = false;
    if (s->over) {
        stream_free(s);
    }
}

/* False: answered. */
static bool watch_parameters(struct api_req *req, struct api_stream *s, struct at_err *err)
{
    int64_t seconds = 0;
    if (api_filter_parse(req, &s->filter, err) != AT_OK ||
        api_query_int(req, "timeoutSeconds", 0, &seconds, err) != AT_OK ||
        api_query_int(req, "resourceVersion", 0, &s->after_rev, err) != AT_OK) {
        return false;
    }
    if (s->after_rev < 0) {
        at_err_set(err, AT_BAD_REQUEST, "resourceVersion: must not be negative");
        return false;
    }
    s->timeout_ns = req->api->options.watch_timeout_ns;
    if (seconds > 0 && seconds < s->timeout_ns / AT_NS_PER_S) {
        s->timeout_ns = seconds * AT_NS_PER_S;
    }
    s->bookmarks = api_query_bool(req, "allowWatchBookmarks");
    const char *initial = api_query(req, "sendInitialEvents");
    if (initial != NULL && initial[0] != '\0') {
        s->initial_events = api_query_bool(req, "sendInitialEvents");
        s->initial_mark = s->initial_events && s->bookmarks;
        if (!s->initial_events && s->after_rev == 0) {
            s->after_rev = at_store_rev(req->api->options.store);
        }
    } else {
        s->initial_events = s->after_rev == 0;
    }
    api_span_of(req, &s->filter, &s->span);
    return true;
}

void api_watch(struct api_req *req)
{
    struct at_api *api = req->api;
    if (api->n_streams >= AT_API_STREAMS_MAX) {
        api_respond_error(req, AT_EXHAUSTED, "%d watches are open, no more are taken",
                          AT_API_STREAMS_MAX);
        return;
    }
    struct at_err err = {0};
    struct api_stream *s = AT_NEW(struct api_stream);
    s->req = req;
    s->cells = at_arena_new(0);
    at_buf_init(&s->out, 4 * AT_API_STREAM_PIECE_BYTES + 4 * AT_OBJECT_BYTES_MAX);
    if (!watch_parameters(req, s, &err)) {
        at_arena_free(s->cells);
        at_free(s);
        api_respond_err(req, &err);
        return;
    }
    if (s->initial_events) {
        at_store_range(api->options.store, s->span.from, s->span.single ? NULL : s->span.to, 0, 0,
                       initial_done, s);
        return;
    }
    if (stream_begin(s)) {
        flush(s);
    }
}

void api_streams_close(struct at_api *api)
{
    while (api->streams != NULL) {
        struct api_stream *s = api->streams;
        s->busy = true;
        stream_end(s);
        stream_free(s);
    }
}
