/* What a pending decision tells beyond its refusals: the nearest miss, and what would make room. */
#include "world_test.h"

static struct at_instance *cluster(struct world *w, size_t nodes)
{
    world_init(w);
    world_site(w, "s", "edge", "EU");
    for (size_t i = 0; i < nodes; i++) {
        char name[24];
        snprintf(name, sizeof name, "n%zu", i + 1);
        world_node(w, name, "s", 4000, 8 * GIB);
    }
    struct at_instance *x = world_instance(w, "x", NULL, 3000);
    x->spec.priority = 10;
    return x;
}

static struct at_instance *runs(struct world *w, const char *name, const char *node, int64_t cpu,
                                int64_t priority)
{
    struct at_instance *i = world_instance(w, name, NULL, cpu);
    i->spec.priority = priority;
    world_bind(i, node, 1);
    return i;
}

static const struct at_sched_decision *decide(struct world *w)
{
    world_schedule(w);
    const struct at_sched_decision *d = world_decision(w, "x");
    assert_null(d->node);
    return d;
}

static const struct at_sched_remedy *remedy(const struct at_sched_decision *d, const char *kind)
{
    for (size_t i = 0; i < d->n_remedies; i++) {
        if (at_streq(d->remedies[i].kind, kind)) {
            return &d->remedies[i];
        }
    }
    fail_msg("no remedy %s for: %s", kind, d->message);
    return NULL;
}

static void tells_which_node_lacks_how_much(void **state)
{
    (void)state;
    struct world w;
    struct at_instance *x = cluster(&w, 2);
    runs(&w, "a", "n1", 2500, 10);
    runs(&w, "b", "n2", 1500, 10);
    const struct at_sched_decision *d = decide(&w);
    assert_string_equal(d->nearest, "n2 lacks 500m cpu");
    assert_false(d->never);
    assert_string_equal(d->remedies[0].kind, "Capacity");
    assert_string_equal(d->remedies[0].message, "n2 lacks 500m cpu");
    assert_string_equal(d->remedies[1].message, "n1 lacks 1500m cpu");
    assert_string_equal(remedy(d, "Node")->message, "1 node more with 3 cpu would do");
    wants(x)->memory_bytes = 10 * GIB;
    wants(x)->cpu_milli = 3500;
    w.nodes[0]->spec.unschedulable = true;
    ((struct at_resources *)w.nodes[1]->status.allocatable)->memory_bytes = 12 * GIB;
    wants(runs(&w, "c", "n2", 0, 10))->memory_bytes = 4 * GIB;
    assert_string_equal(decide(&w)->nearest, "n2 lacks 1 cpu and 2Gi memory");
    world_done(&w);
}

static void tells_what_one_more_node_would_need(void **state)
{
    (void)state;
    struct world w;
    struct at_instance *x = cluster(&w, 1);
    world_gpus(&w, w.nodes[0], 2, "A10", 24 * GIB);
    struct at_instance *old = world_instance(&w, "old", NULL, 0);
    wants(old)->gpu_milli = 1000;
    old->spec.priority = 10;
    world_bind(old, "n1", 1);
    wants(x)->gpu_milli = 2000;
    wants(x)->gpu_memory_bytes = 24 * GIB;
    places(x)->sites = strings_of(&w, "s");
    const struct at_sched_decision *d = decide(&w);
    assert_string_equal(d->nearest, "n1 lacks 1 GPU");
    assert_string_equal(remedy(d, "Node")->message,
                        "1 node more with 2 GPUs of 24Gi and 3 cpu at site s would do");
    world_done(&w);
}

static void counts_the_nodes_that_one_taint_keeps_away(void **state)
{
    (void)state;
    struct world w;
    cluster(&w, 4);
    struct at_taint taints[] = {{.key = "gpu", .value = "only", .effect = "NoSchedule"},
                                {.key = "old", .effect = "NoExecute"}};
    for (size_t i = 0; i < 4; i++) {
        w.nodes[i]->spec.taints.items = taints;
        w.nodes[i]->spec.taints.n = i == 3 ? 2 : 1; /* n4 has another one too */
    }
    const struct at_sched_decision *d = decide(&w);
    assert_string_equal(d->nearest, "without the taint gpu=only it would fit on 3 nodes");
    assert_int_equal(remedy(d, "Taint")->nodes, 3);
    world_done(&w);
}

