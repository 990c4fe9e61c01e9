/* Files of objects: documents with their place, so that every message can point at it. */
#include "cli/cli_priv.h"
#include "core/str.h"
#include "sys/file.h"

#include <string.h>

#define FILES_MAX 1000
#define MANIFESTS_MAX 10000

void cli_manifests_done(struct cli_manifests *manifests)
{
    for (size_t i = 0; i < manifests->n; i++) {
        json_decref(manifests->items[i].object);
    }
    for (size_t i = 0; i < manifests->n_texts; i++) {
        at_buf_done(&manifests->texts[i]);
    }
    at_free(manifests->items);
    at_free(manifests->texts);
    *manifests = (struct cli_manifests){0};
}

enum at_rc cli_manifest_blame(const struct cli_manifest *m, struct at_err *err)
{
    size_t line = at_yaml_find_line(m->text, m->text_len, m->line, err->field);
    char place[AT_ERR_FIELD_BYTES_MAX + 8] = "";
    if (err->field[0] != '\0' && strstr(err->msg, err->field) == NULL) {
        snprintf(place, sizeof place, ": %s", err->field);
    }
    enum at_rc rc = err->rc;
    at_err_wrap(err, rc, "%s: document %zu, line %zu%s", m->file, m->document, line, place);
    err->field[0] = '\0';
    return rc;
}

static enum at_rc check(const struct cli *cli, struct cli_manifest *m, struct at_err *err)
{
    const char *api_version = at_json_str_at(m->object, "apiVersion", NULL);
    const char *kind_name = at_json_str_at(m->object, "kind", NULL);
    if (!json_is_object(m->object)) {
        return at_err_set(err, AT_BAD_REQUEST, "the document is no object");
    }
    if (api_version == NULL || kind_name == NULL) {
        return at_err_set_field(err, AT_BAD_REQUEST, api_version == NULL ? "apiVersion" : "kind",
                                "is missing");
    }
    const char *slash = strchr(api_version, '/');
    const char *group =
        slash != NULL ? at_arena_strndup(cli->arena, api_version, (size_t)(slash - api_version))
                      : "";
    m->kind = at_model_kind_find(group, slash != NULL ? slash + 1 : api_version, kind_name);
    if (m->kind == NULL) {
        return at_err_set_field(err, AT_BAD_REQUEST, "kind",
                                "there is no kind \"%s\" in %s; see atoll api-resources", kind_name,
                                api_version);
    }
    m->name = at_json_str_at(m->object, "metadata.name", NULL);
    if (m->name == NULL) {
        return at_err_set_field(err, AT_BAD_REQUEST, "metadata.name", "is missing");
    }
    if (!m->kind->namespaced) {
        return AT_OK;
    }
    const char *asked = cli_value(cli, OPT_NAMESPACE, NULL);
    m->ns = at_json_str_at(m->object, "metadata.namespace", NULL);
    if (m->ns != NULL && asked != NULL && strcmp(m->ns, asked) != 0) {
        return at_err_set_field(err, AT_BAD_REQUEST, "metadata.namespace",
                                "is \"%s\" but --namespace is \"%s\"", m->ns, asked);
    }
    if (m->ns == NULL) {
        m->ns = asked != NULL ? asked : cli->ns != NULL ? cli->ns : "default";
        at_json_set_at(m->object, "metadata.namespace", json_string(m->ns));
    }
    return AT_OK;
}

static enum at_rc add(const struct cli *cli, struct cli_manifests *out, struct cli_manifest m,
                      json_t *object, struct at_err *err)
{
    if (out->n == MANIFESTS_MAX) {
        return at_err_set(err, AT_TOO_LARGE, "more than %d documents", MANIFESTS_MAX);
    }
    if (out->n == out->room) {
        out->room = out->room != 0 ? out->room * 2 : 16;
        out->items = at_realloc(out->items, out->room * sizeof *out->items);
    }
    m.object = json_incref(object);
    enum at_rc rc = check(cli, &m, err);
    out->items[out->n++] = m;
    return rc == AT_OK ? rc : cli_manifest_blame(&m, err);
}

/* Lists (kubectl get -o yaml gives them) stand for their items. */
static enum at_rc add_document(const struct cli *cli, struct cli_manifests *out,
                               struct cli_manifest m, json_t *object, struct at_err *err)
{
    const json_t *items = json_object_get(object, "items");
    if (!json_is_array(items) || strcmp(at_json_str_at(object, "kind", ""), "List") != 0) {
        return add(cli, out, m, object, err);
    }
    for (size_t i = 0; i < json_array_size(items); i++) {
        enum at_rc rc = add(cli, out, m, json_array_get(items, i), err);
        if (rc != AT_OK) {
            return rc;
        }
    }
    return AT_OK;
}

