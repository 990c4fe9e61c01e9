#include "api/route.h"

#include "core/mem.h"
#include "net/http1.h"

#define SEGMENTS_MAX 12

struct segments {
    const char *items[SEGMENTS_MAX];
    size_t n;
};

struct fixed {
    const char *path;
    enum api_target target;
    bool prefix; /* also everything below it */
};

static const struct fixed FIXED[] = {
    {"/healthz", API_HEALTH, true},
    {"/livez", API_HEALTH, true},
    {"/readyz", API_HEALTH, true},
    {"/version", API_VERSION, false},
    {"/metrics", API_METRICS, false},
    {"/openapi/v3", API_OPENAPI, true},
    {"/openapi/v2", API_OPENAPI, false},
    {"/join/v1/tokens", API_JOIN_TOKENS, false},
    {"/join/v1/renew", API_JOIN_RENEW, false},
    {"/join/v1/servers", API_JOIN_SERVERS, false},
    {"/join/v1", API_JOIN, false},
    {"/admin/v1/backup", API_BACKUP, false},
    {"/admin/v1/secrets/rotate-key", API_SECRETS_ROTATE, false},
    {"/admin/v1/secrets", API_SECRETS, false},
    {"/admin/v1/tokens", API_ACCESS_TOKENS, false},
    {"/", API_DISCOVERY, false},
    {"/api", API_DISCOVERY, false},
    {"/api/v1", API_DISCOVERY, false},
    {"/apis", API_DISCOVERY, false},
};

struct review {
    const char *group, *version, *resource;
};
static const struct review REVIEWS[] = {
    {"authorization.k8s.io", "v1", "selfsubjectaccessreviews"},
    {"authorization.k8s.io", "v1", "selfsubjectrulesreviews"},
    {"authorization.k8s.io", "v1", "subjectaccessreviews"},
    {"authorization.k8s.io", "v1", "localsubjectaccessreviews"},
    {"authentication.k8s.io", "v1", "tokenreviews"},
    {"authentication.k8s.io", "v1", "selfsubjectreviews"},
};

static bool fixed_find(struct api_route *route)
{
    for (size_t i = 0; i < AT_ARRAY_LEN(FIXED); i++) {
        size_t len = strlen(FIXED[i].path);
        if (strncmp(route->path, FIXED[i].path, len) != 0) {
            continue;
        }
        char after = route->path[len];
        if (after == '\0' || (after == '/' && (FIXED[i].prefix || route->path[len + 1] == '\0'))) {
            route->target = FIXED[i].target;
            return true;
        }
    }
    return false;
}

static bool segment_ok(const char *s)
{
    if (s[0] == '\0' || strcmp(s, ".") == 0 || strcmp(s, "..") == 0) {
        return false;
    }
    for (; *s != '\0'; s++) {
        if ((unsigned char)*s <= 0x20 || (unsigned char)*s >= 0x7f || *s == '/' || *s == '%' ||
            *s == '"' || *s == '\\') {
            return false;
        }
    }
    return true;
}

/* Split the raw path and decode each segment by itself, so that %2F never makes a new segment. The
 * texts stand in store. */
static enum at_rc split(struct at_str path, char *store, size_t store_size, struct segments *ret,
                        struct at_err *err)
{
    struct at_str rest = path;
    if (rest.len == 0 || rest.ptr[0] != '/') {
        return at_err_set(err, AT_BAD_REQUEST, "the path must begin with /");
    }
    rest.ptr++;
    rest.len--;
    if (rest.len > 0 && rest.ptr[rest.len - 1] == '/') {
        rest.len--;
    }
    size_t used = 0;
    ret->n = 0;
    while (rest.len > 0) {
        struct at_str one = at_str_cut(&rest, '/');
        if (ret->n == SEGMENTS_MAX) {
            return at_err_set(err, AT_NOT_FOUND,
                              "the server could not find the requested resource");
        }
        enum at_rc rc = at_percent_decode(one, false, store + used, store_size - used);
        if (rc != AT_OK) {
            return at_err_set(err, rc, "the path is not well escaped");
        }
        if (!segment_ok(store + used)) {
            return at_err_set(err, AT_BAD_REQUEST, "the path holds a name that cannot be");
        }
        ret->items[ret->n++] = store + used;
        used += strlen(store + used) + 1;
    }
    return AT_OK;
}

static bool put(char *out, size_t out_size, const char *text)
{
    size_t len = strlen(text);
    if (len >= out_size) {
        return false;
    }
    memcpy(out, text, len + 1);
    return true;
}

