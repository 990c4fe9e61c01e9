#include "gateway/observe.h"

#include "core/mem.h"
#include "gateway/headers.h"
#include "gateway/proxy_priv.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define CACHE_SLOTS 2048

struct gw_replica_meters {
    char *model, *version, *site, *instance;
    struct gw_meters *of;
    struct at_metric *duration;
    struct {
        int code;
        struct at_metric *metric;
    } codes[AT_GW_REPLICA_CODES_MAX];
    size_t n_codes;
    struct at_metric *others;                    /* further codes */
    struct at_metric *first_token, *inter_token; /* shared with other replicas: stay */
};

/* Series by key and model, found without making their labels. */
struct cached {
    const char *key;
    char *model;
    struct at_metric *ok, *duration, *prompt, *completion;
};

struct gw_usage_cache {
    struct cached slots[CACHE_SLOTS];
};

/* --- metrics --- */

static void meters_init(struct gw_meters *m)
{
    static const char *const REPLICA_CODE[] = {"model", "version", "site", "replica", "code", NULL};
    static const char *const REPLICA[] = {"model", "version", "site", "replica", NULL};
    static const char *const SITE[] = {"model", "version", "site", NULL};
    static const char *const KEY_CODE[] = {"key", "model", "code", NULL};
    static const char *const KEY[] = {"key", NULL};
    static const char *const TOKENS[] = {"model", "key", "kind", NULL};
    static const char *const MODEL[] = {"model", NULL};
    struct at_metrics *r = m->registry = at_metrics_new();
    m->replica_requests = at_metrics_family(
        r, AT_METRIC_COUNTER, "atoll_gateway_replica_requests_total",
        "Answers by the replica that gave them; gone when the replica is.", REPLICA_CODE);
    m->replica_duration = at_metrics_family(
        r, AT_METRIC_HISTOGRAM, "atoll_gateway_replica_request_duration_seconds",
        "From the whole request to the end of its answer, by the replica that gave it.", REPLICA);
    m->key_requests =
        at_metrics_family(r, AT_METRIC_COUNTER, "atoll_gateway_key_requests_total",
                          "Requests answered, by the name of the client's token.", KEY_CODE);
    m->key_duration =
        at_metrics_family(r, AT_METRIC_HISTOGRAM, "atoll_gateway_key_request_duration_seconds",
                          "From the whole request to the end of its answer.", KEY);
    m->first_token = at_metrics_family(
        r, AT_METRIC_HISTOGRAM, "atoll_gateway_time_to_first_token_seconds",
        "From the whole request to the first event with data of a streamed answer.", SITE);
    m->inter_token =
        at_metrics_family(r, AT_METRIC_HISTOGRAM, "atoll_gateway_inter_token_latency_seconds",
                          "From one event with data of a streamed answer to the next.", SITE);
    m->tokens = at_metrics_family(r, AT_METRIC_COUNTER, "atoll_gateway_tokens_total",
                                  "Tokens that answers say were used: prompt, completion.", TOKENS);
    m->depth =
        at_metrics_family(r, AT_METRIC_HISTOGRAM, "atoll_gateway_replica_depth_requests",
                          "Requests under way at a replica when one more is sent to it, with "
                          "that one.",
                          MODEL);
    m->batch = at_metrics_family(r, AT_METRIC_HISTOGRAM, "atoll_gateway_batch_rows",
                                 "Size of the batch that a request ran in, as replicas tell it "
                                 "(x-atoll-batch-size).",
                                 MODEL);
}

static struct gw_replica_meters *meters_of(struct gw_request *r, struct gw_replica *replica)
{
    if (replica->meters == NULL) {
        struct gw_replica_meters *m = replica->meters = AT_NEW(struct gw_replica_meters);
        m->of = &r->worker->meters;
        m->model = at_strdup(r->model->name);
        m->version = at_strdup(replica->version);
        m->site = at_strdup(replica->site);
        m->instance = at_strdup(replica->instance);
        const char *const labels[] = {m->model, m->version, m->site, m->instance, NULL};
        m->duration = at_metric_with(m->of->replica_duration, labels);
    }
    return replica->meters;
}

