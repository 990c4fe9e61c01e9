/* Images: from an OCI layout or, through skopeo, from a registry; unpacked by umoci once per
 * digest. */
#include "core/digest.h"
#include "core/mem.h"
#include "core/str.h"
#include "runtime/oci_priv.h"
#include "sys/file.h"
#include "sys/sys.h"

#include <assert.h>
#include <string.h>

#define REF_NAME "org.opencontainers.image.ref.name"
#define INDEX_TYPE "application/vnd.oci.image.index.v1+json"
#define PULLED_TAG "image"

char **at_oci_environment(void)
{
    static const char *const NAMES[] = {"PATH",          "HOME",        "REGISTRY_AUTH_FILE",
                                        "HTTP_PROXY",    "HTTPS_PROXY", "NO_PROXY",
                                        "http_proxy",    "https_proxy", "no_proxy",
                                        "SSL_CERT_FILE", "TMPDIR",      "XDG_RUNTIME_DIR"};
    char **envp = at_alloc((AT_ARRAY_LEN(NAMES) + 1) * sizeof *envp);
    size_t n = 0;
    for (size_t i = 0; i < AT_ARRAY_LEN(NAMES); i++) {
        const char *value = at_sys_getenv(NAMES[i]);
        if (value != NULL) {
            envp[n++] = at_asprintf("%s=%s", NAMES[i], value);
        }
    }
    return envp;
}

void at_oci_environment_free(char **envp)
{
    for (char **e = envp; *e != NULL; e++) {
        at_free(*e);
    }
    at_free(envp);
}

/* Last line that is not empty, cut at its end. */
static const char *last_line(struct at_buf *text)
{
    while (text->len > 0 && strchr("\n\r ", text->data[text->len - 1]) != NULL) {
        text->data[--text->len] = '\0';
    }
    if (text->data == NULL) {
        return "";
    }
    const char *newline = strrchr(text->data, '\n');
    return newline != NULL ? newline + 1 : text->data;
}

enum at_rc at_oci_command(const char *const *argv, int64_t timeout_ns, const bool *cancelled,
                          struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
    char **envp = at_oci_environment();
    struct at_process_options options = {.argv = argv,
                                         .envp = (const char *const *)envp,
                                         .stdin_fd = -1,
                                         .stdout_fd = -1,
                                         .stderr_fd = -1,
                                         .uid = -1,
                                         .gid = -1,
                                         .cancelled = cancelled};
    int code = 0;
    enum at_rc rc = at_process_run(&options, timeout_ns, &out, &code, err);
    at_oci_environment_free(envp);
    if (rc == AT_OK && code != 0) {
        rc = at_err_set(err, AT_UPSTREAM, "%s failed: %s", argv[0], last_line(&out));
    }
    return rc;
}

struct layout_ref {
    char *dir, *tag;
};

static void layout_ref_done(struct layout_ref *ref)
{
    at_free(ref->dir);
    at_free(ref->tag);
}

enum at_rc at_oci_image_check(const char *image, struct at_err *err)
{
    if (image == NULL || *image == '\0') {
        return at_err_set(err, AT_INVALID, "the oci driver needs an image");
    }
    bool layout = strncmp(image, "oci:/", 5) == 0;
    if (!layout && (strncmp(image, "docker://", 9) != 0 || image[9] == '\0')) {
        return at_err_set(err, AT_INVALID,
                          "image \"%s\" must be oci:/path/to/layout:tag or docker://registry/name",
                          image);
    }
    return AT_OK;
}

static void split_layout(const char *image, struct layout_ref *ret)
{
    const char *path = image + strlen("oci:");
    const char *colon = strrchr(path, ':');
    bool tagged = colon != NULL && strchr(colon, '/') == NULL;
    ret->dir = tagged ? at_strndup(path, (size_t)(colon - path)) : at_strdup(path);
    ret->tag = at_strdup(tagged ? colon + 1 : "latest");
}

