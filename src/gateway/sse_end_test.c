/* Where events end, and the one that tells of a failure. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "core/json.h"
#include "core/mem.h"
#include "gateway/sse_end.h"

#include <string.h>

static void finds_the_end_of_the_last_whole_event(void **state)
{
    (void)state;
    static const struct {
        const char *data;
        size_t whole;
    } CASES[] = {{"", 0},
                 {"data: a\n\n", 9},
                 {"data: a\n\ndata: b", 9},
                 {"data: a\n\ndata: b\n", 9},
                 {"data: a\r\n\r\ndata: b\r\n", 11},
                 {"data: a\r\rdata: b\r", 9},
                 {"data: a\r\n", 0},
                 {"data: a", 0},
                 {"\n\n", 2},
                 {": still there\n", 14},
                 {": still", 0},
                 {"data: a\n\n: still there\n", 23},
                 {"data: a\n\n: one\ndata: b\n", 9},
                 {"event: x\ndata: a\n\nevent: y\n", 18}};
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        size_t whole = gw_sse_whole(at_str_of(CASES[i].data), 0);
        if (whole != CASES[i].whole) {
            fail_msg("case %zu: %zu, not %zu", i, whole, CASES[i].whole);
        }
    }
}

static void an_error_is_one_event_of_json(void **state)
{
    (void)state;
    AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
    assert_int_equal(gw_sse_error("model \"m\"\nis gone", &out), AT_OK);
    assert_int_equal(gw_sse_whole((struct at_str){out.data, out.len}, 0), out.len);
    char *data = strstr(out.data, "data: ");
    assert_non_null(data);
    char *end = strchr(data, '\n');
    assert_string_equal(end, "\n\n");
    AT_CLEANUP(at_cleanup_json) json_t *root = NULL;
    assert_int_equal(at_json_parse(data + 6, (size_t)(end - data - 6), &root, NULL), AT_OK);
    assert_string_equal(at_json_str_at(root, "error.message", ""), "model \"m\"\nis gone");
    assert_string_equal(at_json_str_at(root, "error.type", ""), "server_error");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_the_end_of_the_last_whole_event),
        cmocka_unit_test(an_error_is_one_event_of_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
