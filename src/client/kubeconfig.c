#include "client/kubeconfig.h"
#include "client/limits.h"
#include "core/digest.h"
#include "core/mem.h"
#include "sys/fd.h"
#include "sys/file.h"
#include "sys/sys.h"

#include <ctype.h>
#include <string.h>

/* The strings that the public options point to, and what the plug-in needs to be run again. */
struct loaded {
    struct at_client_kubeconfig config;
    char *server, *ca, *cert, *key, *token, *name, *more_headers, *user_path;
    json_t *exec, *cluster;
    bool interactive;
};

void at_client_kubeconfig_free(struct at_client_kubeconfig *config)
{
    struct loaded *loaded = (struct loaded *)config;
    if (loaded == NULL) {
        return;
    }
    at_free(loaded->config.ns);
    at_free(loaded->config.warning);
    at_free(loaded->server);
    at_free(loaded->ca);
    at_free(loaded->cert);
    at_free(loaded->key);
    at_free(loaded->token);
    at_free(loaded->name);
    at_free(loaded->more_headers);
    at_free(loaded->user_path);
    json_decref(loaded->exec);
    json_decref(loaded->cluster);
    at_free(loaded);
}

char *at_client_kubeconfig_path(const char *path)
{
    const char *env = at_sys_getenv("KUBECONFIG");
    struct at_str rest = at_str_of(env);
    if (path != NULL) {
        return at_strdup(path);
    }
    while (rest.len != 0) {
        struct at_str one = at_str_cut(&rest, ':');
        char *text = at_strndup(one.ptr, one.len);
        if (one.len != 0 && (rest.len == 0 || at_file_exists(text))) {
            return text;
        }
        at_free(text);
    }
    const char *home = at_sys_getenv("HOME");
    return at_asprintf("%s/.kube/config", home != NULL ? home : "");
}

static enum at_rc read_named(const char *config_path, const char *path, char **ret,
                             struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *full = at_kubeconfig_resolve(config_path, path);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = at_file_read(full, AT_CLIENT_KUBECONFIG_BYTES_MAX, &text, err);
    if (rc == AT_OK) {
        rc = at_buf_append(&text, "", 0);
        *ret = text.data != NULL ? at_buf_steal(&text, NULL) : at_strdup("");
    }
    return rc;
}

/* Absent and empty mean the same, as for kubectl. */
static const char *text_of(const json_t *object, const char *field)
{
    const char *text = json_string_value(json_object_get(object, field));
    return text != NULL && text[0] != '\0' ? text : NULL;
}

/* <field>-data in base64, else <field> as a path; *ret stays NULL when neither is there. */
static enum at_rc read_pem(const char *config_path, const json_t *object, const char *field,
                           char **ret, struct at_err *err)
{
    char data_field[64];
    snprintf(data_field, sizeof data_field, "%s-data", field);
    const char *data = text_of(object, data_field);
    if (data != NULL) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf text = {.max = AT_CLIENT_KUBECONFIG_BYTES_MAX};
        enum at_rc rc = at_base64_decode(data, strlen(data), &text);
        if (rc != AT_OK) {
            return at_err_set_field(err, AT_INVALID, data_field, "%s is no base64", data_field);
        }
        *ret = text.data != NULL ? at_buf_steal(&text, NULL) : at_strdup("");
        return AT_OK;
    }
    const char *path = text_of(object, field);
    return path != NULL ? read_named(config_path, path, ret, err) : AT_OK;
}

/* A file that is there counts before the token that stands beside it, for it is kept fresh. */
static enum at_rc read_token(const char *config_path, const json_t *user, char **ret,
                             struct at_err *err)
{
    const char *token = text_of(user, "token");
    const char *path = text_of(user, "tokenFile");
    struct at_err own = {0};
    enum at_rc rc = AT_NOT_FOUND;
    if (path != NULL) {
        rc = read_named(config_path, path, ret, &own);
    }
    if (path != NULL && rc == AT_OK) {
        (*ret)[strcspn(*ret, "\r\n")] = '\0';
        return AT_OK;
    }
    if (path != NULL && token == NULL) {
        *err = own;
        return rc;
    }
    *ret = at_strdup(token);
    return AT_OK;
}

