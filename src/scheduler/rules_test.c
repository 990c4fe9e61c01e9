/* Each rule about places and other instances: refuses with its sentence, and accepts. */
#include "world_test.h"

static struct at_instance *one(struct world *w, struct at_node **node)
{
    world_init(w);
    struct at_site *s = world_site(w, "s", "edge", "EU");
    s->spec.region = "eu-west";
    s->spec.provider = "acme";
    *node = world_node(w, "n", "s", 4000, 8 * GIB);
    return world_instance(w, "x", NULL, 1000);
}

static void expect_refused(struct world *w, enum at_sched_rule rule, const char *message)
{
    world_schedule(w);
    const struct at_sched_decision *d = world_decision(w, "x");
    assert_null(d->node);
    assert_true(d->refused[rule] > 0);
    assert_string_equal(d->message, message);
}
static void expect_placed(struct world *w, const char *node)
{
    world_schedule(w);
    if (!at_streq(world_where(w, "x"), node)) {
        fail_msg("%s", world_decision(w, "x")->message);
    }
}

static void set_label(struct world *w, struct at_meta *meta, const char *key, const char *value)
{
    struct at_model_kv *kv = WORLD_NEW(w, struct at_model_kv);
    *kv = (struct at_model_kv){key, value};
    meta->labels = (struct at_model_map){kv, 1};
}

static struct at_label_selector *selects(struct world *w, const char *key, const char *value)
{
    struct at_label_selector *s = WORLD_NEW(w, struct at_label_selector);
    struct at_model_kv *kv = WORLD_NEW(w, struct at_model_kv);
    *kv = (struct at_model_kv){key, value};
    s->match_labels = (struct at_model_map){kv, 1};
    return s;
}

static struct at_affinity *requires(struct world *w, const char *app, const char *level)
{
    struct at_affinity *a = WORLD_NEW(w, struct at_affinity);
    a->required.items = WORLD_NEW(w, struct at_affinity_term);
    a->required.n = 1;
    a->required.items[0] =
        (struct at_affinity_term){.label_selector = selects(w, "app", app), .topology = level};
    return a;
}

static void spread_over(struct world *w, struct at_instance *x, struct at_spread_rule rule)
{
    places(x)->spread.items = WORLD_NEW(w, struct at_spread_rule);
    places(x)->spread.items[0] = rule;
    places(x)->spread.n = 1;
}

static struct at_instance *bound(struct world *w, const char *name, const char *app,
                                 const char *node)
{
    struct at_instance *i = world_instance(w, name, "o", 0);
    set_label(w, &i->meta, "app", app);
    world_bind(i, node, 1);
    return i;
}

static void node_affinity_by_any_operator(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    struct at_expression e = {.key = "cores", .operator= "Gt", .values = strings_of(&w, "8")};
    struct at_node_term term = {.match_expressions = {&e, 1}};
    struct at_node_affinity affinity = {.required = {&term, 1}};
    places(x)->node_affinity = &affinity;
    expect_refused(&w, AT_SCHED_NODE_AFFINITY,
                   "0 of 1 node fit: 1 NodeAffinity (n: label cores is absent, wanted cores > 8)");
    set_label(&w, &n->meta, "cores", "8");
    expect_refused(&w, AT_SCHED_NODE_AFFINITY,
                   "0 of 1 node fit: 1 NodeAffinity (n: label cores is 8, wanted cores > 8)");
    set_label(&w, &n->meta, "cores", "16");
    expect_placed(&w, "n");
    world_done(&w);
}

static void preferred_nodes_win(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    struct at_node *o = world_node(&w, "o", "s", 4000, 8 * GIB);
    set_label(&w, &o->meta, "disk", "ssd");
    struct at_expression e = {.key = "disk", .operator= "Exists" };
    struct at_node_term term = {.weight = 10, .match_expressions = {&e, 1}};
    struct at_node_affinity affinity = {.preferred = {&term, 1}};
    places(x)->node_affinity = &affinity;
    expect_placed(&w, "o");
    const struct at_sched_decision *d = world_decision(&w, "x");
    assert_int_equal(d->parts[AT_SCHED_OBJ_PREFERENCE], 1000);
    assert_int_equal(d->runner_up_parts[AT_SCHED_OBJ_PREFERENCE], 0);
    e.operator= "DoesNotExist";
    expect_placed(&w, "n");
    world_done(&w);
}

