/* Model files by URI into a cache. One fetch per file at a time: whoever asks meanwhile waits for
 * the same. */
#include "agent/agent_priv.h"

#include "core/digest.h"
#include "core/log.h"
#include "net/url.h"
#include "sys/file.h"

#include <stdio.h>
#include <string.h>

struct waiter {
    agent_fetched_fn *fn;
    void *ctx;
    struct waiter *next;
};

/* One file under way. Pool work touches only the texts and the outcome. */
struct fetch {
    struct agent_fetches *owner; /* NULL: the agent has gone, only clean up */
    char *key, *source, *target, *temporary;
    char want_hex[65]; /* empty: any */
    enum at_rc rc;
    struct at_err err;
    bool present; /* the cache has it already */
    bool is_file; /* source is a path, not a URL */
    struct waiter *waiters;
    /* downloads */
    int status;
    int64_t bytes;
    at_http_call_id call;
    struct at_tls_config *tls;
};

struct agent_fetches {
    struct at_agent *agent;
    struct at_map *running; /* key -> struct fetch */
    uint64_t counter;
};

static void fetch_free(struct fetch *f)
{
    while (f->waiters != NULL) {
        struct waiter *w = f->waiters;
        f->waiters = w->next;
        at_free(w);
    }
    at_tls_config_unref(f->tls);
    at_free(f->key);
    at_free(f->source);
    at_free(f->target);
    at_free(f->temporary);
    at_free(f);
}

static void fetch_finish(struct fetch *f)
{
    struct agent_fetches *owner = f->owner;
    if (owner == NULL) {
        fetch_free(f);
        return;
    }
    at_map_remove(owner->running, f->key);
    if (f->rc == AT_OK && f->want_hex[0] != '\0' && !f->present) {
        agent_models_tell(owner->agent);
    }
    for (struct waiter *w = f->waiters; w != NULL; w = w->next) {
        if (w->fn != NULL) {
            w->fn(w->ctx, f->rc, f->target, &f->err);
        }
    }
    fetch_free(f);
}

/* --- work on a pool thread --- */

/* temporary is complete: check it and give it its name. */
static enum at_rc verify_and_name(struct fetch *f)
{
    char hex[65];
    enum at_rc rc = at_file_sha256(f->temporary, hex, &f->err);
    if (rc == AT_OK && f->want_hex[0] != '\0' && strcmp(hex, f->want_hex) != 0) {
        rc = at_err_set(&f->err, AT_CORRUPT, "model %s has digest sha256:%s, sha256:%s is wanted",
                        f->source, hex, f->want_hex);
    }
    if (rc == AT_OK) {
        rc = at_file_rename(f->temporary, f->target, &f->err);
    }
    if (rc != AT_OK) {
        enum at_rc ignored = at_file_remove(f->temporary, NULL);
        (void)ignored;
    }
    return rc;
}

static void work_copy(void *ctx)
{
    struct fetch *f = ctx;
    if (!at_file_exists(f->source)) {
        f->rc = at_err_set(&f->err, AT_NOT_FOUND, "model file %s does not exist", f->source);
        return;
    }
    f->rc = at_file_copy(f->source, f->temporary, 0644, &f->err);
    if (f->rc == AT_OK) {
        f->rc = verify_and_name(f);
    }
}

static void work_verify(void *ctx)
{
    struct fetch *f = ctx;
    f->rc = verify_and_name(f);
}

static void work_done(void *ctx)
{
    fetch_finish(ctx);
}

/* needed: bytes that are not in the cache yet. */
static void submit(struct fetch *f, at_post_fn *work, int64_t needed)
{
    struct at_agent *a = f->owner->agent;
    f->rc = agent_cache_room(a->cache, needed > 0 ? needed : 0, &f->err);
    if (f->rc != AT_OK) {
        enum at_rc ignored = at_file_remove(f->temporary, NULL);
        (void)ignored;
        f->rc = at_err_wrap(&f->err, f->rc, "model %s", f->source);
        fetch_finish(f);
        return;
    }
    enum at_rc rc = at_pool_submit(a->pool, a->loop, work, work_done, f);
    if (rc != AT_OK) {
        f->rc = at_err_set(&f->err, rc, "too much work is waiting on this node");
        fetch_finish(f);
    }
}

