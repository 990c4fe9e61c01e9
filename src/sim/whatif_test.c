/* What-if replays: conservation, sameness, what each what-if does, and the files they read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/mem.h"
#include "core/units.h"
#include "sim/report.h"
#include "sim/sim.h"
#include "sys/file.h"

#define HEAD "{\"atollTrace\":1,\"start\":\"2026-01-01T00:00:00Z\"}\n"
#define SITE(name, more)                                                                           \
    "{\"ms\":0,\"put\":{\"apiVersion\":\"atoll.dev/v1\",\"kind\":\"Site\",\"metadata\":{\"name\":" \
    "\"" name "\"},\"spec\":{\"class\":\"edge\",\"jurisdiction\":\"EU\"" more "}}}\n"
#define NODE(name, site, cpu, gpus)                                                                \
    "{\"ms\":0,\"put\":{\"apiVersion\":\"atoll.dev/v1\",\"kind\":\"Node\",\"metadata\":{\"name\":" \
    "\"" name "\"},\"spec\":{\"site\":\"" site "\"},\"status\":{\"allocatable\":{\"cpu\":\"" cpu   \
    "\",\"memory\":\"64Gi\"" gpus "},\"drivers\":[{\"name\":\"process\",\"ready\":true}],"         \
    "\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\"}]}}}\n"
#define ASK(ms, name, owner, cpu)                                                                  \
    "{\"ms\":" ms ",\"request\":{\"metadata\":{\"name\":\"" name "\",\"namespace\":\"default\","   \
    "\"creationTimestamp\":\"2026-01-01T00:00:00Z\"" owner "},\"spec\":{\"command\":[\"x\"],"      \
    "\"resources\":{\"cpu\":\"" cpu "\"}}}}\n"
#define PLACED(ms, name, node)                                                                     \
    "{\"ms\":" ms ",\"placed\":{\"namespace\":\"default\",\"name\":\"" name "\",\"node\":\"" node  \
    "\"}}\n"
#define ENDED(ms, name)                                                                            \
    "{\"ms\":" ms ",\"ended\":{\"namespace\":\"default\",\"name\":\"" name "\"}}\n"
#define OF_JOB                                                                                     \
    ",\"ownerReferences\":[{\"apiVersion\":\"atoll.dev/v1\",\"kind\":\"Job\",\"name\":\"j\","      \
    "\"uid\":\"u\",\"controller\":true}]"

static struct at_fleet *read_fleet(const char *text)
{
    struct at_fleet *fleet = NULL;
    struct at_err err = {0};
    if (at_fleet_read("t", at_str_of(text), &fleet, &err) != AT_OK) {
        fail_msg("%s", err.msg);
    }
    return fleet;
}

static struct at_fleet *small_fleet(enum at_fleet_arrivals arrivals, double load)
{
    struct at_buf nodes = {0}, pods = {0};
    struct at_trace t = {0};
    struct at_fleet *fleet = NULL;
    struct at_err err = {0};
    struct at_fleet_openb how = {arrivals, load, 3, 7};
    const char *folder = AT_SOURCE_ROOT "/src/sim/testdata";
    char path[512];
    snprintf(path, sizeof path, "%s/nodes.csv", folder);
    assert_int_equal(at_file_read(path, 1 << 20, &nodes, &err), AT_OK);
    snprintf(path, sizeof path, "%s/pods.csv", folder);
    assert_int_equal(at_file_read(path, 1 << 20, &pods, &err), AT_OK);
    assert_int_equal(at_trace_read_nodes(&t, "n", (struct at_str){nodes.data, nodes.len}, &err), 0);
    assert_int_equal(at_trace_read_pods(&t, "p", (struct at_str){pods.data, pods.len}, &err), 0);
    assert_int_equal(at_fleet_from_openb(&t, &how, &fleet, &err), AT_OK);
    at_trace_done(&t);
    at_buf_done(&nodes);
    at_buf_done(&pods);
    return fleet;
}

static struct at_whatif_result run(struct at_fleet *fleet, const struct at_whatif *what)
{
    struct at_whatif_result r = {0};
    struct at_err err = {0};
    struct at_sim *sim = at_sim_new(1);
    if (at_whatif_run(fleet, what, at_sim_sys(sim), &r, &err) != AT_OK) {
        fail_msg("%s", err.msg);
    }
    at_sim_free(sim);
    return r;
}

static struct at_whatif of_policy(int policy) /* AT_PACK_POLICY_COUNT: live */
{
    struct at_whatif what = {.demand = 1};
    what.live = policy == AT_PACK_POLICY_COUNT;
    what.policy = what.live ? AT_PACK_ATOLL : (enum at_pack_policy)policy;
    return what;
}

