#include "core/digest.h"
#include "core/mem.h"
#include "core/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void sha256_gives_the_published_values(void **state)
{
    (void)state;
    char hex[AT_SHA256_HEX_BYTES];
    at_sha256_hex("abc", 3, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    at_sha256_hex("", 0, hex);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

static void sha256_in_pieces_equals_the_whole(void **state)
{
    (void)state;
    char whole[AT_SHA256_HEX_BYTES];
    char pieces[AT_SHA256_HEX_BYTES];
    at_sha256_hex("a long lagoon", 13, whole);
    struct at_sha256_stream *s = at_sha256_stream_new();
    at_sha256_stream_update(s, "a long ", 7);
    at_sha256_stream_update(s, "lagoon", 6);
    at_sha256_stream_hex(s, pieces);
    at_sha256_stream_free(s);
    at_sha256_stream_free(NULL);
    assert_string_equal(whole, pieces);
}

static void base64_gives_the_values_of_rfc4648(void **state)
{
    (void)state;
    static const char *const PAIRS[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"}};
    for (size_t i = 0; i < AT_ARRAY_LEN(PAIRS); i++) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
        AT_CLEANUP(at_cleanup_buf) struct at_buf back = {0};
        const char *plain = PAIRS[i][0];
        assert_int_equal(at_base64_encode(plain, strlen(plain), &text), AT_OK);
        assert_string_equal(text.data, PAIRS[i][1]);
        assert_int_equal(at_base64_decode(text.data, text.len, &back), AT_OK);
        assert_string_equal(back.data, plain);
    }
}

static void base64_decodes_both_alphabets_and_refuses_the_rest(void **state)
{
    (void)state;
    static const char *const GOOD[] = {"-_-_", "+/+/", "Zm9v\nYg", "Zg"};
    static const char *const BAD[] = {
        "Z", "Zg=", "Zg===", "Zh==", "Zm9=", "Z g=", "=", "Zg==Zg==", "Zm9v="};
    for (size_t i = 0; i < AT_ARRAY_LEN(GOOD); i++) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
        assert_int_equal(at_base64_decode(GOOD[i], strlen(GOOD[i]), &out), AT_OK);
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(BAD); i++) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
        assert_int_equal(at_base64_decode(BAD[i], strlen(BAD[i]), &out), AT_INVALID);
        assert_int_equal(out.len, 0);
    }
}

static void strings_are_cut_and_compared(void **state)
{
    (void)state;
    struct at_str rest = AT_STR("a,,b");
    assert_true(at_str_eq(at_str_cut(&rest, ','), "a"));
    assert_true(at_str_eq(at_str_cut(&rest, ','), ""));
    assert_true(at_str_eq(at_str_cut(&rest, ','), "b"));
    assert_int_equal(rest.len, 0);
    assert_true(at_str_eq(at_str_cut(&rest, ','), ""));
    assert_true(at_str_eq(at_str_trim(AT_STR(" \t x y\t")), "x y"));
    assert_true(at_str_eq(at_str_trim(AT_STR("  ")), ""));
    assert_true(at_str_eq_nocase(AT_STR("Content-Type"), "content-tYPE"));
    assert_false(at_str_eq_nocase(AT_STR("a"), "ab"));
    assert_true(at_str_starts(AT_STR("prefix"), "pre"));
    assert_false(at_str_starts(AT_STR("pr"), "pre"));
    assert_true(at_streq(NULL, NULL));
    assert_false(at_streq("", NULL));
}

static void numbers_refuse_signs_blanks_and_overflow(void **state)
{
    (void)state;
    uint64_t u = 7;
    int64_t i = 7;
    assert_int_equal(at_str_to_u64(AT_STR("18446744073709551615"), &u), AT_OK);
    assert_true(u == UINT64_MAX);
    assert_int_equal(at_str_to_i64(AT_STR("-9223372036854775808"), &i), AT_OK);
    assert_true(i == INT64_MIN);
    u = 7;
    static const char *const BAD[] = {"", "+1", "-1", " 1", "1 ", "0x1", "18446744073709551616"};
    for (size_t n = 0; n < AT_ARRAY_LEN(BAD); n++) {
        assert_int_equal(at_str_to_u64(at_str_of(BAD[n]), &u), AT_INVALID);
    }
    assert_int_equal(u, 7);
    assert_int_equal(at_str_to_i64(AT_STR("9223372036854775808"), &i), AT_INVALID);
    assert_int_equal(at_str_to_i64(AT_STR("-"), &i), AT_INVALID);
}

static void utf8_prefix_stops_at_the_first_bad_byte(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t good;
    } ROWS[] = {{"abc", 3},         {"\xc3\xa9", 2},     {"\xf0\x9f\x90\xa0", 4}, {"a\xff", 1},
                {"\xc0\x80", 0},    {"\xed\xa0\x80", 0}, {"\xf4\x90\x80\x80", 0}, {"\xe2\x82", 0},
                {"\xe0\x80\x80", 0}};
    for (size_t i = 0; i < AT_ARRAY_LEN(ROWS); i++) {
        assert_int_equal(at_str_utf8_prefix(at_str_of(ROWS[i].text)), ROWS[i].good);
    }
}

static void errors_are_wrapped_and_keep_their_code(void **state)
{
    (void)state;
    struct at_err err = {0};
    assert_int_equal(at_err_set_field(&err, AT_INVALID, "spec.x", "must be %d", 3), AT_INVALID);
    assert_int_equal(at_err_wrap(&err, AT_IO, "file %s", "a.yaml"), AT_INVALID);
    assert_string_equal(err.msg, "file a.yaml: must be 3");
    assert_string_equal(err.field, "spec.x");
    assert_int_equal(at_err_wrap(NULL, AT_IO, "x"), AT_IO);
    assert_int_equal(at_rc_http_status(AT_CONFLICT), 409);
    assert_true(at_rc_retryable(AT_UNAVAILABLE));
    assert_string_equal(at_rc_name((enum at_rc)999), "InternalError");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha256_gives_the_published_values),
        cmocka_unit_test(sha256_in_pieces_equals_the_whole),
        cmocka_unit_test(base64_gives_the_values_of_rfc4648),
        cmocka_unit_test(base64_decodes_both_alphabets_and_refuses_the_rest),
        cmocka_unit_test(strings_are_cut_and_compared),
        cmocka_unit_test(numbers_refuse_signs_blanks_and_overflow),
        cmocka_unit_test(utf8_prefix_stops_at_the_first_bad_byte),
        cmocka_unit_test(errors_are_wrapped_and_keep_their_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
