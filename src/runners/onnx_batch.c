#include "runners/onnx_int.h"

#include "core/json.h"
#include "core/mem.h"
#include "core/units.h"
#include "runners/onnx_probe.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define HEADER_BYTES_MAX 320
#define TIMER_NS_MIN (50 * AT_NS_PER_US)

/* One infer request on its way: parsed on the loop's thread, waiting in the batcher, run and
 * encoded in a lane, answered on the loop's thread. */
struct job {
    struct at_batch_item item; /* first, so that an item of the batcher is a job */
    struct at_onnx_service *service;
    struct at_http_exchange *ex; /* NULL: the client has gone away */
    struct at_arena *arena;
    struct at_oip_request request;
    struct at_oip_tensor outputs[AT_OIP_TENSORS_MAX];
    struct at_buf answer;
    size_t json_len;
    enum at_rc rc;
    struct at_err err;
    struct job *prev, *next;
};

/* What runs batches, one at a time. While busy, its worker owns it and the jobs in it. */
struct lane {
    struct at_onnx_service *service;
    struct at_ort_lane *ort;
    struct at_arena *arena;
    bool busy;
    struct at_batch_item **items; /* as many as one batch may have, as in the next two */
    const struct at_oip_request **requests;
    struct at_oip_tensor **results;
    size_t n, rows;
    bool split;
    int64_t begun_ns, ended_ns;
};

/* What the protocol asks for: its own errors are 400 with a text, whatever the house's code. */
static int status_of(enum at_rc rc)
{
    int status = at_rc_http_status(rc);
    return rc == AT_INVALID ? 400 : status;
}

static void job_free(struct job *job)
{
    struct at_onnx_service *s = job->service;
    at_batcher_remove(s->batcher, &job->item);
    if (job->prev != NULL) {
        job->prev->next = job->next;
    } else {
        assert(s->jobs == job);
        s->jobs = job->next;
    }
    if (job->next != NULL) {
        job->next->prev = job->prev;
    }
    at_metric_add(s->serving.in_flight, -1);
    at_arena_free(job->arena);
    at_buf_done(&job->answer);
    at_free(job);
}

static void job_encode(struct job *job)
{
    job->rc = at_oip_encode_infer(job->service->spec, &job->request, job->outputs, &job->answer,
                                  &job->json_len, &job->err);
}

/* The model refused the batch: one of its requests, or the batch as such. Each for itself. */
static void run_one_by_one(struct lane *lane)
{
    lane->split = true;
    for (size_t i = 0; i < lane->n; i++) {
        struct job *job = (struct job *)lane->items[i];
        job->rc = at_ort_lane_run(lane->ort, &lane->requests[i], 1, lane->arena, &lane->results[i],
                                  &job->err);
        if (job->rc == AT_OK) {
            job_encode(job);
        }
    }
}

/* On a worker (or inline): touches the lane, its jobs and the immutable model only. */
static void lane_work(void *ctx)
{
    struct lane *lane = ctx;
    const struct at_sys *sys = at_loop_sys(lane->service->loop);
    struct at_err err = {0};
    lane->split = false;
    lane->begun_ns = at_sys_mono_ns(sys);
    enum at_rc rc =
        at_ort_lane_run(lane->ort, lane->requests, lane->n, lane->arena, lane->results, &err);
    if (rc != AT_OK && lane->n > 1) {
        run_one_by_one(lane);
    }
    lane->ended_ns = at_sys_mono_ns(sys);
    for (size_t i = 0; i < lane->n && !lane->split; i++) {
        struct job *job = (struct job *)lane->items[i];
        job->rc = rc;
        job->err = err;
        if (rc == AT_OK) {
            job_encode(job);
        }
    }
    at_ort_lane_clear(lane->ort);
    at_arena_reset(lane->arena);
}

/* Stages for whoever asks for them; the gateway puts its own before them. */
static void put_timing(const struct job *job, const struct lane *lane, char *out, size_t size)
{
    const struct at_http_head *head = at_http_request(job->ex);
    if (at_http_header_get(head, "x-atoll-timing").len > 0) {
        snprintf(out, size,
                 "Server-Timing: queue;dur=%.3f;desc=\"waiting for a batch\", "
                 "compute;dur=%.3f;desc=\"in the model, %zu rows together\"\r\n",
                 (double)(lane->begun_ns - job->item.arrived_ns) / 1e6,
                 (double)(lane->ended_ns - lane->begun_ns) / 1e6, lane->rows);
    }
}

