/* Reading traces, and replays: by hand, on small data of our own, and, where $ATOLL_DATA is,
 * against the published results. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/buf.h"
#include "core/mem.h"
#include "sim/plot.h"
#include "sim/sim.h"
#include "sys/file.h"

#define NODES_HEAD "sn,cpu_milli,memory_mib,gpu,model\n"
#define PODS_HEAD                                                                                  \
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,creation_time,deletion_time\n"

struct data {
    struct at_buf nodes, pods, order;
    struct at_trace trace;
    struct at_trace_order arrivals;
};

static void read_file(const char *path, struct at_buf *buf)
{
    struct at_err err = {0};
    at_buf_init(buf, AT_TRACE_FILE_BYTES_MAX);
    if (at_file_read(path, AT_TRACE_FILE_BYTES_MAX, buf, &err) != AT_OK) {
        fail_msg("%s", err.msg);
    }
}

static void read_trace(struct data *d, const char *nodes, const char *pods)
{
    struct at_err err = {0};
    *d = (struct data){0};
    read_file(nodes, &d->nodes);
    read_file(pods, &d->pods);
    if (at_trace_read_nodes(&d->trace, nodes, (struct at_str){d->nodes.data, d->nodes.len}, &err) ||
        at_trace_read_pods(&d->trace, pods, (struct at_str){d->pods.data, d->pods.len}, &err)) {
        fail_msg("%s", err.msg);
    }
}

static void data_done(struct data *d)
{
    at_trace_order_done(&d->arrivals);
    at_trace_done(&d->trace);
    at_buf_done(&d->nodes);
    at_buf_done(&d->pods);
    at_buf_done(&d->order);
}

static struct at_replay replay(const struct data *d, enum at_pack_policy policy, bool churn)
{
    struct at_replay_options options = {.policy = policy, .churn = churn};
    struct at_replay out = {0};
    struct at_err err = {0};
    struct at_sim *sim = at_sim_new(1);
    if (at_replay_run(&d->trace, &d->arrivals, &options, at_sim_sys(sim), &out, &err) != AT_OK) {
        fail_msg("%s", err.msg);
    }
    at_sim_free(sim);
    return out;
}

/* What reading these texts says is wrong; empty: nothing. */
static const char *complaint(const char *nodes, const char *pods, const char *order)
{
    static struct at_err err;
    struct at_trace t = {0};
    struct at_trace_order o = {0};
    err = (struct at_err){0};
    enum at_rc rc = at_trace_read_nodes(&t, "nodes.csv", at_str_of(nodes), &err);
    if (rc == AT_OK) {
        rc = at_trace_read_pods(&t, "pods.csv", at_str_of(pods), &err);
    }
    if (rc == AT_OK && order != NULL) {
        rc = at_trace_read_order(&t, "order.txt", at_str_of(order), &o, &err);
    }
    assert_true(rc == AT_OK || rc == AT_INVALID);
    at_trace_order_done(&o);
    at_trace_done(&t);
    return err.msg;
}

