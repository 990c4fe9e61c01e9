#include "runners/llm_priv.h"

#include "core/mem.h"
#include "core/units.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define JSON_TYPE "application/json"

static void count(struct at_llm_service *s, int status)
{
    char code[8];
    snprintf(code, sizeof code, "%d", status);
    at_metric_add(at_metric_with(s->serving.requests, (const char *const[]){code, NULL}), 1);
}

void llm_respond_error(struct at_llm_service *s, struct at_http_exchange *ex,
                       const struct at_openai_error *error)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf body = {0};
    count(s, error->status);
    if (at_openai_encode_error(error, &body) != AT_OK) {
        at_buf_clear(&body);
    }
    at_http_respond(ex, error->status, JSON_TYPE,
                    error->status == 503 ? "Retry-After: 1\r\n" : NULL, body.data, body.len);
}

void llm_respond(struct at_llm_service *s, struct at_http_exchange *ex, const struct at_buf *body)
{
    count(s, 200);
    at_http_respond(ex, 200, JSON_TYPE, NULL, body->data, body->len);
}

static void respond_json(struct at_llm_service *s, struct at_http_exchange *ex, json_t *value_take)
{
    AT_CLEANUP(at_cleanup_json) json_t *value = value_take;
    AT_CLEANUP(at_cleanup_buf) struct at_buf body = {0};
    if (value != NULL && at_json_dump(value, &body) == AT_OK) {
        llm_respond(s, ex, &body);
    } else {
        struct at_openai_error error = {.status = 500};
        (void)!at_err_set(&error.err, AT_INTERNAL, "this cannot be said in JSON");
        llm_respond_error(s, ex, &error);
    }
}

static void refuse(struct at_llm_service *s, struct at_http_exchange *ex, int status,
                   const char *code, const char *what)
{
    struct at_openai_error error = {.status = status, .code = code};
    (void)!at_err_set(&error.err, AT_BAD_REQUEST, "%s", what);
    llm_respond_error(s, ex, &error);
}

static json_t *model_json(const struct at_llm_service *s)
{
    return json_pack("{s:s, s:s, s:I, s:s, s:{s:s, s:I, s:I, s:I, s:b}}", "id", s->options.name,
                     "object", "model", "created", (json_int_t)s->started_s, "owned_by", "atoll",
                     "meta", "description", s->description, "parameters",
                     (json_int_t)s->l->llama_model_n_params(s->model), "size_bytes",
                     (json_int_t)s->l->llama_model_size(s->model), "context_tokens",
                     (json_int_t)at_llm_engine_context(s->engine), "chat", s->chats);
}

/* What gateways and agents ask of every runner. */
static json_t *metadata_json(const struct at_llm_service *s)
{
    json_t *versions = json_array();
    if (s->options.version != NULL) {
        json_array_append_new(versions, json_string(s->options.version));
    }
    return json_pack("{s:s, s:o, s:s, s:[{s:s, s:s, s:[i]}], s:[{s:s, s:s, s:[i]}], s:s}", "name",
                     s->options.name, "versions", versions, "platform", "llama.cpp_gguf", "inputs",
                     "name", "prompt", "datatype", "BYTES", "shape", 1, "outputs", "name", "text",
                     "datatype", "BYTES", "shape", 1, "description", s->description);
}

static void serve_metrics(struct at_llm_service *s, struct at_http_exchange *ex)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf body = {0};
    if (at_metrics_expose(s->serving.metrics, &body) != AT_OK) {
        refuse(s, ex, 500, NULL, "the metrics are too large");
        return;
    }
    at_http_respond(ex, 200, "text/plain; version=0.0.4", NULL, body.data, body.len);
}

/* The names as they are: what needs percent-encoding in a path is served under /v1/models. */
static bool is_model_path(const struct at_llm_service *s, struct at_str path, const char *prefix,
                          struct at_str *ret_rest)
{
    size_t skip = strlen(prefix), len = strlen(s->options.name);
    if (!at_str_starts(path, prefix) || path.len < skip + len ||
        memcmp(path.ptr + skip, s->options.name, len) != 0) {
        return false;
    }
    *ret_rest = (struct at_str){path.ptr + skip + len, path.len - skip - len};
    return ret_rest->len == 0 || ret_rest->ptr[0] == '/';
}

