#include "runners/oip_priv.h"

#include "core/json.h"
#include "core/mem.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

struct type_row {
    const char *name;
    size_t bytes;
};

static const struct type_row TYPE_ROWS[AT_OIP_TYPE_COUNT] = {
#define X(type, name, bytes) [type] = {name, bytes},
    AT_OIP_TYPE_TABLE(X)
#undef X
};

const char *at_oip_type_name(enum at_oip_type type)
{
    assert((unsigned)type < AT_OIP_TYPE_COUNT);
    return TYPE_ROWS[type].name;
}

size_t at_oip_type_bytes(enum at_oip_type type)
{
    assert((unsigned)type < AT_OIP_TYPE_COUNT);
    return TYPE_ROWS[type].bytes;
}

const char *at_oip_shape_text(const int64_t *shape, size_t n_dims, char out[AT_OIP_SHAPE_TEXT_MAX])
{
    size_t used = (size_t)snprintf(out, AT_OIP_SHAPE_TEXT_MAX, "[");
    for (size_t i = 0; i < n_dims; i++) {
        used += (size_t)snprintf(out + used, AT_OIP_SHAPE_TEXT_MAX - used, "%s%lld",
                                 i != 0 ? "," : "", (long long)shape[i]);
    }
    snprintf(out + used, AT_OIP_SHAPE_TEXT_MAX - used, "]");
    return out;
}

/* Where the parser is, so that each error can name it. */
struct parse {
    const struct at_oip_spec *spec;
    struct at_arena *arena;
    size_t body_len;
    const char *binary; /* raw tensors not yet taken */
    size_t binary_len;
    struct at_err *err;
};

static const char *kind_of(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a real number";
    case JSON_NULL:
        return "null";
    default:
        return "a truth value";
    }
}

static bool spec_find(const struct at_oip_tensor_spec *specs, size_t n, const char *name,
                      size_t *ret_index)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(specs[i].name, name) == 0) {
            *ret_index = i;
            return true;
        }
    }
    return false;
}

static const char *spec_names(const struct at_oip_tensor_spec *specs, size_t n, char *out,
                              size_t out_bytes)
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < n && used < out_bytes; i++) {
        used += (size_t)snprintf(out + used, out_bytes - used, "%s%s", i != 0 ? ", " : "",
                                 specs[i].name);
    }
    return out;
}

static enum at_rc parse_shape(struct parse *p, const struct at_oip_tensor_spec *spec,
                              const json_t *input, struct at_oip_tensor *tensor)
{
    const json_t *shape = json_object_get(input, "shape");
    if (!json_is_array(shape)) {
        return at_err_set(p->err, AT_BAD_REQUEST,
                          "input \"%s\": shape must be an array of integers", spec->name);
    }
    size_t rank = json_array_size(shape);
    char want[AT_OIP_SHAPE_TEXT_MAX], got[AT_OIP_SHAPE_TEXT_MAX];
    if (rank != spec->n_dims) {
        return at_err_set(p->err, AT_BAD_REQUEST,
                          "input \"%s\": shape has %zu dimensions, the model takes %s", spec->name,
                          rank, at_oip_shape_text(spec->shape, spec->n_dims, want));
    }
    int64_t elements = 1;
    bool fits = true;
    for (size_t i = 0; i < rank; i++) {
        const json_t *dim = json_array_get(shape, i);
        int64_t value = json_is_integer(dim) ? json_integer_value(dim) : -1;
        if (value < 0 || value > AT_OIP_ELEMENTS_MAX) {
            return at_err_set(p->err, AT_BAD_REQUEST,
                              "input \"%s\": shape[%zu] must be an integer of 0 to %lld",
                              spec->name, i, (long long)AT_OIP_ELEMENTS_MAX);
        }
        tensor->shape[i] = value;
        fits = fits && (spec->shape[i] < 0 || spec->shape[i] == value);
        elements *= value; /* both at most 2^26, so far from overflow */
        if (elements > AT_OIP_ELEMENTS_MAX) {
            return at_err_set(p->err, AT_BAD_REQUEST,
                              "input \"%s\": more than %lld elements in one tensor", spec->name,
                              (long long)AT_OIP_ELEMENTS_MAX);
        }
    }
    if (!fits) {
        return at_err_set(p->err, AT_BAD_REQUEST,
                          "input \"%s\": shape %s does not fit the model's %s", spec->name,
                          at_oip_shape_text(tensor->shape, rank, got),
                          at_oip_shape_text(spec->shape, rank, want));
    }
    tensor->n_dims = rank;
    tensor->n_elements = (size_t)elements;
    return AT_OK;
}

