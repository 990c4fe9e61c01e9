/* atoll sim: what would have happened, had nodes, policy, demand, prices ... been others. */
#include "apps/apps.h"
#include "apps/sim.h"
#include "core/mem.h"
#include "sim/report.h"
#include "sys/fd.h"
#include "sys/file.h"

#include <stdio.h>
#include <string.h>

#define ROLE "sim"
#define SETTLE_MS 20 /* the server decides so long after a change at most */
#define PASSES_MAX 100
#define BAR_WIDTH 40
#define LOAD_DEFAULT 1.0
#define LOAD_FILLING 1.3

struct sim_run {
    const char *trace, *nodes, *pods, *policy, *arrivals, *load, *passes, *seed, *demand, *unplaced,
        *until, *lose_site, *add_nodes, *weights, *prices, *carbon, *csv, *svg, *placements,
        *output;
    const char *compare[AT_APP_LIST_MAX + 1];
    bool quiet;
    enum at_fleet_arrivals how;
    uint64_t seed_n, passes_n;
    struct at_buf text_trace, text_nodes, text_pods;
    struct at_scenario *scenarios;
    size_t n;
    char *compare_text;
    struct at_whatif_result *results;
    struct at_fleet **fleets;
    int shown; /* percent on the bar; -1: nothing yet */
    size_t running;
};

static enum at_rc read_file(const char *path, struct at_buf *buf, struct at_err *err)
{
    at_buf_init(buf, AT_TRACE_FILE_BYTES_MAX);
    return at_file_read(path, AT_TRACE_FILE_BYTES_MAX, buf, err);
}

static struct at_str str_of(const struct at_buf *buf)
{
    return (struct at_str){buf->data != NULL ? buf->data : "", buf->len};
}

static enum at_rc parse_numbers(struct sim_run *r, struct at_err *err)
{
    r->seed_n = 42;
    r->passes_n = 2;
    if (r->seed != NULL && at_str_to_u64(at_str_of(r->seed), &r->seed_n) != AT_OK) {
        return at_err_set(err, AT_BAD_REQUEST, "--seed: '%s' is not a number", r->seed);
    }
    if (r->passes != NULL && (at_str_to_u64(at_str_of(r->passes), &r->passes_n) != AT_OK ||
                              r->passes_n == 0 || r->passes_n > PASSES_MAX)) {
        return at_err_set(err, AT_BAD_REQUEST, "--passes: '%s' is not a number from 1 to %d",
                          r->passes, PASSES_MAX);
    }
    static const char *const ARRIVALS[] = {
        [AT_FLEET_BY_TRACE] = "trace", [AT_FLEET_EVEN] = "even", [AT_FLEET_FILLING] = "filling"};
    r->how = AT_FLEET_EVEN;
    for (size_t i = 0; r->arrivals != NULL && i <= AT_ARRAY_LEN(ARRIVALS); i++) {
        if (i == AT_ARRAY_LEN(ARRIVALS)) {
            return at_err_set(err, AT_BAD_REQUEST,
                              "--arrivals: '%s' is none of trace, even, filling", r->arrivals);
        }
        if (strcmp(r->arrivals, ARRIVALS[i]) == 0) {
            r->how = (enum at_fleet_arrivals)i;
            break;
        }
    }
    if (r->output != NULL && strcmp(r->output, "json") != 0 && strcmp(r->output, "text") != 0) {
        return at_err_set(err, AT_BAD_REQUEST, "--output: '%s' is neither text nor json",
                          r->output);
    }
    return AT_OK;
}

/* What is wanted of all scenarios. */
static enum at_rc base_scenario(const struct sim_run *r, struct at_scenario *base,
                                struct at_err *err)
{
    const struct {
        const char *key, *value;
    } given[] = {
        {"policy", r->policy != NULL  ? r->policy
                   : r->trace != NULL ? "live"
                                      : "atoll"},
        {"demand", r->demand},
        {"unplaced", r->unplaced},
        {"until", r->until},
        {"lose-site", r->lose_site},
        {"add-nodes", r->add_nodes},
        {"weights", r->weights},
        {"prices", r->prices},
        {"carbon", r->carbon},
        {"load", r->load},
        {"nodes", r->trace != NULL ? r->nodes : NULL}, /* instead of the recorded ones */
    };
    *base = (struct at_scenario){.what.demand = 1};
    base->what.settle_ms = r->trace != NULL ? SETTLE_MS : 0;
    base->what.drop = r->trace == NULL && r->how == AT_FLEET_FILLING;
    enum at_rc rc = AT_OK;
    for (size_t i = 0; rc == AT_OK && i < AT_ARRAY_LEN(given); i++) {
        rc = given[i].value != NULL ? at_scenario_set(base, given[i].key, given[i].value, err)
                                    : AT_OK;
    }
    return rc;
}

