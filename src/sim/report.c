#include "sim/report.h"

#include "core/mem.h"
#include "sim/chart.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define LABEL_WIDTH 30

/* --- the table: a row per figure, a column per scenario --- */

static double got_percent(const struct at_whatif_result *r)
{
    return r->gpu_hours_asked > 0 ? 100 * r->gpu_hours_got / r->gpu_hours_asked : 100;
}

static void cell_count(const struct at_whatif_result *r, int row, char *out, size_t size)
{
    const size_t values[] = {r->requests, r->placed, r->unplaced, r->pending_max,
                             r->nodes_used_max};
    snprintf(out, size, "%zu", values[row]);
}

static void cell_share(const struct at_whatif_result *r, int row, char *out, size_t size)
{
    const double values[] = {r->allocated_mean, r->fragmented_mean, got_percent(r)};
    snprintf(out, size, "%.2f %%", values[row]);
}

static void cell_wait(const struct at_whatif_result *r, int row, char *out, size_t size)
{
    const double values[] = {r->wait_mean_s, r->wait_p99_s, r->wait_max_s};
    snprintf(out, size, "%.1f s", values[row]);
}

static void cell_lost(const struct at_whatif_result *r, int row, char *out, size_t size)
{
    if (row < 2) {
        snprintf(out, size, "%zu", row == 0 ? r->evicted : r->rebound);
    } else if (r->evicted == 0) {
        snprintf(out, size, "-");
    } else if (r->rebound_ms < 0) {
        snprintf(out, size, "not all");
    } else {
        snprintf(out, size, "%.1f s", (double)r->rebound_ms / 1000);
    }
}

static void cell_money(const struct at_whatif_result *r, int row, char *out, size_t size)
{
    const double values[] = {r->usd, r->kwh, r->kg_co2};
    static const char *const UNITS[] = {"USD", "kWh", "kg"};
    snprintf(out, size, "%.2f %s", values[row], UNITS[row]);
}

static const struct {
    const char *label;
    void (*cell)(const struct at_whatif_result *r, int row, char *out, size_t size);
    int row;
} ROWS[] = {
    {"requests", cell_count, 0},
    {"placed", cell_count, 1},
    {"never placed", cell_count, 2},
    {"allocated, mean over time", cell_share, 0},
    {"fragmented, mean over time", cell_share, 1},
    {"GPU hours given of asked", cell_share, 2},
    {"pending at most", cell_count, 3},
    {"nodes in use at most", cell_count, 4},
    {"wait, mean", cell_wait, 0},
    {"wait, p99", cell_wait, 1},
    {"wait, longest", cell_wait, 2},
    {"lost their node", cell_lost, 0},
    {"placed again", cell_lost, 1},
    {"all placed again after", cell_lost, 2},
    {"cost of nodes in use", cell_money, 0},
    {"energy", cell_money, 1},
    {"CO2", cell_money, 2},
};

static int column_width(const struct at_report *r, size_t i)
{
    size_t len = strlen(r->scenarios[i].what.name);
    return (int)(len > 14 ? len : 14) + 2;
}

enum at_rc at_report_text(const struct at_report *r, struct at_buf *out)
{
    enum at_rc rc = at_buf_printf(out, "%s\n\n%-*s", r->title, LABEL_WIDTH, "");
    for (size_t i = 0; rc == AT_OK && i < r->n; i++) {
        rc = at_buf_printf(out, "%*s", column_width(r, i), r->scenarios[i].what.name);
    }
    for (size_t row = 0; rc == AT_OK && row < AT_ARRAY_LEN(ROWS); row++) {
        rc = at_buf_printf(out, "\n%-*s", LABEL_WIDTH, ROWS[row].label);
        for (size_t i = 0; rc == AT_OK && i < r->n; i++) {
            char cell[64];
            ROWS[row].cell(&r->results[i], ROWS[row].row, cell, sizeof cell);
            rc = at_buf_printf(out, "%*s", column_width(r, i), cell);
        }
    }
    return rc == AT_OK ? at_buf_append_str(out, "\n") : rc;
}

/* --- JSON --- */

/* Six digits behind the point are enough, and the same everywhere. */
static json_t *number(double v)
{
    return json_real(rint(v * 1e6) / 1e6);
}

/* How things stand in the end; the whole course is in the CSV. */
static json_t *end_json(const struct at_whatif_result *r)
{
    const struct at_whatif_point *p = &r->points[r->n_points - 1];
    return json_pack(
        "{s:o,s:o,s:o,s:o,s:o,s:o,s:I,s:I,s:I}", "seconds", number((double)p->at_ms / 1000),
        "capacityGpus", number(p->capacity_gpus), "allocatedGpus", number(p->allocated_gpus),
        "fragmentedGpus", number(p->fragmented_gpus), "capacityCores", number(p->capacity_cores),
        "allocatedCores", number(p->allocated_cores), "pending", (json_int_t)p->pending, "running",
        (json_int_t)p->running, "nodesUsed", (json_int_t)p->nodes_used);
}

