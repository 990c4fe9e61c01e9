#include "runners/onnx_int.h"

#include "core/json.h"
#include "core/mem.h"
#include "core/units.h"

#include <stdio.h>
#include <string.h>

static void serve_metadata(struct at_onnx_service *s, struct at_http_exchange *ex)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf body = {0};
    if (at_oip_encode_metadata(s->spec, &body) != AT_OK) {
        onnx_respond_error(s, ex, 500, "the model's metadata cannot be said in JSON");
        return;
    }
    onnx_respond_ok(s, ex, JSON_TYPE, NULL, body.data, body.len);
}

static void serve_model_ready(struct at_onnx_service *s, struct at_http_exchange *ex)
{
    AT_CLEANUP(at_cleanup_json)
    json_t *value =
        json_pack("{s:s, s:b}", "name", s->spec->model, "ready", !s->first->serving.draining);
    AT_CLEANUP(at_cleanup_buf) struct at_buf body = {0};
    if (value == NULL || at_json_dump(value, &body) != AT_OK) {
        onnx_respond_error(s, ex, 500, "the model's name cannot be said in JSON");
        return;
    }
    onnx_respond_ok(s, ex, JSON_TYPE, NULL, body.data, body.len);
}

static void serve_metrics(struct at_onnx_service *s, struct at_http_exchange *ex)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf body = {0};
    if (at_metrics_expose(s->serving.metrics, &body) != AT_OK) {
        onnx_respond_error(s, ex, 500, "the metrics are too large");
        return;
    }
    at_http_respond(ex, 200, "text/plain; version=0.0.4", NULL, body.data, body.len);
}

static void serve_text(struct at_onnx_service *s, struct at_http_exchange *ex, const char *json)
{
    onnx_respond_ok(s, ex, JSON_TYPE, NULL, json, strlen(json));
}

static void put_sum(json_t *to, const char *key, struct onnx_sum sum)
{
    json_object_set_new(
        to, key, json_pack("{s:I, s:I}", "count", (json_int_t)sum.count, "ns", (json_int_t)sum.ns));
}

static void serve_json(struct at_onnx_service *s, struct at_http_exchange *ex, json_t *value_take)
{
    AT_CLEANUP(at_cleanup_json) json_t *value = value_take;
    AT_CLEANUP(at_cleanup_buf) struct at_buf body = {0};
    if (value == NULL || at_json_dump(value, &body) != AT_OK) {
        onnx_respond_error(s, ex, 500, "this cannot be said in JSON");
        return;
    }
    onnx_respond_ok(s, ex, JSON_TYPE, NULL, body.data, body.len);
}

/* As Triton's statistics extension has it. */
static void serve_stats(struct at_onnx_service *s, struct at_http_exchange *ex)
{
    json_t *sums = json_object();
    put_sum(sums, "success", s->good);
    put_sum(sums, "fail", s->bad);
    put_sum(sums, "queue", s->queued);
    put_sum(sums, "compute_infer", s->ran);
    json_t *sizes = json_array();
    for (size_t rows = 1; rows <= s->batching.batch_max; rows++) {
        if (s->by_rows[rows].count != 0) {
            json_t *one = json_pack("{s:I}", "batch_size", (json_int_t)rows);
            put_sum(one, "compute_infer", s->by_rows[rows]);
            json_array_append_new(sizes, one);
        }
    }
    json_t *model = json_pack("{s:s, s:s, s:I, s:I, s:I, s:o, s:o}", "name", s->spec->model,
                              "version", s->spec->version != NULL ? s->spec->version : "",
                              "last_inference", (json_int_t)s->last_wall_ms, "inference_count",
                              (json_int_t)s->n_rows, "execution_count", (json_int_t)s->n_runs,
                              "inference_stats", sums, "batch_stats", sizes);
    serve_json(s, ex, json_pack("{s:[o]}", "model_stats", model));
}

