/* gRPC requests to REST requests. */
#include "gateway/grpc.h"

#include "core/json.h"
#include "core/mem.h"
#include "gateway/grpc_priv.h"
#include "gateway/pb.h"

#include <stdio.h>

#define FRAME_BYTES 5
#define SERVICE "/inference.GRPCInferenceService/"

static const struct gw_datatype DATATYPES[] = {
    {"BOOL", GW_BOOL, 1, 1},   {"UINT8", GW_UINT, 1, 4},  {"UINT16", GW_UINT, 2, 4},
    {"UINT32", GW_UINT, 4, 4}, {"UINT64", GW_UINT, 8, 5}, {"INT8", GW_INT, 1, 2},
    {"INT16", GW_INT, 2, 2},   {"INT32", GW_INT, 4, 2},   {"INT64", GW_INT, 8, 3},
    {"FP16", GW_HALF, 2, 0},   {"BF16", GW_HALF, 2, 0},   {"FP32", GW_FLOAT, 4, 6},
    {"FP64", GW_FLOAT, 8, 7},  {"BYTES", GW_BYTES, 0, 8},
};

const struct gw_datatype *gw_datatype_find(struct at_str name)
{
    for (size_t i = 0; i < AT_ARRAY_LEN(DATATYPES); i++) {
        if (at_str_eq(name, DATATYPES[i].name)) {
            return &DATATYPES[i];
        }
    }
    return NULL;
}

enum gw_grpc_kind gw_grpc_kind_of(const struct at_http_head *head)
{
    static const struct {
        const char *method;
        enum gw_grpc_kind kind;
    } METHODS[] = {
        {"ServerLive", GW_GRPC_SERVER_LIVE},         {"ServerReady", GW_GRPC_SERVER_READY},
        {"ServerMetadata", GW_GRPC_SERVER_METADATA}, {"ModelReady", GW_GRPC_MODEL_READY},
        {"ModelMetadata", GW_GRPC_MODEL_METADATA},   {"ModelInfer", GW_GRPC_MODEL_INFER},
    };
    struct at_str type = at_http_header_get(head, "content-type");
    static const char TYPE[] = "application/grpc";
    size_t n = sizeof TYPE - 1;
    if (head->method != AT_HTTP_POST || type.len < n || memcmp(type.ptr, TYPE, n) != 0 ||
        (type.len > n && type.ptr[n] != '+' && type.ptr[n] != ';')) {
        return GW_GRPC_NONE;
    }
    if (!at_str_starts(head->path, SERVICE)) {
        return GW_GRPC_UNKNOWN;
    }
    struct at_str name = {head->path.ptr + sizeof SERVICE - 1,
                          head->path.len - (sizeof SERVICE - 1)};
    for (size_t i = 0; i < AT_ARRAY_LEN(METHODS); i++) {
        if (at_str_eq(name, METHODS[i].method)) {
            return METHODS[i].kind;
        }
    }
    return GW_GRPC_UNKNOWN;
}

void gw_grpc_call_done(struct gw_grpc_call *call)
{
    at_buf_done(&call->target);
    at_buf_done(&call->lines);
    at_buf_done(&call->body);
}

static enum at_rc malformed(struct at_err *err, const char *what)
{
    return at_err_set(err, AT_BAD_REQUEST, "%s is no message of the protocol", what);
}

static enum at_rc unframe(struct at_str body, struct at_str *ret, struct at_err *err)
{
    if (body.len < FRAME_BYTES) {
        return at_err_set(err, AT_BAD_REQUEST, "the request carries no message");
    }
    const unsigned char *b = (const unsigned char *)body.ptr;
    size_t len = (size_t)b[1] << 24 | (size_t)b[2] << 16 | (size_t)b[3] << 8 | b[4];
    if (b[0] != 0) {
        return at_err_set(err, AT_UNSUPPORTED, "compressed messages are not taken here");
    }
    if (len != body.len - FRAME_BYTES) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "the message says %zu bytes, but %zu came: one message is wanted", len,
                          body.len - FRAME_BYTES);
    }
    *ret = (struct at_str){body.ptr + FRAME_BYTES, len};
    return AT_OK;
}

