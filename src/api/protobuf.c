/* The few Kubernetes messages that kubectl's typed commands send as protobuf, to JSON.
 * Table-driven: a message is a list of fields; what a table does not name is skipped. Encoding:
 * protobuf.dev "Encoding", wire types 0, 1, 2, 5. */
#include "api/protobuf.h"
#include "api/api_priv.h"
#include "core/digest.h"
#include "core/mem.h"
#include "core/str.h"

#include <string.h>

static const struct pb_field TYPE_META[] = {
    {1, "apiVersion", PB_STRING, NULL}, {2, "kind", PB_STRING, NULL}, {0}};

struct reader {
    const unsigned char *at, *end;
};

static bool varint(struct reader *r, uint64_t *ret)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && r->at < r->end; shift += 7) {
        unsigned char byte = *r->at++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) {
            *ret = value;
            return true;
        }
    }
    return false;
}

struct item {
    unsigned number;
    unsigned wire;
    uint64_t value;        /* wire 0 */
    struct reader content; /* wire 2 */
};

static bool item_next(struct reader *r, struct item *ret)
{
    uint64_t tag = 0;
    if (!varint(r, &tag) || tag >> 3 == 0 || tag >> 3 > 0x1fffffff) {
        return false;
    }
    ret->number = (unsigned)(tag >> 3);
    ret->wire = (unsigned)(tag & 7);
    size_t left = (size_t)(r->end - r->at);
    uint64_t len = ret->wire == 1 ? 8 : 4;
    switch (ret->wire) {
    case 0:
        return varint(r, &ret->value);
    case 2:
        if (!varint(r, &len)) {
            return false;
        }
        left = (size_t)(r->end - r->at);
        break;
    case 1:
    case 5:
        break;
    default:
        return false;
    }
    if (len > left) {
        return false;
    }
    ret->content = (struct reader){r->at, r->at + len};
    r->at += len;
    return true;
}

static json_t *text_json(struct reader r, bool base64)
{
    size_t len = (size_t)(r.end - r.at);
    if (!base64) {
        return json_stringn((const char *)r.at, len); /* NULL when it is no UTF-8 */
    }
    struct at_buf buf = {0};
    json_t *value = NULL;
    if (at_base64_encode(r.at, len, &buf) == AT_OK) {
        value = json_stringn(buf.data != NULL ? buf.data : "", buf.len);
    }
    at_buf_done(&buf);
    return value;
}

/* A Quantity: a message that holds its text. */
static json_t *quantity_json(struct reader r)
{
    json_t *text = NULL;
    struct item item;
    while (r.at < r.end) {
        if (!item_next(&r, &item) || (item.number == 1 && (item.wire != 2 || text != NULL))) {
            json_decref(text);
            return NULL;
        }
        text = item.number == 1 ? text_json(item.content, false) : text;
    }
    return text != NULL ? text : json_string("0");
}

static json_t *map_value(struct reader r, enum pb_type type)
{
    return type == PB_MAP_QUANTITY ? quantity_json(r) : text_json(r, type == PB_MAP_BYTES);
}

static bool map_entry(struct reader r, enum pb_type type, json_t *map)
{
    json_t *key = NULL;
    json_t *value = NULL;
    struct item item;
    bool ok = true;
    while (ok && r.at < r.end) {
        ok = item_next(&r, &item);
        if (ok && item.wire == 2 && item.number == 1 && key == NULL) {
            key = text_json(item.content, false);
            ok = key != NULL;
        } else if (ok && item.wire == 2 && item.number == 2 && value == NULL) {
            value = map_value(item.content, type);
            ok = value != NULL;
        }
    }
    const char *name = key != NULL ? json_string_value(key) : "";
    ok = ok && strlen(name) == (key != NULL ? json_string_length(key) : 0);
    if (ok) {
        ok = json_object_set_new(map, name, value != NULL ? value : json_string("")) == 0;
    } else {
        json_decref(value);
    }
    json_decref(key);
    return ok;
}

static bool message_read(struct reader r, const struct pb_field *fields, int depth, json_t *out);

