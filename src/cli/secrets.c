/* `atoll secrets`: the keys that Secrets are encrypted with at rest. */
#include "cli/cli_priv.h"

#include <string.h>

static void print(struct cli *cli, const json_t *answer)
{
    size_t i;
    const json_t *key;
    json_array_foreach(json_object_get(answer, "keys"), i, key)
    {
        fprintf(cli->env->out, "%s  %s\n", json_string_value(key),
                i == 0 ? "in use" : "old, still needed to read");
    }
    if (json_is_true(json_object_get(answer, "sealingAnew"))) {
        fprintf(cli->env->out, "Secrets are being encrypted anew with the key in use.\n");
    }
}

enum at_rc cli_secrets(struct cli *cli, struct at_err *err)
{
    enum cli_format format;
    bool rotate = strcmp(cli->args[0], "rotate-key") == 0;
    if (!rotate && strcmp(cli->args[0], "status") != 0) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "there are only: atoll secrets status, atoll secrets rotate-key");
    }
    enum at_rc rc = cli_format_of(cli, &format, err);
    if (rc == AT_OK) {
        rc = cli_connect(cli, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    AT_CLEANUP(at_cleanup_json) json_t *answer = NULL;
    AT_CLEANUP(at_cleanup_json) json_t *body = rotate ? json_object() : NULL;
    rc = cli_call(cli, rotate ? AT_HTTP_POST : AT_HTTP_GET,
                  rotate ? "/admin/v1/secrets/rotate-key" : "/admin/v1/secrets", NULL, NULL, body,
                  &answer, err);
    if (rc != AT_OK) {
        answer = NULL;
        return rc;
    }
    if (format != CLI_TABLE && format != CLI_WIDE && format != CLI_NAME) {
        return cli_print_value(cli, format, answer, err);
    }
    print(cli, answer);
    return AT_OK;
}
