#include "package/model.h"

#include "core/mem.h"
#include "core/str.h"
#include "core/yaml.h"
#include "package/describe.h"
#include "sys/entry.h"
#include "sys/fd.h"
#include "sys/file.h"

#include <stdio.h>
#include <string.h>

void at_pkg_model_done(struct at_pkg_model *model)
{
    json_decref(model->json);
    *model = (struct at_pkg_model){0};
}

/* --- reading --- */

static bool word_is(const char *text, size_t max)
{
    size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./");
    return n > 0 && n <= max && text[n] == '\0';
}

static enum at_rc wrong(struct at_err *err, const char *field, const char *why)
{
    return at_err_set_field(err, AT_INVALID, field, "%s: %s", field, why);
}

/* A text, or absent: then otherwise. */
static enum at_rc text_of(const json_t *json, const char *field, const char *otherwise,
                          const char **ret, struct at_err *err)
{
    const json_t *value = json_object_get(json, field);
    if (value == NULL || json_is_null(value)) {
        *ret = otherwise;
        return AT_OK;
    }
    if (!json_is_string(value)) {
        return wrong(err, field, "must be a text (put it in quotes)");
    }
    *ret = json_string_value(value);
    return AT_OK;
}

static enum at_rc files_check(const json_t *files, const char *file, struct at_err *err)
{
    bool listed = files == NULL;
    size_t i;
    const json_t *entry;
    char field[64], why[64];
    if (files != NULL && (!json_is_array(files) || json_array_size(files) > PKG_FILES_MAX)) {
        return wrong(err, "files", "must be a list of at most 1000 files");
    }
    json_array_foreach(files, i, entry)
    {
        const char *path = json_string_value(json_object_get(entry, "path"));
        const json_t *digest = json_object_get(entry, "digest");
        snprintf(field, sizeof field, "files[%zu].path", i);
        if (path == NULL || !at_pkg_path_is_safe(path, why, sizeof why)) {
            return at_err_set_field(err, AT_INVALID, field, "%s: %.200s: %s", field,
                                    path != NULL ? path : "absent",
                                    path != NULL ? why : "it is needed");
        }
        snprintf(field, sizeof field, "files[%zu].digest", i);
        if (digest != NULL &&
            (!json_is_string(digest) ||
             !at_pkg_digest_is(json_string_value(digest), json_string_length(digest)))) {
            return wrong(err, field, "must be sha256: and 64 hex digits");
        }
        listed = listed || strcmp(path, file) == 0;
    }
    return listed ? AT_OK : wrong(err, "model", "is not among files");
}

static enum at_rc resources_check(const json_t *resources, struct at_err *err)
{
    static const char *const UNITS[] = {"cpu", "memory", "disk", "gpu", "gpuMemory"};
    const char *key;
    const json_t *value;
    char field[64], number[32];
    if (resources != NULL && !json_is_object(resources)) {
        return wrong(err, "resources", "must be cpu, memory, disk, gpu and gpuMemory");
    }
    json_object_foreach((json_t *)resources, key, value)
    {
        bool known = false;
        int64_t milli = 0;
        for (size_t i = 0; i < AT_ARRAY_LEN(UNITS); i++) {
            known = known || strcmp(key, UNITS[i]) == 0;
        }
        snprintf(field, sizeof field, "resources.%.40s", key);
        snprintf(number, sizeof number, "%.9g", json_number_value(value));
        const char *text = json_is_string(value) ? json_string_value(value) : number;
        if (!known) {
            return wrong(err, field, "there are cpu, memory, disk, gpu and gpuMemory");
        }
        if (at_quantity_milli(text, &milli, NULL) != AT_OK || milli < 0) {
            return wrong(err, field, "must be a quantity such as 500m or 2Gi");
        }
    }
    return AT_OK;
}

