/* What Deployment and Job share: their instances, how one is made, how they end. */
#include "controllers/controllers_priv.h"

#include "core/digest.h"

#include <assert.h>
#include <string.h>

#define HASH_LABEL_LEN 10
#define HASH_NAME_LEN 5
#define SUFFIX_LEN 5
#define NAME_BYTES_MAX 253

bool ctl_is(const char *phase, const char *want)
{
    return at_streq(phase, want);
}

int ctl_by_least_done(const struct at_instance *x, const struct at_instance *y)
{
    bool x_bound = ctl_text(x->spec.node_name)[0] != '\0';
    bool y_bound = ctl_text(y->spec.node_name)[0] != '\0';
    if (x_bound != y_bound) {
        return x_bound ? 1 : -1;
    }
    if (x->meta.creation_wall_ns != y->meta.creation_wall_ns) {
        return x->meta.creation_wall_ns > y->meta.creation_wall_ns ? -1 : 1;
    }
    return strcmp(y->meta.name, x->meta.name);
}

bool ctl_ended(const struct at_instance *i)
{
    return at_streq(i->status.phase, "Succeeded") || at_streq(i->status.phase, "Failed");
}

bool ctl_lost(const struct at_instance *i)
{
    return at_streq(i->status.phase, "Failed") &&
           (at_streq(i->status.reason, CTL_REASON_NODE_LOST) ||
            ((at_streq(i->status.reason, CTL_REASON_OVERCOMMITTED) ||
              at_streq(i->status.reason, CTL_REASON_GPU_LOST)) &&
             at_meta_controller(&i->meta) != NULL));
}

struct ctl_owned ctl_owned_by(struct ctl_pass *p, const char *uid)
{
    struct ctl_owned owned = {0};
    assert(p->item->kind == CTL_DEPLOYMENT || p->item->kind == CTL_JOB);
    const char *kind = p->item->kind == CTL_JOB ? AT_KIND_JOB.kind : AT_KIND_DEPLOYMENT.kind;
    size_t n;
    owned.items =
        ctl_index_list(ctl_index_owner(p->c->index, kind, p->ns, p->name), p->snap, p->arena, &n);
    for (size_t k = 0; k < n; k++) {
        const struct at_owner_ref *owner = at_meta_controller(&owned.items[k]->meta);
        if (owner != NULL && at_streq(owner->uid, uid)) {
            owned.items[owned.n++] = owned.items[k];
        }
    }
    return owned;
}

const char *ctl_template_hash(struct ctl_pass *p, const json_t *template_json)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = at_json_dump_sorted(template_json, &text);
    assert(rc == AT_OK);
    char hex[AT_SHA256_HEX_BYTES];
    at_sha256_hex(text.data, text.len, hex);
    return at_arena_strndup(p->arena, hex, HASH_LABEL_LEN);
}

static json_t *object_at(json_t *parent, const char *key)
{
    json_t *value = json_object_get(parent, key);
    if (!json_is_object(value)) {
        value = json_object();
        json_object_set_new(parent, key, value);
    }
    return value;
}

static const char *instance_name(struct ctl_pass *p, const char *owner, const char *hash)
{
    char suffix[SUFFIX_LEN + 1];
    at_object_suffix(p->c->sys, suffix, SUFFIX_LEN);
    size_t room = NAME_BYTES_MAX - HASH_NAME_LEN - SUFFIX_LEN - 2;
    size_t len = strlen(owner);
    len = len < room ? len : room;
    while (len > 0 && (owner[len - 1] == '.' || owner[len - 1] == '-')) {
        len--; /* a cut must not leave a name that no one may have */
    }
    return at_arena_printf(p->arena, "%.*s-%.*s-%s", (int)len, owner, HASH_NAME_LEN, hash, suffix);
}

json_t *ctl_make_instance(struct ctl_pass *p, const struct at_model_kind *kind,
                          const struct at_meta *owner, const json_t *template_json,
                          const char *label, const char *hash)
{
    json_t *meta = json_deep_copy(json_object_get(template_json, "metadata"));
    if (!json_is_object(meta)) {
        json_decref(meta);
        meta = json_object();
    }
    json_t *labels = object_at(meta, "labels");
    json_object_set_new(labels, label, json_string(owner->name));
    json_object_set_new(labels, CTL_LABEL_HASH, json_string(hash));
    json_object_set_new(meta, "name", json_string(instance_name(p, owner->name, hash)));
    json_object_set_new(meta, "namespace", json_string(ctl_text(owner->ns)));
    json_object_set_new(meta, "ownerReferences",
                        json_pack("[{s:s,s:s,s:s,s:s,s:b,s:b}]", "apiVersion",
                                  at_model_api_version(kind), "kind", kind->kind, "name",
                                  owner->name, "uid", ctl_text(owner->uid), "controller", 1,
                                  "blockOwnerDeletion", 1));
    json_t *spec = json_deep_copy(json_object_get(template_json, "spec"));
    return json_pack("{s:s,s:s,s:o,s:o}", "apiVersion", at_model_api_version(&AT_KIND_INSTANCE),
                     "kind", AT_KIND_INSTANCE.kind, "metadata", meta, "spec",
                     spec != NULL ? spec : json_object());
}

static bool drop_finalizer(void *ctx, json_t *object)
{
    at_object_drop_finalizer(object, ctx);
    return true;
}

void ctl_drop_finalizer(struct ctl_pass *p, const struct at_model_kind *kind,
                        const struct at_meta *meta, const char *finalizer)
{
    ctl_update(p, kind, meta->ns, meta->name, drop_finalizer, (void *)(uintptr_t)finalizer);
}

/* Take owner (a uid) out of the references. */
bool ctl_drop_owner(void *ctx, json_t *object)
{
    json_t *meta = json_object_get(object, "metadata");
    json_t *owners = json_object_get(meta, "ownerReferences");
    for (size_t k = json_array_size(owners); k > 0; k--) {
        const char *uid = at_json_str_at(json_array_get(owners, k - 1), "uid", "");
        if (at_streq(uid, ctx)) {
            json_array_remove(owners, k - 1);
        }
    }
    if (json_array_size(owners) == 0) {
        json_object_del(meta, "ownerReferences");
    }
    return true;
}

void ctl_finish_owner(struct ctl_pass *p, const struct at_model_kind *kind,
                      const struct at_meta *owner)
{
    bool foreground = at_meta_has_finalizer(owner, CTL_FINALIZER_FOREGROUND);
    bool orphan = at_meta_has_finalizer(owner, CTL_FINALIZER_ORPHAN);
    if (!foreground && !orphan) {
        return;
    }
    struct ctl_owned owned = ctl_owned_by(p, owner->uid);
    bool others_gone = ctl_release_owned(p, owner);
    if (owned.n == 0 && others_gone) {
        ctl_drop_finalizer(p, kind, owner,
                           foreground ? CTL_FINALIZER_FOREGROUND : CTL_FINALIZER_ORPHAN);
        return;
    }
    for (size_t k = 0; k < owned.n; k++) {
        const struct at_meta *meta = &owned.items[k]->meta;
        if (foreground && meta->deletion_wall_ns == 0) {
            ctl_delete(p, &AT_KIND_INSTANCE, meta);
        } else if (!foreground) {
            ctl_update(p, &AT_KIND_INSTANCE, meta->ns, meta->name, ctl_drop_owner,
                       (void *)(uintptr_t)owner->uid);
        }
    }
}
