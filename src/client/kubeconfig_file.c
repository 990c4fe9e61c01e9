/* The files of a kubeconfig: read, merged, locked, written. */
#include "client/kubeconfig.h"
#include "client/limits.h"
#include "core/mem.h"
#include "core/yaml.h"
#include "sys/file.h"
#include "sys/sys.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define MODE_OTHERS_WRITE 0002
#define MODE_MORE_READ 0044
#define MODE_NEW 0600

static const char *const LISTS[][2] = {
    {AT_KUBECONFIG_CLUSTERS}, {AT_KUBECONFIG_CONTEXTS}, {AT_KUBECONFIG_USERS}};

/* --- one text --- */

static enum at_rc check_list(const json_t *root, const char *list, const char *inner,
                             struct at_err *err)
{
    const json_t *entries = json_object_get(root, list);
    if (entries == NULL || json_is_null(entries)) {
        return AT_OK;
    }
    if (!json_is_array(entries)) {
        return at_err_set_field(err, AT_INVALID, list, "%s is no list", list);
    }
    for (size_t i = 0; i < json_array_size(entries); i++) {
        const json_t *entry = json_array_get(entries, i);
        const json_t *body = json_object_get(entry, inner);
        if (!json_is_string(json_object_get(entry, "name"))) {
            return at_err_set_field(err, AT_INVALID, list, "%s[%zu] has no name", list, i);
        }
        if (body != NULL && !json_is_null(body) && !json_is_object(body)) {
            return at_err_set_field(err, AT_INVALID, list, "%s[%zu].%s is no object", list, i,
                                    inner);
        }
    }
    return AT_OK;
}

static enum at_rc check_root(const json_t *root, struct at_err *err)
{
    const json_t *current = json_object_get(root, "current-context");
    const char *kind = at_json_str_at(root, "kind", "Config");
    const char *version = at_json_str_at(root, "apiVersion", "v1");
    if (!json_is_object(root)) {
        return at_err_set(err, AT_INVALID, "the file holds no configuration");
    }
    if (strcmp(kind, "Config") != 0 || strcmp(version, "v1") != 0) {
        return at_err_set(err, AT_INVALID, "it holds a %s of %s, not a Config of v1", kind,
                          version);
    }
    if (current != NULL && !json_is_string(current) && !json_is_null(current)) {
        return at_err_set_field(err, AT_INVALID, "current-context", "current-context is no text");
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(LISTS); i++) {
        enum at_rc rc = check_list(root, LISTS[i][0], LISTS[i][1], err);
        if (rc != AT_OK) {
            return rc;
        }
    }
    return AT_OK;
}

enum at_rc at_kubeconfig_parse(const char *text, size_t len, json_t **ret, struct at_err *err)
{
    struct at_yaml_doc *docs = NULL;
    size_t count = 0;
    enum at_rc rc = at_yaml_parse(text, len, &docs, &count, err);
    if (rc != AT_OK) {
        return rc;
    }
    if (count > 1) {
        rc = at_err_set(err, AT_INVALID, "the file holds %zu documents, not one", count);
    } else if (count == 1) {
        rc = check_root(docs[0].value, err);
    }
    if (rc == AT_OK) {
        *ret = count == 1 ? json_incref(docs[0].value) : json_object();
    }
    at_yaml_docs_free(docs, count);
    return rc;
}

/* --- many files --- */

static bool holds_secret(const json_t *root)
{
    static const char *const SECRETS[] = {"token", "client-key-data", "password"};
    size_t at;
    json_t *entry;
    json_array_foreach(json_object_get(root, "users"), at, entry)
    {
        const json_t *user = json_object_get(entry, "user");
        for (size_t i = 0; i < AT_ARRAY_LEN(SECRETS); i++) {
            if (json_object_get(user, SECRETS[i]) != NULL) {
                return true;
            }
        }
    }
    return false;
}

static enum at_rc read_file(struct at_kubeconfig_file *file, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    int mode = at_file_mode(file->path);
    enum at_rc rc = at_file_read(file->path, AT_CLIENT_KUBECONFIG_BYTES_MAX, &text, err);
    if (rc != AT_OK) {
        return rc;
    }
    if (text.len != 0 && mode >= 0 && (mode & MODE_OTHERS_WRITE) != 0) {
        return at_err_set(err, AT_FORBIDDEN,
                          "anyone may change this file, so it cannot be trusted; "
                          "after a look into it: chmod 600 %s",
                          file->path);
    }
    file->exists = true;
    rc = at_kubeconfig_parse(text.data != NULL ? text.data : "", text.len, &file->root, err);
    if (rc == AT_OK) {
        file->readable_by_more = (mode & MODE_MORE_READ) != 0 && holds_secret(file->root);
    }
    return rc;
}

