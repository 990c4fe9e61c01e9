/* Queues: what is admitted, held and taken back. */
#include "queue_kit_test.h"

#define SAYS(k, name, text) assert_string_equal(kit_verdict((k), (name))->message, (text))

static void two_teams(struct kit *k)
{
    kit_init(k);
    kit_owns(k, kit_queue(k, "team-a", "research"), "gpu", "4", NULL, NULL);
    kit_owns(k, kit_queue(k, "team-b", "research"), "gpu", "4", NULL, NULL);
}

static void a_queue_admits_what_it_owns_and_says_what_is_missing(void **state)
{
    (void)state;
    struct kit k;
    kit_init(&k);
    kit_owns(&k, kit_queue(&k, "solo", NULL), "gpu", "4", NULL, NULL);
    (void)kit_runs(&k, "solo", "old", 3);
    (void)kit_wants(&k, "solo", "two", 2, 0);
    (void)kit_wants(&k, "solo", "one", 1, 0);
    (void)kit_wants(&k, "solo", "huge", 5, 0);
    (void)kit_wants(&k, NULL, "free", 9, 0);
    (void)kit_wants(&k, "nobody", "lost", 1, 0);
    kit_decide(&k);
    assert_true(kit_admitted(&k, "one"));
    assert_true(kit_admitted(&k, "free"));
    SAYS(&k, "two", "queue solo: 3 of 4 GPUs used, 2 wanted, it has no cohort to borrow from");
    SAYS(&k, "huge", "queue solo: 5 GPUs wanted, it can never have more than 4");
    SAYS(&k, "lost", "queue nobody does not exist");
    assert_int_equal(kit_verdict(&k, "huge")->reason, AT_QUEUE_NEVER);
    assert_int_equal(kit_verdict(&k, "two")->lack.wanted, 2000);
    assert_int_equal(k.plan.n_placeable, 2);
    kit_done(&k);
}

static void a_cohort_lends_what_is_not_used(void **state)
{
    (void)state;
    struct kit k;
    two_teams(&k);
    (void)kit_runs(&k, "team-b", "b1", 2);
    (void)kit_runs(&k, "team-a", "a1", 3);
    (void)kit_wants(&k, "team-a", "a2", 3, 0);
    (void)kit_wants(&k, "team-a", "a3", 2, 0);
    kit_decide(&k);
    assert_true(kit_admitted(&k, "a2"));
    SAYS(&k, "a3",
         "queue team-a: 6 of 4 GPUs used, 2 wanted, nothing to borrow in cohort research");
    kit_done(&k);
}

static void borrowing_and_lending_limits_hold(void **state)
{
    (void)state;
    struct kit k;
    kit_init(&k);
    kit_owns(&k, kit_queue(&k, "a", "c"), "gpu", "2", "1", NULL);
    kit_owns(&k, kit_queue(&k, "b", "c"), "gpu", "6", NULL, "3");
    kit_owns(&k, kit_queue(&k, "z", "c"), "gpu", "0", NULL, NULL);
    (void)kit_runs(&k, "a", "a1", 2);
    (void)kit_wants(&k, "a", "a2", 2, 0);
    (void)kit_wants(&k, "z", "z1", 4, 0);
    (void)kit_wants(&k, "z", "z2", 3, 0);
    kit_decide(&k);
    SAYS(&k, "a2", "queue a: 2 of 2 GPUs used, 2 wanted, its borrowing limit is 1 GPU");
    assert_true(kit_verdict(&k, "a2")->lack.at_limit);
    assert_false(kit_admitted(&k, "z1")); /* b lends 3 only */
    assert_true(kit_admitted(&k, "z2"));
    (void)kit_runs(&k, "b", "b1", 3); /* what it keeps is still there */
    kit_decide(&k);
    assert_true(kit_admitted(&k, "z2"));
    kit_done(&k);
}

