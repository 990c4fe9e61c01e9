/* Watchers: each knows the newest revision it was given, and is brought up to the store's from the
 * history. There is no queue per watcher, so none can be too slow. */
#include "core/mem.h"
#include "store/store_priv.h"

#include <assert.h>
#include <string.h>

static at_store_watch_id make_id(struct at_store *store, size_t slot)
{
    if (++store->watch_generation == 0) {
        store->watch_generation = 1;
    }
    return (uint64_t)store->watch_generation << 32 | (slot + 1);
}

static void pump_later(void *ctx)
{
    struct at_store *store = ctx;
    store->pump_timer = 0;
    at_store_pump(store);
}

enum at_rc at_store_watch(struct at_store *store, const char *from, const char *to,
                          int64_t after_rev, at_store_watch_fn *fn, void *ctx,
                          at_store_watch_id *ret, struct at_err *err)
{
    assert(from != NULL);
    if (after_rev < store->history.compact_rev) {
        return at_err_set(err, AT_COMPACTED,
                          "changes after revision %lld are forgotten, the oldest kept is %lld",
                          (long long)after_rev, (long long)store->history.compact_rev);
    }
    if (after_rev > store->rev) {
        return at_err_set(err, AT_TIMEOUT, "revision %lld lies in the future, the newest is %lld",
                          (long long)after_rev, (long long)store->rev);
    }
    size_t slot = 0;
    while (slot < store->n_watchers && store->watchers[slot].id != 0) {
        slot++;
    }
    if (slot == store->n_watchers) {
        store->watchers = at_realloc(store->watchers, (slot + 1) * sizeof(store->watchers[0]));
        store->n_watchers++;
    }
    store->watchers[slot] = (struct at_store_watcher){.id = make_id(store, slot),
                                                      .from = at_strdup(from),
                                                      .to = at_strdup(to),
                                                      .sent_rev = after_rev,
                                                      .fn = fn,
                                                      .ctx = ctx};
    store->stats.watchers++;
    *ret = store->watchers[slot].id;
    if (after_rev < store->rev && store->pump_timer == 0) {
        store->pump_timer = at_loop_timer(store->loop, 0, pump_later, store);
    }
    return AT_OK;
}

static struct at_store_watcher *find(struct at_store *store, at_store_watch_id id)
{
    size_t slot = (size_t)(id & UINT32_MAX);
    if (slot == 0 || slot > store->n_watchers || store->watchers[slot - 1].id != id) {
        return NULL;
    }
    return &store->watchers[slot - 1];
}

void at_store_unwatch(struct at_store *store, at_store_watch_id id)
{
    struct at_store_watcher *w = find(store, id);
    if (w != NULL) {
        at_free(w->from);
        at_free(w->to);
        memset(w, 0, sizeof *w);
        store->stats.watchers--;
    }
}

int64_t at_store_watch_rev(const struct at_store *store, at_store_watch_id id)
{
    const struct at_store_watcher *w = find((struct at_store *)store, id);
    return w != NULL ? w->sent_rev : 0;
}

static bool wants(const struct at_store_watcher *w, const char *key)
{
    int order = strcmp(key, w->from);
    return w->to != NULL ? order >= 0 && strcmp(key, w->to) < 0 : order == 0;
}

/* *prev is where the event's earlier value is put. */
static struct at_store_event event_of(const struct at_store_change *change,
                                      struct at_store_kv *prev)
{
    struct at_store_event event = {.rev = change->rev, .deleted = change->cur == NULL};
    if (change->prev != NULL) {
        *prev = at_store_version_kv(change->prev);
        event.prev = prev;
    }
    if (change->cur != NULL) {
        event.cur = at_store_version_kv(change->cur);
    } else {
        event.cur = (struct at_store_kv){
            .key = prev->key, .value = "", .create_rev = prev->create_rev, .mod_rev = change->rev};
    }
    return event;
}

/* One call's worth for the watcher in slot. The watcher may go, and others come, in its callback.
 */
static void pump_some(struct at_store *store, size_t slot)
{
    struct at_store_event events[AT_STORE_WATCH_EVENTS_MAX];
    struct at_store_kv prevs[AT_STORE_WATCH_EVENTS_MAX];
    size_t n = 0;
    struct at_store_watcher *w = &store->watchers[slot];
    const struct at_store_history *h = &store->history;
    assert(w->sent_rev >= h->compact_rev);
    size_t i = at_store_history_after(h, w->sent_rev);
    while (i < h->n && n < AT_STORE_WATCH_EVENTS_MAX) {
        const struct at_store_change *change = at_store_history_nth(h, i++);
        w->sent_rev = change->rev;
        if (wants(w, at_store_change_key(change))) {
            events[n] = event_of(change, &prevs[n]);
            n++;
        }
    }
    if (i == h->n) {
        w->sent_rev = store->rev;
    }
    if (n != 0) {
        w->fn(w->ctx, AT_OK, events, n);
    }
}

void at_store_pump(struct at_store *store)
{
    assert(!store->pumping);
    store->pumping = true;
    /* Watchers that a callback adds may take a slot already passed: go round until all are done. */
    bool again = true;
    while (again) {
        again = false;
        for (size_t slot = 0; slot < store->n_watchers; slot++) {
            while (store->watchers[slot].id != 0 && store->watchers[slot].sent_rev < store->rev) {
                pump_some(store, slot);
                again = true;
            }
        }
    }
    store->pumping = false;
}

void at_store_watchers_end(struct at_store *store, enum at_rc rc)
{
    uint32_t newest = store->watch_generation; /* those added meanwhile stay */
    store->in_callbacks = true;
    for (size_t slot = 0; slot < store->n_watchers; slot++) {
        struct at_store_watcher w = store->watchers[slot];
        if (w.id != 0 && (uint32_t)(w.id >> 32) <= newest) {
            at_store_unwatch(store, w.id);
            w.fn(w.ctx, rc, NULL, 0);
        }
    }
    store->in_callbacks = false;
}

void at_store_watchers_done(struct at_store *store)
{
    for (size_t slot = 0; slot < store->n_watchers; slot++) {
        at_store_unwatch(store, store->watchers[slot].id);
    }
    at_free(store->watchers);
    store->watchers = NULL;
    store->n_watchers = 0;
    at_loop_timer_cancel(store->loop, store->pump_timer);
}
