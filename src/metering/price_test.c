#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "metering/account.h"
#include "metering/cache.h"
#include "metering/price.h"
#include "metering/secret.h"

#include "core/mem.h"

#include <stdio.h>
#include <string.h>

#define S ((int64_t)1000000000)

static void a_token_may_cost_less_than_a_millionth(void **state)
{
    (void)state;
    struct at_meter_price p = {.input_microusd = 50000, .output_microusd = 400000};
    assert_int_equal(at_meter_cost_nanousd(&p, 1, 0), 50);
    assert_int_equal(at_meter_cost_nanousd(&p, 1000, 1000), 450000);
    p.request_microusd = 10;
    assert_int_equal(at_meter_cost_nanousd(&p, 0, 0), 10000);
    p = (struct at_meter_price){.input_microusd = 1};
    assert_int_equal(at_meter_cost_nanousd(&p, 1, 0), 1); /* rounded up: nothing is free */
    p.input_microusd = INT64_MAX;
    assert_int_equal(at_meter_cost_nanousd(&p, UINT64_MAX, 5), AT_METER_COST_MAX);
    p = (struct at_meter_price){.input_microusd = 1000000, .output_microusd = 2000000};
    assert_int_equal(at_meter_affordable(&p, 10, 10000, 99), 0);
    assert_int_equal(at_meter_affordable(&p, 10, 9999, 99), 0);
    assert_int_equal(at_meter_affordable(&p, 10, 14000, 99), 2);
    assert_int_equal(at_meter_affordable(&p, 10, INT64_MAX, 99), 99);
}

static void assert_period(enum at_meter_window window, int64_t day, const char *text)
{
    char out[AT_METER_PERIOD_BYTES];
    at_meter_period(window, day, out);
    assert_string_equal(out, text);
}

static void periods_are_those_of_the_calendar(void **state)
{
    (void)state;
    assert_period(AT_METER_DAY, 0, "1970-01-01");
    assert_period(AT_METER_DAY, 20781, "2026-11-24");
    assert_period(AT_METER_WEEK, 20781, "2026-W48");
    assert_period(AT_METER_MONTH, 20781, "2026-11");
    assert_period(AT_METER_TOTAL, 20781, "total");
    assert_period(AT_METER_DAY, 11016, "2000-02-29");
    assert_period(AT_METER_WEEK, 18627, "2020-W53"); /* Thursday, 2020-12-31 */
    assert_period(AT_METER_WEEK, 18628, "2020-W53"); /* Friday, 2021-01-01 */
    assert_period(AT_METER_WEEK, 18631, "2021-W01");
    assert_int_equal(at_meter_period_end(AT_METER_MONTH, 20781), 20788);
    assert_int_equal(at_meter_period_end(AT_METER_WEEK, 20781), 20787);
    assert_int_equal(at_meter_day_of(-1), -1);
}

static void a_bucket_lets_a_minute_through_and_then_its_rate(void **state)
{
    (void)state;
    struct at_meter_rate r;
    at_meter_rate_init(&r, 5 * S);
    assert_int_equal(at_meter_rate_take(&r, 1000000, 5 * S), 0); /* no limit */
    atomic_store(&r.per_minute, 60);
    for (int i = 0; i < 60; i++) {
        assert_int_equal(at_meter_rate_take(&r, 1, 5 * S), 0);
    }
    int64_t after = at_meter_rate_take(&r, 1, 5 * S);
    assert_true(after > 0);
    assert_true(after <= S + 1);
    assert_int_equal(at_meter_rate_look(&r, 5 * S).remaining, 0);
    assert_int_equal(at_meter_rate_take(&r, 1, 6 * S), 0);
    assert_true(at_meter_rate_take(&r, 1, 6 * S) > 0);
    at_meter_rate_correct(&r, -5, 6 * S);
    assert_int_equal(at_meter_rate_look(&r, 6 * S).remaining, 5);
    at_meter_rate_correct(&r, 600, 6 * S); /* a debt of ten minutes */
    assert_true(at_meter_rate_take(&r, 1, 60 * S) > 0);
    assert_true(at_meter_rate_take(&r, 61, 6 * S) == INT64_MAX);
    assert_int_equal(at_meter_rate_take(&r, 60, 100000 * S),
                     0); /* a pause saves up a minute only */
    assert_true(at_meter_rate_take(&r, 1, 100000 * S) > 0);
}

