/* Agents call out only: each holds a tunnel open, a stream of JSON lines with what the server wants
 * of it, and posts pieces of the answers. Log requests and commands of clients travel through it.
 */
#include "api/tunnel_priv.h"
#include "core/mem.h"
#include "core/str.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

struct api_tunnels *api_tunnels_new(void)
{
    struct api_tunnels *t = AT_NEW(struct api_tunnels);
    t->by_node = at_map_new();
    t->sessions = at_map_new();
    return t;
}

static void gauge(struct at_metric *metric, size_t value)
{
    if (metric != NULL) {
        at_metric_set(metric, (int64_t)value);
    }
}

/* --- sessions --- */

void api_session_free(struct session *s)
{
    at_map_remove(s->owner->sessions, s->id);
    gauge(s->req->api->sessions_now, at_map_count(s->owner->sessions));
    at_loop_timer_cancel(s->req->api->options.loop, s->timer);
    if (s->owns_req) {
        api_req_free(s->req);
    }
    at_free(s);
}

void api_session_fail(struct session *s, enum at_rc rc, const char *message)
{
    if (s->exec != NULL) {
        api_exec_fail(s, rc, message);
        return;
    }
    if (s->port != NULL) {
        api_port_fail(s, rc, message);
        return;
    }
    struct api_req *req = s->req;
    struct at_http_exchange *ex = req->ex;
    if (s->begun) {
        req->ex = NULL;
        api_session_free(s);
        if (ex != NULL) {
            at_http_abort(ex); /* what was sent must not look complete */
        }
        return;
    }
    at_map_remove(s->owner->sessions, s->id);
    gauge(req->api->sessions_now, at_map_count(s->owner->sessions));
    at_loop_timer_cancel(req->api->options.loop, s->timer);
    at_free(s);
    api_respond_error(req, rc, "%s", message);
}

static void session_end(struct session *s)
{
    struct at_http_exchange *ex = s->req->ex;
    s->req->ex = NULL;
    if (ex != NULL) {
        at_http_stream_end(ex);
    }
    api_session_free(s);
}

void api_brake_release(struct api_brake *brake)
{
    struct api_req *held = brake->held;
    if (held == NULL) {
        return;
    }
    at_loop_timer_cancel(held->api->options.loop, brake->timer);
    *brake = (struct api_brake){0};
    api_respond_text(held, 200, "application/json", NULL, "{}", 2);
}

static void brake_over(void *ctx)
{
    api_brake_release(ctx);
}

void api_brake_answer(struct api_brake *brake, struct api_req *req,
                      const struct at_http_exchange *client)
{
    if (brake->held != NULL || at_http_stream_queued_bytes(client) < AT_API_EXEC_QUEUE_BYTES) {
        api_respond_text(req, 200, "application/json", NULL, "{}", 2);
        return;
    }
    brake->held = req;
    brake->timer = at_loop_timer(req->api->options.loop, AT_API_EXEC_HOLD_NS, brake_over, brake);
}

bool api_tunnel_send(struct api_tunnels *tunnels, const char *node, json_t *line_take)
{
    struct tunnel *t = at_map_get(tunnels->by_node, node);
    struct at_buf text = {0};
    bool sent = false;
    if (t != NULL && at_json_dump(line_take, &text) == AT_OK &&
        at_buf_append(&text, "\n", 1) == AT_OK) {
        sent = at_http_stream_write(t->req->ex, text.data, text.len) == AT_OK;
    }
    at_buf_done(&text);
    json_decref(line_take);
    return sent;
}

static void client_gone(void *ctx)
{
    struct session *s = ctx;
    s->req->ex = NULL;
    (void)api_tunnel_send(s->owner, s->node, json_pack("{s:s, s:s}", "id", s->id, "op", "cancel"));
    api_session_free(s);
}

static void no_answer(void *ctx)
{
    struct session *s = ctx;
    s->timer = 0;
    (void)api_tunnel_send(s->owner, s->node, json_pack("{s:s, s:s}", "id", s->id, "op", "cancel"));
    api_session_fail(s, AT_TIMEOUT, "the node's agent does not answer");
}

static void session_begin(struct session *s)
{
    if (s->begun) {
        return;
    }
    s->begun = true;
    at_loop_timer_cancel(s->req->api->options.loop, s->timer);
    s->timer = 0;
    api_req_measure(s->req, 200);
    (void)api_req_audit(s->req, 200);
    at_http_stream_begin(s->req->ex, 200, "text/plain; charset=utf-8", NULL);
}

/* --- the agent's side --- */

static void tunnel_close(struct tunnel *t, bool end_stream)
{
    struct api_tunnels *tunnels = t->owner;
    struct at_http_exchange *ex = t->req->ex;
    if (at_map_get(tunnels->by_node, t->node) == t) {
        at_map_remove(tunnels->by_node, t->node);
        gauge(t->req->api->tunnels_now, at_map_count(tunnels->by_node));
    }
    size_t it = 0;
    const char *id;
    void *value;
    while (at_map_next(tunnels->sessions, &it, &id, &value)) {
        struct session *s = value;
        if (at_streq(s->node, t->node)) {
            api_session_fail(s, AT_UNAVAILABLE, "the node's agent is gone");
        }
    }
    t->req->ex = NULL;
    if (end_stream && ex != NULL) {
        at_http_stream_end(ex);
    }
    api_req_free(t->req);
    at_free(t);
}