static void soft_taints_are_avoided_while_another_node_does(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    struct at_taint taint = {.key = "old", .effect = "PreferNoSchedule"};
    n->spec.taints.items = &taint;
    n->spec.taints.n = 1;
    struct at_node *o = world_node(&w, "o", "s", 4000, 8 * GIB);
    expect_placed(&w, "o");
    struct at_toleration all = {.key = "old", .operator= "Exists" };
    places(x)->tolerations.items = &all;
    places(x)->tolerations.n = 1;
    expect_placed(&w, "n"); /* by name, as if it had none */
    places(x)->tolerations.n = 0;
    o->spec.unschedulable = true;
    expect_placed(&w, "n"); /* it is no hard rule */
    world_done(&w);
}

static void regions_and_providers(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    places(x)->regions = strings_of(&w, "us-east");
    expect_refused(&w, AT_SCHED_REGION,
                   "0 of 1 node fit: 1 Region (n: region eu-west is not one of us-east)");
    places(x)->regions = strings_of(&w, "eu-west");
    places(x)->providers = strings_of(&w, "other");
    expect_refused(&w, AT_SCHED_PROVIDER,
                   "0 of 1 node fit: 1 Provider (n: provider acme is not one of other)");
    places(x)->providers = strings_of(&w, "acme");
    expect_placed(&w, "n");
    world_done(&w);
}

static void policies_about_places(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    struct at_site_pattern edge = {.site_classes = strings_of(&w, "edge")};
    struct at_placement_rule rule = {.name = "no-edge", .deny = {&edge, 1}};
    struct at_policy policy = {.spec = {.placement = {&rule, 1}}};
    w.policies[w.n_policies++] = &policy;
    expect_refused(&w, AT_SCHED_POLICY,
                   "0 of 1 node fit: 1 Policy (n: policy rule no-edge keeps it away from site s)");
    rule.label_selector = selects(&w, "app", "web");
    expect_placed(&w, "n");
    set_label(&w, &x->meta, "app", "web");
    world_schedule(&w);
    assert_null(world_where(&w, "x"));
    world_done(&w);
}

static void affinity_needs_one_that_is_there(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    world_site(&w, "t", "edge", "EU");
    world_node(&w, "m", "t", 4000, 8 * GIB);
    places(x)->affinity = requires(&w, "db", "site");
    expect_refused(&w, AT_SCHED_AFFINITY,
                   "0 of 2 nodes fit: 2 Affinity (m: no instances with app=db in site t)");
    bound(&w, "db", "db", "n");
    expect_placed(&w, "n");
    world_node(&w, "n2", "s", 4000, 8 * GIB);
    places(x)->affinity = requires(&w, "db", "node");
    expect_placed(&w, "n");
    places(x)->affinity = requires(&w, "db", "jurisdiction"); /* all of the EU is together */
    w.nodes[0]->spec.unschedulable = true;
    w.nodes[2]->spec.unschedulable = true;
    expect_placed(&w, "m");
    world_done(&w);
}

static void affinity_to_oneself_lets_the_first_one_in(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    world_site(&w, "t", "edge", "EU");
    world_node(&w, "m", "t", 4000, 8 * GIB);
    set_label(&w, &x->meta, "app", "db");
    places(x)->affinity = requires(&w, "db", "site");
    struct at_instance *y = world_instance(&w, "y", NULL, 1000);
    set_label(&w, &y->meta, "app", "db");
    places(y)->affinity = requires(&w, "db", "site");
    world_schedule(&w);
    assert_non_null(world_where(&w, "x"));
    assert_string_equal(world_decision(&w, "x")->node->spec.site,
                        world_decision(&w, "y")->node->spec.site);
    world_done(&w);
}

