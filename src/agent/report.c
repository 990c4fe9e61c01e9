#include "agent/agent_priv.h"
#include "agent/gpu.h"
#include "agent/reach.h"

#include "core/log.h"

/* --- status --- */

static json_t *text_or_null(const char *text)
{
    return text != NULL && text[0] != '\0' ? json_string(text) : json_null();
}

static json_t *time_or_null(int64_t wall_ns)
{
    char text[AT_UNITS_TEXT_BYTES_MAX];
    return wall_ns != 0 ? json_string(at_time_format_micro(wall_ns, text)) : json_null();
}

static json_t *int_or_null(int64_t value)
{
    return value != 0 ? json_integer(value) : json_null();
}

static json_t *status_json(struct agent_instance *i)
{
    json_t *s = json_object();
    json_object_set_new(s, "phase", json_string(i->status_phase));
    json_object_set_new(s, "ready", json_boolean(i->ready));
    json_object_set_new(s, "reason", text_or_null(i->reason));
    json_object_set_new(s, "message", text_or_null(i->message));
    json_object_set_new(s, "site", text_or_null(i->agent->site));
    json_object_set_new(s, "endpoint", text_or_null(i->endpoint));
    json_object_set_new(s, "localEndpoint", text_or_null(i->ready ? i->local_endpoint : NULL));
    const char *relay = i->endpoint != NULL ? agent_relay_addr(i->agent) : NULL;
    json_object_set_new(s, "tlsEndpoint", text_or_null(relay));
    json_object_set_new(s, "loopback",
                        text_or_null(i->endpoint != NULL ? i->agent->loopback : NULL));
    json_object_set_new(s, "restarts", int_or_null(i->restarts));
    json_object_set_new(s, "exitCode", int_or_null(i->exit_code));
    json_object_set_new(s, "pid", int_or_null(i->pid));
    json_object_set_new(s, "startedAt", time_or_null(i->started_wall_ns));
    json_object_set_new(s, "readyAt", time_or_null(i->ready_wall_ns));
    json_object_set_new(s, "finishedAt", time_or_null(i->finished_wall_ns));
    json_object_set_new(s, "limits", text_or_null(i->isolation));
    json_object_set_new(s, "gpuUse", agent_share_json(i));
    json_object_set_new(s, "parking", agent_parking_json(i));
    json_t *network = agent_network_json(i);
    if (network != NULL) {
        json_object_set_new(s, "network", network);
    }
    agent_model_status(i, s);
    return s;
}

static void report_send(struct agent_instance *i);

static void report_again(void *ctx)
{
    struct agent_instance *i = ctx;
    i->report_timer = 0;
    report_send(i);
}

static void on_reported(void *ctx, enum at_rc rc, int status, json_t *body,
                        const struct at_err *err)
{
    (void)status;
    (void)body;
    struct agent_instance *i = ctx;
    i->report_call = 0;
    if (rc != AT_OK) {
        json_decref(i->sent);
        i->sent = NULL;
        if (rc != AT_NOT_FOUND) { /* an object that is gone is told by the watch */
            at_log(AT_LOG_WARN, "status.retry", "%s/%s: %s", i->ns, i->name, err->msg);
            i->report_timer = at_loop_timer(i->agent->loop, AGENT_RETRY_NS, report_again, i);
        }
        return;
    }
    if (i->report_again) {
        report_send(i);
    }
}

static void report_send(struct agent_instance *i)
{
    i->report_again = false;
    json_t *status = status_json(i);
    if (i->object == NULL || (i->sent != NULL && json_equal(status, i->sent))) {
        json_decref(status);
        return;
    }
    json_decref(i->sent);
    i->sent = status;
    json_t *patch = json_pack("{s:O}", "status", status);
    i->report_call = at_client_patch(i->agent->client, &AT_KIND_INSTANCE, i->ns, i->name, "status",
                                     patch, on_reported, i);
    json_decref(patch);
}

void agent_report(struct agent_instance *i)
{
    if (i->report_call != 0) {
        i->report_again = true;
        return;
    }
    at_loop_timer_cancel(i->agent->loop, i->report_timer);
    i->report_timer = 0;
    report_send(i);
}

/* --- finalizer --- */

static void finalizer_again(void *ctx)
{
    struct agent_instance *i = ctx;
    i->finalizer_timer = 0;
    agent_report_finalizer(i);
}

static void on_finalized(void *ctx, enum at_rc rc, int status, json_t *body,
                         const struct at_err *err)
{
    (void)status;
    (void)body;
    struct agent_instance *i = ctx;
    i->finalizer_call = 0;
    if (rc != AT_OK && rc != AT_NOT_FOUND) {
        at_log(AT_LOG_WARN, "finalizer.retry", "%s/%s: %s", i->ns, i->name, err->msg);
        i->finalizer_timer = at_loop_timer(i->agent->loop, AGENT_RETRY_NS, finalizer_again, i);
        return;
    }
    if (rc == AT_NOT_FOUND) {
        agent_instance_forget(i);
    }
}

void agent_report_finalizer(struct agent_instance *i)
{
    json_t *rest = json_array();
    const json_t *list = at_json_at(i->object, "metadata.finalizers");
    for (size_t n = 0; n < json_array_size(list); n++) {
        json_t *one = json_array_get(list, n);
        if (!at_streq(json_string_value(one), AGENT_FINALIZER)) {
            json_array_append(rest, one);
        }
    }
    /* Only while it is still the object that we know: the name may have been given again. */
    json_t *patch = json_pack("{s:{s:o, s:s}}", "metadata", "finalizers", rest, "uid", i->uid);
    i->finalizer_call = at_client_patch(i->agent->client, &AT_KIND_INSTANCE, i->ns, i->name, NULL,
                                        patch, on_finalized, i);
    json_decref(patch);
}

void agent_report_done(struct agent_instance *i)
{
    struct at_agent *a = i->agent;
    at_client_cancel(a->client, i->report_call);
    at_client_cancel(a->client, i->finalizer_call);
    at_loop_timer_cancel(a->loop, i->report_timer);
    at_loop_timer_cancel(a->loop, i->finalizer_timer);
    json_decref(i->sent);
}
