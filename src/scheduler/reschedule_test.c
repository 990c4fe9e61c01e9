/* Moves that pay for themselves, and no others. */
#include "scheduler/reschedule.h"
#include "world_test.h"

#define HOUR (3600 * AT_NS_PER_S)
#define NOW (1000 * HOUR)

struct shift {
    struct world w;
    struct at_deployment *deployments[WORLD_MAX];
    size_t n_deployments;
    struct at_rescheduling policy;
    const struct at_queue *const *queues; /* one, or NULL */
    struct at_snapshot snap;
    struct at_reschedule_plan plan;
};

static void shift_init(struct shift *m)
{
    memset(m, 0, sizeof(*m));
    world_init(&m->w);
    m->snap = world_snapshot(&m->w);
    m->policy = *at_reschedule_policy(&m->snap);
    m->policy.max_moves_per_pass = 50;
}

static struct at_instance *runs(struct shift *m, const char *name, const char *owner,
                                int64_t cpu_milli, const char *node)
{
    struct at_instance *i = world_instance(&m->w, name, owner, cpu_milli);
    struct at_owner_ref *ref = i->meta.owners.items;
    ref->uid = at_arena_printf(m->w.arena, "uid-%s", owner);
    world_bind(i, at_arena_strdup(m->w.arena, node), NOW - HOUR);
    i->status.ready = true;
    for (size_t k = 0; k < m->n_deployments; k++) {
        struct at_deployment *d = m->deployments[k];
        if (at_streq(d->meta.name, owner)) {
            d->spec.replicas++;
            d->status.replicas = d->status.ready_replicas = d->status.updated_replicas =
                d->spec.replicas;
            return i;
        }
    }
    struct at_deployment *d = WORLD_NEW(&m->w, struct at_deployment);
    d->meta = (struct at_meta){
        .name = at_arena_strdup(m->w.arena, owner), .ns = "default", .uid = ref->uid};
    d->spec.replicas = d->status.replicas = d->status.ready_replicas = d->status.updated_replicas =
        1;
    m->deployments[m->n_deployments++] = d;
    return i;
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const struct at_deployment *const *)a)->meta.name,
                  (*(const struct at_deployment *const *)b)->meta.name);
}
static int by_instance(const void *a, const void *b)
{
    return strcmp((*(const struct at_instance *const *)a)->meta.name,
                  (*(const struct at_instance *const *)b)->meta.name);
}

static size_t look(struct shift *m)
{
    qsort(m->deployments, m->n_deployments, sizeof(m->deployments[0]), by_name);
    qsort(m->w.instances, m->w.n_instances, sizeof(m->w.instances[0]), by_instance);
    m->snap = world_snapshot(&m->w);
    m->snap.deployments = (const struct at_deployment *const *)m->deployments;
    m->snap.n_deployments = m->n_deployments;
    m->snap.queues = m->queues;
    m->snap.n_queues = m->queues != NULL;
    assert_int_equal(at_reschedule(&m->snap, &m->policy, 1000, NOW, m->w.arena, &m->plan), AT_OK);
    int64_t net = 0;
    for (size_t k = 0; k < m->plan.n; k++) {
        net += m->plan.moves[k].gain_microusd - m->plan.moves[k].cost_microusd;
        assert_non_null(m->plan.moves[k].message);
    }
    assert_true(m->plan.n == 0 || net >= m->policy.min_gain_microusd);
    return m->plan.n;
}

static void apply(struct shift *m)
{
    for (size_t k = 0; k < m->plan.n; k++) {
        struct at_instance *i = (struct at_instance *)(uintptr_t)m->plan.moves[k].instance;
        world_bind(i, m->plan.moves[k].to->meta.name, NOW);
        i->status.ready = true;
        i->status.gpus.n = 0;
    }
}

static void pieces_of_gpus_become_whole(void **state)
{
    (void)state;
    struct shift m;
    shift_init(&m);
    (void)world_site(&m.w, "s", "onprem", "EU");
    for (int k = 0; k < 2; k++) {
        char name[8];
        snprintf(name, sizeof(name), "n%d", k);
        world_gpus(&m.w, world_node(&m.w, name, "s", 8000, 8 * GIB), 1, "T4", 16 * GIB);
        char owner[8];
        snprintf(owner, sizeof(owner), "o%d", k);
        wants(runs(&m, k == 0 ? "i0" : "i1", owner, 1000, name))->gpu_milli = 500;
    }
    assert_int_equal(look(&m), 1);
    assert_int_equal(m.plan.moves[0].reason, AT_RESCHEDULE_DEFRAGMENT);
    assert_true(m.plan.after_microusd < m.plan.before_microusd);
    apply(&m);
    assert_int_equal(look(&m), 0);
    world_done(&m.w);
}

