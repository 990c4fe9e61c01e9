/* config: kubeconfig files as kubectl config changes and shows them. An entry is changed in the
 * file where it is; new ones go to the first file that is there. */
#include "cli/config.h"
#include "core/digest.h"
#include "sys/file.h"

#include <string.h>

#define FILE_BYTES_MAX ((size_t)1 << 20)

/* --- showing --- */

static enum at_rc read_only(struct cli *cli, struct at_kubeconfig **ret, struct at_err *err)
{
    return at_kubeconfig_read(cli_value(cli, OPT_KUBECONFIG, NULL), false, ret, err);
}

static enum at_rc current_context(struct cli *cli, struct at_err *err)
{
    struct at_kubeconfig *kc = NULL;
    enum at_rc rc = read_only(cli, &kc, err);
    if (rc != AT_OK) {
        return rc;
    }
    const char *name = at_kubeconfig_current(kc);
    if (name[0] == '\0') {
        rc = at_err_set(err, AT_NOT_FOUND,
                        "current-context is not set; atoll config use-context NAME sets it");
    } else {
        cli_print_text(cli->env->out, name);
        fputc('\n', cli->env->out);
    }
    at_kubeconfig_free(kc);
    return rc;
}

static void context_row(const struct cli *cli, struct cli_table *table, const json_t *entry,
                        bool current)
{
    const json_t *context = json_object_get(entry, "context");
    (void)cli;
    cli_table_add(table, current ? "*" : "");
    cli_table_add(table, at_json_str_at(entry, "name", ""));
    cli_table_add(table, at_json_str_at(context, "cluster", ""));
    cli_table_add(table, at_json_str_at(context, "user", ""));
    cli_table_add(table, at_json_str_at(context, "namespace", ""));
}

static bool is_asked(const struct cli *cli, const char *name)
{
    for (size_t i = 1; i < cli->n_args; i++) {
        if (strcmp(cli->args[i], name) == 0) {
            return true;
        }
    }
    return cli->n_args == 1;
}

static enum at_rc check_asked(const struct cli *cli, const json_t *entries, struct at_err *err)
{
    for (size_t i = 1; i < cli->n_args; i++) {
        bool there = false;
        size_t at;
        json_t *entry;
        json_array_foreach((json_t *)entries, at, entry)
        {
            there = there || strcmp(at_json_str_at(entry, "name", ""), cli->args[i]) == 0;
        }
        if (!there) {
            return at_err_set(err, AT_NOT_FOUND, "there is no context \"%s\"", cli->args[i]);
        }
    }
    return AT_OK;
}

static enum at_rc get_contexts(struct cli *cli, struct at_err *err)
{
    static const char *const HEADER[] = {"CURRENT", "NAME", "CLUSTER", "AUTHINFO", "NAMESPACE"};
    struct at_kubeconfig *kc = NULL;
    struct cli_table table;
    size_t at;
    json_t *entry;
    bool names = strcmp(cli_value(cli, OPT_OUTPUT, ""), "name") == 0;
    enum at_rc rc = read_only(cli, &kc, err);
    if (rc != AT_OK) {
        return rc;
    }
    AT_CLEANUP(at_cleanup_json) json_t *merged = at_kubeconfig_merged(kc);
    const json_t *entries = json_object_get(merged, "contexts");
    bool header = !names && !cli_flag(cli, OPT_NO_HEADERS);
    cli_table_init(&table, cli->arena, names ? 1 : AT_ARRAY_LEN(HEADER));
    for (size_t i = 0; i < AT_ARRAY_LEN(HEADER) && header; i++) {
        cli_table_add(&table, HEADER[i]);
    }
    json_array_foreach((json_t *)entries, at, entry)
    {
        const char *name = at_json_str_at(entry, "name", "");
        if (is_asked(cli, name) && names) {
            cli_table_add(&table, name);
        } else if (is_asked(cli, name)) {
            context_row(cli, &table, entry, strcmp(name, at_kubeconfig_current(kc)) == 0);
        }
    }
    rc = check_asked(cli, entries, err);
    if (rc == AT_OK) {
        cli_table_print(cli, &table, header);
    }
    at_kubeconfig_free(kc);
    return rc;
}

