#include "core/units.h"
#include "world_test.h"

/* One pending instance "x" of 1 cpu on one node "n" (site "s": edge, EU) unless a test changes it.
 */
static struct at_instance *one(struct world *w, struct at_node **ret_node)
{
    world_init(w);
    world_site(w, "s", "edge", "EU");
    *ret_node = world_node(w, "n", "s", 4000, 8 * GIB);
    return world_instance(w, "x", NULL, 1000);
}

static void expect_refused(struct world *w, enum at_sched_rule rule, const char *message)
{
    world_schedule(w);
    const struct at_sched_decision *d = world_decision(w, "x");
    assert_null(d->node);
    assert_int_equal(d->refused[rule], 1);
    assert_string_equal(d->message, message);
    world_done(w);
}

static void places_on_the_only_node_and_says_so(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    (void)one(&w, &n);
    world_schedule(&w);
    const struct at_sched_decision *d = world_decision(&w, "x");
    assert_ptr_equal(d->node, n);
    assert_string_equal(d->message, "placed on n (site s): spread 1000x100 + fit 125x20 + price "
                                    "1000x20 + carbon 500x10, the only node that fits");
    world_done(&w);
}

static void refuses_node_that_is_not_ready(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    (void)one(&w, &n);
    struct at_condition lost = {.type = "Ready", .status = "False", .reason = "HeartbeatLost"};
    n->status.conditions.items = &lost;
    expect_refused(&w, AT_SCHED_NODE_NOT_READY,
                   "0 of 1 node fit: 1 NodeNotReady (n: HeartbeatLost)");
}

static void refuses_cordoned_node(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    (void)one(&w, &n);
    n->spec.unschedulable = true;
    expect_refused(&w, AT_SCHED_CORDONED, "0 of 1 node fit: 1 Cordoned (n: cordoned)");
}

static void refuses_taint_until_it_is_tolerated(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    struct at_taint taint = {.key = "gpu", .value = "true", .effect = "NoSchedule"};
    struct at_toleration t = {.key = "gpu", .operator= "Equal", .value = "false"};
    n->spec.taints.items = &taint;
    n->spec.taints.n = 1;
    places(x)->tolerations.items = &t;
    places(x)->tolerations.n = 1;
    world_schedule(&w);
    assert_string_equal(world_decision(&w, "x")->message,
                        "0 of 1 node fit: 1 Taint (n: taint gpu=true not tolerated)");
    t.value = "true";
    assert_true(at_sched_tolerates(x->spec.placement, &taint));
    t.effect = "NoExecute";
    assert_false(at_sched_tolerates(x->spec.placement, &taint));
    t = (struct at_toleration){.operator= "Exists" };
    assert_true(at_sched_tolerates(x->spec.placement, &taint));
    world_schedule(&w);
    assert_string_equal(world_where(&w, "x"), "n");
    world_done(&w);
}

static void refuses_node_without_the_label(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    struct at_model_kv want = {"disk", "ssd"};
    places(x)->node_selector = (struct at_model_map){&want, 1};
    struct at_model_kv have = {"disk", "hdd"};
    n->meta.labels = (struct at_model_map){&have, 1};
    expect_refused(&w, AT_SCHED_SELECTOR,
                   "0 of 1 node fit: 1 NodeSelector (n: label disk is hdd, ssd wanted)");
}

static void refuses_other_sites(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    places(x)->sites = strings_of(&w, "cloud");
    expect_refused(&w, AT_SCHED_SITE, "0 of 1 node fit: 1 Site (n: site s is not one of cloud)");
}

static void refuses_other_site_classes(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    places(x)->site_classes = strings_of(&w, "public");
    expect_refused(&w, AT_SCHED_SITE_CLASS,
                   "0 of 1 node fit: 1 SiteClass (n: site class edge is not one of public)");
}

