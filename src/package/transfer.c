#include "package/transfer.h"

#include "core/mem.h"
#include "core/str.h"
#include "package/registry_priv.h"
#include "sys/entry.h"
#include "sys/fd.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum at_rc at_pkg_blobs_of(const struct at_pkg_manifest *m, struct at_arena *arena,
                           const struct at_pkg_descriptor ***ret, size_t *ret_n, struct at_err *err)
{
    const struct at_pkg_descriptor **list = at_arena_alloc(arena, (m->n_layers + 1) * sizeof *list);
    size_t n = 0;
    if (list == NULL) {
        return at_err_set(err, AT_TOO_LARGE, "the package has too many layers");
    }
    list[n++] = &m->config;
    for (size_t i = 0; i < m->n_layers; i++) {
        const struct at_pkg_descriptor *d = &m->layers[i];
        bool seen = false;
        for (size_t k = 0; k < n && !seen; k++) {
            seen = strcmp(list[k]->digest, d->digest) == 0;
            if (seen && list[k]->bytes != d->bytes) {
                return at_err_set(err, AT_CORRUPT, "the manifest gives %s two sizes", d->digest);
            }
        }
        if (!seen) {
            list[n++] = d;
        }
    }
    *ret = list;
    *ret_n = n;
    return AT_OK;
}

/* --- several at a time --- */

struct crew {
    struct at_pkg_registry *registry;
    const struct at_pkg_store *store;
    const struct at_pkg_descriptor **blobs;
    size_t n;
    bool push;
    const char *mount_from;
    atomic_bool *cancel;
    atomic_size_t next, sent;
    pthread_mutex_t lock; /* of the first error */
    enum at_rc rc;
    struct at_err err;
};

static void *work(void *ctx)
{
    struct crew *c = ctx;
    struct at_pkg_session *s = at_pkg_session_new(c->registry);
    for (;;) {
        size_t i = atomic_fetch_add(&c->next, 1);
        struct at_err err = {0};
        bool sent = false;
        if (i >= c->n || (c->cancel != NULL && atomic_load(c->cancel))) {
            break;
        }
        enum at_rc rc = c->push
                            ? at_pkg_blob_put(s, c->blobs[i], c->store, c->mount_from, &sent, &err)
                            : at_pkg_blob_get(s, c->blobs[i], c->store, &err);
        if (sent) {
            atomic_fetch_add(&c->sent, 1);
        }
        if (rc != AT_OK) {
            pthread_mutex_lock(&c->lock);
            if (c->rc == AT_OK) {
                c->rc = rc;
                c->err = err;
            }
            pthread_mutex_unlock(&c->lock);
            atomic_store(&c->next, c->n);
            if (c->cancel != NULL) {
                atomic_store(c->cancel, true);
            }
            break;
        }
    }
    at_pkg_session_free(s);
    return NULL;
}

static enum at_rc crew_run(struct crew *c, size_t parallel, struct at_err *err)
{
    pthread_t threads[64];
    size_t n = 0;
    parallel = parallel == 0 ? PKG_PARALLEL : parallel;
    parallel = parallel > AT_ARRAY_LEN(threads) ? AT_ARRAY_LEN(threads) : parallel;
    parallel = parallel > c->n ? c->n : parallel;
    pthread_mutex_init(&c->lock, NULL);
    while (n + 1 < parallel && pthread_create(&threads[n], NULL, work, c) == 0) {
        n++;
    }
    (void)work(c); /* this thread is one of them */
    for (size_t i = 0; i < n; i++) {
        pthread_join(threads[i], NULL);
    }
    pthread_mutex_destroy(&c->lock);
    if (c->rc == AT_OK && c->cancel != NULL && atomic_load(c->cancel)) {
        return at_err_set(err, AT_CANCELLED, "stopped");
    }
    if (c->rc != AT_OK && err != NULL) {
        *err = c->err;
    }
    return c->rc;
}

/* Bytes of all, or of those that the store lacks. */
static int64_t sum_of(const struct at_pkg_store *store,
                      const struct at_pkg_descriptor *const *blobs, size_t n)
{
    int64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        bool there = store != NULL && at_pkg_store_has(store, blobs[i]->digest, blobs[i]->bytes);
        sum += there ? 0 : blobs[i]->bytes; /* at most PKG_LAYERS_MAX times PKG_BLOB_BYTES_MAX */
    }
    return sum;
}

/* --- pull --- */

