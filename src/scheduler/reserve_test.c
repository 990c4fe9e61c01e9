/* Reservations: which nodes, for whom, until when. */
#include "queue_kit_test.h"
#include "scheduler/reserve.h"

#define HOUR (3600 * AT_NS_PER_S)
#define NOON (100000 * HOUR)

struct hold {
    struct world w;
    struct at_reservation r;
    struct at_reservation *list[1];
    struct at_snapshot snap;
};

static const char *team[] = {"team"};

static void hold_init(struct hold *h, int nodes)
{
    memset(h, 0, sizeof(*h));
    world_init(&h->w);
    (void)world_site(&h->w, "s", "onprem", "EU");
    for (int i = 0; i < nodes; i++) {
        char name[8];
        snprintf(name, sizeof(name), "n%d", i);
        (void)world_node(&h->w, name, "s", 4000, 8 * GIB);
    }
    h->r.meta.name = "rsv";
    h->r.spec.namespaces = (struct at_model_strings){team, 1};
    h->r.spec.count = 1;
    h->r.spec.evict = true;
    h->r.spec.from_wall_ns = NOON;
    h->r.spec.to_wall_ns = NOON + HOUR;
    h->list[0] = &h->r;
}

static struct at_reserve_plan look(struct hold *h, int64_t now)
{
    struct at_reserve_plan plan;
    h->snap = world_snapshot(&h->w);
    h->snap.reservations = (const struct at_reservation *const *)h->list;
    h->snap.n_reservations = 1;
    assert_int_equal(at_reserve_look(&h->snap, &h->r, now, h->w.arena, &plan), AT_OK);
    return plan;
}

static void settle(struct hold *h, int64_t now)
{
    struct at_reserve_plan plan = look(h, now);
    h->r.status.nodes = (struct at_model_strings){plan.nodes, plan.n_nodes};
}

/* Where the instance goes now; NULL: nowhere. */
static const char *where(struct hold *h, struct at_instance *i, int64_t now)
{
    size_t kept;
    const struct at_reservation *example;
    struct at_sched_plan plan;
    (void)look(h, now);
    struct at_reserve *v = at_reserve_new(&h->snap, now, h->w.arena);
    const struct at_instance *seen = at_reserve_narrow(v, i, &kept, &example);
    assert_non_null(seen);
    assert_true((kept > 0) == (example != NULL) || h->r.spec.resources != NULL);
    assert_int_equal(at_schedule(&h->snap, &seen, 1, now, h->w.arena, &plan), AT_OK);
    at_reserve_done(v);
    return plan.decisions[0].node != NULL ? plan.decisions[0].node->meta.name : NULL;
}

static void nodes_are_chosen_once_and_those_with_less_in_the_way_first(void **state)
{
    (void)state;
    struct hold h;
    hold_init(&h, 3);
    world_bind(world_instance(&h.w, "a", NULL, 1000), "n0", 1);
    struct at_reserve_plan plan = look(&h, NOON - HOUR);
    assert_int_equal(plan.phase, AT_RESERVE_SCHEDULED);
    assert_int_equal(plan.n_nodes, 1);
    assert_string_equal(plan.nodes[0], "n1");
    assert_int_equal(plan.next_wall_ns, NOON);
    settle(&h, NOON - HOUR);
    world_bind(world_instance(&h.w, "b", NULL, 1000), "n1", 2);
    plan = look(&h, NOON - HOUR);
    assert_string_equal(plan.nodes[0], "n1"); /* it stays */
    h.r.spec.count = 4;
    plan = look(&h, NOON - HOUR);
    assert_int_equal(plan.phase, AT_RESERVE_PENDING);
    assert_string_equal(plan.message, "3 of 4 nodes that match are there");
    world_done(&h.w);
}

