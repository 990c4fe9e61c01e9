/* Commands beside an instance (kubectl exec, cp) and its own output (kubectl attach): an upgraded
 * connection of the client with a stream for each of input, output, errors, size of the terminal
 * and status (v4 and v5 of Kubernetes' remote command protocol), lines and POSTs of the agent's
 * tunnel on the other side. Either side that does not read holds the other back. */
#include "api/link.h"
#include "api/tunnel_priv.h"
#include "core/digest.h"
#include "core/mem.h"
#include "core/str.h"

#include <stdio.h>
#include <string.h>

enum channel {
    CHANNEL_STDIN,
    CHANNEL_STDOUT,
    CHANNEL_STDERR,
    CHANNEL_STATUS,
    CHANNEL_RESIZE,
    CHANNELS,
};

/* What SPDY's streams call themselves. */
static const char *const NAMES[CHANNELS] = {"stdin", "stdout", "stderr", "error", "resize"};

static const char *const WS[] = {"v5.channel.k8s.io", "v4.channel.k8s.io", NULL};
static const char *const SPDY[] = {"v4.channel.k8s.io", NULL};
static const struct api_link_protocols PROTOCOLS = {.channels = WS, .spdy = SPDY};

struct api_exec {
    struct api_req *req; /* of the client */
    struct api_link link;
    struct session *session; /* NULL: not begun, or over */
    json_t *line;            /* to begin it with */
    bool attach;
    bool wanted[CHANNELS];
    uint32_t streams[CHANNELS]; /* SPDY: by what they are for; 0: not there (yet) */
    at_timer_id streams_timer;
    size_t ahead_bytes; /* of input, that the agent has not taken */
    char resize[AT_API_EXEC_RESIZE_BYTES_MAX];
    size_t resize_len;
    struct api_brake brake;
};

/* --- to the agent --- */

static void tell_agent(struct api_exec *x, const char *op, json_t *more_take)
{
    json_t *line = more_take != NULL ? more_take : json_object();
    json_object_set_new(line, "id", json_string(x->session->id));
    json_object_set_new(line, "op", json_string(op));
    /* A lost tunnel ends the session by itself. */
    (void)api_tunnel_send(x->session->owner, x->session->node, line);
}

static void session_over(struct api_exec *x, bool cancel)
{
    struct session *s = x->session;
    if (s == NULL) {
        return;
    }
    if (cancel) {
        tell_agent(x, "cancel", NULL);
    }
    x->session = NULL;
    s->exec = NULL;
    api_session_free(s);
}

static void exec_free(void *ctx)
{
    struct api_exec *x = ctx;
    at_loop_timer_cancel(x->req->api->options.loop, x->streams_timer);
    api_brake_release(&x->brake);
    session_over(x, true);
    api_link_done(&x->link);
    json_decref(x->line);
    api_req_free(x->req);
    at_free(x);
}

/* --- to the client --- */

/* What the client opened no stream for, it does not want. */
static enum at_rc send(struct api_exec *x, enum channel channel, const char *data, size_t len,
                       bool last)
{
    if (x->link.how == API_LINK_CHANNELS) {
        return api_link_send(&x->link, channel, data, len, last);
    }
    return x->streams[channel] != 0 ? api_link_send(&x->link, x->streams[channel], data, len, last)
                                    : AT_OK;
}

static void end_with_status(struct api_exec *x, json_t *status_take)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    static const enum channel ENDED[] = {CHANNEL_STDOUT, CHANNEL_STDERR, CHANNEL_STDIN};
    enum at_rc rc = at_json_dump(status_take, &text);
    json_decref(status_take);
    for (size_t i = 0; rc == AT_OK && i < AT_ARRAY_LEN(ENDED); i++) {
        rc = send(x, ENDED[i], NULL, 0, true);
    }
    if (rc == AT_OK) {
        (void)!send(x, CHANNEL_STATUS, text.data, text.len, true);
    }
    api_link_end(&x->link, false);
}

/* Called for each session of a node in turn: only this one may go at once. */
void api_exec_fail(struct session *s, enum at_rc rc, const char *message)
{
    struct api_exec *x = s->exec;
    session_over(x, false);
    end_with_status(x, api_status_of(rc, message));
    api_link_settle_later(&x->link);
}

