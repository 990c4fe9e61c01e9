/* Who has to go, who may not be made to go, and gangs. */
#include "world_test.h"

#include "scheduler/engine.h"

#define S_NS INT64_C(1000000000)

/* A running instance of priority on node. */
static struct at_instance *runs(struct world *w, const char *name, const char *owner,
                                const char *node, int64_t cpu_milli, int64_t priority)
{
    struct at_instance *i = world_instance(w, name, owner, cpu_milli);
    i->spec.priority = priority;
    world_bind(i, node, 1);
    i->status.started_at_wall_ns = 1 * S_NS;
    i->status.ready = true;
    return i;
}

static struct at_instance *asks(struct world *w, const char *name, int64_t cpu_milli,
                                int64_t priority)
{
    struct at_instance *i = world_instance(w, name, NULL, cpu_milli);
    i->spec.priority = priority;
    return i;
}

static void two_nodes(struct world *w)
{
    world_init(w);
    world_site(w, "s", "edge", "EU");
    world_node(w, "n1", "s", 4000, 8 * GIB);
    world_node(w, "n2", "s", 4000, 8 * GIB);
}

static void expect_victims(const struct world *w, const char *name, const char *node,
                           const char *first, const char *second)
{
    const struct at_sched_decision *d = world_decision(w, name);
    assert_null(d->node);
    assert_non_null(d->nominated);
    assert_string_equal(d->nominated->meta.name, node);
    assert_int_equal(d->n_victims, first == NULL ? 0 : second == NULL ? 1 : 2);
    for (size_t k = 0; k < d->n_victims; k++) {
        bool known =
            at_streq(d->victims[k]->meta.name, first) || at_streq(d->victims[k]->meta.name, second);
        assert_true(known);
    }
}

static void the_lowest_priority_goes_first(void **state)
{
    (void)state;
    struct world w;
    two_nodes(&w);
    runs(&w, "a", NULL, "n1", 4000, 5);
    runs(&w, "b1", NULL, "n2", 2000, 1);
    runs(&w, "b2", NULL, "n2", 2000, 1);
    asks(&w, "x", 4000, 10); /* two of priority 1 are cheaper than one of priority 5 */
    world_schedule(&w);
    expect_victims(&w, "x", "n2", "b1", "b2");
    world_done(&w);
}

static void the_fewest_go(void **state)
{
    (void)state;
    struct world w;
    two_nodes(&w);
    runs(&w, "a1", NULL, "n1", 1000, 1);
    runs(&w, "a2", NULL, "n1", 1000, 1);
    runs(&w, "a3", NULL, "n1", 2000, 1);
    runs(&w, "b1", NULL, "n2", 1000, 1);
    runs(&w, "b2", NULL, "n2", 3000, 1);
    asks(&w, "x", 2000, 10);
    world_schedule(&w);
    expect_victims(&w, "x", "n1", "a3", NULL);
    world_done(&w);
}

static void the_least_running_time_is_lost(void **state)
{
    (void)state;
    struct world w;
    two_nodes(&w);
    runs(&w, "old", NULL, "n1", 4000, 1);
    runs(&w, "young", NULL, "n2", 4000, 1)->status.started_at_wall_ns = 90 * S_NS;
    asks(&w, "x", 4000, 10);
    struct at_snapshot snap = world_snapshot(&w);
    const struct at_instance *pending[] = {w.instances[2]};
    assert_int_equal(at_schedule(&snap, pending, 1, 100 * S_NS, w.arena, &w.plan), AT_OK);
    expect_victims(&w, "x", "n2", "young", NULL);
    world_done(&w);
}

static void nobody_of_the_same_priority_goes_nor_for_one_that_says_never(void **state)
{
    (void)state;
    struct world w;
    two_nodes(&w);
    runs(&w, "a", NULL, "n1", 4000, 1);
    runs(&w, "b", NULL, "n2", 4000, 1);
    asks(&w, "x", 4000, 1);
    asks(&w, "y", 4000, 10)->spec.preemption_policy = "Never";
    world_schedule(&w);
    assert_null(world_decision(&w, "x")->nominated);
    assert_null(world_decision(&w, "y")->nominated);
    world_done(&w);
}

