#include "sim/trace.h"

#include "core/mem.h"
#include "sim/csv.h"

#include <stdlib.h>

static enum at_rc model_id(struct at_trace *t, const struct sim_csv *r, struct at_str name,
                           uint32_t *ret)
{
    for (uint32_t i = 0; i < t->n_models; i++) {
        if (t->models[i].len == name.len && memcmp(t->models[i].ptr, name.ptr, name.len) == 0) {
            *ret = i;
            return AT_OK;
        }
    }
    if (t->n_models == AT_PACK_MODELS_MAX) {
        return sim_csv_bad(r, "too many different GPU models, at", name);
    }
    t->models[t->n_models] = name;
    *ret = (uint32_t)t->n_models++;
    return AT_OK;
}

static enum at_rc read_node(struct at_trace *t, const struct sim_csv *r, const size_t *at)
{
    int64_t gpus = 0;
    struct at_pack_node *n = &t->nodes[t->n_nodes];
    enum at_rc rc = sim_csv_number(r, at[1], AT_PACK_AMOUNT_MAX, &n->cpu_milli);
    if (rc == AT_OK) {
        rc = sim_csv_number(r, at[2], AT_PACK_AMOUNT_MAX, &n->memory_mib);
    }
    if (rc == AT_OK) {
        rc = sim_csv_number(r, at[3], AT_PACK_GPUS_MAX, &gpus);
    }
    if (rc == AT_OK) {
        rc = model_id(t, r, r->fields[at[4]], &n->model);
    }
    if (rc == AT_OK && r->fields[at[0]].len == 0) {
        rc = sim_csv_bad(r, "a node without a name", (struct at_str){0});
    }
    n->gpus = (uint32_t)gpus;
    t->node_names[t->n_nodes] = r->fields[at[0]];
    t->node_sites[t->n_nodes] = at[5] != SIM_CSV_NONE ? r->fields[at[5]] : (struct at_str){0};
    return rc;
}

enum at_rc at_trace_read_nodes(struct at_trace *t, const char *file, struct at_str text,
                               struct at_err *err)
{
    static const char *const NAMES[] = {"sn",    "cpu_milli", "memory_mib", "gpu",
                                        "model", "site",      NULL};
    struct sim_csv r;
    size_t at[AT_ARRAY_LEN(NAMES)], cap = 0;
    enum at_rc rc = sim_csv_begin(&r, file, text, err);
    if (rc == AT_OK) {
        rc = sim_csv_columns(&r, NAMES, 5, at);
    }
    while (rc == AT_OK && (rc = sim_csv_next(&r)) == AT_OK) {
        if (t->n_nodes == AT_PACK_NODES_MAX) {
            return sim_csv_bad(&r, "too many nodes, at", r.fields[at[0]]);
        }
        if (t->n_nodes == cap) {
            cap = cap == 0 ? 1024 : cap * 2;
            t->nodes = at_realloc(t->nodes, cap * sizeof *t->nodes);
            t->node_names = at_realloc(t->node_names, cap * sizeof *t->node_names);
            t->node_sites = at_realloc(t->node_sites, cap * sizeof *t->node_sites);
        }
        rc = read_node(t, &r, at);
        t->n_nodes += rc == AT_OK;
    }
    if (rc == AT_EOF && t->n_nodes == 0) {
        return at_err_set(err, AT_INVALID, "%s:%zu: no node", file, r.line);
    }
    return rc == AT_EOF ? AT_OK : rc;
}

static enum at_rc read_spec(struct at_trace *t, const struct sim_csv *r, struct at_trace_pod *pod)
{
    struct at_str rest = pod->gpu_spec;
    while (rest.len > 0) {
        uint32_t id;
        enum at_rc rc = model_id(t, r, at_str_cut(&rest, '|'), &id);
        if (rc != AT_OK) {
            return rc;
        }
        pod->request.models |= (uint64_t)1 << id;
    }
    return AT_OK;
}

enum pod_column { P_NAME, P_CPU, P_MEMORY, P_GPUS, P_MILLI, P_SPEC, P_CREATED, P_DELETED, P_COUNT };

