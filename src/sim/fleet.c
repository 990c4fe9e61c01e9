#include "sim/fleet.h"

#include "core/mem.h"

#include <stdlib.h>
#include <string.h>

struct at_fleet *at_fleet_new(void)
{
    struct at_fleet *f = AT_NEW(struct at_fleet);
    f->arena = at_arena_new(AT_FLEET_BYTES_MAX);
    f->node_index = at_map_new();
    f->class_index = at_map_new();
    f->kept = json_array();
    return f;
}

void at_fleet_free(struct at_fleet *f)
{
    if (f == NULL) {
        return;
    }
    at_map_free(f->node_index);
    at_map_free(f->class_index);
    at_free(f->node_names);
    at_free(f->changes);
    at_free(f->classes);
    at_free(f->requests);
    at_free(f->decided_ms);
    json_decref(f->kept);
    at_arena_free(f->arena);
    at_free(f);
}

/* Room for one more of size bytes. */
static void *grow(void *list, size_t n, size_t *cap, size_t size)
{
    if (n < *cap) {
        return list;
    }
    *cap = *cap == 0 ? 64 : *cap * 2;
    return at_realloc(list, *cap * size);
}

static size_t index_of(const struct at_map *map, const char *key)
{
    return (size_t)(uintptr_t)at_map_get(map, key); /* 0: absent */
}

uint32_t at_fleet_node(struct at_fleet *f, const char *name)
{
    size_t at = index_of(f->node_index, name);
    if (at == 0) {
        f->node_names = grow(f->node_names, f->n_nodes, &f->nodes_cap, sizeof *f->node_names);
        f->node_names[f->n_nodes++] = at_arena_strdup(f->arena, name);
        at = f->n_nodes;
        (void)at_map_put(f->node_index, name, (void *)(uintptr_t)at);
    }
    return (uint32_t)(at - 1);
}

/* The index of a GPU model; the last one stands for all that are too many. */
static uint32_t model_index(struct at_fleet *f, const char *name)
{
    const char *model = name != NULL ? name : "";
    for (uint32_t i = 0; i < f->n_models; i++) {
        if (at_streq(f->models[i], model)) {
            return i;
        }
    }
    if (f->n_models == AT_PACK_MODELS_MAX) {
        return AT_PACK_MODELS_MAX - 1;
    }
    f->models[f->n_models] = at_arena_strdup(f->arena, model);
    return (uint32_t)f->n_models++;
}

enum at_rc at_fleet_change(struct at_fleet *f, const struct at_fleet_change *change,
                           struct at_err *err)
{
    if (f->n_changes == AT_FLEET_CHANGES_MAX) {
        return at_err_set(err, AT_TOO_LARGE, "more than %d changes of objects",
                          AT_FLEET_CHANGES_MAX);
    }
    f->changes = grow(f->changes, f->n_changes, &f->changes_cap, sizeof *f->changes);
    f->changes[f->n_changes] = *change;
    if (change->kind == &AT_KIND_NODE) {
        f->changes[f->n_changes].node = at_fleet_node(f, change->name);
    }
    f->n_changes++;
    return AT_OK;
}

static int64_t within(int64_t v, int64_t max)
{
    return v < 0 ? 0 : v > max ? max : v;
}

static struct at_pack_request pack_of(struct at_fleet *f, const struct at_workload *spec)
{
    struct at_pack_request p = {0};
    const struct at_resources *r = spec->resources;
    if (r == NULL) {
        return p;
    }
    p.cpu_milli = within(r->cpu_milli, AT_PACK_AMOUNT_MAX);
    p.memory_mib =
        within((r->memory_bytes >> 20) + ((r->memory_bytes & 0xfffff) != 0), AT_PACK_AMOUNT_MAX);
    if (r->gpu_milli > 0) { /* a fraction shares one GPU; more than one is rounded up */
        bool share = r->gpu_milli < AT_PACK_GPU_MILLI;
        int64_t whole = (r->gpu_milli - 1) / AT_PACK_GPU_MILLI + 1;
        p.gpus = share ? 1 : (uint32_t)within(whole, 1 << 20);
        p.gpu_milli = share ? (uint32_t)r->gpu_milli : AT_PACK_GPU_MILLI;
        for (size_t i = 0; i < r->gpu_models.n; i++) {
            p.models |= UINT64_C(1) << model_index(f, r->gpu_models.items[i]);
        }
    }
    return p;
}

enum at_rc at_fleet_class(struct at_fleet *f, const char *key, const struct at_instance *like,
                          uint32_t *ret, struct at_err *err)
{
    size_t at = index_of(f->class_index, key);
    if (at == 0) {
        if (f->n_classes == AT_PACK_CLASSES_MAX) {
            return at_err_set(err, AT_TOO_LARGE, "more than %d different requests",
                              AT_PACK_CLASSES_MAX);
        }
        f->classes = grow(f->classes, f->n_classes, &f->classes_cap, sizeof *f->classes);
        f->classes[f->n_classes++] = (struct at_fleet_class){like, pack_of(f, &like->spec)};
        at = f->n_classes;
        (void)at_map_put(f->class_index, key, (void *)(uintptr_t)at);
    }
    *ret = (uint32_t)(at - 1);
    return AT_OK;
}

enum at_rc at_fleet_request(struct at_fleet *f, const struct at_fleet_request *request,
                            struct at_err *err)
{
    if (f->n_requests == AT_FLEET_REQUESTS_MAX) {
        return at_err_set(err, AT_TOO_LARGE, "more than %d requests", AT_FLEET_REQUESTS_MAX);
    }
    f->requests = grow(f->requests, f->n_requests, &f->requests_cap, sizeof *f->requests);
    f->requests[f->n_requests++] = *request;
    return AT_OK;
}

