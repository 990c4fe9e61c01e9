/* The HTTP side of the ONNX runner, between onnx_main.c (the process) and onnx.c (the service). */
#ifndef AT_RUNNERS_ONNX_PRIV_H
#define AT_RUNNERS_ONNX_PRIV_H

#include "loop/pool.h"
#include "runners/batching.h"
#include "runners/ort.h"
#include "runners/serving.h"

struct at_onnx_service;

struct at_onnx_options {
    const char *local_listen; /* unix:/path besides, for gateways on this machine; may be NULL */
    const char *listen;
    const char *name;                    /* of the model, as the protocol says it */
    const char *version;                 /* NULL: none */
    struct at_batching_options batching; /* instances 0: one, run by the loop's own thread */
    struct runner_start start;
};

/* Serve model on loop. own: at_onnx_service_free, before the loop's. */
enum at_rc at_onnx_service_new(struct at_loop *loop, const struct at_ort_model *model,
                               const struct at_onnx_options *options, struct at_onnx_service **ret,
                               struct at_err *err) AT_WARN_UNUSED;
/* One more model, under its own name, at the same addresses. Before the loop runs. */
enum at_rc at_onnx_service_add(struct at_onnx_service *first, const struct at_ort_model *model,
                               const struct at_batching_options *batching,
                               struct at_err *err) AT_WARN_UNUSED;
/* Why requests are not batched; "" when they are. */
const char *at_onnx_service_unbatched(const struct at_onnx_service *service);
const char *at_onnx_service_addr(const struct at_onnx_service *service);
/* Accept nothing new and say "not ready"; done is called on the loop once nothing is in flight. */
void at_onnx_service_drain(struct at_onnx_service *service, at_post_fn *done, void *ctx);
/* Not from a callback of the loop, which is turned until what runs has ended. */
void at_onnx_service_free(struct at_onnx_service *service);

#endif
