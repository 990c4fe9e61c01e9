/* What the audit log is told of a request, and answers that wait until it is safe there. */
#include "api/api_priv.h"
#include "audit/limits.h"
#include "core/mem.h"
#include "core/str.h"

#include <assert.h>
#include <stdio.h>

#define TEXT_BYTES_MAX 1024 /* of what a client chose: paths, names of programs */

/* What a request is worth: the least level at which it is recorded. */
static enum at_audit_level worth(struct api_req *req, int status)
{
    const char *sub = req->route.subresource;
    const char *node = NULL;
    bool read = req->verb == NULL || at_streq(req->verb, "get") || at_streq(req->verb, "list") ||
                at_streq(req->verb, "watch") || req->route.target == API_REVIEW;
    bool agent = req->real_user == NULL && api_is_agent(req, &node);
    if (status == 401 || status == 403) {
        return AT_AUDIT_CHANGES;
    }
    bool found = req->handler != NULL; /* else the route means nothing */
    if ((found && req->route.target == API_HEALTH) || req->route.target == API_METRICS ||
        at_streq(sub, "heartbeat") || (at_streq(sub, "tunnel") && req->route.tail[0] != '\0')) {
        return AT_AUDIT_ALL;
    }
    bool report = at_streq(req->route.resource, "gatewayreports") && req->real_user == NULL;
    if ((agent || report) && status < 400 && req->route.target == API_RESOURCE) {
        return AT_AUDIT_REQUESTS; /* telling what it sees */
    }
    return read && !at_streq(req->route.resource, "secrets") ? AT_AUDIT_REQUESTS : AT_AUDIT_CHANGES;
}

static enum at_audit_level level_of(const struct at_api *api)
{
    if (api->options.audit_log != NULL) {
        return at_audit_level_of(api->options.audit_log);
    }
    return api->options.audit != NULL ? AT_AUDIT_CHANGES : AT_AUDIT_NONE;
}

static void text_add(struct at_buf *out, const char *key, const char *text, enum at_rc *rc)
{
    if (text == NULL || text[0] == '\0' || *rc != AT_OK) {
        return;
    }
    size_t len = strlen(text);
    *rc = at_buf_printf(out, ",\"%s\":", key);
    if (*rc == AT_OK) {
        *rc = at_json_dump_text(text, len < TEXT_BYTES_MAX ? len : TEXT_BYTES_MAX, out);
    }
}

static void groups_add(struct at_buf *out, const struct at_identity *who, enum at_rc *rc)
{
    for (size_t i = 0; i < who->n_groups && *rc == AT_OK; i++) {
        *rc = at_buf_append_str(out, i == 0 ? ",\"groups\":[" : ",");
        if (*rc == AT_OK) {
            *rc = at_json_dump_text(who->groups[i], strlen(who->groups[i]), out);
        }
    }
    if (who->n_groups > 0 && *rc == AT_OK) {
        *rc = at_buf_append(out, "]", 1);
    }
}

static const char *decision(int status)
{
    if (status == 401) {
        return "unauthenticated";
    }
    return status == 403 ? "deny" : "allow";
}

static const char *method_name(enum at_http_method method)
{
    static const char *const NAMES[] = {[AT_HTTP_GET] = "get",
                                        [AT_HTTP_POST] = "post",
                                        [AT_HTTP_PUT] = "put",
                                        [AT_HTTP_PATCH] = "patch",
                                        [AT_HTTP_DELETE] = "delete"};
    return (size_t)method < AT_ARRAY_LEN(NAMES) && NAMES[method] != NULL ? NAMES[method] : "other";
}

