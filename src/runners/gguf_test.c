/* Model files that are whole, cut off at any byte, or damaged. */
#include "core/buf.h"
#include "core/mem.h"
#include "runners/gguf.h"
#include "runners/limits.h"
#include "sys/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define MODEL AT_SOURCE_ROOT "/tests/models/tiny-llama.gguf"

static struct at_buf read_model(void)
{
    struct at_buf buf = {0};
    assert_int_equal(at_file_read(MODEL, AT_GGUF_HEAD_BYTES_MAX, &buf, NULL), AT_OK);
    return buf;
}

static void a_whole_model_passes(void **state)
{
    (void)state;
    assert_int_equal(at_gguf_check_file(MODEL, NULL), AT_OK);
}

static void cut_off_anywhere_it_is_refused_with_a_sentence(void **state)
{
    (void)state;
    AT_CLEANUP(at_cleanup_buf) struct at_buf model = read_model();
    for (size_t len = 0; len < model.len; len += len < 2000 ? 1 : 997) {
        struct at_err err = {0};
        assert_int_equal(at_gguf_check(model.data, len, (int64_t)len, &err), AT_CORRUPT);
        assert_true(err.msg[0] != '\0');
    }
}

static void more_is_asked_for_while_the_description_goes_on(void **state)
{
    (void)state;
    AT_CLEANUP(at_cleanup_buf) struct at_buf model = read_model();
    assert_int_equal(at_gguf_check(model.data, 1000, (int64_t)model.len, NULL), AT_TOO_LARGE);
}

static void damage_is_named(void **state)
{
    (void)state;
    const struct {
        size_t at;
        const char *bytes, *part;
    } cases[] = {
        {0, "GGML", "no GGUF"},
        {4, "\x09", "version 9"},
        {8, "\xff\xff\xff\xff\xff", "claims"},
        {16, "\xff\xff\xff\xff\xff", "claims"},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(cases); i++) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf model = read_model();
        struct at_err err = {0};
        memcpy(model.data + cases[i].at, cases[i].bytes, strlen(cases[i].bytes));
        assert_int_equal(at_gguf_check(model.data, model.len, (int64_t)model.len, &err),
                         AT_CORRUPT);
        assert_non_null(strstr(err.msg, cases[i].part));
    }
}

static void claims_of_a_huge_file_are_refused_by_its_head(void **state)
{
    (void)state;
    AT_CLEANUP(at_cleanup_buf) struct at_buf model = read_model();
    struct at_err err = {0};
    int64_t huge = INT64_C(60) << 30;
    assert_int_equal(at_gguf_check(model.data, model.len, huge, &err), AT_CORRUPT);
    assert_non_null(strstr(err.msg, "goes on to 64424509440"));
    memcpy(model.data + 24, "\0\0\0\0\1\0\0\0", 8); /* the length of the first key */
    assert_int_equal(at_gguf_check(model.data, model.len, huge, &err), AT_CORRUPT);
    assert_non_null(strstr(err.msg, "claims 4294967296 bytes"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_model_passes),
        cmocka_unit_test(cut_off_anywhere_it_is_refused_with_a_sentence),
        cmocka_unit_test(more_is_asked_for_while_the_description_goes_on),
        cmocka_unit_test(damage_is_named),
        cmocka_unit_test(claims_of_a_huge_file_are_refused_by_its_head),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
