/* How well each feasible node would do, 0 to 1000 per objective. Integers only. */
#include "scheduler/near.h"
#include "scheduler/scheduler_priv.h"
#include "scheduler/score_place.h"

/* The defaults of schema/common.json's Weights, for instances that name none. */
static const int64_t DEFAULT_WEIGHTS[AT_SCHED_OBJ_COUNT] = {
    [AT_SCHED_OBJ_SPREAD] = 100, [AT_SCHED_OBJ_FIT] = 20,        [AT_SCHED_OBJ_PRICE] = 20,
    [AT_SCHED_OBJ_CARBON] = 10,  [AT_SCHED_OBJ_LATENCY] = 10,    [AT_SCHED_OBJ_FRAGMENTATION] = 20,
    [AT_SCHED_OBJ_DATA] = 10,    [AT_SCHED_OBJ_PREFERENCE] = 50, [AT_SCHED_OBJ_AFFINITY] = 50,
};
#define SCORE_MAX 1000
#define WEIGHT_MAX 1000   /* as the schema says; what is stored may be older */
#define SCORE_UNKNOWN 500 /* nobody told: neither good nor bad */

/* What an objective cannot tell apart for this request does not count. */
void sched_weights(const struct sched *s, const struct at_workload *spec,
                   const struct sched_demand *d, int64_t out[AT_SCHED_OBJ_COUNT])
{
    const struct at_placement *p = spec->placement;
    const struct at_weights *w = p != NULL ? p->weights : NULL;
    for (int i = 0; i < AT_SCHED_OBJ_COUNT; i++) {
        out[i] = DEFAULT_WEIGHTS[i];
    }
    if (w != NULL) {
        out[AT_SCHED_OBJ_SPREAD] = w->spread;
        out[AT_SCHED_OBJ_FIT] = w->fit;
        out[AT_SCHED_OBJ_PRICE] = w->price + w->cost;
        out[AT_SCHED_OBJ_CARBON] = w->carbon;
        out[AT_SCHED_OBJ_LATENCY] = w->latency;
        out[AT_SCHED_OBJ_FRAGMENTATION] = w->fragmentation;
        out[AT_SCHED_OBJ_BALANCE] = w->balance;
        out[AT_SCHED_OBJ_DATA] = w->data;
        out[AT_SCHED_OBJ_PREFERENCE] = w->preference;
        out[AT_SCHED_OBJ_AFFINITY] = w->affinity;
    }
    const bool tells[AT_SCHED_OBJ_COUNT] = {
        [AT_SCHED_OBJ_SPREAD] = true,
        [AT_SCHED_OBJ_FIT] = true,
        [AT_SCHED_OBJ_PRICE] = true,
        [AT_SCHED_OBJ_CARBON] = true,
        [AT_SCHED_OBJ_LATENCY] = sched_has_demand(p), /* from nowhere, all is equally far */
        [AT_SCHED_OBJ_FRAGMENTATION] = d->gpu_count > 0,
        [AT_SCHED_OBJ_BALANCE] = true,
        [AT_SCHED_OBJ_DATA] = sched_has_data(spec),
        [AT_SCHED_OBJ_PREFERENCE] = s->soft_taints || sched_has_preference(spec, d),
        [AT_SCHED_OBJ_AFFINITY] = sched_has_near_preference(p),
    };
    for (int i = 0; i < AT_SCHED_OBJ_COUNT; i++) {
        out[i] = !tells[i] || out[i] < 0 ? 0 : out[i] < WEIGHT_MAX ? out[i] : WEIGHT_MAX;
    }
}

static int64_t used_share(int64_t cap, int64_t free_now, int64_t wanted)
{
    int64_t left = free_now - wanted;
    if (cap <= 0 || left >= cap) {
        return 0;
    }
    return left <= 0 ? SCORE_MAX
                     : SCORE_MAX - left * SCORE_MAX / cap; /* amounts have an end: node.h */
}

static int64_t score_fit(const struct sched_node *n, const struct sched_demand *d)
{
    int64_t sum = used_share(n->cap_cpu_milli, n->cpu_milli, d->cpu_milli) +
                  used_share(n->cap_memory_bytes, n->memory_bytes, d->memory_bytes);
    if (d->gpu_count == 0) {
        return sum / 2;
    }
    return (sum + used_share(n->cap_gpu_milli, n->gpu_free_milli, d->gpu_count * d->gpu_milli)) / 3;
}

/* Microdollars an hour. An instance that asks for nothing is priced as one core and one GiB. */
int64_t sched_hourly_price(const struct at_site *site, const struct sched_demand *d)
{
    const struct at_site_prices *p = site != NULL ? site->spec.prices : NULL;
    if (p == NULL) {
        return 0;
    }
    bool nothing = d->cpu_milli == 0 && d->memory_bytes == 0 && d->gpu_count == 0;
    int64_t cpu_milli = nothing ? 1000 : d->cpu_milli;
    int64_t memory_bytes = nothing ? INT64_C(1) << 30 : d->memory_bytes;
    __int128 sum = (__int128)p->cpu_hour_microusd * cpu_milli / 1000;
    sum += (__int128)p->memory_gib_hour_microusd * memory_bytes >> 30;
    sum += (__int128)p->gpu_hour_microusd * d->gpu_count * d->gpu_milli / 1000;
    return sum > INT64_MAX / SCORE_MAX ? INT64_MAX / SCORE_MAX : (int64_t)sum;
}

static int64_t score_carbon(const struct at_site *site)
{
    int64_t grams = site != NULL ? site->spec.carbon_intensity : 0;
    if (grams <= 0) {
        return SCORE_UNKNOWN;
    }
    return grams >= SCORE_MAX ? 0 : SCORE_MAX - grams;
}

void sched_net_load(struct sched *s)
{
    s->net_sites = at_realloc(s->net_sites, sizeof *s->net_sites * (s->n_sites + 1));
    for (size_t i = 0; i < s->n_sites; i++) {
        s->net_sites[i] = s->sites[i]->site;
    }
    sched_net_free(s->net);
    s->net = sched_net_new(s->net_sites, s->n_sites);
}

void sched_score_site(const struct sched *s, const struct sched_request *r, size_t site,
                      int64_t parts[AT_SCHED_OBJ_COUNT])
{
    parts[AT_SCHED_OBJ_CARBON] = score_carbon(s->sites[site]->site);
    if (r->weights[AT_SCHED_OBJ_LATENCY] > 0) {
        parts[AT_SCHED_OBJ_LATENCY] = sched_score_latency(s, r->spec->placement, site);
    }
}

void sched_score_node(const struct sched *s, const struct sched_request *r,
                      const struct sched_node *n, int64_t parts[AT_SCHED_OBJ_COUNT])
{
    parts[AT_SCHED_OBJ_FIT] = score_fit(n, &r->demand);
    if (r->weights[AT_SCHED_OBJ_FRAGMENTATION] > 0) {
        parts[AT_SCHED_OBJ_FRAGMENTATION] = sched_score_fragmentation(s, n, r);
    }
    if (r->weights[AT_SCHED_OBJ_BALANCE] > 0) {
        parts[AT_SCHED_OBJ_BALANCE] = sched_score_balance(n, &r->demand);
    }
    if (r->weights[AT_SCHED_OBJ_DATA] > 0) {
        parts[AT_SCHED_OBJ_DATA] = sched_score_data(s, r->spec, n);
    }
    if (r->weights[AT_SCHED_OBJ_PREFERENCE] > 0) {
        parts[AT_SCHED_OBJ_PREFERENCE] = sched_score_preference(r, n);
    }
}