static enum at_rc bad_element(struct parse *p, const struct at_oip_tensor_spec *spec, size_t at,
                              const json_t *value, const char *want)
{
    return at_err_set(p->err, AT_BAD_REQUEST, "input \"%s\": data[%zu] is %s, %s takes %s",
                      spec->name, at, kind_of(value), at_oip_type_name(spec->type), want);
}

static enum at_rc store_integer(struct parse *p, const struct at_oip_tensor_spec *spec, size_t at,
                                const json_t *value, char *data)
{
    if (!json_is_integer(value)) {
        return bad_element(p, spec, at, value, "integers");
    }
    size_t bytes = at_oip_type_bytes(spec->type);
    bool is_signed = spec->type >= AT_OIP_INT8 && spec->type <= AT_OIP_INT64;
    int64_t number = json_integer_value(value);
    int64_t most = bytes == 8 ? INT64_MAX : (INT64_C(1) << (8 * bytes - (is_signed ? 1 : 0))) - 1;
    int64_t least = !is_signed ? 0 : bytes == 8 ? INT64_MIN : -most - 1;
    if (number < least || number > most) {
        return at_err_set(p->err, AT_BAD_REQUEST, "input \"%s\": data[%zu] = %lld is outside %s",
                          spec->name, at, (long long)number, at_oip_type_name(spec->type));
    }
    memcpy(data + at * bytes, &number, bytes); /* little-endian machines only, as the protocol */
    return AT_OK;
}

static enum at_rc store_element(struct parse *p, const struct at_oip_tensor_spec *spec, size_t at,
                                const json_t *value, void *data)
{
    switch (spec->type) {
    case AT_OIP_FP32:
        if (!json_is_number(value)) {
            return bad_element(p, spec, at, value, "numbers");
        }
        ((float *)data)[at] = (float)json_number_value(value);
        return AT_OK;
    case AT_OIP_FP64:
        if (!json_is_number(value)) {
            return bad_element(p, spec, at, value, "numbers");
        }
        ((double *)data)[at] = json_number_value(value);
        return AT_OK;
    case AT_OIP_BOOL:
        if (!json_is_boolean(value)) {
            return bad_element(p, spec, at, value, "true and false");
        }
        ((uint8_t *)data)[at] = json_is_true(value) ? 1 : 0;
        return AT_OK;
    case AT_OIP_BYTES: {
        if (!json_is_string(value)) {
            return bad_element(p, spec, at, value, "strings");
        }
        size_t len = json_string_length(value);
        char *copy = at_arena_strndup(p->arena, json_string_value(value), len);
        if (copy == NULL) {
            return at_err_set(p->err, AT_TOO_LARGE, "input \"%s\": too large", spec->name);
        }
        ((struct at_str *)data)[at] = (struct at_str){copy, len};
        return AT_OK;
    }
    default:
        return store_integer(p, spec, at, value, data);
    }
}

/* Nested data, depth levels below the tensor's top: arrays must be as long as the shape says. */
static enum at_rc store_nested(struct parse *p, const struct at_oip_tensor_spec *spec,
                               const struct at_oip_tensor *tensor, const json_t *node, size_t depth,
                               size_t *at, void *data)
{
    if (depth == tensor->n_dims) {
        return store_element(p, spec, (*at)++, node, data);
    }
    if (!json_is_array(node) || json_array_size(node) != (size_t)tensor->shape[depth]) {
        char text[AT_OIP_SHAPE_TEXT_MAX], got[32];
        snprintf(got, sizeof got, "%zu", json_array_size(node));
        return at_err_set(
            p->err, AT_BAD_REQUEST,
            "input \"%s\": nested data must have %lld elements at depth %zu for shape "
            "%s, got %s",
            spec->name, (long long)tensor->shape[depth], depth,
            at_oip_shape_text(tensor->shape, tensor->n_dims, text),
            json_is_array(node) ? got : kind_of(node));
    }
    for (size_t i = 0; i < json_array_size(node); i++) {
        enum at_rc rc = store_nested(p, spec, tensor, json_array_get(node, i), depth + 1, at, data);
        if (rc != AT_OK) {
            return rc;
        }
    }
    return AT_OK;
}

