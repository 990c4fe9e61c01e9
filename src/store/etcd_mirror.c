/* The mirror of etcd in memory: read in pages at one revision, then kept up by a watch. What cannot
 * be followed (compacted away while etcd was out of reach, several keys changed by a
 * stranger's transaction) is read anew, and watchers are told to do the same. */
#include "core/mem.h"
#include "core/str.h"
#include "store/etcd_priv.h"

#include <assert.h>
#include <string.h>

static void load_next(struct at_etcd *e);
static void watch_start(struct at_etcd *e);

/* --- the whole --- */

static void load_reset(struct at_etcd *e)
{
    at_store_index_free(e->load_index);
    e->load_index = at_store_index_new();
    at_store_leases_clear(e->store);
    at_buf_clear(&e->page_from);
    if (at_buf_append(&e->page_from, "", 1) != AT_OK) {
        assert(false);
    }
    e->page_limit = AT_STORE_ETCD_PAGE_KEYS_MIN;
    e->load_scheme = false;
}

void at_etcd_load(struct at_etcd *e)
{
    if (e->loading) {
        return;
    }
    e->loading = true;
    e->load_rev = 0;
    if (e->watch_call != 0) {
        at_http_call_id id = e->watch_call;
        e->watch_call = 0;
        at_http_call_cancel(e->http, id);
    }
    load_next(e);
}

static void load_failed(struct at_etcd *e, enum at_rc rc, const struct at_err *err)
{
    e->load_idle = true;
    if (rc == AT_COMPACTED && e->load_rev < e->load_newest) {
        e->load_rev += (e->load_newest - e->load_rev + 1) / 2; /* less history then */
        load_reset(e);
    } else if (rc == AT_COMPACTED) {
        e->load_rev = 0;
    } else if (rc == AT_TOO_LARGE && e->page_limit > 1) {
        e->page_limit = 1;
    } else {
        e->load_err = *err;
    }
}

/* Once, when everything is there and nobody has seen it. */
static void offset_take(struct at_etcd *e)
{
    struct at_store_version *v = at_store_index_get(e->load_index, AT_STORE_ETCD_OFFSET_KEY);
    int64_t offset = 0;
    if (v == NULL ||
        at_str_to_i64((struct at_str){at_store_version_value(v), v->value_len}, &offset) != AT_OK ||
        offset <= 0 || offset > AT_STORE_ETCD_OFFSET_MAX) {
        return;
    }
    e->rev_offset = offset;
    struct at_store_cursor cursor = at_store_index_seek(e->load_index, "");
    while ((v = at_store_index_next(e->load_index, &cursor)) != NULL) {
        v->mod_rev += offset;
        v->create_rev += offset;
    }
}

static void load_done(struct at_etcd *e)
{
    struct at_store *store = e->store;
    bool again = e->loaded;
    if (!again) {
        offset_take(e);
    }
    at_store_index_free(store->index);
    store->index = e->load_index;
    e->load_index = NULL;
    at_store_history_done(&store->history);
    store->history.head = 0;
    store->history.compact_rev = store->rev = at_etcd_end_in(e, e->load_rev);
    e->scheme_told = e->load_scheme;
    e->loaded = true;
    e->loading = false;
    e->load_err = (struct at_err){0};
    watch_start(e);
    if (again) {
        at_store_watchers_end(store, AT_COMPACTED);
    }
}

/* What no key of the store can be. */
static enum at_rc foreign_key(const json_t *kv, struct at_err *err)
{
    int64_t scheme = at_etcd_scheme(kv);
    if (scheme == 0) {
        return at_err_set(err, AT_CORRUPT, "etcd holds keys of others: give it an etcd of its own");
    }
    return scheme == AT_ETCD_SCHEME
               ? AT_OK
               : at_err_set(err, AT_UNSUPPORTED,
                            "the store in etcd was written by a newer Atoll, which counts "
                            "revisions differently: use that one");
}

enum at_rc at_etcd_unseal(const struct at_etcd *e, struct at_store_version **v, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf opened = {0};
    struct at_store_version *old = *v;
    if (old == NULL || old->key_len == 0) {
        return AT_OK;
    }
    struct at_str value = {at_store_version_value(old), old->value_len};
    const char *key = at_store_version_key(old);
    enum at_rc rc = at_store_unseal_value(e->store->seal, key, value, &opened, &value, err);
    if (rc != AT_OK || value.ptr == at_store_version_value(old)) {
        return rc == AT_OK ? rc : at_err_wrap(err, rc, "%s", key);
    }
    struct at_store_version *open = at_store_version_new(key, value.ptr, value.len);
    open->create_rev = old->create_rev;
    open->mod_rev = old->mod_rev;
    open->ttl_s = old->ttl_s;
    at_store_version_unref(old);
    *v = open;
    return AT_OK;
}

