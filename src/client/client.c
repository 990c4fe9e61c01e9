#include "client/client.h"

#include "client/client_priv.h"
#include "core/mem.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

struct call {
    struct call *next;
    struct at_client *client;
    at_client_call_id id;
    at_http_call_id http;      /* 0: refused here, the timer will tell */
    at_timer_id refused_timer; /* 0: none */
    struct at_err refused;
    void (*on_open)(void *ctx);
    void (*on_body)(void *ctx, const char *data, size_t len);
    at_client_done_fn *done; /* NULL: cancelled */
    void *ctx;
    struct at_buf body;
    int status;
    bool too_large;
    /* To send it once more, at another server. */
    uint32_t server;
    bool pinned; /* at this server only */
    bool cut;    /* its server is dead: to be ended */
    unsigned tries;
    enum at_http_method method;
    char *path, *headers;
    struct at_buf out;
    bool no_timeout;
    int64_t timeout_ns, first_byte_ns;
};

static enum at_rc tls_of(const struct at_client *client, struct at_tls_config **ret,
                         struct at_err *err)
{
    struct at_tls_options options = {
        .cert_pem = client->cert_pem,
        .key_pem = client->key_pem,
        .ca_pem = client->ca_pem,
        .ca_pin_sha256_hex = client->ca_pem == NULL ? client->ca_pin : NULL,
        .verify_peer = true,
    };
    return at_tls_config_new(&options, ret, err);
}

static bool is_header_text(const char *text)
{
    return text == NULL || strpbrk(text, "\r\n") == NULL;
}

enum at_rc at_client_set_token(struct at_client *client, const char *token, struct at_err *err)
{
    if (!is_header_text(token)) {
        return at_err_set(err, AT_INVALID, "the token holds a line break");
    }
    const char *more = client->more_headers != NULL ? client->more_headers : "";
    at_free(client->headers);
    client->headers = token != NULL
                          ? at_asprintf("User-Agent: %s\r\nAuthorization: Bearer %s\r\n%s",
                                        client->agent, token, more)
                          : at_asprintf("User-Agent: %s\r\n%s", client->agent, more);
    return AT_OK;
}

static enum at_rc client_fill(struct at_client *client, const struct at_client_options *options,
                              struct at_err *err)
{
    if (options->server == NULL) {
        return at_err_set(err, AT_INVALID, "no server address is configured");
    }
    if (!is_header_text(options->user_agent)) {
        return at_err_set(err, AT_INVALID, "the user agent holds a line break");
    }
    enum at_rc rc = at_client_servers_open(client, options->server, options->prefer_first, err);
    if (rc != AT_OK) {
        return rc;
    }
    client->ca_pem = at_strdup(options->ca_pem);
    client->ca_pin = at_strdup(options->ca_pin_sha256_hex);
    client->cert_pem = at_strdup(options->cert_pem);
    client->key_pem = at_strdup(options->key_pem);
    client->tls_name = at_strdup(options->tls_server_name);
    client->agent =
        at_strdup(options->user_agent != NULL ? options->user_agent : "atoll/" AT_VERSION);
    client->more_headers = at_strdup(options->more_headers);
    rc = at_client_set_token(client, options->token, err);
    if (rc != AT_OK) {
        return rc;
    }
    return strcmp(client->current->url.scheme, "https") == 0 ? tls_of(client, &client->tls, err)
                                                             : AT_OK;
}

enum at_rc at_client_new(struct at_loop *loop, const struct at_client_options *options,
                         struct at_client **ret, struct at_err *err)
{
    struct at_client *client = AT_NEW(struct at_client);
    client->loop = loop;
    enum at_rc rc = client_fill(client, options, err);
    if (rc != AT_OK) {
        at_client_free(client);
        return rc;
    }
    client->http = at_http_client_new(
        loop, &(struct at_http_client_options){.connect_timeout_ns = AT_CLIENT_CONNECT_TIMEOUT_NS});
    *ret = client;
    return AT_OK;
}

