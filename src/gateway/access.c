#include "gateway/access.h"

#include "core/log.h"
#include "core/mem.h"
#include "core/str.h"
#include "gateway/limits.h"
#include "sys/file.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct gw_access {
    struct at_loop *loop;
    struct at_pool *pool;
    char *path;
    uint64_t rates[6], rate_max;
    struct at_metric *written, *dropped, *failed;
    struct at_buf lines, writing;
    size_t n_lines, n_writing;
    bool is_writing; /* the other thread has `writing`, until done */
    atomic_bool done;
    bool told; /* that it cannot be written */
    enum at_rc rc;
    struct at_err err;
    at_timer_id timer;
};

/* "0.25" as a share of 2^32. */
static enum at_rc share(const char *text, size_t len, uint64_t *ret)
{
    char copy[32], *end;
    if (len == 0 || len >= sizeof copy) {
        return AT_INVALID;
    }
    memcpy(copy, text, len);
    copy[len] = '\0';
    double value = strtod(copy, &end);
    if (*end != '\0' || !(value >= 0 && value <= 1) || strspn(copy, "0123456789.") != len) {
        return AT_INVALID;
    }
    *ret = (uint64_t)(value * 4294967296.0);
    return AT_OK;
}

enum at_rc gw_access_rates(const char *text, uint64_t ret_rates[6], struct at_err *err)
{
    struct at_str rest = at_str_of(text);
    uint64_t all;
    for (size_t i = 0; i < 6; i++) {
        ret_rates[i] = (uint64_t)1 << 32;
    }
    if (share(rest.ptr, rest.len, &all) == AT_OK) {
        for (size_t i = 0; i < 6; i++) {
            ret_rates[i] = all;
        }
        return AT_OK;
    }
    while (rest.len > 0) {
        struct at_str one = at_str_trim(at_str_cut(&rest, ','));
        if (one.len < 5 || one.ptr[0] < '1' || one.ptr[0] > '5' ||
            memcmp(one.ptr + 1, "xx=", 3) != 0 ||
            share(one.ptr + 4, one.len - 4, &ret_rates[one.ptr[0] - '0']) != AT_OK) {
            return at_err_set(err, AT_INVALID,
                              "%.*s: a share of 0 to 1, or shares by status such as "
                              "2xx=0.01,5xx=1",
                              (int)one.len, one.ptr);
        }
    }
    return AT_OK;
}

struct gw_access *gw_access_new(struct at_loop *loop, struct at_pool *pool,
                                struct at_metrics *metrics, const char *path,
                                const uint64_t rates[6])
{
    static const char *const RESULT[] = {"result", NULL};
    static const char *const WRITTEN[] = {"written", NULL}, *const DROPPED[] = {"dropped", NULL},
                             *const FAILED[] = {"failed", NULL};
    struct gw_access *a = AT_NEW(struct gw_access);
    a->loop = loop;
    a->pool = pool;
    a->path = at_strdup(strcmp(path, "-") == 0 ? "/dev/stdout" : path);
    memcpy(a->rates, rates, sizeof a->rates);
    for (size_t i = 0; i < 6; i++) {
        a->rate_max = rates[i] > a->rate_max ? rates[i] : a->rate_max;
    }
    struct at_metric_family *lines = at_metrics_family(
        metrics, AT_METRIC_COUNTER, "atoll_gateway_access_log_lines_total",
        "Lines of the access log: written, dropped (too many waited), failed (the file cannot be "
        "written).",
        RESULT);
    a->written = at_metric_with(lines, WRITTEN);
    a->dropped = at_metric_with(lines, DROPPED);
    a->failed = at_metric_with(lines, FAILED);
    return a;
}

bool gw_access_wants(const struct gw_access *access, uint32_t random, int status)
{
    if (access == NULL) {
        return false;
    }
    size_t class = status >= 0 && status < 600 ? (size_t)status / 100 : 0;
    return random < (status < 0 ? access->rate_max : access->rates[class]);
}

/* On the other thread. */
static void write_lines(void *ctx)
{
    struct gw_access *a = ctx;
    a->rc = at_file_append(a->path, a->writing.data, a->writing.len, 0640, &a->err);
    atomic_store(&a->done, true);
}

static void written(struct gw_access *a)
{
    at_metric_add(a->rc == AT_OK ? a->written : a->failed, (int64_t)a->n_writing);
    if (a->rc != AT_OK && !a->told) {
        at_log(AT_LOG_ERROR, "access.log.failed", "%s; requests go on without their lines",
               a->err.msg);
    }
    a->told = a->rc != AT_OK;
    at_buf_clear(&a->writing);
    a->is_writing = false;
}

static void on_timer(void *ctx)
{
    struct gw_access *a = ctx;
    a->timer = 0;
    gw_access_flush(a);
    if (a->is_writing || a->lines.len > 0) { /* something is not written yet */
        a->timer = at_loop_timer(a->loop, AT_GW_ACCESS_NS, on_timer, a);
    }
}

static void swap(struct gw_access *a)
{
    struct at_buf empty = a->writing;
    a->writing = a->lines;
    a->lines = empty;
    a->n_writing = a->n_lines;
    a->n_lines = 0;
}

void gw_access_flush(struct gw_access *a)
{
    if (a == NULL || (a->is_writing && !atomic_load(&a->done))) {
        return;
    }
    if (a->is_writing) {
        written(a);
    }
    if (a->lines.len == 0) {
        return;
    }
    swap(a);
    a->is_writing = true;
    atomic_store(&a->done, false);
    if (at_pool_submit(a->pool, a->loop, write_lines, NULL, a) != AT_OK) {
        a->rc = at_err_set(&a->err, AT_EXHAUSTED, "%s: its writer is gone or too busy", a->path);
        written(a);
    }
}

void gw_access_put(struct gw_access *a, const char *line, size_t len)
{
    if (a->lines.len + len > AT_GW_ACCESS_BYTES_MAX ||
        at_buf_append(&a->lines, line, len) != AT_OK) {
        at_metric_add(a->dropped, 1);
        return;
    }
    a->n_lines++;
    if (a->lines.len >= AT_GW_ACCESS_FLUSH_BYTES) {
        gw_access_flush(a);
    } else if (a->timer == 0) {
        a->timer = at_loop_timer(a->loop, AT_GW_ACCESS_NS, on_timer, a);
    }
}

/* The pool has ended before: the other thread has nothing of it any more. */
void gw_access_free(struct gw_access *a)
{
    if (a == NULL) {
        return;
    }
    at_loop_timer_cancel(a->loop, a->timer);
    if (a->lines.len > 0) {
        (void)!at_file_append(a->path, a->lines.data, a->lines.len, 0640, NULL);
    }
    at_buf_done(&a->lines);
    at_buf_done(&a->writing);
    at_free(a->path);
    at_free(a);
}