/* Sorted by key, as etcd gives them. */
static enum at_rc page_take(struct at_etcd *e, const json_t *answer, struct at_err *err)
{
    const json_t *kvs = json_object_get(answer, "kvs");
    size_t total = 0;
    size_t i;
    const json_t *kv;
    json_array_foreach((json_t *)kvs, i, kv)
    {
        struct at_store_version *v;
        uint64_t lease;
        enum at_rc rc = at_etcd_kv(kv, &v, &lease, err);
        if (rc != AT_OK) {
            return rc;
        }
        if (v->key_len == 0) {
            e->load_scheme = true;
            rc = foreign_key(kv, err);
        } else {
            total += v->key_len + v->value_len;
            at_etcd_version_in(e, v);
            rc = at_etcd_unseal(e, &v, err);
            if (rc != AT_OK && !e->loaded) {
                at_store_version_unref(v);
                return rc; /* at the start; later such values are shown as they are: unreadable */
            }
            rc = AT_OK;
            at_store_index_put(e->load_index, v);
            if (lease != 0) {
                at_store_lease_set(e->store, v, lease, -1);
            }
        }
        if (rc == AT_OK) { /* the next page begins with the key just above */
            bool scheme = v->key_len == 0;
            at_buf_clear(&e->page_from);
            rc = at_buf_append(&e->page_from, scheme ? AT_ETCD_SCHEME_KEY : at_store_version_key(v),
                               scheme ? sizeof AT_ETCD_SCHEME_KEY : v->key_len + 1);
        }
        at_store_version_unref(v);
        if (rc != AT_OK) {
            return rc;
        }
    }
    size_t n = json_array_size(kvs);
    size_t fit = total != 0 ? AT_STORE_ETCD_PAGE_BYTES * n / total : AT_STORE_ETCD_PAGE_KEYS_MAX;
    e->page_limit = fit < AT_STORE_ETCD_PAGE_KEYS_MIN   ? AT_STORE_ETCD_PAGE_KEYS_MIN
                    : fit > AT_STORE_ETCD_PAGE_KEYS_MAX ? AT_STORE_ETCD_PAGE_KEYS_MAX
                                                        : fit;
    return AT_OK;
}

static void page_done(void *ctx, enum at_rc rc, bool unsure, const json_t *answer,
                      const struct at_err *err)
{
    (void)unsure;
    struct at_etcd *e = ctx;
    if (e->closing) {
        return;
    }
    struct at_err own = {0};
    if (rc == AT_OK) {
        rc = page_take(e, answer, &own);
        err = &own;
    }
    if (rc != AT_OK) {
        load_failed(e, rc, err);
    } else if (json_is_true(json_object_get(answer, "more")) &&
               json_array_size(json_object_get(answer, "kvs")) != 0) {
        load_next(e);
    } else {
        load_done(e);
    }
}

/* At first with the history that all servers keep, so that clients can resume their watches at
 * this one; later not, for it could not be told what it did to the watches here. */
static void newest_done(void *ctx, enum at_rc rc, bool unsure, const json_t *answer,
                        const struct at_err *err)
{
    (void)unsure;
    struct at_etcd *e = ctx;
    if (e->closing) {
        return;
    }
    if (rc != AT_OK) {
        load_failed(e, rc, err);
        return;
    }
    int64_t rev = at_etcd_answer_rev(answer);
    e->load_newest = rev;
    e->load_rev = rev;
    if (!e->loaded) {
        e->load_rev = rev > AT_STORE_HISTORY_REVS_MIN ? rev - AT_STORE_HISTORY_REVS_MIN : 1;
    }
    load_reset(e);
    load_next(e);
}

static void load_next(struct at_etcd *e)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    e->load_idle = !at_etcd_may_call(e);
    if (e->load_idle) {
        return; /* the tick goes on */
    }
    bool newest = e->load_rev == 0;
    if (at_etcd_range_text(e->page_from.data, e->page_from.len, e->load_rev,
                           newest ? 0 : e->page_limit, &text) != AT_OK) {
        assert(false);
    }
    at_etcd_call(e, "/v3/kv/range", &text, newest ? newest_done : page_done, e);
}

