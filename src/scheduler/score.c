/* How well each feasible node would do, 0 to 1000 per objective. Integers only. */
#include "scheduler/scheduler_priv.h"

#include <assert.h>

/* The defaults of schema/common.json's Weights, for instances that name none. */
static const int64_t DEFAULT_WEIGHTS[AT_SCHED_OBJ_COUNT] = {
    [AT_SCHED_OBJ_SPREAD] = 100, [AT_SCHED_OBJ_FIT] = 20,     [AT_SCHED_OBJ_PRICE] = 20,
    [AT_SCHED_OBJ_CARBON] = 10,  [AT_SCHED_OBJ_LATENCY] = 10,
};
#define SCORE_MAX 1000
#define SCORE_UNKNOWN 500                   /* nobody told: neither good nor bad */
#define LATENCY_HALF_NS (10 * AT_NS_PER_MS) /* this far away is worth half */

void sched_weights(const struct at_placement *placement, int64_t out[AT_SCHED_OBJ_COUNT])
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
}

bool sched_spread_by_node(const struct at_placement *placement)
{
    return placement != NULL && at_streq(placement->spread_by, "node");
}

/* Each copy ahead of the emptiest place is worth a quarter: with the default weights evenness wins
 * against everything else, and still tells a little from a lot ahead. */
static int64_t ahead_score(int64_t ahead)
{
    return ahead < 5 ? SCORE_MAX >> (2 * ahead) : 0;
}

/* By site, four fifths are the site's evenness and one fifth that of the nodes inside it. */
static void score_spread(struct sched *s, const struct at_placement *p,
                         const struct sched_group *group, int64_t *least_in_site)
{
    bool by_node = sched_spread_by_node(p);
    int64_t least_site = INT64_MAX;
    int64_t least_node = INT64_MAX;
    for (size_t i = 0; i < s->n_sites; i++) {
        least_in_site[i] = INT64_MAX;
    }
    for (size_t i = 0; i < s->n_nodes; i++) {
        const struct sched_node *n = &s->nodes[i];
        if (!n->feasible) {
            continue;
        }
        int64_t *in_site = &least_in_site[n->site_index];
        *in_site = group->by_node[i] < *in_site ? group->by_node[i] : *in_site;
        least_node = group->by_node[i] < least_node ? group->by_node[i] : least_node;
        least_site =
            group->by_site[n->site_index] < least_site ? group->by_site[n->site_index] : least_site;
    }
    for (size_t i = 0; i < s->n_nodes; i++) {
        struct sched_node *n = &s->nodes[i];
        if (!n->feasible) {
            continue;
        }
        if (by_node) {
            n->parts[AT_SCHED_OBJ_SPREAD] = ahead_score(group->by_node[i] - least_node);
        } else {
            int64_t site = ahead_score(group->by_site[n->site_index] - least_site);
            int64_t node = ahead_score(group->by_node[i] - least_in_site[n->site_index]);
            n->parts[AT_SCHED_OBJ_SPREAD] = (4 * site + node) / 5;
        }
    }
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
static int64_t hourly_price(const struct at_site *site, const struct sched_demand *d)
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

/* The cheapest gets 1000, twice its price half of that. */
static void score_price(struct sched *s, const struct sched_demand *d)
{
    int64_t least = INT64_MAX;
    for (size_t i = 0; i < s->n_nodes; i++) {
        struct sched_node *n = &s->nodes[i];
        if (n->feasible) {
            n->parts[AT_SCHED_OBJ_PRICE] = hourly_price(n->site, d);
            least = n->parts[AT_SCHED_OBJ_PRICE] < least ? n->parts[AT_SCHED_OBJ_PRICE] : least;
        }
    }
    for (size_t i = 0; i < s->n_nodes; i++) {
        int64_t *part = &s->nodes[i].parts[AT_SCHED_OBJ_PRICE];
        if (s->nodes[i].feasible) {
            *part = *part <= least ? SCORE_MAX : SCORE_MAX * least / *part;
        }
    }
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
static int64_t score_latency(const struct sched_node *n, const struct at_site *from,
                             const char *from_name)
{
    if (at_streq(n->node->spec.site, from_name)) {
        return SCORE_MAX;
    }
    const struct at_site_link *link = link_to(from, n->node->spec.site);
    if (link == NULL) {
        link = link_to(n->site, from_name);
    }
    if (link == NULL) {
        return 0;
    }
    int64_t ns = link->latency_ns > 0 ? link->latency_ns : 0;
    return (int64_t)((__int128)SCORE_MAX * LATENCY_HALF_NS / ((__int128)LATENCY_HALF_NS + ns));
}

void sched_score(struct sched *s, const struct at_instance *instance, const struct sched_demand *d,
                 const struct sched_group *group, const int64_t weights[AT_SCHED_OBJ_COUNT])
{
    const struct at_placement *p = instance->spec.placement;
    const char *from_name = p != NULL ? p->latency_from : NULL;
    const struct sched_site *place =
        from_name != NULL ? at_map_get(s->site_by_name, from_name) : NULL;
    const struct at_site *from = place != NULL ? place->site : NULL;
    score_spread(s, p, group, s->site_scratch);
    score_price(s, d);
    for (size_t i = 0; i < s->n_nodes; i++) {
        struct sched_node *n = &s->nodes[i];
        if (!n->feasible) {
            continue;
        }
        n->parts[AT_SCHED_OBJ_FIT] = score_fit(n, d);
        n->parts[AT_SCHED_OBJ_CARBON] = score_carbon(n->site);
        n->parts[AT_SCHED_OBJ_LATENCY] =
            weights[AT_SCHED_OBJ_LATENCY] > 0 ? score_latency(n, from, from_name) : 0;
        n->weighted = 0;
        for (int k = 0; k < AT_SCHED_OBJ_COUNT; k++) {
            assert(n->parts[k] >= 0);
            assert(n->parts[k] <= SCORE_MAX);
            n->weighted += weights[k] * n->parts[k];
        }
    }
}