static void anti_affinity_holds_both_ways(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    struct at_instance *old = bound(&w, "old", "web", "n");
    places(x)->anti_affinity = requires(&w, "web", "node");
    expect_refused(&w, AT_SCHED_ANTI_AFFINITY,
                   "0 of 1 node fit: 1 AntiAffinity (n: 1 instances with app=web in node n)");
    world_node(&w, "n2", "s", 4000, 8 * GIB);
    expect_placed(&w, "n2");
    places(x)->anti_affinity = requires(&w, "web", "region");
    expect_refused(
        &w, AT_SCHED_ANTI_AFFINITY,
        "0 of 2 nodes fit: 2 AntiAffinity (n: 1 instances with app=web in region eu-west)");
    places(x)->anti_affinity = NULL; /* now the one that is there wants to be alone */
    places(old)->anti_affinity = requires(&w, "x", "site");
    expect_placed(&w, "n");
    set_label(&w, &x->meta, "app", "x");
    expect_refused(&w, AT_SCHED_ANTI_AFFINITY,
                   "0 of 2 nodes fit: 2 AntiAffinity (n: 1 instance in site s keeps away those "
                   "with app=x)");
    old->meta.deletion_wall_ns = 1; /* on its way out */
    expect_placed(&w, "n");
    world_done(&w);
}

static void placed_in_one_plan_they_keep_apart(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    world_node(&w, "n2", "s", 4000, 8 * GIB);
    struct at_instance *y = world_instance(&w, "y", NULL, 0);
    struct at_instance *z = world_instance(&w, "z", NULL, 0);
    struct at_instance *all[] = {x, y, z};
    for (size_t i = 0; i < 3; i++) {
        set_label(&w, &all[i]->meta, "app", "web");
        places(all[i])->anti_affinity = requires(&w, "web", "node");
    }
    world_schedule(&w);
    assert_string_not_equal(world_where(&w, "x"), world_where(&w, "y"));
    assert_null(world_where(&w, "z"));
    world_done(&w);
}

static void liked_and_disliked_instances_sway(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    world_site(&w, "t", "edge", "EU");
    world_node(&w, "m", "t", 4000, 8 * GIB);
    bound(&w, "db", "db", "n");
    struct at_affinity *near = requires(&w, "db", "site");
    near->preferred.items = near->required.items;
    near->preferred.n = 1;
    near->required.n = 0;
    near->preferred.items[0].weight = 50;
    places(x)->affinity = near;
    expect_placed(&w, "n");
    places(x)->affinity = NULL;
    places(x)->anti_affinity = near;
    near->preferred.items[0].topology = "node";
    expect_placed(&w, "m");
    const struct at_sched_decision *d = world_decision(&w, "x");
    assert_int_equal(d->parts[AT_SCHED_OBJ_AFFINITY], 1000);
    assert_int_equal(d->runner_up_parts[AT_SCHED_OBJ_AFFINITY], 0);
    world_done(&w);
}

static void spread_rules_limit_skew_and_number_per_place(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    x->meta.owners = bound(&w, "old", "web", "n")->meta.owners; /* copies of one owner */
    struct at_site *t = world_site(&w, "t", "edge", "EU");
    t->spec.region = "eu-east";
    world_node(&w, "m", "t", 500, 8 * GIB); /* too small, yet its region counts */
    spread_over(&w, x, (struct at_spread_rule){.topology = "region", .max_skew = 1});
    expect_refused(&w, AT_SCHED_SPREAD_RULE,
                   "0 of 2 nodes fit: 1 NotEnoughCPU (m: 500m cpu free, 1 wanted), 1 Spread (n: "
                   "region eu-west has 1 copies, the emptiest 0, skew 1 at most)");
    spread_over(&w, x, (struct at_spread_rule){.topology = "provider", .max_per_domain = 1});
    expect_refused(&w, AT_SCHED_SPREAD_RULE,
                   "0 of 2 nodes fit: 1 NotEnoughCPU (m: 500m cpu free, 1 wanted), 1 Spread (n: "
                   "provider acme has 1 copies, 1 at most)");
    spread_over(&w, x, (struct at_spread_rule){.topology = "provider", .max_per_domain = 2});
    expect_placed(&w, "n");
    wants(x)->cpu_milli = 100;
    expect_placed(&w, "n"); /* nobody tells whose m is */
    world_done(&w);
}

