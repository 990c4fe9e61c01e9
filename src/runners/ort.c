#include "runners/ort.h"

#include "core/mem.h"
#include "sys/sys.h"

#include <assert.h>
#include <dlfcn.h>
#include <onnxruntime_c_api.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__clang__)
/* The leak checker asks for this: ONNX Runtime's protobuf keeps a few bytes of each model for ever.
 */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libonnxruntime.so\n";
}
#endif

struct at_ort {
    const OrtApi *api;
    OrtEnv *env;
    OrtMemoryInfo *cpu;
    char *version;
};

struct at_ort_model {
    const struct at_ort *ort;
    OrtSession *session;
    struct at_oip_spec spec;
    const char *input_names[AT_OIP_TENSORS_MAX];
    char *description;
};

static const struct {
    ONNXTensorElementDataType onnx;
    enum at_oip_type oip;
} TYPES[] = {
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, AT_OIP_BOOL},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, AT_OIP_UINT8},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16, AT_OIP_UINT16},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32, AT_OIP_UINT32},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64, AT_OIP_UINT64},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8, AT_OIP_INT8},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16, AT_OIP_INT16},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, AT_OIP_INT32},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, AT_OIP_INT64},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, AT_OIP_FP16},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16, AT_OIP_BF16},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, AT_OIP_FP32},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE, AT_OIP_FP64},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING, AT_OIP_BYTES},
};

static ONNXTensorElementDataType onnx_of(enum at_oip_type type)
{
    for (size_t i = 0; i < AT_ARRAY_LEN(TYPES); i++) {
        if (TYPES[i].oip == type) {
            return TYPES[i].onnx;
        }
    }
    return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
}

/* Turn ONNX Runtime's status into ours; the status is released. */
static enum at_rc check(const OrtApi *api, OrtStatus *status, enum at_rc rc, struct at_err *err,
                        const char *what)
{
    if (status == NULL) {
        return AT_OK;
    }
    at_err_set(err, rc, "%s: %s", what, api->GetErrorMessage(status));
    api->ReleaseStatus(status);
    return rc;
}

/* ONNX Runtime's own builds keep a device id and a data base of events below $HOME and send them to
 * its maker. Nothing of that may leave a machine of ours; this switch covers also what the library
 * does before its API can be asked. */
static void telemetry_off(void)
{
    at_sys_setenv("ORT_DISABLE_TELEMETRY", "1");
}

enum at_rc at_ort_open(const char *path, struct at_ort **ret, struct at_err *err)
{
    telemetry_off();
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        return at_err_set(err, AT_NOT_FOUND, "%s", dlerror());
    }
    const OrtApiBase *(*base)(void) = NULL;
    *(void **)&base = dlsym(library, "OrtGetApiBase");
    const OrtApi *api = base != NULL ? base()->GetApi(ORT_API_VERSION) : NULL;
    if (api == NULL) {
        dlclose(library);
        return at_err_set(err, AT_UNSUPPORTED, "%s: no ONNX Runtime with API version %d", path,
                          ORT_API_VERSION);
    }
    struct at_ort *ort = AT_NEW(struct at_ort);
    ort->api = api;
    ort->version = at_strdup(base()->GetVersionString());
    enum at_rc rc = check(api, api->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "atoll", &ort->env),
                          AT_INTERNAL, err, "ONNX Runtime");
    if (rc == AT_OK) {
        rc = check(api, api->DisableTelemetryEvents(ort->env), AT_INTERNAL, err, "ONNX Runtime");
    }
    if (rc == AT_OK) {
        rc = check(api, api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &ort->cpu),
                   AT_INTERNAL, err, "ONNX Runtime");
    }
    if (rc != AT_OK) {
        at_ort_free(ort);
        return rc;
    }
    *ret = ort;
    return AT_OK;
}