static void errors_name_file_and_line(void **state)
{
    (void)state;
    const char *nodes = NODES_HEAD "a,1000,10,2,T4\nb,1000,10,1,L4\n";
    const char *pods = PODS_HEAD "p,500,0,1,500,T4|L4,0,10\r\nq,1,0,0,0,,5,5\n";
    assert_string_equal(complaint(nodes, pods, "nodes 1 0\npods 0 1 1\n"), "");
    static const struct {
        const char *nodes, *pods, *order, *says;
    } BAD[] = {
        {"", NULL, NULL, "nodes.csv:1: the file is empty"},
        {NODES_HEAD, NULL, NULL, "nodes.csv:1: no node"},
        {"sn,cpu_milli,gpu,model\n", NULL, NULL, "nodes.csv:1: no column 'memory_mib'"},
        {"sn,sn,cpu_milli,memory_mib,gpu,model\n", NULL, NULL, "nodes.csv:1: a column twice"},
        {NODES_HEAD "a,1000,10,2\n", NULL, NULL, "nodes.csv:2: 4 fields, the header has 5"},
        {NODES_HEAD "a,-5,10,2,T4\n", NULL, NULL, "nodes.csv:2: cpu_milli has to be"},
        {NODES_HEAD "a,1e3,10,2,T4\n", NULL, NULL, "nodes.csv:2: cpu_milli has to be"},
        {NODES_HEAD "a,1000,10,17,T4\n", NULL, NULL, "nodes.csv:2: gpu has to be"},
        {NODES_HEAD "a,1000,10,1,T4\n\nb,1000,10,1,T4\n", NULL, NULL, "nodes.csv:3: an empty line"},
        {NODES_HEAD "\"a,1000,10,1,T4\n", NULL, NULL, "nodes.csv:2: a quote that is not closed"},
        {NODES_HEAD "\"a\"b,1000,10,1,T4\n", NULL, NULL, "nodes.csv:2: text behind a closing"},
        {NULL, PODS_HEAD "p,1,1,1,0,,0,1\n", NULL, "pods.csv:2: num_gpu and gpu_milli"},
        {NULL, PODS_HEAD "p,1,1,1,1001,,0,1\n", NULL, "pods.csv:2: gpu_milli has to be"},
        {NULL, PODS_HEAD "p,1,1,1,100,,9,1\n", NULL, "pods.csv:2: deleted before"},
        {NULL, PODS_HEAD "p,1,1,1,100,,,1\n", NULL, "pods.csv:2: creation_time has to be"},
        {NULL, PODS_HEAD ",1,1,1,100,,0,1\n", NULL, "pods.csv:2: a pod without a name"},
        {NULL, NULL, "nodes 0 0\npods 0\n", "order.txt:1: node 0 stands there twice"},
        {NULL, NULL, "nodes 0\npods 0\n", "order.txt:1: 1 nodes, the list has 2"},
        {NULL, NULL, "nodes 0 2\npods 0\n", "order.txt:1: entry 2 is not a row below 2"},
        {NULL, NULL, "nodes 0 1\nlist 0\n", "order.txt:2: the line has to begin with 'pods '"},
        {NULL, NULL, "nodes 0 1\npods 0\nx\n", "order.txt:3: two lines"},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(BAD); i++) {
        const char *says = complaint(BAD[i].nodes != NULL ? BAD[i].nodes : nodes,
                                     BAD[i].pods != NULL ? BAD[i].pods : pods, BAD[i].order);
        if (strncmp(says, BAD[i].says, strlen(BAD[i].says)) != 0) {
            fail_msg("'%s' is not '%s'", says, BAD[i].says);
        }
    }
}

static void columns_are_found_by_name(void **state)
{
    (void)state;
    struct at_trace t = {0};
    const char *nodes = "model,gpu,other,memory_mib,cpu_milli,sn\nT4,2,x,30,4000,a\n";
    const char *pods = "num_gpu,gpu_milli,cpu_milli,memory_mib,name\n1,250,100,7,p\n";
    assert_int_equal(at_trace_read_nodes(&t, "n", at_str_of(nodes), NULL), AT_OK);
    assert_int_equal(at_trace_read_pods(&t, "p", at_str_of(pods), NULL), AT_OK);
    assert_int_equal(t.nodes[0].cpu_milli, 4000);
    assert_int_equal(t.nodes[0].memory_mib, 30);
    assert_int_equal(t.nodes[0].gpus, 2);
    assert_int_equal(t.pods[0].request.gpu_milli, 250);
    assert_int_equal(t.pods[0].request.memory_mib, 7);
    assert_false(t.has_times);
    at_trace_done(&t);
}

static void what_a_spreadsheet_writes_is_read(void **state)
{
    (void)state;
    struct at_trace t = {0};
    const char *nodes = "\xef\xbb\xbf" NODES_HEAD "\"a, rack 1\",1000,10,1,\"T4\"\r\n\r\n\n";
    const char *pods = PODS_HEAD "\"p\",500,0,1,500,\"T4|L4\",0,10\n\n";
    assert_int_equal(at_trace_read_nodes(&t, "n", at_str_of(nodes), NULL), AT_OK);
    assert_int_equal(at_trace_read_pods(&t, "p", at_str_of(pods), NULL), AT_OK);
    assert_int_equal(t.n_nodes, 1);
    assert_true(at_str_eq(t.node_names[0], "a, rack 1"));
    assert_int_equal(t.n_pods, 1);
    assert_true(at_str_eq(t.pods[0].name, "p"));
    at_trace_done(&t);
}

