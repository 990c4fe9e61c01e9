/* A small world for the scheduler's tests, made of plain structs. */
#ifndef AT_SCHEDULER_WORLD_TEST_H
#define AT_SCHEDULER_WORLD_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/str.h"
#include "scheduler/scheduler.h"

#define WORLD_MAX 64
#define GIB (INT64_C(1) << 30)

struct world {
    struct at_arena *arena;
    struct at_site *sites[WORLD_MAX];
    struct at_node *nodes[WORLD_MAX];
    struct at_instance *instances[WORLD_MAX]; /* bound and pending */
    struct at_policy *policies[WORLD_MAX];
    size_t n_sites, n_nodes, n_instances, n_policies;
    struct at_sched_plan plan;
};

static inline void *world_alloc(struct world *w, size_t bytes)
{
    void *p = at_arena_alloc(w->arena, bytes);
    assert_non_null(p);
    return p;
}
#define WORLD_NEW(w, type) ((type *)world_alloc((w), sizeof(type)))

static inline void world_init(struct world *w)
{
    memset(w, 0, sizeof(*w));
    w->arena = at_arena_new(0);
}
static inline void world_done(struct world *w)
{
    at_arena_free(w->arena);
}

static inline struct at_site *world_site(struct world *w, const char *name, const char *class,
                                         const char *jurisdiction)
{
    struct at_site *s = WORLD_NEW(w, struct at_site);
    s->meta.name = at_arena_strdup(w->arena, name);
    s->spec.class = class;
    s->spec.jurisdiction = jurisdiction;
    w->sites[w->n_sites++] = s;
    return s;
}

static inline void world_price(struct world *w, struct at_site *site, int64_t cpu_hour_microusd)
{
    struct at_site_prices *p = WORLD_NEW(w, struct at_site_prices);
    p->cpu_hour_microusd = cpu_hour_microusd;
    site->spec.prices = p;
}

static inline struct at_node *world_node(struct world *w, const char *name, const char *site,
                                         int64_t cpu_milli, int64_t memory_bytes)
{
    static struct at_condition ready = {.type = "Ready", .status = "True"};
    static struct at_node_driver process = {.name = "process", .ready = true};
    struct at_node *n = WORLD_NEW(w, struct at_node);
    n->meta.name = at_arena_strdup(w->arena, name);
    n->spec.site = at_arena_strdup(w->arena, site);
    n->status.conditions.items = &ready;
    n->status.conditions.n = 1;
    n->status.drivers.items = &process;
    n->status.drivers.n = 1;
    struct at_resources *r = WORLD_NEW(w, struct at_resources);
    r->cpu_milli = cpu_milli;
    r->memory_bytes = memory_bytes;
    r->disk_bytes = 100 * GIB;
    n->status.allocatable = r;
    w->nodes[w->n_nodes++] = n;
    return n;
}

static inline void world_gpus(struct world *w, struct at_node *node, size_t count,
                              const char *model, int64_t memory_bytes)
{
    node->status.gpus.items = world_alloc(w, sizeof(struct at_node_gpu) * (count + 1));
    node->status.gpus.n = count;
    for (size_t i = 0; i < count; i++) {
        node->status.gpus.items[i] =
            (struct at_node_gpu){.id = "gpu", .model = model, .memory_bytes = memory_bytes};
    }
    ((struct at_resources *)node->status.allocatable)->gpu_milli = (int64_t)count * 1000;
}

/* A pending instance of owner (NULL: none). */
static inline struct at_instance *world_instance(struct world *w, const char *name,
                                                 const char *owner, int64_t cpu_milli)
{
    struct at_instance *i = WORLD_NEW(w, struct at_instance);
    i->meta.name = at_arena_strdup(w->arena, name);
    i->meta.ns = "default";
    if (owner != NULL) {
        struct at_owner_ref *ref = WORLD_NEW(w, struct at_owner_ref);
        *ref = (struct at_owner_ref){"atoll.dev/v1", "Deployment", at_arena_strdup(w->arena, owner),
                                     "uid",          true,         true};
        i->meta.owners.items = ref;
        i->meta.owners.n = 1;
    }
    struct at_resources *r = WORLD_NEW(w, struct at_resources);
    r->cpu_milli = cpu_milli;
    i->spec.resources = r;
    i->spec.placement = WORLD_NEW(w, struct at_placement);
    i->status.phase = "Pending";
    w->instances[w->n_instances++] = i;
    return i;
}
static inline struct at_resources *wants(struct at_instance *i)
{
    return (struct at_resources *)i->spec.resources;
}
static inline struct at_placement *places(struct at_instance *i)
{
    return (struct at_placement *)i->spec.placement;
}

static inline void world_bind(struct at_instance *i, const char *node, int64_t at)
{
    i->spec.node_name = node;
    i->status.phase = "Running";
    i->status.scheduled_at_wall_ns = at;
}

static inline struct at_model_strings strings_of(struct world *w, const char *one)
{
    struct at_model_strings list = {.items = world_alloc(w, sizeof(char *)), .n = 1};
    list.items[0] = one;
    return list;
}

static inline struct at_snapshot world_snapshot(const struct world *w)
{
    return (struct at_snapshot){
        .rev = 1,
        .sites = (const struct at_site *const *)w->sites,
        .n_sites = w->n_sites,
        .nodes = (const struct at_node *const *)w->nodes,
        .n_nodes = w->n_nodes,
        .instances = (const struct at_instance *const *)w->instances,
        .n_instances = w->n_instances,
        .policies = (const struct at_policy *const *)w->policies,
        .n_policies = w->n_policies,
    };
}

/* Schedule all that is pending; the plan stays in w. */
static inline void world_schedule(struct world *w)
{
    const struct at_instance *pending[WORLD_MAX];
    size_t n = 0;
    for (size_t i = 0; i < w->n_instances; i++) {
        if (w->instances[i]->spec.node_name == NULL) {
            pending[n++] = w->instances[i];
        }
    }
    struct at_snapshot snap = world_snapshot(w);
    assert_int_equal(at_schedule(&snap, pending, n, 0, w->arena, &w->plan), AT_OK);
    assert_int_equal(w->plan.n, n);
}

static inline const struct at_sched_decision *world_decision(const struct world *w,
                                                             const char *name)
{
    for (size_t i = 0; i < w->plan.n; i++) {
        if (at_streq(w->plan.decisions[i].instance->meta.name, name)) {
            return &w->plan.decisions[i];
        }
    }
    fail_msg("no decision for %s", name);
    return NULL;
}
static inline const char *world_where(const struct world *w, const char *name)
{
    const struct at_sched_decision *d = world_decision(w, name);
    return d->node != NULL ? d->node->meta.name : NULL;
}

#endif
