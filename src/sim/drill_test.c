/* A fleet of 1,000 nodes loses a site of 200. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "sim/drill.h"

static void everything_with_a_place_left_is_bound_again(void **state)
{
    (void)state;
    struct at_drill_options o = {
        .real = at_sys_real(), .seed = 1, .nodes = 1000, .deployments = 10, .replicas = 100};
    struct at_drill_result r = {0};
    struct at_err err = {0};
    if (at_drill_run(&o, &r, &err) != AT_OK) {
        fail_msg("%s", err.msg);
    }
    assert_int_equal(r.instances, 1000);
    assert_true(r.lost > 100);
    assert_int_equal(r.stuck, 100);
    assert_int_equal(r.bound_again, r.lost - r.stuck);
    assert_int_equal(r.over_committed, 0);
    assert_true(r.wait_s >= 2); /* so long a node may be silent */
    assert_true(r.wait_s < 15);
}

static void a_drill_of_nothing_is_refused(void **state)
{
    (void)state;
    struct at_drill_options o = {.nodes = 4, .deployments = 1, .replicas = 1};
    struct at_drill_result r = {0};
    struct at_err err = {0};
    assert_int_equal(at_drill_run(&o, &r, &err), AT_INVALID);
    o = (struct at_drill_options){.nodes = 10, .deployments = 10, .replicas = 10};
    assert_int_equal(at_drill_run(&o, &r, &err), AT_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_with_a_place_left_is_bound_again),
        cmocka_unit_test(a_drill_of_nothing_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
