#include "core/yaml.h"

#include "core/map.h"
#include "core/mem.h"
#include "core/str.h"
#include "core/yaml_priv.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define TAG_PREFIX "tag:yaml.org,2002:"

struct reader {
    yaml_parser_t parser;
    struct at_map *anchors; /* name → json_t, one reference each */
    size_t nodes;
    struct at_err *err;
};

static enum at_rc fail(const struct reader *r, const yaml_mark_t *mark, const char *what,
                       const char *detail)
{
    return at_err_set(r->err, AT_BAD_REQUEST, "line %zu, column %zu: %s%s%s", mark->line + 1,
                      mark->column + 1, what, detail[0] != '\0' ? " " : "", detail);
}

static enum at_rc next_event(struct reader *r, yaml_event_t *event)
{
    if (yaml_parser_parse(&r->parser, event) == 1) {
        return AT_OK;
    }
    const yaml_parser_t *p = &r->parser;
    yaml_mark_t mark = p->problem_mark;
    if (p->error == YAML_READER_ERROR) {
        return at_err_set(r->err, AT_BAD_REQUEST, "line %zu, column %zu: %s (byte %zu)",
                          p->mark.line + 1, p->mark.column + 1, p->problem, p->problem_offset);
    }
    if (p->error == YAML_MEMORY_ERROR) {
        return at_err_set(r->err, AT_NOMEM, "line 1, column 1: out of memory");
    }
    return fail(r, &mark, p->problem != NULL ? p->problem : "not YAML",
                p->context != NULL ? p->context : "");
}

static bool all_in(const char *s, size_t len, const char *set)
{
    for (size_t i = 0; i < len; i++) {
        if (s[i] == '\0' || strchr(set, s[i]) == NULL) {
            return false;
        }
    }
    return len != 0;
}

static size_t digits(const char *s, size_t len)
{
    size_t n = 0;
    while (n < len && s[n] >= '0' && s[n] <= '9') {
        n++;
    }
    return n;
}

static enum at_yaml_plain number_kind(const char *s, size_t len)
{
    if (len > 2 && s[0] == '0' && s[1] == 'x') {
        return all_in(s + 2, len - 2, "0123456789abcdefABCDEF") ? AT_YAML_PLAIN_INT
                                                                : AT_YAML_PLAIN_STRING;
    }
    if (len > 2 && s[0] == '0' && s[1] == 'o') {
        return all_in(s + 2, len - 2, "01234567") ? AT_YAML_PLAIN_INT : AT_YAML_PLAIN_STRING;
    }
    size_t at = len != 0 && (s[0] == '-' || s[0] == '+') ? 1 : 0;
    struct at_str rest = {s + at, len - at};
    if (at_str_eq(rest, ".inf") || at_str_eq(rest, ".Inf") || at_str_eq(rest, ".INF")) {
        return AT_YAML_PLAIN_NOT_FINITE;
    }
    size_t whole = digits(s + at, len - at);
    at += whole;
    if (at == len) {
        return whole != 0 ? AT_YAML_PLAIN_INT : AT_YAML_PLAIN_STRING;
    }
    size_t fraction = 0;
    if (s[at] == '.') {
        fraction = digits(s + at + 1, len - at - 1);
        at += 1 + fraction;
    }
    if (whole + fraction == 0) {
        return AT_YAML_PLAIN_STRING;
    }
    if (at < len && (s[at] == 'e' || s[at] == 'E')) {
        at++;
        at += at < len && (s[at] == '-' || s[at] == '+') ? 1 : 0;
        size_t exponent = digits(s + at, len - at);
        at = exponent != 0 ? at + exponent : len + 1;
    }
    return at == len ? AT_YAML_PLAIN_REAL : AT_YAML_PLAIN_STRING;
}

enum at_yaml_plain at_yaml_plain_kind(const char *s, size_t len)
{
    static const struct {
        const char *text;
        enum at_yaml_plain kind;
    } WORDS[] = {
        {"", AT_YAML_PLAIN_NULL},           {"~", AT_YAML_PLAIN_NULL},
        {"null", AT_YAML_PLAIN_NULL},       {"Null", AT_YAML_PLAIN_NULL},
        {"NULL", AT_YAML_PLAIN_NULL},       {"true", AT_YAML_PLAIN_TRUE},
        {"True", AT_YAML_PLAIN_TRUE},       {"TRUE", AT_YAML_PLAIN_TRUE},
        {"false", AT_YAML_PLAIN_FALSE},     {"False", AT_YAML_PLAIN_FALSE},
        {"FALSE", AT_YAML_PLAIN_FALSE},     {".nan", AT_YAML_PLAIN_NOT_FINITE},
        {".NaN", AT_YAML_PLAIN_NOT_FINITE}, {".NAN", AT_YAML_PLAIN_NOT_FINITE},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(WORDS); i++) {
        if (at_str_eq((struct at_str){s, len}, WORDS[i].text)) {
            return WORDS[i].kind;
        }
    }
    return number_kind(s, len);
}

