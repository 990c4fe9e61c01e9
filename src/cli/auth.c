/* auth: may I, what may I, who am I: the server's own reviews of access. */
#include "cli/cli_priv.h"
#include "core/str.h"

#include <string.h>

#define REVIEWS "/apis/authorization.k8s.io/v1/"
#define NO_STATUS 1 /* the exit status of "no", as kubectl's */

static enum at_rc review(struct cli *cli, const char *path, const char *kind, json_t *spec_take,
                         json_t **ret, struct at_err *err)
{
    bool who = strcmp(kind, "SelfSubjectReview") == 0;
    AT_CLEANUP(at_cleanup_json)
    json_t *body = json_pack("{s:s, s:s, s:o}", "apiVersion",
                             who ? "authentication.k8s.io/v1" : "authorization.k8s.io/v1", "kind",
                             kind, "spec", spec_take);
    return cli_call(cli, AT_HTTP_POST, path, NULL, NULL, body, ret, err);
}

/* --- can-i --- */

static const char *joined(const struct cli *cli, const json_t *words)
{
    const char *text = "";
    for (size_t i = 0; i < json_array_size(words); i++) {
        text = at_arena_printf(cli->arena, "%s%s%s", text, i != 0 ? " " : "",
                               json_string_value(json_array_get(words, i)));
    }
    return at_arena_printf(cli->arena, "[%s]", text);
}

static void add_rule(const struct cli *cli, struct cli_table *table, const char *resource,
                     const char *url, const json_t *rule)
{
    cli_table_add(table, resource);
    cli_table_add(table, url);
    cli_table_add(table, joined(cli, json_object_get(rule, "resourceNames")));
    cli_table_add(table, joined(cli, json_object_get(rule, "verbs")));
}

/* A row for each resource of each group that a rule names. */
static void add_rules(const struct cli *cli, struct cli_table *table, const json_t *rule)
{
    const json_t *groups = json_object_get(rule, "apiGroups");
    const json_t *resources = json_object_get(rule, "resources");
    for (size_t r = 0; r < json_array_size(resources); r++) {
        for (size_t g = 0; g < json_array_size(groups); g++) {
            const char *group = json_string_value(json_array_get(groups, g));
            const char *resource = json_string_value(json_array_get(resources, r));
            const char *full =
                at_arena_printf(cli->arena, "%s%s%s", resource, group[0] != '\0' ? "." : "", group);
            add_rule(cli, table, full, "[]", rule);
        }
    }
}

/* A row for each path; those that several rules name once. */
static void add_paths(const struct cli *cli, struct cli_table *table, const json_t *rule,
                      json_t *seen)
{
    const json_t *urls = json_object_get(rule, "nonResourceURLs");
    for (size_t i = 0; i < json_array_size(urls); i++) {
        const char *url = json_string_value(json_array_get(urls, i));
        const char *key =
            at_arena_printf(cli->arena, "%s %s", url, joined(cli, json_object_get(rule, "verbs")));
        if (json_object_get(seen, key) == NULL) {
            json_object_set_new(seen, key, json_true());
            add_rule(cli, table, "", at_arena_printf(cli->arena, "[%s]", url), rule);
        }
    }
}

static enum at_rc list_rules(struct cli *cli, struct at_err *err)
{
    static const char *const HEADER[] = {"RESOURCES", "NON-RESOURCE URLS", "RESOURCE NAMES",
                                         "VERBS"};
    AT_CLEANUP(at_cleanup_json) json_t *answer = NULL;
    struct cli_table table;
    size_t at;
    json_t *rule;
    enum cli_format format;
    enum at_rc rc = cli_format_of(cli, &format, err);
    if (rc == AT_OK) {
        rc = review(cli, REVIEWS "selfsubjectrulesreviews", "SelfSubjectRulesReview",
                    json_pack("{s:s}", "namespace", cli->ns != NULL ? cli->ns : "default"), &answer,
                    err);
    }
    if (rc != AT_OK) {
        answer = NULL;
        return rc;
    }
    if (format != CLI_TABLE && format != CLI_WIDE) {
        return cli_print_value(cli, format, answer, err);
    }
    bool header = !cli_flag(cli, OPT_NO_HEADERS);
    AT_CLEANUP(at_cleanup_json) json_t *seen = json_object();
    cli_table_init(&table, cli->arena, AT_ARRAY_LEN(HEADER));
    for (size_t i = 0; i < AT_ARRAY_LEN(HEADER) && header; i++) {
        cli_table_add(&table, HEADER[i]);
    }
    json_array_foreach(at_json_at(answer, "status.resourceRules"), at, rule)
    {
        add_rules(cli, &table, rule);
    }
    json_array_foreach(at_json_at(answer, "status.nonResourceRules"), at, rule)
    {
        add_paths(cli, &table, rule, seen);
    }
    cli_table_print(cli, &table, header);
    return AT_OK;
}

/* deployments, deployments.atoll.dev, deploy/NAME, pods: what the model knows, else as it is said.
 */
