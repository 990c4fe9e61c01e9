#include "core/json.h"
#include "core/mem.h"
#include "runners/oip.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const struct at_oip_spec IMAGE = {
    .model = "digits",
    .version = "1",
    .platform = "onnxruntime_onnx",
    .inputs = {{"image", AT_OIP_FP32, {-1, 4}, 2}},
    .n_inputs = 1,
    .outputs = {{"scores", AT_OIP_FP32, {-1, 2}, 2}, {"label", AT_OIP_INT64, {-1}, 1}},
    .n_outputs = 2,
};

struct fixture {
    struct at_arena *arena;
    struct at_oip_request request;
    struct at_err err;
};

static int set_up(void **state)
{
    struct fixture *f = AT_NEW(struct fixture);
    f->arena = at_arena_new(0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    at_arena_free(f->arena);
    at_free(f);
    return 0;
}

static enum at_rc parse(struct fixture *f, const struct at_oip_spec *spec, const char *body)
{
    f->err = (struct at_err){0};
    return at_oip_parse_infer(spec, body, strlen(body), strlen(body), f->arena, &f->request,
                              &f->err);
}

/* The request is refused and the message has each of these in it (NULL-terminated). */
static void refused(struct fixture *f, const struct at_oip_spec *spec, const char *body,
                    const char *const *words)
{
    assert_int_equal(parse(f, spec, body), AT_BAD_REQUEST);
    for (; *words != NULL; words++) {
        if (strstr(f->err.msg, *words) == NULL) {
            fail_msg("\"%s\" is not in \"%s\"", *words, f->err.msg);
        }
    }
}
#define REFUSED(f, spec, body, ...) refused(f, spec, body, (const char *const[]){__VA_ARGS__, NULL})

static void flat_data_become_a_tensor(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(parse(f, &IMAGE,
                           "{\"id\":\"r1\",\"inputs\":[{\"name\":\"image\",\"shape\":[2,4],"
                           "\"datatype\":\"FP32\",\"data\":[0,1,2,3,4.5,-5,6e2,7]}]}"),
                     AT_OK);
    const struct at_oip_tensor *t = &f->request.inputs[0];
    const float want[] = {0, 1, 2, 3, 4.5F, -5, 600, 7};
    assert_string_equal(f->request.id, "r1");
    assert_int_equal(t->n_elements, 8);
    assert_int_equal(t->shape[0], 2);
    assert_memory_equal(t->data, want, sizeof want);
    assert_int_equal(f->request.n_outputs, 2);
}

static void nested_data_become_the_same_tensor(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(parse(f, &IMAGE,
                           "{\"inputs\":[{\"name\":\"image\",\"shape\":[2,4],\"datatype\":\"FP32\","
                           "\"data\":[[0,1,2,3],[4,5,6,7]]}]}"),
                     AT_OK);
    const float want[] = {0, 1, 2, 3, 4, 5, 6, 7};
    assert_memory_equal(f->request.inputs[0].data, want, sizeof want);
    assert_null(f->request.id);
}

static void refusals_name_the_tensor_and_what_was_expected(void **state)
{
    struct fixture *f = *state;
#define INPUT(fields) "{\"inputs\":[{\"name\":\"image\"," fields "}]}"
    REFUSED(f, &IMAGE, INPUT("\"shape\":[1,3],\"datatype\":\"FP32\",\"data\":[1,2,3]"), "image",
            "[1,3]", "[-1,4]");
    REFUSED(f, &IMAGE, INPUT("\"shape\":[4],\"datatype\":\"FP32\",\"data\":[1,2,3,4]"), "image",
            "1 dimensions", "[-1,4]");
    REFUSED(f, &IMAGE, INPUT("\"shape\":[1,4],\"datatype\":\"INT64\",\"data\":[1,2,3,4]"), "image",
            "INT64", "FP32");
    REFUSED(f, &IMAGE, INPUT("\"shape\":[1,4],\"data\":[1,2,3,4]"), "image", "missing", "FP32");
    REFUSED(f, &IMAGE, INPUT("\"shape\":[1,4],\"datatype\":\"FP32\",\"data\":[1,2,3]"), "image",
            "3 elements", "[1,4] needs 4");
    REFUSED(f, &IMAGE, INPUT("\"shape\":[1,4],\"datatype\":\"FP32\",\"data\":[1,2,\"x\",4]"),
            "image", "data[2]", "a string", "numbers");
    REFUSED(f, &IMAGE, INPUT("\"shape\":[1,4],\"datatype\":\"FP32\",\"data\":[[1,2,3]]"), "image",
            "4 elements at depth 1", "got 3");
    REFUSED(f, &IMAGE, INPUT("\"shape\":[1,4],\"datatype\":\"FP32\",\"data\":[[1,2,3,4],[5]]"),
            "image", "1 elements at depth 0", "got 2");
    REFUSED(f, &IMAGE, INPUT("\"shape\":[-1,4],\"datatype\":\"FP32\",\"data\":[]"), "image",
            "shape[0]");
    REFUSED(f, &IMAGE, INPUT("\"shape\":[67108864,4],\"datatype\":\"FP32\",\"data\":[]"), "image",
            "elements");
    REFUSED(f, &IMAGE, INPUT("\"shape\":[16777216,4],\"datatype\":\"FP32\",\"data\":[]"), "image",
            "fewer");
    REFUSED(f, &IMAGE, INPUT("\"shape\":\"x\",\"datatype\":\"FP32\",\"data\":[]"), "image",
            "shape must be");
    REFUSED(f, &IMAGE, INPUT("\"shape\":[1,4],\"datatype\":\"FP32\",\"data\":7"), "image",
            "data must be an array", "an integer");
    REFUSED(f, &IMAGE, INPUT("\"shape\":[1,4],\"datatype\":\"FP32\""), "image", "needs either");
    REFUSED(f, &IMAGE, "{\"inputs\":[{\"name\":\"picture\"}]}", "picture", "image");
    REFUSED(f, &IMAGE, "{\"inputs\":[]}", "image", "FP32", "missing");
    REFUSED(f, &IMAGE, "{}", "inputs");
    REFUSED(f, &IMAGE, "[1]", "an array");
    REFUSED(f, &IMAGE, "{\"inputs\":[", "line");
    REFUSED(f, &IMAGE, "{\"id\":7,\"inputs\":[]}", "id");
}

static void an_input_that_comes_twice_is_refused(void **state)
{
    struct fixture *f = *state;
#define ONE "{\"name\":\"image\",\"shape\":[1,4],\"datatype\":\"FP32\",\"data\":[1,2,3,4]}"
    REFUSED(f, &IMAGE, "{\"inputs\":[" ONE "," ONE "]}", "image", "twice");
}

static void outputs_come_in_the_order_asked_for(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(parse(f, &IMAGE, "{\"inputs\":[" ONE "],\"outputs\":[{\"name\":\"label\"}]}"),
                     AT_OK);
    assert_int_equal(f->request.n_outputs, 1);
    assert_int_equal(f->request.outputs[0], 1);
    REFUSED(f, &IMAGE, "{\"inputs\":[" ONE "],\"outputs\":[{\"name\":\"x\"}]}", "\"x\"",
            "scores, label");
    REFUSED(f, &IMAGE,
            "{\"inputs\":[" ONE "],\"outputs\":[{\"name\":\"label\"},{\"name\":\"label\"}]}",
            "label", "twice");
}

static void integers_keep_their_range(void **state)
{
    static const struct {
        enum at_oip_type type;
        const char *most, *least, *above, *below;
    } rows[] = {
        {AT_OIP_INT8, "127", "-128", "128", "-129"},
        {AT_OIP_UINT8, "255", "0", "256", "-1"},
        {AT_OIP_INT16, "32767", "-32768", "32768", "-32769"},
        {AT_OIP_UINT16, "65535", "0", "65536", "-1"},
        {AT_OIP_INT32, "2147483647", "-2147483648", "2147483648", "-2147483649"},
        {AT_OIP_UINT32, "4294967295", "0", "4294967296", "-1"},
        {AT_OIP_INT64, "9223372036854775807", "-9223372036854775808", "1.5", "true"},
        {AT_OIP_UINT64, "9223372036854775807", "0", "0.5", "-1"},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < AT_ARRAY_LEN(rows); i++) {
        struct at_oip_spec spec = {
            .model = "m",
            .platform = "p",
            .inputs = {{"x", rows[i].type, {-1}, 1}},
            .n_inputs = 1,
            .outputs = {{"x", rows[i].type, {-1}, 1}},
            .n_outputs = 1,
        };
        const char *form = "{\"inputs\":[{\"name\":\"x\",\"shape\":[%d],\"datatype\":\"%s\","
                           "\"data\":[%s%s%s]}]}";
        const char *name = at_oip_type_name(rows[i].type);
        AT_CLEANUP(at_cleanup_free)
        char *good = at_asprintf(form, 2, name, rows[i].least, ",", rows[i].most);
        assert_int_equal(parse(f, &spec, good), AT_OK);
        AT_CLEANUP(at_cleanup_buf) struct at_buf buf = {0};
        size_t json_len;
        assert_int_equal(
            at_oip_encode_infer(&spec, &f->request, f->request.inputs, &buf, &json_len, &f->err),
            AT_OK);
        AT_CLEANUP(at_cleanup_free)
        char *want = at_asprintf("\"data\":[%s,%s]", rows[i].least, rows[i].most);
        assert_non_null(strstr(buf.data, want));
        AT_CLEANUP(at_cleanup_free) char *above = at_asprintf(form, 1, name, rows[i].above, "", "");
        REFUSED(f, &spec, above, "data[0]", name);
        AT_CLEANUP(at_cleanup_free) char *below = at_asprintf(form, 1, name, rows[i].below, "", "");
        REFUSED(f, &spec, below, "data[0]", name);
    }
}

static void the_answer_is_json_that_keeps_every_bit(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(parse(f, &IMAGE, "{\"id\":\"q\\\"1\",\"inputs\":[" ONE "]}"), AT_OK);
    const float scores[] = {0.1F, 3.4028235e38F};
    const int64_t label[] = {7};
    struct at_oip_tensor outputs[] = {
        {.shape = {1, 2}, .n_dims = 2, .n_elements = 2, .data = scores},
        {.shape = {1}, .n_dims = 1, .n_elements = 1, .data = label}};
    AT_CLEANUP(at_cleanup_buf) struct at_buf buf = {0};
    size_t json_len = 99;
    assert_int_equal(at_oip_encode_infer(&IMAGE, &f->request, outputs, &buf, &json_len, &f->err),
                     AT_OK);
    assert_int_equal(json_len, 0);
    AT_CLEANUP(at_cleanup_json) json_t *answer = NULL;
    assert_int_equal(at_json_parse(buf.data, buf.len, &answer, &f->err), AT_OK);
    assert_string_equal(at_json_str_at(answer, "model_name", ""), "digits");
    assert_string_equal(at_json_str_at(answer, "model_version", ""), "1");
    assert_string_equal(at_json_str_at(answer, "id", ""), "q\"1");
    json_t *first = json_array_get(json_object_get(answer, "outputs"), 0);
    json_t *data = json_object_get(first, "data");
    assert_true((float)json_number_value(json_array_get(data, 0)) == scores[0]);
    assert_true((float)json_number_value(json_array_get(data, 1)) == scores[1]);
}

static void numbers_that_json_lacks_become_null(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(parse(f, &IMAGE, "{\"inputs\":[" ONE "],\"outputs\":[{\"name\":\"scores\"}]}"),
                     AT_OK);
    const float scores[] = {NAN, INFINITY};
    struct at_oip_tensor output = {.shape = {1, 2}, .n_dims = 2, .n_elements = 2, .data = scores};
    AT_CLEANUP(at_cleanup_buf) struct at_buf buf = {0};
    size_t json_len;
    assert_int_equal(at_oip_encode_infer(&IMAGE, &f->request, &output, &buf, &json_len, &f->err),
                     AT_OK);
    assert_non_null(strstr(buf.data, "\"data\":[null,null]"));
}

static const struct at_oip_spec WORDS = {
    .model = "words",
    .platform = "p",
    .inputs = {{"text", AT_OIP_BYTES, {-1}, 1}, {"half", AT_OIP_FP16, {2}, 1}},
    .n_inputs = 2,
    .outputs = {{"text", AT_OIP_BYTES, {-1}, 1}},
    .n_outputs = 1,
};

static const char BINARY[] =
    "{\"inputs\":[{\"name\":\"text\",\"shape\":[2],\"datatype\":\"BYTES\","
    "\"parameters\":{\"binary_data_size\":11}},{\"name\":\"half\",\"shape\":[2],"
    "\"datatype\":\"FP16\",\"parameters\":{\"binary_data_size\":4}}],"
    "\"outputs\":[{\"name\":\"text\",\"parameters\":{\"binary_data\":true}}]}"
    "\x02\0\0\0hi\x01\0\0\0!"
    "\x00\x3c\x00\x40";

static void binary_tensors_go_both_ways(void **state)
{
    struct fixture *f = *state;
    size_t len = sizeof BINARY - 1, json_len = len - 15;
    assert_int_equal(
        at_oip_parse_infer(&WORDS, BINARY, len, json_len, f->arena, &f->request, &f->err), AT_OK);
    const struct at_str *text = f->request.inputs[0].data;
    assert_true(at_str_eq(text[0], "hi"));
    assert_true(at_str_eq(text[1], "!"));
    assert_memory_equal(f->request.inputs[1].data, "\x00\x3c\x00\x40", 4);

    AT_CLEANUP(at_cleanup_buf) struct at_buf buf = {0};
    size_t out_json_len;
    assert_int_equal(
        at_oip_encode_infer(&WORDS, &f->request, f->request.inputs, &buf, &out_json_len, &f->err),
        AT_OK);
    assert_int_equal(buf.len - out_json_len, 11);
    assert_memory_equal(buf.data + out_json_len, BINARY + json_len, 11);
    AT_CLEANUP(at_cleanup_json) json_t *answer = NULL;
    assert_int_equal(at_json_parse(buf.data, out_json_len, &answer, &f->err), AT_OK);
    json_t *output = json_array_get(json_object_get(answer, "outputs"), 0);
    assert_int_equal(at_json_int_at(output, "parameters.binary_data_size", 0), 11);
}

static void binary_lengths_that_lie_are_refused(void **state)
{
    struct fixture *f = *state;
    size_t len = sizeof BINARY - 1, json_len = len - 15;
    for (size_t cut = 1; cut <= 15; cut++) {
        assert_int_equal(
            at_oip_parse_infer(&WORDS, BINARY, len - cut, json_len, f->arena, &f->request, &f->err),
            AT_BAD_REQUEST);
    }
    assert_int_equal(
        at_oip_parse_infer(&WORDS, BINARY, json_len, len, f->arena, &f->request, &f->err),
        AT_BAD_REQUEST);
    AT_CLEANUP(at_cleanup_free) char *longer = at_alloc(len + 1);
    memcpy(longer, BINARY, len);
    assert_int_equal(
        at_oip_parse_infer(&WORDS, longer, len + 1, json_len, f->arena, &f->request, &f->err),
        AT_BAD_REQUEST);
    assert_non_null(strstr(f->err.msg, "after the last"));
}

static void half_precision_in_json_is_refused(void **state)
{
    struct fixture *f = *state;
    REFUSED(f, &WORDS,
            "{\"inputs\":[{\"name\":\"half\",\"shape\":[2],\"datatype\":\"FP16\","
            "\"data\":[1,2]}]}",
            "half", "binary");
}

static void metadata_say_what_the_model_takes(void **state)
{
    (void)state;
    AT_CLEANUP(at_cleanup_buf) struct at_buf buf = {0};
    assert_int_equal(at_oip_encode_metadata(&IMAGE, &buf), AT_OK);
    assert_string_equal(
        buf.data,
        "{\"name\":\"digits\",\"versions\":[\"1\"],\"platform\":\"onnxruntime_onnx\",\"inputs\":[{"
        "\"name\":\"image\",\"datatype\":\"FP32\",\"shape\":[-1,4]}],\"outputs\":[{\"name\":"
        "\"scores\",\"datatype\":\"FP32\",\"shape\":[-1,2]},{\"name\":\"label\",\"datatype\":"
        "\"INT64\",\"shape\":[-1]}]}");
}

static void an_error_text_that_is_not_utf8_still_makes_an_answer(void **state)
{
    (void)state;
    AT_CLEANUP(at_cleanup_buf) struct at_buf buf = {0};
    assert_int_equal(at_oip_encode_error("cut \xc3", &buf), AT_OK);
    assert_string_equal(buf.data, "{\"error\":\"malformed request\"}");
}

#define WITH_FIXTURE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FIXTURE(flat_data_become_a_tensor),
        WITH_FIXTURE(nested_data_become_the_same_tensor),
        WITH_FIXTURE(refusals_name_the_tensor_and_what_was_expected),
        WITH_FIXTURE(an_input_that_comes_twice_is_refused),
        WITH_FIXTURE(outputs_come_in_the_order_asked_for),
        WITH_FIXTURE(integers_keep_their_range),
        WITH_FIXTURE(the_answer_is_json_that_keeps_every_bit),
        WITH_FIXTURE(numbers_that_json_lacks_become_null),
        WITH_FIXTURE(binary_tensors_go_both_ways),
        WITH_FIXTURE(binary_lengths_that_lie_are_refused),
        WITH_FIXTURE(half_precision_in_json_is_refused),
        cmocka_unit_test(metadata_say_what_the_model_takes),
        cmocka_unit_test(an_error_text_that_is_not_utf8_still_makes_an_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
