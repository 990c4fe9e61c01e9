/* ONNX Runtime behind the protocol's tensors: load the library, load one model, run it. */
#ifndef AT_RUNNERS_ORT_H
#define AT_RUNNERS_ORT_H

#include "runners/oip.h"

struct at_ort;       /* the library and its environment; one per process */
struct at_ort_model; /* one loaded model; immutable, run by any thread */

/* Open libonnxruntime.so.1 at path and take its C API.
 * err:  AT_NOT_FOUND no such library, or it cannot be loaded; AT_UNSUPPORTED its API is too old.
 * own:  at_ort_free, after all its models. cost: 5 to 100 ms. */
enum at_rc at_ort_open(const char *path, struct at_ort **ret, struct at_err *err) AT_WARN_UNUSED;
void at_ort_free(struct at_ort *ort); /* accepts NULL; the library stays mapped */
const char *at_ort_version(const struct at_ort *ort);

/* Load a model file. name and version (may be NULL) are what the protocol calls it; copied.
 * compute_threads: threads inside one run, 1: the caller's only.
 * err:  AT_CORRUPT not ONNX, or an operator this runtime lacks; AT_UNSUPPORTED an input or output
 *       that is no tensor.  own: at_ort_model_free. */
enum at_ort_provider { AT_ORT_AUTO, AT_ORT_CPU, AT_ORT_CUDA };

struct at_ort_load {
    const char *path, *name, *version;
    int compute_threads;
    enum at_ort_provider provider; /* AUTO: CUDA where library and machine have it */
};
/* err besides: AT_UNAVAILABLE the provider cannot be had; AT_NOMEM. */
enum at_rc at_ort_model_load_with(const struct at_ort *ort, const struct at_ort_load *load,
                                  struct at_ort_model **ret, struct at_err *err) AT_WARN_UNUSED;
enum at_rc at_ort_model_load(const struct at_ort *ort, const char *path, const char *name,
                             const char *version, int compute_threads, struct at_ort_model **ret,
                             struct at_err *err) AT_WARN_UNUSED;
void at_ort_model_free(struct at_ort_model *model); /* accepts NULL */
const struct at_oip_spec *at_ort_model_spec(const struct at_ort_model *model);

/* Run once. outputs[0..request->n_outputs) are filled in the order asked for; their data live in
 * arena.
 * err:  AT_BAD_REQUEST the model refuses these inputs; AT_INTERNAL it failed; AT_TOO_LARGE arena.
 * thread: any, at the same time. */
enum at_rc at_ort_model_run(const struct at_ort_model *model, const struct at_oip_request *request,
                            struct at_arena *arena, struct at_oip_tensor *outputs,
                            struct at_err *err) AT_WARN_UNUSED;

/* One instance of a model: what runs batches, one at a time. With more than one compute thread it
 * has a session, and so threads, of its own; else all share the model's, which saves memory.
 * own: at_ort_lane_free, before the model's. thread: one at a time. */
struct at_ort_lane;
enum at_rc at_ort_lane_new(const struct at_ort_model *model, bool own_session,
                           struct at_ort_lane **ret, struct at_err *err) AT_WARN_UNUSED;
void at_ort_lane_free(struct at_ort_lane *lane); /* accepts NULL */
/* Run requests[0..n) as one: their rows one after the other. results[i][k] is what requests[i]
 * asked for k-th; it lives until the next run or at_ort_lane_clear (strings: in arena).
 * in:   for n > 1: inputs of all requests equal in all dimensions but the first, which is the same
 *       in all inputs of one request
 * err:  as at_ort_model_run; AT_UNSUPPORTED an output's first dimension is not that of the inputs.
 */
enum at_rc at_ort_lane_run(struct at_ort_lane *lane, const struct at_oip_request *const *requests,
                           size_t n, struct at_arena *arena, struct at_oip_tensor *const *results,
                           struct at_err *err) AT_WARN_UNUSED;
void at_ort_lane_clear(struct at_ort_lane *lane);

#endif
