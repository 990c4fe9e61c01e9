/* create, update, patch, delete: read, make the new version, compare-and-swap, again on a conflict.
 */
#include "api/api_priv.h"
#include "api/options.h"
#include "core/mem.h"
#include "core/str.h"

#include <assert.h>
#include <string.h>

enum change { CHANGE_PUT, CHANGE_MERGE_PATCH, CHANGE_JSON_PATCH, CHANGE_APPLY, CHANGE_DELETE };

struct write_op {
    enum change change;
    enum at_object_part part;
    bool scale;
    int64_t old_rev;
    unsigned rounds;
    char key[AT_STORE_KEY_BYTES_MAX];
    struct api_delete_options del;
    struct at_quota_pass *pass; /* of the write under way */
};

static void pass_release(struct write_op *op)
{
    at_quota_release(op->pass);
    op->pass = NULL;
}

static void respond_store_error(struct api_req *req, enum at_rc rc, const struct at_err *err)
{
    api_respond_error(req, rc, "%s",
                      err != NULL && err->msg[0] != '\0' ? err->msg : at_rc_name(rc));
}

/* False: answered. */
static bool encode(struct api_req *req)
{
    struct at_err err = {0};
    at_buf_clear(&req->text);
    if (at_object_encode(req->object, &req->text, &err) == AT_OK) {
        return true;
    }
    api_respond_err(req, &err);
    return false;
}

/* Body into req, an error if there is none. False: answered. */
static bool body_needed(struct api_req *req)
{
    struct at_err err = {0};
    if (api_body_read(req, &err) != AT_OK) {
        api_respond_err(req, &err);
        return false;
    }
    if (req->body == NULL) {
        api_respond_error(req, AT_BAD_REQUEST, "the request needs a body");
        return false;
    }
    return true;
}

static struct write_op *op_new(struct api_req *req)
{
    struct write_op *op = at_arena_alloc(req->arena, sizeof *op);
    assert(op != NULL);
    req->op = op;
    return op;
}

/* --- create --- */

static void create_put(struct api_req *req);
static void round_again(struct api_req *req);

static void create_done(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *current,
                        const struct at_err *err)
{
    (void)current;
    struct api_req *req = ctx;
    struct write_op *op = req->op;
    bool generated = at_json_str_at(req->body, "metadata.name", NULL) == NULL;
    pass_release(op);
    if (rc == AT_EXISTS && generated && ++op->rounds < AT_API_NAME_ROUNDS_MAX) {
        api_audit_void(req, 409);
        at_json_set_at(req->object, "metadata.name", NULL);
        at_object_generate_name(req->api->sys, req->object);
        create_put(req);
        return;
    }
    if (rc == AT_EXISTS && op->change == CHANGE_APPLY) {
        round_again(req); /* another was quicker: then it is an update */
    } else if (rc == AT_EXISTS) {
        api_respond_exists(req, at_json_str_at(req->object, "metadata.name", ""));
    } else if (rc != AT_OK) {
        respond_store_error(req, rc, err);
    } else {
        if (req->route.kind == &AT_KIND_NODE) {
            api_join_node_made(req->api, at_object_name(req->object));
        }
        api_respond_object(req, 201, req->text.data, req->text.len, rev);
    }
}

static void create_allowed(void *ctx, enum at_rc rc, struct at_quota_pass *pass,
                           const struct at_err *err)
{
    struct api_req *req = ctx;
    struct write_op *op = req->op;
    op->pass = pass;
    if (rc != AT_OK) {
        api_respond_refused(req, rc, err);
        return;
    }
    if (req->dry_run) {
        api_respond_object_json(req, 201, json_incref(req->object));
        return;
    }
    if (!encode(req)) { /* answered, and gone */
        at_quota_release(pass);
        return;
    }
    struct at_store_write write = {.key = op->key,
                                   .value = req->text.data,
                                   .len = req->text.len,
                                   .ttl_s = at_state_ttl_s(req->route.kind),
                                   .fn = create_done,
                                   .ctx = req};
    api_audit_ahead(req, 201);
    at_quota_guard(pass, &write);
    at_store_write(req->api->options.store, &write);
}

