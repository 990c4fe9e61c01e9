/* REST answers to gRPC answers. */
#include "core/json.h"
#include "core/mem.h"
#include "gateway/grpc_priv.h"
#include "gateway/pb.h"

#include <stdio.h>

#define FRAME_BYTES 5

static enum at_rc not_protocol(struct at_err *err, const char *what)
{
    return at_err_set(err, AT_UPSTREAM, "the replica's answer: %s", what);
}

/* Room for the prefix of a message that follows; frame_end fills it in. */
static enum at_rc frame_begin(struct at_buf *out)
{
    return at_buf_append(out, "\0\0\0\0", FRAME_BYTES);
}

static void frame_end(struct at_buf *out, size_t from)
{
    size_t len = out->len - from - FRAME_BYTES;
    for (size_t i = 0; i < 4; i++) {
        out->data[from + 1 + i] = (char)(len >> (24 - 8 * i));
    }
}

static enum at_rc put_text(struct at_buf *out, uint32_t number, const json_t *value)
{
    return json_is_string(value) && json_string_length(value) > 0
               ? gw_pb_put_bytes(out, number, json_string_value(value), json_string_length(value))
               : AT_OK;
}

/* Packed int64s. */
static enum at_rc put_shape(struct at_buf *out, uint32_t number, const json_t *shape)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf packed = {0};
    for (size_t i = 0; i < json_array_size(shape); i++) {
        const json_t *dim = json_array_get(shape, i);
        if (!json_is_integer(dim)) {
            return AT_UPSTREAM;
        }
        enum at_rc rc = gw_pb_put_varint(&packed, (uint64_t)json_integer_value(dim));
        if (rc != AT_OK) {
            return rc;
        }
    }
    return packed.len > 0 ? gw_pb_put_bytes(out, number, packed.data, packed.len) : AT_OK;
}

/* map<string, InferParameter>, but for the sizes of binary data, which are said otherwise. */
static enum at_rc put_parameters(struct at_buf *out, uint32_t number, json_t *parameters)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf entry = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf value = {0};
    const char *key;
    json_t *v;
    json_object_foreach(parameters, key, v)
    {
        enum at_rc rc = AT_OK;
        at_buf_clear(&entry);
        at_buf_clear(&value);
        if (strcmp(key, "binary_data_size") == 0) {
            continue;
        }
        if (json_is_boolean(v)) {
            rc = gw_pb_put_number(&value, 1, json_is_true(v));
        } else if (json_is_integer(v)) {
            rc = gw_pb_put_number(&value, 2, (uint64_t)json_integer_value(v));
        } else if (json_is_string(v)) {
            rc = gw_pb_put_bytes(&value, 3, json_string_value(v), json_string_length(v));
        } else if (json_is_real(v)) {
            double number_value = json_real_value(v);
            rc = gw_pb_put_varint(&value, 4 << 3 | GW_PB_FIXED64);
            rc = rc == AT_OK ? at_buf_append(&value, &number_value, sizeof number_value) : rc;
        } else {
            continue; /* gRPC has no place for it */
        }
        rc = rc == AT_OK ? gw_pb_put_bytes(&entry, 1, key, strlen(key)) : rc;
        rc = rc == AT_OK ? gw_pb_put_bytes(&entry, 2, value.data, value.len) : rc;
        rc = rc == AT_OK ? gw_pb_put_bytes(out, number, entry.data, entry.len) : rc;
        if (rc != AT_OK) {
            return rc;
        }
    }
    return AT_OK;
}

/* --- data as JSON to bytes --- */

static enum at_rc put_int(struct at_buf *out, const struct gw_datatype *type, const json_t *v)
{
    if (!json_is_integer(v)) {
        return AT_UPSTREAM;
    }
    int64_t value = json_integer_value(v);
    int64_t max = type->size == 8 ? INT64_MAX : (INT64_C(1) << (8 * type->size - 1)) - 1;
    int64_t min = -max - 1;
    if (type->element == GW_UINT) {
        min = 0;
        max = type->size == 8 ? INT64_MAX : 2 * max + 1;
    }
    return value < min || value > max ? AT_UPSTREAM : at_buf_append(out, &value, type->size);
}

static enum at_rc put_value(struct at_buf *out, const struct gw_datatype *type, const json_t *v)
{
    if (type->element == GW_BYTES && json_is_string(v)) {
        uint32_t len = (uint32_t)json_string_length(v);
        enum at_rc rc = at_buf_append(out, &len, sizeof len);
        return rc == AT_OK && len > 0 ? at_buf_append(out, json_string_value(v), len) : rc;
    }
    if (type->element == GW_BOOL && (json_is_boolean(v) || json_is_integer(v))) {
        unsigned char bit = json_is_true(v) || json_integer_value(v) != 0;
        return at_buf_append(out, &bit, 1);
    }
    if (type->element == GW_FLOAT && json_is_number(v)) {
        double wide = json_number_value(v);
        float narrow = (float)wide;
        return type->size == 4 ? at_buf_append(out, &narrow, 4) : at_buf_append(out, &wide, 8);
    }
    return type->element == GW_INT || type->element == GW_UINT ? put_int(out, type, v)
                                                               : AT_UPSTREAM;
}

