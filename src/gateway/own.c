/* What the gateway answers itself, and what it counts. */
#include "core/json.h"
#include "core/mem.h"
#include "gateway/gateway_priv.h"
#include "gateway/grpc.h"
#include "gateway/lesson.h"
#include "gateway/playground.h"

#include <assert.h>
#include <stdio.h>
#include <strings.h>

static void choice_metrics_init(struct gw_metrics *m)
{
    static const char *const MODEL_VERSION_REASON[] = {"model", "version", "reason", NULL};
    struct at_metrics *r = m->registry;
    m->choices = at_metrics_family(
        r, AT_METRIC_COUNTER, "atoll_gateway_choices_total",
        "Replicas chosen, by model, version and what decided: only, load, session, moved (the "
        "session's replica has too much to do), prefix, far (nearer ones have), last (none can be "
        "reached).",
        MODEL_VERSION_REASON);
    static const char *const MODEL_STATE[] = {"model", "state", NULL};
    static const char *const MODEL_VERSION_OUTCOME[] = {"model", "version", "outcome", NULL};
    m->prefix_blocks = at_metrics_family(
        r, AT_METRIC_COUNTER, "atoll_gateway_prefix_blocks_total",
        "Blocks of prompts, by whether the replica that got them had had them (hit) or not (miss).",
        MODEL_STATE);
    m->shadows = at_metrics_family(
        r, AT_METRIC_COUNTER, "atoll_gateway_shadow_requests_total",
        "Copies of requests, by outcome: sent, and then answered or failed; dropped: too many.",
        MODEL_VERSION_OUTCOME);
}

/* Of waiting, health and second copies. */
static void init_waiting(struct gw_metrics *m)
{
    static const char *const MODEL_STATE[] = {"model", "state", NULL};
    static const char *const MODEL_RESULT[] = {"model", "result", NULL};
    static const char *const MODEL_PRIORITY[] = {"model", "priority", NULL};
    static const char *const MODEL_PRIORITY_REASON[] = {"model", "priority", "reason", NULL};
    static const char *const MODEL[] = {"model", NULL};
    static const char *const MODEL_REASON[] = {"model", "reason", NULL};
    struct at_metrics *r = m->registry;
    m->queued = at_metrics_family(
        r, AT_METRIC_GAUGE, "atoll_gateway_queue_requests",
        "Requests that wait for a replica: more replicas, or fewer requests.", MODEL_PRIORITY);
    m->queued_bytes = at_metric_plain(r, AT_METRIC_GAUGE, "atoll_gateway_queue_bytes",
                                      "Bytes of the bodies of requests that wait.");
    m->queue_wait = at_metrics_family(r, AT_METRIC_HISTOGRAM, "atoll_gateway_queue_wait_seconds",
                                      "How long those waited that got a replica.", MODEL);
    m->shed = at_metrics_family(r, AT_METRIC_COUNTER, "atoll_gateway_shed_total",
                                "Requests refused because too many waited, or for too long.",
                                MODEL_PRIORITY_REASON);
    m->circuits = at_metrics_family(
        r, AT_METRIC_GAUGE, "atoll_gateway_replica_circuits",
        "Replicas left alone (open) or tried (half-open) after errors, per loop.", MODEL_STATE);
    m->model_circuits = at_metrics_family(r, AT_METRIC_GAUGE, "atoll_gateway_model_circuits",
                                          "1 per loop that refuses requests for the model at once "
                                          "(open) or lets one try (half-open).",
                                          MODEL_STATE);
    m->ejections =
        at_metrics_family(r, AT_METRIC_COUNTER, "atoll_gateway_ejections_total",
                          "Times that a replica was left alone, by reason.", MODEL_REASON);
    m->checks = at_metrics_family(r, AT_METRIC_COUNTER, "atoll_gateway_health_checks_total",
                                  "Replicas asked by the gateway whether they are well, by result.",
                                  MODEL_RESULT);
    m->hedges = at_metrics_family(
        r, AT_METRIC_COUNTER, "atoll_gateway_hedges_total",
        "Second copies of slow requests: sent, won, lost, failed, or not sent (shed).",
        MODEL_RESULT);
    m->sick = at_metrics_family(r, AT_METRIC_GAUGE, "atoll_gateway_unhealthy_replicas",
                                "Replicas that fail the gateway's own checks, per loop.", MODEL);
}

