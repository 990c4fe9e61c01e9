#include "runners/ort_priv.h"

#include "core/mem.h"

#include <assert.h>
#include <string.h>

static enum at_rc make_string_input(const OrtApi *api, const struct at_oip_tensor *tensor,
                                    const char *name, OrtValue **ret, struct at_err *err)
{
    OrtAllocator *allocator = NULL;
    enum at_rc rc = at_ort_check(api, api->GetAllocatorWithDefaultOptions(&allocator), AT_INTERNAL,
                                 err, "ONNX Runtime");
    if (rc == AT_OK) {
        rc = at_ort_check(api,
                          api->CreateTensorAsOrtValue(allocator, tensor->shape, tensor->n_dims,
                                                      ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING, ret),
                          AT_INTERNAL, err, name);
    }
    const struct at_str *strings = tensor->data;
    for (size_t i = 0; i < tensor->n_elements && rc == AT_OK; i++) {
        char *place = NULL;
        rc = at_ort_check(api,
                          api->GetResizedStringTensorElementBuffer(*ret, i, strings[i].len, &place),
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
    return at_ort_check(api,
                        api->CreateTensorWithDataAsOrtValue(
                            model->ort->cpu, (void *)tensor->data,
                            tensor->n_elements * at_oip_type_bytes(spec->type), tensor->shape,
                            tensor->n_dims, at_ort_type_of(spec->type), ret),
                        AT_BAD_REQUEST, err, spec->name);
}

static enum at_rc copy_strings(const OrtApi *api, const OrtValue *value, const char *name,
                               struct at_arena *arena, struct at_oip_tensor *tensor,
                               struct at_err *err)
{
    struct at_str *strings = at_arena_alloc(arena, tensor->n_elements * sizeof *strings + 1);
    for (size_t i = 0; i < tensor->n_elements && strings != NULL; i++) {
        size_t len = 0;
        enum at_rc rc = at_ort_check(api, api->GetStringTensorElementLength(value, i, &len),
                                     AT_INTERNAL, err, name);
        char *copy = rc == AT_OK ? at_arena_alloc(arena, len + 1) : NULL;
        if (rc == AT_OK && copy != NULL) {
            rc = at_ort_check(api, api->GetStringTensorElement(value, len, i, copy), AT_INTERNAL,
                              err, name);
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

/* Where an output's values are, in ONNX Runtime's own memory; strings are copied into arena. */
static enum at_rc view_output(const OrtApi *api, OrtValue *value,
                              const struct at_oip_tensor_spec *spec, struct at_arena *arena,
                              struct at_oip_tensor *ret, struct at_err *err)
{
    OrtTensorTypeAndShapeInfo *info = NULL;
    struct at_oip_tensor_spec got = {0};
    *ret = (struct at_oip_tensor){0};
    enum at_rc rc =
        at_ort_check(api, api->GetTensorTypeAndShape(value, &info), AT_INTERNAL, err, spec->name);
    if (rc != AT_OK) {
        return rc;
    }
    rc = at_ort_read_shape(api, info, spec->name, &got, err);
    if (rc == AT_OK) {
        rc = at_ort_check(api, api->GetTensorShapeElementCount(info, &ret->n_elements), AT_INTERNAL,
                          err, spec->name);
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
    rc = at_ort_check(api, api->GetTensorMutableData(value, &data), AT_INTERNAL, err, spec->name);
    ret->data = data;
    return rc;
}

static size_t element_bytes(enum at_oip_type type)
{
    return type == AT_OIP_BYTES ? sizeof(struct at_str) : at_oip_type_bytes(type);
}

struct at_ort_lane {
    const struct at_ort_model *model;
    OrtSession *session;
    bool own_session;
    struct at_buf gathered[AT_OIP_TENSORS_MAX]; /* a batch's inputs, one after the other */
    OrtValue *in[AT_OIP_TENSORS_MAX], *out[AT_OIP_TENSORS_MAX];
};

enum at_rc at_ort_lane_new(const struct at_ort_model *model, bool own_session,
                           struct at_ort_lane **ret, struct at_err *err)
{
    struct at_ort_lane *lane = AT_NEW(struct at_ort_lane);
    lane->model = model;
    lane->session = model->session;
    lane->own_session = own_session;
    for (size_t i = 0; i < AT_OIP_TENSORS_MAX; i++) {
        at_buf_init(&lane->gathered[i], AT_RUNNER_ARENA_BYTES_MAX);
    }
    enum at_rc rc = own_session ? at_ort_make_session(model, &lane->session, err) : AT_OK;
    if (rc != AT_OK) {
        lane->own_session = false;
        at_ort_lane_free(lane);
        return rc;
    }
    *ret = lane;
    return AT_OK;
}

static void release_values(const OrtApi *api, OrtValue **values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (values[i] != NULL) {
            api->ReleaseValue(values[i]);
            values[i] = NULL;
        }
    }
}

void at_ort_lane_clear(struct at_ort_lane *lane)
{
    const struct at_ort_model *model = lane->model;
    release_values(model->ort->api, lane->in, model->spec.n_inputs);
    release_values(model->ort->api, lane->out, model->spec.n_outputs);
}

void at_ort_lane_free(struct at_ort_lane *lane)
{
    if (lane == NULL) {
        return;
    }
    at_ort_lane_clear(lane);
    if (lane->own_session) {
        lane->model->ort->api->ReleaseSession(lane->session);
    }
    for (size_t i = 0; i < AT_OIP_TENSORS_MAX; i++) {
        at_buf_done(&lane->gathered[i]);
    }
    at_free(lane);
}

/* Input i of all requests as one tensor. */
static enum at_rc gather_input(struct at_ort_lane *lane, size_t i,
                               const struct at_oip_request *const *requests, size_t n,
                               struct at_err *err)
{
    const struct at_oip_tensor_spec *spec = &lane->model->spec.inputs[i];
    struct at_oip_tensor all = requests[0]->inputs[i];
    if (n > 1) {
        struct at_buf *buf = &lane->gathered[i];
        at_buf_clear(buf);
        all.shape[0] = 0;
        all.n_elements = 0;
        for (size_t r = 0; r < n; r++) {
            const struct at_oip_tensor *one = &requests[r]->inputs[i];
            size_t bytes = one->n_elements * element_bytes(spec->type);
            assert(one->n_dims == all.n_dims);
            if (at_buf_append(buf, one->data, bytes) != AT_OK) {
                return at_err_set(err, AT_TOO_LARGE, "input \"%s\": the batch is too large",
                                  spec->name);
            }
            all.shape[0] += one->shape[0];
            all.n_elements += one->n_elements;
        }
        all.data = buf->data;
    }
    return make_input(lane->model, spec, &all, &lane->in[i], err);
}

/* Each request's part of output o, which is outputs' k-th value of the run. */
static enum at_rc deal_output(struct at_ort_lane *lane, size_t o, OrtValue *value,
                              const struct at_oip_request *const *requests, size_t n,
                              struct at_arena *arena, struct at_oip_tensor *const *results,
                              struct at_err *err)
{
    const struct at_oip_tensor_spec *spec = &lane->model->spec.outputs[o];
    struct at_oip_tensor all;
    enum at_rc rc = view_output(lane->model->ort->api, value, spec, arena, &all, err);
    int64_t rows = 0, at = 0;
    for (size_t r = 0; r < n; r++) {
        rows += requests[r]->inputs[0].n_dims != 0 ? requests[r]->inputs[0].shape[0] : 0;
    }
    if (rc == AT_OK && n > 1 && (all.n_dims == 0 || rows == 0 || all.shape[0] != rows)) {
        rc = at_err_set(err, AT_UNSUPPORTED, "output \"%s\" does not follow the batch", spec->name);
    }
    for (size_t r = 0; r < n && rc == AT_OK; r++) {
        struct at_oip_tensor part = all;
        if (n > 1) {
            int64_t own = requests[r]->inputs[0].shape[0];
            size_t each = all.n_elements / (size_t)rows;
            part.shape[0] = own;
            part.n_elements = each * (size_t)own;
            part.data = (const char *)all.data + (size_t)at * each * element_bytes(spec->type);
            at += own;
        }
        for (size_t k = 0; k < requests[r]->n_outputs; k++) {
            if (requests[r]->outputs[k] == o) {
                results[r][k] = part;
            }
        }
    }
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

/* The outputs that somebody asks for, in the model's order. */
static size_t wanted_outputs(const struct at_oip_spec *spec,
                             const struct at_oip_request *const *requests, size_t n, size_t *ret)
{
    bool wanted[AT_OIP_TENSORS_MAX] = {false};
    size_t count = 0;
    for (size_t r = 0; r < n; r++) {
        for (size_t k = 0; k < requests[r]->n_outputs; k++) {
            assert(requests[r]->outputs[k] < spec->n_outputs);
            wanted[requests[r]->outputs[k]] = true;
        }
    }
    for (size_t o = 0; o < spec->n_outputs; o++) {
        if (wanted[o]) {
            ret[count++] = o;
        }
    }
    return count;
}

enum at_rc at_ort_lane_run(struct at_ort_lane *lane, const struct at_oip_request *const *requests,
                           size_t n, struct at_arena *arena, struct at_oip_tensor *const *results,
                           struct at_err *err)
{
    const struct at_ort_model *model = lane->model;
    const OrtApi *api = model->ort->api;
    size_t wanted[AT_OIP_TENSORS_MAX];
    const char *names[AT_OIP_TENSORS_MAX];
    enum at_rc rc = AT_OK;
    assert(n >= 1);
    at_ort_lane_clear(lane);
    for (size_t i = 0; i < model->spec.n_inputs && rc == AT_OK; i++) {
        rc = gather_input(lane, i, requests, n, err);
    }
    size_t n_wanted = wanted_outputs(&model->spec, requests, n, wanted);
    for (size_t k = 0; k < n_wanted; k++) {
        names[k] = model->spec.outputs[wanted[k]].name;
    }
    if (rc == AT_OK) {
        OrtStatus *status =
            api->Run(lane->session, NULL, model->input_names, (const OrtValue *const *)lane->in,
                     model->spec.n_inputs, names, n_wanted, lane->out);
        rc = at_ort_check(api, status, rc_of_run(api, status), err, "the model refuses its input");
    }
    for (size_t k = 0; k < n_wanted && rc == AT_OK; k++) {
        rc = deal_output(lane, wanted[k], lane->out[k], requests, n, arena, results, err);
    }
    return rc;
}

static enum at_rc keep(const struct at_oip_tensor_spec *spec, struct at_arena *arena,
                       struct at_oip_tensor *tensor, struct at_err *err)
{
    size_t bytes = tensor->n_elements * element_bytes(spec->type);
    void *copy = at_arena_alloc(arena, bytes + 1);
    if (copy == NULL) {
        return at_err_set(err, AT_TOO_LARGE, "output \"%s\" is too large", spec->name);
    }
    if (bytes != 0) {
        memcpy(copy, tensor->data, bytes);
    }
    tensor->data = copy;
    return AT_OK;
}

enum at_rc at_ort_model_run(const struct at_ort_model *model, const struct at_oip_request *request,
                            struct at_arena *arena, struct at_oip_tensor *outputs,
                            struct at_err *err)
{
    struct at_ort_lane *lane = NULL;
    enum at_rc rc = at_ort_lane_new(model, false, &lane, err);
    if (rc == AT_OK) {
        rc = at_ort_lane_run(lane, &request, 1, arena, &outputs, err);
    }
    for (size_t k = 0; k < request->n_outputs && rc == AT_OK; k++) {
        rc = keep(&model->spec.outputs[request->outputs[k]], arena, &outputs[k], err);
    }
    at_ort_lane_free(lane);
    return rc;
}
