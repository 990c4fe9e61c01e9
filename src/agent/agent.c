#include "agent/agent_priv.h"
#include "agent/gpu.h"
#include "agent/reach.h"

#include "core/log.h"
#include "sys/file.h"

#include <stdio.h>
#include <string.h>

static void drivers_open(struct at_agent *a, const struct at_runtime_ops *const *drivers)
{
    for (size_t n = 0; drivers[n] != NULL && n < AGENT_DRIVERS_MAX; n++) {
        struct agent_driver *d = &a->drivers[a->n_drivers++];
        struct at_err err = {0};
        d->ops = drivers[n];
        AT_CLEANUP(at_cleanup_free) char *dir = at_asprintf("%s/%s", a->state_dir, d->ops->name);
        enum at_rc rc = at_dir_make(dir, 0711, &err);
        if (rc == AT_OK) {
            rc = d->ops->open(a->loop, a->pool, dir, &d->rt, &err);
        }
        if (rc != AT_OK) {
            d->rt = NULL;
            snprintf(d->message, sizeof d->message, "%.255s", err.msg);
            at_log(AT_LOG_WARN, "driver.unusable", "%s: %s", d->ops->name, err.msg);
        }
    }
}

static void labels_copy(struct at_agent *a, const char *const *labels)
{
    size_t n = 0;
    while (labels != NULL && labels[n] != NULL) {
        n++;
    }
    a->labels = at_alloc((n + 1) * sizeof *a->labels);
    for (size_t i = 0; i < n; i++) {
        a->labels[i] = at_strdup(labels[i]);
    }
}

static enum at_rc options_check(const struct at_agent_options *o, struct at_err *err)
{
    for (size_t i = 0; o->labels != NULL && o->labels[i] != NULL; i++) {
        if (strchr(o->labels[i], '=') == NULL) {
            return at_err_set_field(err, AT_INVALID, "label", "%s: must be key=value",
                                    o->labels[i]);
        }
    }
    if (o->server == NULL || strncmp(o->server, "https://", 8) != 0) {
        return at_err_set_field(err, AT_INVALID, "server", "must be an https:// address");
    }
    if (o->name == NULL || o->name[0] == '\0') {
        return at_err_set_field(err, AT_INVALID, "name", "is required");
    }
    if (at_streq(o->listen_host, "0.0.0.0") || at_streq(o->listen_host, "::")) {
        return at_err_set_field(err, AT_INVALID, "listen-host",
                                "%s: must be the one address at which gateways reach this machine",
                                o->listen_host);
    }
    if (o->models_dir != NULL) {
        AT_CLEANUP(at_cleanup_free) char *inside = at_asprintf("%s/.", o->models_dir);
        if (!at_file_exists(inside)) {
            return at_err_set_field(err, AT_NOT_FOUND, "models", "%s: no such folder",
                                    o->models_dir);
        }
    }
    return AT_OK;
}

static enum at_rc dirs_make(struct at_agent *a, struct at_err *err)
{
    static const char *const DIRS[] = {"",
                                       "/models",
                                       "/models/sha256",
                                       "/models/uri",
                                       "/models/packages",
                                       "/models/parts",
                                       "/models/signed",
                                       "/instances",
                                       "/records",
                                       "/logs",
                                       "/gpu"};
    for (size_t i = 0; i < AT_ARRAY_LEN(DIRS); i++) {
        AT_CLEANUP(at_cleanup_free) char *dir = at_asprintf("%s%s", a->state_dir, DIRS[i]);
        /* Passable for the private users of instances, listable for nobody. */
        enum at_rc rc = at_dir_make(dir, 0711, err);
        if (rc != AT_OK) {
            return rc;
        }
    }
    AT_CLEANUP(at_cleanup_free) char *lock = at_asprintf("%s/lock", a->state_dir);
    return at_file_lock(lock, &a->lock_fd, err);
}

static void on_joined(void *ctx, enum at_rc rc, struct at_client *client, const char *site,
                      const struct at_err *err)
{
    struct at_agent *a = ctx;
    if (rc != AT_OK) {
        agent_failed(a, rc, err);
        return;
    }
    a->client = client;
    a->site = at_strdup(site != NULL ? site : "");
    agent_node_start(a);
}

static enum at_rc join(struct at_agent *a, const struct at_agent_options *o, struct at_err *err)
{
    struct at_join_options options = {.loop = a->loop,
                                      .server = o->server,
                                      .role = "agent",
                                      .name = o->name,
                                      .token = o->token,
                                      .ca_pin = o->ca_pin,
                                      .state_dir = o->state_dir,
                                      .servers_ns = AGENT_SERVERS_NS, /* heartbeats notice more */
                                      .on_identity = agent_relay_identity,
                                      .on_ready = on_joined,
                                      .ctx = a};
    return at_join_start(&options, &a->join, err);
}

