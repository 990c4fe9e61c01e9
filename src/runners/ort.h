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

#endif
