#include "package/http.h"

#include "core/mem.h"
#include "core/str.h"
#include "package/limits.h"
#include "sys/entry.h"
#include "sys/sys.h"

#include <curl/curl.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* The setters are called through typed pointers, so that a long is a long. */
struct at_pkg_curl {
    void *library;
    CURL *(*easy_init)(void);
    CURLcode (*easy_setopt)(CURL *handle, CURLoption option, ...);
    CURLcode (*easy_perform)(CURL *handle);
    CURLcode (*easy_getinfo)(CURL *handle, CURLINFO info, ...);
    void (*easy_reset)(CURL *handle);
    void (*easy_cleanup)(CURL *handle);
    const char *(*easy_strerror)(CURLcode code);
    struct curl_slist *(*slist_append)(struct curl_slist *list, const char *text);
    void (*slist_free_all)(struct curl_slist *list);
    CURLcode (*global_init)(long flags);
    void (*global_cleanup)(void);
};

struct at_pkg_http {
    struct at_pkg_curl *curl;
    CURL *handle;
    char *ca_file;
    const atomic_bool *cancel;
    int64_t stall_ns;
    char why[CURL_ERROR_SIZE];
};

/* One request under way. */
struct flight {
    const struct at_pkg_http_request *request;
    struct at_pkg_http_answer *answer;
    struct at_pkg_http *http;
    int64_t sent;
    size_t head_bytes;
    bool head_told;
    enum at_rc rc;
    struct at_err err;
};

static bool resolve(struct at_pkg_curl *c)
{
    struct {
        const char *name;
        void *place;
    } names[] = {
        {"curl_easy_init", &c->easy_init},           {"curl_easy_setopt", &c->easy_setopt},
        {"curl_easy_perform", &c->easy_perform},     {"curl_easy_getinfo", &c->easy_getinfo},
        {"curl_easy_reset", &c->easy_reset},         {"curl_easy_cleanup", &c->easy_cleanup},
        {"curl_easy_strerror", &c->easy_strerror},   {"curl_slist_append", &c->slist_append},
        {"curl_slist_free_all", &c->slist_free_all}, {"curl_global_init", &c->global_init},
        {"curl_global_cleanup", &c->global_cleanup},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(names); i++) {
        void *symbol = dlsym(c->library, names[i].name);
        if (symbol == NULL) {
            return false;
        }
        memcpy(names[i].place, &symbol, sizeof symbol);
    }
    return true;
}

enum at_rc at_pkg_curl_open(struct at_pkg_curl **ret, struct at_err *err)
{
    static const char *const NAMES[] = {"libcurl.so.4", "libcurl-gnutls.so.4"};
    struct at_pkg_curl *c = AT_NEW(struct at_pkg_curl);
    for (size_t i = 0; i < AT_ARRAY_LEN(NAMES) && c->library == NULL; i++) {
        c->library = dlopen(NAMES[i], RTLD_NOW | RTLD_LOCAL);
    }
    if (c->library == NULL || !resolve(c) || c->global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        at_free(c);
        return at_err_set(err, AT_UNSUPPORTED,
                          "registries are reached through libcurl, which is not here: install "
                          "libcurl4");
    }
    *ret = c;
    return AT_OK;
}

void at_pkg_curl_free(struct at_pkg_curl *curl)
{
    if (curl != NULL) {
        curl->global_cleanup(); /* the library stays mapped */
        at_free(curl);
    }
}

struct at_pkg_http *at_pkg_http_new(struct at_pkg_curl *curl,
                                    const struct at_pkg_http_options *options)
{
    struct at_pkg_http *h = AT_NEW(struct at_pkg_http);
    const char *ca = options->ca_file != NULL ? options->ca_file : at_sys_getenv("SSL_CERT_FILE");
    h->curl = curl;
    h->handle = curl->easy_init();
    h->ca_file = at_strdup(ca);
    h->cancel = options->cancel;
    h->stall_ns = options->stall_ns > 0 ? options->stall_ns : PKG_STALL_NS;
    return h;
}

void at_pkg_http_free(struct at_pkg_http *http)
{
    if (http != NULL) {
        http->curl->easy_cleanup(http->handle);
        at_free(http->ca_file);
        at_free(http);
    }
}

