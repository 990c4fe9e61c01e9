/* What is told of requests: metrics by model, version, site, replica and key; spans; the access
 * log. Everything here is one loop's own, and in steady state nothing is allocated. */
#ifndef AT_GATEWAY_OBSERVE_H
#define AT_GATEWAY_OBSERVE_H

#include "core/buf.h"
#include "core/metrics.h"
#include "gateway/access.h"
#include "gateway/spans.h"
#include "gateway/sse.h"

struct at_gateway;
struct at_gateway_options;
struct at_http_exchange;
struct gw_model;
struct gw_replica;
struct gw_request;
struct gw_worker;

/* Of a request under way. */
struct gw_observation {
    struct gw_trace trace;
    const char *key;       /* name of the client's token; as long as the request has its key */
    const char *series;    /* the same in metrics, or "other"; lives as long as the gateway */
    uint64_t attempt_span; /* of the attempt under way */
    int64_t attempt_ns;
    unsigned attempts;
    uint32_t random; /* decides about the access log */
    uint64_t bytes_in, bytes_out;
    int64_t event_ns; /* of the last event of a stream; 0: none yet */
    int64_t first_ns; /* of the first */
    bool is_sse;
    struct gw_sse sse;
    struct gw_usage usage;
    size_t lines_bytes; /* in the request's `up`, before traceparent */
};

/* One loop's metrics, in a registry of its own: at_metrics_expose_sum adds the loops up. */
struct gw_meters {
    struct at_metrics *registry;
    struct at_metric_family *replica_requests, *replica_duration, *key_requests, *key_duration,
        *first_token, *inter_token, *tokens, *depth, *batch;
};

/* Of one replica of one model, in one loop. */
struct gw_replica_meters;
void gw_replica_meters_free(struct gw_replica_meters *meters); /* their series go; accepts NULL */

struct gw_usage_cache; /* of series by key and model */

/* Reads its options. err: AT_INVALID one of them, by its name; AT_IO. */
enum at_rc gw_observe_open(struct at_gateway *gateway, const struct at_gateway_options *options,
                           struct at_err *err) AT_WARN_UNUSED;
void gw_observe_close(struct at_gateway *gateway); /* after all loops have ended, before workers */
void gw_observe_start(struct gw_worker *worker);
bool gw_observe_busy(struct gw_worker *worker); /* stopping: is something still to be told? */
void gw_observe_done(struct gw_worker *worker);
void gw_observe_flush(struct gw_worker *worker);

/* The request is about to be passed on. Its lines for the replica are made with r->obs. */
void gw_observe_begin(struct gw_request *r);
void gw_observe_attempt(struct gw_request *r); /* r->replica has it from now on */
/* status 0: there was no answer. */
void gw_observe_attempt_end(struct gw_request *r, int status);
void gw_observe_head(struct gw_request *r, const struct at_http_head *head);
void gw_observe_data(struct gw_request *r, const char *data, size_t len);
/* The client has its answer, or has gone. replica: whose it is; NULL: ours. */
void gw_observe_end(struct gw_request *r, int status, struct gw_replica *replica);
/* An answer that no replica was asked for, while ex is being handled. */
void gw_observe_own(struct gw_worker *worker, struct at_http_exchange *ex, int status);

#endif
