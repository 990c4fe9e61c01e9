/* One loop: its listener and its connections. */
#include "core/mem.h"
#include "gateway/gateway_priv.h"
#include "gateway/lesson.h"
#include "gateway/upload.h"

#include <assert.h>
#include <string.h>

void gw_worker_take_tls(void *worker)
{
    struct gw_worker *w = worker;
    struct at_tls_config *config = atomic_exchange(&w->next_tls, NULL);
    if (config != NULL && w->server != NULL) {
        at_http_server_set_tls(w->server, config);
    }
    at_tls_config_unref(config);
}

void gw_worker_take_peer_tls(void *worker)
{
    struct gw_worker *w = worker;
    struct at_tls_config *config = atomic_exchange(&w->next_peer_tls, NULL);
    if (config != NULL) {
        at_tls_config_unref(w->peer_tls);
        w->peer_tls = config;
    }
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
    o.early = gw_upload_wanted;
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
    gw_check_start(worker);
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
    at_loop_timer_cancel(worker->loop, worker->ready_timer);
    gw_wait_done(worker);
    gw_check_done(worker);
    at_http_server_free(worker->server);
    gw_spans_free(worker->spans);
    worker->spans = NULL;
    at_http_client_free(worker->client);
    gw_lesson_done(worker);
    gw_view_done(worker);
    gw_table_unref(atomic_exchange(&worker->next_table, NULL));
    at_tls_config_unref(atomic_exchange(&worker->next_tls, NULL));
    at_tls_config_unref(atomic_exchange(&worker->next_peer_tls, NULL));
    at_tls_config_unref(worker->peer_tls);
    gw_rules_unref(atomic_exchange(&worker->next_rules, NULL));
    gw_rules_unref(worker->rules);
    gw_keys_unref(atomic_exchange(&worker->next_keys, NULL));
    gw_keys_unref(worker->keys);
    gw_requests_free(worker);
    at_meter_cache_free(worker->replies);
    gw_auth_done(worker);
    gw_observe_done(worker);
    at_buf_done(&worker->scratch);
    if (worker->has_thread) {
        at_loop_free(worker->loop);
    }
}
