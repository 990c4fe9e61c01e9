#include "gateway/spans.h"

#include "core/mem.h"
#include "gateway/limits.h"
#include "gateway/pb.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

struct gw_spans {
    struct at_loop *loop;
    struct at_http_client *client;
    char *addr, *target, *headers, *service, *host;
    struct at_tls_config *tls;
    struct at_metric *exported, *dropped, *failed;
    struct gw_span ring[AT_GW_SPANS_MAX];
    size_t first, n;
    struct at_buf batch; /* encoded, under way or to be sent again */
    size_t batch_n;
    unsigned tries;
    int status;
    at_http_call_id call;
    at_timer_id timer;
    bool refused; /* the last batch was given up, and none has got through since */
};

/* --- encoding --- */

static enum at_rc put_fixed64(struct at_buf *out, uint32_t number, uint64_t value)
{
    char bytes[8];
    enum at_rc rc = gw_pb_put_varint(out, (uint64_t)number << 3 | GW_PB_FIXED64);
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (char)(value >> (8 * i));
    }
    return rc == AT_OK ? at_buf_append(out, bytes, sizeof bytes) : rc;
}

static enum at_rc put_id(struct at_buf *out, uint32_t number, const uint64_t *words, size_t n)
{
    char bytes[16];
    for (size_t i = 0; i < 8 * n; i++) {
        bytes[i] = (char)(words[i / 8] >> (56 - 8 * (i % 8)));
    }
    return gw_pb_put_bytes(out, number, bytes, 8 * n);
}

/* KeyValue as field number of out. text NULL: an integer. */
static enum at_rc put_attribute(struct at_buf *out, uint32_t number, const char *key,
                                const char *text, uint64_t integer)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf value = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf pair = {0};
    enum at_rc rc = text != NULL ? gw_pb_put_bytes(&value, 1, text, strlen(text))
                                 : gw_pb_put_number(&value, 3, integer);
    if (rc == AT_OK) {
        rc = gw_pb_put_bytes(&pair, 1, key, strlen(key));
    }
    if (rc == AT_OK) {
        rc = gw_pb_put_bytes(&pair, 2, value.data, value.len);
    }
    return rc == AT_OK ? gw_pb_put_bytes(out, number, pair.data, pair.len) : rc;
}

static enum at_rc put_attributes(const struct gw_span *s, struct at_buf *out)
{
    const struct {
        const char *key, *text;
    } texts[] = {{"http.request.method", s->method},
                 {"atoll.model", s->model},
                 {"atoll.instance", s->instance},
                 {"atoll.site", s->site},
                 {"atoll.key", s->key},
                 {"server.address", s->addr},
                 {"atoll.request_id", s->request_id}};
    enum at_rc rc = AT_OK;
    for (size_t i = 0; rc == AT_OK && i < AT_ARRAY_LEN(texts); i++) {
        if (texts[i].text[0] != '\0') {
            rc = put_attribute(out, 9, texts[i].key, texts[i].text, 0);
        }
    }
    if (rc == AT_OK && s->status > 0) {
        rc = put_attribute(out, 9, "http.response.status_code", NULL, (uint64_t)s->status);
    }
    if (rc == AT_OK && s->attempts > 0) {
        rc = put_attribute(out, 9, s->kind == GW_SPAN_SERVER ? "atoll.attempts" : "atoll.attempt",
                           NULL, s->attempts);
    }
    return rc;
}

static enum at_rc put_span(const struct gw_span *s, int64_t wall_of_mono, struct at_buf *out)
{
    static const char ERROR[] = {0x18, 0x02}; /* Status: code = STATUS_CODE_ERROR */
    char name[96];
    snprintf(name, sizeof name, "%s %s", s->method, s->model[0] != '\0' ? s->model : "gateway");
    bool error = s->kind == GW_SPAN_SERVER ? s->status >= 500 : s->status == 0 || s->status >= 400;
    enum at_rc rc = put_id(out, 1, s->trace, 2);
    if (rc == AT_OK) {
        rc = put_id(out, 2, &s->span, 1);
    }
    if (rc == AT_OK && s->parent != 0) {
        rc = put_id(out, 4, &s->parent, 1);
    }
    if (rc == AT_OK) {
        rc = gw_pb_put_bytes(out, 5, name, strlen(name));
    }
    if (rc == AT_OK) {
        rc = gw_pb_put_number(out, 6, s->kind);
    }
    if (rc == AT_OK) {
        rc = put_fixed64(out, 7, (uint64_t)(s->start_ns + wall_of_mono));
    }
    if (rc == AT_OK) {
        rc = put_fixed64(out, 8, (uint64_t)(s->end_ns + wall_of_mono));
    }
    if (rc == AT_OK) {
        rc = put_attributes(s, out);
    }
    return rc == AT_OK && error ? gw_pb_put_bytes(out, 15, ERROR, sizeof ERROR) : rc;
}

