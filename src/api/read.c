/* get and list. Without a selector and without Table nothing is parsed: stored bytes are spliced.
 */
#include "api/api_priv.h"
#include "api/options.h"
#include "core/digest.h"
#include "core/mem.h"
#include "core/str.h"
#include "sys/memory.h"

#include <string.h>

/* --- get --- */

static void get_done(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *kvs, size_t n,
                     bool more, const struct at_err *err)
{
    (void)rev;
    (void)more;
    struct api_req *req = ctx;
    if (rc != AT_OK) {
        api_respond_error(req, rc, "%s", err != NULL ? err->msg : "the store cannot be read");
    } else if (n == 0) {
        api_respond_not_found(req);
    } else {
        api_respond_object(req, 200, kvs[0].value, kvs[0].value_len, kvs[0].mod_rev);
    }
}

void api_get(struct api_req *req)
{
    struct at_err err = {0};
    int64_t rv = 0;
    if (api_query_int(req, "resourceVersion", 0, &rv, &err) != AT_OK) {
        api_respond_err(req, &err);
        return;
    }
    if (!api_version_there(req, rv)) {
        return;
    }
    char key[AT_STORE_KEY_BYTES_MAX];
    at_state_key(req->route.kind, req->route.ns, req->route.name, key, sizeof key);
    at_store_range(req->api->options.store, key, NULL, 1, 0, get_done, req);
}

/* --- continue tokens: base64 of {"rv":N,"start":"key","left":N}, left when it is known --- */

enum at_rc api_continue_decode(const char *text, struct api_continue *ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf raw = {.max = 4 * AT_STORE_KEY_BYTES_MAX};
    AT_CLEANUP(at_cleanup_json) json_t *token = NULL;
    if (at_base64_decode(text, strlen(text), &raw) != AT_OK || raw.data == NULL ||
        at_json_parse(raw.data, raw.len, &token, NULL) != AT_OK) {
        return at_err_set(err, AT_BAD_REQUEST, "continue: not a token of this server");
    }
    const char *start = at_json_str_at(token, "start", "");
    ret->rev = at_json_int_at(token, "rv", 0);
    ret->left = at_json_int_at(token, "left", 0);
    if (ret->rev <= 0 || start[0] == '\0' || strlen(start) >= sizeof ret->start) {
        return at_err_set(err, AT_BAD_REQUEST, "continue: not a token of this server");
    }
    memcpy(ret->start, start, strlen(start) + 1);
    return AT_OK;
}