/* Two GPUs; the whole-GPU pods p, q, r arrive: demand 50, 100, 150 %. */
static void the_curve_is_sampled_after_each_arrival(void **state)
{
    (void)state;
    struct data d = {0};
    struct at_err err;
    const char *nodes = NODES_HEAD "a,8000,100,1,T4\nb,8000,100,1,T4\n";
    const char *pods =
        PODS_HEAD "p,1000,1,1,1000,,0,10\nq,1000,1,1,500,,0,10\nr,0,0,1,1000,,0,10\n";
    assert_int_equal(at_trace_read_nodes(&d.trace, "n", at_str_of(nodes), &err), AT_OK);
    assert_int_equal(at_trace_read_pods(&d.trace, "p", at_str_of(pods), &err), AT_OK);
    assert_int_equal(at_trace_read_order(&d.trace, "o", at_str_of("nodes 1 0\npods 0 1 1 2\n"),
                                         &d.arrivals, &err),
                     AT_OK);
    struct at_replay r = replay(&d, AT_PACK_BESTFIT, false);
    assert_int_equal(r.n, 4);
    assert_int_equal(r.points[0].node_row, 1); /* a tie: the first by rank */
    assert_true(fabs(r.points[1].allocated - 75) < 1e-9);
    assert_true(fabs(r.alloc100 - 100) < 1e-9); /* after the third */
    assert_int_equal(r.unscheduled, 1);
    assert_false(r.points[3].placed);
    assert_true(fabs(r.points[3].demand - 150) < 1e-9);
    at_replay_done(&r);
    data_done(&d);
}

static void small_trace(struct data *d)
{
    read_trace(d, AT_SOURCE_ROOT "/src/sim/testdata/nodes.csv",
               AT_SOURCE_ROOT "/src/sim/testdata/pods.csv");
}

static void the_shuffle_keeps_the_published_rule(void **state)
{
    (void)state;
    struct data d;
    small_trace(&d);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        for (double share = 0.3; share < 2; share += 1) {
            struct at_trace_order o;
            int64_t sum = 0, target = (int64_t)(share * (double)at_trace_gpu_milli(&d.trace));
            at_trace_shuffle(&d.trace, seed, share, &o);
            for (size_t i = 0; i < o.n_pods; i++) {
                const struct at_pack_request *r = &d.trace.pods[o.pods[i]].request;
                sum += (int64_t)r->gpus * r->gpu_milli;
            }
            assert_true(sum <= target + 7000); /* the rule's own overshoot */
            assert_true(sum > target - 9000);
            at_trace_order_done(&o);
        }
    }
    data_done(&d);
}

static void churn_gives_everything_back_that_left(void **state)
{
    (void)state;
    struct data d;
    small_trace(&d);
    at_trace_shuffle(&d.trace, 3, 1.3, &d.arrivals);
    for (int policy = 0; policy < AT_PACK_POLICY_COUNT; policy++) {
        struct at_replay r = replay(&d, (enum at_pack_policy)policy, true);
        struct at_replay again = replay(&d, (enum at_pack_policy)policy, true);
        assert_int_equal(r.n, 10 * d.arrivals.n_pods);
        assert_true(fabs(r.points[r.n - 1].demand - 130) < 5);
        for (size_t i = 0; i < r.n; i++) {
            assert_true(r.points[i].allocated <= r.points[i].demand + 1e-9);
            assert_true(r.points[i].fragmented <= 100 - r.points[i].allocated + 1e-9);
            assert_int_equal(r.points[i].node_row, again.points[i].node_row);
        }
        at_replay_done(&r);
        at_replay_done(&again);
    }
    data_done(&d);
}

