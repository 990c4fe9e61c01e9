/* A request on its way to one replica: what is sent, and what is counted while the replica has it.
 */
#include "gateway/proxy_priv.h"
#include "gateway/reach.h"

#include <assert.h>
#include <stdio.h>

at_http_call_id gw_request_send(struct gw_request *r, struct gw_replica *replica,
                                const struct gw_handlers *handlers)
{
    struct gw_worker *w = r->worker;
    assert(r->n_tried < AT_GW_ATTEMPTS_MAX);
    r->tried[r->n_tried++] = replica;
    gw_model_enter(w, r->model, replica, r->wish.cost_milli);
    const struct at_http_head *head = at_http_request(r->ex);
    struct at_str body = gw_request_body(r);
    const char *renamed;
    char target[AT_HTTP_HEAD_BYTES_MAX];
    memcpy(target, head->target.ptr, head->target.len);
    target[head->target.len] = '\0';
    if (r->grpc != NULL) {
        body = (struct at_str){r->grpc->body.data, r->grpc->body.len};
    }
    enum at_rc rc =
        gw_rename(r, replica, r->grpc != NULL ? at_str_of(r->grpc->target.data) : head->target,
                  &renamed, &body);
    assert(rc == AT_OK); /* buffers without a cap */
    int64_t timeout_ns = w->gateway->first_byte_timeout_ns;
    bool sooner = r->timeout_ns > 0 && r->timeout_ns < timeout_ns;
    struct at_http_call call = {.method = r->method,
                                .target = renamed != NULL     ? renamed
                                          : r->grpc != NULL   ? r->grpc->target.data
                                          : r->target.len > 0 ? r->target.data
                                                              : target,
                                .host = r->host.len > 0 ? r->host.data : NULL,
                                .headers = r->up.data,
                                .body = body.ptr,
                                .body_len = body.len,
                                .first_byte_timeout_ns = sooner ? r->timeout_ns : timeout_ns,
                                .piece_timeout_ns = timeout_ns,
                                .ctx = r,
                                .on_head = handlers->on_head,
                                .on_body = handlers->on_body,
                                .on_done = handlers->on_done};
    gw_upload_call(r, &call);
    gw_reach(w, replica, &call);
    at_http_call_id id = at_http_call(w->client, &call);
    assert(id != 0);
    return id;
}

void gw_request_unsend(struct gw_request *r, struct gw_replica *replica, enum gw_outcome outcome)
{
    gw_model_leave(r->worker, r->model, replica, r->wish.cost_milli, outcome);
}

void gw_request_fail_version(struct gw_request *r)
{
    char message[512] = "";
    size_t n = (size_t)snprintf(message, sizeof message, "there is no version %.*s; there %s",
                                r->wish.version.len < 64 ? (int)r->wish.version.len : 64,
                                r->wish.version.ptr, r->model->n_versions == 1 ? "is" : "are");
    for (size_t i = 0; i < r->model->n_versions && n < sizeof message; i++) {
        n += (size_t)snprintf(message + n, sizeof message - n, "%s %.64s", i > 0 ? "," : "",
                              r->model->versions[i]);
    }
    gw_request_fail(r, 404, message);
}

/* A plain service keeps its client's Host, and has its own view of the path. */
enum at_rc gw_request_aim(struct gw_request *r, const struct gw_rule *rule,
                          const struct gw_forwarded *forwarded)
{
    enum at_rc rc = gw_service_target(rule, at_http_request(r->ex), &r->target);
    at_buf_clear(&r->host);
    return rc == AT_OK ? at_buf_append(&r->host, forwarded->host.ptr, forwarded->host.len) : rc;
}