static json_t *slot(json_t *out, const char *name, json_t *fresh)
{
    json_t *old = json_object_get(out, name);
    if (old != NULL) {
        json_decref(fresh);
        return old;
    }
    json_object_set_new(out, name, fresh);
    return fresh;
}

static bool field_read(const struct item *item, const struct pb_field *f, int depth, json_t *out)
{
    json_t *fresh = NULL;
    switch (f->type) {
    case PB_INT:
        return item->wire == 0 &&
               json_object_set_new(out, f->name, json_integer((json_int_t)item->value)) == 0;
    case PB_BOOL:
        return item->wire == 0 &&
               json_object_set_new(out, f->name, json_boolean(item->value != 0)) == 0;
    default:
        break;
    }
    if (item->wire != 2) {
        return false;
    }
    switch (f->type) {
    case PB_STRING: /* Kubernetes writes empty ones too; in JSON they are absent */
        if (item->content.at == item->content.end) {
            return true;
        }
        __attribute__((fallthrough));
    case PB_BYTES:
        fresh = text_json(item->content, f->type == PB_BYTES);
        return fresh != NULL && json_object_set_new(out, f->name, fresh) == 0;
    case PB_STRINGS:
        fresh = text_json(item->content, false);
        return fresh != NULL && json_array_append_new(slot(out, f->name, json_array()), fresh) == 0;
    case PB_MAP:
    case PB_MAP_BYTES:
    case PB_MAP_QUANTITY:
        return map_entry(item->content, f->type, slot(out, f->name, json_object()));
    case PB_MESSAGES:
        fresh = json_object();
        json_array_append_new(slot(out, f->name, json_array()), fresh);
        return message_read(item->content, f->sub, depth + 1, fresh);
    default:
        return message_read(item->content, f->sub, depth + 1, slot(out, f->name, json_object()));
    }
}

static bool message_read(struct reader r, const struct pb_field *fields, int depth, json_t *out)
{
    if (depth > AT_API_PROTOBUF_DEPTH_MAX) {
        return false;
    }
    while (r.at < r.end) {
        struct item item;
        if (!item_next(&r, &item)) {
            return false;
        }
        for (const struct pb_field *f = fields; f->number != 0; f++) {
            if (f->number == item.number && !field_read(&item, f, depth, out)) {
                return false;
            }
        }
    }
    return true;
}

static bool envelope_read(struct reader r, json_t *type, struct reader *ret_raw)
{
    *ret_raw = (struct reader){r.end, r.end};
    while (r.at < r.end) {
        struct item item;
        if (!item_next(&r, &item)) {
            return false;
        }
        if (item.number == 1 && item.wire == 2) {
            if (!message_read(item.content, TYPE_META, 0, type)) {
                return false;
            }
        } else if (item.number == 2 && item.wire == 2) {
            *ret_raw = item.content;
        }
    }
    return true;
}

enum at_rc api_protobuf_decode(const void *data, size_t len, json_t **ret, struct at_err *err)
{
    static const unsigned char MAGIC[4] = {'k', '8', 's', 0};
    const unsigned char *bytes = data;
    struct reader raw;
    if (len < sizeof MAGIC || memcmp(bytes, MAGIC, sizeof MAGIC) != 0) {
        return at_err_set(err, AT_BAD_REQUEST, "the body is not Kubernetes protobuf");
    }
    AT_CLEANUP(at_cleanup_json) json_t *out = json_object();
    if (!envelope_read((struct reader){bytes + sizeof MAGIC, bytes + len}, out, &raw)) {
        return at_err_set(err, AT_BAD_REQUEST, "the protobuf body is damaged");
    }
    const char *kind = at_json_str_at(out, "kind", "");
    const struct pb_field *fields = api_pb_message(kind);
    if (fields == NULL) {
        return at_err_set(err, AT_UNSUPPORTED,
                          "protobuf is not supported for kind \"%.64s\": send application/json",
                          kind);
    }
    if (!message_read(raw, fields, 0, out)) {
        return at_err_set(err, AT_BAD_REQUEST, "the protobuf body is damaged");
    }
    *ret = json_incref(out);
    return AT_OK;
}
