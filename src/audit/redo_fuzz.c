/* Any bytes as what a journal kept: taken or left out, never more. A whole batch that they happen
 * to be is put at the end of no log, for there is none. */
#include "audit/audit_priv.h"
#include "audit/journal.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct at_audit_redo *redo = at_audit_redo_new();
    struct at_audit_healed healed;
    at_audit_redo_add(redo, (const char *)data, size);
    at_audit_redo_add(redo, (const char *)data, size / 2);
    if (at_audit_redo_apply(redo, "/nonexistent", &healed, NULL) != AT_OK || healed.records != 0) {
        abort();
    }
    at_audit_redo_free(redo);
    return 0;
}
