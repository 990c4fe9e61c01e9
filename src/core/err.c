#include "core/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct rc_row {
    const char *name;
    int http;
    int exit_status;
    bool retry;
};

static const struct rc_row RC_ROWS[AT_RC_COUNT] = {
#define X(code, name, http, exit_status, retry) [code] = {name, http, exit_status, retry},
    AT_RC_TABLE(X)
#undef X
};

static const struct rc_row *row_of(enum at_rc rc)
{
    return &RC_ROWS[(unsigned)rc < AT_RC_COUNT ? rc : AT_INTERNAL];
}

static void err_fill(struct at_err *err, enum at_rc rc, const char *field, const char *fmt,
                     va_list args)
{
    if (err == NULL) {
        return;
    }
    err->rc = rc;
    snprintf(err->field, sizeof err->field, "%s", field);
    vsnprintf(err->msg, sizeof err->msg, fmt, args);
}

enum at_rc at_err_set(struct at_err *err, enum at_rc rc, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    err_fill(err, rc, "", fmt, args);
    va_end(args);
    return rc;
}

enum at_rc at_err_set_field(struct at_err *err, enum at_rc rc, const char *field, const char *fmt,
                            ...)
{
    va_list args;
    va_start(args, fmt);
    err_fill(err, rc, field, fmt, args);
    va_end(args);
    return rc;
}

static enum at_rc rc_of_errno(int errno_value)
{
    switch (errno_value) {
    case ENOENT:
        return AT_NOT_FOUND;
    case EEXIST:
        return AT_EXISTS;
    case EACCES:
    case EPERM:
    case EROFS:
        return AT_FORBIDDEN;
    case ENOMEM:
        return AT_NOMEM;
    case EAGAIN:
        return AT_AGAIN;
    case ETIMEDOUT:
        return AT_TIMEOUT;
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
    case EHOSTUNREACH:
    case ENETUNREACH:
        return AT_UNAVAILABLE;
    default:
        return AT_IO;
    }
}

enum at_rc at_err_set_errno(struct at_err *err, int errno_value, const char *fmt, ...)
{
    enum at_rc rc = rc_of_errno(errno_value);
    va_list args;
    va_start(args, fmt);
    err_fill(err, rc, "", fmt, args);
    va_end(args);
    if (err != NULL) {
        size_t used = strlen(err->msg);
        snprintf(err->msg + used, sizeof err->msg - used, ": %s", strerror(errno_value));
    }
    return rc;
}

enum at_rc at_err_wrap(struct at_err *err, enum at_rc rc, const char *fmt, ...)
{
    if (err == NULL) {
        return rc;
    }
    char inner[AT_ERR_MSG_BYTES_MAX];
    memcpy(inner, err->msg, sizeof inner);
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->msg, sizeof err->msg, fmt, args);
    va_end(args);
    size_t used = strlen(err->msg);
    snprintf(err->msg + used, sizeof err->msg - used, ": %s", inner);
    return err->rc != AT_OK ? err->rc : rc;
}

const char *at_rc_name(enum at_rc rc)
{
    return row_of(rc)->name;
}

int at_rc_http_status(enum at_rc rc)
{
    return row_of(rc)->http;
}

int at_rc_exit_status(enum at_rc rc)
{
    return row_of(rc)->exit_status;
}

bool at_rc_retryable(enum at_rc rc)
{
    return row_of(rc)->retry;
}