static void tells_the_one_thing_that_is_in_the_way(void **state)
{
    (void)state;
    struct world w;
    struct at_instance *x = cluster(&w, 2);
    w.nodes[0]->spec.unschedulable = true;
    static struct at_condition lost = {
        .type = "Ready", .status = "False", .reason = "HeartbeatLost"};
    w.nodes[1]->status.conditions.items = &lost;
    const struct at_sched_decision *d = decide(&w);
    assert_string_equal(d->nearest, "it would fit on n1, were that not cordoned");
    assert_string_equal(d->remedies[1].message,
                        "it would fit on n2, were that ready (HeartbeatLost)");
    w.nodes[0]->spec.unschedulable = false;
    struct at_model_kv disk = {"disk", "ssd"};
    places(x)->node_selector = (struct at_model_map){&disk, 1};
    d = decide(&w);
    assert_string_equal(d->nearest, "on n1 only one thing is in the way: label disk=ssd missing");
    assert_string_equal(remedy(d, "Label")->node, "n1");
    w.nodes[0]->spec.unschedulable = true;
    assert_string_equal(decide(&w)->nearest,
                        "n1 is nearest, where 2 things are in the way: cordoned; label disk=ssd "
                        "missing");
    world_done(&w);
}

static void names_the_instances_that_would_have_to_go(void **state)
{
    (void)state;
    struct world w;
    cluster(&w, 1);
    runs(&w, "small", "n1", 500, 0);
    runs(&w, "large", "n1", 2000, 5);
    runs(&w, "equal", "n1", 500, 10);
    const struct at_sched_remedy *r = remedy(decide(&w), "Preempt");
    assert_string_equal(r->message,
                        "the end of 1 instance of lower priority on n1 would make room: "
                        "default/large");
    assert_int_equal(r->n_instances, 1); /* the small one need not go as well */
    assert_string_equal(r->instances[0]->meta.name, "large");
    w.instances[2]->spec.priority = 10; /* now nobody of lower priority is large enough */
    const struct at_sched_decision *d = decide(&w);
    for (size_t i = 0; i < d->n_remedies; i++) {
        assert_string_not_equal(d->remedies[i].kind, "Preempt");
    }
    world_done(&w);
}

static void names_the_whole_gang_that_would_have_to_go(void **state)
{
    (void)state;
    struct world w;
    cluster(&w, 2);
    struct at_gang gang = {.name = "g", .size = 2};
    runs(&w, "g1", "n1", 3000, 0);
    runs(&w, "g2", "n2", 3000, 0);
    w.instances[w.n_instances - 2]->spec.gang = &gang;
    w.instances[w.n_instances - 1]->spec.gang = &gang;
    const struct at_sched_remedy *r = remedy(decide(&w), "Preempt");
    assert_string_equal(
        r->message, "the end of 1 instance of lower priority on n1 would make room: default/g1; "
                    "with it ends the other of the gang: default/g2");
    assert_int_equal(r->n_instances, 2);
    assert_string_equal(r->instances[1]->meta.name, "g2");
    world_done(&w);
}