static bool serve_get(struct at_llm_service *s, struct at_http_exchange *ex, struct at_str path)
{
    struct at_str rest;
    if (at_str_eq(path, "/metrics")) {
        serve_metrics(s, ex);
    } else if (at_str_eq(path, "/v1/models")) {
        respond_json(s, ex, json_pack("{s:s, s:[o]}", "object", "list", "data", model_json(s)));
    } else if (is_model_path(s, path, "/v1/models/", &rest) && rest.len == 0) {
        respond_json(s, ex, model_json(s));
    } else if (at_str_eq(path, "/v2/health/live")) {
        respond_json(s, ex, json_pack("{s:b}", "live", 1));
    } else if ((at_str_eq(path, "/v2/health/ready") || at_str_eq(path, "/health")) &&
               s->serving.draining) {
        refuse(s, ex, 503, NULL, "shutting down");
    } else if (at_str_eq(path, "/v2/health/ready") || at_str_eq(path, "/health")) {
        respond_json(s, ex, json_pack("{s:b, s:s}", "ready", 1, "status", "ok"));
    } else if (at_str_eq(path, "/v2") || at_str_eq(path, "/v2/")) {
        respond_json(
            s, ex,
            json_pack("{s:s, s:s, s:[]}", "name", "atoll", "version", AT_VERSION, "extensions"));
    } else if (is_model_path(s, path, "/v2/models/", &rest) && rest.len == 0) {
        respond_json(s, ex, metadata_json(s));
    } else if (is_model_path(s, path, "/v2/models/", &rest) && at_str_eq(rest, "/ready")) {
        respond_json(
            s, ex, json_pack("{s:s, s:b}", "name", s->options.name, "ready", !s->serving.draining));
    } else {
        return false;
    }
    return true;
}

static void on_request(void *ctx, struct at_http_exchange *ex)
{
    static const struct {
        const char *path;
        enum at_openai_kind kind;
    } POSTS[] = {{"/v1/chat/completions", AT_OPENAI_CHAT},
                 {"/v1/completions", AT_OPENAI_TEXT},
                 {"/v1/embeddings", AT_OPENAI_EMBED}};
    struct at_llm_service *s = ctx;
    const struct at_http_head *head = at_http_request(ex);
    bool get = head->method == AT_HTTP_GET || head->method == AT_HTTP_HEAD;
    for (size_t i = 0; i < AT_ARRAY_LEN(POSTS); i++) {
        if (at_str_eq(head->path, POSTS[i].path) && head->method == AT_HTTP_POST) {
            llm_call_new(s, ex, POSTS[i].kind);
            return;
        }
        if (at_str_eq(head->path, POSTS[i].path)) {
            refuse(s, ex, 405, NULL, "this path takes POST");
            return;
        }
    }
    if (!get || !serve_get(s, ex, head->path)) {
        refuse(s, ex, 404, "not_found",
               "no such path; there are: /v1/chat/completions, /v1/completions, /v1/embeddings, "
               "/v1/models, /metrics");
    }
}

static struct at_metric *plain(struct at_llm_service *s, enum at_metric_type type, const char *name,
                               const char *help)
{
    return at_metric_plain(s->serving.metrics, type, name, help);
}

static void make_metrics(struct at_llm_service *s, struct at_llm_metrics *m)
{
    s->total_time = plain(s, AT_METRIC_HISTOGRAM, "atoll_llm_request_seconds",
                          "From a request to the end of its answer.");
    m->first_token = plain(s, AT_METRIC_HISTOGRAM, "atoll_llm_first_token_seconds",
                           "From a request to the first token of its answer.");
    m->between_tokens = plain(s, AT_METRIC_HISTOGRAM, "atoll_llm_between_tokens_seconds",
                              "From a token of an answer to the next one.");
    m->queue = plain(s, AT_METRIC_HISTOGRAM, "atoll_llm_queue_seconds",
                     "From a request to the first step with some of it.");
    m->step = plain(s, AT_METRIC_HISTOGRAM, "atoll_llm_step_seconds", "Time of a step.");
    m->steps = plain(s, AT_METRIC_COUNTER, "atoll_llm_steps_total", "Steps of the engine.");
    m->step_tokens = plain(s, AT_METRIC_COUNTER, "atoll_llm_step_tokens_total",
                           "Tokens computed in steps: of prompts, of answers, and again.");
    m->prompt_tokens = plain(s, AT_METRIC_COUNTER, "atoll_llm_prompt_tokens_total",
                             "Tokens of prompts that were read.");
    m->answer_tokens =
        plain(s, AT_METRIC_COUNTER, "atoll_llm_answer_tokens_total", "Tokens of answers.");
    m->reused_tokens = plain(s, AT_METRIC_COUNTER, "atoll_llm_reused_tokens_total",
                             "Tokens of prompts that were in the cache already.");
    m->preemptions = plain(s, AT_METRIC_COUNTER, "atoll_llm_preemptions_total",
                           "Sequences that gave up their place for others, to go on later.");
    m->cancelled = plain(s, AT_METRIC_COUNTER, "atoll_llm_cancelled_total",
                         "Sequences whose client went away.");
    m->running = plain(s, AT_METRIC_GAUGE, "atoll_llm_running", "Sequences that compute.");
    m->waiting = plain(s, AT_METRIC_GAUGE, "atoll_llm_waiting", "Sequences that wait for a place.");
    m->cells = plain(s, AT_METRIC_GAUGE, "atoll_llm_cache_tokens_max",
                     "Tokens that the cache has room for.");
    m->cells_used = plain(s, AT_METRIC_GAUGE, "atoll_llm_cache_tokens",
                          "Tokens in the cache; shared ones once.");
    m->cells_kept = plain(s, AT_METRIC_GAUGE, "atoll_llm_cache_kept_tokens",
                          "Of them prefixes that nobody uses now.");
}

