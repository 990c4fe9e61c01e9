#include "client/client.h"
#include "client/client_priv.h"
#include "client/limits.h"
#include "core/map.h"
#include "core/mem.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum state { STATE_LISTING, STATE_WATCHING, STATE_WAITING };

struct at_informer {
    struct at_client *client;
    const struct at_model_kind *kind;
    struct at_informer_events events;
    char path[512];
    char *query;
    struct at_map *known; /* "namespace/name" → struct known */
    enum state state;
    at_client_call_id call;
    at_timer_id timer;
    char *resource_version;
    char *list_continue;
    struct at_buf line;
    int64_t opened_ns;
    unsigned failures;
    uint32_t generation; /* of the list that runs */
    bool relist;         /* after the wait: list, not watch */
    bool opened, got_event, synced, connected, told_connection;
    bool freed;      /* at_informer_free was called from a callback */
    unsigned inside; /* callbacks on the stack */
    struct at_err watch_err;
};

struct known {
    json_t *object; /* NULL: names only */
    uint64_t uid_hash, version_hash;
    uint32_t generation;
};

static void list_start(struct at_informer *informer);
static void watch_start(struct at_informer *informer);

static void known_free(struct known *known)
{
    json_decref(known->object);
    at_free(known);
}

static void informer_destroy(struct at_informer *informer)
{
    void *known;
    for (size_t it = 0; at_map_next(informer->known, &it, NULL, &known);) {
        known_free(known);
    }
    at_map_free(informer->known);
    at_buf_done(&informer->line);
    at_free(informer->query);
    at_free(informer->resource_version);
    at_free(informer->list_continue);
    at_free(informer);
}

void at_informer_free(struct at_informer *informer)
{
    if (informer == NULL) {
        return;
    }
    assert(!informer->freed);
    informer->freed = true;
    at_loop_timer_cancel(at_client_loop(informer->client), informer->timer);
    if (informer->inside == 0) {
        at_client_cancel(informer->client, informer->call);
        informer_destroy(informer);
    }
}

/* Every entry from the loop is bracketed by these, so that a callback may free the informer. */
static void enter(struct at_informer *informer)
{
    informer->inside++;
}

static void leave(struct at_informer *informer)
{
    assert(informer->inside != 0);
    if (--informer->inside == 0 && informer->freed) {
        at_client_cancel(informer->client, informer->call);
        informer_destroy(informer);
    }
}

static void tell_connection(struct at_informer *informer, bool connected, const struct at_err *err)
{
    if (informer->told_connection && informer->connected == connected) {
        return;
    }
    informer->told_connection = true;
    informer->connected = connected;
    if (informer->events.on_connection != NULL && !informer->freed) {
        informer->events.on_connection(informer->events.ctx, connected, err);
    }
}

static void tell_object(struct at_informer *informer, json_t *object, bool deleted)
{
    if (!informer->freed) {
        informer->events.on_object(informer->events.ctx, object, deleted);
    }
}

static void on_timer(void *ctx)
{
    struct at_informer *informer = ctx;
    informer->timer = 0;
    if (informer->state == STATE_WATCHING) {
        /* Silence: the peer is gone without a word. Resume where it stopped. */
        at_client_cancel(informer->client, informer->call);
        informer->call = 0;
    }
    if (informer->relist) {
        list_start(informer);
    } else {
        watch_start(informer);
    }
}

static void timer_set(struct at_informer *informer, int64_t delay_ns)
{
    struct at_loop *loop = at_client_loop(informer->client);
    at_loop_timer_cancel(loop, informer->timer);
    informer->timer = informer->freed ? 0 : at_loop_timer(loop, delay_ns, on_timer, informer);
}

/* Exponential from 0.2 s to 10 s, half of it random, so that agents do not come back in step. */
static int64_t backoff_ns(struct at_informer *informer)
{
    unsigned doublings = informer->failures < 6 ? informer->failures : 6;
    int64_t delay = AT_CLIENT_BACKOFF_NS_MIN << doublings;
    delay = delay < AT_CLIENT_BACKOFF_NS_MAX ? delay : AT_CLIENT_BACKOFF_NS_MAX;
    uint32_t random;
    at_sys_random(at_loop_sys(at_client_loop(informer->client)), &random, sizeof random);
    return delay / 2 + (int64_t)((double)(delay / 2) * random / UINT32_MAX);
}