void gw_metrics_init(struct gw_metrics *m, enum at_loop_backend backend)
{
    static const char *const BACKEND[] = {"backend", NULL};
    const char *const backend_name[] = {at_loop_backend_name(backend), NULL};
    static const char *const MODEL_SITE_CODE[] = {"model", "site", "code", NULL};
    static const char *const MODEL[] = {"model", NULL};
    static const char *const MODEL_REASON[] = {"model", "reason", NULL};
    static const char *const MODEL_SITE_REASON[] = {"model", "site", "reason", NULL};
    struct at_metrics *r = m->registry = at_metrics_new();
    m->requests = at_metrics_family(r, AT_METRIC_COUNTER, "atoll_gateway_requests_total",
                                    "Requests answered, by model, site of the replica and status.",
                                    MODEL_SITE_CODE);
    m->duration =
        at_metrics_family(r, AT_METRIC_HISTOGRAM, "atoll_gateway_request_duration_seconds",
                          "From the whole request to the end of its answer.", MODEL);
    m->retries = at_metrics_family(r, AT_METRIC_COUNTER, "atoll_gateway_retries_total",
                                   "Requests sent to one more replica, by reason.", MODEL_REASON);
    m->retries_shed = at_metrics_family(
        r, AT_METRIC_COUNTER, "atoll_gateway_retries_shed_total",
        "Retries that were not made: the budget was spent, or others waited.", MODEL_REASON);
    m->upstream_errors =
        at_metrics_family(r, AT_METRIC_COUNTER, "atoll_gateway_upstream_errors_total",
                          "Attempts that a replica did not answer, by reason.", MODEL_SITE_REASON);
    m->first_byte = at_metrics_family(
        r, AT_METRIC_HISTOGRAM, "atoll_gateway_stream_first_byte_seconds",
        "From the whole request to the first byte of an answer that is asked for as a stream.",
        MODEL);
    m->client_retries = at_metrics_family(
        r, AT_METRIC_COUNTER, "atoll_gateway_client_retries_total",
        "Requests that OpenAI's clients say they send again (X-Stainless-Retry-Count).", MODEL);
    m->outstanding = at_metric_plain(r, AT_METRIC_GAUGE, "atoll_gateway_outstanding_requests",
                                     "Requests that wait for a replica's answer.");
    m->route_models = at_metric_plain(r, AT_METRIC_GAUGE, "atoll_gateway_route_models",
                                      "Models in the route table.");
    m->route_replicas = at_metric_plain(r, AT_METRIC_GAUGE, "atoll_gateway_route_replicas",
                                        "Replicas in the route table.");
    m->route_age = at_metric_plain(r, AT_METRIC_GAUGE, "atoll_gateway_route_table_age_seconds",
                                   "Since the route table last changed; -1 without one.");
    choice_metrics_init(m);
    static const char *const MODEL_RESULT[] = {"model", "result", NULL};
    m->kept = at_metrics_family(
        r, AT_METRIC_COUNTER, "atoll_gateway_cache_requests_total",
        "Requests whose answers may be kept: hit, miss, or waited for one that was being made.",
        MODEL_RESULT);
    m->tunnels = at_metric_plain(r, AT_METRIC_GAUGE, "atoll_gateway_tunnels",
                                 "WebSocket connections that are open through the gateway.");
    m->connected = at_metric_plain(r, AT_METRIC_GAUGE, "atoll_gateway_control_plane_connected",
                                   "1 while the routes are being watched.");
    init_waiting(m);
    struct at_metric_family *loops =
        at_metrics_family(r, AT_METRIC_GAUGE, "atoll_gateway_loop_backend",
                          "1 for how the event loops wait: io_uring or epoll.", BACKEND);
    at_metric_set(at_metric_with(loops, backend_name), 1);
}

void gw_count(struct gw_worker *worker, const char *model, const char *site, int status)
{
    char code[8];
    snprintf(code, sizeof code, "%d", status);
    const char *const labels[] = {model, site, code, NULL};
    at_metric_add(at_metric_with(worker->gateway->metrics.requests, labels), 1);
    if (worker->handling != NULL) {
        gw_observe_own(worker, worker->handling, status);
        worker->handling = NULL;
    }
}

