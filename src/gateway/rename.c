/* A replica is asked for the model by the name under which it knows it, which may be another than
 * the one that the client used. */
#include "core/json.h"
#include "core/mem.h"
#include "gateway/proxy_priv.h"

#include <assert.h>
#include <string.h>

/* What is not unreserved (RFC 3986 §2.3) is encoded: a name's slashes are no separators. */
static enum at_rc put_segment(struct at_buf *out, const char *text)
{
    enum at_rc rc = AT_OK;
    for (const char *at = text; *at != '\0' && rc == AT_OK; at++) {
        bool plain = (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') ||
                     (*at >= '0' && *at <= '9') || strchr("-._~", *at) != NULL;
        rc = plain ? at_buf_append(out, at, 1)
                   : at_buf_printf(out, "%%%02X", (unsigned)(unsigned char)*at);
    }
    return rc;
}

static enum at_rc rename_target(struct at_str target, const char *name, struct at_buf *out)
{
    static const char MODELS[] = "/v2/models/";
    size_t from = sizeof MODELS - 1, to = from;
    assert(at_str_starts(target, MODELS));
    while (to < target.len && target.ptr[to] != '/' && target.ptr[to] != '?') {
        to++;
    }
    at_buf_clear(out);
    enum at_rc rc = at_buf_append(out, target.ptr, from);
    rc = rc == AT_OK ? put_segment(out, name) : rc;
    return rc == AT_OK ? at_buf_append(out, target.ptr + to, target.len - to) : rc;
}

static enum at_rc rename_body(struct at_str body, struct at_str raw_model, const char *name,
                              struct at_buf *out)
{
    assert(raw_model.ptr > body.ptr);
    size_t before = (size_t)(raw_model.ptr - body.ptr) - 1, after = before + raw_model.len + 2;
    assert(after <= body.len);
    at_buf_clear(out);
    enum at_rc rc = at_buf_append(out, body.ptr, before);
    rc = rc == AT_OK ? at_json_dump_text(name, strlen(name), out) : rc;
    return rc == AT_OK ? at_buf_append(out, body.ptr + after, body.len - after) : rc;
}

/* What to send to this replica. ret_target: NULL when it stays as it is. */
enum at_rc gw_rename(struct gw_request *r, const struct gw_replica *replica, struct at_str target,
                     const char **ret_target, struct at_str *body)
{
    *ret_target = NULL;
    if (r->asked != 0) {
        at_buf_clear(&r->target); /* of another replica; plain services have theirs in it */
    }
    r->body.max = body->len + AT_GW_RENAME_BYTES_MAX;
    if (r->asked == 0 || r->asked == replica->served_hash) {
        return AT_OK;
    }
    if (r->openai) {
        enum at_rc rc = rename_body(*body, r->raw_model, replica->served_as, &r->body);
        if (rc == AT_OK) {
            *body = (struct at_str){r->body.data, r->body.len};
        }
        return rc;
    }
    enum at_rc rc = rename_target(target, replica->served_as, &r->target);
    *ret_target = r->target.data;
    return rc;
}
