/* The whole: options, loops and threads, start and stop. */
#include "gateway/gateway.h"

#include "core/log.h"
#include "core/mem.h"
#include "gateway/gateway_priv.h"
#include "gateway/reach.h"
#include "sys/file.h"
#include "sys/machine.h"

#include <assert.h>
#include <string.h>

/* on_ready, once; from the loop. */
void gw_tell(struct at_gateway *gateway, enum at_rc rc, const struct at_err *err)
{
    if (gateway->told) {
        return;
    }
    gateway->told = true;
    at_loop_timer_cancel(gateway->loop, gateway->ready_timer);
    gateway->ready_timer = 0;
    if (gateway->on_ready != NULL) {
        gateway->on_ready(gateway->ctx, rc, err);
    }
}

/* Tell a loop that something lies ready for it; the first one is this one. */
static void call_worker(struct gw_worker *w, void (*take)(void *worker), const char *event,
                        const char *what)
{
    if (w == w->gateway->workers) {
        take(w);
    } else if (at_loop_post(w->loop, take, w) != AT_OK) {
        at_log(AT_LOG_WARN, event, "a loop is too busy to take %s", what);
    }
}

void gw_publish(struct at_gateway *gateway, struct gw_table *table_take)
{
    int64_t now = at_loop_now_ns(gateway->loop);
    at_metric_set(gateway->metrics.route_models, (int64_t)table_take->n_routes);
    at_metric_set(gateway->metrics.route_replicas, (int64_t)table_take->n_targets);
    atomic_store(&gateway->table_at_ns, now > 0 ? now : 1);
    for (unsigned i = 0; i < gateway->n_workers; i++) {
        struct gw_worker *w = &gateway->workers[i];
        gw_table_unref(atomic_exchange(&w->next_table, gw_table_ref(table_take)));
        call_worker(w, gw_worker_take_table, "routes.late", "new routes");
    }
    gw_table_unref(table_take);
}

void gw_publish_rules(struct at_gateway *gateway, struct gw_rules *rules_take)
{
    for (unsigned i = 0; i < gateway->n_workers; i++) {
        struct gw_worker *w = &gateway->workers[i];
        gw_rules_unref(atomic_exchange(&w->next_rules, gw_rules_ref(rules_take)));
        call_worker(w, gw_worker_take_rules, "services.late", "new services");
    }
    gw_rules_unref(rules_take);
}

void gw_publish_keys(struct at_gateway *gateway, struct gw_keys *keys_take)
{
    for (unsigned i = 0; i < gateway->n_workers; i++) {
        struct gw_worker *w = &gateway->workers[i];
        gw_keys_unref(atomic_exchange(&w->next_keys, gw_keys_ref(keys_take)));
        call_worker(w, gw_worker_take_keys, "keys.late", "new keys");
    }
    gw_keys_unref(keys_take);
}

/* Numbers only: a name such as 127.example.org leads anywhere. */
bool gw_is_loopback(const char *addr)
{
    bool numeric = addr[strspn(addr, "0123456789.")] == ':';
    return (strncmp(addr, "127.", 4) == 0 && numeric) || strncmp(addr, "[::1]:", 6) == 0 ||
           strncmp(addr, "localhost:", 10) == 0 || strncmp(addr, "unix:", 5) == 0;
}

static enum at_rc check(const struct at_gateway_options *o, struct at_err *err)
{
    if (o->listen == NULL) {
        return at_err_set_field(err, AT_INVALID, "listen", "an address is needed");
    }
    if (o->n_threads > AT_GW_THREADS_MAX) {
        return at_err_set_field(err, AT_INVALID, "threads", "must be at most %d",
                                AT_GW_THREADS_MAX);
    }
    if (o->static_routes == NULL &&
        (o->server == NULL || o->state_dir == NULL || o->name == NULL)) {
        return at_err_set_field(err, AT_INVALID, "server",
                                "needed, with a name and a state folder, unless routes are static");
    }
    if ((o->tls_cert_file == NULL) != (o->tls_key_file == NULL)) {
        return at_err_set_field(err, AT_INVALID, "tls-cert",
                                "--tls-cert and --tls-key go together");
    }
    if (o->require_keys && o->static_routes != NULL) {
        return at_err_set_field(err, AT_INVALID, "require-keys",
                                "static routes know no API keys: those come from a control plane");
    }
    bool guarded = o->auth_token_file != NULL || o->require_keys;
    if (!gw_is_loopback(o->listen) && (o->tls_cert_file == NULL || !guarded)) {
        return at_err_set_field(
            err, AT_FORBIDDEN, "listen",
            "%s is no loopback address: there, TLS and tokens (or --require-keys) are needed",
            o->listen);
    }
    return AT_OK;
}

