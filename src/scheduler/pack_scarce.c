/* Which models of GPU are short? A request that may run on any model should leave those alone that
 * others insist on. Each set of models that requests allow spreads what it asks for over its
 * models so that they get evenly full (the least of the largest loads, by multiplicative updates:
 * Plotkin, Shmoys and Tardos, Fractional Packing and Covering, 1995). A model that ends up fuller
 * than the emptiest one is short by the difference, whatever the sum of the demand. */
#include "core/mem.h"
#include "scheduler/pack_priv.h"

#include <string.h>

#define SETS_MAX 256 /* different sets of models; the rest is left out */
#define ROUNDS 64
#define ONE 4096 /* fixed point */

struct scarce {
    int64_t capacity[AT_PACK_MODELS_MAX]; /* milli */
    int64_t load[AT_PACK_MODELS_MAX];     /* ONE: full, if the whole demand is the capacity */
    uint64_t sets[SETS_MAX];
    int64_t asked[SETS_MAX];
    int64_t share[SETS_MAX][AT_PACK_MODELS_MAX]; /* of asked, sums to ONE */
    size_t n_sets;
    int64_t total, asked_total;
};

static void add_demand(struct scarce *s, const struct at_pack_request *r, int64_t count,
                       uint64_t there)
{
    uint64_t set = r->models == 0 ? there : r->models & there;
    size_t at = 0;
    while (at < s->n_sets && s->sets[at] != set) {
        at++;
    }
    if (set == 0 || at == SETS_MAX) {
        return;
    }
    s->sets[at] = set;
    s->n_sets += at == s->n_sets;
    s->asked[at] += count * r->gpus * r->gpu_milli;
    s->asked_total += count * r->gpus * r->gpu_milli;
}

/* The shares of set at, from the weights in it, made to sum to ONE. */
static void normalise(struct scarce *s, size_t at)
{
    int64_t sum = 0;
    for (int m = 0; m < AT_PACK_MODELS_MAX; m++) {
        sum += s->share[at][m];
    }
    for (int m = 0; sum > 0 && m < AT_PACK_MODELS_MAX; m++) {
        s->share[at][m] = s->share[at][m] * ONE / sum;
    }
}

static void measure_loads(struct scarce *s)
{
    for (int m = 0; m < AT_PACK_MODELS_MAX; m++) {
        __int128 sum = 0;
        for (size_t at = 0; at < s->n_sets; at++) {
            sum += (__int128)s->share[at][m] * s->asked[at];
        }
        __int128 all = (__int128)s->asked_total * s->capacity[m];
        s->load[m] = all > 0 ? (int64_t)(sum * s->total / all) : 0;
    }
}

static void spread_evenly(struct scarce *s)
{
    for (size_t at = 0; at < s->n_sets; at++) {
        for (int m = 0; m < AT_PACK_MODELS_MAX; m++) {
            bool may = (s->sets[at] >> m & 1) != 0;
            s->share[at][m] =
                may ? (int64_t)((__int128)s->capacity[m] * ONE * ONE / s->total) + 1 : 0;
        }
        normalise(s, at);
    }
    measure_loads(s);
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t at = 0; at < s->n_sets; at++) {
            for (int m = 0; m < AT_PACK_MODELS_MAX; m++) {
                s->share[at][m] = s->share[at][m] * ONE * ONE / (s->load[m] + 1);
            }
            normalise(s, at);
        }
        measure_loads(s);
    }
}

void pack_scarce(const struct at_pack_share *shares, size_t n, const struct at_pack_node *nodes,
                 size_t n_nodes, int32_t ret[AT_PACK_MODELS_MAX])
{
    AT_CLEANUP(at_cleanup_free) struct scarce *s = AT_NEW(struct scarce);
    uint64_t there = 0;
    int64_t least = INT64_MAX;
    memset(ret, 0, AT_PACK_MODELS_MAX * sizeof *ret);
    for (size_t i = 0; i < n_nodes; i++) {
        int64_t milli = (int64_t)nodes[i].gpus * AT_PACK_GPU_MILLI;
        s->capacity[nodes[i].model] += milli;
        s->total += milli;
        there |= (uint64_t)(milli > 0) << nodes[i].model;
    }
    for (size_t i = 0; i < n; i++) {
        add_demand(s, &shares[i].request, shares[i].count, there);
    }
    if (s->asked_total == 0 || s->n_sets < 2) {
        return; /* all may run everywhere: nothing is short of anything else */
    }
    spread_evenly(s);
    for (int m = 0; m < AT_PACK_MODELS_MAX; m++) {
        if ((there >> m & 1) != 0 && s->load[m] < least) {
            least = s->load[m];
        }
    }
    for (int m = 0; m < AT_PACK_MODELS_MAX; m++) {
        int64_t more = (there >> m & 1) != 0 ? s->load[m] - least : 0;
        more = more * AT_PACK_GPU_MILLI / ONE;
        ret[m] = (int32_t)(more > AT_PACK_GPU_MILLI ? AT_PACK_GPU_MILLI : more);
    }
}