static void what_waits_is_placed_when_there_is_room(void **state)
{
    (void)state;
    struct data d;
    small_trace(&d);
    at_trace_shuffle(&d.trace, 5, 1.3, &d.arrivals);
    struct at_replay_options options = {.policy = AT_PACK_ATOLL, .churn = true, .wait = true};
    struct at_replay waited = {0}, dropped = replay(&d, AT_PACK_ATOLL, true);
    struct at_sim *sim = at_sim_new(1);
    struct at_err err = {0};
    assert_int_equal(at_replay_run(&d.trace, &d.arrivals, &options, at_sim_sys(sim), &waited, &err),
                     AT_OK);
    at_sim_free(sim);
    size_t never = 0;
    for (size_t i = 0; i < waited.n; i++) {
        never += !waited.points[i].placed;
    }
    assert_int_equal(never, waited.unscheduled);
    assert_int_equal(never, waited.points[waited.n - 1].waiting);
    assert_true(never > 0);
    assert_true(waited.alloc_mean > dropped.alloc_mean); /* somebody always waits for room */
    assert_int_equal(dropped.points[dropped.n - 1].waiting, 0);
    at_replay_done(&waited);
    at_replay_done(&dropped);
    data_done(&d);
}

static void a_replay_is_written_and_drawn(void **state)
{
    (void)state;
    struct data d;
    small_trace(&d);
    at_trace_shuffle(&d.trace, 1, 1.3, &d.arrivals);
    struct at_replay r = replay(&d, AT_PACK_ATOLL, false);
    AT_CLEANUP(at_cleanup_buf) struct at_buf csv = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf svg = {0};
    size_t lines = 0;
    char last[96];
    assert_int_equal(at_replay_csv(&r, &csv), AT_OK);
    for (size_t i = 0; i < csv.len; i++) {
        lines += csv.data[i] == '\n';
    }
    assert_int_equal(lines, r.n + 1);
    snprintf(last, sizeof last, ",%zu\n", r.unscheduled);
    assert_string_equal(csv.data + csv.len - strlen(last), last);
    assert_int_equal(at_replay_svg(&r, "a<b>&c", &svg), AT_OK);
    assert_non_null(strstr(svg.data, "a&#60;b&#62;&#38;c"));
    assert_string_equal(svg.data + svg.len - 7, "</svg>\n");
    at_replay_done(&r);
    data_done(&d);
}

static void ours_packs_the_small_trace_better_than_bestfit(void **state)
{
    (void)state;
    struct data d;
    double ours = 0, bestfit = 0;
    small_trace(&d);
    for (uint64_t seed = 1; seed <= 10; seed++) {
        at_trace_order_done(&d.arrivals);
        at_trace_shuffle(&d.trace, seed, 1.3, &d.arrivals);
        struct at_replay a = replay(&d, AT_PACK_ATOLL, false);
        struct at_replay b = replay(&d, AT_PACK_BESTFIT, false);
        ours += a.alloc130;
        bestfit += b.alloc130;
        at_replay_done(&a);
        at_replay_done(&b);
    }
    assert_true(ours > bestfit);
    data_done(&d);
}

/* --- with $ATOLL_DATA --- */

static const char *data_root(void)
{
    const char *root = at_sys_getenv("ATOLL_DATA");
    char path[512];
    snprintf(path, sizeof path, "%s/openb/expected_sweep.csv", root != NULL ? root : "");
    if (root == NULL || !at_file_exists(path)) {
        print_message("skipped: $ATOLL_DATA does not name the folder with openb/\n");
        skip();
    }
    return root;
}

static void openb(struct data *d, const char *trace, int seed)
{
    char nodes[512], pods[512], order[512];
    struct at_err err = {0};
    const char *root = data_root();
    snprintf(nodes, sizeof nodes, "%s/openb/openb_node_list_gpu_node.csv", root);
    snprintf(pods, sizeof pods, "%s/openb/openb_pod_list_%s.csv", root, trace);
    snprintf(order, sizeof order, "%s/openb/orders/%s_seed%d.txt", root, trace, seed);
    read_trace(d, nodes, pods);
    read_file(order, &d->order);
    struct at_str text = {d->order.data, d->order.len};
    if (at_trace_read_order(&d->trace, order, text, &d->arrivals, &err) != AT_OK) {
        fail_msg("%s", err.msg);
    }
}

