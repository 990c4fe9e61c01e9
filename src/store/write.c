/* Writes: queued, decided in order against the durable state and the earlier writes of the same
 * batch, made durable together, then shown to readers, watchers and callbacks, in this order. One
 * batch is under way at a time; what comes meanwhile makes up the next one. */
#include "core/mem.h"
#include "store/etcd_priv.h"

#include <assert.h>
#include <string.h>

static void kick(struct at_store *store);

static void op_free(struct at_store_op *op)
{
    at_store_version_unref(op->version);
    at_store_version_unref(op->shown);
    at_free(op->guard_key);
    at_free(op);
}

static void refuse(at_store_write_fn *fn, void *ctx, enum at_rc rc, const char *why)
{
    struct at_err err = {0};
    at_err_set(&err, rc, "%s", why);
    if (fn != NULL) {
        fn(ctx, rc, 0, NULL, &err);
    }
}

static const char *input_problem(const struct at_store *store, const struct at_store_write *w,
                                 enum at_rc *ret_rc)
{
    size_t key_len = w->key != NULL ? strlen(w->key) : 1;
    *ret_rc = AT_TOO_LARGE;
    if (key_len > AT_STORE_KEY_BYTES_MAX) {
        return "the key is too long";
    }
    if (w->len > AT_STORE_VALUE_BYTES_MAX) {
        return "the value is too large";
    }
    *ret_rc = AT_EXHAUSTED;
    if (store->queue_n >= store->bounds.queue_writes ||
        store->queue_bytes + w->len > AT_STORE_QUEUE_BYTES_MAX) {
        return "too many writes wait for the disk, try again later";
    }
    *ret_rc = AT_UNAVAILABLE;
    if (store->closing) {
        return "the store is closing";
    }
    *ret_rc = AT_INVALID;
    if (w->ttl_s > AT_STORE_TTL_S_MAX) {
        return "the TTL is too long";
    }
    return key_len == 0 ? "the key is empty" : NULL;
}

static size_t op_bytes(const struct at_store_op *op)
{
    return op->version != NULL ? op->version->key_len + op->version->value_len : 0;
}

void at_store_enqueue(struct at_store *store, enum at_store_op_type type,
                      const struct at_store_write *w)
{
    enum at_rc rc;
    const char *problem = input_problem(store, w, &rc);
    if (problem != NULL) {
        refuse(w->fn, w->ctx, rc, problem);
        return;
    }
    struct at_store_version *version = NULL;
    if (w->key != NULL) {
        version = at_store_version_new(w->key, w->value, w->len);
        version->ttl_s = w->ttl_s;
    }
    if (store->etcd != NULL) {
        store->queue_n++;
        store->queue_bytes += version != NULL ? version->key_len + w->len : 0;
        at_etcd_write(store->etcd, type, version, w);
        return;
    }
    struct at_store_op *op = AT_NEW(struct at_store_op);
    op->type = type;
    op->version = version;
    op->expect = w->expect;
    op->guard_key = at_strdup(w->guard_key);
    op->guard_rev = w->guard_rev;
    op->fn = w->fn;
    op->ctx = w->ctx;
    *store->queue_tail = op;
    store->queue_tail = &op->next;
    store->queue_n++;
    store->queue_bytes += op_bytes(op);
    kick(store);
}

/* What the key has after the earlier writes of this batch. */
static struct at_store_version *standing(const struct at_store *store, const char *key,
                                         bool *ret_on_batch)
{
    size_t number = (size_t)(uintptr_t)at_map_get(store->batch_last, key);
    *ret_on_batch = number != 0;
    if (number != 0) {
        return store->batch.changes[number - 1].cur;
    }
    return at_store_index_get(store->index, key);
}

static enum at_rc expectation(const struct at_store_op *op, const struct at_store_version *have)
{
    if (op->type == AT_STORE_OP_PUT && op->expect == 0) {
        return have != NULL ? AT_EXISTS : AT_OK;
    }
    if (op->type == AT_STORE_OP_DELETE && have == NULL) {
        return AT_NOT_FOUND;
    }
    if (op->expect < 0) {
        return AT_OK;
    }
    if (have == NULL) {
        return AT_NOT_FOUND;
    }
    return have->mod_rev == op->expect ? AT_OK : AT_CONFLICT;
}

