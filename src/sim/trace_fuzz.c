/* Node list, pod list and order, parted by lines of '='. What is read must replay, within bounds.
 */
#include "core/mem.h"
#include "sim/replay.h"
#include "sim/sim.h"

#include <stdlib.h>

#define REPLAY_PODS_MAX 200

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

static void run(const struct at_trace *t, const struct at_trace_order *o)
{
    struct at_sim *sim = at_sim_new(1);
    for (int i = 0; i < 3 && o->n_pods <= REPLAY_PODS_MAX; i++) {
        struct at_replay_options options = {i == 0 ? AT_PACK_FGD : AT_PACK_BESTFIT, i > 0, i > 1};
        struct at_replay r;
        if (at_replay_run(t, o, &options, at_sim_sys(sim), &r, NULL) != AT_OK) {
            continue;
        }
        for (size_t p = 0; p < r.n; p++) {
            if (r.points[p].allocated < 0 || r.points[p].allocated > 100) {
                abort();
            }
        }
        at_replay_done(&r);
    }
    at_sim_free(sim);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct at_str rest = {(const char *)data, size};
    struct at_str nodes = part(&rest), pods = part(&rest), order = part(&rest);
    struct at_trace t = {0};
    struct at_trace_order o = {0};
    struct at_err err = {0};
    if (at_trace_read_nodes(&t, "n", nodes, &err) == AT_OK &&
        at_trace_read_pods(&t, "p", pods, &err) == AT_OK && t.n_nodes <= 64) {
        if (at_trace_read_order(&t, "o", order, &o, &err) == AT_OK) {
            run(&t, &o);
        }
        at_trace_order_done(&o);
    }
    at_trace_done(&t);
    return 0;
}
