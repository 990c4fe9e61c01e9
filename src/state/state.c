#include "state/state.h"

#include "core/mem.h"
#include "state/state_priv.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROOT_FROM "/atoll/"
#define ROOT_TO "/atoll0"
#define NS_BYTES_MAX 256

/* Decoded into arena, before which there is room for an entry. NULL: it cannot be. */
static struct at_state_entry *decode_into(const struct at_model_kind *kind, const json_t *json,
                                          struct at_arena *arena)
{
    struct at_state_entry *entry = at_arena_alloc(arena, sizeof *entry + kind->struct_size);
    if (entry == NULL || at_model_decode(kind, json, arena, entry->object, NULL) != AT_OK ||
        at_state_entry_meta(entry)->name == NULL) {
        return NULL;
    }
    return entry;
}

/* NULL when it cannot be decoded: such an object (of a later or damaged version) is left out.
 * Decoded twice: the first time tells the size, so that the one that is kept wastes nothing. */
static struct at_state_entry *decode(struct at_state *state, const struct at_model_kind *kind,
                                     const char *value, size_t len, int64_t rev)
{
    AT_CLEANUP(at_cleanup_json) json_t *json = NULL;
    at_buf_clear(&state->trimmed);
    if (kind == &AT_KIND_INSTANCE && /* there may be very many */
        at_object_trim(value, len, &state->trimmed) == AT_OK) {
        value = state->trimmed.data;
        len = state->trimmed.len;
    }
    if (at_object_decode(value, len, rev, &json, NULL) != AT_OK) {
        return NULL;
    }
    at_arena_reset(state->scratch);
    if (decode_into(kind, json, state->scratch) == NULL) {
        return NULL;
    }
    size_t bytes = at_arena_used(state->scratch);
    void *place = at_alloc(bytes);
    at_arena_lend(state->lent, place, bytes);
    struct at_state_entry *entry = decode_into(kind, json, state->lent);
    assert(entry == place); /* it was possible just now */
    return entry;
}

static void notify(struct at_state *state, const struct at_model_kind *kind, const char *ns,
                   const char *name)
{
    for (size_t i = 0; i < state->n_listeners; i++) {
        state->listeners[i].changed(state->listeners[i].ctx, kind, ns, name);
    }
}

/* value NULL: deleted. */
static void take_in(struct at_state *state, const char *key, const char *value, size_t len,
                    int64_t rev, bool tell)
{
    const struct at_model_kind *kind;
    const char *ns_at;
    const char *name;
    size_t ns_len;
    char ns[NS_BYTES_MAX];
    if (at_state_key_parse(key, &kind, &ns_at, &ns_len, &name) != AT_OK || ns_len >= sizeof ns) {
        return;
    }
    snprintf(ns, sizeof ns, "%.*s", (int)ns_len, ns_at != NULL ? ns_at : "");
    const char *ns_or_null = ns_at != NULL ? ns : NULL;
    enum at_state_slot slot = at_state_slot_of(kind);
    if (slot < AT_STATE_SLOTS) {
        struct at_state_entry *entry = value != NULL ? decode(state, kind, value, len, rev) : NULL;
        state->undecodable += value != NULL && entry == NULL;
        at_state_kind_set(&state->kinds[slot], ns_or_null, name, entry);
    } else if (kind == &AT_KIND_EVENT && value != NULL) {
        at_state_sweep_arm(state);
    }
    if (tell) {
        notify(state, kind, ns_or_null, name);
    }
}

static void snapshot_outdated(struct at_state *state)
{
    if (state->newest != NULL) {
        at_snapshot_unref(&state->newest->shown);
        state->newest = NULL;
    }
}

static void relist(void *ctx);

static void on_events(void *ctx, enum at_rc rc, const struct at_store_event *events, size_t n)
{
    struct at_state *state = ctx;
    if (rc != AT_OK) { /* history was lost before we saw it: see what is there now */
        assert(rc == AT_COMPACTED);
        state->watch = 0;
        state->relist_timer = at_loop_timer(state->loop, 0, relist, state);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const struct at_store_event *e = &events[i];
        snapshot_outdated(state);
        state->rev = e->rev;
        take_in(state, e->cur.key, e->deleted ? NULL : e->cur.value, e->cur.value_len, e->rev,
                true);
    }
}