static void a_disruption_budget_is_never_passed(void **state)
{
    (void)state;
    struct world w;
    two_nodes(&w);
    runs(&w, "a", "web", "n1", 4000, 1);
    runs(&w, "b", "web", "n2", 4000, 1);
    asks(&w, "x", 4000, 10);
    asks(&w, "y", 4000, 9);
    struct at_disruption budget = {.max_unavailable = "1"};
    struct at_deployment d = {.meta = {.name = "web", .ns = "default", .uid = "uid"},
                              .spec = {.replicas = 2, .disruption = &budget}};
    const struct at_deployment *deployments[] = {&d};
    struct at_snapshot snap = world_snapshot(&w);
    snap.deployments = deployments;
    snap.n_deployments = 1;
    const struct at_instance *pending[] = {w.instances[2], w.instances[3]};
    assert_int_equal(at_schedule(&snap, pending, 2, 0, w.arena, &w.plan), AT_OK);
    expect_victims(&w, "x", "n1", "a", NULL);
    assert_null(world_decision(&w, "y")->nominated); /* the second may not go now */
    world_done(&w);
}

static void the_room_made_is_for_nobody_else(void **state)
{
    (void)state;
    struct world w;
    two_nodes(&w);
    struct at_instance *victim = runs(&w, "a", NULL, "n1", 4000, 1);
    runs(&w, "b", NULL, "n2", 4000, 20);
    asks(&w, "x", 4000, 10);
    struct at_scheduler *kept = at_scheduler_new();
    struct at_snapshot snap = world_snapshot(&w);
    at_scheduler_update(kept, &snap);
    assert_int_equal(at_scheduler_plan(kept, 9, 0, w.arena, &w.plan), AT_OK);
    expect_victims(&w, "x", "n1", "a", NULL);
    victim->meta.deletion_wall_ns = 1; /* told, and ending */
    asks(&w, "y", 1000, 5);
    at_scheduler_changed(kept, &AT_KIND_INSTANCE, "default", "a");
    at_scheduler_changed(kept, &AT_KIND_INSTANCE, "default", "y");
    snap = world_snapshot(&w);
    at_scheduler_update(kept, &snap);
    assert_int_equal(at_scheduler_plan(kept, 9, 0, w.arena, &w.plan), AT_OK);
    assert_null(world_decision(&w, "y")->node);
    expect_victims(&w, "x", "n1", NULL, NULL); /* nobody more has to go */
    memmove(w.instances, w.instances + 1, sizeof w.instances[0] * --w.n_instances);
    at_scheduler_changed(kept, &AT_KIND_INSTANCE, "default", "a");
    snap = world_snapshot(&w);
    at_scheduler_update(kept, &snap);
    assert_int_equal(at_scheduler_plan(kept, 9, 0, w.arena, &w.plan), AT_OK);
    assert_string_equal(world_where(&w, "x"), "n1");
    at_scheduler_free(kept);
    world_done(&w);
}

/* --- gangs --- */

static void gang_of(struct world *w, const char *prefix, int n, int64_t size, int64_t cpu_milli,
                    int64_t created)
{
    for (int k = 0; k < n; k++) {
        char name[24];
        snprintf(name, sizeof name, "%s%d", prefix, k);
        struct at_instance *i = world_instance(w, name, NULL, cpu_milli);
        struct at_gang *gang = WORLD_NEW(w, struct at_gang);
        *gang = (struct at_gang){.name = prefix, .size = size};
        i->spec.gang = gang;
        i->meta.creation_wall_ns = created;
    }
}

/* --- gangs as victims --- */

/* Two nodes of 4 cores: a gang of two over both, ready, of one owner (NULL: none). */
static void a_gang_over_both(struct world *w, const char *owner, int64_t second_priority)
{
    two_nodes(w);
    for (int k = 0; k < 2; k++) {
        struct at_instance *i = runs(w, k == 0 ? "g0" : "g1", owner, k == 0 ? "n1" : "n2", 4000, 1);
        struct at_gang *gang = WORLD_NEW(w, struct at_gang);
        *gang = (struct at_gang){.name = "g", .size = 2};
        i->spec.gang = gang;
        i->spec.priority = k == 0 ? 1 : second_priority;
    }
}

static void schedule_with_budget(struct world *w, const char *max_unavailable, size_t pending_at)
{
    struct at_disruption budget = {.max_unavailable = max_unavailable};
    struct at_deployment d = {.meta = {.name = "web", .ns = "default", .uid = "uid"},
                              .spec = {.replicas = 2, .disruption = &budget}};
    const struct at_deployment *deployments[] = {&d};
    struct at_snapshot snap = world_snapshot(w);
    snap.deployments = deployments;
    snap.n_deployments = 1;
    const struct at_instance *pending[] = {w->instances[pending_at]};
    assert_int_equal(at_schedule(&snap, pending, 1, 0, w->arena, &w->plan), AT_OK);
}

static void a_gang_goes_as_a_whole(void **state)
{
    (void)state;
    struct world w;
    a_gang_over_both(&w, NULL, 1);
    asks(&w, "x", 4000, 10);
    world_schedule(&w);
    expect_victims(&w, "x", "n1", "g0", "g1");
    world_done(&w);
}

