/* A model folder to a ModelPack artifact: one raw layer a file, so that equal files are one blob
 * wherever they are. Nothing of it depends on when or where it was made. */
#include "core/mem.h"
#include "core/str.h"
#include "package/model.h"
#include "sys/file.h"

#include <stdio.h>
#include <string.h>

static bool ends(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcasecmp(text + n - m, end) == 0;
}

static const char *media_type_of(const struct at_pkg_model *m, const char *path)
{
    static const char *const WEIGHTS[] = {".onnx", ".gguf", ".bin",  ".data", ".safetensors",
                                          ".pt",   ".pth",  ".ckpt", ".h5",   ".npz"};
    static const char *const DOCS[] = {".md",     ".txt",    ".pdf",  ".rst",
                                       "LICENSE", "LICENCE", "NOTICE"};
    if (strcmp(path, AT_PKG_YAML) == 0) {
        return AT_PKG_TYPE_DESCRIPTION;
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(WEIGHTS); i++) {
        if (ends(path, WEIGHTS[i]) || strcmp(path, m->file) == 0) {
            return AT_PKG_TYPE_WEIGHT;
        }
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(DOCS); i++) {
        if (ends(path, DOCS[i])) {
            return AT_PKG_TYPE_DOC;
        }
    }
    return ends(path, ".py") || ends(path, ".sh") ? AT_PKG_TYPE_CODE : AT_PKG_TYPE_WEIGHT_CONFIG;
}

struct packing {
    const char *folder;
    const struct at_pkg_store *store;
    const struct at_pkg_model *model;
    json_t *layers, *diff_ids;
};

static enum at_rc add_file(struct packing *p, const char *path, const char *wanted,
                           struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *whole = at_asprintf("%s/%s", p->folder, path);
    char digest[AT_PKG_DIGEST_BYTES];
    int64_t bytes = 0;
    enum at_rc rc = at_pkg_store_put_file(p->store, whole, digest, &bytes, err);
    if (rc == AT_OK && wanted != NULL && strcmp(wanted, digest) != 0) {
        return at_err_set(err, AT_CORRUPT,
                          "%s has the digest %s, " AT_PKG_YAML " says %s; if the change was meant, "
                          "run atoll model init --force %s",
                          whole, digest, wanted, p->folder);
    }
    if (rc == AT_OK) {
        json_array_append_new(p->layers,
                              at_pkg_descriptor_json(media_type_of(p->model, path), digest, bytes,
                                                     json_pack("{s:s,s:s}", AT_PKG_NOTE_PATH, path,
                                                               AT_PKG_NOTE_TITLE, path)));
        json_array_append_new(p->diff_ids, json_string(digest));
    }
    return rc;
}

static enum at_rc add_files(struct packing *p, const json_t *on_disk, json_t *left_out,
                            struct at_err *err)
{
    const json_t *files = json_object_get(p->model->json, "files");
    size_t i, k;
    const json_t *entry;
    enum at_rc rc = add_file(p, AT_PKG_YAML, NULL, err);
    json_array_foreach(files, i, entry)
    {
        const char *path = json_string_value(json_object_get(entry, "path"));
        bool again = strcmp(path, AT_PKG_YAML) == 0;
        if (rc == AT_OK && !again) {
            rc = add_file(p, path, json_string_value(json_object_get(entry, "digest")), err);
        }
    }
    json_array_foreach(on_disk, i, entry)
    {
        const char *path = json_string_value(entry);
        bool listed = strcmp(path, AT_PKG_YAML) == 0;
        for (k = 0; k < json_array_size(files) && !listed; k++) {
            listed = at_streq(json_string_value(json_object_get(json_array_get(files, k), "path")),
                              path);
        }
        if (!listed && files == NULL) {
            rc = rc != AT_OK ? rc : add_file(p, path, NULL, err); /* no list: all of them */
        } else if (!listed) {
            json_array_append_new(left_out, json_string(path));
        }
    }
    return rc;
}

