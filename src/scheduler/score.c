/* How well each feasible node would do, 0 to 1000 per objective. Integers only. */
#include "scheduler/scheduler_priv.h"

/* The defaults of schema/common.json's Weights, for instances that name none. */
static const int64_t DEFAULT_WEIGHTS[AT_SCHED_OBJ_COUNT] = {
    [AT_SCHED_OBJ_SPREAD] = 100, [AT_SCHED_OBJ_FIT] = 20,     [AT_SCHED_OBJ_PRICE] = 20,
    [AT_SCHED_OBJ_CARBON] = 10,  [AT_SCHED_OBJ_LATENCY] = 10,
};
#define SCORE_MAX 1000
#define SCORE_UNKNOWN 500                   /* nobody told: neither good nor bad */
#define LATENCY_HALF_NS (10 * AT_NS_PER_MS) /* this far away is worth half */

void sched_weights(const struct at_placement *placement, const struct sched_demand *d,
                   int64_t out[AT_SCHED_OBJ_COUNT])
{
    const struct at_weights *w = placement != NULL ? placement->weights : NULL;
    for (int i = 0; i < AT_SCHED_OBJ_COUNT; i++) {
        out[i] = DEFAULT_WEIGHTS[i];
    }
    if (w != NULL) {
        out[AT_SCHED_OBJ_SPREAD] = w->spread;
        out[AT_SCHED_OBJ_FIT] = w->fit;
        out[AT_SCHED_OBJ_PRICE] = w->price;
        out[AT_SCHED_OBJ_CARBON] = w->carbon;
        out[AT_SCHED_OBJ_LATENCY] = w->latency;
    }
    if (placement == NULL || placement->latency_from == NULL ||
        placement->latency_from[0] == '\0') {
        out[AT_SCHED_OBJ_LATENCY] = 0; /* from nowhere, everything is equally far */
    }
    out[AT_SCHED_OBJ_FRAGMENTATION] = d->gpu_count > 0 ? out[AT_SCHED_OBJ_FIT] : 0;
}

static int64_t used_share(int64_t cap, int64_t free_now, int64_t wanted)
{
    int64_t left = free_now - wanted;
    if (cap <= 0 || left >= cap) {
        return 0;
    }
    return left <= 0 ? SCORE_MAX : SCORE_MAX - (int64_t)((__int128)left * SCORE_MAX / cap);
}

static int64_t score_fit(const struct sched_node *n, const struct sched_demand *d)
{
    int64_t sum = used_share(n->cap_cpu_milli, n->cpu_milli, d->cpu_milli) +
                  used_share(n->cap_memory_bytes, n->memory_bytes, d->memory_bytes);
    if (d->gpu_count == 0) {
        return sum / 2;
    }
    return (sum + used_share(n->cap_gpu_milli, sched_gpu_free(n), d->gpu_count * d->gpu_milli)) / 3;
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

static const struct at_site_link *link_to(const struct at_site *site, const char *other)
{
    for (size_t i = 0; site != NULL && i < site->spec.links.n; i++) {
        if (at_streq(site->spec.links.items[i].site, other)) {
            return &site->spec.links.items[i];
        }
    }
    return NULL;
}

/* One hop, whichever end names it; no link known: 0. */
static int64_t score_latency(const struct at_site *site, const char *site_name,
                             const struct at_site *from, const char *from_name)
{
    if (at_streq(site_name, from_name)) {
        return SCORE_MAX;
    }
    const struct at_site_link *link = link_to(from, site_name);
    if (link == NULL) {
        link = link_to(site, from_name);
    }
    if (link == NULL) {
        return 0;
    }
    int64_t ns = link->latency_ns > 0 ? link->latency_ns : 0;
    return (int64_t)((__int128)SCORE_MAX * LATENCY_HALF_NS / ((__int128)LATENCY_HALF_NS + ns));
}

void sched_score_site(const struct sched *s, const struct sched_request *r,
                      const struct at_site *site, const char *site_name,
                      int64_t parts[AT_SCHED_OBJ_COUNT])
{
    parts[AT_SCHED_OBJ_CARBON] = score_carbon(site);
    if (r->weights[AT_SCHED_OBJ_LATENCY] > 0) {
        const char *from_name = r->spec->placement->latency_from;
        const struct sched_site *from = at_map_get(s->site_by_name, from_name);
        parts[AT_SCHED_OBJ_LATENCY] =
            score_latency(site, site_name, from != NULL ? from->site : NULL, from_name);
    }
}

void sched_score_node(const struct sched *s, const struct sched_request *r,
                      const struct sched_node *n, int64_t parts[AT_SCHED_OBJ_COUNT])
{
    parts[AT_SCHED_OBJ_FIT] = score_fit(n, &r->demand);
    if (r->weights[AT_SCHED_OBJ_FRAGMENTATION] > 0) {
        parts[AT_SCHED_OBJ_FRAGMENTATION] = sched_score_fragmentation(s, n, &r->demand);
    }
}
