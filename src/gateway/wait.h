/* Requests that found no replica with room: each model's own queue, a line per priority. Higher
 * priorities go first, but each class is worth AT_GW_WAIT_AGE_NS of waiting only, so that none
 * starves. One loop's own. */
#ifndef AT_GATEWAY_WAIT_H
#define AT_GATEWAY_WAIT_H

#include "core/metrics.h"
#include "core/str.h"
#include "gateway/policy.h"
#include "loop/loop.h"

struct gw_request;
struct gw_model;
struct gw_worker;

struct gw_line {
    struct gw_request *first, *last;
    struct at_metric *depth; /* NULL until somebody waits */
};

struct gw_queue {
    struct gw_line lines[GW_PRIORITIES];
    size_t n, bytes;
    struct at_metric *waited; /* how long those waited that got a replica; NULL: nobody yet */
};

/* Of a request. */
struct gw_turn {
    struct gw_request *next, *prev;
    enum gw_priority priority;
    bool waiting;
    bool unreached;   /* it has been to replicas that could not be reached */
    bool again;       /* it has had a replica: the first to go when there are too many */
    int64_t since_ns; /* when it came */
    size_t bytes;
    at_timer_id deadline;
};

/* The request waits, or has been answered with 429 or 503. reason: of a retry. */
void gw_wait_enter(struct gw_request *r);
void gw_wait_leave(struct gw_request *r); /* its client has gone */
/* A replica may have room: those whose turn it is go. */
void gw_wait_serve(struct gw_worker *worker, struct gw_model *model);
/* Nobody is coming any more: all are answered. */
void gw_wait_end(struct gw_model *model, int status, const char *message);
void gw_wait_done(struct gw_worker *worker);
/* "critical", "high", "normal", "low". false: none of them. */
bool gw_priority_parse(struct at_str text, enum gw_priority *ret);

#endif
