/* Objectives that look at where data, demand and liked nodes are. 0 to 1000, integers only. */
#include "scheduler/score_place.h"
#include "scheduler/scheduler_priv.h"
#include "scheduler/topology.h"

#include <assert.h>

#define SCORE_MAX 1000
#define LATENCY_HALF_NS (10 * AT_NS_PER_MS) /* this far away is worth half */
#define COST_HALF_MICROUSD INT64_C(100000)  /* bringing the data for this much is worth half */
#define TIME_HALF_MS INT64_C(60000)         /* and so is waiting this long for it */
#define MBPS_UNKNOWN 1000
#define SOFT_TAINT_WEIGHT 100 /* one preference of the highest weight */
#define TOPOLOGY_WEIGHT 100

/* half / (half + x) of SCORE_MAX */
static int64_t halving(int64_t x, int64_t half)
{
    return (int64_t)((__int128)SCORE_MAX * half / ((__int128)half + (x > 0 ? x : 0)));
}

/* --- latency --- */

static int64_t latency_from(const struct sched *s, const char *from, size_t to)
{
    const struct sched_path *paths = sched_net_from(s->net, from);
    return paths != NULL && paths[to].known ? halving(paths[to].latency_ns, LATENCY_HALF_NS) : 0;
}

int64_t sched_score_latency(const struct sched *s, const struct at_placement *p, size_t site)
{
    if (p->demand.n == 0) {
        return at_streq(p->latency_from, s->sites[site]->name)
                   ? SCORE_MAX
                   : latency_from(s, p->latency_from, site);
    }
    __int128 sum = 0;
    int64_t weights = 0;
    for (size_t i = 0; i < p->demand.n; i++) {
        const struct at_demand *d = &p->demand.items[i];
        int64_t weight = d->weight > 0 ? d->weight : 1;
        bool here = at_streq(d->site, s->sites[site]->name);
        sum += (__int128)weight * (here ? SCORE_MAX : latency_from(s, d->site, site));
        weights += weight;
    }
    return (int64_t)(sum / weights);
}

bool sched_has_demand(const struct at_placement *p)
{
    return p != NULL &&
           (p->demand.n > 0 || (p->latency_from != NULL && p->latency_from[0] != '\0'));
}

/* --- data --- */

struct haul {
    int64_t microusd, ms;
};

static int64_t capped(__int128 x)
{
    return x > INT64_MAX / 4 ? INT64_MAX / 4 : (int64_t)x;
}

/* From the cheapest of the sites that have it; false: none can be reached. */
static bool haul_item(const struct sched *s, const struct at_data_item *item, size_t to,
                      struct haul *out)
{
    bool any = false;
    for (size_t i = 0; i < item->sites.n; i++) {
        if (at_streq(item->sites.items[i], s->sites[to]->name)) {
            *out = (struct haul){0};
            return true;
        }
        const struct sched_path *paths = sched_net_from(s->net, item->sites.items[i]);
        if (paths == NULL || !paths[to].known) {
            continue;
        }
        int64_t mbps = paths[to].mbps > 0 ? paths[to].mbps : MBPS_UNKNOWN;
        struct haul h = {
            .microusd = capped((__int128)paths[to].egress_microusd_gib * item->size_bytes >> 30),
            .ms = capped((__int128)item->size_bytes * 8 / 1000 / mbps),
        };
        if (!any || h.microusd < out->microusd || (h.microusd == out->microusd && h.ms < out->ms)) {
            *out = h;
        }
        any = true;
    }
    return any;
}

static bool item_counts(const struct at_data_item *item)
{
    return item->sites.n > 0 && item->size_bytes > 0;
}

static bool has_items(const struct at_workload *spec)
{
    for (size_t i = 0; i < spec->data.n; i++) {
        if (item_counts(&spec->data.items[i])) {
            return true;
        }
    }
    return false;
}

static const char *model_digest(const struct at_workload *spec)
{
    const char *digest = spec->model != NULL ? spec->model->digest : NULL;
    return digest != NULL && digest[0] != '\0' ? digest : NULL;
}

bool sched_has_data(const struct at_workload *spec)
{
    return has_items(spec) || model_digest(spec) != NULL;
}

/* Half for the price of bringing what is not there, half for the time; nothing when it cannot be
 * brought at all. */