static void agent_gone(void *ctx)
{
    tunnel_close(ctx, false);
}

void api_tunnels_recheck(struct at_api *api)
{
    const char *why = NULL;
    const char *key;
    void *value;
    for (size_t it = 0; at_map_next(api->tunnels->by_node, &it, &key, &value);) {
        struct tunnel *t = value;
        if (!api_still_may(t->req)) {
            tunnel_close(t, true);
        }
    }
    for (size_t it = 0; at_map_next(api->tunnels->sessions, &it, &key, &value);) {
        struct session *s = value; /* those of commands and ports end with their links */
        if (s->exec == NULL && s->port == NULL && s->req->ex != NULL &&
            !api_goes_on(s->req, &why)) {
            (void)api_tunnel_send(s->owner, s->node,
                                  json_pack("{s:s, s:s}", "id", s->id, "op", "cancel"));
            api_session_fail(s, AT_FORBIDDEN, why);
        }
    }
}

void api_tunnel_open(struct api_req *req)
{
    struct api_tunnels *tunnels = req->api->tunnels;
    struct tunnel *old = at_map_get(tunnels->by_node, req->route.name);
    if (old != NULL) {
        tunnel_close(old, true); /* a new connection of the same agent: the old one is dead */
    } else if (at_map_count(tunnels->by_node) >= req->api->options.tunnels_max) {
        api_respond_error(req, AT_EXHAUSTED, "%zu tunnels are open, no more are taken",
                          req->api->options.tunnels_max);
        return;
    }
    struct tunnel *t = AT_NEW(struct tunnel);
    t->req = req;
    t->owner = tunnels;
    snprintf(t->node, sizeof t->node, "%s", req->route.name);
    at_map_put(tunnels->by_node, t->node, t);
    gauge(req->api->tunnels_now, at_map_count(tunnels->by_node));
    api_req_measure(req, 200);
    (void)api_req_audit(req, 200);
    at_http_on_gone(req->ex, agent_gone, t);
    at_http_stream_begin(req->ex, 200, "application/x-ndjson", NULL);
}

void api_tunnel_answer(struct api_req *req)
{
    struct session *s = at_map_get(req->api->tunnels->sessions, req->route.tail);
    if (s == NULL || !at_streq(s->node, req->route.name)) {
        api_respond_error(req, AT_NOT_FOUND, "nobody waits for this answer any more");
        return;
    }
    if (s->exec != NULL) {
        api_exec_answer(s, req);
        return;
    }
    if (s->port != NULL) {
        api_port_answer(s, req);
        return;
    }
    const char *error = api_query(req, "error");
    struct at_str piece = at_http_request_body(req->ex);
    bool more = api_query_bool(req, "more");
    bool over = false;
    if (error != NULL) {
        api_session_fail(s, AT_UPSTREAM, error);
    } else {
        session_begin(s);
        enum at_rc rc = at_http_stream_write(s->req->ex, piece.ptr, piece.len);
        size_t queued = rc == AT_OK ? at_http_stream_queued_bytes(s->req->ex) : 0;
        if (rc != AT_OK || queued > req->api->options.watch_queue_one_bytes_max) {
            api_session_fail(s, AT_EXHAUSTED, "the client reads too slowly");
            over = true;
        } else if (!more) {
            session_end(s);
        }
    }
    if (over) {
        api_respond_error(req, AT_NOT_FOUND, "nobody waits for this answer any more");
        return;
    }
    api_respond_text(req, 200, "application/json", NULL, "{}", 2);
}

/* --- the client's side --- */

/* Node of the instance. err: AT_NOT_FOUND there is no such instance | AT_BAD_REQUEST it has no node
 * yet. own: on the request's arena. */
static enum at_rc node_of_instance(struct api_req *req, const char **ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json)
    json_t *object =
        at_state_object(req->api->options.state, req->route.kind, req->route.ns, req->route.name);
    if (object == NULL) {
        return at_err_set(err, AT_NOT_FOUND, "instance \"%s\" not found", req->route.name);
    }
    const char *node = at_json_str_at(object, "spec.nodeName", "");
    if (node[0] == '\0') {
        return at_err_set(err, AT_BAD_REQUEST, "instance \"%s\" has no node yet, so nothing runs",
                          req->route.name);
    }
    *ret = at_arena_strdup(req->arena, node);
    return *ret != NULL ? AT_OK : at_err_set(err, AT_NOMEM, "out of memory");
}

static void respond(struct api_req *req, const struct at_err *err)
{
    if (err->rc == AT_NOT_FOUND) {
        api_respond_not_found(req);
    } else {
        api_respond_err(req, err);
    }
}

