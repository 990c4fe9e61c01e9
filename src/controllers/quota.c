/* What quotas say about themselves. The figures are for people: whoever asks for more is answered
 * by what is there (state/quota.h), never by what is written here. */
#include "state/quota.h"
#include "controllers/controllers_priv.h"

static const struct at_resource_quota *quota_find(const struct ctl_pass *p)
{
    for (size_t i = 0; i < p->snap->n_quotas; i++) {
        const struct at_resource_quota *q = p->snap->quotas[i];
        if (at_streq(q->meta.ns, p->ns) && at_streq(q->meta.name, p->name)) {
            return q;
        }
    }
    return NULL;
}

/* "cpu: 1/2, instances: 3/10" */
static const char *summary(const struct ctl_pass *p, const struct at_resource_quota *q,
                           const json_t *used)
{
    const char *text = "";
    for (size_t i = 0; i < q->spec.hard.n; i++) {
        const struct at_model_kv *hard = &q->spec.hard.items[i];
        const char *now = json_string_value(json_object_get(used, hard->key));
        const char *next = at_arena_printf(p->arena, "%s%s%s: %s/%s", text, i > 0 ? ", " : "",
                                           hard->key, now != NULL ? now : "0", hard->value);
        text = next != NULL ? next : text;
    }
    return text;
}

static bool is_same(const struct at_model_map *map, const json_t *object)
{
    size_t same = 0;
    for (size_t i = 0; i < map->n; i++) {
        same += at_streq(json_string_value(json_object_get(object, map->items[i].key)),
                         map->items[i].value);
    }
    return same == map->n && same == json_object_size(object);
}

struct figures {
    json_t *hard, *used;
    const char *summary;
};

static bool set_status(void *ctx, json_t *object)
{
    const struct figures *f = ctx;
    json_object_set_new(
        object, "status",
        json_pack("{s:O, s:O, s:s}", "hard", f->hard, "used", f->used, "summary", f->summary));
    return true;
}

void ctl_quota(struct ctl_pass *p)
{
    const struct at_resource_quota *q = quota_find(p);
    if (q == NULL) {
        return;
    }
    AT_CLEANUP(at_cleanup_json) json_t *hard = json_object();
    for (size_t i = 0; i < q->spec.hard.n; i++) {
        json_object_set_new(hard, q->spec.hard.items[i].key,
                            json_string(q->spec.hard.items[i].value));
    }
    AT_CLEANUP(at_cleanup_json) json_t *used = at_quota_used(p->c->state, q);
    if (!is_same(&q->status.hard, hard) || !is_same(&q->status.used, used)) {
        struct figures f = {hard, used, summary(p, q, used)};
        ctl_update(p, &AT_KIND_RESOURCE_QUOTA, p->ns, p->name, set_status, &f);
    }
}

void ctl_quota_route(struct at_controllers *c, const struct at_snapshot *snap,
                     const struct at_model_kind *kind, const char *ns, const char *name)
{
    if (kind == &AT_KIND_RESOURCE_QUOTA) {
        ctl_enqueue(c, CTL_QUOTA, ns, name);
        ctl_retry_refused(c, ns); /* there may be room now */
    }
    for (size_t i = 0; ns != NULL && kind != &AT_KIND_EVENT && i < snap->n_quotas; i++) {
        if (at_streq(snap->quotas[i]->meta.ns, ns)) {
            ctl_enqueue_after(c, CTL_QUOTA, ns, snap->quotas[i]->meta.name, CTL_QUOTA_DELAY_NS);
        }
    }
    if (kind == &AT_KIND_LIMIT_RANGE) {
        ctl_retry_refused(c, ns);
    }
}
