/* Instances as core v1 Pods, for clients that only know those: kubectl get pods, logs, exec. What
 * is stored is the Instance; the Pod is made from it for each answer. */
#include "api/api_priv.h"
#include "core/mem.h"
#include "core/str.h"

#include <string.h>

#define CONTAINER "main"

static const struct at_model_column COLUMNS[] = {
    {"Ready", "string", "", ".ready", "Containers that are ready, of all.", 0},
    {"Status", "string", "", ".status", "Where it is in its life.", 0},
    {"Restarts", "integer", "", ".restarts", "Times it was started again.", 0},
    {"Age", "date", "", ".created", "Time since it was made.", 0},
    {"IP", "string", "", ".ip", "Address where it listens.", 1},
    {"Node", "string", "", ".node", "Node on which it runs.", 1},
};

const struct at_model_kind API_POD_KIND = {
    .group = "",
    .version = "v1",
    .kind = "Pod",
    .list_kind = "PodList",
    .plural = "pods",
    .singular = "pod",
    .api_version = "v1",
    .short_names = (const char *const[]){"po", NULL},
    .namespaced = true,
    .columns = COLUMNS,
    .n_columns = AT_ARRAY_LEN(COLUMNS),
    .openapi_name = "io.k8s.api.core.v1.Pod",
    .description = "An Instance as clients of Kubernetes see it.",
};

static void set_text(json_t *to, const char *key, const char *text)
{
    if (text != NULL && text[0] != '\0') {
        json_object_set_new(to, key, json_string(text));
    }
}

static void set_copy(json_t *to, const char *key, const json_t *from, const char *from_key)
{
    json_t *value = json_object_get(from, from_key);
    if (value != NULL) {
        json_object_set(to, key, value);
    }
}

static json_t *env_of(const json_t *env)
{
    json_t *out = json_array();
    size_t i;
    json_t *var;
    json_array_foreach(env, i, var)
    {
        json_t *one = json_object();
        set_copy(one, "name", var, "name");
        set_copy(one, "value", var, "value");
        json_t *secret = json_object_get(var, "secretKeyRef");
        if (secret != NULL) {
            json_object_set_new(one, "valueFrom", json_pack("{s:O}", "secretKeyRef", secret));
        }
        json_array_append_new(out, one);
    }
    return out;
}

static void quantity(json_t *to, const json_t *resources, const char *key)
{
    const char *text = json_string_value(json_object_get(resources, key));
    set_text(to, key, text);
}

/* Where it listens: as asked for, or as its agent has chosen. 0: nowhere. */
static int64_t port_of(const json_t *spec, const json_t *status)
{
    int64_t port = at_json_int_at(spec, "port", 0);
    const char *endpoint = at_json_str_at(status, "endpoint", "");
    const char *colon = strrchr(endpoint, ':');
    if (port == 0 && (colon == NULL || at_str_to_i64(at_str_of(colon + 1), &port) != AT_OK)) {
        return 0;
    }
    return port > 0 ? port : 0;
}

static json_t *container_of(const json_t *spec, const json_t *status, const char *image)
{
    json_t *c = json_pack("{s:s, s:s}", "name", CONTAINER, "image", image);
    set_copy(c, "command", spec, "command");
    set_copy(c, "args", spec, "args");
    set_copy(c, "workingDir", spec, "workingDir");
    if (json_object_get(spec, "env") != NULL) {
        json_object_set_new(c, "env", env_of(json_object_get(spec, "env")));
    }
    const json_t *resources = json_object_get(spec, "resources");
    json_t *amounts = json_object();
    quantity(amounts, resources, "cpu");
    quantity(amounts, resources, "memory");
    json_object_set_new(c, "resources",
                        json_pack("{s:O, s:o}", "limits", amounts, "requests", amounts));
    int64_t port = port_of(spec, status);
    if (port > 0) {
        json_object_set_new(
            c, "ports",
            json_pack("[{s:I, s:s}]", "containerPort", (json_int_t)port, "protocol", "TCP"));
    }
    return c;
}

static json_t *ended(const json_t *status, bool well)
{
    json_t *t = json_pack("{s:I, s:s}", "exitCode",
                          (json_int_t)at_json_int_at(status, "exitCode", well ? 0 : 1), "reason",
                          well ? "Completed" : "Error");
    set_copy(t, "startedAt", status, "startedAt");
    set_copy(t, "finishedAt", status, "finishedAt");
    set_copy(t, "message", status, "message");
    if (!well && at_json_str_at(status, "reason", "")[0] != '\0') {
        set_copy(t, "reason", status, "reason");
    }
    return json_pack("{s:o}", "terminated", t);
}

static json_t *container_state(const json_t *status, const char *phase)
{
    if (at_streq(phase, "Running")) {
        json_t *running = json_object();
        set_copy(running, "startedAt", status, "startedAt");
        return json_pack("{s:o}", "running", running);
    }
    if (at_streq(phase, "Succeeded") || at_streq(phase, "Failed")) {
        return ended(status, at_streq(phase, "Succeeded"));
    }
    const char *reason = at_json_str_at(status, "reason", "");
    json_t *waiting =
        json_pack("{s:s}", "reason", reason[0] != '\0' ? reason : "ContainerCreating");
    set_copy(waiting, "message", status, "message");
    return json_pack("{s:o}", "waiting", waiting);
}

