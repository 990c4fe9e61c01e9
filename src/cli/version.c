#include "cli/cli_priv.h"

enum at_rc cli_version(struct cli *cli, struct at_err *err)
{
    enum cli_format format;
    AT_CLEANUP(at_cleanup_json)
    json_t *all = json_pack("{s{ss}}", "clientVersion", "gitVersion", "v" AT_VERSION);
    enum at_rc rc = cli_format_of(cli, &format, err);
    if (rc != AT_OK) {
        return rc;
    }
    bool text = format == CLI_TABLE || format == CLI_WIDE;
    if (text) {
        fprintf(cli->env->out, "client: v%s\n", AT_VERSION);
    }
    if (!cli_flag(cli, OPT_CLIENT)) {
        json_t *server = NULL;
        rc = cli_connect(cli, err);
        if (rc == AT_OK) {
            rc = cli_call(cli, AT_HTTP_GET, "/version", NULL, NULL, NULL, &server, err);
        }
        if (rc != AT_OK) {
            return rc;
        }
        if (text) {
            fputs("server: ", cli->env->out);
            cli_print_text(cli->env->out, at_json_str_at(server, "gitVersion", "unknown"));
            fprintf(cli->env->out, " at %s\n", cli->config->options.server);
        }
        json_object_set_new(all, "serverVersion", server);
    }
    return text ? AT_OK : cli_print_value(cli, format, all, err);
}
