/* `atoll model run`: serve a model here, for oneself or as a local runner of a cluster. */
#include "cli/model_priv.h"
#include "cli/waiting.h"
#include "core/str.h"
#include "sys/entry.h"
#include "sys/file.h"

#include <signal.h>
#include <string.h>

#define LEAVE_NS (30 * AT_NS_PER_S)

struct run {
    struct cli *cli;
    struct at_loop *loop;
    struct at_process child;
    const char *folder; /* absolute, with a model.yaml */
    struct at_pkg_model model;
    const char *runner, *file; /* file: absolute */
    bool stop, ended;
    int exit_code, signal_number;
    /* joining */
    const char *node, *deployment, *ns, *state;
};

static void on_signal(void *ctx, int signal_number)
{
    struct run *r = ctx;
    (void)signal_number;
    r->stop = true;
}

static void on_end(void *ctx, pid_t pid, int exit_code, int signal_number)
{
    struct run *r = ctx;
    (void)pid;
    r->ended = true;
    r->exit_code = exit_code;
    r->signal_number = signal_number;
}

static enum at_rc start(struct run *r, const char *const *argv, struct at_err *err)
{
    unsigned lack = 0;
    struct at_process_options options = {.argv = argv,
                                         .envp = at_sys_environ(),
                                         .stdin_fd = -1,
                                         .stdout_fd = 1,
                                         .stderr_fd = 2,
                                         .uid = -1,
                                         .gid = -1,
                                         .new_session = true, /* Ctrl-C is ours to pass on */
                                         .die_with_parent = true};
    enum at_rc rc = at_process_start(&options, false, &r->child, &lack, err);
    if (rc == AT_OK) {
        rc = at_loop_child(r->loop, &r->child, on_end, r);
    }
    return rc;
}

static enum at_rc stop(struct run *r)
{
    int64_t until = at_sys_mono_ns(r->cli->env->sys) + LEAVE_NS;
    if (!r->ended && r->child.pid > 0) {
        at_process_signal(&r->child, SIGTERM);
    }
    while (!r->ended && r->child.pid > 0 && at_sys_mono_ns(r->cli->env->sys) < until) {
        at_loop_turn(r->loop, until);
    }
    if (!r->ended && r->child.pid > 0) {
        at_process_signal_group(&r->child, SIGKILL);
    }
    return AT_OK;
}

/* --- the folder --- */

/* A package is unpacked beside the store, once: its files are second names of the store's. */
static enum at_rc unpacked(struct run *r, struct model_work *w, const char *text,
                           struct at_err *err)
{
    char digest[AT_PKG_DIGEST_BYTES];
    enum at_rc rc = strncmp(text, "oci-", 4) == 0 ? AT_NOT_FOUND : model_find(w, text, digest, err);
    if (rc == AT_NOT_FOUND && (strncmp(text, "oci", 3) == 0 || strchr(text, '/') != NULL)) {
        rc = model_fetch(w, text, NULL, digest, err);
    }
    if (rc == AT_OK && r->cli->values[OPT_KEY].n != 0) {
        char signatures[AT_PKG_DIGEST_BYTES] = "";
        enum at_rc has = model_signatures(w, NULL, digest, signatures, NULL);
        rc = has == AT_OK ? model_verify(w, digest, signatures, err)
                          : at_err_set(err, AT_FORBIDDEN, "%s has no signature", digest);
    }
    if (rc != AT_OK) {
        return rc;
    }
    const char *folder = at_arena_printf(r->cli->arena, "%s/unpacked/%.64s",
                                         at_pkg_store_root(w->store), digest + strlen("sha256:"));
    rc = at_dir_make(at_arena_printf(r->cli->arena, "%s/unpacked", at_pkg_store_root(w->store)),
                     0755, err);
    rc = rc != AT_OK || at_file_exists(folder) ? rc
                                               : at_pkg_unpack(w->store, digest, folder, true, err);
    r->folder = folder;
    return rc == AT_EXISTS ? AT_OK : rc;
}

static enum at_rc folder_of(struct run *r, struct at_err *err)
{
    struct model_work w;
    const char *text = r->cli->args[1];
    if (model_is_folder(text)) {
        AT_CLEANUP(at_cleanup_free) char *yaml = at_asprintf("%s/" AT_PKG_YAML, text);
        struct at_pkg_init init = {.file = cli_value(r->cli, OPT_MODEL_FILE, NULL),
                                   .check = model_check};
        r->folder = text;
        /* A folder that nobody described yet is described now. */
        return at_file_exists(yaml) ? AT_OK : at_pkg_model_init(text, &init, err);
    }
    enum at_rc rc = model_open(r->cli, &w, err);
    if (rc == AT_OK) {
        rc = unpacked(r, &w, text, err);
        model_close(&w);
    }
    return rc;
}

