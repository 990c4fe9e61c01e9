/* labelSelector and fieldSelector of a request. */
#include "api/api_priv.h"
#include "core/mem.h"
#include "core/str.h"

#include <string.h>

struct field_rule {
    const char *plural; /* NULL: every kind */
    const char *path;
};

static const struct field_rule FIELDS[] = {
    {NULL, "metadata.name"},
    {NULL, "metadata.namespace"},
    {"pods", "spec.nodeName"},
    {"pods", "spec.restartPolicy"},
    {"pods", "status.phase"},
    {"pods", "status.podIP"},
    {"instances", "spec.nodeName"},
    {"instances", "status.phase"},
    {"namespaces", "status.phase"},
    {"secrets", "type"},
    {"events", "involvedObject.apiVersion"},
    {"events", "involvedObject.kind"},
    {"events", "involvedObject.name"},
    {"events", "involvedObject.namespace"},
    {"events", "involvedObject.uid"},
    {"events", "involvedObject.resourceVersion"},
    {"events", "involvedObject.fieldPath"},
    {"events", "reason"},
    {"events", "type"},
    {"events", "source"},
    {"events", "reportingComponent"},
};

static const char *field_path(const char *plural, struct at_str name)
{
    for (size_t i = 0; i < AT_ARRAY_LEN(FIELDS); i++) {
        if (at_str_eq(name, FIELDS[i].path) &&
            (FIELDS[i].plural == NULL || at_streq(FIELDS[i].plural, plural))) {
            return at_str_eq(name, "source") ? "source.component" : FIELDS[i].path;
        }
    }
    return NULL;
}

/* Value of a term: backslash escapes , = and itself. Up to the next plain comma. */
static const char *value_take(struct at_str *rest, struct at_arena *arena)
{
    char *out = at_arena_alloc(arena, rest->len + 1);
    size_t n = 0;
    size_t i = 0;
    for (; out != NULL && i < rest->len && rest->ptr[i] != ','; i++) {
        if (rest->ptr[i] == '\\' && i + 1 < rest->len) {
            i++;
        }
        out[n++] = rest->ptr[i];
    }
    i = i < rest->len ? i + 1 : i;
    rest->ptr += i;
    rest->len -= i;
    return out;
}

static enum at_rc term_parse(struct api_req *req, struct at_str *rest, struct api_field_term *ret,
                             struct at_err *err)
{
    size_t eq = 0;
    while (eq < rest->len && rest->ptr[eq] != '=' && rest->ptr[eq] != ',') {
        eq++;
    }
    if (eq == rest->len || rest->ptr[eq] == ',') {
        return at_err_set(err, AT_BAD_REQUEST,
                          "fieldSelector: \"%.*s\" is no term like field=value",
                          (int)(eq < 200 ? eq : 200), rest->ptr);
    }
    ret->negate = eq > 0 && rest->ptr[eq - 1] == '!';
    struct at_str name = at_str_trim((struct at_str){rest->ptr, ret->negate ? eq - 1 : eq});
    ret->path = field_path(req->route.resource, name);
    if (ret->path == NULL) {
        return at_err_set(err, AT_BAD_REQUEST, "field label not supported: %.*s",
                          (int)(name.len < 200 ? name.len : 200), name.ptr);
    }
    size_t skip = eq + 1;
    if (!ret->negate && skip < rest->len && rest->ptr[skip] == '=') {
        skip++;
    }
    rest->ptr += skip;
    rest->len -= skip;
    ret->value = value_take(rest, req->arena);
    return ret->value != NULL ? AT_OK : at_err_set(err, AT_TOO_LARGE, "the selector is too long");
}

enum at_rc api_filter_parse(struct api_req *req, struct api_filter *ret, struct at_err *err)
{
    memset(ret, 0, sizeof *ret);
    const char *labels = api_query(req, "labelSelector");
    if (labels != NULL && labels[0] != '\0') {
        enum at_rc rc = at_selector_parse(labels, req->arena, &ret->labels, err);
        if (rc != AT_OK) {
            at_err_wrap(err, rc, "labelSelector");
            if (err != NULL) {
                err->rc = AT_BAD_REQUEST;
            }
            return AT_BAD_REQUEST;
        }
    }
    const char *fields = api_query(req, "fieldSelector");
    struct at_str rest = at_str_of(fields);
    while (rest.len > 0) {
        if (ret->n_fields == AT_API_FIELD_TERMS_MAX) {
            return at_err_set(err, AT_BAD_REQUEST, "fieldSelector: more than %d terms",
                              AT_API_FIELD_TERMS_MAX);
        }
        enum at_rc rc = term_parse(req, &rest, &ret->fields[ret->n_fields], err);
        if (rc != AT_OK) {
            return rc;
        }
        ret->n_fields++;
    }
    return AT_OK;
}

bool api_filter_is_empty(const struct api_filter *filter)
{
    return filter->labels == NULL && filter->n_fields == 0;
}

const char *api_filter_demands(const struct api_filter *filter, const char *path)
{
    for (size_t i = 0; i < filter->n_fields; i++) {
        if (!filter->fields[i].negate && at_streq(filter->fields[i].path, path)) {
            return filter->fields[i].value;
        }
    }
    return NULL;
}

bool api_filter_match(const struct api_filter *filter, const json_t *object)
{
    for (size_t i = 0; i < filter->n_fields; i++) {
        const struct api_field_term *t = &filter->fields[i];
        if (at_streq(at_json_str_at(object, t->path, ""), t->value) == t->negate) {
            return false;
        }
    }
    return filter->labels == NULL ||
           at_selector_match_json(filter->labels, at_json_at(object, "metadata.labels"));
}

/* Does JSON text hold s as it is, without escapes? */
static bool is_plain(const char *s)
{
    for (; *s != '\0'; s++) {
        if ((unsigned char)*s < 0x20 || (unsigned char)*s >= 0x7f || *s == '"' || *s == '\\' ||
            *s == '/') {
            return false;
        }
    }
    return true;
}

bool api_filter_may_match(const struct api_filter *filter, const char *value, size_t len)
{
    for (size_t i = 0; i < filter->n_fields; i++) {
        const struct api_field_term *t = &filter->fields[i];
        if (!t->negate && t->value[0] != '\0' && is_plain(t->value) &&
            memmem(value, len, t->value, strlen(t->value)) == NULL) {
            return false;
        }
    }
    return true;
}