static bool review_find(struct api_route *route, const char *group, const char *version,
                        const struct segments *s)
{
    /* One of them is asked within a namespace. */
    bool inside = s->n == 6 && at_streq(s->items[3], "namespaces");
    size_t at = inside ? 5 : 3;
    for (size_t i = 0; (s->n == 4 || inside) && i < AT_ARRAY_LEN(REVIEWS); i++) {
        if (at_streq(group, REVIEWS[i].group) && at_streq(version, REVIEWS[i].version) &&
            at_streq(s->items[at], REVIEWS[i].resource) &&
            at_str_starts(at_str_of(s->items[at]), "local") == inside) {
            route->target = API_REVIEW;
            return (!inside || put(route->ns, sizeof route->ns, s->items[4])) &&
                   put(route->group, sizeof route->group, group) &&
                   put(route->resource, sizeof route->resource, s->items[at]);
        }
    }
    return false;
}

static bool known_group(const char *group)
{
    size_t n = 0;
    const struct at_model_kind *const *kinds = at_model_kinds(&n);
    for (size_t i = 0; i < n; i++) {
        if (group[0] != '\0' && at_streq(kinds[i]->group, group)) {
            return true;
        }
    }
    return at_streq(group, "authorization.k8s.io") || at_streq(group, "authentication.k8s.io");
}

/* at: index of the first segment after the version. */
static bool resource_find(struct api_route *route, const char *group, const char *version,
                          const struct segments *s, size_t at)
{
    size_t left = s->n - at;
    /* /namespaces/NS/<plural>...: but /namespaces/NS/status is of the namespace itself. */
    bool inside =
        left >= 3 && at_streq(s->items[at], "namespaces") &&
        !(group[0] == '\0' && left == 3 &&
          (at_streq(s->items[at + 2], "status") || at_streq(s->items[at + 2], "finalize")));
    if (inside) {
        if (!put(route->ns, sizeof route->ns, s->items[at + 1])) {
            return false;
        }
        at += 2;
        left -= 2;
    }
    route->pod = group[0] == '\0' && at_streq(s->items[at], "pods");
    route->kind = route->pod ? at_model_kind_find("atoll.dev", "v1", "Instance")
                             : at_model_kind_by_plural(group, version, s->items[at]);
    if (route->kind == NULL || left > 4 || (inside && !route->kind->namespaced) ||
        (left > 1 && route->kind->namespaced && !inside)) {
        return false;
    }
    route->target = API_RESOURCE;
    return put(route->group, sizeof route->group, group) &&
           put(route->resource, sizeof route->resource, s->items[at]) &&
           (left < 2 || put(route->name, sizeof route->name, s->items[at + 1])) &&
           (left < 3 || put(route->subresource, sizeof route->subresource, s->items[at + 2])) &&
           (left < 4 || put(route->tail, sizeof route->tail, s->items[at + 3]));
}

enum at_rc api_route_parse(struct at_str path, struct api_route *ret, struct at_err *err)
{
    char store[sizeof ret->path + SEGMENTS_MAX];
    struct segments s = {.n = 0};
    memset(ret, 0, sizeof *ret);
    if (path.len >= sizeof ret->path) {
        return at_err_set(err, AT_TOO_LARGE, "the path is longer than %zu bytes",
                          sizeof ret->path - 1);
    }
    enum at_rc rc = at_percent_decode(path, false, ret->path, sizeof ret->path);
    if (rc != AT_OK) {
        return at_err_set(err, rc, "the path is not well escaped");
    }
    rc = split(path, store, sizeof store, &s, err);
    if (rc != AT_OK) {
        return rc;
    }
    bool found = fixed_find(ret);
    if (!found && s.n >= 3 && at_streq(s.items[0], "api") && at_streq(s.items[1], "v1")) {
        found = resource_find(ret, "", "v1", &s, 2);
    } else if (!found && s.n >= 2 && s.n <= 3 && at_streq(s.items[0], "apis")) {
        found = known_group(s.items[1]) && (s.n == 2 || at_streq(s.items[2], "v1"));
        ret->target = API_DISCOVERY;
    } else if (!found && s.n >= 4 && at_streq(s.items[0], "apis")) {
        found = review_find(ret, s.items[1], s.items[2], &s) ||
                (s.items[1][0] != '\0' && resource_find(ret, s.items[1], s.items[2], &s, 3));
    }
    return found
               ? AT_OK
               : at_err_set(err, AT_NOT_FOUND, "the server could not find the requested resource");
}
