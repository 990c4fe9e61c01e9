/* A recording, and behind a line of '=' prices and carbon. What is read must replay, within bounds.
 */
#include "core/mem.h"
#include "sim/report.h"
#include "sim/sim.h"

#include <stdlib.h>

#define REPLAY_MAX 100 /* requests and nodes of one that is replayed */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct at_str part(struct at_str *rest)
{
    const char *end = rest->len < 3 ? NULL : memmem(rest->ptr, rest->len, "\n=\n", 3);
    struct at_str all = *rest;
    if (end == NULL) {
        *rest = (struct at_str){0};
        return all;
    }
    all.len = (size_t)(end - all.ptr) + 1;
    *rest = (struct at_str){end + 3, rest->len - all.len - 2};
    return all;
}

static void replay(struct at_str text, const struct at_prices *prices,
                   const struct at_carbon *carbon, bool live)
{
    struct at_fleet *f = NULL;
    struct at_sim *sim = at_sim_new(1);
    struct at_whatif what = {.demand = 1, .live = live, .policy = AT_PACK_BESTFIT, .settle_ms = 20};
    struct at_whatif_result r = {0};
    what.prices = prices;
    what.carbon = carbon;
    if (at_fleet_read("r", text, &f, NULL) == AT_OK && f->n_requests <= REPLAY_MAX &&
        f->n_nodes <= REPLAY_MAX && f->end_ms < 100000000 &&
        at_whatif_run(f, &what, at_sim_sys(sim), &r, NULL) == AT_OK) {
        if (r.placed > r.requests || r.n_points == 0) {
            abort();
        }
        at_whatif_done(&r);
    }
    at_fleet_free(f);
    at_sim_free(sim);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct at_str rest = {(const char *)data, size};
    struct at_str recording = part(&rest), prices_text = part(&rest), carbon_text = part(&rest);
    struct at_prices *prices = NULL;
    struct at_carbon *carbon = NULL;
    if (at_prices_read("p", prices_text, &prices, NULL) != AT_OK) {
        prices = NULL;
    }
    if (at_carbon_read("c", carbon_text, &carbon, NULL) != AT_OK) {
        carbon = NULL;
    }
    replay(recording, prices, carbon, false);
    replay(recording, prices, carbon, true);
    at_prices_free(prices);
    at_carbon_free(carbon);
    return 0;
}