void gw_replica_meters_free(struct gw_replica_meters *m)
{
    if (m == NULL) {
        return;
    }
    at_metric_drop(m->duration);
    for (size_t i = 0; i < m->n_codes; i++) {
        at_metric_drop(m->codes[i].metric);
    }
    at_metric_drop(m->others);
    at_free(m->model);
    at_free(m->version);
    at_free(m->site);
    at_free(m->instance);
    at_free(m);
}

static struct at_metric *code_metric(struct gw_replica_meters *m, int code)
{
    for (size_t i = 0; i < m->n_codes; i++) {
        if (m->codes[i].code == code) {
            return m->codes[i].metric;
        }
    }
    bool full = m->n_codes == AT_GW_REPLICA_CODES_MAX;
    char text[16];
    snprintf(text, sizeof text, "%d", code);
    const char *const labels[] = {m->model, m->version, m->site, m->instance, full ? "other" : text,
                                  NULL};
    if (full && m->others != NULL) {
        return m->others;
    }
    struct at_metric *metric = at_metric_with(m->of->replica_requests, labels);
    if (full) {
        m->others = metric;
    } else {
        m->codes[m->n_codes].code = code;
        m->codes[m->n_codes++].metric = metric;
    }
    return metric;
}

static struct cached *cached_of(struct gw_worker *w, const char *key, const char *model)
{
    uint64_t hash = gw_hash_mix((uintptr_t)key, gw_hash(at_str_of(model)));
    struct cached *slot = &w->usage_cache->slots[hash % CACHE_SLOTS];
    if (slot->key != key || slot->model == NULL || strcmp(slot->model, model) != 0) {
        at_free(slot->model);
        const char *const ok[] = {key, model, "200", NULL}, *const duration[] = {key, NULL};
        *slot = (struct cached){.key = key,
                                .model = at_strdup(model),
                                .ok = at_metric_with(w->meters.key_requests, ok),
                                .duration = at_metric_with(w->meters.key_duration, duration)};
    }
    return slot;
}

static void count_tokens(struct gw_request *r, struct cached *c)
{
    const struct gw_meters *m = &r->worker->meters;
    if (c->prompt == NULL) {
        const char *const prompt[] = {c->model, c->key, "prompt", NULL};
        const char *const completion[] = {c->model, c->key, "completion", NULL};
        c->prompt = at_metric_with(m->tokens, prompt);
        c->completion = at_metric_with(m->tokens, completion);
    }
    at_metric_add(c->prompt, (int64_t)r->obs.usage.prompt);
    at_metric_add(c->completion, (int64_t)r->obs.usage.completion);
}

static void count_key(struct gw_request *r, int status, int64_t took_ns)
{
    struct gw_worker *w = r->worker;
    struct cached *c = cached_of(w, r->obs.series, r->model->name);
    if (r->obs.series[0] != '\0') {
        if (status == 200) {
            at_metric_add(c->ok, 1);
        } else {
            char code[16];
            snprintf(code, sizeof code, "%d", status);
            const char *const labels[] = {r->obs.series, r->model->name, code, NULL};
            at_metric_add(at_metric_with(w->meters.key_requests, labels), 1);
        }
        at_metric_observe_ns(c->duration, took_ns);
    }
    if ((r->obs.usage.prompt | r->obs.usage.completion) != 0) {
        count_tokens(r, c);
    }
}

/* --- the life of a request --- */

