/* What is pending is decided again when, and only when, something that it waits for changes. */
#include "world_test.h"

/* A kept scheduler that is told of one change at a time; counts what it decides. */
struct rig {
    struct world w;
    struct at_scheduler *sched;
    struct at_snapshot snap;
    int64_t rev;
};

static void rig_start(struct rig *r)
{
    r->sched = at_scheduler_new();
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(struct at_instance *const *)a)->meta.name,
                  (*(struct at_instance *const *)b)->meta.name);
}

static size_t decided(struct rig *r)
{
    qsort(r->w.instances, r->w.n_instances, sizeof r->w.instances[0],
          by_name); /* as snapshots are */
    r->snap = world_snapshot(&r->w);
    r->snap.rev = ++r->rev;
    at_scheduler_update(r->sched, &r->snap);
    assert_int_equal(at_scheduler_plan(r->sched, WORLD_MAX, r->rev, r->w.arena, &r->w.plan), AT_OK);
    return r->w.plan.n;
}

static void rig_done(struct rig *r)
{
    at_scheduler_free(r->sched);
    world_done(&r->w);
}

static void tell_instance(struct rig *r, const struct at_instance *i)
{
    at_scheduler_changed(r->sched, &AT_KIND_INSTANCE, i->meta.ns, i->meta.name);
}
static void tell_node(struct rig *r, const struct at_node *n)
{
    at_scheduler_changed(r->sched, &AT_KIND_NODE, NULL, n->meta.name);
}
static void tell_site(struct rig *r, const struct at_site *s)
{
    at_scheduler_changed(r->sched, &AT_KIND_SITE, NULL, s->meta.name);
}

static struct at_model_map label(struct world *w, const char *key, const char *value)
{
    struct at_model_kv *kv = WORLD_NEW(w, struct at_model_kv);
    *kv = (struct at_model_kv){key, value};
    return (struct at_model_map){kv, 1};
}

/* Instances and nodes are replaced, as the store's watch does, never changed in place. */
static struct at_instance *replaced(struct world *w, const char *name)
{
    for (size_t i = 0; i < w->n_instances; i++) {
        if (at_streq(w->instances[i]->meta.name, name)) {
            struct at_instance *copy = WORLD_NEW(w, struct at_instance);
            *copy = *w->instances[i];
            return w->instances[i] = copy;
        }
    }
    fail_msg("no instance %s", name);
    return NULL;
}
static struct at_node *node_replaced(struct world *w, size_t at)
{
    struct at_node *copy = WORLD_NEW(w, struct at_node);
    *copy = *w->nodes[at];
    return w->nodes[at] = copy;
}
static struct at_site *site_replaced(struct world *w, size_t at)
{
    struct at_site *copy = WORLD_NEW(w, struct at_site);
    *copy = *w->sites[at];
    return w->sites[at] = copy;
}

static void ends(struct rig *r, const char *name)
{
    struct at_instance *i = replaced(&r->w, name);
    i->status.phase = "Succeeded";
    tell_instance(r, i);
}

static struct at_instance *starts(struct rig *r, const char *name, const char *node, int64_t cpu,
                                  const char *app)
{
    struct at_instance *i = world_instance(&r->w, name, NULL, cpu);
    i->meta.labels = label(&r->w, "app", app);
    world_bind(i, node, ++r->rev);
    tell_instance(r, i);
    return i;
}

static struct at_instance *full_cluster(struct rig *r)
{
    *r = (struct rig){.rev = 0};
    world_init(&r->w);
    world_site(&r->w, "s", "edge", "EU");
    world_site(&r->w, "t", "edge", "EU");
    world_node(&r->w, "n1", "s", 4000, 8 * GIB);
    world_node(&r->w, "n2", "t", 4000, 8 * GIB);
    world_bind(world_instance(&r->w, "a", NULL, 3000), "n1", 1);
    world_bind(world_instance(&r->w, "b", NULL, 3000), "n2", 2);
    struct at_instance *x = world_instance(&r->w, "x", NULL, 2000);
    rig_start(r);
    return x;
}

