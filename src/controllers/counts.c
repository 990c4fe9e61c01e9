/* What nodes and sites say about themselves: how much is reserved, how many instances. These counts
 * may lag a little behind; no decision is made on them. */
#include "controllers/controllers_priv.h"

struct sums {
    int64_t instances, nodes, ready_nodes;
    struct ctl_group reserved;
};

static bool set_node_counts(void *ctx, json_t *object)
{
    const struct sums *s = ctx;
    char text[AT_UNITS_TEXT_BYTES_MAX];
    at_json_set_at(object, "status.instances", json_integer(s->instances));
    at_json_set_at(object, "status.allocated.cpu",
                   json_string(at_quantity_format_milli(s->reserved.cpu_milli, text)));
    at_json_set_at(object, "status.allocated.memory",
                   json_string(at_quantity_format_bytes(s->reserved.memory_bytes, text)));
    at_json_set_at(object, "status.allocated.disk",
                   s->reserved.disk_bytes > 0
                       ? json_string(at_quantity_format_bytes(s->reserved.disk_bytes, text))
                       : NULL);
    at_json_set_at(object, "status.allocated.gpu",
                   s->reserved.gpu_milli > 0
                       ? json_string(at_quantity_format_milli(s->reserved.gpu_milli, text))
                       : NULL);
    return true;
}

void ctl_node_counts(struct ctl_pass *p)
{
    if (at_snapshot_node(p->snap, p->name) == NULL) {
        return;
    }
    const struct ctl_group *on = ctl_index_node(p->c->index, p->name);
    struct sums s = {0};
    if (on != NULL) {
        s = (struct sums){.instances = on->alive,
                          .reserved = {.cpu_milli = on->cpu_milli,
                                       .memory_bytes = on->memory_bytes,
                                       .disk_bytes = on->disk_bytes,
                                       .gpu_milli = on->gpu_milli}};
    }
    ctl_update(p, &AT_KIND_NODE, NULL, p->name, set_node_counts, &s);
}

static bool set_site_counts(void *ctx, json_t *object)
{
    const struct sums *s = ctx;
    at_json_set_at(object, "status.nodes", json_integer(s->nodes));
    at_json_set_at(object, "status.readyNodes", json_integer(s->ready_nodes));
    at_json_set_at(object, "status.instances", json_integer(s->instances));
    return true;
}

void ctl_site_counts(struct ctl_pass *p)
{
    if (at_snapshot_site(p->snap, p->name) == NULL) {
        return;
    }
    struct sums s = {0};
    for (size_t k = 0; k < p->snap->n_nodes; k++) {
        if (at_streq(p->snap->nodes[k]->spec.site, p->name)) {
            s.nodes++;
            s.ready_nodes += ctl_node_ready(p->snap->nodes[k]);
        }
    }
    const struct ctl_group *at = ctl_index_site(p->c->index, p->name);
    s.instances = at != NULL ? at->alive : 0;
    ctl_update(p, &AT_KIND_SITE, NULL, p->name, set_site_counts, &s);
}