static bool is_text(struct at_str s)
{
    return memchr(s.ptr, '\0', s.len) == NULL && at_str_utf8_prefix(s) == s.len;
}

static enum at_rc take_name(struct at_str from, char *to, size_t size, const char *field,
                            struct at_err *err)
{
    if (from.len >= size) {
        return at_err_set(err, AT_INVALID, "%s: longer than %zu bytes", field, size - 1);
    }
    if (!is_text(from)) {
        return at_err_set(err, AT_INVALID, "%s: is not text", field);
    }
    memcpy(to, from.ptr, from.len);
    to[from.len] = '\0';
    return AT_OK;
}

/* Everything but unreserved characters (RFC 3986 §2.3) as %XX; "." and ".." cannot be said. */
static enum at_rc put_segment(struct at_buf *out, const char *text, const char *field,
                              struct at_err *err)
{
    if (text[0] == '\0' || strcmp(text, ".") == 0 || strcmp(text, "..") == 0) {
        return at_err_set(err, AT_INVALID, "%s: \"%s\" is no name", field, text);
    }
    enum at_rc rc = AT_OK;
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0' && rc == AT_OK; p++) {
        bool plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                     (*p >= '0' && *p <= '9') || strchr("-._~", *p) != NULL;
        rc = plain ? at_buf_append(out, p, 1) : at_buf_printf(out, "%%%02X", *p);
    }
    return rc;
}

static enum at_rc make_target(enum gw_grpc_kind kind, struct gw_grpc_call *call, struct at_err *err)
{
    struct at_buf *t = &call->target;
    at_buf_clear(t);
    enum at_rc rc = at_buf_append_str(t, "/v2/models/");
    rc = rc == AT_OK ? put_segment(t, call->model, "model_name", err) : rc;
    if (rc == AT_OK &&
        strchr(call->version, '/') != NULL) { /* some servers decode before they look */
        return at_err_set_field(err, AT_INVALID, "model_version", "model_version: has a slash");
    }
    if (rc == AT_OK && call->version[0] != '\0') {
        rc = at_buf_append_str(t, "/versions/");
        rc = rc == AT_OK ? put_segment(t, call->version, "model_version", err) : rc;
    }
    const char *end = kind == GW_GRPC_MODEL_INFER   ? "/infer"
                      : kind == GW_GRPC_MODEL_READY ? "/ready"
                                                    : "";
    return rc == AT_OK ? at_buf_append_str(t, end) : rc;
}

/* name = 1, version = 2: ModelReadyRequest and ModelMetadataRequest. */
static enum at_rc named_request(struct at_str message, struct gw_grpc_call *call,
                                struct at_err *err)
{
    struct gw_pb_field f;
    enum at_rc rc;
    while ((rc = gw_pb_next(&message, &f)) == AT_OK) {
        if (f.number == 1 && f.wire == GW_PB_BYTES) {
            rc = take_name(f.bytes, call->model, sizeof call->model, "name", err);
        } else if (f.number == 2 && f.wire == GW_PB_BYTES) {
            rc = take_name(f.bytes, call->version, sizeof call->version, "version", err);
        }
        if (rc != AT_OK) {
            return rc;
        }
    }
    return rc == AT_EOF ? AT_OK : malformed(err, "the request");
}

/* --- ModelInfer --- */

struct tensor {
    struct at_str name, datatype, contents;
    int64_t shape[AT_GW_DIMS_MAX];
    size_t n_dims;
    json_t *parameters; /* NULL: none */
};

struct infer {
    struct tensor *inputs;
    size_t n_inputs;
    struct at_str raw[AT_GW_TENSORS_MAX];
    size_t n_raw;
    json_t *root, *outputs;
    struct gw_grpc_call *call;
    struct at_err *err;
};

