/* patch, cordon and uncordon: one change by the server's own patch. */
#include "cli/cli_priv.h"
#include "core/yaml.h"

#include <string.h>

static const struct patch_type {
    const char *name, *content_type;
} TYPES[] = {
    {"strategic", "application/strategic-merge-patch+json"},
    {"merge", "application/merge-patch+json"},
    {"json", "application/json-patch+json"},
};

static enum at_rc patch_targets(struct cli *cli, const struct cli_target *targets, size_t n,
                                const char *content_type, const json_t *patch, const char *done,
                                struct at_err *err)
{
    enum at_rc rc = AT_OK;
    for (size_t i = 0; i < n && rc == AT_OK; i++) {
        const char *part = cli_value(cli, OPT_SUBRESOURCE, NULL);
        AT_CLEANUP(at_cleanup_json) json_t *answer = NULL;
        rc = cli_call(cli, AT_HTTP_PATCH, cli_path(cli, targets[i].kind, targets[i].name, part),
                      content_type, NULL, patch, &answer, err);
        if (rc == AT_OK) {
            fprintf(cli->env->out, "%s %s\n", cli_ref(cli, targets[i].kind, targets[i].name), done);
        } else {
            answer = NULL;
        }
    }
    return rc;
}

enum at_rc cli_patch(struct cli *cli, struct at_err *err)
{
    const char *text = cli_value(cli, OPT_PATCH, NULL);
    const char *named = cli_value(cli, OPT_PATCH_TYPE, TYPES[0].name);
    const struct patch_type *type = NULL;
    struct cli_target *targets = NULL;
    size_t n = 0;
    for (size_t i = 0; i < AT_ARRAY_LEN(TYPES); i++) {
        type = at_streq(named, TYPES[i].name) ? &TYPES[i] : type;
    }
    if (type == NULL) {
        return at_err_set(err, AT_BAD_REQUEST, "--type: \"%s\" is none of strategic, merge, json",
                          named);
    }
    if (text == NULL) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "what is to change? Give it with --patch, as JSON "
                          "or YAML");
    }
    struct at_yaml_doc *docs = NULL;
    size_t n_docs = 0;
    enum at_rc rc = at_yaml_parse(text, strlen(text), &docs, &n_docs, err);
    if (rc != AT_OK) {
        return at_err_wrap(err, rc, "--patch");
    }
    const json_t *patch = n_docs == 1 ? docs[0].value : NULL;
    if (!json_is_object(patch) && !json_is_array(patch)) {
        rc = at_err_set(err, AT_BAD_REQUEST, "--patch must be one object, or a list of operations");
    }
    if (rc == AT_OK) {
        rc = cli_connect(cli, err);
    }
    if (rc == AT_OK) {
        rc = cli_targets(cli, cli->args, cli->n_args, true, &targets, &n, err);
    }
    if (rc == AT_OK) {
        rc = patch_targets(cli, targets, n, type->content_type, patch, "patched", err);
    }
    at_yaml_docs_free(docs, n_docs);
    return rc;
}

static enum at_rc cordon_set(struct cli *cli, bool on, struct at_err *err)
{
    struct cli_target *targets = at_arena_alloc(cli->arena, cli->n_args * sizeof *targets);
    enum at_rc rc = cli_connect(cli, err);
    for (size_t i = 0; i < cli->n_args; i++) {
        const char *slash = strrchr(cli->args[i], '/'); /* node/NAME, as get -o name prints it */
        targets[i] = (struct cli_target){&AT_KIND_NODE, slash != NULL ? slash + 1 : cli->args[i]};
    }
    AT_CLEANUP(at_cleanup_json) json_t *patch = json_pack("{s{sb}}", "spec", "unschedulable", on);
    return rc != AT_OK ? rc
                       : patch_targets(cli, targets, cli->n_args, "application/merge-patch+json",
                                       patch, on ? "cordoned" : "uncordoned", err);
}

enum at_rc cli_cordon(struct cli *cli, struct at_err *err)
{
    return cordon_set(cli, true, err);
}

enum at_rc cli_uncordon(struct cli *cli, struct at_err *err)
{
    return cordon_set(cli, false, err);
}