/* The member on the other node counts in the budget just as the one that is in the way. */
static void a_gangs_other_members_do_not_pass_a_budget(void **state)
{
    (void)state;
    struct world w;
    a_gang_over_both(&w, "web", 1);
    asks(&w, "x", 4000, 10);
    schedule_with_budget(&w, "1", 2); /* one may go, but not both */
    assert_null(world_decision(&w, "x")->nominated);
    schedule_with_budget(&w, "2", 2);
    expect_victims(&w, "x", "n1", "g0", "g1");
    w.instances[1]->status.ready = false; /* away already: it costs nothing, but none is left */
    schedule_with_budget(&w, "1", 2);
    assert_null(world_decision(&w, "x")->nominated);
    schedule_with_budget(&w, "2", 2);
    expect_victims(&w, "x", "n1", "g0", "g1");
    world_done(&w);
}

static void a_member_that_is_worth_more_protects_its_gang(void **state)
{
    (void)state;
    struct world w;
    a_gang_over_both(&w, NULL, 10);
    asks(&w, "x", 4000, 10);
    world_schedule(&w);
    assert_null(world_decision(&w, "x")->nominated);
    world_done(&w);
}

/* One on the node, but four in all. */
static void a_gang_counts_with_all_its_members(void **state)
{
    (void)state;
    struct world w;
    two_nodes(&w);
    world_node(&w, "n3", "s", 16000, 8 * GIB);
    for (int k = 0; k < 4; k++) {
        char name[8];
        snprintf(name, sizeof name, "g%d", k);
        struct at_instance *i = runs(&w, name, NULL, k == 0 ? "n1" : "n3", 4000, 1);
        struct at_gang *gang = WORLD_NEW(&w, struct at_gang);
        *gang = (struct at_gang){.name = "g", .size = 4};
        i->spec.gang = gang;
    }
    runs(&w, "top", NULL, "n3", 4000, 99);
    runs(&w, "b1", NULL, "n2", 2000, 1);
    runs(&w, "b2", NULL, "n2", 2000, 1);
    asks(&w, "x", 4000, 10);
    world_schedule(&w);
    expect_victims(&w, "x", "n2", "b1", "b2");
    world_done(&w);
}

static size_t count_placed(const struct world *w, const char *prefix)
{
    size_t n = 0;
    for (size_t k = 0; k < w->plan.n; k++) {
        n += w->plan.decisions[k].node != NULL &&
             strncmp(w->plan.decisions[k].instance->meta.name, prefix, strlen(prefix)) == 0;
    }
    return n;
}

static void a_gang_is_placed_whole_or_not_at_all(void **state)
{
    (void)state;
    struct world w;
    two_nodes(&w);
    gang_of(&w, "g", 5, 5, 2000, 1); /* there is room for four */
    gang_of(&w, "h", 2, 2, 2000, 2);
    world_schedule(&w);
    assert_int_equal(count_placed(&w, "g"), 0);
    assert_int_equal(count_placed(&w, "h"), 2);
    assert_int_equal(world_decision(&w, "g0")->refused[AT_SCHED_GANG] > 0, true);
    assert_non_null(strstr(world_decision(&w, "g0")->message, "room for 4 of 5"));
    world_done(&w);
}

static void a_gang_larger_than_all_nodes_is_told_at_once(void **state)
{
    (void)state;
    struct world w;
    two_nodes(&w);
    runs(&w, "a", NULL, "n1", 4000, 20);
    gang_of(&w, "g", 3, 3, 3000, 1); /* one a node */
    gang_of(&w, "h", 2, 2, 3000, 2); /* when a has gone */
    world_schedule(&w);
    assert_true(world_decision(&w, "g0")->never);
    assert_string_equal(world_decision(&w, "g2")->nearest,
                        "all nodes together hold 2 of 3, even empty");
    assert_false(world_decision(&w, "h0")->never);
    world_done(&w);
}

static void a_gang_waits_for_its_members(void **state)
{
    (void)state;
    struct world w;
    two_nodes(&w);
    gang_of(&w, "g", 2, 3, 1000, 1);
    world_schedule(&w);
    assert_int_equal(count_placed(&w, "g"), 0);
    assert_string_equal(world_decision(&w, "g0")->message, "gang g: 2 of 3 members are there");
    world_done(&w);
}

/* Two of three were bound when the server died. */
static void a_half_bound_gang_is_completed(void **state)
{
    (void)state;
    struct world w;
    two_nodes(&w);
    gang_of(&w, "g", 3, 3, 2000, 1);
    world_bind(w.instances[0], "n1", 1);
    world_bind(w.instances[1], "n1", 1);
    world_schedule(&w);
    assert_int_equal(count_placed(&w, "g"), 1);
    assert_int_equal(w.plan.n_released, 0);
    world_done(&w);
}

