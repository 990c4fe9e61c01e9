/* Exec plug-ins: a program that prints a credential (client.authentication.k8s.io/v1, v1beta1). */
#include "client/kubeconfig.h"
#include "client/limits.h"
#include "core/mem.h"
#include "loop/loop.h"
#include "sys/fd.h"

#include <assert.h>
#include <signal.h>
#include <string.h>

#define GROUP "client.authentication.k8s.io/"
#define ARGS_MAX 256
#define ENV_MAX 4096

void at_kubeconfig_credential_done(struct at_kubeconfig_credential *c)
{
    at_free(c->token);
    at_free(c->cert_pem);
    at_free(c->key_pem);
    *c = (struct at_kubeconfig_credential){0};
}

/* --- what it printed --- */

static enum at_rc take_credential(const json_t *root, struct at_kubeconfig_credential *out,
                                  struct at_err *err)
{
    const json_t *status = json_object_get(root, "status");
    const char *token = at_json_str_at(status, "token", NULL);
    const char *cert = at_json_str_at(status, "clientCertificateData", NULL);
    const char *key = at_json_str_at(status, "clientKeyData", NULL);
    const char *expires = at_json_str_at(status, "expirationTimestamp", NULL);
    if ((cert == NULL) != (key == NULL)) {
        return at_err_set(err, AT_INVALID, "it gave a certificate without its key, or the reverse");
    }
    if ((token == NULL || token[0] == '\0') && cert == NULL) {
        return at_err_set(err, AT_INVALID, "it gave neither a token nor a certificate");
    }
    if (token != NULL && strpbrk(token, "\r\n") != NULL) {
        return at_err_set(err, AT_INVALID, "the token that it gave holds a line break");
    }
    if (expires != NULL && at_time_parse(expires, &out->expires_wall_ns, NULL) != AT_OK) {
        return at_err_set(err, AT_INVALID, "its expirationTimestamp is no time");
    }
    out->token = token != NULL && token[0] != '\0' ? at_strdup(token) : NULL;
    out->cert_pem = at_strdup(cert);
    out->key_pem = at_strdup(key);
    return AT_OK;
}

enum at_rc at_kubeconfig_credential_parse(const char *text, size_t len, const char *api_version,
                                          struct at_kubeconfig_credential *ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *root = NULL;
    struct at_kubeconfig_credential out = {0};
    if (at_json_parse(text, len, &root, NULL) != AT_OK) {
        root = NULL;
        return at_err_set(err, AT_INVALID, "what it printed is no JSON"); /* may be a secret */
    }
    if (strcmp(at_json_str_at(root, "kind", ""), "ExecCredential") != 0) {
        return at_err_set(err, AT_INVALID, "what it printed is no ExecCredential");
    }
    if (strcmp(at_json_str_at(root, "apiVersion", ""), api_version) != 0) {
        return at_err_set(err, AT_INVALID, "it answered in %s, not in %s",
                          at_json_str_at(root, "apiVersion", "no version"), api_version);
    }
    enum at_rc rc = take_credential(root, &out, err);
    if (rc == AT_OK) {
        *ret = out;
    }
    return rc;
}

/* --- running it --- */

struct run {
    struct at_loop *loop;
    struct at_process process;
    struct at_buf out;
    int fd;
    at_watch_id watch;
    bool eof, ended, too_large;
    int exit_code;
};

static void on_output(void *ctx, int fd, unsigned events)
{
    struct run *r = ctx;
    char piece[4096];
    size_t n = 0;
    (void)events;
    enum at_rc rc = at_fd_read(fd, piece, sizeof piece, &n);
    if (rc == AT_OK) {
        r->too_large = r->too_large || at_buf_append(&r->out, piece, n) != AT_OK;
    } else if (rc != AT_AGAIN) {
        at_loop_unwatch(r->loop, r->watch);
        r->eof = true;
    }
}

static void on_end(void *ctx, pid_t pid, int exit_code, int signal_number)
{
    struct run *r = ctx;
    (void)pid;
    r->ended = true;
    r->exit_code = signal_number > 0 ? 128 + signal_number : exit_code;
}

