/* The everyday calls: paths, get, create, patch, delete, and waiting for one. */
#include "client/client.h"

#include "client/client_priv.h"
#include "core/mem.h"

#include <ctype.h>
#include <string.h>

#define PATH_BYTES_MAX 1024

enum at_rc at_client_escape(const char *text, struct at_buf *out)
{
    enum at_rc rc = AT_OK;
    for (; *text != '\0' && rc == AT_OK; text++) {
        unsigned char c = (unsigned char)*text;
        bool unreserved = c < 0x80 && (isalnum(c) || strchr("-._~", c) != NULL);
        rc = unreserved ? at_buf_append(out, text, 1) : at_buf_printf(out, "%%%02X", c);
    }
    return rc;
}

static enum at_rc append_part(struct at_buf *out, const char *before, const char *part)
{
    if (part == NULL) {
        return AT_OK;
    }
    /* "." and ".." would be folded away on the way. */
    if (part[0] == '\0' || strcmp(part, ".") == 0 || strcmp(part, "..") == 0) {
        return AT_INVALID;
    }
    enum at_rc rc = at_buf_append_str(out, before);
    return rc == AT_OK ? at_client_escape(part, out) : rc;
}

void at_client_path(const struct at_model_kind *kind, const char *ns, const char *name,
                    const char *subresource, char *out, size_t out_size)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf path = {.max = out_size - 1};
    out[0] = '\0';
    enum at_rc rc = kind->group[0] == '\0'
                        ? at_buf_printf(&path, "/api/%s", kind->version)
                        : at_buf_printf(&path, "/apis/%s/%s", kind->group, kind->version);
    if (rc == AT_OK && kind->namespaced) {
        rc = append_part(&path, "/namespaces/", ns);
    }
    if (rc == AT_OK) {
        rc = append_part(&path, "/", kind->plural);
    }
    if (rc == AT_OK) {
        rc = append_part(&path, "/", name);
    }
    if (rc == AT_OK) {
        rc = append_part(&path, "/", subresource);
    }
    if (rc == AT_OK) {
        memcpy(out, path.data, path.len + 1);
    }
}

at_client_call_id at_client_get(struct at_client *client, const struct at_model_kind *kind,
                                const char *ns, const char *name, at_client_done_fn *done,
                                void *ctx)
{
    char path[PATH_BYTES_MAX];
    at_client_path(kind, ns, name, NULL, path, sizeof path);
    return at_client_request(client, AT_HTTP_GET, path, NULL, NULL, done, ctx);
}

at_client_call_id at_client_create(struct at_client *client, const struct at_model_kind *kind,
                                   const char *ns, const json_t *object, at_client_done_fn *done,
                                   void *ctx)
{
    char path[PATH_BYTES_MAX];
    at_client_path(kind, ns, NULL, NULL, path, sizeof path);
    return at_client_request(client, AT_HTTP_POST, path, NULL, object, done, ctx);
}

at_client_call_id at_client_patch(struct at_client *client, const struct at_model_kind *kind,
                                  const char *ns, const char *name, const char *subresource,
                                  const json_t *patch, at_client_done_fn *done, void *ctx)
{
    char path[PATH_BYTES_MAX];
    at_client_path(kind, ns, name, subresource, path, sizeof path);
    return at_client_request(client, AT_HTTP_PATCH, path, "application/merge-patch+json", patch,
                             done, ctx);
}

void at_client_result_done(void *ctx, enum at_rc rc, int status, json_t *body,
                           const struct at_err *err)
{
    struct at_client_result *result = ctx;
    json_decref(result->body);
    *result = (struct at_client_result){
        .done = true, .rc = rc, .status = status, .body = json_incref(body)};
    if (err != NULL) {
        result->err = *err;
    }
}

enum at_rc at_client_wait(struct at_client *client, struct at_client_result *result)
{
    while (!result->done && at_loop_turn(at_client_loop(client), INT64_MAX)) {
    }
    if (!result->done) {
        return at_err_set(&result->err, AT_INTERNAL, "nothing is left to wait for");
    }
    return result->rc;
}

void at_client_result_clear(struct at_client_result *result)
{
    json_decref(result->body);
    *result = (struct at_client_result){0};
}