static void create_put(struct api_req *req)
{
    struct write_op *op = req->op;
    at_state_key(req->route.kind, req->route.ns, at_object_name(req->object), op->key,
                 sizeof op->key);
    api_quota_ask(req, op->key, NULL, 0, create_allowed);
}

static void create_stamped(struct api_req *req)
{
    const struct at_model_kind *kind = req->route.kind;
    char uid[AT_OBJECT_UID_BYTES];
    at_object_uid(req->api->sys, uid);
    at_object_stamp_create(kind, req->object, kind->namespaced ? req->route.ns : NULL, uid,
                           at_sys_wall_ns(req->api->sys), AT_OBJECT_MAIN);
    if (at_streq(kind->kind, "Namespace")) {
        at_object_add_finalizer(req->object, AT_API_NAMESPACE_FINALIZER);
        at_json_set_at(req->object, "status.phase", json_string("Active"));
    }
    (void)api_owners_stamp(req, true);
    create_put(req);
}

static void dry_run_exists(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *kvs,
                           size_t n, bool more, const struct at_err *err)
{
    (void)rev;
    (void)kvs;
    (void)more;
    struct api_req *req = ctx;
    if (rc != AT_OK) {
        respond_store_error(req, rc, err);
    } else if (n > 0) {
        api_respond_exists(req, at_json_str_at(req->object, "metadata.name", ""));
    } else {
        create_stamped(req);
    }
}

static void create_go_on(struct api_req *req)
{
    struct write_op *op = req->op;
    if (!req->dry_run) {
        create_stamped(req);
        return;
    }
    at_state_key(req->route.kind, req->route.ns, at_object_name(req->object), op->key,
                 sizeof op->key);
    at_store_range(req->api->options.store, op->key, NULL, 1, 0, dry_run_exists, req);
}

/* Namespaces that the server makes when it starts and that may not be deleted: a client that is
 * quick must not come before them. */
static bool always_there(const char *ns)
{
    return at_streq(ns, "default") || at_streq(ns, "atoll-system");
}

static void namespace_found(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *kvs,
                            size_t n, bool more, const struct at_err *err)
{
    (void)rev;
    (void)more;
    struct api_req *req = ctx;
    if (rc != AT_OK) {
        respond_store_error(req, rc, err);
        return;
    }
    if (n == 0) {
        json_t *details = json_pack("{s:s, s:s}", "name", req->route.ns, "kind", "namespaces");
        const char *message =
            at_arena_printf(req->arena, "namespaces \"%s\" not found", req->route.ns);
        api_respond_json(req, 404, api_status(false, "NotFound", 404, message, details));
        return;
    }
    AT_CLEANUP(at_cleanup_json) json_t *ns = NULL;
    static const char DELETING[] = "\"deletionTimestamp\"";
    /* Most are not being deleted, which shows without parsing. */
    bool read =
        memmem(kvs[0].value, kvs[0].value_len, DELETING, sizeof DELETING - 1) != NULL &&
        at_object_decode(kvs[0].value, kvs[0].value_len, kvs[0].mod_rev, &ns, NULL) == AT_OK;
    if (read && at_object_deleting(ns)) {
        const char *reason = at_arena_printf(
            req->arena,
            "unable to create new content in namespace %s because it is being terminated",
            req->route.ns);
        api_respond_forbidden(req, reason);
        return;
    }
    create_go_on(req);
}