static void *thread_main(void *ctx)
{
    struct gw_worker *w = ctx;
    at_loop_run(w->loop);
    return NULL;
}

/* Clients leave a quarter of a loop's descriptors for connections to replicas: many an idle client
 * needs none. */
static void share_descriptors(struct at_gateway *g, size_t all)
{
    size_t each =
        (all - (all > AT_GW_SPARE_DESCRIPTORS ? AT_GW_SPARE_DESCRIPTORS : all)) / g->n_workers;
    each = each < AT_GW_LOOP_DESCRIPTORS_MIN ? AT_GW_LOOP_DESCRIPTORS_MIN : each;
    g->clients_max =
        all == 0 || each / 4 * 3 > AT_GW_CONNECTIONS_MAX ? AT_GW_CONNECTIONS_MAX : each / 4 * 3;
}

static enum at_rc start_workers(struct at_gateway *g, const struct at_gateway_options *o,
                                struct at_err *err)
{
    struct at_http_server_options server = {
        .listen = o->listen,
        .reuse_port = g->n_workers > 1 && strncmp(o->listen, "unix:", 5) != 0,
        .tls = g->certs != NULL ? gw_certs_config(g->certs) : NULL,
        .http2 = true,
        .body_bytes_max = AT_GW_BODY_BYTES_MAX,
        .connections_max = g->clients_max,
        .idle_timeout_ns = AT_GW_CLIENT_IDLE_NS,
        .head_timeout_ns =
            o->client_timeout_ns != 0 ? o->client_timeout_ns : AT_GW_CLIENT_REQUEST_NS};
    for (unsigned i = 0; i < g->n_workers; i++) {
        struct gw_worker *w = &g->workers[i];
        w->gateway = g;
        w->loop = g->loop;
        enum at_rc rc = AT_OK;
        if (i > 0) {
            w->loop = NULL;
            rc = at_loop_new_on(at_loop_sys(g->loop), at_loop_backend(g->loop), &w->loop, err);
            w->has_thread = true; /* its loop is ours to free */
        }
        rc = rc == AT_OK ? gw_worker_start(w, &server, err) : rc;
        if (rc != AT_OK) {
            return rc;
        }
        if (o->busy_poll_ns > 0) {
            at_loop_set_spin(w->loop, o->busy_poll_ns);
        }
        server.listen = at_http_server_addr(w->server); /* the port that :0 took */
    }
    for (unsigned i = 1; i < g->n_workers; i++) {
        struct gw_worker *w = &g->workers[i];
        if (pthread_create(&w->thread, NULL, thread_main, w) != 0) {
            return at_err_set(err, AT_EXHAUSTED, "cannot start thread %u", i);
        }
        w->running = true;
    }
    return AT_OK;
}

/* For the connections that come from now on; the others keep what they have. */
static void on_certs(void *ctx, struct at_tls_config *config)
{
    struct at_gateway *g = ctx;
    for (unsigned i = 0; i < g->n_workers; i++) {
        struct gw_worker *w = &g->workers[i];
        at_tls_config_unref(atomic_exchange(&w->next_tls, at_tls_config_ref(config)));
        call_worker(w, gw_worker_take_tls, "tls.late", "the new certificate");
    }
}

/* Agents know us by our certificate, and we them by theirs. */
static void on_identity(void *ctx, const char *cert_pem, const char *key_pem, const char *ca_pem)
{
    struct at_gateway *g = ctx;
    struct at_tls_options options = {.http2 = true,
                                     .cert_pem = cert_pem,
                                     .key_pem = key_pem,
                                     .ca_pem = ca_pem,
                                     .verify_peer = true,
                                     .by_subject = true};
    struct at_tls_config *config = NULL;
    struct at_err err;
    if (at_tls_config_new(&options, &config, &err) != AT_OK) {
        at_log(AT_LOG_ERROR, "replicas.tls", "%s", err.msg);
        return;
    }
    for (unsigned i = 0; i < g->n_workers; i++) {
        struct gw_worker *w = &g->workers[i];
        at_tls_config_unref(atomic_exchange(&w->next_peer_tls, at_tls_config_ref(config)));
        call_worker(w, gw_worker_take_peer_tls, "replicas.late", "the new identity");
    }
    at_tls_config_unref(config);
}

/* Whose loopback is ours: instances there are reached without TLS. */
static void learn_loopback(struct at_gateway *g)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (at_machine_loopback(&text) == AT_OK) {
        at_sha256_hex(text.data, text.len, g->loopback);
    }
}