static enum at_rc not_connected(const char *node, struct at_err *err)
{
    return at_err_set(err, AT_UNAVAILABLE, "the agent of node \"%s\" is not connected", node);
}

bool api_session_possible(struct api_req *req)
{
    struct at_err err = {0};
    const char *node = NULL;
    enum at_rc rc = node_of_instance(req, &node, &err);
    if (rc == AT_OK && at_map_get(req->api->tunnels->by_node, node) == NULL) {
        rc = not_connected(node, &err);
    }
    if (rc != AT_OK) {
        respond(req, &err);
    }
    return rc == AT_OK;
}

enum at_rc api_session_open(struct api_req *req, json_t *line_take, struct session **ret,
                            struct at_err *err)
{
    struct api_tunnels *tunnels = req->api->tunnels;
    AT_CLEANUP(at_cleanup_json) json_t *line = line_take;
    const char *node = NULL;
    enum at_rc rc = node_of_instance(req, &node, err);
    if (rc != AT_OK) {
        return rc;
    }
    if (at_map_count(tunnels->sessions) >= req->api->options.sessions_max) {
        return at_err_set(err, AT_EXHAUSTED,
                          "%zu logs, commands and ports are open, try again later",
                          req->api->options.sessions_max);
    }
    char id[AT_OBJECT_UID_BYTES];
    at_object_uid(req->api->sys, id);
    json_object_set_new(line, "id", json_string(id));
    json_object_set_new(line, "namespace", json_string(req->route.ns));
    json_object_set_new(line, "name", json_string(req->route.name));
    if (!api_tunnel_send(tunnels, node, json_incref(line))) {
        return not_connected(node, err);
    }
    struct session *s = AT_NEW(struct session);
    s->req = req;
    s->owner = tunnels;
    memcpy(s->id, id, sizeof id);
    snprintf(s->node, sizeof s->node, "%s", node);
    s->timer = at_loop_timer(req->api->options.loop, AT_API_LOG_FIRST_ANSWER_NS, no_answer, s);
    at_map_put(tunnels->sessions, s->id, s);
    gauge(req->api->sessions_now, at_map_count(tunnels->sessions));
    *ret = s;
    return AT_OK;
}

struct session *api_session_new(struct api_req *req, json_t *line_take)
{
    struct at_err err = {0};
    struct session *s = NULL;
    if (api_session_open(req, line_take, &s, &err) != AT_OK) {
        respond(req, &err);
        return NULL;
    }
    s->owns_req = true;
    at_http_on_gone(req->ex, client_gone, s);
    return s;
}

/* kubectl logs --since asks in seconds or with a time. -1: not asked for; -2: answered. */
static int64_t since_seconds(struct api_req *req)
{
    struct at_err err = {0};
    int64_t seconds = -1;
    const char *since = api_query(req, "sinceTime");
    if (since != NULL && since[0] != '\0') {
        int64_t wall_ns;
        if (at_time_parse(since, &wall_ns, NULL) != AT_OK) {
            api_respond_error(req, AT_BAD_REQUEST, "sinceTime: \"%.64s\" is no time", since);
            return -2;
        }
        int64_t ago = at_sys_wall_ns(req->api->sys) - wall_ns;
        return ago > 0 ? (ago + AT_NS_PER_S - 1) / AT_NS_PER_S : 0;
    }
    if (api_query_int(req, "sinceSeconds", -1, &seconds, &err) != AT_OK) {
        api_respond_err(req, &err);
        return -2;
    }
    return seconds < 0 ? -1 : seconds;
}

void api_instance_log(struct api_req *req)
{
    struct at_err err = {0};
    int64_t tail = -1;
    if (api_query_int(req, "tailLines", -1, &tail, &err) != AT_OK) {
        api_respond_err(req, &err);
        return;
    }
    if (api_query_bool(req, "previous")) {
        api_respond_error(req, AT_BAD_REQUEST,
                          "logs of earlier runs are not kept apart: they "
                          "stand in the one log");
        return;
    }
    int64_t since = since_seconds(req);
    if (since == -2) {
        return;
    }
    json_t *line =
        json_pack("{s:s, s:b, s:b}", "op", "log", "follow", (int)api_query_bool(req, "follow"),
                  "timestamps", (int)api_query_bool(req, "timestamps"));
    if (tail >= 0) {
        json_object_set_new(line, "tailLines", json_integer(tail));
    }
    if (since >= 0) {
        json_object_set_new(line, "sinceSeconds", json_integer(since));
    }
    (void)api_session_new(req, line);
}

void api_tunnels_free(struct api_tunnels *tunnels)
{
    if (tunnels == NULL) {
        return;
    }
    size_t it = 0;
    const char *key;
    void *value;
    while (at_map_next(tunnels->by_node, &it, &key, &value)) {
        tunnel_close(value, true);
    }
    it = 0;
    while (at_map_next(tunnels->sessions, &it, &key, &value)) {
        api_session_fail(value, AT_UNAVAILABLE, "the server is stopping");
    }
    at_map_free(tunnels->by_node);
    at_map_free(tunnels->sessions);
    at_free(tunnels);
}