static void wait_then(struct at_informer *informer, bool relist, bool failed)
{
    int64_t delay = 0;
    if (failed) {
        delay = backoff_ns(informer);
        informer->failures++;
    }
    informer->state = STATE_WAITING;
    informer->relist = relist;
    timer_set(informer, delay);
}

static const char *key_of(const json_t *object, char *out, size_t size)
{
    snprintf(out, size, "%s/%s", at_json_str_at(object, "metadata.namespace", ""),
             at_json_str_at(object, "metadata.name", ""));
    return out;
}

/* FNV-1a */
static uint64_t hash_of(const char *text)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (; *text != '\0'; text++) {
        hash = (hash ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
    }
    return hash;
}

/* What is told of an object of which the name is all that was kept. */
static json_t *named(const char *key)
{
    const char *slash = strchr(key, '/');
    json_t *meta = json_pack("{s:s}", "name", slash + 1);
    if (slash > key) {
        json_object_set_new(meta, "namespace", json_stringn(key, (size_t)(slash - key)));
    }
    return json_pack("{s:o}", "metadata", meta);
}

static void object_put(struct at_informer *informer, json_t *object)
{
    char key[600];
    key_of(object, key, sizeof key);
    struct known *known = at_map_get(informer->known, key);
    bool is_new = known == NULL;
    if (is_new) {
        known = AT_NEW(struct known);
        at_map_put(informer->known, key, known);
    }
    uint64_t uid = hash_of(at_json_str_at(object, "metadata.uid", ""));
    uint64_t version = hash_of(at_json_str_at(object, "metadata.resourceVersion", ""));
    bool other = !is_new && known->uid_hash != uid;
    known->generation = informer->generation;
    if (!is_new && !other && known->version_hash == version) {
        return;
    }
    json_t *old = known->object;
    known->uid_hash = uid;
    known->version_hash = version;
    known->object = informer->events.names_only ? NULL : json_incref(object);
    if (other) { /* another object of the same name */
        json_t *before = old != NULL ? json_incref(old) : named(key);
        tell_object(informer, before, true);
        json_decref(before);
    }
    json_decref(old);
    tell_object(informer, object, false);
}

static void object_gone(struct at_informer *informer, json_t *object)
{
    char key[600];
    struct known *known = at_map_remove(informer->known, key_of(object, key, sizeof key));
    if (known != NULL) {
        tell_object(informer, object, true);
        known_free(known);
    }
}

static void list_complete(struct at_informer *informer)
{
    const char *key;
    void *value;
    for (size_t it = 0; at_map_next(informer->known, &it, &key, &value) && !informer->freed;) {
        struct known *known = value;
        if (known->generation != informer->generation) {
            json_t *object = known->object != NULL ? json_incref(known->object) : named(key);
            object_gone(informer, object);
            json_decref(object);
        }
    }
    if (!informer->synced && !informer->freed) {
        informer->synced = true;
        if (informer->events.on_synced != NULL) {
            informer->events.on_synced(informer->events.ctx);
        }
    }
}

static void list_page(struct at_informer *informer, json_t *body)
{
    size_t at;
    json_t *item;
    json_array_foreach(json_object_get(body, "items"), at, item)
    {
        if (json_is_object(item) && json_object_get(item, "kind") == NULL) {
            /* Kubernetes' own typed lists leave them out of the items. */
            json_object_set_new(item, "apiVersion", json_string(informer->kind->api_version));
            json_object_set_new(item, "kind", json_string(informer->kind->kind));
        }
        object_put(informer, item);
        if (informer->freed) {
            return;
        }
    }
    at_free(informer->list_continue);
    const char *token = at_json_str_at(body, "metadata.continue", "");
    informer->list_continue = token[0] != '\0' ? at_strdup(token) : NULL;
    if (informer->list_continue == NULL) {
        at_free(informer->resource_version);
        informer->resource_version =
            at_strdup(at_json_str_at(body, "metadata.resourceVersion", "0"));
    }
}

static void list_request(struct at_informer *informer);

