/* Members of a stored object read, replaced and left out in its text: found by commas and brackets,
 * which is many times faster than to parse it and write it again. */
#include "core/str.h"
#include "state/object.h"

#include <assert.h>
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

/* A name, which has no escapes in stored form, and its colon. */
static bool take_name(struct text *t, struct at_str *ret)
{
    const char *begin = t->at;
    if (!skip_string(t) || !take_char(t, ':')) {
        return false;
    }
    *ret = (struct at_str){begin + 1, (size_t)(t->at - begin) - 3};
    return memchr(ret->ptr, '\\', ret->len) == NULL;
}

static bool is_named(struct at_str name, const char *text)
{
    return strlen(text) == name.len && memcmp(text, name.ptr, name.len) == 0;
}

/* --- edits --- */

struct editing {
    const struct at_object_edit *edits;
    size_t n;
    uint64_t done; /* bit k: edits[k] replaced a member */
    struct at_buf *out;
    enum at_rc rc; /* of what was appended */
};

static void add(struct editing *e, const char *text, size_t len)
{
    if (e->rc == AT_OK) {
        e->rc = at_buf_append(e->out, text, len);
    }
}

static void add_member(struct editing *e, const struct at_object_edit *edit, bool first)
{
    add(e, first ? "\"" : ",\"", first ? 1 : 2);
    add(e, edit->name, strlen(edit->name));
    add(e, "\":", 2);
    add(e, edit->text.ptr, edit->text.len);
}

static bool concerns(const struct editing *e, struct at_str part)
{
    for (size_t k = 0; k < e->n; k++) {
        if (is_named(part, e->edits[k].part)) {
            return true;
        }
    }
    return false;
}

/* A member that edits change or leave out; false: none does. */
static bool changed_member(struct editing *e, struct at_str part, struct at_str name, bool *first)
{
    for (size_t k = 0; k < e->n; k++) {
        const struct at_object_edit *edit = &e->edits[k];
        if (is_named(part, edit->part) && is_named(name, edit->name)) {
            e->done |= UINT64_C(1) << k;
            if (edit->text.ptr != NULL) {
                add_member(e, edit, *first);
                *first = false;
            }
            return true;
        }
    }
    return false;
}

static void new_members(struct editing *e, struct at_str part, bool first)
{
    for (size_t k = 0; k < e->n; k++) {
        if ((e->done >> k & 1) == 0 && e->edits[k].text.ptr != NULL &&
            is_named(part, e->edits[k].part)) {
            e->done |= UINT64_C(1) << k;
            add_member(e, &e->edits[k], first);
            first = false;
        }
    }
}

/* The members of a part, behind its opening bracket. False: not in stored form. */
static bool edit_part(struct editing *e, struct text *t, struct at_str part)
{
    bool first = true, any = t->at != t->end && *t->at != '}';
    add(e, "{", 1);
    while (any) {
        const char *begin = t->at;
        struct at_str name;
        if (!take_name(t, &name) || !skip_value(t)) {
            return false;
        }
        if (!changed_member(e, part, name, &first)) {
            add(e, ",", first ? 0 : 1);
            add(e, begin, (size_t)(t->at - begin));
            first = false;
        }
        any = take_char(t, ',');
    }
    new_members(e, part, first);
    add(e, "}", 1);
    return take_char(t, '}');
}

/* Parts that are not there yet: each comes with all that is new in it. */
static void new_parts(struct editing *e)
{
    for (size_t k = 0; k < e->n; k++) {
        if ((e->done >> k & 1) == 0 && e->edits[k].text.ptr != NULL) {
            struct at_str part = at_str_of(e->edits[k].part);
            add(e, ",\"", 2);
            add(e, part.ptr, part.len);
            add(e, "\":{", 3);
            new_members(e, part, true);
            add(e, "}", 1);
        }
    }
}

static bool edit_all(struct editing *e, struct text *t)
{
    bool more = take_char(t, '{');
    add(e, "{", 1);
    for (bool first = true; more; first = false) {
        const char *begin = t->at;
        struct at_str name;
        if (!take_name(t, &name)) {
            return false;
        }
        add(e, ",", first ? 0 : 1);
        if (concerns(e, name)) {
            add(e, begin, (size_t)(t->at - begin));
            if (!take_char(t, '{') || !edit_part(e, t, name)) {
                return false;
            }
        } else if (skip_value(t)) {
            add(e, begin, (size_t)(t->at - begin));
        } else {
            return false;
        }
        more = take_char(t, ',');
    }
    new_parts(e);
    add(e, "}", 1);
    return take_char(t, '}') && t->at == t->end;
}

enum at_rc at_object_edit(const char *value, size_t len, const struct at_object_edit *edits,
                          size_t n, struct at_buf *out)
{
    assert(n <= AT_OBJECT_EDITS_MAX);
    size_t before = out->len;
    struct text t = {value, value + len};
    struct editing e = {.edits = edits, .n = n, .out = out};
    enum at_rc rc = AT_CORRUPT;
    if (at_object_metadata_start(value, len) != 0 && edit_all(&e, &t)) {
        rc = e.rc;
    }
    if (rc != AT_OK && out->data != NULL) {
        out->len = before;
        out->data[before] = '\0';
    }
    return rc;
}

enum at_rc at_object_trim(const char *value, size_t len, struct at_buf *out)
{
    static const struct at_object_edit LEFT_OUT[] = {{"metadata", "annotations", {NULL, 0}},
                                                     {"metadata", "managedFields", {NULL, 0}},
                                                     {"status", "decision", {NULL, 0}}};
    struct at_str node = at_object_member(value, len, "spec", "nodeName");
    bool bound = node.len > strlen("\"\"") && node.ptr[0] == '"';
    return at_object_edit(value, len, LEFT_OUT, bound ? 3 : 2, out);
}

/* --- reading --- */

/* t is behind an opening bracket; moves to the value of the member of that name. */
static bool find_member(struct text *t, const char *name)
{
    struct at_str found;
    while (take_name(t, &found)) {
        if (is_named(found, name)) {
            return true;
        }
        if (!skip_value(t) || !take_char(t, ',')) {
            return false;
        }
    }
    return false;
}

struct at_str at_object_member(const char *value, size_t len, const char *part, const char *name)
{
    struct text t = {value, value + len};
    if (!take_char(&t, '{') || !find_member(&t, part) || !take_char(&t, '{') ||
        !find_member(&t, name)) {
        return (struct at_str){NULL, 0};
    }
    const char *begin = t.at;
    return skip_value(&t) ? (struct at_str){begin, (size_t)(t.at - begin)}
                          : (struct at_str){NULL, 0};
}
