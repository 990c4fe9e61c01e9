/* Writes to etcd. Each compares the key's mod_revision, so that trying it again after a lost answer
 * does it at most once. Writes to one key go one after another, others at the same time. A write is
 * answered when the mirror shows it. */
#include "core/mem.h"
#include "store/etcd_priv.h"

#include <assert.h>
#include <string.h>

/* --- lists --- */

static void list_add(struct at_etcd_list *list, struct at_etcd_op *op)
{
    op->side_prev = list->last;
    op->side_next = NULL;
    *(list->last != NULL ? &list->last->side_next : &list->first) = op;
    list->last = op;
}

static void list_remove(struct at_etcd_list *list, struct at_etcd_op *op)
{
    *(op->side_prev != NULL ? &op->side_prev->side_next : &list->first) = op->side_next;
    *(op->side_next != NULL ? &op->side_next->side_prev : &list->last) = op->side_prev;
    op->side_prev = op->side_next = NULL;
}

static bool is_write(const struct at_etcd_op *op)
{
    return op->type != AT_STORE_OP_COMPACT;
}

static void set_state(struct at_etcd_op *op, enum at_etcd_op_state state)
{
    struct at_etcd *e = op->e;
    if (op->state == AT_ETCD_OP_READY) {
        list_remove(&e->ready, op);
    } else if (op->state == AT_ETCD_OP_RECHECK || op->state == AT_ETCD_OP_DECIDED) {
        list_remove(&e->settling, op);
    }
    op->state = state;
    if (state == AT_ETCD_OP_READY) {
        list_add(&e->ready, op);
    } else if (state == AT_ETCD_OP_RECHECK || state == AT_ETCD_OP_DECIDED) {
        list_add(&e->settling, op);
    }
}

/* --- asking --- */

static void key_join(struct at_etcd *e, struct at_etcd_op *op)
{
    const char *name = at_store_version_key(op->version);
    struct at_etcd_key *key = at_map_get(e->keys, name);
    if (key == NULL) {
        key = AT_NEW(struct at_etcd_key);
        at_map_put(e->keys, name, key);
    }
    bool free_way = key->last == NULL || key->last->state == AT_ETCD_OP_DECIDED;
    *(key->last != NULL ? &key->last->key_next : &key->first) = op;
    key->last = op;
    op->key = key;
    if (free_way) {
        set_state(op, AT_ETCD_OP_READY);
    }
}

void at_etcd_write(struct at_etcd *e, enum at_store_op_type type,
                   struct at_store_version *version_take, const struct at_store_write *write)
{
    struct at_etcd_op *op = AT_NEW(struct at_etcd_op);
    op->e = e;
    op->type = type;
    op->version = version_take;
    op->expect = write->expect;
    op->guard_key = at_strdup(write->guard_key);
    op->guard_rev = write->guard_rev;
    op->fn = write->fn;
    op->ctx = write->ctx;
    op->asked_ns = at_etcd_now(e);
    op->prev = e->last;
    *(e->last != NULL ? &e->last->next : &e->first) = op;
    e->last = op;
    if (is_write(op)) {
        key_join(e, op);
    }
    at_etcd_kick(e);
}

/* --- answering --- */

static void unlink_op(struct at_etcd_op *op)
{
    struct at_etcd *e = op->e;
    set_state(op, AT_ETCD_OP_WAITING);
    *(op->prev != NULL ? &op->prev->next : &e->first) = op->next;
    *(op->next != NULL ? &op->next->prev : &e->last) = op->prev;
    struct at_etcd_key *key = op->key;
    if (key == NULL) {
        return;
    }
    assert(key->first == op);
    key->first = op->key_next;
    if (key->first == NULL) {
        at_map_remove(e->keys, at_store_version_key(op->version));
        at_free(key);
    }
}

static void op_explain(const struct at_etcd_op *op, struct at_err *err)
{
    const char *key = op->version != NULL ? at_store_version_key(op->version) : "";
    switch (op->rc) {
    case AT_EXISTS:
        at_err_set(err, op->rc, "key %s exists", key);
        break;
    case AT_NOT_FOUND:
        at_err_set(err, op->rc, "key %s is not there", key);
        break;
    case AT_CONFLICT:
        if (op->shown == NULL) {
            at_err_set(err, op->rc, AT_STORE_GUARD_TEXT, key, op->guard_key);
        } else {
            at_err_set(err, op->rc, "key %s has revision %lld, not %lld", key,
                       (long long)op->shown->mod_rev, (long long)op->expect);
        }
        break;
    default:
        *err = op->err;
    }
}

