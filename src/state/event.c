/* core v1 Events about objects. The name of an Event is a digest of what it says, so an equal one
 * is found by its key and counted up, across restarts too. */
#include "core/digest.h"
#include "core/mem.h"
#include "core/str.h"
#include "state/state_priv.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define COMPONENT "atoll"
#define NAME_DIGITS 16
#define OBJECT_NAME_BYTES_MAX 230 /* so that <name>.<digits> stays within 253 */

/* One Event being written; equal ones that come meanwhile are counted and written after it. */
struct at_state_event_write {
    struct at_state *state; /* NULL: gone */
    char key[AT_STORE_KEY_BYTES_MAX];
    char *name, *ns;
    struct at_buf said; /* the members that stay as they are, as text */
    int64_t counted;    /* occurrences in the write that is under way */
    int64_t more;       /* and all that are not yet written */
};

static void event_write_free(struct at_state_event_write *w)
{
    at_buf_done(&w->said);
    at_free(w->name);
    at_free(w->ns);
    at_free(w);
}

void at_state_events_done(struct at_state *state)
{
    void *value;
    at_loop_timer_cancel(state->loop, state->sweep_timer);
    for (size_t it = 0; at_map_next(state->events, &it, NULL, &value);) {
        struct at_state_event_write *w = value;
        w->state = NULL; /* the write's answer frees it */
    }
    at_map_free(state->events);
}

static json_t *time_text(int64_t wall_ns)
{
    char text[AT_UNITS_TEXT_BYTES_MAX];
    return json_string(at_time_format(wall_ns, text));
}

static bool recent(const json_t *event, int64_t now_wall_ns, int64_t within_ns)
{
    int64_t last;
    const char *text = at_json_str_at(event, "lastTimestamp", NULL);
    return text != NULL && at_time_parse(text, &last, NULL) == AT_OK &&
           now_wall_ns - last < within_ns;
}

static void write_event(struct at_state_event_write *w);

static void on_event_written(void *ctx, enum at_rc rc, int64_t rev,
                             const struct at_store_kv *current, const struct at_err *err)
{
    struct at_state_event_write *w = ctx;
    (void)rev;
    (void)current;
    (void)err;
    if (w->state == NULL) {
        event_write_free(w);
        return;
    }
    /* Somebody else wrote or deleted it: once more on what is there now. Other failures drop it. */
    bool again = rc == AT_CONFLICT || rc == AT_EXISTS || rc == AT_NOT_FOUND;
    if (rc == AT_OK) {
        w->more -= w->counted;
        again = w->more > 0;
    }
    if (again) {
        write_event(w);
        return;
    }
    at_map_remove(w->state->events, w->key);
    event_write_free(w);
}

/* A new Event with all that was counted: made by hand, since each placement makes one. */
static enum at_rc new_text(const struct at_state_event_write *w, int64_t now_wall_ns,
                           struct at_buf *out)
{
    char uid[AT_OBJECT_UID_BYTES], now[AT_UNITS_TEXT_BYTES_MAX], created[AT_UNITS_TEXT_BYTES_MAX];
    at_object_uid(at_loop_sys(w->state->loop), uid);
    at_time_format(now_wall_ns, now);
    at_time_format(now_wall_ns - now_wall_ns % AT_NS_PER_S, created);
    enum at_rc rc =
        at_buf_printf(out,
                      "{\"apiVersion\":\"%s\",\"kind\":\"Event\",\"metadata\":{\"name\":\"%s\","
                      "\"namespace\":\"%s\","
                      "\"uid\":\"%s\",\"creationTimestamp\":\"%s\",\"generation\":1}",
                      at_model_api_version(&AT_KIND_EVENT), w->name, w->ns, uid, created);
    rc = rc == AT_OK ? at_buf_append(out, w->said.data, w->said.len) : rc;
    return rc == AT_OK ? at_buf_printf(out,
                                       ",\"firstTimestamp\":\"%s\",\"lastTimestamp\":\"%s\","
                                       "\"count\":%lld}",
                                       now, now, (long long)w->more)
                       : rc;
}

/* Fold w->more occurrences into the stored Event, or make it. */
static enum at_rc merged(struct at_state_event_write *w, int64_t now_wall_ns, struct at_buf *out,
                         int64_t *ret_expect)
{
    AT_CLEANUP(at_cleanup_json) json_t *event = NULL;
    int64_t rev = 0;
    bool there = at_state_read(w->state, w->key, &event, &rev, NULL) == AT_OK;
    *ret_expect = there ? rev : 0;
    w->counted = w->more;
    if (!there || !recent(event, now_wall_ns, AT_STATE_EVENT_SAME_NS)) {
        return new_text(w, now_wall_ns, out);
    }
    at_object_strip_rv(event);
    json_object_set_new(event, "lastTimestamp", time_text(now_wall_ns));
    json_object_set_new(event, "count", json_integer(w->more + at_json_int_at(event, "count", 1)));
    return at_object_encode(event, out, NULL);
}

static void write_event(struct at_state_event_write *w)
{
    int64_t expect;
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (merged(w, at_sys_wall_ns(at_loop_sys(w->state->loop)), &text, &expect) != AT_OK) {
        at_map_remove(w->state->events, w->key);
        event_write_free(w);
        return;
    }
    at_store_write(w->state->store,
                   &(struct at_store_write){.key = w->key,
                                            .value = text.data,
                                            .len = text.len,
                                            .expect = expect,
                                            .ttl_s = at_state_ttl_s(&AT_KIND_EVENT),
                                            .fn = on_event_written,
                                            .ctx = w});
}

