/* Labels, expressions, node affinity and policies about places: what holds and what does not. */
#include "world_test.h"

#include "scheduler/match.h"

static struct at_expression expression(struct world *w, const char *key, const char *op,
                                       const char *value)
{
    struct at_expression e = {.key = key, .operator= op };
    if (value != NULL) {
        e.values = strings_of(w, value);
    }
    return e;
}

static void every_operator_of_kubernetes_holds_as_it_says(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    static const struct {
        const char *op, *value; /* of the expression */
        const char *label;      /* NULL: absent */
        bool holds;
    } rows[] = {
        {"In", "a", "a", true},
        {"In", "a", "b", false},
        {"In", "a", NULL, false},
        {"NotIn", "a", "b", true},
        {"NotIn", "a", "a", false},
        {"NotIn", "a", NULL, true},
        {"Exists", NULL, "", true},
        {"Exists", NULL, NULL, false},
        {"DoesNotExist", NULL, NULL, true},
        {"DoesNotExist", NULL, "x", false},
        {"Gt", "4", "5", true},
        {"Gt", "5", "5", false},
        {"Gt", "-7", "-6", true},
        {"Gt", "4", NULL, false},
        {"Gt", "4", "many", false},
        {"Gt", "4", "5.5", false},
        {"Lt", "5", "4", true},
        {"Lt", "5", "5", false},
        {"Lt", "5", "", false},
        {"Lt", "99999999999999999999", "4", false},
        {"Like", "a", "a", false},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(rows); i++) {
        struct at_expression e = expression(&w, "k", rows[i].op, rows[i].value);
        if (sched_expression_holds(&e, rows[i].label) != rows[i].holds) {
            fail_msg("%s %s of %s", rows[i].op, rows[i].value, rows[i].label);
        }
    }
    world_done(&w);
}

static void a_selector_holds_when_all_of_it_does(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    struct at_model_kv want = {"app", "web"};
    struct at_expression e = expression(&w, "tier", "DoesNotExist", NULL);
    struct at_label_selector s = {.match_labels = {&want, 1}};
    s.match_expressions.items = &e;
    s.match_expressions.n = 1;
    struct at_model_kv labels[] = {{"app", "web"}, {"tier", "1"}};
    assert_true(sched_labels_match(&s, &(struct at_model_map){labels, 1}));
    assert_false(sched_labels_match(&s, &(struct at_model_map){labels, 2}));
    assert_false(sched_labels_match(&s, &(struct at_model_map){labels + 1, 1}));
    assert_true(sched_labels_match(&(struct at_label_selector){0}, &(struct at_model_map){0}));
    world_done(&w);
}

static void node_terms_are_alternatives_of_requirements_that_all_hold(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    struct at_site *site = world_site(&w, "s", "edge", "EU");
    site->spec.region = "eu-west";
    struct at_node *n = world_node(&w, "n", "s", 1000, GIB);
    struct at_model_kv label = {"disk", "ssd"};
    n->meta.labels = (struct at_model_map){&label, 1};
    struct at_expression first[] = {expression(&w, "disk", "In", "ssd"),
                                    expression(&w, "atoll.dev/region", "In", "us-east")};
    struct at_expression second = expression(&w, "atoll.dev/jurisdiction", "In", "EU");
    struct at_node_term terms[] = {{.match_expressions = {first, 2}},
                                   {.match_expressions = {&second, 1}}};
    struct at_node_affinity affinity = {.required = {terms, 1}};
    assert_false(sched_node_affinity_holds(&affinity, n, site));
    assert_ptr_equal(sched_term_refusing(&terms[0], n, site), &first[1]);
    affinity.required.n = 2; /* or the second */
    assert_true(sched_node_affinity_holds(&affinity, n, site));
    assert_false(sched_node_affinity_holds(&affinity, n, NULL)); /* nobody tells the law there */
    assert_true(sched_node_affinity_holds(NULL, n, site));
    label = (struct at_model_kv){"atoll.dev/jurisdiction", "CH"}; /* its own label wins */
    assert_false(sched_node_affinity_holds(&affinity, n, site));
    world_done(&w);
}

static void policies_allow_and_deny_sites_for_those_they_concern(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    struct at_site *eu = world_site(&w, "eu", "public", "EU");
    struct at_site *us = world_site(&w, "us", "edge", "US");
    struct at_instance *x = world_instance(&w, "x", NULL, 0);
    struct at_site_pattern allow = {.jurisdictions = strings_of(&w, "EU")};
    struct at_site_pattern deny = {.site_classes = strings_of(&w, "public")};
    struct at_placement_rule rule = {.name = "r", .allow = {&allow, 1}};
    struct at_policy policy = {.spec = {.placement = {&rule, 1}}};
    assert_null(sched_policy_refusing(&policy, x, eu, "eu"));
    assert_ptr_equal(sched_policy_refusing(&policy, x, us, "us"), &rule);
    assert_ptr_equal(sched_policy_refusing(&policy, x, NULL, "gone"), &rule);
    rule.deny.items = &deny;
    rule.deny.n = 1;
    assert_ptr_equal(sched_policy_refusing(&policy, x, eu, "eu"), &rule); /* deny wins */
    rule.namespaces = strings_of(&w, "other");
    assert_null(sched_policy_refusing(&policy, x, eu, "eu"));
    rule.namespaces = strings_of(&w, "default");
    rule.data_classes = strings_of(&w, "secret");
    assert_null(sched_policy_refusing(&policy, x, us, "us"));
    x->spec.data_class = "secret";
    assert_non_null(sched_policy_refusing(&policy, x, us, "us"));
    struct at_model_kv app = {"app", "web"};
    struct at_label_selector selector = {.match_labels = {&app, 1}};
    rule.label_selector = &selector;
    assert_null(sched_policy_refusing(&policy, x, us, "us"));
    x->meta.labels = (struct at_model_map){&app, 1};
    assert_non_null(sched_policy_refusing(&policy, x, us, "us"));
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operator_of_kubernetes_holds_as_it_says),
        cmocka_unit_test(a_selector_holds_when_all_of_it_does),
        cmocka_unit_test(node_terms_are_alternatives_of_requirements_that_all_hold),
        cmocka_unit_test(policies_allow_and_deny_sites_for_those_they_concern),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
