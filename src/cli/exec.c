/* exec: a command beside an instance, with a terminal when both ends want one. */
#include "cli/reach.h"
#include "sys/fd.h"

#include <signal.h>
#include <string.h>

struct exec {
    struct cli *cli;
    struct cli_remote *remote;
};

static bool put(void *ctx, bool is_err, const char *data, size_t len)
{
    struct exec *x = ctx;
    FILE *out = is_err ? x->cli->env->err : x->cli->env->out;
    fwrite(data, 1, len, out);
    fflush(out);
    return ferror(out) == 0;
}

static void on_winch(void *ctx, int signal_number)
{
    struct exec *x = ctx;
    (void)signal_number;
    if (x->remote != NULL) {
        cli_remote_resized(x->remote);
    }
}

static void on_end_signal(void *ctx, int signal_number)
{
    struct exec *x = ctx;
    (void)signal_number;
    x->cli->interrupted = true;
}

/* A terminal that is left raw is of no use to anybody: so signals end us in order. */
static enum at_rc watch_signals(struct exec *x, bool tty, struct at_err *err)
{
    static const int ENDS[] = {SIGTERM, SIGHUP, SIGINT};
    struct at_loop *loop = x->cli->loop;
    enum at_rc rc = tty ? at_loop_signal(loop, SIGWINCH, on_winch, x, err) : AT_OK;
    for (size_t i = 0; i < AT_ARRAY_LEN(ENDS) && rc == AT_OK; i++) {
        rc = at_loop_signal(loop, ENDS[i], on_end_signal, x, err);
    }
    return rc;
}

/* NAME or KIND/NAME or KIND NAME before the command. */
static size_t command_at(const struct cli *cli)
{
    if (cli->args_dash > 0) {
        return cli->args_dash;
    }
    return 1;
}

static enum at_rc run(struct exec *x, const char *instance, size_t from, struct at_err *err)
{
    struct cli *cli = x->cli;
    int in = fileno(cli->env->in);
    bool wants_tty = cli_flag(cli, OPT_TTY);
    bool tty = wants_tty && at_fd_is_terminal(in);
    bool has_in = cli_flag(cli, OPT_STDIN);
    if (wants_tty && !tty) {
        fputs("no terminal is used: standard input is none\n", cli->env->err);
    }
    struct cli_remote_options options = {.command = cli->args + from,
                                         .n_command = cli->n_args - from,
                                         .stdin_fd = has_in || tty ? in : -1,
                                         .tty = tty,
                                         .terminal_fd = in,
                                         .ctx = x,
                                         .put = put};
    int code = 0;
    enum at_rc rc = watch_signals(x, tty, err);
    if (rc != AT_OK) {
        return rc;
    }
    fflush(cli->env->out);
    struct at_fd_terminal_mode *mode = tty ? at_fd_terminal_raw(in) : NULL;
    rc = cli_remote_run(cli, instance, &options, &x->remote, &code, err);
    at_fd_terminal_restore(in, mode);
    if (rc == AT_OK && code != 0) {
        cli->exit_status = code;
        fprintf(cli->env->err, "the command ended with status %d\n", code);
    }
    return rc;
}

enum at_rc cli_exec(struct cli *cli, struct at_err *err)
{
    struct exec x = {.cli = cli};
    struct cli_target target = {0};
    AT_CLEANUP(at_cleanup_json) json_t *instance = NULL;
    size_t from = command_at(cli);
    if (from >= cli->n_args) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "which command? atoll exec %s -- COMMAND, such as: -it %s -- sh",
                          cli->args[0], cli->args[0]);
    }
    enum at_rc rc = cli_connect(cli, err);
    if (rc == AT_OK) {
        rc = cli_instance_target(cli, cli->args, from, &target, err);
    }
    if (rc == AT_OK) {
        rc = cli_instance_pick(cli, &target, &instance, err);
    }
    if (rc != AT_OK) {
        instance = NULL;
        return rc;
    }
    return run(&x, at_json_str_at(instance, "metadata.name", ""), from, err);
}