static void unlink_call(struct call *call)
{
    struct call **at = &call->client->calls;
    while (*at != call) {
        at = &(*at)->next;
    }
    *at = call->next;
}

static void call_free(struct call *call)
{
    unlink_call(call);
    at_buf_done(&call->body);
    at_buf_done(&call->out);
    at_free(call->path);
    at_free(call->headers);
    at_free(call);
}

void at_client_free(struct at_client *client)
{
    if (client == NULL) {
        return;
    }
    while (client->calls != NULL) {
        at_client_cancel(client, client->calls->id);
    }
    if (client->http != NULL) {
        at_http_client_free(client->http);
    }
    if (client->tls != NULL) {
        at_tls_config_unref(client->tls);
    }
    at_loop_timer_cancel(client->loop, client->cut_timer);
    at_client_servers_done(client);
    at_free(client->ca_pem);
    at_free(client->ca_pin);
    at_free(client->cert_pem);
    at_free(client->key_pem);
    at_free(client->headers);
    at_free(client->tls_name);
    at_free(client->agent);
    at_free(client->more_headers);
    at_free(client);
}

enum at_rc at_client_set_identity(struct at_client *client, const char *cert_pem,
                                  const char *key_pem, struct at_err *err)
{
    char *old_cert = client->cert_pem;
    char *old_key = client->key_pem;
    struct at_tls_config *fresh = NULL;
    client->cert_pem = at_strdup(cert_pem);
    client->key_pem = at_strdup(key_pem);
    enum at_rc rc = tls_of(client, &fresh, err);
    if (rc != AT_OK) {
        at_free(client->cert_pem);
        at_free(client->key_pem);
        client->cert_pem = old_cert;
        client->key_pem = old_key;
        return rc;
    }
    at_free(old_cert);
    at_free(old_key);
    if (client->tls != NULL) {
        at_tls_config_unref(client->tls);
    }
    client->tls = fresh;
    return AT_OK;
}

struct at_loop *at_client_loop(const struct at_client *client)
{
    return client->loop;
}

static enum at_rc rc_of_status(const char *reason, int http_status)
{
    for (int rc = AT_OK + 1; reason != NULL && rc < AT_RC_COUNT; rc++) {
        if (strcmp(at_rc_name((enum at_rc)rc), reason) == 0) {
            return (enum at_rc)rc;
        }
    }
    if (http_status == 409) {
        return AT_CONFLICT;
    }
    for (int rc = AT_OK + 1; rc < AT_RC_COUNT; rc++) {
        if (at_rc_http_status((enum at_rc)rc) == http_status) {
            return (enum at_rc)rc;
        }
    }
    return http_status >= 500 ? AT_INTERNAL : AT_BAD_REQUEST;
}

enum at_rc at_client_status_err(const json_t *status, int http_status, struct at_err *err)
{
    enum at_rc rc = rc_of_status(at_json_str_at(status, "reason", NULL), http_status);
    const json_t *cause = json_array_get(at_json_at(status, "details.causes"), 0);
    const char *message = at_json_str_at(status, "message", NULL);
    if (message == NULL) {
        return at_err_set(err, rc, "the server answered %d %s", http_status,
                          at_http_status_text(http_status));
    }
    return at_err_set_field(err, rc, at_json_str_at(cause, "field", ""), "%s", message);
}

static void on_head(void *ctx, const struct at_http_head *head)
{
    struct call *call = ctx;
    call->status = head->status;
    bool good = head->status >= 200 && head->status < 300;
    if (good && call->on_open != NULL && call->done != NULL) {
        call->on_open(call->ctx);
    }
}

static void on_body(void *ctx, const char *data, size_t len)
{
    struct call *call = ctx;
    bool good = call->status >= 200 && call->status < 300;
    if (call->done == NULL || call->too_large) {
        return;
    }
    if (good && call->on_body != NULL) {
        call->on_body(call->ctx, data, len);
    } else if (at_buf_append(&call->body, data, len) != AT_OK) {
        call->too_large = true;
    }
}

