/* Objectives that look at demand, data, models and balance: what each prefers, and by how much. */
#include "world_test.h"

struct trio {
    struct world w;
    struct at_site *a, *b, *c;
    struct at_instance *x;
    struct at_weights weights;
};

/* a - b: 10 ms, b - c: 20 ms; a node at each. */
static void trio_init(struct trio *t)
{
    static struct at_site_link to_b, to_c;
    *t = (struct trio){.weights = {0}};
    world_init(&t->w);
    t->a = world_site(&t->w, "a", "edge", "EU");
    t->b = world_site(&t->w, "b", "edge", "EU");
    t->c = world_site(&t->w, "c", "edge", "EU");
    to_b = (struct at_site_link){.site = "b", .latency_ns = 10 * AT_NS_PER_MS};
    to_c = (struct at_site_link){.site = "c", .latency_ns = 20 * AT_NS_PER_MS};
    t->a->spec.links.items = &to_b;
    t->a->spec.links.n = 1;
    t->b->spec.links.items = &to_c;
    t->b->spec.links.n = 1;
    world_node(&t->w, "na", "a", 4000, 8 * GIB);
    world_node(&t->w, "nb", "b", 4000, 8 * GIB);
    world_node(&t->w, "nc", "c", 4000, 8 * GIB);
    t->x = world_instance(&t->w, "x", NULL, 1000);
    places(t->x)->weights = &t->weights;
}

static const struct at_sched_decision *decide(struct trio *t)
{
    world_schedule(&t->w);
    return world_decision(&t->w, "x");
}

static void demand_of_several_sites_counts_by_weight(void **state)
{
    (void)state;
    struct trio t;
    trio_init(&t);
    t.weights.latency = 1;
    struct at_demand demand[] = {{.site = "a", .weight = 1}, {.site = "c", .weight = 3}};
    places(t.x)->demand.items = demand;
    places(t.x)->demand.n = 2;
    const struct at_sched_decision *d = decide(&t);
    assert_string_equal(d->node->meta.name, "nc");
    /* at c: 3 of 4 at home, 1 of 4 over 30 ms by b; at a the other way round */
    assert_int_equal(d->parts[AT_SCHED_OBJ_LATENCY], (3 * 1000 + 250) / 4);
    assert_string_equal(d->runner_up->meta.name, "na");
    assert_int_equal(d->runner_up_parts[AT_SCHED_OBJ_LATENCY], (1000 + 3 * 250) / 4);
    demand[0].weight = 9;
    assert_string_equal(decide(&t)->node->meta.name, "na");
    world_done(&t.w);
}

static void data_draws_to_where_it_is_cheap_and_quick_to_have(void **state)
{
    (void)state;
    struct trio t;
    trio_init(&t);
    t.weights.data = 1;
    struct at_site_link *ab = t.a->spec.links.items;
    ab->egress_per_gib_microusd = 100000; /* $0.10 */
    ab->bandwidth_mbps = 8000;
    struct at_data_item item = {
        .name = "set", .size_bytes = 60 * GIB, .sites = strings_of(&t.w, "a")};
    t.x->spec.data.items = &item;
    t.x->spec.data.n = 1;
    const struct at_sched_decision *d = decide(&t);
    assert_string_equal(d->node->meta.name, "na");
    assert_int_equal(d->parts[AT_SCHED_OBJ_DATA], 1000);
    /* to b: $6 is 60 times what is worth half: 16; 64 s of 60: 482 */
    assert_string_equal(d->runner_up->meta.name, "nb");
    assert_int_equal(d->runner_up_parts[AT_SCHED_OBJ_DATA], (16 + 482) / 2);
    item.sites = strings_of(&t.w, "nowhere"); /* cannot be brought at all: all alike */
    d = decide(&t);
    assert_int_equal(d->parts[AT_SCHED_OBJ_DATA], 0);
    assert_int_equal(d->runner_up_parts[AT_SCHED_OBJ_DATA], 0);
    t.x->spec.data.n = 0; /* and without data nothing is weighed */
    assert_int_equal(decide(&t)->weights[AT_SCHED_OBJ_DATA], 0);
    world_done(&t.w);
}

static void a_node_that_has_the_model_is_liked(void **state)
{
    (void)state;
    struct trio t;
    trio_init(&t);
    t.weights.data = 1;
    struct at_model_ref model = {.uri = "file:m", .digest = "sha256:1"};
    t.x->spec.model = &model;
    t.w.nodes[1]->status.models = strings_of(&t.w, "sha256:1");
    const struct at_sched_decision *d = decide(&t);
    assert_string_equal(d->node->meta.name, "nb");
    assert_int_equal(d->parts[AT_SCHED_OBJ_DATA], 1000);
    assert_int_equal(d->runner_up_parts[AT_SCHED_OBJ_DATA], 0);
    model.digest = "";
    assert_int_equal(decide(&t)->weights[AT_SCHED_OBJ_DATA], 0);
    world_done(&t.w);
}

static void balance_likes_what_is_used_up_alike(void **state)
{
    (void)state;
    struct trio t;
    trio_init(&t);
    t.weights.balance = 1;
    struct at_instance *old = world_instance(&t.w, "old", NULL, 0);
    wants(old)->memory_bytes = 4 * GIB; /* on nb half of the memory is gone, and no cpu */
    world_bind(old, "nb", 1);
    wants(t.x)->cpu_milli = 2000;
    const struct at_sched_decision *d = decide(&t);
    assert_string_equal(d->node->meta.name, "nb");
    assert_int_equal(d->parts[AT_SCHED_OBJ_BALANCE], 1000);
    assert_int_equal(d->runner_up_parts[AT_SCHED_OBJ_BALANCE], 500);
    world_gpus(&t.w, t.w.nodes[1], 2, "T4", 16 * GIB); /* GPUs that stay idle are out of balance */
    assert_string_equal(decide(&t)->node->meta.name, "na");
    world_done(&t.w);
}

static void absurd_figures_stay_within_the_score(void **state)
{
    (void)state;
    struct trio t;
    trio_init(&t);
    t.weights = (struct at_weights){1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000};
    struct at_site_prices prices = {INT64_MAX, INT64_MAX, INT64_MAX};
    t.a->spec.prices = &prices;
    t.a->spec.carbon_intensity = INT64_MAX;
    t.a->spec.links.items->latency_ns = INT64_MAX;
    t.a->spec.links.items->egress_per_gib_microusd = INT64_MAX;
    t.a->spec.links.items->bandwidth_mbps = 1;
    struct at_data_item items[] = {
        {.size_bytes = INT64_MAX, .sites = strings_of(&t.w, "a")},
        {.size_bytes = INT64_MAX, .sites = strings_of(&t.w, "b")},
    };
    t.x->spec.data.items = items;
    t.x->spec.data.n = 2;
    places(t.x)->latency_from = "a";
    const struct at_sched_decision *d = decide(&t);
    assert_non_null(d->node);
    assert_true(d->score >= 0);
    assert_true(d->score <= 1000);
    world_done(&t.w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(demand_of_several_sites_counts_by_weight),
        cmocka_unit_test(data_draws_to_where_it_is_cheap_and_quick_to_have),
        cmocka_unit_test(a_node_that_has_the_model_is_liked),
        cmocka_unit_test(balance_likes_what_is_used_up_alike),
        cmocka_unit_test(absurd_figures_stay_within_the_score),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
