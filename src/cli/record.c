/* atoll record: what comes and goes on a server, a line of JSON each, for atoll sim to replay. */
#include "cli/cli_priv.h"
#include "core/map.h"
#include "core/str.h"
#include "sys/fd.h"
#include "sys/file.h"

#include <signal.h>
#include <string.h>

#define TICK_NS (250 * AT_NS_PER_MS)

/* Objects that placement looks at; instances apart. */
static const struct at_model_kind *const KINDS[] = {
    &AT_KIND_SITE, &AT_KIND_NODE,      &AT_KIND_POLICY, &AT_KIND_DEPLOYMENT,
    &AT_KIND_JOB,  &AT_KIND_NAMESPACE, &AT_KIND_QUEUE,  &AT_KIND_RESERVATION};
#define INFORMERS (AT_ARRAY_LEN(KINDS) + 1)

struct record {
    struct cli *cli;
    int fd;
    struct at_informer *informers[INFORMERS];
    size_t synced;
    struct at_map *told; /* "Kind/namespace/name" -> what was written of it last, as text */
    struct at_buf key, line;
    int64_t start_ns;
    size_t requests, placed, ended;
    bool stop, ticked;
    enum at_rc rc;
    struct at_err err;
};

static const char *key_of(struct record *r, const json_t *object)
{
    at_buf_clear(&r->key);
    enum at_rc rc = at_buf_printf(&r->key, "%s/%s/%s", at_json_str_at(object, "kind", ""),
                                  at_json_str_at(object, "metadata.namespace", ""),
                                  at_json_str_at(object, "metadata.name", ""));
    return rc == AT_OK ? r->key.data : "";
}

static enum at_rc write_line(struct record *r)
{
    for (size_t at = 0; at < r->line.len;) {
        size_t wrote = 0;
        enum at_rc rc = at_fd_write(r->fd, r->line.data + at, r->line.len - at, &wrote);
        if (rc != AT_OK) {
            return at_err_set(&r->err, rc, "%s cannot be written", r->cli->args[0]);
        }
        at += wrote;
    }
    return AT_OK;
}

/* {"ms":...,what:value}; takes value. Before everything was listed the time stands still. */
static void tell(struct record *r, const char *what, json_t *value_take)
{
    int64_t ns = r->synced == INFORMERS ? at_loop_now_ns(r->cli->loop) - r->start_ns : 0;
    json_t *line = json_pack("{s:I,s:o}", "ms", (json_int_t)(ns / AT_NS_PER_MS), what, value_take);
    at_buf_clear(&r->line);
    enum at_rc rc = at_json_dump(line, &r->line);
    rc = rc == AT_OK ? at_buf_append_str(&r->line, "\n") : rc;
    rc = rc == AT_OK ? write_line(r) : at_err_set(&r->err, rc, "an object is too large");
    json_decref(line);
    if (rc != AT_OK && r->rc == AT_OK) {
        r->rc = rc;
    }
}

static void copy(json_t *to, const json_t *from, const char *path)
{
    json_t *value = at_json_at(from, path);
    if (value != NULL) {
        at_json_set_at(to, path, json_deep_copy(value));
    }
}

/* Only whether it is ready: heartbeats change the rest all the time. */
static json_t *conditions_of(const json_t *node)
{
    json_t *list = json_array(), *item;
    size_t at;
    json_array_foreach(at_json_at(node, "status.conditions"), at, item)
    {
        if (strcmp(at_json_str_at(item, "type", ""), "Ready") == 0) {
            json_array_append_new(list, json_pack("{s:s,s:s}", "type", "Ready", "status",
                                                  at_json_str_at(item, "status", "Unknown")));
        }
    }
    return list;
}

/* What placement looks at, without what people wrote for others: no annotations, no environment. */
static json_t *trim(const json_t *object, const struct at_model_kind *kind)
{
    static const char *const COMMON[] = {"apiVersion",
                                         "kind",
                                         "metadata.name",
                                         "metadata.namespace",
                                         "metadata.labels",
                                         "metadata.ownerReferences",
                                         "metadata.creationTimestamp",
                                         "spec"};
    static const char *const OF_NODES[] = {"status.capacity", "status.allocatable",
                                           "status.gpus",     "status.numaNodes",
                                           "status.models",   "status.drivers"};
    static const char *const PRIVATE[] = {"spec.env", "spec.args", "spec.template.spec.env",
                                          "spec.template.spec.args",
                                          "spec.template.metadata.annotations"};
    json_t *out = json_object();
    for (size_t i = 0; i < AT_ARRAY_LEN(COMMON); i++) {
        copy(out, object, COMMON[i]);
    }
    for (size_t i = 0; kind == &AT_KIND_NODE && i < AT_ARRAY_LEN(OF_NODES); i++) {
        copy(out, object, OF_NODES[i]);
    }
    if (kind == &AT_KIND_NODE) {
        at_json_set_at(out, "status.conditions", conditions_of(object));
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(PRIVATE); i++) {
        if (at_json_at(out, PRIVATE[i]) != NULL) {
            at_json_set_at(out, PRIVATE[i], NULL);
        }
    }
    return out;
}