static void on_list(void *ctx, enum at_rc rc, int status, json_t *body, const struct at_err *err)
{
    struct at_informer *informer = ctx;
    struct at_err local = err != NULL ? *err : (struct at_err){0};
    (void)status;
    enter(informer);
    informer->call = 0;
    if (rc == AT_OK && !json_is_array(json_object_get(body, "items"))) {
        rc = at_err_set(&local, AT_UPSTREAM, "the server's answer is no list");
    }
    if (rc != AT_OK) {
        /* An expired continue token is met by a new list, like everything else. */
        tell_connection(informer, false, &local);
        wait_then(informer, true, true);
    } else {
        tell_connection(informer, true, NULL);
        list_page(informer, body);
        if (!informer->freed && informer->list_continue != NULL) {
            list_request(informer);
        } else if (!informer->freed) {
            informer->failures = 0;
            list_complete(informer);
            wait_then(informer, false, false);
        }
    }
    leave(informer);
}

static enum at_rc list_target(const struct at_informer *informer, struct at_buf *target)
{
    enum at_rc rc = at_buf_printf(target, "%s?limit=%d", informer->path, AT_CLIENT_LIST_PAGE);
    if (rc == AT_OK && informer->list_continue != NULL) {
        rc = at_buf_append_str(target, "&continue=");
    }
    if (rc == AT_OK && informer->list_continue != NULL) {
        rc = at_client_escape(informer->list_continue, target);
    }
    if (rc == AT_OK && informer->query != NULL) {
        rc = at_buf_printf(target, "&%s", informer->query);
    }
    return rc;
}

static void list_request(struct at_informer *informer)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf target = {0};
    enum at_rc rc = list_target(informer, &target);
    informer->state = STATE_LISTING;
    informer->call =
        at_client_request(informer->client, AT_HTTP_GET, rc == AT_OK ? target.data : "", NULL, NULL,
                          on_list, informer);
}

static void list_start(struct at_informer *informer)
{
    at_free(informer->list_continue);
    informer->list_continue = NULL;
    informer->generation++;
    at_client_cancel(informer->client, informer->call); /* a watch that was given up */
    list_request(informer);
}

/* Returns false when the watch is to be given up; relist says how to go on. */
static bool watch_event(struct at_informer *informer, const json_t *event)
{
    const char *type = at_json_str_at(event, "type", "");
    json_t *object = json_object_get(event, "object");
    if (strcmp(type, "ERROR") == 0) {
        int code = (int)at_json_int_at(object, "code", 500);
        enum at_rc rc = at_client_status_err(object, code, &informer->watch_err);
        informer->relist = rc == AT_COMPACTED;
        return false;
    }
    const char *version = at_json_str_at(object, "metadata.resourceVersion", NULL);
    if (version == NULL) {
        at_err_set(&informer->watch_err, AT_UPSTREAM, "a watch event without resourceVersion");
        return false;
    }
    informer->got_event = true;
    at_free(informer->resource_version);
    informer->resource_version = at_strdup(version);
    if (strcmp(type, "DELETED") == 0) {
        object_gone(informer, object);
    } else if (strcmp(type, "BOOKMARK") != 0) {
        object_put(informer, object);
    }
    return true;
}

static bool watch_line(struct at_informer *informer, const char *line, size_t len)
{
    struct at_err err = {0};
    json_t *event = NULL;
    while (len != 0 && (line[len - 1] == '\r' || line[len - 1] == ' ')) {
        len--;
    }
    if (len == 0) {
        return true;
    }
    if (at_json_parse(line, len, &event, &err) != AT_OK) {
        at_err_set(&informer->watch_err, AT_UPSTREAM, "a watch event is no JSON: %s", err.msg);
        return false;
    }
    bool go_on = watch_event(informer, event);
    json_decref(event);
    return go_on;
}