void at_pkg_http_answer_done(struct at_pkg_http_answer *answer)
{
    at_buf_done(&answer->location);
    at_buf_done(&answer->challenges);
    *answer = (struct at_pkg_http_answer){0};
}

static void answer_clear(struct at_pkg_http_answer *a)
{
    at_buf_clear(&a->location);
    at_buf_clear(&a->challenges);
    a->status = 0;
    a->length = a->retry_after_s = a->range_from = a->range_total = -1;
    a->content_type[0] = a->digest[0] = a->range[0] = '\0';
}

/* --- the answer's head --- */

static void text_copy(char *out, size_t size, struct at_str value)
{
    size_t n = value.len < size - 1 ? value.len : size - 1;
    memcpy(out, value.ptr, n);
    out[n] = '\0';
}

/* "bytes 5-9/10" */
static void content_range(struct at_pkg_http_answer *a, struct at_str value)
{
    if (!at_str_starts(value, "bytes ")) {
        return;
    }
    struct at_str rest = {value.ptr + 6, value.len - 6};
    struct at_str from = at_str_cut(&rest, '-');
    (void)at_str_cut(&rest, '/');
    if (at_str_to_i64(from, &a->range_from) != AT_OK) {
        a->range_from = -1;
    }
    if (at_str_to_i64(rest, &a->range_total) != AT_OK) {
        a->range_total = -1;
    }
}

static enum at_rc header(struct at_pkg_http_answer *a, struct at_str name, struct at_str value)
{
    enum at_rc rc = AT_OK;
    if (at_str_eq_nocase(name, "location")) {
        at_buf_clear(&a->location);
        rc = at_buf_append(&a->location, value.ptr, value.len);
    } else if (at_str_eq_nocase(name, "www-authenticate")) {
        rc = value.len > PKG_CHALLENGE_BYTES_MAX
                 ? AT_TOO_LARGE
                 : at_buf_append(&a->challenges, value.ptr, value.len);
        rc = rc != AT_OK ? rc : at_buf_append(&a->challenges, "\n", 1);
    } else if (at_str_eq_nocase(name, "content-length")) {
        rc = at_str_to_i64(value, &a->length) == AT_OK && a->length >= 0 ? AT_OK : AT_UPSTREAM;
    } else if (at_str_eq_nocase(name, "content-range")) {
        content_range(a, value);
    } else if (at_str_eq_nocase(name, "retry-after")) {
        if (at_str_to_i64(value, &a->retry_after_s) != AT_OK) {
            a->retry_after_s = -1; /* a date: the usual wait */
        }
    } else if (at_str_eq_nocase(name, "content-type")) {
        text_copy(a->content_type, sizeof a->content_type, at_str_trim(at_str_cut(&value, ';')));
    } else if (at_str_eq_nocase(name, "docker-content-digest")) {
        text_copy(a->digest, sizeof a->digest, value);
    } else if (at_str_eq_nocase(name, "range")) {
        text_copy(a->range, sizeof a->range, value);
    }
    return rc;
}

static size_t on_header(char *data, size_t size, size_t n, void *ctx)
{
    struct flight *f = ctx;
    struct at_str line = {data, size * n};
    size_t all = line.len;
    while (line.len > 0 && (line.ptr[line.len - 1] == '\n' || line.ptr[line.len - 1] == '\r')) {
        line.len--;
    }
    f->head_bytes += all;
    if (f->head_bytes > PKG_HEADER_BYTES_MAX) {
        f->rc = at_err_set(&f->err, AT_UPSTREAM, "the answer's head is too large");
        return 0;
    }
    if (at_str_starts(line, "HTTP/")) {
        answer_clear(f->answer); /* after an interim answer */
        return all;
    }
    struct at_str value = line;
    struct at_str name = at_str_cut(&value, ':');
    if (name.len < line.len && header(f->answer, name, at_str_trim(value)) != AT_OK) {
        f->rc = at_err_set(&f->err, AT_UPSTREAM, "the answer's %.*s makes no sense",
                           name.len < 40 ? (int)name.len : 40, name.ptr);
        return 0;
    }
    return all;
}