static void tells_what_keeps_those_that_would_have_to_go(void **state)
{
    (void)state;
    struct world w;
    struct at_instance *x = cluster(&w, 1);
    struct at_instance *a = world_instance(&w, "a", "web", 3000);
    world_bind(a, "n1", 1);
    a->status.ready = true;
    static struct at_disruption budget = {.min_available = "1"};
    const char *uid = at_meta_controller(&a->meta)->uid;
    struct at_deployment web = {.meta = {.name = "web", .ns = "default", .uid = (char *)uid},
                                .spec = {.replicas = 1, .disruption = &budget}};
    const struct at_deployment *deployments[] = {&web};
    struct at_snapshot snap = world_snapshot(&w);
    snap.deployments = deployments;
    snap.n_deployments = 1;
    const struct at_instance *pending[] = {x};
    assert_int_equal(at_schedule(&snap, pending, 1, 0, w.arena, &w.plan), AT_OK);
    const struct at_sched_decision *d = world_decision(&w, "x");
    assert_null(d->nominated);
    assert_string_equal(remedy(d, "Preempt")->message,
                        "the end of 1 instance of lower priority on n1 would make room: default/a; "
                        "the disruption budget of Deployment web does not allow it now");
    x->spec.preemption_policy = "Never";
    snap.n_deployments = 0;
    assert_int_equal(at_schedule(&snap, pending, 1, 0, w.arena, &w.plan), AT_OK);
    d = world_decision(&w, "x");
    assert_null(d->nominated);
    assert_string_equal(remedy(d, "Preempt")->message,
                        "the end of 1 instance of lower priority on n1 would make room: default/a; "
                        "preemptionPolicy Never leaves them alone");
    world_done(&w);
}

static void names_who_holds_the_devices_wanted(void **state)
{
    (void)state;
    struct world w;
    struct at_instance *x = cluster(&w, 1);
    struct at_model_kv has = {"example.com/fpga", "2"}, wanted = {"example.com/fpga", "1"},
                       more = {"example.com/fpga", "3"};
    ((struct at_resources *)w.nodes[0]->status.allocatable)->extended =
        (struct at_model_map){&has, 1};
    struct at_instance *a = runs(&w, "a", "n1", 0, 0), *b = runs(&w, "b", "n1", 0, 1);
    wants(a)->extended = wants(b)->extended = wants(x)->extended =
        (struct at_model_map){&wanted, 1};
    const struct at_sched_remedy *r = remedy(decide(&w), "Preempt");
    assert_int_equal(r->n_instances, 1);
    assert_string_equal(r->instances[0]->meta.name, "a");
    wants(x)->extended = (struct at_model_map){&more, 1};
    const struct at_sched_decision *d = decide(&w);
    assert_true(d->never);
    assert_string_equal(d->nearest, "no node is large enough, even when empty: the largest has 2 "
                                    "example.com/fpga, 3 wanted");
    world_done(&w);
}

static void says_that_room_is_being_made(void **state)
{
    (void)state;
    struct world w;
    cluster(&w, 1);
    struct at_instance *a = runs(&w, "a", "n1", 3000, 0);
    a->meta.deletion_wall_ns = 1;
    const struct at_sched_decision *d = decide(&w);
    for (size_t i = 0; i < d->n_remedies; i++) {
        assert_true(d->remedies[i].n_instances == 0); /* it ends already */
    }
    assert_non_null(d->nominated);
    assert_non_null(strstr(d->message, "waits for room on n1, which is being made; 0 of 1 node"));
    world_done(&w);
}

static void names_who_holds_the_gpus_wanted(void **state)
{
    (void)state;
    struct world w;
    struct at_instance *x = cluster(&w, 1);
    world_gpus(&w, w.nodes[0], 2, "A10", 24 * GIB);
    struct at_instance_gpu held[] = {{.index = 0, .milli = 1000}, {.index = 1, .milli = 300}};
    struct at_instance *a = runs(&w, "a", "n1", 0, 1);
    struct at_instance *b = runs(&w, "b", "n1", 0, 0);
    wants(a)->gpu_milli = 1000;
    wants(b)->gpu_milli = 300;
    a->status.gpus.items = &held[0];
    b->status.gpus.items = &held[1];
    a->status.gpus.n = b->status.gpus.n = 1;
    wants(x)->gpu_milli = 1000;
    const struct at_sched_remedy *r = remedy(decide(&w), "Preempt");
    assert_int_equal(r->n_instances, 1);
    assert_string_equal(r->instances[0]->meta.name, "b");
    world_done(&w);
}