/* Cuts the bytes into lines; what remains is kept for the next piece. */
static bool watch_take(struct at_informer *informer, const char *data, size_t len)
{
    while (len != 0 && !informer->freed) {
        const char *newline = memchr(data, '\n', len);
        size_t part = newline != NULL ? (size_t)(newline - data) : len;
        if (newline != NULL && informer->line.len == 0) {
            if (!watch_line(informer, data, part)) {
                return false;
            }
        } else if (at_buf_append(&informer->line, data, part) != AT_OK) {
            at_err_set(&informer->watch_err, AT_TOO_LARGE, "a watch event is over %zu bytes",
                       AT_CLIENT_EVENT_BYTES_MAX);
            return false;
        } else if (newline != NULL) {
            bool go_on = watch_line(informer, informer->line.data, informer->line.len);
            at_buf_clear(&informer->line);
            if (!go_on) {
                return false;
            }
        }
        size_t used = newline != NULL ? part + 1 : part;
        data += used;
        len -= used;
    }
    return true;
}

static void on_watch_open(void *ctx)
{
    struct at_informer *informer = ctx;
    enter(informer);
    informer->opened = true;
    informer->opened_ns = at_loop_now_ns(at_client_loop(informer->client));
    tell_connection(informer, true, NULL);
    leave(informer);
}

static void on_watch_body(void *ctx, const char *data, size_t len)
{
    struct at_informer *informer = ctx;
    if (informer->freed || informer->state != STATE_WATCHING) {
        return;
    }
    enter(informer);
    timer_set(informer, AT_CLIENT_WATCH_SILENCE_S * AT_NS_PER_S);
    if (!watch_take(informer, data, len) && !informer->freed) {
        /* Given up: the call is ended from the timer, never from inside its own callback. */
        informer->state = STATE_WAITING;
        bool relist = informer->relist;
        if (!relist) {
            tell_connection(informer, false, &informer->watch_err);
        }
        wait_then(informer, relist, !relist);
    }
    leave(informer);
}

static void on_watch_done(void *ctx, enum at_rc rc, int status, json_t *body,
                          const struct at_err *err)
{
    struct at_informer *informer = ctx;
    (void)body;
    (void)status;
    enter(informer);
    informer->call = 0;
    if (informer->state == STATE_WATCHING && !informer->freed) {
        int64_t lived = at_loop_now_ns(at_client_loop(informer->client)) - informer->opened_ns;
        bool worked = informer->opened && (informer->got_event || lived >= AT_NS_PER_S);
        if (worked) {
            informer->failures = 0;
        }
        if (rc != AT_OK) {
            tell_connection(informer, false, err);
        }
        wait_then(informer, rc == AT_COMPACTED, rc != AT_OK ? rc != AT_COMPACTED : !worked);
    }
    leave(informer);
}

static void watch_start(struct at_informer *informer)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf target = {0};
    enum at_rc rc = at_buf_printf(
        &target, "%s?watch=true&allowWatchBookmarks=true&resourceVersion=%s&timeoutSeconds=%d%s%s",
        informer->path, informer->resource_version, AT_CLIENT_WATCH_S,
        informer->query != NULL ? "&" : "", informer->query != NULL ? informer->query : "");
    at_client_cancel(informer->client, informer->call); /* a watch that was given up */
    at_buf_clear(&informer->line);
    informer->state = STATE_WATCHING;
    informer->relist = false;
    informer->opened = false;
    informer->got_event = false;
    informer->call = at_client_start(
        informer->client, &(struct at_client_call){.method = AT_HTTP_GET,
                                                   .path = rc == AT_OK ? target.data : "",
                                                   .no_timeout = true,
                                                   .on_open = on_watch_open,
                                                   .on_body = on_watch_body,
                                                   .done = on_watch_done,
                                                   .ctx = informer});
    timer_set(informer, AT_CLIENT_WATCH_SILENCE_S * AT_NS_PER_S);
}

struct at_informer *at_informer_new(struct at_client *client, const struct at_model_kind *kind,
                                    const char *ns, const char *query,
                                    const struct at_informer_events *events)
{
    assert(events->on_object != NULL);
    struct at_informer *informer = AT_NEW(struct at_informer);
    informer->client = client;
    informer->kind = kind;
    informer->events = *events;
    informer->query = at_strdup(query);
    informer->known = at_map_new();
    informer->line.max = AT_CLIENT_EVENT_BYTES_MAX;
    at_client_path(kind, ns, NULL, NULL, informer->path, sizeof informer->path);
    list_start(informer);
    return informer;
}