static enum at_rc check_input(const struct sim_run *r, struct at_err *err)
{
    if (r->trace != NULL && r->pods != NULL) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "--trace or --pods: a recording has its own requests");
    }
    if (r->trace == NULL && (r->nodes == NULL || r->pods == NULL)) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "say what to replay: --trace FILE of atoll record, or --nodes FILE and "
                          "--pods FILE in openb format");
    }
    return AT_OK;
}

static enum at_rc load(struct sim_run *r, struct at_err *err)
{
    struct at_scenario base;
    enum at_rc rc = check_input(r, err);
    rc = rc == AT_OK ? parse_numbers(r, err) : rc;
    rc = rc == AT_OK ? base_scenario(r, &base, err) : rc;
    rc = rc == AT_OK
             ? at_scenarios_make(&base, r->compare, &r->scenarios, &r->n, &r->compare_text, err)
             : rc;
    if (rc == AT_OK && r->trace != NULL) {
        rc = read_file(r->trace, &r->text_trace, err);
    }
    if (rc == AT_OK && r->pods != NULL) {
        rc = read_file(r->pods, &r->text_pods, err);
    }
    return rc;
}

/* The openb files with a scenario's nodes. */
static enum at_rc openb_fleet(struct sim_run *r, const struct at_scenario *s, struct at_fleet **ret,
                              struct at_err *err)
{
    const char *nodes = s->nodes != NULL ? s->nodes : r->nodes;
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    struct at_trace trace = {0};
    double load = s->load > 0 ? s->load : r->how == AT_FLEET_FILLING ? LOAD_FILLING : LOAD_DEFAULT;
    struct at_fleet_openb how = {r->how, load, (uint32_t)r->passes_n, r->seed_n};
    enum at_rc rc = read_file(nodes, &text, err);
    rc = rc == AT_OK ? at_trace_read_nodes(&trace, nodes, str_of(&text), err) : rc;
    rc = rc == AT_OK ? at_trace_read_pods(&trace, r->pods, str_of(&r->text_pods), err) : rc;
    rc = rc == AT_OK ? at_fleet_from_openb(&trace, &how, ret, err) : rc;
    at_trace_done(&trace);
    return rc;
}

static enum at_rc recorded_fleet(struct sim_run *r, const struct at_scenario *s,
                                 struct at_fleet **ret, struct at_err *err)
{
    struct at_fleet *fleet = NULL;
    enum at_rc rc = at_fleet_read(r->trace, str_of(&r->text_trace), &fleet, err);
    if (rc == AT_OK && s->nodes != NULL) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
        struct at_trace trace = {0};
        rc = read_file(s->nodes, &text, err);
        rc = rc == AT_OK ? at_trace_read_nodes(&trace, s->nodes, str_of(&text), err) : rc;
        rc = rc == AT_OK ? at_fleet_replace_nodes(fleet, &trace, err) : rc;
        at_trace_done(&trace);
    }
    if (rc != AT_OK) {
        at_fleet_free(fleet);
        return rc;
    }
    *ret = fleet;
    return AT_OK;
}

static void show_progress(void *ctx, double part)
{
    struct sim_run *r = ctx;
    int percent = (int)(100 * ((double)r->running + part) / (double)r->n);
    if (percent == r->shown) {
        return;
    }
    r->shown = percent;
    char bar[BAR_WIDTH + 1];
    for (int i = 0; i < BAR_WIDTH; i++) {
        bar[i] = i * 100 < percent * BAR_WIDTH ? '#' : '.';
    }
    bar[BAR_WIDTH] = '\0';
    fprintf(stderr, "\r[%s] %3d %%  %.60s\033[K", bar, percent, r->scenarios[r->running].what.name);
    fflush(stderr);
}

