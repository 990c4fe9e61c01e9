/* What the first loop learns by watching. */
#include "core/log.h"
#include "core/mem.h"
#include "core/str.h"
#include "gateway/feed_priv.h"

#include <string.h>

static bool is_synced(const struct gw_feed *f)
{
    return f->instances_synced && f->deployments_synced && f->sites_synced && f->nodes_synced &&
           f->policies_synced;
}

static void rebuild(void *ctx)
{
    struct at_gateway *g = ctx;
    g->feed.rebuild_timer = 0;
    gw_publish(g, gw_feed_table(g));
    gw_tell(g, AT_OK, NULL);
}

void gw_feed_changed(struct at_gateway *gateway)
{
    struct gw_feed *feed = &gateway->feed;
    if (is_synced(feed) && feed->rebuild_timer == 0) {
        feed->rebuild_timer = at_loop_timer(gateway->loop, AT_GW_REBUILD_NS, rebuild, gateway);
    }
}

static char *object_key(const json_t *object)
{
    return at_asprintf("%s/%s", at_json_str_at(object, "metadata.namespace", ""),
                       at_json_str_at(object, "metadata.name", ""));
}

static void put_fact(struct at_gateway *g, const char *key, struct gw_fact *now)
{
    struct gw_fact *before =
        now != NULL ? at_map_put(g->feed.facts, key, now) : at_map_remove(g->feed.facts, key);
    bool same = now == NULL ? before == NULL : gw_fact_equal(before, now);
    if (now != NULL && before != NULL) {
        now->gauge = gw_gauge_ref(before->gauge); /* what is under way is still counted */
        now->standing = gw_standing_ref(before->standing);
    }
    if (now != NULL && now->unsafe && (before == NULL || !before->unsafe)) {
        at_log(AT_LOG_WARN, "instance.unsafe",
               "%s is on another machine and has no address with TLS: it gets no requests", key);
    }
    gw_fact_free(before);
    if (!same) {
        gw_feed_changed(g);
    }
}

static void on_instance(void *ctx, json_t *object, bool deleted)
{
    struct at_gateway *g = ctx;
    AT_CLEANUP(at_cleanup_free) char *key = object_key(object);
    size_t i;
    json_t *model;
    put_fact(g, key, deleted ? NULL : gw_fact_of(object, g->loopback));
    json_array_foreach(at_json_at(object, "spec.models"), i, model)
    {
        AT_CLEANUP(at_cleanup_free) char *more = gw_key_more(key, model);
        put_fact(g, more, deleted ? NULL : gw_fact_more(object, g->loopback, model));
    }
}

static void on_site(void *ctx, json_t *object, bool deleted)
{
    struct at_gateway *g = ctx;
    const char *name = at_json_str_at(object, "metadata.name", "");
    struct gw_place *now = NULL;
    if (!deleted) {
        now = AT_NEW(struct gw_place);
        now->links = json_incref(at_json_at(object, "spec.links"));
        now->jurisdiction = at_strdup(at_json_str_at(object, "spec.jurisdiction", ""));
    }
    struct gw_place *before =
        now != NULL ? at_map_put(g->feed.places, name, now) : at_map_remove(g->feed.places, name);
    bool same = now == NULL ? before == NULL
                            : before != NULL && at_streq(now->jurisdiction, before->jurisdiction) &&
                                  (now->links == NULL ? before->links == NULL
                                                      : before->links != NULL &&
                                                            json_equal(now->links, before->links));
    gw_place_free(before);
    if (!same) {
        gw_feed_changed(g);
    }
}

static void on_policy(void *ctx, json_t *object, bool deleted)
{
    struct at_gateway *g = ctx;
    const char *name = at_json_str_at(object, "metadata.name", "");
    json_t *rules = deleted ? NULL : json_incref(at_json_at(object, "spec.residency"));
    json_t *before = rules != NULL ? at_map_put(g->feed.policies, name, rules)
                                   : at_map_remove(g->feed.policies, name);
    bool same = rules == NULL ? before == NULL : before != NULL && json_equal(rules, before);
    json_decref(before);
    if (!same) {
        gw_feed_changed(g);
    }
}

