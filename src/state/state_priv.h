/* Inside of state, for this folder and its tests. */
#ifndef AT_STATE_PRIV_H
#define AT_STATE_PRIV_H

#include "core/map.h"
#include "state/limits.h"
#include "state/state.h"

/* One decoded object: immutable, counted by reference on the loop thread. */
struct at_state_entry {
    unsigned refs;
    struct at_arena *arena;
    const struct at_meta *meta; /* the first member of the typed object */
};
struct at_state_entry *at_state_entry_ref(struct at_state_entry *entry);
void at_state_entry_unref(struct at_state_entry *entry); /* accepts NULL */
static inline const void *at_state_entry_object(const struct at_state_entry *entry)
{
    return entry->meta;
}

/* The objects of one kind at one moment, ordered by (namespace, name): immutable once shared. */
struct at_state_list {
    unsigned refs;
    size_t n;
    const void **objects; /* typed, as snapshots show them */
    struct at_state_entry **entries;
};
void at_state_list_unref(struct at_state_list *list); /* accepts NULL */

/* The kinds that snapshots hold, in this order. */
enum at_state_slot {
    AT_STATE_SITES,
    AT_STATE_NODES,
    AT_STATE_DEPLOYMENTS,
    AT_STATE_INSTANCES,
    AT_STATE_JOBS,
    AT_STATE_POLICIES,
    AT_STATE_NAMESPACES,
    AT_STATE_SLOTS,
};
enum at_state_slot at_state_slot_of(const struct at_model_kind *kind); /* AT_STATE_SLOTS: none */
const struct at_model_kind *at_state_slot_kind(enum at_state_slot slot);

/* The objects of one kind as they are now. */
struct at_state_kind {
    struct at_state_entry **entries; /* ordered by (namespace, name) */
    size_t n, cap;
    struct at_state_list *list; /* what snapshots share; NULL: out of date */
};
/* Put entry (its reference is taken) or, with NULL, remove ns/name. */
void at_state_kind_set(struct at_state_kind *k, const char *ns, const char *name,
                       struct at_state_entry *entry_take);
struct at_state_list *at_state_kind_list(struct at_state_kind *k); /* own: caller unrefs */

struct at_snapshot_box {
    struct at_snapshot shown;
    unsigned refs;
    struct at_state_list *lists[AT_STATE_SLOTS];
};
struct at_snapshot_box *at_snapshot_box_new(struct at_state_kind kinds[AT_STATE_SLOTS],
                                            int64_t rev);

struct at_state_listener {
    at_state_changed_fn *changed;
    void *ctx;
};

struct at_state_beat {
    int64_t last;  /* when the node's agent last spoke, here or at another server */
    int64_t heard; /* when that other server last told of it; 0: it spoke here */
};

struct at_state {
    struct at_loop *loop;
    struct at_store *store;
    at_store_watch_id watch;
    int64_t rev;
    struct at_state_kind kinds[AT_STATE_SLOTS];
    struct at_snapshot_box *newest; /* NULL: out of date */
    struct at_state_listener listeners[AT_STATE_LISTENERS_MAX];
    size_t n_listeners;
    void (*ready)(void *ctx);
    void *ready_ctx;
    at_timer_id ready_timer;
    struct at_map *heartbeats; /* node -> struct at_state_beat * */
    at_timer_id relist_timer;
    struct at_map *events; /* key -> struct at_state_event_write *, being written */
    at_timer_id sweep_timer;
    char sweep_from[AT_STORE_KEY_BYTES_MAX];
    uint64_t undecodable;
};

/* The value and revision of a key, as the store has it now. own: caller decrefs *ret. err:
 * AT_NOT_FOUND. */
enum at_rc at_state_read(const struct at_state *state, const char *key, json_t **ret,
                         int64_t *ret_rev, struct at_err *err) AT_WARN_UNUSED;
/* event.c */
void at_state_events_done(struct at_state *state);
void at_state_sweep_arm(struct at_state *state);

#endif