/* Of the extension that servers write which share a store: used when the first one fails. */
static void take_more_servers(const json_t *cluster, struct loaded *out)
{
    size_t i;
    const json_t *extension;
    json_array_foreach(json_object_get(cluster, "extensions"), i, extension)
    {
        size_t k;
        const json_t *url;
        if (strcmp(at_json_str_at(extension, "name", ""), "atoll.dev/servers") != 0) {
            continue;
        }
        json_array_foreach(at_json_at(extension, "extension.servers"), k, url)
        {
            const char *text = json_string_value(url);
            if (text != NULL && k < AT_CLIENT_SERVERS_MAX - 1) {
                char *all = at_asprintf("%s,%s", out->server, text);
                at_free(out->server);
                out->server = all;
            }
        }
    }
}

static enum at_rc take_cluster(const char *path, const json_t *cluster, struct loaded *out,
                               struct at_err *err)
{
    if (json_is_true(json_object_get(cluster, "insecure-skip-tls-verify"))) {
        return at_err_set(err, AT_INVALID,
                          "insecure-skip-tls-verify is not supported: give the server's CA in "
                          "certificate-authority-data");
    }
    if (text_of(cluster, "proxy-url") != NULL) {
        return at_err_set(err, AT_UNSUPPORTED,
                          "proxy-url is not supported: name an address that can be reached "
                          "directly as the cluster's server");
    }
    out->server = at_strdup(text_of(cluster, "server"));
    if (out->server == NULL) {
        return at_err_set(err, AT_INVALID, "the cluster has no server address");
    }
    out->name = at_strdup(text_of(cluster, "tls-server-name"));
    take_more_servers(cluster, out);
    return read_pem(path, cluster, "certificate-authority", &out->ca, err);
}

/* --- who somebody acts as --- */

static enum at_rc put_header(struct at_buf *out, const char *name, const char *value,
                             struct at_err *err)
{
    if (value == NULL || value[0] == '\0' || strpbrk(value, "\r\n") != NULL) {
        return at_err_set(err, AT_INVALID, "as: one of the names is empty or holds a line break");
    }
    return at_buf_printf(out, "%s: %s\r\n", name, value);
}

static enum at_rc put_extra(struct at_buf *out, const char *key, const json_t *values,
                            struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf name = {0};
    enum at_rc rc = at_buf_append_str(&name, "Impersonate-Extra-");
    rc = rc == AT_OK ? at_client_escape(key, &name) : rc;
    for (size_t i = 0; i < json_array_size(values) && rc == AT_OK; i++) {
        rc = put_header(out, name.data, json_string_value(json_array_get(values, i)), err);
    }
    return rc;
}

static enum at_rc take_impersonation(const json_t *user,
                                     const struct at_client_kubeconfig_choice *choice,
                                     struct loaded *out, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    const char *as = choice->as != NULL ? choice->as : text_of(user, "as");
    const json_t *groups = choice->as != NULL ? NULL : json_object_get(user, "as-groups");
    const char *uid = choice->as != NULL ? NULL : text_of(user, "as-uid");
    const char *key;
    json_t *values;
    enum at_rc rc = AT_OK;
    if (as == NULL) {
        bool more = choice->n_as_groups != 0 || json_array_size(groups) != 0 || uid != NULL;
        return more ? at_err_set(err, AT_BAD_REQUEST, "a group to act as needs a user: --as NAME")
                    : AT_OK;
    }
    rc = put_header(&text, "Impersonate-User", as, err);
    for (size_t i = 0; i < json_array_size(groups) && rc == AT_OK; i++) {
        rc = put_header(&text, "Impersonate-Group", json_string_value(json_array_get(groups, i)),
                        err);
    }
    for (size_t i = 0; i < choice->n_as_groups && rc == AT_OK; i++) {
        rc = put_header(&text, "Impersonate-Group", choice->as_groups[i], err);
    }
    if (rc == AT_OK && uid != NULL) {
        rc = put_header(&text, "Impersonate-Uid", uid, err);
    }
    json_t *extra = choice->as != NULL ? NULL : json_object_get(user, "as-user-extra");
    json_object_foreach(extra, key, values)
    {
        rc = rc == AT_OK ? put_extra(&text, key, values, err) : rc;
    }
    if (rc == AT_OK) {
        out->more_headers = at_buf_steal(&text, NULL);
    }
    return rc;
}

/* --- the user --- */

static void credential_take(struct loaded *out, struct at_kubeconfig_credential *c)
{
    at_free(out->token);
    out->token = c->token;
    if (c->cert_pem != NULL) {
        at_free(out->cert);
        at_free(out->key);
        out->cert = c->cert_pem;
        out->key = c->key_pem;
    }
    out->config.expires_wall_ns = c->expires_wall_ns;
    out->config.options.token = out->token;
    out->config.options.cert_pem = out->cert;
    out->config.options.key_pem = out->key;
}

