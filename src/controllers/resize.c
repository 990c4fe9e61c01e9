/* A Deployment whose template differs from that of a copy in its share of a GPU only: the copy is
 * resized while it runs, when its GPU has room. What does not fit is replaced, as any other change
 * is. */
#include "controllers/resize.h"
#include "model/resize.h"
#include "scheduler/queue.h"

#include <assert.h>

#define GPU_MILLI 1000

static bool same_but_for_share(const json_t *object, const json_t *template_json)
{
    AT_CLEANUP(at_cleanup_json) json_t *own = json_deep_copy(json_object_get(object, "spec"));
    AT_CLEANUP(at_cleanup_json)
    json_t *wanted = json_deep_copy(json_object_get(template_json, "spec"));
    json_object_del(own, "nodeName");
    if (at_json_str_at(wanted, "model.digest", "")[0] == '\0') {
        json_object_del(json_object_get(own, "model"), "digest"); /* what its tag stood for */
        json_object_del(json_object_get(wanted, "model"), "digest");
    }
    at_model_drop_resizable(own);
    at_model_drop_resizable(wanted);
    if (!json_equal(own, wanted)) {
        return false;
    }
    AT_CLEANUP(at_cleanup_json)
    json_t *labels = json_deep_copy(at_json_at(object, "metadata.labels"));
    json_object_del(labels, CTL_LABEL_DEPLOYMENT);
    json_object_del(labels, CTL_LABEL_HASH);
    const json_t *asked = at_json_at(template_json, "metadata.labels");
    const json_t *notes = at_json_at(template_json, "metadata.annotations");
    bool same =
        json_object_size(asked) == 0 ? json_object_size(labels) == 0 : json_equal(labels, asked);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)notes, key, value)
    {
        same = same &&
               json_equal(json_object_get(at_json_at(object, "metadata.annotations"), key), value);
    }
    return same;
}

/* A part of one GPU is held by a library that is loaded when a program starts: whole ones have
 * none, so that they cannot become parts, nor parts whole ones. */
static bool is_part(const struct at_resources *r)
{
    return r != NULL && r->gpu_milli > 0 && r->gpu_milli <= GPU_MILLI &&
           (r->gpu_milli < GPU_MILLI || r->gpu_memory_bytes > 0);
}

static bool same_share(const struct at_resources *a, const struct at_resources *b)
{
    int64_t none = 0;
    const int64_t x[] = {a != NULL ? a->gpu_milli : none, a != NULL ? a->gpu_memory_bytes : none};
    const int64_t y[] = {b != NULL ? b->gpu_milli : none, b != NULL ? b->gpu_memory_bytes : none};
    return x[0] == y[0] && x[1] == y[1];
}

static int64_t memory_of(int64_t milli, int64_t memory_bytes, int64_t all)
{
    return memory_bytes > 0 ? memory_bytes : all * milli / GPU_MILLI;
}

struct room {
    int64_t milli, memory_bytes, all_bytes;
};

/* What of its GPU the others leave. Others that are parked come back: they count, unless it parks
 * too. */
static bool room_of(struct ctl_pass *p, const struct at_instance *i, struct room *ret)
{
    const struct at_instance_gpu *own = &i->status.gpus.items[0];
    const struct at_node *node = at_snapshot_node(p->snap, i->spec.node_name);
    const struct at_node_gpu *gpu = NULL;
    for (size_t k = 0; node != NULL && own->id != NULL && k < node->status.gpus.n; k++) {
        gpu = at_streq(node->status.gpus.items[k].id, own->id) ? &node->status.gpus.items[k] : gpu;
    }
    if (gpu == NULL || ctl_text(gpu->fault)[0] != '\0') {
        return false;
    }
    *ret = (struct room){GPU_MILLI, gpu->memory_bytes, gpu->memory_bytes};
    const struct ctl_group *on = ctl_index_node(p->c->index, i->spec.node_name);
    for (const struct ctl_link *l = on != NULL ? on->first : NULL; l != NULL; l = l->next) {
        const struct at_instance *x = ctl_index_instance(p->snap, l->seen);
        if (x == NULL || x == i || ctl_ended(x) || (ctl_parks(i) && ctl_holds_nothing(x))) {
            continue;
        }
        for (size_t k = 0; k < x->status.gpus.n; k++) {
            const struct at_instance_gpu *g = &x->status.gpus.items[k];
            if (at_streq(g->id, own->id)) {
                ret->milli -= g->milli;
                ret->memory_bytes -= memory_of(g->milli, g->memory_bytes, ret->all_bytes);
            }
        }
    }
    return true;
}

static const char *share_text(struct ctl_pass *p, const struct at_resources *r)
{
    char milli[AT_UNITS_TEXT_BYTES_MAX], memory[AT_UNITS_TEXT_BYTES_MAX];
    at_quantity_format_milli(r->gpu_milli, milli);
    return r->gpu_memory_bytes > 0
               ? at_arena_printf(p->arena, "%s with %s", milli,
                                 at_quantity_format_bytes(r->gpu_memory_bytes, memory))
               : at_arena_printf(p->arena, "%s", milli);
}

/* Written with the label that makes it a copy of the new template: both or neither. */
struct change {
    const json_t *template_json;
    const char *hash, *message, *time;
    const struct at_resources *to;
    bool share; /* else only when it is parked */
};

static void put_leaf(json_t *spec, const json_t *from, const char *of, const char *leaf)
{
    json_t *value = json_object_get(json_object_get(from, of), leaf);
    json_t *at = json_object_get(spec, of);
    if (value == NULL) {
        json_object_del(at, leaf);
        if (at != NULL && json_object_size(at) == 0 && json_object_get(from, of) == NULL) {
            json_object_del(spec, of);
        }
        return;
    }
    if (at == NULL) {
        at = json_object();
        json_object_set_new(spec, of, at);
    }
    json_object_set(at, leaf, value);
}

