#include "runners/onnx_int.h"

#include "core/mem.h"
#include "core/units.h"

#include <assert.h>
#include <stdio.h>

#define DRAIN_CHECK_NS (2 * AT_NS_PER_MS)

void onnx_respond_error(struct at_onnx_service *s, struct at_http_exchange *ex, int status,
                        const char *message)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf body = {0};
    char code[8];
    snprintf(code, sizeof code, "%d", status);
    at_metric_add(at_metric_with(s->requests, (const char *const[]){code, NULL}), 1);
    if (at_oip_encode_error(message, &body) != AT_OK) {
        at_buf_clear(&body);
    }
    at_http_respond(ex, status, JSON_TYPE,
                    status == STATUS_UNAVAILABLE ? "Retry-After: 1\r\n" : NULL, body.data,
                    body.len);
}

void onnx_respond_ok(struct at_onnx_service *s, struct at_http_exchange *ex, const char *type,
                     const char *headers, const void *body, size_t len)
{
    at_metric_add(at_metric_with(s->requests, (const char *const[]){"200", NULL}), 1);
    at_http_respond(ex, 200, type, headers, body, len);
}

static void make_batch_metrics(struct at_onnx_service *s)
{
    s->rows = at_metric_plain(s->metrics, AT_METRIC_COUNTER, "atoll_runner_rows_total",
                              "Rows (items of the first dimension) that the model ran.");
    s->batches = at_metric_plain(s->metrics, AT_METRIC_COUNTER, "atoll_runner_runs_total",
                                 "Runs of the model.");
    s->split =
        at_metric_plain(s->metrics, AT_METRIC_COUNTER, "atoll_runner_batches_split_total",
                        "Batches that the model refused as a whole and that were run one by one.");
    struct at_metric_family *sizes = at_metrics_family(
        s->metrics, AT_METRIC_COUNTER, "atoll_runner_batches_total",
        "Runs of the model by rows: over half of this number, at most this number.",
        (const char *const[]){"rows", NULL});
    for (size_t i = 0; i < BATCH_SIZE_STEPS; i++) {
        char text[16];
        snprintf(text, sizeof text, "%zu", (size_t)1 << i);
        s->batch_sizes[i] = at_metric_with(sizes, (const char *const[]){text, NULL});
    }
}

static void make_metrics(struct at_onnx_service *s)
{
    s->metrics = at_metrics_new();
    s->requests = at_metrics_family(s->metrics, AT_METRIC_COUNTER, "atoll_runner_requests_total",
                                    "Requests answered, by HTTP status.",
                                    (const char *const[]){"code", NULL});
    s->in_flight = at_metric_plain(s->metrics, AT_METRIC_GAUGE, "atoll_runner_in_flight",
                                   "Infer requests read and not yet answered.");
    s->waiting = at_metric_plain(s->metrics, AT_METRIC_GAUGE, "atoll_runner_waiting",
                                 "Infer requests that wait for their run.");
    s->refused = at_metrics_family(s->metrics, AT_METRIC_COUNTER, "atoll_runner_refused_total",
                                   "Infer requests refused while waiting: queue_full, timeout.",
                                   (const char *const[]){"reason", NULL});
    s->start = at_metrics_family(s->metrics, AT_METRIC_HISTOGRAM, "atoll_runner_start_seconds",
                                 "Time of the start, by stage; one of each.",
                                 (const char *const[]){"stage", NULL});
    struct at_metric_family *time = at_metrics_family(
        s->metrics, AT_METRIC_HISTOGRAM, "atoll_runner_infer_seconds",
        "Time of an infer request: waiting for a worker, in the model, from request to answer.",
        (const char *const[]){"stage", NULL});
    s->queue_time = at_metric_with(time, (const char *const[]){"queue", NULL});
    s->run_time = at_metric_with(time, (const char *const[]){"run", NULL});
    s->total_time = at_metric_with(time, (const char *const[]){"total", NULL});
    make_batch_metrics(s);
}

