/* atoll sim place: replay a trace of a GPU cluster against a packing policy. */
#include "apps/apps.h"
#include "apps/sim.h"
#include "core/buf.h"
#include "core/mem.h"
#include "sim/plot.h"
#include "sys/file.h"

#include <stdio.h>
#include <string.h>

#define ROLE "sim place"
#define DEMAND_PERCENT 130 /* the published protocol's: arrivals ask for so much of the GPUs */
#define DEMAND_PERCENT_MAX 10000

struct place_run {
    const char *nodes, *pods, *order, *policy, *seed, *placements, *curve, *plot, *demand,
        *unplaced;
    bool churn;
    struct at_buf text_nodes, text_pods, text_order;
    struct at_trace trace;
    struct at_trace_order arrivals;
    struct at_replay replay;
};

static enum at_rc read_text(const char *path, struct at_buf *buf, struct at_str *ret,
                            struct at_err *err)
{
    at_buf_init(buf, AT_TRACE_FILE_BYTES_MAX);
    enum at_rc rc = at_file_read(path, AT_TRACE_FILE_BYTES_MAX, buf, err);
    *ret = (struct at_str){buf->data, buf->len};
    return rc;
}

static enum at_rc load_order(struct place_run *p, struct at_err *err)
{
    struct at_str text;
    uint64_t seed = 42, percent = DEMAND_PERCENT;
    if (p->seed != NULL && at_str_to_u64(at_str_of(p->seed), &seed) != AT_OK) {
        return at_err_set(err, AT_BAD_REQUEST, "--seed: '%s' is not a number", p->seed);
    }
    if (p->demand != NULL && (at_str_to_u64(at_str_of(p->demand), &percent) != AT_OK ||
                              percent == 0 || percent > DEMAND_PERCENT_MAX)) {
        return at_err_set(err, AT_BAD_REQUEST, "--demand: '%s' is not a percentage from 1 to %d",
                          p->demand, DEMAND_PERCENT_MAX);
    }
    if (p->order == NULL) {
        at_trace_shuffle(&p->trace, seed, (double)percent / 100, &p->arrivals);
        return AT_OK;
    }
    enum at_rc rc = read_text(p->order, &p->text_order, &text, err);
    return rc != AT_OK ? rc : at_trace_read_order(&p->trace, p->order, text, &p->arrivals, err);
}

static enum at_rc load(struct place_run *p, struct at_err *err)
{
    struct at_str text;
    enum at_rc rc = read_text(p->nodes, &p->text_nodes, &text, err);
    if (rc == AT_OK) {
        rc = at_trace_read_nodes(&p->trace, p->nodes, text, err);
    }
    if (rc == AT_OK) {
        rc = read_text(p->pods, &p->text_pods, &text, err);
    }
    if (rc == AT_OK) {
        rc = at_trace_read_pods(&p->trace, p->pods, text, err);
    }
    return rc == AT_OK ? load_order(p, err) : rc;
}

static enum at_rc placements(const struct place_run *p, struct at_buf *out)
{
    enum at_rc rc = at_buf_append_str(out, "event,pod_row,node_row\n");
    for (size_t i = 0; rc == AT_OK && i < p->replay.n; i++) {
        const struct at_replay_point *point = &p->replay.points[i];
        rc = at_buf_printf(out, "%zu,%u,%d\n", i, p->arrivals.pods[i % p->arrivals.n_pods],
                           point->placed ? (int)point->node_row : -1);
    }
    return rc;
}

static enum at_rc curve(const struct place_run *p, struct at_buf *out)
{
    return at_replay_csv(&p->replay, out);
}

static enum at_rc plot(const struct place_run *p, struct at_buf *out)
{
    char title[512];
    snprintf(title, sizeof title, "%s%s: %s", p->policy != NULL ? p->policy : "atoll",
             p->churn ? ", churn" : "", basename(p->pods));
    return at_replay_svg(&p->replay, title, out);
}