static enum at_rc put_resource(const char *service, const char *host, struct at_buf *out)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf resource = {0};
    enum at_rc rc = put_attribute(&resource, 1, "service.name", service, 0);
    if (rc == AT_OK) {
        rc = put_attribute(&resource, 1, "service.version", AT_VERSION, 0);
    }
    if (rc == AT_OK) {
        rc = put_attribute(&resource, 1, "host.name", host, 0);
    }
    return rc == AT_OK ? gw_pb_put_bytes(out, 1, resource.data, resource.len) : rc;
}

/* ExportTraceServiceRequest of n spans (opentelemetry-proto 1.x, collector/trace/v1). wall_ns: of
 * now, mono_ns likewise: spans' times become wall times by them. err: AT_TOO_LARGE. */
static enum at_rc put_spans(const struct gw_span *spans, size_t n, const char *service,
                            const char *host, int64_t wall_ns, int64_t mono_ns, struct at_buf *out)
{
    static const char SCOPE[] = {
        0x0a, 13,  'a', 't', 'o', 'l', 'l', '.',
        'g',  'a', 't', 'e', 'w', 'a', 'y'}; /* InstrumentationScope: name */
    AT_CLEANUP(at_cleanup_buf) struct at_buf one = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf scope = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf all = {0};
    enum at_rc rc = put_resource(service, host, &all);
    if (rc == AT_OK) {
        rc = gw_pb_put_bytes(&scope, 1, SCOPE, sizeof SCOPE);
    }
    for (size_t i = 0; rc == AT_OK && i < n; i++) {
        at_buf_clear(&one);
        rc = put_span(&spans[i], wall_ns - mono_ns, &one);
        rc = rc == AT_OK ? gw_pb_put_bytes(&scope, 2, one.data, one.len) : rc;
    }
    if (rc == AT_OK) {
        rc = gw_pb_put_bytes(&all, 2, scope.data, scope.len);
    }
    return rc == AT_OK ? gw_pb_put_bytes(out, 1, all.data, all.len) : rc;
}

/* --- sending --- */

static void send(struct gw_spans *s);

static void on_timer(void *ctx)
{
    struct gw_spans *s = ctx;
    s->timer = 0;
    send(s);
}

static void want(struct gw_spans *s, int64_t delay_ns)
{
    if (s->timer == 0) {
        s->timer = at_loop_timer(s->loop, delay_ns, on_timer, s);
    }
}

static void give_batch_up(struct gw_spans *s, struct at_metric *why)
{
    at_metric_add(why, (int64_t)s->batch_n);
    at_buf_clear(&s->batch);
    s->batch_n = 0;
    s->tries = 0;
}

static void on_head(void *ctx, const struct at_http_head *head)
{
    ((struct gw_spans *)ctx)->status = head->status;
}

static void on_done(void *ctx, enum at_rc rc, bool sent, const struct at_err *err)
{
    struct gw_spans *s = ctx;
    (void)sent, (void)err;
    s->call = 0;
    if (rc == AT_CANCELLED) {
        return;
    }
    bool again = rc != AT_OK || s->status == 429 || (s->status >= 502 && s->status <= 504);
    if (rc == AT_OK && s->status / 100 == 2) {
        s->refused = false;
        give_batch_up(s, s->exported);
    } else if (!again || s->tries >= AT_GW_SPANS_TRIES) {
        s->refused = true;
        give_batch_up(s, s->failed);
    } else {
        want(s, AT_GW_SPANS_AGAIN_NS << (s->tries - 1));
        return;
    }
    if (s->n > 0) {
        want(s, s->n >= AT_GW_SPANS_BATCH ? 0 : AT_GW_SPANS_NS);
    }
}

