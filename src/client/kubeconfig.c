#include "client/client.h"

#include "client/limits.h"
#include "core/digest.h"
#include "core/mem.h"
#include "core/yaml.h"
#include "sys/file.h"
#include "sys/sys.h"

#include <string.h>

/* The strings that the public options point to. */
struct loaded {
    struct at_client_kubeconfig config;
    char *server, *ca, *cert, *key, *token;
};

void at_client_kubeconfig_free(struct at_client_kubeconfig *config)
{
    struct loaded *loaded = (struct loaded *)config;
    if (loaded == NULL) {
        return;
    }
    at_free(loaded->config.ns);
    at_free(loaded->server);
    at_free(loaded->ca);
    at_free(loaded->cert);
    at_free(loaded->key);
    at_free(loaded->token);
    at_free(loaded);
}

static char *default_path(void)
{
    const char *env = at_sys_getenv("KUBECONFIG");
    struct at_str rest = at_str_of(env);
    while (rest.len != 0) {
        struct at_str one = at_str_cut(&rest, ':');
        char *path = at_strndup(one.ptr, one.len);
        if (one.len != 0 && (rest.len == 0 || at_file_exists(path))) {
            return path;
        }
        at_free(path);
    }
    const char *home = at_sys_getenv("HOME");
    return at_asprintf("%s/.kube/config", home != NULL ? home : "");
}

char *at_client_kubeconfig_path(const char *path)
{
    return path != NULL ? at_strdup(path) : default_path();
}

/* The entry called name of a list such as clusters: its inner object, or NULL. */
static const json_t *named(const json_t *root, const char *list, const char *name,
                           const char *inner)
{
    size_t at;
    json_t *item;
    json_array_foreach(json_object_get(root, list), at, item)
    {
        if (strcmp(at_json_str_at(item, "name", ""), name) == 0) {
            return json_object_get(item, inner);
        }
    }
    return NULL;
}

/* A file named in the kubeconfig, relative to the kubeconfig's folder. */
static enum at_rc read_named(const char *config_path, const char *path, char **ret,
                             struct at_err *err)
{
    const char *slash = strrchr(config_path, '/');
    AT_CLEANUP(at_cleanup_free)
    char *full = path[0] == '/' || slash == NULL
                     ? at_strdup(path)
                     : at_asprintf("%.*s/%s", (int)(slash - config_path), config_path, path);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = at_file_read(full, AT_CLIENT_KUBECONFIG_BYTES_MAX, &text, err);
    if (rc == AT_OK) {
        *ret = at_buf_steal(&text, NULL);
    }
    return rc;
}

/* <field>-data in base64, else <field> as a path; *ret stays NULL when neither is there. */
static enum at_rc read_pem(const char *config_path, const json_t *object, const char *field,
                           char **ret, struct at_err *err)
{
    char data_field[64];
    snprintf(data_field, sizeof data_field, "%s-data", field);
    const char *data = json_string_value(json_object_get(object, data_field));
    if (data != NULL) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf text = {.max = AT_CLIENT_KUBECONFIG_BYTES_MAX};
        enum at_rc rc = at_base64_decode(data, strlen(data), &text);
        if (rc != AT_OK) {
            return at_err_set_field(err, AT_INVALID, data_field, "%s is no base64", data_field);
        }
        *ret = at_buf_steal(&text, NULL);
        return AT_OK;
    }
    const char *path = json_string_value(json_object_get(object, field));
    return path != NULL ? read_named(config_path, path, ret, err) : AT_OK;
}

static enum at_rc read_token(const char *config_path, const json_t *user, char **ret,
                             struct at_err *err)
{
    const char *token = json_string_value(json_object_get(user, "token"));
    const char *path = json_string_value(json_object_get(user, "tokenFile"));
    if (token != NULL) {
        *ret = at_strdup(token);
        return AT_OK;
    }
    if (path == NULL) {
        return AT_OK;
    }
    enum at_rc rc = read_named(config_path, path, ret, err);
    if (rc == AT_OK) {
        (*ret)[strcspn(*ret, "\r\n")] = '\0';
    }
    return rc;
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
    out->server = at_strdup(at_json_str_at(cluster, "server", NULL));
    if (out->server == NULL) {
        return at_err_set(err, AT_INVALID, "the cluster has no server address");
    }
    take_more_servers(cluster, out);
    return read_pem(path, cluster, "certificate-authority", &out->ca, err);
}