static enum at_rc parse_json_data(struct parse *p, const struct at_oip_tensor_spec *spec,
                                  const json_t *array, struct at_oip_tensor *tensor, void *data)
{
    if (spec->type == AT_OIP_FP16 || spec->type == AT_OIP_BF16) {
        return at_err_set(p->err, AT_BAD_REQUEST,
                          "input \"%s\": %s travels as binary data only (binary_data_size)",
                          spec->name, at_oip_type_name(spec->type));
    }
    size_t at = 0;
    if (tensor->n_dims > 0 && json_is_array(json_array_get(array, 0))) {
        return store_nested(p, spec, tensor, array, 0, &at, data);
    }
    if (json_array_size(array) != tensor->n_elements) {
        char text[AT_OIP_SHAPE_TEXT_MAX];
        return at_err_set(
            p->err, AT_BAD_REQUEST, "input \"%s\": data has %zu elements, shape %s needs %zu",
            spec->name, json_array_size(array),
            at_oip_shape_text(tensor->shape, tensor->n_dims, text), tensor->n_elements);
    }
    for (at = 0; at < tensor->n_elements; at++) {
        enum at_rc rc = store_element(p, spec, at, json_array_get(array, at), data);
        if (rc != AT_OK) {
            return rc;
        }
    }
    return AT_OK;
}

/* BYTES in binary: each element is a 32-bit length and so many bytes. */
static enum at_rc parse_binary_bytes(struct parse *p, const struct at_oip_tensor_spec *spec,
                                     size_t n_elements, const char *raw, size_t raw_len,
                                     struct at_str *out)
{
    size_t at = 0;
    for (size_t i = 0; i < n_elements; i++) {
        uint32_t len;
        if (raw_len - at < sizeof len) {
            return at_err_set(p->err, AT_BAD_REQUEST,
                              "input \"%s\": binary data ends in element %zu", spec->name, i);
        }
        memcpy(&len, raw + at, sizeof len);
        at += sizeof len;
        if (raw_len - at < len) {
            return at_err_set(p->err, AT_BAD_REQUEST,
                              "input \"%s\": element %zu is longer than the binary data",
                              spec->name, i);
        }
        char *copy = at_arena_strndup(p->arena, raw + at, len);
        if (copy == NULL) {
            return at_err_set(p->err, AT_TOO_LARGE, "input \"%s\": too large", spec->name);
        }
        out[i] = (struct at_str){copy, len};
        at += len;
    }
    if (at != raw_len) {
        return at_err_set(p->err, AT_BAD_REQUEST,
                          "input \"%s\": %zu bytes of binary data are left over", spec->name,
                          raw_len - at);
    }
    return AT_OK;
}

static enum at_rc parse_binary_data(struct parse *p, const struct at_oip_tensor_spec *spec,
                                    int64_t size, struct at_oip_tensor *tensor, void *data)
{
    if (size < 0 || (uint64_t)size > p->binary_len) {
        return at_err_set(p->err, AT_BAD_REQUEST,
                          "input \"%s\": binary_data_size %lld, but %zu bytes follow the JSON",
                          spec->name, (long long)size, p->binary_len);
    }
    const char *raw = p->binary;
    p->binary += size;
    p->binary_len -= (size_t)size;
    if (spec->type == AT_OIP_BYTES) {
        return parse_binary_bytes(p, spec, tensor->n_elements, raw, (size_t)size, data);
    }
    size_t want = tensor->n_elements * at_oip_type_bytes(spec->type);
    if ((size_t)size != want) {
        char text[AT_OIP_SHAPE_TEXT_MAX];
        return at_err_set(p->err, AT_BAD_REQUEST,
                          "input \"%s\": binary_data_size %lld, %s of shape %s needs %zu",
                          spec->name, (long long)size, at_oip_type_name(spec->type),
                          at_oip_shape_text(tensor->shape, tensor->n_dims, text), want);
    }
    if (want != 0) {
        memcpy(data, raw, want);
    }
    if (spec->type == AT_OIP_BOOL) {
        for (size_t i = 0; i < want; i++) {
            ((uint8_t *)data)[i] = ((uint8_t *)data)[i] != 0;
        }
    }
    return AT_OK;
}