void gw_observe_begin(struct gw_request *r)
{
    struct gw_worker *w = r->worker;
    const uint64_t random[] = {gw_random(w), gw_random(w), gw_random(w)};
    struct gw_observation *o = &r->obs;
    const char *key = w->key != NULL ? w->key : "";
    *o = (struct gw_observation){.key = key, .series = w->bearer != NULL ? gw_key_series(w) : key};
    gw_trace_take(at_http_request(r->ex), random, w->gateway->trace_share, &o->trace);
    o->random = (uint32_t)(gw_random(w) >> 32);
    o->attempt_span = gw_random(w) | 1;
    o->bytes_in = at_http_request_body(r->ex).len;
    w->handling = NULL; /* from here on it is counted as one that was passed on */
    at_buf_clear(&r->line);
    if (gw_access_wants(w->access, o->random, -1)) {
        gw_access_begin(r->ex, &r->line);
    }
}

void gw_observe_attempt(struct gw_request *r)
{
    struct gw_worker *w = r->worker;
    struct gw_observation *o = &r->obs;
    if (o->attempts++ > 0) {
        o->attempt_span = gw_random(w) | 1;
        gw_trace_put_hex(o->attempt_span, r->up.data + o->lines_bytes + GW_HEADERS_SPAN_AT);
    }
    o->attempt_ns = at_loop_now_ns(w->loop);
    r->status = 0;
    o->is_sse = false;
    o->sse = (struct gw_sse){0};
    if (r->model->depth == NULL) {
        const char *const labels[] = {r->model->name, NULL};
        r->model->depth = at_metric_with(w->meters.depth, labels);
    }
    at_metric_observe_ns(r->model->depth, r->replica->outstanding);
}

static void put_text(char *to, size_t size, const char *from)
{
    size_t len = strlen(from);
    len = at_str_utf8_prefix((struct at_str){from, len < size ? len : size - 1});
    memcpy(to, from, len);
    to[len] = '\0';
}

static struct gw_span *begin_span(struct gw_request *r, enum gw_span_kind kind)
{
    struct gw_worker *w = r->worker;
    struct gw_observation *o = &r->obs;
    struct gw_span *s = w->spans != NULL && o->trace.sampled ? gw_spans_next(w->spans) : NULL;
    if (s != NULL) {
        s->kind = kind;
        s->trace[0] = o->trace.id[0];
        s->trace[1] = o->trace.id[1];
        s->end_ns = at_loop_now_ns(w->loop);
        s->attempts = o->attempts;
        put_text(s->method, sizeof s->method, at_http_method_name(r->method));
        put_text(s->model, sizeof s->model, r->model->name);
    }
    return s;
}

void gw_observe_attempt_end(struct gw_request *r, int status)
{
    struct gw_span *s = begin_span(r, GW_SPAN_CLIENT);
    if (s != NULL) {
        s->span = r->obs.attempt_span;
        s->parent = r->obs.trace.span;
        s->start_ns = r->obs.attempt_ns;
        s->status = status;
        put_text(s->instance, sizeof s->instance, r->replica->instance);
        put_text(s->site, sizeof s->site, r->replica->site);
        put_text(s->addr, sizeof s->addr, r->replica->addr);
    }
}

void gw_observe_head(struct gw_request *r, const struct at_http_head *head)
{
    uint64_t rows;
    r->obs.is_sse =
        r->openai && at_str_starts(at_http_header_get(head, "content-type"), "text/event-stream");
    if (r->infer && at_str_to_u64(at_http_header_get(head, "x-atoll-batch-size"), &rows) == AT_OK &&
        rows <= INT32_MAX) {
        if (r->model->batch == NULL) {
            const char *const labels[] = {r->model->name, NULL};
            r->model->batch = at_metric_with(r->worker->meters.batch, labels);
        }
        at_metric_observe_ns(r->model->batch, (int64_t)rows);
    }
}

static void observe_events(struct gw_request *r, size_t n)
{
    struct gw_observation *o = &r->obs;
    struct gw_replica_meters *m = meters_of(r, r->replica);
    int64_t now = at_loop_now_ns(r->worker->loop);
    if (m->first_token == NULL) {
        const char *const labels[] = {m->model, m->version, m->site, NULL};
        m->first_token = at_metric_with(m->of->first_token, labels);
        m->inter_token = at_metric_with(m->of->inter_token, labels);
    }
    if (o->first_ns == 0) {
        o->first_ns = o->event_ns = now;
        at_metric_observe_ns(m->first_token, now - r->start_ns);
        n--;
    }
    for (; n > 0; n--) { /* those that came together had no time between them */
        at_metric_observe_ns(m->inter_token, now - o->event_ns);
        o->event_ns = now;
    }
}