/* --- downloads --- */

static void on_head(void *ctx, const struct at_http_head *head)
{
    struct fetch *f = ctx;
    f->status = head->status;
}

static void on_body(void *ctx, const char *data, size_t len)
{
    struct fetch *f = ctx;
    f->bytes += (int64_t)len;
    if (f->rc != AT_OK || f->status != 200) {
        return;
    }
    if (f->bytes > AGENT_MODEL_BYTES_MAX) {
        f->rc = at_err_set(&f->err, AT_TOO_LARGE, "model %s is larger than %lld bytes", f->source,
                           (long long)AGENT_MODEL_BYTES_MAX);
        return;
    }
    f->rc = at_file_append(f->temporary, data, len, 0644, &f->err);
}

static void on_done(void *ctx, enum at_rc rc, bool bytes_sent, const struct at_err *err)
{
    (void)bytes_sent;
    struct fetch *f = ctx;
    f->call = 0;
    if (f->owner == NULL) {
        fetch_free(f);
        return;
    }
    if (rc != AT_OK) {
        f->rc = at_err_set(&f->err, rc, "model %s: %s", f->source, err->msg);
    } else if (f->status != 200) {
        f->rc =
            at_err_set(&f->err, f->status == 404 || f->status == 410 ? AT_NOT_FOUND : AT_UPSTREAM,
                       "model %s: the server answered %d", f->source, f->status);
    }
    if (f->rc != AT_OK) {
        rc = at_file_remove(f->temporary, NULL);
        fetch_finish(f);
        return;
    }
    submit(f, work_verify, 0);
}

static enum at_rc tls_trusting_system(struct at_tls_config **ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf anchors = {0};
    enum at_rc rc =
        at_file_read("/etc/ssl/certs/ca-certificates.crt", (size_t)8 << 20, &anchors, err);
    if (rc != AT_OK) {
        return at_err_wrap(err, rc, "trust anchors (install ca-certificates)");
    }
    struct at_tls_options options = {.ca_pem = anchors.data, .verify_peer = true};
    return at_tls_config_new(&options, ret, err);
}

static void download(struct fetch *f)
{
    struct at_url url;
    f->rc = at_url_parse(f->source, &url, &f->err);
    bool secure = f->rc == AT_OK && strcmp(url.scheme, "https") == 0;
    if (f->rc == AT_OK && !secure && strcmp(url.scheme, "http") != 0) {
        f->rc = at_err_set(&f->err, AT_NOT_FOUND,
                           "model %s: only file:, http: and https: are known", f->source);
    }
    if (f->rc == AT_OK && secure) {
        f->rc = tls_trusting_system(&f->tls, &f->err);
    }
    if (f->rc != AT_OK) {
        fetch_finish(f);
        return;
    }
    struct at_http_call call = {.addr = url.addr,
                                .tls = f->tls,
                                .method = AT_HTTP_GET,
                                .target = url.target,
                                .timeout_ns = AGENT_FETCH_TIMEOUT_NS,
                                .ctx = f,
                                .on_head = on_head,
                                .on_body = on_body,
                                .on_done = on_done};
    f->call = at_http_call(f->owner->agent->http, &call);
}

/* --- asking --- */

struct agent_fetches *agent_fetches_new(struct at_agent *a)
{
    struct agent_fetches *f = AT_NEW(struct agent_fetches);
    f->agent = a;
    f->running = at_map_new();
    return f;
}

void agent_fetches_free(struct agent_fetches *fetches)
{
    if (fetches == NULL) {
        return;
    }
    const char *key;
    void *value;
    for (size_t it = 0; at_map_next(fetches->running, &it, &key, &value);) {
        struct fetch *f = value;
        at_http_call_id call = f->call;
        f->owner = NULL; /* its last callback frees it */
        if (call != 0) {
            at_http_call_cancel(fetches->agent->http, call);
        }
    }
    at_map_free(fetches->running);
    at_free(fetches);
}