void gw_count_choice(struct gw_worker *worker, const struct gw_model *model,
                     struct gw_replica *replica, enum gw_why why)
{
    static const char *const REASONS[GW_WHY_COUNT] = {"only",   "load", "session", "moved",
                                                      "prefix", "far",  "last"};
    if (replica->chosen[why] == NULL) {
        const char *const labels[] = {model->name, replica->version, REASONS[why], NULL};
        replica->chosen[why] = at_metric_with(worker->gateway->metrics.choices, labels);
    }
    at_metric_add(replica->chosen[why], 1);
}

void gw_learn_prefix(struct gw_worker *w, struct gw_model *model, struct gw_replica *replica)
{
    if (w->n_chain == 0) {
        return;
    }
    for (int hit = 0; hit < 2 && model->prefix_counts[hit] == NULL; hit++) {
        const char *const labels[] = {model->name, hit ? "hit" : "miss", NULL};
        model->prefix_counts[hit] = at_metric_with(w->gateway->metrics.prefix_blocks, labels);
    }
    size_t depth = gw_prefix_depth(model->prefix, w->chain, w->n_chain, replica);
    at_metric_add(model->prefix_counts[1], (int64_t)depth);
    at_metric_add(model->prefix_counts[0], (int64_t)(w->n_chain - depth));
    gw_prefix_learn(&model->prefix, replica, w->chain, w->n_chain);
    if (w->n_chain - depth >= AT_GW_LESSON_BLOCKS_MIN) {
        gw_lesson_tell(w, model, replica);
    }
}

static void answer_json(struct at_http_exchange *ex, int status, const char *headers, json_t *take)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (at_json_dump(take, &text) != AT_OK) {
        at_buf_clear(&text);
    }
    json_decref(take);
    at_http_respond(ex, status, "application/json", headers, text.data, text.len);
}

void gw_answer_error(struct at_http_exchange *ex, int status, const char *headers, const char *fmt,
                     ...)
{
    char message[AT_ERR_MSG_BYTES_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    if (gw_grpc_kind_of(at_http_request(ex)) != GW_GRPC_NONE) {
        char lines[4 * AT_ERR_MSG_BYTES_MAX];
        gw_grpc_status_lines(gw_grpc_status_of(status), message, lines, sizeof lines);
        at_http_respond(ex, 200, "application/grpc", lines, NULL, 0);
        return;
    }
    json_t *error = json_string(message);
    answer_json(ex, status, headers,
                json_pack("{s:o}", "error", error != NULL ? error : json_string("bad request")));
}

/* The lines of headers that are no description of a body. */
static void keep_lines(const char *headers, struct at_buf *out)
{
    static const char *const NOT[] = {"content-type:", "inference-header-content-length:",
                                      "content-encoding:", "content-length:"};
    while (headers != NULL && *headers != '\0') {
        const char *end = strstr(headers, "\r\n");
        size_t len = end != NULL ? (size_t)(end + 2 - headers) : strlen(headers);
        bool keep = true;
        for (size_t i = 0; i < AT_ARRAY_LEN(NOT); i++) {
            keep = keep && strncasecmp(headers, NOT[i], strlen(NOT[i])) != 0;
        }
        if (keep && at_buf_append(out, headers, len) != AT_OK) {
            return;
        }
        headers += len;
    }
}

void gw_answer_grpc(struct at_http_exchange *ex, const char *headers, const struct at_buf *message)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf lines = {0};
    keep_lines(headers, &lines);
    at_http_stream_begin(ex, 200, "application/grpc", lines.data);
    if (at_http_stream_write(ex, message->data, message->len) != AT_OK) {
        at_http_abort(ex);
        return;
    }
    at_http_stream_end_trailers(ex, "grpc-status: 0\r\n");
}

static void answer_metrics(struct gw_worker *worker, struct at_http_exchange *ex)
{
    struct at_gateway *g = worker->gateway;
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (!g->is_loopback && !gw_auth_allows(worker, at_http_request(ex))) {
        gw_answer_error(ex, 401, "WWW-Authenticate: Bearer\r\n", "a bearer token is needed");
        return;
    }
    int64_t made = atomic_load(&g->table_at_ns);
    at_metric_set(g->metrics.route_age,
                  made == 0 ? -1 : (at_loop_now_ns(worker->loop) - made) / AT_GW_S);
    const struct at_metrics *all[AT_GW_THREADS_MAX + 1] = {g->metrics.registry};
    for (unsigned i = 0; i < g->n_workers; i++) {
        all[i + 1] = g->workers[i].meters.registry;
    }
    if (at_metrics_expose_sum(all, g->n_workers + 1, &text) != AT_OK) {
        gw_answer_error(ex, 500, NULL, "the metrics are too long");
        return;
    }
    at_http_respond(ex, 200, "text/plain; version=0.0.4; charset=utf-8", NULL, text.data, text.len);
}

