/* Request bodies to JSON, by their content type. */
#include "api/api_priv.h"
#include "core/mem.h"
#include "core/str.h"
#include "core/yaml.h"

#define PROTOBUF "application/vnd.kubernetes.protobuf"

static enum at_rc yaml_read(struct at_str body, json_t **ret, struct at_err *err)
{
    struct at_yaml_doc *docs = NULL;
    size_t n = 0;
    enum at_rc rc = at_yaml_parse(body.ptr, body.len, &docs, &n, err);
    if (rc != AT_OK) {
        return rc;
    }
    if (n == 1) {
        *ret = json_incref(docs[0].value);
    } else {
        rc = at_err_set(err, AT_BAD_REQUEST, "the body must hold exactly one YAML document");
    }
    at_yaml_docs_free(docs, n);
    return rc;
}

/* JSON in all but name: patches have their own content types, and some kubectl commands send none.
 */
static bool is_json(struct at_str type)
{
    return type.len == 0 || at_str_eq_nocase(type, "application/json") ||
           at_str_eq_nocase(type, "application/merge-patch+json") ||
           at_str_eq_nocase(type, "application/json-patch+json") ||
           at_str_eq_nocase(type, "application/strategic-merge-patch+json");
}

/* Fields named twice are refused, warned of, or not spoken of, as the client wants it of unknown
 * ones. */
static enum at_rc json_read(struct api_req *req, struct at_str body, struct at_err *err)
{
    enum at_rc rc = at_json_parse(body.ptr, body.len, &req->body, err);
    json_t *value = NULL;
    if (rc == AT_OK || at_json_parse_last(body.ptr, body.len, &value, NULL) != AT_OK) {
        return rc;
    }
    AT_CLEANUP(at_cleanup_json) json_t *found = api_duplicates(body.ptr, body.len);
    if (json_array_size(found) == 0) { /* one name in two ways of escaping */
        json_decref(value);
        return rc;
    }
    const char *mode = api_query(req, "fieldValidation");
    if (at_streq(mode, "Strict")) {
        json_decref(value);
        AT_CLEANUP(at_cleanup_buf) struct at_buf list = {.max = 2048};
        rc = AT_OK;
        for (size_t i = 0; rc == AT_OK && i < json_array_size(found); i++) {
            rc = at_buf_printf(&list, "%sduplicate field \"%s\"", i > 0 ? ", " : "",
                               json_string_value(json_array_get(found, i)));
        }
        return at_err_set(err, AT_BAD_REQUEST, "strict decoding error: %s", list.data);
    }
    for (size_t i = 0; !at_streq(mode, "Ignore") && i < json_array_size(found); i++) {
        api_warn(req, "duplicate field \"%s\"", json_string_value(json_array_get(found, i)));
    }
    req->body = value;
    return AT_OK;
}

enum at_rc api_body_read(struct api_req *req, struct at_err *err)
{
    if (req->body != NULL || req->ex == NULL) {
        return AT_OK;
    }
    struct at_str rest = at_http_header_get(at_http_request(req->ex), "Content-Type");
    struct at_str type = at_str_trim(at_str_cut(&rest, ';'));
    char *copy = at_arena_strndup(req->arena, type.ptr != NULL ? type.ptr : "", type.len);
    req->content_type = at_str_of(copy);
    struct at_str body = at_http_request_body(req->ex);
    if (body.len == 0) {
        return AT_OK;
    }
    if (is_json(type)) {
        return json_read(req, body, err);
    }
    if (at_str_eq_nocase(type, PROTOBUF)) {
        return api_protobuf_decode(body.ptr, body.len, &req->body, err);
    }
    if (at_str_eq_nocase(type, "application/yaml") ||
        at_str_eq_nocase(type, "application/apply-patch+yaml")) {
        return yaml_read(body, &req->body, err);
    }
    return at_err_set(err, AT_UNSUPPORTED,
                      "the body's content type \"%.*s\" is not supported; application/json is",
                      (int)(type.len < 128 ? type.len : 128), type.ptr);
}

bool api_patch_has_directive(const json_t *patch)
{
    const char *key;
    const json_t *value;
    size_t i;
    if (json_is_array(patch)) {
        json_array_foreach(patch, i, value)
        {
            if (api_patch_has_directive(value)) {
                return true;
            }
        }
    }
    json_object_foreach((json_t *)patch, key, value)
    {
        if (key[0] == '$' || api_patch_has_directive(value)) {
            return true;
        }
    }
    return false;
}