/* Nobody leaves: what is allocated in the end is the sum of what was placed, none twice. */
static void what_is_allocated_is_the_sum_of_what_was_placed(void **state)
{
    (void)state;
    for (int policy = 0; policy <= AT_PACK_POLICY_COUNT; policy++) {
        struct at_fleet *f = small_fleet(AT_FLEET_FILLING, 1.3);
        struct at_whatif what = of_policy(policy);
        what.drop = policy % 2 == 0;
        struct at_whatif_result r = run(f, &what);
        AT_CLEANUP(at_cleanup_free) bool *seen = at_alloc(f->n_requests);
        int64_t milli = 0, cpu = 0;
        for (size_t i = 0; i < r.n_placements; i++) {
            uint32_t q = r.placements[i].request;
            const struct at_pack_request *p = &f->classes[f->requests[q].class_id].pack;
            assert_false(seen[q]);
            seen[q] = true;
            milli += (int64_t)p->gpus * p->gpu_milli;
            cpu += p->cpu_milli;
        }
        const struct at_whatif_point *last = &r.points[r.n_points - 1];
        assert_int_equal(r.placed, r.n_placements);
        assert_int_equal(r.placed + r.unplaced, f->n_requests);
        assert_true(r.unplaced > 0);
        assert_true(fabs(last->allocated_gpus - (double)milli / 1000) < 1e-6);
        assert_true(fabs(last->allocated_cores - (double)cpu / 1000) < 1e-6);
        for (size_t i = 0; i < r.n_points; i++) {
            const struct at_whatif_point *p = &r.points[i];
            assert_true(p->allocated_gpus <= p->capacity_gpus + 1e-9);
            assert_true(p->fragmented_gpus <= p->capacity_gpus - p->allocated_gpus + 1e-6);
        }
        at_whatif_done(&r);
        at_fleet_free(f);
    }
}

static char *everything(const struct at_whatif *what)
{
    struct at_fleet *f = small_fleet(AT_FLEET_EVEN, 1.2);
    struct at_scenario scenario = {.what = *what};
    struct at_whatif_result r = run(f, what);
    struct at_report report = {"t", &scenario, &r, (const struct at_fleet *const *)&f, 1};
    struct at_buf out = {0};
    json_t *json = at_report_json(&report);
    assert_int_equal(at_json_dump(json, &out), AT_OK);
    assert_int_equal(at_report_text(&report, &out), AT_OK);
    assert_int_equal(at_report_csv(&report, &out), AT_OK);
    assert_int_equal(at_report_placements(&report, &out), AT_OK);
    assert_int_equal(at_report_svg(&report, &out), AT_OK);
    assert_string_equal(out.data + out.len - 7, "</svg>\n");
    json_decref(json);
    at_whatif_done(&r);
    at_fleet_free(f);
    return at_buf_steal(&out, NULL);
}

static void the_same_input_gives_the_same_bytes(void **state)
{
    (void)state;
    for (int policy = AT_PACK_ATOLL; policy <= AT_PACK_POLICY_COUNT; policy++) {
        struct at_whatif what = of_policy(policy);
        what.demand = 1.3;
        what.losses[what.n_losses++] = (struct at_whatif_loss){"cluster", 200000};
        what.adds[what.n_adds++] = (struct at_whatif_add){"A100", "", 3, 4};
        AT_CLEANUP(at_cleanup_free) char *a = everything(&what);
        AT_CLEANUP(at_cleanup_free) char *b = everything(&what);
        assert_string_equal(a, b);
    }
}

