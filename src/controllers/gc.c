/* Instances that nobody stands for any more: their owner or their node has gone, or the node was
 * lost and they have been given up. */
#include "controllers/controllers_priv.h"

static bool is_orphan(struct ctl_pass *p, const struct at_instance *i)
{
    for (size_t k = 0; k < i->meta.owners.n; k++) {
        const struct at_owner_ref *o = &i->meta.owners.items[k];
        if (ctl_owner_exists(p, o->api_version, o->kind, i->meta.ns, o->name, o->uid)) {
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
