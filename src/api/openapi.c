/* OpenAPI v3: the index, and one document per group and version, made once from the kinds. kubectl
 * reads the schemas for explain and the parameter fieldValidation before it sends anything. */
#include "api/api_priv.h"
#include "api/discovery.h"
#include "api/openapi_v2.h"
#include "core/digest.h"
#include "core/mem.h"
#include "core/str.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define META "io.k8s.apimachinery.pkg.apis.meta.v1."

static json_t *gvk_of(const struct at_model_kind *kind)
{
    return json_pack("{s:s, s:s, s:s}", "group", kind->group, "version", kind->version, "kind",
                     kind->kind);
}

static void parameter(json_t *list, const char *name, const char *in, const char *type,
                      const char *description)
{
    json_t *p = json_pack("{s:s, s:s, s:s, s:{s:s}}", "name", name, "in", in, "description",
                          description, "schema", "type", type);
    if (at_streq(in, "path")) {
        json_object_set_new(p, "required", json_true());
    } else {
        json_object_set_new(json_object_get(p, "schema"), "uniqueItems", json_true());
    }
    json_array_append_new(list, p);
}

static json_t *reference(const char *name)
{
    char text[256];
    snprintf(text, sizeof text, "#/components/schemas/%s", name);
    return json_pack("{s:s}", "$ref", text);
}

struct operation {
    const char *method, *action, *verb_id;
    const char *const *bodies; /* content types of the request's body */
    bool list, write;
};
static const char *const JSON_BODY[] = {"application/json", NULL};
static const char *const PATCH_BODIES[] = {
    "application/merge-patch+json", "application/json-patch+json",
    "application/strategic-merge-patch+json", "application/apply-patch+yaml", NULL};
static const struct operation ITEM_OPS[] = {
    {"get", "get", "read", NULL, false, false},
    {"put", "put", "replace", JSON_BODY, false, true},
    {"patch", "patch", "patch", PATCH_BODIES, false, true},
    {"delete", "delete", "delete", JSON_BODY, false, false},
};
static const struct operation COLLECTION_OPS[] = {
    {"get", "list", "list", NULL, true, false},
    {"post", "post", "create", JSON_BODY, false, true},
    {"delete", "deletecollection", "deleteCollection", JSON_BODY, false, false},
};

static void query_parameters(json_t *list, const struct operation *op)
{
    if (op->write) {
        parameter(list, "dryRun", "query", "string", "All: validate, but store nothing.");
        parameter(list, "fieldManager", "query", "string", "Name of the writer.");
        parameter(list, "fieldValidation", "query", "string",
                  "What to do with unknown fields: Strict, Warn or Ignore.");
    }
    if (op->list) {
        parameter(list, "labelSelector", "query", "string", "Only objects with such labels.");
        parameter(list, "fieldSelector", "query", "string", "Only objects with such fields.");
        parameter(list, "limit", "query", "integer", "Objects in one answer.");
        parameter(list, "continue", "query", "string", "Token of the answer before.");
        parameter(list, "resourceVersion", "query", "string", "Version to read at, or watch from.");
        parameter(list, "watch", "query", "boolean", "Stream changes instead of a list.");
    }
}

