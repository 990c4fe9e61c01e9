/* apply: check everything first, then create or patch one after the other. */
#include "cli/explain.h"

#include <string.h>

#define FIELD_MANAGER "kubectl-client-side-apply"

struct plan {
    const struct cli_manifest *manifest;
    json_t *wanted; /* with the annotation */
    json_t *patch;  /* NULL: to be created */
};

static void plan_done(struct plan *plan)
{
    json_decref(plan->wanted);
    json_decref(plan->patch);
    *plan = (struct plan){0};
}

/* Nulls in a manifest mean "not set". */
static void drop_nulls(json_t *value)
{
    const char *key;
    json_t *item;
    void *next;
    json_object_foreach_safe(value, next, key, item)
    {
        if (json_is_null(item)) {
            json_object_del(value, key);
        } else {
            drop_nulls(item);
        }
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        drop_nulls(json_array_get(value, i));
    }
}

static enum at_rc plan_make(struct cli *cli, const struct cli_manifest *m, struct plan *plan,
                            struct at_err *err)
{
    const char *path = cli_path_in(cli, m->kind, m->ns, m->name, NULL);
    AT_CLEANUP(at_cleanup_json) json_t *live = NULL;
    AT_CLEANUP(at_cleanup_json) json_t *wanted = json_deep_copy(m->object);
    drop_nulls(wanted);
    json_object_del(wanted, "status");
    plan->manifest = m;
    plan->wanted = cli_with_last_applied(wanted);
    enum at_rc rc = cli_call(cli, AT_HTTP_GET, path, NULL, NULL, NULL, &live, err);
    if (rc == AT_NOT_FOUND) {
        live = NULL;
        *err = (struct at_err){0};
        return AT_OK;
    }
    if (rc != AT_OK) {
        return rc;
    }
    AT_CLEANUP(at_cleanup_json) json_t *last = cli_last_applied(live);
    plan->patch = cli_merge3(last, plan->wanted, live);
    return AT_OK;
}

/* *ret_word: created, configured, unchanged. *ret (own: caller decrefs) is the object, NULL when
 * unchanged. */
static enum at_rc plan_send(struct cli *cli, const struct plan *plan, bool dry_run, json_t **ret,
                            const char **ret_word, struct at_err *err)
{
    const struct cli_manifest *m = plan->manifest;
    const char *pairs[] = {
        "fieldManager",         FIELD_MANAGER, "fieldValidation", "Strict", "dryRun",
        dry_run ? "All" : NULL, NULL};
    const char *path = cli_path_in(cli, m->kind, m->ns, plan->patch != NULL ? m->name : NULL, NULL);
    path = cli_query(cli, path, pairs);
    if (plan->patch == NULL) {
        *ret_word = "created";
        return cli_call(cli, AT_HTTP_POST, path, NULL, NULL, plan->wanted, ret, err);
    }
    if (json_object_size(plan->patch) == 0) {
        *ret_word = "unchanged";
        return AT_OK;
    }
    *ret_word = "configured";
    return cli_call(cli, AT_HTTP_PATCH, path, "application/merge-patch+json", NULL, plan->patch,
                    ret, err);
}

/* Prints every problem that can be found without a server. */
static bool check_here(const struct cli *cli, const struct cli_manifest *m)
{
    struct at_err err = {0};
    struct at_model_report report = {0};
    AT_CLEANUP(at_cleanup_json) json_t *copy = json_deep_copy(m->object);
    drop_nulls(copy);
    enum at_rc rc = at_model_default(m->kind, copy, &err);
    if (rc == AT_OK) {
        rc = at_model_validate(m->kind, copy, NULL, AT_MODEL_UNKNOWN_REFUSE, cli->arena, &report,
                               &err);
    }
    if (rc == AT_OK) {
        return true;
    }
    for (size_t i = 0; i < report.n_causes; i++) {
        struct at_err one = {0};
        at_err_set_field(&one, AT_INVALID, report.causes[i].field, "%s", report.causes[i].message);
        cli_manifest_blame(m, &one);
        cli_report(cli, &one);
    }
    for (size_t i = 0; i < report.n_unknown; i++) {
        struct at_err one = {0};
        const char *near = cli_nearest_field(cli, m->kind, report.unknown[i]);
        if (near != NULL) {
            at_err_set_field(&one, AT_BAD_REQUEST, report.unknown[i],
                             "unknown field, did you mean %s?", near);
        } else {
            at_err_set_field(&one, AT_BAD_REQUEST, report.unknown[i],
                             "unknown field; atoll explain %s lists those there are",
                             m->kind->singular);
        }
        cli_manifest_blame(m, &one);
        cli_report(cli, &one);
    }
    if (report.n_causes + report.n_unknown == 0) {
        cli_manifest_blame(m, &err);
        cli_report(cli, &err);
    }
    return false;
}

static bool makes_namespace(const struct cli_manifests *all, const char *ns)
{
    for (size_t i = 0; ns != NULL && i < all->n; i++) {
        if (strcmp(all->items[i].kind->kind, "Namespace") == 0 &&
            strcmp(all->items[i].name, ns) == 0) {
            return true;
        }
    }
    return false;
}

