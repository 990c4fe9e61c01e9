/* Shared by onnx.c (life), onnx_batch.c (requests on their way through the model) and onnx_routes.c
 * (paths). */
#ifndef AT_RUNNERS_ONNX_INT_H
#define AT_RUNNERS_ONNX_INT_H

#include "runners/batcher.h"
#include "runners/onnx_priv.h"

#define JSON_TYPE "application/json"
#define STATUS_UNAVAILABLE 503
#define BATCH_SIZE_STEPS 13 /* 1, 2, 4, ... AT_BATCH_ROWS_MAX */

struct lane;
struct job;

struct onnx_sum {
    int64_t count, ns;
};

struct at_onnx_service {
    struct at_loop *loop;
    const struct at_ort_model *model;
    const struct at_oip_spec *spec;
    struct runner_serving serving;
    struct at_pool *pool; /* NULL: run on the loop's thread */
    struct at_batching_options batching;
    char unbatched[256]; /* why not; "": batched */
    struct at_batcher *batcher;
    struct lane *lanes;
    size_t n_lanes;
    struct at_loop_task dispatch; /* at the end of each turn that brought something */
    at_timer_id timer;            /* for delays and timeouts */
    struct job *jobs;             /* all in flight */
    bool ending;                  /* nothing new is run */
    /* Several models in one process: the first has the addresses, its metrics count all. */
    struct at_onnx_service *first, *next; /* first: itself, of the first */
    int64_t n_rows, n_runs;               /* of this one */

    struct at_metric_family *refused;
    struct at_metric *waiting, *queue_time, *run_time, *total_time;
    struct at_metric *rows, *batches, *split, *batch_sizes[BATCH_SIZE_STEPS];
    /* for /stats, as Triton's clients read them */
    struct onnx_sum good, bad, queued, ran, *by_rows;
    int64_t last_wall_ms;
};

void onnx_respond_error(struct at_onnx_service *s, struct at_http_exchange *ex, int status,
                        const char *message);
void onnx_respond_ok(struct at_onnx_service *s, struct at_http_exchange *ex, const char *type,
                     const char *headers, const void *body, size_t len);
void onnx_on_request(void *ctx, struct at_http_exchange *ex);

enum at_rc onnx_lanes_make(struct at_onnx_service *s, struct at_err *err) AT_WARN_UNUSED;
bool onnx_lanes_busy(const struct at_onnx_service *s);
void onnx_lanes_free(struct at_onnx_service *s); /* the pool must be gone */
void onnx_infer(struct at_onnx_service *s, struct at_http_exchange *ex);
void onnx_dispatch(void *service);

#endif