static void add_change(struct at_store *store, struct at_store_op *op,
                       struct at_store_version *have)
{
    struct at_store_batch *batch = &store->batch;
    struct at_store_change *change = &batch->changes[batch->n_changes];
    change->rev = store->rev + (int64_t)batch->n_changes + 1;
    change->prev = at_store_version_ref(have);
    change->cur = NULL;
    op->rev = change->rev;
    if (op->type == AT_STORE_OP_PUT) {
        op->version->mod_rev = change->rev;
        op->version->create_rev = have != NULL ? have->create_rev : change->rev;
        change->cur = at_store_version_ref(op->version);
        op->shown = at_store_version_ref(op->version);
    }
    batch->n_changes++;
    at_map_put(store->batch_last, at_store_version_key(op->version),
               (void *)(uintptr_t)batch->n_changes);
}

static bool guard_holds(const struct at_store *store, struct at_store_op *op)
{
    bool on_batch = false;
    const struct at_store_version *v =
        op->guard_key != NULL ? standing(store, op->guard_key, &on_batch) : NULL;
    op->on_batch = op->on_batch || on_batch;
    return op->guard_key == NULL || (v != NULL ? v->mod_rev : 0) == op->guard_rev;
}

static void decide_write(struct at_store *store, struct at_store_op *op)
{
    struct at_store_version *have =
        standing(store, at_store_version_key(op->version), &op->on_batch);
    if (!guard_holds(store, op)) {
        op->guarded_off = true;
        op->rc = AT_CONFLICT;
        return;
    }
    op->rc = expectation(op, have);
    if (op->rc == AT_OK) {
        add_change(store, op, have);
    } else {
        op->shown = at_store_version_ref(have);
    }
}

static void decide_compaction(struct at_store *store, struct at_store_op *op)
{
    op->rev = op->expect;
    if (op->expect > store->rev) {
        op->rc = AT_TIMEOUT;
    } else if (op->expect > store->history.compact_rev && op->expect > store->batch.compact_rev) {
        store->batch.compact_rev = op->expect;
    }
}

/* Alone in its batch: what comes before it has the revisions below, what comes after those above.
 */
static void decide_advance(struct at_store *store, struct at_store_op *op)
{
    assert(store->batch.n_changes == 0);
    assert(store->stats.watchers == 0);
    op->rev = store->rev;
    if (op->expect > store->rev) {
        op->rev = op->expect;
        store->batch.compact_rev = op->expect;
    }
}

/* The revision up to which the oldest changes must go to be under max_bytes. */
static int64_t bytes_goal(const struct at_store_history *h, size_t max_bytes)
{
    size_t i = 0;
    for (size_t bytes = h->bytes; bytes > max_bytes; i++) {
        bytes -= at_store_change_bytes(at_store_history_nth(h, i));
    }
    return at_store_history_before_newest(h, h->n - i);
}

int64_t at_store_compaction_due(const struct at_store *store)
{
    const struct at_store_history *h = &store->history;
    int64_t goal = store->age_goal;
    if (h->n > store->bounds.history_revs + AT_STORE_COMPACT_STEP_MIN) {
        int64_t by_revs = at_store_history_before_newest(h, store->bounds.history_revs);
        goal = by_revs > goal ? by_revs : goal;
    }
    if (h->bytes > store->bounds.history_bytes / 8 * 9) {
        int64_t by_bytes = bytes_goal(h, store->bounds.history_bytes);
        goal = by_bytes > goal ? by_bytes : goal;
    }
    if (h->n > AT_STORE_COMPACT_STEP_MAX) {
        int64_t most = at_store_history_before_newest(h, h->n - AT_STORE_COMPACT_STEP_MAX);
        goal = goal < most ? goal : most;
    }
    return goal > h->compact_rev ? goal : 0;
}

/* Records that only history needed: superseded values, and deletions themselves. */
static void list_dead(struct at_store *store)
{
    struct at_store_batch *batch = &store->batch;
    const struct at_store_history *h = &store->history;
    if (batch->compact_rev == 0) {
        return;
    }
    size_t n = at_store_history_after(h, batch->compact_rev);
    batch->dead = at_alloc(n * 2 * sizeof(batch->dead[0]));
    for (size_t i = 0; i < n; i++) {
        const struct at_store_change *change = at_store_history_nth(h, i);
        if (change->prev != NULL) {
            batch->dead[batch->n_dead++] = change->prev->mod_rev;
        }
        if (change->cur == NULL) {
            batch->dead[batch->n_dead++] = change->rev;
        }
    }
}

