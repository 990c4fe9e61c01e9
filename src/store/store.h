/* Revisioned keys and bytes. Knows no kinds. One global revision counter that only grows; each
 * write gets its own revision; keys are ordered bytewise. Back ends: memory, sqlite and etcd pass
 * one conformance suite. All calls and callbacks on the loop thread given at open; a callback
 * may run before the call returns. */
#ifndef AT_STORE_STORE_H
#define AT_STORE_STORE_H

#include "core/arena.h"
#include "loop/loop.h"

#define AT_STORE_KEY_BYTES_MAX 1024
#define AT_STORE_VALUE_BYTES_MAX ((size_t)1 << 20)

struct at_store;

struct at_store_kv {
    const char *key;
    const char *value;
    size_t value_len;
    int64_t create_rev;
    int64_t mod_rev;
    uint32_t ttl_s; /* as it was put; 0: it stays until it is deleted */
};

struct at_store_event {
    int64_t rev;
    bool deleted; /* cur.value is then empty, cur.key set, cur.mod_rev == rev */
    struct at_store_kv cur;
    const struct at_store_kv *prev; /* NULL: the key was not there before */
};

/* rc AT_OK: rev is the write's revision. AT_EXISTS / AT_NOT_FOUND / AT_CONFLICT: the expectation
 * did not hold, current (NULL when absent) shows what is there. Nothing is acknowledged before it
 * is durable. */
typedef void at_store_write_fn(void *ctx, enum at_rc rc, int64_t rev,
                               const struct at_store_kv *current, const struct at_err *err);
/* Range answer, borrowed until return. more: the limit cut it. rev: the snapshot's revision. */
typedef void at_store_range_fn(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *kvs,
                               size_t n, bool more, const struct at_err *err);
/* In revision order, without gaps. rc AT_COMPACTED: what comes next is lost (only with etcd), the
 * watch is over and its id stale: list again. */
typedef void at_store_watch_fn(void *ctx, enum at_rc rc, const struct at_store_event *events,
                               size_t n);
typedef uint64_t at_store_watch_id;

/* kind: "memory", "sqlite", or "etcd:http://host:port[,http://...]" (also "etcd" with the rest as
 * path); path: the database file for sqlite. etcd must be Atoll's alone, and may be shared by
 * several servers: reads are of a mirror in memory that follows it within milliseconds (see
 * at_store_catch_up); writes are exact. Opening it waits for etcd, at most 10 s without a sign of
 * it. err: AT_CONFLICT locked by another process; AT_FORBIDDEN read-only; AT_CORRUPT; AT_IO (disk
 * full); AT_UNAVAILABLE etcd does not answer. own: at_store_close. */
enum at_rc at_store_open(const char *kind, const char *path, struct at_loop *loop,
                         struct at_store **ret, struct at_err *err) AT_WARN_UNUSED;
/* Orderly end, first step: new writes are refused (AT_UNAVAILABLE), those under way are finished,
 * and their callbacks run before it returns, so that whoever wrote can be freed after it. Not from
 * within a callback of the store. */
void at_store_drain(struct at_store *store);
/* Drains, if that was not done, and ends. Accepts NULL. */
void at_store_close(struct at_store *store);

int64_t at_store_rev(const struct at_store *store); /* newest revision that is durable */
int64_t at_store_compact_rev(const struct at_store *store);

/* expect 0: the key must be absent (else AT_EXISTS); > 0: its mod_rev must be that; < 0: any.
 * in: key and value borrowed until return. A write that waits behind another to the same key sees
 * its result; with etcd, writes to different keys may change places. With AT_OK, current is the
 * value just put. err: the expectation | AT_TOO_LARGE, AT_INVALID key or value | AT_EXHAUSTED too
 * many writes wait | AT_IO the disk refused it (full): nothing was stored, later writes may work |
 * AT_CORRUPT | AT_UNAVAILABLE etcd was away for so long that nobody knows. */
void at_store_put(struct at_store *store, const char *key, const void *value, size_t len,
                  int64_t expect, at_store_write_fn *fn, void *ctx);
/* expect > 0: its mod_rev must be that; < 0: any. AT_NOT_FOUND when absent. */
void at_store_delete(struct at_store *store, const char *key, int64_t expect, at_store_write_fn *fn,
                     void *ctx);

/* A write with all that can be asked of one. A key with a TTL is deleted, as though by a delete of
 * somebody's, when so much time has passed since it was last put: by clocks that nobody steps, also
 * while no server runs (etcd: by a lease; sqlite: at the next start). A put without one makes it
 * stay. Time that passed while nobody could tell only makes it live longer.
 * guard: the write happens only while that key has this mod_rev, all in one step: else AT_CONFLICT
 * with current NULL. So who was told that its time is over cannot write any more, whenever what it
 * sent arrives. */