/* req->object has its place and its shape. */
static void create_checked(struct api_req *req)
{
    const struct at_model_kind *kind = req->route.kind;
    at_object_generate_name(req->api->sys, req->object);
    if (kind->has_status) {
        json_object_del(req->object, "status");
    }
    api_range_default(req);
    if (!api_admit(req, req->object, NULL) || !api_range_admits(req)) {
        return;
    }
    if (!kind->namespaced || always_there(req->route.ns)) {
        create_go_on(req);
        return;
    }
    char key[AT_STORE_KEY_BYTES_MAX];
    at_state_key(at_model_kind_find("", "v1", "Namespace"), NULL, req->route.ns, key, sizeof key);
    at_store_range(req->api->options.store, key, NULL, 1, 0, namespace_found, req);
}

void api_create(struct api_req *req)
{
    const struct at_model_kind *kind = req->route.kind;
    struct at_err err = {0};
    if (!body_needed(req)) {
        return;
    }
    if (kind->namespaced && req->route.ns[0] == '\0') {
        api_respond_error(req, AT_NOT_ALLOWED,
                          "the server does not allow this method on the requested resource: create "
                          "%s within a namespace",
                          kind->plural);
        return;
    }
    if (!api_manager_read(req, false)) {
        return;
    }
    op_new(req);
    req->object = json_deep_copy(req->body);
    if (api_admit_shape(req, req->object, &err) != AT_OK) {
        api_respond_err(req, &err);
        return;
    }
    if (at_object_rv(req->object) != 0) {
        api_respond_error(req, AT_BAD_REQUEST,
                          "resourceVersion should not be set on objects to be created");
        return;
    }
    create_checked(req);
}

/* --- update and patch --- */

static void round_begin(struct api_req *req);

static void respond_current(struct api_req *req, json_t *object)
{
    struct write_op *op = req->op;
    if (op->scale) {
        req->table = API_TABLE_NONE;
        api_respond_json(req, 200, api_scale_of(req->route.kind, object));
        return;
    }
    api_respond_object_json(req, 200, json_incref(object));
}

/* Another writer came in between: read again, unless there were too many. */
static void round_again(struct api_req *req)
{
    struct write_op *op = req->op;
    if (++op->rounds < AT_API_CAS_ROUNDS_MAX) {
        round_begin(req);
        return;
    }
    api_respond_conflict(req, "the object has been modified; please apply your changes to the "
                              "latest version and try again");
}

static void update_done(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *current,
                        const struct at_err *err)
{
    (void)current;
    struct api_req *req = ctx;
    pass_release(req->op);
    if (rc == AT_CONFLICT || rc == AT_NOT_FOUND || rc == AT_EXISTS) {
        round_again(req);
    } else if (rc != AT_OK) {
        respond_store_error(req, rc, err);
    } else {
        at_object_set_rv(req->object, rev);
        respond_current(req, req->object);
    }
}

static void update_allowed(void *ctx, enum at_rc rc, struct at_quota_pass *pass,
                           const struct at_err *err)
{
    struct api_req *req = ctx;
    struct write_op *op = req->op;
    op->pass = pass;
    if (rc != AT_OK) {
        api_respond_refused(req, rc, err);
        return;
    }
    if (req->dry_run) {
        at_object_set_rv(req->object, op->old_rev);
        respond_current(req, req->object);
        return;
    }
    struct at_store_write write = {.key = op->key,
                                   .value = req->text.data,
                                   .len = req->text.len,
                                   .expect = op->old_rev,
                                   .ttl_s = at_state_ttl_s(req->route.kind),
                                   .fn = update_done,
                                   .ctx = req};
    api_audit_ahead(req, 200);
    at_quota_guard(pass, &write);
    at_store_write(req->api->options.store, &write);
}

