/* A second copy of a request, to another replica, when the first is slow: the first answer counts,
 * the other one is cancelled. Only of what may be repeated, and only when asked for. */
#ifndef AT_GATEWAY_HEDGE_H
#define AT_GATEWAY_HEDGE_H

#include "gateway/policy.h"
#include "loop/loop.h"
#include "net/http_client.h"

struct gw_model;
struct gw_replica;
struct gw_request;

/* Of a request. */
struct gw_hedge {
    bool wanted;
    unsigned centile; /* 0: after delay_ns */
    int64_t delay_ns, sent_ns;
    at_timer_id timer;
    at_http_call_id call; /* of the copy; 0: none is under way */
    struct gw_replica *replica;
    bool refused;   /* the copy was answered with an error */
    bool won;       /* the copy is the request now */
    bool switching; /* the first call is being cancelled for it */
};

/* How long replicas lately took to begin an answer: log-linear counts that fade. */
#define GW_HEDGE_BUCKETS 128
struct gw_latency {
    uint32_t counts[GW_HEDGE_BUCKETS];
    uint32_t n;
};
void gw_latency_add(struct gw_latency *latency, int64_t ns);
/* 0: too few are known. */
int64_t gw_latency_centile(const struct gw_latency *latency, unsigned centile);

/* What the request's header and the model's policy ask for. false: the header makes no sense. */
bool gw_hedge_read(struct gw_request *r, const struct at_http_head *head);
void gw_hedge_plan(struct gw_request *r);    /* the first attempt is on its way */
void gw_hedge_end(struct gw_request *r);     /* no copy is needed any more */
bool gw_hedge_promote(struct gw_request *r); /* the first failed: the copy takes its place */

#endif