/* The oldest that lie side by side. */
static bool encode(struct gw_spans *s)
{
    size_t n = s->n < AT_GW_SPANS_BATCH ? s->n : AT_GW_SPANS_BATCH;
    n = n < AT_GW_SPANS_MAX - s->first ? n : AT_GW_SPANS_MAX - s->first;
    const struct at_sys *sys = at_loop_sys(s->loop);
    enum at_rc rc = put_spans(&s->ring[s->first], n, s->service, s->host, at_sys_wall_ns(sys),
                              at_sys_mono_ns(sys), &s->batch);
    s->first = (s->first + n) % AT_GW_SPANS_MAX;
    s->n -= n;
    s->batch_n = n;
    if (rc != AT_OK) {
        give_batch_up(s, s->failed);
    }
    return rc == AT_OK;
}

static void send(struct gw_spans *s)
{
    if (s->call != 0 || (s->batch_n == 0 && (s->n == 0 || !encode(s)))) {
        return;
    }
    AT_CLEANUP(at_cleanup_free)
    char *lines = at_asprintf("Content-Type: application/x-protobuf\r\n%s", s->headers);
    struct at_http_call call = {.addr = s->addr,
                                .tls = s->tls,
                                .method = AT_HTTP_POST,
                                .target = s->target,
                                .headers = lines,
                                .body = s->batch.data,
                                .body_len = s->batch.len,
                                .timeout_ns = AT_GW_SPANS_TIMEOUT_NS,
                                .ctx = s,
                                .on_head = on_head,
                                .on_done = on_done};
    s->tries++;
    s->status = 0;
    s->call = at_http_call(s->client, &call);
}

struct gw_span *gw_spans_next(struct gw_spans *s)
{
    if (s->n == AT_GW_SPANS_MAX) {
        at_metric_add(s->dropped, 1);
        return NULL;
    }
    struct gw_span *span = &s->ring[(s->first + s->n++) % AT_GW_SPANS_MAX];
    *span = (struct gw_span){0};
    if (s->call == 0 && s->batch_n == 0) {
        if (s->n == AT_GW_SPANS_BATCH) {
            at_loop_timer_cancel(s->loop, s->timer);
            s->timer = 0;
        }
        want(s, s->n >= AT_GW_SPANS_BATCH ? 0 : AT_GW_SPANS_NS);
    }
    return span;
}

bool gw_spans_flush(struct gw_spans *s)
{
    if (s == NULL || s->refused || (s->n == 0 && s->batch_n == 0)) {
        return false;
    }
    if (s->tries == 0) {
        send(s);
    }
    return true;
}

struct gw_spans *gw_spans_new(const struct gw_spans_options *o)
{
    static const char *const RESULT[] = {"result", NULL};
    static const char *const EXPORTED[] = {"exported", NULL}, *const DROPPED[] = {"dropped", NULL},
                             *const FAILED[] = {"failed", NULL};
    struct gw_spans *s = AT_NEW(struct gw_spans);
    s->loop = o->loop;
    s->client = o->client;
    s->addr = at_strdup(o->addr);
    s->target = at_strdup(o->target);
    s->headers = at_strdup(o->headers != NULL ? o->headers : "");
    s->service = at_strdup(o->service);
    s->host = at_strdup(o->host);
    s->tls = at_tls_config_ref(o->tls);
    struct at_metric_family *spans = at_metrics_family(
        o->metrics, AT_METRIC_COUNTER, "atoll_gateway_spans_total",
        "Spans by what became of them: exported, dropped (too many waited), failed (the collector "
        "did not take them).",
        RESULT);
    s->exported = at_metric_with(spans, EXPORTED);
    s->dropped = at_metric_with(spans, DROPPED);
    s->failed = at_metric_with(spans, FAILED);
    return s;
}

void gw_spans_free(struct gw_spans *s)
{
    if (s == NULL) {
        return;
    }
    at_loop_timer_cancel(s->loop, s->timer);
    at_http_call_cancel(s->client, s->call);
    at_tls_config_unref(s->tls);
    at_buf_done(&s->batch);
    at_free(s->addr);
    at_free(s->target);
    at_free(s->headers);
    at_free(s->service);
    at_free(s->host);
    at_free(s);
}