/* InferParameter. */
static enum at_rc parameter(struct at_str message, json_t **ret)
{
    struct gw_pb_field f;
    enum at_rc rc;
    *ret = NULL;
    while ((rc = gw_pb_next(&message, &f)) == AT_OK) {
        json_t *value = NULL;
        double number;
        if (f.number == 1 && f.wire == GW_PB_VARINT) {
            value = json_boolean(f.value != 0);
        } else if ((f.number == 2 || f.number == 5) && f.wire == GW_PB_VARINT) {
            value = json_integer((json_int_t)f.value);
        } else if (f.number == 3 && f.wire == GW_PB_BYTES && is_text(f.bytes)) {
            value = json_stringn(f.bytes.ptr, f.bytes.len);
        } else if (f.number == 4 && f.wire == GW_PB_FIXED64) {
            memcpy(&number, &f.value, sizeof number);
            value = json_real(number); /* NULL when it is no finite number */
        }
        if (value == NULL) {
            json_decref(*ret);
            *ret = NULL;
            return AT_BAD_REQUEST;
        }
        json_decref(*ret);
        *ret = value;
    }
    return rc == AT_EOF && *ret != NULL ? AT_OK : AT_BAD_REQUEST;
}

/* An entry of map<string, InferParameter>; into is made when it is NULL. */
static enum at_rc parameters_entry(struct at_str message, json_t **into, struct at_err *err)
{
    struct gw_pb_field f;
    struct at_str key = {"", 0};
    AT_CLEANUP(at_cleanup_json) json_t *value = NULL;
    enum at_rc rc;
    while ((rc = gw_pb_next(&message, &f)) == AT_OK) {
        if (f.number == 1 && f.wire == GW_PB_BYTES) {
            key = f.bytes;
        } else if (f.number == 2 && f.wire == GW_PB_BYTES) {
            json_decref(value);
            if (parameter(f.bytes, &value) != AT_OK) {
                return malformed(err, "a parameter");
            }
        }
    }
    if (rc != AT_EOF || value == NULL || !is_text(key)) {
        return malformed(err, "a parameter");
    }
    if (*into == NULL) {
        *into = json_object();
    }
    char *name = at_strndup(key.ptr, key.len);
    json_object_set(*into, name, value);
    at_free(name);
    return AT_OK;
}

static enum at_rc add_dim(struct tensor *t, uint64_t value, struct at_err *err)
{
    if (t->n_dims == AT_GW_DIMS_MAX) {
        return at_err_set(err, AT_INVALID, "inputs[%.*s].shape: more than %d dimensions",
                          (int)t->name.len, t->name.ptr, AT_GW_DIMS_MAX);
    }
    if ((int64_t)value < 0) {
        return at_err_set(err, AT_INVALID, "inputs[%.*s].shape: a negative dimension",
                          (int)t->name.len, t->name.ptr);
    }
    t->shape[t->n_dims++] = (int64_t)value;
    return AT_OK;
}

static enum at_rc input(struct at_str message, struct tensor *t, struct at_err *err)
{
    struct gw_pb_field f;
    enum at_rc rc;
    while ((rc = gw_pb_next(&message, &f)) == AT_OK) {
        bool bytes = f.wire == GW_PB_BYTES;
        uint64_t dim;
        if (f.number == 1 && bytes) {
            t->name = f.bytes;
        } else if (f.number == 2 && bytes) {
            t->datatype = f.bytes;
        } else if (f.number == 3 && f.wire == GW_PB_VARINT) {
            rc = add_dim(t, f.value, err);
        } else if (f.number == 3 && bytes) { /* packed */
            while (rc == AT_OK && (rc = gw_pb_varint(&f.bytes, &dim)) == AT_OK) {
                rc = add_dim(t, dim, err);
            }
            rc = rc == AT_EOF ? AT_OK : rc;
        } else if (f.number == 4 && bytes) {
            rc = parameters_entry(f.bytes, &t->parameters, err);
        } else if (f.number == 5 && bytes) {
            t->contents = f.bytes;
        }
        if (rc != AT_OK) {
            return rc == AT_BAD_REQUEST ? malformed(err, "an input") : rc;
        }
    }
    return rc == AT_EOF && is_text(t->name) ? AT_OK : malformed(err, "an input");
}