static enum at_rc tell_head(struct flight *f)
{
    long status = 0;
    if (f->head_told) {
        return AT_OK;
    }
    f->head_told = true;
    f->http->curl->easy_getinfo(f->http->handle, CURLINFO_RESPONSE_CODE, &status);
    f->answer->status = (int)status;
    return f->request->on_head != NULL ? f->request->on_head(f->request->ctx, (int)status, &f->err)
                                       : AT_OK;
}

static size_t on_body(char *data, size_t size, size_t n, void *ctx)
{
    struct flight *f = ctx;
    f->rc = tell_head(f);
    if (f->rc == AT_OK && f->request->on_body != NULL) {
        f->rc = f->request->on_body(f->request->ctx, data, size * n, &f->err);
    }
    return f->rc == AT_OK ? size * n : 0;
}

/* --- the request's body --- */

static size_t on_read(char *out, size_t size, size_t n, void *ctx)
{
    struct flight *f = ctx;
    const struct at_pkg_http_request *q = f->request;
    int64_t left = q->body_len - f->sent;
    size_t want = (int64_t)(size * n) < left ? size * n : (size_t)left;
    size_t got = want;
    if (q->body_is_file) {
        f->rc = at_entry_read_at(q->body_fd, q->body_offset + f->sent, out, want, &got, &f->err);
        if (f->rc == AT_OK && got == 0 && want > 0) {
            f->rc = at_err_set(&f->err, AT_CORRUPT, "a file became shorter while it was sent");
        }
        if (f->rc != AT_OK) {
            return CURL_READFUNC_ABORT;
        }
    } else if (want > 0) {
        memcpy(out, (const char *)q->body + f->sent, want);
    }
    f->sent += (int64_t)got;
    if (q->on_sent != NULL) {
        q->on_sent(q->ctx, f->sent);
    }
    return got;
}

static int on_seek(void *ctx, curl_off_t offset, int origin)
{
    struct flight *f = ctx;
    if (origin != SEEK_SET || offset < 0 || offset > f->request->body_len) {
        return CURL_SEEKFUNC_CANTSEEK;
    }
    f->sent = offset;
    return CURL_SEEKFUNC_OK;
}

static int on_progress(void *ctx, curl_off_t dl_total, curl_off_t dl, curl_off_t ul_total,
                       curl_off_t ul)
{
    (void)dl_total;
    (void)dl;
    (void)ul_total;
    (void)ul;
    struct flight *f = ctx;
    return f->http->cancel != NULL && atomic_load(f->http->cancel) ? 1 : 0;
}

/* --- the whole --- */

static void set_long(struct at_pkg_http *h, CURLoption option, long value)
{
    (void)h->curl->easy_setopt(h->handle, option, value);
}

static void set_text(struct at_pkg_http *h, CURLoption option, const char *value)
{
    (void)h->curl->easy_setopt(h->handle, option, value);
}

static void set_pointer(struct at_pkg_http *h, CURLoption option, void *value)
{
    (void)h->curl->easy_setopt(h->handle, option, value);
}

static void set_callbacks(struct at_pkg_http *h, struct flight *f)
{
    (void)h->curl->easy_setopt(h->handle, CURLOPT_HEADERFUNCTION, on_header);
    (void)h->curl->easy_setopt(h->handle, CURLOPT_WRITEFUNCTION, on_body);
    (void)h->curl->easy_setopt(h->handle, CURLOPT_READFUNCTION, on_read);
    (void)h->curl->easy_setopt(h->handle, CURLOPT_SEEKFUNCTION, on_seek);
    (void)h->curl->easy_setopt(h->handle, CURLOPT_XFERINFOFUNCTION, on_progress);
    set_pointer(h, CURLOPT_HEADERDATA, f);
    set_pointer(h, CURLOPT_WRITEDATA, f);
    set_pointer(h, CURLOPT_READDATA, f);
    set_pointer(h, CURLOPT_SEEKDATA, f);
    set_pointer(h, CURLOPT_XFERINFODATA, f);
}

