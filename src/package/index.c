/* The index of a layout: names and what they stand for. */
#include "core/map.h"
#include "core/mem.h"
#include "core/str.h"
#include "package/store_priv.h"
#include "sys/entry.h"
#include "sys/fd.h"
#include "sys/file.h"

#include <stdio.h>
#include <string.h>

static enum at_rc index_json(const struct at_pkg_store *store, json_t **ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/index.json", store->root);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    struct at_pkg_index index = {0};
    enum at_rc rc = at_file_read(path, PKG_DOCUMENT_BYTES_MAX, &text, err);
    rc = rc != AT_OK ? rc : at_pkg_index_parse(text.data, text.len, arena, &index, err);
    if (rc != AT_OK) {
        return at_err_wrap(err, rc, "%s", path);
    }
    *ret = json_incref(index.json);
    at_pkg_index_done(&index);
    return AT_OK;
}

enum at_rc at_pkg_store_index(const struct at_pkg_store *store, struct at_arena *arena,
                              struct at_pkg_index *ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/index.json", store->root);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = at_file_read(path, PKG_DOCUMENT_BYTES_MAX, &text, err);
    rc = rc != AT_OK ? rc : at_pkg_index_parse(text.data, text.len, arena, ret, err);
    return rc != AT_OK ? at_err_wrap(err, rc, "%s", path) : AT_OK;
}

/* A few of the names, for who asked for another. */
static void names_of(const struct at_pkg_index *index, char *out, size_t size)
{
    size_t len = 0;
    out[0] = '\0';
    for (size_t i = 0; i < index->n_manifests && i < 8; i++) {
        const char *name = at_pkg_note(&index->manifests[i], AT_PKG_NOTE_NAME);
        int n = snprintf(out + len, size - len, "%s%.60s", i > 0 ? ", " : "",
                         name != NULL ? name : index->manifests[i].digest);
        len += n > 0 && (size_t)n < size - len ? (size_t)n : 0;
    }
}

enum at_rc at_pkg_store_find(const struct at_pkg_store *store, const char *wanted,
                             char ret_digest[AT_PKG_DIGEST_BYTES], struct at_err *err)
{
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    struct at_pkg_index index = {0};
    const struct at_pkg_descriptor *found = NULL;
    bool any = wanted == NULL || wanted[0] == '\0';
    char names[400];
    if (!any && at_pkg_digest_is(wanted, strlen(wanted)) && at_pkg_store_has(store, wanted, -1)) {
        snprintf(ret_digest, AT_PKG_DIGEST_BYTES, "%s", wanted);
        return AT_OK;
    }
    enum at_rc rc = at_pkg_store_index(store, arena, &index, err);
    if (rc != AT_OK) {
        return rc;
    }
    for (size_t i = 0; i < index.n_manifests && found == NULL; i++) {
        const struct at_pkg_descriptor *d = &index.manifests[i];
        bool is = any ? index.n_manifests == 1
                      : at_streq(at_pkg_note(d, AT_PKG_NOTE_NAME), wanted) ||
                            strcmp(d->digest, wanted) == 0;
        found = is ? d : NULL;
    }
    names_of(&index, names, sizeof names);
    if (found != NULL) {
        snprintf(ret_digest, AT_PKG_DIGEST_BYTES, "%s", found->digest);
    } else if (any && index.n_manifests > 1) {
        rc = at_err_set(err, AT_INVALID, "%s holds several packages; name one: %s", store->root,
                        names);
    } else {
        rc = at_err_set(err, AT_NOT_FOUND, "%s holds no package %s%s%s", store->root,
                        any ? "at all" : wanted, names[0] != '\0' ? "; there are: " : "", names);
    }
    at_pkg_index_done(&index);
    return rc;
}

/* Takes name off whatever has it. A manifest without a name stays as long as it is needed: never,
 * so its entry goes. */
static bool take_name(json_t *manifests, const char *name)
{
    bool had = false;
    for (size_t i = json_array_size(manifests); i-- > 0;) {
        const json_t *notes = json_object_get(json_array_get(manifests, i), "annotations");
        if (at_streq(json_string_value(json_object_get(notes, AT_PKG_NOTE_NAME)), name)) {
            json_array_remove(manifests, i);
            had = true;
        }
    }
    return had;
}

static enum at_rc index_write(const struct at_pkg_store *store, const json_t *json,
                              struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/index.json", store->root);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (at_json_dump(json, &text) != AT_OK) {
        return at_err_set(err, AT_TOO_LARGE, "%s would be too large", path);
    }
    return at_file_write_atomic(path, text.data, text.len, 0644, err);
}

/* One change at a time, of all processes. */
static enum at_rc index_lock(const struct at_pkg_store *store, int *ret_fd, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/index.lock", store->parts);
    int64_t bytes = 0;
    enum at_rc rc = at_dir_make(store->parts, 0700, err);
    return rc != AT_OK ? rc : at_entry_open_locked(path, 0644, NULL, ret_fd, &bytes, err);
}