/* Two sites of two nodes; four services of 3 cores. */
static const char TWO_SITES[] = HEAD SITE("a", "") SITE("b", "") NODE("a1", "a", "8", "")
    NODE("a2", "a", "8", "") NODE("b1", "b", "8", "") NODE("b2", "b", "8", "")
        ASK("10", "s1", "", "3") ASK("10", "s2", "", "3") ASK("10", "s3", "", "3")
            ASK("10", "s4", "", "3") ENDED("90000", "s1") "{\"ms\":100000,\"end\":{}}\n";

static void who_loses_a_site_is_placed_on_what_is_left(void **state)
{
    (void)state;
    for (int policy = AT_PACK_ATOLL; policy <= AT_PACK_POLICY_COUNT; policy++) {
        struct at_fleet *f = read_fleet(TWO_SITES);
        struct at_whatif what = of_policy(policy);
        what.losses[what.n_losses++] = (struct at_whatif_loss){"a", 50000};
        struct at_whatif_result r = run(f, &what);
        assert_int_equal(r.placed, 4);
        assert_true(r.evicted > 0);
        assert_int_equal(r.rebound, r.evicted);
        assert_int_equal(r.rebound_ms, 0);
        for (size_t i = 0; i < r.n_placements; i++) {
            const char *node = r.node_names[r.placements[i].node];
            assert_true(r.placements[i].at_ms < 50000 || node[0] == 'b');
        }
        const struct at_whatif_point *last = &r.points[r.n_points - 1];
        assert_int_equal(last->running, 3); /* one has ended */
        assert_true(fabs(last->capacity_cores - 16) < 1e-9);
        at_whatif_done(&r);
        at_fleet_free(f);
    }
}

static void demand_and_nodes_can_be_others(void **state)
{
    (void)state;
    struct at_fleet *f = read_fleet(TWO_SITES);
    struct at_whatif what = of_policy(AT_PACK_POLICY_COUNT);
    what.demand = 4;
    struct at_whatif_result r = run(f, &what);
    assert_int_equal(r.requests, 16);
    assert_int_equal(r.placed, 12); /* 8, two a node; 4 more when the copies of s1 have ended */
    at_whatif_done(&r);
    at_fleet_free(f);
    f = read_fleet(TWO_SITES);
    what.adds[what.n_adds++] = (struct at_whatif_add){"cpu", "b", 4, 0};
    r = run(f, &what);
    assert_int_equal(r.placed, 16);
    at_whatif_done(&r);
    at_fleet_free(f);
    f = read_fleet(TWO_SITES);
    struct at_err err = {0};
    struct at_sim *sim = at_sim_new(1);
    snprintf(what.adds[0].site, sizeof what.adds[0].site, "c");
    assert_int_equal(at_whatif_run(f, &what, at_sim_sys(sim), &r, &err), AT_BAD_REQUEST);
    assert_non_null(strstr(err.msg, "no site 'c'"));
    at_sim_free(sim);
    at_fleet_free(f);
}

/* A job runs as long as it did wherever it is and whenever it begins; a service ends when it did.
 */
static void jobs_keep_their_length_and_services_their_end(void **state)
{
    (void)state;
    struct at_fleet *f = read_fleet(
        HEAD SITE("a", "") NODE("a1", "a", "4", "") ASK("0", "s", "", "4") PLACED("5", "s", "a1")
            ASK("10", "j1", OF_JOB, "4") ASK("10", "j2", OF_JOB, "4") ENDED("1000", "s")
                PLACED("1000", "j1", "a1") ENDED("3000", "j1") PLACED("3000", "j2", "a1")
                    ENDED("9000", "j2") "{\"ms\":20000,\"end\":{}}\n");
    struct at_whatif what = of_policy(AT_PACK_POLICY_COUNT);
    what.settle_ms = 20;
    struct at_whatif_result r = run(f, &what);
    static const int64_t AT[] = {5, 1000, 3000};
    assert_int_equal(r.n_placements, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(r.placements[i].request, i);
        assert_in_range(r.placements[i].at_ms, AT[i], AT[i] + 40);
    }
    assert_true(r.wait_max_s >= 2.9 && r.wait_max_s <= 3.1);
    assert_int_equal(r.points[r.n_points - 1].running, 0);
    at_whatif_done(&r);
    at_fleet_free(f);
}