static enum at_rc listen_on(struct at_onnx_service *s, const struct at_onnx_options *options,
                            struct at_err *err)
{
    struct at_http_server_options http = {
        .listen = options->listen,
        .body_bytes_max = AT_RUNNER_BODY_BYTES_MAX,
        .connections_max = AT_RUNNER_CONNECTIONS_MAX,
        .idle_timeout_ns = 300 * AT_NS_PER_S,
        .head_timeout_ns = 60 * AT_NS_PER_S,
        .mux = true, /* gateways have many requests in flight on one connection */
        .handler = onnx_on_request,
        .ctx = s,
    };
    enum at_rc rc = at_http_server_new(s->loop, &http, &s->server, err);
    if (rc == AT_OK && options->local_listen != NULL) {
        http.listen = options->local_listen;
        /* Where there is none, gateways come by the other address. */
        (void)!at_http_server_new(s->loop, &http, &s->local, err);
    }
    return rc;
}

enum at_rc at_onnx_service_new(struct at_loop *loop, const struct at_ort_model *model,
                               const struct at_onnx_options *options, struct at_onnx_service **ret,
                               struct at_err *err)
{
    struct at_onnx_service *s = AT_NEW(struct at_onnx_service);
    s->loop = loop;
    s->model = model;
    s->spec = at_ort_model_spec(model);
    s->batching = options->batching;
    make_metrics(s);
    enum at_rc rc = onnx_lanes_make(s, err);
    rc = rc != AT_OK ? rc : listen_on(s, options, err);
    if (rc != AT_OK) {
        at_onnx_service_free(s);
        return rc;
    }
    s->dispatch = (struct at_loop_task){.fn = onnx_dispatch, .ctx = s};
    s->pool = s->batching.instances != 0 ? at_pool_new(s->n_lanes, s->n_lanes) : NULL;
    *ret = s;
    return AT_OK;
}

const char *at_onnx_service_unbatched(const struct at_onnx_service *service)
{
    return service->unbatched;
}

void at_onnx_service_started(struct at_onnx_service *service, const struct at_onnx_start *start)
{
    const struct {
        const char *stage;
        int64_t ns;
    } rows[] = {
        {"library", start->engine_ns}, {"load", start->load_ns}, {"prepare", start->prepare_ns}};
    for (size_t i = 0; i < AT_ARRAY_LEN(rows); i++) {
        at_metric_observe_ns(
            at_metric_with(service->start, (const char *const[]){rows[i].stage, NULL}), rows[i].ns);
    }
}

const char *at_onnx_service_addr(const struct at_onnx_service *service)
{
    return at_http_server_addr(service->server);
}

/* Connections close as their last answer is written out: until then the process must stay. */
static void drain_check(void *ctx)
{
    struct at_onnx_service *s = ctx;
    s->drain_timer = 0;
    size_t open = at_http_server_connections(s->server);
    open += s->local != NULL ? at_http_server_connections(s->local) : 0;
    if (s->jobs == NULL && open == 0) {
        s->drained(s->drained_ctx);
        return;
    }
    s->drain_timer = at_loop_timer(s->loop, DRAIN_CHECK_NS, drain_check, s);
}

void at_onnx_service_drain(struct at_onnx_service *service, at_post_fn *done, void *ctx)
{
    assert(!service->draining);
    service->draining = true;
    service->drained = done;
    service->drained_ctx = ctx;
    at_http_server_drain(service->server);
    if (service->local != NULL) {
        at_http_server_drain(service->local);
    }
    drain_check(service);
}

void at_onnx_service_free(struct at_onnx_service *service)
{
    if (service == NULL) {
        return;
    }
    at_loop_timer_cancel(service->loop, service->drain_timer);
    if (service->server != NULL) {
        at_http_server_free(service->server);
    }
    at_http_server_free(service->local);
    /* What runs is waited for, and the loop is told of it while there is somebody to tell. */
    service->ending = true;
    at_pool_finish(service->pool);
    while (onnx_lanes_busy(service)) {
        at_loop_turn(service->loop, at_sys_mono_ns(at_loop_sys(service->loop)));
    }
    at_loop_timer_cancel(service->loop, service->timer);
    at_loop_at_end_cancel(service->loop, &service->dispatch);
    onnx_lanes_free(service);
    at_metrics_free(service->metrics);
    at_free(service);
}