/* --- what changes --- */

static void apply(struct at_store *store, struct at_store_version *v, bool deleted, uint64_t lease)
{
    const char *key = at_store_version_key(v);
    struct at_store_change change = {.rev = v->mod_rev};
    change.prev = at_store_version_ref(at_store_index_get(store->index, key));
    if (deleted && change.prev != NULL) {
        at_store_index_remove(store->index, key);
    } else {
        change.cur = v;
        if (!deleted) {
            at_store_index_put(store->index, v);
        }
    }
    if (lease != 0 && !deleted) {
        at_store_lease_set(store, v, lease, -1);
    } else {
        at_store_lease_drop(store, key);
    }
    at_store_history_push(&store->history, &change);
    at_store_version_unref(change.prev);
}

struct event {
    struct at_store_version *v; /* with etcd's revision */
    int64_t raw;
    uint64_t lease;
    bool deleted, scheme;
};

/* Until one that makes no sense. own: the versions. */
static size_t events_read(const struct at_etcd *etcd, const json_t *list, struct event *ret)
{
    size_t i;
    const json_t *one;
    json_array_foreach((json_t *)list, i, one)
    {
        struct event *e = &ret[i];
        if (at_etcd_event(one, &e->deleted, &e->v, &e->lease, NULL) != AT_OK) {
            return i;
        }
        if (!e->deleted) {
            (void)at_etcd_unseal(etcd, &e->v, NULL); /* else it is shown as it is: unreadable */
        }
        e->raw = e->v->mod_rev;
        e->scheme =
            e->v->key_len == 0 && at_etcd_scheme(json_object_get(one, "kv")) == AT_ETCD_SCHEME;
    }
    return i;
}

/* The changes of one of etcd's revisions. false: not as the servers of this scheme make them. */
static bool apply_revision(struct at_etcd *e, const struct event *events, size_t n)
{
    int64_t last = e->store->rev;
    if (events[0].raw != at_etcd_raw(e, last) + 1) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (events[i].v->key_len == 0) {
            if (!events[i].scheme && !events[i].deleted) {
                return false;
            }
            continue;
        }
        at_etcd_version_in(e, events[i].v);
        if (events[i].v->mod_rev <= last) {
            return false;
        }
        last = events[i].v->mod_rev;
    }
    for (size_t i = 0; i < n; i++) {
        if (events[i].v->key_len == 0) {
            e->scheme_told = events[i].scheme;
        } else {
            apply(e->store, events[i].v, events[i].deleted, events[i].lease);
        }
    }
    e->store->rev = at_etcd_end_in(e, events[0].raw);
    return true;
}

/* A revision of etcd's is never divided between two lines. false: something that the mirror cannot
 * show; it then ends with the last whole revision before. */
static bool apply_events(struct at_etcd *e, const json_t *list)
{
    size_t total = json_array_size(list);
    struct event *events = at_alloc(total * sizeof *events);
    size_t n = events_read(e, list, events);
    bool followed = n == total;
    size_t begin = 0;
    for (size_t end = 1; begin < n; end++) {
        if (end == n && n != total) {
            break; /* it may not be whole */
        }
        if (end < n && events[end].raw == events[begin].raw) {
            continue;
        }
        if (!apply_revision(e, events + begin, end - begin)) {
            followed = false;
            break;
        }
        begin = end;
    }
    for (size_t i = 0; i < n; i++) {
        at_store_version_unref(events[i].v);
    }
    at_free(events);
    return followed;
}

static void show(struct at_store *store)
{
    store->in_callbacks = true;
    at_store_pump(store);
    store->in_callbacks = false;
}

void at_etcd_forget(struct at_etcd *e, int64_t rev)
{
    show(e->store); /* a watch that was just begun has a right to what it asked for */
    at_store_history_trim(&e->store->history, rev);
    e->store->stats.compactions++;
}

static void changed(struct at_etcd *e)
{
    struct at_store *store = e->store;
    show(store);
    for (int64_t goal; (goal = at_store_compaction_due(store)) != 0;) {
        at_etcd_forget(e, goal);
    }
    at_store_age_arm(store);
    at_etcd_settle(e);
    at_etcd_readers_settle(e, at_etcd_now(e));
    at_etcd_kick(e);
}

