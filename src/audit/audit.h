/* The audit log: one line of JSON for each request, chained by SHA-256 and sealed by a signature,
 * so that what was edited, deleted, cut off or put into another order shows (verify.h).
 *
 * Lines are written by a thread of the log's own, many at a time. Files: audit.log, which is turned
 * over to audit.log.<its first number>; audit.head, the newest seal; audit.key and audit.pub, an
 * Ed25519 key pair for seals; audit.cursor.<sink>, how far a sink has got. */
#ifndef AT_AUDIT_AUDIT_H
#define AT_AUDIT_AUDIT_H

#include "core/buf.h"
#include "core/metrics.h"
#include "loop/loop.h"

struct at_audit;
struct at_audit_redo; /* journal.h */

enum at_audit_level {
    AT_AUDIT_NONE,
    AT_AUDIT_CHANGES,  /* changes, refusals, and whatever touches secrets */
    AT_AUDIT_REQUESTS, /* all but health, metrics and what agents report about themselves */
    AT_AUDIT_ALL,
};
/* "none", "changes", "requests", "all". err: AT_INVALID. */
enum at_rc at_audit_level_parse(const char *text, enum at_audit_level *ret,
                                struct at_err *err) AT_WARN_UNUSED;

struct at_audit_options {
    struct at_loop *loop;
    const char *dir;           /* copied */
    enum at_audit_level level; /* told back by at_audit_level_of */
    bool no_sync;              /* answers do not wait for the disk, only for the kernel */
    bool journaled; /* a store carries the journal.h hooks of this log; not with no_sync */
    const struct at_audit_redo *redo; /* what its journal kept; may be NULL */
    bool drop_oldest;                 /* when full: else whatever would be recorded is refused */
    int64_t bytes_max;                /* of all files. 0: the default */
    int64_t file_bytes_max;           /* 0: the default */
    const char *const *sinks;         /* URLs, NULL-terminated (ship.h); may be NULL */
    struct at_metrics *metrics;       /* may be NULL */
    /* Records up to ticket will not be lost any more: whatever waits for them goes on. From the
     * loop. */
    void (*settled)(void *ctx, uint64_t ticket);
    void *ctx;
};

/* Takes the chain up where it ends; a line that a crash left half written is cut off, and what does
 * not fit the newest seal is said in the log itself. err: AT_CORRUPT the key | AT_FORBIDDEN, AT_IO
 * files. own: at_audit_close. */
enum at_rc at_audit_open(const struct at_audit_options *options, struct at_audit **ret,
                         struct at_err *err) AT_WARN_UNUSED;
/* Writes what waits, seals it, ends. settled is not called any more. Accepts NULL. */
void at_audit_close(struct at_audit *audit);
enum at_audit_level at_audit_level_of(const struct at_audit *audit);

/* A record: members of a JSON object without the braces, such as "a":1,"b":"x". Returns its ticket;
 * settled says when it is safe. Never fails: what cannot be kept is counted, and said in the log
 * once it can be written again. thread: loop. */
enum at_audit_wait {
    AT_AUDIT_LATER, /* nobody waits: it is safe within about a second */
    AT_AUDIT_SYNCED,
    AT_AUDIT_RIDES, /* a write to the store follows at once and makes it safe, when it succeeds */
};
uint64_t at_audit_add(struct at_audit *audit, const char *members, size_t len,
                      enum at_audit_wait wait);
/* Somebody waits for a ticket: if no write to the store carried it, it is synced now. */
void at_audit_hurry(struct at_audit *audit, uint64_t ticket);
/* Must requests that would be recorded be refused, because the disk fails or is full? why: a
 * sentence. */
bool at_audit_refuses(const struct at_audit *audit, const char **ret_why);

#endif
