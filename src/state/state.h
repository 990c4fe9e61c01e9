/* Typed indexes fed by the store's watch, immutable snapshots, and planned writes back to the
 * store. */
#ifndef AT_STATE_STATE_H
#define AT_STATE_STATE_H

#include "state/object.h"
#include "state/snapshot.h"
#include "store/store.h"

struct at_state;

/* Store keys: "/atoll/<group or core>/<plural>/<namespace or _>/<name>". Values are the objects'
 * JSON without metadata.resourceVersion, which is the key's mod_rev. Shared by api and state. out:
 * AT_STORE_KEY_BYTES_MAX. name NULL gives the prefix of the namespace; ns NULL too: of the kind
 * (both end with '/'). */
void at_state_key(const struct at_model_kind *kind, const char *ns, const char *name, char *out,
                  size_t out_size);

/* The reverse. ns and name point into key (*ret_ns is NULL for cluster-scoped kinds, and not
 * NUL-terminated: ret_ns_len). err: AT_NOT_FOUND no such kind, or not an object's key. */
enum at_rc at_state_key_parse(const char *key, const struct at_model_kind **ret_kind,
                              const char **ret_ns, size_t *ret_ns_len,
                              const char **ret_name) AT_WARN_UNUSED;

typedef void at_state_changed_fn(void *ctx, const struct at_model_kind *kind, const char *ns,
                                 const char *name);

/* Lists everything, then watches. ready is called once when the first picture is complete. */
enum at_rc at_state_new(struct at_loop *loop, struct at_store *store, void (*ready)(void *ctx),
                        void *ctx, struct at_state **ret, struct at_err *err) AT_WARN_UNUSED;
void at_state_free(struct at_state *state);
struct at_store *at_state_store(struct at_state *state); /* that it is of */
/* changed is called for each object that was put or deleted, after the indexes show it; now and
 * then also for one that is as it was. At most AT_STATE_LISTENERS_MAX. */
void at_state_listen(struct at_state *state, at_state_changed_fn *changed, void *ctx);
#define AT_STATE_LISTENERS_MAX 16
void at_state_unlisten(struct at_state *state, at_state_changed_fn *changed, void *ctx);

/* The newest picture; cheap when nothing changed since the last call. own: at_snapshot_unref. */
const struct at_snapshot *at_state_snapshot(struct at_state *state);
void at_snapshot_unref(const struct at_snapshot *snap);
/* Is the object there, and do its stored bytes hold one of texts (NULL-terminated) anywhere? For
 * those who need to parse only the few objects that do. */
bool at_state_mentions(const struct at_state *state, const struct at_model_kind *kind,
                       const char *ns, const char *name, const char *const *texts, bool *ret_there);
/* Stored JSON of an object (with resourceVersion put in), NULL when absent. own: caller decrefs. */
json_t *at_state_object(const struct at_state *state, const struct at_model_kind *kind,
                        const char *ns, const char *name);
/* Every object of a kind, in key order; ns NULL: in all namespaces. All arguments are borrowed
 * until fn returns; fn may plan writes (what they change may or may not be seen by this walk). */
typedef void at_state_each_fn(void *ctx, const char *ns, const char *name, const json_t *object);
void at_state_each(const struct at_state *state, const struct at_model_kind *kind, const char *ns,
                   at_state_each_fn *fn, void *ctx);
/* The same for those whose stored bytes hold one of texts (NULL-terminated) anywhere: the others
 * are not parsed. */
void at_state_each_mentioning(const struct at_state *state, const struct at_model_kind *kind,
                              const char *const *texts, at_state_each_fn *fn, void *ctx);

/* Planned writes: compare-and-swap against the version that state shows. done may be NULL: a
 * conflict is then simply met again at the next reconcile. */
typedef void at_state_written_fn(void *ctx, enum at_rc rc, int64_t rev, const struct at_err *err);
/* Writes planned from now on happen only while the store's key guard_key has revision guard_rev
 * (see at_store_write); otherwise AT_CONFLICT. NULL: no guard any more. guard_key is borrowed until
 * then. Events have no guard: equal ones are one. */
void at_state_guard(struct at_state *state, const char *guard_key, int64_t guard_rev);
/* How long an object of this kind is kept after it was last written; 0: until it is deleted. */
uint32_t at_state_ttl_s(const struct at_model_kind *kind);
/* Stamps uid, creationTimestamp, generation 1, applies defaults and validates: a controller's bug
 * is refused here. */
void at_state_create(struct at_state *state, const struct at_model_kind *kind, json_t *object_take,
                     at_state_written_fn *done, void *ctx);
/* change edits a copy of the stored object; return false to leave it as it is (done gets AT_OK).
 * Unchanged results are not written. A change of spec raises generation. */
typedef bool at_state_change_fn(void *ctx, json_t *object);
void at_state_update(struct at_state *state, const struct at_model_kind *kind, const char *ns,
                     const char *name, at_state_change_fn *change, void *change_ctx,
                     at_state_written_fn *done, void *ctx);
/* The same by editing the stored text (at_object_edit), many times as fast, for a few members that
 * the caller knows to be sound: they are written as they are. edit looks at the stored text and
 * fills in up to AT_STATE_EDITS_OWN_MAX edits of metadata, spec and status, without generation and
 * managedFields, which follow; what it returns stays good until the next call. Where it returns
 * false, and for objects whose text says that more would have to be looked at, change is called
 * instead, with the same change_ctx. */
struct at_object_edit;
#define AT_STATE_EDITS_OWN_MAX 16
typedef bool at_state_edit_fn(void *ctx, const char *stored, size_t len,
                              struct at_object_edit edits[AT_STATE_EDITS_OWN_MAX], size_t *ret_n);
void at_state_edit(struct at_state *state, const struct at_model_kind *kind, const char *ns,
                   const char *name, at_state_edit_fn *edit, at_state_change_fn *change,
                   void *change_ctx, at_state_written_fn *done, void *ctx);
/* As DELETE through the API: with finalizers it sets deletionTimestamp, without it removes. */
void at_state_delete(struct at_state *state, const struct at_model_kind *kind, const char *ns,
                     const char *name, const char *uid, at_state_written_fn *done, void *ctx);
/* Record a core v1 Event about an object; equal ones within 10 minutes are counted up instead. */
void at_state_event(struct at_state *state, const struct at_model_kind *kind,
                    const struct at_meta *about, bool warning, const char *reason, const char *fmt,
                    ...) AT_PRINTF(6, 7);

/* Heartbeats: kept in memory only. */
void at_state_heartbeat(struct at_state *state, const char *node, int64_t now_mono_ns);
int64_t at_state_heartbeat_last(const struct at_state *state,
                                const char *node); /* 0: none since start */
/* With several servers: a beat at another one, as that server told at heard_ns. A later beat, from
 * wherever, wins. */
void at_state_heartbeat_relayed(struct at_state *state, const char *node, int64_t at_mono_ns,
                                int64_t heard_ns);
/* Until when a beat of this node would have been seen here: now, or, when another server tells of
 * it, the last time that server told anything of it. 0: no beat yet. */
int64_t at_state_heartbeat_heard(const struct at_state *state, const char *node,
                                 int64_t now_mono_ns);
/* Every node that has beaten at this server itself. */
typedef void at_state_beat_fn(void *ctx, const char *node, int64_t last_mono_ns);
void at_state_heartbeat_each(const struct at_state *state, at_state_beat_fn *fn, void *ctx);

#endif
