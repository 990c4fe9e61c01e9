/* config: what changes the files. */
#include "cli/config.h"
#include "core/str.h"
#include "sys/file.h"

#include <string.h>

/* One change: the files are locked when it begins and written when it was good. */
static enum at_rc begin(struct cli *cli, struct at_kubeconfig **ret, struct at_err *err)
{
    return at_kubeconfig_read(cli_value(cli, OPT_KUBECONFIG, NULL), true, ret, err);
}

static enum at_rc end(struct at_kubeconfig *kc, enum at_rc rc, struct at_err *err)
{
    if (rc == AT_OK) {
        rc = at_kubeconfig_write(kc, err);
    }
    at_kubeconfig_free(kc);
    return rc;
}

/* The entry as an object of its file, made when it is not there. */
static json_t *entry_of(struct at_kubeconfig *kc, const char *list, const char *inner,
                        const char *name, bool *ret_made)
{
    struct at_kubeconfig_file *file = NULL;
    json_t *body = at_kubeconfig_entry(kc, list, inner, name, &file);
    *ret_made = file == NULL;
    if (body != NULL) {
        file->changed = true;
        return body;
    }
    file = file != NULL ? file : at_kubeconfig_default_file(kc);
    file->changed = true;
    json_t *entries = json_object_get(file->root, list);
    if (!json_is_array(entries)) {
        entries = json_array();
        json_object_set_new(file->root, list, entries);
    }
    size_t at;
    json_t *entry;
    body = json_object();
    json_array_foreach(entries, at, entry)
    {
        if (strcmp(at_json_str_at(entry, "name", ""), name) == 0) {
            json_object_set_new(entry, inner, body);
            return body;
        }
    }
    json_array_append_new(entries, json_pack("{s:s, s:o}", "name", name, inner, body));
    return body;
}

static void set_current(struct at_kubeconfig *kc, const char *name)
{
    struct at_kubeconfig_file *file = at_kubeconfig_default_file(kc);
    if (strcmp(at_kubeconfig_current(kc), name) != 0) {
        json_object_set_new(file->root, "current-context", json_string(name));
        file->changed = true;
    }
}

static enum at_rc no_context(const struct at_kubeconfig *kc, const char *name, struct at_err *err)
{
    const char *names[64];
    size_t n = 0;
    size_t at;
    json_t *entry;
    AT_CLEANUP(at_cleanup_json) json_t *merged = at_kubeconfig_merged(kc);
    json_array_foreach(json_object_get(merged, "contexts"), at, entry)
    {
        if (n < AT_ARRAY_LEN(names)) {
            names[n++] = at_json_str_at(entry, "name", "");
        }
    }
    const char *near = cli_nearest(name, names, n);
    return at_err_set(err, AT_NOT_FOUND,
                      "there is no context \"%s\"%s%s; atoll config get-contexts lists them", name,
                      near != NULL ? ", did you mean " : "", near != NULL ? near : "");
}

enum at_rc cli_config_use_context(struct cli *cli, struct at_err *err)
{
    struct at_kubeconfig *kc = NULL;
    const char *name = cli->args[1];
    enum at_rc rc = begin(cli, &kc, err);
    if (rc != AT_OK) {
        return rc;
    }
    if (at_kubeconfig_entry(kc, AT_KUBECONFIG_CONTEXTS, name, NULL) == NULL) {
        rc = no_context(kc, name, err);
    } else {
        set_current(kc, name);
    }
    rc = end(kc, rc, err);
    if (rc == AT_OK) {
        fprintf(cli->env->out, "Switched to context \"%s\".\n", name);
    }
    return rc;
}

/* An option that was given sets the field; an empty one takes it out. */
static void set_option(const struct cli *cli, enum cli_option option, json_t *body,
                       const char *field)
{
    const char *value = cli_value(cli, option, NULL);
    if (value != NULL && value[0] != '\0') {
        json_object_set_new(body, field, json_string(value));
    } else if (value != NULL) {
        json_object_del(body, field);
    }
}

static void told(const struct cli *cli, const char *what, const char *name, bool made)
{
    fprintf(cli->env->out, "%s \"%s\" %s.\n", what, name,
            made                           ? "created"
            : strcmp(what, "Context") == 0 ? "modified"
                                           : "set");
}

