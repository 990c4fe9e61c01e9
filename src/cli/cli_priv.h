/* The inside of the command line: options, the session with the server, printing. */
#ifndef AT_CLI_CLI_PRIV_H
#define AT_CLI_CLI_PRIV_H

#include "cli/cli.h"
#include "cli/option.h"
#include "cli/output.h"
#include "client/client.h"
#include "core/mem.h"
#include "core/yaml.h"
#include "net/tls.h"
#include "net/url.h"

struct cli_option_row {
    const char *name;   /* without the dashes */
    char letter;        /* 0: none */
    const char *value;  /* what stands for its value in help; NULL: a flag */
    const char *choice; /* words to complete, "a b c"; "@file", "@dir"; NULL */
    const char *help;
};
extern const struct cli_option_row CLI_OPTIONS[OPT_COUNT];

struct cli;
struct cli_verb {
    const char *name;
    const char *synopsis; /* what stands after the name */
    const char *summary;  /* one line */
    const char *about;    /* more, may be NULL */
    const char *examples; /* lines, without the program's name before; may be NULL */
    const enum cli_option *options;
    size_t n_options;
    int args_min, args_max; /* -1: no maximum */
    bool takes_kinds;       /* arguments are kinds, for completion */
    enum at_rc (*run)(struct cli *cli, struct at_err *err);
    int error_status; /* of every error, where others mean something else; 0: that of the code */
};
extern const struct cli_verb CLI_VERBS[];
extern const size_t CLI_VERBS_COUNT;
const struct cli_verb *cli_verb_find(const char *name);

struct cli_role {
    const char *name, *summary;
};
extern const struct cli_role CLI_ROLES[];
extern const size_t CLI_ROLES_COUNT;

#define CLI_VALUES_MAX 64 /* of one option */

struct cli_values {
    const char *items[CLI_VALUES_MAX];
    size_t n;
};

struct cli {
    struct at_cli_env *env;
    const struct cli_verb *verb; /* NULL: none given */
    const char **args;           /* positional, borrowed from argv */
    size_t n_args;
    size_t args_dash; /* how many stand before "--"; 0: it is not there */
    bool after_dash;
    struct cli_values values[OPT_COUNT];
    struct at_arena *arena; /* lives as long as the command */
    struct at_loop *loop;
    struct at_client_kubeconfig *config;
    struct at_client *client;
    at_timer_id renew_timer; /* of credentials that end */
    bool renewed;
    const char *ns;   /* NULL: all namespaces */
    bool many_kinds;  /* rows name their kind */
    bool interrupted; /* by a signal: what waits ends */
    int exit_status;  /* of a success that says more than 0, such as a command's own; 0: none */
};

/* --- options.c --- */
enum at_rc cli_parse(struct cli *cli, int argc, char **argv, struct at_err *err) AT_WARN_UNUSED;
/* Of words that somebody types still, as much as can be understood. Returns the option that wants
 * its value next; OPT_COUNT: none. */
enum cli_option cli_parse_words(struct cli *cli, size_t n, char **words);
enum cli_option cli_option_named(const struct cli_verb *verb, const char *word); /* "-n", "--x" */
/* Last value given, or otherwise. Flags: "true", or what stood after '='. */
const char *cli_value(const struct cli *cli, enum cli_option option, const char *otherwise);
bool cli_flag(const struct cli *cli, enum cli_option option);
bool cli_flag_default(const struct cli *cli, enum cli_option option, bool otherwise);
enum at_rc cli_duration(const struct cli *cli, enum cli_option option, int64_t otherwise_ns,
                        int64_t *ret_ns, struct at_err *err) AT_WARN_UNUSED;
enum at_rc cli_integer(const struct cli *cli, enum cli_option option, int64_t min, int64_t max,
                       int64_t *ret, struct at_err *err) AT_WARN_UNUSED;
/* The candidate nearest to word, for "did you mean"; NULL when none is near. */
const char *cli_nearest(const char *word, const char *const *candidates, size_t n);

/* --- help.c, completion.c --- */
void cli_help(FILE *out, const struct cli_verb *verb); /* NULL: the program */
void cli_man(FILE *out);
enum at_rc cli_completion(struct cli *cli, struct at_err *err);
void cli_complete(struct cli *cli, int argc, char **argv); /* the hidden verb __complete */