static enum at_rc check_there(struct cli *cli, const struct cli_manifests *all,
                              const struct cli_manifest *m, struct at_err *err)
{
    struct plan plan = {0};
    json_t *answer = NULL;
    const char *word = "";
    enum at_rc rc = plan_make(cli, m, &plan, err);
    if (rc == AT_OK) {
        rc = plan_send(cli, &plan, true, &answer, &word, err);
    }
    if (rc == AT_NOT_FOUND && makes_namespace(all, m->ns)) {
        rc = AT_OK; /* its namespace comes with the same files */
    }
    if (rc == AT_OK && cli->values[OPT_DRY_RUN].n != 0) {
        fprintf(cli->env->out, "%s %s (server dry run)\n", cli_ref(cli, m->kind, m->name), word);
    }
    json_decref(answer);
    plan_done(&plan);
    return rc;
}

static enum at_rc check_all(struct cli *cli, const struct cli_manifests *all, bool ask_server,
                            struct at_err *err)
{
    size_t wrong = 0;
    enum at_rc first = AT_OK;
    for (size_t i = 0; i < all->n; i++) {
        if (!check_here(cli, &all->items[i])) {
            first = first == AT_OK ? AT_INVALID : first;
            wrong++;
        }
    }
    for (size_t i = 0; i < all->n && wrong == 0 && ask_server; i++) {
        struct at_err one = {0};
        enum at_rc rc = check_there(cli, all, &all->items[i], &one);
        if (rc != AT_OK) {
            bool about_it = rc == AT_INVALID || rc == AT_BAD_REQUEST || rc == AT_CONFLICT;
            if (!about_it) {
                *err = one; /* no server, not allowed ...: the same for each */
                return rc;
            }
            one.rc = rc;
            cli_manifest_blame(&all->items[i], &one);
            cli_report(cli, &one);
            first = first == AT_OK ? rc : first;
            wrong++;
        }
    }
    if (wrong == 0) {
        return AT_OK;
    }
    return at_err_set(err, first, "%zu of %zu documents %s wrong; nothing was applied", wrong,
                      all->n, wrong == 1 ? "is" : "are");
}

static enum at_rc apply_one(struct cli *cli, const struct cli_manifest *m, enum cli_format format,
                            struct at_err *err)
{
    enum at_rc rc = AT_OK;
    for (int attempt = 0; attempt < 3; attempt++) {
        struct plan plan = {0};
        json_t *answer = NULL;
        const char *word = "";
        *err = (struct at_err){0};
        rc = plan_make(cli, m, &plan, err);
        if (rc == AT_OK) {
            rc = plan_send(cli, &plan, false, &answer, &word, err);
        }
        if (rc == AT_OK && (format == CLI_JSON || format == CLI_YAML)) {
            rc = cli_print_value(cli, format, answer != NULL ? answer : plan.wanted, err);
        } else if (rc == AT_OK) {
            const char *ref = cli_ref(cli, m->kind, m->name);
            fprintf(cli->env->out, format == CLI_NAME ? "%s\n" : "%s %s\n", ref, word);
        }
        bool raced =
            rc == AT_EXISTS || rc == AT_CONFLICT || (rc == AT_NOT_FOUND && plan.patch != NULL);
        json_decref(answer);
        plan_done(&plan);
        if (!raced) {
            break;
        }
    }
    return rc;
}

static enum at_rc apply_all(struct cli *cli, const struct cli_manifests *all,
                            enum cli_format format, struct at_err *err)
{
    for (size_t i = 0; i < all->n; i++) {
        const struct cli_manifest *m = &all->items[i];
        enum at_rc rc = apply_one(cli, m, format, err);
        if (rc == AT_OK) {
            continue;
        }
        err->rc = rc;
        cli_manifest_blame(m, err);
        for (size_t rest = i; rest < all->n; rest++) {
            const struct cli_manifest *left = &all->items[rest];
            fprintf(cli->env->err, "not applied: %s (%s, document %zu)\n",
                    cli_ref(cli, left->kind, left->name), left->file, left->document);
        }
        return rc;
    }
    return AT_OK;
}

enum at_rc cli_apply(struct cli *cli, struct at_err *err)
{
    const char *dry = cli_value(cli, OPT_DRY_RUN, "");
    enum cli_format format;
    if (dry[0] != '\0' && strcmp(dry, "server") != 0 && strcmp(dry, "client") != 0) {
        return at_err_set(err, AT_BAD_REQUEST, "--dry-run is server or client, not \"%s\"", dry);
    }
    bool only_here = strcmp(dry, "client") == 0;
    enum at_rc rc = cli_format_of(cli, &format, err);
    if (rc == AT_OK && !only_here) {
        rc = cli_connect(cli, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    struct cli_manifests all = {0};
    rc = cli_manifests_load(cli, &all, err);
    if (rc != AT_OK && cli->values[OPT_FILE].n != 0) {
        cli_report(cli, err);
        rc = at_err_set(err, rc, "nothing was applied");
    }
    if (rc == AT_OK) {
        rc = check_all(cli, &all, !only_here, err);
    }
    for (size_t i = 0; i < all.n && rc == AT_OK && only_here; i++) {
        fprintf(cli->env->out, "%s is well-formed (client dry run)\n",
                cli_ref(cli, all.items[i].kind, all.items[i].name));
    }
    if (rc == AT_OK && dry[0] == '\0') {
        rc = apply_all(cli, &all, format, err);
    }
    cli_manifests_done(&all);
    return rc;
}