static enum at_rc plugin_run(struct loaded *out, struct at_err *err)
{
    struct at_kubeconfig_credential c = {0};
    enum at_rc rc =
        at_kubeconfig_exec(out->user_path, out->exec, out->cluster, out->interactive, &c, err);
    if (rc == AT_OK) {
        credential_take(out, &c);
    }
    return rc;
}

/* What a plug-in is told of the cluster. */
static json_t *cluster_told(const json_t *cluster, const struct loaded *out)
{
    json_t *told = json_object();
    AT_CLEANUP(at_cleanup_buf) struct at_buf ca = {0};
    json_object_set_new(told, "server", json_string(text_of(cluster, "server")));
    if (out->name != NULL) {
        json_object_set_new(told, "tls-server-name", json_string(out->name));
    }
    if (out->ca != NULL && at_base64_encode(out->ca, strlen(out->ca), &ca) == AT_OK) {
        json_object_set_new(told, "certificate-authority-data", json_string(ca.data));
    }
    size_t at;
    json_t *extension;
    json_array_foreach(json_object_get(cluster, "extensions"), at, extension)
    {
        if (strcmp(at_json_str_at(extension, "name", ""), "client.authentication.k8s.io/exec") ==
            0) {
            json_object_set(told, "config", json_object_get(extension, "extension"));
        }
    }
    return told;
}

/* The provider "oidc" of old kubectls keeps a token in the file; nothing else of it is done here.
 */
static enum at_rc take_provider(const json_t *provider, struct loaded *out, struct at_err *err)
{
    const char *name = at_json_str_at(provider, "name", "");
    const char *token = at_json_str_at(provider, "config.id-token", NULL);
    if (strcmp(name, "oidc") != 0 || token == NULL) {
        return at_err_set(err, AT_UNSUPPORTED,
                          "the user's auth-provider \"%s\" is not supported (nor by kubectl from "
                          "1.26 on, but for oidc with an id-token); use an exec plug-in or a token",
                          name);
    }
    out->token = at_strdup(token);
    return AT_OK;
}

static enum at_rc take_user(const char *path, const json_t *user, const json_t *cluster,
                            struct loaded *out, struct at_err *err)
{
    enum at_rc rc = read_pem(path, user, "client-certificate", &out->cert, err);
    if (rc == AT_OK) {
        rc = read_pem(path, user, "client-key", &out->key, err);
    }
    if (rc == AT_OK && (out->cert == NULL) != (out->key == NULL)) {
        rc = at_err_set(err, AT_INVALID, "a client certificate needs its key, and the reverse");
    }
    if (rc == AT_OK) {
        rc = read_token(path, user, &out->token, err);
    }
    const json_t *exec = json_object_get(user, "exec");
    const json_t *provider = json_object_get(user, "auth-provider");
    bool has = out->cert != NULL || out->token != NULL;
    if (rc != AT_OK) {
        return rc;
    }
    if (json_is_object(exec)) {
        /* Its token comes before one that stands in the file; a certificate there is kept. */
        out->exec = json_incref((json_t *)exec);
        out->cluster = cluster_told(cluster, out);
        out->user_path = at_strdup(path);
        out->interactive = at_fd_is_terminal(0);
        return plugin_run(out, err);
    }
    if (json_is_object(provider) && !has) {
        return take_provider(provider, out, err);
    }
    if (!has && text_of(user, "username") != NULL) {
        return at_err_set(err, AT_UNSUPPORTED,
                          "this user has a name and a password, which no server takes any more; "
                          "use a token, a client certificate or an exec plug-in");
    }
    return AT_OK;
}