/* What is in force, in our own words and in those that Triton's clients look for. */
static void serve_config(struct at_onnx_service *s, struct at_http_exchange *ex)
{
    const struct at_batching_options *o = &s->batching;
    bool batched = s->unbatched[0] == '\0';
    json_t *preferred = json_array();
    for (size_t i = 0; i < o->n_preferred; i++) {
        json_array_append_new(preferred, json_integer((json_int_t)o->preferred[i]));
    }
    json_t *batching = json_pack(
        "{s:o, s:I, s:I, s:I}", "preferred_batch_size", preferred, "max_queue_delay_microseconds",
        (json_int_t)(o->delay_ns / AT_NS_PER_US), "priority_levels", (json_int_t)o->levels,
        "default_priority_level", (json_int_t)(o->levels != 0 ? o->default_level : 0));
    json_t *config =
        json_pack("{s:s, s:s, s:I, s:[{s:I}]}", "name", s->spec->model, "platform",
                  s->spec->platform, "max_batch_size", (json_int_t)(batched ? o->batch_max : 0),
                  "instance_group", "count", (json_int_t)s->n_lanes);
    if (batched) {
        json_object_set_new(config, "dynamic_batching", batching);
    } else {
        json_decref(batching);
        json_object_set_new(config, "unbatched_because", json_string(s->unbatched));
    }
    serve_json(s, ex, config);
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

static bool known_verb(struct at_str verb)
{
    return verb.len == 0 || at_str_eq(verb, "ready") || at_str_eq(verb, "infer") ||
           at_str_eq(verb, "config") || at_str_eq(verb, "stats");
}

/* /v2/models/NAME... : rest is what stands after /v2/models/ */
static void serve_model(struct at_onnx_service *s, struct at_http_exchange *ex, struct at_str rest)
{
    enum at_http_method method = at_http_request(ex)->method;
    char message[AT_ERR_MSG_BYTES_MAX];
    struct at_str name = at_str_cut(&rest, '/');
    struct at_onnx_service *first = s;
    while (s != NULL && !segment_is(name, s->spec->model)) {
        s = s->next;
    }
    if (s == NULL) {
        snprintf(message, sizeof message, "no model \"%.*s\" here; this server has \"%s\"%s",
                 name.len < 64 ? (int)name.len : 64, name.ptr, first->spec->model,
                 first->next != NULL ? " and others" : "");
        onnx_respond_error(first, ex, 404, message);
        return;
    }
    struct at_str verb = at_str_cut(&rest, '/');
    if (at_str_eq(verb, "versions")) {
        struct at_str version = at_str_cut(&rest, '/');
        if (s->spec->version == NULL || !segment_is(version, s->spec->version)) {
            snprintf(message, sizeof message, "model \"%s\" has no version \"%.*s\"; it has %s",
                     s->spec->model, version.len < 64 ? (int)version.len : 64, version.ptr,
                     s->spec->version != NULL ? s->spec->version : "none");
            onnx_respond_error(s, ex, 404, message);
            return;
        }
        verb = at_str_cut(&rest, '/');
    }
    bool read = method == AT_HTTP_GET || method == AT_HTTP_HEAD;
    if (rest.len != 0 || !known_verb(verb)) {
        onnx_respond_error(s, ex, 404, "no such path; there are: infer, ready, config, stats");
    } else if (at_str_eq(verb, "infer") ? method != AT_HTTP_POST : !read) {
        onnx_respond_error(s, ex, 405, at_str_eq(verb, "infer") ? "infer takes POST" : "takes GET");
    } else if (at_str_eq(verb, "infer")) {
        onnx_infer(s, ex);
    } else if (at_str_eq(verb, "ready")) {
        serve_model_ready(s, ex);
    } else if (at_str_eq(verb, "config")) {
        serve_config(s, ex);
    } else if (at_str_eq(verb, "stats")) {
        serve_stats(s, ex);
    } else {
        serve_metadata(s, ex);
    }
}

/* As Triton's repository extension lists them. */
static void serve_index(struct at_onnx_service *first, struct at_http_exchange *ex)
{
    json_t *list = json_array();
    for (const struct at_onnx_service *s = first; s != NULL; s = s->next) {
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:s, s:s}", "name", s->spec->model, "version",
                                        s->spec->version != NULL ? s->spec->version : "", "state",
                                        "READY", "reason", ""));
    }
    serve_json(first, ex, list);
}

void onnx_on_request(void *ctx, struct at_http_exchange *ex)
{
    struct at_onnx_service *s = ctx;
    const struct at_http_head *head = at_http_request(ex);
    static const char PREFIX[] = "/v2/models/";
    if (at_str_starts(head->path, PREFIX)) {
        size_t skip = sizeof PREFIX - 1;
        serve_model(s, ex, (struct at_str){head->path.ptr + skip, head->path.len - skip});
        return;
    }
    if (at_str_eq(head->path, "/v2/repository/index") && head->method == AT_HTTP_POST) {
        serve_index(s, ex);
        return;
    }
    bool known = at_str_eq(head->path, "/v2") || at_str_eq(head->path, "/v2/") ||
                 at_str_eq(head->path, "/v2/health/live") ||
                 at_str_eq(head->path, "/v2/health/ready") || at_str_eq(head->path, "/metrics");
    if (!known) {
        onnx_respond_error(s, ex, 404,
                           "no such path; this server speaks Open Inference Protocol v2");
    } else if (head->method != AT_HTTP_GET && head->method != AT_HTTP_HEAD) {
        onnx_respond_error(s, ex, 405, "takes GET");
    } else if (at_str_eq(head->path, "/metrics")) {
        serve_metrics(s, ex);
    } else if (at_str_eq(head->path, "/v2/health/live")) {
        serve_text(s, ex, "{\"live\":true}");
    } else if (at_str_eq(head->path, "/v2/health/ready") && s->serving.draining) {
        onnx_respond_error(s, ex, STATUS_UNAVAILABLE, "shutting down");
    } else if (at_str_eq(head->path, "/v2/health/ready")) {
        serve_text(s, ex, "{\"ready\":true}");
    } else {
        serve_text(s, ex,
                   "{\"name\":\"atoll\",\"version\":\"" AT_VERSION
                   "\",\"extensions\":[\"binary_tensor_data\",\"model_configuration\","
                   "\"statistics\",\"schedule_policy\"]}");
    }
}