static void prepare(struct at_pkg_http *h, struct flight *f, struct curl_slist *headers)
{
    const struct at_pkg_http_request *q = f->request;
    long stall_s = (long)(h->stall_ns / AT_NS_PER_S);
    int64_t connect_ns = h->stall_ns < PKG_CONNECT_NS ? h->stall_ns : PKG_CONNECT_NS;
    h->curl->easy_reset(h->handle); /* keeps connections */
    set_callbacks(h, f);
    set_text(h, CURLOPT_URL, q->url);
    set_text(h, CURLOPT_PROTOCOLS_STR, "http,https");
    set_text(h, CURLOPT_USERAGENT, "atoll/" AT_VERSION);
    set_long(h, CURLOPT_NOSIGNAL, 1);
    set_long(h, CURLOPT_NOPROGRESS, 0);
    set_long(h, CURLOPT_FOLLOWLOCATION, 0);
    set_long(h, CURLOPT_CONNECTTIMEOUT_MS, (long)(connect_ns / AT_NS_PER_MS));
    set_long(h, CURLOPT_LOW_SPEED_LIMIT, 1);
    set_long(h, CURLOPT_LOW_SPEED_TIME, stall_s > 0 ? stall_s : 1);
    set_long(h, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2);
    set_long(h, CURLOPT_BUFFERSIZE, PKG_COPY_BYTES);
    set_long(h, CURLOPT_UPLOAD_BUFFERSIZE, PKG_COPY_BYTES);
    set_pointer(h, CURLOPT_ERRORBUFFER, h->why);
    set_pointer(h, CURLOPT_HTTPHEADER, headers);
    if (h->ca_file != NULL) {
        set_text(h, CURLOPT_CAINFO, h->ca_file);
    }
    if (q->body_len > 0 || q->body_is_file || strcmp(q->method, "PUT") == 0 ||
        strcmp(q->method, "PATCH") == 0) {
        set_long(h, CURLOPT_UPLOAD, 1);
        (void)h->curl->easy_setopt(h->handle, CURLOPT_INFILESIZE_LARGE, (curl_off_t)q->body_len);
    } else if (strcmp(q->method, "POST") == 0) {
        set_long(h, CURLOPT_POST, 1);
        (void)h->curl->easy_setopt(h->handle, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)0);
    } else if (strcmp(q->method, "HEAD") == 0) {
        set_long(h, CURLOPT_NOBODY, 1);
    }
    set_text(h, CURLOPT_CUSTOMREQUEST, q->method);
    h->why[0] = '\0';
}

static enum at_rc outcome(struct flight *f, CURLcode code, struct at_err *err)
{
    struct at_pkg_http *h = f->http;
    const char *why = h->why[0] != '\0' ? h->why : h->curl->easy_strerror(code);
    if (f->rc != AT_OK) {
        if (err != NULL) {
            *err = f->err;
        }
        return f->rc;
    }
    switch (code) {
    case CURLE_OK:
        return AT_OK;
    case CURLE_ABORTED_BY_CALLBACK:
        return at_err_set(err, AT_CANCELLED, "stopped");
    case CURLE_OPERATION_TIMEDOUT:
        return at_err_set(err, AT_TIMEOUT, "not a byte came for %lld s",
                          (long long)(h->stall_ns / AT_NS_PER_S));
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
        return at_err_set(err, AT_UNAUTHENTICATED, "its certificate is not trusted: %s", why);
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_WEIRD_SERVER_REPLY:
        return at_err_set(err, AT_UPSTREAM, "%s", why);
    default:
        return at_err_set(err, AT_UNAVAILABLE, "%s", why);
    }
}

enum at_rc at_pkg_http_do(struct at_pkg_http *h, const struct at_pkg_http_request *request,
                          struct at_pkg_http_answer *answer, struct at_err *err)
{
    struct flight f = {.request = request, .answer = answer, .http = h};
    struct curl_slist *headers = h->curl->slist_append(NULL, "Expect:");
    for (size_t i = 0; i < AT_ARRAY_LEN(request->headers) && request->headers[i] != NULL; i++) {
        headers = h->curl->slist_append(headers, request->headers[i]);
    }
    answer_clear(answer);
    prepare(h, &f, headers);
    CURLcode code = h->curl->easy_perform(h->handle);
    if (code == CURLE_OK && f.rc == AT_OK) {
        f.rc = tell_head(&f); /* an answer without a body */
    }
    h->curl->slist_free_all(headers);
    return outcome(&f, code, err);
}
