/* People who come with a token of an OpenID provider: its keys are fetched by discovery (OpenID
 * Connect Discovery 1.0 §4), kept, and fetched anew now and then, and when a token names a key that
 * is not among them. Requests with such a token wait for that; nobody else does. */
#include "api/api_priv.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/str.h"
#include "net/http_client.h"
#include "net/url.h"
#include "security/jwt.h"

#include <assert.h>
#include <stdio.h>

struct api_oidc {
    struct at_api *api;
    struct at_jwt_policy policy;
    char *issuer, *prefix;
    char *where; /* what is being fetched, or was last */
    struct at_tls_config *tls;
    struct at_http_client *http;
    struct at_jwks *keys; /* NULL: none yet */
    at_http_call_id call;
    int status;
    bool discovered; /* the call is for the keys, not for the discovery document */
    struct at_buf body;
    struct api_req *waiting, **waiting_tail;
    size_t n_waiting;
    int64_t asked_ns; /* monotonic; when it was last begun */
    at_timer_id timer;
    bool told; /* that it fails */
};

static void fetch(struct api_oidc *o, const char *url);

static void waiting_go(struct api_oidc *o)
{
    struct api_req *req = o->waiting;
    o->waiting = NULL;
    o->waiting_tail = &o->waiting;
    o->n_waiting = 0;
    while (req != NULL) {
        struct api_req *next = req->next;
        req->next = NULL;
        if (req->ex == NULL) {
            api_req_free(req);
        } else {
            req->waited_for_keys = true;
            api_handle_again(req);
        }
        req = next;
    }
}

static void begin(void *ctx)
{
    struct api_oidc *o = ctx;
    if (o->call != 0) {
        return;
    }
    at_loop_timer_cancel(o->api->options.loop, o->timer);
    o->timer = 0;
    o->asked_ns = at_sys_mono_ns(o->api->sys);
    o->discovered = false;
    AT_CLEANUP(at_cleanup_free)
    char *url = at_asprintf("%s/.well-known/openid-configuration", o->issuer);
    fetch(o, url);
}

static void ended(struct api_oidc *o, bool ok, const char *why)
{
    at_buf_clear(&o->body);
    o->call = 0;
    if (!ok && !o->told) {
        at_log(AT_LOG_WARN, "oidc.keys", "the keys of %s cannot be had from %s: %s", o->issuer,
               o->where, why);
    }
    o->told = !ok;
    o->timer = at_loop_timer(o->api->options.loop,
                             ok ? AT_API_OIDC_REFRESH_NS : AT_API_OIDC_RETRY_NS, begin, o);
    waiting_go(o);
}

static void keys_take(struct api_oidc *o)
{
    struct at_err err = {0};
    struct at_jwks *keys = NULL;
    if (at_jwks_parse(o->body.data != NULL ? o->body.data : "", o->body.len, &keys, &err) !=
        AT_OK) {
        ended(o, false, err.msg); /* those that are there stay good */
        return;
    }
    at_jwks_free(o->keys);
    o->keys = keys;
    ended(o, true, "");
}

static void discovery_take(struct api_oidc *o)
{
    AT_CLEANUP(at_cleanup_json) json_t *root = NULL;
    const char *url = NULL;
    if (at_json_parse_last(o->body.data != NULL ? o->body.data : "", o->body.len, &root, NULL) ==
        AT_OK) {
        url = at_json_str_at(root, "jwks_uri", NULL);
    }
    if (url == NULL || !at_streq(at_json_str_at(root, "issuer", NULL), o->issuer)) {
        ended(o, false, "it is no discovery document of this issuer");
        return;
    }
    o->discovered = true;
    AT_CLEANUP(at_cleanup_free) char *copy = at_strdup(url);
    at_buf_clear(&o->body);
    fetch(o, copy);
}

static void on_head(void *ctx, const struct at_http_head *head)
{
    ((struct api_oidc *)ctx)->status = head->status;
}

static void on_body(void *ctx, const char *data, size_t len)
{
    struct api_oidc *o = ctx;
    if (at_buf_append(&o->body, data, len) != AT_OK) {
        o->status = -1; /* too much */
    }
}

static void on_done(void *ctx, enum at_rc rc, bool bytes_sent, const struct at_err *err)
{
    (void)bytes_sent;
    struct api_oidc *o = ctx;
    if (rc == AT_CANCELLED) {
        return;
    }
    o->call = 0;
    if (rc != AT_OK || o->status != 200) {
        char text[64];
        snprintf(text, sizeof text, "status %d", o->status);
        ended(o, false, rc != AT_OK ? err->msg : text);
    } else if (o->discovered) {
        keys_take(o);
    } else {
        discovery_take(o);
    }
}

