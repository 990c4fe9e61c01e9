#include "runners/oip_priv.h"

#include "core/json.h"
#include "core/mem.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

/* A writer that remembers its first failure, so that the code below reads as a template. */
struct writer {
    struct at_buf *buf;
    enum at_rc rc;
};

static void put(struct writer *w, const char *text)
{
    if (w->rc == AT_OK) {
        w->rc = at_buf_append_str(w->buf, text);
    }
}

static void put_string(struct writer *w, const char *text, size_t len)
{
    AT_CLEANUP(at_cleanup_json) json_t *value = json_stringn(text, len);
    if (w->rc == AT_OK) {
        w->rc = value != NULL ? at_json_dump(value, w->buf) : AT_INVALID;
    }
}

static void put_field(struct writer *w, const char *key, const char *value)
{
    put(w, key);
    put_string(w, value, value != NULL ? __builtin_strlen(value) : 0);
}

static void put_shape(struct writer *w, const int64_t *shape, size_t n_dims)
{
    char text[AT_OIP_SHAPE_TEXT_MAX];
    put(w, at_oip_shape_text(shape, n_dims, text));
}

static void put_real(struct writer *w, double value, int digits)
{
    char text[40];
    if (!isfinite(value)) {
        put(w, "null");
        return;
    }
    snprintf(text, sizeof text, "%.*g", digits, value);
    put(w, text);
}

static void put_element(struct writer *w, enum at_oip_type type, const void *data, size_t at)
{
    char text[24] = "";
    switch (type) {
    case AT_OIP_BOOL:
        put(w, ((const uint8_t *)data)[at] != 0 ? "true" : "false");
        return;
    case AT_OIP_FP32:
        put_real(w, (double)((const float *)data)[at], 9);
        return;
    case AT_OIP_FP64:
        put_real(w, ((const double *)data)[at], 17);
        return;
    case AT_OIP_BYTES: {
        struct at_str s = ((const struct at_str *)data)[at];
        put_string(w, s.ptr, s.len);
        return;
    }
    case AT_OIP_UINT8:
        snprintf(text, sizeof text, "%" PRIu8, ((const uint8_t *)data)[at]);
        break;
    case AT_OIP_UINT16:
        snprintf(text, sizeof text, "%" PRIu16, ((const uint16_t *)data)[at]);
        break;
    case AT_OIP_UINT32:
        snprintf(text, sizeof text, "%" PRIu32, ((const uint32_t *)data)[at]);
        break;
    case AT_OIP_UINT64:
        snprintf(text, sizeof text, "%" PRIu64, ((const uint64_t *)data)[at]);
        break;
    case AT_OIP_INT8:
        snprintf(text, sizeof text, "%" PRId8, ((const int8_t *)data)[at]);
        break;
    case AT_OIP_INT16:
        snprintf(text, sizeof text, "%" PRId16, ((const int16_t *)data)[at]);
        break;
    case AT_OIP_INT32:
        snprintf(text, sizeof text, "%" PRId32, ((const int32_t *)data)[at]);
        break;
    case AT_OIP_INT64:
        snprintf(text, sizeof text, "%" PRId64, ((const int64_t *)data)[at]);
        break;
    default:
        w->rc = w->rc != AT_OK ? w->rc : AT_INVALID;
        return;
    }
    put(w, text);
}

static size_t binary_bytes(enum at_oip_type type, const struct at_oip_tensor *tensor)
{
    if (type != AT_OIP_BYTES) {
        return tensor->n_elements * at_oip_type_bytes(type);
    }
    size_t sum = 0;
    for (size_t i = 0; i < tensor->n_elements; i++) {
        sum += sizeof(uint32_t) + ((const struct at_str *)tensor->data)[i].len;
    }
    return sum;
}

static void put_raw(struct writer *w, const void *data, size_t len)
{
    if (w->rc == AT_OK && len != 0) {
        w->rc = at_buf_append(w->buf, data, len);
    }
}

static void put_binary(struct writer *w, enum at_oip_type type, const struct at_oip_tensor *tensor)
{
    if (type != AT_OIP_BYTES) {
        put_raw(w, tensor->data, binary_bytes(type, tensor));
        return;
    }
    for (size_t i = 0; i < tensor->n_elements; i++) {
        struct at_str s = ((const struct at_str *)tensor->data)[i];
        uint32_t len = (uint32_t)s.len;
        put_raw(w, &len, sizeof len);
        put_raw(w, s.ptr, s.len);
    }
}

