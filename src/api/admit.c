/* Admission: what a client may send for an object. */
#include "api/api_priv.h"
#include "api/entry.h"
#include "core/mem.h"
#include "core/str.h"

static enum at_rc same_or_set(json_t *object, const char *key, const char *want, struct at_err *err)
{
    const json_t *have = json_object_get(object, key);
    if (have == NULL || (json_is_string(have) && json_string_length(have) == 0)) {
        json_object_set_new(object, key, json_string(want));
        return AT_OK;
    }
    if (!at_streq(json_string_value(have), want)) {
        const char *text = json_string_value(have);
        return at_err_set(err, AT_BAD_REQUEST,
                          "%s in the body (%.100s) does not match the expected %s (%s)", key,
                          text != NULL ? text : "not a string", key, want);
    }
    return AT_OK;
}

enum at_rc api_admit_shape(struct api_req *req, json_t *object, struct at_err *err)
{
    const struct api_route *r = &req->route;
    if (!json_is_object(object)) {
        return at_err_set(err, AT_BAD_REQUEST, "the body must be a JSON object");
    }
    enum at_rc rc = same_or_set(object, "apiVersion", at_model_api_version(r->kind), err);
    if (rc == AT_OK) {
        rc = same_or_set(object, "kind", r->kind->kind, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    json_t *meta = json_object_get(object, "metadata");
    if (meta == NULL || json_is_null(meta)) {
        json_object_set_new(object, "metadata", json_object());
        meta = json_object_get(object, "metadata");
    }
    if (!json_is_object(meta)) {
        return at_err_set_field(err, AT_BAD_REQUEST, "metadata", "must be an object");
    }
    const char *key;
    void *next;
    json_t *value;
    json_object_foreach_safe(meta, next, key, value)
    {
        if (json_is_null(value)) { /* as if it were not there */
            json_object_del(meta, key);
        }
    }
    const char *ns = at_object_ns(object);
    if (r->kind->namespaced && ns != NULL && ns[0] != '\0' && !at_streq(ns, r->ns)) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "the namespace of the provided object does not match the namespace sent "
                          "on the request");
    }
    if (r->kind->namespaced) {
        json_object_set_new(meta, "namespace", json_string(r->ns));
    }
    const char *name = at_object_name(object);
    if (r->name[0] != '\0' && name != NULL && name[0] != '\0' && !at_streq(name, r->name)) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "the name of the object (%.253s) does not match the name on the URL (%s)",
                          name, r->name);
    }
    if (r->name[0] != '\0') {
        json_object_set_new(meta, "name", json_string(r->name));
    }
    return AT_OK;
}

static void respond_report(struct api_req *req, const json_t *object,
                           const struct at_model_report *report, const struct at_err *err)
{
    const char *name = at_object_name(object);
    if (req->unknown == AT_MODEL_UNKNOWN_REFUSE && report->n_unknown > 0) {
        /* First of all, as in Kubernetes: an invalid field beside a misspelt one is often its
         * effect. */
        struct at_buf text = {.max = 4096};
        enum at_rc rc = AT_OK;
        for (size_t i = 0; rc == AT_OK && i < report->n_unknown; i++) {
            rc = at_buf_printf(&text, "%sunknown field \"%s\"", i > 0 ? ", " : "",
                               report->unknown[i]);
        }
        const char *all = text.data != NULL ? at_arena_strdup(req->arena, text.data) : NULL;
        at_buf_done(&text);
        api_respond_error(req, AT_BAD_REQUEST, "strict decoding error: %s",
                          all != NULL ? all : "unknown fields");
        return;
    }
    if (report->n_causes > 0) {
        api_respond_invalid(req, name, report->causes, report->n_causes);
        return;
    }
    if (err->rc == AT_INVALID) {
        struct at_model_cause cause = {
            .reason = "FieldValueInvalid", .field = err->field, .message = err->msg};
        api_respond_invalid(req, name, &cause, 1);
        return;
    }
    api_respond_err(req, err);
}

bool api_admit(struct api_req *req, json_t *object, const json_t *old)
{
    const struct at_model_kind *kind = req->route.kind;
    struct at_model_report report = {0};
    struct at_err err = {0};
    if (at_model_default(kind, object, &err) != AT_OK) {
        respond_report(req, object, &report, &err);
        return false;
    }
    if (!api_access_token_admits(req)) {
        return false;
    }
    if (api_agent_admits(req, old, object, &err) != AT_OK) {
        api_respond_forbidden(req, err.msg);
        return false;
    }
    if (at_model_validate(kind, object, old, req->unknown, req->arena, &report, &err) != AT_OK) {
        respond_report(req, object, &report, &err);
        return false;
    }
    if (!api_rights_admit(req, old, object) || !api_scan_admits(req, object, old)) {
        return false;
    }
    if (req->unknown == AT_MODEL_UNKNOWN_WARN) {
        for (size_t i = 0; i < report.n_unknown; i++) {
            api_warn(req, "unknown field \"%s\"", report.unknown[i]);
        }
    }
    return true;
}
