#include "world_test.h"

#include "scheduler/disruption.h"

static int64_t allowed(const char *max_unavailable, const char *min_available, int64_t wanted,
                       int64_t available)
{
    struct at_disruption budget = {.max_unavailable = max_unavailable,
                                   .min_available = min_available};
    return at_disruption_allowed(&budget, wanted, available);
}

static void without_a_budget_everything_may_go(void **state)
{
    (void)state;
    assert_int_equal(at_disruption_allowed(NULL, 3, 3), AT_DISRUPTION_UNLIMITED);
    assert_int_equal(allowed(NULL, NULL, 3, 3), AT_DISRUPTION_UNLIMITED);
}

static void counts_down_to_what_must_stay(void **state)
{
    (void)state;
    assert_int_equal(allowed("1", NULL, 4, 4), 1);
    assert_int_equal(allowed("1", NULL, 4, 3), 0);
    assert_int_equal(allowed("0", NULL, 4, 4), 0);
    assert_int_equal(allowed(NULL, "3", 4, 4), 1);
    assert_int_equal(allowed(NULL, "9", 4, 4), 0);
    assert_int_equal(allowed("3", "3", 4, 4), 1);  /* both hold */
    assert_int_equal(allowed("9", NULL, 4, 4), 4); /* never more than there are */
}

static void shares_are_of_what_is_wanted_rounded_up(void **state)
{
    (void)state;
    assert_int_equal(allowed("25%", NULL, 10, 10), 3);
    assert_int_equal(allowed(NULL, "75%", 10, 10), 2);
    assert_int_equal(allowed("100%", NULL, 10, 10), 10);
    assert_int_equal(allowed("999999999%", NULL, 1000000000, 10), 10);
}

static void the_owners_budget_is_found_and_counted(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    struct at_disruption budget = {.max_unavailable = "1"};
    struct at_deployment d = {.meta = {.name = "web", .ns = "default", .uid = "uid"},
                              .spec = {.replicas = 3, .disruption = &budget}};
    const struct at_deployment *deployments[] = {&d};
    struct at_instance *copies[3];
    for (int i = 0; i < 3; i++) {
        copies[i] = world_instance(&w, i == 0 ? "a" : i == 1 ? "b" : "c", "web", 1000);
        world_bind(copies[i], "n", 1);
        copies[i]->status.ready = true;
    }
    struct at_instance *other = world_instance(&w, "d", NULL, 1000);
    struct at_snapshot snap = world_snapshot(&w);
    snap.deployments = deployments;
    snap.n_deployments = 1;
    assert_int_equal(at_disruption_left(&snap, copies[0]), 1);
    copies[1]->status.ready = false;
    assert_int_equal(at_disruption_left(&snap, copies[0]), 0);
    assert_int_equal(at_disruption_left(&snap, other), AT_DISRUPTION_UNLIMITED);
    d.meta.uid = "another";
    assert_int_equal(at_disruption_left(&snap, copies[0]), AT_DISRUPTION_UNLIMITED);
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_budget_everything_may_go),
        cmocka_unit_test(counts_down_to_what_must_stay),
        cmocka_unit_test(shares_are_of_what_is_wanted_rounded_up),
        cmocka_unit_test(the_owners_budget_is_found_and_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