static void finish(struct call *call, enum at_rc rc, const struct at_err *http_err)
{
    struct at_err err = {0};
    AT_CLEANUP(at_cleanup_json) json_t *body = NULL;
    bool is_json = rc == AT_OK && call->body.len != 0 &&
                   at_json_parse(call->body.data, call->body.len, &body, NULL) == AT_OK;
    if (!is_json) {
        body = NULL;
    }
    if (rc != AT_OK) {
        err = http_err != NULL ? *http_err : (struct at_err){0};
        err.rc = rc;
    } else if (call->too_large) {
        rc = at_err_set(&err, AT_TOO_LARGE, "the answer is over the limit of %zu bytes",
                        AT_CLIENT_BODY_BYTES_MAX);
    } else if (call->status < 200 || call->status >= 300) {
        rc = at_client_status_err(body, call->status, &err);
    }
    at_client_done_fn *done = call->done;
    void *done_ctx = call->ctx;
    int status = call->status;
    call_free(call);
    if (done != NULL) {
        done(done_ctx, rc, status, body, &err);
    }
}

static void call_send(struct call *call);

/* One by one from the loop: what a call's owner does about it may end other calls, or the client.
 */
static void cut_next(void *ctx)
{
    struct at_client *client = ctx;
    struct call *call = client->calls;
    client->cut_timer = 0;
    while (call != NULL && !(call->cut && call->http != 0)) {
        call = call->next;
    }
    if (call != NULL) {
        client->cut_timer = at_loop_timer(client->loop, 0, cut_next, client);
        at_http_call_cancel(client->http, call->http);
    }
}

/* A server that says nothing any more: whoever waits for it shall not wait on. */
static void cut_others(struct at_client *client, uint32_t server)
{
    for (struct call *c = client->calls; c != NULL; c = c->next) {
        c->cut = c->cut || (c->server == server && c->http != 0);
    }
    if (client->cut_timer == 0) {
        client->cut_timer = at_loop_timer(client->loop, 0, cut_next, client);
    }
}

static void on_suspect(void *ctx, enum at_rc rc, int status, json_t *body, const struct at_err *err)
{
    (void)body;
    (void)err;
    struct at_client *client = ctx;
    uint32_t server = client->suspect;
    client->suspect = 0;
    bool lives = rc == AT_OK || (status != 0 && rc != AT_TIMEOUT);
    if (!lives) {
        cut_others(client, server);
    }
}

/* It did not answer in time: is it dead, or only slow? What streams from it goes on if it lives. */
static void suspect(struct at_client *client, uint32_t id)
{
    const struct at_client_server *server = at_client_server_find(client, id);
    if (client->suspect != 0 || server == NULL) {
        return;
    }
    client->suspect = id;
    at_client_start(client, &(struct at_client_call){.server = server->text,
                                                     .timeout_ns = AT_CLIENT_SUSPECT_NS,
                                                     .method = AT_HTTP_GET,
                                                     .path = "/livez",
                                                     .done = on_suspect,
                                                     .ctx = client});
}

/* true: it goes on at another server. */
static bool try_elsewhere(struct call *call, bool bytes_sent)
{
    struct at_client *client = call->client;
    bool harmless = !bytes_sent || (call->method == AT_HTTP_GET && call->status == 0);
    if (call->done == NULL || call->pinned || !harmless || call->tries + 1 >= client->n_servers ||
        client->current->id == call->server) {
        return false;
    }
    call->tries++;
    call->cut = false;
    at_buf_clear(&call->body);
    call_send(call);
    return true;
}