static void spread_rules_ask_for_few_or_many_places(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    x->meta.owners = bound(&w, "old", "web", "n")->meta.owners;
    world_node(&w, "n2", "s", 4000, 8 * GIB);
    spread_over(&w, x, (struct at_spread_rule){.topology = "node", .max_domains = 1});
    expect_placed(&w, "n");
    n->spec.unschedulable = true;
    expect_refused(&w, AT_SCHED_SPREAD_RULE,
                   "0 of 2 nodes fit: 1 Cordoned (n: cordoned), 1 Spread (n2: copies are in 1 "
                   "nodes already, 1 at most)");
    n->spec.unschedulable = false;
    spread_over(&w, x, (struct at_spread_rule){.topology = "site", .max_skew = 1});
    expect_placed(&w, "n2"); /* one site only: it is the emptiest itself */
    spread_over(&w, x,
                (struct at_spread_rule){.topology = "site", .max_skew = 1, .min_domains = 2});
    expect_refused(&w, AT_SCHED_SPREAD_RULE,
                   "0 of 2 nodes fit: 2 Spread (n: site s has 1 copies, the emptiest 0, skew 1 at "
                   "most)");
    world_done(&w);
}

static void soft_spread_rules_only_prefer(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    bound(&w, "old", "web", "n");
    struct at_node *o = world_node(&w, "o", "s", 4000, 8 * GIB);
    spread_over(&w, x,
                (struct at_spread_rule){.topology = "node",
                                        .max_per_domain = 1,
                                        .when_unsatisfiable = "ScheduleAnyway",
                                        .label_selector = selects(&w, "app", "web")});
    set_label(&w, &x->meta, "app", "web");
    expect_placed(&w, "o");
    o->spec.unschedulable = true;
    expect_placed(&w, "n");
    world_done(&w);
}

static void sites_have_limits(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    (void)one(&w, &n);
    struct at_site_limits limits = {.cpu_milli = 1500};
    w.sites[0]->spec.limits = &limits;
    struct at_instance *old = world_instance(&w, "old", NULL, 1000);
    world_bind(old, "n", 1);
    expect_refused(&w, AT_SCHED_SITE_LIMIT,
                   "0 of 1 node fit: 1 SiteLimit (n: site s has 1 cpu in use of its limit of "
                   "1500m)");
    limits = (struct at_site_limits){.instances = 1};
    expect_refused(&w, AT_SCHED_SITE_LIMIT,
                   "0 of 1 node fit: 1 SiteLimit (n: site s has 1 instances in use of its limit "
                   "of 1)");
    limits = (struct at_site_limits){.cpu_milli = 2000, .memory_bytes = 1};
    expect_placed(&w, "n"); /* it asks for no memory */
    world_done(&w);
}

static void gpus_of_one_link_group(void **state)
{
    (void)state;
    static const char *const LINKS[] = {"a", "b", "b", "a"};
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    world_gpus(&w, n, 4, "A100", 80 * GIB);
    wants(x)->gpu_milli = 2000;
    wants(x)->topology = "SameLink";
    expect_refused(&w, AT_SCHED_TOPOLOGY,
                   "0 of 1 node fit: 1 GPUTopology (n: 1 fitting GPU in one link group, 2 wanted)");
    for (int i = 0; i < 4; i++) {
        n->status.gpus.items[i].link_group = LINKS[i];
    }
    expect_placed(&w, "n");
    struct at_instance *old = world_instance(&w, "old", NULL, 0);
    wants(old)->gpu_milli = 1000; /* takes the first: group a is broken, b is not */
    world_bind(old, "n", 1);
    expect_placed(&w, "n");
    wants(x)->topology = "SameNuma"; /* the node tells of none */
    expect_refused(&w, AT_SCHED_TOPOLOGY,
                   "0 of 1 node fit: 1 GPUTopology (n: 1 fitting GPU on one NUMA node, 2 wanted)");
    wants(x)->topology = "Preferred";
    expect_placed(&w, "n");
    world_done(&w);
}

