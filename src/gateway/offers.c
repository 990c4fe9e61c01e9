/* What Deployments say of the models that they offer: a model is known while its Deployment is,
 * also when nothing of it runs, and its requests are treated as the Deployment wants. */
#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "gateway/gateway_priv.h"

#include <string.h>

static void offer_free(struct gw_offer *offer)
{
    if (offer != NULL) {
        at_free(offer->model);
        at_free(offer);
    }
}

static struct gw_offer *offer_of(const json_t *object)
{
    const char *model = at_json_str_at(object, "spec.template.spec.model.name", "");
    if (model[0] == '\0') {
        model = at_json_str_at(object, "metadata.name", "");
    }
    struct at_deployment deployment;
    struct at_err err;
    struct at_arena *arena = at_arena_new(AT_GW_POLICY_BYTES_MAX);
    struct gw_offer *offer = AT_NEW(struct gw_offer);
    offer->model = at_strdup(model);
    if (at_model_decode(&AT_KIND_DEPLOYMENT, object, arena, &deployment, &err) == AT_OK) {
        gw_policy_of(&deployment, &offer->policy);
    } else {
        gw_policy_default(&offer->policy);
        at_log(AT_LOG_WARN, "routes.deployment",
               "deployment %s is treated as if it said nothing: %s",
               at_json_str_at(object, "metadata.name", ""), err.msg);
    }
    at_arena_free(arena);
    return offer;
}

static void on_deployment(void *ctx, json_t *object, bool deleted)
{
    struct at_gateway *g = ctx;
    gw_services_note(g, object, deleted);
    AT_CLEANUP(at_cleanup_free)
    char *key = at_asprintf("%s/%s", at_json_str_at(object, "metadata.namespace", ""),
                            at_json_str_at(object, "metadata.name", ""));
    struct gw_offer *now = deleted ? NULL : offer_of(object);
    struct gw_offer *before =
        now != NULL ? at_map_put(g->feed.offers, key, now) : at_map_remove(g->feed.offers, key);
    if (now != NULL && before != NULL) {
        now->arrived_told = before->arrived_told;
        now->arrived_telling = before->arrived_telling;
    }
    bool same = now != NULL && before != NULL && strcmp(now->model, before->model) == 0 &&
                memcmp(&now->policy, &before->policy, sizeof now->policy) == 0;
    offer_free(before);
    if (!same) {
        gw_feed_changed(g);
    }
}

static void on_synced(void *ctx)
{
    struct at_gateway *g = ctx;
    g->feed.deployments_synced = true;
    gw_feed_synced(g);
}

void gw_offers_start(struct at_gateway *gateway)
{
    struct gw_feed *feed = &gateway->feed;
    feed->offers = at_map_new();
    feed->loads = at_map_new();
    feed->deployments =
        at_informer_new(gateway->client, &AT_KIND_DEPLOYMENT, NULL, NULL,
                        &(struct at_informer_events){
                            .ctx = gateway, .on_object = on_deployment, .on_synced = on_synced});
}

static struct gw_load *load_of(struct gw_feed *feed, const char *model)
{
    struct gw_load *load = at_map_get(feed->loads, model);
    if (load == NULL) {
        load = gw_load_new();
        at_map_put(feed->loads, model, load);
    }
    return load;
}

/* Of several Deployments that offer a model, the first that was seen says how. */
void gw_offers_put(struct at_gateway *gateway, struct gw_table *table)
{
    struct gw_feed *feed = &gateway->feed;
    void *value;
    for (size_t it = 0; at_map_next(feed->offers, &it, NULL, &value);) {
        const struct gw_offer *offer = value;
        size_t index = gw_table_add_model(table, offer->model);
        if (table->routes[index].load == NULL) {
            gw_table_set_policy(table, offer->model, &offer->policy, load_of(feed, offer->model));
        }
    }
    const char *model;
    for (size_t it = 0; at_map_next(feed->loads, &it, &model, &value);) {
        struct gw_load *load = value;
        if (atomic_load(&load->refs) == 1) { /* no table and no loop knows it any more */
            at_map_remove(feed->loads, model);
            gw_load_unref(load);
        }
    }
}

void gw_offers_done(struct at_gateway *gateway)
{
    struct gw_feed *feed = &gateway->feed;
    void *value;
    at_informer_free(feed->deployments);
    for (size_t it = 0; at_map_next(feed->offers, &it, NULL, &value);) {
        offer_free(value);
    }
    for (size_t it = 0; at_map_next(feed->loads, &it, NULL, &value);) {
        gw_load_unref(value);
    }
    at_map_free(feed->offers);
    at_map_free(feed->loads);
}
