#include "runners/onnx_probe.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* What unknown dimensions other than the first are taken to be; the first that the model accepts.
 */
static const int64_t UNKNOWN_DIMS[] = {8, 1, 32};
#define PROBE_ELEMENTS_MAX ((int64_t)16 << 20)
#define TOLERANCE 1e-3

bool at_onnx_declares_batches(const struct at_oip_spec *spec, char *why, size_t why_len)
{
    for (size_t i = 0; i < spec->n_inputs + spec->n_outputs; i++) {
        bool input = i < spec->n_inputs;
        const struct at_oip_tensor_spec *t =
            input ? &spec->inputs[i] : &spec->outputs[i - spec->n_inputs];
        if (t->n_dims == 0 || t->shape[0] != -1) {
            snprintf(why, why_len, "the first dimension of %s \"%.64s\" is fixed",
                     input ? "input" : "output", t->name);
            return false;
        }
    }
    if (spec->n_inputs == 0) {
        snprintf(why, why_len, "the model has no inputs");
    }
    return spec->n_inputs != 0;
}

/* The same made-up numbers each time: a small linear congruence, which need not be good. */
static uint32_t next_number(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 16;
}

/* Whole numbers are 0 or 1, which every table has a row for. */
static void fill(enum at_oip_type type, void *data, size_t n, uint32_t seed)
{
    static const struct at_str WORDS[] = {{"a", 1}, {"b", 1}};
    size_t bytes = at_oip_type_bytes(type);
    for (size_t i = 0; i < n; i++) {
        uint32_t number = next_number(&seed);
        uint64_t bit = number & 1;
        switch (type) {
        case AT_OIP_FP32:
            ((float *)data)[i] = (float)(number % 1000) / 1000.0f;
            break;
        case AT_OIP_FP64:
            ((double *)data)[i] = (number % 1000) / 1000.0;
            break;
        case AT_OIP_FP16:
            ((uint16_t *)data)[i] = bit != 0 ? 0x3c00 : 0; /* 1.0 */
            break;
        case AT_OIP_BF16:
            ((uint16_t *)data)[i] = bit != 0 ? 0x3f80 : 0;
            break;
        case AT_OIP_BYTES:
            ((struct at_str *)data)[i] = WORDS[bit];
            break;
        default:
            memcpy((char *)data + i * bytes, &bit, bytes);
        }
    }
}

/* A request with made-up inputs of so many rows that asks for all outputs; false: too large. */
static bool make_request(const struct at_oip_spec *spec, int64_t rows, int64_t unknown,
                         uint32_t seed, struct at_arena *arena, struct at_oip_request *ret)
{
    *ret = (struct at_oip_request){.n_outputs = spec->n_outputs};
    for (size_t o = 0; o < spec->n_outputs; o++) {
        ret->outputs[o] = o;
    }
    for (size_t i = 0; i < spec->n_inputs; i++) {
        const struct at_oip_tensor_spec *t = &spec->inputs[i];
        struct at_oip_tensor *tensor = &ret->inputs[i];
        int64_t n = 1;
        tensor->n_dims = t->n_dims;
        for (size_t d = 0; d < t->n_dims; d++) {
            int64_t dim = t->shape[d] >= 0 ? t->shape[d] : d == 0 ? rows : unknown;
            tensor->shape[d] = dim;
            n = n <= PROBE_ELEMENTS_MAX && dim <= PROBE_ELEMENTS_MAX ? n * dim : INT64_MAX;
        }
        if (n > PROBE_ELEMENTS_MAX) {
            return false;
        }
        size_t each = t->type == AT_OIP_BYTES ? sizeof(struct at_str) : at_oip_type_bytes(t->type);
        void *data = at_arena_alloc(arena, (size_t)n * each + 1);
        if (data == NULL) {
            return false;
        }
        tensor->n_elements = (size_t)n;
        tensor->data = data;
        fill(t->type, data, (size_t)n, seed);
    }
    return true;
}

static bool element_equal(enum at_oip_type type, const void *a, const void *b, size_t i)
{
    double x, y;
    switch (type) {
    case AT_OIP_FP32:
        x = (double)((const float *)a)[i];
        y = (double)((const float *)b)[i];
        break;
    case AT_OIP_FP64:
        x = ((const double *)a)[i];
        y = ((const double *)b)[i];
        break;
    case AT_OIP_FP16:
    case AT_OIP_BF16:
        return true; /* rounding may differ; their shapes were compared */
    case AT_OIP_BYTES: {
        struct at_str s = ((const struct at_str *)a)[i], t = ((const struct at_str *)b)[i];
        return s.len == t.len && (s.len == 0 || memcmp(s.ptr, t.ptr, s.len) == 0);
    }
    default: {
        size_t bytes = at_oip_type_bytes(type);
        return memcmp((const char *)a + i * bytes, (const char *)b + i * bytes, bytes) == 0;
    }
    }
    return (isnan(x) && isnan(y)) || x == y || fabs(x - y) <= TOLERANCE * (1.0 + fabs(x) + fabs(y));
}

