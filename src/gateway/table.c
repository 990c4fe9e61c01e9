/* From what is known of the cluster to a route table. A model is a name in a namespace; Deployments
 * of one namespace that name the same model share its requests. "namespace/name" always means
 * that one; the plain name belongs to the oldest of those that have it. */
#include "core/mem.h"
#include "core/units.h"
#include "gateway/feed_priv.h"

#include <stdlib.h>
#include <string.h>

struct group {
    const char *ns, *model;
    char *qualified;
    bool plain;         /* it has the plain name */
    int64_t created_ns; /* of its oldest Deployment; without one, of its oldest instance */
    bool has_offer;
    const struct gw_offer *settings; /* the oldest that says something about affinity */
    const struct gw_offer *oldest;   /* says how requests wait, and the like */
    struct at_meter_price price;     /* the dearest of all */
    struct gw_route *route;
};

struct making {
    struct at_gateway *g;
    struct gw_table *table;
    struct at_map *groups;  /* qualified name → group */
    struct at_map *latency; /* site → int64_t, once looked up */
};

/* Latency written in the link of one of the two sites. */
static int64_t link_ns(const struct gw_feed *feed, const char *from, const char *to)
{
    const struct gw_place *place = at_map_get(feed->places, from);
    size_t i;
    json_t *link;
    json_array_foreach(place != NULL ? place->links : NULL, i, link)
    {
        int64_t ns;
        if (at_streq(at_json_str_at(link, "site", ""), to) &&
            at_duration_ns(at_json_str_at(link, "latency", ""), &ns, NULL) == AT_OK) {
            return ns;
        }
    }
    return -1;
}

static int64_t latency_of(const struct at_gateway *g, const char *site)
{
    const char *own = g->site;
    if (own == NULL || own[0] == '\0' || strcmp(own, site) == 0) {
        return 0;
    }
    int64_t ns = link_ns(&g->feed, own, site);
    if (ns < 0) {
        ns = link_ns(&g->feed, site, own);
    }
    return ns >= 0 ? ns : AT_GW_UNKNOWN_LATENCY_NS;
}

static int64_t latency_ns(struct making *m, const char *site)
{
    int64_t *known = at_map_get(m->latency, site);
    if (known == NULL) {
        known = AT_NEW(int64_t);
        *known = latency_of(m->g, site);
        at_map_put(m->latency, site, known);
    }
    return *known;
}

static struct group *group_of(struct making *m, const char *ns, const char *model,
                              int64_t created_ns, bool is_offer)
{
    AT_CLEANUP(at_cleanup_free) char *qualified = at_asprintf("%s/%s", ns, model);
    struct group *group = at_map_get(m->groups, qualified);
    if (group == NULL) {
        group = AT_NEW(struct group);
        *group = (struct group){.ns = ns,
                                .model = model,
                                .qualified = at_strdup(qualified),
                                .created_ns = created_ns,
                                .has_offer = is_offer};
        at_map_put(m->groups, qualified, group);
    } else if ((is_offer && !group->has_offer) ||
               (is_offer == group->has_offer && created_ns < group->created_ns)) {
        group->created_ns = created_ns;
        group->has_offer = is_offer;
    }
    return group;
}

static const struct gw_offer *offer_of(const struct making *m, const struct gw_fact *f)
{
    if (f->deployment[0] == '\0') {
        return NULL;
    }
    AT_CLEANUP(at_cleanup_free)
    char *key = at_asprintf("%s/%s%s%s", f->ns, f->deployment, f->more ? "//" : "",
                            f->more ? f->model : "");
    return at_map_get(m->g->feed.offers, key);
}

static struct group *group_of_fact(struct making *m, const struct gw_fact *f,
                                   const struct gw_offer *offer)
{
    const char *model = offer != NULL && offer->renames ? offer->model : f->model;
    return group_of(m, f->ns, model, f->created_ns, false);
}