static bool change(void *ctx, json_t *object)
{
    const struct change *c = ctx;
    json_t *spec = json_object_get(object, "spec");
    const json_t *from = json_object_get(c->template_json, "spec");
    json_t *labels = at_json_at(object, "metadata.labels");
    json_t *gpu = json_array_get(at_json_at(object, "status.gpus"), 0);
    char memory[AT_UNITS_TEXT_BYTES_MAX];
    if (at_object_deleting(object) || !same_but_for_share(object, c->template_json) ||
        (c->share && gpu == NULL)) {
        return false; /* another one has come between */
    }
    put_leaf(spec, from, "resources", "gpu");
    put_leaf(spec, from, "resources", "gpuMemory");
    put_leaf(spec, from, "gpuSharing", "parkAfter");
    json_object_set_new(labels, CTL_LABEL_HASH, json_string(c->hash));
    if (c->share) {
        json_object_set_new(gpu, "milli", json_integer(c->to->gpu_milli));
        json_object_del(gpu, "memory");
        if (c->to->gpu_memory_bytes > 0) {
            json_object_set_new(
                gpu, "memory",
                json_string(at_quantity_format_bytes(c->to->gpu_memory_bytes, memory)));
        }
        at_json_set_at(
            object, "status.resize",
            json_pack("{s:s,s:s,s:s}", "state", "Done", "message", c->message, "since", c->time));
    }
    return true;
}

static enum ctl_resize write(struct ctl_pass *p, const struct at_instance *i,
                             const struct at_resources *to, const json_t *template_json,
                             const char *hash)
{
    char time[AT_UNITS_TEXT_BYTES_MAX];
    struct change c = {.template_json = template_json,
                       .hash = hash,
                       .to = to,
                       .time = at_time_format_micro(p->wall_ns, time),
                       .message = "",
                       .share = !same_share(i->spec.resources, to)};
    if (c.share) {
        c.message = at_arena_printf(p->arena, "its share of a GPU is %s, was %s", share_text(p, to),
                                    share_text(p, i->spec.resources));
    }
    ctl_update(p, &AT_KIND_INSTANCE, i->meta.ns, i->meta.name, change, &c);
    if (c.share && p->c->writes_left != 0) {
        at_state_event(p->c->state, &AT_KIND_INSTANCE, &i->meta, false, "Resized", "%s", c.message);
    }
    return CTL_RESIZE_DONE;
}

/* What is made anew is counted against quotas before it is there: where any bounds the namespace,
 * more is had by that door only. */
static bool is_bounded(struct ctl_pass *p, const struct at_instance *i)
{
    const struct at_namespace *ns = at_snapshot_namespace(p->snap, i->meta.ns);
    bool bounded = ctl_text(i->spec.queue)[0] != '\0' ||
                   (ns != NULL && at_model_map_get(&ns->meta.labels, AT_QUEUE_LABEL) != NULL);
    for (size_t k = 0; k < p->snap->n_quotas && !bounded; k++) {
        bounded = at_streq(p->snap->quotas[k]->meta.ns, i->meta.ns);
    }
    for (size_t k = 0; k < p->snap->n_limit_ranges && !bounded; k++) {
        bounded = at_streq(p->snap->limit_ranges[k]->meta.ns, i->meta.ns);
    }
    return bounded;
}

enum ctl_resize ctl_resize(struct ctl_pass *p, const struct at_instance *i,
                           const struct at_deployment *d, const json_t *template_json,
                           const char *hash, bool *grown)
{
    const struct at_workload *spec = d->spec.template != NULL ? d->spec.template->spec : NULL;
    const struct at_resources *from = i->spec.resources,
                              *to = spec != NULL ? spec->resources : NULL;
    bool share = !same_share(from, to);
    if (ctl_ended(i) || (share && (!is_part(from) || !is_part(to)))) {
        return CTL_RESIZE_NOT;
    }
    AT_CLEANUP(at_cleanup_json)
    json_t *object = at_state_object(p->c->state, &AT_KIND_INSTANCE, i->meta.ns, i->meta.name);
    if (object == NULL || !same_but_for_share(object, template_json)) {
        return CTL_RESIZE_NOT;
    }
    if (!share) {
        return write(p, i, to, template_json, hash);
    }
    struct room room;
    if (ctl_text(i->spec.node_name)[0] == '\0' || i->status.gpus.n != 1 || !room_of(p, i, &room)) {
        return CTL_RESIZE_NOT; /* one that waits is made anew, which costs nothing */
    }
    int64_t wants = memory_of(to->gpu_milli, to->gpu_memory_bytes, room.all_bytes);
    int64_t held = i->status.gpu_use.n > 0 ? i->status.gpu_use.items[0].used_bytes : 0;
    if (to->gpu_milli > room.milli || wants > room.memory_bytes || held > wants) {
        return CTL_RESIZE_NOT;
    }
    bool grows = to->gpu_milli > from->gpu_milli ||
                 wants > memory_of(from->gpu_milli, from->gpu_memory_bytes, room.all_bytes);
    if (grows && is_bounded(p, i)) {
        return CTL_RESIZE_NOT;
    }
    if (grows && *grown) {
        return CTL_RESIZE_LATER; /* the snapshot does not show yet what the first one took */
    }
    *grown = *grown || grows;
    return write(p, i, to, template_json, hash);
}