static void nodes_are_emptied_when_all_on_them_fit_elsewhere(void **state)
{
    (void)state;
    struct shift m;
    shift_init(&m);
    (void)world_site(&m.w, "s", "onprem", "EU");
    (void)world_node(&m.w, "n0", "s", 4000, 8 * GIB);
    (void)world_node(&m.w, "n1", "s", 4000, 8 * GIB);
    (void)runs(&m, "a", "oa", 1000, "n0");
    (void)runs(&m, "b", "ob", 1000, "n0");
    (void)runs(&m, "c", "oc", 1000, "n0");
    (void)runs(&m, "d", "od", 500, "n1");
    (void)runs(&m, "e", "oe", 500, "n1");
    assert_int_equal(look(&m), 2); /* d and e only pay together */
    for (size_t k = 0; k < 2; k++) {
        assert_string_equal(m.plan.moves[k].to->meta.name, "n0");
        assert_int_equal(m.plan.moves[k].reason, AT_RESCHEDULE_EMPTY);
    }
    m.policy.max_moves_per_pass = 1; /* half of it is worth nothing */
    assert_int_equal(look(&m), 0);
    m.policy.max_moves_per_pass = 50;
    m.policy.empty_node_hour_microusd = 0;
    assert_int_equal(look(&m), 0);
    world_done(&m.w);
}

static void a_move_must_pay_for_itself(void **state)
{
    (void)state;
    struct shift m;
    shift_init(&m);
    world_price(&m.w, world_site(&m.w, "a-dear", "public", "EU"), 100000);
    world_price(&m.w, world_site(&m.w, "b-cheap", "onprem", "EU"), 10000);
    (void)world_node(&m.w, "d", "a-dear", 4000, 8 * GIB);
    (void)world_node(&m.w, "c", "b-cheap", 4000, 8 * GIB);
    struct at_instance *i = runs(&m, "i", "o", 1000, "d");
    assert_int_equal(look(&m), 1); /* 0.09 an hour for a day */
    assert_int_equal(m.plan.moves[0].reason, AT_RESCHEDULE_PRICE);
    assert_int_equal(m.plan.moves[0].gain_microusd, 24 * 90000);
    m.policy.horizon_ns = HOUR / 20; /* too short to pay for it */
    assert_int_equal(look(&m), 0);
    m.policy.horizon_ns = 24 * HOUR;
    struct at_site_link link = {.site = "b-cheap", .egress_per_gib_microusd = 1000000};
    struct at_data_item data = {.size_bytes = 3 * GIB};
    m.w.sites[0]->spec.links.items = &link;
    m.w.sites[0]->spec.links.n = 1;
    i->spec.data.items = &data;
    i->spec.data.n = 1;
    assert_int_equal(look(&m), 0); /* 3 dollars of egress */
    data.size_bytes = GIB;
    assert_int_equal(look(&m), 1);
    world_done(&m.w);
}

static void who_may_not_be_where_it_is_moves(void **state)
{
    (void)state;
    static struct at_taint taint = {.key = "old", .effect = "NoSchedule"};
    struct shift m;
    shift_init(&m);
    (void)world_site(&m.w, "s", "onprem", "EU");
    struct at_node *n = world_node(&m.w, "n0", "s", 4000, 8 * GIB);
    (void)world_node(&m.w, "n1", "s", 4000, 8 * GIB);
    (void)runs(&m, "i", "o", 1000, "n0");
    assert_int_equal(look(&m), 0);
    n->spec.taints.items = &taint;
    n->spec.taints.n = 1;
    assert_int_equal(look(&m), 1);
    assert_int_equal(m.plan.moves[0].reason, AT_RESCHEDULE_VIOLATION);
    apply(&m);
    m.policy.cool_down_ns = 0;
    assert_int_equal(look(&m), 0);
    world_done(&m.w);
}

