/* What `atoll record` wrote, read back: a JSON object a line. docs/howto/simulate.md. */
#include "core/json.h"
#include "core/mem.h"
#include "core/units.h"
#include "sim/fleet.h"

#include <string.h>

struct recording {
    const char *file;
    size_t line;
    int64_t ms, last_placed_ms;
    struct at_fleet *fleet;
    struct at_map *open; /* "namespace/name" -> index of the request + 1 */
    struct at_buf key;
    struct at_err *err;
};

static enum at_rc bad(const struct recording *r, const char *what)
{
    return at_err_set(r->err, AT_INVALID, "%s:%zu: %s", r->file, r->line, what);
}

static const char *name_key(struct recording *r, const char *ns, const char *name)
{
    at_buf_clear(&r->key);
    return at_buf_printf(&r->key, "%s/%s", ns, name) == AT_OK ? r->key.data : "";
}

/* A valid object of the kind, decoded; json is kept. NULL: it says why. */
static const void *decode(struct recording *r, const struct at_model_kind *kind, json_t *json)
{
    struct at_err err = {0};
    struct at_model_report report;
    struct at_arena *arena = r->fleet->arena;
    void *object = at_arena_alloc(arena, kind->struct_size);
    if (object == NULL || at_model_default(kind, json, &err) != AT_OK) {
        (void)bad(r, object == NULL ? "the recording is too large" : err.msg);
        return NULL;
    }
    enum at_rc rc =
        at_model_validate(kind, json, NULL, AT_MODEL_UNKNOWN_DROP, arena, &report, &err);
    rc = rc == AT_OK ? at_model_decode(kind, json, arena, object, &err) : rc;
    if (rc != AT_OK) {
        at_err_set(r->err, AT_INVALID, "%s:%zu: %s %s%s%s", r->file, r->line, kind->kind, err.field,
                   err.field[0] != '\0' ? ": " : "", err.msg);
        return NULL;
    }
    json_array_append(r->fleet->kept, json);
    return object;
}

static const struct at_model_kind *kind_of(const json_t *value)
{
    static const struct at_model_kind *const KINDS[] = {
        &AT_KIND_SITE, &AT_KIND_NODE,      &AT_KIND_POLICY, &AT_KIND_DEPLOYMENT,
        &AT_KIND_JOB,  &AT_KIND_NAMESPACE, &AT_KIND_QUEUE,  &AT_KIND_RESERVATION};
    const char *name = at_json_str_at(value, "kind", "");
    for (size_t i = 0; i < AT_ARRAY_LEN(KINDS); i++) {
        if (strcmp(KINDS[i]->kind, name) == 0) {
            return KINDS[i];
        }
    }
    return NULL;
}

static enum at_rc read_put(struct recording *r, json_t *value)
{
    struct at_fleet_change c = {.at_ms = r->ms, .kind = kind_of(value)};
    if (c.kind == NULL) {
        return AT_OK; /* of a newer version: placement here does not look at it */
    }
    c.object = decode(r, c.kind, value);
    if (c.object == NULL) {
        return AT_INVALID;
    }
    const struct at_meta *meta = c.object; /* every kind begins with it */
    c.ns = meta->ns;
    c.name = meta->name;
    return at_fleet_change(r->fleet, &c, r->err);
}

static enum at_rc read_gone(struct recording *r, const json_t *value)
{
    struct at_arena *arena = r->fleet->arena;
    const char *ns = at_json_str_at(value, "namespace", NULL);
    const char *name = at_json_str_at(value, "name", "");
    struct at_fleet_change c = {.at_ms = r->ms, .kind = kind_of(value)};
    if (name[0] == '\0') {
        return bad(r, "gone needs a name");
    }
    if (c.kind == NULL) {
        return AT_OK;
    }
    c.ns = ns != NULL ? at_arena_strdup(arena, ns) : NULL;
    c.name = at_arena_strdup(arena, name);
    return c.name == NULL ? bad(r, "too large") : at_fleet_change(r->fleet, &c, r->err);
}