static json_t *ref_of(const json_t *object)
{
    return json_pack("{s:s,s:s}", "namespace", at_json_str_at(object, "metadata.namespace", ""),
                     "name", at_json_str_at(object, "metadata.name", ""));
}

/* --- instances: asked for, placed, ended --- */

struct seen {
    char *uid;
    bool placed, ended;
};

static void seen_free(struct seen *s)
{
    if (s != NULL) {
        at_free(s->uid);
        at_free(s);
    }
}

static void instance_ended(struct record *r, struct seen *s, const json_t *object)
{
    if (s != NULL && !s->ended) {
        s->ended = true;
        r->ended++;
        tell(r, "ended", ref_of(object));
    }
}

static struct seen *instance_asked(struct record *r, const json_t *object, const char *uid)
{
    struct seen *s = AT_NEW(struct seen);
    s->uid = at_strdup(uid);
    seen_free(at_map_put(r->told, key_of(r, object), s));
    json_t *request = trim(object, &AT_KIND_INSTANCE);
    at_json_set_at(request, "spec.nodeName", NULL);
    r->requests++;
    tell(r, "request", request);
    return s;
}

static void on_instance(void *ctx, json_t *object, bool deleted)
{
    struct record *r = ctx;
    struct seen *s = at_map_get(r->told, key_of(r, object));
    const char *uid = at_json_str_at(object, "metadata.uid", "");
    const char *node = at_json_str_at(object, "spec.nodeName", "");
    const char *phase = at_json_str_at(object, "status.phase", "");
    bool over = strcmp(phase, "Succeeded") == 0 || strcmp(phase, "Failed") == 0;
    if (s != NULL && strcmp(s->uid, uid) != 0) {
        instance_ended(r, s, object); /* another one of the same name */
        s = NULL;
    }
    if (s == NULL && (deleted || over)) {
        return; /* it was over before we looked */
    }
    s = s != NULL ? s : instance_asked(r, object, uid);
    if (node[0] != '\0' && !s->placed) {
        s->placed = true;
        r->placed++;
        json_t *where = ref_of(object);
        json_object_set_new(where, "node", json_string(node));
        tell(r, "placed", where);
    }
    if (deleted || over) {
        instance_ended(r, s, object);
    }
    if (deleted) {
        seen_free(at_map_remove(r->told, key_of(r, object)));
    }
}

/* --- everything else: written when what placement looks at has changed --- */

static const struct at_model_kind *kind_of(const json_t *object)
{
    const char *name = at_json_str_at(object, "kind", "");
    for (size_t i = 0; i < AT_ARRAY_LEN(KINDS); i++) {
        if (strcmp(name, KINDS[i]->kind) == 0) {
            return KINDS[i];
        }
    }
    return NULL;
}

static void on_object(void *ctx, json_t *object, bool deleted)
{
    struct record *r = ctx;
    const struct at_model_kind *kind = kind_of(object);
    if (kind == NULL) {
        return;
    }
    if (deleted) {
        json_t *gone = ref_of(object);
        json_object_set_new(gone, "kind", json_string(kind->kind));
        at_free(at_map_remove(r->told, key_of(r, object)));
        tell(r, "gone", gone);
        return;
    }
    json_t *now = trim(object, kind);
    struct at_buf text = {0};
    if (at_json_dump(now, &text) != AT_OK) {
        json_decref(now);
        at_buf_done(&text);
        return;
    }
    if (at_streq(at_map_get(r->told, key_of(r, object)), text.data)) {
        json_decref(now);
        at_buf_done(&text);
        return;
    }
    at_free(at_map_put(r->told, key_of(r, object), at_buf_steal(&text, NULL)));
    tell(r, "put", now);
}

static void on_synced(void *ctx)
{
    struct record *r = ctx;
    if (++r->synced == INFORMERS) {
        r->start_ns = at_loop_now_ns(r->cli->loop);
    }
}

/* A connection that was lost comes again, and the watch goes on where it stopped. */
static void on_connection(void *ctx, bool connected, const struct at_err *err)
{
    struct record *r = ctx;
    if (connected || r->rc != AT_OK || (r->synced == INFORMERS && at_rc_retryable(err->rc))) {
        return;
    }
    r->rc = err->rc;
    r->err = *err;
}

