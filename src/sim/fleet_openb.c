/* A fleet from openb files. */
#include "core/mem.h"
#include "core/units.h"
#include "sim/fleet.h"
#include "sim/replay.h"

#include <stdio.h>

#define SITE_DEFAULT "cluster"
#define EVEN_ORDER_SHARE 1.3

static enum at_rc out_of_memory(struct at_err *err)
{
    return at_err_set(err, AT_TOO_LARGE, "the fleet takes more than %zu GiB",
                      AT_FLEET_BYTES_MAX >> 30);
}

static enum at_rc add_site(struct at_fleet *f, const char *name, struct at_map *seen,
                           struct at_err *err)
{
    if (at_map_put(seen, name, f) != NULL) {
        return AT_OK;
    }
    struct at_site *site = at_fleet_make_site(f, name, "private", "");
    struct at_fleet_change c = {.kind = &AT_KIND_SITE, .object = site};
    if (site == NULL) {
        return out_of_memory(err);
    }
    c.name = site->meta.name;
    return at_fleet_change(f, &c, err);
}

static enum at_rc add_nodes(struct at_fleet *f, const struct at_trace *t, struct at_err *err)
{
    struct at_map *seen = at_map_new();
    enum at_rc rc = AT_OK;
    for (size_t i = 0; rc == AT_OK && i < t->n_nodes; i++) {
        const struct at_pack_node *n = &t->nodes[i];
        struct at_str s = t->node_sites[i], m = t->models[n->model];
        const char *site = s.len > 0 ? at_arena_strndup(f->arena, s.ptr, s.len) : SITE_DEFAULT;
        const char *name = at_arena_strndup(f->arena, t->node_names[i].ptr, t->node_names[i].len);
        const char *model = at_arena_strndup(f->arena, m.ptr, m.len);
        if (site == NULL || name == NULL || model == NULL) {
            rc = out_of_memory(err);
            break;
        }
        struct at_node *node = at_fleet_make_node(f, name, site, n->cpu_milli, n->memory_mib << 20,
                                                  n->gpus, n->gpus > 0 ? model : "");
        struct at_fleet_change c = {.kind = &AT_KIND_NODE, .name = name, .object = node};
        size_t before = f->n_nodes;
        rc = node == NULL ? out_of_memory(err) : add_site(f, site, seen, err);
        rc = rc == AT_OK ? at_fleet_change(f, &c, err) : rc;
        if (rc == AT_OK && f->n_nodes == before) {
            rc = at_err_set(err, AT_INVALID, "two nodes are named %s", name);
        }
    }
    at_map_free(seen);
    return rc;
}

enum at_rc at_fleet_replace_nodes(struct at_fleet *f, const struct at_trace *t, struct at_err *err)
{
    size_t n = 0;
    for (size_t i = 0; i < f->n_changes; i++) {
        if (f->changes[i].kind != &AT_KIND_NODE) {
            f->changes[n++] = f->changes[i];
        }
    }
    f->n_changes = n;
    f->n_nodes = 0;
    at_map_clear(f->node_index);
    for (size_t i = 0; i < f->n_requests; i++) {
        f->requests[i].node = AT_FLEET_NO_NODE;
    }
    enum at_rc rc = add_nodes(f, t, err);
    if (rc == AT_OK) {
        at_fleet_sort(f);
    }
    return rc;
}

/* gpu_spec is a list of models by '|'. */
static enum at_rc spec_models(struct at_fleet *f, struct at_str spec, struct at_resources *r)
{
    size_t n = 1;
    for (size_t i = 0; i < spec.len; i++) {
        n += spec.ptr[i] == '|';
    }
    r->gpu_models.items = at_arena_alloc(f->arena, n * sizeof *r->gpu_models.items);
    if (r->gpu_models.items == NULL) {
        return AT_NOMEM;
    }
    while (spec.len > 0) {
        struct at_str model = at_str_cut(&spec, '|');
        r->gpu_models.items[r->gpu_models.n++] = at_arena_strndup(f->arena, model.ptr, model.len);
    }
    return AT_OK;
}

static enum at_rc class_of(struct at_fleet *f, const struct at_trace_pod *pod, uint32_t *ret,
                           struct at_err *err)
{
    const struct at_pack_request *p = &pod->request;
    struct at_str spec = p->gpus > 0 ? pod->gpu_spec : (struct at_str){0};
    AT_CLEANUP(at_cleanup_free)
    char *key =
        at_asprintf("%lld %lld %u %u %.*s", (long long)p->cpu_milli, (long long)p->memory_mib,
                    p->gpus, p->gpu_milli, (int)spec.len, spec.len > 0 ? spec.ptr : "");
    uintptr_t known = (uintptr_t)at_map_get(f->class_index, key);
    if (known != 0) {
        *ret = (uint32_t)(known - 1);
        return AT_OK;
    }
    struct at_instance *like = at_arena_alloc(f->arena, sizeof *like);
    struct at_resources *r = at_arena_alloc(f->arena, sizeof *r);
    if (like == NULL || r == NULL) {
        return out_of_memory(err);
    }
    *r = (struct at_resources){.cpu_milli = p->cpu_milli,
                               .memory_bytes = p->memory_mib << 20,
                               .gpu_milli = (int64_t)p->gpus * p->gpu_milli};
    *like = (struct at_instance){.spec.resources = r};
    if (spec.len > 0 && spec_models(f, spec, r) != AT_OK) {
        return out_of_memory(err);
    }
    return at_fleet_class(f, key, like, ret, err);
}