static void job_answer(struct job *job, const struct lane *lane)
{
    struct at_onnx_service *s = job->service;
    char header[HEADER_BYTES_MAX] = "";
    if (job->ex != NULL && job->rc == AT_OK) {
        put_timing(job, lane, header, sizeof header);
    }
    if (job->ex != NULL && job->rc != AT_OK) {
        onnx_respond_error(s, job->ex, status_of(job->rc), job->err.msg);
    } else if (job->ex != NULL && job->json_len != 0) {
        size_t n = strlen(header);
        snprintf(header + n, sizeof header - n, "Inference-Header-Content-Length: %zu\r\n",
                 job->json_len);
        onnx_respond_ok(s, job->ex, "application/octet-stream", header, job->answer.data,
                        job->answer.len);
    } else if (job->ex != NULL) {
        onnx_respond_ok(s, job->ex, JSON_TYPE, header, job->answer.data, job->answer.len);
    }
}

static void sum_add(struct onnx_sum *sum, int64_t ns)
{
    sum->count++;
    sum->ns += ns;
}

static void count_batch(struct at_onnx_service *s, const struct lane *lane)
{
    size_t step = 0;
    int64_t ran = lane->ended_ns - lane->begun_ns;
    while (step + 1 < BATCH_SIZE_STEPS && ((size_t)1 << step) < lane->rows) {
        step++;
    }
    at_metric_add(s->batch_sizes[step], 1);
    at_metric_add(s->batches, 1);
    at_metric_add(s->rows, (int64_t)lane->rows);
    s->n_runs++;
    s->n_rows += (int64_t)lane->rows;
    at_metric_add(s->split, lane->split ? 1 : 0);
    at_metric_observe_ns(s->run_time, ran);
    sum_add(&s->ran, ran);
    if (lane->rows <= s->batching.batch_max) {
        sum_add(&s->by_rows[lane->rows], ran);
    }
    s->last_wall_ms = at_sys_wall_ns(at_loop_sys(s->loop)) / AT_NS_PER_MS;
}

static void lane_done(void *ctx)
{
    struct lane *lane = ctx;
    struct at_onnx_service *s = lane->service;
    int64_t now = at_sys_mono_ns(at_loop_sys(s->loop));
    count_batch(s, lane);
    for (size_t i = 0; i < lane->n; i++) {
        struct job *job = (struct job *)lane->items[i];
        int64_t waited = lane->begun_ns - job->item.arrived_ns;
        int64_t total = now - job->item.arrived_ns;
        at_metric_observe_ns(s->queue_time, waited);
        at_metric_observe_ns(s->total_time, total);
        sum_add(&s->queued, waited);
        sum_add(job->rc == AT_OK ? &s->good : &s->bad, total);
        job_answer(job, lane);
        job_free(job);
    }
    lane->n = 0;
    lane->busy = false;
    at_loop_at_end(s->loop, &s->dispatch);
}

static void job_gone(void *ctx)
{
    struct job *job = ctx;
    job->ex = NULL;
    if (job->item.list != 0) { /* nobody waits for it any more */
        job_free(job);
    }
}

static void refuse(struct job *job, const char *reason, const char *message)
{
    struct at_onnx_service *s = job->service;
    at_metric_add(at_metric_with(s->refused, (const char *const[]){reason, NULL}), 1);
    if (job->ex != NULL) {
        onnx_respond_error(s, job->ex, STATUS_UNAVAILABLE, message);
    }
    job_free(job);
}

static void lane_start(struct lane *lane, size_t n)
{
    struct at_onnx_service *s = lane->service;
    assert(!lane->busy);
    lane->busy = true;
    lane->n = n;
    lane->rows = 0;
    for (size_t i = 0; i < n; i++) {
        struct job *job = (struct job *)lane->items[i];
        const struct at_oip_tensor *first = &job->request.inputs[0];
        lane->requests[i] = &job->request;
        lane->results[i] = job->outputs;
        lane->rows += s->unbatched[0] == '\0' && first->n_dims != 0 ? (size_t)first->shape[0] : 1;
    }
    if (s->pool == NULL) {
        lane_work(lane);
        lane_done(lane);
        return;
    }
    /* The queue has a place for each lane. */
    enum at_rc rc = at_pool_submit(s->pool, s->loop, lane_work, lane_done, lane);
    assert(rc == AT_OK);
    (void)rc;
}

