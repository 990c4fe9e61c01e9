/* Instances that nobody stands for any more: their owner or their node has gone, or the node was
 * lost and they have been given up. */
#include "controllers/controllers_priv.h"

#include <string.h>

/* Unknown kinds count as being there: what cannot be looked up is no ground to delete. */
static bool owner_exists(struct ctl_pass *p, const struct at_owner_ref *owner, const char *ns)
{
    const char *slash = owner->api_version != NULL ? strchr(owner->api_version, '/') : NULL;
    const char *group = slash != NULL ? at_arena_strndup(p->arena, owner->api_version,
                                                         (size_t)(slash - owner->api_version))
                                      : "";
    const char *version = slash != NULL ? slash + 1 : ctl_text(owner->api_version);
    const struct at_model_kind *kind = at_model_kind_find(group, version, ctl_text(owner->kind));
    if (kind == NULL) {
        return true;
    }
    json_t *object =
        at_state_object(p->c->state, kind, kind->namespaced ? ns : NULL, ctl_text(owner->name));
    bool there = object != NULL && at_streq(at_object_uid_of(object), owner->uid);
    json_decref(object);
    return there;
}

static bool is_orphan(struct ctl_pass *p, const struct at_instance *i)
{
    for (size_t k = 0; k < i->meta.owners.n; k++) {
        if (owner_exists(p, &i->meta.owners.items[k], i->meta.ns)) {
            return false;
        }
    }
    return i->meta.owners.n > 0;
}

void ctl_instance(struct ctl_pass *p)
{
    const struct at_instance *i = at_snapshot_instance(p->snap, p->ns, p->name);
    if (i == NULL) {
        return;
    }
    bool placed = ctl_text(i->spec.node_name)[0] != '\0' && i->status.scheduled_at_wall_ns != 0;
    if (placed && at_snapshot_node(p->snap, i->spec.node_name) == NULL) {
        ctl_lose(p, i,
                 at_arena_printf(p->arena, "node %s does not exist any more", i->spec.node_name));
    }
    if (i->meta.deletion_wall_ns == 0 && p->item->writes == 0 && (ctl_lost(i) || is_orphan(p, i))) {
        ctl_delete(p, &AT_KIND_INSTANCE, &i->meta);
    }
}
