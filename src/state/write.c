/* Planned writes: decided here with the rules of object.h, then compare-and-swap in the store. */
#include "core/mem.h"
#include "core/str.h"
#include "state/owners.h"
#include "state/quota.h"
#include "state/state_priv.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

struct written {
    at_state_written_fn *done;
    void *ctx;
    struct at_quota_pass *pass;
    /* Of a creation, until its quota has answered. */
    struct at_state *state;
    const struct at_model_kind *kind;
    json_t *object;
    char *key;
    const char *guard_key;
    int64_t guard_rev;
};

static void written_free(struct written *w)
{
    at_quota_release(w->pass);
    json_decref(w->object);
    at_free(w->key);
    at_free(w);
}

static void answer(at_state_written_fn *done, void *ctx, enum at_rc rc, int64_t rev,
                   const struct at_err *err)
{
    if (done != NULL) {
        done(ctx, rc, rev, rc != AT_OK ? err : NULL);
    }
}

static void on_written(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *current,
                       const struct at_err *err)
{
    struct written *w = ctx;
    (void)current;
    at_quota_release(w->pass);
    w->pass = NULL;
    answer(w->done, w->ctx, rc, rev, err);
    written_free(w);
}

static struct written *written_new(at_state_written_fn *done, void *ctx)
{
    struct written *w = AT_NEW(struct written);
    *w = (struct written){.done = done, .ctx = ctx};
    return w;
}

/* What a controller gets wrong is refused here, before it is stored. */
static enum at_rc validate(const struct at_model_kind *kind, json_t *object, const json_t *old,
                           struct at_err *err)
{
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(AT_STATE_OBJECT_BYTES_MAX);
    struct at_model_report report = {0};
    return at_model_validate(kind, object, old, AT_MODEL_UNKNOWN_REFUSE, arena, &report, err);
}

void at_state_guard(struct at_state *state, const char *guard_key, int64_t guard_rev)
{
    state->guard_key = guard_key;
    state->guard_rev = guard_rev;
}

uint32_t at_state_ttl_s(const struct at_model_kind *kind)
{
    return kind == &AT_KIND_EVENT            ? AT_STATE_EVENT_TTL_NS / AT_NS_PER_S
           : kind == &AT_KIND_GATEWAY_REPORT ? AT_STATE_REPORT_TTL_NS / AT_NS_PER_S
                                             : 0;
}

/* kind NULL: a deletion. */
static struct at_store_write write_of(const struct at_state *state,
                                      const struct at_model_kind *kind, const char *key,
                                      int64_t expect, struct written *w)
{
    return (struct at_store_write){
        .key = key,
        .deletes = kind == NULL,
        .expect = expect,
        .ttl_s = kind != NULL ? at_state_ttl_s(kind) : 0,
        .guard_key = state->guard_key,
        .guard_rev = state->guard_rev,
        .fn = on_written,
        .ctx = w,
    };
}

static enum at_rc put(struct at_state *state, const struct at_model_kind *kind, const char *key,
                      const json_t *object, int64_t expect, struct written *w, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = at_object_encode(object, &text, err);
    if (rc == AT_OK) {
        struct at_store_write write = write_of(state, kind, key, expect, w);
        write.value = text.data;
        write.len = text.len;
        at_quota_guard(w->pass, &write);
        at_store_write(state->store, &write);
    }
    return rc;
}

static void create_allowed(void *ctx, enum at_rc rc, struct at_quota_pass *pass,
                           const struct at_err *err)
{
    struct written *w = ctx;
    struct at_err why = {0};
    w->pass = pass;
    if (rc == AT_OK) {
        /* It may be later, under another pass of the same leader, or none: the guard that held when
         * this was planned is the one that counts. */
        const char *guard_key = w->state->guard_key;
        int64_t guard_rev = w->state->guard_rev;
        at_state_guard(w->state, w->guard_key, w->guard_rev);
        rc = put(w->state, w->kind, w->key, w->object, 0, w, &why);
        at_state_guard(w->state, guard_key, guard_rev);
        err = &why;
    }
    if (rc != AT_OK) {
        answer(w->done, w->ctx, rc, 0, err);
        written_free(w);
    }
}