static enum at_rc run_to_end(struct run *r, struct at_err *err)
{
    int64_t deadline = at_sys_mono_ns(at_sys_real()) + AT_CLIENT_PLUGIN_NS_MAX;
    r->loop = at_loop_new(at_sys_real());
    r->out.max = AT_CLIENT_PLUGIN_BYTES_MAX;
    r->watch = at_loop_watch(r->loop, r->fd, AT_LOOP_READ, on_output, r);
    enum at_rc rc = at_loop_child(r->loop, &r->process, on_end, r);
    if (rc != AT_OK) {
        at_process_signal(&r->process, SIGKILL);
        at_err_set(err, rc, "it cannot be watched");
    }
    while (rc == AT_OK && !(r->eof && r->ended) && at_sys_mono_ns(at_sys_real()) < deadline) {
        at_loop_turn(r->loop, deadline);
        if (r->ended && !r->eof) {
            on_output(r, r->fd, 0); /* a grandchild may hold the pipe: what is there is enough */
            r->eof = r->out.len != 0;
        }
    }
    if (rc == AT_OK && !r->ended) {
        at_process_signal(&r->process, SIGKILL);
        rc = at_err_set(err, AT_TIMEOUT, "it did not end within %lld s",
                        (long long)(AT_CLIENT_PLUGIN_NS_MAX / AT_NS_PER_S));
    }
    at_loop_free(r->loop);
    if (rc == AT_OK && r->exit_code != 0) {
        rc = at_err_set(err, AT_UNAUTHENTICATED, "it ended with status %d", r->exit_code);
    }
    if (rc == AT_OK && r->too_large) {
        rc = at_err_set(err, AT_TOO_LARGE, "it printed more than %zu bytes",
                        AT_CLIENT_PLUGIN_BYTES_MAX);
    }
    return rc;
}

/* The environment: ours, then what the section sets, then what is asked of the program. */
static const char **environment(const json_t *exec, char *info_take, json_t *keep)
{
    const char **all = at_alloc((ENV_MAX + 1) * sizeof *all);
    const char *const *own = at_sys_environ();
    size_t n = 0;
    size_t at;
    json_t *pair;
    while (own[n] != NULL && n < ENV_MAX - AT_CLIENT_PLUGIN_ENV_MAX - 1) {
        all[n] = own[n];
        n++;
    }
    json_array_foreach(json_object_get(exec, "env"), at, pair)
    {
        if (at == AT_CLIENT_PLUGIN_ENV_MAX) {
            break;
        }
        AT_CLEANUP(at_cleanup_free)
        char *text = at_asprintf("%s=%s", at_json_str_at(pair, "name", ""),
                                 at_json_str_at(pair, "value", ""));
        json_t *kept = json_string(text);
        if (kept != NULL) {
            json_array_append_new(keep, kept);
            all[n++] = json_string_value(kept);
        }
    }
    all[n++] = info_take;
    /* Of names that are set twice the last one counts. */
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        size_t len = strcspn(all[i], "=") + 1;
        bool again = false;
        for (size_t k = i + 1; k < n && !again; k++) {
            again = strncmp(all[i], all[k], len) == 0;
        }
        if (!again) {
            all[kept++] = all[i];
        }
    }
    all[kept] = NULL;
    return all;
}

