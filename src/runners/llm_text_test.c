/* Stop words and UTF-8 across tokens. */
#include "core/mem.h"
#include "runners/llm_text.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* What comes out of tokens (NULL ends the list), with a bar after each push, and how it ended. */
static void gives(const char *const *stops, size_t n_stops, const char *const *tokens,
                  const char *want, bool stopped)
{
    struct at_llm_text text = {.stops = stops, .n_stops = n_stops};
    AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
    bool met = false;
    for (; *tokens != NULL && !met; tokens++) {
        met = at_llm_text_push(&text, *tokens, strlen(*tokens), &out);
        assert_int_equal(at_buf_append_str(&out, "|"), AT_OK);
    }
    at_llm_text_end(&text, &out);
    assert_string_equal(out.data, want);
    assert_int_equal(met, stopped);
    at_llm_text_done(&text);
}

#define TOKENS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void without_stop_words_text_comes_at_once(void **state)
{
    (void)state;
    gives(NULL, 0, TOKENS("a", "", "bc"), "a||bc|", false);
}

static void a_stop_word_is_met_across_tokens_and_no_part_of_it_is_told(void **state)
{
    (void)state;
    const char *const stops[] = {"END", "\n\n"};
    gives(stops, 2, TOKENS("one E", "N", "D two", "x"), "one |||", true);
    gives(stops, 2, TOKENS("one E", "N", "T", "!"), "one ||ENT|!|", false);
    gives(stops, 2, TOKENS("a\n", "\nb"), "a||", true);
    gives(stops, 2, TOKENS("EEND"), "E|", true);
    gives(stops, 2, TOKENS("EE", "EN", "D"), "E|E||", true);
}

static void what_was_held_back_is_told_at_the_end(void **state)
{
    (void)state;
    const char *const stops[] = {"STOP"};
    gives(stops, 1, TOKENS("go ST"), "go |ST", false);
}

static void the_first_of_several_stop_words_counts(void **state)
{
    (void)state;
    const char *const stops[] = {"cd", "bcd"};
    gives(stops, 2, TOKENS("abcde"), "a|", true);
}

static void characters_come_whole(void **state)
{
    (void)state;
    gives(NULL, 0, TOKENS("\xc3", "\xa4x"), "|\xc3\xa4x|", false);
    gives(NULL, 0, TOKENS("\xf0", "\x9f", "\x98", "\x80"), "|||\xf0\x9f\x98\x80|", false);
    gives(NULL, 0, TOKENS("\xf0\x9f", "a"),
          "|\xef\xbf\xbd"
          "a|",
          false);
    gives(NULL, 0,
          TOKENS("a\xff"
                 "b"),
          "a\xef\xbf\xbd"
          "b|",
          false);
    gives(NULL, 0, TOKENS("\xe2\x82"), "|\xef\xbf\xbd", false);
}

static void a_stop_word_of_several_bytes_a_character(void **state)
{
    (void)state;
    const char *const stops[] = {"\xc3\xa4\xc3\xb6"};
    gives(stops, 1, TOKENS("x\xc3", "\xa4", "\xc3", "\xb6y"), "x||||", true);
    gives(stops, 1, TOKENS("x\xc3", "\xa4", "\xc3", "\xbc"), "x|||\xc3\xa4\xc3\xbc|", false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_stop_words_text_comes_at_once),
        cmocka_unit_test(a_stop_word_is_met_across_tokens_and_no_part_of_it_is_told),
        cmocka_unit_test(what_was_held_back_is_told_at_the_end),
        cmocka_unit_test(the_first_of_several_stop_words_counts),
        cmocka_unit_test(characters_come_whole),
        cmocka_unit_test(a_stop_word_of_several_bytes_a_character),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
