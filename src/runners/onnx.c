#include "runners/onnx_priv.h"

#include "core/json.h"
#include "core/mem.h"
#include "core/units.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define HEADER_BYTES_MAX 96
#define JSON_TYPE "application/json"
#define STATUS_UNAVAILABLE 503
#define DRAIN_CHECK_NS (2 * AT_NS_PER_MS)

/* One infer request on its way: parsed on the loop's thread, run and encoded on a worker, answered
 * on the loop's thread. */
struct job {
    struct at_onnx_service *service;
    struct at_http_exchange *ex; /* NULL: the client has gone away */
    struct at_arena *arena;
    struct at_oip_request request;
    struct at_oip_tensor outputs[AT_OIP_TENSORS_MAX];
    struct at_buf answer;
    size_t json_len;
    enum at_rc rc;
    struct at_err err;
    int64_t arrived_ns, begun_ns, ended_ns;
    struct job *prev, *next;
};

struct at_onnx_service {
    struct at_loop *loop;
    const struct at_ort_model *model;
    const struct at_oip_spec *spec;
    struct at_http_server *server;
    struct at_http_server *local; /* on a Unix socket; NULL: none asked for */
    struct at_pool *pool;         /* NULL: run on the loop's thread */
    struct at_metrics *metrics;
    struct at_metric_family *requests;
    struct at_metric *in_flight, *queue_time, *run_time, *total_time;
    struct job *jobs; /* all in flight */
    bool draining;
    at_timer_id drain_timer;
    at_post_fn *drained;
    void *drained_ctx;
};

static void respond_error(struct at_onnx_service *s, struct at_http_exchange *ex, int status,
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

static void respond_ok(struct at_onnx_service *s, struct at_http_exchange *ex, const char *type,
                       const char *headers, const void *body, size_t len)
{
    at_metric_add(at_metric_with(s->requests, (const char *const[]){"200", NULL}), 1);
    at_http_respond(ex, 200, type, headers, body, len);
}

/* What the protocol asks for: its own errors are 400 with a text, whatever the house's code. */
static int status_of(enum at_rc rc)
{
    int status = at_rc_http_status(rc);
    return rc == AT_INVALID ? 400 : status;
}

static void job_free(struct job *job)
{
    struct at_onnx_service *s = job->service;
    if (job->prev != NULL) {
        job->prev->next = job->next;
    } else {
        assert(s->jobs == job);
        s->jobs = job->next;
    }
    if (job->next != NULL) {
        job->next->prev = job->prev;
    }
    at_metric_add(s->in_flight, -1);
    at_arena_free(job->arena);
    at_buf_done(&job->answer);
    at_free(job);
}

/* On a worker (or inline): touches the job and the immutable model only. */
static void job_work(void *ctx)
{
    struct job *job = ctx;
    const struct at_onnx_service *s = job->service;
    const struct at_sys *sys = at_loop_sys(s->loop);
    job->begun_ns = at_sys_mono_ns(sys);
    job->rc = at_ort_model_run(s->model, &job->request, job->arena, job->outputs, &job->err);
    job->ended_ns = at_sys_mono_ns(sys);
    if (job->rc == AT_OK) {
        job->rc = at_oip_encode_infer(s->spec, &job->request, job->outputs, &job->answer,
                                      &job->json_len, &job->err);
    }
}

static void job_done(void *ctx)
{
    struct job *job = ctx;
    struct at_onnx_service *s = job->service;
    at_metric_observe_ns(s->queue_time, job->begun_ns - job->arrived_ns);
    at_metric_observe_ns(s->run_time, job->ended_ns - job->begun_ns);
    at_metric_observe_ns(s->total_time, at_sys_mono_ns(at_loop_sys(s->loop)) - job->arrived_ns);
    if (job->ex != NULL && job->rc != AT_OK) {
        respond_error(s, job->ex, status_of(job->rc), job->err.msg);
    } else if (job->ex != NULL && job->json_len != 0) {
        char header[HEADER_BYTES_MAX];
        snprintf(header, sizeof header, "Inference-Header-Content-Length: %zu\r\n", job->json_len);
        respond_ok(s, job->ex, "application/octet-stream", header, job->answer.data,
                   job->answer.len);
    } else if (job->ex != NULL) {
        respond_ok(s, job->ex, JSON_TYPE, NULL, job->answer.data, job->answer.len);
    }
    job_free(job);
}

static void job_gone(void *ctx)
{
    struct job *job = ctx;
    job->ex = NULL;
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

static void infer(struct at_onnx_service *s, struct at_http_exchange *ex)
{
    struct job *job = AT_NEW(struct job);
    job->service = s;
    job->arrived_ns = at_sys_mono_ns(at_loop_sys(s->loop));
    job->arena = at_arena_new(AT_RUNNER_ARENA_BYTES_MAX);
    at_buf_init(&job->answer, AT_RUNNER_ARENA_BYTES_MAX);
    job->next = s->jobs;
    if (s->jobs != NULL) {
        s->jobs->prev = job;
    }
    s->jobs = job;
    at_metric_add(s->in_flight, 1);

    struct at_str body = at_http_request_body(ex);
    size_t json_len;
    enum at_rc rc = json_len_of(ex, body.len, &json_len, &job->err);
    if (rc == AT_OK) {
        rc = at_oip_parse_infer(s->spec, body.ptr, body.len, json_len, job->arena, &job->request,
                                &job->err);
    }
    if (rc != AT_OK) {
        respond_error(s, ex, status_of(rc), job->err.msg);
        job_free(job);
        return;
    }
    job->ex = ex;
    if (s->pool == NULL) {
        job_work(job);
        job_done(job);
        return;
    }
    if (at_pool_submit(s->pool, s->loop, job_work, job_done, job) != AT_OK) {
        respond_error(s, ex, STATUS_UNAVAILABLE, "too many requests are waiting; try again");
        job_free(job);
        return;
    }
    at_http_on_gone(ex, job_gone, job);
}

static void serve_metadata(struct at_onnx_service *s, struct at_http_exchange *ex)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf body = {0};
    if (at_oip_encode_metadata(s->spec, &body) != AT_OK) {
        respond_error(s, ex, 500, "the model's metadata cannot be said in JSON");
        return;
    }
    respond_ok(s, ex, JSON_TYPE, NULL, body.data, body.len);
}

static void serve_model_ready(struct at_onnx_service *s, struct at_http_exchange *ex)
{
    AT_CLEANUP(at_cleanup_json)
    json_t *value = json_pack("{s:s, s:b}", "name", s->spec->model, "ready", !s->draining);
    AT_CLEANUP(at_cleanup_buf) struct at_buf body = {0};
    if (value == NULL || at_json_dump(value, &body) != AT_OK) {
        respond_error(s, ex, 500, "the model's name cannot be said in JSON");
        return;
    }
    respond_ok(s, ex, JSON_TYPE, NULL, body.data, body.len);
}

static void serve_metrics(struct at_onnx_service *s, struct at_http_exchange *ex)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf body = {0};
    if (at_metrics_expose(s->metrics, &body) != AT_OK) {
        respond_error(s, ex, 500, "the metrics are too large");
        return;
    }
    at_http_respond(ex, 200, "text/plain; version=0.0.4", NULL, body.data, body.len);
}

