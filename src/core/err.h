/* The one error type of the house. Functions return a closed `enum at_rc`; the detail for people
 * goes into an `at_err` that the caller owns (last parameter, may be NULL). Nothing here allocates.
 */
#ifndef AT_CORE_ERR_H
#define AT_CORE_ERR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AT_WARN_UNUSED __attribute__((warn_unused_result))
#define AT_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* Code, name, HTTP status, exit status, may a client retry the same call later. */
#define AT_RC_TABLE(X)                                                                             \
    X(AT_OK, "Success", 200, 0, false)                                                             \
    X(AT_INVALID, "Invalid", 422, 2, false)                                                        \
    X(AT_BAD_REQUEST, "BadRequest", 400, 2, false)                                                 \
    X(AT_UNAUTHENTICATED, "Unauthorized", 401, 3, false)                                           \
    X(AT_FORBIDDEN, "Forbidden", 403, 3, false)                                                    \
    X(AT_NOT_FOUND, "NotFound", 404, 4, false)                                                     \
    X(AT_EXISTS, "AlreadyExists", 409, 5, false)                                                   \
    X(AT_CONFLICT, "Conflict", 409, 5, true)                                                       \
    X(AT_COMPACTED, "Expired", 410, 5, false)                                                      \
    X(AT_TOO_LARGE, "RequestEntityTooLarge", 413, 2, false)                                        \
    X(AT_UNSUPPORTED, "UnsupportedMediaType", 415, 2, false)                                       \
    X(AT_NOT_ALLOWED, "MethodNotAllowed", 405, 2, false)                                           \
    X(AT_EXHAUSTED, "TooManyRequests", 429, 6, true)                                               \
    X(AT_CANCELLED, "Cancelled", 499, 130, false)                                                  \
    X(AT_INTERNAL, "InternalError", 500, 1, false)                                                 \
    X(AT_UPSTREAM, "BadGateway", 502, 6, true)                                                     \
    X(AT_UNAVAILABLE, "ServiceUnavailable", 503, 6, true)                                          \
    X(AT_TIMEOUT, "Timeout", 504, 7, true)                                                         \
    X(AT_IO, "InternalError", 500, 1, true)                                                        \
    X(AT_NOMEM, "InternalError", 500, 1, true)                                                     \
    X(AT_CORRUPT, "InternalError", 500, 1, false)                                                  \
    X(AT_AGAIN, "WouldBlock", 503, 6, true)                                                        \
    X(AT_EOF, "EndOfStream", 500, 1, false)

enum at_rc {
#define X(code, name, http, exit_status, retry) code,
    AT_RC_TABLE(X)
#undef X
        AT_RC_COUNT
};

#define AT_ERR_FIELD_BYTES_MAX 160
#define AT_ERR_MSG_BYTES_MAX 512

struct at_err {
    enum at_rc rc;
    char field[AT_ERR_FIELD_BYTES_MAX]; /* path such as `spec.replicas`, or empty */
    char msg[AT_ERR_MSG_BYTES_MAX];
};

/* Fill err (may be NULL) and return rc, so that `return at_err_set(err, AT_X, "...")` reads as one
 * step. */
enum at_rc at_err_set(struct at_err *err, enum at_rc rc, const char *fmt, ...) AT_PRINTF(3, 4);
enum at_rc at_err_set_field(struct at_err *err, enum at_rc rc, const char *field, const char *fmt,
                            ...) AT_PRINTF(4, 5);
/* As at_err_set with rc chosen from errno_value, and ": <strerror>" appended. */
enum at_rc at_err_set_errno(struct at_err *err, int errno_value, const char *fmt, ...)
    AT_PRINTF(3, 4);
/* Put "<context>: " before the message already in err; keeps code and field. Returns err's code, or
 * rc if err is NULL. */
enum at_rc at_err_wrap(struct at_err *err, enum at_rc rc, const char *fmt, ...) AT_PRINTF(3, 4);

const char *at_rc_name(enum at_rc rc); /* never NULL; the reason that Kubernetes clients expect */
int at_rc_http_status(enum at_rc rc);
int at_rc_exit_status(enum at_rc rc);
bool at_rc_retryable(enum at_rc rc);

#endif