static void deny(void *owner, const char *why)
{
    struct api_exec *x = owner;
    session_over(x, true);
    end_with_status(x, api_status_of(AT_FORBIDDEN, why));
}

/* As clients of Kubernetes read an exit status. */
static json_t *status_of_exit(int64_t code)
{
    char number[24];
    char message[80];
    if (code == 0) {
        return json_pack("{s:{}, s:s}", "metadata", "status", "Success");
    }
    snprintf(number, sizeof number, "%lld", (long long)code);
    snprintf(message, sizeof message, "command terminated with non-zero exit code: exit status %s",
             number);
    return json_pack("{s:{}, s:s, s:s, s:s, s:{s:[{s:s, s:s}]}}", "metadata", "status", "Failure",
                     "reason", "NonZeroExitCode", "message", message, "details", "causes", "reason",
                     "ExitCode", "message", number);
}

/* --- the agent's answers --- */

static void input_taken(struct api_exec *x, int64_t bytes)
{
    size_t taken = bytes > 0 ? (size_t)bytes : 0;
    x->ahead_bytes -= taken < x->ahead_bytes ? taken : x->ahead_bytes;
    if (x->ahead_bytes < AT_API_EXEC_AHEAD_BYTES_MAX) {
        at_http_upgraded_resume(x->req->ex);
    }
}

/* False: the client is gone, and req is answered. */
static bool output_add(struct api_exec *x, struct api_req *req, int64_t stream)
{
    struct at_str piece = at_http_request_body(req->ex);
    enum at_rc rc = AT_OK;
    if (piece.len > 0 && (stream == CHANNEL_STDOUT || stream == CHANNEL_STDERR)) {
        rc = send(x, (enum channel)stream, piece.ptr, piece.len, false);
    }
    if (rc == AT_OK) {
        return true;
    }
    session_over(x, true);
    api_link_end(&x->link, false);
    api_respond_error(req, AT_NOT_FOUND, "nobody waits for this answer any more");
    return false;
}

/* The instance's output as it comes; its last piece is its end. */
static void attached_answer(struct api_exec *x, struct api_req *req, const char *error)
{
    bool more = api_query_bool(req, "more");
    if (error == NULL && !output_add(x, req, CHANNEL_STDOUT)) {
        return;
    }
    if (error == NULL && more) {
        api_brake_answer(&x->brake, req, x->req->ex);
        return;
    }
    session_over(x, false);
    end_with_status(x, error != NULL ? api_status_of(AT_UPSTREAM, error) : status_of_exit(0));
    api_respond_text(req, 200, "application/json", NULL, "{}", 2);
}

static void command_answer(struct api_exec *x, struct api_req *req, const char *error)
{
    struct at_err err = {0};
    int64_t stream = 0;
    int64_t taken = 0;
    int64_t code = -1;
    if (api_query_int(req, "stream", 0, &stream, &err) != AT_OK ||
        api_query_int(req, "taken", 0, &taken, &err) != AT_OK ||
        api_query_int(req, "exit", -1, &code, &err) != AT_OK) {
        api_respond_err(req, &err);
        return;
    }
    if (error == NULL && code < 0) {
        input_taken(x, taken);
        if (output_add(x, req, stream)) {
            api_brake_answer(&x->brake, req, x->req->ex);
        }
        return;
    }
    session_over(x, false);
    end_with_status(x, error != NULL ? api_status_of(AT_UPSTREAM, error) : status_of_exit(code));
    api_respond_text(req, 200, "application/json", NULL, "{}", 2);
}

void api_exec_answer(struct session *s, struct api_req *req)
{
    struct api_exec *x = s->exec;
    const char *error = api_query(req, "error");
    at_loop_timer_cancel(req->api->options.loop, s->timer);
    s->timer = 0;
    bool was_busy = x->link.busy; /* resuming the client may bring its bytes at once */
    x->link.busy = true;
    if (x->attach) {
        attached_answer(x, req, error);
    } else {
        command_answer(x, req, error);
    }
    x->link.busy = was_busy;
    api_link_settle(&x->link);
}

/* --- from the client --- */

