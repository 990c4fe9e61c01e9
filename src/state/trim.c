/* The stored form without what nobody here decides by: found by its commas and brackets, which is
 * many times faster than to parse it. */
#include "core/str.h"
#include "state/object.h"

#include <string.h>

/* What is left of the text. Every step fails at its end, and at anything that stored objects do not
 * have (blanks between tokens, say). */
struct text {
    const char *at, *end;
};

static bool take_char(struct text *t, char c)
{
    if (t->at == t->end || *t->at != c) {
        return false;
    }
    t->at++;
    return true;
}

static bool skip_string(struct text *t)
{
    if (!take_char(t, '"')) {
        return false;
    }
    for (;;) {
        const char *quote = memchr(t->at, '"', (size_t)(t->end - t->at));
        if (quote == NULL) {
            return false;
        }
        size_t slashes = 0;
        while (quote - slashes > t->at && quote[-1 - (ptrdiff_t)slashes] == '\\') {
            slashes++;
        }
        t->at = quote + 1;
        if (slashes % 2 == 0) {
            return true;
        }
    }
}

static bool skip_value(struct text *t)
{
    size_t depth = 0;
    do {
        if (t->at == t->end) {
            return false;
        }
        char c = *t->at;
        if (c == '"') {
            if (!skip_string(t)) {
                return false;
            }
            continue;
        }
        if (depth == 0 && (c == ',' || c == '}' || c == ']')) {
            return false; /* no value at all */
        }
        t->at++;
        depth += c == '{' || c == '[';
        depth -= c == '}' || c == ']';
        if (depth == 0 && c != '}' && c != ']') { /* a number or a word: to its end */
            while (t->at != t->end && *t->at != ',' && *t->at != '}' && *t->at != ']') {
                t->at++;
            }
        }
    } while (depth != 0);
    return true;
}

static bool is_left_out(struct at_str member)
{
    static const char *const NAMES[] = {"\"annotations\":", "\"managedFields\":"};
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        size_t len = strlen(NAMES[i]);
        if (member.len > len && memcmp(member.ptr, NAMES[i], len) == 0) {
            return true;
        }
    }
    return false;
}

/* The members of metadata; *ret_end: just after its bracket. */
static enum at_rc members(struct text *t, struct at_buf *out)
{
    bool first = true;
    if (take_char(t, '}')) {
        return at_buf_append(out, "}", 1);
    }
    for (;;) {
        const char *begin = t->at;
        if (!skip_string(t) || !take_char(t, ':') || !skip_value(t)) {
            return AT_CORRUPT;
        }
        struct at_str member = {begin, (size_t)(t->at - begin)};
        if (!is_left_out(member)) {
            enum at_rc rc = first ? AT_OK : at_buf_append(out, ",", 1);
            rc = rc == AT_OK ? at_buf_append(out, member.ptr, member.len) : rc;
            if (rc != AT_OK) {
                return rc;
            }
            first = false;
        }
        if (take_char(t, '}')) {
            return at_buf_append(out, "}", 1);
        }
        if (!take_char(t, ',')) {
            return AT_CORRUPT;
        }
    }
}

enum at_rc at_object_trim(const char *value, size_t len, struct at_buf *out)
{
    size_t cut = at_object_metadata_start(value, len);
    if (cut == 0) {
        return AT_CORRUPT;
    }
    size_t before = out->len;
    struct text t = {value + cut, value + len};
    enum at_rc rc = at_buf_append(out, value, cut);
    rc = rc == AT_OK ? members(&t, out) : rc;
    rc = rc == AT_OK ? at_buf_append(out, t.at, (size_t)(t.end - t.at)) : rc;
    if (rc != AT_OK && out->data != NULL) {
        out->len = before;
        out->data[before] = '\0';
    }
    return rc;
}