void at_ort_free(struct at_ort *ort)
{
    if (ort == NULL) {
        return;
    }
    if (ort->cpu != NULL) {
        ort->api->ReleaseMemoryInfo(ort->cpu);
    }
    if (ort->env != NULL) {
        ort->api->ReleaseEnv(ort->env);
    }
    at_free(ort->version);
    at_free(ort);
}

const char *at_ort_version(const struct at_ort *ort)
{
    return ort->version;
}

static enum at_rc read_shape(const OrtApi *api, const OrtTensorTypeAndShapeInfo *shape,
                             const char *name, struct at_oip_tensor_spec *ret, struct at_err *err)
{
    ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    size_t rank = 0;
    enum at_rc rc = check(api, api->GetTensorElementType(shape, &type), AT_CORRUPT, err, name);
    if (rc == AT_OK) {
        rc = check(api, api->GetDimensionsCount(shape, &rank), AT_CORRUPT, err, name);
    }
    if (rc != AT_OK) {
        return rc;
    }
    if (rank > AT_OIP_DIMS_MAX) {
        return at_err_set(err, AT_UNSUPPORTED, "tensor \"%s\" has %zu dimensions, at most %d", name,
                          rank, AT_OIP_DIMS_MAX);
    }
    bool known = false;
    for (size_t i = 0; i < AT_ARRAY_LEN(TYPES); i++) {
        if (TYPES[i].onnx == type) {
            ret->type = TYPES[i].oip;
            known = true;
        }
    }
    if (!known) {
        return at_err_set(err, AT_UNSUPPORTED,
                          "tensor \"%s\" has element type %d, which the "
                          "protocol has no name for",
                          name, (int)type);
    }
    ret->n_dims = rank;
    return check(api, api->GetDimensions(shape, ret->shape, rank), AT_CORRUPT, err, name);
}

static enum at_rc read_type(const OrtApi *api, const OrtTypeInfo *info, const char *name,
                            struct at_oip_tensor_spec *ret, struct at_err *err)
{
    const OrtTensorTypeAndShapeInfo *shape = NULL;
    enum at_rc rc =
        check(api, api->CastTypeInfoToTensorInfo(info, &shape), AT_UNSUPPORTED, err, name);
    if (rc == AT_OK && shape == NULL) {
        rc = at_err_set(err, AT_UNSUPPORTED,
                        "\"%s\" is not a tensor: export the model without "
                        "sequences and maps (scikit-learn: zipmap off)",
                        name);
    }
    return rc != AT_OK ? rc : read_shape(api, shape, name, ret, err);
}

/* Name, type and shape of one input (or output). */
static enum at_rc read_tensor_spec(struct at_ort_model *model, bool input, size_t index,
                                   struct at_oip_tensor_spec *ret, struct at_err *err)
{
    const OrtApi *api = model->ort->api;
    OrtAllocator *allocator = NULL;
    char *name = NULL;
    OrtTypeInfo *info = NULL;
    enum at_rc rc = check(api, api->GetAllocatorWithDefaultOptions(&allocator), AT_INTERNAL, err,
                          "ONNX Runtime");
    if (rc == AT_OK) {
        rc = check(api,
                   input ? api->SessionGetInputName(model->session, index, allocator, &name)
                         : api->SessionGetOutputName(model->session, index, allocator, &name),
                   AT_CORRUPT, err, "name");
    }
    if (rc != AT_OK) {
        return rc;
    }
    ret->name = at_strdup(name);
    rc = check(api, api->AllocatorFree(allocator, name), AT_INTERNAL, err, "ONNX Runtime");
    if (rc == AT_OK) {
        rc = check(api,
                   input ? api->SessionGetInputTypeInfo(model->session, index, &info)
                         : api->SessionGetOutputTypeInfo(model->session, index, &info),
                   AT_CORRUPT, err, ret->name);
    }
    if (rc == AT_OK) {
        rc = read_type(api, info, ret->name, ret, err);
        api->ReleaseTypeInfo(info);
    }
    return rc;
}