static void update_store(struct api_req *req, enum at_object_outcome outcome)
{
    struct write_op *op = req->op;
    struct at_store *store = req->api->options.store;
    if (op->change != CHANGE_DELETE && outcome != AT_OBJECT_REMOVE &&
        api_owners_stamp(req, outcome == AT_OBJECT_WRITE) && outcome == AT_OBJECT_UNCHANGED) {
        outcome = AT_OBJECT_WRITE;
    }
    if (outcome == AT_OBJECT_UNCHANGED) {
        at_object_set_rv(req->old, op->old_rev);
        respond_current(req, req->old);
        return;
    }
    if (!encode(req)) {
        return;
    }
    if (outcome == AT_OBJECT_REMOVE && !req->dry_run) {
        api_audit_ahead(req, 200);
        at_store_delete(store, op->key, op->old_rev, update_done, req);
        return;
    }
    /* Reports and deletions take nothing more. */
    if (op->part == AT_OBJECT_STATUS || op->change == CHANGE_DELETE) {
        update_allowed(req, AT_OK, NULL, NULL);
    } else {
        api_quota_ask(req, op->key, req->old, op->old_rev, update_allowed);
    }
}

/* The part that this endpoint does not write is the stored one, whatever was sent. */
static void part_select(struct api_req *req)
{
    const struct write_op *op = req->op;
    json_t *from = op->part == AT_OBJECT_STATUS ? req->object : req->old;
    json_t *status = json_object_get(from, "status");
    if (op->part == AT_OBJECT_STATUS) {
        json_t *whole = json_deep_copy(req->old);
        const json_t *rv = at_json_at(req->object, "metadata.resourceVersion");
        at_json_set_at(whole, "metadata.resourceVersion", rv != NULL ? json_deep_copy(rv) : NULL);
        if (status != NULL) {
            json_object_set(whole, "status", status);
        } else {
            json_object_del(whole, "status");
        }
        json_decref(req->object);
        req->object = whole;
    } else if (req->route.kind->has_status && status != NULL) {
        json_object_set_new(req->object, "status", json_deep_copy(status));
    } else if (req->route.kind->has_status) {
        json_object_del(req->object, "status");
    }
}

static enum at_rc patched(const struct write_op *op, const json_t *patch, json_t *base_take,
                          json_t **ret, struct at_err *err)
{
    if (op->change == CHANGE_MERGE_PATCH) {
        *ret = at_json_merge_patch(base_take, patch);
        return AT_OK;
    }
    enum at_rc rc = at_json_patch(base_take, patch, ret, err);
    json_decref(base_take);
    return rc;
}

/* req->object from the body and req->old. */
static enum at_rc object_make(struct api_req *req, struct at_err *err)
{
    const struct write_op *op = req->op;
    json_decref(req->object);
    req->object = NULL;
    if (!op->scale) {
        if (op->change == CHANGE_PUT) {
            req->object = json_deep_copy(req->body);
            return AT_OK;
        }
        return patched(op, req->body, json_deep_copy(req->old), &req->object, err);
    }
    json_t *scale = NULL;
    enum at_rc rc = AT_OK;
    if (op->change == CHANGE_PUT) {
        scale = json_deep_copy(req->body);
    } else {
        rc = patched(op, req->body, api_scale_of(req->route.kind, req->old), &scale, err);
    }
    if (rc == AT_OK) {
        req->object = json_deep_copy(req->old);
        const json_t *rv = at_json_at(scale, "metadata.resourceVersion");
        if (json_is_string(rv)) {
            at_json_set_at(req->object, "metadata.resourceVersion", json_deep_copy(rv));
        }
        rc = api_scale_apply(req->route.kind, scale, req->object, err);
    }
    json_decref(scale);
    return rc;
}

/* As in Kubernetes: its old kinds may be replaced whatever version is there, all others only by who
 * says which version it knows. */
static bool replaces_any(const struct at_model_kind *kind)
{
    return kind->group[0] == '\0' || at_streq(kind->group, "rbac.authorization.k8s.io");
}

/* The version that the client names must be the stored one. False: answered. */
static bool version_fits(struct api_req *req)
{
    const struct write_op *op = req->op;
    int64_t rv = at_object_rv(req->object);
    bool needed = op->change == CHANGE_PUT && !op->scale && !replaces_any(req->route.kind);
    if (rv < 0 || (rv == 0 && needed)) {
        struct at_model_cause cause = {
            .reason = "FieldValueInvalid",
            .field = "metadata.resourceVersion",
            .message = rv < 0 ? "Invalid value: must be a decimal number in a string"
                              : "Invalid value: 0x0: must be specified for an update"};
        api_respond_invalid(req, req->route.name, &cause, 1);
        return false;
    }
    if (rv != 0 && rv != op->old_rev) {
        api_respond_conflict(req, "the object has been modified; please apply your changes to the "
                                  "latest version and try again");
        return false;
    }
    return true;
}

