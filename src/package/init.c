/* A first model.yaml for a folder. */
#include "core/digest.h"
#include "core/mem.h"
#include "core/str.h"
#include "core/yaml.h"
#include "package/describe.h"
#include "package/model.h"
#include "package/store_priv.h"
#include "sys/entry.h"
#include "sys/fd.h"
#include "sys/file.h"

#include <stdio.h>
#include <string.h>

static const char *format_at(const char *folder, const char *path)
{
    AT_CLEANUP(at_cleanup_free) char *whole = at_asprintf("%s/%s", folder, path);
    struct at_pkg_source source = {.fd = -1};
    const char *format = "other";
    if (at_entry_open(whole, &source.fd, &source.bytes, NULL) == AT_OK) {
        format = at_pkg_format_of(path, &source);
        at_fd_close(source.fd);
    }
    return format;
}

/* The one model file; own: caller at_free. */
static enum at_rc find_model(const char *folder, const json_t *files, char **ret,
                             struct at_err *err)
{
    const char *found = NULL, *second = NULL;
    size_t i;
    const json_t *file;
    json_array_foreach(files, i, file)
    {
        const char *path = json_string_value(file);
        if (strcmp(format_at(folder, path), "other") != 0) {
            second = found != NULL ? path : NULL;
            found = found != NULL ? found : path;
        }
    }
    if (found == NULL) {
        return at_err_set(err, AT_NOT_FOUND,
                          "%s has no ONNX or GGUF file; name what is served with --file", folder);
    }
    if (second != NULL) {
        return at_err_set(err, AT_INVALID,
                          "%s has several models, such as %s and %s; name one with --file", folder,
                          found, second);
    }
    *ret = at_strdup(found);
    return AT_OK;
}

static enum at_rc file_entry(const char *folder, const char *path, json_t **ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *whole = at_asprintf("%s/%s", folder, path);
    char hex[AT_SHA256_HEX_BYTES];
    int fd = -1;
    int64_t bytes = 0;
    struct at_sha256_stream *sha = at_sha256_stream_new();
    enum at_rc rc = at_entry_open(whole, &fd, &bytes, err);
    rc = rc != AT_OK ? rc : at_pkg_hash_fd(fd, 0, bytes, sha, err);
    at_sha256_stream_hex(sha, hex);
    at_sha256_stream_free(sha);
    at_fd_close(fd);
    if (rc != AT_OK) {
        return at_err_wrap(err, rc, "%s", whole);
    }
    AT_CLEANUP(at_cleanup_free) char *digest = at_asprintf("sha256:%s", hex);
    *ret = json_pack("{s:s,s:I,s:s}", "path", path, "size", (json_int_t)bytes, "digest", digest);
    return AT_OK;
}

/* Every file that the model names as its weights must be one of the package. */
static enum at_rc external_check(const char *folder, const char *model, const json_t *described,
                                 struct at_err *err)
{
    const char *slash = strrchr(model, '/');
    char why[64];
    size_t i;
    const json_t *entry;
    json_array_foreach(json_object_get(described, "externalData"), i, entry)
    {
        const char *path = json_string_value(entry);
        if (!at_pkg_path_is_safe(path, why, sizeof why)) {
            return at_err_set(err, AT_FORBIDDEN, "%s takes weights from %.200s: %s", model, path,
                              why);
        }
        AT_CLEANUP(at_cleanup_free)
        char *whole = at_asprintf("%s/%.*s%s", folder, slash != NULL ? (int)(slash - model) + 1 : 0,
                                  model, path);
        if (!at_file_exists(whole)) {
            return at_err_set(err, AT_NOT_FOUND, "%s takes weights from %s, which is not there",
                              model, whole);
        }
    }
    return AT_OK;
}

static enum at_rc describe(const char *folder, const char *model, json_t **ret, const char **format,
                           struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *whole = at_asprintf("%s/%s", folder, model);
    struct at_pkg_source source = {.fd = -1};
    json_t *described = NULL;
    enum at_rc rc = at_entry_open(whole, &source.fd, &source.bytes, err);
    if (rc != AT_OK) {
        return rc;
    }
    *format = at_pkg_format_of(model, &source);
    rc = strcmp(*format, "onnx") == 0   ? at_pkg_describe_onnx(&source, &described, err)
         : strcmp(*format, "gguf") == 0 ? at_pkg_describe_gguf(&source, &described, err)
                                        : AT_OK;
    at_fd_close(source.fd);
    if (rc == AT_OK && described != NULL) {
        rc = external_check(folder, model, described, err);
        json_object_del(described, "externalData");
    }
    if (rc != AT_OK) {
        json_decref(described);
        return at_err_wrap(err, rc, "%s", whole);
    }
    *ret = described;
    return AT_OK;
}

static void set(json_t *json, const char *key, const char *value, const char *otherwise)
{
    if (value != NULL) {
        json_object_set_new(json, key, json_string(value));
    } else if (json_object_get(json, key) == NULL && otherwise != NULL) {
        json_object_set_new(json, key, json_string(otherwise));
    }
}