static void on_first_list(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *kvs,
                          size_t n, bool more, const struct at_err *err)
{
    struct at_state *state = ctx;
    (void)err;
    assert(rc == AT_OK);
    assert(!more);
    for (size_t i = 0; i < n; i++) {
        take_in(state, kvs[i].key, kvs[i].value, kvs[i].value_len, kvs[i].mod_rev, false);
    }
    state->rev = rev;
}

struct relisting {
    struct at_state *state;
    const struct at_store_kv *kvs;
    size_t n;
};

static int kv_compare(const void *key, const void *kv)
{
    return strcmp(key, ((const struct at_store_kv *)kv)->key);
}

/* What is in the index but not in the list is gone. */
static void drop_missing(const struct relisting *l)
{
    for (size_t slot = 0; slot < AT_STATE_SLOTS; slot++) {
        struct at_state_list *list = at_state_list_ref(at_state_kind_list(&l->state->kinds[slot]));
        const struct at_model_kind *kind = at_state_slot_kind((enum at_state_slot)slot);
        for (size_t i = 0; i < list->n; i++) {
            const struct at_meta *meta = list->objects[i];
            char key[AT_STORE_KEY_BYTES_MAX];
            at_state_key(kind, meta->ns, meta->name, key, sizeof key);
            if (bsearch(key, l->kvs, l->n, sizeof l->kvs[0], kv_compare) == NULL) {
                take_in(l->state, key, NULL, 0, 0, true);
            }
        }
        at_state_list_unref(list);
    }
}

static void on_relist(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *kvs,
                      size_t n, bool more, const struct at_err *err)
{
    (void)err;
    struct at_state *state = ctx;
    assert(rc == AT_OK);
    assert(!more);
    struct relisting l = {state, kvs, n};
    snapshot_outdated(state);
    state->rev = rev;
    drop_missing(&l);
    for (size_t i = 0; i < n; i++) {
        take_in(state, kvs[i].key, kvs[i].value, kvs[i].value_len, kvs[i].mod_rev, true);
    }
}

static void relist(void *ctx)
{
    struct at_state *state = ctx;
    state->relist_timer = 0;
    at_store_range(state->store, ROOT_FROM, ROOT_TO, 0, 0, on_relist, state);
    if (at_store_watch(state->store, ROOT_FROM, ROOT_TO, state->rev, on_events, state,
                       &state->watch, NULL) != AT_OK) {
        assert(false); /* it begins where the list was */
    }
}

static void tell_ready(void *ctx)
{
    struct at_state *state = ctx;
    state->ready_timer = 0;
    state->ready(state->ready_ctx);
}

enum at_rc at_state_new(struct at_loop *loop, struct at_store *store, void (*ready)(void *ctx),
                        void *ctx, struct at_state **ret, struct at_err *err)
{
    struct at_state *state = AT_NEW(struct at_state);
    state->loop = loop;
    state->store = store;
    state->ready = ready;
    state->ready_ctx = ctx;
    state->scratch = at_arena_new(AT_STATE_OBJECT_BYTES_MAX);
    state->lent = at_arena_new_lent();
    state->heartbeats = at_map_new();
    state->events = at_map_new();
    at_store_range(store, ROOT_FROM, ROOT_TO, 0, 0, on_first_list, state);
    assert(state->rev > 0); /* ranges of now are answered at once */
    enum at_rc rc =
        at_store_watch(store, ROOT_FROM, ROOT_TO, state->rev, on_events, state, &state->watch, err);
    if (rc != AT_OK) {
        at_state_free(state);
        return at_err_wrap(err, rc, "state");
    }
    if (ready != NULL) {
        state->ready_timer = at_loop_timer(loop, 0, tell_ready, state);
    }
    *ret = state;
    return AT_OK;
}

struct at_store *at_state_store(struct at_state *state)
{
    return state->store;
}

static void heartbeats_free(struct at_map *heartbeats)
{
    void *value;
    for (size_t it = 0; at_map_next(heartbeats, &it, NULL, &value);) {
        at_free(value);
    }
    at_map_free(heartbeats);
}