static enum at_rc read_spec(struct at_ort_model *model, struct at_err *err)
{
    const OrtApi *api = model->ort->api;
    struct at_oip_spec *spec = &model->spec;
    size_t n_inputs = 0, n_outputs = 0;
    enum at_rc rc =
        check(api, api->SessionGetInputCount(model->session, &n_inputs), AT_CORRUPT, err, "inputs");
    if (rc == AT_OK) {
        rc = check(api, api->SessionGetOutputCount(model->session, &n_outputs), AT_CORRUPT, err,
                   "outputs");
    }
    if (rc == AT_OK && (n_inputs > AT_OIP_TENSORS_MAX || n_outputs > AT_OIP_TENSORS_MAX)) {
        rc = at_err_set(err, AT_UNSUPPORTED, "%zu inputs and %zu outputs, at most %d each",
                        n_inputs, n_outputs, AT_OIP_TENSORS_MAX);
    }
    /* The counts grow with the names read, so that at_ort_model_free frees what is there. */
    for (size_t i = 0; i < n_inputs && rc == AT_OK; i++) {
        spec->n_inputs = i + 1;
        rc = read_tensor_spec(model, true, i, &spec->inputs[i], err);
        model->input_names[i] = spec->inputs[i].name;
    }
    for (size_t i = 0; i < n_outputs && rc == AT_OK; i++) {
        spec->n_outputs = i + 1;
        rc = read_tensor_spec(model, false, i, &spec->outputs[i], err);
    }
    return rc;
}

/* The model's own words, from its metadata; absent is fine. */
static void read_description(struct at_ort_model *model)
{
    const OrtApi *api = model->ort->api;
    OrtModelMetadata *metadata = NULL;
    OrtAllocator *allocator = NULL;
    char *text = NULL;
    if (check(api, api->GetAllocatorWithDefaultOptions(&allocator), AT_INTERNAL, NULL, "") !=
            AT_OK ||
        check(api, api->SessionGetModelMetadata(model->session, &metadata), AT_INTERNAL, NULL,
              "") != AT_OK) {
        return;
    }
    OrtStatus *status =
        api->ModelMetadataLookupCustomMetadataMap(metadata, allocator, "description", &text);
    if (check(api, status, AT_NOT_FOUND, NULL, "") == AT_OK && text != NULL) {
        model->description = at_strdup(text);
        model->spec.description = model->description;
        status = api->AllocatorFree(allocator, text);
        (void)check(api, status, AT_INTERNAL, NULL, "");
    }
    api->ReleaseModelMetadata(metadata);
}

static enum at_rc make_session(struct at_ort_model *model, const char *path, int compute_threads,
                               struct at_err *err)
{
    const OrtApi *api = model->ort->api;
    OrtSessionOptions *options = NULL;
    enum at_rc rc =
        check(api, api->CreateSessionOptions(&options), AT_INTERNAL, err, "ONNX Runtime");
    if (rc != AT_OK) {
        return rc;
    }
    rc = check(api, api->SetIntraOpNumThreads(options, compute_threads), AT_INTERNAL, err,
               "threads");
    if (rc == AT_OK) {
        rc = check(api, api->SetSessionGraphOptimizationLevel(options, ORT_ENABLE_ALL), AT_INTERNAL,
                   err, "optimisation");
    }
    if (rc == AT_OK) {
        rc = check(api, api->CreateSession(model->ort->env, path, options, &model->session),
                   AT_CORRUPT, err, path);
    }
    api->ReleaseSessionOptions(options);
    return rc;
}

enum at_rc at_ort_model_load(const struct at_ort *ort, const char *path, const char *name,
                             const char *version, int compute_threads, struct at_ort_model **ret,
                             struct at_err *err)
{
    assert(compute_threads >= 1);
    struct at_ort_model *model = AT_NEW(struct at_ort_model);
    model->ort = ort;
    enum at_rc rc = make_session(model, path, compute_threads, err);
    if (rc == AT_OK) {
        rc = read_spec(model, err);
    }
    if (rc != AT_OK) {
        at_ort_model_free(model);
        return rc;
    }
    read_description(model);
    model->spec.model = at_strdup(name);
    model->spec.version = at_strdup(version);
    model->spec.platform = "onnxruntime_onnx";
    *ret = model;
    return AT_OK;
}

