/* Named limits of the store. */
#ifndef AT_STORE_LIMITS_H
#define AT_STORE_LIMITS_H

#include "core/units.h"

/* Writes that wait for the disk; past it a put is refused with AT_EXHAUSTED. */
#define AT_STORE_QUEUE_WRITES_MAX 16384
#define AT_STORE_QUEUE_BYTES_MAX ((size_t)64 << 20)
/* What one transaction carries. */
#define AT_STORE_BATCH_WRITES_MAX 1024
#define AT_STORE_BATCH_BYTES_MAX ((size_t)8 << 20)

/* History kept for resuming watches and for ranges at an old revision. It is compacted by itself
 * past either of the first two, or when it is older than the third and not among the newest
 * AT_STORE_HISTORY_REVS_MIN revisions. */
#define AT_STORE_HISTORY_REVS_MAX 10000
#define AT_STORE_HISTORY_BYTES_MAX ((size_t)32 << 20)
#define AT_STORE_HISTORY_AGE_NS (300 * AT_NS_PER_S)
#define AT_STORE_HISTORY_REVS_MIN 1000
#define AT_STORE_HISTORY_CHECK_NS (60 * AT_NS_PER_S)
/* Automatic compaction by number waits until it is worth a step, and forgets at most so many
 * revisions in one transaction. */
#define AT_STORE_COMPACT_STEP_MIN 256
#define AT_STORE_COMPACT_STEP_MAX 2048

/* Keys whose TTL has ended are deleted so many at a time, and again when it failed. */
#define AT_STORE_LEASE_ENDS_MAX 256
#define AT_STORE_LEASE_RETRY_NS (1 * AT_NS_PER_S)

/* Events given to a watcher in one call. */
#define AT_STORE_WATCH_EVENTS_MAX 256
/* Pages of the write-ahead log after which it is moved into the database, between batches. */
#define AT_STORE_WAL_PAGES_MAX 1000
/* Pages of the journal (journal.h). */
#define AT_STORE_JOURNAL_SLOTS 512

/* etcd: transactions under way at once, and what one carries; the rest waits, and goes together.
 * etcd takes at most 128 operations (--max-txn-ops) and 1.5 MiB. */
#define AT_STORE_ETCD_TXNS_MAX 2
#define AT_STORE_ETCD_GROUP_WRITES_MAX 64
#define AT_STORE_ETCD_GROUP_BYTES_MAX ((size_t)512 << 10)
/* Calls about leases under way at once. */
#define AT_STORE_ETCD_CALLS_MAX 32
/* Values under way at once; one may be larger. More would only wait in etcd, and time out there. */
#define AT_STORE_ETCD_SENT_BYTES_MAX ((size_t)2 << 20)
/* An answer that does not begin (end) in time: the next endpoint is asked. */
#define AT_STORE_ETCD_ATTEMPT_NS (2 * AT_NS_PER_S)
#define AT_STORE_ETCD_ANSWER_NS (10 * AT_NS_PER_S)
/* A write (a read that must be of now) is given up after so long without etcd. */
#define AT_STORE_ETCD_WRITE_NS (5 * AT_NS_PER_S)
#define AT_STORE_ETCD_READ_NS (3 * AT_NS_PER_S)
/* Opening is given up when nothing is heard for so long. */
#define AT_STORE_ETCD_OPEN_NS (10 * AT_NS_PER_S)
#define AT_STORE_ETCD_RETRY_NS (100 * AT_NS_PER_MS)
/* etcd is asked for its revision so often, to find out that a watch has silently died. */
#define AT_STORE_ETCD_PROBE_NS (1 * AT_NS_PER_S)
#define AT_STORE_ETCD_ENDPOINTS_MAX 8
#define AT_STORE_ETCD_OPTION_BYTES_MAX 1024                     /* one option's value */
#define AT_STORE_ETCD_OPTION_FILE_BYTES_MAX ((size_t)256 << 10) /* a certificate, a password */
#define AT_STORE_ETCD_TOKEN_BYTES_MAX ((size_t)8 << 10)
/* After failed connections its certificates are read anew, at most so often. */
#define AT_STORE_ETCD_TLS_RELOAD_NS (2 * AT_NS_PER_S)
/* One answer, one message of a watch; more than that in a watch is read anew in pages. */
#define AT_STORE_ETCD_ANSWER_BYTES_MAX ((size_t)64 << 20)
/* Pages are sized so that one has about so many bytes of values. */
#define AT_STORE_ETCD_PAGE_BYTES ((size_t)4 << 20)
#define AT_STORE_ETCD_PAGE_KEYS_MIN 8
#define AT_STORE_ETCD_PAGE_KEYS_MAX 1000

#endif
