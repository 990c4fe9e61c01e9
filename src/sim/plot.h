/* A replay over its arrivals, as CSV and as a picture. */
#ifndef AT_SIM_PLOT_H
#define AT_SIM_PLOT_H

#include "core/buf.h"
#include "sim/replay.h"

/* event,demand,allocated,fragmented,unscheduled: one line per arrival, in percent of the GPUs; how
 * many pods were not placed so far. err: AT_TOO_LARGE out's cap. */
enum at_rc at_replay_csv(const struct at_replay *replay, struct at_buf *out) AT_WARN_UNUSED;
/* SVG: allocated, fragmented, demand and the share of pods not placed.
 * title: text, escaped here. err: AT_TOO_LARGE. */
enum at_rc at_replay_svg(const struct at_replay *replay, const char *title,
                         struct at_buf *out) AT_WARN_UNUSED;

#endif
