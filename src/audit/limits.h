/* Named limits of the audit log. */
#ifndef AT_AUDIT_LIMITS_H
#define AT_AUDIT_LIMITS_H

#include <stddef.h>
#include <stdint.h>

#define AT_AUDIT_RECORD_BYTES_MAX                                                                  \
    ((size_t)16 << 10) /* a longer one is cut down to who and what                                 \
                        */
/* Records that wait for the disk. Past it nothing more is carried out that would be recorded. */
#define AT_AUDIT_PENDING_BYTES_MAX ((size_t)8 << 20)
#define AT_AUDIT_FILE_BYTES_DEFAULT ((int64_t)64 << 20) /* then the file is turned over */
#define AT_AUDIT_BYTES_DEFAULT ((int64_t)1 << 30)       /* of all files together */
#define AT_AUDIT_FILES_MAX 4096
#define AT_AUDIT_SEAL_PERIOD_MS 1000 /* what is younger may be missing at the end */
#define AT_AUDIT_SEAL_RECORDS 8192
#define AT_AUDIT_SINKS_MAX 4
/* Lines that wait for a ride; more are synced instead. */
#define AT_AUDIT_JOURNAL_BYTES_MAX ((size_t)256 << 10)
/* After so many bytes the file is synced behind the answers' backs, so that the journal stays
 * small. */
#define AT_AUDIT_UNSYNCED_BYTES_MAX ((size_t)768 << 10)
#define AT_AUDIT_BATCH_RECORDS 500
#define AT_AUDIT_BATCH_BYTES ((size_t)256 << 10)
#define AT_AUDIT_SINK_TIMEOUT_MS 10000
#define AT_AUDIT_RETRY_MS_MIN 200
#define AT_AUDIT_RETRY_MS_MAX 15000
#define AT_AUDIT_CURSOR_PERIOD_MS 1000
/* What a syslog receiver's kernel may hold unread: it comes again when its connection breaks. */
#define AT_AUDIT_RESEND_BYTES ((int64_t)8 << 20) /* and a quarter of the log at most */
#define AT_AUDIT_RESEND_MS (5 * 60 * 1000)
#define AT_AUDIT_RESEND_MARKS 128
#define AT_AUDIT_RESEND_MARK_MS 10000

#endif
