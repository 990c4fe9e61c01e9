#include "package/image.h"

#include "core/digest.h"
#include "core/mem.h"
#include "core/str.h"
#include "package/model.h"
#include "package/tar_file.h"
#include "sys/entry.h"
#include "sys/fd.h"
#include "sys/file.h"
#include "sys/sys.h"

#include <link.h>
#include <stdio.h>
#include <string.h>

#define MODEL_DIR "model"
#define PORT "8080"

/* --- what this process has loaded --- */

#define LIBRARIES_MAX 512

struct loaded {
    struct at_pkg_image_file *files;
    size_t n;
};

static int on_library(struct dl_phdr_info *info, size_t size, void *ctx)
{
    struct loaded *l = ctx;
    (void)size;
    if (info->dlpi_name == NULL || info->dlpi_name[0] != '/' || l->n == LIBRARIES_MAX) {
        return 0; /* the program itself, or the kernel's page */
    }
    /* Where /lib is a link to /usr/lib it stays one in a base image. */
    bool loader = strstr(info->dlpi_name, "/ld-linux") != NULL;
    bool merged = strncmp(info->dlpi_name, "/lib/", 5) == 0 && at_entry_is_symlink("/lib");
    l->files[l->n++] = (struct at_pkg_image_file){
        .from = at_strdup(info->dlpi_name),
        .to = at_asprintf("%s%s", merged && !loader ? "/usr" : "", info->dlpi_name)};
    return 0;
}

void at_pkg_loaded_libraries(struct at_pkg_image_file **ret, size_t *ret_n)
{
    struct loaded l = {.files = at_alloc(LIBRARIES_MAX * sizeof *l.files)};
    (void)dl_iterate_phdr(on_library, &l);
    *ret = l.files;
    *ret_n = l.n;
}

/* --- layers --- */

/* A layer is written into a file of its own first, for its digest is known at the end. */
struct layer {
    const struct at_pkg_store *store;
    char *path;
    struct at_file_writer *w;
    json_t *seen; /* folders that are in it */
};

static enum at_rc put(struct layer *l, const void *data, size_t len, struct at_err *err)
{
    return at_file_writer_write(l->w, data, len, err);
}

/* The folders above path, each once. */
static enum at_rc put_folders(struct layer *l, const char *path, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *copy = at_strdup(path);
    enum at_rc rc = AT_OK;
    for (char *slash = strchr(copy, '/'); slash != NULL && rc == AT_OK;
         slash = strchr(slash + 1, '/')) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf head = {0};
        *slash = '\0';
        if (json_object_get(l->seen, copy) == NULL) {
            json_object_set_new(l->seen, copy, json_true());
            rc = at_tar_head(copy, 0, true, 0755, &head);
            rc = rc != AT_OK ? rc : put(l, head.data, head.len, err);
        }
        *slash = '/';
    }
    return rc;
}

/* A file of this machine at a path of the image. */
static enum at_rc put_file(struct layer *l, const char *from, const char *path, unsigned mode,
                           struct at_err *err)
{
    int fd = -1;
    int64_t bytes = 0;
    path += path[0] == '/';
    enum at_rc rc = put_folders(l, path, err);
    rc = rc != AT_OK ? rc : at_entry_open_real(from, &fd, &bytes, err);
    rc = rc != AT_OK ? rc : at_tar_file_copy(l->w, path, fd, bytes, mode, from, err);
    at_fd_close(fd);
    return rc;
}

static enum at_rc layer_begin(const struct at_pkg_store *store, const char *name, struct layer *ret,
                              struct at_err *err)
{
    uint64_t noise = 0;
    at_sys_random(at_sys_real(), &noise, sizeof noise);
    *ret = (struct layer){.store = store,
                          .path = at_asprintf("%s/.layer-%s-%016llx", at_pkg_store_root(store),
                                              name, (unsigned long long)noise),
                          .seen = json_object()};
    return at_file_writer_new(ret->path, 0644, &ret->w, err);
}