static char *lock_path(const struct at_kubeconfig_file *file)
{
    return at_asprintf("%s.lock", file->path);
}

static enum at_rc lock_file(const struct at_kubeconfig_file *file, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = lock_path(file);
    char *slash = strrchr(path, '/');
    if (slash != NULL && slash != path) {
        *slash = '\0';
        enum at_rc rc = at_dir_make(path, 0700, err);
        *slash = '/';
        if (rc != AT_OK) {
            return rc;
        }
    }
    enum at_rc rc = at_file_make_new(path, MODE_NEW, err);
    if (rc == AT_EXISTS) {
        return at_err_set(err, AT_CONFLICT,
                          "%s is there: another program changes the file now; try again, or remove "
                          "it if none does",
                          path);
    }
    return rc;
}

static void unlock(struct at_kubeconfig *config, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        AT_CLEANUP(at_cleanup_free) char *path = lock_path(&config->files[i]);
        (void)!at_file_remove(path, NULL);
    }
    config->locked = false;
}

static enum at_rc lock_all(struct at_kubeconfig *config, struct at_err *err)
{
    for (size_t i = 0; i < config->n; i++) {
        enum at_rc rc = lock_file(&config->files[i], err);
        if (rc != AT_OK) {
            unlock(config, i);
            return rc;
        }
    }
    config->locked = true;
    return AT_OK;
}

static void add_path(struct at_kubeconfig *config, char *path_take)
{
    for (size_t i = 0; i < config->n; i++) {
        if (strcmp(config->files[i].path, path_take) == 0) {
            at_free(path_take);
            return;
        }
    }
    /* A link stays one: what it points to is read and written. */
    char *real = at_file_resolve(path_take);
    if (real != NULL) {
        at_free(path_take);
    }
    config->files[config->n++] =
        (struct at_kubeconfig_file){.path = real != NULL ? real : path_take};
}

static enum at_rc list_paths(struct at_kubeconfig *config, const char *path, struct at_err *err)
{
    const char *env = at_sys_getenv("KUBECONFIG");
    struct at_str rest = at_str_of(env);
    if (path != NULL) {
        config->chosen = true;
        add_path(config, at_strdup(path));
        return AT_OK;
    }
    while (rest.len != 0) {
        struct at_str one = at_str_cut(&rest, ':');
        if (one.len != 0 && config->n == AT_KUBECONFIG_FILES_MAX) {
            return at_err_set(err, AT_TOO_LARGE, "$KUBECONFIG names more than %d files",
                              AT_KUBECONFIG_FILES_MAX);
        }
        if (one.len != 0) {
            add_path(config, at_strndup(one.ptr, one.len));
        }
    }
    if (config->n == 0) {
        const char *home = at_sys_getenv("HOME");
        add_path(config, at_asprintf("%s/.kube/config", home != NULL ? home : ""));
    }
    return AT_OK;
}

enum at_rc at_kubeconfig_read(const char *path, bool for_change, struct at_kubeconfig **ret,
                              struct at_err *err)
{
    struct at_kubeconfig *config = AT_NEW(struct at_kubeconfig);
    enum at_rc rc = list_paths(config, path, err);
    if (rc == AT_OK && for_change) {
        rc = lock_all(config, err);
    }
    for (size_t i = 0; i < config->n && rc == AT_OK; i++) {
        struct at_kubeconfig_file *file = &config->files[i];
        struct at_err one = {0};
        rc = read_file(file, &one);
        if (rc == AT_NOT_FOUND && (for_change || !config->chosen)) {
            file->root = json_object();
            rc = AT_OK;
        } else if (rc != AT_OK) {
            at_err_wrap(&one, rc, "kubeconfig %s", file->path);
            if (err != NULL) {
                *err = one;
            }
        }
    }
    if (rc != AT_OK) {
        at_kubeconfig_free(config);
        return rc;
    }
    *ret = config;
    return AT_OK;
}

void at_kubeconfig_free(struct at_kubeconfig *config)
{
    if (config == NULL) {
        return;
    }
    if (config->locked) {
        unlock(config, config->n);
    }
    for (size_t i = 0; i < config->n; i++) {
        at_free(config->files[i].path);
        json_decref(config->files[i].root);
    }
    at_free(config);
}

enum at_rc at_kubeconfig_write(struct at_kubeconfig *config, struct at_err *err)
{
    assert(config->locked);
    for (size_t i = 0; i < config->n; i++) {
        struct at_kubeconfig_file *file = &config->files[i];
        AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
        if (!file->changed) {
            continue;
        }
        json_object_set_new(file->root, "apiVersion", json_string("v1"));
        json_object_set_new(file->root, "kind", json_string("Config"));
        int mode = at_file_mode(file->path);
        enum at_rc rc = at_yaml_dump(file->root, &text);
        if (rc == AT_OK) {
            rc = at_file_write_atomic(file->path, text.data, text.len,
                                      mode >= 0 ? (mode_t)mode : MODE_NEW, err);
        }
        if (rc != AT_OK) {
            return rc;
        }
        file->changed = false;
    }
    return AT_OK;
}