static void condition(json_t *list, const char *type, bool holds, const json_t *since)
{
    json_t *c = json_pack("{s:s, s:s}", "type", type, "status", holds ? "True" : "False");
    if (holds && since != NULL) {
        json_object_set(c, "lastTransitionTime", (json_t *)since);
    }
    json_array_append_new(list, c);
}

static json_t *conditions_of(const json_t *status, bool placed, bool ready)
{
    json_t *list = json_array();
    const json_t *ready_at = json_object_get(status, "readyAt");
    condition(list, "PodScheduled", placed, json_object_get(status, "scheduledAt"));
    condition(list, "Initialized", placed, json_object_get(status, "scheduledAt"));
    condition(list, "ContainersReady", ready, ready_at);
    condition(list, "Ready", ready, ready_at);
    return list;
}

/* host of "host:port"; empty for sockets in the file system. */
static void set_address(json_t *to, const char *endpoint)
{
    const char *colon = strrchr(endpoint, ':');
    if (colon == NULL || at_str_starts(at_str_of(endpoint), "unix:")) {
        return;
    }
    size_t len = (size_t)(colon - endpoint);
    bool bracketed = len > 2 && endpoint[0] == '[';
    json_t *text = bracketed ? json_stringn(endpoint + 1, len - 2) : json_stringn(endpoint, len);
    if (text != NULL) {
        json_object_set_new(to, "podIP", text);
    }
}

static json_t *status_of(const json_t *instance, const json_t *spec, const char *image)
{
    const json_t *from = json_object_get(instance, "status");
    const char *phase = at_json_str_at(from, "phase", "Pending");
    bool placed = at_json_str_at(spec, "nodeName", "")[0] != '\0';
    bool ready = at_json_bool_at(from, "ready", false);
    json_t *status = json_object();
    json_object_set_new(status, "phase",
                        json_string(at_streq(phase, "Starting") ? "Pending" : phase));
    set_copy(status, "startTime", from, "scheduledAt");
    set_copy(status, "message", from, "message");
    set_copy(status, "reason", from, "reason");
    set_address(status, at_json_str_at(from, "endpoint", ""));
    json_object_set_new(status, "conditions", conditions_of(from, placed, ready));
    if (placed) {
        json_t *c = json_pack("{s:s, s:s, s:s, s:b, s:I, s:o}", "name", CONTAINER, "image", image,
                              "imageID", "", "ready", (int)ready, "restartCount",
                              (json_int_t)at_json_int_at(from, "restarts", 0), "state",
                              container_state(from, phase));
        json_object_set_new(status, "containerStatuses", json_pack("[o]", c));
    }
    return status;
}

json_t *api_pod_of(const json_t *instance)
{
    const json_t *spec = json_object_get(instance, "spec");
    json_t *meta = json_copy(json_object_get(instance, "metadata"));
    json_object_del(meta, "managedFields"); /* they name fields of the Instance */
    const char *image = at_json_str_at(spec, "image", "");
    if (image[0] == '\0') {
        image = at_json_str_at(spec, "runner", "")[0] != '\0' ? at_json_str_at(spec, "runner", "")
                                                              : "process";
    }
    json_t *pod_spec = json_pack("{s:[o], s:s}", "containers",
                                 container_of(spec, json_object_get(instance, "status"), image),
                                 "restartPolicy", at_json_str_at(spec, "restartPolicy", "Always"));
    set_copy(pod_spec, "nodeName", spec, "nodeName");
    set_copy(pod_spec, "priority", spec, "priority");
    return json_pack("{s:s, s:s, s:o, s:o, s:o}", "apiVersion", "v1", "kind", "Pod", "metadata",
                     meta, "spec", pod_spec, "status", status_of(instance, spec, image));
}

/* One word, as kubectl's own printer of Pods chooses it. */
static const char *status_word(const json_t *pod, const json_t *container)
{
    if (at_object_deleting(pod)) {
        return "Terminating";
    }
    const char *word = at_json_str_at(container, "state.waiting.reason", NULL);
    if (word == NULL) {
        word = at_json_str_at(container, "state.terminated.reason", NULL);
    }
    return word != NULL ? word : at_json_str_at(pod, "status.phase", "Unknown");
}

json_t *api_pod_cells(const json_t *pod)
{
    const json_t *container = json_array_get(at_json_at(pod, "status.containerStatuses"), 0);
    bool ready = at_json_bool_at(container, "ready", false);
    json_t *cells = json_pack("{s:s, s:s, s:I, s:s, s:s}", "ready", ready ? "1/1" : "0/1", "status",
                              status_word(pod, container), "restarts",
                              (json_int_t)at_json_int_at(container, "restartCount", 0), "ip",
                              at_json_str_at(pod, "status.podIP", "<none>"), "node",
                              at_json_str_at(pod, "spec.nodeName", "<none>"));
    set_text(cells, "created", at_json_str_at(pod, "metadata.creationTimestamp", ""));
    return cells;
}