enum at_rc cli_config_set_context(struct cli *cli, struct at_err *err)
{
    struct at_kubeconfig *kc = NULL;
    bool made = false;
    bool current = cli_flag(cli, OPT_CURRENT);
    if ((cli->n_args == 2) == current) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "which context? atoll config set-context NAME, or --current");
    }
    enum at_rc rc = begin(cli, &kc, err);
    if (rc != AT_OK) {
        return rc;
    }
    const char *name =
        at_arena_strdup(cli->arena, current ? at_kubeconfig_current(kc) : cli->args[1]);
    if (name[0] == '\0') {
        rc = at_err_set(err, AT_NOT_FOUND, "no current context is set");
    } else {
        json_t *body = entry_of(kc, AT_KUBECONFIG_CONTEXTS, name, &made);
        set_option(cli, OPT_CLUSTER, body, "cluster");
        set_option(cli, OPT_USER, body, "user");
        set_option(cli, OPT_NAMESPACE, body, "namespace");
    }
    rc = end(kc, rc, err);
    if (rc == AT_OK) {
        told(cli, "Context", name, made);
    }
    return rc;
}

/* A file's name as the kubeconfig keeps it, or its content. */
static enum at_rc set_file(const struct cli *cli, enum cli_option option, json_t *body,
                           const char *field, struct at_err *err)
{
    const char *path = cli_value(cli, option, NULL);
    char data_field[64];
    if (path == NULL) {
        return AT_OK;
    }
    if (cli_flag(cli, OPT_EMBED_CERTS)) {
        return cli_config_embed(body, field, path, err);
    }
    AT_CLEANUP(at_cleanup_free) char *full = at_file_resolve(path);
    if (full == NULL) {
        return at_err_set(err, AT_NOT_FOUND, "there is no file %s", path);
    }
    snprintf(data_field, sizeof data_field, "%s-data", field);
    json_object_del(body, data_field);
    json_object_set_new(body, field, json_string(full));
    return AT_OK;
}