void gw_observe_data(struct gw_request *r, const char *data, size_t len)
{
    struct gw_observation *o = &r->obs;
    o->bytes_out += len;
    if (!r->openai || r->replica == NULL) {
        return;
    }
    size_t n = o->is_sse ? gw_sse_events(&o->sse, data, len) : 0;
    if (n > 0) {
        observe_events(r, n);
    }
    (void)gw_usage_find((struct at_str){data, len}, &o->usage);
    gw_meter_data(r, data, len, n);
}

void gw_observe_end(struct gw_request *r, int status, struct gw_replica *replica)
{
    struct gw_worker *w = r->worker;
    struct gw_observation *o = &r->obs;
    int64_t took_ns = at_loop_now_ns(w->loop) - r->start_ns;
    if (replica != NULL) {
        struct gw_replica_meters *m = meters_of(r, replica);
        at_metric_add(code_metric(m, status), 1);
        at_metric_observe_ns(m->duration, took_ns);
    }
    count_key(r, status, took_ns);
    gw_meter_end(r, status);
    struct gw_span *s = begin_span(r, GW_SPAN_SERVER);
    if (s != NULL) {
        s->span = o->trace.span;
        s->parent = o->trace.parent;
        s->start_ns = r->start_ns;
        s->status = status;
        put_text(s->instance, sizeof s->instance, replica != NULL ? replica->instance : "");
        put_text(s->site, sizeof s->site, replica != NULL ? replica->site : "");
        put_text(s->key, sizeof s->key, o->key);
        size_t id = r->request_id.len < sizeof s->request_id ? r->request_id.len : 0;
        memcpy(s->request_id, r->request_id.ptr != NULL ? r->request_id.ptr : "", id);
    }
    if (r->line.len > 0 && gw_access_wants(w->access, o->random, status)) {
        gw_access_end(r, status, replica, took_ns);
    }
    at_buf_clear(&r->line);
    gw_meter_release(r);
}

/* --- the loop --- */

void gw_observe_start(struct gw_worker *w)
{
    struct at_gateway *g = w->gateway;
    meters_init(&w->meters);
    w->usage_cache = AT_NEW(struct gw_usage_cache);
    if (g->otlp.addr[0] != '\0') {
        struct gw_spans_options o = {.loop = w->loop,
                                     .client = w->client,
                                     .metrics = w->meters.registry,
                                     .addr = g->otlp.addr,
                                     .target = g->otlp.target,
                                     .tls = g->otlp.tls,
                                     .headers = g->otlp.headers,
                                     .service = "atoll-gateway",
                                     .host = at_sys_hostname()};
        w->spans = gw_spans_new(&o);
    }
    if (g->access_file != NULL) {
        w->access = gw_access_new(w->loop, g->access_pool, w->meters.registry, g->access_file,
                                  g->access_rates);
    }
}

void gw_observe_flush(struct gw_worker *w)
{
    gw_access_flush(w->access);
    (void)gw_spans_flush(w->spans);
}

bool gw_observe_busy(struct gw_worker *w)
{
    int64_t since = w->drain_until_ns - w->gateway->drain_timeout_ns;
    return at_loop_now_ns(w->loop) < since + AT_GW_SPANS_LAST_NS && gw_spans_flush(w->spans);
}

void gw_observe_done(struct gw_worker *w)
{
    gw_spans_free(w->spans);
    gw_access_free(w->access);
    for (size_t i = 0; w->usage_cache != NULL && i < CACHE_SLOTS; i++) {
        at_free(w->usage_cache->slots[i].model);
    }
    at_free(w->usage_cache);
    at_metrics_free(w->meters.registry);
}
