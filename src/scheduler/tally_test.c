/* Counts of instances by selector and place follow what comes and goes. */
#include "world_test.h"

#include "scheduler/tally.h"

static struct at_label_selector selector(struct world *w, const char *key, const char *value)
{
    struct at_model_kv *kv = WORLD_NEW(w, struct at_model_kv);
    *kv = (struct at_model_kv){key, value};
    return (struct at_label_selector){.match_labels = {kv, 1}};
}

static struct at_instance *labelled(struct world *w, const char *name, const char *app)
{
    struct at_instance *i = world_instance(w, name, "web", 500);
    struct at_model_kv *kv = WORLD_NEW(w, struct at_model_kv);
    *kv = (struct at_model_kv){"app", app};
    i->meta.labels = (struct at_model_map){kv, 1};
    return i;
}

static void on_keeper(void *ctx, const struct sched_keeper *keeper)
{
    *(const struct sched_keeper **)ctx = keeper;
}

static void counts_what_a_term_means_by_node_and_site(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    struct at_label_selector app = selector(&w, "app", "db");
    struct at_affinity_term term = {.label_selector = &app};
    struct at_affinity near = {.required = {&term, 1}};
    struct at_instance *x = world_instance(&w, "x", NULL, 0);
    places(x)->affinity = &near;
    struct at_instance *db = labelled(&w, "db", "db");
    struct at_instance *other = labelled(&w, "other", "web");
    struct sched_tally *t = sched_tally_new();
    assert_true(sched_tally_learn(t, x));
    assert_false(sched_tally_learn(t, x));
    sched_tally_changed(t, db, "n1", "s", 1);
    sched_tally_changed(t, db, "n2", "s", 1);
    sched_tally_changed(t, other, "n1", "s", 1);
    const struct sched_matcher *m = sched_tally_of_term(t, &term, "default");
    assert_non_null(m);
    assert_int_equal(m->total, 2);
    assert_int_equal(sched_tally_count(m->by_site, "s"), 2);
    assert_int_equal(sched_tally_count(m->by_node, "n1"), 1);
    assert_null(sched_tally_of_term(t, &term, "elsewhere")); /* the term is of its own namespace */
    db->meta.ns = "elsewhere";
    assert_false(sched_matcher_means(m, db));
    db->meta.ns = "default";
    sched_tally_changed(t, db, "n1", "s", -1);
    assert_int_equal(sched_tally_count(m->by_node, "n1"), 0);
    assert_int_equal(at_map_count(m->by_node), 1);
    struct sched_site_use use = sched_tally_site_use(t, "s");
    assert_int_equal(use.instances, 2);
    assert_int_equal(use.cpu_milli, 1000);
    sched_tally_reset(t);
    assert_int_equal(m->total, 0);
    assert_int_equal(sched_tally_site_use(t, "s").instances, 0);
    sched_tally_free(t);
    world_done(&w);
}

static void knows_who_keeps_an_instance_away(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    struct at_label_selector app = selector(&w, "app", "web");
    struct at_affinity_term term = {.label_selector = &app, .topology = "site"};
    struct at_affinity away = {.required = {&term, 1}};
    struct at_instance *hermit = labelled(&w, "hermit", "db");
    places(hermit)->anti_affinity = &away;
    struct at_instance *web = labelled(&w, "web", "web");
    struct sched_tally *t = sched_tally_new();
    const struct sched_keeper *k = NULL;
    sched_tally_keepers(t, web, on_keeper, &k);
    assert_null(k);
    sched_tally_changed(t, hermit, "n1", "s", 1);
    sched_tally_keepers(t, web, on_keeper, &k);
    assert_non_null(k);
    assert_int_equal(k->level, SCHED_LEVEL_SITE);
    assert_int_equal(sched_tally_count(k->by_place, "s"), 1);
    k = NULL;
    sched_tally_keepers(t, hermit, on_keeper, &k); /* it is not what it keeps away */
    assert_null(k);
    sched_tally_changed(t, hermit, "n1", "s", -1);
    sched_tally_keepers(t, web, on_keeper, &k);
    assert_null(k);
    sched_tally_free(t);
    world_done(&w);
}

static void copies_of_one_owner_are_a_group(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    struct at_spread_rule rule = {.topology = "region", .max_skew = 1};
    struct at_instance *a = labelled(&w, "a", "x");
    struct at_instance *b = labelled(&w, "b", "y");
    struct at_instance *c = world_instance(&w, "c", "other", 0);
    places(a)->spread.items = &rule;
    places(a)->spread.n = 1;
    struct sched_tally *t = sched_tally_new();
    assert_true(sched_tally_learn(t, a));
    sched_tally_changed(t, b, "n", "s", 1);
    sched_tally_changed(t, c, "n", "s", 1);
    assert_int_equal(sched_tally_of_spread(t, &rule, a)->total, 1);
    assert_null(sched_tally_of_spread(t, &rule, c));
    sched_tally_free(t);
    world_done(&w);
}

static void selectors_read_as_people_write_them(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    struct at_label_selector s = selector(&w, "app", "web");
    struct at_expression list[] = {
        {.key = "tier", .operator= "In", .values = strings_of(&w, "a")},
        {
            .key = "old",
            .operator= "DoesNotExist" },
            {.key = "x", .operator= "NotIn", .values = strings_of(&w, "b")},
        };
    s.match_expressions.items = list;
    s.match_expressions.n = 3;
    assert_string_equal(sched_selector_text(&s, w.arena),
                        "app=web, tier in (a), !old, x notin (b)");
    assert_string_equal(sched_selector_text(&(struct at_label_selector){0}, w.arena), "anything");
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_what_a_term_means_by_node_and_site),
        cmocka_unit_test(knows_who_keeps_an_instance_away),
        cmocka_unit_test(copies_of_one_owner_are_a_group),
        cmocka_unit_test(selectors_read_as_people_write_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
