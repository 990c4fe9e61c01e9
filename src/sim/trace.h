/* Traces of GPU clusters, openb format (Alibaba cluster-trace-gpu-v2023): a node list, a pod list
 * and, if wanted, the order of both. Text from outside: every error names file and line. */
#ifndef AT_SIM_TRACE_H
#define AT_SIM_TRACE_H

#include "core/str.h"
#include "scheduler/pack.h"

#define AT_TRACE_PODS_MAX 5000000
#define AT_TRACE_FILE_BYTES_MAX ((size_t)1 << 30)

struct at_trace_pod {
    struct at_str name;     /* borrowed from the text */
    struct at_str gpu_spec; /* borrowed: models allowed, by '|' */
    struct at_pack_request request;
    int64_t created_s, deleted_s;
    uint32_t row; /* in the file, from 0 */
};

struct at_trace {
    struct at_pack_node *nodes;
    struct at_str *node_names;
    struct at_str *node_sites; /* empty: not told */
    size_t n_nodes;
    struct at_trace_pod *pods;
    size_t n_pods;
    bool has_times; /* creation_time and deletion_time are there */
    struct at_str models[AT_PACK_MODELS_MAX];
    size_t n_models;
};

/* Who arrives when on which cluster: rows of the trace. */
struct at_trace_order {
    uint32_t *nodes; /* by rank: ties go to the first */
    size_t n_nodes;
    uint32_t *pods; /* by arrival; may repeat */
    size_t n_pods;
};

/* Columns are found by their names: sn, cpu_milli, memory_mib, gpu, model,
 * and site if there; and name, cpu_milli,
 * memory_mib, num_gpu, gpu_milli, with gpu_spec, creation_time and deletion_time if there.
 * in:   text is borrowed by the trace as long as it lives; file is for messages
 * err:  AT_INVALID "file:line: what is wrong". own: at_trace_done, also after an error. */
enum at_rc at_trace_read_nodes(struct at_trace *trace, const char *file, struct at_str text,
                               struct at_err *err) AT_WARN_UNUSED;
enum at_rc at_trace_read_pods(struct at_trace *trace, const char *file, struct at_str text,
                              struct at_err *err) AT_WARN_UNUSED;
void at_trace_done(struct at_trace *trace);

/* Two lines, `nodes` and `pods`, with rows; every node once. own: at_trace_order_done. */
enum at_rc at_trace_read_order(const struct at_trace *trace, const char *file, struct at_str text,
                               struct at_trace_order *ret, struct at_err *err) AT_WARN_UNUSED;
/* The published rule with random numbers of our own from seed: pods by name shuffled, then cut or
 * filled up by random ones to the share of the cluster's GPUs; nodes by name shuffled. */
void at_trace_shuffle(const struct at_trace *trace, uint64_t seed, double gpu_share,
                      struct at_trace_order *ret);
void at_trace_order_done(struct at_trace_order *order);

/* The mix of shapes, by how often they are seen. own: at_free(*ret). */
size_t at_trace_mix(const struct at_trace *trace, struct at_pack_share **ret);
int64_t at_trace_gpu_milli(const struct at_trace *trace); /* of all nodes */

#endif