static enum at_rc requested_output(struct at_str message, struct infer *in)
{
    struct gw_pb_field f;
    json_t *parameters = json_object();
    struct at_str name = {"", 0};
    enum at_rc rc;
    while ((rc = gw_pb_next(&message, &f)) == AT_OK) {
        if (f.number == 1 && f.wire == GW_PB_BYTES) {
            name = f.bytes;
        } else if (f.number == 2 && f.wire == GW_PB_BYTES) {
            rc = parameters_entry(f.bytes, &parameters, in->err);
            if (rc != AT_OK) {
                break;
            }
        }
    }
    if (rc != AT_EOF || !is_text(name)) {
        json_decref(parameters);
        return malformed(in->err, "an output");
    }
    json_object_set_new(parameters, "binary_data", json_true());
    json_t *output = json_object();
    json_object_set_new(output, "name", json_stringn(name.ptr, name.len));
    json_object_set_new(output, "parameters", parameters);
    json_array_append_new(in->outputs, output);
    return AT_OK;
}

static enum at_rc infer_field(struct infer *in, const struct gw_pb_field *f)
{
    struct gw_grpc_call *call = in->call;
    if (f->wire != GW_PB_BYTES) {
        return AT_OK; /* of a later version of the protocol */
    }
    switch (f->number) {
    case 1:
        return take_name(f->bytes, call->model, sizeof call->model, "model_name", in->err);
    case 2:
        return take_name(f->bytes, call->version, sizeof call->version, "model_version", in->err);
    case 3:
        if (!is_text(f->bytes)) {
            return at_err_set(in->err, AT_INVALID, "id: is not text");
        }
        json_object_set_new(in->root, "id", json_stringn(f->bytes.ptr, f->bytes.len));
        return AT_OK;
    case 4: {
        json_t *parameters = json_object_get(in->root, "parameters");
        return parameters_entry(f->bytes, &parameters, in->err);
    }
    case 5:
        if (in->n_inputs == AT_GW_TENSORS_MAX) {
            return at_err_set(in->err, AT_TOO_LARGE, "inputs: more than %d", AT_GW_TENSORS_MAX);
        }
        in->inputs[in->n_inputs] =
            (struct tensor){.name = {"", 0}, .datatype = {"", 0}, .contents = {NULL, 0}};
        return input(f->bytes, &in->inputs[in->n_inputs++], in->err);
    case 6:
        if (json_array_size(in->outputs) == AT_GW_TENSORS_MAX) {
            return at_err_set(in->err, AT_TOO_LARGE, "outputs: more than %d", AT_GW_TENSORS_MAX);
        }
        return requested_output(f->bytes, in);
    case 7:
        if (in->n_raw == AT_GW_TENSORS_MAX) {
            return at_err_set(in->err, AT_TOO_LARGE, "raw_input_contents: more than %d",
                              AT_GW_TENSORS_MAX);
        }
        in->raw[in->n_raw++] = f->bytes;
        return AT_OK;
    default:
        return AT_OK;
    }
}

/* One value of typed contents, in the tensor's own size. err: AT_INVALID it does not fit. */
static enum at_rc put_value(struct at_buf *out, const struct gw_datatype *type, uint64_t value)
{
    int64_t min = type->size == 8 ? INT64_MIN : -(INT64_C(1) << (8 * type->size - 1));
    if ((type->element == GW_INT && ((int64_t)value < min || (int64_t)value > -(min + 1))) ||
        (type->element == GW_UINT && type->size < 8 && value >> 8 * type->size != 0)) {
        return AT_INVALID;
    }
    if (type->element == GW_BOOL) {
        value = value != 0;
    }
    return at_buf_append(out, &value, type->size); /* little-endian, as this machine */
}

static enum at_rc put_element(struct at_buf *out, const struct gw_datatype *type,
                              const struct gw_pb_field *f)
{
    if (type->element == GW_BYTES) {
        if (f->wire != GW_PB_BYTES) {
            return AT_BAD_REQUEST;
        }
        uint32_t len = (uint32_t)f->bytes.len;
        enum at_rc rc = at_buf_append(out, &len, sizeof len);
        return rc == AT_OK && len > 0 ? at_buf_append(out, f->bytes.ptr, len) : rc;
    }
    if (f->wire == GW_PB_BYTES && type->element == GW_FLOAT) { /* packed */
        return f->bytes.len % type->size == 0 ? at_buf_append(out, f->bytes.ptr, f->bytes.len)
                                              : AT_BAD_REQUEST;
    }
    if (f->wire != GW_PB_BYTES) {
        enum gw_pb_wire wire = type->element != GW_FLOAT ? GW_PB_VARINT
                               : type->size == 4         ? GW_PB_FIXED32
                                                         : GW_PB_FIXED64;
        return f->wire == wire ? put_value(out, type, f->value) : AT_BAD_REQUEST;
    }
    struct at_str rest = f->bytes;
    uint64_t value;
    enum at_rc rc;
    while ((rc = gw_pb_varint(&rest, &value)) == AT_OK) {
        rc = put_value(out, type, value);
        if (rc != AT_OK) {
            return rc;
        }
    }
    return rc == AT_EOF ? AT_OK : rc;
}