static enum at_rc tensors_check(const json_t *signature, const char *which, struct at_err *err)
{
    static const char TYPES[] =
        " BOOL UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FP16 FP32 FP64 BF16 BYTES ";
    const json_t *list = json_object_get(signature, which);
    size_t i, k;
    const json_t *entry, *dim;
    char field[64], type[16];
    if (list != NULL && (!json_is_array(list) || json_array_size(list) > PKG_TENSORS_MAX)) {
        return wrong(err, "signature", "inputs and outputs must be lists");
    }
    json_array_foreach(list, i, entry)
    {
        const char *datatype = json_string_value(json_object_get(entry, "datatype"));
        const json_t *shape = json_object_get(entry, "shape");
        snprintf(field, sizeof field, "signature.%s[%zu]", which, i);
        snprintf(type, sizeof type, " %.10s ", datatype != NULL ? datatype : "?");
        if (!json_is_string(json_object_get(entry, "name")) || strstr(TYPES, type) == NULL) {
            return wrong(err, field, "needs a name and a datatype such as FP32");
        }
        if (shape != NULL && !json_is_array(shape)) {
            return wrong(err, field, "shape must be a list of numbers");
        }
        json_array_foreach(shape, k, dim)
        {
            if (!json_is_integer(dim) || json_integer_value(dim) < -1) {
                return wrong(err, field, "shape must be a list of numbers, -1 for a free one");
            }
        }
    }
    return AT_OK;
}

static enum at_rc check(struct at_pkg_model *m, struct at_err *err)
{
    const json_t *signature = json_object_get(m->json, "signature");
    char why[64];
    enum at_rc rc = text_of(m->json, "name", "", &m->name, err);
    rc = rc != AT_OK ? rc : text_of(m->json, "version", "1", &m->version, err);
    rc = rc != AT_OK ? rc : text_of(m->json, "format", "other", &m->format, err);
    rc = rc != AT_OK ? rc : text_of(m->json, "model", "", &m->file, err);
    rc = rc != AT_OK ? rc : text_of(m->json, "runner", "", &m->runner, err);
    rc = rc != AT_OK ? rc : text_of(m->json, "license", "", &m->licence, err);
    rc = rc != AT_OK ? rc : text_of(m->json, "licence", m->licence, &m->licence, err);
    rc = rc != AT_OK ? rc : text_of(m->json, "dataClass", "", &m->data_class, err);
    if (rc != AT_OK) {
        return rc;
    }
    if (!word_is(m->name, 253) || !word_is(m->version, 63)) {
        return wrong(err, !word_is(m->name, 253) ? "name" : "version",
                     "must be letters, digits, dashes, dots, underscores and slashes");
    }
    if (!at_streq(m->format, "onnx") && !at_streq(m->format, "gguf") &&
        !at_streq(m->format, "other")) {
        return wrong(err, "format", "must be onnx, gguf or other");
    }
    if (m->runner[0] != '\0' && !at_streq(m->runner, "onnx") && !at_streq(m->runner, "llm")) {
        return wrong(err, "runner", "must be onnx, llm or absent");
    }
    if (!at_pkg_path_is_safe(m->file, why, sizeof why)) {
        return wrong(err, "model", why);
    }
    if (strlen(m->data_class) > 63 || (signature != NULL && !json_is_object(signature))) {
        return wrong(err,
                     signature != NULL && !json_is_object(signature) ? "signature" : "dataClass",
                     "is not usable");
    }
    rc = files_check(json_object_get(m->json, "files"), m->file, err);
    rc = rc != AT_OK ? rc : resources_check(json_object_get(m->json, "resources"), err);
    rc = rc != AT_OK ? rc : tensors_check(signature, "inputs", err);
    return rc != AT_OK ? rc : tensors_check(signature, "outputs", err);
}

