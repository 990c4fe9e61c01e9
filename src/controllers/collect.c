/* Garbage: objects of any kind whose owners have all gone are deleted; an owner that waits for the
 * objects it owns (finalizers foregroundDeletion and orphan) has them deleted or set free.
 * Instances of Deployments and Jobs are looked after by gc.c and owner.c, which know more about
 * them.
 *
 * Only objects that have owners are remembered (c->owned); they are few, so a deletion may look at
 * them all. */
#include "controllers/controllers_priv.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An object of any kind as a queue item: its name is "<index of the kind>/<name>". */
static char *item_name(const struct at_model_kind *kind, const char *name)
{
    size_t n;
    const struct at_model_kind *const *kinds = at_model_kinds(&n);
    for (size_t i = 0; i < n; i++) {
        if (kinds[i] == kind) {
            return at_asprintf("%zu/%s", i, name);
        }
    }
    assert(!"a kind that is not in the table");
    return NULL;
}

static const struct at_model_kind *item_kind(const char *item_name_text, const char **ret_name)
{
    size_t n;
    char *end;
    const struct at_model_kind *const *kinds = at_model_kinds(&n);
    size_t index = strtoul(item_name_text, &end, 10);
    assert(index < n);
    assert(*end == '/');
    *ret_name = end + 1;
    return kinds[index];
}

/* "<ns>/<item name>" of c->owned and c->finishing back to its parts. */
static void enqueue_all(struct at_controllers *c, const struct at_map *keys)
{
    const char *key;
    void *value;
    for (size_t it = 0; at_map_next(keys, &it, &key, &value);) {
        const char *slash = strchr(key, '/');
        AT_CLEANUP(at_cleanup_free) char *ns = at_strndup(key, (size_t)(slash - key));
        ctl_enqueue(c, CTL_COLLECT, ns[0] != '\0' ? ns : NULL, slash + 1);
    }
}

static void remember(struct at_map *keys, const char *key, bool wanted)
{
    if (wanted) {
        (void)at_map_put(keys, key, keys);
    } else {
        (void)at_map_remove(keys, key);
    }
}

static const json_t *owners_of(const json_t *object)
{
    return at_json_at(object, "metadata.ownerReferences");
}

static bool waits_for_owned(const json_t *object)
{
    return at_object_deleting(object) &&
           (at_object_has_finalizer(object, CTL_FINALIZER_FOREGROUND) ||
            at_object_has_finalizer(object, CTL_FINALIZER_ORPHAN));
}

/* What matters of an object for this: is it there, owned, waiting for what it owns. */
struct traits {
    bool there, owned, finishing;
};

static struct traits traits_of(const struct at_model_kind *kind, const json_t *object)
{
    return (struct traits){
        .there = object != NULL,
        .owned = kind != &AT_KIND_INSTANCE && json_array_size(owners_of(object)) != 0,
        .finishing = waits_for_owned(object),
    };
}

static void route_object(struct at_controllers *c, const struct at_model_kind *kind, const char *ns,
                         const char *name, struct traits t)
{
    AT_CLEANUP(at_cleanup_free) char *text = item_name(kind, name);
    AT_CLEANUP(at_cleanup_free) char *key = at_asprintf("%s/%s", ctl_text(ns), text);
    bool was_owned = at_map_get(c->owned, key) != NULL;
    remember(c->owned, key, t.owned);
    remember(c->finishing, key, t.finishing);
    if (t.owned || t.finishing) {
        ctl_enqueue(c, CTL_COLLECT, ns, text);
    }
    if (t.owned || was_owned || kind == &AT_KIND_INSTANCE) {
        enqueue_all(c, c->finishing);
    }
    if (!t.there) {
        enqueue_all(c, c->owned); /* it may have owned some of them */
    }
}