static bool outputs_equal(const struct at_oip_spec *spec, const struct at_oip_tensor *a,
                          const struct at_oip_tensor *b)
{
    for (size_t o = 0; o < spec->n_outputs; o++) {
        if (a[o].n_elements != b[o].n_elements || a[o].n_dims != b[o].n_dims) {
            return false;
        }
        for (size_t i = 0; i < a[o].n_elements; i++) {
            if (!element_equal(spec->outputs[o].type, a[o].data, b[o].data, i)) {
                return false;
            }
        }
    }
    return true;
}

/* Outputs of a run live until the next one only. */
static bool keep_outputs(const struct at_oip_spec *spec, struct at_arena *arena,
                         struct at_oip_tensor *outputs)
{
    for (size_t o = 0; o < spec->n_outputs; o++) {
        enum at_oip_type type = spec->outputs[o].type;
        size_t each = type == AT_OIP_BYTES ? sizeof(struct at_str) : at_oip_type_bytes(type);
        void *copy = at_arena_alloc(arena, outputs[o].n_elements * each + 1);
        if (copy == NULL) {
            return false;
        }
        if (outputs[o].n_elements != 0) {
            memcpy(copy, outputs[o].data, outputs[o].n_elements * each);
        }
        outputs[o].data = copy;
    }
    return true;
}

static enum at_onnx_verdict probe_with(struct at_ort_lane *lane, const struct at_oip_spec *spec,
                                       int64_t unknown, struct at_arena *arena)
{
    enum { ROWS = 2 };
    struct at_oip_request *requests = at_arena_alloc(arena, ROWS * sizeof *requests);
    struct at_oip_tensor *outputs =
        at_arena_alloc(arena, 2 * ROWS * AT_OIP_TENSORS_MAX * sizeof *outputs);
    const struct at_oip_request *list[ROWS];
    struct at_oip_tensor *alone[ROWS], *together[ROWS];
    assert(requests != NULL && outputs != NULL);
    for (size_t r = 0; r < ROWS; r++) {
        list[r] = &requests[r];
        alone[r] = &outputs[r * AT_OIP_TENSORS_MAX];
        together[r] = &outputs[(ROWS + r) * AT_OIP_TENSORS_MAX];
        if (!make_request(spec, 1, unknown, (uint32_t)r + 1, arena, &requests[r]) ||
            at_ort_lane_run(lane, &list[r], 1, arena, &alone[r], NULL) != AT_OK ||
            !keep_outputs(spec, arena, alone[r])) {
            return AT_ONNX_UNKNOWN;
        }
    }
    bool same = at_ort_lane_run(lane, list, ROWS, arena, together, NULL) == AT_OK;
    for (size_t r = 0; r < ROWS && same; r++) {
        same = outputs_equal(spec, alone[r], together[r]);
    }
    return same ? AT_ONNX_ROWS_INDEPENDENT : AT_ONNX_ROWS_MIX;
}

enum at_onnx_verdict at_onnx_probe(struct at_ort_lane *lane, const struct at_oip_spec *spec)
{
    enum at_onnx_verdict verdict = AT_ONNX_UNKNOWN;
    for (size_t i = 0; i < sizeof UNKNOWN_DIMS / sizeof UNKNOWN_DIMS[0]; i++) {
        struct at_arena *arena = at_arena_new(AT_RUNNER_ARENA_BYTES_MAX);
        verdict = probe_with(lane, spec, UNKNOWN_DIMS[i], arena);
        at_ort_lane_clear(lane);
        at_arena_free(arena);
        if (verdict != AT_ONNX_UNKNOWN) {
            break;
        }
    }
    return verdict;
}

bool at_onnx_warm_up(struct at_ort_lane *lane, const struct at_oip_spec *spec, size_t rows)
{
    bool ran = false;
    for (size_t i = 0; i < sizeof UNKNOWN_DIMS / sizeof UNKNOWN_DIMS[0] && !ran; i++) {
        struct at_arena *arena = at_arena_new(AT_RUNNER_ARENA_BYTES_MAX);
        struct at_oip_request request;
        struct at_oip_tensor *outputs = at_arena_alloc(arena, AT_OIP_TENSORS_MAX * sizeof *outputs);
        const struct at_oip_request *one = &request;
        ran = outputs != NULL &&
              make_request(spec, (int64_t)rows, UNKNOWN_DIMS[i], 1, arena, &request) &&
              at_ort_lane_run(lane, &one, 1, arena, &outputs, NULL) == AT_OK;
        at_ort_lane_clear(lane);
        at_arena_free(arena);
    }
    return ran;
}
