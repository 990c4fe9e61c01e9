/* The runner's HTTP side with the real model, over a real socket, on one loop. */
#include "core/json.h"
#include "core/mem.h"
#include "core/units.h"
#include "net/http_client.h"
#include "runners/onnx_priv.h"
#include "sys/socket.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define LIBRARY AT_SOURCE_ROOT "/third_party/onnxruntime/lib/libonnxruntime.so.1"
#define MODEL AT_SOURCE_ROOT "/examples/quickstart/models/digits.onnx"
#define DEADLINE_NS (20 * AT_NS_PER_S)
#define PIXELS 64

struct fixture {
    struct at_ort *ort;
    struct at_ort_model *model;
    struct at_loop *loop;
    struct at_onnx_service *service;
    struct at_http_client *client;
    char addr[AT_ADDR_TEXT_BYTES_MAX];
    /* the last answer */
    int status;
    struct at_buf body;
    size_t json_len; /* of a binary answer */
    size_t done;
    enum at_rc rc;
    bool drained;
};

static void fixture_serve(struct fixture *f, size_t threads)
{
    struct at_err err = {0};
    struct at_onnx_options options = {.listen = "127.0.0.1:0"};
    at_batching_init(&options.batching);
    options.batching.instances = threads;
    if (at_onnx_service_new(f->loop, f->model, &options, &f->service, &err) != AT_OK) {
        fail_msg("%s", err.msg);
    }
    snprintf(f->addr, sizeof f->addr, "%s", at_onnx_service_addr(f->service));
}

static int set_up(void **state)
{
    struct at_err err = {0};
    struct fixture *f = AT_NEW(struct fixture);
    if (at_ort_open(LIBRARY, &f->ort, &err) != AT_OK ||
        at_ort_model_load(f->ort, MODEL, "digits", "3", 1, &f->model, &err) != AT_OK) {
        print_error("%s\n", err.msg);
        return -1;
    }
    f->loop = at_loop_new(at_sys_real());
    f->client = at_http_client_new(f->loop, &(struct at_http_client_options){0});
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    at_http_client_free(f->client);
    at_onnx_service_free(f->service);
    at_loop_free(f->loop);
    at_ort_model_free(f->model);
    at_ort_free(f->ort);
    at_buf_done(&f->body);
    at_free(f);
    return 0;
}

static void on_head(void *ctx, const struct at_http_head *head)
{
    struct fixture *f = ctx;
    uint64_t value = 0;
    f->status = head->status;
    struct at_str text = at_http_header_get(head, "inference-header-content-length");
    f->json_len = text.ptr != NULL && at_str_to_u64(text, &value) == AT_OK ? value : 0;
}

static void on_body(void *ctx, const char *data, size_t len)
{
    struct fixture *f = ctx;
    assert_int_equal(at_buf_append(&f->body, data, len), AT_OK);
}

static void on_done(void *ctx, enum at_rc rc, bool bytes_sent, const struct at_err *err)
{
    (void)bytes_sent, (void)err;
    struct fixture *f = ctx;
    f->rc = rc;
    f->done++;
}

static void begin(struct fixture *f, enum at_http_method method, const char *target,
                  const char *headers, const void *body, size_t len)
{
    struct at_http_call call = {
        .addr = f->addr,
        .method = method,
        .target = target,
        .headers = headers,
        .body = body,
        .body_len = len,
        .timeout_ns = DEADLINE_NS,
        .ctx = f,
        .on_head = on_head,
        .on_body = on_body,
        .on_done = on_done,
    };
    at_buf_clear(&f->body);
    f->status = 0;
    assert_int_not_equal(at_http_call(f->client, &call), 0);
}

static void turn_until_done(struct fixture *f, size_t done)
{
    int64_t deadline = at_sys_mono_ns(at_sys_real()) + DEADLINE_NS;
    while (f->done < done) {
        at_loop_turn(f->loop, deadline);
        assert_true(at_sys_mono_ns(at_sys_real()) < deadline);
    }
}

/* One call from start to end; returns the status. */
static int call(struct fixture *f, enum at_http_method method, const char *target,
                const char *headers, const void *body, size_t len)
{
    size_t before = f->done;
    begin(f, method, target, headers, body, len);
    turn_until_done(f, before + 1);
    assert_int_equal(f->rc, AT_OK);
    return f->status;
}

