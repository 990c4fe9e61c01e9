/* What the files of queues share: the tree of queues and cohorts, and the columns of usage. */
#ifndef AT_SCHEDULER_QUEUE_PRIV_H
#define AT_SCHEDULER_QUEUE_PRIV_H

#include "core/map.h"
#include "core/mem.h"
#include "core/str.h"
#include "scheduler/queue.h"
#include "scheduler/scheduler_priv.h"

#define QUEUE_CELLS_MAX 32 /* of one quota; the schema's limit */

/* Columns of usage. What runs is kept between passes; the others are made from it in each pass. */
enum queue_column {
    QUEUE_RUNS,    /* all that is bound, what is ending included */
    QUEUE_PRESENT, /* the same and what the pass admits */
    QUEUE_FUTURE,  /* without what is ending or displaced */
    QUEUE_COLUMNS
};

/* One resource of one quota of a node of the tree. */
struct queue_cell {
    struct queue_cell *up; /* of the parent; NULL: none */
    struct queue_node *node;
    const char *place, *resource;
    int64_t nominal;
    int64_t borrow, lend; /* limits; < 0: none */
    int64_t subtree;      /* nominal, and what members lend */
    int64_t kept;         /* of subtree, not lent to the parent */
    int64_t most;         /* what could ever be had */
    int64_t used[QUEUE_COLUMNS];
};

struct queue_quota {
    const char *site, *site_class, *gpu_model; /* NULL: any */
    struct queue_cell *cells[QUEUE_CELLS_MAX];
    size_t n;
};

/* What one bound instance uses. In the list of its queue. */
struct queue_rec {
    struct queue_rec *prev, *next;
    struct queue_rec *prev_leaving, *next_leaving; /* in the book's list, when leaving */
    struct queue_node *node;
    const struct queue_quota *quota; /* NULL: nothing counted */
    const char *ns, *name, *gang;    /* gang NULL: none; one allocation with the struct */
    const char *owner_uid;           /* "" none */
    int64_t priority, start_wall_ns; /* when it was placed */
    int64_t *amounts;                /* by cell of quota */
    bool leaving;                    /* being deleted */
    bool victim;                     /* of this pass */
};

struct queue_item; /* admission */

struct queue_node {
    const char *name;
    struct queue_node *parent;
    struct queue_node **children;
    size_t n_children, depth, index;
    bool is_queue; /* there is a Queue object; else only a name that queues have in common */
    const char *problem;
    int64_t weight;
    bool strict, stopped, drains;
    bool within_queue;                /* may displace lower priorities of its own */
    const char *reclaim, *fair_share; /* "Any", "LowerPriority", "Never" */
    const char **namespaces;
    size_t n_namespaces;
    struct queue_quota *quotas;
    size_t n_quotas, widest;   /* cells of one of them */
    struct queue_cell **cells; /* all */
    size_t n_cells, cap_cells;
    struct queue_rec *recs; /* newest noted first */
    size_t n_recs;
    /* Of a pass: */
    struct queue_item *items; /* by turn */
    size_t n_items, next;
    bool blocked;
    size_t waiting;           /* instances held */
    struct queue_item *head;  /* own first in line that fits */
    struct queue_item *claim; /* own first in line that does not */
    struct queue_item *best;  /* of the subtree */
    int64_t best_share;       /* of this node with best */
    struct queue_node **heap; /* children with a best */
    size_t n_heap, heap_at;   /* position in the parent's heap + 1; 0: not in it */
    struct queue_rec *
        *by_worth; /* what may be displaced, least worth first; NULL: not sorted yet */
    size_t n_by_worth;
};

struct at_queue_book {
    struct at_arena *arena; /* the tree */
    struct queue_node **nodes;
    size_t n_nodes;
    struct at_map *by_name; /* struct queue_node * */
    struct at_map *recs;    /* "<ns>/<name>" -> struct queue_rec * */
    struct queue_rec *leaving;
};

/* queue.c */
int64_t queue_cell_available(const struct queue_cell *cell, enum queue_column column);
void queue_cell_add(struct queue_cell *cell, int64_t amount, enum queue_column column);
void queue_cell_remove(struct queue_cell *cell, int64_t amount, enum queue_column column);
int64_t queue_share(const struct queue_node *node, enum queue_column column);
int64_t queue_amount(const struct sched_demand *d, const char *resource);
/* Could the instance run where the quota is? *ret_no_gpu: only its lack of GPUs speaks against. */
bool queue_applies(const struct queue_quota *quota, const struct at_snapshot *snap,
                   const struct at_workload *spec, bool *ret_no_gpu);
void queue_rec_count(struct queue_rec *rec, int sign, enum queue_column column);

/* What is admitted whole: a gang, or a single instance. */
struct queue_item {
    const struct at_instance **members;
    size_t *at; /* their positions in pending */
    size_t n;
    struct queue_node *node;
    int64_t priority, created_wall_ns;
    const struct queue_quota *quota; /* chosen */
    int64_t *amounts;                /* by its cells */
    bool reserved;                   /* its amounts are in PRESENT and FUTURE although it waits */
};

struct queue_pass {
    struct at_queue_book *book;
    const struct at_snapshot *snap;
    struct at_arena *arena;
    int64_t now_wall_ns;
    struct at_queue_verdict *verdicts; /* by position in pending */
    size_t *admitted;                  /* positions, in order */
    size_t n_admitted;
    struct queue_item *items;
    size_t n_items;
    struct at_queue_victim *victims;
    size_t n_victims, cap_victims;
    struct at_map *budgets; /* owner uid -> int64_t * left */
    bool exhausted;         /* arena */
};

/* queue_admit.c */
void queue_item_count(struct queue_item *item, int sign, enum queue_column column);
void queue_verdict(struct queue_pass *p, const struct queue_item *item, enum at_queue_reason reason,
                   const char *message, const struct at_queue_lack *lack);

/* queue_reclaim.c: victims for those that wait first in line. */
void queue_displace(struct queue_pass *p);

/* queue_message.c: the cell of item's quotas that lacks least; NULL: none. */
const char *queue_lack_message(struct queue_pass *p, const struct queue_item *item,
                               struct at_queue_lack *ret_lack);

static inline const char *queue_text(const char *s)
{
    return s != NULL ? s : "";
}

#endif
