/* What a namespace may hold: ResourceQuota and LimitRange.
 *
 * A write that makes a namespace hold more asks first, and gets a pass while it is under way. With
 * a store of one process passes are kept in memory. With a shared store a pass is a key of its own,
 * with a TTL: of two that ask at once, whose pass has the lower revision goes first, so every
 * server decides alike; and the write happens only while its pass is there, so that nothing that
 * arrives late goes uncounted. What is held is counted from the objects themselves each time: there
 * is no figure that a crash could leave wrong. */
#ifndef AT_STATE_QUOTA_H
#define AT_STATE_QUOTA_H

#include "state/state.h"

struct at_quota_pass;

struct at_quota_ask {
    const struct at_model_kind *kind;
    const char *ns;
    const char *key;      /* of the object in the store */
    int64_t old_rev;      /* that will be written over; 0: it is new */
    const json_t *object; /* as it shall be */
    const json_t *old;    /* NULL: it is new */
    bool only_look;       /* no pass is needed: nothing will be written */
};

/* rc AT_OK: go on; pass may be NULL (nothing bounds it), else the caller releases it once the write
 * was answered. AT_FORBIDDEN: which quota, what was asked for, used, and limited. Others: the
 * store's errors. May come before at_quota_ask returns. */
typedef void at_quota_fn(void *ctx, enum at_rc rc, struct at_quota_pass *pass,
                         const struct at_err *err);
void at_quota_ask(struct at_state *state, const struct at_quota_ask *ask, at_quota_fn *fn,
                  void *ctx);
/* The write happens only while the pass is there. Nothing is set when it needs no guard, or has
 * one already. */
void at_quota_guard(const struct at_quota_pass *pass, struct at_store_write *write);
void at_quota_release(struct at_quota_pass *pass); /* accepts NULL */

/* What the namespace of the quota holds, by the names in spec.hard. own: caller decrefs. */
json_t *at_quota_used(struct at_state *state, const struct at_resource_quota *quota);

/* Defaults of the namespace's LimitRanges put into an Instance that says nothing. */
void at_limit_range_default(struct at_state *state, const char *ns, json_t *instance);
/* err: AT_FORBIDDEN with the field. */
enum at_rc at_limit_range_check(struct at_state *state, const char *ns, const json_t *instance,
                                struct at_err *err) AT_WARN_UNUSED;

#endif