static void fetch(struct api_oidc *o, const char *url)
{
    struct at_url parsed;
    struct at_err err = {0};
    at_free(o->where);
    o->where = at_strdup(url);
    if (at_url_parse(url, &parsed, &err) != AT_OK || !at_streq(parsed.scheme, "https")) {
        ended(o, false, "it is no https URL");
        return;
    }
    o->status = 0;
    o->call =
        at_http_call(o->http, &(struct at_http_call){.addr = parsed.addr,
                                                     .tls = o->tls,
                                                     .server_name = parsed.host,
                                                     .method = AT_HTTP_GET,
                                                     .target = parsed.target,
                                                     .headers = "Accept: application/json\r\n",
                                                     .timeout_ns = AT_API_OIDC_TIMEOUT_NS,
                                                     .ctx = o,
                                                     .on_head = on_head,
                                                     .on_body = on_body,
                                                     .on_done = on_done});
}

enum at_rc api_oidc_new(struct at_api *api, struct at_err *err)
{
    const struct at_api_oidc *from = api->options.oidc;
    if (from == NULL || from->issuer == NULL) {
        return AT_OK;
    }
    struct at_url url;
    if (at_url_parse(from->issuer, &url, err) != AT_OK || !at_streq(url.scheme, "https") ||
        from->audience == NULL || from->audience[0] == '\0') {
        return at_err_set(err, AT_INVALID,
                          "an OpenID issuer must be an https URL, and needs a client id");
    }
    struct api_oidc *o = AT_NEW(struct api_oidc);
    api->oidc = o;
    o->api = api;
    o->issuer = at_strdup(from->issuer);
    o->waiting_tail = &o->waiting;
    at_buf_init(&o->body, AT_API_OIDC_BYTES_MAX);
    const char *claim = from->username_claim != NULL ? from->username_claim : "sub";
    if (at_streq(from->username_prefix, "-")) {
        o->prefix = at_strdup("");
    } else if (from->username_prefix != NULL) {
        o->prefix = at_strdup(from->username_prefix);
    } else { /* as Kubernetes does: subjects of two issuers may be called the same */
        o->prefix = at_streq(claim, "email") ? at_strdup("") : at_asprintf("%s#", from->issuer);
    }
    o->policy = (struct at_jwt_policy){
        .issuer = o->issuer,
        .audience = from->audience,
        .username_claim = claim,
        .username_prefix = o->prefix,
        .groups_claim = from->groups_claim,
        .groups_prefix = from->groups_prefix != NULL ? from->groups_prefix : "",
        .skew_s = AT_API_OIDC_SKEW_S,
    };
    const struct at_tls_options tls = {.ca_pem = from->ca_pem, .verify_peer = true};
    enum at_rc rc = at_tls_config_new(&tls, &o->tls, err);
    if (rc == AT_OK) {
        o->http = at_http_client_new(api->options.loop, &(struct at_http_client_options){0});
        begin(o);
    }
    return rc;
}

void api_oidc_free(struct at_api *api)
{
    struct api_oidc *o = api->oidc;
    if (o == NULL) {
        return;
    }
    api->oidc = NULL;
    at_loop_timer_cancel(api->options.loop, o->timer);
    if (o->http != NULL) {
        at_http_client_free(o->http);
    }
    while (o->waiting != NULL) {
        struct api_req *next = o->waiting->next;
        api_req_free(o->waiting);
        o->waiting = next;
    }
    at_tls_config_unref(o->tls);
    at_jwks_free(o->keys);
    at_buf_done(&o->body);
    at_free(o->issuer);
    at_free(o->prefix);
    at_free(o->where);
    at_free(o);
}

enum at_rc api_oidc_check(const struct at_api *api, struct at_str token, struct at_identity *ret,
                          int64_t *ret_expires_ns, struct at_err *err)
{
    const struct api_oidc *o = api->oidc;
    enum at_rc rc = o == NULL ? AT_INVALID
                              : at_jwt_check(o->keys, &o->policy, token, at_sys_wall_ns(api->sys),
                                             ret, ret_expires_ns, err);
    return rc == AT_INVALID ? at_err_set(err, AT_UNAUTHENTICATED, "the token is not known") : rc;
}

bool api_oidc_wait(struct api_req *req)
{
    struct api_oidc *o = req->api->oidc;
    int64_t since = at_sys_mono_ns(req->api->sys) - o->asked_ns;
    if (req->waited_for_keys || o->n_waiting == AT_API_OIDC_WAITING_MAX ||
        (o->call == 0 && o->keys != NULL && since < AT_API_OIDC_AGAIN_NS)) {
        return false; /* a made-up key must not make this server ask for each */
    }
    if (o->call == 0 && since < AT_API_OIDC_RETRY_NS && o->keys == NULL && since > 0 && o->told) {
        return false;
    }
    req->next = NULL;
    *o->waiting_tail = req;
    o->waiting_tail = &req->next;
    o->n_waiting++;
    begin(o);
    return true;
}
