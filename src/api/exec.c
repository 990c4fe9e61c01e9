/* Commands beside an instance (kubectl exec): WebSocket towards the client, subprotocols
 * v5.channel.k8s.io and v4.channel.k8s.io, lines and POSTs of the agent's tunnel on the other side.
 * Each message's first byte is its channel. Either side that does not read holds the other back. */
#include "api/tunnel_priv.h"
#include "core/digest.h"
#include "core/mem.h"
#include "core/str.h"
#include "net/ws.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum channel {
    CHANNEL_NONE = -1,
    CHANNEL_STDIN = 0,
    CHANNEL_STDOUT = 1,
    CHANNEL_STDERR = 2,
    CHANNEL_STATUS = 3,
    CHANNEL_RESIZE = 4,
    CHANNEL_CLOSE = 255,
};

#define WS_CLOSE_NORMAL 1000
#define WS_CLOSE_PROTOCOL 1002

struct api_exec {
    struct session *session;
    struct at_ws ws;
    int channel; /* of the message that comes in */
    size_t ahead_bytes;
    char resize[AT_API_EXEC_RESIZE_BYTES_MAX];
    size_t resize_len;
    struct api_req *held; /* of the agent: answered once the client has read on */
    at_timer_id hold_timer;
};

/* --- to the client --- */

static enum at_rc frame_send(struct session *s, enum at_ws_opcode opcode, int channel,
                             const char *data, size_t len)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
    char head[AT_WS_HEAD_BYTES_MAX];
    char first = (char)channel;
    size_t with = channel != CHANNEL_NONE;
    enum at_rc rc = at_buf_append(&out, head, at_ws_head(head, opcode, len + with));
    if (rc == AT_OK && with == 1) {
        rc = at_buf_append(&out, &first, 1);
    }
    if (rc == AT_OK && len > 0) {
        rc = at_buf_append(&out, data, len);
    }
    return rc == AT_OK ? at_http_stream_write(s->req->ex, out.data, out.len) : rc;
}

/* A close frame, then the end of the connection. s is gone after it. */
static void end(struct session *s, unsigned code)
{
    struct at_http_exchange *ex = s->req->ex;
    char text[2] = {(char)(code >> 8), (char)code};
    if (ex != NULL) {
        (void)!frame_send(s, AT_WS_CLOSE, CHANNEL_NONE, text, sizeof text);
        s->req->ex = NULL;
        at_http_stream_end(ex);
    }
    api_session_free(s);
}

static void end_with_status(struct session *s, json_t *status_take)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (s->req->ex != NULL && at_json_dump(status_take, &text) == AT_OK) {
        (void)!frame_send(s, AT_WS_BINARY, CHANNEL_STATUS, text.data, text.len);
    }
    json_decref(status_take);
    end(s, WS_CLOSE_NORMAL);
}

