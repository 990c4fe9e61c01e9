/* Asking, passes, and their order. See quota.h. */
#include "state/quota.h"

#include "core/mem.h"
#include "core/str.h"
#include "state/quota_priv.h"
#include "state/state_priv.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define PASSES "/atoll-internal/quota/"

struct at_quota_pass {
    struct at_state *state;
    struct at_quota_pass *next; /* local: of all under way */
    char *ns, *key;             /* of the object */
    int64_t old_rev;
    json_t *more;   /* what it adds, by canonical name */
    char *pass_key; /* shared: in the store */
    int64_t pass_rev;
    unsigned looks;
    at_quota_fn *fn;
    void *ctx;
    at_timer_id timer;
};

static void pass_free(struct at_quota_pass *p)
{
    at_loop_timer_cancel(p->state->loop, p->timer);
    at_free(p->ns);
    at_free(p->key);
    at_free(p->pass_key);
    json_decref(p->more);
    at_free(p);
}

/* --- what is under way --- */

static void on_rev(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *kvs, size_t n,
                   bool more, const struct at_err *err)
{
    (void)rev;
    (void)more;
    (void)err;
    *(int64_t *)ctx = rc == AT_OK && n > 0 ? kvs[0].mod_rev : 0;
}

/* Does the write that this pass is for still wait? Once it shows, its object is counted. */
static bool waits(const struct at_state *state, const char *key, int64_t old_rev)
{
    int64_t now = 0;
    at_store_range(state->store, key, NULL, 1, 0, on_rev, &now);
    return now == old_rev;
}

struct sum {
    struct at_state *state;
    const struct at_resource_quota *quota;
    const char *canonical;
    const struct at_quota_pass *own;
    int64_t amount;
};

static void sum_add(struct sum *s, const json_t *more)
{
    int64_t amount = json_integer_value(json_object_get(more, s->canonical));
    if (amount > 0 && quota_in_scope(s->quota, more)) {
        s->amount = __builtin_add_overflow(s->amount, amount, &s->amount) ? INT64_MAX : s->amount;
    }
}

static void on_passes(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *kvs,
                      size_t n, bool more, const struct at_err *err)
{
    (void)rev;
    (void)more;
    (void)err;
    struct sum *s = ctx;
    for (size_t i = 0; i < n && rc == AT_OK; i++) {
        AT_CLEANUP(at_cleanup_json) json_t *value = NULL;
        bool before = s->own->pass_rev == 0 || kvs[i].create_rev < s->own->pass_rev;
        if (before && !at_streq(kvs[i].key, s->own->pass_key) &&
            at_json_parse(kvs[i].value, kvs[i].value_len, &value, NULL) == AT_OK &&
            waits(s->state, at_json_str_at(value, "key", ""), at_json_int_at(value, "old", 0))) {
            sum_add(s, json_object_get(value, "more"));
        }
    }
}

/* What others have passes for, that goes before own. */
static int64_t under_way(const struct at_resource_quota *quota, const char *canonical,
                         const struct at_quota_pass *own)
{
    struct sum s = {own->state, quota, canonical, own, 0};
    for (const struct at_quota_pass *p = own->state->passes; p != NULL; p = p->next) {
        if (p != own && at_streq(p->ns, own->ns) && waits(own->state, p->key, p->old_rev)) {
            sum_add(&s, p->more);
        }
    }
    if (at_store_is_shared(own->state->store)) {
        char from[AT_STORE_KEY_BYTES_MAX], to[AT_STORE_KEY_BYTES_MAX];
        snprintf(from, sizeof from, PASSES "%s/", own->ns);
        at_store_prefix_end(from, to, sizeof to);
        at_store_range(own->state->store, from, to, 0, 0, on_passes, &s);
    }
    return s.amount;
}

/* --- the decision --- */

struct words {
    char requested[160], used[160], limited[160];
};

static void word_add(char *text, size_t size, const char *name, const char *canonical,
                     int64_t amount)
{
    char figure[AT_UNITS_TEXT_BYTES_MAX];
    size_t len = strlen(text);
    snprintf(text + len, size - len, "%s%s=%s", len > 0 ? "," : "", name,
             quota_format(canonical, amount, figure));
}

/* As Kubernetes: who bounds what instances reserve wants each to say. */
static bool must_say(const struct at_resource_quota *quota, const json_t *more, char *out,
                     size_t size)
{
    out[0] = '\0';
    if (json_object_get(more, "instances") == NULL || quota->spec.scopes.n > 0) { /* new ones */
        return false;
    }
    for (size_t i = 0; i < quota->spec.hard.n; i++) {
        char canonical[QUOTA_NAME_BYTES_MAX];
        quota_canonical(quota->spec.hard.items[i].key, canonical);
        bool compute = at_streq(canonical, "cpu") || at_streq(canonical, "memory");
        if (compute && json_object_get(more, canonical) == NULL) {
            size_t len = strlen(out);
            snprintf(out + len, size - len, "%s%s", len > 0 ? "," : "",
                     quota->spec.hard.items[i].key);
        }
    }
    return out[0] != '\0';
}