/* Write what make gives to path, if a path was given. */
static enum at_rc write_file(const struct place_run *p, const char *path,
                             enum at_rc (*make)(const struct place_run *, struct at_buf *),
                             struct at_err *err)
{
    if (path == NULL) {
        return AT_OK;
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf out;
    at_buf_init(&out, AT_TRACE_FILE_BYTES_MAX);
    enum at_rc rc = make(p, &out);
    return rc == AT_OK ? at_file_write_atomic(path, out.data, out.len, 0644, err)
                       : at_err_set(err, rc, "%s: too large", path);
}

static enum at_rc place(struct place_run *p, struct at_err *err)
{
    struct at_replay_options options = {.policy = AT_PACK_ATOLL, .churn = p->churn};
    if (p->policy != NULL && at_pack_policy_find(p->policy, &options.policy) != AT_OK) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "--policy: '%s' is none of fgd, bestfit, dotprod, packing, clustering, "
                          "atoll",
                          p->policy);
    }
    if (p->unplaced != NULL && strcmp(p->unplaced, "drop") != 0 &&
        strcmp(p->unplaced, "wait") != 0) {
        return at_err_set(err, AT_BAD_REQUEST, "--unplaced: '%s' is neither drop nor wait",
                          p->unplaced);
    }
    options.wait = p->churn && p->unplaced != NULL && strcmp(p->unplaced, "wait") == 0;
    enum at_rc rc = load(p, err);
    if (rc == AT_OK) {
        rc = at_replay_run(&p->trace, &p->arrivals, &options, at_sys_real(), &p->replay, err);
    }
    if (rc == AT_OK) {
        rc = write_file(p, p->placements, placements, err);
    }
    if (rc == AT_OK) {
        rc = write_file(p, p->curve, curve, err);
    }
    if (rc == AT_OK) {
        rc = write_file(p, p->plot, plot, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    const struct at_replay *r = &p->replay;
    printf("alloc100=%.2f alloc130=%.2f frag100=%.2f unscheduled=%zu pods=%zu seconds=%.3f",
           r->alloc100, r->alloc130, r->frag100, r->unscheduled, r->n, r->seconds);
    if (p->churn) {
        printf(" alloc_mean=%.2f accepted=%.2f", r->alloc_mean, r->accepted);
    }
    putchar('\n');
    return AT_OK;
}

static int app_sim_place(int argc, char **argv)
{
    struct place_run p = {0};
    const struct at_app_option options[] = {
        {"nodes", &p.nodes, NULL, NULL, "FILE",
         "Node list, CSV: sn,cpu_milli,memory_mib,gpu,model"},
        {"pods", &p.pods, NULL, NULL, "FILE",
         "Pod list, CSV: name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,..."},
        {"order", &p.order, NULL, NULL, "FILE", "Rows of nodes by rank and of pods by arrival"},
        {"policy", &p.policy, NULL, NULL, "NAME",
         "fgd, bestfit, dotprod, packing, clustering or atoll (default)"},
        {"seed", &p.seed, NULL, NULL, "N", "Of the shuffle, without --order (default 42)"},
        {"churn", NULL, &p.churn, NULL, NULL, "Pods leave when their life in the trace is over"},
        {"unplaced", &p.unplaced, NULL, NULL, "drop|wait",
         "With --churn: what does not fit is dropped (default), or waits for room"},
        {"placements", &p.placements, NULL, NULL, "FILE", "Write event,pod_row,node_row; -1: none"},
        {"curve", &p.curve, NULL, NULL, "FILE", "Write demand and allocation over arrivals, CSV"},
        {"plot", &p.plot, NULL, NULL, "FILE", "Draw them, SVG"},
        {"demand", &p.demand, NULL, NULL, "PERCENT",
         "Of the GPUs, asked for by all arrivals, without --order (default 130)"},
        {.help = "atoll sim place --nodes nodes.csv --pods pods.csv --policy fgd --seed 7\n"
                 "atoll sim place --nodes nodes.csv --pods pods.csv --churn --plot churn.svg"},
    };
    int exit_status;
    if (!at_app_options(ROLE, "replay a GPU cluster's trace against a packing policy", options,
                        argc, argv, &exit_status)) {
        return exit_status;
    }
    struct at_err err = {0};
    enum at_rc rc = p.nodes == NULL || p.pods == NULL
                        ? at_err_set(&err, AT_BAD_REQUEST, "--nodes and --pods are needed")
                        : place(&p, &err);
    at_replay_done(&p.replay);
    at_trace_order_done(&p.arrivals);
    at_trace_done(&p.trace);
    at_buf_done(&p.text_nodes);
    at_buf_done(&p.text_pods);
    at_buf_done(&p.text_order);
    return rc == AT_OK ? 0 : at_app_fail(ROLE, &err);
}

int at_app_sim(int argc, char **argv)
{
    if (argc >= 1 && strcmp(argv[0], "place") == 0) {
        return app_sim_place(argc - 1, argv + 1);
    }
    if (argc >= 1 && argv[0][0] == '-') {
        return at_app_sim_run(argc, argv);
    }
    fputs("atoll sim: say what: atoll sim --trace FILE, atoll sim --nodes FILE --pods FILE, or "
          "atoll sim place; see atoll sim --help\n",
          stderr);
    return at_rc_exit_status(AT_BAD_REQUEST);
}
