/* The gateway's own questions to replicas, for models whose Deployment wants them. The first
 * loop asks for all; its first questions are spread over an interval. */
#include "core/mem.h"
#include "gateway/gateway_priv.h"
#include "gateway/reach.h"

struct check {
    struct gw_worker *worker;
    struct gw_model *model;
    struct gw_replica *replica;
    int status;
};

static void on_head(void *ctx, const struct at_http_head *head)
{
    ((struct check *)ctx)->status = head->status;
}

static void on_done(void *ctx, enum at_rc rc, bool sent, const struct at_err *err)
{
    struct check *c = ctx;
    struct gw_worker *w = c->worker;
    bool well = c->model->policy.check == GW_CHECK_TCP
                    ? sent
                    : rc == AT_OK && c->status >= 200 && c->status < 300;
    (void)err;
    c->replica->outstanding--;
    c->model->refs--;
    w->checks--;
    if (rc != AT_CANCELLED && c->replica->in_view) {
        const char *const labels[] = {c->model->name, well ? "passed" : "failed", NULL};
        at_metric_add(at_metric_with(w->gateway->metrics.checks, labels), 1);
        gw_replica_checked(gw_now(w), c->model, c->replica, well);
    }
    gw_replica_drop(c->replica);
    gw_model_drop(c->model);
    at_free(c);
}

/* It counts as a request that the replica has, so that both stay until the answer. */
static void ask(struct gw_worker *w, struct gw_model *model, struct gw_replica *replica)
{
    const struct gw_policy *p = &model->policy;
    struct check *c = AT_NEW(struct check);
    *c = (struct check){.worker = w, .model = model, .replica = replica};
    struct at_http_call call = {.method = AT_HTTP_GET,
                                .target = p->check_path[0] != '\0' ? p->check_path : "/",
                                .timeout_ns = p->check_timeout_ns,
                                .ctx = c,
                                .on_head = on_head,
                                .on_done = on_done};
    gw_reach(w, replica, &call);
    replica->outstanding++;
    model->refs++;
    w->checks++;
    if (at_http_call(w->client, &call) == 0) { /* the client is closing */
        on_done(c, AT_CANCELLED, false, NULL);
    }
}

/* Whether somebody is to be asked at all. */
static bool look_at(struct gw_worker *w, struct gw_model *model, int64_t now)
{
    const struct gw_policy *p = &model->policy;
    for (size_t i = 0; i < model->n_replicas; i++) {
        struct gw_replica *r = model->replicas[i];
        if (p->check == GW_CHECK_NONE && r->sick) {
            gw_replica_checked(gw_now(w), model, r, true); /* nobody asks any more */
        } else if (p->check != GW_CHECK_NONE && r->check_at_ns == 0) {
            r->check_at_ns = now + (int64_t)(gw_random(w) % (uint64_t)p->check_interval_ns);
        } else if (p->check != GW_CHECK_NONE && now >= r->check_at_ns &&
                   w->checks < AT_GW_CHECKS_MAX) {
            r->check_at_ns = now + p->check_interval_ns;
            ask(w, model, r);
        }
    }
    return p->check != GW_CHECK_NONE;
}

static void on_tick(void *ctx)
{
    struct gw_worker *w = ctx;
    int64_t now = at_loop_now_ns(w->loop);
    bool any = false;
    void *value;
    for (size_t it = 0; at_map_next(w->models, &it, NULL, &value);) {
        any |= look_at(w, value, now);
    }
    w->check_timer =
        at_loop_timer(w->loop, any ? AT_GW_CHECK_TICK_NS : AT_GW_CHECK_IDLE_NS, on_tick, w);
}

void gw_check_start(struct gw_worker *worker)
{
    if (worker != worker->gateway->workers) {
        return; /* the first loop asks for all */
    }
    worker->check_timer = at_loop_timer(worker->loop, AT_GW_CHECK_TICK_NS, on_tick, worker);
}

void gw_check_done(struct gw_worker *worker)
{
    at_loop_timer_cancel(worker->loop, worker->check_timer);
    worker->check_timer = 0;
}
