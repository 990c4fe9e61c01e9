/* One document against what the server has: the patch between, and its way there. */
#include "cli/apply.h"
#include "cli/explain.h"

#include <string.h>

#define FIELD_MANAGER "kubectl-client-side-apply"

void cli_change_done(struct cli_change *change)
{
    json_decref(change->wanted);
    json_decref(change->patch);
    json_decref(change->live);
    *change = (struct cli_change){0};
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

enum at_rc cli_change_make(struct cli *cli, const struct cli_manifest *m, struct cli_change *change,
                           struct at_err *err)
{
    const char *path = cli_path_in(cli, m->kind, m->ns, m->name, NULL);
    AT_CLEANUP(at_cleanup_json) json_t *live = NULL;
    AT_CLEANUP(at_cleanup_json) json_t *wanted = json_deep_copy(m->object);
    drop_nulls(wanted);
    json_object_del(wanted, "status");
    change->manifest = m;
    change->wanted = cli_with_last_applied(wanted);
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
    change->patch = cli_merge3(last, change->wanted, live);
    change->live = json_incref(live);
    return AT_OK;
}

enum at_rc cli_change_send(struct cli *cli, const struct cli_change *change, bool dry_run,
                           json_t **ret, const char **ret_word, struct at_err *err)
{
    const struct cli_manifest *m = change->manifest;
    const char *pairs[] = {
        "fieldManager",         FIELD_MANAGER, "fieldValidation", "Strict", "dryRun",
        dry_run ? "All" : NULL, NULL};
    const char *path =
        cli_path_in(cli, m->kind, m->ns, change->patch != NULL ? m->name : NULL, NULL);
    path = cli_query(cli, path, pairs);
    if (change->patch == NULL) {
        *ret_word = "created";
        return cli_call(cli, AT_HTTP_POST, path, NULL, NULL, change->wanted, ret, err);
    }
    if (json_object_size(change->patch) == 0) {
        *ret_word = "unchanged";
        return AT_OK;
    }
    *ret_word = "configured";
    return cli_call(cli, AT_HTTP_PATCH, path, "application/merge-patch+json", NULL, change->patch,
                    ret, err);
}

bool cli_manifest_check(const struct cli *cli, const struct cli_manifest *m)
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

bool cli_manifests_make_namespace(const struct cli_manifests *all, const char *ns)
{
    for (size_t i = 0; ns != NULL && i < all->n; i++) {
        if (strcmp(all->items[i].kind->kind, "Namespace") == 0 &&
            strcmp(all->items[i].name, ns) == 0) {
            return true;
        }
    }
    return false;
}