void api_exec_fail(struct session *s, enum at_rc rc, const char *message)
{
    end_with_status(s, api_status_of(rc, message));
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

static void held_release(struct api_exec *x)
{
    struct api_req *held = x->held;
    at_loop_timer_cancel(x->session->req->api->options.loop, x->hold_timer);
    x->hold_timer = 0;
    x->held = NULL;
    if (held != NULL) {
        api_respond_text(held, 200, "application/json", NULL, "{}", 2);
    }
}

static void hold_over(void *ctx)
{
    held_release(ctx);
}

static void on_writable(void *ctx)
{
    held_release(ctx);
}

void api_exec_free(struct api_exec *exec)
{
    if (exec != NULL) {
        held_release(exec);
        at_free(exec);
    }
}

static void input_taken(struct api_exec *x, int64_t bytes)
{
    size_t taken = bytes > 0 ? (size_t)bytes : 0;
    x->ahead_bytes -= taken < x->ahead_bytes ? taken : x->ahead_bytes;
    if (x->ahead_bytes < AT_API_EXEC_AHEAD_BYTES_MAX) {
        at_http_upgraded_resume(x->session->req->ex);
    }
}

static void output_add(struct session *s, struct api_req *req, int64_t stream)
{
    struct at_str piece = at_http_request_body(req->ex);
    enum at_rc rc = AT_OK;
    if (piece.len > 0 && (stream == CHANNEL_STDOUT || stream == CHANNEL_STDERR)) {
        rc = frame_send(s, AT_WS_BINARY, (int)stream, piece.ptr, piece.len);
    }
    struct api_exec *x = s->exec;
    if (rc != AT_OK) {
        (void)api_tunnel_send(s->owner, s->node,
                              json_pack("{s:s, s:s}", "id", s->id, "op", "cancel"));
        end(s, WS_CLOSE_NORMAL);
        api_respond_error(req, AT_NOT_FOUND, "nobody waits for this answer any more");
        return;
    }
    if (at_http_stream_queued_bytes(s->req->ex) < AT_API_EXEC_QUEUE_BYTES || x->held != NULL) {
        api_respond_text(req, 200, "application/json", NULL, "{}", 2);
        return;
    }
    x->held = req;
    x->hold_timer = at_loop_timer(req->api->options.loop, AT_API_EXEC_HOLD_NS, hold_over, x);
}

void api_exec_answer(struct session *s, struct api_req *req)
{
    struct at_err err = {0};
    int64_t stream = 0;
    int64_t taken = 0;
    int64_t code = -1;
    const char *error = api_query(req, "error");
    if (api_query_int(req, "stream", 0, &stream, &err) != AT_OK ||
        api_query_int(req, "taken", 0, &taken, &err) != AT_OK ||
        api_query_int(req, "exit", -1, &code, &err) != AT_OK) {
        api_respond_err(req, &err);
        return;
    }
    at_loop_timer_cancel(req->api->options.loop, s->timer);
    s->timer = 0;
    if (error == NULL && code < 0) {
        input_taken(s->exec, taken);
        output_add(s, req, stream);
        return;
    }
    if (error != NULL) {
        api_exec_fail(s, AT_UPSTREAM, error);
    } else {
        end_with_status(s, status_of_exit(code));
    }
    api_respond_text(req, 200, "application/json", NULL, "{}", 2);
}

/* --- from the client --- */

static void tell_agent(struct session *s, const char *op, json_t *more_take)
{
    json_t *line = more_take != NULL ? more_take : json_object();
    json_object_set_new(line, "id", json_string(s->id));
    json_object_set_new(line, "op", json_string(op));
    (void)api_tunnel_send(s->owner, s->node, line); /* a lost tunnel ends the session by itself */
}

static void input_add(struct session *s, const char *data, size_t len)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (len > 0 && at_base64_encode(data, len, &text) == AT_OK) {
        s->exec->ahead_bytes += len;
        tell_agent(s, "stdin", json_pack("{s:s}", "data", text.data));
    }
}

/* {"Width":80,"Height":24} */
static void resize_add(struct session *s, const struct at_ws_event *e, const char *data, size_t len)
{
    struct api_exec *x = s->exec;
    size_t room = sizeof x->resize - x->resize_len;
    size_t n = len < room ? len : room;
    memcpy(x->resize + x->resize_len, data, n);
    x->resize_len += n;
    if (!e->last) {
        return;
    }
    AT_CLEANUP(at_cleanup_json) json_t *size = NULL;
    if (at_json_parse(x->resize, x->resize_len, &size, NULL) == AT_OK) {
        tell_agent(s, "resize",
                   json_pack("{s:I, s:I}", "width", (json_int_t)at_json_int_at(size, "Width", 80),
                             "height", (json_int_t)at_json_int_at(size, "Height", 24)));
    }
    x->resize_len = 0;
}

static void message_piece(struct session *s, const struct at_ws_event *e)
{
    struct api_exec *x = s->exec;
    const char *data = e->data;
    size_t len = e->len;
    if (e->first) {
        x->channel = CHANNEL_NONE;
        x->resize_len = 0;
    }
    if (x->channel == CHANNEL_NONE && len > 0) {
        x->channel = (unsigned char)data[0];
        data++;
        len--;
    }
    if (x->channel == CHANNEL_STDIN) {
        input_add(s, data, len);
    } else if (x->channel == CHANNEL_RESIZE) {
        resize_add(s, e, data, len);
    } else if (x->channel == CHANNEL_CLOSE && len == 1 && data[0] == CHANNEL_STDIN) {
        tell_agent(s, "stdin-close", NULL);
    }
}

