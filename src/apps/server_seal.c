/* Secrets are sealed wherever the server keeps them: the ring of keys tied to the store. */
#include "apps/server_seal.h"

#include "core/log.h"
#include "core/mem.h"
#include "state/state.h"

#include <string.h>

static bool wants(void *ctx, const char *key)
{
    const struct at_app_seal *s = ctx;
    return strncmp(key, s->prefix, s->prefix_len) == 0;
}

static enum at_rc seal(void *ctx, const char *key, const void *value, size_t len,
                       struct at_buf *out, struct at_err *err)
{
    const struct at_app_seal *s = ctx;
    return at_ring_seal(s->ring, key, value, len, out, err);
}

static enum at_rc unseal(void *ctx, const char *key, const void *value, size_t len,
                         struct at_buf *out, struct at_err *err)
{
    const struct at_app_seal *s = ctx;
    return at_ring_unseal(s->ring, key, value, len, out, err);
}

static void found_plain(void *ctx, const char *key)
{
    (void)key;
    struct at_app_seal *s = ctx;
    s->plain = true;
}

enum at_rc at_app_seal_open(struct at_app_seal *s, const char *path, const struct at_sys *sys,
                            struct at_err *err)
{
    const struct at_model_kind *kind = at_model_kind_find("", "v1", "Secret");
    at_state_key(kind, NULL, NULL, s->prefix, sizeof s->prefix);
    s->prefix_len = strlen(s->prefix);
    s->path = at_strdup(path);
    s->hooks = (struct at_store_seal){
        .ctx = s, .wants = wants, .seal = seal, .open = unseal, .found_plain = found_plain};
    return at_ring_open(path, sys, &s->ring, err);
}

enum at_rc at_app_seal_ready(struct at_app_seal *s, struct at_err *err)
{
    if (at_ring_count(s->ring) > 0) {
        return AT_OK;
    }
    enum at_rc rc = at_ring_first(s->ring, err);
    if (rc == AT_OK) {
        at_log(
            AT_LOG_INFO, "secrets.key",
            "made the key that Secrets are encrypted with: keep a copy of %s, apart from backups",
            s->path);
    }
    return rc;
}

bool at_app_seal_stale(struct at_app_seal *s)
{
    return s->plain || at_ring_count(s->ring) > 1;
}

void at_app_seal_close(struct at_app_seal *s)
{
    at_ring_free(s->ring);
    at_free(s->path);
    s->ring = NULL;
    s->path = NULL;
}