#define ASK_AS(ms, name, spec)                                                                     \
    "{\"ms\":" ms ",\"request\":{\"metadata\":{\"name\":\"" name "\",\"namespace\":\"default\","   \
    "\"creationTimestamp\":\"2026-01-01T00:00:00Z\"},\"spec\":{\"command\":[\"x\"],"               \
    "\"resources\":{\"cpu\":\"4\"}," spec "}}}\n"

/* Who has to go for others runs on for its grace, and only then is there room. */
static void victims_go_with_their_grace(void **state)
{
    (void)state;
    struct at_fleet *f = read_fleet(
        HEAD SITE("a", "") NODE("a1", "a", "4", "")
            ASK_AS("0", "low", "\"terminationGracePeriod\":\"30s\"")
                ASK_AS("1000", "high", "\"priority\":10") "{\"ms\":100000,\"end\":{}}\n");
    struct at_whatif what = of_policy(AT_PACK_POLICY_COUNT);
    struct at_whatif_result r = run(f, &what);
    assert_int_equal(r.preempted, 1);
    assert_int_equal(r.n_placements, 2);
    assert_int_equal(r.placements[1].request, 1);
    assert_int_equal(r.placements[1].at_ms, 31000);
    assert_int_equal(r.points[r.n_points - 1].running, 1);
    assert_int_equal(r.points[r.n_points - 1].pending, 1);
    at_whatif_done(&r);
    at_fleet_free(f);
}

#define QUEUE(name, cpu, more)                                                                     \
    "{\"ms\":0,\"put\":{\"apiVersion\":\"atoll.dev/"                                               \
    "v1\",\"kind\":\"Queue\",\"metadata\":{\"name\":"                                              \
    "\"" name "\"},\"spec\":{\"quotas\":[{\"resources\":[{\"name\":\"cpu\",\"nominal\":\"" cpu     \
    "\"}]}]" more "}}}\n"

/* A node for three at a time, and quotas for two: what they lend each other, and take back. */
static void quotas_hold_in_a_replay(void **state)
{
    (void)state;
    const char *text = HEAD SITE("a", "") NODE("a1", "a", "12", "")
        QUEUE("one", "4", ",\"cohort\":\"c\",\"preemption\":{\"reclaim\":\"Any\"}")
            QUEUE("two", "4", ",\"cohort\":\"c\"") ASK_AS("0", "a", "\"queue\":\"two\"")
                ASK_AS("0", "b", "\"queue\":\"two\"") ASK_AS("0", "c", "\"queue\":\"two\"")
                    ASK_AS("5000", "d", "\"queue\":\"one\"") "{\"ms\":60000,\"end\":{}}\n";
    struct at_fleet *f = read_fleet(text);
    struct at_whatif what = of_policy(AT_PACK_POLICY_COUNT);
    struct at_whatif_result r = run(f, &what);
    assert_int_equal(r.preempted, 1); /* what was borrowed went back to whom it belongs */
    assert_int_equal(r.n_placements, 3);
    assert_int_equal(r.placements[2].request, 3);
    assert_true(r.placements[2].at_ms >= 5000);
    assert_int_equal(r.points[r.n_points - 1].running, 2);
    assert_int_equal(r.points[r.n_points - 1].pending, 2);
    at_whatif_done(&r);
    at_fleet_free(f);
}

