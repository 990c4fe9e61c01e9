/* Objects as a request is shown them: mostly as they are stored, which parses nothing; else as Pods
 * or as their metadata alone. */
#include "api/api_priv.h"
#include "core/str.h"

static const struct at_model_kind METADATA_KIND = {
    .group = "meta.k8s.io",
    .version = "v1",
    .kind = "PartialObjectMetadata",
    .list_kind = "PartialObjectMetadataList",
    .api_version = "meta.k8s.io/v1",
};

const struct at_model_kind *api_view_kind(const struct api_req *req)
{
    if (req->partial) {
        return &METADATA_KIND;
    }
    return req->route.pod ? &API_POD_KIND : req->route.kind;
}

bool api_view_is_stored(const struct api_req *req)
{
    return !req->partial && !req->route.pod;
}

/* Metadata alone keeps no more than the client asked for. */
json_t *api_view_object(const struct api_req *req, json_t *object_take)
{
    json_t *object = object_take;
    if (req->route.pod) {
        object = api_pod_of(object_take);
        json_decref(object_take);
    }
    if (req->partial) {
        json_t *whole = object;
        object =
            json_pack("{s:s, s:s, s:O}", "kind", METADATA_KIND.kind, "apiVersion",
                      METADATA_KIND.api_version, "metadata", json_object_get(whole, "metadata"));
        json_decref(whole);
    }
    return object;
}

enum at_rc api_view_append(const struct api_req *req, const char *value, size_t len, int64_t rev,
                           struct at_buf *out)
{
    if (api_view_is_stored(req)) {
        return at_object_splice(value, len, rev, out);
    }
    json_t *object = NULL;
    enum at_rc rc = at_object_decode(value, len, rev, &object, NULL);
    if (rc != AT_OK) {
        return rc;
    }
    object = api_view_object(req, object);
    rc = at_json_dump(object, out);
    json_decref(object);
    return rc;
}

/* The object as selectors see it, NULL when it cannot be read. A change is shown to many watchers
 * in a row: it is parsed for the first of them only. A revision names one version of one object. */
static const json_t *decoded(const struct api_req *req, const struct at_store_kv *kv)
{
    bool pod = req->route.pod;
    struct api_decoded *d = &req->api->decoded[kv->mod_rev % AT_API_DECODED_MAX];
    if (d->object != NULL && d->rev == kv->mod_rev && d->pod == pod) {
        return d->object;
    }
    json_t *object = NULL;
    if (at_object_decode(kv->value, kv->value_len, kv->mod_rev, &object, NULL) != AT_OK) {
        return NULL;
    }
    if (pod) { /* fields are named as in a Pod */
        json_t *instance = object;
        object = api_pod_of(instance);
        json_decref(instance);
    }
    json_decref(d->object);
    *d = (struct api_decoded){.rev = kv->mod_rev, .pod = pod, .object = object};
    return object;
}

bool api_view_matches(const struct api_req *req, const struct api_filter *filter,
                      const struct at_store_kv *kv)
{
    if (api_filter_is_empty(filter)) {
        return true;
    }
    if (!req->route.pod && !api_filter_may_match(filter, kv->value, kv->value_len)) {
        return false;
    }
    const json_t *object = decoded(req, kv);
    return object != NULL && api_filter_match(filter, object);
}