/* Never the query, the body or a header but the program's name: they may hold secrets. */
static enum at_rc members(struct api_req *req, int status, struct at_buf *out)
{
    char when[AT_UNITS_TEXT_BYTES_MAX];
    const struct at_sys *sys = req->api->sys;
    bool join = req->route.target == API_JOIN;
    const char *name = req->route.name[0] != '\0' ? req->route.name : at_object_name(req->object);
    name = join ? at_json_str_at(req->body, "name", NULL) : name;
    enum at_rc rc =
        at_buf_printf(out, "\"time\":\"%s\"", at_time_format_micro(at_sys_wall_ns(sys), when));
    text_add(out, "id", req->id, &rc);
    text_add(out, "user", req->real_user != NULL ? req->real_user : req->who.user, &rc);
    text_add(out, "impersonatedUser", req->real_user != NULL ? req->who.user : NULL, &rc);
    groups_add(out, &req->who, &rc);
    text_add(out, "auth", req->auth_how, &rc);
    text_add(out, "tokenId", req->token_id, &rc);
    text_add(out, "from", req->from, &rc);
    text_add(out, "agent", req->user_agent, &rc);
    text_add(out, "verb", req->verb != NULL ? req->verb : method_name(req->method), &rc);
    text_add(out, "path", req->route.path, &rc);
    text_add(out, "apiGroup", req->route.group, &rc);
    text_add(out, "resource", req->route.resource, &rc);
    text_add(out, "subresource", req->route.subresource, &rc);
    text_add(out, "namespace", req->route.ns, &rc);
    text_add(out, "name", name, &rc);
    text_add(out, "decision", decision(status), &rc);
    text_add(out, "reason", req->refusal, &rc);
    if (rc == AT_OK) {
        rc = at_buf_printf(out, ",\"code\":%d,\"dryRun\":%s,\"latencyUs\":%lld", status,
                           req->dry_run ? "true" : "false",
                           (long long)((at_sys_mono_ns(sys) - req->begin_ns) / AT_NS_PER_US));
    }
    return rc;
}

static void line_give(const struct at_api_options *o, const struct at_buf *text)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf line = {0};
    if (at_buf_append(&line, "{", 1) == AT_OK &&
        at_buf_append(&line, text->data, text->len) == AT_OK &&
        at_buf_append(&line, "}\n", 2) == AT_OK) {
        o->audit(o->audit_ctx, line.data, line.len);
    }
}

/* What a change came to whose record says otherwise. */
static void outcome_add(struct api_req *req, int status)
{
    char when[AT_UNITS_TEXT_BYTES_MAX];
    struct at_buf *text = &req->api->audit_text;
    at_buf_clear(text);
    text->max = AT_AUDIT_RECORD_BYTES_MAX;
    enum at_rc rc = at_buf_printf(text, "\"time\":\"%s\",\"event\":\"outcome\"",
                                  at_time_format_micro(at_sys_wall_ns(req->api->sys), when));
    text_add(text, "id", req->id, &rc);
    text_add(text, "user", api_asker(req), &rc);
    text_add(text, "verb", req->verb, &rc);
    text_add(text, "path", req->route.path, &rc);
    if (rc == AT_OK) {
        rc = at_buf_printf(text, ",\"code\":%d", status);
    }
    if (rc == AT_OK) {
        (void)at_audit_add(req->api->options.audit_log, text->data, text->len, AT_AUDIT_LATER);
    }
}

void api_audit_void(struct api_req *req, int status)
{
    if (req->audit_ticket != 0) {
        outcome_add(req, status);
        req->audit_ticket = 0;
        req->audited = false;
    }
}

/* The record was made already. Returns what the answer waits for. */
static uint64_t ahead_end(struct api_req *req, int status)
{
    if (status == req->audit_status) {
        return req->audit_ticket;
    }
    outcome_add(req, status);
    return 0;
}

static uint64_t record(struct api_req *req, int status, enum at_audit_wait wait)
{
    const struct at_api_options *o = &req->api->options;
    enum at_audit_level level = level_of(req->api);
    if (level == AT_AUDIT_NONE || req->audited) {
        return 0;
    }
    enum at_audit_level least = worth(req, status);
    req->audited = true;
    if (level < least) {
        return 0;
    }
    struct at_buf *text = &req->api->audit_text;
    at_buf_clear(text);
    text->max = AT_AUDIT_RECORD_BYTES_MAX;
    if (members(req, status, text) != AT_OK) {
        /* Longer than a record may be: who and what are still known. */
        at_buf_clear(text);
        enum at_rc rc = at_buf_printf(text, "\"cut\":true,\"code\":%d", status);
        text_add(text, "user", req->who.user, &rc);
        text_add(text, "id", req->id, &rc);
    }
    if (o->audit != NULL) {
        line_give(o, text);
    }
    if (o->audit_log == NULL) {
        return 0;
    }
    bool durable = least == AT_AUDIT_CHANGES && status < 300;
    uint64_t ticket =
        at_audit_add(o->audit_log, text->data, text->len, durable ? wait : AT_AUDIT_LATER);
    return durable ? ticket : 0;
}