static void round_change(struct api_req *req)
{
    const struct write_op *op = req->op;
    struct at_err err = {0};
    enum at_object_outcome outcome;
    if (op->change == CHANGE_APPLY && !api_apply_make(req)) {
        return;
    }
    if ((op->change != CHANGE_APPLY && object_make(req, &err) != AT_OK) ||
        api_admit_shape(req, req->object, &err) != AT_OK) {
        if (err.rc == AT_INVALID && err.field[0] != '\0') {
            struct at_model_cause cause = {
                .reason = "FieldValueInvalid", .field = err.field, .message = err.msg};
            api_respond_invalid(req, req->route.name, &cause, 1);
            return;
        }
        api_respond_err(req, &err);
        return;
    }
    if (!version_fits(req)) {
        return;
    }
    if (op->change != CHANGE_APPLY) {
        api_owners_sent(req);
    }
    part_select(req);
    if (!api_admit(req, req->object, req->old)) {
        return;
    }
    at_object_strip_rv(req->old); /* never stored, so it must not count as a difference */
    enum at_rc rc =
        at_object_prepare_update(req->route.kind, req->old, req->object, op->part, &outcome, &err);
    if (rc == AT_CONFLICT) {
        api_respond_conflict(req, err.msg);
    } else if (rc == AT_INVALID) {
        struct at_model_cause cause = {
            .reason = "FieldValueForbidden", .field = err.field, .message = err.msg};
        api_respond_invalid(req, req->route.name, &cause, 1);
    } else if (rc != AT_OK) {
        api_respond_err(req, &err);
    } else {
        update_store(req, outcome);
    }
}

static void round_delete(struct api_req *req);

/* Apply makes what is absent, if the client may. */
static void apply_create(struct api_req *req)
{
    const struct api_route *r = &req->route;
    struct at_access what = {
        .verb = "create", .group = r->group, .resource = r->resource, .ns = r->ns, .name = r->name};
    char reason[512];
    if (!api_may(req->api, &req->who, &what, reason, sizeof reason)) {
        api_respond_forbidden(req, reason);
        return;
    }
    if (at_object_rv(req->body) != 0) {
        api_respond_conflict(req, "the object has been deleted");
        return;
    }
    if (api_apply_make(req)) {
        create_checked(req);
    }
}

static void round_loaded(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *kvs,
                         size_t n, bool more, const struct at_err *err)
{
    (void)rev;
    (void)more;
    struct api_req *req = ctx;
    struct write_op *op = req->op;
    if (rc != AT_OK) {
        respond_store_error(req, rc, err);
        return;
    }
    json_decref(req->old);
    req->old = NULL;
    if (n == 0 && op->change == CHANGE_APPLY && op->part == AT_OBJECT_MAIN) {
        apply_create(req);
        return;
    }
    if (n == 0) {
        api_respond_not_found(req);
        return;
    }
    op->old_rev = kvs[0].mod_rev;
    if (at_object_decode(kvs[0].value, kvs[0].value_len, kvs[0].mod_rev, &req->old, NULL) !=
        AT_OK) {
        api_respond_error(req, AT_INTERNAL, "the stored object cannot be read");
        return;
    }
    if (op->change == CHANGE_DELETE) {
        round_delete(req);
    } else {
        round_change(req);
    }
}

static void round_begin(struct api_req *req)
{
    struct write_op *op = req->op;
    at_state_key(req->route.kind, req->route.ns, req->route.name, op->key, sizeof op->key);
    at_store_range(req->api->options.store, op->key, NULL, 1, 0, round_loaded, req);
}