static enum at_rc read_json(const char *path, json_t **ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = at_file_read(path, AT_RUNTIME_CONFIG_BYTES_MAX, &text, err);
    if (rc != AT_OK) {
        return rc;
    }
    rc = at_json_parse(text.data, text.len, ret, err);
    return rc == AT_OK ? AT_OK : at_err_wrap(err, rc, "%s", path);
}

enum at_rc at_oci_index_find(const json_t *index, const char *tag, char out_digest[80],
                             bool *ret_nested, struct at_err *err)
{
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(index, "manifests"), i, item)
    {
        const char *name =
            json_string_value(json_object_get(json_object_get(item, "annotations"), REF_NAME));
        const char *digest = at_json_str_at(item, "digest", "");
        if (!at_streq(name, tag)) {
            continue;
        }
        size_t hex = strspn(digest + (strncmp(digest, "sha256:", 7) == 0 ? 7 : strlen(digest)),
                            "0123456789abcdef");
        if (hex != 64 || digest[71] != '\0') {
            return at_err_set(err, AT_INVALID, "the layout's digest of tag \"%s\" is malformed",
                              tag);
        }
        memcpy(out_digest, digest, 72);
        *ret_nested = at_streq(at_json_str_at(item, "mediaType", ""), INDEX_TYPE);
        return AT_OK;
    }
    return at_err_set(err, AT_NOT_FOUND, "the image layout has no tag \"%s\"", tag);
}

static enum at_rc find_digest(const struct layout_ref *ref, char out_digest[80], bool *ret_nested,
                              struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/index.json", ref->dir);
    AT_CLEANUP(at_cleanup_json) json_t *index = NULL;
    enum at_rc rc = read_json(path, &index, err);
    return rc != AT_OK ? rc : at_oci_index_find(index, ref->tag, out_digest, ret_nested, err);
}

/* A registry on this machine's own loopback is spoken to in the clear, as every container tool
 * does. */
static bool is_loopback_registry(const char *image)
{
    static const char *const PREFIXES[] = {
        "docker://127.", "docker://localhost:", "docker://localhost/", "docker://[::1]"};
    for (size_t i = 0; i < AT_ARRAY_LEN(PREFIXES); i++) {
        if (strncmp(image, PREFIXES[i], strlen(PREFIXES[i])) == 0) {
            return true;
        }
    }
    return false;
}

/* Copy an image into a layout of our own, which skopeo does for this machine's platform. When that
 * fails and an earlier copy is there, it is used: an edge box runs without its registry. */
static enum at_rc pull(const char *state_dir, const char *image, const bool *cancelled,
                       struct layout_ref *ret, struct at_err *err)
{
    char hex[AT_SHA256_HEX_BYTES];
    at_sha256_hex(image, strlen(image), hex);
    ret->dir = at_asprintf("%s/layouts/%s", state_dir, hex);
    ret->tag = at_strdup(PULLED_TAG);
    char digest[80];
    bool nested;
    bool have = find_digest(ret, digest, &nested, NULL) == AT_OK;
    if (have && strstr(image, "@sha256:") != NULL) {
        return AT_OK; /* named by content: cannot have changed */
    }
    enum at_rc rc = at_dir_make(ret->dir, 0711, err);
    if (rc != AT_OK) {
        return rc;
    }
    AT_CLEANUP(at_cleanup_free) char *target = at_asprintf("oci:%s:%s", ret->dir, ret->tag);
    const char *verify =
        is_loopback_registry(image) ? "--src-tls-verify=false" : "--src-tls-verify=true";
    const char *argv[] = {"skopeo", "copy", "--quiet", verify, image, target, NULL};
    rc = at_oci_command(argv, AT_RUNTIME_IMAGE_TIMEOUT_NS, cancelled, err);
    return have && rc != AT_CANCELLED ? AT_OK : rc;
}