static void put_output(struct writer *w, const struct at_oip_tensor_spec *spec,
                       const struct at_oip_tensor *tensor, bool binary)
{
    put_field(w, "{\"name\":", spec->name);
    put_field(w, ",\"datatype\":", at_oip_type_name(spec->type));
    put(w, ",\"shape\":");
    put_shape(w, tensor->shape, tensor->n_dims);
    if (binary) {
        if (w->rc == AT_OK) {
            w->rc = at_buf_printf(w->buf, ",\"parameters\":{\"binary_data_size\":%zu}}",
                                  binary_bytes(spec->type, tensor));
        }
        return;
    }
    put(w, ",\"data\":[");
    for (size_t i = 0; i < tensor->n_elements && w->rc == AT_OK; i++) {
        if (i != 0) {
            put(w, ",");
        }
        put_element(w, spec->type, tensor->data, i);
    }
    put(w, "]}");
}

enum at_rc at_oip_encode_infer(const struct at_oip_spec *spec, const struct at_oip_request *request,
                               const struct at_oip_tensor *outputs, struct at_buf *buf,
                               size_t *ret_json_len, struct at_err *err)
{
    size_t from = buf->len;
    struct writer w = {buf, AT_OK};
    bool any_binary = false;
    put_field(&w, "{\"model_name\":", spec->model);
    if (spec->version != NULL) {
        put_field(&w, ",\"model_version\":", spec->version);
    }
    if (request->id != NULL) {
        put_field(&w, ",\"id\":", request->id);
    }
    put(&w, ",\"outputs\":[");
    for (size_t i = 0; i < request->n_outputs; i++) {
        const struct at_oip_tensor_spec *output = &spec->outputs[request->outputs[i]];
        assert(request->outputs[i] < spec->n_outputs);
        put(&w, i != 0 ? "," : "");
        put_output(&w, output, &outputs[i], request->output_binary[i]);
        any_binary = any_binary || request->output_binary[i];
        if (w.rc == AT_INVALID) {
            return at_err_set(err, AT_INVALID,
                              "output \"%s\" (%s) cannot be said in JSON: ask for binary_data",
                              output->name, at_oip_type_name(output->type));
        }
    }
    put(&w, "]}");
    size_t json_len = buf->len - from;
    for (size_t i = 0; i < request->n_outputs; i++) {
        if (request->output_binary[i]) {
            put_binary(&w, spec->outputs[request->outputs[i]].type, &outputs[i]);
        }
    }
    if (w.rc != AT_OK) {
        return at_err_set(err, w.rc, "the answer is too large");
    }
    *ret_json_len = any_binary ? json_len : 0;
    return AT_OK;
}

static void put_specs(struct writer *w, const struct at_oip_tensor_spec *specs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        put(w, i != 0 ? "," : "");
        put_field(w, "{\"name\":", specs[i].name);
        put_field(w, ",\"datatype\":", at_oip_type_name(specs[i].type));
        put(w, ",\"shape\":");
        put_shape(w, specs[i].shape, specs[i].n_dims);
        put(w, "}");
    }
}

enum at_rc at_oip_encode_metadata(const struct at_oip_spec *spec, struct at_buf *buf)
{
    struct writer w = {buf, AT_OK};
    put_field(&w, "{\"name\":", spec->model);
    put(&w, ",\"versions\":[");
    if (spec->version != NULL) {
        put_field(&w, "", spec->version);
    }
    put_field(&w, "],\"platform\":", spec->platform);
    put(&w, ",\"inputs\":[");
    put_specs(&w, spec->inputs, spec->n_inputs);
    put(&w, "],\"outputs\":[");
    put_specs(&w, spec->outputs, spec->n_outputs);
    put(&w, "]");
    if (spec->description != NULL) {
        put_field(&w, ",\"description\":", spec->description);
    }
    for (size_t i = 0; i < spec->n_properties; i++) {
        put_field(&w, i == 0 ? ",\"properties\":{" : ",", spec->properties[i].key);
        put_field(&w, ":", spec->properties[i].value);
    }
    put(&w, spec->n_properties != 0 ? "}" : "");
    put(&w, "}");
    return w.rc;
}

enum at_rc at_oip_encode_error(const char *message, struct at_buf *buf)
{
    struct writer w = {buf, AT_OK};
    size_t from = buf->len;
    put_field(&w, "{\"error\":", message);
    if (w.rc == AT_INVALID) { /* the client's own bytes, cut in the middle of a character */
        buf->len = from;
        w.rc = AT_OK;
        put(&w, "{\"error\":\"malformed request\"");
    }
    put(&w, "}");
    return w.rc;
}