static json_t *operation_json(const struct at_model_kind *kind, const struct operation *op,
                              const char *suffix)
{
    char id[200];
    snprintf(id, sizeof id, "%s%s%s%s", op->verb_id, kind->namespaced ? "Namespaced" : "",
             kind->kind, suffix);
    json_t *params = json_array();
    query_parameters(params, op);
    json_t *ok = json_pack("{s:s}", "description", "OK");
    if (!op->list) {
        json_object_set_new(
            ok, "content",
            json_pack("{s:{s:o}}", "application/json", "schema", reference(kind->openapi_name)));
    }
    json_t *out = json_pack("{s:[s], s:s, s:s, s:o, s:{s:o}, s:s, s:o}", "tags", kind->plural,
                            "description", kind->description, "operationId", id, "parameters",
                            params, "responses", "200", ok, "x-kubernetes-action", op->action,
                            "x-kubernetes-group-version-kind", gvk_of(kind));
    if (op->bodies != NULL) {
        json_t *content = json_object();
        for (size_t i = 0; op->bodies[i] != NULL; i++) {
            bool whole = op->write && at_streq(op->bodies[i], "application/json");
            json_object_set_new(content, op->bodies[i],
                                whole ? json_pack("{s:o}", "schema", reference(kind->openapi_name))
                                      : json_pack("{s:{s:s}}", "schema", "type", "object"));
        }
        json_object_set_new(out, "requestBody", json_pack("{s:o}", "content", content));
    }
    return out;
}

static void path_add(json_t *paths, const struct at_model_kind *kind, const char *path,
                     const struct operation *ops, size_t n, bool item, const char *suffix)
{
    json_t *entry = json_object();
    json_t *params = json_array();
    if (kind->namespaced && strstr(path, "{namespace}") != NULL) {
        parameter(params, "namespace", "path", "string", "Namespace.");
    }
    if (item) {
        parameter(params, "name", "path", "string", "Name of the object.");
    }
    for (size_t i = 0; i < n; i++) {
        json_object_set_new(entry, ops[i].method, operation_json(kind, &ops[i], suffix));
    }
    json_object_set_new(entry, "parameters", params);
    json_object_set_new(paths, path, entry);
}

static void kind_paths(json_t *paths, const struct at_model_kind *kind)
{
    char base[128];
    char collection[256];
    char path[512];
    snprintf(base, sizeof base, "%s%s/%s", kind->group[0] != '\0' ? "/apis/" : "/api", kind->group,
             kind->version);
    snprintf(collection, sizeof collection, "%s%s/%s", base,
             kind->namespaced ? "/namespaces/{namespace}" : "", kind->plural);
    path_add(paths, kind, collection, COLLECTION_OPS, AT_ARRAY_LEN(COLLECTION_OPS), false, "");
    snprintf(path, sizeof path, "%s/{name}", collection);
    path_add(paths, kind, path, ITEM_OPS, AT_ARRAY_LEN(ITEM_OPS), true, "");
    if (kind->has_status) {
        snprintf(path, sizeof path, "%s/{name}/status", collection);
        path_add(paths, kind, path, ITEM_OPS, 3, true, "Status");
    }
    if (kind->namespaced) {
        snprintf(path, sizeof path, "%s/%s", base, kind->plural);
        path_add(paths, kind, path, COLLECTION_OPS, 1, false, "ForAllNamespaces");
    }
}

/* Pods are read, watched and deleted; all else is done to Instances. */
static void pod_paths(json_t *paths)
{
    static const struct operation LIST = {"get", "list", "list", NULL, true, false};
    static const struct operation ITEM[] = {
        {"get", "get", "read", NULL, false, false},
        {"delete", "delete", "delete", JSON_BODY, false, false},
    };
    const char *base = "/api/v1/namespaces/{namespace}/pods";
    path_add(paths, &API_POD_KIND, base, &LIST, 1, false, "");
    path_add(paths, &API_POD_KIND, "/api/v1/namespaces/{namespace}/pods/{name}", ITEM,
             AT_ARRAY_LEN(ITEM), true, "");
    path_add(paths, &API_POD_KIND, "/api/v1/pods", &LIST, 1, false, "ForAllNamespaces");
}

static json_t *property(const char *type, const char *description)
{
    return json_pack("{s:s, s:s}", "type", type, "description", description);
}

static json_t *string_map(const char *description)
{
    return json_pack("{s:s, s:s, s:{s:s}}", "type", "object", "description", description,
                     "additionalProperties", "type", "string");
}