static void says_at_once_that_no_node_is_large_enough(void **state)
{
    (void)state;
    struct world w;
    struct at_instance *x = cluster(&w, 2);
    wants(x)->cpu_milli = 64000;
    w.nodes[1]->spec.unschedulable = true; /* whether it may take it does not matter */
    const struct at_sched_decision *d = decide(&w);
    assert_true(d->never);
    assert_string_equal(d->nearest,
                        "no node is large enough, even when empty: the largest has 4 cpu, 64 "
                        "wanted");
    wants(x)->cpu_milli = 4000;
    runs(&w, "old", "n1", 4000, 0);
    assert_false(decide(&w)->never);
    wants(x)->gpu_milli = 8000;
    d = decide(&w);
    assert_true(d->never);
    assert_string_equal(d->nearest,
                        "no node is large enough, even when empty: the largest has 0 GPUs, 8 "
                        "wanted");
    world_done(&w);
}

static void names_the_gpu_memory_that_no_gpu_has(void **state)
{
    (void)state;
    struct world w;
    struct at_instance *x = cluster(&w, 2);
    world_gpus(&w, w.nodes[0], 2, "A10", 24 * GIB);
    wants(x)->gpu_milli = 1000;
    wants(x)->gpu_memory_bytes = 80 * GIB;
    const struct at_sched_decision *d = decide(&w);
    assert_true(d->never);
    assert_string_equal(d->nearest,
                        "no node is large enough, even when empty: the largest has 24Gi memory on "
                        "a GPU, 80Gi wanted");
    world_done(&w);
}

static void waits_for_what_could_help_only(void **state)
{
    (void)state;
    struct world w;
    struct at_instance *x = cluster(&w, 1);
    runs(&w, "a", "n1", 2500, 10);
    assert_int_equal(decide(&w)->waits_for, AT_SCHED_CHANGE_NODE | AT_SCHED_CHANGE_ROOM);
    wants(x)->cpu_milli = 0;
    places(x)->site_classes = strings_of(&w, "hpc");
    assert_int_equal(decide(&w)->waits_for, AT_SCHED_CHANGE_NODE | AT_SCHED_CHANGE_SITE);
    places(x)->site_classes.n = 0;
    w.nodes[0]->spec.unschedulable = true;
    assert_int_equal(decide(&w)->waits_for, AT_SCHED_CHANGE_NODE);
    assert_string_equal(at_sched_change_name(AT_SCHED_CHANGE_NODE), "NodeChange");
    world_done(&w);
}

/* Copies that wait alike are looked into once: what is told of each is the same. */
static void tells_the_same_of_each_copy(void **state)
{
    (void)state;
    struct world w;
    cluster(&w, 1);
    w.n_instances = 0;
    for (int i = 0; i < 3; i++) {
        char name[8];
        snprintf(name, sizeof name, "c%d", i);
        world_instance(&w, name, "web", 3000);
    }
    world_schedule(&w);
    assert_non_null(world_where(&w, "c0"));
    assert_string_equal(world_decision(&w, "c1")->nearest, "n1 lacks 2 cpu");
    assert_string_equal(world_decision(&w, "c2")->nearest, "n1 lacks 2 cpu");
    assert_int_equal(world_decision(&w, "c2")->n_remedies, world_decision(&w, "c1")->n_remedies);
    world_done(&w);
}

/* --- what is told is true: done as told, it finds a place --- */

struct advice {
    struct world *w;
    struct at_node *node;
    struct at_instance *x;
};

static void give(struct advice *a, double amount, const char *unit, const char *what)
{
    struct at_resources *r = (struct at_resources *)a->node->status.allocatable;
    int64_t bytes = (int64_t)(amount * (at_streq(unit, "Gi") ? (double)GIB : 1024.0 * 1024.0));
    if (at_streq(what, "cpu")) {
        r->cpu_milli += (int64_t)(at_streq(unit, "m") ? amount : amount * 1000);
    } else if (at_streq(what, "memory")) {
        r->memory_bytes += bytes;
    } else if (at_streq(what, "GPU") || at_streq(what, "GPUs")) {
        size_t n = a->node->status.gpus.n, more = (size_t)amount;
        struct at_node_gpu *gpus = world_alloc(a->w, sizeof *gpus * (n + more));
        memcpy(gpus, a->node->status.gpus.items, sizeof *gpus * n);
        for (size_t i = n; i < n + more; i++) {
            gpus[i] = (struct at_node_gpu){
                .id = "new", .model = "A10", .memory_bytes = wants(a->x)->gpu_memory_bytes};
        }
        a->node->status.gpus.items = gpus;
        a->node->status.gpus.n = n + more;
        r->gpu_milli += (int64_t)more * 1000;
    } else if (at_streq(what, "of GPU memory")) {
        for (size_t i = 0; i < a->node->status.gpus.n; i++) {
            a->node->status.gpus.items[i].memory_bytes += bytes;
        }
    } else if (at_streq(what, "example.com/fpga") || at_streq(what, "example.com/key")) {
        for (size_t i = 0; i < r->extended.n; i++) {
            if (at_streq(r->extended.items[i].key, what)) {
                r->extended.items[i].value = at_arena_printf(
                    a->w->arena, "%d", atoi(r->extended.items[i].value) + (int)amount);
            }
        }
    } else {
        fail_msg("'%s' is not known", what);
    }
}