enum at_rc cli_config_set_cluster(struct cli *cli, struct at_err *err)
{
    struct at_kubeconfig *kc = NULL;
    bool made = false;
    const char *server = cli_value(cli, OPT_SERVER, NULL);
    struct at_url url;
    enum at_rc rc = server != NULL ? at_url_parse(server, &url, err) : AT_OK;
    if (rc == AT_OK) {
        rc = begin(cli, &kc, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    json_t *body = entry_of(kc, AT_KUBECONFIG_CLUSTERS, cli->args[1], &made);
    set_option(cli, OPT_SERVER, body, "server");
    set_option(cli, OPT_TLS_SERVER_NAME, body, "tls-server-name");
    rc = set_file(cli, OPT_CERTIFICATE_AUTHORITY, body, "certificate-authority", err);
    rc = end(kc, rc, err);
    if (rc == AT_OK) {
        told(cli, "Cluster", cli->args[1], false);
    }
    return rc;
}

static enum at_rc set_exec_env(const struct cli *cli, json_t *exec, struct at_err *err)
{
    const struct cli_values *values = &cli->values[OPT_EXEC_ENV];
    json_t *env = json_array();
    for (size_t i = 0; i < values->n; i++) {
        const char *equals = strchr(values->items[i], '=');
        if (equals == NULL) {
            json_decref(env);
            return at_err_set(err, AT_BAD_REQUEST, "--exec-env is NAME=VALUE, not \"%s\"",
                              values->items[i]);
        }
        json_array_append_new(env,
                              json_pack("{s:s%, s:s}", "name", values->items[i],
                                        (size_t)(equals - values->items[i]), "value", equals + 1));
    }
    if (values->n != 0) {
        json_object_set(exec, "env", env);
    }
    json_decref(env);
    return AT_OK;
}

static enum at_rc set_exec(const struct cli *cli, json_t *body, struct at_err *err)
{
    const struct cli_values *args = &cli->values[OPT_EXEC_ARG];
    const char *command = cli_value(cli, OPT_EXEC_COMMAND, NULL);
    if (command == NULL) {
        return args->n + cli->values[OPT_EXEC_ENV].n == 0
                   ? AT_OK
                   : at_err_set(err, AT_BAD_REQUEST, "of which program? --exec-command PROGRAM");
    }
    json_t *exec =
        json_pack("{s:s, s:s, s:s, s:b}", "apiVersion", "client.authentication.k8s.io/v1",
                  "command", command, "interactiveMode", "IfAvailable", "provideClusterInfo", 0);
    json_object_set_new(body, "exec", exec);
    json_object_del(body, "token");
    for (size_t i = 0; i < args->n; i++) {
        json_t *list = json_object_get(exec, "args");
        if (list == NULL) {
            list = json_array();
            json_object_set_new(exec, "args", list);
        }
        json_array_append_new(list, json_string(args->items[i]));
    }
    return set_exec_env(cli, exec, err);
}

enum at_rc cli_config_set_credentials(struct cli *cli, struct at_err *err)
{
    struct at_kubeconfig *kc = NULL;
    bool made = false;
    if (cli->values[OPT_TOKEN].n != 0 && cli->values[OPT_EXEC_COMMAND].n != 0) {
        return at_err_set(err, AT_BAD_REQUEST, "either --token or --exec-command");
    }
    enum at_rc rc = begin(cli, &kc, err);
    if (rc != AT_OK) {
        return rc;
    }
    json_t *body = entry_of(kc, AT_KUBECONFIG_USERS, cli->args[1], &made);
    set_option(cli, OPT_TOKEN, body, "token");
    if (cli->values[OPT_TOKEN].n != 0) {
        json_object_del(body, "exec");
    }
    rc = set_file(cli, OPT_CLIENT_CERTIFICATE, body, "client-certificate", err);
    if (rc == AT_OK) {
        rc = set_file(cli, OPT_CLIENT_KEY, body, "client-key", err);
    }
    if (rc == AT_OK) {
        rc = set_exec(cli, body, err);
    }
    rc = end(kc, rc, err);
    if (rc == AT_OK) {
        told(cli, "User", cli->args[1], false);
    }
    return rc;
}

/* Takes the entry out of every file that has it: one that was hidden must not come up. */
static bool remove_named(struct at_kubeconfig *kc, const char *list, const char *name)
{
    bool any = false;
    for (size_t f = 0; f < kc->n; f++) {
        json_t *entries = json_object_get(kc->files[f].root, list);
        for (size_t i = json_array_size(entries); i > 0; i--) {
            if (strcmp(at_json_str_at(json_array_get(entries, i - 1), "name", ""), name) == 0) {
                json_array_remove(entries, i - 1);
                kc->files[f].changed = true;
                any = true;
            }
        }
    }
    return any;
}

enum at_rc cli_config_rename_context(struct cli *cli, struct at_err *err)
{
    struct at_kubeconfig *kc = NULL;
    const char *from = cli->args[1];
    const char *to = cli->args[2];
    enum at_rc rc = begin(cli, &kc, err);
    if (rc != AT_OK) {
        return rc;
    }
    struct at_kubeconfig_file *file = NULL;
    json_t *body = at_kubeconfig_entry(kc, AT_KUBECONFIG_CONTEXTS, from, &file);
    if (file == NULL) {
        rc = no_context(kc, from, err);
    } else if (at_kubeconfig_entry(kc, AT_KUBECONFIG_CONTEXTS, to, NULL) != NULL) {
        rc = at_err_set(err, AT_EXISTS, "there is a context \"%s\" already", to);
    } else {
        bool current = strcmp(at_kubeconfig_current(kc), from) == 0;
        json_t *copy = body != NULL ? json_deep_copy(body) : json_object();
        remove_named(kc, "contexts", from);
        json_array_append_new(json_object_get(file->root, "contexts"),
                              json_pack("{s:s, s:o}", "name", to, "context", copy));
        if (current) {
            set_current(kc, to);
        }
    }
    rc = end(kc, rc, err);
    if (rc == AT_OK) {
        fprintf(cli->env->out, "Context \"%s\" renamed to \"%s\".\n", from, to);
    }
    return rc;
}

static enum at_rc delete_one(struct cli *cli, const char *list, const char *what,
                             struct at_err *err)
{
    struct at_kubeconfig *kc = NULL;
    const char *name = cli->args[1];
    bool current = false;
    enum at_rc rc = begin(cli, &kc, err);
    if (rc != AT_OK) {
        return rc;
    }
    if (!remove_named(kc, list, name)) {
        rc = at_err_set(err, AT_NOT_FOUND, "there is no %s \"%s\"", what, name);
    } else {
        current = strcmp(what, "context") == 0 && strcmp(at_kubeconfig_current(kc), name) == 0;
    }
    rc = end(kc, rc, err);
    if (rc == AT_OK) {
        fprintf(cli->env->out, "deleted %s %s\n", what, name);
    }
    if (rc == AT_OK && current) {
        fputs("warning: this was the current context; atoll config use-context chooses another\n",
              cli->env->err);
    }
    return rc;
}

enum at_rc cli_config_delete_context(struct cli *cli, struct at_err *err)
{
    return delete_one(cli, "contexts", "context", err);
}

enum at_rc cli_config_delete_cluster(struct cli *cli, struct at_err *err)
{
    return delete_one(cli, "clusters", "cluster", err);
}

enum at_rc cli_config_delete_user(struct cli *cli, struct at_err *err)
{
    return delete_one(cli, "users", "user", err);
}

/* --- set and unset: a path such as contexts.NAME.namespace, whose NAME may hold dots --- */

struct place {
    const char *list, *inner; /* NULL: a field of the file itself */
    const char *name, *field;
};

/* The name is the longest one that is there, else what stands before the last dot. */
static enum at_rc place_of(const struct cli *cli, const char *path, bool whole_ok,
                           struct place *ret, struct at_err *err)
{
    static const char *const LISTS[][2] = {
        {AT_KUBECONFIG_CONTEXTS}, {AT_KUBECONFIG_CLUSTERS}, {AT_KUBECONFIG_USERS}};
    *ret = (struct place){.field = path};
    for (size_t i = 0; i < AT_ARRAY_LEN(LISTS); i++) {
        size_t len = strlen(LISTS[i][0]);
        if (strncmp(path, LISTS[i][0], len) != 0 || path[len] != '.') {
            continue;
        }
        const char *rest = path + len + 1;
        const char *dot = strrchr(rest, '.');
        *ret = (struct place){.list = LISTS[i][0], .inner = LISTS[i][1]};
        if (dot != NULL && dot != rest && dot[1] != '\0') {
            ret->name = at_arena_strndup(cli->arena, rest, (size_t)(dot - rest));
            ret->field = dot + 1;
        } else {
            ret->name = rest;
        }
        break;
    }
    bool top = ret->list == NULL && strcmp(path, "current-context") == 0;
    bool good =
        top || (ret->list != NULL && ret->name[0] != '\0' && (ret->field != NULL || whole_ok));
    return good ? AT_OK
                : at_err_set(err, AT_BAD_REQUEST,
                             "\"%s\" is no place: write current-context, or for example "
                             "contexts.NAME.namespace, clusters.NAME.server, users.NAME.token",
                             path);
}

enum at_rc cli_config_set(struct cli *cli, struct at_err *err)
{
    struct at_kubeconfig *kc = NULL;
    struct place place;
    bool made = false;
    enum at_rc rc = place_of(cli, cli->args[1], false, &place, err);
    if (rc == AT_OK) {
        rc = begin(cli, &kc, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    json_t *value = json_string(cli->args[2]);
    if (value == NULL) {
        rc = at_err_set(err, AT_BAD_REQUEST, "the value is not UTF-8");
    } else if (place.list == NULL) {
        set_current(kc, cli->args[2]);
        json_decref(value);
    } else {
        json_object_set_new(entry_of(kc, place.list, place.inner, place.name, &made), place.field,
                            value);
    }
    rc = end(kc, rc, err);
    if (rc == AT_OK) {
        fprintf(cli->env->out, "Property \"%s\" set.\n", cli->args[1]);
    }
    return rc;
}

enum at_rc cli_config_unset(struct cli *cli, struct at_err *err)
{
    struct at_kubeconfig *kc = NULL;
    struct place place;
    enum at_rc rc = place_of(cli, cli->args[1], true, &place, err);
    if (rc == AT_OK) {
        rc = begin(cli, &kc, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    if (place.list == NULL) {
        for (size_t i = 0; i < kc->n; i++) {
            kc->files[i].changed =
                json_object_del(kc->files[i].root, "current-context") == 0 || kc->files[i].changed;
        }
    } else {
        const char *whole = cli->args[1] + strlen(place.list) + 1;
        struct at_kubeconfig_file *file = NULL;
        json_t *body = NULL;
        if (place.field != NULL) {
            body = at_kubeconfig_entry(kc, place.list, place.inner, place.name, &file);
        }
        if (body != NULL && json_object_del(body, place.field) == 0) {
            file->changed = true;
        } else {
            remove_named(kc, place.list, whole);
        }
    }
    rc = end(kc, rc, err);
    if (rc == AT_OK) {
        fprintf(cli->env->out, "Property \"%s\" unset.\n", cli->args[1]);
    }
    return rc;
}
