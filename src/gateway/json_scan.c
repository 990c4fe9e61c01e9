#include "gateway/json_scan.h"

#include "core/mem.h"

#include <assert.h>
#include <string.h>

struct scan {
    const char *start, *at, *end; /* at: where the text is wrong, once something failed */
    const char *why;
};

/* A string without its escapes. The hash is of all of it, the text of what there is room for. */
struct decoded {
    char text[AT_GW_MODEL_BYTES_MAX];
    size_t len; /* of all of it */
    uint64_t hash;
    bool clean; /* neither NUL nor half a surrogate pair in it */
};

static bool wrong(struct scan *s, const char *why)
{
    s->why = why;
    return false;
}

static int peek(const struct scan *s)
{
    return s->at < s->end ? (unsigned char)*s->at : -1;
}

static void skip_space(struct scan *s)
{
    while (s->at < s->end &&
           (*s->at == ' ' || *s->at == '\n' || *s->at == '\r' || *s->at == '\t')) {
        s->at++;
    }
}

static int hex_of(char c)
{
    char low = (char)(c | 0x20);
    return c >= '0' && c <= '9' ? c - '0' : low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
}

/* The four digits of \uXXXX; -1: they are not there. */
static int32_t hex4(const char *at, const char *end)
{
    int32_t value = 0;
    if (end - at < 4) {
        return -1;
    }
    for (int i = 0; i < 4; i++) {
        int digit = hex_of(at[i]);
        if (digit < 0) {
            return -1;
        }
        value = value << 4 | digit;
    }
    return value;
}

/* Eight bytes at once: ASCII without control characters, quotes and backslashes? The lowest byte
 * that is none of these is always seen; a borrow can only come from one that was. */
static bool is_plain8(const char *at)
{
    const uint64_t ones = UINT64_MAX / 255, high = ones << 7;
    uint64_t word;
    memcpy(&word, at, sizeof word);
    uint64_t quote = word ^ ones * '"', slash = word ^ ones * '\\';
    return ((word | (word - ones * 0x20) | (quote - ones) | (slash - ones)) & high) == 0;
}

static bool skip_escape(struct scan *s)
{
    int c = s->end - s->at > 1 ? s->at[1] : -1;
    if (c == 'u') {
        if (hex4(s->at + 2, s->end) < 0) {
            return wrong(s, "\\u needs four hex digits");
        }
        s->at += 6;
        return true;
    }
    if (c <= 0 || strchr("\"\\/bfnrt", c) == NULL) {
        return wrong(s, "no such escape");
    }
    s->at += 2;
    return true;
}

static bool skip_utf8(struct scan *s)
{
    unsigned char lead = (unsigned char)*s->at;
    size_t len = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if ((size_t)(s->end - s->at) < len || at_str_utf8_prefix((struct at_str){s->at, len}) != len) {
        return wrong(s, "this is no UTF-8");
    }
    s->at += len;
    return true;
}

/* A string; *ret_raw is what stands between its quotes. */
static bool take_string(struct scan *s, struct at_str *ret_raw)
{
    if (peek(s) != '"') {
        return wrong(s, "a string in double quotes is expected");
    }
    const char *from = ++s->at;
    for (;;) {
        while (s->end - s->at >= 8 && is_plain8(s->at)) {
            s->at += 8;
        }
        int c = peek(s);
        if (c == '"') {
            *ret_raw = (struct at_str){from, (size_t)(s->at - from)};
            s->at++;
            return true;
        }
        if (c < 0x20) {
            return wrong(s,
                         c < 0 ? "the text ends within a string" : "control character in a string");
        }
        if (c == '\\') {
            if (!skip_escape(s)) {
                return false;
            }
        } else if (c >= 0x80) {
            if (!skip_utf8(s)) {
                return false;
            }
        } else {
            s->at++;
        }
    }
}

static size_t skip_digits(struct scan *s)
{
    const char *from = s->at;
    while (s->at < s->end && *s->at >= '0' && *s->at <= '9') {
        s->at++;
    }
    return (size_t)(s->at - from);
}