static void prices_and_carbon_decide_and_are_counted(void **state)
{
    (void)state;
    const char *text = HEAD SITE("a", "") SITE("b", "") NODE("a1", "a", "8", "")
        NODE("b1", "b", "8", "") ASK("0", "s", "", "4") "{\"ms\":3600000,\"end\":{}}\n";
    struct at_prices *prices = NULL;
    struct at_carbon *carbon = NULL;
    struct at_err err = {0};
    assert_int_equal(
        at_prices_read("p", at_str_of("site,cpu_hour\na,0.5\nb,0.25\n"), &prices, &err), AT_OK);
    assert_int_equal(at_carbon_read("c",
                                    at_str_of("Time,Carbon Intensity\n2026-01-01 00:00:00,100\n"
                                              "2026-01-01 00:30:00,300\n"),
                                    &carbon, &err),
                     AT_OK);
    struct at_fleet *f = read_fleet(text);
    struct at_whatif what = of_policy(AT_PACK_POLICY_COUNT);
    what.prices = prices;
    what.carbon = carbon;
    what.weights_given = true;
    what.weights.price = 100;
    struct at_whatif_result r = run(f, &what);
    assert_string_equal(r.node_names[r.placements[0].node], "b1"); /* the cheaper one */
    assert_true(fabs(r.usd - 2) < 0.01);                           /* 8 cores for an hour */
    double watts = 8 * at_watts_core().idle + 4 * (at_watts_core().full - at_watts_core().idle);
    assert_true(fabs(r.kwh - watts / 1000) < 1e-3);
    assert_true(fabs(r.kg_co2 - watts / 1000 * 0.2) < 1e-3); /* half an hour of each */
    at_whatif_done(&r);
    at_fleet_free(f);
    at_prices_free(prices);
    at_carbon_free(carbon);
}

static void a_node_costs_what_its_kind_costs(void **state)
{
    (void)state;
    struct at_prices *p = NULL;
    struct at_err err = {0};
    const char *text = "instance_type,accelerator,acc_count,vcpus,region,price_usd_h\n"
                       "big,H100,8,,r1,80\nbig,H100,8,,r2,88\n\"one, H\",H100,1,,r1,12\n"
                       "c8,,,8,r1,0.4\nspot,T4,1,,r1,\n";
    assert_int_equal(at_prices_read("p", at_str_of(text), &p, &err), AT_OK);
    struct at_fleet *f = at_fleet_new();
    struct at_node *n = at_fleet_make_node(f, "n", "s", 1000, 0, 4, "NVIDIA H100 80GB");
    assert_true(fabs(at_prices_node(p, n, NULL) - 44) < 1e-9); /* median of 10, 11 and 12 a GPU */
    struct at_model_kv label = {"node.kubernetes.io/instance-type", "big"};
    n->meta.labels.items = &label;
    n->meta.labels.n = 1;
    assert_true(fabs(at_prices_node(p, n, "r2") - 88) < 1e-9);
    struct at_node *cpu = at_fleet_make_node(f, "c", "s", 16000, 0, 0, "");
    assert_true(fabs(at_prices_node(p, cpu, NULL) - 0.8) < 1e-9);
    struct at_node *t4 = at_fleet_make_node(f, "t", "s", 1000, 0, 1, "T4");
    assert_true(at_prices_node(p, t4, NULL) < 0); /* only on the spot market */
    at_fleet_free(f);
    at_prices_free(p);
    assert_int_equal(at_prices_read("p", at_str_of("a,b\n"), &p, &err), AT_INVALID);
    assert_string_equal(err.msg, "p:1: neither a column site nor price_usd_h");
    struct at_carbon *c = NULL;
    assert_int_equal(
        at_carbon_read("c", at_str_of("Time,g_per_kwh\n2026-01-01 01:00:00,-4\n"), &c, &err),
        AT_INVALID);
    assert_string_equal(err.msg, "c:2: not a number in range: '-4'");
}