static enum at_rc take_user(const char *path, const json_t *user, struct loaded *out,
                            struct at_err *err)
{
    if (json_object_get(user, "exec") != NULL || json_object_get(user, "auth-provider") != NULL) {
        return at_err_set(err, AT_UNSUPPORTED,
                          "this user gets its credentials from a plug-in, which is not supported; "
                          "use a token or a client certificate");
    }
    enum at_rc rc = read_pem(path, user, "client-certificate", &out->cert, err);
    if (rc == AT_OK) {
        rc = read_pem(path, user, "client-key", &out->key, err);
    }
    if (rc == AT_OK && (out->cert == NULL) != (out->key == NULL)) {
        rc = at_err_set(err, AT_INVALID, "a client certificate needs its key, and the reverse");
    }
    return rc == AT_OK ? read_token(path, user, &out->token, err) : rc;
}

static enum at_rc take_context(const char *path, const json_t *root, const char *context,
                               struct loaded *out, struct at_err *err)
{
    const char *name = context != NULL ? context : at_json_str_at(root, "current-context", "");
    if (name[0] == '\0') {
        return at_err_set(err, AT_INVALID, "no current-context; choose one with --context");
    }
    const json_t *chosen = named(root, "contexts", name, "context");
    if (chosen == NULL) {
        return at_err_set(err, AT_NOT_FOUND, "there is no context \"%s\"", name);
    }
    const char *cluster_name = at_json_str_at(chosen, "cluster", "");
    const char *user_name = at_json_str_at(chosen, "user", "");
    const json_t *cluster = named(root, "clusters", cluster_name, "cluster");
    const json_t *user = named(root, "users", user_name, "user");
    if (cluster == NULL) {
        return at_err_set(err, AT_NOT_FOUND, "context \"%s\" names the unknown cluster \"%s\"",
                          name, cluster_name);
    }
    if (user == NULL && user_name[0] != '\0') {
        return at_err_set(err, AT_NOT_FOUND, "context \"%s\" names the unknown user \"%s\"", name,
                          user_name);
    }
    out->config.ns = at_strdup(at_json_str_at(chosen, "namespace", "default"));
    enum at_rc rc = take_cluster(path, cluster, out, err);
    return rc == AT_OK ? take_user(path, user, out, err) : rc;
}

static enum at_rc parse_file(const char *path, struct at_yaml_doc **docs, size_t *count,
                             struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = at_file_read(path, AT_CLIENT_KUBECONFIG_BYTES_MAX, &text, err);
    return rc == AT_OK ? at_yaml_parse(text.data, text.len, docs, count, err) : rc;
}

enum at_rc at_client_kubeconfig_load(const char *path, const char *context,
                                     struct at_client_kubeconfig **ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *chosen = at_client_kubeconfig_path(path);
    struct at_yaml_doc *docs = NULL;
    size_t count = 0;
    enum at_rc rc = parse_file(chosen, &docs, &count, err);
    if (rc != AT_OK) {
        return at_err_wrap(err, rc, "kubeconfig %s", chosen);
    }
    struct loaded *loaded = AT_NEW(struct loaded);
    rc = count == 1 ? take_context(chosen, docs[0].value, context, loaded, err)
                    : at_err_set(err, AT_INVALID, "the file holds no configuration");
    at_yaml_docs_free(docs, count);
    if (rc != AT_OK) {
        at_client_kubeconfig_free(&loaded->config);
        return at_err_wrap(err, rc, "kubeconfig %s", chosen);
    }
    loaded->config.options = (struct at_client_options){.server = loaded->server,
                                                        .prefer_first = true,
                                                        .ca_pem = loaded->ca,
                                                        .cert_pem = loaded->cert,
                                                        .key_pem = loaded->key,
                                                        .token = loaded->token};
    *ret = &loaded->config;
    return AT_OK;
}
