/* What goes together when: the batcher by itself, with a clock of numbers; and its settings. */
#include "core/mem.h"
#include "core/units.h"
#include "runners/batcher.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define ITEMS 64

struct fixture {
    struct at_batcher *b;
    struct at_batch_item items[ITEMS];
    size_t n;
    struct at_batch_item *got[AT_BATCH_ROWS_MAX];
};

static struct fixture make(const char *settings)
{
    struct at_batching_options options;
    struct at_err err = {0};
    at_batching_init(&options);
    if (at_batching_apply_text(&options, settings, strlen(settings), &err) != AT_OK ||
        at_batching_check(&options, &err) != AT_OK) {
        fail_msg("%s: %s", settings, err.msg);
    }
    return (struct fixture){.b = at_batcher_new(&options)};
}

static enum at_rc push(struct fixture *f, const char *key, size_t rows, size_t level, int64_t now)
{
    struct at_batch_item *item = &f->items[f->n++];
    *item = (struct at_batch_item){.key = at_str_of(key), .rows = rows, .level = level};
    return at_batcher_push(f->b, item, 0, now, NULL);
}

static size_t take_rows(struct fixture *f, int64_t now, size_t *ret_n)
{
    *ret_n = at_batcher_take(f->b, now, f->got);
    size_t rows = 0;
    for (size_t i = 0; i < *ret_n; i++) {
        rows += f->got[i]->rows;
    }
    return rows;
}

static void takes(struct fixture *f, int64_t now, size_t n, size_t rows)
{
    size_t got;
    assert_int_equal(take_rows(f, now, &got), rows);
    assert_int_equal(got, n);
}

static void without_a_delay_what_is_there_goes_at_once(void **state)
{
    (void)state;
    struct fixture f = make("maxBatchSize: 8");
    takes(&f, 0, 0, 0);
    for (int i = 0; i < 11; i++) {
        assert_int_equal(push(&f, "a", 1, 0, i), AT_OK);
    }
    takes(&f, 11, 8, 8);
    assert_ptr_equal(f.got[0], &f.items[0]);
    takes(&f, 11, 3, 3);
    assert_int_equal(at_batcher_waiting(f.b), 0);
    at_batcher_free(f.b);
}

static void a_delay_is_borne_for_a_full_batch_and_no_longer(void **state)
{
    (void)state;
    struct fixture f = make("{maxBatchSize: 4, maxQueueDelay: 2ms}");
    assert_int_equal(push(&f, "a", 1, 0, 0), AT_OK);
    assert_int_equal(push(&f, "a", 1, 0, AT_NS_PER_MS), AT_OK);
    takes(&f, AT_NS_PER_MS, 0, 0);
    assert_int_equal(at_batcher_next_ns(f.b, true), 2 * AT_NS_PER_MS);
    assert_int_equal(at_batcher_next_ns(f.b, false), INT64_MAX);
    takes(&f, 2 * AT_NS_PER_MS, 2, 2);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(push(&f, "a", 1, 0, 3 * AT_NS_PER_MS), AT_OK);
    }
    takes(&f, 3 * AT_NS_PER_MS, 4, 4);
    at_batcher_free(f.b);
}

static void preferred_sizes_go_without_waiting(void **state)
{
    (void)state;
    struct fixture f = make("{maxBatchSize: 16, maxQueueDelay: 5ms, preferredBatchSizes: [4, 8]}");
    for (int i = 0; i < 11; i++) {
        assert_int_equal(push(&f, "a", 1, 0, 0), AT_OK);
    }
    takes(&f, 0, 8, 8);
    takes(&f, 0, 0, 0);
    assert_int_equal(push(&f, "a", 1, 0, 1), AT_OK);
    takes(&f, 1, 4, 4);
    assert_int_equal(push(&f, "a", 3, 0, 1), AT_OK);
    takes(&f, 5 * AT_NS_PER_MS, 0, 0);
    takes(&f, 5 * AT_NS_PER_MS + 1, 1, 3);
    at_batcher_free(f.b);
}

static void shapes_are_never_mixed(void **state)
{
    (void)state;
    struct fixture f = make("maxBatchSize: 8");
    const char *keys[] = {"a", "b", "a", "b", "b"};
    for (size_t i = 0; i < AT_ARRAY_LEN(keys); i++) {
        assert_int_equal(push(&f, keys[i], 1, 0, 0), AT_OK);
    }
    takes(&f, 0, 2, 2);
    assert_ptr_equal(f.got[1], &f.items[2]);
    takes(&f, 0, 3, 3);
    at_batcher_free(f.b);
}