static void an_owner_takes_back_from_the_newest_borrower_of_least_priority(void **state)
{
    (void)state;
    struct kit k;
    two_teams(&k);
    kit_runs(&k, "team-b", "b-old", 2);
    kit_runs(&k, "team-b", "b-high", 2)->spec.priority = 5;
    kit_runs(&k, "team-b", "b-mid", 2);
    kit_runs(&k, "team-b", "b-new", 2);
    (void)kit_wants(&k, "team-a", "a1", 2, 0);
    (void)kit_wants(&k, "team-a", "a2", 1, 0);
    kit_decide(&k);
    assert_int_equal(k.plan.n_victims, 1);
    assert_true(kit_victim(&k, "b-new"));
    assert_string_equal(k.plan.victims[0].message,
                        "queue team-a takes back for default/a1 what it lent to queue team-b");
    assert_int_equal(kit_verdict(&k, "a1")->reason, AT_QUEUE_RECLAIMING);
    SAYS(&k, "a1",
         "queue team-a: 0 of 4 GPUs used, 2 wanted, the rest is lent in cohort research; making "
         "room by ending 1 instance");
    /* While it ends, nobody else is ended and nobody else gets what is freed. */
    for (size_t i = 0; i < k.n_instances; i++) {
        k.instances[i]->meta.deletion_wall_ns = at_streq(k.instances[i]->meta.name, "b-new");
    }
    (void)kit_wants(&k, "team-b", "b-again", 1, 0);
    kit_decide(&k);
    assert_int_equal(kit_verdict(&k, "a1")->reason, AT_QUEUE_RECLAIMING);
    assert_int_equal(kit_verdict(&k, "b-again")->reason, AT_QUEUE_EXHAUSTED);
    assert_false(kit_victim(&k, "b-new"));
    kit_done(&k);
}

static void nobody_within_what_it_owns_is_displaced(void **state)
{
    (void)state;
    struct kit k;
    two_teams(&k);
    (void)kit_runs(&k, "team-b", "b1", 4);
    (void)kit_runs(&k, "team-a", "a1", 4);
    kit_wants(&k, "team-a", "a2", 1, 0)->spec.priority = 0;
    kit_decide(&k);
    assert_int_equal(k.plan.n_victims, 0);
    kit_wants(&k, "team-a", "a3", 1, 0)->spec.priority = 9; /* displaces its own only */
    kit_decide(&k);
    assert_int_equal(k.plan.n_victims, 1);
    assert_true(kit_victim(&k, "a1"));
    kit_done(&k);
}

static void disruption_budgets_stand_above_owners(void **state)
{
    (void)state;
    static struct at_disruption all_stay = {.max_unavailable = "0"};
    static struct at_owner_ref owner = {"atoll.dev/v1", "Deployment", "d", "uid-d", true, true};
    struct kit k;
    two_teams(&k);
    struct at_deployment *d = kit_alloc(&k, sizeof(*d));
    *d = (struct at_deployment){.meta = {.name = "d", .ns = "default", .uid = "uid-d"},
                                .spec = {.replicas = 2, .disruption = &all_stay}};
    k.deployments[k.n_deployments++] = d;
    for (int i = 0; i < 2; i++) {
        struct at_instance *x = kit_runs(&k, "team-b", i == 0 ? "b1" : "b2", 4);
        x->meta.owners.items = &owner;
        x->meta.owners.n = 1;
    }
    (void)kit_wants(&k, "team-a", "a1", 2, 0);
    kit_decide(&k);
    assert_int_equal(k.plan.n_victims, 0);
    assert_int_equal(kit_verdict(&k, "a1")->reason, AT_QUEUE_EXHAUSTED);
    all_stay.max_unavailable = "1";
    kit_decide(&k);
    assert_int_equal(k.plan.n_victims, 1);
    kit_done(&k);
}

static void preemption_policies_are_obeyed(void **state)
{
    (void)state;
    struct kit k;
    two_teams(&k);
    struct at_queue_preemption p = {"Never", "LowerPriority", "Never"};
    k.queues[0]->spec.preemption = &p;
    kit_runs(&k, "team-b", "b1", 8)->spec.priority = 3;
    struct at_instance *a = kit_wants(&k, "team-a", "a1", 1, 0);
    kit_decide(&k);
    assert_int_equal(k.plan.n_victims, 0);
    a->spec.priority = 4;
    kit_decide(&k);
    assert_int_equal(k.plan.n_victims, 1);
    p.reclaim = "Never";
    kit_decide(&k);
    assert_int_equal(k.plan.n_victims, 0);
    kit_done(&k);
}