static void refuses_other_jurisdictions(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    places(x)->jurisdictions = strings_of(&w, "US");
    expect_refused(&w, AT_SCHED_JURISDICTION,
                   "0 of 1 node fit: 1 Jurisdiction (n: jurisdiction EU is not one of US)");
}

static void refuses_where_the_data_may_not_be(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    struct at_residency_rule rule = {.data_class = "restricted",
                                     .jurisdictions = strings_of(&w, "CH")};
    struct at_policy policy = {.spec = {.residency = {&rule, 1}}};
    w.policies[w.n_policies++] = &policy;
    world_schedule(&w);
    assert_non_null(world_where(&w, "x")); /* no data class: the rule is not about it */
    x->spec.data_class = "restricted";
    expect_refused(&w, AT_SCHED_RESIDENCY,
                   "0 of 1 node fit: 1 Residency (n: jurisdiction EU not allowed for data class "
                   "restricted)");
}

static void refuses_where_the_site_of_restricted_data_is_unknown(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    struct at_residency_rule rule = {.data_class = "restricted",
                                     .jurisdictions = strings_of(&w, "EU")};
    struct at_policy policy = {.spec = {.residency = {&rule, 1}}};
    w.policies[w.n_policies++] = &policy;
    x->spec.data_class = "restricted";
    w.n_sites = 0;
    expect_refused(&w, AT_SCHED_RESIDENCY,
                   "0 of 1 node fit: 1 Residency (n: jurisdiction unknown not allowed for data "
                   "class restricted)");
}

static void refuses_node_without_the_driver(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    x->spec.image = "oci:/images/x:1"; /* no driver named: an image means oci */
    expect_refused(&w, AT_SCHED_DRIVER,
                   "0 of 1 node fit: 1 DriverNotReady (n: driver oci is not there)");
}

static void refuses_for_want_of_cpu(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    (void)one(&w, &n);
    world_bind(world_instance(&w, "old", NULL, 3500), "n", 1);
    expect_refused(&w, AT_SCHED_CPU,
                   "0 of 1 node fit: 1 NotEnoughCPU (n: 500m cpu free, 1 wanted)");
}

static void takes_exactly_what_is_left_and_not_a_thousandth_more(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    wants(x)->cpu_milli = 4000;
    world_schedule(&w);
    assert_string_equal(world_where(&w, "x"), "n");
    wants(x)->cpu_milli = 4001;
    world_schedule(&w);
    assert_null(world_where(&w, "x"));
    world_done(&w);
}

static void over_committed_node_still_takes_what_asks_for_nothing(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    world_bind(world_instance(&w, "by-hand", NULL, 5000), "n", 1);
    wants(x)->cpu_milli = 0;
    world_schedule(&w);
    assert_string_equal(world_where(&w, "x"), "n");
    world_done(&w);
}

static void over_committed_gpus_take_nothing_more(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    world_gpus(&w, n, 1, "T4", 16 * GIB);
    for (int i = 0; i < 2; i++) { /* by hand: both cannot be on one GPU */
        struct at_instance *old = world_instance(&w, i == 0 ? "a" : "b", NULL, 0);
        wants(old)->gpu_milli = 600;
        world_bind(old, "n", i);
    }
    wants(x)->gpu_milli = 100;
    expect_refused(&w, AT_SCHED_GPU,
                   "0 of 1 node fit: 1 NotEnoughGPU (n: GPUs over-committed, 100m wanted)");
}

static void refuses_for_want_of_memory_and_disk(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    wants(x)->memory_bytes = 9 * GIB;
    expect_refused(&w, AT_SCHED_MEMORY,
                   "0 of 1 node fit: 1 NotEnoughMemory (n: 8Gi memory free, 9Gi wanted)");
    x = one(&w, &n);
    wants(x)->disk_bytes = 101 * GIB;
    expect_refused(&w, AT_SCHED_DISK,
                   "0 of 1 node fit: 1 NotEnoughDisk (n: 100Gi disk free, 101Gi wanted)");
}

