/* ModelProto of onnx.proto, by protobuf's wire format: of the graph only names, types and shapes.
 */
#include "core/map.h"
#include "core/mem.h"
#include "package/describe.h"
#include "package/limits.h"

#include <string.h>

#define NAME_BYTES_MAX 1024
#define NESTED_MAX 100000 /* initializers of one graph */

/* A message within the file. */
struct message {
    struct at_pkg_source *source;
    int64_t at, end;
    struct at_err *err;
};

struct field {
    uint32_t number, wire;
    uint64_t value;      /* of a varint */
    struct message body; /* of what has a length */
};

struct reading {
    json_t *inputs, *outputs, *external;
    struct at_map *initializers;
    const char *producer;
    int64_t opset;
    bool has_graph;
};

static enum at_rc broken(const struct message *m)
{
    return at_err_set(m->err, AT_CORRUPT, "it is no ONNX model, or a damaged one");
}

static enum at_rc varint(struct message *m, uint64_t *ret)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        unsigned char c = 0;
        if (m->at >= m->end) {
            return broken(m);
        }
        enum at_rc rc = at_pkg_source_read(m->source, m->at++, &c, 1, m->err);
        if (rc != AT_OK) {
            return rc;
        }
        value |= (uint64_t)(c & 0x7f) << shift;
        if ((c & 0x80) == 0) {
            *ret = value;
            return AT_OK;
        }
    }
    return broken(m);
}

/* The next field; *ret_more false at the end. */
static enum at_rc next(struct message *m, struct field *f, bool *ret_more)
{
    uint64_t key = 0, len = 0;
    *ret_more = m->at < m->end;
    if (!*ret_more) {
        return AT_OK;
    }
    enum at_rc rc = varint(m, &key);
    if (rc != AT_OK) {
        return rc;
    }
    f->number = (uint32_t)(key >> 3);
    f->wire = (uint32_t)(key & 7);
    f->value = 0;
    switch (f->wire) {
    case 0:
        return varint(m, &f->value);
    case 1:
    case 5:
        m->at += f->wire == 1 ? 8 : 4;
        return m->at <= m->end ? AT_OK : broken(m);
    case 2:
        rc = varint(m, &len);
        if (rc == AT_OK && (len > INT64_MAX || (int64_t)len > m->end - m->at)) {
            return m->end == m->source->bytes
                       ? at_err_set(m->err, AT_CORRUPT,
                                    "the model file is cut off, or no ONNX model")
                       : broken(m);
        }
        f->body = (struct message){m->source, m->at, m->at + (int64_t)len, m->err};
        m->at += (int64_t)len;
        return rc;
    default:
        return broken(m);
    }
}

static enum at_rc text(const struct message *body, char out[NAME_BYTES_MAX])
{
    int64_t len = body->end - body->at;
    if (len >= NAME_BYTES_MAX) {
        return at_err_set(body->err, AT_TOO_LARGE, "a name in the model is too long");
    }
    enum at_rc rc = at_pkg_source_read(body->source, body->at, out, (size_t)len, body->err);
    out[rc == AT_OK ? len : 0] = '\0';
    return rc;
}

static const char *datatype(uint64_t type)
{
    static const char *const NAMES[] = {
        [1] = "FP32",  [2] = "UINT8",   [3] = "INT8",    [4] = "UINT16", [5] = "INT16",
        [6] = "INT32", [7] = "INT64",   [8] = "BYTES",   [9] = "BOOL",   [10] = "FP16",
        [11] = "FP64", [12] = "UINT32", [13] = "UINT64", [16] = "BF16"};
    return type < AT_ARRAY_LEN(NAMES) ? NAMES[type] : NULL;
}

/* TensorShapeProto: dim = 1 {dim_value = 1, dim_param = 2} */
static enum at_rc shape(struct message m, json_t *dims)
{
    struct field f, d;
    bool more = true, inner = true;
    enum at_rc rc;
    while ((rc = next(&m, &f, &more)) == AT_OK && more) {
        int64_t size = -1;
        if (f.number != 1 || f.wire != 2) {
            continue;
        }
        struct message dim = f.body;
        while ((rc = next(&dim, &d, &inner)) == AT_OK && inner) {
            if (d.number == 1 && d.wire == 0) {
                size = (int64_t)d.value > 0 ? (int64_t)d.value : -1;
            }
        }
        if (rc != AT_OK || json_array_size(dims) >= 64) {
            return rc != AT_OK ? rc : broken(&m);
        }
        json_array_append_new(dims, json_integer(size));
    }
    return rc;
}

