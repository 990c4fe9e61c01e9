/* JSON values as block-style YAML, laid out as kubectl does (lists are not indented under their
 * key). */
#include "core/str.h"
#include "core/yaml.h"
#include "core/yaml_priv.h"

#include <ctype.h>
#include <string.h>

static bool is_word_of_yaml11(struct at_str s)
{
    static const char *const WORDS[] = {"y",   "n",    "yes",   "no",  "on",
                                        "off", "true", "false", "null"};
    for (size_t i = 0; i < sizeof WORDS / sizeof WORDS[0]; i++) {
        if (at_str_eq_nocase(s, WORDS[i])) {
            return true;
        }
    }
    return false;
}

/* Numbers, dates and times of day in either version of YAML. */
static bool looks_like_number(struct at_str s)
{
    if (!isdigit((unsigned char)s.ptr[0]) && strchr("+-.", s.ptr[0]) == NULL) {
        return false;
    }
    for (size_t i = 0; i < s.len; i++) {
        if (!isxdigit((unsigned char)s.ptr[i]) && strchr("+-.:_xoTZ ", s.ptr[i]) == NULL) {
            return false;
        }
    }
    return true;
}

static bool plain_is_safe(struct at_str s)
{
    if (s.len == 0 || at_yaml_plain_kind(s.ptr, s.len) != AT_YAML_PLAIN_STRING ||
        is_word_of_yaml11(s) || looks_like_number(s)) {
        return false;
    }
    if (!isalnum((unsigned char)s.ptr[0]) && strchr("/_.$", s.ptr[0]) == NULL) {
        return false;
    }
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        bool last = i + 1 == s.len;
        if (c < ' ' || c >= 0x7f || (c == ':' && (last || s.ptr[i + 1] == ' ')) ||
            (c == ' ' && (last || s.ptr[i + 1] == '#'))) {
            return false;
        }
    }
    return true;
}

/* A literal block keeps every byte if no line ends in doubt and nothing needs an escape. */
static bool block_is_safe(struct at_str s)
{
    if (s.len < 2 || memchr(s.ptr, '\n', s.len) == NULL || s.ptr[0] == ' ' || s.ptr[0] == '\n' ||
        (s.len >= 2 && s.ptr[s.len - 1] == '\n' && s.ptr[s.len - 2] == '\n')) {
        return false;
    }
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if ((c < ' ' && c != '\n') || c >= 0x7f) {
            return false;
        }
    }
    return true;
}

static enum at_rc put_block(struct at_str s, int indent, struct at_buf *buf)
{
    bool newline_at_end = s.ptr[s.len - 1] == '\n';
    enum at_rc rc = at_buf_append_str(buf, newline_at_end ? "|" : "|-");
    struct at_str rest = newline_at_end ? (struct at_str){s.ptr, s.len - 1} : s;
    while (rest.len != 0 && rc == AT_OK) {
        struct at_str line = at_str_cut(&rest, '\n');
        rc = line.len != 0 ? at_buf_printf(buf, "\n%*s%.*s", indent, "", (int)line.len, line.ptr)
                           : at_buf_append_str(buf, "\n");
    }
    return rc;
}

/* The character at s when YAML would refuse it or take it for a line break inside quotes; 0 else.
 */
static unsigned needs_escape(const unsigned char *s, size_t len)
{
    if (s[0] < ' ' || s[0] == 0x7f) {
        return s[0]; /* never NUL: JSON values of this house hold none */
    }
    if (len >= 2 && s[0] == 0xc2 && s[1] < 0xa0) {
        return s[1];
    }
    if (len >= 3 && (s[0] == 0xe2 || s[0] == 0xef)) {
        unsigned c = (s[0] & 0x0fu) << 12 | (s[1] & 0x3fu) << 6 | (s[2] & 0x3fu);
        return c == 0x2028 || c == 0x2029 || c == 0xfeff || c >= 0xfffe ? c : 0;
    }
    return 0;
}

