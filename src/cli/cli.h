/* The command line: every verb that talks to a server or a gateway. The roles (server, agent,
 * gateway, dev ...) are the programs' own. */
#ifndef AT_CLI_CLI_H
#define AT_CLI_CLI_H

#include "sys/sys.h"

#include <stdio.h>

struct at_cli_env {
    const struct at_sys *sys;
    FILE *in, *out, *err;
    bool out_is_terminal, err_is_terminal; /* colour on out, progress lines on err */
};

/* argv[0] is the program's name, argv[1] the verb. Returns the exit status: at_rc_exit_status of
 * what happened, 0 on success. */
int at_cli_main(struct at_cli_env *env, int argc, char **argv);

#endif
