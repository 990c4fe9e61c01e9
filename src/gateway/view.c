/* A loop's own view of the routes: made anew of each table, keeping what is known of the replicas
 * that stay. */
#include "core/mem.h"
#include "gateway/gateway_priv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static char *replica_key(const char *model, const char *instance, const char *site,
                         const char *addr, const char *peer, bool http2, const char *version,
                         const struct gw_gauge *gauge)
{
    return at_asprintf("%s|%s|%s|%s|%s|%d|%s|%p", model, instance, site, addr,
                       peer != NULL ? peer : "", http2, version, (const void *)gauge);
}

static const char *identity(const char *name, const char *qualified)
{
    return qualified != NULL ? qualified : name;
}

/* Every replica of the view, by key; they leave the view until they are found again. */
static struct at_map *take_replicas(struct gw_worker *w)
{
    struct at_map *all = at_map_new();
    void *value;
    for (size_t it = 0; at_map_next(w->models, &it, NULL, &value);) {
        struct gw_model *model = value;
        model->in_view = false;
        for (size_t i = 0; i < model->n_all; i++) {
            struct gw_replica *r = model->replicas[i];
            AT_CLEANUP(at_cleanup_free)
            char *key = replica_key(identity(model->name, model->qualified), r->instance, r->site,
                                    r->addr, r->peer, r->http2, r->version, r->gauge);
            r->in_view = false;
            struct gw_replica *twice = at_map_put(all, key, r); /* of a static file */
            if (twice != NULL && twice != r) {
                gw_prefix_forget(model->prefix, twice);
                gw_replica_drop(twice);
            }
        }
    }
    return all;
}

static void set_text(char **text, const char *now)
{
    if (!at_streq(*text, now)) {
        at_free(*text);
        *text = at_strdup(now);
    }
}

static struct gw_replica *replica_for(struct gw_worker *w, struct at_map *old,
                                      struct gw_model *model, const struct gw_route *route,
                                      const struct gw_target *t)
{
    AT_CLEANUP(at_cleanup_free)
    char *key = replica_key(identity(route->model, route->qualified), t->instance, t->site, t->addr,
                            t->peer, t->http2, t->version, t->gauge);
    struct gw_replica *r = at_map_remove(old, key);
    if (r == NULL) {
        const char *const labels[] = {route->model, t->site, "200", NULL};
        r = AT_NEW(struct gw_replica);
        r->instance = at_strdup(t->instance);
        r->site = at_strdup(t->site);
        r->addr = at_strdup(t->addr);
        r->peer = at_strdup(t->peer);
        r->tls = at_tls_config_ref(t->tls);
        r->http2 = t->http2;
        r->version = at_strdup(t->version);
        r->version_hash = gw_hash(at_str_of(t->version));
        r->id_hash = gw_hash(at_str_of(t->instance));
        r->gauge = gw_gauge_ref(t->gauge);
        r->answered = at_metric_with(w->gateway->metrics.requests, labels);
        gw_model_hope(gw_now(w), model);
    }
    r->model = model;
    set_text(&r->served_as, t->served_as);
    r->served_hash = gw_hash(at_str_of(r->served_as));
    set_text(&r->jurisdiction, t->jurisdiction);
    struct gw_standing *was = r->standing;
    r->standing = gw_standing_ref(t->standing);
    gw_standing_unref(was);
    r->requests_max = t->requests_max;
    r->latency_ns = t->latency_ns;
    r->in_view = true;
    return r;
}

/* What is counted of the model so far goes with it. */
static void model_set_load(struct gw_model *model, struct gw_load *load)
{
    struct gw_load *both[] = {model->load, load};
    for (size_t i = 0; i < 2 && model->load != load; i++) {
        int sign = i == 0 ? -1 : 1;
        if (both[i] != NULL) {
            atomic_fetch_add(&both[i]->waiting, sign * (int64_t)model->queue.n);
            atomic_fetch_add(&both[i]->running, sign * (int64_t)model->running);
        }
    }
    load = load != NULL ? gw_load_ref(load) : NULL;
    gw_load_unref(model->load);
    model->load = load;
}