/* --- the merged view --- */

json_t *at_kubeconfig_entry(const struct at_kubeconfig *config, const char *list, const char *inner,
                            const char *name, struct at_kubeconfig_file **ret_file)
{
    for (size_t i = 0; i < config->n; i++) {
        size_t at;
        json_t *entry;
        json_array_foreach(json_object_get(config->files[i].root, list), at, entry)
        {
            if (strcmp(at_json_str_at(entry, "name", ""), name) == 0) {
                json_t *body = json_object_get(entry, inner);
                if (ret_file != NULL) {
                    *ret_file = (struct at_kubeconfig_file *)&config->files[i];
                }
                return json_is_object(body) ? body : NULL;
            }
        }
    }
    return NULL;
}

const char *at_kubeconfig_current(const struct at_kubeconfig *config)
{
    for (size_t i = 0; i < config->n; i++) {
        const char *name = at_json_str_at(config->files[i].root, "current-context", "");
        if (name[0] != '\0') {
            return name;
        }
    }
    return "";
}

struct at_kubeconfig_file *at_kubeconfig_default_file(struct at_kubeconfig *config)
{
    for (size_t i = 0; i < config->n; i++) {
        if (config->files[i].exists) {
            return &config->files[i];
        }
    }
    return &config->files[config->n - 1];
}

static int by_name(const void *a, const void *b)
{
    return strcmp(at_json_str_at(*(json_t *const *)a, "name", ""),
                  at_json_str_at(*(json_t *const *)b, "name", ""));
}

static bool has_name(const json_t *list, const char *name)
{
    size_t at;
    json_t *entry;
    json_array_foreach((json_t *)list, at, entry)
    {
        if (strcmp(at_json_str_at(entry, "name", ""), name) == 0) {
            return true;
        }
    }
    return false;
}

/* Paths are told as they are from here, not relative to a file that is not named. */
static void resolve_paths(const char *config_path, json_t *body)
{
    static const char *const FIELDS[] = {"certificate-authority", "client-certificate",
                                         "client-key", "tokenFile"};
    for (size_t i = 0; i < AT_ARRAY_LEN(FIELDS); i++) {
        const char *path = json_string_value(json_object_get(body, FIELDS[i]));
        if (path != NULL && path[0] != '\0') {
            AT_CLEANUP(at_cleanup_free) char *full = at_kubeconfig_resolve(config_path, path);
            json_object_set_new(body, FIELDS[i], json_string(full));
        }
    }
}

static json_t *merged_list(const struct at_kubeconfig *config, const char *list, const char *inner)
{
    json_t *all = json_array();
    for (size_t i = 0; i < config->n; i++) {
        size_t at;
        json_t *entry;
        json_array_foreach(json_object_get(config->files[i].root, list), at, entry)
        {
            if (!has_name(all, at_json_str_at(entry, "name", ""))) {
                json_t *copy = json_deep_copy(entry);
                resolve_paths(config->files[i].path, json_object_get(copy, inner));
                json_array_append_new(all, copy);
            }
        }
    }
    size_t n = json_array_size(all);
    json_t **entries = at_alloc((n + 1) * sizeof(*entries));
    for (size_t i = 0; i < n; i++) {
        entries[i] = json_incref(json_array_get(all, i));
    }
    qsort(entries, n, sizeof(json_t *), by_name);
    json_array_clear(all);
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(all, entries[i]);
    }
    at_free(entries);
    return all;
}

json_t *at_kubeconfig_merged(const struct at_kubeconfig *config)
{
    json_t *clusters = merged_list(config, AT_KUBECONFIG_CLUSTERS);
    json_t *contexts = merged_list(config, AT_KUBECONFIG_CONTEXTS);
    json_t *users = merged_list(config, AT_KUBECONFIG_USERS);
    return json_pack("{s:s, s:o, s:o, s:s, s:s, s:{}, s:o}", "apiVersion", "v1", "clusters",
                     clusters, "contexts", contexts, "current-context",
                     at_kubeconfig_current(config), "kind", "Config", "preferences", "users",
                     users);
}

char *at_kubeconfig_resolve(const char *config_path, const char *path)
{
    const char *slash = strrchr(config_path, '/');
    return path[0] == '/' || slash == NULL
               ? at_strdup(path)
               : at_asprintf("%.*s/%s", (int)(slash - config_path), config_path, path);
}
