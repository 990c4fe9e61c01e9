/* config: what its two files share. */
#ifndef AT_CLI_CONFIG_H
#define AT_CLI_CONFIG_H

#include "cli/cli_priv.h"
#include "client/kubeconfig.h"

/* <field>-data of body becomes the content of the file at path, and <field> goes. */
enum at_rc cli_config_embed(json_t *body, const char *field, const char *path,
                            struct at_err *err) AT_WARN_UNUSED;

enum at_rc cli_config_use_context(struct cli *cli, struct at_err *err);
enum at_rc cli_config_set_context(struct cli *cli, struct at_err *err);
enum at_rc cli_config_set_cluster(struct cli *cli, struct at_err *err);
enum at_rc cli_config_set_credentials(struct cli *cli, struct at_err *err);
enum at_rc cli_config_rename_context(struct cli *cli, struct at_err *err);
enum at_rc cli_config_delete_context(struct cli *cli, struct at_err *err);
enum at_rc cli_config_delete_cluster(struct cli *cli, struct at_err *err);
enum at_rc cli_config_delete_user(struct cli *cli, struct at_err *err);
enum at_rc cli_config_set(struct cli *cli, struct at_err *err);
enum at_rc cli_config_unset(struct cli *cli, struct at_err *err);

#endif