/* The value as the mirror has it: it knows the revision of creation. */
static void show_put(struct at_etcd_op *op)
{
    const struct at_store *store = op->e->store;
    const struct at_store_change *change = at_store_history_at(&store->history, op->rev);
    struct at_store_version *v = change != NULL ? change->cur : NULL;
    if (v == NULL) {
        op->version->mod_rev = op->rev;
        v = op->version;
    }
    op->shown = at_store_version_ref(v);
}

static void answer(struct at_etcd_op *op)
{
    struct at_store *store = op->e->store;
    unlink_op(op);
    store->queue_n--;
    bool refused_for_good = op->rc == AT_EXISTS || op->rc == AT_NOT_FOUND || op->rc == AT_CONFLICT;
    if (op->lease != 0 && op->lease_new && refused_for_good) {
        at_etcd_lease_revoke(op->e, op->lease);
    }
    if (is_write(op)) {
        store->queue_bytes -= op->version->key_len + op->version->value_len;
        store->stats.writes += op->rc == AT_OK;
        store->stats.failed_batches += op->rc == AT_UNAVAILABLE || op->rc == AT_IO;
    }
    if (op->rc == AT_OK && op->type == AT_STORE_OP_PUT) {
        show_put(op);
    }
    struct at_err err = {0};
    if (op->rc != AT_OK) {
        op_explain(op, &err);
    }
    if (op->fn != NULL) {
        struct at_store_kv kv;
        if (op->shown != NULL) {
            kv = at_store_version_kv(op->shown);
        }
        store->in_callbacks = true;
        op->fn(op->ctx, op->rc, op->rc == AT_OK ? op->rev : 0, op->shown != NULL ? &kv : NULL,
               op->rc != AT_OK ? &err : NULL);
        store->in_callbacks = false;
    }
    at_store_version_unref(op->version);
    at_store_version_unref(op->shown);
    at_free(op->guard_key);
    at_free(op);
}

/* The outcome is known; the next write to the key may start. */
static void decide(struct at_etcd_op *op, enum at_rc rc, int64_t need_rev)
{
    struct at_etcd_key *key = op->key;
    op->rc = rc;
    op->need_rev = need_rev;
    set_state(op, AT_ETCD_OP_DECIDED);
    key->known = true;
    key->known_at = need_rev;
    if (rc == AT_OK) {
        key->known_rev = op->type == AT_STORE_OP_PUT ? op->rev : 0;
    } else {
        key->known_rev = op->shown != NULL ? op->shown->mod_rev : 0;
    }
    if (op->key_next != NULL) {
        set_state(op->key_next, AT_ETCD_OP_READY);
    }
}

void at_etcd_decide_failed(struct at_etcd_op *op, enum at_rc rc, const struct at_err *err)
{
    op->err = *err;
    decide(op, rc, 0);
    op->key->known = false;
}

void at_etcd_op_ready(struct at_etcd_op *op)
{
    assert(op->state == AT_ETCD_OP_SENT);
    set_state(op, AT_ETCD_OP_READY);
}

/* --- sending --- */

static void set_base(struct at_etcd_op *op, int64_t base, int64_t since)
{
    op->base = base;
    op->since = since;
    op->unsure = false;
    op->tried = true;
}

static void first_base(struct at_etcd_op *op)
{
    const struct at_store *store = op->e->store;
    const struct at_etcd_key *key = op->key;
    int64_t since = key->known && key->known_at > store->rev ? key->known_at : store->rev;
    if (op->expect >= 0) {
        set_base(op, op->expect, since);
        return;
    }
    const struct at_store_version *v =
        at_store_index_get(store->index, at_store_version_key(op->version));
    int64_t mirror = v != NULL ? v->mod_rev : 0;
    set_base(op, key->known && key->known_at > store->rev ? key->known_rev : mirror, since);
}

void at_etcd_op_sent(struct at_etcd_op *op)
{
    assert(op->state == AT_ETCD_OP_READY);
    if (!op->tried) {
        first_base(op);
    }
    set_state(op, AT_ETCD_OP_SENT);
}