void agent_fetch_forget(struct agent_fetches *fetches, void *ctx)
{
    const char *key;
    void *value;
    for (size_t it = 0; fetches != NULL && at_map_next(fetches->running, &it, &key, &value);) {
        for (struct waiter *w = ((struct fetch *)value)->waiters; w != NULL; w = w->next) {
            if (w->ctx == ctx) {
                w->fn = NULL;
            }
        }
    }
}

/* file:///path is that path; file:name is looked up in the agent's models folder. NULL: not a file
 * URI. */
static char *file_of(const struct at_agent *a, const char *uri, struct at_err *err)
{
    if (strncmp(uri, "file:", 5) != 0) {
        return NULL;
    }
    const char *rest = uri + 5;
    if (strncmp(rest, "///", 3) == 0) {
        return at_strdup(rest + 2);
    }
    if (rest[0] == '/' || strstr(rest, "..") != NULL || rest[0] == '\0') {
        (void)!at_err_set(
            err, AT_NOT_FOUND,
            "model %s: write file:///path, or file:name for the agent's models folder", uri);
        return at_strdup("");
    }
    if (a->models_dir == NULL) {
        (void)!at_err_set(err, AT_NOT_FOUND, "model %s: this agent has no models folder (--models)",
                          uri);
        return at_strdup("");
    }
    return at_asprintf("%s/%s", a->models_dir, rest);
}

static void run_later(void *ctx)
{
    struct fetch *f = ctx;
    if (f->owner == NULL || f->rc != AT_OK || f->present) {
        fetch_finish(f);
        return;
    }
    if (f->is_file) {
        submit(f, work_copy, at_file_size(f->source));
    } else {
        download(f);
    }
}

static struct fetch *fetch_new(struct agent_fetches *fetches, const struct at_model_ref *model,
                               const char *key)
{
    struct at_agent *a = fetches->agent;
    struct fetch *f = AT_NEW(struct fetch);
    bool pinned = model->digest != NULL && model->digest[0] != '\0';
    f->owner = fetches;
    f->key = at_strdup(key);
    if (pinned) {
        snprintf(f->want_hex, sizeof f->want_hex, "%s", model->digest + strlen("sha256:"));
    }
    f->target = at_asprintf("%s/models/%s", a->state_dir, key);
    f->temporary = at_asprintf("%s.%llu.tmp", f->target, (unsigned long long)++fetches->counter);
    f->source = file_of(a, model->uri, &f->err);
    f->rc = f->err.rc;
    f->is_file = f->source != NULL;
    if (f->source == NULL) {
        f->source = at_strdup(model->uri);
    }
    enum at_rc ignored = at_file_remove(f->temporary, NULL);
    (void)ignored;
    /* A file gets its digest's name only after it was verified. */
    f->present = f->rc == AT_OK && pinned && at_file_exists(f->target);
    at_map_put(fetches->running, key, f);
    if (at_loop_post(a->loop, run_later, f) != AT_OK) {
        f->rc = at_err_set(&f->err, AT_EXHAUSTED, "too much work is waiting on this node");
    }
    return f;
}

void agent_fetch(struct agent_fetches *fetches, const struct at_model_ref *model,
                 agent_fetched_fn *fn, void *ctx)
{
    char key[96];
    if (model->digest != NULL && model->digest[0] != '\0') {
        snprintf(key, sizeof key, "sha256/%s", model->digest + strlen("sha256:"));
    } else {
        char hex[AT_SHA256_HEX_BYTES];
        at_sha256_hex(model->uri, strlen(model->uri), hex);
        snprintf(key, sizeof key, "uri/%s", hex);
    }
    struct fetch *f = at_map_get(fetches->running, key);
    if (f == NULL) {
        f = fetch_new(fetches, model, key);
    }
    struct waiter *w = AT_NEW(struct waiter);
    *w = (struct waiter){.fn = fn, .ctx = ctx, .next = f->waiters};
    f->waiters = w;
}