static enum at_rc load_certs(struct at_gateway *g, const struct at_gateway_options *o,
                             struct at_err *err)
{
    struct gw_certs_options options = {.loop = g->loop,
                                       .cert_file = o->tls_cert_file,
                                       .key_file = o->tls_key_file,
                                       .metrics = g->metrics.registry,
                                       .on_change = on_certs,
                                       .ctx = g};
    return o->tls_cert_file != NULL ? gw_certs_new(&options, &g->certs, err) : AT_OK;
}

static enum at_rc load_static(struct at_gateway *g, const char *file, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    struct gw_table *table = NULL;
    enum at_rc rc = at_file_read(file, AT_GW_FILE_BYTES_MAX, &text, err);
    if (rc == AT_OK) {
        rc = gw_table_parse(text.data, text.len, &table, err);
    }
    if (rc != AT_OK) {
        return at_err_wrap(err, rc, "routes from %s", file);
    }
    struct gw_rules *rules = NULL;
    rc = gw_rules_parse(text.data, text.len, &rules, err);
    if (rc != AT_OK) {
        gw_table_unref(table);
        return at_err_wrap(err, rc, "services from %s", file);
    }
    gw_publish(g, table);
    gw_publish_rules(g, rules);
    return AT_OK;
}

/* The certificate is there: watch the routes with it. */
static void on_joined(void *ctx, enum at_rc rc, struct at_client *client, const char *site,
                      const struct at_err *err)
{
    struct at_gateway *g = ctx;
    if (rc != AT_OK) {
        gw_tell(g, rc, err);
        return;
    }
    g->client = client;
    if (g->site == NULL && site != NULL) {
        g->site = at_strdup(site);
    }
    gw_services_start(g);
    gw_feed_start(g);
    gw_report_start(g);
    gw_metering_start(g, g->state_dir);
}

static enum at_rc join(struct at_gateway *g, const struct at_gateway_options *o, struct at_err *err)
{
    struct at_join_options options = {.loop = g->loop,
                                      .server = o->server,
                                      .role = "gateway",
                                      .name = o->name,
                                      .token = o->token,
                                      .ca_pin = o->ca_pin,
                                      .state_dir = o->state_dir,
                                      .on_identity = on_identity,
                                      .on_ready = on_joined,
                                      .ctx = g};
    enum at_rc rc = at_dir_make(o->state_dir, 0700, err);
    return rc == AT_OK ? at_join_start(&options, &g->join, err) : rc;
}

static void on_ready_timer(void *ctx)
{
    struct at_gateway *g = ctx;
    g->ready_timer = 0;
    if (g->client != NULL || atomic_load(&g->table_at_ns) != 0) {
        gw_tell(g, AT_OK, NULL);
    } /* else: the join says how it went */
}

enum at_rc at_gateway_new(const struct at_gateway_options *options, struct at_gateway **ret,
                          struct at_err *err)
{
    const struct at_gateway_options *o = options;
    enum at_rc rc = check(o, err);
    if (rc != AT_OK) {
        return rc;
    }
    struct at_gateway *g = AT_NEW(struct at_gateway);
    g->loop = o->loop;
    g->site = at_strdup(o->site);
    g->name = at_strdup(o->name);
    g->state_dir = at_strdup(o->state_dir);
    g->is_tls = o->tls_cert_file != NULL;
    g->has_playground = !o->no_playground;
    g->is_loopback = gw_is_loopback(o->listen);
    g->first_byte_timeout_ns =
        o->first_byte_timeout_ns != 0 ? o->first_byte_timeout_ns : AT_GW_FIRST_BYTE_NS;
    g->wait_requests_max =
        o->wait_requests_max != 0 ? o->wait_requests_max : AT_GW_WAIT_ALL_REQUESTS;
    g->wait_bytes_max = o->wait_bytes_max != 0 ? o->wait_bytes_max : AT_GW_WAIT_ALL_BYTES;
    g->drain_timeout_ns = o->drain_timeout_ns != 0 ? o->drain_timeout_ns : AT_GW_DRAIN_NS;
    g->key_idle_ns = o->key_idle_ns != 0 ? o->key_idle_ns : AT_GW_KEY_IDLE_NS;
    g->tunnel_idle_ns = o->tunnel_idle_ns != 0 ? o->tunnel_idle_ns : AT_GW_TUNNEL_IDLE_NS;
    g->on_ready = o->on_ready;
    g->ctx = o->ctx;
    learn_loopback(g);
    g->n_workers = o->n_threads != 0 ? o->n_threads : 1;
    share_descriptors(g, o->descriptors);
    g->workers = at_alloc(g->n_workers * sizeof *g->workers);
    gw_metrics_init(&g->metrics, at_loop_backend(o->loop));
    rc = gw_auth_load(g, o->auth_token_file, err);
    g->open = g->open && !o->require_keys;
    if (rc == AT_OK) {
        rc = gw_observe_open(g, o, err);
    }
    if (rc == AT_OK) {
        rc = load_certs(g, o, err);
    }
    if (rc == AT_OK) {
        rc = start_workers(g, o, err);
    }
    if (rc == AT_OK) {
        rc = o->static_routes != NULL ? load_static(g, o->static_routes, err) : join(g, o, err);
    }
    if (rc != AT_OK) {
        at_gateway_free(g);
        return rc;
    }
    g->url = at_asprintf("%s://%s", g->is_tls ? "https" : "http",
                         at_http_server_addr(g->workers[0].server));
    g->ready_timer =
        at_loop_timer(g->loop, o->static_routes != NULL ? 0 : AT_GW_READY_NS, on_ready_timer, g);
    *ret = g;
    return AT_OK;
}

