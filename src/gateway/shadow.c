/* Copies of requests for versions that are tried with real traffic. Their answers are thrown away;
 * what would be too much is left out, so that the requests themselves never wait for a copy. */
#include "core/mem.h"
#include "gateway/proxy_priv.h"
#include "gateway/reach.h"

struct gw_copy {
    struct gw_worker *worker;
    struct gw_model *model;
    struct gw_replica *replica;
    size_t bytes;
    int status;
};

static void count(struct gw_worker *w, const struct gw_model *m, const char *version,
                  const char *outcome)
{
    const char *const labels[] = {m->name, version, outcome, NULL};
    at_metric_add(at_metric_with(w->gateway->metrics.shadows, labels), 1);
}

static void on_head(void *ctx, const struct at_http_head *head)
{
    ((struct gw_copy *)ctx)->status = head->status;
}

static void on_done(void *ctx, enum at_rc rc, bool sent, const struct at_err *err)
{
    struct gw_copy *c = ctx;
    struct gw_worker *w = c->worker;
    (void)err;
    bool well = rc == AT_OK && !gw_status_is_error(c->status);
    count(w, c->model, c->replica->version, well ? "answered" : "failed");
    w->n_shadows--;
    w->shadow_bytes -= c->bytes;
    gw_replica_leave(gw_now(w), c->model, c->replica, 1000,
                     well                  ? GW_FINE
                     : rc == AT_CANCELLED  ? GW_NOTHING
                     : sent || rc == AT_OK ? GW_ERROR
                                           : GW_UNREACHED);
    c->model->refs--;
    gw_model_drop(c->model);
    at_free(c);
}

/* One that has room; whether it is near does not matter. */
static struct gw_replica *pick(struct gw_worker *w, const struct gw_model *m,
                               const struct gw_share_view *share)
{
    size_t n = share->to - share->from;
    size_t at = n > 0 ? (size_t)(gw_random(w) >> 32) % n : 0;
    struct gw_replica *best = NULL;
    for (size_t i = 0; i < n; i++, at++) {
        struct gw_replica *r = m->replicas[share->from + at % n];
        bool full = r->gauge != NULL && atomic_load(&r->gauge->n) >= r->requests_max;
        if (!full && !gw_replica_avoided(r, at_loop_now_ns(w->loop)) &&
            (best == NULL || r->load_milli < best->load_milli)) {
            best = r;
        }
    }
    return best;
}

static void send_copy(struct gw_request *r, struct gw_replica *replica)
{
    struct gw_worker *w = r->worker;
    const struct at_http_head *head = at_http_request(r->ex);
    struct at_str body = gw_request_body(r), target = head->target;
    if (r->grpc != NULL) {
        body = (struct at_str){r->grpc->body.data, r->grpc->body.len};
        target = at_str_of(r->grpc->target.data);
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf lines = {0};
    const char *renamed;
    if (!gw_replica_take_place(replica)) { /* another loop was faster */
        count(w, r->model, replica->version, "dropped");
        return;
    }
    if (gw_rename(r, replica, target, &renamed, &body) != AT_OK ||
        at_buf_append(&text, target.ptr, target.len) != AT_OK ||
        at_buf_printf(&lines, "%sx-atoll-shadow: 1\r\n", r->up.data) != AT_OK) {
        gw_replica_give_place(replica);
        return;
    }
    struct gw_copy *c = AT_NEW(struct gw_copy);
    *c = (struct gw_copy){.worker = w, .model = r->model, .replica = replica, .bytes = body.len};
    w->n_shadows++;
    w->shadow_bytes += body.len;
    r->model->refs++;
    gw_replica_enter(gw_now(w), r->model, replica, 1000);
    count(w, r->model, replica->version, "sent");
    struct at_http_call call = {.method = r->method,
                                .target = renamed != NULL ? renamed : text.data,
                                .headers = lines.data,
                                .body = body.ptr,
                                .body_len = body.len,
                                .timeout_ns = AT_GW_SHADOW_NS,
                                .ctx = c,
                                .on_head = on_head,
                                .on_done = on_done};
    gw_reach(w, replica, &call);
    (void)at_http_call(w->client, &call);
}

void gw_shadow(struct gw_request *r)
{
    struct gw_worker *w = r->worker;
    const struct gw_model *m = r->model;
    size_t bytes = at_http_request_body(r->ex).len;
    if (r->wish.pin != 0 || r->wish.data_class.len > 0 || r->wish.jurisdictions.len > 0) {
        return; /* data that is bound to a place is not copied about */
    }
    for (size_t i = 0; i < m->n_shares; i++) {
        const struct gw_share_view *share = &m->shares[i];
        if (share->shadow_percent == 0 || share->from == share->to ||
            (int64_t)((gw_random(w) >> 32) % 100) >= share->shadow_percent) {
            continue;
        }
        struct gw_replica *replica = pick(w, m, share);
        if (replica == NULL || w->n_shadows >= AT_GW_SHADOWS_MAX ||
            w->shadow_bytes + bytes > AT_GW_SHADOW_BYTES_MAX || w->stopping) {
            count(w, m, m->replicas[share->from]->version, "dropped");
            continue;
        }
        send_copy(r, replica);
    }
}