static void get_is(struct fixture *f, const char *target, int status, const char *part)
{
    assert_int_equal(call(f, AT_HTTP_GET, target, NULL, NULL, 0), status);
    if (strstr(f->body.data, part) == NULL) {
        fail_msg("GET %s: \"%s\" is not in: %s", target, part, f->body.data);
    }
}

static void post_is(struct fixture *f, const char *target, const char *body, int status,
                    const char *part)
{
    assert_int_equal(call(f, AT_HTTP_POST, target, NULL, body, strlen(body)), status);
    if (strstr(f->body.data, part) == NULL) {
        fail_msg("POST %s: \"%s\" is not in: %s", target, part, f->body.data);
    }
}

static void health_metadata_and_metrics_answer(void **state)
{
    struct fixture *f = *state;
    fixture_serve(f, 1);
    get_is(f, "/v2", 200, "binary_tensor_data");
    get_is(f, "/v2/health/live", 200, "true");
    get_is(f, "/v2/health/ready", 200, "true");
    get_is(f, "/v2/models/digits", 200, "\"shape\":[-1,64]");
    get_is(f, "/v2/models/digits/versions/3", 200, "onnxruntime_onnx");
    get_is(f, "/v2/models/d%69gits/ready", 200, "\"ready\":true");
    get_is(f, "/metrics", 200, "atoll_runner_requests_total{code=\"200\"} 6");
}

static void what_is_not_there_is_told(void **state)
{
    struct fixture *f = *state;
    fixture_serve(f, 1);
    get_is(f, "/v2/models/cats", 404, "digits");
    get_is(f, "/v2/models/digits/versions/4", 404, "it has 3");
    get_is(f, "/v2/models/digits/frobnicate", 404, "no such path");
    get_is(f, "/v1/models", 404, "Open Inference Protocol");
    get_is(f, "/v2/models/digits/infer", 405, "POST");
    post_is(f, "/v2/health/live", "{}", 405, "GET");
}

static char *image_request(const char *id)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf buf = {0};
    assert_int_equal(
        at_buf_printf(&buf,
                      "{\"id\":\"%s\",\"inputs\":[{\"name\":\"image\",\"shape\":[1,%d],"
                      "\"datatype\":\"FP32\",\"data\":[0",
                      id, PIXELS),
        AT_OK);
    for (int i = 1; i < PIXELS; i++) {
        assert_int_equal(at_buf_printf(&buf, ",%d", i % 17), AT_OK);
    }
    assert_int_equal(at_buf_append_str(&buf, "]}]}"), AT_OK);
    return at_buf_steal(&buf, NULL);
}

static void infers(struct fixture *f)
{
    AT_CLEANUP(at_cleanup_free) char *body = image_request("r7");
    post_is(f, "/v2/models/digits/infer", body, 200, "\"id\":\"r7\"");
    AT_CLEANUP(at_cleanup_json) json_t *answer = NULL;
    struct at_err err = {0};
    assert_int_equal(at_json_parse(f->body.data, f->body.len, &answer, &err), AT_OK);
    json_t *outputs = json_object_get(answer, "outputs");
    assert_int_equal(json_array_size(outputs), 2);
    double sum = 0;
    for (size_t i = 0; i < 10; i++) {
        json_t *data = json_object_get(json_array_get(outputs, 0), "data");
        sum += json_number_value(json_array_get(data, i));
    }
    assert_true(sum > 0.999 && sum < 1.001);
    assert_string_equal(at_json_str_at(json_array_get(outputs, 1), "datatype", ""), "INT64");
    post_is(f, "/v2/models/digits/versions/3/infer", body, 200, "\"model_version\":\"3\"");
}

static void a_worker_infers(void **state)
{
    fixture_serve(*state, 1);
    infers(*state);
}

static void the_loop_itself_infers(void **state)
{
    fixture_serve(*state, 0);
    infers(*state);
}

static void many_at_once_are_all_answered(void **state)
{
    struct fixture *f = *state;
    fixture_serve(f, 2);
    AT_CLEANUP(at_cleanup_free) char *body = image_request("x");
    enum { CALLS = 200 };
    for (size_t i = 0; i < CALLS; i++) {
        begin(f, AT_HTTP_POST, "/v2/models/digits/infer", NULL, body, strlen(body));
    }
    turn_until_done(f, CALLS);
    get_is(f, "/metrics", 200, "atoll_runner_requests_total{code=\"200\"} 200");
    assert_non_null(strstr(f->body.data, "atoll_runner_in_flight 0"));
}