struct at_store_write {
    const char *key;
    const void *value;
    size_t len;
    bool deletes;
    int64_t expect;        /* as of put and delete */
    uint32_t ttl_s;        /* 0: none; at most AT_STORE_TTL_S_MAX; etcd lets it last 2 s at least */
    const char *guard_key; /* NULL: none */
    int64_t guard_rev;
    at_store_write_fn *fn; /* may be NULL */
    void *ctx;
};
#define AT_STORE_TTL_S_MAX ((UINT32_C(1) << 23) - 1)
void at_store_write(struct at_store *store, const struct at_store_write *write);
/* Until the key ends, as far as is known here: after a restart with etcd at most so long.
 * INT64_MAX: it has no TTL, or is not there. */
int64_t at_store_ttl_left_ns(const struct at_store *store, const char *key);

/* fn (never NULL) with AT_OK once every write that was put before has been answered. */
void at_store_sync(struct at_store *store, at_store_write_fn *fn, void *ctx);
/* fn (never NULL) with AT_OK once reads of now show everything that any server of a shared store
 * was told before this call; before this returns when the store is this process's alone. err:
 * AT_UNAVAILABLE. */
void at_store_catch_up(struct at_store *store, at_store_write_fn *fn, void *ctx);
/* Answer all that waits for a shared store with AT_UNAVAILABLE now: whoever led and cannot renew
 * its lease must not have writes arrive after another has begun to lead. Not from within a callback
 * of the store. */
void at_store_give_up(struct at_store *store);
bool at_store_is_shared(const struct at_store *store); /* other servers may write to it */
/* Keys in [from, to), at most limit (0: all), as of at_rev (0: now). One key: from = key, to =
 * NULL. AT_COMPACTED at_rev is gone; AT_TIMEOUT at_rev lies in the future. With at_rev 0, fn is
 * called before this returns, with everything that any callback was told. */
void at_store_range(struct at_store *store, const char *from, const char *to, size_t limit,
                    int64_t at_rev, at_store_range_fn *fn, void *ctx);
/* Events with rev > after_rev for keys in [from, to) (one key: to = NULL); fn is never called
 * before this returns. Watchers see a write before its own callback runs. err: AT_COMPACTED
 * after_rev is older than at_store_compact_rev: list again | AT_TIMEOUT after_rev lies in the
 * future. */
enum at_rc at_store_watch(struct at_store *store, const char *from, const char *to,
                          int64_t after_rev, at_store_watch_fn *fn, void *ctx,
                          at_store_watch_id *ret, struct at_err *err) AT_WARN_UNUSED;
void at_store_unwatch(struct at_store *store, at_store_watch_id id);
/* Everything up to this revision was shown to the watch: where it can be resumed. 0: a stale id. */
int64_t at_store_watch_rev(const struct at_store *store, at_store_watch_id id);
/* What the store has done, for metrics. */
struct at_store_stats {
    uint64_t writes, batches, failed_batches, compactions; /* since open */
    uint64_t changes;                                      /* shown, of other servers too */
    uint64_t reads;                                        /* ranges that were asked for */
    size_t queued;                                         /* writes waiting now */
    size_t keys, watchers, history_revs, history_bytes;
};
struct at_store_stats at_store_stats(const struct at_store *store);

/* History is forgotten by itself past so many changes, or bytes of them (0: as it is). */
void at_store_history_bound(struct at_store *store, size_t changes, size_t bytes);
/* Forget history up to and including rev (values that are current stay). */
void at_store_compact(struct at_store *store, int64_t rev, at_store_write_fn *fn, void *ctx);
/* Raise the revision to rev, as though there had been writes that are forgotten: the next write
 * gets a greater one, and history up to rev is compacted. Nothing happens when it is not lower. For
 * stores that are being filled: there must be no watch. err: AT_UNSUPPORTED etcd, see below. */
void at_store_advance(struct at_store *store, int64_t rev, at_store_write_fn *fn, void *ctx);

/* etcd's revisions are its own: a store on an empty etcd is raised by putting so many (decimal) to
 * this key, compacting up to it, and opening it anew. */
#define AT_STORE_ETCD_OFFSET_KEY "/atoll-internal/revision-offset"
#define AT_STORE_ETCD_OFFSET_MAX (INT64_C(1) << 53)

/* Everything as it is now, kept for as long as it takes, whatever is written or compacted
 * meanwhile. own: at_store_snapshot_free, before the store is closed. cost: 8 bytes a key, and what
 * changes. */
struct at_store_snapshot;
struct at_store_snapshot *at_store_snapshot_new(struct at_store *store);
int64_t at_store_snapshot_rev(const struct at_store_snapshot *snapshot);
size_t at_store_snapshot_count(const struct at_store_snapshot *snapshot);
/* i < count, in key order. Borrowed from the snapshot. */
struct at_store_kv at_store_snapshot_at(const struct at_store_snapshot *snapshot, size_t i);
void at_store_snapshot_free(struct at_store_snapshot *snapshot); /* accepts NULL */

/* The end of a prefix's range: prefix with its last byte raised by one. out: at least
 * strlen(prefix) + 1. */
void at_store_prefix_end(const char *prefix, char *out, size_t out_size);

#endif