/* RFC 8259 §6 */
static bool skip_number(struct scan *s)
{
    s->at += peek(s) == '-';
    if (peek(s) == '0') {
        s->at++;
    } else if (skip_digits(s) == 0) {
        return wrong(s, "a digit is expected");
    }
    if (peek(s) == '.') {
        s->at++;
        if (skip_digits(s) == 0) {
            return wrong(s, "a digit is expected");
        }
    }
    if (peek(s) == 'e' || peek(s) == 'E') {
        s->at++;
        s->at += peek(s) == '+' || peek(s) == '-';
        if (skip_digits(s) == 0) {
            return wrong(s, "a digit is expected");
        }
    }
    return true;
}

static bool skip_word(struct scan *s, const char *word)
{
    size_t len = strlen(word);
    if ((size_t)(s->end - s->at) < len || memcmp(s->at, word, len) != 0) {
        return wrong(s, "a value is expected");
    }
    s->at += len;
    return true;
}

static bool skip_scalar(struct scan *s)
{
    struct at_str raw;
    switch (peek(s)) {
    case '"':
        return take_string(s, &raw);
    case 't':
        return skip_word(s, "true");
    case 'f':
        return skip_word(s, "false");
    case 'n':
        return skip_word(s, "null");
    case '-':
        return skip_number(s);
    default:
        return peek(s) >= '0' && peek(s) <= '9' ? skip_number(s) : wrong(s, "a value is expected");
    }
}

static bool take_name(struct scan *s, struct at_str *ret_raw)
{
    skip_space(s);
    if (!take_string(s, ret_raw)) {
        return false;
    }
    skip_space(s);
    if (peek(s) != ':') {
        return wrong(s, "':' is expected");
    }
    s->at++;
    skip_space(s);
    return true;
}

/* What is open is one bit a level: 1 an object, 0 an array. */
struct nest {
    uint64_t objects;
    unsigned depth;
};

static bool open_one(struct scan *s, struct nest *nest, bool *ret_empty)
{
    bool object = peek(s) == '{';
    if (nest->depth == AT_GW_JSON_DEPTH_MAX - 1) {
        return wrong(s, "nested too deeply");
    }
    s->at++;
    skip_space(s);
    *ret_empty = peek(s) == (object ? '}' : ']');
    if (*ret_empty) {
        s->at++;
        return true;
    }
    nest->objects = nest->objects << 1 | object;
    nest->depth++;
    struct at_str name;
    return !object || take_name(s, &name);
}

/* After a value: close what ends here. *ret_more: another value follows. */
static bool close_some(struct scan *s, struct nest *nest, bool *ret_more)
{
    *ret_more = false;
    while (nest->depth > 0) {
        bool object = (nest->objects & 1) != 0;
        skip_space(s);
        if (peek(s) == ',') {
            struct at_str name;
            s->at++;
            *ret_more = true;
            return !object || take_name(s, &name);
        }
        if (peek(s) != (object ? '}' : ']')) {
            return wrong(s, object ? "',' or '}' is expected" : "',' or ']' is expected");
        }
        s->at++;
        nest->objects >>= 1;
        nest->depth--;
    }
    return true;
}

static bool skip_value(struct scan *s)
{
    static_assert(AT_GW_JSON_DEPTH_MAX <= 64, "a bit a level");
    struct nest nest = {0};
    for (bool more = true; more;) {
        bool ended = true;
        skip_space(s);
        if (peek(s) == '{' || peek(s) == '[') {
            if (!open_one(s, &nest, &ended)) {
                return false;
            }
        } else if (!skip_scalar(s)) {
            return false;
        }
        if (ended && !close_some(s, &nest, &more)) {
            return false;
        }
    }
    return true;
}

static void put_byte(struct decoded *d, unsigned byte)
{
    d->hash = (d->hash ^ byte) * 1099511628211ull; /* FNV-1a */
    if (d->len < sizeof d->text - 1) {
        d->text[d->len] = (char)byte;
    }
    d->len++;
    d->clean = d->clean && byte != 0;
}

