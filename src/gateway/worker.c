/* One loop: its listener, its connections, and its own view of the routes. */
#include "core/mem.h"
#include "gateway/gateway_priv.h"

#include <assert.h>
#include <string.h>

static char *replica_key(const char *model, const struct gw_target *t)
{
    return at_asprintf("%s|%s|%s|%s", model, t->instance, t->site, t->addr);
}

/* Every replica of the view, by key; they leave the view until they are found again. */
static struct at_map *take_replicas(struct gw_worker *w)
{
    struct at_map *all = at_map_new();
    void *value;
    for (size_t it = 0; at_map_next(w->models, &it, NULL, &value);) {
        struct gw_model *model = value;
        model->in_view = false;
        for (size_t i = 0; i < model->n_replicas; i++) {
            struct gw_replica *r = model->replicas[i];
            struct gw_target t = {.instance = r->instance, .site = r->site, .addr = r->addr};
            AT_CLEANUP(at_cleanup_free) char *key = replica_key(model->name, &t);
            r->in_view = false;
            at_map_put(all, key, r);
        }
    }
    return all;
}

static struct gw_replica *replica_for(struct gw_worker *w, struct at_map *old,
                                      struct gw_model *model, const struct gw_target *t)
{
    AT_CLEANUP(at_cleanup_free) char *key = replica_key(model->name, t);
    struct gw_replica *r = at_map_remove(old, key);
    if (r == NULL) {
        const char *const labels[] = {model->name, t->site, "200", NULL};
        r = AT_NEW(struct gw_replica);
        r->instance = at_strdup(t->instance);
        r->site = at_strdup(t->site);
        r->addr = at_strdup(t->addr);
        r->answered = at_metric_with(w->gateway->metrics.requests, labels);
        gw_model_hope(gw_now(w), model);
    }
    r->model = model;
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
    const char *name = route->model;
    struct gw_model *model = at_map_remove(old, name);
    if (model == NULL) {
        const char *const labels[] = {name, NULL};
        model = AT_NEW(struct gw_model);
        model->name = at_strdup(name);
        model->duration = at_metric_with(w->gateway->metrics.duration, labels);
        gw_retry_start(&model->retries, at_loop_now_ns(w->loop));
    }
    model_set_load(model, route->load);
    model->policy = route->policy;
    model->in_view = true;
    return model;
}

/* Replicas and models that are in the table no more. */
static void drop_old(struct gw_worker *w, struct at_map *replicas, struct at_map *models)
{
    void *value;
    for (size_t it = 0; at_map_next(replicas, &it, NULL, &value);) {
        struct gw_replica *r = value;
        gw_replica_forget(gw_now(w), r->model, r);
        gw_replica_drop(r);
    }
    for (size_t it = 0; at_map_next(models, &it, NULL, &value);) {
        struct gw_model *model = value;
        model->n_replicas = 0;
        gw_model_forget(gw_now(w), model);
        gw_wait_end(model, 404, "it is gone");
        gw_model_drop(model);
    }
}

void gw_worker_take_table(void *worker)
{
    struct gw_worker *w = worker;
    struct gw_table *table = atomic_exchange(&w->next_table, NULL);
    if (table == NULL) {
        return; /* an older notice: its table was overtaken */
    }
    struct at_map *replicas = take_replicas(w);
    struct at_map *old = w->models;
    w->models = at_map_new();
    w->has_table = true;
    for (size_t i = 0; i < table->n_routes; i++) {
        const struct gw_route *route = &table->routes[i];
        struct gw_model *model = model_for(w, old, route);
        model->n_replicas = 0;
        model->replicas =
            at_realloc(model->replicas, (route->n_targets + 1) * sizeof(struct gw_replica *));
        for (size_t j = 0; j < route->n_targets; j++) {
            struct gw_replica *r = replica_for(w, replicas, model, &route->targets[j]);
            model->replicas[model->n_replicas++] = r;
        }
        at_map_put(w->models, route->model, model);
    }
    drop_old(w, replicas, old);
    at_map_free(replicas);
    at_map_free(old);
    gw_table_unref(table);
    void *value;
    for (size_t it = 0; w->n_waiting > 0 && at_map_next(w->models, &it, NULL, &value);) {
        gw_wait_serve(w, value);
    }
}