char *api_continue_encode(struct at_arena *arena, const struct api_continue *token)
{
    AT_CLEANUP(at_cleanup_json)
    json_t *value = json_pack("{s:I, s:s}", "rv", (json_int_t)token->rev, "start", token->start);
    if (value != NULL && token->left > 0) {
        json_object_set_new(value, "left", json_integer(token->left));
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf raw = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (value == NULL || at_json_dump(value, &raw) != AT_OK ||
        at_base64_encode(raw.data, raw.len, &text) != AT_OK) {
        return NULL;
    }
    return at_arena_strdup(arena, text.data);
}

/* --- list --- */

void api_span_of(const struct api_req *req, const struct api_filter *filter, struct api_span *ret)
{
    const struct api_route *r = &req->route;
    const char *ns = r->kind->namespaced && r->ns[0] != '\0' ? r->ns : NULL;
    if (ns == NULL && r->kind->namespaced) {
        const char *demanded = api_filter_demands(filter, "metadata.namespace");
        ns = demanded != NULL && demanded[0] != '\0' ? demanded : NULL;
    }
    const char *name = api_filter_demands(filter, "metadata.name");
    ret->single = name != NULL && name[0] != '\0' && (ns != NULL || !r->kind->namespaced) &&
                  strlen(name) < API_NAME_BYTES && strchr(name, '/') == NULL;
    ret->to[0] = '\0';
    if (ns != NULL && (strlen(ns) >= API_NAME_BYTES || strchr(ns, '/') != NULL)) {
        ns = "-"; /* no such namespace can be */
    }
    if (ret->single) {
        at_state_key(r->kind, ns, name, ret->from, sizeof ret->from);
        return;
    }
    at_state_key(r->kind, ns, NULL, ret->from, sizeof ret->from);
    at_store_prefix_end(ret->from, ret->to, sizeof ret->to);
}

struct list_op {
    struct api_filter filter;
    struct api_span span;
    int64_t at_rev;
    size_t limit; /* 0: none */
    int64_t left; /* objects from start on, as the token says; 0: not known */
    char start[AT_STORE_KEY_BYTES_MAX];
};

/* Of kvs[0..n), what a page shows. With a selector the page ends after the last that fits in it,
 * which only the matching tells. */
struct page {
    const struct at_store_kv *kvs;
    size_t n;
    int64_t rev;
    const char *token; /* NULL: nothing follows */
    int64_t left;      /* objects that follow; 0: none, or not known */
    size_t shown;
};

static enum at_rc list_head(struct api_req *req, const struct page *page, struct at_buf *out)
{
    const struct at_model_kind *kind = api_view_kind(req);
    enum at_rc rc = at_buf_printf(
        out, "{\"kind\":\"%s\",\"apiVersion\":\"%s\",\"metadata\":{\"resourceVersion\":\"%lld\"",
        kind->list_kind, at_model_api_version(kind), (long long)page->rev);
    if (rc == AT_OK && page->token != NULL) {
        rc = at_buf_printf(out, ",\"continue\":\"%s\"", page->token);
    }
    if (rc == AT_OK && page->token != NULL && page->left > 0) {
        rc = at_buf_printf(out, ",\"remainingItemCount\":%lld", (long long)page->left);
    }
    return rc == AT_OK ? at_buf_append_str(out, "},\"items\":[") : rc;
}

static void list_failed(struct api_req *req, enum at_rc rc)
{
    if (rc == AT_TOO_LARGE) {
        api_respond_error(req, rc, "the list is larger than %zu MiB: ask with limit",
                          req->api->options.list_bytes_max >> 20);
        return;
    }
    api_respond_error(req, rc, "a stored object cannot be read");
}

/* Token for the page after kv. own: on the request's arena. */
static const char *token_after(struct api_req *req, const struct page *page,
                               const struct at_store_kv *kv)
{
    struct api_continue next = {.rev = page->rev, .left = page->left};
    /* The smallest key above the last one is it with a 0x01. */
    snprintf(next.start, sizeof next.start, "%s\x01", kv->key);
    return api_continue_encode(req->arena, &next);
}

/* Is the page full? Then what is left of it begins the next one. */
static bool page_full(struct api_req *req, struct page *page, size_t i)
{
    const struct list_op *op = req->op;
    page->shown++;
    if (op->limit == 0 || page->shown < op->limit || page->token != NULL) {
        return false;
    }
    if (i + 1 < page->n) {
        page->token = token_after(req, page, &page->kvs[i]);
    }
    return true;
}

/* Room for all items at once; each gets a version, a comma at most. */
static enum at_rc items_reserve(const struct page *page, struct at_buf *out)
{
    size_t bytes = 0;
    char *place;
    for (size_t i = 0; i < page->n; i++) {
        bytes += page->kvs[i].value_len + sizeof "\"resourceVersion\":\"9223372036854775807\",,";
    }
    enum at_rc rc = at_buf_reserve(out, bytes, &place);
    if (rc == AT_OK) {
        at_memory_large(place, bytes);
    }
    return rc;
}

static void list_plain(struct api_req *req, struct page *page)
{
    const struct list_op *op = req->op;
    struct at_buf items = {.max = req->api->options.list_bytes_max};
    struct at_buf out = {.max = req->api->options.list_bytes_max};
    bool selecting = !api_filter_is_empty(&op->filter);
    /* Without a selector the head is known before the items, and nothing is copied twice. */
    enum at_rc rc = selecting ? AT_OK : list_head(req, page, &out);
    if (rc == AT_OK && !selecting && api_view_is_stored(req)) {
        rc = items_reserve(page, &out);
    }
    struct at_buf *to = selecting ? &items : &out;
    bool full = false;
    for (size_t i = 0; rc == AT_OK && i < page->n && !full; i++) {
        const struct at_store_kv *kv = &page->kvs[i];
        if (!api_view_matches(req, &op->filter, kv)) {
            continue;
        }
        rc = page->shown == 0 ? AT_OK : at_buf_append(to, ",", 1);
        if (rc == AT_OK) {
            rc = api_view_append(req, kv->value, kv->value_len, kv->mod_rev, to);
        }
        full = page_full(req, page, i);
    }
    if (rc == AT_OK && selecting) {
        rc = list_head(req, page, &out);
        if (rc == AT_OK && items.len > 0) {
            rc = at_buf_append(&out, items.data, items.len);
        }
    }
    if (rc == AT_OK) {
        rc = at_buf_append_str(&out, "]}");
    }
    if (rc == AT_OK) {
        api_respond_text(req, 200, "application/json", NULL, out.data, out.len);
    } else {
        list_failed(req, rc);
    }
    at_buf_done(&items);
    at_buf_done(&out);
}

static void list_table(struct api_req *req, struct page *page)
{
    const struct list_op *op = req->op;
    json_t *table = api_table_new(api_view_kind(req), true);
    struct at_arena *cells = at_arena_new(0);
    bool full = false;
    for (size_t i = 0; i < page->n && !full; i++) {
        const struct at_store_kv *kv = &page->kvs[i];
        if (!api_view_matches(req, &op->filter, kv)) {
            continue;
        }
        json_t *object = NULL;
        enum at_rc rc = at_object_decode(kv->value, kv->value_len, kv->mod_rev, &object, NULL);
        if (rc != AT_OK) {
            json_decref(table);
            at_arena_free(cells);
            list_failed(req, rc);
            return;
        }
        object = api_view_object(req, object);
        at_arena_reset(cells);
        api_table_add(table, req, object, req->table, cells);
        json_decref(object);
        full = page_full(req, page, i);
    }
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)page->rev);
    json_object_set_new(table, "metadata",
                        json_pack("{s:s, s:s}", "resourceVersion", text, "continue",
                                  page->token != NULL ? page->token : ""));
    if (page->token != NULL && page->left > 0) {
        json_object_set_new(json_object_get(table, "metadata"), "remainingItemCount",
                            json_integer(page->left));
    }
    at_arena_free(cells);
    api_respond_json(req, 200, table);
}

