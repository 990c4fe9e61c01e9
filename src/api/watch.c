/* Watch streams: one watch of the store each, events as lines of JSON. A stream keeps its request.
 */
#include "api/api_priv.h"
#include "api/options.h"
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
    bool initial_under_way; /* the store is not watched yet: pages of what there is come first */
    bool reading;           /* a page is being read: do not free */
    char page_from[AT_STORE_KEY_BYTES_MAX];
    at_timer_id page_timer;
    size_t queued_bytes; /* counted in api->streams_queue_bytes */
    at_store_watch_id watch;
    at_timer_id timeout_timer, bookmark_timer;
    struct at_buf out;         /* lines not yet handed to the connection */
    const struct at_buf *lent; /* the only one of them, which all watchers share; out is empty */
    struct at_arena *cells;
    bool columns_sent;
    bool begun;
    bool busy; /* within a callback: do not free */
    bool over;
};

static void queue_count(struct api_stream *s, size_t bytes)
{
    struct at_api *api = s->req->api;
    api->streams_queue_bytes += bytes - s->queued_bytes; /* may wrap in between, not in the sum */
    s->queued_bytes = bytes;
    if (api->streams_queue_bytes_now != NULL) {
        at_metric_set(api->streams_queue_bytes_now, (int64_t)api->streams_queue_bytes);
    }
}

/* How much a stream may hold back: the less, the more all of them do. What they hold is known from
 * their last writes; before anyone is cut for it, all are looked at anew, once a turn. */
static size_t queue_limit(struct at_api *api)
{
    size_t all = api->options.watch_queue_bytes_max;
    int64_t now = at_loop_now_ns(api->options.loop);
    if (api->streams_queue_bytes > all / 2 && api->streams_measured_ns != now) {
        api->streams_measured_ns = now;
        for (struct api_stream *s = api->streams; s != NULL; s = s->next) {
            if (s->req->ex != NULL) {
                queue_count(s, at_http_stream_queued_bytes(s->req->ex));
            }
        }
    }
    if (api->streams_queue_bytes <= all / 2) {
        return api->options.watch_queue_one_bytes_max;
    }
    return api->streams_queue_bytes <= all ? AT_API_STREAM_QUEUE_BYTES_BUSY
                                           : AT_API_STREAM_QUEUE_BYTES_FULL;
}

/* by: one more watch of its user, or one less. */
static void user_count(const struct api_stream *s, int by)
{
    struct at_map *watchers = s->req->api->watchers;
    const char *user = api_asker(s->req);
    uintptr_t n = (uintptr_t)at_map_get(watchers, user) + (uintptr_t)by;
    if (n == 0) {
        (void)at_map_remove(watchers, user);
    } else {
        (void)at_map_put(watchers, user, (void *)n);
    }
}

