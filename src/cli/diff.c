/* diff: two folders, what the server has and what apply would make of it, given to diff. */
#include "cli/apply.h"
#include "cli/fields.h"
#include "cli/program.h"
#include "core/str.h"
#include "sys/file.h"

#include <string.h>

#define WORDS_MAX 32
#define DIFFERENCES_FOUND 1 /* the exit status of diff, and ours */

struct diff {
    struct cli *cli;
    char *dir; /* own */
    const char *live, *merged;
};

static enum at_rc write_one(struct diff *d, const char *folder, const struct at_model_kind *kind,
                            const char *ns, const char *name, const json_t *object,
                            struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (object == NULL) {
        return AT_OK;
    }
    AT_CLEANUP(at_cleanup_json) json_t *ordered = cli_sorted(object);
    const char *dot = kind->group[0] != '\0' ? "." : "";
    const char *path = at_arena_printf(d->cli->arena, "%s/%s%s%s.%s.%s.%s", folder, kind->group,
                                       dot, kind->version, kind->kind, ns != NULL ? ns : "", name);
    enum at_rc rc = at_yaml_dump(ordered, &text);
    return rc == AT_OK ? at_file_append(path, text.data, text.len, 0600, err) : rc;
}

static enum at_rc write_both(struct diff *d, const struct at_model_kind *kind, const char *ns,
                             const char *name, const json_t *live, const json_t *merged,
                             struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *before = cli_comparable(live);
    AT_CLEANUP(at_cleanup_json) json_t *after = cli_comparable(merged);
    cli_mask_secrets(kind, before, after);
    enum at_rc rc = write_one(d, d->live, kind, ns, name, before, err);
    return rc == AT_OK ? write_one(d, d->merged, kind, ns, name, after, err) : rc;
}

static enum at_rc write_change(struct diff *d, const struct cli_manifests *all,
                               const struct cli_manifest *m, struct at_err *err)
{
    struct cli_change change = {0};
    json_t *result = NULL;
    const char *word = "";
    enum at_rc rc = cli_change_make(d->cli, m, &change, err);
    if (rc == AT_OK) {
        rc = cli_change_send(d->cli, &change, true, &result, &word, err);
    }
    if (rc == AT_NOT_FOUND && cli_manifests_make_namespace(all, m->ns)) {
        *err = (struct at_err){0};
        result = json_incref(change.wanted);
        rc = AT_OK;
    }
    if (rc == AT_OK) {
        rc = write_both(d, m->kind, m->ns, m->name, change.live,
                        result != NULL ? result : change.live, err);
    }
    json_decref(result);
    cli_change_done(&change);
    return rc;
}

static enum at_rc write_all(struct diff *d, struct cli_manifests *all, struct at_err *err)
{
    struct cli_prune prune = {0};
    bool pruning = cli_flag(d->cli, OPT_PRUNE);
    enum at_rc rc = pruning ? cli_prune_begin(d->cli, all, true, &prune, err) : AT_OK;
    if (rc == AT_OK) {
        rc = cli_check_all(d->cli, all, true, err);
    }
    for (size_t i = 0; i < all->n && rc == AT_OK; i++) {
        rc = write_change(d, all, &all->items[i], err);
        if (rc != AT_OK) {
            cli_manifest_blame(&all->items[i], err);
        }
    }
    if (rc == AT_OK && pruning) {
        rc = cli_prune_find(d->cli, all, &prune, err);
    }
    for (size_t i = 0; i < prune.n && rc == AT_OK; i++) {
        const struct cli_leftover *l = &prune.items[i];
        rc = write_both(d, l->kind, l->ns, l->name, l->object, NULL, err);
    }
    cli_prune_done(&prune);
    return rc;
}

/* The program and its arguments, without a shell. */
static size_t words_of(const struct cli *cli, const char *text, const char **out)
{
    struct at_str rest = at_str_of(text);
    size_t n = 0;
    while (rest.len != 0 && n < WORDS_MAX) {
        struct at_str one = at_str_trim(at_str_cut(&rest, ' '));
        if (one.len != 0) {
            out[n++] = at_arena_strndup(cli->arena, one.ptr, one.len);
        }
    }
    return n;
}

static enum at_rc run(struct diff *d, struct at_err *err)
{
    struct cli *cli = d->cli;
    const char *argv[WORDS_MAX + 3] = {NULL};
    const char *program = at_sys_getenv("ATOLL_EXTERNAL_DIFF");
    program = program != NULL ? program : at_sys_getenv("KUBECTL_EXTERNAL_DIFF");
    size_t n = program != NULL ? words_of(cli, program, argv) : 0;
    n = n != 0 ? n : words_of(cli, "diff -u -N", argv);
    argv[n] = d->live;
    argv[n + 1] = d->merged;
    int code = 0;
    enum at_rc rc = cli_program_run(cli, argv, 0, fileno(cli->env->out), &code, err);
    if (rc == AT_NOT_FOUND) {
        return at_err_set(err, rc,
                          "%s is not installed; name another in $ATOLL_EXTERNAL_DIFF, or "
                          "use atoll plan",
                          argv[0]);
    }
    if (rc == AT_OK && code > DIFFERENCES_FOUND) {
        rc = at_err_set(err, AT_INTERNAL, "%s ended with status %d", argv[0], code);
    }
    cli->exit_status = code;
    return rc;
}

enum at_rc cli_diff(struct cli *cli, struct at_err *err)
{
    struct diff d = {.cli = cli};
    struct cli_manifests all = {0};
    enum at_rc rc = cli_apply_load(cli, &all, err);
    if (rc == AT_OK) {
        rc = at_dir_make_temp("atoll-diff", &d.dir, err);
    }
    if (rc == AT_OK) {
        d.live = at_arena_printf(cli->arena, "%s/LIVE", d.dir);
        d.merged = at_arena_printf(cli->arena, "%s/MERGED", d.dir);
        rc = at_dir_make(d.live, 0700, err);
    }
    if (rc == AT_OK) {
        rc = at_dir_make(d.merged, 0700, err);
    }
    if (rc == AT_OK) {
        rc = write_all(&d, &all, err);
    }
    if (rc == AT_OK) {
        rc = run(&d, err);
    }
    if (d.dir != NULL) {
        (void)!at_tree_remove(d.dir, NULL);
    }
    at_free(d.dir);
    cli_manifests_done(&all);
    return rc;
}