void gw_worker_take_tls(void *worker)
{
    struct gw_worker *w = worker;
    struct at_tls_config *config = atomic_exchange(&w->next_tls, NULL);
    if (config != NULL && w->server != NULL) {
        at_http_server_set_tls(w->server, config);
    }
    at_tls_config_unref(config);
}

void gw_worker_take_rules(void *worker)
{
    struct gw_worker *w = worker;
    struct gw_rules *rules = atomic_exchange(&w->next_rules, NULL);
    if (rules != NULL) {
        gw_rules_unref(w->rules);
        w->rules = rules;
    }
}

enum at_rc gw_worker_start(struct gw_worker *worker, const struct at_http_server_options *options,
                           struct at_err *err)
{
    struct at_http_server_options o = *options;
    o.handler = gw_handle;
    o.ctx = worker;
    worker->models = at_map_new();
    at_sys_random(at_loop_sys(worker->loop), worker->prng, sizeof worker->prng);
    worker->prng[0] |= 1;
    worker->client = at_http_client_new(
        worker->loop, &(struct at_http_client_options){.connections_per_address_max =
                                                           AT_GW_REPLICA_CONNECTIONS_MAX,
                                                       .mux = true,
                                                       .waiting_max = AT_GW_REPLICA_WAITING_MAX,
                                                       .idle_timeout_ns = AT_GW_REPLICA_IDLE_NS,
                                                       .connect_timeout_ns = AT_GW_CONNECT_NS});
    gw_observe_start(worker);
    return at_http_server_new(worker->loop, &o, &worker->server, err);
}

static void drain_look(void *ctx)
{
    struct gw_worker *w = ctx;
    bool late = at_loop_now_ns(w->loop) >= w->drain_until_ns;
    w->drain_timer = 0;
    int64_t wait_until = w->drain_until_ns - w->gateway->drain_timeout_ns / 4;
    if (w->n_waiting > 0 && at_loop_now_ns(w->loop) >= wait_until) {
        void *value;
        for (size_t it = 0; at_map_next(w->models, &it, NULL, &value);) {
            gw_wait_end(value, 503, "the gateway stops");
        }
    }
    if (!late && (at_http_server_connections(w->server) > 0 || gw_observe_busy(w))) {
        w->drain_timer = at_loop_timer(w->loop, AT_GW_DRAIN_LOOK_NS, drain_look, w);
        return;
    }
    at_http_server_free(w->server);
    w->server = NULL;
    atomic_store(&w->drained, true);
    if (w->has_thread) {
        at_loop_stop(w->loop);
    }
}

void gw_worker_stop(struct gw_worker *worker)
{
    if (worker->stopping) {
        return;
    }
    worker->stopping = true;
    worker->drain_until_ns = at_loop_now_ns(worker->loop) + worker->gateway->drain_timeout_ns;
    at_http_server_drain(worker->server);
    drain_look(worker);
}

void gw_worker_done(struct gw_worker *worker)
{
    if (worker->loop == NULL) {
        return;
    }
    at_loop_timer_cancel(worker->loop, worker->drain_timer);
    gw_wait_done(worker);
    at_http_server_free(worker->server);
    gw_spans_free(worker->spans);
    worker->spans = NULL;
    at_http_client_free(worker->client);
    if (worker->models != NULL) {
        struct at_map *replicas = take_replicas(worker);
        void *value;
        for (size_t it = 0; at_map_next(replicas, &it, NULL, &value);) {
            gw_replica_drop(value);
        }
        for (size_t it = 0; at_map_next(worker->models, &it, NULL, &value);) {
            gw_model_drop(value);
        }
        at_map_free(replicas);
        at_map_free(worker->models);
    }
    gw_table_unref(atomic_exchange(&worker->next_table, NULL));
    at_tls_config_unref(atomic_exchange(&worker->next_tls, NULL));
    gw_rules_unref(atomic_exchange(&worker->next_rules, NULL));
    gw_rules_unref(worker->rules);
    gw_requests_free(worker);
    gw_auth_done(worker);
    gw_observe_done(worker);
    at_buf_done(&worker->scratch);
    if (worker->has_thread) {
        at_loop_free(worker->loop);
    }
}