static size_t decided_with(struct rig *r, const struct at_deployment *d)
{
    const struct at_deployment *deployments[] = {d};
    r->snap = world_snapshot(&r->w);
    r->snap.deployments = deployments;
    r->snap.n_deployments = d != NULL;
    r->snap.rev = ++r->rev;
    at_scheduler_update(r->sched, &r->snap);
    assert_int_equal(at_scheduler_plan(r->sched, WORLD_MAX, r->rev, r->w.arena, &r->w.plan), AT_OK);
    return r->w.plan.n;
}

/* web has a copy on each node; its budget allows none to go. */
static struct at_deployment kept_by_a_budget(struct rig *r)
{
    *r = (struct rig){.rev = 0};
    world_init(&r->w);
    world_site(&r->w, "s", "edge", "EU");
    world_node(&r->w, "n1", "s", 4000, 8 * GIB);
    world_node(&r->w, "n2", "s", 4000, 8 * GIB);
    for (int i = 0; i < 2; i++) {
        struct at_instance *a = world_instance(&r->w, i == 0 ? "a" : "b", "web", 3000);
        world_bind(a, i == 0 ? "n1" : "n2", 1);
        a->status.ready = true;
    }
    world_instance(&r->w, "x", NULL, 3000)->spec.priority = 10;
    rig_start(r);
    const struct at_owner_ref *owner = at_meta_controller(&r->w.instances[0]->meta);
    return (struct at_deployment){
        .meta = {.name = "web", .ns = "default", .uid = owner->uid, .generation = 1},
        .spec = {.replicas = 2}};
}

static void one_that_a_budget_keeps_out_waits_for_the_budget(void **state)
{
    (void)state;
    struct rig r;
    struct at_deployment web = kept_by_a_budget(&r), other;
    struct at_disruption none = {.max_unavailable = "0"}, one = {.max_unavailable = "1"};
    web.spec.disruption = &none;
    assert_int_equal(decided_with(&r, &web), 1);
    assert_null(world_decision(&r.w, "x")->nominated);
    assert_int_equal(world_decision(&r.w, "x")->waits_for,
                     AT_SCHED_CHANGE_NODE | AT_SCHED_CHANGE_ROOM | AT_SCHED_CHANGE_BUDGET);
    assert_int_equal(decided_with(&r, &web), 0);
    at_scheduler_changed(r.sched, &AT_KIND_DEPLOYMENT, "default", "web"); /* its status */
    assert_int_equal(decided_with(&r, &web), 0);
    other = web;
    other.spec.disruption = &one;
    other.meta.generation = 2;
    at_scheduler_changed(r.sched, &AT_KIND_DEPLOYMENT, "default", "web");
    assert_int_equal(decided_with(&r, &other), 1);
    assert_non_null(world_decision(&r.w, "x")->nominated);
    rig_done(&r);
}

static void a_budget_goes_with_its_owner(void **state)
{
    (void)state;
    struct rig r;
    struct at_deployment web = kept_by_a_budget(&r);
    struct at_disruption none = {.max_unavailable = "0"};
    web.spec.disruption = &none;
    assert_int_equal(decided_with(&r, &web), 1);
    at_scheduler_changed(r.sched, &AT_KIND_DEPLOYMENT, "default", "other"); /* another's end, */
    assert_int_equal(decided_with(&r, &web), 1);                            /* for all we know */
    assert_null(world_decision(&r.w, "x")->nominated);
    at_scheduler_changed(r.sched, &AT_KIND_DEPLOYMENT, "default", "web"); /* gone; copies stay */
    assert_int_equal(decided_with(&r, NULL), 1);
    assert_non_null(world_decision(&r.w, "x")->nominated);
    rig_done(&r);
}

static void one_that_a_budget_keeps_out_waits_for_copies_to_be_ready(void **state)
{
    (void)state;
    struct rig r;
    struct at_deployment web = kept_by_a_budget(&r);
    struct at_disruption one = {.max_unavailable = "1"};
    web.spec.disruption = &one;
    r.w.instances[1]->status.ready = false;
    wants(r.w.instances[1])->cpu_milli = 500; /* its end would not be enough */
    struct at_instance *top = world_instance(&r.w, "top", NULL, 3500);
    top->spec.priority = 20;
    world_bind(top, "n2", 1);
    assert_int_equal(decided_with(&r, &web), 1);
    assert_null(world_decision(&r.w, "x")->nominated);
    struct at_instance *b = replaced(&r.w, "b");
    b->status.message = "still loading";
    tell_instance(&r, b);
    assert_int_equal(decided_with(&r, &web), 0);
    b = replaced(&r.w, "b");
    b->status.ready = true;
    tell_instance(&r, b);
    assert_int_equal(decided_with(&r, &web), 1);
    assert_string_equal(world_decision(&r.w, "x")->nominated->meta.name, "n1");
    rig_done(&r);
}

