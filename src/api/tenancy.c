/* What a namespace lets in: quotas, ranges of resources. */
#include "api/api_priv.h"
#include "core/str.h"

void api_respond_refused(struct api_req *req, enum at_rc rc, const struct at_err *err)
{
    if (rc == AT_FORBIDDEN) {
        api_respond_forbidden_of(req, at_object_name(req->object), err->msg);
    } else {
        api_respond_error(req, rc, "%s",
                          err != NULL && err->msg[0] != '\0' ? err->msg : at_rc_name(rc));
    }
}

void api_quota_ask(struct api_req *req, const char *key, const json_t *old, int64_t old_rev,
                   at_quota_fn *fn)
{
    if (!req->route.kind->namespaced || req->api->options.state == NULL) {
        fn(req, AT_OK, NULL, NULL);
        return;
    }
    at_quota_ask(req->api->options.state,
                 &(struct at_quota_ask){.kind = req->route.kind,
                                        .ns = req->route.ns,
                                        .key = key,
                                        .old_rev = old_rev,
                                        .object = req->object,
                                        .old = old,
                                        .only_look = req->dry_run},
                 fn, req);
}

static bool has_range(const struct api_req *req)
{
    return req->route.kind == &AT_KIND_INSTANCE && req->api->options.state != NULL;
}

void api_range_default(struct api_req *req)
{
    if (has_range(req)) {
        at_limit_range_default(req->api->options.state, req->route.ns, req->object);
    }
}

bool api_range_admits(struct api_req *req)
{
    struct at_err err = {0};
    if (has_range(req) &&
        at_limit_range_check(req->api->options.state, req->route.ns, req->object, &err) != AT_OK) {
        api_respond_refused(req, AT_FORBIDDEN, &err);
        return false;
    }
    return true;
}