/* "n1 lacks 500m cpu, 2Gi memory and 1 GPU" */
static void follow(struct advice *a, const char *text)
{
    const char *at = strstr(text, " lacks ");
    assert_non_null(at);
    for (at += 7; *at != '\0';) {
        char *rest, unit[4] = "", what[40] = "";
        double amount = strtod(at, &rest);
        assert_true(amount > 0);
        size_t n = strspn(rest, "mKMGi");
        snprintf(unit, sizeof unit, "%.*s", (int)n, rest);
        rest += n + 1;
        const char *comma = strstr(rest, ", "), *and = strstr(rest, " and ");
        n = comma != NULL ? (size_t)(comma - rest)
            : and != NULL ? (size_t)(and-rest)
                          : strlen(rest);
        snprintf(what, sizeof what, "%.*s", (int)n, rest);
        at = rest + n + (comma != NULL ? 2 : and != NULL ? 5 : 0);
        give(a, amount, unit, what);
    }
}

static uint64_t draw(uint64_t *x, uint64_t below)
{
    *x = *x * 6364136223846793005u + 1442695040888963407u;
    return (*x >> 33) % below;
}

/* Small nodes with all kinds of things, some of them over-committed by hand. */
static struct at_instance *random_cluster(struct world *w, uint64_t *x)
{
    world_init(w);
    world_site(w, "s", "edge", "EU");
    size_t nodes = 1 + draw(x, 4);
    for (size_t i = 0; i < nodes; i++) {
        char name[24];
        snprintf(name, sizeof name, "n%zu", i + 1);
        struct at_node *n = world_node(w, name, "s", 1000 * (int64_t)(2 + draw(x, 4)),
                                       GIB * (int64_t)(4 + draw(x, 4)));
        world_gpus(w, n, 1 + draw(x, 4), "A10", GIB * (int64_t)(8 + 8 * draw(x, 2)));
        struct at_model_kv *kv = world_alloc(w, 2 * sizeof *kv);
        kv[0] = (struct at_model_kv){"example.com/fpga", draw(x, 2) ? "1" : "3"};
        kv[1] = (struct at_model_kv){"example.com/key", draw(x, 2) ? "2" : "4"};
        ((struct at_resources *)n->status.allocatable)->extended = (struct at_model_map){kv, 2};
        for (size_t k = 0; k < 1 + draw(x, 3); k++) {
            snprintf(name, sizeof name, "h%zu-%zu", i, k);
            struct at_instance *held = runs(w, name, n->meta.name, 500 * (int64_t)draw(x, 6), 100);
            wants(held)->memory_bytes = GIB * (int64_t)draw(x, 4);
        }
    }
    struct at_instance *i = world_instance(w, "x", NULL, 500 * (int64_t)draw(x, 6));
    wants(i)->memory_bytes = GIB * (int64_t)draw(x, 6);
    wants(i)->gpu_milli = 1000 * (int64_t)draw(x, 4);
    wants(i)->gpu_memory_bytes = wants(i)->gpu_milli > 0 ? GIB * (int64_t)(4 * draw(x, 5)) : 0;
    struct at_model_kv *kv = world_alloc(w, 2 * sizeof *kv);
    kv[0] = (struct at_model_kv){"example.com/fpga", draw(x, 2) ? "1" : "2"};
    kv[1] = (struct at_model_kv){"example.com/key", draw(x, 2) ? "1" : "3"};
    wants(i)->extended = (struct at_model_map){kv, draw(x, 3)};
    return i;
}

