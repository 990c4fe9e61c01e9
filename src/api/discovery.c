/* Discovery documents, made once from the kinds: the legacy ones, and aggregated v2 on /api and
 * /apis for clients that ask for exactly that version (an answer in v2 to a question in v2beta1
 * breaks them). Also version. */
#include "api/discovery.h"
#include "api/api_priv.h"
#include "core/digest.h"
#include "core/mem.h"
#include "core/str.h"

#include <assert.h>
#include <string.h>

#if defined __x86_64__
#define AT_API_ARCH "amd64"
#elif defined __aarch64__
#define AT_API_ARCH "arm64"
#else
#define AT_API_ARCH "unknown"
#endif

#define AGGREGATED_TYPE "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

static const char *const OBJECT_VERBS[] = {
    "create", "delete", "deletecollection", "get", "list", "patch", "update", "watch", NULL};
static const char *const POD_VERBS[] = {"delete", "get", "list", "watch", NULL};
static const char *const SUB_VERBS[] = {"get", "patch", "update", NULL};
static const char *const EXEC_VERBS[] = {"create", "get", NULL};
static const char *const CREATE_VERB[] = {"create", NULL};
static const char *const GET_VERB[] = {"get", NULL};

struct sub {
    const char *plural; /* NULL: by has_status, has_scale */
    const char *name;
    const char *const *verbs;
    const char *group, *version, *kind; /* NULL kind: the parent's */
};
static const struct sub SUBS[] = {
    {NULL, "status", SUB_VERBS, NULL, NULL, NULL},
    {NULL, "scale", SUB_VERBS, "autoscaling", "v1", "Scale"},
    {"instances", "log", GET_VERB, NULL, NULL, NULL},
    {"pods", "log", GET_VERB, NULL, NULL, NULL},
    {"pods", "exec", EXEC_VERBS, NULL, NULL, NULL},
    {"instances", "exec", EXEC_VERBS, NULL, NULL, NULL},
    {"pods", "attach", EXEC_VERBS, NULL, NULL, NULL},
    {"instances", "attach", EXEC_VERBS, NULL, NULL, NULL},
    {"pods", "portforward", EXEC_VERBS, NULL, NULL, NULL},
    {"instances", "portforward", EXEC_VERBS, NULL, NULL, NULL},
    {"serviceaccounts", "token", CREATE_VERB, "authentication.k8s.io", "v1", "TokenRequest"},
    {"nodes", "heartbeat", CREATE_VERB, NULL, NULL, NULL},
    {"nodes", "tunnel", CREATE_VERB, NULL, NULL, NULL},
};

struct review_kind {
    const char *group, *resource, *singular, *kind;
    bool namespaced;
};
static const struct review_kind REVIEW_KINDS[] = {
    {"authorization.k8s.io", "selfsubjectaccessreviews", "selfsubjectaccessreview",
     "SelfSubjectAccessReview", false},
    {"authorization.k8s.io", "subjectaccessreviews", "subjectaccessreview", "SubjectAccessReview",
     false},
    {"authorization.k8s.io", "localsubjectaccessreviews", "localsubjectaccessreview",
     "LocalSubjectAccessReview", true},
    {"authentication.k8s.io", "tokenreviews", "tokenreview", "TokenReview", false},
    {"authorization.k8s.io", "selfsubjectrulesreviews", "selfsubjectrulesreview",
     "SelfSubjectRulesReview", false},
    {"authentication.k8s.io", "selfsubjectreviews", "selfsubjectreview", "SelfSubjectReview",
     false},
};
/* In this order; those that only have kinds in schema/ come after them. */
static const char *const GROUPS[] = {"atoll.dev", "authorization.k8s.io", "authentication.k8s.io"};

size_t api_groups(const char *ret[AT_API_GROUPS_MAX])
{
    size_t n = 0;
    for (; n < AT_ARRAY_LEN(GROUPS); n++) {
        ret[n] = GROUPS[n];
    }
    size_t n_kinds = 0;
    const struct at_model_kind *const *kinds = at_model_kinds(&n_kinds);
    for (size_t i = 0; i < n_kinds; i++) {
        bool fresh = kinds[i]->group[0] != '\0';
        for (size_t k = 0; fresh && k < n; k++) {
            fresh = !at_streq(kinds[i]->group, ret[k]);
        }
        if (fresh) {
            assert(n < AT_API_GROUPS_MAX);
            ret[n++] = kinds[i]->group;
        }
    }
    return n;
}