static char *exec_info(const json_t *exec, const char *api_version, const json_t *cluster,
                       bool interactive)
{
    AT_CLEANUP(at_cleanup_json)
    json_t *info = json_pack("{s:s, s:s, s:{s:b}}", "apiVersion", api_version, "kind",
                             "ExecCredential", "spec", "interactive", (int)interactive);
    if (at_json_bool_at(exec, "provideClusterInfo", false) && cluster != NULL) {
        json_object_set(json_object_get(info, "spec"), "cluster", (json_t *)cluster);
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    return at_json_dump(info, &text) == AT_OK ? at_asprintf("KUBERNETES_EXEC_INFO=%s", text.data)
                                              : at_strdup("KUBERNETES_EXEC_INFO={}");
}

static enum at_rc start(const json_t *exec, const char *command, char *info, bool interactive,
                        struct run *r, struct at_err *err)
{
    const char *argv[ARGS_MAX + 2] = {command};
    size_t n = 1;
    size_t at;
    int fds[2];
    json_t *arg;
    json_array_foreach(json_object_get(exec, "args"), at, arg)
    {
        if (!json_is_string(arg) || n > ARGS_MAX) {
            return at_err_set(err, AT_INVALID, "args: at most %d texts", ARGS_MAX);
        }
        argv[n++] = json_string_value(arg);
    }
    enum at_rc rc = at_fd_pipe(fds, err);
    if (rc != AT_OK) {
        return rc;
    }
    AT_CLEANUP(at_cleanup_json) json_t *keep = json_array();
    const char **envp = environment(exec, info, keep);
    struct at_process_options options = {.argv = argv,
                                         .envp = envp,
                                         .stdin_fd = interactive ? 0 : -1,
                                         .stdout_fd = fds[1],
                                         .stderr_fd = 2,
                                         .uid = -1,
                                         .gid = -1,
                                         .die_with_parent = true};
    rc = at_process_start(&options, false, &r->process, NULL, err);
    at_fd_close(fds[1]);
    at_free(envp);
    r->fd = fds[0];
    if (rc != AT_OK) {
        at_fd_close(fds[0]);
    } else {
        at_fd_set_nonblocking(fds[0]);
    }
    return rc;
}

static enum at_rc check_section(const json_t *exec, bool interactive, struct at_err *err)
{
    const char *version = at_json_str_at(exec, "apiVersion", "");
    const char *mode = at_json_str_at(exec, "interactiveMode", "IfAvailable");
    if (at_json_str_at(exec, "command", "")[0] == '\0') {
        return at_err_set(err, AT_INVALID, "the user's exec section names no command");
    }
    if (strcmp(version, GROUP "v1") != 0 && strcmp(version, GROUP "v1beta1") != 0) {
        return at_err_set(err, AT_UNSUPPORTED, "apiVersion \"%s\": use " GROUP "v1", version);
    }
    if (strcmp(mode, "Always") == 0 && !interactive) {
        return at_err_set(err, AT_UNAUTHENTICATED,
                          "it wants to ask somebody, and standard input is no terminal");
    }
    return AT_OK;
}

enum at_rc at_kubeconfig_exec(const char *config_path, const json_t *exec, const json_t *cluster,
                              bool interactive, struct at_kubeconfig_credential *ret,
                              struct at_err *err)
{
    struct run r = {0};
    const char *command = at_json_str_at(exec, "command", "");
    const char *version = at_json_str_at(exec, "apiVersion", "");
    enum at_rc rc = check_section(exec, interactive, err);
    if (rc != AT_OK) {
        return at_err_wrap(err, rc, "credential plug-in %s", command);
    }
    interactive = interactive && strcmp(at_json_str_at(exec, "interactiveMode", ""), "Never") != 0;
    AT_CLEANUP(at_cleanup_free)
    char *program = strchr(command, '/') != NULL ? at_kubeconfig_resolve(config_path, command)
                                                 : at_strdup(command);
    AT_CLEANUP(at_cleanup_free) char *info = exec_info(exec, version, cluster, interactive);
    rc = start(exec, program, info, interactive, &r, err);
    if (rc == AT_NOT_FOUND) {
        const char *hint = at_json_str_at(exec, "installHint", "");
        return at_err_set(err, rc, "credential plug-in %s is not installed%s%.300s", command,
                          hint[0] != '\0' ? ". " : "", hint);
    }
    if (rc == AT_OK) {
        rc = run_to_end(&r, err);
        at_fd_close(r.fd);
    }
    if (rc == AT_OK) {
        rc = at_kubeconfig_credential_parse(r.out.data != NULL ? r.out.data : "", r.out.len,
                                            version, ret, err);
    }
    at_buf_done(&r.out);
    return rc == AT_OK ? rc : at_err_wrap(err, rc, "credential plug-in %s", command);
}