enum at_rc at_agent_new(const struct at_agent_options *o, struct at_agent **ret, struct at_err *err)
{
    enum at_rc rc = options_check(o, err);
    if (rc != AT_OK) {
        return rc;
    }
    struct at_agent *a = AT_NEW(struct at_agent);
    a->loop = o->loop;
    a->pool = o->pool;
    a->name = at_strdup(o->name);
    a->state_dir = at_strdup(o->state_dir);
    a->devices_file = at_strdup(o->devices_file);
    a->models_dir = at_strdup(o->models_dir);
    a->listen_host = at_strdup(o->listen_host != NULL ? o->listen_host : "127.0.0.1");
    a->self_exe = at_strdup(o->self_exe);
    a->registry_ca = at_strdup(o->registry_ca);
    a->mps_control = at_strdup(o->mps_control);
    a->insecure_registries = o->insecure_registries;
    a->stop_instances = o->stop_instances;
    a->on_ready = o->on_ready;
    a->ctx = o->ctx;
    a->lock_fd = -1;
    a->heartbeat_ns = AGENT_HEARTBEAT_NS;
    a->instances = at_map_new();
    labels_copy(a, o->labels);
    rc = dirs_make(a, err);
    if (rc == AT_OK) {
        a->http = at_http_client_new(a->loop, &(struct at_http_client_options){0});
        a->cache = agent_cache_new(a->state_dir, o->model_cache_bytes);
        a->fetches = agent_fetches_new(a);
        a->packages = agent_packages_new(a);
        drivers_open(a, o->drivers);
        AT_CLEANUP(at_cleanup_free)
        char *listen = at_asprintf(strchr(a->listen_host, ':') != NULL ? "[%s]:%s" : "%s:%s",
                                   a->listen_host, o->relay_port != NULL ? o->relay_port : "0");
        rc = agent_relay_new(a, listen, err);
    }
    if (rc == AT_OK) {
        rc = join(a, o, err);
    }
    if (rc != AT_OK) {
        at_agent_free(a);
        return rc;
    }
    *ret = a;
    return AT_OK;
}

void agent_failed(struct at_agent *a, enum at_rc rc, const struct at_err *err)
{
    if (!a->ready_told) {
        a->ready_told = true;
        a->on_ready(a->ctx, rc, err);
        return;
    }
    at_log(AT_LOG_ERROR, "agent.failed", "%s", err->msg);
}

static void on_object(void *ctx, json_t *object, bool deleted)
{
    agent_instance_apply(ctx, object, deleted);
}

static void on_synced(void *ctx)
{
    struct at_agent *a = ctx;
    agent_instances_synced(a);
    if (!a->ready_told) {
        a->ready_told = true;
        a->on_ready(a->ctx, AT_OK, NULL);
    }
}

static void on_connection(void *ctx, bool connected, const struct at_err *err)
{
    (void)ctx;
    if (connected) {
        at_log(AT_LOG_INFO, "watch.connected", "watching instances");
    } else {
        at_log(AT_LOG_WARN, "watch.lost", "%s", err != NULL ? err->msg : "closed");
    }
}

void agent_node_ready(struct at_agent *a)
{
    if (a->informer != NULL || a->stopping) {
        return;
    }
    agent_instances_load(a);
    a->tunnel = agent_tunnel_new(a);
    agent_logs_check(a);
    char query[512];
    snprintf(query, sizeof query, "fieldSelector=spec.nodeName%%3D%s", a->name);
    struct at_informer_events events = {
        .ctx = a, .on_object = on_object, .on_synced = on_synced, .on_connection = on_connection};
    a->informer = at_informer_new(a->client, &AT_KIND_INSTANCE, NULL, query, &events);
}

static void tell_stopped(void *ctx)
{
    struct at_agent *a = ctx;
    a->on_stopped(a->stopped_ctx);
}

void agent_check_stopped(struct at_agent *a)
{
    if (!a->stopping || a->on_stopped == NULL || a->stop_timer != 0) {
        return;
    }
    if (a->stop_instances && at_map_count(a->instances) != 0) {
        return;
    }
    a->stop_timer = at_loop_timer(a->loop, 0, tell_stopped, a);
}

void at_agent_stop(struct at_agent *a, void (*done)(void *ctx), void *ctx)
{
    if (a->stopping) {
        return;
    }
    a->stopping = true;
    a->on_stopped = done;
    a->stopped_ctx = ctx;
    at_informer_free(a->informer);
    a->informer = NULL;
    agent_tunnel_free(a->tunnel);
    a->tunnel = NULL;
    if (a->stop_instances) {
        if (a->client != NULL) {     /* else it never joined: nothing can run */
            agent_instances_load(a); /* told to end before it began: earlier ones still run */
        }
        agent_instances_stop(a);
    }
    agent_check_stopped(a);
}

static void texts_free(struct at_agent *a)
{
    char *texts[] = {a->name,        a->site,     a->state_dir,   a->devices_file, a->models_dir,
                     a->listen_host, a->self_exe, a->registry_ca, a->mps_control};
    for (size_t i = 0; i < AT_ARRAY_LEN(texts); i++) {
        at_free(texts[i]);
    }
    for (size_t i = 0; a->labels[i] != NULL; i++) {
        at_free(a->labels[i]);
    }
    at_free(a->labels);
}

void at_agent_free(struct at_agent *a)
{
    if (a == NULL) {
        return;
    }
    if (a->informer != NULL) {
        at_informer_free(a->informer);
    }
    agent_tunnel_free(a->tunnel);
    agent_relay_free(a);
    const char *uid;
    void *value;
    for (size_t it = 0; at_map_next(a->instances, &it, &uid, &value);) {
        agent_instance_free(value);
    }
    at_map_free(a->instances);
    agent_shares_done(a);
    agent_mps_done(a);
    agent_gpus_done(a);
    agent_fetches_free(a->fetches);
    agent_packages_free(a->packages);
    agent_cache_free(a->cache);
    agent_node_done(a);
    agent_room_forget(a);
    at_loop_timer_cancel(a->loop, a->stop_timer);
    at_loop_timer_cancel(a->loop, a->log_timer);
    for (size_t i = 0; i < a->n_drivers; i++) {
        if (a->drivers[i].rt != NULL) {
            a->drivers[i].ops->close(a->drivers[i].rt);
        }
    }
    if (a->http != NULL) {
        at_http_client_free(a->http);
    }
    at_join_free(a->join);
    if (a->lock_fd >= 0) {
        at_file_unlock(a->lock_fd);
    }
    texts_free(a);
    at_free(a);
}