static bool has_sub(const struct at_model_kind *kind, const struct sub *sub)
{
    if (sub->plural != NULL) {
        return at_streq(sub->plural, kind->plural);
    }
    return at_streq(sub->name, "status") ? kind->has_status : kind->has_scale;
}

static const char *const *verbs_of(const struct at_model_kind *kind)
{
    return kind == &API_POD_KIND ? POD_VERBS : OBJECT_VERBS;
}

static json_t *words(const char *const *list)
{
    json_t *out = json_array();
    for (size_t i = 0; list != NULL && list[i] != NULL; i++) {
        json_array_append_new(out, json_string(list[i]));
    }
    return out;
}

static void doc_add(struct api_doc **docs, size_t *n, const char *key, json_t *value_take)
{
    struct at_buf text = {0};
    enum at_rc rc = at_json_dump(value_take, &text);
    assert(rc == AT_OK);
    json_decref(value_take);
    *docs = at_realloc(*docs, (*n + 1) * sizeof **docs);
    struct api_doc *doc = &(*docs)[(*n)++];
    char digest[AT_SHA256_HEX_BYTES];
    at_sha256_hex(text.data, text.len, digest);
    memset(doc, 0, sizeof *doc);
    doc->key = at_strdup(key);
    doc->text = at_buf_steal(&text, &doc->len);
    memcpy(doc->hash, digest, sizeof doc->hash - 1);
}

void api_docs_free(struct api_doc *docs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        at_free(docs[i].key);
        at_free(docs[i].text);
    }
    at_free(docs);
}

/* --- legacy --- */

static void legacy_kind(json_t *list, const struct at_model_kind *kind)
{
    json_t *entry = json_pack("{s:s, s:s, s:b, s:s, s:o}", "name", kind->plural, "singularName",
                              kind->singular, "namespaced", (int)kind->namespaced, "kind",
                              kind->kind, "verbs", words(verbs_of(kind)));
    if (kind->short_names != NULL && kind->short_names[0] != NULL) {
        json_object_set_new(entry, "shortNames", words(kind->short_names));
    }
    if (kind->categories != NULL && kind->categories[0] != NULL) {
        json_object_set_new(entry, "categories", words(kind->categories));
    }
    json_array_append_new(list, entry);
    for (size_t i = 0; i < AT_ARRAY_LEN(SUBS); i++) {
        const struct sub *sub = &SUBS[i];
        if (!has_sub(kind, sub)) {
            continue;
        }
        json_t *sub_entry =
            json_pack("{s:s++, s:s, s:b, s:s, s:o}", "name", kind->plural, "/", sub->name,
                      "singularName", "", "namespaced", (int)kind->namespaced, "kind",
                      sub->kind != NULL ? sub->kind : kind->kind, "verbs", words(sub->verbs));
        if (sub->kind != NULL) {
            json_object_set_new(sub_entry, "group", json_string(sub->group));
            json_object_set_new(sub_entry, "version", json_string(sub->version));
        }
        json_array_append_new(list, sub_entry);
    }
}

static json_t *legacy_resources(const char *group, const char *group_version)
{
    json_t *list = json_array();
    size_t n = 0;
    const struct at_model_kind *const *kinds = at_model_kinds(&n);
    for (size_t i = 0; i < n; i++) {
        if (at_streq(kinds[i]->group, group)) {
            legacy_kind(list, kinds[i]);
        }
    }
    if (group[0] == '\0') {
        legacy_kind(list, &API_POD_KIND);
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(REVIEW_KINDS); i++) {
        const struct review_kind *r = &REVIEW_KINDS[i];
        if (at_streq(r->group, group)) {
            json_array_append_new(list, json_pack("{s:s, s:s, s:b, s:s, s:o}", "name", r->resource,
                                                  "singularName", r->singular, "namespaced",
                                                  (int)r->namespaced, "kind", r->kind, "verbs",
                                                  words(CREATE_VERB)));
        }
    }
    return json_pack("{s:s, s:s, s:s, s:o}", "kind", "APIResourceList", "apiVersion", "v1",
                     "groupVersion", group_version, "resources", list);
}