static void others_keep_off_unless_they_end_before_it_begins(void **state)
{
    (void)state;
    struct hold h;
    hold_init(&h, 1);
    settle(&h, NOON - HOUR);
    struct at_instance *i = world_instance(&h.w, "other", NULL, 1000);
    assert_null(where(&h, i, NOON - HOUR)); /* nobody knows when it ends */
    i->spec.expected_duration_ns = HOUR;
    assert_string_equal(where(&h, i, NOON - HOUR), "n0"); /* back-fill */
    i->spec.expected_duration_ns = HOUR + 1;
    assert_null(where(&h, i, NOON - HOUR));
    assert_null(where(&h, i, NOON));
    assert_string_equal(where(&h, i, NOON + HOUR), "n0"); /* it is over */
    i->spec.expected_duration_ns = 0;
    i->meta.ns = "team";
    assert_string_equal(where(&h, i, NOON), "n0");
    world_done(&h.w);
}

static void those_it_is_for_are_drawn_to_it(void **state)
{
    (void)state;
    struct hold h;
    hold_init(&h, 4);
    settle(&h, NOON);
    h.r.status.nodes.items[0] = "n3";
    struct at_instance *i = world_instance(&h.w, "own", NULL, 1000);
    i->meta.ns = "team";
    assert_string_equal(where(&h, i, NOON), "n3");
    world_done(&h.w);
}

static void at_the_start_who_is_in_the_way_ends_within_budgets(void **state)
{
    (void)state;
    struct hold h;
    hold_init(&h, 1);
    world_bind(world_instance(&h.w, "other", NULL, 1000), "n0", 1);
    struct at_instance *own = world_instance(&h.w, "own", NULL, 1000);
    own->meta.ns = "team";
    world_bind(own, "n0", 2);
    settle(&h, NOON - HOUR);
    assert_int_equal(look(&h, NOON - 1).n_victims, 0);
    struct at_reserve_plan plan = look(&h, NOON);
    assert_int_equal(plan.phase, AT_RESERVE_ACTIVE);
    assert_int_equal(plan.n_victims, 1);
    assert_string_equal(plan.victims[0]->meta.name, "other");
    assert_int_equal(plan.instances, 1);
    h.r.spec.evict = false;
    assert_int_equal(look(&h, NOON).n_victims, 0);
    assert_int_equal(look(&h, NOON + HOUR).phase, AT_RESERVE_EXPIRED);
    world_done(&h.w);
}

static void part_of_a_node_can_be_held(void **state)
{
    (void)state;
    static struct at_resources three = {.cpu_milli = 3000};
    struct hold h;
    hold_init(&h, 1);
    h.r.spec.resources = &three;
    settle(&h, NOON);
    struct at_instance *i = world_instance(&h.w, "other", NULL, 1000);
    assert_string_equal(where(&h, i, NOON), "n0"); /* 4 - 3 */
    wants(i)->cpu_milli = 1001;
    assert_null(where(&h, i, NOON));
    struct at_instance *own = world_instance(&h.w, "own", NULL, 2000);
    own->meta.ns = "team";
    assert_string_equal(where(&h, own, NOON), "n0");
    world_bind(own, "n0", 1); /* 1 of the 3 is still held */
    assert_null(where(&h, i, NOON));
    wants(i)->cpu_milli = 1000;
    assert_string_equal(where(&h, i, NOON), "n0");
    world_bind(i, "n0", 2);
    wants(i)->cpu_milli = 1500;
    assert_int_equal(look(&h, NOON).n_victims, 1);
    /* Two of one pass do not both get what is left for one. */
    size_t kept[2];
    const struct at_reservation *example;
    i->spec.node_name = NULL;
    wants(i)->cpu_milli = 600;
    (void)look(&h, NOON);
    struct at_reserve *v = at_reserve_new(&h.snap, NOON, h.w.arena);
    assert_non_null(at_reserve_narrow(v, i, &kept[0], &example));
    assert_non_null(at_reserve_narrow(v, i, &kept[1], &example));
    assert_int_equal(kept[0], 0);
    assert_int_equal(kept[1], 1);
    at_reserve_done(v);
    world_done(&h.w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_are_chosen_once_and_those_with_less_in_the_way_first),
        cmocka_unit_test(others_keep_off_unless_they_end_before_it_begins),
        cmocka_unit_test(those_it_is_for_are_drawn_to_it),
        cmocka_unit_test(at_the_start_who_is_in_the_way_ends_within_budgets),
        cmocka_unit_test(part_of_a_node_can_be_held),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
