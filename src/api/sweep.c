/* What a client says about a deletion, and the deletion of a whole collection. */
#include "api/api_priv.h"
#include "core/str.h"

#include <assert.h>

/* DeleteOptions from the body and the query. */
enum at_rc api_delete_options_read(struct api_req *req, struct api_delete_options *ret,
                                   struct at_err *err)
{
    const char *policy = api_query(req, "propagationPolicy");
    if (policy == NULL || policy[0] == '\0') {
        policy = at_json_str_at(req->body, "propagationPolicy", "");
    }
    bool orphan = api_query_bool(req, "orphanDependents") ||
                  at_json_bool_at(req->body, "orphanDependents", false);
    if (orphan || at_streq(policy, "Orphan")) {
        ret->finalizer = "orphan";
    } else if (at_streq(policy, "Foreground")) {
        ret->finalizer = "foregroundDeletion";
    } else if (policy[0] != '\0' && !at_streq(policy, "Background")) {
        return at_err_set_field(err, AT_INVALID, "propagationPolicy",
                                "Unsupported value: \"%.64s\": supported values: \"Foreground\", "
                                "\"Background\", \"Orphan\", \"nil\"",
                                policy);
    }
    if (orphan && policy[0] != '\0') {
        return at_err_set_field(err, AT_INVALID, "propagationPolicy",
                                "Invalid value: \"%.64s\": orphanDependents and "
                                "deletionPropagation cannot be both set",
                                policy);
    }
    ret->uid = at_json_str_at(req->body, "preconditions.uid", NULL);
    const char *rv = at_json_str_at(req->body, "preconditions.resourceVersion", NULL);
    if (rv != NULL && at_str_to_i64(at_str_of(rv), &ret->rv) != AT_OK) {
        return at_err_set(err, AT_BAD_REQUEST, "preconditions.resourceVersion: not a number");
    }
    const json_t *dry_run = json_object_get(req->body, "dryRun");
    req->dry_run = req->dry_run || at_streq(json_string_value(json_array_get(dry_run, 0)), "All");
    return AT_OK;
}

struct sweep {
    struct api_filter filter;
    size_t open; /* deletions under way, plus one while they are being started */
    size_t failed;
};

static void sweep_settle(struct api_req *req)
{
    struct sweep *sweep = req->op;
    if (--sweep->open > 0) {
        return;
    }
    if (sweep->failed > 0) {
        api_respond_error(req, AT_CONFLICT, "%zu objects could not be deleted, try again",
                          sweep->failed);
        return;
    }
    api_respond_json(req, 200, api_status(true, NULL, 200, NULL, api_details(req, NULL)));
}

static void sweep_one_done(void *ctx, enum at_rc rc, int64_t rev, const struct at_err *err)
{
    (void)rev;
    (void)err;
    struct api_req *req = ctx;
    struct sweep *sweep = req->op;
    sweep->failed += rc != AT_OK && rc != AT_NOT_FOUND;
    sweep_settle(req);
}

static void sweep_loaded(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *kvs,
                         size_t n, bool more, const struct at_err *err)
{
    (void)rev;
    (void)more;
    struct api_req *req = ctx;
    struct sweep *sweep = req->op;
    if (rc != AT_OK) {
        api_respond_error(req, rc, "%s", err != NULL ? err->msg : "the store cannot be read");
        return;
    }
    sweep->open = 1;
    for (size_t i = 0; i < n; i++) {
        json_t *object = NULL;
        if (at_object_decode(kvs[i].value, kvs[i].value_len, kvs[i].mod_rev, &object, NULL) !=
            AT_OK) {
            sweep->failed++;
            continue;
        }
        if (!req->dry_run && api_filter_match(&sweep->filter, object)) {
            sweep->open++;
            at_state_delete(req->api->options.state, req->route.kind, at_object_ns(object),
                            at_object_name(object), at_object_uid_of(object), sweep_one_done, req);
        }
        json_decref(object);
    }
    sweep_settle(req);
}

void api_delete_collection(struct api_req *req)
{
    struct at_err err = {0};
    struct api_delete_options options = {0};
    struct sweep *sweep = at_arena_alloc(req->arena, sizeof *sweep);
    assert(sweep != NULL);
    req->op = sweep;
    if (api_body_read(req, &err) != AT_OK ||
        api_delete_options_read(req, &options, &err) != AT_OK ||
        api_filter_parse(req, &sweep->filter, &err) != AT_OK) {
        api_respond_err(req, &err);
        return;
    }
    if (at_streq(req->route.kind->kind, "Namespace")) {
        api_respond_error(req, AT_NOT_ALLOWED, "delete namespaces one by one");
        return;
    }
    if (options.finalizer != NULL) {
        api_respond_error(req, AT_BAD_REQUEST,
                          "propagationPolicy: only Background is possible for a collection");
        return;
    }
    struct api_span span;
    api_span_of(req, &sweep->filter, &span);
    at_store_range(req->api->options.store, span.from, span.single ? NULL : span.to, 0, 0,
                   sweep_loaded, req);
}