static void on_done(void *ctx, enum at_rc rc, bool bytes_sent, const struct at_err *err)
{
    struct call *call = ctx;
    struct at_client *client = call->client;
    struct at_err gone = {0};
    bool several = client->n_servers > 1;
    call->http = 0;
    if (rc == AT_CANCELLED && call->cut && call->done != NULL) {
        rc = at_err_set(&gone, AT_UNAVAILABLE, "the server does not answer any more");
        err = &gone;
    } else if (several && rc == AT_OK) {
        if (call->status == 503) { /* it cannot reach its store, or is about to end */
            at_client_server_failed(client, call->server);
        } else {
            at_client_server_works(client, call->server);
        }
    } else if (several && rc != AT_CANCELLED) {
        at_client_server_failed(client, call->server);
        if (rc == AT_TIMEOUT && !call->pinned) {
            suspect(client, call->server);
        }
    }
    if (rc != AT_OK && rc != AT_CANCELLED && several && try_elsewhere(call, bytes_sent)) {
        return;
    }
    finish(call, rc, err);
}

static void on_refused(void *ctx)
{
    struct call *call = ctx;
    struct at_err err = call->refused;
    call->refused_timer = 0;
    finish(call, err.rc, &err);
}

static void refuse(struct call *call, enum at_rc rc, const char *why)
{
    at_err_set(&call->refused, rc, "%s", why);
    call->refused_timer = at_loop_timer(call->client->loop, 0, on_refused, call);
}

static void call_send(struct call *call)
{
    struct at_client *client = call->client;
    const struct at_client_server *server =
        call->pinned ? at_client_server_find(client, call->server) : client->current;
    assert(server != NULL);
    call->server = server->id;
    call->status = 0;
    bool several = client->n_servers > 1;
    struct at_http_call http = {
        .addr = server->url.addr,
        .tls = client->tls,
        .server_name = client->tls_name != NULL ? client->tls_name : server->url.host,
        .method = call->method,
        .target = call->path,
        .headers = call->headers,
        .body = call->out.data,
        .body_len = call->out.len,
        .timeout_ns = call->no_timeout ? 0 : call->timeout_ns,
        .first_byte_timeout_ns = several ? call->first_byte_ns : 0,
        .ctx = call,
        .on_head = on_head,
        .on_body = on_body,
        .on_done = on_done,
    };
    call->http = at_http_call(client->http, &http);
}

static enum at_rc headers_make(struct call *call, const struct at_client_call *spec)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf headers = {0};
    const char *type = spec->content_type != NULL ? spec->content_type : "application/json";
    enum at_rc rc = at_buf_printf(&headers, "%sAccept: %s\r\n", call->client->headers,
                                  spec->accept != NULL ? spec->accept : "application/json");
    if (rc == AT_OK && (spec->body != NULL || spec->text != NULL)) {
        rc = at_buf_printf(&headers, "Content-Type: %s\r\n", type);
    }
    call->headers = rc == AT_OK ? at_buf_steal(&headers, NULL) : NULL;
    return rc;
}

static void call_prepare(struct call *call, const struct at_client_call *spec)
{
    const struct at_client_server *server = at_client_server_for(call->client, spec->server);
    if (spec->path[0] != '/' || strpbrk(spec->path, " \r\n") != NULL) {
        refuse(call, AT_INVALID, "the request's path is empty, too long or malformed");
        return;
    }
    if (server == NULL) {
        refuse(call, AT_UNAVAILABLE, "the server is not known any more");
        return;
    }
    call->out.max = AT_CLIENT_BODY_BYTES_MAX;
    enum at_rc rc = spec->body != NULL   ? at_json_dump(spec->body, &call->out)
                    : spec->text != NULL ? at_buf_append(&call->out, spec->text, spec->text_len)
                                         : AT_OK;
    if (rc != AT_OK) {
        refuse(call, AT_TOO_LARGE, "the request's body is too large");
        return;
    }
    rc = headers_make(call, spec);
    assert(rc == AT_OK);
    call->method = spec->method;
    call->path = at_strdup(spec->path);
    call->server = server->id;
    call->pinned = spec->server != NULL;
    call->no_timeout = spec->no_timeout;
    call->timeout_ns = spec->timeout_ns > 0 ? spec->timeout_ns : AT_CLIENT_CALL_TIMEOUT_NS;
    call->first_byte_ns = spec->slow_to_begin ? 0 : AT_CLIENT_FIRST_BYTE_NS;
    call_send(call);
}