static int64_t life_ms(const struct at_trace_pod *pod)
{
    int64_t s = pod->deleted_s - pod->created_s, max = AT_FLEET_TIME_MS_MAX / 1000;
    return (s > max ? max : s) * 1000;
}

static enum at_rc add_request(struct at_fleet *f, const struct at_trace_pod *pod, int64_t at_ms,
                              int64_t life, size_t turn, struct at_err *err)
{
    struct at_fleet_request q = {
        .ns = "default", .node = AT_FLEET_NO_NODE, .life_ms = life, .end_ms = AT_FLEET_NEVER};
    q.at_ms = at_ms;
    q.created_wall_ns = AT_NS_PER_MS * at_ms + (int64_t)turn; /* the order of arrival */
    q.name = at_arena_printf(f->arena, turn > 0 ? "%.*s-%zu" : "%.*s", (int)pod->name.len,
                             pod->name.ptr, turn);
    enum at_rc rc = q.name == NULL ? out_of_memory(err) : class_of(f, pod, &q.class_id, err);
    return rc == AT_OK ? at_fleet_request(f, &q, err) : rc;
}

static enum at_rc by_trace(struct at_fleet *f, const struct at_trace *t, struct at_err *err)
{
    enum at_rc rc = AT_OK;
    int64_t first = INT64_MAX, max = AT_FLEET_TIME_MS_MAX / 1000;
    for (size_t i = 0; i < t->n_pods; i++) {
        first = t->pods[i].created_s < first ? t->pods[i].created_s : first;
    }
    for (size_t i = 0; rc == AT_OK && i < t->n_pods; i++) {
        int64_t s = t->pods[i].created_s - first;
        rc = s > max ? at_err_set(err, AT_INVALID, "pod %.*s arrives %lld s after the first",
                                  (int)t->pods[i].name.len, t->pods[i].name.ptr, (long long)s)
                     : add_request(f, &t->pods[i], s * 1000, life_ms(&t->pods[i]), 0, err);
    }
    return rc;
}

static enum at_rc by_order(struct at_fleet *f, const struct at_trace *t,
                           const struct at_fleet_openb *how, struct at_err *err)
{
    bool even = how->arrivals == AT_FLEET_EVEN;
    struct at_trace_order o = {0};
    at_trace_shuffle(t, how->seed, even ? EVEN_ORDER_SHARE : how->load, &o);
    size_t n = o.n_pods * (even ? how->passes : 1);
    enum at_rc rc = n == 0 ? at_err_set(err, AT_INVALID, "no pods arrive at this load") : AT_OK;
    int64_t gap_us = even && n > 0 ? at_replay_gap_us(t, &o, n, how->load) : 1000000;
    int64_t max_us = AT_FLEET_TIME_MS_MAX / (int64_t)(n + 1);
    gap_us = gap_us > max_us ? max_us : gap_us;
    for (size_t i = 0; rc == AT_OK && i < n; i++) {
        const struct at_trace_pod *pod = &t->pods[o.pods[i % o.n_pods]];
        int64_t at_ms = (int64_t)i * gap_us / 1000;
        rc = add_request(f, pod, at_ms, even ? life_ms(pod) : AT_FLEET_NEVER, i + 1, err);
    }
    at_trace_order_done(&o);
    return rc;
}

enum at_rc at_fleet_from_openb(const struct at_trace *t, const struct at_fleet_openb *how,
                               struct at_fleet **ret, struct at_err *err)
{
    if (how->arrivals != AT_FLEET_FILLING && !t->has_times) {
        return at_err_set(err, AT_INVALID, "the pods have no creation_time and deletion_time");
    }
    struct at_fleet *f = at_fleet_new();
    enum at_rc rc = add_nodes(f, t, err);
    if (rc == AT_OK && how->arrivals == AT_FLEET_BY_TRACE) {
        rc = by_trace(f, t, err);
    } else if (rc == AT_OK) {
        rc = by_order(f, t, how, err);
    }
    if (rc != AT_OK) {
        at_fleet_free(f);
        return rc;
    }
    at_fleet_sort(f);
    *ret = f;
    return AT_OK;
}
