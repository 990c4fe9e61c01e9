/* `atoll token`: tokens with which machines join, and tokens of people. */
#include "cli/cli_priv.h"

#include <string.h>

static bool for_person(const struct cli *cli)
{
    return cli->values[OPT_TOKEN_USER].n != 0;
}

static enum at_rc words_check(const struct cli *cli, struct at_err *err)
{
    const char *role = cli_value(cli, OPT_ROLE, "agent");
    bool create = strcmp(cli->args[0], "create") == 0;
    if (!create && strcmp(cli->args[0], "revoke") != 0) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "there are only: atoll token create, atoll token revoke NAME");
    }
    if (create == (cli->n_args == 2)) {
        return at_err_set(err, AT_BAD_REQUEST,
                          create ? "atoll token create takes options only"
                                 : "which token? atoll get accesstokens lists them");
    }
    if (!create) {
        return AT_OK;
    }
    if (strcmp(role, "agent") != 0 && strcmp(role, "gateway") != 0) {
        return at_err_set(err, AT_BAD_REQUEST, "--role is agent or gateway, not \"%s\"", role);
    }
    if (!for_person(cli) && cli->values[OPT_SITE].n == 0) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "which site? --site NAME (atoll get sites); or --user NAME for a person");
    }
    int64_t ttl;
    return cli_duration(cli, OPT_TTL, 0, &ttl, err);
}

static enum at_rc revoke(struct cli *cli, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *answer = NULL;
    const char *name = cli->args[1];
    enum at_rc rc = cli_connect(cli, err);
    if (rc == AT_OK) {
        rc = cli_call(cli, AT_HTTP_DELETE, cli_path(cli, &AT_KIND_ACCESS_TOKEN, name, NULL), NULL,
                      NULL, NULL, &answer, err);
    }
    if (rc != AT_OK) {
        answer = NULL;
        return rc;
    }
    fprintf(cli->env->out, "accesstoken.atoll.dev/%s revoked\n", name);
    return AT_OK;
}

/* NULL: not UTF-8. own: caller decrefs. */
static json_t *request_make(const struct cli *cli)
{
    const char *ttl = cli_value(cli, OPT_TTL, for_person(cli) ? "" : "1h");
    if (!for_person(cli)) {
        return json_pack("{ssssssss}", "role", cli_value(cli, OPT_ROLE, "agent"), "site",
                         cli_value(cli, OPT_SITE, ""), "node", cli_value(cli, OPT_NODE, ""), "ttl",
                         ttl);
    }
    json_t *groups = json_array();
    for (size_t i = 0; i < cli->values[OPT_GROUP].n; i++) {
        json_array_append_new(groups, json_string(cli->values[OPT_GROUP].items[i]));
    }
    return json_pack("{s:s, s:o, s:s, s:s}", "user", cli_value(cli, OPT_TOKEN_USER, ""), "groups",
                     groups, "description", cli_value(cli, OPT_DESCRIPTION, ""), "ttl", ttl);
}

static void person_print(const struct cli *cli, const json_t *answer)
{
    fprintf(cli->env->out,
            "token:   %s\nname:    %s\nexpires: %s\n\nIt is not shown again. With kubectl or "
            "atoll:\n  atoll config set-credentials %s --token TOKEN\nTo end it before:\n"
            "  atoll token revoke %s\n",
            at_json_str_at(answer, "token", ""), at_json_str_at(answer, "name", ""),
            at_json_str_at(answer, "expires", ""), at_json_str_at(answer, "user", ""),
            at_json_str_at(answer, "name", ""));
}

enum at_rc cli_token(struct cli *cli, struct at_err *err)
{
    const char *role = cli_value(cli, OPT_ROLE, "agent");
    enum cli_format format;
    enum at_rc rc = words_check(cli, err);
    if (rc == AT_OK && strcmp(cli->args[0], "revoke") == 0) {
        return revoke(cli, err);
    }
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
    json_t *request = request_make(cli);
    AT_CLEANUP(at_cleanup_json) json_t *answer = NULL;
    if (request == NULL) {
        return at_err_set(err, AT_BAD_REQUEST, "the arguments are not UTF-8");
    }
    rc = cli_call(cli, AT_HTTP_POST, for_person(cli) ? "/admin/v1/tokens" : "/join/v1/tokens", NULL,
                  NULL, request, &answer, err);
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
    if (for_person(cli)) {
        person_print(cli, answer);
        return AT_OK;
    }
    fprintf(out,
            "token:   %s\nca pin:  %s\nexpires: %s\n\nOn the machine that is to join, "
            "with the token in a file that only its owner can read:\n",
            at_json_str_at(answer, "token", ""), at_json_str_at(answer, "caPin", ""),
            at_json_str_at(answer, "expires", ""));
    fprintf(out, "  atoll %s --server %s --ca-pin %s --token-file FILE\n", role,
            cli->config->options.server, at_json_str_at(answer, "caPin", ""));
    return AT_OK;
}