/* *ret_hard: it is not others' passes that are in the way, so waiting does not help. */
static enum at_rc quota_check(const struct at_quota_pass *p, const struct at_snapshot *snap,
                              const struct at_resource_quota *quota, bool *ret_hard,
                              struct at_err *err)
{
    struct words w = {"", "", ""};
    char unsaid[160];
    if (!quota_in_scope(quota, p->more)) {
        return AT_OK;
    }
    if (must_say(quota, p->more, unsaid, sizeof unsaid)) {
        *ret_hard = true;
        return at_err_set(err, AT_FORBIDDEN, "failed quota: %s: must specify %s", quota->meta.name,
                          unsaid);
    }
    for (size_t i = 0; i < quota->spec.hard.n; i++) {
        const struct at_model_kv *hard = &quota->spec.hard.items[i];
        char canonical[QUOTA_NAME_BYTES_MAX];
        int64_t limit = 0, all;
        quota_canonical(hard->key, canonical);
        int64_t wanted = json_integer_value(json_object_get(p->more, canonical));
        if (wanted <= 0 || quota_parse(canonical, hard->value, &limit) != AT_OK) {
            continue;
        }
        int64_t held = quota_held(p->state, snap, quota, canonical);
        int64_t others = under_way(quota, canonical, p);
        if (__builtin_add_overflow(held, others, &all) ||
            __builtin_add_overflow(all, wanted, &all) || all > limit) {
            word_add(w.requested, sizeof w.requested, hard->key, canonical, wanted);
            word_add(w.used, sizeof w.used, hard->key, canonical, held + others);
            word_add(w.limited, sizeof w.limited, hard->key, canonical, limit);
            *ret_hard = *ret_hard || others == 0;
        }
    }
    return w.requested[0] == '\0'
               ? AT_OK
               : at_err_set(err, AT_FORBIDDEN,
                            "exceeded quota: %s, requested: %s, used: %s, limited: %s",
                            quota->meta.name, w.requested, w.used, w.limited);
}

static bool is_of(const struct at_resource_quota *quota, const char *ns)
{
    return at_streq(quota->meta.ns, ns) && quota->meta.deletion_wall_ns == 0;
}

static enum at_rc decide(const struct at_quota_pass *p, bool *ret_hard, struct at_err *err)
{
    const struct at_snapshot *snap = at_state_snapshot(p->state);
    enum at_rc rc = AT_OK;
    *ret_hard = false;
    for (size_t i = 0; i < snap->n_quotas && rc == AT_OK; i++) {
        if (is_of(snap->quotas[i], p->ns)) {
            rc = quota_check(p, snap, snap->quotas[i], ret_hard, err);
        }
    }
    at_snapshot_unref(snap);
    return rc;
}

/* --- local --- */

static void local(struct at_quota_pass *p, bool only_look)
{
    struct at_err err = {0};
    bool hard;
    enum at_rc rc = decide(p, &hard, &err);
    at_quota_fn *fn = p->fn;
    void *ctx = p->ctx;
    if (rc != AT_OK || only_look) {
        pass_free(p);
        fn(ctx, rc, NULL, &err);
        return;
    }
    p->next = p->state->passes;
    p->state->passes = p;
    fn(ctx, AT_OK, p, NULL);
}

/* --- shared --- */

static void pass_take_back(const struct at_quota_pass *p)
{
    if (p->pass_key != NULL && p->pass_rev != 0) {
        at_store_write(
            p->state->store,
            &(struct at_store_write){.key = p->pass_key, .deletes = true, .expect = p->pass_rev});
    }
}

static void refuse(struct at_quota_pass *p, enum at_rc rc, const struct at_err *err)
{
    at_quota_fn *fn = p->fn;
    void *ctx = p->ctx;
    pass_take_back(p);
    pass_free(p);
    fn(ctx, rc, NULL, err);
}

/* Its pass is in the store, and so is each that goes before it. */
static void look(void *ctx)
{
    struct at_quota_pass *p = ctx;
    struct at_err err = {0};
    bool hard;
    p->timer = 0;
    enum at_rc rc = decide(p, &hard, &err);
    if (rc == AT_OK) {
        p->fn(p->ctx, AT_OK, p, NULL);
    } else if (!hard && ++p->looks < AT_STATE_QUOTA_LOOKS_MAX) {
        /* Who goes before may be refused, or fail, yet. */
        p->timer = at_loop_timer(p->state->loop, AT_STATE_QUOTA_LOOK_NS, look, p);
    } else {
        refuse(p, rc, &err);
    }
}

static void pass_put(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *current,
                     const struct at_err *err)
{
    (void)current;
    struct at_quota_pass *p = ctx;
    if (rc != AT_OK) {
        refuse(p, rc == AT_EXISTS ? AT_CONFLICT : rc, err);
        return;
    }
    p->pass_rev = rev;
    look(p);
}