static void refuses_whole_gpu_when_only_fractions_are_left(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    world_gpus(&w, n, 2, "T4", 16 * GIB);
    for (int i = 0; i < 2; i++) {
        struct at_instance *old = world_instance(&w, i == 0 ? "a" : "b", NULL, 0);
        wants(old)->gpu_milli = 600;
        world_bind(old, "n", i);
    }
    struct at_snapshot snap = world_snapshot(&w);
    assert_int_equal(at_sched_node_free(&snap, n).gpu_milli, 800);
    wants(x)->gpu_milli = 400; /* a fraction still fits beside one of them */
    world_schedule(&w);
    assert_non_null(world_where(&w, "x"));
    wants(x)->gpu_milli = 500;
    world_schedule(&w);
    assert_string_equal(world_decision(&w, "x")->message,
                        "0 of 1 node fit: 1 NotEnoughGPU (n: 400m of one GPU free, 500m wanted)");
    wants(x)->gpu_milli = 1000;
    expect_refused(&w, AT_SCHED_GPU,
                   "0 of 1 node fit: 1 NotEnoughGPU (n: 0 whole GPUs free, 1 wanted)");
}

static void packs_fractions_so_that_whole_gpus_stay_free(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    world_gpus(&w, n, 2, "T4", 16 * GIB);
    wants(x)->gpu_milli = 1000;
    x->spec.priority = -1;
    for (int i = 0; i < 4; i++) {
        char name[24];
        snprintf(name, sizeof(name), "f%d", i);
        wants(world_instance(&w, name, NULL, 0))->gpu_milli = 250;
    }
    world_schedule(&w);
    for (size_t i = 0; i < w.plan.n; i++) {
        assert_non_null(w.plan.decisions[i].node);
    }
    world_done(&w);
}

/* Left on a: 400, which the request fills; the 600 loses them before. b: nothing changes. */
static void prefers_the_gpu_that_leaves_the_least_useless(void **state)
{
    (void)state;
    struct world w;
    struct at_node *a;
    struct at_instance *x = one(&w, &a);
    world_gpus(&w, a, 1, "T4", 16 * GIB);
    world_gpus(&w, world_node(&w, "o", "s", 8000, 8 * GIB), 1, "T4", 16 * GIB);
    struct at_instance *old = world_instance(&w, "old", NULL, 0);
    wants(old)->gpu_milli = 600;
    world_bind(old, "n", 0);
    wants(x)->gpu_milli = 400;
    world_schedule(&w);
    const struct at_sched_decision *d = world_decision(&w, "x");
    assert_string_equal(world_where(&w, "x"), "n");
    assert_int_equal(d->parts[AT_SCHED_OBJ_FRAGMENTATION], 600); /* 500 + (400 / 2) / 2 */
    assert_int_equal(d->runner_up_parts[AT_SCHED_OBJ_FRAGMENTATION], 500);
    assert_int_equal(d->weights[AT_SCHED_OBJ_FRAGMENTATION], d->weights[AT_SCHED_OBJ_FIT]);
    wants(x)->gpu_milli = 0;
    world_schedule(&w);
    assert_int_equal(world_decision(&w, "x")->weights[AT_SCHED_OBJ_FRAGMENTATION], 0);
    world_done(&w);
}

static void refuses_for_gpu_memory_and_model(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    world_gpus(&w, n, 1, "T4", 16 * GIB);
    wants(x)->gpu_milli = 500;
    wants(x)->gpu_memory_bytes = 24 * GIB;
    expect_refused(
        &w, AT_SCHED_GPU_MEMORY,
        "0 of 1 node fit: 1 NotEnoughGPUMemory (n: 16Gi of GPU memory free, 24Gi wanted)");
    x = one(&w, &n);
    world_gpus(&w, n, 1, "T4", 16 * GIB);
    wants(x)->gpu_milli = 500;
    wants(x)->gpu_models = strings_of(&w, "H100");
    expect_refused(&w, AT_SCHED_GPU_MODEL,
                   "0 of 1 node fit: 1 GPUModel (n: GPU model T4, wanted H100)");
}

