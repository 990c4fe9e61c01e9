#include "agent/agent_priv.h"
#include "agent/gpu.h"

#include "core/log.h"
#include "devices/devices.h"
#include "sys/file.h"

#include <string.h>

#define DIGEST_DIGITS 64

static void heartbeat_send(void *ctx);
static void node_retry(struct at_agent *a, const struct at_err *err);

/* --- the Node's status --- */

static json_t *drivers_json(const struct at_agent *a)
{
    json_t *list = json_array();
    for (size_t i = 0; i < a->n_drivers; i++) {
        const struct agent_driver *d = &a->drivers[i];
        json_array_append_new(list, json_pack("{s:s, s:b, s:s}", "name", d->ops->name, "ready",
                                              d->rt != NULL, "message", d->message));
    }
    return list;
}

static void on_status(void *ctx, enum at_rc rc, int status, json_t *body, const struct at_err *err)
{
    (void)status;
    (void)body;
    struct at_agent *a = ctx;
    if (rc != AT_OK) {
        node_retry(a, err);
        return;
    }
    if (a->heartbeat_timer == 0) {
        a->heartbeat_timer = at_loop_timer(a->loop, 0, heartbeat_send, a);
    }
    agent_node_ready(a);
}

/* Digests of the models in the cache: placement likes a node that has what an instance needs. */
static json_t *models_json(const struct at_agent *a)
{
    json_t *list = json_array();
    AT_CLEANUP(at_cleanup_free) char *dir = at_asprintf("%s/models/sha256", a->state_dir);
    char **names = NULL;
    size_t n = 0;
    if (at_dir_list(dir, &names, &n, NULL) != AT_OK) {
        return list; /* nothing was fetched yet */
    }
    for (size_t i = 0; i < n; i++) {
        if (strlen(names[i]) == DIGEST_DIGITS && json_array_size(list) < AGENT_MODELS_TOLD_MAX) {
            json_array_append_new(list, json_sprintf("sha256:%s", names[i]));
        }
        at_free(names[i]);
    }
    at_free(names);
    return list;
}

static void on_models(void *ctx, enum at_rc rc, int status, json_t *body, const struct at_err *err)
{
    (void)ctx;
    (void)status;
    (void)body;
    if (rc != AT_OK) {
        at_log(AT_LOG_WARN, "models.untold", "the models in the cache: %s", err->msg);
    }
}

void agent_models_tell(struct at_agent *a)
{
    if (a->client == NULL) {
        return; /* not joined yet: the whole status follows */
    }
    json_t *patch = json_pack("{s:{s:o}}", "status", "models", models_json(a));
    at_client_patch(a->client, &AT_KIND_NODE, NULL, a->name, "status", patch, on_models, a);
    json_decref(patch);
}

static void status_send(struct at_agent *a)
{
    json_t *status = NULL;
    struct at_err err = {0};
    enum at_rc rc = at_devices_inventory(a->state_dir, a->devices_file, &status, &err);
    if (rc != AT_OK) {
        agent_failed(a, rc, &err);
        return;
    }
    agent_gpus_learn(a, status);
    agent_room_learn(a, status);
    json_object_set_new(status, "drivers", drivers_json(a));
    json_object_set_new(status, "models", models_json(a));
    json_decref(a->gpu_modes);
    a->gpu_modes = agent_gpu_modes(a);
    json_object_set(status, "gpuModes", a->gpu_modes);
    json_object_set_new(status, "address", json_string(a->listen_host));
    json_object_set_new(status, "agentVersion", json_string(AT_VERSION));
    json_t *patch = json_pack("{s:o}", "status", status);
    at_client_patch(a->client, &AT_KIND_NODE, NULL, a->name, "status", patch, on_status, a);
    json_decref(patch);
}

void agent_node_tell(struct at_agent *a)
{
    if (a->client != NULL) {
        status_send(a);
    }
}

/* --- the Node itself --- */