static void dearest(struct at_meter_price *price, const struct at_meter_price *other)
{
    int64_t *const to[] = {&price->input_microusd, &price->output_microusd,
                           &price->request_microusd};
    const int64_t from[] = {other->input_microusd, other->output_microusd, other->request_microusd};
    for (size_t i = 0; i < AT_ARRAY_LEN(to); i++) {
        *to[i] = from[i] > *to[i] ? from[i] : *to[i];
    }
}

static void find_groups(struct making *m)
{
    void *value;
    for (size_t it = 0; at_map_next(m->g->feed.offers, &it, NULL, &value);) {
        const struct gw_offer *o = value;
        struct group *group = group_of(m, o->ns, o->model, o->created_ns, true);
        if (group->oldest == NULL || o->created_ns < group->oldest->created_ns) {
            group->oldest = o;
        }
        dearest(&group->price, &o->policy.price);
        bool says = o->affinity != GW_AFFINITY_AUTO || o->session_header != NULL ||
                    o->session_cookie != NULL;
        if (says && (group->settings == NULL || o->created_ns < group->settings->created_ns)) {
            group->settings = o;
        }
    }
    for (size_t it = 0; at_map_next(m->g->feed.facts, &it, NULL, &value);) {
        group_of_fact(m, value, offer_of(m, value));
    }
}

static int by_age(const void *a, const void *b)
{
    const struct group *x = *(struct group *const *)a, *y = *(struct group *const *)b;
    if (x->has_offer != y->has_offer) {
        return x->has_offer ? -1 : 1; /* an instance by hand takes no Deployment's name */
    }
    if (x->created_ns != y->created_ns) {
        return x->created_ns < y->created_ns ? -1 : 1;
    }
    return strcmp(x->ns, y->ns);
}

/* A plain name that is spelled like somebody's qualified name is nobody's plain name. */
static void give_names(struct making *m, struct group **all, size_t n)
{
    struct at_map *taken = at_map_new();
    qsort(all, n, sizeof *all, by_age);
    for (size_t i = 0; i < n; i++) {
        all[i]->plain = at_map_get(taken, all[i]->model) == NULL &&
                        at_map_get(m->groups, all[i]->model) == NULL;
        if (all[i]->plain) {
            at_map_put(taken, all[i]->model, all[i]);
        }
    }
    at_map_free(taken);
}

static void add_route(struct making *m, const struct group *group)
{
    struct gw_route *route =
        gw_table_route(m->table, group->plain ? group->model : group->qualified);
    route->qualified = at_strdup(group->qualified);
    if (group->oldest != NULL) {
        gw_route_policy(route, &group->oldest->policy,
                        gw_offers_load(&m->g->feed, group->qualified));
        route->policy.price = group->price;
    }
    if (group->settings != NULL) {
        route->affinity = group->settings->affinity;
        route->session_header = at_strdup(group->settings->session_header);
        route->session_cookie = at_strdup(group->settings->session_cookie);
    }
}

static void add_share(struct making *m, const struct gw_offer *o)
{
    struct group *group = group_of(m, o->ns, o->model, o->created_ns, true);
    size_t index = gw_route_share(group->route, o->name); /* may move them */
    struct gw_share *share = &group->route->shares[index];
    share->weight = o->weight;
    share->shadow_percent = o->shadow_percent;
    gw_share_version(share, o->version);
}

static bool is_allowed(const struct gw_table *table, const char *data_class,
                       const char *jurisdiction)
{
    for (size_t i = 0; data_class[0] != '\0' && i < table->n_rules; i++) {
        const struct gw_residency *rule = &table->rules[i];
        bool found = strcmp(rule->data_class, data_class) != 0;
        for (size_t j = 0; !found && j < rule->n_jurisdictions; j++) {
            found = strcmp(rule->jurisdictions[j], jurisdiction) == 0;
        }
        if (!found) {
            return false;
        }
    }
    return true;
}

