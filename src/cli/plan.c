/* plan: what apply would change, by the server's dry run, field by field. */
#include "cli/apply.h"
#include "cli/fields.h"

#include <string.h>

#define CHANGES_FOUND 2 /* the exit status */

enum action { CREATE, UPDATE, DELETE, NONE, ACTIONS };
static const char *const NAMES[ACTIONS] = {"create", "update", "delete", "none"};

struct plan {
    struct cli *cli;
    bool text, colour;
    size_t counts[ACTIONS];
    json_t *changes; /* for values */
};

static void put_value(FILE *out, const json_t *value)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (at_json_dump(value, &text) == AT_OK) {
        cli_print_text(out, text.data);
    }
}

static void put_field(const struct plan *p, const json_t *row)
{
    FILE *out = p->cli->env->out;
    const json_t *before = json_object_get(row, "before");
    const json_t *after = json_object_get(row, "after");
    const char *sign = before == NULL ? "+" : after == NULL ? "-" : "~";
    const char *paint = before == NULL ? "\033[32m" : after == NULL ? "\033[31m" : "\033[33m";
    fprintf(out, "%s    %s ", p->colour ? paint : "", sign);
    cli_print_text(out, at_json_str_at(row, "path", ""));
    fputs(": ", out);
    put_value(out, before != NULL ? before : after);
    if (before != NULL && after != NULL) {
        fputs(" -> ", out);
        put_value(out, after);
    }
    fprintf(out, "%s\n", p->colour ? "\033[0m" : "");
}

static void put_text(const struct plan *p, enum action action, const char *ref, const char *ns,
                     const json_t *fields)
{
    static const struct {
        const char *sign, *paint, *words;
    } WAYS[ACTIONS] = {[CREATE] = {"+", "\033[1;32m", "will be created"},
                       [UPDATE] = {"~", "\033[1;33m", "will be changed"},
                       [DELETE] = {"-", "\033[1;31m", "will be deleted (pruned)"}};
    FILE *out = p->cli->env->out;
    size_t at;
    json_t *row;
    if (action == NONE) {
        return;
    }
    fprintf(out, "%s%s %s%s%s%s %s%s\n", p->colour ? WAYS[action].paint : "", WAYS[action].sign,
            ref, ns != NULL ? " (namespace " : "", ns != NULL ? ns : "", ns != NULL ? ")" : "",
            WAYS[action].words, p->colour ? "\033[0m" : "");
    json_array_foreach((json_t *)fields, at, row)
    {
        put_field(p, row);
    }
}

static void add(struct plan *p, enum action action, const struct at_model_kind *kind,
                const char *ns, const char *name, json_t *fields)
{
    p->counts[action]++;
    if (p->text) {
        put_text(p, action, cli_ref(p->cli, kind, name), kind->namespaced ? ns : NULL, fields);
        return;
    }
    json_t *change = json_pack("{s:s, s:s, s:s, s:s}", "action", NAMES[action], "apiVersion",
                               kind->api_version, "kind", kind->kind, "name", name);
    if (kind->namespaced && ns != NULL) {
        json_object_set_new(change, "namespace", json_string(ns));
    }
    json_object_set(change, "fields", fields);
    json_array_append_new(p->changes, change);
}

/* What the server would make of it; NULL and AT_OK: nothing changes. */
static enum at_rc dry_run(struct plan *p, const struct cli_manifests *all,
                          const struct cli_change *change, json_t **ret, struct at_err *err)
{
    const char *word = "";
    enum at_rc rc = cli_change_send(p->cli, change, true, ret, &word, err);
    if (rc == AT_NOT_FOUND && change->patch == NULL &&
        cli_manifests_make_namespace(all, change->manifest->ns)) {
        /* Its namespace comes with the same files: the defaults are those known here. */
        *err = (struct at_err){0};
        *ret = json_deep_copy(change->wanted);
        rc = at_model_default(change->manifest->kind, *ret, err);
    }
    return rc;
}

static enum at_rc look(struct plan *p, const struct cli_manifests *all,
                       const struct cli_manifest *m, struct at_err *err)
{
    struct cli_change change = {0};
    json_t *result = NULL;
    enum at_rc rc = cli_change_make(p->cli, m, &change, err);
    if (rc == AT_OK) {
        rc = dry_run(p, all, &change, &result, err);
    }
    if (rc == AT_OK) {
        AT_CLEANUP(at_cleanup_json) json_t *before = cli_comparable(change.live);
        AT_CLEANUP(at_cleanup_json)
        json_t *after = cli_comparable(result != NULL ? result : change.live);
        cli_mask_secrets(m->kind, before, after);
        AT_CLEANUP(at_cleanup_json) json_t *fields = cli_fields_diff(p->cli, before, after);
        enum action action = change.live == NULL            ? CREATE
                             : json_array_size(fields) != 0 ? UPDATE
                                                            : NONE;
        add(p, action, m->kind, m->ns, m->name, fields);
    }
    json_decref(result);
    cli_change_done(&change);
    return rc;
}