static int cmp_change(const void *a, const void *b)
{
    const struct at_fleet_change *x = a, *y = b;
    return x->at_ms < y->at_ms ? -1 : x->at_ms > y->at_ms;
}

static int cmp_request(const void *a, const void *b)
{
    const struct at_fleet_request *x = a, *y = b;
    if (x->at_ms != y->at_ms) {
        return x->at_ms < y->at_ms ? -1 : 1;
    }
    if (x->created_wall_ns != y->created_wall_ns) {
        return x->created_wall_ns < y->created_wall_ns ? -1 : 1;
    }
    int c = strcmp(x->ns, y->ns);
    return c != 0 ? c : strcmp(x->name, y->name);
}

/* Merge sort keeps the order of equals, which qsort does not promise. */
static void sort_changes(struct at_fleet_change *list, struct at_fleet_change *scratch, size_t n)
{
    if (n < 2) {
        return;
    }
    size_t half = n / 2, a = 0, b = half;
    sort_changes(list, scratch, half);
    sort_changes(list + half, scratch, n - half);
    for (size_t i = 0; i < n; i++) {
        bool left = b == n || (a < half && cmp_change(&list[a], &list[b]) <= 0);
        scratch[i] = left ? list[a++] : list[b++];
    }
    memcpy(list, scratch, n * sizeof *list);
}

void at_fleet_sort(struct at_fleet *f)
{
    AT_CLEANUP(at_cleanup_free)
    struct at_fleet_change *scratch = at_alloc((f->n_changes + 1) * sizeof *scratch);
    sort_changes(f->changes, scratch, f->n_changes);
    if (f->n_requests > 0) {
        qsort(f->requests, f->n_requests, sizeof *f->requests, cmp_request);
    }
    for (size_t i = 0; i < f->n_changes; i++) {
        f->end_ms = f->changes[i].at_ms > f->end_ms ? f->changes[i].at_ms : f->end_ms;
    }
    for (size_t i = 0; i < f->n_requests; i++) {
        const struct at_fleet_request *r = &f->requests[i];
        f->end_ms = r->at_ms > f->end_ms ? r->at_ms : f->end_ms;
        f->end_ms = r->end_ms > f->end_ms ? r->end_ms : f->end_ms;
    }
}

struct at_node *at_fleet_make_node(struct at_fleet *f, const char *name, const char *site,
                                   int64_t cpu_milli, int64_t memory_bytes, uint32_t gpus,
                                   const char *model)
{
    struct at_node_driver *drivers = at_arena_alloc(f->arena, 2 * sizeof *drivers);
    struct at_condition *ready = at_arena_alloc(f->arena, sizeof *ready);
    struct at_node *n = at_arena_alloc(f->arena, sizeof *n);
    struct at_resources *r = at_arena_alloc(f->arena, sizeof *r);
    struct at_node_gpu *g = at_arena_alloc(f->arena, gpus * sizeof *g + 1);
    if (n == NULL || r == NULL || g == NULL || drivers == NULL || ready == NULL) {
        return NULL;
    }
    for (uint32_t i = 0; i < gpus; i++) {
        g[i].id = at_arena_printf(f->arena, "%u", i);
        g[i].model = at_arena_strdup(f->arena, model);
    }
    drivers[0] = (struct at_node_driver){.name = "process", .ready = true};
    drivers[1] = (struct at_node_driver){.name = "oci", .ready = true};
    *ready = (struct at_condition){.type = "Ready", .status = "True"};
    *r = (struct at_resources){.cpu_milli = cpu_milli,
                               .memory_bytes = memory_bytes,
                               .disk_bytes = INT64_C(1) << 44,
                               .gpu_milli = (int64_t)gpus * AT_PACK_GPU_MILLI};
    n->meta.name = at_arena_strdup(f->arena, name);
    n->spec.site = at_arena_strdup(f->arena, site);
    n->status.allocatable = r;
    n->status.capacity = r;
    n->status.gpus.items = g;
    n->status.gpus.n = gpus;
    n->status.drivers.items = drivers;
    n->status.drivers.n = 2;
    n->status.conditions.items = ready;
    n->status.conditions.n = 1;
    return n;
}

struct at_site *at_fleet_make_site(struct at_fleet *f, const char *name, const char *class_name,
                                   const char *jurisdiction)
{
    struct at_site *s = at_arena_alloc(f->arena, sizeof *s);
    if (s != NULL) {
        s->meta.name = at_arena_strdup(f->arena, name);
        s->spec.class = class_name;
        s->spec.jurisdiction = jurisdiction;
    }
    return s;
}

static bool is_ready(const struct at_node *n)
{
    for (size_t i = 0; i < n->status.conditions.n; i++) {
        const struct at_condition *c = &n->status.conditions.items[i];
        if (at_streq(c->type, "Ready")) {
            return at_streq(c->status, "True");
        }
    }
    return false;
}

struct at_pack_node at_fleet_node_size(struct at_fleet *f, const struct at_node *n,
                                       bool *ret_usable)
{
    const struct at_resources *r =
        n->status.allocatable != NULL ? n->status.allocatable : n->status.capacity;
    struct at_pack_node size = {0};
    *ret_usable = is_ready(n) && !n->spec.unschedulable && n->meta.deletion_wall_ns == 0;
    if (r != NULL) {
        size.cpu_milli = within(r->cpu_milli, AT_PACK_AMOUNT_MAX);
        size.memory_mib = within(r->memory_bytes >> 20, AT_PACK_AMOUNT_MAX);
        size.gpus = (uint32_t)within(r->gpu_milli / AT_PACK_GPU_MILLI, AT_PACK_GPUS_MAX);
    }
    size.model = model_index(f, n->status.gpus.n > 0 ? n->status.gpus.items[0].model : "");
    return size;
}
