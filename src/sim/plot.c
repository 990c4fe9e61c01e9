#include "sim/plot.h"

#include "core/mem.h"
#include "sim/chart.h"

#define POINTS_MAX 430 /* two pixels each are enough */

enum at_rc at_replay_csv(const struct at_replay *r, struct at_buf *out)
{
    size_t unscheduled = 0;
    enum at_rc rc = at_buf_append_str(out, "event,demand,allocated,fragmented,unscheduled\n");
    for (size_t i = 0; rc == AT_OK && i < r->n; i++) {
        const struct at_replay_point *p = &r->points[i];
        unscheduled += !p->placed;
        rc = at_buf_printf(out, "%zu,%.3f,%.3f,%.3f,%zu\n", i, p->demand, p->allocated,
                           p->fragmented, unscheduled);
    }
    return rc;
}

struct drawn {
    const struct at_replay *replay;
    size_t step;
    int what;
    const uint32_t *unplaced; /* pods not placed so far */
};
enum series { DEMAND, ALLOCATED, FRAGMENTED, UNPLACED, SERIES };

static bool point(const void *ctx, size_t i, double *ret_x, double *ret_y)
{
    const struct drawn *d = ctx;
    size_t at = i * d->step < d->replay->n ? i * d->step : d->replay->n - 1;
    const struct at_replay_point *p = &d->replay->points[at];
    *ret_x = (double)(at + 1);
    *ret_y = d->what == DEMAND       ? p->demand
             : d->what == ALLOCATED  ? p->allocated
             : d->what == FRAGMENTED ? p->fragmented
                                     : 100.0 * d->unplaced[at] / (double)(at + 1);
    return true;
}

enum at_rc at_replay_svg(const struct at_replay *r, const char *title, struct at_buf *out)
{
    static const char *const NAMES[SERIES] = {"demand", "allocated", "fragmented",
                                              "pods not placed"};
    static const unsigned COLOURS[SERIES] = {7, 0, 1, 3};
    AT_CLEANUP(at_cleanup_free) uint32_t *unplaced = at_alloc((r->n + 1) * sizeof *unplaced);
    struct at_chart_line lines[SERIES];
    struct drawn drawn[SERIES];
    size_t step = r->n / POINTS_MAX + 1;
    for (size_t i = 0; i < r->n; i++) {
        unplaced[i] = (i > 0 ? unplaced[i - 1] : 0) + !r->points[i].placed;
    }
    for (int s = 0; s < SERIES; s++) {
        drawn[s] = (struct drawn){r, step, s, unplaced};
        lines[s] = (struct at_chart_line){NAMES[s], COLOURS[s], false, (r->n - 1) / step + 2,
                                          point,    &drawn[s]};
    }
    struct at_chart_panel panel = {"% of the GPUs; of the pods", lines, SERIES, 0};
    struct at_chart chart = {title, "pods that arrived", false, &panel, 1};
    return at_chart_svg(&chart, out);
}