/* The configuration that ModelPack asks for. */
static json_t *config_json(const struct packing *p)
{
    const struct at_pkg_model *m = p->model;
    json_t *descriptor = json_pack("{s:s,s:s}", "name", m->name, "version", m->version);
    json_t *config = json_pack("{s:s}", "format", m->format);
    static const struct {
        const char *from, *to;
    } TEXTS[] = {{"description", "description"}, {"vendor", "vendor"}, {"family", "family"}};
    for (size_t i = 0; i < AT_ARRAY_LEN(TEXTS); i++) {
        const json_t *text = json_object_get(m->json, TEXTS[i].from);
        if (json_is_string(text)) {
            json_object_set(descriptor, TEXTS[i].to, (json_t *)text);
        }
    }
    if (m->licence[0] != '\0') {
        json_object_set_new(descriptor, "licenses", json_pack("[s]", m->licence));
    }
    const json_t *signature = json_object_get(m->json, "signature");
    const json_t *architecture = json_object_get(signature, "architecture");
    const json_t *quantization = json_object_get(signature, "quantization");
    if (json_is_string(architecture)) {
        json_object_set(config, "architecture", (json_t *)architecture);
    }
    if (json_is_string(quantization)) {
        json_object_set(config, "quantization", (json_t *)quantization);
    }
    return json_pack("{s:o,s:o,s:{s:s,s:O}}", "descriptor", descriptor, "config", config, "modelfs",
                     "type", "layers", "diffIds", p->diff_ids);
}

static json_t *annotations(const struct at_pkg_model *m)
{
    json_t *notes = json_pack("{s:s,s:s,s:s,s:s}", "org.opencontainers.image.title", m->name,
                              "org.opencontainers.image.version", m->version,
                              "dev.atoll.model.format", m->format, "dev.atoll.model.file", m->file);
    const struct {
        const char *key, *value;
    } more[] = {{"org.opencontainers.image.licenses", m->licence},
                {"dev.atoll.model.runner", m->runner},
                {"dev.atoll.model.dataClass", m->data_class}};
    for (size_t i = 0; i < AT_ARRAY_LEN(more); i++) {
        if (more[i].value[0] != '\0') {
            json_object_set_new(notes, more[i].key, json_string(more[i].value));
        }
    }
    return notes;
}

static enum at_rc put_json(const struct at_pkg_store *store, const json_t *json,
                           char digest[AT_PKG_DIGEST_BYTES], int64_t *bytes, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {.max = PKG_DOCUMENT_BYTES_MAX};
    if (at_json_dump(json, &text) != AT_OK) {
        return at_err_set(err, AT_TOO_LARGE, "the package has too many files");
    }
    *bytes = (int64_t)text.len;
    return at_pkg_store_put(store, text.data, text.len, digest, err);
}

static enum at_rc put_manifest(struct packing *p, char ret_digest[AT_PKG_DIGEST_BYTES],
                               struct at_err *err)
{
    char config_digest[AT_PKG_DIGEST_BYTES];
    int64_t bytes = 0;
    AT_CLEANUP(at_cleanup_json) json_t *config = config_json(p);
    enum at_rc rc = put_json(p->store, config, config_digest, &bytes, err);
    if (rc != AT_OK) {
        return rc;
    }
    AT_CLEANUP(at_cleanup_json)
    json_t *manifest =
        json_pack("{s:i,s:s,s:s,s:o,s:O,s:o}", "schemaVersion", 2, "mediaType",
                  AT_PKG_TYPE_MANIFEST, "artifactType", AT_PKG_TYPE_MODEL, "config",
                  at_pkg_descriptor_json(AT_PKG_TYPE_MODEL_CONFIG, config_digest, bytes, NULL),
                  "layers", p->layers, "annotations", annotations(p->model));
    return put_json(p->store, manifest, ret_digest, &bytes, err);
}

enum at_rc at_pkg_pack(const char *folder, const struct at_pkg_store *store,
                       char ret_digest[AT_PKG_DIGEST_BYTES], json_t **ret_left_out,
                       struct at_err *err)
{
    struct at_pkg_model model = {0};
    AT_CLEANUP(at_cleanup_json) json_t *on_disk = NULL;
    AT_CLEANUP(at_cleanup_json) json_t *left_out = json_array();
    AT_CLEANUP(at_cleanup_json) json_t *layers = json_array();
    AT_CLEANUP(at_cleanup_json) json_t *diff_ids = json_array();
    enum at_rc rc = at_pkg_model_read(folder, &model, err);
    if (rc != AT_OK) {
        return rc;
    }
    struct packing p = {folder, store, &model, layers, diff_ids};
    rc = at_pkg_files(folder, &on_disk, err);
    if (rc != AT_OK) {
        on_disk = NULL;
    }
    rc = rc != AT_OK ? rc : add_files(&p, on_disk, left_out, err);
    rc = rc != AT_OK ? rc : put_manifest(&p, ret_digest, err);
    at_pkg_model_done(&model);
    if (rc == AT_OK && ret_left_out != NULL) {
        *ret_left_out = json_incref(left_out);
    }
    return rc;
}