static enum at_rc find(struct run *r, struct at_err *err)
{
    enum at_rc rc = folder_of(r, err);
    rc = rc != AT_OK ? rc : at_pkg_model_read(r->folder, &r->model, err);
    if (rc != AT_OK) {
        return rc;
    }
    r->runner = r->model.runner[0] != '\0'          ? r->model.runner
                : at_streq(r->model.format, "onnx") ? "onnx"
                : at_streq(r->model.format, "gguf") ? "llm"
                                                    : NULL;
    if (r->runner == NULL) {
        return at_err_set(err, AT_UNSUPPORTED,
                          "%s: format other needs a runner (onnx or llm), or an image of your own",
                          AT_PKG_YAML);
    }
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/%s", r->folder, r->model.file);
    AT_CLEANUP(at_cleanup_free) char *real = at_entry_real(path);
    if (real == NULL) {
        return at_err_set(err, AT_NOT_FOUND, "%s is not there", path);
    }
    r->file = at_arena_strdup(r->cli->arena, real);
    return AT_OK;
}

/* --- alone --- */

static enum at_rc outcome(const struct run *r, struct at_err *err)
{
    if (r->stop || r->exit_code == 0) {
        return AT_OK;
    }
    return r->signal_number > 0
               ? at_err_set(err, AT_INTERNAL, "the model server was ended by signal %d",
                            r->signal_number)
               : at_err_set(err, AT_INTERNAL, "the model server ended with status %d (see above)",
                            r->exit_code);
}

static enum at_rc alone(struct run *r, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *exe = at_sys_self_exe();
    const char *listen = cli_value(r->cli, OPT_LISTEN, "127.0.0.1:8080");
    const char *name = cli_value(r->cli, OPT_NAME, r->model.name);
    const char *argv[] = {exe,  "runner",    r->runner,        "--model",  r->file, "--name",
                          name, "--version", r->model.version, "--listen", listen,  NULL};
    fprintf(r->cli->env->err, "serving %s by %s; Ctrl-C ends it\n", name,
            at_streq(r->runner, "llm")
                ? "OpenAI's protocol (POST /v1/chat/completions)"
                : "the Open Inference Protocol (POST /v2/models/NAME/infer)");
    fflush(r->cli->env->err);
    enum at_rc rc = start(r, argv, err);
    while (rc == AT_OK && !r->stop && !r->ended && at_loop_turn(r->loop, INT64_MAX)) {
    }
    if (rc == AT_OK) {
        rc = stop(r);
        rc = rc != AT_OK ? rc : outcome(r, err);
    }
    return rc;
}

/* --- as a local runner --- */

/* The site of --site, or the only one there is. */
static enum at_rc site_of(struct run *r, const char **ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *items = NULL;
    const char *told = cli_value(r->cli, OPT_SITE, NULL);
    if (told != NULL) {
        *ret = told;
        return AT_OK;
    }
    enum at_rc rc = cli_list(r->cli, &AT_KIND_SITE, NULL, &items, err);
    if (rc != AT_OK) {
        items = NULL;
        return rc;
    }
    if (json_array_size(items) != 1) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "which site is this machine at? --site NAME (atoll "
                          "get sites)");
    }
    *ret = at_arena_strdup(r->cli->arena,
                           at_json_str_at(json_array_get(items, 0), "metadata.name", ""));
    return AT_OK;
}

/* A join token of one's own making, into a file that only we can read. */
static enum at_rc token_make(struct run *r, const char **ret_file, const char **ret_pin,
                             struct at_err *err)
{
    const char *site = NULL;
    AT_CLEANUP(at_cleanup_json) json_t *answer = NULL;
    enum at_rc rc = site_of(r, &site, err);
    if (rc != AT_OK) {
        return rc;
    }
    AT_CLEANUP(at_cleanup_json)
    json_t *request = json_pack("{ssssss}", "role", "agent", "site", site, "ttl", "10m");
    rc = cli_call(r->cli, AT_HTTP_POST, "/join/v1/tokens", NULL, NULL, request, &answer, err);
    if (rc != AT_OK) {
        answer = NULL;
        return at_err_wrap(err, rc,
                           "a join token (an administrator makes one with atoll token create; give "
                           "it by --token-file and --ca-pin)");
    }
    const char *token = at_json_str_at(answer, "token", "");
    *ret_pin = at_arena_strdup(r->cli->arena, at_json_str_at(answer, "caPin", ""));
    *ret_file = at_arena_printf(r->cli->arena, "%s/join.token", r->state);
    return at_file_write_atomic(*ret_file, token, strlen(token), 0600, err);
}

