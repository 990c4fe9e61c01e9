/* Is a log whole? For `atoll audit verify`; works on a live log, and on a copy. */
#ifndef AT_AUDIT_VERIFY_H
#define AT_AUDIT_VERIFY_H

#include "core/err.h"

struct at_audit_report {
    uint64_t first_seq, last_seq, records, seals;
    uint64_t sealed_seq; /* up to here nothing can be missing at the end */
    uint64_t pruned_seq; /* up to here files were deleted by the limit of size; 0: none */
    uint64_t lost;       /* records that the log itself says were lost */
    size_t files;
    char chain[17];
};

/* key_path: the public key; NULL: audit.pub in dir. from_seq: begin at the first seal at or after
 * it; 0: at the beginning.
 * err: AT_CORRUPT the first thing that is wrong, with file and line, in msg; *ret holds what was
 * found before | AT_NOT_FOUND there is no log | those of files. cost: reads everything once. */
enum at_rc at_audit_verify(const char *dir, const char *key_path, uint64_t from_seq,
                           struct at_audit_report *ret, struct at_err *err) AT_WARN_UNUSED;

#endif
