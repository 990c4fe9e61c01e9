/* OpenAPI v2, for clients before v3 (kubectl before 1.27): made from the documents of v3 when it is
 * first asked for, as JSON and in protobuf (gnostic's openapi.v2, the only form kubectl takes). */
#include "api/openapi_v2.h"
#include "api/api_priv.h"
#include "core/digest.h"
#include "core/mem.h"
#include "core/str.h"

#include <assert.h>
#include <string.h>

#define V3_SCHEMAS "#/components/schemas/"
#define V2_SCHEMAS "#/definitions/"

/* --- schemas: v2 knows no allOf around a reference that kubectl would read, and no oneOf --- */

static void schema_down(json_t *schema);

static void each_down(json_t *map)
{
    const char *key;
    json_t *value;
    json_object_foreach(map, key, value)
    {
        schema_down(value);
    }
}

static void reference_down(json_t *schema, const char *ref)
{
    char text[256];
    size_t len = strlen(V3_SCHEMAS);
    if (ref != NULL && strncmp(ref, V3_SCHEMAS, len) == 0) {
        snprintf(text, sizeof text, V2_SCHEMAS "%s", ref + len);
        json_object_set_new(schema, "$ref", json_string(text));
    }
}

static void schema_down(json_t *schema)
{
    if (!json_is_object(schema)) {
        return;
    }
    const json_t *only = json_array_get(json_object_get(schema, "allOf"), 0);
    if (only != NULL) {
        reference_down(schema, at_json_str_at(only, "$ref", NULL));
        json_object_del(schema, "allOf");
        json_object_del(schema, "default");
    } else {
        reference_down(schema, at_json_str_at(schema, "$ref", NULL));
    }
    if (json_object_get(schema, "oneOf") != NULL) {
        json_object_del(schema, "oneOf");
        json_object_set_new(schema, "type", json_string("string"));
        json_object_set_new(schema, "format", json_string("int-or-string"));
    }
    each_down(json_object_get(schema, "properties"));
    schema_down(json_object_get(schema, "items"));
    schema_down(json_object_get(schema, "additionalProperties"));
}

/* --- paths --- */

/* {schema: {type, ...}, ...} to {type, ...} */
static void parameters_down(json_t *list)
{
    size_t i;
    json_t *parameter;
    json_array_foreach(list, i, parameter)
    {
        json_t *schema = json_object_get(parameter, "schema");
        if (schema != NULL) {
            json_object_update_missing(parameter, schema);
            json_object_del(parameter, "schema");
        }
    }
}

static void body_down(json_t *operation)
{
    json_t *content = at_json_at(operation, "requestBody.content");
    if (content == NULL) {
        return;
    }
    json_t *consumes = json_array();
    json_t *schema = NULL;
    const char *type;
    json_t *entry;
    json_object_foreach(content, type, entry)
    {
        json_array_append_new(consumes, json_string(type));
        schema = schema == NULL ? json_deep_copy(json_object_get(entry, "schema")) : schema;
    }
    schema_down(schema);
    json_array_append_new(json_object_get(operation, "parameters"),
                          json_pack("{s:s, s:s, s:b, s:o}", "name", "body", "in", "body",
                                    "required", 1, "schema", schema));
    json_object_set_new(operation, "consumes", consumes);
    json_object_del(operation, "requestBody");
}

static void operation_down(json_t *operation)
{
    parameters_down(json_object_get(operation, "parameters"));
    body_down(operation);
    const char *code;
    json_t *response;
    json_object_foreach(json_object_get(operation, "responses"), code, response)
    {
        json_t *content = json_object_get(response, "content");
        json_t *schema = json_object_get(json_object_get(content, "application/json"), "schema");
        if (schema != NULL) {
            json_object_set(response, "schema", schema);
            schema_down(json_object_get(response, "schema"));
        }
        json_object_del(response, "content");
    }
    json_object_set_new(operation, "produces", json_pack("[s]", "application/json"));
}

static void path_down(json_t *path)
{
    const char *key;
    json_t *value;
    parameters_down(json_object_get(path, "parameters"));
    json_object_foreach(path, key, value)
    {
        if (json_is_object(value)) {
            operation_down(value);
        }
    }
}

static void document_add(json_t *paths, json_t *definitions, const struct api_doc *doc)
{
    AT_CLEANUP(at_cleanup_json) json_t *v3 = NULL;
    enum at_rc rc = at_json_parse(doc->text, doc->len, &v3, NULL);
    assert(rc == AT_OK);
    const char *key;
    json_t *value;
    json_object_foreach(json_object_get(v3, "paths"), key, value)
    {
        path_down(value);
    }
    json_object_update_missing(paths, json_object_get(v3, "paths"));
    json_t *schemas = at_json_at(v3, "components.schemas");
    json_object_foreach(schemas, key, value)
    {
        if (json_object_get(definitions, key) == NULL) {
            schema_down(value);
            json_object_set(definitions, key, value);
        }
    }
}

static json_t *document(const struct at_api *api)
{
    json_t *paths = json_object();
    json_t *definitions = json_object();
    for (size_t i = 0; i < api->n_openapi; i++) {
        if (api->openapi[i].key[0] != '\0') { /* the index */
            document_add(paths, definitions, &api->openapi[i]);
        }
    }
    return json_pack("{s:s, s:{s:s, s:s}, s:o, s:o}", "swagger", "2.0", "info", "title", "Atoll",
                     "version", "v1", "paths", paths, "definitions", definitions);
}

static void finish(struct api_doc *doc, struct at_buf *text)
{
    char digest[AT_SHA256_HEX_BYTES];
    at_sha256_hex(text->data, text->len, digest);
    memcpy(doc->hash, digest, sizeof doc->hash - 1);
    doc->text = at_buf_steal(text, &doc->len);
}

const struct api_doc *api_openapi_v2(struct at_api *api, bool protobuf)
{
    struct api_doc *docs = api->openapi_v2;
    if (docs[0].text == NULL) {
        struct at_buf text = {0};
        struct at_buf bytes = {0};
        AT_CLEANUP(at_cleanup_json) json_t *value = document(api);
        enum at_rc rc = at_json_dump(value, &text);
        if (rc == AT_OK) {
            rc = api_openapi_pb(value, &bytes);
        }
        assert(rc == AT_OK);
        finish(&docs[0], &text);
        finish(&docs[1], &bytes);
    }
    return &docs[protobuf ? 1 : 0];
}