static struct gw_model *model_for(struct gw_worker *w, struct at_map *old,
                                  const struct gw_route *route)
{
    struct gw_model *model = at_map_remove(old, identity(route->model, route->qualified));
    if (model == NULL) {
        model = AT_NEW(struct gw_model);
        gw_retry_start(&model->retries, at_loop_now_ns(w->loop));
    }
    model_set_load(model, route->load);
    struct gw_standing *was = model->standing;
    model->standing = gw_standing_ref(route->standing);
    gw_standing_unref(was);
    model->policy = route->policy;
    if (!at_streq(model->name, route->model)) {
        const char *const labels[] = {route->model, NULL};
        model->duration = at_metric_with(w->gateway->metrics.duration, labels);
        model->first_byte = NULL;
    }
    set_text(&model->name, route->model);
    set_text(&model->qualified, route->qualified);
    set_text(&model->session_header, route->session_header);
    set_text(&model->session_cookie, route->session_cookie);
    model->affinity = route->affinity;
    model->in_view = true;
    return model;
}

/* Where a Deployment's replicas stand: those that name a weight each for itself, the rest together,
 * then those that get copies only. */
enum place { PLACE_WEIGHED, PLACE_POOL, PLACE_SHADOW };

static enum place place_of(const struct gw_share *share)
{
    return share->shadow_percent > 0 ? PLACE_SHADOW
           : share->weight >= 0      ? PLACE_WEIGHED
                                     : PLACE_POOL;
}

static int by_place(const void *a, const void *b)
{
    const struct gw_share *x = *(const struct gw_share *const *)a,
                          *y = *(const struct gw_share *const *)b;
    enum place p = place_of(x), q = place_of(y);
    return p != q ? (int)p - (int)q : strcmp(x->deployment, y->deployment);
}

static int by_distance(const void *a, const void *b)
{
    const struct gw_replica *x = *(struct gw_replica *const *)a,
                            *y = *(struct gw_replica *const *)b;
    if (x->latency_ns != y->latency_ns) {
        return x->latency_ns < y->latency_ns ? -1 : 1;
    }
    return strcmp(x->instance, y->instance);
}

static void end_share(struct gw_model *model, struct gw_share_view *view)
{
    struct gw_replica **all = model->replicas;
    view->to = model->n_all;
    if (view->to - view->from > 1) {
        qsort(all + view->from, view->to - view->from, sizeof *all, by_distance);
    }
    size_t end = view->to;
    for (size_t i = view->to; i > view->from; i--) {
        end = i < view->to && all[i - 1]->latency_ns != all[i]->latency_ns ? i : end;
        all[i - 1]->tier_to = end;
    }
}

static void add_replicas(struct gw_worker *w, struct at_map *old, const struct gw_route *route,
                         const struct gw_share *share, struct gw_model *model)
{
    for (size_t j = 0; j < route->n_targets; j++) {
        if (&route->shares[route->targets[j].share] == share) {
            struct gw_replica *r = replica_for(w, old, model, route, &route->targets[j]);
            r->share = model->n_shares;
            model->replicas[model->n_all++] = r;
        }
    }
}

static void add_version(struct gw_model *model, const char *version)
{
    for (size_t i = 0; i < model->n_versions; i++) {
        if (strcmp(model->versions[i], version) == 0) {
            return;
        }
    }
    model->versions =
        at_realloc(model->versions, (model->n_versions + 1) * sizeof *model->versions);
    model->versions[model->n_versions++] = at_strdup(version);
}

static void list_versions(const struct gw_route *route, struct gw_model *model)
{
    gw_model_forget_versions(model);
    for (size_t i = 0; i < route->n_shares; i++) {
        if (route->shares[i].version != NULL) {
            add_version(model, route->shares[i].version);
        }
    }
    for (size_t i = 0; i < route->n_targets; i++) {
        add_version(model, route->targets[i].version);
    }
}