/* InferTensorContents as little-endian bytes. */
static enum at_rc put_contents(struct at_buf *out, const struct tensor *t,
                               const struct gw_datatype *type, struct at_err *err)
{
    struct gw_pb_field f;
    struct at_str rest = t->contents;
    enum at_rc rc;
    while ((rc = gw_pb_next(&rest, &f)) == AT_OK) {
        if (type->contents == 0 || f.number != type->contents) {
            return at_err_set(err, AT_INVALID, "inputs[%.*s].contents: not the field for %s",
                              (int)t->name.len, t->name.ptr, type->name);
        }
        rc = put_element(out, type, &f);
        if (rc == AT_INVALID) {
            return at_err_set(err, AT_INVALID, "inputs[%.*s].contents: a value is no %s",
                              (int)t->name.len, t->name.ptr, type->name);
        }
        if (rc != AT_OK) {
            return rc == AT_BAD_REQUEST ? malformed(err, "contents") : rc;
        }
    }
    return rc == AT_EOF ? AT_OK : malformed(err, "contents");
}

/* Do the bytes make up shape times type? */
static enum at_rc check_size(const struct tensor *t, const struct gw_datatype *type,
                             struct at_str bytes, struct at_err *err)
{
    uint64_t n = 1;
    for (size_t i = 0; i < t->n_dims; i++) {
        if (__builtin_mul_overflow(n, (uint64_t)t->shape[i], &n)) {
            return at_err_set(err, AT_INVALID, "inputs[%.*s].shape: too many elements",
                              (int)t->name.len, t->name.ptr);
        }
    }
    uint64_t want = 0, have = bytes.len;
    bool fits = !__builtin_mul_overflow(n, (uint64_t)type->size, &want);
    if (type->size == 0) { /* counted */
        have = 0;
        want = n;
        while (bytes.len >= 4 && fits) {
            uint32_t len;
            memcpy(&len, bytes.ptr, sizeof len);
            fits = len <= bytes.len - 4;
            bytes.ptr += fits ? 4 + len : 0;
            bytes.len -= fits ? 4 + len : 0;
            have++;
        }
        fits = fits && bytes.len == 0;
    }
    if (!fits || have != want) {
        return at_err_set(err, AT_INVALID,
                          "inputs[%.*s]: %llu %s, but shape and datatype want %llu",
                          (int)t->name.len, t->name.ptr, (unsigned long long)have,
                          type->size == 0 ? "elements" : "bytes", (unsigned long long)want);
    }
    return AT_OK;
}

/* Binary data of one input behind the JSON, and its entry in it. */
static enum at_rc put_input(struct infer *in, size_t i, struct at_buf *binary, json_t *inputs)
{
    struct tensor *t = &in->inputs[i];
    const struct gw_datatype *type = gw_datatype_find(t->datatype);
    if (type == NULL || t->name.len == 0) {
        return at_err_set(in->err, AT_INVALID, "inputs[%.*s].%s: not known here", (int)t->name.len,
                          t->name.ptr, type == NULL ? "datatype" : "name");
    }
    size_t from = binary->len;
    enum at_rc rc;
    if (in->n_raw > 0) {
        rc = in->raw[i].len > 0 ? at_buf_append(binary, in->raw[i].ptr, in->raw[i].len) : AT_OK;
    } else {
        rc = put_contents(binary, t, type, in->err);
    }
    if (rc == AT_OK) {
        struct at_str bytes = {binary->data != NULL ? binary->data + from : "", binary->len - from};
        rc = check_size(t, type, bytes, in->err);
    }
    if (rc != AT_OK) {
        return rc == AT_TOO_LARGE ? at_err_set(in->err, rc, "the tensors are too large") : rc;
    }
    json_t *entry = json_object(), *shape = json_array();
    json_object_set_new(entry, "name", json_stringn(t->name.ptr, t->name.len));
    json_object_set_new(entry, "datatype", json_string(type->name));
    for (size_t d = 0; d < t->n_dims; d++) {
        json_array_append_new(shape, json_integer(t->shape[d]));
    }
    json_object_set_new(entry, "shape", shape);
    json_t *parameters = t->parameters != NULL ? t->parameters : json_object();
    t->parameters = NULL;
    json_object_set_new(parameters, "binary_data_size",
                        json_integer((json_int_t)(binary->len - from)));
    json_object_set_new(entry, "parameters", parameters);
    json_array_append_new(inputs, entry);
    return AT_OK;
}

