/* What came out of what-if replays: a table, JSON, CSV, pictures. Each is the same byte for byte
 * for the same replays. */
#ifndef AT_SIM_REPORT_H
#define AT_SIM_REPORT_H

#include "core/json.h"
#include "sim/scenario.h"

struct at_report {
    const char *title;
    const struct at_scenario *scenarios;
    const struct at_whatif_result *results;
    const struct at_fleet *const *fleets; /* of the results */
    size_t n;
};

enum at_rc at_report_text(const struct at_report *report, struct at_buf *out) AT_WARN_UNUSED;
json_t *at_report_json(const struct at_report *report); /* own: caller decrefs */
/* scenario,seconds,...: one line per point. */
enum at_rc at_report_csv(const struct at_report *report, struct at_buf *out) AT_WARN_UNUSED;
/* scenario,seconds,namespace,name,node: one line per placement, in the order made. */
enum at_rc at_report_placements(const struct at_report *report, struct at_buf *out) AT_WARN_UNUSED;
enum at_rc at_report_svg(const struct at_report *report, struct at_buf *out) AT_WARN_UNUSED;

#endif