static void fill_model(struct gw_worker *w, struct at_map *old, const struct gw_route *route,
                       struct gw_model *model)
{
    const struct gw_share **order = at_alloc((route->n_shares + 1) * sizeof *order);
    for (size_t i = 0; i < route->n_shares; i++) {
        order[i] = &route->shares[i];
    }
    qsort(order, route->n_shares, sizeof *order, by_place);
    model->replicas =
        at_realloc(model->replicas, (route->n_targets + 1) * sizeof(struct gw_replica *));
    model->shares = at_realloc(model->shares, (route->n_shares + 1) * sizeof *model->shares);
    model->n_shares = model->n_replicas = model->n_all = 0;
    model->pool_rest = NULL;
    int64_t left = 100;
    enum place last = PLACE_WEIGHED;
    for (size_t i = 0; i < route->n_shares; i++) {
        enum place place = place_of(order[i]);
        bool joins = place == PLACE_POOL && last == PLACE_POOL && i > 0;
        if (!joins && model->n_shares < AT_GW_SHARES_MAX) {
            int64_t weight = place == PLACE_WEIGHED ? order[i]->weight
                             : place == PLACE_POOL  ? (left > 0 ? left : 0)
                                                    : 0;
            left -= weight;
            model->shares[model->n_shares++] = (struct gw_share_view){
                .from = model->n_all, .weight = weight, .shadow_percent = order[i]->shadow_percent};
        } /* else: past the limit they share with the last one */
        struct gw_share_view *view = &model->shares[model->n_shares - 1];
        add_replicas(w, old, route, order[i], model);
        end_share(model, view);
        model->n_replicas = place != PLACE_SHADOW ? model->n_all : model->n_replicas;
        model->pool_rest = place == PLACE_POOL ? view : model->pool_rest;
        last = place;
    }
    at_free(order);
}

/* Replicas and models that are in the table no more. */
static void drop_old(struct gw_worker *w, struct at_map *replicas, struct at_map *models)
{
    void *value;
    for (size_t it = 0; at_map_next(replicas, &it, NULL, &value);) {
        struct gw_replica *r = value;
        gw_replica_forget(gw_now(w), r->model, r);
        gw_prefix_forget(r->model->prefix, r);
        gw_replica_drop(r);
    }
    for (size_t it = 0; at_map_next(models, &it, NULL, &value);) {
        struct gw_model *model = value;
        model->n_replicas = model->n_all = model->n_shares = 0;
        model->pool_rest = NULL;
        gw_model_forget(gw_now(w), model);
        gw_wait_end(model, 404, "it is gone");
        gw_model_drop(model);
    }
    at_map_free(replicas);
    at_map_free(models);
}

static struct at_map *by_identity(struct at_map *models)
{
    struct at_map *all = at_map_new();
    void *value;
    for (size_t it = 0; at_map_next(models, &it, NULL, &value);) {
        const struct gw_model *model = value;
        at_map_put(all, identity(model->name, model->qualified), value);
    }
    return all;
}

void gw_worker_take_table(void *worker)
{
    struct gw_worker *w = worker;
    struct gw_table *table = atomic_exchange(&w->next_table, NULL);
    if (table == NULL) {
        return; /* an older notice: its table was overtaken */
    }
    struct at_map *replicas = take_replicas(w);
    struct at_map *old = by_identity(w->models);
    at_map_free(w->models);
    at_map_free(w->aliases);
    w->models = at_map_new();
    w->aliases = at_map_new();
    w->has_table = true;
    for (size_t i = 0; i < table->n_routes; i++) {
        const struct gw_route *route = &table->routes[i];
        struct gw_model *model = model_for(w, old, route);
        fill_model(w, replicas, route, model);
        list_versions(route, model);
        at_map_put(w->models, model->name, model);
        if (model->qualified != NULL && strcmp(model->qualified, model->name) != 0) {
            at_map_put(w->aliases, model->qualified, model);
        }
    }
    drop_old(w, replicas, old);
    gw_table_unref(w->table);
    w->table = table;
    void *value;
    for (size_t it = 0; w->n_waiting > 0 && at_map_next(w->models, &it, NULL, &value);) {
        gw_wait_serve(w, value);
    }
}

struct gw_model *gw_model_find(const struct gw_worker *worker, const char *name, size_t len)
{
    struct gw_model *model = at_map_get_n(worker->models, name, len);
    return model != NULL || worker->aliases == NULL ? model
                                                    : at_map_get_n(worker->aliases, name, len);
}

void gw_view_done(struct gw_worker *worker)
{
    if (worker->models != NULL) {
        struct at_map *replicas = take_replicas(worker);
        drop_old(worker, replicas, worker->models);
        at_map_free(worker->aliases);
        worker->models = worker->aliases = NULL;
    }
    gw_table_unref(worker->table);
    worker->table = NULL;
}