/* A lost node's replicas go at once, before each of them is told to have failed. */
static void on_node(void *ctx, json_t *object, bool deleted)
{
    struct at_gateway *g = ctx;
    const char *name = at_json_str_at(object, "metadata.name", "");
    bool down = false;
    size_t i;
    json_t *condition;
    json_array_foreach(at_json_at(object, "status.conditions"), i, condition)
    {
        down |= at_streq(at_json_str_at(condition, "type", ""), "Ready") &&
                at_streq(at_json_str_at(condition, "status", ""), "False");
    }
    down = down && !deleted;
    bool before = (down ? at_map_put(g->feed.nodes_down, name, g)
                        : at_map_remove(g->feed.nodes_down, name)) != NULL;
    if (before != down) {
        gw_feed_changed(g);
    }
}

void gw_feed_synced(struct at_gateway *gateway)
{
    if (is_synced(&gateway->feed)) {
        at_loop_timer_cancel(gateway->loop, gateway->feed.rebuild_timer);
        rebuild(gateway);
    }
}

static void on_instances_synced(void *ctx)
{
    struct at_gateway *g = ctx;
    g->feed.instances_synced = true;
    gw_feed_synced(g);
}

static void on_sites_synced(void *ctx)
{
    struct at_gateway *g = ctx;
    g->feed.sites_synced = true;
    gw_feed_synced(g);
}

static void on_policies_synced(void *ctx)
{
    struct at_gateway *g = ctx;
    g->feed.policies_synced = true;
    gw_feed_synced(g);
}

static void on_nodes_synced(void *ctx)
{
    struct at_gateway *g = ctx;
    g->feed.nodes_synced = true;
    gw_feed_synced(g);
}

static void on_connection(void *ctx, bool connected, const struct at_err *err)
{
    struct at_gateway *g = ctx;
    at_metric_set(g->metrics.connected, connected);
    if (connected) {
        at_log(AT_LOG_INFO, "routes.connected", "watching the routes");
    } else {
        at_log(AT_LOG_WARN, "routes.disconnected", "keeping the last routes: %s",
               err != NULL ? err->msg : "connection lost");
    }
}

void gw_feed_start(struct at_gateway *gateway)
{
    struct gw_feed *feed = &gateway->feed;
    feed->facts = at_map_new();
    feed->places = at_map_new();
    feed->policies = at_map_new();
    feed->nodes_down = at_map_new();
    feed->instances = at_informer_new(gateway->client, &AT_KIND_INSTANCE, NULL, NULL,
                                      &(struct at_informer_events){.ctx = gateway,
                                                                   .on_object = on_instance,
                                                                   .on_synced = on_instances_synced,
                                                                   .on_connection = on_connection});
    gw_offers_start(gateway);
    feed->policy_informer = at_informer_new(
        gateway->client, &AT_KIND_POLICY, NULL, NULL,
        &(struct at_informer_events){
            .ctx = gateway, .on_object = on_policy, .on_synced = on_policies_synced});
    feed->sites =
        at_informer_new(gateway->client, &AT_KIND_SITE, NULL, NULL,
                        &(struct at_informer_events){
                            .ctx = gateway, .on_object = on_site, .on_synced = on_sites_synced});
    feed->nodes =
        at_informer_new(gateway->client, &AT_KIND_NODE, NULL, NULL,
                        &(struct at_informer_events){
                            .ctx = gateway, .on_object = on_node, .on_synced = on_nodes_synced});
}

void gw_feed_done(struct at_gateway *gateway)
{
    struct gw_feed *feed = &gateway->feed;
    if (feed->facts == NULL) {
        return;
    }
    at_informer_free(feed->instances);
    gw_offers_done(gateway);
    at_informer_free(feed->policy_informer);
    at_informer_free(feed->sites);
    at_informer_free(feed->nodes);
    at_loop_timer_cancel(gateway->loop, feed->rebuild_timer);
    void *value;
    for (size_t it = 0; at_map_next(feed->facts, &it, NULL, &value);) {
        gw_fact_free(value);
    }
    for (size_t it = 0; at_map_next(feed->places, &it, NULL, &value);) {
        gw_place_free(value);
    }
    for (size_t it = 0; at_map_next(feed->policies, &it, NULL, &value);) {
        json_decref(value);
    }
    at_map_free(feed->facts);
    at_map_free(feed->places);
    at_map_free(feed->policies);
    at_map_free(feed->nodes_down);
}