static json_t *int_value(const char *s)
{
    int base = s[0] == '0' && s[1] == 'x' ? 16 : s[0] == '0' && s[1] == 'o' ? 8 : 10;
    errno = 0;
    long long value = strtoll(base == 10 ? s : s + 2, NULL, base);
    return errno == 0 ? json_integer(value) : base == 10 ? json_real(strtod(s, NULL)) : NULL;
}

/* NULL: not of this kind, or out of range. */
static json_t *plain_value(enum at_yaml_plain kind, const char *s, size_t len)
{
    switch (kind) {
    case AT_YAML_PLAIN_NULL:
        return json_null();
    case AT_YAML_PLAIN_TRUE:
        return json_true();
    case AT_YAML_PLAIN_FALSE:
        return json_false();
    case AT_YAML_PLAIN_INT:
        return int_value(s);
    case AT_YAML_PLAIN_REAL:
        return json_real(strtod(s, NULL)); /* NULL when it is not finite */
    case AT_YAML_PLAIN_STRING:
        return json_stringn(s, len);
    case AT_YAML_PLAIN_NOT_FINITE:
        break;
    }
    return NULL;
}

/* With an explicit tag the text must be of that kind. */
static bool tag_allows(const char *tag, enum at_yaml_plain kind)
{
    bool is_bool = kind == AT_YAML_PLAIN_TRUE || kind == AT_YAML_PLAIN_FALSE;
    return (strcmp(tag, TAG_PREFIX "int") == 0 && kind == AT_YAML_PLAIN_INT) ||
           (strcmp(tag, TAG_PREFIX "float") == 0 &&
            (kind == AT_YAML_PLAIN_REAL || kind == AT_YAML_PLAIN_INT)) ||
           (strcmp(tag, TAG_PREFIX "bool") == 0 && is_bool) ||
           (strcmp(tag, TAG_PREFIX "null") == 0 && kind == AT_YAML_PLAIN_NULL);
}

static enum at_rc read_scalar(const struct reader *r, const yaml_event_t *event, json_t **ret)
{
    const char *s = (const char *)event->data.scalar.value;
    size_t len = event->data.scalar.length;
    const char *tag = (const char *)event->data.scalar.tag;
    bool plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    enum at_yaml_plain kind = AT_YAML_PLAIN_STRING;
    if (memchr(s, '\0', len) != NULL) {
        return fail(r, &event->start_mark, "a NUL character is not allowed", "");
    }
    if (tag != NULL && strcmp(tag, "!") != 0 && strcmp(tag, TAG_PREFIX "str") != 0) {
        kind = at_yaml_plain_kind(s, len);
        if (!tag_allows(tag, kind)) {
            return fail(r, &event->start_mark, "the value does not fit its tag, or unknown tag",
                        tag);
        }
    } else if (tag == NULL && plain) {
        kind = at_yaml_plain_kind(s, len);
    }
    *ret = plain_value(kind, s, len);
    return *ret != NULL ? AT_OK : fail(r, &event->start_mark, "JSON cannot hold the value", s);
}

static enum at_rc read_value(struct reader *r, yaml_event_t *event, size_t depth, json_t **ret);

static enum at_rc count_node(struct reader *r, const yaml_mark_t *mark, size_t more)
{
    r->nodes += more;
    return r->nodes <= AT_YAML_NODES_MAX
               ? AT_OK
               : fail(r, mark, "too many values, or aliases expand to too much", "");
}

static enum at_rc read_alias(struct reader *r, const yaml_event_t *event, size_t depth,
                             json_t **ret)
{
    const char *name = (const char *)event->data.alias.anchor;
    const json_t *target = at_map_get(r->anchors, name);
    if (target == NULL) {
        return fail(r, &event->start_mark, "unknown or still open anchor", name);
    }
    size_t nodes = 0;
    if (depth + at_json_measure(target, &nodes) > AT_JSON_DEPTH_MAX) {
        return fail(r, &event->start_mark, "nested too deep by alias", name);
    }
    enum at_rc rc = count_node(r, &event->start_mark, nodes);
    if (rc == AT_OK) {
        *ret = json_deep_copy(target);
    }
    return rc;
}