/* TypeProto: tensor_type = 1 {elem_type = 1, shape = 2} */
static enum at_rc type(struct message m, json_t *entry)
{
    struct field f, t;
    bool more = true, inner = true;
    enum at_rc rc;
    while ((rc = next(&m, &f, &more)) == AT_OK && more) {
        if (f.number != 1 || f.wire != 2) {
            continue;
        }
        struct message tensor = f.body;
        while ((rc = next(&tensor, &t, &inner)) == AT_OK && inner) {
            if (t.number == 1 && t.wire == 0 && datatype(t.value) != NULL) {
                json_object_set_new(entry, "datatype", json_string(datatype(t.value)));
            } else if (t.number == 2 && t.wire == 2) {
                json_t *dims = json_array();
                json_object_set_new(entry, "shape", dims);
                rc = shape(t.body, dims);
                if (rc != AT_OK) {
                    return rc;
                }
            }
        }
        if (rc != AT_OK) {
            return rc;
        }
    }
    return rc;
}

/* ValueInfoProto: name = 1, type = 2 */
static enum at_rc value_info(struct message m, json_t *list)
{
    struct field f;
    bool more = true;
    char name[NAME_BYTES_MAX];
    enum at_rc rc;
    AT_CLEANUP(at_cleanup_json) json_t *entry = json_object();
    while ((rc = next(&m, &f, &more)) == AT_OK && more) {
        if (f.number == 1 && f.wire == 2) {
            rc = text(&f.body, name);
            if (rc == AT_OK && json_object_set_new(entry, "name", json_string(name)) != 0) {
                rc = broken(&m);
            }
        } else if (f.number == 2 && f.wire == 2) {
            rc = type(f.body, entry);
        }
        if (rc != AT_OK) {
            return rc;
        }
    }
    if (rc == AT_OK && json_array_size(list) >= PKG_TENSORS_MAX) {
        return at_err_set(m.err, AT_TOO_LARGE, "the model has more than %d inputs or outputs",
                          PKG_TENSORS_MAX);
    }
    if (rc == AT_OK && json_object_get(entry, "name") != NULL) {
        json_array_append(list, entry);
    }
    return rc;
}

/* StringStringEntryProto: key = 1, value = 2 */
static enum at_rc external(struct message m, json_t *list)
{
    struct field f;
    bool more = true, is_location = false;
    char word[NAME_BYTES_MAX], value[NAME_BYTES_MAX] = "";
    enum at_rc rc;
    while ((rc = next(&m, &f, &more)) == AT_OK && more) {
        if (f.wire == 2 && (f.number == 1 || f.number == 2)) {
            rc = text(&f.body, f.number == 1 ? word : value);
            is_location =
                f.number == 1 ? rc == AT_OK && strcmp(word, "location") == 0 : is_location;
        }
        if (rc != AT_OK) {
            return rc;
        }
    }
    for (size_t i = 0; i < json_array_size(list) && is_location; i++) {
        const char *known = json_string_value(json_array_get(list, i));
        is_location = known == NULL || strcmp(known, value) != 0;
    }
    if (rc == AT_OK && is_location && json_array_size(list) < PKG_FILES_MAX) {
        json_t *path = json_string(value);
        if (path == NULL) {
            return broken(&m);
        }
        json_array_append_new(list, path);
    }
    return rc;
}

/* TensorProto: name = 8, external_data = 13; the data themselves are passed over. */
static enum at_rc initializer(struct message m, struct reading *r)
{
    struct field f;
    bool more = true;
    char name[NAME_BYTES_MAX];
    enum at_rc rc;
    while ((rc = next(&m, &f, &more)) == AT_OK && more) {
        if (f.number == 8 && f.wire == 2) {
            rc = text(&f.body, name);
            if (rc == AT_OK) {
                at_map_put(r->initializers, name, r);
            }
        } else if (f.number == 13 && f.wire == 2) {
            rc = external(f.body, r->external);
        }
        if (rc != AT_OK || at_map_count(r->initializers) > NESTED_MAX) {
            return rc != AT_OK ? rc : broken(&m);
        }
    }
    return rc;
}