void at_state_free(struct at_state *state)
{
    if (state == NULL) {
        return;
    }
    at_store_unwatch(state->store, state->watch);
    at_loop_timer_cancel(state->loop, state->ready_timer);
    at_loop_timer_cancel(state->loop, state->relist_timer);
    at_state_events_done(state);
    snapshot_outdated(state);
    for (size_t k = 0; k < AT_STATE_SLOTS; k++) {
        at_state_kind_done(&state->kinds[k]);
    }
    at_arena_free(state->scratch);
    at_arena_free(state->lent);
    at_buf_done(&state->trimmed);
    at_buf_done(&state->entry_key);
    at_buf_done(&state->entry_text);
    heartbeats_free(state->heartbeats);
    at_free(state);
}

void at_state_listen(struct at_state *state, at_state_changed_fn *changed, void *ctx)
{
    assert(state->n_listeners < AT_STATE_LISTENERS_MAX);
    state->listeners[state->n_listeners++] = (struct at_state_listener){changed, ctx};
}

void at_state_unlisten(struct at_state *state, at_state_changed_fn *changed, void *ctx)
{
    for (size_t i = 0; i < state->n_listeners; i++) {
        if (state->listeners[i].changed == changed && state->listeners[i].ctx == ctx) {
            state->listeners[i] = state->listeners[--state->n_listeners];
            return;
        }
    }
}

const struct at_snapshot *at_state_snapshot(struct at_state *state)
{
    if (state->newest == NULL) {
        state->newest = at_snapshot_box_new(state->kinds, state->rev);
    }
    state->newest->refs++;
    return &state->newest->shown;
}

struct reading {
    enum at_rc rc;
    json_t *object;
    int64_t rev;
    struct at_err *err;
};

static void on_read(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *kvs, size_t n,
                    bool more, const struct at_err *err)
{
    struct reading *r = ctx;
    (void)rev;
    (void)more;
    (void)err;
    assert(rc == AT_OK);
    if (n == 0) {
        r->rc = AT_NOT_FOUND;
        return;
    }
    r->rev = kvs[0].mod_rev;
    r->rc = at_object_decode(kvs[0].value, kvs[0].value_len, r->rev, &r->object, r->err);
}

enum at_rc at_state_read(const struct at_state *state, const char *key, json_t **ret,
                         int64_t *ret_rev, struct at_err *err)
{
    struct reading r = {.rc = AT_INTERNAL, .err = err};
    at_store_range(state->store, key, NULL, 1, 0, on_read, &r);
    assert(r.rc != AT_INTERNAL);
    if (r.rc == AT_NOT_FOUND) {
        return at_err_set(err, AT_NOT_FOUND, "%s is not there", key);
    }
    if (r.rc == AT_OK) {
        *ret = r.object;
        *ret_rev = r.rev;
    }
    return r.rc;
}

json_t *at_state_object(const struct at_state *state, const struct at_model_kind *kind,
                        const char *ns, const char *name)
{
    char key[AT_STORE_KEY_BYTES_MAX];
    at_state_key(kind, ns, name, key, sizeof key);
    json_t *object = NULL;
    int64_t rev;
    return at_state_read(state, key, &object, &rev, NULL) == AT_OK ? object : NULL;
}

static bool mentions(const struct at_store_kv *kv, const char *const *texts)
{
    for (size_t i = 0; texts[i] != NULL; i++) {
        if (memmem(kv->value, kv->value_len, texts[i], strlen(texts[i])) != NULL) {
            return true;
        }
    }
    return false;
}

struct mention {
    const char *const *texts;
    bool there, found;
};

static void on_mention(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *kvs,
                       size_t n, bool more, const struct at_err *err)
{
    (void)rev;
    (void)more;
    (void)err;
    struct mention *m = ctx;
    m->there = rc == AT_OK && n > 0;
    m->found = m->there && mentions(&kvs[0], m->texts);
}

bool at_state_mentions(const struct at_state *state, const struct at_model_kind *kind,
                       const char *ns, const char *name, const char *const *texts, bool *ret_there)
{
    char key[AT_STORE_KEY_BYTES_MAX];
    struct mention m = {.texts = texts};
    at_state_key(kind, ns, name, key, sizeof key);
    at_store_range(state->store, key, NULL, 1, 0, on_mention, &m);
    *ret_there = m.there;
    return m.found;
}

/* A page is decoded first and told afterwards: what is told may write, and that moves what a range
 * lends. In pages, so that a kind with very many objects does not need them all in memory. */