/* Of an index: the model, or the only one. */
static enum at_rc choose(const struct at_buf *text, char ret_digest[AT_PKG_DIGEST_BYTES],
                         struct at_err *err)
{
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    struct at_pkg_index index;
    const struct at_pkg_descriptor *found = NULL;
    size_t models = 0;
    enum at_rc rc = at_pkg_index_parse(text->data, text->len, arena, &index, err);
    if (rc != AT_OK) {
        return rc;
    }
    for (size_t i = 0; i < index.n_manifests; i++) {
        if (at_streq(index.manifests[i].artifact_type, AT_PKG_TYPE_MODEL)) {
            found = &index.manifests[i];
            models++;
        }
    }
    found = models == 0 && index.n_manifests == 1 ? &index.manifests[0] : found;
    if (found == NULL || models > 1) {
        rc = at_err_set(
            err, AT_UNSUPPORTED,
            "it is an index of %zu manifests, %zu of them models; name one by its digest",
            index.n_manifests, models);
    } else {
        memcpy(ret_digest, found->digest, AT_PKG_DIGEST_BYTES);
    }
    at_pkg_index_done(&index);
    return rc;
}

enum at_rc at_pkg_resolve(struct at_pkg_registry *registry, const char *wanted,
                          struct at_buf *ret_text, char ret_digest[AT_PKG_DIGEST_BYTES],
                          struct at_err *err)
{
    struct at_pkg_session *s = at_pkg_session_new(registry);
    enum at_rc rc = at_pkg_manifest_get(s, wanted, ret_text, ret_digest, err);
    if (rc == AT_OK && at_pkg_text_is_index(ret_text->data, ret_text->len)) {
        char one[AT_PKG_DIGEST_BYTES];
        rc = choose(ret_text, one, err);
        at_buf_clear(ret_text);
        rc = rc != AT_OK ? rc : at_pkg_manifest_get(s, one, ret_text, ret_digest, err);
    }
    at_pkg_session_free(s);
    return rc;
}

/* All that a manifest names, to the store or from it. *m: the caller's to be done with. */
static enum at_rc carry(struct crew *crew, const struct at_buf *text, struct at_arena *arena,
                        struct at_pkg_manifest *m, const struct at_pkg_transfer *transfer,
                        struct at_err *err)
{
    enum at_rc rc = at_pkg_manifest_parse(text->data, text->len, arena, m, err);
    rc = rc != AT_OK ? rc : at_pkg_blobs_of(m, arena, &crew->blobs, &crew->n, err);
    if (rc == AT_OK && transfer->on_total != NULL) {
        rc = transfer->on_total(transfer->ctx, sum_of(NULL, crew->blobs, crew->n),
                                sum_of(crew->store, crew->blobs, crew->n), err);
    }
    return rc != AT_OK ? rc : crew_run(crew, transfer->parallel, err);
}

enum at_rc at_pkg_pull(struct at_pkg_registry *registry, const char *wanted,
                       const struct at_pkg_store *store, const struct at_pkg_transfer *transfer,
                       char ret_digest[AT_PKG_DIGEST_BYTES], struct at_err *err)
{
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {.max = PKG_DOCUMENT_BYTES_MAX};
    struct at_pkg_manifest m = {0};
    struct crew crew = {.registry = registry, .store = store, .cancel = transfer->cancel};
    char digest[AT_PKG_DIGEST_BYTES], again[AT_PKG_DIGEST_BYTES];
    enum at_rc rc = AT_NOT_FOUND;
    if (at_pkg_digest_is(wanted, strlen(wanted)) && at_pkg_store_has(store, wanted, -1)) {
        rc = at_pkg_store_read(store, wanted, PKG_DOCUMENT_BYTES_MAX, &text, NULL);
        memcpy(digest, wanted, strlen(wanted) + 1);
    }
    if (rc != AT_OK) {
        at_buf_clear(&text);
        rc = at_pkg_resolve(registry, wanted, &text, digest, err);
    }
    rc = rc != AT_OK ? rc : carry(&crew, &text, arena, &m, transfer, err);
    rc = rc != AT_OK ? rc : at_pkg_store_put(store, text.data, text.len, again, err);
    at_pkg_manifest_done(&m);
    if (rc == AT_OK) {
        memcpy(ret_digest, digest, sizeof digest);
    }
    return rc;
}

/* --- push --- */

enum at_rc at_pkg_descriptor_of(const struct at_pkg_store *store, const char *digest, json_t **ret,
                                struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {.max = PKG_DOCUMENT_BYTES_MAX};
    AT_CLEANUP(at_cleanup_json) json_t *json = NULL;
    enum at_rc rc = at_pkg_store_read(store, digest, PKG_DOCUMENT_BYTES_MAX, &text, err);
    rc = rc != AT_OK ? rc : at_json_parse(text.data, text.len, &json, err);
    if (rc != AT_OK) {
        json = NULL;
        return rc;
    }
    const char *type = json_string_value(json_object_get(json, "mediaType"));
    const char *artifact = json_string_value(json_object_get(json, "artifactType"));
    bool index = json_is_array(json_object_get(json, "manifests"));
    *ret = at_pkg_descriptor_json(type != NULL ? type
                                  : index      ? AT_PKG_TYPE_INDEX
                                               : AT_PKG_TYPE_MANIFEST,
                                  digest, (int64_t)text.len, NULL);
    if (artifact != NULL) {
        json_object_set_new(*ret, "artifactType", json_string(artifact));
    }
    return AT_OK;
}

