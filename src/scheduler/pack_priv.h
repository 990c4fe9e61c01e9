/* What the packing engine's files share. */
#ifndef AT_SCHEDULER_PACK_PRIV_H
#define AT_SCHEDULER_PACK_PRIV_H

#include "scheduler/pack.h"

#define PACK_BLOCK 64  /* nodes per block of kept scores */
#define PACK_STEPS 100 /* FGD's scores: 0..100 */
#define PACK_NO_FIT 0  /* a kept score; every other one is a fit */

/* Fragmentation of one node as table look-ups. For one node, each task of the mix is either shut
 * out (model, or too little CPU: the level says which) and counts all that is idle, or asks for one
 * GPU and counts what is lost of each GPU, or asks for several: then what is lost of each GPU if
 * enough are free, else all that is idle. So
 * F = sum of by_left[left] + idle * shut + lack[free GPUs] * (idle - sum of loss[left]). */
struct pack_level {
    int64_t *by_left;                   /* [AT_PACK_GPU_MILLI + 1] */
    int64_t shut;                       /* weight of the tasks shut out */
    int64_t lack[AT_PACK_GPUS_MAX + 1]; /* of those that ask for more whole GPUs than this */
};

/* Tasks that ask for a part of each of several GPUs; rare. */
struct pack_odd {
    int64_t cpu_milli, weight;
    uint32_t gpus, gpu_milli;
};

/* One per group of models that the same tasks may use. */
struct pack_frag {
    int64_t *cpu_steps; /* ascending; level l: cpu left >= cpu_steps[l-1] */
    size_t n_levels;    /* steps + 1 */
    struct pack_level *levels;
    struct pack_odd *odd;
    size_t n_odd;
};

/* A task with its share of the mix, as the published simulator computes it. */
struct pack_task {
    struct at_pack_request request;
    double share;
};

struct pack_mix {
    struct pack_frag *frags;
    size_t n_frags;
    uint8_t frag_of_model[AT_PACK_MODELS_MAX];
    int64_t weight;                      /* of all tasks */
    int64_t loss[AT_PACK_GPU_MILLI + 1]; /* milli lost of a GPU with so much left */
    struct pack_task *tasks;             /* in the order given */
    size_t n_tasks;
};

/* What a node has left, or would have. */
struct pack_left {
    int64_t cpu_milli;
    uint32_t idle_milli;
    uint8_t n_gpus, free_gpus; /* free: wholly */
    uint16_t gpu[AT_PACK_GPUS_MAX];
};

/* F of what a node has left, and what it takes to tell quickly how F changes. */
struct pack_sums {
    int64_t frag;
    int32_t loss;   /* of all its GPUs */
    uint32_t level; /* of the CPU left */
};

struct pack_node {
    struct pack_left left;
    int64_t memory_mib;
    int64_t frag;         /* F by the published mix */
    struct pack_sums own; /* by our own mix (AT_PACK_ATOLL) */
    uint64_t changed;     /* position in the log of its last change */
    uint8_t model;
    uint16_t hosts[AT_PACK_GPUS_MAX + 1]; /* [0] shares, [k] holders of k GPUs (clustering) */
};

struct pack_class {
    struct at_pack_request request;
    uint64_t seen; /* the log up to here is in the scores */
    bool scored;
    uint16_t *scores;     /* per node */
    uint16_t *block_best; /* per block of nodes */
};

struct at_pack {
    enum at_pack_policy policy;
    struct pack_node *nodes;
    struct at_pack_node *sizes; /* as given */
    size_t n_nodes, n_blocks;
    uint32_t *log; /* ring of nodes changed, log_mask + 1 entries */
    uint64_t log_end, log_mask;
    struct pack_class *classes;
    size_t n_classes, classes_cap;
    uint32_t *class_slots; /* open addressing: class + 1 */
    size_t n_slots;
    struct pack_mix published;
    struct pack_mix filling, churning; /* AT_PACK_ATOLL: while nothing leaves, and else */
    const struct pack_mix *own;        /* the one of them in use; NULL: other policies */
    size_t window_puts, window_releases;
    int32_t scarce[AT_PACK_MODELS_MAX]; /* by model: how short it is, of 1000 */
    int64_t steps[PACK_STEPS + 1];      /* least gain for each score, see pack_score.c */
    int64_t capacity_milli, idle_milli, frag;
};