static void errors_in_a_recording_name_the_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } BAD[] = {
        {"", "t:1: the file is empty"},
        {"{}\n", "t:1: the first line has to be"},
        {"{\"atollTrace\":2}\n", "t:1: the first line has to be"},
        {HEAD, "t:1: no node"},
        {HEAD "x\n", "t:2: "},
        {HEAD "[]\n", "t:2: not a JSON object"},
        {HEAD "{\"put\":{}}\n", "t:2: ms has to be"},
        {HEAD "{\"ms\":5,\"put\":{}}\n{\"ms\":4,\"put\":{}}\n", "t:3: ms has to be"},
        {HEAD "{\"ms\":5,\"what\":{}}\n", "t:2: none of put"},
        {HEAD ENDED("1", "x"), "t:2: ended needs"},
        {HEAD PLACED("1", "x", "n"), "t:2: placed needs"},
        {HEAD ASK("1", "x", "", "-3"), "t:2: Instance spec.resources.cpu"},
        {HEAD "{\"ms\":0,\"put\":{\"kind\":\"Node\",\"metadata\":{\"name\":\"n\"},\"spec\":{}}}\n",
         "t:2: Node "},
        {HEAD "{\"ms\":0,\"gone\":{\"kind\":\"Node\"}}\n", "t:2: gone needs a name"},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(BAD); i++) {
        struct at_fleet *f = NULL;
        struct at_err err = {0};
        assert_int_equal(at_fleet_read("t", at_str_of(BAD[i].text), &f, &err), AT_INVALID);
        if (strncmp(err.msg, BAD[i].says, strlen(BAD[i].says)) != 0) {
            fail_msg("'%s' is not '%s'", err.msg, BAD[i].says);
        }
    }
}

static void scenarios_are_all_combinations(void **state)
{
    (void)state;
    const char *compares[] = {"policy=fgd,live", "lose-site=none;a@10,b@1h", "demand=2", NULL};
    struct at_scenario base = {.what.demand = 1}, *list = NULL;
    struct at_err err = {0};
    char *text = NULL;
    size_t n;
    assert_int_equal(at_scenarios_make(&base, compares, &list, &n, &text, &err), AT_OK);
    assert_int_equal(n, 4);
    assert_string_equal(list[0].what.name, "policy=fgd lose-site=none demand=2");
    assert_string_equal(list[3].what.name, "policy=live lose-site=a@10,b@1h demand=2");
    assert_true(list[3].what.live);
    assert_int_equal(list[3].what.n_losses, 2);
    assert_int_equal(list[3].what.losses[1].at_ms, 3600000);
    at_free(list);
    at_free(text);
    static const char *const WRONG[][2] = {
        {"policy", "best"},       {"demand", "0"},        {"demand", "nan"},
        {"demand", "1e9"},        {"demand", "101"},      {"lose-site", "a"},
        {"lose-site", "@5"},      {"add-nodes", "x"},     {"add-nodes", "0xT4"},
        {"add-nodes", "2x99xT4"}, {"add-nodes", "2xT4@"}, {"weights", "fit"},
        {"weights", "fit=-1"},    {"weights", "x=1"},     {"unplaced", "x"},
        {"until", "-1"},          {"nothing", "x"},       {"load", ""}};
    for (size_t i = 0; i < AT_ARRAY_LEN(WRONG); i++) {
        err = (struct at_err){0};
        if (at_scenario_set(&base, WRONG[i][0], WRONG[i][1], &err) != AT_BAD_REQUEST) {
            fail_msg("%s=%s is taken", WRONG[i][0], WRONG[i][1]);
        }
        assert_true(err.msg[0] != '\0');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_allocated_is_the_sum_of_what_was_placed),
        cmocka_unit_test(the_same_input_gives_the_same_bytes),
        cmocka_unit_test(who_loses_a_site_is_placed_on_what_is_left),
        cmocka_unit_test(demand_and_nodes_can_be_others),
        cmocka_unit_test(jobs_keep_their_length_and_services_their_end),
        cmocka_unit_test(victims_go_with_their_grace),
        cmocka_unit_test(quotas_hold_in_a_replay),
        cmocka_unit_test(prices_and_carbon_decide_and_are_counted),
        cmocka_unit_test(a_node_costs_what_its_kind_costs),
        cmocka_unit_test(errors_in_a_recording_name_the_line),
        cmocka_unit_test(scenarios_are_all_combinations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