/* Does the library know this template? It is told by applying it. */
static bool template_works(const struct at_llm_service *s)
{
    struct llama_chat_message message = {"user", "x"};
    char text[4096];
    return s->chat_template != NULL &&
           s->l->llama_chat_apply_template(s->chat_template, &message, 1, true, text, sizeof text) >
               0;
}

static enum at_rc make_engine(struct at_llm_service *s, const struct at_llm_metrics *metrics,
                              struct at_err *err)
{
    struct at_llm_engine_options options = {.llama = s->l,
                                            .model = s->model,
                                            .sched = s->options.sched,
                                            .threads = s->options.threads,
                                            .cache_type = s->options.cache_type,
                                            .split = s->options.split,
                                            .metrics = *metrics,
                                            .on_event = llm_on_event,
                                            .ctx = s};
    return at_llm_engine_new(s->loop, &options, &s->engine, err);
}

static bool is_busy(void *ctx)
{
    const struct at_llm_service *s = ctx;
    return s->calls != NULL;
}

enum at_rc at_llm_service_new(struct at_loop *loop, const struct at_llama *llama,
                              struct llama_model *model, const struct at_llm_options *options,
                              struct at_llm_service **ret, struct at_err *err)
{
    struct at_llm_service *s = AT_NEW(struct at_llm_service);
    struct at_llm_metrics metrics;
    const struct at_sys *sys = at_loop_sys(loop);
    int64_t begun = at_sys_mono_ns(sys);
    s->loop = loop;
    s->serving = (struct runner_serving){.loop = loop, .is_busy = is_busy, .ctx = s};
    s->l = llama;
    s->model = model;
    s->vocab = llama->llama_model_get_vocab(model);
    s->options = *options;
    s->choices = at_map_new();
    s->started_s = at_sys_wall_ns(at_loop_sys(loop)) / AT_NS_PER_S;
    s->chat_template = options->chat_template != NULL
                           ? options->chat_template
                           : llama->llama_model_chat_template(model, NULL);
    s->chats = template_works(s);
    llama->llama_model_desc(model, s->description, sizeof s->description);
    runner_serving_init(&s->serving);
    make_metrics(s, &metrics);
    struct runner_addresses at = {.listen = options->listen,
                                  .local_listen = options->local_listen,
                                  .body_bytes_max = AT_LLM_BODY_BYTES_MAX,
                                  .handler = on_request};
    enum at_rc rc = make_engine(s, &metrics, err);
    rc = rc != AT_OK ? rc : runner_serving_listen(&s->serving, &at, err);
    if (rc != AT_OK) {
        at_llm_service_free(s);
        return rc;
    }
    runner_serving_started(&s->serving, &options->start, at_sys_mono_ns(sys) - begun);
    *ret = s;
    return AT_OK;
}

const char *at_llm_service_addr(const struct at_llm_service *service)
{
    return at_http_server_addr(service->serving.server);
}

bool at_llm_service_chats(const struct at_llm_service *service)
{
    return service->chats;
}

void at_llm_service_drain(struct at_llm_service *service, at_post_fn *done, void *ctx)
{
    runner_serving_drain(&service->serving, done, ctx);
}

void at_llm_service_free(struct at_llm_service *service)
{
    if (service == NULL) {
        return;
    }
    runner_serving_close(&service->serving);
    while (service->calls != NULL) {
        llm_call_free(service->calls);
    }
    at_llm_engine_free(service->engine);
    at_map_free(service->choices);
    runner_serving_done(&service->serving);
    at_free(service);
}