static enum at_rc put_quoted(struct at_str s, struct at_buf *buf)
{
    enum at_rc rc = at_buf_append(buf, "\"", 1);
    for (size_t i = 0; i < s.len && rc == AT_OK; i++) {
        unsigned c = needs_escape((const unsigned char *)s.ptr + i, s.len - i);
        if (c == '\n' || c == '\t') {
            rc = at_buf_append(buf, c == '\n' ? "\\n" : "\\t", 2);
        } else if (c != 0) {
            rc = at_buf_printf(buf, "\\u%04x", c);
            i += c < 0x80 ? 0 : c < 0x800 ? 1 : 2;
        } else if (s.ptr[i] == '"' || s.ptr[i] == '\\') {
            rc = at_buf_append(buf, (char[]){'\\', s.ptr[i]}, 2);
        } else {
            rc = at_buf_append(buf, s.ptr + i, 1);
        }
    }
    return rc == AT_OK ? at_buf_append(buf, "\"", 1) : rc;
}

static enum at_rc put_string(struct at_str s, int indent, struct at_buf *buf)
{
    if (plain_is_safe(s)) {
        return at_buf_append(buf, s.ptr, s.len);
    }
    if (indent > 0 && block_is_safe(s)) {
        return put_block(s, indent, buf);
    }
    return put_quoted(s, buf);
}

static bool is_nested(const json_t *value)
{
    return json_object_size(value) != 0 || json_array_size(value) != 0;
}

static enum at_rc put_leaf(const json_t *value, int indent, struct at_buf *buf)
{
    if (json_is_string(value)) {
        return put_string((struct at_str){json_string_value(value), json_string_length(value)},
                          indent, buf);
    }
    return at_json_dump(value, buf);
}

static enum at_rc put_nested(const json_t *value, int indent, bool inline_first,
                             struct at_buf *buf);

/* "- item" */
static enum at_rc put_item(const json_t *item, int indent, struct at_buf *buf)
{
    enum at_rc rc = at_buf_append(buf, "- ", 2);
    if (rc != AT_OK) {
        return rc;
    }
    if (is_nested(item)) {
        return put_nested(item, indent + 2, true, buf);
    }
    rc = put_leaf(item, indent + 2, buf);
    return rc == AT_OK ? at_buf_append(buf, "\n", 1) : rc;
}

/* "key: value" */
static enum at_rc put_pair(struct at_str key, const json_t *value, int indent, struct at_buf *buf)
{
    enum at_rc rc = put_string(key, 0, buf);
    if (rc == AT_OK) {
        rc = at_buf_append_str(buf, is_nested(value) ? ":\n" : ": ");
    }
    if (rc != AT_OK) {
        return rc;
    }
    if (is_nested(value)) {
        return put_nested(value, json_is_array(value) ? indent : indent + 2, false, buf);
    }
    rc = put_leaf(value, indent + 2, buf);
    return rc == AT_OK ? at_buf_append(buf, "\n", 1) : rc;
}

static enum at_rc put_nested(const json_t *value, int indent, bool inline_first, struct at_buf *buf)
{
    bool object = json_is_object(value);
    void *it = object ? json_object_iter((json_t *)value) : NULL;
    size_t count = object ? json_object_size(value) : json_array_size(value);
    enum at_rc rc = AT_OK;
    for (size_t i = 0; i < count && rc == AT_OK; i++) {
        if (i != 0 || !inline_first) {
            rc = at_buf_printf(buf, "%*s", indent, "");
        }
        if (rc == AT_OK && object) {
            struct at_str key = {json_object_iter_key(it), json_object_iter_key_len(it)};
            rc = put_pair(key, json_object_iter_value(it), indent, buf);
            it = json_object_iter_next((json_t *)value, it);
        } else if (rc == AT_OK) {
            rc = put_item(json_array_get(value, i), indent, buf);
        }
    }
    return rc;
}

enum at_rc at_yaml_dump(const json_t *value, struct at_buf *buf)
{
    if (is_nested(value)) {
        return put_nested(value, 0, false, buf);
    }
    enum at_rc rc = put_leaf(value, 2, buf);
    return rc == AT_OK ? at_buf_append(buf, "\n", 1) : rc;
}