static json_t *deployment_json(const struct run *r)
{
    const char *name = cli_value(r->cli, OPT_NAME, r->model.name);
    const char *uri = at_arena_printf(r->cli->arena, "file://%s", r->file);
    json_t *workload = json_pack("{s:s,s:{s:s,s:s,s:s,s:s},s:{s:{s:s}}}", "runner", r->runner,
                                 "model", "name", name, "version", r->model.version, "uri", uri,
                                 "format", at_streq(r->runner, "llm") ? "gguf" : "onnx",
                                 "placement", "nodeSelector", "atoll.dev/local-runner", r->node);
    const json_t *resources = json_object_get(r->model.json, "resources");
    if (json_object_size(resources) > 0) {
        json_object_set(workload, "resources", (json_t *)resources);
    }
    if (r->model.data_class[0] != '\0') {
        json_object_set_new(workload, "dataClass", json_string(r->model.data_class));
    }
    return json_pack("{s:s,s:s,s:{s:s,s:{s:s}},s:{s:i,s:{s:s},s:{s:{s:{s:s}},s:o}}}", "apiVersion",
                     "atoll.dev/v1", "kind", "Deployment", "metadata", "name", r->deployment,
                     "labels", "atoll.dev/local-runner", r->node, "spec", "replicas", 1, "traffic",
                     "model", name, "template", "metadata", "labels", "atoll.dev/local-runner",
                     r->node, "spec", workload);
}

static enum at_rc agent_start(struct run *r, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *exe = at_sys_self_exe();
    const char *pin = cli_value(r->cli, OPT_CA_PIN, NULL);
    const char *file = cli_value(r->cli, OPT_JOIN_TOKEN, NULL);
    const char *server = cli_value(r->cli, OPT_JOIN, "");
    enum at_rc rc = AT_OK;
    if ((file == NULL) != (pin == NULL)) {
        return at_err_set(err, AT_BAD_REQUEST, "--token-file and --ca-pin go together");
    }
    if (file == NULL) {
        rc = token_make(r, &file, &pin, err);
    }
    server = server[0] != '\0' && !at_streq(server, "kubeconfig") ? server
                                                                  : r->cli->config->options.server;
    const char *label = at_arena_printf(r->cli->arena, "atoll.dev/local-runner=%s", r->node);
    const char *host = cli_value(r->cli, OPT_LISTEN, "127.0.0.1");
    const char *argv[] = {exe,
                          "agent",
                          "--server",
                          server,
                          "--token-file",
                          file,
                          "--ca-pin",
                          pin,
                          "--name",
                          r->node,
                          "--state",
                          r->state,
                          "--listen-host",
                          host,
                          "--label",
                          label,
                          "--stop-instances",
                          NULL};
    return rc != AT_OK ? rc : start(r, argv, err);
}

/* Until the Node is there. */
static enum at_rc wait_node(struct run *r, struct at_err *err)
{
    const char *path = cli_path_in(r->cli, &AT_KIND_NODE, NULL, r->node, NULL);
    int64_t until = at_sys_mono_ns(r->cli->env->sys) + LEAVE_NS;
    for (;;) {
        json_t *node = NULL;
        struct at_err why = {0};
        enum at_rc rc = cli_call(r->cli, AT_HTTP_GET, path, NULL, NULL, NULL, &node, &why);
        if (rc == AT_OK) {
            json_decref(node);
            return AT_OK;
        }
        if (r->ended || r->stop || at_sys_mono_ns(r->cli->env->sys) > until) {
            return r->stop
                       ? at_err_set(err, AT_CANCELLED, "stopped")
                       : at_err_set(err, AT_UNAVAILABLE,
                                    "this machine did not join (the agent's own words are above)");
        }
        at_loop_turn(r->loop, at_sys_mono_ns(r->cli->env->sys) + 100 * AT_NS_PER_MS);
    }
}

