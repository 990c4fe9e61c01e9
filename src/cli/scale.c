#include "cli/waiting.h"

#define REPLICAS_MAX 100000
#define TIMEOUT_NS_DEFAULT (300 * AT_NS_PER_S)

static enum at_rc scale_one(struct cli *cli, const struct cli_target *target, int64_t replicas,
                            struct at_err *err)
{
    if (!target->kind->has_scale) {
        return at_err_set(err, AT_BAD_REQUEST, "a %s cannot be scaled", target->kind->singular);
    }
    AT_CLEANUP(at_cleanup_json)
    json_t *patch = json_pack("{s{sI}}", "spec", "replicas", (json_int_t)replicas);
    enum at_rc rc = cli_call(cli, AT_HTTP_PATCH, cli_path(cli, target->kind, target->name, "scale"),
                             "application/merge-patch+json", NULL, patch, NULL, err);
    if (rc == AT_OK) {
        fprintf(cli->env->out, "%s scaled\n", cli_ref(cli, target->kind, target->name));
        fflush(cli->env->out);
    }
    return rc;
}

enum at_rc cli_scale(struct cli *cli, struct at_err *err)
{
    struct cli_target *targets = NULL;
    size_t n = 0;
    int64_t replicas = 0;
    int64_t timeout = 0;
    enum at_rc rc = cli_integer(cli, OPT_REPLICAS, 0, REPLICAS_MAX, &replicas, err);
    if (rc == AT_OK) {
        rc = cli_duration(cli, OPT_TIMEOUT, TIMEOUT_NS_DEFAULT, &timeout, err);
    }
    if (rc == AT_OK) {
        rc = cli_connect(cli, err);
    }
    if (rc == AT_OK) {
        rc = cli_targets(cli, cli->args, cli->n_args, true, &targets, &n, err);
    }
    for (size_t i = 0; i < n && rc == AT_OK; i++) {
        rc = scale_one(cli, &targets[i], replicas, err);
    }
    int64_t deadline = at_sys_mono_ns(cli->env->sys) + timeout;
    struct cli_condition condition = {
        .what = CLI_UNTIL_JSONPATH,
        .path = "{.status.replicas}/{.status.readyReplicas}",
        .value = at_arena_printf(cli->arena, "%lld/%lld", (long long)replicas, (long long)replicas),
    };
    for (size_t i = 0; i < n && rc == AT_OK && cli_flag(cli, OPT_WAIT); i++) {
        rc = cli_wait_until(cli, targets[i].kind, cli->ns, targets[i].name, &condition, deadline,
                            err);
    }
    return rc;
}
