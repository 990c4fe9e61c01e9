#include "gateway/hedge.h"

#include "gateway/proxy_priv.h"

#include <assert.h>
#include <stdio.h>

#define FIRST_SHIFT 14 /* the first bucket ends at 16 us; four to an octave */

static size_t bucket_of(int64_t ns)
{
    uint64_t v = ns > 0 ? (uint64_t)ns >> (FIRST_SHIFT - 2) : 0;
    if (v < 4) {
        return (size_t)v;
    }
    unsigned octave = 63 - (unsigned)__builtin_clzll(v);
    size_t at = 4 * (size_t)(octave - 1) + (size_t)(v >> (octave - 2) & 3);
    return at < GW_HEDGE_BUCKETS ? at : GW_HEDGE_BUCKETS - 1;
}

/* Where a bucket ends. */
static int64_t end_of(size_t bucket)
{
    uint64_t v = bucket < 4 ? bucket + 1 : (uint64_t)(4 + bucket % 4 + 1) << (bucket / 4 - 1);
    return (int64_t)(v << (FIRST_SHIFT - 2));
}

void gw_latency_add(struct gw_latency *latency, int64_t ns)
{
    latency->counts[bucket_of(ns)]++;
    if (++latency->n < AT_GW_LATENCY_KEPT) {
        return;
    }
    latency->n = 0;
    for (size_t i = 0; i < GW_HEDGE_BUCKETS; i++) {
        latency->counts[i] /= 2;
        latency->n += latency->counts[i];
    }
}

int64_t gw_latency_centile(const struct gw_latency *latency, unsigned centile)
{
    uint64_t seen = 0;
    if (latency->n < AT_GW_LATENCY_LEAST) {
        return 0;
    }
    for (size_t i = 0; i < GW_HEDGE_BUCKETS; i++) {
        seen += latency->counts[i];
        if (seen * 100 >= (uint64_t)latency->n * centile) {
            return end_of(i);
        }
    }
    return end_of(GW_HEDGE_BUCKETS - 1);
}

static void count(const struct gw_request *r, const char *result)
{
    const char *const labels[] = {r->model->name, result, NULL};
    at_metric_add(at_metric_with(r->worker->gateway->metrics.hedges, labels), 1);
}

bool gw_hedge_read(struct gw_request *r, const struct at_http_head *head)
{
    const struct gw_policy *p = &r->model->policy;
    struct at_str text = at_http_header_get(head, "x-atoll-hedge");
    struct gw_hedge *h = &r->hedge;
    h->wanted = p->hedges;
    h->centile = p->hedge_centile;
    h->delay_ns = p->hedge_ns;
    if (text.ptr != NULL && at_str_eq_nocase(text, "off")) {
        h->wanted = false;
    } else if (text.ptr != NULL) {
        char copy[32] = "";
        if (text.len >= sizeof copy) {
            return false;
        }
        memcpy(copy, text.ptr, text.len);
        if (gw_hedge_parse(copy, &h->centile, &h->delay_ns) != AT_OK) {
            return false;
        }
        h->wanted = true;
    }
    h->wanted = h->wanted && r->safe && r->host.len == 0;
    return true;
}

/* Hedges have a share of those requests that may be hedged, and some saved up. */
static bool may_pay(struct gw_request *r)
{
    struct gw_budget *b = &r->model->hedges;
    if (b->milli < 1000) {
        return false;
    }
    b->milli -= 1000;
    return true;
}

static void earn(struct gw_model *model)
{
    struct gw_budget *b = &model->hedges;
    b->milli = b->at_ns == 0 ? AT_GW_HEDGE_SAVED_MAX * 1000 : b->milli + model->policy.hedge_milli;
    b->at_ns = 1; /* begun */
    if (b->milli > AT_GW_HEDGE_SAVED_MAX * 1000) {
        b->milli = AT_GW_HEDGE_SAVED_MAX * 1000;
    }
}

/* The copy is the request from now on. */
static void take_over(struct gw_request *r)
{
    struct gw_hedge *h = &r->hedge;
    r->call = h->call;
    r->replica = h->replica;
    h->call = 0;
    h->replica = NULL;
    h->won = true;
    count(r, "won");
}

static void on_head(void *ctx, const struct at_http_head *head)
{
    struct gw_request *r = ctx;
    struct gw_hedge *h = &r->hedge;
    if (!h->won && gw_status_is_error(head->status)) {
        h->refused = true; /* the first may do better */
        return;
    }
    if (!h->won) {
        h->switching = true;
        at_http_call_cancel(r->worker->client, r->call);
        h->switching = false;
        take_over(r);
    }
    gw_request_on_head(r, head);
}

static void on_body(void *ctx, const char *data, size_t len)
{
    struct gw_request *r = ctx;
    if (r->hedge.won) {
        gw_request_on_body(r, data, len);
    }
}

static void on_done(void *ctx, enum at_rc rc, bool sent, const struct at_err *err)
{
    struct gw_request *r = ctx;
    struct gw_hedge *h = &r->hedge;
    if (h->won) {
        gw_request_on_done(r, rc, sent, err);
        return;
    }
    struct gw_replica *replica = h->replica;
    h->call = 0;
    h->replica = NULL;
    count(r, rc == AT_CANCELLED ? "lost" : "failed");
    gw_request_unsend(r, replica,
                      rc == AT_CANCELLED || rc == AT_EXHAUSTED ? GW_NOTHING
                      : rc == AT_OK || sent                    ? GW_ERROR
                                                               : GW_UNREACHED);
}

static void on_timer(void *ctx)
{
    static const struct gw_handlers HANDLERS = {on_head, on_body, on_done};
    struct gw_request *r = ctx;
    struct gw_hedge *h = &r->hedge;
    struct gw_replica *replica;
    enum gw_why why;
    h->timer = 0;
    if (r->begun || r->call == 0 || r->n_tried >= r->model->policy.attempts) {
        return;
    }
    if (r->model->queue.n > 0 || !may_pay(r)) {
        count(r, "shed");
        return;
    }
    if (gw_choose_take(r->worker, r->model, &r->wish, r->tried, r->n_tried,
                       at_loop_now_ns(r->worker->loop), &replica, &why) != GW_CHOICE_MADE) {
        return;
    }
    count(r, "sent");
    h->refused = false;
    h->replica = replica;
    h->call = gw_request_send(r, replica, &HANDLERS);
}

void gw_hedge_plan(struct gw_request *r)
{
    struct gw_hedge *h = &r->hedge;
    h->sent_ns = at_loop_now_ns(r->worker->loop);
    h->won = false;
    if (!h->wanted || r->upload.is || r->n_tried != 1 || r->model->n_replicas < 2) {
        return;
    }
    earn(r->model);
    int64_t delay =
        h->centile != 0 ? gw_latency_centile(&r->model->latency, h->centile) : h->delay_ns;
    if (delay > 0) {
        h->timer = at_loop_timer(r->worker->loop, delay, on_timer, r);
    }
}

void gw_hedge_end(struct gw_request *r)
{
    struct gw_hedge *h = &r->hedge;
    if (h->timer != 0) {
        at_loop_timer_cancel(r->worker->loop, h->timer);
        h->timer = 0;
    }
    if (h->call != 0) {
        at_http_call_cancel(r->worker->client, h->call);
    }
    assert(h->call == 0);
}

bool gw_hedge_promote(struct gw_request *r)
{
    struct gw_hedge *h = &r->hedge;
    if (h->call == 0 || h->refused) {
        gw_hedge_end(r);
        return false;
    }
    take_over(r);
    return true;
}