/* --- session.c --- */
/* Kubeconfig, client, namespace; does nothing when it is there already. */
enum at_rc cli_connect(struct cli *cli, struct at_err *err) AT_WARN_UNUSED;
void cli_disconnect(struct cli *cli);
/* One blocking request. *ret (may be NULL) is the answer's JSON, own: caller decrefs; */
enum at_rc cli_call(struct cli *cli, enum at_http_method method, const char *path,
                    const char *content_type, const char *accept, const json_t *body, json_t **ret,
                    struct at_err *err) AT_WARN_UNUSED;
/* Collection path of kind in the session's namespace, or the object's. */
const char *cli_path(const struct cli *cli, const struct at_model_kind *kind, const char *name,
                     const char *subresource);
/* The same in the namespace ns. */
const char *cli_path_in(const struct cli *cli, const struct at_model_kind *kind, const char *ns,
                        const char *name, const char *subresource);
/* path?key=value&..., values escaped; pairs end with NULL; a NULL value leaves its pair out. */
const char *cli_query(const struct cli *cli, const char *path, const char *const *pairs);

struct cli_target {
    const struct at_model_kind *kind;
    const char *name; /* NULL: all of the kind */
};
/* KIND, KIND NAME..., KIND/NAME..., KIND,KIND; "all" when categories are allowed. own: arena. */
enum at_rc cli_targets(const struct cli *cli, const char *const *args, size_t n_args,
                       bool names_needed, struct cli_target **ret, size_t *ret_n,
                       struct at_err *err) AT_WARN_UNUSED;
enum at_rc cli_kind(const char *word, const struct at_model_kind **ret,
                    struct at_err *err) AT_WARN_UNUSED;
/* "deployment.atoll.dev/digits", "namespace/x". own: arena. */
const char *cli_ref(const struct cli *cli, const struct at_model_kind *kind, const char *name);
enum at_rc cli_read(const struct cli *cli, const char *path, size_t max_bytes, struct at_buf *out,
                    struct at_err *err) AT_WARN_UNUSED; /* "-": standard input */
/* A file beside the kubeconfig, its first line; NULL when it is not there. own: arena. */
const char *cli_beside_kubeconfig(const struct cli *cli, const char *file);

/* --- manifest.c --- */
#define CLI_FILE_BYTES_MAX ((size_t)8 << 20)
struct cli_manifest {
    json_t *object;
    const char *file;
    size_t document; /* from 1, within its file */
    size_t line;     /* where it begins */
    const char *text;
    size_t text_len;
    const struct at_model_kind *kind;
    const char *name, *ns; /* ns NULL when the kind has none */
};
struct cli_manifests {
    struct cli_manifest *items;
    size_t n, room;
    struct at_buf *texts; /* one per file */
    size_t n_texts;
};
/* All documents of every --file. err: what is wrong, with file, document and line. */
enum at_rc cli_manifests_load(const struct cli *cli, struct cli_manifests *out,
                              struct at_err *err) AT_WARN_UNUSED;
void cli_manifests_done(struct cli_manifests *manifests);
/* Put "FILE: document N, line L: " (the line of err's field) before err's message. */
enum at_rc cli_manifest_blame(const struct cli_manifest *manifest, struct at_err *err);

/* --- merge3.c --- */
/* The merge patch that brings live to wanted, and takes out what last had and wanted has no more.
 * last may be NULL. own: caller decrefs. An empty object: nothing to do. */
json_t *cli_merge3(const json_t *last, const json_t *wanted, const json_t *live);
json_t *cli_sorted(const json_t *value); /* keys in order, all the way down; own: caller decrefs */
#define CLI_LAST_APPLIED "kubectl.kubernetes.io/last-applied-configuration"
/* wanted with the annotation that kubectl apply keeps; own: caller decrefs. */
json_t *cli_with_last_applied(const json_t *wanted);
json_t *cli_last_applied(const json_t *live); /* own: caller decrefs; NULL when there is none */

