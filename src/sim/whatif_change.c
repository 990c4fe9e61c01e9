/* What-ifs that change the fleet before the replay begins: nodes that are added; and whether what
 * is to be lost is there. */
#include "core/mem.h"
#include "sim/whatif_priv.h"

#include <stdio.h>
#include <string.h>

#define CORES_PER_GPU 16
#define GIB_PER_GPU 128
#define CORES_WITHOUT_GPU 64
#define GIB_WITHOUT_GPU 256
#define GPUS_DEFAULT 8
#define CPU_ONLY "cpu"

static const struct at_node *node_at(const struct at_fleet *f, size_t change)
{
    const struct at_fleet_change *c = &f->changes[change];
    return c->kind == &AT_KIND_NODE && c->object != NULL ? c->object : NULL;
}

static bool same_model(const struct at_node *n, const struct at_whatif_add *add)
{
    if (strcmp(add->model, CPU_ONLY) == 0) {
        return n->status.gpus.n == 0;
    }
    return n->status.gpus.n > 0 && at_streq(n->status.gpus.items[0].model, add->model) &&
           (add->gpus == 0 || n->status.gpus.n == add->gpus);
}

/* The first node of the fleet that is of the same kind; NULL: there is none. */
static const struct at_node *example_of(const struct at_fleet *f, const struct at_whatif_add *add)
{
    for (size_t i = 0; i < f->n_changes; i++) {
        const struct at_node *n = node_at(f, i);
        if (n != NULL && same_model(n, add)) {
            return n;
        }
    }
    return NULL;
}

/* Where most nodes stand. */
static const char *main_site(const struct at_fleet *f)
{
    struct at_map *count = at_map_new();
    const char *best = "cluster";
    size_t most = 0;
    for (size_t i = 0; i < f->n_changes; i++) {
        const struct at_node *n = node_at(f, i);
        if (n != NULL && n->spec.site != NULL) {
            size_t seen = (size_t)(uintptr_t)at_map_get(count, n->spec.site) + 1;
            (void)at_map_put(count, n->spec.site, (void *)(uintptr_t)seen);
            best = seen > most ? n->spec.site : best;
            most = seen > most ? seen : most;
        }
    }
    at_map_free(count);
    return best;
}

static bool site_is_there(const struct at_fleet *f, const char *site)
{
    for (size_t i = 0; i < f->n_changes; i++) {
        const struct at_node *n = node_at(f, i);
        bool is_site = f->changes[i].kind == &AT_KIND_SITE && f->changes[i].object != NULL;
        if ((n != NULL && at_streq(n->spec.site, site)) ||
            (is_site && strcmp(f->changes[i].name, site) == 0)) {
            return true;
        }
    }
    return false;
}

static struct at_node *make_node(struct at_fleet *f, const struct at_whatif_add *add,
                                 const char *name, const char *site)
{
    const struct at_node *like = example_of(f, add);
    bool cpu_only = strcmp(add->model, CPU_ONLY) == 0;
    if (like != NULL) {
        struct at_node *n = at_arena_alloc(f->arena, sizeof *n);
        if (n != NULL) {
            *n = *like;
            n->meta.name = at_arena_strdup(f->arena, name);
            n->spec.site = at_arena_strdup(f->arena, site);
            n->spec.unschedulable = false;
        }
        return n;
    }
    uint32_t gpus = cpu_only ? 0 : add->gpus > 0 ? add->gpus : GPUS_DEFAULT;
    int64_t cores = cpu_only ? CORES_WITHOUT_GPU : (int64_t)gpus * CORES_PER_GPU;
    int64_t gib = cpu_only ? GIB_WITHOUT_GPU : (int64_t)gpus * GIB_PER_GPU;
    return at_fleet_make_node(f, name, site, cores * 1000, gib << 30, gpus,
                              cpu_only ? "" : add->model);
}

static enum at_rc add_nodes(struct at_fleet *f, const struct at_whatif_add *add, size_t turn,
                            struct at_err *err)
{
    const char *site = add->site[0] != '\0' ? add->site : main_site(f);
    enum at_rc rc = AT_OK;
    if (!site_is_there(f, site)) {
        return at_err_set(err, AT_BAD_REQUEST, "nodes to add: no site '%s' in the trace", site);
    }
    for (uint32_t i = 0; rc == AT_OK && i < add->count; i++) {
        char name[160];
        snprintf(name, sizeof name, "added-%zu-%s-%u", turn, add->model, i);
        struct at_node *n = make_node(f, add, name, site);
        struct at_fleet_change c = {.kind = &AT_KIND_NODE, .object = n};
        if (n == NULL) {
            return at_err_set(err, AT_TOO_LARGE, "too many nodes to add");
        }
        c.name = n->meta.name;
        rc = at_fleet_change(f, &c, err);
    }
    return rc;
}

enum at_rc wi_change_fleet(struct at_fleet *f, const struct at_whatif *what, struct at_err *err)
{
    enum at_rc rc = AT_OK;
    for (size_t i = 0; rc == AT_OK && i < what->n_adds; i++) {
        rc = add_nodes(f, &what->adds[i], i + 1, err);
    }
    for (size_t i = 0; rc == AT_OK && i < what->n_losses; i++) {
        if (!site_is_there(f, what->losses[i].site)) {
            rc = at_err_set(err, AT_BAD_REQUEST, "a site to lose: no site '%s' in the trace",
                            what->losses[i].site);
        }
    }
    if (rc == AT_OK && f->n_nodes == 0) {
        rc = at_err_set(err, AT_INVALID, "no nodes");
    }
    if (rc == AT_OK && what->n_adds > 0) {
        at_fleet_sort(f);
    }
    return rc;
}
