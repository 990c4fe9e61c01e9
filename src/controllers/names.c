/* Which Deployments serve a model under the same name: gateways give the plain name to the oldest,
 * whatever its namespace, so the others are told. */
#include "controllers/controllers_priv.h"

#include <string.h>

struct name_holder {
    char *key; /* "<ns>/<name>" of a Deployment */
    char *ns;
    int64_t created_wall_ns;
};

/* Deployments of one model's name. */
struct ctl_name {
    struct name_holder *items;
    size_t n;
};

/* The name that it is asked for by; NULL: it serves no model. */
static const char *model_of(const struct at_deployment *d)
{
    const struct at_traffic *t = d->spec.traffic;
    const struct at_workload *w = d->spec.template != NULL ? d->spec.template->spec : NULL;
    if (t != NULL && t->model != NULL && t->model[0] != '\0') {
        return t->model;
    }
    if (w == NULL || w->model == NULL) {
        return NULL;
    }
    return w->model->name != NULL && w->model->name[0] != '\0' ? w->model->name : d->meta.name;
}

static void look_again(struct at_controllers *c, const struct ctl_name *name)
{
    for (size_t k = 0; k < name->n; k++) {
        const char *key = name->items[k].key;
        ctl_enqueue(c, CTL_DEPLOYMENT, name->items[k].ns, strchr(key, '/') + 1);
    }
}

static void name_free(struct ctl_name *name)
{
    for (size_t k = 0; k < name->n; k++) {
        at_free(name->items[k].key);
        at_free(name->items[k].ns);
    }
    at_free(name->items);
    at_free(name);
}

static void leave(struct at_controllers *c, const char *model, const char *key)
{
    struct ctl_name *name = at_map_get(c->names, model);
    for (size_t k = 0; name != NULL && k < name->n; k++) {
        if (strcmp(name->items[k].key, key) == 0) {
            at_free(name->items[k].key);
            at_free(name->items[k].ns);
            name->items[k] = name->items[--name->n];
            look_again(c, name);
            break;
        }
    }
    if (name != NULL && name->n == 0) {
        at_map_remove(c->names, model);
        name_free(name);
    }
}

static void join(struct at_controllers *c, const char *model, const char *key,
                 const struct at_meta *meta)
{
    struct ctl_name *name = at_map_get(c->names, model);
    if (name == NULL) {
        name = AT_NEW(struct ctl_name);
        at_map_put(c->names, model, name);
    }
    look_again(c, name);
    name->items = at_realloc(name->items, (name->n + 1) * sizeof *name->items);
    name->items[name->n++] = (struct name_holder){.key = at_strdup(key),
                                                  .ns = at_strdup(meta->ns),
                                                  .created_wall_ns = meta->creation_wall_ns};
}

void ctl_names_route(struct at_controllers *c, const struct at_snapshot *snap, const char *ns,
                     const char *deployment)
{
    const struct at_deployment *d = at_snapshot_deployment(snap, ns, deployment);
    const char *now = d != NULL && d->meta.deletion_wall_ns == 0 ? model_of(d) : NULL;
    AT_CLEANUP(at_cleanup_free) char *key = at_asprintf("%s/%s", ns, deployment);
    char *before = at_map_get(c->name_of, key);
    if (at_streq(before, now)) {
        return;
    }
    at_map_remove(c->name_of, key);
    if (before != NULL) {
        leave(c, before, key);
        at_free(before);
    }
    if (now != NULL) {
        at_map_put(c->name_of, key, at_strdup(now));
        join(c, now, key, &d->meta);
    }
}

void ctl_names_done(struct at_controllers *c)
{
    void *value;
    for (size_t it = 0; at_map_next(c->names, &it, NULL, &value);) {
        name_free(value);
    }
    for (size_t it = 0; at_map_next(c->name_of, &it, NULL, &value);) {
        at_free(value);
    }
    at_map_free(c->names);
    at_map_free(c->name_of);
}

/* As gateways do (gateway/table.c): the oldest has it, then the first by namespace. */
static const struct name_holder *owner_of(const struct ctl_name *name)
{
    const struct name_holder *best = NULL;
    for (size_t k = 0; name != NULL && k < name->n; k++) {
        const struct name_holder *h = &name->items[k];
        if (best == NULL || h->created_wall_ns < best->created_wall_ns ||
            (h->created_wall_ns == best->created_wall_ns && strcmp(h->ns, best->ns) < 0)) {
            best = h;
        }
    }
    return best;
}

const char *ctl_name_taken(struct ctl_pass *p, const struct at_deployment *d)
{
    const char *model = model_of(d);
    const struct name_holder *owner =
        model != NULL ? owner_of(at_map_get(p->c->names, model)) : NULL;
    if (owner == NULL || strcmp(owner->ns, d->meta.ns) == 0) {
        return NULL;
    }
    /* Whose it is, is no business of another tenant's. */
    return at_arena_printf(p->arena,
                           "model %s: requests by this name go to an older Deployment of another "
                           "namespace; ask for %s/%s, or give it another name in "
                           "spec.traffic.model",
                           model, d->meta.ns, model);
}
