/* Closed-loop load on a model through the gateway: N requests outstanding at all times
 * (perf_analyzer's concurrency mode). Each row of a batch becomes one request; answers are checked
 * against labels when there are any. */
#ifndef AT_CLI_LOAD_H
#define AT_CLI_LOAD_H

#include "core/json.h"
#include "loop/loop.h"
#include "net/tls.h"

#define AT_LOAD_CONCURRENCY_MAX 1024
#define AT_LOAD_ROWS_MAX 100000

struct at_load_options {
    const char *addr;          /* gateway, "host:port" */
    struct at_tls_config *tls; /* NULL: plain */
    const char *token;         /* bearer token, or NULL */
    const char *model;
    const json_t *batch; /* {"inputs": [{name, datatype, shape: [rows, ...], data}], "labels":
                            [rows] (optional)} */
    size_t concurrency;
    int64_t duration_ns;   /* 0: until requests_max */
    uint64_t requests_max; /* 0: until duration_ns */
    /* A few times a second while it runs; may be NULL. */
    void (*on_progress)(void *ctx, uint64_t requests, uint64_t failed, int64_t elapsed_ns);
    void *ctx;
    const bool *stop; /* set by a signal handler: end early, report what there is; may be NULL */
};

struct at_load_result {
    uint64_t requests, failed;
    uint64_t labelled, correct; /* answers that had a label, and those that agreed */
    int64_t elapsed_ns;
    int64_t p50_ns, p90_ns, p99_ns, max_ns, mean_ns; /* of successful requests; buckets of 1.6 % */
    int64_t longest_gap_ns;                          /* longest time without a successful answer */
    json_t *by_instance;   /* {"instance": requests}; own: caller decrefs */
    char first_error[256]; /* of a failed request; empty when none failed */
};

/* Runs loop until done; the loop must be the caller's own and idle.
 * err: AT_INVALID the batch is malformed, with field. */
enum at_rc at_load_run(struct at_loop *loop, const struct at_load_options *options,
                       struct at_load_result *ret, struct at_err *err) AT_WARN_UNUSED;
/* The result as JSON: requests, failed, accuracy, rps, p50_us ... own: caller decrefs. */
json_t *at_load_report(const struct at_load_result *result);

#endif
