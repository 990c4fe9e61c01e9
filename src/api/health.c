/* healthz and livez say that the loop turns; readyz that the store takes writes too. */
#include "api/api_priv.h"
#include "core/mem.h"
#include "core/str.h"

#include <string.h>

/* What asks the store, and the request that waits for it, whichever ends first. */
struct check {
    struct api_req *req; /* NULL: answered, the time was up */
    struct at_loop *loop;
    at_timer_id timer;
    struct at_api *api;
    uint64_t failed_batches;
};

static const char HEADERS[] = "Cache-Control: no-store\r\n";

/* "ok"; with ?verbose what was looked at, a line each, as in Kubernetes. */
static void ok(struct api_req *req)
{
    const char *text = "ok";
    struct at_str path = at_str_of(req->route.path);
    path.ptr++;
    path.len--;
    struct at_str which = at_str_cut(&path, '/');
    if (path.len == 0 && api_query(req, "verbose") != NULL) {
        const char *store = at_str_eq(which, "readyz") ? "[+]store ok\n" : "";
        const char *all = at_arena_printf(req->arena, "[+]ping ok\n%s%.*s check passed\n", store,
                                          (int)which.len, which.ptr);
        text = all != NULL ? all : text;
    }
    api_respond_text(req, 200, "text/plain; charset=utf-8", HEADERS, text, strlen(text));
}

static void not_ready(struct api_req *req, const char *why)
{
    const char *text =
        at_arena_printf(req->arena, "[-]store failed: %s\nreadyz check failed\n", why);
    text = text != NULL ? text : "not ready";
    api_respond_text(req, 503, "text/plain; charset=utf-8", HEADERS, text, strlen(text));
}

static void too_late(void *ctx)
{
    struct check *c = ctx;
    struct api_req *req = c->req;
    c->timer = 0;
    c->req = NULL;
    not_ready(req, "it does not answer");
}

static void answered(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *current,
                     const struct at_err *err)
{
    (void)rev;
    (void)current;
    struct check *c = ctx;
    struct api_req *req = c->req;
    at_loop_timer_cancel(c->loop, c->timer);
    if (rc == AT_OK && req != NULL) {
        c->api->failed_batches = c->failed_batches;
    }
    at_free(c);
    if (req == NULL) {
        return;
    }
    if (rc == AT_OK) {
        ok(req);
    } else {
        not_ready(req, err != NULL ? err->msg : at_rc_name(rc));
    }
}

/* Writes that were refused since the last check are followed by a write of our own; else it is
 * enough that the writer has worked off what was asked before, so that being asked makes no
 * revisions. */
static void readiness(struct api_req *req)
{
    struct at_store *store = req->api->options.store;
    struct check *c = AT_NEW(struct check);
    c->req = req;
    c->loop = req->api->options.loop;
    c->api = req->api;
    c->failed_batches = at_store_stats(store).failed_batches;
    c->timer = at_loop_timer(c->loop, AT_API_READY_TIMEOUT_NS, too_late, c);
    if (c->failed_batches != req->api->failed_batches) {
        at_store_put(store, AT_API_READY_KEY, "{}", 2, -1, answered, c);
    } else {
        at_store_sync(store, answered, c);
    }
}

void api_health(struct api_req *req)
{
    if (at_str_starts(at_str_of(req->route.path), "/readyz")) {
        readiness(req);
    } else {
        ok(req);
    }
}
