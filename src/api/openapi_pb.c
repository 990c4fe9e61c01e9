/* Documents of OpenAPI v2 in protobuf: gnostic's messages of openapi.v2, as far as our documents
 * go. Table-driven: a message is a list of fields; members of the JSON that no table names are left
 * out. Encoding: protobuf.dev "Encoding", wire types 0, 1 and 2. */
#include "api/openapi_v2.h"
#include "core/mem.h"
#include "core/str.h"

#include <string.h>

enum type {
    TEXT,
    TEXTS, /* repeated */
    BOOL,
    INT,
    DOUBLE,
    ANY,  /* {2: JSON, which is YAML} */
    ANYS, /* repeated */
    MESSAGE,
    MAP,        /* a message with one repeated field, inner, of {1: key, 2: value} */
    PARAMETERS, /* repeated; which message by its place */
    EXTENSIONS, /* repeated {1: key, 2: ANY} of all members that begin with x- */
};

struct field {
    const char *key;
    unsigned number;
    enum type type;
    const struct field *sub;
    unsigned inner; /* of a MAP: its field; of other types a message around the value, whose field
                       it is. 0: none */
    unsigned wrap;  /* the same around each value of a MAP */
};

static const struct field SCHEMA[] = {
    {"$ref", 1, TEXT, NULL, 0, 0},
    {"format", 2, TEXT, NULL, 0, 0},
    {"title", 3, TEXT, NULL, 0, 0},
    {"description", 4, TEXT, NULL, 0, 0},
    {"default", 5, ANY, NULL, 0, 0},
    {"maximum", 7, DOUBLE, NULL, 0, 0},
    {"minimum", 9, DOUBLE, NULL, 0, 0},
    {"maxLength", 11, INT, NULL, 0, 0},
    {"minLength", 12, INT, NULL, 0, 0},
    {"pattern", 13, TEXT, NULL, 0, 0},
    {"maxItems", 14, INT, NULL, 0, 0},
    {"minItems", 15, INT, NULL, 0, 0},
    {"required", 19, TEXTS, NULL, 0, 0},
    {"enum", 20, ANYS, NULL, 0, 0},
    {"additionalProperties", 21, MESSAGE, SCHEMA, 1, 0},
    {"type", 22, TEXT, NULL, 1, 0},
    {"items", 23, MESSAGE, SCHEMA, 1, 0},
    {"properties", 25, MAP, SCHEMA, 1, 0},
    {"x-", 31, EXTENSIONS, NULL, 0, 0},
    {NULL, 0, TEXT, NULL, 0, 0},
};
static const struct field BODY[] = {
    {"description", 1, TEXT, NULL, 0, 0}, {"name", 2, TEXT, NULL, 0, 0},
    {"in", 3, TEXT, NULL, 0, 0},          {"required", 4, BOOL, NULL, 0, 0},
    {"schema", 5, MESSAGE, SCHEMA, 0, 0}, {NULL, 0, TEXT, NULL, 0, 0},
};
static const struct field QUERY[] = {
    {"required", 1, BOOL, NULL, 0, 0},    {"in", 2, TEXT, NULL, 0, 0},
    {"description", 3, TEXT, NULL, 0, 0}, {"name", 4, TEXT, NULL, 0, 0},
    {"type", 6, TEXT, NULL, 0, 0},        {"uniqueItems", 20, BOOL, NULL, 0, 0},
    {NULL, 0, TEXT, NULL, 0, 0},
};
static const struct field PATH[] = {
    {"required", 1, BOOL, NULL, 0, 0},    {"in", 2, TEXT, NULL, 0, 0},
    {"description", 3, TEXT, NULL, 0, 0}, {"name", 4, TEXT, NULL, 0, 0},
    {"type", 5, TEXT, NULL, 0, 0},        {NULL, 0, TEXT, NULL, 0, 0},
};
static const struct field RESPONSE[] = {
    {"description", 1, TEXT, NULL, 0, 0},
    {"schema", 2, MESSAGE, SCHEMA, 1, 0},
    {NULL, 0, TEXT, NULL, 0, 0},
};
static const struct field OPERATION[] = {
    {"tags", 1, TEXTS, NULL, 0, 0},        {"description", 3, TEXT, NULL, 0, 0},
    {"operationId", 5, TEXT, NULL, 0, 0},  {"produces", 6, TEXTS, NULL, 0, 0},
    {"consumes", 7, TEXTS, NULL, 0, 0},    {"parameters", 8, PARAMETERS, NULL, 0, 0},
    {"responses", 9, MAP, RESPONSE, 1, 1}, {"x-", 13, EXTENSIONS, NULL, 0, 0},
    {NULL, 0, TEXT, NULL, 0, 0},
};
static const struct field PATH_ITEM[] = {
    {"get", 2, MESSAGE, OPERATION, 0, 0},
    {"put", 3, MESSAGE, OPERATION, 0, 0},
    {"post", 4, MESSAGE, OPERATION, 0, 0},
    {"delete", 5, MESSAGE, OPERATION, 0, 0},
    {"patch", 8, MESSAGE, OPERATION, 0, 0},
    {"parameters", 9, PARAMETERS, NULL, 0, 0},
    {NULL, 0, TEXT, NULL, 0, 0},
};
static const struct field INFO[] = {
    {"title", 1, TEXT, NULL, 0, 0}, {"version", 2, TEXT, NULL, 0, 0}, {NULL, 0, TEXT, NULL, 0, 0}};