static void one_that_waits_for_room_ignores_everything_else(void **state)
{
    (void)state;
    struct rig r;
    full_cluster(&r);
    assert_int_equal(decided(&r), 1);
    assert_null(world_where(&r.w, "x"));
    assert_int_equal(decided(&r), 0); /* nothing at all */
    struct at_node *n = node_replaced(&r.w, 0);
    n->meta.labels = label(&r.w, "rack", "7");
    tell_node(&r, n);
    assert_int_equal(decided(&r), 0); /* a label that it does not ask for */
    n = node_replaced(&r.w, 0);
    n->status.instances = 5;
    tell_node(&r, n);
    assert_int_equal(decided(&r), 0); /* status that no rule looks at */
    struct at_site *s = site_replaced(&r.w, 0);
    world_price(&r.w, s, 12345);
    tell_site(&r, s);
    assert_int_equal(decided(&r), 0); /* a price */
    starts(&r, "c", "n1", 500, "web");
    assert_int_equal(decided(&r), 0); /* less room */
    ends(&r, "c");
    assert_int_equal(decided(&r), 0); /* more, but not enough */
    ends(&r, "a");
    assert_int_equal(decided(&r), 1);
    assert_string_equal(world_where(&r.w, "x"), "n1");
    rig_done(&r);
}

static void one_that_waits_for_a_label_is_woken_by_it(void **state)
{
    (void)state;
    struct rig r;
    struct at_instance *x = full_cluster(&r);
    wants(x)->cpu_milli = 100;
    places(x)->node_selector = label(&r.w, "disk", "ssd");
    assert_int_equal(decided(&r), 1);
    ends(&r, "a");
    assert_int_equal(decided(&r), 0); /* room is not what it lacks */
    struct at_node *n = node_replaced(&r.w, 1);
    n->meta.labels = label(&r.w, "disk", "ssd");
    tell_node(&r, n);
    assert_int_equal(decided(&r), 1);
    assert_string_equal(world_where(&r.w, "x"), "n2");
    rig_done(&r);
}

static void one_that_waits_for_others_is_woken_by_those_only(void **state)
{
    (void)state;
    struct rig r;
    struct at_instance *x = full_cluster(&r);
    struct at_label_selector db = {.match_labels = label(&r.w, "app", "db")};
    struct at_affinity_term term = {.label_selector = &db, .topology = "site"};
    struct at_affinity near = {.required = {&term, 1}};
    wants(x)->cpu_milli = 100;
    places(x)->affinity = &near;
    assert_int_equal(decided(&r), 1);
    starts(&r, "w1", "n1", 100, "web");
    assert_int_equal(decided(&r), 0);
    ends(&r, "w1");
    assert_int_equal(decided(&r), 0);
    struct at_site *s = site_replaced(&r.w, 1);
    s->spec.region = "r"; /* it could be what makes places one */
    tell_site(&r, s);
    assert_int_equal(decided(&r), 1);
    starts(&r, "d1", "n2", 100, "db");
    assert_int_equal(decided(&r), 1);
    assert_string_equal(world_where(&r.w, "x"), "n2");
    rig_done(&r);
}

/* Who comes asks for y, and nobody else there would make room: it waits until another one of y's
 * kind is there. */