static void serve_text(struct at_onnx_service *s, struct at_http_exchange *ex, const char *json)
{
    respond_ok(s, ex, JSON_TYPE, NULL, json, strlen(json));
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Is the percent-encoded path segment this name? */
static bool segment_is(struct at_str segment, const char *name)
{
    size_t at = 0;
    for (; *name != '\0' && at < segment.len; name++) {
        int c = (unsigned char)segment.ptr[at++];
        if (c == '%') {
            if (segment.len - at < 2) {
                return false;
            }
            int high = hex_digit(segment.ptr[at]), low = hex_digit(segment.ptr[at + 1]);
            if (high < 0 || low < 0) {
                return false;
            }
            c = high * 16 + low;
            at += 2;
        }
        if (c != (unsigned char)*name) {
            return false;
        }
    }
    return *name == '\0' && at == segment.len;
}

/* /v2/models/NAME... : rest is what stands after /v2/models/ */
static void serve_model(struct at_onnx_service *s, struct at_http_exchange *ex, struct at_str rest)
{
    enum at_http_method method = at_http_request(ex)->method;
    char message[AT_ERR_MSG_BYTES_MAX];
    struct at_str name = at_str_cut(&rest, '/');
    if (!segment_is(name, s->spec->model)) {
        snprintf(message, sizeof message, "no model \"%.*s\" here; this server has \"%s\"",
                 name.len < 64 ? (int)name.len : 64, name.ptr, s->spec->model);
        respond_error(s, ex, 404, message);
        return;
    }
    struct at_str verb = at_str_cut(&rest, '/');
    if (at_str_eq(verb, "versions")) {
        struct at_str version = at_str_cut(&rest, '/');
        if (s->spec->version == NULL || !segment_is(version, s->spec->version)) {
            snprintf(message, sizeof message, "model \"%s\" has no version \"%.*s\"; it has %s",
                     s->spec->model, version.len < 64 ? (int)version.len : 64, version.ptr,
                     s->spec->version != NULL ? s->spec->version : "none");
            respond_error(s, ex, 404, message);
            return;
        }
        verb = at_str_cut(&rest, '/');
    }
    bool read = method == AT_HTTP_GET || method == AT_HTTP_HEAD;
    if (rest.len != 0 || !(verb.len == 0 || at_str_eq(verb, "ready") || at_str_eq(verb, "infer"))) {
        respond_error(s, ex, 404, "no such path; there are: infer, ready");
    } else if (at_str_eq(verb, "infer") ? method != AT_HTTP_POST : !read) {
        respond_error(s, ex, 405, at_str_eq(verb, "infer") ? "infer takes POST" : "takes GET");
    } else if (at_str_eq(verb, "infer")) {
        infer(s, ex);
    } else if (at_str_eq(verb, "ready")) {
        serve_model_ready(s, ex);
    } else {
        serve_metadata(s, ex);
    }
}

static void on_request(void *ctx, struct at_http_exchange *ex)
{
    struct at_onnx_service *s = ctx;
    const struct at_http_head *head = at_http_request(ex);
    static const char PREFIX[] = "/v2/models/";
    if (at_str_starts(head->path, PREFIX)) {
        size_t skip = sizeof PREFIX - 1;
        serve_model(s, ex, (struct at_str){head->path.ptr + skip, head->path.len - skip});
        return;
    }
    bool known = at_str_eq(head->path, "/v2") || at_str_eq(head->path, "/v2/") ||
                 at_str_eq(head->path, "/v2/health/live") ||
                 at_str_eq(head->path, "/v2/health/ready") || at_str_eq(head->path, "/metrics");
    if (!known) {
        respond_error(s, ex, 404, "no such path; this server speaks Open Inference Protocol v2");
    } else if (head->method != AT_HTTP_GET && head->method != AT_HTTP_HEAD) {
        respond_error(s, ex, 405, "takes GET");
    } else if (at_str_eq(head->path, "/metrics")) {
        serve_metrics(s, ex);
    } else if (at_str_eq(head->path, "/v2/health/live")) {
        serve_text(s, ex, "{\"live\":true}");
    } else if (at_str_eq(head->path, "/v2/health/ready") && s->draining) {
        respond_error(s, ex, STATUS_UNAVAILABLE, "shutting down");
    } else if (at_str_eq(head->path, "/v2/health/ready")) {
        serve_text(s, ex, "{\"ready\":true}");
    } else {
        serve_text(s, ex,
                   "{\"name\":\"atoll\",\"version\":\"" AT_VERSION
                   "\",\"extensions\":[\"binary_tensor_data\"]}");
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
    struct at_metric_family *time = at_metrics_family(
        s->metrics, AT_METRIC_HISTOGRAM, "atoll_runner_infer_seconds",
        "Time of an infer request: waiting for a worker, in the model, from request to answer.",
        (const char *const[]){"stage", NULL});
    s->queue_time = at_metric_with(time, (const char *const[]){"queue", NULL});
    s->run_time = at_metric_with(time, (const char *const[]){"run", NULL});
    s->total_time = at_metric_with(time, (const char *const[]){"total", NULL});
}

enum at_rc at_onnx_service_new(struct at_loop *loop, const struct at_ort_model *model,
                               const struct at_onnx_options *options, struct at_onnx_service **ret,
                               struct at_err *err)
{
    struct at_onnx_service *s = AT_NEW(struct at_onnx_service);
    s->loop = loop;
    s->model = model;
    s->spec = at_ort_model_spec(model);
    make_metrics(s);
    struct at_http_server_options http = {
        .listen = options->listen,
        .body_bytes_max = AT_RUNNER_BODY_BYTES_MAX,
        .connections_max = AT_RUNNER_CONNECTIONS_MAX,
        .idle_timeout_ns = 300 * AT_NS_PER_S,
        .head_timeout_ns = 60 * AT_NS_PER_S,
        .mux = true, /* gateways have many requests in flight on one connection */
        .handler = on_request,
        .ctx = s,
    };
    enum at_rc rc = at_http_server_new(loop, &http, &s->server, err);
    if (rc == AT_OK && options->local_listen != NULL) {
        http.listen = options->local_listen;
        /* Where there is none, gateways come by the other address. */
        (void)!at_http_server_new(loop, &http, &s->local, err);
    }
    if (rc != AT_OK) {
        at_onnx_service_free(s);
        return rc;
    }
    s->pool = options->threads != 0 ? at_pool_new(options->threads, AT_RUNNER_QUEUE_MAX) : NULL;
    *ret = s;
    return AT_OK;
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
    at_pool_free(service->pool);
    if (service->server != NULL) {
        at_http_server_free(service->server);
    }
    at_http_server_free(service->local);
    while (service->jobs != NULL) {
        job_free(service->jobs);
    }
    at_metrics_free(service->metrics);
    at_free(service);
}