static int64_t score_items(const struct sched *s, const struct at_workload *spec, size_t site)
{
    struct haul all = {0};
    for (size_t i = 0; i < spec->data.n; i++) {
        struct haul one = {0};
        if (!item_counts(&spec->data.items[i])) {
            continue;
        }
        if (!haul_item(s, &spec->data.items[i], site, &one)) {
            return 0;
        }
        all.microusd = capped((__int128)all.microusd + one.microusd);
        all.ms = capped((__int128)all.ms + one.ms);
    }
    return (halving(all.microusd, COST_HALF_MICROUSD) + halving(all.ms, TIME_HALF_MS)) / 2;
}

int64_t sched_score_data(const struct sched *s, const struct at_workload *spec,
                         const struct sched_node *n)
{
    const char *digest = model_digest(spec);
    int64_t cached =
        digest != NULL && sched_strings_have(&n->node->status.models, digest) ? SCORE_MAX : 0;
    if (!has_items(spec)) {
        return cached;
    }
    int64_t items = score_items(s, spec, n->site_index);
    return digest != NULL ? (items + cached) / 2 : items;
}

/* --- balance --- */

static int64_t share_left(int64_t cap, int64_t left)
{
    if (cap <= 0) {
        return 0;
    }
    return left <= 0 ? 0 : left >= cap ? SCORE_MAX : (int64_t)((__int128)left * SCORE_MAX / cap);
}

int64_t sched_score_balance(const struct sched_node *n, const struct sched_demand *d)
{
    int64_t cpu = share_left(n->cap_cpu_milli, n->cpu_milli - d->cpu_milli);
    int64_t memory = share_left(n->cap_memory_bytes, n->memory_bytes - d->memory_bytes);
    int64_t most = cpu > memory ? cpu : memory;
    int64_t least = cpu < memory ? cpu : memory;
    if (n->cap_gpu_milli > 0) {
        int64_t gpu = share_left(n->cap_gpu_milli, n->gpu_free_milli - d->gpu_count * d->gpu_milli);
        most = gpu > most ? gpu : most;
        least = gpu < least ? gpu : least;
    }
    return SCORE_MAX - (most - least);
}

/* --- preferences about nodes --- */

static int64_t soft_taints(const struct at_node *node, const struct at_placement *p)
{
    int64_t borne = 0;
    for (size_t i = 0; i < node->spec.taints.n; i++) {
        const struct at_taint *taint = &node->spec.taints.items[i];
        borne += at_streq(taint->effect, "PreferNoSchedule") && !at_sched_tolerates(p, taint);
    }
    return borne;
}

bool sched_is_soft_tainted(const struct at_node *node)
{
    return soft_taints(node, NULL) > 0;
}

static bool wants_near_gpus(const struct sched_request *r)
{
    return r->demand.gpu_count > 1 && r->demand.topology == SCHED_TOPOLOGY_PREFERRED;
}

bool sched_has_preference(const struct at_workload *spec, const struct sched_demand *d)
{
    const struct at_placement *p = spec->placement;
    struct sched_request r = {.spec = spec, .demand = *d};
    return (p != NULL && p->node_affinity != NULL && p->node_affinity->preferred.n > 0) ||
           wants_near_gpus(&r);
}

static int64_t nearness(const struct sched_node *n, const struct sched_request *r)
{
    uint32_t index[AT_SCHED_GPUS_PER_NODE];
    size_t count = sched_gpus_near(n, &r->demand, index);
    return count > 1 ? sched_topology_score(n->node, index, count) : 0;
}

/* The liked things that hold, less the taints that would better be kept away from. */
int64_t sched_score_preference(const struct sched_request *r, const struct sched_node *n)
{
    const struct at_placement *p = r->spec->placement;
    const struct at_node_affinity *liked = p != NULL ? p->node_affinity : NULL;
    int64_t most = 0, sum = 0;
    for (size_t i = 0; liked != NULL && i < liked->preferred.n; i++) {
        const struct at_node_term *term = &liked->preferred.items[i];
        most += term->weight;
        sum += sched_term_refusing(term, n->node, n->site) == NULL ? term->weight : 0;
    }
    if (wants_near_gpus(r)) {
        most += TOPOLOGY_WEIGHT;
        sum += TOPOLOGY_WEIGHT * nearness(n, r) / SCORE_MAX;
    }
    int64_t taints = soft_taints(n->node, p);
    int64_t liking = most > 0 ? SCORE_MAX * sum / most : SCORE_MAX;
    int64_t total = (most > 0 ? most : SOFT_TAINT_WEIGHT) + SOFT_TAINT_WEIGHT * taints;
    int64_t part = taints > 0 ? liking * (most > 0 ? most : 0) / total : liking;
    assert(part >= 0);
    assert(part <= SCORE_MAX);
    return part;
}
