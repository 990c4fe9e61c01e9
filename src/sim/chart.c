#include "sim/chart.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define WIDTH 960.0
#define LEFT 64.0
#define RIGHT 24.0
#define PLOT_WIDTH (WIDTH - LEFT - RIGHT)
#define TITLE_HEIGHT 40.0
#define LEGEND_ROW 22.0
#define LEGEND_CHAR 7.7
#define PANEL_HEIGHT 150.0
#define PANEL_TALL 300.0 /* when there is only one */
#define PANEL_GAP 44.0
#define X_AXIS 46.0
#define TICKS 5

struct range {
    double min, max;
};

struct canvas {
    const struct at_chart *chart;
    struct at_buf *out;
    enum at_rc rc;
    struct range x;
    double panel_height;
};

static void put(struct canvas *c, const char *fmt, ...) AT_PRINTF(2, 3);
static void put(struct canvas *c, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    c->rc = c->rc == AT_OK ? at_buf_append_str(c->out, text) : c->rc;
}

static void put_text(struct canvas *c, const char *text)
{
    for (const char *at = text; c->rc == AT_OK && *at != '\0'; at++) {
        if (*at == '<' || *at == '>' || *at == '&' || *at == '"') {
            put(c, "&#%d;", *at);
        } else if ((unsigned char)*at >= ' ') {
            c->rc = at_buf_append(c->out, at, 1);
        }
    }
}

static struct range range_of(const struct at_chart_panel *panel, bool of_x)
{
    struct range r = {0, 0};
    bool any = false;
    for (size_t l = 0; l < panel->n_lines; l++) {
        for (size_t i = 0; i < panel->lines[l].n; i++) {
            double x, y;
            if (!panel->lines[l].point(panel->lines[l].ctx, i, &x, &y)) {
                continue;
            }
            double v = of_x ? x : y;
            r.max = !any || v > r.max ? v : r.max;
            r.min = !any || v < r.min ? v : r.min;
            any = true;
        }
    }
    return r;
}

/* 1, 2 or 5 times a power of ten, so that about TICKS of them make up span. */
static double tick_step(double span)
{
    double raw = span / TICKS, power = pow(10, floor(log10(raw)));
    double times = raw / power;
    return power * (times <= 1 ? 1 : times <= 2 ? 2 : times <= 5 ? 5 : 10);
}

/* Of times: seconds, minutes, hours and days stay whole. */
static double time_step(double span_ms)
{
    static const double STEPS_S[] = {1,     2,     5,      10,     30,    60,    120,
                                     300,   600,   1800,   3600,   7200,  14400, 21600,
                                     43200, 86400, 172800, 432000, 864000};
    for (size_t i = 0; i < sizeof STEPS_S / sizeof STEPS_S[0]; i++) {
        if (span_ms / (STEPS_S[i] * 1000) <= 8) {
            return STEPS_S[i] * 1000;
        }
    }
    return tick_step(span_ms / 86400000) * 86400000;
}

static void put_number(struct canvas *c, double v)
{
    double size = fabs(v);
    if (size >= 1e6) {
        put(c, "%.10gM", v / 1e6);
    } else if (size >= 1e4) {
        put(c, "%.10gk", v / 1e3);
    } else {
        put(c, "%.10g", fabs(v) < 1e-12 ? 0 : v);
    }
}

static void put_time(struct canvas *c, double ms, double step)
{
    static const struct {
        double ms;
        const char *unit;
    } UNITS[] = {{86400000, "d"}, {3600000, "h"}, {60000, "min"}, {1000, "s"}};
    for (size_t i = 0; i < 4; i++) {
        if (step >= UNITS[i].ms || i == 3) {
            put(c, "%.10g %s", ms / UNITS[i].ms, UNITS[i].unit);
            return;
        }
    }
}

static double x_of(const struct canvas *c, double x)
{
    return LEFT + PLOT_WIDTH * (x - c->x.min) / (c->x.max - c->x.min);
}

static void draw_line(struct canvas *c, const struct at_chart_line *line, double top, double y_max)
{
    bool open = false;
    for (size_t i = 0; i < line->n; i++) {
        double x, y;
        bool there = line->point(line->ctx, i, &x, &y);
        if (there && !open) {
            put(c, "<polyline class=\"l c%u%s\" points=\"", line->colour % AT_CHART_COLOURS,
                line->dashed ? " d" : "");
        } else if (!there && open) {
            put(c, "\"/>\n");
        }
        open = there;
        if (there) {
            y = y > y_max ? y_max : y < 0 ? 0 : y;
            put(c, "%.1f,%.1f ", x_of(c, x), top + c->panel_height * (1 - y / y_max));
        }
    }
    if (open) {
        put(c, "\"/>\n");
    }
}

static void draw_panel(struct canvas *c, const struct at_chart_panel *panel, double top)
{
    double y_max = panel->y_max > 0 ? panel->y_max : range_of(panel, false).max;
    double step = tick_step(y_max > 0 ? y_max : 1);
    y_max = y_max > 0 ? ceil(y_max / step - 1e-9) * step : 1;
    put(c, "<text class=\"p\" x=\"%.0f\" y=\"%.1f\">", LEFT, top - 10);
    put_text(c, panel->label);
    put(c, "</text>\n");
    for (int i = 0; i * step <= y_max * (1 + 1e-9); i++) {
        double y = top + c->panel_height * (1 - i * step / y_max);
        put(c,
            "<path class=\"g\" d=\"M%.0f %.1fH%.0f\"/><text x=\"%.0f\" y=\"%.1f\" "
            "text-anchor=\"end\">",
            LEFT, y, LEFT + PLOT_WIDTH, LEFT - 8, y + 4);
        put_number(c, i * step);
        put(c, "</text>\n");
    }
    for (size_t i = 0; i < panel->n_lines; i++) {
        draw_line(c, &panel->lines[i], top, y_max);
    }
}

