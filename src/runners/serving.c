#include "runners/serving.h"

#include "core/units.h"
#include "runners/limits.h"

#include <assert.h>

#define DRAIN_CHECK_NS (2 * AT_NS_PER_MS)

void runner_serving_init(struct runner_serving *s)
{
    s->metrics = at_metrics_new();
    s->requests = at_metrics_family(s->metrics, AT_METRIC_COUNTER, "atoll_runner_requests_total",
                                    "Requests answered, by HTTP status.",
                                    (const char *const[]){"code", NULL});
    s->in_flight = at_metric_plain(s->metrics, AT_METRIC_GAUGE, "atoll_runner_in_flight",
                                   "Requests for the model read and not yet answered to the end.");
    s->start = at_metrics_family(s->metrics, AT_METRIC_HISTOGRAM, "atoll_runner_start_seconds",
                                 "Time of the start, by stage; one of each.",
                                 (const char *const[]){"stage", NULL});
}

void runner_serving_close(struct runner_serving *s)
{
    at_loop_timer_cancel(s->loop, s->drain_timer);
    s->drain_timer = 0;
    at_http_server_free(s->server);
    at_http_server_free(s->local);
    s->server = s->local = NULL;
}

void runner_serving_done(struct runner_serving *s)
{
    runner_serving_close(s);
    at_metrics_free(s->metrics);
    s->metrics = NULL;
}

enum at_rc runner_serving_listen(struct runner_serving *s, const struct runner_addresses *at,
                                 struct at_err *err)
{
    struct at_http_server_options http = {
        .listen = at->listen,
        .body_bytes_max = at->body_bytes_max,
        .connections_max = AT_RUNNER_CONNECTIONS_MAX,
        .idle_timeout_ns = 300 * AT_NS_PER_S,
        .head_timeout_ns = 60 * AT_NS_PER_S,
        .mux = true, /* gateways have many requests in flight on one connection */
        .handler = at->handler,
        .ctx = s->ctx,
    };
    enum at_rc rc = at_http_server_new(s->loop, &http, &s->server, err);
    if (rc == AT_OK && at->local_listen != NULL) {
        http.listen = at->local_listen;
        /* Where there is none, gateways come by the other address. */
        (void)!at_http_server_new(s->loop, &http, &s->local, err);
    }
    return rc;
}

void runner_serving_started(struct runner_serving *s, const struct runner_start *start,
                            int64_t prepare_ns)
{
    const struct {
        const char *stage;
        int64_t ns;
    } rows[] = {{"library", start->engine_ns}, {"load", start->load_ns}, {"prepare", prepare_ns}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        at_metric_observe_ns(at_metric_with(s->start, (const char *const[]){rows[i].stage, NULL}),
                             rows[i].ns);
    }
}

/* Connections close as their last answer is written out: until then the process must stay. */
static void drain_check(void *ctx)
{
    struct runner_serving *s = ctx;
    s->drain_timer = 0;
    size_t open = at_http_server_connections(s->server);
    open += s->local != NULL ? at_http_server_connections(s->local) : 0;
    if (!s->is_busy(s->ctx) && open == 0) {
        s->drained(s->drained_ctx);
        return;
    }
    s->drain_timer = at_loop_timer(s->loop, DRAIN_CHECK_NS, drain_check, s);
}

void runner_serving_drain(struct runner_serving *s, at_post_fn *done, void *ctx)
{
    assert(!s->draining);
    s->draining = true;
    s->drained = done;
    s->drained_ctx = ctx;
    at_http_server_drain(s->server);
    if (s->local != NULL) {
        at_http_server_drain(s->local);
    }
    drain_check(s);
}
