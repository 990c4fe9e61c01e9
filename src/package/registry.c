#include "package/registry.h"

#include "core/json.h"
#include "core/mem.h"
#include "core/str.h"
#include "package/registry_priv.h"
#include "sys/entry.h"
#include "sys/sys.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* scheme://host:port of a URL, with its length; 0: it is none of http or https. */
static size_t origin_len(const char *url)
{
    size_t scheme = strncmp(url, "https://", 8) == 0 ? 8 : strncmp(url, "http://", 7) == 0 ? 7 : 0;
    return scheme == 0 ? 0 : scheme + strcspn(url + scheme, "/?#");
}

static bool same_origin(const char *a, const char *b)
{
    size_t n = origin_len(a);
    return n > 0 && n == origin_len(b) && strncasecmp(a, b, n) == 0;
}

/* A reference within what was asked (RFC 3986 §5.2, what registries send of it). NULL: no such. */
static char *absolute(const char *base, const char *reference)
{
    size_t origin = origin_len(base);
    if (strpbrk(reference, " \t\r\n") != NULL || reference[0] == '\0') {
        return NULL;
    }
    if (strncmp(reference, "//", 2) == 0) {
        return at_asprintf("%.*s%s", base[4] == 's' ? 6 : 5, base, reference);
    }
    if (reference[0] == '/') {
        return at_asprintf("%.*s%s", (int)origin, base, reference);
    }
    if (origin_len(reference) > 0) {
        return at_strdup(reference);
    }
    if (strchr(reference, ':') != NULL && strcspn(reference, ":") < strcspn(reference, "/?#")) {
        return NULL; /* another scheme */
    }
    size_t path = strcspn(base, "?#");
    while (path > origin && base[path - 1] != '/') {
        path--;
    }
    return at_asprintf("%.*s%s%s", (int)path, base, path == origin ? "/" : "", reference);
}

char *at_pkg_location(struct at_pkg_session *s, const char *asked_url)
{
    return s->answer.location.len == 0 ? NULL : absolute(asked_url, s->answer.location.data);
}

/* --- one request --- */

/* The caller's callbacks see only what succeeded. */
struct filter {
    const struct at_pkg_http_request *inner;
    struct at_pkg_session *session;
    int status;
};

static enum at_rc filter_head(void *ctx, int status, struct at_err *err)
{
    struct filter *f = ctx;
    f->status = status;
    at_buf_clear(&f->session->error_body);
    return status < 300 && f->inner->on_head != NULL ? f->inner->on_head(f->inner->ctx, status, err)
                                                     : AT_OK;
}

static enum at_rc filter_body(void *ctx, const char *data, size_t len, struct at_err *err)
{
    struct filter *f = ctx;
    if (f->status < 300) {
        return f->inner->on_body != NULL ? f->inner->on_body(f->inner->ctx, data, len, err) : AT_OK;
    }
    if (at_buf_append(&f->session->error_body, data, len) != AT_OK) {
        return at_err_set(err, AT_UPSTREAM, "it answers %d with a body without end", f->status);
    }
    return AT_OK;
}

static void filter_sent(void *ctx, int64_t bytes)
{
    struct filter *f = ctx;
    if (f->inner->on_sent != NULL) {
        f->inner->on_sent(f->inner->ctx, bytes);
    }
}

/* Once, to url; the header is sent only to whom it belongs. */
static enum at_rc once(struct at_pkg_session *s, const struct at_pkg_http_request *request,
                       const char *url, uint64_t *ret_generation, struct at_err *err)
{
    struct at_pkg_registry *r = s->registry;
    struct filter f = {.inner = request, .session = s};
    struct at_pkg_http_request q = *request;
    AT_CLEANUP(at_cleanup_free) char *header = NULL;
    size_t n = 0;
    pthread_mutex_lock(&r->lock);
    header = at_strdup(r->header);
    *ret_generation = r->generation;
    pthread_mutex_unlock(&r->lock);
    while (q.headers[n] != NULL) {
        n++;
    }
    assert(n + 2 < AT_ARRAY_LEN(q.headers));
    if (header != NULL && same_origin(url, r->base)) {
        q.headers[n++] = header;
    }
    q.headers[n] = NULL;
    q.url = url;
    q.ctx = &f;
    q.on_head = filter_head;
    q.on_body = filter_body;
    q.on_sent = filter_sent;
    enum at_rc rc = at_pkg_http_do(s->http, &q, &s->answer, err);
    return rc == AT_OK ? AT_OK : at_err_wrap(err, rc, "registry %s", r->options.host);
}