static void stream_free(struct api_stream *s)
{
    struct at_api *api = s->req->api;
    at_store_unwatch(api->options.store, s->watch);
    at_loop_timer_cancel(api->options.loop, s->timeout_timer);
    at_loop_timer_cancel(api->options.loop, s->bookmark_timer);
    at_loop_timer_cancel(api->options.loop, s->page_timer);
    queue_count(s, 0);
    if (s->link != NULL) {
        *s->link = s->next;
        if (s->next != NULL) {
            s->next->link = s->link;
        }
        api->n_streams--;
        user_count(s, -1);
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
    if (!s->busy && !s->reading) {
        stream_free(s);
    }
}

/* Hand the lines over; a client that does not read is cut off and resumes by itself. */
static void flush(struct api_stream *s)
{
    struct at_http_exchange *ex = s->req->ex;
    const struct at_buf *lines = s->lent != NULL ? s->lent : &s->out;
    if (ex == NULL || lines->len == 0) {
        return;
    }
    enum at_rc rc = at_http_stream_write(ex, lines->data, lines->len);
    s->lent = NULL;
    at_buf_done(&s->out); /* there may be thousands of streams that have nothing to say for long */
    if (s->req->ex == NULL) {
        return;
    }
    if (rc == AT_OK) {
        queue_count(s, at_http_stream_queued_bytes(ex));
    }
    if (rc != AT_OK || s->queued_bytes > queue_limit(s->req->api)) {
        if (s->req->api->streams_cut_total != NULL) {
            at_metric_add(s->req->api->streams_cut_total, 1);
        }
        s->req->ex = NULL;
        s->over = true;
        at_http_abort(ex);
    }
}

/* What was lent is taken over, for something follows it. */
static enum at_rc lent_take(struct api_stream *s)
{
    const struct at_buf *line = s->lent;
    s->lent = NULL;
    return line != NULL ? at_buf_append(&s->out, line->data, line->len) : AT_OK;
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

static enum at_rc table_add(struct api_stream *s, const char *type, const struct at_store_kv *kv,
                            int64_t rev)
{
    enum at_rc rc = at_buf_printf(&s->out, "{\"type\":\"%s\",\"object\":", type);
    rc = rc == AT_OK ? table_line(s, kv->value, kv->value_len, rev) : rc;
    return rc == AT_OK ? at_buf_append(&s->out, "}\n", 2) : rc;
}

static void line_add(struct api_stream *s, const char *type, const struct at_store_kv *kv,
                     int64_t rev)
{
    enum at_rc rc = lent_take(s);
    size_t before = s->out.len;
    if (rc == AT_OK && s->req->table != API_TABLE_NONE) {
        rc = table_add(s, type, kv, rev);
    } else if (rc == AT_OK) {
        s->lent = api_line(s->req, type, kv, rev);
        rc = s->lent == NULL ? AT_CORRUPT : s->out.len != 0 ? lent_take(s) : AT_OK;
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
    enum at_rc lent = lent_take(s);
    size_t before = s->out.len;
    if (lent != AT_OK || at_json_dump(line, &s->out) != AT_OK ||
        at_buf_append(&s->out, "\n", 1) != AT_OK) {
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
    size_t before;
    bool table = s->req->table != API_TABLE_NONE;
    enum at_rc rc = lent_take(s);
    before = s->out.len;
    rc = rc != AT_OK
             ? rc
             : at_buf_printf(
                   &s->out,
                   "{\"type\":\"BOOKMARK\",\"object\":{\"kind\":\"%s\",\"apiVersion\":\"%s\",%s"
                   "\"metadata\":{\"resourceVersion\":\"%lld\",\"creationTimestamp\":null%s}}}\n",
                   table ? "Table" : kind->kind,
                   table ? "meta.k8s.io/v1" : at_model_api_version(kind),
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
    if (!s->initial_under_way) { /* else there is nothing yet from which to resume */
        bookmark_add(s, at_store_watch_rev(api->options.store, s->watch), false);
    }
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
    s->busy = false;
    if (!s->reading) {
        stream_free(s);
    }
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
    user_count(s, 1);
    if (api->streams_now != NULL) {
        at_metric_add(api->streams_now, 1);
    }
}

static enum at_rc store_watch(struct api_stream *s, struct at_err *err)
{
    return at_store_watch(s->req->api->options.store, s->span.from,
                          s->span.single ? NULL : s->span.to, s->after_rev, watch_events, s,
                          &s->watch, err);
}

static void stream_open(struct api_stream *s)
{
    struct at_api *api = s->req->api;
    list_in(s);
    api_req_measure(s->req, 200);
    (void)api_req_audit(s->req, 200);
    s->begun = true;
    at_http_on_gone(s->req->ex, stream_gone, s);
    at_http_stream_begin(s->req->ex, 200, "application/json", NULL);
    s->timeout_timer = at_loop_timer(api->options.loop, s->timeout_ns, timeout_due, s);
    if (s->bookmarks) {
        s->bookmark_timer =
            at_loop_timer(api->options.loop, api->options.bookmark_period_ns, bookmark_due, s);
    }
}

/* Nothing was sent yet: an answer as to any request. */
static void stream_refuse(struct api_stream *s, const struct at_err *err)
{
    struct api_req *req = s->req;
    at_buf_done(&s->out);
    at_arena_free(s->cells);
    at_free(s);
    if (req->ex == NULL) {
        api_req_free(req);
    } else {
        api_respond_err(req, err);
    }
}

static void stream_begin(struct api_stream *s)
{
    struct at_err err = {0};
    enum at_rc rc = store_watch(s, &err);
    if (rc == AT_COMPACTED) {
        too_old(s);
    } else if (rc != AT_OK) {
        stream_refuse(s, &err);
    } else {
        stream_open(s);
    }
}

/* --- what there is, before what changes: pages of one snapshot --- */

static void page_next(void *ctx);

static void page_writable(void *ctx)
{
    struct api_stream *s = ctx;
    if (s->initial_under_way && !s->reading && s->page_timer == 0) {
        page_next(s);
    }
}

/* All was shown: from here on the store tells. */
static void initial_over(struct api_stream *s)
{
    struct at_err err = {0};
    enum at_rc rc = store_watch(s, &err);
    if (rc != AT_OK) { /* the client read for so long that the history is gone */
        error_line(s, rc, err.msg);
        stream_end(s);
        return;
    }
    s->initial_under_way = false;
    if (s->initial_mark) {
        bookmark_add(s, s->after_rev, true);
    }
    flush(s);
}

static void page_show(struct api_stream *s, const struct at_store_kv *kvs, size_t n, bool more)
{
    for (size_t i = 0; i < n && !s->over; i++) {
        if (matches(s, &kvs[i])) {
            line_add(s, "ADDED", &kvs[i], kvs[i].mod_rev);
        }
    }
    if (s->over) {
        return;
    }
    if (!more) {
        initial_over(s);
        return;
    }
    snprintf(s->page_from, sizeof s->page_from, "%s\x01", kvs[n - 1].key);
    flush(s);
    /* From the loop, so that others get their turn in between. */
    if (!s->over && s->queued_bytes <= AT_API_INITIAL_AHEAD_BYTES) {
        s->page_timer = at_loop_timer(s->req->api->options.loop, 0, page_next, s);
    }
}

static void page_done(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *kvs,
                      size_t n, bool more, const struct at_err *err)
{
    struct api_stream *s = ctx;
    s->reading = false;
    if (s->over || s->req->ex == NULL) {
        s->over = true;
        stream_free(s);
        return;
    }
    if (rc != AT_OK && !s->begun) {
        stream_refuse(s, err);
        return;
    }
    s->busy = true;
    if (!s->begun) {
        s->after_rev = rev;
        stream_open(s);
        at_http_on_writable(s->req->ex, page_writable, s);
    }
    if (rc != AT_OK) {
        error_line(s, rc, "too old resource version: what there was is forgotten");
        stream_end(s);
    } else {
        page_show(s, kvs, n, more);
    }
    s->busy = false;
    if (s->over) {
        stream_free(s);
    }
}

static void page_next(void *ctx)
{
    struct api_stream *s = ctx;
    s->page_timer = 0;
    s->reading = true;
    at_store_range(s->req->api->options.store, s->page_from, s->span.single ? NULL : s->span.to,
                   AT_API_INITIAL_PAGE_KEYS, s->begun ? s->after_rev : 0, page_done, s);
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
    int64_t left_ns = req->expires_ns - at_sys_wall_ns(req->api->sys);
    if (req->expires_ns != 0 && left_ns < s->timeout_ns) {
        s->timeout_ns = left_ns > 0 ? left_ns : 1; /* no longer than its token is good */
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

/* False: answered. */
static bool room_for_another(struct api_req *req)
{
    struct at_api *api = req->api;
    size_t own = (size_t)(uintptr_t)at_map_get(api->watchers, api_asker(req));
    if (api->n_streams < api->options.watches_max && own < api->options.watches_per_user_max) {
        return true;
    }
    if (api->streams_refused_total != NULL) {
        at_metric_add(api->streams_refused_total, 1);
    }
    if (own >= api->options.watches_per_user_max) {
        api_respond_error(req, AT_EXHAUSTED, "user \"%s\" has %zu watches open, no more are taken",
                          api_asker(req), own);
    } else {
        api_respond_error(req, AT_EXHAUSTED, "%zu watches are open, no more are taken",
                          api->n_streams);
    }
    return false;
}

void api_watch(struct api_req *req)
{
    if (!room_for_another(req) || !api_list_options_check(req, true)) {
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
    if (!s->initial_events) {
        stream_begin(s);
        return;
    }
    s->initial_under_way = true;
    memcpy(s->page_from, s->span.from, sizeof s->page_from);
    page_next(s);
}

void api_streams_recheck(struct at_api *api)
{
    struct api_stream *next;
    for (struct api_stream *s = api->streams; s != NULL; s = next) {
        next = s->next;
        if (s->over || api_still_may(s->req)) {
            continue;
        }
        s->busy = true;
        if (s->req->ex != NULL && s->begun) {
            error_line(s, AT_FORBIDDEN, "the right to watch this was taken away");
        }
        stream_end(s);
        s->busy = false;
        if (!s->reading) {
            stream_free(s);
        }
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