static void bad_tensors_are_refused_with_their_name(void **state)
{
    struct fixture *f = *state;
    fixture_serve(f, 1);
    post_is(f, "/v2/models/digits/infer",
            "{\"inputs\":[{\"name\":\"image\",\"shape\":[1,3],\"datatype\":\"FP32\","
            "\"data\":[1,2,3]}]}",
            400, "[-1,64]");
    post_is(f, "/v2/models/digits/infer", "{\"inputs\":[]}", 400, "image");
    post_is(f, "/v2/models/digits/infer", "not json", 400, "error");
    get_is(f, "/metrics", 200, "atoll_runner_requests_total{code=\"400\"} 3");
}

static void binary_tensors_go_both_ways(void **state)
{
    struct fixture *f = *state;
    fixture_serve(f, 1);
    static const char JSON[] =
        "{\"inputs\":[{\"name\":\"image\",\"shape\":[1,64],\"datatype\":\"FP32\","
        "\"parameters\":{\"binary_data_size\":256}}],"
        "\"parameters\":{\"binary_data_output\":true}}";
    char body[sizeof JSON - 1 + PIXELS * sizeof(float)] = {0};
    memcpy(body, JSON, sizeof JSON - 1);
    AT_CLEANUP(at_cleanup_free)
    char *header = at_asprintf("Inference-Header-Content-Length: %zu\r\n", sizeof JSON - 1);
    assert_int_equal(call(f, AT_HTTP_POST, "/v2/models/digits/infer", header, body, sizeof body),
                     200);
    assert_true(f->json_len > 0);
    assert_int_equal(f->body.len - f->json_len, 10 * sizeof(float) + sizeof(int64_t));
}

static void on_drained(void *ctx)
{
    struct fixture *f = ctx;
    f->drained = true;
}

static void draining_answers_what_is_in_flight(void **state)
{
    struct fixture *f = *state;
    fixture_serve(f, 1);
    AT_CLEANUP(at_cleanup_free) char *body = image_request("last");
    post_is(f, "/v2/models/digits/infer", body, 200, "last");
    begin(f, AT_HTTP_POST, "/v2/models/digits/infer", NULL, body, strlen(body));
    at_loop_turn(f->loop, at_sys_mono_ns(at_sys_real()) + DEADLINE_NS);
    at_onnx_service_drain(f->service, on_drained, f);
    turn_until_done(f, 2);
    assert_int_equal(f->status, 200);
    int64_t deadline = at_sys_mono_ns(at_sys_real()) + DEADLINE_NS;
    while (!f->drained) {
        at_loop_turn(f->loop, deadline);
        assert_true(at_sys_mono_ns(at_sys_real()) < deadline);
    }
}

static void a_service_can_go_while_requests_wait(void **state)
{
    struct fixture *f = *state;
    fixture_serve(f, 1);
    AT_CLEANUP(at_cleanup_free) char *body = image_request("x");
    for (size_t i = 0; i < 50; i++) {
        begin(f, AT_HTTP_POST, "/v2/models/digits/infer", NULL, body, strlen(body));
    }
    for (size_t i = 0; i < 3; i++) {
        at_loop_turn(f->loop, at_sys_mono_ns(at_sys_real()) + DEADLINE_NS);
    }
    at_onnx_service_free(f->service);
    f->service = NULL;
    turn_until_done(f, 50);
}

#define WITH_FIXTURE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FIXTURE(health_metadata_and_metrics_answer),
        WITH_FIXTURE(what_is_not_there_is_told),
        WITH_FIXTURE(a_worker_infers),
        WITH_FIXTURE(the_loop_itself_infers),
        WITH_FIXTURE(many_at_once_are_all_answered),
        WITH_FIXTURE(bad_tensors_are_refused_with_their_name),
        WITH_FIXTURE(binary_tensors_go_both_ways),
        WITH_FIXTURE(draining_answers_what_is_in_flight),
        WITH_FIXTURE(a_service_can_go_while_requests_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