static void on_timer(void *ctx)
{
    struct at_onnx_service *s = ctx;
    s->timer = 0;
    onnx_dispatch(s);
}

void onnx_dispatch(void *service)
{
    struct at_onnx_service *s = service;
    int64_t now = at_sys_mono_ns(at_loop_sys(s->loop));
    struct at_batch_item *late;
    bool free_lane = false;
    if (s->ending) {
        return;
    }
    while ((late = at_batcher_expired(s->batcher, now)) != NULL) {
        refuse((struct job *)late, "timeout", "the request waited longer than its timeout");
    }
    for (size_t i = 0; i < s->n_lanes; i++) {
        struct lane *lane = &s->lanes[i];
        size_t n = lane->busy ? 0 : at_batcher_take(s->batcher, now, lane->items);
        if (n != 0) {
            lane_start(lane, n);
        }
        free_lane = free_lane || !lane->busy;
    }
    at_metric_set(s->waiting, (int64_t)at_batcher_waiting(s->batcher));
    at_loop_timer_cancel(s->loop, s->timer);
    s->timer = 0;
    int64_t next = at_batcher_next_ns(s->batcher, free_lane);
    if (next != INT64_MAX) {
        int64_t delay = next - now > TIMER_NS_MIN ? next - now : TIMER_NS_MIN;
        s->timer = at_loop_timer(s->loop, delay, on_timer, s);
    }
}

static enum at_rc json_len_of(const struct at_http_exchange *ex, size_t body_len, size_t *ret,
                              struct at_err *err)
{
    struct at_str text = at_http_header_get(at_http_request(ex), "inference-header-content-length");
    *ret = body_len;
    if (text.ptr == NULL) {
        return AT_OK;
    }
    uint64_t value;
    if (at_str_to_u64(text, &value) != AT_OK) {
        return at_err_set(err, AT_BAD_REQUEST, "Inference-Header-Content-Length is not a number");
    }
    *ret = value;
    return AT_OK;
}

/* What a request has in common with those that it may go with: all dimensions but the first, which
 * must be one number of rows. */
static void job_key(struct job *job)
{
    const struct at_oip_spec *spec = job->service->spec;
    const struct at_oip_tensor *inputs = job->request.inputs;
    size_t n = 0;
    job->item.rows = 0;
    if (job->service->unbatched[0] != '\0') {
        return;
    }
    for (size_t i = 0; i < spec->n_inputs; i++) {
        n += inputs[i].n_dims;
        if (inputs[i].n_dims == 0 || inputs[i].shape[0] != inputs[0].shape[0]) {
            return;
        }
    }
    int64_t *key = at_arena_alloc(job->arena, n * sizeof *key);
    if (key == NULL) {
        return;
    }
    job->item.key = (struct at_str){(const char *)key, n * sizeof *key};
    for (size_t i = 0; i < spec->n_inputs; i++) {
        *key++ = (int64_t)inputs[i].n_dims;
        memcpy(key, &inputs[i].shape[1], (inputs[i].n_dims - 1) * sizeof *key);
        key += inputs[i].n_dims - 1;
    }
    job->item.rows = (size_t)inputs[0].shape[0];
}

static struct job *job_new(struct at_onnx_service *s)
{
    struct job *job = AT_NEW(struct job);
    job->service = s;
    job->arena = at_arena_new(AT_RUNNER_ARENA_BYTES_MAX);
    at_buf_init(&job->answer, AT_RUNNER_ARENA_BYTES_MAX);
    job->next = s->jobs;
    if (s->jobs != NULL) {
        s->jobs->prev = job;
    }
    s->jobs = job;
    at_metric_add(s->serving.in_flight, 1);
    return job;
}