/* Instances of one class: equal but for their names and times. */
static const char *class_key(struct recording *r, const json_t *value)
{
    at_buf_clear(&r->key);
    json_t *parts = json_pack("{s:O?,s:O?,s:O?}", "l", at_json_at(value, "metadata.labels"), "o",
                              at_json_at(value, "metadata.ownerReferences"), "s",
                              json_object_get(value, "spec"));
    enum at_rc rc = at_json_dump_sorted(parts, &r->key);
    json_decref(parts);
    return rc == AT_OK ? r->key.data : NULL;
}

static bool of_job(const json_t *value)
{
    return at_json_str_at(json_array_get(at_json_at(value, "metadata.ownerReferences"), 0), "kind",
                          "")[0] == 'J';
}

static enum at_rc read_request(struct recording *r, json_t *value)
{
    struct at_arena *arena = r->fleet->arena;
    at_json_set_at(value, "kind", json_string("Instance"));
    at_json_set_at(value, "apiVersion", json_string(AT_KIND_INSTANCE.api_version));
    at_json_set_at(value, "spec.nodeName", NULL);
    at_json_set_at(value, "status", NULL);
    const char *key = class_key(r, value);
    const struct at_instance *like = key == NULL ? NULL : decode(r, &AT_KIND_INSTANCE, value);
    if (like == NULL) {
        return key == NULL ? bad(r, "the request is too large") : AT_INVALID;
    }
    struct at_fleet_request q = {.at_ms = r->ms,
                                 .node = AT_FLEET_NO_NODE,
                                 .life_ms = of_job(value) ? 0 : AT_FLEET_NEVER,
                                 .end_ms = AT_FLEET_NEVER,
                                 .created_wall_ns = like->meta.creation_wall_ns};
    q.ns = like->meta.ns != NULL ? like->meta.ns : "";
    q.name = at_arena_strdup(arena, like->meta.name != NULL ? like->meta.name : "");
    enum at_rc rc = at_fleet_class(r->fleet, key, like, &q.class_id, r->err);
    if (rc != AT_OK || q.name == NULL) {
        return rc != AT_OK ? rc : bad(r, "the recording is too large");
    }
    rc = at_fleet_request(r->fleet, &q, r->err);
    if (rc == AT_OK) {
        (void)at_map_put(r->open, name_key(r, q.ns, q.name),
                         (void *)(uintptr_t)r->fleet->n_requests);
    }
    return rc;
}

/* The request that a line speaks of; NULL: none that is open. */
static struct at_fleet_request *find(struct recording *r, const json_t *value)
{
    uintptr_t at =
        (uintptr_t)at_map_get(r->open, name_key(r, at_json_str_at(value, "namespace", ""),
                                                at_json_str_at(value, "name", "")));
    return at == 0 ? NULL : &r->fleet->requests[at - 1];
}

static enum at_rc read_placed(struct recording *r, const json_t *value)
{
    struct at_fleet *f = r->fleet;
    struct at_fleet_request *q = find(r, value);
    const char *node = at_json_str_at(value, "node", "");
    if (q == NULL || node[0] == '\0') {
        return bad(r, "placed needs namespace and name of a request, and a node");
    }
    q->node = at_fleet_node(f, node);
    if (q->life_ms != AT_FLEET_NEVER) {
        q->life_ms = r->ms; /* until it ends: when it began */
    }
    if (f->n_decided == 0 || f->decided_ms[f->n_decided - 1] != r->ms) {
        if (f->n_decided == f->decided_cap) {
            f->decided_cap = f->decided_cap == 0 ? 64 : 2 * f->decided_cap;
            f->decided_ms = at_realloc(f->decided_ms, f->decided_cap * sizeof *f->decided_ms);
        }
        f->decided_ms[f->n_decided++] = r->ms;
    }
    return AT_OK;
}

static enum at_rc read_ended(struct recording *r, const json_t *value)
{
    struct at_fleet_request *q = find(r, value);
    if (q == NULL) {
        return bad(r, "ended needs namespace and name of a request");
    }
    if (q->life_ms != AT_FLEET_NEVER && q->node != AT_FLEET_NO_NODE) {
        q->life_ms = r->ms - q->life_ms; /* a job runs as long wherever it is */
    } else {
        q->life_ms = AT_FLEET_NEVER;
        q->end_ms = r->ms;
    }
    (void)at_map_remove(r->open, name_key(r, q->ns, q->name));
    return AT_OK;
}

