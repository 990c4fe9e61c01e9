/* Packing of requests onto nodes with shared GPUs: one decision after the other, each placement
 * taken and given back exactly. Pure and deterministic; integers only, but for the scores of the
 * published policies that are defined in floating point.
 *
 * Incremental: the score of each (request class, node) is kept. A placement or a release changes
 * one node, so a decision scores again only the nodes changed since its class was last decided,
 * then finds the best of the kept scores by blocks.
 *
 * Policies: FGD (Weng et al., "Beware of Fragmentation", USENIX ATC 2023) and the baselines of its
 * evaluation, best score wins, the node named earlier on ties; and AT_PACK_ATOLL, ours
 * (docs/PACKING.md). Nothing that fits is ever refused. */
#ifndef AT_SCHEDULER_PACK_H
#define AT_SCHEDULER_PACK_H

#include "core/err.h"

#define AT_PACK_GPU_MILLI 1000 /* one whole GPU */
#define AT_PACK_GPUS_MAX 16    /* per node */
#define AT_PACK_MODELS_MAX 64
#define AT_PACK_NODES_MAX 1000000
#define AT_PACK_CLASSES_MAX 100000
#define AT_PACK_SHAPES_MAX 16384 /* of typical requests; ours looks at the first so many */
#define AT_PACK_SCORES_MAX (INT64_C(1) << 31) /* kept: classes times nodes */
#define AT_PACK_SEEN_MAX 1000000000           /* requests counted in a mix */
#define AT_PACK_AMOUNT_MAX (INT64_C(1) << 40) /* cpu milli, memory MiB */

enum at_pack_policy {
    AT_PACK_FGD,
    AT_PACK_BESTFIT,
    AT_PACK_DOTPROD,
    AT_PACK_PACKING,
    AT_PACK_CLUSTERING,
    AT_PACK_ATOLL,
    AT_PACK_POLICY_COUNT
};
const char *at_pack_policy_name(enum at_pack_policy policy); /* "fgd" */
/* err: AT_NOT_FOUND */
enum at_rc at_pack_policy_find(const char *name, enum at_pack_policy *ret) AT_WARN_UNUSED;

struct at_pack_node {
    int64_t cpu_milli, memory_mib;
    uint32_t gpus;  /* all of one model */
    uint32_t model; /* < AT_PACK_MODELS_MAX */
};

/* gpus GPUs with gpu_milli left on each; gpus 0 and gpu_milli 0: none wanted. */
struct at_pack_request {
    int64_t cpu_milli, memory_mib;
    uint32_t gpus, gpu_milli;
    uint64_t models; /* set of models allowed; 0: any. Not looked at when gpus is 0. */
};

/* What is expected to arrive: requests with how often each was seen. Memory is not looked at. */
struct at_pack_share {
    struct at_pack_request request;
    uint32_t count;
};

/* FGD measures the shortest beginning of it that makes up 95 % ("typical pods"), ours the whole. */
struct at_pack_mix {
    const struct at_pack_share *shares; /* the most frequent first */
    size_t n;
};

struct at_pack_place {
    uint32_t node;
    uint32_t gpus; /* bit set of the GPUs held */
};

struct at_pack;

/* An empty cluster. Ties go to the node that stands earlier in nodes.
 * in:   mix: what fragmentation is measured for; nothing is kept of it
 * err:  AT_INVALID an amount out of range, with its row in the message | AT_TOO_LARGE too many
 *       different typical requests
 * own:  at_pack_free.  cost: O(nodes), and some 10 ms for AT_PACK_ATOLL
 *       to learn what leftovers of GPUs are worth. */
enum at_rc at_pack_new(enum at_pack_policy policy, const struct at_pack_node *nodes, size_t n_nodes,
                       const struct at_pack_mix *mix, struct at_pack **ret_pack,
                       struct at_err *err) AT_WARN_UNUSED;
void at_pack_free(struct at_pack *pack); /* accepts NULL */

/* The class of all requests equal to this one; made when new.
 * err: AT_INVALID amounts out of range | AT_TOO_LARGE too many classes. */
enum at_rc at_pack_class(struct at_pack *pack, const struct at_pack_request *request,
                         uint32_t *ret_class, struct at_err *err) AT_WARN_UNUSED;

/* Decide and take. false: fits nowhere now. cost: O(nodes changed since this class was decided). */
bool at_pack_put(struct at_pack *pack, uint32_t class_id, struct at_pack_place *ret_place);
/* Take a place that was decided elsewhere. err: AT_CONFLICT it does not fit. */
enum at_rc at_pack_put_at(struct at_pack *pack, uint32_t class_id,
                          const struct at_pack_place *place) AT_WARN_UNUSED;
/* Give back what at_pack_put took for a request of this class; asserts that it was taken. */
void at_pack_release(struct at_pack *pack, uint32_t class_id, const struct at_pack_place *place);

/* Idle and fragmented GPU milli of the whole cluster (FGD's F, eq. 4, over the typical mix). */
int64_t at_pack_capacity_gpu_milli(const struct at_pack *pack);
int64_t at_pack_used_gpu_milli(const struct at_pack *pack);
double at_pack_fragmented_gpu_milli(const struct at_pack *pack);
/* What one node has left; left_gpu_milli may be NULL. */
struct at_pack_node at_pack_node_left(const struct at_pack *pack, uint32_t node,
                                      uint16_t left_gpu_milli[AT_PACK_GPUS_MAX]);

#endif
