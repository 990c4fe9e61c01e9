/* Two versions of an object, field by field. */
#ifndef AT_CLI_FIELDS_H
#define AT_CLI_FIELDS_H

#include "cli/cli_priv.h"

/* Without what servers keep for themselves: status, versions, times, who manages what, and the
 * annotation of apply. own: caller decrefs; NULL for NULL. */
json_t *cli_comparable(const json_t *object);
/* Values of Secrets become stars that tell only whether they differ. Both may be NULL. */
void cli_mask_secrets(const struct at_model_kind *kind, json_t *before, json_t *after);
/* [{"path","before","after"}]: one without "before" is new, one without "after" is gone. Lists of
 * named things are compared by name. own: caller decrefs. */
json_t *cli_fields_diff(struct cli *cli, const json_t *before, const json_t *after);

#endif
