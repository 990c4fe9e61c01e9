#include "cli/program.h"
#include "loop/loop.h"

#include <signal.h>

struct run {
    bool ended;
    int exit_code;
};

static void on_end(void *ctx, pid_t pid, int exit_code, int signal_number)
{
    struct run *r = ctx;
    (void)pid;
    r->ended = true;
    r->exit_code = signal_number > 0 ? 128 + signal_number : exit_code;
}

/* Ctrl-C in an editor is the editor's. */
static void on_signal(void *ctx, int signal_number)
{
    (void)ctx;
    (void)signal_number;
}

enum at_rc cli_program_run(struct cli *cli, const char *const *argv, int in, int out, int *ret_exit,
                           struct at_err *err)
{
    struct run r = {0};
    struct at_process process;
    struct at_process_options options = {.argv = argv,
                                         .envp = at_sys_environ(),
                                         .stdin_fd = in,
                                         .stdout_fd = out,
                                         .stderr_fd = 2,
                                         .uid = -1,
                                         .gid = -1};
    fflush(cli->env->out);
    fflush(cli->env->err);
    struct at_loop *loop = at_loop_new(cli->env->sys);
    enum at_rc rc = at_loop_signal(loop, SIGINT, on_signal, NULL, err);
    if (rc == AT_OK) {
        rc = at_loop_signal(loop, SIGQUIT, on_signal, NULL, err);
    }
    if (rc == AT_OK) {
        rc = at_process_start(&options, false, &process, NULL, err);
    }
    if (rc != AT_OK) {
        at_loop_free(loop);
        return rc;
    }
    rc = at_loop_child(loop, &process, on_end, &r);
    while (rc == AT_OK && !r.ended && at_loop_turn(loop, INT64_MAX)) {
    }
    at_loop_free(loop);
    *ret_exit = r.exit_code;
    return rc == AT_OK ? rc : at_err_set(err, rc, "%s cannot be watched", argv[0]);
}
