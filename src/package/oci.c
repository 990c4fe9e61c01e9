#include "package/oci.h"

#include "core/mem.h"
#include "core/str.h"

#include <stdio.h>
#include <string.h>

bool at_pkg_path_is_safe(const char *path, char *why, size_t why_size)
{
    struct at_str rest = at_str_of(path);
    size_t depth = 0;
    const char *bad = rest.len == 0                   ? "it is empty"
                      : rest.len > PKG_PATH_BYTES_MAX ? "it is too long"
                      : path[0] == '/'                ? "it is absolute"
                      : path[rest.len - 1] == '/'     ? "it ends with a slash"
                                                      : NULL;
    for (size_t i = 0; i < rest.len && bad == NULL; i++) {
        if ((unsigned char)path[i] < 0x20 || path[i] == 0x7f || path[i] == '\\') {
            bad = "it has control characters or backslashes";
        }
    }
    if (bad == NULL && at_str_utf8_prefix(rest) != rest.len) {
        bad = "it is not UTF-8";
    }
    while (bad == NULL && rest.len > 0) {
        struct at_str part = at_str_cut(&rest, '/');
        if (part.len == 0 || at_str_eq(part, ".") || at_str_eq(part, "..")) {
            bad = "it leaves its folder";
        } else if (part.len > 255 || ++depth > PKG_FOLDER_DEPTH_MAX) {
            bad = "it is too deep, or a name in it too long";
        }
    }
    if (bad != NULL) {
        snprintf(why, why_size, "%s", bad);
    }
    return bad == NULL;
}

bool at_pkg_type_is_index(const char *media_type)
{
    return at_streq(media_type, AT_PKG_TYPE_INDEX) || at_streq(media_type, AT_PKG_TYPE_DOCKER_LIST);
}

enum at_rc at_pkg_descriptor_parse(const json_t *json, const char *field,
                                   struct at_pkg_descriptor *ret, struct at_err *err)
{
    const char *type = json_string_value(json_object_get(json, "mediaType"));
    const json_t *digest = json_object_get(json, "digest");
    const json_t *size = json_object_get(json, "size");
    const json_t *notes = json_object_get(json, "annotations");
    const json_t *urls = json_object_get(json, "urls");
    if (!json_is_object(json) || type == NULL || type[0] == '\0') {
        return at_err_set(err, AT_CORRUPT, "%s has no mediaType", field);
    }
    if (!json_is_string(digest)) {
        return at_err_set(err, AT_CORRUPT, "%s has no digest", field);
    }
    if (!at_pkg_digest_is(json_string_value(digest), json_string_length(digest))) {
        return at_err_set(err, AT_UNSUPPORTED, "%s has the digest %.100s; only sha256 is known",
                          field, json_string_value(digest));
    }
    if (!json_is_integer(size) || json_integer_value(size) < 0 ||
        json_integer_value(size) > PKG_BLOB_BYTES_MAX) {
        return at_err_set(err, AT_CORRUPT, "%s has no usable size", field);
    }
    if ((notes != NULL && !json_is_object(notes)) || json_array_size(urls) > 0) {
        return at_err_set(err, AT_UNSUPPORTED,
                          "%s has annotations that are no object, or is kept elsewhere (urls)",
                          field);
    }
    *ret = (struct at_pkg_descriptor){.media_type = type,
                                      .artifact_type =
                                          json_string_value(json_object_get(json, "artifactType")),
                                      .bytes = json_integer_value(size),
                                      .annotations = notes};
    snprintf(ret->digest, sizeof ret->digest, "%s", json_string_value(digest));
    return AT_OK;
}

/* All of a list. */
static enum at_rc parse_list(const json_t *list, const char *name, size_t max,
                             struct at_arena *arena, struct at_pkg_descriptor **ret, size_t *ret_n,
                             struct at_err *err)
{
    size_t n = json_array_size(list);
    if (!json_is_array(list)) {
        return at_err_set(err, AT_CORRUPT, "it has no list of %s", name);
    }
    if (n > max) {
        return at_err_set(err, AT_TOO_LARGE, "it has %zu %s, at most %zu are taken", n, name, max);
    }
    struct at_pkg_descriptor *items = at_arena_alloc(arena, (n + 1) * sizeof *items);
    enum at_rc rc = items != NULL ? AT_OK : at_err_set(err, AT_TOO_LARGE, "too many %s", name);
    for (size_t i = 0; i < n && rc == AT_OK; i++) {
        char field[64];
        snprintf(field, sizeof field, "%s[%zu]", name, i);
        rc = at_pkg_descriptor_parse(json_array_get(list, i), field, &items[i], err);
    }
    if (rc == AT_OK) {
        *ret = items;
        *ret_n = n;
    }
    return rc;
}

static enum at_rc document(const char *text, size_t len, json_t **ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *json = NULL;
    enum at_rc rc =
        len > PKG_DOCUMENT_BYTES_MAX
            ? at_err_set(err, AT_TOO_LARGE, "it is larger than %zu bytes", PKG_DOCUMENT_BYTES_MAX)
            : at_json_parse(text, len, &json, err);
    if (rc != AT_OK) {
        json = NULL;
        return rc == AT_TOO_LARGE ? rc : at_err_wrap(err, AT_CORRUPT, "it is not JSON");
    }
    const json_t *version = json_object_get(json, "schemaVersion");
    if (!json_is_object(json) || !json_is_integer(version)) {
        return at_err_set(err, AT_CORRUPT, "it has no schemaVersion");
    }
    if (json_integer_value(version) != 2) {
        return at_err_set(err, AT_UNSUPPORTED, "it has schemaVersion %lld; only 2 is known",
                          (long long)json_integer_value(version));
    }
    *ret = json_incref(json);
    return AT_OK;
}

