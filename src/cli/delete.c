#include "cli/waiting.h"

#include <string.h>

#define TIMEOUT_NS_DEFAULT (600 * AT_NS_PER_S)

struct doomed {
    const struct at_model_kind *kind;
    const char *ns, *name;
    const char *uid; /* NULL: nothing to wait for */
};

/* --cascade, --grace-period, as DeleteOptions. own: caller decrefs. */
static enum at_rc options_of(const struct cli *cli, json_t **ret, struct at_err *err)
{
    static const char *const WAYS[][2] = {
        {"background", "Background"}, {"foreground", "Foreground"}, {"orphan", "Orphan"}};
    const char *how = cli_value(cli, OPT_CASCADE, "background");
    int64_t seconds = -1;
    for (size_t i = 0; i < AT_ARRAY_LEN(WAYS); i++) {
        if (strcmp(how, WAYS[i][0]) != 0) {
            continue;
        }
        enum at_rc rc = cli->values[OPT_GRACE_PERIOD].n != 0
                            ? cli_integer(cli, OPT_GRACE_PERIOD, 0, INT32_MAX, &seconds, err)
                            : AT_OK;
        if (rc != AT_OK) {
            return rc;
        }
        *ret = json_pack("{s:s}", "propagationPolicy", WAYS[i][1]);
        if (seconds >= 0) {
            json_object_set_new(*ret, "gracePeriodSeconds", json_integer(seconds));
        }
        return AT_OK;
    }
    return at_err_set(err, AT_BAD_REQUEST,
                      "--cascade is background, foreground or orphan, not \"%s\"", how);
}

static enum at_rc delete_one(struct cli *cli, struct doomed *d, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *options = NULL;
    enum at_rc prepared = options_of(cli, &options, err);
    if (prepared != AT_OK) {
        options = NULL;
        return prepared;
    }
    AT_CLEANUP(at_cleanup_json) json_t *answer = NULL;
    enum at_rc rc = cli_call(cli, AT_HTTP_DELETE, cli_path_in(cli, d->kind, d->ns, d->name, NULL),
                             NULL, NULL, options, &answer, err);
    if (rc != AT_OK) {
        answer = NULL;
        return rc;
    }
    /* The object itself comes back while finalizers hold it; a Status when it is gone. */
    const char *uid = at_json_str_at(answer, "metadata.uid", NULL);
    d->uid = uid != NULL ? at_arena_strdup(cli->arena, uid) : NULL;
    fprintf(cli->env->out, "%s \"%s\" %s\n", d->kind->singular, d->name,
            d->uid != NULL ? "is being deleted" : "deleted");
    fflush(cli->env->out);
    return AT_OK;
}

static enum at_rc wait_gone(struct cli *cli, const struct doomed *d, int64_t deadline,
                            struct at_err *err)
{
    struct cli_condition condition = {.what = CLI_UNTIL_DELETED, .uid = d->uid};
    enum at_rc rc = cli_wait_until(cli, d->kind, d->ns, d->name, &condition, deadline, err);
    if (rc == AT_OK) {
        fprintf(cli->env->out, "%s \"%s\" deleted\n", d->kind->singular, d->name);
    }
    return rc;
}

static enum at_rc delete_all(struct cli *cli, struct doomed *doomed, size_t n, struct at_err *err)
{
    int64_t timeout = 0;
    enum at_rc first = cli_duration(cli, OPT_TIMEOUT, TIMEOUT_NS_DEFAULT, &timeout, err);
    if (first != AT_OK) {
        return first;
    }
    for (size_t i = 0; i < n; i++) {
        struct at_err one = {0};
        enum at_rc rc = delete_one(cli, &doomed[i], &one);
        if (rc == AT_OK || (rc == AT_NOT_FOUND && cli_flag(cli, OPT_IGNORE_NOT_FOUND))) {
            continue;
        }
        /* The others are tried all the same; the first failure is the exit status. */
        one.rc = rc;
        if (first == AT_OK) {
            first = rc;
            *err = one;
        } else {
            cli_report(cli, &one);
        }
    }
    int64_t deadline = at_sys_mono_ns(cli->env->sys) + timeout;
    for (size_t i = 0; i < n && cli_flag_default(cli, OPT_WAIT, true) && first == AT_OK; i++) {
        if (doomed[i].uid != NULL) {
            first = wait_gone(cli, &doomed[i], deadline, err);
        }
    }
    return first;
}

/* Last first, so that what stands on others goes before them. */
static enum at_rc delete_files(struct cli *cli, struct at_err *err)
{
    struct cli_manifests all = {0};
    enum at_rc rc = cli_manifests_load(cli, &all, err);
    if (rc == AT_OK) {
        struct doomed *doomed = at_arena_alloc(cli->arena, all.n * sizeof *doomed);
        for (size_t i = 0; i < all.n; i++) {
            const struct cli_manifest *m = &all.items[all.n - 1 - i];
            doomed[i] = (struct doomed){.kind = m->kind, .ns = m->ns, .name = m->name};
        }
        rc = delete_all(cli, doomed, all.n, err);
    }
    cli_manifests_done(&all);
    return rc;
}

enum at_rc cli_delete(struct cli *cli, struct at_err *err)
{
    struct cli_target *targets = NULL;
    size_t n = 0;
    enum at_rc rc = cli_connect(cli, err);
    if (rc != AT_OK) {
        return rc;
    }
    if (cli->values[OPT_FILE].n != 0) {
        return cli->n_args == 0 ? delete_files(cli, err)
                                : at_err_set(err, AT_BAD_REQUEST, "either names or --file");
    }
    rc = cli_targets(cli, cli->args, cli->n_args, false, &targets, &n, err);
    if (rc == AT_OK) {
        rc = cli_expand(cli, &targets, &n, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    if (n == 0) {
        fputs("No resources found.\n", cli->env->err);
        return AT_OK;
    }
    struct doomed *doomed = at_arena_alloc(cli->arena, n * sizeof *doomed);
    for (size_t i = 0; i < n; i++) {
        doomed[i] =
            (struct doomed){.kind = targets[i].kind, .ns = cli->ns, .name = targets[i].name};
    }
    return delete_all(cli, doomed, n, err);
}