static enum at_rc unpack(const char *state_dir, const struct layout_ref *ref, const char *dir,
                         const bool *cancelled, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *temporary = at_asprintf("%s.tmp", dir);
    AT_CLEANUP(at_cleanup_free) char *parent = at_asprintf("%s/images", state_dir);
    AT_CLEANUP(at_cleanup_free) char *from = at_asprintf("%s:%s", ref->dir, ref->tag);
    enum at_rc rc = at_dir_make(parent, 0711, err);
    if (rc == AT_OK) {
        rc = at_tree_remove(temporary, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    const char *argv[] = {"umoci", "unpack", "--image", from, temporary, NULL};
    rc = at_oci_command(argv, AT_RUNTIME_IMAGE_TIMEOUT_NS, cancelled, err);
    if (rc == AT_OK) {
        rc = at_file_chmod(temporary, 0711, err);
    }
    return rc == AT_OK ? at_file_rename(temporary, dir, err) : rc;
}

static json_t *read_blob(const char *layout, const char *digest)
{
    AT_CLEANUP(at_cleanup_free)
    char *path = at_asprintf("%s/blobs/sha256/%s", layout,
                             strncmp(digest, "sha256:", 7) == 0 ? digest + 7 : "none");
    json_t *value = NULL;
    return strchr(digest, '/') == NULL && read_json(path, &value, NULL) == AT_OK ? value : NULL;
}

/* Entrypoint of the image's configuration; an empty array when it has none. */
static json_t *read_entrypoint(const char *layout, const char *manifest_digest)
{
    AT_CLEANUP(at_cleanup_json) json_t *manifest = read_blob(layout, manifest_digest);
    AT_CLEANUP(at_cleanup_json)
    json_t *config = read_blob(layout, at_json_str_at(manifest, "config.digest", ""));
    json_t *entrypoint = json_deep_copy(at_json_at(config, "config.Entrypoint"));
    if (!json_is_array(entrypoint)) {
        json_decref(entrypoint);
        return json_array();
    }
    return entrypoint;
}

static enum at_rc load(const char *state_dir, const struct layout_ref *ref, const bool *cancelled,
                       struct at_oci_image *ret, struct at_err *err)
{
    char digest[80];
    bool nested = false;
    enum at_rc rc = find_digest(ref, digest, &nested, err);
    if (rc != AT_OK) {
        return rc;
    }
    AT_CLEANUP(at_cleanup_free)
    char *dir = at_asprintf("%s/images/%s", state_dir, digest + strlen("sha256:"));
    AT_CLEANUP(at_cleanup_free) char *config_path = at_asprintf("%s/config.json", dir);
    if (!at_file_exists(config_path)) {
        rc = unpack(state_dir, ref, dir, cancelled, err);
        if (rc != AT_OK) {
            return at_err_wrap(err, rc, "cannot unpack the image");
        }
    }
    AT_CLEANUP(at_cleanup_json) json_t *config = NULL;
    rc = read_json(config_path, &config, err);
    if (rc != AT_OK) {
        return rc;
    }
    ret->rootfs = at_asprintf("%s/rootfs", dir);
    ret->process = json_incref(json_object_get(config, "process"));
    ret->entrypoint = read_entrypoint(ref->dir, digest);
    return AT_OK;
}

enum at_rc at_oci_image_get(const char *state_dir, const char *image, const bool *cancelled,
                            struct at_oci_image *ret, struct at_err *err)
{
    enum at_rc rc = at_oci_image_check(image, err);
    if (rc != AT_OK) {
        return rc;
    }
    AT_CLEANUP(layout_ref_done) struct layout_ref ref = {0};
    bool nested = true;
    if (strncmp(image, "oci:", 4) == 0) {
        char digest[80];
        split_layout(image, &ref);
        rc = find_digest(&ref, digest, &nested, err);
        if (rc == AT_OK && nested) {
            layout_ref_done(&ref);
        }
    }
    if (rc == AT_OK && nested) {
        rc = pull(state_dir, image, cancelled, &ref, err);
    }
    if (rc == AT_OK) {
        rc = load(state_dir, &ref, cancelled, ret, err);
    }
    return rc != AT_OK ? at_err_wrap(err, rc, "image %s", image) : AT_OK;
}

void at_oci_image_done(struct at_oci_image *image)
{
    at_free(image->rootfs);
    json_decref(image->process);
    json_decref(image->entrypoint);
    *image = (struct at_oci_image){0};
}
