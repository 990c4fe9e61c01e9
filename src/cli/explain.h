/* What the files about explain share. */
#ifndef AT_CLI_EXPLAIN_H
#define AT_CLI_EXPLAIN_H

#include "cli/cli_priv.h"

/* The field beside which path ("spec.env[2].nme") was probably meant; NULL. own: arena. */
const char *cli_nearest_field(const struct cli *cli, const struct at_model_kind *kind,
                              const char *path);
/* explain placement OBJECT */
enum at_rc cli_explain_placement(struct cli *cli, struct at_err *err) AT_WARN_UNUSED;

#endif
