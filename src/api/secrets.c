/* The keys that Secrets are sealed with: which there are, and a new one. After a rotation each
 * Secret is written once more as it is, by compare-and-swap, which seals it with the new key; then
 * history is forgotten, for it is sealed with the old ones; then the old keys are. A restart in
 * between begins again. */
#include "api/api_priv.h"
#include "core/log.h"
#include "core/mem.h"

#include <assert.h>
#include <stdio.h>

struct api_reseal {
    struct at_api *api;
    char next[AT_STORE_KEY_BYTES_MAX];
    char to[AT_STORE_KEY_BYTES_MAX];
    size_t waiting, done;
    bool more, failed, again; /* again: a rotation came meanwhile */
    bool ended;               /* the API went; the last callback frees it */
    at_timer_id timer;
};

static void page(void *ctx);

static void reseal_free(struct api_reseal *r)
{
    r->api->reseal = NULL;
    at_free(r);
}

static void start(struct api_reseal *r)
{
    const struct at_model_kind *kind = at_model_kind_find("", "v1", "Secret");
    assert(kind != NULL);
    at_state_key(kind, NULL, NULL, r->next, sizeof r->next);
    at_store_prefix_end(r->next, r->to, sizeof r->to);
    r->failed = false;
    r->again = false;
    r->done = 0;
    r->timer = at_loop_timer(r->api->options.loop, 0, page, r);
}

static void retry(void *ctx)
{
    start(ctx);
}

static void forget_done(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *current,
                        const struct at_err *err)
{
    (void)rev;
    (void)current;
    struct api_reseal *r = ctx;
    struct at_err own = {0};
    r->waiting--;
    if (r->ended) {
        at_free(r);
        return;
    }
    if (rc == AT_OK) {
        rc = at_ring_forget(r->api->options.ring, &own);
        err = &own;
    }
    if (rc != AT_OK) {
        at_log(AT_LOG_WARN, "secrets.old-keys", "old keys are kept: %s",
               err != NULL ? err->msg : at_rc_name(rc));
    }
    reseal_free(r);
}

static void finish(struct api_reseal *r)
{
    struct at_api *api = r->api;
    if (r->failed) {
        r->timer = at_loop_timer(api->options.loop, AT_API_RESEAL_RETRY_NS, retry, r);
        return;
    }
    if (r->again) {
        start(r);
        return;
    }
    at_log(AT_LOG_INFO, "secrets.sealed", "%zu Secrets are sealed with the newest key", r->done);
    api->options.secrets_stale = false;
    if (at_store_is_shared(api->options.store)) {
        reseal_free(
            r); /* servers that have not seen the new key yet still write with the old one */
        return;
    }
    r->waiting++;
    at_store_compact(api->options.store, at_store_rev(api->options.store), forget_done, r);
}

static void written(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *current,
                    const struct at_err *err)
{
    (void)rev;
    (void)current;
    (void)err;
    struct api_reseal *r = ctx;
    r->waiting--;
    /* Somebody else's write sealed it as well. */
    r->failed = r->failed || (rc != AT_OK && rc != AT_CONFLICT && rc != AT_NOT_FOUND);
    r->done += rc == AT_OK;
    if (r->waiting > 0) {
        return;
    }
    if (r->ended) {
        at_free(r);
    } else if (r->failed || !r->more) {
        finish(r);
    } else {
        r->timer = at_loop_timer(r->api->options.loop, 0, page, r);
    }
}

/* The range's values are borrowed, and a put may call back at once: copied first. */
static void page_found(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *kvs,
                       size_t n, bool more, const struct at_err *err)
{
    (void)rev;
    (void)err;
    struct api_reseal *r = ctx;
    char *keys[AT_API_RESEAL_KEYS];
    char *values[AT_API_RESEAL_KEYS];
    struct at_store_kv copies[AT_API_RESEAL_KEYS];
    if (rc != AT_OK) {
        r->failed = true;
    }
    n = rc == AT_OK ? n : 0;
    assert(n <= AT_API_RESEAL_KEYS);
    r->more = more && n > 0;
    for (size_t i = 0; i < n; i++) {
        copies[i] = kvs[i];
        copies[i].key = keys[i] = at_strdup(kvs[i].key);
        copies[i].value = values[i] = at_alloc(kvs[i].value_len + 1);
        memcpy(values[i], kvs[i].value, kvs[i].value_len);
    }
    if (n > 0) {
        snprintf(r->next, sizeof r->next, "%s\x01", keys[n - 1]); /* names have no such byte */
    }
    r->waiting++; /* keeps r while the puts below may call back */
    for (size_t i = 0; i < n; i++) {
        r->waiting++;
        at_store_put(r->api->options.store, keys[i], values[i], copies[i].value_len,
                     copies[i].mod_rev, written, r);
        explicit_bzero(values[i], copies[i].value_len);
        at_free(values[i]);
        at_free(keys[i]);
    }
    written(r, AT_CONFLICT, 0, NULL, NULL);
}

static void page(void *ctx)
{
    struct api_reseal *r = ctx;
    r->timer = 0;
    at_store_range(r->api->options.store, r->next, r->to, AT_API_RESEAL_KEYS, 0, page_found, r);
}

void api_secrets_begin(struct at_api *api)
{
    if (api->options.ring == NULL) {
        return;
    }
    if (api->reseal != NULL) {
        api->reseal->again = true;
        return;
    }
    api->reseal = AT_NEW(struct api_reseal);
    api->reseal->api = api;
    start(api->reseal);
}

void api_secrets_done(struct at_api *api)
{
    struct api_reseal *r = api->reseal;
    if (r == NULL) {
        return;
    }
    at_loop_timer_cancel(api->options.loop, r->timer);
    api->reseal = NULL;
    r->ended = true;
    if (r->waiting == 0) {
        at_free(r);
    }
}

static json_t *state_json(struct at_api *api)
{
    json_t *keys = json_array();
    char id[AT_RING_ID_BYTES];
    size_t n = at_ring_count(api->options.ring);
    for (size_t i = 0; i < n; i++) {
        at_ring_id(api->options.ring, i, id);
        json_array_append_new(keys, json_string(id));
    }
    return json_pack("{s:o, s:b, s:I}", "keys", keys, "sealingAnew", api->reseal != NULL, "sealed",
                     (json_int_t)(api->reseal != NULL ? api->reseal->done : 0));
}

void api_secrets_show(struct api_req *req)
{
    if (req->api->options.ring == NULL) {
        api_respond_error(req, AT_NOT_FOUND, "this server does not seal Secrets");
        return;
    }
    api_respond_json(req, 200, state_json(req->api));
}

void api_secrets_rotate(struct api_req *req)
{
    struct at_err err = {0};
    if (req->api->options.ring == NULL) {
        api_respond_error(req, AT_NOT_FOUND, "this server does not seal Secrets");
        return;
    }
    if (at_ring_rotate(req->api->options.ring, &err) != AT_OK) {
        api_respond_err(req, &err);
        return;
    }
    api_secrets_begin(req->api);
    api_respond_json(req, 202, state_json(req->api));
}
