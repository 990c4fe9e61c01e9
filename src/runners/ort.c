#include "runners/ort_priv.h"

#include "core/mem.h"
#include "sys/file.h"
#include "sys/sys.h"

#include <assert.h>
#include <dlfcn.h>
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

ONNXTensorElementDataType at_ort_type_of(enum at_oip_type type)
{
    for (size_t i = 0; i < AT_ARRAY_LEN(TYPES); i++) {
        if (TYPES[i].oip == type) {
            return TYPES[i].onnx;
        }
    }
    return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
}

enum at_rc at_ort_check(const OrtApi *api, OrtStatus *status, enum at_rc rc, struct at_err *err,
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
    ort->path = at_strdup(path);
    ort->version = at_strdup(base()->GetVersionString());
    enum at_rc rc = at_ort_check(api, api->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "atoll", &ort->env),
                                 AT_INTERNAL, err, "ONNX Runtime");
    if (rc == AT_OK) {
        rc = at_ort_check(api, api->DisableTelemetryEvents(ort->env), AT_INTERNAL, err,
                          "ONNX Runtime");
    }
    if (rc == AT_OK) {
        rc = at_ort_check(api,
                          api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &ort->cpu),
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
    at_free(ort->path);
    at_free(ort);
}

const char *at_ort_version(const struct at_ort *ort)
{
    return ort->version;
}