/* Nested or flat, row-major. The parser has bounded the depth. */
static enum at_rc put_data(struct at_buf *out, const struct gw_datatype *type, const json_t *data)
{
    for (size_t i = 0; i < json_array_size(data); i++) {
        const json_t *v = json_array_get(data, i);
        enum at_rc rc = json_is_array(v) ? put_data(out, type, v) : put_value(out, type, v);
        if (rc != AT_OK) {
            return rc;
        }
    }
    return AT_OK;
}

/* --- ModelInferResponse --- */

/* The tensor's bytes as the next raw_output_contents of raw. */
static enum at_rc put_raw(struct at_buf *raw, const json_t *output, struct at_str *binary)
{
    const json_t *size = json_object_get(json_object_get(output, "parameters"), "binary_data_size");
    if (size != NULL) {
        json_int_t n = json_is_integer(size) ? json_integer_value(size) : -1;
        if (n < 0 || (uint64_t)n > binary->len) {
            return AT_UPSTREAM;
        }
        enum at_rc rc = gw_pb_put_bytes(raw, 6, binary->ptr, (size_t)n);
        binary->ptr += n;
        binary->len -= (size_t)n;
        return rc;
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf bytes = {0};
    const json_t *name = json_object_get(output, "datatype"),
                 *data = json_object_get(output, "data");
    const struct gw_datatype *type =
        json_is_string(name) ? gw_datatype_find(at_str_of(json_string_value(name))) : NULL;
    if (type == NULL || !json_is_array(data)) {
        return AT_UPSTREAM;
    }
    enum at_rc rc = put_data(&bytes, type, data);
    return rc == AT_OK ? gw_pb_put_bytes(raw, 6, bytes.data, bytes.len) : rc;
}

static enum at_rc put_output(struct at_buf *out, json_t *output)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf one = {0};
    if (!json_is_string(json_object_get(output, "name")) ||
        !json_is_string(json_object_get(output, "datatype"))) {
        return AT_UPSTREAM;
    }
    enum at_rc rc = put_text(&one, 1, json_object_get(output, "name"));
    rc = rc == AT_OK ? put_text(&one, 2, json_object_get(output, "datatype")) : rc;
    rc = rc == AT_OK ? put_shape(&one, 3, json_object_get(output, "shape")) : rc;
    rc = rc == AT_OK ? put_parameters(&one, 4, json_object_get(output, "parameters")) : rc;
    return rc == AT_OK ? gw_pb_put_bytes(out, 5, one.data, one.len) : rc;
}

static enum at_rc infer_answer(json_t *root, struct at_str binary, struct at_buf *out)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf raw = {0};
    json_t *outputs = json_object_get(root, "outputs");
    enum at_rc rc = put_text(out, 1, json_object_get(root, "model_name"));
    rc = rc == AT_OK ? put_text(out, 2, json_object_get(root, "model_version")) : rc;
    rc = rc == AT_OK ? put_text(out, 3, json_object_get(root, "id")) : rc;
    rc = rc == AT_OK ? put_parameters(out, 4, json_object_get(root, "parameters")) : rc;
    if (rc == AT_OK && !json_is_array(outputs)) {
        return AT_UPSTREAM;
    }
    for (size_t i = 0; i < json_array_size(outputs) && rc == AT_OK; i++) {
        rc = put_output(out, json_array_get(outputs, i));
        rc = rc == AT_OK ? put_raw(&raw, json_array_get(outputs, i), &binary) : rc;
    }
    if (rc == AT_OK && binary.len > 0) {
        return AT_UPSTREAM;
    }
    return rc == AT_OK && raw.len > 0 ? at_buf_append(out, raw.data, raw.len) : rc;
}

/* --- the others --- */

static enum at_rc put_tensors(struct at_buf *out, uint32_t number, const json_t *tensors)
{
    enum at_rc rc = AT_OK;
    for (size_t i = 0; i < json_array_size(tensors) && rc == AT_OK; i++) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf one = {0};
        const json_t *t = json_array_get(tensors, i);
        rc = put_text(&one, 1, json_object_get(t, "name"));
        rc = rc == AT_OK ? put_text(&one, 2, json_object_get(t, "datatype")) : rc;
        rc = rc == AT_OK ? put_shape(&one, 3, json_object_get(t, "shape")) : rc;
        rc = rc == AT_OK ? gw_pb_put_bytes(out, number, one.data, one.len) : rc;
    }
    return rc;
}