static void borrowers_share_by_weight_and_take_no_more_than_that_from_each_other(void **state)
{
    (void)state;
    struct kit k;
    kit_init(&k);
    kit_owns(&k, kit_queue(&k, "pool", NULL), "gpu", "12", NULL, NULL);
    kit_owns(&k, kit_queue(&k, "x", "pool"), "gpu", "0", NULL, NULL);
    struct at_queue *y = kit_queue(&k, "y", "pool");
    kit_owns(&k, y, "gpu", "0", NULL, NULL);
    y->spec.weight = 2;
    char name[16];
    for (int i = 0; i < 12; i++) {
        snprintf(name, sizeof(name), "x%02d", i);
        (void)kit_runs(&k, "x", name, 1);
    }
    /* y comes late; its share is 8 of 12. One is taken over after the other. */
    for (int round = 0; round < 40; round++) {
        snprintf(name, sizeof(name), "y%02d", round);
        (void)kit_wants(&k, "y", name, 1, 0);
        kit_decide(&k);
        for (size_t i = 0; i < k.n_instances;) {
            if (kit_victim(&k, k.instances[i]->meta.name)) {
                k.instances[i] = k.instances[--k.n_instances];
            } else {
                i++;
            }
        }
        for (size_t i = 0; i < k.n_instances; i++) {
            if (k.instances[i]->spec.node_name == NULL &&
                kit_admitted(&k, k.instances[i]->meta.name)) {
                kit_bind(&k, k.instances[i]);
            }
        }
    }
    kit_decide(&k);
    size_t xs = 0;
    size_t ys = 0;
    for (size_t i = 0; i < k.n_instances; i++) {
        bool bound = k.instances[i]->spec.node_name != NULL;
        xs += bound && k.instances[i]->spec.queue[0] == 'x';
        ys += bound && k.instances[i]->spec.queue[0] == 'y';
    }
    assert_int_equal(xs, 4);
    assert_int_equal(ys, 8);
    assert_int_equal(k.plan.n_victims, 0); /* and there it stays */
    kit_done(&k);
}

static void a_gang_is_admitted_whole_or_not_at_all(void **state)
{
    (void)state;
    static struct at_gang gang = {.name = "g", .size = 3};
    struct kit k;
    kit_init(&k);
    kit_owns(&k, kit_queue(&k, "q", NULL), "gpu", "4", NULL, NULL);
    (void)kit_runs(&k, "q", "old", 2);
    for (int i = 0; i < 3; i++) {
        char name[8];
        snprintf(name, sizeof(name), "g%d", i);
        kit_wants(&k, "q", name, 1, 0)->spec.gang = &gang;
    }
    (void)kit_wants(&k, "q", "small", 1, 0);
    kit_decide(&k);
    assert_false(kit_admitted(&k, "g0"));
    assert_false(kit_admitted(&k, "g2"));
    assert_true(kit_admitted(&k, "small"));
    k.instances[0]->status.phase = "Succeeded";
    for (size_t i = 0; i < k.n_instances; i++) {
        if (at_streq(k.instances[i]->meta.name, "old")) {
            k.instances[i]->status.phase = "Succeeded";
        }
    }
    kit_decide(&k);
    assert_true(kit_admitted(&k, "g0"));
    assert_true(kit_admitted(&k, "g1"));
    assert_true(kit_admitted(&k, "g2"));
    kit_done(&k);
}

