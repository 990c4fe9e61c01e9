/* Where the gateway is and what it wants to see: for every verb that calls models. */
#include "cli/cli_priv.h"
#include "sys/file.h"

#include <string.h>

#define TOKEN_FILE_BYTES_MAX 4096

static enum at_rc token_of(const struct cli *cli, const char **ret, struct at_err *err)
{
    const char *path = cli_value(cli, OPT_TOKEN_FILE, at_sys_getenv("ATOLL_TOKEN_FILE"));
    if (path == NULL) {
        *ret = cli_beside_kubeconfig(cli, "inference.token");
        return AT_OK;
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = at_file_read(path, TOKEN_FILE_BYTES_MAX, &text, err);
    if (rc == AT_OK) {
        const char *line = text.data != NULL ? text.data : "";
        *ret = at_arena_strndup(cli->arena, line, strcspn(line, "\r\n"));
    }
    return rc;
}

enum at_rc cli_gateway_find(struct cli *cli, struct cli_gateway *ret, struct at_err *err)
{
    struct cli_gateway found = {0};
    const char *address = cli_value(cli, OPT_GATEWAY, at_sys_getenv("ATOLL_GATEWAY"));
    address = address != NULL ? address : cli_beside_kubeconfig(cli, "gateway");
    if (address == NULL) {
        return at_err_set(
            err, AT_BAD_REQUEST,
            "which gateway? --gateway URL, $ATOLL_GATEWAY, or the file gateway beside "
            "the kubeconfig, which atoll dev writes");
    }
    if (strstr(address, "://") == NULL) {
        address = at_arena_printf(cli->arena, "http://%s", address);
    }
    enum at_rc rc = at_url_parse(address, &found.url, err);
    if (rc == AT_OK) {
        rc = token_of(cli, &found.token, err);
    }
    if (rc == AT_OK && strcmp(found.url.scheme, "https") == 0) {
        struct at_client_kubeconfig *config = NULL;
        rc = at_client_kubeconfig_load(cli_value(cli, OPT_KUBECONFIG, NULL), NULL, &config, err);
        if (rc == AT_OK) {
            struct at_tls_options options = {.ca_pem = config->options.ca_pem,
                                             .verify_peer = true,
                                             .server_name = found.url.host};
            rc = at_tls_config_new(&options, &found.tls, err);
        }
        at_client_kubeconfig_free(config);
    }
    if (rc == AT_OK) {
        *ret = found;
    }
    return rc;
}