/* Letters, digits and dashes of the folder's own name. own: caller at_free. */
static char *name_of(const char *folder)
{
    AT_CLEANUP(at_cleanup_free) char *whole = at_strdup(folder);
    size_t len = strlen(whole);
    while (len > 1 && (whole[len - 1] == '/' || (whole[len - 1] == '.' && whole[len - 2] == '/'))) {
        whole[--len] = '\0';
    }
    const char *slash = strrchr(whole, '/');
    char *name = at_strdup(slash != NULL ? slash + 1 : whole);
    for (char *c = name; *c != '\0'; c++) {
        bool good = (*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9') || *c == '-';
        *c = good ? *c : (*c >= 'A' && *c <= 'Z') ? (char)(*c - 'A' + 'a') : '-';
    }
    return name;
}

static enum at_rc fill(json_t *json, const char *folder, const struct at_pkg_init *init,
                       const char *model, struct at_err *err)
{
    json_t *described = NULL;
    const char *format = "other";
    enum at_rc rc = describe(folder, model, &described, &format, err);
    if (rc == AT_OK && init->check != NULL) {
        AT_CLEANUP(at_cleanup_free) char *whole = at_asprintf("%s/%s", folder, model);
        rc = init->check(format, whole, err);
    }
    if (rc != AT_OK) {
        json_decref(described);
        return rc;
    }
    AT_CLEANUP(at_cleanup_free) char *own = name_of(folder);
    const char *fallback = strspn(own, "-") < strlen(own) ? own : "model";
    set(json, "name", init->name, fallback);
    set(json, "version", init->version, "1");
    json_object_set_new(json, "format", json_string(format));
    json_object_set_new(json, "model", json_string(model));
    set(json, "runner", NULL,
        strcmp(format, "onnx") == 0   ? "onnx"
        : strcmp(format, "gguf") == 0 ? "llm"
                                      : NULL);
    set(json, "licence", init->licence, json_object_get(json, "license") == NULL ? "" : NULL);
    set(json, "dataClass", init->data_class, "");
    if (json_object_get(json, "resources") == NULL) {
        json_object_set_new(json, "resources",
                            json_pack("{s:s,s:s}", "cpu", "1", "memory", "512Mi"));
    }
    if (described != NULL) {
        json_object_set_new(json, "signature", described);
    }
    return AT_OK;
}

static enum at_rc list_files(json_t *json, const char *folder, const json_t *files,
                             struct at_err *err)
{
    json_t *list = json_array();
    size_t i;
    const json_t *file;
    enum at_rc rc = AT_OK;
    json_array_foreach(files, i, file)
    {
        json_t *entry = NULL;
        if (strcmp(json_string_value(file), AT_PKG_YAML) == 0) {
            continue;
        }
        rc = file_entry(folder, json_string_value(file), &entry, err);
        if (rc != AT_OK) {
            break;
        }
        json_array_append_new(list, entry);
    }
    json_object_set_new(json, "files", list);
    return rc;
}

enum at_rc at_pkg_model_init(const char *folder, const struct at_pkg_init *init, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/" AT_PKG_YAML, folder);
    AT_CLEANUP(at_cleanup_free) char *model = at_strdup(init->file);
    AT_CLEANUP(at_cleanup_json) json_t *files = NULL;
    AT_CLEANUP(at_cleanup_json) json_t *json = NULL;
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    struct at_pkg_model before = {0};
    if (at_file_exists(path) && !init->force) {
        return at_err_set(err, AT_EXISTS, "%s is there already; --force writes it anew", path);
    }
    if (at_file_exists(path) && at_pkg_model_read(folder, &before, NULL) == AT_OK) {
        json = json_incref(before.json); /* what people wrote into it stays */
        model = model != NULL ? model : at_strdup(before.file);
        at_pkg_model_done(&before);
    }
    json = json != NULL ? json : json_object();
    enum at_rc rc = at_pkg_files(folder, &files, err);
    if (rc != AT_OK) {
        files = NULL;
    }
    rc = rc != AT_OK || model != NULL ? rc : find_model(folder, files, &model, err);
    rc = rc != AT_OK ? rc : fill(json, folder, init, model, err);
    rc = rc != AT_OK ? rc : list_files(json, folder, files, err);
    rc = rc != AT_OK ? rc : at_yaml_dump(json, &text);
    if (rc == AT_OK) { /* what we write we must be able to read */
        rc = at_pkg_model_parse(text.data, text.len, &before, err);
        at_pkg_model_done(&before);
    }
    return rc != AT_OK ? rc : at_file_write_atomic(path, text.data, text.len, 0644, err);
}

enum at_rc at_pkg_model_file(const char *folder, char **ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *yaml = at_asprintf("%s/" AT_PKG_YAML, folder);
    AT_CLEANUP(at_cleanup_json) json_t *files = NULL;
    AT_CLEANUP(at_cleanup_json) json_t *described = NULL;
    char *found = NULL;
    const char *format = "other";
    struct at_pkg_model m = {0};
    enum at_rc rc = AT_OK;
    if (at_file_exists(yaml)) {
        rc = at_pkg_model_read(folder, &m, err);
        found = rc == AT_OK ? at_strdup(m.file) : NULL;
        at_pkg_model_done(&m);
    } else {
        rc = at_pkg_files(folder, &files, err);
        if (rc != AT_OK) {
            files = NULL;
        }
        rc = rc != AT_OK ? rc : find_model(folder, files, &found, err);
    }
    rc = rc != AT_OK ? rc : describe(folder, found, &described, &format, err);
    if (rc != AT_OK) {
        described = NULL;
        at_free(found);
        return rc;
    }
    *ret = found;
    return AT_OK;
}
