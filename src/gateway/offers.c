/* What Deployments say of the models that they offer: a model is known while its Deployment is,
 * also when nothing of it runs, and its requests are treated as the Deployment wants. */
#include "core/log.h"
#include "core/mem.h"
#include "gateway/feed_priv.h"

#include <string.h>

static char *text_at(const json_t *object, const char *path)
{
    return at_strdup(at_json_str_at(object, path, ""));
}

static void offer_free(struct gw_offer *o)
{
    if (o != NULL) {
        char *const texts[] = {o->ns,       o->name,           o->model,
                               o->version,  o->session_header, o->session_cookie,
                               o->qualified};
        for (size_t i = 0; i < AT_ARRAY_LEN(texts); i++) {
            at_free(texts[i]);
        }
        at_free(o);
    }
}

static bool offer_equal(const struct gw_offer *a, const struct gw_offer *b)
{
    return a != NULL && b != NULL && at_streq(a->model, b->model) &&
           at_streq(a->version, b->version) && a->renames == b->renames &&
           a->versions == b->versions && a->created_ns == b->created_ns && a->weight == b->weight &&
           a->shadow_percent == b->shadow_percent && a->requests_max == b->requests_max &&
           a->affinity == b->affinity && at_streq(a->session_header, b->session_header) &&
           at_streq(a->session_cookie, b->session_cookie) &&
           memcmp(&a->policy, &b->policy, sizeof a->policy) == 0;
}

static char *text_or_null(const json_t *object, const char *path)
{
    const char *text = at_json_str_at(object, path, "");
    return text[0] != '\0' ? at_strdup(text) : NULL;
}

static const char *first_of(const json_t *object, const char *path, const char *other_path,
                            const char *otherwise)
{
    const char *text = at_json_str_at(object, path, "");
    text = text[0] != '\0' ? text : at_json_str_at(object, other_path, "");
    return text[0] != '\0' ? text : otherwise;
}

static void read_policy(const json_t *object, struct gw_policy *ret)
{
    struct at_deployment deployment;
    struct at_err err;
    struct at_arena *arena = at_arena_new(AT_GW_POLICY_BYTES_MAX);
    if (at_model_decode(&AT_KIND_DEPLOYMENT, object, arena, &deployment, &err) == AT_OK) {
        gw_policy_of(&deployment, ret);
    } else {
        gw_policy_default(ret);
        at_log(AT_LOG_WARN, "routes.deployment",
               "deployment %s is treated as if it said nothing: %s",
               at_json_str_at(object, "metadata.name", ""), err.msg);
    }
    at_arena_free(arena);
}

static struct gw_offer *offer_of(const json_t *object)
{
    struct gw_offer *o = AT_NEW(struct gw_offer);
    const char *name = at_json_str_at(object, "metadata.name", "");
    o->ns = text_at(object, "metadata.namespace");
    o->name = at_strdup(name);
    o->model =
        at_strdup(first_of(object, "spec.traffic.model", "spec.template.spec.model.name", name));
    o->version = at_strdup(
        first_of(object, "spec.traffic.version", "spec.template.spec.model.version", "1"));
    o->qualified = at_asprintf("%s/%s", o->ns, o->model);
    o->renames = at_json_str_at(object, "spec.traffic.model", "")[0] != '\0';
    o->versions = at_json_str_at(object, "spec.traffic.version", "")[0] != '\0';
    o->created_ns = gw_created_ns(object);
    o->weight = at_json_int_at(object, "spec.traffic.weight", -1);
    o->shadow_percent = at_json_int_at(object, "spec.traffic.shadow", 0);
    o->requests_max = at_json_int_at(object, "spec.limits.requestsPerReplica", 0);
    o->affinity = gw_affinity_of(at_json_str_at(object, "spec.traffic.affinity", ""));
    o->session_header = text_or_null(object, "spec.traffic.session.header");
    o->session_cookie = text_or_null(object, "spec.traffic.session.cookie");
    read_policy(object, &o->policy);
    return o;
}

/* An item of spec.template.spec.models: it waits and is counted as the first, under its own name.
 */
static struct gw_offer *offer_more(const json_t *object, const json_t *model)
{
    struct gw_offer *o = offer_of(object);
    at_free(o->model);
    at_free(o->version);
    at_free(o->qualified);
    o->model = text_at(model, "name");
    o->version = text_at(model, "version");
    o->qualified = at_asprintf("%s/%s", o->ns, o->model);
    o->renames = o->versions = false;
    return o;
}

static void put_offer(struct at_gateway *g, const char *key, struct gw_offer *now)
{
    struct gw_offer *before =
        now != NULL ? at_map_put(g->feed.offers, key, now) : at_map_remove(g->feed.offers, key);
    if (now != NULL && before != NULL) {
        now->arrived_told = before->arrived_told;
        now->arrived_telling = before->arrived_telling;
    }
    bool same = now == NULL ? before == NULL : offer_equal(before, now);
    offer_free(before);
    if (!same) {
        gw_feed_changed(g);
    }
}

/* What an earlier template served too. */
static void drop_more(struct at_gateway *g, const char *key, const json_t *models)
{
    AT_CLEANUP(at_cleanup_free) char *prefix = at_asprintf("%s//", key);
    size_t len = strlen(prefix);
    const char *name;
    void *value;
    for (size_t it = 0; at_map_next(g->feed.offers, &it, &name, &value);) {
        size_t i;
        json_t *model;
        bool stays = strncmp(name, prefix, len) != 0;
        json_array_foreach(models, i, model)
        {
            stays = stays || strcmp(name + len, at_json_str_at(model, "name", "")) == 0;
        }
        if (!stays) {
            put_offer(g, name, NULL);
        }
    }
}

static void on_deployment(void *ctx, json_t *object, bool deleted)
{
    struct at_gateway *g = ctx;
    gw_services_note(g, object, deleted);
    AT_CLEANUP(at_cleanup_free)
    char *key = at_asprintf("%s/%s", at_json_str_at(object, "metadata.namespace", ""),
                            at_json_str_at(object, "metadata.name", ""));
    const json_t *models = deleted ? NULL : at_json_at(object, "spec.template.spec.models");
    size_t i;
    json_t *model;
    put_offer(g, key, deleted ? NULL : offer_of(object));
    drop_more(g, key, models);
    json_array_foreach(models, i, model)
    {
        AT_CLEANUP(at_cleanup_free) char *more = gw_key_more(key, model);
        put_offer(g, more, offer_more(object, model));
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

struct gw_load *gw_offers_load(struct gw_feed *feed, const char *qualified)
{
    struct gw_load *load = at_map_get(feed->loads, qualified);
    if (load == NULL) {
        load = gw_load_new();
        at_map_put(feed->loads, qualified, load);
    }
    return load;
}

void gw_offers_sweep(struct gw_feed *feed)
{
    const char *model;
    void *value;
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