static void counted(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *kvs, size_t n,
                    bool more, const struct at_err *err)
{
    (void)kvs;
    (void)more;
    (void)err;
    struct page *page = ctx;
    page->left = rc == AT_OK && rev == page->rev ? (int64_t)n : 0;
}

/* How many objects follow a page: counted for the first one, which hands it on in its token.
 * Without a selector only, as in Kubernetes, and not for a list of some earlier version. */
static void remaining_count(struct api_req *req, struct page *page)
{
    const struct list_op *op = req->op;
    if (!api_filter_is_empty(&op->filter)) {
        return;
    }
    if (op->at_rev > 0) {
        page->left = op->left > (int64_t)page->n ? op->left - (int64_t)page->n : 0;
        return;
    }
    char start[AT_STORE_KEY_BYTES_MAX];
    snprintf(start, sizeof start, "%s\x01", page->kvs[page->n - 1].key);
    at_store_range(req->api->options.store, start, op->span.to, 0, 0, counted, page);
}

static void list_done(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *kvs,
                      size_t n, bool more, const struct at_err *err)
{
    struct api_req *req = ctx;
    const struct list_op *op = req->op;
    if (rc == AT_COMPACTED) {
        api_respond_error(req, rc,
                          "The provided continue parameter or resource version is too old to "
                          "display a consistent list result: start anew without it");
        return;
    }
    if (rc != AT_OK) {
        api_respond_error(req, rc, "%s", err != NULL ? err->msg : "the store cannot be read");
        return;
    }
    if (op->at_rev > 0) {
        rev = op->at_rev;
    }
    struct page page = {.kvs = kvs, .n = n, .rev = rev};
    if (more && n > 0) {
        remaining_count(req, &page);
        page.token = token_after(req, &page, &kvs[n - 1]);
    }
    if (req->table != API_TABLE_NONE) {
        list_table(req, &page);
    } else {
        list_plain(req, &page);
    }
}

/* resourceVersion, resourceVersionMatch, limit, continue. False: answered. */
static bool list_version(struct api_req *req, struct list_op *op)
{
    struct at_err err = {0};
    int64_t limit = 0;
    int64_t rv = 0;
    if (!api_list_options_check(req, false)) {
        return false;
    }
    if (api_query_int(req, "limit", 0, &limit, &err) != AT_OK ||
        api_query_int(req, "resourceVersion", 0, &rv, &err) != AT_OK) {
        api_respond_err(req, &err);
        return false;
    }
    op->limit = limit > 0 ? (size_t)limit : 0;
    const char *token = api_query(req, "continue");
    if (token != NULL && token[0] != '\0') {
        struct api_continue at;
        if (api_continue_decode(token, &at, &err) != AT_OK) {
            api_respond_err(req, &err);
            return false;
        }
        size_t prefix = strlen(op->span.from);
        if (op->span.single || strncmp(at.start, op->span.from, prefix) != 0) {
            api_respond_error(req, AT_BAD_REQUEST, "continue: the token is of another list");
            return false;
        }
        op->at_rev = at.rev;
        op->left = at.left;
        memcpy(op->start, at.start, sizeof op->start);
    } else if (at_streq(api_query(req, "resourceVersionMatch"), "Exact")) {
        op->at_rev = rv;
    }
    int64_t wanted = op->at_rev > 0 ? op->at_rev : rv;
    if (wanted < 0) {
        api_respond_error(req, AT_BAD_REQUEST, "resourceVersion: must not be negative");
        return false;
    }
    return api_version_there(req, wanted);
}

void api_list(struct api_req *req)
{
    struct at_err err = {0};
    struct list_op *op = at_arena_alloc(req->arena, sizeof *op);
    req->op = op;
    if (op == NULL || api_filter_parse(req, &op->filter, &err) != AT_OK) {
        if (err.rc == AT_OK) {
            at_err_set(&err, AT_NOMEM, "the request needs too much memory");
        }
        api_respond_err(req, &err);
        return;
    }
    api_span_of(req, &op->filter, &op->span);
    memcpy(op->start, op->span.from, sizeof op->start);
    if (!list_version(req, op)) {
        return;
    }
    /* How many keys it takes to fill a page is not known with a selector. */
    size_t keys = api_filter_is_empty(&op->filter) ? op->limit : 0;
    at_store_range(req->api->options.store, op->start, op->span.single ? NULL : op->span.to, keys,
                   op->at_rev, list_done, req);
}