/* The Event's name: <object>.<digest of what it says>. */
static void name_of(const struct at_model_kind *kind, const struct at_meta *about, const char *type,
                    const char *reason, const char *message, char *out, size_t out_size)
{
    char hex[AT_SHA256_HEX_BYTES];
    AT_CLEANUP(at_cleanup_free)
    char *said =
        at_asprintf("%s\n%s\n%s\n%s\n%s\n%s\n%s", kind->kind, about->ns != NULL ? about->ns : "",
                    about->name, about->uid != NULL ? about->uid : "", type, reason, message);
    at_sha256_hex(said, strlen(said), hex);
    snprintf(out, out_size, "%.*s.%.*s", OBJECT_NAME_BYTES_MAX, about->name, NAME_DIGITS, hex);
}

/* One more member of text; value NULL: none. */
static enum at_rc say(struct at_buf *text, const char *before, const char *value)
{
    enum at_rc rc = value != NULL ? at_buf_append_str(text, before) : AT_OK;
    return value != NULL && rc == AT_OK ? at_json_dump_text(value, strlen(value), text) : rc;
}

/* What the Event says, but for its own metadata, times and count. */
static enum at_rc said(const struct at_model_kind *kind, const struct at_meta *about,
                       const char *type, const char *reason, const char *message,
                       struct at_buf *out)
{
    const char *const members[][2] = {
        {",\"involvedObject\":{\"apiVersion\":", at_model_api_version(kind)},
        {",\"kind\":", kind->kind},
        {",\"namespace\":", about->ns},
        {",\"name\":", about->name},
        {",\"uid\":", about->uid},
        {",\"resourceVersion\":", about->resource_version},
        {"},\"reason\":", reason},
        {",\"message\":", message},
        {",\"type\":", type},
        {",\"source\":{\"component\":", COMPONENT},
        {"},\"reportingComponent\":", COMPONENT},
    };
    enum at_rc rc = AT_OK;
    for (size_t k = 0; k < AT_ARRAY_LEN(members) && rc == AT_OK; k++) {
        rc = say(out, members[k][0], members[k][1]);
    }
    return rc;
}

void at_state_event(struct at_state *state, const struct at_model_kind *kind,
                    const struct at_meta *about, bool warning, const char *reason, const char *fmt,
                    ...)
{
    char message[AT_STATE_EVENT_MESSAGE_BYTES_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    const char *ns = about->ns != NULL ? about->ns : "default";
    const char *type = warning ? "Warning" : "Normal";
    char name[300], key[AT_STORE_KEY_BYTES_MAX];
    name_of(kind, about, type, reason, message, name, sizeof name);
    at_state_key(&AT_KIND_EVENT, ns, name, key, sizeof key);
    struct at_state_event_write *w = at_map_get(state->events, key);
    if (w != NULL) {
        w->more++;
        return;
    }
    if (at_map_count(state->events) >= AT_STATE_EVENTS_IN_FLIGHT_MAX) {
        return;
    }
    w = AT_NEW(struct at_state_event_write);
    *w = (struct at_state_event_write){
        .state = state, .name = at_strdup(name), .ns = at_strdup(ns), .more = 1};
    if (said(kind, about, type, reason, message, &w->said) != AT_OK) {
        event_write_free(w);
        return;
    }
    snprintf(w->key, sizeof w->key, "%s", key);
    at_map_put(state->events, key, w);
    write_event(w);
}

static void on_sweep(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *kvs, size_t n,
                     bool more, const struct at_err *err)
{
    struct at_state *state = ctx;
    (void)rev;
    (void)err;
    assert(rc == AT_OK);
    int64_t now = at_sys_wall_ns(at_loop_sys(state->loop));
    for (size_t i = 0; i < n; i++) {
        AT_CLEANUP(at_cleanup_json) json_t *event = NULL;
        if (kvs[i].ttl_s != 0) { /* the store deletes it; those of earlier versions it does not */
            continue;
        }
        if (at_object_decode(kvs[i].value, kvs[i].value_len, kvs[i].mod_rev, &event, NULL) ==
                AT_OK &&
            !recent(event, now, AT_STATE_EVENT_TTL_NS)) {
            at_store_delete(state->store, kvs[i].key, kvs[i].mod_rev, NULL, NULL);
        }
    }
    /* Go on just after the last key; from the beginning once the end was reached. */
    bool none = n == 0 && state->sweep_from[0] == '\0';
    state->sweep_from[0] = '\0';
    if (more) {
        snprintf(state->sweep_from, sizeof state->sweep_from, "%s\x01", kvs[n - 1].key);
    }
    if (!none) {
        at_state_sweep_arm(state);
    }
}

static void sweep(void *ctx)
{
    struct at_state *state = ctx;
    state->sweep_timer = 0;
    char from[AT_STORE_KEY_BYTES_MAX];
    char to[AT_STORE_KEY_BYTES_MAX];
    at_state_key(&AT_KIND_EVENT, NULL, NULL, from, sizeof from);
    at_store_prefix_end(from, to, sizeof to);
    at_store_range(state->store, state->sweep_from[0] != '\0' ? state->sweep_from : from, to,
                   AT_STATE_EVENT_SWEEP_MAX, 0, on_sweep, state);
}

void at_state_sweep_arm(struct at_state *state)
{
    if (state->sweep_timer == 0) {
        state->sweep_timer = at_loop_timer(state->loop, AT_STATE_EVENT_SWEEP_NS, sweep, state);
    }
}