enum at_rc at_pkg_model_parse(const char *text, size_t len, struct at_pkg_model *ret,
                              struct at_err *err)
{
    struct at_yaml_doc *docs = NULL;
    size_t n = 0;
    struct at_pkg_model m = {0};
    enum at_rc rc =
        len > PKG_YAML_BYTES_MAX
            ? at_err_set(err, AT_TOO_LARGE, "it is larger than %zu bytes", PKG_YAML_BYTES_MAX)
            : at_yaml_parse(text, len, &docs, &n, err);
    if (rc != AT_OK) {
        return at_err_wrap(err, rc == AT_TOO_LARGE ? rc : AT_INVALID, "%s", AT_PKG_YAML);
    }
    if (n != 1 || !json_is_object(docs[0].value)) {
        rc = at_err_set(err, AT_INVALID, "it must be one document with name, format and model");
    } else {
        m.json = json_incref(docs[0].value);
        rc = check(&m, err);
    }
    at_yaml_docs_free(docs, n);
    if (rc != AT_OK) {
        at_pkg_model_done(&m);
        return at_err_wrap(err, rc, "%s", AT_PKG_YAML);
    }
    *ret = m;
    return AT_OK;
}

enum at_rc at_pkg_model_read(const char *folder, struct at_pkg_model *ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/" AT_PKG_YAML, folder);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = at_file_read(path, PKG_YAML_BYTES_MAX, &text, err);
    if (rc == AT_NOT_FOUND) {
        return at_err_set(err, rc, "%s has no " AT_PKG_YAML ": atoll model init %s writes one",
                          folder, folder);
    }
    return rc != AT_OK ? rc
                       : at_pkg_model_parse(text.data != NULL ? text.data : "", text.len, ret, err);
}

/* --- the files of a folder --- */

static enum at_rc walk(const char *folder, const char *inside, int depth, json_t *list,
                       struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free)
    char *dir = inside[0] != '\0' ? at_asprintf("%s/%s", folder, inside) : at_strdup(folder);
    char **names = NULL;
    size_t n = 0;
    char why[64];
    enum at_rc rc = depth > PKG_FOLDER_DEPTH_MAX
                        ? at_err_set(err, AT_TOO_LARGE, "%s: folders are too deep", dir)
                        : at_dir_list(dir, &names, &n, err);
    for (size_t i = 0; i < n; i++) {
        struct at_entry e = {0};
        AT_CLEANUP(at_cleanup_free)
        char *path = at_asprintf("%s%s%s", inside, inside[0] != '\0' ? "/" : "", names[i]);
        AT_CLEANUP(at_cleanup_free) char *whole = at_asprintf("%s/%s", folder, path);
        bool hidden = names[i][0] == '.'; /* .git, editors' files */
        rc = rc != AT_OK || hidden ? rc : at_entry_look(whole, &e, err);
        if (rc == AT_OK && !hidden && !at_pkg_path_is_safe(path, why, sizeof why)) {
            rc = at_err_set(err, AT_INVALID, "%s cannot be packed: %s", whole, why);
        } else if (rc == AT_OK && e.kind == AT_ENTRY_FOLDER) {
            rc = walk(folder, path, depth + 1, list, err);
        } else if (rc == AT_OK && e.kind == AT_ENTRY_FILE) {
            json_array_append_new(list, json_string(path));
        } else if (rc == AT_OK && !hidden && e.kind != AT_ENTRY_ABSENT) {
            rc = at_err_set(err, AT_INVALID,
                            "%s is neither a file nor a folder; put the file itself there", whole);
        }
        if (rc == AT_OK && json_array_size(list) > PKG_FILES_MAX) {
            rc = at_err_set(err, AT_TOO_LARGE, "%s has more than %d files", folder, PKG_FILES_MAX);
        }
        at_free(names[i]);
    }
    at_free(names);
    return rc;
}

enum at_rc at_pkg_files(const char *folder, json_t **ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *list = json_array();
    enum at_rc rc = walk(folder, "", 0, list, err);
    if (rc == AT_OK) {
        *ret = json_incref(list);
    }
    return rc;
}