/* get-clusters, get-users */
static enum at_rc get_names(struct cli *cli, const char *list, struct at_err *err)
{
    struct at_kubeconfig *kc = NULL;
    size_t at;
    json_t *entry;
    enum at_rc rc = read_only(cli, &kc, err);
    if (rc != AT_OK) {
        return rc;
    }
    AT_CLEANUP(at_cleanup_json) json_t *merged = at_kubeconfig_merged(kc);
    fputs("NAME\n", cli->env->out);
    json_array_foreach(json_object_get(merged, list), at, entry)
    {
        cli_print_text(cli->env->out, at_json_str_at(entry, "name", ""));
        fputc('\n', cli->env->out);
    }
    at_kubeconfig_free(kc);
    return AT_OK;
}

static enum at_rc get_clusters(struct cli *cli, struct at_err *err)
{
    return get_names(cli, "clusters", err);
}

static enum at_rc get_users(struct cli *cli, struct at_err *err)
{
    return get_names(cli, "users", err);
}

static void hide(json_t *body, const char *field, const char *word)
{
    if (json_object_get(body, field) != NULL) {
        json_object_set_new(body, field, json_string(word));
    }
}

static void hide_secrets(json_t *merged)
{
    size_t at;
    json_t *entry;
    json_array_foreach(json_object_get(merged, "clusters"), at, entry)
    {
        hide(json_object_get(entry, "cluster"), "certificate-authority-data", "DATA+OMITTED");
    }
    json_array_foreach(json_object_get(merged, "users"), at, entry)
    {
        json_t *user = json_object_get(entry, "user");
        hide(user, "client-certificate-data", "DATA+OMITTED");
        hide(user, "client-key-data", "DATA+OMITTED");
        hide(user, "token", "REDACTED");
        hide(user, "password", "REDACTED");
    }
}

static void keep_named(json_t *merged, const char *list, const char *name)
{
    json_t *all = json_object_get(merged, list);
    for (size_t i = json_array_size(all); i > 0; i--) {
        if (strcmp(at_json_str_at(json_array_get(all, i - 1), "name", ""), name) != 0) {
            json_array_remove(all, i - 1);
        }
    }
}

/* Only what the context needs. */
static enum at_rc minify(const struct cli *cli, json_t *merged, struct at_err *err)
{
    const char *name = cli_value(cli, OPT_CONTEXT, at_json_str_at(merged, "current-context", ""));
    AT_CLEANUP(at_cleanup_json) json_t *kept = json_string(name);
    keep_named(merged, "contexts", name);
    const json_t *entry = json_array_get(json_object_get(merged, "contexts"), 0);
    if (entry == NULL) {
        return at_err_set(
            err, AT_NOT_FOUND,
            name[0] != '\0' ? "there is no context \"%s\"" : "current-context is not set%s", name);
    }
    json_object_set(merged, "current-context", kept);
    keep_named(merged, "clusters", at_json_str_at(entry, "context.cluster", ""));
    keep_named(merged, "users", at_json_str_at(entry, "context.user", ""));
    return AT_OK;
}

enum at_rc cli_config_embed(json_t *body, const char *field, const char *path, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf coded = {0};
    char data_field[64];
    enum at_rc rc = at_file_read(path, FILE_BYTES_MAX, &text, err);
    if (rc == AT_OK) {
        rc = at_base64_encode(text.data != NULL ? text.data : "", text.len, &coded);
    }
    if (rc == AT_OK) {
        snprintf(data_field, sizeof data_field, "%s-data", field);
        json_object_set_new(body, data_field, json_string(coded.data != NULL ? coded.data : ""));
        json_object_del(body, field);
    }
    return rc;
}

static enum at_rc flatten_list(json_t *merged, const char *list, const char *inner,
                               const char *const *fields, size_t n, struct at_err *err)
{
    size_t at;
    json_t *entry;
    enum at_rc rc = AT_OK;
    json_array_foreach(json_object_get(merged, list), at, entry)
    {
        json_t *body = json_object_get(entry, inner);
        for (size_t i = 0; i < n && rc == AT_OK; i++) {
            const char *path = at_json_str_at(body, fields[i], "");
            rc = path[0] != '\0' ? cli_config_embed(body, fields[i], path, err) : AT_OK;
        }
    }
    return rc;
}

