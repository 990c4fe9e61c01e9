#include "cli/cli.h"

#include "cli/cli_priv.h"

#include <string.h>

/* nodes.atoll.dev "nope" not found: so others of that kind may be what was meant. */
static const char *hint_of_absent(const struct cli *cli, const struct at_err *err)
{
    char word[64];
    size_t len = strcspn(err->msg, ". ");
    const char *quote = strstr(err->msg, "\" not found");
    if (cli->client == NULL || quote == NULL || len >= sizeof word) {
        return NULL;
    }
    snprintf(word, sizeof word, "%.*s", (int)len, err->msg);
    const struct at_model_kind *kind = at_model_kind_by_any_name(word);
    if (kind == NULL) {
        return NULL;
    }
    return at_arena_printf(cli->arena, "atoll get %s%s%s lists those there are%s", kind->plural,
                           kind->namespaced && cli->ns != NULL ? " -n " : "",
                           kind->namespaced && cli->ns != NULL ? cli->ns : "",
                           kind->namespaced ? "; -A: in all namespaces" : "");
}

/* What the server said after "cannot" is the right: with its verb, resource and namespace. */
static const char *hint_of_forbidden(const struct cli *cli, const struct at_err *err)
{
    const char *right = strstr(err->msg, " cannot ");
    if (cli->client == NULL) {
        return NULL;
    }
    return at_arena_printf(cli->arena,
                           "%s%.200s%satoll auth can-i --list shows what you may do; an "
                           "administrator gives more by a Role and a RoleBinding, or use another "
                           "--context",
                           right != NULL ? "the right that is missing: " : "",
                           right != NULL ? right + strlen(" cannot ") : "",
                           right != NULL ? ". " : "");
}

static const char *hint_of(const struct cli *cli, const struct at_err *err)
{
    bool no_config = strncmp(err->msg, "kubeconfig ", 11) == 0;
    if (no_config && err->rc == AT_NOT_FOUND && strstr(err->msg, "context") == NULL &&
        strstr(err->msg, "plug-in") == NULL) {
        return "atoll dev writes one into its state folder, and starts everything on this machine: "
               "export KUBECONFIG=STATE/admin.kubeconfig, or give --kubeconfig";
    }
    if (no_config || strstr(err->msg, "atoll ") != NULL) {
        return NULL; /* it says itself what to do */
    }
    switch (err->rc) {
    case AT_UNAVAILABLE:
        return cli->config != NULL
                   ? at_arena_printf(cli->arena,
                                     "does a server run at %s? atoll dev starts everything on this "
                                     "machine, atoll config use-context chooses another",
                                     cli->config->options.server)
                   : NULL;
    case AT_UNAUTHENTICATED:
        if (strstr(err->msg, "the peer's certificate") != NULL) {
            return "this server is not one that the kubeconfig trusts: its cluster needs the "
                   "server's authority (certificate-authority), and the name in the server's "
                   "certificate as its address or as tls-server-name";
        }
        return cli->client != NULL
                   ? "check the user in the kubeconfig: atoll config view --minify; "
                     "or choose another --context"
                   : NULL;
    case AT_FORBIDDEN:
        return hint_of_forbidden(cli, err);
    case AT_NOT_FOUND:
        return hint_of_absent(cli, err);
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
    bool typing = argc >= 2 && strcmp(argv[1], "__complete") == 0;
    enum at_rc rc = AT_OK;
    if (typing) {
        cli->args = at_alloc(((size_t)argc + 1) * sizeof *cli->args);
        cli_complete(cli, argc - 2, argv + 2);
    } else {
        rc = cli_parse(cli, argc, argv, &err);
    }
    if (typing) {
        rc = AT_OK;
    } else if (rc == AT_OK && (cli->verb == NULL || cli_flag(cli, OPT_HELP))) {
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
