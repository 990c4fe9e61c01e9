#include "runners/onnx_int.h"

#include "core/mem.h"
#include "core/units.h"

#include <assert.h>
#include <stdio.h>

void onnx_respond_error(struct at_onnx_service *s, struct at_http_exchange *ex, int status,
                        const char *message)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf body = {0};
    char code[8];
    snprintf(code, sizeof code, "%d", status);
    at_metric_add(at_metric_with(s->serving.requests, (const char *const[]){code, NULL}), 1);
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
    at_metric_add(at_metric_with(s->serving.requests, (const char *const[]){"200", NULL}), 1);
    at_http_respond(ex, 200, type, headers, body, len);
}

static void make_batch_metrics(struct at_onnx_service *s)
{
    s->rows = at_metric_plain(s->serving.metrics, AT_METRIC_COUNTER, "atoll_runner_rows_total",
                              "Rows (items of the first dimension) that the model ran.");
    s->batches = at_metric_plain(s->serving.metrics, AT_METRIC_COUNTER, "atoll_runner_runs_total",
                                 "Runs of the model.");
    s->split =
        at_metric_plain(s->serving.metrics, AT_METRIC_COUNTER, "atoll_runner_batches_split_total",
                        "Batches that the model refused as a whole and that were run one by one.");
    struct at_metric_family *sizes = at_metrics_family(
        s->serving.metrics, AT_METRIC_COUNTER, "atoll_runner_batches_total",
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
    s->waiting = at_metric_plain(s->serving.metrics, AT_METRIC_GAUGE, "atoll_runner_waiting",
                                 "Infer requests that wait for their run.");
    s->refused =
        at_metrics_family(s->serving.metrics, AT_METRIC_COUNTER, "atoll_runner_refused_total",
                          "Infer requests refused while waiting: queue_full, timeout.",
                          (const char *const[]){"reason", NULL});
    struct at_metric_family *time = at_metrics_family(
        s->serving.metrics, AT_METRIC_HISTOGRAM, "atoll_runner_infer_seconds",
        "Time of an infer request: waiting for a worker, in the model, from request to answer.",
        (const char *const[]){"stage", NULL});
    s->queue_time = at_metric_with(time, (const char *const[]){"queue", NULL});
    s->run_time = at_metric_with(time, (const char *const[]){"run", NULL});
    s->total_time = at_metric_with(time, (const char *const[]){"total", NULL});
    make_batch_metrics(s);
}

static bool is_busy(void *ctx)
{
    const struct at_onnx_service *s = ctx;
    while (s != NULL && s->jobs == NULL) {
        s = s->next;
    }
    return s != NULL;
}

static void begin(struct at_onnx_service *s)
{
    s->dispatch = (struct at_loop_task){.fn = onnx_dispatch, .ctx = s};
    s->pool = s->batching.instances != 0 ? at_pool_new(s->n_lanes, s->n_lanes) : NULL;
}

static void end(struct at_onnx_service *s);

enum at_rc at_onnx_service_add(struct at_onnx_service *first, const struct at_ort_model *model,
                               const struct at_batching_options *batching, struct at_err *err)
{
    struct at_onnx_service *s = AT_NEW(struct at_onnx_service);
    *s = *first; /* what counts and answers is shared */
    s->next = NULL;
    s->jobs = NULL;
    s->n_rows = s->n_runs = s->last_wall_ms = 0;
    s->good = s->bad = s->queued = s->ran = (struct onnx_sum){0};
    s->by_rows = NULL;
    s->unbatched[0] = '\0';
    s->batcher = NULL;
    s->lanes = NULL;
    s->n_lanes = 0;
    s->timer = 0;
    s->pool = NULL;
    s->model = model;
    s->spec = at_ort_model_spec(model);
    s->batching = *batching;
    enum at_rc rc = onnx_lanes_make(s, err);
    if (rc != AT_OK) {
        onnx_lanes_free(s);
        at_free(s);
        return rc;
    }
    begin(s);
    while (first->next != NULL) {
        first = first->next;
    }
    first->next = s;
    return AT_OK;
}

enum at_rc at_onnx_service_new(struct at_loop *loop, const struct at_ort_model *model,
                               const struct at_onnx_options *options, struct at_onnx_service **ret,
                               struct at_err *err)
{
    struct at_onnx_service *s = AT_NEW(struct at_onnx_service);
    const struct at_sys *sys = at_loop_sys(loop);
    int64_t begun = at_sys_mono_ns(sys);
    s->loop = loop;
    s->first = s;
    s->serving = (struct runner_serving){.loop = loop, .is_busy = is_busy, .ctx = s};
    s->model = model;
    s->spec = at_ort_model_spec(model);
    s->batching = options->batching;
    runner_serving_init(&s->serving);
    make_metrics(s);
    struct runner_addresses at = {.listen = options->listen,
                                  .local_listen = options->local_listen,
                                  .body_bytes_max = AT_RUNNER_BODY_BYTES_MAX,
                                  .handler = onnx_on_request};
    enum at_rc rc = onnx_lanes_make(s, err);
    rc = rc != AT_OK ? rc : runner_serving_listen(&s->serving, &at, err);
    if (rc != AT_OK) {
        at_onnx_service_free(s);
        return rc;
    }
    begin(s);
    runner_serving_started(&s->serving, &options->start, at_sys_mono_ns(sys) - begun);
    *ret = s;
    return AT_OK;
}

const char *at_onnx_service_unbatched(const struct at_onnx_service *service)
{
    return service->unbatched;
}

const char *at_onnx_service_addr(const struct at_onnx_service *service)
{
    return at_http_server_addr(service->serving.server);
}

void at_onnx_service_drain(struct at_onnx_service *service, at_post_fn *done, void *ctx)
{
    runner_serving_drain(&service->serving, done, ctx);
}

void at_onnx_service_free(struct at_onnx_service *service)
{
    if (service == NULL) {
        return;
    }
    runner_serving_close(&service->serving);
    while (service->next != NULL) {
        struct at_onnx_service *s = service->next;
        service->next = s->next;
        end(s);
        at_free(s);
    }
    end(service);
    runner_serving_done(&service->serving);
    at_free(service);
}

/* What runs is waited for, and the loop is told of it while there is somebody to tell. */
static void end(struct at_onnx_service *s)
{
    s->ending = true;
    at_pool_finish(s->pool);
    while (onnx_lanes_busy(s)) {
        at_loop_turn(s->loop, at_sys_mono_ns(at_loop_sys(s->loop)));
    }
    at_loop_timer_cancel(s->loop, s->timer);
    at_loop_at_end_cancel(s->loop, &s->dispatch);
    onnx_lanes_free(s);
}