static void a_full_batch_goes_although_an_older_shape_still_waits(void **state)
{
    (void)state;
    struct fixture f = make("{maxBatchSize: 2, maxQueueDelay: 1s}");
    assert_int_equal(push(&f, "a", 1, 0, 0), AT_OK);
    assert_int_equal(push(&f, "b", 1, 0, 1), AT_OK);
    assert_int_equal(push(&f, "b", 1, 0, 2), AT_OK);
    takes(&f, 2, 2, 2);
    assert_true(at_str_eq(f.got[0]->key, "b"));
    at_batcher_free(f.b);
}

static void what_has_no_rows_or_too_many_goes_alone(void **state)
{
    (void)state;
    struct fixture f = make("{maxBatchSize: 4, maxQueueDelay: 1s}");
    assert_int_equal(push(&f, "a", 0, 0, 0), AT_OK);
    assert_int_equal(push(&f, "a", 9, 0, 0), AT_OK);
    assert_int_equal(push(&f, "a", 3, 0, 0), AT_OK);
    assert_int_equal(push(&f, "a", 2, 0, 0), AT_OK);
    assert_int_equal(push(&f, "a", 1, 0, 0), AT_OK);
    takes(&f, 0, 1, 0);
    takes(&f, 0, 1, 9);
    takes(&f, 0, 2, 4); /* three and one; two do not fit between */
    takes(&f, 0, 0, 0);
    at_batcher_free(f.b);
}

static void a_higher_level_goes_first(void **state)
{
    (void)state;
    struct fixture f = make("{maxBatchSize: 2, priorityLevels: 3}");
    struct at_err err = {0};
    assert_int_equal(push(&f, "a", 1, 3, 0), AT_OK);
    assert_int_equal(push(&f, "a", 1, 0, 0), AT_OK); /* the middle one */
    assert_int_equal(push(&f, "a", 1, 1, 0), AT_OK);
    takes(&f, 0, 2, 2);
    assert_ptr_equal(f.got[0], &f.items[2]);
    assert_ptr_equal(f.got[1], &f.items[1]);
    f.items[5] = (struct at_batch_item){.rows = 1, .level = 4};
    assert_int_equal(at_batcher_push(f.b, &f.items[5], 0, 0, &err), AT_BAD_REQUEST);
    assert_non_null(strstr(err.msg, "1 to 3"));
    at_batcher_free(f.b);
}

static void queues_are_bounded_level_by_level(void **state)
{
    (void)state;
    struct fixture f =
        make("{priorityLevels: 2, queue: {maxSize: 3}, levels: [{level: 2, maxSize: 1}]}");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(push(&f, "a", 1, 1, 0), AT_OK);
    }
    assert_int_equal(push(&f, "a", 1, 1, 0), AT_EXHAUSTED);
    assert_int_equal(push(&f, "a", 1, 2, 0), AT_OK);
    assert_int_equal(push(&f, "a", 1, 2, 0), AT_EXHAUSTED);
    at_batcher_remove(f.b, &f.items[0]);
    at_batcher_remove(f.b, &f.items[0]);
    assert_int_equal(push(&f, "a", 1, 1, 0), AT_OK);
    at_batcher_free(f.b);
}

static void a_timeout_refuses_or_puts_behind_all_others(void **state)
{
    (void)state;
    struct fixture f = make("{maxBatchSize: 1, priorityLevels: 2, queue: {timeout: 1ms},"
                            " levels: [{level: 1, timeoutAction: Delay}]}");
    assert_int_equal(push(&f, "a", 1, 1, 0), AT_OK);
    assert_int_equal(push(&f, "a", 1, 2, 0), AT_OK);
    assert_null(at_batcher_expired(f.b, AT_NS_PER_MS - 1));
    assert_int_equal(at_batcher_next_ns(f.b, false), AT_NS_PER_MS);
    assert_ptr_equal(at_batcher_expired(f.b, AT_NS_PER_MS), &f.items[1]);
    assert_null(at_batcher_expired(f.b, AT_NS_PER_MS));
    assert_int_equal(push(&f, "a", 1, 2, AT_NS_PER_MS), AT_OK);
    takes(&f, AT_NS_PER_MS, 1, 1);
    assert_ptr_equal(f.got[0], &f.items[2]);
    takes(&f, AT_NS_PER_MS, 1, 1);
    assert_ptr_equal(f.got[0], &f.items[0]);
    at_batcher_free(f.b);
}