static json_t *node_json(const struct at_agent *a)
{
    json_t *labels =
        json_pack("{s:s, s:s}", "atoll.dev/site", a->site, "kubernetes.io/hostname", a->name);
    for (size_t i = 0; a->labels[i] != NULL; i++) {
        struct at_str rest = at_str_of(a->labels[i]);
        struct at_str key = at_str_cut(&rest, '=');
        AT_CLEANUP(at_cleanup_free) char *name = at_strndup(key.ptr, key.len);
        json_object_set_new(labels, name, json_stringn(rest.ptr, rest.len));
    }
    return json_pack("{s:s, s:s, s:{s:s, s:o}, s:{s:s}}", "apiVersion", "atoll.dev/v1", "kind",
                     "Node", "metadata", "name", a->name, "labels", labels, "spec", "site",
                     a->site);
}

static void on_node(void *ctx, enum at_rc rc, int status, json_t *body, const struct at_err *err)
{
    (void)status;
    struct at_agent *a = ctx;
    if (rc != AT_OK && rc != AT_EXISTS) {
        node_retry(a, err);
        return;
    }
    const char *site = at_json_str_at(body, "spec.site", a->site);
    if (rc == AT_OK && !at_streq(site, a->site)) {
        struct at_err own = {0};
        rc = at_err_set(
            &own, AT_CONFLICT,
            "node %s stands at site %s, this token is for site %s: delete the node first", a->name,
            site, a->site);
        agent_failed(a, rc, &own);
        return;
    }
    agent_gpus_want(a, at_json_str_at(body, "spec.gpuSharing", ""),
                    at_json_at(body, "spec.gpuParts"));
    status_send(a);
}

static void on_node_read(void *ctx, enum at_rc rc, int status, json_t *body,
                         const struct at_err *err)
{
    struct at_agent *a = ctx;
    if (rc != AT_NOT_FOUND) {
        on_node(ctx, rc, status, body, err);
        return;
    }
    json_t *node = node_json(a);
    at_client_create(a->client, &AT_KIND_NODE, NULL, node, on_node, a);
    json_decref(node);
}

static void node_begin(void *ctx)
{
    struct at_agent *a = ctx;
    a->node_timer = 0;
    at_client_get(a->client, &AT_KIND_NODE, NULL, a->name, on_node_read, a);
}

static void node_retry(struct at_agent *a, const struct at_err *err)
{
    at_log(AT_LOG_WARN, "node.retry", "node %s: %s", a->name, err->msg);
    if (a->node_timer == 0) {
        a->node_timer = at_loop_timer(a->loop, AGENT_RETRY_NS, node_begin, a);
    }
}

void agent_node_start(struct at_agent *a)
{
    node_begin(a);
}

/* --- heartbeats --- */

static void on_heartbeat(void *ctx, enum at_rc rc, int status, json_t *body,
                         const struct at_err *err)
{
    (void)status;
    struct at_agent *a = ctx;
    int64_t wait = a->heartbeat_ns;
    if (rc == AT_OK) {
        int64_t ms = at_json_int_at(body, "intervalMs", 0);
        a->heartbeat_ns = ms > 0 ? ms * AT_NS_PER_MS : a->heartbeat_ns;
        agent_gpus_want(a, at_json_str_at(body, "gpuSharing", ""),
                        json_object_get(body, "gpuParts"));
        wait = a->heartbeat_ns;
    } else {
        at_log(AT_LOG_WARN, "heartbeat.failed", "%s", err->msg);
        wait = AGENT_HEARTBEAT_RETRY_NS;
    }
    if (rc == AT_NOT_FOUND && a->node_timer == 0) {
        node_begin(a); /* somebody deleted the Node: we are still here */
    }
    a->heartbeat_timer = at_loop_timer(a->loop, wait, heartbeat_send, a);
}

static void heartbeat_send(void *ctx)
{
    struct at_agent *a = ctx;
    char path[512];
    at_client_path(&AT_KIND_NODE, NULL, a->name, "heartbeat", path, sizeof path);
    json_t *body = json_object();
    bool several = at_client_server_count(a->client) > 1;
    at_client_request_within(a->client,
                             several ? AGENT_HEARTBEAT_ANSWER_NS : AGENT_HEARTBEAT_ALONE_NS,
                             AT_HTTP_POST, path, body, on_heartbeat, a);
    json_decref(body);
}

void agent_node_done(struct at_agent *a)
{
    at_loop_timer_cancel(a->loop, a->node_timer);
    at_loop_timer_cancel(a->loop, a->heartbeat_timer);
}
