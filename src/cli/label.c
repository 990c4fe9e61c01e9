#include "cli/cli_priv.h"

#include <string.h>

/* Does the argument change a label (KEY=VALUE or KEY-) rather than name an object? */
static bool is_change(const char *arg)
{
    size_t len = strlen(arg);
    return strchr(arg, '=') != NULL || (len > 1 && arg[len - 1] == '-');
}

static enum at_rc add_change(const struct cli *cli, const char *arg, const json_t *labels,
                             json_t *changes, struct at_err *err)
{
    const char *equals = strchr(arg, '=');
    if (equals == NULL) {
        const char *key = at_arena_strndup(cli->arena, arg, strlen(arg) - 1);
        json_object_set_new(changes, key, json_null());
        return AT_OK;
    }
    const char *key = at_arena_strndup(cli->arena, arg, (size_t)(equals - arg));
    const char *now = json_string_value(json_object_get(labels, key));
    if (now != NULL && strcmp(now, equals + 1) != 0 && !cli_flag(cli, OPT_OVERWRITE)) {
        return at_err_set(err, AT_CONFLICT, "label %s is already \"%s\"; --overwrite changes it",
                          key, now);
    }
    if (json_object_set_new(changes, key, json_string(equals + 1)) != 0) {
        return at_err_set(err, AT_BAD_REQUEST, "\"%s\" is not UTF-8", arg);
    }
    return AT_OK;
}

static enum at_rc label_one(struct cli *cli, const struct cli_target *target,
                            const char *const *args, size_t n_args, struct at_err *err)
{
    const char *path = cli_path(cli, target->kind, target->name, NULL);
    AT_CLEANUP(at_cleanup_json) json_t *object = NULL;
    AT_CLEANUP(at_cleanup_json) json_t *changes = json_object();
    enum at_rc rc = cli_call(cli, AT_HTTP_GET, path, NULL, NULL, NULL, &object, err);
    if (rc != AT_OK) {
        object = NULL;
        return rc;
    }
    const json_t *labels = at_json_at(object, "metadata.labels");
    for (size_t i = 0; i < n_args && rc == AT_OK; i++) {
        rc = add_change(cli, args[i], labels, changes, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    AT_CLEANUP(at_cleanup_json)
    json_t *patch = json_pack("{s{sO}}", "metadata", "labels", changes);
    rc = cli_call(cli, AT_HTTP_PATCH, path, "application/merge-patch+json", NULL, patch, NULL, err);
    if (rc == AT_OK) {
        fprintf(cli->env->out, "%s labeled\n", cli_ref(cli, target->kind, target->name));
    }
    return rc;
}

enum at_rc cli_label(struct cli *cli, struct at_err *err)
{
    size_t objects = 0;
    struct cli_target *targets = NULL;
    size_t n = 0;
    while (objects < cli->n_args && !is_change(cli->args[objects])) {
        objects++;
    }
    for (size_t i = objects; i < cli->n_args; i++) {
        if (!is_change(cli->args[i])) {
            return at_err_set(err, AT_BAD_REQUEST, "\"%s\" is neither KEY=VALUE nor KEY-",
                              cli->args[i]);
        }
    }
    if (objects == cli->n_args) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "which label? KEY=VALUE sets one, KEY- takes it off");
    }
    enum at_rc rc = cli_connect(cli, err);
    if (rc == AT_OK) {
        rc = cli_targets(cli, cli->args, objects, true, &targets, &n, err);
    }
    for (size_t i = 0; i < n && rc == AT_OK; i++) {
        rc = label_one(cli, &targets[i], cli->args + objects, cli->n_args - objects, err);
    }
    return rc;
}