/* Take what is queued, up to a batch's limits, and decide it. false: nothing to do. */
static bool batch_form(struct at_store *store)
{
    assert(store->batch_ops == NULL);
    size_t n =
        store->queue_n < AT_STORE_BATCH_WRITES_MAX ? store->queue_n : AT_STORE_BATCH_WRITES_MAX;
    store->batch = (struct at_store_batch){
        .seal = store->seal,
        .compact_rev = at_store_compaction_due(store),
        .wall_ms = at_sys_wall_ns(at_loop_sys(store->loop)) / AT_NS_PER_MS,
    };
    if (n == 0 && store->batch.compact_rev == 0) {
        return false;
    }
    store->batch.changes = at_alloc(n * sizeof(store->batch.changes[0]));
    struct at_store_op **tail = &store->batch_ops;
    size_t bytes = 0;
    while (n-- > 0 && bytes < AT_STORE_BATCH_BYTES_MAX) {
        struct at_store_op *op = store->queue;
        bool advance = op->type == AT_STORE_OP_ADVANCE;
        if (advance && store->batch_ops != NULL) {
            break;
        }
        store->queue = op->next;
        store->queue_n--;
        store->queue_bytes -= op_bytes(op);
        bytes += op_bytes(op);
        op->next = NULL;
        *tail = op;
        tail = &op->next;
        if (advance) {
            decide_advance(store, op);
            break;
        }
        if (op->type == AT_STORE_OP_COMPACT) {
            decide_compaction(store, op);
        } else {
            decide_write(store, op);
        }
    }
    if (store->queue == NULL) {
        store->queue_tail = &store->queue;
    }
    at_map_clear(store->batch_last);
    list_dead(store);
    return true;
}

static void batch_fail(struct at_store *store, enum at_rc rc)
{
    store->stats.failed_batches++;
    for (struct at_store_op *op = store->batch_ops; op != NULL; op = op->next) {
        if (op->rc == AT_OK || op->on_batch) { /* what was decided on durable values stands */
            op->rc = rc;
            op->rev = 0;
            at_store_version_unref(op->shown);
            op->shown = NULL;
        }
    }
}

static void batch_apply(struct at_store *store)
{
    struct at_store_batch *batch = &store->batch;
    for (size_t i = 0; i < batch->n_changes; i++) {
        struct at_store_change *change = &batch->changes[i];
        if (change->cur != NULL) {
            at_store_index_put(store->index, change->cur);
        } else {
            at_store_index_remove(store->index, at_store_change_key(change));
        }
        at_store_history_push(&store->history, change);
        at_store_lease_note(store, change, -1);
        store->rev = change->rev;
    }
    at_store_lease_arm(store);
    store->stats.writes += batch->n_changes;
    store->stats.batches += batch->n_changes != 0;
    at_store_pump(store);
    if (batch->compact_rev != 0) {
        at_store_history_trim(&store->history, batch->compact_rev);
        store->rev = store->rev > batch->compact_rev ? store->rev : batch->compact_rev;
        store->stats.compactions++;
    }
    at_store_age_arm(store);
}

static void op_answer(struct at_store_op *op, const struct at_err *disk_err)
{
    struct at_err err = {0};
    const char *key = op->version != NULL ? at_store_version_key(op->version) : "";
    switch (op->rc) {
    case AT_OK:
        break;
    case AT_EXISTS:
        at_err_set(&err, op->rc, "key %s exists", key);
        break;
    case AT_NOT_FOUND:
        at_err_set(&err, op->rc, "key %s is not there", key);
        break;
    case AT_CONFLICT:
        if (op->guarded_off) {
            at_err_set(&err, op->rc, AT_STORE_GUARD_TEXT, key, op->guard_key);
        } else {
            at_err_set(&err, op->rc, "key %s has revision %lld, not %lld", key,
                       (long long)op->shown->mod_rev, (long long)op->expect);
        }
        break;
    case AT_TIMEOUT:
        at_err_set(&err, op->rc, "revision %lld lies in the future", (long long)op->expect);
        break;
    default:
        err = *disk_err;
    }
    struct at_store_kv kv;
    if (op->shown != NULL) {
        kv = at_store_version_kv(op->shown);
    }
    if (op->fn != NULL) {
        op->fn(op->ctx, op->rc, op->rc == AT_OK ? op->rev : 0, op->shown != NULL ? &kv : NULL,
               op->rc != AT_OK ? &err : NULL);
    }
}

static bool batch_commits(const struct at_store *store)
{
    return store->batch.n_changes != 0 || store->batch.compact_rev != 0;
}

