/* label and annotate: the same, on two maps of metadata. */
#include "cli/cli_priv.h"

#include <string.h>

struct marks {
    const char *noun, *member, *done; /* "label", "labels", "labeled" */
    const char *const *args;
    size_t n_args;
};

/* Does the argument change one (KEY=VALUE or KEY-) rather than name an object? */
static bool is_change(const char *arg)
{
    size_t len = strlen(arg);
    return strchr(arg, '=') != NULL || (len > 1 && arg[len - 1] == '-');
}

static enum at_rc add_change(const struct cli *cli, const struct marks *marks, const char *arg,
                             const json_t *have, json_t *changes, struct at_err *err)
{
    const char *equals = strchr(arg, '=');
    if (equals == NULL) {
        const char *key = at_arena_strndup(cli->arena, arg, strlen(arg) - 1);
        json_object_set_new(changes, key, json_null());
        return AT_OK;
    }
    const char *key = at_arena_strndup(cli->arena, arg, (size_t)(equals - arg));
    const char *now = json_string_value(json_object_get(have, key));
    if (now != NULL && strcmp(now, equals + 1) != 0 && !cli_flag(cli, OPT_OVERWRITE)) {
        return at_err_set(err, AT_CONFLICT, "%s %s is already \"%.200s\"; --overwrite changes it",
                          marks->noun, key, now);
    }
    if (json_object_set_new(changes, key, json_string(equals + 1)) != 0) {
        return at_err_set(err, AT_BAD_REQUEST, "\"%s\" is not UTF-8", arg);
    }
    return AT_OK;
}

static enum at_rc mark_one(struct cli *cli, const struct marks *marks,
                           const struct cli_target *target, struct at_err *err)
{
    const char *path = cli_path(cli, target->kind, target->name, NULL);
    AT_CLEANUP(at_cleanup_json) json_t *object = NULL;
    AT_CLEANUP(at_cleanup_json) json_t *changes = json_object();
    enum at_rc rc = cli_call(cli, AT_HTTP_GET, path, NULL, NULL, NULL, &object, err);
    if (rc != AT_OK) {
        object = NULL;
        return rc;
    }
    const json_t *have = json_object_get(json_object_get(object, "metadata"), marks->member);
    for (size_t i = 0; i < marks->n_args && rc == AT_OK; i++) {
        rc = add_change(cli, marks, marks->args[i], have, changes, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    AT_CLEANUP(at_cleanup_json)
    json_t *patch = json_pack("{s{sO}}", "metadata", marks->member, changes);
    rc = cli_call(cli, AT_HTTP_PATCH, path, "application/merge-patch+json", NULL, patch, NULL, err);
    if (rc == AT_OK) {
        fprintf(cli->env->out, "%s %s\n", cli_ref(cli, target->kind, target->name), marks->done);
    }
    return rc;
}

static enum at_rc mark_all(struct cli *cli, struct marks *marks, struct at_err *err)
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
        return at_err_set(err, AT_BAD_REQUEST, "which %s? KEY=VALUE sets one, KEY- takes it off",
                          marks->noun);
    }
    marks->args = cli->args + objects;
    marks->n_args = cli->n_args - objects;
    enum at_rc rc = cli_connect(cli, err);
    if (rc == AT_OK) {
        rc = cli_targets(cli, cli->args, objects, false, &targets, &n, err);
    }
    if (rc == AT_OK) {
        rc = cli_expand(cli, &targets, &n, err);
    }
    for (size_t i = 0; i < n && rc == AT_OK; i++) {
        rc = mark_one(cli, marks, &targets[i], err);
    }
    return rc;
}

enum at_rc cli_label(struct cli *cli, struct at_err *err)
{
    return mark_all(cli, &(struct marks){.noun = "label", .member = "labels", .done = "labeled"},
                    err);
}

enum at_rc cli_annotate(struct cli *cli, struct at_err *err)
{
    return mark_all(
        cli, &(struct marks){.noun = "annotation", .member = "annotations", .done = "annotated"},
        err);
}