static void add_target(struct making *m, struct gw_fact *f)
{
    const struct gw_offer *offer = offer_of(m, f);
    struct group *group = group_of_fact(m, f, offer);
    const struct gw_place *place = at_map_get(m->g->feed.places, f->site);
    const char *jurisdiction =
        place != NULL && place->jurisdiction != NULL ? place->jurisdiction : "";
    if (!f->serving || at_map_get(m->g->feed.nodes_down, f->node) != NULL ||
        !is_allowed(m->table, f->data_class, jurisdiction)) {
        return;
    }
    size_t share = gw_route_share(group->route, offer != NULL ? f->deployment : "");
    int64_t most = offer != NULL ? offer->requests_max : 0;
    if (offer != NULL && strcmp(offer->model, group->model) != 0) {
        /* of an older template, which served under another name */
        group->route->shares[share].weight = offer->weight;
        group->route->shares[share].shadow_percent = offer->shadow_percent;
    }
    if (f->standing == NULL) {
        f->standing = gw_standing_new();
    }
    if (most > 0 && f->gauge == NULL) {
        f->gauge = gw_gauge_new();
    }
    gw_table_add_target(
        m->table, group->route,
        &(struct gw_target){.instance = f->instance,
                            .site = f->site,
                            .addr = f->addr,
                            .peer = f->peer,
                            .http2 = f->http2,
                            .version = offer != NULL && offer->versions ? offer->version
                                       : f->version[0] != '\0'
                                           ? f->version
                                           : (offer != NULL ? offer->version : ""),
                            .served_as = f->served_as[0] != '\0' ? f->served_as : group->model,
                            .jurisdiction = jurisdiction,
                            .latency_ns = latency_ns(m, f->site),
                            .share = share,
                            .requests_max = most > UINT32_MAX ? UINT32_MAX : (unsigned)most,
                            .gauge = most > 0 ? f->gauge : NULL,
                            .standing = f->standing});
}

static void add_rules(struct making *m)
{
    void *value;
    for (size_t it = 0; at_map_next(m->g->feed.policies, &it, NULL, &value);) {
        size_t i, j;
        json_t *rule, *where;
        json_array_foreach((json_t *)value, i, rule)
        {
            struct gw_residency *r =
                gw_table_add_rule(m->table, at_json_str_at(rule, "dataClass", ""));
            json_array_foreach(at_json_at(rule, "jurisdictions"), j, where)
            {
                const char *text = json_string_value(where);
                gw_residency_allow(r, text != NULL ? text : "");
            }
        }
    }
}

struct gw_table *gw_feed_table(struct at_gateway *gateway)
{
    struct making m = {
        .g = gateway, .table = gw_table_new(), .groups = at_map_new(), .latency = at_map_new()};
    void *value;
    find_groups(&m);
    size_t n = 0;
    struct group **all = at_alloc((at_map_count(m.groups) + 1) * sizeof *all);
    for (size_t it = 0; at_map_next(m.groups, &it, NULL, &value);) {
        all[n++] = value;
    }
    give_names(&m, all, n);
    for (size_t i = 0; i < n; i++) {
        add_route(&m, all[i]);
    }
    for (size_t i = 0; i < n; i++) { /* none moves any more */
        all[i]->route = gw_table_route(m.table, all[i]->plain ? all[i]->model : all[i]->qualified);
    }
    add_rules(&m);
    for (size_t it = 0; at_map_next(gateway->feed.offers, &it, NULL, &value);) {
        add_share(&m, value);
    }
    for (size_t it = 0; at_map_next(gateway->feed.facts, &it, NULL, &value);) {
        add_target(&m, value);
    }
    for (size_t i = 0; i < n; i++) {
        at_free(all[i]->qualified);
        at_free(all[i]);
    }
    for (size_t it = 0; at_map_next(m.latency, &it, NULL, &value);) {
        at_free(value);
    }
    at_free(all);
    gw_offers_sweep(&gateway->feed);
    at_map_free(m.groups);
    at_map_free(m.latency);
    return m.table;
}
