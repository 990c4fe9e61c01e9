/* The index of prompts' beginnings, and what choosing makes of it. */
#include "core/mem.h"
#include "gateway/gateway_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define BLOCK AT_GW_PREFIX_BLOCK_BYTES

static void fill(char *text, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++) {
        seed = seed * 1103515245u + 12345u;
        text[i] = (char)('a' + (seed >> 16) % 26);
    }
}

static void a_chain_stands_for_all_before_it(void **state)
{
    (void)state;
    char a[8 * BLOCK + 5], b[sizeof a];
    uint64_t x[AT_GW_PREFIX_BLOCKS_MAX], y[AT_GW_PREFIX_BLOCKS_MAX];
    fill(a, sizeof a, 1);
    memcpy(b, a, sizeof b);
    b[3 * BLOCK] ^= 1;
    assert_int_equal(gw_prefix_chain((struct at_str){a, sizeof a}, 7, x), 8);
    assert_int_equal(gw_prefix_chain((struct at_str){b, sizeof b}, 7, y), 8);
    for (size_t i = 0; i < 8; i++) {
        assert_int_equal(x[i] == y[i], i < 3);
    }
    gw_prefix_chain((struct at_str){a, sizeof a}, 8, y); /* other tools */
    assert_true(x[0] != y[0]);
    assert_int_equal(gw_prefix_chain((struct at_str){a, BLOCK - 1}, 7, x), 0);
}

static void finds_whoever_has_most_and_forgets_the_oldest(void **state)
{
    (void)state;
    static uint64_t chain[AT_GW_PREFIX_BLOCKS_MAX], other[AT_GW_PREFIX_BLOCKS_MAX];
    struct gw_replica r[6] = {0}, *found[6];
    struct gw_prefix *p = NULL;
    size_t n;
    for (size_t i = 0; i < AT_GW_PREFIX_BLOCKS_MAX; i++) {
        chain[i] = gw_hash_mix(1, i);
    }
    assert_int_equal(gw_prefix_find(p, chain, 10, found, 6, &n), 0);
    gw_prefix_learn(&p, &r[0], chain, 10);
    gw_prefix_learn(&p, &r[1], chain, 4);
    assert_int_equal(gw_prefix_find(p, chain, 20, found, 6, &n), 10);
    assert_int_equal(n, 1);
    assert_ptr_equal(found[0], &r[0]);
    assert_int_equal(gw_prefix_depth(p, chain, 20, &r[1]), 4);
    assert_int_equal(gw_prefix_find(p, chain, 4, found, 6, &n), 4);
    assert_int_equal(n, 2);
    for (size_t i = 2; i < 6; i++) { /* grows; what is known stays */
        gw_prefix_learn(&p, &r[i], chain, 1);
    }
    assert_int_equal(gw_prefix_depth(p, chain, 20, &r[0]), 10);
    /* Other prompts push the first out, its end first; the second replica's stays. */
    for (size_t k = 0; k * AT_GW_PREFIX_BLOCKS_MAX < AT_GW_PREFIX_BLOCKS_PER_REPLICA; k++) {
        for (size_t i = 0; i < AT_GW_PREFIX_BLOCKS_MAX; i++) {
            other[i] = gw_hash_mix(k + 2, i);
        }
        gw_prefix_learn(&p, &r[0], other, AT_GW_PREFIX_BLOCKS_MAX);
    }
    assert_int_equal(gw_prefix_depth(p, chain, 20, &r[0]), 0);
    assert_int_equal(gw_prefix_depth(p, chain, 20, &r[1]), 4);
    assert_int_equal(gw_prefix_depth(p, other, 600 - 88, &r[0]), AT_GW_PREFIX_BLOCKS_MAX);
    gw_prefix_forget(p, &r[1]);
    assert_int_equal(gw_prefix_find(p, chain, 4, found, 6, &n), 1);
    assert_int_equal(n, 4);               /* the four that have the first block only */
    gw_prefix_learn(&p, &r[1], chain, 2); /* takes a place that is free */
    assert_int_equal(gw_prefix_depth(p, chain, 4, &r[1]), 2);
    gw_prefix_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chain_stands_for_all_before_it),
        cmocka_unit_test(finds_whoever_has_most_and_forgets_the_oldest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