static struct at_gpu_sharing *shares(struct world *w, struct at_instance *x, const char *mode)
{
    struct at_gpu_sharing *how = world_alloc(w, sizeof *how);
    how->mode = mode;
    x->spec.gpu_sharing = how;
    return how;
}

static void refuses_nodes_whose_way_to_share_gpus_does_not_work(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    static struct at_node_gpu_mode mps = {.name = "MPS", .message = "no nvidia-cuda-mps-control"};
    struct at_instance *x = one(&w, &n);
    world_gpus(&w, n, 2, "T4", 16 * GIB);
    n->spec.gpu_sharing = "MPS";
    n->status.gpu_modes.items = &mps;
    n->status.gpu_modes.n = 1;
    wants(x)->gpu_milli = 500;
    expect_refused(&w, AT_SCHED_GPU_SHARING,
                   "0 of 1 node fit: 1 GPUSharing (n: no nvidia-cuda-mps-control)");
    x = one(&w, &n);
    world_gpus(&w, n, 2, "T4", 16 * GIB);
    n->spec.gpu_sharing = "MPS";
    n->status.gpu_modes.items = &mps;
    n->status.gpu_modes.n = 1;
    wants(x)->gpu_milli = 1000; /* a whole one needs no service */
    world_schedule(&w);
    assert_non_null(world_decision(&w, "x")->node);
    world_done(&w);
}

static void refuses_nodes_that_share_gpus_in_another_way(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    world_gpus(&w, n, 2, "T4", 16 * GIB);
    wants(x)->gpu_milli = 500;
    shares(&w, x, "MPS");
    expect_refused(&w, AT_SCHED_GPU_SHARING,
                   "0 of 1 node fit: 1 GPUSharing (n: GPUs are shared by Share, wanted MPS)");
    x = one(&w, &n);
    world_gpus(&w, n, 2, "T4", 16 * GIB);
    n->spec.gpu_sharing = "Exclusive";
    wants(x)->gpu_milli = 500;
    expect_refused(&w, AT_SCHED_GPU_SHARING,
                   "0 of 1 node fit: 1 GPUSharing (n: its GPUs are given whole only)");
    x = one(&w, &n);
    world_gpus(&w, n, 2, "T4", 16 * GIB);
    wants(x)->gpu_milli = 500;
    shares(&w, x, "MIG");
    expect_refused(&w, AT_SCHED_GPU_SHARING,
                   "0 of 1 node fit: 1 GPUSharing (n: no GPU there is divided by MIG)");
    x = one(&w, &n);
    world_gpus(&w, n, 2, "T4", 16 * GIB);
    n->status.gpus.items[1].parent = "GPU-9";
    wants(x)->gpu_milli = 2000;
    shares(&w, x, "MIG");
    expect_refused(&w, AT_SCHED_GPU_MODEL,
                   "0 of 1 node fit: 1 GPUModel (n: fewer than 2 parts made by MIG)");
    x = one(&w, &n);
    world_gpus(&w, n, 2, "T4", 16 * GIB);
    n->status.gpus.items[1].parent = "GPU-9";
    wants(x)->gpu_milli = 1000;
    shares(&w, x, "MIG");
    world_schedule(&w);
    assert_int_equal(world_decision(&w, "x")->gpus[0].index, 1);
    world_done(&w);
}

static void gives_nothing_of_gpus_that_failed(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    world_gpus(&w, n, 2, "T4", 16 * GIB);
    n->status.gpus.items[0].fault = "its driver told of XID 79";
    wants(x)->gpu_milli = 2000;
    expect_refused(&w, AT_SCHED_GPU,
                   "0 of 1 node fit: 1 NotEnoughGPU (n: 1 whole GPUs free, 2 wanted)");
    x = one(&w, &n);
    world_gpus(&w, n, 2, "T4", 16 * GIB);
    n->status.gpus.items[0].fault = "its driver told of XID 79";
    wants(x)->gpu_milli = 500;
    world_schedule(&w);
    assert_int_equal(world_decision(&w, "x")->gpus[0].index, 1);
    world_done(&w);
}

