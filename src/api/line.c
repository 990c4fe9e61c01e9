/* Events as lines of JSON. A change is shown to many watchers in a row, to most of them alike: the
 * line is made once, and each connection takes it from here. */
#include "api/api_priv.h"
#include "core/str.h"

/* A revision names one version of one object; a deletion has a revision of its own. */
static struct api_line *place_of(struct at_api *api, int64_t rev)
{
    return &api->lines[rev % AT_API_LINES_MAX];
}

static enum at_rc make(const struct api_req *req, const char *type, const struct at_store_kv *kv,
                       int64_t rev, struct at_buf *out)
{
    enum at_rc rc = at_buf_printf(out, "{\"type\":\"%s\",\"object\":", type);
    if (rc == AT_OK) {
        rc = api_view_append(req, kv->value, kv->value_len, rev, out);
    }
    return rc == AT_OK ? at_buf_append(out, "}\n", 2) : rc;
}

const struct at_buf *api_line(const struct api_req *req, const char *type,
                              const struct at_store_kv *kv, int64_t rev)
{
    struct api_line *line = place_of(req->api, rev);
    bool pod = req->route.pod;
    if (line->text.len != 0 && line->rev == rev && line->pod == pod &&
        line->partial == req->partial && at_streq(line->type, type)) {
        return &line->text;
    }
    at_buf_done(&line->text);
    *line = (struct api_line){.rev = rev,
                              .type = type,
                              .pod = pod,
                              .partial = req->partial,
                              .text.max = AT_API_LINE_BYTES_MAX};
    if (make(req, type, kv, rev, &line->text) != AT_OK) {
        at_buf_done(&line->text);
        return NULL;
    }
    return &line->text;
}

void api_lines_done(struct at_api *api)
{
    for (size_t i = 0; i < AT_API_LINES_MAX; i++) {
        at_buf_done(&api->lines[i].text);
    }
}
