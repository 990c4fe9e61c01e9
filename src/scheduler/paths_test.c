/* Ways between sites: the fastest, over several links, each way with its own prices. */
#include "world_test.h"

#include "scheduler/paths.h"

#define MS AT_NS_PER_MS

static void link_sites(struct world *w, struct at_site *from, const char *to, int64_t ms,
                       int64_t egress, int64_t mbps)
{
    struct at_site_link *more =
        world_alloc(w, sizeof(struct at_site_link) * (from->spec.links.n + 1));
    for (size_t i = 0; i < from->spec.links.n; i++) {
        more[i] = from->spec.links.items[i];
    }
    more[from->spec.links.n] = (struct at_site_link){.site = to,
                                                     .latency_ns = ms * MS,
                                                     .egress_per_gib_microusd = egress,
                                                     .bandwidth_mbps = mbps};
    from->spec.links.items = more;
    from->spec.links.n++;
}

static void finds_the_fastest_way_over_several_links(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    struct at_site *a = world_site(&w, "a", "edge", "EU");
    struct at_site *b = world_site(&w, "b", "edge", "EU");
    struct at_site *c = world_site(&w, "c", "edge", "EU");
    world_site(&w, "d", "edge", "EU");
    link_sites(&w, a, "b", 10, 90000, 1000);
    link_sites(&w, b, "a", 12, 10000, 500); /* this way it is another price */
    link_sites(&w, b, "c", 10, 5000, 100);
    link_sites(&w, a, "c", 50, 0, 0);
    link_sites(&w, c, "nowhere", 1, 0, 0);
    struct sched_net *net = sched_net_new((const struct at_site *const *)w.sites, 4);
    const struct sched_path *p = sched_net_from(net, "a");
    assert_int_equal(p[0].latency_ns, 0);
    assert_int_equal(p[1].latency_ns, 10 * MS);
    assert_int_equal(p[2].latency_ns, 20 * MS); /* by b */
    assert_int_equal(p[2].egress_microusd_gib, 95000);
    assert_int_equal(p[2].mbps, 100);
    assert_false(p[3].known);
    p = sched_net_from(net, "c"); /* back: c names no link to b, so b's holds */
    assert_int_equal(p[0].latency_ns, 22 * MS);
    assert_int_equal(p[0].egress_microusd_gib, 15000);
    assert_null(sched_net_from(net, "nowhere"));
    assert_null(sched_net_from(net, NULL));
    sched_net_free(net);
    world_done(&w);
}

static void absurd_figures_do_not_overflow(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    struct at_site *a = world_site(&w, "a", "edge", "EU");
    struct at_site *b = world_site(&w, "b", "edge", "EU");
    world_site(&w, "c", "edge", "EU");
    link_sites(&w, a, "b", 0, INT64_MAX, 1);
    a->spec.links.items[0].latency_ns = INT64_MAX;
    link_sites(&w, b, "c", 0, INT64_MAX, 1);
    b->spec.links.items[0].latency_ns = INT64_MAX;
    struct sched_net *net = sched_net_new((const struct at_site *const *)w.sites, 3);
    const struct sched_path *p = sched_net_from(net, "a");
    assert_true(p[2].known);
    assert_true(p[2].latency_ns == INT64_MAX);
    assert_true(p[2].egress_microusd_gib == INT64_MAX);
    sched_net_free(net);
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_the_fastest_way_over_several_links),
        cmocka_unit_test(absurd_figures_do_not_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