/* false: the watch is over. */
static bool take_line(struct at_etcd *e, const char *text, size_t len)
{
    struct at_etcd_watch_line line;
    if (at_etcd_watch_line(text, len, &line, NULL) != AT_OK) {
        return false;
    }
    bool followed = line.compact_rev == 0;
    bool ended = line.canceled;
    if (line.events != NULL && json_array_size(line.events) != 0) {
        followed = followed && apply_events(e, line.events);
        changed(e);
    }
    at_etcd_watch_line_done(&line);
    if (!followed) {
        at_etcd_load(e);
    }
    return followed && !ended;
}

struct watch {
    struct at_etcd *e;
    at_http_call_id id;
    int status;
};

static void watch_head(void *ctx, const struct at_http_head *head)
{
    struct watch *w = ctx;
    w->status = head->status;
}

static void watch_stop(struct at_etcd *e)
{
    at_http_call_id id = e->watch_call;
    e->watch_call = 0;
    at_http_call_cancel(e->http, id);
}

static void watch_body(void *ctx, const char *data, size_t len)
{
    struct watch *w = ctx;
    struct at_etcd *e = w->e;
    at_http_call_id id = w->id; /* w goes with the call */
    e->heard_ns = at_etcd_now(e);
    if (e->watch_call != id || w->status != 200) {
        return;
    }
    if (at_buf_append(&e->line, data, len) != AT_OK) { /* too much at once: in pages then */
        at_etcd_load(e);
        return;
    }
    const char *end;
    size_t done = 0;
    size_t seen = e->line.len - len; /* no newline before this */
    while (e->watch_call == id &&
           (end = memchr(e->line.data + seen, '\n', e->line.len - seen)) != NULL) {
        size_t at = (size_t)(end - e->line.data);
        if (!take_line(e, e->line.data + done, at - done) && e->watch_call == id) {
            watch_stop(e);
        }
        done = seen = at + 1;
    }
    if (e->watch_call == id) {
        at_buf_consume(&e->line, done);
    }
}

static void watch_over(void *ctx, enum at_rc rc, bool bytes_sent, const struct at_err *err)
{
    (void)rc;
    (void)bytes_sent;
    (void)err;
    struct watch *w = ctx;
    struct at_etcd *e = w->e;
    if (e->watch_call == w->id) { /* not by us */
        e->watch_call = 0;
        if (!e->closing) {
            at_etcd_failed(e, e->watch_addr);
        }
    }
    at_free(w);
}

static void watch_start(struct at_etcd *e)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (!at_etcd_may_call(e)) {
        return; /* the tick goes on */
    }
    if (at_etcd_watch_text(at_etcd_raw(e, e->store->rev) + 1, &text) != AT_OK) {
        assert(false);
    }
    struct watch *w = AT_NEW(struct watch);
    w->e = e;
    at_buf_clear(&e->line);
    e->watch_addr = e->addr;
    struct at_http_call call = at_etcd_call_base(e, "/v3/watch", &text);
    call.first_byte_timeout_ns = AT_STORE_ETCD_ATTEMPT_NS;
    call.ctx = w;
    call.on_head = watch_head;
    call.on_body = watch_body;
    call.on_done = watch_over;
    w->id = e->watch_call = at_http_call(e->http, &call);
}

/* --- is the mirror up to date? --- */

static void reader_answer(struct at_etcd *e, struct at_etcd_reader *r, enum at_rc rc)
{
    struct at_err err = {0};
    if (rc != AT_OK) {
        at_err_set(&err, rc, "etcd does not answer, so that nobody knows what is stored now");
    }
    r->fn(r->ctx, rc, e->store->rev, NULL, rc != AT_OK ? &err : NULL);
    at_free(r);
}

void at_etcd_readers_settle(struct at_etcd *e, int64_t now)
{
    struct at_etcd_reader **at = &e->readers;
    while (*at != NULL) {
        struct at_etcd_reader *r = *at;
        bool shown = r->need_rev != 0 && r->need_rev <= e->store->rev;
        if (!shown && !e->closing && now - r->asked_ns < AT_STORE_ETCD_READ_NS) {
            at = &r->next;
            continue;
        }
        *at = r->next;
        if (*at == NULL) {
            e->readers_tail = at;
        }
        reader_answer(e, r, shown ? AT_OK : AT_UNAVAILABLE); /* may add more at the tail */
    }
}