/* Schemas that kinds refer to, unless a kind brings them itself. */
static void meta_schemas(json_t *schemas)
{
    json_t *p = json_object();
    json_object_set_new(p, "name", property("string", "Name, unique within its namespace."));
    json_object_set_new(p, "generateName",
                        property("string", "Prefix of a name that the server makes."));
    json_object_set_new(p, "namespace", property("string", "Namespace."));
    json_object_set_new(p, "labels", string_map("Short texts to select by."));
    json_object_set_new(p, "annotations", string_map("Texts of any length, for tools."));
    json_object_set_new(p, "uid", property("string", "Identity, made by the server."));
    json_object_set_new(p, "resourceVersion", property("string", "Version of this content."));
    json_object_set_new(p, "generation", property("integer", "Counts changes of what is wanted."));
    json_object_set_new(p, "creationTimestamp", property("string", "When it was made."));
    json_object_set_new(p, "deletionTimestamp",
                        property("string", "When its deletion was asked for."));
    json_object_set_new(p, "finalizers",
                        json_pack("{s:s, s:s, s:{s:s}}", "type", "array", "description",
                                  "Must be empty before it goes.", "items", "type", "string"));
    json_object_set_new(p, "ownerReferences",
                        json_pack("{s:s, s:s, s:{s:s}}", "type", "array", "description",
                                  "What it belongs to; it goes with them.", "items", "type",
                                  "object"));
    json_t *schema = json_pack("{s:s, s:s, s:o}", "type", "object", "description",
                               "Metadata of every object.", "properties", p);
    if (json_object_get(schemas, META "ObjectMeta") == NULL) {
        json_object_set(schemas, META "ObjectMeta", schema);
    }
    json_decref(schema);
}

static void schemas_add(json_t *schemas, const struct at_model_kind *kind)
{
    json_t *own = NULL;
    enum at_rc rc =
        at_json_parse(kind->openapi_schema_json, strlen(kind->openapi_schema_json), &own, NULL);
    assert(rc == AT_OK);
    json_object_update_missing(schemas, own);
    json_decref(own);
}

/* kubectl explain prints a field's description and that of its type, but in lists of fields the
 * field's alone: when they are the same, that of the type is one too many. */
static void drop_repeated(json_t *schemas)
{
    const char *name, *field;
    json_t *schema, *property_schema;
    json_object_foreach(schemas, name, schema)
    {
        json_object_foreach(json_object_get(schema, "properties"), field, property_schema)
        {
            const char *ref = json_string_value(json_object_get(
                json_array_get(json_object_get(property_schema, "allOf"), 0), "$ref"));
            const char *target = ref != NULL ? strrchr(ref, '/') : NULL;
            const char *own = at_json_str_at(property_schema, "description", NULL);
            json_t *type = target != NULL ? json_object_get(schemas, target + 1) : NULL;
            if (own != NULL && at_streq(own, at_json_str_at(type, "description", NULL))) {
                json_object_del(type, "description");
            }
        }
    }
}

static json_t *document(const char *group)
{
    json_t *paths = json_object();
    json_t *schemas = json_object();
    size_t n = 0;
    const struct at_model_kind *const *kinds = at_model_kinds(&n);
    for (size_t i = 0; i < n; i++) {
        if (at_streq(kinds[i]->group, group)) {
            kind_paths(paths, kinds[i]);
            schemas_add(schemas, kinds[i]);
        }
    }
    if (group[0] == '\0') {
        pod_paths(paths);
        api_pod_schemas(schemas);
    }
    meta_schemas(schemas);
    drop_repeated(schemas);
    return json_pack("{s:s, s:{s:s, s:s}, s:o, s:{s:o}}", "openapi", "3.0.0", "info", "title",
                     "Atoll", "version", "v1", "paths", paths, "components", "schemas", schemas);
}