static void all_policies_allocate_as_published(void **state)
{
    (void)state;
    static const char *const NAMES[] = {"FGD", "BestFit", "DotProd", "GpuPacking", "GpuClustering"};
    char path[512], trace[32], policy[32];
    struct at_buf sweep;
    int seed, n = 0;
    double a100, a130, frag;
    size_t fail, pods;
    snprintf(path, sizeof path, "%s/openb/expected_sweep.csv", data_root());
    read_file(path, &sweep);
    struct at_str rest = {sweep.data, sweep.len};
    at_str_cut(&rest, '\n');
    while (rest.len > 0 && sscanf(rest.ptr, "%31[^,],%d,%31[^,],%lf,%lf,%lf,%zu,%zu", trace, &seed,
                                  policy, &a100, &a130, &frag, &fail, &pods) == 8) {
        struct data d;
        int p = 0;
        while (strcmp(NAMES[p], policy) != 0) {
            p++;
        }
        openb(&d, trace, seed);
        struct at_replay r = replay(&d, (enum at_pack_policy)p, false);
        assert_int_equal(lround(100 * r.alloc100), lround(100 * a100));
        assert_int_equal(lround(100 * r.alloc130), lround(100 * a130));
        assert_int_equal(lround(100 * r.frag100), lround(100 * frag));
        assert_int_equal(r.unscheduled, fail);
        assert_int_equal(r.n, pods);
        at_replay_done(&r);
        data_done(&d);
        at_str_cut(&rest, '\n');
        n++;
    }
    assert_int_equal(n, 30);
    at_buf_done(&sweep);
}

static void fgd_decides_as_the_published_simulator(void **state)
{
    (void)state;
    char path[512];
    struct data d;
    struct at_buf expected;
    snprintf(path, sizeof path, "%s/openb/orders/expected_place_fgd_default_seed42.csv",
             data_root());
    openb(&d, "default", 42);
    read_file(path, &expected);
    struct at_replay r = replay(&d, AT_PACK_FGD, false);
    struct at_str rest = {expected.data, expected.len};
    at_str_cut(&rest, '\n');
    for (size_t i = 0; i < r.n; i++) {
        char line[64];
        struct at_str want = at_str_cut(&rest, '\n');
        snprintf(line, sizeof line, "%zu,%u,%d", i, d.arrivals.pods[i],
                 r.points[i].placed ? (int)r.points[i].node_row : -1);
        if (!at_str_eq(want, line)) {
            fail_msg("'%s' is not '%.*s'", line, (int)want.len, want.ptr);
        }
    }
    assert_int_equal(rest.len, 0);
    at_replay_done(&r);
    at_buf_done(&expected);
    data_done(&d);
}

static void ours_allocates_more_than_fgd_on_each_given_trace(void **state)
{
    (void)state;
    static const char *const TRACES[] = {"default", "gpushare60"};
    for (size_t t = 0; t < AT_ARRAY_LEN(TRACES); t++) {
        for (int seed = 42; seed <= 44; seed++) {
            struct data d;
            openb(&d, TRACES[t], seed);
            struct at_replay fgd = replay(&d, AT_PACK_FGD, false);
            struct at_replay ours = replay(&d, AT_PACK_ATOLL, false);
            assert_true(ours.alloc100 > fgd.alloc100 + 0.3); /* two deviations of FGD and more */
            assert_true(ours.alloc130 > fgd.alloc130 + 0.3);
            assert_true(ours.frag100 < fgd.frag100);
            at_replay_done(&fgd);
            at_replay_done(&ours);
            data_done(&d);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_name_file_and_line),
        cmocka_unit_test(columns_are_found_by_name),
        cmocka_unit_test(what_a_spreadsheet_writes_is_read),
        cmocka_unit_test(the_curve_is_sampled_after_each_arrival),
        cmocka_unit_test(the_shuffle_keeps_the_published_rule),
        cmocka_unit_test(churn_gives_everything_back_that_left),
        cmocka_unit_test(what_waits_is_placed_when_there_is_room),
        cmocka_unit_test(a_replay_is_written_and_drawn),
        cmocka_unit_test(ours_packs_the_small_trace_better_than_bestfit),
        cmocka_unit_test(all_policies_allocate_as_published),
        cmocka_unit_test(fgd_decides_as_the_published_simulator),
        cmocka_unit_test(ours_allocates_more_than_fgd_on_each_given_trace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