static void done_as_told_it_finds_a_place(void **state)
{
    (void)state;
    size_t followed = 0;
    for (uint64_t seed = 1; seed <= 400; seed++) {
        struct world w;
        uint64_t x = seed;
        struct at_instance *i = random_cluster(&w, &x);
        world_schedule(&w);
        const struct at_sched_decision *d = world_decision(&w, "x");
        for (size_t k = 0; d->node == NULL && k < d->n_remedies; k++) {
            if (!at_streq(d->remedies[k].kind, "Capacity")) {
                continue;
            }
            struct advice a = {&w, NULL, i};
            for (size_t n = 0; n < w.n_nodes; n++) {
                a.node = at_streq(w.nodes[n]->meta.name, d->remedies[k].node) ? w.nodes[n] : a.node;
            }
            const char *told = d->remedies[k].message;
            follow(&a, told);
            world_schedule(&w);
            d = world_decision(&w, "x");
            if (d->node == NULL) {
                fail_msg("seed %llu: '%s' was done, and now: %s", (unsigned long long)seed, told,
                         d->message);
            }
            assert_string_equal(d->node->meta.name, a.node->meta.name);
            followed++;
        }
        world_done(&w);
    }
    assert_true(followed > 50);
}

static void a_node_more_is_told_of_where_it_would_help(void **state)
{
    (void)state;
    struct world w;
    struct at_instance *x = cluster(&w, 1);
    world_site(&w, "t", "edge", "EU");
    world_node(&w, "m1", "t", 1000, 8 * GIB);
    struct at_model_kv db = {"app", "db"};
    const struct at_label_selector selector = {.match_labels = {&db, 1}};
    runs(&w, "a", "n1", 2500, 10)->meta.labels = (struct at_model_map){&db, 1};
    struct at_affinity_term away = {.label_selector = &selector, .topology = "site"};
    struct at_affinity anti = {.required = {&away, 1}};
    places(x)->anti_affinity = &anti;
    assert_string_equal(remedy(decide(&w), "Node")->message,
                        "1 node more with 3 cpu at site t would do");
    runs(&w, "b", "m1", 500, 10)->meta.labels = (struct at_model_map){&db, 1};
    const struct at_sched_decision *d = decide(&w);
    for (size_t i = 0; i < d->n_remedies; i++) {
        assert_string_not_equal(d->remedies[i].kind, "Node"); /* it would be refused too */
    }
    places(x)->anti_affinity = NULL;
    struct at_model_kv disk = {"disk", "ssd"};
    places(x)->node_selector.items = &disk;
    places(x)->node_selector.n = 1;
    assert_string_equal(remedy(decide(&w), "Node")->message,
                        "1 node more with 3 cpu and the label disk=ssd would do");
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tells_which_node_lacks_how_much),
        cmocka_unit_test(tells_what_one_more_node_would_need),
        cmocka_unit_test(counts_the_nodes_that_one_taint_keeps_away),
        cmocka_unit_test(tells_the_one_thing_that_is_in_the_way),
        cmocka_unit_test(names_the_instances_that_would_have_to_go),
        cmocka_unit_test(names_the_whole_gang_that_would_have_to_go),
        cmocka_unit_test(tells_what_keeps_those_that_would_have_to_go),
        cmocka_unit_test(names_who_holds_the_gpus_wanted),
        cmocka_unit_test(names_who_holds_the_devices_wanted),
        cmocka_unit_test(says_that_room_is_being_made),
        cmocka_unit_test(says_at_once_that_no_node_is_large_enough),
        cmocka_unit_test(names_the_gpu_memory_that_no_gpu_has),
        cmocka_unit_test(waits_for_what_could_help_only),
        cmocka_unit_test(tells_the_same_of_each_copy),
        cmocka_unit_test(done_as_told_it_finds_a_place),
        cmocka_unit_test(a_node_more_is_told_of_where_it_would_help),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
