#include "store/store.h"

#include "core/mem.h"
#include "store/etcd_priv.h"

#include <assert.h>
#include <string.h>

/* A new store begins here, so that 0 never names a state ("0" means "any" to Kubernetes clients).
 */
#define FIRST_REV 1

static const struct at_store_backend *const BACKENDS[] = {&AT_STORE_MEMORY, &AT_STORE_SQLITE,
                                                          &AT_STORE_ETCD};

static void load_compacted(void *ctx, int64_t compact_rev)
{
    struct at_store *store = ctx;
    assert(compact_rev >= FIRST_REV);
    store->rev = compact_rev;
    store->history.compact_rev = compact_rev;
}

/* The wall clock may have been stepped meanwhile: no TTL gets longer by it. */
static int64_t ttl_left(const struct at_store *store, const struct at_store_record *r)
{
    int64_t ttl_ms = r->ttl_s * 1000;
    int64_t passed_ms = at_sys_wall_ns(at_loop_sys(store->loop)) / AT_NS_PER_MS - r->wall_ms;
    passed_ms = passed_ms < 0 ? 0 : passed_ms > ttl_ms ? ttl_ms : passed_ms;
    return (ttl_ms - passed_ms) * AT_NS_PER_MS;
}

static enum at_rc load_record(void *ctx, const struct at_store_record *r, struct at_err *err)
{
    struct at_store *store = ctx;
    int64_t compact_rev = store->history.compact_rev;
    int64_t rev = r->rev;
    if (rev > compact_rev && rev != store->rev + 1) {
        return at_err_set(err, AT_CORRUPT, "revision %lld is followed by %lld: records are missing",
                          (long long)store->rev, (long long)rev);
    }
    struct at_store_change change = {.rev = rev};
    change.prev = at_store_version_ref(at_store_index_get(store->index, r->key));
    if (r->value == NULL && change.prev == NULL) {
        return at_err_set(err, AT_CORRUPT, "revision %lld deletes key %s, which is not there",
                          (long long)rev, r->key);
    }
    if (r->ttl_s < 0 || r->ttl_s > AT_STORE_TTL_S_MAX) {
        at_store_version_unref(change.prev);
        return at_err_set(err, AT_CORRUPT, "revision %lld of key %s has a TTL that cannot be",
                          (long long)rev, r->key);
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf opened = {0};
    if (r->value != NULL) {
        struct at_str value = {r->value, r->len};
        enum at_rc rc = at_store_unseal_value(store->seal, r->key, value, &opened, &value, err);
        if (rc != AT_OK) {
            at_store_version_unref(change.prev);
            return at_err_wrap(err, rc, "%s", r->key);
        }
        change.cur = at_store_version_new(r->key, value.ptr, value.len);
        change.cur->create_rev = r->create_rev;
        change.cur->mod_rev = rev;
        change.cur->ttl_s = (uint32_t)r->ttl_s;
        at_store_index_put(store->index, change.cur);
    } else {
        at_store_index_remove(store->index, r->key);
    }
    at_store_lease_note(store, &change, r->ttl_s != 0 ? ttl_left(store, r) : 0);
    if (rev > compact_rev) {
        store->rev = rev;
        at_store_history_push(&store->history, &change);
    }
    at_store_version_unref(change.cur);
    at_store_version_unref(change.prev);
    return AT_OK;
}

static enum at_rc open_backend(struct at_store *store, const char *path, struct at_err *err)
{
    if (store->kind == &AT_STORE_ETCD) {
        return at_etcd_open(store, path, &store->etcd, err);
    }
    struct at_store_load load = {load_compacted, load_record, store};
    enum at_rc rc = store->kind->open(path, &load, &store->backend, err);
    if (rc != AT_OK || !store->kind->blocking) {
        return rc;
    }
    rc = at_store_writer_new(store->kind, store->backend, store->loop, at_store_batch_landed, store,
                             &store->writer, err);
    if (rc != AT_OK) {
        store->kind->close(store->backend);
    }
    return rc;
}

static void store_free(struct at_store *store)
{
    at_store_index_free(store->index);
    at_store_history_done(&store->history);
    at_store_leases_done(store);
    at_map_free(store->batch_last);
    at_free(store);
}

enum at_rc at_store_open(const char *kind, const char *path, struct at_loop *loop,
                         struct at_store **ret, struct at_err *err)
{
    return at_store_open_sealed(kind, path, loop, NULL, ret, err);
}

enum at_rc at_store_open_sealed(const char *kind, const char *path, struct at_loop *loop,
                                const struct at_store_seal *seal, struct at_store **ret,
                                struct at_err *err)
{
    const struct at_store_backend *backend = NULL;
    if (strncmp(kind, "etcd:", 5) == 0) {
        path = kind + 5;
        kind = "etcd";
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(BACKENDS); i++) {
        if (strcmp(BACKENDS[i]->kind, kind) == 0) {
            backend = BACKENDS[i];
        }
    }
    if (backend == NULL) {
        return at_err_set(err, AT_INVALID,
                          "unknown store %s: use sqlite, memory or etcd:http://host:port", kind);
    }
    struct at_store *store = AT_NEW(struct at_store);
    store->kind = backend;
    store->seal = seal;
    store->bounds = (struct at_store_bounds){.queue_writes = AT_STORE_QUEUE_WRITES_MAX,
                                             .history_revs = AT_STORE_HISTORY_REVS_MAX,
                                             .history_bytes = AT_STORE_HISTORY_BYTES_MAX};
    store->loop = loop;
    store->index = at_store_index_new();
    store->batch_last = at_map_new();
    store->leases.keys = at_map_new();
    store->queue_tail = &store->queue;
    load_compacted(store, FIRST_REV);
    enum at_rc rc = open_backend(store, path, err);
    if (rc != AT_OK) {
        at_loop_timer_cancel(loop, store->age_timer);
        store_free(store);
        return rc;
    }
    at_store_age_arm(store);
    at_store_lease_arm(store);
    *ret = store;
    return AT_OK;
}

void at_store_close(struct at_store *store)
{
    if (store == NULL) {
        return;
    }
    at_store_drain(store);
    at_store_watchers_done(store);
    at_loop_timer_cancel(store->loop, store->age_timer);
    at_store_writer_free(store->writer);
    if (store->etcd != NULL) {
        at_etcd_close(store->etcd);
    } else {
        store->kind->close(store->backend);
    }
    assert(store->queue == NULL);
    store_free(store);
}

int64_t at_store_rev(const struct at_store *store)
{
    return store->rev;
}

int64_t at_store_compact_rev(const struct at_store *store)
{
    return store->history.compact_rev;
}

struct at_store_stats at_store_stats(const struct at_store *store)
{
    struct at_store_stats stats = store->stats;
    stats.queued = store->queue_n;
    stats.keys = at_store_index_count(store->index);
    stats.changes = store->history.pushed;
    stats.history_revs = store->history.n;
    stats.history_bytes = store->history.bytes;
    return stats;
}

void at_store_history_bound(struct at_store *store, size_t changes, size_t bytes)
{
    store->bounds.history_revs = changes != 0 ? changes : store->bounds.history_revs;
    store->bounds.history_bytes = bytes != 0 ? bytes : store->bounds.history_bytes;
}

void at_store_put(struct at_store *store, const char *key, const void *value, size_t len,
                  int64_t expect, at_store_write_fn *fn, void *ctx)
{
    assert(key != NULL);
    const struct at_store_write w = {
        .key = key, .value = value, .len = len, .expect = expect, .fn = fn, .ctx = ctx};
    at_store_enqueue(store, AT_STORE_OP_PUT, &w);
}

void at_store_delete(struct at_store *store, const char *key, int64_t expect, at_store_write_fn *fn,
                     void *ctx)
{
    assert(key != NULL);
    assert(expect != 0);
    const struct at_store_write w = {.key = key, .expect = expect, .fn = fn, .ctx = ctx};
    at_store_enqueue(store, AT_STORE_OP_DELETE, &w);
}

void at_store_write(struct at_store *store, const struct at_store_write *write)
{
    assert(write->key != NULL);
    assert(!write->deletes || write->expect != 0);
    at_store_enqueue(store, write->deletes ? AT_STORE_OP_DELETE : AT_STORE_OP_PUT, write);
}

/* Compaction up to what is compacted already: a write that changes nothing, in its place in the
 * queue. */
void at_store_sync(struct at_store *store, at_store_write_fn *fn, void *ctx)
{
    at_store_compact(store, store->history.compact_rev, fn, ctx);
}

void at_store_catch_up(struct at_store *store, at_store_write_fn *fn, void *ctx)
{
    if (store->etcd != NULL && !store->closing) {
        at_etcd_catch_up(store->etcd, fn, ctx);
    } else {
        fn(ctx, AT_OK, store->rev, NULL, NULL);
    }
}

void at_store_give_up(struct at_store *store)
{
    assert(!store->in_callbacks);
    if (store->etcd != NULL) {
        at_etcd_expire(store->etcd, at_etcd_now(store->etcd), true);
        at_etcd_kick(store->etcd);
    }
}

enum at_rc at_store_journal_open(struct at_store *store, const struct at_store_journal *journal,
                                 at_store_journal_fn *each, void *ctx, struct at_err *err)
{
    assert(!store->in_flight);
    assert(store->journal == NULL);
    if (store->kind->journal_open == NULL) {
        return at_err_set(err, AT_UNSUPPORTED, "store %s keeps no journal", store->kind->kind);
    }
    enum at_rc rc = store->kind->journal_open(store->backend, each, ctx, err);
    store->journal = rc == AT_OK ? journal : NULL;
    return rc;
}

bool at_store_is_shared(const struct at_store *store)
{
    return store->etcd != NULL;
}

void at_store_compact(struct at_store *store, int64_t rev, at_store_write_fn *fn, void *ctx)
{
    const struct at_store_write w = {.expect = rev, .fn = fn, .ctx = ctx};
    at_store_enqueue(store, AT_STORE_OP_COMPACT, &w);
}

void at_store_advance(struct at_store *store, int64_t rev, at_store_write_fn *fn, void *ctx)
{
    if (store->kind->commit == NULL) {
        struct at_err err = {0};
        at_err_set(&err, AT_UNSUPPORTED, "the revision of store %s cannot be raised",
                   store->kind->kind);
        fn(ctx, AT_UNSUPPORTED, 0, NULL, &err);
        return;
    }
    const struct at_store_write w = {.expect = rev, .fn = fn, .ctx = ctx};
    at_store_enqueue(store, AT_STORE_OP_ADVANCE, &w);
}
