#include "state/check.h"

#include "core/map.h"
#include "core/mem.h"
#include "core/str.h"
#include "state/limits.h"
#include "state/state.h"
#include "store/seal.h"

#include <stdarg.h>
#include <stdio.h>

#define INTERNAL "/atoll-internal/" /* tokens and the like: no objects */

struct check {
    at_state_check_fn *fn;
    void *ctx;
    struct at_map *uids;
    struct at_state_checked *checked;
};

static void AT_PRINTF(3, 4) tell(struct check *c, bool note, const char *fmt, ...)
{
    char text[AT_ERR_MSG_BYTES_MAX + AT_STORE_KEY_BYTES_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    c->fn(c->ctx, note, text);
}

static void names_check(struct check *c, const struct at_model_kind *kind, const char *key,
                        const json_t *object)
{
    const char *name = at_object_name(object);
    const char *ns = at_object_ns(object);
    const char *uid = at_object_uid_of(object);
    char wanted[AT_STORE_KEY_BYTES_MAX];
    if (name == NULL || (kind->namespaced && ns == NULL) || strlen(name) > 253 ||
        (ns != NULL && strlen(ns) > 253)) {
        tell(c, false, "%s: the object has no name or no namespace", key);
        return;
    }
    at_state_key(kind, kind->namespaced ? ns : NULL, name, wanted, sizeof wanted);
    if (!at_streq(wanted, key)) {
        tell(c, false, "%s: the object in it belongs to %s", key, wanted);
    }
    if (!at_streq(at_json_str_at(object, "kind", NULL), kind->kind) ||
        !at_streq(at_json_str_at(object, "apiVersion", NULL), kind->api_version)) {
        tell(c, false, "%s: the object in it is no %s %s", key, kind->api_version, kind->kind);
    }
    if (uid == NULL || uid[0] == '\0') {
        tell(c, false, "%s: the object has no uid", key);
        return;
    }
    const char *other = at_map_put(c->uids, uid, (void *)key);
    if (other != NULL) {
        tell(c, false, "%s: the object has the same uid as %s", key, other);
    }
}

static void validity_check(struct check *c, const struct at_model_kind *kind, const char *key,
                           json_t *object)
{
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(AT_STATE_OBJECT_BYTES_MAX);
    struct at_model_report report = {0};
    struct at_err err = {0};
    void *typed = at_arena_alloc(arena, kind->struct_size);
    if (typed == NULL || at_model_decode(kind, object, arena, typed, &err) != AT_OK) {
        tell(c, false, "%s: %s%s%s", key, err.field, err.field[0] != '\0' ? ": " : "", err.msg);
        return;
    }
    if (at_model_validate(kind, object, NULL, AT_MODEL_UNKNOWN_WARN, arena, &report, &err) !=
            AT_OK &&
        report.n_causes == 0) {
        tell(c, false, "%s: %s", key, err.msg);
    }
    for (size_t i = 0; i < report.n_causes; i++) {
        tell(c, false, "%s: %s: %s", key, report.causes[i].field, report.causes[i].message);
    }
    for (size_t i = 0; i < report.n_unknown; i++) {
        tell(c, true, "%s: field %s is not known", key, report.unknown[i]);
    }
}

/* NULL: none, or told already. own: caller decrefs. */
static json_t *object_of(struct check *c, const struct at_store_kv *kv,
                         const struct at_model_kind **ret_kind, bool tell_it)
{
    const char *ns;
    size_t ns_len;
    const char *name;
    json_t *object = NULL;
    struct at_err err = {0};
    if (at_state_key_parse(kv->key, ret_kind, &ns, &ns_len, &name) != AT_OK) {
        if (tell_it && !at_str_starts(at_str_of(kv->key), INTERNAL)) {
            tell(c, true, "%s: no kind of this version of atoll", kv->key);
        }
        return NULL;
    }
    if (at_store_is_sealed(kv->value, kv->value_len)) {
        return NULL; /* only a server with its key file can look inside */
    }
    if (at_object_decode(kv->value, kv->value_len, kv->mod_rev, &object, &err) != AT_OK) {
        if (tell_it) {
            tell(c, false, "%s: %s", kv->key, err.msg);
        }
        return NULL;
    }
    return object;
}

static void owners_check(struct check *c, const char *key, const json_t *object)
{
    size_t i;
    const json_t *owner;
    json_array_foreach(at_json_at(object, "metadata.ownerReferences"), i, owner)
    {
        const char *uid = at_json_str_at(owner, "uid", "");
        if (at_map_get(c->uids, uid) == NULL) {
            tell(c, true, "%s: metadata.ownerReferences[%zu]: there is no %s %s with uid %s", key,
                 i, at_json_str_at(owner, "kind", "object"), at_json_str_at(owner, "name", ""),
                 uid);
        }
    }
}

void at_state_check(struct at_store *store, at_state_check_fn *fn, void *ctx,
                    struct at_state_checked *ret)
{
    struct at_store_snapshot *all = at_store_snapshot_new(store);
    struct check c = {.fn = fn, .ctx = ctx, .uids = at_map_new(), .checked = ret};
    *ret = (struct at_state_checked){.keys = at_store_snapshot_count(all)};
    for (size_t i = 0; i < ret->keys; i++) {
        struct at_store_kv kv = at_store_snapshot_at(all, i);
        const struct at_model_kind *kind;
        json_t *object = object_of(&c, &kv, &kind, true);
        if (object != NULL) {
            ret->objects++;
            names_check(&c, kind, kv.key, object);
            validity_check(&c, kind, kv.key, object);
            json_decref(object);
        }
    }
    for (size_t i = 0; i < ret->keys; i++) { /* now that all uids are known */
        struct at_store_kv kv = at_store_snapshot_at(all, i);
        const struct at_model_kind *kind;
        if (strstr(kv.value, "\"ownerReferences\"") != NULL) {
            json_t *object = object_of(&c, &kv, &kind, false);
            owners_check(&c, kv.key, object);
            json_decref(object);
        }
    }
    at_map_free(c.uids);
    at_store_snapshot_free(all);
}
