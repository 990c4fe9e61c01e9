/* gRPC messages to REST and back, byte by byte. */
#include "gateway/grpc.h"
#include "gateway/pb.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void field(struct at_buf *out, uint32_t number, const char *bytes, size_t len)
{
    assert_int_equal(gw_pb_put_bytes(out, number, bytes, len), AT_OK);
}

static void frame(struct at_buf *out, const struct at_buf *message)
{
    char prefix[5] = {0, 0, 0, (char)(message->len >> 8), (char)message->len};
    at_buf_clear(out);
    assert_int_equal(at_buf_append(out, prefix, 5), AT_OK);
    assert_int_equal(at_buf_append(out, message->data, message->len), AT_OK);
}

/* An input with datatype and contents; shape as packed varints. */
static void infer_with(struct at_buf *framed, const char *datatype, const char *shape,
                       size_t n_dims, const char *contents, size_t len)
{
    struct at_buf input = {0}, message = {0};
    field(&input, 1, "x", 1);
    field(&input, 2, datatype, strlen(datatype));
    field(&input, 3, shape, n_dims);
    field(&input, 5, contents, len);
    field(&message, 1, "m", 1);
    field(&message, 5, input.data, input.len);
    frame(framed, &message);
    at_buf_done(&input);
    at_buf_done(&message);
}

static void typed_contents_become_little_endian_bytes(void **state)
{
    (void)state;
    static const struct {
        const char *datatype, *contents;
        size_t len;
        const char *want;
        size_t want_len;
        enum at_rc rc;
    } CASES[] = {
        {"BOOL", "\x0a\x02\x01\x00", 4, "\x01\x00", 2, AT_OK},
        {"INT8", "\x12\x0b\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x05", 13, "\xff\x05", 2, AT_OK},
        {"INT8", "\x12\x03\x80\x01\x05", 5, NULL, 0, AT_INVALID},
        {"INT32", "\x10\x01\x10\x02", 4, "\x01\0\0\0\x02\0\0\0", 8, AT_OK},
        {"UINT16", "\x22\x04\xff\xff\x03\x01", 6, "\xff\xff\x01\0", 4, AT_OK},
        {"UINT16", "\x22\x04\x80\x80\x04\x01", 6, NULL, 0, AT_INVALID},
        {"FP32", "\x32\x08\0\0\x80\x3f\0\0\0\x40", 10, "\0\0\x80\x3f\0\0\0\x40", 8, AT_OK},
        {"FP32", "\x35\0\0\x80\x3f\x35\0\0\0\x40", 10, "\0\0\x80\x3f\0\0\0\x40", 8, AT_OK},
        {"FP32", "\x32\x07\0\0\x80\x3f\0\0\0", 9, NULL, 0, AT_BAD_REQUEST},
        {"BYTES", "\x42\x02hi\x42\x00", 6, "\x02\0\0\0hi\0\0\0\0", 10, AT_OK},
        {"FP16", "\x32\x08\0\0\x80\x3f\0\0\0\x40", 10, NULL, 0, AT_INVALID},
        {"INT32", "\x10\x01", 2, NULL, 0, AT_INVALID}, /* one, shape says two */
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct at_buf framed = {0};
        struct gw_grpc_call call = {0};
        struct at_err err = {0};
        infer_with(&framed, CASES[i].datatype, "\x02", 1, CASES[i].contents, CASES[i].len);
        enum at_rc rc = gw_grpc_request(GW_GRPC_MODEL_INFER,
                                        (struct at_str){framed.data, framed.len}, &call, &err);
        assert_int_equal(rc, CASES[i].rc);
        if (rc == AT_OK) {
            size_t n = CASES[i].want_len;
            assert_string_equal(call.target.data, "/v2/models/m/infer");
            assert_memory_equal(call.body.data + call.body.len - n, CASES[i].want, n);
            assert_int_equal(call.body.data[call.body.len - n - 1], '}');
        } else {
            assert_true(err.msg[0] != '\0');
        }
        gw_grpc_call_done(&call);
        at_buf_done(&framed);
    }
}