static void holds_back_past_max_skew(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    world_site(&w, "a", "edge", "EU");
    world_site(&w, "b", "edge", "EU");
    world_node(&w, "a1", "a", 8000, GIB);
    world_node(&w, "b1", "b", 1000, GIB); /* full: it still counts as the emptiest site */
    world_bind(world_instance(&w, "full", NULL, 1000), "b1", 1);
    world_bind(world_instance(&w, "old", "web", 1000), "a1", 2);
    struct at_instance *x = world_instance(&w, "x", "web", 1000);
    places(x)->max_skew = 1;
    world_schedule(&w);
    assert_string_equal(
        world_decision(&w, "x")->message,
        "0 of 2 nodes fit: 1 NotEnoughCPU (b1: 0 cpu free, 1 wanted), 1 MaxSkew (a1: already 1 "
        "ahead of the emptiest site)");
    w.nodes[1]->spec.unschedulable = true; /* a cordoned site does not hold others back */
    world_schedule(&w);
    assert_string_equal(world_where(&w, "x"), "a1");
    world_done(&w);
}

static void spreads_over_sites_then_over_nodes(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    struct at_site *cheap = world_site(&w, "cheap", "public", "EU");
    world_price(&w, cheap, 10);
    world_price(&w, world_site(&w, "dear", "public", "EU"), 1000);
    world_node(&w, "c1", "cheap", 8000, 8 * GIB);
    world_node(&w, "c2", "cheap", 8000, 8 * GIB);
    world_node(&w, "d1", "dear", 8000, 8 * GIB);
    world_instance(&w, "x1", "web", 1000);
    world_instance(&w, "x2", "web", 1000);
    world_instance(&w, "x3", "web", 1000);
    world_schedule(&w);
    assert_string_equal(world_where(&w, "x1"), "c1");
    assert_string_equal(world_where(&w, "x2"), "d1");
    assert_string_equal(world_where(&w, "x3"), "c2");
    world_done(&w);
}

static void prefers_cheap_green_and_near_by_the_weights(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    struct at_site *cheap = world_site(&w, "cheap", "public", "EU");
    struct at_site *green = world_site(&w, "green", "public", "EU");
    struct at_site *near = world_site(&w, "near", "edge", "EU");
    world_price(&w, cheap, 100);
    world_price(&w, green, 200);
    world_price(&w, near, 200);
    cheap->spec.carbon_intensity = 700;
    green->spec.carbon_intensity = 30;
    near->spec.carbon_intensity = 700;
    struct at_site_link link = {.site = "near", .latency_ns = 30 * AT_NS_PER_MS};
    cheap->spec.links.items = &link; /* named at the far end only: links hold both ways */
    cheap->spec.links.n = 1;
    world_node(&w, "n-cheap", "cheap", 8000, GIB);
    world_node(&w, "n-green", "green", 8000, GIB);
    world_node(&w, "n-near", "near", 8000, GIB);
    struct at_instance *x = world_instance(&w, "x", NULL, 1000);
    places(x)->latency_from = "near";
    struct at_weights weights = {.price = 1};
    places(x)->weights = &weights;
    world_schedule(&w);
    const struct at_sched_decision *d = world_decision(&w, "x");
    assert_string_equal(d->node->meta.name, "n-cheap");
    assert_int_equal(d->runner_up_parts[AT_SCHED_OBJ_PRICE], 500);
    assert_int_equal(d->parts[AT_SCHED_OBJ_LATENCY], 0); /* weight 0: left out */
    weights = (struct at_weights){.carbon = 1};
    world_schedule(&w);
    d = world_decision(&w, "x");
    assert_string_equal(d->message,
                        "placed on n-green (site green): carbon 970x1, ahead of n-cheap by 670");
    weights = (struct at_weights){.latency = 1};
    world_schedule(&w);
    d = world_decision(&w, "x");
    assert_string_equal(d->node->meta.name, "n-near");
    assert_int_equal(d->runner_up_parts[AT_SCHED_OBJ_LATENCY], 250);
    assert_string_equal(d->runner_up->meta.name, "n-cheap");
    world_done(&w);
}