static enum at_rc manifest_read(struct at_pkg_manifest *m, struct at_arena *arena,
                                struct at_err *err)
{
    m->media_type = json_string_value(json_object_get(m->json, "mediaType"));
    m->artifact_type = json_string_value(json_object_get(m->json, "artifactType"));
    if (at_pkg_type_is_index(m->media_type) || json_object_get(m->json, "manifests") != NULL) {
        return at_err_set(err, AT_UNSUPPORTED, "it is an index of several, not one manifest");
    }
    if (m->media_type != NULL && !at_streq(m->media_type, AT_PKG_TYPE_MANIFEST) &&
        !at_streq(m->media_type, AT_PKG_TYPE_DOCKER_MANIFEST)) {
        return at_err_set(err, AT_UNSUPPORTED, "it is a %.100s, which is not known", m->media_type);
    }
    enum at_rc rc =
        at_pkg_descriptor_parse(json_object_get(m->json, "config"), "config", &m->config, err);
    return rc != AT_OK ? rc
                       : parse_list(json_object_get(m->json, "layers"), "layers", PKG_LAYERS_MAX,
                                    arena, &m->layers, &m->n_layers, err);
}

enum at_rc at_pkg_manifest_parse(const char *text, size_t len, struct at_arena *arena,
                                 struct at_pkg_manifest *ret, struct at_err *err)
{
    struct at_pkg_manifest m = {0};
    enum at_rc rc = document(text, len, &m.json, err);
    rc = rc != AT_OK ? rc : manifest_read(&m, arena, err);
    if (rc != AT_OK) {
        json_decref(m.json);
        return at_err_wrap(err, rc, "manifest");
    }
    *ret = m;
    return AT_OK;
}

void at_pkg_manifest_done(struct at_pkg_manifest *manifest)
{
    json_decref(manifest->json);
    *manifest = (struct at_pkg_manifest){0};
}

bool at_pkg_manifest_is_model(const struct at_pkg_manifest *m)
{
    return at_streq(m->artifact_type, AT_PKG_TYPE_MODEL) ||
           at_streq(m->config.media_type, AT_PKG_TYPE_MODEL_CONFIG);
}

enum at_rc at_pkg_index_parse(const char *text, size_t len, struct at_arena *arena,
                              struct at_pkg_index *ret, struct at_err *err)
{
    struct at_pkg_index index = {0};
    enum at_rc rc = document(text, len, &index.json, err);
    const char *type = json_string_value(json_object_get(index.json, "mediaType"));
    if (rc == AT_OK && type != NULL && !at_pkg_type_is_index(type)) {
        rc = at_err_set(err, AT_UNSUPPORTED, "it is a %.100s", type);
    }
    rc = rc != AT_OK ? rc
                     : parse_list(json_object_get(index.json, "manifests"), "manifests",
                                  PKG_INDEX_MAX, arena, &index.manifests, &index.n_manifests, err);
    if (rc != AT_OK) {
        json_decref(index.json);
        return at_err_wrap(err, rc, "index");
    }
    *ret = index;
    return AT_OK;
}

void at_pkg_index_done(struct at_pkg_index *index)
{
    json_decref(index->json);
    *index = (struct at_pkg_index){0};
}

bool at_pkg_text_is_index(const char *text, size_t len)
{
    AT_CLEANUP(at_cleanup_json) json_t *json = NULL;
    if (len > PKG_DOCUMENT_BYTES_MAX || at_json_parse(text, len, &json, NULL) != AT_OK) {
        json = NULL;
        return false;
    }
    const char *type = json_string_value(json_object_get(json, "mediaType"));
    return type != NULL ? at_pkg_type_is_index(type)
                        : json_is_array(json_object_get(json, "manifests"));
}

json_t *at_pkg_descriptor_json(const char *media_type, const char *digest, int64_t bytes,
                               json_t *annotations_take)
{
    json_t *json = json_pack("{s:s,s:s,s:I}", "mediaType", media_type, "digest", digest, "size",
                             (json_int_t)bytes);
    if (annotations_take != NULL) {
        json_object_set_new(json, "annotations", annotations_take);
    }
    return json;
}

const char *at_pkg_note(const struct at_pkg_descriptor *d, const char *key)
{
    return json_string_value(json_object_get(d->annotations, key));
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

enum at_pkg_layer at_pkg_layer_kind(const struct at_pkg_descriptor *layer)
{
    const char *type = layer->media_type;
    bool model = at_str_starts(at_str_of(type), "application/vnd.cncf.model.");
    if (model && ends_with(type, ".tar")) {
        return AT_PKG_LAYER_TAR;
    }
    if (model && ends_with(type, ".tar+gzip")) {
        return AT_PKG_LAYER_TAR_GZIP;
    }
    if ((model && !ends_with(type, ".raw")) || ends_with(type, "+zstd") ||
        at_streq(type, AT_PKG_TYPE_SIGNATURE)) {
        return AT_PKG_LAYER_OTHER;
    }
    return at_pkg_layer_path(layer) != NULL ? AT_PKG_LAYER_RAW : AT_PKG_LAYER_OTHER;
}

const char *at_pkg_layer_path(const struct at_pkg_descriptor *layer)
{
    const char *path = at_pkg_note(layer, AT_PKG_NOTE_PATH);
    return path != NULL ? path : at_pkg_note(layer, AT_PKG_NOTE_TITLE);
}