static void doc_put(struct at_api *api, const char *key, json_t *value_take)
{
    struct at_buf text = {0};
    enum at_rc rc = at_json_dump(value_take, &text);
    assert(rc == AT_OK);
    json_decref(value_take);
    api->openapi = at_realloc(api->openapi, (api->n_openapi + 1) * sizeof api->openapi[0]);
    struct api_doc *doc = &api->openapi[api->n_openapi++];
    char digest[AT_SHA256_HEX_BYTES];
    memset(doc, 0, sizeof *doc);
    at_sha256_hex(text.data, text.len, digest);
    memcpy(doc->hash, digest, sizeof doc->hash - 1);
    doc->key = at_strdup(key);
    doc->text = at_buf_steal(&text, &doc->len);
}

void api_openapi_build(struct at_api *api)
{
    doc_put(api, "api/v1", document(""));
    const char *groups[AT_API_GROUPS_MAX];
    size_t n_groups = api_groups(groups);
    for (size_t i = 0; i < n_groups; i++) {
        char key[100];
        snprintf(key, sizeof key, "apis/%s/v1", groups[i]);
        doc_put(api, key, document(groups[i]));
    }
    json_t *paths = json_object();
    for (size_t i = 0; i < api->n_openapi; i++) {
        char url[160];
        snprintf(url, sizeof url, "/openapi/v3/%s?hash=%s", api->openapi[i].key,
                 api->openapi[i].hash);
        json_object_set_new(paths, api->openapi[i].key,
                            json_pack("{s:s}", "serverRelativeURL", url));
    }
    doc_put(api, "", json_pack("{s:o}", "paths", paths));
}

static void respond_doc(struct api_req *req, const struct api_doc *doc, const char *type)
{
    char headers[256];
    bool hashed = at_streq(api_query(req, "hash"), doc->hash);
    snprintf(headers, sizeof headers, "ETag: \"%s\"\r\nCache-Control: %s\r\nVary: Accept\r\n",
             doc->hash, hashed ? "public, immutable, max-age=31536000" : "no-cache, private");
    struct at_str match = at_http_header_get(at_http_request(req->ex), "If-None-Match");
    if (match.ptr != NULL && memmem(match.ptr, match.len, doc->hash, strlen(doc->hash)) != NULL) {
        api_respond_text(req, 304, NULL, headers, "", 0);
        return;
    }
    api_respond_text(req, 200, type, headers, doc->text, doc->len);
}

static void respond_v2(struct api_req *req)
{
    static const char PROTOBUF[] = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    static const char OLDER[] = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    struct at_str rest = at_http_header_get(at_http_request(req->ex), "Accept");
    bool none = rest.len == 0;
    while (rest.len > 0) {
        struct at_str one = at_str_cut(&rest, ',');
        struct at_str type = at_str_trim(at_str_cut(&one, ';'));
        if (at_str_eq_nocase(type, PROTOBUF) || at_str_eq_nocase(type, OLDER)) {
            respond_doc(req, api_openapi_v2(req->api, true), PROTOBUF);
            return;
        }
        if (at_str_eq_nocase(type, "application/json") || at_str_eq(type, "*/*") ||
            at_str_eq_nocase(type, "application/*")) {
            none = true;
            break;
        }
    }
    if (none) {
        respond_doc(req, api_openapi_v2(req->api, false), "application/json");
        return;
    }
    api_respond_json(req, 406,
                     api_status(false, "NotAcceptable", 406,
                                "only the following media types are accepted: application/json, "
                                "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
                                NULL));
}

void api_openapi(struct api_req *req)
{
    if (at_streq(req->route.path, "/openapi/v2")) {
        respond_v2(req);
        return;
    }
    const char *key = req->route.path + strlen("/openapi/v3");
    key += *key == '/';
    const struct at_api *api = req->api;
    for (size_t i = 0; i < api->n_openapi; i++) {
        if (at_streq(api->openapi[i].key, key)) {
            respond_doc(req, &api->openapi[i], "application/json");
            return;
        }
    }
    api_respond_error(req, AT_NOT_FOUND, "the server could not find the requested resource");
}
