#include "core/json.h"

#include "core/mem.h"
#include "core/str.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool deeper_than(const json_t *value, size_t levels)
{
    if (!json_is_object(value) && !json_is_array(value)) {
        return false;
    }
    if (levels == 0) {
        return true;
    }
    if (json_is_array(value)) {
        for (size_t i = 0; i < json_array_size(value); i++) {
            if (deeper_than(json_array_get(value, i), levels - 1)) {
                return true;
            }
        }
        return false;
    }
    const char *key;
    json_t *item;
    json_object_foreach((json_t *)value, key, item)
    {
        if (deeper_than(item, levels - 1)) {
            return true;
        }
    }
    return false;
}

static enum at_rc parse(const char *text, size_t len, size_t flags, json_t **ret,
                        struct at_err *err)
{
    if (len > AT_JSON_BYTES_MAX) {
        return at_err_set(err, AT_TOO_LARGE, "JSON of %zu bytes is over the limit of %zu", len,
                          AT_JSON_BYTES_MAX);
    }
    /* jansson passes over one that follows a number. */
    const char *nul = len > 0 ? memchr(text, '\0', len) : NULL;
    if (nul != NULL) {
        size_t line = 1, column = 1;
        for (const char *p = text; p < nul; p++) {
            column = *p == '\n' ? 1 : column + 1;
            line += *p == '\n';
        }
        return at_err_set(err, AT_BAD_REQUEST, "line %zu, column %zu: a NUL byte", line, column);
    }
    json_error_t why;
    json_t *value = json_loadb(text != NULL ? text : "", len, flags | JSON_DECODE_ANY, &why);
    if (value == NULL) {
        return at_err_set(err, AT_BAD_REQUEST, "line %d, column %d: %s", why.line, why.column,
                          why.text);
    }
    if (deeper_than(value, AT_JSON_DEPTH_MAX)) {
        json_decref(value);
        return at_err_set(err, AT_BAD_REQUEST,
                          "line 1, column 1: JSON nested deeper than %d levels", AT_JSON_DEPTH_MAX);
    }
    *ret = value;
    return AT_OK;
}

enum at_rc at_json_parse(const char *text, size_t len, json_t **ret, struct at_err *err)
{
    return parse(text, len, JSON_REJECT_DUPLICATES, ret, err);
}

enum at_rc at_json_parse_last(const char *text, size_t len, json_t **ret, struct at_err *err)
{
    return parse(text, len, 0, ret, err);
}

/* Writing. Own code instead of json_dump_callback: it writes reals in their shortest text and goes
 * straight into the buffer. */

static enum at_rc dump_string(const char *s, size_t len, struct at_buf *buf)
{
    enum at_rc rc = at_buf_append(buf, "\"", 1);
    size_t start = 0;
    for (size_t i = 0; i < len && rc == AT_OK; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c >= 0x20 && c != '"' && c != '\\') {
            continue;
        }
        static const char SHORT[] = "\"\\\b\f\n\r\t";
        static const char LETTER[] = "\"\\bfnrt";
        rc = at_buf_append(buf, s + start, i - start);
        const char *at = c != 0 ? strchr(SHORT, c) : NULL;
        if (rc == AT_OK && at != NULL) {
            rc = at_buf_append(buf, (char[]){'\\', LETTER[at - SHORT]}, 2);
        } else if (rc == AT_OK) {
            rc = at_buf_printf(buf, "\\u%04x", c);
        }
        start = i + 1;
    }
    if (rc == AT_OK) {
        rc = at_buf_append(buf, s + start, len - start);
    }
    return rc == AT_OK ? at_buf_append(buf, "\"", 1) : rc;
}

static enum at_rc dump_real(double real, struct at_buf *buf)
{
    char text[40];
    if (!isfinite(real)) {
        return at_buf_append_str(buf, "null"); /* JSON has no such number */
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, real);
        if (strtod(text, NULL) == real) {
            break;
        }
    }
    /* ".0": it stays a real when read again. */
    return at_buf_printf(buf, "%s%s", text, strpbrk(text, ".e") == NULL ? ".0" : "");
}

static enum at_rc dump_scalar(const json_t *value, struct at_buf *buf)
{
    switch (json_typeof(value)) {
    case JSON_STRING:
        return dump_string(json_string_value(value), json_string_length(value), buf);
    case JSON_INTEGER:
        return at_buf_printf(buf, "%lld", (long long)json_integer_value(value));
    case JSON_REAL:
        return dump_real(json_real_value(value), buf);
    case JSON_TRUE:
        return at_buf_append(buf, "true", 4);
    case JSON_FALSE:
        return at_buf_append(buf, "false", 5);
    default:
        return at_buf_append(buf, "null", 4);
    }
}

static enum at_rc dump_break(struct at_buf *buf, int indent)
{
    return indent >= 0 ? at_buf_printf(buf, "\n%*s", 2 * indent, "") : AT_OK;
}