/* Everything that was made goes again; the first error is told, all are tried. */
static void leave(struct run *r, bool deployed)
{
    struct at_err ignored = {0};
    json_t *answer = NULL;
    fprintf(r->cli->env->err, "leaving\n");
    if (deployed) {
        const char *path = cli_path_in(r->cli, &AT_KIND_DEPLOYMENT, r->ns, r->deployment, NULL);
        struct cli_condition gone = {.what = CLI_UNTIL_DELETED};
        int64_t until = at_sys_mono_ns(r->cli->env->sys) + LEAVE_NS;
        AT_CLEANUP(at_cleanup_json)
        json_t *options = json_pack("{ss}", "propagationPolicy", "Foreground");
        enum at_rc rc =
            cli_call(r->cli, AT_HTTP_DELETE, path, NULL, NULL, options, &answer, &ignored);
        json_decref(rc == AT_OK ? answer : NULL);
        rc = rc != AT_OK ? rc
                         : cli_wait_until(r->cli, &AT_KIND_DEPLOYMENT, r->ns, r->deployment, &gone,
                                          until, &ignored);
        if (rc != AT_OK && rc != AT_NOT_FOUND) {
            cli_report(r->cli, &ignored);
        }
    }
    enum at_rc rc = stop(r);
    answer = NULL;
    rc = rc != AT_OK ? rc
                     : cli_call(r->cli, AT_HTTP_DELETE,
                                cli_path_in(r->cli, &AT_KIND_NODE, NULL, r->node, NULL), NULL, NULL,
                                NULL, &answer, &ignored);
    json_decref(rc == AT_OK ? answer : NULL);
    if (rc != AT_OK && rc != AT_NOT_FOUND) {
        cli_report(r->cli, &ignored);
    }
}

static enum at_rc joined(struct run *r, bool *ret_deployed, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *deployment = deployment_json(r);
    json_t *answer = NULL;
    enum at_rc rc = wait_node(r, err);
    if (rc == AT_OK) {
        rc = cli_call(r->cli, AT_HTTP_POST,
                      cli_path_in(r->cli, &AT_KIND_DEPLOYMENT, r->ns, NULL, NULL), NULL, NULL,
                      deployment, &answer, err);
        json_decref(rc == AT_OK ? answer : NULL);
    }
    if (rc == AT_OK) {
        *ret_deployed = true;
        fprintf(r->cli->env->err,
                "this machine is node %s and serves deployment %s; Ctrl-C leaves the cluster\n",
                r->node, r->deployment);
        fflush(r->cli->env->err);
    }
    while (rc == AT_OK && !r->stop && !r->ended && at_loop_turn(r->loop, INT64_MAX)) {
    }
    if (rc == AT_OK && r->ended && !r->stop) {
        rc = at_err_set(err, AT_INTERNAL, "the agent ended with status %d (see above)",
                        r->exit_code);
    }
    return rc;
}

static void names_make(struct run *r)
{
    unsigned char noise[3];
    char host[40] = "";
    const char *from = at_sys_hostname();
    for (size_t i = 0; from[i] != '\0' && i + 1 < sizeof host; i++) {
        bool good = (from[i] >= 'a' && from[i] <= 'z') || (from[i] >= '0' && from[i] <= '9');
        host[i] = good ? from[i] : '-';
        host[i + 1] = '\0';
    }
    at_sys_random(r->cli->env->sys, noise, sizeof noise);
    r->node =
        at_arena_printf(r->cli->arena, "local-%s-%02x%02x%02x", host, noise[0], noise[1], noise[2]);
    r->deployment = r->node;
    r->state = at_arena_printf(r->cli->arena, "%s/atoll-%s",
                               at_sys_getenv("TMPDIR") != NULL ? at_sys_getenv("TMPDIR") : "/tmp",
                               r->node);
}

static enum at_rc join(struct run *r, struct at_err *err)
{
    bool deployed = false;
    names_make(r);
    enum at_rc rc = cli_connect(r->cli, err);
    if (rc != AT_OK) {
        return rc;
    }
    r->ns = r->cli->ns;
    at_loop_free(r->loop);
    r->loop = r->cli->loop;
    rc = at_loop_signal(r->loop, SIGINT, on_signal, r, err);
    rc = rc != AT_OK ? rc : at_loop_signal(r->loop, SIGTERM, on_signal, r, err);
    rc = rc != AT_OK ? rc : at_dir_make(r->state, 0700, err);
    rc = rc != AT_OK ? rc : agent_start(r, err);
    if (rc == AT_OK) {
        rc = joined(r, &deployed, err);
        leave(r, deployed);
    }
    enum at_rc ignored = at_tree_remove(r->state, NULL);
    (void)ignored;
    r->loop = NULL; /* the session's */
    return rc;
}

enum at_rc model_run(struct cli *cli, struct at_err *err)
{
    struct run r = {.cli = cli};
    enum at_rc rc = find(&r, err);
    if (rc == AT_OK) {
        r.loop = at_loop_new(cli->env->sys);
        if (cli->values[OPT_JOIN].n != 0) {
            rc = join(&r, err);
        } else {
            rc = at_loop_signal(r.loop, SIGINT, on_signal, &r, err);
            rc = rc != AT_OK ? rc : at_loop_signal(r.loop, SIGTERM, on_signal, &r, err);
            rc = rc != AT_OK ? rc : alone(&r, err);
        }
        at_loop_free(r.loop);
    }
    at_pkg_model_done(&r.model);
    return rc;
}
