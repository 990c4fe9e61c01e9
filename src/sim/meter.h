/* What a fleet costs and emits: prices and carbon intensities from files, power by model of GPU. */
#ifndef AT_SIM_METER_H
#define AT_SIM_METER_H

#include "sim/fleet.h"

#define AT_METER_ROWS_MAX 1000000

/* Prices, CSV by header: `site` with any of cpu_hour, memory_gib_hour, gpu_hour (USD); or instance
 * prices: price_usd_h with accelerator, acc_count, and if there instance_type, region, vcpus. */
struct at_prices;
enum at_rc at_prices_read(const char *file, struct at_str text, struct at_prices **ret,
                          struct at_err *err) AT_WARN_UNUSED;
void at_prices_free(struct at_prices *prices); /* accepts NULL */
/* A site's own prices, over those it had (may be NULL). false: the file tells nothing of it. */
bool at_prices_site(const struct at_prices *prices, const char *site,
                    struct at_site_prices *in_out);
/* USD an hour of a whole node: by its label node.kubernetes.io/instance-type, else the median of
 * what so many GPUs of its model cost, else what its cores cost. Negative: nothing is known. */
double at_prices_node(const struct at_prices *prices, const struct at_node *node,
                      const char *region);

/* Carbon intensity in g/kWh, CSV by header: a value column (Carbon Intensity, g_per_kwh, or
 * Google's "Grid carbon intensity (gCO2eq / kWh)"), a key column (site, zone, region or Google
 * Cloud Region) if it differs by place, a time column (Time, UTC) if it changes: the first row is
 * the beginning of the replay, after the last one it begins again. */
struct at_carbon;
enum at_rc at_carbon_read(const char *file, struct at_str text, struct at_carbon **ret,
                          struct at_err *err) AT_WARN_UNUSED;
void at_carbon_free(struct at_carbon *carbon); /* accepts NULL */
/* By site, zone or region name, whichever is known. Negative: nothing is known. */
double at_carbon_at(const struct at_carbon *carbon, const struct at_site *site, int64_t ms);
/* When it changes next after ms; INT64_MAX: never. */
int64_t at_carbon_next(const struct at_carbon *carbon, int64_t ms);

/* Watts of a GPU that is idle and one that is full, and of a core likewise (Lettich et al., CCGrid
 * 2025: Xeon E5-2682v4, 15 and 120 W for 16 cores). */
struct at_watts {
    double idle, full;
};
struct at_watts at_watts_gpu(const char *model);
struct at_watts at_watts_core(void);

#endif