/* indent < 0: compact. */
static enum at_rc dump(const json_t *value, struct at_buf *buf, int indent)
{
    if (!json_is_object(value) && !json_is_array(value)) {
        return dump_scalar(value, buf);
    }
    bool object = json_is_object(value);
    int inner = indent >= 0 ? indent + 1 : indent;
    void *it = object ? json_object_iter((json_t *)value) : NULL;
    size_t count = object ? json_object_size(value) : json_array_size(value);
    enum at_rc rc = at_buf_append(buf, object ? "{" : "[", 1);
    for (size_t i = 0; i < count && rc == AT_OK; i++) {
        const json_t *item = object ? json_object_iter_value(it) : json_array_get(value, i);
        if (i != 0) {
            rc = at_buf_append(buf, ",", 1);
        }
        if (rc == AT_OK) {
            rc = dump_break(buf, inner);
        }
        if (rc == AT_OK && object) {
            rc = dump_string(json_object_iter_key(it), json_object_iter_key_len(it), buf);
            it = json_object_iter_next((json_t *)value, it);
            if (rc == AT_OK) {
                rc = at_buf_append(buf, ": ", indent >= 0 ? 2 : 1);
            }
        }
        if (rc == AT_OK) {
            rc = dump(item, buf, inner);
        }
    }
    if (rc == AT_OK && count != 0) {
        rc = dump_break(buf, indent);
    }
    return rc == AT_OK ? at_buf_append(buf, object ? "}" : "]", 1) : rc;
}

enum at_rc at_json_dump(const json_t *value, struct at_buf *buf)
{
    return dump(value, buf, -1);
}

enum at_rc at_json_dump_text(const char *s, size_t len, struct at_buf *buf)
{
    if (at_str_utf8_prefix((struct at_str){s, len}) == len) {
        return dump_string(s, len, buf);
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf clean = {0};
    while (len != 0) {
        size_t good = at_str_utf8_prefix((struct at_str){s, len});
        enum at_rc rc = at_buf_append(&clean, s, good);
        if (rc == AT_OK && good < len) {
            rc = at_buf_append_str(&clean, "\xef\xbf\xbd");
            good++;
        }
        if (rc != AT_OK) {
            return rc;
        }
        s += good;
        len -= good;
    }
    return dump_string(clean.data, clean.len, buf);
}

enum at_rc at_json_dump_pretty(const json_t *value, struct at_buf *buf)
{
    return dump(value, buf, 0);
}

struct sink {
    struct at_buf *buf;
    enum at_rc rc;
};

static int on_sorted(const char *text, size_t len, void *ctx)
{
    struct sink *sink = ctx;
    sink->rc = at_buf_append(sink->buf, text, len);
    return sink->rc == AT_OK ? 0 : -1;
}

enum at_rc at_json_dump_sorted(const json_t *value, struct at_buf *buf)
{
    struct sink sink = {.buf = buf, .rc = AT_OK};
    int failed = json_dump_callback(value, on_sorted, &sink,
                                    JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
    return failed != 0 && sink.rc == AT_OK ? AT_INVALID : sink.rc;
}

size_t at_json_measure(const json_t *value, size_t *nodes)
{
    size_t deepest = 0;
    (*nodes)++;
    if (json_is_array(value)) {
        for (size_t i = 0; i < json_array_size(value); i++) {
            size_t depth = at_json_measure(json_array_get(value, i), nodes);
            deepest = depth > deepest ? depth : deepest;
        }
    } else if (json_is_object(value)) {
        const char *key;
        json_t *item;
        json_object_foreach((json_t *)value, key, item)
        {
            size_t depth = at_json_measure(item, nodes);
            deepest = depth > deepest ? depth : deepest;
        }
    } else {
        return 0;
    }
    return deepest + 1;
}

/* Paths. */

json_t *at_json_at(const json_t *root, const char *path)
{
    const json_t *at = root;
    while (at != NULL) {
        size_t len = strcspn(path, ".");
        at = json_object_getn(at, path, len);
        if (path[len] == '\0') {
            break;
        }
        path += len + 1;
    }
    return (json_t *)at;
}

const char *at_json_str_at(const json_t *root, const char *path, const char *otherwise)
{
    const char *text = json_string_value(at_json_at(root, path));
    return text != NULL ? text : otherwise;
}

int64_t at_json_int_at(const json_t *root, const char *path, int64_t otherwise)
{
    const json_t *value = at_json_at(root, path);
    return json_is_integer(value) ? json_integer_value(value) : otherwise;
}

bool at_json_bool_at(const json_t *root, const char *path, bool otherwise)
{
    const json_t *value = at_json_at(root, path);
    return json_is_boolean(value) ? json_is_true(value) : otherwise;
}

void at_json_set_at(json_t *root, const char *path, json_t *value_take)
{
    assert(json_is_object(root));
    for (;;) {
        size_t len = strcspn(path, ".");
        if (path[len] == '\0') {
            break;
        }
        json_t *next = json_object_getn(root, path, len);
        if (!json_is_object(next)) {
            if (value_take == NULL) {
                return;
            }
            next = json_object();
            json_object_setn_new(root, path, len, next);
        }
        root = next;
        path += len + 1;
    }
    if (value_take == NULL) {
        json_object_del(root, path);
    } else {
        json_object_set_new(root, path, value_take);
    }
}

json_t *at_json_merge_patch(json_t *target_take, const json_t *patch)
{
    if (!json_is_object(patch)) {
        json_decref(target_take);
        return json_deep_copy(patch);
    }
    json_t *target = target_take;
    if (!json_is_object(target)) {
        json_decref(target);
        target = json_object();
    }
    const char *key;
    size_t key_len;
    json_t *item;
    json_object_keylen_foreach((json_t *)patch, key, key_len, item)
    {
        if (json_is_null(item)) {
            json_object_deln(target, key, key_len);
            continue;
        }
        json_t *old = json_incref(json_object_getn(target, key, key_len));
        json_t *merged = at_json_merge_patch(old, item);
        json_object_setn_new(target, key, key_len, merged);
    }
    return target;
}
