/* Writes to etcd that wait at the same time go together, in one transaction: all or none of them at
 * first, which is cheap. When one's comparison fails, once more with each as a branch of its own (a
 * nested transaction), which compares for itself and fails for itself. etcd compares everything
 * before it does anything, so a group has no key twice, and no guard that another one changes. Few
 * transactions are under way at once; meanwhile the next groups gather. */
#include "core/mem.h"
#include "store/etcd_priv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct member {
    struct at_etcd_op *op; /* NULL: it was given up meanwhile */
    unsigned place;
};

struct at_etcd_group {
    struct at_etcd *e;
    at_http_call_id call;
    enum at_etcd_form form;
    size_t n, n_left, bytes;
    struct member members[AT_STORE_ETCD_GROUP_WRITES_MAX];
    uint8_t written[AT_ETCD_PLACES / 8], guarded[AT_ETCD_PLACES / 8]; /* places */
};

static bool bit(const uint8_t *set, unsigned place)
{
    return (set[place / 8] >> place % 8 & 1) != 0;
}

static void bit_set(uint8_t *set, unsigned place)
{
    set[place / 8] = (uint8_t)(set[place / 8] | 1u << place % 8);
}

/* --- forming --- */

/* About what it takes of etcd's limit. */
static size_t op_bytes(const struct at_etcd_op *op)
{
    return 128 + op->version->value_len + 3 * op->version->key_len +
           (op->guard_key != NULL ? 2 * strlen(op->guard_key) : 0);
}

static bool fits(const struct at_etcd_group *g, const struct at_etcd_op *op, unsigned place)
{
    if (g->n == 0) {
        return true;
    }
    return !op->alone && !g->members[0].op->alone && !bit(g->written, place) &&
           !bit(g->guarded, place) &&
           (op->guard_key == NULL || !bit(g->written, at_etcd_place(op->guard_key))) &&
           g->bytes + op_bytes(op) <= AT_STORE_ETCD_GROUP_BYTES_MAX &&
           g->e->sent_bytes + g->bytes + op_bytes(op) <= AT_STORE_ETCD_SENT_BYTES_MAX;
}

static void join(struct at_etcd_group *g, struct at_etcd_op *op, unsigned place)
{
    g->members[g->n++] = (struct member){op, place};
    g->bytes += op_bytes(op);
    bit_set(g->written, place);
    if (op->guard_key != NULL) {
        bit_set(g->guarded, at_etcd_place(op->guard_key));
    }
    g->form = op->apart || g->form == AT_ETCD_APART ? AT_ETCD_APART : AT_ETCD_TOGETHER;
    op->group = g;
    at_etcd_op_sent(op);
}

static int place_compare(const void *a, const void *b)
{
    const struct member *x = a;
    const struct member *y = b;
    return x->place < y->place ? -1 : x->place > y->place;
}

static bool wants_lease(const struct at_etcd_op *op)
{
    return op->type == AT_STORE_OP_PUT && op->version->ttl_s != 0 && op->lease == 0;
}

/* Those that go together now, of all that are ready. NULL: none. */
static struct at_etcd_group *gather(struct at_etcd *e)
{
    struct at_etcd_group *g = NULL;
    struct at_etcd_op *next;
    for (struct at_etcd_op *op = e->ready.first; op != NULL; op = next) {
        next = op->side_next;
        if (wants_lease(op)) {
            continue;
        }
        if (g == NULL) {
            g = AT_NEW(struct at_etcd_group);
            g->e = e;
        }
        unsigned place = at_etcd_place(at_store_version_key(op->version));
        if (fits(g, op, place)) {
            join(g, op, place);
        }
        if (g->n == AT_STORE_ETCD_GROUP_WRITES_MAX) {
            break;
        }
    }
    if (g != NULL) {
        g->form = g->n == 1 ? AT_ETCD_ONE : g->form;
        g->n_left = g->n;
        qsort(g->members, g->n, sizeof g->members[0], place_compare);
    }
    return g;
}

/* --- what became of it --- */

static void member_done(struct at_etcd_group *g, size_t i, enum at_rc rc, bool unsure,
                        const json_t *json, const struct at_err *err)
{
    struct at_etcd_op *op = g->members[i].op;
    struct at_etcd_txn_answer got = {0};
    struct at_err own = {0};
    if (rc == AT_OK) {
        rc = at_etcd_txn_answer(json, g->form, i, &got, &own);
        err = &own;
    } else if (g->n > 1 && rc != AT_UNAVAILABLE && rc != AT_CANCELLED) {
        op->alone = true; /* nothing was written, because of one of them */
        at_etcd_op_ready(op);
        return;
    }
    if (rc == AT_OK && g->form == AT_ETCD_TOGETHER && !got.succeeded) {
        op->apart = true;
        at_etcd_op_ready(op);
        return;
    }
    at_etcd_op_answered(op, rc, unsure, &got, err);
}

