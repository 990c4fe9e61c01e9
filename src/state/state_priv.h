/* Inside of state, for this folder and its tests. */
#ifndef AT_STATE_PRIV_H
#define AT_STATE_PRIV_H

#include "core/map.h"
#include "state/limits.h"
#include "state/state.h"

/* One decoded object, immutable: one allocation with everything it points at. This lies just before
 * the typed object that snapshots show. */
struct at_state_entry {
    struct at_state_entry *next_dead;
    _Alignas(16) char object[]; /* begins with its struct at_meta */
};
static inline const struct at_meta *at_state_entry_meta(const struct at_state_entry *entry)
{
    return (const struct at_meta *)(const void *)entry->object;
}
/* By (namespace, name); NULL is the empty namespace. */
int at_state_compare(const struct at_meta *meta, const char *ns, const char *name);

/* The objects of one kind at one moment, ordered by (namespace, name). The newest one of a kind is
 * edited in place while nobody else holds it, and copied before an edit when somebody does. What an
 * edit takes out may still be shown by older ones: it is left to the next older one, to be freed,
 * or passed on, with it. */
struct at_state_list {
    unsigned refs; /* the kind's, and one of each snapshot */
    size_t n, cap;
    const void **objects;
    struct at_state_list *older, *newer; /* of those that are still held */
    struct at_state_entry *dead;         /* shown by this one or older ones, not by newer ones */
    bool last;                           /* its kind has gone: its objects go with it */
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
    AT_STATE_QUEUES,
    AT_STATE_RESERVATIONS,
    AT_STATE_QUOTAS,
    AT_STATE_LIMIT_RANGES,
    AT_STATE_NETWORK_POLICIES,
    AT_STATE_SLOTS,
};
enum at_state_slot at_state_slot_of(const struct at_model_kind *kind); /* AT_STATE_SLOTS: none */
const struct at_model_kind *at_state_slot_kind(enum at_state_slot slot);

/* A change that the list does not show yet. */
struct at_state_edit {
    struct at_state_entry *entry; /* NULL: gone */
    const char *ns, *name;        /* in entry, or owned when there is none */
    size_t number;                /* the later one wins */
    bool there;                   /* the list shows one of that name, at: */
    size_t at;
};

/* The objects of one kind as they are now: changes are collected, and brought into the list
 * together when somebody wants to see it. */
struct at_state_kind {
    struct at_state_list *list; /* NULL: there was nothing yet */
    struct at_state_edit *edits;
    size_t n_edits, cap_edits;
};
/* Put entry (it is taken) or, with NULL, remove ns/name. */
void at_state_kind_set(struct at_state_kind *k, const char *ns, const char *name,
                       struct at_state_entry *entry_take);
/* Everything that was set is in it. Borrowed; at_state_list_ref keeps it as it is. cost: sorting
 * the changes, and moving pointers. */
struct at_state_list *at_state_kind_list(struct at_state_kind *k);
static inline struct at_state_list *at_state_list_ref(struct at_state_list *list)
{
    list->refs++;
    return list;
}
void at_state_kind_done(struct at_state_kind *k); /* lists that are held stay good */

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
    const char *guard_key; /* NULL: none */
    int64_t guard_rev;
    at_store_watch_id watch;
    int64_t rev;
    struct at_state_kind kinds[AT_STATE_SLOTS];
    struct at_snapshot_box *newest; /* NULL: out of date */
    struct at_state_listener listeners[AT_STATE_LISTENERS_MAX];
    size_t n_listeners;
    void (*ready)(void *ctx);
    void *ready_ctx;
    at_timer_id ready_timer;
    struct at_arena *scratch, *lent;
    struct at_buf trimmed;
    struct at_buf entry_key, entry_text; /* write.c: the entry of managedFields made last */
    struct at_map *heartbeats;           /* node -> struct at_state_beat * */
    at_timer_id relist_timer;
    struct at_map *events; /* key -> struct at_state_event_write *, being written */
    at_timer_id sweep_timer;
    char sweep_from[AT_STORE_KEY_BYTES_MAX];
    struct at_quota_pass *passes; /* quota.c: writes under way that quotas count */
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