static json_t *scenario_json(const struct at_scenario *s, const struct at_whatif_result *r)
{
    json_t *o =
        json_pack("{s:s,s:s,s:o,s:I,s:I,s:I,s:I,s:I}", "name", s->what.name, "policy",
                  s->what.live ? "live" : at_pack_policy_name(s->what.policy), "demand",
                  number(s->what.demand), "requests", (json_int_t)r->requests, "placed",
                  (json_int_t)r->placed, "neverPlaced", (json_int_t)r->unplaced, "pendingMax",
                  (json_int_t)r->pending_max, "nodesUsedMax", (json_int_t)r->nodes_used_max);
    const struct {
        const char *name;
        double value;
    } values[] = {{"allocatedMeanPercent", r->allocated_mean},
                  {"fragmentedMeanPercent", r->fragmented_mean},
                  {"gpuHoursAsked", r->gpu_hours_asked},
                  {"gpuHoursGiven", r->gpu_hours_got},
                  {"waitMeanSeconds", r->wait_mean_s},
                  {"waitP99Seconds", r->wait_p99_s},
                  {"waitMaxSeconds", r->wait_max_s},
                  {"usd", r->usd},
                  {"kWh", r->kwh},
                  {"kgCO2", r->kg_co2}};
    for (size_t i = 0; i < AT_ARRAY_LEN(values); i++) {
        json_object_set_new(o, values[i].name, number(values[i].value));
    }
    json_object_set_new(o, "evicted", json_integer((json_int_t)r->evicted));
    json_object_set_new(o, "rebound", json_integer((json_int_t)r->rebound));
    if (r->evicted > 0 && r->rebound_ms >= 0) {
        json_object_set_new(o, "reboundSeconds", number((double)r->rebound_ms / 1000));
    }
    json_object_set_new(o, "preempted", json_integer((json_int_t)r->preempted));
    json_object_set_new(o, "end", end_json(r));
    return o;
}

json_t *at_report_json(const struct at_report *r)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->n; i++) {
        json_array_append_new(list, scenario_json(&r->scenarios[i], &r->results[i]));
    }
    return json_pack("{s:s,s:o}", "trace", r->title, "scenarios", list);
}

/* --- CSV --- */

static enum at_rc put_field(struct at_buf *out, const char *text)
{
    if (strpbrk(text, ",\"") == NULL) {
        return at_buf_append_str(out, text);
    }
    enum at_rc rc = at_buf_append_str(out, "\"");
    for (const char *c = text; rc == AT_OK && *c != '\0'; c++) {
        rc = at_buf_append(out, c, 1);
        rc = rc == AT_OK && *c == '"' ? at_buf_append(out, c, 1) : rc;
    }
    return rc == AT_OK ? at_buf_append_str(out, "\"") : rc;
}

enum at_rc at_report_csv(const struct at_report *r, struct at_buf *out)
{
    enum at_rc rc = at_buf_append_str(
        out, "scenario,seconds,capacity_gpus,allocated_gpus,fragmented_gpus,capacity_cores,"
             "allocated_cores,pending,running,nodes_used,usd_per_hour,usd,watts,grams_co2\n");
    for (size_t i = 0; i < r->n; i++) {
        for (size_t k = 0; rc == AT_OK && k < r->results[i].n_points; k++) {
            const struct at_whatif_point *p = &r->results[i].points[k];
            rc = put_field(out, r->scenarios[i].what.name);
            rc = rc != AT_OK
                     ? rc
                     : at_buf_printf(out,
                                     ",%.3f,%.3f,%.3f,%.3f,%.3f,%.3f,%u,%u,%u,%.4f,%.4f,%.1f,"
                                     "%.1f\n",
                                     (double)p->at_ms / 1000, p->capacity_gpus, p->allocated_gpus,
                                     p->fragmented_gpus, p->capacity_cores, p->allocated_cores,
                                     p->pending, p->running, p->nodes_used, p->usd_hour, p->usd,
                                     p->watts, p->grams_co2);
        }
    }
    return rc;
}

