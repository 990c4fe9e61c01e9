#include "cli/cli_priv.h"

enum at_rc cli_api_resources(struct cli *cli, struct at_err *err)
{
    enum cli_format format;
    size_t count;
    const struct at_model_kind *const *kinds = at_model_kinds(&count);
    enum at_rc rc = cli_format_of(cli, &format, err);
    if (rc != AT_OK) {
        return rc;
    }
    bool header = !cli_flag(cli, OPT_NO_HEADERS) && format != CLI_NAME;
    struct cli_table table;
    cli_table_init(&table, cli->arena, format == CLI_NAME ? 1 : 5);
    static const char *const HEADER[] = {"NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"};
    for (size_t i = 0; i < AT_ARRAY_LEN(HEADER) && header; i++) {
        cli_table_add(&table, HEADER[i]);
    }
    for (size_t i = 0; i < count; i++) {
        const struct at_model_kind *kind = kinds[i];
        const char *shorts = "";
        for (const char *const *s = kind->short_names; s != NULL && *s != NULL; s++) {
            shorts =
                at_arena_printf(cli->arena, "%s%s%s", shorts, shorts[0] != '\0' ? "," : "", *s);
        }
        if (format == CLI_NAME) {
            cli_table_add(&table, at_arena_printf(cli->arena, "%s%s%s", kind->plural,
                                                  kind->group[0] != '\0' ? "." : "", kind->group));
            continue;
        }
        cli_table_add(&table, kind->plural);
        cli_table_add(&table, shorts);
        cli_table_add(&table, kind->api_version);
        cli_table_add(&table, kind->namespaced ? "true" : "false");
        cli_table_add(&table, kind->kind);
    }
    cli_table_print(cli, &table, header);
    return AT_OK;
}
