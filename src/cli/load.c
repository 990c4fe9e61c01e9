#include "cli/load.h"

#include "core/buf.h"
#include "core/mem.h"
#include "core/str.h"
#include "core/units.h"
#include "net/http_client.h"

#include <stdio.h>
#include <string.h>

/* Log-linear histogram: 64 steps per power of two, so a bucket is 1.6 % wide at most. */
#define LAT_STEPS 64
#define LAT_POWERS 40
#define LAT_BUCKETS (LAT_STEPS * LAT_POWERS)
#define LOAD_TIMEOUT_NS (30 * AT_NS_PER_S)
#define LOAD_TICK_NS (AT_NS_PER_S / 4)

struct load_row {
    char *body;
    size_t len;
    int64_t label; /* -1: none */
};

struct load;

struct load_slot {
    struct load *load;
    struct at_buf answer;
    char instance[128];
    int status;
    size_t row;
    int64_t begun_ns;
};

struct load {
    struct at_loop *loop;
    struct at_http_client *client;
    const struct at_load_options *options;
    struct load_row *rows;
    size_t n_rows;
    struct load_slot *slots;
    size_t n_active;
    char *target, *headers;
    uint64_t started, next_row;
    uint64_t buckets[LAT_BUCKETS];
    uint64_t n_good;
    int64_t sum_ns, begun_ns, last_good_ns;
    at_timer_id tick;
    struct at_load_result *r;
};

static size_t bucket_of(int64_t ns)
{
    uint64_t v = ns > 0 ? (uint64_t)ns : 0;
    if (v < LAT_STEPS) {
        return (size_t)v;
    }
    unsigned power = 63u - (unsigned)__builtin_clzll(v); /* >= 6 */
    size_t step = (size_t)(v >> (power - 6)) - LAT_STEPS;
    size_t index = (size_t)(power - 5) * LAT_STEPS + step;
    return index < LAT_BUCKETS ? index : LAT_BUCKETS - 1;
}

static int64_t bucket_value(size_t index)
{
    if (index < LAT_STEPS) {
        return (int64_t)index;
    }
    unsigned shift = (unsigned)(index / LAT_STEPS) - 1;
    return (int64_t)((LAT_STEPS + index % LAT_STEPS) << shift);
}

static int64_t percentile(const struct load *l, unsigned per_mille)
{
    uint64_t rank = (l->n_good * per_mille + 999) / 1000;
    uint64_t seen = 0;
    for (size_t i = 0; i < LAT_BUCKETS; i++) {
        seen += l->buckets[i];
        if (seen >= rank && seen > 0) {
            return bucket_value(i);
        }
    }
    return 0;
}

static int64_t now_of(const struct load *l)
{
    return at_sys_mono_ns(at_loop_sys(l->loop));
}

/* --- the batch --- */

static size_t row_elements(const json_t *shape)
{
    size_t n = 1;
    for (size_t i = 1; i < json_array_size(shape); i++) {
        json_int_t dim = json_integer_value(json_array_get(shape, i));
        n *= dim > 0 ? (size_t)dim : 0;
    }
    return n;
}

/* One input's row: a flat slice of data, or the nested element. own: caller decrefs. */
static json_t *input_row(json_t *input, size_t row)
{
    const json_t *data = json_object_get(input, "data");
    json_t *one = json_copy(input);
    json_t *shape = json_copy(json_object_get(input, "shape"));
    json_array_set_new(shape, 0, json_integer(1));
    json_t *slice = json_array();
    if (json_is_array(json_array_get(data, 0))) {
        json_array_append(slice, json_array_get(data, row));
    } else {
        size_t n = row_elements(shape);
        for (size_t i = 0; i < n; i++) {
            json_array_append(slice, json_array_get(data, row * n + i));
        }
    }
    json_object_set_new(one, "shape", shape);
    json_object_set_new(one, "data", slice);
    return one;
}

