/* Queues: who may use how much. Admission comes before placement: (queues, what is used, what is
 * pending) -> what is admitted, in which order; what is held, and why; and whom to displace so that
 * owners get back what they lent. Pure and deterministic; integers only.
 *
 * A queue owns its nominal quota of each (place, resource). Queues of one cohort lend each other
 * what they do not use, up to lending and borrowing limits; a Queue named like the cohort is the
 * parent of its members, so cohorts form trees. What a queue borrows, as a share of what its cohort
 * owns, of the resource where that share is largest, divided by its weight, is its dominant share
 * (DRF, Ghodsi et al., NSDI 2011, on what is lent). Of the queues whose first in line fits, the one
 * goes first whose share would be smallest; so owners go before borrowers.
 *
 * Displaced are only whole gangs or single instances, never past a disruption budget:
 *   reclaim     an owner within nominal takes back from those that borrow;
 *   withinQueue a higher priority takes the place of lower ones of its queue;
 *   fairShare   a borrower takes from one whose share stays at least as large as its own gets.
 * What is freed is held for those it was freed for. */
#ifndef AT_SCHEDULER_QUEUE_H
#define AT_SCHEDULER_QUEUE_H

#include "state/snapshot.h"

#define AT_QUEUE_LABEL "atoll.dev/queue" /* of a Namespace: the queue of those that name none */
#define AT_QUEUE_DEPTH_MAX 8             /* cohorts above a queue */
#define AT_QUEUE_PATIENCE_NS (600 * AT_NS_PER_S) /* BestEffortFIFO becomes strict for those */
#define AT_QUEUE_SHARE_ONE 1000000 /* dominant share: all that the cohort owns, at weight 1 */
#define AT_QUEUE_SHARE_MAX (INT64_C(1) << 40)

struct at_queue_book;

/* What runs now, by queue. own: at_queue_book_free.  cost: O(instances + queues) */
struct at_queue_book *at_queue_book_new(const struct at_snapshot *snap);
void at_queue_book_free(struct at_queue_book *book); /* accepts NULL */
/* The instance changed or has gone; snap shows how it is now. A change of a Queue, a Namespace's
 * label or a Site needs a new book. cost: O(cells of one queue) */
void at_queue_book_note(struct at_queue_book *book, const struct at_snapshot *snap, const char *ns,
                        const char *name);

enum at_queue_reason {
    AT_QUEUE_ADMITTED,
    AT_QUEUE_NONE,       /* under no queue: not limited */
    AT_QUEUE_MISSING,    /* the queue does not exist */
    AT_QUEUE_FORBIDDEN,  /* its namespace may not use it */
    AT_QUEUE_STOPPED,    /* stopPolicy */
    AT_QUEUE_LOOP,       /* cohorts name each other in a circle, or too deep a tree */
    AT_QUEUE_NO_QUOTA,   /* no quota for where it may run */
    AT_QUEUE_NEVER,      /* more than the queue may ever have */
    AT_QUEUE_EXHAUSTED,  /* wait: what it lacks is in lack */
    AT_QUEUE_BEHIND,     /* wait: another one is before it */
    AT_QUEUE_RECLAIMING, /* wait: room is being made */
    AT_QUEUE_REASON_COUNT
};
const char *at_queue_reason_name(enum at_queue_reason reason); /* "QuotaExhausted", ... stable */

/* Why it is held, in numbers; amounts as at_model_amount_parse. */
struct at_queue_lack {
    const char *resource; /* NULL: nothing of this */
    int64_t used, nominal, wanted;
    int64_t available;  /* what it could get now, borrowed included */
    const char *cohort; /* NULL: none */
    bool at_limit;      /* its own borrowing limit, not the cohort, is what is short */
};

struct at_queue_verdict {
    const struct at_instance *instance;
    enum at_queue_reason reason;
    const char *queue;   /* NULL: none */
    const char *message; /* one sentence, in arena; NULL when it may be placed */
    struct at_queue_lack lack;
    /* Admitted: it is kept to these; NULL: anywhere. */
    const char *site, *site_class, *gpu_model;
};

struct at_queue_victim {
    const char *ns, *name; /* valid as long as the book is not told of changes */
    const char *queue;     /* of the victim */
    const char *message;   /* "queue team-a takes back 2 GPUs lent to queue team-b", in arena */
};

struct at_queue_plan {
    struct at_queue_verdict *verdicts; /* one per pending: those that may be placed come first, in
                                          the order admitted */
    size_t n, n_placeable;
    struct at_queue_victim *victims;
    size_t n_victims;
};

/* pending: instances without a node, any order. cost: O(pending log pending + queues), and O(what
 * the tree of a queue runs) for each queue whose first in line may displace somebody.
 * err: AT_NOMEM the arena's cap. */
enum at_rc at_queue_admit(struct at_queue_book *book, const struct at_snapshot *snap,
                          const struct at_instance *const *pending, size_t n, int64_t now_wall_ns,
                          struct at_arena *arena, struct at_queue_plan *ret_plan) AT_WARN_UNUSED;

/* A pending instance as placement shall see it: kept to where its quota is. In arena; the instance
 * itself when nothing keeps it. NULL: out of arena. */
const struct at_instance *at_queue_narrow(const struct at_queue_verdict *verdict,
                                          struct at_arena *arena);

/* What one queue uses, by what runs (admitted but not placed does not count). */
struct at_queue_cell {
    const char *place;    /* "", "site edge, model T4" */
    const char *resource; /* as in the quota */
    int64_t nominal, used, borrowed, available;
};
struct at_queue_use {
    const char *problem;         /* NULL: active */
    int64_t share;               /* AT_QUEUE_SHARE_ONE parts */
    size_t running;              /* instances that use quota */
    size_t waiting;              /* in the last at_queue_admit: that it held */
    struct at_queue_cell *cells; /* in arena */
    size_t n_cells;
};
/* false: no such queue, or out of arena */
bool at_queue_book_use(const struct at_queue_book *book, const char *queue, struct at_arena *arena,
                       struct at_queue_use *ret_use);
/* The queue an instance belongs to; NULL: none. */
const char *at_queue_name_of(const struct at_snapshot *snap, const struct at_instance *instance);

#endif