static bool is_redirect(int status)
{
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

enum at_rc at_pkg_call(struct at_pkg_session *s, const struct at_pkg_http_request *request,
                       struct at_err *err)
{
    struct at_pkg_registry *r = s->registry;
    bool reads = strcmp(request->method, "GET") == 0 || strcmp(request->method, "HEAD") == 0;
    bool authorized = false;
    AT_CLEANUP(at_cleanup_free)
    char *url = request->url[0] == '/' ? at_asprintf("%s%s", r->base, request->url)
                                       : at_strdup(request->url);
    for (int hops = 0;;) {
        uint64_t generation = 0;
        enum at_rc rc = once(s, request, url, &generation, err);
        if (rc != AT_OK) {
            return rc;
        }
        if (s->answer.status == 401 && !authorized && same_origin(url, r->base)) {
            authorized = true;
            rc = at_pkg_authorize(s, generation, err);
            if (rc != AT_OK) {
                return rc;
            }
            continue;
        }
        if (!reads || !is_redirect(s->answer.status)) {
            return AT_OK;
        }
        char *next = at_pkg_location(s, url);
        bool down =
            next != NULL && strncmp(url, "https:", 6) == 0 && strncmp(next, "http:", 5) == 0;
        if (next == NULL || down || ++hops > PKG_REDIRECTS_MAX) {
            at_free(next);
            return at_err_set(err, AT_UPSTREAM, "registry %s sends us %s", r->options.host,
                              down           ? "from TLS to plain HTTP"
                              : next == NULL ? "to no address"
                                             : "from place to place without end");
        }
        at_free(url);
        url = next;
    }
}

/* {"errors":[{"code","message"}]} */
enum at_rc at_pkg_refusal(struct at_pkg_session *s, const char *what, struct at_err *err)
{
    struct at_pkg_registry *r = s->registry;
    AT_CLEANUP(at_cleanup_json) json_t *json = NULL;
    int status = s->answer.status;
    if (s->error_body.len == 0 ||
        at_json_parse(s->error_body.data, s->error_body.len, &json, NULL) != AT_OK) {
        json = NULL;
    }
    const json_t *first = json_array_get(json_object_get(json, "errors"), 0);
    const char *code = json_string_value(json_object_get(first, "code"));
    const char *message = json_string_value(json_object_get(first, "message"));
    enum at_rc rc = status == 404 || status == 410 ? AT_NOT_FOUND
                    : status == 401                ? AT_UNAUTHENTICATED
                    : status == 403                ? AT_FORBIDDEN
                    : status == 429                ? AT_EXHAUSTED
                    : status == 416                ? AT_CORRUPT
                    : status >= 500                ? AT_UNAVAILABLE
                                                   : AT_UPSTREAM;
    const char *hint = "";
    AT_CLEANUP(at_cleanup_free) char *made = NULL;
    bool anonymous = r->credentials == NULL ||
                     (r->credentials->user == NULL && r->credentials->identity_token == NULL);
    if ((status == 401 || status == 403) && anonymous) {
        if (r->credentials != NULL && r->credentials->helper != NULL) {
            made = at_asprintf("; its credentials may be in docker-credential-%s, which is not "
                               "asked: give --username and --password-stdin",
                               r->credentials->helper);
            hint = made;
        } else {
            hint = "; no credentials are known for it: --username and --password-stdin, a docker "
                   "config.json, or model.pullSecret of a Deployment give them";
        }
    }
    return at_err_set(err, rc, "registry %s, %s: %d%s%.60s%s%.160s%s", r->options.host, what,
                      status, code != NULL ? " " : "", code != NULL ? code : "",
                      message != NULL ? ": " : "", message != NULL ? message : "", hint);
}

bool at_pkg_again(struct at_pkg_session *s, enum at_rc rc, unsigned *tries)
{
    const atomic_bool *cancel = s->registry->options.http.cancel;
    bool worth = rc == AT_UNAVAILABLE || rc == AT_TIMEOUT || rc == AT_EXHAUSTED;
    *tries += rc == AT_TIMEOUT ? 2 : 1; /* that took long already */
    if (!worth || *tries >= PKG_TRIES) {
        return false;
    }
    unsigned char noise = 0;
    int64_t wait = PKG_RETRY_MIN_NS << (2 * (*tries - 1)); /* tries is 1 to PKG_TRIES - 1 */
    wait = wait > PKG_RETRY_MAX_NS ? PKG_RETRY_MAX_NS : wait;
    at_sys_random(at_sys_real(), &noise, sizeof noise);
    wait = wait / 2 + wait / 2 * noise / 255;
    int64_t asked = s->answer.retry_after_s;
    if (asked > 0 && (s->answer.status == 429 || s->answer.status == 503)) {
        wait = (asked < PKG_RETRY_AFTER_MAX_S ? asked : PKG_RETRY_AFTER_MAX_S) * AT_NS_PER_S;
    }
    for (int64_t slept = 0; slept < wait; slept += 20 * AT_NS_PER_MS) {
        if (cancel != NULL && atomic_load(cancel)) {
            return false;
        }
        at_sleep_ns(20 * AT_NS_PER_MS);
    }
    return true;
}

/* --- life --- */

struct at_pkg_session *at_pkg_session_new(struct at_pkg_registry *registry)
{
    struct at_pkg_session *s = AT_NEW(struct at_pkg_session);
    s->registry = registry;
    s->http = at_pkg_http_new(registry->curl, &registry->options.http);
    at_buf_init(&s->error_body, PKG_ERROR_BYTES_MAX);
    return s;
}

void at_pkg_session_free(struct at_pkg_session *session)
{
    if (session != NULL) {
        at_pkg_http_free(session->http);
        at_pkg_http_answer_done(&session->answer);
        at_buf_done(&session->error_body);
        at_free(session);
    }
}

static bool is_loopback(const char *host)
{
    return strncmp(host, "localhost", 9) == 0 || strncmp(host, "127.", 4) == 0 ||
           strncmp(host, "[::1]", 5) == 0;
}

/* Is it a registry, and does it know us? */
static enum at_rc ping(struct at_pkg_registry *r, struct at_err *err)
{
    struct at_pkg_session *s = at_pkg_session_new(r);
    struct at_pkg_http_request q = {.method = "GET", .url = "/v2/"};
    unsigned tries = 0;
    enum at_rc rc;
    bool may_be_plain = is_loopback(r->options.host) && !r->options.plain_http;
    do {
        rc = at_pkg_call(s, &q, err);
        if ((rc == AT_UNAVAILABLE || rc == AT_TIMEOUT) && may_be_plain) {
            at_free(r->base);
            r->base = at_asprintf("http://%s", r->options.host);
            may_be_plain = false;
            rc = at_pkg_call(s, &q, err);
        }
        if (rc == AT_OK && s->answer.status != 200 && s->answer.status != 403) {
            rc = at_pkg_refusal(s, "is it one?", err);
            rc = rc == AT_NOT_FOUND
                     ? at_err_set(err, AT_UPSTREAM, "%s is no registry: it knows nothing of /v2/",
                                  r->options.host)
                     : rc;
        }
    } while (rc != AT_OK && at_pkg_again(s, rc, &tries));
    at_pkg_session_free(s);
    return rc;
}

enum at_rc at_pkg_registry_open(struct at_pkg_curl *curl,
                                const struct at_pkg_registry_options *options,
                                struct at_pkg_registry **ret, struct at_err *err)
{
    struct at_pkg_registry *r = AT_NEW(struct at_pkg_registry);
    bool hub = strcmp(options->host, "docker.io") == 0;
    r->curl = curl;
    r->options = *options;
    r->options.host = at_strdup(hub ? "registry-1.docker.io" : options->host);
    r->options.repository = hub && strchr(options->repository, '/') == NULL
                                ? at_asprintf("library/%s", options->repository)
                                : at_strdup(options->repository);
    r->credentials = options->credentials;
    if (options->chunk_bytes <= 0) {
        r->options.chunk_bytes = PKG_CHUNK_BYTES;
    }
    r->base = at_asprintf("%s://%s", options->plain_http ? "http" : "https", r->options.host);
    pthread_mutex_init(&r->lock, NULL);
    enum at_rc rc = ping(r, err);
    if (rc != AT_OK) {
        at_pkg_registry_free(r);
        return rc;
    }
    *ret = r;
    return AT_OK;
}

void at_pkg_registry_free(struct at_pkg_registry *r)
{
    if (r == NULL) {
        return;
    }
    pthread_mutex_destroy(&r->lock);
    at_free((char *)r->options.host);
    at_free((char *)r->options.repository);
    at_free(r->base);
    at_free(r->header);
    at_free(r);
}
