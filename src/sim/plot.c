#include "sim/plot.h"

#include <string.h>

#define LEFT 60.0
#define TOP 50.0
#define WIDTH 860.0
#define HEIGHT 430.0
#define PERCENT_MAX 150.0
#define POINTS_MAX 860 /* one per pixel is enough */

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

enum series { DEMAND, ALLOCATED, FRAGMENTED, UNPLACED, SERIES };

static const struct {
    const char *name, *colour;
} SHOWN[SERIES] = {
    [DEMAND] = {"demand", "#8a8a8a"},
    [ALLOCATED] = {"allocated", "#1a6fb5"},
    [FRAGMENTED] = {"fragmented", "#c2410c"},
    [UNPLACED] = {"pods not placed", "#7c3aed"},
};

static double y_of(double percent)
{
    double shown = percent > PERCENT_MAX ? PERCENT_MAX : percent;
    return TOP + HEIGHT * (1 - shown / PERCENT_MAX);
}

static enum at_rc draw_series(const struct at_replay *r, enum series s, struct at_buf *out)
{
    size_t step = r->n / POINTS_MAX + 1, unplaced = 0;
    enum at_rc rc = at_buf_printf(
        out, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" points=\"", SHOWN[s].colour);
    for (size_t i = 0; rc == AT_OK && i < r->n; i++) {
        const struct at_replay_point *p = &r->points[i];
        unplaced += !p->placed;
        if (i % step != 0 && i + 1 != r->n) {
            continue;
        }
        double value = s == DEMAND       ? p->demand
                       : s == ALLOCATED  ? p->allocated
                       : s == FRAGMENTED ? p->fragmented
                                         : 100.0 * (double)unplaced / (double)(i + 1);
        double x = LEFT + WIDTH * (double)(i + 1) / (double)r->n;
        rc = at_buf_printf(out, "%.1f,%.1f ", x, y_of(value));
    }
    return rc == AT_OK ? at_buf_append_str(out, "\"/>\n") : rc;
}

static enum at_rc draw_axes(const struct at_replay *r, struct at_buf *out)
{
    enum at_rc rc = AT_OK;
    for (int percent = 0; rc == AT_OK && percent <= (int)PERCENT_MAX; percent += 25) {
        rc = at_buf_printf(out,
                           "<line x1=\"%.0f\" x2=\"%.0f\" y1=\"%.1f\" y2=\"%.1f\" "
                           "stroke=\"#dddddd\"/>\n<text x=\"%.0f\" y=\"%.1f\" "
                           "text-anchor=\"end\">%d %%</text>\n",
                           LEFT, LEFT + WIDTH, y_of(percent), y_of(percent), LEFT - 6,
                           y_of(percent) + 4, percent);
    }
    for (int part = 0; rc == AT_OK && part <= 4; part++) {
        rc = at_buf_printf(out, "<text x=\"%.0f\" y=\"%.0f\" text-anchor=\"middle\">%zu</text>\n",
                           LEFT + WIDTH * part / 4, TOP + HEIGHT + 20, r->n * (size_t)part / 4);
    }
    for (int s = 0; rc == AT_OK && s < SERIES; s++) {
        rc = at_buf_printf(out, "<text x=\"%.0f\" y=\"%.0f\" fill=\"%s\">%s</text>\n",
                           LEFT + 150.0 * s, TOP + HEIGHT + 44, SHOWN[s].colour, SHOWN[s].name);
    }
    return rc;
}

static enum at_rc append_escaped(struct at_buf *out, const char *text)
{
    enum at_rc rc = AT_OK;
    for (const char *c = text; rc == AT_OK && *c != '\0'; c++) {
        if (*c == '<' || *c == '>' || *c == '&') {
            rc = at_buf_printf(out, "&#%d;", *c);
        } else if ((unsigned char)*c >= ' ') {
            rc = at_buf_append(out, c, 1);
        }
    }
    return rc;
}

enum at_rc at_replay_svg(const struct at_replay *r, const char *title, struct at_buf *out)
{
    enum at_rc rc = at_buf_append_str(
        out, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 960 540\" width=\"960\" "
             "height=\"540\" font-family=\"sans-serif\" font-size=\"13\">\n"
             "<rect width=\"960\" height=\"540\" fill=\"#ffffff\"/>\n<text x=\"60\" y=\"30\" "
             "font-size=\"17\">");
    if (rc == AT_OK) {
        rc = append_escaped(out, title);
    }
    if (rc == AT_OK) {
        rc = at_buf_append_str(out, "</text>\n");
    }
    if (rc == AT_OK) {
        rc = draw_axes(r, out);
    }
    for (int s = 0; rc == AT_OK && s < SERIES; s++) {
        rc = draw_series(r, (enum series)s, out);
    }
    return rc == AT_OK ? at_buf_append_str(out, "</svg>\n") : rc;
}
