/* Programs of the user that are run on the way: editors, diff, tar. */
#ifndef AT_CLI_PROGRAM_H
#define AT_CLI_PROGRAM_H

#include "cli/cli_priv.h"

/* Run argv (NULL-terminated) on our own terminal and wait for its end. in, out: descriptors; -1:
 * /dev/null. *ret_exit: its status, 128 + N after signal N. err: AT_NOT_FOUND no such program. */
enum at_rc cli_program_run(struct cli *cli, const char *const *argv, int in, int out, int *ret_exit,
                           struct at_err *err) AT_WARN_UNUSED;

#endif