static enum at_rc create(struct at_state *state, const struct at_model_kind *kind, json_t *object,
                         struct written *w, struct at_err *err)
{
    const struct at_sys *sys = at_loop_sys(state->loop);
    json_object_set_new(object, "apiVersion", json_string(at_model_api_version(kind)));
    json_object_set_new(object, "kind", json_string(kind->kind));
    at_object_generate_name(sys, object);
    const char *ns = at_object_ns(object);
    if (kind->namespaced && (ns == NULL || ns[0] == '\0')) {
        return at_err_set_field(err, AT_INVALID, "metadata.namespace", "a namespace is needed");
    }
    if (kind == &AT_KIND_INSTANCE) {
        at_limit_range_default(state, ns, object);
    }
    enum at_rc rc = at_model_default(kind, object, err);
    if (rc == AT_OK) {
        rc = validate(kind, object, NULL, err);
    }
    if (rc == AT_OK && kind == &AT_KIND_INSTANCE) {
        rc = at_limit_range_check(state, ns, object, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    char uid[AT_OBJECT_UID_BYTES];
    at_object_uid(sys, uid);
    AT_CLEANUP(at_cleanup_free) char *room = at_strdup(kind->namespaced ? ns : NULL);
    at_object_stamp_create(kind, object, room, uid, at_sys_wall_ns(sys), AT_OBJECT_ALL);
    char key[AT_STORE_KEY_BYTES_MAX];
    at_state_key(kind, room, at_object_name(object), key, sizeof key);
    if (!kind->namespaced) {
        return put(state, kind, key, object, 0, w, err);
    }
    w->state = state;
    w->kind = kind;
    w->object = json_incref(object);
    w->key = at_strdup(key);
    w->guard_key = state->guard_key;
    w->guard_rev = state->guard_rev;
    at_quota_ask(state,
                 &(struct at_quota_ask){.kind = kind, .ns = room, .key = key, .object = object},
                 create_allowed, w);
    return AT_OK; /* whoever asked is answered by then, or later */
}

void at_state_create(struct at_state *state, const struct at_model_kind *kind, json_t *object_take,
                     at_state_written_fn *done, void *ctx)
{
    struct at_err err = {0};
    struct written *w = written_new(done, ctx);
    enum at_rc rc = create(state, kind, object_take, w, &err);
    json_decref(object_take);
    if (rc != AT_OK) {
        written_free(w);
        answer(done, ctx, rc, 0, &err);
    }
}

/* Carry out an outcome. *ret_sent: the store answers w; otherwise nothing was to be done. */
static enum at_rc carry_out(struct at_state *state, const struct at_model_kind *kind,
                            enum at_object_outcome outcome, const char *key, const json_t *object,
                            int64_t rev, struct written *w, bool *ret_sent, struct at_err *err)
{
    *ret_sent = outcome != AT_OBJECT_UNCHANGED;
    if (outcome == AT_OBJECT_REMOVE) {
        struct at_store_write write = write_of(state, NULL, key, rev, w);
        at_store_write(state->store, &write);
        return AT_OK;
    }
    return outcome == AT_OBJECT_WRITE ? put(state, kind, key, object, rev, w, err) : AT_OK;
}

/* A controller that changes what is wanted of a tracked object (replicas, say) owns that; what
 * controllers observe is nobody's. */
static void owners_update(struct at_state *state, const struct at_model_kind *kind,
                          const json_t *old, json_t *object)
{
    const json_t *base = at_json_at(old, "metadata.managedFields");
    if (json_array_size(base) == 0 || at_json_int_at(old, "metadata.generation", 0) ==
                                          at_json_int_at(object, "metadata.generation", 0)) {
        return;
    }
    struct at_owner who = {.manager = AT_OWNERS_CONTROLLERS,
                           .subresource = "",
                           .part = AT_OBJECT_MAIN,
                           .now_wall_ns = at_sys_wall_ns(at_loop_sys(state->loop))};
    AT_CLEANUP(at_cleanup_json)
    json_t *entries = at_owners_of_write(kind, base, old, object, &who);
    at_owners_put(object, entries);
}

static enum at_rc update(struct at_state *state, const struct at_model_kind *kind, const char *key,
                         at_state_change_fn *change, void *change_ctx, struct written *w,
                         int64_t *ret_rev, bool *ret_sent, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *object = NULL;
    enum at_rc rc = at_state_read(state, key, &object, ret_rev, err);
    if (rc != AT_OK) {
        return rc;
    }
    AT_CLEANUP(at_cleanup_json) json_t *old = json_deep_copy(object);
    at_object_strip_rv(old);
    if (!change(change_ctx, object)) {
        *ret_sent = false;
        return AT_OK;
    }
    enum at_object_outcome outcome = AT_OBJECT_UNCHANGED;
    rc = at_model_default(kind, object, err);
    if (rc == AT_OK) {
        rc = at_object_prepare_update(kind, old, object, AT_OBJECT_ALL, &outcome, err);
    }
    if (rc == AT_OK && outcome == AT_OBJECT_WRITE) {
        rc = validate(kind, object, old, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    if (outcome == AT_OBJECT_WRITE) {
        owners_update(state, kind, old, object);
    }
    return carry_out(state, kind, outcome, key, object, *ret_rev, w, ret_sent, err);
}

void at_state_update(struct at_state *state, const struct at_model_kind *kind, const char *ns,
                     const char *name, at_state_change_fn *change, void *change_ctx,
                     at_state_written_fn *done, void *ctx)
{
    struct at_err err = {0};
    char key[AT_STORE_KEY_BYTES_MAX];
    at_state_key(kind, ns, name, key, sizeof key);
    struct written *w = written_new(done, ctx);
    int64_t rev = 0;
    bool sent = false;
    enum at_rc rc = update(state, kind, key, change, change_ctx, w, &rev, &sent, &err);
    if (rc != AT_OK || !sent) {
        written_free(w);
        answer(done, ctx, rc, rc == AT_OK ? rev : 0, &err);
    }
}

/* --- by editing the text --- */

struct text_edit {
    struct at_state *state;
    const struct at_model_kind *kind;
    at_state_edit_fn *edit;
    void *edit_ctx;
    struct at_buf text; /* the object afterwards */
    int64_t rev;        /* that it was made of; 0: it was not made */
};

/* Of metadata and spec, as edits say, or as they are stored, for the comparison of owned fields. */
static json_t *part_json(const char *stored, size_t len, const struct at_object_edit *edits,
                         size_t n, bool after)
{
    json_t *object = json_pack("{s:{},s:{}}", "metadata", "spec");
    for (size_t k = 0; k < n; k++) {
        struct at_str text =
            after ? edits[k].text : at_object_member(stored, len, edits[k].part, edits[k].name);
        json_t *part = json_object_get(object, edits[k].part);
        json_t *value = NULL;
        if (part != NULL && text.ptr != NULL &&
            at_json_parse(text.ptr, text.len, &value, NULL) == AT_OK) {
            json_object_set_new(part, edits[k].name, value);
        }
    }
    return object;
}

/* False: an entry of ours, or of whoever owns one of these fields, would have to be changed. */
static bool only_adds_an_owner(struct at_str list, const struct at_object_edit *edits, size_t n)
{
    if (memmem(list.ptr, list.len, AT_OWNERS_CONTROLLERS, strlen(AT_OWNERS_CONTROLLERS)) != NULL) {
        return false;
    }
    for (size_t k = 0; k < n; k++) {
        if (memmem(list.ptr, list.len, edits[k].name, strlen(edits[k].name)) != NULL &&
            !at_streq(edits[k].part, "status")) {
            return false;
        }
    }
    static const char MANAGER[] = "\"manager\":";
    size_t entries = 0;
    const char *at = list.ptr, *end = list.ptr + list.len;
    while ((at = memmem(at, (size_t)(end - at), MANAGER, sizeof MANAGER - 1)) != NULL) {
        entries++;
        at += sizeof MANAGER - 1;
    }
    return entries < AT_OWNERS_UPDATES_MAX; /* else old ones become one */
}

/* What the entry follows from where nothing of it was there before: which fields, of lists and
 * objects what is in them, and when. False: something was there. */
static bool entry_key(const struct text_edit *t, const struct at_store_kv *kv,
                      const struct at_object_edit *edits, size_t n, int64_t now_wall_ns,
                      struct at_buf *out)
{
    bool ok = at_buf_printf(out, "%s %lld", t->kind->kind,
                            (long long)(now_wall_ns / AT_NS_PER_S)) == AT_OK;
    for (size_t k = 0; k < n && ok; k++) {
        const struct at_object_edit *e = &edits[k];
        if (at_streq(e->part, "status")) {
            continue;
        }
        bool inner = e->text.ptr != NULL && (e->text.ptr[0] == '[' || e->text.ptr[0] == '{');
        ok = at_object_member(kv->value, kv->value_len, e->part, e->name).ptr == NULL &&
             at_buf_printf(out, " %s.%s=%d%.*s", e->part, e->name, e->text.ptr != NULL,
                           inner ? (int)e->text.len : 0, inner ? e->text.ptr : "") == AT_OK;
    }
    return ok;
}

/* Our entry as text, empty when it has no fields. Most bindings of a second have the same. */
static const struct at_buf *entry_text(const struct text_edit *t, const struct at_store_kv *kv,
                                       const struct at_object_edit *edits, size_t n)
{
    struct at_state *state = t->state;
    struct at_owner who = {.manager = AT_OWNERS_CONTROLLERS,
                           .subresource = "",
                           .part = AT_OBJECT_MAIN,
                           .now_wall_ns = at_sys_wall_ns(at_loop_sys(state->loop))};
    AT_CLEANUP(at_cleanup_buf) struct at_buf key = {0};
    bool known = entry_key(t, kv, edits, n, who.now_wall_ns, &key);
    if (known && key.len == state->entry_key.len &&
        memcmp(key.data, state->entry_key.data, key.len) == 0) {
        return &state->entry_text;
    }
    at_buf_clear(&state->entry_key);
    at_buf_clear(&state->entry_text);
    AT_CLEANUP(at_cleanup_json)
    json_t *old = part_json(kv->value, kv->value_len, edits, n, false);
    AT_CLEANUP(at_cleanup_json)
    json_t *new = part_json(kv->value, kv->value_len, edits, n, true);
    AT_CLEANUP(at_cleanup_json) json_t *entry = at_owners_entry(t->kind, old, new, &who);
    bool ok = entry == NULL || at_json_dump(entry, &state->entry_text) == AT_OK;
    if (!ok) {
        at_buf_clear(&state->entry_text);
    }
    if (ok && known && at_buf_append(&state->entry_key, key.data, key.len) != AT_OK) {
        at_buf_clear(&state->entry_key);
    }
    return &state->entry_text;
}

/* managedFields with our entry, appended to out, when the object is tracked. False: not this way.
 */
static bool owners_text(const struct text_edit *t, const struct at_store_kv *kv,
                        const struct at_object_edit *edits, size_t n, struct at_buf *out)
{
    struct at_str list = at_object_member(kv->value, kv->value_len, "metadata", "managedFields");
    if (list.ptr == NULL || list.len <= strlen("[]")) {
        return true;
    }
    if (list.ptr[0] != '[' || !only_adds_an_owner(list, edits, n)) {
        return false;
    }
    const struct at_buf *entry = entry_text(t, kv, edits, n);
    return entry->len == 0 || (at_buf_append(out, list.ptr, list.len - 1) == AT_OK &&
                               at_buf_append(out, ",", 1) == AT_OK &&
                               at_buf_append(out, entry->data, entry->len) == AT_OK &&
                               at_buf_append(out, "]", 1) == AT_OK);
}

static bool is_spec(const struct at_object_edit *edits, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        if (at_streq(edits[k].part, "spec")) {
            return true;
        }
    }
    return false;
}

/* The stored object, edited, in t->text; t->rev stays 0 when it goes another way. */
static void on_edit(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *kvs, size_t n,
                    bool more, const struct at_err *err)
{
    struct text_edit *t = ctx;
    (void)rev;
    (void)more;
    (void)err;
    assert(rc == AT_OK);
    struct at_object_edit edits[AT_STATE_EDITS_OWN_MAX + 2];
    size_t n_edits = 0;
    AT_CLEANUP(at_cleanup_buf) struct at_buf owners = {0};
    char number[24];
    if (n == 0 || !t->edit(t->edit_ctx, kvs[0].value, kvs[0].value_len, edits, &n_edits)) {
        return;
    }
    assert(n_edits <= AT_STATE_EDITS_OWN_MAX);
    if (is_spec(edits, n_edits)) {
        struct at_str was =
            at_object_member(kvs[0].value, kvs[0].value_len, "metadata", "generation");
        uint64_t generation;
        if (at_str_to_u64(was, &generation) != AT_OK || generation >= INT64_MAX ||
            !owners_text(t, &kvs[0], edits, n_edits, &owners)) {
            return;
        }
        snprintf(number, sizeof number, "%llu", (unsigned long long)generation + 1);
        edits[n_edits++] = (struct at_object_edit){"metadata", "generation", at_str_of(number)};
        if (owners.len > 0) {
            edits[n_edits++] =
                (struct at_object_edit){"metadata", "managedFields", {owners.data, owners.len}};
        }
    }
    if (at_object_edit(kvs[0].value, kvs[0].value_len, edits, n_edits, &t->text) == AT_OK &&
        t->text.len <= AT_OBJECT_BYTES_MAX) {
        t->rev = kvs[0].mod_rev;
    }
}

void at_state_edit(struct at_state *state, const struct at_model_kind *kind, const char *ns,
                   const char *name, at_state_edit_fn *edit, at_state_change_fn *change,
                   void *change_ctx, at_state_written_fn *done, void *ctx)
{
    char key[AT_STORE_KEY_BYTES_MAX];
    at_state_key(kind, ns, name, key, sizeof key);
    struct text_edit t = {.state = state, .kind = kind, .edit = edit, .edit_ctx = change_ctx};
    at_store_range(state->store, key, NULL, 1, 0, on_edit, &t);
    if (t.rev == 0) {
        at_state_update(state, kind, ns, name, change, change_ctx, done, ctx);
    } else {
        struct at_store_write write = write_of(state, kind, key, t.rev, written_new(done, ctx));
        write.value = t.text.data;
        write.len = t.text.len;
        at_store_write(state->store, &write);
    }
    at_buf_done(&t.text);
}

static enum at_rc begin_delete(struct at_state *state, const struct at_model_kind *kind,
                               const char *key, const char *uid, struct written *w,
                               int64_t *ret_rev, bool *ret_sent, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *object = NULL;
    enum at_rc rc = at_state_read(state, key, &object, ret_rev, err);
    if (rc != AT_OK) {
        return rc;
    }
    if (uid != NULL && !at_streq(uid, at_object_uid_of(object))) {
        return at_err_set(err, AT_CONFLICT, "%s was made anew meanwhile: its uid is not %s", key,
                          uid);
    }
    enum at_object_outcome outcome =
        at_object_begin_delete(object, at_sys_wall_ns(at_loop_sys(state->loop)));
    return carry_out(state, kind, outcome, key, object, *ret_rev, w, ret_sent, err);
}

void at_state_delete(struct at_state *state, const struct at_model_kind *kind, const char *ns,
                     const char *name, const char *uid, at_state_written_fn *done, void *ctx)
{
    struct at_err err = {0};
    char key[AT_STORE_KEY_BYTES_MAX];
    at_state_key(kind, ns, name, key, sizeof key);
    struct written *w = written_new(done, ctx);
    int64_t rev = 0;
    bool sent = false;
    enum at_rc rc = begin_delete(state, kind, key, uid, w, &rev, &sent, &err);
    if (rc != AT_OK || !sent) {
        written_free(w);
        answer(done, ctx, rc, rc == AT_OK ? rev : 0, &err);
    }
}
