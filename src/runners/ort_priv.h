/* Shared by ort.c (library, model) and ort_run.c (running it). */
#ifndef AT_RUNNERS_ORT_PRIV_H
#define AT_RUNNERS_ORT_PRIV_H

#include "runners/ort.h"

#include <onnxruntime_c_api.h>

struct at_ort {
    const OrtApi *api;
    OrtEnv *env;
    OrtMemoryInfo *cpu;
    char *version;
    char *path; /* of the library */
};

struct at_ort_model {
    const struct at_ort *ort;
    OrtSession *session;
    char *path;
    int compute_threads;
    enum at_ort_provider provider;
    struct at_oip_spec spec;
    const char *input_names[AT_OIP_TENSORS_MAX];
};

ONNXTensorElementDataType at_ort_type_of(enum at_oip_type type);
/* Turn ONNX Runtime's status into ours; the status is released. */
enum at_rc at_ort_check(const OrtApi *api, OrtStatus *status, enum at_rc rc, struct at_err *err,
                        const char *what) AT_WARN_UNUSED;
/* Element type and shape of a value or of what a model declares. */
enum at_rc at_ort_read_shape(const OrtApi *api, const OrtTensorTypeAndShapeInfo *shape,
                             const char *name, struct at_oip_tensor_spec *ret,
                             struct at_err *err) AT_WARN_UNUSED;
enum at_rc at_ort_make_session(const struct at_ort_model *model, OrtSession **ret,
                               struct at_err *err) AT_WARN_UNUSED;

#endif
