/* HTTP/1.1 (RFC 9112) as a machine without I/O: bytes in, events out. Strict: refuses what smuggles
 * (both lengths, bare CR or LF, obs-fold, spaces before the colon, bad chunk sizes, duplicate
 * Content-Length or Host). */
#ifndef AT_NET_HTTP1_H
#define AT_NET_HTTP1_H

#include "core/str.h"

#define AT_HTTP_HEAD_BYTES_MAX 65536
#define AT_HTTP_HEADERS_MAX 100

enum at_http_method {
    AT_HTTP_GET,
    AT_HTTP_HEAD,
    AT_HTTP_POST,
    AT_HTTP_PUT,
    AT_HTTP_PATCH,
    AT_HTTP_DELETE,
    AT_HTTP_OPTIONS,
    AT_HTTP_METHOD_OTHER
};
const char *at_http_method_name(enum at_http_method method);
const char *at_http_status_text(int status);

struct at_http_header {
    struct at_str name;  /* as received; compare with at_str_eq_nocase */
    struct at_str value; /* trimmed */
};

/* A parsed head. All slices borrow the input bytes. */
struct at_http_head {
    bool is_request;
    enum at_http_method method;
    struct at_str method_text;
    struct at_str target; /* origin form, percent-encoded as received */
    struct at_str path;   /* target before '?' */
    struct at_str query;  /* after '?', may be empty */
    int status;           /* responses */
    int minor;            /* HTTP/1.minor */
    bool keep_alive;
    bool chunked;
    bool has_length;
    bool expect_continue;
    bool upgrade; /* Connection: upgrade with an Upgrade header */
    uint64_t content_length;
    struct at_http_header headers[AT_HTTP_HEADERS_MAX];
    size_t n_headers;
    size_t head_bytes; /* bytes of input that the head took */
};

/* Value of the first header of that name (ASCII case ignored); ptr NULL when absent. */
struct at_str at_http_header_get(const struct at_http_head *head, const char *name);

/* Parse one request (response) head from data[0..len).
 * err: AT_AGAIN incomplete; AT_BAD_REQUEST malformed; AT_TOO_LARGE over the limits. cost: one pass,
 * no allocation. */
enum at_rc at_http1_parse_request(const char *data, size_t len, struct at_http_head *ret,
                                  struct at_err *err) AT_WARN_UNUSED;
enum at_rc at_http1_parse_response(const char *data, size_t len, struct at_http_head *ret,
                                   struct at_err *err) AT_WARN_UNUSED;

/* Body reader: by length, by chunks, or until the end of the stream. */
struct at_http1_body {
    int mode;
    int state;
    uint64_t left;
    bool done;
    uint64_t line_bytes;
};
/* request_method matters for responses (HEAD and 204/304 have no body). */
void at_http1_body_begin(struct at_http1_body *body, const struct at_http_head *head,
                         enum at_http_method request_method);
/* Take what belongs to the body from data: *ret_used input bytes were read, *ret_chunk is the part
 * of them that is payload (may be empty). Call again while *ret_used > 0 and !body->done. err:
 * AT_BAD_REQUEST malformed chunking. */
enum at_rc at_http1_body_take(struct at_http1_body *body, const char *data, size_t len,
                              size_t *ret_used, struct at_str *ret_chunk,
                              struct at_err *err) AT_WARN_UNUSED;
/* The stream ended: err AT_UPSTREAM when the body was not complete. */
enum at_rc at_http1_body_eof(struct at_http1_body *body, struct at_err *err) AT_WARN_UNUSED;

/* Query strings and paths. Percent-decoding; '+' is a space in queries only. */
/* Value of key in an application/x-www-form-urlencoded query, decoded into out (NUL-terminated).
 * err: AT_NOT_FOUND absent; AT_TOO_LARGE; AT_BAD_REQUEST bad escape. */
enum at_rc at_query_get(struct at_str query, const char *key, char *out,
                        size_t out_size) AT_WARN_UNUSED;
enum at_rc at_percent_decode(struct at_str in, bool plus_is_space, char *out,
                             size_t out_size) AT_WARN_UNUSED;

#endif
