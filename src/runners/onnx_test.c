/* The real library on the real quickstart model. */
#include "core/json.h"
#include "core/mem.h"
#include "runners/ort.h"
#include "sys/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define LIBRARY AT_SOURCE_ROOT "/third_party/onnxruntime/lib/libonnxruntime.so.1"
#define MODEL AT_SOURCE_ROOT "/examples/quickstart/models/digits.onnx"
#define HELD_OUT AT_SOURCE_ROOT "/examples/quickstart/data/digits-test.json"
#define PIXELS 64
#define ACCURACY_MIN_MILLI 970

static int open_library(void **state)
{
    struct at_err err = {0};
    struct at_ort *ort = NULL;
    if (at_ort_open(LIBRARY, &ort, &err) != AT_OK) {
        print_error("%s\n", err.msg);
        return -1;
    }
    *state = ort;
    return 0;
}

static int close_library(void **state)
{
    at_ort_free(*state);
    return 0;
}

static struct at_ort_model *load_digits(const struct at_ort *ort)
{
    struct at_err err = {0};
    struct at_ort_model *model = NULL;
    if (at_ort_model_load(ort, MODEL, "digits", "1", 1, &model, &err) != AT_OK) {
        fail_msg("%s", err.msg);
    }
    return model;
}

static void metadata_are_read_from_the_model(void **state)
{
    struct at_ort_model *model = load_digits(*state);
    const struct at_oip_spec *spec = at_ort_model_spec(model);
    assert_int_equal(spec->n_inputs, 1);
    assert_string_equal(spec->inputs[0].name, "image");
    assert_int_equal(spec->inputs[0].type, AT_OIP_FP32);
    assert_int_equal(spec->inputs[0].n_dims, 2);
    assert_int_equal(spec->inputs[0].shape[0], -1);
    assert_int_equal(spec->inputs[0].shape[1], PIXELS);
    assert_int_equal(spec->n_outputs, 2);
    assert_string_equal(spec->outputs[1].name, "label");
    assert_int_equal(spec->outputs[1].type, AT_OIP_INT64);
    assert_non_null(strstr(spec->description, "Digits"));
    at_ort_model_free(model);
}

static void held_out_digits_are_told_apart(void **state)
{
    struct at_ort_model *model = load_digits(*state);
    struct at_err err = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    AT_CLEANUP(at_cleanup_json) json_t *held_out = NULL;
    assert_int_equal(at_file_read(HELD_OUT, AT_JSON_BYTES_MAX, &text, &err), AT_OK);
    assert_int_equal(at_json_parse(text.data, text.len, &held_out, &err), AT_OK);
    const json_t *labels = json_object_get(held_out, "labels");
    size_t n = json_array_size(labels);
    assert_true(n > 400);

    struct at_arena *arena = at_arena_new(0);
    struct at_oip_request request;
    struct at_oip_tensor outputs[AT_OIP_TENSORS_MAX] = {0};
    if (at_oip_parse_infer(at_ort_model_spec(model), text.data, text.len, text.len, arena, &request,
                           &err) != AT_OK ||
        at_ort_model_run(model, &request, arena, outputs, &err) != AT_OK) {
        fail_msg("%s", err.msg);
    }
    assert_int_equal(outputs[0].n_elements, n * 10);
    assert_int_equal(outputs[1].n_elements, n);
    size_t right = 0;
    for (size_t i = 0; i < n; i++) {
        right +=
            ((const int64_t *)outputs[1].data)[i] == json_integer_value(json_array_get(labels, i));
    }
    print_message("%zu of %zu right\n", right, n);
    assert_true(right * 1000 >= n * ACCURACY_MIN_MILLI);
    at_arena_free(arena);
    at_ort_model_free(model);
}

static void a_file_that_is_not_onnx_is_refused(void **state)
{
    struct at_err err = {0};
    struct at_ort_model *model = NULL;
    assert_int_equal(at_ort_model_load(*state, HELD_OUT, "x", NULL, 1, &model, &err), AT_CORRUPT);
    assert_null(model);
    assert_non_null(strstr(err.msg, "digits-test.json"));
}

static void a_library_that_is_not_there_is_told(void **state)
{
    (void)state;
    struct at_err err = {0};
    struct at_ort *ort = NULL;
    assert_int_equal(at_ort_open("/nonexistent/libonnxruntime.so.1", &ort, &err), AT_NOT_FOUND);
    assert_non_null(strstr(err.msg, "/nonexistent"));
    assert_int_equal(at_ort_open("libz.so.1", &ort, &err), AT_UNSUPPORTED);
    assert_null(ort);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(metadata_are_read_from_the_model),
        cmocka_unit_test(held_out_digits_are_told_apart),
        cmocka_unit_test(a_file_that_is_not_onnx_is_refused),
        cmocka_unit_test(a_library_that_is_not_there_is_told),
    };
    return cmocka_run_group_tests(tests, open_library, close_library);
}