static enum at_rc read_sequence(struct reader *r, size_t depth, json_t *array)
{
    for (;;) {
        yaml_event_t event;
        json_t *item = NULL;
        enum at_rc rc = next_event(r, &event);
        if (rc != AT_OK) {
            return rc;
        }
        bool end = event.type == YAML_SEQUENCE_END_EVENT;
        if (!end) {
            rc = read_value(r, &event, depth, &item);
        }
        yaml_event_delete(&event);
        if (rc != AT_OK || end) {
            return rc;
        }
        json_array_append_new(array, item);
    }
}

/* A merge value is a mapping or a list of mappings. */
static bool is_merge_value(const json_t *value)
{
    for (size_t i = 0; i < json_array_size(value); i++) {
        if (!json_is_object(json_array_get(value, i))) {
            return false;
        }
    }
    return json_is_array(value) || json_is_object(value);
}

/* What is there already stays. */
static void merge_into(json_t *object, const json_t *from)
{
    if (json_is_object(from)) {
        json_object_update_missing(object, (json_t *)from);
    }
    for (size_t i = 0; i < json_array_size(from); i++) {
        merge_into(object, json_array_get(from, i));
    }
}

static enum at_rc read_pair(struct reader *r, const yaml_event_t *key, size_t depth, json_t *object,
                            json_t *merges)
{
    if (key->type != YAML_SCALAR_EVENT) {
        return fail(r, &key->start_mark, "a key must be a plain value", "");
    }
    const char *name = (const char *)key->data.scalar.value;
    bool merge = key->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && strcmp(name, "<<") == 0;
    if (strlen(name) != key->data.scalar.length) {
        return fail(r, &key->start_mark, "a NUL character is not allowed", "");
    }
    if (!merge && json_object_get(object, name) != NULL) {
        return fail(r, &key->start_mark, "this key stands twice:", name);
    }
    yaml_event_t event;
    json_t *value = NULL;
    enum at_rc rc = next_event(r, &event);
    if (rc != AT_OK) {
        return rc;
    }
    rc = read_value(r, &event, depth, &value);
    yaml_event_delete(&event);
    if (rc != AT_OK) {
        return rc;
    }
    if (merge && !is_merge_value(value)) {
        json_decref(value);
        return fail(r, &key->start_mark, "the value of << must be a mapping or a list of them", "");
    }
    if (merge) {
        json_array_append_new(merges, value);
    } else if (json_object_set_new(object, name, value) != 0) {
        return fail(r, &key->start_mark, "not UTF-8", "");
    }
    return AT_OK;
}

static enum at_rc read_mapping(struct reader *r, size_t depth, json_t *object)
{
    AT_CLEANUP(at_cleanup_json) json_t *merges = json_array();
    for (;;) {
        yaml_event_t key;
        enum at_rc rc = next_event(r, &key);
        if (rc != AT_OK) {
            return rc;
        }
        bool end = key.type == YAML_MAPPING_END_EVENT;
        if (end) {
            merge_into(object, merges);
        } else {
            rc = count_node(r, &key.start_mark, 1);
            if (rc == AT_OK) {
                rc = read_pair(r, &key, depth, object, merges);
            }
        }
        yaml_event_delete(&key);
        if (rc != AT_OK || end) {
            return rc;
        }
    }
}

static void anchor_put(struct reader *r, const char *name, json_t *value)
{
    json_decref(at_map_put(r->anchors, name, json_incref(value)));
}

static enum at_rc read_container(struct reader *r, const yaml_event_t *event, size_t depth,
                                 json_t **ret)
{
    bool mapping = event->type == YAML_MAPPING_START_EVENT;
    const char *anchor = (const char *)(mapping ? event->data.mapping_start.anchor
                                                : event->data.sequence_start.anchor);
    const char *tag =
        (const char *)(mapping ? event->data.mapping_start.tag : event->data.sequence_start.tag);
    if (tag != NULL && strcmp(tag, "!") != 0 &&
        strcmp(tag, mapping ? TAG_PREFIX "map" : TAG_PREFIX "seq") != 0) {
        return fail(r, &event->start_mark, "unknown tag", tag);
    }
    if (depth == AT_JSON_DEPTH_MAX) {
        return fail(r, &event->start_mark, "nested too deep", "");
    }
    json_t *value = mapping ? json_object() : json_array();
    enum at_rc rc =
        mapping ? read_mapping(r, depth + 1, value) : read_sequence(r, depth + 1, value);
    if (rc != AT_OK) {
        json_decref(value);
        return rc;
    }
    if (anchor != NULL) {
        anchor_put(r, anchor, value);
    }
    *ret = value;
    return AT_OK;
}

