/* Answers: Status objects for errors, objects, texts. Each of them ends the request. */
#include "api/api_priv.h"
#include "core/mem.h"
#include "core/str.h"

#include <assert.h>
#include <stdio.h>

json_t *api_status(bool success, const char *reason, int code, const char *message,
                   json_t *details_take)
{
    json_t *status = json_pack("{s:s, s:s, s:{}, s:s}", "kind", "Status", "apiVersion", "v1",
                               "metadata", "status", success ? "Success" : "Failure");
    if (message != NULL) {
        json_t *text = json_string(message);
        json_object_set_new(status, "message",
                            text != NULL ? text : json_string("(the message is not UTF-8)"));
    }
    if (reason != NULL) {
        json_object_set_new(status, "reason", json_string(reason));
    }
    if (details_take != NULL) {
        json_object_set_new(status, "details", details_take);
    }
    json_object_set_new(status, "code", json_integer(code));
    return status;
}

json_t *api_status_of(enum at_rc rc, const char *message)
{
    return api_status(false, at_rc_name(rc), at_rc_http_status(rc), message, NULL);
}

static void set_text(json_t *object, const char *key, const char *text)
{
    if (text != NULL && text[0] != '\0') {
        json_object_set_new(object, key, json_string(text));
    }
}

json_t *api_details(const struct api_req *req, const char *name)
{
    json_t *details = json_object();
    set_text(details, "name", name);
    set_text(details, "group", req->route.group);
    set_text(details, "kind", req->route.resource);
    return details;
}

const char *api_qualified_resource(struct api_req *req)
{
    const struct api_route *r = &req->route;
    if (r->group[0] == '\0') {
        return r->resource;
    }
    const char *text = at_arena_printf(req->arena, "%s.%s", r->resource, r->group);
    return text != NULL ? text : r->resource;
}

void api_warn(struct api_req *req, const char *fmt, ...)
{
    if (req->n_warnings == AT_API_WARNINGS_MAX) {
        return;
    }
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    for (char *c = text; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) {
            *c = ' ';
        }
    }
    const char *copy = at_arena_strdup(req->arena, text);
    if (copy != NULL) {
        req->warnings[req->n_warnings++] = copy;
    }
}

/* Warning header, RFC 9111 5.5 as Kubernetes uses it: 299, no agent, quoted text. */
static void warning_append(struct at_buf *headers, const char *text)
{
    size_t before = headers->len;
    enum at_rc rc = at_buf_append_str(headers, "Warning: 299 - \"");
    for (const char *c = text; rc == AT_OK && *c != '\0'; c++) {
        if (*c == '"' || *c == '\\') {
            rc = at_buf_append(headers, "\\", 1);
        }
        if (rc == AT_OK) {
            rc = at_buf_append(headers, c, 1);
        }
    }
    if (rc == AT_OK) {
        rc = at_buf_append_str(headers, "\"\r\n");
    }
    if (rc != AT_OK) {
        headers->len = before;
    }
}

void api_req_measure(struct api_req *req, int status)
{
    struct at_api *api = req->api;
    api_fair_leave(req);
    if (api->requests_total == NULL) {
        return;
    }
    char code[16];
    snprintf(code, sizeof code, "%d", status);
    const char *resource = req->route.resource[0] != '\0' ? req->route.resource : "none";
    const char *verb = req->verb != NULL ? req->verb : "none";
    at_metric_add(
        at_metric_with(api->requests_total, (const char *const[]){verb, resource, code, NULL}), 1);
    at_metric_observe_ns(at_metric_with(api->request_seconds, (const char *const[]){verb, NULL}),
                         at_sys_mono_ns(api->sys) - req->begin_ns);
}

void api_req_free(struct api_req *req)
{
    api_fair_leave(req);
    json_decref(req->body);
    json_decref(req->old);
    json_decref(req->object);
    json_decref(req->managed);
    json_decref(req->as);
    json_decref(req->claims);
    at_buf_done(&req->text);
    at_arena_free(req->arena);
    at_free(req);
}

void api_respond_text(struct api_req *req, int status, const char *content_type,
                      const char *headers, const void *text, size_t len)
{
    api_req_measure(req, status);
    uint64_t ticket = api_req_audit(req, status);
    if (req->ex == NULL) {
        api_req_free(req);
        return;
    }
    struct at_buf all = {0};
    enum at_rc rc = headers != NULL ? at_buf_append_str(&all, headers) : AT_OK;
    for (size_t i = 0; rc == AT_OK && i < req->n_warnings; i++) {
        warning_append(&all, req->warnings[i]);
    }
    if (rc == AT_OK && req->api->options.audit_log != NULL) {
        rc = at_buf_printf(&all, "Audit-Id: %s\r\n", req->id);
    }
    const char *lines = all.len > 0 ? all.data : NULL;
    if (ticket > 0) {
        api_hold(req, ticket, status, content_type, lines, text, len);
    } else {
        at_http_respond(req->ex, status, content_type, lines, text, len);
        api_req_free(req);
    }
    at_buf_done(&all);
}

void api_respond_json(struct api_req *req, int status, json_t *value_take)
{
    struct at_buf text = {0};
    bool later = status == 429 || status == 503 ||
                 at_json_at(value_take, "details.retryAfterSeconds") != NULL;
    const char *retry = later ? "Retry-After: 1\r\n" : NULL;
    if (value_take == NULL || at_json_dump(value_take, &text) != AT_OK) {
        static const char BROKEN[] =
            "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\","
            "\"message\":\"the answer cannot be "
            "written\",\"reason\":\"InternalError\",\"code\":500}";
        api_respond_text(req, 500, "application/json", NULL, BROKEN, sizeof BROKEN - 1);
    } else {
        api_respond_text(req, status, "application/json", retry, text.data, text.len);
    }
    at_buf_done(&text);
    json_decref(value_take);
}