/* The transaction's comparison did not hold, and that is not because of an attempt of ours. */
static void refused(struct at_etcd_op *op, int64_t rev)
{
    const struct at_store_version *have = op->shown;
    if (op->guard_key != NULL && op->guard_seen != op->guard_rev) {
        at_store_version_unref(op->shown);
        op->shown = NULL;
        decide(op, AT_CONFLICT, rev);
        op->key->known = false;
        return;
    }
    if (op->expect < 0 && (op->type == AT_STORE_OP_PUT || have != NULL)) {
        set_base(op, have != NULL ? have->mod_rev : 0, rev); /* somebody else was faster */
        at_store_version_unref(op->shown);
        op->shown = NULL;
        set_state(op, AT_ETCD_OP_READY);
        return;
    }
    enum at_rc rc = have == NULL ? AT_NOT_FOUND : op->expect == 0 ? AT_EXISTS : AT_CONFLICT;
    decide(op, rc, rev);
}

void at_etcd_op_answered(struct at_etcd_op *op, enum at_rc rc, bool unsure,
                         struct at_etcd_txn_answer *got, const struct at_err *err)
{
    struct at_etcd *e = op->e;
    int64_t rev = at_etcd_end_in(e, got->rev);
    assert(op->state == AT_ETCD_OP_SENT);
    if (rc == AT_UNAVAILABLE || rc == AT_CANCELLED) {
        op->unsure = op->unsure || unsure;
        op->err = *err;
        set_state(op, AT_ETCD_OP_READY);
    } else if (rc == AT_NOT_FOUND && op->lease != 0) {
        op->lease = 0; /* it ended between its making and its use */
        op->lease_new = true;
        set_state(op, AT_ETCD_OP_READY);
    } else if (rc != AT_OK) {
        at_etcd_decide_failed(op, rc, err);
    } else if (!got->succeeded) {
        at_store_version_unref(op->shown);
        op->shown = got->current;
        at_etcd_version_in(e, op->shown);
        (void)at_etcd_unseal(e, &op->shown, NULL); /* else it is shown as it is: unreadable */
        op->guard_seen =
            op->guard_key != NULL ? at_etcd_rev_in(e, got->guard_rev, op->guard_key) : 0;
        if (op->unsure) {
            op->need_rev = rev;
            set_state(op, AT_ETCD_OP_RECHECK);
        } else {
            refused(op, rev);
        }
    } else if (op->type == AT_STORE_OP_DELETE && op->base == 0) {
        decide(op, AT_NOT_FOUND, rev); /* absent, as compared */
    } else {
        op->rev = at_etcd_rev_in(e, got->rev, at_store_version_key(op->version));
        decide(op, AT_OK, rev);
    }
}

/* --- settling --- */

static bool did_this(const struct at_etcd_op *op, const struct at_store_change *change)
{
    int64_t before = change->prev != NULL ? change->prev->mod_rev : 0;
    if (before != op->base ||
        strcmp(at_store_change_key(change), at_store_version_key(op->version)) != 0) {
        return false;
    }
    const struct at_store_version *cur = change->cur;
    if (op->type == AT_STORE_OP_DELETE || cur == NULL) {
        return op->type == AT_STORE_OP_DELETE && cur == NULL;
    }
    return cur->value_len == op->version->value_len &&
           memcmp(at_store_version_value(cur), at_store_version_value(op->version),
                  cur->value_len) == 0;
}

/* An attempt had no answer, and the next one found the key changed: was that us? Nobody else could
 * have made this change on this base, except with the same value, and then it is the same. */
static void recheck(struct at_etcd_op *op)
{
    const struct at_store_history *h = &op->e->store->history;
    if (op->since < h->compact_rev) {
        struct at_err err = {0};
        at_err_set(&err, AT_UNAVAILABLE,
                   "etcd was away for so long that it is not known whether key %s was written",
                   at_store_version_key(op->version));
        at_etcd_decide_failed(op, AT_UNAVAILABLE, &err);
        return;
    }
    for (size_t i = at_store_history_after(h, op->since); i < h->n; i++) {
        const struct at_store_change *change = at_store_history_nth(h, i);
        if (change->rev <= op->need_rev && did_this(op, change)) {
            at_store_version_unref(op->shown);
            op->shown = NULL;
            op->rev = change->rev;
            decide(op, AT_OK, op->need_rev);
            return;
        }
    }
    refused(op, op->need_rev);
}