static void copies_do_not_crowd_and_skew_is_mended(void **state)
{
    (void)state;
    struct shift m;
    shift_init(&m);
    (void)world_site(&m.w, "s", "onprem", "EU");
    (void)world_node(&m.w, "n0", "s", 4000, 8 * GIB);
    (void)world_node(&m.w, "n1", "s", 4000, 8 * GIB);
    (void)runs(&m, "a", "o", 1000, "n0");
    (void)runs(&m, "b", "o", 1000, "n1");
    assert_int_equal(look(&m), 0); /* one node would do, but the copies are spread */
    for (int k = 0; k < 2; k++) {
        struct at_instance *c = runs(&m, k == 0 ? "c" : "d", "o", 1000, "n0");
        places(c)->max_skew = 1;
        places(c)->spread_by = "node";
    }
    (void)look(&m);
    assert_int_equal(m.plan.n, 1); /* 3 and 1 become 2 and 2 */
    assert_int_equal(m.plan.moves[0].reason, AT_RESCHEDULE_VIOLATION);
    world_done(&m.w);
}

static void some_are_left_alone(void **state)
{
    (void)state;
    static struct at_gang gang = {.name = "g", .size = 2};
    static struct at_taint taint = {.key = "old", .effect = "NoSchedule"};
    struct shift m;
    shift_init(&m);
    (void)world_site(&m.w, "s", "onprem", "EU");
    struct at_node *n = world_node(&m.w, "n0", "s", 4000, 8 * GIB);
    (void)world_node(&m.w, "n1", "s", 4000, 8 * GIB);
    n->spec.taints.items = &taint;
    n->spec.taints.n = 1;
    struct at_instance *i = runs(&m, "i", "o", 1000, "n0");
    assert_int_equal(look(&m), 1);
    i->status.ready = false;
    assert_int_equal(look(&m), 0);
    i->status.ready = true;
    i->spec.gang = &gang;
    assert_int_equal(look(&m), 0);
    i->spec.gang = NULL;
    i->status.scheduled_at_wall_ns = NOW - 1;
    assert_int_equal(look(&m), 0);
    i->status.scheduled_at_wall_ns = NOW - HOUR;
    m.deployments[0]->status.ready_replicas = 0;
    assert_int_equal(look(&m), 0);
    m.deployments[0]->status.ready_replicas = 1;
    struct at_rollout_strategy no_surge = {.max_surge = 0, .max_unavailable = 1};
    struct at_disruption none = {.max_unavailable = "0"};
    m.deployments[0]->spec.strategy = &no_surge;
    m.deployments[0]->spec.disruption = &none;
    assert_int_equal(look(&m), 0);
    no_surge.max_surge = 1;
    assert_int_equal(look(&m), 1); /* a new copy first: nobody is missed */
    struct at_instance_move off = {.to = "n1", .since_wall_ns = NOW - 1, .replaces = "i"};
    i->status.move = &off; /* called off just now */
    assert_int_equal(look(&m), 0);
    off.since_wall_ns = NOW - AT_RESCHEDULE_AGAIN_NS;
    assert_int_equal(look(&m), 1);
    i->meta.owners.n = 0;
    assert_int_equal(look(&m), 0);
    world_done(&m.w);
}

static void what_has_no_quota_for_two_stays(void **state)
{
    (void)state;
    static struct at_taint taint = {.key = "old", .effect = "NoSchedule"};
    struct at_queue_resource cpu = {.name = "cpu", .nominal = "1"};
    struct at_queue_quota quota = {.resources = {&cpu, 1}};
    struct at_queue queue = {.meta = {.name = "q"}, .spec = {.weight = 1, .quotas = {&quota, 1}}};
    const struct at_queue *queues[] = {&queue};
    struct shift m;
    shift_init(&m);
    (void)world_site(&m.w, "s", "onprem", "EU");
    struct at_node *n = world_node(&m.w, "n0", "s", 4000, 8 * GIB);
    (void)world_node(&m.w, "n1", "s", 4000, 8 * GIB);
    n->spec.taints.items = &taint;
    n->spec.taints.n = 1;
    runs(&m, "i", "o", 1000, "n0")->spec.queue = "q";
    m.queues = queues;
    assert_int_equal(look(&m), 0);
    cpu.nominal = "2";
    assert_int_equal(look(&m), 1);
    world_done(&m.w);
}

