/* From what came in to what takes care of it: a model, a plain service, or the gateway itself. */
#include "core/mem.h"
#include "gateway/grpc.h"
#include "gateway/proxy_priv.h"
#include "gateway/tunnel.h"
#include "gateway/upload.h"

#include <assert.h>
#include <string.h>

static void handle_grpc(struct gw_worker *w, struct at_http_exchange *ex, enum gw_grpc_kind kind)
{
    if (kind == GW_GRPC_UNKNOWN) {
        gw_answer_error(ex, 501, NULL, "this gRPC method is not known here");
        return;
    }
    if (kind == GW_GRPC_SERVER_LIVE || kind == GW_GRPC_SERVER_READY ||
        kind == GW_GRPC_SERVER_METADATA) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf message = {0};
        enum at_rc rc = gw_grpc_own(kind, kind != GW_GRPC_SERVER_READY || w->has_table, &message);
        assert(rc == AT_OK);
        gw_answer_grpc(ex, NULL, &message);
        return;
    }
    struct gw_grpc_call *call = AT_NEW(struct gw_grpc_call);
    struct at_err err;
    enum at_rc rc = gw_grpc_request(kind, at_http_request_body(ex), call, &err);
    struct gw_model *model =
        rc == AT_OK ? gw_model_find(w, call->model, strlen(call->model)) : NULL;
    model = model != NULL && gw_meter_may_ask(w, model) ? model : NULL;
    if (rc != AT_OK || (kind == GW_GRPC_MODEL_READY && model != NULL && model->n_replicas == 0)) {
        if (rc != AT_OK) {
            gw_count(w, "", "", at_rc_http_status(rc));
            gw_answer_error(ex, at_rc_http_status(rc), NULL, "%s", err.msg);
        } else {
            AT_CLEANUP(at_cleanup_buf) struct at_buf message = {0};
            rc = gw_grpc_own(kind, false, &message);
            assert(rc == AT_OK);
            gw_answer_grpc(ex, NULL, &message);
        }
        gw_grpc_call_done(call);
        at_free(call);
        return;
    }
    struct gw_path path = {.kind = GW_PATH_MODEL,
                           .infer = true,
                           .found = model,
                           .model_len = strlen(call->model),
                           .version = at_str_of(call->version)};
    memcpy(path.model, call->model, path.model_len + 1);
    gw_request_begin(w, ex, &path, kind, call);
}

static void refuse_stranger(struct gw_worker *w, struct at_http_exchange *ex)
{
    static const char HEADERS[] = "WWW-Authenticate: Bearer\r\n";
    const char *message =
        w->problem != NULL ? w->problem : "a bearer token that this gateway knows is needed";
    gw_count(w, "", "", 401);
    if (gw_openai_is(at_http_request(ex))) {
        gw_openai_answer_error(w, ex, 401, &(struct gw_openai_error){.headers = HEADERS}, "%s",
                               message);
    } else {
        gw_answer_error(ex, 401, HEADERS, "%s", message);
    }
}

static void handle_service(struct gw_worker *w, struct at_http_exchange *ex,
                           const struct gw_rule *rule)
{
    const struct at_http_head *head = at_http_request(ex);
    struct gw_path path = {.kind = GW_PATH_MODEL, .rule = rule, .model_len = strlen(rule->model)};
    if (!rule->is_public && !gw_auth_allows(w, head)) {
        refuse_stranger(w, ex);
        return;
    }
    struct gw_model *model = gw_model_find(w, rule->model, path.model_len);
    if (model != NULL && !gw_meter_may_ask(w, model)) {
        gw_count(w, rule->model, "", 403);
        gw_answer_error(ex, 403, NULL, "this API key does not open service %s", rule->model);
        return;
    }
    if (gw_service_path_is_unclear(head->path)) {
        gw_count(w, rule->model, "", 400);
        gw_answer_error(ex, 400, NULL, "a path with . or .. can be read in two ways");
    } else if (model == NULL || path.model_len >= sizeof path.model) {
        gw_count(w, "", "", 503);
        gw_answer_error(ex, 503, "Retry-After: 1\r\n", "service %s: no replica is ready",
                        rule->model);
    } else if (gw_tunnel_wanted(head)) {
        gw_tunnel_start(w, ex, model, rule);
    } else {
        memcpy(path.model, rule->model, path.model_len + 1);
        path.found = model;
        gw_request_begin(w, ex, &path, GW_GRPC_NONE, NULL);
    }
}

/* The plain service that this is for; NULL: none, but what the path says. */
static const struct gw_rule *service_of(const struct gw_worker *w, const struct at_http_head *head,
                                        struct gw_path *ret_path)
{
    gw_path_parse(head->path, ret_path);
    const struct gw_rule *rule = gw_rules_find(w->rules, head);
    if (ret_path->kind == GW_PATH_PLAYGROUND &&
        (!w->gateway->has_playground || (rule != NULL && rule->path[0] != '\0'))) {
        ret_path->kind = GW_PATH_NONE; /* a service that wants this very path has it */
    }
    return rule != NULL && (rule->host[0] != '\0' || ret_path->kind == GW_PATH_NONE) ? rule : NULL;
}

/* Small ones can be sent again, elsewhere; large ones, and those that may have no end, are passed
 * on as they come. */
bool gw_upload_wanted(void *worker, const struct at_http_exchange *ex)
{
    const struct at_http_head *head = at_http_request(ex);
    struct gw_path path;
    return (!head->has_length || head->content_length > AT_GW_UPLOAD_BYTES_MIN) &&
           service_of(worker, head, &path) != NULL;
}

static void handle(struct gw_worker *w, struct at_http_exchange *ex)
{
    const struct at_http_head *head = at_http_request(ex);
    struct gw_path path;
    const struct gw_rule *rule = service_of(w, head, &path);
    enum gw_grpc_kind grpc = gw_grpc_kind_of(head);
    if (rule != NULL) {
        handle_service(w, ex, rule);
        return;
    }
    bool open = path.kind == GW_PATH_HEALTHZ || path.kind == GW_PATH_METRICS ||
                path.kind == GW_PATH_LIVE || path.kind == GW_PATH_READY ||
                path.kind == GW_PATH_PLAYGROUND;
    if ((grpc != GW_GRPC_NONE || !open) && !gw_auth_allows(w, head)) {
        refuse_stranger(w, ex);
    } else if (grpc != GW_GRPC_NONE) {
        handle_grpc(w, ex, grpc);
    } else if (path.kind == GW_PATH_MODEL ||
               (path.kind == GW_PATH_OPENAI && gw_openai_route(w, ex, &path))) {
        gw_request_begin(w, ex, &path, GW_GRPC_NONE, NULL);
    } else if (path.kind != GW_PATH_OPENAI) {
        gw_answer_own(w, ex, &path);
    }
}

void gw_handle(void *worker, struct at_http_exchange *ex)
{
    struct gw_worker *w = worker;
    w->handling = ex;
    w->key = NULL;
    w->bearer = NULL;
    w->problem = NULL;
    handle(w, ex);
    w->handling = NULL; /* what is counted later is of others */
}