static void group_done(void *ctx, enum at_rc rc, bool unsure, const json_t *json,
                       const struct at_err *err)
{
    struct at_etcd_group *g = ctx;
    struct at_etcd *e = g->e;
    e->n_txns--;
    e->sent_bytes -= g->bytes;
    e->store->stats.batches += rc == AT_OK;
    for (size_t i = 0; i < g->n; i++) {
        if (g->members[i].op != NULL) {
            g->members[i].op->group = NULL;
            member_done(g, i, rc, unsure, json, err);
        }
    }
    at_free(g);
    at_etcd_kick(e);
}

void at_etcd_group_leave(struct at_etcd_op *op)
{
    struct at_etcd_group *g = op->group;
    if (g == NULL) {
        return;
    }
    op->group = NULL;
    for (size_t i = 0; i < g->n; i++) {
        if (g->members[i].op == op) {
            g->members[i].op = NULL;
        }
    }
    if (--g->n_left == 0) {
        at_http_call_cancel(g->e->http, g->call); /* which frees it */
    }
}

/* --- sending --- */

static void group_send(struct at_etcd_group *g)
{
    struct at_etcd *e = g->e;
    struct at_etcd_txn txns[AT_STORE_ETCD_GROUP_WRITES_MAX];
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    for (size_t i = 0; i < g->n; i++) {
        const struct at_etcd_op *op = g->members[i].op;
        txns[i] = (struct at_etcd_txn){
            .version = op->version,
            .seal = e->store->seal,
            .put = op->type == AT_STORE_OP_PUT,
            .expect = at_etcd_rev_out(e, op->base, at_store_version_key(op->version)),
            .lease = op->lease,
            .guard_key = op->guard_key,
            .guard_rev =
                op->guard_key != NULL ? at_etcd_rev_out(e, op->guard_rev, op->guard_key) : 0,
        };
    }
    e->n_txns++;
    e->sent_bytes += g->bytes;
    if (at_etcd_txn_text(txns, g->n, g->form, &text) != AT_OK) {
        /* Groups are bounded, so a value could not be sealed: it fails alone, the others go on. */
        struct at_err err = {0};
        enum at_rc rc = at_err_set(&err, AT_INTERNAL, "the value cannot be encrypted");
        group_done(g, rc, false, NULL, &err);
        return;
    }
    g->call = at_etcd_call(e, "/v3/kv/txn", &text, group_done, g);
}

static void scheme_done(void *ctx, enum at_rc rc, bool unsure, const json_t *answer,
                        const struct at_err *err)
{
    (void)unsure;
    (void)err;
    struct at_etcd *e = ctx;
    struct at_etcd_txn_answer got = {0};
    e->scheme_asked = false;
    if (rc == AT_OK && at_etcd_txn_answer(answer, AT_ETCD_ONE, 0, &got, NULL) == AT_OK) {
        e->scheme_told = true; /* another's scheme comes, or came, by the watch, and is refused */
        at_store_version_unref(got.current);
    }
    at_etcd_kick(e);
}

/* Before the first write: servers of an older build must not go on beside this one. */
static bool scheme_is_told(struct at_etcd *e)
{
    if (e->scheme_told || e->scheme_asked) {
        return e->scheme_told;
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (at_etcd_scheme_text(&text) != AT_OK) {
        assert(false);
    }
    e->scheme_asked = true;
    at_etcd_call(e, "/v3/kv/txn", &text, scheme_done, e);
    return false;
}

static void leases_ask(struct at_etcd *e)
{
    struct at_etcd_op *next;
    for (struct at_etcd_op *op = e->ready.first; op != NULL; op = next) {
        next = op->side_next;
        if (e->n_calls == AT_STORE_ETCD_CALLS_MAX) {
            return;
        }
        if (wants_lease(op)) {
            at_etcd_op_sent(op);
            at_etcd_lease_ask(op);
        }
    }
}

void at_etcd_send(struct at_etcd *e)
{
    bool waiting = e->ready.first != NULL;
    bool paused = at_etcd_now(e) < e->pause_until_ns; /* the tick goes on */
    paused = (waiting || e->readers != NULL) && (paused || !at_etcd_may_call(e));
    if (!paused && waiting && scheme_is_told(e)) {
        leases_ask(e);
        while (e->n_txns < AT_STORE_ETCD_TXNS_MAX) {
            struct at_etcd_group *g = gather(e);
            if (g == NULL) {
                break;
            }
            group_send(g);
        }
    }
    at_etcd_readers_ask(e, paused);
}