static enum at_rc read_value(struct reader *r, yaml_event_t *event, size_t depth, json_t **ret)
{
    assert(depth <= AT_JSON_DEPTH_MAX);
    if (event->type == YAML_ALIAS_EVENT) {
        return read_alias(r, event, depth, ret);
    }
    enum at_rc rc = count_node(r, &event->start_mark, 1);
    if (rc != AT_OK) {
        return rc;
    }
    if (event->type != YAML_SCALAR_EVENT) {
        return read_container(r, event, depth, ret);
    }
    rc = read_scalar(r, event, ret);
    if (rc == AT_OK && event->data.scalar.anchor != NULL) {
        anchor_put(r, (const char *)event->data.scalar.anchor, *ret);
    }
    return rc;
}

static void anchors_clear(struct reader *r)
{
    void *value;
    for (size_t it = 0; at_map_next(r->anchors, &it, NULL, &value);) {
        json_decref(value);
    }
    at_map_clear(r->anchors);
}

static bool is_empty(const yaml_event_t *root)
{
    return root->type == YAML_SCALAR_EVENT && root->data.scalar.length == 0 &&
           root->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && root->data.scalar.tag == NULL;
}

/* After the start of a document; ret->value stays NULL when the document is empty. */
static enum at_rc read_document(struct reader *r, struct at_yaml_doc *ret)
{
    yaml_event_t event;
    enum at_rc rc = next_event(r, &event);
    if (rc != AT_OK) {
        return rc;
    }
    if (!is_empty(&event)) {
        ret->line = event.start_mark.line + 1;
        rc = read_value(r, &event, 0, &ret->value);
    }
    yaml_event_delete(&event);
    anchors_clear(r);
    return rc;
}

static enum at_rc read_stream(struct reader *r, struct at_yaml_doc **docs, size_t *count)
{
    for (;;) {
        yaml_event_t event;
        enum at_rc rc = next_event(r, &event);
        if (rc != AT_OK) {
            return rc;
        }
        yaml_event_type_t type = event.type;
        yaml_mark_t mark = event.start_mark;
        yaml_event_delete(&event);
        if (type == YAML_STREAM_END_EVENT) {
            return AT_OK;
        }
        if (type != YAML_DOCUMENT_START_EVENT) {
            continue; /* the stream's start, a document's end */
        }
        if (*count == AT_YAML_DOCS_MAX) {
            return fail(r, &mark, "too many documents", "");
        }
        struct at_yaml_doc doc = {0};
        rc = read_document(r, &doc);
        if (rc != AT_OK) {
            return rc;
        }
        if (doc.value != NULL) {
            *docs = at_realloc(*docs, (*count + 1) * sizeof **docs);
            (*docs)[(*count)++] = doc;
        }
    }
}

enum at_rc at_yaml_parse(const char *text, size_t len, struct at_yaml_doc **ret_docs,
                         size_t *ret_count, struct at_err *err)
{
    if (len > AT_JSON_BYTES_MAX) {
        return at_err_set(err, AT_TOO_LARGE, "YAML of %zu bytes is over the limit of %zu", len,
                          AT_JSON_BYTES_MAX);
    }
    struct reader r = {.err = err};
    if (yaml_parser_initialize(&r.parser) != 1) {
        return at_err_set(err, AT_NOMEM, "out of memory");
    }
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)(text != NULL ? text : ""), len);
    r.anchors = at_map_new();
    struct at_yaml_doc *docs = NULL;
    size_t count = 0;
    enum at_rc rc = read_stream(&r, &docs, &count);
    anchors_clear(&r);
    at_map_free(r.anchors);
    yaml_parser_delete(&r.parser);
    if (rc != AT_OK) {
        at_yaml_docs_free(docs, count);
        return rc;
    }
    *ret_docs = docs;
    *ret_count = count;
    return AT_OK;
}

void at_yaml_docs_free(struct at_yaml_doc *docs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        json_decref(docs[i].value);
    }
    at_free(docs);
}
