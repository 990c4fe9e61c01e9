/* Which of several servers on one store runs the controllers, and how it hears of nodes that beat
 * at the others. Only for shared stores: a store of one process needs neither.
 *
 * The lease is one key, compared and swapped: whoever put its name there last leads, as long as it
 * renews. A holder counts its lease from before it asked for it and stops some time before the end;
 * others count from when they saw it and take it after the end. So no two lead at a time, whatever
 * the clocks say, as long as they run at about the same speed.
 *
 * What a leader decided may still be on its way when its time is over: it was paused, or the
 * network was. So each one writes an epoch before it begins, and every write of its controllers
 * happens only while that is the newest. Whoever leads next has then seen all that its forerunners
 * could do. */
#ifndef AT_CONTROLLERS_LEADER_H
#define AT_CONTROLLERS_LEADER_H

#include "state/state.h"

#define AT_LEADER_KEY "/atoll-internal/leader"
/* Written by each new leader before it leads: the guard of all its controllers' writes. */
#define AT_LEADER_EPOCH_KEY "/atoll-internal/leader-epoch"
#define AT_LEADER_BEATS "/atoll-internal/beats/" /* then the server's id */
#define AT_LEADER_LEASE_NS (3 * AT_NS_PER_S)
#define AT_LEADER_RENEW_NS (1 * AT_NS_PER_S)
/* The holder stops so long before its lease ends. */
#define AT_LEADER_MARGIN_NS (500 * AT_NS_PER_MS)
#define AT_LEADER_LOOK_NS (100 * AT_NS_PER_MS)
/* Other servers than the leader tell of their nodes' beats so often. */
#define AT_LEADER_RELAY_NS (500 * AT_NS_PER_MS)
/* What an ended server left behind is removed after this, by the store itself. */
#define AT_LEADER_STALE_NS (60 * AT_NS_PER_S)
#define AT_LEADER_ID_BYTES 96

struct at_leader;
struct at_leader_options {
    const char *name; /* for people: the server's URL */
    /* leading false: what only a leader may do must have stopped when this returns. May be called
     * from a callback of the store. */
    void (*changed)(void *ctx, bool leading);
    void *ctx;
};
/* err: none; it begins as a follower. own: at_leader_free. */
struct at_leader *at_leader_new(struct at_loop *loop, struct at_store *store,
                                struct at_state *state, const struct at_leader_options *options);
/* Gives the lease back, so that nobody has to wait for its end; changed is not called. Before
 * at_store_drain. Accepts NULL. */
void at_leader_free(struct at_leader *leader);
/* The guard's revision, while it leads. */
int64_t at_leader_epoch(const struct at_leader *leader);
/* Nobody knows whether something that was written as the leader has happened: lead no more, and
 * again only with a new epoch. Later, not before it returns. */
void at_leader_doubt(struct at_leader *leader);
/* By the clock, right now: exact even when this process was stopped for a while. */
bool at_leader_leads(const struct at_leader *leader);
const char *
at_leader_holder(const struct at_leader *leader); /* its name; "" when nobody is known */

#endif