/* rc: of what was put. out: the layer's descriptor, appended to layers, and its digest. */
static enum at_rc layer_end(struct layer *l, enum at_rc rc, json_t *layers, json_t *diff_ids,
                            struct at_err *err)
{
    static const char END[AT_TAR_END_BYTES];
    char digest[AT_PKG_DIGEST_BYTES];
    int64_t bytes = 0;
    rc = rc != AT_OK ? rc : put(l, END, sizeof END, err);
    rc = rc != AT_OK ? rc : at_file_writer_commit(l->w, err);
    rc = rc != AT_OK ? rc : at_pkg_store_put_file(l->store, l->path, digest, &bytes, err);
    at_file_writer_free(l->w);
    enum at_rc ignored = at_file_remove(l->path, NULL);
    (void)ignored;
    if (rc == AT_OK) {
        json_array_append_new(layers,
                              at_pkg_descriptor_json(AT_PKG_TYPE_IMAGE_LAYER, digest, bytes, NULL));
        json_array_append_new(diff_ids, json_string(digest));
    }
    json_decref(l->seen);
    at_free(l->path);
    return rc;
}

/* The program and its libraries, each library where the loader finds it here. */
static enum at_rc program_layer(const struct at_pkg_store *store, const struct at_pkg_image *image,
                                json_t *layers, json_t *diff_ids, struct at_err *err)
{
    static const char PASSWD[] = "root:x:0:0:root:/:/sbin/nologin\natoll:x:65532:65532:atoll:/:"
                                 "/sbin/nologin\n";
    struct layer l;
    AT_CLEANUP(at_cleanup_buf) struct at_buf head = {0};
    enum at_rc rc = layer_begin(store, "program", &l, err);
    rc = rc != AT_OK ? rc : put_file(&l, image->program, "usr/bin/atoll", 0755, err);
    for (size_t i = 0; rc == AT_OK && i < image->n_files; i++) {
        rc = put_file(&l, image->files[i].from, image->files[i].to, 0755, err);
    }
    rc = rc != AT_OK ? rc : put_folders(&l, "etc/passwd", err);
    rc = rc != AT_OK ? rc : at_tar_file_text(l.w, "etc/passwd", PASSWD, sizeof PASSWD - 1, err);
    /* A writable place. */
    rc = rc != AT_OK ? rc : at_tar_head("tmp", 0, true, 01777, &head);
    rc = rc != AT_OK ? rc : put(&l, head.data, head.len, err);
    return layer_end(&l, rc, layers, diff_ids, err);
}

static enum at_rc model_layer(const struct at_pkg_store *store, const char *folder, json_t *layers,
                              json_t *diff_ids, struct at_err *err)
{
    struct layer l;
    AT_CLEANUP(at_cleanup_json) json_t *files = NULL;
    size_t i;
    const json_t *file;
    enum at_rc rc = layer_begin(store, "model", &l, err);
    if (rc == AT_OK && at_pkg_files(folder, &files, err) != AT_OK) {
        files = NULL;
        rc = err != NULL ? err->rc : AT_IO;
    }
    json_array_foreach(files, i, file)
    {
        AT_CLEANUP(at_cleanup_free)
        char *from = at_asprintf("%s/%s", folder, json_string_value(file));
        AT_CLEANUP(at_cleanup_free)
        char *to = at_asprintf(MODEL_DIR "/%s", json_string_value(file));
        rc = rc != AT_OK ? rc : put_file(&l, from, to, 0644, err);
    }
    return layer_end(&l, rc, layers, diff_ids, err);
}

/* --- configuration and manifest --- */

static json_t *command_json(const struct at_pkg_model *m)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("/" MODEL_DIR "/%s", m->file);
    return json_pack("[s,s,s,s,s,s,s,s,s,s,s]", "/usr/bin/atoll", "runner", m->runner, "--model",
                     path, "--name", m->name, "--version", m->version, "--listen", "0.0.0.0:" PORT);
}