static void input_add(struct api_exec *x, const struct api_link_event *e)
{
    if (x->session == NULL || x->attach || !x->wanted[CHANNEL_STDIN]) {
        return; /* an instance's own input is empty */
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (e->len > 0 && at_base64_encode(e->data, e->len, &text) == AT_OK) {
        x->ahead_bytes += e->len;
        tell_agent(x, "stdin", json_pack("{s:s}", "data", text.data));
    }
    if (e->last) {
        tell_agent(x, "stdin-close", NULL);
    }
}

static void resize_tell(struct api_exec *x)
{
    AT_CLEANUP(at_cleanup_json) json_t *size = NULL;
    if (x->session != NULL && !x->attach &&
        at_json_parse(x->resize, x->resize_len, &size, NULL) == AT_OK) {
        tell_agent(x, "resize",
                   json_pack("{s:I, s:I}", "width", (json_int_t)at_json_int_at(size, "Width", 80),
                             "height", (json_int_t)at_json_int_at(size, "Height", 24)));
    }
    x->resize_len = 0;
}

/* {"Width":80,"Height":24}, one after the other, cut anywhere. */
static void resize_add(struct api_exec *x, const struct api_link_event *e)
{
    for (size_t i = 0; i < e->len; i++) {
        bool blank = e->data[i] == '\n' || e->data[i] == ' ';
        if (x->resize_len == sizeof x->resize) {
            x->resize_len = 0; /* no size is that long */
        }
        if (!blank || x->resize_len > 0) {
            x->resize[x->resize_len++] = e->data[i];
        }
        if (e->data[i] == '}') {
            resize_tell(x);
        }
    }
}

static enum channel channel_of(const struct api_exec *x, uint32_t stream)
{
    if (x->link.how == API_LINK_CHANNELS) {
        return stream < CHANNELS ? (enum channel)stream : CHANNELS;
    }
    size_t i = 0;
    while (i < CHANNELS && x->streams[i] != stream) {
        i++;
    }
    return (enum channel)i;
}

static void begin(struct api_exec *x)
{
    struct at_err err = {0};
    at_loop_timer_cancel(x->req->api->options.loop, x->streams_timer);
    x->streams_timer = 0;
    json_t *line = x->line;
    x->line = NULL;
    if (api_session_open(x->req, line, &x->session, &err) != AT_OK) {
        end_with_status(x, api_status_of(err.rc, err.msg));
        return;
    }
    x->session->exec = x;
}

/* SPDY: the client opens what it asked for, in any order. */
static enum at_rc stream_open(struct api_exec *x, const struct api_link_event *e)
{
    const char *type = at_spdy_header(&e->spdy, "streamtype");
    size_t which = 0;
    while (which < CHANNELS && !at_streq(type, NAMES[which])) {
        which++;
    }
    if (which == CHANNELS || !x->wanted[which] || x->streams[which] != 0) {
        return api_link_reset(&x->link, e->stream);
    }
    x->streams[which] = e->stream;
    enum at_rc rc = api_link_accept(&x->link, e->stream);
    bool all = true;
    for (size_t i = 0; i < CHANNELS; i++) {
        all = all && (!x->wanted[i] || x->streams[i] != 0);
    }
    if (rc == AT_OK && all) {
        begin(x);
    }
    return rc;
}

static enum at_rc event_take(struct api_exec *x, const struct api_link_event *e)
{
    switch (e->type) {
    case API_LINK_OPEN:
        return stream_open(x, e);
    case API_LINK_DATA:
        if (channel_of(x, e->stream) == CHANNEL_STDIN) {
            input_add(x, e);
        } else if (channel_of(x, e->stream) == CHANNEL_RESIZE) {
            resize_add(x, e);
        }
        return AT_OK;
    case API_LINK_CLOSE:
        session_over(x, true);
        api_link_end(&x->link, false);
        return AT_OK;
    case API_LINK_RESET:
    case API_LINK_NONE:
        break;
    }
    return AT_OK;
}

static size_t on_bytes(void *ctx, const char *data, size_t len)
{
    struct api_exec *x = ctx;
    struct api_link *link = &x->link;
    size_t all = 0;
    bool was_busy = link->busy;
    link->busy = true;
    while (!link->over && all < len && x->ahead_bytes < AT_API_EXEC_AHEAD_BYTES_MAX) {
        struct api_link_event e;
        size_t used = 0;
        enum at_rc rc = api_link_take(link, data + all, len - all, &used, &e);
        all += used;
        if (rc == AT_OK) {
            rc = event_take(x, &e);
        }
        if (rc != AT_OK && !link->over) {
            session_over(x, true);
            api_link_end(link, true);
        }
    }
    link->busy = was_busy;
    bool over = link->over;
    api_link_settle(link);
    return over ? len : all;
}

static void on_writable(void *ctx)
{
    api_brake_release(&((struct api_exec *)ctx)->brake);
}

/* --- begin --- */

/* All command=WORD of the query, in order. NULL: answered. */
static json_t *command_of(struct api_req *req)
{
    json_t *words = json_array();
    struct at_str rest = req->query;
    while (rest.len > 0) {
        struct at_str value = at_str_cut(&rest, '&');
        struct at_str key = at_str_cut(&value, '=');
        if (!at_str_eq(key, "command")) {
            continue;
        }
        char *text = at_arena_alloc(req->arena, value.len + 1);
        json_t *word = text != NULL && at_percent_decode(value, true, text, value.len + 1) == AT_OK
                           ? json_string(text)
                           : NULL;
        if (word == NULL || json_array_size(words) == AT_API_EXEC_WORDS_MAX) {
            json_decref(word);
            json_decref(words);
            api_respond_error(req, AT_BAD_REQUEST, "command: not UTF-8, or more than %d words",
                              AT_API_EXEC_WORDS_MAX);
            return NULL;
        }
        json_array_append_new(words, word);
    }
    if (json_array_size(words) == 0) {
        json_decref(words);
        api_respond_error(req, AT_BAD_REQUEST, "command: you must specify at least one word");
        return NULL;
    }
    return words;
}

static void streams_late(void *ctx)
{
    struct api_exec *x = ctx;
    x->streams_timer = 0;
    api_link_end(&x->link, false);
    api_link_settle(&x->link);
}

static void carry(struct api_req *req, json_t *line_take, bool attach)
{
    struct api_link link;
    const char *headers = api_link_begin(&link, req, &PROTOCOLS);
    if (headers == NULL || !api_session_possible(req)) {
        api_link_done(&link);
        json_decref(line_take);
        return;
    }
    struct api_exec *x = AT_NEW(struct api_exec);
    x->req = req;
    x->link = link;
    x->line = line_take;
    x->attach = attach;
    bool tty = api_query_bool(req, "tty");
    for (size_t i = 0; i <= CHANNEL_STDERR; i++) {
        x->wanted[i] = api_query_bool(req, NAMES[i]);
    }
    x->wanted[CHANNEL_STDERR] = x->wanted[CHANNEL_STDERR] && !tty; /* a terminal has one output */
    x->wanted[CHANNEL_STATUS] = true;
    x->wanted[CHANNEL_RESIZE] = tty;
    x->link.busy = true;
    api_link_enter(&x->link, headers, x, exec_free, deny, on_bytes, on_writable);
    if (x->link.how == API_LINK_CHANNELS) {
        begin(x);
    } else {
        x->streams_timer =
            at_loop_timer(req->api->options.loop, AT_API_STREAMS_WAIT_NS, streams_late, x);
    }
    x->link.busy = false;
    api_link_settle(&x->link);
}

void api_instance_exec(struct api_req *req)
{
    json_t *command = command_of(req);
    if (command == NULL) {
        return;
    }
    carry(req,
          json_pack("{s:s, s:o, s:b, s:b, s:b, s:b}", "op", "exec", "command", command, "stdin",
                    (int)api_query_bool(req, "stdin"), "stdout", (int)api_query_bool(req, "stdout"),
                    "stderr", (int)api_query_bool(req, "stderr"), "tty",
                    (int)api_query_bool(req, "tty")),
          false);
}

/* Both outputs go to one log, so they come as one from here on, as they do to kubectl logs. */
void api_instance_attach(struct api_req *req)
{
    carry(req,
          json_pack("{s:s, s:b, s:b, s:i}", "op", "log", "follow", 1, "timestamps", 0, "tailLines",
                    0),
          true);
}
