/* From a challenge to the header that answers it. */
#include "core/digest.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/str.h"
#include "package/registry_priv.h"

#include <stdio.h>
#include <string.h>

static enum at_rc collect(void *ctx, const char *data, size_t len, struct at_err *err)
{
    return at_buf_append(ctx, data, len) == AT_OK
               ? AT_OK
               : at_err_set(err, AT_UPSTREAM, "the token server's answer has no end");
}

/* RFC 3986: everything but what needs none. */
static void escape(struct at_buf *out, const char *text, enum at_rc *rc)
{
    for (const unsigned char *c = (const unsigned char *)text; *c != '\0' && *rc == AT_OK; c++) {
        bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
                     (*c >= '0' && *c <= '9') || strchr("-._~", *c) != NULL;
        *rc = plain ? at_buf_append(out, c, 1) : at_buf_printf(out, "%%%02X", *c);
    }
}

static enum at_rc pair(struct at_buf *out, const char *name, const char *value, enum at_rc rc)
{
    if (rc == AT_OK && value[0] != '\0') {
        rc = at_buf_printf(out, "%s%s=", out->len > 0 ? "&" : "", name);
        escape(out, value, &rc);
    }
    return rc;
}

/* A token is one word: what goes into a header must not end its line. */
static bool token_is(const char *token)
{
    size_t n = 0;
    for (; token[n] != '\0'; n++) {
        if ((unsigned char)token[n] <= 0x20 || (unsigned char)token[n] >= 0x7f) {
            return false;
        }
    }
    return n > 0 && n < 16384;
}

static void scope_of(const struct at_pkg_registry *r, const struct at_pkg_challenge *c, char *out,
                     size_t size)
{
    if (c->scope[0] != '\0') {
        snprintf(out, size, "%s", c->scope);
    } else {
        snprintf(out, size, "repository:%s:%s", r->options.repository,
                 r->options.push ? "pull,push" : "pull");
    }
}

/* GET with Basic, as every registry takes it; POST by OAuth 2.0 with an identity token. */
static enum at_rc ask(struct at_pkg_session *s, const struct at_pkg_challenge *c,
                      struct at_buf *answer, struct at_err *err)
{
    const struct at_pkg_registry *r = s->registry;
    const struct at_pkg_credentials *who = r->credentials;
    AT_CLEANUP(at_cleanup_buf) struct at_buf query = {0};
    AT_CLEANUP(at_cleanup_free) char *basic = NULL;
    AT_CLEANUP(at_cleanup_free) char *url = NULL;
    char scope[1400];
    scope_of(r, c, scope, sizeof scope);
    enum at_rc rc = pair(&query, "service", c->service, AT_OK);
    rc = pair(&query, "scope", scope, rc);
    struct at_pkg_http_request q = {.method = "GET", .ctx = answer, .on_body = collect};
    if (who != NULL && who->identity_token != NULL) {
        rc = pair(&query, "grant_type", "refresh_token", rc);
        rc = pair(&query, "client_id", "atoll", rc);
        rc = pair(&query, "refresh_token", who->identity_token, rc);
        q.method = "POST";
        q.headers[0] = "Content-Type: application/x-www-form-urlencoded";
        q.body = query.data;
        q.body_len = (int64_t)query.len;
        url = at_strdup(c->realm);
    } else {
        if (who != NULL && who->user != NULL) {
            basic = at_pkg_basic_header(who);
            q.headers[0] = basic;
        }
        url = at_asprintf("%s%s%s", c->realm, strchr(c->realm, '?') != NULL ? "&" : "?",
                          query.data != NULL ? query.data : "");
    }
    q.url = url;
    rc = rc != AT_OK ? rc : at_pkg_http_do(s->http, &q, &s->answer, err);
    return rc != AT_OK ? at_err_wrap(err, rc, "token server %.200s", c->realm) : AT_OK;
}

static enum at_rc bearer(struct at_pkg_session *s, const struct at_pkg_challenge *c, char **ret,
                         struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf body = {.max = PKG_TOKEN_BYTES_MAX};
    AT_CLEANUP(at_cleanup_json) json_t *json = NULL;
    bool secure = strncmp(s->registry->base, "https:", 6) == 0;
    if (strncmp(c->realm, "https://", 8) != 0 && (secure || strncmp(c->realm, "http://", 7) != 0)) {
        return at_err_set(err, AT_UPSTREAM,
                          "registry %s sends us to %.200s for a token, which is not by TLS",
                          s->registry->options.host, c->realm);
    }
    enum at_rc rc = ask(s, c, &body, err);
    if (rc != AT_OK) {
        return rc;
    }
    if (s->answer.status == 401 || s->answer.status == 403 || s->answer.status == 400) {
        return at_err_set(err, AT_UNAUTHENTICATED,
                          "registry %s: its token server refuses these credentials (%d)",
                          s->registry->options.host, s->answer.status);
    }
    if (s->answer.status != 200) {
        return at_err_set(err, s->answer.status >= 500 ? AT_UNAVAILABLE : AT_UPSTREAM,
                          "token server %.200s answers %d", c->realm, s->answer.status);
    }
    if (at_json_parse(body.data != NULL ? body.data : "", body.len, &json, NULL) != AT_OK) {
        json = NULL;
    }
    const char *token = json_string_value(json_object_get(json, "token"));
    token = token != NULL ? token : json_string_value(json_object_get(json, "access_token"));
    if (token == NULL || !token_is(token)) {
        return at_err_set(err, AT_UPSTREAM, "token server %.200s gives no usable token", c->realm);
    }
    *ret = at_asprintf("Authorization: Bearer %s", token);
    return AT_OK;
}

enum at_rc at_pkg_authorize(struct at_pkg_session *s, uint64_t generation_used, struct at_err *err)
{
    struct at_pkg_registry *r = s->registry;
    struct at_pkg_challenge c;
    char *header = NULL;
    pthread_mutex_lock(&r->lock);
    if (r->generation != generation_used) { /* another session got one meanwhile */
        pthread_mutex_unlock(&r->lock);
        return AT_OK;
    }
    enum at_rc rc =
        at_pkg_challenge_parse(s->answer.challenges.data != NULL ? s->answer.challenges.data : "",
                               s->answer.challenges.len, &c, err);
    bool known = r->credentials != NULL && r->credentials->user != NULL;
    if (rc != AT_OK) {
        rc = at_err_wrap(err, rc, "registry %s", r->options.host);
    } else if (c.bearer) {
        rc = bearer(s, &c, &header, err);
    } else if (known && r->header == NULL) {
        header = at_pkg_basic_header(r->credentials);
    } else {
        rc = at_pkg_refusal(s, known ? "these credentials" : "without credentials", err);
    }
    if (rc == AT_OK) {
        at_free(r->header);
        r->header = header;
        r->generation++;
    }
    pthread_mutex_unlock(&r->lock);
    return rc;
}