static void put_rune(struct decoded *d, uint32_t rune)
{
    if (rune < 0x80) {
        put_byte(d, rune);
        return;
    }
    unsigned more = rune < 0x800 ? 1 : rune < 0x10000 ? 2 : 3;
    put_byte(d, (more == 1 ? 0xc0 : more == 2 ? 0xe0 : 0xf0) | rune >> 6 * more);
    while (more-- > 0) {
        put_byte(d, 0x80 | (rune >> 6 * more & 0x3f));
    }
}

/* \uXXXX, maybe a pair of them, at at; how many bytes it takes. */
static size_t decode_u(const char *at, const char *end, struct decoded *d)
{
    int32_t unit = hex4(at + 2, end);
    assert(unit >= 0); /* take_string has seen it */
    if (unit >= 0xd800 && unit < 0xdc00 && end - at >= 12 && at[6] == '\\' && at[7] == 'u') {
        int32_t low = hex4(at + 8, end);
        if (low >= 0xdc00 && low < 0xe000) {
            put_rune(d, 0x10000u + ((uint32_t)(unit - 0xd800) << 10) + (uint32_t)(low - 0xdc00));
            return 12;
        }
    }
    d->clean = d->clean && (unit < 0xd800 || unit >= 0xe000);
    put_rune(d, (uint32_t)unit);
    return 6;
}

static void decode(struct at_str raw, struct decoded *d)
{
    static const char LETTERS[] = "bfnrt", BYTES[] = "\b\f\n\r\t";
    *d = (struct decoded){.hash = 14695981039346656037ull, .clean = true};
    const char *at = raw.ptr, *end = raw.ptr + raw.len;
    while (at < end) {
        if (*at != '\\') {
            put_byte(d, (unsigned char)*at++);
        } else if (at[1] == 'u') {
            at += decode_u(at, end, d);
        } else {
            const char *letter = strchr(LETTERS, at[1]);
            put_byte(d, (unsigned char)(letter != NULL ? BYTES[letter - LETTERS] : at[1]));
            at += 2;
        }
    }
}

static bool is_named(const struct decoded *name, const char *text)
{
    size_t len = strlen(text);
    return name->len == len && memcmp(name->text, text, len) == 0;
}

/* What is wrong with the two members, kept until the whole text is known to be JSON. */
struct members {
    uint64_t seen[AT_GW_JSON_MEMBERS_MAX];
    size_t n;
    bool has_model;
    const char *bad_model, *bad_stream;
};

static bool is_new(struct scan *s, struct members *m, uint64_t hash, const char *name_at)
{
    for (size_t i = 0; i < m->n; i++) {
        if (m->seen[i] == hash) {
            s->at = name_at;
            return wrong(s, "this member is named twice");
        }
    }
    if (m->n == AT_GW_JSON_MEMBERS_MAX) {
        s->at = name_at;
        return wrong(s, "too many members");
    }
    m->seen[m->n++] = hash;
    return true;
}

static bool take_model(struct scan *s, struct members *m, struct gw_scan *out)
{
    struct decoded d;
    struct at_str raw;
    m->has_model = true;
    if (peek(s) != '"') {
        m->bad_model = "must be a string";
        return skip_value(s);
    }
    if (!take_string(s, &raw)) {
        return false;
    }
    decode(raw, &d);
    if (d.len == 0 || !d.clean) {
        m->bad_model = d.len == 0 ? "must not be empty" : "is no text";
    } else if (d.len >= sizeof out->model) {
        m->bad_model = "is too long for a model's name";
    } else {
        out->raw_model = raw;
        memcpy(out->model, d.text, d.len);
        out->model[d.len] = '\0';
        out->model_len = d.len;
    }
    return true;
}

/* Where the text of a member's value goes; NULL: nowhere. By length first: most are others. */
static struct at_str *value_of(const struct decoded *name, struct gw_scan *out)
{
    struct gw_scan_more *more = &out->more;
    switch (name->len) {
    case 1:
        return is_named(name, "n") ? &more->n : NULL;
    case 4:
        return is_named(name, "seed") ? &more->seed : NULL;
    case 5:
        return is_named(name, "tools") ? &out->tools : NULL;
    case 6:
        return is_named(name, "prompt") ? &out->prompt : NULL;
    case 7:
        return is_named(name, "best_of") ? &more->best_of : NULL;
    case 8:
        return is_named(name, "messages") ? &out->prompt : NULL;
    case 10:
        return is_named(name, "max_tokens") ? &more->max_tokens : NULL;
    case 11:
        return is_named(name, "temperature") ? &more->temperature : NULL;
    case 14:
        return is_named(name, "stream_options") ? &more->stream_options : NULL;
    case 21:
        return is_named(name, "max_completion_tokens") ? &more->max_completion_tokens : NULL;
    default:
        return NULL;
    }
}

