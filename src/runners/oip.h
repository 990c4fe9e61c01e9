/* Open Inference Protocol v2, REST: JSON (and Triton's binary tensor extension) to tensors and
 * back. Pure: bytes in, values out; knows no model server. */
#ifndef AT_RUNNERS_OIP_H
#define AT_RUNNERS_OIP_H

#include "core/arena.h"
#include "core/buf.h"
#include "core/str.h"
#include "runners/limits.h"

/* Name on the wire, bytes of one element (0: variable). FP16 and BF16 travel in binary only. */
#define AT_OIP_TYPE_TABLE(X)                                                                       \
    X(AT_OIP_BOOL, "BOOL", 1)                                                                      \
    X(AT_OIP_UINT8, "UINT8", 1)                                                                    \
    X(AT_OIP_UINT16, "UINT16", 2)                                                                  \
    X(AT_OIP_UINT32, "UINT32", 4)                                                                  \
    X(AT_OIP_UINT64, "UINT64", 8)                                                                  \
    X(AT_OIP_INT8, "INT8", 1)                                                                      \
    X(AT_OIP_INT16, "INT16", 2)                                                                    \
    X(AT_OIP_INT32, "INT32", 4)                                                                    \
    X(AT_OIP_INT64, "INT64", 8)                                                                    \
    X(AT_OIP_FP16, "FP16", 2)                                                                      \
    X(AT_OIP_BF16, "BF16", 2)                                                                      \
    X(AT_OIP_FP32, "FP32", 4)                                                                      \
    X(AT_OIP_FP64, "FP64", 8)                                                                      \
    X(AT_OIP_BYTES, "BYTES", 0)

enum at_oip_type {
#define X(type, name, bytes) type,
    AT_OIP_TYPE_TABLE(X)
#undef X
        AT_OIP_TYPE_COUNT
};

const char *at_oip_type_name(enum at_oip_type type);
size_t at_oip_type_bytes(enum at_oip_type type);

struct at_oip_tensor_spec {
    const char *name;
    enum at_oip_type type;
    int64_t shape[AT_OIP_DIMS_MAX]; /* -1: any */
    size_t n_dims;
};

/* Something a model file says of itself. */
struct at_oip_property {
    const char *key, *value;
};

/* What a model takes and gives. Borrowed strings; immutable once served. */
struct at_oip_spec {
    const char *model;
    const char *version;     /* may be NULL */
    const char *platform;    /* "onnxruntime_onnx" */
    const char *description; /* may be NULL */
    struct at_oip_tensor_spec inputs[AT_OIP_TENSORS_MAX];
    size_t n_inputs;
    struct at_oip_tensor_spec outputs[AT_OIP_TENSORS_MAX];
    size_t n_outputs;
    struct at_oip_property properties[AT_OIP_PROPERTIES_MAX];
    size_t n_properties;
};

struct at_oip_tensor {
    int64_t shape[AT_OIP_DIMS_MAX];
    size_t n_dims;
    size_t n_elements;
    const void *data; /* n_elements little-endian values; BYTES: struct at_str[n_elements] */
};

struct at_oip_request {
    const char *id;                                  /* NULL when the client gave none */
    struct at_oip_tensor inputs[AT_OIP_TENSORS_MAX]; /* in the spec's order, all present */
    size_t outputs[AT_OIP_TENSORS_MAX]; /* indexes into spec->outputs, in the order asked for */
    bool output_binary[AT_OIP_TENSORS_MAX];
    size_t n_outputs;
    size_t priority;    /* parameters.priority; 0: none given */
    int64_t timeout_ns; /* parameters.timeout, which is in microseconds; 0: none given */
};

/* Parse the body of an infer request against what the model takes.
 * in:   body borrowed; json_len: the value of Inference-Header-Content-Length, or len without it
 * out:  *ret and what it points to live in arena
 * err:  AT_BAD_REQUEST names the tensor, what was expected and what came; AT_TOO_LARGE arena full.
 * cost: O(len). */
enum at_rc at_oip_parse_infer(const struct at_oip_spec *spec, const char *body, size_t len,
                              size_t json_len, struct at_arena *arena, struct at_oip_request *ret,
                              struct at_err *err) AT_WARN_UNUSED;

/* The answer to request, appended to buf: outputs[i] is the value of
 * spec->outputs[request->outputs[i]]. A number that JSON cannot say (NaN, infinity) becomes null.
 * out:  *ret_json_len: bytes of JSON in front of binary tensors; 0 when all is JSON.
 * err:  AT_TOO_LARGE buf's cap; AT_INVALID a string that is not UTF-8 or FP16 without binary. */
enum at_rc at_oip_encode_infer(const struct at_oip_spec *spec, const struct at_oip_request *request,
                               const struct at_oip_tensor *outputs, struct at_buf *buf,
                               size_t *ret_json_len, struct at_err *err) AT_WARN_UNUSED;

/* Answer of GET /v2/models/NAME. */
enum at_rc at_oip_encode_metadata(const struct at_oip_spec *spec,
                                  struct at_buf *buf) AT_WARN_UNUSED;
/* {"error": message} */
enum at_rc at_oip_encode_error(const char *message, struct at_buf *buf) AT_WARN_UNUSED;

#endif