/* --- gateway_find.c --- */
struct cli_gateway {
    struct at_url url;
    struct at_tls_config *tls; /* NULL: plain; own: at_tls_config_unref */
    const char *token;         /* NULL: none is known; own: arena */
};
/* By --gateway, $ATOLL_GATEWAY or what atoll dev wrote beside the kubeconfig. */
enum at_rc cli_gateway_find(struct cli *cli, struct cli_gateway *ret,
                            struct at_err *err) AT_WARN_UNUSED;

/* --- image.c --- */
struct cli_image {
    size_t width, height, max;
    uint16_t *pixels; /* own */
};
enum at_rc cli_pgm_parse(const char *data, size_t len, struct cli_image *ret,
                         struct at_err *err) AT_WARN_UNUSED;
/* Box filter to width x height; out has width * height places, values 0..scale. */
void cli_image_resize(const struct cli_image *image, size_t width, size_t height, double scale,
                      double *out);

/* The objects that targets mean: those named, or with --selector or --all the listed ones. own:
 * arena. */
enum at_rc cli_expand(struct cli *cli, struct cli_target **targets, size_t *n,
                      struct at_err *err) AT_WARN_UNUSED;
/* All items of a collection, page by page. own: caller decrefs. */
enum at_rc cli_list(struct cli *cli, const struct at_model_kind *kind, const char *selector,
                    json_t **ret_items, struct at_err *err) AT_WARN_UNUSED;
/* What a quantity that is text or a number means, in thousandths; 0 when there is none. */
int64_t cli_milli(const json_t *value);
void cli_report(const struct cli *cli, const struct at_err *err); /* "error: ..." on env->err */

/* --- the verbs --- */
enum at_rc cli_api_resources(struct cli *cli, struct at_err *err);
enum at_rc cli_apply(struct cli *cli, struct at_err *err);
enum at_rc cli_backup(struct cli *cli, struct at_err *err);
enum at_rc cli_auth(struct cli *cli, struct at_err *err);
enum at_rc cli_config(struct cli *cli, struct at_err *err);
const char *cli_config_word(size_t i); /* of what config knows; NULL at the end */
enum at_rc cli_record(struct cli *cli, struct at_err *err);
enum at_rc cli_delete(struct cli *cli, struct at_err *err);
enum at_rc cli_describe(struct cli *cli, struct at_err *err);
enum at_rc cli_diff(struct cli *cli, struct at_err *err);
enum at_rc cli_edit(struct cli *cli, struct at_err *err);
enum at_rc cli_events(struct cli *cli, struct at_err *err);
enum at_rc cli_exec(struct cli *cli, struct at_err *err);
enum at_rc cli_explain(struct cli *cli, struct at_err *err);
enum at_rc cli_get(struct cli *cli, struct at_err *err);
enum at_rc cli_help_verb(struct cli *cli, struct at_err *err);
enum at_rc cli_infer(struct cli *cli, struct at_err *err);
enum at_rc cli_key(struct cli *cli, struct at_err *err);
enum at_rc cli_label(struct cli *cli, struct at_err *err);
enum at_rc cli_annotate(struct cli *cli, struct at_err *err);
enum at_rc cli_patch(struct cli *cli, struct at_err *err);
enum at_rc cli_cordon(struct cli *cli, struct at_err *err);
enum at_rc cli_uncordon(struct cli *cli, struct at_err *err);
enum at_rc cli_load(struct cli *cli, struct at_err *err);
enum at_rc cli_logs(struct cli *cli, struct at_err *err);
enum at_rc cli_model(struct cli *cli, struct at_err *err);
enum at_rc cli_plan(struct cli *cli, struct at_err *err);
enum at_rc cli_plan_moves(struct cli *cli, struct at_err *err);
enum at_rc cli_port_forward(struct cli *cli, struct at_err *err);
enum at_rc cli_scan(struct cli *cli, struct at_err *err);
enum at_rc cli_scale(struct cli *cli, struct at_err *err);
enum at_rc cli_secrets(struct cli *cli, struct at_err *err);
enum at_rc cli_revoke(struct cli *cli, struct at_err *err);
enum at_rc cli_token(struct cli *cli, struct at_err *err);
enum at_rc cli_top(struct cli *cli, struct at_err *err);
enum at_rc cli_usage(struct cli *cli, struct at_err *err);
enum at_rc cli_version(struct cli *cli, struct at_err *err);
enum at_rc cli_wait(struct cli *cli, struct at_err *err);

#endif
