/* What nodes and sites say about themselves: how much is reserved, how many instances. These counts
 * may lag a little behind; no decision is made on them. */
#include "controllers/controllers_priv.h"

struct sums {
    int64_t instances, nodes, ready_nodes;
    struct at_resources reserved;
};

static void add_reserved(struct sums *s, const struct at_instance *i)
{
    const struct at_resources *r = i->spec.resources;
    s->instances++;
    if (r != NULL) {
        s->reserved.cpu_milli += r->cpu_milli;
        s->reserved.memory_bytes += r->memory_bytes;
        s->reserved.disk_bytes += r->disk_bytes;
        s->reserved.gpu_milli += r->gpu_milli;
    }
}

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
    struct sums s = {0};
    for (size_t k = 0; k < p->snap->n_instances; k++) {
        const struct at_instance *i = p->snap->instances[k];
        if (at_streq(i->spec.node_name, p->name) && !ctl_ended(i)) {
            add_reserved(&s, i);
        }
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
    for (size_t k = 0; k < p->snap->n_instances; k++) {
        const struct at_instance *i = p->snap->instances[k];
        s.instances += at_streq(i->status.site, p->name) && !ctl_ended(i) &&
                       ctl_text(i->spec.node_name)[0] != '\0';
    }
    ctl_update(p, &AT_KIND_SITE, NULL, p->name, set_site_counts, &s);
}