static enum at_rc metadata_answer(const json_t *root, struct at_buf *out)
{
    const json_t *versions = json_object_get(root, "versions");
    if (!json_is_string(json_object_get(root, "name"))) {
        return AT_UPSTREAM;
    }
    enum at_rc rc = put_text(out, 1, json_object_get(root, "name"));
    for (size_t i = 0; i < json_array_size(versions) && rc == AT_OK; i++) {
        rc = put_text(out, 2, json_array_get(versions, i));
    }
    rc = rc == AT_OK ? put_text(out, 3, json_object_get(root, "platform")) : rc;
    rc = rc == AT_OK ? put_tensors(out, 4, json_object_get(root, "inputs")) : rc;
    return rc == AT_OK ? put_tensors(out, 5, json_object_get(root, "outputs")) : rc;
}

enum at_rc gw_grpc_answer(enum gw_grpc_kind kind, struct at_str body, size_t header_bytes,
                          struct at_buf *out, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *root = NULL;
    struct at_err why;
    size_t from = out->len;
    if (header_bytes > body.len) {
        return not_protocol(err, "shorter than it says");
    }
    size_t head = header_bytes > 0 ? header_bytes : body.len;
    if (at_json_parse(body.ptr, head, &root, &why) != AT_OK || !json_is_object(root)) {
        return not_protocol(err, "no JSON object");
    }
    struct at_str binary = {body.ptr + head, body.len - head};
    enum at_rc rc = frame_begin(out);
    if (rc == AT_OK) {
        rc = kind == GW_GRPC_MODEL_INFER      ? infer_answer(root, binary, out)
             : kind == GW_GRPC_MODEL_METADATA ? metadata_answer(root, out)
                                              : gw_pb_put_number(out, 1, 1);
    }
    if (rc != AT_OK) {
        out->len = from;
        return rc == AT_TOO_LARGE ? at_err_set(err, rc, "the replica's answer is too large")
                                  : not_protocol(err, "not of the Open Inference Protocol");
    }
    frame_end(out, from);
    return AT_OK;
}

enum at_rc gw_grpc_own(enum gw_grpc_kind kind, bool yes, struct at_buf *out)
{
    static const char NAME[] = "atoll", EXTENSION[] = "binary_tensor_data";
    size_t from = out->len;
    enum at_rc rc = frame_begin(out);
    if (kind != GW_GRPC_SERVER_METADATA) {
        rc = rc == AT_OK && yes ? gw_pb_put_number(out, 1, 1) : rc;
    } else {
        rc = rc == AT_OK ? gw_pb_put_bytes(out, 1, NAME, sizeof NAME - 1) : rc;
        rc = rc == AT_OK ? gw_pb_put_bytes(out, 2, AT_VERSION, sizeof AT_VERSION - 1) : rc;
        rc = rc == AT_OK ? gw_pb_put_bytes(out, 3, EXTENSION, sizeof EXTENSION - 1) : rc;
    }
    if (rc == AT_OK) {
        frame_end(out, from);
    }
    return rc;
}

/* --- status --- */

int gw_grpc_status_of(int http_status)
{
    static const struct {
        int http, grpc;
    } MAP[] = {{400, 3}, {422, 3},  {401, 16}, {403, 7},  {404, 5}, {405, 12},
               {408, 4}, {409, 10}, {413, 8},  {415, 12}, {429, 8}, {499, 1},
               {431, 8}, {501, 12}, {502, 14}, {503, 14}, {504, 4}};
    for (size_t i = 0; i < AT_ARRAY_LEN(MAP); i++) {
        if (MAP[i].http == http_status) {
            return MAP[i].grpc;
        }
    }
    return http_status == 200 ? 0 : http_status < 500 ? 3 : 13;
}

void gw_grpc_status_lines(int status, const char *message, char *out, size_t size)
{
    int n = snprintf(out, size, "grpc-status: %d\r\ngrpc-message: ", status);
    size_t at = (size_t)n;
    for (const unsigned char *p = (const unsigned char *)message; *p != '\0' && at + 8 < size;
         p++) {
        if (*p >= 0x20 && *p < 0x7f && *p != '%') {
            out[at++] = (char)*p;
        } else {
            at += (size_t)snprintf(out + at, size - at, "%%%02X", *p);
        }
    }
    snprintf(out + at, size - at, "\r\n");
}

int64_t gw_grpc_timeout_ns(const struct at_http_head *head)
{
    struct at_str text = at_http_header_get(head, "grpc-timeout");
    uint64_t n;
    if (text.len < 2 || text.len > 9 ||
        at_str_to_u64((struct at_str){text.ptr, text.len - 1}, &n) != AT_OK || n == 0) {
        return 0;
    }
    uint64_t unit;
    switch (text.ptr[text.len - 1]) {
    case 'H':
        unit = UINT64_C(3600000000000);
        break;
    case 'M':
        unit = UINT64_C(60000000000);
        break;
    case 'S':
        unit = UINT64_C(1000000000);
        break;
    case 'm':
        unit = 1000000;
        break;
    case 'u':
        unit = 1000;
        break;
    case 'n':
        unit = 1;
        break;
    default:
        return 0;
    }
    uint64_t ns; /* at most eight digits */
    return __builtin_mul_overflow(n, unit, &ns) || ns > INT64_MAX / 2 ? INT64_MAX / 2 : (int64_t)ns;
}