static enum at_rc parse_input(struct parse *p, const json_t *input,
                              const struct at_oip_tensor_spec *spec, struct at_oip_tensor *tensor)
{
    const char *type = json_string_value(json_object_get(input, "datatype"));
    if (type == NULL || strcmp(type, at_oip_type_name(spec->type)) != 0) {
        return at_err_set(p->err, AT_BAD_REQUEST,
                          "input \"%s\": datatype %.32s, the model takes %s", spec->name,
                          type != NULL ? type : "is missing", at_oip_type_name(spec->type));
    }
    enum at_rc rc = parse_shape(p, spec, input, tensor);
    if (rc != AT_OK) {
        return rc;
    }
    const json_t *array = json_object_get(input, "data");
    const json_t *size = json_object_get(json_object_get(input, "parameters"), "binary_data_size");
    if ((array != NULL) == (size != NULL)) {
        return at_err_set(p->err, AT_BAD_REQUEST,
                          "input \"%s\": needs either data or parameters.binary_data_size",
                          spec->name);
    }
    if (array != NULL ? !json_is_array(array) : !json_is_integer(size)) {
        return at_err_set(p->err, AT_BAD_REQUEST, "input \"%s\": %s, got %s", spec->name,
                          array != NULL ? "data must be an array"
                                        : "binary_data_size must be an integer",
                          kind_of(array != NULL ? array : size));
    }
    if (tensor->n_elements > p->body_len) { /* each takes a byte: do not allocate for a claim */
        char text[AT_OIP_SHAPE_TEXT_MAX];
        return at_err_set(p->err, AT_BAD_REQUEST,
                          "input \"%s\": data has fewer elements than shape %s needs", spec->name,
                          at_oip_shape_text(tensor->shape, tensor->n_dims, text));
    }
    size_t each =
        spec->type == AT_OIP_BYTES ? sizeof(struct at_str) : at_oip_type_bytes(spec->type);
    void *data = at_arena_alloc(p->arena, tensor->n_elements * each + 1);
    if (data == NULL) {
        return at_err_set(p->err, AT_TOO_LARGE, "input \"%s\": too large", spec->name);
    }
    tensor->data = data;
    return array != NULL ? parse_json_data(p, spec, array, tensor, data)
                         : parse_binary_data(p, spec, json_integer_value(size), tensor, data);
}

static enum at_rc parse_inputs(struct parse *p, const json_t *root, struct at_oip_request *ret)
{
    const json_t *inputs = json_object_get(root, "inputs");
    if (!json_is_array(inputs)) {
        return at_err_set(p->err, AT_BAD_REQUEST, "\"inputs\" must be an array of tensors");
    }
    bool seen[AT_OIP_TENSORS_MAX] = {false};
    char names[AT_ERR_MSG_BYTES_MAX / 2];
    for (size_t i = 0; i < json_array_size(inputs); i++) {
        const json_t *input = json_array_get(inputs, i);
        const char *name = json_string_value(json_object_get(input, "name"));
        size_t index;
        if (name == NULL) {
            return at_err_set(p->err, AT_BAD_REQUEST, "inputs[%zu].name must be a string", i);
        }
        if (!spec_find(p->spec->inputs, p->spec->n_inputs, name, &index)) {
            return at_err_set(p->err, AT_BAD_REQUEST,
                              "input \"%.64s\" is not one of the model's: %s", name,
                              spec_names(p->spec->inputs, p->spec->n_inputs, names, sizeof names));
        }
        if (seen[index]) {
            return at_err_set(p->err, AT_BAD_REQUEST, "input \"%s\" comes twice", name);
        }
        seen[index] = true;
        enum at_rc rc = parse_input(p, input, &p->spec->inputs[index], &ret->inputs[index]);
        if (rc != AT_OK) {
            return rc;
        }
    }
    for (size_t i = 0; i < p->spec->n_inputs; i++) {
        if (!seen[i]) {
            char text[AT_OIP_SHAPE_TEXT_MAX];
            const struct at_oip_tensor_spec *spec = &p->spec->inputs[i];
            return at_err_set(p->err, AT_BAD_REQUEST, "input \"%s\" (%s %s) is missing", spec->name,
                              at_oip_type_name(spec->type),
                              at_oip_shape_text(spec->shape, spec->n_dims, text));
        }
    }
    return AT_OK;
}