static enum at_rc put_placement(struct at_buf *out, const struct at_scenario *scenario,
                                const struct at_fleet_request *q,
                                const struct at_whatif_placement *p, const char *node)
{
    AT_CLEANUP(at_cleanup_free)
    char *name = p->copy > 0 ? at_asprintf("%s-x%u", q->name, p->copy) : at_strdup(q->name);
    const char *const fields[] = {q->ns, name, node};
    enum at_rc rc = put_field(out, scenario->what.name);
    rc = rc != AT_OK ? rc : at_buf_printf(out, ",%.3f", (double)p->at_ms / 1000);
    for (size_t i = 0; rc == AT_OK && i < AT_ARRAY_LEN(fields); i++) {
        rc = at_buf_append_str(out, ",");
        rc = rc != AT_OK ? rc : put_field(out, fields[i]);
    }
    return rc == AT_OK ? at_buf_append_str(out, "\n") : rc;
}

enum at_rc at_report_placements(const struct at_report *r, struct at_buf *out)
{
    enum at_rc rc = at_buf_append_str(out, "scenario,seconds,namespace,name,node\n");
    for (size_t i = 0; i < r->n; i++) {
        const struct at_whatif_result *result = &r->results[i];
        for (size_t k = 0; rc == AT_OK && k < result->n_placements; k++) {
            const struct at_whatif_placement *p = &result->placements[k];
            const struct at_fleet_request *q = &r->fleets[i]->requests[p->request];
            rc = put_placement(out, &r->scenarios[i], q, p, result->node_names[p->node]);
        }
    }
    return rc;
}

/* --- pictures --- */

enum what { ALLOCATED, FRAGMENTED, PENDING, USD, CO2, WHATS };

struct drawn {
    const struct at_whatif_result *result;
    enum what what;
};

static bool point(const void *ctx, size_t i, double *ret_x, double *ret_y)
{
    const struct drawn *d = ctx;
    const struct at_whatif_point *p = &d->result->points[i];
    bool gpus = p->capacity_gpus > 0;
    double all = gpus ? p->capacity_gpus : p->capacity_cores;
    *ret_x = (double)p->at_ms;
    switch (d->what) {
    case ALLOCATED:
        *ret_y = all > 0 ? 100 * (gpus ? p->allocated_gpus : p->allocated_cores) / all : 0;
        break;
    case FRAGMENTED:
        *ret_y = all > 0 ? 100 * p->fragmented_gpus / all : 0;
        break;
    case PENDING:
        *ret_y = p->pending;
        break;
    case USD:
        *ret_y = p->usd;
        break;
    default:
        *ret_y = p->grams_co2 / 1000;
        break;
    }
    return true;
}

static bool any_gpus(const struct at_report *r)
{
    for (size_t i = 0; i < r->n; i++) {
        for (size_t k = 0; k < r->results[i].n_points; k++) {
            if (r->results[i].points[k].capacity_gpus > 0) {
                return true;
            }
        }
    }
    return false;
}

static bool any_of(const struct at_report *r, enum what what)
{
    for (size_t i = 0; i < r->n; i++) {
        const struct at_whatif_result *result = &r->results[i];
        const struct at_whatif_point *last = &result->points[result->n_points - 1];
        if ((what == USD && last->usd > 0) || (what == CO2 && last->grams_co2 > 0)) {
            return true;
        }
    }
    return what != USD && what != CO2;
}

enum at_rc at_report_svg(const struct at_report *r, struct at_buf *out)
{
    bool gpus = any_gpus(r);
    const char *const labels[WHATS] = {
        gpus ? "allocated, % of the GPUs" : "allocated, % of the cores",
        "idle GPU that no typical request can use, % of the GPUs", "requests that wait",
        "cost of the nodes in use, USD in all", "CO2, kg in all"};
    struct at_chart_line lines[WHATS][AT_SCENARIOS_MAX];
    struct drawn drawn[WHATS][AT_SCENARIOS_MAX];
    struct at_chart_panel panels[WHATS];
    size_t n = 0;
    for (int what = 0; what < WHATS; what++) {
        if (!any_of(r, (enum what)what) || (what == FRAGMENTED && !gpus)) {
            continue;
        }
        for (size_t i = 0; i < r->n; i++) {
            drawn[what][i] = (struct drawn){&r->results[i], (enum what)what};
            lines[what][i] =
                (struct at_chart_line){.name = what == ALLOCATED ? r->scenarios[i].what.name : NULL,
                                       .colour = (unsigned)i,
                                       .dashed = i >= AT_CHART_COLOURS,
                                       .n = r->results[i].n_points,
                                       .point = point,
                                       .ctx = &drawn[what][i]};
        }
        panels[n++] =
            (struct at_chart_panel){labels[what], lines[what], r->n, what == ALLOCATED ? 100 : 0};
    }
    struct at_chart chart = {r->title, "time since the beginning", true, panels, n};
    return at_chart_svg(&chart, out);
}
