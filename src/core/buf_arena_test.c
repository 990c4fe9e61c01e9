#include "core/arena.h"
#include "core/buf.h"
#include "core/mem.h"

#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void arena_memory_is_zeroed_and_aligned(void **state)
{
    (void)state;
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    for (size_t bytes = 0; bytes < 600; bytes++) {
        unsigned char *p = at_arena_alloc(arena, bytes);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 16, 0);
        for (size_t i = 0; i < bytes; i++) {
            assert_int_equal(p[i], 0);
        }
        memset(p, 0xff, bytes);
    }
    at_arena_reset(arena);
    assert_int_equal(at_arena_used(arena), 0);
    unsigned char *again = at_arena_alloc(arena, 64);
    assert_int_equal(again[63], 0);
}

static void arena_copies_text(void **state)
{
    (void)state;
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    assert_string_equal(at_arena_strdup(arena, "reef"), "reef");
    assert_null(at_arena_strdup(arena, NULL));
    assert_string_equal(at_arena_strndup(arena, "lagoon", 3), "lag");
    assert_string_equal(at_arena_printf(arena, "%d-%s", 7, "x"), "7-x");
}

/* For every cap: nothing ever lies beyond it, refusal leaves the arena usable. */
static void arena_never_passes_any_cap(void **state)
{
    (void)state;
    for (size_t cap = 1; cap <= 300; cap++) {
        AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(cap);
        size_t refused = 0;
        for (size_t bytes = 0; bytes < 40; bytes++) {
            refused += at_arena_alloc(arena, bytes) == NULL ? 1 : 0;
            assert_true(at_arena_used(arena) <= cap);
        }
        assert_true(refused != 0);
        assert_null(at_arena_alloc(arena, SIZE_MAX));
        assert_null(at_arena_alloc(arena, SIZE_MAX - 8));
        at_arena_reset(arena);
        assert_true((at_arena_alloc(arena, 1) != NULL) == (cap >= 16));
    }
}

static void buf_grows_and_stays_terminated(void **state)
{
    (void)state;
    AT_CLEANUP(at_cleanup_buf) struct at_buf buf = {0};
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(at_buf_printf(&buf, "%d,", i), AT_OK);
        assert_int_equal(strlen(buf.data), buf.len);
    }
    at_buf_consume(&buf, 2);
    assert_memory_equal(buf.data, "1,2,", 4);
    char *place;
    assert_int_equal(at_buf_reserve(&buf, 3, &place), AT_OK);
    memcpy(place, "end", 3);
    at_buf_commit(&buf, 3);
    assert_string_equal(buf.data + buf.len - 7, "999,end");
    size_t len;
    char *text = at_buf_steal(&buf, &len);
    assert_int_equal(strlen(text), len);
    assert_null(buf.data);
    at_free(text);
}

/* For every cap: an append that does not fit changes nothing, one that fits works. */
static void buf_never_passes_any_cap(void **state)
{
    (void)state;
    for (size_t cap = 1; cap <= 200; cap++) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf buf;
        at_buf_init(&buf, cap);
        size_t expected = 0;
        for (size_t len = 0; len < 30; len++) {
            enum at_rc rc = at_buf_append(&buf, "012345678901234567890123456789", len);
            assert_int_equal(rc, expected + len <= cap ? AT_OK : AT_TOO_LARGE);
            expected += rc == AT_OK ? len : 0;
            assert_int_equal(buf.len, expected);
        }
        assert_int_equal(at_buf_printf(&buf, "%300d", 1), AT_TOO_LARGE);
        assert_int_equal(buf.len, expected);
        char *place;
        assert_int_equal(at_buf_reserve(&buf, SIZE_MAX, &place), AT_TOO_LARGE);
    }
}

static void empty_buf_accepts_every_call(void **state)
{
    (void)state;
    struct at_buf buf = {0};
    at_buf_consume(&buf, 0);
    at_buf_commit(&buf, 0);
    at_buf_clear(&buf);
    assert_int_equal(at_buf_append(&buf, NULL, 0), AT_OK);
    assert_string_equal(buf.data, "");
    at_buf_done(&buf);
    at_buf_done(&buf);
    char *text = at_buf_steal(&buf, NULL);
    assert_string_equal(text, "");
    at_free(text);
}

static void a_lent_arena_takes_what_it_was_lent_and_no_more(void **state)
{
    (void)state;
    struct at_arena *arena = at_arena_new_lent();
    for (size_t round = 0; round < 3; round++) {
        char *place = at_alloc(64);
        memset(place, 'x', 64);
        at_arena_lend(arena, place, 64);
        assert_ptr_equal(at_arena_alloc(arena, 20), place);
        assert_ptr_equal(at_arena_strndup(arena, "text", 4), place + 32);
        assert_null(at_arena_alloc(arena, 32));
        assert_ptr_equal(at_arena_alloc(arena, 16), place + 48);
        assert_null(at_arena_strndup(arena, "", 0));
        assert_int_equal(at_arena_used(arena), 64);
        assert_string_equal(place + 32, "text");
        at_free(place);
    }
    at_arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arena_memory_is_zeroed_and_aligned),
        cmocka_unit_test(arena_copies_text),
        cmocka_unit_test(arena_never_passes_any_cap),
        cmocka_unit_test(a_lent_arena_takes_what_it_was_lent_and_no_more),
        cmocka_unit_test(buf_grows_and_stays_terminated),
        cmocka_unit_test(buf_never_passes_any_cap),
        cmocka_unit_test(empty_buf_accepts_every_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