static void money_is_held_spent_and_given_back(void **state)
{
    (void)state;
    struct at_meter_account *a = at_meter_account_new("key k", 0);
    assert_int_equal(at_meter_hold(a, 5), AT_METER_HELD); /* no budget */
    atomic_store(&a->has_budget, true);
    atomic_store(&a->pool_nanousd, 100);
    assert_int_equal(at_meter_hold(a, 50), AT_METER_LATER);
    assert_int_equal(atomic_load(&a->missing_nanousd), 50);
    assert_int_equal(at_meter_hold(a, 101), AT_METER_SPENT);
    at_meter_begin(a, 10);
    at_meter_grant(a, 60);
    assert_int_equal(atomic_load(&a->left_nanousd), 50);
    assert_int_equal(at_meter_hold(a, 50), AT_METER_HELD);
    assert_true(atomic_load(&a->low));
    assert_int_equal(at_meter_hold(a, 1), AT_METER_LATER);
    at_meter_settle(a, 50, 20);
    assert_int_equal(atomic_load(&a->left_nanousd), 30);
    assert_int_equal(atomic_load(&a->spent_nanousd), 30);
    assert_int_equal(at_meter_give_back(a, 100), 30);
    assert_int_equal(at_meter_give_back(a, 100), 0);
    at_meter_begin(a, 0); /* another period */
    assert_int_equal(atomic_load(&a->left_nanousd), 0);
    at_meter_grant(a, 7);
    assert_int_equal(atomic_load(&a->left_nanousd), 7);
    at_meter_account_unref(a);
}

static void a_secret_tells_slips_of_the_pen(void **state)
{
    (void)state;
    unsigned char random[32];
    char made[AT_METER_SECRET_BYTES + 1];
    memset(random, 0xa5, sizeof random);
    at_meter_secret_make(random, made);
    struct at_str text = {made, AT_METER_SECRET_BYTES};
    assert_int_equal(at_meter_secret_form(text), AT_METER_SECRET_FORMED);
    made[20]++;
    assert_int_equal(at_meter_secret_form(text), AT_METER_SECRET_BROKEN);
    assert_int_equal(at_meter_secret_form(AT_STR("sk-atoll-")), AT_METER_SECRET_BROKEN);
    assert_int_equal(at_meter_secret_form(AT_STR("sk-proj-abc")), AT_METER_SECRET_FOREIGN);
    assert_int_equal(at_meter_secret_form(AT_STR("")), AT_METER_SECRET_FOREIGN);
}

static struct at_meter_ask ask(const char *scope, const char *body)
{
    return (struct at_meter_ask){.scope = at_str_of(scope),
                                 .model = AT_STR("ns/m"),
                                 .target = AT_STR("/v1/embeddings"),
                                 .body = at_str_of(body)};
}

static void kept_answers_are_of_their_scope_and_time_and_the_least_used_goes(void **state)
{
    (void)state;
    struct at_meter_cache *c = at_meter_cache_new(8000);
    struct at_meter_ask a = ask("k1", "{1}"), b = ask("k2", "{1}");
    struct at_meter_reply reply = {.head = AT_STR("a: b\r\n"), .body = AT_STR("yes"), .tag = 7},
                          got;
    assert_false(at_meter_cache_find(c, &a, 0, &got));
    at_meter_cache_put(c, &a, &reply, 100);
    assert_true(at_meter_cache_find(c, &a, 99, &got));
    assert_memory_equal(got.body.ptr, "yes", 4);
    assert_string_equal(got.head.ptr, "a: b\r\n");
    assert_int_equal(got.tag, 7);
    assert_false(at_meter_cache_find(c, &b, 99, &got));
    assert_false(at_meter_cache_find(c, &a, 100, &got));
    assert_int_equal(at_meter_cache_bytes(c), 0);
    char body[16];
    at_meter_cache_put(c, &a, &reply, 100);
    for (int i = 0; i < 100; i++) {
        snprintf(body, sizeof body, "%d", i);
        struct at_meter_ask other = ask("k", body);
        assert_true(at_meter_cache_find(c, &a, 0, &got)); /* used all the time: it stays */
        at_meter_cache_put(c, &other, &reply, 100);
        assert_true(at_meter_cache_bytes(c) <= 8000);
    }
    struct at_meter_ask first = ask("k", "0"), last = ask("k", "99");
    assert_false(at_meter_cache_find(c, &first, 0, &got));
    assert_true(at_meter_cache_find(c, &last, 0, &got));
    char large[2000] = {0};
    reply.body = (struct at_str){large, sizeof large};
    at_meter_cache_put(c, &last, &reply, 100);
    assert_false(at_meter_cache_find(c, &last, 0, &got));
    at_meter_cache_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_may_cost_less_than_a_millionth),
        cmocka_unit_test(periods_are_those_of_the_calendar),
        cmocka_unit_test(a_bucket_lets_a_minute_through_and_then_its_rate),
        cmocka_unit_test(money_is_held_spent_and_given_back),
        cmocka_unit_test(a_secret_tells_slips_of_the_pen),
        cmocka_unit_test(kept_answers_are_of_their_scope_and_time_and_the_least_used_goes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