uint64_t api_req_audit(struct api_req *req, int status)
{
    return req->audit_ticket != 0 ? ahead_end(req, status) : record(req, status, AT_AUDIT_SYNCED);
}

void api_audit_ahead(struct api_req *req, int status)
{
    const struct at_api_options *o = &req->api->options;
    if (o->audit_log == NULL || o->audit != NULL || req->audited ||
        worth(req, status) != AT_AUDIT_CHANGES) {
        return;
    }
    req->audit_ticket = record(req, status, AT_AUDIT_RIDES);
    req->audit_status = status;
}

bool api_audit_admits(struct api_req *req)
{
    const char *why = NULL;
    struct at_audit *log = req->api->options.audit_log;
    if (log == NULL || !at_audit_refuses(log, &why)) {
        return true;
    }
    enum at_audit_level least = worth(req, 200);
    const char *node = NULL;
    if (least > at_audit_level_of(log) || api_is_agent(req, &node)) {
        return true; /* what runs goes on: agents report */
    }
    req->audited = true; /* there is no room */
    api_respond_error(req, AT_UNAVAILABLE, "%s", why);
    return false;
}

/* --- answers that wait --- */

struct api_held {
    struct api_held *next;
    struct api_req *req;
    uint64_t ticket;
    int status;
    char *content_type, *headers, *text;
    size_t len;
};

/* Answers are held by ticket, and mostly come in that order. */
static void held_insert(struct at_api *api, struct api_held *held)
{
    struct api_held **at = &api->held;
    if (api->held_last != NULL && api->held_last->ticket <= held->ticket) {
        at = &api->held_last->next;
    }
    while (*at != NULL && (*at)->ticket <= held->ticket) {
        at = &(*at)->next;
    }
    held->next = *at;
    *at = held;
    if (held->next == NULL) {
        api->held_last = held;
    }
}

void api_hold(struct api_req *req, uint64_t ticket, int status, const char *content_type,
              const char *headers, const void *text, size_t len)
{
    struct at_api *api = req->api;
    if (ticket <= api->audit_settled) {
        at_http_respond(req->ex, status, content_type, headers, text, len);
        api_req_free(req);
        return;
    }
    struct api_held *held = AT_NEW(struct api_held);
    *held = (struct api_held){.req = req,
                              .ticket = ticket,
                              .status = status,
                              .content_type = at_strdup(content_type),
                              .headers = at_strdup(headers),
                              .text = at_alloc(len + 1),
                              .len = len};
    memcpy(held->text, text, len);
    held_insert(api, held);
    at_audit_hurry(api->options.audit_log, ticket);
}

static void held_end(struct at_api *api, bool answer)
{
    struct api_held *held = api->held;
    struct api_req *req = held->req;
    api->held = held->next;
    if (api->held == NULL) {
        api->held_last = NULL;
    }
    if (answer && req->ex != NULL) {
        at_http_respond(req->ex, held->status, held->content_type, held->headers, held->text,
                        held->len);
    }
    api_req_free(req);
    at_free(held->content_type);
    at_free(held->headers);
    at_free(held->text);
    at_free(held);
}

void at_api_audit_settled(struct at_api *api, uint64_t ticket)
{
    api->audit_settled = ticket;
    while (api->held != NULL && api->held->ticket <= ticket) {
        held_end(api, true);
    }
}

void api_held_drop(struct at_api *api)
{
    while (api->held != NULL) {
        held_end(api, false);
    }
}