/* Instances change most often by far: they are looked up decoded instead of parsed anew. */
static struct traits traits_of_instance(const struct at_snapshot *snap, const char *ns,
                                        const char *name)
{
    const struct at_instance *i = at_snapshot_instance(snap, ns, name);
    return (struct traits){
        .there = i != NULL,
        .finishing = i != NULL && i->meta.deletion_wall_ns != 0 &&
                     (at_meta_has_finalizer(&i->meta, CTL_FINALIZER_FOREGROUND) ||
                      at_meta_has_finalizer(&i->meta, CTL_FINALIZER_ORPHAN)),
    };
}

/* Most objects have no owner and are not being deleted, which shows without parsing. */
static const char *const WORDS[] = {"\"ownerReferences\"", "\"deletionTimestamp\"", NULL};

void ctl_collect_route(struct at_controllers *c, const struct at_snapshot *snap,
                       const struct at_model_kind *kind, const char *ns, const char *name)
{
    if (kind == &AT_KIND_INSTANCE) {
        route_object(c, kind, ns, name, traits_of_instance(snap, ns, name));
        return;
    }
    struct traits t = {.there = false};
    if (at_state_mentions(c->state, kind, ns, name, WORDS, &t.there)) {
        json_t *object = at_state_object(c->state, kind, ns, name);
        t = traits_of(kind, object);
        json_decref(object);
    }
    route_object(c, kind, ns, name, t);
}

struct seed {
    struct at_controllers *c;
    const struct at_model_kind *kind;
};

static void seed_one(void *ctx, const char *ns, const char *name, const json_t *object)
{
    const struct seed *s = ctx;
    route_object(s->c, s->kind, s->kind->namespaced ? ns : NULL, name, traits_of(s->kind, object));
}

void ctl_collect_route_all(struct at_controllers *c, const struct at_snapshot *snap)
{
    size_t n;
    const struct at_model_kind *const *kinds = at_model_kinds(&n);
    for (size_t i = 0; i < n; i++) {
        struct seed s = {c, kinds[i]};
        if (kinds[i] != &AT_KIND_EVENT && kinds[i] != &AT_KIND_INSTANCE) {
            at_state_each_mentioning(c->state, kinds[i], WORDS, seed_one, &s);
        }
    }
    for (size_t k = 0; k < snap->n_instances; k++) {
        const struct at_meta *meta = &snap->instances[k]->meta;
        struct traits t = traits_of_instance(snap, meta->ns, meta->name);
        if (t.finishing) { /* the others are of no concern here */
            route_object(c, &AT_KIND_INSTANCE, meta->ns, meta->name, t);
        }
    }
}

/* Unknown kinds count as being there: what cannot be looked up is no ground to delete. */
bool ctl_owner_exists(struct ctl_pass *p, const char *api_version, const char *kind_name,
                      const char *ns, const char *name, const char *uid)
{
    const char *slash = strchr(ctl_text(api_version), '/');
    const char *group =
        slash != NULL ? at_arena_strndup(p->arena, api_version, (size_t)(slash - api_version)) : "";
    const char *version = slash != NULL ? slash + 1 : ctl_text(api_version);
    const struct at_model_kind *kind = at_model_kind_find(group, version, ctl_text(kind_name));
    if (kind == NULL) {
        return true;
    }
    if (kind == &AT_KIND_DEPLOYMENT) { /* the usual owners are at hand */
        const struct at_deployment *d = at_snapshot_deployment(p->snap, ns, ctl_text(name));
        return d != NULL && at_streq(d->meta.uid, uid);
    }
    if (kind == &AT_KIND_JOB) {
        const struct at_job *job = at_snapshot_job(p->snap, ns, ctl_text(name));
        return job != NULL && at_streq(job->meta.uid, uid);
    }
    json_t *object =
        at_state_object(p->c->state, kind, kind->namespaced ? ns : NULL, ctl_text(name));
    bool there = object != NULL && at_streq(at_object_uid_of(object), uid);
    json_decref(object);
    return there;
}