/* What Triton's repository extension answers: one entry a version. The body that it takes may ask
 * for ready ones only; all are told, with their state. */
static void answer_index(struct gw_worker *w, struct at_http_exchange *ex)
{
    if (!w->has_table) { /* an empty list would be a lie */
        gw_answer_error(ex, 503, "Retry-After: 1\r\n", "no routes are known yet");
        return;
    }
    json_t *list = json_array();
    void *value;
    for (size_t it = 0; at_map_next(w->models, &it, NULL, &value);) {
        const struct gw_model *model = value;
        bool ready = model->n_replicas > 0;
        if (!gw_meter_may_ask(w, model)) {
            continue;
        }
        for (size_t i = 0; i < (model->n_versions > 0 ? model->n_versions : 1); i++) {
            json_array_append_new(list,
                                  json_pack("{s:s, s:s, s:s, s:s}", "name", model->name, "version",
                                            model->n_versions > 0 ? model->versions[i] : "",
                                            "state", ready ? "READY" : "UNAVAILABLE", "reason",
                                            ready ? "" : "no replica is ready"));
        }
    }
    answer_json(ex, 200, NULL, list);
}

static void answer_no_path(struct gw_worker *w, struct at_http_exchange *ex)
{
    gw_count(w, "", "", 404);
    if (gw_openai_is(at_http_request(ex))) {
        gw_openai_answer_error(w, ex, 404, &(struct gw_openai_error){.code = "unknown_url"},
                               "no such path");
    } else {
        gw_answer_error(ex, 404, NULL, "no such path");
    }
}

void gw_answer_own(struct gw_worker *worker, struct at_http_exchange *ex,
                   const struct gw_path *path)
{
    const struct at_http_head *head = at_http_request(ex);
    bool reads = head->method == AT_HTTP_GET || head->method == AT_HTTP_HEAD;
    if (path->kind == GW_PATH_NONE) {
        answer_no_path(worker, ex);
        return;
    }
    if (path->kind == GW_PATH_INDEX && head->method == AT_HTTP_POST) {
        answer_index(worker, ex);
        return;
    }
    if (!reads && gw_openai_is(head)) {
        gw_openai_answer_error(worker, ex, 405,
                               &(struct gw_openai_error){.headers = "Allow: GET, HEAD\r\n"},
                               "only GET is possible here");
        return;
    }
    if (!reads) {
        gw_answer_error(ex, 405, "Allow: GET, HEAD\r\n", "only GET is possible here");
        return;
    }
    switch (path->kind) {
    case GW_PATH_HEALTHZ:
        at_http_respond(ex, 200, "text/plain", NULL, "ok\n", 3);
        return;
    case GW_PATH_METRICS:
        answer_metrics(worker, ex);
        return;
    case GW_PATH_LIVE:
        answer_json(ex, 200, NULL, json_pack("{s:b}", "live", 1));
        return;
    case GW_PATH_READY:
        answer_json(ex, worker->has_table ? 200 : 503, NULL,
                    json_pack("{s:b, s:b}", "live", 1, "ready", worker->has_table));
        return;
    case GW_PATH_SERVER:
        answer_json(ex, 200, NULL,
                    json_pack("{s:s, s:s, s:[s]}", "name", "atoll", "version", AT_VERSION,
                              "extensions", "binary_tensor_data"));
        return;
    case GW_PATH_MODEL_LIST:
        gw_openai_answer_models(worker, ex);
        return;
    case GW_PATH_MODEL_CARD:
        gw_openai_answer_model(worker, ex, path);
        return;
    case GW_PATH_INDEX:
        answer_index(worker, ex);
        return;
    case GW_PATH_PLAYGROUND:
        if (!gw_playground_answer(ex)) {
            answer_no_path(worker, ex);
        }
        return;
    case GW_PATH_NONE:
    case GW_PATH_MODEL:
    case GW_PATH_OPENAI:
        break;
    }
    assert(false); /* not the gateway's own */
}