static json_t *resource_of(struct cli *cli, const char *word, struct at_err *err)
{
    const char *slash = strchr(word, '/');
    const char *dot = strchr(word, '.');
    const char *bare =
        slash != NULL ? at_arena_strndup(cli->arena, word, (size_t)(slash - word)) : word;
    const char *sub = cli_value(cli, OPT_SUBRESOURCE, NULL);
    const struct at_model_kind *kind = NULL;
    const char *name = slash != NULL ? slash + 1 : cli->n_args > 3 ? cli->args[3] : NULL;
    json_t *out = json_object();
    if (strcmp(bare, "*") != 0 && strncmp(bare, "pods", 4) != 0) {
        struct at_err own = {0};
        if (cli_kind(bare, &kind, &own) != AT_OK) {
            fputs("warning: ", cli->env->err);
            cli_print_text(cli->env->err, own.msg);
            fputc('\n', cli->env->err);
        }
    }
    (void)err;
    json_object_set_new(out, "group",
                        json_string(kind != NULL     ? kind->group
                                    : dot != NULL    ? dot + 1
                                    : bare[0] == '*' ? "*"
                                                     : ""));
    size_t len = dot != NULL ? (size_t)(dot - word) : strlen(bare);
    json_object_set_new(out, "resource",
                        kind != NULL ? json_string(kind->plural)
                                     : json_string(at_arena_strndup(cli->arena, bare, len)));
    if (sub != NULL) {
        json_object_set_new(out, "subresource", json_string(sub));
    }
    if (name != NULL) {
        json_object_set_new(out, "name", json_string(name));
    }
    if (cli->ns != NULL && (kind == NULL || kind->namespaced)) {
        json_object_set_new(out, "namespace", json_string(cli->ns));
    }
    return out;
}

static enum at_rc can_i(struct cli *cli, struct at_err *err)
{
    if (cli_flag(cli, OPT_LIST)) {
        return list_rules(cli, err);
    }
    if (cli->n_args < 3) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "may I what? atoll auth can-i VERB KIND[/NAME], such as: auth can-i "
                          "create deployments; --list shows everything");
    }
    const char *verb = cli->args[1];
    const char *word = cli->args[2];
    AT_CLEANUP(at_cleanup_json) json_t *answer = NULL;
    json_t *spec = NULL;
    if (word[0] == '/') {
        spec = json_pack("{s:{s:s, s:s}}", "nonResourceAttributes", "path", word, "verb", verb);
    } else {
        json_t *what = resource_of(cli, word, err);
        json_object_set_new(what, "verb", json_string(verb));
        spec = json_pack("{s:o}", "resourceAttributes", what);
    }
    enum at_rc rc = review(cli, REVIEWS "selfsubjectaccessreviews", "SelfSubjectAccessReview", spec,
                           &answer, err);
    if (rc != AT_OK) {
        answer = NULL;
        return rc;
    }
    bool allowed = at_json_bool_at(answer, "status.allowed", false);
    const char *reason = at_json_str_at(answer, "status.reason", "");
    if (!cli_flag(cli, OPT_QUIET)) {
        fputs(allowed ? "yes" : "no", cli->env->out);
        if (!allowed && reason[0] != '\0') {
            fputs(" - ", cli->env->out);
            cli_print_text(cli->env->out, reason);
        }
        fputc('\n', cli->env->out);
    }
    cli->exit_status = allowed ? 0 : NO_STATUS;
    return AT_OK;
}

/* --- whoami --- */

static enum at_rc whoami(struct cli *cli, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *answer = NULL;
    struct cli_table table;
    enum cli_format format;
    const char *key;
    json_t *values;
    enum at_rc rc = cli_format_of(cli, &format, err);
    if (rc == AT_OK) {
        rc = review(cli, "/apis/authentication.k8s.io/v1/selfsubjectreviews", "SelfSubjectReview",
                    json_object(), &answer, err);
    }
    if (rc != AT_OK) {
        answer = NULL;
        return rc;
    }
    if (format != CLI_TABLE && format != CLI_WIDE) {
        return cli_print_value(cli, format, answer, err);
    }
    const json_t *user = at_json_at(answer, "status.userInfo");
    cli_table_init(&table, cli->arena, 2);
    cli_table_add(&table, "ATTRIBUTE");
    cli_table_add(&table, "VALUE");
    cli_table_add(&table, "Username");
    cli_table_add(&table, at_json_str_at(user, "username", ""));
    if (at_json_str_at(user, "uid", NULL) != NULL) {
        cli_table_add(&table, "UID");
        cli_table_add(&table, at_json_str_at(user, "uid", ""));
    }
    cli_table_add(&table, "Groups");
    cli_table_add(&table, joined(cli, json_object_get(user, "groups")));
    json_object_foreach(json_object_get(user, "extra"), key, values)
    {
        cli_table_add(&table, at_arena_printf(cli->arena, "Extra: %s", key));
        cli_table_add(&table, joined(cli, values));
    }
    cli_table_print(cli, &table, true);
    return AT_OK;
}

enum at_rc cli_auth(struct cli *cli, struct at_err *err)
{
    static const char *const WORDS[] = {"can-i", "whoami"};
    bool known = strcmp(cli->args[0], WORDS[0]) == 0 || strcmp(cli->args[0], WORDS[1]) == 0;
    if (!known) {
        const char *near = cli_nearest(cli->args[0], WORDS, AT_ARRAY_LEN(WORDS));
        return at_err_set(err, AT_BAD_REQUEST,
                          "auth does not know \"%s\"%s%s; there are can-i and "
                          "whoami",
                          cli->args[0], near != NULL ? ", did you mean " : "",
                          near != NULL ? near : "");
    }
    enum at_rc rc = cli_connect(cli, err);
    if (rc != AT_OK) {
        return rc;
    }
    return strcmp(cli->args[0], "whoami") == 0 ? whoami(cli, err) : can_i(cli, err);
}
