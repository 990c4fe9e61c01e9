/* Request bodies to JSON, by their content type. */
#include "api/api_priv.h"
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
        return at_json_parse(body.ptr, body.len, &req->body, err);
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