/* One file that can be carried elsewhere. */
static enum at_rc flatten(json_t *merged, struct at_err *err)
{
    static const char *const OF_CLUSTERS[] = {"certificate-authority"};
    static const char *const OF_USERS[] = {"client-certificate", "client-key"};
    enum at_rc rc = flatten_list(merged, AT_KUBECONFIG_CLUSTERS, OF_CLUSTERS, 1, err);
    return rc == AT_OK ? flatten_list(merged, AT_KUBECONFIG_USERS, OF_USERS, 2, err) : rc;
}

static enum at_rc view(struct cli *cli, struct at_err *err)
{
    struct at_kubeconfig *kc = NULL;
    enum cli_format format;
    enum at_rc rc = cli_format_of(cli, &format, err);
    if (rc == AT_OK) {
        rc = read_only(cli, &kc, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    AT_CLEANUP(at_cleanup_json) json_t *merged = at_kubeconfig_merged(kc);
    at_kubeconfig_free(kc);
    if (cli_flag(cli, OPT_MINIFY)) {
        rc = minify(cli, merged, err);
    }
    if (rc == AT_OK && cli_flag(cli, OPT_FLATTEN)) {
        rc = flatten(merged, err);
    }
    if (rc == AT_OK && !cli_flag(cli, OPT_RAW)) {
        hide_secrets(merged);
    }
    bool plain = format == CLI_TABLE || format == CLI_WIDE || format == CLI_NAME;
    return rc == AT_OK ? cli_print_value(cli, plain ? CLI_YAML : format, merged, err) : rc;
}

/* --- one verb of many words --- */

static const struct {
    const char *name;
    size_t min, max; /* words after it */
    const char *usage;
    enum at_rc (*run)(struct cli *cli, struct at_err *err);
} WORDS[] = {
    {"current-context", 0, 0, "", current_context},
    {"get-contexts", 0, SIZE_MAX, "[NAME...]", get_contexts},
    {"get-clusters", 0, 0, "", get_clusters},
    {"get-users", 0, 0, "", get_users},
    {"view", 0, 0, "[--minify] [--flatten] [--raw]", view},
    {"use-context", 1, 1, "NAME", cli_config_use_context},
    {"set-context", 0, 1, "NAME|--current [--cluster C] [--user U] [--namespace N]",
     cli_config_set_context},
    {"set-cluster", 1, 1, "NAME [--server URL] [--certificate-authority FILE]",
     cli_config_set_cluster},
    {"set-credentials", 1, 1,
     "NAME [--token T] [--client-certificate FILE --client-key FILE] [--exec-command PROGRAM]",
     cli_config_set_credentials},
    {"rename-context", 2, 2, "OLD NEW", cli_config_rename_context},
    {"delete-context", 1, 1, "NAME", cli_config_delete_context},
    {"delete-cluster", 1, 1, "NAME", cli_config_delete_cluster},
    {"delete-user", 1, 1, "NAME", cli_config_delete_user},
    {"set", 2, 2, "PATH VALUE, such as: set contexts.dev.namespace team", cli_config_set},
    {"unset", 1, 1, "PATH", cli_config_unset},
};

const char *cli_config_word(size_t i)
{
    return i < AT_ARRAY_LEN(WORDS) ? WORDS[i].name : NULL;
}

enum at_rc cli_config(struct cli *cli, struct at_err *err)
{
    const char *names[AT_ARRAY_LEN(WORDS)];
    size_t given = cli->n_args - 1;
    for (size_t i = 0; i < AT_ARRAY_LEN(WORDS); i++) {
        names[i] = WORDS[i].name;
        if (strcmp(cli->args[0], WORDS[i].name) != 0) {
            continue;
        }
        if (given < WORDS[i].min || given > WORDS[i].max) {
            return at_err_set(err, AT_BAD_REQUEST, "write: atoll config %s %s", WORDS[i].name,
                              WORDS[i].usage);
        }
        return WORDS[i].run(cli, err);
    }
    const char *near = cli_nearest(cli->args[0], names, AT_ARRAY_LEN(names));
    return at_err_set(err, AT_BAD_REQUEST,
                      "config does not know \"%s\"%s%s; see atoll config "
                      "--help",
                      cli->args[0], near != NULL ? ", did you mean " : "",
                      near != NULL ? near : "");
}