static bool all_owners_gone(struct ctl_pass *p, const json_t *object)
{
    const json_t *owners = owners_of(object);
    for (size_t i = 0; i < json_array_size(owners); i++) {
        const json_t *o = json_array_get(owners, i);
        if (ctl_owner_exists(p, at_json_str_at(o, "apiVersion", ""), at_json_str_at(o, "kind", ""),
                             p->ns, at_json_str_at(o, "name", ""), at_json_str_at(o, "uid", ""))) {
            return false;
        }
    }
    return json_array_size(owners) != 0;
}

static bool owned_by(const json_t *object, const char *uid)
{
    const json_t *owners = owners_of(object);
    for (size_t i = 0; i < json_array_size(owners); i++) {
        if (at_streq(at_json_str_at(json_array_get(owners, i), "uid", ""), uid)) {
            return true;
        }
    }
    return false;
}

/* Of the remembered objects, those that uid owns: deleted, or set free. Returns how many. */
static size_t release_owned(struct ctl_pass *p, const char *uid, bool delete)
{
    size_t left = 0;
    const char *key;
    void *value;
    for (size_t it = 0; at_map_next(p->c->owned, &it, &key, &value);) {
        const char *slash = strchr(key, '/');
        const char *ns = at_arena_strndup(p->arena, key, (size_t)(slash - key));
        const char *name;
        const struct at_model_kind *kind = item_kind(slash + 1, &name);
        ns = kind->namespaced ? ns : NULL;
        json_t *object = at_state_object(p->c->state, kind, ns, name);
        if (object != NULL && owned_by(object, uid)) {
            left++;
            struct at_meta meta = {.ns = ns, .name = name, .uid = at_object_uid_of(object)};
            if (!delete) {
                ctl_update(p, kind, ns, name, ctl_drop_owner, (void *)(uintptr_t)uid);
            } else if (!at_object_deleting(object)) {
                ctl_delete(p, kind, &meta);
            }
        }
        json_decref(object);
    }
    return left;
}

bool ctl_release_owned(struct ctl_pass *p, const struct at_meta *owner)
{
    bool delete = at_meta_has_finalizer(owner, CTL_FINALIZER_FOREGROUND);
    return release_owned(p, ctl_text(owner->uid), delete) == 0;
}

/* Deployments and Jobs are finished by their own reconcilers (ctl_finish_owner). */
static void finish(struct ctl_pass *p, const struct at_model_kind *kind, const char *name,
                   const json_t *object)
{
    if (kind == &AT_KIND_DEPLOYMENT || kind == &AT_KIND_JOB) {
        ctl_enqueue(p->c, kind == &AT_KIND_JOB ? CTL_JOB : CTL_DEPLOYMENT, p->ns, name);
        return;
    }
    bool foreground = at_object_has_finalizer(object, CTL_FINALIZER_FOREGROUND);
    const char *uid = at_arena_strdup(p->arena, ctl_text(at_object_uid_of(object)));
    struct at_meta meta = {.ns = p->ns, .name = name, .uid = uid};
    if (release_owned(p, uid, foreground) == 0) {
        ctl_drop_finalizer(p, kind, &meta,
                           foreground ? CTL_FINALIZER_FOREGROUND : CTL_FINALIZER_ORPHAN);
    }
}

void ctl_collect(struct ctl_pass *p)
{
    const char *name;
    const struct at_model_kind *kind = item_kind(p->name, &name);
    json_t *object = at_state_object(p->c->state, kind, kind->namespaced ? p->ns : NULL, name);
    if (object == NULL) {
        return;
    }
    if (waits_for_owned(object)) {
        finish(p, kind, name, object);
    } else if (kind != &AT_KIND_INSTANCE && !at_object_deleting(object) &&
               all_owners_gone(p, object)) {
        const char *uid = at_arena_strdup(p->arena, ctl_text(at_object_uid_of(object)));
        struct at_meta meta = {.ns = p->ns, .name = name, .uid = uid};
        ctl_delete(p, kind, &meta);
    }
    json_decref(object);
}