static void look_at_leftovers(struct plan *p, const struct cli_prune *prune)
{
    for (size_t i = 0; i < prune->n; i++) {
        const struct cli_leftover *l = &prune->items[i];
        AT_CLEANUP(at_cleanup_json) json_t *none = json_array();
        add(p, DELETE, l->kind, l->ns, l->name, none);
    }
}

static enum at_rc look_at_all(struct plan *p, struct cli_manifests *all, struct at_err *err)
{
    struct cli_prune prune = {0};
    bool pruning = cli_flag(p->cli, OPT_PRUNE);
    enum at_rc rc = pruning ? cli_prune_begin(p->cli, all, true, &prune, err) : AT_OK;
    if (rc == AT_OK) {
        rc = cli_check_all(p->cli, all, true, err);
    }
    for (size_t i = 0; i < all->n && rc == AT_OK; i++) {
        rc = look(p, all, &all->items[i], err);
        if (rc != AT_OK) {
            cli_manifest_blame(&all->items[i], err);
        }
    }
    if (rc == AT_OK && pruning) {
        rc = cli_prune_find(p->cli, all, &prune, err);
    }
    if (rc == AT_OK) {
        look_at_leftovers(p, &prune);
    }
    cli_prune_done(&prune);
    return rc;
}

static enum at_rc put_end(struct plan *p, enum cli_format format, struct at_err *err)
{
    size_t changes = p->counts[CREATE] + p->counts[UPDATE] + p->counts[DELETE];
    p->cli->exit_status = changes != 0 ? CHANGES_FOUND : 0;
    if (p->text) {
        FILE *out = p->cli->env->out;
        if (changes == 0) {
            fprintf(out, "No changes: %zu as the files say.\n", p->counts[NONE]);
        } else {
            fprintf(out, "\nPlan: %zu to create, %zu to change, %zu to delete, %zu as they are.\n",
                    p->counts[CREATE], p->counts[UPDATE], p->counts[DELETE], p->counts[NONE]);
        }
        return AT_OK;
    }
    AT_CLEANUP(at_cleanup_json)
    json_t *value = json_pack(
        "{s:O, s:{s:I, s:I, s:I, s:I}}", "changes", p->changes, "summary", NAMES[CREATE],
        (json_int_t)p->counts[CREATE], NAMES[UPDATE], (json_int_t)p->counts[UPDATE], NAMES[DELETE],
        (json_int_t)p->counts[DELETE], NAMES[NONE], (json_int_t)p->counts[NONE]);
    return cli_print_value(p->cli, format, value, err);
}

static enum at_rc plan_files(struct cli *cli, struct at_err *err)
{
    enum cli_format format;
    struct cli_manifests all = {0};
    struct plan p = {.cli = cli, .colour = cli_colour_wanted(cli)};
    enum at_rc rc = cli_format_of(cli, &format, err);
    if (rc == AT_OK && format == CLI_NAME) {
        rc = at_err_set(err, AT_BAD_REQUEST, "plan prints text, json, yaml or a jsonpath");
    }
    if (rc == AT_OK) {
        rc = cli_apply_load(cli, &all, err);
    }
    p.text = rc == AT_OK && (format == CLI_TABLE || format == CLI_WIDE);
    p.changes = json_array();
    if (rc == AT_OK) {
        rc = look_at_all(&p, &all, err);
    }
    if (rc == AT_OK) {
        rc = put_end(&p, format, err);
    }
    json_decref(p.changes);
    cli_manifests_done(&all);
    return rc;
}

enum at_rc cli_plan(struct cli *cli, struct at_err *err)
{
    bool files = cli->values[OPT_FILE].n != 0;
    if (cli->n_args == 1 && strcmp(cli->args[0], "moves") == 0 && !files) {
        return cli_plan_moves(cli, err);
    }
    if (cli->n_args != 0) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "plan what? atoll plan -f FILE, or atoll plan moves");
    }
    return files ? plan_files(cli, err)
                 : at_err_set(err, AT_BAD_REQUEST,
                              "plan what? atoll plan -f FILE, or atoll plan moves");
}
