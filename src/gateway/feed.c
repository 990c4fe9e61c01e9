/* What the first loop learns by watching, and the route tables it makes of it. */
#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/str.h"
#include "core/units.h"
#include "gateway/gateway_priv.h"
#include "sys/file.h"
#include "sys/socket.h"

#include <string.h>

struct fact {
    char *model, *instance, *site, *node, *addr;
    bool serving;
};

static void fact_free(struct fact *f)
{
    if (f != NULL) {
        at_free(f->model);
        at_free(f->instance);
        at_free(f->site);
        at_free(f->node);
        at_free(f->addr);
        at_free(f);
    }
}

static bool fact_equal(const struct fact *a, const struct fact *b)
{
    return a != NULL && b != NULL && a->serving == b->serving && at_streq(a->model, b->model) &&
           at_streq(a->site, b->site) && at_streq(a->node, b->node) && at_streq(a->addr, b->addr);
}

/* Latency written in the link of one of the two sites. */
static int64_t link_ns(const struct gw_feed *feed, const char *from, const char *to)
{
    size_t i;
    json_t *link;
    json_array_foreach(at_map_get(feed->links, from), i, link)
    {
        int64_t ns;
        if (at_streq(at_json_str_at(link, "site", ""), to) &&
            at_duration_ns(at_json_str_at(link, "latency", ""), &ns, NULL) == AT_OK) {
            return ns;
        }
    }
    return -1;
}

static int64_t latency_ns(const struct at_gateway *g, const char *site)
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

static bool is_synced(const struct gw_feed *f)
{
    return f->instances_synced && f->sites_synced && f->nodes_synced && f->deployments_synced;
}

static void rebuild(void *ctx)
{
    struct at_gateway *g = ctx;
    struct gw_feed *feed = &g->feed;
    struct gw_table *table = gw_table_new();
    void *value;
    feed->rebuild_timer = 0;
    for (size_t it = 0; at_map_next(feed->facts, &it, NULL, &value);) {
        const struct fact *f = value;
        gw_table_add_model(table, f->model);
        if (f->serving && at_map_get(feed->nodes_down, f->node) == NULL) {
            gw_table_add_target(table, f->model, f->instance, f->site, f->addr,
                                latency_ns(g, f->site));
        }
    }
    gw_offers_put(g, table);
    gw_publish(g, table);
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

/* Has the instance a socket on this machine that we may use? What the agent says alone is not
 * believed: the path must be one that only agents make, below a folder named after the instance. */
static bool is_here(const json_t *object)
{
    static const char PREFIX[] = "unix:/";
    const char *local = at_json_str_at(object, "status.localEndpoint", "");
    const char *uid = at_json_str_at(object, "metadata.uid", "");
    AT_CLEANUP(at_cleanup_free) char *tail = at_asprintf("/%s/%s", uid, AT_LOCAL_SOCKET_NAME);
    size_t len = strlen(local), tail_len = strlen(tail);
    return uid[0] != '\0' && strncmp(local, PREFIX, sizeof PREFIX - 1) == 0 && len > tail_len &&
           strcmp(local + len - tail_len, tail) == 0 && strstr(local, "/../") == NULL &&
           at_file_writable(local + strlen("unix:"));
}

static struct fact *fact_of(const json_t *object)
{
    const char *model = at_json_str_at(object, "spec.model.name", "");
    if (model[0] == '\0') {
        const json_t *labels = at_json_at(object, "metadata.labels");
        const char *owner = json_string_value(json_object_get(labels, "atoll.dev/deployment"));
        model = owner != NULL ? owner : "";
    }
    if (model[0] == '\0') {
        return NULL; /* serves nothing: a job's */
    }
    struct fact *f = AT_NEW(struct fact);
    const char *addr = at_json_str_at(object, "status.endpoint", "");
    addr = is_here(object) ? at_json_str_at(object, "status.localEndpoint", "") : addr;
    f->model = at_strdup(model);
    f->instance = at_strdup(at_json_str_at(object, "metadata.name", ""));
    f->site = at_strdup(at_json_str_at(object, "status.site", ""));
    f->node = at_strdup(at_json_str_at(object, "spec.nodeName", ""));
    f->addr = at_strdup(addr);
    f->serving = at_json_bool_at(object, "status.ready", false) && addr[0] != '\0' &&
                 at_json_at(object, "metadata.deletionTimestamp") == NULL;
    return f;
}

static void on_instance(void *ctx, json_t *object, bool deleted)
{
    struct at_gateway *g = ctx;
    AT_CLEANUP(at_cleanup_free) char *key = object_key(object);
    struct fact *now = deleted ? NULL : fact_of(object);
    struct fact *before =
        now != NULL ? at_map_put(g->feed.facts, key, now) : at_map_remove(g->feed.facts, key);
    bool same = now == NULL ? before == NULL : fact_equal(before, now);
    fact_free(before);
    if (!same) {
        gw_feed_changed(g);
    }
}

static void on_site(void *ctx, json_t *object, bool deleted)
{
    struct at_gateway *g = ctx;
    const char *name = at_json_str_at(object, "metadata.name", "");
    json_t *links = deleted ? NULL : json_incref(at_json_at(object, "spec.links"));
    json_t *before =
        links != NULL ? at_map_put(g->feed.links, name, links) : at_map_remove(g->feed.links, name);
    bool same = links == NULL ? before == NULL : before != NULL && json_equal(links, before);
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
    feed->links = at_map_new();
    feed->nodes_down = at_map_new();
    feed->instances = at_informer_new(gateway->client, &AT_KIND_INSTANCE, NULL, NULL,
                                      &(struct at_informer_events){.ctx = gateway,
                                                                   .on_object = on_instance,
                                                                   .on_synced = on_instances_synced,
                                                                   .on_connection = on_connection});
    feed->sites =
        at_informer_new(gateway->client, &AT_KIND_SITE, NULL, NULL,
                        &(struct at_informer_events){
                            .ctx = gateway, .on_object = on_site, .on_synced = on_sites_synced});
    gw_offers_start(gateway);
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
    at_informer_free(feed->sites);
    at_informer_free(feed->nodes);
    gw_offers_done(gateway);
    at_loop_timer_cancel(gateway->loop, feed->rebuild_timer);
    void *value;
    for (size_t it = 0; at_map_next(feed->facts, &it, NULL, &value);) {
        fact_free(value);
    }
    for (size_t it = 0; at_map_next(feed->links, &it, NULL, &value);) {
        json_decref(value);
    }
    at_map_free(feed->facts);
    at_map_free(feed->links);
    at_map_free(feed->nodes_down);
}