static enum at_rc read_prices(const char *file, struct at_prices **ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = file == NULL ? AT_OK : read_file(file, &text, err);
    return rc != AT_OK || file == NULL ? rc : at_prices_read(file, str_of(&text), ret, err);
}

static enum at_rc read_carbon(const char *file, struct at_carbon **ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = file == NULL ? AT_OK : read_file(file, &text, err);
    return rc != AT_OK || file == NULL ? rc : at_carbon_read(file, str_of(&text), ret, err);
}

static enum at_rc run_one(struct sim_run *r, size_t i, struct at_err *err)
{
    struct at_scenario *s = &r->scenarios[i];
    struct at_prices *prices = NULL;
    struct at_carbon *carbon = NULL;
    enum at_rc rc = read_prices(s->prices, &prices, err);
    rc = rc == AT_OK ? read_carbon(s->carbon, &carbon, err) : rc;
    if (rc == AT_OK) {
        rc = r->trace != NULL ? recorded_fleet(r, s, &r->fleets[i], err)
                              : openb_fleet(r, s, &r->fleets[i], err);
    }
    if (rc == AT_OK) {
        r->running = i;
        s->what.prices = prices;
        s->what.carbon = carbon;
        s->what.progress = !r->quiet && at_fd_is_terminal(2) ? show_progress : NULL;
        s->what.progress_ctx = r;
        rc = at_whatif_run(r->fleets[i], &s->what, at_sys_real(), &r->results[i], err);
    }
    if (s->what.progress != NULL && (rc != AT_OK || i + 1 == r->n)) {
        fputs("\r\033[K", stderr);
    }
    s->what.prices = NULL;
    s->what.carbon = NULL;
    at_prices_free(prices);
    at_carbon_free(carbon);
    return rc;
}

static enum at_rc write_file(const char *path, const struct at_report *report,
                             enum at_rc (*make)(const struct at_report *, struct at_buf *),
                             struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
    if (path == NULL) {
        return AT_OK;
    }
    at_buf_init(&out, AT_TRACE_FILE_BYTES_MAX);
    enum at_rc rc = make(report, &out);
    return rc == AT_OK ? at_file_write_atomic(path, out.data, out.len, 0644, err)
                       : at_err_set(err, rc, "%s: too large", path);
}

static enum at_rc print(const struct sim_run *r, const struct at_report *report, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
    enum at_rc rc;
    if (r->output != NULL && strcmp(r->output, "json") == 0) {
        json_t *json = at_report_json(report);
        rc = at_json_dump_pretty(json, &out);
        rc = rc == AT_OK ? at_buf_append_str(&out, "\n") : rc;
        json_decref(json);
    } else {
        rc = at_report_text(report, &out);
    }
    if (rc != AT_OK) {
        return at_err_set(err, rc, "the summary is too large");
    }
    fputs(out.data, stdout);
    uint64_t decisions = 0;
    double seconds = 0;
    for (size_t i = 0; i < r->n; i++) {
        decisions += r->results[i].decisions;
        seconds += r->results[i].seconds;
    }
    if (!r->quiet) {
        fprintf(stderr, "%llu decisions in %.2f s\n", (unsigned long long)decisions, seconds);
    }
    return AT_OK;
}

