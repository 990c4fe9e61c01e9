#include "cli/cli.h"

#include "cli/cli_priv.h"

#include <string.h>

static const char *hint_of(const struct cli *cli, const struct at_err *err)
{
    bool no_config = strncmp(err->msg, "kubeconfig ", 11) == 0;
    if (no_config && err->rc == AT_NOT_FOUND) {
        return "atoll dev writes one into its state folder: export "
               "KUBECONFIG=STATE/admin.kubeconfig, or give --kubeconfig";
    }
    switch (err->rc) {
    case AT_UNAVAILABLE:
        return cli->config != NULL
                   ? "is the server running? atoll dev starts everything on this machine"
                   : NULL;
    case AT_UNAUTHENTICATED:
        return cli->client != NULL ? "check the user in the kubeconfig (--kubeconfig, --context)"
                                   : NULL;
    case AT_FORBIDDEN:
        return cli->client != NULL ? "ask an administrator, or use another --context" : NULL;
    case AT_TIMEOUT:
        return "give it longer with --timeout, and see atoll describe for what holds it up";
    default:
        return NULL;
    }
}

void cli_report(const struct cli *cli, const struct at_err *err)
{
    FILE *out = cli->env->err;
    bool with_field = err->field[0] != '\0' && strstr(err->msg, err->field) == NULL;
    fflush(cli->env->out);
    fputs("error: ", out);
    if (with_field) {
        cli_print_text(out, err->field);
        fputs(": ", out);
    }
    cli_print_text(out, err->msg);
    fputc('\n', out);
    const char *hint = hint_of(cli, err);
    if (hint != NULL) {
        fprintf(out, "hint: %s\n", hint);
    }
}

/* Where an exit status tells what was found, an error must not look like it. */
static int error_status(const struct cli_verb *verb, enum at_rc rc)
{
    return verb != NULL && verb->error_status != 0 ? verb->error_status : at_rc_exit_status(rc);
}

int at_cli_main(struct at_cli_env *env, int argc, char **argv)
{
    struct at_err err = {0};
    struct cli *cli = AT_NEW(struct cli);
    cli->env = env;
    cli->arena = at_arena_new(0);
    enum at_rc rc = cli_parse(cli, argc, argv, &err);
    if (rc == AT_OK && (cli->verb == NULL || cli_flag(cli, OPT_HELP))) {
        bool asked = argc > 1;
        cli_help(asked ? env->out : env->err, cli->verb);
        rc = asked ? AT_OK : AT_BAD_REQUEST;
    } else if (rc == AT_OK) {
        rc = cli->verb->run(cli, &err);
        err.rc = rc;
    }
    if (rc != AT_OK && err.msg[0] != '\0') {
        cli_report(cli, &err);
    }
    int status = rc == AT_OK ? cli->exit_status : error_status(cli->verb, rc);
    fflush(env->out);
    cli_disconnect(cli);
    at_arena_free(cli->arena);
    at_free(cli->args);
    at_free(cli);
    return status;
}