static void a_half_bound_gang_without_room_is_given_up_after_a_while(void **state)
{
    (void)state;
    struct world w;
    two_nodes(&w);
    gang_of(&w, "g", 3, 3, 3000, 1);
    world_bind(w.instances[0], "n1", 1 * S_NS);
    world_bind(w.instances[1], "n2", 1 * S_NS);
    struct at_snapshot snap = world_snapshot(&w);
    const struct at_instance *pending[] = {w.instances[2]};
    assert_int_equal(at_schedule(&snap, pending, 1, 2 * S_NS, w.arena, &w.plan), AT_OK);
    assert_int_equal(w.plan.n_released, 0); /* it may still work out */
    assert_int_equal(at_schedule(&snap, pending, 1, 20 * S_NS, w.arena, &w.plan), AT_OK);
    assert_int_equal(w.plan.n_released, 2);
    assert_null(w.plan.decisions[0].node);
    world_done(&w);
}

/* Small ones come for ever; the gang gets its turn. */
static void small_jobs_cannot_starve_a_waiting_gang(void **state)
{
    (void)state;
    struct world w;
    two_nodes(&w);
    struct at_scheduler *kept = at_scheduler_new();
    gang_of(&w, "z", 2, 2, 4000, 1 * S_NS);
    runs(&w, "a0", NULL, "n1", 1000, 0);
    runs(&w, "a1", NULL, "n2", 1000, 0);
    bool whole = false;
    for (int step = 0; step < 40 && !whole; step++) { /* every 5 s one comes, each runs for 20 s */
        char name[16];
        snprintf(name, sizeof name, "b%02d", step);
        world_instance(&w, name, NULL, 1000)->meta.creation_wall_ns = (2 + 5 * step) * S_NS;
        at_scheduler_changed(kept, &AT_KIND_INSTANCE, "default", name);
        for (size_t k = 0; k < w.n_instances; k++) {
            struct at_instance *i = w.instances[k];
            int64_t since = i->status.scheduled_at_wall_ns;
            if (i->spec.node_name != NULL && (5 * step) * S_NS - since >= 20 * S_NS) {
                i->status.phase = "Succeeded";
                at_scheduler_changed(kept, &AT_KIND_INSTANCE, "default", i->meta.name);
            }
        }
        for (size_t k = 1; k < w.n_instances; k++) { /* by name */
            for (size_t j = k;
                 j > 0 && strcmp(w.instances[j - 1]->meta.name, w.instances[j]->meta.name) > 0;
                 j--) {
                struct at_instance *t = w.instances[j];
                w.instances[j] = w.instances[j - 1];
                w.instances[j - 1] = t;
            }
        }
        struct at_snapshot snap = world_snapshot(&w);
        at_scheduler_update(kept, &snap);
        assert_int_equal(at_scheduler_plan(kept, 99, (5 * step) * S_NS, w.arena, &w.plan), AT_OK);
        for (size_t k = 0; k < w.plan.n; k++) {
            const struct at_sched_decision *d = &w.plan.decisions[k];
            if (d->node != NULL) {
                world_bind((struct at_instance *)d->instance, d->node->meta.name,
                           (5 * step) * S_NS);
                at_scheduler_changed(kept, &AT_KIND_INSTANCE, "default", d->instance->meta.name);
            }
        }
        whole = count_placed(&w, "z") == 2;
    }
    assert_true(whole);
    at_scheduler_free(kept);
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_lowest_priority_goes_first),
        cmocka_unit_test(the_fewest_go),
        cmocka_unit_test(the_least_running_time_is_lost),
        cmocka_unit_test(nobody_of_the_same_priority_goes_nor_for_one_that_says_never),
        cmocka_unit_test(a_disruption_budget_is_never_passed),
        cmocka_unit_test(the_room_made_is_for_nobody_else),
        cmocka_unit_test(a_gang_goes_as_a_whole),
        cmocka_unit_test(a_gangs_other_members_do_not_pass_a_budget),
        cmocka_unit_test(a_member_that_is_worth_more_protects_its_gang),
        cmocka_unit_test(a_gang_counts_with_all_its_members),
        cmocka_unit_test(a_gang_is_placed_whole_or_not_at_all),
        cmocka_unit_test(a_gang_larger_than_all_nodes_is_told_at_once),
        cmocka_unit_test(a_gang_waits_for_its_members),
        cmocka_unit_test(a_half_bound_gang_is_completed),
        cmocka_unit_test(a_half_bound_gang_without_room_is_given_up_after_a_while),
        cmocka_unit_test(small_jobs_cannot_starve_a_waiting_gang),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