static void compact_done(void *ctx, enum at_rc rc, bool unsure, const json_t *json,
                         const struct at_err *err)
{
    (void)unsure;
    (void)json;
    struct at_etcd_op *op = ctx;
    if (op->state != AT_ETCD_OP_SENT) {
        return;
    }
    struct at_etcd *e = op->e;
    struct at_store *store = e->store;
    op->call = 0;
    if (rc == AT_UNAVAILABLE || rc == AT_CANCELLED) {
        op->err = *err;
        set_state(op, AT_ETCD_OP_WAITING);
        return;
    }
    bool done = rc == AT_OK || rc == AT_COMPACTED; /* by another server */
    op->rc = done ? AT_OK : rc;
    if (done && op->expect > store->history.compact_rev) {
        at_etcd_forget(e, op->expect);
    } else if (!done) {
        op->err = *err;
    }
    answer(op);
    at_etcd_kick(e);
}

/* A sync or a compaction that is first of all now. false: it has to wait. */
static bool in_turn(struct at_etcd_op *op)
{
    struct at_etcd *e = op->e;
    op->rev = op->expect;
    if (op->state == AT_ETCD_OP_SENT) {
        return false;
    }
    if (op->expect > e->store->rev) {
        op->rc = AT_TIMEOUT;
        at_err_set(&op->err, op->rc, "revision %lld lies in the future", (long long)op->expect);
    } else if (op->expect > e->store->history.compact_rev) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
        int64_t raw = at_etcd_whole_raw(e, op->expect);
        if (raw < 1) { /* etcd has nothing to forget */
            at_etcd_forget(e, op->expect);
            return true;
        }
        if (at_etcd_now(e) >= e->pause_until_ns && at_etcd_may_call(e) &&
            at_etcd_compact_text(raw, &text) == AT_OK) {
            set_state(op, AT_ETCD_OP_SENT);
            op->call = at_etcd_call(e, "/v3/kv/compaction", &text, compact_done, op);
        }
        return false;
    }
    return true;
}

void at_etcd_settle(struct at_etcd *e)
{
    struct at_etcd_op *next;
    for (struct at_etcd_op *op = e->settling.first; op != NULL; op = next) {
        next = op->side_next;
        if (op->need_rev > e->store->rev) {
            continue;
        }
        if (op->state == AT_ETCD_OP_RECHECK) {
            recheck(op); /* goes to the end of the list, or is sent once more */
            at_etcd_kick(e);
        } else {
            answer(op); /* may ask for more writes, which only joins queues */
        }
    }
    while (e->first != NULL && !is_write(e->first) && in_turn(e->first)) {
        answer(e->first);
    }
}

/* Those that waited too long, while etcd says nothing. The oldest is always the first of its key.
 */
void at_etcd_expire(struct at_etcd *e, int64_t now, bool all)
{
    bool unreadable = e->loading && e->load_err.rc != AT_OK && e->load_err.rc != AT_UNAVAILABLE;
    bool silent = unreadable || now - e->last_ok_ns > AT_STORE_ETCD_ATTEMPT_NS;
    while (e->first != NULL &&
           (all || (silent && now - e->first->asked_ns > AT_STORE_ETCD_WRITE_NS))) {
        struct at_etcd_op *op = e->first;
        bool sent = op->state == AT_ETCD_OP_SENT;
        bool unsure = op->unsure || sent || op->state == AT_ETCD_OP_RECHECK;
        bool stored = op->state == AT_ETCD_OP_DECIDED && op->rc == AT_OK;
        struct at_err why = op->err;
        at_err_set(&op->err, AT_UNAVAILABLE, "the store does not answer, %s%s%s",
                   stored   ? "but it has taken the write"
                   : unsure ? "it is not known whether it has taken the write"
                            : "nothing was written",
                   why.msg[0] != '\0' ? ": " : "", why.msg);
        op->rc = AT_UNAVAILABLE;
        set_state(op, AT_ETCD_OP_DECIDED);
        at_store_version_unref(op->shown);
        op->shown = NULL;
        at_http_call_cancel(e->http, op->call);
        at_etcd_group_leave(op);
        if (op->key != NULL) {
            op->key->known = false;
            if (op->key_next != NULL && op->key_next->state == AT_ETCD_OP_WAITING) {
                set_state(op->key_next, AT_ETCD_OP_READY);
            }
        }
        answer(op);
    }
}
