/* HTTP calls that block, by libcurl, which is opened at run time: whoever fetches nothing does
 * without it. One caller at a time per at_pkg_http; several of them share one at_pkg_curl. */
#ifndef AT_PACKAGE_HTTP_H
#define AT_PACKAGE_HTTP_H

#include "core/buf.h"

#include <stdatomic.h>

struct at_pkg_curl;
struct at_pkg_http;

/* err: AT_UNSUPPORTED no libcurl, with what to install. own: at_pkg_curl_free, last. */
enum at_rc at_pkg_curl_open(struct at_pkg_curl **ret, struct at_err *err) AT_WARN_UNUSED;
void at_pkg_curl_free(struct at_pkg_curl *curl); /* accepts NULL */

struct at_pkg_http_options {
    const char *ca_file;       /* NULL: $SSL_CERT_FILE, else the system's */
    const atomic_bool *cancel; /* NULL: none; set by another thread it ends what runs */
    int64_t stall_ns;          /* without a byte; 0: PKG_STALL_NS */
};
struct at_pkg_http *at_pkg_http_new(struct at_pkg_curl *curl,
                                    const struct at_pkg_http_options *options);
void at_pkg_http_free(struct at_pkg_http *http); /* accepts NULL */

struct at_pkg_http_request {
    const char *method;
    const char *url;
    const char *headers[8]; /* "Name: value", NULL ends them */
    const void *body;       /* NULL with body_fd */
    int body_fd;            /* with body_len bytes at body_offset */
    bool body_is_file;
    int64_t body_offset, body_len;
    /* The answer's bytes, once its head is known to be wanted; may be NULL. An error ends it. */
    void *ctx;
    enum at_rc (*on_head)(void *ctx, int status, struct at_err *err);
    enum at_rc (*on_body)(void *ctx, const char *data, size_t len, struct at_err *err);
    void (*on_sent)(void *ctx, int64_t bytes); /* of body, so far */
};

struct at_pkg_http_answer {
    int status;
    int64_t length;           /* Content-Length; -1: not told */
    int64_t retry_after_s;    /* -1: not told */
    int64_t range_from;       /* of Content-Range; -1: none */
    int64_t range_total;      /* -1: not told */
    char content_type[160];   /* without parameters */
    char digest[72];          /* Docker-Content-Digest */
    char range[64];           /* Range, of an upload */
    struct at_buf location;   /* empty: none */
    struct at_buf challenges; /* WWW-Authenticate values, a line each */
};
void at_pkg_http_answer_done(struct at_pkg_http_answer *answer);

/* One request, no redirect followed. AT_OK: an answer came, whatever its status.
 * err: AT_UNAVAILABLE no connection, or it broke; AT_TIMEOUT; AT_UNAUTHENTICATED the server's
 * certificate; AT_UPSTREAM no HTTP; AT_CANCELLED; those of on_body. */
enum at_rc at_pkg_http_do(struct at_pkg_http *http, const struct at_pkg_http_request *request,
                          struct at_pkg_http_answer *answer, struct at_err *err) AT_WARN_UNUSED;

#endif