static enum at_rc load_file(const struct cli *cli, struct cli_manifests *out, const char *path,
                            struct at_err *err)
{
    if (at_str_starts(at_str_of(path), "http://") || at_str_starts(at_str_of(path), "https://")) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "%s: files are not fetched, so that what is applied is what was looked "
                          "at: curl -fsSO it, read it, and give that file",
                          path);
    }
    if (out->n_texts == FILES_MAX) {
        return at_err_set(err, AT_TOO_LARGE, "more than %d files", FILES_MAX);
    }
    out->texts = at_realloc(out->texts, (out->n_texts + 1) * sizeof *out->texts);
    struct at_buf *text = &out->texts[out->n_texts++];
    at_buf_init(text, CLI_FILE_BYTES_MAX);
    enum at_rc rc = cli_read(cli, path, CLI_FILE_BYTES_MAX, text, err);
    if (rc != AT_OK) {
        return rc;
    }
    struct at_yaml_doc *docs = NULL;
    size_t count = 0;
    const char *file =
        at_arena_strdup(cli->arena, strcmp(path, "-") == 0 ? "standard input" : path);
    rc = at_yaml_parse(text->data, text->len, &docs, &count, err);
    if (rc != AT_OK) {
        return at_err_wrap(err, rc, "%s", file);
    }
    for (size_t i = 0; i < count && rc == AT_OK; i++) {
        struct cli_manifest m = {.file = file,
                                 .document = i + 1,
                                 .line = docs[i].line,
                                 .text = text->data,
                                 .text_len = text->len};
        rc = add_document(cli, out, m, docs[i].value, err);
    }
    at_yaml_docs_free(docs, count);
    return rc;
}

static bool is_manifest_name(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot != NULL &&
           (strcmp(dot, ".yaml") == 0 || strcmp(dot, ".yml") == 0 || strcmp(dot, ".json") == 0);
}

#define FOLDER_DEPTH_MAX 32

static enum at_rc load_folder(const struct cli *cli, struct cli_manifests *out, const char *path,
                              char **names, size_t count, int depth, size_t *taken,
                              struct at_err *err);

/* A file, or with --recursive a folder in a folder. */
static enum at_rc load_entry(const struct cli *cli, struct cli_manifests *out, const char *full,
                             const char *name, int depth, size_t *taken, struct at_err *err)
{
    char **names = NULL;
    size_t count = 0;
    if (is_manifest_name(name)) {
        (*taken)++;
        return load_file(cli, out, full, err);
    }
    if (!cli_flag(cli, OPT_RECURSIVE_FILES) || name[0] == '.' ||
        at_dir_list(full, &names, &count, NULL) != AT_OK) {
        return AT_OK;
    }
    if (depth == FOLDER_DEPTH_MAX) {
        for (size_t i = 0; i < count; i++) {
            at_free(names[i]);
        }
        at_free(names);
        return at_err_set(err, AT_TOO_LARGE, "%s: folders are nested deeper than %d", full,
                          FOLDER_DEPTH_MAX);
    }
    return load_folder(cli, out, full, names, count, depth + 1, taken, err);
}

static enum at_rc load_folder(const struct cli *cli, struct cli_manifests *out, const char *path,
                              char **names, size_t count, int depth, size_t *taken,
                              struct at_err *err)
{
    size_t len = strlen(path);
    const char *slash = len != 0 && path[len - 1] == '/' ? "" : "/";
    enum at_rc rc = AT_OK;
    for (size_t i = 0; i < count; i++) {
        if (rc == AT_OK) {
            const char *full = at_arena_printf(cli->arena, "%s%s%s", path, slash, names[i]);
            rc = load_entry(cli, out, full, names[i], depth, taken, err);
        }
        at_free(names[i]);
    }
    at_free(names);
    if (rc == AT_OK && *taken == 0 && depth == 0) {
        rc = at_err_set(err, AT_NOT_FOUND, "no .yaml, .yml or .json file in the folder %s%s", path,
                        cli_flag(cli, OPT_RECURSIVE_FILES) ? " or below"
                                                           : "; -R looks into the folders below");
    }
    return rc;
}

enum at_rc cli_manifests_load(const struct cli *cli, struct cli_manifests *out, struct at_err *err)
{
    const struct cli_values *files = &cli->values[OPT_FILE];
    for (size_t i = 0; i < files->n; i++) {
        char **names;
        size_t count;
        const char *path = files->items[i];
        bool folder = strcmp(path, "-") != 0 && at_dir_list(path, &names, &count, NULL) == AT_OK;
        size_t taken = 0;
        enum at_rc rc = folder ? load_folder(cli, out, path, names, count, 0, &taken, err)
                               : load_file(cli, out, path, err);
        if (rc != AT_OK) {
            return rc;
        }
    }
    if (out->n == 0) {
        return at_err_set(err, AT_BAD_REQUEST,
                          files->n == 0 ? "say which files: -f FILE, -f FOLDER or -f -"
                                        : "the files hold no documents");
    }
    return AT_OK;
}
