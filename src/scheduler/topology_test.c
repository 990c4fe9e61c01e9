/* Which GPUs a request gets when they must be near to each other. */
#include "world_test.h"

#include "scheduler/topology.h"

/* Eight GPUs: two NUMA nodes of four, link groups of two. */
static struct at_node *eight(struct world *w)
{
    static const char *const LINKS[] = {"l0", "l0", "l1", "l1", "l2", "l2", "l3", "l3"};
    struct at_node *n = world_node(w, "n", "s", 64000, 256 * GIB);
    world_gpus(w, n, 8, "A100", 80 * GIB);
    n->status.numa_nodes.items = world_alloc(w, 2 * sizeof(struct at_numa_node));
    n->status.numa_nodes.n = 2;
    for (int i = 0; i < 2; i++) {
        n->status.numa_nodes.items[i] =
            (struct at_numa_node){.id = i, .cpu_milli = 32000, .memory_bytes = 128 * GIB};
    }
    for (int i = 0; i < 8; i++) {
        n->status.gpus.items[i].numa_node = i / 4;
        n->status.gpus.items[i].link_group = LINKS[i];
    }
    return n;
}

struct pick {
    enum sched_topology topology;
    size_t count;
    int64_t cpu_milli;
    const char *fits; /* eight of 0 and 1 */
    const char *want; /* "-": refused */
};

static void check(const struct at_node *n, const struct pick *p)
{
    bool fits[8];
    int64_t free_milli[8];
    uint32_t got[8] = {0};
    char text[32] = "";
    for (size_t i = 0; i < 8; i++) {
        fits[i] = p->fits[i] != '0';
        free_milli[i] = (p->fits[i] - '0') * 100;
    }
    struct sched_topology_want want = {p->topology, p->count, p->cpu_milli, GIB, NULL};
    if (sched_topology_choose(n, &want, fits, free_milli, 8, got)) {
        for (size_t i = 0; i < p->count; i++) {
            text[i] = (char)('0' + got[i]);
        }
    } else {
        text[0] = '-';
    }
    if (strcmp(text, p->want) != 0) {
        fail_msg("topology %d, %zu of %s: %s, wanted %s", p->topology, p->count, p->fits, text,
                 p->want);
    }
}

static void gives_gpus_of_one_group_and_keeps_large_groups_whole(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    const struct at_node *n = eight(&w);
    static const struct pick picks[] = {
        {SCHED_TOPOLOGY_SAME_LINK, 2, 0, "99999999", "01"},
        {SCHED_TOPOLOGY_SAME_LINK, 2, 0, "09099099", "67"},
        {SCHED_TOPOLOGY_SAME_LINK, 2, 0, "09090909", "-"},
        {SCHED_TOPOLOGY_SAME_LINK, 3, 0, "99999999", "-"},
        {SCHED_TOPOLOGY_SAME_LINK, 1, 0, "99900099", "2"}, /* the pair's other half is gone */
        {SCHED_TOPOLOGY_SAME_NUMA, 4, 0, "99999999", "0123"},
        {SCHED_TOPOLOGY_SAME_NUMA, 2, 0, "99990099", "67"},
        {SCHED_TOPOLOGY_SAME_NUMA, 4, 0, "99909999", "4567"},
        {SCHED_TOPOLOGY_SAME_NUMA, 4, 0, "99909990", "-"},
        {SCHED_TOPOLOGY_SAME_NUMA, 4, 33000, "99999999", "-"}, /* more CPUs than one node has */
        {SCHED_TOPOLOGY_SAME_NUMA, 0, 32000, "00000000", ""},
        {SCHED_TOPOLOGY_SAME_NUMA, 0, 32001, "00000000", "-"},
        {SCHED_TOPOLOGY_PREFERRED, 2, 0, "09990909", "23"},  /* a link */
        {SCHED_TOPOLOGY_PREFERRED, 2, 0, "09000909", "57"},  /* no link, but one NUMA node */
        {SCHED_TOPOLOGY_PREFERRED, 3, 0, "09000990", "156"}, /* anyhow */
        {SCHED_TOPOLOGY_PREFERRED, 4, 0, "09000990", "-"},
        {SCHED_TOPOLOGY_ANY, 1, 0, "00583000", "4"}, /* the tightest */
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(picks); i++) {
        check(n, &picks[i]);
    }
    world_done(&w);
}

static void what_no_node_tells_is_not_there(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    struct at_node *n = world_node(&w, "n", "s", 64000, 256 * GIB);
    world_gpus(&w, n, 8, "A100", 80 * GIB);
    static const struct pick picks[] = {
        {SCHED_TOPOLOGY_SAME_LINK, 2, 0, "99999999", "-"},
        {SCHED_TOPOLOGY_SAME_LINK, 1, 0, "99999999", "0"},
        {SCHED_TOPOLOGY_SAME_NUMA, 2, 0, "99999999", "-"},
        {SCHED_TOPOLOGY_PREFERRED, 2, 0, "99999999", "01"},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(picks); i++) {
        check(n, &picks[i]);
    }
    world_done(&w);
}

static void scores_how_near_they_are(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    const struct at_node *n = eight(&w);
    assert_int_equal(sched_topology_score(n, (const uint32_t[]){2, 3}, 2), 1000);
    assert_int_equal(sched_topology_score(n, (const uint32_t[]){1, 2}, 2), 700);
    assert_int_equal(sched_topology_score(n, (const uint32_t[]){3, 4}, 2), 0);
    assert_int_equal(sched_topology_score(n, (const uint32_t[]){3}, 1), 1000);
    const bool fits[8] = {true, false, true, true, false, true, true, false};
    assert_int_equal(sched_topology_most(n, SCHED_TOPOLOGY_SAME_LINK, fits, 8), 2);
    assert_int_equal(sched_topology_most(n, SCHED_TOPOLOGY_SAME_NUMA, fits, 8), 3);
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_gpus_of_one_group_and_keeps_large_groups_whole),
        cmocka_unit_test(what_no_node_tells_is_not_there),
        cmocka_unit_test(scores_how_near_they_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
