/* Records whose answers wait for a write to a store ride in its transactions, instead of being
 * synced here beside it: the store's journal keeps their lines until the file has been synced.
 * These are the hooks of a journal (store/journal.h has the same contract); and what a journal kept
 * mends a file that lost its end to a power cut. */
#ifndef AT_AUDIT_JOURNAL_H
#define AT_AUDIT_JOURNAL_H

#include "audit/audit.h"

/* ctx: struct at_audit *; NULL: there is no log. */
uint64_t at_audit_journal_mark(void *ctx);
bool at_audit_journal_take(void *ctx, uint64_t mark, struct at_buf *out, uint64_t *ret_tag,
                           uint64_t *ret_dead);
void at_audit_journal_landed(void *ctx, bool kept);

/* What a journal kept, for at_audit_options. Accepts anything; what is none of ours is left out. */
struct at_audit_redo *at_audit_redo_new(void);
void at_audit_redo_add(void *redo, const char *bytes, size_t len); /* in order */
void at_audit_redo_free(struct at_audit_redo *redo);               /* accepts NULL */

#endif