void onnx_infer(struct at_onnx_service *s, struct at_http_exchange *ex)
{
    struct job *job = job_new(s);
    struct at_str body = at_http_request_body(ex);
    int64_t now = at_sys_mono_ns(at_loop_sys(s->loop));
    size_t json_len;
    job->ex = ex;
    enum at_rc rc = json_len_of(ex, body.len, &json_len, &job->err);
    if (rc == AT_OK) {
        rc = at_oip_parse_infer(s->spec, body.ptr, body.len, json_len, job->arena, &job->request,
                                &job->err);
    }
    if (rc == AT_OK) {
        job_key(job);
        job->item.level = job->request.priority;
        rc = at_batcher_push(s->batcher, &job->item, job->request.timeout_ns, now, &job->err);
    }
    if (rc == AT_EXHAUSTED) {
        refuse(job, "queue_full", job->err.msg);
        return;
    }
    if (rc != AT_OK) {
        onnx_respond_error(s, ex, status_of(rc), job->err.msg);
        job_free(job);
        return;
    }
    at_http_on_gone(ex, job_gone, job);
    at_loop_at_end(s->loop, &s->dispatch);
}

/* --- the lanes --- */

static enum at_rc lane_make(struct at_onnx_service *s, struct lane *lane, bool own_session,
                            struct at_err *err)
{
    size_t most = s->batching.batch_max;
    lane->service = s;
    lane->arena = at_arena_new(AT_RUNNER_ARENA_BYTES_MAX);
    lane->items = at_alloc(most * sizeof(void *));
    lane->requests = at_alloc(most * sizeof(void *));
    lane->results = at_alloc(most * sizeof(void *));
    return at_ort_lane_new(s->model, own_session, &lane->ort, err);
}

static void warm_up(const struct at_onnx_service *s, struct lane *lane)
{
    const struct at_batching_options *o = &s->batching;
    bool ran = at_onnx_warm_up(lane->ort, s->spec, 1);
    if (!ran || s->unbatched[0] != '\0') {
        return;
    }
    for (size_t i = 0; i < o->n_preferred && ran; i++) {
        ran = at_onnx_warm_up(lane->ort, s->spec, o->preferred[i]);
    }
    if (ran) {
        (void)!at_onnx_warm_up(lane->ort, s->spec, o->batch_max);
    }
}

enum at_rc onnx_lanes_make(struct at_onnx_service *s, struct at_err *err)
{
    struct at_batching_options *o = &s->batching;
    size_t n = o->instances != 0 ? o->instances : 1;
    s->lanes = at_alloc(n * sizeof *s->lanes);
    for (size_t i = 0; i < n; i++) {
        s->n_lanes = i + 1;
        enum at_rc rc = lane_make(s, &s->lanes[i], i != 0 && o->compute_threads > 1, err);
        if (rc != AT_OK) {
            return rc;
        }
    }
    if (o->batch_max == 1) {
        snprintf(s->unbatched, sizeof s->unbatched, "maxBatchSize is 1");
    } else if (at_onnx_declares_batches(s->spec, s->unbatched, sizeof s->unbatched) &&
               at_onnx_probe(s->lanes[0].ort, s->spec) == AT_ONNX_ROWS_MIX) {
        snprintf(s->unbatched, sizeof s->unbatched,
                 "two rows together do not give what each gives alone");
    }
    for (size_t i = 0; i < n && o->warm_up; i++) {
        warm_up(s, &s->lanes[i]);
    }
    s->batcher = at_batcher_new(o);
    s->by_rows = at_alloc((o->batch_max + 1) * sizeof *s->by_rows);
    return AT_OK;
}

bool onnx_lanes_busy(const struct at_onnx_service *s)
{
    for (size_t i = 0; i < s->n_lanes; i++) {
        if (s->lanes[i].busy) {
            return true;
        }
    }
    return false;
}

void onnx_lanes_free(struct at_onnx_service *s)
{
    while (s->jobs != NULL) {
        job_free(s->jobs);
    }
    for (size_t i = 0; i < s->n_lanes; i++) {
        struct lane *lane = &s->lanes[i];
        at_ort_lane_free(lane->ort);
        at_arena_free(lane->arena);
        at_free(lane->items);
        at_free(lane->requests);
        at_free(lane->results);
    }
    at_free(s->lanes);
    at_free(s->by_rows);
    at_batcher_free(s->batcher);
}