static void change_begin(struct api_req *req, enum change change)
{
    struct write_op *op = op_new(req);
    op->change = change;
    op->scale = at_streq(req->route.subresource, "scale");
    op->part = at_streq(req->route.subresource, "status") ? AT_OBJECT_STATUS : AT_OBJECT_MAIN;
    round_begin(req);
}

static enum at_rc scale_shape(const struct api_req *req, struct at_err *err)
{
    if (!at_streq(at_json_str_at(req->body, "kind", "Scale"), "Scale") ||
        !at_streq(at_json_str_at(req->body, "apiVersion", "autoscaling/v1"), "autoscaling/v1")) {
        return at_err_set(err, AT_BAD_REQUEST, "the body must be a Scale of autoscaling/v1");
    }
    const char *name = at_json_str_at(req->body, "metadata.name", req->route.name);
    if (!at_streq(name, req->route.name)) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "the name of the object (%.253s) does not match the name on the URL (%s)",
                          name, req->route.name);
    }
    return AT_OK;
}

void api_update(struct api_req *req)
{
    if (!body_needed(req)) {
        return;
    }
    if (!json_is_object(req->body)) {
        api_respond_error(req, AT_BAD_REQUEST, "the body must be a JSON object");
        return;
    }
    struct at_err err = {0};
    if (at_streq(req->route.subresource, "scale") && scale_shape(req, &err) != AT_OK) {
        api_respond_err(req, &err);
        return;
    }
    if (!api_manager_read(req, false)) {
        return;
    }
    change_begin(req, CHANGE_PUT);
}

static void apply_begin(struct api_req *req)
{
    struct at_err err = {0};
    bool scale = at_streq(req->route.subresource, "scale");
    const char *version = at_json_str_at(req->body, "apiVersion", "");
    const char *wanted = scale ? "autoscaling/v1" : at_model_api_version(req->route.kind);
    if (!at_streq(version, wanted)) {
        api_respond_error(req, AT_BAD_REQUEST,
                          "Incorrect version specified in apply patch. Specified patch version: "
                          "%.64s, expected: %s",
                          version, wanted);
        return;
    }
    if ((scale ? scale_shape(req, &err) : api_admit_shape(req, req->body, &err)) != AT_OK) {
        api_respond_err(req, &err);
        return;
    }
    if (json_array_size(at_json_at(req->body, "metadata.managedFields")) > 0) {
        api_respond_error(req, AT_BAD_REQUEST, "metadata.managedFields must be nil");
        return;
    }
    req->applies = true;
    change_begin(req, CHANGE_APPLY);
}

void api_patch(struct api_req *req)
{
    if (!body_needed(req)) {
        return;
    }
    bool apply = at_str_eq_nocase(req->content_type, "application/apply-patch+yaml");
    if (!api_manager_read(req, apply)) {
        return;
    }
    if (apply) {
        apply_begin(req);
        return;
    }
    if (api_query(req, "force") != NULL) {
        api_respond_option(req, "FieldValueForbidden", "force",
                           "Forbidden: may not be specified for non-apply patch");
        return;
    }
    bool strategic = at_str_eq_nocase(req->content_type, "application/strategic-merge-patch+json");
    bool merge = strategic || at_str_eq_nocase(req->content_type, "application/merge-patch+json");
    if (strategic && api_patch_has_directive(req->body)) {
        api_respond_error(req, AT_UNSUPPORTED,
                          "strategic merge patches with directives ($patch and the like) are not "
                          "supported; use application/merge-patch+json");
        return;
    }
    if (merge && !json_is_object(req->body)) {
        api_respond_error(req, AT_BAD_REQUEST, "a merge patch must be a JSON object");
        return;
    }
    if (!merge && !at_str_eq_nocase(req->content_type, "application/json-patch+json")) {
        api_respond_error(req, AT_UNSUPPORTED,
                          "the body of the request was in an unknown format - accepted media types "
                          "include: application/json-patch+json, application/merge-patch+json, "
                          "application/apply-patch+yaml");
        return;
    }
    change_begin(req, merge ? CHANGE_MERGE_PATCH : CHANGE_JSON_PATCH);
}