static enum at_rc parse_outputs(struct parse *p, const json_t *root, struct at_oip_request *ret)
{
    bool all_binary = at_json_bool_at(root, "parameters.binary_data_output", false);
    const json_t *outputs = json_object_get(root, "outputs");
    if (outputs == NULL || (json_is_array(outputs) && json_array_size(outputs) == 0)) {
        ret->n_outputs = p->spec->n_outputs;
        for (size_t i = 0; i < ret->n_outputs; i++) {
            ret->outputs[i] = i;
            ret->output_binary[i] = all_binary;
        }
        return AT_OK;
    }
    if (!json_is_array(outputs)) {
        return at_err_set(p->err, AT_BAD_REQUEST, "\"outputs\" must be an array");
    }
    bool seen[AT_OIP_TENSORS_MAX] = {false};
    char names[AT_ERR_MSG_BYTES_MAX / 2];
    for (size_t i = 0; i < json_array_size(outputs); i++) {
        const json_t *output = json_array_get(outputs, i);
        const char *name = json_string_value(json_object_get(output, "name"));
        size_t index;
        if (name == NULL || !spec_find(p->spec->outputs, p->spec->n_outputs, name, &index)) {
            return at_err_set(
                p->err, AT_BAD_REQUEST, "output \"%.64s\" is not one of the model's: %s",
                name != NULL ? name : "",
                spec_names(p->spec->outputs, p->spec->n_outputs, names, sizeof names));
        }
        if (seen[index]) {
            return at_err_set(p->err, AT_BAD_REQUEST, "output \"%s\" comes twice", name);
        }
        seen[index] = true;
        ret->output_binary[ret->n_outputs] =
            at_json_bool_at(output, "parameters.binary_data", all_binary);
        ret->outputs[ret->n_outputs++] = index;
    }
    return AT_OK;
}

/* Triton's names: priority (1 is served first) and timeout (microseconds). Other parameters are
 * nothing to us. */
static enum at_rc parse_parameters(struct parse *p, const json_t *root, struct at_oip_request *ret)
{
    const json_t *priority = at_json_at(root, "parameters.priority");
    const json_t *timeout = at_json_at(root, "parameters.timeout");
    json_int_t level = json_integer_value(priority), wait_us = json_integer_value(timeout);
    if (priority != NULL && (!json_is_integer(priority) || level < 0 || level > INT32_MAX)) {
        return at_err_set(p->err, AT_BAD_REQUEST, "parameters.priority must be a level, 1 or more");
    }
    if (timeout != NULL &&
        (!json_is_integer(timeout) || wait_us < 0 || wait_us > AT_RUNNER_WAIT_NS_MAX / 1000)) {
        return at_err_set(p->err, AT_BAD_REQUEST,
                          "parameters.timeout must be microseconds, at most an hour of them");
    }
    ret->priority = (size_t)level;
    ret->timeout_ns = wait_us * 1000;
    return AT_OK;
}

enum at_rc at_oip_parse_infer(const struct at_oip_spec *spec, const char *body, size_t len,
                              size_t json_len, struct at_arena *arena, struct at_oip_request *ret,
                              struct at_err *err)
{
    assert(spec->n_inputs <= AT_OIP_TENSORS_MAX);
    assert(spec->n_outputs <= AT_OIP_TENSORS_MAX);
    *ret = (struct at_oip_request){0};
    if (json_len > len) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "Inference-Header-Content-Length is %zu, the body has %zu bytes",
                          json_len, len);
    }
    AT_CLEANUP(at_cleanup_json) json_t *root = NULL;
    enum at_rc rc = at_json_parse(body, json_len, &root, err);
    if (rc != AT_OK) {
        return rc;
    }
    if (!json_is_object(root)) {
        return at_err_set(err, AT_BAD_REQUEST, "the request must be a JSON object, got %s",
                          kind_of(root));
    }
    const json_t *id = json_object_get(root, "id");
    if (id != NULL) {
        if (!json_is_string(id) || json_string_length(id) > AT_OIP_ID_BYTES_MAX) {
            return at_err_set(err, AT_BAD_REQUEST, "\"id\" must be a string of at most %d bytes",
                              AT_OIP_ID_BYTES_MAX);
        }
        ret->id = at_arena_strdup(arena, json_string_value(id));
        if (ret->id == NULL) {
            return at_err_set(err, AT_TOO_LARGE, "the request is too large");
        }
    }
    struct parse p = {spec, arena, len, body + json_len, len - json_len, err};
    rc = parse_inputs(&p, root, ret);
    if (rc == AT_OK && p.binary_len != 0) {
        return at_err_set(err, AT_BAD_REQUEST, "%zu bytes after the last binary tensor",
                          p.binary_len);
    }
    rc = rc != AT_OK ? rc : parse_parameters(&p, root, ret);
    return rc != AT_OK ? rc : parse_outputs(&p, root, ret);
}
