#include "scheduler/paths.h"

#include "core/map.h"
#include "core/mem.h"
#include "core/str.h"

#include <string.h>

#define NET_BYTES_MAX ((size_t)256 << 20)

struct edge {
    size_t from, to;
    int64_t latency_ns, egress, mbps;
};

struct sched_net {
    struct at_arena *arena;
    const struct at_site *const *sites;
    size_t n;
    struct edge *edges;
    size_t n_edges;
    struct at_map *index; /* name -> index + 1 */
    struct sched_path **from;
};

static const struct at_site_link *link_to(const struct at_site *site, const char *other)
{
    for (size_t i = 0; i < site->spec.links.n; i++) {
        if (at_streq(site->spec.links.items[i].site, other)) {
            return &site->spec.links.items[i];
        }
    }
    return NULL;
}

static int64_t at_least_0(int64_t x)
{
    return x > 0 ? x : 0;
}

static void add_edge(struct sched_net *net, size_t from, size_t to, const struct at_site_link *link)
{
    net->edges[net->n_edges++] = (struct edge){
        .from = from,
        .to = to,
        .latency_ns = at_least_0(link->latency_ns),
        .egress = at_least_0(link->egress_per_gib_microusd),
        .mbps = at_least_0(link->bandwidth_mbps),
    };
}

static void add_links(struct sched_net *net, size_t from)
{
    const struct at_site *site = net->sites[from];
    for (size_t k = 0; k < site->spec.links.n; k++) {
        const struct at_site_link *link = &site->spec.links.items[k];
        size_t to = (size_t)(uintptr_t)at_map_get(net->index, link->site);
        if (to-- == 0 || to == from) {
            continue;
        }
        add_edge(net, from, to, link);
        if (net->sites[to] == NULL || link_to(net->sites[to], site->meta.name) == NULL) {
            add_edge(net, to, from, link);
        }
    }
}

struct sched_net *sched_net_new(const struct at_site *const *sites, size_t n)
{
    struct sched_net *net = AT_NEW(struct sched_net);
    *net = (struct sched_net){
        .arena = at_arena_new(NET_BYTES_MAX), .sites = sites, .n = n, .index = at_map_new()};
    size_t links = 0;
    for (size_t i = 0; i < n; i++) {
        if (sites[i] != NULL) {
            (void)at_map_put(net->index, sites[i]->meta.name, (void *)(uintptr_t)(i + 1));
            links += sites[i]->spec.links.n;
        }
    }
    net->edges = at_arena_alloc(net->arena, sizeof *net->edges * (2 * links + 1));
    net->from = at_arena_alloc(net->arena, sizeof(struct sched_path *) * (n + 1));
    for (size_t i = 0; i < n && net->edges != NULL; i++) {
        if (sites[i] != NULL) {
            add_links(net, i);
        }
    }
    return net;
}

void sched_net_free(struct sched_net *net)
{
    if (net != NULL) {
        at_map_free(net->index);
        at_arena_free(net->arena);
        at_free(net);
    }
}

static int64_t sum(int64_t a, int64_t b)
{
    int64_t out;
    return __builtin_add_overflow(a, b, &out) ? INT64_MAX : out;
}

/* Of equally fast ways the cheaper. */
static bool relax(const struct edge *e, struct sched_path *paths)
{
    const struct sched_path *here = &paths[e->from];
    struct sched_path *there = &paths[e->to];
    if (!here->known) {
        return false;
    }
    int64_t latency = sum(here->latency_ns, e->latency_ns);
    int64_t egress = sum(here->egress_microusd_gib, e->egress);
    if (there->known && (there->latency_ns < latency ||
                         (there->latency_ns == latency && there->egress_microusd_gib <= egress))) {
        return false;
    }
    int64_t mbps = here->mbps == 0 || (e->mbps > 0 && e->mbps < here->mbps) ? e->mbps : here->mbps;
    *there = (struct sched_path){true, latency, egress, mbps};
    return true;
}

const struct sched_path *sched_net_from(struct sched_net *net, const char *site_name)
{
    size_t from = (size_t)(uintptr_t)(site_name != NULL ? at_map_get(net->index, site_name) : NULL);
    if (from-- == 0 || net->from == NULL) {
        return NULL;
    }
    if (net->from[from] != NULL) {
        return net->from[from];
    }
    struct sched_path *paths = at_arena_alloc(net->arena, sizeof *paths * (net->n + 1));
    if (paths == NULL || net->edges == NULL) {
        return NULL;
    }
    paths[from].known = true;
    bool changed = true;
    for (size_t round = 0; changed && round < net->n; round++) { /* Bellman and Ford */
        changed = false;
        for (size_t k = 0; k < net->n_edges; k++) {
            changed |= relax(&net->edges[k], paths);
        }
    }
    net->from[from] = paths;
    return paths;
}
