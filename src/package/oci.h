/* The documents of OCI images and artifacts (image specification 1.1) and of CNCF ModelPack: what
 * is read of them, checked. Pure. */
#ifndef AT_PACKAGE_OCI_H
#define AT_PACKAGE_OCI_H

#include "core/arena.h"
#include "core/json.h"
#include "package/ref.h"

#define AT_PKG_TYPE_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define AT_PKG_TYPE_INDEX "application/vnd.oci.image.index.v1+json"
#define AT_PKG_TYPE_IMAGE_CONFIG "application/vnd.oci.image.config.v1+json"
#define AT_PKG_TYPE_IMAGE_LAYER "application/vnd.oci.image.layer.v1.tar"
#define AT_PKG_TYPE_DOCKER_MANIFEST "application/vnd.docker.distribution.manifest.v2+json"
#define AT_PKG_TYPE_DOCKER_LIST "application/vnd.docker.distribution.manifest.list.v2+json"
#define AT_PKG_TYPE_MODEL "application/vnd.cncf.model.manifest.v1+json"
#define AT_PKG_TYPE_MODEL_CONFIG "application/vnd.cncf.model.config.v1+json"
#define AT_PKG_TYPE_WEIGHT "application/vnd.cncf.model.weight.v1.raw"
#define AT_PKG_TYPE_WEIGHT_CONFIG "application/vnd.cncf.model.weight.config.v1.raw"
#define AT_PKG_TYPE_DOC "application/vnd.cncf.model.doc.v1.raw"
#define AT_PKG_TYPE_CODE "application/vnd.cncf.model.code.v1.raw"
#define AT_PKG_TYPE_DESCRIPTION "application/vnd.atoll.model.v1+yaml" /* model.yaml */
#define AT_PKG_TYPE_SIGNATURE "application/vnd.dev.cosign.simplesigning.v1+json"

#define AT_PKG_NOTE_PATH "org.cncf.model.filepath"
#define AT_PKG_NOTE_TITLE "org.opencontainers.image.title"
#define AT_PKG_NOTE_NAME "org.opencontainers.image.ref.name"
#define AT_PKG_NOTE_SIGNATURE "dev.cosignproject.cosign/signature"

struct at_pkg_descriptor {
    const char *media_type;
    const char *artifact_type; /* may be NULL */
    char digest[AT_PKG_DIGEST_BYTES];
    int64_t bytes;
    const json_t *annotations; /* may be NULL; of the document */
};

struct at_pkg_manifest {
    json_t *json;
    const char *media_type;    /* may be NULL */
    const char *artifact_type; /* may be NULL */
    struct at_pkg_descriptor config;
    struct at_pkg_descriptor *layers; /* of the arena that was handed in */
    size_t n_layers;
};

/* in:  text: a manifest's bytes, whose digest the caller has checked
 * err: AT_CORRUPT says what is wrong; AT_UNSUPPORTED an index, another schema, another digest
 * own: at_pkg_manifest_done. The layers live in arena. */
enum at_rc at_pkg_manifest_parse(const char *text, size_t len, struct at_arena *arena,
                                 struct at_pkg_manifest *ret, struct at_err *err) AT_WARN_UNUSED;
void at_pkg_manifest_done(struct at_pkg_manifest *manifest);
bool at_pkg_manifest_is_model(const struct at_pkg_manifest *manifest);

struct at_pkg_index {
    json_t *json;
    struct at_pkg_descriptor *manifests;
    size_t n_manifests;
};
enum at_rc at_pkg_index_parse(const char *text, size_t len, struct at_arena *arena,
                              struct at_pkg_index *ret, struct at_err *err) AT_WARN_UNUSED;
void at_pkg_index_done(struct at_pkg_index *index);
bool at_pkg_type_is_index(const char *media_type);
/* Its own mediaType or, without one, what it looks like. */
bool at_pkg_text_is_index(const char *text, size_t len);

/* One descriptor. field: what it is, for errors. */
enum at_rc at_pkg_descriptor_parse(const json_t *json, const char *field,
                                   struct at_pkg_descriptor *ret,
                                   struct at_err *err) AT_WARN_UNUSED;
/* own: caller decrefs. annotations_take may be NULL. */
json_t *at_pkg_descriptor_json(const char *media_type, const char *digest, int64_t bytes,
                               json_t *annotations_take);
const char *at_pkg_note(const struct at_pkg_descriptor *d, const char *key); /* NULL: none */
/* The path of a layer's file within the package; NULL: it has none (an archive, or nameless). */
const char *at_pkg_layer_path(const struct at_pkg_descriptor *layer);
enum at_pkg_layer { AT_PKG_LAYER_RAW, AT_PKG_LAYER_TAR, AT_PKG_LAYER_TAR_GZIP, AT_PKG_LAYER_OTHER };
enum at_pkg_layer at_pkg_layer_kind(const struct at_pkg_descriptor *layer);

/* Is a path one within a folder: relative, no empty part, no "." or "..", no control characters, no
 * backslash, within the limits. why: of at least 64 bytes. */
bool at_pkg_path_is_safe(const char *path, char *why, size_t why_size);

#endif