static void order_is_priority_then_age_and_strict_queues_do_not_overtake(void **state)
{
    (void)state;
    struct kit k;
    kit_init(&k);
    struct at_queue *q = kit_queue(&k, "q", NULL);
    kit_owns(&k, q, "gpu", "4", NULL, NULL);
    (void)kit_wants(&k, "q", "late", 2, 0);
    (void)kit_wants(&k, "q", "big", 3, 0);
    kit_wants(&k, "q", "urgent", 2, 0)->spec.priority = 1;
    (void)kit_wants(&k, "q", "tail", 2, 0);
    kit_decide(&k);
    assert_true(kit_admitted(&k, "urgent"));
    assert_true(kit_admitted(&k, "late"));
    (void)kit_runs(&k, "q", "running", 2);
    kit_decide(&k); /* urgent takes the rest */
    assert_false(kit_admitted(&k, "late"));
    q->spec.ordering = "StrictFIFO";
    kit_decide(&k);
    assert_true(kit_admitted(&k, "urgent"));
    assert_int_equal(kit_verdict(&k, "late")->reason, AT_QUEUE_EXHAUSTED);
    SAYS(&k, "tail", "queue q: waits behind default/late (StrictFIFO)");
    kit_done(&k);
}

static void a_big_one_is_overtaken_only_for_so_long(void **state)
{
    (void)state;
    struct kit k;
    kit_init(&k);
    kit_owns(&k, kit_queue(&k, "q", NULL), "gpu", "4", NULL, NULL);
    (void)kit_runs(&k, "q", "running", 3);
    (void)kit_wants(&k, "q", "big", 4, 0);
    (void)kit_wants(&k, "q", "small", 1, 0);
    kit_decide(&k);
    assert_true(kit_admitted(&k, "small"));
    k.now += AT_QUEUE_PATIENCE_NS;
    kit_decide(&k);
    SAYS(&k, "small", "queue q: waits behind default/big, which has waited long");
    kit_done(&k);
}

static void quotas_for_places_keep_instances_there(void **state)
{
    (void)state;
    struct kit k;
    kit_init(&k);
    struct at_queue *q = kit_queue(&k, "q", NULL);
    (void)kit_quota(&k, q, "edge", NULL);
    kit_owns(&k, q, "gpu", "1", NULL, NULL);
    (void)kit_quota(&k, q, NULL, "T4");
    kit_owns(&k, q, "gpu", "2", NULL, NULL);
    (void)kit_wants(&k, "q", "i1", 1, 0);
    (void)kit_wants(&k, "q", "i2", 2, 0);
    struct at_instance *cloud = kit_wants(&k, "q", "i3", 1, 0);
    const char *sites[] = {"cloud"};
    const char *models[] = {"A10"};
    ((struct at_placement *)cloud->spec.placement)->sites = (struct at_model_strings){sites, 1};
    ((struct at_resources *)cloud->spec.resources)->gpu_models =
        (struct at_model_strings){models, 1};
    kit_decide(&k);
    assert_string_equal(kit_verdict(&k, "i1")->site, "edge");
    assert_string_equal(kit_verdict(&k, "i2")->gpu_model, "T4");
    const struct at_instance *narrow = at_queue_narrow(kit_verdict(&k, "i2"), k.arena);
    assert_string_equal(narrow->spec.resources->gpu_models.items[0], "T4");
    narrow = at_queue_narrow(kit_verdict(&k, "i1"), k.arena);
    assert_string_equal(narrow->spec.placement->sites.items[0], "edge");
    SAYS(&k, "i3", "queue q: no quota for where it may run");
    kit_done(&k);
}

static void a_tree_of_cohorts_lends_upwards(void **state)
{
    (void)state;
    struct kit k;
    kit_init(&k);
    kit_owns(&k, kit_queue(&k, "org", NULL), "gpu", "2", NULL, NULL);
    kit_owns(&k, kit_queue(&k, "left", "org"), "gpu", "0", "3", NULL); /* borrows 3 at most */
    kit_owns(&k, kit_queue(&k, "right", "org"), "gpu", "0", NULL, NULL);
    kit_owns(&k, kit_queue(&k, "l1", "left"), "gpu", "2", NULL, NULL);
    kit_owns(&k, kit_queue(&k, "r1", "right"), "gpu", "4", NULL, NULL);
    (void)kit_wants(&k, "l1", "six", 6, 0);
    (void)kit_wants(&k, "l1", "five", 5, 0);
    kit_decide(&k);
    assert_int_equal(kit_verdict(&k, "six")->reason, AT_QUEUE_NEVER);
    assert_true(kit_admitted(&k, "five")); /* 2 own, 3 from org and right */
    k.n_instances = 0;
    (void)kit_runs(&k, "l1", "l", 5);
    (void)kit_wants(&k, "r1", "r", 4, 0);
    kit_decide(&k);
    assert_true(kit_victim(&k, "l"));
    kit_done(&k);
}