static enum at_rc read_value(struct recording *r, json_t *line)
{
    json_t *value;
    const json_t *ms = json_object_get(line, "ms");
    if (!json_is_integer(ms) || json_integer_value(ms) < r->ms ||
        json_integer_value(ms) > AT_FLEET_TIME_MS_MAX) {
        return bad(r, "ms has to be a whole number, none smaller than the one before");
    }
    r->ms = json_integer_value(ms);
    if (json_is_object(value = json_object_get(line, "put"))) {
        return read_put(r, value);
    }
    if (json_is_object(value = json_object_get(line, "gone"))) {
        return read_gone(r, value);
    }
    if (json_is_object(value = json_object_get(line, "request"))) {
        return read_request(r, value);
    }
    if (json_is_object(value = json_object_get(line, "placed"))) {
        return read_placed(r, value);
    }
    if (json_is_object(value = json_object_get(line, "ended"))) {
        return read_ended(r, value);
    }
    return json_object_get(line, "end") != NULL
               ? AT_OK
               : bad(r, "none of put, gone, request, placed, ended and end");
}

static enum at_rc read_line(struct recording *r, struct at_str text)
{
    json_t *line = NULL;
    struct at_err err = {0};
    if (text.len > AT_FLEET_LINE_BYTES_MAX) {
        return bad(r, "the line is too long");
    }
    if (at_json_parse(text.ptr, text.len, &line, &err) != AT_OK) {
        return bad(r, err.msg);
    }
    enum at_rc rc = AT_OK;
    if (!json_is_object(line)) {
        rc = bad(r, "not a JSON object");
    } else if (r->line > 1) {
        rc = read_value(r, line);
    } else if (at_json_int_at(line, "atollTrace", 0) != 1) {
        rc = bad(r, "the first line has to be {\"atollTrace\":1,...}: this is no recording of "
                    "atoll record, or one of a newer version");
    } else {
        const char *start = at_json_str_at(line, "start", "1970-01-01T00:00:00Z");
        if (at_time_parse(start, &r->fleet->start_wall_ns, NULL) != AT_OK) {
            rc = bad(r, "start is no time");
        }
    }
    json_decref(line);
    return rc;
}

/* Jobs that were still running: nobody knows how long they would have run. */
static void close_open(struct recording *r)
{
    for (size_t i = 0; i < r->fleet->n_requests; i++) {
        struct at_fleet_request *q = &r->fleet->requests[i];
        if (at_map_get(r->open, name_key(r, q->ns, q->name)) == (void *)(uintptr_t)(i + 1)) {
            q->life_ms = AT_FLEET_NEVER;
        }
    }
}

enum at_rc at_fleet_read(const char *file, struct at_str text, struct at_fleet **ret,
                         struct at_err *err)
{
    struct recording r = {.file = file, .fleet = at_fleet_new(), .open = at_map_new(), .err = err};
    enum at_rc rc = AT_OK;
    while (rc == AT_OK && text.len > 0) {
        struct at_str line = at_str_cut(&text, '\n');
        r.line++;
        rc = read_line(&r, line);
    }
    if (rc == AT_OK && r.line == 0) {
        rc = at_err_set(err, AT_INVALID, "%s:1: the file is empty", file);
    }
    if (rc == AT_OK && r.fleet->n_nodes == 0) {
        rc = at_err_set(err, AT_INVALID, "%s:%zu: no node", file, r.line);
    }
    if (rc == AT_OK) {
        close_open(&r);
        at_fleet_sort(r.fleet);
        r.fleet->end_ms = r.ms > r.fleet->end_ms ? r.ms : r.fleet->end_ms;
        *ret = r.fleet;
    } else {
        at_fleet_free(r.fleet);
    }
    at_map_free(r.open);
    at_buf_done(&r.key);
    return rc;
}
