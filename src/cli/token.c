#include "cli/cli_priv.h"

#include <string.h>

static enum at_rc words_check(const struct cli *cli, struct at_err *err)
{
    const char *role = cli_value(cli, OPT_ROLE, "agent");
    if (strcmp(cli->args[0], "create") != 0) {
        return at_err_set(err, AT_BAD_REQUEST, "there is only: atoll token create");
    }
    if (strcmp(role, "agent") != 0 && strcmp(role, "gateway") != 0) {
        return at_err_set(err, AT_BAD_REQUEST, "--role is agent or gateway, not \"%s\"", role);
    }
    if (cli->values[OPT_SITE].n == 0) {
        return at_err_set(err, AT_BAD_REQUEST, "which site? --site NAME (atoll get sites)");
    }
    int64_t ttl;
    return cli_duration(cli, OPT_TTL, 0, &ttl, err);
}

enum at_rc cli_token(struct cli *cli, struct at_err *err)
{
    const char *role = cli_value(cli, OPT_ROLE, "agent");
    const char *site = cli_value(cli, OPT_SITE, "");
    enum cli_format format;
    enum at_rc rc = words_check(cli, err);
    if (rc == AT_OK) {
        rc = cli_format_of(cli, &format, err);
    }
    if (rc == AT_OK) {
        rc = cli_connect(cli, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    AT_CLEANUP(at_cleanup_json)
    json_t *request =
        json_pack("{ssssss}", "role", role, "site", site, "ttl", cli_value(cli, OPT_TTL, "1h"));
    AT_CLEANUP(at_cleanup_json) json_t *answer = NULL;
    if (request == NULL) {
        return at_err_set(err, AT_BAD_REQUEST, "the arguments are not UTF-8");
    }
    rc = cli_call(cli, AT_HTTP_POST, "/join/v1/tokens", NULL, NULL, request, &answer, err);
    if (rc != AT_OK) {
        answer = NULL;
        return rc;
    }
    if (format == CLI_NAME) {
        cli_print_text(cli->env->out, at_json_str_at(answer, "token", ""));
        fputc('\n', cli->env->out);
        return AT_OK;
    }
    if (format != CLI_TABLE && format != CLI_WIDE) {
        return cli_print_value(cli, format, answer, err);
    }
    FILE *out = cli->env->out;
    fprintf(out,
            "token:   %s\nca pin:  %s\nexpires: %s\n\nOn the machine that is to join, "
            "with the token in a file that only its owner can read:\n",
            at_json_str_at(answer, "token", ""), at_json_str_at(answer, "caPin", ""),
            at_json_str_at(answer, "expires", ""));
    fprintf(out, "  atoll %s --server %s --ca-pin %s --token-file FILE\n", role,
            cli->config->options.server, at_json_str_at(answer, "caPin", ""));
    return AT_OK;
}