static void rider_take(struct at_store *store)
{
    const struct at_store_journal *journal = store->journal;
    uint64_t mark = journal != NULL ? journal->mark(journal->ctx) : 0;
    if (mark != 0) {
        store->rider = (struct at_store_rider){.journal = journal, .mark = mark};
        store->batch.rider = &store->rider;
    }
}

static void batch_finish(struct at_store *store, enum at_rc rc, const struct at_err *err)
{
    store->in_callbacks = true;
    if (rc == AT_OK) {
        batch_apply(store);
    } else {
        batch_fail(store, rc);
    }
    if (store->batch.rider != NULL) {
        store->journal->landed(store->journal->ctx, rc == AT_OK && store->rider.kept);
    }
    struct at_store_op *op = store->batch_ops;
    store->batch_ops = NULL;
    while (op != NULL) {
        struct at_store_op *next = op->next;
        op_answer(op, err);
        op_free(op);
        op = next;
    }
    for (size_t i = 0; i < store->batch.n_changes; i++) {
        at_store_version_unref(store->batch.changes[i].cur);
        at_store_version_unref(store->batch.changes[i].prev);
    }
    at_free(store->batch.changes);
    at_free(store->batch.dead);
    store->batch = (struct at_store_batch){0};
    store->in_callbacks = false;
}

static void commit_here(struct at_store *store)
{
    struct at_err err = {0};
    enum at_rc rc = AT_OK;
    if (batch_commits(store)) {
        rider_take(store);
        rc = store->kind->commit(store->backend, &store->batch, &err);
    }
    batch_finish(store, rc, &err);
}

static void run(void *ctx)
{
    struct at_store *store = ctx;
    store->kick_timer = 0;
    if (store->in_flight || !batch_form(store)) {
        return;
    }
    if (store->writer != NULL && batch_commits(store)) {
        store->in_flight = true;
        rider_take(store);
        at_store_writer_submit(store->writer, &store->batch);
        return;
    }
    commit_here(store);
    if (store->queue != NULL || at_store_compaction_due(store) != 0) {
        kick(store);
    }
}

/* Soon, not now: so that what this turn of the loop brings goes together, and no callback runs
 * inside a put. */
static void kick(struct at_store *store)
{
    if (!store->in_flight && !store->in_callbacks && store->kick_timer == 0 && !store->closing) {
        store->kick_timer = at_loop_timer(store->loop, 0, run, store);
    }
}

void at_store_batch_landed(void *ctx)
{
    struct at_store *store = ctx;
    enum at_rc rc;
    struct at_err err = {0};
    if (!at_store_writer_take(store->writer, &rc, &err)) {
        return;
    }
    assert(store->in_flight);
    store->in_flight = false;
    batch_finish(store, rc, &err);
    if (!store->closing) {
        run(store);
    }
}

void at_store_drain(struct at_store *store)
{
    assert(!store->in_callbacks);
    store->closing = true;
    if (store->etcd != NULL) {
        at_etcd_drain(store->etcd);
        return;
    }
    at_loop_timer_cancel(store->loop, store->kick_timer);
    store->kick_timer = 0;
    if (store->writer != NULL) {
        at_store_writer_stop(store->writer);
    }
    if (store->in_flight) {
        at_store_batch_landed(store);
    }
    while (store->queue != NULL && batch_form(store)) {
        commit_here(store);
    }
}

/* Every AT_STORE_HISTORY_CHECK_NS while there is history worth forgetting. */
static void age_tick(void *ctx)
{
    struct at_store *store = ctx;
    store->age_timer = 0;
    size_t n = AT_ARRAY_LEN(store->age_revs);
    int64_t old_enough = store->age_revs[0];
    memmove(store->age_revs, store->age_revs + 1, (n - 1) * sizeof(store->age_revs[0]));
    store->age_revs[n - 1] = store->rev;
    int64_t keep = at_store_history_before_newest(&store->history, AT_STORE_HISTORY_REVS_MIN);
    store->age_goal = old_enough < keep ? old_enough : keep;
    at_store_age_arm(store);
    if (store->etcd != NULL) {
        at_etcd_age(store->etcd, store->age_goal);
    } else if (store->age_goal > store->history.compact_rev) {
        kick(store);
    }
}

void at_store_age_arm(struct at_store *store)
{
    if (store->age_timer == 0 &&
        store->history.n > AT_STORE_HISTORY_REVS_MIN + AT_STORE_COMPACT_STEP_MIN) {
        store->age_timer = at_loop_timer(store->loop, AT_STORE_HISTORY_CHECK_NS, age_tick, store);
    }
}