static json_t *group_entry(const char *group)
{
    char version[80];
    snprintf(version, sizeof version, "%s/v1", group);
    return json_pack("{s:s, s:[{s:s, s:s}], s:{s:s, s:s}}", "name", group, "versions",
                     "groupVersion", version, "version", "v1", "preferredVersion", "groupVersion",
                     version, "version", "v1");
}

/* --- aggregated --- */

static json_t *response_kind(const char *group, const char *version, const char *kind)
{
    return json_pack("{s:s, s:s, s:s}", "group", group, "version", version, "kind", kind);
}

static json_t *aggregated_kind(const struct at_model_kind *kind)
{
    json_t *entry = json_pack("{s:s, s:o, s:s, s:s, s:o}", "resource", kind->plural, "responseKind",
                              response_kind(kind->group, kind->version, kind->kind), "scope",
                              kind->namespaced ? "Namespaced" : "Cluster", "singularResource",
                              kind->singular, "verbs", words(verbs_of(kind)));
    if (kind->short_names != NULL && kind->short_names[0] != NULL) {
        json_object_set_new(entry, "shortNames", words(kind->short_names));
    }
    if (kind->categories != NULL && kind->categories[0] != NULL) {
        json_object_set_new(entry, "categories", words(kind->categories));
    }
    json_t *subs = json_array();
    for (size_t i = 0; i < AT_ARRAY_LEN(SUBS); i++) {
        const struct sub *sub = &SUBS[i];
        if (has_sub(kind, sub)) {
            json_t *response = sub->kind != NULL
                                   ? response_kind(sub->group, sub->version, sub->kind)
                                   : response_kind(kind->group, kind->version, kind->kind);
            json_array_append_new(subs,
                                  json_pack("{s:s, s:o, s:o}", "subresource", sub->name,
                                            "responseKind", response, "verbs", words(sub->verbs)));
        }
    }
    if (json_array_size(subs) > 0) {
        json_object_set(entry, "subresources", subs);
    }
    json_decref(subs);
    return entry;
}

static json_t *aggregated_group(const char *group)
{
    json_t *resources = json_array();
    size_t n = 0;
    const struct at_model_kind *const *kinds = at_model_kinds(&n);
    for (size_t i = 0; i < n; i++) {
        if (at_streq(kinds[i]->group, group)) {
            json_array_append_new(resources, aggregated_kind(kinds[i]));
        }
    }
    if (group[0] == '\0') {
        json_array_append_new(resources, aggregated_kind(&API_POD_KIND));
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(REVIEW_KINDS); i++) {
        const struct review_kind *r = &REVIEW_KINDS[i];
        if (at_streq(r->group, group)) {
            json_array_append_new(
                resources, json_pack("{s:s, s:o, s:s, s:s, s:o}", "resource", r->resource,
                                     "responseKind", response_kind(r->group, "v1", r->kind),
                                     "scope", r->namespaced ? "Namespaced" : "Cluster",
                                     "singularResource", r->singular, "verbs", words(CREATE_VERB)));
        }
    }
    return json_pack("{s:{s:s, s:n}, s:[{s:s, s:s, s:o}]}", "metadata", "name", group,
                     "creationTimestamp", "versions", "version", "v1", "freshness", "Current",
                     "resources", resources);
}

static json_t *aggregated(json_t *groups)
{
    return json_pack("{s:s, s:s, s:{}, s:o}", "kind", "APIGroupDiscoveryList", "apiVersion",
                     "apidiscovery.k8s.io/v2", "metadata", "items", groups);
}

/* What GET / shows: where there is something to ask for. */
static json_t *paths_of(const struct at_api *api)
{
    static const char *const MORE[] = {"/healthz",    "/livez",  "/metrics", "/openapi/v2",
                                       "/openapi/v3", "/readyz", "/version"};
    json_t *paths = json_array();
    for (size_t i = 0; i < api->n_discovery; i++) {
        if (api->discovery[i].key[0] == '/') {
            json_array_append_new(paths, json_string(api->discovery[i].key));
        }
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(MORE); i++) {
        json_array_append_new(paths, json_string(MORE[i]));
    }
    return json_pack("{s:o}", "paths", paths);
}

