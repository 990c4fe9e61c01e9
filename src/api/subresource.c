/* scale and heartbeat. */
#include "api/api_priv.h"
#include "core/str.h"

#include <stdio.h>

/* ".spec.replicas" as at_json_at wants it. */
static const char *path_of(const char *column_path)
{
    return column_path[0] == '.' ? column_path + 1 : column_path;
}

static void take(json_t *to, const json_t *meta, const char *key)
{
    json_t *value = json_object_get(meta, key);
    if (value != NULL) {
        json_object_set(to, key, value);
    }
}

json_t *api_scale_of(const struct at_model_kind *kind, const json_t *object)
{
    const json_t *from = json_object_get(object, "metadata");
    json_t *meta = json_object();
    static const char *const KEYS[] = {"name", "namespace", "uid", "resourceVersion",
                                       "creationTimestamp"};
    for (size_t i = 0; i < sizeof KEYS / sizeof KEYS[0]; i++) {
        take(meta, from, KEYS[i]);
    }
    int64_t wanted = at_json_int_at(object, path_of(kind->scale_spec_path), 0);
    json_t *status = json_object();
    int64_t have = kind->scale_status_path != NULL
                       ? at_json_int_at(object, path_of(kind->scale_status_path), 0)
                       : 0;
    json_object_set_new(status, "replicas", json_integer(have));
    const char *selector = kind->scale_selector_path != NULL
                               ? at_json_str_at(object, path_of(kind->scale_selector_path), NULL)
                               : NULL;
    if (selector != NULL) {
        json_object_set_new(status, "selector", json_string(selector));
    }
    return json_pack("{s:s, s:s, s:o, s:{s:I}, s:o}", "kind", "Scale", "apiVersion",
                     "autoscaling/v1", "metadata", meta, "spec", "replicas", (json_int_t)wanted,
                     "status", status);
}

enum at_rc api_scale_apply(const struct at_model_kind *kind, const json_t *scale, json_t *object,
                           struct at_err *err)
{
    const json_t *replicas = at_json_at(scale, "spec.replicas");
    if (replicas == NULL) {
        replicas = json_integer(0);
        at_json_set_at(object, path_of(kind->scale_spec_path), (json_t *)replicas);
        return AT_OK;
    }
    if (!json_is_integer(replicas) || json_integer_value(replicas) < 0) {
        return at_err_set_field(err, AT_INVALID, "spec.replicas",
                                "must be an integer that is not negative");
    }
    at_json_set_at(object, path_of(kind->scale_spec_path), json_deep_copy(replicas));
    return AT_OK;
}

static void scale_loaded(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *kvs,
                         size_t n, bool more, const struct at_err *err)
{
    (void)rev;
    (void)more;
    struct api_req *req = ctx;
    if (rc != AT_OK) {
        api_respond_error(req, rc, "%s", err != NULL ? err->msg : "the store cannot be read");
        return;
    }
    if (n == 0) {
        api_respond_not_found(req);
        return;
    }
    if (at_object_decode(kvs[0].value, kvs[0].value_len, kvs[0].mod_rev, &req->old, NULL) !=
        AT_OK) {
        api_respond_error(req, AT_INTERNAL, "the stored object cannot be read");
        return;
    }
    api_respond_json(req, 200, api_scale_of(req->route.kind, req->old));
}

void api_scale_get(struct api_req *req)
{
    char key[AT_STORE_KEY_BYTES_MAX];
    at_state_key(req->route.kind, req->route.ns, req->route.name, key, sizeof key);
    at_store_range(req->api->options.store, key, NULL, 1, 0, scale_loaded, req);
}

/* Kept in memory only: the node controller reads it from state. The answer tells the agent what its
 * Node's spec wants of it. */
void api_heartbeat(struct api_req *req)
{
    struct at_state *state = req->api->options.state;
    json_t *node = at_state_object(state, req->route.kind, NULL, req->route.name);
    if (node == NULL) {
        api_respond_not_found(req); /* so that the agent makes it anew */
        return;
    }
    at_state_heartbeat(state, req->route.name, at_sys_mono_ns(req->api->sys));
    json_t *answer = json_pack("{s:i, s:s}", "intervalMs", (int)AT_API_HEARTBEAT_INTERVAL_MS,
                               "gpuSharing", at_json_str_at(node, "spec.gpuSharing", ""));
    json_t *parts = at_json_at(node, "spec.gpuParts");
    if (parts != NULL) {
        json_object_set(answer, "gpuParts", parts);
    }
    json_decref(node);
    api_respond_json(req, 200, answer);
}