enum at_rc at_ort_read_shape(const OrtApi *api, const OrtTensorTypeAndShapeInfo *shape,
                             const char *name, struct at_oip_tensor_spec *ret, struct at_err *err)
{
    ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    size_t rank = 0;
    enum at_rc rc =
        at_ort_check(api, api->GetTensorElementType(shape, &type), AT_CORRUPT, err, name);
    if (rc == AT_OK) {
        rc = at_ort_check(api, api->GetDimensionsCount(shape, &rank), AT_CORRUPT, err, name);
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
    return at_ort_check(api, api->GetDimensions(shape, ret->shape, rank), AT_CORRUPT, err, name);
}

static enum at_rc read_type(const OrtApi *api, const OrtTypeInfo *info, const char *name,
                            struct at_oip_tensor_spec *ret, struct at_err *err)
{
    const OrtTensorTypeAndShapeInfo *shape = NULL;
    enum at_rc rc =
        at_ort_check(api, api->CastTypeInfoToTensorInfo(info, &shape), AT_UNSUPPORTED, err, name);
    if (rc == AT_OK && shape == NULL) {
        rc = at_err_set(err, AT_UNSUPPORTED,
                        "\"%s\" is not a tensor: export the model without "
                        "sequences and maps (scikit-learn: zipmap off)",
                        name);
    }
    return rc != AT_OK ? rc : at_ort_read_shape(api, shape, name, ret, err);
}

/* Name, type and shape of one input (or output). */
static enum at_rc read_tensor_spec(struct at_ort_model *model, bool input, size_t index,
                                   struct at_oip_tensor_spec *ret, struct at_err *err)
{
    const OrtApi *api = model->ort->api;
    OrtAllocator *allocator = NULL;
    char *name = NULL;
    OrtTypeInfo *info = NULL;
    enum at_rc rc = at_ort_check(api, api->GetAllocatorWithDefaultOptions(&allocator), AT_INTERNAL,
                                 err, "ONNX Runtime");
    if (rc == AT_OK) {
        rc =
            at_ort_check(api,
                         input ? api->SessionGetInputName(model->session, index, allocator, &name)
                               : api->SessionGetOutputName(model->session, index, allocator, &name),
                         AT_CORRUPT, err, "name");
    }
    if (rc != AT_OK) {
        return rc;
    }
    ret->name = at_strdup(name);
    rc = at_ort_check(api, api->AllocatorFree(allocator, name), AT_INTERNAL, err, "ONNX Runtime");
    if (rc == AT_OK) {
        rc = at_ort_check(api,
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
    enum at_rc rc = at_ort_check(api, api->SessionGetInputCount(model->session, &n_inputs),
                                 AT_CORRUPT, err, "inputs");
    if (rc == AT_OK) {
        rc = at_ort_check(api, api->SessionGetOutputCount(model->session, &n_outputs), AT_CORRUPT,
                          err, "outputs");
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

static void add_property(struct at_oip_spec *spec, const char *key, const char *value)
{
    if (spec->n_properties < AT_OIP_PROPERTIES_MAX && value != NULL && value[0] != '\0' &&
        strlen(value) <= AT_OIP_PROPERTY_BYTES_MAX) {
        spec->properties[spec->n_properties++] =
            (struct at_oip_property){at_strdup(key), at_strdup(value)};
    }
}

/* A text that ONNX Runtime allocated; released. */
static void take_text(struct at_ort_model *model, OrtAllocator *allocator, OrtStatus *got,
                      const char *key, char *text)
{
    const OrtApi *api = model->ort->api;
    if (at_ort_check(api, got, AT_NOT_FOUND, NULL, "") != AT_OK || text == NULL) {
        return;
    }
    add_property(&model->spec, key, text);
    (void)!at_ort_check(api, api->AllocatorFree(allocator, text), AT_INTERNAL, NULL, "");
}

static void read_custom(struct at_ort_model *model, const OrtModelMetadata *metadata,
                        OrtAllocator *allocator)
{
    const OrtApi *api = model->ort->api;
    char **keys = NULL;
    int64_t n = 0;
    OrtStatus *status = api->ModelMetadataGetCustomMetadataMapKeys(metadata, allocator, &keys, &n);
    if (at_ort_check(api, status, AT_NOT_FOUND, NULL, "") != AT_OK || keys == NULL) {
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        char *text = NULL;
        status = api->ModelMetadataLookupCustomMetadataMap(metadata, allocator, keys[i], &text);
        take_text(model, allocator, status, keys[i], text);
        (void)!at_ort_check(api, api->AllocatorFree(allocator, keys[i]), AT_INTERNAL, NULL, "");
    }
    (void)!at_ort_check(api, api->AllocatorFree(allocator, keys), AT_INTERNAL, NULL, "");
}

/* The model's own words; absent is fine. */
static void read_metadata(struct at_ort_model *model)
{
    const OrtApi *api = model->ort->api;
    OrtModelMetadata *metadata = NULL;
    OrtAllocator *allocator = NULL;
    if (at_ort_check(api, api->GetAllocatorWithDefaultOptions(&allocator), AT_INTERNAL, NULL, "") !=
            AT_OK ||
        at_ort_check(api, api->SessionGetModelMetadata(model->session, &metadata), AT_INTERNAL,
                     NULL, "") != AT_OK) {
        return;
    }
    char *text = NULL;
    OrtStatus *status = api->ModelMetadataGetProducerName(metadata, allocator, &text);
    take_text(model, allocator, status, "producer", text);
    text = NULL;
    status = api->ModelMetadataGetGraphName(metadata, allocator, &text);
    take_text(model, allocator, status, "graph", text);
    int64_t version = 0;
    status = api->ModelMetadataGetVersion(metadata, &version);
    if (at_ort_check(api, status, AT_NOT_FOUND, NULL, "") == AT_OK && version > 0 &&
        version != INT64_MAX) {
        AT_CLEANUP(at_cleanup_free) char *number = at_asprintf("%lld", (long long)version);
        add_property(&model->spec, "model_version", number);
    }
    read_custom(model, metadata, allocator);
    api->ReleaseModelMetadata(metadata);
    for (size_t i = 0; i < model->spec.n_properties; i++) {
        if (strcmp(model->spec.properties[i].key, "description") == 0) {
            model->spec.description = model->spec.properties[i].value;
        }
    }
}

/* GPU builds keep the provider in a library of its own beside the first. */
static bool cuda_there(const struct at_ort *ort)
{
    const char *slash = strrchr(ort->path, '/');
    AT_CLEANUP(at_cleanup_free)
    char *provider = at_asprintf("%.*slibonnxruntime_providers_cuda.so",
                                 slash != NULL ? (int)(slash + 1 - ort->path) : 0, ort->path);
    return at_file_exists(provider);
}

static enum at_rc add_cuda(const struct at_ort *ort, OrtSessionOptions *options, struct at_err *err)
{
    const OrtApi *api = ort->api;
    if (!cuda_there(ort)) {
        return at_err_set(err, AT_UNAVAILABLE,
                          "this build of ONNX Runtime has no CUDA provider: use a GPU build, or "
                          "--provider cpu");
    }
    OrtCUDAProviderOptionsV2 *cuda = NULL;
    enum at_rc rc =
        at_ort_check(api, api->CreateCUDAProviderOptions(&cuda), AT_UNAVAILABLE, err, "CUDA");
    if (rc == AT_OK) {
        rc = at_ort_check(api, api->SessionOptionsAppendExecutionProvider_CUDA_V2(options, cuda),
                          AT_UNAVAILABLE, err, "CUDA");
        api->ReleaseCUDAProviderOptions(cuda);
    }
    return rc;
}

static enum at_rc session_options(const struct at_ort_model *model, bool cuda,
                                  OrtSessionOptions **ret, struct at_err *err)
{
    const OrtApi *api = model->ort->api;
    OrtSessionOptions *options = NULL;
    enum at_rc rc =
        at_ort_check(api, api->CreateSessionOptions(&options), AT_INTERNAL, err, "ONNX Runtime");
    if (rc != AT_OK) {
        return rc;
    }
    rc = at_ort_check(api, api->SetIntraOpNumThreads(options, model->compute_threads), AT_INTERNAL,
                      err, "threads");
    if (rc == AT_OK) {
        rc = at_ort_check(api, api->SetSessionGraphOptimizationLevel(options, ORT_ENABLE_ALL),
                          AT_INTERNAL, err, "optimisation");
    }
    if (rc == AT_OK && cuda) {
        rc = add_cuda(model->ort, options, err);
    }
    if (rc != AT_OK) {
        api->ReleaseSessionOptions(options);
        return rc;
    }
    *ret = options;
    return AT_OK;
}

/* A library that is out of memory says so in words only. */
static enum at_rc rc_of_load(const OrtApi *api, const OrtStatus *status)
{
    const char *text = status != NULL ? api->GetErrorMessage(status) : "";
    bool memory = strstr(text, "bad_alloc") != NULL || strstr(text, "allocate") != NULL;
    return memory ? AT_NOMEM : AT_CORRUPT;
}

enum at_rc at_ort_make_session(const struct at_ort_model *model, OrtSession **ret,
                               struct at_err *err)
{
    const OrtApi *api = model->ort->api;
    OrtSessionOptions *options = NULL;
    bool cuda = model->provider == AT_ORT_CUDA ||
                (model->provider == AT_ORT_AUTO && cuda_there(model->ort));
    enum at_rc rc = session_options(model, cuda, &options, err);
    if (rc != AT_OK && cuda && model->provider == AT_ORT_AUTO) { /* no GPU here, after all */
        rc = session_options(model, false, &options, err);
    }
    if (rc == AT_OK) {
        OrtStatus *status = api->CreateSession(model->ort->env, model->path, options, ret);
        rc = at_ort_check(api, status, rc_of_load(api, status), err, model->path);
        api->ReleaseSessionOptions(options);
    }
    return rc;
}

enum at_rc at_ort_model_load_with(const struct at_ort *ort, const struct at_ort_load *load,
                                  struct at_ort_model **ret, struct at_err *err)
{
    assert(load->compute_threads >= 1);
    struct at_ort_model *model = AT_NEW(struct at_ort_model);
    model->ort = ort;
    model->path = at_strdup(load->path);
    model->compute_threads = load->compute_threads;
    model->provider = load->provider;
    enum at_rc rc = at_ort_make_session(model, &model->session, err);
    if (rc == AT_OK) {
        rc = read_spec(model, err);
    }
    if (rc != AT_OK) {
        at_ort_model_free(model);
        return rc;
    }
    read_metadata(model);
    model->spec.model = at_strdup(load->name);
    model->spec.version = at_strdup(load->version);
    model->spec.platform = "onnxruntime_onnx";
    *ret = model;
    return AT_OK;
}

enum at_rc at_ort_model_load(const struct at_ort *ort, const char *path, const char *name,
                             const char *version, int compute_threads, struct at_ort_model **ret,
                             struct at_err *err)
{
    return at_ort_model_load_with(
        ort,
        &(struct at_ort_load){
            .path = path, .name = name, .version = version, .compute_threads = compute_threads},
        ret, err);
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
    for (size_t i = 0; i < model->spec.n_properties; i++) {
        at_free((char *)model->spec.properties[i].key);
        at_free((char *)model->spec.properties[i].value);
    }
    at_free(model->path);
    at_free(model);
}

const struct at_oip_spec *at_ort_model_spec(const struct at_ort_model *model)
{
    return &model->spec;
}
