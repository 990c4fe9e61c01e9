#include "cli/waiting.h"

#define TIMEOUT_NS_DEFAULT (30 * AT_NS_PER_S)

enum at_rc cli_wait(struct cli *cli, struct at_err *err)
{
    struct cli_condition condition = {0};
    struct cli_target *targets = NULL;
    size_t n = 0;
    int64_t timeout = 0;
    if (cli->values[OPT_FOR].n == 0) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "wait for what? --for=condition=Ready, --for=delete or "
                          "--for=jsonpath={.status.phase}=Running");
    }
    enum at_rc rc = cli_condition_parse(cli, cli_value(cli, OPT_FOR, ""), &condition, err);
    if (rc == AT_OK) {
        rc = cli_duration(cli, OPT_TIMEOUT, TIMEOUT_NS_DEFAULT, &timeout, err);
    }
    if (rc == AT_OK) {
        rc = cli_connect(cli, err);
    }
    if (rc == AT_OK) {
        rc = cli_targets(cli, cli->args, cli->n_args, false, &targets, &n, err);
    }
    if (rc == AT_OK) {
        rc = cli_expand(cli, &targets, &n, err);
    }
    if (rc == AT_OK && n == 0 && condition.what != CLI_UNTIL_DELETED) {
        rc = at_err_set(err, AT_NOT_FOUND, "no object matches");
    }
    int64_t deadline = at_sys_mono_ns(cli->env->sys) + timeout;
    for (size_t i = 0; i < n && rc == AT_OK; i++) {
        rc = cli_wait_until(cli, targets[i].kind, cli->ns, targets[i].name, &condition, deadline,
                            err);
        if (rc == AT_OK) {
            fprintf(cli->env->out, "%s condition met\n",
                    cli_ref(cli, targets[i].kind, targets[i].name));
        }
    }
    return rc;
}