struct rng {
    uint64_t x;
};
static int64_t upto(struct rng *r, int64_t n) /* splitmix64, 0..n-1 */
{
    uint64_t z = (r->x += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (int64_t)((z ^ (z >> 31)) % (uint64_t)n);
}

static void random_world(struct shift *m, struct rng *r)
{
    shift_init(m);
    for (int k = 0; k < 3; k++) {
        char name[8];
        snprintf(name, sizeof(name), "s%d", k);
        struct at_site *s = world_site(&m->w, name, "onprem", "EU");
        world_price(&m->w, s, upto(r, 4) * 20000);
        s->spec.carbon_intensity = upto(r, 800);
    }
    for (int k = 0; k < 6; k++) {
        char name[8];
        char site[8];
        snprintf(name, sizeof(name), "n%d", k);
        snprintf(site, sizeof(site), "s%d", (int)upto(r, 3));
        struct at_node *n = world_node(&m->w, name, site, 1000 * (2 + upto(r, 6)), 32 * GIB);
        if (upto(r, 2) == 0) {
            world_gpus(&m->w, n, (size_t)(1 + upto(r, 3)), "T4", 16 * GIB);
        }
    }
    /* What fits, placed at random; first fit by hand so that nothing is over-committed. */
    int64_t cpu[6] = {0};
    int64_t whole[6] = {0};
    for (int k = 0; k < 14; k++) {
        int at = (int)upto(r, 6);
        int64_t want = 250 * (1 + upto(r, 8));
        bool share = m->w.nodes[at]->status.gpus.n > 0 && upto(r, 2) == 0 &&
                     whole[at] < (int64_t)m->w.nodes[at]->status.gpus.n;
        if (cpu[at] + want > m->w.nodes[at]->status.allocatable->cpu_milli) {
            continue;
        }
        char name[8];
        char owner[8];
        snprintf(name, sizeof(name), "i%02d", k);
        snprintf(owner, sizeof(owner), "o%d", (int)upto(r, 9));
        struct at_instance *i = runs(m, name, owner, want, m->w.nodes[at]->meta.name);
        cpu[at] += want;
        if (share) {
            wants(i)->gpu_milli = 100 * (1 + upto(r, 9)); /* each on a GPU of its own at worst */
            whole[at]++;
        }
    }
}

static void each_pass_makes_the_sum_smaller_and_they_come_to_an_end(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct shift m;
        struct rng r = {seed};
        random_world(&m, &r);
        m.policy.cool_down_ns = 0; /* nothing but the gain keeps them where they are */
        int passes = 0;
        while (look(&m) > 0) {
            int64_t costs = 0;
            int64_t after = m.plan.after_microusd;
            for (size_t k = 0; k < m.plan.n; k++) {
                costs += m.plan.moves[k].cost_microusd;
            }
            if (m.plan.before_microusd - after < costs) {
                fail_msg("seed %d: %lld gained for %lld", (int)seed,
                         (long long)(m.plan.before_microusd - after), (long long)costs);
            }
            apply(&m);
            for (size_t k = 0; k < m.w.n_nodes; k++) { /* nothing is over-committed */
                m.snap = world_snapshot(&m.w);
                struct at_sched_free left = at_sched_node_free(&m.snap, m.w.nodes[k]);
                assert_true(left.cpu_milli >= 0);
                assert_true(left.memory_bytes >= 0);
                assert_true(left.gpu_milli >= 0);
            }
            if (++passes > 12) {
                fail_msg("seed %d: it goes on and on", (int)seed);
            }
        }
        world_done(&m.w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_of_gpus_become_whole),
        cmocka_unit_test(nodes_are_emptied_when_all_on_them_fit_elsewhere),
        cmocka_unit_test(a_move_must_pay_for_itself),
        cmocka_unit_test(who_may_not_be_where_it_is_moves),
        cmocka_unit_test(copies_do_not_crowd_and_skew_is_mended),
        cmocka_unit_test(some_are_left_alone),
        cmocka_unit_test(what_has_no_quota_for_two_stays),
        cmocka_unit_test(each_pass_makes_the_sum_smaller_and_they_come_to_an_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