static void cpus_and_memory_of_one_numa_node(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    struct at_numa_node numa[] = {{.id = 0, .cpu_milli = 2000, .memory_bytes = 4 * GIB},
                                  {.id = 1, .cpu_milli = 2000, .memory_bytes = 4 * GIB}};
    n->status.numa_nodes.items = numa;
    n->status.numa_nodes.n = 2;
    wants(x)->topology = "SameNuma";
    wants(x)->cpu_milli = 3000;
    expect_refused(&w, AT_SCHED_TOPOLOGY,
                   "0 of 1 node fit: 1 GPUTopology (n: no NUMA node has the CPUs and memory "
                   "wanted)");
    wants(x)->cpu_milli = 2000;
    expect_placed(&w, "n");
    world_done(&w);
}

/* What others' recorded GPUs tie to a NUMA node is not there a second time. */
static void cpus_and_memory_of_a_numa_node_are_given_once(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    struct at_numa_node numa[] = {{.id = 4, .cpu_milli = 2000, .memory_bytes = 4 * GIB},
                                  {.id = 7, .cpu_milli = 2000, .memory_bytes = 4 * GIB}};
    struct at_instance_gpu held[] = {{.index = 0, .milli = 1000}, {.index = 2, .milli = 1000}};
    world_gpus(&w, n, 4, "A100", 80 * GIB);
    for (int i = 0; i < 4; i++) {
        n->status.gpus.items[i].numa_node = i < 2 ? 4 : 7;
    }
    n->status.numa_nodes.items = numa;
    n->status.numa_nodes.n = 2;
    *wants(x) = (struct at_resources){
        .cpu_milli = 1000, .memory_bytes = GIB, .gpu_milli = 1000, .topology = "SameNuma"};
    for (int k = 0; k < 2; k++) {
        struct at_instance *old = world_instance(&w, k == 0 ? "a" : "b", NULL, 0);
        *wants(old) = (struct at_resources){
            .cpu_milli = k == 0 ? 1500 : 500, .gpu_milli = 1000, .topology = "SameNuma"};
        world_bind(old, "n", 1);
        old->status.gpus.items = &held[k];
        old->status.gpus.n = 1;
    }
    n->status.allocatable = WORLD_NEW(&w, struct at_resources);
    *(struct at_resources *)n->status.allocatable = (struct at_resources){
        .cpu_milli = 4000, .memory_bytes = 8 * GIB, .disk_bytes = GIB, .gpu_milli = 4000};
    expect_placed(&w, "n");
    const struct at_sched_decision *d = world_decision(&w, x->meta.name);
    assert_int_equal(d->n_gpus, 1);
    assert_int_equal(d->gpus[0].index, 3); /* NUMA node 4 has 500m left */
    wants(x)->cpu_milli = 1600;            /* 2 are free, but not on one */
    expect_refused(&w, AT_SCHED_TOPOLOGY,
                   "0 of 1 node fit: 1 GPUTopology (n: no NUMA node has the CPUs and memory "
                   "wanted)");
    wants(w.instances[1])->topology = ""; /* runs anywhere: nothing ties it */
    expect_placed(&w, "n");
    assert_int_equal(world_decision(&w, x->meta.name)->gpus[0].index, 1);
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(node_affinity_by_any_operator),
        cmocka_unit_test(preferred_nodes_win),
        cmocka_unit_test(soft_taints_are_avoided_while_another_node_does),
        cmocka_unit_test(regions_and_providers),
        cmocka_unit_test(policies_about_places),
        cmocka_unit_test(affinity_needs_one_that_is_there),
        cmocka_unit_test(affinity_to_oneself_lets_the_first_one_in),
        cmocka_unit_test(anti_affinity_holds_both_ways),
        cmocka_unit_test(placed_in_one_plan_they_keep_apart),
        cmocka_unit_test(liked_and_disliked_instances_sway),
        cmocka_unit_test(spread_rules_limit_skew_and_number_per_place),
        cmocka_unit_test(spread_rules_ask_for_few_or_many_places),
        cmocka_unit_test(soft_spread_rules_only_prefer),
        cmocka_unit_test(sites_have_limits),
        cmocka_unit_test(gpus_of_one_link_group),
        cmocka_unit_test(cpus_and_memory_of_one_numa_node),
        cmocka_unit_test(cpus_and_memory_of_a_numa_node_are_given_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