static void a_request_may_shorten_its_timeout_where_that_is_allowed(void **state)
{
    (void)state;
    struct fixture f = make("{queue: {timeout: 10ms, allowTimeoutOverride: true}}");
    struct at_batch_item a = {.rows = 1}, b = {.rows = 1};
    assert_int_equal(at_batcher_push(f.b, &a, AT_NS_PER_MS, 0, NULL), AT_OK);
    assert_int_equal(a.deadline_ns, AT_NS_PER_MS);
    assert_int_equal(at_batcher_push(f.b, &b, AT_NS_PER_S, 0, NULL), AT_OK);
    assert_int_equal(b.deadline_ns, 10 * AT_NS_PER_MS);
    at_batcher_free(f.b);
    f = make("{queue: {timeout: 10ms}}");
    assert_int_equal(at_batcher_push(f.b, &a, AT_NS_PER_MS, 0, NULL), AT_OK);
    assert_int_equal(a.deadline_ns, 10 * AT_NS_PER_MS);
    at_batcher_free(f.b);
}

/* Whatever comes in which order: each comes out once, in batches of one key that are not too large,
 * and the oldest of its level and key first. */
static void any_history_gives_each_out_once(void **state)
{
    (void)state;
    static const char *const KEYS[] = {"a", "b", "c"};
    uint32_t seed = 1;
    for (int round = 0; round < 300; round++) {
        struct fixture f = make("{maxBatchSize: 6, maxQueueDelay: 3us, priorityLevels: 2,"
                                " preferredBatchSizes: [2, 5]}");
        bool out[ITEMS] = {false};
        size_t n_out = 0;
        for (int64_t now = 0; n_out < ITEMS; now += 500) {
            seed = seed * 1664525u + 1013904223u;
            for (size_t k = seed >> 28; k > 0 && f.n < ITEMS; k--) {
                seed = seed * 1664525u + 1013904223u;
                assert_int_equal(
                    push(&f, KEYS[(seed >> 20) % 3], (seed >> 24) % 8, (seed >> 16) % 3, now),
                    AT_OK);
            }
            size_t got, rows;
            while (rows = take_rows(&f, now, &got), got != 0) {
                assert_true(got == 1 || rows <= 6);
                for (size_t i = 0; i < got; i++) {
                    size_t index = (size_t)(f.got[i] - f.items);
                    assert_true(at_str_eq(f.got[0]->key, f.got[i]->key.ptr));
                    assert_true(got == 1 || f.got[i]->rows > 0);
                    assert_false(out[index]);
                    out[index] = true;
                    n_out++;
                }
            }
            assert_true(now < AT_NS_PER_S);
        }
        at_batcher_free(f.b);
    }
}

static void bad_settings_are_named(void **state)
{
    (void)state;
    const struct {
        const char *text, *part;
    } cases[] = {
        {"{maxBatchSize: 0}", "maxBatchSize"},
        {"{maxBatchSize: many}", "maxBatchSize"},
        {"{maxQueueDelay: soon}", "maxQueueDelay"},
        {"{maxQueueDelay: 2h}", "maxQueueDelay"},
        {"{preferredBatchSizes: [8, 4]}", "preferredBatchSizes"},
        {"{preferredBatchSizes: 8}", "preferredBatchSizes"},
        {"{maxBatchSize: 4, preferredBatchSizes: [8]}", "over maxBatchSize 4"},
        {"{defaultPriority: 2}", "defaultPriority"},
        {"{queue: {timeoutAction: Drop}}", "timeoutAction"},
        {"{queue: {size: 3}}", "size"},
        {"{levels: [{level: 0}]}", "level"},
        {"{batchsize: 4}", "batchsize"},
        {"[1]", "object"},
        {"{warmUp: 1}", "warmUp"},
        {"{", ""},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(cases); i++) {
        struct at_batching_options options;
        struct at_err err = {0};
        at_batching_init(&options);
        enum at_rc rc =
            at_batching_apply_text(&options, cases[i].text, strlen(cases[i].text), &err);
        rc = rc != AT_OK ? rc : at_batching_check(&options, &err);
        assert_int_equal(rc, AT_BAD_REQUEST);
        if (strstr(err.msg, cases[i].part) == NULL) {
            fail_msg("%s: %s", cases[i].text, err.msg);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_delay_what_is_there_goes_at_once),
        cmocka_unit_test(a_delay_is_borne_for_a_full_batch_and_no_longer),
        cmocka_unit_test(preferred_sizes_go_without_waiting),
        cmocka_unit_test(shapes_are_never_mixed),
        cmocka_unit_test(a_full_batch_goes_although_an_older_shape_still_waits),
        cmocka_unit_test(what_has_no_rows_or_too_many_goes_alone),
        cmocka_unit_test(a_higher_level_goes_first),
        cmocka_unit_test(queues_are_bounded_level_by_level),
        cmocka_unit_test(a_timeout_refuses_or_puts_behind_all_others),
        cmocka_unit_test(a_request_may_shorten_its_timeout_where_that_is_allowed),
        cmocka_unit_test(any_history_gives_each_out_once),
        cmocka_unit_test(bad_settings_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