const char *at_gateway_url(const struct at_gateway *gateway)
{
    return gateway->url;
}

static void flush_posted(void *ctx)
{
    gw_observe_flush(ctx);
}

void at_gateway_reload(struct at_gateway *gateway)
{
    gw_certs_look(gateway->certs);
    for (unsigned i = 0; i < gateway->n_workers; i++) {
        (void)!at_loop_post(gateway->workers[i].loop, flush_posted, &gateway->workers[i]);
    }
}

static void stop_posted(void *ctx)
{
    gw_worker_stop(ctx);
}

static void stop_look(void *ctx)
{
    struct at_gateway *g = ctx;
    int64_t now = at_loop_now_ns(g->loop);
    g->stop_timer = 0;
    for (unsigned i = 0; i < g->n_workers; i++) {
        if (!atomic_load(&g->workers[i].drained)) {
            g->stop_timer = at_loop_timer(g->loop, AT_GW_DRAIN_LOOK_NS, stop_look, g);
            return;
        }
    }
    /* What was used is told, and what was not spent given back, while there is time. */
    gw_metering_stop(g);
    g->told_until_ns = g->told_until_ns != 0 ? g->told_until_ns : now + AT_GW_TELL_LAST_NS;
    if (gw_metering_busy(g) && now < g->told_until_ns) {
        g->stop_timer = at_loop_timer(g->loop, AT_GW_DRAIN_LOOK_NS, stop_look, g);
        return;
    }
    if (g->stopped != NULL) {
        g->stopped(g->stopped_ctx);
    }
}

void at_gateway_stop(struct at_gateway *gateway, void (*done)(void *ctx), void *ctx)
{
    if (gateway->stopping) {
        return;
    }
    gateway->stopping = true;
    gateway->stopped = done;
    gateway->stopped_ctx = ctx;
    for (unsigned i = 0; i < gateway->n_workers; i++) {
        struct gw_worker *w = &gateway->workers[i];
        if (at_loop_post(w->loop, stop_posted, w) != AT_OK) {
            atomic_store(&w->drained, true); /* too busy to listen: it is cut by at_gateway_free */
        }
    }
    gateway->stop_timer = at_loop_timer(gateway->loop, 0, stop_look, gateway);
}

void at_gateway_free(struct at_gateway *gateway)
{
    struct at_gateway *g = gateway;
    if (g == NULL) {
        return;
    }
    for (unsigned i = 1; i < g->n_workers; i++) {
        if (g->workers[i].running) {
            at_loop_stop(g->workers[i].loop);
            pthread_join(g->workers[i].thread, NULL);
        }
    }
    at_loop_timer_cancel(g->loop, g->ready_timer);
    at_loop_timer_cancel(g->loop, g->stop_timer);
    gw_observe_close(g);
    gw_certs_free(g->certs);
    gw_report_done(g);
    gw_feed_done(g);
    gw_services_done(g);
    gw_metering_close(g);
    at_join_free(g->join);
    for (unsigned i = 0; i < g->n_workers; i++) {
        gw_worker_done(&g->workers[i]);
    }
    gw_metering_done(g);
    at_metrics_free(g->metrics.registry);
    at_free(g->workers);
    at_free(g->digests);
    at_free(g->classes);
    at_free(g->name);
    at_free(g->state_dir);
    at_free(g->keys);
    at_free(g->site);
    at_free(g->url);
    at_free(g);
}