enum at_rc at_pkg_store_name(const struct at_pkg_store *store, const char *name,
                             const json_t *descriptor, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *json = NULL;
    int fd = -1;
    enum at_rc rc = index_lock(store, &fd, err);
    if (rc != AT_OK) {
        return rc;
    }
    rc = index_json(store, &json, err);
    if (rc == AT_OK) {
        json_t *manifests = json_object_get(json, "manifests");
        json_t *entry = json_deep_copy(descriptor);
        json_t *notes = json_object_get(entry, "annotations");
        if (!json_is_object(notes)) {
            notes = json_object();
            json_object_set_new(entry, "annotations", notes);
        }
        json_object_set_new(notes, AT_PKG_NOTE_NAME, json_string(name));
        take_name(manifests, name);
        json_array_append_new(manifests, entry);
        rc = index_write(store, json, err);
    }
    at_fd_close(fd);
    return rc;
}

enum at_rc at_pkg_store_unname(const struct at_pkg_store *store, const char *name,
                               struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *json = NULL;
    int fd = -1;
    enum at_rc rc = index_lock(store, &fd, err);
    if (rc != AT_OK) {
        return rc;
    }
    rc = index_json(store, &json, err);
    if (rc == AT_OK && !take_name(json_object_get(json, "manifests"), name)) {
        rc = at_err_set(err, AT_NOT_FOUND, "%s holds no package %s", store->root, name);
    }
    rc = rc != AT_OK ? rc : index_write(store, json, err);
    at_fd_close(fd);
    return rc;
}

/* --- what nothing needs --- */

/* digest and what it names, into needed. A document that cannot be read needs nothing. */
static void need(const struct at_pkg_store *store, const char *digest, struct at_map *needed,
                 int depth)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    AT_CLEANUP(at_cleanup_json) json_t *json = NULL;
    if (at_map_put(needed, digest + strlen("sha256:"), (void *)store) != NULL || depth > 4 ||
        at_pkg_store_read(store, digest, PKG_DOCUMENT_BYTES_MAX, &text, NULL) != AT_OK ||
        at_json_parse(text.data, text.len, &json, NULL) != AT_OK) {
        json = NULL;
        return;
    }
    const json_t *lists[] = {json_object_get(json, "layers"), json_object_get(json, "manifests")};
    const char *config =
        json_string_value(json_object_get(json_object_get(json, "config"), "digest"));
    if (config != NULL && at_pkg_digest_is(config, strlen(config))) {
        at_map_put(needed, config + strlen("sha256:"), (void *)store);
    }
    for (size_t k = 0; k < AT_ARRAY_LEN(lists); k++) {
        for (size_t i = 0; i < json_array_size(lists[k]); i++) {
            const char *d =
                json_string_value(json_object_get(json_array_get(lists[k], i), "digest"));
            if (d == NULL || !at_pkg_digest_is(d, strlen(d))) {
                continue;
            }
            if (k == 0) {
                at_map_put(needed, d + strlen("sha256:"), (void *)store);
            } else {
                need(store, d, needed, depth + 1);
            }
        }
    }
}

static int64_t sweep(const struct at_pkg_store *store, const struct at_map *needed)
{
    char **names = NULL;
    size_t n = 0;
    int64_t freed = 0;
    if (at_dir_list(store->blobs, &names, &n, NULL) != AT_OK) {
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/%s", store->blobs, names[i]);
        if (at_map_get(needed, names[i]) == NULL) {
            int64_t bytes = at_file_size(path);
            freed += at_file_remove(path, NULL) == AT_OK && bytes > 0 ? bytes : 0;
        }
        at_free(names[i]);
    }
    at_free(names);
    return freed;
}

enum at_rc at_pkg_store_use(const struct at_pkg_store *store, int *ret_fd, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/use.lock", store->parts);
    enum at_rc rc = at_dir_make(store->parts, 0700, err);
    return rc != AT_OK ? rc : at_entry_lock(path, true, true, ret_fd, err);
}

enum at_rc at_pkg_store_collect(const struct at_pkg_store *store, int64_t *ret_bytes,
                                struct at_err *err)
{
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    struct at_pkg_index index = {0};
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/use.lock", store->parts);
    int fd = -1;
    enum at_rc rc = at_dir_make(store->parts, 0700, err);
    rc = rc != AT_OK ? rc : at_entry_lock(path, false, false, &fd, err);
    if (rc != AT_OK) {
        return rc;
    }
    rc = at_pkg_store_index(store, arena, &index, err);
    if (rc == AT_OK) {
        struct at_map *needed = at_map_new();
        for (size_t i = 0; i < index.n_manifests; i++) {
            need(store, index.manifests[i].digest, needed, 0);
        }
        *ret_bytes = sweep(store, needed);
        at_map_free(needed);
        at_pkg_index_done(&index);
    }
    at_fd_close(fd);
    return rc;
}