/* GraphProto: initializer = 5, input = 11, output = 12 */
static enum at_rc graph(struct message m, struct reading *r)
{
    struct field f;
    bool more = true;
    enum at_rc rc;
    while ((rc = next(&m, &f, &more)) == AT_OK && more) {
        if (f.wire != 2) {
            continue;
        }
        rc = f.number == 5    ? initializer(f.body, r)
             : f.number == 11 ? value_info(f.body, r->inputs)
             : f.number == 12 ? value_info(f.body, r->outputs)
                              : AT_OK;
        if (rc != AT_OK) {
            return rc;
        }
    }
    return rc;
}

/* OperatorSetIdProto: domain = 1 (absent: ONNX's own), version = 2 */
static enum at_rc opset(struct message m, struct reading *r)
{
    struct field f;
    bool more = true, own = true;
    int64_t version = 0;
    enum at_rc rc;
    while ((rc = next(&m, &f, &more)) == AT_OK && more) {
        own = f.number == 1 && f.wire == 2 ? f.body.at == f.body.end : own;
        version = f.number == 2 && f.wire == 0 ? (int64_t)f.value : version;
    }
    r->opset = own ? version : r->opset;
    return rc;
}

/* ModelProto: ir_version = 1, producer_name = 2, graph = 7, opset_import = 8 */
static enum at_rc model(struct message m, struct reading *r, char producer[NAME_BYTES_MAX])
{
    struct field f;
    bool more = true, first = true;
    enum at_rc rc;
    while ((rc = next(&m, &f, &more)) == AT_OK && more) {
        if (first && (f.number == 0 || f.number > 30)) {
            return broken(&m);
        }
        first = false;
        if (f.wire == 2 && f.number == 7) {
            r->has_graph = true;
            rc = graph(f.body, r);
        } else if (f.wire == 2 && f.number == 8) {
            rc = opset(f.body, r);
        } else if (f.wire == 2 && f.number == 2) {
            rc = text(&f.body, producer);
        }
        if (rc != AT_OK) {
            return rc;
        }
    }
    return rc == AT_OK && !r->has_graph ? broken(&m) : rc;
}

/* Older models name their initializers as inputs too. */
static void drop_initializers(struct reading *r)
{
    for (size_t i = json_array_size(r->inputs); i-- > 0;) {
        const char *name = json_string_value(json_object_get(json_array_get(r->inputs, i), "name"));
        if (at_map_get(r->initializers, name) != NULL) {
            json_array_remove(r->inputs, i);
        }
    }
}

static enum at_rc all_tensors(const json_t *list, struct at_err *err)
{
    size_t i;
    const json_t *entry;
    json_array_foreach(list, i, entry)
    {
        if (json_object_get(entry, "datatype") == NULL) {
            return at_err_set(err, AT_UNSUPPORTED,
                              "%.100s of the model is no tensor of a known type",
                              json_string_value(json_object_get(entry, "name")));
        }
    }
    return AT_OK;
}

enum at_rc at_pkg_describe_onnx(struct at_pkg_source *source, json_t **ret, struct at_err *err)
{
    char producer[NAME_BYTES_MAX] = "";
    if (source->bytes > PKG_ONNX_BYTES_MAX) {
        return at_err_set(err, AT_TOO_LARGE,
                          "it has %lld bytes, and an ONNX file 2 GiB at most: weights beyond that "
                          "stand in files beside it",
                          (long long)source->bytes);
    }
    AT_CLEANUP(at_cleanup_json) json_t *out = json_object();
    struct reading r = {.inputs = json_array(),
                        .outputs = json_array(),
                        .external = json_array(),
                        .initializers = at_map_new()};
    json_object_set_new(out, "inputs", r.inputs);
    json_object_set_new(out, "outputs", r.outputs);
    json_object_set_new(out, "externalData", r.external);
    struct message whole = {source, 0, source->bytes, err};
    enum at_rc rc = source->bytes == 0 ? broken(&whole) : model(whole, &r, producer);
    if (rc == AT_OK) {
        drop_initializers(&r);
        rc = all_tensors(r.inputs, err);
        rc = rc != AT_OK ? rc : all_tensors(r.outputs, err);
    }
    at_map_free(r.initializers);
    if (rc == AT_OK) {
        json_object_set_new(out, "opset", json_integer(r.opset));
        json_t *name = json_string(producer);
        if (producer[0] != '\0' && name != NULL) {
            json_object_set(out, "producer", name);
        }
        json_decref(name);
        *ret = json_incref(out);
    }
    return rc;
}