static enum at_rc check_input(const json_t *input, size_t i, size_t *rows, struct at_err *err)
{
    char field[64];
    snprintf(field, sizeof field, "inputs[%zu]", i);
    const json_t *shape = json_object_get(input, "shape");
    const json_t *data = json_object_get(input, "data");
    json_int_t n = json_integer_value(json_array_get(shape, 0));
    if (n < 1 || n > AT_LOAD_ROWS_MAX || (*rows != 0 && (size_t)n != *rows)) {
        return at_err_set_field(err, AT_INVALID, field,
                                "shape must begin with the same number of rows, 1 to %d",
                                AT_LOAD_ROWS_MAX);
    }
    bool nested = json_is_array(json_array_get(data, 0));
    size_t want = nested ? (size_t)n : (size_t)n * row_elements(shape);
    if (want == 0 || json_array_size(data) != want) {
        return at_err_set_field(err, AT_INVALID, field,
                                "data has %zu elements, its shape wants %zu", json_array_size(data),
                                want);
    }
    *rows = (size_t)n;
    return AT_OK;
}

static enum at_rc row_make(struct load *l, const json_t *inputs, size_t row, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *request = json_object();
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(inputs); i++) {
        json_array_append_new(list, input_row(json_array_get(inputs, i), row));
    }
    json_object_set_new(request, "inputs", list);
    struct at_buf text = {0};
    enum at_rc rc = at_json_dump(request, &text);
    if (rc != AT_OK) {
        at_buf_done(&text);
        return at_err_set(err, rc, "row %zu is too large", row);
    }
    l->rows[row].body = at_buf_steal(&text, &l->rows[row].len);
    const json_t *label = json_array_get(json_object_get(l->options->batch, "labels"), row);
    l->rows[row].label = json_is_integer(label) ? json_integer_value(label) : -1;
    return AT_OK;
}

