/* Every verb that is no role: the command line in src/cli. */
#include "apps/apps.h"
#include "cli/cli.h"
#include "sys/fd.h"

int at_app_cli(int argc, char **argv)
{
    struct at_cli_env env = {.sys = at_sys_real(),
                             .in = stdin,
                             .out = stdout,
                             .err = stderr,
                             .out_is_terminal = at_fd_is_terminal(1),
                             .err_is_terminal = at_fd_is_terminal(2)};
    at_fd_ignore_sigpipe();
    return at_cli_main(&env, argc, argv);
}
