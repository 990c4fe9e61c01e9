#include "core/json.h"
#include "core/mem.h"
#include "gateway/json_scan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void reads_model_and_stream_wherever_they_stand(void **state)
{
    (void)state;
    static const struct {
        const char *text, *model;
        bool stream;
    } CASES[] = {
        {"{\"model\":\"m\"}", "m", false},
        {" {\r\n\t\"stream\" : true , \"model\" : \"org/llama-3\" } \n", "org/llama-3", true},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"{\\\"model\\\":\\\"x\\\"}\"}],"
         "\"model\":\"last\",\"stream\":false}",
         "last", false},
        {"{\"tools\":[{\"model\":\"inner\",\"stream\":true}],\"o\":{\"model\":[]},\"model\":\"m\"}",
         "m", false},
        {"{\"mod\\u0065l\":\"\\u00e9\\ud83d\\ude00\\n\\/\",\"str\\u0065am\":true}",
         "\xc3\xa9\xf0\x9f\x98\x80\n/", true},
        {"{\"model\":\"\xe6\xa8\xa1\xe5\x9e\x8b\",\"stream\":null}", "\xe6\xa8\xa1\xe5\x9e\x8b",
         false},
        {"{\"a\":[],\"b\":{},\"c\":[[{}],-0,0.5,1e9,1E-9,null],\"d\":1e999,\"model\":\"m\"}", "m",
         false},
        /* Half a surrogate pair (JavaScript cuts them) and NUL are the replica's affair. */
        {"{\"prompt\":\"\\ud83d \\u0000\",\"model\":\"m\"}", "m", false},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        struct gw_scan scan;
        struct at_err err;
        assert_int_equal(gw_json_scan(at_str_of(CASES[i].text), &scan, &err), AT_OK);
        assert_string_equal(scan.model, CASES[i].model);
        assert_int_equal(scan.model_len, strlen(CASES[i].model));
        assert_int_equal(scan.stream, CASES[i].stream);
    }
}

static void says_where_a_body_is_no_json(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } CASES[] = {
        {"", "line 1, column 1: a JSON object is expected"},
        {"[1]", "line 1, column 1: a JSON object is expected"},
        {"\xef\xbb\xbf{}", "line 1, column 1: a JSON object is expected"},
        {"{\"model\":\"m\",}", "line 1, column 14: a string in double quotes is expected"},
        {"{\"model\":\"m\"}}", "line 1, column 14: nothing may follow the object"},
        {"{\n \"model\": \"m\"\n \"stream\": true}", "line 3, column 2: ',' or '}' is expected"},
        {"{\"a\":[1,2}", "line 1, column 10: ',' or ']' is expected"},
        {"{\"a\":[{\"b\" 1}]}", "line 1, column 12: ':' is expected"},
        {"{\"a\":01}", "line 1, column 7: ',' or '}' is expected"},
        {"{\"a\":-}", "line 1, column 7: a digit is expected"},
        {"{\"a\":1.}", "line 1, column 8: a digit is expected"},
        {"{\"a\":1e+}", "line 1, column 9: a digit is expected"},
        {"{\"a\":nul}", "line 1, column 6: a value is expected"},
        {"{\"a\":[,]}", "line 1, column 7: a value is expected"},
        {"{\"a\":\"\\x\"}", "line 1, column 7: no such escape"},
        {"{\"a\":\"\\u12g4\"}", "line 1, column 7: \\u needs four hex digits"},
        {"{\"a\":\"\n\"}", "line 1, column 7: control character in a string"},
        {"{\"a\":\"b", "line 1, column 8: the text ends within a string"},
        {"{\"\xc3\xa9\":\"\xff\"}", "line 1, column 7: this is no UTF-8"},
        {"{\"a\":\"\xc3\"}", "line 1, column 7: this is no UTF-8"},
        {"{\"a\":\"\xed\xa0\x80\"}", "line 1, column 7: this is no UTF-8"},
        {"{\"model\":\"m\",\"a\":1,\"model\":\"n\"}",
         "line 1, column 20: this member is named twice"},
        {"{\"model\":\"m\",\"m\\u006fdel\":\"n\"}",
         "line 1, column 14: this member is named twice"},
        {"{\"\\u0000\":1}", "line 1, column 2: this name is no text"},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        struct gw_scan scan;
        struct at_err err;
        assert_int_equal(gw_json_scan(at_str_of(CASES[i].text), &scan, &err), AT_BAD_REQUEST);
        assert_string_equal(err.msg, CASES[i].message);
    }
}