static enum at_rc rows_make(struct load *l, struct at_err *err)
{
    const json_t *inputs = json_object_get(l->options->batch, "inputs");
    size_t rows = 0;
    enum at_rc rc = AT_OK;
    if (json_array_size(inputs) == 0) {
        return at_err_set_field(err, AT_INVALID, "inputs", "a list of tensors is required");
    }
    for (size_t i = 0; rc == AT_OK && i < json_array_size(inputs); i++) {
        rc = check_input(json_array_get(inputs, i), i, &rows, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    l->rows = at_alloc(rows * sizeof *l->rows);
    l->n_rows = rows;
    for (size_t row = 0; rc == AT_OK && row < rows; row++) {
        rc = row_make(l, inputs, row, err);
    }
    return rc;
}

/* --- answers --- */

/* The class in an answer: output `label` when there is one, else the largest element of the first
 * output. */
static int64_t answer_class(const json_t *answer)
{
    const json_t *outputs = json_object_get(answer, "outputs");
    for (size_t i = 0; i < json_array_size(outputs); i++) {
        const json_t *output = json_array_get(outputs, i);
        if (at_streq(json_string_value(json_object_get(output, "name")), "label")) {
            return json_integer_value(json_array_get(json_object_get(output, "data"), 0));
        }
    }
    const json_t *data = json_object_get(json_array_get(outputs, 0), "data");
    if (json_is_array(json_array_get(data, 0))) {
        data = json_array_get(data, 0);
    }
    int64_t best = -1;
    double best_value = 0;
    for (size_t i = 0; i < json_array_size(data); i++) {
        double value = json_number_value(json_array_get(data, i));
        if (best < 0 || value > best_value) {
            best = (int64_t)i;
            best_value = value;
        }
    }
    return best;
}

static void slot_start(struct load_slot *s);

static void slot_failed(struct load_slot *s, const char *why)
{
    struct at_load_result *r = s->load->r;
    r->failed++;
    if (r->first_error[0] == '\0') {
        snprintf(r->first_error, sizeof r->first_error, "%.*s", (int)sizeof r->first_error - 1,
                 why);
    }
}

static void slot_good(struct load_slot *s)
{
    struct load *l = s->load;
    struct at_load_result *r = l->r;
    AT_CLEANUP(at_cleanup_json) json_t *answer = NULL;
    int64_t now = now_of(l);
    if (at_json_parse(s->answer.data, s->answer.len, &answer, NULL) != AT_OK) {
        slot_failed(s, "the answer is no JSON");
        return;
    }
    int64_t took = now - s->begun_ns;
    int64_t gap = now - l->last_good_ns;
    l->buckets[bucket_of(took)]++;
    l->n_good++;
    l->sum_ns += took;
    l->last_good_ns = now;
    r->max_ns = took > r->max_ns ? took : r->max_ns;
    r->longest_gap_ns = gap > r->longest_gap_ns ? gap : r->longest_gap_ns;
    int64_t label = l->rows[s->row].label;
    if (label >= 0) {
        r->labelled++;
        r->correct += answer_class(answer) == label ? 1 : 0;
    }
    const char *who = s->instance[0] != '\0' ? s->instance : "unknown";
    json_int_t n = json_integer_value(json_object_get(r->by_instance, who));
    json_object_set_new(r->by_instance, who, json_integer(n + 1));
}

static void on_head(void *ctx, const struct at_http_head *head)
{
    struct load_slot *s = ctx;
    s->status = head->status;
    struct at_str name = at_http_header_get(head, "x-atoll-instance");
    snprintf(s->instance, sizeof s->instance, "%.*s", (int)name.len,
             name.ptr != NULL ? name.ptr : "");
}

static void on_body(void *ctx, const char *data, size_t len)
{
    struct load_slot *s = ctx;
    if (at_buf_append(&s->answer, data, len) != AT_OK) {
        s->status = 0;
    }
}

static void on_done(void *ctx, enum at_rc rc, bool bytes_sent, const struct at_err *err)
{
    (void)bytes_sent;
    struct load_slot *s = ctx;
    struct load *l = s->load;
    l->n_active--;
    l->r->requests++;
    if (rc != AT_OK) {
        slot_failed(s, err->msg);
    } else if (s->status != 200) {
        char why[256];
        int shown = (int)(s->answer.len < 200 ? s->answer.len : 200);
        snprintf(why, sizeof why, "HTTP %d: %.*s", s->status, shown,
                 s->answer.data != NULL ? s->answer.data : "");
        slot_failed(s, why);
    } else {
        slot_good(s);
    }
    slot_start(s);
    if (l->n_active == 0) {
        at_loop_stop(l->loop);
    }
}

static bool load_over(const struct load *l)
{
    const struct at_load_options *o = l->options;
    return (o->requests_max != 0 && l->started >= o->requests_max) ||
           (o->duration_ns != 0 && now_of(l) - l->begun_ns >= o->duration_ns) ||
           (o->stop != NULL && *o->stop);
}

static void slot_start(struct load_slot *s)
{
    struct load *l = s->load;
    if (load_over(l)) {
        return;
    }
    at_buf_clear(&s->answer);
    s->status = 0;
    s->row = (size_t)(l->next_row++ % l->n_rows);
    s->begun_ns = now_of(l);
    l->started++;
    l->n_active++;
    struct at_http_call call = {
        .addr = l->options->addr,
        .tls = l->options->tls,
        .method = AT_HTTP_POST,
        .target = l->target,
        .headers = l->headers,
        .body = l->rows[s->row].body,
        .body_len = l->rows[s->row].len,
        .timeout_ns = LOAD_TIMEOUT_NS,
        .ctx = s,
        .on_head = on_head,
        .on_body = on_body,
        .on_done = on_done,
    };
    at_http_call(l->client, &call);
}

static void on_tick(void *ctx)
{
    struct load *l = ctx;
    if (l->options->on_progress != NULL) {
        l->options->on_progress(l->options->ctx, l->r->requests, l->r->failed,
                                now_of(l) - l->begun_ns);
    }
    l->tick = at_loop_timer(l->loop, LOAD_TICK_NS, on_tick, l);
}

static void load_done(struct load *l)
{
    at_loop_timer_cancel(l->loop, l->tick);
    if (l->client != NULL) {
        at_http_client_free(l->client);
    }
    for (size_t i = 0; l->slots != NULL && i < l->options->concurrency; i++) {
        at_buf_done(&l->slots[i].answer);
    }
    for (size_t i = 0; i < l->n_rows; i++) {
        at_free(l->rows[i].body);
    }
    at_free(l->slots);
    at_free(l->rows);
    at_free(l->target);
    at_free(l->headers);
    at_free(l);
}

static void load_go(struct load *l)
{
    const struct at_load_options *o = l->options;
    struct at_http_client_options client = {.connections_per_address_max = o->concurrency,
                                            .waiting_max = o->concurrency};
    l->client = at_http_client_new(l->loop, &client);
    l->target = at_asprintf("/v2/models/%s/infer", o->model);
    l->headers = o->token != NULL
                     ? at_asprintf("Content-Type: application/json\r\nAuthorization: Bearer %s\r\n",
                                   o->token)
                     : at_strdup("Content-Type: application/json\r\n");
    l->slots = at_alloc(o->concurrency * sizeof *l->slots);
    l->begun_ns = l->last_good_ns = now_of(l);
    for (size_t i = 0; i < o->concurrency; i++) {
        l->slots[i].load = l;
        slot_start(&l->slots[i]);
    }
    l->tick = at_loop_timer(l->loop, LOAD_TICK_NS, on_tick, l);
    if (l->n_active != 0) {
        at_loop_run(l->loop);
    }
    l->r->elapsed_ns = now_of(l) - l->begun_ns;
    l->r->p50_ns = percentile(l, 500);
    l->r->p90_ns = percentile(l, 900);
    l->r->p99_ns = percentile(l, 990);
    l->r->mean_ns = l->n_good != 0 ? l->sum_ns / (int64_t)l->n_good : 0;
}

enum at_rc at_load_run(struct at_loop *loop, const struct at_load_options *options,
                       struct at_load_result *ret, struct at_err *err)
{
    if (options->concurrency == 0 || options->concurrency > AT_LOAD_CONCURRENCY_MAX) {
        return at_err_set_field(err, AT_INVALID, "concurrency", "must be 1 to %d",
                                AT_LOAD_CONCURRENCY_MAX);
    }
    if (options->duration_ns == 0 && options->requests_max == 0) {
        return at_err_set_field(err, AT_INVALID, "duration",
                                "a duration or a number of requests is needed");
    }
    struct load *l = AT_NEW(struct load);
    struct at_load_result result = {.by_instance = json_object()};
    l->loop = loop;
    l->options = options;
    l->r = &result;
    enum at_rc rc = rows_make(l, err);
    if (rc == AT_OK) {
        load_go(l);
        *ret = result;
    } else {
        json_decref(result.by_instance);
    }
    load_done(l);
    return rc;
}

static json_t *micros(int64_t ns)
{
    return json_integer(ns / AT_NS_PER_US);
}

json_t *at_load_report(const struct at_load_result *r)
{
    double seconds = (double)r->elapsed_ns / (double)AT_NS_PER_S;
    json_t *report = json_object();
    json_object_set_new(report, "requests", json_integer((json_int_t)r->requests));
    json_object_set_new(report, "failed", json_integer((json_int_t)r->failed));
    if (r->labelled != 0) {
        json_object_set_new(report, "accuracy",
                            json_real((double)r->correct / (double)r->labelled));
    }
    json_object_set_new(report, "elapsed_s", json_real(seconds));
    json_object_set_new(report, "rps", json_real(seconds > 0 ? (double)r->requests / seconds : 0));
    json_object_set_new(report, "p50_us", micros(r->p50_ns));
    json_object_set_new(report, "p90_us", micros(r->p90_ns));
    json_object_set_new(report, "p99_us", micros(r->p99_ns));
    json_object_set_new(report, "max_us", micros(r->max_ns));
    json_object_set_new(report, "mean_us", micros(r->mean_ns));
    json_object_set_new(report, "longest_gap_us", micros(r->longest_gap_ns));
    json_object_set(report, "by_instance", r->by_instance);
    if (r->first_error[0] != '\0') {
        json_object_set_new(report, "first_error", json_string(r->first_error));
    }
    return report;
}