static const struct field DOCUMENT[] = {
    {"swagger", 1, TEXT, NULL, 0, 0},   {"info", 2, MESSAGE, INFO, 0, 0},
    {"paths", 8, MAP, PATH_ITEM, 2, 0}, {"definitions", 9, MAP, SCHEMA, 1, 0},
    {NULL, 0, TEXT, NULL, 0, 0},
};

static enum at_rc message_put(const struct field *fields, const json_t *value, struct at_buf *out);

static enum at_rc varint_put(uint64_t value, struct at_buf *out)
{
    char bytes[10];
    size_t n = 0;
    do {
        bytes[n++] = (char)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
        value >>= 7;
    } while (value != 0);
    return at_buf_append(out, bytes, n);
}

static enum at_rc bytes_put(unsigned number, const void *data, size_t len, struct at_buf *out)
{
    enum at_rc rc = varint_put((uint64_t)number << 3 | 2, out);
    if (rc == AT_OK) {
        rc = varint_put(len, out);
    }
    return rc == AT_OK && len > 0 ? at_buf_append(out, data, len) : rc;
}

/* The bytes as field number, within a message of their own when inner says so. */
static enum at_rc wrapped_put(unsigned number, unsigned inner, const struct at_buf *bytes,
                              struct at_buf *out)
{
    if (inner == 0) {
        return bytes_put(number, bytes->data, bytes->len, out);
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf around = {0};
    enum at_rc rc = bytes_put(inner, bytes->data, bytes->len, &around);
    return rc == AT_OK ? bytes_put(number, around.data, around.len, out) : rc;
}

static enum at_rc any_put(unsigned number, const json_t *value, struct at_buf *out)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = at_json_dump(value, &text);
    return rc == AT_OK ? wrapped_put(number, 2, &text, out) : rc;
}

static enum at_rc map_put(const struct field *f, const json_t *map, struct at_buf *out)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf all = {0};
    const char *key;
    json_t *value;
    enum at_rc rc = AT_OK;
    json_object_foreach((json_t *)map, key, value)
    {
        AT_CLEANUP(at_cleanup_buf) struct at_buf one = {0};
        AT_CLEANUP(at_cleanup_buf) struct at_buf entry = {0};
        rc = message_put(f->sub, value, &one);
        if (rc == AT_OK) {
            rc = bytes_put(1, key, strlen(key), &entry);
        }
        if (rc == AT_OK) {
            rc = wrapped_put(2, f->wrap, &one, &entry);
        }
        if (rc == AT_OK) {
            rc = bytes_put(f->inner, entry.data, entry.len, &all);
        }
        if (rc != AT_OK) {
            return rc;
        }
    }
    return bytes_put(f->number, all.data, all.len, out);
}

