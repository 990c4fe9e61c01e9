/* apply: check everything first, then create or patch one after the other; prune what is left over.
 */
#include "cli/apply.h"

#include <string.h>

static enum at_rc check_there(struct cli *cli, const struct cli_manifests *all,
                              const struct cli_manifest *m, struct at_err *err)
{
    struct cli_change change = {0};
    json_t *answer = NULL;
    const char *word = "";
    enum at_rc rc = cli_change_make(cli, m, &change, err);
    if (rc == AT_OK) {
        rc = cli_change_send(cli, &change, true, &answer, &word, err);
    }
    if (rc == AT_NOT_FOUND && cli_manifests_make_namespace(all, m->ns)) {
        rc = AT_OK; /* its namespace comes with the same files */
    }
    if (rc == AT_OK && cli->values[OPT_DRY_RUN].n != 0) {
        fprintf(cli->env->out, "%s %s (server dry run)\n", cli_ref(cli, m->kind, m->name), word);
    }
    json_decref(answer);
    cli_change_done(&change);
    return rc;
}

enum at_rc cli_check_all(struct cli *cli, const struct cli_manifests *all, bool ask_server,
                         struct at_err *err)
{
    size_t wrong = 0;
    enum at_rc first = AT_OK;
    for (size_t i = 0; i < all->n; i++) {
        if (!cli_manifest_check(cli, &all->items[i])) {
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
        struct cli_change change = {0};
        json_t *answer = NULL;
        const char *word = "";
        *err = (struct at_err){0};
        rc = cli_change_make(cli, m, &change, err);
        if (rc == AT_OK) {
            rc = cli_change_send(cli, &change, false, &answer, &word, err);
        }
        if (rc == AT_OK && (format == CLI_JSON || format == CLI_YAML)) {
            rc = cli_print_value(cli, format, answer != NULL ? answer : change.wanted, err);
        } else if (rc == AT_OK) {
            const char *ref = cli_ref(cli, m->kind, m->name);
            fprintf(cli->env->out, format == CLI_NAME ? "%s\n" : "%s %s\n", ref, word);
        }
        bool raced =
            rc == AT_EXISTS || rc == AT_CONFLICT || (rc == AT_NOT_FOUND && change.patch != NULL);
        json_decref(answer);
        cli_change_done(&change);
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

/* What --prune wants of the other options, before anything is read. */
static enum at_rc check_options(const struct cli *cli, struct at_err *err)
{
    const char *dry = cli_value(cli, OPT_DRY_RUN, "");
    bool prune = cli_flag(cli, OPT_PRUNE);
    bool selector = cli->values[OPT_SELECTOR].n != 0;
    bool all = cli_flag(cli, OPT_ALL);
    bool set = cli->values[OPT_APPLYSET].n != 0;
    if (dry[0] != '\0' && strcmp(dry, "server") != 0 && strcmp(dry, "client") != 0) {
        return at_err_set(err, AT_BAD_REQUEST, "--dry-run is server or client, not \"%s\"", dry);
    }
    if (!prune && (set || all || cli->values[OPT_PRUNE_ALLOWLIST].n != 0)) {
        return at_err_set(err, AT_BAD_REQUEST, "--%s is for --prune only",
                          set   ? "applyset"
                          : all ? "all"
                                : "prune-allowlist");
    }
    if (prune && strcmp(dry, "client") == 0) {
        return at_err_set(err, AT_BAD_REQUEST, "--prune needs the server: --dry-run=server");
    }
    if (prune && set && (selector || all || cli->values[OPT_PRUNE_ALLOWLIST].n != 0)) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "--applyset knows its own objects: leave out --selector, --all and "
                          "--prune-allowlist");
    }
    if (prune && !set && selector == all) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "prune which objects? one of --selector LABELS, --all (everything that "
                          "was ever applied in these namespaces) and --applyset NAME");
    }
    return AT_OK;
}

/* --selector chooses among the documents too, as kubectl's does. */
static enum at_rc choose(const struct cli *cli, struct cli_manifests *all, struct at_err *err)
{
    const char *text = cli_value(cli, OPT_SELECTOR, NULL);
    struct at_selector *selector = NULL;
    if (text == NULL) {
        return AT_OK;
    }
    enum at_rc rc = at_selector_parse(text, cli->arena, &selector, err);
    if (rc != AT_OK) {
        return at_err_wrap(err, rc, "--selector");
    }
    size_t kept = 0;
    for (size_t i = 0; i < all->n; i++) {
        const json_t *labels = at_json_at(all->items[i].object, "metadata.labels");
        if (at_selector_match_json(selector, labels)) {
            all->items[kept++] = all->items[i];
        } else {
            json_decref(all->items[i].object);
        }
    }
    all->n = kept;
    return AT_OK;
}

enum at_rc cli_apply_load(struct cli *cli, struct cli_manifests *all, struct at_err *err)
{
    enum at_rc rc = check_options(cli, err);
    bool only_here = strcmp(cli_value(cli, OPT_DRY_RUN, ""), "client") == 0;
    if (rc == AT_OK && !only_here) {
        rc = cli_connect(cli, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    rc = cli_manifests_load(cli, all, err);
    if (rc != AT_OK && cli->values[OPT_FILE].n != 0) {
        cli_report(cli, err);
        rc = at_err_set(err, rc, "nothing was applied");
    }
    return rc == AT_OK ? choose(cli, all, err) : rc;
}

static enum at_rc apply_and_prune(struct cli *cli, struct cli_manifests *all,
                                  enum cli_format format, struct at_err *err)
{
    bool dry = cli->values[OPT_DRY_RUN].n != 0;
    struct cli_prune prune = {0};
    enum at_rc rc = cli_prune_begin(cli, all, dry, &prune, err);
    if (rc == AT_OK) {
        rc = cli_check_all(cli, all, true, err);
    }
    if (rc == AT_OK && !dry) {
        rc = apply_all(cli, all, format, err);
    }
    if (rc == AT_OK) {
        rc = cli_prune_find(cli, all, &prune, err);
    }
    if (rc == AT_OK) {
        rc = cli_prune_delete(cli, &prune, dry, format, err);
    }
    if (rc == AT_OK && !dry) {
        rc = cli_prune_end(cli, all, &prune, err);
    }
    cli_prune_done(&prune);
    return rc;
}

enum at_rc cli_apply(struct cli *cli, struct at_err *err)
{
    enum cli_format format;
    struct cli_manifests all = {0};
    bool only_here = strcmp(cli_value(cli, OPT_DRY_RUN, ""), "client") == 0;
    enum at_rc rc = cli_format_of(cli, &format, err);
    if (rc == AT_OK) {
        rc = cli_apply_load(cli, &all, err);
    }
    if (rc == AT_OK && cli_flag(cli, OPT_PRUNE)) {
        rc = apply_and_prune(cli, &all, format, err);
    } else if (rc == AT_OK) {
        rc = cli_check_all(cli, &all, !only_here, err);
        if (rc == AT_OK && cli->values[OPT_DRY_RUN].n == 0) {
            rc = apply_all(cli, &all, format, err);
        }
    }
    for (size_t i = 0; i < all.n && rc == AT_OK && only_here; i++) {
        fprintf(cli->env->out, "%s is well-formed (client dry run)\n",
                cli_ref(cli, all.items[i].kind, all.items[i].name));
    }
    cli_manifests_done(&all);
    return rc;
}