static void on_signal(void *ctx, int signal_number)
{
    struct record *r = ctx;
    (void)signal_number;
    r->stop = true;
}

static void on_tick(void *ctx)
{
    struct record *r = ctx;
    r->ticked = true;
    fprintf(r->cli->env->err,
            "\r\033[Krecording: %zu requests, %zu placed, %zu ended; Ctrl-C ends it", r->requests,
            r->placed, r->ended);
    fflush(r->cli->env->err);
    (void)at_loop_timer(r->cli->loop, TICK_NS, on_tick, r);
}

static enum at_rc begin(struct record *r, struct at_err *err)
{
    const char *path = r->cli->args[0];
    char start[AT_UNITS_TEXT_BYTES_MAX];
    enum at_rc rc = cli_connect(r->cli, err);
    if (rc == AT_OK && strcmp(path, "-") == 0) {
        r->fd = at_fd_dup(1);
    } else if (rc == AT_OK) {
        rc = at_file_exists(path)
                 ? at_err_set(err, AT_CONFLICT, "%s is there already; give another name", path)
                 : at_file_open_append(path, 0600, &r->fd, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    json_t *head = json_pack("{s:i,s:s}", "atollTrace", 1, "start",
                             at_time_format(at_sys_wall_ns(r->cli->env->sys), start));
    rc = at_json_dump(head, &r->line);
    rc = rc == AT_OK ? at_buf_append_str(&r->line, "\n") : rc;
    rc = rc == AT_OK ? write_line(r) : rc;
    json_decref(head);
    struct at_informer_events events = {r, on_object, on_synced, on_connection};
    for (size_t i = 0; rc == AT_OK && i < AT_ARRAY_LEN(KINDS); i++) {
        r->informers[i] = at_informer_new(r->cli->client, KINDS[i], NULL, NULL, &events);
    }
    events.on_object = on_instance;
    if (rc == AT_OK) {
        r->informers[INFORMERS - 1] =
            at_informer_new(r->cli->client, &AT_KIND_INSTANCE, NULL, NULL, &events);
    }
    return rc;
}

static void done(struct record *r)
{
    const char *key;
    void *value;
    for (size_t i = 0; i < INFORMERS; i++) {
        at_informer_free(r->informers[i]);
    }
    for (size_t it = 0; at_map_next(r->told, &it, &key, &value);) {
        if (strncmp(key, "Instance/", 9) == 0) {
            seen_free(value);
        } else {
            at_free(value);
        }
    }
    at_map_free(r->told);
    at_buf_done(&r->key);
    at_buf_done(&r->line);
    at_file_close(r->fd);
}

/* Until Ctrl-C, or for so long. */
static enum at_rc watch(struct record *r, int64_t for_ns, struct at_err *err)
{
    struct at_loop *loop = r->cli->loop;
    enum at_rc rc = at_loop_signal(loop, SIGINT, on_signal, r, err);
    rc = rc == AT_OK ? at_loop_signal(loop, SIGTERM, on_signal, r, err) : rc;
    if (rc != AT_OK) {
        return rc;
    }
    if (r->cli->env->err_is_terminal) {
        (void)at_loop_timer(loop, 0, on_tick, r);
    }
    int64_t now_ns = at_loop_now_ns(loop);
    int64_t until_ns = for_ns < INT64_MAX - now_ns ? now_ns + for_ns : INT64_MAX;
    while (r->rc == AT_OK && !r->stop && at_loop_now_ns(loop) < until_ns &&
           at_loop_turn(loop, until_ns)) {
    }
    if (r->rc == AT_OK) {
        tell(r, "end", json_object());
    }
    if (r->rc != AT_OK) {
        *err = r->err;
        err->rc = r->rc;
    }
    return r->rc;
}

enum at_rc cli_record(struct cli *cli, struct at_err *err)
{
    struct record r = {.cli = cli, .fd = -1, .told = at_map_new()};
    int64_t for_ns = INT64_MAX;
    enum at_rc rc = cli_duration(cli, OPT_DURATION, INT64_MAX, &for_ns, err);
    rc = rc == AT_OK ? begin(&r, err) : rc;
    rc = rc == AT_OK ? watch(&r, for_ns, err) : rc;
    if (rc == AT_OK) {
        fprintf(cli->env->err, "%srecorded %zu requests, %zu placed, %zu ended\n",
                r.ticked ? "\r\033[K" : "", r.requests, r.placed, r.ended);
    }
    done(&r);
    return rc;
}