/* ParametersItem{1: Parameter{1: body | 2: NonBody{3: query | 4: path}}} */
static enum at_rc parameter_put(unsigned number, const json_t *parameter, struct at_buf *out)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf inner = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf kind = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf whole = {0};
    const char *in = at_json_str_at(parameter, "in", "");
    bool body = at_streq(in, "body");
    bool path = at_streq(in, "path");
    enum at_rc rc = message_put(body ? BODY : path ? PATH : QUERY, parameter, &inner);
    if (rc == AT_OK && body) {
        rc = bytes_put(1, inner.data, inner.len, &kind);
    } else if (rc == AT_OK) {
        rc = wrapped_put(2, path ? 4 : 3, &inner, &kind);
    }
    if (rc == AT_OK) {
        rc = bytes_put(1, kind.data, kind.len, &whole);
    }
    return rc == AT_OK ? bytes_put(number, whole.data, whole.len, out) : rc;
}

static enum at_rc extensions_put(unsigned number, const json_t *object, struct at_buf *out)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        AT_CLEANUP(at_cleanup_buf) struct at_buf entry = {0};
        if (strncmp(key, "x-", 2) != 0) {
            continue;
        }
        enum at_rc rc = bytes_put(1, key, strlen(key), &entry);
        if (rc == AT_OK) {
            rc = any_put(2, value, &entry);
        }
        if (rc == AT_OK) {
            rc = bytes_put(number, entry.data, entry.len, out);
        }
        if (rc != AT_OK) {
            return rc;
        }
    }
    return AT_OK;
}

static enum at_rc number_put(const struct field *f, const json_t *value, struct at_buf *out)
{
    double number = json_number_value(value);
    unsigned wire = f->type == DOUBLE ? 1 : 0;
    enum at_rc rc = varint_put((uint64_t)f->number << 3 | wire, out);
    if (rc != AT_OK) {
        return rc;
    }
    if (f->type == DOUBLE) {
        return at_buf_append(out, &number, sizeof number); /* IEEE 754, the low byte first */
    }
    return varint_put(f->type == BOOL ? json_is_true(value) : (uint64_t)json_integer_value(value),
                      out);
}

static enum at_rc text_put(const struct field *f, const json_t *value, struct at_buf *out)
{
    const char *text = json_string_value(value);
    if (text == NULL) {
        return AT_OK;
    }
    const struct at_buf bytes = {.data = (char *)text, .len = json_string_length(value)};
    return wrapped_put(f->number, f->inner, &bytes, out);
}

static enum at_rc field_put(const struct field *f, const json_t *value, struct at_buf *out)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf inner = {0};
    enum at_rc rc;
    switch (f->type) {
    case TEXT:
        return text_put(f, value, out);
    case BOOL:
    case INT:
    case DOUBLE:
        return number_put(f, value, out);
    case ANY:
        return any_put(f->number, value, out);
    case MESSAGE:
        rc = message_put(f->sub, value, &inner);
        return rc == AT_OK ? wrapped_put(f->number, f->inner, &inner, out) : rc;
    case MAP:
        return map_put(f, value, out);
    case PARAMETERS:
        return parameter_put(f->number, value, out);
    case TEXTS:
        return text_put(f, value, out);
    case ANYS:
        return any_put(f->number, value, out);
    case EXTENSIONS:
        break;
    }
    return AT_OK;
}

static enum at_rc message_put(const struct field *fields, const json_t *value, struct at_buf *out)
{
    enum at_rc rc = AT_OK;
    for (const struct field *f = fields; rc == AT_OK && f->key != NULL; f++) {
        if (f->type == EXTENSIONS) {
            rc = extensions_put(f->number, value, out);
            continue;
        }
        const json_t *member = json_object_get(value, f->key);
        bool many = f->type == TEXTS || f->type == ANYS || f->type == PARAMETERS;
        if (!many && member != NULL) {
            rc = field_put(f, member, out);
        }
        for (size_t i = 0; rc == AT_OK && many && i < json_array_size(member); i++) {
            rc = field_put(f, json_array_get(member, i), out);
        }
    }
    return rc;
}

enum at_rc api_openapi_pb(const json_t *document, struct at_buf *out)
{
    return message_put(DOCUMENT, document, out);
}