struct walk {
    const char *const *texts; /* NULL: all objects */
    json_t *objects[AT_STATE_EACH_PAGE];
    size_t n;
    char from[AT_STORE_KEY_BYTES_MAX + 1];
    bool more;
};

static void on_walk(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *kvs, size_t n,
                    bool more, const struct at_err *err)
{
    struct walk *w = ctx;
    (void)rev;
    (void)err;
    assert(rc == AT_OK); /* ranges of now are answered at once */
    assert(n <= AT_STATE_EACH_PAGE);
    w->n = 0;
    w->more = more;
    for (size_t i = 0; i < n; i++) {
        json_t *object = NULL;
        if ((w->texts == NULL || mentions(&kvs[i], w->texts)) &&
            at_object_decode(kvs[i].value, kvs[i].value_len, kvs[i].mod_rev, &object, NULL) ==
                AT_OK) {
            w->objects[w->n++] = object;
        }
    }
    if (n != 0) {
        snprintf(w->from, sizeof w->from, "%s\x01", kvs[n - 1].key);
    }
}

static void each(const struct at_state *state, const struct at_model_kind *kind, const char *ns,
                 const char *const *texts, at_state_each_fn *fn, void *ctx)
{
    char to[AT_STORE_KEY_BYTES_MAX];
    struct walk *w = AT_NEW(struct walk);
    w->texts = texts;
    at_state_key(kind, ns, NULL, w->from, sizeof w->from);
    at_store_prefix_end(w->from, to, sizeof to);
    do {
        at_store_range(state->store, w->from, to, AT_STATE_EACH_PAGE, 0, on_walk, w);
        for (size_t i = 0; i < w->n; i++) {
            if (at_object_name(w->objects[i]) != NULL) {
                fn(ctx, at_object_ns(w->objects[i]), at_object_name(w->objects[i]), w->objects[i]);
            }
            json_decref(w->objects[i]);
        }
    } while (w->more);
    at_free(w);
}

void at_state_each(const struct at_state *state, const struct at_model_kind *kind, const char *ns,
                   at_state_each_fn *fn, void *ctx)
{
    each(state, kind, ns, NULL, fn, ctx);
}

void at_state_each_mentioning(const struct at_state *state, const struct at_model_kind *kind,
                              const char *const *texts, at_state_each_fn *fn, void *ctx)
{
    each(state, kind, NULL, texts, fn, ctx);
}

static struct at_state_beat *beat_of(struct at_state *state, const char *node)
{
    struct at_state_beat *beat = at_map_get(state->heartbeats, node);
    if (beat == NULL) {
        beat = AT_NEW(struct at_state_beat);
        at_map_put(state->heartbeats, node, beat);
    }
    return beat;
}

void at_state_heartbeat(struct at_state *state, const char *node, int64_t now_mono_ns)
{
    *beat_of(state, node) = (struct at_state_beat){.last = now_mono_ns};
}

int64_t at_state_heartbeat_last(const struct at_state *state, const char *node)
{
    const struct at_state_beat *beat = at_map_get(state->heartbeats, node);
    return beat != NULL ? beat->last : 0;
}

void at_state_heartbeat_relayed(struct at_state *state, const char *node, int64_t at_mono_ns,
                                int64_t heard_ns)
{
    struct at_state_beat *beat = beat_of(state, node);
    if (at_mono_ns >= beat->last) {
        *beat = (struct at_state_beat){.last = at_mono_ns, .heard = heard_ns};
    } else if (beat->heard != 0) {
        beat->heard = heard_ns;
    }
}

int64_t at_state_heartbeat_heard(const struct at_state *state, const char *node,
                                 int64_t now_mono_ns)
{
    const struct at_state_beat *beat = at_map_get(state->heartbeats, node);
    if (beat == NULL) {
        return 0;
    }
    return beat->heard != 0 ? beat->heard : now_mono_ns;
}

void at_state_heartbeat_each(const struct at_state *state, at_state_beat_fn *fn, void *ctx)
{
    const char *node;
    void *value;
    for (size_t it = 0; at_map_next(state->heartbeats, &it, &node, &value);) {
        const struct at_state_beat *beat = value;
        if (beat->heard == 0) {
            fn(ctx, node, beat->last);
        }
    }
}
