#include "agent/agent_priv.h"
#include "sys/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static char path[64];

static int setup(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "/tmp/atoll-logfile-XXXXXX");
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int teardown(void **state)
{
    (void)state;
    return unlink(path);
}

static void put(const char *text, size_t len)
{
    assert_int_equal(at_file_append(path, text, len, 0600, NULL), AT_OK);
}

static void assert_tail(int64_t lines, const char *expected)
{
    struct at_buf out = {0};
    int64_t offset = 0;
    assert_int_equal(agent_log_tail(path, lines, &out, &offset), AT_OK);
    assert_string_equal(out.data != NULL ? out.data : "", expected);
    assert_int_equal(offset, at_file_size(path));
    at_buf_done(&out);
}

static void tail_gives_the_last_lines(void **state)
{
    (void)state;
    put("one\ntwo\nthree\n", 14);
    assert_tail(1, "three\n");
    assert_tail(2, "two\nthree\n");
    assert_tail(3, "one\ntwo\nthree\n");
    assert_tail(9, "one\ntwo\nthree\n");
    assert_tail(-1, "one\ntwo\nthree\n");
    assert_tail(0, "");
    put("unfinished", 10);
    assert_tail(1, "unfinished");
    assert_tail(2, "three\nunfinished");
}

static void tail_of_a_missing_file_is_empty(void **state)
{
    (void)state;
    struct at_buf out = {0};
    int64_t offset = 7;
    assert_int_equal(agent_log_tail("/tmp/atoll-no-such-log", 5, &out, &offset), AT_OK);
    assert_int_equal(out.len, 0);
    assert_int_equal(offset, 0);
}

static void bytes_that_are_not_utf8_are_replaced(void **state)
{
    (void)state;
    static const char text[] =
        "gr\xc3\xbc\xc3\x9f \xff\xc0\x80 \xed\xa0\x80 \xe2\x82\xac \xf0\x9f\x98\x80 cut \xe2\x82";
    put(text, sizeof text - 1);
    assert_tail(-1, "gr\xc3\xbc\xc3\x9f ??? ??? \xe2\x82\xac \xf0\x9f\x98\x80 cut ??");
}

static void since_follows_growth_and_starts_again_after_a_cut(void **state)
{
    (void)state;
    struct at_buf out = {0};
    int64_t offset = 0;
    put("first\n", 6);
    assert_int_equal(agent_log_since(path, &offset, &out), AT_OK);
    assert_string_equal(out.data, "first\n");
    at_buf_clear(&out);
    assert_int_equal(agent_log_since(path, &offset, &out), AT_OK);
    assert_int_equal(out.len, 0);
    put("second\n", 7);
    assert_int_equal(agent_log_since(path, &offset, &out), AT_OK);
    assert_string_equal(out.data, "second\n");
    at_buf_clear(&out);
    assert_int_equal(at_file_truncate(path, 0, NULL), AT_OK);
    put("new\n", 4);
    assert_int_equal(agent_log_since(path, &offset, &out), AT_OK);
    assert_string_equal(out.data, "new\n");
    at_buf_done(&out);
}

static void last_line_is_what_a_person_would_read_last(void **state)
{
    (void)state;
    char line[16];
    agent_log_last_line(path, line, sizeof line);
    assert_string_equal(line, "");
    put("noise\nmodel is not ONNX: bad magic\n", 34);
    agent_log_last_line(path, line, sizeof line);
    assert_string_equal(line, "model is not ON");
}

static void rotate_keeps_one_old_file(void **state)
{
    (void)state;
    char old[80];
    snprintf(old, sizeof old, "%s.1", path);
    agent_log_rotate(path);
    assert_false(at_file_exists(old));
    char *block = malloc((size_t)1 << 20);
    memset(block, 'x', (size_t)1 << 20);
    for (int i = 0; i < 11; i++) {
        put(block, (size_t)1 << 20);
    }
    free(block);
    agent_log_rotate(path);
    assert_int_equal(at_file_size(path), 0);
    assert_int_equal(at_file_size(old), 11 << 20);
    unlink(old);
}

/* Two notes: lines get the time of the note that covers them, what is newer gets now. */
static void lines_get_the_time_at_which_the_log_was_seen_to_hold_them(void **state)
{
    (void)state;
    int64_t noted = 0;
    put("one\ntwo\n", 8);
    agent_log_time_note(path, 1000 * AT_NS_PER_S, &noted);
    agent_log_time_note(path, 1001 * AT_NS_PER_S, &noted); /* nothing new: no note */
    put("three\n", 6);
    agent_log_time_note(path, 1002 * AT_NS_PER_S, &noted);
    put("four", 4);
    struct agent_log_times times;
    agent_log_times_load(path, 1003 * AT_NS_PER_S, &times);
    struct at_buf out = {0};
    bool mid_line = false;
    assert_int_equal(agent_log_stamp(&times, 0, "one\ntwo\nthree\nfour", 18, &mid_line, &out),
                     AT_OK);
    assert_string_equal(out.data, "1970-01-01T00:16:40.000000Z one\n"
                                  "1970-01-01T00:16:40.000000Z two\n"
                                  "1970-01-01T00:16:42.000000Z three\n"
                                  "1970-01-01T00:16:43.000000Z four");
    assert_true(mid_line);
    at_buf_clear(&out);
    assert_int_equal(agent_log_stamp(&times, 18, "teen\n", 5, &mid_line, &out), AT_OK);
    assert_string_equal(out.data, "teen\n");
    assert_int_equal(agent_log_since_offset(&times, 999 * AT_NS_PER_S), 0);
    assert_int_equal(agent_log_since_offset(&times, 1001 * AT_NS_PER_S), 8);
    assert_int_equal(agent_log_since_offset(&times, 1003 * AT_NS_PER_S), 14);
    at_buf_done(&out);
    agent_log_times_done(&times);
    agent_log_time_remove(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lines_get_the_time_at_which_the_log_was_seen_to_hold_them,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(tail_gives_the_last_lines, setup, teardown),
        cmocka_unit_test_setup_teardown(tail_of_a_missing_file_is_empty, setup, teardown),
        cmocka_unit_test_setup_teardown(bytes_that_are_not_utf8_are_replaced, setup, teardown),
        cmocka_unit_test_setup_teardown(since_follows_growth_and_starts_again_after_a_cut, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(last_line_is_what_a_person_would_read_last, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(rotate_keeps_one_old_file, setup, teardown),
    };
    return cmocka_run_group_tests_name("agent log files", tests, NULL, NULL);
}