static void draw_x_axis(struct canvas *c, double top)
{
    double span = c->x.max - c->x.min;
    double step = c->chart->x_is_time ? time_step(span) : tick_step(span);
    for (double x = ceil(c->x.min / step) * step; x <= c->x.max + step * 1e-9; x += step) {
        put(c,
            "<path class=\"a\" d=\"M%.1f %.1fv5\"/><text x=\"%.1f\" y=\"%.1f\" "
            "text-anchor=\"middle\">",
            x_of(c, x), top, x_of(c, x), top + 20);
        if (c->chart->x_is_time) {
            put_time(c, x, step);
        } else {
            put_number(c, x);
        }
        put(c, "</text>\n");
    }
    put(c,
        "<path class=\"a\" d=\"M%.0f %.1fH%.0f\"/><text x=\"%.1f\" y=\"%.1f\" "
        "text-anchor=\"middle\">",
        LEFT, top, LEFT + PLOT_WIDTH, LEFT + PLOT_WIDTH / 2, top + 40);
    put_text(c, c->chart->x_label);
    put(c, "</text>\n");
}

/* Returns the height it takes; draws only if asked. */
static double legend(struct canvas *c, bool draw)
{
    double x = LEFT, y = TITLE_HEIGHT;
    for (size_t p = 0; p < c->chart->n_panels; p++) {
        for (size_t i = 0; i < c->chart->panels[p].n_lines; i++) {
            const struct at_chart_line *line = &c->chart->panels[p].lines[i];
            if (line->name == NULL) {
                continue;
            }
            double width = 46 + LEGEND_CHAR * (double)strlen(line->name);
            if (x > LEFT && x + width > LEFT + PLOT_WIDTH) {
                x = LEFT;
                y += LEGEND_ROW;
            }
            if (draw) {
                put(c, "<path class=\"l c%u%s\" d=\"M%.1f %.1fh22\"/><text x=\"%.1f\" y=\"%.1f\">",
                    line->colour % AT_CHART_COLOURS, line->dashed ? " d" : "", x, y + 8, x + 28,
                    y + 12);
                put_text(c, line->name);
                put(c, "</text>\n");
            }
            x += width;
        }
    }
    return y + LEGEND_ROW - TITLE_HEIGHT;
}

/* Colours of lines on white, and on black (after Okabe and Ito, told apart by the colour-blind). */
static const char *const LIGHT[AT_CHART_COLOURS] = {"#0b63a5", "#c2410c", "#0f7b5f", "#8e3b8a",
                                                    "#8a6a00", "#3f3fbf", "#b3003c", "#4d5b66"};
static const char *const DARK[AT_CHART_COLOURS] = {"#6cb6ff", "#ff9a5c", "#56d6a8", "#e59ae0",
                                                   "#e8c84a", "#a9a9ff", "#ff85a1", "#b4c0ca"};

static void style(struct canvas *c)
{
    put(c, "<style>text{font:13px system-ui,sans-serif;fill:#333}.t{font-size:17px;fill:#111}"
           ".p{font-weight:600}.b{fill:#fff}.g{stroke:#ddd}.a{stroke:#777}.l{fill:none;"
           "stroke-width:2;stroke-linejoin:round}.d{stroke-dasharray:5 4}");
    for (int i = 0; i < AT_CHART_COLOURS; i++) {
        put(c, ".c%d{stroke:%s}", i, LIGHT[i]);
    }
    put(c, "@media(prefers-color-scheme:dark){text{fill:#ccc}.t{fill:#eee}.b{fill:#15181c}"
           ".g{stroke:#333a42}.a{stroke:#8a939c}");
    for (int i = 0; i < AT_CHART_COLOURS; i++) {
        put(c, ".c%d{stroke:%s}", i, DARK[i]);
    }
    put(c, "}</style>\n");
}

static struct range x_range(const struct at_chart *chart)
{
    struct range all = {0, 0};
    for (size_t p = 0; p < chart->n_panels; p++) {
        struct range r = range_of(&chart->panels[p], true);
        all.min = p == 0 || r.min < all.min ? r.min : all.min;
        all.max = p == 0 || r.max > all.max ? r.max : all.max;
    }
    all.max = all.max > all.min ? all.max : all.min + 1;
    return all;
}

enum at_rc at_chart_svg(const struct at_chart *chart, struct at_buf *out)
{
    struct canvas c = {.chart = chart, .out = out, .x = x_range(chart)};
    c.panel_height = chart->n_panels == 1 ? PANEL_TALL : PANEL_HEIGHT;
    double top = TITLE_HEIGHT + legend(&c, false) + PANEL_GAP - 10;
    double height =
        top + (double)chart->n_panels * (c.panel_height + PANEL_GAP) - PANEL_GAP + X_AXIS + 8;
    put(&c,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
        "height=\"%.0f\" role=\"img\">\n<title>",
        WIDTH, height, WIDTH, height);
    put_text(&c, chart->title);
    put(&c, "</title>\n");
    style(&c);
    put(&c,
        "<rect class=\"b\" width=\"100%%\" height=\"100%%\"/>\n<text class=\"t\" x=\"%.0f\" "
        "y=\"26\">",
        LEFT);
    put_text(&c, chart->title);
    put(&c, "</text>\n");
    (void)legend(&c, true);
    for (size_t p = 0; p < chart->n_panels; p++) {
        draw_panel(&c, &chart->panels[p], top);
        top += c.panel_height + (p + 1 < chart->n_panels ? PANEL_GAP : 0);
    }
    draw_x_axis(&c, top);
    put(&c, "</svg>\n");
    return c.rc;
}