static enum at_rc make_body(struct infer *in)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf binary = {0};
    json_t *inputs = json_array();
    json_object_set_new(in->root, "inputs", inputs);
    if (in->n_raw > 0 && in->n_raw != in->n_inputs) {
        return at_err_set(in->err, AT_INVALID, "raw_input_contents: %zu, but there are %zu inputs",
                          in->n_raw, in->n_inputs);
    }
    for (size_t i = 0; i < in->n_inputs; i++) {
        if (in->n_raw > 0 && in->inputs[i].contents.ptr != NULL) {
            return at_err_set(in->err, AT_INVALID,
                              "inputs[%.*s].contents: not beside raw_input_contents",
                              (int)in->inputs[i].name.len, in->inputs[i].name.ptr);
        }
        enum at_rc rc = put_input(in, i, &binary, inputs);
        if (rc != AT_OK) {
            return rc;
        }
    }
    if (json_array_size(in->outputs) > 0) {
        json_object_set(in->root, "outputs", in->outputs);
    } else {
        json_object_set_new(json_object_get(in->root, "parameters"), "binary_data_output",
                            json_true());
    }
    struct gw_grpc_call *call = in->call;
    at_buf_clear(&call->body);
    at_buf_clear(&call->lines);
    enum at_rc rc = at_json_dump(in->root, &call->body);
    size_t head = call->body.len;
    if (rc == AT_OK && binary.len > 0) {
        rc = at_buf_append(&call->body, binary.data, binary.len);
    }
    if (rc == AT_OK) {
        rc = at_buf_printf(&call->lines,
                           "Content-Type: application/octet-stream\r\n"
                           "Inference-Header-Content-Length: %zu\r\n",
                           head);
    }
    return rc == AT_OK ? rc : at_err_set(in->err, AT_TOO_LARGE, "the tensors are too large");
}

static enum at_rc infer_request(struct at_str message, struct gw_grpc_call *call,
                                struct at_err *err)
{
    struct infer *in = AT_NEW(struct infer);
    in->inputs = at_alloc(sizeof *in->inputs * AT_GW_TENSORS_MAX);
    in->root = json_pack("{s:{}}", "parameters");
    in->outputs = json_array();
    in->call = call;
    in->err = err;
    struct gw_pb_field f;
    enum at_rc rc;
    while ((rc = gw_pb_next(&message, &f)) == AT_OK && (rc = infer_field(in, &f)) == AT_OK) {
    }
    rc = rc == AT_EOF ? make_body(in) : rc == AT_BAD_REQUEST ? malformed(err, "the request") : rc;
    for (size_t i = 0; i < in->n_inputs; i++) {
        json_decref(in->inputs[i].parameters);
    }
    json_decref(in->root);
    json_decref(in->outputs);
    at_free(in->inputs);
    at_free(in);
    return rc;
}

enum at_rc gw_grpc_request(enum gw_grpc_kind kind, struct at_str body, struct gw_grpc_call *call,
                           struct at_err *err)
{
    struct at_str message;
    call->model[0] = call->version[0] = '\0';
    at_buf_clear(&call->body);
    at_buf_clear(&call->lines);
    enum at_rc rc = unframe(body, &message, err);
    if (rc == AT_OK) {
        rc = kind == GW_GRPC_MODEL_INFER ? infer_request(message, call, err)
                                         : named_request(message, call, err);
    }
    return rc == AT_OK ? make_target(kind, call, err) : rc;
}