static void probe_done(void *ctx, enum at_rc rc, bool unsure, const json_t *answer,
                       const struct at_err *err)
{
    (void)unsure;
    (void)err;
    struct at_etcd *e = ctx;
    e->probing = false;
    if (e->closing) {
        return;
    }
    int64_t rev = rc == AT_OK ? at_etcd_end_in(e, at_etcd_answer_rev(answer)) : 0;
    for (struct at_etcd_reader *r = e->readers; r != NULL; r = r->next) {
        if (r->asked && r->need_rev == 0) {
            r->need_rev = rev;
            r->asked = rev != 0;
        }
    }
    if (rev == 0) {
        return;
    }
    if (rev < e->probe_rev) { /* etcd was put back to an earlier state */
        at_etcd_load(e);
    }
    e->lag_rev = rev;
    at_etcd_readers_settle(e, at_etcd_now(e));
    if (e->readers != NULL) {
        at_etcd_kick(e);
    }
}

static void probe(struct at_etcd *e)
{
    if (e->probing || !at_etcd_may_call(e)) {
        return;
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (at_etcd_range_text("", 0, 0, 0, &text) != AT_OK) {
        assert(false);
    }
    for (struct at_etcd_reader *r = e->readers; r != NULL; r = r->next) {
        r->asked = r->asked || r->need_rev == 0;
    }
    e->probing = true;
    e->probe_rev = e->store->rev;
    e->probe_at_ns = at_etcd_now(e) + AT_STORE_ETCD_PROBE_NS;
    at_etcd_call(e, "/v3/kv/range", &text, probe_done, e);
}

void at_etcd_catch_up(struct at_etcd *e, at_store_write_fn *fn, void *ctx)
{
    struct at_etcd_reader *r = AT_NEW(struct at_etcd_reader);
    r->fn = fn;
    r->ctx = ctx;
    r->asked_ns = at_etcd_now(e);
    *e->readers_tail = r;
    e->readers_tail = &r->next;
    at_etcd_kick(e);
}

void at_etcd_readers_ask(struct at_etcd *e, bool paused)
{
    bool unasked = false;
    for (const struct at_etcd_reader *r = e->readers; r != NULL; r = r->next) {
        unasked = unasked || (!r->asked && r->need_rev == 0);
    }
    if (unasked && !paused) {
        probe(e);
    }
}

void at_etcd_mirror_tick(struct at_etcd *e, int64_t now)
{
    if (e->loading && e->load_idle) {
        load_next(e);
    }
    if (!e->loaded) {
        return;
    }
    if (!e->loading && e->watch_call == 0) {
        watch_start(e);
    }
    bool due = now >= e->probe_at_ns;
    if (due && e->watch_call != 0 && e->lag_rev > e->store->rev) {
        /* etcd had this already when it was asked a while ago: the watch is dead. */
        e->lag_rev = 0;
        watch_stop(e);
        at_etcd_failed(e, e->watch_addr);
    }
    if (due && !e->closing) {
        probe(e);
    }
}

/* --- forgetting --- */

static void compact_done(void *ctx, enum at_rc rc, bool unsure, const json_t *answer,
                         const struct at_err *err)
{
    (void)ctx; /* another server may have been first; if it failed, there is a next time */
    (void)rc;
    (void)unsure;
    (void)answer;
    (void)err;
}

int64_t at_etcd_whole_raw(const struct at_etcd *e, int64_t rev)
{
    const struct at_store_history *h = &e->store->history;
    size_t next = at_store_history_after(h, rev);
    int64_t raw = at_etcd_raw(e, rev);
    bool divided = next < h->n && at_etcd_raw(e, at_store_history_nth(h, next)->rev) == raw;
    return divided ? raw - 1 : raw;
}

/* Each server asks for what it forgot itself: all keep the same amount, so it does not matter who
 * is first. */
void at_etcd_age(struct at_etcd *e, int64_t goal)
{
    struct at_store *store = e->store;
    if (goal > store->history.compact_rev) {
        at_etcd_forget(e, goal);
    }
    if (store->history.compact_rev <= e->compacted_rev || !at_etcd_may_call(e)) {
        return;
    }
    e->compacted_rev = store->history.compact_rev;
    int64_t raw = at_etcd_whole_raw(e, e->compacted_rev);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (raw < 1) {
        return;
    }
    if (at_etcd_compact_text(raw, &text) != AT_OK) {
        assert(false);
    }
    at_etcd_call(e, "/v3/kv/compaction", &text, compact_done, e);
    at_etcd_kick(e);
}

void at_etcd_mirror_done(struct at_etcd *e)
{
    assert(e->readers == NULL);
    at_store_index_free(e->load_index);
    at_buf_done(&e->page_from);
    at_buf_done(&e->line);
}