static void one_whose_victim_it_asks_for_is_woken_by_another_of_its_kind(void **state)
{
    (void)state;
    struct rig r = {.rev = 0};
    world_init(&r.w);
    world_site(&r.w, "s", "edge", "EU");
    world_node(&r.w, "n1", "s", 4000, 8 * GIB);
    rig_start(&r);
    starts(&r, "y", "n1", 3000, "db")->spec.priority = 1;
    struct at_instance *x = world_instance(&r.w, "x", NULL, 3000);
    struct at_label_selector db = {.match_labels = label(&r.w, "app", "db")};
    struct at_affinity_term term = {.label_selector = &db, .topology = "node"};
    struct at_affinity near = {.required = {&term, 1}};
    places(x)->affinity = &near;
    x->spec.priority = 10;
    tell_instance(&r, x);
    assert_int_equal(decided(&r), 1);
    assert_null(r.w.plan.decisions[0].nominated);
    assert_true((r.w.plan.decisions[0].waits_for & AT_SCHED_CHANGE_PLACED) != 0);
    starts(&r, "other", "n1", 100, "web")->spec.priority = 1;
    assert_int_equal(decided(&r), 0);
    starts(&r, "z", "n1", 500, "db")->spec.priority = 1;
    assert_int_equal(decided(&r), 1);
    assert_non_null(r.w.plan.decisions[0].nominated);
    assert_int_equal(r.w.plan.decisions[0].n_victims, 1);
    assert_string_equal(r.w.plan.decisions[0].victims[0]->meta.name, "y");
    rig_done(&r);
}

static void one_that_is_kept_away_is_woken_when_they_leave(void **state)
{
    (void)state;
    struct rig r;
    struct at_instance *x = full_cluster(&r);
    struct at_label_selector app = {.match_labels = label(&r.w, "app", "x")};
    struct at_affinity_term term = {.label_selector = &app, .topology = "jurisdiction"};
    struct at_affinity away = {.required = {&term, 1}};
    x->meta.labels = label(&r.w, "app", "x");
    wants(x)->cpu_milli = 100;
    places(r.w.instances[0])->anti_affinity = &away;
    assert_int_equal(decided(&r), 1);
    ends(&r, "b");
    assert_int_equal(decided(&r), 0);
    ends(&r, "a");
    assert_int_equal(decided(&r), 1);
    assert_non_null(world_where(&r.w, "x"));
    rig_done(&r);
}

static void a_node_that_joins_and_a_limit_that_rises_wake(void **state)
{
    (void)state;
    struct rig r;
    struct at_instance *x = full_cluster(&r);
    struct at_site_limits limits = {.cpu_milli = 3000};
    r.w.sites[0]->spec.limits = &limits;
    r.w.sites[1]->spec.limits = &limits;
    wants(x)->cpu_milli = 500;
    assert_int_equal(decided(&r), 1);
    assert_int_equal(world_decision(&r.w, "x")->refused[AT_SCHED_SITE_LIMIT], 2);
    struct at_site_limits higher = {.cpu_milli = 3500};
    struct at_site *s = site_replaced(&r.w, 1);
    s->spec.limits = &higher;
    tell_site(&r, s);
    assert_int_equal(decided(&r), 1);
    assert_string_equal(world_where(&r.w, "x"), "n2");
    wants(world_instance(&r.w, "y", NULL, 0))->cpu_milli = 4000;
    tell_instance(&r, r.w.instances[r.w.n_instances - 1]);
    assert_int_equal(decided(&r), 1);
    assert_null(world_where(&r.w, "y"));
    world_site(&r.w, "u", "edge", "EU");
    tell_site(&r, r.w.sites[2]);
    tell_node(&r, world_node(&r.w, "n3", "u", 4000, 8 * GIB));
    assert_int_equal(decided(&r), 1);
    assert_string_equal(world_where(&r.w, "y"), "n3");
    rig_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_that_waits_for_room_ignores_everything_else),
        cmocka_unit_test(one_that_a_budget_keeps_out_waits_for_the_budget),
        cmocka_unit_test(a_budget_goes_with_its_owner),
        cmocka_unit_test(one_that_a_budget_keeps_out_waits_for_copies_to_be_ready),
        cmocka_unit_test(one_that_waits_for_a_label_is_woken_by_it),
        cmocka_unit_test(one_that_waits_for_others_is_woken_by_those_only),
        cmocka_unit_test(one_whose_victim_it_asks_for_is_woken_by_another_of_its_kind),
        cmocka_unit_test(one_that_is_kept_away_is_woken_when_they_leave),
        cmocka_unit_test(a_node_that_joins_and_a_limit_that_rises_wake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
