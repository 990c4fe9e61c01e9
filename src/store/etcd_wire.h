/* etcd's JSON gateway as text: requests are composed, answers are taken apart. No I/O.
 * Keys and values travel as base64, 64-bit numbers as strings, and what is zero is left out. */
#ifndef AT_STORE_ETCD_WIRE_H
#define AT_STORE_ETCD_WIRE_H

#include "core/json.h"
#include "store/store_priv.h"

/* The low bits of a lease's number are its TTL in seconds. */
#define AT_ETCD_LEASE_TTL_BITS 23
static inline uint32_t at_etcd_lease_ttl(uint64_t lease)
{
    return (uint32_t)(lease & ((UINT64_C(1) << AT_ETCD_LEASE_TTL_BITS) - 1));
}

/* Revisions. All changes of one of etcd's transactions share its revision; the store wants one for
 * each. So the store's are etcd's times AT_ETCD_PLACES and the place of the key, which every server
 * can tell from the key alone: 12 bits of its hash. Transactions carry only keys of different
 * places, in the order of these. The store as it is after a transaction has its last place. */
#define AT_ETCD_PLACES 4096
#define AT_ETCD_RAW_REV_MAX (INT64_C(1) << 50)
unsigned at_etcd_place(const char *key);
/* The key that tells which of these schemes a store's servers use; its NUL, which no key of the
 * store has, makes those that know of none (and give each change etcd's revision) refuse it. */
#define AT_ETCD_SCHEME_KEY "/atoll-internal/revision-scheme\0"
#define AT_ETCD_SCHEME 2
/* Of one element of kvs, or an event's kv. 0: not that key. */
int64_t at_etcd_scheme(const json_t *kv);
/* Made when it is not there; else the answer shows it. */
enum at_rc at_etcd_scheme_text(struct at_buf *out) AT_WARN_UNUSED;

/* A put or delete of version's key that happens only while its mod_revision is expect (0: absent)
 * and the guard's is guard_rev; otherwise the answer shows what is there. */
struct at_etcd_txn {
    const struct at_store_version *version;
    bool put;
    int64_t expect;
    uint64_t lease;        /* 0: none */
    const char *guard_key; /* NULL: none */
    int64_t guard_rev;
    const struct at_store_seal *seal; /* of its value; NULL: none */
};
enum at_etcd_form {
    AT_ETCD_ONE,      /* n is 1 */
    AT_ETCD_TOGETHER, /* all of them or none, which the answer does not explain; cheap for etcd */
    AT_ETCD_APART,    /* each by itself, in one step */
};
/* Keys must differ, and a guard's must not be another one's. err: AT_TOO_LARGE. */
enum at_rc at_etcd_txn_text(const struct at_etcd_txn *txns, size_t n, enum at_etcd_form form,
                            struct at_buf *out) AT_WARN_UNUSED;
/* ttl_s 0: of a lease that is there. */
enum at_rc at_etcd_lease_text(uint64_t lease, uint32_t ttl_s, struct at_buf *out) AT_WARN_UNUSED;
/* Keys from from[0..len) to the last one, as of rev (0: now). limit 0 asks for nothing but the
 * newest revision. */
enum at_rc at_etcd_range_text(const char *from, size_t len, int64_t rev, size_t limit,
                              struct at_buf *out) AT_WARN_UNUSED;
enum at_rc at_etcd_watch_text(int64_t start_rev, struct at_buf *out) AT_WARN_UNUSED;
enum at_rc at_etcd_compact_text(int64_t rev, struct at_buf *out) AT_WARN_UNUSED;

/* What etcd said instead of 200. *ret_unsure: the call may have had its effect all the same.
 * AT_UNAVAILABLE is worth another attempt. */
enum at_rc at_etcd_error(int status, const char *text, size_t len, bool *ret_unsure,
                         struct at_err *err);

/* header.revision; 0 when there is none. */
int64_t at_etcd_answer_rev(const json_t *answer);
/* One element of kvs. A key that a C string cannot hold becomes the empty one: it is not ours.
 * *ret_lease (may be NULL): 0: none. own: caller unrefs. err: AT_CORRUPT. */
enum at_rc at_etcd_kv(const json_t *kv, struct at_store_version **ret, uint64_t *ret_lease,
                      struct at_err *err) AT_WARN_UNUSED;

struct at_etcd_txn_answer {
    bool succeeded;
    int64_t rev;                      /* etcd's; with succeeded, of this write */
    struct at_store_version *current; /* not succeeded: what is there; NULL: nothing, or (together)
                                       * not known. own: caller */
    int64_t guard_rev; /* not succeeded: of the guard, when there is one; 0: absent */
};
/* To the i-th of them. */
enum at_rc at_etcd_txn_answer(const json_t *answer, enum at_etcd_form form, size_t i,
                              struct at_etcd_txn_answer *ret, struct at_err *err) AT_WARN_UNUSED;

/* One line of a watch. */
struct at_etcd_watch_line {
    json_t *root; /* own: at_etcd_watch_line_done */
    bool created;
    bool canceled;
    int64_t rev;
    int64_t compact_rev;  /* not 0: canceled because the start is compacted */
    const json_t *events; /* an array, or NULL */
};
enum at_rc at_etcd_watch_line(const char *text, size_t len, struct at_etcd_watch_line *ret,
                              struct at_err *err) AT_WARN_UNUSED;
void at_etcd_watch_line_done(struct at_etcd_watch_line *line);
/* One element of events. own: caller unrefs *ret_version, whose mod_rev is the event's revision. */
enum at_rc at_etcd_event(const json_t *event, bool *ret_deleted,
                         struct at_store_version **ret_version, uint64_t *ret_lease,
                         struct at_err *err) AT_WARN_UNUSED;
/* The token of an answer to authenticate, as a header's value; NULL: none that could be one. */
const char *at_etcd_token(const json_t *answer);

#endif