static void higher_priority_is_served_first(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    wants(x)->cpu_milli = 4000;
    struct at_instance *urgent = world_instance(&w, "y", NULL, 4000);
    urgent->spec.priority = 10;
    world_schedule(&w);
    assert_string_equal(world_where(&w, "y"), "n");
    assert_null(world_where(&w, "x"));
    world_done(&w);
}

static void ended_instances_hold_nothing(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    (void)one(&w, &n);
    struct at_instance *done = world_instance(&w, "done", NULL, 4000);
    world_bind(done, "n", 1);
    done->status.phase = "Succeeded";
    world_schedule(&w);
    assert_string_equal(world_where(&w, "x"), "n");
    world_done(&w);
}

static void says_when_there_is_no_node_at_all(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    (void)one(&w, &n);
    w.n_nodes = 0;
    world_schedule(&w);
    assert_string_equal(world_decision(&w, "x")->message,
                        "0 of 0 nodes fit: no node has joined yet");
    world_done(&w);
}

static void takes_absent_placement_and_resources(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    x->spec.placement = NULL;
    x->spec.resources = NULL;
    world_schedule(&w);
    assert_string_equal(world_where(&w, "x"), "n");
    world_done(&w);
}

static void says_when_the_arena_is_full(void **state)
{
    (void)state;
    struct world w;
    struct at_node *n;
    struct at_instance *x = one(&w, &n);
    struct at_snapshot snap = world_snapshot(&w);
    const struct at_instance *pending[] = {x};
    struct at_arena *tiny = at_arena_new(64);
    struct at_sched_plan plan;
    assert_int_equal(at_schedule(&snap, pending, 1, 0, tiny, &plan), AT_NOMEM);
    at_arena_free(tiny);
    world_done(&w);
}

static struct at_instance *world_parks(struct world *w, const char *name, int64_t memory_bytes)
{
    struct at_gpu_sharing *sharing = WORLD_NEW(w, struct at_gpu_sharing);
    struct at_instance *i = world_instance(w, name, NULL, 100);
    sharing->park_after_ns = AT_NS_PER_S;
    wants(i)->gpu_milli = 500;
    wants(i)->gpu_memory_bytes = memory_bytes;
    i->spec.gpu_sharing = sharing;
    return i;
}

static void world_holds(struct world *w, struct at_instance *i, const char *parking)
{
    struct at_instance_parking *p = WORLD_NEW(w, struct at_instance_parking);
    i->status.gpus.items = world_alloc(w, sizeof *i->status.gpus.items);
    i->status.gpus.n = 1;
    i->status.gpus.items[0] = (struct at_instance_gpu){.milli = wants(i)->gpu_milli,
                                                       .memory_bytes = wants(i)->gpu_memory_bytes};
    p->state = parking;
    i->status.parking = p;
    world_bind(i, "a", 1);
}

