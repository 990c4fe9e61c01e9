/* What each runner's service has besides its model: the addresses that it is reached at, its end,
 * and the metrics that all runners share. */
#ifndef AT_RUNNERS_SERVING_H
#define AT_RUNNERS_SERVING_H

#include "core/metrics.h"
#include "net/http_server.h"

struct runner_serving {
    struct at_loop *loop;
    struct at_http_server *server;
    struct at_http_server *local; /* on a Unix socket; NULL: none asked for, or none possible */
    bool draining;
    bool (*is_busy)(void *ctx); /* something is in flight */
    void *ctx;                  /* of is_busy and of the server's handler */
    at_timer_id drain_timer;
    at_post_fn *drained;
    void *drained_ctx;

    struct at_metrics *metrics;
    struct at_metric_family *requests, *start;
    struct at_metric *in_flight;
};

/* loop, is_busy and ctx are set. own: runner_serving_done. */
void runner_serving_init(struct runner_serving *s);
void runner_serving_close(struct runner_serving *s); /* the addresses, with their connections */
void runner_serving_done(struct runner_serving *s);  /* and the rest */

struct runner_addresses {
    const char *listen,
        *local_listen; /* local_listen may be NULL, and is left out if it cannot be */
    size_t body_bytes_max;
    void (*handler)(void *ctx, struct at_http_exchange *ex);
};
enum at_rc runner_serving_listen(struct runner_serving *s, const struct runner_addresses *at,
                                 struct at_err *err) AT_WARN_UNUSED;
/* How long the start took before the service was made. */
struct runner_start {
    int64_t engine_ns, load_ns;
};
void runner_serving_started(struct runner_serving *s, const struct runner_start *start,
                            int64_t prepare_ns);
/* Accept nothing new; done is called on the loop once nothing is in flight and the last answers are
 * written out. */
void runner_serving_drain(struct runner_serving *s, at_post_fn *done, void *ctx);

#endif