static void caught_up(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *current,
                      const struct at_err *err)
{
    (void)rev;
    (void)current;
    struct at_quota_pass *p = ctx;
    if (rc != AT_OK) {
        refuse(p, rc, err);
        return;
    }
    struct at_err why = {0};
    bool hard;
    rc = decide(p, &hard, &why);
    if (p->pass_key == NULL || (rc != AT_OK && hard)) { /* only looking, or it is clear already */
        refuse(p, rc, &why);
        return;
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    AT_CLEANUP(at_cleanup_json)
    json_t *value =
        json_pack("{s:s, s:I, s:O}", "key", p->key, "old", (json_int_t)p->old_rev, "more", p->more);
    if (at_json_dump(value, &text) != AT_OK) {
        refuse(p, AT_TOO_LARGE, NULL);
        return;
    }
    at_store_write(p->state->store, &(struct at_store_write){.key = p->pass_key,
                                                             .value = text.data,
                                                             .len = text.len,
                                                             .ttl_s = AT_STATE_QUOTA_PASS_TTL_S,
                                                             .fn = pass_put,
                                                             .ctx = p});
}

/* --- asking --- */

/* What is more than before, by canonical name, and the marks; NULL: nothing is. */
static json_t *more_of(const struct at_quota_ask *ask)
{
    json_t *more = quota_use(ask->kind, ask->object);
    bool any = false;
    if (ask->old == NULL) {
        return more;
    }
    AT_CLEANUP(at_cleanup_json) json_t *before = quota_use(ask->kind, ask->old);
    json_t *out = json_object();
    const char *name;
    json_t *value;
    json_object_foreach(more, name, value)
    {
        bool mark = name[0] == '#';
        int64_t was = mark ? 0 : json_integer_value(json_object_get(before, name));
        int64_t by = json_integer_value(value) - was;
        any = any || (by > 0 && !mark);
        if (by > 0) {
            json_object_set_new(out, name, json_integer(by));
        }
    }
    json_decref(more);
    if (!any) {
        json_decref(out);
        return NULL;
    }
    return out;
}

/* Is any of it bounded in its namespace? */
static bool is_bounded(struct at_state *state, const char *ns, const json_t *more)
{
    const struct at_snapshot *snap = at_state_snapshot(state);
    bool bounded = false;
    for (size_t i = 0; i < snap->n_quotas && !bounded; i++) {
        const struct at_resource_quota *q = snap->quotas[i];
        for (size_t k = 0; is_of(q, ns) && k < q->spec.hard.n && !bounded; k++) {
            char canonical[QUOTA_NAME_BYTES_MAX];
            quota_canonical(q->spec.hard.items[k].key, canonical);
            bounded = json_object_get(more, canonical) != NULL ||
                      json_object_get(more, "instances") != NULL;
        }
    }
    at_snapshot_unref(snap);
    return bounded;
}

void at_quota_ask(struct at_state *state, const struct at_quota_ask *ask, at_quota_fn *fn,
                  void *ctx)
{
    if (state->kinds[AT_STATE_QUOTAS].list == NULL && state->kinds[AT_STATE_QUOTAS].n_edits == 0) {
        fn(ctx, AT_OK, NULL, NULL); /* most have none at all */
        return;
    }
    json_t *more = more_of(ask);
    if (more == NULL || !is_bounded(state, ask->ns, more)) {
        json_decref(more);
        fn(ctx, AT_OK, NULL, NULL);
        return;
    }
    struct at_quota_pass *p = AT_NEW(struct at_quota_pass);
    *p = (struct at_quota_pass){.state = state,
                                .ns = at_strdup(ask->ns),
                                .key = at_strdup(ask->key),
                                .old_rev = ask->old_rev,
                                .more = more,
                                .fn = fn,
                                .ctx = ctx};
    if (!at_store_is_shared(state->store)) {
        local(p, ask->only_look);
        return;
    }
    if (!ask->only_look) {
        char id[AT_OBJECT_UID_BYTES];
        at_object_uid(at_loop_sys(state->loop), id);
        p->pass_key = at_asprintf(PASSES "%s/%s", ask->ns, id);
    }
    at_store_catch_up(state->store, caught_up, p);
}

void at_quota_guard(const struct at_quota_pass *pass, struct at_store_write *write)
{
    if (pass != NULL && pass->pass_rev != 0 && write->guard_key == NULL) {
        write->guard_key = pass->pass_key;
        write->guard_rev = pass->pass_rev;
    }
}

void at_quota_release(struct at_quota_pass *pass)
{
    if (pass == NULL) {
        return;
    }
    for (struct at_quota_pass **at = &pass->state->passes; *at != NULL; at = &(*at)->next) {
        if (*at == pass) {
            *at = pass->next;
            break;
        }
    }
    pass_take_back(pass);
    pass_free(pass);
}