/* False: s is gone. */
static bool control(struct session *s, const struct at_ws_event *e)
{
    if (e->opcode == AT_WS_PING) {
        (void)!frame_send(s, AT_WS_PONG, CHANNEL_NONE, e->data, e->len);
    } else if (e->opcode == AT_WS_CLOSE) {
        tell_agent(s, "cancel", NULL);
        end(s, WS_CLOSE_NORMAL);
        return false;
    }
    return true;
}

static size_t on_bytes(void *ctx, const char *data, size_t len)
{
    struct session *s = ctx;
    size_t all = 0;
    while (all < len && s->exec->ahead_bytes < AT_API_EXEC_AHEAD_BYTES_MAX) {
        struct at_ws_event e;
        size_t used = 0;
        if (at_ws_take(&s->exec->ws, data + all, len - all, &used, &e, NULL) != AT_OK) {
            tell_agent(s, "cancel", NULL);
            end(s, WS_CLOSE_PROTOCOL);
            return len;
        }
        all += used;
        if (e.type == AT_WS_EVENT_DATA) {
            message_piece(s, &e);
        } else if (e.type == AT_WS_EVENT_CONTROL && !control(s, &e)) {
            return len;
        }
    }
    return all;
}

/* --- begin --- */

static bool list_has(struct at_str list, const char *word)
{
    while (list.len > 0) {
        if (at_str_eq_nocase(at_str_trim(at_str_cut(&list, ',')), word)) {
            return true;
        }
    }
    return false;
}

/* Headers of the 101. NULL: answered. own: on the request's arena. */
static const char *handshake(struct api_req *req)
{
    static const char *const PROTOCOLS[] = {"v5.channel.k8s.io", "v4.channel.k8s.io"};
    const struct at_http_head *head = at_http_request(req->ex);
    struct at_str key = at_http_header_get(head, "Sec-WebSocket-Key");
    struct at_str offered = at_http_header_get(head, "Sec-WebSocket-Protocol");
    struct at_err err = {0};
    char accept[AT_WS_ACCEPT_BYTES];
    if (!list_has(at_http_header_get(head, "Upgrade"), "websocket") ||
        !list_has(at_http_header_get(head, "Connection"), "upgrade") ||
        !at_str_eq(at_http_header_get(head, "Sec-WebSocket-Version"), "13")) {
        api_respond_error(req, AT_BAD_REQUEST,
                          "commands need a WebSocket: kubectl 1.30 and later have it");
        return NULL;
    }
    if (at_ws_accept(key.ptr, key.len, accept, &err) != AT_OK) {
        api_respond_err(req, &err);
        return NULL;
    }
    const char *protocol = NULL;
    for (size_t i = 0; protocol == NULL && i < AT_ARRAY_LEN(PROTOCOLS); i++) {
        protocol = list_has(offered, PROTOCOLS[i]) ? PROTOCOLS[i] : NULL;
    }
    if (protocol == NULL) {
        api_respond_error(req, AT_BAD_REQUEST,
                          "Sec-WebSocket-Protocol: one of v5.channel.k8s.io and "
                          "v4.channel.k8s.io is needed");
        return NULL;
    }
    return at_arena_printf(req->arena,
                           "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                           "Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: %s\r\n",
                           accept, protocol);
}

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

void api_instance_exec(struct api_req *req)
{
    const char *headers = handshake(req);
    json_t *command = headers != NULL ? command_of(req) : NULL;
    if (command == NULL) {
        return;
    }
    json_t *line = json_pack(
        "{s:s, s:o, s:b, s:b, s:b, s:b}", "op", "exec", "command", command, "stdin",
        (int)api_query_bool(req, "stdin"), "stdout", (int)api_query_bool(req, "stdout"), "stderr",
        (int)api_query_bool(req, "stderr"), "tty", (int)api_query_bool(req, "tty"));
    struct session *s = api_session_new(req, line);
    if (s == NULL) {
        return;
    }
    struct api_exec *x = AT_NEW(struct api_exec);
    x->session = s;
    x->channel = CHANNEL_NONE;
    at_ws_init(&x->ws);
    s->exec = x;
    s->begun = true;
    api_req_measure(req, 101);
    (void)api_req_audit(req, 101);
    at_http_on_writable(req->ex, on_writable, x);
    at_http_upgrade(req->ex, headers, on_bytes, s);
}