static void names_the_member_that_will_not_do(void **state)
{
    (void)state;
    static const struct {
        const char *text, *field, *message;
    } CASES[] = {
        {"{}", "model", "which model is asked for must be said"},
        {"{\"Model\":\"m\"}", "model", "which model is asked for must be said"},
        {"{\"model\":null}", "model", "must be a string"},
        {"{\"model\":{\"model\":\"m\"}}", "model", "must be a string"},
        {"{\"model\":\"\"}", "model", "must not be empty"},
        {"{\"model\":\"a\\u0000b\"}", "model", "is no text"},
        {"{\"model\":\"\\udc00\"}", "model", "is no text"},
        {"{\"model\":\"m\",\"stream\":\"true\"}", "stream", "must be true or false"},
        {"{\"stream\":1,\"model\":\"m\"}", "stream", "must be true or false"},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        struct gw_scan scan;
        struct at_err err;
        assert_int_equal(gw_json_scan(at_str_of(CASES[i].text), &scan, &err), AT_INVALID);
        assert_string_equal(err.field, CASES[i].field);
        assert_string_equal(err.msg, CASES[i].message);
    }
}

/* A body with a list that deep, or that many members. */
static enum at_rc scan_of(size_t depth, size_t members, size_t model_bytes, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    struct gw_scan scan;
    enum at_rc rc = at_buf_append_str(&text, "{\"model\":\"");
    for (size_t i = 0; i < model_bytes; i++) {
        rc = at_buf_append_str(&text, "m");
    }
    rc = at_buf_append_str(&text, "\"");
    for (size_t i = 1; i < members; i++) {
        rc = at_buf_printf(&text, ",\"%zu\":", i);
        for (size_t d = 1; d < depth; d++) {
            rc = at_buf_append_str(&text, "[");
        }
        for (size_t d = 1; d < depth; d++) {
            rc = at_buf_append_str(&text, "]");
        }
        rc = depth > 1 ? rc : at_buf_append_str(&text, "0");
    }
    rc = at_buf_append_str(&text, "}");
    assert_int_equal(rc, AT_OK);
    return gw_json_scan((struct at_str){text.data, text.len}, &scan, err);
}

static void keeps_its_limits(void **state)
{
    (void)state;
    struct at_err err;
    assert_int_equal(scan_of(AT_GW_JSON_DEPTH_MAX, 2, 1, &err), AT_OK);
    assert_int_equal(scan_of(AT_GW_JSON_DEPTH_MAX + 1, 2, 1, &err), AT_BAD_REQUEST);
    assert_non_null(strstr(err.msg, "nested too deeply"));
    assert_int_equal(scan_of(1, AT_GW_JSON_MEMBERS_MAX, 1, &err), AT_OK);
    assert_int_equal(scan_of(1, AT_GW_JSON_MEMBERS_MAX + 1, 1, &err), AT_BAD_REQUEST);
    assert_non_null(strstr(err.msg, "too many members"));
    assert_int_equal(scan_of(1, 1, AT_GW_MODEL_BYTES_MAX - 1, &err), AT_OK);
    assert_int_equal(scan_of(1, 1, AT_GW_MODEL_BYTES_MAX, &err), AT_INVALID);
    assert_string_equal(err.msg, "is too long for a model's name");
}

/* Strings are read eight bytes at a time: what matters must be seen at each place of the eight. */
static void sees_every_byte_of_a_string(void **state)
{
    (void)state;
    for (unsigned c = 0; c < 256; c++) {
        for (size_t at = 0; at < 17; at++) {
            char text[] = "{\"model\":\"m\",\"a\":\"xxxxxxxxxxxxxxxxx\"}";
            struct gw_scan scan;
            struct at_err err;
            AT_CLEANUP(at_cleanup_json) json_t *root = NULL;
            text[strlen("{\"model\":\"m\",\"a\":\"") + at] = (char)c;
            struct at_str s = {text, sizeof text - 1};
            assert_int_equal(gw_json_scan(s, &scan, &err),
                             at_json_parse(s.ptr, s.len, &root, &err));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_model_and_stream_wherever_they_stand),
        cmocka_unit_test(says_where_a_body_is_no_json),
        cmocka_unit_test(names_the_member_that_will_not_do),
        cmocka_unit_test(keeps_its_limits),
        cmocka_unit_test(sees_every_byte_of_a_string),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