void api_discovery_build(struct at_api *api)
{
    struct api_doc **docs = &api->discovery;
    size_t *n = &api->n_discovery;
    doc_add(docs, n, "/api", json_pack("{s:s, s:[s]}", "kind", "APIVersions", "versions", "v1"));
    doc_add(docs, n, "/api/v1", legacy_resources("", "v1"));
    json_t *groups = json_array();
    json_t *all = json_array();
    const char *names[AT_API_GROUPS_MAX];
    size_t n_names = api_groups(names);
    for (size_t i = 0; i < n_names; i++) {
        const char *name = names[i];
        char path[100];
        snprintf(path, sizeof path, "/apis/%s/v1", name);
        doc_add(docs, n, path, legacy_resources(name, path + strlen("/apis/")));
        snprintf(path, sizeof path, "/apis/%s", name);
        json_t *group = group_entry(name);
        json_array_append(groups, group);
        json_object_set_new(group, "kind", json_string("APIGroup"));
        json_object_set_new(group, "apiVersion", json_string("v1"));
        doc_add(docs, n, path, group);
        json_array_append_new(all, aggregated_group(name));
    }
    doc_add(
        docs, n, "/apis",
        json_pack("{s:s, s:s, s:o}", "kind", "APIGroupList", "apiVersion", "v1", "groups", groups));
    doc_add(docs, n, "aggregated:/apis", aggregated(all));
    json_t *core = json_array();
    json_array_append_new(core, aggregated_group(""));
    doc_add(docs, n, "aggregated:/api", aggregated(core));
    doc_add(docs, n, "/", paths_of(api));
}

static bool wants_aggregated(struct at_str accept)
{
    struct at_str rest = accept;
    while (rest.len > 0) {
        struct at_str one = at_str_cut(&rest, ',');
        static const char GROUP[] = "g=apidiscovery.k8s.io";
        if (memmem(one.ptr, one.len, GROUP, sizeof GROUP - 1) != NULL) {
            struct at_str part = one;
            while (part.len > 0) {
                if (at_str_eq(at_str_trim(at_str_cut(&part, ';')), "v=v2")) {
                    return true;
                }
            }
        }
    }
    return false;
}

static const struct api_doc *doc_find(const struct api_doc *docs, size_t n, const char *key)
{
    for (size_t i = 0; i < n; i++) {
        if (at_streq(docs[i].key, key)) {
            return &docs[i];
        }
    }
    return NULL;
}

void api_discovery(struct api_req *req)
{
    struct at_api *api = req->api;
    char path[sizeof req->route.path];
    snprintf(path, sizeof path, "%s", req->route.path);
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/') {
        path[--len] = '\0';
    }
    bool top = at_streq(path, "/api") || at_streq(path, "/apis");
    if (top && wants_aggregated(at_http_header_get(at_http_request(req->ex), "Accept"))) {
        char key[32];
        snprintf(key, sizeof key, "aggregated:%.10s", path);
        const struct api_doc *doc = doc_find(api->discovery, api->n_discovery, key);
        assert(doc != NULL);
        api_respond_text(req, 200, AGGREGATED_TYPE, "Vary: Accept\r\n", doc->text, doc->len);
        return;
    }
    const struct api_doc *doc = doc_find(api->discovery, api->n_discovery, path);
    if (doc == NULL) {
        api_respond_error(req, AT_NOT_FOUND, "the server could not find the requested resource");
        return;
    }
    api_respond_text(req, 200, "application/json", top ? "Vary: Accept\r\n" : NULL, doc->text,
                     doc->len);
}

void api_version(struct api_req *req)
{
    static const char TEXT[] =
        "{\"major\":\"1\",\"minor\":\"32\",\"gitVersion\":\"v1.32.0+atoll-" AT_VERSION
        "\",\"gitCommit\":\"\",\"gitTreeState\":\"clean\",\"buildDate\":\"\",\"goVersion\":\"\","
        "\"compiler\":\"gcc\",\"platform\":\"linux/" AT_API_ARCH "\"}";
    api_respond_text(req, 200, "application/json", NULL, TEXT, sizeof TEXT - 1);
}