void at_ort_model_free(struct at_ort_model *model)
{
    if (model == NULL) {
        return;
    }
    if (model->session != NULL) {
        model->ort->api->ReleaseSession(model->session);
    }
    for (size_t i = 0; i < model->spec.n_inputs; i++) {
        at_free((char *)model->spec.inputs[i].name);
    }
    for (size_t i = 0; i < model->spec.n_outputs; i++) {
        at_free((char *)model->spec.outputs[i].name);
    }
    at_free((char *)model->spec.model);
    at_free((char *)model->spec.version);
    at_free(model->description);
    at_free(model);
}

const struct at_oip_spec *at_ort_model_spec(const struct at_ort_model *model)
{
    return &model->spec;
}

static enum at_rc make_string_input(const OrtApi *api, const struct at_oip_tensor *tensor,
                                    const char *name, OrtValue **ret, struct at_err *err)
{
    OrtAllocator *allocator = NULL;
    enum at_rc rc = check(api, api->GetAllocatorWithDefaultOptions(&allocator), AT_INTERNAL, err,
                          "ONNX Runtime");
    if (rc == AT_OK) {
        rc = check(api,
                   api->CreateTensorAsOrtValue(allocator, tensor->shape, tensor->n_dims,
                                               ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING, ret),
                   AT_INTERNAL, err, name);
    }
    const struct at_str *strings = tensor->data;
    for (size_t i = 0; i < tensor->n_elements && rc == AT_OK; i++) {
        char *place = NULL;
        rc = check(api, api->GetResizedStringTensorElementBuffer(*ret, i, strings[i].len, &place),
                   AT_INTERNAL, err, name);
        if (rc == AT_OK && strings[i].len != 0) {
            memcpy(place, strings[i].ptr, strings[i].len);
        }
    }
    return rc;
}

static enum at_rc make_input(const struct at_ort_model *model,
                             const struct at_oip_tensor_spec *spec,
                             const struct at_oip_tensor *tensor, OrtValue **ret, struct at_err *err)
{
    const OrtApi *api = model->ort->api;
    if (spec->type == AT_OIP_BYTES) {
        return make_string_input(api, tensor, spec->name, ret, err);
    }
    /* The value borrows the request's bytes; a run does not write to its inputs. */
    return check(api,
                 api->CreateTensorWithDataAsOrtValue(
                     model->ort->cpu, (void *)tensor->data,
                     tensor->n_elements * at_oip_type_bytes(spec->type), tensor->shape,
                     tensor->n_dims, onnx_of(spec->type), ret),
                 AT_BAD_REQUEST, err, spec->name);
}

static enum at_rc copy_strings(const OrtApi *api, const OrtValue *value, const char *name,
                               struct at_arena *arena, struct at_oip_tensor *tensor,
                               struct at_err *err)
{
    struct at_str *strings = at_arena_alloc(arena, tensor->n_elements * sizeof *strings + 1);
    for (size_t i = 0; i < tensor->n_elements && strings != NULL; i++) {
        size_t len = 0;
        enum at_rc rc =
            check(api, api->GetStringTensorElementLength(value, i, &len), AT_INTERNAL, err, name);
        char *copy = rc == AT_OK ? at_arena_alloc(arena, len + 1) : NULL;
        if (rc == AT_OK && copy != NULL) {
            rc = check(api, api->GetStringTensorElement(value, len, i, copy), AT_INTERNAL, err,
                       name);
        }
        if (rc != AT_OK) {
            return rc;
        }
        if (copy == NULL) {
            strings = NULL;
            break;
        }
        strings[i] = (struct at_str){copy, len};
    }
    tensor->data = strings;
    return strings != NULL ? AT_OK
                           : at_err_set(err, AT_TOO_LARGE, "output \"%s\" is too large", name);
}

