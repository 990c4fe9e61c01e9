/* What apply, plan and diff share: documents, what they change, what is left over. */
#ifndef AT_CLI_APPLY_H
#define AT_CLI_APPLY_H

#include "cli/cli_priv.h"

struct cli_change {
    const struct cli_manifest *manifest;
    json_t *wanted; /* with the annotation */
    json_t *patch;  /* NULL: to be created */
    json_t *live;   /* NULL: absent */
};
/* own: cli_change_done, also after an error. */
enum at_rc cli_change_make(struct cli *cli, const struct cli_manifest *m, struct cli_change *change,
                           struct at_err *err) AT_WARN_UNUSED;
/* *ret_word: created, configured, unchanged. *ret (own: caller decrefs) is the object, NULL when
 * unchanged. */
enum at_rc cli_change_send(struct cli *cli, const struct cli_change *change, bool dry_run,
                           json_t **ret, const char **ret_word, struct at_err *err) AT_WARN_UNUSED;
void cli_change_done(struct cli_change *change);
/* Prints every problem that can be found without a server. */
bool cli_manifest_check(const struct cli *cli, const struct cli_manifest *m);
bool cli_manifests_make_namespace(const struct cli_manifests *all, const char *ns);
/* The options checked, connected, the documents read. own: cli_manifests_done in any case. */
enum at_rc cli_apply_load(struct cli *cli, struct cli_manifests *all,
                          struct at_err *err) AT_WARN_UNUSED;
/* Here, and by the server's dry run. Prints what is wrong. */
enum at_rc cli_check_all(struct cli *cli, const struct cli_manifests *all, bool ask_server,
                         struct at_err *err) AT_WARN_UNUSED;

/* --- prune.c: objects that were applied once and are in no document any more --- */
struct cli_leftover {
    const struct at_model_kind *kind;
    const char *ns, *name, *uid;
    json_t *object; /* own */
};
struct cli_prune {
    struct cli_leftover *items;
    size_t n, room;
    /* An apply set (KEP 3659); kind NULL: none. */
    struct {
        const struct at_model_kind *kind;
        const char *ns, *name, *id;
        json_t *kinds, *namespaces; /* own: what the parent said it held */
        bool exists;
    } set;
};
/* Before anything is applied: an apply set is found or made, and its label put on the documents. */
enum at_rc cli_prune_begin(struct cli *cli, struct cli_manifests *all, bool dry,
                           struct cli_prune *prune, struct at_err *err) AT_WARN_UNUSED;
enum at_rc cli_prune_find(struct cli *cli, const struct cli_manifests *all, struct cli_prune *prune,
                          struct at_err *err) AT_WARN_UNUSED;
enum at_rc cli_prune_delete(struct cli *cli, struct cli_prune *prune, bool dry,
                            enum cli_format format, struct at_err *err) AT_WARN_UNUSED;
/* After all went well: an apply set says what it holds now, and no more. */
enum at_rc cli_prune_end(struct cli *cli, const struct cli_manifests *all, struct cli_prune *prune,
                         struct at_err *err) AT_WARN_UNUSED;
void cli_prune_done(struct cli_prune *prune);

#endif
