/* Label selectors in Kubernetes' grammar. */
#include "model/model_priv.h"

#include "core/str.h"

#include <string.h>

#define TEXT_BYTES_MAX 8192
#define TERMS_MAX 64
#define VALUES_MAX 256

enum op { OP_IN, OP_NOT_IN, OP_EXISTS, OP_ABSENT };

struct term {
    const char *key;
    enum op op;
    const char **values;
    size_t n_values;
};

struct at_selector {
    struct term terms[TERMS_MAX];
    size_t n;
};

struct parser {
    const char *at; /* NUL-terminated */
    struct at_arena *arena;
    struct at_err *err;
};

static void skip_blanks(struct parser *p)
{
    while (*p->at == ' ' || *p->at == '\t') {
        p->at++;
    }
}

static bool take(struct parser *p, const char *token)
{
    skip_blanks(p);
    size_t len = strlen(token);
    if (strncmp(p->at, token, len) != 0) {
        return false;
    }
    p->at += len;
    return true;
}

/* Letters up to a blank or a character of the grammar; may be empty. */
static struct at_str word(struct parser *p)
{
    skip_blanks(p);
    size_t len = strcspn(p->at, " \t,=!()<>");
    struct at_str out = {p->at, len};
    p->at += len;
    return out;
}

static bool take_word(struct parser *p, const char *wanted)
{
    struct parser before = *p;
    if (at_str_eq(word(p), wanted)) {
        return true;
    }
    *p = before;
    return false;
}

static enum at_rc refuse(struct parser *p, const char *what, const char *where)
{
    return at_err_set_field(p->err, AT_BAD_REQUEST, "labelSelector",
                            "unable to parse label selector: %s at \"%.60s\"", what, where);
}

static enum at_rc parse_key(struct parser *p, struct term *term)
{
    struct at_str text = word(p);
    if (text.len == 0) {
        return refuse(p, "a key is missing", text.ptr);
    }
    term->key = at_arena_strndup(p->arena, text.ptr, text.len);
    if (term->key == NULL) {
        return at_err_set(p->err, AT_TOO_LARGE, "label selector is too large");
    }
    const char *problem = at_model_qualified_name_problem(term->key);
    return problem == NULL ? AT_OK : refuse(p, problem, term->key);
}

static enum at_rc parse_value(struct parser *p, struct term *term)
{
    struct at_str text = word(p);
    const char *value = at_arena_strndup(p->arena, text.ptr, text.len);
    if (value == NULL || term->n_values == VALUES_MAX) {
        return at_err_set(p->err, AT_TOO_LARGE, "label selector is too large");
    }
    const char *problem = at_model_label_value_problem(value);
    if (problem != NULL) {
        return refuse(p, problem, value);
    }
    term->values[term->n_values++] = value;
    return AT_OK;
}

static enum at_rc parse_set(struct parser *p, struct term *term)
{
    if (!take(p, "(")) {
        return refuse(p, "( is missing", p->at);
    }
    do {
        enum at_rc rc = parse_value(p, term);
        if (rc != AT_OK) {
            return rc;
        }
    } while (take(p, ","));
    return take(p, ")") ? AT_OK : refuse(p, ") is missing", p->at);
}

static enum at_rc parse_term(struct parser *p, struct term *term)
{
    bool negated = take(p, "!");
    enum at_rc rc = parse_key(p, term);
    if (rc != AT_OK) {
        return rc;
    }
    term->op = negated ? OP_ABSENT : OP_EXISTS;
    if (negated) {
        return AT_OK;
    }
    term->values = at_arena_alloc(p->arena, VALUES_MAX * sizeof *term->values);
    if (term->values == NULL) {
        return at_err_set(p->err, AT_TOO_LARGE, "label selector is too large");
    }
    if (take(p, "!=")) {
        term->op = OP_NOT_IN;
        return parse_value(p, term);
    }
    if (take(p, "==") || take(p, "=")) {
        term->op = OP_IN;
        return parse_value(p, term);
    }
    if (take_word(p, "in")) {
        term->op = OP_IN;
        return parse_set(p, term);
    }
    if (take_word(p, "notin")) {
        term->op = OP_NOT_IN;
        return parse_set(p, term);
    }
    return AT_OK;
}

enum at_rc at_selector_parse(const char *text, struct at_arena *arena, struct at_selector **ret,
                             struct at_err *err)
{
    struct parser p = {.at = text != NULL ? text : "", .arena = arena, .err = err};
    if (strlen(p.at) > TEXT_BYTES_MAX) {
        return at_err_set(err, AT_BAD_REQUEST, "label selector is over %d bytes", TEXT_BYTES_MAX);
    }
    struct at_selector *selector = at_arena_alloc(arena, sizeof *selector);
    if (selector == NULL) {
        return at_err_set(err, AT_TOO_LARGE, "label selector is too large");
    }
    skip_blanks(&p);
    while (*p.at != '\0') {
        if (selector->n == TERMS_MAX) {
            return refuse(&p, "more than 64 requirements", p.at);
        }
        enum at_rc rc = parse_term(&p, &selector->terms[selector->n]);
        if (rc != AT_OK) {
            return rc;
        }
        selector->n++;
        bool comma = take(&p, ",");
        skip_blanks(&p);
        if (comma == (*p.at == '\0')) {
            return refuse(&p, comma ? "a requirement is missing" : "a comma is missing", p.at);
        }
    }
    *ret = selector;
    return AT_OK;
}

static bool term_match(const struct term *term, const char *value)
{
    if (term->op == OP_EXISTS || term->op == OP_ABSENT) {
        return (value != NULL) == (term->op == OP_EXISTS);
    }
    bool in = false;
    for (size_t i = 0; value != NULL && i < term->n_values && !in; i++) {
        in = strcmp(term->values[i], value) == 0;
    }
    return in == (term->op == OP_IN);
}

bool at_selector_match_json(const struct at_selector *selector, const json_t *labels)
{
    for (size_t i = 0; i < selector->n; i++) {
        const struct term *term = &selector->terms[i];
        if (!term_match(term, json_string_value(json_object_get(labels, term->key)))) {
            return false;
        }
    }
    return true;
}

bool at_selector_match(const struct at_selector *selector, const struct at_model_map *labels)
{
    for (size_t i = 0; i < selector->n; i++) {
        const struct term *term = &selector->terms[i];
        if (!term_match(term, labels != NULL ? at_model_map_get(labels, term->key) : NULL)) {
            return false;
        }
    }
    return true;
}