/* pack_frag.c. Of the most frequent shares, those that make up percent. learned: what is lost of a
 * GPU by what it has left; NULL: FGD's measure, by which a task loses what stands in GPUs with less
 * left than it asks for. */
void pack_mix_init(struct pack_mix *mix, const struct at_pack_share *shares, size_t n, int percent,
                   const int64_t *learned);
void pack_mix_done(struct pack_mix *mix);
int64_t pack_frag_of(const struct pack_mix *mix, uint32_t model, const struct pack_left *left);
struct pack_sums pack_sums_of(const struct pack_mix *mix, uint32_t model,
                              const struct pack_left *left);
/* F in the floating point of the published simulator, sum by sum. */
double pack_frag_published(const struct pack_mix *mix, uint32_t model,
                           const struct pack_left *left);

/* What F would be after CPU and a part of one GPU are taken, for one GPU after the other. */
struct pack_trial {
    const struct pack_mix *mix;
    const struct pack_frag *f;
    const struct pack_level *level;
    struct pack_left left; /* CPU taken, GPUs not yet */
    int64_t by_left, loss; /* sums over the GPUs */
};
void pack_trial_begin(struct pack_trial *t, const struct pack_mix *mix, uint32_t model,
                      const struct pack_left *left, int64_t cpu_milli);
int64_t pack_trial_take(const struct pack_trial *t, uint32_t gpu, uint32_t gpu_milli);

/* pack_learn.c */
void pack_learn(const struct at_pack_share *shares, size_t n, int64_t loss[AT_PACK_GPU_MILLI + 1]);
/* The same in small steps; shares are not kept. own: pack_learning_free. */
struct pack_learning *pack_learning_new(const struct at_pack_share *shares, size_t n);
void pack_learning_free(struct pack_learning *l); /* may be NULL */
/* Look at up to `work` leftovers; true: done, and loss is filled in. Any work comes to the same. */
bool pack_learning_step(struct pack_learning *l, int64_t work, int64_t loss[AT_PACK_GPU_MILLI + 1]);

/* pack_scarce.c: how much shorter each model is than the least short one, of 1000. */
void pack_scarce(const struct at_pack_share *shares, size_t n, const struct at_pack_node *nodes,
                 size_t n_nodes, int32_t ret[AT_PACK_MODELS_MAX]);

/* pack_score.c: PACK_NO_FIT or 1 + score; the GPUs it would take into *ret_gpus. */
/* What ours measures by. */
struct pack_own {
    const struct pack_mix *mix;
    const int32_t *scarce; /* by model */
};
/* Milli-GPU less lost after the request took its best GPUs (of those allowed; there must be
 * enough). before: pack_sums_of left. */
int64_t pack_own_gain(const struct pack_own *own, const struct at_pack_request *r, uint32_t model,
                      const struct pack_left *left, const struct pack_sums *before,
                      uint32_t allowed, uint32_t *ret_gpus);
uint16_t pack_score(const struct at_pack *p, const struct pack_class *c, const struct pack_node *n,
                    uint32_t *ret_gpus);
void pack_steps_init(struct at_pack *p);
uint16_t pack_slack(const struct at_pack *p, const struct at_pack_request *r);
bool pack_fits(const struct at_pack_request *r, const struct pack_node *n);

static inline size_t pack_level_of(const struct pack_frag *f, int64_t cpu_milli)
{
    size_t at = 0, n = f->n_levels - 1;
    while (n > 0) { /* how many steps are <= cpu_milli */
        size_t half = n / 2;
        bool right = f->cpu_steps[at + half] <= cpu_milli;
        at = right ? at + half + 1 : at;
        n = right ? n - half - 1 : half;
    }
    return at;
}

#endif