static json_t *config_json(const struct at_pkg_image *image, const struct at_pkg_model *m,
                           json_t *diff_ids)
{
    json_t *env = json_pack(
        "[s,s]", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp");
    json_t *config = json_pack(
        "{s:o,s:o,s:s,s:s,s:{s:{}},s:{s:s,s:s}}", "Env", env, "Entrypoint", command_json(m),
        "WorkingDir", "/" MODEL_DIR, "User", "65532:65532", "ExposedPorts", PORT "/tcp", "Labels",
        "org.opencontainers.image.title", m->name, "org.opencontainers.image.version", m->version);
    return json_pack("{s:s,s:s,s:o,s:{s:s,s:O}}", "architecture", image->architecture, "os",
                     "linux", "config", config, "rootfs", "type", "layers", "diff_ids", diff_ids);
}

static enum at_rc put_json(const struct at_pkg_store *store, const json_t *json,
                           char digest[AT_PKG_DIGEST_BYTES], size_t *len, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = at_json_dump(json, &text);
    *len = text.len;
    return rc != AT_OK ? rc : at_pkg_store_put(store, text.data, text.len, digest, err);
}

/* What the image builds on: its layers and the digests of what they unpack to. */
static enum at_rc base_layers(const struct at_pkg_store *store, const char *digest, json_t *layers,
                              json_t *diff_ids, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {.max = PKG_DOCUMENT_BYTES_MAX};
    AT_CLEANUP(at_cleanup_buf) struct at_buf config = {.max = PKG_CONFIG_BYTES_MAX};
    AT_CLEANUP(at_cleanup_json) json_t *json = NULL;
    struct at_pkg_manifest m = {0};
    enum at_rc rc = at_pkg_store_read(store, digest, PKG_DOCUMENT_BYTES_MAX, &text, err);
    rc = rc != AT_OK ? rc : at_pkg_manifest_parse(text.data, text.len, arena, &m, err);
    rc = rc != AT_OK
             ? rc
             : at_pkg_store_read(store, m.config.digest, PKG_CONFIG_BYTES_MAX, &config, err);
    if (rc == AT_OK && at_json_parse(config.data, config.len, &json, err) != AT_OK) {
        json = NULL;
        rc = at_err_set(err, AT_CORRUPT, "the base image's configuration is no JSON");
    }
    const json_t *ids = json_object_get(json_object_get(json, "rootfs"), "diff_ids");
    if (rc == AT_OK && (!json_is_array(ids) || json_array_size(ids) != m.n_layers)) {
        rc = at_err_set(err, AT_CORRUPT, "the base is no container image");
    }
    if (rc == AT_OK) {
        json_array_extend(layers, json_object_get(m.json, "layers"));
        json_array_extend(diff_ids, (json_t *)ids);
    }
    at_pkg_manifest_done(&m);
    return rc;
}

static enum at_rc make(const struct at_pkg_store *store, const struct at_pkg_image *image,
                       const char *folder, char ret_digest[AT_PKG_DIGEST_BYTES], struct at_err *err)
{
    struct at_pkg_model model = {0};
    AT_CLEANUP(at_cleanup_json) json_t *layers = json_array();
    AT_CLEANUP(at_cleanup_json) json_t *diff_ids = json_array();
    char digest[AT_PKG_DIGEST_BYTES];
    size_t len = 0;
    enum at_rc rc = at_pkg_model_read(folder, &model, err);
    if (rc == AT_OK && model.runner[0] == '\0') {
        rc = at_err_set(err, AT_UNSUPPORTED,
                        "%s: it names no runner (onnx or llm), so nothing can serve it",
                        AT_PKG_YAML);
    }
    if (rc == AT_OK && image->base_digest != NULL) {
        rc = base_layers(store, image->base_digest, layers, diff_ids, err);
    }
    rc = rc != AT_OK ? rc : program_layer(store, image, layers, diff_ids, err);
    rc = rc != AT_OK ? rc : model_layer(store, folder, layers, diff_ids, err);
    if (rc == AT_OK) {
        AT_CLEANUP(at_cleanup_json) json_t *config = config_json(image, &model, diff_ids);
        rc = put_json(store, config, digest, &len, err);
    }
    if (rc == AT_OK) {
        AT_CLEANUP(at_cleanup_json)
        json_t *manifest = json_pack(
            "{s:i,s:s,s:o,s:O,s:{s:s}}", "schemaVersion", 2, "mediaType", AT_PKG_TYPE_MANIFEST,
            "config", at_pkg_descriptor_json(AT_PKG_TYPE_IMAGE_CONFIG, digest, (int64_t)len, NULL),
            "layers", layers, "annotations", "dev.atoll.model.package", image->model_digest);
        rc = put_json(store, manifest, ret_digest, &len, err);
    }
    at_pkg_model_done(&model);
    return rc;
}

enum at_rc at_pkg_image_make(const struct at_pkg_store *store, const struct at_pkg_image *image,
                             char ret_digest[AT_PKG_DIGEST_BYTES], struct at_err *err)
{
    uint64_t noise = 0;
    at_sys_random(at_sys_real(), &noise, sizeof noise);
    AT_CLEANUP(at_cleanup_free)
    char *folder =
        at_asprintf("%s/.model-%016llx", at_pkg_store_root(store), (unsigned long long)noise);
    enum at_rc rc = at_pkg_unpack(store, image->model_digest, folder, true, err);
    rc = rc != AT_OK ? rc : make(store, image, folder, ret_digest, err);
    enum at_rc ignored = at_tree_remove(folder, NULL);
    (void)ignored;
    return rc;
}