/* --- delete --- */

static void respond_deleted(struct api_req *req)
{
    json_t *details = api_details(req, req->route.name);
    const char *uid = at_object_uid_of(req->old);
    if (uid != NULL) {
        json_object_set_new(details, "uid", json_string(uid));
    }
    json_t *status = api_status(true, NULL, 200, NULL, details);
    api_respond_json(req, 200, status);
}

static void remove_done(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *current,
                        const struct at_err *err)
{
    (void)rev;
    (void)current;
    struct api_req *req = ctx;
    if (rc == AT_CONFLICT) {
        round_again(req);
    } else if (rc == AT_NOT_FOUND) {
        api_respond_not_found(req);
    } else if (rc != AT_OK) {
        respond_store_error(req, rc, err);
    } else {
        respond_deleted(req);
    }
}

/* uid and version that the client demands. False: answered. */
static bool preconditions_hold(struct api_req *req)
{
    const struct write_op *op = req->op;
    const char *why = NULL;
    if (op->del.uid != NULL && !at_streq(op->del.uid, at_object_uid_of(req->old))) {
        why = at_arena_printf(req->arena,
                              "Precondition failed: UID in precondition: %s, UID in "
                              "object meta: %s",
                              op->del.uid, at_object_uid_of(req->old));
    } else if (op->del.rv != 0 && op->del.rv != op->old_rev) {
        why = at_arena_printf(req->arena,
                              "Precondition failed: resourceVersion in precondition: %lld, in "
                              "object meta: %lld",
                              (long long)op->del.rv, (long long)op->old_rev);
    }
    if (why == NULL) {
        return true;
    }
    api_respond_conflict(req, why);
    return false;
}

static void round_delete(struct api_req *req)
{
    const struct write_op *op = req->op;
    if (!preconditions_hold(req)) {
        return;
    }
    json_decref(req->object);
    req->object = json_deep_copy(req->old);
    at_object_strip_rv(req->object);
    if (at_streq(req->route.kind->kind, "Namespace") && !at_object_deleting(req->old)) {
        /* What it holds goes first: the namespace controller takes the finalizer off then. */
        at_object_add_finalizer(req->object, AT_API_NAMESPACE_FINALIZER);
        at_json_set_at(req->object, "status.phase", json_string("Terminating"));
    }
    if (op->del.finalizer != NULL && !at_object_deleting(req->old)) {
        at_object_add_finalizer(req->object, op->del.finalizer); /* the collector's to take off */
    }
    enum at_object_outcome outcome =
        at_object_begin_delete(req->object, at_sys_wall_ns(req->api->sys));
    if (outcome == AT_OBJECT_REMOVE && req->dry_run) {
        respond_deleted(req);
    } else if (outcome == AT_OBJECT_REMOVE) {
        api_audit_ahead(req, 200);
        at_store_delete(req->api->options.store, op->key, op->old_rev, remove_done, req);
    } else {
        update_store(req, outcome);
    }
}

void api_delete(struct api_req *req)
{
    struct at_err err = {0};
    struct write_op *op = op_new(req);
    op->change = CHANGE_DELETE;
    op->part = AT_OBJECT_ALL;
    if (api_body_read(req, &err) != AT_OK ||
        api_delete_options_read(req, &op->del, &err) != AT_OK) {
        if (err.rc == AT_INVALID) {
            api_respond_option(req, "FieldValueInvalid", err.field, err.msg);
        } else {
            api_respond_err(req, &err);
        }
        return;
    }
    if (at_streq(req->route.kind->kind, "Namespace") && always_there(req->route.name)) {
        api_respond_forbidden(req, "this namespace may not be deleted");
        return;
    }
    round_begin(req);
}