static void queues_that_make_no_sense_admit_nothing(void **state)
{
    (void)state;
    struct kit k;
    kit_init(&k);
    (void)kit_queue(&k, "a", "b");
    (void)kit_queue(&k, "b", "a");
    struct at_queue *own = kit_queue(&k, "own", NULL);
    const char *room[] = {"elsewhere"};
    own->spec.namespaces = (struct at_model_strings){room, 1};
    struct at_queue *held = kit_queue(&k, "held", NULL);
    held->spec.stop_policy = "HoldAndDrain";
    kit_owns(&k, held, "gpu", "4", NULL, NULL);
    (void)kit_runs(&k, "held", "runs", 1);
    (void)kit_wants(&k, "a", "i1", 1, 0);
    (void)kit_wants(&k, "own", "i2", 1, 0);
    (void)kit_wants(&k, "held", "i3", 1, 0);
    kit_decide(&k);
    assert_int_equal(kit_verdict(&k, "i1")->reason, AT_QUEUE_LOOP);
    SAYS(&k, "i2", "namespace default may not use queue own");
    SAYS(&k, "i3", "queue held is stopped (stopPolicy)");
    assert_true(kit_victim(&k, "runs"));
    kit_done(&k);
}

static void a_namespace_names_the_queue_of_those_that_name_none(void **state)
{
    (void)state;
    struct kit k;
    kit_init(&k);
    struct at_model_kv label = {AT_QUEUE_LABEL, "q"};
    struct at_namespace *ns = kit_alloc(&k, sizeof(*ns));
    ns->meta.name = "default";
    ns->meta.labels = (struct at_model_map){&label, 1};
    k.namespaces[k.n_namespaces++] = ns;
    kit_owns(&k, kit_queue(&k, "q", NULL), "gpu", "1", NULL, NULL);
    (void)kit_wants(&k, NULL, "i1", 1, 0);
    (void)kit_wants(&k, "", "i2", 1, 0);
    kit_decide(&k);
    assert_string_equal(kit_verdict(&k, "i1")->queue, "q");
    assert_true(kit_admitted(&k, "i1"));
    assert_false(kit_admitted(&k, "i2"));
    kit_done(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_queue_admits_what_it_owns_and_says_what_is_missing),
        cmocka_unit_test(a_cohort_lends_what_is_not_used),
        cmocka_unit_test(borrowing_and_lending_limits_hold),
        cmocka_unit_test(an_owner_takes_back_from_the_newest_borrower_of_least_priority),
        cmocka_unit_test(nobody_within_what_it_owns_is_displaced),
        cmocka_unit_test(disruption_budgets_stand_above_owners),
        cmocka_unit_test(preemption_policies_are_obeyed),
        cmocka_unit_test(borrowers_share_by_weight_and_take_no_more_than_that_from_each_other),
        cmocka_unit_test(a_gang_is_admitted_whole_or_not_at_all),
        cmocka_unit_test(order_is_priority_then_age_and_strict_queues_do_not_overtake),
        cmocka_unit_test(a_big_one_is_overtaken_only_for_so_long),
        cmocka_unit_test(quotas_for_places_keep_instances_there),
        cmocka_unit_test(a_tree_of_cohorts_lends_upwards),
        cmocka_unit_test(queues_that_make_no_sense_admit_nothing),
        cmocka_unit_test(a_namespace_names_the_queue_of_those_that_name_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