static enum at_rc copy_output(const OrtApi *api, OrtValue *value,
                              const struct at_oip_tensor_spec *spec, struct at_arena *arena,
                              struct at_oip_tensor *ret, struct at_err *err)
{
    OrtTensorTypeAndShapeInfo *info = NULL;
    struct at_oip_tensor_spec got = {0};
    enum at_rc rc =
        check(api, api->GetTensorTypeAndShape(value, &info), AT_INTERNAL, err, spec->name);
    if (rc != AT_OK) {
        return rc;
    }
    rc = read_shape(api, info, spec->name, &got, err);
    if (rc == AT_OK) {
        rc = check(api, api->GetTensorShapeElementCount(info, &ret->n_elements), AT_INTERNAL, err,
                   spec->name);
    }
    api->ReleaseTensorTypeAndShapeInfo(info);
    if (rc != AT_OK) {
        return rc;
    }
    assert(got.type == spec->type);
    memcpy(ret->shape, got.shape, sizeof got.shape);
    ret->n_dims = got.n_dims;
    if (spec->type == AT_OIP_BYTES) {
        return copy_strings(api, value, spec->name, arena, ret, err);
    }
    void *data = NULL;
    rc = check(api, api->GetTensorMutableData(value, &data), AT_INTERNAL, err, spec->name);
    size_t bytes = ret->n_elements * at_oip_type_bytes(spec->type);
    void *copy = rc == AT_OK ? at_arena_alloc(arena, bytes + 1) : NULL;
    if (rc == AT_OK && copy == NULL) {
        rc = at_err_set(err, AT_TOO_LARGE, "output \"%s\" is too large", spec->name);
    }
    if (rc == AT_OK && bytes != 0) {
        memcpy(copy, data, bytes);
    }
    ret->data = copy;
    return rc;
}

static enum at_rc rc_of_run(const OrtApi *api, const OrtStatus *status)
{
    if (status == NULL) {
        return AT_OK;
    }
    OrtErrorCode code = api->GetErrorCode(status);
    return code == ORT_INVALID_ARGUMENT || code == ORT_FAIL ? AT_BAD_REQUEST : AT_INTERNAL;
}

enum at_rc at_ort_model_run(const struct at_ort_model *model, const struct at_oip_request *request,
                            struct at_arena *arena, struct at_oip_tensor *outputs,
                            struct at_err *err)
{
    const OrtApi *api = model->ort->api;
    const struct at_oip_spec *spec = &model->spec;
    OrtValue *in[AT_OIP_TENSORS_MAX] = {NULL}, *out[AT_OIP_TENSORS_MAX] = {NULL};
    const char *out_names[AT_OIP_TENSORS_MAX];
    enum at_rc rc = AT_OK;
    for (size_t i = 0; i < spec->n_inputs && rc == AT_OK; i++) {
        rc = make_input(model, &spec->inputs[i], &request->inputs[i], &in[i], err);
    }
    for (size_t i = 0; i < request->n_outputs; i++) {
        assert(request->outputs[i] < spec->n_outputs);
        out_names[i] = spec->outputs[request->outputs[i]].name;
    }
    if (rc == AT_OK) {
        OrtStatus *status =
            api->Run(model->session, NULL, model->input_names, (const OrtValue *const *)in,
                     spec->n_inputs, out_names, request->n_outputs, out);
        rc = check(api, status, rc_of_run(api, status), err, "the model refuses its input");
    }
    for (size_t i = 0; i < request->n_outputs && rc == AT_OK; i++) {
        rc = copy_output(api, out[i], &spec->outputs[request->outputs[i]], arena, &outputs[i], err);
    }
    for (size_t i = 0; i < spec->n_inputs; i++) {
        if (in[i] != NULL) {
            api->ReleaseValue(in[i]);
        }
    }
    for (size_t i = 0; i < request->n_outputs; i++) {
        if (out[i] != NULL) {
            api->ReleaseValue(out[i]);
        }
    }
    return rc;
}