static enum at_rc put_manifest(struct at_pkg_registry *registry, const struct at_buf *text,
                               const char *tag, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *json = NULL;
    struct at_pkg_session *s = at_pkg_session_new(registry);
    enum at_rc rc = at_json_parse(text->data, text->len, &json, err);
    assert(rc == AT_OK); /* it was parsed before */
    const char *type = json_string_value(json_object_get(json, "mediaType"));
    rc = at_pkg_manifest_put(s, tag, type != NULL ? type : AT_PKG_TYPE_MANIFEST, text->data,
                             text->len, err);
    at_pkg_session_free(s);
    return rc;
}

enum at_rc at_pkg_push(struct at_pkg_registry *registry, const struct at_pkg_store *store,
                       const char *digest, const char *tag, const char *mount_from,
                       const struct at_pkg_transfer *transfer, size_t *ret_sent, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {.max = PKG_DOCUMENT_BYTES_MAX};
    struct at_pkg_manifest m = {0};
    struct crew crew = {.registry = registry,
                        .store = store,
                        .cancel = transfer->cancel,
                        .push = true,
                        .mount_from = mount_from};
    enum at_rc rc = at_pkg_store_read(store, digest, PKG_DOCUMENT_BYTES_MAX, &text, err);
    rc = rc != AT_OK ? rc : carry(&crew, &text, arena, &m, transfer, err);
    rc = rc != AT_OK ? rc : put_manifest(registry, &text, tag, err);
    at_pkg_manifest_done(&m);
    if (rc == AT_OK && ret_sent != NULL) {
        *ret_sent = atomic_load(&crew.sent);
    }
    return rc;
}

/* --- between stores --- */

static enum at_rc copy_blob(const struct at_pkg_store *from, const struct at_pkg_store *to,
                            const struct at_pkg_descriptor *blob, const atomic_bool *cancel,
                            struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_pkg_store_path(from, blob->digest);
    AT_CLEANUP(at_cleanup_free) char *buf = at_alloc(PKG_COPY_BYTES);
    int in = -1, out = -1;
    int64_t bytes = 0, have = 0;
    enum at_rc rc = at_entry_open(path, &in, &bytes, err);
    if (rc == AT_OK && bytes != blob->bytes) {
        rc = at_err_set(err, AT_CORRUPT, "%s has %lld bytes, its manifest says %lld", path,
                        (long long)bytes, (long long)blob->bytes);
    }
    rc = rc != AT_OK ? rc : at_pkg_store_part(to, blob->digest, bytes, cancel, &out, &have, err);
    while (rc == AT_OK && out >= 0 && have < bytes) {
        size_t n = 0;
        rc = at_entry_read_at(in, have, buf, PKG_COPY_BYTES, &n, err);
        if (rc == AT_OK && (n == 0 || (int64_t)n > bytes - have)) {
            rc = at_err_set(err, AT_CORRUPT, "%s changed while it was read", path);
        }
        if (rc == AT_OK && cancel != NULL && atomic_load(cancel)) {
            rc = at_err_set(err, AT_CANCELLED, "stopped");
        }
        rc = rc != AT_OK ? rc : at_entry_write(out, buf, n, err);
        have += (int64_t)n;
    }
    if (rc == AT_OK && out >= 0) {
        rc = at_pkg_store_part_keep(to, blob->digest, bytes, out, err);
        rc = rc != AT_OK ? at_err_wrap(err, rc, "%s", path) : rc;
    }
    at_fd_close(in);
    at_pkg_store_part_done(out);
    return rc;
}

enum at_rc at_pkg_copy(const struct at_pkg_store *from, const struct at_pkg_store *to,
                       const char *digest, const atomic_bool *cancel, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {.max = PKG_DOCUMENT_BYTES_MAX};
    struct at_pkg_manifest m = {0};
    const struct at_pkg_descriptor **blobs = NULL;
    size_t n = 0;
    char again[AT_PKG_DIGEST_BYTES];
    enum at_rc rc = at_pkg_store_read(from, digest, PKG_DOCUMENT_BYTES_MAX, &text, err);
    rc = rc != AT_OK ? rc : at_pkg_manifest_parse(text.data, text.len, arena, &m, err);
    rc = rc != AT_OK ? rc : at_pkg_blobs_of(&m, arena, &blobs, &n, err);
    for (size_t i = 0; i < n && rc == AT_OK; i++) {
        rc = copy_blob(from, to, blobs[i], cancel, err);
    }
    rc = rc != AT_OK ? rc : at_pkg_store_put(to, text.data, text.len, again, err);
    at_pkg_manifest_done(&m);
    return rc;
}