static void respond_table(struct api_req *req, int status, const json_t *object)
{
    json_t *table = api_table_new(api_view_kind(req), true);
    const char *rv = at_json_str_at(object, "metadata.resourceVersion", "");
    json_object_set_new(table, "metadata", json_pack("{s:s}", "resourceVersion", rv));
    api_table_add(table, req, object, req->table, req->arena);
    api_respond_json(req, status, table);
}

void api_respond_object_json(struct api_req *req, int status, json_t *object_take)
{
    json_t *object = api_view_object(req, object_take);
    if (req->table != API_TABLE_NONE && status < 300) {
        respond_table(req, status, object);
        json_decref(object);
        return;
    }
    api_respond_json(req, status, object);
}

void api_respond_object(struct api_req *req, int status, const char *value, size_t len, int64_t rev)
{
    struct at_err err = {0};
    if (req->table != API_TABLE_NONE) {
        json_t *object = NULL;
        if (at_object_decode(value, len, rev, &object, &err) != AT_OK) {
            api_respond_err(req, &err);
            return;
        }
        api_respond_object_json(req, status, object);
        return;
    }
    struct at_buf text = {0};
    enum at_rc rc = api_view_append(req, value, len, rev, &text);
    if (rc != AT_OK) {
        api_respond_error(req, rc, "the stored object cannot be read");
    } else {
        api_respond_text(req, status, "application/json", NULL, text.data, text.len);
    }
    at_buf_done(&text);
}

void api_respond_error(struct api_req *req, enum at_rc rc, const char *fmt, ...)
{
    char message[AT_ERR_MSG_BYTES_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    api_respond_json(req, at_rc_http_status(rc), api_status_of(rc, message));
}

void api_respond_err(struct api_req *req, const struct at_err *err)
{
    assert(err->rc != AT_OK);
    if (err->field[0] != '\0' && strstr(err->msg, err->field) == NULL) {
        api_respond_error(req, err->rc, "%s: %s", err->field, err->msg);
        return;
    }
    api_respond_error(req, err->rc, "%s", err->msg);
}

static void respond_about(struct api_req *req, enum at_rc rc, const char *name, const char *what)
{
    const char *message =
        at_arena_printf(req->arena, "%s \"%s\" %s", api_qualified_resource(req), name, what);
    api_respond_json(
        req, at_rc_http_status(rc),
        api_status(false, at_rc_name(rc), at_rc_http_status(rc), message, api_details(req, name)));
}

void api_respond_not_found(struct api_req *req)
{
    respond_about(req, AT_NOT_FOUND, req->route.name, "not found");
}

void api_respond_exists(struct api_req *req, const char *name)
{
    respond_about(req, AT_EXISTS, name, "already exists");
}

void api_respond_conflict(struct api_req *req, const char *why)
{
    const char *message =
        at_arena_printf(req->arena, "Operation cannot be fulfilled on %s \"%s\": %s",
                        api_qualified_resource(req), req->route.name, why);
    api_respond_json(
        req, 409, api_status(false, "Conflict", 409, message, api_details(req, req->route.name)));
}

void api_respond_forbidden(struct api_req *req, const char *reason)
{
    api_respond_forbidden_of(req, req->route.name, reason);
}

void api_respond_forbidden_of(struct api_req *req, const char *name, const char *reason)
{
    const char *message;
    name = name != NULL ? name : "";
    if (req->route.target != API_RESOURCE) {
        message = at_arena_printf(req->arena, "forbidden: %s", reason);
    } else if (name[0] == '\0') {
        message =
            at_arena_printf(req->arena, "%s is forbidden: %s", api_qualified_resource(req), reason);
    } else {
        message = at_arena_printf(req->arena, "%s \"%s\" is forbidden: %s",
                                  api_qualified_resource(req), name, reason);
    }
    api_respond_json(req, 403,
                     api_status(false, "Forbidden", 403, message, api_details(req, name)));
}

void api_respond_invalid(struct api_req *req, const char *name, const struct at_model_cause *causes,
                         size_t n)
{
    const struct at_model_kind *kind = req->route.kind;
    struct at_buf text = {.max = 65536};
    json_t *list = json_array();
    enum at_rc rc = at_buf_printf(&text, "%s%s%s \"%s\" is invalid: %s", kind->kind,
                                  kind->group[0] != '\0' ? "." : "", kind->group,
                                  name != NULL ? name : "", n > 1 ? "[" : "");
    for (size_t i = 0; i < n; i++) {
        json_t *cause = json_object();
        set_text(cause, "reason", causes[i].reason);
        set_text(cause, "message", causes[i].message);
        set_text(cause, "field", causes[i].field);
        json_array_append_new(list, cause);
        if (rc == AT_OK) {
            rc = at_buf_printf(&text, "%s%s: %s", i > 0 ? ", " : "", causes[i].field,
                               causes[i].message);
        }
    }
    if (rc == AT_OK && n > 1) {
        rc = at_buf_append(&text, "]", 1);
    }
    json_t *details = json_object();
    set_text(details, "name", name);
    set_text(details, "group", kind->group);
    json_object_set_new(details, "kind", json_string(kind->kind));
    json_object_set_new(details, "causes", list);
    api_respond_json(
        req, 422,
        api_status(false, "Invalid", 422, text.data != NULL ? text.data : "invalid", details));
    at_buf_done(&text);
}
