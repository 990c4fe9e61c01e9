/* A log beside the store whose newest lines ride in the store's own transactions: one sync makes
 * both durable, and the log's file is written without one. After a crash the lines are read back
 * from here. SQLite only. */
#ifndef AT_STORE_JOURNAL_H
#define AT_STORE_JOURNAL_H

#include "core/buf.h"
#include "store/store.h"

struct at_store_journal {
    void *ctx;
    /* Does something wait to ride with the batch that goes now? What, for take; 0: nothing. thread:
     * loop. */
    uint64_t (*mark)(void *ctx);
    /* Appends everything up to mark that is neither kept here nor safe elsewhere. *ret_tag grows
     * with each one; what was kept under tags up to *ret_dead is not needed any more. False: there
     * is nothing to keep. thread: any; may wait for whoever makes the lines, not for a disk. */
    bool (*take)(void *ctx, uint64_t mark, struct at_buf *out, uint64_t *ret_tag,
                 uint64_t *ret_dead);
    /* The batch of the newest mark has ended, before the callbacks of its writes. kept: what was
     * taken is durable; false: it was not stored, or there was no room. thread: loop. */
    void (*landed)(void *ctx, bool kept);
};

/* What is kept, oldest first: each as it was taken. Some of it may be dead, and what was dead is
 * missing in part. */
typedef void at_store_journal_fn(void *ctx, const char *bytes, size_t len);
/* Before the first write, once: what lies there is told, then the journal (kept by pointer) rides
 * along. journal NULL: only the former. err: AT_UNSUPPORTED this store has none | those of files.
 */
enum at_rc at_store_journal_open(struct at_store *store, const struct at_store_journal *journal,
                                 at_store_journal_fn *each, void *ctx,
                                 struct at_err *err) AT_WARN_UNUSED;

#endif