static enum at_rc read_pod(struct at_trace *t, const struct sim_csv *r, const size_t *at,
                           struct at_trace_pod *pod)
{
    int64_t gpus = 0, milli = 0;
    *pod = (struct at_trace_pod){.name = r->fields[at[P_NAME]], .row = (uint32_t)t->n_pods};
    enum at_rc rc = sim_csv_number(r, at[P_CPU], AT_PACK_AMOUNT_MAX, &pod->request.cpu_milli);
    if (rc == AT_OK) {
        rc = sim_csv_number(r, at[P_MEMORY], AT_PACK_AMOUNT_MAX, &pod->request.memory_mib);
    }
    if (rc == AT_OK) {
        rc = sim_csv_number(r, at[P_GPUS], AT_PACK_GPUS_MAX, &gpus);
    }
    if (rc == AT_OK) {
        rc = sim_csv_number(r, at[P_MILLI], AT_PACK_GPU_MILLI, &milli);
    }
    if (rc == AT_OK && (gpus == 0) != (milli == 0)) {
        rc = sim_csv_bad(r, "num_gpu and gpu_milli have to be both 0 or both more, not",
                         r->fields[at[P_MILLI]]);
    }
    pod->request.gpus = (uint32_t)gpus;
    pod->request.gpu_milli = (uint32_t)milli;
    if (rc == AT_OK && at[P_SPEC] != SIM_CSV_NONE) {
        pod->gpu_spec = r->fields[at[P_SPEC]];
        rc = read_spec(t, r, pod);
    }
    if (rc == AT_OK && t->has_times) {
        rc = sim_csv_number(r, at[P_CREATED], INT64_MAX / 4, &pod->created_s);
    }
    if (rc == AT_OK && t->has_times) {
        rc = sim_csv_number(r, at[P_DELETED], INT64_MAX / 4, &pod->deleted_s);
    }
    if (rc == AT_OK && pod->deleted_s < pod->created_s) {
        rc = sim_csv_bad(r, "deleted before it was created:", pod->name);
    }
    return rc == AT_OK && pod->name.len == 0 ? sim_csv_bad(r, "a pod without a name", pod->name)
                                             : rc;
}

enum at_rc at_trace_read_pods(struct at_trace *t, const char *file, struct at_str text,
                              struct at_err *err)
{
    static const char *const NAMES[] = {"name",          "cpu_milli",     "memory_mib",
                                        "num_gpu",       "gpu_milli",     "gpu_spec",
                                        "creation_time", "deletion_time", NULL};
    struct sim_csv r;
    size_t at[AT_ARRAY_LEN(NAMES)], cap = 0;
    enum at_rc rc = sim_csv_begin(&r, file, text, err);
    if (rc == AT_OK) {
        rc = sim_csv_columns(&r, NAMES, P_SPEC, at);
    }
    t->has_times = rc == AT_OK && at[P_CREATED] != SIM_CSV_NONE && at[P_DELETED] != SIM_CSV_NONE;
    while (rc == AT_OK && (rc = sim_csv_next(&r)) == AT_OK) {
        if (t->n_pods == AT_TRACE_PODS_MAX) {
            return sim_csv_bad(&r, "too many pods, at", r.fields[at[P_NAME]]);
        }
        if (t->n_pods == cap) {
            cap = cap == 0 ? 8192 : cap * 2;
            t->pods = at_realloc(t->pods, cap * sizeof *t->pods);
        }
        rc = read_pod(t, &r, at, &t->pods[t->n_pods]);
        t->n_pods += rc == AT_OK;
    }
    if (rc == AT_EOF && t->n_pods == 0) {
        return at_err_set(err, AT_INVALID, "%s:%zu: no pod", file, r.line);
    }
    return rc == AT_EOF ? AT_OK : rc;
}

void at_trace_done(struct at_trace *t)
{
    at_free(t->nodes);
    at_free(t->node_names);
    at_free(t->node_sites);
    at_free(t->pods);
    *t = (struct at_trace){0};
}

int64_t at_trace_gpu_milli(const struct at_trace *t)
{
    int64_t sum = 0;
    for (size_t i = 0; i < t->n_nodes; i++) {
        sum += (int64_t)t->nodes[i].gpus * AT_PACK_GPU_MILLI;
    }
    return sum;
}
