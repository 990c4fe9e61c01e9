#ifndef AT_CONTROLLERS_LEADER_PRIV_H
#define AT_CONTROLLERS_LEADER_PRIV_H

#include "controllers/leader.h"
#include "core/map.h"

struct at_relay {
    struct at_map *seen; /* key of a server's record -> struct relay_seen * */
    int64_t next_ns;
    bool writing, written;
};

struct at_leader {
    struct at_loop *loop;
    struct at_store *store;
    struct at_state *state;
    const struct at_sys *sys;
    char id[AT_LEADER_ID_BYTES];
    char *name, *holder;
    void (*changed)(void *ctx, bool leading);
    void *ctx;
    at_timer_id timer;
    bool leading;         /* as told */
    bool closed, writing; /* writing: the record, or the epoch */
    bool doubtful;        /* since the epoch began */
    int64_t epoch_rev;    /* 0: to be written before it leads */
    int64_t sent_ns, fence_ns, next_renew_ns;
    int64_t rev, seen_ns; /* of the record, and when it was first seen so */
    bool vacant;          /* nobody holds it */
    bool mine;            /* its last word is ours, though perhaps too old to lead by */
    unsigned calls;       /* to the store, not answered */
    struct at_relay relay;
};

void at_leader_tick(void *ctx); /* ctx: struct at_leader *; sets the timer anew */
void at_leader_call_done(struct at_leader *leader); /* frees a closed one after its last call */

/* relay.c */
void at_relay_tick(struct at_leader *leader, int64_t now);
void at_relay_done(struct at_leader *leader);

#endif