static void shapes_cannot_overflow(void **state)
{
    (void)state;
    struct at_buf framed = {0};
    struct gw_grpc_call call = {0};
    struct at_err err;
    static const char huge[] = "\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x04";
    infer_with(&framed, "INT32", huge, sizeof huge - 1, "", 0);
    assert_int_equal(
        gw_grpc_request(GW_GRPC_MODEL_INFER, (struct at_str){framed.data, framed.len}, &call, &err),
        AT_INVALID);
    assert_non_null(strstr(err.msg, "inputs[x].shape"));
    infer_with(&framed, "INT32", "\x00", 1, "", 0); /* of nothing, nothing */
    assert_int_equal(
        gw_grpc_request(GW_GRPC_MODEL_INFER, (struct at_str){framed.data, framed.len}, &call, &err),
        AT_OK);
    gw_grpc_call_done(&call);
    at_buf_done(&framed);
}

static void names_cannot_leave_their_segment(void **state)
{
    (void)state;
    static const struct {
        const char *name, *target;
    } CASES[] = {{"a b", "/v2/models/a%20b"},
                 {"a/../b", "/v2/models/a%2F..%2Fb"},
                 {"..", NULL},
                 {"", NULL},
                 {"a\r\nX: y", "/v2/models/a%0D%0AX%3A%20y"}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct at_buf message = {0}, framed = {0};
        struct gw_grpc_call call = {0};
        struct at_err err;
        field(&message, 1, CASES[i].name, strlen(CASES[i].name));
        frame(&framed, &message);
        enum at_rc rc = gw_grpc_request(GW_GRPC_MODEL_METADATA,
                                        (struct at_str){framed.data, framed.len}, &call, &err);
        assert_int_equal(rc, CASES[i].target != NULL ? AT_OK : AT_INVALID);
        if (rc == AT_OK) {
            assert_string_equal(call.target.data, CASES[i].target);
        }
        gw_grpc_call_done(&call);
        at_buf_done(&message);
        at_buf_done(&framed);
    }
}

static void timeouts_and_statuses_are_as_grpc_says(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ns;
    } CASES[] = {{"100m", 100000000},
                 {"1S", 1000000000},
                 {"2M", 120000000000},
                 {"99999999H", INT64_MAX / 2},
                 {"5u", 5000},
                 {"7n", 7},
                 {"", 0},
                 {"m", 0},
                 {"1x", 0},
                 {"123456789S", 0},
                 {"-1S", 0}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct at_http_head head = {.n_headers = 1};
        head.headers[0] = (struct at_http_header){AT_STR("grpc-timeout"), at_str_of(CASES[i].text)};
        assert_int_equal(gw_grpc_timeout_ns(&head), CASES[i].ns);
    }
    assert_int_equal(gw_grpc_status_of(200), 0);
    assert_int_equal(gw_grpc_status_of(404), 5);
    assert_int_equal(gw_grpc_status_of(503), 14);
    assert_int_equal(gw_grpc_status_of(418), 3);
    assert_int_equal(gw_grpc_status_of(599), 13);
    char lines[64];
    gw_grpc_status_lines(5, "100% \n\xc3\xa9", lines, sizeof lines);
    assert_string_equal(lines, "grpc-status: 5\r\ngrpc-message: 100%25 %0A%C3%A9\r\n");
    gw_grpc_status_lines(5, "a message that is much longer than the room for it, by far", lines,
                         sizeof lines);
    assert_int_equal(strcmp(lines + strlen(lines) - 2, "\r\n"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(typed_contents_become_little_endian_bytes),
        cmocka_unit_test(shapes_cannot_overflow),
        cmocka_unit_test(names_cannot_leave_their_segment),
        cmocka_unit_test(timeouts_and_statuses_are_as_grpc_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