static enum at_rc run(struct sim_run *r, struct at_err *err)
{
    enum at_rc rc = load(r, err);
    if (rc != AT_OK) {
        return rc;
    }
    r->results = at_alloc(r->n * sizeof *r->results);
    r->fleets = at_alloc(r->n * sizeof(*r->fleets));
    for (size_t i = 0; rc == AT_OK && i < r->n; i++) {
        rc = run_one(r, i, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    char title[256];
    const struct at_fleet *f = r->fleets[0];
    snprintf(title, sizeof title, "%s: %zu nodes, %zu requests",
             basename(r->trace != NULL ? r->trace : r->pods), f->n_nodes, f->n_requests);
    struct at_report report = {title, r->scenarios, r->results,
                               (const struct at_fleet *const *)r->fleets, r->n};
    rc = write_file(r->csv, &report, at_report_csv, err);
    rc = rc == AT_OK ? write_file(r->svg, &report, at_report_svg, err) : rc;
    rc = rc == AT_OK ? write_file(r->placements, &report, at_report_placements, err) : rc;
    return rc == AT_OK ? print(r, &report, err) : rc;
}

static void done(struct sim_run *r)
{
    for (size_t i = 0; r->results != NULL && i < r->n; i++) {
        at_whatif_done(&r->results[i]);
        at_fleet_free(r->fleets[i]);
    }
    at_free(r->results);
    at_free(r->fleets);
    at_free(r->scenarios);
    at_free(r->compare_text);
    at_buf_done(&r->text_trace);
    at_buf_done(&r->text_nodes);
    at_buf_done(&r->text_pods);
}

static const char EXAMPLES[] =
    "atoll sim --trace fleet.jsonl --lose-site edge@1h --svg lost.svg\n"
    "atoll sim --nodes nodes.csv --pods pods.csv --compare policy=fgd,atoll --compare demand=1,2\n"
    "atoll sim --trace fleet.jsonl --compare 'weights=none;price=100;carbon=100' -o json\n"
    "atoll sim place --help   (one line for scripts)";

int at_app_sim_run(int argc, char **argv)
{
    struct sim_run r = {.shown = -1};
    const struct at_app_option options[] = {
        {"trace", &r.trace, NULL, NULL, "FILE", "Recording of atoll record"},
        {"nodes", &r.nodes, NULL, NULL, "FILE",
         "Node list, openb CSV (with --trace: instead of its nodes)"},
        {"pods", &r.pods, NULL, NULL, "FILE", "Pod list, openb CSV"},
        {"policy", &r.policy, NULL, NULL, "NAME",
         "live (the server's scheduler; default with --trace), atoll (default), fgd, bestfit, "
         "dotprod, packing, clustering"},
        {"arrivals", &r.arrivals, NULL, NULL, "HOW",
         "Of pods: even (default: at a rate that fills the cluster), trace (its own times), "
         "filling (nobody leaves)"},
        {"load", &r.load, NULL, NULL, "FACTOR",
         "Of the GPUs, asked for by those alive (even: 1) or by all (filling: 1.3)"},
        {"passes", &r.passes, NULL, NULL, "N",
         "How often even arrivals go through the list (default 2)"},
        {"seed", &r.seed, NULL, NULL, "N", "Of the order of pods (default 42)"},
        {"demand", &r.demand, NULL, NULL, "FACTOR", "2.0: every request comes twice"},
        {"unplaced", &r.unplaced, NULL, NULL, "wait|drop",
         "What does not fit waits (default), or is dropped"},
        {"until", &r.until, NULL, NULL, "TIME", "End the replay there: 3600, 12h"},
        {"lose-site", &r.lose_site, NULL, NULL, "SITE@TIME", "All nodes of it go: edge@3600"},
        {"add-nodes", &r.add_nodes, NULL, NULL, "LIST",
         "COUNTxMODEL[@SITE],...: 10xH100, 4x8xA100@edge, 3xcpu"},
        {"weights", &r.weights, NULL, NULL, "LIST",
         "Objectives of every request (live): price=100,carbon=50; what is not named is 0"},
        {"prices", &r.prices, NULL, NULL, "FILE", "Prices by site, or of instance types, CSV"},
        {"carbon", &r.carbon, NULL, NULL, "FILE", "Carbon intensity over time or by region, CSV"},
        {"compare", NULL, NULL, r.compare, "KEY=A,B",
         "Run with each value of an option; several: all combinations"},
        {"csv", &r.csv, NULL, NULL, "FILE", "Write the course of each scenario"},
        {"svg", &r.svg, NULL, NULL, "FILE", "Draw it"},
        {"placements", &r.placements, NULL, NULL, "FILE", "Write who went where and when, CSV"},
        {"output", &r.output, NULL, NULL, "FORMAT", "text (default) or json; also -o"},
        {"quiet", NULL, &r.quiet, NULL, NULL, "No progress bar"},
        {.help = EXAMPLES},
    };
    int exit_status;
    if (!at_app_options(ROLE, "replay a fleet, and what if it had been another", options, argc,
                        argv, &exit_status)) {
        return exit_status;
    }
    struct at_err err = {0};
    enum at_rc rc = run(&r, &err);
    done(&r);
    return rc == AT_OK ? 0 : at_app_fail(ROLE, &err);
}