at_client_call_id at_client_start(struct at_client *client, const struct at_client_call *spec)
{
    assert(spec->done != NULL);
    struct call *call = AT_NEW(struct call);
    call->client = client;
    call->id = ++client->last_id;
    call->on_open = spec->on_open;
    call->on_body = spec->on_body;
    call->done = spec->done;
    call->ctx = spec->ctx;
    call->body.max = AT_CLIENT_BODY_BYTES_MAX;
    call->next = client->calls;
    client->calls = call;
    at_client_call_id id = call->id;
    call_prepare(call, spec);
    return id;
}

void at_client_cancel(struct at_client *client, at_client_call_id id)
{
    struct call *call = client->calls;
    while (call != NULL && call->id != id) {
        call = call->next;
    }
    if (call == NULL) {
        return;
    }
    call->done = NULL;
    if (call->http != 0) {
        at_http_call_cancel(client->http, call->http); /* on_done frees the call */
    } else {
        at_loop_timer_cancel(client->loop, call->refused_timer);
        call_free(call);
    }
}

at_client_call_id at_client_request_accept(struct at_client *client, enum at_http_method method,
                                           const char *path, const char *content_type,
                                           const char *accept, const json_t *body,
                                           at_client_done_fn *done, void *ctx)
{
    return at_client_start(client, &(struct at_client_call){.method = method,
                                                            .path = path,
                                                            .content_type = content_type,
                                                            .accept = accept,
                                                            .body = body,
                                                            .done = done,
                                                            .ctx = ctx});
}

at_client_call_id at_client_request(struct at_client *client, enum at_http_method method,
                                    const char *path, const char *content_type, const json_t *body,
                                    at_client_done_fn *done, void *ctx)
{
    return at_client_request_accept(client, method, path, content_type, NULL, body, done, ctx);
}

at_client_call_id at_client_request_within(struct at_client *client, int64_t timeout_ns,
                                           enum at_http_method method, const char *path,
                                           const json_t *body, at_client_done_fn *done, void *ctx)
{
    return at_client_start(client, &(struct at_client_call){.timeout_ns = timeout_ns,
                                                            .method = method,
                                                            .path = path,
                                                            .body = body,
                                                            .done = done,
                                                            .ctx = ctx});
}

at_client_call_id at_client_post_text_to(struct at_client *client, const char *server,
                                         const char *path, const char *text, size_t len,
                                         at_client_done_fn *done, void *ctx)
{
    return at_client_start(client,
                           &(struct at_client_call){.server = server,
                                                    .method = AT_HTTP_POST,
                                                    .path = path,
                                                    .content_type = "text/plain; charset=utf-8",
                                                    .text = len != 0 ? text : "",
                                                    .text_len = len,
                                                    .done = done,
                                                    .ctx = ctx});
}

/* Its first byte may take as long as it likes: a log that nobody writes to. */
at_client_call_id at_client_stream_from(struct at_client *client, const char *server,
                                        const char *path, void (*stream_open)(void *ctx),
                                        void (*stream_body)(void *ctx, const char *data,
                                                            size_t len),
                                        at_client_done_fn *done, void *ctx)
{
    return at_client_start(client, &(struct at_client_call){.server = server,
                                                            .method = AT_HTTP_GET,
                                                            .path = path,
                                                            .accept = "*/*",
                                                            .no_timeout = true,
                                                            .slow_to_begin = true,
                                                            .on_open = stream_open,
                                                            .on_body = stream_body,
                                                            .done = done,
                                                            .ctx = ctx});
}

at_client_call_id at_client_stream(struct at_client *client, const char *path,
                                   void (*stream_body)(void *ctx, const char *data, size_t len),
                                   at_client_done_fn *done, void *ctx)
{
    return at_client_stream_from(client, NULL, path, NULL, stream_body, done, ctx);
}