/* What is parked must be able to come back: so only what goes away again may have its room. */
static void room_of_what_is_parked_is_for_what_parks(void **state)
{
    (void)state;
    static const char *const STATES[] = {"Resident", "Drained",  "Parking", "Parked",
                                         "Waiting",  "Resuming", "Refused"};
    for (size_t k = 0; k < AT_ARRAY_LEN(STATES); k++) {
        struct world w;
        world_init(&w);
        world_site(&w, "s", "edge", "EU");
        world_gpus(&w, world_node(&w, "a", "s", 8000, 16 * GIB), 1, "L4", 16 * GIB);
        world_holds(&w, world_parks(&w, "first", 12 * GIB), STATES[k]);
        world_parks(&w, "second", 12 * GIB);
        struct at_instance *stays = world_parks(&w, "stays", 12 * GIB);
        stays->spec.gpu_sharing = NULL;
        world_schedule(&w);
        bool parked = strcmp(STATES[k], "Parked") == 0 || strcmp(STATES[k], "Waiting") == 0;
        for (size_t d = 0; d < w.plan.n; d++) {
            bool parks = w.plan.decisions[d].instance != stays;
            assert_int_equal(w.plan.decisions[d].node != NULL, parked && parks);
        }
        assert_int_equal(w.plan.n, 2);
        world_done(&w);
    }
}

/* A third one sees that the second lies where the first was. */
static void room_of_what_is_parked_is_given_once(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    world_site(&w, "s", "edge", "EU");
    world_gpus(&w, world_node(&w, "a", "s", 8000, 16 * GIB), 1, "L4", 16 * GIB);
    world_holds(&w, world_parks(&w, "first", 12 * GIB), "Parked");
    world_parks(&w, "second", 12 * GIB);
    world_parks(&w, "third", 12 * GIB);
    world_schedule(&w);
    size_t placed = 0;
    for (size_t d = 0; d < w.plan.n; d++) {
        placed += w.plan.decisions[d].node != NULL;
    }
    assert_int_equal(placed, 1);
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(places_on_the_only_node_and_says_so),
        cmocka_unit_test(refuses_node_that_is_not_ready),
        cmocka_unit_test(refuses_cordoned_node),
        cmocka_unit_test(refuses_taint_until_it_is_tolerated),
        cmocka_unit_test(refuses_node_without_the_label),
        cmocka_unit_test(refuses_other_sites),
        cmocka_unit_test(refuses_other_site_classes),
        cmocka_unit_test(refuses_other_jurisdictions),
        cmocka_unit_test(refuses_where_the_data_may_not_be),
        cmocka_unit_test(refuses_where_the_site_of_restricted_data_is_unknown),
        cmocka_unit_test(refuses_node_without_the_driver),
        cmocka_unit_test(refuses_for_want_of_cpu),
        cmocka_unit_test(takes_exactly_what_is_left_and_not_a_thousandth_more),
        cmocka_unit_test(over_committed_node_still_takes_what_asks_for_nothing),
        cmocka_unit_test(over_committed_gpus_take_nothing_more),
        cmocka_unit_test(refuses_for_want_of_memory_and_disk),
        cmocka_unit_test(refuses_whole_gpu_when_only_fractions_are_left),
        cmocka_unit_test(packs_fractions_so_that_whole_gpus_stay_free),
        cmocka_unit_test(prefers_the_gpu_that_leaves_the_least_useless),
        cmocka_unit_test(refuses_for_gpu_memory_and_model),
        cmocka_unit_test(refuses_nodes_that_share_gpus_in_another_way),
        cmocka_unit_test(refuses_nodes_whose_way_to_share_gpus_does_not_work),
        cmocka_unit_test(gives_nothing_of_gpus_that_failed),
        cmocka_unit_test(room_of_what_is_parked_is_for_what_parks),
        cmocka_unit_test(room_of_what_is_parked_is_given_once),
        cmocka_unit_test(holds_back_past_max_skew),
        cmocka_unit_test(spreads_over_sites_then_over_nodes),
        cmocka_unit_test(prefers_cheap_green_and_near_by_the_weights),
        cmocka_unit_test(higher_priority_is_served_first),
        cmocka_unit_test(ended_instances_hold_nothing),
        cmocka_unit_test(says_when_there_is_no_node_at_all),
        cmocka_unit_test(takes_absent_placement_and_resources),
        cmocka_unit_test(says_when_the_arena_is_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
