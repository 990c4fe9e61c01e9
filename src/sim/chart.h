/* Line charts as SVG, some below each other over one x axis; readable on light and dark pages. */
#ifndef AT_SIM_CHART_H
#define AT_SIM_CHART_H

#include "core/buf.h"

#define AT_CHART_COLOURS 8 /* of lines; more begin again */
#define AT_CHART_PANELS_MAX 8

struct at_chart_line {
    const char *name; /* in the legend; NULL: not in it */
    unsigned colour;
    bool dashed;
    size_t n;
    /* The i-th point; false: it is left out, as the line breaks there. */
    bool (*point)(const void *ctx, size_t i, double *ret_x, double *ret_y);
    const void *ctx;
};

struct at_chart_panel {
    const char *label; /* above it, with the unit: "allocated, % of GPUs" */
    const struct at_chart_line *lines;
    size_t n_lines;
    double y_max; /* 0: that of the lines */
};

struct at_chart {
    const char *title;
    const char *x_label;
    bool x_is_time; /* x in ms, shown as seconds to days */
    const struct at_chart_panel *panels;
    size_t n_panels;
};

/* Texts are escaped. err: AT_TOO_LARGE out's cap. */
enum at_rc at_chart_svg(const struct at_chart *chart, struct at_buf *out) AT_WARN_UNUSED;

#endif
