/* A namespace that is being deleted: everything in it first, then its finalizer. */
#include "controllers/controllers_priv.h"

#include <string.h>

struct emptying {
    struct ctl_pass *p;
    const struct at_model_kind *kind;
    size_t left;
};

static void remove_one(void *ctx, const char *ns, const char *name, const json_t *object)
{
    struct emptying *e = ctx;
    e->left++;
    if (!at_object_deleting(object)) {
        struct at_meta meta = {.ns = ns, .name = name, .uid = at_object_uid_of(object)};
        ctl_delete(e->p, e->kind, &meta);
    }
}

static bool set_terminating(void *ctx, json_t *object)
{
    (void)ctx;
    at_json_set_at(object, "status.phase", json_string("Terminating"));
    return true;
}

static bool drop_finalizer(void *ctx, json_t *object)
{
    (void)ctx;
    at_object_drop_finalizer(object, CTL_FINALIZER_NAMESPACE);
    return true;
}

void ctl_namespace(struct ctl_pass *p)
{
    json_t *room = at_state_object(p->c->state, &AT_KIND_NAMESPACE, NULL, p->name);
    if (room == NULL || !at_object_deleting(room) ||
        !at_object_has_finalizer(room, CTL_FINALIZER_NAMESPACE)) {
        json_decref(room);
        return;
    }
    bool told = at_streq(at_json_str_at(room, "status.phase", ""), "Terminating");
    json_decref(room);
    if (!told) {
        ctl_update(p, &AT_KIND_NAMESPACE, NULL, p->name, set_terminating, NULL);
        return; /* the next pass goes on */
    }
    size_t n_kinds;
    const struct at_model_kind *const *kinds = at_model_kinds(&n_kinds);
    struct emptying e = {.p = p};
    for (size_t k = 0; k < n_kinds; k++) {
        if (kinds[k]->namespaced) {
            e.kind = kinds[k];
            at_state_each(p->c->state, kinds[k], p->name, remove_one, &e);
        }
    }
    if (e.left == 0) {
        ctl_update(p, &AT_KIND_NAMESPACE, NULL, p->name, drop_finalizer, NULL);
    }
}