static bool take_member(struct scan *s, struct members *m, struct gw_scan *out)
{
    struct at_str raw;
    struct decoded name;
    skip_space(s);
    const char *name_at = s->at;
    if (!take_name(s, &raw)) {
        return false;
    }
    decode(raw, &name);
    if (!name.clean) {
        s->at = name_at;
        return wrong(s, "this name is no text");
    }
    if (!is_new(s, m, name.hash, name_at)) {
        return false;
    }
    if (is_named(&name, "model")) {
        return take_model(s, m, out);
    }
    struct at_str *text =
        is_named(&name, "user") || is_named(&name, "safety_identifier")        ? &out->user
        : is_named(&name, "session_id") || is_named(&name, "prompt_cache_key") ? &out->session
                                                                               : NULL;
    if (text != NULL && peek(s) == '"') {
        return take_string(s, text);
    }
    struct at_str *value = value_of(&name, out);
    if (value != NULL) {
        value->ptr = s->at;
        bool ok = skip_value(s);
        value->len = (size_t)(s->at - value->ptr);
        return ok;
    }
    if (is_named(&name, "stream")) {
        int c = peek(s);
        out->stream = c == 't';
        m->bad_stream = c != 't' && c != 'f' && c != 'n' ? "must be true or false" : NULL;
    }
    return skip_value(s);
}

static bool take_object(struct scan *s, struct members *m, struct gw_scan *out)
{
    skip_space(s);
    if (peek(s) != '{') {
        return wrong(s, "a JSON object is expected");
    }
    s->at++;
    skip_space(s);
    if (peek(s) == '}') {
        s->at++;
    } else {
        for (bool more = true; more; s->at++) {
            if (!take_member(s, m, out)) {
                return false;
            }
            skip_space(s);
            more = peek(s) == ',';
            if (!more && peek(s) != '}') {
                return wrong(s, "',' or '}' is expected");
            }
        }
    }
    skip_space(s);
    return s->at == s->end || wrong(s, "nothing may follow the object");
}

static enum at_rc report(const struct scan *s, struct at_err *err)
{
    size_t line = 1, column = 1;
    for (const char *p = s->start; p < s->at; p++) {
        if (*p == '\n') {
            line++;
            column = 1;
        } else {
            column += ((unsigned char)*p & 0xc0) != 0x80; /* characters, not bytes */
        }
    }
    return at_err_set(err, AT_BAD_REQUEST, "line %zu, column %zu: %s", line, column, s->why);
}

enum at_rc gw_json_scan(struct at_str text, struct gw_scan *ret, struct at_err *err)
{
    static const char EMPTY[] = "";
    const char *start = text.ptr != NULL ? text.ptr : EMPTY;
    struct scan s = {.start = start, .at = start, .end = start + text.len};
    struct members m;
    struct gw_scan out;
    m.n = 0; /* seen stays as it is: a kilobyte a request */
    m.has_model = false;
    m.bad_model = m.bad_stream = NULL;
    out.model_len = 0;
    out.model[0] = '\0';
    out.stream = false;
    out.more = (struct gw_scan_more){0};
    out.raw_model = out.user = out.session = out.prompt = out.tools = (struct at_str){NULL, 0};
    if (!take_object(&s, &m, &out)) {
        return report(&s, err);
    }
    if (!m.has_model) {
        return at_err_set_field(err, AT_INVALID, "model", "which model is asked for must be said");
    }
    if (m.bad_model != NULL) {
        return at_err_set_field(err, AT_INVALID, "model", "%s", m.bad_model);
    }
    if (m.bad_stream != NULL) {
        return at_err_set_field(err, AT_INVALID, "stream", "%s", m.bad_stream);
    }
    *ret = out;
    return AT_OK;
}
