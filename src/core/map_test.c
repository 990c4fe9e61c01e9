#include "core/map.h"
#include "core/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define KEYS 5000

static void *number(intptr_t n)
{
    return (void *)n;
}

static void finds_what_was_put_and_nothing_else(void **state)
{
    (void)state;
    struct at_map *map = at_map_new();
    char key[32];
    assert_null(at_map_get(map, "none"));
    for (intptr_t i = 1; i <= KEYS; i++) {
        snprintf(key, sizeof key, "key-%d", (int)i);
        assert_null(at_map_put(map, key, number(i)));
    }
    assert_int_equal(at_map_count(map), KEYS);
    for (intptr_t i = 1; i <= KEYS; i++) {
        int len = snprintf(key, sizeof key, "key-%d", (int)i);
        assert_ptr_equal(at_map_get(map, key), number(i));
        strcat(key, "x");
        assert_null(at_map_get(map, key));
        assert_ptr_equal(at_map_get_n(map, key, (size_t)len), number(i));
    }
    assert_ptr_equal(at_map_put(map, "key-7", number(-7)), number(7));
    assert_ptr_equal(at_map_get(map, "key-7"), number(-7));
    assert_int_equal(at_map_count(map), KEYS);
    at_map_clear(map);
    assert_int_equal(at_map_count(map), 0);
    assert_null(at_map_get(map, "key-7"));
    at_map_free(map);
    at_map_free(NULL);
}

static void iterates_in_insertion_order_also_after_removals(void **state)
{
    (void)state;
    struct at_map *map = at_map_new();
    char key[32];
    for (intptr_t i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "%d", (int)i);
        at_map_put(map, key, number(i + 1));
    }
    const char *at;
    void *value;
    for (size_t it = 0; at_map_next(map, &it, &at, &value);) {
        if (atoi(at) % 3 == 0) {
            snprintf(key, sizeof key, "%s", at);
            assert_ptr_equal(at_map_remove(map, key), value);
        }
    }
    at_map_put(map, "0", number(1000));
    intptr_t last = 0;
    size_t seen = 0;
    for (size_t it = 0; at_map_next(map, &it, &at, &value); seen++) {
        assert_true((intptr_t)value > last);
        last = (intptr_t)value;
    }
    assert_int_equal(seen, 67);
    assert_int_equal(last, 1000);
    at_map_free(map);
}

static void churn_neither_grows_nor_loses(void **state)
{
    (void)state;
    struct at_map *map = at_map_new();
    char key[32];
    for (intptr_t i = 1; i <= 20000; i++) {
        snprintf(key, sizeof key, "%d", (int)i);
        at_map_put(map, key, number(i));
        if (i > 10) {
            snprintf(key, sizeof key, "%d", (int)i - 10);
            assert_ptr_equal(at_map_remove(map, key), number(i - 10));
            assert_null(at_map_remove(map, key));
        }
    }
    assert_int_equal(at_map_count(map), 10);
    assert_ptr_equal(at_map_get(map, "19995"), number(19995));
    at_map_free(map);
}

/* Short ones lie in their entry, long ones elsewhere. */
static void keys_of_every_length_are_found_given_back_and_removed(void **state)
{
    (void)state;
    struct at_map *map = at_map_new();
    char key[101];
    for (size_t round = 0; round < 3; round++) {
        for (size_t len = 0; len <= 100; len++) {
            memset(key, 'k', len);
            key[len] = '\0';
            assert_null(at_map_put(map, key, number((intptr_t)len + 1)));
        }
        assert_int_equal(at_map_count(map), 101);
        const char *at;
        void *value;
        size_t len = 0;
        for (size_t it = 0; at_map_next(map, &it, &at, &value); len++) {
            assert_int_equal(strlen(at), len);
            assert_ptr_equal(value, number((intptr_t)len + 1));
            assert_ptr_equal(at_map_get_n(map, at, len), value);
            if (round == 1) {
                assert_ptr_equal(at_map_remove(map, at), value);
            }
        }
        assert_int_equal(len, 101);
        if (round != 1) {
            at_map_clear(map);
        }
        assert_int_equal(at_map_count(map), 0);
    }
    at_map_free(map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_what_was_put_and_nothing_else),
        cmocka_unit_test(iterates_in_insertion_order_also_after_removals),
        cmocka_unit_test(churn_neither_grows_nor_loses),
        cmocka_unit_test(keys_of_every_length_are_found_given_back_and_removed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