static enum at_rc take_context(const struct at_kubeconfig *kc,
                               const struct at_client_kubeconfig_choice *choice, struct loaded *out,
                               struct at_err *err)
{
    const char *name = choice->context != NULL ? choice->context : at_kubeconfig_current(kc);
    struct at_kubeconfig_file *cluster_file = NULL;
    struct at_kubeconfig_file *user_file = NULL;
    if (name[0] == '\0') {
        return at_err_set(err, AT_INVALID,
                          "no current-context; choose one with --context, or for good with atoll "
                          "config use-context");
    }
    const json_t *chosen = at_kubeconfig_entry(kc, AT_KUBECONFIG_CONTEXTS, name, NULL);
    if (chosen == NULL) {
        return at_err_set(err, AT_NOT_FOUND,
                          "there is no context \"%s\"; atoll config get-contexts lists them", name);
    }
    const char *cluster_name = at_json_str_at(chosen, "cluster", "");
    const char *user_name = at_json_str_at(chosen, "user", "");
    const json_t *cluster =
        at_kubeconfig_entry(kc, AT_KUBECONFIG_CLUSTERS, cluster_name, &cluster_file);
    const json_t *user = at_kubeconfig_entry(kc, AT_KUBECONFIG_USERS, user_name, &user_file);
    if (cluster == NULL) {
        return at_err_set(err, AT_NOT_FOUND, "context \"%s\" names the unknown cluster \"%s\"",
                          name, cluster_name);
    }
    if (user == NULL && user_name[0] != '\0' && user_file == NULL) {
        return at_err_set(err, AT_NOT_FOUND, "context \"%s\" names the unknown user \"%s\"", name,
                          user_name);
    }
    const char *ns = text_of(chosen, "namespace");
    out->config.ns = at_strdup(ns != NULL ? ns : "default");
    enum at_rc rc = take_cluster(cluster_file->path, cluster, out, err);
    if (rc == AT_OK && user != NULL) {
        rc = take_user(user_file->path, user, cluster, out, err);
    }
    return rc == AT_OK ? take_impersonation(user, choice, out, err) : rc;
}

static char *warning_of(const struct at_kubeconfig *kc)
{
    for (size_t i = 0; i < kc->n; i++) {
        if (kc->files[i].readable_by_more) {
            return at_asprintf("%s holds a secret, and others than its owner may read it; "
                               "chmod 600 %s",
                               kc->files[i].path, kc->files[i].path);
        }
    }
    return NULL;
}

static bool none_exists(const struct at_kubeconfig *kc)
{
    for (size_t i = 0; i < kc->n; i++) {
        if (kc->files[i].exists) {
            return false;
        }
    }
    return true;
}

enum at_rc at_client_kubeconfig_choose(const struct at_client_kubeconfig_choice *choice,
                                       struct at_client_kubeconfig **ret, struct at_err *err)
{
    struct at_kubeconfig *kc = NULL;
    enum at_rc rc = at_kubeconfig_read(choice->path, false, &kc, err);
    if (rc != AT_OK) {
        return rc;
    }
    struct loaded *loaded = AT_NEW(struct loaded);
    const char *where = at_kubeconfig_default_file(kc)->path;
    rc = none_exists(kc) ? at_err_set(err, AT_NOT_FOUND, "there is no such file")
                         : take_context(kc, choice, loaded, err);
    if (rc != AT_OK) {
        at_err_wrap(err, rc, "kubeconfig %s", where);
        at_kubeconfig_free(kc);
        at_client_kubeconfig_free(&loaded->config);
        return rc;
    }
    loaded->config.warning = warning_of(kc);
    loaded->config.options = (struct at_client_options){.server = loaded->server,
                                                        .prefer_first = true,
                                                        .ca_pem = loaded->ca,
                                                        .cert_pem = loaded->cert,
                                                        .key_pem = loaded->key,
                                                        .token = loaded->token,
                                                        .tls_server_name = loaded->name,
                                                        .more_headers = loaded->more_headers};
    at_kubeconfig_free(kc);
    *ret = &loaded->config;
    return AT_OK;
}

enum at_rc at_client_kubeconfig_load(const char *path, const char *context,
                                     struct at_client_kubeconfig **ret, struct at_err *err)
{
    return at_client_kubeconfig_choose(
        &(struct at_client_kubeconfig_choice){.path = path, .context = context}, ret, err);
}

bool at_client_kubeconfig_has_plugin(const struct at_client_kubeconfig *config)
{
    return ((const struct loaded *)config)->exec != NULL;
}

enum at_rc at_client_kubeconfig_refresh(struct at_client_kubeconfig *config,
                                        struct at_client *client, struct at_err *err)
{
    struct loaded *loaded = (struct loaded *)config;
    enum at_rc rc = loaded->exec != NULL
                        ? plugin_run(loaded, err)
                        : at_err_set(err, AT_UNSUPPORTED, "the credentials come from no plug-in");
    if (rc == AT_OK) {
        rc = at_client_set_token(client, loaded->token, err);
    }
    if (rc == AT_OK && loaded->cert != NULL) {
        rc = at_client_set_identity(client, loaded->cert, loaded->key, err);
    }
    return rc;
}
